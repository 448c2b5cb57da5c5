"""Files beside the readings into raw_data: registry, network readings, outages, inspections; whole or not at all.

Staging takes the latest received of each key, so a registry may be sent whole each night: what it changes is found
here, and the balance of the network is worked out anew from that day on.
"""

from collections.abc import Collection, Generator
from contextlib import closing
from datetime import UTC, date, datetime
from itertools import islice
from typing import Final

import polars as pl
import psycopg

from energy_iot.errors import InputFileError
from energy_iot.ingestion.file_report import (
    ALREADY_LOADED,
    LOADED,
    SHOWN_REJECTS,
    FileReport,
    leave_for_later,
    refuse_too_many_rejects,
    register,
)
from energy_iot.ingestion.raw_tables import REJECTS_TABLE, copy_frame, explain_refused, reject_frame
from energy_iot.ingestion.registry_format import FORMATS, METERS, NETWORK_NODES, NETWORK_READINGS, RegistryParser
from energy_iot.ingestion.source_files import RegistryFile, refuse_changed
from energy_iot.pipeline import RunContext
from energy_iot.storage.changes import CHANGED_NODE_DAYS_TABLE, record_change
from energy_iot.storage.postgres import Postgres

NODE_DAYS_TABLE: Final = "pg_temp.node_days_of_file"
NETWORK_INDEXES: Final = ("raw_data.network_readings_timestamp", "raw_data.network_readings_file_id")
# Of these the network follows; each with the column whose values its validity is of.
VALID_THINGS: Final = {METERS: "meter_id", NETWORK_NODES: "node_id"}


def load_registry(source: RegistryFile, context: RunContext, postgres: Postgres) -> FileReport:
    """Load a file in one transaction.

    Raises:
        InputFileError: It is damaged, or more of its lines are rejected than the settings allow.
        StorageError: PostgreSQL refuses or went away; nothing of it was loaded.
    """
    content = source.mapping_name
    report = FileReport(source.name, content, LOADED, content)
    parser = RegistryParser(context.settings, datetime.now(UTC).replace(tzinfo=None))
    total = source.total_bytes
    with (
        context.progress.task(f"loading {source.name}", total, unit="bytes") as advance,
        explain_refused(f"the {FORMATS[content].holds} of {source.name}"),
        postgres.connect() as connection,
    ):
        file_id = register(connection, source, context)
        if file_id is None:  # another process was faster
            return FileReport(source.name, content, ALREADY_LOADED, content)
        connection.execute("create temporary table node_days_of_file (node_id text, reading_date date) on commit drop")
        with closing(_loaded(connection, source, parser, file_id, report)) as batches:
            for progress in batches:
                if report.last_timestamp:
                    leave_for_later(datetime.fromisoformat(report.last_timestamp), context.options.before)
                advance(progress)
        if not report.lines:
            raise InputFileError(f"{source.name}: it has a header and no lines", fix="export it again")
        refuse_too_many_rejects(report, context.settings.max_rejected_share)
        refuse_changed(source.path, source.fingerprint)
        report.interval_minutes = parser.interval_minutes
        _complete(connection, file_id, report)
        change = record_change(
            connection,
            "load",
            file_id=file_id,
            file_name=source.name,
            sha256=source.fingerprint.sha256,
            run_id=context.run_id,
            content=content,
            affects_from=first_day_changed_by(connection, content, file_id),
        )
        connection.execute(
            f"insert into {CHANGED_NODE_DAYS_TABLE} (change_id, node_id, reading_date) "
            f"select distinct cast(%s as bigint), node_id, reading_date from {NODE_DAYS_TABLE}",
            (change,),
        )
    return report


def first_day_changed_by(connection: psycopg.Connection, content: str, file_id: int) -> date | None:
    """The first day of validity that a file of meters or nodes, the newest of all, tells anything new of.

    Returns:
        None if it repeats what was known, or is of something else.
    """
    if content not in VALID_THINGS:
        return None
    key = VALID_THINGS[content]
    told = ", ".join(column.name for column in FORMATS[content].columns)
    row = connection.execute(
        f"select min(valid_from) from (select {told} from raw_data.{content} where file_id = %s except "
        f"select {told} from (select distinct on ({key}, valid_from) * from raw_data.{content} where file_id <> %s "
        f"order by {key}, valid_from, id desc) as known) as new".encode(),
        (file_id, file_id),
    ).fetchone()
    return row[0] if row else None


def first_day_of(connection: psycopg.Connection, content: str, file_id: int) -> date | None:
    """The first day of validity in a file of meters or nodes; None for others."""
    if content not in VALID_THINGS:
        return None
    row = connection.execute(
        f"select min(valid_from) from {FORMATS[content].table} where file_id = %s".encode(), (file_id,)
    ).fetchone()
    return row[0] if row else None


def record_node_days(connection: psycopg.Connection, change_id: int, file_id: int) -> int:
    """Log the days that a file's network readings lie in as touched by a change; returns how many."""
    return connection.execute(
        f"insert into {CHANGED_NODE_DAYS_TABLE} (change_id, node_id, reading_date) "
        f"select distinct cast(%s as bigint), node_id, cast(timestamp as date) from raw_data.{NETWORK_READINGS} "
        "where file_id = %s",
        (change_id, file_id),
    ).rowcount


def refresh_registry_statistics(postgres: Postgres, contents: Collection[str]) -> None:
    """Let the next queries find new network readings by index, and plan with the number of what was loaded.

    Left out where the tables are another role's: its autovacuum does the same, later.
    """
    with postgres.connect(autocommit=True) as connection:
        if NETWORK_READINGS in contents:
            connection.execute(
                "select brin_summarize_new_values(oid) from pg_class "
                "where oid = any(cast(%s as regclass[])) and pg_has_role(relowner, 'usage')",
                (list(NETWORK_INDEXES),),
            )
        tables = [FORMATS[content].table for content in sorted(contents)] + [CHANGED_NODE_DAYS_TABLE]
        owned = connection.execute(
            "select cast(cast(oid as regclass) as text) from pg_class "
            "where oid = any(cast(%s as regclass[])) and pg_has_role(relowner, 'usage')",
            (tables,),
        ).fetchall()
        for (table,) in owned:
            connection.execute(f"analyze {table}".encode())


def _loaded(
    connection: psycopg.Connection, source: RegistryFile, parser: RegistryParser, file_id: int, report: FileReport
) -> Generator[int]:
    """Load batch by batch, counting in the report; yields the progress of each."""
    table = FORMATS[source.mapping_name].table
    for batch, layout in source.read():
        rows, rejects = parser.parse(batch, layout)
        report.lines += batch.records
        report.blank += batch.blank
        report.loaded += rows.height
        report.rejected += len(rejects)
        if rows.height:
            origin = (pl.lit(source.name).alias("source_file"), pl.lit(file_id).alias("file_id"))
            copy_frame(connection, table, rows.with_columns(*origin))
            if report.content == NETWORK_READINGS:
                _count_in(report, rows)
                days = rows.select("node_id", reading_date=pl.col("timestamp").dt.date()).unique()
                copy_frame(connection, NODE_DAYS_TABLE, days)
        if rejects:
            copy_frame(connection, REJECTS_TABLE, reject_frame(rejects, file_id))
            shown = (f"line {reject.line_number}: {reject.reason}" for reject in rejects)
            report.first_rejects += islice(shown, SHOWN_REJECTS - len(report.first_rejects))
        yield batch.progress


def _count_in(report: FileReport, readings: pl.DataFrame) -> None:
    report.without_consumption += readings["energy_in_kwh"].null_count()
    first, last = (time.isoformat() for time in readings.select(pl.min("timestamp"), last=pl.max("timestamp")).row(0))
    report.first_timestamp = min(report.first_timestamp or first, first)
    report.last_timestamp = max(report.last_timestamp or last, last)


def _complete(connection: psycopg.Connection, file_id: int, report: FileReport) -> None:
    connection.execute(
        "update raw_data.ingested_files set interval_minutes = %s, lines_read = %s, registry_rows_loaded = %s, "
        "readings_rejected = %s, first_timestamp = %s, last_timestamp = %s where file_id = %s",
        (
            report.interval_minutes,
            report.lines,
            report.loaded,
            report.rejected,
            report.first_timestamp,
            report.last_timestamp,
            file_id,
        ),
    )
