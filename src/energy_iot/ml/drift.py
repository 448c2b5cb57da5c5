"""How far the scores of readings are from those that the model gave its training readings."""

from typing import Final

import numpy as np
import numpy.typing as npt

from energy_iot.ml.versions import Card, interpolate_quantile

TENTHS: Final = tuple(step / 10 for step in range(1, 10))
MIN_READINGS: Final = 500  # of fewer, chance alone gives an index that looks like a change


def stability_index(expected: npt.NDArray[np.float64], found: npt.NDArray[np.float64]) -> float:
    """How far one distribution is from another: sum of (found - expected) * ln(found / expected) over shares by class.

    Above 0.25 is read as a major change, below 0.1 as none worth a name (Siddiqi, Credit Risk Scorecards, 2006).

    Args:
        expected: Counts of each class, of which an empty one counts as half a member.
        found: Counts of the same classes.

    Example:
        >>> round(stability_index(np.array([50.0, 50.0]), np.array([50.0, 50.0])), 3)
        0.0
        >>> round(stability_index(np.array([50.0, 50.0]), np.array([90.0, 10.0])), 3)
        0.879
    """
    shares = [np.maximum(counts, 0.5) / np.maximum(counts, 0.5).sum() for counts in (expected, found)]
    return float(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum())


def score_drift(card: Card, bins: npt.NDArray[np.int64]) -> float | None:
    """Stability index of scores against the training scores, over the tenths of these; None of too few scores.

    Args:
        card: Of the model that gave the scores; holds the quantiles of its training scores.
        bins: How many scores lie in each of as many equal parts of 0 to 1, shape (n_bins,).
    """
    if bins.sum() < MIN_READINGS:
        return None
    quantiles = card["score_quantiles"]
    tenths = np.array([interpolate_quantile(card, probability) for probability in TENTHS])
    # classes end where a bin does: scores that many readings share end more than one tenth, and are in one class
    ends = np.minimum(np.unique((tenths * len(bins)).astype(np.int64)) + 1, len(bins))
    up_to = np.interp(ends / len(bins), quantiles["scores"], quantiles["probabilities"])
    expected = np.diff([0.0, *up_to, 1.0]) * card["training"]["rows"]
    found = np.diff([0.0, *np.cumsum(bins)[ends - 1], float(bins.sum())])
    return stability_index(expected, found)
