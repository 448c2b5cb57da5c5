"""How good a ranking of meters is where the truth is known: pure functions over arrays.

A ranking is judged as a list that crews work through from the top. Ties are settled as a crew would, by chance: figures
are their expectation over all orders of equal scores, so that nothing is gained by giving many meters the same score.
Accuracy is not here, since calling everybody honest is 92 % accurate where 8 % steal; nor is any point-adjusted
measure, which rewards chance (Kim et al. 2022, doi:10.1609/aaai.v36i7.20680).

Each figure can be computed for many weightings of the meters at once: one weight each gives the figure itself, numbers
of draws with replacement give its bootstrap distribution.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from sklearn.metrics import average_precision_score, roc_auc_score

from energy_iot.errors import ModelError

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

FIRST_SHARE: Final = 0.01
"""What the first crew gets: precision there is the figure that decides whether the list is believed."""
BUDGETS: Final = (0.05, 0.10)
"""Shares of all meters that can be inspected."""
PRECISION_AT: Final = 20
"""Meters at the top of the list, about two days of a crew."""

LOWEST: Final = -np.inf
"""Score of a meter that a ranking leaves out: last, and tied with the others left out."""


@dataclass(frozen=True)
class Ranking:
    """Scores of one fleet's meters and what is true of them, all of shape (meters,).

    Attributes:
        scores: Higher is more suspect; `LOWEST` for a meter that was not ranked.
        is_theft: What there is to be found.
        stolen_kwh: How much of it, 0 where nothing is stolen.
        is_innocent: What must not be found; None for all others. A meter that is neither takes its place in the list
            and is not judged: so one kind of theft is measured against all innocent meters.

    Raises:
        ModelError: A score is no number.
    """

    scores: Floats
    is_theft: Bools
    stolen_kwh: Floats
    is_innocent: Bools | None = None

    def __post_init__(self) -> None:
        if np.isnan(self.scores).any():
            raise ModelError(
                f"{int(np.isnan(self.scores).sum())} of {len(self.scores)} scores are no numbers",
                fix="run `energy-iot score`, and report it if they stay so",
            )

    @property
    def innocent(self) -> Bools:
        """What must not be found, shape (meters,)."""
        return ~self.is_theft if self.is_innocent is None else self.is_innocent


@dataclass(frozen=True)
class Levels:
    """Summed weights of meters with the same score, the highest first; shape (weightings, levels).

    Attributes:
        meters: Of all.
        thefts: Of those that steal.
        innocents: Of those that do not.
        stolen_kwh: Weight times energy stolen, kWh.
    """

    meters: Floats
    thefts: Floats
    innocents: Floats
    stolen_kwh: Floats


def levels_of(ranking: Ranking, weights: npt.NDArray[np.number]) -> Levels:
    """Sum weights by score.

    Args:
        ranking: Of n meters, at least one.
        weights: Shape (weightings, n), not negative.
    """
    order = np.argsort(-ranking.scores, kind="stable")
    ordered = ranking.scores[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    sorted_weights = np.asarray(weights, dtype=np.float64)[:, order]

    def total(values: Floats | Bools) -> Floats:
        result: Floats = np.add.reduceat(sorted_weights * values[order].astype(np.float64), starts, axis=1)
        return result

    everybody = np.ones(len(order))
    return Levels(total(everybody), total(ranking.is_theft), total(ranking.innocent), total(ranking.stolen_kwh))


def _quotient(numerator: Floats, denominator: Floats) -> Floats:
    """NaN where there is nothing to divide by: no theft in a sample, say."""
    return np.divide(numerator, denominator, out=np.full_like(numerator, np.nan), where=denominator > 0)


def roc_auc(levels: Levels) -> Floats:
    """Chance that a meter that steals stands above an innocent one, ties one half; shape (weightings,).

    NaN where either is absent. Source: Hanley & McNeil (1982), doi:10.1148/radiology.143.1.7063747.

    Example:
        >>> ranking = Ranking(np.array([0.9, 0.5, 0.5, 0.1]), np.array([True, True, False, False]), np.zeros(4))
        >>> roc_auc(levels_of(ranking, np.ones((1, 4)))).tolist()
        [0.875]
    """
    innocents = levels.innocents.sum(axis=1)
    below = innocents[:, np.newaxis] - np.cumsum(levels.innocents, axis=1) + levels.innocents / 2
    return _quotient((levels.thefts * below).sum(axis=1), levels.thefts.sum(axis=1) * innocents)


def average_precision(levels: Levels) -> Floats:
    """Precision at each score, weighted by the thefts of that score; shape (weightings,), NaN without thefts.

    Meters of equal score are found together, as in scikit-learn. Meters that are not judged count for nothing.

    Example:
        >>> ranking = Ranking(np.array([0.9, 0.8, 0.1]), np.array([True, False, True]), np.zeros(3))
        >>> [round(value, 4) for value in average_precision(levels_of(ranking, np.ones((1, 3)))).tolist()]
        [0.8333]
    """
    found = np.cumsum(levels.thefts, axis=1)
    listed = found + np.cumsum(levels.innocents, axis=1)
    precision = np.divide(found, listed, out=np.zeros_like(found), where=listed > 0)
    return _quotient((levels.thefts * precision).sum(axis=1), levels.thefts.sum(axis=1))


def inspected_shares(levels: Levels, meters: float) -> Floats:
    """Share of each level that is inspected when crews take `meters` from the top; shape (weightings, levels)."""
    before = np.cumsum(levels.meters, axis=1) - levels.meters
    left = np.clip(meters - before, 0, levels.meters)
    return np.divide(left, levels.meters, out=np.zeros_like(left), where=levels.meters > 0)


def precision_at(levels: Levels, meters: float) -> Floats:
    """Share of the first `meters` that steal, expected over ties; shape (weightings,)."""
    shares = inspected_shares(levels, meters)
    return _quotient((levels.thefts * shares).sum(axis=1), (levels.meters * shares).sum(axis=1))


def recall_at(levels: Levels, meters: float) -> Floats:
    """Share of the meters that steal among the first `meters`, expected over ties; shape (weightings,)."""
    shares = inspected_shares(levels, meters)
    return _quotient((levels.thefts * shares).sum(axis=1), levels.thefts.sum(axis=1))


def stolen_share_at(levels: Levels, meters: float) -> Floats:
    """Share of the stolen kWh found with the first `meters`, expected over ties; shape (weightings,)."""
    shares = inspected_shares(levels, meters)
    return _quotient((levels.stolen_kwh * shares).sum(axis=1), levels.stolen_kwh.sum(axis=1))


def budget_meters(share: float, meters: int) -> int:
    """How many meters a share of the fleet is, at least one.

    Example:
        >>> budget_meters(0.05, 600), budget_meters(0.01, 30)
        (30, 1)
    """
    return max(1, round(share * meters))


def figures(ranking: Ranking, weights: npt.NDArray[np.number]) -> dict[str, Floats]:
    """All figures of a ranking, each of shape (weightings,).

    roc_auc, average_precision, precision_first_1pct, precision_at_20, recall_5pct, stolen_kwh_5pct, recall_10pct,
    stolen_kwh_10pct; per cents are of all meters.
    """
    levels, meters = levels_of(ranking, weights), len(ranking.scores)
    found = {
        "roc_auc": roc_auc(levels),
        "average_precision": average_precision(levels),
        f"precision_first_{_percent(FIRST_SHARE)}": precision_at(levels, budget_meters(FIRST_SHARE, meters)),
        f"precision_at_{PRECISION_AT}": precision_at(levels, PRECISION_AT),
    }
    for budget in BUDGETS:
        listed = budget_meters(budget, meters)
        found[f"recall_{_percent(budget)}"] = recall_at(levels, listed)
        found[f"stolen_kwh_{_percent(budget)}"] = stolen_share_at(levels, listed)
    return found


def _percent(share: float) -> str:
    return f"{round(100 * share)}pct"


def point_figures(ranking: Ranking) -> dict[str, float]:
    """`figures` with each meter once; ROC-AUC and average precision are scikit-learn's own.

    Raises:
        ModelError: No judged meter steals, or none is innocent: there is nothing to measure.
    """
    judged = ranking.is_theft | ranking.innocent
    if not ranking.is_theft.any() or not ranking.innocent.any():
        raise ModelError(
            f"{int(ranking.is_theft.sum())} meters steal and {int(ranking.innocent.sum())} are innocent: "
            "a ranking needs both to be judged",
            fix="generate a larger fleet: energy-iot evaluate --meters 600",
        )
    found = {name: values.item() for name, values in figures(ranking, np.ones((1, len(judged)))).items()}
    labels, scores = ranking.is_theft[judged], _finite(ranking.scores[judged])
    return found | {
        "roc_auc": float(roc_auc_score(labels, scores)),
        "average_precision": float(average_precision_score(labels, scores)),
    }


def _finite(scores: Floats) -> Floats:
    """The same order and ties, without the infinity that scikit-learn refuses: ranks from 0."""
    return np.unique(scores, return_inverse=True)[1].astype(np.float64)


def bootstrap_weights(meters: int, samples: int, *, seed: int | Sequence[int]) -> npt.NDArray[np.int64]:
    """How often each meter is drawn in each sample of as many draws with replacement; shape (samples, meters).

    Source: Efron & Tibshirani (1993), An Introduction to the Bootstrap, doi:10.1201/9780429246593.
    """
    return np.random.default_rng(seed).multinomial(meters, np.full(meters, 1 / meters), size=samples)
