"""Features of a small fleet of ordinary meters, as intermediate.int_meter_features has them, and of a strange one."""

from datetime import date
from typing import Any

import numpy as np
import polars as pl

METERS = 80
STRANGE = "strange"
AS_OF = date(2025, 5, 5)
CHANGE = date(2025, 4, 1)


def ordinary_fleet(seed: int = 3, meters: int = METERS) -> pl.DataFrame:
    """Ordinary meters: small falls and changes of shape by chance, that come back."""
    rng = np.random.default_rng(seed)

    def around(mean: float, spread: float) -> np.ndarray[Any, np.dtype[np.float64]]:
        return mean + spread * rng.standard_normal(meters)

    kwh = np.exp(around(1.8, 0.5))
    drop = np.abs(around(0.08, 0.05))
    frame = pl.DataFrame(
        {
            "meter_id": [f"m{number:03d}" for number in range(meters)],
            "mean_kwh": kwh,
            "drop_t": np.abs(around(1.5, 0.7)),
            "rise_t": np.abs(around(1.5, 0.7)),
            "drop_share": drop,
            "supplied_day_kwh_before_drop": kwh,
            "supplied_day_kwh_since_drop": kwh * (1 - drop),
            "peer_change_since_drop": np.zeros(meters),
            "last_week_drop_share": around(0.0, 0.05),
            "least_drop_share": around(-0.03, 0.05),
            "earlier_drop_share": np.abs(around(0.1, 0.05)),
            "recent_drop_share": around(0.0, 0.05),
            "recent_drop_z": around(0.0, 0.7),
            "supplied_day_kwh_past": kwh,
            "supplied_day_kwh_recent": kwh * (1 + around(0.0, 0.05)),
            "peer_change_recent": np.zeros(meters),
            "decline_share_30d": around(0.0, 0.02),
            "decline_correlation": around(0.0, 0.3),
            "day_variation_past": np.abs(around(0.2, 0.03)),
            "day_variation_recent": np.abs(around(0.2, 0.03)),
            "peak_share_t": around(0.0, 1.5),
            "hourly_change_t": around(0.0, 1.5),
            "hourly_variation_t": around(0.0, 1.5),
            "profile_distance": np.abs(around(0.06, 0.015)),
            "recent_profile_distance": np.abs(around(0.05, 0.015)),
            "profile_correlation": np.clip(around(0.93, 0.02), -1, 1),
            "reversed_correlation": around(-0.3, 0.05),
            "peer_distance_past": np.abs(around(0.1, 0.02)),
            "peer_distance_recent": np.abs(around(0.1, 0.02)),
            "profile_spread_past": np.abs(around(0.15, 0.01)),
            "profile_spread_recent": np.abs(around(0.15, 0.01)),
            "peak_share_past": around(0.42, 0.02),
            "peak_share_recent": around(0.42, 0.02),
            "quiet_share_past": around(0.14, 0.01),
            "quiet_share_recent": around(0.14, 0.01),
            "hourly_change_past": np.abs(around(0.8, 0.02)),
            "hourly_change_recent": np.abs(around(0.8, 0.02)),
            "hourly_variation_past": np.abs(around(0.9, 0.02)),
            "hourly_variation_recent": np.abs(around(0.9, 0.02)),
            "hourly_variation_before_drop": np.abs(around(0.9, 0.02)),
            "hourly_variation_since_drop": np.abs(around(0.9, 0.02)),
            "zero_share_past": np.full(meters, 0.01),
            "zero_share_recent": np.full(meters, 0.01),
            "zero_day_share_past": np.full(meters, 0.02),
            "zero_day_share_recent": np.full(meters, 0.02),
            "repeated_share_past": np.full(meters, 0.02),
            "repeated_share_recent": np.full(meters, 0.02),
            "base_power_before_drop_kw": kwh / 24 / 4,
            "base_power_since_drop_kw": kwh / 24 / 4,
            "base_power_past_kw": kwh / 24 / 4,
            "repeated_day_kwh_recent": kwh,
            "vacant_share_recent": np.zeros(meters),
            "peak_power_recent_kw": kwh / 3,
            "contracted_power_kw": kwh,
            "strange_reading_share": np.abs(around(0.01, 0.003)),
            "transformer_unexplained_share": np.full(meters, 0.01),
            "unexplained_rise_kwh": around(0.0, 0.3),
            "unexplained_rise_t": around(0.0, 1.0),
            "unexplained_correlation": around(0.0, 0.3),
            "tariff_per_kwh": np.full(meters, 90.0),
        }
    )
    return frame.with_columns(
        pl.lit(17).alias("week_count"),
        pl.lit(4).alias("recent_week_count"),
        pl.lit(5).alias("weeks_since_drop"),
        pl.lit(None, pl.Float64).alias("kwh_after_disconnection"),
        pl.lit(None, pl.Float64).alias("outage_hours_since_drop"),
        pl.lit(AS_OF).alias("as_of_date"),
        pl.lit(AS_OF).alias("last_date"),
        pl.lit(CHANGE).alias("drop_date"),
        pl.lit(CHANGE).alias("shape_date"),
        pl.lit(None, pl.Date).alias("valid_to"),
        pl.lit(None, pl.String).alias("replaced_by"),
        pl.lit(None, pl.Date).alias("replacement_date"),
        pl.lit("t1").alias("transformer_id"),
        pl.lit("XOF").alias("currency"),
    )


def with_strange(**changed: object) -> pl.DataFrame:
    """The fleet with one more meter, the median of all but for what is `changed`."""
    fleet = ordinary_fleet()
    numbers = [name for name, kind in fleet.schema.items() if kind.is_float()]
    middle = fleet[:1].with_columns(pl.lit(fleet[name].median()).alias(name) for name in numbers)
    strange = middle.with_columns(
        pl.lit(STRANGE).alias("meter_id"),
        *(pl.lit(value, fleet.schema[name]).alias(name) for name, value in changed.items()),
    )
    return pl.concat([fleet, strange])


def dropped(share: float = 0.6, kwh: float = 6.0, **changed: object) -> dict[str, object]:
    """What changes of a meter that falls by a share at once and stays there."""
    return {
        "mean_kwh": kwh * (1 - share / 2),
        "drop_share": share,
        "drop_t": 9.0,
        "last_week_drop_share": share,
        "least_drop_share": share - 0.05,
        "recent_drop_share": share,
        "recent_drop_z": 6.0,
        "supplied_day_kwh_before_drop": kwh,
        "supplied_day_kwh_since_drop": kwh * (1 - share),
        "supplied_day_kwh_past": kwh,
        "supplied_day_kwh_recent": kwh * (1 - share),
        "base_power_before_drop_kw": kwh / 24 / 4,
        "base_power_since_drop_kw": kwh / 24 / 4 * (1 - share),
        "base_power_past_kw": kwh / 24 / 4,
        "repeated_day_kwh_recent": kwh * (1 - share),
    } | changed
