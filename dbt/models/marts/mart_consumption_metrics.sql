{{ config(
    unique_key=['meter_id', 'period_type', 'period_start'],
    indexes=[{'columns': ['meter_id', 'period_start']}],
    pre_hook=[
        "{{ find_affected_periods() }}",
        "{{ tell_rows_read('select count(*) as days_read from '
            ~ rows_of_days(ref('int_readings_daily'), 'reading_date', 'input_days')) }}"
    ]
) }}

with

days as (

    select
        meter_id,
        reading_date,
        exact_consumption_kwh,
        peak_power_kw,
        reading_count,
        covered_minutes
    from {{ rows_of_days(ref('int_readings_daily'), 'reading_date', 'input_days') }}

),

periods as (

    {% for period in period_types() %}
        select
            meter_id,
            '{{ period }}' as period_type,
            period_start,
            {{ shift_period(period, 'period_start', -1) }} as previous_period_start,
            {{ period_hours(period, 'period_start') }} as period_hours,
            {{ as_double('exact_consumption_kwh') }} as consumption_kwh,
            peak_power_kw,
            reading_count,
            covered_minutes
        from (
            select
                meter_id,
                {{ period_start(period, 'reading_date') }} as period_start,
                sum(exact_consumption_kwh) as exact_consumption_kwh,
                max(peak_power_kw) as peak_power_kw,
                cast(sum(reading_count) as bigint) as reading_count,
                cast(sum(covered_minutes) as bigint) as covered_minutes
            from days
            group by 1, 2
        ) as {{ period }}s
        {% if not loop.last %}union all{% endif %}
    {% endfor %}

),

compared as (

    select
        this_period.*,
        {{ power_kw('this_period.consumption_kwh', 'this_period.covered_minutes') }} as avg_power_kw,
        previous_period.consumption_kwh as previous_consumption_kwh,
        {{ expected_readings('this_period.period_hours', 'this_period.reading_count', 'this_period.covered_minutes') }}
            as expected_reading_count
    from {{ affected_rows('periods', ['meter_id', 'period_type', 'period_start']) }} as this_period
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
