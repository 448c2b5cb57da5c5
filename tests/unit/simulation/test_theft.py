"""What thieves do to their meters and to the network, kind by kind, and that nobody else is touched."""

from datetime import date
from functools import cache

import numpy as np
import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from energy_iot.errors import UsageError
from energy_iot.simulation.block import METERS_PER_BLOCK, Block, simulate_block, simulate_city
from energy_iot.simulation.circumstances import Cause
from energy_iot.simulation.clock import Clock, Floats
from energy_iot.simulation.rows import frames
from energy_iot.simulation.theft import (
    DAYS_AFTER_ONSET_MIN,
    HOME_PEAK_HOURS,
    METER_KINDS,
    WORK_PEAK_HOURS,
    Theft,
    TheftKind,
    TheftOptions,
    draw_thefts,
    onset_days,
    parse_theft_kinds,
    tamper,
)

CLOCK = Clock(date(2025, 1, 6), 42, 60)
CITY = simulate_city(CLOCK, 4)
MANY = TheftOptions(theft_share=0.6, taps_share=1)


@cache
def town(*kinds: TheftKind, seed: int = 4, meters: int = METERS_PER_BLOCK, share: float = 0.6) -> Block:
    """One block full of thieves, of some kinds or all."""
    options = TheftOptions(share, frozenset(kinds or TheftKind), 1)
    return simulate_block(CITY, seed, 0, meters, options)


def lines_of(block: Block, file: str) -> dict[str, list[tuple[object, ...]]]:
    """Rows of one of the block's files by its first column."""
    frame = frames(block)[file]
    return {str(key[0]): rows.rows() for key, rows in frame.group_by(frame.columns[0], maintain_order=True)}


# --- each kind has the effect that its name says ----------------------------------------------------------------------


def one_meter(seed: int, *, is_home: bool = True) -> tuple[Floats, np.ndarray]:
    """True consumption and supply of a meter that had outages, shape (intervals, 1)."""
    rng = np.random.default_rng(seed)
    busiest_hour = 20 if is_home else 13
    course = 1 + 0.7 * np.cos((CLOCK.hour - busiest_hour) / 24 * 2 * np.pi)
    true_kwh = rng.gamma(2, 0.2, (CLOCK.intervals, 1)) * course[:, None]
    is_on = rng.random(true_kwh.shape) > 0.05
    true_kwh[~is_on] = 0
    return true_kwh, is_on


def registered(kind: TheftKind, seed: int, *, first: int, is_home: bool = True) -> tuple[Floats, Floats, np.ndarray]:
    """True and tampered consumption since the onset of that meter, by day; and its supply."""
    true_kwh, is_on = one_meter(seed, is_home=is_home)
    theft = Theft(0, kind, first, 0 if first else 100)
    got_kwh = tamper(CLOCK, [theft], np.array([is_home]), is_on, true_kwh, {0: np.random.default_rng(seed + 1)})
    assert (got_kwh[:first] == true_kwh[:first]).all()
    assert (got_kwh[~is_on] == 0).all()
    assert (got_kwh >= 0).all()
    return tuple(each[first:, 0].reshape(-1, CLOCK.intervals_per_day) for each in (true_kwh, got_kwh, is_on))


any_onset = st.sampled_from([0, 20 * 24])
any_seed = st.integers(0, 2**32)
examples = settings(max_examples=60, deadline=None)


@examples
@given(seed=any_seed, first=any_onset)
def test_constant_under_registration_takes_the_same_share_of_all(seed: int, first: int) -> None:
    true, got, is_on = registered(TheftKind.CONSTANT_UNDER_REGISTRATION, seed, first=first)
    shares = got[is_on] / true[is_on]
    assert np.ptp(shares) < 1e-9
    assert 0.1 <= shares[0] <= 0.8


@examples
@given(seed=any_seed, first=any_onset)
def test_random_under_registration_takes_another_share_each_time(seed: int, first: int) -> None:
    true, got, is_on = registered(TheftKind.RANDOM_UNDER_REGISTRATION, seed, first=first)
    shares = got[is_on] / true[is_on]
    assert 0.1 <= shares.min() < 0.2
    assert 0.7 < shares.max() <= 0.8
    assert len(np.unique(shares.round(9))) > 0.99 * len(shares)


@examples
@given(seed=any_seed, first=any_onset)
def test_bypass_leaves_nothing_or_everything(seed: int, first: int) -> None:
    true, got, is_on = registered(TheftKind.BYPASS_PERIOD, seed, first=first)
    bypassed = is_on & (got == 0)
    assert (got[is_on & ~bypassed] == true[is_on & ~bypassed]).all()
    hours = bypassed.sum(axis=1)
    by_day = hours.max() <= 14  # hours of each day; else whole days
    if by_day:
        assert hours.max() >= 3  # four, an outage aside
        assert (hours > 0).mean() > 0.5
    else:
        assert set(np.unique((bypassed | ~is_on).all(axis=1) | (hours == 0))) == {True}
        assert (hours > 0).mean() > 0.3


@examples
@given(seed=any_seed, first=any_onset)
def test_average_substitution_shows_the_mean_of_the_past(seed: int, first: int) -> None:
    _, got, is_on = registered(TheftKind.AVERAGE_SUBSTITUTION, seed, first=first)
    true_kwh, was_on = one_meter(seed)
    past = slice(0, first or None)  # all of the period if the theft is older
    assert np.ptp(got[is_on]) == 0
    assert got[is_on][0] == pytest.approx(true_kwh[past][was_on[past]].mean())


@examples
@given(seed=any_seed, first=any_onset, is_home=st.booleans())
def test_peak_hiding_takes_from_the_hours_of_high_load_only(seed: int, first: int, is_home: bool) -> None:
    true, got, _ = registered(TheftKind.PEAK_HIDING, seed, first=first, is_home=is_home)
    begins, ends = HOME_PEAK_HOURS if is_home else WORK_PEAK_HOURS
    hour = CLOCK.hours_of_slots
    at_peak = (hour >= begins) & (hour < ends)
    assert (got[:, ~at_peak] == true[:, ~at_peak]).all()
    assert (got <= true).all()
    assert got[:, at_peak].sum() < 0.8 * true[:, at_peak].sum()
    hidden = (got < true)[:, at_peak]
    shares, limits = got[:, at_peak][hidden] / true[:, at_peak][hidden], got[:, at_peak][hidden]
    assert np.ptp(shares) < 1e-9 or np.ptp(limits) == 0
    assert min(shares.max(), limits.max() / true.max()) < 0.3


@examples
@given(seed=any_seed, first=any_onset)
def test_day_reversal_keeps_each_day_and_turns_it_around(seed: int, first: int) -> None:
    true, got, is_on = registered(TheftKind.DAY_REVERSAL, seed, first=first)
    np.testing.assert_allclose(got.sum(axis=1), true.sum(axis=1))
    for day, turned, on in zip(true, got, is_on, strict=True):
        assert (turned[on] == day[on][::-1]).all()


@examples
@given(seed=any_seed)
def test_slow_decline_takes_more_every_day_until_little_is_left(seed: int) -> None:
    true, got, is_on = registered(TheftKind.SLOW_DECLINE, seed, first=20 * 24)
    shares = got[is_on] / true[is_on]
    assert (np.diff(shares) < 1e-12).all()
    assert shares[0] > 0.95
    assert 0.1 <= shares[-1] <= 0.5
    assert np.abs(np.diff(shares)).max() < 0.02  # no step that would be seen
    true, got, is_on = registered(TheftKind.SLOW_DECLINE, seed, first=0)  # begun long before
    assert np.ptp(got[is_on] / true[is_on]) < 1e-9


# --- in a town --------------------------------------------------------------------------------------------------------


def test_every_kind_occurs_among_many_thieves() -> None:
    kinds = {theft.kind for seed in (4, 5) for theft in town(seed=seed).thefts}
    assert kinds == set(METER_KINDS)
    assert {theft.kind for theft in town().taps} == {TheftKind.DIRECT_TAP}


@pytest.mark.parametrize("off", list(TheftKind))
def test_a_kind_that_is_switched_off_changes_its_own_meters_only(off: TheftKind) -> None:
    every, without = town(), town(*(kind for kind in TheftKind if kind is not off))
    changed = {theft.subject for theft in every.thefts if theft.kind is off}
    ids = [f"M{meter + 1:06d}" for meter in range(METERS_PER_BLOCK)]
    before, after = (lines_of(block, "readings.csv") for block in (every, without))
    for meter, meter_id in enumerate(ids):
        for each in (meter_id, f"{meter_id}-2"):
            assert before.get(each) == after.get(each) or meter in changed
    assert off not in {theft.kind for theft in (*without.thefts, *without.taps)}
    # who stole before steals still, in another way
    assert {theft.subject for theft in every.thefts} == {theft.subject for theft in without.thefts}
    if off is TheftKind.DIRECT_TAP:
        assert not changed
        assert not without.taps
    else:
        assert changed
        assert [theft for theft in every.thefts if theft.subject not in changed] == [
            theft for theft in without.thefts if theft.subject not in changed
        ]


def test_thieves_are_honest_until_they_begin_and_others_always() -> None:
    honest, thieving = town(share=0.0), town()
    onset = np.full(METERS_PER_BLOCK, CLOCK.intervals)
    for theft in thieving.thefts:
        onset[theft.subject] = theft.first
    before = np.arange(CLOCK.intervals)[:, None] < onset
    for array in ("true_kwh", "registered_kwh", "voltage_v", "arrival"):
        assert (getattr(honest, array)[before] == getattr(thieving, array)[before]).all()
    assert not honest.thefts
    # nobody uses less because he steals
    same = honest.true_kwh == thieving.true_kwh
    moved_in = honest.true_kwh < thieving.true_kwh  # who steals does not leave
    assert (same | moved_in).all()
    assert same.mean() > 0.97


def test_stolen_energy_is_true_minus_registered() -> None:
    block = town()
    truth = frames(block)["truth.csv"].filter("is_theft")
    of_meters = truth.filter(pl.col("subject_type") == "meter")
    assert of_meters.height == len(block.thefts) > 25
    missing_kwh = (block.true_kwh - block.tampered_kwh).sum(axis=0)
    by_meter = dict(zip(of_meters["subject_id"].str.slice(1, 6).cast(int), of_meters["stolen_kwh"], strict=True))
    for meter in range(METERS_PER_BLOCK):
        assert by_meter.get(meter + 1, 0) == pytest.approx(missing_kwh[meter], abs=0.001)
    assert of_meters["stolen_kwh"].sum() > 500
    taps = truth.filter(pl.col("subject_type") == "transformer")
    assert taps["subject_id"].to_list() == [block.transformers.ids[theft.subject] for theft in block.taps]
    assert taps["stolen_kwh"].to_list() == pytest.approx(block.tapped_kwh.sum(axis=0).tolist(), abs=0.001)
    assert truth["end_time"].null_count() == truth.height
    assert (truth["start_time"] >= "2025-01-22").all()


def test_a_tap_takes_its_share_from_its_first_day_on_and_is_not_metered() -> None:
    without, with_taps = town(*METER_KINDS), town()
    assert (without.tapped_kwh == 0).all()
    assert (without.registered_kwh == with_taps.registered_kwh).all()
    for theft in with_taps.taps:
        tapped = with_taps.tapped_kwh[:, theft.subject]
        assert (tapped[: theft.first] == 0).all()
        drawn = with_taps.transformers.sums(with_taps.true_kwh)[theft.first :, theft.subject].sum()
        assert 0.03 <= tapped.sum() / (tapped.sum() + drawn) <= 0.25
        flow = with_taps.transformer_in_kwh[:, theft.subject] - without.transformer_in_kwh[:, theft.subject]
        assert (flow[: theft.first] == 0).all()
        assert flow[theft.first :].sum() > tapped.sum()  # what is tapped heats the lines too


def test_from_the_theft_on_there_is_no_other_story() -> None:
    for seed in range(4):
        block = town(seed=seed)
        for theft in block.thefts:
            others = [spell for spell in block.circumstances.spells if spell.cause is Cause.VACANCY]
            assert all(spell.last <= theft.first for spell in (*others, *block.deaths) if spell.meter == theft.subject)
            replaced_at = block.circumstances.replaced_at[theft.subject]
            assert replaced_at < theft.first or replaced_at >= CLOCK.intervals


def test_a_thief_with_a_new_meter_is_known_by_its_number() -> None:
    for seed in range(60):
        block = simulate_block(CITY, seed, 0, METERS_PER_BLOCK, TheftOptions(1.0))
        renewed = [t for t in block.thefts if block.circumstances.replaced_at[t.subject] < CLOCK.intervals]
        if renewed:
            truth = frames(block)["truth.csv"].filter("is_theft")
            assert f"M{renewed[0].subject + 1:06d}-2" in truth["subject_id"].to_list()
            return
    pytest.fail("no thief with a new meter in 60 towns")


# --- when and how many ------------------------------------------------------------------------------------------------


@given(days=st.integers(1, 1000))
def test_theft_has_a_past_and_time_to_be_seen(days: int) -> None:
    possible = onset_days(days)
    assert bool(possible) == (days >= 24)
    if possible:
        assert possible[0] >= 0.4 * days
        assert possible[-1] <= 0.85 * days
        assert days - possible[-1] >= DAYS_AFTER_ONSET_MIN


@settings(max_examples=40, deadline=None)
@given(days=st.integers(24, 400), share=st.floats(0, 1), seed=any_seed)
def test_thieves_are_as_many_as_asked_for(days: int, share: float, seed: int) -> None:
    clock = Clock(date(2024, 1, 1), days, 60)
    thefts = draw_thefts(clock, 2000, TheftOptions(theft_share=share), np.random.default_rng(seed))
    assert len(thefts) == pytest.approx(2000 * share, abs=4.5 * np.sqrt(2000 * share * (1 - share)) + 4)
    assert all(theft.days_before_start == 0 and theft.first // 24 in onset_days(days) for theft in thefts)
    fewer = draw_thefts(clock, 2000, TheftOptions(theft_share=share / 2), np.random.default_rng(seed))
    assert set(fewer) <= set(thefts)


def test_some_thefts_are_older_than_the_readings_if_asked_for() -> None:
    def draw(share: float, clock: Clock) -> list[Theft]:
        return draw_thefts(clock, 1000, TheftOptions(0.5, before_start_share=share), np.random.default_rng(1))

    older = [theft for theft in draw(0.3, CLOCK) if theft.days_before_start]
    assert 0.2 < len(older) / 500 < 0.4
    assert {theft.first for theft in older} == {0}
    assert all(30 <= theft.days_before_start <= 365 for theft in older)
    assert all(theft.days_before_start for theft in draw(1.0, Clock(CLOCK.start, 5, 60)))
    block = simulate_block(CITY, 1, 0, 64, TheftOptions(0.3, before_start_share=1))
    starts = frames(block)["truth.csv"].filter("is_theft")["start_time"]
    assert starts.len() > 8
    assert (starts < "2024-12-08").all()


# --- options ----------------------------------------------------------------------------------------------------------


@given(kinds=st.lists(st.sampled_from(list(TheftKind)), min_size=1, max_size=8))
def test_kinds_are_read_from_a_list(kinds: list[TheftKind]) -> None:
    assert parse_theft_kinds(", ".join(kinds)) == set(kinds)


def test_all_is_all_kinds() -> None:
    assert parse_theft_kinds("all") == set(TheftKind)


@given(text=st.text(max_size=20))
def test_what_is_no_kind_is_refused(text: str) -> None:
    assume(text.strip() != "all" and not {name.strip() for name in text.split(",")} <= set(TheftKind))
    with pytest.raises(UsageError) as caught:
        parse_theft_kinds(text)
    assert "slow_decline" in caught.value.fix


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan"), float("inf")])
@pytest.mark.parametrize("option", ["theft_share", "taps_share", "before_start_share"])
def test_what_is_no_share_is_refused(option: str, share: float) -> None:
    with pytest.raises(UsageError, match="is no share"):
        TheftOptions(**{option: share})
