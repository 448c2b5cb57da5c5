import threading
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from energy_iot.errors import ModelError
from energy_iot.ml.batches import ScoreTally, map_ahead, score_batches
from energy_iot.ml.features import FEATURES, build_matrix
from energy_iot.ml.model_store import Model
from energy_iot.ml.train_anomaly_model import fit, scores


def features_table(readings: int) -> pa.Table:
    """What PostgreSQL gives: the features as real numbers, some of them null."""
    random = np.random.default_rng(0)
    columns = {feature.name: random.normal(0, 1, readings).astype(np.float32) for feature in FEATURES}
    missing = random.random(readings) < 0.1
    return pa.table(
        {
            "reading_id": pa.array(range(readings), pa.int64()),
            "meter_id": pa.repeat(pa.scalar("m"), readings),
            "reading_timestamp": pa.array(range(readings), pa.timestamp("us")),
        }
        | {name: pa.array(values, mask=missing) for name, values in columns.items()}
    )


TABLE = features_table(1000)
MATRIX = build_matrix(TABLE, FEATURES)
FOREST = fit(MATRIX, trees=20, seed=1)
SCORES = scores(FOREST, MATRIX)
MODEL = Model(FOREST, {"model_version": 3}, FEATURES)


def test_scores_are_the_published_ones_and_within_bounds() -> None:
    np.testing.assert_array_equal(SCORES, -FOREST.score_samples(MATRIX))
    assert ((SCORES > 0) & (SCORES <= 1)).all()


def test_same_seed_same_forest_and_another_seed_another() -> None:
    np.testing.assert_array_equal(scores(fit(MATRIX, trees=20, seed=1), MATRIX), SCORES)
    assert not np.array_equal(scores(fit(MATRIX, trees=20, seed=2), MATRIX), SCORES)


def test_trees_see_256_readings_or_all_there_are() -> None:
    assert FOREST.max_samples_ == 256
    assert fit(MATRIX[:40], trees=10, seed=0).max_samples_ == 40


def test_training_does_not_score_the_training_readings_again() -> None:
    assert FOREST.contamination == "auto"  # anything else makes scikit-learn do so inside fit


def test_equal_readings_score_as_ordinary() -> None:
    same = np.ones((300, 2), dtype=np.float32)
    np.testing.assert_allclose(scores(fit(same, trees=10, seed=0), same), 0.5)


def test_no_readings_are_refused_and_one_is_ordinary() -> None:
    with pytest.raises(ModelError, match="no readings to train on"):
        fit(MATRIX[:0], trees=10, seed=0)
    np.testing.assert_array_equal(scores(fit(MATRIX[:1], trees=10, seed=0), MATRIX[:3]), 0.5)


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_never_reach_the_forest(broken: float) -> None:
    matrix = MATRIX[:10].copy()
    matrix[[2, 5], 1] = broken
    with pytest.raises(ModelError, match="2 of 10 readings"):
        fit(matrix, trees=10, seed=0)
    with pytest.raises(ModelError, match="2 of 10 readings"):
        scores(FOREST, matrix)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 999), unique=True, max_size=8))
def test_batch_boundaries_do_not_change_scores(cuts: list[int]) -> None:
    (whole,) = TABLE.to_batches()
    edges = [0, *sorted(cuts), 1000]
    batches = (whole.slice(start, end - start) for start, end in pairwise(edges))
    scored = pa.Table.from_batches(list(score_batches(MODEL, batches, threshold=0.55)))
    np.testing.assert_array_equal(scored["reading_id"].to_numpy(), np.arange(1000))
    np.testing.assert_array_equal(scored["anomaly_score"].to_numpy(), SCORES)
    np.testing.assert_array_equal(scored["is_anomaly"].to_numpy(), SCORES > 0.55)
    assert set(scored["model_version"].to_pylist()) == {3}


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.integers(0, 30))
def test_few_batches_are_in_memory_and_results_keep_their_order(threads: int, count: int) -> None:
    read = 0

    def source() -> Iterator[int]:
        nonlocal read
        for number in range(count):
            read += 1
            yield number

    done = []
    for result in map_ahead(lambda number: number, source(), threads=threads):
        done.append(result)
        assert read - len(done) < 2 * threads
    assert done == list(range(count))


def test_threads_work_at_the_same_time_and_pass_errors_on() -> None:
    together = threading.Barrier(2, timeout=30)

    def meet(number: int) -> int:
        together.wait()
        if number == 3:
            raise ValueError(number)
        return number

    with pytest.raises(ValueError, match="3"):
        list(map_ahead(meet, iter(range(4)), threads=2))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=200), st.floats(0.01, 1))
def test_tally_quantiles_are_exact_to_a_bin(values: list[float], probability: float) -> None:
    tally = ScoreTally()
    for part in (values[:50], values[50:]):
        tally.add(
            pa.record_batch(
                {
                    "anomaly_score": pa.array(part, pa.float64()),
                    "is_anomaly": pa.array([one > 0.6 for one in part], pa.bool_()),
                }
            )
        )
    exact = float(np.quantile(values, probability, method="inverted_cdf"))
    assert abs(tally.quantile(probability) - exact) <= 1.01e-4
    assert tally.anomaly_share == pytest.approx(np.mean(np.array(values) > 0.6))
