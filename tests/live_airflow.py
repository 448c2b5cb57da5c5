"""A real Airflow for tests: its three processes, and what its interface says of runs."""

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from energy_iot.orchestration.airflow_servers import PROGRAM, is_installed, read_address
from tests.live_server import LiveServer, command, serving

DAILY = "energy_pipeline_daily"
INSTALLED = is_installed()
NOT_INSTALLED = "Airflow is not installed: make airflow"


@dataclass(frozen=True)
class LiveAirflow(LiveServer):
    """An Airflow that runs.

    Attributes:
        variables: Of its environment, and of commands.
    """

    variables: Mapping[str, str]

    def energy_iot(self, *arguments: object, timeout: float = 600) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            command(self.home, *arguments),
            capture_output=True,
            text=True,
            env=environment(self.variables),
            timeout=timeout,
        )

    def begin(self, *arguments: object) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            command(self.home, *arguments),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment(self.variables),
        )

    @contextmanager
    def client(self) -> Iterator[httpx.Client]:
        address = read_address(self.settings)
        with httpx.Client(base_url=f"{address.url}/api/v2", timeout=60) as client:
            login = {"username": address.user, "password": address.password}
            token = client.post(f"{address.url}/auth/token", json=login).raise_for_status().json()["access_token"]
            client.headers["Authorization"] = f"Bearer {token}"
            yield client

    def get(self, path: str, **query: Any) -> dict[str, Any]:
        with self.client() as client:
            answer: dict[str, Any] = client.get(path, params=query).raise_for_status().json()
        return answer

    def runs(self, dag_id: str = DAILY) -> list[dict[str, Any]]:
        """Newest first."""
        found: list[dict[str, Any]] = self.get(f"/dags/{dag_id}/dagRuns", order_by="-id")["dag_runs"]
        return found

    def tasks(self, run_id: str, dag_id: str = DAILY) -> dict[str, dict[str, Any]]:
        listed = self.get(f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances")["task_instances"]
        return {task["task_id"]: task for task in listed}


@contextmanager
def live_airflow(home: Path, landing: Path, **variables: str) -> Iterator[LiveAirflow]:
    """Start Airflow on a free port; ended as a service manager ends it."""
    landing.mkdir(parents=True, exist_ok=True)
    variables |= {"ENERGY_IOT_LANDING_DIR": str(landing)}
    with serving(home, "airflow", environment(variables)) as served:
        yield LiveAirflow(home, *served, variables)


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")} | dict(variables)


def run_program(arguments: Sequence[str], variables: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    """Airflow's own command."""
    return subprocess.run(
        [PROGRAM, *arguments], capture_output=True, text=True, env=environment(variables), timeout=600
    )
