"""A sync in a process of its own that is killed in the middle of one of its statements to ClickHouse."""

import multiprocessing
import signal
from itertools import count

from chdb.state.sqlitelike import Connection

from energy_iot.pipeline import RunContext
from energy_iot.sync.postgres_to_clickhouse import sync

# forked from a process that has the libraries but no engine yet: a new one would spend seconds on importing them
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.killed_sync"])


def sync_killed(context: RunContext, *, statement: int, seconds: float) -> int | None:
    """Sync, and be killed so long after the start of the numbered statement; gives the process's exit code."""
    process = PROCESSES.Process(target=_sync_until, args=(context, statement, seconds))
    process.start()
    process.join(60)
    exit_code = process.exitcode
    process.kill()  # if it still runs, the caller sees None
    process.join()
    return exit_code


def _sync_until(context: RunContext, statement: int, seconds: float) -> None:
    numbers, query = count(1), Connection.query

    def query_or_die(*arguments: object, **named: object) -> object:
        if next(numbers) == statement:
            signal.setitimer(signal.ITIMER_REAL, seconds)  # SIGALRM ends a process at once, also inside the engine
        return query(*arguments, **named)

    Connection.query = query_or_die  # type: ignore[method-assign]  # this process ends soon
    sync(context)
