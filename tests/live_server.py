"""What tests of real servers have in common: `energy-iot serve NAME` while a block runs."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from energy_iot.settings import Settings, load_settings


@dataclass(frozen=True)
class LiveServer:
    """A server that runs.

    Attributes:
        home: Of the pipeline.
        process: `energy-iot serve NAME`.
        said: What that printed until it was ready.
    """

    home: Path
    process: "subprocess.Popen[str]"
    said: str

    @property
    def settings(self) -> Settings:
        return load_settings(home=self.home)


def command(home: Path, *arguments: object) -> list[str]:
    return [sys.executable, "-m", "energy_iot", "--home", str(home), *map(str, arguments)]


@contextmanager
def serving(
    home: Path, name: str, environment: Mapping[str, str] = os.environ, options: Sequence[object] = ("--port", 0)
) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """Serve, on a free port; gives the process and what it printed. Ended as a service manager ends it."""
    process = subprocess.Popen(
        command(home, "serve", name, *options), stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    said = ""
    try:
        while "Ctrl-C stops it" not in said:
            line = process.stdout.readline()
            assert line, f"{name} did not start; {logs(home / name)}"
            said += line
        yield process, said
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=90)


def logs(folder: Path) -> str:
    found = sorted(folder.glob("*.log"))
    return "\n".join(f"--- {file.name}\n{file.read_text()[-2000:]}" for file in found)


def processes_of(server: "subprocess.Popen[str]") -> list[psutil.Process]:
    """All that it started, and these in turn."""
    return psutil.Process(server.pid).children(recursive=True)


def is_alive(process: psutil.Process) -> bool:
    """Whether it runs; nobody may have asked yet how it ended."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
