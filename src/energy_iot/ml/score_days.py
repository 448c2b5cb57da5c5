"""ml.score_days: how many readings of each day of a meter the version in force calls anomalies."""

from dataclasses import dataclass, field
from typing import Any, Final

import polars as pl
import pyarrow as pa

from energy_iot.ml.config import BATCH_READINGS, SCORE_DAYS_TABLE

NEW_DAYS: Final = "new_score_days"  # a temporary table
LATEST_DAYS: Final = 30
COLUMNS: Final = "meter_id, reading_date, reading_count, anomaly_count"


@dataclass
class DayCounts:
    """Counts by meter and day over batches of scores, in memory that grows with the days alone.

    Readings come in any order, so that each batch may hold a few of very many days.
    """

    _parts: list[pl.DataFrame] = field(default_factory=list)
    _days: int = 0  # after the last time that parts were added up

    def add(self, batch: pa.RecordBatch) -> None:
        """Count one batch with columns meter_id, reading_timestamp and is_anomaly."""
        scores = pl.DataFrame(pl.from_arrow(batch.select(["meter_id", "reading_timestamp", "is_anomaly"])))
        self._parts.append(
            scores.group_by("meter_id", pl.col("reading_timestamp").dt.date().alias("reading_date")).agg(
                reading_count=pl.len().cast(pl.Int64), anomaly_count=pl.col("is_anomaly").sum().cast(pl.Int64)
            )
        )
        if self.held_rows > 2 * self._days + BATCH_READINGS:
            self._parts = [self.total()]
            self._days = self.held_rows

    @property
    def held_rows(self) -> int:
        """Rows in memory."""
        return sum(part.height for part in self._parts)

    def total(self) -> pl.DataFrame:
        """One row a meter and day: meter_id, reading_date, reading_count, anomaly_count; batches may divide a day."""
        if not self._parts:
            schema = {"meter_id": pl.String, "reading_date": pl.Date, "reading_count": pl.Int64}
            return pl.DataFrame(schema=schema | {"anomaly_count": pl.Int64})
        return pl.concat(self._parts).group_by("meter_id", "reading_date").sum()


def insert_score_days(cursor: Any, counts: DayCounts) -> None:
    """Write counts of days that the table has no rows for."""
    cursor.execute(f"drop table if exists {NEW_DAYS}")
    cursor.execute(f"create temp table {NEW_DAYS} (like {SCORE_DAYS_TABLE}) on commit drop")
    total = counts.total()
    if total.height:
        cursor.adbc_ingest(
            NEW_DAYS, total.to_arrow(compat_level=pl.CompatLevel.oldest()), mode="append", temporary=True
        )
    cursor.execute(f"insert into {SCORE_DAYS_TABLE} ({COLUMNS}) select {COLUMNS} from {NEW_DAYS}")
    cursor.execute(f"analyze {SCORE_DAYS_TABLE}")


def count_latest(cursor: Any) -> dict[str, int]:
    """How many readings the latest days have, and how many of these are anomalies; what monitoring watches."""
    cursor.execute(
        "select cast(coalesce(sum(reading_count), 0) as bigint) as readings, "
        "cast(coalesce(sum(anomaly_count), 0) as bigint) as anomalies "
        f"from {SCORE_DAYS_TABLE} "
        f"where reading_date > (select max(reading_date) from {SCORE_DAYS_TABLE}) - {LATEST_DAYS}"
    )
    (counts,) = cursor.fetch_arrow_table().to_pylist()
    return {"days": LATEST_DAYS, **counts}
