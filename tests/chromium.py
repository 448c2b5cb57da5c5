"""The browser that pages are looked at in."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Dialog, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
NO_CHROMIUM = f"no browser: none of {', '.join(NAMES)} is installed"
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")


@dataclass
class Seen:
    """What the browser said while the page was open."""

    requests: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)


@contextmanager
def running_chromium() -> Iterator[Browser]:
    """A headless Chromium while the block runs."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Browser, path: Path, **options: Any) -> Iterator[tuple[Page, Seen]]:
    """The page with its charts drawn, in a window of its own."""
    context = browser.new_context(**options)
    page, seen = context.new_page(), Seen()
    page.on("request", lambda request: seen.requests.append(request.url))
    page.on("console", lambda message: seen.messages.append(message.text))
    page.on("pageerror", lambda error: seen.messages.append(str(error)))

    def refuse(dialog: Dialog) -> None:
        seen.messages.append(f"dialog {dialog.message}")
        dialog.dismiss()

    page.on("dialog", refuse)
    page.goto(path.as_uri())
    if options.get("java_script_enabled", True):
        page.wait_for_function("[...document.querySelectorAll('.chart')].every(box => box.dataset.drawn)")
    yield page, seen
    context.close()


def assert_fits(page: Page) -> None:
    """Nothing makes the window scroll sideways, and nothing sticks out of it but in boxes that scroll."""
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    outside = page.evaluate(
        """[...document.querySelectorAll('main *, .page > header *')].filter(element => {
            if (element.closest('.scroll') && !element.matches('.scroll')) return false;
            if (element.closest('thead')) return false;  // shown to screen readers only on a phone
            const box = element.getBoundingClientRect();
            return box.width && (box.right > document.documentElement.clientWidth + 1 || box.left < -1);
        }).map(element => element.outerHTML.slice(0, 120))"""
    )
    assert outside == []
