{{ config(
    unique_key=['meter_id', 'cast(hour_start as date)'],
    indexes=[{'columns': ['meter_id', '(cast(hour_start as date))']}],
    pre_hook=[
        "{{ find_affected_days(var('history_days')) }}",
        "{{ find_days_before(range(7, var('history_days') + 1, 7)) }}"
    ]
) }}

with

hours as (

    select
        *,
        {{ epoch_seconds('hour_start') }} as hour_epoch,
        {{ day_of_week('hour_start') }} as day_of_week,
        {{ hour_of_day('hour_start') }} as hour_of_day
    from {{ rows_of_days(ref('int_readings_hourly'), 'cast(hour_start as date)', 'input_days') }}

),

history as (

    select
        meter_id,
        hour_start,
        sum(reading_count) over same_hour_of_week as reading_count,
        sum(exact_consumption_kwh) over same_hour_of_week as consumption_sum,
        sum(exact_square_sum_kwh2) over same_hour_of_week as consumption_square_sum
    from hours
    window
        same_hour_of_week as (
            partition by meter_id, day_of_week, hour_of_day
            order by hour_epoch
            {{ days_before(var('history_days'), 1) }}
        )

),

moments as (

    select
        meter_id,
        hour_start,
        cast(coalesce(reading_count, 0) as bigint) as reading_count,
        consumption_sum / reading_count as consumption_mean,
        -- sums of numerics are exact: this form of the sample variance loses nothing, and no spread is exactly 0
        (reading_count * consumption_square_sum - consumption_sum * consumption_sum)
        / nullif(reading_count * (reading_count - 1), 0) as consumption_variance
    from {{ affected_rows('history', ['meter_id', 'cast(hour_start as date)']) }} as history

)

select
    meter_id,
    hour_start,
    reading_count,
    {{ as_double('consumption_mean') }} as avg_consumption_kwh,
    sqrt({{ as_double('consumption_variance') }}) as std_consumption_kwh
from moments
