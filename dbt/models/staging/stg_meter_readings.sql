{{ config(
    unique_key=['meter_id', 'cast(reading_timestamp as date)'],
    indexes=[{'columns': ['meter_id', '(cast(reading_timestamp as date))']}],
    pre_hook=[
        "{{ find_affected_days() }}",
        "{{ tell_rows_read('select count(*) as received, count(electricity_consumed) as with_consumption from '
            ~ received_readings()) }}"
    ]
) }}

with

received as (

    select
        *,
        -- the latest received wins; a reading without consumption is no correction, so it is left out before
        row_number() over (partition by meter_id, timestamp order by id desc) as recency
    from {{ received_readings() }}
    where electricity_consumed is not null

),

files as (

    select
        file_id,
        interval_minutes
    from {{ source('raw_data', 'ingested_files') }}

),

renamed as (

    select
        ---------- ids
        received.id as reading_id,
        received.meter_id,
        ---------- timestamps
        received.timestamp as reading_timestamp,
        ---------- numerics
        files.interval_minutes,
        received.electricity_consumed as consumption_kwh,
        received.temperature as temperature_c,
        received.humidity as humidity_pct,
        received.wind_speed as wind_speed_kmh,
        received.avg_past_consumption as avg_past_consumption_kwh,
        received.voltage as voltage_v,
        received.sub_metering_1 as sub_metering_1_kwh,
        received.sub_metering_2 as sub_metering_2_kwh,
        received.sub_metering_3 as sub_metering_3_kwh,
        ---------- labels
        received.anomaly_label,
        received.anomaly_label <> 'Normal' as is_labelled_anomaly,
        ---------- calendar
        {{ hour_of_day('received.timestamp') }} as hour_of_day,
        {{ day_of_week('received.timestamp') }} as day_of_week
    from received
    -- left: a reading whose file is unknown must show up in the tests, not vanish
    left join files on received.file_id = files.file_id
    where received.recency = 1

)

select * from renamed
