"""A made-up fleet in the tables that the report reads, with a day, a week, weather, gaps and planted anomalies."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

RUN_ID = "20260302T041200-0f3c2b1a"
CAVEAT = "The labels are the output of another Isolation Forest: agreement with them finds no theft."

TABLES = """
create table intermediate.int_readings_hourly (meter_id text, hour_start timestamp, avg_power_kw double precision,
    max_power_kw double precision, min_power_kw double precision, total_consumption_kwh double precision,
    avg_voltage_v double precision, reading_count bigint);
create table intermediate.int_readings_daily (meter_id text, reading_date date, daily_consumption_kwh double precision,
    peak_hour integer, peak_power_kw double precision, reading_count bigint, expected_reading_count bigint,
    completeness double precision);
create table intermediate.int_reading_gaps (meter_id text, gap_start timestamp, gap_end timestamp,
    missing_readings bigint);
create table marts.mart_consumption_metrics (meter_id text, period_type text, period_start date,
    consumption_kwh double precision, avg_power_kw double precision, peak_power_kw double precision,
    load_factor double precision, previous_consumption_kwh double precision, consumption_change_pct double precision,
    reading_count bigint, expected_reading_count bigint, completeness double precision);
create table marts.mart_anomaly_scores (reading_id bigint, meter_id text, reading_timestamp timestamp,
    consumption_kwh double precision, active_power_kw double precision, anomaly_score double precision,
    is_anomaly boolean, anomaly_type text, hour_of_week_z_score double precision,
    consumption_vs_avg_ratio double precision, temperature_c double precision, model_version integer,
    scored_at timestamp);
"""

# chance(n) in [0, 1) from the meter's number and the step, so that a fleet is the same each time
FLEET = """
create temporary table fleet as
with steps as (
    select meter, step, %(first)s::timestamp + make_interval(mins => step * %(interval)s) as reading_timestamp
    from generate_series(0, %(meters)s - 1) as meter, generate_series(0, %(steps)s - 1) as step
),
chances as (
    select *, abs(hashint8extended(meter * 1000003::bigint + step, 1)) %% 100000 / 1e5::float8 as c1,
        abs(hashint8extended(meter * 1000003::bigint + step, 2)) %% 100000 / 1e5::float8 as c2,
        abs(hashint8extended(meter, 3)) %% 1000 / 1e3::float8 as size,
        date_part('hour', reading_timestamp) + date_part('minute', reading_timestamp) / 60 as hour,
        date_part('isodow', reading_timestamp) >= 6 as weekend, date_part('doy', reading_timestamp) as doy
    from steps
),
habits as (
    select *, (0.15 + 1.4 * size * size) * (0.35 + 0.5 * exp(-1 * ((hour - 7.5) / 1.6) ^ 2)
        + exp(-1 * ((hour - 19.5) / 2.4) ^ 2)
        + case when weekend then 0.4 * exp(-1 * ((hour - 13) / 3.0) ^ 2) else 0 end)
        * (1 + 0.25 * cos((doy - 45) / 365 * 2 * pi())) * (0.7 + 0.6 * c1) as usual_kw
    from chances
),
planted as (
    select *, c2 < 0.0012 * (1 + 6 * (meter %% 9 = 4)::integer * (doy::integer %% 7 < 3)::integer) as odd from habits
)
select row_number() over (order by meter, step) as reading_id,
    coalesce((%(names)s::text[])[meter + 1], 'MTR-' || lpad((10400 + meter * 7)::text, 6, '0')) as meter_id,
    reading_timestamp,
    usual_kw * %(interval)s / 60 * case when not odd then 1 when c1 < 0.5 then 3 + 6 * c1 when c1 < 0.8 then 0.02
        else 1.6 end as consumption_kwh,
    case when odd and %(anomalies)s then 0.605 + 0.22 * c1 * (1 - c2) + 0.02 * c2 * 500
        else 0.36 + 0.13 * c1 * c1 + 0.09 * c2 end as anomaly_score,
    case when odd and %(anomalies)s then case when c1 < 0.5 then 'high_consumption' when c1 < 0.8 then 'low_consumption'
        else 'unusual_pattern' end end as anomaly_type,
    case when odd then case when c1 < 0.5 then 2.5 + 6 * c1 when c1 < 0.8 then -2.2 - c1 else 0.7 end else c1 - 0.5 end
        as hour_of_week_z_score,
    case when odd then case when c1 < 0.5 then 3 + 6 * c1 when c1 < 0.8 then 0.02 else 1.6 end else 0.7 + 0.6 * c1 end
        as consumption_vs_avg_ratio
from planted
where not (%(gaps)s and (meter %% 5 = 1 and step between %(steps)s / 3 and %(steps)s / 3 + 40 or c1 < 0.0008))
    and (not %(gaps)s or step not between %(steps)s / 2 and %(steps)s / 2 + 30 or meter %% 3 > 0);
analyze fleet;
"""

DERIVED = """
insert into intermediate.int_readings_hourly
select meter_id, date_trunc('hour', reading_timestamp), avg(consumption_kwh) * 60 / %(interval)s,
    max(consumption_kwh) * 60 / %(interval)s, min(consumption_kwh) * 60 / %(interval)s, sum(consumption_kwh), null,
    count(*)
from fleet group by 1, 2;
insert into intermediate.int_readings_daily
select meter_id, reading_timestamp::date, sum(consumption_kwh), 19, max(consumption_kwh) * 60 / %(interval)s, count(*),
    1440 / %(interval)s, count(*) / (1440.0 / %(interval)s)
from fleet group by 1, 2;
insert into intermediate.int_reading_gaps
select meter_id, reading_timestamp + make_interval(mins => %(interval)s), next,
    extract(epoch from next - reading_timestamp)::bigint / 60 / %(interval)s - 1
from (select *, lead(reading_timestamp) over (partition by meter_id order by reading_timestamp) as next from fleet)
where next > reading_timestamp + make_interval(mins => %(interval)s);
insert into marts.mart_consumption_metrics
select meter_id, kind, date_trunc(kind, reading_date)::date, sum(daily_consumption_kwh),
    sum(daily_consumption_kwh) / sum(reading_count) * 60 / %(interval)s, max(peak_power_kw), null, null, null,
    sum(reading_count), sum(expected_reading_count), sum(reading_count) / sum(expected_reading_count)
from intermediate.int_readings_daily, (values ('day'), ('week'), ('month')) as kinds (kind) group by 1, 2, 3;
insert into marts.mart_anomaly_scores
select reading_id, meter_id, reading_timestamp, consumption_kwh, consumption_kwh * 60 / %(interval)s, anomaly_score,
    anomaly_type is not null, anomaly_type, hour_of_week_z_score, consumption_vs_avg_ratio, 24, 1, %(scored)s
from fleet;
insert into raw_data.ingested_files (sha256, file_name, source_name, interval_minutes, size_bytes, lines_read,
    readings_loaded, readings_without_consumption, readings_rejected, run_id)
select 'a' || count(*), 'fleet.csv', 'long', %(interval)s, 1, count(*) + 3, count(*), 0, 3, %(run)s from fleet;
insert into raw_data.rejected_readings (file_id, source_file, line_number, raw_text, reason)
select file_id, 'fleet.csv', line, 'MTR-1,<b>soon</b>,1', 'timestamp is no date' from raw_data.ingested_files,
    generate_series(2, 4) as line;
"""

MART_STEPS = ("check_source", "ingest_data", "dbt_run_staging", "dbt_run_intermediate", "ge_validate_staging",
              "ml_score", "dbt_run_marts", "ge_validate_marts", "sync_to_clickhouse")  # fmt: skip
AGREEMENT = {
    "labelled_readings": 5000,
    "labelled_anomalies": 250,
    "roc_auc": 0.913,
    "average_precision": 0.402,
    "precision": 0.61,
    "recall": None,
    "caveat": CAVEAT,
}
CARD = {
    "features": [
        {"name": "ratio_24h", "description": "consumption over the mean of the last 24 h", "neutral": 1.0},
        {"name": "hour_of_week_z", "description": "deviations off the meter's hour of the week", "neutral": 0.0},
    ],
    "parameters": {"n_estimators": 100, "random_state": 42},
    "training_window": ["2025-12-01T00:00:00", "2026-02-28T23:30:00"],
    "libraries": {"scikit-learn": "1.9.0", "numpy": "2.3.1"},
    "score_quantiles": {
        "probabilities": [at / 100 for at in range(100)],
        "scores": [0.4 + at / 500 for at in range(100)],
    },
}


@dataclass(frozen=True)
class Fleet:
    """What to make; `names` replace the first meters' ids."""

    meters: int = 24
    days: float = 90
    interval_minutes: int = 30
    first: datetime = datetime(2025, 12, 1)
    gaps: bool = True
    anomalies: bool = True
    names: Sequence[str] = field(default=())

    @property
    def steps(self) -> int:
        """Readings of one meter, were none missing."""
        return round(self.days * 1440 / self.interval_minutes)


def make_tables(connection: psycopg.Connection) -> None:
    """The tables that dbt makes, empty."""
    connection.execute(TABLES.encode())


def fill_tables(connection: psycopg.Connection, fleet: Fleet) -> None:
    """Make the tables and fill all of them but those about runs."""
    make_tables(connection)
    parameters: dict[str, Any] = {
        "first": fleet.first, "meters": fleet.meters, "steps": fleet.steps, "interval": fleet.interval_minutes,
        "names": list(fleet.names), "gaps": fleet.gaps, "anomalies": fleet.anomalies, "run": RUN_ID,
        "scored": datetime(2026, 3, 2, 4, 13),
    }  # fmt: skip
    with psycopg.ClientCursor(connection) as cursor:  # several statements with parameters in one call
        cursor.execute(FLEET, parameters)
        cursor.execute(DERIVED, parameters)
    connection.execute("drop table fleet")


def record_run(
    connection: psycopg.Connection,
    *,
    failed_step: str | None = None,
    agreement: bool = False,
    failures: bool = False,
) -> None:
    """A run with its steps, judgements and model; up to and with `failed_step` when it failed there."""
    start = datetime(2026, 3, 2, 4, 12)
    error = "2 critical expectations not met\n  fix: energy-iot validate staging" if failed_step else None
    connection.execute(
        "insert into quality.pipeline_runs (run_id, status, started_at, ended_at, options, package_version, error) "
        "values (%s, %s, %s, %s, '{}', '0.1.0', %s)",
        (RUN_ID, "failed" if failed_step else "succeeded", start, start + timedelta(seconds=48.2), error),
    )
    at = start
    for number, step in enumerate(MART_STEPS):
        failed = step == failed_step
        details: dict[str, Any] = {"threshold": 0.6} if step == "ml_score" else {}
        if step == "ml_score" and agreement:
            details |= {"agreement": AGREEMENT}
        warnings = ["2.4 % of readings are anomalies: more than the expected 2 %"] if step == "ml_score" else []
        seconds = 0.3 + (number * 37 % 11)
        connection.execute(
            "insert into quality.step_runs (run_id, step, status, started_at, ended_at, rows_in, rows_out, warnings, "
            "details, error) values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            (RUN_ID, step, "failed" if failed else "succeeded", at, at + timedelta(seconds=seconds),
             None if failed else 103_680, None if failed else 103_552, Jsonb([] if failed else warnings),
             Jsonb(details), error if failed else None),
        )  # fmt: skip
        at += timedelta(seconds=seconds)
        if failed:
            break
    for suite, expectation, column, severity, success in [
        ("staging_readings_suite", "expect_column_values_to_not_be_null", "meter_id", "critical", True),
        ("staging_readings_suite", "expect_compound_columns_to_be_unique", None, "critical", not failures),
        ("staging_readings_suite", "expect_column_values_to_be_between", "temperature_c", "warning", not failures),
        ("marts_metrics_suite", "expect_column_values_to_be_between", "load_factor", "critical", True),
        ("marts_metrics_suite", "expect_table_row_count_to_be_between", None, "info", not failures),
    ]:
        rule = f"{column or 'meter and instant'} is as it should be"
        limits = {"min_value": -50, "max_value": 60} if column == "temperature_c" else {}
        examples = [] if success else [{"meter_id": "MTR-010400", column or "readings": 71.2}]
        unexpected = 0 if success else 12
        connection.execute(
            "insert into quality.validation_results (run_id, suite, expectation, column_name, severity, success, "
            "checked_rows, unexpected_rows, unexpected_share, examples, parameters) "
            "values (%s, %s, %s, %s, %s, %s, 103552, %s, %s, %s, %s)",
            (RUN_ID, suite, expectation, column, severity, success, unexpected, unexpected / 103552, Jsonb(examples),
             Jsonb({"rule": rule, "table": "staging.stg_meter_readings", "error": None} | limits)),
        )  # fmt: skip
    connection.execute(
        "insert into ml.model_versions values (1, 'isolation_forest_v1.joblib', %s, %s, 103552, 0.6, %s)",
        ("9f" * 32, start - timedelta(days=1), Jsonb(CARD)),
    )
