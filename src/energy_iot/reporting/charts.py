"""The report's charts as Vega-Lite specifications: pure functions of its data.

Colours are CSS variables of the page, so that light, dark and paper need no second drawing; times are UTC milliseconds.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from typing import Any, Final, Literal

import altair as alt

from energy_iot.reporting import formats
from energy_iot.reporting.report_data import KINDS, Day, HourOfWeek, MeterAnomalies, ScoredReading, Scores

Spec = dict[str, Any]
Values = list[dict[str, Any]]

BARS_UP_TO_DAYS: Final = 62  # beyond, a line with its seven-day mean
WEEKS_BEYOND_DAYS: Final = 400  # beyond, anomalies are counted by week
WEEKLY_LINE_BEYOND_DAYS: Final = 1_600  # beyond, consumption is drawn by week too
DAY_MS: Final = 86_400_000
WEEKDAYS: Final = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
HEAT_STEPS: Final = 8
# skewed beyond this ratio of largest to median, most readings would sit on the axis
SQUARE_ROOT_ABOVE: Final = 12
Y_AXIS_WIDTH: Final = 52  # the same for charts over the same time, so that their days line up

# ticks for spans of up to so many days: interval, step, format
TICKS: Final[tuple[tuple[float, tuple[Literal["day", "week", "month", "year"], int, str]], ...]] = (
    (21, ("day", 2, "%-d %b")),
    (120, ("week", 1, "%-d %b")),
    (200, ("month", 1, "%b %Y")),
    (800, ("month", 3, "%b %Y")),
    (2200, ("month", 6, "%b %Y")),
    (math.inf, ("year", 1, "%Y")),
)

LOOKS: Final[dict[str | None, tuple[str, str, str]]] = {
    None: ("other reading", "circle", "var(--other)"),
    "high_consumption": ("high consumption", "triangle-up", "var(--high)"),
    "low_consumption": ("low consumption", "triangle-down", "var(--low)"),
    "unusual_pattern": ("unusual pattern", "diamond", "var(--unusual)"),
}

_FONT: Final = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', Arial, sans-serif"

CONFIG: Final[Spec] = {
    "background": "transparent",
    "aria": False,  # the figure around each chart carries its description
    "font": _FONT,
    "padding": 2,
    "view": {"stroke": None},
    "axis": {
        "domainColor": "var(--rule-strong)",
        "tickColor": "var(--rule-strong)",
        "gridColor": "var(--rule)",
        "labelColor": "var(--muted)",
        "titleColor": "var(--muted)",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "labelPadding": 6,
        "titlePadding": 8,
    },
    "axisY": {
        "domain": False,
        "ticks": False,
        "titleAngle": 0,
        "titleAlign": "left",
        "titleAnchor": "start",
        "titleX": 0,
        "titleY": -12,
        "titleBaseline": "bottom",
    },
    "axisX": {"grid": False},
}


@dataclass(frozen=True)
class Curve:
    """A line for an SVG of `width` by `height`, y pointing down, and where its highest point is."""

    width: int
    height: int
    line: str
    peak_x: float
    peak_hour: int
    peak_kw: float
    lowest_kw: float


def consumption_chart(days: Sequence[Day], *, min_completeness: float) -> Spec:
    """Energy of the fleet by day: bars for up to two months, then a line with its mean of seven days."""
    weekly = _span_days(days) > WEEKLY_LINE_BEYOND_DAYS
    periods = by_week(days) if weekly else list(days)
    size, unit = formats.energy_unit(max(day.consumption_kwh for day in periods))
    title = f"{unit} a {'week' if weekly else 'day'}"
    length = 7 if weekly else 1
    scale, axis = _time_axis(days)
    y_axis = alt.Axis(title=title, tickCount=5, format="~s" if unit == "GWh" else ",~r", minExtent=Y_AXIS_WIDTH)
    values = _day_values(periods, size, length, min_completeness)
    tooltip = [
        alt.Tooltip("label:N", title="Week from" if weekly else "Day"),
        alt.Tooltip("energy:Q", title=unit, format=",.4~r"),
        alt.Tooltip("complete:N", title="Readings received"),
        alt.Tooltip("meters:Q", title="Meters", format=","),
    ]
    if _span_days(days) <= BARS_UP_TO_DAYS:
        chart = (
            alt.Chart(_inline(values))
            .mark_bar(color="var(--energy)", stroke="var(--energy)", strokeWidth=1, width=_bar_width(days, length))
            .encode(
                x=alt.X("middle:T", title=None, scale=scale, axis=axis),
                y=alt.Y("energy:Q", axis=y_axis),
                fillOpacity=alt.condition("datum.partial", alt.value(0.15), alt.value(0.9)),
                tooltip=tooltip,
            )
        )
        return _finish(chart, 260)
    base = alt.Chart(_inline(_with_means(values, length))).encode(
        x=alt.X("middle:T", title=None, scale=scale, axis=axis)
    )
    y = alt.Y("energy:Q", axis=y_axis, scale=alt.Scale(zero=True))
    nearest = alt.selection_point(nearest=True, on="pointermove", clear="pointerout", fields=["middle"], empty=False)
    lines = [
        base.mark_line(color="var(--energy)", strokeWidth=1, opacity=0.45).encode(y=y),
        base.mark_line(color="var(--energy)", strokeWidth=2.5).encode(y=alt.Y("mean:Q", axis=y_axis)),
        base.mark_rule(color="var(--rule-strong)", strokeWidth=1)
        .encode(
            opacity=alt.condition(nearest, alt.value(1), alt.value(0)),
            tooltip=[
                *tooltip[:2],
                alt.Tooltip("mean:Q", title=f"Mean of {7 if not weekly else 28} days", format=",.4~r"),
                *tooltip[2:],
            ],
        )
        .add_params(nearest),
    ]
    if any(value["partial"] for value in values):
        hollow = base.mark_point(size=42, color="var(--energy)", fill="var(--paper)", strokeWidth=1.5, opacity=1)
        lines.insert(2, hollow.transform_filter("datum.partial && datum.energy !== null").encode(y=y))
    return _finish(alt.layer(*lines), 260)


def anomalies_chart(days: Sequence[Day]) -> Spec:
    """Anomalies by day, or by week over more than about a year."""
    weekly = _span_days(days) > WEEKS_BEYOND_DAYS
    periods = by_week(days) if weekly else list(days)
    length = 7 if weekly else 1
    scale, axis = _time_axis(days)
    values: Values = [
        {
            "middle": _ms(day.day) + DAY_MS * length // 2,
            "label": f"{day.day:%a} {formats.day(day.day)}",
            "kind": LOOKS[kind][0],
            "anomalies": getattr(day, kind),
            "share": formats.share((day.anomalies or 0) / day.reading_count if day.reading_count else None),
        }
        for day in periods
        for kind in KINDS
        if getattr(day, kind)
    ]
    top = max((day.anomalies or 0 for day in periods), default=1)
    y_axis = alt.Axis(
        title=f"anomalies a {'week' if weekly else 'day'}", tickCount=min(4, top), format="~s" if top > 9999 else ",d",
        minExtent=Y_AXIS_WIDTH,
    )  # fmt: skip
    chart = (
        alt.Chart(_inline(values))
        .mark_bar(width=_bar_width(days, length), clip=True)
        .encode(
            x=alt.X("middle:T", title=None, scale=scale, axis=axis),
            y=alt.Y("anomalies:Q", axis=y_axis),
            color=_kind_colour(),
            tooltip=[
                alt.Tooltip("label:N", title="Week from" if weekly else "Day"),
                alt.Tooltip("kind:N", title="Type"),
                alt.Tooltip("anomalies:Q", title="Anomalies", format=","),
                alt.Tooltip("share:N", title="All types, of readings"),
            ],
        )
    )
    return _finish(chart, 130)


def heat_map(week: Sequence[HourOfWeek]) -> Spec:
    """Mean power of one meter by hour and weekday (UTC), Monday first."""
    values: Values = [
        {
            "day": WEEKDAYS[cell.day_of_week][:3],
            "hour": cell.hour_of_day,
            "power": _number(cell.avg_power_kw),
            "label": f"{WEEKDAYS[cell.day_of_week]} {cell.hour_of_day:02d}:00\u2013{cell.hour_of_day + 1:02d}:00",
            "readings": cell.reading_count,
        }
        for cell in week
        if math.isfinite(cell.avg_power_kw)
    ]
    chart = (
        alt.Chart(_inline(values))
        .mark_rect(stroke="var(--paper)", strokeWidth=1.5, cornerRadius=2)
        .encode(
            x=alt.X(
                "hour:O",
                title="hour of the day, UTC",
                scale=alt.Scale(domain=list(range(24))),
                axis=alt.Axis(
                    values=list(range(0, 24, 3)),
                    labelExpr="datum.value + ':00'",
                    labelAngle=0,
                    ticks=False,
                    domain=False,
                ),
            ),
            y=alt.Y(
                "day:O",
                title=None,
                scale=alt.Scale(domain=[day[:3] for day in (*WEEKDAYS[1:], WEEKDAYS[0])]),
                axis=alt.Axis(labelPadding=8),
            ),
            color=alt.Color(
                "power:Q",
                scale=alt.Scale(
                    type="quantize",
                    domain=heat_bounds(week),
                    range=[f"var(--heat-{step})" for step in range(1, HEAT_STEPS + 1)],
                ),
                legend=None,
            ),
            tooltip=[
                alt.Tooltip("label:N", title="Hour"),
                alt.Tooltip("power:Q", title="kW", format=",.3~r"),
                alt.Tooltip("readings:Q", title="Readings", format=","),
            ],
        )
    )
    return _finish(chart, 7 * 32)


def heat_bounds(week: Sequence[HourOfWeek]) -> tuple[float, float]:
    """Least and most of the colour scale of `heat_map`, kW."""
    powers = [cell.avg_power_kw for cell in week if math.isfinite(cell.avg_power_kw)]
    low, high = min(powers, default=0.0), max(powers, default=0.0)
    return (low, high) if low < high else (min(0.0, low), max(high, 1e-9))  # one value is no scale


def score_chart(scores: Scores, *, threshold: float) -> Spec:
    """Score against consumption: the highest anomalies and a sample of the others, with the threshold."""
    # anomalies last: drawn on top of the crowd
    values: Values = [_point(reading) for reading in (*scores.others, *reversed(scores.top)) if _is_finite(reading)]
    kinds = [kind for kind in LOOKS if any(value["kind"] == LOOKS[kind][0] for value in values)]
    consumption = sorted(value["kwh"] for value in values)
    skewed = (
        bool(consumption)
        and consumption[0] >= 0
        and consumption[-1] > SQUARE_ROOT_ABOVE * max(consumption[len(consumption) // 2], 1e-9)
    )
    names = [LOOKS[kind][0] for kind in kinds]
    lowest = min([threshold, *(value["score"] for value in values)])
    highest = max([threshold, *(value["score"] for value in values)])
    margin = max(0.01, (highest - lowest) * 0.06)
    points = (
        alt.Chart(_inline(values))
        .mark_point(filled=True, size=34)
        .encode(
            x=alt.X(
                "kwh:Q",
                title="consumption of the reading, kWh" + (" (square-root scale)" if skewed else ""),
                scale=alt.Scale(type="sqrt" if skewed else "linear", zero=skewed, nice=True),
                axis=alt.Axis(format=",~r", tickCount=alt.ExprRef("max(3, width / 110)"), labelOverlap=True),
            ),
            y=alt.Y(
                "score:Q",
                axis=alt.Axis(title="anomaly score, 0 to 1", tickCount=6, minExtent=34),
                scale=alt.Scale(domain=[max(0, lowest - margin), min(1, highest + margin)], nice=False, zero=False),
            ),
            color=alt.Color(
                "kind:N",
                scale=alt.Scale(domain=names, range=[LOOKS[kind][2] for kind in kinds]),
                legend=None,
            ),
            shape=alt.Shape(
                "kind:N",
                scale=alt.Scale(domain=names, range=[LOOKS[kind][1] for kind in kinds]),
                legend=None,
            ),
            opacity=alt.condition(f"datum.kind === '{LOOKS[None][0]}'", alt.value(0.4), alt.value(0.9)),
            tooltip=[
                alt.Tooltip("meter:N", title="Meter"),
                alt.Tooltip("time:N", title="Time, UTC"),
                alt.Tooltip("kwh:Q", title="kWh", format=",.4~r"),
                alt.Tooltip("score:Q", title="Score", format=".3f"),
                alt.Tooltip("kind:N", title="Type"),
            ],
        )
    )
    line = alt.Chart(_inline([{"threshold": _number(threshold), "label": f"threshold {threshold:.3g}"}])).encode(
        y=alt.Y("threshold:Q")
    )
    layers = [
        points,
        line.mark_rule(color="var(--ink)", strokeDash=[5, 4], strokeWidth=1.2),
        line.mark_text(color="var(--ink)", align="right", baseline="bottom", dy=-4, fontSize=12).encode(
            x=alt.value("width"), text="label:N"
        ),
    ]
    return _finish(alt.layer(*layers), 340)


def meters_chart(meters: Sequence[MeterAnomalies], *, fleet_share: float) -> Spec:
    """Share of anomalous readings by type, of the meters where it is highest, with the fleet's share."""
    totals: Values = [
        {"meter": meter.meter_id, "percent": _number(meter.share * 100), "label": formats.share(meter.share)}
        for meter in meters
    ]
    parts: Values = [
        {
            "meter": meter.meter_id,
            "percent": _number(getattr(meter, kind) / meter.readings * 100),
            "kind": LOOKS[kind][0],
            "anomalies": getattr(meter, kind),
            "readings": meter.readings,
        }
        for meter in meters
        for kind in KINDS
        if getattr(meter, kind)
    ]
    highest = max([fleet_share * 100, *(total["percent"] for total in totals)])
    y = alt.Y(
        "meter:N",
        sort=[meter.meter_id for meter in meters],
        title=None,
        axis=alt.Axis(labelLimit=alt.ExprRef("containerSize()[0] < 480 ? 96 : 220"), labelColor="var(--ink)"),
    )
    x = alt.X(
        "percent:Q",
        title="anomalies, % of the meter's readings",
        scale=alt.Scale(domain=[0, highest], nice=False),
        axis=alt.Axis(grid=True, tickCount=5, format=".2~r"),
    )
    bars = (
        alt.Chart(_inline(parts))
        .mark_bar(height=alt.RelativeBandSize(band=0.62))
        .encode(
            y=y,
            x=x,
            color=_kind_colour(),
            tooltip=[
                alt.Tooltip("meter:N", title="Meter"),
                alt.Tooltip("kind:N", title="Type"),
                alt.Tooltip("anomalies:Q", title="Anomalies", format=","),
                alt.Tooltip("readings:Q", title="Of readings", format=","),
            ],
        )
    )
    fleet = alt.Chart(_inline([{"percent": _number(fleet_share * 100)}]))
    names = alt.Chart(_inline(totals)).encode(y=y, x=x, text="label:N")
    layers = [
        bars,
        fleet.mark_rule(color="var(--ink)", strokeDash=[5, 4], strokeWidth=1.2).encode(x="percent:Q"),
        # first in the paper's colour, wider: keeps the dashed line out of the figures
        names.mark_text(align="left", dx=6, stroke="var(--paper)", strokeWidth=5, fontSize=12, strokeJoin="round"),
        names.mark_text(align="left", dx=6, color="var(--ink)", fontSize=12),
    ]
    return _finish(alt.layer(*layers), 26 * len(totals) + 10) | {
        "padding": {
            "left": 2,
            "top": 2,
            "bottom": 2,
            "right": 16,
        },  # room for the end of the figure beside the longest bar
    }


def average_day(week: Sequence[HourOfWeek], *, width: int = 300, height: int = 92) -> Curve | None:
    """The mean power of one meter through the day, as a path to draw without a library; None with hours unknown."""
    known = [cell for cell in week if math.isfinite(cell.avg_power_kw)]
    readings, energy = [0] * 24, [0.0] * 24
    for cell in known:
        readings[cell.hour_of_day] += cell.reading_count
        energy[cell.hour_of_day] += cell.avg_power_kw * cell.reading_count
    if not all(readings):
        return None
    power = [total / number for total, number in zip(energy, readings, strict=True)]
    peak = max(power)
    if peak <= 0 or min(power) < 0:
        return None
    points = [
        (round((hour + 0.5) * width / 24, 1), round(height - value / peak * height, 1))
        for hour, value in enumerate(power)
    ]
    points = [(0, points[0][1]), *points, (width, points[-1][1])]
    hour = power.index(peak)
    return Curve(
        width=width,
        height=height,
        line="M" + "L".join(f"{x:g} {y:g}" for x, y in points),
        peak_x=points[hour + 1][0],
        peak_hour=hour,
        peak_kw=peak,
        lowest_kw=min(power),
    )


def by_week(days: Iterable[Day]) -> list[Day]:
    """Sum days to ISO weeks, dated by their Monday; `meters` is the most on one day."""
    weeks = []
    for monday, group in groupby(days, key=lambda day: day.day - timedelta(days=day.day.weekday())):
        members = list(group)
        weeks.append(
            replace(
                members[0],
                day=monday,
                consumption_kwh=sum(day.consumption_kwh for day in members),
                meters=max(day.meters for day in members),
                reading_count=sum(day.reading_count for day in members),
                # a week that starts or ends within is as incomplete as its missing days make it
                expected_reading_count=round(sum(day.expected_reading_count for day in members) * 7 / len(members)),
                **_sum_kinds(members),
            )
        )
    return weeks


def _sum_kinds(days: Sequence[Day]) -> dict[str, int | None]:
    scored = days[0].anomalies is not None
    return {kind: sum(getattr(day, kind) or 0 for day in days) if scored else None for kind in KINDS}


def _kind_colour() -> alt.Color:
    """The same colour for each type in each chart; the page draws the legend."""
    kinds = [LOOKS[kind] for kind in KINDS]
    scale = alt.Scale(domain=[name for name, _, _ in kinds], range=[colour for _, _, colour in kinds])
    return alt.Color("kind:N", scale=scale, legend=None)


def rolling_mean(values: Sequence[float | None], length: int = 7) -> list[float | None]:
    """Mean of the last `length` values; None where fewer than half of them are known.

    Example:
        >>> rolling_mean([1.0, 3.0, None, None, 8.0], 2)
        [1.0, 2.0, 3.0, None, 8.0]
    """
    means: list[float | None] = []
    for end in range(1, len(values) + 1):
        known = [value for value in values[max(0, end - length) : end] if value is not None]
        means.append(sum(known) / len(known) if known and 2 * len(known) >= min(length, end) else None)
    return means


def _day_values(periods: Sequence[Day], size: float, length: int, min_completeness: float) -> Values:
    return [
        {
            "middle": _ms(day.day) + DAY_MS * length // 2,
            "label": f"{day.day:%a} {formats.day(day.day)}",
            "energy": _number(day.consumption_kwh / size),
            "complete": formats.share(day.completeness),
            "partial": day.completeness < min_completeness,
            "meters": day.meters,
        }
        for day in periods
    ]


def _with_means(values: Values, length: int) -> Values:
    """Add the mean of seven periods (four weeks), and a row without energy for each absent period: the line breaks."""
    step = DAY_MS * length
    known = {value["middle"]: value for value in values}
    first, last = values[0]["middle"], values[-1]["middle"]
    calendar = [first + step * number for number in range(round((last - first) / step) + 1)]
    # an incomplete day tells how little was received, not how little was used
    whole = [known[at]["energy"] if at in known and not known[at]["partial"] else None for at in calendar]
    means = rolling_mean(whole, 7 if length == 1 else 4)
    return [
        {
            "middle": at,
            "energy": known[at]["energy"] if at in known else None,
            "mean": None if mean is None else _number(mean),
            "label": known[at]["label"] if at in known else formats.day(_date(at)),
            "complete": known[at]["complete"] if at in known else "none",
            "partial": known[at]["partial"] if at in known else True,
            "meters": known[at]["meters"] if at in known else 0,
        }
        for at, mean in zip(calendar, means, strict=True)
    ]


def _time_axis(days: Sequence[Day]) -> tuple[alt.Scale, alt.Axis]:
    """The same scale and axis for each chart over the days."""
    ends = [
        alt.DateTime(year=day.year, month=day.month, date=day.day, utc=True)
        for day in (days[0].day, days[-1].day + timedelta(days=1))
    ]
    scale = alt.Scale(type="utc", domain=ends, nice=False, padding=0)
    span = _span_days(days)
    if span <= 10:
        noons = [_ms(days[0].day + timedelta(days=number)) + DAY_MS // 2 for number in range(span)]
        return scale, alt.Axis(values=noons, format="%a %-d %b", ticks=False, labelOverlap=True)
    interval, step, label = next(ticks for longest, ticks in TICKS if span <= longest)
    return scale, alt.Axis(
        tickCount=alt.TimeIntervalStep(interval=interval, step=step), format=label, labelOverlap=True, labelBound=True
    )


def _bar_width(days: Sequence[Day], length: int) -> alt.ExprRef:
    """Pixels of a bar of `length` days, with some air between two."""
    return alt.ExprRef(f"max(1, min(64, 0.8 * {length} * width / {_span_days(days)}))")


def _span_days(days: Sequence[Day]) -> int:
    return (days[-1].day - days[0].day).days + 1


def _point(reading: ScoredReading) -> dict[str, Any]:
    return {
        "meter": reading.meter_id,
        "time": formats.instant(reading.reading_timestamp),
        "kwh": _number(reading.consumption_kwh),
        "score": _number(reading.anomaly_score),
        "kind": LOOKS.get(reading.anomaly_type, LOOKS["unusual_pattern"])[0],
    }


def _is_finite(reading: ScoredReading) -> bool:
    return math.isfinite(reading.consumption_kwh) and math.isfinite(reading.anomaly_score)


def _number(value: float) -> float:
    """Five significant digits: more cannot be seen, and the page stays small."""
    return float(f"{value:.5g}")


def _ms(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000)


def _date(ms: float) -> date:
    return datetime.fromtimestamp(ms / 1000, tz=UTC).date()


def _inline(values: Values) -> alt.InlineData:
    return alt.InlineData(values=values)


def _finish(chart: alt.Chart | alt.LayerChart | alt.FacetChart, height: int) -> Spec:
    """As wide as the box it is put into; the page's own `CONFIG` instead of Altair's."""
    spec: Spec = chart.properties(width="container", height=height).to_dict()
    del spec["config"]
    return spec
