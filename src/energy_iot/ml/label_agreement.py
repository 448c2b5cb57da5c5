"""How far the scores agree with labels, where a source has any, and what such agreement is worth."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
import pyarrow as pa
from sklearn.metrics import average_precision_score, precision_score, recall_score, roc_auc_score

from energy_iot.ml.config import SCORES_TABLE
from energy_iot.storage.postgres import Postgres

LABELLED_TABLE: Final = "staging.stg_meter_readings"
KAGGLE_SOURCE: Final = "kaggle_smart_meter"
KAGGLE_CAVEAT: Final = (
    "The labels of the Kaggle smart-meter file are themselves the output of an Isolation Forest on two of its columns "
    "(consumption and past average, 100 trees, contamination 0.05): agreement with them says that the code is right, "
    "never that theft is found."
)


@dataclass(frozen=True)
class LabelAgreement:
    """Scores against labels; figures that need both kinds of label are None where there is one kind only.

    Attributes:
        labelled_readings: Scored readings that have a label.
        labelled_anomalies: Those whose label says anomaly.
        roc_auc: Chance that a labelled anomaly scores higher than another reading, 0.5 is blind.
        average_precision: Mean precision over all thresholds, weighted by recall gained.
        precision: Share of detected anomalies whose label agrees; None when none was detected.
        recall: Share of labelled anomalies that were detected; None when there is none.
        evaluated_at: When they were compared, UTC; scores of later readings are not in it.
        caveat: What must accompany these figures wherever they are shown, or None.
    """

    labelled_readings: int
    labelled_anomalies: int
    roc_auc: float | None
    average_precision: float | None
    precision: float | None
    recall: float | None
    evaluated_at: str
    caveat: str | None

    def to_details(self) -> dict[str, Any]:
        """JSON-able, for the step's report."""
        return asdict(self)


def labelled_scores(postgres: Postgres, model_version: int, condition: str = "true") -> pa.Table | None:
    """A version's scores of readings that have a label; None where there is none.

    Args:
        postgres: Where they are.
        model_version: Whose scores.
        condition: SQL over columns of the scores, which only they have.

    Returns:
        is_labelled_anomaly, anomaly_score in (0, 1], is_anomaly; a row for each reading.
    """
    with postgres.connect() as connection:
        staged = connection.execute("select to_regclass(%s) is not null", (LABELLED_TABLE,)).fetchone()
    if staged is None or not staged[0]:
        return None
    with postgres.connect_arrow() as connection, connection.cursor() as cursor:
        cursor.execute(
            "select readings.is_labelled_anomaly, scored.anomaly_score, scored.is_anomaly "
            f"from (select * from {SCORES_TABLE} where model_version = {int(model_version)} and {condition}) as scored "
            f"inner join {LABELLED_TABLE} as readings using (reading_id) where readings.is_labelled_anomaly is not null"
        )
        table: pa.Table = cursor.fetch_arrow_table()
    return table if table.num_rows else None


def evaluate_labels(postgres: Postgres, model_version: int) -> LabelAgreement | None:
    """Compare a version's scores with the labels in staging; None where no scored reading has one."""
    table = labelled_scores(postgres, model_version)
    if table is None:
        return None
    with postgres.connect() as connection:
        kaggle = connection.execute(
            "select exists (select from raw_data.ingested_files where source_name = %s)", (KAGGLE_SOURCE,)
        ).fetchone()
    labels = table["is_labelled_anomaly"].to_numpy()
    scores = table["anomaly_score"].to_numpy()
    detected = table["is_anomaly"].to_numpy()
    both = 0 < np.count_nonzero(labels) < len(labels)
    return LabelAgreement(
        labelled_readings=len(labels),
        labelled_anomalies=int(np.count_nonzero(labels)),
        roc_auc=float(roc_auc_score(labels, scores)) if both else None,
        average_precision=float(average_precision_score(labels, scores)) if both else None,
        precision=float(precision_score(labels, detected)) if detected.any() else None,
        recall=float(recall_score(labels, detected)) if labels.any() else None,
        evaluated_at=datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="seconds"),
        caveat=KAGGLE_CAVEAT if kaggle is not None and kaggle[0] else None,
    )


def last_agreement(postgres: Postgres) -> dict[str, Any] | None:
    """What the last scoring told about labels: figures of `evaluated_at`, since comparing all scores takes a while."""
    with postgres.connect() as connection:
        row = connection.execute(
            "select details -> 'agreement' from quality.step_runs "
            "where step = 'ml_score' and status = 'succeeded' order by id desc limit 1"
        ).fetchone()
    return row[0] if row else None
