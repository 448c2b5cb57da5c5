"""Take the pictures in dashboards/screenshots: the English dashboards as an analyst sees them on a laptop's width.

Usage: python -m dashboards.take_screenshots HOME
"""

import sys
from pathlib import Path

from energy_iot.serving.superset_bundle import make_bundle
from energy_iot.serving.superset_server import ANALYST
from tests.chromium import running_chromium
from tests.live_superset import WIDTH, blank_charts, live_superset, log_in, new_page, open_dashboard

SCREENSHOTS = Path(__file__).parent / "screenshots"
CONTENT_HEIGHT = "Math.ceil(document.querySelector('.grid-content').getBoundingClientRect().bottom) + 16"


def main(home: Path) -> None:
    """Fails if a chart shows nothing."""
    documents = make_bundle("en").items()
    slugs = [document["slug"] for name, document in documents if name.startswith("dashboards/")]
    SCREENSHOTS.mkdir(exist_ok=True)
    with live_superset(home) as superset, running_chromium() as browser, new_page(browser) as (page, _):
        log_in(page, superset.address, ANALYST)
        for slug in slugs:
            open_dashboard(page, superset.address, slug)
            if blank := blank_charts(page):
                raise SystemExit(f"{slug}: nothing to see in {', '.join(blank)}")
            file = SCREENSHOTS / f"{slug}.png"
            page.screenshot(path=file, clip={"x": 0, "y": 0, "width": WIDTH, "height": page.evaluate(CONTENT_HEIGHT)})
            print(file.relative_to(Path.cwd()))


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
