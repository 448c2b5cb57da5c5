"""Why a reading stands out, in sentences for the person who decides where a crew goes."""

import math
from typing import Final

NOTABLE_DEVIATIONS: Final = 1.0  # within one standard deviation of its habit there is nothing to tell
NOTABLE_RATIOS: Final = (0.8, 1.25)  # within a quarter of its own average neither


def explain_reading(
    consumption_kwh: float | None,
    consumption_vs_avg_ratio: float | None,
    hour_of_week_z_score: float | None,
    anomaly_type: str | None,
) -> list[str]:
    """Turn the figures of one reading into short reasons, the strongest first.

    Args:
        consumption_kwh: Energy of the interval, kWh.
        consumption_vs_avg_ratio: Consumption over the meter's own 24 h average; None where that average is 0.
        hour_of_week_z_score: Standard deviations off the meter's own history at this hour of the week; None while
            the history is too short or flat.
        anomaly_type: high_consumption, low_consumption, unusual_pattern, or None for a reading that is no anomaly.

    Returns:
        One or more phrases with numbers; empty only for a reading that is no anomaly and in which nothing is notable.

    Example:
        >>> explain_reading(2.1, 4.2, 3.14, "high_consumption")
        ['3.1 standard deviations above what this meter uses at this hour of the week', '4.2 times its own 24 h average (0.5 kWh)']
        >>> explain_reading(0.0, 0.0, None, "unusual_pattern")
        ['nothing used, while its own 24 h average is above zero', 'too little history to compare with this hour of the week']
        >>> explain_reading(0.5, 1.0, 0.1, None)
        []
    """  # noqa: E501  # the doctest shows whole lines
    consumption, ratio, z_score = map(_known, (consumption_kwh, consumption_vs_avg_ratio, hour_of_week_z_score))
    reasons = [*_against_habit(z_score), *_against_average(consumption, ratio)]
    if anomaly_type is None:
        return reasons
    if not reasons:
        reasons.append("no single figure stands out: the combination of level, spread and shares is rare")
    if z_score is None:
        reasons.append("too little history to compare with this hour of the week")
    return reasons


def _known(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _against_habit(z_score: float | None) -> list[str]:
    if z_score is None or abs(z_score) < NOTABLE_DEVIATIONS:
        return []
    side = "above" if z_score > 0 else "below"
    return [f"{_figure(abs(z_score))} standard deviations {side} what this meter uses at this hour of the week"]


def _against_average(consumption: float | None, ratio: float | None) -> list[str]:
    if consumption is not None and consumption < 0:
        return [f"{_figure(consumption)} kWh: a meter that counts backwards"]
    if ratio is None:
        return []
    if ratio == 0:
        return ["nothing used, while its own 24 h average is above zero"]
    low, high = NOTABLE_RATIOS
    if low < ratio < high:
        return []
    average = f" ({_figure(consumption / ratio)} kWh)" if consumption is not None else ""
    if ratio >= high:
        return [f"{_figure(ratio)} times its own 24 h average{average}"]
    return [f"{_share(ratio)} of its own 24 h average{average}"]


def _figure(value: float) -> str:
    """Two significant digits below ten, none of the decimals above: 0.035, 0.5, 4.2, 17, 1,250."""
    if abs(value) >= 10:
        return f"{value:,.0f}"
    return f"{float(f'{value:.2g}'):.15g}"


def _share(ratio: float) -> str:
    return "less than 1 %" if ratio < 0.01 else f"{ratio:.0%}".replace("%", " %")
