with

hours as (

    select
        meter_id,
        {{ hour_start('reading_timestamp') }} as hour_start,
        count(*) as reading_count,
        sum(consumption_kwh) as consumption_sum,
        sum(consumption_kwh * consumption_kwh) as consumption_square_sum
    from {{ ref('stg_meter_readings') }}
    group by 1, 2

),

hours_of_week as (

    select
        *,
        {{ epoch_seconds('hour_start') }} as hour_epoch,
        {{ day_of_week('hour_start') }} as day_of_week,
        {{ hour_of_day('hour_start') }} as hour_of_day
    from hours

),

history as (

    select
        meter_id,
        hour_start,
        sum(reading_count) over same_hour_of_week as reading_count,
        sum(consumption_sum) over same_hour_of_week as consumption_sum,
        sum(consumption_square_sum) over same_hour_of_week as consumption_square_sum
    from hours_of_week
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
    from history

)

select
    meter_id,
    hour_start,
    reading_count,
    {{ as_double('consumption_mean') }} as avg_consumption_kwh,
    sqrt({{ as_double('consumption_variance') }}) as std_consumption_kwh
from moments
