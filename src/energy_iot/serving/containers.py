"""What the containers of docker-compose.yml run: the programs and files of `energy-iot serve`, a container each.

A program takes the place of the process that prepared it, so that signals and output are its own.
"""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NoReturn

from pydantic import SecretStr

from energy_iot.errors import StorageError, UsageError
from energy_iot.orchestration.airflow_servers import (
    PROCESSES,
    airflow_home,
    common_environment,
    installed_program,
    process_command,
    write_passwords,
)
from energy_iot.serving.monitoring import INTERVAL_SECONDS
from energy_iot.serving.monitoring_config import write_configuration
from energy_iot.serving.superset_server import (
    environment_of,
    prepare_command,
    require_installed,
    superset_home,
    web_command,
    write_state,
)
from energy_iot.settings import ENV_PREFIX, Settings

ANY_ADDRESS: Final = "0.0.0.0"  # noqa: S104  # of the container; the compose file says which ports are published
MACHINE: Final = "energy-iot"  # what series are known by: a container's own name is new each time
GROUP_READS: Final = 0o640


def run_airflow(settings: Settings, arguments: Sequence[str]) -> NoReturn:
    """Become a program of Airflow: one of its three processes, or any command such as `db migrate`.

    Args:
        settings: Name Airflow's database, its port and the password of its user.
        arguments: Of `airflow`. The variables that differ between installations are those of the container.

    Raises:
        UsageError: Airflow is not installed, or a setting is missing.
    """
    program, name = installed_program(), arguments[0]
    environment = common_environment(settings, _required(settings.airflow_database_url, "AIRFLOW_DATABASE_URL"))
    airflow_home(settings).mkdir(parents=True, exist_ok=True)
    command = [str(program), *arguments]
    if name in PROCESSES:
        command = process_command(program, name, host=ANY_ADDRESS, port=settings.airflow_port)
    if name == "api-server":
        write_passwords(settings, _required(settings.airflow_admin_password, "AIRFLOW_ADMIN_PASSWORD"))
    _become(command, environment)


def run_superset(settings: Settings) -> NoReturn:
    """Prepare Superset's database, users and dashboards, then become its web server.

    Raises:
        UsageError: Superset is not installed, or a setting is missing.
        StorageError: Its database cannot be prepared.
    """
    require_installed(settings)
    home = superset_home(settings)
    home.mkdir(parents=True, exist_ok=True)
    _required(settings.superset_secret_key, "SUPERSET_SECRET_KEY")
    write_state(settings, _required(settings.superset_database_url, "SUPERSET_DATABASE_URL"))
    environment = environment_of(home)
    if subprocess.run(prepare_command(settings), env=environment).returncode:
        raise StorageError("Superset cannot be prepared", fix="read what it says above")
    _become(web_command(settings, host=ANY_ADDRESS, port=settings.superset_port), environment)


def write_monitoring(settings: Settings, folder: Path, targets: Mapping[str, str]) -> None:
    """Write what Prometheus, Alertmanager and Grafana are given; their users read it as members of our group.

    Args:
        settings: Name who is told, and where people read the runbook.
        folder: Where to.
        targets: host:port by job of monitoring/prometheus/prometheus.yml.

    Raises:
        UsageError: Prometheus's configuration needs Alertmanager and was not told where it is.
    """
    if "alertmanager" not in targets:
        raise UsageError("no target alertmanager", fix="--target alertmanager=HOST:PORT")
    write_configuration(folder, settings, targets, machine=MACHINE, interval_seconds=INTERVAL_SECONDS)
    (folder / "alertmanager.yml").chmod(GROUP_READS)


def read_targets(texts: Sequence[str]) -> dict[str, str]:
    """Targets by job, from texts such as prometheus=prometheus:9090.

    Raises:
        UsageError: One is not written so.
    """
    pairs = [text.partition("=") for text in texts]
    if wrong := [text for text, (job, _, target) in zip(texts, pairs, strict=True) if not job or ":" not in target]:
        raise UsageError(f"no target: {', '.join(wrong)}", fix="write it as JOB=HOST:PORT")
    return {job: target for job, _, target in pairs}


def _required(secret: SecretStr | None, name: str) -> str:
    if secret is None:
        raise UsageError(f"{ENV_PREFIX}{name} is not set", fix="start it with docker-compose.yml, which sets it")
    return secret.get_secret_value()


def _become(command: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    os.execve(command[0], list(command), dict(environment))  # noqa: S606  # a list of our own making
