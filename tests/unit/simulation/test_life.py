"""Holidays, circumstances of customers, and what honest meters and their telecommunication do to readings."""

from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from energy_iot.simulation.block import METERS_PER_BLOCK, Block, simulate_block, simulate_city
from energy_iot.simulation.circumstances import Cause, draw_circumstances, live
from energy_iot.simulation.clock import SUNDAY, Clock
from energy_iot.simulation.customers import draw_customers
from energy_iot.simulation.holidays import public_holidays
from energy_iot.simulation.loads import simulate_loads
from energy_iot.simulation.metering import NEVER, die, draw_arrivals, draw_deaths, draw_gains, run_ahead
from energy_iot.simulation.outages import FEEDERS
from energy_iot.simulation.rows import frames
from energy_iot.simulation.theft import TheftOptions

CLOCK = Clock(date(2025, 1, 6), 120, 60)
NOBODY_STEALS = TheftOptions(0, taps_share=0)


@pytest.fixture(scope="module")
def blocks() -> list[Block]:
    city = simulate_city(CLOCK, 6)
    return [simulate_block(city, 6, number, METERS_PER_BLOCK, NOBODY_STEALS) for number in range(4)]


def truth_of(blocks: list[Block]) -> pl.DataFrame:
    return pl.concat([frames(block)["truth.csv"] for block in blocks])


# --- holidays ---------------------------------------------------------------------------------------------------------

EASTER_MONDAYS = [date(2016, 3, 28), date(2019, 4, 22), date(2023, 4, 10), date(2024, 4, 1), date(2025, 4, 21)]
# as announced in Burkina Faso; the moon may shift them by a day
ISLAMIC_FEASTS = [
    date(2023, 4, 21),
    date(2023, 6, 28),
    date(2024, 4, 10),
    date(2024, 6, 16),
    date(2024, 9, 15),
    date(2025, 3, 30),
    date(2025, 6, 6),
]


@pytest.mark.parametrize("day", [*EASTER_MONDAYS, date(2024, 5, 9), date(2025, 12, 11), date(2024, 1, 1)])
def test_public_holidays_are_those_of_the_country(day: date) -> None:
    assert public_holidays(day, 1) == {day}


@pytest.mark.parametrize("day", ISLAMIC_FEASTS)
def test_islamic_feasts_are_right_to_a_day_or_so(day: date) -> None:
    assert public_holidays(day - timedelta(days=1), 3)


@given(start=st.dates(date(1990, 1, 1), date(2060, 1, 1)), days=st.integers(1, 800))
def test_holidays_lie_in_the_period_and_are_about_fifteen_a_year(start: date, days: int) -> None:
    holidays = public_holidays(start, days)
    assert all(start <= day < start + timedelta(days=days) for day in holidays)
    if days >= 365:
        of_first_year = {day for day in holidays if day < start + timedelta(days=365)}
        assert 13 <= len(of_first_year) <= 17
    halves = public_holidays(start, days // 2) if days > 1 else frozenset()
    assert halves | public_holidays(start + timedelta(days=days // 2), days - days // 2) == holidays


def test_shops_are_shut_and_homes_busy_on_a_holiday() -> None:
    clock = Clock(date(2025, 4, 28), 7, 30)  # 1 May is a Thursday
    assert clock.rhythm_of_days.tolist() == [0, 1, 2, SUNDAY, 4, 5, 6]
    city = simulate_city(clock, 1)
    supply = city.supply.at(np.zeros(METERS_PER_BLOCK, dtype=np.int64))
    supply = replace(supply, is_on=np.ones_like(supply.is_on))
    rng = np.random.default_rng(3)
    customers = draw_customers(METERS_PER_BLOCK, rng)
    power_kw = simulate_loads(clock, city.weather, supply, customers, rng).reshape(7, 48, -1)
    noon = power_kw[:, 18:30].mean(axis=1)
    assert noon[3, customers.is_shop].sum() < 0.5 * noon[[1, 2, 4]][:, customers.is_shop].sum(axis=1).min()
    assert noon[3, customers.is_home].sum() > 0.95 * noon[[1, 2, 4]][:, customers.is_home].sum(axis=1).mean()


def test_industry_works_in_shifts() -> None:
    clock = Clock(date(2025, 2, 3), 28, 30)
    rng = np.random.default_rng(5)
    customers = draw_customers(2000, rng)
    city = simulate_city(clock, 1)
    supply = city.supply.at(np.zeros(2000, dtype=np.int64))
    supply = replace(supply, is_on=np.ones_like(supply.is_on))
    power_kw = simulate_loads(clock, city.weather, supply, customers, rng)[:, customers.is_industry]
    industries = customers.industries
    assert set(industries.shifts) == {1, 2, 3}
    weekday, sunday = clock.rhythm_of_days < 5, clock.rhythm_of_days == SUNDAY
    by_day = power_kw.reshape(28, 48, -1)
    for shifts, hours_at_work in ((1, 8.5), (2, 17), (3, 24)):
        of_shift = by_day[..., industries.shifts == shifts]
        course = of_shift[weekday].mean(axis=(0, 2))
        assert (course > 0.5 * course.max()).sum() / 2 == pytest.approx(hours_at_work, abs=2.5)
        assert (of_shift[sunday].mean() > 0.7 * of_shift[weekday].mean()) == (shifts == 3)
    yearly_kwh = power_kw.mean(axis=0) * 8766
    assert 10_000 < np.median(yearly_kwh) < 60_000
    assert power_kw.max() < 45


# --- circumstances ----------------------------------------------------------------------------------------------------


def test_a_vacant_place_draws_little_more_than_standby(blocks: list[Block]) -> None:
    seen = 0
    for block in blocks:
        for spell in block.circumstances.spells:
            if spell.cause is not Cause.VACANCY or spell.first < 24 * 7:
                continue
            last = min(spell.last, CLOCK.intervals)
            assert spell.last - spell.first >= 7 * 24 - 1
            drawn = block.true_kwh[:, spell.meter]
            inside, before = drawn[spell.first : last], drawn[: spell.first]
            assert np.median(inside) < 0.5 * before.mean()
            assert np.median(inside) <= block.customers.idle_kw[spell.meter]
            if spell.last + 24 * 7 < CLOCK.intervals:  # somebody moves in
                assert drawn[spell.last :].mean() > 2 * np.median(inside)
            seen += 1
    assert seen > 8


def test_without_credit_nothing_is_drawn_though_voltage_is_there(blocks: list[Block]) -> None:
    hours = []
    for block in blocks:
        for spell in block.circumstances.spells:
            if spell.cause is Cause.PREPAID_DISCONNECTION:
                assert block.circumstances.is_prepaid[spell.meter]
                window = slice(spell.first, spell.last), spell.meter
                assert (block.true_kwh[window] == 0).all()
                hours.append(spell.last - spell.first)
                if spell.last < CLOCK.intervals:
                    assert 7 <= spell.last % 24 <= 22  # when credit is sold
    assert 1 / 3 > np.mean(np.array(hours) > 24) > 0.02
    assert 4 < np.median(hours) < 14
    volts = np.concatenate([block.voltage_v.ravel() for block in blocks])
    idle = np.concatenate([block.true_kwh.ravel() for block in blocks]) == 0
    assert (volts[idle] > 0).sum() > 1000


def test_events_are_as_frequent_as_stated(blocks: list[Block]) -> None:
    truth = truth_of(blocks)
    counts = dict(truth["kind"].value_counts().iter_rows())
    meter_days = len(blocks) * METERS_PER_BLOCK * CLOCK.days
    assert counts["vacancy"] == pytest.approx(meter_days / 1500, rel=0.6)
    assert counts["meter_replacement"] / 2 == pytest.approx(meter_days / 3650, rel=0.7)
    assert counts["prepaid_disconnection"] == pytest.approx(meter_days / 40 * 0.47, rel=0.3)
    assert 0.005 < (counts.get("growth", 0) + counts.get("decline", 0)) / 256 < 0.08
    assert not truth["is_theft"].any()
    assert (truth["stolen_kwh"] == 0).all()
    assert (truth["end_time"].is_null() | (truth["end_time"] > truth["start_time"])).all()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), days=st.integers(1, 200), more=st.integers(1, 200))
def test_a_longer_period_begins_with_the_same_events(seed: int, days: int, more: int) -> None:
    customers = draw_customers(METERS_PER_BLOCK, np.random.default_rng(seed))
    short, long = (
        draw_circumstances(replace(CLOCK, days=length), customers, np.random.default_rng(seed))
        for length in (days, days + more)
    )
    end = days * 24
    assert [spell for spell in long.spells if spell.first < end] == list(short.spells)
    assert (np.minimum(long.replaced_at, end) == short.replaced_at).all()
    assert (long.growth_a_year == short.growth_a_year).all()


def test_growth_is_slow_but_for_a_few() -> None:
    customers = draw_customers(1500, np.random.default_rng(1))
    clock = Clock(date(2024, 1, 1), 366, 60)
    circumstances = replace(draw_circumstances(clock, customers, np.random.default_rng(2)), spells=())
    power_kw = np.ones((clock.intervals, 1500))
    live(clock, customers, circumstances, power_kw)
    of_year = power_kw[-1] / power_kw[0]
    assert np.median(of_year) == pytest.approx(1.04, abs=0.01)
    assert 0.02 < ((of_year > 1.5) | (of_year < 0.67)).mean() < 0.045
    assert of_year.max() < 3.4
    assert of_year.min() > 0.29


# --- metering ---------------------------------------------------------------------------------------------------------


def test_meters_are_of_their_class() -> None:
    gains = draw_gains(5000, np.random.default_rng(1))
    assert np.abs(gains - 1).max() <= 0.02
    assert 0.9 < (np.abs(gains - 1) < 0.01).mean() < 0.99
    assert abs(gains.mean() - 1) < 0.001


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), minutes=st.sampled_from([5, 30, 60]))
def test_a_fast_clock_moves_energy_to_later_intervals_and_keeps_it(seed: int, minutes: int) -> None:
    clock = Clock(date(2025, 1, 6), 60, minutes)
    kwh = np.random.default_rng(seed).gamma(1, 0.1, (clock.intervals, 100))
    kwh[-1] = 0  # what would go beyond the end
    before = kwh.copy()
    run_ahead(clock, kwh, np.random.default_rng(seed))
    np.testing.assert_allclose(kwh.sum(axis=0), before.sum(axis=0))
    assert (kwh >= 0).all()
    moved = (np.cumsum(kwh, axis=0) - np.cumsum(before, axis=0))[:-1]
    assert moved.max() < 1e-9  # never to an earlier one
    is_fast = (kwh != before).any(axis=0)
    assert 0 < is_fast.mean() < 0.3


def test_dead_meters_show_nothing_or_the_same_for_weeks() -> None:
    clock = Clock(date(2024, 1, 1), 366, 60)
    spells, shows_nothing = draw_deaths(clock, 1500, np.random.default_rng(1))
    assert 4 <= len(spells) < 22
    kwh = np.random.default_rng(2).uniform(0.1, 1, (clock.intervals, 1500))
    before = kwh.copy()
    die(spells, shows_nothing, kwh)
    died = np.zeros(kwh.shape, dtype=np.bool_)
    for spell in spells:
        window = slice(spell.first, spell.last), spell.meter
        died[window] = True
        assert np.ptp(kwh[window]) == 0
        assert (kwh[window][0] == 0) == shows_nothing[spell.meter]
        assert 5 * 24 <= spell.last - spell.first <= 40 * 24
    assert (kwh[~died] == before[~died]).all()
    assert {bool(shows_nothing[spell.meter]) for spell in spells} == {True, False}


def test_some_readings_are_lost_and_some_come_late() -> None:
    clock = Clock(date(2025, 1, 6), 90, 30)
    arrival = draw_arrivals(clock, 200, np.random.default_rng(1))
    own = np.arange(clock.intervals)[:, None]
    lost, late = arrival == NEVER, arrival > own
    assert (lost | late | (arrival == own)).all()
    assert 0.001 < lost.mean() < 0.01
    assert 0.0005 < late.mean() < 0.01
    behind_hours = (arrival - own)[late] * 0.5
    assert 0.5 < np.median(behind_hours) < 24


def test_late_readings_stand_behind_newer_ones_and_none_is_doubled(blocks: list[Block]) -> None:
    rows = frames(blocks[0])
    for frame, key in ((rows["readings.csv"], "meter_id"), (rows["network_readings.csv"], "node_id")):
        newest = frame.with_columns(newest=pl.col("timestamp").cum_max().over(key))
        behind = (newest["timestamp"] < newest["newest"]).mean()
        assert 0 < behind < 0.02
        assert not frame.select(key, "timestamp").is_duplicated().any()


def test_feeders_are_eight() -> None:
    assert simulate_city(Clock(date(2025, 1, 6), 1, 60), 0).supply.is_on.shape == (24, FEEDERS)
