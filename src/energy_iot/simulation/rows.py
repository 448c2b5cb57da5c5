"""From arrays to the rows of files; times as YYYY-MM-DD HH:MM:SS, empty where nothing is known."""

from collections.abc import Iterator
from datetime import date, timedelta
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from energy_iot.simulation.anomalies import Kind
from energy_iot.simulation.block import Block
from energy_iot.simulation.circumstances import Cause, Spell
from energy_iot.simulation.clock import Bools, Clock, Floats, Ints
from energy_iot.simulation.customers import CLASSES
from energy_iot.simulation.metering import NEVER, draw_arrivals
from energy_iot.simulation.network import TRANSFORMERS_PER_BLOCK_MAX, transformer_nodes
from energy_iot.simulation.registry import CURRENCY, METER_COLUMNS, draw_contracts
from energy_iot.simulation.streams import Stream, random
from energy_iot.simulation.theft import Theft
from energy_iot.simulation.writer import (
    ANOMALIES_FILE,
    METERS_FILE,
    NETWORK_NODES_FILE,
    NETWORK_READINGS_FILE,
    OUTAGES_FILE,
    READINGS_FILE,
    TRUTH_FILE,
)

READING_COLUMNS: Final = (
    "meter_id",
    "timestamp",
    "consumption_kwh",
    "temperature_c",
    "humidity_pct",
    "wind_speed_kmh",
    "voltage_v",
    "anomaly_label",
)
ANOMALY_COLUMNS: Final = {
    "meter_id": pl.String,
    "kind": pl.String,
    "start": pl.String,
    "end": pl.String,
    "readings": pl.Int64,
}
NETWORK_READING_COLUMNS: Final = ("node_id", "timestamp", "energy_in_kwh")
OUTAGE_COLUMNS: Final = {"node_id": pl.String, "start_time": pl.String, "end_time": pl.String, "cause": pl.String}
TRUTH_COLUMNS: Final = {
    "subject_id": pl.String,
    "subject_type": pl.String,
    "kind": pl.String,
    "is_theft": pl.Boolean,
    "start_time": pl.String,
    "end_time": pl.String,
    "stolen_kwh": pl.Float64,
}


def frames(block: Block) -> dict[str, pl.DataFrame]:
    """The rows that a block adds to the files, by name of the file; nodes are those of transformers."""
    transformers = block.transformers
    faults = {node: {"fault": block.is_faulty[:, each]} for each, node in enumerate(transformers.ids)}
    clock = block.city.clock
    arrival = draw_arrivals(
        clock, TRANSFORMERS_PER_BLOCK_MAX, random(block.seed, Stream.TRANSFORMER_METERS, block.number)
    )[:, : len(transformers.ids)]
    return {
        READINGS_FILE: reading_rows(block),
        ANOMALIES_FILE: anomaly_rows(block),
        METERS_FILE: meter_rows(block),
        NETWORK_NODES_FILE: transformer_nodes(transformers, block.city.district),
        NETWORK_READINGS_FILE: network_reading_rows(clock, transformers.ids, block.transformer_in_kwh, arrival),
        OUTAGES_FILE: outage_rows(clock, faults),
        TRUTH_FILE: truth_rows(block),
    }


def reading_rows(block: Block) -> pl.DataFrame:
    """Rows of readings.csv: by service point, in order of arrival."""
    clock, weather = block.city.clock, block.city.weather
    meter, instant = _in_order_of_arrival(block.arrival)
    is_second = block.is_second[instant, meter]
    labels = pl.Series(["Normal", "Abnormal"])
    return pl.DataFrame(
        {
            "meter_id": _ids(block).gather(2 * meter + is_second),
            "timestamp": _texts(clock).gather(instant),
            "consumption_kwh": block.registered_kwh[instant, meter].round(3),  # a meter's register counts Wh
            "temperature_c": weather.temperature_c.round(1)[instant],
            "humidity_pct": np.rint(weather.humidity_pct).astype(np.int64)[instant],
            "wind_speed_kmh": weather.wind_speed_kmh.round(1)[instant],
            "voltage_v": block.voltage_v[instant, meter].round(1),
            "anomaly_label": labels.gather((block.kinds[instant, meter] != Kind.NORMAL).astype(np.int64)),
        }
    )


def network_reading_rows(clock: Clock, node_ids: tuple[str, ...], energy_in_kwh: Floats, arrival: Ints) -> pl.DataFrame:
    """Rows of network_readings.csv, some missing, some late; a node without voltage reports zeros.

    Args:
        clock: The period.
        node_ids: Of the nodes.
        energy_in_kwh: Shape (intervals, nodes).
        arrival: As `draw_arrivals` gives it, shape (intervals, nodes).
    """
    node, instant = _in_order_of_arrival(arrival)
    return pl.DataFrame(
        {
            "node_id": pl.Series(node_ids, dtype=pl.String).gather(node),
            "timestamp": _texts(clock).gather(instant),
            "energy_in_kwh": energy_in_kwh[instant, node].round(3),
        }
    )


def outage_rows(clock: Clock, is_out: dict[str, dict[str, Bools]]) -> pl.DataFrame:
    """Rows of outages.csv from who is out for which cause, each of shape (intervals,); no end if beyond the period."""
    rows = []
    for node, causes in is_out.items():
        runs = [(first, last, cause) for cause, out in causes.items() for first, last in _runs(out)]
        rows += [(node, *_times(clock, first, last), cause) for first, last, cause in sorted(runs)]
    return pl.DataFrame(rows, schema=OUTAGE_COLUMNS, orient="row")


def anomaly_rows(block: Block) -> pl.DataFrame:
    """Rows of anomalies.csv: from the first to the last reading that is seen; one for each meter it touches."""
    clock, ids = block.city.clock, _ids(block)
    rows = []
    for episode in sorted(block.episodes, key=lambda episode: (episode.meter, episode.first)):
        for generation, first, last in _by_meter(block, episode.meter, episode.first, episode.last):
            seen = first + np.flatnonzero(block.arrival[first:last, episode.meter] != NEVER)
            if len(seen):
                start, end = _text(clock, int(seen[0])), _text(clock, int(seen[-1]) + 1)
                rows.append((ids[2 * episode.meter + generation], episode.kind.name.lower(), start, end, len(seen)))
    return pl.DataFrame(rows, schema=ANOMALY_COLUMNS, orient="row")


def meter_rows(block: Block) -> pl.DataFrame:
    """Rows of meters.csv: two for a service point whose meter was replaced."""
    contracts = draw_contracts(block.customers, random(block.seed, Stream.REGISTRY, block.number))
    clock, transformers, ids = block.city.clock, block.transformers, _ids(block)
    rows = []
    for meter in range(block.meters):
        spans: list[tuple[date, date | None]] = [
            (clock.start - timedelta(days=int(contracts.installed_before_days[meter])), None)
        ]
        replaced_at = int(block.circumstances.replaced_at[meter])
        if replaced_at < clock.intervals:
            replaced = clock.start + timedelta(days=replaced_at // clock.intervals_per_day)
            spans = [(spans[0][0], replaced), (replaced, None)]
        rows += [
            (
                ids[2 * meter + generation],
                f"SP{block.first_number + meter:06d}",
                transformers.ids[transformers.of_meter[meter]],
                CLASSES[block.customers.customer_class[meter]],
                float(contracts.tariff_per_kwh[meter]),
                CURRENCY,
                float(contracts.power_kw[meter]),
                bool(block.circumstances.is_prepaid[meter]),
                round(float(transformers.meter_latitude[meter]), 5),
                round(float(transformers.meter_longitude[meter]), 5),
                *span,
            )
            for generation, span in enumerate(spans)
        ]
    return pl.DataFrame(rows, schema=METER_COLUMNS, orient="row")


def truth_rows(block: Block) -> pl.DataFrame:
    """Rows of truth.csv: thefts of meters, taps of transformers, innocent causes."""
    clock, ids = block.city.clock, _ids(block)
    stolen_kwh = block.true_kwh - block.tampered_kwh
    rows: list[tuple[str, str, str, bool, str, str | None, float]] = []
    for theft in block.thefts:
        is_second = theft.first >= block.circumstances.replaced_at[theft.subject]
        kwh = round(float(stolen_kwh[:, theft.subject].sum()), 3) + 0.0  # no -0.0
        meter_id = ids[2 * theft.subject + int(is_second)]
        rows.append((meter_id, "meter", theft.kind, True, _onset(clock, theft), None, kwh))
    for theft in block.taps:
        kwh = round(float(block.tapped_kwh[:, theft.subject].sum()), 3)
        node_id = block.transformers.ids[theft.subject]
        rows.append((node_id, "transformer", theft.kind, True, _onset(clock, theft), None, kwh))
    for spell in sorted(_innocent_spells(block), key=lambda spell: (spell.meter, spell.first, spell.cause)):
        for generation, first, last in _by_meter(block, spell.meter, spell.first, spell.last):
            meter_id = ids[2 * spell.meter + generation]
            rows.append((meter_id, "meter", spell.cause, False, *_times(clock, first, last), 0))
    return pl.DataFrame(rows, schema=TRUTH_COLUMNS, orient="row")


def _innocent_spells(block: Block) -> Iterator[Spell]:
    """All that may look like theft and is none. A new meter is told of from before its day, so that the old one is."""
    intervals, circumstances = block.city.clock.intervals, block.circumstances
    for spell in (*circumstances.spells, *block.deaths):
        if spell.meter < block.meters:
            yield spell
    for meter in range(block.meters):
        if circumstances.is_strong[meter]:
            yield Spell(meter, Cause.GROWTH if circumstances.growth_a_year[meter] > 0 else Cause.DECLINE, 0, intervals)
        if circumstances.replaced_at[meter] < intervals:
            yield Spell(meter, Cause.METER_REPLACEMENT, int(circumstances.replaced_at[meter]) - 1, intervals)


def _in_order_of_arrival(arrival: Ints) -> tuple[Ints, Ints]:
    """Source and instant of each reading that arrives: source by source, late readings behind newer ones.

    Args:
        arrival: As `draw_arrivals` gives it, shape (intervals, sources).
    """
    arrives = arrival.T != NEVER
    source, instant = np.nonzero(arrives)
    comes = arrival.T[arrives]
    if (comes != instant).any():
        order = np.argsort(source * np.iinfo(np.int32).max + comes, kind="stable")
        source, instant = source[order], instant[order]
    return source, instant


def _ids(block: Block) -> pl.Series:
    """Numbers of each service point's first and second meter, in turns: M000001, M000001-2, M000002, ..."""
    numbers = range(block.first_number, block.first_number + block.meters)
    return pl.Series([f"M{number:06d}{suffix}" for number in numbers for suffix in ("", "-2")], dtype=pl.String)


def _onset(clock: Clock, theft: Theft) -> str:
    return _text(clock, theft.first - theft.days_before_start * clock.intervals_per_day)


def _texts(clock: Clock) -> pl.Series:
    """The instants as they are written, shape (intervals,)."""
    return pl.Series(np.datetime_as_string(clock.instants)).str.replace("T", " ", literal=True)


def _by_meter(block: Block, meter: int, first: int, last: int) -> Iterator[tuple[int, int, int]]:
    """Which meters of a service point were there, from when until when: 0 or 1, first and after-last interval."""
    replaced_at, intervals = int(block.circumstances.replaced_at[meter]), block.city.clock.intervals
    if first < min(replaced_at, intervals):
        yield 0, first, min(last, replaced_at)
    if replaced_at < last and max(first, replaced_at) < intervals:
        yield 1, max(first, replaced_at), last


def _runs(is_out: Bools) -> list[tuple[int, int]]:
    """First and after-last interval of each run."""
    edges = np.diff(is_out.astype(np.int8), prepend=0, append=0)
    return list(zip(np.flatnonzero(edges == 1).tolist(), np.flatnonzero(edges == -1).tolist(), strict=True))


def _times(clock: Clock, first: int, last: int) -> tuple[str, str | None]:
    """Start and end; the end is unknown if it is not before the end of the period."""
    return _text(clock, first), _text(clock, last) if last < clock.intervals else None


def _text(clock: Clock, interval: int) -> str:
    """Start of an interval, in the period or not, as it is written."""
    at: NDArray[np.datetime64] = clock.instants[:1] + np.timedelta64(interval * clock.interval_minutes, "m")
    return str(at[0]).replace("T", " ")
