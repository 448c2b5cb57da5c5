"""The tables that ClickHouse holds for dashboards: their definitions, and which of their rows a change affects."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from energy_iot.settings import Settings
from energy_iot.storage.changes import CHANGED_DAYS_TABLE, CHANGED_NODE_DAYS_TABLE, changed_days_query

AFFECTED: Final = "affected_days"


@dataclass(frozen=True)
class DerivedColumn:
    """A column that ClickHouse fills itself.

    Attributes:
        name: Its name.
        kind: Its type.
        default: SQL of its value; {time_zone} stands for the setting.
        description: What it means.
    """

    name: str
    kind: str
    default: str
    description: str

    def definition(self, time_zone: str) -> str:
        """As in CREATE TABLE."""
        return f"{self.name} {self.kind} default {self.default.format(time_zone=time_zone)}"


@dataclass(frozen=True)
class PublishedTable:
    """A mart and its twin in ClickHouse.

    Attributes:
        mart: Table in PostgreSQL.
        name: Table in ClickHouse.
        columns: Column names and ClickHouse types, in both tables.
        date: Date column that ClickHouse partitions by; None for a table that is too small for it.
        order_by: Sort key: what dashboards filter on comes first.
        summed: Columns whose sums are compared.
        mart_day: SQL of a row's day in PostgreSQL, written as in the mart's index on (meter_id, day).
        day: SQL of the same day in ClickHouse.
        affected_days: Makes SQL for PostgreSQL: the (meter_id, day) that changes after a given one affect; None for a
            table that is published whole each time, for which neither of the days is needed.
        by_meter: Whether the affected days are those of meters; else the query gives (day) alone.
        derived: Further columns, which ClickHouse fills.
    """

    mart: str
    name: str
    columns: dict[str, str]
    date: str | None
    order_by: str
    summed: tuple[str, ...]
    mart_day: str = ""
    day: str = ""
    affected_days: Callable[[int, Settings], str] | None = None
    by_meter: bool = True
    derived: tuple[DerivedColumn, ...] = ()

    @property
    def state_name(self) -> str:
        """Name of its row in quality.derived_states."""
        return f"clickhouse.{self.name}"

    @property
    def mart_state_name(self) -> str:
        """Name of the mart's row there."""
        return self.mart.rpartition(".")[2]

    @property
    def shadow(self) -> str:
        """Table that is filled and compared before it takes the published one's place."""
        return f"{self.name}_incoming"

    @property
    def affected(self) -> str:
        """Table in ClickHouse with the affected days."""
        return f"{self.name}_{AFFECTED}"

    @property
    def affected_columns(self) -> dict[str, str]:
        """Its columns and their types there."""
        return ({"meter_id": "String"} if self.by_meter else {}) | {"day": "Date32"}

    @property
    def is_affected(self) -> str:
        """Condition in ClickHouse; the dates, wide enough for all time zones, let it skip parts and blocks."""
        if not self.by_meter:
            return f"{self.day} in (select day from {self.affected})"
        return (
            f"(meter_id, {self.day}) in (select meter_id, day from {self.affected}) "
            f"and {self.date} in (select arrayJoin([day - 1, day, day + 1]) from {self.affected})"
        )

    @property
    def affected_rows(self) -> str:
        """FROM clause in PostgreSQL; OFFSET 0 keeps the planner to one look-up in the mart's index for each day."""
        of_meter = "candidates.meter_id = keys.meter_id and " if self.by_meter else ""
        return (
            f"(select found.* from {AFFECTED} as keys cross join lateral (select * from {self.mart} as candidates "
            f"where {of_meter}{self.mart_day} = keys.day offset 0) as found) as mart"
        )

    def definition(self, time_zone: str) -> str:
        """Columns and engine, as they follow the name in CREATE TABLE.

        Quarters are the unit in which an incremental sync rewrites rows. Measured on 2 and 8 million readings of four
        years: months cost a daily sum 15 ms more, years make that rewrite take two to three times as long.
        """
        columns = [f"{column} {kind}" for column, kind in self.columns.items()]
        derived = [column.definition(time_zone) for column in self.derived]
        quarters = f" partition by toYear({self.date}) * 10 + toQuarter({self.date})" if self.date else ""
        return f"({', '.join(columns + derived)}) engine = MergeTree{quarters} order by {self.order_by}"


def _days_of_scores(since: int, settings: Settings) -> str:
    """A score follows the habits of `history_days`, and those the hour-of-week history of as many days before."""
    days = changed_days_query(since, reach_days=2 * settings.history_days)
    return f"select meter_id, reading_date as day from ({days}) as days"


def _days_of_periods(since: int, settings: Settings) -> str:
    """Starts of days, weeks and months that hold a changed day, or are compared with a period that does."""
    return (
        "select distinct meter_id, cast(day as date) as day from ("
        "select distinct meter_id, cast(date_trunc('month', reading_date) as timestamp) as month_start "
        f"from ({changed_days_query(since)}) as changed) as months, "
        "generate_series(month_start - interval '6 days', month_start + interval '2 months' - interval '1 day', "
        "interval '1 day') as day"
    )


def _months_of_losses(since: int, _settings: Settings) -> str:
    """Months that hold a day with changed readings, of customers or of the network, or whose registry is another one.

    The last of these is not asked of the mart, where rows may be gone that are still published.
    """
    months = " union ".join(
        f"select cast(date_trunc('month', reading_date) as date) as day from {table} where change_id > {int(since)}"
        for table in (CHANGED_DAYS_TABLE, CHANGED_NODE_DAYS_TABLE)
    )
    return (
        f"{months} union select cast(month as date) from generate_series("
        f"(select date_trunc('month', min(affects_from)) from raw_data.changes where change_id > {int(since)}), "
        "now() at time zone 'utc' + interval '1 month', interval '1 month') as month"
    )


# DateTime64(6) holds the microseconds of PostgreSQL without loss. What every dashboard adds up is kept uncompressed:
# 20 MB more for 2 million readings, and a daily sum a third faster. The local date is stored because ClickHouse shifts
# date filters on zoned timestamps in some clients; so are the local hour and weekday (0 Sunday to 6), since most
# charts of habits group by them.
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
        date="period_start",
        order_by="(period_type, period_start, meter_id)",
        summed=("consumption_kwh", "reading_count"),
        mart_day="period_start",
        day="period_start",
        affected_days=_days_of_periods,
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
        derived=(
            DerivedColumn(
                "reading_date",
                "Date32",
                "toDate32(reading_timestamp, '{time_zone}')",
                "Local day of reading_timestamp, by the setting time_zone.",
            ),
            DerivedColumn(
                "hour_of_day",
                "UInt8",
                "toHour(reading_timestamp, '{time_zone}')",
                "Local hour in which the interval starts, 0-23.",
            ),
            DerivedColumn(
                "day_of_week",
                "UInt8",
                "toDayOfWeek(reading_timestamp, 2, '{time_zone}')",
                "Local day of the week, 0-6; 0 is Sunday.",
            ),
        ),
        date="reading_date",
        order_by="(reading_date, meter_id, reading_timestamp)",
        summed=("consumption_kwh", "anomaly_score"),
        mart_day="cast(reading_timestamp as date)",
        day="toDate32(reading_timestamp)",
        affected_days=_days_of_scores,
    ),
    PublishedTable(
        mart="marts.mart_losses",
        name="losses",
        columns={
            "node_id": "String",
            "node_type": "LowCardinality(String)",
            "parent_id": "Nullable(String)",
            "month_start": "Date32",
            "energy_in_kwh": "Float64",
            "energy_metered_kwh": "Float64",
            "technical_loss_kwh": "Float64",
            "unexplained_kwh": "Float64",
            "unexplained_share": "Nullable(Float64)",
            "unexplained_value": "Nullable(Float64)",
            "currency": "LowCardinality(Nullable(String))",
            "completeness": "Float64",
            "meter_count": "Int64",
        },
        date="month_start",
        order_by="(month_start, node_type, node_id)",
        summed=("energy_in_kwh", "unexplained_kwh"),
        mart_day="month_start",
        day="month_start",
        affected_days=_months_of_losses,
        by_meter=False,
    ),
    PublishedTable(
        mart="marts.mart_inspection_list",
        name="inspection_list",
        columns={
            "meter_id": "String",
            "suspicion_rank": "Int64",
            "suspicion_score": "Float64",
            "confidence": "Float64",
            "reasons": "Nullable(String)",
            "suspected_since": "Nullable(Date32)",
            "lost_kwh": "Nullable(Float64)",
            "lost_value": "Nullable(Float64)",
            "currency": "LowCardinality(Nullable(String))",
            "transformer_id": "Nullable(String)",
            "transformer_unexplained_share": "Nullable(Float64)",
            "customer_class": "LowCardinality(Nullable(String))",
            "last_inspected_on": "Nullable(Date32)",
            "last_found_theft": "Nullable(Bool)",
            "suppressed_cause": "LowCardinality(Nullable(String))",
            "as_of_date": "Date32",
            "model_version": "Int32",
            "ranked_at": "DateTime64(6, 'UTC')",
        },
        date=None,
        order_by="(suspicion_rank, meter_id)",
        summed=("suspicion_score", "suspicion_rank"),
    ),
    PublishedTable(
        mart="marts.mart_meters",
        name="meters",
        columns={
            "meter_id": "String",
            "transformer_id": "Nullable(String)",
            "feeder_id": "LowCardinality(Nullable(String))",
            "customer_class": "LowCardinality(Nullable(String))",
            "contracted_power_kw": "Nullable(Float64)",
            "is_prepaid": "Nullable(Bool)",
            "latitude": "Nullable(Float64)",
            "longitude": "Nullable(Float64)",
            "valid_from": "Nullable(Date32)",
            "valid_to": "Nullable(Date32)",
        },
        date=None,
        order_by="meter_id",
        summed=("latitude", "longitude"),
    ),
)
