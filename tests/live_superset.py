"""A real Superset for tests: its processes, its interface, and its dashboards in a browser."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Browser, ConsoleMessage, Page

from energy_iot.serving.superset_server import SupersetAddress, is_installed, read_address
from energy_iot.settings import load_settings
from tests.live_server import LiveServer, serving

INSTALLED = is_installed(load_settings())
NOT_INSTALLED = "Superset is not installed: make install-superset"
COUNTING_SERVICE = "scarf.sh"  # which Superset's pages report to, but for the policy that forbids it
WIDTH, HEIGHT = 1366, 5000  # a laptop's width; charts outside the window are not drawn
ALL_DRAWN = """() => {
    const charts = document.querySelectorAll('.dashboard-chart').length;
    return charts > 0
        && document.querySelectorAll('[data-test="slice-container"]').length === charts
        && !document.querySelector('[data-test="loading-indicator"], .loading');
}"""
BLANK_CHARTS = """() => {
    const colours = canvas => {
        const data = new Uint32Array(
            canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.buffer);
        return new Set(data).size;
    };
    const shows = chart => {
        if (chart.querySelector('.ant-empty, [data-test="chart-error"], .ant-alert-error')) return false;
        const canvases = [...chart.querySelectorAll('canvas')];
        if (canvases.length) return canvases.some(canvas => canvas.width && colours(canvas) > 3);
        return chart.querySelectorAll('tbody tr').length > 0 || chart.innerText.trim().length > 0;
    };
    return [...document.querySelectorAll('[data-test="slice-container"]')]
        .filter(chart => !shows(chart))
        .map(chart => chart.closest('.dashboard-chart, [data-test-chart-name]')?.innerText ?? chart.className);
}"""


@dataclass(frozen=True)
class LiveSuperset(LiveServer):
    """A Superset that runs."""

    @property
    def address(self) -> SupersetAddress:
        return read_address(self.settings)


@contextmanager
def live_superset(home: Path) -> Iterator[LiveSuperset]:
    """Start Superset on a free port; ended as a service manager ends it."""
    with serving(home, "superset") as served:
        yield LiveSuperset(home, *served)


@contextmanager
def new_page(browser: Browser) -> Iterator[tuple[Page, list[str]]]:
    """A page of a session of its own, and what the browser complains of."""
    context = browser.new_context(viewport={"width": WIDTH, "height": HEIGHT})
    page, messages = context.new_page(), []

    def complain(message: ConsoleMessage) -> None:
        if message.type == "error" and COUNTING_SERVICE not in message.text:
            messages.append(message.text)

    page.on("console", complain)
    page.on("pageerror", lambda error: messages.append(str(error)))
    yield page, messages
    context.close()


def log_in(page: Page, address: SupersetAddress, user: str) -> None:
    """Fill in the form as a person does."""
    page.goto(f"{address.url}/login/")
    page.fill("#username", user)
    page.fill("#password", address.passwords[user])
    page.keyboard.press("Enter")
    page.wait_for_url(lambda url: "login" not in url)


def open_dashboard(page: Page, address: SupersetAddress, slug: str) -> None:
    """Open it, and wait until its charts are drawn and stand still."""
    page.goto(f"{address.url}/superset/dashboard/{slug}/?standalone=1")
    wait_until_drawn(page)


def wait_until_drawn(page: Page) -> None:
    """Wait until no chart loads, nothing is asked any more, and two pictures in a row are the same."""
    page.wait_for_function(ALL_DRAWN, timeout=60_000)
    page.wait_for_load_state("networkidle")
    before = b""
    while (now := page.screenshot()) != before:
        before = now
        page.wait_for_timeout(300)


def blank_charts(page: Page) -> list[str]:
    """Titles of charts that show nothing: no figure, no row, a canvas of one colour, or a message in their place."""
    found: list[str] = page.evaluate(BLANK_CHARTS)
    return found
