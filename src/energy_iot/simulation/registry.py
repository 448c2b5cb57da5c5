"""What customers have agreed with the utility: power and price.

Tariffs are those of SONABEL's low voltage as announced in 2006 for 5 to 30 A (96, 102 and 109 XOF a kWh by step); each
customer is given the price of the step where its last kWh falls, by contracted power. What business pays is an
assumption.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl

from energy_iot.simulation.clock import Floats, Ints
from energy_iot.simulation.customers import Customers

CURRENCY: Final = "XOF"
HOME_TARIFF_UP_TO_KW: Final = np.array([2.2, 4.4])
HOME_TARIFFS: Final = np.array([96.0, 102.0, 109.0])
BUSINESS_TARIFFS: Final = np.array([118.0, 125.0])  # shops, industry

# 5, 10, 15, 20 and 30 A of one phase, then of three
CONTRACTED_KW: Final = np.array([1.1, 2.2, 3.3, 4.4, 6.6, 9.9, 13.2, 19.8, 26.4, 39.6, 59.4])

INSTALLED_BEFORE_DAYS: Final = (30, 3650)

METER_COLUMNS: Final = {
    "meter_id": pl.String,
    "service_point_id": pl.String,
    "transformer_id": pl.String,
    "customer_class": pl.String,
    "tariff_per_kwh": pl.Float64,
    "currency": pl.String,
    "contracted_power_kw": pl.Float64,
    "is_prepaid": pl.Boolean,
    "latitude": pl.Float64,
    "longitude": pl.Float64,
    "valid_from": pl.Date,
    "valid_to": pl.Date,
}


@dataclass(frozen=True)
class Contracts:
    """Of the customers of a block; each array has shape (meters,)."""

    power_kw: Floats
    tariff_per_kwh: Floats
    installed_before_days: Ints
    """How long before the first reading the meter was installed."""


def draw_contracts(customers: Customers, rng: np.random.Generator) -> Contracts:
    """Each customer contracts the first size that its peak fits into."""
    size = np.minimum(np.searchsorted(CONTRACTED_KW, customers.peak_kw), len(CONTRACTED_KW) - 1)
    power_kw = CONTRACTED_KW[size]
    step = np.searchsorted(HOME_TARIFF_UP_TO_KW, power_kw)
    tariff = np.where(customers.is_home, HOME_TARIFFS[step], BUSINESS_TARIFFS[customers.is_industry.astype(np.int64)])
    return Contracts(power_kw, tariff, rng.integers(*INSTALLED_BEFORE_DAYS, len(power_kw)))
