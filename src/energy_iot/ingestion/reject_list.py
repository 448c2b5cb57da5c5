"""Lines that became no readings: count them, see them, export them for correction."""

import csv
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TextIO

import psycopg

from energy_iot.errors import UsageError
from energy_iot.ingestion.corrections import EXPORT_COLUMNS
from energy_iot.ingestion.loaded_files import find_files
from energy_iot.ingestion.raw_tables import REJECTS_TABLE
from energy_iot.ingestion.spreadsheet import guard_formulas
from energy_iot.storage.postgres import Postgres

FETCHED_ROWS: Final = 5_000
SHOWN_REASONS: Final = 10
# reasons that differ only in the value found are one kind
KIND_OF_REASON: Final = (
    "regexp_replace(regexp_replace(regexp_replace(reason, '''.*''( \\([0-9,]+ characters\\))?', '...'), "
    "'position [0-9]+', 'position ...'), 'has [0-9,]+ bytes', 'has ... bytes')"
)


@dataclass(frozen=True)
class ReasonCount:
    """Rejects of one kind: the reason with ... for the value found."""

    reason: str
    count: int


@dataclass(frozen=True)
class RejectedFile:
    """The rejects of one loaded file that fit the filters; reasons are the most common ones, commonest first."""

    file: str
    sha256: str
    run_id: str
    loaded_at: datetime
    open: int
    resolved: int
    reasons: tuple[ReasonCount, ...]


@dataclass(frozen=True)
class RejectedLine:
    """One reject; `resolved_by` is the file that brought its reading, None while it is open."""

    reject_id: int
    file: str
    line_number: int
    reason: str
    raw_text: str
    resolved_by: str | None


@dataclass(frozen=True)
class RejectList:
    """What `rejects list` shows: all files with their counts, and the first of the lines."""

    files: tuple[RejectedFile, ...]
    lines: tuple[RejectedLine, ...]


@dataclass(frozen=True)
class RejectFilter:
    """Which rejects are meant: of a file (its name, or the beginning of its hash), of what a run loaded."""

    file: str | None = None
    run_id: str | None = None
    resolved_too: bool = False

    def where(self, connection: psycopg.Connection) -> tuple[str, list[Any]]:
        """The condition on rejects r and files f, and its parameters.

        Raises:
            UsageError: There is no such file.
        """
        conditions, parameters = ["true"], list[Any]()
        if self.file is not None:
            conditions.append("f.file_id = any(%s)")
            parameters.append([file.file_id for file in find_files(connection, self.file)])
        if self.run_id is not None:
            conditions.append("f.run_id = %s")
            parameters.append(self.run_id)
        if not self.resolved_too:
            conditions.append("r.resolved_by_file_id is null")
        return " and ".join(conditions), parameters


def list_rejects(postgres: Postgres, wanted: RejectFilter = RejectFilter(), *, limit: int = 20) -> RejectList:
    """Count rejects by file and kind of reason, and give the first lines.

    Raises:
        UsageError: There is no such file.
    """
    with postgres.connect() as connection:
        where, parameters = wanted.where(connection)
        joined = f"from {REJECTS_TABLE} r inner join raw_data.ingested_files f using (file_id)"
        kinds = connection.execute(
            f"select f.file_id, f.file_name, f.sha256, f.run_id, f.ingested_at, {KIND_OF_REASON} as kind, "
            "count(*) filter (where r.resolved_by_file_id is null), count(r.resolved_by_file_id) "
            f"{joined} where {where} group by f.file_id, kind order by f.file_id, count(*) desc, kind",
            parameters,
        ).fetchall()
        rows = connection.execute(
            "select r.id, r.source_file, r.line_number, r.reason, r.raw_text, brought.file_name "
            f"{joined} left join raw_data.ingested_files brought on brought.file_id = r.resolved_by_file_id "
            f"where {where} order by r.id limit %s",
            [*parameters, limit],
        ).fetchall()
    by_file: dict[int, list[tuple[Any, ...]]] = {}
    for row in kinds:
        by_file.setdefault(row[0], []).append(row[1:])
    files = tuple(
        RejectedFile(
            file=found[0][0],
            sha256=found[0][1],
            run_id=found[0][2],
            loaded_at=found[0][3],
            open=sum(row[5] for row in found),
            resolved=sum(row[6] for row in found),
            reasons=tuple(ReasonCount(row[4], row[5] + row[6]) for row in found[:SHOWN_REASONS]),
        )
        for found in by_file.values()
    )
    return RejectList(files, tuple(RejectedLine(*row) for row in rows))


def export_rejects(postgres: Postgres, path: Path | None, wanted: RejectFilter = RejectFilter()) -> int:
    """Write rejects as CSV, to be corrected in its column raw_text and given to `rejects retry`; returns how many.

    raw_text is the line as it was received, but for a quote mark before what a spreadsheet would take for a formula;
    retrying takes it off again. With a byte-order mark in a file, which tells spreadsheets that it is UTF-8.

    Args:
        postgres: The database.
        path: A new file; None for standard output.
        wanted: Which rejects.

    Raises:
        UsageError: The file exists, as it may hold corrections; or it cannot be written; or no such file is loaded.
    """
    with postgres.connect() as connection:
        where, parameters = wanted.where(connection)
        with _new_file(path) as file, connection.cursor(name="rejects") as cursor:
            cursor.itersize = FETCHED_ROWS
            cursor.execute(
                "select r.id, r.source_file, r.line_number, r.reason, r.raw_text "
                f"from {REJECTS_TABLE} r inner join raw_data.ingested_files f using (file_id) "
                f"where {where} order by r.id",
                parameters,
            )
            # all quoted: then a text of digits or dates is less likely to be changed by a spreadsheet
            writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n")
            writer.writerow(EXPORT_COLUMNS)
            count = 0
            for number, source_file, line, reason, text in cursor:
                writer.writerow([number, *map(guard_formulas, (source_file, str(line), reason, text))])
                count += 1
    return count


@contextmanager
def _new_file(path: Path | None) -> Iterator[TextIO]:
    """A file that appears when it is complete, or standard output."""
    if path is None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8")
        yield sys.stdout
        return
    if path.exists():
        raise UsageError(f"{path} exists, and may hold corrections", fix="give another --out, or remove it")
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("w", encoding="utf-8-sig", newline="") as file:
            yield file
        part.rename(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror or error}", fix="give another --out") from error
    finally:
        part.unlink(missing_ok=True)
