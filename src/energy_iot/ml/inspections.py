"""What inspections found, and a ranking that learns from it, used only where it proves better than the one without."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl
import psycopg

from energy_iot.errors import InputFileError
from energy_iot.reporting.formats import plural

INSPECTIONS_TABLE: Final = "raw_data.inspections"

# Features describe a meter's last weeks, and after an inspection it behaves otherwise: an outcome tells about features
# whose last day lies at most so many days from it.
MAX_DAYS_APART: Final = 14

FOLDS: Final = 5  # each is ranked by a model that saw none of its meters
CALIBRATION_FOLDS: Final = 3  # within what is learned from
TREES: Final = 100
LEAST_METERS_IN_LEAF: Final = 3
BOOTSTRAP_SAMPLES: Final = 1000
CONFIDENCE: Final = 0.95

SCORE: Final = "suspicion_score"
PROBABILITY: Final = "theft_probability"

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Inspection:
    """The outcome of one inspection; the latest received counts for a meter and day.

    Attributes:
        meter_id: The meter.
        inspected_on: Day of the inspection.
        found_theft: Whether theft was found.
        kind: Kind of theft, in the inspectors' words.
        recovered_kwh: Energy billed afterwards, kWh.
    """

    meter_id: str
    inspected_on: date
    found_theft: bool
    kind: str | None
    recovered_kwh: float | None


@dataclass(frozen=True)
class RerankReport:
    """Whether outcomes of inspections order the list, and why; JSON-able by `to_details`.

    Attributes:
        used: Whether they do.
        reason: Why, or why not, for a person.
        outcomes: Inspected meters that could be learned from.
        thefts: Those where theft was found.
        outdated: Outcomes too far from the last readings to tell about them.
        unsupervised_average_precision: Of the suspicion score on the inspected meters; None where none was compared.
        supervised_average_precision: Of the learned ranking on the same meters, each ranked by a model that did not
            see it.
        least_gain: What the learned ranking gains in average precision with 95 % confidence (one-sided).
    """

    used: bool
    reason: str
    outcomes: int
    thefts: int
    outdated: int
    unsupervised_average_precision: float | None = None
    supervised_average_precision: float | None = None
    least_gain: float | None = None

    def to_details(self) -> dict[str, Any]:
        """For the step's report."""
        return asdict(self)


@dataclass(frozen=True)
class Reranking:
    """A learned ranking.

    Attributes:
        probabilities: meter_id and theft_probability (calibrated, in [0, 1]) of each meter; None where not used.
        report: Why it is used, or not.
    """

    probabilities: pl.DataFrame | None
    report: RerankReport


def refuse_other_content(file: Path) -> None:
    """Let nothing but outcomes pass for them.

    Raises:
        InputFileError: The file cannot be read, or holds something else.
    """
    from energy_iot.ingestion.registry_format import FORMATS, INSPECTIONS
    from energy_iot.ingestion.source_files import inspect
    from energy_iot.ingestion.sources import choose_mappings

    found = inspect(file, choose_mappings(None), verify=False)
    if found.mapping_name != INSPECTIONS:
        raise InputFileError(
            f"{file.name} holds no outcomes of inspections, but is {found.mapping_name}",
            fix=f"give a file with the columns {','.join(column.name for column in FORMATS[INSPECTIONS].columns)}; "
            "anything else is loaded by `energy-iot run FILE`",
        )


def read_inspections(connection: psycopg.Connection, *, meter_id: str | None = None) -> list[Inspection]:
    """All outcomes, or those of a meter, newest first; of several for a meter and day, the latest received."""
    rows = connection.execute(
        "select meter_id, inspected_on, found_theft, kind, recovered_kwh from ("
        "select distinct on (meter_id, inspected_on) meter_id, inspected_on, found_theft, kind, recovered_kwh "
        f"from {INSPECTIONS_TABLE} where cast(%(meter_id)s as text) is null or meter_id = %(meter_id)s "
        "order by meter_id, inspected_on, id desc) as latest order by inspected_on desc, meter_id",
        {"meter_id": meter_id},
    ).fetchall()
    return [Inspection(*row) for row in rows]


def describe_inspections(inspections: Sequence[Inspection]) -> str:
    """How many there are, and what they found, in a line.

    Example:
        >>> describe_inspections([Inspection("m1", date(2025, 5, 1), True, "bypass", 120.0)])
        '1 inspection, theft found in 1, 120 kWh recovered'
    """
    found = [one for one in inspections if one.found_theft]
    recovered = sum(one.recovered_kwh or 0 for one in inspections)
    return f"{plural(len(inspections), 'inspection')}, theft found in {len(found):,}, {recovered:,.0f} kWh recovered"


def outcomes_frame(inspections: Sequence[Inspection]) -> pl.DataFrame:
    """The outcomes as `rerank` takes them: meter_id, inspected_on, found_theft."""
    return pl.DataFrame(
        [(one.meter_id, one.inspected_on, one.found_theft) for one in inspections],
        schema={"meter_id": pl.String, "inspected_on": pl.Date, "found_theft": pl.Boolean},
        orient="row",
    )


def rerank(
    meters: pl.DataFrame,
    outcomes: pl.DataFrame,
    *,
    features: Sequence[str],
    last_day: date,
    min_inspections: int,
    min_inspected_thefts: int,
    seed: int,
) -> Reranking:
    """Learn from inspections how to rank meters, if they are enough and the result is better than without them.

    A random forest over the features and the suspicion score, its votes calibrated to probabilities (Platt's sigmoid),
    is cross-validated by meter. It is used only if its ranking of meters it has not seen has a higher average precision
    than the suspicion score on the same meters, in 95 % of bootstrap samples: what learned from noise does not pass.
    Crews are sent to the top of the list, so outcomes say most about meters like these; what the probabilities say of a
    meter that nobody would have inspected is extrapolation.

    Args:
        meters: One row a meter: meter_id, suspicion_score, and `features` (numbers, booleans; null where unknown). The
            order of rows is of no matter.
        outcomes: meter_id, inspected_on, found_theft; for a meter's several inspections, the latest counts.
        features: Columns to learn from; never what inspections told (last outcome, days since).
        last_day: Last day that the features describe. Outcomes more than MAX_DAYS_APART days from it are left out.
        min_inspections: Fewer inspected meters do not train.
        min_inspected_thefts: Fewer thefts among them, or fewer meters found sound, do not either.
        seed: Random state of folds, forest and bootstrap: the same frames give the same probabilities.

    Returns:
        Probabilities of all meters, by meter_id; or None; and why.

    Source: Platt (1999), Probabilistic outputs for support vector machines; Breiman (2001),
        doi:10.1023/A:1010933404324.
    """
    meters = meters.sort("meter_id")
    recent = outcomes.filter((pl.col("inspected_on") - pl.lit(last_day)).dt.total_days().abs() <= MAX_DAYS_APART)
    known = (recent.sort("meter_id", "inspected_on").unique("meter_id", keep="last", maintain_order=True)).join(
        meters, on="meter_id", how="inner", maintain_order="left"
    )
    found = known["found_theft"].to_numpy()
    thefts, sound = int(found.sum()), int((~found).sum())
    report = RerankReport(
        used=False, reason="", outcomes=len(found), thefts=thefts, outdated=outcomes.height - recent.height
    )
    if len(found) < min_inspections or min(thefts, sound) < min_inspected_thefts:
        needed = f"needed are {min_inspections} meters, {min_inspected_thefts} with theft and as many without"
        reason = f"{len(found)} inspected meters, {thefts} with theft: too few to learn from; {needed}"
        return Reranking(None, replace(report, reason=reason))

    columns = [*features, SCORE]
    unsupervised = known[SCORE].to_numpy().astype(np.float64)
    supervised = _probabilities_of_unseen(_matrix(known, columns), found, seed)
    before, after, least_gain = _compare(found, unsupervised, supervised, seed)
    report = replace(
        report,
        unsupervised_average_precision=before,
        supervised_average_precision=after,
        least_gain=least_gain,
    )
    told = f"average precision {after:.3f} on inspected meters it had not seen, {before:.3f} of the suspicion score"
    if least_gain <= 0:
        return Reranking(
            None, replace(report, reason=f"a ranking learned from inspections is not surely better: {told}")
        )
    model = _calibrated_forest(seed).fit(_matrix(known, columns), found)
    probabilities = model.predict_proba(_matrix(meters, columns))[:, 1]
    reason = f"learned from {len(found)} inspected meters, {thefts} with theft: {told}"
    return Reranking(
        meters.select("meter_id", pl.Series(PROBABILITY, probabilities)), replace(report, used=True, reason=reason)
    )


def _matrix(meters: pl.DataFrame, columns: Sequence[str]) -> npt.NDArray[np.float32]:
    """Shape (meters, columns); NaN where a feature has no value, which the forest sends to the better side."""
    values = meters.select(pl.col(*columns).cast(pl.Float32)).to_numpy()
    return np.where(np.isfinite(values), values, np.float32(np.nan))


def _calibrated_forest(seed: int) -> Any:
    # loaded here: most homes have no inspections, and scikit-learn takes a second
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import StratifiedKFold

    forest = RandomForestClassifier(TREES, min_samples_leaf=LEAST_METERS_IN_LEAF, random_state=seed)
    folds = StratifiedKFold(CALIBRATION_FOLDS, shuffle=True, random_state=seed)
    return CalibratedClassifierCV(forest, method="sigmoid", cv=folds)


def _probabilities_of_unseen(matrix: npt.NDArray[np.float32], found: Bools, seed: int) -> Floats:
    """Each meter's probability by a model that did not see it; a row is a meter, so folds are by meter."""
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed + 1)
    predicted: Floats = cross_val_predict(_calibrated_forest(seed), matrix, found, cv=folds, method="predict_proba")
    return predicted[:, 1]


def _compare(found: Bools, unsupervised: Floats, supervised: Floats, seed: int) -> tuple[float, float, float]:
    """Average precision of both rankings, and what the second surely gains: resamples of the same meters for both."""
    from energy_iot.ml.evaluation.metrics import Ranking, average_precision, bootstrap_weights, levels_of

    weights = bootstrap_weights(len(found), BOOTSTRAP_SAMPLES, seed=seed)
    once = np.ones((1, len(found)))
    rankings = [Ranking(scores, found, np.zeros(len(found))) for scores in (unsupervised, supervised)]
    before, after = (average_precision(levels_of(ranking, once)).item() for ranking in rankings)
    resampled = [average_precision(levels_of(ranking, weights)) for ranking in rankings]
    gains = resampled[1] - resampled[0]
    return before, after, float(np.nanquantile(gains, 1 - CONFIDENCE))
