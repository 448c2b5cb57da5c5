"""Thieves: what tampered meters register of the true consumption, and lines that nobody meters.

The attack models are those of the literature, put on half-hours and given a beginning, so that a meter has a past:
Jokar, Arianpoo & Leung (2016), doi:10.1109/TSG.2015.2425222 (constant and random factors of 0.1 to 0.8, zeros for
hours of a day, averages instead of readings, reversed days), and Zanetti et al. (2019), doi:10.1109/TSG.2017.2753738
(cut off above a limit; in part; fraud that begins at some day and lasts). Slow decline is the drift by which a thief
avoids a step that would be seen. Where their ranges leave a choice, it is stated at the constants below.

Each meter is a thief with the same chance, and of the kind for which its own draw is lowest among the kinds that are
switched on. So a kind that is switched off changes its own meters and no others.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np

from energy_iot.errors import UsageError
from energy_iot.simulation.clock import Bools, Clock, Floats, Ints, with_memory, within
from energy_iot.simulation.network import TRANSFORMERS_PER_BLOCK_MAX


class TheftKind(StrEnum):
    """How energy is stolen; the kinds of truth.csv that are theft."""

    CONSTANT_UNDER_REGISTRATION = "constant_under_registration"
    """The same share of each reading: a shunt, a bridged phase, a wrong ratio."""
    BYPASS_PERIOD = "bypass_period"
    """Nothing for hours of each day, for days in turns, or for good: the load is led around the meter."""
    RANDOM_UNDER_REGISTRATION = "random_under_registration"
    """Another share of each reading: falsified data."""
    AVERAGE_SUBSTITUTION = "average_substitution"
    """The mean of the past instead of each reading: falsified data. Takes what consumption grows by, no more."""
    PEAK_HIDING = "peak_hiding"
    """The hours of high load are led around the meter, or cut off at a limit."""
    DAY_REVERSAL = "day_reversal"
    """The readings of each day in reversed order: falsified data, for a tariff by time of day. Takes no energy."""
    SLOW_DECLINE = "slow_decline"
    """A share that falls for weeks."""
    DIRECT_TAP = "direct_tap"
    """A line from the transformer's, before all meters."""


METER_KINDS: Final = tuple(kind for kind in TheftKind if kind is not TheftKind.DIRECT_TAP)

# When theft begins, at a midnight: with a past before it, and long enough before the end to be seen at all
ONSET_SHARES: Final = (0.40, 0.85)
DAYS_AFTER_ONSET_MIN: Final = 14
DAYS_BEFORE_START: Final = (30, 365)  # of thefts that are older than the readings

REGISTERED_SHARE: Final = (0.1, 0.8)
# Bypass: hours of each day (at least four of them, as published), blocks of days in turns, or everything
BYPASS_SHARES: Final = (0.5, 0.3, 0.2)
BYPASS_HOURS: Final = (4.0, 14.0)
BYPASS_DAYS_USED_SHARE: Final = 0.9
BYPASS_OFF_DAYS: Final = (3, 11)
BYPASS_ON_DAYS: Final = (2, 6)
# Hiding peaks: what is left of the hours in question, or the limit as a quantile of the meter's own past
PEAK_CUT_OFF_SHARE: Final = 0.4
PEAK_LEAVES_SHARE: Final = (0.0, 0.25)
PEAK_LIMIT_QUANTILE: Final = (0.3, 0.6)
HOME_PEAK_HOURS: Final = (17.5, 23.0)
WORK_PEAK_HOURS: Final = (8.0, 18.0)
DECLINE_LEAVES_SHARE: Final = (0.1, 0.5)
DECLINE_SHARE_OF_REST: Final = (0.5, 1.0)  # of the time left, which the decline takes

TAP_SHARE_OF_ENERGY: Final = (0.03, 0.25)  # of what flows out of the transformer, once the tap is there
TAP_SD: Final = 0.25
TAP_MEMORY_HOURS: Final = 3.0


@dataclass(frozen=True)
class TheftOptions:
    """How much is stolen, and how."""

    theft_share: float = 0.08
    """Of meters."""
    theft_kinds: frozenset[TheftKind] = frozenset(TheftKind)
    taps_share: float = 0.05
    """Of transformers."""
    before_start_share: float = 0.0
    """Of thefts: begun before the first reading, so that there is no honest past."""

    def __post_init__(self) -> None:
        """Refuse shares that are none.

        Raises:
            UsageError: A share is not between 0 and 1.
        """
        for option, share in {
            "--theft-share": self.theft_share,
            "--taps-share": self.taps_share,
            "--theft-before-start": self.before_start_share,
        }.items():
            if not 0 <= share <= 1:
                raise UsageError(f"{option} {share} is no share", fix=f"type {option} with a number from 0 to 1")


def parse_theft_kinds(text: str) -> frozenset[TheftKind]:
    """Kinds from a comma list, or 'all'.

    Raises:
        UsageError: A name is not a kind.
    """
    names = [name.strip() for name in text.split(",")]
    if names == ["all"]:
        return frozenset(TheftKind)
    unknown = [name for name in names if name not in set(TheftKind)]
    if unknown:
        raise UsageError(
            f"--theft-kinds: no kind of theft is called {', '.join(repr(name) for name in unknown)}",
            fix=f"type all, or some of {','.join(TheftKind)}; for none, --theft-share 0 --taps-share 0",
        )
    return frozenset(TheftKind(name) for name in names)


@dataclass(frozen=True)
class Theft:
    """One theft, of a meter or at a transformer of a block."""

    subject: int
    """Number of the meter or transformer in its block."""
    kind: TheftKind
    first: int
    """First interval of the period in which it goes on."""
    days_before_start: int
    """How long before the first reading it began; 0 if within the period."""


def draw_thefts(clock: Clock, subjects: int, options: TheftOptions, rng: np.random.Generator) -> list[Theft]:
    """Draw which meters of a block are tampered with, how and from when; rising by meter."""
    return _draw(clock, subjects, options.theft_share, METER_KINDS, options, rng)


def draw_taps(clock: Clock, options: TheftOptions, rng: np.random.Generator) -> list[Theft]:
    """Draw which transformers of a block have direct taps, and from when; for as many as a block can have."""
    return _draw(clock, TRANSFORMERS_PER_BLOCK_MAX, options.taps_share, (TheftKind.DIRECT_TAP,), options, rng)


def _draw(
    clock: Clock,
    subjects: int,
    share: float,
    kinds: tuple[TheftKind, ...],
    options: TheftOptions,
    rng: np.random.Generator,
) -> list[Theft]:
    steals, onset, before, days_before = rng.random((4, subjects))
    ranks = rng.random((subjects, len(kinds)))
    ranks[:, [kind not in options.theft_kinds for kind in kinds]] = np.inf
    days = onset_days(clock.days)
    thefts = []
    for subject in np.flatnonzero(steals < share):
        if np.isinf(ranks[subject]).all():
            continue
        is_older = before[subject] < options.before_start_share
        if not is_older and not days:
            continue  # too short a period for a past and a theft
        day = 0 if is_older else days[int(onset[subject] * len(days))]
        older_days = round(within(DAYS_BEFORE_START, days_before[subject])) if is_older else 0
        kind = kinds[int(ranks[subject].argmin())]
        thefts.append(Theft(int(subject), kind, day * clock.intervals_per_day, older_days))
    return thefts


def onset_days(days: int) -> range:
    """The days, from 0, on which theft may begin in a period of so many days; none in less than 24 days."""
    first = int(np.ceil(ONSET_SHARES[0] * days))
    last = min(int(ONSET_SHARES[1] * days), days - DAYS_AFTER_ONSET_MIN)
    return range(first, last + 1)


def tamper(
    clock: Clock,
    thefts: list[Theft],
    is_home: Bools,
    is_on: Bools,
    true_kwh: Floats,
    streams: Mapping[int, np.random.Generator],
) -> Floats:
    """What the meters would register if they were exact.

    Args:
        clock: The period.
        thefts: Of the block's meters.
        is_home: Which meters are homes, shape (meters,): others peak in working hours.
        is_on: Supply, shape (intervals, meters): without it no meter counts.
        true_kwh: Shape (intervals, meters); left as it is.
        streams: Random numbers of each thief, by meter.

    Returns:
        kWh, shape (intervals, meters).
    """
    registered_kwh = true_kwh.copy()
    for theft in thefts:
        rest = slice(theft.first, None)
        # of a theft older than the readings there is no past: all of the period stands in for it
        past = slice(0, theft.first or None)
        supplied = is_on[:, theft.subject]
        true = true_kwh[:, theft.subject]
        past_kwh = true[past][supplied[past]]
        registered_kwh[rest, theft.subject] = supplied[rest] * _registered(
            clock, theft, bool(is_home[theft.subject]), past_kwh, true[rest], supplied[rest], streams[theft.subject]
        )
    return registered_kwh


def _registered(
    clock: Clock,
    theft: Theft,
    is_home: bool,
    past_kwh: Floats,
    true_kwh: Floats,
    supplied: Bools,
    rng: np.random.Generator,
) -> Floats:
    """What one tampered meter registers of its true consumption since the theft began, shape (intervals since,)."""
    match theft.kind:
        case TheftKind.CONSTANT_UNDER_REGISTRATION:
            return true_kwh * rng.uniform(*REGISTERED_SHARE)
        case TheftKind.RANDOM_UNDER_REGISTRATION:
            return true_kwh * rng.uniform(*REGISTERED_SHARE, len(true_kwh))
        case TheftKind.BYPASS_PERIOD:
            return true_kwh * ~_is_bypassed(clock, len(true_kwh), rng)
        case TheftKind.AVERAGE_SUBSTITUTION:
            return np.full_like(true_kwh, past_kwh.mean())
        case TheftKind.PEAK_HIDING:
            return _without_peaks(clock, is_home, past_kwh, true_kwh, rng)
        case TheftKind.DAY_REVERSAL:
            return _reversed(clock, true_kwh, supplied)
        case _:
            return true_kwh * _decline(clock, theft, len(true_kwh), rng)


def _is_bypassed(clock: Clock, intervals: int, rng: np.random.Generator) -> Bools:
    """When the load is led around the meter, shape (intervals,); one of three habits."""
    habit = rng.choice(len(BYPASS_SHARES), p=BYPASS_SHARES)
    days = intervals // clock.intervals_per_day
    if habit == 0:
        start = rng.uniform(0, 24)
        hours = rng.uniform(*BYPASS_HOURS)
        in_window = (clock.hours_of_slots - start) % 24 < hours
        used = rng.random(days) < BYPASS_DAYS_USED_SHARE
        return (used[:, None] & in_window).ravel()
    if habit == 1:
        off_days, on_days = rng.integers(*BYPASS_OFF_DAYS), rng.integers(*BYPASS_ON_DAYS)
        return np.repeat(np.arange(days) % (off_days + on_days) < off_days, clock.intervals_per_day)
    return np.ones(intervals, dtype=np.bool_)


def _without_peaks(clock: Clock, is_home: bool, past_kwh: Floats, true_kwh: Floats, rng: np.random.Generator) -> Floats:
    """Less in the hours of high load: a fraction, or never more than the meter used to show in its quieter hours."""
    first, last = HOME_PEAK_HOURS if is_home else WORK_PEAK_HOURS
    at_peak = (clock.hours_of_slots >= first) & (clock.hours_of_slots < last)
    at_peak = np.tile(at_peak, len(true_kwh) // clock.intervals_per_day)
    cuts_off = rng.random() < PEAK_CUT_OFF_SHARE
    leaves, quantile = rng.uniform(*PEAK_LEAVES_SHARE), rng.uniform(*PEAK_LIMIT_QUANTILE)
    if cuts_off:
        return np.where(at_peak, np.minimum(true_kwh, np.quantile(past_kwh, quantile)), true_kwh)
    return np.where(at_peak, leaves * true_kwh, true_kwh)


def _reversed(clock: Clock, true_kwh: Floats, supplied: Bools) -> Floats:
    """Each day's readings in reversed order, among the intervals with supply; the day's energy stays what it is."""
    of_days = true_kwh.reshape(-1, clock.intervals_per_day).copy()
    for day, on in zip(of_days, supplied.reshape(of_days.shape), strict=True):
        day[on] = day[on][::-1]
    return of_days.ravel()


def _decline(clock: Clock, theft: Theft, intervals: int, rng: np.random.Generator) -> Floats:
    """A factor that falls in a straight line from 1 and then stays, shape (intervals,)."""
    leaves = rng.uniform(*DECLINE_LEAVES_SHARE)
    takes_days = intervals / clock.intervals_per_day * rng.uniform(*DECLINE_SHARE_OF_REST)
    days = theft.days_before_start + (np.arange(intervals) + 0.5) / clock.intervals_per_day
    return np.maximum(1 - (1 - leaves) * days / takes_days, leaves)


def tap(
    clock: Clock, taps: list[Theft], metered_kwh: Floats, homes_kwh: Floats, is_on: Bools, rng: np.random.Generator
) -> Floats:
    """What direct taps draw from the transformers of a block.

    A tap supplies homes like those of the block, only without meters: its load has their course over the day.

    Args:
        clock: The period.
        taps: Of the block's transformers.
        metered_kwh: True consumption of the customers of each transformer, shape (intervals, transformers).
        homes_kwh: True consumption of a mean home of the block, shape (intervals,).
        is_on: Supply behind the transformers, shape (intervals, transformers).
        rng: Random numbers of the block's taps.

    Returns:
        kWh, shape (intervals, transformers).
    """
    tapped_kwh = np.zeros(metered_kwh.shape)
    shares = within(TAP_SHARE_OF_ENERGY, rng.random(TRANSFORMERS_PER_BLOCK_MAX))
    shocks = rng.standard_normal((clock.intervals, TRANSFORMERS_PER_BLOCK_MAX))
    for theft in taps:
        share = shares[theft.subject]
        noise = np.exp(TAP_SD * with_memory(shocks[:, theft.subject], clock.persistence(TAP_MEMORY_HOURS)))
        course = (homes_kwh * noise * is_on[:, theft.subject])[theft.first :]
        of_metered = metered_kwh[theft.first :, theft.subject].sum() / max(float(course.sum()), 1e-9)
        tapped_kwh[theft.first :, theft.subject] = share / (1 - share) * of_metered * course
    return tapped_kwh


def onsets(thefts: list[Theft], subjects: int) -> Ints:
    """First interval of each subject's theft, shape (subjects,); beyond all for the honest."""
    first = np.full(subjects, np.iinfo(np.int64).max)
    for theft in thefts:
        first[theft.subject] = theft.first
    return first
