"""Timestamps to UTC: forms, zones, hours that occur twice or not at all."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from energy_iot.ingestion.timestamps import (
    REMEMBERED_REPEATS,
    RepeatedHours,
    choose_format,
    infer_interval_minutes,
    read_local,
    repeated_times,
    to_instants,
)

SPAN = {"earliest": datetime(2000, 1, 1), "latest": datetime(2030, 1, 1)}


def instants(texts: list[str], zone: str = "UTC", text_format: str = "iso", meters: list[str] | None = None) -> list:
    found = to_instants(
        pl.Series(texts, dtype=pl.String),
        text_format=text_format,
        zone=zone,
        meter_ids=pl.Series(meters or ["m"] * len(texts)),
        repeated=RepeatedHours(),
        **SPAN,
    )
    return found.utc.to_list()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-03-31 02:30:00", datetime(2024, 3, 31, 2, 30)),
        ("2024-03-31T02:30:00", datetime(2024, 3, 31, 2, 30)),
        ("2024-03-31 02:30", datetime(2024, 3, 31, 2, 30)),
        ("2024-03-31T02:30", datetime(2024, 3, 31, 2, 30)),
        (" 2024-03-31 02:30 ", datetime(2024, 3, 31, 2, 30)),
        ("2024-03-31", datetime(2024, 3, 31)),
        ("2024-03-31T02:30:00.25", datetime(2024, 3, 31, 2, 30, 0, 250000)),
        ("2024-03-31T02:30:00,123456789", datetime(2024, 3, 31, 2, 30, 0, 123456)),
        ("2024-03-31T02:30:00Z", datetime(2024, 3, 31, 2, 30)),
        ("2024-03-31T02:30z", datetime(2024, 3, 31, 2, 30)),
        ("2024-03-31T02:30:00+01:00", datetime(2024, 3, 31, 1, 30)),
        ("2024-03-31 02:30:00.5 -0330", datetime(2024, 3, 31, 6, 0, 0, 500000)),
        ("2024-03-31 02:30+01", datetime(2024, 3, 31, 1, 30)),
        ("2024-03-31T02:30:00-00:30", datetime(2024, 3, 31, 3, 0)),
    ],
)
def test_iso_forms(text: str, expected: datetime) -> None:
    assert instants([text]) == [expected]
    assert instants([text, "2024-01-01 00:00:00"])[0] == expected  # beside a form of the quick path


@pytest.mark.parametrize(
    "text",
    ["", "yesterday", "31/03/2024", "2024-02-30 00:00", "2024-13-01", "2024-01-01 25:00:00", "2024-01-01 00:61",
     "2024-01-01T", "1711846800", "2024-01-01 00:00:00 PM", "2024-01-01 00:00:00+", "=cmd()",
     "\u0662\u0660\u0662\u0664-01-01"],
)  # fmt: skip
def test_no_iso_form(text: str) -> None:
    assert instants([text]) == [None]


def test_an_offset_counts_and_the_zone_does_not() -> None:
    texts = ["2024-07-01 12:00:00", "2024-07-01T12:00:00+00:00", "2024-03-31T02:30:00+01:00"]
    expected = [datetime(2024, 7, 1, 10), datetime(2024, 7, 1, 12), datetime(2024, 3, 31, 1, 30)]
    assert instants(texts, "Europe/Paris") == expected


def test_patterns_take_one_or_two_digits() -> None:
    texts = ["16/12/2006 17:24:00", "1/2/2007 0:05:00", " 1/2/2007 0:05:00 ", "12/16/2006 00:00:00"]
    local = read_local(pl.Series(texts), "%d/%m/%Y %H:%M:%S").to_list()
    assert local == [datetime(2006, 12, 16, 17, 24), datetime(2007, 2, 1, 0, 5), datetime(2007, 2, 1, 0, 5), None]


def test_one_format_for_a_file_is_that_which_reads_most() -> None:
    formats = ["iso", "%m/%d/%Y %H:%M"]
    assert choose_format(pl.Series(["01/02/2024 0:00", "01/13/2024 0:00", "2024-01-01 00:00"]), formats) == formats[1]
    assert choose_format(pl.Series(["01/02/2024 0:00", "2024-01-01 00:00"]), formats) == "iso"  # of equals the first
    assert choose_format(pl.Series(["?"]), formats) == "iso"


def test_a_time_that_the_spring_change_skips_does_not_exist() -> None:
    found = to_instants(
        pl.Series(["2024-03-31 01:30:00", "2024-03-31 02:30:00", "2024-03-31 03:30:00"]),
        text_format="iso",
        zone="Europe/Paris",
        meter_ids=pl.Series(["m"] * 3),
        repeated=RepeatedHours(),
        **SPAN,
    )
    assert found.skipped.to_list() == [False, True, False]
    assert found.utc.to_list() == [datetime(2024, 3, 31, 0, 30), None, datetime(2024, 3, 31, 1, 30)]


def test_the_hour_that_occurs_twice_does_not_collapse() -> None:
    texts = ["2024-10-27 02:00:00", "2024-10-27 02:30:00", "2024-10-27 02:00:00", "2024-10-27 02:30:00"]
    start = datetime(2024, 10, 27)
    assert instants(texts, "Europe/Paris") == [start + timedelta(minutes=30 * step) for step in range(4)]


def test_each_meter_has_its_own_first_occurrence() -> None:
    texts = ["2024-10-27 02:00:00"] * 4
    found = instants(texts, "Europe/Paris", meters=["a", "b", "a", "b"])
    assert found == [datetime(2024, 10, 27, 0), datetime(2024, 10, 27, 0)] + [datetime(2024, 10, 27, 1)] * 2


@pytest.mark.parametrize("text", ["0001-01-01 00:00:00", "1900-01-01 00:00:00", "9999-12-31 23:59:59", "2100-01-01"])
@pytest.mark.parametrize("zone", ["UTC", "Africa/Casablanca"])
def test_far_years_are_told_apart_and_break_nothing(text: str, zone: str) -> None:
    found = to_instants(
        pl.Series([text]),
        text_format="iso",
        zone=zone,
        meter_ids=pl.Series(["m"]),
        repeated=RepeatedHours(),
        **SPAN,
    )
    early = text < "2000"
    assert (found.too_early.to_list(), found.too_late.to_list(), found.utc.to_list()) == ([early], [not early], [None])


def test_the_memory_for_repeated_hours_is_bounded() -> None:
    repeated = RepeatedHours()
    start = datetime(2024, 1, 1)
    for number in range(REMEMBERED_REPEATS + 10):
        assert not repeated.is_second("m", start + timedelta(seconds=number))
    assert len(repeated.seen) <= REMEMBERED_REPEATS
    assert repeated.is_second("m", start + timedelta(seconds=REMEMBERED_REPEATS))


@settings(deadline=None)  # a busy machine is no fault
@given(
    zone=st.sampled_from(["Europe/Paris", "Africa/Casablanca", "Africa/Cairo", "Australia/Lord_Howe", "Africa/Lagos"]),
    start=st.datetimes(datetime(2010, 1, 1), datetime(2024, 12, 1)),
    near_change=st.booleans(),
    interval=st.sampled_from([15, 30, 60]),
    meters=st.integers(1, 3),
    by_meter=st.booleans(),
    cuts=st.lists(st.integers(0, 400), max_size=3),
)
def test_local_times_of_whole_series_read_back_as_the_instants_they_were(
    zone: str, start: datetime, near_change: bool, interval: int, meters: int, by_meter: bool, cuts: list[int]
) -> None:
    """Whatever the zone does, a series without holes becomes UTC again, in any stretches."""
    # Lord Howe turns its clock back by half an hour: hourly readings show only one of the two occurrences
    assume(not (zone == "Australia/Lord_Howe" and interval == 60))
    start = start.replace(minute=0, second=0, microsecond=0)
    if near_change:
        start = _before_next_change(start, ZoneInfo(zone))
    series = [(start + timedelta(minutes=interval * step), meter) for step in range(120) for meter in range(meters)]
    if by_meter:
        series.sort(key=lambda reading: reading[1])
    expected = [instant for instant, _ in series]
    local = [
        instant.replace(tzinfo=UTC).astimezone(ZoneInfo(zone)).strftime("%Y-%m-%d %H:%M:%S") for instant in expected
    ]
    repeated, found = RepeatedHours(), []
    bounds = [0, *sorted(min(cut, len(series)) for cut in cuts), len(series)]
    for low, high in pairwise(bounds):
        found += to_instants(
            pl.Series(local[low:high], dtype=pl.String),
            text_format="iso",
            zone=zone,
            meter_ids=pl.Series([f"m{meter}" for _, meter in series[low:high]], dtype=pl.String),
            repeated=repeated,
            **SPAN,
        ).utc.to_list()
    assert found == expected


def _before_next_change(start: datetime, zone: ZoneInfo) -> datetime:
    """About a day before the next change of the clock within a year, or `start` itself."""
    for day in range(366):
        later = start + timedelta(days=day)
        one, two = (moment.replace(tzinfo=UTC).astimezone(zone).utcoffset() for moment in (later, later + timedelta(1)))
        if one != two:
            return later - timedelta(hours=6)
    return start


@pytest.mark.parametrize(
    ("minutes", "expected"),
    [([0, 30, 60, 180, 210], 30), ([0, 0, 15], 15), ([30, 15, 0], 15), ([0, 5000], None), ([7], None), ([], None),
     ([0, 0.25, 0.5], 1), ([0, 1440, 2880, 2910], 1440), ([0, 10, 30], 10)],
)  # fmt: skip
def test_the_interval_is_the_most_common_distance(minutes: list[float], expected: int | None) -> None:
    utc = pl.Series([datetime(2024, 1, 1) + timedelta(minutes=number) for number in minutes], dtype=pl.Datetime("us"))
    assert infer_interval_minutes(utc, pl.Series(["m"] * len(minutes), dtype=pl.String)) == expected


def test_the_interval_is_within_a_meter() -> None:
    utc = pl.Series([datetime(2024, 1, 1, 0, minute) for minute in (0, 1, 30, 31)] + [None])
    assert infer_interval_minutes(utc, pl.Series(["a", "b", "a", "b", "a"])) == 30


def test_instants_of_an_hour_that_occurs_twice_know_their_clock_time_and_the_earlier_one() -> None:
    utc = pl.Series([datetime(2024, 10, 31, 20, 30), datetime(2024, 10, 31, 21, 30), datetime(2024, 10, 31, 22, 30)])
    found = repeated_times(utc, "Africa/Cairo")  # summer time ends there at 21:00 UTC: 23:30 comes twice
    twice = (datetime(2024, 10, 31, 23, 30), datetime(2024, 10, 31, 20, 30))
    assert found.rows() == [twice, twice, (None, None)]
    assert repeated_times(utc, "UTC").rows() == [(None, None)] * 3
