"""The steps check_source and ingest_data: files to raw_data, each whole in one transaction or not at all.

Readings are loaded here; what is beside them (the registry, the network, outages, inspections) in registry.py.
"""

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Final

import polars as pl
import psycopg
from psycopg.types.json import Jsonb

from energy_iot.errors import EnergyIoTError, InputFileError, UnknownFormatError
from energy_iot.ingestion.file_layout import describe_layout
from energy_iot.ingestion.file_report import (
    ALREADY_LOADED,
    LEFT_FOR_LATER,
    LOADED,
    NEW,
    SHOWN_REJECTS,
    FileReport,
    LeftForLaterError,
    Status,
    leave_for_later,
    refuse_too_many_rejects,
    register,
)
from energy_iot.ingestion.parse_readings import Parsed, ReadingParser
from energy_iot.ingestion.raw_tables import (
    DAYS_TABLE,
    READINGS_TABLE,
    REJECTS_TABLE,
    collect_days,
    copy_csv,
    copy_frame,
    days_of,
    explain_refused,
    record_days,
    refresh_statistics,
    reject_frame,
    to_csv,
)
from energy_iot.ingestion.readers.batch import Batch, printable_name
from energy_iot.ingestion.registry import load_registry, refresh_registry_statistics
from energy_iot.ingestion.source_files import RegistryFile, SourceFile, expand, inspect, refuse_changed
from energy_iot.ingestion.sources import choose_mappings
from energy_iot.pipeline import RunContext, StepReport
from energy_iot.reporting.progress import Advance
from energy_iot.storage.changes import READINGS, record_change
from energy_iot.storage.postgres import Postgres, open_postgres

PARSED_AHEAD: Final = 2  # chunks that wait for the server; more only cost memory
LATE_AFTER: Final = timedelta(days=1)  # less is how files of one day come


def check_source(context: RunContext) -> StepReport:
    """Recognise the files and say which are new; writes nothing.

    Raises:
        InputFileError: A file is missing, empty, damaged, binary or of no known format.
        StorageError: The database cannot be asked what is loaded.
    """
    if not context.options.files:
        return StepReport(0, 0, skipped="no files given")
    sources, warnings = _inspect_all(context, verify=True)
    with open_postgres(context.settings) as postgres:
        known = _known_files(postgres, sources)
    reports = [
        _report(source, ALREADY_LOADED if is_known else NEW) for source, is_known in _with_repeats(sources, known)
    ]
    return StepReport(0, 0, tuple(warnings), {"files": [report.details for report in reports]}, _nothing_new(reports))


def ingest_data(context: RunContext) -> StepReport:
    """Load each new file into raw_data in a transaction of its own; a file loaded before is left alone.

    All files are recognised before the first is loaded.

    Raises:
        InputFileError: A file cannot be used, or too many of its lines are unreadable; says which files were loaded.
        StorageError: PostgreSQL refuses or went away; the file in work is not loaded.
    """
    if not context.options.files:
        return StepReport(0, 0, skipped="no files given")
    sources, warnings = _inspect_all(context, verify=False)
    reports: list[FileReport] = []
    with open_postgres(context.settings) as postgres:
        known = _known_files(postgres, sources)
        for place, (source, is_known) in enumerate(_with_repeats(sources, known)):
            if is_known:
                reports.append(_report(source, ALREADY_LOADED))
                continue
            try:
                if isinstance(source, RegistryFile):
                    reports.append(load_registry(source, context, postgres))
                else:
                    reports.append(_load(source, context, postgres))
            except LeftForLaterError:
                reports.append(_report(source, LEFT_FOR_LATER))
            except EnergyIoTError as error:
                if len(sources) == 1:
                    raise
                done = [report.file for report in reports if report.status == LOADED]
                rest = [unread.name for unread in sources[place:]]
                raise type(error)(
                    f"{error.problem}\n  loaded: {', '.join(done) or 'none'}; not loaded: {', '.join(rest)}",
                    fix=error.fix,
                ) from error
        loaded = [report for report in reports if report.status == LOADED]
        if any(report.content == READINGS for report in loaded):
            refresh_statistics(postgres, sum(report.loaded for report in loaded if report.content == READINGS))
        if contents := {report.content for report in loaded} - {READINGS}:
            refresh_registry_statistics(postgres, contents)
    for report in reports:
        warnings += _warnings(report)
    return StepReport(
        rows_in=sum(report.lines for report in reports),
        rows_out=sum(report.loaded for report in reports),
        warnings=tuple(warnings),
        details={
            "files": [report.details for report in reports],
            "rejected": sum(report.rejected for report in reports),
            "late": sum(report.late for report in reports),
        },
        skipped=_nothing_new(reports),
    )


def _inspect_all(context: RunContext, *, verify: bool) -> tuple[list[SourceFile | RegistryFile], list[str]]:
    """The recognised files, and what was ignored in and beside them."""
    mappings = choose_mappings(context.options.source)
    paths = expand(context.options.files, context.options.pattern)
    named = {path.expanduser().resolve() for path in context.options.files}
    sources: list[SourceFile | RegistryFile] = []
    strangers: list[tuple[str, UnknownFormatError]] = []
    with context.progress.task("checking files", len(paths), unit="files") as advance:
        for path in paths:
            try:
                sources.append(inspect(path, mappings, verify=verify))
            except UnknownFormatError as error:
                if path.resolve() in named:
                    raise
                # a folder may hold other things, such as a list of meters
                strangers.append((printable_name(path), error))
            advance(1)
    if not sources:
        raise strangers[0][1]
    warnings = [f"{name}: ignored, it has the header of no known source" for name, _ in strangers]
    return sources, warnings + [warning for source in sources for warning in source.warnings]


def _known_files(postgres: Postgres, sources: list[SourceFile | RegistryFile]) -> set[str]:
    with postgres.connect() as connection:
        rows = connection.execute(
            "select sha256 from raw_data.ingested_files where sha256 = any(%s)",
            ([source.fingerprint.sha256 for source in sources],),
        ).fetchall()
    return {sha256 for (sha256,) in rows}


def _with_repeats(
    sources: list[SourceFile | RegistryFile], known: set[str]
) -> Iterator[tuple[SourceFile | RegistryFile, bool]]:
    """Each file and whether its content is known: loaded before, or the same as an earlier one of these."""
    seen = set(known)
    for source in sources:
        yield source, source.fingerprint.sha256 in seen
        seen.add(source.fingerprint.sha256)


def _report(source: SourceFile | RegistryFile, status: Status) -> FileReport:
    content = source.mapping_name if isinstance(source, RegistryFile) else READINGS
    return FileReport(source.name, source.mapping_name, status, content)


def _nothing_new(reports: list[FileReport]) -> str | None:
    if any(report.status in {NEW, LOADED} for report in reports):
        return None
    if later := sum(report.status == LEFT_FOR_LATER for report in reports):
        return f"nothing new: {later} of {len(reports)} files hold later readings than this run takes"
    names = ", ".join(report.file for report in reports[:SHOWN_REJECTS])
    more = f" and {len(reports) - SHOWN_REJECTS} more" if len(reports) > SHOWN_REJECTS else ""
    return f"nothing new: {names}{more} {'was' if len(reports) == 1 else 'were'} loaded before"


def _warnings(report: FileReport) -> list[str]:
    found = []
    if report.rejected:
        found.append(
            f"{report.file}: {report.rejected:,} of {report.lines:,} lines rejected: {'; '.join(report.first_rejects)}"
        )
    if report.without_consumption:
        lacking = "consumption" if report.content == READINGS else "energy"
        found.append(
            f"{report.file}: {report.without_consumption:,} of {report.lines:,} readings have no {lacking}: "
            "kept in raw_data, counted as missing"
        )
    return found


# --- one file ---------------------------------------------------------------------------------------------------------


def _load(source: SourceFile, context: RunContext, postgres: Postgres) -> FileReport:
    """Load a file in one transaction.

    Raises:
        InputFileError: It is damaged, or more of its lines are rejected than the settings allow.
        StorageError: PostgreSQL refuses or went away.
    """
    report = _report(source, LOADED)
    parser = ReadingParser(context.settings, datetime.now(UTC).replace(tzinfo=None))
    with (
        context.progress.task(f"loading {source.name}", source.total_bytes, unit="bytes") as advance,
        explain_refused(f"the readings of {source.name}"),
        postgres.connect() as connection,
    ):
        file_id = register(connection, source, context)
        if file_id is None:  # another process was faster
            return _report(source, ALREADY_LOADED)
        collect_days(connection)
        _copy_readings(connection, source, parser, file_id, report, advance, before=context.options.before)
        if not report.lines:
            raise InputFileError(f"{source.name}: it has a header and no readings", fix="export the readings again")
        refuse_too_many_rejects(report, context.settings.max_rejected_share)
        refuse_changed(source.path, source.fingerprint)
        report.interval_minutes = parser.interval_minutes or context.settings.default_interval_minutes
        layout = describe_layout(source.tables, parser, context.settings, report.interval_minutes)
        connection.execute(
            "update raw_data.ingested_files set interval_minutes = %s, lines_read = %s, readings_loaded = %s, "
            "readings_without_consumption = %s, readings_rejected = %s, first_timestamp = %s, last_timestamp = %s, "
            "layout = %s where file_id = %s",
            (
                report.interval_minutes,
                report.lines,
                report.loaded,
                report.without_consumption,
                report.rejected,
                report.first_timestamp,
                report.last_timestamp,
                Jsonb(layout.model_dump(mode="json")),
                file_id,
            ),
        )
        change = record_change(
            connection,
            "load",
            file_id=file_id,
            file_name=source.name,
            sha256=source.fingerprint.sha256,
            run_id=context.run_id,
        )
        record_days(connection, change)
    return report


@dataclass(frozen=True)
class _Chunk:
    """A parsed batch, ready for the server."""

    batch: Batch
    parsed: Parsed
    columns: tuple[str, ...]
    csv: bytes
    days: pl.DataFrame


def _copy_readings(
    connection: psycopg.Connection,
    source: SourceFile,
    parser: ReadingParser,
    file_id: int,
    report: FileReport,
    advance: Advance,
    *,
    before: datetime | None,
) -> None:
    def prepare() -> Generator[_Chunk]:
        for batch, layout in source.read():
            parsed = parser.parse(batch, layout)
            if not parsed.readings.height:
                yield _Chunk(batch, parsed, (), b"", pl.DataFrame())
                continue
            frame = parsed.readings.with_columns(
                pl.lit(source.name).alias("source_file"), pl.lit(file_id).alias("file_id")
            )
            yield _Chunk(batch, parsed, tuple(frame.columns), to_csv(frame), days_of(parsed.readings))

    on_time_from = _on_time_from(connection)
    first: datetime | None = None
    last: datetime | None = None
    with closing(_ahead(prepare())) as chunks:  # an error stops the thread at once, not when collected
        for chunk in chunks:
            readings, rejects = chunk.parsed.readings, chunk.parsed.rejects
            report.lines += chunk.batch.records
            report.blank += chunk.batch.blank
            report.loaded += readings.height
            report.rejected += len(rejects)
            if readings.height:
                copy_csv(connection, READINGS_TABLE, chunk.columns, chunk.csv)
                copy_frame(connection, DAYS_TABLE, chunk.days)
                report.without_consumption += readings["electricity_consumed"].null_count()
                times = readings["timestamp"]
                report.late += int((times < on_time_from).sum()) if on_time_from else 0
                first, last = _extremes(first, last, times.min(), times.max())
                leave_for_later(last, before)
            if rejects:
                copy_frame(connection, REJECTS_TABLE, reject_frame(rejects, file_id))
                shown = [f"line {reject.line_number}: {reject.reason}" for reject in rejects]
                report.first_rejects += islice(shown, SHOWN_REJECTS - len(report.first_rejects))
            advance(chunk.batch.progress)
    report.first_timestamp = first.isoformat() if first else None
    report.last_timestamp = last.isoformat() if last else None


def _on_time_from(connection: psycopg.Connection) -> datetime | None:
    """Readings before this instant are late; None before the first file."""
    row = connection.execute(
        "select max(last_timestamp) from raw_data.ingested_files where content = %s", (READINGS,)
    ).fetchone()
    return row[0] - LATE_AFTER if row and row[0] else None


def _extremes(first: datetime | None, last: datetime | None, low: Any, high: Any) -> tuple[datetime, datetime]:
    return (min(first, low) if first else low), (max(last, high) if last else high)


def _ahead(chunks: Generator[_Chunk]) -> Generator[_Chunk]:
    """The same chunks, the next ones being made in a thread while the caller is busy with one.

    Parsing and the server's work on a COPY then share the time instead of adding up.
    """
    with closing(chunks), ThreadPoolExecutor(max_workers=1, thread_name_prefix="parse") as executor:
        waiting: deque[Future[_Chunk | None]] = deque()
        try:
            while True:
                while len(waiting) < PARSED_AHEAD:
                    waiting.append(executor.submit(next, chunks, None))
                chunk = waiting.popleft().result()
                if chunk is None:
                    return
                yield chunk
        finally:
            for future in waiting:
                future.cancel()
