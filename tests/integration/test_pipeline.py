"""Runs and steps are recorded as they went, tried again where that helps, and skipped when nothing has changed."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import SecretStr

from energy_iot.errors import InputFileError, StoreUnavailableError
from energy_iot.pipeline import ALL_STEPS, RunContext, RunOptions, run_step, run_steps, start_run, state_fingerprint
from energy_iot.reporting.status import read_runs, read_steps
from energy_iot.settings import Settings
from energy_iot.storage.postgres import Postgres
from tests.waiting import wait_for

READINGS = "meter_id,timestamp,consumption_kwh\n" + "".join(
    f"m1,2024-01-01 {hour:02}:{minute:02}:00,0.{hour + 10}\n" for hour in range(24) for minute in (0, 30)
)


@pytest.fixture
def readings(tmp_path: Path) -> Path:
    file = tmp_path / "readings.csv"
    file.write_text(READINGS)
    return file


def test_a_run_keeps_what_was_asked_of_it(make_context: Callable[..., RunContext], postgres: Postgres) -> None:
    context = make_context((Path("a b.csv"),), source="kaggle_smart_meter")
    with postgres.connect() as connection:
        row = connection.execute("select options from quality.pipeline_runs where run_id = %s", (context.run_id,))
        (options,) = row.fetchone() or ()
    assert options == {"files": [str(Path("a b.csv").absolute())], "source": "kaggle_smart_meter"}


def test_a_step_is_recorded_with_its_figures(
    postgres: Postgres, make_context: Callable[..., RunContext], readings: Path
) -> None:
    context = make_context((readings,))
    finished = run_step("ingest_data", context)
    assert (finished.status, finished.report.rows_out) == ("succeeded", 48)
    with postgres.connect() as connection:
        (step,) = read_steps(connection, context.run_id)
    assert (step["name"], step["status"], step["rows_in"], step["rows_out"]) == ("ingest_data", "succeeded", 48, 48)
    assert step["seconds"] is not None
    assert step["attempts"] == 1


def test_a_failing_step_fails_the_run_and_keeps_its_error(settings: Settings, postgres: Postgres) -> None:
    with pytest.raises(InputFileError, match=r"nowhere\.csv"):
        run_steps(settings, RunOptions(files=(Path("nowhere.csv"),)), ("check_source", "ingest_data"))
    with postgres.connect() as connection:
        (run,) = read_runs(connection, last=5)
        steps = read_steps(connection, run["id"])
    assert (run["status"], "nowhere.csv" in run["error"]) == ("failed", True)
    assert [(step["name"], step["status"]) for step in steps] == [("check_source", "failed")]


def test_the_fingerprint_follows_what_matters(settings: Settings, postgres: Postgres, readings: Path) -> None:
    before = state_fingerprint(settings, postgres)
    assert state_fingerprint(settings.model_copy(update={"home": Path("/elsewhere")}), postgres) == before
    assert state_fingerprint(settings.model_copy(update={"history_days": 28}), postgres) != before
    run_steps(settings, RunOptions(files=(readings,)), ("ingest_data",))
    loaded = state_fingerprint(settings, postgres)
    assert loaded != before
    with postgres.connect() as connection:
        connection.execute(
            "insert into ml.model_versions values (1, 'f', 'h', now(), 1, 0.6, '{}'::jsonb, now())"  # in force
        )
    assert state_fingerprint(settings, postgres) not in {before, loaded}


def test_a_store_that_stays_away_is_tried_again_and_named_without_its_password(
    postgres: Postgres, make_context: Callable[..., RunContext]
) -> None:
    context = make_context(
        clickhouse_url=SecretStr("http://u:s3cret@127.0.0.1:1"), store_attempts=3, store_retry_seconds=0
    )
    with pytest.raises(StoreUnavailableError, match=r"sync_to_clickhouse, tried 3 times: .*127\.0\.0\.1:1") as caught:
        run_step("sync_to_clickhouse", context)
    assert "s3cret" not in str(caught.value)
    with postgres.connect() as connection:
        (step,) = read_steps(connection, context.run_id)
    assert (step["status"], step["attempts"]) == ("failed", 3)
    assert "127.0.0.1:1" in step["error"]
    assert "s3cret" not in step["error"]


def test_a_step_whose_server_process_is_ended_is_tried_again(
    postgres: Postgres, make_context: Callable[..., RunContext], readings: Path
) -> None:
    context = make_context((readings,), store_retry_seconds=0)
    run_step("ingest_data", context)
    ended = threading.Event()

    def end_reader() -> None:
        """Hold the step up at the table it reads, and end its server process there."""
        with postgres.connect() as connection, postgres.connect(autocommit=True) as observer:
            connection.execute("lock table raw_data.meter_readings in access exclusive mode")
            locked.set()
            end_waiting = (
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where wait_event_type = 'Lock' and datname = current_database()"
            )
            wait_for(lambda: observer.execute(end_waiting).fetchone(), "session that waits for the table", 60)
            ended.set()

    locked = threading.Event()
    thread = threading.Thread(target=end_reader)
    thread.start()
    assert locked.wait(30)
    finished = run_step("dbt_run_staging", context)
    thread.join()
    assert ended.is_set()
    assert (finished.status, finished.report.rows_out) == ("succeeded", 48)
    with postgres.connect() as connection:
        steps = {step["name"]: step for step in read_steps(connection, context.run_id)}
    assert (steps["dbt_run_staging"]["status"], steps["dbt_run_staging"]["attempts"]) == ("succeeded", 2)


def test_a_run_that_was_killed_is_given_its_end_by_the_next(
    settings: Settings, postgres: Postgres, readings: Path
) -> None:
    killed = start_run(settings, RunOptions())
    with postgres.connect() as connection:
        connection.execute(
            "insert into quality.step_runs (run_id, step, status) values (%s, 'ml_score', 'running')", (killed,)
        )
        # before anybody runs again, `status` must not say that it runs
        (run,) = read_runs(connection, last=1, somebody_runs=False)
        assert run["status"] == "interrupted"
    run_steps(settings, RunOptions(files=(readings,)), ("ingest_data",))
    with postgres.connect() as connection:
        runs = {run["id"]: run for run in read_runs(connection, last=5)}
        (step,) = read_steps(connection, killed)
    assert (runs[killed]["status"], step["status"]) == ("interrupted", "interrupted")
    assert "without a word" in runs[killed]["error"]
    assert [run["status"] for run in runs.values()] == ["succeeded", "interrupted"]


def test_a_run_without_files_finishes_what_is_left(settings: Settings, postgres: Postgres, readings: Path) -> None:
    run_steps(settings, RunOptions(files=(readings,)), ("ingest_data",))
    summary = run_steps(settings, RunOptions(), ALL_STEPS)
    statuses = {step.step: step.status for step in summary.steps}
    assert (statuses["check_source"], statuses["ingest_data"]) == ("skipped", "skipped")
    assert (statuses["dbt_run_staging"], statuses["sync_to_clickhouse"]) == ("succeeded", "succeeded")
    again = run_steps(settings, RunOptions(), ALL_STEPS)
    assert {step.status for step in again.steps} == {"skipped"}
