"""A real browser, headless: the machine's Chromium, driven by Playwright."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
MISSING = "NONE, so its tests were skipped (Debian: apt install chromium)"


@contextmanager
def chromium() -> Iterator[Any]:
    """Start it, with whatever sandbox this machine allows."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        yield browser
        browser.close()


class Tab:
    """A page of a browser's context of its own. It notes what went wrong, and what it asked of others."""

    def __init__(self, browser: Any, origin: str, **context: Any) -> None:
        given = {"viewport": {"width": 1440, "height": 900}, **context}
        self.context = browser.new_context(base_url=origin, **given)
        self.page = self.context.new_page()
        self.wrong: list[str] = []
        self.page.on("console", lambda message: self._note(message))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("request", lambda request: self._check(request.url, origin))

    def _note(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.wrong.append(message.text)

    def _check(self, url: str, origin: str) -> None:
        if not url.startswith((origin, "data:")):
            self.wrong.append(f"asked {url}")

    def go(self, path: str) -> Any:
        self.page.goto(path)
        return self.page

    def overflow(self) -> int:
        """By how many pixels the page is wider than the window."""
        return int(
            self.page.evaluate(
                "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            )
        )

    def cut_buttons(self) -> list[str]:
        """The buttons that their card, or the window, cuts off at the right."""
        cut = """[...document.querySelectorAll('button, .button, nav a')].filter(each => {
            const card = each.closest('.card') || document.documentElement
            const edge = card.getBoundingClientRect().left + card.clientLeft + card.clientWidth
            return each.getBoundingClientRect().right > edge + 0.5
        }).map(each => each.textContent.trim())"""
        return [str(text) for text in self.page.evaluate(cut)]

    def close(self) -> None:
        self.context.close()
        assert self.wrong == []
