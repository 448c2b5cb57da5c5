"""Counts of days come out the same however readings are cut into batches, in memory that grows with the days alone."""

from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from energy_iot.ml import score_days
from energy_iot.ml.score_days import DayCounts

METERS, HOURS = 40, 24 * 5
READINGS = pl.DataFrame(
    {
        "meter_id": [f"m{number}" for _ in range(HOURS) for number in range(METERS)],
        "reading_timestamp": [
            datetime(2026, 1, 1) + timedelta(hours=hour) for hour in range(HOURS) for _ in range(METERS)
        ],
        "is_anomaly": np.random.default_rng(1).random(METERS * HOURS) < 0.1,
    }
)
EXPECTED = (
    READINGS.group_by("meter_id", reading_date=pl.col("reading_timestamp").dt.date())
    .agg(reading_count=pl.len().cast(pl.Int64), anomaly_count=pl.col("is_anomaly").sum().cast(pl.Int64))
    .sort("meter_id", "reading_date")
)


def batches(frame: pl.DataFrame, rows: int) -> list[pa.RecordBatch]:
    table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
    return [
        batch
        for start in range(0, len(table), rows)
        for batch in table.slice(start, rows).combine_chunks().to_batches()
    ]


@given(rows=st.integers(7, 3000), seed=st.integers(0, 1000), shuffled=st.booleans())
def test_the_cut_and_the_order_do_not_matter(rows: int, seed: int, shuffled: bool) -> None:
    frame = READINGS.sample(fraction=1, shuffle=True, seed=seed) if shuffled else READINGS
    counts = DayCounts()
    for batch in batches(frame, rows):
        counts.add(batch)
    assert counts.total().sort("meter_id", "reading_date").equals(EXPECTED)


def test_memory_grows_with_days_and_not_with_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_days, "BATCH_READINGS", METERS)
    counts, most = DayCounts(), 0
    for batch in batches(READINGS, METERS):  # an hour of all meters: each batch holds a reading of each of their days
        counts.add(batch)
        most = max(most, counts.held_rows)
    assert most <= 2 * EXPECTED.height + 2 * METERS < READINGS.height / 4
    assert counts.total().height == EXPECTED.height
    assert DayCounts().total().height == 0
