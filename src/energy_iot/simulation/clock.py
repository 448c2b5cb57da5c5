"""The time axis every process of the simulation runs on, and processes with a memory along it."""

import math
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from energy_iot.simulation.holidays import public_holidays

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

Share = TypeVar("Share", float, Floats)

MINUTES_PER_DAY = 1440
SATURDAY, SUNDAY = 5, 6


@dataclass(frozen=True)
class Clock:
    """Whole days of equal intervals from midnight of `start`; an interval is known by the instant it starts at.

    Ouagadougou, the city simulated, keeps UTC+0 all year: UTC is its local time, and no conversion is needed.
    """

    start: date
    days: int
    interval_minutes: int

    @property
    def intervals_per_day(self) -> int:
        """Intervals of one day."""
        return MINUTES_PER_DAY // self.interval_minutes

    @property
    def intervals(self) -> int:
        """Intervals of the whole period."""
        return self.days * self.intervals_per_day

    @property
    def interval_hours(self) -> float:
        """Length of one interval, hours."""
        return self.interval_minutes / 60

    @cached_property
    def instants(self) -> NDArray[np.datetime64]:
        """UTC start of each interval, shape (intervals,)."""
        seconds = np.arange(self.intervals, dtype=np.int64) * (self.interval_minutes * 60)
        return np.datetime64(self.start, "s") + seconds.astype("timedelta64[s]")

    @cached_property
    def hours_of_slots(self) -> Floats:
        """Hour of day, 0-24, at the middle of each interval of a day, shape (intervals_per_day,)."""
        return (np.arange(self.intervals_per_day, dtype=np.float64) + 0.5) * self.interval_hours

    @cached_property
    def hour(self) -> Floats:
        """Hour of day at the middle of each interval, shape (intervals,)."""
        return np.tile(self.hours_of_slots, self.days)

    @cached_property
    def day(self) -> Ints:
        """Number of the day each interval lies in, from 0, shape (intervals,)."""
        return np.repeat(np.arange(self.days, dtype=np.int64), self.intervals_per_day)

    @cached_property
    def weekday_of_days(self) -> Ints:
        """ISO weekday less one of each day, 0 Monday to 6 Sunday, shape (days,)."""
        return (self.start.weekday() + np.arange(self.days, dtype=np.int64)) % 7

    @cached_property
    def rhythm_of_days(self) -> Ints:
        """The weekday whose rhythm each day follows: its own, or a Sunday's on public holidays, shape (days,)."""
        holidays = [(holiday - self.start).days for holiday in public_holidays(self.start, self.days)]
        rhythm = self.weekday_of_days.copy()
        rhythm[holidays] = SUNDAY
        return rhythm

    @cached_property
    def day_of_year_of_days(self) -> Floats:
        """Days since 1 January at noon of each day, shape (days,)."""
        dates = np.datetime64(self.start, "D") + np.arange(self.days)
        since_new_year: Floats = (dates - dates.astype("datetime64[Y]").astype("datetime64[D]")).astype(np.float64)
        return since_new_year + 0.5

    def persistence(self, memory_hours: float) -> float:
        """Factor by which a deviation fades within one interval when it fades to 1/e in `memory_hours`."""
        return float(np.exp(-self.interval_hours / memory_hours))


def accumulate(innovations: Floats, persistence: float) -> Floats:
    """Run x[t] = persistence * x[t - 1] + innovations[t] along the first axis, from x[-1] = 0."""
    state: Floats = innovations.copy()
    for t in range(1, len(state)):
        state[t] += persistence * state[t - 1]
    return state


def with_memory(shocks: Floats, persistence: float) -> Floats:
    """Give independent standard normals a memory along the first axis (AR(1), stationary from its first value)."""
    innovations = math.sqrt(1 - persistence**2) * shocks
    innovations[0] = shocks[0]
    return accumulate(innovations, persistence)


def smooth(values: Floats, persistence: float) -> Floats:
    """Follow `values` with a lag (first-order low-pass) along the first axis, starting from its first value."""
    driven = (1 - persistence) * values
    driven[0] = values[0]
    return accumulate(driven, persistence)


def within(bounds: tuple[float, float], share: Share) -> Share:
    """The value that lies at `share` of the way from the lower to the upper bound."""
    return bounds[0] + (bounds[1] - bounds[0]) * share
