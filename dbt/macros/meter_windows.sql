{#  Parts of the SQL that compares weeks of meters. #}


{#  exact_mean of the rows for which a condition holds. #}
{% macro exact_mean_where(value, condition) -%}
    {{ exact_mean('case when ' ~ condition ~ ' then ' ~ value ~ ' end') }}
{%- endmacro %}


{#  Share of the hours (hour_count) of the rows for which a condition holds that are counted in another column. #}
{% macro hourly_share_where(hours, condition) -%}
    {{ as_double('sum(case when ' ~ condition ~ ' then ' ~ hours ~ ' end)') }}
    / nullif(sum(case when {{ condition }} then hour_count end), 0)
{%- endmacro %}


{#  How many standard errors the mean of a signal after the current row lies above its mean up to there, from sums up to
    the row (`signal`_n, _sum) and over all rows (`signal`_all_n, _all_sum, _all_squares). The spread is one of both sides,
    and never none: rows that are all alike shall have no infinite score. #}
{% macro difference_t(signal) -%}
    {%- set n, total = signal ~ '_n', signal ~ '_sum' -%}
    {%- set rest_n = '(' ~ signal ~ '_all_n - ' ~ n ~ ')' -%}
    {%- set rest = '(' ~ signal ~ '_all_sum - ' ~ total ~ ')' -%}
    ({{ rest }} / {{ rest_n }} - {{ total }} / {{ n }})
    / sqrt(
        (
            4e-4 + greatest(
                {{ signal }}_all_squares
                - {{ total }} * {{ total }} / {{ n }}
                - {{ rest }} * {{ rest }} / {{ rest_n }},
                0
            ) / ({{ signal }}_all_n - 2)
        ) * (1e0 / {{ n }} + 1e0 / {{ rest_n }})
    )
{%- endmacro %}


{#  Share of the energy that lies at other hours in one profile of the day than in the other; columns `one`1 to `one`8
    and `other`1 to `other`8. #}
{% macro profile_distance(one, other) -%}
    ({{ profile_sum("abs(" ~ one ~ "# - " ~ other ~ "#)") }}) / 2
{%- endmacro %}


{#  How many of the profile's blocks are above (>) or below (<) a block. #}
{% macro profile_rank(profile, block, sign) -%}
    {{ profile_sum('case when ' ~ profile ~ '# ' ~ sign ~ ' ' ~ profile ~ block ~ ' then 1 else 0 end') }}
{%- endmacro %}


{#  Pearson's correlation of two profiles of the day, columns `one`1 to `one`8 and `other`1 to `other`8, the second read
    from its end if asked. #}
{% macro profile_correlation(one, other, reverse=false) -%}
    {%- set one_off = '(' ~ one ~ '# - (' ~ profile_sum(one ~ '#') ~ ') / 8)' -%}
    {%- set other_off = '(' ~ other ~ ('@' if reverse else '#') ~ ' - (' ~ profile_sum(other ~ '#') ~ ') / 8)' -%}
    ({{ profile_sum(one_off ~ ' * ' ~ other_off) }})
    / nullif(
        sqrt({{ profile_sum(one_off ~ ' * ' ~ one_off) }})
        * sqrt({{ profile_sum(other_off ~ ' * ' ~ other_off) }}),
        0
    )
{%- endmacro %}


{#  Sum of an expression over the eight blocks of the day: # in it is the block's number, @ that from the day's end. #}
{% macro profile_sum(expression) -%}
    {% for block in range(1, 9) -%}
        {{ ' + ' if not loop.first }}{{ expression | replace('#', block) | replace('@', 9 - block) }}
    {%- endfor %}
{%- endmacro %}
