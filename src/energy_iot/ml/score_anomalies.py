"""Score every reading with the newest model that fits the data, and replace ml.reading_scores in one transaction.

What happens when a model cannot simply be used follows one rule. When the *data* has moved on (a column the model
needs is empty now, or the table has outgrown what it was trained on), a new model is trained. When the *model* is not
what it was (file missing or altered, features that this program does not compute, another scikit-learn), it is an
error: only a person can say whether the yardstick may change.
"""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from energy_iot.errors import ModelError
from energy_iot.ml.config import BATCH_READINGS, FEATURE_TABLE, MAX_GROWTH, SCORES_TABLE
from energy_iot.ml.evaluate import evaluate_labels
from energy_iot.ml.features import FEATURES, build_matrix
from energy_iot.ml.model_store import Card, Model, load_model, read_cards
from energy_iot.ml.train_anomaly_model import (
    forest_parameters,
    score_threshold,
    scores,
    train_model,
    training_details,
    training_warnings,
)
from energy_iot.ml.utils import FeatureReader, Survey, open_features
from energy_iot.pipeline import RunContext, StepReport
from energy_iot.reporting.progress import Advance
from energy_iot.settings import Settings
from energy_iot.storage.postgres import Postgres, open_postgres

Item = TypeVar("Item")
Result = TypeVar("Result")

SCHEMA: Final = pa.schema(
    [
        ("reading_id", pa.int64()),
        ("anomaly_score", pa.float64()),
        ("is_anomaly", pa.bool_()),
        ("model_version", pa.int32()),
        ("scored_at", pa.timestamp("us")),
    ]
)
NEW_SCORES: Final = "new_reading_scores"
REPORTED_QUANTILES: Final = (0.01, 0.1, 0.5, 0.9, 0.99, 0.995, 0.999)
HISTOGRAM_BINS: Final = 10_000


@dataclass
class ScoreTally:
    """Counts over all batches, in memory that does not grow with them."""

    readings: int = 0
    anomalies: int = 0
    bins: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(HISTOGRAM_BINS, dtype=np.int64))

    def add(self, batch: pa.RecordBatch) -> None:
        """Count one batch of `SCHEMA`."""
        batch_scores = batch["anomaly_score"].to_numpy()
        self.readings += batch.num_rows
        self.anomalies += batch["is_anomaly"].true_count
        self.bins += np.histogram(batch_scores, bins=HISTOGRAM_BINS, range=(0, 1))[0]

    @property
    def anomaly_share(self) -> float:
        """Anomalies over readings."""
        return self.anomalies / self.readings if self.readings else 0.0

    def quantile(self, probability: float) -> float:
        """The score that this share of the readings does not exceed, to 0.0001."""
        rank = int(np.searchsorted(np.cumsum(self.bins), probability * self.readings))
        return min(rank + 1, HISTOGRAM_BINS) / HISTOGRAM_BINS


def score(context: RunContext) -> StepReport:
    """Score all readings of the feature table; trains first when no model fits the data.

    Raises:
        ModelError: There is nothing to score, or the model that fits is missing, altered, or of another program.
        StorageError: PostgreSQL went away; the scores are as before.
    """
    settings, progress = context.settings, context.progress
    with open_postgres(settings) as postgres, open_features(postgres) as reader:
        survey = reader.survey
        card, reason = choose_card(read_cards(postgres), survey)
        if card is None:
            with progress.task(f"training a model: {reason}", min(survey.readings, settings.training_rows)) as advance:
                model = train_model(postgres, reader, settings)
                advance(model.card["training"]["rows"])
            warnings = training_warnings(model)
        else:
            model = load_model(settings.models_dir, card)
            warnings = model.warnings + outdated_settings(model.card, settings) + unused_features(model, survey)
        threshold = score_threshold(model.card, settings)
        with progress.task("scoring readings", survey.readings) as advance:
            tally = replace_scores(postgres, reader, model, threshold=threshold, advance=advance)
        agreement = evaluate_labels(postgres)
    details: dict[str, Any] = {
        **training_details(model),
        "trained": card is None,
        "threshold": threshold,
        "anomalies": tally.anomalies,
        "anomaly_share": tally.anomaly_share,
        "quantiles": {str(probability): tally.quantile(probability) for probability in REPORTED_QUANTILES},
    }
    if card is None:
        details["training_reason"] = reason
    if agreement is not None:
        details["agreement"] = agreement.to_details()
    return StepReport(tally.readings, tally.readings, warnings + unexpected_share(tally, threshold, settings), details)


def choose_card(cards: Sequence[Card], survey: Survey) -> tuple[Card | None, str]:
    """The newest model that fits the data, or None and why the newest does not.

    Args:
        cards: Of all versions, newest first.
        survey: What the feature table holds now.
    """
    reasons = [misfit(card, survey) for card in cards]
    for card, reason in zip(cards, reasons, strict=True):
        if reason is None:
            return card, ""
    return None, reasons[0] or "" if reasons else "there is none yet"


def misfit(card: Card, survey: Survey) -> str | None:
    """Why the data has moved away from this model, or None when it fits."""
    lacking = lacking_features(card, survey)
    if lacking:
        return f"there is no data now for {', '.join(lacking)} of model v{card['model_version']}"
    trained_on = card["training"]["population_rows"]
    if survey.readings > MAX_GROWTH * trained_on:
        return f"{survey.readings:,} readings now, {trained_on:,} when model v{card['model_version']} was trained"
    return None


def lacking_features(card: Card, survey: Survey) -> list[str]:
    """The card's features for which no reading has a value now, each with the columns it is computed from."""
    inputs = {feature.name: ", ".join(feature.inputs) for feature in FEATURES}
    names = [entry["name"] for entry in card["features"]]
    return [f"{name} ({inputs[name]})" for name in names if survey.known.get(name) == 0]


def outdated_settings(card: Card, settings: Settings) -> tuple[str, ...]:
    """Settings that differ from those the model was trained with, and so have no effect."""
    made_with = card["parameters"]
    changed = [
        f"{name} = {value} (model: {made_with[name]})"
        for name, value in forest_parameters(settings).items()
        if made_with[name] != value
    ]
    if not changed:
        return ()
    return (f"model v{card['model_version']} was trained with other settings: {', '.join(changed)}; "
            "`energy-iot train` makes a new one",)  # fmt: skip


def unused_features(model: Model, survey: Survey) -> tuple[str, ...]:
    """Features that readings came to have a value for after the model was trained, so that it does not look at them."""
    before = model.card["training"]["features_with_values"]
    new = [name for name in survey.features_with_values if name not in before]
    if not new:
        return ()
    return (
        f"model v{model.version} was trained before there was data for {', '.join(new)}; "
        "`energy-iot train` makes one that uses it",
    )


def unexpected_share(tally: ScoreTally, threshold: float, settings: Settings) -> tuple[str, ...]:
    """A warning when the share of anomalies is outside its bounds."""
    low, high = settings.expected_anomaly_share
    if low <= tally.anomaly_share <= high:
        return ()
    return (
        f"{tally.anomaly_share:.2%} of the readings score above {threshold:.3g}, expected are {low:.2%} to {high:.2%}: "
        "look at the highest scores first; score_threshold or contamination moves the line",
    )


def replace_scores(
    postgres: Postgres, reader: FeatureReader, model: Model, *, threshold: float, advance: Advance
) -> ScoreTally:
    """Score all readings and make the result the content of ml.reading_scores, in one transaction.

    The new scores are gathered beside the old, so that readers wait only for the exchange at the end; an error or a
    crash leaves the old ones.

    Raises:
        ModelError: The feature table holds no data for one of the model's features.
    """
    lacking = lacking_features(model.card, reader.survey)
    if lacking:
        raise ModelError(
            f"{FEATURE_TABLE} holds no data for {', '.join(lacking)}, which model v{model.version} needs",
            fix="run `energy-iot train` for a model without, or load a source that has it",
        )
    tally = ScoreTally()
    batches = reader.stream(model.features, batch_readings=BATCH_READINGS)
    scored = score_batches(model, batches, threshold=threshold)
    with (
        postgres.connect_arrow() as connection,
        connection.cursor() as cursor,
        closing(batches),
        closing(scored),  # first: its threads hold batches
    ):
        cursor.execute(f"create temp table {NEW_SCORES} (like {SCORES_TABLE}) on commit drop")
        for batch in scored:
            cursor.adbc_ingest(NEW_SCORES, batch, mode="append", temporary=True)
            tally.add(batch)
            advance(batch.num_rows)
        cursor.execute(f"truncate {SCORES_TABLE}")
        names = ", ".join(SCHEMA.names)
        cursor.execute(f"insert into {SCORES_TABLE} ({names}) select {names} from {NEW_SCORES}")
        cursor.execute(f"analyze {SCORES_TABLE}")  # the marts' joins are planned on it
        connection.commit()
    return tally


def score_batches(
    model: Model, batches: Iterable[pa.RecordBatch], *, threshold: float
) -> Generator[pa.RecordBatch, None, None]:
    """Score feature batches; gives batches of `SCHEMA` in their order.

    Each batch is scored by one thread, all processors at work: scikit-learn's own threads would add up the trees of a
    batch in the order they finish, and scores would differ in the last digit from run to run.
    """
    scored_at = datetime.now(UTC).replace(tzinfo=None)

    def score_batch(batch: pa.RecordBatch) -> pa.RecordBatch:
        batch_scores = scores(model.forest, build_matrix(batch, model.features))
        return pa.record_batch(
            [
                batch["reading_id"],
                pa.array(batch_scores),
                pa.array(batch_scores > threshold),
                pa.repeat(pa.scalar(model.version, pa.int32()), len(batch_scores)),
                pa.repeat(pa.scalar(scored_at, pa.timestamp("us")), len(batch_scores)),
            ],
            schema=SCHEMA,
        )

    return map_ahead(score_batch, batches, threads=os.cpu_count() or 1)


def map_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], *, threads: int
) -> Generator[Result, None, None]:
    """`map` over threads, results in order, never more than two items a thread in memory."""
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="score") as executor:
        for item in items:
            pending.append(executor.submit(function, item))
            if len(pending) >= 2 * threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
