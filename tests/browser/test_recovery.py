"""An unmodified `EventSource`, and the WebSocket of the pages, lose nothing on the way, or are told."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from playwright.sync_api import Page, expect

from ..proxy import Proxy, proxy_to
from .server import Server
from .tabs import Tabs, say

LOOP = "asyncio"

pytestmark = pytest.mark.xdist_group("browser")

# Back-offs are short, but there are some.
_LUCK = "Math.random = () => 0.01;"

# All that an EventSource has to do is what the standard says; it is never opened again by the page.
_LISTEN = """(url) => {
  window.heard = [];
  window.opened = 0;
  window.source = new EventSource(url);
  const hear = ({ data, lastEventId }) => window.heard.push({ ...JSON.parse(data), $id: lastEventId });
  source.onopen = () => (window.opened += 1);
  source.onmessage = hear;
  source.addEventListener("gap", hear);
  return new Promise((resolve) => source.addEventListener("open", resolve, { once: true })).then(() => true);
}"""


def post(server: Server, path: str, **body: object) -> None:
    """Publish past the proxy."""
    httpx2.post(f"{server.url}/{path}", json=body, trust_env=False).raise_for_status()


def wait_until_said(server: Server, channel: str, text: str) -> None:
    until = time.monotonic() + 30
    while text not in httpx2.get(f"{server.url}/channels/{channel}/history", trust_env=False).text:
        assert time.monotonic() < until, f"nobody has said {text!r}"


def listen(page: Page, port: int, *channels: str) -> None:
    query = "&".join(f"channel={channel}" for channel in channels)
    page.evaluate(_LISTEN, f"http://127.0.0.1:{port}/realtime/events?{query}&user_id=eve")


def wait_for(page: Page, condition: str, argument: object = None) -> None:
    page.wait_for_function(condition, arg=argument, timeout=30_000)


def heard_by(page: Page) -> list[dict[str, Any]]:
    heard: list[dict[str, Any]] = page.evaluate("window.heard")
    return heard


def port_of(server: Server) -> int:
    port = urlsplit(server.url).port
    assert port is not None
    return port


def plain_page(tabs: Tabs, proxy: Proxy) -> Page:
    """Open a page that has nothing of ours, from the same origin."""
    tabs.expect_complaint("status of 404|net::ERR_")
    return tabs.open(f"http://127.0.0.1:{proxy.port}/realtime/health")


def test_an_event_source_that_is_cut_off_again_and_again(server: Server, tabs: Tabs, channel: str) -> None:
    channels = [f"{channel}-{number}" for number in range(5)]
    with proxy_to(port_of(server)) as proxy:
        page = plain_page(tabs, proxy)
        listen(page, proxy.port, *channels)
        total = 0
        for visit in range(1, 6):
            wait_for(page, "(visit) => window.opened === visit", visit)
            for _ in range(7):
                post(server, "send", channel=channels[total % 5], number=total)
                total += 1
            # Some of it may have arrived and some not.
            assert proxy.cut(reset=visit % 2 == 0) > 0
            for _ in range(4):
                post(server, "send", channel=channels[total % 5], number=total)
                total += 1
            post(server, "send", user_id="eve", number=total)
            post(server, "broadcast", number=total + 1)
            total += 2
        wait_for(page, "(total) => window.heard.length >= total", total)
        heard = [message for message in heard_by(page) if "number" in message]
        assert [message["number"] for message in heard] == list(range(total))
        assert [message["type"] for message in heard_by(page)].count("gap") == 0
        # One short line for all channels, which is the message's own id.
        ids = [message["$id"] for message in heard]
        assert ids == [message["meta"]["id"] for message in heard]
        assert max(map(len, ids)) < 24


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=lambda how: how.name)
def test_an_event_source_across_restarts(
    loop: str, how: signal.Signals, start_server: Callable[..., Server], tabs: Tabs, channel: str
) -> None:
    server = start_server(loop)
    channels = [f"{channel}-a", f"{channel}-b"]
    with proxy_to(port_of(server)) as proxy:
        page = plain_page(tabs, proxy)
        listen(page, proxy.port, *channels)
        for life in range(2):
            for number in range(4):
                post(server, "send", channel=channels[number % 2], number=10 * life + number)
            wait_for(page, "(number) => window.heard.some((message) => message.number === number)", 10 * life + 3)
            server.end(how)
            opened = page.evaluate("window.opened")
            server.restart()
            wait_for(page, "(opened) => window.opened > opened", opened)
        post(server, "send", channel=channels[0], number=100)
        wait_for(page, "window.heard.some((message) => message.number === 100)")

        def shown(message: dict[str, Any]) -> object:
            return (message["channel"], message["reason"]) if message["type"] == "gap" else message["number"]

        gaps = [(name, "foreign_token") for name in ("$broadcast", "$user:eve", *channels)]
        assert [shown(message) for message in heard_by(page)] == [0, 1, 2, 3, *gaps, 10, 11, 12, 13, *gaps, 100]
        # A gap says where the channel goes on.
        *_, last_gap, message = [each for each in heard_by(page) if each.get("channel") == channels[0]]
        assert message["meta"]["offset"] == last_gap["offset"] + 1
        assert message["meta"]["epoch"] == last_gap["epoch"]


def test_the_websocket_page_that_is_cut_off_again_and_again(server: Server, tabs: Tabs, channel: str) -> None:
    tabs.expect_complaint("WebSocket connection to|net::ERR_")
    with proxy_to(port_of(server)) as proxy:
        url = f"http://127.0.0.1:{proxy.port}/realtime/test?channel={channel}&connect=1"
        ann, bob = (tabs.open(f"{url}&user_id={name}-{channel}", script=_LUCK) for name in ("ann", "bob"))
        for page in (ann, bob):
            expect(page.locator("#members li")).to_have_count(2)
        said: list[str] = []
        for visit in range(4):
            expect(ann.locator("#state")).to_have_attribute("data-state", "open")
            # What she says does not arrive, or it does and she does not hear so: it is published once.
            proxy.stall(up=visit % 2 == 0, down=visit % 2 == 1)
            say(ann, f"ann {visit}")
            if visit % 2:
                wait_until_said(server, channel, f"ann {visit}")
            expect(ann.locator("#frames .frame[data-direction=out]", has_text=f"ann {visit}")).to_have_count(1)
            assert proxy.cut() >= 2
            post(server, "send", channel=channel, message=f"server {visit}")
            said += [f"ann {visit}", f"server {visit}"]
            for page in (ann, bob):
                expect(page.locator(".message .body")).to_have_count(len(said))
        for page in (ann, bob):
            assert sorted(page.locator(".message .body").all_inner_texts()) == sorted(said)
            assert page.locator(".notice", has_text="missing").count() == 0
            assert page.locator(".notice", has_text="missed while").count() == 0
            # Somebody who is back at once was never away.
            assert page.locator(".notice", has_text=" left").count() == 0
        assert ann.locator(".message .body").all_inner_texts() == bob.locator(".message .body").all_inner_texts()


@pytest.mark.parametrize("page_name", ["test", "sse-test"])
def test_offline_and_online_again(server: Server, tabs: Tabs, channel: str, page_name: str) -> None:
    tabs.expect_complaint("WebSocket connection to|net::ERR_")
    with proxy_to(port_of(server)) as proxy:
        url = f"http://127.0.0.1:{proxy.port}/realtime/{page_name}?channel={channel}&user_id=eve-{channel}&connect=1"
        page = tabs.open(url, script=_LUCK)
        state = page.locator("#state")
        expect(state).to_have_attribute("data-state", "open")
        if page_name == "test":
            # Connected, it joins by a command. An event stream is in its channels from the start.
            expect(page.locator("#members li")).to_have_count(1)
        post(server, "send", channel=channel, message="before")
        shown = page.locator("#frames .frame[data-type=channel_message], #events .event[data-event=message]")
        expect(shown).to_have_count(1)

        page.context.set_offline(True)
        # Chromium keeps connections that there are: this is what the cable does.
        proxy.cut()
        expect(state).to_have_attribute("data-state", "waiting")
        for text in ("while", "away"):
            post(server, "send", channel=channel, message=text)
        page.context.set_offline(False)
        expect(state).to_have_attribute("data-state", "open")
        post(server, "send", channel=channel, message="after")
        expect(shown).to_have_count(4)
        texts = [" ".join(text.split()) for text in shown.locator(".preview").all_inner_texts()]
        assert [text.partition('"message":"')[2].partition('"')[0] for text in texts] == [
            "before",
            "while",
            "away",
            "after",
        ]


def test_what_was_said_before_is_shown_on_joining(server: Server, tabs: Tabs, channel: str) -> None:
    post(server, "send", channel=channel, message="pinned", persistent=True)
    for number in range(60):
        post(server, "send", channel=channel, message=f"message {number}", persistent=number == 30)
    page = tabs.open(f"{server.url}/test?channel={channel}&user_id=ann-{channel}&connect=1")
    bodies = page.locator(".message .body")
    # As many as the page asks for, and what is kept for those who join later.
    expect(bodies).to_have_count(51)
    assert sorted(bodies.all_inner_texts()) == sorted(["pinned", *(f"message {number}" for number in range(10, 60))])
    assert page.locator(".badge:visible").count() == 0
    post(server, "send", channel=channel, message="new")
    expect(bodies.last).to_have_text("new")
    expect(bodies).to_have_count(52)
