"""A real browser for tests of pages: Debian's Chromium, headless, with the network of its own services switched off."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

ARGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@contextmanager
def browsing(path: str) -> Iterator[Browser]:
    """A running browser."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGS)
        yield browser
        browser.close()


@dataclass
class Watched:
    """A page with what it asked for and what it complained of."""

    page: Page
    asked: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def shows(self, where: str) -> None:
        """Wait until the view that the address names is drawn."""
        self.page.wait_for_function("where => document.getElementById('main').dataset.shown === where", arg=where)

    def goes(self, where: str) -> None:
        """Change the address and wait for its view."""
        self.page.evaluate("where => { location.hash = where }", where)
        self.shows(where)

    def text(self, selector: str) -> str:
        """The text of the first such element."""
        return self.page.locator(selector).first.inner_text()


@contextmanager
def watching(browser: Browser, **settings: Any) -> Iterator[Watched]:
    """A new page in a profile of its own; at the end nothing may have been complained of."""
    context = browser.new_context(**settings)
    it = Watched(context.new_page())
    it.page.on("request", lambda r: it.asked.append(r.url))
    it.page.on("console", lambda m: it.complaints.append(m.text) if m.type in {"error", "warning"} else None)
    it.page.on("pageerror", lambda e: it.complaints.append(str(e)))
    try:
        yield it
        assert it.complaints == []
    finally:
        context.close()
