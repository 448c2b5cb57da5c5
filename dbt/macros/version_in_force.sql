{#  SQL of the model version whose scores count: the one that came into force last; ml/config.py has it for Python. #}
{% macro version_in_force() -%}
    select model_version
    from {{ source('ml', 'model_versions') }}
    where in_force_since is not null
    order by in_force_since desc
    limit 1
{%- endmacro %}
