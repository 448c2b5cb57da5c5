"""A small fleet as the pipeline leaves it, made by SQL, to plant faults in; and what the gates found."""

from typing import Any

import psycopg

from energy_iot.pipeline import RunContext
from energy_iot.quality.slices import MARTS_GATE, STAGING_GATE
from energy_iot.storage.changes import DerivedState, latest_change, record_change, write_state

LATEST = "the mart holds every reading scored by the model in force, with its latest score"
DAYS = 30  # whole days of half-hours for each of two meters: 2,880 readings, of which 0.1 % are 2

RAW = """
insert into raw_data.meter_readings (
    meter_id, timestamp, electricity_consumed, temperature, humidity, wind_speed, avg_past_consumption,
    voltage, sub_metering_1, sub_metering_2, sub_metering_3, source_file, file_id
)
select
    meter_id, instant, 0.2 + 0.1 * extract(hour from instant) / 24, 25 * weather, 60 * weather, 10 * weather, 0.25,
    230, 0.05, 0.05, 0.05, 'fleet.csv', 1
from unnest(array['m1', 'm2']) as meter_id
cross join generate_series(
    timestamp '2024-01-01', timestamp '2024-01-01' + interval '1 day' * {days} - interval '30 min', interval '30 min'
) as instant
cross join (select cast({weather} as double precision) as weather) as factor
order by instant, meter_id
"""

DERIVED = """
create table staging.stg_meter_readings as
select
    id as reading_id, meter_id, timestamp as reading_timestamp, 30 as interval_minutes,
    electricity_consumed as consumption_kwh, temperature as temperature_c, humidity as humidity_pct,
    wind_speed as wind_speed_kmh, avg_past_consumption as avg_past_consumption_kwh, voltage as voltage_v,
    sub_metering_1 as sub_metering_1_kwh, sub_metering_2 as sub_metering_2_kwh, sub_metering_3 as sub_metering_3_kwh,
    anomaly_label, cast(null as boolean) as is_labelled_anomaly,
    cast(extract(hour from timestamp) as integer) as hour_of_day,
    cast(extract(dow from timestamp) as integer) as day_of_week
from raw_data.meter_readings
where electricity_consumed is not null;

create table intermediate.int_readings_daily as
select
    meter_id, cast(reading_timestamp as date) as reading_date,
    cast(sum(consumption_kwh) as double precision) as daily_consumption_kwh, 23 as peak_hour,
    cast(max(consumption_kwh) * 2 as double precision) as peak_power_kw, count(*) as reading_count,
    cast(48 as bigint) as expected_reading_count, count(*) / cast(48 as double precision) as completeness
from staging.stg_meter_readings
group by 1, 2;

-- two versions have scored, the second is in force
insert into ml.model_versions
    (model_version, file_name, sha256, trained_at, training_rows, score_threshold, card, in_force_since)
values
    (1, 'm', 's', '2024-03-01', 1000, 0.6, '{}', null),
    (2, 'm', 's', '2024-03-01', 1000, 0.6, '{}', '2024-03-01');

insert into ml.reading_scores
select
    reading_id, meter_id, reading_timestamp, 0.4 + 0.3 * cast(mod(reading_id, 100) = 0 as integer),
    mod(reading_id, 100) = 0, version, '2024-03-01'
from staging.stg_meter_readings
cross join unnest(array[1, 2]) as version;

create table marts.mart_consumption_metrics as
select
    meter_id, period_type, cast(date_trunc(period_type, reading_date) as date) as period_start,
    sum(daily_consumption_kwh) as consumption_kwh,
    sum(daily_consumption_kwh) / (sum(reading_count) * 0.5) as avg_power_kw, max(peak_power_kw) as peak_power_kw,
    sum(daily_consumption_kwh) / (sum(reading_count) * 0.5) / max(peak_power_kw) as load_factor,
    cast(null as double precision) as previous_consumption_kwh,
    cast(null as double precision) as consumption_change_pct,
    cast(sum(reading_count) as bigint) as reading_count,
    cast(sum(expected_reading_count) as bigint) as expected_reading_count,
    cast(sum(reading_count) / sum(expected_reading_count) as double precision) as completeness
from intermediate.int_readings_daily
cross join unnest(array['day', 'week', 'month']) as period_type
group by 1, 2, 3;

create table marts.mart_anomaly_scores as
select
    reading_id, meter_id, reading_timestamp, cast(consumption_kwh as double precision) as consumption_kwh,
    cast(consumption_kwh * 2 as double precision) as active_power_kw, anomaly_score, is_anomaly,
    case when is_anomaly then 'unusual_pattern' end as anomaly_type,
    cast(0 as double precision) as hour_of_week_z_score, cast(1 as double precision) as consumption_vs_avg_ratio,
    temperature_c, model_version, scored_at
from staging.stg_meter_readings
inner join ml.reading_scores using (reading_id, meter_id, reading_timestamp)
where model_version = 2;
"""


def make_fleet(connection: psycopg.Connection, *, weather: str = "1", days: int = DAYS) -> None:
    """Half-hours of two meters from 2024-01-01 on, and all that follows from them; no fault anywhere."""
    connection.execute(RAW.format(weather=weather, days=days))
    connection.execute(DERIVED)


def change_days(connection: psycopg.Connection, *days: tuple[str, str], kind: str = "load", file_id: int = 1) -> int:
    """Record that a file touched these days of meters; returns the change."""
    change = record_change(connection, kind, file_id=file_id, file_name="f.csv", sha256="0", run_id=None)
    with connection.cursor() as cursor:
        cursor.executemany(
            "insert into raw_data.changed_days values (%s, %s, %s)", [(change, meter, day) for meter, day in days]
        )
    return change


def follow(connection: psycopg.Connection, *, fingerprint: str = "as built") -> None:
    """Say that all tables have followed all changes."""
    for name in STAGING_GATE.follows + MARTS_GATE.follows:
        write_state(connection, DerivedState(name, latest_change(connection), fingerprint))


def failed_rules(connection: psycopg.Connection, context: RunContext) -> dict[str, tuple[str, int | None]]:
    """Each failed rule of the run with its severity and the rows that break it."""
    rows = connection.execute(
        "select suite || ': ' || (parameters ->> 'rule'), severity, unexpected_rows from quality.validation_results "
        "where run_id = %s and not success",
        (context.run_id,),
    ).fetchall()
    return {rule: (severity, unexpected) for rule, severity, unexpected in rows}


def examples_of(connection: psycopg.Connection, context: RunContext, rule: str) -> list[dict[str, Any]]:
    row = connection.execute(
        "select examples from quality.validation_results where run_id = %s and not success "
        "and suite || ': ' || (parameters ->> 'rule') = %s",
        (context.run_id, rule),
    ).fetchone()
    assert row is not None
    return row[0]


def plant(connection: psycopg.Connection, *statements: str) -> None:
    for statement in statements:
        changed = connection.execute(statement)
        assert changed.rowcount != 0, f"planted nothing: {statement}"
