"""The whole pipeline, each morning: an Airflow DAG over `energy_iot.pipeline.STEPS`.

### What it does

Takes the files that lie in the landing folder (`landing_dir`, `landing_pattern`) and were not loaded before, as far as
their readings end before the run's data interval does, and brings what follows from them up to date. Only what
changed is built anew. When nothing is new the run ends green after `check_source`, and says so.

### By hand

Trigger it with `files` (any paths that the worker can read), `full_refresh` or `rescore`. Files named by hand are taken
whatever their readings' time.

### When it fails, or is late

Tables are as they were before the step that failed. The task's log and the alert say what to do; then clear the failed
task. A critical failure of data quality is not tried again by itself: nothing reaches the marts before somebody looks.
A scheduled run that has not succeeded by `late_hour_utc` is told as well.
"""

import sys
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import (
    CronDataIntervalTimetable,
    DeadlineAlert,
    DeadlineReference,
    Param,
    SyncCallback,
    chain,
    dag,
    task,
)

from energy_iot.orchestration.airflow_tasks import tell_late
from energy_iot.orchestration.dag_parts import DEFAULT_ARGS, end, step_task
from energy_iot.pipeline import STEPS
from energy_iot.settings import load_settings

# the logical date is where the interval begins: 06:00 of the day before
LATE = timedelta(days=1, hours=load_settings().late_hour_utc - 6)
# `airflow dags test` has no deadlines, and ends in an error where there is one: github.com/apache/airflow/issues/73428
IS_TEST = sys.argv[1:3] == ["dags", "test"]


@dag(
    dag_id="energy_pipeline_daily",
    description="Smart-meter readings of the landing folder to marts, suspects and ClickHouse",
    schedule=CronDataIntervalTimetable("0 6 * * *", timezone="UTC"),
    start_date=datetime(2020, 1, 1, tzinfo=UTC),
    catchup=False,
    is_paused_upon_creation=False,
    max_active_runs=1,  # a run writes alone
    doc_md=__doc__,
    tags=["energy-iot"],
    default_args=DEFAULT_ARGS,
    deadline=None
    if IS_TEST
    else DeadlineAlert(DeadlineReference.DAGRUN_LOGICAL_DATE, LATE, SyncCallback(tell_late), name="late"),
    params={
        "files": Param(None, type=["null", "array"], description="Files or folders; empty: the landing folder."),
        "source": Param(None, type=["null", "string"], description="Source mapping; empty: recognised."),
        "full_refresh": Param(False, type="boolean", description="Build everything derived whole."),
        "rescore": Param(None, type=["null", "string"], description="all, or days as 2026-10-01..2026-10-31."),
    },
)
def energy_pipeline_daily() -> None:
    """Start, the steps one after the other, end."""

    @task(doc_md="Record the run, and choose its files.")
    def start(params: dict[str, Any] | None = None, data_interval_end: datetime | None = None) -> str:
        from energy_iot.orchestration import airflow_tasks

        return airflow_tasks.begin_daily(dict(params or {}), data_interval_end)

    recorded_run = start()
    steps = [step_task(step.name, recorded_run) for step in STEPS]
    chain(*steps, end(recorded_run, steps[-1]))


energy_pipeline_daily()
