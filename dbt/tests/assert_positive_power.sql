-- Meters of consumption do not run backwards: no reading, hour, day or period has a negative power.
select
    'int_consumption_features' as found_in,
    meter_id,
    cast(reading_timestamp as text) as found_at,
    active_power_kw as power_kw
from {{ ref('int_consumption_features') }}
where active_power_kw < 0

union all

select
    'int_readings_hourly' as found_in,
    meter_id,
    cast(hour_start as text) as found_at,
    min_power_kw as power_kw
from {{ ref('int_readings_hourly') }}
where min_power_kw < 0

union all

select
    'mart_consumption_metrics' as found_in,
    meter_id,
    cast(period_start as text) as found_at,
    avg_power_kw as power_kw
from {{ ref('mart_consumption_metrics') }}
where avg_power_kw < 0
