"""What tests of real servers have in common: `energy-iot serve NAME` while a block runs, and waiting for things."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil

from energy_iot.settings import Settings, load_settings

T = TypeVar("T")


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


def wait_for(find: Callable[[], T | None], what: str, seconds: float = 180) -> T:
    """What `find` finds, as soon as it finds something."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := find():
            return found
        time.sleep(0.2)
    raise AssertionError(f"no {what} within {seconds:.0f} s")


def processes_of(server: "subprocess.Popen[str]") -> list[psutil.Process]:
    """All that it started, and these in turn."""
    return psutil.Process(server.pid).children(recursive=True)


def is_alive(process: psutil.Process) -> bool:
    """Whether it runs; nobody may have asked yet how it ended."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
