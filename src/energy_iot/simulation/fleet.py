"""Generate a fleet's readings, with the known anomalies beside them: deterministic, in blocks, in bounded memory."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import IntEnum
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from energy_iot.errors import UsageError
from energy_iot.reporting.progress import Progress
from energy_iot.simulation.anomalies import Kind, inject
from energy_iot.simulation.clock import Bools, Clock
from energy_iot.simulation.customers import draw_customers
from energy_iot.simulation.loads import simulate_loads
from energy_iot.simulation.outages import Supply, simulate_supply
from energy_iot.simulation.voltage import simulate_voltage
from energy_iot.simulation.weather import Weather, simulate_weather
from energy_iot.simulation.writer import ANOMALIES_FILE, READINGS_FILE, FleetWriter

DEFAULT_START: Final = date(2025, 1, 6)
"""A Monday; fixed, so that the same command makes the same files on any day."""

INTERVALS_MINUTES: Final = (5, 10, 15, 20, 30, 60)

METERS_PER_BLOCK: Final = 64
"""Meters that share random streams. Part of the result: another number is another fleet."""

# Assumption: a few readings are lost on the way, one by one or for some hours while a concentrator is out of reach
LOST_SHARE: Final = 0.0015
SILENCES_PER_METER_DAY: Final = 1 / 60
SILENCE_HOURS_MEAN: Final = 4.0


class Stream(IntEnum):
    """Independent random streams; a new process takes a new number and leaves the others as they were."""

    WEATHER = 0
    SUPPLY = 1
    CUSTOMERS = 2
    LOADS = 3
    VOLTAGE = 4
    SILENCE = 5
    ANOMALIES = 6


@dataclass(frozen=True)
class FleetFiles:
    """What was written."""

    readings: Path
    anomalies: Path
    reading_count: int
    anomalous_reading_count: int
    episode_count: int


@dataclass(frozen=True)
class City:
    """What all meters share."""

    clock: Clock
    weather: Weather
    supply: Supply


def generate(
    destination: Path,
    *,
    meters: int,
    days: int,
    seed: int,
    start: date = DEFAULT_START,
    interval_minutes: int = 30,
    progress: Progress | None = None,
    overwrite: bool = False,
) -> FleetFiles:
    """Write `readings.csv` (long format) and `anomalies.csv` (the known anomalies) into a folder.

    The same arguments give the same bytes. A meter's readings do not change when more meters are asked for, and the
    first days of a longer period are those of a shorter one.

    Args:
        destination: Folder, made if absent. Both files appear when they are complete, or not at all.
        meters: Number of meters, at least 1.
        days: Number of whole days, at least 1, the last of them before today.
        seed: Any number from 0; another seed is another city, weather included.
        start: First day, UTC (which is local time in Ouagadougou, the city simulated).
        interval_minutes: Time between two readings, one of INTERVALS_MINUTES.
        progress: Told how many readings are done.
        overwrite: Replace files that are there.

    Returns:
        The files and what is in them.

    Raises:
        UsageError: An argument makes no sense, a file is there already, or the folder cannot be written.
    """
    clock = _checked_clock(meters, days, seed, start, interval_minutes)
    progress = progress or Progress()
    with (
        FleetWriter(destination, overwrite=overwrite) as writer,
        progress.task("generate readings", total=meters * clock.intervals, unit="readings") as advance,
    ):
        city = simulate_city(clock, seed)
        for block in range(-(-meters // METERS_PER_BLOCK)):
            wanted = min(METERS_PER_BLOCK, meters - block * METERS_PER_BLOCK)
            readings, anomalies = simulate_block(city, seed, block, wanted)
            writer.write(readings, anomalies)
            advance(wanted * clock.intervals)
    return FleetFiles(
        destination / READINGS_FILE,
        destination / ANOMALIES_FILE,
        writer.reading_count,
        writer.anomalous_reading_count,
        writer.episode_count,
    )


def simulate_city(clock: Clock, seed: int) -> City:
    """Simulate what all meters share."""
    weather = simulate_weather(clock, _random(seed, Stream.WEATHER))
    return City(clock, weather, simulate_supply(clock, weather, _random(seed, Stream.SUPPLY)))


def simulate_block(city: City, seed: int, block: int, meters: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Simulate one block and keep its first meters.

    The whole block is always simulated, so that its readings do not depend on how many of its meters are wanted.

    Args:
        city: Weather and supply.
        seed: Seed of the fleet.
        block: Number of the block, from 0.
        meters: Meters to keep, 1 to METERS_PER_BLOCK.

    Returns:
        Readings (by meter, then time; columns of the file) and episodes that touch at least one of them.
    """
    clock = city.clock
    customers = draw_customers(METERS_PER_BLOCK, _random(seed, Stream.CUSTOMERS, block))
    supplied = city.supply.is_on[:, customers.area]
    power_kw = simulate_loads(clock, city.weather, city.supply, customers, _random(seed, Stream.LOADS, block))
    voltage_v = simulate_voltage(clock, city.weather, customers, power_kw, _random(seed, Stream.VOLTAGE, block))

    arrives = (supplied | customers.has_battery) & ~_silent(clock, _random(seed, Stream.SILENCE, block))
    consumption_kwh = power_kw * clock.interval_hours
    episodes, kinds = inject(
        clock, customers, consumption_kwh, arrives & supplied, _random(seed, Stream.ANOMALIES, block)
    )
    consumption_kwh[~supplied] = 0  # whatever is wrong with a meter: without supply it counts nothing
    voltage_v[~supplied] = 0

    meter, instant = np.nonzero(arrives[:, :meters].T)
    ids = pl.Series([f"M{block * METERS_PER_BLOCK + number + 1:06d}" for number in range(meters)], dtype=pl.String)
    instants = pl.Series(np.datetime_as_string(clock.instants)).str.replace("T", " ", literal=True)
    labels = pl.Series(["Normal", "Abnormal"])
    readings = pl.DataFrame(
        {
            "meter_id": ids.gather(meter),
            "timestamp": instants.gather(instant),
            "consumption_kwh": consumption_kwh[instant, meter].round(3),  # a meter's register counts Wh
            "temperature_c": city.weather.temperature_c.round(1)[instant],
            "humidity_pct": np.rint(city.weather.humidity_pct).astype(np.int64)[instant],
            "wind_speed_kmh": city.weather.wind_speed_kmh.round(1)[instant],
            "voltage_v": voltage_v[instant, meter].round(1),
            "anomaly_label": labels.gather((kinds[instant, meter] != Kind.NORMAL).astype(np.int64)),
        }
    )

    rows = []
    for episode in sorted(episodes, key=lambda episode: (episode.meter, episode.first)):
        seen = episode.first + np.flatnonzero(arrives[episode.first : episode.last, episode.meter])
        if episode.meter < meters and len(seen):
            after = clock.instants[seen[-1]] + np.timedelta64(clock.interval_minutes, "m")
            rows.append(
                (
                    ids[episode.meter],
                    episode.kind.name.lower(),
                    instants[int(seen[0])],
                    str(after).replace("T", " "),
                    len(seen),
                )
            )
    schema = {"meter_id": pl.String, "kind": pl.String, "start": pl.String, "end": pl.String, "readings": pl.Int64}
    return readings, pl.DataFrame(rows, schema=schema, orient="row")


def _silent(clock: Clock, rng: np.random.Generator) -> Bools:
    """Readings that are lost on the way, shape (intervals, METERS_PER_BLOCK)."""
    single_rng, start_rng, hours_rng = rng.spawn(3)
    silent = single_rng.random((clock.intervals, METERS_PER_BLOCK)) < LOST_SHARE
    chances = start_rng.random((clock.days, METERS_PER_BLOCK, 2))
    hours = hours_rng.exponential(SILENCE_HOURS_MEAN, (clock.days, METERS_PER_BLOCK))
    for day, meter in np.argwhere(chances[..., 0] < SILENCES_PER_METER_DAY):
        first = int((day + chances[day, meter, 1]) * clock.intervals_per_day)
        silent[first : first + 1 + round(hours[day, meter] / clock.interval_hours), meter] = True
    return silent


def _random(seed: int, *stream: int) -> np.random.Generator:
    """Generator of one stream: a child of the seed's sequence, the same whatever else is drawn."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=stream))


def _checked_clock(meters: int, days: int, seed: int, start: date, interval_minutes: int) -> Clock:
    if meters < 1:
        raise UsageError(f"a fleet of {meters} meters has no readings", fix="type --meters 50, or any number from 1")
    if days < 1:
        raise UsageError(f"a period of {days} days has no readings", fix="type --days 60, or any number from 1")
    if seed < 0:
        raise UsageError(f"the seed {seed} is negative", fix="type --seed 42, or any number from 0")
    if interval_minutes not in INTERVALS_MINUTES:
        choices = ", ".join(map(str, INTERVALS_MINUTES))
        raise UsageError(
            f"readings every {interval_minutes} minutes cannot be simulated", fix=f"choose an interval of {choices}"
        )
    today = datetime.now(UTC).date()
    longest = (today - start).days
    if days > longest:
        raise UsageError(
            f"{days} days from {start} end after today, {today}: readings would lie in the future",
            fix=f"type --days {longest} or less"
            if longest > 0
            else f"start at {today - timedelta(days=days)} or before",
        )
    return Clock(start, days, interval_minutes)
