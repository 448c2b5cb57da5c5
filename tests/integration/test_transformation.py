"""Each dbt model against a computation of its own in polars, on a fleet with all that meters do wrong."""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from uuid import uuid4

import hypothesis
import polars as pl
import psycopg
import pytest
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from psycopg.conninfo import make_conninfo
from pydantic import SecretStr

from energy_iot.errors import StoreUnavailableError, TransformationError, UsageError
from energy_iot.settings import Settings
from energy_iot.storage.changes import record_change
from energy_iot.storage.postgres import Postgres, open_postgres
from energy_iot.transformation import dbt
from energy_iot.transformation.dbt import NodeRun, run_dbt, run_intermediate, run_marts, run_staging

HISTORY_DAYS = 21
ANOMALY_TYPE_Z = 1.2
DAYS = 50
SEED = 20_240_107


@dataclass
class Fleet:
    """What was loaded, as polars sees it, and what dbt made of it."""

    raw: pl.DataFrame
    files: pl.DataFrame
    scores: pl.DataFrame
    nodes: tuple[NodeRun, ...]
    postgres: Postgres
    home: Path

    @property
    def staged(self) -> pl.DataFrame:
        """One row a meter and instant: the last received that has a consumption."""
        return (
            self.raw.drop_nulls("consumption_kwh")
            .sort("reading_id")
            .unique(["meter_id", "reading_timestamp"], keep="last")
            .join(self.files, on="file_id")
            .sort("meter_id", "reading_timestamp")
        )

    def read(self, table: str) -> pl.DataFrame:
        """The table as PostgreSQL holds it."""
        return read(self.postgres, table)


def read(postgres: Postgres, table: str) -> pl.DataFrame:
    with postgres.connect_arrow() as connection, connection.cursor() as cursor:
        cursor.execute(f"select * from {table}")
        frame = pl.from_arrow(cursor.fetch_arrow_table())
    assert isinstance(frame, pl.DataFrame)
    return frame


# --- the fleet: two files, of which the second repeats, corrects and goes on with the first --------------------------


def make_readings(rng: random.Random) -> tuple[list[dict[str, object]], list[dict[str, int]]]:
    """Rows of raw_data.meter_readings without their ids, and the files they come from."""
    intervals = {1: 30, 2: 30, 3: 15, 4: 60, 5: 7}  # file 2 is of meters that file 1 knows; 7 divides no hour
    rows: list[dict[str, object]] = []
    for number in range(14):
        file_id = (1, 1, 1, 3, 4, 5)[number % 6]
        days = rng.choice((1, 9, DAYS)) if file_id != 5 else 9
        start = datetime(2023, 12, 20) + timedelta(minutes=rng.randrange(0, 60 * 24 * 9, intervals[file_id]))
        jitter = number == 2  # a clock that is off by some seconds, differently each time
        constant = number == 4
        decimals = rng.choice((1, 3, 17))
        scale = rng.choice((0.01, 1, 250))
        missing = rng.choice((0, 0.02, 0.3))
        outages = [start + timedelta(days=rng.uniform(0, days)) for _ in range(3)]
        for step in range(days * 24 * 60 // intervals[file_id]):
            instant = start + timedelta(minutes=step * intervals[file_id])
            in_outage = any(timedelta() <= instant - outage < timedelta(hours=20) for outage in outages)
            if rng.random() < missing or (in_outage and number % 2):
                continue
            kwh: Decimal | None = Decimal(1) / 3 if constant else Decimal(f"{rng.gammavariate(2, scale):.{decimals}f}")
            if rng.random() < 0.02:
                kwh = None
            elif instant.day % 9 == 0 and number % 3 == 0:
                kwh = Decimal(0)
            rows.append(
                {
                    "meter_id": f"meter_{number}",
                    "timestamp": instant + timedelta(seconds=rng.randrange(40) if jitter else 0),
                    "electricity_consumed": kwh,
                    "temperature": rng.choice((None, rng.uniform(-5, 45))),
                    "humidity": rng.choice((None, rng.uniform(0, 100))),
                    "wind_speed": rng.choice((None, rng.uniform(0, 90))),
                    "avg_past_consumption": rng.choice((None, rng.uniform(0, 3))),
                    "voltage": None if number % 4 == 0 else rng.choice((None, rng.uniform(200, 250))),
                    "sub_metering_1": None if number % 2 else rng.uniform(0, 1),
                    "sub_metering_2": None if number % 3 else rng.uniform(0, 1),
                    "sub_metering_3": rng.choice((None, 0.0, rng.uniform(0, 1))),
                    "anomaly_label": rng.choice((None, "Normal", "Normal", "Abnormal", "theft")),
                    "file_id": file_id,
                }
            )
    again = [
        row | {"electricity_consumed": rng.choice((None, Decimal(f"{rng.random():.9f}"))), "file_id": 2}
        for row in rng.sample([row for row in rows if row["file_id"] == 1], 300)
    ]
    # a meter that was half-hourly goes on by the quarter of an hour, from the middle of a day
    changed_at = max(row["timestamp"] for row in rows if row["meter_id"] == "meter_0")
    again += [
        row | {"meter_id": "meter_0", "timestamp": changed_at + timedelta(minutes=30 + 15 * step), "file_id": 3}
        for step, row in enumerate([row for row in rows if row["meter_id"] == "meter_0"][:200])
    ]
    rng.shuffle(rows)  # files need not be in order of time or meter
    return rows + again, [{"file_id": file, "interval_minutes": minutes} for file, minutes in intervals.items()]


def load(postgres: Postgres, rows: list[dict[str, object]], files: list[dict[str, int]]) -> None:
    """Into raw_data, as ingestion leaves it, as one change; ids rise in the order of `rows`."""
    with postgres.connect() as connection:
        change = record_change(connection, "load", file_id=1, file_name="f", sha256="hash", run_id=None)
        with connection.cursor() as cursor:
            cursor.executemany(
                "insert into raw_data.changed_days values (%s, %s, %s)",
                sorted({(change, row["meter_id"], row["timestamp"].date()) for row in rows}),
            )
        for file in files:
            connection.execute(
                "insert into raw_data.ingested_files (file_id, sha256, file_name, source_name, interval_minutes, "
                "size_bytes, lines_read, readings_loaded, readings_without_consumption, readings_rejected, run_id) "
                "overriding system value values (%s, %s, 'f', 's', %s, 1, 1, 1, 0, 0, 'r')",
                (file["file_id"], f"hash {file['file_id']}", file["interval_minutes"]),
            )
        columns = [*rows[0], "source_file"] if rows else []
        if rows:
            copy_in = f"copy raw_data.meter_readings ({', '.join(columns)}) from stdin"
            with connection.cursor() as cursor, cursor.copy(copy_in.encode()) as copy:
                for row in rows:
                    copy.write_row([*row.values(), "f"])


@contextmanager
def database(server: dict[str, str], home: Path, **changed: int | float) -> Iterator[tuple[Settings, Postgres]]:
    """An empty, migrated database; one for many tests, since dbt reads its project anew for each."""
    name = f"t_{uuid4().hex}"
    admin = make_conninfo(**server, dbname="postgres")
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f"create database {name}".encode())
    settings = Settings(home=home, postgres_dsn=SecretStr(make_conninfo(**server, dbname=name))).model_copy(
        update=changed
    )
    with open_postgres(settings) as postgres:
        yield settings, postgres
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f"drop database {name} with (force)".encode())


@pytest.fixture(scope="module")
def fleet(postgres_server: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Loaded, scored at random and built once, by `dbt build`, for all tests of this module."""
    rng = random.Random(SEED)
    rows, files = make_readings(rng)
    raw = pl.DataFrame(rows, schema_overrides={"electricity_consumed": pl.Decimal(38, 28)}, infer_schema_length=None)
    raw = raw.rename({"timestamp": "reading_timestamp"}).with_columns(
        reading_id=pl.int_range(1, pl.len() + 1),
        consumption_kwh=pl.col("electricity_consumed").cast(pl.Float64),
    )
    home = tmp_path_factory.mktemp("fleet home")
    with database(postgres_server, home, history_days=HISTORY_DAYS, anomaly_type_z=ANOMALY_TYPE_Z) as (
        settings,
        postgres,
    ):
        load(postgres, rows, files)
        fleet = Fleet(raw, pl.DataFrame(files), pl.DataFrame(), (), postgres, home)
        fleet.scores = fleet.staged.select("reading_id", "meter_id", "reading_timestamp").with_columns(
            anomaly_score=pl.Series([rng.random() for _ in range(fleet.staged.height)])
        )
        with postgres.connect() as connection:
            connection.execute(
                "insert into ml.model_versions (model_version, file_name, sha256, trained_at, training_rows, "
                "score_threshold, card, in_force_since) select version, 'model', 'hash', '2024-01-01', 1, 0.6, '{}', "
                "in_force_since::timestamp from (values (2, '2024-02-01'), (3, '2024-03-01'), (4, null)) "
                "as versions (version, in_force_since)"
            )
            # those of another version are kept, and not shown
            with connection.cursor() as cursor, cursor.copy("copy ml.reading_scores from stdin") as copy:
                for version in (2, 3, 4):
                    for row in fleet.scores.iter_rows():
                        score = row[3] if version == 3 else 0.9
                        copy.write_row((*row[:3], score, score > 0.6, version, datetime(2024, 3, 1)))
        fleet.nodes = run_dbt(settings, ["build"])
        yield fleet


@pytest.fixture(scope="module")
def shared(
    postgres_server: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Settings, Postgres]]:
    """For tests of how dbt is run; `settings` and `postgres` below empty it for each."""
    with database(postgres_server, tmp_path_factory.mktemp("shared home")) as opened:
        yield opened


@pytest.fixture
def settings(shared: tuple[Settings, Postgres]) -> Settings:
    return shared[0]


@pytest.fixture
def postgres(shared: tuple[Settings, Postgres]) -> Postgres:
    postgres = shared[1]
    with postgres.connect() as connection:
        connection.execute(
            "truncate raw_data.ingested_files, raw_data.meter_readings, raw_data.rejected_readings, "
            "raw_data.changes, raw_data.changed_days, quality.derived_states restart identity"
        )
    return postgres


def with_power(staged: pl.DataFrame) -> pl.DataFrame:
    return staged.with_columns(power_kw=pl.col("consumption_kwh") / (pl.col("interval_minutes") / 60))


def assert_same(found: pl.DataFrame, expected: pl.DataFrame, *keys: str) -> None:
    """The expected columns agree, in any order of rows; floats to nine digits."""
    assert expected.height > 50, "hardly anything to compare"
    assert_frame_equal(
        found.select(expected.columns).sort(*keys),
        expected.sort(*keys),
        check_dtypes=False,
        rel_tol=1e-9,
        abs_tol=1e-12,
    )


def test_the_fleet_holds_what_it_should_prove(fleet: Fleet) -> None:
    staged = fleet.staged
    assert fleet.raw["consumption_kwh"].null_count() > 100
    assert fleet.raw.drop_nulls("consumption_kwh").height - staged.height > 50, "too few corrections"
    assert staged["meter_id"].n_unique() == 14
    per_day = staged.group_by("meter_id", pl.col("reading_timestamp").dt.date()).agg(
        pl.col("interval_minutes").n_unique()
    )
    assert per_day["interval_minutes"].max() == 2, "no day on which the interval changes"


def test_build_passes(fleet: Fleet) -> None:
    kinds = [node.kind for node in fleet.nodes]
    assert (kinds.count("model"), kinds.count("unit_test")) == (21, 16)
    assert kinds.count("test") > 100
    assert {node.status for node in fleet.nodes} <= {"success", "pass", "warn"}
    # the jittering clock and the changed interval make readings overlap; some of the made-up customers are big
    assert {node.name for node in fleet.nodes if node.status == "warn"} <= {
        "int_readings_daily_no_overlap",
        "stg_meter_readings_plausible_consumption",
    }


def test_staging(fleet: Fleet) -> None:
    sunday_first = pl.col("reading_timestamp").dt.weekday() % 7
    expected = fleet.staged.select(
        "reading_id",
        "meter_id",
        "reading_timestamp",
        "interval_minutes",
        "consumption_kwh",
        pl.col("temperature").alias("temperature_c"),
        pl.col("humidity").alias("humidity_pct"),
        pl.col("wind_speed").alias("wind_speed_kmh"),
        pl.col("avg_past_consumption").alias("avg_past_consumption_kwh"),
        pl.col("voltage").alias("voltage_v"),
        *(pl.col(f"sub_metering_{number}").alias(f"sub_metering_{number}_kwh") for number in (1, 2, 3)),
        "anomaly_label",
        pl.col("anomaly_label").is_in(["Abnormal", "theft"]).alias("is_labelled_anomaly"),
        pl.col("reading_timestamp").dt.hour().alias("hour_of_day"),
        sunday_first.alias("day_of_week"),
    )
    columns = ", ".join(expected.columns).replace("consumption_kwh", "cast(consumption_kwh as double precision)", 1)
    assert_same(fleet.read(f"(select {columns} from staging.stg_meter_readings) as staged"), expected, "reading_id")


def test_hourly(fleet: Fleet) -> None:
    expected = (
        with_power(fleet.staged)
        .group_by("meter_id", hour_start=pl.col("reading_timestamp").dt.truncate("1h"))
        .agg(
            avg_power_kw=(pl.col("power_kw") * pl.col("interval_minutes")).sum() / pl.col("interval_minutes").sum(),
            max_power_kw=pl.col("power_kw").max(),
            min_power_kw=pl.col("power_kw").min(),
            total_consumption_kwh=pl.col("consumption_kwh").sum(),
            avg_voltage_v=pl.col("voltage").mean(),
            reading_count=pl.len(),
            covered_hours=pl.col("interval_minutes").sum() / 60,
        )
    )
    assert_same(fleet.read("intermediate.int_readings_hourly"), expected, "meter_id", "hour_start")


def daily(staged: pl.DataFrame) -> pl.DataFrame:
    """One row a meter and day; of equal peaks the first reading's hour."""
    return (
        with_power(staged)
        .sort("meter_id", "reading_timestamp")
        .group_by("meter_id", reading_date=pl.col("reading_timestamp").dt.date())
        .agg(
            daily_consumption_kwh=pl.col("consumption_kwh").sum(),
            peak_hour=pl.col("reading_timestamp").sort_by("power_kw", descending=True, maintain_order=True).first(),
            peak_power_kw=pl.col("power_kw").max(),
            reading_count=pl.len(),
            expected_reading_count=(1440 / pl.col("interval_minutes").mean()).round(),
            covered_hours=pl.col("interval_minutes").sum() / 60,
        )
        .with_columns(
            pl.col("peak_hour").dt.hour(),
            completeness=pl.col("reading_count") / pl.col("expected_reading_count"),
        )
    )


def test_daily(fleet: Fleet) -> None:
    expected = daily(fleet.staged)
    assert (expected["completeness"] < 0.9).any()
    assert_same(fleet.read("intermediate.int_readings_daily"), expected, "meter_id", "reading_date")


def test_gaps(fleet: Fleet) -> None:
    expected = []
    for (meter,), readings in fleet.staged.group_by("meter_id"):
        times = readings.sort("reading_timestamp").select("reading_timestamp", "interval_minutes").rows()
        for (this, minutes), (following, _) in pairwise(times):
            due, missing = this + timedelta(minutes=minutes), 0
            while due + missing * timedelta(minutes=minutes) < following:
                missing += 1
            if missing:
                expected.append((meter, due, following, missing))
    found = fleet.read("intermediate.int_reading_gaps")
    assert len(expected) > 300
    assert sorted(found.select("meter_id", "gap_start", "gap_end", "missing_readings").rows()) == sorted(expected)


def history(staged: pl.DataFrame) -> pl.DataFrame:
    """For each meter and hour: the readings of the same hour 1, 2, ... weeks earlier, put together week by week."""
    hours = staged.group_by("meter_id", hour_start=pl.col("reading_timestamp").dt.truncate("1h")).agg("consumption_kwh")
    earlier = pl.concat(
        hours.select("meter_id", pl.col("hour_start").dt.offset_by(f"{weeks}w"), "consumption_kwh")
        for weeks in range(1, HISTORY_DAYS // 7 + 1)
    ).explode("consumption_kwh")
    moments = earlier.group_by("meter_id", "hour_start").agg(
        reading_count=pl.len(),
        avg_consumption_kwh=pl.col("consumption_kwh").mean(),
        # equal doubles have no spread, whatever their rounded mean says
        std_consumption_kwh=pl.when(pl.col("consumption_kwh").n_unique() == 1)
        .then(pl.when(pl.len() > 1).then(0.0))
        .otherwise(pl.col("consumption_kwh").std()),
    )
    return (
        hours.select("meter_id", "hour_start")
        .join(moments, on=["meter_id", "hour_start"], how="left")
        .with_columns(pl.col("reading_count").fill_null(0))
    )


def test_hour_of_week_history(fleet: Fleet) -> None:
    expected = history(fleet.staged)
    assert (expected["reading_count"] >= 3).sum() > 500
    assert_same(fleet.read("intermediate.int_hour_of_week_history"), expected, "meter_id", "hour_start")


def features(staged: pl.DataFrame) -> pl.DataFrame:
    """Windows by polars' own rolling groups; everything else by the definitions."""
    staged = staged.sort("meter_id", "reading_timestamp")
    last_hour, last_day = (
        staged.rolling("reading_timestamp", period=period, closed="right", group_by="meter_id").agg(
            pl.col("consumption_kwh").mean().alias(f"avg_consumption_{period}"),
            pl.col("consumption_kwh").std().alias(f"std_consumption_{period}"),
            pl.col("reading_timestamp").first().alias(f"oldest_{period}"),
        )
        for period in ("1h", "24h")
    )
    mean_24h = pl.col("avg_consumption_24h")
    kwh = pl.col("consumption_kwh")
    shares = {
        f"sub{number}_ratio": pl.when(kwh != 0).then(pl.col(f"sub_metering_{number}") / kwh) for number in (1, 2, 3)
    }
    has_history = (pl.col("reading_count") >= 3) & (pl.col("std_consumption_kwh") > 0)
    return (
        with_power(staged)
        .join(last_hour, on=["meter_id", "reading_timestamp"])
        .join(last_day, on=["meter_id", "reading_timestamp"])
        .with_columns(hour_start=pl.col("reading_timestamp").dt.truncate("1h"))
        .join(history(staged), on=["meter_id", "hour_start"])
        .select(
            "reading_id",
            "meter_id",
            "reading_timestamp",
            "consumption_kwh",
            pl.col("power_kw").alias("active_power_kw"),
            "avg_consumption_1h",
            "avg_consumption_24h",
            "std_consumption_24h",
            pl.when(mean_24h != 0).then(kwh / mean_24h).alias("consumption_vs_avg_ratio"),
            pl.when(has_history)
            .then((kwh - pl.col("avg_consumption_kwh")) / pl.col("std_consumption_kwh"))
            .alias("hour_of_week_z_score"),
            **shares,
            hour_of_day=pl.col("reading_timestamp").dt.hour(),
            day_of_week=pl.col("reading_timestamp").dt.weekday() % 7,
            is_weekend=pl.col("reading_timestamp").dt.weekday() >= 6,
            month=pl.col("reading_timestamp").dt.month(),
            temperature_c=pl.col("temperature"),
            humidity_pct=pl.col("humidity"),
            wind_speed_kmh=pl.col("wind_speed"),
            window_hours_24h=(pl.col("reading_timestamp") - pl.col("oldest_24h")).dt.total_seconds() / 3600,
        )
    )


def test_features(fleet: Fleet) -> None:
    expected = features(fleet.staged)
    for column in ("hour_of_week_z_score", "consumption_vs_avg_ratio", "std_consumption_24h", "sub1_ratio"):
        assert 0 < expected[column].null_count() < expected.height, f"{column}: both rules have to be seen"
    found = fleet.read("intermediate.int_consumption_features")
    assert found.columns == expected.columns
    # doubles add up to a spread of some 1e-17 where readings do not differ; numerics do not
    floats = {"std_consumption_24h": pl.col("std_consumption_24h").round(12)}
    assert_same(found.with_columns(**floats), expected.with_columns(**floats), "reading_id")


# half-hours of two meters, in the first days of four weeks: windows fill, break off, and meet their own history
INSTANTS = st.tuples(st.sampled_from("ab"), st.integers(0, 3), st.integers(0, 60))
READINGS = st.dictionaries(INSTANTS, st.decimals(0, 9, places=3), min_size=1, max_size=80)


@hypothesis.given(readings=READINGS)
@hypothesis.settings(max_examples=60)
def test_windows_on_any_readings(fleet: Fleet, readings: dict[tuple[str, int, int], Decimal]) -> None:
    """The SQL that dbt compiled, run on readings of any pattern; rolled back after each."""
    compiled = fleet.home / "dbt" / "compiled" / "energy_iot" / "models" / "intermediate"
    rows = [
        (number, meter, datetime(2024, 1, 7) + timedelta(weeks=week, minutes=30 * step), 30, kwh)
        for number, ((meter, week, step), kwh) in enumerate(readings.items())
    ]
    names = ["reading_id", "meter_id", "reading_timestamp", "interval_minutes", "consumption_kwh"]
    staged = pl.DataFrame(rows, names, orient="row").with_columns(
        pl.col("consumption_kwh").cast(pl.Float64),
        *(pl.lit(None, pl.Float64).alias(f"sub_metering_{number}") for number in (1, 2, 3)),
        *(pl.lit(None, pl.Float64).alias(name) for name in ("temperature", "humidity", "wind_speed")),
    )
    with fleet.postgres.connect() as connection, connection.transaction(force_rollback=True):
        cursor = connection.cursor()
        cursor.execute(
            "truncate staging.stg_meter_readings, intermediate.int_readings_hourly, "
            "intermediate.int_hour_of_week_history"
        )
        cursor.executemany(
            f"insert into staging.stg_meter_readings ({', '.join(names)}, hour_of_day, day_of_week) values "
            "(%s, %s, %s, %s, %s, %s, %s)",
            [(*row, row[2].hour, row[2].isoweekday() % 7) for row in rows],
        )
        for model in ("int_readings_hourly", "int_hour_of_week_history"):
            cursor.execute(
                f"insert into intermediate.{model} {(compiled / model).with_suffix('.sql').read_text()}".encode()
            )
        cursor.execute((compiled / "int_consumption_features.sql").read_bytes())
        found = pl.DataFrame(
            cursor.fetchall(),
            [column.name for column in cursor.description or ()],
            orient="row",
            infer_schema_length=None,
        )
    windows = [
        "avg_consumption_1h",
        "avg_consumption_24h",
        "std_consumption_24h",
        "hour_of_week_z_score",
        "window_hours_24h",
    ]
    columns = [pl.col("reading_id"), *(pl.col(name).cast(pl.Float64).round(9) for name in windows)]
    expected = features(staged)
    assert_frame_equal(
        found.sort("reading_id").select(columns),
        expected.sort("reading_id").select(columns),
        check_dtypes=False,
        rel_tol=1e-7,
        abs_tol=1e-8,
    )


def test_consumption_metrics(fleet: Fleet) -> None:
    days = daily(fleet.staged)
    expected = []
    for period, step in (("day", "1d"), ("week", "1w"), ("month", "1mo")):
        start = pl.col("reading_date").dt.truncate(step)  # polars' weeks start on Monday
        periods = days.group_by("meter_id", period_start=start).agg(
            consumption_kwh=pl.col("daily_consumption_kwh").sum(),
            avg_power_kw=pl.col("daily_consumption_kwh").sum() / pl.col("covered_hours").sum(),
            peak_power_kw=pl.col("peak_power_kw").max(),
            reading_count=pl.col("reading_count").sum(),
            interval_hours=pl.col("covered_hours").sum() / pl.col("reading_count").sum(),
        )
        following = periods.select(
            "meter_id",
            pl.col("period_start").dt.offset_by(step),
            pl.col("consumption_kwh").alias("previous_consumption_kwh"),
        )
        hours = (pl.col("period_start").dt.offset_by(step) - pl.col("period_start")).dt.total_hours()
        expected.append(
            periods.join(following, on=["meter_id", "period_start"], how="left").with_columns(
                period_type=pl.lit(period), expected_reading_count=(hours / pl.col("interval_hours")).round()
            )
        )
    previous = pl.col("previous_consumption_kwh")
    metrics = pl.concat(expected).select(
        "meter_id",
        "period_type",
        "period_start",
        "consumption_kwh",
        "avg_power_kw",
        "peak_power_kw",
        pl.when(pl.col("peak_power_kw") != 0)
        .then(pl.col("avg_power_kw") / pl.col("peak_power_kw"))
        .alias("load_factor"),
        "previous_consumption_kwh",
        pl.when(previous != 0).then((pl.col("consumption_kwh") / previous - 1) * 100).alias("consumption_change_pct"),
        "reading_count",
        "expected_reading_count",
        (pl.col("reading_count") / pl.col("expected_reading_count")).alias("completeness"),
    )
    found = fleet.read("marts.mart_consumption_metrics")
    assert found.columns == metrics.columns
    assert_same(found, metrics, "meter_id", "period_type", "period_start")


def test_anomaly_scores(fleet: Fleet) -> None:
    z = pl.col("hour_of_week_z_score")
    is_anomaly = pl.col("anomaly_score") > 0.6
    expected = (
        features(fleet.staged)
        .join(fleet.scores.select("reading_id", "anomaly_score"), on="reading_id")
        .select(
            "reading_id",
            "meter_id",
            "reading_timestamp",
            "consumption_kwh",
            "active_power_kw",
            "anomaly_score",
            is_anomaly.alias("is_anomaly"),
            pl.when(~is_anomaly)
            .then(None)
            .when(z >= ANOMALY_TYPE_Z)
            .then(pl.lit("high_consumption"))
            .when(z <= -ANOMALY_TYPE_Z)
            .then(pl.lit("low_consumption"))
            .otherwise(pl.lit("unusual_pattern"))
            .alias("anomaly_type"),
            "hour_of_week_z_score",
            "consumption_vs_avg_ratio",
            "temperature_c",
            pl.lit(3).alias("model_version"),
            pl.lit(datetime(2024, 3, 1)).alias("scored_at"),
        )
    )
    assert expected["anomaly_type"].n_unique() == 4
    found = fleet.read("marts.mart_anomaly_scores")
    assert found.columns == expected.columns
    assert_same(found, expected, "reading_id")


# --- the steps, and dbt's surroundings -------------------------------------------------------------------------------


def a_day(meter: str = "a", file_id: int = 1) -> list[dict[str, object]]:
    """Half-hours of one day, of which one has no consumption and two are missing."""
    start = datetime(2024, 1, 1)
    return [
        {
            "meter_id": meter,
            "timestamp": start + timedelta(minutes=30 * step),
            "electricity_consumed": None if step == 7 else Decimal(step) / 8,
            "file_id": file_id,
        }
        for step in range(48)
        if step not in (20, 21)
    ]


def files_of(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_steps_report_what_they_did(make_context, postgres: Postgres, capfd: pytest.CaptureFixture[str]) -> None:
    rows = a_day()
    load(postgres, rows + rows[:3], [{"file_id": 1, "interval_minutes": 30}])
    context = make_context()
    in_project, environment, folder = files_of(dbt.DBT_PROJECT_DIR), dict(os.environ), Path.cwd()

    staging, intermediate, marts = run_staging(context), run_intermediate(context), run_marts(context)

    assert (staging.rows_in, staging.rows_out) == (49, 45)
    assert (staging.details["without_consumption"], staging.details["replaced_by_later"]) == (1, 3)
    assert staging.details["models"]["stg_meter_readings"]["rows"] == 45
    assert staging.details["models"]["stg_meter_readings"]["seconds"] > 0
    assert set(intermediate.details["models"]) == {
        "int_readings_hourly",
        "int_readings_daily",
        "int_reading_gaps",
        "int_hour_of_week_history",
        "int_consumption_features",
        "int_energy_balance",
        "int_meter_days",
        "int_registered_meters",
        "int_meter_levels",
        "int_meter_features",
    }
    assert (intermediate.rows_in, intermediate.details["gaps"], intermediate.details["missing_readings"]) == (45, 2, 3)
    assert intermediate.rows_out == sum(model["rows"] for model in intermediate.details["models"].values())
    assert (marts.rows_in, marts.rows_out) == (1, 3)
    assert marts.details["models"]["mart_anomaly_scores"]["rows"] == 0

    assert files_of(dbt.DBT_PROJECT_DIR) == in_project, "dbt wrote into the project"
    assert (context.settings.home / "dbt" / "partial_parse.msgpack").exists()
    assert dict(os.environ) == environment
    assert Path.cwd() == folder
    assert capfd.readouterr() == ("", "")

    before = read(postgres, "intermediate.int_consumption_features")
    run_staging(context)
    run_intermediate(context)
    assert_frame_equal(read(postgres, "intermediate.int_consumption_features"), before, check_row_order=False)


def test_build_passes_on_an_empty_database(settings: Settings, postgres: Postgres) -> None:
    nodes = run_dbt(settings, ["build"])
    assert {node.status for node in nodes} == {"success", "pass"}
    assert {node.rows for node in nodes if node.kind == "model"} == {0}


def test_failures_name_model_file_and_reason(settings: Settings, postgres: Postgres) -> None:
    with postgres.connect() as connection:
        connection.execute("alter table raw_data.meter_readings rename column voltage to volts")
    try:
        with pytest.raises(TransformationError) as failed:
            run_dbt(settings, ["run"])
    finally:
        with postgres.connect() as connection:
            connection.execute("alter table raw_data.meter_readings rename column volts to voltage")
    assert failed.value.exit_code == 1
    assert "1 of 21 failed, 13 that depend on them were skipped" in failed.value.problem
    assert "model stg_meter_readings (dbt/models/staging/stg_meter_readings.sql)" in failed.value.problem
    assert "column received.voltage does not exist" in failed.value.problem
    assert "\x1b" not in failed.value.problem
    compiled = failed.value.fix.split("the SQL that ran is ")[1].split(";")[0]
    assert "received.voltage as voltage_v" in Path(compiled).read_text()


def test_a_failing_test_names_the_rows(settings: Settings, postgres: Postgres) -> None:
    rows = a_day()
    rows[3]["electricity_consumed"] = Decimal("-1.5")
    load(postgres, rows, [{"file_id": 1, "interval_minutes": 30}])
    run_dbt(settings, ["run"])
    with pytest.raises(
        TransformationError, match=r"test assert_positive_power \(dbt/tests/assert_positive_power.sql\)"
    ):
        run_dbt(settings, ["test", "--select", "test_type:singular"])


def test_a_reading_of_an_unknown_file_is_found(settings: Settings, postgres: Postgres) -> None:
    load(postgres, [*a_day(), *a_day("b", file_id=2)], [{"file_id": 1, "interval_minutes": 30}])
    with pytest.raises(TransformationError) as failed:
        run_dbt(settings, ["build", "--select", "source:raw_data", "staging"])
    assert "source_relationships_raw_data_meter_readings_file_id" in failed.value.problem


def test_unreachable_database(tmp_path: Path) -> None:
    dsn = SecretStr("postgresql://somebody:sesame@127.0.0.1:1/nothing")
    with pytest.raises(StoreUnavailableError) as failed:
        run_dbt(Settings(home=tmp_path, postgres_dsn=dsn), ["run"])
    assert failed.value.exit_code == 5
    assert "127.0.0.1:1" in failed.value.problem
    assert "sesame" not in str(failed.value)


def test_connection_lost_while_a_model_runs(settings: Settings, postgres: Postgres) -> None:
    load(postgres, a_day(), [{"file_id": 1, "interval_minutes": 30}])
    with postgres.connect() as connection:
        connection.execute("alter table raw_data.ingested_files rename to files_of_before")
        connection.execute(
            "create view raw_data.ingested_files as select * from raw_data.files_of_before "
            "where pg_terminate_backend(pg_backend_pid())"
        )
    try:
        with pytest.raises(StoreUnavailableError, match="server closed the connection") as failed:
            run_dbt(settings, ["run", "--select", "staging"])
    finally:
        with postgres.connect() as connection:
            connection.execute("drop view raw_data.ingested_files cascade")
            connection.execute("alter table raw_data.files_of_before rename to ingested_files")
    assert failed.value.exit_code == 5


def test_unknown_command_and_option(settings: Settings, postgres: Postgres) -> None:
    with pytest.raises(UsageError, match="fly"):
        run_dbt(settings, ["fly"])
    with pytest.raises(UsageError, match="--high"):
        run_dbt(settings, ["run", "--high"])
    with pytest.raises(UsageError, match="no dbt command"):
        run_dbt(settings, [])


def test_a_project_that_does_not_compile(
    settings: Settings, postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "project"
    (project / "models").mkdir(parents=True)
    for name in ("dbt_project.yml", "profiles.yml"):
        (project / name).write_text((dbt.DBT_PROJECT_DIR / name).read_text())
    (project / "models" / "odd.sql").write_text("select * from {{ ref('nowhere') }}")
    monkeypatch.setattr(dbt, "DBT_PROJECT_DIR", project)
    with pytest.raises(TransformationError, match="nowhere") as failed:
        run_dbt(settings, ["run"])
    assert "before it ran anything" in failed.value.problem


def test_password_stays_out_of_files_and_environment(
    settings: Settings, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    password = "Tr0ub4dor"
    dsn = make_conninfo(postgres.conninfo, password=password)  # the server trusts its socket and asks for none
    monkeypatch.setenv("DBT_POSTGRES_HOST", "was here before")
    guarded = settings.model_copy(update={"postgres_dsn": SecretStr(dsn)})
    run_dbt(guarded, ["compile", "--select", "staging"])
    written = [path for path in (guarded.home / "dbt").rglob("*") if path.is_file()]
    assert len(written) > 3
    assert not [path for path in written if password.encode() in path.read_bytes()]
    assert os.environ["DBT_POSTGRES_HOST"] == "was here before"
    assert "DBT_ENV_SECRET_POSTGRES_PASSWORD" not in os.environ


def test_dbt_acts_in_the_role_of_the_connection(settings: Settings, postgres: Postgres) -> None:
    role = f"transformer_{uuid4().hex}"  # roles are the server's, and other tests share it
    with postgres.connect() as connection:
        connection.execute(
            f"drop schema staging cascade; create schema staging; create role {role}; "
            f"grant usage on schema raw_data, quality, ml to {role}; "
            f"grant select on all tables in schema raw_data, quality, ml to {role}; "
            f"grant insert, update on quality.derived_states to {role}; "
            f"grant usage, create on schema staging to {role}"
        )
    try:
        dsn = make_conninfo(postgres.conninfo, options=f"-c role={role}")
        run_dbt(settings.model_copy(update={"postgres_dsn": SecretStr(dsn)}), ["run", "--select", "staging"])
        with postgres.connect() as connection:
            owner = connection.execute("select tableowner from pg_tables where schemaname = 'staging'").fetchall()
        assert set(owner) == {(role,)}
    finally:
        with postgres.connect() as connection:
            connection.execute(f"drop owned by {role} cascade; drop role {role}")


def test_docs_are_written_under_the_home_folder(settings: Settings, postgres: Postgres) -> None:
    assert run_dbt(settings, ["docs", "generate", "--no-compile"]) == ()
    assert (settings.home / "dbt" / "catalog.json").exists()
    assert (settings.home / "dbt" / "index.html").exists()
