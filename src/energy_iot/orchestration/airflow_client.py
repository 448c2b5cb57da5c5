"""Asking a running Airflow for a run, and following it."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx

from energy_iot.errors import EnergyIoTError, StoreUnavailableError
from energy_iot.orchestration.airflow_servers import AirflowAddress
from energy_iot.reporting.progress import Progress

ENDED: Final = {"success", "failed"}
ENDED_TASK: Final = {"success", "failed", "skipped", "upstream_failed", "removed"}
POLL_SECONDS: Final = 0.5


@dataclass(frozen=True)
class AirflowRun:
    """A run that has ended.

    Attributes:
        run_id: Airflow's.
        state: success or failed.
        tasks: State of each task.
        seconds: From the request to the end, waiting for other runs included.
        outcome: What its last task returned: the report, or that there was nothing to do.
    """

    run_id: str
    state: str
    tasks: Mapping[str, str]
    seconds: float
    outcome: str | None


def trigger_and_follow(
    address: AirflowAddress, asked: Mapping[str, Any], *, progress: Progress, dag_id: str
) -> AirflowRun:
    """Start a run and tell of each task until the run has ended.

    Args:
        address: Of a running Airflow.
        asked: The run's parameters: files, source, full_refresh, rescore.
        progress: Told when a task ends.
        dag_id: Which DAG.

    Raises:
        StoreUnavailableError: Airflow does not answer.
        EnergyIoTError: It refuses the run; says why.
    """
    started = time.monotonic()
    try:
        with httpx.Client(base_url=address.url, timeout=30) as client:
            answer = client.post("/auth/token", json={"username": address.user, "password": address.password})
            client.headers["Authorization"] = f"Bearer {_checked(answer)['access_token']}"
            _checked(client.patch(f"/api/v2/dags/{dag_id}", json={"is_paused": False}))
            run = _checked(
                client.post(f"/api/v2/dags/{dag_id}/dagRuns", json={"logical_date": None, "conf": dict(asked)})
            )
            path = f"/api/v2/dags/{dag_id}/dagRuns/{run['dag_run_id']}"
            told: dict[str, str] = {}
            while True:
                state = _checked(client.get(path))["state"]
                for task in _checked(client.get(f"{path}/taskInstances"))["task_instances"]:
                    if task["state"] in ENDED_TASK and task["task_id"] not in told:
                        told[task["task_id"]] = task["state"]
                        progress.note(f"{task['task_id']}: {task['state']}, {task['duration'] or 0:.1f} s")
                if state in ENDED:
                    seconds = time.monotonic() - started
                    return AirflowRun(run["dag_run_id"], state, told, seconds, _outcome(client, path))
                time.sleep(POLL_SECONDS)
    except httpx.HTTPError as error:
        raise StoreUnavailableError(
            f"Airflow at {address.url} does not answer: {error}", fix="start it in another terminal: make airflow"
        ) from error


def _outcome(client: httpx.Client, run_path: str) -> str | None:
    answer = client.get(f"{run_path}/taskInstances/end/xcomEntries/return_value")
    return None if answer.is_error else str(answer.json()["value"])


def _checked(answer: httpx.Response) -> dict[str, Any]:
    if answer.is_error:
        raise EnergyIoTError(
            f"Airflow answered {answer.status_code} to {answer.request.url.path}: {answer.text[:400]}",
            fix="see the api-server's log below the home folder, in airflow/",
        )
    found: dict[str, Any] = answer.json()
    return found
