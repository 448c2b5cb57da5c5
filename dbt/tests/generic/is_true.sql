{#  Fails for each row where the SQL `expression` is false; null passes. #}
{% test is_true(model, expression) %}

    select *
    from {{ model }}
    where not ({{ expression }})

{% endtest %}
