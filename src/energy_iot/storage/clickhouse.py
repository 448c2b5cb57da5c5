"""ClickHouse behind one interface: chDB (the same engine, in process) under the home folder, or a server by URL."""

from collections.abc import Iterator
from contextlib import contextmanager

import clickhouse_connect
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from energy_iot.errors import StorageError
from energy_iot.settings import Settings


@contextmanager
def open_clickhouse(settings: Settings) -> Iterator[Client]:
    """A clickhouse-connect client whose database exists, closed when the block ends.

    The embedded engine holds its folder alone: one process at a time.

    Raises:
        StorageError: It cannot be reached, refuses, or another process holds the embedded folder.
    """
    client = _connect(settings)
    try:
        client.command(f"create database if not exists {settings.clickhouse_database}")
        client.database = settings.clickhouse_database
        yield client
    except ClickHouseError as error:
        raise StorageError(
            f"ClickHouse at {_place(settings)}: {_reason(error)}",
            fix="check that it runs and accepts this user; `energy-iot doctor` tells more",
        ) from error
    finally:
        client.close()


def _connect(settings: Settings) -> Client:
    try:
        if settings.clickhouse_url is not None:
            return clickhouse_connect.get_client(dsn=settings.clickhouse_url.get_secret_value())
        folder = settings.home / "clickhouse"
        folder.mkdir(parents=True, exist_ok=True)
        return clickhouse_connect.get_client(interface="chdb", path=str(folder))
    except Exception as error:  # chDB raises plain RuntimeError, HTTP its own kinds: all mean no store
        held = settings.clickhouse_url is None and "lock" in str(error).lower()
        raise StorageError(
            f"ClickHouse at {_place(settings)}: {_reason(error)}",
            fix="another energy-iot process uses it: wait for it to end"
            if held
            else "check that it runs and accepts this user; `energy-iot doctor` tells more",
        ) from error


def _place(settings: Settings) -> str:
    if settings.clickhouse_url is None:
        return str(settings.home / "clickhouse")
    from urllib.parse import urlsplit

    address = urlsplit(settings.clickhouse_url.get_secret_value())
    return f"{address.hostname}:{address.port or 8123}"


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
