"""Scoring batches of readings with all processors, in memory that does not grow with their number."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from energy_iot.ml.features import build_matrix
from energy_iot.ml.model_store import Model
from energy_iot.ml.score_days import DayCounts
from energy_iot.ml.train_anomaly_model import scores

Item = TypeVar("Item")
Result = TypeVar("Result")

SCHEMA: Final = pa.schema(
    [
        ("reading_id", pa.int64()),
        ("meter_id", pa.string()),
        ("reading_timestamp", pa.timestamp("us")),
        ("anomaly_score", pa.float64()),
        ("is_anomaly", pa.bool_()),
        ("model_version", pa.int32()),
        ("scored_at", pa.timestamp("us")),
    ]
)
REPORTED_QUANTILES: Final = (0.01, 0.1, 0.5, 0.9, 0.99, 0.995, 0.999)
HISTOGRAM_BINS: Final = 10_000


@dataclass
class ScoreTally:
    """Counts over all batches, in memory that does not grow with them; `days` is for who counts those too."""

    readings: int = 0
    anomalies: int = 0
    bins: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(HISTOGRAM_BINS, dtype=np.int64))
    days: DayCounts = field(default_factory=DayCounts)

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

    def to_details(self) -> dict[str, Any]:
        """JSON-able, for the step's report."""
        return {
            "readings": self.readings,
            "anomalies": self.anomalies,
            "anomaly_share": self.anomaly_share,
            "quantiles": {str(probability): self.quantile(probability) for probability in REPORTED_QUANTILES},
        }


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
                batch["meter_id"],
                batch["reading_timestamp"],
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
