"""How suites read for a slice; no database, no Great Expectations."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from energy_iot.quality.suites import TOLERATED_ROWS, read_suites, slice_mostly, suite_for_slice


@given(
    st.floats(0.5, 1),
    st.integers(0, 10_000_000),
    st.integers(1, 4_000),
)
def test_a_slice_tolerates_no_less_than_its_table_and_no_more_than_half(mostly: float, rows: int, days: int) -> None:
    share = slice_mostly(mostly, rows=rows, days=days)
    assert 0.5 <= share <= mostly + 1e-8
    if days >= 30 and (1 - mostly) * rows >= TOLERATED_ROWS:
        assert share == pytest.approx(mostly, abs=2e-6)


@pytest.mark.parametrize(
    ("mostly", "rows", "days", "tolerated"),
    [
        (0.999, 48, 1, 5),  # a day of half-hours
        (0.999, 72_000, 1, 2160),  # of 1,500 meters: as many as 0.1 % of a month
        (0.999, 2_000_000, 1400, 2000),
        (0.99, 24_000, 1, 7200),  # a bad hour of the only weather station is 1,000 of them
        (0.99, 1, 1, 0),  # the only day of the only meter
        (0.99, 3, 1, 1),
        (0.95, 1000, 1, 500),
    ],
)
def test_what_is_tolerated(mostly: float, rows: int, days: int, tolerated: int) -> None:
    share = slice_mostly(mostly, rows=rows, days=days)
    assert (rows - tolerated) / rows >= share
    assert (rows - tolerated - 1) / rows < share


def test_a_suite_for_a_slice_leaves_out_rules_on_the_whole_table() -> None:
    name = "staging_readings_suite"
    suite = read_suites([name])[name]
    before = copy.deepcopy(suite)
    cut = suite_for_slice(suite, rows=48, days=1)
    assert suite == before
    rules, kept = ({rule["meta"]["rule"]: rule for rule in of["expectations"]} for of in (suite, cut))
    assert set(rules) - set(kept) == {"staging is not empty"}
    changed = {name for name, rule in kept.items() if rule != rules[name]}
    assert changed == {
        "consumption is plausible in almost all readings",
        "temperature is plausible",
        "humidity is a percentage",
    }
