{#  The windowed column is numeric: only there PostgreSQL takes readings out of a sliding sum again. On doubles it adds
    up the whole window anew for each reading, 253 s against 6 s for 2 million. Results become doubles at once. #}

{{ config(
    unique_key=['meter_id', 'cast(reading_timestamp as date)'],
    indexes=[{'columns': ['meter_id', '(cast(reading_timestamp as date))']}],
    pre_hook=[
        "{{ follow_meters() }}",
        "{{ find_affected_days(var('history_days')) }}",
        "{{ find_days_before([1]) }}",
        "{{ tell_rows_read('select sum(reading_count) as readings_read from '
            ~ rows_of_days(ref('int_readings_daily'), 'reading_date', 'input_days')) }}"
    ]
) }}

{%- set seconds_per_hour = 60 * 60 %}

with

readings as (

    select
        *,
        {{ epoch_seconds('reading_timestamp') }} as reading_epoch,
        {{ hour_start('reading_timestamp') }} as hour_start
    from {{ rows_of_days(ref('stg_meter_readings'), 'cast(reading_timestamp as date)', 'input_days') }}

),

recent as (

    select
        *,
        {{ as_double('consumption_kwh') }} as reading_kwh,
        {{ as_double('avg(consumption_kwh) over last_hour') }} as avg_consumption_1h,
        {{ as_double('avg(consumption_kwh) over last_day') }} as avg_consumption_24h,
        -- the root of a double: PostgreSQL takes that of a numeric digit by digit
        sqrt({{ as_double('var_samp(consumption_kwh) over last_day') }}) as std_consumption_24h,
        {{ as_double('reading_epoch - first_value(reading_epoch) over last_day') }} / {{ seconds_per_hour }}
            as window_hours_24h
    from readings
    window
        last_hour as (partition by meter_id order by reading_epoch {{ preceding_seconds(seconds_per_hour - 1) }}),
        last_day as (partition by meter_id order by reading_epoch {{ preceding_seconds(24 * seconds_per_hour - 1) }})

),

history as (

    select
        meter_id,
        hour_start,
        avg_consumption_kwh,
        std_consumption_kwh
    from {{ rows_of_days(ref('int_hour_of_week_history'), 'cast(hour_start as date)', 'affected') }}
    where reading_count >= 3

)

select
    recent.reading_id,
    recent.meter_id,
    recent.reading_timestamp,
    recent.reading_kwh as consumption_kwh,
    {{ power_kw('recent.reading_kwh', 'recent.interval_minutes') }} as active_power_kw,
    recent.avg_consumption_1h,
    recent.avg_consumption_24h,
    recent.std_consumption_24h,
    recent.reading_kwh / nullif(recent.avg_consumption_24h, 0) as consumption_vs_avg_ratio,
    {{ calculate_z_score('recent.reading_kwh', 'history.avg_consumption_kwh', 'history.std_consumption_kwh') }}
        as hour_of_week_z_score,
    recent.sub_metering_1_kwh / nullif(recent.reading_kwh, 0) as sub1_ratio,
    recent.sub_metering_2_kwh / nullif(recent.reading_kwh, 0) as sub2_ratio,
    recent.sub_metering_3_kwh / nullif(recent.reading_kwh, 0) as sub3_ratio,
    recent.hour_of_day,
    recent.day_of_week,
    recent.day_of_week in (0, 6) as is_weekend,
    {{ month_of_year('recent.reading_timestamp') }} as month,
    recent.temperature_c,
    recent.humidity_pct,
    recent.wind_speed_kmh,
    recent.window_hours_24h
from {{ affected_rows('recent', ['meter_id', 'cast(reading_timestamp as date)']) }} as recent
left join history on recent.meter_id = history.meter_id and recent.hour_start = history.hour_start
