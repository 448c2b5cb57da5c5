"""A Docker engine of the tests' own, and a checkout in which the stack is used as a person uses it."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dotenv import dotenv_values

from tests.waiting import wait_for

ROOT: Final = Path(__file__).resolve().parents[2]
PLACES: Final = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath), "/usr/sbin"])
PROGRAMS: Final = ("dockerd", "docker", "containerd", "debootstrap", "docker-compose", "make", "git")
BASE: Final = "localhost/energy-iot/base:bookworm"
AUTHORITIES: Final = "/etc/ssl/certs/ca-certificates.crt"
PORTS: Final = tuple(
    f"{name}_PORT"
    for name in ("AIRFLOW", "SUPERSET", "GRAFANA", "PROMETHEUS", "ALERTMANAGER", "METRICS", "POSTGRES", "CLICKHOUSE")
)


def missing() -> str | None:
    """Why there can be no engine here, or None."""
    if os.geteuid() != 0:
        return "a Docker engine needs root"
    absent = [name for name in PROGRAMS if shutil.which(name, path=PLACES) is None]
    if absent:
        return f"not installed: {', '.join(absent)}; apt-get install docker.io containerd debootstrap, make install"
    return None


@dataclass(frozen=True)
class Engine:
    """An engine that runs; it touches no rule of the machine's firewall, and its builds use the machine's network.

    Attributes:
        socket: Where it listens.
    """

    socket: Path

    @property
    def variables(self) -> dict[str, str]:
        """The environment of its clients."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("DOCKER_", "COMPOSE_"))}
        return kept | {"PATH": PLACES, "DOCKER_HOST": f"unix://{self.socket}"}

    def docker(self, *arguments: str) -> str:
        done = subprocess.run(["docker", *arguments], env=self.variables, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout


@contextmanager
def running_engine(folder: Path) -> Iterator[Engine]:
    """An engine whose data lie in `folder` while the block runs."""
    engine = Engine(folder / "docker.sock")
    with (folder / "dockerd.log").open("w") as log:
        process = subprocess.Popen(
            [
                "dockerd", "--data-root", folder / "data", "--exec-root", folder / "exec", "--pidfile", folder / "pid",
                "--host", f"unix://{engine.socket}", "--bridge=none", "--iptables=false", "--ip6tables=false",
                "--ip-forward=false",
            ],
            env=os.environ | {"PATH": PLACES}, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            wait_for(lambda: engine.socket.exists() and _answers(engine), "Docker engine", 60)
            yield engine
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)
            subprocess.run(["umount", folder / "exec" / "netns" / "default"], capture_output=True)  # it leaves that
            shutil.rmtree(folder / "data")  # 10 GB


def _answers(engine: Engine) -> bool:
    with suppress(AssertionError):
        return bool(engine.docker("info"))
    return False


def import_base(engine: Engine, folder: Path) -> None:
    """Make an image of a minimal Debian with Python, such as python:3.11-slim-bookworm is, and with our authorities."""
    root = folder / "base"
    subprocess.run(
        ["debootstrap", "--variant=minbase", "--include=ca-certificates,python3,python3-venv,wget", "bookworm", root],
        env=os.environ | {"PATH": PLACES}, check=True, capture_output=True,
    )  # fmt: skip
    shutil.copy(os.path.realpath(AUTHORITIES), f"{root}{AUTHORITIES}")  # of a proxy between us and the packages
    changes = [f"--change=ENV PATH={os.defpath}:/usr/sbin:/sbin:/usr/local/bin", f"--change=ENV PIP_CERT={AUTHORITIES}"]
    with subprocess.Popen(["tar", "-C", root, "-c", "."], stdout=subprocess.PIPE) as archive:
        subprocess.run(
            ["docker", "import", *changes, "-", BASE],
            env=engine.variables, check=True, stdin=archive.stdout, stdout=subprocess.DEVNULL,
        )  # fmt: skip
    assert archive.returncode == 0
    shutil.rmtree(root)


@dataclass(frozen=True)
class Checkout:
    """A fresh clone with a .env, whose commands talk to the engine."""

    folder: Path
    engine: Engine

    @property
    def variables(self) -> dict[str, str]:
        return self.engine.variables | {
            "BASE_IMAGE": BASE,
            "COMPOSE": "docker-compose",
            "COMPOSE_FILE": "docker-compose.yml:tests/compose/override.yml",
            "COMPOSE_PROGRESS": "quiet",
        }

    @property
    def values(self) -> Mapping[str, str]:
        """Of .env."""
        return {name: value or "" for name, value in dotenv_values(self.folder / ".env").items()}

    @property
    def secrets(self) -> Mapping[str, str]:
        """What `make setup` made."""
        return {
            name: value
            for name, value in self.values.items()
            if value and re.search("_(PASSWORD|SECRET|KEY)$", name) and not name.startswith("ENERGY_IOT_")
        }

    def port(self, name: str) -> int:
        return int(self.values[f"{name}_PORT"])

    def make(self, *arguments: str, typed: str = "", timeout: float = 1800) -> str:
        """What a target prints."""
        return self._run(["make", "--no-print-directory", *arguments], timeout, typed)

    def first_line(self, target: str) -> str:
        """Of a target that goes on until it is stopped; empty when it says nothing within a minute."""
        with subprocess.Popen(
            ["timeout", "60", "make", "--no-print-directory", target],
            cwd=self.folder, env=self.variables, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
            start_new_session=True,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            try:
                return process.stdout.readline()
            finally:
                process.terminate()

    def compose(self, *arguments: str, timeout: float = 600) -> str:
        return self._run(["docker-compose", *arguments], timeout)

    def energy_iot(self, *arguments: str) -> str:
        """A command in the stack."""
        return self.compose("run", "--rm", "-T", "pipeline", *arguments)

    def rows(self) -> dict[str, Any]:
        """What the stores hold."""
        found: dict[str, Any] = json.loads(self.energy_iot("status", "--json"))["rows"]
        return found

    def containers(self) -> list[dict[str, Any]]:
        """All that there are, as `docker compose ps` shows them."""
        return [json.loads(line) for line in self.compose("ps", "--all", "--format", "json").splitlines()]

    def _run(self, command: list[str], timeout: float, typed: str = "") -> str:
        done = subprocess.run(
            command, cwd=self.folder, env=self.variables, input=typed, capture_output=True, text=True, timeout=timeout,
        )  # fmt: skip
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-4000:]}\n{done.stderr[-8000:]}"
        return done.stdout


def clone(engine: Engine, folder: Path) -> Checkout:
    """What git knows of this checkout, as it lies here, and a .env with free ports."""
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, tracked.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    checkout = Checkout(folder, engine)
    ports = dict(zip(PORTS, _free_ports(len(PORTS)), strict=True))
    example = (folder / ".env.example").read_text()
    (folder / ".env").write_text(re.sub(r"^(\w+)=$", lambda m: f"{m[1]}={ports.get(m[1], '')}", example, flags=re.M))
    checkout.make("setup")
    return checkout


def _free_ports(count: int) -> list[int]:
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()
