"""Calls go on: when both sides offer at once, when ICE restarts, a tab is loaded anew, or the server is not there."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from .call import enter, growth, open_call, peers, wait_until
from .server import Server
from .tabs import Tabs

LOOP = "asyncio"

pytestmark = pytest.mark.xdist_group("browser")

_SETTLED = "open_().every((each) => each.connectionState === 'connected' && each.signalingState === 'stable')"
# Reconnects at once, or nearly.
_LUCK = "Math.random = () => 0.1;"
_TIMES = 10
_RESTARTED = f"(known) => {_SETTLED} && !open_()[0].localDescription.sdp.includes(`ice-ufrag:${{known}}`)"


def connected_pair(server: Server, tabs: Tabs, room: str, *, script: str = "") -> tuple[Page, Page]:
    """Two who see and hear each other."""
    ann, bob = (open_call(tabs, server, name, script=script) for name in ("ann", "bob"))
    for page in (ann, bob):
        enter(page, room)
    for page in (ann, bob):
        growth(page)
    return ann, bob


def begin_anew(pages: tuple[Page, ...]) -> None:
    """Count connections and crossings from here on."""
    for page in pages:
        page.evaluate("() => { connections = open_(); crossings = 0; }")


def test_both_renegotiate_at_once_many_times(server: Server, tabs: Tabs, channel: str) -> None:
    ann, bob = pages = connected_pair(server, tabs, channel)
    begin_anew(pages)
    for number in range(1, _TIMES + 1):
        for page in pages:
            page.evaluate("held = []")
            page.evaluate("open_()[0].addTransceiver('audio', { direction: 'inactive' })")
            if number % 2:
                page.evaluate("open_()[0].restartIce()")
        # Each has made an offer before it hears of the other's.
        for page in pages:
            wait_until(page, "open_()[0].signalingState === 'have-local-offer'")
        for page in pages:
            page.evaluate("release()")
        for page in pages:
            wait_until(page, f"{_SETTLED} && open_()[0].getTransceivers().every(({{ mid }}) => mid !== null)")
        # One side gives way, and the other one ignores.
        assert sum(page.evaluate("crossings") for page in pages) >= number
    for page in pages:
        growth(page)
        assert page.evaluate("connections.length") == 1, "it is still the first one"
    ann.fill("#call-message", "still the same channel")
    ann.press("#call-message", "Enter")
    expect(bob.locator("#call-log .call-text p")).to_have_text("still the same channel")


def test_ice_is_restarted(server: Server, tabs: Tabs, channel: str) -> None:
    pages = connected_pair(server, tabs, channel)
    begin_anew(pages)
    before = [peers(page)[0]["fragment"] for page in pages]
    for who in (pages[:1], pages):
        for page in who:
            page.evaluate("open_()[0].restartIce()")
        for number, page in enumerate(pages):
            known = before[number]
            wait_until(
                page,
                _RESTARTED,
                known,
            )
            growth(page)
            before[number] = peers(page)[0]["fragment"]
    assert [page.evaluate("connections.length") for page in pages] == [1, 1]


def test_a_tab_is_loaded_anew(server: Server, tabs: Tabs, channel: str) -> None:
    pages = ann, bob, eve = tuple(open_call(tabs, server, name) for name in ("ann", "bob", ""))
    for page in pages:
        enter(page, channel)
    for page in pages:
        growth(page, 2)
    for reloaded, other in ((bob, eve), (eve, bob)):
        begin_anew((ann, other))
        tile = ann.locator(".tile:not([data-own])").filter(has_text="bob" if reloaded is bob else "anonymous")
        known_as = tile.get_attribute("data-peer")
        reloaded.reload()
        # The address knows the room, and the tab its name.
        expect(reloaded.locator("#call")).to_have_attribute("data-state", "joined")
        for page in pages:
            growth(page, 2)
        # What the two others have with each other goes on.
        for page in (ann, other):
            assert page.evaluate("connections.slice(0, 2).filter((each) => open_().includes(each)).length") == 1
        assert tile.get_attribute("data-peer") == known_as
        expect(tile).to_have_count(1)
    notes = ann.locator("#call-log .call-note").all_inner_texts()
    assert notes[3:5] == ["bob left", "bob is here"]
    for page in pages:
        expect(page.locator(".tile")).to_have_count(3)

    # A copy of the tab is somebody else.
    assert bob.evaluate("sessionStorage.length") == 0


def test_the_server_is_killed_and_comes_back(
    loop: str, start_server: Callable[..., Server], tabs: Tabs, channel: str
) -> None:
    tabs.expect_complaint("net::ERR_|WebSocket connection to")
    server = start_server(loop)
    ann, bob = pages = connected_pair(server, tabs, channel, script=_LUCK)
    begin_anew(pages)

    assert server.end(signal.SIGKILL) == -signal.SIGKILL
    for page in pages:
        expect(page.locator("#state")).to_have_attribute("data-state", "waiting")
    # Nobody in the call notices.
    for page in pages:
        growth(page)
        expect(page.locator(".tile[data-state=connected]")).to_have_count(2)
    ann.fill("#call-message", "The server is gone!")
    ann.press("#call-message", "Enter")
    expect(bob.locator("#call-log .call-text p")).to_have_text("The server is gone!")
    # Something to agree on, which takes a server.
    bob.evaluate("open_()[0].restartIce()")
    wait_until(bob, "open_()[0].signalingState === 'have-local-offer'")
    fragment = peers(ann)[0]["fragment"]

    server.restart()
    for page in pages:
        expect(page.locator("#state")).to_have_attribute("data-state", "open")
        expect(page.locator("#call-log")).to_contain_text("Connected to the server again; the call went on")
    wait_until(ann, _RESTARTED, fragment)
    for page in pages:
        growth(page)
        assert page.evaluate("connections.length") == 1, "it is still the first one"

    eve = open_call(tabs, server, "eve")
    enter(eve, channel)
    growth(eve, 2)
    for page in pages:
        growth(page, 2)
        expect(page.locator("#call-log .call-note").last).to_have_text("eve is here")


def test_what_is_said_while_one_is_away_arrives(start_server: Callable[..., Server], tabs: Tabs, channel: str) -> None:
    tabs.expect_complaint("WebSocket connection to")
    # Long enough for this machine, however busy it is.
    server = start_server("asyncio", WEBRTC_PEER_TTL="300")
    ann, bob = pages = connected_pair(server, tabs, channel, script=_LUCK)
    begin_anew(pages)
    for speaking in ((ann,), (bob,), (ann, bob)):
        fragments = [peers(page)[0]["fragment"] for page in pages]
        # Ann's WebSocket ends, and there is something to agree on before she is back.
        ann.evaluate("() => { away = true; sockets.at(-1).close(); }")
        expect(ann.locator("#state")).not_to_have_attribute("data-state", "open")
        for page in speaking:
            page.evaluate("open_()[0].restartIce()")
        for page in speaking:
            wait_until(page, "open_()[0].signalingState === 'have-local-offer'")
        ann.evaluate("away = false")
        for page, fragment in zip(pages, fragments, strict=True):
            wait_until(page, _RESTARTED, fragment)
            growth(page)
            assert page.evaluate("connections.length") == 1
    # She has missed nothing, so nobody heard that she was away.
    joined = bob.locator("#frames .frame[data-type=peer_joined]")
    assert joined.count() <= 1
    expect(joined.filter(has_text='"rejoined":true')).to_have_count(0)
