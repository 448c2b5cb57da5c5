"""Who is behind the meters: households, small shops and small industry with their appliances and habits.

The only full survey of such a city is that of Ouagadougou, Tete et al. (2023), doi:10.1016/j.enbuild.2023.112914:
387 households, on average 2,395 kWh a year, about 40 % of it for cooling and 23 % for cooking and keeping food.
The parameters below were set so that the simulated fleet agrees with these figures; each single one is an assumption,
stated with its reason where it is not plain.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from energy_iot.simulation.clock import Bools, Floats, Ints

CLASSES: Final = ("residential", "commercial", "industrial")

SHOP_SHARE: Final = 0.12
"""Assumption: about one low-voltage customer in eight of a West African city is a small business."""

INDUSTRY_SHARE: Final = 0.015
"""Assumption: bakeries, mills, joineries, sachet-water plants: one or two low-voltage customers in a hundred."""

# Wealth is one hidden standard normal per household; powers grow with exp(WEALTH_EFFECT * wealth), so the yearly
# consumption is log-normal with a long tail, as in any residential billing file (see also Munkhammar et al. 2014,
# doi:10.1016/j.apenergy.2014.08.093, on the skew of household loads).
WEALTH_EFFECT: Final = 0.4
APPLIANCE_SD: Final = 0.3  # spread of one appliance's power between equally wealthy homes
FRIDGE_WEALTH: Final = -0.4  # roughly 60 % own a fridge
FREEZER_WEALTH: Final = 1.3
AIR_CONDITIONER_WEALTH: Final = 0.9  # roughly 3 in 10 own an air conditioner

# Meters with a battery behind their display report a zero and 0 V when the supply fails; the others fall silent
BATTERY_SHARE: Final = 0.15

SHOP_KINDS: Final = ("food", "workshop", "office")
SHOP_KIND_SHARES: Final = (0.4, 0.35, 0.25)
#                                       food  workshop  office
SHOP_REFRIGERATION_KW: Final = np.array([0.36, 0.04, 0.06])  # chest freezers and drinks fridges
SHOP_LIGHTS_KW: Final = np.array([0.10, 0.08, 0.15])
SHOP_EQUIPMENT_KW: Final = np.array([0.16, 1.00, 0.38])  # scales and radio; sewing, welding, hair dryers; computers
SHOP_FANS_KW: Final = np.array([0.07, 0.10, 0.06])
SHOP_AIR_CONDITIONER_KW: Final = np.array([1.0, 1.0, 1.4])
SHOP_AIR_CONDITIONER_SHARE: Final = np.array([0.08, 0.08, 0.75])
SHOP_OPENS_HOUR: Final = np.array([7.0, 8.0, 8.0])
SHOP_CLOSES_HOUR: Final = np.array([21.5, 18.5, 18.0])
SHOP_SATURDAY_CLOSES_HOUR: Final = np.array([21.5, 18.0, 13.0])
SHOP_SIZE_SD: Final = 0.35

# Assumptions: machines of some kW to some tens of kW, which is what a low-voltage connection can carry; most work one
# shift, some two, and those that cannot be stopped (cold stores, ovens) three
INDUSTRY_MACHINES_KW_MEDIAN: Final = 8.0
INDUSTRY_MACHINES_SD_LOG: Final = 0.5
INDUSTRY_MACHINES_KW_BOUNDS: Final = (3.0, 30.0)
INDUSTRY_SHIFT_SHARES: Final = (0.6, 0.25, 0.15)
INDUSTRY_BASE_SHARE: Final = (0.04, 0.15)  # of the machines' power: pumps, cold rooms, yard lights


@dataclass(frozen=True)
class Households:
    """Homes; each array has shape (households,), powers are kW while the appliance runs, hours are hours of day."""

    standby_kw: Floats
    refrigeration_kw: Floats
    """Average over its compressor's cycles at 25 C, 0 for homes without."""
    lights_kw: Floats
    media_kw: Floats
    fans_kw: Floats
    air_conditioner_kw: Floats
    """0 for homes without."""
    heavy_kw: Floats
    """Iron, kettle, hot plate, pump: large and short."""
    heavy_uses_per_day: Floats
    wakes_hour: Floats
    sleeps_hour: Floats
    day_presence: Floats
    """Share of the household that is in on a working day, 0-1."""


@dataclass(frozen=True)
class Shops:
    """Small businesses; each array has shape (shops,)."""

    refrigeration_kw: Floats
    lights_kw: Floats
    equipment_kw: Floats
    fans_kw: Floats
    air_conditioner_kw: Floats
    opens_hour: Floats
    closes_hour: Floats
    saturday_closes_hour: Floats


@dataclass(frozen=True)
class Industries:
    """Small industry; each array has shape (industries,)."""

    machines_kw: Floats
    base_kw: Floats
    shifts: Ints
    """1, 2 or 3 of eight hours; three shifts work on Sundays too."""
    starts_hour: Floats


@dataclass(frozen=True)
class Customers:
    """One block of service points; `is_shop`, `has_battery`, ... have shape (meters,)."""

    is_shop: Bools
    is_industry: Bools
    has_battery: Bools
    line_length: Floats
    """Distance to the transformer, 1 is average: the voltage drop grows with it."""
    source_voltage_v: Floats
    households: Households
    shops: Shops
    industries: Industries

    @property
    def is_home(self) -> Bools:
        """Neither shop nor industry."""
        return ~(self.is_shop | self.is_industry)

    @property
    def customer_class(self) -> Ints:
        """Index into CLASSES of each customer."""
        return np.where(self.is_industry, 2, self.is_shop).astype(np.int64)

    @property
    def idle_kw(self) -> Floats:
        """What stays on when nobody is there: standby, a fridge or two, yard lights; kW, shape (meters,)."""
        idle = np.empty(len(self.is_shop))
        idle[self.is_home] = self.households.standby_kw + 0.3 * self.households.refrigeration_kw
        idle[self.is_shop] = 0.01 + 0.1 * self.shops.refrigeration_kw
        idle[self.is_industry] = 0.2 * self.industries.base_kw
        return idle

    @property
    def peak_kw(self) -> Floats:
        """A power that the customer reaches on few half-hours of a year, kW, shape (meters,)."""
        homes, shops, industries = self.households, self.shops, self.industries
        peak = np.empty(len(self.is_shop))
        peak[self.is_home] = (
            homes.standby_kw
            + 2 * homes.refrigeration_kw
            + homes.lights_kw
            + homes.media_kw
            + homes.fans_kw
            + homes.air_conditioner_kw
            + homes.heavy_kw
        )
        peak[self.is_shop] = (
            2 * shops.refrigeration_kw
            + shops.lights_kw
            + 1.5 * shops.equipment_kw
            + shops.fans_kw
            + shops.air_conditioner_kw
        )
        peak[self.is_industry] = industries.base_kw + 1.3 * industries.machines_kw
        return peak


def draw_customers(meters: int, rng: np.random.Generator) -> Customers:
    """Draw the customers of one block."""
    share = rng.random(meters)
    is_shop = share < SHOP_SHARE
    is_industry = share > 1 - INDUSTRY_SHARE
    return Customers(
        is_shop=is_shop,
        is_industry=is_industry,
        has_battery=rng.random(meters) < BATTERY_SHARE,
        line_length=rng.uniform(0.3, 1.7, meters),
        source_voltage_v=rng.normal(232, 2.0, meters),
        households=_draw_households(int((~is_shop & ~is_industry).sum()), rng),
        shops=_draw_shops(int(is_shop.sum()), rng),
        industries=_draw_industries(int(is_industry.sum()), rng),
    )


def _draw_households(homes: int, rng: np.random.Generator) -> Households:
    wealth = rng.standard_normal(homes)

    def appliance_kw(median_kw: float) -> Floats:
        return median_kw * np.exp(WEALTH_EFFECT * wealth + APPLIANCE_SD * rng.standard_normal(homes))

    def owns(wealth_needed: float) -> Bools:
        return wealth + 0.7 * rng.standard_normal(homes) > wealth_needed

    return Households(
        standby_kw=appliance_kw(0.018),
        refrigeration_kw=0.055 * owns(FRIDGE_WEALTH) + 0.070 * owns(FREEZER_WEALTH),
        lights_kw=appliance_kw(0.065),
        media_kw=appliance_kw(0.11),
        fans_kw=0.055 * (1 + rng.poisson(1.5 * np.exp(WEALTH_EFFECT * wealth)).astype(np.float64)),
        air_conditioner_kw=owns(AIR_CONDITIONER_WEALTH) * (1 + (wealth > 1.7)) * rng.uniform(0.9, 1.3, homes),
        heavy_kw=rng.uniform(0.6, 1.5, homes),
        heavy_uses_per_day=2.8 * np.exp(WEALTH_EFFECT * wealth + 0.3 * rng.standard_normal(homes)),
        wakes_hour=rng.normal(5.6, 0.5, homes),
        sleeps_hour=np.clip(rng.normal(22.6, 0.6, homes), 20.5, 23.7),
        day_presence=rng.uniform(0.3, 0.95, homes),
    )


def _draw_shops(shops: int, rng: np.random.Generator) -> Shops:
    kind = rng.choice(len(SHOP_KINDS), size=shops, p=SHOP_KIND_SHARES)
    size = np.exp(SHOP_SIZE_SD * rng.standard_normal(shops))

    def equipment_kw(median_kw: Floats) -> Floats:
        return median_kw[kind] * size * np.exp(APPLIANCE_SD * rng.standard_normal(shops))

    later = np.clip(rng.normal(0, 0.4, (2, shops)), -0.8, 0.8)
    has_air_conditioner = rng.random(shops) < SHOP_AIR_CONDITIONER_SHARE[kind]
    return Shops(
        refrigeration_kw=equipment_kw(SHOP_REFRIGERATION_KW),
        lights_kw=equipment_kw(SHOP_LIGHTS_KW),
        equipment_kw=equipment_kw(SHOP_EQUIPMENT_KW),
        fans_kw=equipment_kw(SHOP_FANS_KW),
        air_conditioner_kw=has_air_conditioner * SHOP_AIR_CONDITIONER_KW[kind] * size,
        opens_hour=SHOP_OPENS_HOUR[kind] + later[0],
        closes_hour=SHOP_CLOSES_HOUR[kind] + later[1],
        saturday_closes_hour=SHOP_SATURDAY_CLOSES_HOUR[kind] + later[1],
    )


def _draw_industries(industries: int, rng: np.random.Generator) -> Industries:
    size = np.exp(INDUSTRY_MACHINES_SD_LOG * rng.standard_normal(industries))
    machines_kw = np.clip(INDUSTRY_MACHINES_KW_MEDIAN * size, *INDUSTRY_MACHINES_KW_BOUNDS)
    return Industries(
        machines_kw=machines_kw,
        base_kw=machines_kw * rng.uniform(*INDUSTRY_BASE_SHARE, industries),
        shifts=1 + rng.choice(len(INDUSTRY_SHIFT_SHARES), size=industries, p=INDUSTRY_SHIFT_SHARES),
        starts_hour=rng.uniform(5.5, 7.5, industries),
    )
