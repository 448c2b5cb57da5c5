"""What the tasks of the Airflow DAGs do. Imported when a task runs; the DAG files only say in which order and when."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from energy_iot.errors import EnergyIoTError, HomeInUseError, StoreUnavailableError
from energy_iot.logs import configure_logging
from energy_iot.orchestration import daily_run
from energy_iot.orchestration.alerts import Alert, send
from energy_iot.pipeline import ALL_STEPS, describe_error, find_step
from energy_iot.settings import Settings, load_settings

WORTH_RETRYING = (StoreUnavailableError, HomeInUseError)


def begin(asked: Mapping[str, Any], until: datetime | None) -> str:
    """Record a run; returns its id in quality.pipeline_runs."""
    settings = _settings()
    with _hopeless_fails():
        return daily_run.begin(settings, asked, until)


def run_step(name: str, run_id: str) -> dict[str, Any]:
    """Run one step; returns its figures for people.

    Raises:
        AirflowSkipException: Nothing is new and everything is as the last complete run left it.
        AirflowFailException: It failed in a way that trying again does not help, such as data that are not sound.
    """
    settings = _settings()
    with _hopeless_fails():
        done = daily_run.do_step(settings, run_id, name)
    report = done.run.report
    for warning in report.warnings:
        print(f"warning: {warning}")  # noqa: T201  # Airflow keeps what tasks print
    if done.finished:
        raise AirflowSkipException(f"{report.skipped}; all is as the last run left it")
    return {
        "rows_in": report.rows_in,
        "rows_out": report.rows_out,
        "seconds": round(done.run.seconds, 3),
        "mode": report.details.get("mode"),
        "skipped": report.skipped,
        "warnings": list(report.warnings),
    }


def end(run_id: str, *, complete: bool) -> str:
    """Record that the run succeeded; returns the path of the report, or why there is no new one."""
    settings = _settings()
    with _hopeless_fails():
        written = daily_run.end(settings, run_id, complete=complete)
    return str(written) if written else "nothing was new"


def tell_failure(context: Mapping[str, Any]) -> None:
    """Callback of a task that failed for good: the run's record and one alert."""
    settings, task = _settings(), context["ti"]
    error = context.get("exception") or RuntimeError("its process ended without a word")
    cause = error.__cause__ if isinstance(error, AirflowFailException) and error.__cause__ else error
    run_id = task.xcom_pull(task_ids="start")
    if run_id:
        daily_run.fail(settings, run_id, cause)
    command = "status"
    if task.task_id in ALL_STEPS:
        command = " ".join(find_step(task.task_id).command)
    send(
        settings,
        Alert(
            title=f"{task.dag_id}: {task.task_id} failed in {task.run_id}",
            problem=cause.problem if isinstance(cause, EnergyIoTError) else describe_error(cause),
            fix=cause.fix if isinstance(cause, EnergyIoTError) else f"read its log, then: energy-iot {command}",
            link=getattr(task, "log_url", None),
        ),
    )


class _hopeless_fails:  # noqa: N801  # reads as what it does
    """Have Airflow fail at once where trying again cannot help."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, EnergyIoTError) and not isinstance(error, WORTH_RETRYING):
            raise AirflowFailException(str(error)) from error


def _settings() -> Settings:
    settings = load_settings()
    configure_logging(settings)
    return settings
