"""Known anomalies put into the readings, with their kind: what a detector can be checked against.

Each block of meters gets fixed numbers of episodes in every 30 days, at random meters and times, so that even a small
fleet has some of each kind and about 1 % of its readings are abnormal. The shapes follow those of theft studies on
real smart-meter data (Jokar et al. 2016, doi:10.1109/TSG.2015.2425222) and of metering faults; how often and how long
is an assumption, chosen for that share. Outages and missing readings are no anomalies: nobody did anything wrong.
Two kinds are real loads, which the network carries; the others are faults of the meter alone.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from energy_iot.simulation.clock import Bools, Clock, Floats, within
from energy_iot.simulation.customers import Customers

PERIOD_DAYS: Final = 30

Kinds = NDArray[np.int8]


class Kind(IntEnum):
    """Why readings are abnormal; the lower-case name is what anomalies.csv says."""

    NORMAL = 0
    SPIKE = 1
    """One reading far above the customer's highest: a register that jumps, a wrong multiplier."""
    SUSTAINED_HIGH = 2
    """Hours with a large load on top: power resold to neighbours, a welding shop behind a home's meter."""
    ZERO = 3
    """Nothing metered although voltage is there: the meter is bypassed, or dead."""
    SUDDEN_DROP = 4
    """Some days at a fraction of the true consumption: a shunt, or one phase of a meter bridged."""
    FLAT_LINE = 5
    """The same value again and again: a stuck register, or readings made up by the head-end."""
    NIGHT_USE = 6
    """A shop that draws power for hours while it is closed."""


REAL_LOADS: Final = frozenset({Kind.SUSTAINED_HIGH, Kind.NIGHT_USE})


@dataclass(frozen=True)
class EpisodePlan:
    """How often a kind comes, for one block of meters and PERIOD_DAYS, and how long it lasts."""

    kind: Kind
    episodes: int
    hours: tuple[float, float]


# Together with the spikes about 20 meter-days of the block's 1,920, that is 1 %
EPISODES: Final = (
    EpisodePlan(Kind.SUSTAINED_HIGH, 7, (6, 24)),
    EpisodePlan(Kind.ZERO, 3, (12, 60)),
    EpisodePlan(Kind.SUDDEN_DROP, 2, (36, 96)),
    EpisodePlan(Kind.FLAT_LINE, 4, (12, 36)),
    EpisodePlan(Kind.NIGHT_USE, 4, (3, 5)),
)
SPIKE_SHARE: Final = 0.001
# The last shop closes at about 22:15; no night use lasts beyond 04:30, an hour before the first one opens
NIGHT_STARTS_HOUR: Final = 22.5

# Magnitudes, drawn evenly within the bounds
SPIKE_OF_PEAK: Final = (1.3, 3.0)
SUSTAINED_OF_PEAK: Final = (0.4, 0.9)
DROP_LEAVES_SHARE: Final = (0.05, 0.3)
FLAT_OF_PEAK: Final = (0.05, 0.25)
NIGHT_OF_PEAK: Final = (0.4, 0.9)


@dataclass(frozen=True)
class Episode:
    """One anomaly on one meter of a block, over the intervals from `first` until before `last`."""

    meter: int
    kind: Kind
    first: int
    last: int
    strength: float
    """Even in 0-1; where the magnitude lies within its bounds."""


def inject(
    clock: Clock, customers: Customers, consumption_kwh: Floats, allowed: Bools, rng: np.random.Generator
) -> tuple[list[Episode], Kinds]:
    """Change `consumption_kwh` where anomalies are.

    Args:
        clock: The period.
        customers: A whole block: the numbers of episodes are set for METERS_PER_BLOCK meters.
        consumption_kwh: Shape (intervals, meters); changed in place.
        allowed: Where a reading arrives and supply is on; a single spike elsewhere would not be seen.
        rng: Random numbers of this block's anomalies.

    Returns:
        The episodes, and the kind of each reading, shape (intervals, meters).
    """
    period_rng, where_rng, size_rng = rng.spawn(3)
    episodes = _plan(clock, customers, period_rng)
    peak_kwh = customers.peak_kw * clock.interval_hours
    kinds: Kinds = np.zeros(consumption_kwh.shape, dtype=np.int8)
    for episode in episodes:
        window = slice(episode.first, episode.last), episode.meter
        kinds[window] = episode.kind
        consumption_kwh[window] = _changed(episode, consumption_kwh[window], peak_kwh[episode.meter])

    spikes = (where_rng.random(consumption_kwh.shape) < SPIKE_SHARE) & allowed & (kinds == Kind.NORMAL)
    size = size_rng.random(consumption_kwh.shape)[spikes]
    instants, meters = np.nonzero(spikes)
    kinds[spikes] = Kind.SPIKE
    consumption_kwh[spikes] += peak_kwh[meters] * within(SPIKE_OF_PEAK, size)
    episodes += [
        Episode(int(meter), Kind.SPIKE, int(t), int(t) + 1, float(strength))
        for t, meter, strength in zip(instants, meters, size, strict=True)
    ]
    return episodes, kinds


def distort(episodes: list[Episode], registered_kwh: Floats, peak_kw: Floats, interval_hours: float) -> None:
    """Change what meters register where their faults are; real loads have been metered already.

    Args:
        episodes: As `inject` gives them.
        registered_kwh: Shape (intervals, meters); changed in place.
        peak_kw: Of each customer.
        interval_hours: Length of one interval.
    """
    for episode in episodes:
        if episode.kind not in REAL_LOADS:
            window = slice(episode.first, episode.last), episode.meter
            peak_kwh = float(peak_kw[episode.meter]) * interval_hours
            registered_kwh[window] = _changed(episode, registered_kwh[window], peak_kwh)


def _plan(clock: Clock, customers: Customers, rng: np.random.Generator) -> list[Episode]:
    """Place the episodes of all kinds that begin in the period, none over another on the same meter."""
    candidates: list[Episode] = []
    shops = np.flatnonzero(customers.is_shop)
    periods = -(-clock.days // PERIOD_DAYS)
    for period, period_rng in enumerate(rng.spawn(periods)):
        for plan in EPISODES:
            meters = shops if plan.kind is Kind.NIGHT_USE else np.arange(len(customers.is_shop))
            for pick, start, length, strength in period_rng.random((plan.episodes, 4)).tolist():
                if not len(meters):
                    continue  # a block without shops
                hours = (period + start) * PERIOD_DAYS * 24
                if plan.kind is Kind.NIGHT_USE:
                    hours = hours // 24 * 24 + NIGHT_STARTS_HOUR + (hours % 24) / 24
                first = round(hours / clock.interval_hours)
                last = first + max(round(within(plan.hours, length) / clock.interval_hours), 1)
                if first < clock.intervals:
                    meter = int(meters[int(pick * len(meters))])
                    candidates.append(Episode(meter, plan.kind, first, min(last, clock.intervals), strength))
    free_from = dict.fromkeys(range(len(customers.is_shop)), 0)
    placed = []
    for episode in sorted(candidates, key=lambda candidate: candidate.first):
        if episode.first >= free_from[episode.meter]:
            placed.append(episode)
            free_from[episode.meter] = episode.last + 1  # a normal reading keeps two episodes apart
    return placed


def _changed(episode: Episode, consumption_kwh: Floats, peak_kwh: float) -> Floats:
    """What the meter shows instead of the true consumption."""
    match episode.kind:
        case Kind.SUSTAINED_HIGH:
            return consumption_kwh + peak_kwh * within(SUSTAINED_OF_PEAK, episode.strength)
        case Kind.ZERO:
            return np.zeros_like(consumption_kwh)
        case Kind.SUDDEN_DROP:
            return consumption_kwh * within(DROP_LEAVES_SHARE, episode.strength)
        case Kind.SPIKE:
            return consumption_kwh + peak_kwh * within(SPIKE_OF_PEAK, episode.strength)
        case Kind.FLAT_LINE:
            return np.full_like(consumption_kwh, peak_kwh * within(FLAT_OF_PEAK, episode.strength))
        case _:
            return consumption_kwh + peak_kwh * within(NIGHT_OF_PEAK, episode.strength)
