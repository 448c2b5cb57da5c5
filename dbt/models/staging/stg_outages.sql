{{ config(
    unique_key=['node_id'],
    indexes=[{'columns': ['node_id', 'start_time']}],
    pre_hook="{{ find_affected_registry('outages', 'node_id') }}"
) }}

with

source as (

    select *
    from {{ source('raw_data', 'outages') }}

),

received as (

    select
        *,
        row_number() over (partition by node_id, start_time order by id desc) as recency
    from {{ affected_rows('source', ['node_id']) }} as outages

)

select
    node_id,
    start_time,
    end_time,
    cause
from received
where recency = 1
