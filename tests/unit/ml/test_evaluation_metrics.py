import doctest
import itertools
from importlib import import_module

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import average_precision_score, roc_auc_score

from energy_iot.errors import ModelError
from energy_iot.ml.evaluation.metrics import (
    LOWEST,
    Ranking,
    average_precision,
    bootstrap_weights,
    figures,
    inspected_shares,
    levels_of,
    point_figures,
    precision_at,
    recall_at,
    roc_auc,
    stolen_share_at,
)

METERS = 30
# few different scores, so that ties are the rule
RANKINGS = st.builds(
    lambda scores, thefts, kwh: Ranking(scores / 7, thefts, np.where(thefts, kwh, 0.0)),
    arrays(np.float64, METERS, elements=st.integers(0, 7).map(float)),
    arrays(np.bool_, METERS),
    arrays(np.float64, METERS, elements=st.floats(0.5, 100)),
)
WEIGHTS = arrays(np.int64, (4, METERS), elements=st.integers(0, 3))


def once(ranking: Ranking) -> np.ndarray:
    return np.ones((1, len(ranking.scores)))


@pytest.mark.parametrize("module", ["metrics", "protocol", "baselines", "network"])
def test_the_examples_hold(module: str) -> None:
    result = doctest.testmod(import_module(f"energy_iot.ml.evaluation.{module}"))
    assert result.attempted
    assert not result.failed


@settings(max_examples=25)
@given(RANKINGS, WEIGHTS)
def test_weighted_figures_are_those_of_scikit_learn(ranking: Ranking, weights: np.ndarray) -> None:
    auc, precision = roc_auc(levels_of(ranking, weights)), average_precision(levels_of(ranking, weights))
    assert auc.shape == precision.shape == (4,)
    for place, drawn in enumerate(weights):
        thefts = drawn @ ranking.is_theft
        if not 0 < thefts < drawn.sum():
            assert np.isnan(auc[place])
            assert np.isnan(precision[place]) == (thefts == 0)
            continue
        labels, scores = np.repeat(ranking.is_theft, drawn), np.repeat(ranking.scores, drawn)
        assert auc[place] == pytest.approx(roc_auc_score(labels, scores))
        assert precision[place] == pytest.approx(average_precision_score(labels, scores))


@settings(max_examples=25)
@given(RANKINGS)
def test_point_figures_are_the_figures_with_each_meter_once(ranking: Ranking) -> None:
    assume(0 < ranking.is_theft.sum() < METERS)
    weighted = {name: values.item() for name, values in figures(ranking, once(ranking)).items()}
    assert point_figures(ranking) == pytest.approx(weighted)


@settings(max_examples=30)
@given(
    arrays(np.float64, 6, elements=st.integers(0, 2).map(float)),
    arrays(np.bool_, 6),
    st.integers(1, 6),
)
def test_ties_are_expectations_over_all_orders(scores: np.ndarray, thefts: np.ndarray, listed: int) -> None:
    kwh = np.where(thefts, np.arange(1.0, 7.0), 0.0)
    assume(thefts.any())
    orders = [order for order in itertools.permutations(range(6)) if (np.diff(scores[list(order)]) <= 0).all()]
    found = [list(order)[:listed] for order in orders]
    levels = levels_of(Ranking(scores, thefts, kwh), np.ones((1, 6)))
    assert precision_at(levels, listed).item() == pytest.approx(np.mean([thefts[few].mean() for few in found]))
    assert recall_at(levels, listed).item() == pytest.approx(
        np.mean([thefts[few].sum() for few in found]) / thefts.sum()
    )
    assert stolen_share_at(levels, listed).item() == pytest.approx(
        np.mean([kwh[few].sum() for few in found]) / kwh.sum()
    )


def test_one_score_for_all_is_a_random_order() -> None:
    thefts = np.arange(600) % 12 == 0
    found = point_figures(Ranking(np.full(600, LOWEST), thefts, thefts * 5.0))
    assert found["roc_auc"] == 0.5
    assert found["precision_first_1pct"] == pytest.approx(1 / 12)
    assert found["recall_5pct"] == pytest.approx(0.05)
    assert found["stolen_kwh_10pct"] == pytest.approx(0.10)


def test_known_list() -> None:
    # 100 meters, thieves at places 1, 2, 4 and 50, the third of them taking most
    scores = np.arange(100, 0, -1).astype(float)
    thefts, kwh = np.zeros(100, dtype=np.bool_), np.zeros(100)
    thefts[[0, 1, 3, 49]], kwh[[0, 1, 3, 49]] = True, [100, 100, 700, 100]
    found = point_figures(Ranking(scores, thefts, kwh))
    assert found["precision_first_1pct"] == 1.0
    assert found["precision_at_20"] == pytest.approx(3 / 20)
    assert (found["recall_5pct"], found["recall_10pct"]) == (0.75, 0.75)
    assert found["stolen_kwh_5pct"] == pytest.approx(0.9)
    assert found["average_precision"] == pytest.approx((1 + 1 + 3 / 4 + 4 / 50) / 4)
    assert found["roc_auc"] == pytest.approx((96 + 96 + 95 + 50) / (4 * 96))


def test_meters_that_are_not_judged_take_their_place_and_count_for_nothing() -> None:
    """Another kind of theft fills the budget; it is neither a hit nor a false alarm of the kind in question."""
    scores = np.array([0.9, 0.8, 0.7, 0.6])
    wanted, innocent = np.array([False, True, False, False]), np.array([False, False, True, True])
    levels = levels_of(Ranking(scores, wanted, wanted * 1.0, innocent), np.ones((1, 4)))
    assert roc_auc(levels).item() == 1.0
    assert average_precision(levels).item() == 1.0
    assert recall_at(levels, 1).item() == 0.0
    assert recall_at(levels, 2).item() == 1.0


@given(RANKINGS, WEIGHTS, st.integers(1, METERS))
def test_a_budget_is_spent_to_the_last_meter(ranking: Ranking, weights: np.ndarray, budget: int) -> None:
    levels = levels_of(ranking, weights)
    spent = (inspected_shares(levels, budget) * levels.meters).sum(axis=1)
    np.testing.assert_allclose(spent, np.minimum(budget, weights.sum(axis=1)))


def test_bootstrap_draws_as_many_meters_as_there_are_and_the_same_again() -> None:
    drawn = bootstrap_weights(50, 200, seed=[1, 101, 0])
    assert drawn.shape == (200, 50)
    assert (drawn.sum(axis=1) == 50).all()
    np.testing.assert_array_equal(drawn, bootstrap_weights(50, 200, seed=[1, 101, 0]))
    assert not np.array_equal(drawn, bootstrap_weights(50, 200, seed=[1, 102, 0]))
    assert drawn.mean() == 1.0
    assert 0.8 < drawn.var() < 1.2  # of a binomial draw: 1 - 1/50


def test_bootstrap_interval_covers_what_theory_says() -> None:
    """The standard error of ROC-AUC is known (Hanley & McNeil 1982); the bootstrap's must come near it."""
    random = np.random.default_rng(0)
    thefts = np.arange(500) < 100
    ranking = Ranking(random.normal(0, 1, 500) + thefts, thefts, thefts * 1.0)
    samples = roc_auc(levels_of(ranking, bootstrap_weights(500, 1000, seed=0)))
    auc = roc_auc(levels_of(ranking, once(ranking))).item()
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    theory = np.sqrt((auc * (1 - auc) + 99 * (q1 - auc**2) + 399 * (q2 - auc**2)) / (100 * 400))
    assert np.std(samples) == pytest.approx(theory, rel=0.15)


@pytest.mark.parametrize("thefts", [[True, True], [False, False]])
def test_one_kind_of_meter_only_cannot_be_judged(thefts: list[bool]) -> None:
    with pytest.raises(ModelError, match="needs both"):
        point_figures(Ranking(np.array([0.1, 0.2]), np.array(thefts), np.zeros(2)))


def test_a_score_that_is_no_number_is_refused() -> None:
    with pytest.raises(ModelError, match="1 of 2 scores"):
        Ranking(np.array([0.1, np.nan]), np.array([True, False]), np.zeros(2))
