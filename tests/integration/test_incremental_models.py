"""However readings arrive, the models brought up to date change by change hold what a full refresh makes of them."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal

import psycopg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from energy_iot.pipeline import RunContext, RunOptions, StepReport
from energy_iot.settings import Settings
from energy_iot.storage.changes import DerivedState, read_state, record_change, write_state
from energy_iot.storage.postgres import Postgres, open_postgres
from energy_iot.transformation import dbt
from energy_iot.transformation.dbt import run_dbt, run_intermediate, run_marts, run_staging
from tests.conftest import new_database
from tests.work_counters import counted, keep_upkeep_off

pytestmark = pytest.mark.xdist_group("incremental_models")  # one warehouse, which each test goes on with

HISTORY_DAYS = 14  # two weeks: every reach ends within the days of a fleet
FIRST_DAY = datetime(2023, 12, 11)  # a Monday; days, weeks, a month and a year end in what follows
LAYERS = {"staging": run_staging, "intermediate": run_intermediate, "marts": run_marts}
RAW_COLUMNS = ("meter_id", "timestamp", "electricity_consumed", "temperature", "voltage", "sub_metering_1")

Row = tuple[str, datetime, Decimal | None, float | None, float | None, float | None]


# --- fleets, and how their readings arrive ---------------------------------------------------------------------------


@dataclass
class Change:
    """A file that is loaded, or one that is taken out again."""

    file_id: int
    interval_minutes: int = 0
    rows: list[Row] = field(default_factory=list)
    forgets: bool = False


@dataclass
class Meter:
    """How one meter reads, and what becomes of its readings on their way."""

    name: str
    interval_minutes: int
    first_day: int
    days: int
    decimals: int
    jitter: bool
    missing: float
    silent_days: set[int]
    late: float
    all_at_once: bool

    def readings(self, rng: random.Random) -> Iterator[tuple[int, Row]]:
        """Each reading with the number of its day."""
        for step in range(self.days * 24 * 60 // self.interval_minutes):
            instant = FIRST_DAY + timedelta(days=self.first_day, minutes=step * self.interval_minutes)
            day = (instant - FIRST_DAY).days
            if day in self.silent_days or rng.random() < self.missing:
                continue
            yield day, (self.name, instant + timedelta(seconds=rng.randrange(50) * self.jitter), *self.values(rng))

    def values(self, rng: random.Random) -> tuple[Decimal | None, float | None, float | None, float | None]:
        """Of one reading; now and then without consumption."""
        kwh = None if rng.random() < 0.01 else Decimal(f"{rng.gammavariate(2, 0.3):.{self.decimals}f}")
        return kwh, rng.choice((None, rng.uniform(-5, 45))), rng.choice((None, rng.uniform(200, 250))), rng.random()


def random_fleet(rng: random.Random, days: int) -> list[Meter]:
    """One to six meters, each with fates of its own."""
    meters = []
    for number in range(rng.randint(1, 6)):
        first_day = rng.choice((0, 0, rng.randrange(days)))
        silent_from = rng.randrange(days)
        meters.append(
            Meter(
                name=f"meter {number}",
                interval_minutes=rng.choice((15, 30, 60, 7)),
                first_day=first_day,
                days=rng.choice((1, days - first_day, days - first_day)),
                decimals=rng.choice((0, 3, 12)),
                jitter=rng.random() < 0.3,
                missing=rng.choice((0, 0.02, 0.4)),
                silent_days=set(range(silent_from, silent_from + rng.choice((0, 1, 4, 20)))),
                late=rng.choice((0, 0.003, 0.05)),
                all_at_once=rng.random() < 0.2,  # nothing for long, then everything
            )
        )
    return meters


def calm_meters(rng: random.Random, days: int, loads: int) -> Iterator[tuple[int, str, Row]]:
    """Readings with their load and file, of meters of which all is there at once, but for a day or a reading.

    Little of them is to be made anew, so that each lack in what is made anew shows.
    """
    for number in range(8):
        when, fate = rng.randrange(days), ("late day", "late end", "correction", "forgotten day")[number % 4]
        for step in range(days * 48):
            day = step // 48
            kwh = Decimal(f"{rng.gammavariate(2, 0.3):.3f}")
            row: Row = (f"calm {number}", FIRST_DAY + timedelta(minutes=30 * step), kwh, 20.0, 230.0, 0.1)
            late = (fate == "late day" and day == when) or (fate == "late end" and day >= max(when, days - 2))
            forgotten = fate == "forgotten day" and day == when
            yield (rng.randrange(1, loads) if late else 0), (row[0] if forgotten else "calm"), row
            if fate == "correction" and step in (48 * when, 48 * when + 37):
                yield rng.randrange(1, loads), "calm", (*row[:2], kwh * 50, *row[3:])


def random_changes(seed: int, *, days: int, loads: int) -> list[list[Change]]:
    """Loads of one or more files: days in order, late readings, corrections, duplicates; files that are forgotten."""
    rng = random.Random(seed)
    files: dict[tuple[int, int, str], list[Row]] = {}
    for load, file, row in calm_meters(rng, days, loads):
        files.setdefault((load, 30, file), []).append(row)
    for meter in random_fleet(rng, days):
        only = rng.randrange(loads) if meter.all_at_once else None
        for day, row in meter.readings(rng):
            due = day * loads // days if only is None else only
            load = rng.randrange(due, loads) if rng.random() < meter.late else due
            # some meters have another interval later on, and not from the end of a day
            changed = meter.interval_minutes == 30 and row[1] > FIRST_DAY + timedelta(days=days * 0.7)
            files.setdefault((load, 60 if changed else meter.interval_minutes, "fleet"), []).append(row)
            again = rng.random()
            if again < 0.01:
                later = (rng.randrange(load, loads), meter.interval_minutes, "fleet")
                values = row[2:] if again < 0.002 else meter.values(rng)
                files.setdefault(later, []).append((*row[:2], *values))
    changes: list[list[Change]] = [[] for _ in range(loads)]
    for number, ((load, interval, file), rows) in enumerate(sorted(files.items()), start=1):
        rng.shuffle(rows)
        changes[load].append(Change(number, interval, rows))
        if file != "calm" and load + 1 < loads and (file != "fleet" or rng.random() < 0.2):
            changes[rng.randrange(load + 1, loads)].append(Change(number, forgets=True))
    return [load for load in changes if load]


def apply_change(connection: psycopg.Connection, change: Change) -> None:
    """Into raw_data or out of it, as ingestion and `forget` do."""
    if change.forgets:
        gone = connection.execute(
            "delete from raw_data.meter_readings where file_id = %s returning meter_id, cast(timestamp as date)",
            (change.file_id,),
        ).fetchall()
        connection.execute("delete from raw_data.ingested_files where file_id = %s", (change.file_id,))
        days = set(gone)
    else:
        connection.execute(
            "insert into raw_data.ingested_files (file_id, sha256, file_name, source_name, interval_minutes, "
            "size_bytes, lines_read, readings_loaded, readings_without_consumption, readings_rejected, run_id) "
            "overriding system value values (%s, %s, 'f', 's', %s, 1, 1, 1, 0, 0, 'r')",
            (change.file_id, f"hash {change.file_id}", change.interval_minutes),
        )
        columns = ", ".join((*RAW_COLUMNS, "source_file", "file_id"))
        with (
            connection.cursor() as cursor,
            cursor.copy(f"copy raw_data.meter_readings ({columns}) from stdin".encode()) as copy,
        ):
            for row in change.rows:
                copy.write_row((*row, "f", change.file_id))
        days = {(row[0], row[1].date()) for row in change.rows}
    change_id = record_change(
        connection,
        "forget" if change.forgets else "load",
        file_id=change.file_id,
        file_name="f",
        sha256=f"hash {change.file_id}",
        run_id=None,
    )
    with connection.cursor() as cursor:
        cursor.executemany(
            "insert into raw_data.changed_days values (%s, %s, %s)", [(change_id, *day) for day in sorted(days)]
        )


# --- building and comparing ------------------------------------------------------------------------------------------


@dataclass
class Warehouse:
    """A database, and what the pipeline does in it."""

    settings: Settings
    postgres: Postgres

    def load(self, changes: list[Change]) -> None:
        for change in changes:
            with self.postgres.connect() as connection:
                apply_change(connection, change)
        with self.postgres.connect(autocommit=True) as connection:
            connection.execute("select brin_summarize_new_values('raw_data.meter_readings_timestamp')")

    def build(self, layer: str, *, full_refresh: bool = False) -> StepReport:
        return LAYERS[layer](RunContext(self.settings, "run", RunOptions(full_refresh=full_refresh)))

    def build_all(self, *, full_refresh: bool = False) -> set[str]:
        """All layers and the scores, with as few starts of dbt as can be; says how the models were built."""
        command = ["run", "--no-write-json", *(["--full-refresh"] if full_refresh else [])]
        nodes = run_dbt(self.settings, [*command, "--select", "staging", "intermediate"])
        self.score()
        nodes += run_dbt(self.settings, [*command, "--select", "marts"])
        return {{"INSERT": "incremental", "SELECT": "whole"}[node.message.split()[0]] for node in nodes}

    def score(self, version: int = 1) -> None:
        """Scores that follow from each feature of the days before, as far back as real ones do, and nothing else."""
        with self.postgres.connect() as connection:
            connection.execute(
                "insert into ml.model_versions (model_version, file_name, sha256, trained_at, training_rows, "
                "score_threshold, card, in_force_since) values (%s, 'f', 'hash', now(), 1, 0.1, '{}', now()) "
                "on conflict do nothing",
                (version,),
            )
            connection.execute("truncate ml.reading_scores")
            connection.execute(
                "insert into ml.reading_scores "
                "select reading_id, meter_id, reading_timestamp, score, score > 0.9, %s, timestamp '2024-01-01' "
                "from (select *, abs(sum(cast(coalesce(1000 * hour_of_week_z_score, 0) as bigint)) over "
                "(partition by meter_id order by cast(reading_timestamp as date) "
                "range between %s preceding and current row)) %% 1000 / 1000.0 as score "
                "from intermediate.int_consumption_features) as scored",
                (version, timedelta(days=HISTORY_DAYS - 1)),
            )
            features = read_state(connection, "int_consumption_features")
            assert features is not None
            write_state(connection, DerivedState("ml_score", features.change_id, f"model {version}"))
            connection.execute("truncate ml.meter_suspicions")
            connection.execute(
                "insert into ml.meter_suspicions (meter_id, as_of_date, suspicion_score, confidence, suspected_since, "
                "lost_kwh, forest_rank, model_version, ranked_at) select meter_id, as_of_date, "
                "abs(coalesce(hourly_change_recent, 0)) / 10, 0.5, drop_date, mean_kwh, 0, %s, timestamp '2024-01-01' "
                "from intermediate.int_meter_features",
                (version,),
            )
            write_state(connection, DerivedState("ml_meter_suspicions", features.change_id, f"model {version}"))

    def tables(self) -> list[str]:
        with self.postgres.connect() as connection:
            rows = connection.execute(
                "select schemaname || '.' || tablename from pg_tables where schemaname = any(%s) order by 1",
                (list(LAYERS),),
            ).fetchall()
        return [row[0] for row in rows]

    def keep(self) -> None:
        """Copies of all tables as they are, under other names."""
        with self.postgres.connect() as connection:
            connection.execute("create schema kept")
            for table in self.tables():
                connection.execute(f"create table kept.{table.split('.')[1]} as table {table}".encode())

    def compare(self) -> dict[str, list[object]]:
        """For each table that is not as it was kept, to the last digit, some of the rows that are on one side only."""
        found = {}
        with self.postgres.connect() as connection:
            tables = self.tables()
            assert len(tables) == len(list((dbt.DBT_PROJECT_DIR / "models").rglob("*.sql")))
            for table in tables:
                # as texts, which tell numerics by their digits and hold all of a double
                now, kept = f"select t::text from {table} as t", f"select t::text from kept.{table.split('.')[1]} as t"
                rows = connection.execute(
                    f"select 'now', * from ({now} except all {kept}) as a union all "
                    f"select 'kept', * from ({kept} except all {now}) as b order by 2, 1 limit 6".encode()
                ).fetchall()
                if rows:
                    found[table] = rows
            connection.execute("drop schema kept cascade")
        return found

    def empty(self) -> None:
        """As if nothing had ever been loaded."""
        with self.postgres.connect() as connection:
            connection.execute(
                "truncate raw_data.meter_readings, raw_data.ingested_files, raw_data.rejected_readings, "
                "raw_data.changes, raw_data.changed_days, quality.derived_states restart identity"
            )

    def rows(self, table: str) -> int:
        with self.postgres.connect() as connection:
            row = connection.execute(f"select count(*) from {table}".encode()).fetchone()
        return int(row[0]) if row else 0


@pytest.fixture(scope="module")
def opened(postgres_server: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warehouse]:
    """One database and home for this module: dbt reads its project anew, for seconds, for each."""
    with new_database(postgres_server) as dsn:
        settings = Settings(home=tmp_path_factory.mktemp("warehouse"), postgres_dsn=dsn, history_days=HISTORY_DAYS)
        with open_postgres(settings) as postgres:
            keep_upkeep_off(postgres)
            yield Warehouse(settings, postgres)


def check(warehouse: Warehouse, loads: list[list[Change]]) -> None:
    warehouse.empty()
    for number, load in enumerate(loads):
        warehouse.load(load)
        assert warehouse.build_all() == {"incremental" if number else "whole"}
    warehouse.keep()
    assert warehouse.build_all(full_refresh=True) == {"whole"}
    assert warehouse.compare() == {}


RICH = {"seed": 239, "days": 50, "loads": 3}


def test_incremental_equals_whole(opened: Warehouse) -> None:
    check(opened, random_changes(**RICH))


@pytest.mark.heavy
@hypothesis_settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture], print_blob=True)
@given(seed=st.integers(0, 10**6), days=st.sampled_from([15, 40, 90]), loads=st.integers(2, 5))
def test_incremental_equals_whole_on_any_loads(opened: Warehouse, seed: int, days: int, loads: int) -> None:
    check(opened, random_changes(seed, days=days, loads=loads))


def test_the_example_holds_what_it_should_prove() -> None:
    loads = random_changes(**RICH)
    files = [change for load in loads for change in load]
    rows = [row[:2] for file in files for row in file.rows]
    assert len(loads) == RICH["loads"]
    assert len({meter for meter, _ in rows}) >= 5
    assert len({file.interval_minutes for file in files if file.rows}) == 4
    assert len(rows) - len(set(rows)) > 50, "too few corrections and duplicates"
    assert sum(file.forgets for file in files) >= 3
    newest: dict[str, datetime] = {}
    late = 0
    for load in loads:
        read = [row for file in load for row in file.rows]
        late += sum(row[1] < newest.get(row[0], FIRST_DAY) - timedelta(days=2) for row in read)
        newest |= {meter: max(row[1] for row in read if row[0] == meter) for meter in {row[0] for row in read}}
    assert late > 50


# --- what a build reads, and when it is a whole one ------------------------------------------------------------------

METERS = 20
DAYS = 60


def regular_days(first: int, last: int, file_id: int, meters: range = range(METERS)) -> list[Change]:
    """Half-hours of each meter, as files of one day come; rising with the number of the file."""
    instants = [FIRST_DAY + timedelta(minutes=30 * step) for step in range(first * 48, last * 48)]
    rows: list[Row] = [
        (f"meter {meter:02}", instant, Decimal(meter + file_id + instant.hour), 20.0, 230.0, 0.1)
        for instant in instants
        for meter in meters
    ]
    rows.sort(key=lambda row: (row[1].date(), row[0], row[1]))
    return [Change(file_id, 30, rows)]


@pytest.fixture(scope="module")
def warehouse(opened: Warehouse) -> Warehouse:
    """Sixty days of twenty meters, built whole; each test goes on where the one before ended."""
    opened.empty()
    opened.load(regular_days(0, DAYS, 1))
    assert opened.build_all() == {"whole"}
    return opened


def rows_visited(postgres: Postgres) -> dict[str, int]:
    """Of each table, the rows that were looked at since it was made, by whatever way."""
    query = "select schemaname || '.' || relname, seq_tup_read + coalesce(idx_tup_fetch, 0) from pg_stat_user_tables"
    return dict(counted(postgres, query))


def test_a_day_more_reads_a_day_and_what_lies_behind_it(warehouse: Warehouse) -> None:
    warehouse.load(regular_days(DAYS, DAYS + 1, 2))
    reports: dict[str, StepReport] = {}
    visited: dict[str, int] = {}
    for layer in LAYERS:
        before = rows_visited(warehouse.postgres)
        reports[layer] = warehouse.build(layer)
        for table, rows in rows_visited(warehouse.postgres).items():
            visited[table] = visited.get(table, 0) + rows - before.get(table, 0)
        if layer == "intermediate":
            warehouse.score()
    day, hours = METERS * 48, METERS * 24
    assert {report.details["mode"] for report in reports.values()} == {"incremental"}
    assert {report.details["changed_days"] for report in reports.values()} == {METERS}
    assert (reports["staging"].rows_in, reports["staging"].rows_out) == (day, day)
    assert reports["intermediate"].rows_in == 2 * day
    rows = {name: model["rows"] for name, model in reports["intermediate"].details["models"].items()}
    assert rows == {
        "int_readings_hourly": hours,
        "int_readings_daily": METERS,
        "int_reading_gaps": 0,
        "int_hour_of_week_history": hours,
        "int_consumption_features": day,
        "int_energy_balance": 0,
        "int_meter_days": METERS,
        "int_registered_meters": 0,
        "int_meter_levels": METERS * (DAYS + 1),  # the whole of the look-back
        "int_meter_features": METERS,
    }
    rows = {name: model["rows"] for name, model in reports["marts"].details["models"].items()}
    assert rows == {
        "mart_anomaly_scores": day,
        "mart_consumption_metrics": 3 * METERS,
        "mart_losses": 0,
        "mart_inspection_list": METERS,
        "mart_meters": 0,
    }

    most = {
        "raw_data.meter_readings": 6 * day,  # twice, to be counted and to be staged; blocks of a day hold others too
        "staging.stg_meter_readings": 5 * day,  # by the hour; for gaps and for features each with the day before
        # by the day, twice; with the same weekday of two weeks for history
        "intermediate.int_readings_hourly": 5 * hours,
        "intermediate.int_hour_of_week_history": hours,
        "intermediate.int_consumption_features": day,
        "ml.reading_scores": day,
        "marts.mart_anomaly_scores": 0,
    }
    assert {table: rows for table, rows in visited.items() if rows > most.get(table, rows)} == {}
    assert visited["raw_data.meter_readings"] >= day


def test_nothing_new_starts_no_dbt(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dbt, "run_dbt", None)
    for layer in LAYERS:
        assert warehouse.build(layer) == StepReport(0, 0, skipped="up to date")


def test_models_left_behind_by_a_killed_build_catch_up(warehouse: Warehouse) -> None:
    warehouse.load(regular_days(20, 21, 3, range(1)))  # corrections
    warehouse.build("staging")
    run_dbt(warehouse.settings, ["run", "--select", "int_readings_hourly"])
    warehouse.load(regular_days(40, 42, 4, range(1, 2)))
    warehouse.build("staging")
    report = warehouse.build("intermediate")
    assert (report.details["mode"], report.details["changed_days"]) == ("incremental", 3)
    written = {name: model["rows"] for name, model in report.details["models"].items()}
    assert (written["int_readings_hourly"], written["int_readings_daily"]) == (2 * 24, 3)


@pytest.mark.heavy
def test_a_layer_follows_no_change_before_the_layer_it_reads(warehouse: Warehouse) -> None:
    warehouse.load(regular_days(30, 31, 5, range(1)))
    warehouse.build("intermediate")  # too early: staging does not have the day
    warehouse.build("marts")
    for layer in ("staging", "intermediate"):
        assert warehouse.build(layer).details["mode"] == "incremental"
    warehouse.build("marts")  # too early for the scores
    warehouse.score()
    assert warehouse.build("marts").details["models"]["mart_anomaly_scores"]["rows"] > 48
    warehouse.keep()
    assert warehouse.build_all(full_refresh=True) == {"whole"}
    assert warehouse.compare() == {}


@pytest.mark.heavy
def test_what_else_a_layer_follows_from_builds_it_whole(warehouse: Warehouse) -> None:
    warehouse.settings = warehouse.settings.model_copy(update={"history_days": 21})
    assert warehouse.build("staging").skipped
    assert warehouse.build("intermediate").details["mode"] == "whole"
    assert warehouse.build("marts").details["mode"] == "whole"
    warehouse.score(version=2)
    assert warehouse.build("intermediate").skipped
    assert warehouse.build("marts").details["mode"] == "whole"
    with warehouse.postgres.connect() as connection:
        found = connection.execute("select distinct model_version from marts.mart_anomaly_scores").fetchall()
    assert found == [(2,)]


def test_a_table_that_is_gone_or_was_left_empty_is_built_whole(warehouse: Warehouse) -> None:
    readings = warehouse.rows("staging.stg_meter_readings")
    run_dbt(warehouse.settings, ["run", "--empty", "--select", "staging"])
    assert warehouse.rows("staging.stg_meter_readings") == 0
    with warehouse.postgres.connect() as connection:
        connection.execute("drop table intermediate.int_readings_hourly")
    assert warehouse.build("staging").details["mode"] == "whole"
    assert warehouse.rows("staging.stg_meter_readings") == readings
    report = warehouse.build("intermediate")
    assert report.details["models"]["int_readings_hourly"]["rows"] == warehouse.rows("intermediate.int_readings_hourly")


def test_dbt_by_hand_builds_what_fits_no_more_whole(warehouse: Warehouse) -> None:
    with warehouse.postgres.connect() as connection:
        connection.execute("update quality.derived_states set fingerprint = 'old' where name = 'int_readings_daily'")
    nodes = run_dbt(warehouse.settings, ["run", "--select", "int_readings_hourly", "int_readings_daily"])
    assert {node.name: node.rows for node in nodes} == {
        "int_readings_hourly": 0,
        "int_readings_daily": warehouse.rows("intermediate.int_readings_daily"),
    }
    with warehouse.postgres.connect() as connection:
        days = connection.execute(
            "select count(distinct (meter_id, cast(reading_timestamp as date))) from staging.stg_meter_readings"
        ).fetchone()
    assert (warehouse.rows("intermediate.int_readings_daily"),) == days
