{{ config(
    unique_key=['meter_id', 'cast(hour_start as date)'],
    indexes=[{'columns': ['meter_id', '(cast(hour_start as date))']}],
    pre_hook=["{{ find_affected_days() }}", "{{ follow_meters() }}"]
) }}

with

readings as (

    select
        meter_id,
        reading_timestamp,
        interval_minutes,
        consumption_kwh,
        voltage_v,
        {{ power_kw('consumption_kwh', 'interval_minutes') }} as power_kw
    from {{ rows_of_days(ref('stg_meter_readings'), 'cast(reading_timestamp as date)', 'affected') }}

),

hourly as (

    select
        meter_id,
        {{ hour_start('reading_timestamp') }} as hour_start,
        max(power_kw) as max_power_kw,
        min(power_kw) as min_power_kw,
        sum(consumption_kwh) as exact_consumption_kwh,
        sum(consumption_kwh * consumption_kwh) as exact_square_sum_kwh2,
        -- summed as numerics, which come to the same in any order; doubles do not
        {{ as_double('avg(cast(voltage_v as numeric))') }} as avg_voltage_v,
        count(*) as reading_count,
        sum(interval_minutes) as covered_minutes
    from readings
    group by 1, 2

)

select
    meter_id,
    hour_start,
    {{ power_kw('exact_consumption_kwh', 'covered_minutes') }} as avg_power_kw,
    max_power_kw,
    min_power_kw,
    {{ as_double('exact_consumption_kwh') }} as total_consumption_kwh,
    avg_voltage_v,
    reading_count,
    {{ as_double('covered_minutes') }} / 60 as covered_hours,
    covered_minutes,
    exact_consumption_kwh,
    exact_square_sum_kwh2
from hourly
