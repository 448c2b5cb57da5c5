{#  Settings of the transaction that builds a model, run before each. Nothing to do where the engine needs none. #}
{% macro tune_session() -%}
    {{ return(adapter.dispatch('tune_session', 'energy_iot')()) }}
{%- endmacro %}

{% macro default__tune_session() -%}{%- endmacro %}

{#  Measured on 2 million readings, which lie in the order that windows sort by:
    - synchronize_seqscans starts a scan in the middle of a big table when another has been there lately. A sort that
      finds its input in order takes 1 s, one that does not 5 s.
    - work_mem keeps these sorts, and the hash of the scores' join, in memory.
    - A merge join sorts the readings once more, to join the few rows of their history; a hash join does not.
    An incremental build reads a few days of each table, whatever the planner believes of yesterday's statistics. #}
{% macro postgres__tune_session() -%}
    set local synchronize_seqscans = off;
    set local work_mem = '512MB';
    set local enable_mergejoin = off;
    {% if builds_changes_only() -%}
        set local enable_seqscan = off;
    {%- endif %}
{%- endmacro %}
