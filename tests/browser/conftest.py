"""A headless Chromium, where there is one, and pages that remember what went wrong in them."""

from __future__ import annotations

import os
import shutil

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def chromium():
    """The browser; tests are skipped, with the reason, where it or what drives it is missing."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed; `tox -e browser` has it"
    )
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip("there is no Chromium here; Debian: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        # Without a sandbox only where it cannot have one: it refuses to start as root.
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"] if os.geteuid() == 0 else [])
        yield browser
        browser.close()


class Watched:
    """A page, what it complained of, and whom it asked."""

    def __init__(self, page) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.asked: list[str] = []
        page.on(
            "console", lambda said: self.complaints.append(said.text) if said.type in ("error", "warning") else None
        )
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))

    def charts(self) -> dict[str, bool]:
        """Every chart, and whether it is drawn."""
        return self.page.evaluate(
            "Object.fromEntries([...document.querySelectorAll('.plot')].map(one => "
            "[one.dataset.figure, one.querySelectorAll('.main-svg path, .main-svg image').length > 0]))"
        )

    def overflow_px(self) -> int:
        """By how much the page is wider than its window."""
        return self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth")

    def colour(self, selector: str, name: str) -> str:
        """A colour of an element, as the browser has it."""
        return self.page.eval_on_selector(selector, f"one => getComputedStyle(one)['{name}']")


@pytest.fixture
def open_page(chromium):
    """Opens an address in a window of its own, in a theme."""
    opened = []

    def open_one(address: str, *, theme: str = "light", width: int = 1440) -> Watched:
        page = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=theme)
        opened.append(page)
        watched = Watched(page)
        page.goto(address)
        return watched

    yield open_one
    for page in opened:
        page.close()
