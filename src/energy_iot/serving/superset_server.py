"""Superset without containers: its web server, and the front of the embedded ClickHouse, as processes of one command.

Superset lives in an environment of its own (its pins do not go with ours). Its metadata lie in a PostgreSQL database of
their own, by default in the embedded server, which runs as long as this does.
"""

import json
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from energy_iot.errors import StorageError, UsageError
from energy_iot.serving.front_file import FILE_NAME, READER, find_front
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
from energy_iot.serving.superset_bundle import FIRST_DASHBOARD, LANGUAGES, make_bundle, write_bundle
from energy_iot.settings import ENV_PREFIX, PROJECT_DIR, Settings
from energy_iot.storage.postgres import open_postgres, own_database_url

ADMIN: Final = "admin"
ANALYST: Final = "analyst"
DATABASE: Final = "superset"
PROGRAMS_DIR: Final = PROJECT_DIR / "dashboards" / "server"
LOCK_FILE: Final = ".lock"
PORT_FILE: Final = "port"
SECRETS_FILE: Final = "secrets.json"
STATE_FILE: Final = "state.json"
HEALTHY_SECONDS: Final = 120
WAIT_SECONDS: Final = 0.5


@dataclass(frozen=True, repr=False)  # holds passwords
class SupersetSecrets:
    """What is made at the first start and stays, since accounts and saved charts do.

    Attributes:
        secret_key: Signs sessions and encrypts what Superset stores.
        passwords: By user.
    """

    secret_key: str
    passwords: dict[str, str]


@dataclass(frozen=True, repr=False)
class SupersetAddress:
    """Where a running Superset is.

    Attributes:
        port: On the loopback address.
        passwords: By user.
    """

    port: int
    passwords: dict[str, str]

    @property
    def url(self) -> str:
        """Of its pages and its interface."""
        return f"http://{HOST}:{self.port}"


def superset_home(settings: Settings) -> Path:
    """Superset's own folder: secrets, logs, pages."""
    return settings.home / "superset"


def superset_python(settings: Settings) -> Path:
    """The Python of Superset's environment.

    Raises:
        UsageError: Superset is not installed there.
    """
    python = PROJECT_DIR / settings.superset_env / "bin" / "python"
    if not python.with_name("superset").exists():
        raise UsageError(
            f"Superset is not installed in {settings.superset_env}",
            fix=f"make superset installs it and starts it; {ENV_PREFIX}SUPERSET_ENV names another environment",
        )
    return python


def read_address(settings: Settings) -> SupersetAddress:
    """The Superset that runs for this home.

    Raises:
        UsageError: None does.
    """
    home = superset_home(settings)
    if not (is_held(home / LOCK_FILE) and (home / PORT_FILE).is_file()):
        raise UsageError("no Superset runs for this home", fix="start one in another terminal: make superset")
    return SupersetAddress(int((home / PORT_FILE).read_text()), _secrets(home).passwords)


def serve(settings: Settings, *, port: int | None, started: Callable[[SupersetAddress, bool], None]) -> None:
    """Run Superset until SIGTERM or SIGINT, which stop all of its processes within seconds.

    Args:
        settings: Name the home, and which ClickHouse the dashboards ask.
        port: On the loopback address; 0 takes a free one, None the one of the settings.
        started: Called once it answers; whether its passwords were made just now is the second argument.

    Raises:
        UsageError: Superset is not installed.
        StorageError: Its database cannot be used, the port is taken, or one of its processes ended by itself.
    """
    python, home = superset_python(settings), superset_home(settings)
    with (
        asked_to_stop() as asked,
        alone(home / LOCK_FILE, "Superset"),
        open_postgres(settings) as postgres,
        running_processes(_front_commands(settings), os.environ, home) as front,
    ):
        is_first = not (home / SECRETS_FILE).exists()
        kept = _secrets(home)
        address = SupersetAddress(free_port(settings.superset_port if port is None else port), kept.passwords)
        database_url = own_database_url(
            postgres, DATABASE, settings.superset_database_url, f"{ENV_PREFIX}SUPERSET_DATABASE_URL"
        )
        write_secret(home / STATE_FILE, json.dumps(_state(settings, kept, database_url)))
        environment = _environment(home)
        if not _front_answers(settings, front, asked):
            return
        _prepare(python, environment, home)
        web_command = _web_command(python, address.port)
        with running_processes({"superset": web_command}, environment, home) as web, _announced(home, address):
            if _is_healthy(web, address, asked):
                started(address, is_first)
            while not asked.wait(WAIT_SECONDS):
                web.refuse_ended()
                front.refuse_ended()


@contextmanager
def _announced(home: Path, address: SupersetAddress) -> Iterator[None]:
    """Tell others the port while the block runs."""
    (home / PORT_FILE).write_text(str(address.port))
    try:
        yield
    finally:
        (home / PORT_FILE).unlink(missing_ok=True)


def _front_commands(settings: Settings) -> dict[str, list[str]]:
    """How to start the front of the embedded ClickHouse, unless it runs or a server is used."""
    if settings.clickhouse_url is not None or find_front(settings.home) is not None:
        return {}
    serve_front = ("serve", "clickhouse", "--port", "0")
    return {"clickhouse": [sys.executable, "-m", "energy_iot", "--home", str(settings.home), *serve_front]}


def _front_answers(settings: Settings, front: Processes, asked: threading.Event) -> bool:
    """Wait until the front says where it is; False when asked to stop before."""
    while not asked.wait(WAIT_SECONDS):
        front.refuse_ended()
        if settings.clickhouse_url is not None or (settings.home / FILE_NAME).exists():
            return True
    return False


def _secrets(home: Path) -> SupersetSecrets:
    file = home / SECRETS_FILE
    if not file.exists():
        made = {"secret_key": secrets.token_urlsafe(48)}
        passwords = {user: secrets.token_urlsafe(16) for user in (ADMIN, ANALYST)}
        write_secret(file, json.dumps(made | {"passwords": passwords}))
    return SupersetSecrets(**json.loads(file.read_text()))


def _state(settings: Settings, kept: SupersetSecrets, database_url: str) -> dict[str, object]:
    """What Superset's configuration and its preparation read."""
    asked = settings.superset_clickhouse_url
    if settings.clickhouse_url is not None and asked is None:
        raise UsageError(
            "on servers of your own Superset needs a ClickHouse user that may only read",
            fix=f"make one, and set {ENV_PREFIX}SUPERSET_CLICKHOUSE_URL=clickhousedb://user:password@host:8123",
        )
    return {
        "secret_key": kept.secret_key,
        "database_url": database_url,
        "clickhouse_url": asked.get_secret_value() if asked else None,
        "clickhouse_database": settings.clickhouse_database,
        "host": HOST,
        "reader": READER,
        "front_file": str(settings.home / FILE_NAME),
        "users": [
            {"username": user, "password": password, "role": user.title()} for user, password in kept.passwords.items()
        ],
        "first_dashboards": {
            language: make_bundle(language)[f"dashboards/{FIRST_DASHBOARD}.yaml"]["slug"] for language in LANGUAGES
        },
        "explain_command": [sys.executable, "-m", "energy_iot", "--home", str(settings.home), "explain"],
        "explanations_dir": str(superset_home(settings) / "explanations"),
    }


def _environment(home: Path) -> dict[str, str]:
    """Variables of Superset's processes; usage statistics are off."""
    return os.environ | {
        "PYTHONPATH": str(PROGRAMS_DIR),
        "PYTHONUNBUFFERED": "1",
        "SCARF_ANALYTICS": "false",
        "SUPERSET_CONFIG_PATH": str(PROGRAMS_DIR / "superset_config.py"),
        "SUPERSET_HOME": str(home),
        "SUPERSET_STATE": str(home / STATE_FILE),
    }


def _prepare(python: Path, environment: Mapping[str, str], home: Path) -> None:
    """Make its database, users and dashboards what the project says."""
    bundles = [write_bundle(home, language) for language in LANGUAGES]
    with (home / "prepare.log").open("w") as file:
        command = [python, PROGRAMS_DIR / "prepare.py", *bundles]
        done = subprocess.run(command, env=environment, stdout=file, stderr=subprocess.STDOUT)
    if done.returncode:
        raise StorageError("Superset cannot be prepared", fix=f"see {file.name}")


def _web_command(python: Path, port: int) -> list[str]:
    options = ["--workers", "1", "--worker-class", "gthread", "--threads", "8", "--timeout", "120"]
    return [str(python), "-m", "gunicorn", *options, "--bind", f"{HOST}:{port}", "superset.app:create_app()"]


def _is_healthy(web: Processes, address: SupersetAddress, asked: threading.Event) -> bool:
    """Wait until it answers; False when asked to stop before."""
    deadline = time.monotonic() + HEALTHY_SECONDS
    while not asked.wait(WAIT_SECONDS):
        web.refuse_ended()
        with suppress(httpx.HTTPError):
            if httpx.get(f"{address.url}/health", timeout=5).status_code == httpx.codes.OK:
                return True
        if time.monotonic() > deadline:
            raise StorageError(
                f"Superset does not answer after {HEALTHY_SECONDS} s", fix=f"see {web.log_file('superset')}"
            )
    return False
