"""Named rules: what a thief's meter looks like, as literature and inspectors tell it, each with its reason in words.

A rule's strength, 0 to 1, says how far a meter is out of what is usual in its own fleet (meter_features.fleet_scale);
the sentence says what was found, with the numbers. Strengths are what the suspicion score is combined from; no rule
needs a label.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from energy_iot.ml.meter_features import Floats

Bools = npt.NDArray[np.bool_]
Row = Mapping[str, Any]
Scores = Mapping[str, Floats]

# Families of evidence: rules of one family see the same thing, and count as one reason for the confidence.
LEVEL: Final = "level"
SHAPE: Final = "shape"
BALANCE: Final = "balance"
REGISTRY: Final = "registry"


@dataclass(frozen=True)
class Rule:
    """A rule.

    Attributes:
        name: Its name.
        family: What its evidence is of.
        weight: How much a meter at full strength is suspected for it alone, 0-1; chosen on development fleets.
        strength: Gives the strength of all meters, shape (meters,), in [0, 1], from columns and scores of features.
        sentence: Says it of one meter, as a row of columns.
        source: Where it comes from.
    """

    name: str
    family: str
    weight: float
    strength: Callable[[pl.DataFrame, Scores], Floats]
    sentence: Callable[[Row], str]
    source: str


def ramp(values: Floats, low: float, high: float) -> Floats:
    """0 up to `low`, 1 from `high` on, straight between; 0 where unknown.

    Example:
        >>> import numpy as np
        >>> ramp(np.array([1.0, 3.0, 9.0, np.nan]), 2, 4).tolist()
        [0.0, 0.5, 1.0, 0.0]
    """
    return np.nan_to_num(np.clip((values - low) / (high - low), 0, 1), nan=0.0)


def column(meters: pl.DataFrame, name: str) -> Floats:
    """A column as numbers, NaN where unknown, shape (meters,)."""
    values: Floats = meters[name].cast(pl.Float64).fill_null(np.nan).to_numpy()
    return values


# --- strengths ------------------------------------------------------------------------------------------------------


def _zero_consumption(meters: pl.DataFrame, scores: Scores) -> Floats:
    """Hours that are empty day after day, and were not before.

    Prepaid customers run out of credit now and then, and wait for hours or days: that is some days, not most of them.
    """
    days = column(meters, "zero_day_share_recent") - np.nan_to_num(column(meters, "zero_day_share_past"))
    return ramp(days, 0.2, 0.6) * ramp(scores["zero_day_rise"], 2, 6)


def _sustained_drop(_: pl.DataFrame, scores: Scores) -> Floats:
    """A drop that is large for this fleet and well above the meter's own noise, and that no week has come back from."""
    size = ramp(scores["drop_share"], 1.0, 4.0)
    certainty = ramp(scores["drop_t"], 0.0, 3.0)
    lasting = ramp(scores["least_drop_share"], 1.0, 4.0) * ramp(scores["last_week_drop_share"], 0.5, 2.5)
    return np.cbrt(size * certainty * lasting)


def _slow_decline(_: pl.DataFrame, scores: Scores) -> Floats:
    lasting = ramp(scores["last_week_drop_share"], 0.5, 2.5) * ramp(scores["least_drop_share"], 0.0, 2.0)
    return np.sqrt(ramp(scores["decline_share_30d"], 2.0, 6.0) * lasting)


def _flat_line(meters: pl.DataFrame, scores: Scores) -> Floats:
    """Even hours at a level at which nobody's consumption is even: a home that stands empty is flat at its standby."""
    repeated = ramp(scores["repeated_share_rise"], 3, 10) * ramp(column(meters, "repeated_share_recent"), 0.1, 0.5)
    flat = ramp(np.fmin(scores["flatness"], scores["smoothness"]), 3, 8)
    return np.fmax(repeated, flat) * ramp(level_over_base(meters, "repeated_day_kwh_recent"), 1.2, 1.8)


def _night_only(meters: pl.DataFrame, scores: Scores) -> Floats:
    """Most of what is left lies where peers use least, and not because it always did."""
    return ramp(scores["quiet_gain"], 3, 8) * ramp(column(meters, "quiet_share_recent"), 0.3, 0.6)


def _evening_hiding(_: pl.DataFrame, scores: Scores) -> Floats:
    return np.sqrt(ramp(scores["peak_loss"], 2, 6) * ramp(scores["recent_profile_distance"], 1.5, 5))


def _reversed_pattern(meters: pl.DataFrame, scores: Scores) -> Floats:
    better = column(meters, "reversed_correlation") - column(meters, "profile_correlation")
    return ramp(better, 0.1, 0.6) * ramp(scores["profile_distance"], 1.5, 4) * ramp(scores["shape_t"], 0, 2)


def _changed_profile(_: pl.DataFrame, scores: Scores) -> Floats:
    """The day has another shape than before and than the peers'."""
    own = ramp(np.fmax(scores["recent_profile_distance"], scores["profile_distance"]), 2, 6)
    return np.sqrt(own * ramp(np.fmax(scores["peer_distance_rise"], scores["reversal"]), 2, 6))


def _over_contract(meters: pl.DataFrame, _: Scores) -> Floats:
    return ramp(column(meters, "peak_power_recent_kw") / column(meters, "contracted_power_kw"), 1.5, 3)


def _disconnected(meters: pl.DataFrame, _: Scores) -> Floats:
    # a little is left of the day on which it was taken out
    days_used = column(meters, "kwh_after_disconnection") / column(meters, "mean_kwh")
    return ramp(np.where(np.isfinite(days_used), days_used, 0), 1, 5)


def _transformer_rose(meters: pl.DataFrame, scores: Scores) -> Floats:
    """What the meter lost, its transformer delivers still, to nobody's account."""
    drop_kwh = expected_kwh(meters) - column(meters, "supplied_day_kwh_since_drop")
    part = column(meters, "unexplained_rise_kwh") / np.where(drop_kwh > 0, drop_kwh, np.nan)
    # a rise that is many times the drop is somebody else's
    fits = ramp(part, 0.3, 0.7) * ramp(-part, -6.0, -2.0)
    certain = ramp(column(meters, "unexplained_rise_t"), 2, 5)
    return fits * certain * _sustained_drop(meters, scores)


def level_over_base(meters: pl.DataFrame, day_kwh: str) -> Floats:
    """Mean power of days, by a column with their energy, over what used to run at all hours; shape (meters,).

    About one is a meter where nobody is at home. Infinite for a meter that had hours without any power.
    """
    base_kw = np.fmin(column(meters, "base_power_before_drop_kw"), column(meters, "base_power_past_kw"))
    return np.where(base_kw > 0, column(meters, day_kwh) / 24 / np.where(base_kw > 0, base_kw, 1), np.inf)


def expected_kwh(meters: pl.DataFrame) -> Floats:
    """What each meter would register a day since its drop by own past and peers' index, kWh, shape (meters,)."""
    peers = 1 + np.nan_to_num(column(meters, "peer_change_since_drop"))
    return column(meters, "supplied_day_kwh_before_drop") * peers


# --- sentences ------------------------------------------------------------------------------------------------------


def percent(share: float | None) -> str:
    """A share as people read it.

    Example:
        >>> percent(0.417), percent(0.004), percent(None)
        ('42 %', 'under 1 %', 'an unknown share')
    """
    if share is None:
        return "an unknown share"
    return "under 1 %" if 0 < abs(share) < 0.01 else f"{100 * share:.0f} %"


def kwh(value: float | None) -> str:
    """Energy of a day with as many digits as say something: 0.35, 4.2, 17, 1,250 kWh."""
    if value is None:
        return "an unknown energy"
    digits = 0 if abs(value) >= 10 else 1 if abs(value) >= 1 else 2
    return f"{value:,.{digits}f} kWh"


def _day(value: date | None) -> str:
    return "an unknown day" if value is None else value.isoformat()


def _peers(row: Row, column_name: str) -> str:
    change = row[column_name]
    if change is None or abs(change) < 0.01:
        return "while its peers used as much as before"
    return f"while its peers used {percent(abs(change))} {'more' if change > 0 else 'less'}"


def _say_drop(row: Row) -> str:
    return (
        f"registers {percent(row['drop_share'])} less than its own past and its peers let expect since "
        f"{_day(row['drop_date'])} ({kwh(row['supplied_day_kwh_since_drop'])} a day, before "
        f"{kwh(row['supplied_day_kwh_before_drop'])}, {_peers(row, 'peer_change_since_drop')}), and did not come back: "
        f"{percent(row['last_week_drop_share'])} less in the last week"
    )


def _say_decline(row: Row) -> str:
    return (
        f"declines by {percent(row['decline_share_30d'])} in 30 days, week after week, against its peers "
        f"({kwh(row['supplied_day_kwh_recent'])} a day in the last four weeks, before "
        f"{kwh(row['supplied_day_kwh_past'])})"
    )


def _say_zero(row: Row) -> str:
    return (
        f"hours with supply and nothing registered on {percent(row['zero_day_share_recent'])} of the recent days, "
        f"before on {percent(row['zero_day_share_past'])} ({percent(row['zero_share_recent'])} of all hours, before "
        f"{percent(row['zero_share_past'])})"
    )


def _say_flat(row: Row) -> str:
    return (
        f"{percent(row['repeated_share_recent'])} of the recent hours repeat the one before (before "
        f"{percent(row['repeated_share_past'])}), and hours vary by {percent(row['hourly_variation_recent'])} of their "
        f"mean (before {percent(row['hourly_variation_past'])})"
    )


def _say_night(row: Row) -> str:
    return (
        f"{percent(row['quiet_share_recent'])} of its energy lies in the six hours in which its peers use least, "
        f"before {percent(row['quiet_share_past'])}"
    )


def _say_evening(row: Row) -> str:
    return (
        f"{percent(row['peak_share_recent'])} of its energy lies in the six hours in which its peers use most, before "
        f"{percent(row['peak_share_past'])}"
    )


def _say_reversed(row: Row) -> str:
    return (
        f"its day since {_day(row['shape_date'])} fits its own past better backwards (correlation "
        f"{row['reversed_correlation']:.2f}) than forwards ({row['profile_correlation']:.2f})"
    )


def _say_profile(row: Row) -> str:
    return (
        f"{percent(row['profile_distance'])} of its energy moved to other hours of the day since "
        f"{_day(row['shape_date'])}, away from its own habit and its peers'"
    )


def _say_over_contract(row: Row) -> str:
    return f"reached {row['peak_power_recent_kw']:.1f} kW, contracted are {row['contracted_power_kw']:.1f} kW"


def _say_disconnected(row: Row) -> str:
    return f"registered {kwh(row['kwh_after_disconnection'])} after its contract ended on {_day(row['valid_to'])}"


def _say_transformer(row: Row) -> str:
    return (
        f"the unexplained energy of its transformer {row['transformer_id']} rose by "
        f"{kwh(row['unexplained_rise_kwh'])} a day when it dropped by "
        f"{kwh(row['expected_kwh'] - row['supplied_day_kwh_since_drop'])}"
    )


# Papers: Jokar, Arianpoo & Leung 2016 (attack models), Zheng et al. 2019 (a thief's readings go with the losses of the
# area), Messinis & Hatziargyriou 2018 (review), Leon et al. 2011 (rules on variability and trend), Hinkley 1970.
JOKAR: Final = "doi:10.1109/TSG.2015.2425222"
ZHENG: Final = "doi:10.1109/TII.2018.2873814"
REVIEW: Final = "doi:10.1016/j.epsr.2018.01.005"
LEON: Final = "doi:10.1109/TPWRS.2011.2121350"
HINKLEY: Final = "doi:10.1093/biomet/57.1.1"

RULES: Final = (
    Rule("transformer_rose", BALANCE, 0.85, _transformer_rose, _say_transformer, ZHENG),
    Rule("disconnected_use", REGISTRY, 0.9, _disconnected, _say_disconnected, REVIEW),
    Rule("zero_consumption", LEVEL, 0.7, _zero_consumption, _say_zero, JOKAR),
    Rule("sustained_drop", LEVEL, 0.75, _sustained_drop, _say_drop, HINKLEY),
    Rule("flat_line", SHAPE, 0.85, _flat_line, _say_flat, JOKAR),
    Rule("reversed_pattern", SHAPE, 0.75, _reversed_pattern, _say_reversed, JOKAR),
    Rule("evening_hiding", SHAPE, 0.6, _evening_hiding, _say_evening, REVIEW),
    Rule("changed_profile", SHAPE, 0.6, _changed_profile, _say_profile, REVIEW),
    Rule("night_only", SHAPE, 0.6, _night_only, _say_night, LEON),
    Rule("slow_decline", LEVEL, 0.5, _slow_decline, _say_decline, LEON),
    Rule("over_contract", REGISTRY, 0.05, _over_contract, _say_over_contract, REVIEW),
)
