"""What the Airflow DAGs have in common: how tasks are tried again, told of when they fail, and made from steps."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from airflow.sdk import Asset, task
from airflow.task.trigger_rule import TriggerRule

from energy_iot.pipeline import find_step

LONGEST: Final = timedelta(hours=2)  # of a step; the whole of 43 million readings takes less


def tell_failure(context: Mapping[str, Any]) -> None:
    """Record the failure and send the alert."""
    from energy_iot.orchestration.airflow_tasks import tell_failure as tell

    tell(context)


DEFAULT_ARGS: Final = {
    "retries": 2,
    "retry_delay": timedelta(minutes=1),
    "retry_exponential_backoff": True,
    "max_retry_delay": timedelta(minutes=10),
    "execution_timeout": LONGEST,
    "on_failure_callback": tell_failure,
}


@task
def run_step(name: str, recorded_run: str) -> dict[str, Any]:
    """One step of the recorded run."""
    from energy_iot.orchestration import airflow_tasks

    return airflow_tasks.run_step(name, recorded_run)


@task(doc_md="Record that the run succeeded, and write the report.", trigger_rule=TriggerRule.NONE_FAILED)
def end(recorded_run: str | None, last: Mapping[str, Any] | None) -> str:
    """End the recorded run; `last` is what its last step returned; a task that was skipped returned None."""
    from energy_iot.orchestration import airflow_tasks

    return airflow_tasks.end(recorded_run, idle=last is None)


def step_task(name: str, recorded_run: Any) -> Any:
    """The task of a step: its name, description and assets are those of the step."""
    step = find_step(name)
    return run_step.override(
        task_id=step.name,
        doc_md=f"{step.description}.\n\nAlone: `energy-iot {' '.join(step.command)}`",
        outlets=[Asset(asset) for asset in step.updates],
    )(step.name, recorded_run)
