"""The pages fit the screens that people have, in both colour schemes, under any prefix."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, ViewportSize, expect

from .media import drop, picture, received
from .server import Server
from .tabs import Tabs, say

LOOP = "trio"

pytestmark = pytest.mark.xdist_group("browser")

_SCREENS: tuple[ViewportSize, ...] = (
    {"width": 340, "height": 700},
    {"width": 390, "height": 844},
    {"width": 820, "height": 1100},
    {"width": 1440, "height": 900},
)
# Without a place to break it.
_LONG = "Donaudampfschifffahrt" * 15


# On a phone the tabs are a row that is pushed sideways.
_TOO_WIDE = """() => [...document.querySelectorAll("html, body, main *:not(.tabs)")]
  .filter((node) => node.scrollWidth > node.clientWidth)
  .filter((node) => node.tagName === "HTML" || ["auto", "scroll"].includes(getComputedStyle(node).overflowX))
  .map((node) => `${node.tagName} ${node.id} ${node.className}`)"""


def too_wide(page: Page) -> list[str]:
    """What must be scrolled sideways, the whole page or a part of it."""
    return list(page.evaluate(_TOO_WIDE))


def lightness(page: Page) -> int:
    """How light the ground of the page is, from 0 to 765."""
    return int(
        page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).reduce((a, b) => +a + +b)")
    )


def test_nothing_is_wider_than_the_screen(server: Server, tabs: Tabs) -> None:
    channel, user = _LONG[:200], _LONG[:120]
    chat, stream = (
        tabs.open(f"{server.url}/{page}?channel={channel}&user_id={user}&connect=1") for page in ("test", "sse-test")
    )
    for page in (chat, stream):
        expect(page.locator("#state")).to_have_attribute("data-state", "open")
    say(chat, f"{_LONG} and some more words, so that there are several lines of it")
    name = f"{_LONG[:200]}.png"
    drop(chat, (name, "image/png", picture(2000, 9)))
    for page in (chat, stream):
        received(page, [name])
    tabs.expect_complaint("status of 415")
    drop(chat, (name, "image/png", b"no picture"))
    expect(chat.locator("[data-testid=upload][data-state=failed]")).to_have_count(1)
    stream.select_option("#send-kind", "notify-channel")
    stream.fill("#notify-title", _LONG)
    stream.fill("#send-message", _LONG)
    stream.uncheck("#notify-auto-hide")
    stream.click("#send")
    expect(stream.locator("#send-result")).to_be_visible()
    stream.locator(".access summary").click()
    expect(stream.locator("#event-names")).to_be_visible()
    for page, rows in ((chat, "#frames .frame"), (stream, "#events .event")):
        expect(page.locator("#toasts .toast")).to_be_visible()
        page.locator(rows).last.locator("summary").click()
        expect(page.locator(rows).last.locator("pre")).to_be_in_viewport(ratio=0.8)
        for size in _SCREENS:
            page.set_viewport_size(size)
            assert too_wide(page) == [], size
        page.emulate_media(color_scheme="light")
        assert lightness(page) > 600
        page.emulate_media(color_scheme="dark")
        assert lightness(page) < 150


def test_another_prefix(start_server: Callable[..., Server], tabs: Tabs, channel: str) -> None:
    server = start_server("asyncio", REALTIME_PREFIX="/api/v1/rt")
    assert server.url == f"{server.origin}/api/v1/rt"
    page = tabs.open(f"{server.url}/test?channel={channel}&user_id=ann&connect=1")
    expect(page.locator("#members .member-name")).to_have_text(["ann"])
    page.get_by_role("link", name="Server-Sent Events").click()
    page.wait_for_url(f"{server.url}/sse-test")
    page.fill("#channels", channel)
    page.click("#connect")
    expect(page.locator("#events .event[data-event=connected]")).to_contain_text(channel)
    page.fill("#send-channel", channel)
    page.fill("#send-message", "hello")
    page.click("#send")
    expect(page.locator("#events .event[data-event=message]")).to_contain_text("hello")
