"""What becomes of true consumption on its way through honest meters and the telecommunication behind them.

- Each meter has a small constant error, most within the 1 % of accuracy class 1 (IEC 62053-21).
- Clocks of some meters run ahead and are set right every few weeks. A reading keeps its instant on the grid, but its
  interval began some minutes early, so a part of it is energy of the interval before. Energy is moved; only what
  would fall into an interval without supply is lost, some minutes an outage. Clocks that run behind are left out: their
  last readings would hold energy of after the period.
- A meter may die: from then on it shows nothing, or the same reading again and again, until somebody notices.
  Assumption: one in 150 a year, noticed within some weeks.
- Readings are lost one by one; or a concentrator is out of reach for hours, and what it should have collected is lost
  or comes late, behind readings that are newer.
"""

from typing import Final

import numpy as np

from energy_iot.simulation.circumstances import Cause, Spell
from energy_iot.simulation.clock import Bools, Clock, Floats, Ints, within

GAIN_ERROR_SD: Final = 0.005
GAIN_ERROR_MAX: Final = 0.02

FAST_CLOCK_SHARE: Final = 0.1
FAST_CLOCK_MINUTES_A_DAY: Final = (0.1, 0.5)
CLOCK_SET_EVERY_DAYS: Final = (15.0, 45.0)

DEATHS_PER_METER_DAY: Final = 1 / (150 * 365)
DEAD_DAYS: Final = (5.0, 40.0)
DEAD_SHOWS_NOTHING_SHARE: Final = 0.6

LOST_SHARE: Final = 0.0015
SILENCES_PER_METER_DAY: Final = 1 / 60
SILENCE_HOURS_MEAN: Final = 4.0
LATE_SHARE: Final = 0.5  # of silences
LATE_HOURS_MEAN: Final = 6.0  # after the end of the silence

NEVER: Final = -1
"""Arrival of a reading that is lost."""


def draw_gains(meters: int, rng: np.random.Generator) -> Floats:
    """What meters register of a kWh, for each service point's first and second meter, shape (2, meters)."""
    return 1 + np.clip(GAIN_ERROR_SD * rng.standard_normal((2, meters)), -GAIN_ERROR_MAX, GAIN_ERROR_MAX)


def run_ahead(clock: Clock, registered_kwh: Floats, rng: np.random.Generator) -> None:
    """Let the clocks of some meters run ahead; changes `registered_kwh`, shape (intervals, meters), in place."""
    meters: int = registered_kwh.shape[1]
    is_fast = rng.random(meters) < FAST_CLOCK_SHARE
    minutes_a_day = within(FAST_CLOCK_MINUTES_A_DAY, rng.random(meters))
    every_days = np.rint(within(CLOCK_SET_EVERY_DAYS, rng.random(meters)))
    set_days_ago = np.floor(rng.random(meters) * every_days)
    for meter in np.flatnonzero(is_fast):
        days = (clock.day + clock.hour / 24 + set_days_ago[meter]) % every_days[meter]
        moved_kwh = np.minimum(days * minutes_a_day[meter] / clock.interval_minutes, 1) * registered_kwh[:, meter]
        registered_kwh[:, meter] -= moved_kwh
        registered_kwh[1:, meter] += moved_kwh[:-1]


def draw_deaths(clock: Clock, meters: int, rng: np.random.Generator) -> tuple[list[Spell], Bools]:
    """Draw the meters that die, at most one death each, and whether a dead one shows nothing, shape (meters,)."""
    day_rng, length_rng, shows_rng = rng.spawn(3)
    dies = day_rng.random((clock.days, meters)) < DEATHS_PER_METER_DAY
    days = length_rng.uniform(*DEAD_DAYS, meters)
    spells = []
    for meter in np.flatnonzero(dies.any(axis=0)):
        first = int(dies[:, meter].argmax()) * clock.intervals_per_day + clock.intervals_per_day // 2
        last = first + round(days[meter] * clock.intervals_per_day)
        spells.append(Spell(int(meter), Cause.METER_ERROR, first, last))
    return spells, shows_rng.random(meters) < DEAD_SHOWS_NOTHING_SHARE


def die(spells: list[Spell], shows_nothing: Bools, registered_kwh: Floats) -> None:
    """Let meters show nothing, or their last reading, while they are dead; in place, shape (intervals, meters)."""
    for spell in spells:
        last_kwh = registered_kwh[spell.first - 1, spell.meter]
        registered_kwh[spell.first : spell.last, spell.meter] = 0 if shows_nothing[spell.meter] else last_kwh


def draw_arrivals(clock: Clock, sources: int, rng: np.random.Generator) -> Ints:
    """When each reading arrives: the number of the interval before whose reading it stands in the file, or NEVER.

    Args:
        clock: The period.
        sources: Meters, of customers or of the network.
        rng: Random numbers of their silences.

    Returns:
        Shape (intervals, sources): the reading's own interval if in time, a later one if late.
    """
    single_rng, start_rng, hours_rng, late_rng = rng.spawn(4)
    arrives: Ints = np.repeat(np.arange(clock.intervals, dtype=np.int64)[:, None], sources, axis=1)
    arrives[single_rng.random((clock.intervals, sources)) < LOST_SHARE] = NEVER
    chances = start_rng.random((clock.days, sources, 2))
    hours = hours_rng.exponential(SILENCE_HOURS_MEAN, (clock.days, sources))
    lateness = late_rng.random((clock.days, sources, 2))
    for day, source in np.argwhere(chances[..., 0] < SILENCES_PER_METER_DAY):
        first = int((day + chances[day, source, 1]) * clock.intervals_per_day)
        last = first + 1 + round(hours[day, source] / clock.interval_hours)
        is_late, share = lateness[day, source] < LATE_SHARE, lateness[day, source, 1]
        comes = last + 1 - round(LATE_HOURS_MEAN * np.log1p(-share) / clock.interval_hours)
        window = arrives[first:last, source]
        window[:] = np.where(window == NEVER, NEVER, comes) if is_late[0] else NEVER
    return arrives
