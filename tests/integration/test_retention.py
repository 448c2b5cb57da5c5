"""Records of runs go with age; what later runs, steps and reports look up stays."""

from collections.abc import Callable

import psycopg
import pytest

from energy_iot import retention
from energy_iot.pipeline import RunContext
from energy_iot.retention import remove_old_records
from energy_iot.settings import Settings
from energy_iot.storage.changes import DerivedState, record_change, write_state
from energy_iot.storage.postgres import Postgres

KEPT = ("pipeline_runs", "step_runs", "validation_results")


def add_run(
    connection: psycopg.Connection,
    name: str,
    *,
    days_ago: float,
    status: str = "succeeded",
    complete: bool = False,
    steps: tuple[str, ...] = (),
    suites: tuple[str, ...] = (),
) -> None:
    connection.execute(
        "insert into quality.pipeline_runs (run_id, status, started_at, ended_at, options, state_fingerprint, "
        "package_version) select %s, %s, started_at, case when %s <> 'running' then started_at end, '{}', %s, '0' "
        "from (select now() at time zone 'utc' - make_interval(secs => %s * 86400.0)) as run (started_at)",
        (name, status, status, "f" if complete else None, days_ago),
    )
    for step in steps:
        connection.execute(
            "insert into quality.step_runs (run_id, step, status) values (%s, %s, 'succeeded')", (name, step)
        )
    for suite in suites:
        connection.execute(
            "insert into quality.validation_results (run_id, suite, expectation, severity, success) "
            "values (%s, %s, 'e', 'info', true)",
            (name, suite),
        )


def runs(connection: psycopg.Connection, table: str = "pipeline_runs") -> list[str]:
    found = connection.execute(f"select distinct run_id from quality.{table} order by run_id").fetchall()
    return [run_id for (run_id,) in found]


def test_old_runs_go_with_all_their_records(settings: Settings, postgres: Postgres) -> None:
    settings = settings.model_copy(update={"keep_runs_days": 10})
    with postgres.connect(autocommit=True) as connection:
        for days_ago in (30, 20, 11, 9, 0):
            add_run(connection, f"{days_ago:02}", days_ago=days_ago, complete=True, steps=("a",), suites=("s",))
        add_run(connection, "failed", days_ago=25, status="failed")
        add_run(connection, "running", days_ago=25, status="running")
        assert remove_old_records(settings) == 4
        assert runs(connection) == ["00", "09", "running"]
        assert runs(connection, "step_runs") == runs(connection, "validation_results") == ["00", "09"]
        assert remove_old_records(settings) == 0


def test_what_is_still_looked_up_stays_however_old(settings: Settings, postgres: Postgres) -> None:
    with postgres.connect(autocommit=True) as connection:
        add_run(connection, "1 complete", days_ago=2000, complete=True)
        add_run(connection, "2 complete", days_ago=1000, complete=True)
        add_run(connection, "3 scored", days_ago=900, steps=("ml_score", "dbt_run_marts"))
        add_run(connection, "4 built", days_ago=800, steps=("dbt_run_marts",))
        add_run(connection, "5 judged", days_ago=700, suites=("marts_scores_suite",))
        add_run(connection, "6 of no use", days_ago=600)
        assert remove_old_records(settings) == 2
        assert runs(connection) == ["2 complete", "3 scored", "4 built", "5 judged"]


def test_the_work_of_one_night_is_bounded(
    settings: Settings, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited = retention.OLD_RUNS.replace(f"limit {retention.RUNS_REMOVED_AT_ONCE}", "limit 2")
    assert limited != retention.OLD_RUNS
    monkeypatch.setattr(retention, "OLD_RUNS", limited)
    with postgres.connect(autocommit=True) as connection:
        for number in range(5):
            add_run(connection, str(number), days_ago=1000 - number)
        assert [remove_old_records(settings) for _ in range(4)] == [2, 2, 1, 0]
        assert runs(connection) == []


def test_nothing_is_removed_by_halves(settings: Settings, postgres: Postgres, caplog: pytest.LogCaptureFixture) -> None:
    with postgres.connect(autocommit=True) as connection:
        add_run(connection, "old", days_ago=1000, steps=("a",), suites=("s",))
        add_run(connection, "new", days_ago=1, steps=("a",), suites=("s",))
        connection.execute(  # the server goes away when the last of the tables is reached
            "create function quality.go_away() returns trigger language plpgsql as "
            "$$ begin perform pg_terminate_backend(pg_backend_pid()); return old; end $$"
        )
        connection.execute(
            "create trigger gone before delete on quality.pipeline_runs execute function quality.go_away()"
        )
        assert remove_old_records(settings) == 0
        for table in KEPT:
            assert runs(connection, table) == ["new", "old"]
    assert "records of old runs are still there" in caplog.text


def test_changed_days_go_once_all_have_followed_and_the_audit_log_stays(
    settings: Settings, postgres: Postgres, make_context: Callable[..., RunContext]
) -> None:
    make_context()
    with postgres.connect(autocommit=True) as connection:
        for _ in range(3):
            change = record_change(connection, "load", file_id=1, file_name="f.csv", sha256="0", run_id=None)
            connection.execute("insert into raw_data.changed_days values (%s, 'm1', '2024-01-01')", (change,))
        write_state(connection, DerivedState("ahead", 3, "f"))
        write_state(connection, DerivedState("behind", 2, "f"))
        remove_old_records(settings)
        assert connection.execute("select change_id from raw_data.changed_days").fetchall() == [(3,)]
        assert connection.execute("select count(*) from raw_data.changes").fetchone() == (3,)
