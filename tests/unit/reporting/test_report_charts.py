"""The charts and sentences of the report, as pure functions of its data."""

import doctest
import json
import math
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Any

import pytest
import vl_convert
from hypothesis import given
from hypothesis import strategies as st

from energy_iot.reporting import charts, formats, sentences
from energy_iot.reporting.report_data import Day, HourOfWeek, MeterAnomalies, ReportData, ScoredReading, Scores

START = date(2026, 1, 5)  # a Monday


def make_days(number: int, *, scored: bool = True) -> tuple[Day, ...]:
    odd = {"high_consumption": 1, "low_consumption": 0, "unusual_pattern": 2} if scored else {}
    return tuple(Day(START + timedelta(days=at), 240.0 + at, 10, 480, 480, **odd) for at in range(number))


def make_reading(score: float, kwh: float = 0.5, kind: str | None = None, meter: str = "m1") -> ScoredReading:
    return ScoredReading(1, meter, datetime(2026, 1, 5, 12), kwh, score, kind, 1.0, 0.0)


def make_scores(top: tuple[ScoredReading, ...], others: tuple[ScoredReading, ...]) -> Scores:
    kinds = {str(reading.anomaly_type): 1 for reading in top}
    return Scores(
        100, len(top), 1, 1, 24, min(1, len(top)), 1, datetime(2026, 1, 6), kinds, top, others, meters=()
    )  # fmt: skip


def rows(spec: charts.Spec) -> list[dict[str, Any]]:
    return [row for values in spec["datasets"].values() for row in values]


def compiled(spec: charts.Spec) -> dict[str, object]:
    """What Vega-Lite makes of it; raises where it is no valid specification."""
    vega = vl_convert.vegalite_to_vega({**spec, "width": 600, "config": charts.CONFIG})
    assert isinstance(vega, dict)
    json.dumps(vega, allow_nan=False)
    return vega


@pytest.mark.parametrize("module", [formats, charts])
def test_examples_in_docstrings(module: object) -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize(
    ("kwh", "text"),
    [
        (0, "0 kWh"),
        (0.0123, "0.0123 kWh"),
        (9_999, "9,999 kWh"),
        (10_000, "10 MWh"),
        (34_070_000, "34.1 GWh"),
        (None, formats.DASH),
    ],
)
def test_energy_has_the_unit_that_suits(kwh: float | None, text: str) -> None:
    assert formats.energy(kwh).replace(formats.THIN, " ") == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.01, "<0.1 s"), (12.34, "12.3 s"), (125, "2 min 05 s"), (12_000, "3 h 20 min"), (270_000, "3 d 3 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert formats.duration(seconds).replace(formats.THIN, " ") == text


@given(st.floats(min_value=1e-4, max_value=1e15))
def test_figures_keep_three_digits(value: float) -> None:
    shown = float(formats.figure(value).replace(",", ""))
    assert math.isclose(shown, value, rel_tol=0.006, abs_tol=0.51e-4)


@given(st.floats(min_value=0, max_value=1))
def test_no_share_reads_as_none_or_all_unless_it_is(value: float) -> None:
    text = formats.share(value).removesuffix(f"{formats.THIN}%")
    assert (text == "0") == (value == 0)
    assert (text == "100") == (value == 1)


@pytest.mark.parametrize("number", [1, 2, 10, 11, 62, 63, 150, 500, 2_000, 4_000])
def test_consumption_is_drawn_for_any_number_of_days(number: int) -> None:
    spec = charts.consumption_chart(make_days(number), min_completeness=0.9)
    compiled(spec)
    drawn = [row for row in rows(spec) if row["energy"] is not None]
    total = sum(day.consumption_kwh for day in make_days(number))
    kwh = 1000 if "MWh a week" in json.dumps(spec) else 1
    assert ("MWh" in json.dumps(spec)) == (number > charts.WEEKLY_LINE_BEYOND_DAYS)
    assert sum(row["energy"] for row in drawn) * kwh == pytest.approx(total, rel=1e-3)
    compiled(charts.anomalies_chart(make_days(number)))


def test_a_line_breaks_where_days_are_absent() -> None:
    days = make_days(200)
    spec = charts.consumption_chart(days[:100] + days[105:], min_completeness=0.9)
    absent = [row for row in rows(spec) if row["energy"] is None]
    assert [row["label"] for row in absent] == [formats.day(days[at].day) for at in range(100, 105)]


def test_an_incomplete_day_does_not_pull_the_mean_down() -> None:
    days = [Day(START + timedelta(days=at), 100.0, 10, 480, 480) for at in range(100)]
    days[50] = replace(days[50], consumption_kwh=1.0, reading_count=5)
    spec = charts.consumption_chart(days, min_completeness=0.9)
    assert {row["mean"] for row in rows(spec)} == {100.0}


def test_days_with_few_readings_are_hollow_and_left_out_of_the_sentence() -> None:
    whole = make_days(20)
    days = (*whole[:-1], Day(whole[-1].day, 1.0, 10, 100, 480, 0, 0, 0))
    spec = charts.consumption_chart(days, min_completeness=0.9)
    assert [row["partial"] for row in rows(spec)] == [False] * 19 + [True]
    text = sentences.consumption(ReportData(datetime(2026, 2, 1), days=days), min_completeness=0.9)
    assert "least on 5 Jan 2026" in text
    assert "1 day with less than 90" in text


@given(st.lists(st.tuples(st.integers(0, 900), st.integers(0, 50)), min_size=1, max_size=60, unique_by=lambda x: x[0]))
def test_weeks_hold_what_their_days_held(found: list[tuple[int, int]]) -> None:
    days = [Day(START + timedelta(days=at), at + 0.5, 3, 48, 48, odd, 1, 0) for at, odd in sorted(found)]
    weeks = charts.by_week(days)
    assert all(week.day.weekday() == 0 for week in weeks)
    assert len({week.day for week in weeks}) == len(weeks)
    assert sum(week.consumption_kwh for week in weeks) == pytest.approx(sum(day.consumption_kwh for day in days))
    assert sum(week.anomalies or 0 for week in weeks) == sum(day.anomalies or 0 for day in days)
    assert sum(week.reading_count for week in weeks) == sum(day.reading_count for day in days)


def test_weeks_of_unscored_days_are_unscored() -> None:
    assert charts.by_week(make_days(9, scored=False))[0].anomalies is None


def test_the_heat_map_starts_on_monday_and_has_a_cell_for_each_hour() -> None:
    week = [HourOfWeek(day, hour, day + hour / 24, 10) for day in range(7) for hour in range(24)]
    spec = charts.heat_map(week)
    assert spec["encoding"]["y"]["scale"]["domain"] == ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
    assert len(rows(spec)) == 168
    assert {"day": "Sun", "hour": 0}.items() <= rows(spec)[0].items()
    assert charts.heat_bounds(week) == (0.0, 6 + 23 / 24)
    compiled(spec)


def test_one_value_is_no_scale_of_no_length() -> None:
    for power in (0.0, 0.4, -0.4):
        low, high = charts.heat_bounds([HourOfWeek(1, 3, power, 1)])
        assert low < high


def test_numbers_that_are_none_are_not_drawn() -> None:
    compiled(charts.heat_map([HourOfWeek(1, 3, math.nan, 1), HourOfWeek(1, 4, 0.2, 1)]))
    scores = make_scores(
        (make_reading(math.nan, kind="high_consumption"),), (make_reading(0.4), make_reading(0.4, math.inf))
    )
    spec = charts.score_chart(scores, threshold=0.6)
    assert len([row for row in rows(spec) if "kwh" in row]) == 1
    compiled(spec)


def test_anomalies_are_drawn_over_the_others_with_the_strangest_on_top() -> None:
    top = (make_reading(0.9, kind="low_consumption"), make_reading(0.7, kind="unusual_pattern"))
    spec = charts.score_chart(make_scores(top, (make_reading(0.4),)), threshold=0.6)
    points = [row for row in rows(spec) if "kwh" in row]
    assert [point["score"] for point in points] == [0.4, 0.7, 0.9]
    assert [point["kind"] for point in points] == ["other reading", "unusual pattern", "low consumption"]
    compiled(spec)


def test_a_few_large_readings_do_not_press_the_others_to_the_axis() -> None:
    small = tuple(make_reading(0.4, 0.1) for _ in range(9))
    even = charts.score_chart(make_scores((), small), threshold=0.6)
    skewed = charts.score_chart(make_scores((make_reading(0.8, 40, "high_consumption"),), small), threshold=0.6)
    assert even["layer"][0]["encoding"]["x"]["scale"]["type"] == "linear"
    assert skewed["layer"][0]["encoding"]["x"]["scale"]["type"] == "sqrt"
    assert "square-root" in skewed["layer"][0]["encoding"]["x"]["title"]


def test_meters_keep_their_order_and_their_names() -> None:
    meters = [MeterAnomalies(name, 100, 3 - at, at, 0, 0.8) for at, name in enumerate(["b</script>", "a", "c"])]
    spec = charts.meters_chart(meters, fleet_share=0.01)
    assert spec["layer"][0]["encoding"]["y"]["sort"] == ["b</script>", "a", "c"]
    compiled(spec)


def test_the_average_day_weighs_by_readings() -> None:
    week = [HourOfWeek(1, hour, 1.0, 30) for hour in range(24)] + [HourOfWeek(2, 7, 3.0, 10)]
    curve = charts.average_day(week)
    assert curve is not None
    assert (curve.peak_hour, curve.peak_kw) == (7, 1.5)
    assert charts.average_day(week[1:24]) is None  # an hour is not known


@pytest.mark.parametrize(
    ("anomalies", "readings", "text"),
    [
        (0, 1, "None of 1 reading is unlike its meter's own past"),
        (1, 1, "1 of 1 reading (100 %) is unlike its meter's own past"),
        (12, 48_000, "12 of 48,000 readings (0.03 %) are unlike their meter's own past"),
    ],
)
def test_the_heading_says_what_was_found(anomalies: int, readings: int, text: str) -> None:
    scores = Scores(readings, anomalies, 1, 1, 1, 1, 1, datetime(2026, 1, 6), {}, (), (), ())
    heading = sentences.heading(ReportData(datetime(2026, 2, 1), days=make_days(1), meters=1, scores=scores))
    assert heading.replace(formats.THIN, " ").replace("\u2019", "'") == text
