{#  How many standard deviations `value` lies from `mean`; null where there is no spread to measure by. #}
{% macro calculate_z_score(value, mean, standard_deviation) -%}
    ({{ value }} - {{ mean }}) / nullif({{ standard_deviation }}, 0)
{%- endmacro %}
