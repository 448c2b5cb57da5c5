"""A real Airflow for tests: its three processes, and what its interface says of runs."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from energy_iot.orchestration.airflow_servers import read_address
from energy_iot.settings import Settings, load_settings
from tests.live_server import command, serving

DAILY = "energy_pipeline_daily"
INSTALLED = Path(sys.executable).with_name("airflow").exists()
NOT_INSTALLED = "Airflow is not installed: make airflow"


@dataclass(frozen=True)
class LiveAirflow:
    """An Airflow that runs.

    Attributes:
        home: Of the pipeline.
        variables: Of its environment, and of commands.
        process: `energy-iot serve airflow`.
        said: What that printed until it was ready.
    """

    home: Path
    variables: Mapping[str, str]
    process: "subprocess.Popen[str]"
    said: str

    @property
    def settings(self) -> Settings:
        return load_settings(home=self.home)

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
    with serving(home, "airflow", environment(variables)) as (process, said):
        yield LiveAirflow(home, variables, process, said)


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")} | dict(variables)


def run_program(arguments: Sequence[str], variables: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    """Airflow's own command."""
    program = Path(sys.executable).with_name("airflow")
    return subprocess.run(
        [program, *arguments], capture_output=True, text=True, env=environment(variables), timeout=600
    )
