{#  Mean power over an interval, kW: energy in kWh over the interval's hours. #}
{% macro power_kw(consumption_kwh, interval_minutes) -%}
    {{ as_double(consumption_kwh) }} * 60 / {{ interval_minutes }}
{%- endmacro %}


{#  Readings that `hours` hold at the mean interval of those present: 24 hours of half-hours are 48. Where the interval
    changed on the way, the mean interval is what the count of present readings compares with. #}
{% macro expected_readings(hours, reading_count, covered_minutes) -%}
    cast(round({{ as_double(hours) }} * 60 * {{ reading_count }} / {{ covered_minutes }}) as bigint)
{%- endmacro %}
