"""Both pages come back by themselves when the server does."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from .server import Server
from .tabs import Tabs, say

LOOP = "trio"

pytestmark = pytest.mark.xdist_group("browser")

# The back-offs are drawn by lot, up to many seconds. Here the pages draw a tenth of what it could have been, which is
# still several attempts until the server is there again.
_LUCK = "Math.random = () => 0.1;"

# Keep all that an element's data-state has been.
_RECORD_STATES = """() => {
  const state = document.getElementById("state");
  window.states = [];
  new MutationObserver(() => window.states.push(state.dataset.state)).observe(state, {attributes: true});
}"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=lambda how: how.name)
def test_a_restarted_server_is_found_again(
    loop: str, how: signal.Signals, start_server: Callable[..., Server], tabs: Tabs, channel: str
) -> None:
    # Chromium tells of each attempt that fails.
    tabs.expect_complaint("net::ERR_|WebSocket connection to")
    server = start_server(loop)
    query = f"channel={channel}&channel=other&connect=1"
    ann, bob = (tabs.open(f"{server.url}/test?{query}&user_id={name}", script=_LUCK) for name in ("ann", "bob"))
    eve = tabs.open(f"{server.url}/sse-test?{query}&user_id=eve", script=_LUCK)
    for page, members in ((ann, ["ann", "bob", "eve"]), (bob, ["bob", "ann", "eve"])):
        expect(page.locator("#members .member-name")).to_have_text(members)
    say(ann, "before")
    expect(bob.locator(".message .body")).to_have_text(["before"])
    first_connection = ann.locator("#connection-id").inner_text()
    for page in (ann, bob, eve):
        page.evaluate(_RECORD_STATES)

    assert server.end(how) == (-how if how is signal.SIGKILL else 0)
    for page in (ann, bob, eve):
        expect(page.locator("#state")).to_have_attribute("data-state", "waiting")
    for page in (ann, bob):
        expect(page.locator("#send")).to_be_disabled()
        expect(page.locator("#members li")).to_have_count(0)
        expect(page.locator("#tabs li[data-joined=false]")).to_have_count(2)
        farewell = page.locator("#frames .frame[data-direction=in][data-type=disconnect]")
        if how is signal.SIGTERM:
            expect(farewell).to_contain_text('"reconnect":true')
            expect(farewell).to_contain_text('"code":1012')
        else:
            expect(farewell).to_have_count(0)
    # What the first attempts that fail have to say.
    expect(ann.locator("#state-reason")).to_have_text("Disconnected: no connection could be opened (code 1006)")
    expect(eve.locator("#events .event[data-event=disconnect]")).to_have_count(int(how is signal.SIGTERM))

    server.restart()
    for page in (ann, bob, eve):
        expect(page.locator("#state")).to_have_attribute("data-state", "open")
        states = page.evaluate("window.states")
        assert states[0] == "waiting"
        assert states[-1] == "open"
        assert set(states[1:-1]) <= {"waiting", "connecting"}
    for page in (ann, bob):
        expect(page.locator("#tabs li[data-joined=true]")).to_have_count(3)
        expect(page.locator("#state-reason")).to_be_hidden()
    expect(ann.locator("#members .member-name")).to_have_text(["ann", "bob", "eve"])
    expect(bob.locator("#members .member-name")).to_have_text(["bob", "ann", "eve"])
    assert ann.locator("#connection-id").inner_text() != first_connection

    say(ann, "after")
    expect(bob.locator(".message .body")).to_have_text(["before", "after"])
    say(bob, "all is well")
    expect(ann.locator(".message .body")).to_have_text(["before", "after", "all is well"])
    expect(eve.locator("#events .event[data-event=message]")).to_have_count(3)
    expect(eve.locator("#events .event[data-event=message]").last).to_contain_text("all is well")
