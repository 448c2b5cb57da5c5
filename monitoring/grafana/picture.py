"""Pictures of the dashboards without Grafana: their queries, asked of a monitoring that runs, and plotted by ourselves.

python -m monitoring.grafana.picture HOME MINUTES: of what happened in the last minutes, to docs/images/.
"""

import sys
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any, Final

import altair as alt
import polars as pl
import vl_convert
from playwright.sync_api import sync_playwright

from energy_iot.serving.monitoring import read_address
from energy_iot.settings import PROJECT_DIR, load_settings
from monitoring.grafana.queries import Question, Sources, read_dashboards

CAPTION: Final = "Rendered from the dashboards' queries, not Grafana itself."
IMAGES: Final = PROJECT_DIR / "docs" / "images"
COLUMN, ROW = 52, 32  # px of a unit of Grafana's grid
SHOWN_ROWS: Final = 8
THOUSAND: Final = 1000
STYLE: Final = f"""
body {{ margin: 16px; font: 13px sans-serif; background: #f4f5f5; color: #24292e; width: {24 * COLUMN}px }}
h1 {{ font-size: 20px; margin: 0 }} p {{ margin: 4px 0 12px; color: #555 }}
main {{ display: grid; grid-template-columns: repeat(24, {COLUMN}px); grid-auto-rows: {ROW}px }}
section {{ background: #fff; border: 1px solid #ddd; margin: 3px; padding: 6px 8px; overflow: hidden }}
h2 {{ font-size: 13px; margin: 0 0 4px }} h3 {{ font-size: 15px; margin: 8px 3px 0 }}
.number {{ font-size: 30px; margin-top: 14px }}
.bar {{ display: grid; grid-template-columns: 42% 38% 20%; gap: 6px; line-height: 22px; white-space: nowrap }}
.bar span {{ overflow: hidden; text-overflow: ellipsis }}
.bar i {{ background: #56a64b; height: 12px; margin-top: 5px }}
table {{ border-collapse: collapse; width: 100%; font-size: 12px }}
td, th {{ text-align: left; padding: 2px 8px 2px 0; white-space: nowrap; max-width: 420px; overflow: hidden }}
"""

Series = list[tuple[str, list[tuple[float, float]]]]  # name, then instant (Unix time, s) and value


def main() -> None:
    """Draw all dashboards."""
    home, minutes = Path(sys.argv[1]), float(sys.argv[2])
    address = read_address(load_settings(home=home))
    if address.database is None:
        raise SystemExit("no way to PostgreSQL is set")
    sources = Sources(address.url("prometheus"), address.database, address.interval_seconds)
    end = time.time()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        for name, dashboard in read_dashboards().items():
            page = browser.new_page(viewport={"width": 24 * COLUMN + 32, "height": 600})
            page.set_content(_page(name, dashboard, sources, end - minutes * 60, end))
            page.screenshot(path=IMAGES / f"grafana_{name}.png", full_page=True)
        browser.close()


def _page(name: str, dashboard: dict[str, Any], sources: Sources, start: float, end: float) -> str:
    parts = []
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        box = f"grid-column: {place['x'] + 1} / span {place['w']}; grid-row: {place['y'] + 1} / span {place['h']}"
        if panel["type"] == "row":
            parts.append(f'<h3 style="{box}">{escape(panel["title"])}</h3>')
            continue
        answers = [
            (target, sources.ask(Question(name, panel, target), start=start, end=end)) for target in panel["targets"]
        ]
        inside = _table(answers[0][1]) if panel["type"] == "table" else _drawn(panel, _series(answers), start, end)
        parts.append(f'<section style="{box}"><h2>{escape(panel["title"])}</h2>{inside}</section>')
    return (
        f"<style>{STYLE}</style><h1>{escape(dashboard['title'])}</h1><p>{CAPTION} "
        f"{datetime.fromtimestamp(end, UTC):%Y-%m-%d %H:%M} UTC</p><main>{''.join(parts)}</main>"
    )


def _series(answers: Iterable[tuple[dict[str, Any], list[dict[str, Any]]]]) -> Series:
    found: dict[str, dict[float, float]] = {}
    for target, rows in answers:
        if "expr" not in target:
            for row in rows:
                at = row["time"].replace(tzinfo=UTC).timestamp()
                found.setdefault(row["metric"], {})[at] = float(row["value"])
            continue
        for row in sorted(rows, key=lambda one: one["values"][0][0]):  # of one name, what began last goes on
            legend = target["legendFormat"]
            for label, value in row["metric"].items():
                legend = legend.replace(f"{{{{{label}}}}}", value)
            found.setdefault(legend, {}).update((float(at), float(value)) for at, value in row["values"])
    return [(name, sorted(points.items())) for name, points in found.items()]


def _drawn(panel: dict[str, Any], series: Series, start: float, end: float) -> str:
    unit = panel["fieldConfig"]["defaults"]["unit"]
    if not series:
        return "<p>no data</p>"
    if panel["type"] == "stat":
        name, points = max(series, key=lambda one: one[1][-1][0])
        shown = name if panel["options"]["textMode"] == "name" else _text(points[-1][1], unit)
        return f'<div class="number">{escape(shown)}</div>'
    if panel["type"] == "bargauge":
        latest = sorted(((name, points[-1][1]) for name, points in series), key=lambda one: -one[1])
        largest = max(max(value for _, value in latest), panel["fieldConfig"]["defaults"].get("max") or 0) or 1
        return "".join(
            f'<div class="bar"><span>{escape(name)}</span><i style="width: {value / largest:.0%}"></i>'
            f"<span>{_text(value, unit)}</span></div>"
            for name, value in latest
        )
    return _lines(panel, series, unit, start, end)


def _lines(panel: dict[str, Any], series: Series, unit: str, start: float, end: float) -> str:
    frame = pl.DataFrame(
        [
            {"at": datetime.fromtimestamp(at, UTC).replace(tzinfo=None), "value": value, "series": name}
            for name, points in series
            for at, value in points
        ]
    )
    place = panel["gridPos"]
    is_large = max(frame["value"]) >= THOUSAND
    axis = {"percentunit": ".1~%", "bytes": ".2s"}.get(unit, "~s" if is_large else "~r")
    chart = (
        alt.Chart(frame)
        .mark_line(interpolate="step-after", point="time" in str(panel["targets"][0].get("rawSql")))
        .encode(
            x=alt.X(
                "at:T",
                title=None,
                scale=alt.Scale(
                    domain=[datetime.fromtimestamp(at, UTC).isoformat() for at in (start, end)], type="utc"
                ),
                axis=alt.Axis(format="%H:%M", tickCount=6, labelOverlap="greedy", labelSeparation=8),
            ),
            y=alt.Y("value:Q", title={"s": "s", "ops": "1/s"}.get(unit), axis=alt.Axis(format=axis, tickCount=4)),
            color=alt.Color("series:N", title=None, legend=alt.Legend(orient="right", labelLimit=150)),
        )
        .properties(width=place["w"] * COLUMN - 240, height=place["h"] * ROW - 80)
    )
    return str(vl_convert.vegalite_to_svg(chart.to_json()))


def _table(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return "<p>no data</p>"
    head = "".join(f"<th>{escape(name)}</th>" for name in rows[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(_cell(value))}</td>" for value in row.values()) + "</tr>"
        for row in rows[:SHOWN_ROWS]
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _cell(value: object) -> str:
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def _text(value: float, unit: str) -> str:
    """A value as Grafana would write it, roughly."""
    if unit == "percentunit":
        return f"{value:.1%}"
    if unit == "s":
        for seconds, name in ((86400, "days"), (3600, "hours"), (60, "min")):
            if value >= 2 * seconds:
                return f"{value / seconds:.1f} {name}"
        return f"{value:.1f} s"
    return f"{value:,.0f}" if value == int(value) else f"{value:,.3g}"


if __name__ == "__main__":
    main()
