"""How a WebSocket ends: every order of closing, and silence."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rtcore.frames import (
    Opcode,
    encode_close,
    encode_frame,
    encode_ping,
    encode_text,
)
from rtcore.websocket import (
    Accept,
    Close,
    Closed,
    PongReceived,
    SendText,
    TextReceived,
    WebSocket,
    WebSocketConfig,
    WebSocketState,
    Write,
)

from .websocket_talk import CONFIG, KEY, REQUEST, client, masked, masked_close, server


def farewell(code: int, reason: str) -> str:
    return f"{code} {reason}"


# Every order of closing


def test_server_closes_first() -> None:
    machine = server()
    assert machine.send(Close(1001, "restart"), now=1.0) == [Write(encode_close(1001, "restart"))]
    assert (machine.state, machine.next_timeout()) == (WebSocketState.CLOSING, 11.0)
    assert machine.receive_data(masked(Opcode.TEXT, b"on its way") + masked(Opcode.PING), now=2.0) == [
        TextReceived("on its way")
    ]
    assert machine.receive_data(masked_close(1001) + b"more", now=2.0) == [Closed(1001, "restart", None, clean=True)]
    assert machine.receive_data(b"more", now=2.0) == []
    assert machine.receive_eof(now=2.0) == []
    assert machine.handle_timeout(now=100.0) == []
    assert machine.next_timeout() is None


def test_client_closes_first() -> None:
    machine = client()
    assert machine.send(Close(), now=1.0) == [Write(masked_close(1000))]
    assert machine.receive_data(encode_close(1000), now=2.0) == []
    assert (machine.state, machine.next_timeout()) == (WebSocketState.CLOSING, 11.0)
    assert machine.receive_eof(now=2.0) == [Closed(1000, "", None, clean=True)]


def test_client_closes_a_server() -> None:
    assert server().receive_data(masked_close(1000, "bye") + masked(Opcode.TEXT, b"late"), now=0.0) == [
        Write(encode_close(1000)),
        Closed(1000, "bye", None, clean=True),
    ]


def test_server_closes_a_client() -> None:
    machine = client()
    assert machine.receive_data(encode_close(4401, "expired") + encode_text(b"late"), now=1.0) == [
        Write(masked_close(4401))
    ]
    assert (machine.state, machine.next_timeout()) == (WebSocketState.CLOSING, 11.0)
    assert machine.receive_data(encode_text(b"late"), now=2.0) == []
    assert machine.receive_eof(now=3.0) == [Closed(4401, "expired", None, clean=True)]


def test_server_does_not_close_the_transport() -> None:
    machine = client()
    machine.receive_data(encode_close(1000), now=1.0)
    assert machine.handle_timeout(now=10.9) == []
    assert machine.handle_timeout(now=11.0) == [Closed(1000, "", None, clean=True)]


def test_both_close_at_once() -> None:
    one, other = server(), client()
    one.send(Close(1001), now=0.0)
    other.send(Close(1000), now=0.0)
    assert one.receive_data(masked_close(1000), now=0.0) == [Closed(1001, "", None, clean=True)]
    assert other.receive_data(encode_close(1001), now=0.0) == []
    assert other.receive_eof(now=0.0) == [Closed(1000, "", None, clean=True)]


def test_close_without_a_code() -> None:
    assert server().receive_data(masked(Opcode.CLOSE), now=0.0) == [
        Write(encode_frame(Opcode.CLOSE, b"")),
        Closed(1005, "", None, clean=True),
    ]


@pytest.mark.parametrize(
    ("payload", "code", "fault"),
    [
        (b"\x03", 1002, "the close code is invalid"),
        (b"\x03\xed", 1002, "the close code is invalid"),
        (b"\x03\xe8\xff", 1007, "the close reason is not UTF-8"),
    ],
)
def test_close_that_is_wrong(payload: bytes, code: int, fault: str) -> None:
    assert server().receive_data(masked(Opcode.CLOSE, payload), now=0.0) == [
        Write(encode_close(code, fault)),
        Closed(code, fault, fault, clean=True),
    ]


def test_fault_while_closing() -> None:
    machine = server()
    machine.send(Close(1001), now=0.0)
    assert machine.receive_data(masked(Opcode.TEXT, b"\xff"), now=1.0) == []
    assert machine.next_timeout() == 10.0
    assert machine.receive_data(masked_close(1001), now=1.0) == [Closed(1001, "", "the text is not UTF-8", clean=True)]


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "the connection ended without a Close frame"),
        (masked(Opcode.TEXT, b"a"), "the connection ended without a Close frame"),
        (masked(Opcode.TEXT, b"a")[:-1], "the connection ended in the middle of a message"),
        (masked(Opcode.TEXT, b"a", fin=False), "the connection ended in the middle of a message"),
    ],
)
def test_end_without_a_close(data: bytes, fault: str) -> None:
    machine = server()
    machine.receive_data(data, now=0.0)
    assert machine.receive_eof(now=0.0) == [Closed(1006, "", fault, clean=False)]
    assert machine.state is WebSocketState.CLOSED


@pytest.mark.parametrize("make", [server, client])
def test_end_after_our_close(make: Callable[[], WebSocket]) -> None:
    machine = make()
    machine.send(Close(1001), now=0.0)
    assert machine.receive_eof(now=0.0) == [
        Closed(1001, "", "the connection ended before the peer's Close frame", clean=False)
    ]


@pytest.mark.parametrize("make", [server, client])
def test_no_answer_to_our_close(make: Callable[[], WebSocket]) -> None:
    machine = make(WebSocketConfig(close_timeout=3.0))  # type: ignore[call-arg]
    machine.send(Close(1001), now=1.0)
    assert machine.next_timeout() == 4.0
    assert machine.handle_timeout(now=3.9) == []
    assert machine.handle_timeout(now=4.0) == [
        Closed(1001, "", "the peer did not answer the Close frame in time", clean=False)
    ]


# Time


def test_no_pings() -> None:
    machine = server(WebSocketConfig(ping_interval=None))
    assert machine.next_timeout() is None
    machine.receive_data(masked(Opcode.TEXT, b"a"), now=1e9)
    assert machine.next_timeout() is None


def test_ping_after_silence() -> None:
    machine = server()
    assert machine.next_timeout() == 30.0
    assert machine.handle_timeout(now=29.9) == []
    assert machine.handle_timeout(now=30.0) == [Write(encode_ping())]
    assert machine.next_timeout() == 90.0
    assert machine.receive_data(masked(Opcode.PONG), now=31.0) == [PongReceived(b"")]
    assert machine.next_timeout() == 61.0
    assert machine.handle_timeout(now=61.5) == [Write(encode_ping())]
    assert machine.next_timeout() == 121.5


def test_any_byte_is_a_sign_of_life() -> None:
    machine = server()
    machine.receive_data(masked(Opcode.TEXT, b"a")[:1], now=20.0)
    # The deadline has not moved, so that a driver need not; but there is nothing to do at it.
    assert machine.next_timeout() == 30.0
    assert machine.handle_timeout(now=30.0) == []
    assert machine.next_timeout() == 50.0
    assert machine.handle_timeout(now=50.0) == [Write(encode_ping())]
    machine.receive_data(masked(Opcode.TEXT, b"a")[1:2], now=109.0)
    assert machine.handle_timeout(now=110.0) == []
    assert machine.next_timeout() == 139.0


def test_silence_counts_from_the_end_of_the_handshake() -> None:
    machine = WebSocket.server(CONFIG, now=0.0)
    machine.receive_data(REQUEST, now=4.0)
    machine.send(Accept(), now=8.0)
    assert machine.next_timeout() == 38.0
    assert machine.handle_timeout(now=38.0) == [Write(encode_ping())]


def test_no_bytes_are_no_sign_of_life() -> None:
    machine = server()
    assert machine.receive_data(b"", now=20.0) == []
    assert machine.handle_timeout(now=30.0) == [Write(encode_ping())]
    assert machine.receive_data(b"", now=40.0) == []
    assert machine.next_timeout() == 90.0


def test_sending_is_no_sign_of_life() -> None:
    machine = server()
    machine.send(SendText("a"), now=20.0)
    assert machine.handle_timeout(now=30.0) == [Write(encode_ping())]


@pytest.mark.parametrize("make", [server, client])
def test_no_sign_of_life(make: Callable[[WebSocketConfig], WebSocket]) -> None:
    machine = make(WebSocketConfig(farewell=farewell))
    machine.handle_timeout(now=30.0)
    assert machine.handle_timeout(now=89.9) == []
    reason = "no sign of life for 60 seconds after a ping"
    effects = machine.handle_timeout(now=90.0)
    text, close = f"4408 {reason}".encode(), (4408).to_bytes(2, "big") + reason.encode()
    if make is server:
        assert effects == [Write(encode_text(text)), Write(encode_frame(Opcode.CLOSE, close))]
    else:
        assert effects == [Write(masked(Opcode.TEXT, text)), Write(masked(Opcode.CLOSE, close))]
    assert (machine.state, machine.next_timeout()) == (WebSocketState.CLOSING, 100.0)
    mask = None if make is client else KEY
    assert machine.receive_data(encode_frame(Opcode.TEXT, b"back", mask=mask), now=91.0) == []
    assert machine.handle_timeout(now=100.0) == [Closed(4408, reason, reason, clean=False)]


def test_pings_without_a_limit() -> None:
    machine = server(WebSocketConfig(pong_timeout=None))
    for now in (30.0, 60.0, 90.0):
        assert machine.next_timeout() == now
        assert machine.handle_timeout(now=now) == [Write(encode_ping())]


def test_late_timeout_leaves_no_deadline_in_the_past() -> None:
    machine = server()
    assert machine.handle_timeout(now=1000.0) == [Write(encode_ping())]
    assert machine.next_timeout() == 1060.0
