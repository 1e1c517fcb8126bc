"""The page of Server-Sent Events: what arrives on its stream, and what its composer sends."""

from __future__ import annotations

import json
import re

import pytest
from playwright.sync_api import Page, Route, expect

from .server import Server
from .tabs import Tabs, say

LOOP = "trio"

pytestmark = pytest.mark.xdist_group("browser")


def events(page: Page, name: str) -> list[dict[str, object]]:
    """The data of the events called `name`, in the order of the page."""
    return [json.loads(text) for text in page.locator(f"#events .event[data-event={name}] .preview").all_inner_texts()]


def test_the_stream_brings_what_others_publish(server: Server, tabs: Tabs, channel: str) -> None:
    eve = tabs.open(f"{server.url}/sse-test")
    eve.fill("#channels", channel)
    eve.fill("#name", "eve")
    eve.click("#connect")
    expect(eve.locator("#state")).to_have_attribute("data-state", "open")
    expect(eve.locator("#events .event[data-event=connected]")).to_have_count(1)

    ann = tabs.open(f"{server.url}/test?channel={channel}&user_id=ann&connect=1")
    expect(ann.locator("#members .member-name")).to_have_text(["ann", "eve"])
    expect(eve.locator("#events .event[data-event=user_joined]")).to_contain_text('"user_id":"ann"')
    said = [f"message {number}: <b>Привет</b> \u2028 line\nline" for number in range(5)]
    for text in said:
        say(ann, text)
    expect(eve.locator("#events .event[data-event=message]")).to_have_count(len(said))
    heard = events(eve, "message")
    assert [message["message"] for message in heard] == said
    assert [message["type"] for message in heard] == ["channel_message"] * len(said)

    eve.locator("#events .event[data-event=message] summary").first.click()
    expect(eve.locator("#events pre")).to_contain_text('  "type": "channel_message",')
    eve.close()
    expect(ann.locator("#members .member-name")).to_have_text(["ann"])


def test_what_is_typed_before_the_scripts_are_there_is_kept(server: Server, tabs: Tabs, channel: str) -> None:
    page = tabs.open(f"{server.url}/sse-test")
    scripts: list[Route] = []
    page.route("**/sse-test.js", lambda route: scripts.append(route))
    with page.expect_request("**/sse-test.js"):
        page.goto(f"{server.url}/sse-test?user_id=eve", wait_until="commit")
    page.fill("#channels", channel)
    scripts[0].continue_()
    page.wait_for_load_state()
    expect(page.locator("#name")).to_have_value("eve")
    expect(page.locator("#channels")).to_have_value(channel)


def test_what_is_posted_arrives_under_its_name(server: Server, tabs: Tabs, channel: str) -> None:
    page = tabs.open(f"{server.url}/sse-test?channel={channel}&user_id=eve-{channel}&event=price&connect=1")
    expect(page.locator("#state")).to_have_attribute("data-state", "open")
    expect(page.locator("#event-names")).to_have_value("price")
    for path, body in (
        ("send", {"channel": channel, "data": {"n": 1}}),
        ("send", {"channel": channel, "event": "price", "data": 2}),
        ("send", {"user_id": f"eve-{channel}", "data": 3}),
        ("notifications/channel", {"channel": channel, "title": "Ready", "content": "now", "type": "success"}),
    ):
        assert page.request.post(f"{server.url}/{path}", data=body).ok
    expect(page.locator("#events .event[data-event=notification]")).to_have_count(1)
    assert [message["data"] for message in events(page, "message")] == [{"n": 1}, 3]
    assert [message["data"] for message in events(page, "price")] == [2]
    expect(page.locator("#toasts .toast[data-type=success]")).to_contain_text("Ready")
    expect(page.locator("#event-count")).to_have_text("5")


def test_the_composer_sends_to_all_targets(server: Server, tabs: Tabs, channel: str) -> None:
    page = tabs.open(f"{server.url}/sse-test?channel={channel}&user_id=eve-{channel}&event=price&connect=1")
    expect(page.locator("#events .event[data-event=connected]")).to_have_count(1)
    expect(page.locator("#send-channel")).to_have_value(channel)
    result = page.locator("#send-result")
    for kind, name in (
        ("channel", "message"),
        ("user", "message"),
        ("broadcast", "message"),
        ("notify-channel", "notification"),
        ("notify-user", "notification"),
        ("notify-broadcast", "notification"),
    ):
        page.select_option("#send-kind", kind)
        if kind.endswith("user"):
            page.fill("#send-user", f"eve-{channel}")
        if name == "notification":
            page.fill("#notify-title", "Title")
        page.fill("#send-message", f"by {kind}")
        page.click("#send")
        arrived = page.locator(f"#events .event[data-event={name}]").filter(has_text=f'"by {kind}"')
        expect(arrived).to_have_count(1)
        expect(result).to_have_attribute("data-ok", "true")
        # The result is of this very message, since it tells its id.
        expect(result.locator(".tag")).to_have_text("200")
        meta = json.loads(arrived.locator(".preview").inner_text())["meta"]
        expect(result.locator("pre")).to_contain_text(json.dumps(meta["id"]))

    page.select_option("#send-kind", "channel")
    page.fill("#send-message", '{"data": [1, 2], "type": "numbers"}')
    page.fill("#send-event", "price")
    page.press("#send-message", "Control+Enter")
    expect(page.locator("#events .event[data-event=price]")).to_contain_text('"data":[1,2]')


def test_a_send_that_is_refused_says_why(server: Server, tabs: Tabs) -> None:
    tabs.expect_complaint("status of 422")
    page = tabs.open(f"{server.url}/sse-test")
    page.fill("#send-channel", "$users")
    page.fill("#send-message", "hello")
    page.click("#send")
    result = page.locator("#send-result")
    expect(result).to_have_attribute("data-ok", "false")
    expect(result.locator(".tag")).to_have_text(re.compile(r"^422 \w+$"))
    expect(result.locator("pre")).to_contain_text("begin with '$'")
    expect(page.locator("#send")).to_be_enabled()


def test_a_stream_that_is_refused_says_why_and_stays_closed(server: Server, tabs: Tabs) -> None:
    tabs.expect_complaint("status of 4")
    page = tabs.open(f"{server.url}/sse-test?channel=$users&connect=1")
    expect(page.locator("#state-reason")).to_contain_text("The server answered 4")
    expect(page.locator("#state")).to_have_attribute("data-state", "closed")
    expect(page.locator("#connect")).to_have_text("Connect")
