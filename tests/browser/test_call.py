"""People who call each other on the WebSocket page, each in a tab, with a camera and a microphone that are not real."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, ViewportSize, expect

from .call import enter, growth, open_call, wait_until
from .server import Server
from .tabs import Tabs
from .test_layout import too_wide

LOOP = "asyncio"

pytestmark = pytest.mark.xdist_group("browser")

_SCREENS: tuple[ViewportSize, ...] = (
    {"width": 340, "height": 700},
    {"width": 820, "height": 1100},
    {"width": 1440, "height": 900},
)


def others(page: Page) -> list[str]:
    """The names on the tiles of the others."""
    return page.locator(".tile:not([data-own]) .tile-name").all_inner_texts()


def test_two_people_see_and_hear_each_other(server: Server, tabs: Tabs, channel: str) -> None:
    ann, bob = (open_call(tabs, server, name) for name in ("ann", "bob"))
    enter(ann, channel)
    expect(ann.locator("#call-log")).to_contain_text("You are the first in")
    enter(bob, channel)
    for page, other in ((ann, "bob"), (bob, "ann")):
        expect(page.locator(".tile")).to_have_count(2)
        assert others(page) == [other]
        expect(page.locator(".tile:not([data-own]) .tile-state")).to_have_text("Connected")
        expect(page.locator(".tile[data-shows=true]")).to_have_count(2)
        growth(page)
        # It is what is shown, and moves.
        wait_until(page, "document.querySelector('.tile:not([data-own]) video').videoWidth === 160")
        start = page.evaluate("document.querySelector('.tile:not([data-own]) video').currentTime")
        wait_until(page, "(at) => document.querySelector('.tile:not([data-own]) video').currentTime > at", start)
        assert page.evaluate("[...document.querySelectorAll('.tile video')].map(({muted}) => muted)") == [True, False]
        expect(page.locator("#call-about")).to_have_text(f"{channel}: 2 of 8")
    expect(ann.locator("#call-log .call-note").last).to_have_text("bob is here")
    expect(bob.locator("#call-log .call-note").last).to_have_text(f"You are in {channel} with ann")

    for page, text in ((ann, "<b>Can you see me?</b>"), (bob, "Yes! 🙂")):
        expect(page.locator("#call-send")).to_be_enabled()
        page.fill("#call-message", text)
        page.press("#call-message", "Enter")
        for each in (ann, bob):
            expect(each.locator("#call-log .call-text p").last).to_have_text(text)
    expect(ann.locator("#call-log .call-text .sender")).to_have_text(["you", "bob"])
    # The conversations beside it know nothing of the call.
    expect(ann.locator("#messages > *")).to_have_count(0)

    ann.get_by_role("button", name="Hang up").click()
    expect(ann.locator("#call-stage")).to_be_hidden()
    expect(ann.locator("#call-room")).to_be_focused()
    assert ann.evaluate("[open_().length, tracks.every(({readyState}) => readyState === 'ended')]") == [0, True]
    expect(bob.locator("#call-log .call-note").last).to_have_text("ann left")
    expect(bob.locator(".tile")).to_have_count(1)
    enter(ann, channel)
    growth(ann)
    growth(bob)


def test_three_people_and_what_they_switch_off(server: Server, tabs: Tabs, channel: str) -> None:
    pages = ann, bob, eve = tuple(open_call(tabs, server, name) for name in ("ann", "bob", ""))
    for page in pages:
        enter(page, channel)
    for page in pages:
        expect(page.locator(".tile[data-state=connected]")).to_have_count(3)
        growth(page, 2)
    assert others(ann)[0] == "bob"
    assert re.fullmatch("anonymous .{6}", others(ann)[1])
    ann.fill("#call-message", "to both")
    ann.press("#call-message", "Enter")
    for page in pages:
        expect(page.locator("#call-log .call-text p")).to_have_text("to both")

    microphone, camera = (bob.get_by_role("button", name=name) for name in ("Microphone", "Camera"))
    microphone.click()
    camera.click()
    for button in (microphone, camera):
        expect(button).to_have_attribute("aria-pressed", "false")
    # The light of the camera goes out.
    assert bob.evaluate("tracks.filter(({ kind }) => kind === 'video').every((each) => each.readyState === 'ended')")
    for page in (ann, eve):
        tile = page.locator(".tile").filter(has_text="bob")
        expect(tile.locator(".tag")).to_have_text(["muted", "camera off"])
        expect(tile).to_have_attribute("data-shows", "false")
    camera.click()
    microphone.press("Enter")
    for page in (ann, eve):
        tile = page.locator(".tile").filter(has_text="bob")
        expect(tile.locator(".tag")).to_have_count(0)
        expect(tile).to_have_attribute("data-shows", "true")
        growth(page, 2)
    # Without another word between the peers: one connection to each.
    assert ann.locator(".tile[data-state=connected]").count() == 3


def test_a_camera_that_takes_its_time(server: Server, tabs: Tabs, channel: str) -> None:
    """Whoever goes on to something else meanwhile is not taken back, and does not switch off what has just come on."""
    slow = """
      const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
      navigator.mediaDevices.getUserMedia = async (wanted) => {
        if (!wanted.audio) await new Promise((resolve) => { window.allow = resolve; });
        return ask(wanted);
      };"""
    ann = open_call(tabs, server, "ann", script=slow)
    enter(ann, channel)
    camera, microphone = ann.locator("#call-camera"), ann.locator("#call-microphone")
    expect(camera).to_have_attribute("aria-pressed", "true")
    camera.focus()
    camera.press("Enter")
    expect(camera).to_have_attribute("aria-pressed", "false")
    camera.press("Enter")
    wait_until(ann, "'allow' in window")
    expect(camera).to_be_disabled()
    expect(camera).to_be_focused()
    # Once more, while it is being asked for, is not twice.
    ann.keyboard.press("Enter")
    microphone.focus()
    ann.evaluate("allow()")
    expect(camera).to_have_attribute("aria-pressed", "true")
    expect(camera).to_be_enabled()
    expect(microphone).to_be_focused()


def test_a_screen_takes_the_place_of_the_camera(server: Server, tabs: Tabs, channel: str) -> None:
    # There is no screen here, so something is painted.
    script = """
      navigator.mediaDevices.getDisplayMedia = async () => {
        const canvas = Object.assign(document.createElement("canvas"), { width: 320, height: 200 });
        const pen = canvas.getContext("2d");
        setInterval(() => {
          pen.fillStyle = `hsl(${performance.now() % 360} 60% 50%)`;
          pen.fillRect(0, 0, 320, 200);
        }, 100);
        const stream = canvas.captureStream(5);
        window.screenTrack = stream.getVideoTracks()[0];
        return stream;
      };"""
    ann, bob = open_call(tabs, server, "ann", script=script), open_call(tabs, server, "bob")
    enter(ann, channel)
    enter(bob, channel)
    growth(bob)
    ann.get_by_role("button", name="Share screen").click()
    picture = "document.querySelector('.tile:not([data-own]) video')"
    tile = bob.locator(".tile").filter(has_text="ann")
    expect(tile.locator(".tag")).to_have_text(["screen"])
    wait_until(bob, f"{picture}.videoWidth === 320")
    expect(ann.locator(".tile[data-own]")).to_have_attribute("data-mirrored", "false")
    # As where people end it by the browser's own button.
    ann.evaluate("screenTrack.stop(); screenTrack.dispatchEvent(new Event('ended'))")
    wait_until(bob, f"{picture}.videoWidth === 160")
    expect(tile.locator(".tag")).to_have_count(0)
    expect(ann.locator("#call-screen")).to_have_attribute("aria-pressed", "false")
    growth(bob)


@pytest.mark.parametrize(
    ("fault", "said"),
    [("NotFoundError", "No camera was found. No microphone was found."), ("NotAllowedError", "The camera is blocked.")],
)
def test_without_a_camera_and_a_microphone(fault: str, said: str, server: Server, tabs: Tabs, channel: str) -> None:
    refuse = f"navigator.mediaDevices.getUserMedia = async () => {{ throw new DOMException('', '{fault}'); }};"
    ann, bob = open_call(tabs, server, "ann", script=refuse), open_call(tabs, server, "bob")
    enter(ann, channel)
    expect(ann.locator("#call-problem")).to_contain_text(said)
    expect(ann.locator("#call-problem")).to_contain_text("You still see, hear and write to the others.")
    expect(ann.locator("#call-camera")).to_have_attribute("aria-pressed", "false")
    enter(bob, channel)
    growth(ann)
    expect(bob.locator(".tile").filter(has_text="ann").locator(".tag")).to_have_text(["muted", "camera off"])
    ann.fill("#call-message", "I am here all the same")
    ann.press("#call-message", "Enter")
    expect(bob.locator("#call-log .call-text p")).to_have_text("I am here all the same")

    # It is found after all: what was not sent from the start is agreed on now.
    ann.evaluate("delete navigator.mediaDevices.getUserMedia")
    ann.click("#call-camera")
    expect(ann.locator("#call-problem")).to_be_hidden()
    growth(bob, sound=False)
    expect(bob.locator(".tile").filter(has_text="ann")).to_have_attribute("data-shows", "true")


def test_a_full_room(server: Server, tabs: Tabs, channel: str) -> None:
    pages = [open_call(tabs, server, name) for name in ("ann", "bob", "eve", "joe")]
    room = {"room_id": channel, "name": "The small room", "max_participants": 3}
    assert pages[0].request.post(f"{server.url}/webrtc/rooms", data=room).ok
    for page in pages[:3]:
        enter(page, channel)
    joe = pages[3]
    joe.fill("#call-room", channel)
    joe.press("#call-room", "Enter")
    expect(joe.locator("#call-problem")).to_have_text(
        "This room is full. Come back when somebody has left, or choose another room."
    )
    expect(joe.locator("#call")).to_have_attribute("data-state", "idle")
    wait_until(joe, "tracks.every(({ readyState }) => readyState === 'ended')")
    for page in pages[:3]:
        expect(page.locator("#call-about")).to_have_text(f"{channel}: 3 of 3")
        growth(page, 2)
    pages[0].click("#call-leave")
    expect(pages[1].locator(".tile")).to_have_count(2)
    enter(joe, channel)
    expect(joe.locator("#call-problem")).to_be_hidden()
    growth(joe, 2)

    # Closed by whoever runs the server.
    assert joe.request.delete(f"{server.url}/webrtc/rooms/{channel}").ok
    for page in pages[1:]:
        expect(page.locator("#call-problem")).to_have_text("The room was closed.")
        expect(page.locator("#call-stage")).to_be_hidden()
        assert page.evaluate("open_().length") == 0


# What examples/webrtc_peer.py does, and what somebody does who lies.
_SEND_FILE = """([size, announced]) => new Promise((resolve) => {
  const channel = open_()[0].createDataChannel("file", { protocol: "rtcore.file" });
  channel.addEventListener("message", ({ data }) => resolve(JSON.parse(data).received));
  channel.addEventListener("close", () => resolve("closed"));
  channel.addEventListener("open", async () => {
    const piece = new Uint8Array(size / 2).fill(7);
    const bytes = new Uint8Array(await crypto.subtle.digest("SHA-256", new Uint8Array(size).fill(7)));
    window.sha256 = Array.from(bytes, (each) => each.toString(16).padStart(2, "0")).join("");
    channel.send(JSON.stringify({ name: "<b>seven</b>.bin", size: announced }));
    channel.send(piece);
    channel.send(piece);
    channel.send(JSON.stringify({ sha256: window.sha256 }));
  });
})"""


def test_a_file_from_a_peer_can_be_saved(server: Server, tabs: Tabs, channel: str) -> None:
    ann, bob = (open_call(tabs, server, name) for name in ("ann", "bob"))
    for page in (ann, bob):
        enter(page, channel)
    growth(bob)
    assert bob.evaluate(_SEND_FILE, [20_000, 20_000]) == bob.evaluate("window.sha256")
    link = ann.get_by_role("link", name="<b>seven</b>.bin")
    expect(ann.locator("#call-log .call-text")).to_contain_text("(20 KB)")
    with ann.expect_download() as download:
        link.click()
    assert download.value.path().read_bytes() == bytes([7]) * 20_000
    for announced, why in ((19_999, "It is not what was announced."), (10**9, "It is too large for a page.")):
        assert bob.evaluate(_SEND_FILE, [20_000, announced]) == "closed"
        expect(ann.locator("#call-log .call-note").last).to_have_text(f"A file from bob did not arrive. {why}")
    assert link.count() == 1


def test_a_call_ends_with_the_connection(server: Server, tabs: Tabs, channel: str) -> None:
    # Joining connects as well.
    ann, bob = (open_call(tabs, server, name, query="") for name in ("ann", "bob"))
    for page in (ann, bob):
        enter(page, channel)
    growth(ann)
    ann.click("#connect")
    expect(ann.locator("#call-stage")).to_be_hidden()
    expect(bob.locator("#call-log .call-note").last).to_have_text("ann left")
    # By the server, for good.
    (known,) = [
        each["connection_id"]
        for each in bob.request.get(f"{server.url}/connections").json()["connections"]
        if each["user_id"] == "bob" and each["connection_id"] == bob.locator("#connection-id").inner_text()
    ]
    assert bob.request.delete(f"{server.url}/connections/{known}").ok
    expect(bob.locator("#state")).to_have_attribute("data-state", "closed")
    expect(bob.locator("#call-problem")).to_have_text("The call ended with the connection to the server.")
    assert bob.evaluate("[open_().length, tracks.every(({ readyState }) => readyState === 'ended')]") == [0, True]


def test_the_call_fits_the_screen(server: Server, tabs: Tabs, channel: str) -> None:
    long = "Donaudampfschifffahrt" * 6
    ann, bob = (open_call(tabs, server, f"{name}{long}"[:128]) for name in ("ann", "bob"))
    for page in (ann, bob):
        enter(page, f"{channel}{long}"[:128])
    expect(ann.locator("#call-send")).to_be_enabled()
    ann.fill("#call-message", long * 3)
    ann.press("#call-message", "Enter")
    for scheme in ("light", "dark"):
        ann.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
        for size in _SCREENS:
            ann.set_viewport_size(size)
            assert too_wide(ann) == [], size
            for control in ann.locator("#call button:visible").all():
                box = control.bounding_box()
                assert box is not None
                assert box["x"] >= 0
                assert box["x"] + box["width"] <= size["width"]
