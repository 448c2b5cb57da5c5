{#  SQL of `expression` as a double of 64 bits. #}
{% macro as_double(expression) -%}
    {{ return(adapter.dispatch('as_double', 'energy_iot')(expression)) }}
{%- endmacro %}

{% macro default__as_double(expression) -%}
    cast({{ expression }} as double precision)
{%- endmacro %}

{#  Spark knows no type of two words. #}
{% macro spark__as_double(expression) -%}
    cast({{ expression }} as double)
{%- endmacro %}
