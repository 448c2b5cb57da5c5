"""What happens at service points without anybody doing wrong: growth, vacancy, running out of credit, a new meter.

Each day brings each event with some chance, drawn day after day, so that a longer period begins like a shorter one.
How often is an assumption unless a source is named:

- Growth: consumption of one customer changes by some per cent a year; a few double it with new appliances, or give up
  half of it. Those are listed as `growth` and `decline`.
- Vacancy: tenants leave, a shop closes; for weeks little more than standby is drawn, then it may come back.
- Prepaid customers run out of credit now and then and come back within hours, or, at the end of the month, days.
  Surveys call it self-disconnection: of New Zealand's prepaid households 53 % had it within a year, over a third of
  them for more than 12 hours (nationwide postal survey of 2010, University of Otago). Nine times a year, as assumed
  here, is for customers who buy little and often.
- Meters last some ten years (design life of electronic meters): one in ten is replaced a year. The new one has a new
  number.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import numpy as np

from energy_iot.simulation.clock import Bools, Clock, Floats, Ints
from energy_iot.simulation.customers import Customers

GROWTH_MEAN_A_YEAR: Final = 0.04
GROWTH_SD_A_YEAR: Final = 0.06
STRONG_GROWTH_SHARE: Final = 0.03
STRONG_GROWTH_A_YEAR: Final = (0.5, 1.2)  # in the exponent: a year multiplies by 1.6 to 3.3, or divides
DECLINE_SHARE_OF_STRONG: Final = 0.4

VACANCIES_PER_METER_DAY: Final = 1 / 1500
VACANCY_DAYS_MEDIAN: Final = 24.0
VACANCY_DAYS_SD_LOG: Final = 0.7
VACANCY_DAYS_MIN: Final = 7.0

PREPAID_SHARES: Final = np.array([0.5, 0.3, 0.0])  # by customer class
DISCONNECTIONS_PER_METER_DAY: Final = 1 / 40
DISCONNECTION_HOURS_MEDIAN: Final = 6.0
DISCONNECTION_HOURS_SD_LOG: Final = 1.0
DISCONNECTION_HOURS_MAX: Final = 96.0
# Credit is sold from 7 to 22 h (kiosks; by telephone too, but not by everybody)
CREDIT_SOLD_FROM_HOUR: Final = 7.0
CREDIT_SOLD_UNTIL_HOUR: Final = 22.0

REPLACEMENTS_PER_METER_DAY: Final = 1 / 3650


class Cause(StrEnum):
    """Innocent kinds of truth.csv."""

    GROWTH = "growth"
    DECLINE = "decline"
    VACANCY = "vacancy"
    PREPAID_DISCONNECTION = "prepaid_disconnection"
    METER_REPLACEMENT = "meter_replacement"
    METER_ERROR = "meter_error"


@dataclass(frozen=True)
class Spell:
    """Something that holds at a service point from interval `first` until before `last`; may end after the period."""

    meter: int
    cause: Cause
    first: int
    last: int


@dataclass(frozen=True)
class Circumstances:
    """Those of one block; arrays have shape (meters,)."""

    growth_a_year: Floats
    """Exponent of growth, 1/year."""
    is_strong: Bools
    is_prepaid: Bools
    replaced_at: Ints
    """First interval of the new meter, at a midnight; the number of intervals or more if there is none."""
    spells: tuple[Spell, ...]

    def settled_from(self, last: Ints) -> "Circumstances":
        """Without vacancies and replacements from an interval on, one for each meter, shape (meters,)."""
        others = [spell for spell in self.spells if spell.cause is not Cause.PREPAID_DISCONNECTION]
        disconnections = [spell for spell in self.spells if spell.cause is Cause.PREPAID_DISCONNECTION]
        never = np.iinfo(np.int64).max
        return replace(
            self,
            spells=(*before(others, last), *disconnections),
            replaced_at=np.where(self.replaced_at < last, self.replaced_at, never),
        )


def before(spells: list[Spell], last: Ints) -> list[Spell]:
    """Spells as far as they lie before an interval, one for each meter, shape (meters,)."""
    return [
        replace(spell, last=min(spell.last, int(last[spell.meter])))
        for spell in spells
        if spell.first < last[spell.meter]
    ]


def draw_circumstances(clock: Clock, customers: Customers, rng: np.random.Generator) -> Circumstances:
    """Draw what happens at the service points of a block."""
    trait_rng, vacancy_rng, credit_rng, replacement_rng = rng.spawn(4)
    meters = len(customers.is_shop)
    growth = GROWTH_MEAN_A_YEAR + GROWTH_SD_A_YEAR * trait_rng.standard_normal(meters)
    is_strong = trait_rng.random(meters) < STRONG_GROWTH_SHARE
    strong = trait_rng.uniform(*STRONG_GROWTH_A_YEAR, meters)
    strong[trait_rng.random(meters) < DECLINE_SHARE_OF_STRONG] *= -1
    is_prepaid = trait_rng.random(meters) < PREPAID_SHARES[customers.customer_class]
    spells = _vacancies(clock, meters, vacancy_rng) + _disconnections(clock, is_prepaid, credit_rng)

    replaced = replacement_rng.random((clock.days, meters)) < REPLACEMENTS_PER_METER_DAY
    replaced[0] = False  # the first day has a meter already
    first_day = np.where(replaced.any(axis=0), replaced.argmax(axis=0), clock.days)
    return Circumstances(
        np.where(is_strong, strong, growth), is_strong, is_prepaid, first_day * clock.intervals_per_day, tuple(spells)
    )


def live(clock: Clock, customers: Customers, circumstances: Circumstances, power_kw: Floats) -> None:
    """Change `power_kw`, shape (intervals, meters), in place: growth, vacancies, no credit."""
    years = (clock.day + clock.hour / 24) / 365.25
    power_kw *= np.exp(years[:, None] * circumstances.growth_a_year)
    idle_kw = customers.idle_kw
    for spell in circumstances.spells:
        window = slice(spell.first, spell.last), spell.meter
        if spell.cause is Cause.VACANCY:
            power_kw[window] = np.minimum(power_kw[window], idle_kw[spell.meter])
        else:
            power_kw[window] = 0


def _vacancies(clock: Clock, meters: int, rng: np.random.Generator) -> list[Spell]:
    start_rng, length_rng = rng.spawn(2)
    chances = start_rng.random((clock.days, meters, 2))
    days = VACANCY_DAYS_MEDIAN * np.exp(VACANCY_DAYS_SD_LOG * length_rng.standard_normal((clock.days, meters)))
    free_from = np.zeros(meters, dtype=np.int64)
    spells = []
    for day, meter in np.argwhere(chances[..., 0] < VACANCIES_PER_METER_DAY):
        first = int((day + chances[day, meter, 1]) * clock.intervals_per_day)
        last = first + round(max(days[day, meter], VACANCY_DAYS_MIN) * clock.intervals_per_day)
        if first > free_from[meter]:
            spells.append(Spell(int(meter), Cause.VACANCY, first, last))
            free_from[meter] = last
    return spells


def _disconnections(clock: Clock, is_prepaid: Bools, rng: np.random.Generator) -> list[Spell]:
    start_rng, length_rng = rng.spawn(2)
    shape = clock.days, len(is_prepaid)
    chances = start_rng.random((*shape, 2))
    lengths = DISCONNECTION_HOURS_MEDIAN * np.exp(DISCONNECTION_HOURS_SD_LOG * length_rng.standard_normal(shape))
    free_from = np.zeros(len(is_prepaid), dtype=np.int64)
    spells = []
    for day, meter in np.argwhere((chances[..., 0] < DISCONNECTIONS_PER_METER_DAY) & is_prepaid):
        from_hour = day * 24 + 24 * chances[day, meter, 1]
        to_hour = from_hour + min(lengths[day, meter], DISCONNECTION_HOURS_MAX)
        midnight, hour = to_hour // 24 * 24, to_hour % 24
        if hour >= CREDIT_SOLD_UNTIL_HOUR:
            to_hour = midnight + 24 + CREDIT_SOLD_FROM_HOUR
        elif hour < CREDIT_SOLD_FROM_HOUR:
            to_hour = midnight + CREDIT_SOLD_FROM_HOUR
        first, last = round(from_hour / clock.interval_hours), round(to_hour / clock.interval_hours)
        if free_from[meter] < first < min(last, clock.intervals):
            spells.append(Spell(int(meter), Cause.PREPAID_DISCONNECTION, first, last))
            free_from[meter] = last
    return spells
