"""A database of an older version is brought up to date on start, whole or not at all; a newer one is refused."""

import shutil
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest

from energy_iot.errors import HomeInUseError, StorageError
from energy_iot.pipeline import RunOptions, run_steps
from energy_iot.settings import Settings
from energy_iot.storage import postgres as postgres_module
from energy_iot.storage.postgres import RUN_LOCK, Postgres, connect_server, migrate, open_postgres

MIGRATIONS = Path(postgres_module.__file__).parent / "migrations"
LATEST = max(int(script.name[:4]) for script in MIGRATIONS.glob("0*.sql"))
FILE_HASH = "0" * 64


@pytest.fixture
def database(settings: Settings) -> Postgres:
    """A database that nothing has opened yet."""
    assert settings.postgres_dsn is not None
    return connect_server(settings.postgres_dsn.get_secret_value())


@pytest.fixture
def migrations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the migrations, in place of the real ones."""
    folder = tmp_path / "migrations"
    shutil.copytree(MIGRATIONS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(postgres_module, "files", lambda _: folder)
    return folder


def make_first_version(database: Postgres) -> None:
    """What the first version of the program made, with a file in it, its scores, and tables of dbt."""
    with database.connect() as connection:
        connection.execute("create schema quality")
        connection.execute(
            "create table quality.schema_versions "
            "(version integer primary key, applied_at timestamp not null default (now() at time zone 'utc'))"
        )
        connection.execute((MIGRATIONS / "0001_initial.sql").read_bytes())
        connection.execute("insert into quality.schema_versions (version) values (1)")
        connection.execute(
            "insert into quality.pipeline_runs (run_id, status, options, package_version) "
            "values ('20260101T000000-00000000', 'succeeded', '{}', '0.1.0')"
        )
        connection.execute(
            "insert into quality.step_runs (run_id, step, status) "
            "values ('20260101T000000-00000000', 'ingest_data', 'succeeded')"
        )
        connection.execute(
            "insert into raw_data.ingested_files (sha256, file_name, source_name, interval_minutes, size_bytes, "
            "lines_read, readings_loaded, readings_without_consumption, readings_rejected, run_id) "
            "values (%s, 'old.csv', 'generated', 60, 100, 49, 48, 0, 1, '20260101T000000-00000000')",
            (FILE_HASH,),
        )
        connection.execute(
            "insert into raw_data.meter_readings (meter_id, timestamp, electricity_consumed, source_file, file_id) "
            "select 'm1', timestamp '2024-01-01' + make_interval(hours => hour), 0.1 + hour / 100.0, 'old.csv', 1 "
            "from generate_series(0, 47) as hour"
        )
        connection.execute(
            "insert into raw_data.rejected_readings (file_id, source_file, line_number, raw_text, reason) "
            "values (1, 'old.csv', 50, 'm1,?,?', 'no timestamp')"
        )
        connection.execute("insert into ml.reading_scores values (1, 0.5, false, 1, now() at time zone 'utc')")
        # derived tables as that version's dbt left them: other columns than today's
        connection.execute("create table staging.stg_meter_readings as select 1::bigint as reading_id")
        connection.execute("create table intermediate.int_readings_daily as select 'm0' as meter_id")


def rows(database: Postgres, query: str) -> list[tuple[Any, ...]]:
    with database.connect() as connection:
        return connection.execute(query).fetchall()


def test_an_older_database_is_upgraded_on_start_and_keeps_its_rows(database: Postgres, settings: Settings) -> None:
    make_first_version(database)
    with open_postgres(settings) as postgres:
        assert rows(postgres, "select version from quality.schema_versions order by version") == [
            (version,) for version in range(1, LATEST + 1)
        ]
        assert rows(postgres, "select count(*), sum(electricity_consumed) from raw_data.meter_readings") == [
            (48, Decimal("16.08"))
        ]
        assert rows(postgres, "select line_number, resolved_by_file_id from raw_data.rejected_readings") == [(50, None)]
        assert rows(postgres, "select status, attempts from quality.step_runs") == [("succeeded", 1)]
        assert rows(postgres, "select kind, sha256 from raw_data.changes") == [("load", FILE_HASH)]
        assert rows(postgres, "select count(*) from quality.derived_states") == [(0,)]  # so all is built whole


@pytest.mark.heavy
def test_the_next_run_rebuilds_what_is_derived(database: Postgres, settings: Settings, tmp_path: Path) -> None:
    make_first_version(database)
    more = tmp_path / "more.csv"
    day = "".join(f"m1,2024-01-03 {hour:02}:00:00,0.5\n" for hour in range(24))
    more.write_text(f"meter_id,timestamp,consumption_kwh\n{day}")
    run_steps(settings, RunOptions(files=(more,)), ("ingest_data", "dbt_run_staging", "dbt_run_intermediate"))
    daily = "select meter_id, reading_count from intermediate.int_readings_daily order by reading_date"
    with open_postgres(settings) as postgres:
        assert rows(postgres, "select count(*) from staging.stg_meter_readings") == [(72,)]
        assert rows(postgres, daily) == [("m1", 24)] * 3


def test_a_migration_that_fails_half_way_changes_nothing(database: Postgres, migrations: Path) -> None:
    make_first_version(database)
    (migrations / f"{LATEST + 1:04}_broken.sql").write_text(
        "create table quality.new_table (a integer);\ninsert into quality.new_table values ('no number');\n"
    )
    with pytest.raises(psycopg.errors.InvalidTextRepresentation):
        migrate(database)
    assert rows(database, "select max(version) from quality.schema_versions") == [(1,)]
    assert rows(database, "select to_regclass('quality.new_table'), to_regclass('raw_data.changes')") == [(None, None)]
    (migrations / f"{LATEST + 1:04}_broken.sql").write_text("create table quality.new_table (a integer);\n")
    migrate(database)
    assert rows(database, "select max(version) from quality.schema_versions") == [(LATEST + 1,)]


def test_no_run_has_its_schema_changed_under_it(database: Postgres) -> None:
    make_first_version(database)
    with database.connect() as running:
        running.execute("select pg_advisory_lock(%s)", (RUN_LOCK,))
        with pytest.raises(HomeInUseError, match="while another command is at work"):
            migrate(database)
    assert rows(database, "select max(version) from quality.schema_versions") == [(1,)]
    migrate(database)
    assert rows(database, "select max(version) from quality.schema_versions") == [(LATEST,)]


def test_a_newer_database_is_refused_and_stays_as_it_is(postgres: Postgres) -> None:
    with postgres.connect() as connection:
        connection.execute("insert into quality.schema_versions (version) values (9999)")
    with pytest.raises(StorageError, match=rf"version 9999, and this energy-iot knows {LATEST} at most") as caught:
        migrate(postgres)
    assert "upgrade energy-iot" in caught.value.fix
    assert rows(postgres, "select max(version) from quality.schema_versions") == [(9999,)]


@pytest.mark.parametrize("attempt", range(5))  # who comes first is chance
def test_processes_that_migrate_at_once_do_it_once(database: Postgres, attempt: int) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(migrate, [database] * 6))
    assert rows(database, "select count(*), max(version) from quality.schema_versions") == [(LATEST, LATEST)]
