"""Grafana in Docker, where its image is: how the container is run, and what its provisioning files are filled with."""

import shutil
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from psycopg.conninfo import conninfo_to_dict

from energy_iot.serving.local_server import HOST
from energy_iot.serving.monitoring_config import MONITORING_DIR

IMAGE: Final = "grafana/grafana:12.2.0"
DOCKER_SECONDS: Final = 10


def find_docker_with_image() -> str | None:
    """Docker's command, if its engine answers and has the image: nothing is downloaded unasked."""
    docker = shutil.which("docker")
    if docker is None:
        return None
    with suppress(OSError, subprocess.TimeoutExpired):
        asked = subprocess.run([docker, "image", "inspect", IMAGE], capture_output=True, timeout=DOCKER_SECONDS)
        return docker if asked.returncode == 0 else None
    return None


def container_arguments(environment: Mapping[str, str], database: str | None, *, dashboards: Path) -> list[str]:
    """Arguments of `docker` that run Grafana on this machine's loopback address, with our data sources and dashboards.

    Args:
        environment: Of `container_environment`; passed on by name, so that no value stands in a list of processes.
        database: How PostgreSQL is reached; where by a socket, the container sees that, as its owner.
        dashboards: Folder of the dashboards.
    """
    provisioning = MONITORING_DIR / "grafana" / "provisioning"
    volumes = {provisioning: "/etc/grafana/provisioning", dashboards: "/etc/grafana/dashboards"}
    user: list[str] = []
    socket_dir = Path(str(conninfo_to_dict(database or "").get("host") or ""))
    if socket_dir.is_absolute():
        volumes[socket_dir] = str(socket_dir)
        user = ["--user", str(socket_dir.stat().st_uid)]
    return [
        "run", "--rm", "--network", "host", "--tmpfs", "/var/lib/grafana:mode=1777", *user,
        *[argument for source, target in volumes.items() for argument in ("--volume", f"{source}:{target}:ro")],
        *[argument for name in sorted(environment) for argument in ("--env", name)],
        IMAGE,
    ]  # fmt: skip


def container_environment(ports: Mapping[str, int], password: str, database: str | None) -> dict[str, str]:
    """Variables of Grafana, and those that monitoring/grafana/provisioning names."""
    known = {name: str(value) for name, value in conninfo_to_dict(database or "").items() if value is not None}
    host = known.get("host", "localhost")
    return {
        "GF_SERVER_HTTP_ADDR": HOST,
        "GF_SERVER_HTTP_PORT": str(ports["grafana"]),
        "GF_SECURITY_ADMIN_PASSWORD": password,
        "GF_ANALYTICS_REPORTING_ENABLED": "false",
        "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
        "PROMETHEUS_URL": f"http://{HOST}:{ports['prometheus']}",
        "POSTGRES_ADDRESS": host if host.startswith("/") else f"{host}:{known.get('port', '5432')}",
        "POSTGRES_DATABASE": known.get("dbname", ""),
        "POSTGRES_USER": known.get("user", ""),
        "POSTGRES_PASSWORD": known.get("password", ""),
        "POSTGRES_SSLMODE": known.get("sslmode", "require"),
    }
