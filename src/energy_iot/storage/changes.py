"""The log of what changed in raw_data, and how far each derived thing has followed it.

Whoever changes readings records which days of which meters they lie in, in the same transaction; who changes readings
of the network, which days of which nodes; who changes the registry, from which day on the network is another one. Each
derived thing (a dbt model, the scores, a gate, a published table) keeps a row in quality.derived_states, written in the
transaction that updates it: killed at any moment, it is as before or as after, and says which.
"""

import hashlib
import json
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

import psycopg

CHANGED_DAYS_TABLE: Final = "raw_data.changed_days"
CHANGED_NODE_DAYS_TABLE: Final = "raw_data.changed_node_days"
READINGS: Final = "readings"  # what files hold, unless something of the registry (ingestion/registry_format.py)


@dataclass(frozen=True)
class DerivedState:
    """How far a derived thing is.

    Attributes:
        name: Of the dbt model, step or published table.
        change_id: The last change of raw_data that is in it.
        fingerprint: Hash of all else it follows from: SQL, settings, model, what it reads.
        row_count: Its rows, where that is kept.
    """

    name: str
    change_id: int
    fingerprint: str
    row_count: int | None = None


@dataclass(frozen=True)
class Pending:
    """What a derived thing has yet to follow.

    Attributes:
        since: The last change it knows; None when it must be built whole.
        until: The newest change there is.
    """

    since: int | None
    until: int

    @property
    def whole(self) -> bool:
        """Whether it must be built whole."""
        return self.since is None

    @property
    def nothing(self) -> bool:
        """Whether it is up to date."""
        return self.since == self.until


def record_change(
    connection: psycopg.Connection,
    kind: str,
    *,
    file_id: int,
    file_name: str,
    sha256: str,
    run_id: str | None,
    content: str = READINGS,
    affects_from: date | None = None,
) -> int:
    """Log that a file was loaded ('load') or taken out ('forget'); returns the change's number.

    To be called in the transaction that does it, and its days written with this number to raw_data.changed_days (of
    readings) or raw_data.changed_node_days (of network readings).

    Args:
        connection: In that transaction.
        kind: load or forget.
        file_id: The file.
        file_name: Its name.
        sha256: Its content.
        run_id: The run that does it.
        content: What the file holds.
        affects_from: For meters and network nodes the first day (UTC) from which the network is another one by it; None
            if it is as it was.
    """
    row = connection.execute(
        "insert into raw_data.changes (kind, file_id, file_name, sha256, run_id, content, affects_from) "
        "values (%s, %s, %s, %s, %s, %s, %s) returning change_id",
        (kind, file_id, file_name, sha256, run_id, content, affects_from),
    ).fetchone()
    assert row is not None
    return int(row[0])


def latest_change(connection: psycopg.Connection) -> int:
    """Number of the newest change, 0 before the first."""
    row = connection.execute("select coalesce(max(change_id), 0) from raw_data.changes").fetchone()
    assert row is not None
    return int(row[0])


def read_state(connection: psycopg.Connection, name: str) -> DerivedState | None:
    """The state of a derived thing; None before it was first built."""
    row = connection.execute(
        "select change_id, fingerprint, row_count from quality.derived_states where name = %s", (name,)
    ).fetchone()
    return DerivedState(name, *row) if row else None


def write_state(connection: psycopg.Connection, state: DerivedState) -> None:
    """Keep the state; to be called in the transaction that changes the thing itself."""
    connection.execute(
        "insert into quality.derived_states (name, change_id, fingerprint, row_count) values (%s, %s, %s, %s) "
        "on conflict (name) do update set change_id = excluded.change_id, fingerprint = excluded.fingerprint, "
        "row_count = excluded.row_count, updated_at = now() at time zone 'utc'",
        (state.name, state.change_id, state.fingerprint, state.row_count),
    )


def find_pending(connection: psycopg.Connection, name: str, fingerprint: str, *, full_refresh: bool) -> Pending:
    """What `name` has yet to follow: whole when asked for, never built, or when it follows from other things now."""
    state, until = read_state(connection, name), latest_change(connection)
    if full_refresh or state is None or state.fingerprint != fingerprint:
        return Pending(None, until)
    return Pending(state.change_id, until)


def changed_days_query(since: int, *, reach_days: int = 0) -> str:
    """SQL that gives the days to rebuild as (meter_id, reading_date), distinct.

    Args:
        since: The last change that is known already.
        reach_days: How many days after a changed one are affected too, of those that have readings. A changed day is
            given even if it has none any more: what was derived from it must go.
    """
    changed = f"select distinct meter_id, reading_date from {CHANGED_DAYS_TABLE} where change_id > {int(since)}"
    if not reach_days:
        return changed
    return (
        f"select changed.meter_id, days.reading_date from ({changed}) as changed "
        "inner join intermediate.int_readings_daily as days on days.meter_id = changed.meter_id "
        f"and days.reading_date between changed.reading_date and changed.reading_date + {int(reach_days)} "
        f"union {changed}"
    )


def remove_followed_days(connection: psycopg.Connection) -> None:
    """Remove days that everything derived has followed; what has no state is built whole and needs none."""
    for table in (CHANGED_DAYS_TABLE, CHANGED_NODE_DAYS_TABLE):
        connection.execute(
            f"delete from {table} where change_id <= (select coalesce(min(change_id), 0) from quality.derived_states)"
        )


def fingerprint_of(*parts: Any) -> str:
    """SHA-256 over JSON-able parts."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()
