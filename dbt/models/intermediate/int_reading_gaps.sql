{{ config(
    unique_key=['meter_id', 'cast(gap_end as date)'],
    indexes=[{'columns': ['meter_id', '(cast(gap_end as date))']}],
    pre_hook="{{ find_affected_gaps() }}"
) }}

with

readings as (

    select
        meter_id,
        reading_timestamp,
        lag(reading_timestamp) over meter_in_time as previous_timestamp,
        lag(interval_minutes) over meter_in_time as previous_interval_minutes
    from {{ rows_of_days(ref('stg_meter_readings'), 'cast(reading_timestamp as date)', 'input_days') }}
    window meter_in_time as (partition by meter_id order by reading_timestamp)

),

gaps as (

    select
        *,
        {{ add_minutes('previous_timestamp', 'previous_interval_minutes') }} as gap_start,
        {{ epoch_seconds('reading_timestamp') }} - {{ epoch_seconds('previous_timestamp') }} as seconds_between
    from readings

),

found as (

    select
        meter_id,
        gap_start,
        reading_timestamp as gap_end,
        -- the due instants strictly between both readings, also where the next one came off the beat
        cast(floor((seconds_between - 1) / (previous_interval_minutes * 60.0)) as bigint) as missing_readings
    from gaps
    where reading_timestamp > gap_start

)

select * from {{ affected_rows('found', ['meter_id', 'cast(gap_end as date)']) }} as affected_gaps
