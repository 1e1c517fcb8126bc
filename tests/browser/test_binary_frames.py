"""The modules of the pages that others may copy: binary frames, and the files in messages."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from playwright.sync_api import Page

from rtcore.binary import encode_payload, parse_payload
from rtcore.errors import Refusal

from .media import HOSTILE_SVG, picture
from .server import Server
from .tabs import Tabs

LOOP = "trio"

pytestmark = pytest.mark.xdist_group("browser")

_FRAMES = """async ([base, heads, payloads]) => {
  const { decodeFrame, encodeFrame } = await import(`${base}/assets/binary-frames.js`);
  const bytes = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const text = (data) => btoa(String.fromCharCode(...data));
  const decode = (payload) => {
    try {
      const { message: { data, ...head }, text: head_text } = decodeFrame(bytes(payload).buffer);
      return [head, text(data), head_text];
    } catch (error) {
      return error instanceof Error;
    }
  };
  return {
    encoded: heads.map(([head, data]) => {
      // A view of a part of something larger.
      const wide = new Uint8Array([7, ...bytes(data), 7, 7]);
      const payloads = [encodeFrame(head, wide.subarray(1, -2)), encodeFrame(head, bytes(data).buffer)].map(text);
      return payloads[0] === payloads[1] ? payloads[0] : payloads;
    }),
    decoded: payloads.map(decode),
  };
}"""

_FILES = """async ([base, messages]) => {
  const { fileOf, urlOfBytes } = await import(`${base}/assets/files.js`);
  const described = [];
  for (const message of messages) {
    const file = fileOf(message);
    if (!file) {
      described.push(null);
      continue;
    }
    const { name, size, kind, bytes, url } = file;
    let served = null;
    if (bytes) {
      const here = urlOfBytes(file);
      const response = await fetch(here.url);
      const same = (await response.bytes()).every((byte, index) => byte === bytes[index]);
      served = [here.url.split(":")[0], response.headers.get("content-type"), here.revoke, same];
    }
    described.push([name, size, kind, url?.href ?? null, served]);
  }
  return described;
}"""


def plain_page(server: Server, tabs: Tabs) -> Page:
    """Open a page that has nothing of ours, from the same origin."""
    # There is no icon for this address, but the browser asks.
    tabs.expect_complaint("status of 404")
    return tabs.open(f"{server.url}/health")


def as_text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_the_frames_are_those_of_the_server(server: Server, tabs: Tabs) -> None:
    heads: list[tuple[dict[str, object], bytes]] = [
        (
            {"type": "binary", "channel": "Привет 🙂", "filename": 'a "b" \u2028.png', "n": [1, None, 2.5]},
            bytes(range(256)),
        ),
        ({"type": "chunk"}, b""),
    ]
    payloads = [encode_payload(head, data) for head, data in heads]
    head = b'{"type":"x"}'
    malformed = [
        b"",
        b"\0\0\0",
        b"\0\0\0\x0d" + head,
        b"\xff\xff\xff\xff" + head,
        b"\0\0\0\0",
        b"\0\0\0\x02{}",
        b"\0\0\0\x02[]",
        b"\0\0\0\x04null",
        b'\0\0\0\x0a{"type":1}',
        b'\0\0\0\x0c{"type":"\xff"}',
    ]
    for payload in malformed:
        assert isinstance(parse_payload(payload), Refusal), payload

    page = plain_page(server, tabs)
    asked = [[head, as_text(data)] for head, data in heads], [as_text(payload) for payload in (*payloads, *malformed)]
    told: dict[str, list[Any]] = page.evaluate(_FRAMES, [server.url, *asked])
    for (head_, data), text in zip(heads, told["encoded"], strict=True):
        parsed = parse_payload(base64.b64decode(text))
        assert not isinstance(parsed, Refusal)
        assert (parsed[0], bytes(parsed[1])) == (head_, data)
    for (head_, data), payload, decoded in zip(heads, payloads, told["decoded"], strict=False):
        length = int.from_bytes(payload[:4], "big")
        assert decoded == [head_, as_text(data), payload[4 : 4 + length].decode()]
    assert told["decoded"][len(heads) :] == [True] * len(malformed)


def test_nothing_that_may_run_gets_a_type_by_which_it_would(server: Server, tabs: Tabs) -> None:
    html = as_text(b"<script>top.owned = 1</script>")
    anything = ["blob", "application/octet-stream", True, True]
    messages: list[tuple[dict[str, object], object]] = [
        ({"content_type": kind, "binary_data": html}, ["file", 30, "", None, anything])
        for kind in (
            "text/html",
            "TEXT/HTML; charset=utf-8",
            "application/xhtml+xml",
            "image/svg+xml-compressed",
            "image/x+xml",
            "video/xml",
            "image/png,text/html",
            "image/png\ntext/html",
            "image/",
            "",
            "text/javascript",
            "application/pdf",
        )
    ]
    images = [
        ("image/png", "image"),
        ("IMAGE/JPEG ;q=1", "image"),
        ("audio/mpeg", "audio"),
        ("video/webm; codecs=vp8", "video"),
    ]
    for kind, shown in images:
        served = ["blob", kind.partition(";")[0].strip().lower(), True, True]
        messages.append(({"content_type": kind, "binary_data": html}, ["file", 30, shown, None, served]))
    svg = ["data", "image/svg+xml", False, True]
    size = len(HOSTILE_SVG)
    messages += [
        ({"content_type": "image/svg+xml", "binary_data": as_text(HOSTILE_SVG)}, ["file", size, "image", None, svg]),
        ({"binary_data": "", "filename": "../up\\evil.png"}, ["evil.png", 0, "", None, anything]),
        ({"binary_data": "no base64!"}, None),
        ({"binary_data": 5, "url": 5}, None),
        ({}, None),
        # Credentials are for the server alone.
        ({"url": "https://evil.example/realtime/binary/1", "size": 5}, None),
        ({"url": "//evil.example/x"}, None),
        ({"url": "javascript:top.owned = 1"}, None),
        ({"url": "http://["}, None),
        ({"url": "/x/binary/1", "size": 5}, ["file", 5, "", f"{server.origin}/x/binary/1", None]),
        ({"url": "/x", "size": "5", "filename": 7}, ["file", None, "", f"{server.origin}/x", None]),
    ]
    page = plain_page(server, tabs)
    asked = [{"type": "binary", **message} for message, _ in messages]
    told = page.evaluate(_FILES, [server.url, asked])
    for message, described, (_, expected) in zip(asked, told, messages, strict=True):
        assert described == expected, message
    assert page.evaluate(_FILES, [server.url, [{"type": "text", "binary_data": html}, None]]) == [None, None]
    assert page.evaluate("window.owned") is None


def test_a_picture_is_the_same_from_a_frame_and_from_base64(server: Server, tabs: Tabs) -> None:
    data = picture()
    message = {"content_type": "image/png", "filename": "a.png", "binary_data": as_text(data)}
    page = plain_page(server, tabs)
    [described] = page.evaluate(_FILES, [server.url, [{"type": "binary", **message}]])
    assert described == ["a.png", len(data), "image", None, ["blob", "image/png", True, True]]


_ASK = """async (base) => {
  const { Requests } = await import(`${base}/assets/requests.js`);
  const { decodeFrame } = await import(`${base}/assets/binary-frames.js`);
  const sent = [];
  const requests = new Requests((payload) => sent.push(payload));
  const asked = requests.ask({ type: "binary", channel: "c" }, { again: true, data: new Uint8Array([1, 2, 3]) });
  requests.suspend();
  requests.resume(true);
  const heads = sent.map((payload) => decodeFrame(payload.buffer).message);
  requests.settle({ type: "response", id: heads[0].id, data: { offset: 7 } });
  return [heads.map(({ id, data, ...head }) => [id === heads[0].id, head, [...data]]), await asked];
}"""

_PUBLISH = """async ([base, channel, encoded]) => {
  const { Connection } = await import(`${base}/assets/rtcore.js`);
  const connection = new Connection();
  const heard = new Promise((resolve) => {
    connection.addEventListener("message", ({ detail }) => detail.type === "binary" && resolve(detail));
  });
  const joined = new Promise((resolve) => connection.addEventListener("joined", resolve));
  connection.join(channel);
  connection.open();
  await joined;
  const data = Uint8Array.from(atob(encoded), (character) => character.charCodeAt(0));
  const head = { type: "binary", channel, content_type: "image/png", filename: "a.png", note: "mine" };
  const receipt = await connection.publish(head, data);
  const refused = await connection.publish({ ...head, url: "/x" }, data).catch(({ code }) => code);
  const { meta, id, data: bytes, ...message } = await heard;
  connection.close();
  return [receipt.offset === meta.offset, refused, message, btoa(String.fromCharCode(...bytes))];
}"""


def test_a_file_is_sent_again_as_it_was(server: Server, tabs: Tabs) -> None:
    heads, answer = plain_page(server, tabs).evaluate(_ASK, server.url)
    assert heads == [[True, {"type": "binary", "channel": "c"}, [1, 2, 3]]] * 2
    assert answer == {"offset": 7}


def test_a_file_within_one_message(server: Server, tabs: Tabs, channel: str) -> None:
    data = picture()
    told = plain_page(server, tabs).evaluate(_PUBLISH, [server.url, channel, as_text(data)])
    fields = {"channel": channel, "content_type": "image/png", "filename": "a.png", "size": len(data), "note": "mine"}
    assert told == [True, "reserved_field", {"type": "binary", **fields}, as_text(data)]
