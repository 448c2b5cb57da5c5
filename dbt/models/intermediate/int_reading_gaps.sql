with

readings as (

    select
        meter_id,
        reading_timestamp,
        interval_minutes,
        {{ add_minutes('reading_timestamp', 'interval_minutes') }} as next_due,
        lead(reading_timestamp) over (partition by meter_id order by reading_timestamp) as next_timestamp
    from {{ ref('stg_meter_readings') }}

),

gaps as (

    select
        *,
        {{ epoch_seconds('next_timestamp') }} - {{ epoch_seconds('reading_timestamp') }} as seconds_between
    from readings
    where next_timestamp > next_due

)

select
    meter_id,
    next_due as gap_start,
    next_timestamp as gap_end,
    -- the due instants strictly between both readings, also where the next one came off the beat
    cast(floor((seconds_between - 1) / (interval_minutes * 60.0)) as bigint) as missing_readings
from gaps
