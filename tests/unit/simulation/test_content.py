"""Would an energy engineer believe it? A year of one block, with fixed seed and wide bounds."""

from dataclasses import dataclass, replace
from datetime import date

import numpy as np
import polars as pl
import pytest

from energy_iot.simulation.anomalies import Kind, inject
from energy_iot.simulation.block import METERS_PER_BLOCK, City, simulate_block, simulate_city
from energy_iot.simulation.clock import Clock, Floats
from energy_iot.simulation.customers import Customers, draw_customers
from energy_iot.simulation.loads import simulate_loads
from energy_iot.simulation.outages import FEEDERS
from energy_iot.simulation.rows import anomaly_rows, reading_rows

SEED = 11
BLOCKS = 2
FEEDER_OF_METERS = np.arange(METERS_PER_BLOCK) % FEEDERS


@dataclass(frozen=True)
class Year:
    """A leap year of some blocks; power in kW, shape (intervals, meters), 0 without supply."""

    city: City
    customers: list[Customers]
    power_kw: Floats
    is_home: np.ndarray
    is_shop: np.ndarray

    @property
    def clock(self) -> Clock:
        return self.city.clock

    def daily_kwh(self, meters: np.ndarray) -> Floats:
        """Mean of the given meters, kWh a day, shape (days,)."""
        return self.power_kw[:, meters].mean(axis=1).reshape(self.clock.days, -1).mean(axis=1) * 24

    def profile_kw(self, meters: np.ndarray, days: np.ndarray) -> Floats:
        """Mean power by interval of the day."""
        return self.power_kw[:, meters].mean(axis=1).reshape(self.clock.days, -1)[days].mean(axis=0)

    @property
    def month(self) -> np.ndarray:
        return self.clock.instants[:: self.clock.intervals_per_day].astype("datetime64[M]").astype(int) % 12 + 1


@pytest.fixture(scope="module")
def year() -> Year:
    city = simulate_city(Clock(date(2024, 1, 1), 366, 30), SEED)
    rng = np.random.default_rng(SEED)
    customers = [draw_customers(METERS_PER_BLOCK, rng) for _ in range(BLOCKS)]
    supply = city.supply.at(FEEDER_OF_METERS)
    power_kw = np.hstack([simulate_loads(city.clock, city.weather, supply, block, rng) for block in customers])
    is_home, is_shop = (np.concatenate(each) for each in zip(*((b.is_home, b.is_shop) for b in customers), strict=True))
    return Year(city, customers, power_kw, is_home, is_shop)


def test_the_fleet_is_mostly_homes(year: Year) -> None:
    assert 0.04 < year.is_shop.mean() < 0.25


def test_yearly_consumption_is_that_of_an_urban_west_african_city(year: Year) -> None:
    yearly_kwh = year.power_kw.mean(axis=0) * 8784
    homes, shops = yearly_kwh[year.is_home], yearly_kwh[year.is_shop]
    assert 1_200 < np.median(homes) < 2_800
    assert 1_700 < homes.mean() < 3_100  # survey: 2,395
    assert np.median(homes) < homes.mean()  # a long tail of big customers
    assert homes.min() > 150
    assert 2_000 < np.median(shops) < 8_000
    assert shops.max() < 30_000


def test_one_meter_is_spiky_and_the_fleet_smooth(year: Year) -> None:
    load_factor = year.power_kw.mean(axis=0) / year.power_kw.max(axis=0)
    assert 0.07 < np.median(load_factor[year.is_home]) < 0.3
    fleet_kw = year.power_kw.mean(axis=1)
    assert fleet_kw.mean() / fleet_kw.max() > 2 * np.median(load_factor)
    homes = year.power_kw[:, year.is_home]
    spread = homes.std(axis=0)
    skew = ((homes - homes.mean(axis=0)) ** 3).mean(axis=0) / spread**3
    assert np.median(skew) > 1.5


def test_homes_peak_in_the_evening_and_rest_before_dawn(year: Year) -> None:
    hour = year.clock.hours_of_slots
    for month in (1, 4, 8):
        profile = year.profile_kw(year.is_home, year.month == month)
        assert 18 < hour[profile.argmax()] < 22.5
        assert profile.max() > 1.5 * profile.mean()
    cool = year.profile_kw(year.is_home, year.month == 1)
    assert hour[cool.argmin()] < 6
    assert cool[(hour > 6) & (hour < 8)].mean() > 1.3 * cool[(hour > 9) & (hour < 10.5)].mean()  # morning peak


def test_hot_season_needs_more_than_cool_season(year: Year) -> None:
    daily = year.daily_kwh(np.full(year.is_shop.shape, True))
    hot, cool, rainy = (daily[np.isin(year.month, months)].mean() for months in ([4, 5], [12, 1], [8, 9]))
    assert hot > 1.4 * cool
    assert cool < rainy < hot


def test_sensitivity_to_temperature_is_that_of_sahelian_cities(year: Year) -> None:
    daily = year.daily_kwh(year.is_home)
    weather = year.city.weather
    temperature, humidity = (
        series.reshape(year.clock.days, -1).mean(axis=1) for series in (weather.temperature_c, weather.humidity_pct)
    )
    columns = np.column_stack([np.ones(year.clock.days), temperature, humidity])
    _, per_c, per_pct = np.linalg.lstsq(columns, np.log(daily), rcond=None)[0]
    assert 0.05 < per_c < 0.12  # published: 6-10 % for each degree
    assert 0.2 < 10 * per_pct / per_c < 1.2  # published: 10 points of humidity weigh like 0.3-0.9 degrees


def test_shops_open_in_the_day_and_close_on_sundays(year: Year) -> None:
    hour, sunday = year.clock.hours_of_slots, year.clock.weekday_of_days == 6
    open_days, closed_days = (year.profile_kw(year.is_shop, days) for days in (~sunday, sunday))
    assert 9 < hour[open_days.argmax()] < 18.5
    assert open_days[(hour > 10) & (hour < 17)].mean() > 3 * open_days[hour < 5].mean()
    assert closed_days.max() < 0.5 * open_days.max()
    assert closed_days.max() < 1.8 * closed_days.min()  # only fridges and standby remain


def test_homes_use_more_at_weekends(year: Year) -> None:
    daily = year.daily_kwh(year.is_home)
    weekend = year.clock.weekday_of_days >= 5
    assert 1.03 < daily[weekend].mean() / daily[~weekend].mean() < 1.35


def test_outages_last_hours_and_come_back_with_a_rebound(year: Year) -> None:
    supply, clock = year.city.supply, year.clock
    assert supply.is_on.shape == (clock.intervals, FEEDERS)
    off_share = 1 - supply.is_on.mean(axis=0)
    assert (off_share > 0.004).all()
    assert (off_share < 0.08).all()
    assert ((~supply.is_on).sum(axis=1) < FEEDERS).all()  # never the whole city
    edges = np.diff(supply.is_on.astype(int), axis=0, prepend=1, append=1)
    lengths = (
        np.concatenate([np.flatnonzero(edge == 1) - np.flatnonzero(edge == -1) for edge in edges.T])
        * clock.interval_hours
    )
    assert len(lengths) > 100
    assert 2 < np.median(lengths) < 7


def test_appliances_catch_up_after_an_outage(year: Year) -> None:
    city, customers = year.city, year.customers[0]
    assert (city.supply.pick_up >= 0).all()
    assert (city.supply.pick_up <= 1).all()
    supply = city.supply.at(FEEDER_OF_METERS)
    without = replace(supply, pick_up=np.zeros_like(supply.pick_up))
    with_kw, without_kw = (
        simulate_loads(city.clock, city.weather, supply, customers, np.random.default_rng(SEED))
        for supply in (supply, without)
    )
    is_on, pick_up = supply.is_on, supply.pick_up
    assert (with_kw[~is_on] == 0).all()
    assert (with_kw >= without_kw).all()
    long_after, just_after = is_on & (pick_up < 1e-6), is_on & (pick_up > 0.5)
    assert just_after.sum() > 1000
    np.testing.assert_allclose(with_kw[long_after], without_kw[long_after], rtol=1e-5)
    assert 1.05 < with_kw[just_after].mean() / without_kw[just_after].mean() < 2


def test_weather_has_its_days_and_seasons(year: Year) -> None:
    weather, clock = year.city.weather, year.clock
    by_day = weather.temperature_c.reshape(clock.days, -1)
    hour = clock.hours_of_slots
    assert 13 < np.median(hour[by_day.argmax(axis=1)]) < 17
    assert 4 < np.median(hour[by_day.argmin(axis=1)]) < 8
    monthly_c = [by_day[year.month == month].mean() for month in range(1, 13)]
    assert np.argmax(monthly_c) + 1 in (4, 5)
    assert np.argmin(monthly_c) + 1 in (12, 1)
    assert 21 < min(monthly_c) < 27
    assert 29 < max(monthly_c) < 35
    humidity = weather.humidity_pct.reshape(clock.days, -1)
    assert humidity[year.month == 8].mean() > 70
    assert humidity[year.month == 2].mean() < 35
    assert (
        np.corrcoef(weather.temperature_c[year.clock.day < 60], weather.humidity_pct[year.clock.day < 60])[0, 1] < -0.5
    )
    # nothing jumps at midnight: no change there is larger than elsewhere in the dry season
    change = np.abs(np.diff(weather.temperature_c[clock.day < 60]))
    humid_change = np.abs(np.diff(weather.humidity_pct[clock.day < 60]))
    at_midnight = np.arange(clock.intervals_per_day - 1, len(change), clock.intervals_per_day)
    assert change[at_midnight].max() < change.max()
    assert humid_change[at_midnight].max() < humid_change.max()


def test_about_one_reading_in_a_hundred_is_abnormal_and_every_kind_occurs() -> None:
    city = simulate_city(Clock(date(2024, 3, 1), 90, 30), SEED)
    blocks = [simulate_block(city, SEED, number, METERS_PER_BLOCK) for number in range(BLOCKS)]
    readings, anomalies = (pl.concat([rows(block) for block in blocks]) for rows in (reading_rows, anomaly_rows))
    assert 0.007 < (readings["anomaly_label"] == "Abnormal").mean() < 0.014
    assert set(anomalies["kind"]) == {kind.name.lower() for kind in Kind} - {"normal"}
    share = anomalies.group_by("kind").agg(pl.col("readings").sum() / readings.height)
    assert share["readings"].max() < 0.006


def test_each_kind_does_what_its_name_says(year: Year) -> None:
    customers, clock = year.customers[0], year.clock
    true_kwh = year.power_kw[:, :METERS_PER_BLOCK] * clock.interval_hours
    shown_kwh = true_kwh.copy()
    supplied = true_kwh > 0
    episodes, kinds = inject(clock, customers, shown_kwh, supplied, np.random.default_rng(SEED))
    peak_kwh = customers.peak_kw * clock.interval_hours
    normal = kinds == Kind.NORMAL
    assert (shown_kwh[normal] == true_kwh[normal]).all()
    assert {episode.kind for episode in episodes} == set(Kind) - {Kind.NORMAL}
    for episode in episodes:
        window = slice(episode.first, episode.last), episode.meter
        shown, true = shown_kwh[window], true_kwh[window]
        match episode.kind:
            case Kind.ZERO:
                assert (shown == 0).all()
            case Kind.SUDDEN_DROP:
                assert (shown <= 0.3 * true).all()
            case Kind.FLAT_LINE:
                assert (shown == shown[0]).all()
                assert shown[0] > 0
            case Kind.SPIKE:
                assert len(shown) == 1
                assert shown[0] > 1.3 * peak_kwh[episode.meter]
            case Kind.NIGHT_USE:
                assert customers.is_shop[episode.meter]
                hour = clock.hour[episode.first : episode.last]
                assert ((hour > 22) | (hour < 5)).all()
                assert (shown >= true + 0.4 * peak_kwh[episode.meter]).all()
            case Kind.SUSTAINED_HIGH:
                assert (shown >= true + 0.4 * peak_kwh[episode.meter]).all()
                assert len(shown) * clock.interval_hours <= 24


def test_voltage_drops_at_the_evening_peak() -> None:
    city = simulate_city(Clock(date(2024, 4, 1), 20, 30), SEED)
    readings = reading_rows(simulate_block(city, SEED, 0, METERS_PER_BLOCK))
    by_hour = (
        readings.filter(pl.col("voltage_v") > 0)
        .group_by(pl.col("timestamp").str.slice(11, 2).alias("hour"))
        .agg(pl.col("voltage_v").mean())
    )
    volts = dict(by_hour.iter_rows())
    assert volts["20"] < volts["04"] - 3
    assert 222 < by_hour["voltage_v"].mean() < 233


@pytest.mark.parametrize("interval_minutes", [10, 60])
def test_energy_does_not_depend_on_the_interval(interval_minutes: int) -> None:
    """Shorter intervals show more detail of the same kind of customers, not more energy."""

    def daily_kwh(minutes: int) -> float:
        clock = Clock(date(2024, 4, 1), 14, minutes)
        city = simulate_city(clock, SEED)
        customers = draw_customers(METERS_PER_BLOCK, np.random.default_rng(SEED))
        rng = np.random.default_rng(SEED)
        supply = city.supply.at(FEEDER_OF_METERS)
        return float(simulate_loads(clock, city.weather, supply, customers, rng).mean() * 24)

    assert daily_kwh(interval_minutes) == pytest.approx(daily_kwh(30), rel=0.08)
