"""A browser and a Python program in one room: the example, as a process of its own, and the pages' module."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import pytest
from playwright.sync_api import Page

from ..programs import Program, running
from .server import Server
from .tabs import Tabs

LOOP = "trio"
pytestmark = pytest.mark.xdist_group("browser")

# aioice leaves loopback out, which may be all there is.
_EXAMPLE = """
import aioice.ice
aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: ["127.0.0.1"]
from examples.webrtc_peer import main

main()
"""

# A participant, in so much as these tests need one: it joins again by the same instance, as clients do.
_ENTER = """async ([module, url, room]) => {
  const { PeerConnections } = await import(module);
  const stream = await navigator.mediaDevices.getUserMedia({ video: true, audio: true });
  const instance = crypto.randomUUID();
  const state = (window.state = { frames: 0, built: 0, files: {}, joins: 0, failures: [], connection: null });
  let socket;
  let since;
  const peers = new PeerConnections(room, {
    send: (signal) => socket.readyState === 1 && socket.send(JSON.stringify(signal)),
    failed: (peerId, error) => state.failures.push(String(error)),
    built: (peerId, connection) => {
      state.built += 1;
      state.connection = connection;
      for (const track of stream.getTracks()) connection.addTrack(track, stream);
      state.chat = connection.createDataChannel("chat");
      connection.addEventListener("track", ({ track }) => {
        if (track.kind !== "video") return;
        const video = document.createElement("video");
        video.muted = true;
        video.srcObject = new MediaStream([track]);
        const count = () => {
          state.frames += 1;
          state.size = [video.videoWidth, video.videoHeight];
          video.requestVideoFrameCallback(count);
        };
        video.requestVideoFrameCallback(count);
        document.body.append(video);
        video.play().catch(() => {});
      });
      connection.addEventListener("datachannel", ({ channel }) => {
        if (channel.protocol !== "rtcore.file") return;
        channel.binaryType = "arraybuffer";
        const pieces = [];
        let name;
        channel.addEventListener("message", async ({ data }) => {
          if (typeof data !== "string") return pieces.push(data);
          if (!name) return ({ name } = JSON.parse(data));
          const digest = await crypto.subtle.digest("SHA-256", await new Blob(pieces).arrayBuffer());
          const received = [...new Uint8Array(digest)].map((each) => each.toString(16).padStart(2, "0")).join("");
          state.files[name] = received;
          channel.send(JSON.stringify({ received }));
        });
      });
    },
  });
  const connect = () => {
    socket = new WebSocket(url);
    socket.addEventListener("open", () => {
      const data = { room_id: room, peer_id: "page", instance, ...(since && { since }) };
      socket.send(JSON.stringify({ type: "command", command: "join_room", id: "join", data }));
    });
    socket.addEventListener("message", ({ data: text }) => {
      const message = JSON.parse(text);
      if (message.type === "response" && message.id === "join") {
        state.joins += 1;
        peers.join(message.data);
      } else if (message.room_id === room) {
        peers.receive(message);
      }
    });
    socket.addEventListener("close", () => setTimeout(connect, 100));
  };
  connect();
}"""
_SAY = """(text) => {
  const { chat } = window.state;
  if (chat.readyState === "open") chat.send(text);
  else chat.addEventListener("open", () => chat.send(text), { once: true });
}"""


@contextmanager
def example(server: Server, folder: Path, *arguments: str) -> Iterator[Program]:
    """Run the example until the end of the block; it must have nothing to complain about."""
    url = f"{server.url.replace('http', 'ws', 1)}/ws"
    command = [sys.executable, "-W", "error", "-c", _EXAMPLE, "--url", url, *arguments]
    with running(*command, errors=folder / "errors") as program:
        yield program
        assert program.complaints == ""


def enter(server: Server, page: Page, room: str) -> None:
    url = f"{server.url.replace('http', 'ws', 1)}/ws?user_id=page"
    page.evaluate(_ENTER, [f"{server.url}/assets/mesh.js", url, room])


def hear(program: Program, *patterns: str) -> None:
    """Read what the program prints until a line has matched each pattern, in whatever order."""
    left = list(patterns)
    while left:
        line = program.read_line()
        assert line, f"{left} never came: {program.complaints}"
        left = [pattern for pattern in left if not re.fullmatch(pattern, line)]


def see_more(page: Page) -> None:
    """Wait for some more frames of the program's."""
    seen = page.evaluate("window.state.frames")
    page.wait_for_function("(seen) => window.state.frames > seen + 10", arg=seen)


def test_a_call(server: Server, tabs: Tabs, tmp_path: Path) -> None:
    room = tmp_path.name
    cat = tmp_path / "cat.jpg"
    cat.write_bytes(bytes(range(256)) * 4000)
    digest = sha256(cat.read_bytes()).hexdigest()
    arguments = ["--room", room, "--pattern", "--send", str(cat), "--receive", str(tmp_path)]
    page = tabs.open(f"{server.url}/test")
    with example(server, tmp_path, *arguments) as program:
        hear(program, f"in the room {room} as .+")
        for reloaded in (False, True):
            enter(server, page, room)
            if reloaded:
                # It is another instance, which takes the place of the former one.
                hear(program, "page: has left")
            hear(program, r"page: video \d+x\d+", f"page: has cat.jpg, SHA-256 {digest}")
            see_more(page)
            assert page.evaluate("window.state.size") == [640, 480]
            assert page.evaluate("window.state.files") == {"cat.jpg": digest}
            page.evaluate(_SAY, "hello")
            hear(program, "page: chat: 'hello'")
            # ICE restarts: what the program cannot do, so both build their connections anew.
            page.evaluate("window.state.connection.restartIce()")
            hear(program, "page: connected")
            page.wait_for_function("() => window.state.connection.connectionState === 'connected'")
            see_more(page)
            page.evaluate(_SAY, "again")
            hear(program, "page: chat: 'again'")
            assert page.evaluate("window.state.failures") == []
            page.reload()


def test_the_server_restarts(start_server: Callable[..., Server], tabs: Tabs, tmp_path: Path) -> None:
    server = start_server("asyncio")
    tabs.expect_complaint("WebSocket connection to .* failed")
    page = tabs.open(f"{server.url}/test")
    with example(server, tmp_path, "--room", "r", "--pattern") as program:
        hear(program, "in the room r as .+")
        enter(server, page, "r")
        hear(program, r"page: video \d+x\d+")
        see_more(page)
        built = page.evaluate("window.state.built")
        assert server.end() == 0
        see_more(page)
        server.restart()
        page.wait_for_function("() => window.state.joins === 2")
        see_more(page)
        # Nothing was built anew.
        assert page.evaluate("window.state.built") == built
