with

periods as (

    {% for period in ['day', 'week', 'month'] %}
        select
            meter_id,
            '{{ period }}' as period_type,
            period_start,
            {{ shift_period(period, 'period_start', -1) }} as previous_period_start,
            {{ period_hours(period, 'period_start') }} as period_hours,
            consumption_kwh,
            peak_power_kw,
            reading_count,
            covered_hours
        from (
            select
                meter_id,
                {{ period_start(period, 'reading_date') }} as period_start,
                sum(daily_consumption_kwh) as consumption_kwh,
                max(peak_power_kw) as peak_power_kw,
                cast(sum(reading_count) as bigint) as reading_count,
                sum(covered_hours) as covered_hours
            from {{ ref('int_readings_daily') }}
            group by 1, 2
        ) as {{ period }}s
        {% if not loop.last %}union all{% endif %}
    {% endfor %}

),

compared as (

    select
        this_period.*,
        this_period.consumption_kwh / this_period.covered_hours as avg_power_kw,
        previous_period.consumption_kwh as previous_consumption_kwh,
        {{ expected_readings('this_period.period_hours', 'this_period.reading_count', 'this_period.covered_hours') }}
            as expected_reading_count
    from periods as this_period
    left join periods as previous_period
        on
            this_period.meter_id = previous_period.meter_id
            and this_period.period_type = previous_period.period_type
            and this_period.previous_period_start = previous_period.period_start

)

select
    meter_id,
    period_type,
    period_start,
    consumption_kwh,
    avg_power_kw,
    peak_power_kw,
    avg_power_kw / nullif(peak_power_kw, 0) as load_factor,
    previous_consumption_kwh,
    100 * (consumption_kwh - previous_consumption_kwh) / nullif(previous_consumption_kwh, 0) as consumption_change_pct,
    reading_count,
    expected_reading_count,
    {{ as_double('reading_count') }} / expected_reading_count as completeness
from compared
