"""What a gate judges: whole tables, or only the rows that its tables were given since it last let them pass.

A slice is a set of temporary tables with the names of the tables they are cut from, in the session that judges: rules
name their tables without a schema, and read the one or the other. They go with the session, however that ends.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import psycopg
from psycopg import sql

from energy_iot.quality.suites import read_suites, suite_parameters
from energy_iot.settings import Settings
from energy_iot.storage.changes import (
    DerivedState,
    Pending,
    changed_days_query,
    find_pending,
    fingerprint_of,
    latest_change,
    read_state,
)

WHOLE_TABLES_PATH: Final = "raw_data, staging, intermediate, marts, ml"
SLICES_PATH: Final = "pg_temp"  # nothing else: a slice that was not cut must not be read from the whole table


@dataclass(frozen=True)
class Gate:
    """A step that judges.

    Attributes:
        name: Of the step, and of its state.
        suites: What it runs, in order.
        follows: Names of the derived states of what it judges.
        fix: How the tables it judges are made.
    """

    name: str
    suites: tuple[str, ...]
    follows: tuple[str, ...]
    fix: str


STAGING_GATE: Final = Gate(
    "ge_validate_staging",
    ("raw_readings_suite", "staging_readings_suite", "daily_readings_suite"),
    ("stg_meter_readings", "int_readings_daily"),
    fix="run `energy-iot transform staging`, then `... intermediate`",
)
MARTS_GATE: Final = Gate(
    "ge_validate_marts",
    ("marts_metrics_suite", "marts_scores_suite"),
    ("mart_consumption_metrics", "mart_anomaly_scores"),
    fix="run `energy-iot score`, then `energy-iot transform marts`",
)


@dataclass(frozen=True)
class Task:
    """What a gate has to do.

    Attributes:
        pending: Everything, what changed, or nothing.
        passed: The state to keep once no critical rule fails; None while the judged tables keep no states themselves.
    """

    pending: Pending
    passed: DerivedState | None


@dataclass(frozen=True)
class Slice:
    """The rows that a gate judges.

    Attributes:
        rows: Rows of each table that was cut, by its name.
        meter_days: Days of meters that changed.
        dates: Dates among them.
    """

    rows: Mapping[str, int]
    meter_days: int
    dates: int


def find_task(connection: psycopg.Connection, gate: Gate, settings: Settings, *, full_refresh: bool) -> Task:
    """What the gate has yet to judge: as far as its tables have followed raw_data, not further."""
    states = [read_state(connection, name) for name in gate.follows]
    # dbt started by hand leaves no fingerprint: what it made is judged whole each time
    known = [state for state in states if state is not None and state.fingerprint]
    if len(known) < len(states):
        return Task(Pending(None, latest_change(connection)), None)
    fingerprint = fingerprint_of(
        read_suites(gate.suites), suite_parameters(settings), [state.fingerprint for state in known]
    )
    pending = replace(
        find_pending(connection, gate.name, fingerprint, full_refresh=full_refresh),
        until=min(state.change_id for state in known),
    )
    return Task(pending, DerivedState(gate.name, pending.until, fingerprint))


def judge_whole_tables(connection: psycopg.Connection) -> None:
    """Have rules read whole tables in this session; no days in `judged_days` means all."""
    connection.execute("create temporary table judged_days (meter_id text, reading_date date, previous_date date)")
    _set_path(connection, WHOLE_TABLES_PATH)


def cut_slices(connection: psycopg.Connection, gate: Gate, since: int, settings: Settings) -> Slice:
    """Have rules read what changed after `since`, and only that, in this session.

    Args:
        connection: Of the session; in autocommit mode, for a rule that fails must not undo the slices.
        gate: Which tables.
        since: The last change that is judged already.
        settings: How far habits look back.
    """
    _cut(  # with the meter's last day before each: what a silence is counted from
        connection,
        "judged_days",
        f"select days.meter_id, days.reading_date, earlier.reading_date as previous_date "
        f"from ({changed_days_query(since)}) as days left join lateral ("
        "select reading_date from intermediate.int_readings_daily as daily "
        "where daily.meter_id = days.meter_id and daily.reading_date < days.reading_date "
        "order by daily.reading_date desc limit 1) as earlier on true",
    )
    queries = _staging_slices(connection, since) if gate is STAGING_GATE else _marts_slices(connection, since, settings)
    rows = {name: _cut(connection, name, query) for name, query in queries.items()}
    _set_path(connection, SLICES_PATH)
    counted = connection.execute("select count(*), count(distinct reading_date) from judged_days").fetchone()
    assert counted is not None
    return Slice(rows, *counted)


def _staging_slices(connection: psycopg.Connection, since: int) -> dict[str, str]:
    (files,) = connection.execute(
        "select coalesce(array_agg(file_id), '{}') from raw_data.changes where change_id > %s and kind = 'load'",
        (since,),
    ).fetchone() or ([],)
    return {
        "meter_readings": _new_files_query(sorted(files)),
        "stg_meter_readings": _days_query("staging.stg_meter_readings", "cast(rows.reading_timestamp as date)"),
        "int_readings_daily": _days_query("intermediate.int_readings_daily", "rows.reading_date"),
    }


def _marts_slices(connection: psycopg.Connection, since: int, settings: Settings) -> dict[str, str]:
    # habits look back history_days, and scores look at habits of readings that look back as far
    _cut(connection, "rescored_days", changed_days_query(since, reach_days=2 * settings.history_days))
    # weeks and months of a changed day, the ones after them, which compare, and all of their days
    _cut(
        connection,
        "touched_periods",
        "select distinct meter_id, cast(period_start as date) as reading_date from ("
        "select distinct meter_id, date_trunc('month', reading_date) as month_start from judged_days) as months "
        "cross join lateral generate_series("
        "month_start - interval '6 days', month_start + interval '2 months' - interval '1 day', interval '1 day'"
        ") as period_start",
    )
    day_of_reading = "cast(rows.reading_timestamp as date)"
    return {
        "stg_meter_readings": _days_query("staging.stg_meter_readings", day_of_reading),
        "mart_consumption_metrics": _days_query(
            "marts.mart_consumption_metrics", "rows.period_start", days="touched_periods"
        ),
        "mart_anomaly_scores": _days_query("marts.mart_anomaly_scores", day_of_reading, days="rescored_days"),
        "reading_scores": _days_query("ml.reading_scores", day_of_reading, days="rescored_days"),
    }


def _new_files_query(files: list[int]) -> str:
    """Readings of files, which were numbered in the order they came: the range is found by index."""
    first, last = (files[0], files[-1]) if files else (0, 0)
    return (
        f"select * from raw_data.meter_readings where file_id between {first} and {last} "
        f"and file_id = any(array{files}::bigint[])"
    )


def _days_query(table: str, day: str, *, days: str = "judged_days") -> str:
    """Rows of days, looked up one by one: OFFSET 0 keeps the planner from ways that read the whole history."""
    return (
        f"select found.* from pg_temp.{days} as days cross join lateral (select * from {table} as rows "
        f"where rows.meter_id = days.meter_id and {day} = days.reading_date offset 0) as found"
    )


def _cut(connection: psycopg.Connection, name: str, query: str) -> int:
    """Keep the rows of the query in a temporary table that the planner knows; returns how many."""
    table = sql.Identifier(name)
    made = connection.execute(sql.SQL("create temporary table {} as {}").format(table, sql.SQL(query)))
    connection.execute(sql.SQL("analyze pg_temp.{}").format(table))
    return made.rowcount


def _set_path(connection: psycopg.Connection, path: str) -> None:
    connection.execute(sql.SQL("set search_path = {}").format(sql.SQL(path)))
