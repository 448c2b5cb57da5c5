"""The step forget: what a file brought, and its rejects, out of raw_data again, as if it had never been loaded."""

from dataclasses import asdict, dataclass
from typing import Any

import psycopg

from energy_iot.errors import UsageError
from energy_iot.ingestion.loaded_files import LoadedFile, files_of_run, find_one_file, retries_of
from energy_iot.ingestion.raw_tables import READINGS_TABLE, REJECTS_TABLE, explain_refused
from energy_iot.ingestion.registry import first_day_of, record_node_days
from energy_iot.ingestion.registry_format import FORMATS, NETWORK_READINGS
from energy_iot.pipeline import RunContext, StepReport
from energy_iot.storage.changes import CHANGED_DAYS_TABLE, READINGS, record_change
from energy_iot.storage.postgres import open_postgres


@dataclass(frozen=True)
class ForgottenFile:
    """What was taken out; JSON-able, in the details of the step.

    Attributes:
        file: Its name.
        sha256: Its content.
        readings: Readings taken out.
        rejects: Rejects taken out.
        days: Days of meters, or of network nodes, that its readings lay in.
        reopened: Rejects of other files that this file had resolved, and that are open again.
        content: What it held.
        registry_rows: Rows taken out, if it held no readings.
    """

    file: str
    sha256: str
    readings: int
    rejects: int
    days: int
    reopened: int
    content: str = READINGS
    registry_rows: int = 0

    @property
    def details(self) -> dict[str, Any]:
        """Its figures; of a file of readings, those of readings only."""
        figures, of_registry = asdict(self), ("content", "registry_rows")
        if self.content != READINGS:
            return figures
        return {name: value for name, value in figures.items() if name not in of_registry}


def forget(context: RunContext) -> StepReport:
    """Take the file, or all files of the run, that the options name out of raw_data, in one transaction.

    What `rejects retry` loaded of a file's rejects is part of that file, and goes with it. The file may then be loaded
    again.

    Raises:
        UsageError: No file or run is named, or both; it is not known, or the name fits several files.
        StorageError: PostgreSQL refuses or went away; nothing was taken out.
    """
    given, run_id = context.options.forget_file, context.options.forget_run
    if (given is None) == (run_id is None):
        raise UsageError("forget takes a file or a run", fix="type: energy-iot forget --file NAME, or --run ID")
    with (
        open_postgres(context.settings) as postgres,
        explain_refused("to forget"),
        postgres.connect() as connection,
    ):
        if given is not None:
            named = [find_one_file(connection, given)]
        else:
            assert run_id is not None
            named = files_of_run(connection, run_id)
        known = {file.file_id for file in named}
        along = [file for file in retries_of(connection, sorted(known)) if file.file_id not in known]
        files = [*named, *along]
        # the readings of a file lie together: its index names their pages, and the rest of the table is left alone
        connection.execute("set local enable_seqscan = off")
        with context.progress.task("forgetting", sum(file.rows for file in files), unit="readings") as advance:
            forgotten = []
            for file in files:
                forgotten.append(_forget_file(connection, file, context.run_id))
                advance(file.rows)
    return StepReport(
        rows_in=sum(file.readings + file.registry_rows for file in forgotten),
        rows_out=0,
        warnings=tuple(f"{file.file_name}: {file.rows:,} readings of retried rejects went too" for file in along),
        details={"files": [file.details for file in forgotten], "changed_days": sum(file.days for file in forgotten)},
    )


def _forget_file(connection: psycopg.Connection, file: LoadedFile, run_id: str) -> ForgottenFile:
    rows, days = _take_out(connection, file, run_id)
    rejects = connection.execute(f"delete from {REJECTS_TABLE} where file_id = %s", (file.file_id,)).rowcount
    reopened = connection.execute(
        f"update {REJECTS_TABLE} set resolved_by_file_id = null where resolved_by_file_id = %s", (file.file_id,)
    ).rowcount
    connection.execute("delete from raw_data.ingested_files where file_id = %s", (file.file_id,))
    of_readings = file.content == READINGS
    return ForgottenFile(
        file=file.file_name,
        sha256=file.sha256,
        readings=rows if of_readings else 0,
        rejects=rejects,
        days=days,
        reopened=reopened,
        content=file.content,
        registry_rows=0 if of_readings else rows,
    )


def _take_out(connection: psycopg.Connection, file: LoadedFile, run_id: str) -> tuple[int, int]:
    """Log the change and delete the rows; returns how many, and on how many days they lay."""
    affects_from = None if file.content == READINGS else first_day_of(connection, file.content, file.file_id)
    change = record_change(
        connection,
        "forget",
        file_id=file.file_id,
        file_name=file.file_name,
        sha256=file.sha256,
        run_id=run_id,
        content=file.content,
        affects_from=affects_from,
    )
    if file.content != READINGS:
        days = record_node_days(connection, change, file.file_id) if file.content == NETWORK_READINGS else 0
        table = FORMATS[file.content].table
    else:
        table = READINGS_TABLE
        days = connection.execute(
            f"insert into {CHANGED_DAYS_TABLE} (change_id, meter_id, reading_date) "
            f"select distinct cast(%s as bigint), meter_id, cast(timestamp as date) from {READINGS_TABLE} "
            "where file_id = %s",
            (change, file.file_id),
        ).rowcount
    return connection.execute(f"delete from {table} where file_id = %s".encode(), (file.file_id,)).rowcount, days
