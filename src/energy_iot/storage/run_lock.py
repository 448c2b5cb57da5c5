"""One writer for each database: a session-level advisory lock that lasts as long as a run's own connection.

The server frees the lock when that connection ends, so it outlives its owner by no kill and no crash. Who holds it is
written beside it, in quality.run_lock; the row counts only while the server process it names holds the lock.
"""

import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import psycopg

from energy_iot.errors import HomeInUseError
from energy_iot.storage.postgres import RUN_LOCK, SCHEMAS, Postgres

FIRST_PAUSE_SECONDS: Final = 0.05
LONGEST_PAUSE_SECONDS: Final = 1.0

# How long a killed run may still be seen. Its idle connection: until the server notices. A statement that it had sent
# may begin after that, and the server looks for its client a second later (client_connection_check_interval).
LAST_SIGN_SECONDS: Final = 2.0
LAST_BEGIN_SECONDS: Final = 1.5
LAST_STATEMENTS_SECONDS: Final = 15.0

HELD: Final = (  # a bigint key lies in pg_locks as two halves, objsubid 1
    "locktype = 'advisory' and database = (select oid from pg_database where datname = current_database()) "
    f"and classid = 0 and objid = {RUN_LOCK} and objsubid = 1 and granted"
)

# Sessions that hold a lock on our tables which only writing takes; a table that nobody else sees yet is being made.
WRITING: Final = """
select locks.pid
from pg_locks as locks
left join pg_class as relations on relations.oid = locks.relation
left join pg_namespace as namespaces on namespaces.oid = relations.relnamespace
where
    locks.locktype = 'relation'
    and locks.database = (select oid from pg_database where datname = current_database())
    and locks.mode in (
        'RowExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock'
    )
    and locks.pid <> pg_backend_pid()
    and (namespaces.nspname = any(%s) or relations.oid is null)
limit 1
"""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Holder:
    """Who holds the lock.

    Attributes:
        backend_pid: The server process of its connection.
        command: What runs; None in the moment between taking the lock and writing who took it.
        process_id: Of the command, on `machine`.
        machine: Host name.
        run_id: Its run, once that is recorded.
        since: When it took the lock, UTC.
    """

    backend_pid: int
    command: str | None
    process_id: int | None
    machine: str | None
    run_id: str | None
    since: datetime | None

    def __str__(self) -> str:
        if self.command is None:
            return f"a command that has just begun (server process {self.backend_pid})"
        run = f", run {self.run_id}" if self.run_id else ""
        return f"'{self.command}' (process {self.process_id} on {self.machine}{run}), since {self.since:%F %T} UTC"


def lock_holder(postgres: Postgres) -> Holder | None:
    """Who holds the lock now; None when it is free."""
    with postgres.connect() as connection:
        return _find_holder(connection)


@contextmanager
def hold_run_lock(postgres: Postgres, *, run: str, wait_seconds: float = 0) -> Iterator["RunLock"]:
    """Be the only writer of this database while the block runs.

    Args:
        postgres: The database.
        run: The command, as others are told.
        wait_seconds: How long to wait for another holder to end.

    Raises:
        HomeInUseError: Another holds it still; names it.
        StorageError: The database cannot be reached.
    """
    lock = RunLock(postgres, run)
    lock.acquire(wait_seconds)
    try:
        yield lock
    finally:
        lock.release()


class RunLock:
    """The lock of a run, and the connection that it lives on."""

    def __init__(self, postgres: Postgres, run: str) -> None:
        self._postgres, self._run = postgres, run
        self._connection: psycopg.Connection | None = None

    def ensure_held(self) -> None:
        """Take the lock again if it was lost with its connection, as when the server went down and came back.

        Raises:
            HomeInUseError: Another run has taken it since.
            StoreUnavailableError: The database cannot be reached.
        """
        if self._connection is not None:
            with suppress(psycopg.OperationalError):
                self._connection.execute("select 1")
                return
        self.release()
        with self._postgres.running():
            self.acquire(0)

    def acquire(self, wait_seconds: float) -> None:
        """Take the lock, and wait for what a killed holder's statements still write."""
        connection = self._postgres.open_connection(autocommit=True)
        try:
            with self._postgres.storage_errors():
                self._take(connection, wait_seconds)
        except BaseException:
            connection.close()
            raise
        self._connection = connection

    def release(self) -> None:
        """Give the lock back; the server frees it with the connection."""
        if self._connection is not None:
            with suppress(psycopg.Error):  # lost already
                self._connection.execute("delete from quality.run_lock where backend_pid = pg_backend_pid()")
            self._connection.close()
            self._connection = None

    def _take(self, connection: psycopg.Connection, wait_seconds: float) -> None:
        _never_idle_out(connection)
        deadline = time.monotonic() + max(wait_seconds, LAST_SIGN_SECONDS)
        pause, told = FIRST_PAUSE_SECONDS, False
        while not _succeeds(connection, "select pg_try_advisory_lock(%s)", RUN_LOCK):
            left = deadline - time.monotonic()
            if left <= 0:
                raise self._in_use(str(_find_holder(connection) or "a command that has just ended"))
            if wait_seconds and not told:
                log.warning("waiting up to %.0f s for %s", wait_seconds, _find_holder(connection))
                told = True
            time.sleep(min(pause, left))
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
        # whoever ends in order removes its row
        if _succeeds(connection, "select exists (select 1 from quality.run_lock)"):
            time.sleep(LAST_BEGIN_SECONDS)
        connection.execute(
            "insert into quality.run_lock (backend_pid, command, process_id, machine) "
            "values (pg_backend_pid(), %s, %s, %s) on conflict (only_row) do update set "
            "backend_pid = excluded.backend_pid, command = excluded.command, process_id = excluded.process_id, "
            "machine = excluded.machine, since = excluded.since",
            (self._run, os.getpid(), socket.gethostname()),
        )
        deadline = max(deadline, time.monotonic() + LAST_STATEMENTS_SECONDS)
        while (row := connection.execute(WRITING, (list(SCHEMAS),)).fetchone()) is not None:
            if time.monotonic() > deadline:
                raise self._in_use(f"server process {row[0]}, whose transaction has written to its tables")
            time.sleep(FIRST_PAUSE_SECONDS)

    def _in_use(self, who: str) -> HomeInUseError:
        return HomeInUseError(
            f"PostgreSQL at {self._postgres.place} is in use by {who}",
            fix="let it end and type the same command again, or let this one wait for it: --wait SECONDS",
        )


def _never_idle_out(connection: psycopg.Connection) -> None:
    """Neither idleness nor a vanished machine: the first may not end this session, and the second must."""
    for setting in (
        "idle_session_timeout = 0",  # a step may take hours
        "tcp_keepalives_idle = 10",  # a machine that lost power says no goodbye
        "tcp_keepalives_interval = 5",
        "tcp_keepalives_count = 4",
    ):
        connection.execute(f"set {setting}")


def _succeeds(connection: psycopg.Connection, query: str, *values: object) -> bool:
    row = connection.execute(query, values).fetchone()
    return row is not None and bool(row[0])


def _find_holder(connection: psycopg.Connection) -> Holder | None:
    row = connection.execute(
        f"select held.pid, told.command, told.process_id, told.machine, runs.run_id, told.since "
        f"from (select pid from pg_locks where {HELD} limit 1) as held "
        "left join quality.run_lock as told on told.backend_pid = held.pid "
        # whoever holds the lock is alone: a run that began since then and has not ended is its own
        "left join lateral ("
        "select run_id from quality.pipeline_runs where status = 'running' and started_at >= told.since "
        "order by started_at desc limit 1) as runs on true"
    ).fetchone()
    return Holder(*row) if row else None
