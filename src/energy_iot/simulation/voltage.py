"""The voltage a meter sees: nominal 230 V (IEC 60038), lower at the end of a line and at peak hours."""

from typing import Final

import numpy as np

from energy_iot.simulation.clock import Clock, Floats
from energy_iot.simulation.customers import Customers
from energy_iot.simulation.weather import Weather

# Assumptions: an average line loses 9 V at the evening peak of a hot day, more than one of a stiff European network
# (EN 50160 allows 10 %, 23 V), and a customer's own load pulls its service line down by 1.5 V for each kW; industry
# has three phases and a line made for its power
PEAK_DROP_V: Final = 9.0
OWN_DROP_V_PER_KW: Final = 1.5
INDUSTRY_DROP_V_PER_KW: Final = 0.15
NOISE_SD_V: Final = 1.0
EVENING_PEAK_HOUR: Final = 20.0
EVENING_WIDTH_HOURS: Final = 2.2


def simulate_voltage(
    clock: Clock, weather: Weather, customers: Customers, power_kw: Floats, rng: np.random.Generator
) -> Floats:
    """Voltage at each meter while supplied, V, shape (intervals, meters).

    The neighbours' load is an expected curve, not the simulated sum: a meter's readings must not depend on how many
    others are simulated with it.
    """
    evening = np.exp(-0.5 * ((clock.hour - EVENING_PEAK_HOUR) / EVENING_WIDTH_HOURS) ** 2)
    cooling = np.clip((weather.indoor_felt_c - 23) / 10, 0, 1)
    neighbours = 0.15 + 0.45 * evening + 0.40 * cooling
    own_drop_v = np.where(customers.is_industry, INDUSTRY_DROP_V_PER_KW, OWN_DROP_V_PER_KW) * power_kw
    drop_v = PEAK_DROP_V * neighbours[:, None] * customers.line_length + own_drop_v
    return customers.source_voltage_v - drop_v + NOISE_SD_V * rng.standard_normal(power_kw.shape)
