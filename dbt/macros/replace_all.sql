{#  Pre-hook of models that are bounded (by meters, or by meters and a look-back) and follow from the fleet as a whole:
    each build replaces all of their rows. In an incremental build the table is emptied in the model's transaction, and
    nothing is left to look up as affected. `key` is the model's unique_key. #}
{% macro replace_all(key) -%}
    {% if builds_changes_only() %}
        set local enable_seqscan = on;  -- here all is read
        truncate {{ this }};
        create temporary table affected on commit drop as
        select {{ key | join(', ') }}
        from {{ this }};
    {% endif %}
{%- endmacro %}
