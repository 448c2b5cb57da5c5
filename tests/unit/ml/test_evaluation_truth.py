from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from energy_iot.errors import InputFileError
from energy_iot.ml.evaluation.baselines import biggest_drop, z_score
from energy_iot.ml.evaluation.metrics import LOWEST
from energy_iot.ml.evaluation.network import (
    TapFigures,
    TransformerMonth,
    judge_taps,
    tapped_in_month,
    whole_month,
)
from energy_iot.ml.evaluation.truth import NOTHING, FleetTruth, Tap, read_truth

TRUTH = """subject_id,subject_type,kind,is_theft,start_time,end_time,stolen_kwh
M1,meter,bypass_period,true,2025-03-01 00:00:00,,120.5
M2,meter,average_substitution,true,2025-03-01 00:00:00,2025-03-20 00:00:00,-4.0
M3,meter,vacancy,false,2025-02-01 00:00:00,2025-02-20 00:00:00,0
M3,meter,growth,false,2025-01-06 00:00:00,,0
M1,meter,vacancy,false,2025-02-01 00:00:00,2025-02-20 00:00:00,0
T0001A,transformer,direct_tap,true,2025-03-01 00:00:00,,900
"""


@pytest.fixture
def truth(tmp_path: Path) -> FleetTruth:
    file = tmp_path / "truth.csv"
    file.write_text(TRUTH)
    return read_truth(file, ["M4", "M3", "M2", "M1"])


def test_truth_by_meter(truth: FleetTruth) -> None:
    assert truth.meter_ids == ("M1", "M2", "M3", "M4")
    assert truth.theft_kinds == {"M1": "bypass_period", "M2": "average_substitution"}
    assert truth.stolen_kwh == {"M1": 120.5, "M2": 0.0}
    assert truth.kinds == ("average_substitution", "bypass_period")
    assert truth.taps == (Tap("T0001A", datetime(2025, 3, 1), None, 900.0),)


def test_innocent_causes_are_those_of_innocent_meters(truth: FleetTruth) -> None:
    assert [sorted(truth.causes_of(meter)) for meter in truth.meter_ids] == [[], [], ["growth", "vacancy"], [NOTHING]]
    assert truth.causes == (NOTHING, "growth", "vacancy")


def test_a_meter_without_a_score_is_last(truth: FleetTruth) -> None:
    ranking = truth.ranking({"M1": 0.2, "M3": 0.1})
    assert ranking.scores.tolist() == [0.2, LOWEST, 0.1, LOWEST]
    assert ranking.is_theft.tolist() == [True, True, False, False]
    assert ranking.innocent.tolist() == [False, False, True, True]
    assert ranking.stolen_kwh.tolist() == [120.5, 0.0, 0.0, 0.0]


def test_nobody_does_better_than_the_perfect_list(truth: FleetTruth) -> None:
    assert truth.perfect_scores() == {"M1": 121.5, "M2": 1.0, "M3": 0, "M4": 0}


def test_one_kind_is_held_against_innocent_meters_only(truth: FleetTruth) -> None:
    ranking = truth.ranking({}, "average_substitution")
    assert ranking.is_theft.tolist() == [False, True, False, False]
    assert ranking.innocent.tolist() == [False, False, True, True]
    assert ranking.stolen_kwh.tolist() == [0.0, 0.0, 0.0, 0.0]


def test_truth_of_another_fleet_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "truth.csv"
    file.write_text(TRUTH)
    with pytest.raises(InputFileError, match="1 meters that are not in the fleet, such as M3"):
        read_truth(file, ["M1", "M2"])
    file.write_text("meter_id,kind\nM1,bypass_period\n")
    with pytest.raises(InputFileError, match="no truth of a generated fleet"):
        read_truth(file, ["M1"])


# --- simple rankings ------------------------------------------------------------------------------------------------


def days(kwh: dict[str, list[float]], first: date = date(2025, 1, 1)) -> pl.DataFrame:
    rows = [
        (meter, first + timedelta(days=day), value) for meter, values in kwh.items() for day, value in enumerate(values)
    ]
    return pl.DataFrame(rows, schema=["meter_id", "reading_date", "daily_kwh"], orient="row")


def test_biggest_drop_compares_the_last_two_weeks_with_the_four_before() -> None:
    scores = biggest_drop(
        days(
            {
                "halved": [99.0] * 8 + [10.0] * 28 + [5.0] * 14,  # what lies further back does not count
                "steady": [10.0] * 50,
                "rising": [10.0] * 36 + [20.0] * 14,
                "never": [0.0] * 50,
            }
        )
    )
    assert scores == {"halved": 0.5, "rising": -1.0, "steady": 0.0}


def test_a_meter_without_a_past_or_a_present_is_not_judged() -> None:
    frame = pl.concat(
        [
            days({"whole": [10.0] * 50}),
            days({"new": [10.0] * 10}, date(2025, 2, 10)),
            days({"gone": [10.0] * 20}),
        ]
    )
    assert set(biggest_drop(frame)) == {"whole"}
    assert set(z_score(frame)) == set()  # no spread at all in the steady one


def test_z_score_counts_deviations_below_the_own_past() -> None:
    past = [9.0, 11.0] * 20
    scores = z_score(days({"down": past + [5.0] * 14, "up": past + [15.0] * 14, "as ever": past + [10.0] * 14}))
    spread = float(np.std(past, ddof=1))
    assert scores == pytest.approx({"down": 5 / spread, "up": -5 / spread, "as ever": 0.0})


# --- direct taps ----------------------------------------------------------------------------------------------------


@given(st.dates(date(2024, 1, 1), date(2025, 12, 31)), st.integers(0, 400))
def test_the_month_judged_is_the_newest_whole_one(last: date, length: int) -> None:
    first = date.fromordinal(last.toordinal() - length)
    month = whole_month(first, last)
    after = date(month.year + month.month // 12, month.month % 12 + 1, 1)
    assert month.day == 1
    assert first < after
    assert month <= last
    if length >= 61:
        assert first <= month
        assert after <= date.fromordinal(last.toordinal() + 1)
        assert (last - after).days < 31


def test_a_tap_counts_with_its_part_of_the_month() -> None:
    end = datetime(2025, 5, 6)
    whole = Tap("A", datetime(2025, 3, 1), None, 660.0)  # 66 days, 10 kWh each
    late = Tap("B", datetime(2025, 4, 21), datetime(2025, 5, 1), 50.0)
    after = Tap("C", datetime(2025, 5, 1), None, 50.0)
    before = Tap("A", datetime(2025, 2, 1), datetime(2025, 3, 1), 50.0)
    taken = tapped_in_month([whole, late, after, before], date(2025, 4, 1), end)
    assert taken == pytest.approx({"A": 300.0, "B": 50.0})


def transformer(number: int, unexplained: float | None, tapped: float = 0.0) -> TransformerMonth:
    return TransformerMonth(f"T{number}", unexplained, 1000.0, tapped)


def test_notable_taps_are_looked_for_at_the_top() -> None:
    nodes = [
        transformer(0, 0.30, tapped=200.0),
        transformer(1, 0.02, tapped=60.0),
        transformer(2, 0.25, tapped=40.0),  # too small to be judged, and yet second in the list
        *(transformer(number, 0.05 + number / 1000) for number in range(3, 20)),
    ]
    found = judge_taps(nodes)
    assert (found.transformers, found.tapped, found.notable, found.top) == (20, 3, 2, 2)
    assert found.notable_in_top == 1.0
    assert found.roc_auc == 0.5  # one above all untapped ones, one below


def test_without_taps_or_transformers_there_is_nothing_to_find() -> None:
    assert judge_taps([]) == TapFigures(0, 0, 0, 0, 0.0, None)
    found = judge_taps([transformer(0, 0.1), transformer(1, None)])
    assert (found.notable, found.notable_in_top, found.roc_auc) == (0, 0.0, None)


def test_a_transformer_whose_balance_is_unknown_is_last() -> None:
    found = judge_taps([transformer(0, None, tapped=500.0), transformer(1, -0.5)])
    assert (found.notable_in_top, found.roc_auc) == (0.0, 0.0)
