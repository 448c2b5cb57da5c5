-- Each meter's energy is the same in staging and in everything summed from it. Doubles round in the last digits.
with

staged as (

    select
        meter_id,
        {{ as_double('sum(consumption_kwh)') }} as consumption_kwh,
        count(*) as reading_count
    from {{ ref('stg_meter_readings') }}
    group by 1

),

summed as (

    select
        'int_readings_hourly' as found_in,
        meter_id,
        sum(total_consumption_kwh) as consumption_kwh,
        sum(reading_count) as reading_count
    from {{ ref('int_readings_hourly') }}
    group by 1, 2

    union all

    select
        'int_readings_daily' as found_in,
        meter_id,
        sum(daily_consumption_kwh) as consumption_kwh,
        sum(reading_count) as reading_count
    from {{ ref('int_readings_daily') }}
    group by 1, 2

    union all

    select
        'int_consumption_features' as found_in,
        meter_id,
        sum(consumption_kwh) as consumption_kwh,
        count(*) as reading_count
    from {{ ref('int_consumption_features') }}
    group by 1, 2

    union all

    -- the sums by day, week and month have to agree with it, each by itself
    select
        'mart_consumption_metrics, ' || period_type as found_in,
        meter_id,
        sum(consumption_kwh) as consumption_kwh,
        sum(reading_count) as reading_count
    from {{ ref('mart_consumption_metrics') }}
    group by 1, 2

)

select
    summed.found_in,
    coalesce(staged.meter_id, summed.meter_id) as meter_id,
    staged.consumption_kwh as staged_kwh,
    summed.consumption_kwh as summed_kwh,
    staged.reading_count as staged_readings,
    summed.reading_count as summed_readings
from staged
full outer join summed on staged.meter_id = summed.meter_id
where
    summed.meter_id is null
    or staged.meter_id is null
    or staged.reading_count <> summed.reading_count
    or abs(staged.consumption_kwh - summed.consumption_kwh) > 1e-9 * greatest(1, abs(staged.consumption_kwh))
