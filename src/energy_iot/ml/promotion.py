"""Whether a newly trained model may replace the one in force: both judge the latest days, and bounds decide.

A new model is another yardstick: all scores change, and with them who is suspected. It is taken when it measures alike
and no worse, so that a month's training on bad readings does not move the line unnoticed.
"""

from dataclasses import asdict, dataclass, replace
from datetime import date, timedelta
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import psycopg
from sklearn.metrics import roc_auc_score

from energy_iot.errors import ModelError, UsageError
from energy_iot.ml.config import FEATURE_DAYS_TABLE, SCORES_TABLE
from energy_iot.ml.drift import TENTHS, stability_index
from energy_iot.ml.label_agreement import labelled_scores
from energy_iot.ml.pending import RESCORE_ALL, DayRange
from energy_iot.ml.score_anomalies import score
from energy_iot.ml.versions import read_versions, version_in_force
from energy_iot.pipeline import RunContext, StepReport
from energy_iot.settings import Settings
from energy_iot.storage.postgres import Postgres, open_postgres

COMPARED_DAYS: Final = 30
MIN_EACH: Final = 30  # outcomes or labels of either kind: a ROC-AUC of fewer says nothing


@dataclass(frozen=True)
class Comparison:
    """Two versions on the same readings; figures of the newer one first, `_in_force` are the other's.

    Attributes:
        model_version: The newer one.
        in_force: The one whose scores count.
        days: FIRST..LAST, both ends included.
        readings: Of these days.
        anomaly_share: Share of readings above the version's threshold.
        score_shift: Population stability index of the newer scores against those in force, see `stability_index`.
        correlation: Of the two scores of a reading, Pearson's.
        label_auc: ROC-AUC against labels of readings; None with fewer than 30 of either kind.
        inspection_auc: ROC-AUC of a meter's mean score before its inspection against theft found; None likewise.
        inspected_meters: Those with an outcome of these days or later.
        objections: Which bounds do not hold; none, and the newer one may come into force.
    """

    model_version: int
    in_force: int
    days: str
    readings: int
    anomaly_share: float
    anomaly_share_in_force: float
    score_shift: float
    correlation: float | None
    label_auc: float | None
    label_auc_in_force: float | None
    inspection_auc: float | None
    inspection_auc_in_force: float | None
    inspected_meters: int
    objections: tuple[str, ...] = ()

    def judged(self, settings: Settings) -> "Comparison":
        """With the bounds that do not hold."""
        told = []
        if self.score_shift > settings.promotion_max_score_shift:
            told.append(
                f"scores are distributed otherwise: stability index {self.score_shift:.3f}, "
                f"at most {settings.promotion_max_score_shift} is allowed"
            )
        low, high = settings.expected_anomaly_share
        off, off_in_force = (max(low - share, share - high, 0) for share in self._shares)
        if off > off_in_force:
            told.append(
                f"{self.anomaly_share:.2%} of the readings would be anomalies, expected are {low:.2%} to {high:.2%}, "
                f"and {self.anomaly_share_in_force:.2%} are"
            )
        for name, new, old in (
            ("labels", self.label_auc, self.label_auc_in_force),
            ("inspections", self.inspection_auc, self.inspection_auc_in_force),
        ):
            if new is not None and old is not None and old - new > settings.promotion_max_auc_loss:
                told.append(
                    f"it agrees less with {name}: ROC-AUC {new:.3f} after {old:.3f}, "
                    f"at most {settings.promotion_max_auc_loss} less is allowed"
                )
        return replace(self, objections=tuple(told))

    @property
    def _shares(self) -> tuple[float, float]:
        return self.anomaly_share, self.anomaly_share_in_force

    def __str__(self) -> str:
        verdict = "all bounds hold" if not self.objections else "; ".join(self.objections)
        return (
            f"model v{self.model_version} against v{self.in_force} in force on {self.readings:,} readings of "
            f"{self.days}: {verdict}"
        )


def compare_models(context: RunContext) -> StepReport:
    """Score the latest days with the newest version, beside the scores that count, and compare the two.

    Raises:
        ModelError: No version is in force, or there are no readings.
    """
    settings = context.settings
    with open_postgres(settings) as postgres:
        with postgres.connect() as connection:
            versions = read_versions(connection)
            in_force = version_in_force(versions)
            days = _latest_days(connection) if in_force else None
        if in_force is None or days is None:
            raise ModelError("no model is in force to compare with", fix="energy-iot run FILE... trains the first")
        newest = versions[0].number
        if newest == in_force.number:
            return StepReport(0, 0, skipped=f"the newest model, v{newest}, is in force")
        scored = score(replace(context, options=replace(context.options, rescore=str(days))))
        trial = scored.details.get("trial")
        if trial is None:  # it does not fit the data, or another one came into force
            raise ModelError(
                f"model v{newest} cannot be compared: {'; '.join(scored.warnings) or 'it is in force now'}",
                fix="energy-iot train",
            )
        comparison = _compare(postgres, trial, days).judged(settings)
    context.progress.note(str(comparison))
    return StepReport(
        scored.rows_in, comparison.readings, scored.warnings, {**scored.details, "comparison": asdict(comparison)}
    )


def promote_model(context: RunContext) -> StepReport:
    """Put the newest version into force, and score everything with it, if the last comparison has no objection.

    Raises:
        UsageError: The newest version has not been compared with the one in force.
    """
    with open_postgres(context.settings) as postgres, postgres.connect() as connection:
        versions = read_versions(connection)
        in_force = version_in_force(versions)
        if in_force is None or versions[0].in_force:
            return StepReport(0, 0, skipped="no newer model waits to come into force")
        row = connection.execute(
            "select details -> 'comparison' from quality.step_runs where step = 'compare_models' "
            "and status = 'succeeded' order by id desc limit 1"
        ).fetchone()
    newest = versions[0].number
    found = row[0] if row else None
    if found is None or (found["model_version"], found["in_force"]) != (newest, in_force.number):
        raise UsageError(
            f"model v{newest} has not been compared with v{in_force.number} in force", fix="energy-iot compare-models"
        )
    if found["objections"]:
        kept = f"model v{in_force.number} stays in force: {'; '.join(found['objections'])}"
        return StepReport(0, 0, skipped=kept, details={"comparison": found})
    report = score(replace(context, options=replace(context.options, rescore=RESCORE_ALL)))
    return replace(report, details={**report.details, "comparison": found})


def _latest_days(connection: psycopg.Connection) -> DayRange | None:
    row = connection.execute(f"select max(reading_date) from {FEATURE_DAYS_TABLE}").fetchone()
    last: date | None = row[0] if row else None
    return DayRange(last - timedelta(days=COMPARED_DAYS - 1), last) if last else None


def _compare(postgres: Postgres, trial: dict[str, Any], days: DayRange) -> Comparison:
    newer, in_force = trial["model_version"], trial["in_force"]
    with postgres.connect() as connection:
        counts = {
            version: np.array(_counts_by_tenth(connection, version, in_force, days)) for version in (newer, in_force)
        }
        inspected = {version: _inspected_scores(connection, version, days) for version in (newer, in_force)}
    labels = {version: _label_auc(postgres, version, days) for version in (newer, in_force)}
    return Comparison(
        model_version=newer,
        in_force=in_force,
        days=str(days),
        readings=trial["readings"],
        anomaly_share=trial["anomaly_share"],
        anomaly_share_in_force=trial["anomaly_share_in_force"],
        score_shift=stability_index(counts[in_force], counts[newer]),
        correlation=trial["correlation"],
        label_auc=labels[newer],
        label_auc_in_force=labels[in_force],
        inspection_auc=_auc(*inspected[newer]),
        inspection_auc_in_force=_auc(*inspected[in_force]),
        inspected_meters=len(inspected[in_force][0]),
    )


def _in_days(days: DayRange) -> str:
    assert days.first is not None
    assert days.last is not None
    return f"reading_timestamp >= date '{days.first}' and reading_timestamp < date '{days.last + timedelta(days=1)}'"


def _counts_by_tenth(connection: psycopg.Connection, version: int, in_force: int, days: DayRange) -> list[float]:
    """How many of a version's scores lie in each tenth of the scores in force."""
    found: dict[int, int] = dict(
        connection.execute(
            "with tenths as ("
            "select percentile_cont(%(tenths)s::float8[]) within group (order by anomaly_score) as ends "
            f"from {SCORES_TABLE} where model_version = %(in_force)s and {_in_days(days)}) "
            f"select width_bucket(scored.anomaly_score, tenths.ends), count(*) from {SCORES_TABLE} as scored "
            f"cross join tenths where scored.model_version = %(version)s and {_in_days(days)} group by 1",
            {"tenths": list(TENTHS), "in_force": in_force, "version": version},
        ).fetchall()
    )
    return [float(found.get(tenth, 0)) for tenth in range(len(TENTHS) + 1)]


def _inspected_scores(
    connection: psycopg.Connection, version: int, days: DayRange
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    """Of each meter inspected since the first of the days: whether theft was found, and its mean score until then."""
    rows = connection.execute(
        "select inspected.found_theft, avg(scored.anomaly_score) from ("
        "select distinct on (meter_id) meter_id, found_theft, inspected_on from raw_data.inspections "
        "where inspected_on > %s order by meter_id, inspected_on, id desc) as inspected "
        f"inner join {SCORES_TABLE} as scored on scored.meter_id = inspected.meter_id "
        f"and scored.model_version = %s and {_in_days(days)} and scored.reading_timestamp < inspected.inspected_on "
        "group by inspected.meter_id, inspected.found_theft",
        (days.first, version),
    ).fetchall()
    return np.array([row[0] for row in rows], dtype=bool), np.array([row[1] for row in rows], dtype=np.float64)


def _label_auc(postgres: Postgres, version: int, days: DayRange) -> float | None:
    table = labelled_scores(postgres, version, _in_days(days))
    if table is None:
        return None
    return _auc(table["is_labelled_anomaly"].to_numpy(), table["anomaly_score"].to_numpy())


def _auc(truth: npt.NDArray[np.bool_], scores: npt.NDArray[np.float64]) -> float | None:
    if min(np.count_nonzero(truth), np.count_nonzero(~truth.astype(bool))) < MIN_EACH:
        return None
    return float(roc_auc_score(truth, scores))
