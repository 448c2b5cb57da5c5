"""Charts of one meter as Vega-Lite specifications, in the manner of charts.py."""

from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any, Final

import altair as alt

from energy_iot.ml.explain import Explanation

Spec = dict[str, Any]
Values = list[dict[str, Any]]

HALF_DAY_MS: Final = 43_200_000
Y_AXIS_WIDTH: Final = 52  # the same for charts over the same time, so that their days line up
REGISTERED, EXPECTED = "registered", "expected"
BEFORE, SINCE, PEERS = "before", "since", "peers"
COLOURS: Final = {
    REGISTERED: "var(--energy)", EXPECTED: "var(--other)",
    BEFORE: "var(--other)", SINCE: "var(--energy)", PEERS: "var(--low)",
}  # fmt: skip


def days_chart(explanation: Explanation) -> Spec:
    """Energy of each day, and what own past and peers let expect, kWh."""
    values: Values = []
    for one, expected in zip(explanation.days, explanation.expected_kwh(), strict=True):
        at = {"middle": _ms(one.day) + HALF_DAY_MS, "label": one.day.isoformat()}
        values.append(at | {"series": REGISTERED, "kwh": _number(one.registered_kwh)})
        if expected is not None:
            values.append(at | {"series": EXPECTED, "kwh": _number(expected)})
    lines = (
        alt.Chart(alt.InlineData(values=values))
        .mark_line(strokeWidth=1.8, interpolate="monotone")
        .encode(
            x=_time_axis(explanation),
            y=alt.Y("kwh:Q", axis=alt.Axis(title="kWh a day", tickCount=5, format=",~r", minExtent=Y_AXIS_WIDTH)),
            color=_series((REGISTERED, EXPECTED)),
            strokeDash=alt.StrokeDash(
                "series:N", scale=alt.Scale(domain=[REGISTERED, EXPECTED], range=[[1, 0], [5, 4]]), legend=None
            ),
            tooltip=[
                alt.Tooltip("label:N", title="Day"),
                alt.Tooltip("series:N", title="Energy"),
                alt.Tooltip("kwh:Q", title="kWh", format=",.3~r"),
            ],
        )
    )
    return _finish(_with_change(lines, explanation.change_date), 240)


def profile_chart(explanation: Explanation) -> Spec:
    """Share of the day's energy in each three hours: before the change, since it, and of the peers."""
    profiles = {
        BEFORE: explanation.mean_shares(since=False),
        SINCE: explanation.mean_shares(since=True),
        PEERS: explanation.peer_shares,
    }
    shown = [name for name, shares in profiles.items() if shares]
    values: Values = [
        {"hour": 3 * block + 1.5, "label": f"{3 * block:02d}:00 to {3 * block + 3:02d}:00", "series": name}
        | {"percent": _number(100 * share)}
        for name in shown
        for block, share in enumerate(profiles[name] or ())
    ]
    chart = (
        alt.Chart(alt.InlineData(values=values))
        .mark_line(strokeWidth=2, point=alt.OverlayMarkDef(size=30))
        .encode(
            x=alt.X(
                "hour:Q",
                title="hour of the day, UTC",
                scale=alt.Scale(domain=[0, 24], nice=False),
                axis=alt.Axis(values=list(range(0, 25, 3)), format="d"),
            ),
            y=alt.Y("percent:Q", axis=alt.Axis(title="% of the day's energy", tickCount=4, minExtent=Y_AXIS_WIDTH)),
            color=_series(shown),
            tooltip=[
                alt.Tooltip("label:N", title="Hours"),
                alt.Tooltip("series:N", title="Profile"),
                alt.Tooltip("percent:Q", title="% of the day", format=".3~r"),
            ],
        )
    )
    return _finish(chart, 200)


def transformer_chart(explanation: Explanation) -> Spec:
    """Energy of each day that the transformer delivered and nobody's meter, nor its losses, account for, kWh."""
    values: Values = [
        {
            "middle": _ms(one.day) + HALF_DAY_MS,
            "label": one.day.isoformat(),
            "kwh": _number(one.unexplained_kwh),
            "percent": None if one.unexplained_share is None else _number(100 * one.unexplained_share),
        }
        for one in explanation.node_days
    ]
    bars = (
        alt.Chart(alt.InlineData(values=values))
        .mark_bar(color="var(--high)", width=alt.ExprRef(f"max(1, 0.8 * width / {max(1, len(explanation.days))})"))
        .encode(
            x=_time_axis(explanation),
            y=alt.Y("kwh:Q", axis=alt.Axis(title="kWh a day", tickCount=4, format=",~r", minExtent=Y_AXIS_WIDTH)),
            tooltip=[
                alt.Tooltip("label:N", title="Day"),
                alt.Tooltip("kwh:Q", title="Unexplained, kWh", format=",.3~r"),
                alt.Tooltip("percent:Q", title="% of its energy", format=".2~r"),
            ],
        )
    )
    return _finish(_with_change(bars, explanation.change_date), 150)


def _with_change(chart: alt.Chart, day: date | None) -> alt.LayerChart | alt.FacetChart:
    """The chart with a line at the change, if there is one."""
    if day is None:
        return alt.layer(chart)
    marked = alt.Chart(alt.InlineData(values=[{"middle": _ms(day), "label": f"change {day.isoformat()}"}])).encode(
        x=alt.X("middle:T")
    )
    return alt.layer(
        chart,
        marked.mark_rule(color="var(--ink)", strokeDash=[5, 4], strokeWidth=1.2),
        marked.mark_text(color="var(--ink)", align="right", baseline="top", dx=-5, fontSize=12).encode(
            y=alt.value(0), text="label:N"
        ),
    )


def _time_axis(explanation: Explanation) -> alt.X:
    days = [one.day for one in explanation.days]
    ends = [alt.DateTime(year=day.year, month=day.month, date=day.day, utc=True) for day in (days[0], days[-1])]
    return alt.X(
        "middle:T",
        title=None,
        scale=alt.Scale(type="utc", domain=ends, nice=False),
        axis=alt.Axis(format="%-d %b", labelOverlap=True, tickCount=alt.TimeIntervalStep(interval="week", step=1)),
    )


def _series(names: Sequence[str]) -> alt.Color:
    scale = alt.Scale(domain=list(names), range=[COLOURS[name] for name in names])
    return alt.Color("series:N", scale=scale, legend=None)


def _number(value: float) -> float:
    """Five significant digits: more cannot be seen, and the page stays small."""
    return float(f"{value:.5g}")


def _ms(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000)


def _finish(chart: alt.Chart | alt.LayerChart | alt.FacetChart, height: int) -> Spec:
    """As wide as the box it is put into; the page's own configuration instead of Altair's."""
    spec: Spec = chart.properties(width="container", height=height).to_dict()
    del spec["config"]
    return spec
