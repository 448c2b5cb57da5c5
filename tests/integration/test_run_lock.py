"""One writer for each database, and no lock that outlives its owner."""

import logging
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from energy_iot.errors import HomeInUseError
from energy_iot.pipeline import RunOptions, start_run
from energy_iot.settings import Settings
from energy_iot.storage import run_lock
from energy_iot.storage.postgres import RUN_LOCK, Postgres, connect_server, migrate
from energy_iot.storage.run_lock import hold_run_lock, lock_holder
from tests.postgres_server import missing, running_tcp_server
from tests.waiting import wait_for

# What a run may be in the middle of when it is killed, on a connection of its own.
STATEMENTS = {
    "a query": "select pg_sleep(600)",
    "a table being made": "create table staging.half as select g, pg_sleep(1)::text from generate_series(1, 600) as g",
    "a sort": "create table staging.half as select md5(g::text) from generate_series(1, 50000000) as g order by 1",
    "a load": "copy staging.loaded from stdin",
    "an export": "copy (select repeat('x', 1000) from generate_series(1, 1000000)) to stdout",
    "an open transaction": "insert into staging.loaded values ('x')",
}

HOLD = """
import sys, time
from energy_iot.storage.postgres import Postgres
from energy_iot.storage.run_lock import hold_run_lock
postgres, statement = Postgres(sys.argv[1]), sys.argv[2]
with hold_run_lock(postgres, run="run"), postgres.connect() as connection:
    print(connection.info.backend_pid, flush=True)
    if statement.startswith("copy"):
        with connection.cursor().copy(statement) as copy:
            while "from stdin" in statement:
                copy.write("x\\n" * 1000)
            print(copy.read()[:1], flush=True)
            time.sleep(600)
    connection.execute(statement)
    time.sleep(600)
"""


@contextmanager
def running_holder(postgres: Postgres, statement: str = "select 1") -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Another process that holds the lock and is in the middle of `statement`; its server process."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, postgres.conninfo, statement], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        yield process, int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def scalar(postgres: Postgres, query: str, *values: object) -> object:
    with postgres.connect() as connection:
        (value,) = connection.execute(query, values).fetchone() or (None,)
    return value


def is_working(postgres: Postgres, backend: int) -> bool:
    """Whether the session is in its statement: each of ours has a transaction open."""
    return scalar(postgres, "select xact_start is not null from pg_stat_activity where pid = %s", backend) is True


def is_gone(postgres: Postgres, backend: int) -> bool:
    return scalar(postgres, "select count(*) from pg_stat_activity where pid = %s", backend) == 0


def check_kill(postgres: Postgres, statement: str) -> None:
    with postgres.connect() as connection:
        connection.execute("create table staging.loaded (text text)")
    with running_holder(postgres, statement) as (process, backend):
        wait_for(lambda: is_working(postgres, backend), "work in the session", 30)
        process.kill()
        killed = time.monotonic()
        with hold_run_lock(postgres, run="next"):  # it need not wait
            taken = time.monotonic() - killed
            if statement not in (STATEMENTS["a query"], STATEMENTS["an export"]):  # what only reads may take longer
                assert not is_working(postgres, backend)
        assert taken < 8, "seconds, on a busy machine; it is about one"
        wait_for(lambda: is_gone(postgres, backend), "end of the session", 5)
    assert scalar(postgres, "select to_regclass('staging.half')") is None
    assert scalar(postgres, "select count(*) from staging.loaded") == 0


@pytest.mark.parametrize("statement", STATEMENTS.values(), ids=STATEMENTS)
def test_a_killed_holder_holds_nothing(postgres: Postgres, statement: str) -> None:
    check_kill(postgres, statement)


@pytest.mark.heavy
@pytest.mark.skipif(missing() is not None, reason=missing() or "")
def test_a_killed_holder_holds_nothing_on_a_server(tmp_path: Path) -> None:
    with running_tcp_server(tmp_path) as server:
        for number, statement in enumerate(STATEMENTS.values()):
            server.execute("create database {}", f"d{number}")
            postgres = connect_server(server.dsn(f"d{number}"))
            migrate(postgres)
            check_kill(postgres, statement)


def test_the_second_is_told_who_holds_it_and_what_to_type(postgres: Postgres, settings: Settings) -> None:
    with running_holder(postgres) as (process, _):
        told = rf"'run' \(process {process.pid} on {re.escape(socket.gethostname())}\)"
        with pytest.raises(HomeInUseError, match=told), hold_run_lock(postgres, run="another"):
            pass
        run_id = start_run(settings, RunOptions())
        with pytest.raises(HomeInUseError, match=f"run {run_id}") as caught, hold_run_lock(postgres, run="another"):
            pass
        assert "--wait SECONDS" in caught.value.fix
        assert caught.value.exit_code == 5
        holder = lock_holder(postgres)
        assert holder is not None
        assert (holder.process_id, holder.run_id) == (process.pid, run_id)
        assert holder.since is not None
        assert abs(datetime.now(UTC).replace(tzinfo=None) - holder.since) < timedelta(minutes=1)
    wait_for(lambda: lock_holder(postgres) is None, "release of the lock", 30)


def test_who_has_ended_is_not_shown(postgres: Postgres) -> None:
    assert lock_holder(postgres) is None
    with hold_run_lock(postgres, run="run"):
        holder = lock_holder(postgres)
        assert holder is not None
        assert (holder.command, holder.process_id) == ("run", os.getpid())
    wait_for(lambda: lock_holder(postgres) is None, "release of the lock", 30)


def test_the_second_waits_for_the_first(postgres: Postgres, caplog: pytest.LogCaptureFixture) -> None:
    order: list[str] = []

    def wait() -> None:
        with hold_run_lock(postgres, run="second", wait_seconds=60):
            order.append("second")

    thread = threading.Thread(target=wait)
    with caplog.at_level(logging.WARNING), hold_run_lock(postgres, run="first"):
        thread.start()
        wait_for(lambda: "waiting up to 60 s for 'first'" in caplog.text, "word of waiting", 30)
        order.append("first")
    thread.join(60)
    assert order == ["first", "second"]


def test_there_is_never_more_than_one(postgres: Postgres) -> None:
    inside: list[int] = []
    most: list[int] = []

    def work() -> None:
        with hold_run_lock(postgres, run="one of many", wait_seconds=120):
            inside.append(1)
            most.append(len(inside))
            scalar(postgres, "select 1")
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert most == [1] * 8


def test_databases_of_one_server_do_not_meet(postgres: Postgres) -> None:
    elsewhere = Postgres(make_conninfo(postgres.conninfo, dbname="postgres"))
    with elsewhere.connect() as connection:
        held = connection.execute("select pg_try_advisory_lock(%s)", (RUN_LOCK,)).fetchone()
        assert held == (True,)
        assert lock_holder(postgres) is None
        with hold_run_lock(postgres, run="run"):
            pass


def end_session(postgres: Postgres) -> None:
    holder = lock_holder(postgres)
    assert holder is not None
    scalar(postgres, "select pg_terminate_backend(%s, 10000)", holder.backend_pid)


def test_a_lost_lock_is_taken_again(postgres: Postgres) -> None:
    with hold_run_lock(postgres, run="run") as lock:
        before = lock_holder(postgres)
        lock.ensure_held()
        assert lock_holder(postgres) == before
        end_session(postgres)
        assert lock_holder(postgres) is None
        lock.ensure_held()
        after = lock_holder(postgres)
        assert before is not None
        assert after is not None
        assert after.backend_pid != before.backend_pid


def test_a_lost_lock_that_another_has_taken_ends_the_run(postgres: Postgres) -> None:
    with hold_run_lock(postgres, run="first") as lock:
        end_session(postgres)
        with hold_run_lock(postgres, run="second"), pytest.raises(HomeInUseError, match="'second'"):
            lock.ensure_held()


def test_a_lost_lock_hides_no_error(postgres: Postgres) -> None:
    def lose() -> None:
        with hold_run_lock(postgres, run="run"):
            end_session(postgres)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        lose()


def test_an_uncommitted_write_of_somebody_keeps_a_run_out(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lock, "LAST_STATEMENTS_SECONDS", 0)
    monkeypatch.setattr(run_lock, "LAST_SIGN_SECONDS", 0)
    with psycopg.connect(postgres.conninfo) as other:
        other.execute("select * from raw_data.changed_days")
        with hold_run_lock(postgres, run="beside a reader"):
            pass
        other.execute("create temp table mine (a integer)")
        other.commit()
        other.execute("insert into mine values (1)")
        with hold_run_lock(postgres, run="beside somebody's own table"):
            pass
        other.execute("delete from raw_data.changed_days")
        told = f"server process {other.info.backend_pid}, whose transaction"
        with pytest.raises(HomeInUseError, match=told), hold_run_lock(postgres, run="beside a writer"):
            pass
        assert lock_holder(postgres) is None
        other.rollback()
        with hold_run_lock(postgres, run="after it"):
            pass


def test_the_lock_outlasts_a_server_that_ends_idle_sessions(postgres: Postgres) -> None:
    with psycopg.connect(postgres.conninfo, autocommit=True) as admin:
        name = admin.info.dbname
        admin.execute(f"alter database {name} set idle_session_timeout = '200ms'")
    with psycopg.connect(postgres.conninfo, autocommit=True) as idle, hold_run_lock(postgres, run="run"):
        backend = idle.info.backend_pid
        wait_for(lambda: is_gone(postgres, backend), "end of the session", 30)
        assert lock_holder(postgres) is not None
