"""The distribution network: substation, feeders, transformers, service points; and what flows through it.

A district is a substation with FEEDERS medium-voltage feeders, enough for some ten thousand meters; a larger fleet has
more districts. Each block of meters hangs on transformers of its own, so that a transformer's flow is known as soon as
its block is. Feeders run away from the substation in all directions, transformers stand along them, and service points
around their transformer.

Losses are those of every textbook: what the core takes as long as there is voltage, and what windings and lines take
in proportion to the square of the load (I2R), each interval with its own load. Energy into a node is therefore

    below + (no_load_loss_kw + load_loss_kw * (below_kw / rated_kva) ** 2) * hours

with `below` all that is drawn from it, metered or not. A power factor of 1 is assumed; rated losses are meant so.
Sources: no-load and winding losses of oil transformers, CENELEC HD 428.1 (lists A, A'); the rest is stated below.
"""

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

import numpy as np
import polars as pl

from energy_iot.simulation.clock import Bools, Floats, Ints
from energy_iot.simulation.customers import Customers
from energy_iot.simulation.outages import FEEDERS

BLOCKS_PER_DISTRICT: Final = 160
"""About 10,000 meters, 1,250 a feeder."""

# Assumption: 21 to 64 customers on a transformer, as in the denser parts of a Sahelian city
TRANSFORMER_COUNT_SHARES: Final = (0.2, 0.45, 0.35)  # one, two or three to a block
TRANSFORMERS_PER_BLOCK_MAX: Final = len(TRANSFORMER_COUNT_SHARES)
METERS_PER_TRANSFORMER_MIN: Final = 12
# Customers do not peak together: half the sum of their peaks is what an engineer plans for, at 0.9 power factor
COINCIDENCE: Final = 0.5
PLANNED_POWER_FACTOR: Final = 0.9
#                                      kVA, no-load kW, windings kW
TRANSFORMERS: Final = np.array(
    [
        [50.0, 0.19, 1.35],
        [100.0, 0.32, 1.75],
        [160.0, 0.46, 2.35],
        [250.0, 0.65, 3.25],
        [400.0, 0.93, 4.60],
        [630.0, 1.30, 6.50],
    ]
)
# Assumption: low-voltage lines are laid out for 4 % at the transformer's rated load, medium-voltage ones for 3 %
LOW_VOLTAGE_LOSS_SHARE: Final = 0.04
MEDIUM_VOLTAGE_LOSS_SHARE: Final = 0.03
FEEDER_RATED_KVA: Final = (2000.0, 2500.0, 3150.0)  # lines of 80-120 A at 15 kV
SUBSTATION_RATED_KVA: Final = 20_000.0

CENTRE_LATITUDE: Final = 12.3714
CENTRE_LONGITUDE: Final = -1.5197  # Ouagadougou
KM_PER_DEGREE: Final = 111.2
DISTRICTS_APART_KM: Final = 9.0
FEEDER_KM: Final = (0.4, 4.0)
SERVICE_LINE_KM: Final = 0.12  # standard deviation in each direction

NODE_COLUMNS: Final = {
    "node_id": pl.String,
    "node_type": pl.String,
    "parent_id": pl.String,
    "rated_kva": pl.Float64,
    "no_load_loss_kw": pl.Float64,
    "load_loss_kw": pl.Float64,
    "latitude": pl.Float64,
    "longitude": pl.Float64,
    "valid_from": pl.Date,
    "valid_to": pl.Date,
}


@dataclass(frozen=True)
class District:
    """A substation and its feeders; arrays have shape (FEEDERS,)."""

    substation_id: str
    feeder_ids: tuple[str, ...]
    latitude: float
    longitude: float
    bearing: Floats
    """Direction in which each feeder leaves the substation, radians from north."""
    rated_kva: Floats
    load_loss_kw: Floats
    built: date


@dataclass(frozen=True)
class Transformers:
    """The transformers of a block, and the service points on them."""

    ids: tuple[str, ...]
    feeder: Ints
    """Number of each one's feeder in the district, shape (transformers,)."""
    of_meter: Ints
    """Number of each meter's transformer, rising, shape (meters,)."""
    rated_kva: Floats
    no_load_loss_kw: Floats
    load_loss_kw: Floats
    latitude: Floats
    longitude: Floats
    built: tuple[date, ...]
    meter_latitude: Floats
    meter_longitude: Floats

    def of_first(self, meters: int) -> "Transformers":
        """Those that the first meters hang on."""
        count = int(self.of_meter[meters - 1]) + 1
        return Transformers(
            self.ids[:count],
            self.feeder[:count],
            self.of_meter[:meters],
            self.rated_kva[:count],
            self.no_load_loss_kw[:count],
            self.load_loss_kw[:count],
            self.latitude[:count],
            self.longitude[:count],
            self.built[:count],
            self.meter_latitude[:meters],
            self.meter_longitude[:meters],
        )

    def sums(self, of_meters: Floats) -> Floats:
        """Sums over the meters of each transformer, shape (intervals, transformers)."""
        return np.column_stack([of_meters[:, self.of_meter == each].sum(axis=1) for each in range(len(self.ids))])

    def energy_in(self, below_kwh: Floats, is_on: Bools, interval_hours: float) -> Floats:
        """Energy that flows into the transformers, kWh, shape (intervals, transformers); see `energy_in`."""
        return energy_in(below_kwh, is_on, self.rated_kva, self.no_load_loss_kw, self.load_loss_kw, interval_hours)


def draw_district(number: int, start: date, rng: np.random.Generator) -> District:
    """Draw a district; the first one lies in the middle of the city, the others around it in a spiral."""
    angle, distance_km = 2.4 * number, DISTRICTS_APART_KM * np.sqrt(number)
    latitude, longitude = _moved(CENTRE_LATITUDE, CENTRE_LONGITUDE, np.float64(angle), distance_km)
    rated_kva = rng.choice(FEEDER_RATED_KVA, size=FEEDERS)
    return District(
        f"S{number + 1:02d}",
        tuple(f"F{number * FEEDERS + feeder + 1:03d}" for feeder in range(FEEDERS)),
        float(latitude),
        float(longitude),
        2 * np.pi * np.arange(FEEDERS) / FEEDERS + rng.uniform(-0.2, 0.2, FEEDERS),
        rated_kva,
        MEDIUM_VOLTAGE_LOSS_SHARE * rated_kva,
        start - timedelta(days=int(rng.integers(7000, 12000))),
    )


def draw_transformers(
    customers: Customers, district: District, block: int, start: date, rng: np.random.Generator
) -> Transformers:
    """Draw the transformers of a block, large enough for their customers."""
    meters = len(customers.is_shop)
    count = int(rng.choice(len(TRANSFORMER_COUNT_SHARES), p=TRANSFORMER_COUNT_SHARES)) + 1
    spare = meters - count * METERS_PER_TRANSFORMER_MIN
    sizes = METERS_PER_TRANSFORMER_MIN + rng.multinomial(spare, rng.dirichlet(np.full(count, 4.0)))
    of_meter = np.repeat(np.arange(count), sizes)
    planned_kva = COINCIDENCE / PLANNED_POWER_FACTOR * np.bincount(of_meter, weights=customers.peak_kw)
    size = np.minimum(np.searchsorted(TRANSFORMERS[:, 0], planned_kva), len(TRANSFORMERS) - 1)
    rated_kva, no_load_loss_kw, winding_loss_kw = TRANSFORMERS[size].T

    feeder = rng.integers(FEEDERS, size=count)
    latitude, longitude = _moved(
        district.latitude, district.longitude, district.bearing[feeder], rng.uniform(*FEEDER_KM, count)
    )
    aside_km = SERVICE_LINE_KM * customers.line_length * rng.standard_normal((2, meters))
    return Transformers(
        tuple(f"T{block + 1:04d}{'ABC'[number]}" for number in range(count)),
        feeder,
        of_meter,
        rated_kva,
        no_load_loss_kw,
        winding_loss_kw + LOW_VOLTAGE_LOSS_SHARE * rated_kva,
        latitude,
        longitude,
        tuple(start - timedelta(days=int(days)) for days in rng.integers(3650, 7000, count)),
        latitude[of_meter] + aside_km[0] / KM_PER_DEGREE,
        longitude[of_meter] + aside_km[1] / (KM_PER_DEGREE * np.cos(np.radians(latitude[of_meter]))),
    )


def energy_in(
    below_kwh: Floats,
    is_on: Bools,
    rated_kva: Floats,
    no_load_loss_kw: Floats,
    load_loss_kw: Floats,
    interval_hours: float,
) -> Floats:
    """Energy that flows into nodes in each interval.

    Args:
        below_kwh: All that is drawn from each node, metered or not, shape (intervals, nodes).
        is_on: Whether the node is energised; without voltage no core loses anything. Shape (intervals, nodes).
        rated_kva: Shape (nodes,).
        no_load_loss_kw: Shape (nodes,).
        load_loss_kw: At rated load, shape (nodes,).
        interval_hours: Length of one interval.

    Returns:
        kWh, shape (intervals, nodes).
    """
    loading = below_kwh / interval_hours / rated_kva
    return below_kwh + (no_load_loss_kw * is_on + load_loss_kw * loading**2) * interval_hours


def district_nodes(district: District, feeders: list[int]) -> pl.DataFrame:
    """The substation and some of its feeders, as rows of network_nodes.csv."""
    middle_km = sum(FEEDER_KM) / 2
    rows: list[tuple[object, ...]] = [
        (
            district.substation_id,
            "substation",
            None,
            SUBSTATION_RATED_KVA,
            None,  # its own transformer lies before the feeders' meters
            None,
            round(district.latitude, 5),
            round(district.longitude, 5),
            district.built,
            None,
        )
    ]
    for feeder in feeders:
        at = _moved(district.latitude, district.longitude, district.bearing[feeder], middle_km)
        rows.append(
            (
                district.feeder_ids[feeder],
                "feeder",
                district.substation_id,
                float(district.rated_kva[feeder]),
                0.0,
                float(district.load_loss_kw[feeder]),
                *(round(float(degrees), 5) for degrees in at),
                district.built,
                None,
            )
        )
    return pl.DataFrame(rows, schema=NODE_COLUMNS, orient="row")


def transformer_nodes(transformers: Transformers, district: District) -> pl.DataFrame:
    """The transformers of a block, as rows of network_nodes.csv."""
    count = len(transformers.ids)
    return pl.DataFrame(
        {
            "node_id": transformers.ids,
            "node_type": ["transformer"] * count,
            "parent_id": [district.feeder_ids[feeder] for feeder in transformers.feeder],
            "rated_kva": transformers.rated_kva,
            "no_load_loss_kw": transformers.no_load_loss_kw,
            "load_loss_kw": transformers.load_loss_kw.round(3),
            "latitude": transformers.latitude.round(5),
            "longitude": transformers.longitude.round(5),
            "valid_from": transformers.built,
            "valid_to": [None] * count,
        },
        schema=NODE_COLUMNS,
    )


def _moved(
    latitude: float, longitude: float, bearing: Floats | np.float64, distance_km: Floats | float
) -> tuple[Floats, Floats]:
    """The places at a distance, in degrees; exact enough within a city."""
    north, east = np.cos(bearing) * distance_km, np.sin(bearing) * distance_km
    return (
        np.asarray(latitude + north / KM_PER_DEGREE),
        np.asarray(longitude + east / (KM_PER_DEGREE * np.cos(np.radians(latitude)))),
    )
