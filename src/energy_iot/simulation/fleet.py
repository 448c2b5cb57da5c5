"""Generate a fleet's files: readings, registry, network, outages, and the truth beside them.

Deterministic, in blocks, in bounded memory.
"""

import io
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from energy_iot.errors import UsageError
from energy_iot.reporting.progress import Progress
from energy_iot.simulation.block import METERS_PER_BLOCK, City, simulate_block, simulate_city
from energy_iot.simulation.clock import Clock, Floats
from energy_iot.simulation.metering import draw_arrivals
from energy_iot.simulation.network import BLOCKS_PER_DISTRICT, NODE_COLUMNS, district_nodes, energy_in
from energy_iot.simulation.outages import FEEDERS
from energy_iot.simulation.registry import METER_COLUMNS
from energy_iot.simulation.rows import (
    ANOMALY_COLUMNS,
    NETWORK_READING_COLUMNS,
    OUTAGE_COLUMNS,
    READING_COLUMNS,
    TRUTH_COLUMNS,
    frames,
    network_reading_rows,
    outage_rows,
)
from energy_iot.simulation.streams import Stream, random
from energy_iot.simulation.theft import TheftKind, TheftOptions, onset_days
from energy_iot.simulation.writer import (
    ANOMALIES_FILE,
    METERS_FILE,
    NETWORK_NODES_FILE,
    NETWORK_READINGS_FILE,
    OUTAGES_FILE,
    READINGS_FILE,
    TRUTH_FILE,
    FleetWriter,
)

DEFAULT_START: Final = date(2025, 1, 6)
"""A Monday; fixed, so that the same command makes the same files on any day."""

INTERVALS_MINUTES: Final = (5, 10, 15, 20, 30, 60)

HEADERS: Final = {
    READINGS_FILE: READING_COLUMNS,
    ANOMALIES_FILE: tuple(ANOMALY_COLUMNS),
    METERS_FILE: tuple(METER_COLUMNS),
    NETWORK_NODES_FILE: tuple(NODE_COLUMNS),
    NETWORK_READINGS_FILE: NETWORK_READING_COLUMNS,
    OUTAGES_FILE: tuple(OUTAGE_COLUMNS),
    TRUTH_FILE: tuple(TRUTH_COLUMNS),
}


@dataclass(frozen=True)
class Counts:
    """What is in the files; blocks add up."""

    reading_count: int = 0
    anomalous_reading_count: int = 0
    episode_count: int = 0
    meter_count: int = 0
    """Rows of the registry: a replaced meter and the new one are two."""
    node_count: int = 0
    network_reading_count: int = 0
    outage_count: int = 0
    theft_count: int = 0
    """Of meters."""
    tap_count: int = 0
    innocent_count: int = 0
    """Innocent causes in the truth."""
    stolen_kwh: float = 0.0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(Counts)))


@dataclass(frozen=True)
class FleetFiles:
    """What was written. The pipeline reads neither `anomalies` nor `truth`."""

    readings: Path
    anomalies: Path
    meters: Path
    network_nodes: Path
    network_readings: Path
    outages: Path
    truth: Path
    counts: Counts

    @property
    def reading_count(self) -> int:
        """Readings written."""
        return self.counts.reading_count

    @property
    def anomalous_reading_count(self) -> int:
        """Readings labelled abnormal."""
        return self.counts.anomalous_reading_count

    @property
    def episode_count(self) -> int:
        """Rows of anomalies.csv."""
        return self.counts.episode_count


def generate(
    destination: Path,
    *,
    meters: int,
    days: int,
    seed: int,
    start: date = DEFAULT_START,
    interval_minutes: int = 30,
    theft_share: float = TheftOptions.theft_share,
    theft_kinds: frozenset[TheftKind] = TheftOptions.theft_kinds,
    taps_share: float = TheftOptions.taps_share,
    theft_before_start_share: float = TheftOptions.before_start_share,
    progress: Progress | None = None,
    overwrite: bool = False,
) -> FleetFiles:
    """Write readings (long format), registry, network, outages, known anomalies and the truth into a folder.

    The same arguments give the same bytes. What holds when an argument changes:

    - More meters: the rows of meters that were there stay byte for byte in readings.csv, anomalies.csv and meters.csv,
      and new ones follow. Feeders carry more, and so does the smaller fleet's last transformer, if it gets customers.
    - More days: the first days stay as they were, as far as there is no theft in them. Thefts and taps are placed by
      the length of the period, and none begins in the first 40 % of it.
    - Another choice of `theft_kinds`: only meters of the kinds in question change.

    Args:
        destination: Folder, made if absent. The files appear when they are complete, or not at all.
        meters: Number of service points, at least 1.
        days: Number of whole days, at least 1, the last of them before today. Less than 24 have no theft in them.
        seed: Any number from 0; another seed is another city, weather included.
        start: First day, UTC (which is local time in Ouagadougou, the city simulated).
        interval_minutes: Time between two readings, one of INTERVALS_MINUTES.
        theft_share: Share of meters that are tampered with.
        theft_kinds: Kinds of theft that occur; each meter's own kind is drawn from these.
        taps_share: Share of transformers with direct taps, if they are among the kinds.
        theft_before_start_share: Share of thefts that are older than the first reading.
        progress: Told how many readings are done.
        overwrite: Replace files that are there.

    Returns:
        The files and what is in them.

    Raises:
        UsageError: An argument makes no sense, a file is there already, or the folder cannot be written.
    """
    clock = _checked_clock(meters, days, seed, start, interval_minutes)
    theft = TheftOptions(theft_share, theft_kinds, taps_share, theft_before_start_share)
    progress = progress or Progress()
    if not onset_days(days) and theft_kinds and (theft_share or taps_share) and theft_before_start_share < 1:
        progress.note(f"{days} days are too few for a past and a theft: none begins in them; 24 are enough")
    counts = Counts()
    with (
        FleetWriter(destination, overwrite=overwrite) as writer,
        progress.task("generate readings", total=meters * clock.intervals, unit="readings") as advance,
    ):
        writer.write({name: (",".join(columns) + "\n").encode() for name, columns in HEADERS.items()})
        for district in range(-(-meters // (METERS_PER_BLOCK * BLOCKS_PER_DISTRICT))):
            city = simulate_city(clock, seed, district)
            below_kwh = np.zeros((clock.intervals, FEEDERS))
            nodes: list[pl.DataFrame] = []
            feeders: set[int] = set()
            for number in range(district * BLOCKS_PER_DISTRICT, (district + 1) * BLOCKS_PER_DISTRICT):
                wanted = min(METERS_PER_BLOCK, meters - number * METERS_PER_BLOCK)
                if wanted <= 0:
                    break
                block = simulate_block(city, seed, number, wanted, theft)
                for transformer, in_kwh in enumerate(block.transformer_in_kwh.T):
                    feeder = int(block.transformers.feeder[transformer])
                    feeders.add(feeder)
                    below_kwh[:, feeder] += in_kwh
                rows = frames(block)
                nodes.append(rows.pop(NETWORK_NODES_FILE))
                writer.write({name: _csv(frame) for name, frame in rows.items()})
                counts += _counts(rows) + Counts(node_count=nodes[-1].height)
                advance(wanted * clock.intervals)
            of_feeders, feeder_counts = _feeders(city, seed, district, sorted(feeders), below_kwh)
            writer.write(of_feeders)
            writer.write({NETWORK_NODES_FILE: _csv(pl.concat(nodes))})
            counts += feeder_counts
    return FleetFiles(
        **{name.removesuffix(".csv"): destination / name for name in HEADERS},
        counts=counts,
    )


def _counts(rows: dict[str, pl.DataFrame]) -> Counts:
    truth = rows[TRUTH_FILE]
    thefts = truth.filter("is_theft")
    taps = int((thefts["kind"] == TheftKind.DIRECT_TAP).sum())
    return Counts(
        reading_count=rows[READINGS_FILE].height,
        anomalous_reading_count=int(rows[ANOMALIES_FILE]["readings"].sum()),
        episode_count=rows[ANOMALIES_FILE].height,
        meter_count=rows[METERS_FILE].height,
        network_reading_count=rows[NETWORK_READINGS_FILE].height,
        outage_count=rows[OUTAGES_FILE].height,
        theft_count=thefts.height - taps,
        tap_count=taps,
        innocent_count=truth.height - thefts.height,
        stolen_kwh=float(thefts["stolen_kwh"].sum()),
    )


def _feeders(
    city: City, seed: int, number: int, feeders: list[int], below_kwh: Floats
) -> tuple[dict[str, bytes], Counts]:
    """What a district itself adds to the files, once all its blocks are known.

    Args:
        city: With the district.
        seed: Seed of the fleet.
        number: Of the district.
        feeders: Those that carry transformers.
        below_kwh: Flow from each feeder into its transformers, shape (intervals, FEEDERS).
    """
    clock, district = city.clock, city.district
    ids = tuple(district.feeder_ids[feeder] for feeder in feeders)
    is_on, is_shed = city.supply.is_on[:, feeders], city.supply.is_shed[:, feeders]
    in_kwh = energy_in(
        below_kwh[:, feeders],
        is_on,
        district.rated_kva[feeders],
        np.zeros(len(feeders)),
        district.load_loss_kw[feeders],
        clock.interval_hours,
    )
    causes = {
        node: {"load_shedding": is_shed[:, each], "fault": ~is_on[:, each] & ~is_shed[:, each]}
        for each, node in enumerate(ids)
    }
    nodes = district_nodes(district, feeders)
    arrival = draw_arrivals(clock, FEEDERS, random(seed, Stream.FEEDER_METERS, number))[:, feeders]
    readings = network_reading_rows(clock, ids, in_kwh, arrival)
    outages = outage_rows(clock, causes)
    texts = {NETWORK_NODES_FILE: _csv(nodes), NETWORK_READINGS_FILE: _csv(readings), OUTAGES_FILE: _csv(outages)}
    return texts, Counts(node_count=nodes.height, network_reading_count=readings.height, outage_count=outages.height)


def _csv(frame: pl.DataFrame) -> bytes:
    """Rows without a header."""
    text = io.BytesIO()
    frame.write_csv(text, include_header=False, quote_style="never")
    return text.getvalue()


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
