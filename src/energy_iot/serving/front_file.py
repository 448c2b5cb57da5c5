"""Where the front of the embedded ClickHouse says how to reach it, and how others know that it lives.

The front holds a lock as long as it runs; the kernel drops the lock of a killed process, so a file that it left is
known to be stale.
"""

import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Final
from urllib.parse import quote

from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_fixed

from energy_iot.errors import StorageError, StoreUnavailableError

FILE_NAME: Final = "clickhouse_http.json"
LOCK_NAME: Final = ".clickhouse_http.lock"
HOST: Final = "127.0.0.1"
WRITER: Final = "pipeline"
READER: Final = "dashboards"


@dataclass(frozen=True, repr=False)  # holds passwords
class FrontAddress:
    """How to reach a running front.

    Attributes:
        port: On the loopback address.
        pid: Its process.
        passwords: By user: `pipeline` may do anything, `dashboards` may read.
    """

    port: int
    pid: int
    passwords: dict[str, str]

    def url(self, user: str) -> str:
        """URL with the user's password, as clickhouse-connect and SQLAlchemy (clickhousedb://) take it."""
        return f"http://{user}:{quote(self.passwords[user], safe='')}@{HOST}:{self.port}"


def find_front(home: Path) -> FrontAddress | None:
    """The front that runs on this home; None when there is none.

    Raises:
        StoreUnavailableError: It is just starting.
    """
    lock_file = home / LOCK_NAME
    if not lock_file.exists():
        return None
    with lock_file.open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            pass
        else:
            return None
    try:
        return FrontAddress(**json.loads((home / FILE_NAME).read_text()))
    except FileNotFoundError as error:
        raise StoreUnavailableError(
            f"the front of the embedded ClickHouse in {home} is starting or stopping",
            fix="try again in a moment",
        ) from error


@contextmanager
def hold_front(home: Path) -> Iterator[None]:
    """Be the one front of this home while the block runs; what a killed one left is removed.

    Raises:
        StorageError: Another front runs on this home.
    """
    home.mkdir(parents=True, exist_ok=True)
    with (home / LOCK_NAME).open("w") as lock:
        # whoever asks whether a front runs holds the lock for an instant
        waiting = Retrying(retry=retry_if_result(lambda got: not got), stop=stop_after_delay(1), wait=wait_fixed(0.05))
        try:
            waiting(_try_lock, lock)
        except RetryError as error:
            raise StorageError(
                f"a front of the embedded ClickHouse already runs on {home}{_told_by(home)}",
                fix="use that one, or stop it first; `energy-iot doctor` tells more",
            ) from error
        withdraw(home)
        try:
            yield
        finally:
            withdraw(home)


def announce(home: Path, address: FrontAddress) -> None:
    """Write the file, for its owner only; whole or not at all."""
    descriptor, name = tempfile.mkstemp(dir=home, prefix=f".{FILE_NAME}.")  # mode 600
    with os.fdopen(descriptor, "w") as file:
        json.dump(asdict(address), file)
    Path(name).replace(home / FILE_NAME)


def withdraw(home: Path) -> None:
    """Remove the file."""
    (home / FILE_NAME).unlink(missing_ok=True)


def _try_lock(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _told_by(home: Path) -> str:
    try:
        address = FrontAddress(**json.loads((home / FILE_NAME).read_text()))
    except FileNotFoundError:
        return ""
    return f" (process {address.pid}, port {address.port})"
