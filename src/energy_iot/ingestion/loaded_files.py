"""The files that are loaded, and which of them a person means."""

import re
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from typing import Any, Final

import psycopg

from energy_iot.errors import UsageError
from energy_iot.ingestion.file_layout import FileLayout

SHOWN_HASH: Final = 12  # digits: enough to tell files apart
SHOWN_FILES: Final = 10
HASH_START: Final = re.compile(r"[0-9a-f]{8,64}", re.IGNORECASE)
COLUMNS: Final = (
    "file_id, sha256, file_name, source_name, content, readings_loaded + registry_rows_loaded, readings_rejected, "
    "ingested_at, run_id"
)


@dataclass(frozen=True)
class LoadedFile:
    """A row of raw_data.ingested_files, without what only reading its lines again takes; `rows` are of its content."""

    file_id: int
    sha256: str
    file_name: str
    source_name: str
    content: str
    rows: int
    rejected: int
    ingested_at: datetime
    run_id: str

    def __str__(self) -> str:
        return (
            f"{self.sha256[:SHOWN_HASH]}  {self.file_name}: {self.rows:,} {self.content.replace('_', ' ')}, "
            f"loaded {self.ingested_at:%Y-%m-%d %H:%M} by run {self.run_id}"
        )


def find_files(connection: psycopg.Connection, given: str) -> list[LoadedFile]:
    """The loaded files that have this name, or else whose SHA-256 begins like this (8 hex digits or more).

    Raises:
        UsageError: There is none; says which are like it.
    """
    found = _select(connection, "where file_name = %s", given)
    if not found and HASH_START.fullmatch(given):
        found = _select(connection, "where starts_with(sha256, %s)", given.lower())
    if found:
        return found
    loaded = _select(connection, "")
    if not loaded:
        raise UsageError(f"no file '{given}': nothing is loaded", fix="load files with `energy-iot run FILE`")
    names = list(dict.fromkeys(file.file_name for file in loaded))
    similar = get_close_matches(given.rsplit("/", 1)[-1], names, n=SHOWN_FILES, cutoff=0.5)
    shown = [file for file in loaded if file.file_name in similar] or loaded
    raise UsageError(
        f"no loaded file '{given}'; {'similar are' if similar else 'loaded are'}:\n  {_listed(shown)}",
        fix="give a file's name as it is listed, or the beginning of its hash (8 digits or more)",
    )


def find_one_file(connection: psycopg.Connection, given: str) -> LoadedFile:
    """The one loaded file that is meant.

    Raises:
        UsageError: There is none, or there are several.
    """
    found = find_files(connection, given)
    if len(found) > 1:
        raise UsageError(
            f"'{given}' may be one of {len(found)} loaded files:\n  {_listed(found)}",
            fix=f"give the beginning of its hash instead, such as {found[-1].sha256[:SHOWN_HASH]}",
        )
    return found[0]


def files_of_run(connection: psycopg.Connection, run_id: str) -> list[LoadedFile]:
    """The files that a run loaded and that are still there.

    Raises:
        UsageError: There are none; says which runs loaded files.
    """
    found = _select(connection, "where run_id = %s", run_id)
    if found:
        return found
    known = connection.execute("select 1 from quality.pipeline_runs where run_id = %s", (run_id,)).fetchone()
    loaded = _select(connection, "")
    runs = list(dict.fromkeys(file.run_id for file in reversed(loaded)))[:SHOWN_FILES]
    raise UsageError(
        f"run {run_id} loaded no file that is still there" if known else f"no run '{run_id}'",
        fix=f"runs that loaded files, newest first: {', '.join(runs) or 'none'}; `energy-iot status` lists all runs",
    )


def loaded_files(connection: psycopg.Connection, file_ids: list[int]) -> list[LoadedFile]:
    """The files with these numbers, in order."""
    return _select(connection, "where file_id = any(%s)", file_ids)


def retries_of(connection: psycopg.Connection, file_ids: list[int]) -> list[LoadedFile]:
    """What `rejects retry` loaded of the rejects of these files."""
    return _select(connection, "where cast(layout ->> 'retried_file_id' as bigint) = any(%s)", file_ids)


def read_layout(connection: psycopg.Connection, file_id: int) -> FileLayout | None:
    """How a file was read; None for files that were loaded before this was kept."""
    row = connection.execute("select layout from raw_data.ingested_files where file_id = %s", (file_id,)).fetchone()
    return FileLayout.model_validate(row[0]) if row and row[0] is not None else None


def _select(connection: psycopg.Connection, where: str, *parameters: Any) -> list[LoadedFile]:
    rows = connection.execute(
        f"select {COLUMNS} from raw_data.ingested_files {where} order by file_id",
        parameters,
    )
    return [LoadedFile(*row) for row in rows]


def _listed(files: list[LoadedFile]) -> str:
    more = [f"and {len(files) - SHOWN_FILES:,} more"] if len(files) > SHOWN_FILES else []
    return "\n  ".join([*map(str, files[:SHOWN_FILES]), *more])
