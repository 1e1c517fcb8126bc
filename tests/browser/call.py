"""Tabs that are in a call, and what their connections say of it."""

from __future__ import annotations

import time
from typing import Any

from playwright.sync_api import Page, expect

from .server import Server
from .tabs import Tabs

__all__ = ["SCRIPT", "enter", "growth", "open_call", "peers", "wait_until"]

_TIMEOUT = 60.0
_PAUSE = 100.0

#: What runs before a page's own scripts. Little pictures, for busy machines. What the page makes is kept, and what
#: happens to it counted: `crossings` are the offers that came while another one was out. While `held` is a list, what
#: goes to the server waits for `release`; while `away` is true, no server is found.
SCRIPT = """{
  const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
  window.tracks = [];
  navigator.mediaDevices.getUserMedia = async ({ audio, video }) => {
    const stream = await ask({ audio, video: video && { width: 160, height: 120, frameRate: 5 } });
    tracks.push(...stream.getTracks());
    return stream;
  };
  window.sockets = [];
  window.WebSocket = class extends WebSocket {
    constructor(url) {
      super(away ? "ws://127.0.0.1:1/" : url);
      sockets.push(this);
    }
    send(data) {
      if (held) held.push([this, data]);
      else super.send(data);
    }
  };
  window.away = false;
  window.held = null;
  window.release = () => {
    const all = held;
    held = null;
    for (const [socket, data] of all) socket.send(data);
  };
  window.connections = [];
  window.crossings = 0;
  window.RTCPeerConnection = class extends RTCPeerConnection {
    constructor(...values) { super(...values); connections.push(this); }
    setRemoteDescription(description) {
      if (description.type === "offer" && this.signalingState === "have-local-offer") crossings += 1;
      return super.setRemoteDescription(description);
    }
  };
  window.open_ = () => connections.filter(({ connectionState }) => connectionState !== "closed");
}"""

_PEERS = """() => Promise.all(open_().map(async (connection) => {
  const peer = { state: connection.connectionState, stable: connection.signalingState === "stable" };
  peer.fragment = connection.localDescription?.sdp.match(/ice-ufrag:(\\S+)/)?.[1];
  peer.frames = peer.energy = 0;
  for (const each of (await connection.getStats()).values()) {
    if (each.type !== "inbound-rtp") continue;
    if (each.kind === "video") peer.frames += each.framesDecoded ?? 0;
    else peer.energy += each.totalAudioEnergy ?? 0;
  }
  return peer;
}))"""


def open_call(tabs: Tabs, server: Server, name: str, *, script: str = "", query: str = "connect=1") -> Page:
    """Open the WebSocket page as `name`, or as nobody in particular if that is empty; `script` runs before its own."""
    return tabs.open(f"{server.url}/test?user_id={name}&{query}", script=SCRIPT + script)


def enter(page: Page, room: str) -> None:
    """Enter a room, as people do."""
    page.fill("#call-room", room)
    page.click("#call-join")
    expect(page.locator("#call")).to_have_attribute("data-state", "joined")


def peers(page: Page) -> list[dict[str, Any]]:
    """What each connection of a page says: its state, the pictures decoded, and how much was to be heard so far."""
    return list(page.evaluate(_PEERS))


def wait_until(page: Page, expression: str, argument: object = None) -> Any:
    """Wait until an expression is true in a page, whose policy does not let Playwright wait by itself."""
    end = time.monotonic() + _TIMEOUT
    while not (value := page.evaluate(expression, argument)):
        assert time.monotonic() < end, f"not true in time: {expression}"
        page.wait_for_timeout(_PAUSE)
    return value


def growth(page: Page, others: int = 1, *, sound: bool = True) -> None:
    """Wait until a page is connected to so many, and has seen and heard more of each of them than at first."""
    end = time.monotonic() + _TIMEOUT
    before: list[dict[str, Any]] = []
    while True:
        now = peers(page)
        if len(now) != len(before):
            # With other connections it begins anew.
            before = now
        well = [
            peer["state"] == "connected"
            and peer["stable"]
            and peer["frames"] > old["frames"]
            and (not sound or peer["energy"] > old["energy"])
            for peer, old in zip(now, before, strict=True)
        ]
        if len(well) == others and all(well):
            return
        assert time.monotonic() < end, f"nothing more to see or hear: {before}, {now}"
        page.wait_for_timeout(_PAUSE)
