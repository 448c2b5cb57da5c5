"""What the servers have in common that a command runs on this machine: signals, one at a time, addresses, processes."""

import fcntl
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Any, Final

import httpx

from energy_iot.errors import StorageError, UsageError

HOST: Final = "127.0.0.1"
POLITE_SECONDS: Final = 10  # a first request to end can be lost while a program starts
READY_SECONDS: Final = 180
POLL_SECONDS: Final = 0.5
LOCK_FILE: Final = ".lock"
ADDRESS_FILE: Final = "address.json"


@dataclass(frozen=True)
class LocalAddress:
    """Where a server is.

    Attributes:
        port: On the loopback address.
    """

    port: int

    @property
    def url(self) -> str:
        """Of its pages and its interface."""
        return f"http://{HOST}:{self.port}"


@contextmanager
def asked_to_stop() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set while the block runs."""
    asked = threading.Event()

    def stop(_: int, __: FrameType | None) -> None:
        asked.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def alone(home: Path, name: str) -> Iterator[None]:
    """Be the only one that serves in a folder while the block runs; the kernel drops the lock of a killed process.

    Raises:
        StorageError: Another process holds it.
    """
    home.mkdir(parents=True, exist_ok=True)
    with (home / LOCK_FILE).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StorageError(f"{name} already runs on {home}", fix="use that one, or stop it first") from error
        yield


@contextmanager
def announced(home: Path, address: Mapping[str, Any]) -> Iterator[None]:
    """Tell other commands of this user how the server of this folder is reached, while the block runs."""
    write_secret(home / ADDRESS_FILE, json.dumps(address))
    try:
        yield
    finally:
        (home / ADDRESS_FILE).unlink(missing_ok=True)


def read_announced(home: Path, name: str, *, start: str) -> dict[str, Any]:
    """What the server that runs in a folder announced.

    Args:
        home: The folder.
        name: Of the server, for people.
        start: What to type to start it.

    Raises:
        UsageError: None runs there.
    """
    file = home / ADDRESS_FILE
    if not (_is_held(home / LOCK_FILE) and file.is_file()):
        raise UsageError(f"no {name} runs for this home", fix=f"start it in another terminal: {start}")
    address: dict[str, Any] = json.loads(file.read_text())
    return address


def _is_held(lock_file: Path) -> bool:
    if not lock_file.exists():
        return False
    with lock_file.open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def free_port(port: int, host: str = HOST) -> int:
    """The port, on an address of this machine; any free one for 0.

    Raises:
        StorageError: It is taken.
    """
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise StorageError(
                f"port {port} is taken: {error.strerror}", fix="choose another --port, or 0 for any"
            ) from error
        return int(listener.getsockname()[1])


def write_secret(path: Path, text: str) -> None:
    """Write a file that only its owner reads."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


class Processes:
    """Programs that run together, each with a log file and a group of its own, so that no child stays behind.

    Attributes:
        logs: Folder of their output.
    """

    def __init__(self, commands: Mapping[str, Sequence[str]], environment: Mapping[str, str], logs: Path) -> None:
        self.logs = logs
        self._files: list[IO[bytes]] = []
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        try:
            for name, command in commands.items():
                self._files.append(self.log_file(name).open("ab"))
                self._running[name] = subprocess.Popen(
                    command, env=environment, stdout=self._files[-1], stderr=subprocess.STDOUT, start_new_session=True
                )
        except BaseException:
            self.stop()
            raise

    def log_file(self, name: str) -> Path:
        """Where a program's output goes."""
        return self.logs / f"{name}.log"

    def refuse_ended(self) -> None:
        """Raise StorageError when one has ended by itself."""
        for name, process in self._running.items():
            if process.poll() is not None:
                raise StorageError(f"{name} ended by itself", fix=f"see {self.log_file(name)}")

    def stop(self) -> None:
        """End them and their children: asked twice, then killed."""
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
            self._send(number)
            if self._all_ended_within(POLITE_SECONDS):
                break
        self._send(signal.SIGKILL)  # what one left behind in its group
        for file in self._files:
            file.close()

    def _all_ended_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if all(process.poll() is not None for process in self._running.values()):
                return True
            time.sleep(0.1)
        return False

    def _send(self, number: signal.Signals) -> None:
        for process in self._running.values():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)


@contextmanager
def running_processes(
    commands: Mapping[str, Sequence[str]], environment: Mapping[str, str], logs: Path
) -> Iterator[Processes]:
    """Run programs while the block runs.

    Args:
        commands: Program and arguments, by a name for people.
        environment: Of all of them.
        logs: Folder of their output, a file each.
    """
    processes = Processes(commands, environment, logs)
    try:
        yield processes
    finally:
        processes.stop()


def wait_until_ready(
    name: str, answers: Callable[[], bool], processes: Processes, asked: threading.Event, seconds: float = READY_SECONDS
) -> bool:
    """Wait until a server answers as it should; False when asked to stop before.

    Args:
        name: Of the server, for people.
        answers: Asks it; an error of HTTP means that it does not answer yet.
        processes: Its own, which must go on running.
        asked: To stop.
        seconds: How long it may take.

    Raises:
        StorageError: It takes longer, or one of its processes ended by itself.
    """
    deadline = time.monotonic() + seconds
    while not asked.wait(POLL_SECONDS):
        processes.refuse_ended()
        with suppress(httpx.HTTPError):
            if answers():
                return True
        if time.monotonic() > deadline:
            raise StorageError(f"{name} is not ready after {seconds:.0f} s", fix=f"see the logs in {processes.logs}")
    return False
