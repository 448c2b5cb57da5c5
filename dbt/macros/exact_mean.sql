{#  Mean of a quantity of about one, taken in billionths as whole numbers: these add up to the same in any order, and
    doubles do not. #}
{% macro exact_mean(expression) -%}
    {{ exact_sum(expression) }} / nullif(count({{ expression }}), 0)
{%- endmacro %}


{#  Sum of such a quantity. #}
{% macro exact_sum(expression) -%}
    {{ as_double('sum(cast(round(1e9 * (' ~ expression ~ ')) as bigint))') }} / 1e9
{%- endmacro %}
