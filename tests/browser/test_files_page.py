"""Files on the pages: dropped, chosen and pasted by one, shown and played by another."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
from playwright.sync_api import Locator, Page, Response, expect

from .authentication import REQUIRED, token, token_function
from .media import HOSTILE_SVG, drop, film, picture, received, sound
from .server import Server
from .tabs import Tabs, join, say

LOOP = "asyncio"

pytestmark = pytest.mark.xdist_group("browser")

StartServer = Callable[..., Server]

# What each upload has shown, in order, without what it has shown before.
_RECORD = """() => {
  window.uploads = {};
  const record = () => {
    for (const row of document.querySelectorAll("[data-testid=upload]")) {
      const shown = [row.dataset.state, row.querySelector("progress").value];
      const all = (uploads[row.querySelector(".upload-name").textContent] ??= []);
      if (JSON.stringify(all.at(-1)) !== JSON.stringify(shown)) all.push(shown);
    }
  };
  const what = { subtree: true, childList: true, attributes: true };
  new MutationObserver(record).observe(document.getElementById("uploads"), what);
}"""
_PASTE = """([text, name]) => {
  const clipboardData = new DataTransfer();
  clipboardData.items.add(new File(["pasted"], name, { type: "text/csv" }));
  if (text) clipboardData.items.add(text, "text/plain");
  const event = new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true });
  return document.getElementById("message").dispatchEvent(event);
}"""
_SHOWS = """(src) => new Promise((resolve) => {
  Object.assign(new Image(), { onload: () => resolve(true), onerror: () => resolve(false), src });
})"""
_NATURAL_WIDTH = "(image) => image.decode().then(() => image.naturalWidth)"


def two_people(server: Server, tabs: Tabs, channel: str) -> tuple[Page, Page]:
    ann, bob = (tabs.open(f"{server.url}/test") for _ in range(2))
    join(ann, "ann", channel)
    join(bob, "bob", channel)
    return ann, bob


def media_in(file: Locator, tag: str) -> Locator:
    media = file.locator(f"{tag}.file-media")
    expect(media).to_have_count(1)
    return media


def source_of(media: Locator) -> str:
    expect(media).to_have_attribute("src", re.compile("."))
    return str(media.get_attribute("src"))


def saved(page: Page, file: Locator) -> tuple[str, bytes]:
    """Save a file as people do, and return the name that it got and what is in it."""
    with page.expect_download() as download:
        file.locator("a.file-name").click()
    return download.value.suggested_filename, Path(download.value.path()).read_bytes()


def size_of(path: Path) -> int:
    """How large a file is, which may just have been taken away."""
    try:
        return path.stat().st_size if path.is_file() else 0
    except FileNotFoundError:
        return 0


def range_of(response: Response) -> int:
    """Where the part of a file begins that was asked for."""
    asked = re.fullmatch(r"bytes=(\d+)-\d*", response.request.all_headers()["range"])
    assert asked is not None
    return int(asked[1])


def play(media: Locator) -> None:
    """Play for a while."""
    media.evaluate("(player) => player.play()")
    media.page.wait_for_function("(player) => player.currentTime > 0.1", arg=media.element_handle())


def test_pictures_that_are_dropped_are_shown_to_everybody(server: Server, tabs: Tabs, channel: str) -> None:
    ann, bob = two_people(server, tabs, channel)
    small, large = picture(), picture(260, 200, noise=True)
    ann.evaluate(_RECORD)
    names = ["small.png", "large.png"]
    for name, data in zip(names, (small, large), strict=True):
        # One after the other: two that are dropped at once arrive in any order.
        drop(ann, (name, "image/png", data))
        expect(bob.locator(".file-name").last).to_have_text(name)
    for page in (ann, bob):
        files = received(page, names)
        first, second = (media_in(files.nth(number), "img") for number in range(2))
        assert source_of(first).startswith("blob:")
        assert source_of(second).startswith(f"{server.url}/binary/")
        assert first.evaluate(_NATURAL_WIDTH) == 40
        assert second.evaluate(_NATURAL_WIDTH) == 260
        own = page.locator(".message").first.get_attribute("data-own")
        assert (own is not None) == (page is ann)
        # A request does not say who somebody anonymous is.
        expect(page.locator(".message .sender").first).to_have_text("ann (you)" if page is ann else "somebody")
    assert saved(bob, received(bob, names).nth(0)) == ("small.png", small)
    assert saved(bob, received(bob, names).nth(1)) == ("large.png", large)

    ann.wait_for_function("() => Object.values(uploads).every((shown) => shown.at(-1)[0] === 'done')")
    for shown in ann.evaluate("uploads").values():
        assert shown[0][1] == 0
        assert shown[-1][1] == 1
        progress = [value for _, value in shown]
        assert progress == sorted(progress)
        states = list(dict.fromkeys(state for state, _ in shown if state))
        assert states == ["waiting", "sending", "done"]
    # Whoever comes later sees them too, and the browser forgets what nobody sees any more.
    eve = tabs.open(f"{server.url}/test?channel={channel}&user_id=eve&connect=1")
    picture_of = media_in(received(eve, names).nth(0), "img")
    assert picture_of.evaluate(_NATURAL_WIDTH) == 40
    address = source_of(picture_of)
    eve.click(f'[data-testid=leave][data-channel="{channel}"]')
    expect(eve.locator("[data-testid=file]")).to_have_count(0)
    tabs.expect_complaint("ERR_FILE_NOT_FOUND")
    assert eve.evaluate(_SHOWS, address) is False


def test_sounds_are_played(server: Server, tabs: Tabs, channel: str) -> None:
    ann, bob = two_people(server, tabs, channel)
    for name, data in (("small.wav", sound()), ("large.wav", sound(4, 16000))):
        drop(ann, (name, "audio/wav", data))
        expect(bob.locator(".file-name").last).to_have_text(name)
    files = received(bob, ["small.wav", "large.wav"])
    for number, scheme in enumerate(("blob:", "http:")):
        player = media_in(files.nth(number), "audio")
        assert source_of(player).startswith(scheme)
        play(player)


def test_a_film_is_played_and_gone_to_another_place_in(server: Server, tabs: Tabs, channel: str) -> None:
    ann, bob = two_people(server, tabs, channel)
    responses: list[Response] = []
    bob.on("response", lambda response: responses.append(response) if "/binary/" in response.url else None)
    data = film(ann)
    drop(ann, ("film.webm", "video/webm", data))
    player = media_in(received(bob, ["film.webm"]).first, "video")
    bob.wait_for_function("(player) => player.videoWidth === 320", arg=player.element_handle())
    assert player.evaluate("(player) => player.duration") == 8
    play(player)
    player.evaluate(
        "(player) => new Promise((resolve) => { player.onseeked = resolve; player.currentTime = 7; }).then(() => true)"
    )
    assert player.evaluate("(player) => [player.currentTime >= 7, player.error]") == [True, None]
    # What is between was left out.
    assert {response.status for response in responses} == {206}
    first, *others = (range_of(response) for response in responses)
    assert first == 0
    assert max(others) > 8_000_000


def test_a_file_over_the_limit_is_refused_and_the_talk_goes_on(
    loop: str, start_server: StartServer, tabs: Tabs, channel: str
) -> None:
    server = start_server(loop, BINARY_MAX_FILE_SIZE="1000000", BINARY_ALLOWED_TYPES="image/*,application/*")
    ann, bob = two_people(server, tabs, channel)
    tabs.expect_complaint("status of 41[35]|net::ERR_")
    drop(ann, ("huge.bin", "application/octet-stream", bytes(3_000_000)))
    row = ann.locator("[data-testid=upload]")
    expect(row).to_have_attribute("data-state", "failed")
    expect(row.locator(".upload-status")).to_contain_text("1000000 bytes")
    row.get_by_role("button", name="Cancel huge.bin").click()
    expect(row).to_have_count(0)
    for name, kind, data, reason in (
        ("song.wav", "audio/wav", sound(), "audio/wav"),
        ("fake.png", "image/png", b"%PDF-1.7 and no picture", "image/png"),
    ):
        drop(ann, (name, kind, data))
        expect(row).to_have_attribute("data-state", "failed")
        expect(row.locator(".upload-status")).to_contain_text(reason)
        # It may be allowed by now.
        row.get_by_role("button", name="Try again").click()
        expect(row).to_have_attribute("data-state", "failed")
        row.get_by_role("button", name=f"Cancel {name}").click()
    drop(ann, ("fits.png", "image/png", picture()))
    received(bob, ["fits.png"])
    say(ann, "Was it too large?")
    expect(bob.locator(".message")).to_have_count(2)


def test_what_is_cancelled_is_not_sent(server: Server, tabs: Tabs, channel: str) -> None:
    ann, bob = two_people(server, tabs, channel)
    kept = sorted(server.files.glob("**/*"))
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 100_000}
    session = ann.context.new_cdp_session(ann)
    session.send("Network.enable")
    session.send("Network.emulateNetworkConditions", slow)
    data = bytes(3_000_000)
    drop(ann, *((f"{number}.bin", "application/octet-stream", data) for number in range(3)))
    rows = ann.locator("[data-testid=upload]")
    # Two at a time.
    for number, state in enumerate(("sending", "sending", "waiting")):
        expect(rows.nth(number)).to_have_attribute("data-state", state)
    expect(rows.first.locator(".upload-status")).to_have_text(re.compile(r"^[1-9]\d? % of 3 MB$"))
    for number in (2, 0, 1):
        rows.get_by_role("button", name=f"Cancel {number}.bin").click()
    expect(rows).to_have_count(0)
    session.send("Network.emulateNetworkConditions", {**slow, "uploadThroughput": -1})
    drop(ann, ("last.png", "image/png", picture()))
    received(bob, ["last.png"])
    expect(ann.locator(".file-name")).to_have_text(["last.png"])
    # Nothing is left of the others, once the server has seen that they end.
    until = time.monotonic() + 30
    while left := [path for path in server.files.glob("**/*") if path not in kept and size_of(path) > 10_000]:
        assert time.monotonic() < until, f"what was cancelled is still there: {left}"
        ann.wait_for_timeout(100)


def test_what_might_run_is_saved_and_its_name_is_text(server: Server, tabs: Tabs, channel: str) -> None:
    ann, bob = two_people(server, tabs, channel)
    html = b"<!doctype html><title>owned</title><script>top.owned = 1; fetch('stats')</script>"
    evil = "<img src=x onerror='window.owned=1'>.html"
    # In the message, and by its address.
    files = [
        ("cat.html", "text/html", html),
        ("large.html", "text/html", html + b" " * 70_000),
        (evil, "text/html", html),
        ("drawing.svg", "image/svg+xml", HOSTILE_SVG),
        ("large.svg", "image/svg+xml", HOSTILE_SVG + b" " * 70_000),
    ]
    names = [name for name, _, _ in files]
    for each in files:
        drop(ann, each)
        expect(bob.locator(".file-name").last).to_have_text(each[0])
    shown = received(bob, names)
    for number in range(3):
        expect(shown.nth(number).locator(":is(iframe, object, embed, img, script)")).to_have_count(0)
    for number in (0, 1):
        assert saved(bob, shown.nth(number)) == (names[number], files[number][2])
    for number in (3, 4):
        assert media_in(shown.nth(number), "img").evaluate(_NATURAL_WIDTH) == 40
    assert source_of(media_in(shown.nth(3), "img")).startswith("data:")
    # Nor does it where somebody goes there.
    for number in range(5):
        address = str(shown.nth(number).locator("a").get_attribute("href"))
        if not address.startswith("data:"):
            with bob.expect_download():
                bob.evaluate("(address) => { location.href = address; }", address)
    for page in (ann, bob):
        assert page.evaluate("window.owned") is None
        expect(page).to_have_title(re.compile("WebSocket"))


def test_files_are_chosen_and_pasted(server: Server, tabs: Tabs, channel: str) -> None:
    ann, bob = two_people(server, tabs, channel)
    files = [("a.txt", b"one"), ("b.txt", b"two")]
    with ann.expect_file_chooser() as chooser:
        ann.click("#attach")
    assert chooser.value.is_multiple()
    chosen = [{"name": name, "mimeType": "text/plain", "buffer": data} for name, data in files]
    chooser.value.set_files(chosen)  # type: ignore[arg-type]
    expect(bob.locator(".file-name")).to_have_count(2)
    assert sorted(bob.locator(".file-name").all_inner_texts()) == ["a.txt", "b.txt"]
    # Whoever copies cells of a table means their text.
    assert ann.evaluate(_PASTE, ["1;2", "cells.csv"]) is True
    assert ann.evaluate(_PASTE, ["", "pasted.csv"]) is False
    expect(bob.locator(".file-name")).to_have_count(3)
    assert saved(bob, bob.locator("[data-testid=file]").last) == ("pasted.csv", b"pasted")


@pytest.mark.parametrize("server", ["trio"], indirect=True)
def test_files_for_one_user_and_for_nobody(server: Server, tabs: Tabs, channel: str) -> None:
    ann, bob = two_people(server, tabs, channel)
    for page in (ann, bob):
        page.locator("[data-testid=tab][data-channel='']").click()
    drop(ann, ("echo.png", "image/png", picture()))
    echoed = received(ann, ["echo.png"])
    assert media_in(echoed.first, "img").evaluate(_NATURAL_WIDTH) == 40
    expect(ann.locator(".message").last.locator(".tag")).to_have_text("echo")
    drop(ann, ("large.png", "image/png", picture(260, 200, noise=True)))
    failed = ann.locator("[data-testid=upload][data-state=failed]")
    expect(failed.locator(".upload-status")).to_contain_text("Choose a channel or somebody")
    ann.fill("#recipient", "bob")
    drop(ann, ("for bob.png", "image/png", picture(50)))
    assert media_in(received(bob, ["for bob.png"]).first, "img").evaluate(_NATURAL_WIDTH) == 50
    expect(bob.locator(".message .tag")).to_have_text(["to you"])
    assert media_in(received(ann, ["echo.png", "for bob.png"]).nth(1), "img").evaluate(_NATURAL_WIDTH) == 50
    expect(ann.locator(".message").last.locator(".tag")).to_have_text("to bob")
    expect(ann.locator(".message").last.locator(".sender")).to_have_text("ann (you)")


def test_the_stream_of_events_shows_files(server: Server, tabs: Tabs, channel: str) -> None:
    page = tabs.open(f"{server.url}/sse-test?channel={channel}&connect=1")
    expect(page.locator("#state")).to_have_attribute("data-state", "open")
    names = ["small.png", "large.png", "a.html"]
    contents = [picture(), picture(260, 200, noise=True), b"<script>top.owned = 1</script>"]
    for name, data in zip(names, contents, strict=True):
        kind = "text/html" if name == "a.html" else "image/png"
        files = {"file": (name, data, kind)}
        httpx2.post(f"{server.url}/binary/upload?channel={channel}", files=files, trust_env=False).raise_for_status()
    shown = received(page, names)
    expect(page.locator("#events .event[data-event=binary_data]")).to_have_count(3)
    assert media_in(shown.nth(0), "img").evaluate(_NATURAL_WIDTH) == 40
    assert source_of(media_in(shown.nth(0), "img")).startswith("blob:")
    assert media_in(shown.nth(1), "img").evaluate(_NATURAL_WIDTH) == 260
    expect(shown.nth(2).locator(":is(iframe, object, embed, img, script)")).to_have_count(0)
    assert saved(page, shown.nth(2)) == ("a.html", contents[2])
    # The base64 of a picture is nothing to read.
    rows = page.locator("#events .event[data-event=binary_data]")
    rows.first.locator("summary").click()
    expect(rows.first.locator("pre")).to_contain_text('"filename": "small.png"')
    encoded = base64.b64encode(contents[0]).decode()
    expect(rows.first.locator("pre")).to_contain_text(f'"binary_data": "{encoded[:40]}…"')


def test_files_that_came_while_somebody_was_away(server: Server, tabs: Tabs, channel: str) -> None:
    ann, bob = two_people(server, tabs, channel)
    drop(ann, ("0.png", "image/png", picture(40)))
    received(bob, ["0.png"])
    tabs.expect_complaint("net::ERR_")
    bob.context.set_offline(True)
    expect(bob.locator("#state")).to_have_attribute("data-state", "waiting")
    names = ["0.png"]
    for number, shape in enumerate((picture(41), picture(260, 200, noise=True), picture(42)), 1):
        names.append(f"{number}.png")
        drop(ann, (names[-1], "image/png", shape))
        expect(ann.locator(".file-name").last).to_have_text(names[-1])
    say(ann, "Are you back?")
    bob.context.set_offline(False)
    expect(bob.locator("#state")).to_have_attribute("data-state", "open")
    expect(bob.locator(".message")).to_have_count(5)
    files = received(bob, names)
    widths = [media_in(files.nth(number), "img").evaluate(_NATURAL_WIDTH) for number in range(4)]
    assert widths == [40, 41, 260, 42]
    assert bob.locator(".notice").all_inner_texts() == ["Connected again; nothing was missed"]


def test_files_on_a_server_that_wants_to_know_who_comes(
    loop: str, start_server: StartServer, tabs: Tabs, channel: str
) -> None:
    server = start_server(loop, **REQUIRED)
    bobs = [token("bob"), token("bob", 1200)]
    ann = tabs.open(f"{server.url}/test?channel={channel}&connect=1", script=token_function([token("ann")]))
    bob = tabs.open(f"{server.url}/test?channel={channel}&connect=1", script=token_function(bobs))
    for page in (ann, bob):
        expect(page.locator("#members .member-name")).to_have_text(["ann", "bob"] if page is ann else ["bob", "ann"])
    tabs.expect_complaint("status of 40[14]")
    data = picture(260, 200, noise=True)
    # The first of bob's tokens is refused from now on by the addresses of files, as one that has ended.
    bob.route(
        "**/binary/*", lambda route: route.fulfill(status=401) if bobs[0] in route.request.url else route.continue_()
    )
    drop(ann, ("large.png", "image/png", data))
    [file] = received(bob, ["large.png"]).all()
    assert media_in(file, "img").evaluate(_NATURAL_WIDTH) == 260
    assert saved(bob, file) == ("large.png", data)
    expect(bob.locator(".message .sender")).to_have_text("ann")
    expect(ann.locator(".message .sender")).to_have_text("ann (you)")
    # Nobody copies a token with a link.
    link = str(file.locator("a").get_attribute("href"))
    assert bobs[0] not in bob.content()
    assert bobs[1] not in link
    assert httpx2.get(link, trust_env=False).status_code == 401
    assert httpx2.get(link, headers={"Authorization": f"Bearer {bobs[0]}"}, trust_env=False).content == data
