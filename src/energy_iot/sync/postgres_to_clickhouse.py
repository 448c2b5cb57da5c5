"""Publish the marts to ClickHouse: Arrow into a shadow table, compared with PostgreSQL, then exchanged."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import polars as pl
import pyarrow as pa
from clickhouse_connect.driver.client import Client

from energy_iot.errors import StorageError
from energy_iot.pipeline import RunContext, StepReport
from energy_iot.reporting.progress import Advance
from energy_iot.storage.clickhouse import open_clickhouse
from energy_iot.storage.postgres import Postgres, open_postgres

BATCH_ROWS: Final = 250_000
RELATIVE_TOLERANCE: Final = 1e-9  # the engines add doubles in different orders


@dataclass(frozen=True)
class PublishedTable:
    """A mart and its twin in ClickHouse.

    Attributes:
        mart: Table in PostgreSQL.
        name: Table in ClickHouse.
        columns: Column names and ClickHouse types, in both tables.
        derived: Further column definitions, filled by ClickHouse.
        order_by: Sort key: what dashboards filter on comes first.
        summed: Columns whose sums are compared.
    """

    mart: str
    name: str
    columns: dict[str, str]
    order_by: str
    summed: tuple[str, ...]
    derived: tuple[str, ...] = ()


# DateTime64(6) holds the microseconds of PostgreSQL without loss. What every dashboard adds up is kept uncompressed:
# 20 MB more for 2 million readings, and a daily sum a third faster. The local date is stored because ClickHouse shifts
# date filters on zoned timestamps in some clients.
TABLES: Final = (
    PublishedTable(
        mart="marts.mart_consumption_metrics",
        name="consumption_metrics",
        columns={
            "meter_id": "LowCardinality(String)",
            "period_type": "LowCardinality(String)",
            "period_start": "Date32",
            "consumption_kwh": "Float64",
            "avg_power_kw": "Nullable(Float64)",
            "peak_power_kw": "Nullable(Float64)",
            "load_factor": "Nullable(Float64)",
            "previous_consumption_kwh": "Nullable(Float64)",
            "consumption_change_pct": "Nullable(Float64)",
            "reading_count": "Int64",
            "expected_reading_count": "Int64",
            "completeness": "Nullable(Float64)",
        },
        order_by="(period_type, period_start, meter_id)",
        summed=("consumption_kwh", "reading_count"),
    ),
    PublishedTable(
        mart="marts.mart_anomaly_scores",
        name="anomaly_scores",
        columns={
            "reading_id": "Int64",
            "meter_id": "LowCardinality(String)",
            "reading_timestamp": "DateTime64(6, 'UTC')",
            "consumption_kwh": "Float64 codec(NONE)",
            "active_power_kw": "Float64 codec(NONE)",
            "anomaly_score": "Float64",
            "is_anomaly": "Bool",
            "anomaly_type": "LowCardinality(Nullable(String))",
            "hour_of_week_z_score": "Nullable(Float64)",
            "consumption_vs_avg_ratio": "Nullable(Float64)",
            "temperature_c": "Nullable(Float64)",
            "model_version": "Int32",
            "scored_at": "DateTime64(6, 'UTC')",
        },
        derived=("reading_date Date32 default toDate32(reading_timestamp, '{time_zone}')",),
        order_by="(reading_date, meter_id, reading_timestamp)",
        summed=("consumption_kwh", "anomaly_score"),
    ),
)


@dataclass
class Fingerprint:
    """Rows, sums and a hash of all values of a table, whatever the order of its rows."""

    rows: int = 0
    content_hash: int = 0

    def add(self, frame: pl.DataFrame) -> None:
        """Count in one batch of rows."""
        if not frame.is_empty():
            self.rows += frame.height
            # a sum of row hashes ignores the order, and unlike XOR it notices a row that is there twice
            self.content_hash = (self.content_hash + int(frame.hash_rows(seed=0).cast(pl.UInt64).sum())) % 2**64


def sync(context: RunContext) -> StepReport:
    """Replace both analytics tables by the marts; readers see the old rows or the new ones, never half.

    Raises:
        StorageError: ClickHouse holds other rows, sums or contents than PostgreSQL; the published tables are as before.
    """
    published: dict[str, Any] = {}
    with open_postgres(context.settings) as postgres, open_clickhouse(context.settings) as clickhouse:
        for table in TABLES:
            expected_sums = _postgres_figures(postgres, table)
            with context.progress.task(f"publishing {table.name}", int(expected_sums["rows"])) as advance:
                sent = _fill_shadow(postgres, clickhouse, table, context.settings.time_zone, advance)
            _compare(clickhouse, table, sent, expected_sums)
            _exchange(clickhouse, table, context.settings.time_zone)
            published[table.name] = {"rows": sent.rows, "content_hash": f"{sent.content_hash:016x}"}
    rows = sum(figures["rows"] for figures in published.values())
    return StepReport(rows_in=rows, rows_out=rows, details={"tables": published})


def _postgres_figures(postgres: Postgres, table: PublishedTable) -> dict[str, float]:
    sums = "".join(f", coalesce(sum({column}), 0)::double precision" for column in table.summed)
    with postgres.connect() as connection:
        row = connection.execute(f"select count(*){sums} from {table.mart}").fetchone()
    assert row is not None
    return dict(zip(("rows", *table.summed), row, strict=True))


def _fill_shadow(
    postgres: Postgres, clickhouse: Client, table: PublishedTable, time_zone: str, advance: Advance
) -> Fingerprint:
    shadow = _shadow(table)
    clickhouse.command(f"drop table if exists {shadow}")  # a killed run may have left one
    clickhouse.command(_definition(table, shadow, time_zone))
    sent = Fingerprint()
    with postgres.connect_arrow() as connection, connection.cursor() as cursor:
        cursor.execute(f"select {', '.join(table.columns)} from {table.mart}")
        for batch in _rebatched(cursor.fetch_record_batch()):
            sent.add(_canonical(pl.from_arrow(batch), table))
            clickhouse.insert_arrow(shadow, batch)
            advance(batch.num_rows)
    return sent


def _rebatched(reader: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Join the driver's small batches: each insert makes a part that ClickHouse must merge later."""
    waiting: list[pa.RecordBatch] = []
    for batch in reader:
        waiting.append(batch)
        if sum(part.num_rows for part in waiting) >= BATCH_ROWS:
            yield pa.Table.from_batches(waiting)
            waiting = []
    if waiting:
        yield pa.Table.from_batches(waiting)


def _canonical(frame: pl.DataFrame | pl.Series, table: PublishedTable) -> pl.DataFrame:
    """One set of types for both engines, so that equal values hash alike (-0.0 counts as 0.0)."""
    assert isinstance(frame, pl.DataFrame)
    return frame.select(_canonical_column(pl.col(name), kind) for name, kind in table.columns.items())


def _canonical_column(column: pl.Expr, kind: str) -> pl.Expr:
    if "String" in kind:
        return column.cast(pl.String)
    if "Date32" in kind:
        return column.cast(pl.Date)
    if "DateTime64" in kind:
        return column.cast(pl.Datetime("us"))
    if "Float64" in kind:
        return column.cast(pl.Float64) + 0.0
    return column.cast(pl.Boolean if "Bool" in kind else pl.Int64)


def _compare(clickhouse: Client, table: PublishedTable, sent: Fingerprint, expected: dict[str, float]) -> None:
    sums = "".join(f", sum({column})" for column in table.summed)
    row = clickhouse.query(f"select count(){sums} from {_shadow(table)}").result_rows[0]
    stored = dict(zip(("rows", *table.summed), row, strict=True))
    differences = [
        f"{name}: {value!r} in PostgreSQL, {stored[name]!r} in ClickHouse"
        for name, value in expected.items()
        if not math.isclose(value, stored[name], rel_tol=0 if name == "rows" else RELATIVE_TOLERANCE)
    ]
    received = Fingerprint()
    with clickhouse.query_arrow_stream(f"select {', '.join(table.columns)} from {_shadow(table)}") as stream:
        for batch in stream:
            received.add(_canonical(pl.from_arrow(batch), table))
    if received != sent:
        differences.append(f"contents: {sent} sent, {received} stored")
    if differences:
        raise StorageError(
            f"ClickHouse does not hold what {table.mart} holds:\n  " + "\n  ".join(differences),
            fix=f"the published table {table.name} is as before; run `energy-iot sync` again",
        )


def _exchange(clickhouse: Client, table: PublishedTable, time_zone: str) -> None:
    clickhouse.command(_definition(table, f"if not exists {table.name}", time_zone))
    clickhouse.command(f"exchange tables {_shadow(table)} and {table.name}")
    clickhouse.command(f"drop table {_shadow(table)}")


def _shadow(table: PublishedTable) -> str:
    return f"{table.name}_incoming"


def _definition(table: PublishedTable, name: str, time_zone: str) -> str:
    columns = [f"{column} {kind}" for column, kind in table.columns.items()]
    derived = [definition.format(time_zone=time_zone) for definition in table.derived]
    return f"create table {name} ({', '.join(columns + derived)}) engine = MergeTree order by {table.order_by}"
