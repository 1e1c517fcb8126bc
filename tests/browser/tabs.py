"""Tabs of a browser, and what goes wrong in them."""

from __future__ import annotations

import re

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Error, Page, expect

__all__ = ["Tabs", "join", "say"]


class Tabs:
    """The tabs of one test, each with a browser profile of its own, as different people have.

    Attributes:
        complaints: The errors and warnings of all consoles, and exceptions that nothing caught.
    """

    def __init__(self, browser: Browser) -> None:
        self.complaints: list[str] = []
        self._browser = browser
        self._contexts: list[BrowserContext] = []
        self._expected: list[re.Pattern[str]] = []

    def open(self, url: str, *, script: str = "") -> Page:
        """Open `url` in a new tab of a new profile, and wait until its scripts have run; `script` runs before them."""
        context = self._browser.new_context()
        self._contexts.append(context)
        if script:
            context.add_init_script(script)
        page = context.new_page()
        page.on("console", self._hear)
        page.on("pageerror", self._fail)
        page.goto(url)
        return page

    def expect_complaint(self, pattern: str) -> None:
        """Take it as right, from now on, that a browser complains so; `pattern` is searched for."""
        self._expected.append(re.compile(pattern))

    def close(self) -> None:
        """Close all tabs, having heard all that they have to say."""
        for context in self._contexts:
            for page in context.pages:
                # What a page has said before it answers is here before its answer is.
                page.evaluate("0")
            context.close()

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self._complain(message.text)

    def _fail(self, error: Error) -> None:
        self._complain(str(error))

    def _complain(self, text: str) -> None:
        if not any(pattern.search(text) for pattern in self._expected):
            self.complaints.append(text)


def join(page: Page, name: str, channel: str) -> None:
    """On the WebSocket page, connect as `name` and join `channel`, as people do."""
    page.fill("#name", name)
    page.click("#connect")
    expect(page.locator("#state")).to_have_attribute("data-state", "open")
    page.fill("#channel", channel)
    page.click("#join")
    expect(page.locator("#members .member-name").filter(has_text=name)).to_be_visible()


def say(page: Page, text: str) -> None:
    """On the WebSocket page, write to whom is selected."""
    page.fill("#message", text)
    page.press("#message", "Enter")
