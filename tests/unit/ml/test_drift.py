"""The stability index, and the drift of scores against the quantiles of a model card."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from energy_iot.ml.batches import HISTOGRAM_BINS
from energy_iot.ml.config import QUANTILE_PROBABILITIES
from energy_iot.ml.drift import MIN_READINGS, score_drift

TRAINED = np.random.default_rng(1).beta(20, 30, 50_000)


def card_of(scores: npt.NDArray[np.float64]) -> dict[str, Any]:
    quantiles = [float(score) for score in np.quantile(scores, QUANTILE_PROBABILITIES)]
    return {
        "training": {"rows": len(scores)},
        "score_quantiles": {"probabilities": list(QUANTILE_PROBABILITIES), "scores": quantiles},
    }


def bins_of(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    return np.histogram(scores, bins=HISTOGRAM_BINS, range=(0, 1))[0]


def test_scores_like_those_of_the_training_have_not_drifted() -> None:
    assert score_drift(card_of(TRAINED), bins_of(TRAINED)) == pytest.approx(0, abs=1e-4)
    others = np.random.default_rng(2).beta(20, 30, 5_000)
    found = score_drift(card_of(TRAINED), bins_of(others))
    assert found is not None
    assert 0 < found < 0.02


def test_it_is_what_the_definition_says() -> None:
    shifted = TRAINED[:20_000] + 0.05
    ends = np.quantile(TRAINED, np.arange(1, 10) / 10)
    shares = np.bincount(np.searchsorted(ends, shifted), minlength=10) / len(shifted)
    expected = float(np.sum((shares - 0.1) * np.log(shares / 0.1)))
    assert expected > 0.25
    assert score_drift(card_of(TRAINED), bins_of(shifted)) == pytest.approx(expected, rel=0.01)


def test_scores_that_many_readings_share_make_no_drift() -> None:
    """Half of the readings score exactly alike: several tenths end at the same score."""
    lumped = np.where(np.arange(len(TRAINED)) % 2, 0.4, TRAINED)
    assert score_drift(card_of(lumped), bins_of(lumped)) == pytest.approx(0, abs=1e-3)
    alike = np.full(1000, 0.5)
    assert score_drift(card_of(alike), bins_of(alike)) == pytest.approx(0, abs=1e-6)


def test_of_few_readings_nothing_is_said() -> None:
    card = card_of(TRAINED)
    assert score_drift(card, bins_of(TRAINED[: MIN_READINGS - 1])) is None
    assert score_drift(card, bins_of(TRAINED[:MIN_READINGS])) is not None
