"""What is installed and reachable, and what to do about what is not."""

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from typing import TYPE_CHECKING, Final

import psutil
from packaging.requirements import Requirement

from energy_iot.errors import EnergyIoTError
from energy_iot.settings import PROJECT_DIR, Settings

if TYPE_CHECKING:
    import psycopg

DISTRIBUTION: Final = "energy-iot-pipeline"
MIN_FREE_DISK_GB: Final = 2
MIN_MEMORY_GB: Final = 2


@dataclass(frozen=True)
class Finding:
    """One thing looked at; `fix` is what to do when it is not `ok`."""

    name: str
    ok: bool
    found: str
    fix: str = ""


def examine(settings: Settings) -> list[Finding]:
    """Look at the program, its files, the machine and both stores; nothing is changed but an empty home made."""
    return [
        _python(),
        *_packages(),
        *_project_files(),
        _home(settings),
        _memory(),
        *_root(settings),
        *_postgres(settings),
        _store("ClickHouse", lambda: _clickhouse_version(settings)),
    ]


def _python() -> Finding:
    return Finding("Python", sys.version_info >= (3, 11), sys.version.split()[0], "install Python 3.11 or newer")


def _packages() -> list[Finding]:
    """Each direct requirement of the distribution, at the version it asks for."""
    findings = []
    for line in requires(DISTRIBUTION) or []:
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate():
            continue
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            found = "missing"
        ok = found != "missing" and requirement.specifier.contains(found, prereleases=True)
        findings.append(Finding(requirement.name, ok, found, f"needs {requirement.specifier}: run `make install`"))
    return findings


def _project_files() -> list[Finding]:
    wanted = ("configs/sources", "dbt/dbt_project.yml", "great_expectations/great_expectations.yml")
    missing = [name for name in wanted if not (PROJECT_DIR / name).exists()]
    return [
        Finding(
            "project files",
            not missing,
            f"missing: {', '.join(missing)}" if missing else str(PROJECT_DIR),
            "run from a checkout installed with `make install`: dbt and Great Expectations files live there",
        )
    ]


def _home(settings: Settings) -> Finding:
    try:
        settings.home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return Finding("home folder", False, f"{settings.home}: {error.strerror}", "choose another with --home")
    free_gb = shutil.disk_usage(settings.home).free / 1e9
    writable = os.access(settings.home, os.W_OK)
    return Finding(
        "home folder",
        writable and free_gb >= MIN_FREE_DISK_GB,
        f"{settings.home}: {'writable' if writable else 'not writable'}, {free_gb:.1f} GB free",
        f"needs write access and {MIN_FREE_DISK_GB} GB free; choose another with --home",
    )


def _memory() -> Finding:
    available_gb = psutil.virtual_memory().available / 1e9
    return Finding(
        "memory", available_gb >= MIN_MEMORY_GB, f"{available_gb:.1f} GB available", f"needs {MIN_MEMORY_GB} GB"
    )


def _root(settings: Settings) -> list[Finding]:
    if os.geteuid() != 0 or settings.postgres_dsn is not None:
        return []
    found = shutil.which("setpriv")
    return [Finding("setpriv", found is not None, found or "missing", "as root: install the package util-linux")]


def _store(name: str, connect: Callable[[], str]) -> Finding:
    try:
        return Finding(name, True, connect())
    except EnergyIoTError as error:
        return Finding(name, False, error.problem, error.fix)


def _postgres(settings: Settings) -> list[Finding]:
    """The server, who works on its database, and the roles of our user there."""
    from energy_iot.storage.postgres import open_postgres
    from energy_iot.storage.run_lock import lock_holder

    try:
        with open_postgres(settings) as postgres, postgres.connect() as connection:
            row = connection.execute("show server_version").fetchone()
            kind = "embedded" if settings.postgres_dsn is None else f"server, {_encryption(connection)}"
            holder = lock_holder(postgres)
            roles = [] if settings.postgres_dsn is None else [_roles(connection)]
    except EnergyIoTError as error:
        return [Finding("PostgreSQL", False, error.problem, error.fix)]
    return [
        Finding("PostgreSQL", True, f"{row[0] if row else '?'}, {kind}"),
        Finding("run lock", True, f"held by {holder}" if holder else "free"),
        *roles,
    ]


def _encryption(connection: "psycopg.Connection") -> str:
    row = connection.execute("select version from pg_stat_ssl where pid = pg_backend_pid()").fetchone()
    return str(row[0]) if row and row[0] else "not encrypted"


def _roles(connection: "psycopg.Connection") -> Finding:
    from energy_iot.storage.postgres import roles_own_schemas
    from energy_iot.storage.role_names import LOADER, TRANSFORMER
    from energy_iot.storage.roles import roles_of_user

    user, held = connection.info.user, roles_of_user(connection)
    if not roles_own_schemas(connection):
        return Finding("roles", True, f"none: all steps act as {user}; `energy-iot init-db` makes them")
    return Finding(
        "roles",
        {LOADER, TRANSFORMER} <= set(held),
        f"{user} is in {', '.join(held) or 'none of ours'}",
        f"to run the whole pipeline as {user}: energy-iot init-db --user {user}",
    )


def _clickhouse_version(settings: Settings) -> str:
    from energy_iot.storage.clickhouse import open_clickhouse

    with open_clickhouse(settings) as clickhouse:
        return f"{clickhouse.server_version}, {'embedded' if settings.clickhouse_url is None else 'server'}"
