"""One block of meters: what is drawn, what is stolen, what is registered, what arrives."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from energy_iot.simulation.anomalies import REAL_LOADS, Episode, Kinds, distort, inject
from energy_iot.simulation.circumstances import Cause, Circumstances, Spell, before, draw_circumstances, live
from energy_iot.simulation.clock import Bools, Clock, Floats, Ints
from energy_iot.simulation.customers import Customers, draw_customers
from energy_iot.simulation.loads import simulate_loads
from energy_iot.simulation.metering import NEVER, die, draw_arrivals, draw_deaths, draw_gains, run_ahead
from energy_iot.simulation.network import (
    District,
    Transformers,
    draw_district,
    draw_transformers,
)
from energy_iot.simulation.outages import FeederSupply, simulate_feeders, simulate_transformers
from energy_iot.simulation.streams import Stream, random
from energy_iot.simulation.theft import Theft, TheftOptions, draw_taps, draw_thefts, onsets, tamper, tap
from energy_iot.simulation.voltage import simulate_voltage
from energy_iot.simulation.weather import Weather, simulate_weather

METERS_PER_BLOCK: Final = 64
"""Meters that share random streams and transformers. Part of the result: another number is another fleet."""


@dataclass(frozen=True)
class City:
    """What the meters of a district share."""

    clock: Clock
    weather: Weather
    district: District
    supply: FeederSupply


@dataclass(frozen=True)
class Block:
    """What happened in one block of meters; arrays have shape (intervals, meters) unless another is given.

    Customers and circumstances are those of the whole block, all else of the meters that were asked for.
    """

    city: City
    seed: int
    number: int
    customers: Customers
    transformers: Transformers
    circumstances: Circumstances
    deaths: tuple[Spell, ...]
    thefts: tuple[Theft, ...]
    taps: tuple[Theft, ...]
    episodes: tuple[Episode, ...]
    kinds: Kinds
    """Why each reading is abnormal."""
    arrival: Ints
    """As `draw_arrivals` gives it; lost also where there is neither supply nor a battery."""
    true_kwh: Floats
    """What customers draw."""
    tampered_kwh: Floats
    """What their meters would register without a fault."""
    registered_kwh: Floats
    """What they do register, whether it arrives or not."""
    voltage_v: Floats
    is_faulty: Bools
    """Which transformers have a fault, shape (intervals, transformers)."""
    tapped_kwh: Floats
    """What direct taps draw, shape (intervals, transformers)."""
    transformer_in_kwh: Floats
    """What flows into each transformer, shape (intervals, transformers)."""

    @property
    def meters(self) -> int:
        """How many were asked for."""
        return int(self.true_kwh.shape[1])

    @property
    def first_number(self) -> int:
        """Number of the first meter in the fleet, from 1."""
        return self.number * METERS_PER_BLOCK + 1

    @property
    def is_second(self) -> Bools:
        """Whether the meter that replaced the first one is in place."""
        return np.arange(self.city.clock.intervals)[:, None] >= self.circumstances.replaced_at[: self.meters]


def simulate_city(clock: Clock, seed: int, district: int = 0) -> City:
    """Simulate what all meters of a district share; weather and load shedding are those of the city."""
    weather = simulate_weather(clock, random(seed, Stream.WEATHER))
    supply = simulate_feeders(
        clock, weather, random(seed, Stream.LOAD_SHEDDING), random(seed, Stream.FEEDER_FAULTS, district)
    )
    return City(clock, weather, draw_district(district, clock.start, random(seed, Stream.DISTRICT, district)), supply)


def simulate_block(city: City, seed: int, number: int, meters: int, options: TheftOptions | None = None) -> Block:
    """Simulate one block and keep its first meters.

    The whole block is always simulated, so that its readings do not depend on how many of its meters are wanted.

    Args:
        city: Weather, feeders and supply of the block's district.
        seed: Seed of the fleet.
        number: Number of the block, from 0.
        meters: Meters to keep, 1 to METERS_PER_BLOCK. The others do not exist: no transformer feeds them.
        options: How much is stolen, and how.
    """
    options = options or TheftOptions()
    clock = city.clock

    def stream(which: Stream) -> np.random.Generator:
        return random(seed, which, number)

    customers = draw_customers(METERS_PER_BLOCK, stream(Stream.CUSTOMERS))
    transformers = draw_transformers(customers, city.district, number, clock.start, stream(Stream.TRANSFORMERS))
    behind, is_faulty = simulate_transformers(
        clock, city.supply.at(transformers.feeder), stream(Stream.TRANSFORMER_FAULTS)
    )
    supply = behind.at(transformers.of_meter)

    thefts = draw_thefts(clock, METERS_PER_BLOCK, options, stream(Stream.THEFT))
    onset = onsets(thefts, METERS_PER_BLOCK)
    # one story at a time: from the theft on, a thief's meter neither dies nor is replaced, nor does the thief move out
    circumstances = draw_circumstances(clock, customers, stream(Stream.CIRCUMSTANCES)).settled_from(onset)
    deaths, shows_nothing = draw_deaths(clock, METERS_PER_BLOCK, stream(Stream.DEATHS))
    deaths = before(deaths, np.minimum(onset, circumstances.replaced_at))

    power_kw = simulate_loads(clock, city.weather, supply, customers, stream(Stream.LOADS))
    live(clock, customers, circumstances, power_kw)
    voltage_v = simulate_voltage(clock, city.weather, customers, power_kw, stream(Stream.VOLTAGE))
    voltage_v[~supply.is_on] = 0

    arrival = draw_arrivals(clock, METERS_PER_BLOCK, stream(Stream.ARRIVALS))
    arrival[~(supply.is_on | customers.has_battery)] = NEVER
    true_kwh = power_kw * clock.interval_hours
    seen = supply.is_on & (arrival != NEVER)
    episodes, kinds = _true_loads(clock, customers, circumstances, seen, true_kwh, stream(Stream.ANOMALIES))
    true_kwh[~supply.is_on] = 0
    thieves = {theft.subject: random(seed, Stream.THIEVES, number, theft.subject) for theft in thefts}
    tampered_kwh = tamper(clock, thefts, customers.is_home, supply.is_on, true_kwh, thieves)

    gains = draw_gains(METERS_PER_BLOCK, stream(Stream.GAINS))
    is_second = np.arange(clock.intervals)[:, None] >= circumstances.replaced_at
    registered_kwh = tampered_kwh * np.where(is_second, gains[1], gains[0])
    run_ahead(clock, registered_kwh, stream(Stream.CLOCKS))
    die(deaths, shows_nothing, registered_kwh)
    distort(episodes, registered_kwh, customers.peak_kw, clock.interval_hours)
    registered_kwh[~supply.is_on] = 0  # whatever is wrong with a meter: without supply it counts nothing

    transformers = transformers.of_first(meters)
    count = len(transformers.ids)
    is_on = behind.is_on[:, :count]
    drawn_kwh = transformers.sums(true_kwh[:, :meters])
    taps = [theft for theft in draw_taps(clock, options, stream(Stream.TAPS)) if theft.subject < count]
    homes_kwh = true_kwh[:, customers.is_home].mean(axis=1)
    tapped_kwh = tap(clock, taps, drawn_kwh, homes_kwh, is_on, stream(Stream.TAP_LOADS))
    kept = slice(None), slice(0, meters)
    return Block(
        city,
        seed,
        number,
        customers,
        transformers,
        circumstances,
        tuple(spell for spell in deaths if spell.meter < meters),
        tuple(theft for theft in thefts if theft.subject < meters),
        tuple(taps),
        tuple(episode for episode in episodes if episode.meter < meters),
        kinds[kept],
        arrival[kept],
        true_kwh[kept],
        tampered_kwh[kept],
        registered_kwh[kept],
        voltage_v[kept],
        is_faulty[:, :count],
        tapped_kwh,
        transformers.energy_in(drawn_kwh + tapped_kwh, is_on, clock.interval_hours),
    )


def _true_loads(
    clock: Clock,
    customers: Customers,
    circumstances: Circumstances,
    seen: Bools,
    true_kwh: Floats,
    rng: np.random.Generator,
) -> tuple[list[Episode], Kinds]:
    """Plan the anomalies, and add those that are real loads to `true_kwh`, in place."""
    shown_kwh = true_kwh.copy()
    episodes, kinds = inject(clock, customers, shown_kwh, seen, rng)
    is_real = np.isin(kinds, [int(kind) for kind in REAL_LOADS])
    true_kwh[is_real] = shown_kwh[is_real]
    for spell in circumstances.spells:
        if spell.cause is Cause.PREPAID_DISCONNECTION:  # the meter's switch is open: nothing can be drawn
            true_kwh[spell.first : spell.last, spell.meter] = 0
    return episodes, kinds
