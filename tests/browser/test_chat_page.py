"""The WebSocket page: people who talk to each other, each in a tab."""

from __future__ import annotations

import json
import re

import pytest
from playwright.sync_api import expect

from .server import Server
from .tabs import Tabs, join, say

LOOP = "trio"

pytestmark = pytest.mark.xdist_group("browser")


def test_two_people_see_and_hear_each_other(server: Server, tabs: Tabs, channel: str) -> None:
    ann, bob = (tabs.open(f"{server.url}/test") for _ in range(2))
    join(ann, "ann", channel)
    join(bob, "bob", channel)
    for page in (ann, bob):
        expect(page.locator("#state-text")).to_have_text("Connected")
        expect(page.locator("#tabs li[data-joined=true] [data-testid=tab]").last).to_have_attribute(
            "data-channel", channel
        )
    expect(ann.locator("#members .member-name")).to_have_text(["ann", "bob"])
    expect(bob.locator("#members .member-name")).to_have_text(["bob", "ann"])
    expect(ann.locator("#members [data-me]")).to_contain_text("ann")

    conversation = [(ann, "Are you there?"), (bob, "Yes!\nПривет 🙂"), (bob, "And you?"), (ann, "Here")]
    for number, (page, text) in enumerate(conversation, 1):
        say(page, text)
        # The other has heard it before he answers, so there is one order.
        for other in (ann, bob):
            expect(other.locator(".message")).to_have_count(number)

    texts = [text for _, text in conversation]
    for page in (ann, bob):
        messages = page.locator(f'#messages .message[data-channel="{channel}"]')
        assert messages.locator(".body").all_inner_texts() == texts
        own = [speaker is page for speaker, _ in conversation]
        assert [item.get_attribute("data-own") is not None for item in messages.all()] == own
    expect(ann.locator(".message").nth(1).locator(".sender")).to_have_text("bob")
    expect(ann.locator(".message").nth(0).locator(".sender")).to_have_text("ann (you)")


def test_what_people_say_is_text_and_not_html(server: Server, tabs: Tabs, channel: str) -> None:
    evil = "<img src=x onerror=\"document.title='owned'\"><b>bold</b><script>alert(1)</script>"
    ann, bob = (tabs.open(f"{server.url}/test") for _ in range(2))
    join(ann, "ann", channel)
    join(bob, evil, channel)
    say(bob, evil)
    for page in (ann, bob):
        expect(page.locator(".message .body")).to_have_text(evil)
        expect(page.locator("main :is(img, b, script)")).to_have_count(0)
        expect(page).to_have_title(re.compile("WebSocket"))
    expect(ann.locator(".message .sender")).to_have_text(evil)


def test_who_leaves_is_gone_from_the_members(server: Server, tabs: Tabs, channel: str) -> None:
    ann, bob, eve = (
        tabs.open(f"{server.url}/test?channel={channel}&user_id={name}&connect=1") for name in ("ann", "bob", "eve")
    )
    expect(ann.locator("#members .member-name")).to_have_text(["ann", "bob", "eve"])
    bob.click(f'[data-testid=leave][data-channel="{channel}"]')
    expect(ann.locator("#members .member-name")).to_have_text(["ann", "eve"])
    expect(ann.locator(".notice").last).to_have_text("bob left")
    expect(bob.locator("#tabs [data-testid=tab]")).to_have_count(1)
    eve.close()
    expect(ann.locator("#members .member-name")).to_have_text(["ann"])
    expect(ann.locator("#members-count")).to_have_text("1")

    say(ann, "anybody?")
    expect(ann.locator(".message .body")).to_have_text("anybody?")
    # Whatever bob would have heard of that comes to him before the answer to what he asks now.
    say(bob, "an echo")
    expect(bob.locator(".message .body")).to_have_text("an echo")


def test_messages_to_one_person_and_to_everybody(server: Server, tabs: Tabs, channel: str) -> None:
    ann = tabs.open(f"{server.url}/test?user_id=ann-{channel}&connect=1")
    bob = tabs.open(f"{server.url}/test?channel={channel}&user_id=bob-{channel}&connect=1")
    expect(bob.locator("#members .member-name")).to_have_text([f"bob-{channel}"])
    ann.fill("#recipient", f"bob-{channel}")
    say(ann, "between us")
    expect(ann.locator(".message .body")).to_have_text("between us")

    # Bob looks at the channel: it is the tab that tells him.
    direct = bob.locator('#tabs [data-testid=tab][data-channel=""]')
    expect(direct.locator(".badge")).to_have_text("1")
    expect(bob.locator(".message")).to_be_hidden()
    expect(bob).to_have_title(re.compile(r"^\(1\) "))
    direct.click()
    expect(bob.locator(".message .body")).to_be_visible()
    expect(bob.locator(".message .tag")).to_have_text("to you")
    expect(direct.locator(".badge")).to_be_hidden()

    assert bob.request.post(f"{server.url}/broadcast", data={"message": "to all"}).ok
    for page in (ann, bob):
        expect(page.locator(".message[data-type=broadcast] .body")).to_have_text("to all")
        expect(page.locator(".message[data-type=broadcast] .sender")).to_have_text("server")


def test_notifications_pop_up(server: Server, tabs: Tabs, channel: str) -> None:
    page = tabs.open(f"{server.url}/test?channel={channel}&user_id=ann-{channel}&connect=1")
    expect(page.locator("#members li")).to_have_count(1)
    kinds = ("info", "success", "warning", "error")
    for kind in kinds:
        body = {"channel": channel, "title": f"A {kind}", "content": "<i>text</i>", "type": kind, "auto_hide": False}
        assert page.request.post(f"{server.url}/notifications/channel", data=body).ok
        expect(page.locator(f"#toasts .toast[data-type={kind}]")).to_have_text(f"A {kind}<i>text</i>×")
    page.get_by_role("button", name="Dismiss").first.click()
    expect(page.locator("#toasts .toast")).to_have_count(3)

    body = {"user_id": f"ann-{channel}", "title": "Soon gone", "content": "", "type": "info", "duration": 500}
    assert page.request.post(f"{server.url}/notifications/send", data=body).ok
    soon_gone = page.locator("#toasts .toast", has_text="Soon gone")
    expect(soon_gone).to_be_visible()
    expect(soon_gone).to_have_count(0)
    expect(page.locator(".message")).to_have_count(0)


def test_the_frames_are_shown_as_they_are(server: Server, tabs: Tabs, channel: str) -> None:
    page = tabs.open(f"{server.url}/test")
    join(page, "ann", channel)
    say(page, "hello")
    expect(page.locator(".message .body")).to_have_text("hello")
    frames = page.locator("#frames .frame")
    expect(frames.and_(page.locator("[data-direction=in][data-type=connected]"))).to_have_count(1)
    expect(frames.and_(page.locator("[data-direction=out][data-type=join_channel]"))).to_have_count(1)
    expect(frames.and_(page.locator("[data-direction=out][data-type=channel_message]"))).to_have_count(1)

    heard = frames.and_(page.locator("[data-direction=in][data-type=channel_message]"))
    heard.locator("summary").click()
    expect(heard.locator("pre")).to_contain_text('  "message": "hello",')
    expect(heard.locator("pre")).to_be_in_viewport()

    page.fill("#frames-filter", "message -response")
    expect(page.locator("#frames .frame:visible")).to_have_count(2)
    page.fill("#frames-filter", "")
    page.fill("#raw", json.dumps({"type": "command", "command": "presence", "data": {"channel": channel}, "id": "raw"}))
    page.click("#raw-send")
    answer = frames.filter(has_text='"id":"raw"').filter(has_text='"ok":true')
    expect(answer).to_contain_text('"count":1')

    page.click("#frames-clear")
    expect(frames).to_have_count(0)
    page.click("#frames-pause")
    say(page, "unseen")
    expect(page.locator(".message .body").last).to_have_text("unseen")
    expect(frames).to_have_count(0)
    page.click("#frames-pause")
    expect(frames.filter(has_text="unseen").first).to_be_visible()


def test_what_was_typed_survives_a_reload(server: Server, tabs: Tabs, channel: str) -> None:
    page = tabs.open(f"{server.url}/test")
    join(page, "ann", channel)
    page.reload()
    expect(page.locator("#state")).to_have_attribute("data-state", "open")
    expect(page.locator("#name")).to_have_value("ann")
    expect(page.locator("#members .member-name")).to_have_text(["ann"])
    expect(page.locator('#stats [data-stat="websocket_count"] dd')).to_have_text(re.compile(r"^[1-9]"))
    expect(page.locator("#latency")).to_have_text(re.compile(r"^[\d.]+ ms$"))

    page.click("#connect")
    expect(page.locator("#state")).to_have_attribute("data-state", "closed")
    expect(page.locator("#members li")).to_have_count(0)
    expect(page.locator("#send")).to_be_disabled()
