{#  The schemas are called what the models say (staging, intermediate, marts). dbt's own rule would put the profile's
    schema in front. #}
{% macro generate_schema_name(custom_schema_name, node) -%}
    {{ custom_schema_name or target.schema }}
{%- endmacro %}
