"""Tables of features without dbt: a small fleet, stored as the pipeline would, with its changes in the log."""

from datetime import datetime, timedelta
from typing import Any, cast

import numpy as np
import polars as pl
import psycopg

from energy_iot.storage.changes import record_change
from energy_iot.storage.postgres import Postgres

METERS, DAYS, INTERVALS = 6, 12, 48
READINGS = METERS * DAYS * INTERVALS
BIG_STEADY_METER = "meter_5"  # a thousand times the others

FEATURE_COLUMNS = """
    reading_id bigint, meter_id text, reading_timestamp timestamp, consumption_kwh double precision,
    avg_consumption_1h double precision, avg_consumption_24h double precision, std_consumption_24h double precision,
    consumption_vs_avg_ratio double precision, hour_of_week_z_score double precision, sub1_ratio double precision,
    sub2_ratio double precision, sub3_ratio double precision, window_hours_24h double precision
"""


def fleet(days: int = DAYS, seed: int = 7) -> pl.DataFrame:
    """Features of a small fleet: a daily shape, its own noise, and one meter far bigger than the others."""
    random = np.random.default_rng(seed)
    count = days * INTERVALS
    hour = np.arange(count) / 2 % 24
    frames = []
    for number in range(METERS):
        scale = 1000.0 if f"meter_{number}" == BIG_STEADY_METER else random.uniform(0.3, 2)
        consumption = scale * (0.5 + np.exp(-(((hour - 20) / 3) ** 2))) * random.lognormal(0, 0.3, count)
        by_hour = consumption.reshape(days, INTERVALS)
        frames.append(
            pl.DataFrame(
                {
                    "reading_id": np.arange(count) + number * count + 1,
                    "meter_id": [f"meter_{number}"] * count,
                    "reading_timestamp": [datetime(2024, 1, 1) + timedelta(minutes=30 * i) for i in range(count)],
                    "consumption_kwh": consumption,
                    "avg_consumption_1h": pl.Series(consumption).rolling_mean(2, min_samples=1),
                    "avg_consumption_24h": pl.Series(consumption).rolling_mean(48, min_samples=1),
                    "std_consumption_24h": pl.Series(consumption).rolling_std(48, min_samples=2),
                    "hour_of_week_z_score": ((by_hour - by_hour.mean(axis=0)) / by_hour.std(axis=0)).ravel(),
                    "window_hours_24h": np.minimum(np.arange(count) / 2, 23.5),
                }
            )
        )
    return pl.concat(frames).with_columns(
        (pl.col("consumption_kwh") / pl.col("avg_consumption_24h")).alias("consumption_vs_avg_ratio"),
        *(pl.lit(None, pl.Float64).alias(f"sub{number}_ratio") for number in (1, 2, 3)),
    )


def store_features(postgres: Postgres, frame: pl.DataFrame) -> None:
    """Make this the feature table; each day it held or holds now counts as changed."""
    table = "intermediate.int_consumption_features"
    with postgres.connect() as connection:
        had_table = connection.execute("select to_regclass(%s) is not null", (table,)).fetchone()
        days = days_of(connection, table) if had_table and had_table[0] else set()
        connection.execute(f"drop table if exists {table}")
        connection.execute(f"create table {table} ({FEATURE_COLUMNS})")
        connection.execute(f"create index on {table} (meter_id, cast(reading_timestamp as date))")
        with connection.cursor().copy(f"copy {table} ({', '.join(frame.columns)}) from stdin (format csv)") as copy:
            copy.write(frame.write_csv(include_header=False))
        record_days(connection, days | days_of(connection, table))


def days_of(connection: psycopg.Connection, table: str) -> set[tuple[Any, ...]]:
    """(meter_id, date) of all readings in a table."""
    return set(connection.execute(f"select distinct meter_id, cast(reading_timestamp as date) from {table}"))


def record_days(connection: psycopg.Connection, days: set[tuple[Any, ...]], kind: str = "load") -> int:
    """Log a change that touched these (meter_id, date); returns its number."""
    change = record_change(connection, kind, file_id=1, file_name="part.csv", sha256="0", run_id=None)
    connection.cursor().executemany(
        "insert into raw_data.changed_days (change_id, meter_id, reading_date) values (%s, %s, %s)",
        [(change, *day) for day in sorted(days)],
    )
    return change


def stored_scores(postgres: Postgres) -> dict[int, tuple[float, bool, int]]:
    """anomaly_score, is_anomaly and model_version by reading_id, where each reading is scored once."""
    with postgres.connect() as connection:
        rows = connection.execute(
            "select reading_id, anomaly_score, is_anomaly, model_version from ml.reading_scores"
        ).fetchall()
    assert len({row[0] for row in rows}) == len(rows)
    return {row[0]: cast("tuple[float, bool, int]", row[1:]) for row in rows}
