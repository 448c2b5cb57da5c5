"""Airflow without containers: its api-server, scheduler and dag-processor as processes of one command.

Metadata lie in a PostgreSQL database of their own, by default in the embedded server, which runs as long as this does.
"""

import json
import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Final
from urllib.parse import quote

import httpx
import psycopg
from psycopg import sql

from energy_iot.errors import StorageError, UsageError
from energy_iot.settings import ENV_PREFIX, PROJECT_DIR, Settings
from energy_iot.storage.postgres import Postgres, open_postgres

HOST: Final = "127.0.0.1"
USER: Final = "admin"
DATABASE: Final = "airflow"
ADDRESS_FILE: Final = "address.json"
PROCESSES: Final = {
    "api-server": ("api-server", "--workers", "1", "--host", HOST, "--port"),
    "scheduler": ("scheduler",),
    "dag-processor": ("dag-processor",),
}
HEALTHY_SECONDS: Final = 180
POLITE_SECONDS: Final = 10  # a first request to end can be lost while Airflow starts

log = logging.getLogger(__name__)


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
    if not file.is_file():
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
    asked = threading.Event()

    def stop(_: int, __: FrameType | None) -> None:
        asked.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with (
            open_postgres(settings) as postgres,
            _announced(settings, _free_port(settings.airflow_port if port is None else port)) as address,
        ):
            environment = _environment(settings, address, _database_url(settings, postgres))
            _migrate(program, environment, airflow_home(settings))
            with _running(program, environment, address, airflow_home(settings)) as processes:
                if _is_healthy(processes, address, asked):
                    started(address)
                while not asked.wait(1):
                    _refuse_ended(processes, airflow_home(settings))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
    passwords = home / "passwords.json"
    _write_secret(passwords, json.dumps({address.user: address.password}))
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
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{address.user}:admin",
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "30",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database_url,
        "AIRFLOW__DATABASE__SQL_ALCHEMY_POOL_SIZE": "2",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_MAX_OVERFLOW": "4",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        f"{ENV_PREFIX}HOME": str(settings.home),
        "PYTHONUNBUFFERED": "1",
    }


def _database_url(settings: Settings, postgres: Postgres) -> str:
    if settings.airflow_database_url:
        return settings.airflow_database_url.get_secret_value()
    if postgres.data_dir is None:
        raise UsageError(
            "on servers of your own Airflow needs a database of its own",
            fix=f"make one, and set {ENV_PREFIX}AIRFLOW_DATABASE_URL=postgresql+psycopg2://user:password@host/airflow",
        )
    with postgres.connect(autocommit=True) as connection, suppress(psycopg.errors.DuplicateDatabase):
        connection.execute(sql.SQL("create database {}").format(sql.Identifier(DATABASE)))
    known = postgres.parameters
    return f"postgresql+psycopg2://{quote(known['user'])}@/{DATABASE}?host={quote(known['host'], safe='')}"


def _migrate(program: Path, environment: Mapping[str, str], home: Path) -> None:
    with (home / "migrate.log").open("w") as file:
        done = subprocess.run([program, "db", "migrate"], env=environment, stdout=file, stderr=subprocess.STDOUT)
    if done.returncode:
        raise StorageError("Airflow cannot prepare its database", fix=f"see {file.name}")


@contextmanager
def _running(
    program: Path, environment: Mapping[str, str], address: AirflowAddress, home: Path
) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Airflow's processes, each with a log file and a group of its own, so that none of their children stays behind."""
    processes: dict[str, subprocess.Popen[bytes]] = {}
    files: list[IO[bytes]] = []
    try:
        for name, arguments in PROCESSES.items():
            files.append((home / f"{name}.log").open("ab"))
            command: list[str] = [str(program), *arguments, *([str(address.port)] if name == "api-server" else [])]
            processes[name] = subprocess.Popen(
                command, env=environment, stdout=files[-1], stderr=subprocess.STDOUT, start_new_session=True
            )
        yield processes
    finally:
        _stop(processes)
        for file in files:
            file.close()


def _stop(processes: Mapping[str, subprocess.Popen[bytes]]) -> None:
    """End the processes and their children: asked twice, then killed."""
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
        for process in processes.values():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
        deadline = time.monotonic() + POLITE_SECONDS
        while time.monotonic() < deadline:
            if all(process.poll() is not None for process in processes.values()):
                break
            time.sleep(0.1)
        else:
            continue
        break
    for process in processes.values():  # what a process left behind in its group
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _is_healthy(
    processes: Mapping[str, subprocess.Popen[bytes]], address: AirflowAddress, asked: threading.Event
) -> bool:
    """Wait until all parts say that they are well; False when asked to stop before."""
    deadline = time.monotonic() + HEALTHY_SECONDS
    while not asked.wait(0.5):
        for name, process in processes.items():
            if process.poll() is not None:
                raise StorageError(f"Airflow's {name} ended by itself", fix="its log says why")
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


def _refuse_ended(processes: Mapping[str, subprocess.Popen[bytes]], home: Path) -> None:
    for name, process in processes.items():
        if process.poll() is not None:
            raise StorageError(f"Airflow's {name} ended by itself", fix=f"see {home / f'{name}.log'}")


@contextmanager
def _announced(settings: Settings, port: int) -> Iterator[AirflowAddress]:
    """Make a password, and tell address and password to others of this user while the block runs."""
    home = airflow_home(settings)
    home.mkdir(parents=True, exist_ok=True)
    address = AirflowAddress(port, USER, secrets.token_urlsafe(16))
    file = home / ADDRESS_FILE
    _write_secret(file, json.dumps(asdict(address)))
    try:
        yield address
    finally:
        file.unlink(missing_ok=True)


def _write_secret(path: Path, text: str) -> None:
    """Write a file that only its owner reads."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def _free_port(port: int) -> int:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
        except OSError as error:
            raise StorageError(
                f"port {port} is taken: {error.strerror}", fix="choose another --port, or 0 for any"
            ) from error
        return int(listener.getsockname()[1])
