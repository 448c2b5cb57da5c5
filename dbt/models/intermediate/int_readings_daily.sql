{{ config(
    unique_key=['meter_id', 'reading_date'],
    indexes=[{'columns': ['meter_id', 'reading_date']}],
    pre_hook="{{ find_affected_days() }}"
) }}

with

hours as (

    select
        *,
        cast(hour_start as date) as reading_date,
        {{ hour_of_day('hour_start') }} as hour_of_day
    from {{ rows_of_days(ref('int_readings_hourly'), 'cast(hour_start as date)', 'affected') }}

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
        sum(exact_consumption_kwh) as exact_consumption_kwh,
        max(case when power_rank = 1 then hour_of_day end) as peak_hour,
        max(max_power_kw) as peak_power_kw,
        cast(sum(reading_count) as bigint) as reading_count,
        cast(sum(covered_minutes) as bigint) as covered_minutes
    from ranked
    group by 1, 2

),

expected as (

    select
        *,
        {{ expected_readings('24', 'reading_count', 'covered_minutes') }} as expected_reading_count
    from daily

)

select
    meter_id,
    reading_date,
    {{ as_double('exact_consumption_kwh') }} as daily_consumption_kwh,
    peak_hour,
    peak_power_kw,
    reading_count,
    expected_reading_count,
    {{ as_double('reading_count') }} / expected_reading_count as completeness,
    {{ as_double('covered_minutes') }} / 60 as covered_hours,
    covered_minutes,
    exact_consumption_kwh
from expected
