"""A message of which a part has come: how long its end may take."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtcore.frames import Opcode, encode_close, encode_ping, encode_pong, encode_text
from rtcore.websocket import (
    BytesReceived,
    Close,
    Closed,
    PongReceived,
    TextReceived,
    WebSocket,
    WebSocketConfig,
    WebSocketState,
    Write,
)

from .websocket_talk import client, masked, masked_close, server

PATIENT = WebSocketConfig(message_timeout=10.0, ping_interval=None)
LATE = "a message was not complete after 10 s"
TOO_LATE = [Write(encode_close(1008, LATE))]

BEGUN = {
    "one byte": masked(Opcode.TEXT, b"hello")[:1],
    "a header": masked(Opcode.TEXT, b"hello")[:6],
    "a part of a payload": masked(Opcode.BINARY, b"hello")[:-1],
    "a fragment": masked(Opcode.TEXT, b"hello", fin=False),
    "an empty fragment": masked(Opcode.TEXT, fin=False),
    "a part of a ping": masked(Opcode.PING, b"p")[:-1],
    "a message and a part": masked(Opcode.TEXT, b"whole") + masked(Opcode.TEXT, b"hello")[:3],
}


@pytest.mark.parametrize("name", BEGUN)
def test_a_message_must_end_in_time(name: str) -> None:
    machine = server(PATIENT)
    assert machine.next_timeout() is None
    machine.receive_data(BEGUN[name], now=5.0)
    assert machine.next_timeout() == 15.0
    assert machine.handle_timeout(now=14.9) == []
    assert machine.handle_timeout(now=15.0) == TOO_LATE
    assert (machine.state, machine.next_timeout()) == (WebSocketState.CLOSING, 25.0)
    assert machine.receive_data(masked(Opcode.TEXT, b"on its way"), now=16.0) == []


def test_by_default_it_has_two_minutes() -> None:
    machine = server(WebSocketConfig(ping_interval=None))
    machine.receive_data(BEGUN["a fragment"], now=5.0)
    assert machine.next_timeout() == 125.0


def test_a_client_does_not_wait_for_ever_either() -> None:
    machine = client(PATIENT)
    machine.receive_data(encode_text(b"hello")[:-1], now=5.0)
    payload = (1008).to_bytes(2, "big") + LATE.encode()
    assert machine.handle_timeout(now=15.0) == [Write(masked(Opcode.CLOSE, payload))]


def test_the_peer_is_told() -> None:
    config = WebSocketConfig(message_timeout=10.0, farewell=lambda code, reason: f"{code} {reason}")
    machine = server(config)
    machine.receive_data(BEGUN["a fragment"], now=0.0)
    assert machine.handle_timeout(now=10.0) == [
        Write(encode_text(f"1008 {LATE}".encode())),
        Write(encode_close(1008, LATE)),
    ]
    # The rest of the message, then the Close frame, which is found behind it.
    assert machine.receive_data(masked(Opcode.CONTINUATION, b"late") + masked_close(1008), now=11.0) == [
        Closed(1008, LATE, LATE, clean=True)
    ]


def test_progress_is_not_enough() -> None:
    machine = server(PATIENT)
    data = masked(Opcode.TEXT, b"hello")
    for index in range(9):
        assert machine.receive_data(data[index : index + 1], now=float(index)) == []
    assert machine.next_timeout() == 10.0
    assert machine.receive_data(data[9:10], now=9.9) == []
    assert machine.handle_timeout(now=10.0) == TOO_LATE


def test_fragments_and_pings_between_them_are_not_enough() -> None:
    machine = server(PATIENT)
    assert machine.receive_data(masked(Opcode.TEXT, fin=False), now=0.0) == []
    assert machine.receive_data(masked(Opcode.CONTINUATION, b"a", fin=False), now=4.0) == []
    assert machine.receive_data(masked(Opcode.PING, b"p"), now=8.0) == [Write(encode_pong(b"p"))]
    assert machine.receive_data(masked(Opcode.PONG) + masked(Opcode.PING, b"p")[:-1], now=9.0) == [PongReceived(b"")]
    assert machine.next_timeout() == 10.0
    assert machine.handle_timeout(now=10.0) == TOO_LATE


def test_the_end_in_time() -> None:
    machine = server(PATIENT)
    machine.receive_data(masked(Opcode.TEXT, b"a", fin=False), now=0.0)
    assert machine.receive_data(masked(Opcode.CONTINUATION, b"b"), now=9.9) == [TextReceived("ab")]
    assert machine.next_timeout() is None
    assert machine.handle_timeout(now=10.0) == []
    assert machine.state is WebSocketState.OPEN


@pytest.mark.parametrize(
    ("whole", "effect"),
    [
        (masked(Opcode.TEXT, b"a"), TextReceived("a")),
        (masked(Opcode.BINARY, b"a"), BytesReceived(b"a")),
        (masked(Opcode.PING, b"a"), Write(encode_pong(b"a"))),
        (masked(Opcode.PONG, b"a"), PongReceived(b"a")),
    ],
)
def test_the_next_message_has_its_own_time(whole: bytes, effect: object) -> None:
    machine = server(PATIENT)
    assert machine.receive_data(whole[:1], now=0.0) == []
    assert machine.receive_data(whole[1:] + whole[:1], now=6.0) == [effect]
    assert machine.next_timeout() == 16.0
    assert machine.receive_data(whole[1:], now=15.9) == [effect]
    assert machine.next_timeout() is None


def test_any_time() -> None:
    machine = server(WebSocketConfig(message_timeout=None, ping_interval=None))
    machine.receive_data(BEGUN["a fragment"], now=0.0)
    assert machine.next_timeout() is None
    assert machine.handle_timeout(now=1e9) == []


def test_beside_pings() -> None:
    machine = server(WebSocketConfig(message_timeout=45.0, ping_interval=30.0, pong_timeout=60.0))
    machine.receive_data(BEGUN["a fragment"], now=1.0)
    # Bytes of the peer move no deadline: the ping's is found to be early.
    assert machine.next_timeout() == 30.0
    assert machine.handle_timeout(now=30.0) == []
    assert machine.next_timeout() == 31.0
    assert machine.handle_timeout(now=31.0) == [Write(encode_ping())]
    # The answer to the ping would be due at 91.
    assert machine.next_timeout() == 46.0
    assert machine.handle_timeout(now=46.0) == [Write(encode_close(1008, "a message was not complete after 45 s"))]


def test_silence_in_a_message_is_silence() -> None:
    machine = server(WebSocketConfig(message_timeout=200.0))
    machine.receive_data(BEGUN["a fragment"], now=0.0)
    assert machine.handle_timeout(now=30.0) == [Write(encode_ping())]
    silence = "no sign of life for 60 seconds after a ping"
    assert machine.handle_timeout(now=90.0) == [Write(encode_close(4408, silence))]
    assert machine.next_timeout() == 100.0


@pytest.mark.parametrize("end", ["eof", "close", "fault", "theirs"])
def test_nothing_is_due_any_more_after_the_end(end: str) -> None:
    machine = server(PATIENT)
    machine.receive_data(BEGUN["a fragment"], now=0.0)
    match end:
        case "eof":
            machine.receive_eof(now=1.0)
        case "close":
            machine.send(Close(), now=1.0)
        case "fault":
            assert machine.receive_data(b"\xff" + BEGUN["a fragment"], now=1.0)
        case "theirs":
            machine.receive_data(masked_close(1000), now=1.0)
    assert machine.next_timeout() == (11.0 if end in ("close", "fault") else None)
    machine.receive_data(BEGUN["a fragment"], now=2.0)
    assert machine.next_timeout() == (11.0 if end in ("close", "fault") else None)


PARTS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                masked(Opcode.TEXT, b"hello"),
                masked(Opcode.BINARY, b"x" * 200),
                masked(Opcode.PING, b"p"),
                masked(Opcode.PONG),
                masked(Opcode.TEXT, b"a", fin=False) + masked(Opcode.PING) + masked(Opcode.CONTINUATION, b"b"),
            ]
        ),
        st.integers(1, 300),
    ),
    max_size=8,
)


@given(parts=PARTS)
def test_the_deadline_is_that_of_the_first_byte(parts: list[tuple[bytes, int]]) -> None:
    """Whatever comes in whatever pieces, the deadline counts from the piece in which the unfinished began."""
    machine: WebSocket = server(PATIENT)
    data = b"".join(unit for unit, _ in parts)
    begins = [0]
    for unit, _ in parts:
        begins.append(begins[-1] + len(unit))
    arrived: list[float] = []
    position, now = 0, 0.0
    sizes = [size for _, size in parts]
    while position < len(data):
        size = sizes.pop() if sizes else len(data)
        now += 0.5
        piece = data[position : position + size]
        arrived += [now] * len(piece)
        machine.receive_data(piece, now=now)
        position += len(piece)
        start = max(begin for begin in begins if begin <= position)
        assert machine.next_timeout() == (None if start == position else arrived[start] + 10.0)
