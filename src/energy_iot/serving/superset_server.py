"""Superset without containers: its web server, and the front of the embedded ClickHouse, as processes of one command.

Superset lives in an environment of its own (its pins do not go with ours). Its metadata lie in a PostgreSQL database of
their own, by default in the embedded server, which runs as long as this does.
"""

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import httpx

from energy_iot.errors import StorageError, UsageError
from energy_iot.serving.front_file import FILE_NAME, READER, find_front
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
from energy_iot.serving.superset_bundle import FIRST_DASHBOARD, LANGUAGES, own_name, write_bundle
from energy_iot.settings import ENV_PREFIX, PROJECT_DIR, Settings
from energy_iot.storage.postgres import open_postgres, own_database_url

ADMIN: Final = "admin"
ANALYST: Final = "analyst"
DATABASE: Final = "superset"
PROGRAMS_DIR: Final = PROJECT_DIR / "dashboards" / "server"
SECRETS_FILE: Final = "secrets.json"
STATE_FILE: Final = "state.json"


@dataclass(frozen=True, repr=False)  # holds passwords
class SupersetSecrets:
    """What the settings say, or is made at the first start; it stays, since accounts and saved charts do.

    Attributes:
        secret_key: Signs sessions and encrypts what Superset stores.
        passwords: By user.
    """

    secret_key: str
    passwords: dict[str, str]


@dataclass(frozen=True, repr=False)
class SupersetAddress(LocalAddress):
    """Where a running Superset is, and how to log in.

    Attributes:
        passwords: By user.
    """

    passwords: dict[str, str]


def superset_home(settings: Settings) -> Path:
    """Superset's own folder: secrets, logs, pages."""
    return settings.home / "superset"


def superset_python(settings: Settings) -> Path:
    """The Python of Superset's environment."""
    return PROJECT_DIR / settings.superset_env / "bin" / "python"


def is_installed(settings: Settings) -> bool:
    """Whether that environment has Superset."""
    return superset_python(settings).with_name("superset").exists()


def require_installed(settings: Settings) -> None:
    """Raise UsageError where it is not installed."""
    if not is_installed(settings):
        raise UsageError(
            f"Superset is not installed in {settings.superset_env}",
            fix=f"make superset installs it and starts it; {ENV_PREFIX}SUPERSET_ENV names another environment",
        )


def read_address(settings: Settings) -> SupersetAddress:
    """The Superset that runs for this home.

    Raises:
        UsageError: None does.
    """
    return SupersetAddress(**read_announced(superset_home(settings), "Superset", start="make superset"))


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
    require_installed(settings)
    home = superset_home(settings)
    with (
        asked_to_stop() as asked,
        alone(home, "Superset"),
        open_postgres(settings) as postgres,
        running_processes(_front_commands(settings), os.environ, home) as front,
    ):
        is_first = _given_secrets(settings) is None and not (home / SECRETS_FILE).exists()
        kept = _secrets(settings)
        address = SupersetAddress(free_port(settings.superset_port if port is None else port), kept.passwords)
        database_url = own_database_url(
            postgres, DATABASE, settings.superset_database_url, f"{ENV_PREFIX}SUPERSET_DATABASE_URL"
        )
        write_state(settings, database_url)
        front_file = settings.home / FILE_NAME
        if settings.clickhouse_url is None and not wait_until_ready("ClickHouse", front_file.exists, front, asked):
            return
        _prepare(settings)
        command = web_command(settings, host=HOST, port=address.port)
        with (
            running_processes({"superset": command}, environment_of(home), home) as web,
            announced(home, asdict(address)),
        ):
            if wait_until_ready("Superset", lambda: _is_healthy(address), web, asked):
                started(address, is_first)
            while not asked.wait(1):
                web.refuse_ended()
                front.refuse_ended()


def _front_commands(settings: Settings) -> dict[str, list[str]]:
    """How to start the front of the embedded ClickHouse, unless it runs or a server is used."""
    if settings.clickhouse_url is not None or find_front(settings.home) is not None:
        return {}
    serve_front = ("serve", "clickhouse", "--port", "0")
    return {"clickhouse": [sys.executable, "-m", "energy_iot", "--home", str(settings.home), *serve_front]}


def _secrets(settings: Settings) -> SupersetSecrets:
    """What the settings say, or else what was made at the first start."""
    if (given := _given_secrets(settings)) is not None:
        return given
    file = superset_home(settings) / SECRETS_FILE
    if not file.exists():
        made = {"secret_key": secrets.token_urlsafe(48)}
        passwords = {user: secrets.token_urlsafe(16) for user in (ADMIN, ANALYST)}
        write_secret(file, json.dumps(made | {"passwords": passwords}))
    return SupersetSecrets(**json.loads(file.read_text()))


def _given_secrets(settings: Settings) -> SupersetSecrets | None:
    given = [settings.superset_secret_key, settings.superset_admin_password, settings.superset_analyst_password]
    if not any(given):
        return None
    if not all(given):
        raise UsageError(
            "of superset_secret_key, superset_admin_password and superset_analyst_password some are set and some not",
            fix="set all three in .env, or none",
        )
    key, admin, analyst = (secret.get_secret_value() for secret in given if secret)
    return SupersetSecrets(key, {ADMIN: admin, ANALYST: analyst})


def write_state(settings: Settings, database_url: str) -> None:
    """Write what Superset's configuration and its preparation read."""
    state = _state(settings, _secrets(settings), database_url)
    write_secret(superset_home(settings) / STATE_FILE, json.dumps(state))


def _state(settings: Settings, kept: SupersetSecrets, database_url: str) -> dict[str, object]:
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
        "first_dashboards": {language: own_name(FIRST_DASHBOARD, language) for language in LANGUAGES},
        "explain_command": [sys.executable, "-m", "energy_iot", "--home", str(settings.home), "explain"],
        "explanations_dir": str(superset_home(settings) / "explanations"),
    }


def environment_of(home: Path) -> dict[str, str]:
    """Variables of Superset's processes; usage statistics are off."""
    return os.environ | {
        "PYTHONPATH": str(PROGRAMS_DIR),
        "PYTHONUNBUFFERED": "1",
        "SCARF_ANALYTICS": "false",
        "SUPERSET_CONFIG_PATH": str(PROGRAMS_DIR / "superset_config.py"),
        "SUPERSET_HOME": str(home),
        "SUPERSET_STATE": str(home / STATE_FILE),
    }


def _prepare(settings: Settings) -> None:
    """Make its database, users and dashboards what the project says."""
    home = superset_home(settings)
    with (home / "prepare.log").open("w") as file:
        command = prepare_command(settings)
        done = subprocess.run(command, env=environment_of(home), stdout=file, stderr=subprocess.STDOUT)
    if done.returncode:
        raise StorageError("Superset cannot be prepared", fix=f"see {file.name}")


def prepare_command(settings: Settings) -> list[str]:
    """How Superset's database is prepared; writes the dashboards that are imported."""
    bundles = [write_bundle(superset_home(settings), language) for language in LANGUAGES]
    return [str(superset_python(settings)), str(PROGRAMS_DIR / "prepare.py"), *map(str, bundles)]


def web_command(settings: Settings, *, host: str, port: int) -> list[str]:
    """How its web server is started."""
    options = ["--workers", "1", "--worker-class", "gthread", "--threads", "8", "--timeout", "120"]
    listening = ["--bind", f"{host}:{port}"]
    return [str(superset_python(settings)), "-m", "gunicorn", *options, *listening, "superset.app:create_app()"]


def _is_healthy(address: SupersetAddress) -> bool:
    return httpx.get(f"{address.url}/health", timeout=5).status_code == httpx.codes.OK
