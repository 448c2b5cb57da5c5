"""Writing to raw_data: readings and rejects by COPY, the days that readings lie in, and the upkeep of the table."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Final

import polars as pl
import psycopg
from psycopg import sql

from energy_iot.errors import StorageError
from energy_iot.ingestion.readers.batch import Reject
from energy_iot.storage.changes import CHANGED_DAYS_TABLE
from energy_iot.storage.postgres import Postgres

READINGS_TABLE: Final = "raw_data.meter_readings"
REJECTS_TABLE: Final = "raw_data.rejected_readings"
DAYS_TABLE: Final = "pg_temp.days_of_file"
READING_INDEXES: Final = ("raw_data.meter_readings_timestamp", "raw_data.meter_readings_file_id")
BIG_SHARE: Final = 0.1  # of the table: a load of that much makes the planner's statistics wrong


@contextmanager
def explain_refused(what: str) -> Iterator[None]:
    """Turn a refusal of PostgreSQL into an error for a person; that it is gone or full is told already.

    Raises:
        StorageError: Instead of it.
    """
    try:
        yield
    except psycopg.Error as error:
        raise StorageError(
            f"PostgreSQL refused {what}: {(str(error).splitlines() or [type(error).__name__])[0]}",
            fix="everything is as it was before; `energy-iot doctor` checks the database",
        ) from error


def copy_csv(connection: psycopg.Connection, table: str, columns: Iterable[str], csv: bytes) -> None:
    """Send rows to `table`, schema.name."""
    command = sql.SQL("copy {} ({}) from stdin (format csv)").format(
        sql.Identifier(*table.split(".")), sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    with connection.cursor() as cursor, cursor.copy(command) as copy:
        copy.write(csv)


def copy_frame(connection: psycopg.Connection, table: str, frame: pl.DataFrame) -> None:
    """Send the rows of a frame to `table`, schema.name."""
    copy_csv(connection, table, frame.columns, to_csv(frame))


def to_csv(frame: pl.DataFrame) -> bytes:
    """Rows as COPY reads them."""
    buffer = BytesIO()
    # numbers in their shortest form that reads back equal; nothing is null, "" is an empty text
    frame.write_csv(buffer, include_header=False)
    return buffer.getvalue()


def reject_frame(rejects: list[Reject], file_id: int) -> pl.DataFrame:
    """Rejects as rows of raw_data.rejected_readings."""
    return pl.DataFrame(rejects, schema=list(Reject._fields), orient="row").with_columns(file_id=pl.lit(file_id))


# --- the days of meters that a change touches -------------------------------------------------------------------------


def collect_days(connection: psycopg.Connection) -> None:
    """Have a place for the days of a file until the transaction ends: on the server, so that memory stays bounded."""
    connection.execute("create temporary table days_of_file (meter_id text, reading_date date) on commit drop")


def days_of(readings: pl.DataFrame) -> pl.DataFrame:
    """The distinct (meter_id, reading_date) of readings, dates in UTC."""
    return readings.select("meter_id", reading_date=pl.col("timestamp").dt.date()).unique()


def record_days(connection: psycopg.Connection, change_id: int) -> int:
    """Log the collected days as touched by a change, each once; returns how many."""
    count = connection.execute(
        f"insert into {CHANGED_DAYS_TABLE} (change_id, meter_id, reading_date) "
        f"select distinct cast(%s as bigint), meter_id, reading_date from {DAYS_TABLE}",
        (change_id,),
    ).rowcount
    connection.execute(f"truncate {DAYS_TABLE}")  # one transaction may bring several files
    return count


# --- upkeep -----------------------------------------------------------------------------------------------------------


def refresh_statistics(postgres: Postgres, loaded: int) -> None:
    """Let the next queries find the new readings by index, and plan with their number.

    Left out where the table is another role's: its autovacuum does the same, later.
    """
    with postgres.connect(autocommit=True) as connection:
        # the block ranges of new pages are in no BRIN index before, and would be read by every query
        connection.execute(
            "select brin_summarize_new_values(oid) from pg_class "
            "where oid = any(cast(%s as regclass[])) and pg_has_role(relowner, 'usage')",
            (list(READING_INDEXES),),
        )
        owned = connection.execute(
            "select reltuples from pg_class where oid = cast(%s as regclass) and pg_has_role(relowner, 'usage')",
            (READINGS_TABLE,),
        ).fetchone()
        if owned is None:
            return
        connection.execute(f"analyze {CHANGED_DAYS_TABLE}")
        if loaded > BIG_SHARE * owned[0]:  # -1: never analysed
            connection.execute(f"analyze {READINGS_TABLE} (meter_id, timestamp, file_id)")
