{#  Which days of which meters a change affects, and how to read no more than those. Each find_* macro is a pre-hook
    that makes temporary tables, dropped at the end of the transaction and counted for the planner:
    - `affected`: what the model makes anew, as (meter_id, reading_date) unless said otherwise;
    - `input_days` where the model looks further: what it reads for that, as (meter_id, reading_date).
    Which days have readings is taken from int_readings_daily. It is named outside of the ifs: dbt has to know before
    anything runs that it comes first.
    More than is needed does no harm: a row made anew comes out the same. All are made by incremental builds only, which
    is to say on PostgreSQL only (see incremental.sql). #}


{#  Days that changed, and those up to `reach_days` later that have readings. #}
{% macro find_affected_days(reach_days=0) -%}
    {% set daily = ref('int_readings_daily') if reach_days %}
    {% if builds_changes_only() %}
        {{ find_changed_days() }}
        {{ make_days('affected', days_with_readings(daily, reach_days) if reach_days else 'table changed') }}
    {% endif %}
{%- endmacro %}


{#  Of those also the input: each of the affected days, and the days that lie each of `days_before` before it. #}
{% macro find_days_before(days_before) -%}
    {% if builds_changes_only() %}
        {% set input_days %}
            select distinct
                affected.meter_id,
                affected.reading_date - shifts.days as reading_date
            from affected
            cross join unnest(array{{ [0] + (days_before | list) }}) as shifts (days)
        {% endset %}
        {{ make_days('input_days', input_days) }}
    {% endif %}
{%- endmacro %}


{#  Days on which a gap can end by a change: those that changed, and the meter's next day with readings. The input has
    the days with readings before them too. #}
{% macro find_affected_gaps() -%}
    {% set daily = ref('int_readings_daily') %}
    {% if builds_changes_only() %}
        {% set with_next %}
            table changed
            union
            {{ neighbours(daily, 'changed', '>', 'asc') }}
        {% endset %}
        {% set with_previous %}
            table affected
            union
            {{ neighbours(daily, 'affected', '<', 'desc') }}
        {% endset %}
        {{ find_changed_days() }}
        {{ make_days('affected', with_next) }}
        {{ make_days('input_days', with_previous) }}
    {% endif %}
{%- endmacro %}


{#  Periods that hold a changed day, and those after them, which are compared with them, as (meter_id, period_type,
    period_start). The input is the days with readings of the changed months and of those on both sides: all of these
    periods, and the ones before them, lie in it whole. #}
{% macro find_affected_periods() -%}
    {% set daily = ref('int_readings_daily') %}
    {% if builds_changes_only() %}
        {% set input_days %}
            select
                months.meter_id,
                days.reading_date
            from (
                select distinct
                    changed.meter_id,
                    {{ shift_period('month', period_start('month', 'changed.reading_date'), 'shifts.months') }} as first_day
                from changed
                cross join unnest(array[-1, 0, 1]) as shifts (months)
            ) as months
            cross join lateral (
                select candidates.reading_date
                from {{ daily }} as candidates
                where
                    candidates.meter_id = months.meter_id
                    and candidates.reading_date >= months.first_day
                    and candidates.reading_date < {{ shift_period('month', 'months.first_day', 1) }}
                offset 0
            ) as days
        {% endset %}
        {{ find_changed_days() }}
        {{ make_table('affected', changed_periods(), ['meter_id', 'period_type', 'period_start']) }}
        {{ make_days('input_days', input_days) }}
    {% endif %}
{%- endmacro %}


{#  The relation, or in an incremental build those of its rows that lie on one of the `days`; `day` is SQL of a row's
    day, written as in the relation's index. Days are looked up one by one: OFFSET 0 keeps the planner from joining in
    any other way, so that statistics of yesterday cannot lead it to read the whole history. To be used without an
    alias: what dbt puts in place of a relation for `--empty` has one. #}
{% macro rows_of_days(relation, day, days) -%}
    {% if not builds_changes_only() %}
        {{ relation }}
    {% else %}
        (
            select found.*
            from {{ days }} as days
            cross join lateral (
                select *
                from {{ relation }} as candidates
                where candidates.meter_id = days.meter_id and {{ day }} = days.reading_date
                offset 0
            ) as found
        ) as rows_of_days
    {% endif %}
{%- endmacro %}


{#  The relation, or in an incremental build those of its rows whose `keys` are affected. #}
{% macro affected_rows(relation, keys) -%}
    {% if not builds_changes_only() %}
        {{ relation }}
    {% else %}
        (select * from {{ relation }} where ({{ keys | join(', ') }}) in (select * from affected))
    {% endif %}
{%- endmacro %}


{#  The raw readings, or in an incremental build those of the affected days. They have no index by meter, which would
    cost more than it saves: the days of all meters are read through the block ranges that hold them, days in a row at once. #}
{% macro received_readings() -%}
    {% if not builds_changes_only() %}
        {{ source('raw_data', 'meter_readings') }}
    {% else %}
        (
            select found.*
            from ({{ spans('(select distinct reading_date from affected)', by_meter=false) }}) as spans
            cross join lateral (
                select *
                from {{ source('raw_data', 'meter_readings') }} as candidates
                where candidates.timestamp >= spans.first_day and candidates.timestamp < spans.last_day + 1
                offset 0
            ) as found
            inner join affected
                on found.meter_id = affected.meter_id and cast(found.timestamp as date) = affected.reading_date
        ) as received_readings
    {% endif %}
{%- endmacro %}


{#  Tells `energy-iot` how much the model reads, by a line in dbt's log; `counts` is SQL of one row of whole numbers. #}
{% macro tell_rows_read(counts) -%}
    {% if execute %}
        {% set found = run_query(counts) %}
        {% set figures = {} %}
        {% for name in found.column_names %}
            {% do figures.update({name: found.rows[0][name] | int}) %}
        {% endfor %}
        {% do log(tojson({'figures': figures})) %}
    {% endif %}
{%- endmacro %}


{# --- parts of the above ------------------------------------------------------------------------------------------ #}


{#  What changed in raw_data since the model's state, as temporary table `changed`. #}
{% macro find_changed_days() -%}
    {% set changed %}
        select distinct
            meter_id,
            reading_date
        from raw_data.changed_days
        where change_id > {{ followed_until() }}
    {% endset %}
    {{ make_days('changed', changed) }}
{%- endmacro %}


{#  The changed days, and those up to `reach_days` after them that have readings. #}
{% macro days_with_readings(daily, reach_days) -%}
    table changed
    union
    select
        spans.meter_id,
        days.reading_date
    from ({{ spans('changed', by_meter=true, reach_days=reach_days) }}) as spans
    cross join lateral (
        select candidates.reading_date
        from {{ daily }} as candidates
        where candidates.meter_id = spans.meter_id and candidates.reading_date between spans.first_day and spans.last_day
        offset 0
    ) as days
{%- endmacro %}


{#  The periods that hold a changed day, and those after them. #}
{% macro changed_periods() -%}
    {% for period in period_types() %}
        {% set start = period_start(period, 'reading_date') %}
        select
            meter_id,
            '{{ period }}' as period_type,
            {{ start }} as period_start
        from changed
        union
        select
            meter_id,
            '{{ period }}' as period_type,
            {{ shift_period(period, start, 1) }} as period_start
        from changed
        {% if not loop.last %}union{% endif %}
    {% endfor %}
{%- endmacro %}


{#  For each of the days the meter's nearest day with readings, after it ('>', 'asc') or before it ('<', 'desc'). #}
{% macro neighbours(daily, days, side, order) -%}
    select
        days.meter_id,
        nearest.reading_date
    from {{ days }} as days
    cross join lateral (
        select candidates.reading_date
        from {{ daily }} as candidates
        where candidates.meter_id = days.meter_id and candidates.reading_date {{ side }} days.reading_date
        order by candidates.meter_id {{ order }}, candidates.reading_date {{ order }}
        limit 1
    ) as nearest
{%- endmacro %}


{#  Days as few spans, each `reach_days` longer at its end: many changed days in a row are one look-up, not many. #}
{% macro spans(days, by_meter, reach_days=0) -%}
    {% set meter = 'meter_id, ' if by_meter %}
    {% set partition = 'partition by meter_id' if by_meter %}
    select
        {{ meter }}
        min(reading_date) as first_day,
        max(reading_date) + {{ reach_days }} as last_day
    from (
        select
            *,
            count(*) filter (where starts) over ({{ partition }} order by reading_date) as span
        from (
            select
                *,
                lag(reading_date) over ({{ partition }} order by reading_date) + {{ reach_days + 1 }} < reading_date
                    is not false as starts
            from {{ days }} as days
        ) as marked
    ) as numbered
    group by {{ meter }} span
{%- endmacro %}


{#  A temporary table of days. #}
{% macro make_days(name, query) -%}
    {{ make_table(name, query, ['meter_id', 'reading_date']) }}
{%- endmacro %}


{#  A temporary table with a key and statistics. #}
{% macro make_table(name, query, key) -%}
    create temporary table {{ name }} on commit drop as
    {{ query }};
    create unique index on {{ name }} ({{ key | join(', ') }});
    analyze {{ name }};
{%- endmacro %}
