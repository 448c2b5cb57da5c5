{#  Whole seconds since 1970. Windows are ordered by it and never by the timestamp: ClickHouse takes integer offsets in
    RANGE only, PostgreSQL and Spark take any number, so seconds suit all three. #}
{% macro epoch_seconds(timestamp) -%}
    {{ return(adapter.dispatch('epoch_seconds', 'energy_iot')(timestamp)) }}
{%- endmacro %}

{#  date_part gives a double; extract gives a numeric, which PostgreSQL is several times slower to make. #}
{% macro default__epoch_seconds(timestamp) -%}
    cast(floor(date_part('epoch', {{ timestamp }})) as bigint)
{%- endmacro %}

{% macro clickhouse__epoch_seconds(timestamp) -%}
    toInt64(toUnixTimestamp({{ timestamp }}))
{%- endmacro %}

{#  Spark's date_part knows no 'epoch'. #}
{% macro spark__epoch_seconds(timestamp) -%}
    unix_timestamp({{ timestamp }})
{%- endmacro %}


{#  Frame of a window ordered by epoch_seconds: the current reading and those up to `seconds` before. ROWS would count
    readings instead, and meters drop readings. #}
{% macro preceding_seconds(seconds) -%}
    range between {{ seconds | int }} preceding and current row
{%- endmacro %}


{#  Frame of a window ordered by epoch_seconds: from `oldest` to `newest` days before the current row. #}
{% macro days_before(oldest, newest) -%}
    range between {{ (oldest | int) * 24 * 60 * 60 }} preceding and {{ (newest | int) * 24 * 60 * 60 }} preceding
{%- endmacro %}


{#  Start of the hour that a timestamp lies in. #}
{% macro hour_start(timestamp) -%}
    {{ dbt.date_trunc('hour', timestamp) }}
{%- endmacro %}


{#  A timestamp some minutes later. #}
{% macro add_minutes(timestamp, minutes) -%}
    {{ dbt.dateadd('minute', minutes, timestamp) }}
{%- endmacro %}


{#  Hour of the day, 0-23. #}
{% macro hour_of_day(timestamp) -%}
    {{ return(adapter.dispatch('hour_of_day', 'energy_iot')(timestamp)) }}
{%- endmacro %}

{% macro default__hour_of_day(timestamp) -%}
    cast(date_part('hour', {{ timestamp }}) as integer)
{%- endmacro %}

{% macro clickhouse__hour_of_day(timestamp) -%}
    toInt32(toHour({{ timestamp }}))
{%- endmacro %}


{#  Day of the week, 0 (Sunday) to 6. #}
{% macro day_of_week(timestamp) -%}
    {{ return(adapter.dispatch('day_of_week', 'energy_iot')(timestamp)) }}
{%- endmacro %}

{% macro default__day_of_week(timestamp) -%}
    cast(date_part('dow', {{ timestamp }}) as integer)
{%- endmacro %}

{#  ClickHouse counts from Monday (1) to Sunday (7). #}
{% macro clickhouse__day_of_week(timestamp) -%}
    toInt32(toDayOfWeek({{ timestamp }}) % 7)
{%- endmacro %}

{#  Spark counts from Sunday (1) to Saturday (7). #}
{% macro spark__day_of_week(timestamp) -%}
    dayofweek({{ timestamp }}) - 1
{%- endmacro %}


{#  Month of the year, 1-12. #}
{% macro month_of_year(timestamp) -%}
    {{ return(adapter.dispatch('month_of_year', 'energy_iot')(timestamp)) }}
{%- endmacro %}

{% macro default__month_of_year(timestamp) -%}
    cast(date_part('month', {{ timestamp }}) as integer)
{%- endmacro %}

{% macro clickhouse__month_of_year(timestamp) -%}
    toInt32(toMonth({{ timestamp }}))
{%- endmacro %}


{#  The kinds of period that consumption is summed up by. #}
{% macro period_types() %}
    {{ return(['day', 'week', 'month']) }}
{% endmacro %}


{#  First day of the day, ISO week (Monday) or month that a date lies in. dbt's own date_trunc would do on PostgreSQL
    and Spark, but ClickHouse has to be told that weeks start on Monday. #}
{% macro period_start(period, date) -%}
    {{ return(adapter.dispatch('period_start', 'energy_iot')(period, date)) }}
{%- endmacro %}

{% macro default__period_start(period, date) -%}
    cast({{ dbt.date_trunc(period, date) }} as date)
{%- endmacro %}

{% macro clickhouse__period_start(period, date) -%}
    {%- if period == 'week' -%} toDate(toStartOfWeek({{ date }}, 1))
    {%- else -%} toDate({{ dbt.date_trunc(period, date) }})
    {%- endif -%}
{%- endmacro %}


{#  First day of the period after (or, with a negative number, before) the one that starts on `start`. #}
{% macro shift_period(period, start, number) -%}
    cast({{ dbt.dateadd(period, number, start) }} as date)
{%- endmacro %}


{#  Hours that the period starting on `start` holds. #}
{% macro period_hours(period, start) -%}
    {{ dbt.datediff(start, shift_period(period, start, 1), 'day') }} * 24
{%- endmacro %}
