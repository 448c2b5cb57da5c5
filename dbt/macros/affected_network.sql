{#  Which rows of the registry and of the network a change affects. As in affected_days.sql, each find_* macro is a
    pre-hook that makes a temporary table `affected`, in incremental builds only. A change of readings touches days of
    meters, one of network readings days of nodes; one of the registry is known by the first day from which the network
    is another one by it (raw_data.changes.affects_from), which a registry that is sent again as it was does not have. #}


{#  Nodes' days with changed readings. #}
{% macro find_affected_node_days() -%}
    {% if builds_changes_only() %}
        {% set changed %}
            select distinct
                node_id,
                reading_date
            from raw_data.changed_node_days
            where change_id > {{ followed_until() }}
        {% endset %}
        {{ make_table('affected', changed, ['node_id', 'reading_date']) }}
    {% endif %}
{%- endmacro %}


{#  All values of `key`, what rows of a kind of file are known by, once files of that kind came or went; else none.
    These tables are small: a registry is some thousand rows. #}
{% macro find_affected_registry(content, key) -%}
    {% if builds_changes_only() %}
        {% set touched %}
            select distinct {{ key }}
            from (
                select {{ key }} from raw_data.{{ content }}
                union all
                select {{ key }} from {{ this }}
            ) as known
            where exists (
                select 1
                from raw_data.changes
                where change_id > {{ followed_until() }} and content = '{{ content }}'
            )
        {% endset %}
        {{ make_table('affected', touched, [key]) }}
    {% endif %}
{%- endmacro %}


{#  The days on which the balance of the network may be another one, as (reading_date): what changes for one meter
    changes for all nodes above it. The input is the customers' days among them. #}
{% macro find_affected_balance() -%}
    {% set readings, meters = ref('stg_network_readings'), ref('stg_meters') %}
    {% if builds_changes_only() %}
        {% set days %}
            {{ days_with_other_readings() }}
            union
            select cast(reading_timestamp as date)
            from {{ readings }}
            where cast(reading_timestamp as date) >= {{ first_day_of_other_network() }}
            union
            select reading_date
            from {{ this }}
            where reading_date >= {{ first_day_of_other_network() }}
        {% endset %}
        {% set input_days %}
            select distinct
                meters.meter_id,
                affected.reading_date
            from affected
            inner join {{ meters }} as meters on {{ is_valid_on('meters', 'affected.reading_date') }}
        {% endset %}
        {{ make_table('affected', days, ['reading_date']) }}
        {{ make_days('input_days', input_days) }}
    {% endif %}
{%- endmacro %}


{#  The months that hold such a day, as (month_start). #}
{% macro find_affected_losses() -%}
    {% set balance = ref('int_energy_balance') %}
    {% set month = period_start('month', 'reading_date') %}
    {% if builds_changes_only() %}
        {% set months %}
            select {{ month }} as month_start
            from ({{ days_with_other_readings() }}) as days
            union
            select {{ month }}
            from {{ balance }}
            where {{ month }} >= {{ period_start('month', first_day_of_other_network()) }}
            union
            select month_start
            from {{ this }}
            where month_start >= {{ period_start('month', first_day_of_other_network()) }}
        {% endset %}
        {{ make_table('affected', months, ['month_start']) }}
    {% endif %}
{%- endmacro %}


{#  The raw readings of the network, or in an incremental build those of the affected days of nodes; see
    received_readings. #}
{% macro received_network_readings() -%}
    {% if not builds_changes_only() %}
        {{ source('raw_data', 'network_readings') }}
    {% else %}
        (
            select found.*
            from ({{ spans('(select distinct reading_date from affected)', by_meter=false) }}) as spans
            cross join lateral (
                select *
                from {{ source('raw_data', 'network_readings') }} as candidates
                where candidates.timestamp >= spans.first_day and candidates.timestamp < spans.last_day + 1
                offset 0
            ) as found
            inner join affected
                on found.node_id = affected.node_id and cast(found.timestamp as date) = affected.reading_date
        ) as received_network_readings
    {% endif %}
{%- endmacro %}


{#  The relation, or in an incremental build those of its rows that lie on an affected day or in an affected month,
    `period`; `start` is SQL of what a row lies in, written as in the relation's index. #}
{% macro rows_of_periods(relation, start, period) -%}
    {% if not builds_changes_only() %}
        {{ relation }}
    {% else %}
        (
            select found.*
            from affected
            cross join lateral (
                select *
                from {{ relation }} as candidates
                where {{ start }} = affected.{{ period }}
                offset 0
            ) as found
        ) as rows_of_periods
    {% endif %}
{%- endmacro %}


{#  Condition that a row of the registry, with its validity, is in force on a date. #}
{% macro is_valid_on(relation, date) -%}
    {{ date }} >= {{ relation }}.valid_from and ({{ relation }}.valid_to is null or {{ date }} < {{ relation }}.valid_to)
{%- endmacro %}


{# --- parts of the above ------------------------------------------------------------------------------------------ #}


{#  Days with changed readings, of customers or of nodes. #}
{% macro days_with_other_readings() -%}
    select reading_date
    from raw_data.changed_days
    where change_id > {{ followed_until() }}
    union
    select reading_date
    from raw_data.changed_node_days
    where change_id > {{ followed_until() }}
{%- endmacro %}


{#  The first day from which the registry of meters or nodes is another one; null where it is as it was. #}
{% macro first_day_of_other_network() -%}
    (select min(affects_from) from raw_data.changes where change_id > {{ followed_until() }})
{%- endmacro %}
