"""When an area has no supply: rotating load shedding and local faults.

Load shedding follows the published timetables of the Electricity Company of Ghana: areas in groups take turns, a block
of hours at a time, most often 18:00 to 23:00 (2024) or 06:00 to 18:00 (2015). How often is an assumption: a hot day
means high demand and more shedding. Faults are rarer, shorter, and strike one area at any hour.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from energy_iot.simulation.clock import Bools, Clock, Floats, Ints
from energy_iot.simulation.customers import AREAS
from energy_iot.simulation.weather import Weather

SHED_BLOCKS_HOURS: Final = np.array([[6, 12], [12, 18], [18, 23]])
SHED_BLOCK_SHARES: Final = (0.2, 0.35, 0.45)
AREAS_SHED_AT_ONCE: Final = 2
# Share of days with shedding: a day of 28 C on average, and what each degree above adds
SHED_SHARE_AT_28C: Final = 0.35
SHED_SHARE_PER_C: Final = 0.05
SWITCHING_SD_HOURS: Final = 0.5  # operators do not switch on the minute
FAULTS_PER_AREA_DAY: Final = 0.03
FAULT_HOURS_MEDIAN: Final = 1.5
FAULT_HOURS_SD_LOG: Final = 0.7
FAULT_HOURS_MAX: Final = 12.0

# Cold load pick-up: after an outage of hours every fridge and air conditioner runs at once, then they drift apart again
# (Bu et al., arXiv:1810.05734, study it on smart meters). How fast is an assumption; at most they draw twice as much
WARM_UP_HOURS: Final = 2.0
PICK_UP_HOURS: Final = 1.0


@dataclass(frozen=True)
class Supply:
    """Supply of each area; each array has shape (intervals, AREAS)."""

    is_on: Bools
    pick_up: Floats
    """How far cold appliances have to catch up, 0 (not at all) to 1 (after a long outage)."""


def simulate_supply(clock: Clock, weather: Weather, rng: np.random.Generator) -> Supply:
    """Simulate outages; the days of a shorter period are the first days of a longer one."""
    shed_rng, block_rng, switch_rng, fault_rng, hours_rng = rng.spawn(5)
    is_on = np.ones((clock.intervals, AREAS), dtype=np.bool_)

    mean_c = weather.temperature_c.reshape(clock.days, -1).mean(axis=1)
    share = np.clip(SHED_SHARE_AT_28C + SHED_SHARE_PER_C * (mean_c - 28), 0.05, 0.9)
    shed_days = np.flatnonzero(shed_rng.random(clock.days) < share)
    block = block_rng.choice(len(SHED_BLOCKS_HOURS), size=clock.days, p=SHED_BLOCK_SHARES)
    switching_hours = np.clip(SWITCHING_SD_HOURS * switch_rng.standard_normal((clock.days, 2)), -1, 1)
    for turn, day in enumerate(shed_days):
        first, last = day * 24 + SHED_BLOCKS_HOURS[block[day]] + switching_hours[day]
        turns = np.arange(turn * AREAS_SHED_AT_ONCE, (turn + 1) * AREAS_SHED_AT_ONCE) % AREAS
        is_on[_slots(clock, first, last), turns[:, None]] = False

    faults = fault_rng.random((clock.days, AREAS, 2))
    hours = FAULT_HOURS_MEDIAN * np.exp(FAULT_HOURS_SD_LOG * hours_rng.standard_normal((clock.days, AREAS)))
    for day, area in np.argwhere(faults[..., 0] < FAULTS_PER_AREA_DAY):
        first = day * 24 + 24 * faults[day, area, 1]
        is_on[_slots(clock, first, first + min(hours[day, area], FAULT_HOURS_MAX)), area] = False
    return Supply(is_on, _pick_up(clock, is_on))


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
