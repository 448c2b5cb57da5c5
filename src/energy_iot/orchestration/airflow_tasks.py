"""What the tasks of the Airflow DAGs do. Imported when a task runs; the DAG files only say in which order and when."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote

from airflow.sdk import conf
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from energy_iot.errors import EnergyIoTError, HomeInUseError, StoreUnavailableError
from energy_iot.logs import configure_logging
from energy_iot.orchestration import runs
from energy_iot.orchestration.alerts import Alert, send
from energy_iot.pipeline import ALL_STEPS, describe_error, find_step
from energy_iot.settings import Settings, load_settings

NOTHING_TO_DO: Final = "there was nothing to do: no file is new"
BACKFILL: Final = "backfill"
log = logging.getLogger(__name__)

WORTH_RETRYING: Final = (StoreUnavailableError, HomeInUseError)


def begin_daily(asked: Mapping[str, Any], until: datetime | None) -> str:
    """Record a run of the whole pipeline; returns its id in quality.pipeline_runs."""
    settings = _settings()
    with _hopeless_fails():
        return runs.begin_daily(settings, asked, until)


def begin_model_renewal() -> str:
    """Record a run that trains a model; returns its id in quality.pipeline_runs.

    Raises:
        AirflowSkipException: There is no model yet that another one could replace.
    """
    settings = _settings()
    with _hopeless_fails():
        recorded = runs.begin_model_renewal(settings)
    if recorded is None:
        raise AirflowSkipException("no model is in force yet: the daily run trains the first one")
    return recorded


def run_step(name: str, run_id: str) -> dict[str, Any]:
    """Run one step; returns its figures for people.

    Raises:
        AirflowSkipException: Nothing is left to do for this run.
        AirflowFailException: It failed in a way that trying again does not help, such as data that are not sound.
    """
    settings = _settings()
    with _hopeless_fails():
        done = runs.do_step(settings, run_id, name)
    report = done.run.report
    for warning in report.warnings:
        print(f"warning: {warning}")  # noqa: T201  # Airflow keeps what tasks print
    if done.finished:
        raise AirflowSkipException(report.skipped)
    return {
        "rows_in": report.rows_in,
        "rows_out": report.rows_out,
        "seconds": round(done.run.seconds, 3),
        "mode": report.details.get("mode"),
        "skipped": report.skipped,
        "warnings": list(report.warnings),
    }


def end(run_id: str | None, *, idle: bool) -> str:
    """Record that the run succeeded; returns the path of the report, or that there is no new one.

    Args:
        run_id: The recorded run; None where none began.
        idle: It had nothing to do.
    """
    if run_id is None:
        return NOTHING_TO_DO
    settings = _settings()
    with _hopeless_fails():
        written = runs.end(settings, run_id, idle=idle)
    return str(written) if written else NOTHING_TO_DO


def tell_failure(context: Mapping[str, Any]) -> None:
    """Callback of a task that failed for good: the run's record and one alert."""
    settings, task = _settings(), context["ti"]
    error = context.get("exception") or RuntimeError("its process ended without a word")
    cause = error.__cause__ if isinstance(error, AirflowFailException) and error.__cause__ else error
    try:
        if run_id := task.xcom_pull(task_ids="start"):
            runs.fail(settings, run_id, cause)
    except Exception:
        log.exception("the failure is not recorded")  # the store may be what failed; the alert goes out all the same
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


def tell_late(context: Mapping[str, Any]) -> None:
    """Callback of a daily run that has not succeeded in time."""
    run, due = context["dag_run"], context["deadline"]["deadline_time"]
    if run["run_type"] == BACKFILL:  # of days long gone: each would be late
        return
    send(
        _settings(),
        Alert(
            title=f"{run['dag_id']}: {run['dag_run_id']} is late",
            problem=f"it has not succeeded by {due}; it is {run['state']}",
            fix="look at its tasks in Airflow, or: energy-iot status",
            link=run_link(run["dag_id"], run["dag_run_id"]),
        ),
    )


def run_link(dag_id: str, run_id: str) -> str:
    """Of a run's page."""
    return f"{conf.get('api', 'base_url').rstrip('/')}/dags/{dag_id}/runs/{quote(run_id, safe='')}"


@contextmanager
def _hopeless_fails() -> Iterator[None]:
    """Have Airflow fail at once where trying again cannot help."""
    try:
        yield
    except WORTH_RETRYING:
        raise
    except EnergyIoTError as error:
        raise AirflowFailException(str(error)) from error


def _settings() -> Settings:
    settings = load_settings()
    configure_logging(settings)
    return settings
