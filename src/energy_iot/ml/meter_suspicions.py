"""Bringing ml.meter_suspicions up to date: the second half of the scoring step, in a transaction of its own.

What it reads is one row a meter (intermediate.int_meter_features), so all meters are judged anew whenever anything is
new: each is compared with the fleet as it is now.
"""

from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from energy_iot.ml.config import (
    METER_FEATURES_TABLE,
    RANKING_VERSION,
    SCORE_DAYS_TABLE,
    SUSPICIONS_STATE,
    SUSPICIONS_TABLE,
)
from energy_iot.ml.inspections import RerankReport, outcomes_frame, read_inspections, rerank
from energy_iot.pipeline import RunContext
from energy_iot.settings import Settings
from energy_iot.storage.changes import Pending
from energy_iot.storage.postgres import Postgres

if TYPE_CHECKING:
    from energy_iot.ml.suspicion import Suspicions

RECENT_DAYS: Final = 28
NEW_SUSPICIONS: Final = "new_meter_suspicions"  # a temporary table
NOTABLE_SCORE: Final = 0.5


def suspect_meters(context: RunContext, postgres: Postgres, pending: Pending, fingerprint: str) -> Mapping[str, Any]:
    """Judge all meters and replace ml.meter_suspicions; returns figures for the step's report."""
    from energy_iot.ml.suspicion import judge  # scikit-learn loads when there is something to judge

    settings = context.settings
    with postgres.connect_arrow() as connection, connection.cursor() as cursor:
        meters = read_meter_features(cursor)
        found = judge(meters, trees=settings.trees, seed=settings.random_seed)
        judged, reranking = learn_from_inspections(found, meters, postgres, settings)
        ranked_at = datetime.now(UTC).replace(tzinfo=None)
        table = judged.join(meters.select("meter_id", "strange_reading_share"), on="meter_id").with_columns(
            pl.lit(RANKING_VERSION, dtype=pl.Int32).alias("model_version"),
            pl.lit(ranked_at, dtype=pl.Datetime("us")).alias("ranked_at"),
        )
        names = ", ".join(table.columns)
        cursor.execute(
            f"create temp table {NEW_SUSPICIONS} on commit drop as select {names} from {SUSPICIONS_TABLE} limit 0"
        )
        if table.height:
            rows = table.to_arrow(compat_level=pl.CompatLevel.oldest())
            cursor.adbc_ingest(NEW_SUSPICIONS, rows, mode="append", temporary=True)
        cursor.execute(f"truncate {SUSPICIONS_TABLE}")
        cursor.execute(f"insert into {SUSPICIONS_TABLE} ({names}) select {names} from {NEW_SUSPICIONS}")
        cursor.execute(f"analyze {SUSPICIONS_TABLE}")
        cursor.execute(  # values are our own, so none needs quoting
            "insert into quality.derived_states (name, change_id, fingerprint) "
            f"values ('{SUSPICIONS_STATE}', {pending.until}, '{fingerprint}') on conflict (name) do update set "
            "change_id = excluded.change_id, fingerprint = excluded.fingerprint, updated_at = now() at time zone 'utc'"
        )
        connection.commit()
    return {
        "meters": table.height,
        "suspects": table.filter(pl.col("suspicion_score") >= NOTABLE_SCORE).height,
        "suppressed": table["suppressed_cause"].drop_nulls().value_counts(sort=True).rows(),
        "ranking_version": RANKING_VERSION,
        "reranking": reranking.to_details(),
    }


def learn_from_inspections(
    found: "Suspicions", meters: pl.DataFrame, postgres: Postgres, settings: Settings
) -> tuple[pl.DataFrame, RerankReport]:
    """The suspicions with chances of theft learned from inspections as scores, where these prove better; and why."""
    with postgres.connect() as connection:
        outcomes = outcomes_frame(read_inspections(connection))
    evidence = {f"{name}_strength": values for name, values in found.strengths.items()}
    evidence |= {f"{name}_certainty": values for name, values in found.certainties.items()}
    done = rerank(
        found.table.select("meter_id", "suspicion_score", "forest_rank").with_columns(
            pl.Series(name, values) for name, values in evidence.items()
        ),
        outcomes,
        features=["forest_rank", *evidence],
        last_day=max(meters["as_of_date"].to_list(), default=date.max),  # without meters no outcome is of their time
        min_inspections=settings.min_inspections,
        min_inspected_thefts=settings.min_inspected_thefts,
        seed=settings.random_seed,
    )
    if done.probabilities is None:
        return found.table, done.report
    learned = found.table.join(done.probabilities, on="meter_id", maintain_order="left").with_columns(
        suspicion_score="theft_probability"
    )
    return learned.drop("theft_probability"), done.report


def read_meter_features(cursor: Any) -> pl.DataFrame:
    """intermediate.int_meter_features with strange_reading_share, the share of anomalies among recent readings."""
    cursor.execute(
        "select features.*, cast(strange.anomaly_count as double precision) / nullif(strange.reading_count, 0) "
        f"as strange_reading_share from {METER_FEATURES_TABLE} as features left join ("
        "select days.meter_id, sum(days.anomaly_count) as anomaly_count, sum(days.reading_count) as reading_count "
        f"from {SCORE_DAYS_TABLE} as days "
        f"where days.reading_date > (select max(as_of_date) - {RECENT_DAYS} from {METER_FEATURES_TABLE}) "
        "group by days.meter_id) as strange on features.meter_id = strange.meter_id order by features.meter_id"
    )
    return pl.DataFrame(pl.from_arrow(cursor.fetch_arrow_table()))
