{#  How the models follow what changed in raw_data. The log of changes (raw_data.changes, raw_data.changed_days) says
    which days of which meters a change touched; quality.derived_states says which change each model has followed, and what
    else it was made with. In one transaction a model finds the days that it has to make anew, takes their rows out,
    puts the new ones in and writes its state: killed at any moment, it is as before or as after, and says which.

    Only PostgreSQL has a transaction over several tables. Elsewhere no state is kept, and models are built whole. #}


{#  dbt's own question, here with two more answers: a model is built whole when its state does not name the SQL,
    settings and model of now (build_fingerprint), and when it is to stay empty. #}
{% macro should_full_refresh() %}
    {% set asked = config.get('full_refresh') %}
    {% if asked is none %}
        {% set asked = flags.FULL_REFRESH or flags.EMPTY %}
    {% endif %}
    {% if config.get('materialized') != 'incremental' %}
        {% do return(asked) %}
    {% endif %}
    {% do return(asked or followed_until() is none) %}
{% endmacro %}


{#  Whether the model makes anew no more than what a change affects: dbt's is_incremental, which fails in unit tests
    since they know no table. #}
{% macro builds_changes_only() %}
    {{ return(model.resource_type == 'model' and is_incremental()) }}
{% endmacro %}


{#  The last change that the model's table has followed; none where it has to be built whole. #}
{% macro followed_until() %}
    {{ return(adapter.dispatch('followed_until', 'energy_iot')()) }}
{% endmacro %}

{% macro default__followed_until() %}
    {{ return(none) }}
{% endmacro %}

{% macro postgres__followed_until() %}
    {% set found = run_query(
        "select change_id from quality.derived_states where name = '" ~ model.name ~ "' and fingerprint = '"
        ~ build_fingerprint() ~ "' and fingerprint <> ''"
    ) %}
    {{ return(found.rows[0][0] if found.rows else none) }}
{% endmacro %}


{#  Hash of all but readings that the model follows from, as `energy-iot` passes it for each. Empty for dbt
    started by hand, and for tables left empty: those fit nothing. No var: dbt reads the whole project anew, for two
    seconds, when one changes, and this one does with each model that comes into force. #}
{% macro build_fingerprint() -%}
    {{ return('' if flags.EMPTY else fromjson(env_var('DBT_BUILD_FINGERPRINTS', '{}')).get(model.name, '')) }}
{%- endmacro %}


{#  Before the build: notes the change that the model follows by it, the oldest of those that its inputs have followed.
    What is loaded while it builds is left to the next. #}
{% macro note_change() -%}
    {{ return(adapter.dispatch('note_change', 'energy_iot')()) }}
{%- endmacro %}

{% macro default__note_change() -%}{%- endmacro %}

{% macro postgres__note_change() -%}
    {%- set inputs = [] -%}
    {%- for node in model.depends_on.nodes -%}
        {%- if node.startswith('model.') -%}
            {%- do inputs.append(node.split('.') | last) -%}
        {%- elif node == 'source.energy_iot.ml.reading_scores' -%}
            {%- do inputs.append('ml_score') -%}
        {%- elif node == 'source.energy_iot.ml.meter_suspicions' -%}
            {%- do inputs.append('ml_meter_suspicions') -%}
        {%- endif -%}
    {%- endfor -%}
    create temporary table noted_change on commit drop as
    {% if inputs -%}
        select coalesce(min(coalesce(states.change_id, 0)), 0) as change_id
        from unnest(array['{{ inputs | join("', '") }}']) as inputs (name)
        left join quality.derived_states as states on inputs.name = states.name
    {%- else -%}
        select coalesce(max(change_id), 0) as change_id from raw_data.changes
    {%- endif -%}
{%- endmacro %}


{#  After the build: writes the model's state. Counts the table's values for the planner when it is new, or a fifth
    larger than when they were last counted: embedded servers stop before their autovacuum comes to it. #}
{% macro keep_state() -%}
    {{ return(adapter.dispatch('keep_state', 'energy_iot')()) }}
{%- endmacro %}

{% macro default__keep_state() -%}{%- endmacro %}

{% macro postgres__keep_state() -%}
    {%- if execute -%}
        {%- set grown = builds_changes_only() and run_query(
            "select pg_relation_size(oid) > 1.2 * relpages * current_setting('block_size')::int from pg_class "
            "where oid = '" ~ this ~ "'::regclass"
        ).rows[0][0] -%}
        {%- if grown or not builds_changes_only() -%}
            analyze {{ this }};
        {%- endif %}
        insert into quality.derived_states (name, change_id, fingerprint)
        select '{{ model.name }}', change_id, '{{ build_fingerprint() }}' from noted_change
        on conflict (name) do update set
            change_id = excluded.change_id,
            fingerprint = excluded.fingerprint,
            row_count = null,
            updated_at = now() at time zone 'utc'
    {%- endif -%}
{%- endmacro %}


{#  The strategy of all models: out with the rows whose unique_key is among the affected, in with those that the model
    computed. The table `affected` has one column for each part of unique_key. The rows to delete are looked up through the
    table's index, key by key (see rows_of_days). #}
{% macro get_incremental_replace_affected_sql(arg_dict) %}
    {{ return(adapter.dispatch('get_incremental_replace_affected_sql', 'energy_iot')(arg_dict)) }}
{% endmacro %}

{% macro postgres__get_incremental_replace_affected_sql(arg_dict) -%}
    {%- set columns = get_quoted_csv(arg_dict.dest_columns | map(attribute='name')) -%}
    {%- set keys = arg_dict.unique_key -%}
    delete from {{ arg_dict.target_relation }}
    where ctid = any(array(
        select found.row_id
        from affected as keys ({% for key in keys %}key_{{ loop.index }}{{ ', ' if not loop.last }}{% endfor %})
        cross join lateral (
            select candidates.ctid as row_id
            from {{ arg_dict.target_relation }} as candidates
            where {% for key in keys %}{{ key }} = keys.key_{{ loop.index }}{{ ' and ' if not loop.last }}{% endfor %}
            offset 0
        ) as found
    ));
    insert into {{ arg_dict.target_relation }} ({{ columns }})
    select {{ columns }} from {{ arg_dict.temp_relation }}
{%- endmacro %}
