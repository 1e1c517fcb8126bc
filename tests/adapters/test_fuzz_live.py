"""Arbitrary bytes, arbitrarily split, at a live server: nothing fails, nobody else notices, nothing is left behind."""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.sync.client import connect

from .clients import TIMEOUT, Client, get, masked_frame, raw_upgrade

pytestmark = pytest.mark.xdist_group("fuzz")

# A process of its own, so that its memory can be told from that of the test.
_SERVER: Final = """
import logging, sys
import anyio
from rtcore_adapters import RealtimeApp, Settings
from rtcore_adapters.settings import RealtimeSettings, WebSocketSettings
from rtcore_transports import serve

async def main():
    realtime = RealtimeApp(
        Settings(
            realtime=RealtimeSettings(allow_anonymous=True),
            websocket=WebSocketSettings(max_message_size=65536),
        )
    )
    async with anyio.create_task_group() as tasks:
        async def run(*, task_status):
            await serve(realtime.driver, app=realtime, config=realtime.config, port=0, task_status=task_status)
        host, port = await tasks.start(run)
        print(port, flush=True)

logging.basicConfig(level=logging.WARNING)
anyio.run(main, backend=sys.argv[1])
"""

# What a server of this size may grow by while it is thrown at: most of it is what the allocator keeps.
_MAX_GROWTH: Final = 32 * 2**20
_RESET: Final = struct.pack("ii", 1, 0)


class Target:
    """A server, and a pair of clients that talk to each other all the while."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, port: int, pair: tuple[Client, Client]) -> None:
        self.process = process
        self.port = port
        self._log = log
        self._number = 0
        self._one, self._two = pair

    def hit(self, pieces: list[bytes], ending: str) -> None:
        """Send bytes on a connection of their own, and end it."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=TIMEOUT) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                for piece in pieces:
                    sock.sendall(piece)
                if ending == "half":
                    sock.shutdown(socket.SHUT_WR)
                    while sock.recv(65536):
                        pass
                elif ending == "reset":
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            except ConnectionError:
                pass  # It is the server's right not to hear more of it.

    def check(self) -> None:
        """Assert that the pair hears each other, and that nothing was logged."""
        self._number += 1
        for speaker, listener in ((self._one, self._two), (self._two, self._one)):
            speaker.say({"type": "probe", "channel": "pair", "number": self._number, "echo": False})
            while (heard := listener.hear_type("probe"))["number"] != self._number:
                pass
            assert heard["meta"]["sender"]["connection_id"] == speaker.connection_id
        assert self.process.poll() is None
        assert self._log.read_text() == ""

    def memory(self) -> int:
        """Return the resident set in bytes."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def connections(self) -> int:
        return int(self._one.ask("get_connection_stats")["data"]["total_connections"])


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    log = tmp_path_factory.mktemp("fuzz") / "log"
    with log.open("wb") as file:
        arguments = [sys.executable, "-W", "error", "-c", _SERVER, request.param]
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=file)
    with process, ExitStack() as stack:
        stack.callback(process.kill)
        assert process.stdout is not None
        assert select.select([process.stdout], [], [], 30)[0], "the server did not start"
        line = process.stdout.readline()
        assert line, log.read_text()
        port = int(line)
        url = f"ws://127.0.0.1:{port}/realtime/ws?channel=pair"
        one = Client(stack.enter_context(connect(url, proxy=None, compression=None)))
        two = Client(stack.enter_context(connect(url, proxy=None, compression=None)))
        assert one.ask("join_room", room_id="a", peer_id="c")["ok"] is True
        running = Target(process, log, port, (one, two))
        running.check()
        before = running.memory()
        yield running
        until = time.monotonic() + TIMEOUT
        while running.connections() != 2:
            assert time.monotonic() < until, "connections are left behind"
        running.check()
        assert running.memory() - before < _MAX_GROWTH


endings = st.sampled_from(["close", "reset", "half"])


@st.composite
def split(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> list[bytes]:
    """Return bytes in pieces, none of them empty."""
    data = draw(whole)
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=4)))
    return [piece for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True) if (piece := data[start:end])]


# HTTP

_paths = st.sampled_from(
    [
        "/",
        "*",
        "/realtime/ws",
        "/realtime/events",
        "/realtime/send",
        "/realtime/stats",
        "/realtime/webrtc/rooms",
        "/realtime/webrtc/rooms/a",
        "/realtime/webrtc/rooms/%ff%2f",
        "/realtime/webrtc/signal",
        "/realtime/webrtc/signaling",
        "/realtime/webrtc/ice-servers",
        "/x%00%ff",
    ]
)
_fields = st.sampled_from(
    [
        "Content-Length: 10",
        "Content-Length: 99999999999999999999",
        "Transfer-Encoding: chunked",
        "Content-Type: application/json",
        "Expect: 100-continue",
        "Connection: close",
        "Connection: keep-alive, upgrade",
        "Upgrade: websocket",
        "Upgrade: h2c",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        "Sec-WebSocket-Protocol: a, b",
        "Sec-WebSocket-Extensions: permessage-deflate",
        "Last-Event-ID: \x80",
    ]
)
_queries = st.sampled_from(
    ["", "?channel=a", "?channel=%ff", "?user_id=%00", "?channel", "?room_id=a", "?room_id=%00", "?" + "&" * 3000]
)
_requests = st.builds(
    lambda method, path, query, fields, body: get(path + query, *fields, method=method) + body,
    st.sampled_from(["GET", "POST", "PUT", "HEAD", "OPTIONS", "DELETE", "CONNECT"]),
    _paths,
    _queries,
    st.lists(_fields, max_size=6),
    st.one_of(st.binary(max_size=40), st.just(b"5\r\nhello\r\n0\r\n\r\n"), st.just(b'{"channel":"a"}')),
)


# WebSocket

_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=10),
    st.sampled_from(["a", "$a", "pair", "", "command", "text", "ping", "join_channel", "error", "x" * 300]),
)
_values = st.recursive(
    _scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)
_messages = st.dictionaries(
    st.sampled_from(["type", "command", "data", "id", "channel", "recipient_id", "echo", "event", "meta", "x"]),
    _values,
    max_size=6,
).filter(lambda message: message.get("channel") != "pair")
_commands = st.builds(
    lambda name, channel, extra: {"type": "command", "command": name, "data": {"channel": channel}, **extra},
    st.sampled_from(["ping", "join_channel", "leave_channel", "presence", "get_connection_stats", "get_active_users"]),
    _scalars.filter(lambda channel: channel != "pair"),
    st.dictionaries(st.sampled_from(["id", "data"]), _scalars, max_size=2),
)
_payloads = st.one_of(
    st.binary(max_size=200),
    st.one_of(_messages, _commands).map(lambda message: json.dumps(message).encode()),
    st.sampled_from(
        [b"[" * 50_000, b'{"a":' * 10_000, b'"\\ud800"', b'{"type":"a","channel":"\\ud800"}', b"x" * 65_537]
    ),
)
# Signals, and what leads to them

_names = st.one_of(st.sampled_from(["a", "b", "c"]), st.sampled_from(["a", "b", "c"]), _values)
_room_commands = st.builds(
    lambda name, data, extra: {"type": "command", "command": name, "data": data, **extra},
    st.sampled_from(["create_room", "join_room", "leave_room", "get_rooms"]),
    st.fixed_dictionaries(
        {"room_id": _names},
        optional={
            "peer_id": _names,
            "instance": _names,
            "metadata": _values,
            "rollback": _scalars,
            "max_participants": _scalars,
            "since": st.one_of(_values, st.fixed_dictionaries({"epoch": _scalars, "offset": _scalars})),
        },
    ),
    st.fixed_dictionaries({}, optional={"id": _scalars}),
)
_signals = st.fixed_dictionaries(
    {"signal_type": st.one_of(st.sampled_from(["offer", "answer", "ice-candidate", "bye"]), _values)},
    optional={
        "type": st.one_of(st.just("webrtc_signal"), _scalars),
        "target_peer_id": _names,
        "target_instance": _names,
        "peer_id": _names,
        "room_id": _names,
        "negotiation": _names,
        "sdp": st.one_of(st.just("v=0"), _values),
        "ice_candidate": st.one_of(st.just({"candidate": ""}), _values),
        "id": _scalars,
        "channel": _scalars.filter(lambda channel: channel != "pair"),
    },
)
# What gets through: one of the pair is there, as "c".
_passed = st.fixed_dictionaries(
    {"signal_type": st.just("offer"), "target_peer_id": st.just("c"), "sdp": st.just("v=0")}, optional={"x": _values}
)
_said = st.one_of(_room_commands, _signals, _passed).map(lambda message: masked_frame(json.dumps(message).encode()))

_well_formed = st.builds(masked_frame, _payloads, st.sampled_from([0, 1, 1, 1, 2, 8, 9, 10]))
_frames = st.one_of(
    _well_formed,
    _well_formed.map(lambda frame: bytes([frame[0] & 0x7F]) + frame[1:]),  # goes on
    st.builds(lambda frame, bits: bytes([frame[0] ^ bits]) + frame[1:], _well_formed, st.integers(1, 255)),
    st.binary(max_size=20),
)

_live = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@_live
@given(split(st.binary(max_size=300)), endings)
def test_any_bytes(target: Target, pieces: list[bytes], ending: str) -> None:
    target.hit(pieces, ending)
    target.check()


@_live
@given(split(st.lists(_requests, min_size=1, max_size=3).map(b"".join)), endings)
def test_what_looks_like_http(target: Target, pieces: list[bytes], ending: str) -> None:
    target.hit(pieces, ending)
    target.check()


@_live
@given(split(st.lists(_frames, max_size=6).map(b"".join)), st.booleans(), endings)
def test_what_follows_a_handshake(target: Target, pieces: list[bytes], at_once: bool, ending: str) -> None:
    handshake = raw_upgrade("/realtime/ws?channel=a&user_id=b")
    pieces = [handshake + pieces[0], *pieces[1:]] if at_once and pieces else [handshake, *pieces]
    target.hit(pieces, ending)
    target.check()


@_live
@given(
    st.lists(_said, max_size=8),
    st.sampled_from(["", "room_id=a&peer_id=a", "room_id=a&peer_id=b&session=s&instance=i", "room_id=b"]),
    st.sampled_from(["", "&last_event_id=x", "&last_event_id=a-1", "&user_id=b"]),
    endings,
)
def test_what_peers_may_say(target: Target, frames: list[bytes], room: str, more: str, ending: str) -> None:
    handshake = raw_upgrade(f"/realtime/webrtc/signaling?{room}{more}")
    target.hit([handshake, *frames], ending)
    target.check()
