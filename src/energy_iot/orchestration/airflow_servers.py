"""Airflow without containers: its api-server, scheduler and dag-processor as processes of one command.

Metadata lie in a PostgreSQL database of their own, by default in the embedded server, which runs as long as this does.
"""

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import httpx

from energy_iot.errors import StorageError, UsageError
from energy_iot.serving.local_server import (
    HOST,
    LocalAddress,
    alone,
    announced,
    asked_to_stop,
    free_port,
    read_announced,
    running_processes,
    wait_until_ready,
    write_secret,
)
from energy_iot.settings import ENV_PREFIX, PROJECT_DIR, Settings
from energy_iot.storage.postgres import Postgres, open_postgres, own_database_url

USER: Final = "admin"
DATABASE: Final = "airflow"
PASSWORDS_FILE: Final = "passwords.json"
PROCESSES: Final = ("api-server", "scheduler", "dag-processor")
PROGRAM: Final = Path(sys.executable).with_name("airflow")
CONFIG_DIR: Final = PROJECT_DIR / "airflow" / "config"  # what Airflow imports as it starts


@dataclass(frozen=True, repr=False)  # holds a password
class AirflowAddress(LocalAddress):
    """Where a running Airflow is, and how to log in."""

    user: str
    password: str


def airflow_home(settings: Settings) -> Path:
    """Airflow's own folder: configuration, logs, address."""
    return settings.home / "airflow"


def read_address(settings: Settings) -> AirflowAddress:
    """The Airflow that runs for this home.

    Raises:
        UsageError: None does.
    """
    return AirflowAddress(**read_announced(airflow_home(settings), "Airflow", start="make airflow"))


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
    program = installed_program()
    home = airflow_home(settings)
    with (
        asked_to_stop() as asked,
        alone(home, "Airflow"),
        open_postgres(settings) as postgres,
        _login(settings, free_port(settings.airflow_port if port is None else port)) as address,
        announced(home, asdict(address)),
    ):
        environment = _environment(settings, address, _database_url(settings, postgres))
        _migrate(program, environment, home)
        commands = {name: process_command(program, name, host=HOST, port=address.port) for name in PROCESSES}
        with running_processes(commands, environment, home) as processes:
            if wait_until_ready("Airflow", lambda: _is_healthy(address), processes, asked):
                started(address)
            while not asked.wait(1):
                processes.refuse_ended()


def is_installed() -> bool:
    """Whether this environment has Airflow."""
    return PROGRAM.exists()


def process_command(program: Path, name: str, *, host: str, port: int) -> list[str]:
    """How one of the three processes is started; only the api-server listens."""
    listening = ["--workers", "1", "--host", host, "--port", str(port)] if name == "api-server" else []
    return [str(program), name, *listening]


def installed_program() -> Path:
    """Airflow's command.

    Raises:
        UsageError: It is not installed.
    """
    if not is_installed():
        raise UsageError("Airflow is not installed", fix="make airflow installs it and starts it")
    return PROGRAM


def run_command(settings: Settings, arguments: Sequence[str]) -> int:
    """Run a command of Airflow's own, such as `backfill create`, on the Airflow that runs; returns its exit code.

    Raises:
        UsageError: None runs, or it is not installed.
    """
    program, address = installed_program(), read_address(settings)
    with open_postgres(settings) as postgres:
        environment = _environment(settings, address, _database_url(settings, postgres))
        return subprocess.run([program, *arguments], env=environment).returncode


def common_environment(settings: Settings, database_url: str) -> dict[str, str]:
    """Variables of Airflow's processes wherever they run: small, without examples and usage statistics."""
    home = airflow_home(settings)
    return os.environ | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(PROJECT_DIR / "airflow" / "dags"),
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__PARALLELISM": "2",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / PASSWORDS_FILE),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin",
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "30",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database_url,
        "AIRFLOW__DATABASE__SQL_ALCHEMY_POOL_SIZE": "2",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_MAX_OVERFLOW": "4",
        "AIRFLOW__METRICS__STATSD_ON": "True",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        f"{ENV_PREFIX}HOME": str(settings.home),
        "PYTHONPATH": os.pathsep.join(filter(None, (str(CONFIG_DIR), os.environ.get("PYTHONPATH")))),
        "PYTHONUNBUFFERED": "1",
    }


def _environment(settings: Settings, address: AirflowAddress, database_url: str) -> dict[str, str]:
    """What is added where all processes run on this machine, on the loopback address."""
    return common_environment(settings, database_url) | {
        "AIRFLOW__API__BASE_URL": address.url,
        "AIRFLOW__API__SECRET_KEY": secrets.token_urlsafe(32),
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_urlsafe(32),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{address.url}/execution/",
        "AIRFLOW__METRICS__STATSD_HOST": HOST,  # told whether anybody listens or not: it is UDP
        "AIRFLOW__METRICS__STATSD_PORT": str(settings.airflow_statsd_port),
    }


def _database_url(settings: Settings, postgres: Postgres) -> str:
    return own_database_url(postgres, DATABASE, settings.airflow_database_url, f"{ENV_PREFIX}AIRFLOW_DATABASE_URL")


def _migrate(program: Path, environment: Mapping[str, str], home: Path) -> None:
    with (home / "migrate.log").open("w") as file:
        done = subprocess.run([program, "db", "migrate"], env=environment, stdout=file, stderr=subprocess.STDOUT)
    if done.returncode:
        raise StorageError("Airflow cannot prepare its database", fix=f"see {file.name}")


def _is_healthy(address: AirflowAddress) -> bool:
    """Whether all of its parts say that they are well."""
    parts = httpx.get(f"{address.url}/api/v2/monitor/health", timeout=5).json()
    return all(parts[part]["status"] == "healthy" for part in ("metadatabase", "scheduler", "dag_processor"))


def write_passwords(settings: Settings, password: str) -> None:
    """Write the file from which Airflow knows its user's password."""
    write_secret(airflow_home(settings) / PASSWORDS_FILE, json.dumps({USER: password}))


@contextmanager
def _login(settings: Settings, port: int) -> Iterator[AirflowAddress]:
    """The address with the password, the settings' or one made anew, that holds while the block runs."""
    given = settings.airflow_admin_password
    address = AirflowAddress(port, USER, given.get_secret_value() if given else secrets.token_urlsafe(16))
    write_passwords(settings, address.password)
    try:
        yield address
    finally:
        (airflow_home(settings) / PASSWORDS_FILE).unlink(missing_ok=True)
