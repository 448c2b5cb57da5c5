"""A run cut into tasks: the landing folder, files for later, each step in a call of its own, runs in between."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from energy_iot.errors import InputFileError, UsageError
from energy_iot.orchestration.runs import begin_daily, begin_model_renewal, do_step, end, fail
from energy_iot.pipeline import ALL_STEPS, RunOptions, StepRun, is_complete, run_steps
from energy_iot.reporting.status import read_runs, read_steps
from energy_iot.settings import Settings
from energy_iot.storage.postgres import Postgres

HEADER = "meter_id,timestamp,consumption_kwh\n"


def day_file(folder: Path, day: int, kwh: str = "0.5") -> Path:
    file = folder / f"readings_{day:02}.csv"
    file.write_text(HEADER + "".join(f"m1,2024-01-{day:02} {hour:02}:00:00,{kwh}\n" for hour in range(24)))
    return file


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    landing = tmp_path / "landing"
    landing.mkdir()
    return settings.model_copy(update={"landing_dir": landing})


def options_of(postgres: Postgres, run_id: str) -> RunOptions:
    with postgres.connect() as connection:
        row = connection.execute("select options from quality.pipeline_runs where run_id = %s", (run_id,)).fetchone()
    assert row is not None
    return RunOptions.from_json(row[0])


def test_a_run_takes_the_landing_folder_up_to_its_interval(settings: Settings, postgres: Postgres) -> None:
    day_file(settings.landing_dir, 1)
    until = datetime(2024, 1, 2, 6, tzinfo=UTC)
    wanted = settings.model_copy(update={"landing_pattern": "readings_*.csv"})
    options = options_of(postgres, begin_daily(wanted, {"files": None, "full_refresh": False}, until))
    assert options.files == (settings.landing_dir,)
    assert options.pattern == "readings_*.csv"
    assert options.before == datetime(2024, 1, 2, 6)
    assert not options.full_refresh


def test_files_asked_for_are_taken_whatever_they_hold(settings: Settings, postgres: Postgres, tmp_path: Path) -> None:
    file = day_file(tmp_path, 5)
    asked = {"files": [str(file)], "full_refresh": True, "rescore": "all"}
    options = options_of(postgres, begin_daily(settings, asked, datetime(2024, 1, 2, 6, tzinfo=UTC)))
    assert (options.files, options.before, options.pattern) == ((file,), None, "*")
    assert (options.full_refresh, options.rescore) == (True, "all")


@pytest.mark.parametrize(
    ("asked", "told"), [({"fles": ["a.csv"]}, "a run takes no fles"), ({}, "landing folder .* is not there")]
)
def test_what_cannot_be_meant_is_refused(
    settings: Settings, tmp_path: Path, asked: dict[str, object], told: str
) -> None:
    elsewhere = settings.model_copy(update={"landing_dir": tmp_path / "nowhere"})
    with pytest.raises(UsageError, match=told):
        begin_daily(elsewhere, asked, None)


def test_files_with_later_readings_wait_for_their_day(settings: Settings, postgres: Postgres) -> None:
    for day in (1, 2):
        day_file(settings.landing_dir, day)
    for day, loaded, later in ((1, 24, 1), (2, 24, 0), (3, 0, 0)):
        run_id = begin_daily(settings, {}, datetime(2024, 1, day + 1, 6, tzinfo=UTC))
        do_step(settings, run_id, "check_source")
        report = do_step(settings, run_id, "ingest_data").run.report
        assert report.rows_out == loaded
        assert sum(file["status"] == "left for later" for file in report.details["files"]) == later
        end(settings, run_id, idle=True)
    with postgres.connect() as connection:
        assert [run["status"] for run in read_runs(connection, last=5)] == ["succeeded"] * 3


def test_an_empty_landing_folder_is_nothing_to_do(settings: Settings) -> None:
    run_id = begin_daily(settings, {}, None)
    done = do_step(settings, run_id, "check_source")
    assert done.finished
    assert done.run.report.skipped
    assert end(settings, run_id, idle=True) is None


def test_tasks_do_what_a_run_does(settings: Settings, postgres: Postgres) -> None:
    day_file(settings.landing_dir, 1)
    run_id = begin_daily(settings, {}, None)
    for name in ALL_STEPS:
        assert not do_step(settings, run_id, name).finished
    report = end(settings, run_id, idle=False)
    assert report is not None
    assert report.is_file()
    with postgres.connect() as connection:
        (run,) = read_runs(connection, last=2)
        assert (run["status"], run["model_version"]) == ("succeeded", 1)
        assert [step["name"] for step in read_steps(connection, run_id)] == list(ALL_STEPS)
    again = begin_daily(settings, {}, None)
    assert do_step(settings, again, "check_source").finished
    summary = run_steps(settings, RunOptions(files=(settings.landing_dir,)), ALL_STEPS)  # and so a run finds it
    assert {step.status for step in summary.steps} == {"skipped"}


def test_a_run_in_between_leaves_the_state_unproven(settings: Settings, tmp_path: Path) -> None:
    """What it loaded may not be published, so the next run looks at all steps again."""
    first = begin_daily(settings, {"files": [str(day_file(tmp_path, 1))]}, None)
    for name in ALL_STEPS[:-1]:
        do_step(settings, first, name)
    run_steps(settings, RunOptions(files=(day_file(tmp_path, 2),)), ALL_STEPS[:2])
    do_step(settings, first, ALL_STEPS[-1])
    assert not is_complete(settings, first)
    end(settings, first, idle=False)
    nothing_new = begin_daily(settings, {"files": [str(tmp_path / "readings_02.csv")]}, None)
    assert not do_step(settings, nothing_new, "check_source").finished
    steps: list[StepRun] = [do_step(settings, nothing_new, name).run for name in ALL_STEPS[1:]]
    assert {run.step: run.status for run in steps}["dbt_run_staging"] == "succeeded"


def test_a_failed_task_fails_the_run_and_a_retry_goes_on(
    settings: Settings, postgres: Postgres, tmp_path: Path
) -> None:
    file = tmp_path / "readings_01.csv"
    run_id = begin_daily(settings, {"files": [str(file)]}, None)
    with pytest.raises(InputFileError) as error:
        do_step(settings, run_id, "check_source")
    fail(settings, run_id, error.value)
    with postgres.connect() as connection:
        (run,) = read_runs(connection, last=2)
        assert (run["status"], "readings_01.csv" in run["error"]) == ("failed", True)
    day_file(tmp_path, 1)
    assert do_step(settings, run_id, "check_source").run.status == "succeeded"
    with postgres.connect() as connection:
        (run,) = read_runs(connection, last=2)
        assert (run["status"], run["error"]) == ("running", None)


def test_a_run_nobody_recorded_is_refused(settings: Settings) -> None:
    with pytest.raises(UsageError, match="no run 'nonsense'"):
        do_step(settings, "nonsense", "check_source")


def test_no_model_is_renewed_before_there_is_one(settings: Settings) -> None:
    assert begin_model_renewal(settings) is None
