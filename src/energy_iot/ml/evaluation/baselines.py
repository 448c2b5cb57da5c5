"""What the suspicion score must beat: simple rankings from the same home's tables.

Each gives a score by meter, higher is more suspect; a meter that a method cannot judge has none, and comes last.
"""

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow as pa

from energy_iot.ml.batches import map_ahead
from energy_iot.ml.config import BATCH_READINGS, FEATURE_TABLE
from energy_iot.ml.features import Matrix
from energy_iot.ml.train_anomaly_model import fit, scores
from energy_iot.storage.postgres import Postgres

DAYS_TABLE: Final = "intermediate.int_readings_daily"
SCORED_TABLE: Final = "marts.mart_anomaly_scores"

LAST_DAYS: Final = 14
DAYS_BEFORE: Final = 28

# The seeds' recipe: one forest over all readings, on raw columns, 100 trees, random state 42. Its contamination of 0.05
# only moves the threshold, which a ranking does not use.
RECIPE_TREES: Final = 100
RECIPE_SEED: Final = 42
RECIPE_SAMPLE_READINGS: Final = 200_000  # each tree sees 256 of them, so more make no other forest
STRANGEST_SHARE: Final = 0.01
RECIPE_COLUMNS: Final = (
    "consumption_kwh",
    "avg_consumption_1h",
    "avg_consumption_24h",
    "std_consumption_24h",
    "consumption_vs_avg_ratio",
    "hour_of_day",
    "day_of_week",
    "is_weekend",
)

Scores = Mapping[str, float]


@dataclass(frozen=True)
class Baseline:
    """A simple ranking.

    Attributes:
        name: In tables.
        description: What it does, for a person.
        rank: Gives the scores by meter of a home whose pipeline has run.
    """

    name: str
    description: str
    rank: Callable[[Postgres], Scores]


def random_order(postgres: Postgres) -> Scores:
    """No score for anybody: all are tied, and figures of ties are expectations over all orders."""
    return {}


def read_days(postgres: Postgres) -> pl.DataFrame:
    """Daily consumption: meter_id, reading_date, daily_kwh per 24 h covered; days half missing are left out."""
    return _read(
        postgres,
        "select meter_id, reading_date, daily_consumption_kwh / covered_hours * 24 as daily_kwh "
        f"from {DAYS_TABLE} where completeness >= 0.5",
    )


def biggest_drop(days: pl.DataFrame) -> Scores:
    """How much less the last 14 days hold than the 28 before, as a share of those, by meter.

    Args:
        days: As of `read_days`.

    Example:
        >>> from datetime import date, timedelta
        >>> dates = [date(2025, 1, 1) + timedelta(days=day) for day in range(42)]
        >>> kwh = [10.0] * 28 + [4.0] * 14
        >>> biggest_drop(pl.DataFrame({"meter_id": ["m"] * 42, "reading_date": dates, "daily_kwh": kwh}))
        {'m': 0.6}
    """
    age = (pl.col("reading_date").max() - pl.col("reading_date")).dt.total_days()
    last, before = age < LAST_DAYS, age.is_between(LAST_DAYS, LAST_DAYS + DAYS_BEFORE - 1)
    means = (
        days.with_columns(last.alias("is_last"), before.alias("is_before"))
        .group_by("meter_id")
        .agg(
            pl.col("daily_kwh").filter("is_last").mean().alias("last"),
            pl.col("daily_kwh").filter("is_before").mean().alias("before"),
        )
    )
    return _scores(means, 1 - pl.col("last") / pl.col("before"))


def z_score(days: pl.DataFrame) -> Scores:
    """How many standard deviations the mean of the last 14 days lies below that of all days before, by meter.

    Below, not either way: most theft lowers what is registered, so this is the stronger of the two.

    Args:
        days: As of `read_days`.
    """
    age = (pl.col("reading_date").max() - pl.col("reading_date")).dt.total_days()
    by_meter = days.with_columns((age < LAST_DAYS).alias("is_last")).group_by("meter_id")
    moments = by_meter.agg(
        pl.col("daily_kwh").filter("is_last").mean().alias("last"),
        pl.col("daily_kwh").filter(~pl.col("is_last")).mean().alias("mean"),
        pl.col("daily_kwh").filter(~pl.col("is_last")).std().alias("std"),
    )
    return _scores(moments, (pl.col("mean") - pl.col("last")) / pl.col("std"))


def strange_share(postgres: Postgres) -> Scores:
    """Share of a meter's readings that this pipeline's forest over readings calls anomalies."""
    counted = _read(
        postgres,
        "select meter_id, avg(case when is_anomaly then 1.0 else 0.0 end)::double precision as share "
        f"from {SCORED_TABLE} group by meter_id",
    )
    return _scores(counted, pl.col("share"))


def seeds_recipe(postgres: Postgres) -> Scores:
    """One forest over all readings, raw columns; a meter's score is the mean of its strangest 1 % of readings."""
    columns = ", ".join(RECIPE_COLUMNS)
    instant = "cast(date_part('epoch', reading_timestamp) as bigint)"
    hashed = f"hashint8extended({instant}, hashtextextended(meter_id, {RECIPE_SEED}))"
    with postgres.connect_arrow() as connection, connection.cursor() as cursor:
        cursor.execute(
            f"select {columns} from {FEATURE_TABLE} order by {hashed}, meter_id, reading_timestamp "
            f"limit {RECIPE_SAMPLE_READINGS}"
        )
        forest = fit(recipe_matrix(cursor.fetch_arrow_table()), trees=RECIPE_TREES, seed=RECIPE_SEED)
        cursor.execute(f"select meter_id, {columns} from {FEATURE_TABLE}")
        batches = cursor.fetch_record_batch()

        def score_part(batch: pa.RecordBatch) -> pl.DataFrame:
            meter_ids: Any = pl.from_arrow(batch["meter_id"])
            return pl.DataFrame(
                {"meter_id": meter_ids, "score": scores(forest, recipe_matrix(batch)).astype(np.float32)}
            )

        parts = (
            part.slice(start, BATCH_READINGS) for part in batches for start in range(0, part.num_rows, BATCH_READINGS)
        )
        scored = pl.concat(map_ahead(score_part, parts, threads=os.cpu_count() or 1))
    return strangest_mean(scored)


def recipe_matrix(table: pa.Table | pa.RecordBatch) -> Matrix:
    """Shape (readings, columns of the recipe); 0 where a value is missing, as the recipe fills it."""
    frame: Any = pl.from_arrow(table)
    matrix: Matrix = frame.select(pl.col(*RECIPE_COLUMNS).cast(pl.Float32).fill_null(0).fill_nan(0)).to_numpy()
    return matrix


def strangest_mean(scored: pl.DataFrame) -> Scores:
    """Mean of the highest 1 % of scores of each meter, of one score at least.

    Args:
        scored: meter_id, score; one row a reading.

    Example:
        >>> strangest_mean(pl.DataFrame({"meter_id": ["a"] * 200, "score": [0.5] * 198 + [0.75, 1.0]}))
        {'a': 0.875}
    """
    strangest = scored.group_by("meter_id").agg(
        pl.col("score").top_k((pl.len() * STRANGEST_SHARE).ceil().cast(pl.UInt32)).cast(pl.Float64).mean().alias("mean")
    )
    return _scores(strangest, pl.col("mean"))


BASELINES: Final = (
    Baseline("random", "a random order: exact expectations", random_order),
    Baseline(
        "seeds' recipe",
        "one Isolation Forest over all readings (kWh, its means and spread over 1 h and 24 h, hour, weekday), a meter "
        "ranked by the mean of its strangest 1 % of readings",
        seeds_recipe,
    ),
    Baseline(
        "strange readings",
        "the share of a meter's readings that this pipeline's forest over readings, which compares them with the "
        "meter's own past, calls anomalies",
        strange_share,
    ),
    Baseline(
        "z-score",
        f"how many of the meter's own standard deviations the mean day of the last {LAST_DAYS} days lies below that of "
        "all days before",
        lambda postgres: z_score(read_days(postgres)),
    ),
    Baseline(
        "biggest drop",
        f"consumption of the last {LAST_DAYS} days against the {DAYS_BEFORE} before",
        lambda postgres: biggest_drop(read_days(postgres)),
    ),
)


def _read(postgres: Postgres, query: str) -> pl.DataFrame:
    with postgres.connect_arrow() as connection, connection.cursor() as cursor:
        cursor.execute(query)
        frame: Any = pl.from_arrow(cursor.fetch_arrow_table())
    return frame  # type: ignore[no-any-return]  # polars types it as frame or series


def _scores(meters: pl.DataFrame, score: pl.Expr) -> dict[str, float]:
    """Score by meter, of those that have a finite one."""
    scored = meters.select("meter_id", score.alias("score")).sort("meter_id")
    return {meter: value for meter, value in scored.iter_rows() if value is not None and math.isfinite(value)}
