"""Innocent causes: what makes a meter look like a thief's when nobody steals.

A cause does not remove a meter from the list. It names itself, and takes the meter down: crews may still look at it
when there is nothing better.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl

from energy_iot.ml.meter_features import Floats
from energy_iot.ml.meter_rules import Scores, column, expected_kwh, ramp

# Weeks with data: fewer before, and there is no past; none lately, and there is nothing to suspect.
MIN_WEEKS: Final = 6
MIN_RECENT_WEEKS: Final = 2


@dataclass(frozen=True)
class Cause:
    """An innocent cause.

    Attributes:
        name: As the list shows it.
        remaining: What share of the suspicion is left where the cause holds for certain.
        certainty: How sure it is, 0-1, shape (meters,).
        clears_shape: Whether a change of shape is explained by it too, or the level only.
    """

    name: str
    remaining: float
    certainty: Callable[[pl.DataFrame, Scores], Floats]
    clears_shape: bool


def _too_little_data(meters: pl.DataFrame, _: Scores) -> Floats:
    little = (column(meters, "week_count") < MIN_WEEKS) | (column(meters, "recent_week_count") < MIN_RECENT_WEEKS)
    return little.astype(np.float64)


def _replaced(meters: pl.DataFrame, _: Scores) -> Floats:
    """Its series goes on in the meter that took its place."""
    return meters["replaced_by"].is_not_null().to_numpy().astype(np.float64)


def _new_meter(meters: pl.DataFrame, _: Scores) -> Floats:
    """The level changed when the service point got another meter: the old one may have been the wrong one."""
    apart = meters.select((pl.col("drop_date") - pl.col("replacement_date")).dt.total_days().abs()).to_series()
    return (apart <= 7).fill_null(False).to_numpy().astype(np.float64)


def _outage(meters: pl.DataFrame, _: Scores) -> Floats:
    """Hours without supply explain the energy that is missing."""
    out = np.nan_to_num(column(meters, "outage_hours_since_drop"))
    share = out / (24 * 7 * np.fmax(column(meters, "weeks_since_drop"), 1))
    drop = column(meters, "drop_share")
    return ramp(share / np.where(drop > 0.1, drop, np.nan), 0.4, 0.9)


def _vacancy(meters: pl.DataFrame, _: Scores) -> Floats:
    """Nobody is there: only what runs by itself is on, as it always was.

    Such days are not compared (int_meter_levels); where they are most of the last weeks, there is little left to say. A
    bypassed or tampered meter loses its standby with all the rest, and keeps the course of its day.
    """
    return ramp(column(meters, "vacant_share_recent"), 0.3, 0.7)


def _came_back(_: pl.DataFrame, scores: Scores) -> Floats:
    """A drop that ended: away for some weeks, or repaired. Thieves go on."""
    return ramp(-scores["last_week_drop_share"], -1.5, 0.0) * ramp(scores["drop_share"], 1.5, 3.0)


def _balanced(meters: pl.DataFrame, scores: Scores) -> Floats:
    """The transformer delivers as much less as the meter registers less: the customer does use less.

    Only where the transformer's own noise lets it be said.
    """
    drop_kwh = expected_kwh(meters) - column(meters, "supplied_day_kwh_since_drop")
    drop_kwh = np.where(drop_kwh > 0, drop_kwh, np.nan)
    rise, t = column(meters, "unexplained_rise_kwh"), column(meters, "unexplained_rise_t")
    error = np.abs(rise / np.where(t == 0, np.nan, t))
    # how surely the rise is less than half of what the meter lost
    return ramp((0.5 * drop_kwh - rise) / error, 1.0, 3.0) * ramp(scores["drop_share"], 0.5, 1.5)


CAUSES: Final = (
    Cause("meter replaced", 0.0, _replaced, clears_shape=True),
    Cause("vacancy", 0.3, _vacancy, clears_shape=True),
    Cause("too little data", 0.1, _too_little_data, clears_shape=True),
    Cause("new meter at the service point", 0.4, _new_meter, clears_shape=True),
    Cause("outage", 0.3, _outage, clears_shape=False),
    Cause("came back", 0.4, _came_back, clears_shape=False),
    Cause("its transformer delivers less too", 0.4, _balanced, clears_shape=False),
)
# A cause is told where it is at least so sure.
TOLD_FROM: Final = 0.5
