"""The report in a real browser: both colour schemes, laptop and phone, hostile names, no script, paper."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from energy_iot.reporting.page import vega_bundle
from energy_iot.reporting.report import write_report
from energy_iot.settings import Settings
from energy_iot.storage.postgres import Postgres
from tests.chromium import CHROMIUM, NO_CHROMIUM, assert_fits, opened, running_chromium
from tests.report_fleet import Fleet, fill_tables, record_run

HOSTILE = "</script><img src=x onerror=alert(1)>"
CHARTS = ("score-chart", "meters-chart", "consumption-chart", "anomalies-chart", "heat-map")

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_chromium() as started:
        yield started


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cache = tmp_path_factory.mktemp("bundle")
    vega_bundle(cache)
    (kept,) = cache.iterdir()
    return kept


@pytest.fixture
def make_page(settings: Settings, postgres: Postgres, bundle: Path) -> Callable[..., Path]:
    """Fill the tables, write the report, give its file."""

    def make(fleet: Fleet, **run: Any) -> Path:
        (settings.home / "cache").mkdir(parents=True)
        (settings.home / "cache" / bundle.name).symlink_to(bundle)
        with postgres.connect() as connection:
            fill_tables(connection, fleet)
            record_run(connection, agreement=True, **run)
        return write_report(settings)

    return make


def marks_drawn(page: Page, chart: str) -> int:
    """Marks of a chart that have a size and a colour that is not the paper's."""
    return int(
        page.evaluate(
            """id => {
                const paper = getComputedStyle(document.body).backgroundColor;
                return [...document.querySelectorAll(`#${id} .drawing .role-mark path`)].filter(path => {
                    const box = path.getBBox(), style = getComputedStyle(path);
                    const colours = [style.fill, style.stroke].filter(colour => colour !== 'none' && colour !== paper);
                    return box.width + box.height > 0 && colours.length > 0;
                }).length;
            }""",
            chart,
        )
    )


@pytest.mark.parametrize("width", [1366, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_fleet_of_three_months(browser: Browser, make_page: Callable[..., Path], scheme: str, width: int) -> None:
    path = make_page(Fleet(meters=24, days=90, names=("a" * 120, HOSTILE, "", "&amp;", HOSTILE * 2)))
    height = 768 if width > 600 else 844
    with opened(browser, path, color_scheme=scheme, viewport={"width": width, "height": height}) as (page, seen):
        assert seen.messages == []
        assert seen.requests == [path.as_uri()]
        assert [box.get_attribute("id") for box in page.query_selector_all(".chart[data-drawn=yes]")] == list(CHARTS)
        assert_fits(page)
        drawn = {chart: marks_drawn(page, chart) for chart in CHARTS}
        assert drawn["heat-map"] >= 168
        assert drawn["score-chart"] > 1_000
        assert drawn["meters-chart"] >= 20
        assert drawn["consumption-chart"] >= 3
        assert drawn["anomalies-chart"] >= 10
        for summary in page.query_selector_all("summary"):
            summary.click()
        assert_fits(page)
        brightness = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
        assert (sum(brightness) > 600) == (scheme == "light")


@pytest.mark.parametrize(
    ("fleet", "charts"),
    [
        (Fleet(meters=1, days=1 / 48, gaps=False, anomalies=False), {"score-chart", "consumption-chart", "heat-map"}),
        (Fleet(meters=1, days=500, interval_minutes=60), set(CHARTS) - {"meters-chart"}),
        (Fleet(meters=40, days=14), set(CHARTS)),
    ],
    ids=["one reading", "one meter for more than a year", "two weeks"],
)
def test_other_fleets(browser: Browser, make_page: Callable[..., Path], fleet: Fleet, charts: set[str]) -> None:
    path = make_page(fleet, failures=True, failed_step="ge_validate_marts")
    for width in (1280, 390):
        with opened(browser, path, viewport={"width": width, "height": 800}) as (page, seen):
            assert seen.messages == []
            assert_fits(page)
            assert {box.get_attribute("id") for box in page.query_selector_all(".chart")} == charts
            assert min({chart: marks_drawn(page, chart) for chart in charts}.values()) > 0


def test_names_are_harmless_in_tooltips_too(browser: Browser, make_page: Callable[..., Path]) -> None:
    path = make_page(Fleet(meters=3, days=60, names=(HOSTILE, HOSTILE + "2", HOSTILE + "3")))
    with opened(browser, path, viewport={"width": 1366, "height": 900}) as (page, seen):
        page.locator("#meters-chart .mark-rect path").first.hover()
        tooltip = page.locator("#vg-tooltip-element.visible")
        tooltip.wait_for()
        assert HOSTILE in tooltip.inner_text()
        assert page.locator("img").count() == 0
        assert seen.messages == []
        assert seen.requests == [path.as_uri()]


def test_colours_follow_the_scheme_and_paper_is_always_light(browser: Browser, make_page: Callable[..., Path]) -> None:
    path = make_page(Fleet(meters=3, days=20))
    label = "getComputedStyle(document.querySelector('#heat-map .role-axis-label text')).fill"
    with opened(browser, path, color_scheme="light") as (page, seen):
        light = page.evaluate(label)
        page.emulate_media(color_scheme="dark")
        assert page.evaluate(label) != light
        page.emulate_media(color_scheme="dark", media="print")
        assert page.evaluate(label) == light
        assert len(page.pdf()) > 50_000
        assert seen.messages == []


def test_without_script_the_figures_are_there(browser: Browser, make_page: Callable[..., Path]) -> None:
    path = make_page(Fleet(meters=12, days=30))
    with opened(browser, path, java_script_enabled=False, viewport={"width": 390, "height": 844}) as (page, _):
        assert page.locator(".chart:visible").count() == 0
        for text in ("strangest readings, and why", "on an average day", "Highest on", "The last run"):
            assert page.get_by_text(text).first.is_visible(), text
        page.locator("summary", has_text="Figures by month").click()
        assert page.get_by_text("December 2025", exact=True).is_visible()
        assert_fits(page)
