{{ config(
    unique_key=['node_id', 'cast(reading_timestamp as date)'],
    indexes=[
        {'columns': ['node_id', '(cast(reading_timestamp as date))']},
        {'columns': ['(cast(reading_timestamp as date))']}
    ],
    pre_hook="{{ find_affected_node_days() }}"
) }}

with

received as (

    select
        *,
        -- as with customers' readings: the latest received wins, and one without energy is no correction
        row_number() over (partition by node_id, timestamp order by id desc) as recency
    from {{ received_network_readings() }}
    where energy_in_kwh is not null

),

files as (

    select
        file_id,
        interval_minutes
    from {{ source('raw_data', 'ingested_files') }}

)

select
    received.node_id,
    received.timestamp as reading_timestamp,
    files.interval_minutes,
    received.energy_in_kwh
from received
left join files on received.file_id = files.file_id
where received.recency = 1
