"""What the meter forest sees, and the scale on which a fleet's meters are compared: the one home of both.

No threshold here is in kWh or in per cent of a change: what is odd depends on the fleet (weather, customers, how often
they travel), and what is odd in one is ordinary in another. So each figure is put on the fleet's own scale: how many of
the fleet's usual spreads it lies off the fleet's middle, on the side that is suspicious.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

Floats = npt.NDArray[np.float64]

STRANGE_SHARE: Final = "strange_reading_share"

# 1.4826 median absolute deviations are one standard deviation where values are normal.
MAD_TO_SD: Final = 1.4826
# Beyond, odd is odd: one extreme feature shall not make the others look alike.
HIGHEST_Z: Final = 10.0

_c = pl.col


@dataclass(frozen=True)
class MeterFeature:
    """One column of the matrix.

    Attributes:
        name: Its name.
        description: What a high value says of a meter.
        value: Expression over columns of int_meter_features; null where there is nothing to compare.
        least_spread: The smallest spread of the fleet that is taken seriously, in the unit of `value`.
    """

    name: str
    description: str
    value: pl.Expr
    least_spread: float


def _log_ratio(recent: str, past: str, least: float) -> pl.Expr:
    """ln(recent / past); `least` is added to both, so that next to nothing against nothing is no infinite change."""
    return ((_c(recent) + least) / (_c(past) + least)).log()


def own_change(since: str, before: str) -> pl.Expr:
    """Share by which the energy of a day fell, whatever the peers did."""
    return 1 - _c(since) / _c(before)


def cautious(drop: pl.Expr, own_drop: pl.Expr) -> pl.Expr:
    """A drop against the peers, by half where the peers' rise makes it.

    Not every customer goes with the weather as its peers do: who has no air conditioner does not rise with those who
    have one. So what peers did counts in full where it excuses a meter, and by half where it accuses it.
    """
    return pl.min_horizontal(drop, (drop + own_drop) / 2)


DROP: Final = cautious(_c("drop_share"), own_change("supplied_day_kwh_since_drop", "supplied_day_kwh_before_drop"))
RECENT_DROP: Final = cautious(_c("recent_drop_share"), own_change("supplied_day_kwh_recent", "supplied_day_kwh_past"))
# Drops in single weeks are taken down as the whole drop is.
CAUTION: Final = pl.when(_c("drop_share") > 0).then((DROP / _c("drop_share")).clip(0, 1)).otherwise(1)

FEATURES: Final = (
    MeterFeature("drop_share", "share by which the level fell at its strongest change, against its peers", DROP, 0.03),
    MeterFeature("drop_t", "standard errors of that change", _c("drop_t") * CAUTION, 0.5),
    MeterFeature(
        "least_drop_share",
        "the same in its best week since: who comes back has none",
        _c("least_drop_share") * CAUTION,
        0.05,
    ),
    MeterFeature("last_week_drop_share", "the same in the last week", _c("last_week_drop_share") * CAUTION, 0.05),
    MeterFeature("recent_drop_share", "share by which the last four weeks are lower", RECENT_DROP, 0.03),
    MeterFeature("recent_drop_z", "the same in the meter's own weekly spreads", _c("recent_drop_z"), 0.3),
    MeterFeature(
        "decline_share_30d",
        "share that the level falls by in 30 days, weighed with how straight it does",
        _c("decline_share_30d") * _c("decline_correlation").abs(),
        0.01,
    ),
    MeterFeature(
        "profile_distance", "share of the day's energy that moved at the change of shape", _c("profile_distance"), 0.01
    ),
    MeterFeature("recent_profile_distance", "the same for the last four weeks", _c("recent_profile_distance"), 0.01),
    MeterFeature(
        "shape_t",
        "standard errors of the strongest change of shape",
        pl.max_horizontal(_c("peak_share_t").abs(), _c("hourly_change_t").abs(), _c("hourly_variation_t").abs()),
        0.5,
    ),
    MeterFeature(
        "peer_distance_rise",
        "how much further the profile of the day is from the peers' than before",
        _c("peer_distance_recent") - _c("peer_distance_past"),
        0.01,
    ),
    MeterFeature(
        "reversal",
        "the profile fits the own past better from its end than from its beginning",
        _c("reversed_correlation") - _c("profile_correlation"),
        0.1,
    ),
    MeterFeature(
        "peak_loss",
        "share of the day's energy that left the peers' peak hours",
        _c("peak_share_past") - _c("peak_share_recent"),
        0.01,
    ),
    MeterFeature(
        "quiet_gain",
        "share that came to the peers' quietest hours",
        _c("quiet_share_recent") - _c("quiet_share_past"),
        0.01,
    ),
    MeterFeature(
        "flatness",
        "how much flatter the days are",
        -_log_ratio("hourly_variation_recent", "hourly_variation_past", 0.02),
        0.05,
    ),
    MeterFeature(
        "smoothness",
        "how much less neighbouring hours differ",
        -_log_ratio("hourly_change_recent", "hourly_change_past", 0.02),
        0.05,
    ),
    MeterFeature(
        "roughness",
        "how much more neighbouring hours differ",
        _log_ratio("hourly_change_recent", "hourly_change_past", 0.02),
        0.05,
    ),
    MeterFeature(
        "evenness_of_days",
        "how much less days differ",
        -_log_ratio("day_variation_recent", "day_variation_past", 0.02),
        0.1,
    ),
    MeterFeature(
        "unevenness_of_days",
        "how much more days differ",
        _log_ratio("day_variation_recent", "day_variation_past", 0.02),
        0.1,
    ),
    MeterFeature(
        "profile_spread_rise",
        "how much more the days' profiles differ",
        _c("profile_spread_recent") - _c("profile_spread_past"),
        0.01,
    ),
    MeterFeature(
        "zero_day_rise",
        "days with hours of nothing registered, more than before",
        _c("zero_day_share_recent") - _c("zero_day_share_past"),
        0.02,
    ),
    MeterFeature(
        "zero_share_rise",
        "hours with nothing registered, more than before",
        _c("zero_share_recent") - _c("zero_share_past"),
        0.01,
    ),
    MeterFeature(
        "repeated_share_rise",
        "hours that repeat the one before, more than before",
        _c("repeated_share_recent") - _c("repeated_share_past"),
        0.01,
    ),
    MeterFeature(
        "strange_reading_share",
        "share of the recent readings that the readings' forest calls anomalies",
        _c(STRANGE_SHARE),
        0.005,
    ),
    MeterFeature(
        "unexplained_rise_t",
        "standard errors of the rise of the transformer's unexplained energy at the drop",
        _c("unexplained_rise_t"),
        0.5,
    ),
    MeterFeature(
        "unexplained_correlation",
        "correlation of what is missing with the transformer's unexplained energy",
        _c("unexplained_correlation"),
        0.1,
    ),
)


def feature_values(meters: pl.DataFrame) -> pl.DataFrame:
    """The features of each meter, one row for each of `meters`, null where unknown or not finite."""
    values = meters.select(feature.value.cast(pl.Float64).alias(feature.name) for feature in FEATURES)
    return values.select(pl.when(pl.all().is_finite()).then(pl.all()))


def fleet_scale(values: Floats, *, usable: npt.NDArray[np.bool_], least_spread: float) -> tuple[float, float]:
    """Middle and spread of a figure over the fleet: the median, and the median absolute deviation as for a normal one.

    Args:
        values: Shape (meters,), NaN where unknown.
        usable: Shape (meters,): meters with enough data to be compared.
        least_spread: What the spread is at least.

    Example:
        >>> import numpy as np
        >>> fleet_scale(np.array([0.0, 1.0, 2.0, 99.0, np.nan]), usable=np.ones(5, dtype=bool), least_spread=0.1)
        (1.5, 1.4826)
    """
    known = values[usable & np.isfinite(values)]
    if not len(known):
        return 0.0, least_spread
    middle = float(np.median(known))
    return middle, max(least_spread, float(MAD_TO_SD * np.median(np.abs(known - middle))))


def fleet_z(values: Floats, *, usable: npt.NDArray[np.bool_], least_spread: float) -> Floats:
    """How many of the fleet's spreads each value lies above its middle, shape (meters,); 0 where unknown."""
    middle, spread = fleet_scale(values, usable=usable, least_spread=least_spread)
    return np.nan_to_num((values - middle) / spread, nan=0.0)


def feature_scores(meters: pl.DataFrame, usable: npt.NDArray[np.bool_]) -> Mapping[str, Floats]:
    """Each feature on the fleet's scale, shape (meters,), 0 where unknown; high is suspicious."""
    values = feature_values(meters)
    return {
        feature.name: fleet_z(
            values[feature.name].fill_null(np.nan).to_numpy(), usable=usable, least_spread=feature.least_spread
        )
        for feature in FEATURES
    }


def forest_matrix(scores: Mapping[str, Floats]) -> npt.NDArray[np.float32]:
    """What the forest sees, shape (meters, features): one-sided, since an unusually steady meter is no suspect."""
    columns = [np.clip(scores[feature.name], 0, HIGHEST_Z) for feature in FEATURES]
    return np.column_stack(columns).astype(np.float32)
