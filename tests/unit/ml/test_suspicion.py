"""What the ranking makes of meters that are strange in one way."""

import doctest
import math
from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from energy_iot.ml import meter_features, meter_rules
from energy_iot.ml.meter_features import FEATURES, feature_scores, feature_values, fleet_z, forest_matrix
from energy_iot.ml.meter_rules import RULES
from energy_iot.ml.suppression import CAUSES
from energy_iot.ml.suspicion import Suspicions, judge
from tests.meter_fleet import AS_OF, CHANGE, METERS, STRANGE, dropped, ordinary_fleet, with_strange

KWH = 6.0
THEFTS: dict[str, dict[str, object]] = {
    "sustained_drop": dropped(),
    "slow_decline": {
        "decline_share_30d": 0.3,
        "decline_correlation": 0.95,
        "last_week_drop_share": 0.5,
        "least_drop_share": 0.2,
    },
    "zero_consumption": {"zero_day_share_recent": 0.95, "zero_share_recent": 0.35},
    "flat_line": {
        "repeated_share_recent": 0.9,
        "hourly_variation_recent": 0.1,
        "hourly_change_recent": 0.1,
        "repeated_day_kwh_recent": KWH,
        "base_power_before_drop_kw": KWH / 24 / 4,
        "base_power_past_kw": KWH / 24 / 4,
    },
    "night_only": {"quiet_share_recent": 0.7},
    "evening_hiding": {"peak_share_recent": 0.2, "recent_profile_distance": 0.25},
    "reversed_pattern": {
        "profile_correlation": -0.3,
        "reversed_correlation": 0.93,
        "profile_distance": 0.3,
        "peak_share_t": -9.0,
    },
    "changed_profile": {"profile_distance": 0.3, "peer_distance_recent": 0.35},
    "disconnected_use": {"kwh_after_disconnection": 60.0, "valid_to": CHANGE},
    "transformer_rose": dropped(unexplained_rise_kwh=KWH * 0.6, unexplained_rise_t=8.0, unexplained_correlation=0.9),
    "over_contract": {"peak_power_recent_kw": 9.0, "contracted_power_kw": 2.0},
}


def judged(fleet: pl.DataFrame) -> Suspicions:
    return judge(fleet, trees=20, seed=7)


def strange(suspicions: Suspicions) -> dict[str, object]:
    return suspicions.table.row(by_predicate=pl.col("meter_id") == STRANGE, named=True)


@pytest.mark.parametrize("module", [meter_features, meter_rules])
def test_examples_in_docstrings(module: object) -> None:
    result = doctest.testmod(module)
    assert result.attempted
    assert not result.failed


def test_each_rule_has_its_meter() -> None:
    assert set(THEFTS) == {rule.name for rule in RULES}


@pytest.mark.parametrize("name", THEFTS)
def test_a_rule_sees_its_meter_and_says_why(name: str) -> None:
    fleet = with_strange(**THEFTS[name])
    suspicions = judged(fleet)
    place = suspicions.table["meter_id"].to_list().index(STRANGE)
    assert suspicions.strengths[name][place] > 0.8
    others = np.delete(suspicions.strengths[name], place)
    assert np.quantile(others, 0.95) < 0.3
    (rule,) = (rule for rule in RULES if rule.name == name)
    assert rule.source.startswith("doi:10.")
    assert any(character.isdigit() for character in str(strange(suspicions)["reasons"]))


@pytest.mark.parametrize("name", sorted(set(THEFTS) - {"over_contract"}))
def test_a_thief_is_first(name: str) -> None:
    table = judged(with_strange(**THEFTS[name])).table.sort("suspicion_score", descending=True)
    assert table["meter_id"][0] == STRANGE


def test_reasons_name_the_numbers_the_most_telling_first() -> None:
    row = strange(judged(with_strange(**THEFTS["transformer_rose"])))
    first, second = str(row["reasons"]).split("; ")[:2]
    assert first == ("the unexplained energy of its transformer t1 rose by 3.6 kWh a day when it dropped by 3.6 kWh")
    assert second == (
        "registers 60 % less than its own past and its peers let expect since 2025-04-01 (2.4 kWh a day, before "
        "6.0 kWh, while its peers used as much as before), and did not come back: 60 % less in the last week"
    )
    assert row["suspected_since"] == CHANGE
    days = (AS_OF - CHANGE).days + 1
    assert row["lost_kwh"] == pytest.approx(days * 3.6)
    assert row["lost_value"] == pytest.approx(days * 3.6 * 90)
    assert row["currency"] == "XOF"


EXCUSES: dict[str, dict[str, object]] = {
    "vacancy": dropped(vacant_share_recent=0.8),
    "outage": dropped(outage_hours_since_drop=0.6 * 5 * 7 * 24),
    "new meter at the service point": dropped(replacement_date=CHANGE + timedelta(days=3)),
    "came back": dropped(last_week_drop_share=-0.05),
    "its transformer delivers less too": dropped(unexplained_rise_kwh=-0.1, unexplained_rise_t=-0.3),
    "too little data": dropped(week_count=4),
    "meter replaced": dropped(replaced_by="m001"),
}


def test_each_cause_has_its_meter() -> None:
    assert set(EXCUSES) == {cause.name for cause in CAUSES}


@pytest.mark.parametrize("name", EXCUSES)
def test_an_innocent_cause_takes_the_score_down_and_is_told(name: str) -> None:
    accused = strange(judged(with_strange(**dropped())))
    excused = strange(judged(with_strange(**EXCUSES[name])))
    assert accused["suppressed_cause"] is None
    assert excused["suppressed_cause"] == name
    assert float(str(excused["suspicion_score"])) < 0.7 * float(str(accused["suspicion_score"]))


def test_a_meter_that_falls_less_than_its_peers_rise_is_accused_by_half() -> None:
    # its own consumption did not change; the peers' rose by three fifths
    unmoved = dropped(
        share=0.375, peer_change_since_drop=0.6, supplied_day_kwh_since_drop=KWH, supplied_day_kwh_recent=KWH
    )
    cautious = strange(judged(with_strange(**unmoved)))
    fallen = strange(judged(with_strange(**dropped(share=0.375))))
    assert float(str(cautious["suspicion_score"])) < float(str(fallen["suspicion_score"]))


def test_a_bypassed_meter_is_not_vacant() -> None:
    nothing_left = dropped(share=1.0, base_power_since_drop_kw=0.0, zero_day_share_recent=1.0, zero_share_recent=1.0)
    row = strange(judged(with_strange(**nothing_left)))
    assert row["suppressed_cause"] is None
    assert float(str(row["suspicion_score"])) > 0.9


def test_without_registry_nothing_is_known_of_money_and_network() -> None:
    missing = [
        "contracted_power_kw", "tariff_per_kwh", "unexplained_rise_kwh", "unexplained_rise_t",
        "unexplained_correlation", "transformer_unexplained_share", "strange_reading_share",
    ]  # fmt: skip
    fleet = with_strange(**dropped()).with_columns(
        *(pl.lit(None, pl.Float64).alias(name) for name in missing),
        *(pl.lit(None, pl.String).alias(name) for name in ("currency", "transformer_id")),
    )
    table = judged(fleet).table.sort("suspicion_score", descending=True)
    assert table["meter_id"][0] == STRANGE
    assert table["lost_kwh"][0] > 0
    assert table["lost_value"].null_count() == table.height


@hypothesis_settings(max_examples=6)
@given(seed=st.integers(0, 1000), size=st.sampled_from([0.001, 1000.0]), order=st.randoms(use_true_random=False))
def test_order_of_rows_and_size_of_customers_are_of_no_matter(seed: int, size: float, order: object) -> None:
    fleet = ordinary_fleet(seed)
    energies = [name for name in fleet.columns if "kwh" in name or name.endswith("_kw")]
    energies.remove("tariff_per_kwh")
    changed = fleet.with_columns(pl.col(energies) * size).sample(fraction=1, shuffle=True, seed=seed)
    before, after = judged(fleet).table, judged(changed).table
    assert before["meter_id"].to_list() == after["meter_id"].to_list()
    assert after["suspicion_score"].to_numpy() == pytest.approx(before["suspicion_score"].to_numpy(), abs=1e-6)
    for table in (before, after):
        assert table["suspicion_score"].is_between(0, 1).all()
        assert table["confidence"].is_between(0, 1).all()


def test_the_same_seed_gives_the_same_scores() -> None:
    fleet = with_strange(**dropped())
    assert judged(fleet).table.equals(judged(fleet).table)
    assert not judged(fleet).table.equals(judge(fleet, trees=20, seed=8).table)


@pytest.mark.parametrize("meters", [0, 1, 2])
def test_the_smallest_fleets(meters: int) -> None:
    table = judged(ordinary_fleet()[:meters]).table
    assert table.height == meters
    assert table["suspicion_score"].is_finite().all()


def test_meters_without_any_weeks_are_no_suspects() -> None:
    fleet = ordinary_fleet()
    names = [feature for feature, kind in fleet.schema.items() if kind.is_float()]
    silent = fleet[:1].with_columns(
        pl.lit("silent").alias("meter_id"),
        *(pl.lit(None, pl.Float64).alias(name) for name in names),
        *(pl.lit(0, pl.Int32).alias(name) for name in ("week_count", "recent_week_count")),
        *(pl.lit(None, pl.Date).alias(name) for name in ("drop_date", "shape_date")),
    )
    row = judged(pl.concat([fleet, silent])).table.row(by_predicate=pl.col("meter_id") == "silent", named=True)
    assert row["suspicion_score"] == 0
    assert row["confidence"] == 0
    assert (row["reasons"], row["suspected_since"], row["lost_kwh"]) == (None, None, None)


@given(
    values=st.lists(st.floats(-1e3, 1e3), min_size=5, max_size=50),
    shift=st.floats(-100, 100),
    scale=st.floats(0.5, 20),
)
def test_the_fleets_scale_knows_no_unit(values: list[float], shift: float, scale: float) -> None:
    array = np.array(values)
    usable = np.ones(len(values), dtype=bool)
    first = fleet_z(array, usable=usable, least_spread=0.1)
    second = fleet_z(array * scale + shift, usable=usable, least_spread=0.1 * scale)
    assert second == pytest.approx(first, abs=1e-6)


def test_what_is_unknown_is_usual() -> None:
    fleet = ordinary_fleet().with_columns(pl.lit(None, pl.Float64).alias("drop_t"), pl.lit(math.inf).alias("rise_t"))
    scores = feature_scores(fleet, np.ones(METERS, dtype=bool))
    assert set(scores["drop_t"]) == {0.0}
    matrix = forest_matrix(scores)
    assert matrix.shape == (METERS, len(FEATURES))
    assert np.isfinite(matrix).all()
    assert matrix.min() == 0  # one-sided
    assert set(feature_values(fleet).columns) == {feature.name for feature in FEATURES}


def test_dates_are_of_the_change_that_the_first_reason_is_about() -> None:
    later = date(2025, 4, 20)
    shape = strange(judged(with_strange(**THEFTS["reversed_pattern"], shape_date=later)))
    level = strange(judged(with_strange(**dropped(), shape_date=later)))
    assert (shape["suspected_since"], level["suspected_since"]) == (later, CHANGE)
