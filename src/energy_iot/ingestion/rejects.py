"""The step retry_rejects: lines that became no readings, tried again as they are or with corrections."""

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import groupby, islice
from pathlib import Path
from typing import Final, NamedTuple

import polars as pl
import psycopg
from psycopg.types.json import Jsonb

from energy_iot.errors import InputFileError
from energy_iot.ingestion.corrections import EXPORT_AGAIN, read_corrections
from energy_iot.ingestion.file_layout import FileLayout, TableLayout
from energy_iot.ingestion.loaded_files import LoadedFile, loaded_files, read_layout, retries_of
from energy_iot.ingestion.parse_readings import Parsed, ReadingParser
from energy_iot.ingestion.raw_tables import (
    DAYS_TABLE,
    READINGS_TABLE,
    REJECTS_TABLE,
    collect_days,
    copy_frame,
    days_of,
    explain_refused,
    record_days,
    refresh_statistics,
)
from energy_iot.ingestion.readers.batch import Batch, printable_name
from energy_iot.ingestion.readers.text import frame_of_fields, split_line
from energy_iot.ingestion.registry_format import FORMATS
from energy_iot.ingestion.sources import Layout, SourceMapping, choose_mappings, recognise
from energy_iot.ingestion.timestamps import RepeatedHours, repeated_times
from energy_iot.pipeline import RunContext, StepReport
from energy_iot.storage.changes import READINGS, record_change
from energy_iot.storage.postgres import open_postgres

FETCHED_ROWS: Final = 5_000
SHOWN_LINES: Final = 3
LOAD_ANEW: Final = "correct the lines in the file itself, `energy-iot forget --file NAME`, then `energy-iot run FILE`"
CORRECTED_REJECTS: Final = (
    "inner join pg_temp.corrected_rejects c on c.reject_id = r.id "
    "and c.source_file = r.source_file and c.line_number = r.line_number"
)
# what the readers put where PostgreSQL cannot hold the line as it is
ESCAPED_BYTE: Final = re.compile(r"\\x[0-9a-f]{2}")
CUT_LINE: Final = re.compile(r"\.\.\. \(cut: [0-9,]+ (?:bytes|characters) in all\)$")


@dataclass
class RetryReport:
    """What became of the rejects of one file; JSON-able, in the details of the step.

    Attributes:
        file: The file whose rejects they are.
        tried: Rejects that were open and could be tried.
        loaded: Those that became readings.
        without_consumption: How many of these have none.
        came_otherwise: Unchanged lines whose reading a file brought meanwhile; resolved, and not loaded.
        still_rejected: The others, which stay open.
        loaded_as: Name of the readings in raw_data; None when there are none.
        first_rejects: Line and reason of the first that are still rejected.
    """

    file: str
    tried: int = 0
    loaded: int = 0
    without_consumption: int = 0
    came_otherwise: int = 0
    still_rejected: int = 0
    loaded_as: str | None = None
    first_rejects: list[str] = field(default_factory=list)


def retry_rejects(context: RunContext) -> StepReport:
    """Read open rejects again, each as its file was read, and load those that are readings now; one transaction.

    With a file of corrections (an export whose raw_text a person changed) these lines, else all as they are: then what
    changed are the limits in the settings, or the null_values of the mapping. What is still rejected stays open. A line
    tried unchanged never replaces a reading that a file brought meanwhile: it is resolved by that.

    Raises:
        InputFileError: The corrections cannot be read, or none of them can be tried.
        StorageError: PostgreSQL refuses or went away; nothing was loaded.
    """
    path = context.options.corrected_rejects
    mappings = choose_mappings(context.options.source)
    with open_postgres(context.settings) as postgres:
        with explain_refused("the readings of retried rejects"), postgres.connect() as connection:
            unusable = _keep_corrections(connection, path) if path else []
            closed: list[str] = []
            collect_days(connection)
            reports: list[RetryReport] = []
            files = _files_to_try(connection, corrected=path is not None)
            with context.progress.task("retrying rejects", sum(count for _, count in files), unit="lines") as advance:
                for file, count in files:
                    layout = read_layout(connection, file.file_id)
                    if file.content != READINGS:
                        held = FORMATS[file.content].holds
                        closed.append(f"{file.file_name}: its rejects cannot be tried: it holds no readings but {held}")
                    elif layout is None:
                        closed.append(f"{file.file_name}: its rejects cannot be tried: an older version loaded it")
                    elif all(table.kind == "parquet" for table in layout.tables):
                        closed.append(f"{file.file_name}: its rejects cannot be tried: rows of parquet are no lines")
                    else:
                        mapping = mappings.get(file.source_name)
                        retry = _Retry(connection, context, file, _with_new_null_values(layout, mapping))
                        reports.append(retry.run(_open_rejects(connection, file, corrected=path is not None)))
                    advance(count)
        if any(report.loaded for report in reports):
            refresh_statistics(postgres, sum(report.loaded for report in reports))
    if path and not reports and (unusable or closed):
        raise InputFileError(
            f"{printable_name(path)}: nothing of it can be tried:\n  " + "\n  ".join(unusable + closed),
            fix=LOAD_ANEW if closed else EXPORT_AGAIN,
        )
    tried = sum(report.tried for report in reports)
    warnings = unusable + [f"{why}; {LOAD_ANEW}" for why in closed]
    return StepReport(
        rows_in=tried,
        rows_out=sum(report.loaded for report in reports),
        warnings=tuple(warnings + [warning for report in reports for warning in _warnings(report)]),
        details={"files": [asdict(report) for report in reports]},
        skipped=None if tried else "no open rejects to try",
    )


def _warnings(report: RetryReport) -> list[str]:
    found = []
    if report.still_rejected:
        found.append(
            f"{report.file}: {report.still_rejected:,} of {report.tried:,} rejects stay open: "
            f"{'; '.join(report.first_rejects)}"
        )
    if report.came_otherwise:
        found.append(
            f"{report.file}: {report.came_otherwise:,} of {report.tried:,} rejects are resolved without loading them: "
            "their readings came in another line or file"
        )
    return found


def _keep_corrections(connection: psycopg.Connection, path: Path) -> list[str]:
    """Bring the corrections to the server; returns what cannot be used of them.

    Raises:
        InputFileError: The file cannot be read, or has two corrections of one line.
    """
    name = printable_name(path)
    connection.execute(
        "create temporary table corrected_rejects "
        "(reject_id bigint, source_file text, line_number bigint, raw_text text) on commit drop"
    )
    with connection.cursor() as cursor, cursor.copy("copy corrected_rejects from stdin") as copy:
        for correction in read_corrections(path):
            copy.write_row((correction.reject_id, correction.source_file, correction.line_number, correction.raw_text))
    twice = connection.execute(
        "select reject_id from corrected_rejects group by reject_id having count(*) > 1 order by reject_id limit %s",
        (SHOWN_LINES,),
    ).fetchall()
    if twice:
        raise InputFileError(
            f"{name}: it has reject_id {', '.join(str(number) for (number,) in twice)} more than once",
            fix="keep one row of each",
        )
    strangers = connection.execute(
        "select k.reject_id, k.source_file, k.line_number, count(*) over () from corrected_rejects k "
        f"where not exists (select from {REJECTS_TABLE} r {CORRECTED_REJECTS} where r.id = k.reject_id) "
        "order by k.reject_id limit %s",
        (SHOWN_LINES,),
    ).fetchall()
    resolved = connection.execute(
        f"select count(*) from {REJECTS_TABLE} r {CORRECTED_REJECTS} where r.resolved_by_file_id is not null"
    ).fetchone()
    unusable = []
    if strangers:
        named = ", ".join(f"{number} ({file} line {line})" for number, file, line, _ in strangers)
        unusable.append(
            f"{name}: {strangers[0][3]:,} rows are no rejects here, such as {named}: "
            "their file was forgotten, or they come from another database"
        )
    if resolved and resolved[0]:
        unusable.append(f"{name}: {resolved[0]:,} of its rejects were resolved before, and are left alone")
    return unusable


def _files_to_try(connection: psycopg.Connection, *, corrected: bool) -> list[tuple[LoadedFile, int]]:
    """The files with open rejects, and how many."""
    counts: dict[int, int] = dict(
        connection.execute(
            f"select r.file_id, count(*) from {REJECTS_TABLE} r {CORRECTED_REJECTS if corrected else ''} "
            "where r.resolved_by_file_id is null group by r.file_id"
        ).fetchall()
    )
    return [(file, counts[file.file_id]) for file in loaded_files(connection, sorted(counts))]


class _Attempt(NamedTuple):
    """One reject: the text as it was received, and the one to read."""

    reject_id: int
    part: str
    line_number: int
    received: str
    text: str

    @property
    def unchanged(self) -> bool:
        return self.text == self.received


def _open_rejects(connection: psycopg.Connection, file: LoadedFile, *, corrected: bool) -> Iterator[list[_Attempt]]:
    """The rejects of a file that are to be tried, in its order, some thousand of one table at a time."""
    text, join = ("c.raw_text", CORRECTED_REJECTS) if corrected else ("r.raw_text", "")
    with connection.cursor(name="open_rejects") as cursor:
        cursor.execute(
            f"select r.id, r.source_file, r.line_number, r.raw_text, {text} from {REJECTS_TABLE} r {join} "
            "where r.file_id = %s and r.resolved_by_file_id is null order by r.id",
            (file.file_id,),
        )
        while rows := cursor.fetchmany(FETCHED_ROWS):
            for _, attempts in groupby((_Attempt(*row) for row in rows), key=lambda attempt: attempt.part):
                yield list(attempts)


def _with_new_null_values(layout: FileLayout, mapping: SourceMapping | None) -> FileLayout:
    """The layout with the texts that stand for no value today; all else is as the file was read."""
    if mapping is None:
        return layout
    values = list(dict.fromkeys(layout.mapping.null_values + mapping.null_values))
    return layout.model_copy(update={"mapping": layout.mapping.model_copy(update={"null_values": values})})


class _Retry:
    """The rejects of one file being tried."""

    def __init__(
        self, connection: psycopg.Connection, context: RunContext, file: LoadedFile, layout: FileLayout
    ) -> None:
        self.connection, self.context, self.file, self.layout = connection, context, file, layout
        self.report = RetryReport(file.file_name)
        self.tables = {table.part: table for table in layout.tables}
        settings = context.settings.model_copy(
            update={"time_zone": layout.time_zone, "default_meter_id": layout.default_meter_id}
        )
        self.parser = ReadingParser(
            settings,
            datetime.now(UTC).replace(tzinfo=None),
            layout.interval_minutes,
            {table.part: table.timestamp_format for table in layout.tables if table.timestamp_format},
        )
        self.content = hashlib.sha256(file.sha256.encode())
        self.size_bytes = 0
        self.file_id: int | None = None  # of the readings, once there are some
        self.family = [file.file_id, *(retry.file_id for retry in retries_of(connection, [file.file_id]))]

    def run(self, batches: Iterable[list[_Attempt]]) -> RetryReport:
        """Try all."""
        for attempts in batches:
            self._try(attempts)
        if self.file_id is not None:
            self._complete(self.file_id)
        return self.report

    def _try(self, attempts: list[_Attempt]) -> None:
        table = self.tables[attempts[0].part]
        self.report.tried += len(attempts)
        readings, reasons = self._parse(attempts, table)
        by_id = {attempt.reject_id: attempt for attempt in attempts}
        brought = self._brought_by_others(
            readings.filter(pl.col("reject_id").is_in([a.reject_id for a in attempts if a.unchanged]))
        )
        self._resolve(brought)
        readings = readings.filter(~pl.col("reject_id").is_in(list(brought)))
        if readings.height:
            self._load(readings, by_id)
        # of an unchanged line the newest reason is the true one; of a corrected one, only the report tells it
        readable = {number: by_id[number] for number in reasons if _unfit(by_id[number]) is None}
        self._tell_reasons({number: reasons[number] for number, attempt in readable.items() if attempt.unchanged})
        self.report.came_otherwise += len(brought)
        self.report.still_rejected += len(reasons)
        shown = (f"line {by_id[number].line_number}: {reason}" for number, reason in reasons.items())
        self.report.first_rejects += islice(shown, SHOWN_LINES - len(self.report.first_rejects))

    # ... reading

    def _parse(self, attempts: list[_Attempt], table: TableLayout) -> tuple[pl.DataFrame, dict[int, str]]:
        """Readings with their reject_id, and the reasons of the others."""
        layout = recognise(table.names, {self.file.source_name: self.layout.mapping}, table.part)
        reasons: dict[int, str] = {}
        rows: list[list[str]] = []
        numbers: list[int] = []
        for attempt in attempts:
            fields = _unfit(attempt) or split_line(attempt.text.encode(), layout)
            if isinstance(fields, str):
                reasons[attempt.reject_id] = fields
            else:
                rows.append(fields)
                numbers.append(attempt.reject_id)
        batch = Batch(table.part, frame_of_fields(rows, numbers, layout), [], 0, 0, raw_text=lambda _: "")
        if not rows:
            return pl.DataFrame(schema={"reject_id": pl.Int64}), reasons
        parsed = self._parse_batch(batch, layout)
        faulty = {reject.line_number: reject.reason for reject in parsed.rejects}
        good = [number for number in numbers if number not in faulty]
        return parsed.readings.with_columns(reject_id=pl.Series(good, dtype=pl.Int64)), reasons | faulty

    def _parse_batch(self, batch: Batch, layout: Layout) -> Parsed:
        """Parse; in an hour that occurs twice, a line takes the instant that the file has not given its meter yet."""
        if self.layout.time_zone != "UTC":
            first = replace(self.parser, repeated=RepeatedHours()).parse(batch, layout).readings
            if first.height:
                self._recall_repeated_hours(first)
        return self.parser.parse(batch, layout)

    def _recall_repeated_hours(self, readings: pl.DataFrame) -> None:
        at_end = self.layout.mapping.timestamp.edge == "end"
        shift = timedelta(minutes=self.layout.interval_minutes if at_end else 0)
        repeated = repeated_times(readings["timestamp"] + shift, self.layout.time_zone)
        asked = pl.DataFrame([readings["meter_id"], *repeated.get_columns()]).drop_nulls().unique()
        if not asked.height:
            return
        taken = self.connection.execute(
            "select asked.meter_id, asked.local from unnest(%s::text[], %s::timestamp[], %s::timestamp[]) "
            f"as asked (meter_id, local, stored) where exists (select from {READINGS_TABLE} r "
            "where r.file_id = any(%s) and r.meter_id = asked.meter_id and r.timestamp = asked.stored)",
            (
                asked["meter_id"].to_list(),
                asked["local"].to_list(),
                (asked["earlier"] - shift).to_list(),
                self.family,
            ),
        )
        for meter_id, local in taken:
            self.parser.repeated.is_second(meter_id, local)  # remembers it

    # ... writing

    def _brought_by_others(self, readings: pl.DataFrame) -> dict[int, int]:
        """By reject, the newest file that brought its reading since the file it was rejected from, that included."""
        if not readings.height:
            return {}
        times = readings["timestamp"]
        rows = self.connection.execute(
            "select asked.reject_id, max(r.file_id) from unnest(%s::bigint[], %s::text[], %s::timestamp[]) "
            f"as asked (reject_id, meter_id, timestamp) inner join {READINGS_TABLE} r "
            "on r.meter_id = asked.meter_id and r.timestamp = asked.timestamp "
            "where r.timestamp between %s and %s and r.file_id >= %s and r.file_id is distinct from %s "
            "and r.electricity_consumed is not null group by asked.reject_id",
            (
                readings["reject_id"].to_list(),
                readings["meter_id"].to_list(),
                times.to_list(),
                times.min(),
                times.max(),
                self.file.file_id,
                self.file_id,
            ),
        )
        return dict(rows.fetchall())

    def _load(self, readings: pl.DataFrame, by_id: dict[int, _Attempt]) -> None:
        file_id = self.file_id = self.file_id or self._register()
        numbers = readings["reject_id"].to_list()
        for number in numbers:
            attempt = by_id[number]
            line = f"{attempt.part}\0{attempt.line_number}\0{attempt.text}\n".encode()
            self.content.update(line)
            self.size_bytes += len(attempt.text.encode())
        readings = readings.drop("reject_id")
        copy_frame(
            self.connection,
            READINGS_TABLE,
            readings.with_columns(
                pl.lit(self._name).alias("source_file"), pl.lit(file_id, dtype=pl.Int64).alias("file_id")
            ),
        )
        copy_frame(self.connection, DAYS_TABLE, days_of(readings))
        self._resolve(dict.fromkeys(numbers, file_id))
        self.report.loaded += len(numbers)
        self.report.without_consumption += readings["electricity_consumed"].null_count()

    @property
    def _name(self) -> str:
        return f"{self.file.file_name} (retried rejects)"

    def _register(self) -> int:
        """Reserve the row of the readings' file; its hash follows from the lines that load."""
        self.report.loaded_as = self._name
        row = self.connection.execute(
            "insert into raw_data.ingested_files (sha256, file_name, source_name, interval_minutes, size_bytes, "
            "lines_read, readings_loaded, readings_without_consumption, readings_rejected, run_id, layout) "
            "values (%s, %s, %s, %s, 0, 0, 0, 0, 0, %s, %s) returning file_id",
            (
                f"retry of {self.file.sha256}",
                self._name,
                self.file.source_name,
                self.layout.interval_minutes,
                self.context.run_id,
                Jsonb(self.layout.model_copy(update={"retried_file_id": self.file.file_id}).model_dump(mode="json")),
            ),
        ).fetchone()
        assert row is not None
        return int(row[0])

    def _complete(self, file_id: int) -> None:
        self.connection.execute(
            "update raw_data.ingested_files f set sha256 = %s, size_bytes = %s, lines_read = %s, readings_loaded = %s, "
            "readings_without_consumption = %s, first_timestamp = found.first, last_timestamp = found.last from "
            f"(select min(timestamp) as first, max(timestamp) as last from {READINGS_TABLE} where file_id = %s) found "
            "where f.file_id = %s",
            (
                self.content.hexdigest(),
                self.size_bytes,
                self.report.loaded,
                self.report.loaded,
                self.report.without_consumption,
                file_id,
                file_id,
            ),
        )
        change = record_change(
            self.connection,
            "load",
            file_id=file_id,
            file_name=self._name,
            sha256=self.content.hexdigest(),
            run_id=self.context.run_id,
        )
        record_days(self.connection, change)

    def _resolve(self, by_reject: dict[int, int]) -> None:
        if by_reject:
            self.connection.execute(
                f"update {REJECTS_TABLE} r set resolved_by_file_id = v.file_id "
                "from unnest(%s::bigint[], %s::bigint[]) as v (id, file_id) where r.id = v.id",
                (list(by_reject), list(by_reject.values())),
            )

    def _tell_reasons(self, reasons: dict[int, str]) -> None:
        if reasons:
            self.connection.execute(
                f"update {REJECTS_TABLE} r set reason = v.reason from unnest(%s::bigint[], %s::text[]) "
                "as v (id, reason) where r.id = v.id and r.reason <> v.reason",
                (list(reasons), list(reasons.values())),
            )


def _unfit(attempt: _Attempt) -> str | None:
    """Why a text cannot be the line of a file."""
    text = attempt.text
    if not text.strip():
        return "the line is blank"
    if "\n" in text or "\r" in text:
        return "it holds a line break: one line is one reading"
    if CUT_LINE.search(text):
        return "only its beginning was kept: write the whole line"
    for escaped in ESCAPED_BYTE.findall(text):
        if escaped in attempt.received:
            return f"{escaped} stands for a byte that is no text: put the character that belongs there"
    return None
