"""When customers have no supply: load shedding in turns, by feeder, and faults of feeders and of transformers.

Load shedding follows the published timetables of the Electricity Company of Ghana: areas in groups take turns, a block
of hours at a time, most often 18:00 to 23:00 (2024) or 06:00 to 18:00 (2015); an area is what one feeder supplies. How
often is an assumption: a hot day means high demand and more shedding. Faults are rarer, shorter, and strike one feeder
at any hour; those of a transformer are rarer still and last longer, because a crew and often a part have to be found.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from energy_iot.simulation.clock import Bools, Clock, Floats, Ints
from energy_iot.simulation.weather import Weather

FEEDERS: Final = 8
"""Feeders of a district, each a load-shedding area of its own."""

SHED_BLOCKS_HOURS: Final = np.array([[6, 12], [12, 18], [18, 23]])
SHED_BLOCK_SHARES: Final = (0.2, 0.35, 0.45)
FEEDERS_SHED_AT_ONCE: Final = 2
# Share of days with shedding: a day of 28 C on average, and what each degree above adds
SHED_SHARE_AT_28C: Final = 0.35
SHED_SHARE_PER_C: Final = 0.05
SWITCHING_SD_HOURS: Final = 0.5  # operators do not switch on the minute
FAULTS_PER_FEEDER_DAY: Final = 0.03
FAULT_HOURS_MEDIAN: Final = 1.5
FAULTS_PER_TRANSFORMER_DAY: Final = 0.004
TRANSFORMER_FAULT_HOURS_MEDIAN: Final = 5.0
FAULT_HOURS_SD_LOG: Final = 0.7
FAULT_HOURS_MAX_OF_MEDIAN: Final = 8.0

# Cold load pick-up: after an outage of hours every fridge and air conditioner runs at once, then they drift apart again
# (Bu et al., arXiv:1810.05734, study it on smart meters). How fast is an assumption; at most they draw twice as much
WARM_UP_HOURS: Final = 2.0
PICK_UP_HOURS: Final = 1.0


@dataclass(frozen=True)
class Supply:
    """Supply at some places: feeders, transformers or meters; each array has shape (intervals, places)."""

    is_on: Bools
    pick_up: Floats
    """How far cold appliances have to catch up, 0 (not at all) to 1 (after a long outage)."""

    def at(self, places: Ints) -> "Supply":
        """The supply of those who hang on the given places."""
        return Supply(self.is_on[:, places], self.pick_up[:, places])


@dataclass(frozen=True)
class FeederSupply(Supply):
    """Supply of the feeders of a district, and why it fails."""

    is_shed: Bools
    """Whether an outage is load shedding; else it is a fault. Shape (intervals, FEEDERS)."""


def simulate_feeders(
    clock: Clock, weather: Weather, shed_rng: np.random.Generator, fault_rng: np.random.Generator
) -> FeederSupply:
    """Simulate outages of feeders; the days of a shorter period are the first days of a longer one."""
    share_rng, block_rng, switch_rng = shed_rng.spawn(3)
    is_shed = np.zeros((clock.intervals, FEEDERS), dtype=np.bool_)
    mean_c = weather.temperature_c.reshape(clock.days, -1).mean(axis=1)
    share = np.clip(SHED_SHARE_AT_28C + SHED_SHARE_PER_C * (mean_c - 28), 0.05, 0.9)
    shed_days = np.flatnonzero(share_rng.random(clock.days) < share)
    block = block_rng.choice(len(SHED_BLOCKS_HOURS), size=clock.days, p=SHED_BLOCK_SHARES)
    switching_hours = np.clip(SWITCHING_SD_HOURS * switch_rng.standard_normal((clock.days, 2)), -1, 1)
    for turn, day in enumerate(shed_days):
        first, last = day * 24 + SHED_BLOCKS_HOURS[block[day]] + switching_hours[day]
        turns = np.arange(turn * FEEDERS_SHED_AT_ONCE, (turn + 1) * FEEDERS_SHED_AT_ONCE) % FEEDERS
        is_shed[_slots(clock, first, last), turns[:, None]] = True
    is_on = ~is_shed & ~_faults(clock, FEEDERS, FAULTS_PER_FEEDER_DAY, FAULT_HOURS_MEDIAN, fault_rng)
    return FeederSupply(is_on, _pick_up(clock, is_on), is_shed)


def simulate_transformers(clock: Clock, of_feeders: Supply, rng: np.random.Generator) -> tuple[Supply, Bools]:
    """Simulate faults of transformers.

    Args:
        clock: The period.
        of_feeders: Supply of the feeder of each transformer, shape (intervals, transformers).
        rng: Random numbers of these transformers' faults.

    Returns:
        Supply behind each transformer, and whether the transformer itself is faulty, shape (intervals, transformers).
    """
    transformers = of_feeders.is_on.shape[1]
    is_faulty = _faults(clock, transformers, FAULTS_PER_TRANSFORMER_DAY, TRANSFORMER_FAULT_HOURS_MEDIAN, rng)
    if not is_faulty.any():
        return of_feeders, is_faulty
    is_on = of_feeders.is_on & ~is_faulty
    return Supply(is_on, _pick_up(clock, is_on)), is_faulty


def _faults(clock: Clock, places: int, per_day: float, hours_median: float, rng: np.random.Generator) -> Bools:
    """Whether each place has a fault, shape (intervals, places)."""
    start_rng, hours_rng = rng.spawn(2)
    is_faulty = np.zeros((clock.intervals, places), dtype=np.bool_)
    chances = start_rng.random((clock.days, places, 2))
    of_median = np.exp(FAULT_HOURS_SD_LOG * hours_rng.standard_normal((clock.days, places)))
    for day, place in np.argwhere(chances[..., 0] < per_day):
        first = day * 24 + 24 * chances[day, place, 1]
        hours = hours_median * min(of_median[day, place], FAULT_HOURS_MAX_OF_MEDIAN)
        is_faulty[_slots(clock, first, first + hours), place] = True
    return is_faulty


def _slots(clock: Clock, first_hour: float, last_hour: float) -> Ints:
    """Whole intervals, at least one, nearest to the given hours since the start, as far as they lie in the period."""
    first = round(first_hour / clock.interval_hours)
    last = max(round(last_hour / clock.interval_hours), first + 1)
    return np.arange(min(first, clock.intervals), min(last, clock.intervals), dtype=np.int64)


def _pick_up(clock: Clock, is_on: Bools) -> Floats:
    """Warm towards 1 while off, fade to 0 while on; both exponential."""
    off_factor, on_factor = clock.persistence(WARM_UP_HOURS), clock.persistence(PICK_UP_HOURS)
    state = np.zeros(is_on.shape)
    for t in range(1, len(state)):
        state[t] = np.where(is_on[t - 1], state[t - 1] * on_factor, 1 - (1 - state[t - 1]) * off_factor)
    return state
