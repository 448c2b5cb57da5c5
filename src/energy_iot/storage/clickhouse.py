"""ClickHouse behind one interface: chDB (the same engine, in process) under the home folder, or a server by URL.

Only one process can open the embedded folder. While the front of `energy-iot serve clickhouse` runs, that process has
it, and all others ask the front.
"""

import errno
import fcntl
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, parse_qs, urlsplit

import clickhouse_connect
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError
from urllib3.exceptions import HTTPError, NameResolutionError

from energy_iot.errors import StorageError, StoreUnavailableError
from energy_iot.serving.front_file import HOST, WRITER, find_front
from energy_iot.settings import Settings

DEFAULT_PORTS: Final = {"http": 8123, "https": 8443}
VERIFY_VALUES: Final = frozenset({"true", "1", "false", "0", "proxy"})
CONNECT_TIMEOUT_SECONDS: Final = 10
ANSWER_TIMEOUT_SECONDS: Final = 600  # an insert or a merge answers when it is done
# Error codes of ClickHouse. 3 of the first kind say that it is busy, the others that it or its network goes away.
UNAVAILABLE_CODES: Final = frozenset({202, 209, 210, 236, 279, 394, 439})
ACCESS_CODES: Final = frozenset({192, 193, 194, 497, 516})
UNAVAILABLE_STATUS: Final = re.compile(r"HTTP status (429|502|503|504)")
NO_SPACE: Final = re.compile(rf"no space left on device|errno: {errno.ENOSPC}\b|NOT_ENOUGH_SPACE", re.IGNORECASE)
TLS: Final = re.compile(r"certificate|\bssl\b|tls", re.IGNORECASE)
LONGEST_REASON: Final = 300


@contextmanager
def open_clickhouse(settings: Settings) -> Iterator[Client]:
    """A clickhouse-connect client whose database exists, closed when the block ends.

    Raises:
        StoreUnavailableError: The server cannot be reached, refuses connections, or went away; names host and port.
        StorageError: It does not let us in, its disk is full, or another process holds the embedded folder.
    """
    with _storage_errors(settings):
        client = _connect(settings)
        try:
            client.command(f"create database if not exists {settings.clickhouse_database}")
            client.database = settings.clickhouse_database
            yield client
        finally:
            client.close()


def clickhouse_place(settings: Settings) -> str:
    """Where ClickHouse is: the embedded folder, or host and port."""
    if settings.clickhouse_url is None:
        return str(settings.home / "clickhouse")
    address = _address(settings.clickhouse_url.get_secret_value())
    return f"{address.hostname}:{address.port or DEFAULT_PORTS[address.scheme]}"


def _connect(settings: Settings) -> Client:
    if settings.clickhouse_url is not None:
        return _connect_http(settings.clickhouse_url.get_secret_value())
    front = find_front(settings.home)
    if front is not None:
        return _connect_http(front.url(WRITER))
    folder = settings.home / "clickhouse"
    folder.mkdir(parents=True, exist_ok=True)
    # This process ends soon: what it drops, it removes itself. A server does it minutes later.
    options: dict[str, Any] = {"settings": {"database_atomic_wait_for_drop_and_detach_synchronously": 1}}
    return clickhouse_connect.get_client(interface="chdb", path=str(folder), **options)


def _connect_http(url: str) -> Client:
    """A client for the URL; its query parameters are options of clickhouse-connect: ca_cert, verify, client_cert ..."""
    address = _address(url)
    verify = parse_qs(address.query).get("verify", ["true"])[0]
    if verify.lower() not in VERIFY_VALUES:  # the library takes any other word for false
        raise StorageError(f"clickhouse_url: verify={verify} is neither true nor false", fix="write one of them")
    return clickhouse_connect.get_client(
        interface=address.scheme,  # the library takes it from the port number otherwise
        dsn=url,
        port=address.port or DEFAULT_PORTS[address.scheme],
        connect_timeout=CONNECT_TIMEOUT_SECONDS,
        send_receive_timeout=ANSWER_TIMEOUT_SECONDS,
        autogenerate_session_id=False,  # nothing is kept between statements
    )


def _address(url: str) -> SplitResult:
    try:
        address = urlsplit(url)
        usable = address.scheme in DEFAULT_PORTS and address.hostname and address.port != 0
    except ValueError:  # its text may hold a part of the password
        usable = False
    if not usable:
        raise StorageError(
            "clickhouse_url is not the address of a ClickHouse server",
            fix="write it as http://user:password@host:8123 or https://user:password@host:8443, "
            "and / ? # @ : in the password as %2F %3F %23 %40 %3A",
        )
    return address


@contextmanager
def _storage_errors(settings: Settings) -> Iterator[None]:
    """Turn what the client raises in the block into our errors."""
    try:
        yield
    except (ClickHouseError, HTTPError) as error:
        raise _storage_error(settings, error) from error


def _storage_error(settings: Settings, error: Exception) -> StorageError:
    causes = list(_causes(error))
    over_network = any(isinstance(cause, HTTPError) for cause in causes)
    place, reason = _place_told(settings), _reason(causes[-1] if over_network else error)
    told = f"ClickHouse at {place}: {reason}"
    code = getattr(error, "code", None)
    if NO_SPACE.search(str(error)):
        return StorageError(
            f"ClickHouse at {place} ran out of space: {reason}",
            fix="free space on that disk, then type the same command again; the published tables are as before",
        )
    if code in ACCESS_CODES:
        return StorageError(told, fix="check user and password in ENERGY_IOT_CLICKHOUSE_URL, and what the user may do")
    if over_network and TLS.search(reason):
        return StorageError(
            told,
            fix="check http or https, and name the authority that signed its certificate: "
            "ENERGY_IOT_CLICKHOUSE_URL=https://...?ca_cert=/path/ca.pem",
        )
    if any(isinstance(cause, NameResolutionError) for cause in causes):
        return StorageError(told, fix="no host has that name here: check it in ENERGY_IOT_CLICKHOUSE_URL")
    if over_network or code in UNAVAILABLE_CODES or UNAVAILABLE_STATUS.search(str(error)):
        return StoreUnavailableError(
            told, fix="check that it runs and can be reached, then type the same command again"
        )
    if settings.clickhouse_url is None and code is None:
        return folder_error(settings.home / "clickhouse", reason)
    return StorageError(told, fix="`energy-iot doctor` checks the store")


def folder_error(folder: Path, reason: str) -> StorageError:
    """Why the embedded folder could not be opened, and who holds it, if somebody does."""
    holder = _folder_holder(folder)
    if holder is None:
        return StorageError(
            f"the embedded ClickHouse in {folder} does not open: {reason}",
            fix="check that the folder can be written and the disk has space; `energy-iot doctor` tells more",
        )
    return StorageError(
        f"the embedded ClickHouse in {folder} is held by {holder}",
        fix="one process can open it: wait for that run to end, or stop what holds it; "
        "while `energy-iot serve clickhouse` runs, others reach it through that",
    )


def _place_told(settings: Settings) -> str:
    """For messages: the front's address too, when that is what was asked."""
    place = clickhouse_place(settings)
    if settings.clickhouse_url is not None:
        return place
    try:
        front = find_front(settings.home)
    except StoreUnavailableError:
        return place
    return f"{HOST}:{front.port} (front of {place})" if front else place


def _folder_holder(folder: Path) -> str | None:
    """The process that has the embedded folder open, as words; None when none has."""
    status = folder / "status"
    if not status.exists():
        return None
    with status.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = re.search(r"PID: (\d+)", file.read())
            return f"process {pid[1]}, an energy-iot run or query" if pid else "another process"
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what led to it, the first cause last; urllib3 keeps some as a reason."""
    cause: object = error
    while isinstance(cause, BaseException):
        yield cause
        cause = getattr(cause, "reason", None) or cause.__cause__ or cause.__context__


def _reason(error: BaseException) -> str:
    """The first line, without what clickhouse-connect puts around the server's own words."""
    text = re.sub(r"^Received ClickHouse exception, code: \d+, server response: ", "", str(error).strip())
    text = re.sub(r"(?: \(version [^()]+(?:\([^()]*\))?\))?(?: \(for url [^)]*\))?$", "", text)
    return text.splitlines()[0][:LONGEST_REASON] if text else type(error).__name__
