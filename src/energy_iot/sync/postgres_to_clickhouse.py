"""Publish the marts to ClickHouse: what changed, or all, into a shadow table that is compared and then exchanged.

The shadow of an incremental sync shares the published table's files: quarters that nothing changed are hard links,
those with affected rows are copied without them, and the new rows are added. Killed at any moment, the published table
is as before or as after; a shadow that was left is dropped by the next sync.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import polars as pl
import pyarrow as pa
from clickhouse_connect.driver.client import Client

from energy_iot.errors import StorageError
from energy_iot.pipeline import RunContext, StepReport
from energy_iot.storage.changes import (
    DerivedState,
    changed_days_query,
    find_pending,
    fingerprint_of,
    read_state,
    write_state,
)
from energy_iot.storage.clickhouse import clickhouse_place, open_clickhouse
from energy_iot.storage.postgres import Postgres, open_postgres
from energy_iot.sync.published_tables import AFFECTED, TABLES, PublishedTable

BATCH_ROWS: Final = 250_000
TOLERANCE: Final = 1e-9  # the engines add doubles in different orders
ANY_QUARTERS: Final = {"max_partitions_per_insert_block": 0}  # decades of data may come in one batch
# Each sync adds a part to a quarter. So many are left to lie, then they are merged here: the process ends before
# ClickHouse's own merges come to it, and each part is one more file for a query to open.
MAX_PARTS_PER_QUARTER: Final = 8


@dataclass
class Fingerprint:
    """Rows, and a hash of all their values, whatever their order."""

    rows: int = 0
    content_hash: int = 0

    def add(self, frame: pl.DataFrame) -> None:
        """Count in one batch of rows."""
        if not frame.is_empty():
            self.rows += frame.height
            # a sum of row hashes ignores the order, and unlike XOR it notices a row that is there twice
            self.content_hash = (self.content_hash + int(frame.hash_rows(seed=0).cast(pl.UInt64).sum())) % 2**64


@dataclass(frozen=True)
class Plan:
    """What has to be done for one table.

    Attributes:
        table: Which.
        since: The last change that is published; None when the table must be published whole.
        state: Its state when that is done; the rows are counted then.
    """

    table: PublishedTable
    since: int | None
    state: DerivedState

    @property
    def nothing(self) -> bool:
        """Whether the table is up to date."""
        return self.since == self.state.change_id


@dataclass(frozen=True)
class Published:
    """What was done for one table.

    Attributes:
        total_rows: Rows of the published table.
        deleted_rows: Rows taken out of it; those of a table that was published whole are not counted.
        sent: The rows that came from PostgreSQL; None when it was up to date.
        changed_days: Days of meters that raw_data changed on; None when all were published anew.
        affected_days: Days, of meters where the table has such, that were published anew for it.
    """

    total_rows: int
    deleted_rows: int = 0
    sent: Fingerprint | None = None
    changed_days: int | None = None
    affected_days: int | None = None

    @property
    def mode(self) -> str:
        """How it was published."""
        if self.sent is None:
            return "up to date"
        return "whole" if self.changed_days is None else "incremental"

    @property
    def details(self) -> dict[str, Any]:
        """Figures for the step's report."""
        figures: dict[str, Any] = {"rows": self.total_rows, "mode": self.mode}
        if self.sent is not None:
            figures["rows_deleted"] = self.deleted_rows
            figures["rows_sent"] = self.sent.rows
            figures["sent_content_hash"] = f"{self.sent.content_hash:016x}"
        if self.affected_days is not None:
            figures["affected_days"] = self.affected_days
        return figures


def sync(context: RunContext) -> StepReport:
    """Bring the analytics tables up to the marts; readers see the old rows or the new ones, never half.

    Raises:
        StorageError: ClickHouse holds other rows, sums or contents than PostgreSQL; the published tables are as before.
    """
    with open_postgres(context.settings) as postgres, open_clickhouse(context.settings) as clickhouse:
        plans = [_plan(context, postgres, clickhouse, table) for table in TABLES]
        if all(plan.nothing for plan in plans):
            return StepReport(0, 0, skipped="up to date")
        done = {}
        with postgres.connect_arrow() as reading:
            for plan in plans:
                done[plan.table.name] = published = _publish(context, reading, clickhouse, plan)
                with postgres.connect() as connection:
                    write_state(connection, replace(plan.state, row_count=published.total_rows))
    rows = sum(published.sent.rows for published in done.values() if published.sent)
    following = [table.name for table in TABLES if table.affected_days is not None]
    return StepReport(
        rows_in=rows,
        rows_out=rows,
        details={
            "mode": "whole" if any(done[name].mode == "whole" for name in following) else "incremental",
            "changed_days": max(published.changed_days or 0 for published in done.values()),
            "tables": {name: published.details for name, published in done.items()},
        },
    )


def _publish(context: RunContext, reading: Any, clickhouse: Client, plan: Plan) -> Published:
    table = plan.table
    if plan.nothing:
        assert plan.state.row_count is not None
        return Published(plan.state.row_count)
    for leftover in (table.shadow, table.affected):  # of a killed run
        clickhouse.command(f"drop table if exists {leftover}")
    comment = _quoted(_mark(plan.state))
    clickhouse.command(f"create table {table.shadow} {table.definition(context.settings.time_zone)} comment {comment}")
    with reading.cursor() as cursor:
        if plan.since is None:
            published = _fill_whole(context, cursor, clickhouse, table)
        else:
            published = _fill_incremental(context, cursor, clickhouse, table, plan.since)
    reading.rollback()  # drops the temporary table
    _exchange(clickhouse, table)
    return published


# --- what is to be done ---------------------------------------------------------------------------------------------


def _plan(context: RunContext, postgres: Postgres, clickhouse: Client, table: PublishedTable) -> Plan:
    """The table is as new as its mart, which may be older than raw_data: a step of the run may have been left out."""
    settings = context.settings
    with postgres.connect() as connection:
        mart = read_state(connection, table.mart_state_name)
        fingerprint = fingerprint_of(
            table.definition(settings.time_zone),
            settings.clickhouse_database,
            clickhouse_place(settings),
            mart.fingerprint if mart else None,
        )
        pending = find_pending(connection, table.state_name, fingerprint, full_refresh=context.options.full_refresh)
        state = read_state(connection, table.state_name)
    wanted = DerivedState(table.state_name, mart.change_id if mart else 0, fingerprint)
    if pending.since is None or state is None or mart is None or not mart.fingerprint:
        return Plan(table, None, wanted)
    if table.affected_days is None and pending.since < wanted.change_id:
        return Plan(table, None, wanted)
    if pending.since > wanted.change_id or _published_mark(clickhouse, table) != (_mark(state), state.row_count):
        return Plan(table, None, wanted)  # somebody else restored or published something there
    return Plan(table, pending.since, replace(wanted, row_count=state.row_count))


def _mark(state: DerivedState) -> str:
    """The published table's comment: says by itself what is in it, whatever PostgreSQL remembers."""
    return f"change {state.change_id} of {state.fingerprint}"


def _published_mark(clickhouse: Client, table: PublishedTable) -> tuple[str, int] | None:
    found = clickhouse.query(
        "select comment, total_rows from system.tables where database = {database:String} and name = {name:String}",
        parameters={"database": clickhouse.database, "name": table.name},
    ).result_rows
    return (found[0][0], found[0][1]) if found else None


# --- filling the shadow ---------------------------------------------------------------------------------------------


def _fill_whole(context: RunContext, cursor: Any, clickhouse: Client, table: PublishedTable) -> Published:
    sent = _send(context, cursor, clickhouse, table, table.mart, "true")
    return Published(sent.rows, sent=sent)


def _fill_incremental(
    context: RunContext, cursor: Any, clickhouse: Client, table: PublishedTable, since: int
) -> Published:
    assert table.affected_days is not None
    cursor.execute(f"select count(*) from ({changed_days_query(since)}) as changed")
    changed_days = cursor.fetchone()[0]
    cursor.execute(
        f"create temporary table {AFFECTED} on commit drop as {table.affected_days(since, context.settings)}"
    )
    cursor.execute(f"analyze {AFFECTED}")
    cursor.execute(f"select {', '.join(table.affected_columns)} from {AFFECTED}")
    days = cursor.fetch_arrow_table()
    columns = ", ".join(f"{name} {kind}" for name, kind in table.affected_columns.items())
    clickhouse.command(f"create table {table.affected} ({columns}) engine = MergeTree order by day")
    if days.num_rows:
        clickhouse.insert_arrow(table.affected, days)
    before = _count(clickhouse, table.name)
    deleted = _take_over_unaffected(clickhouse, table)
    sent = _send(context, cursor, clickhouse, table, table.affected_rows, table.is_affected)
    total = _count(clickhouse, table.shadow)
    if total != before - deleted + sent.rows:
        raise _difference(table, [f"rows: {before} - {deleted} + {sent.rows} expected, {total} in ClickHouse"])
    clickhouse.command(f"drop table {table.affected}")
    return Published(total, deleted, sent, changed_days, days.num_rows)


def _take_over_unaffected(clickhouse: Client, table: PublishedTable) -> int:
    """Give the shadow the published rows that stay, and return how many do not.

    Not by DELETE: a mutation looks at every part, one after the other (7 s for 49 parts, 0.1 s this way).
    """
    counted = clickhouse.query(
        f"select _partition_id, count() from {table.name} where {table.is_affected} group by _partition_id"
    ).result_rows
    affected = {row[0]: row[1] for row in counted}
    untouched = [quarter for quarter in _parts_by_quarter(clickhouse, table.name) if quarter not in affected]
    if untouched:
        attached = ", ".join(f"attach partition id {_quoted(quarter)} from {table.name}" for quarter in untouched)
        clickhouse.command(f"alter table {table.shadow} {attached}")
    if affected:
        quarters = ", ".join(map(_quoted, affected))
        clickhouse.command(
            f"insert into {table.shadow} select * from {table.name} "
            f"where _partition_id in ({quarters}) and not ({table.is_affected})",
            settings=ANY_QUARTERS,
        )
    return sum(affected.values())


def _send(
    context: RunContext, cursor: Any, clickhouse: Client, table: PublishedTable, source: str, condition: str
) -> Fingerprint:
    """Bring rows from PostgreSQL into the shadow, and compare: `source` there against `condition` here."""
    expected = _postgres_figures(cursor, table, source)
    sent = Fingerprint()
    with context.progress.task(f"publishing {table.name}", int(expected["rows"])) as advance:
        cursor.execute(f"select {', '.join(table.columns)} from {source}")
        for batch in _rebatched(cursor.fetch_record_batch()):
            sent.add(_canonical(pl.from_arrow(batch), table))
            clickhouse.insert_arrow(table.shadow, batch, settings=ANY_QUARTERS)
            advance(batch.num_rows)
    _merge_small_parts(clickhouse, table)
    _compare(clickhouse, table, condition, sent, expected)
    return sent


def _postgres_figures(cursor: Any, table: PublishedTable, source: str) -> dict[str, float]:
    sums = "".join(f", coalesce(cast(sum({column}) as double precision), 0)" for column in table.summed)
    cursor.execute(f"select count(*){sums} from {source}")
    return dict(zip(("rows", *table.summed), cursor.fetchone(), strict=True))


def _rebatched(reader: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Join the driver's small batches: each insert makes a part that ClickHouse must merge later."""
    waiting: list[pa.RecordBatch] = []
    for batch in reader:
        waiting.append(batch)
        if sum(part.num_rows for part in waiting) >= BATCH_ROWS:
            yield pa.Table.from_batches(waiting)
            waiting = []
    if sum(part.num_rows for part in waiting):
        yield pa.Table.from_batches(waiting)


def _merge_small_parts(clickhouse: Client, table: PublishedTable) -> None:
    for quarter, parts in _parts_by_quarter(clickhouse, table.shadow).items():
        if parts > MAX_PARTS_PER_QUARTER:
            clickhouse.command(f"optimize table {table.shadow} partition id {_quoted(quarter)} final")


def _parts_by_quarter(clickhouse: Client, name: str) -> dict[str, int]:
    return {
        row[0]: row[1]
        for row in clickhouse.query(
            "select partition_id, count() from system.parts "
            "where active and database = {database:String} and table = {table:String} group by partition_id",
            parameters={"database": clickhouse.database, "table": name},
        ).result_rows
    }


# --- comparing, and going live --------------------------------------------------------------------------------------


def _compare(
    clickhouse: Client, table: PublishedTable, condition: str, sent: Fingerprint, expected: dict[str, float]
) -> None:
    sums = "".join(f", coalesce(sum({column}), 0)" for column in table.summed)
    row = clickhouse.query(f"select count(){sums} from {table.shadow} where {condition}").result_rows[0]
    stored = dict(zip(("rows", *table.summed), row, strict=True))
    differences = [
        f"{name}: {value!r} in PostgreSQL, {stored[name]!r} in ClickHouse"
        for name, value in expected.items()
        if not _agree(name, value, stored[name])
    ]
    received = Fingerprint()
    for dates in _date_ranges(clickhouse, table, condition):
        batch = clickhouse.query_arrow(
            f"select {', '.join(table.columns)} from {table.shadow} where {condition} and {dates}"
        )
        received.add(_canonical(pl.from_arrow(batch), table))
    if received != sent:
        differences.append(f"contents: {sent} sent, {received} stored")
    if differences:
        raise _difference(table, differences)


def _agree(name: str, expected: float, stored: float) -> bool:
    if name == "rows":
        return expected == stored
    return math.isclose(expected, stored, rel_tol=TOLERANCE, abs_tol=TOLERANCE)


def _date_ranges(clickhouse: Client, table: PublishedTable, condition: str) -> Iterator[str]:
    """Conditions for ranges of dates with not many more than BATCH_ROWS rows: an Arrow answer is held in memory."""
    if table.date is None:
        yield "true"
        return
    first, rows, last = None, 0, None
    for day, count in clickhouse.query(
        f"select {table.date} as day, count() from {table.shadow} where {condition} group by day order by day"
    ).result_rows:
        if first is not None and last is not None and rows + count > BATCH_ROWS:
            yield f"{table.date} between '{first}' and '{last}'"
            first, rows = None, 0
        first, rows, last = first or day, rows + count, day
    if first is not None and last is not None:
        yield f"{table.date} between '{first}' and '{last}'"


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


def _difference(table: PublishedTable, differences: list[str]) -> StorageError:
    return StorageError(
        f"ClickHouse does not hold what {table.mart} holds:\n  " + "\n  ".join(differences),
        fix=f"the published table {table.name} is as before; run `energy-iot sync --full-refresh`",
    )


def _exchange(clickhouse: Client, table: PublishedTable) -> None:
    if clickhouse.command(f"exists table {table.name}"):
        clickhouse.command(f"exchange tables {table.shadow} and {table.name}")
        clickhouse.command(f"drop table {table.shadow}")
    else:
        clickhouse.command(f"rename table {table.shadow} to {table.name}")


def _count(clickhouse: Client, name: str) -> int:
    return int(clickhouse.query(f"select count() from {name}").result_rows[0][0])


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
