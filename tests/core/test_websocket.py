"""An open WebSocket: messages, misuse, faults of the peer, and splits that do not show."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtcore.errors import LocalProtocolError
from rtcore.frames import (
    Opcode,
    apply_mask,
    encode_close,
    encode_frame,
    encode_ping,
    encode_pong,
    encode_text,
)
from rtcore.websocket import (
    Accept,
    BytesReceived,
    Close,
    Closed,
    PongReceived,
    Reject,
    SendBytes,
    SendPing,
    SendText,
    TextReceived,
    WebSocket,
    WebSocketCommand,
    WebSocketConfig,
    WebSocketEffect,
    WebSocketState,
    Write,
)

from .websocket_talk import CONFIG, KEY, REQUEST, REQUESTED, RESPONSE, client, entropy, masked, masked_close, server


def connecting() -> WebSocket:
    return WebSocket.client(CONFIG, host="a", target="/", entropy=entropy, now=0.0)[0]


# Messages


@pytest.mark.parametrize(
    ("command", "opcode", "payload"),
    [
        (SendText("Привет"), Opcode.TEXT, "Привет".encode()),
        (SendText(""), Opcode.TEXT, b""),
        (SendBytes(b"\x00" * 70000), Opcode.BINARY, b"\x00" * 70000),
        (SendPing(b"p"), Opcode.PING, b"p"),
        (Close(), Opcode.CLOSE, b"\x03\xe8"),
        (Close(4400, "bad"), Opcode.CLOSE, b"\x11\x30bad"),
    ],
)
def test_commands(command: WebSocketCommand, opcode: Opcode, payload: bytes) -> None:
    assert server().send(command, now=0.0) == [Write(encode_frame(opcode, payload))]
    assert client().send(command, now=0.0) == [Write(encode_frame(opcode, payload, mask=KEY))]


def test_client_masks() -> None:
    assert client().send(SendText("Hello"), now=0.0) == [Write(bytes.fromhex("81 85 37 fa 21 3d 7f 9f 4d 51 58"))]


def test_messages_in_order() -> None:
    data = b"".join(
        [
            masked(Opcode.TEXT, b"a"),
            masked(Opcode.BINARY, b"b"),
            masked(Opcode.TEXT, b"c", fin=False),
            masked(Opcode.PING, b"p"),
            masked(Opcode.PONG, b"q"),
            masked(Opcode.CONTINUATION, b"d"),
        ]
    )
    assert server().receive_data(data, now=0.0) == [
        TextReceived("a"),
        BytesReceived(b"b"),
        Write(encode_pong(b"p")),
        PongReceived(b"q"),
        TextReceived("cd"),
    ]


def test_client_answers_pings() -> None:
    assert client().receive_data(encode_ping(b"Hello"), now=0.0) == [Write(masked(Opcode.PONG, b"Hello"))]


# Misuse: raised before anything changes


@pytest.mark.parametrize(
    "command",
    [
        SendText("\ud800"),
        SendPing(bytes(126)),
        Close(1005),
        Close(1006),
        Close(999),
        Close(1000, "x" * 124),
        Accept(),
        Reject(403),
    ],
)
@pytest.mark.parametrize("make", [server, client])
def test_misuse_while_open(make: Callable[[], WebSocket], command: WebSocketCommand) -> None:
    machine = make()
    before = machine.next_timeout()
    with pytest.raises(LocalProtocolError):
        machine.send(command, now=5.0)
    assert (machine.state, machine.next_timeout()) == (WebSocketState.OPEN, before)


ANY: list[WebSocketCommand] = [
    SendText("a"),
    SendBytes(b"a"),
    SendPing(),
    Close(),
    Accept(),
    Reject(403),
]


@pytest.mark.parametrize("command", ANY)
def test_misuse_in_other_states(command: WebSocketCommand) -> None:
    reading = WebSocket.server(CONFIG, now=0.0)
    closing = server()
    closing.send(Close(), now=0.0)
    closed = server()
    closed.receive_eof(now=0.0)
    for machine in (reading, connecting(), closing, closed):
        state = machine.state
        with pytest.raises(LocalProtocolError):
            machine.send(command, now=0.0)
        assert machine.state is state


@pytest.mark.parametrize(
    "changed",
    [
        {"max_message_size": 0},
        {"max_binary_size": 0},
        {"max_frame_size": -1},
        {"max_handshake_size": 0},
        {"ping_interval": 0.0},
        {"pong_timeout": 0.0},
        {"message_timeout": 0.0},
        {"close_timeout": 0.0},
        {"handshake_timeout": float("nan")},
    ],
)
def test_config_is_positive(changed: dict[str, float]) -> None:
    with pytest.raises(LocalProtocolError, match=next(iter(changed))):
        WebSocketConfig(**changed)  # type: ignore[arg-type]


# Faults of the peer

FAULTS = {
    1002: (masked(Opcode.CONTINUATION), "a continuation of no message"),
    1007: (masked(Opcode.TEXT, b"\xff"), "the text is not UTF-8"),
    1009: (masked(Opcode.BINARY, bytes(101)), "a message of more than 100 bytes"),
}
SMALL = WebSocketConfig(max_message_size=100)


@pytest.mark.parametrize("code", FAULTS)
def test_fault(code: int) -> None:
    data, message = FAULTS[code]
    machine = server(SMALL)
    assert machine.receive_data(masked(Opcode.TEXT, b"a") + data + masked(Opcode.TEXT, b"b"), now=1.0) == [
        TextReceived("a"),
        Write(encode_close(code, message)),
    ]
    assert machine.state is WebSocketState.CLOSING
    assert machine.next_timeout() == 11.0
    assert machine.receive_data(masked(Opcode.TEXT, b"c") + masked(Opcode.PING), now=2.0) == []
    assert machine.receive_data(masked_close(code), now=3.0) == [Closed(code, message, message, clean=True)]


def test_fault_and_close_in_one_read() -> None:
    data, message = FAULTS[1002]
    assert server().receive_data(data + masked_close(1000), now=0.0) == [
        Write(encode_close(1002, message)),
        Closed(1002, message, message, clean=True),
    ]


def test_client_after_a_fault_waits_for_the_server_to_go() -> None:
    machine = client(SMALL)
    message = "a message of more than 100 bytes"
    payload = (1009).to_bytes(2, "big") + message.encode()
    assert machine.receive_data(encode_text(bytes(101)), now=0.0) == [Write(masked(Opcode.CLOSE, payload))]
    assert machine.receive_data(encode_close(1009), now=0.0) == []
    assert machine.receive_eof(now=0.0) == [Closed(1009, message, message, clean=True)]


def test_frame_limit() -> None:
    machine = server(WebSocketConfig(max_frame_size=10))
    message = "a frame of more than 10 bytes"
    assert machine.receive_data(masked(Opcode.TEXT, bytes(11)), now=0.0) == [Write(encode_close(1009, message))]


def test_binary_limit() -> None:
    machine = server(WebSocketConfig(max_message_size=10, max_binary_size=100))
    assert machine.receive_data(masked(Opcode.BINARY, bytes(100)), now=0.0) == [BytesReceived(bytes(100))]
    message = "a message of more than 10 bytes"
    assert machine.receive_data(masked(Opcode.TEXT, bytes(11)), now=0.0) == [Write(encode_close(1009, message))]


def farewell(code: int, reason: str) -> str:
    return f"{code} {reason}"


def test_farewell_goes_before_the_close() -> None:
    config = WebSocketConfig(farewell=farewell, max_message_size=100)
    for code, (data, message) in FAULTS.items():
        assert server(config).receive_data(data, now=0.0) == [
            Write(encode_text(f"{code} {message}".encode())),
            Write(encode_close(code, message)),
        ]


def test_no_farewell_when_somebody_else_closes() -> None:
    config = WebSocketConfig(farewell=farewell)
    assert server(config).send(Close(1001), now=0.0) == [Write(encode_close(1001))]
    assert server(config).receive_data(masked_close(1000), now=0.0)[0] == Write(encode_close(1000))


# Splits do not show

FRAMES = [
    masked(Opcode.TEXT, "Привет".encode()),
    masked(Opcode.TEXT, b"x" * 300),
    masked(Opcode.BINARY, b"b"),
    masked(Opcode.PING, b"p"),
    masked(Opcode.PONG),
    masked(Opcode.TEXT, b"\xd0", fin=False),
    masked(Opcode.CONTINUATION, b"\x9f"),
    masked(Opcode.TEXT, b"\xff"),
    masked(Opcode.BINARY, bytes(2000)),
    masked_close(1000, "bye"),
    masked_close(1006),
    b"\xff\xff",
]


def unmask(frame: bytes) -> bytes:
    """Turn one of `FRAMES` into what a server sends."""
    if frame == b"\xff\xff":
        return frame
    start = 6 if frame[1] & 0x7F < 126 else 8
    return frame[:1] + bytes((frame[1] & 0x7F,)) + frame[2 : start - 4] + apply_mask(frame[start:], KEY)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


def run(machine: WebSocket, chunks: list[bytes]) -> list[WebSocketEffect]:
    effects: list[WebSocketEffect] = []
    for chunk in chunks:
        effects += machine.receive_data(chunk, now=0.0)
        if effects[-1:] == [REQUESTED]:
            effects += machine.send(Accept(), now=0.0)
    return effects + machine.receive_eof(now=0.0)


split = st.lists(st.integers(0, 10**6), max_size=12)
LIMITED = WebSocketConfig(max_message_size=1000, farewell=farewell)


@given(frames=st.lists(st.sampled_from(FRAMES), max_size=6), places=split)
def test_splits_do_not_show_on_a_server(frames: list[bytes], places: list[int]) -> None:
    data = REQUEST + b"".join(frames)
    whole = run(WebSocket.server(LIMITED, now=0.0), [data])
    assert run(WebSocket.server(LIMITED, now=0.0), cut(data, places)) == whole
    assert isinstance(whole[-1], Closed)
    assert sum(isinstance(effect, Closed) for effect in whole) == 1


@given(frames=st.lists(st.sampled_from(FRAMES).map(unmask), max_size=6), places=split, status=st.booleans())
def test_splits_do_not_show_on_a_client(frames: list[bytes], places: list[int], status: bool) -> None:
    data = (RESPONSE if status else RESPONSE.replace(b"101", b"200")) + b"".join(frames)

    def outcome(chunks: list[bytes]) -> list[WebSocketEffect]:
        machine, _ = WebSocket.client(LIMITED, host="a", target="/", entropy=entropy, now=0.0)
        return run(machine, chunks)

    whole = outcome([data])
    assert outcome(cut(data, places)) == whole
    assert sum(isinstance(effect, Closed) for effect in whole) == 1


@given(data=st.binary(max_size=200), places=split)
def test_no_bytes_make_it_raise(data: bytes, places: list[int]) -> None:
    assert run(server(LIMITED), cut(data, places)) == run(server(LIMITED), [data])
    assert run(client(LIMITED), cut(data, places)) == run(client(LIMITED), [data])
