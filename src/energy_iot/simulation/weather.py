"""The weather of one hot-climate city: Ouagadougou, between Sahel and savanna.

Monthly normals are rounded from published 30-year tables of Ouagadougou (WMO station 65503): hottest in April
(39 C by day), coolest in January (16 C at night), humidity 21 % in February and 80 % in August, 15 rainy days in
August and none from November to February. The rest is stated below with its reason.
"""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from energy_iot.simulation.clock import Clock, Floats, accumulate, smooth, with_memory

#                                    Jan   Feb   Mar   Apr   May   Jun   Jul   Aug   Sep   Oct   Nov   Dec
DAILY_MAX_C: Final = np.array([33.0, 35.8, 38.3, 39.3, 37.7, 34.7, 32.1, 31.1, 32.4, 35.7, 35.9, 33.4])
DAILY_MIN_C: Final = np.array([16.5, 19.1, 23.5, 26.4, 26.1, 24.2, 22.8, 22.1, 22.3, 23.0, 19.6, 16.9])
HUMIDITY_PCT: Final = np.array([24.0, 21.0, 23.0, 38.0, 52.0, 65.0, 73.0, 80.0, 77.0, 60.0, 37.0, 28.0])
RAINY_DAYS: Final = np.array([0.0, 0.0, 0.5, 2.0, 6.0, 9.0, 12.0, 15.0, 11.0, 4.0, 0.0, 0.0])
# Harmattan in winter, monsoon winds before the rains, calm in September and October
WIND_KMH: Final = np.array([10.0, 10.5, 10.5, 11.0, 12.0, 11.5, 10.0, 8.0, 7.0, 7.0, 7.5, 9.0])
MID_MONTH_DAY: Final = np.array([15.5, 45, 74.5, 105, 135.5, 166, 196.5, 227.5, 258, 288.5, 319, 349.5])

# Coolest at sunrise, hottest in mid-afternoon: Parton & Logan (1981), doi:10.1016/0002-1571(81)90105-9
COOLEST_HOUR: Final = 6.0
HOTTEST_HOUR: Final = 15.0
# Assumption: the tropics have steady weather; a warm day is followed by a warm day
DAY_TO_DAY_SD_C: Final = 1.3
DAY_TO_DAY_PERSISTENCE: Final = 0.7
DAILY_RANGE_SD_C: Final = 0.6
MOISTURE_SD: Final = 0.12
# Assumption: a squall comes in the late afternoon, cools the air by 3-7 C and wears off within half a day
STORM_HOUR_MEAN: Final = 17.0
STORM_HOUR_SD: Final = 3.0
STORM_COOLING_C: Final = (3.0, 7.0)
STORM_MEMORY_HOURS: Final = 5.0
# Assumption: wind is log-normal with a memory of hours and strongest before noon, when the night's jet mixes down
WIND_SD: Final = 0.35
WIND_MEMORY_HOURS: Final = 4.0
WIND_DAY_CYCLE: Final = 0.35
WINDIEST_HOUR: Final = 11.0
# Assumption: walls of banco and concrete follow the outdoor air with a lag of some hours
BUILDING_MEMORY_HOURS: Final = 5.0
# Kondi-Akara et al., Energy 276 (2023): in Sahelian cities 10 points of humidity move consumption like 0.7 C
HUMIDITY_FELT_C_PER_PCT: Final = 0.07
HUMIDITY_REFERENCE_PCT: Final = 50.0


@dataclass(frozen=True)
class Weather:
    """The city's weather; each array has shape (intervals,)."""

    temperature_c: Floats
    humidity_pct: Floats
    wind_speed_kmh: Floats
    indoor_felt_c: Floats
    """What drives fans and air conditioners: heat with humidity, behind walls that store it."""


def simulate_weather(clock: Clock, rng: np.random.Generator) -> Weather:
    """Simulate the weather on `clock`; the days of a shorter period are the first days of a longer one."""
    days_rng, rain_rng, wind_rng = rng.spawn(3)
    # each row is one day, and the last night cools down to the morning after the period
    with_morrow = replace(clock, days=clock.days + 1)
    shocks = days_rng.standard_normal((with_morrow.days, 4))
    warmth_c = DAY_TO_DAY_SD_C * with_memory(shocks[:, 0], DAY_TO_DAY_PERSISTENCE)
    range_c = DAILY_RANGE_SD_C * shocks[:, 1]
    daily_max_c = _of_season(with_morrow, DAILY_MAX_C) + warmth_c + range_c
    daily_min_c = _of_season(with_morrow, DAILY_MIN_C) + warmth_c - range_c
    temperature_c = _day_cycle(clock, daily_min_c, daily_max_c)

    chances = rain_rng.random((clock.days, 2))
    rains = chances[:, 0] < _of_season(clock, RAINY_DAYS) / 30.4
    storm_c = STORM_COOLING_C[0] + (STORM_COOLING_C[1] - STORM_COOLING_C[0]) * chances[:, 1]
    storm_hour = np.clip(STORM_HOUR_MEAN + STORM_HOUR_SD * shocks[:-1, 2], 0, 23.9)
    storm_slot = np.arange(clock.days) * clock.intervals_per_day + (storm_hour / clock.interval_hours).astype(int)
    impulses = np.zeros(clock.intervals)
    impulses[storm_slot[rains]] = storm_c[rains]
    storm = accumulate(impulses, clock.persistence(STORM_MEMORY_HOURS))
    temperature_c = temperature_c - storm

    # The air holds about the same vapour all day, so relative humidity falls as it warms (and rises in a squall)
    mean_c = (_of_season(with_morrow, DAILY_MAX_C) + _of_season(with_morrow, DAILY_MIN_C)) / 2
    moisture = np.exp(MOISTURE_SD * with_memory(shocks[:, 3], DAY_TO_DAY_PERSISTENCE))
    noon_hpa = _of_season(with_morrow, HUMIDITY_PCT) / 100 * _saturation_hpa(mean_c) * moisture
    vapour_hpa = np.interp(clock.day + clock.hour / 24, np.arange(with_morrow.days) + 0.5, noon_hpa)
    humidity_pct = np.clip(100 * vapour_hpa / _saturation_hpa(temperature_c) + 2 * storm, 5, 100)

    by_hour = 1 + WIND_DAY_CYCLE * np.cos(2 * np.pi * (clock.hour - WINDIEST_HOUR) / 24)
    gusts = np.exp(
        WIND_SD * with_memory(wind_rng.standard_normal(clock.intervals), clock.persistence(WIND_MEMORY_HOURS))
    )
    wind_kmh = np.repeat(_of_season(clock, WIND_KMH), clock.intervals_per_day) * by_hour * gusts + 2 * storm

    felt_c = temperature_c + HUMIDITY_FELT_C_PER_PCT * (humidity_pct - HUMIDITY_REFERENCE_PCT)
    return Weather(temperature_c, humidity_pct, wind_kmh, smooth(felt_c, clock.persistence(BUILDING_MEMORY_HOURS)))


def _of_season(clock: Clock, monthly: Floats) -> Floats:
    """Monthly normals at each day, joined by straight lines from mid-month to mid-month, shape (days,)."""
    return np.interp(clock.day_of_year_of_days, MID_MONTH_DAY, monthly, period=365.25)


def _day_cycle(clock: Clock, daily_min_c: Floats, daily_max_c: Floats) -> Floats:
    """Temperature through each day's minimum at sunrise and maximum in the afternoon, shape (intervals,).

    It rises as a half cosine, and falls fastest around sunset, then slower until the next morning; hence the daily
    values of one more day, shape (days + 1,). The first night comes down from a maximum like its own day's.
    """
    hour, day = clock.hour, clock.day
    night = hour < COOLEST_HOUR
    rising = ~night & (hour < HOTTEST_HOUR)
    low_c = daily_min_c[np.where(night | rising, day, day + 1)]
    high_c = daily_max_c[np.where(night, np.maximum(day - 1, 0), day)]
    since_coolest = np.clip((hour - COOLEST_HOUR) / (HOTTEST_HOUR - COOLEST_HOUR), 0, 1)
    since_hottest = (hour - HOTTEST_HOUR) % 24 / (24 - HOTTEST_HOUR + COOLEST_HOUR)
    height = np.where(
        rising, (1 - np.cos(np.pi * since_coolest)) / 2, (1 + np.cos(np.pi * np.clip(since_hottest, 0, 1) ** 0.6)) / 2
    )
    return low_c + (high_c - low_c) * height


def _saturation_hpa(temperature_c: Floats) -> Floats:
    """Saturation vapour pressure over water, hPa (Magnus form of Alduchov & Eskridge 1996)."""
    return 6.1094 * np.exp(17.625 * temperature_c / (243.04 + temperature_c))
