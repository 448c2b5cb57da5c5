"""Monitoring without containers: the pipeline's endpoint, Prometheus, Alertmanager and exporters, run by one command.

All listen on the loopback address. What needs a program that is not installed is left out, and told.
"""

import os
import platform
import secrets
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import httpx
import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from energy_iot.errors import UsageError
from energy_iot.serving.grafana import IMAGE, container_arguments, container_environment, find_docker_with_image
from energy_iot.serving.local_server import (
    HOST,
    Processes,
    alone,
    announced,
    asked_to_stop,
    free_port,
    read_announced,
    running_processes,
    wait_until_ready,
)
from energy_iot.serving.monitoring_config import collectd_config, write_configuration
from energy_iot.settings import ENV_PREFIX, Settings
from energy_iot.storage.postgres import Postgres, open_postgres

INTERVAL_SECONDS: Final = 15
START_SECONDS: Final = 60  # a target that is down for longer is not just starting
RETENTION: Final = "90d"
READER: Final = "energy_monitoring"  # in the embedded server: reads tables and statistics, nothing else
MORE_PLACES: Final = "/usr/sbin:/usr/local/sbin"  # often not on the PATH of users


@dataclass(frozen=True)
class Program:
    """A program of others.

    Attributes:
        names: Its command, with the prefix of Debian and without.
        package: Debian's package.
        gives: What is there with it.
    """

    names: tuple[str, ...]
    package: str
    gives: str

    def find(self) -> str | None:
        """Its path, if it is installed."""
        places = os.pathsep.join([os.environ.get("PATH", os.defpath), MORE_PLACES])
        return next(filter(None, (shutil.which(name, path=places) for name in self.names)), None)


PROGRAMS: Final = {
    "prometheus": Program(("prometheus",), "prometheus", "metrics and alert rules"),
    "alertmanager": Program(("prometheus-alertmanager", "alertmanager"), "prometheus-alertmanager", "messages"),
    "node": Program(
        ("prometheus-node-exporter", "node_exporter"), "prometheus-node-exporter", "processor, memory, disk"
    ),
    "postgres": Program(
        ("prometheus-postgres-exporter", "postgres_exporter"), "prometheus-postgres-exporter", "PostgreSQL"
    ),
    "airflow": Program(("collectd",), "collectd-core libmicrohttpd12 libprotobuf-c1", "Airflow"),
}
NEEDED: Final = ("prometheus", "alertmanager")


@dataclass(frozen=True, repr=False)  # holds passwords
class MonitoringAddress:
    """Where the programs that run listen.

    Attributes:
        ports: By job; those of prometheus, alertmanager and grafana have pages.
        interval_seconds: Between two scrapes.
        database: How PostgreSQL is reached by who only reads; None where no way is set.
        grafana_password: Of its user admin, made anew at each start; None without Grafana.
    """

    ports: Mapping[str, int]
    interval_seconds: int
    database: str | None = None
    grafana_password: str | None = None

    def url(self, job: str) -> str:
        """Of a program's pages."""
        return f"http://{HOST}:{self.ports[job]}"


@dataclass(frozen=True)
class Started:
    """What a person is told once all is up.

    Attributes:
        address: Where everything listens.
        targets: Health by job: up, down or unknown.
        rules: How many rules Prometheus has loaded.
        missing: What is left out, and what to type to get it.
    """

    address: MonitoringAddress
    targets: Mapping[str, str]
    rules: int
    missing: tuple[str, ...]


def monitoring_home(settings: Settings) -> Path:
    """The folder of configuration, data and logs."""
    return settings.home / "monitoring"


def read_address(settings: Settings) -> MonitoringAddress:
    """The monitoring that runs for this home.

    Raises:
        UsageError: None does.
    """
    return MonitoringAddress(**read_announced(monitoring_home(settings), "monitoring", start="make monitoring"))


def serve(settings: Settings, *, interval_seconds: int = INTERVAL_SECONDS, started: Callable[[Started], None]) -> None:
    """Run all until SIGTERM or SIGINT, which stop it within seconds.

    Args:
        settings: Name the home, the ports and who is told.
        interval_seconds: Between two scrapes, and between two evaluations of the rules.
        started: Called once Prometheus has looked at each target.

    Raises:
        UsageError: Prometheus or Alertmanager is not installed, or the mail server's address is of no use.
        StorageError: A port is taken, or a program ended by itself.
    """
    found = find_programs()
    home = monitoring_home(settings)
    with (
        asked_to_stop() as asked,
        alone(home, "monitoring"),
        ExitStack() as stack,
    ):
        database = stack.enter_context(_database(settings))
        plan = _plan(settings, found, database, interval_seconds)
        stack.enter_context(announced(home, asdict(plan.address)))
        with running_processes(plan.commands, plan.environment, home) as processes:
            seen = _look_around(processes, plan.address, asked)
            if seen is not None:
                started(Started(plan.address, *seen, plan.missing))
            while not asked.wait(1):
                processes.refuse_ended()


def find_programs() -> dict[str, str]:
    """The installed programs, by job.

    Raises:
        UsageError: One that all else needs is not installed.
    """
    found = {job: path for job, program in PROGRAMS.items() if (path := program.find())}
    if any(job not in found for job in NEEDED):
        absent = " ".join(program.package for job, program in PROGRAMS.items() if job not in found)
        raise UsageError(
            "Prometheus or Alertmanager is not installed", fix=f"sudo apt-get install --no-install-recommends {absent}"
        )
    return found


# --- what is started ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Plan:
    """Commands by name, the environment of all, and what is left out."""

    address: MonitoringAddress
    commands: Mapping[str, list[str]]
    environment: Mapping[str, str]
    missing: tuple[str, ...]


def _plan(settings: Settings, found: Mapping[str, str], database: str | None, interval: int) -> _Plan:
    """Choose ports, write the configuration, and say what to start."""
    home = monitoring_home(settings)
    missing = [
        f"{program.gives}: sudo apt-get install {program.package}"
        for job, program in PROGRAMS.items()
        if job not in found
    ]
    if database is None and "postgres" in found:
        missing.append(f"PostgreSQL: set {ENV_PREFIX}MONITORING_POSTGRES_DSN")
    ports = {
        "pipeline": free_port(settings.metrics_port),
        "prometheus": free_port(settings.prometheus_port),
        "alertmanager": free_port(settings.alertmanager_port),
    }
    ports |= {job: free_port(0) for job in ("node", "postgres", "airflow") if job in found}
    if database is None:
        ports.pop("postgres", None)
    targets = {job: f"{HOST}:{port}" for job, port in ports.items()}
    if settings.clickhouse_metrics_address:
        targets["clickhouse"] = settings.clickhouse_metrics_address
    write_configuration(home, settings, targets, machine=platform.node(), interval_seconds=interval)
    if "airflow" in ports:
        (home / "collectd.conf").write_text(
            collectd_config(
                home, statsd_port=settings.airflow_statsd_port, port=ports["airflow"], interval_seconds=interval
            )
        )
    password = None
    commands = {
        "pipeline": [
            sys.executable, "-m", "energy_iot", "--home", str(settings.home), "metrics", "serve",
            "--port", str(ports["pipeline"]),
        ],
        "prometheus": [
            found["prometheus"], f"--config.file={home / 'prometheus.yml'}",
            f"--storage.tsdb.path={home / 'prometheus_data'}", f"--storage.tsdb.retention.time={RETENTION}",
            f"--web.listen-address={targets['prometheus']}", "--log.level=warn",
        ],
        "alertmanager": [
            found["alertmanager"], f"--config.file={home / 'alertmanager.yml'}",
            f"--storage.path={home / 'alertmanager_data'}", f"--web.listen-address={targets['alertmanager']}",
            "--cluster.listen-address=", "--log.level=warn",
        ],
    }  # fmt: skip
    for job, arguments in {
        "node": [f"--web.listen-address={targets.get('node')}", "--log.level=warn"],
        # the statistics of PostgreSQL 17 and newer have other columns than that collector asks for
        "postgres": [f"--web.listen-address={targets.get('postgres')}", "--log.level=warn", "--no-collector.bgwriter"],
        "airflow": ["-f", "-C", str(home / "collectd.conf")],
    }.items():
        if job in ports:
            commands[Path(found[job]).name] = [found[job], *arguments]
    environment = os.environ | ({"DATA_SOURCE_NAME": database} if database else {})
    if (docker := find_docker_with_image()) is None:
        missing.append(f"Grafana: docker pull {IMAGE}")
    else:
        ports["grafana"] = free_port(settings.grafana_port)
        password = secrets.token_urlsafe(16)
        of_container = container_environment(ports, password, database)
        commands["grafana"] = [docker, *container_arguments(of_container, database, dashboards=home / "dashboards")]
        environment |= of_container
    return _Plan(MonitoringAddress(ports, interval, database, password), commands, environment, tuple(sorted(missing)))


@contextmanager
def _database(settings: Settings) -> Iterator[str | None]:
    """How dashboards and postgres_exporter reach PostgreSQL, as a user who only reads; None where none is set.

    The embedded server runs as long as the block.
    """
    if settings.postgres_dsn is not None:
        dsn = settings.monitoring_postgres_dsn
        yield dsn.get_secret_value() if dsn else None
        return
    with open_postgres(settings) as postgres:
        _make_reader(postgres)
        known = postgres.parameters
        yield make_conninfo(host=known["host"], dbname=known["dbname"], user=READER, sslmode="disable")


def _make_reader(postgres: Postgres) -> None:
    with postgres.connect(autocommit=True) as connection:
        with suppress(psycopg.errors.DuplicateObject):
            connection.execute(sql.SQL("create role {} login").format(sql.Identifier(READER)))
        connection.execute(sql.SQL("grant pg_read_all_data, pg_monitor to {}").format(sql.Identifier(READER)))


# --- what is seen ---------------------------------------------------------------------------------------------------


def _look_around(
    processes: Processes, address: MonitoringAddress, asked: threading.Event
) -> tuple[dict[str, str], int] | None:
    """Wait until Prometheus has looked at each target; health by job and the number of rules, None if asked to stop.

    A target may well be down: then it says so, and the alert will.
    """
    patient_until = time.monotonic() + START_SECONDS
    health: dict[str, str] = {}

    def is_settled() -> bool:
        targets = client.get("targets").raise_for_status().json()["data"]["activeTargets"]
        health.update({target["labels"]["job"]: target["health"] for target in targets})
        states = set(health.values())
        return states == {"up"} or (time.monotonic() > patient_until and "unknown" not in states)

    with httpx.Client(base_url=f"{address.url('prometheus')}/api/v1", timeout=5) as client:
        if not wait_until_ready("Prometheus", is_settled, processes, asked):
            return None
        groups = client.get("rules").raise_for_status().json()["data"]["groups"]
    return health, sum(len(group["rules"]) for group in groups)
