import doctest
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from sklearn.metrics import average_precision_score

from energy_iot.errors import InputFileError
from energy_iot.ml import inspections
from energy_iot.ml.inspections import MAX_DAYS_APART, Reranking, refuse_other_content, rerank
from tests.known_figures import known

LAST_DAY: Final = date(2025, 5, 5)
METERS, INSPECTED = 500, 220
FEATURES: Final = ("night_rise", "drop", "noise")


@pytest.fixture(autouse=True)
def _fewer_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same comparisons in a fraction of the time."""
    monkeypatch.setattr(inspections, "TREES", 20)
    monkeypatch.setattr(inspections, "FOLDS", 3)
    monkeypatch.setattr(inspections, "CALIBRATION_FOLDS", 2)


def fleet(seed: int = 0) -> tuple[pl.DataFrame, np.ndarray]:
    """Meters of which a fifth steal; the score sees them dimly, and `night_rise` shows what it misses."""
    random = np.random.default_rng(seed)
    steals = random.random(METERS) < 0.2
    noise = random.normal(0, 1, (4, METERS))
    meters = pl.DataFrame(
        {
            "meter_id": [f"M{number:03d}" for number in range(METERS)],
            "suspicion_score": 1 / (1 + np.exp(-noise[0] - steals)),
            "night_rise": noise[1] + 2.5 * steals,
            "drop": np.where(np.arange(METERS) % 7 == 0, np.nan, noise[2] + steals),
            "noise": pl.Series(noise[3]).set(pl.Series(np.arange(METERS) % 11 == 0), None),
            "is_prepaid": np.arange(METERS) % 2 == 0,
        }
    )
    return meters, steals


def inspect_top(
    meters: pl.DataFrame, found: Sequence[bool], count: int = INSPECTED, on: date = LAST_DAY
) -> pl.DataFrame:
    """Outcomes of the `count` most suspect meters."""
    return (
        meters.with_columns(found_theft=pl.Series(found), inspected_on=pl.lit(on))
        .sort("suspicion_score", descending=True)
        .head(count)
        .select("meter_id", "inspected_on", "found_theft")
    )


def learn(meters: pl.DataFrame, outcomes: pl.DataFrame, **changed: Any) -> Reranking:
    asked = {"min_inspections": 200, "min_inspected_thefts": 30, "seed": 42}
    return rerank(meters, outcomes, features=[*FEATURES, "is_prepaid"], last_day=LAST_DAY, **(asked | changed))


def test_the_examples_hold() -> None:
    result = doctest.testmod(inspections)
    assert result.attempted
    assert not result.failed


def test_it_is_used_where_inspections_teach_something() -> None:
    meters, steals = fleet()
    done = learn(meters, inspect_top(meters, steals))
    report = done.report
    assert report.used
    assert report.reason.startswith(f"learned from {INSPECTED} inspected meters, {report.thefts} with theft")
    learned, unlearned, least_gain = known(
        report.supervised_average_precision, report.unsupervised_average_precision, report.least_gain
    )
    assert learned > unlearned
    assert least_gain > 0
    assert done.probabilities is not None
    assert done.probabilities.columns == ["meter_id", "theft_probability"]
    assert done.probabilities["meter_id"].to_list() == sorted(meters["meter_id"])
    chances = done.probabilities["theft_probability"].to_numpy()
    assert ((chances >= 0) & (chances <= 1)).all()
    uninspected = ~meters["meter_id"].is_in(inspect_top(meters, steals)["meter_id"].to_list()).to_numpy()
    scores = meters["suspicion_score"].to_numpy()
    assert average_precision_score(steals[uninspected], chances[uninspected]) > average_precision_score(
        steals[uninspected], scores[uninspected]
    )


def test_probabilities_are_calibrated() -> None:
    """Of the inspected meters, as many steal as the chances of unseen ones add up to, in each half of the list too."""
    meters, steals = fleet()
    matrix = meters.select("suspicion_score", *FEATURES).to_numpy().astype(np.float32)
    chances = inspections._probabilities_of_unseen(matrix, steals, 42)
    order = np.argsort(chances)
    for part in (order, order[:250], order[250:]):
        assert chances[part].mean() == pytest.approx(steals[part].mean(), abs=0.06)


@pytest.mark.parametrize("seed", [0, 1])
def test_it_is_refused_where_outcomes_are_noise(seed: int) -> None:
    """Theft was found as the score says, or by chance: the features add nothing."""
    meters, _ = fleet(seed)
    found = np.random.default_rng(1000 + seed).random(METERS) < meters["suspicion_score"].to_numpy() * 0.6
    done = learn(meters, inspect_top(meters, found))
    assert done.probabilities is None
    assert not done.report.used
    assert "not surely better" in done.report.reason
    assert known(done.report.least_gain) <= (0,)


@pytest.mark.parametrize(
    ("count", "changed"),
    [(199, {}), (INSPECTED, {"min_inspections": 221}), (INSPECTED, {"min_inspected_thefts": 100})],
)
def test_it_is_refused_below_the_minimum(count: int, changed: dict[str, int]) -> None:
    meters, steals = fleet()
    done = learn(meters, inspect_top(meters, steals, count), **changed)
    assert done.probabilities is None
    assert "too few to learn from" in done.report.reason
    assert done.report.outcomes == count
    assert done.report.supervised_average_precision is None


def test_thefts_alone_teach_nothing() -> None:
    meters, _ = fleet()
    done = learn(meters, inspect_top(meters, [True] * METERS))
    assert "220 inspected meters, 220 with theft: too few" in done.report.reason


def test_without_inspections_there_is_no_learned_ranking() -> None:
    meters, _ = fleet()
    done = learn(meters, inspections.outcomes_frame([]))
    assert done.probabilities is None
    assert (done.report.outcomes, done.report.thefts, done.report.outdated) == (0, 0, 0)


def test_the_same_frames_in_any_order_give_the_same_probabilities() -> None:
    meters, steals = fleet()
    outcomes = inspect_top(meters, steals)
    first = learn(meters, outcomes)
    again = learn(meters.sample(fraction=1, shuffle=True, seed=1), outcomes.sample(fraction=1, shuffle=True, seed=2))
    assert first.probabilities is not None
    assert again.probabilities is not None
    assert_frame_equal(first.probabilities, again.probabilities, check_exact=True)
    assert first.report == again.report


def test_outcomes_of_another_time_or_of_unknown_meters_do_not_count() -> None:
    """Features describe a meter's last weeks; what an inspection found long ago, it may have mended."""
    meters, steals = fleet()
    outcomes = pl.concat(
        [
            inspect_top(meters, steals, on=LAST_DAY - timedelta(days=MAX_DAYS_APART)),
            inspect_top(meters, ~steals, 150, on=LAST_DAY - timedelta(days=MAX_DAYS_APART + 1)),
            inspect_top(meters, ~steals, 50).with_columns(pl.format("unknown {}", "meter_id").alias("meter_id")),
        ]
    )
    report = learn(meters, outcomes, min_inspections=INSPECTED + 1).report
    assert (report.outcomes, report.outdated) == (INSPECTED, 150)


def test_of_several_inspections_of_a_meter_the_latest_counts() -> None:
    meters, steals = fleet()
    earlier = inspect_top(meters, ~steals, on=LAST_DAY - timedelta(days=3))
    later = inspect_top(meters, steals)
    only = learn(meters, later)
    both = learn(meters, pl.concat([later, earlier]))
    assert both.report == only.report


def test_what_holds_no_outcomes_is_refused(tmp_path: Path) -> None:
    outcomes, readings = tmp_path / "outcomes.csv", tmp_path / "readings.csv"
    outcomes.write_text("inspected_on,meter_id,found_theft\n2025-05-01,M1,true\n")
    refuse_other_content(outcomes)
    readings.write_text("meter_id,timestamp,consumption_kwh\nM1,2025-05-01 00:00:00,0.5\n")
    with pytest.raises(InputFileError, match=r"readings.csv holds no outcomes of inspections, but is long_format"):
        refuse_other_content(readings)
    with pytest.raises(InputFileError, match=r"outcome.csv does not exist"):
        refuse_other_content(tmp_path / "outcome.csv")
