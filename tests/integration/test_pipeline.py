"""Runs and steps are recorded as they went, and a rerun is skipped only when nothing has changed."""

from collections.abc import Callable
from pathlib import Path

import pytest

from energy_iot.errors import InputFileError
from energy_iot.pipeline import RunContext, RunOptions, run_step, run_steps, state_fingerprint
from energy_iot.reporting.status import read_runs, read_steps
from energy_iot.settings import Settings
from energy_iot.storage.postgres import Postgres

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
            "insert into ml.model_versions values (1, 'f', 'h', now() at time zone 'utc', 1, 0.6, '{}'::jsonb)"
        )
    assert state_fingerprint(settings, postgres) not in {before, loaded}
