"""Reading the inspection list, and telling what it holds."""

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import date
from io import StringIO
from typing import Final

import psycopg
from psycopg.rows import class_row

from energy_iot.errors import UsageError
from energy_iot.storage.postgres import Postgres

LIST_TABLE: Final = "marts.mart_inspection_list"
CSV_NAMES: Final = {"suspicion_score": "score", "suspicion_rank": "rank"}  # as every tool that reads lists calls them


@dataclass(frozen=True)
class Suspect:
    """A row of marts.mart_inspection_list; see its description there."""

    meter_id: str
    suspicion_score: float
    suspicion_rank: int
    confidence: float
    suspected_since: date | None
    lost_kwh: float | None
    lost_value: float | None
    currency: str | None
    transformer_id: str | None
    transformer_unexplained_share: float | None
    customer_class: str | None
    last_inspected_on: date | None
    last_found_theft: bool | None
    suppressed_cause: str | None
    reasons: str | None
    as_of_date: date


COLUMNS: Final = tuple(field.name for field in fields(Suspect))


def read_ranking(postgres: Postgres) -> list[Suspect]:
    """The list, the most suspicious first.

    Raises:
        UsageError: There is no list yet.
    """
    with postgres.connect() as connection:
        ensure_list(connection)
        return read_suspects(connection)


def read_suspects(connection: psycopg.Connection, *, top: int | None = None) -> list[Suspect]:
    """The first `top` rows of the list, or all; the table must be there."""
    with connection.cursor(row_factory=class_row(Suspect)) as cursor:
        cursor.execute(
            f"select {', '.join(COLUMNS)} from {LIST_TABLE} order by suspicion_rank limit %s".encode(), (top,)
        )
        return cursor.fetchall()


def ensure_list(connection: psycopg.Connection) -> None:
    """Refuse to go on without a list.

    Raises:
        UsageError: There is none yet, or nobody on it.
    """
    ranked = count_ranked(connection)
    if not ranked:
        problem = (
            "there is no inspection list yet"
            if ranked is None
            else "the inspection list is empty: no meter has whole days of readings"
        )
        raise UsageError(problem, fix="load readings of some weeks: energy-iot run FILE...")


def count_ranked(connection: psycopg.Connection) -> int | None:
    """Meters on the list; None before there is one."""
    row = connection.execute("select to_regclass(%s) is not null", (LIST_TABLE,)).fetchone()
    if row is None or not row[0]:
        return None
    row = connection.execute(f"select count(*) from {LIST_TABLE}".encode()).fetchone()
    return int(row[0]) if row else 0


def to_csv(suspects: Sequence[Suspect]) -> str:
    """The list as CSV; starts with meter_id,score."""
    buffer = StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([CSV_NAMES.get(name, name) for name in COLUMNS])
    writer.writerows([_csv_value(getattr(suspect, name)) for name in COLUMNS] for suspect in suspects)
    return buffer.getvalue()


def _csv_value(value: object) -> object:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else value


def to_json(suspects: Sequence[Suspect]) -> str:
    """The list as JSON, with the names of the table's columns."""
    return json.dumps([asdict(suspect) for suspect in suspects], indent=2, default=str)


def shortened(told: Sequence[str], most: int | None) -> list[str]:
    """The first `most` of what is told, and how much more there is.

    Example:
        >>> shortened(["a", "b", "c"], 2)
        ['a', 'b', 'and 1 more']
    """
    if most is None or len(told) <= most:
        return list(told)
    return [*told[:most], f"and {len(told) - most} more"]


def describe_loss(suspect: Suspect) -> str:
    """Energy and money, where they are known."""
    if suspect.lost_kwh is None:
        return ""
    energy = f"{suspect.lost_kwh:,.0f} kWh"
    return (
        energy
        if suspect.lost_value is None
        else f"{energy}\n{suspect.lost_value:,.0f} {suspect.currency or ''}".strip()
    )


def explanations(suspect: Suspect) -> list[str]:
    """Reasons, then what speaks against them, and what an inspection found."""
    told = suspect.reasons.split("; ") if suspect.reasons else ["nothing stands out by itself"]
    if suspect.suppressed_cause:
        told.append(f"score taken down: {suspect.suppressed_cause}")
    if suspect.last_inspected_on:
        found = "theft found" if suspect.last_found_theft else "no theft found"
        told.append(f"inspected {suspect.last_inspected_on}: {found}")
    return told
