"""Airflow without containers: its api-server, scheduler and dag-processor as processes of one command.

Metadata lie in a PostgreSQL database of their own, by default in the embedded server, which runs as long as this does.
"""

import json
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import httpx

from energy_iot.errors import StorageError, UsageError
from energy_iot.serving.local_server import (
    HOST,
    Processes,
    alone,
    asked_to_stop,
    free_port,
    is_held,
    running_processes,
    write_secret,
)
from energy_iot.settings import ENV_PREFIX, PROJECT_DIR, Settings
from energy_iot.storage.postgres import Postgres, open_postgres, own_database_url

USER: Final = "admin"
DATABASE: Final = "airflow"
ADDRESS_FILE: Final = "address.json"
PASSWORDS_FILE: Final = "passwords.json"
LOCK_FILE: Final = ".lock"
PROCESSES: Final = {
    "api-server": ("api-server", "--workers", "1", "--host", HOST, "--port"),
    "scheduler": ("scheduler",),
    "dag-processor": ("dag-processor",),
}
CONFIG_DIR: Final = PROJECT_DIR / "airflow" / "config"  # what Airflow imports as it starts
HEALTHY_SECONDS: Final = 180


@dataclass(frozen=True)
class AirflowAddress:
    """Where a running Airflow is, and how to log in; the password is made anew at each start."""

    port: int
    user: str
    password: str

    @property
    def url(self) -> str:
        """Of its pages and its interface."""
        return f"http://{HOST}:{self.port}"


def airflow_home(settings: Settings) -> Path:
    """Airflow's own folder: configuration, logs, address."""
    return settings.home / "airflow"


def read_address(settings: Settings) -> AirflowAddress:
    """The Airflow that runs for this home.

    Raises:
        UsageError: None does.
    """
    file = airflow_home(settings) / ADDRESS_FILE
    if not (is_held(airflow_home(settings) / LOCK_FILE) and file.is_file()):
        raise UsageError("no Airflow runs for this home", fix="start one in another terminal: make airflow")
    return AirflowAddress(**json.loads(file.read_text()))


def serve(settings: Settings, *, port: int | None, started: Callable[[AirflowAddress], None]) -> None:
    """Run Airflow until SIGTERM or SIGINT, which stop all of its processes within seconds.

    Args:
        settings: Name the home, and what the tasks work on.
        port: Of the pages, on the loopback address; 0 takes a free one, None the one of the settings.
        started: Called once it is healthy.

    Raises:
        UsageError: Airflow is not installed.
        StorageError: Its database cannot be used, the port is taken, or one of its processes ended by itself.
    """
    program = airflow_program()
    home = airflow_home(settings)
    with (
        asked_to_stop() as asked,
        alone(home / LOCK_FILE, "Airflow"),
        open_postgres(settings) as postgres,
        _announced(settings, free_port(settings.airflow_port if port is None else port)) as address,
    ):
        environment = _environment(settings, address, _database_url(settings, postgres))
        _migrate(program, environment, home)
        commands = {
            name: [str(program), *arguments, *([str(address.port)] if name == "api-server" else [])]
            for name, arguments in PROCESSES.items()
        }
        with running_processes(commands, environment, home) as processes:
            if _is_healthy(processes, address, asked):
                started(address)
            while not asked.wait(1):
                processes.refuse_ended()


def airflow_program() -> Path:
    """Airflow's command.

    Raises:
        UsageError: Airflow is not installed.
    """
    program = Path(sys.executable).with_name("airflow")
    if not program.exists():
        raise UsageError("Airflow is not installed", fix="make airflow installs it and starts it")
    return program


def run_command(settings: Settings, arguments: Sequence[str]) -> int:
    """Run a command of Airflow's own, such as `backfill create`, on the Airflow that runs; returns its exit code.

    Raises:
        UsageError: None runs, or it is not installed.
    """
    program, address = airflow_program(), read_address(settings)
    with open_postgres(settings) as postgres:
        environment = _environment(settings, address, _database_url(settings, postgres))
        return subprocess.run([program, *arguments], env=environment).returncode


def _environment(settings: Settings, address: AirflowAddress, database_url: str) -> dict[str, str]:
    """Variables of Airflow's processes: small, on the loopback address, without examples and usage statistics."""
    home = airflow_home(settings)
    return os.environ | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__API__BASE_URL": address.url,
        "AIRFLOW__API__SECRET_KEY": secrets.token_urlsafe(32),
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_urlsafe(32),
        "AIRFLOW__CORE__DAGS_FOLDER": str(PROJECT_DIR / "airflow" / "dags"),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{address.url}/execution/",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__PARALLELISM": "2",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / PASSWORDS_FILE),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{address.user}:admin",
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "30",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database_url,
        "AIRFLOW__DATABASE__SQL_ALCHEMY_POOL_SIZE": "2",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_MAX_OVERFLOW": "4",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        f"{ENV_PREFIX}HOME": str(settings.home),
        "PYTHONPATH": os.pathsep.join(filter(None, (str(CONFIG_DIR), os.environ.get("PYTHONPATH")))),
        "PYTHONUNBUFFERED": "1",
    }


def _database_url(settings: Settings, postgres: Postgres) -> str:
    return own_database_url(postgres, DATABASE, settings.airflow_database_url, f"{ENV_PREFIX}AIRFLOW_DATABASE_URL")


def _migrate(program: Path, environment: Mapping[str, str], home: Path) -> None:
    with (home / "migrate.log").open("w") as file:
        done = subprocess.run([program, "db", "migrate"], env=environment, stdout=file, stderr=subprocess.STDOUT)
    if done.returncode:
        raise StorageError("Airflow cannot prepare its database", fix=f"see {file.name}")


def _is_healthy(processes: Processes, address: AirflowAddress, asked: threading.Event) -> bool:
    """Wait until all parts say that they are well; False when asked to stop before."""
    deadline = time.monotonic() + HEALTHY_SECONDS
    while not asked.wait(0.5):
        processes.refuse_ended()
        with suppress(httpx.HTTPError):
            parts = httpx.get(f"{address.url}/api/v2/monitor/health", timeout=5).json()
            if all(parts[part]["status"] == "healthy" for part in ("metadatabase", "scheduler", "dag_processor")):
                return True
        if time.monotonic() > deadline:
            raise StorageError(
                f"Airflow is not healthy after {HEALTHY_SECONDS} s",
                fix="see the logs in its folder, and start it again",
            )
    return False


@contextmanager
def _announced(settings: Settings, port: int) -> Iterator[AirflowAddress]:
    """Make a password, and tell address and password to others of this user while the block runs."""
    home = airflow_home(settings)
    address = AirflowAddress(port, USER, secrets.token_urlsafe(16))
    write_secret(home / PASSWORDS_FILE, json.dumps({address.user: address.password}))
    write_secret(home / ADDRESS_FILE, json.dumps(asdict(address)))
    try:
        yield address
    finally:
        for name in (ADDRESS_FILE, PASSWORDS_FILE):
            (home / name).unlink(missing_ok=True)
