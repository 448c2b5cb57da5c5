with

readings as (

    select
        meter_id,
        reading_timestamp,
        interval_minutes,
        consumption_kwh,
        voltage_v,
        {{ power_kw('consumption_kwh', 'interval_minutes') }} as power_kw
    from {{ ref('stg_meter_readings') }}

),

hourly as (

    select
        meter_id,
        {{ hour_start('reading_timestamp') }} as hour_start,
        max(power_kw) as max_power_kw,
        min(power_kw) as min_power_kw,
        {{ as_double('sum(consumption_kwh)') }} as total_consumption_kwh,
        avg(voltage_v) as avg_voltage_v,
        count(*) as reading_count,
        {{ as_double('sum(interval_minutes)') }} / 60 as covered_hours
    from readings
    group by 1, 2

)

select
    meter_id,
    hour_start,
    total_consumption_kwh / covered_hours as avg_power_kw,
    max_power_kw,
    min_power_kw,
    total_consumption_kwh,
    avg_voltage_v,
    reading_count,
    covered_hours
from hourly
