"""What the customers of one block draw from the grid, appliance by appliance, in kW averaged over each interval.

All arrays run over intervals first (shape (intervals, customers)): what has a memory runs along rows. Every random
process has a stream of its own and is drawn interval after interval, so a longer period begins like a shorter one.

The day has the three peaks that Tete et al. (2024), doi:10.3390/en17153656, found in Ouagadougou: morning, midday and,
highest, the evening. Heavy appliances come as single short events, as in the bottom-up model of Richardson et al.
(2010), doi:10.1016/j.enbuild.2010.05.023: they make one home spiky and thousands of homes smooth.
"""

from typing import Final

import numpy as np

from energy_iot.simulation.clock import SATURDAY, SUNDAY, Bools, Clock, Floats, with_memory
from energy_iot.simulation.customers import INDUSTRY_SHIFT_SHARES, Customers, Households, Industries, Shops
from energy_iot.simulation.outages import Supply
from energy_iot.simulation.weather import Weather

# Sun at 12 degrees north: rises and sets within half an hour of these hours all year
SUNRISE_HOUR: Final = 6.2
SUNSET_HOUR: Final = 18.3

# Cooling starts at a comfort point and is full some degrees above it. Assumption, set so that city consumption rises
# by 6-10 % for each degree, as Kondi-Akara et al., Energy 276 (2023), found for Sahelian cities
FAN_STARTS_C: Final = 23.5
FAN_FULL_C: Final = 31.0
AIR_CONDITIONER_STARTS_C: Final = 25.0
AIR_CONDITIONER_FULL_C: Final = 36.0
SHOP_SETPOINT_LOWER_C: Final = 2.0  # customers are kept cooler than families
FRIDGE_SHARE_PER_C: Final = 0.03  # a compressor works about 3 % more for each degree around it

# Assumptions on noise: how busy a home is varies from day to day and with a memory of two hours within the day;
# a compressor's cycle of about half an hour makes neighbouring readings differ
DAY_SD: Final = 0.18
DAY_PERSISTENCE: Final = 0.4
ACTIVITY_SD: Final = 0.40
ACTIVITY_MEMORY_HOURS: Final = 2.0
CYCLE_SPREAD: Final = 0.35
HEAVY_MINUTES_MEAN: Final = 18.0
SHOP_ACTIVITY_SD: Final = 0.30
OPENING_SD_HOURS: Final = 0.25

# Weight of heavy uses by hour: washing and breakfast, midday cooking, evening cooking and ironing
HEAVY_PEAKS: Final = ((6.7, 0.9, 0.8), (12.3, 1.1, 0.8), (19.4, 1.4, 1.5))  # hour, width in hours, weight
HEAVY_ALL_DAY: Final = 0.08
WEEKEND_HEAVY_FACTOR: Final = 1.25  # laundry and ironing

# Assumptions: a shift of eight hours with a break, batches of some hours, Saturdays until noon
SHIFT_HOURS: Final = 8.5
BATCH_SD: Final = 0.25
BATCH_MEMORY_HOURS: Final = 3.0
SATURDAY_SHIFT_HOURS: Final = 6.0


def simulate_loads(
    clock: Clock, weather: Weather, supply: Supply, customers: Customers, rng: np.random.Generator
) -> Floats:
    """Power of each customer of a block, kW, shape (intervals, meters); 0 without supply.

    Args:
        clock: The period.
        weather: Of the city.
        supply: At each customer, shape (intervals, meters).
        customers: The block.
        rng: Random numbers of this block's loads.
    """
    home_rng, shop_rng, industry_rng = rng.spawn(3)
    catching_up = 1 + supply.pick_up  # appliances that cool have to, after an outage
    power_kw = np.empty(catching_up.shape)
    home, shop, industry = customers.is_home, customers.is_shop, customers.is_industry
    power_kw[:, home] = _households_kw(clock, weather, customers.households, catching_up[:, home], home_rng)
    power_kw[:, shop] = _shops_kw(clock, weather, customers.shops, catching_up[:, shop], shop_rng)
    power_kw[:, industry] = _industries_kw(clock, customers.industries, industry_rng)
    power_kw[~supply.is_on] = 0
    return power_kw


def _households_kw(
    clock: Clock, weather: Weather, homes: Households, catching_up: Floats, rng: np.random.Generator
) -> Floats:
    day_rng, activity_rng, cycle_rng, use_rng, minutes_rng, cooling_rng = rng.spawn(6)
    shape = catching_up.shape
    is_weekend = clock.rhythm_of_days >= SATURDAY

    hour = clock.hours_of_slots[:, None]
    awake = _between(hour, homes.wakes_hour, homes.sleeps_hour, 0.35)
    away = _between(hour, np.full_like(homes.wakes_hour, 7.6), np.full_like(homes.wakes_hour, 17.2), 0.5)
    in_on_workdays = 1 - away * (1 - homes.day_presence)
    in_on_weekends = 1 - 0.4 * away * (1 - homes.day_presence)
    dark = (1 - _between(hour, SUNRISE_HOUR, SUNSET_HOUR, 0.25))[:, :1]
    # television and radio: some all day, most people between dinner and sleep
    media = 0.30 + 0.20 * _bump(hour, 12.8, 1.3) + 0.70 * _bump(hour, 20.6, 1.7)

    def through(workday: Floats, weekend: Floats) -> Floats:
        """Lay out a working day and a weekend day over the calendar, shape (intervals, homes)."""
        return np.where(is_weekend[:, None, None], weekend, workday).reshape(shape)

    present = through(awake * in_on_workdays, awake * in_on_weekends)
    indoors = through(in_on_workdays, in_on_weekends)  # asleep or awake
    of_day = with_memory(day_rng.standard_normal((clock.days, shape[1])), DAY_PERSISTENCE)[clock.day]
    within_day = with_memory(activity_rng.standard_normal(shape), clock.persistence(ACTIVITY_MEMORY_HOURS))
    busy = np.exp(DAY_SD * of_day + ACTIVITY_SD * within_day - (DAY_SD**2 + ACTIVITY_SD**2) / 2)
    cycle = 1 + CYCLE_SPREAD * cycle_rng.uniform(-1, 1, shape)
    felt_c = weather.indoor_felt_c[:, None]

    power_kw = _heavy_kw(clock, homes, present, is_weekend, use_rng, minutes_rng)
    in_use = present * busy
    power_kw += in_use * np.tile(0.10 + 0.90 * dark, (clock.days, 1)) * homes.lights_kw
    power_kw += in_use * np.tile(media, (clock.days, 1)) * homes.media_kw
    power_kw += homes.standby_kw + _refrigeration(weather, catching_up) * cycle * homes.refrigeration_kw
    power_kw += indoors * busy * _ramp(felt_c, FAN_STARTS_C, FAN_FULL_C) * homes.fans_kw
    duty = _ramp(felt_c, AIR_CONDITIONER_STARTS_C, AIR_CONDITIONER_FULL_C)
    runs = _air_conditioner_runs(clock, weather, homes, indoors, cooling_rng)
    power_kw += runs * np.minimum(duty * cycle * catching_up, 1) * homes.air_conditioner_kw
    return power_kw


def _air_conditioner_runs(
    clock: Clock, weather: Weather, homes: Households, indoors: Floats, rng: np.random.Generator
) -> Floats:
    """Whether air conditioners are on, 0-1: most hot nights from bedtime, and weekend and some working afternoons."""
    night_rng, afternoon_rng = rng.spawn(2)
    homes_count = indoors.shape[1]
    heat = weather.indoor_felt_c.reshape(clock.days, -1).mean(axis=1, keepdims=True)
    wanted = _ramp(heat, AIR_CONDITIONER_STARTS_C - 1, AIR_CONDITIONER_STARTS_C + 5)
    # a night runs from noon to noon, so that one decision covers both sides of midnight
    nights = night_rng.random((clock.days + 1, homes_count)) < np.concatenate([wanted[:1], wanted])
    night = nights[clock.day + (clock.hour >= 12)]
    afternoons = afternoon_rng.random((clock.days, homes_count)) < 0.6 * wanted
    hour = clock.hours_of_slots[:, None]
    at_night = 1 - _between(hour, homes.wakes_hour - 0.5, homes.sleeps_hour - 2.2, 0.2)
    after_lunch = _between(hour, np.full(homes_count, 13.0), np.full(homes_count, 16.5), 0.2)
    runs = night * np.tile(at_night, (clock.days, 1))
    runs += afternoons[clock.day] * (indoors > 0.6) * np.tile(after_lunch, (clock.days, 1))
    return np.minimum(runs, 1)


def _heavy_kw(
    clock: Clock,
    homes: Households,
    present: Floats,
    is_weekend: Bools,
    use_rng: np.random.Generator,
    minutes_rng: np.random.Generator,
) -> Floats:
    """Iron, kettle, hot plate, pump: each use starts at random and lasts some minutes, if need be over intervals."""
    by_hour = np.full(clock.intervals_per_day, HEAVY_ALL_DAY)
    for at, width_hours, weight in HEAVY_PEAKS:
        by_hour += weight * _bump(clock.hours_of_slots, at, width_hours)
    by_hour /= by_hour.sum()
    on_day = np.where(is_weekend, WEEKEND_HEAVY_FACTOR, 1.0)
    per_interval = (on_day[:, None] * by_hour).reshape(-1, 1) * present * homes.heavy_uses_per_day
    uses = use_rng.poisson(per_interval)
    left_minutes = np.zeros(uses.shape)
    used = uses > 0
    left_minutes[used] = minutes_rng.standard_gamma(uses[used]) * HEAVY_MINUTES_MEAN
    for t in range(1, len(left_minutes)):  # what does not fit into one interval runs on in the next
        left_minutes[t] += np.maximum(left_minutes[t - 1] - clock.interval_minutes, 0)
    return np.minimum(left_minutes / clock.interval_minutes, 1) * homes.heavy_kw


def _shops_kw(clock: Clock, weather: Weather, shops: Shops, catching_up: Floats, rng: np.random.Generator) -> Floats:
    opening_rng, activity_rng, cycle_rng = rng.spawn(3)
    shape = catching_up.shape
    late = OPENING_SD_HOURS * opening_rng.standard_normal((clock.days, 2, shape[1]))
    closes = np.where(clock.rhythm_of_days[:, None] == SATURDAY, shops.saturday_closes_hour, shops.closes_hour)
    open_now = _between(
        clock.hours_of_slots[None, :, None],
        (shops.opens_hour + late[:, 0])[:, None],
        (closes + late[:, 1])[:, None],
        0.1,
    )
    open_now[clock.rhythm_of_days == SUNDAY] = 0
    open_now = open_now.reshape(shape)
    # trade is busiest before noon and in the late afternoon, quiet after lunch and at prayer
    trade = np.tile(1 - 0.35 * _bump(clock.hours_of_slots, 13.8, 1.0), clock.days)[:, None]
    within_day = with_memory(activity_rng.standard_normal(shape), clock.persistence(ACTIVITY_MEMORY_HOURS))
    busy = np.exp(SHOP_ACTIVITY_SD * within_day - SHOP_ACTIVITY_SD**2 / 2)
    cycle = 1 + CYCLE_SPREAD * cycle_rng.uniform(-1, 1, shape)
    felt_c = weather.indoor_felt_c[:, None] + SHOP_SETPOINT_LOWER_C
    dark = np.tile(1 - _between(clock.hours_of_slots, SUNRISE_HOUR, SUNSET_HOUR, 0.25), clock.days)[:, None]

    power_kw = _refrigeration(weather, catching_up) * (0.85 + 0.15 * open_now) * cycle * shops.refrigeration_kw
    power_kw += open_now * ((0.4 + 0.6 * dark) * shops.lights_kw + trade * busy * shops.equipment_kw)
    power_kw += open_now * _ramp(felt_c, FAN_STARTS_C, FAN_FULL_C) * shops.fans_kw
    duty = _ramp(felt_c, AIR_CONDITIONER_STARTS_C, AIR_CONDITIONER_FULL_C)
    power_kw += open_now * np.minimum(duty * cycle * catching_up, 1) * shops.air_conditioner_kw
    return power_kw


def _industries_kw(clock: Clock, industries: Industries, rng: np.random.Generator) -> Floats:
    """Machines run in shifts, batch after batch; three shifts never stop."""
    shape = clock.intervals, len(industries.machines_kw)
    hour = clock.hours_of_slots[:, None]
    length_hours = industries.shifts * SHIFT_HOURS
    late_hours = np.maximum(industries.starts_hour + length_hours - 24, 0)  # two shifts from 7 end before midnight
    workday = _between(hour, industries.starts_hour, industries.starts_hour + length_hours - late_hours, 0.15)
    workday *= 1 - 0.4 * _bump(hour, 12.5, 0.4)
    saturday = _between(hour, industries.starts_hour, industries.starts_hour + SATURDAY_SHIFT_HOURS, 0.15)
    all_day = 1 - 0.15 * _bump(hour % 8, 6.0, 0.5) * np.ones_like(industries.machines_kw)  # when shifts change
    never_stops = industries.shifts == len(INDUSTRY_SHIFT_SHARES)
    by_rhythm = np.stack(
        [
            np.where(never_stops, all_day, workday),
            np.where(never_stops, all_day, saturday),
            np.where(never_stops, all_day, 0),
        ]
    )
    rhythm = np.maximum(clock.rhythm_of_days - SATURDAY + 1, 0)
    within_day = with_memory(rng.standard_normal(shape), clock.persistence(BATCH_MEMORY_HOURS))
    busy = np.minimum(np.exp(BATCH_SD * within_day - BATCH_SD**2 / 2), 1.3)
    works = by_rhythm[rhythm].reshape(shape)
    return industries.base_kw + 0.75 * works * busy * industries.machines_kw


def _refrigeration(weather: Weather, catching_up: Floats) -> Floats:
    """Power of fridges relative to their average at 25 C, shape (intervals, customers)."""
    return np.maximum(1 + FRIDGE_SHARE_PER_C * (weather.indoor_felt_c[:, None] - 25), 0.5) * catching_up


def _between(hour: Floats, first: Floats | float, last: Floats | float, softness_hours: float) -> Floats:
    """1 between two hours of a day, 0 outside, with soft edges (logistic)."""
    rise = 1 / (1 + np.exp((first - hour) / softness_hours))
    fall = 1 / (1 + np.exp((hour - last) / softness_hours))
    return rise * fall


def _bump(hour: Floats, at: float, width_hours: float) -> Floats:
    """Bell around an hour, 1 at its top."""
    return np.exp(-0.5 * ((hour - at) / width_hours) ** 2)


def _ramp(value: Floats, zero_at: float, one_at: float) -> Floats:
    """0 below `zero_at`, 1 above `one_at`, straight between."""
    return np.clip((value - zero_at) / (one_at - zero_at), 0, 1)
