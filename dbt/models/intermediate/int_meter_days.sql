{#  Each hour of the day gets a column: what follows is added up in the order of the clock, so that doubles come out the
    same whatever order the rows lie in, and no sort of all hours is needed. #}

{{ config(
    unique_key=['meter_id', 'reading_date'],
    indexes=[{'columns': ['meter_id', 'reading_date']}, {'columns': ['reading_date']}],
    pre_hook="{{ find_affected_days() }}"
) }}

{%- set no_supply_v = 50 %}
{%- set hours = range(24) %}

with

hours as (

    select
        meter_id,
        cast(hour_start as date) as reading_date,
        {{ hour_of_day('hour_start') }} as hour_of_day,
        total_consumption_kwh,
        max_power_kw,
        min_power_kw,
        avg_voltage_v,
        reading_count,
        covered_minutes
    from {{ rows_of_days(ref('int_readings_hourly'), 'cast(hour_start as date)', 'affected') }}

),

clock as (

    select
        meter_id,
        reading_date,
        {% for hour in hours %}
            max(case when hour_of_day = {{ hour }} then total_consumption_kwh end) as h{{ hour }},
        {% endfor %}
        max(max_power_kw) as max_power_kw,
        min(min_power_kw) as min_power_kw,
        count(*) as hour_count,
        sum(case when total_consumption_kwh = 0 then 1 else 0 end) as zero_hours,
        sum(case when total_consumption_kwh = 0 and avg_voltage_v < {{ no_supply_v }} then 1 else 0 end)
            as unsupplied_hours,
        sum(case when avg_voltage_v >= {{ no_supply_v }} then 1 else 0 end) as energised_hours,
        sum(reading_count) as reading_count,
        sum(covered_minutes) as covered_minutes
    from hours
    group by 1, 2

),

compared as (

    select
        *,
        {% for hour in hours %}
            {{ '+ ' if not loop.first }}coalesce(h{{ hour }}, 0)
        {% endfor %}
            as consumption_kwh,
        {% for hour in hours %}
            {{ '+ ' if not loop.first }}coalesce(h{{ hour }} * h{{ hour }}, 0)
        {% endfor %}
            as square_sum_kwh2,
        {% for hour in hours[1:] %}
            {{ '+ ' if not loop.first }}coalesce(abs(h{{ hour }} - h{{ hour - 1 }}), 0)
        {% endfor %}
            as change_sum_kwh,
        {% for hour in hours[1:] %}
            {{ '+ ' if not loop.first }}case when h{{ hour }} = h{{ hour - 1 }} and h{{ hour }} > 0 then 1 else 0 end
        {% endfor %}
            as repeated_hours
    from clock

)

select
    meter_id,
    reading_date,
    consumption_kwh as daily_consumption_kwh,
    {% for block in range(8) %}
        coalesce(h{{ 3 * block }}, 0) + coalesce(h{{ 3 * block + 1 }}, 0) + coalesce(h{{ 3 * block + 2 }}, 0)
            as block_{{ block + 1 }}_kwh,
    {% endfor %}
    max_power_kw as peak_power_kw,
    min_power_kw as base_power_kw,
    consumption_kwh * 60 / covered_minutes / nullif(max_power_kw, 0) as load_factor,
    -- greatest: rounding may leave an even day a hair below zero
    sqrt(greatest(square_sum_kwh2 / hour_count - (consumption_kwh / hour_count) * (consumption_kwh / hour_count), 0))
    / nullif(consumption_kwh / hour_count, 0) as hourly_variation,
    change_sum_kwh / nullif(consumption_kwh, 0) as hourly_change,
    cast(hour_count as integer) as hour_count,
    cast(zero_hours as integer) as zero_hours,
    cast(unsupplied_hours as integer) as unsupplied_hours,
    cast(energised_hours as integer) as energised_hours,
    cast(repeated_hours as integer) as repeated_hours,
    {{ as_double('covered_minutes') }} / 60 as covered_hours,
    {{ as_double('reading_count') }}
    / {{ expected_readings('24', 'reading_count', 'covered_minutes') }} as completeness
from compared
