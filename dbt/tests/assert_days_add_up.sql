-- The days of a week or month add up to it, for each meter: energy, readings and, as the highest of them, the peak.
with

longer as (

    select *
    from {{ ref('mart_consumption_metrics') }}
    where period_type in ('week', 'month')

),

days as (

    select
        meter_id,
        period_type,
        period_start,
        sum(consumption_kwh) as consumption_kwh,
        max(peak_power_kw) as peak_power_kw,
        sum(reading_count) as reading_count
    from (
        {% for period in ['week', 'month'] %}
            select
                meter_id,
                '{{ period }}' as period_type,
                {{ period_start(period, 'period_start') }} as period_start,
                consumption_kwh,
                peak_power_kw,
                reading_count
            from {{ ref('mart_consumption_metrics') }}
            where period_type = 'day'
            {% if not loop.last %}union all{% endif %}
        {% endfor %}
    ) as days_of_periods
    group by 1, 2, 3

)

select
    coalesce(longer.meter_id, days.meter_id) as meter_id,
    coalesce(longer.period_type, days.period_type) as period_type,
    coalesce(longer.period_start, days.period_start) as period_start,
    days.consumption_kwh as days_kwh,
    longer.consumption_kwh as period_kwh
from longer
full outer join days
    on
        longer.meter_id = days.meter_id
        and longer.period_type = days.period_type
        and longer.period_start = days.period_start
where
    days.reading_count is null
    or longer.reading_count is null
    or days.reading_count <> longer.reading_count
    or days.peak_power_kw <> longer.peak_power_kw
    or abs(days.consumption_kwh - longer.consumption_kwh) > 1e-9 * greatest(1, abs(longer.consumption_kwh))
