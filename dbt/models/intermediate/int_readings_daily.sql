with

hours as (

    select
        *,
        cast(hour_start as date) as reading_date,
        {{ hour_of_day('hour_start') }} as hour_of_day
    from {{ ref('int_readings_hourly') }}

),

ranked as (

    select
        *,
        row_number() over (
            partition by meter_id, reading_date
            order by max_power_kw desc, hour_of_day asc
        ) as power_rank
    from hours

),

daily as (

    select
        meter_id,
        reading_date,
        sum(total_consumption_kwh) as daily_consumption_kwh,
        max(case when power_rank = 1 then hour_of_day end) as peak_hour,
        max(max_power_kw) as peak_power_kw,
        cast(sum(reading_count) as bigint) as reading_count,
        sum(covered_hours) as covered_hours
    from ranked
    group by 1, 2

),

expected as (

    select
        *,
        {{ expected_readings('24', 'reading_count', 'covered_hours') }} as expected_reading_count
    from daily

)

select
    meter_id,
    reading_date,
    daily_consumption_kwh,
    peak_hour,
    peak_power_kw,
    reading_count,
    expected_reading_count,
    {{ as_double('reading_count') }} / expected_reading_count as completeness,
    covered_hours
from expected
