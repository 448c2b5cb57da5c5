"""The whole pipeline, each morning: an Airflow DAG over `energy_iot.pipeline.STEPS`.

### What it does

Takes the files that lie in the landing folder (`landing_dir`, `landing_pattern`) and were not loaded before, as far as
their readings end before the run's data interval does, and brings what follows from them up to date. Only what
changed is built anew. When nothing is new the run ends green after `check_source`, and says so.

### By hand

Trigger it with `files` (any paths that the worker can read), `full_refresh` or `rescore`. Files named by hand are taken
whatever their readings' time.

### When it fails

Tables are as they were before the step that failed. The task's log and the alert say what to do; then clear the failed
task. A critical failure of data quality is not tried again by itself: nothing reaches the marts before somebody looks.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import Asset, CronDataIntervalTimetable, Param, chain, dag, task
from airflow.task.trigger_rule import TriggerRule

from energy_iot.pipeline import STEPS


def tell_failure(context: Any) -> None:
    """Record the failure and send the alert."""
    from energy_iot.orchestration.airflow_tasks import tell_failure as tell

    tell(context)


@dag(
    dag_id="energy_pipeline_daily",
    description="Smart-meter readings of the landing folder to marts, suspects and ClickHouse",
    schedule=CronDataIntervalTimetable("0 6 * * *", timezone="UTC"),
    start_date=datetime(2020, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,  # a run writes alone
    doc_md=__doc__,
    tags=["energy-iot"],
    default_args={
        "retries": 2,
        "retry_delay": timedelta(minutes=1),
        "retry_exponential_backoff": True,
        "max_retry_delay": timedelta(minutes=10),
        "execution_timeout": timedelta(hours=2),
        "on_failure_callback": tell_failure,
    },
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

        return airflow_tasks.begin(dict(params or {}), data_interval_end)

    @task
    def run_step(name: str, recorded_run: str) -> dict[str, Any]:
        from energy_iot.orchestration import airflow_tasks

        return airflow_tasks.run_step(name, recorded_run)

    @task(doc_md="Record that the run succeeded, and write the report.", trigger_rule=TriggerRule.NONE_FAILED)
    def end(recorded_run: str, last: dict[str, Any] | None) -> str:
        from energy_iot.orchestration import airflow_tasks

        return airflow_tasks.end(recorded_run, complete=last is not None)

    recorded_run = start()
    steps = [
        run_step.override(
            task_id=step.name,
            doc_md=f"{step.description}.\n\nAlone: `energy-iot {' '.join(step.command)}`",
            outlets=[Asset(name) for name in step.updates],
        )(step.name, recorded_run)
        for step in STEPS
    ]
    chain(*steps, end(recorded_run, steps[-1]))


energy_pipeline_daily()
