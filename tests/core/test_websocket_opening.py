"""A WebSocket's opening handshake through the machine: both sides, early data, and the time it may take."""

from __future__ import annotations

import json

import pytest

from rtcore.errors import LocalProtocolError
from rtcore.frames import (
    Opcode,
    encode_close,
    encode_text,
)
from rtcore.websocket import (
    Accept,
    Closed,
    Opened,
    Reject,
    Rejected,
    SendText,
    TextReceived,
    WebSocket,
    WebSocketCommand,
    WebSocketConfig,
    WebSocketEffect,
    WebSocketState,
    Write,
)

from .websocket_talk import (
    CONFIG,
    HEADERS,
    REQUEST,
    REQUESTED,
    RESPONSE,
    RESPONSE_HEADERS,
    entropy,
    masked,
)


def refusal(effects: list[WebSocketEffect]) -> tuple[int, str]:
    """Read the status and the code of a refused handshake, which must end with `Closed`."""
    written, closed = effects
    assert isinstance(written, Write)
    assert isinstance(closed, Closed)
    top, _, body = written.data.partition(b"\r\n\r\n")
    error = json.loads(body)["error"]
    assert closed == Closed(1006, "", error["message"], clean=False)
    return int(top.split()[1]), error["code"]


# The opening handshake of a server


def test_server_handshake() -> None:
    machine = WebSocket.server(CONFIG, now=0.0)
    assert machine.state is WebSocketState.CONNECTING
    assert machine.receive_data(b"", now=0.0) == []
    assert machine.receive_data(REQUEST[:50], now=0.0) == []
    assert machine.receive_data(REQUEST[50:], now=0.1) == [REQUESTED]
    assert machine.state is WebSocketState.CONNECTING
    effects = machine.send(Accept("b", ((b"X-Node", b"1"),)), now=0.2)
    assert effects == [
        Write(RESPONSE[:-2] + b"sec-websocket-protocol: b\r\nx-node: 1\r\n\r\n"),
        Opened("b", HEADERS),
    ]
    assert machine.state is WebSocketState.OPEN


def from_request(config: WebSocketConfig = CONFIG, **changed: bytes) -> tuple[WebSocket, list[WebSocketEffect]]:
    return WebSocket.from_request(
        config,
        method=changed.get("method", b"GET"),
        target="/chat",
        headers=[(name.title(), value) for name, value in HEADERS],
        http_version=b"1.1",
        now=0.0,
    )


def test_request_that_a_host_has_read() -> None:
    machine, effects = from_request()
    assert effects == [REQUESTED]
    assert machine.receive_data(masked(Opcode.TEXT, b"early"), now=0.0) == []
    assert machine.send(Accept(), now=1.0) == [Write(RESPONSE), Opened(None, HEADERS), TextReceived("early")]


def test_bad_request_that_a_host_has_read() -> None:
    machine, effects = from_request(method=b"PUT")
    assert refusal(effects) == (405, "method_not_allowed")
    assert machine.state is WebSocketState.CLOSED
    assert machine.next_timeout() is None


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\x16\x03\x01", (400, "bad_request")),
        (REQUEST.replace(b"Version: 13", b"Version: 8"), (426, "websocket_version")),
        (REQUEST[:-2] + b"X: " + b"x" * 20000, (431, "headers_too_large")),
    ],
)
def test_bad_request(data: bytes, expected: tuple[int, str]) -> None:
    machine = WebSocket.server(CONFIG, now=0.0)
    assert refusal(machine.receive_data(data + b"and more" * 10000, now=0.0)) == expected
    assert machine.state is WebSocketState.CLOSED
    assert machine.receive_data(REQUEST, now=0.0) == []
    assert machine.receive_eof(now=0.0) == []


def test_reject() -> None:
    machine = WebSocket.server(CONFIG, now=0.0)
    machine.receive_data(REQUEST, now=0.0)
    assert machine.send(Reject(401, ((b"X-A", b"1"),), b"no"), now=0.0) == [
        Write(b"HTTP/1.1 401 Unauthorized\r\nx-a: 1\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno"),
        Closed(1006, "", None, clean=False),
    ]
    assert machine.state is WebSocketState.CLOSED


def test_data_before_the_accept_is_read_after_it() -> None:
    machine = WebSocket.server(CONFIG, now=0.0)
    hello, bye = masked(Opcode.TEXT, b"hello"), masked(Opcode.CLOSE, b"\x03\xe9")
    assert machine.receive_data(REQUEST + hello[:3], now=0.0) == [REQUESTED]
    assert machine.receive_data(hello[3:] + bye, now=0.0) == []
    assert machine.send(Accept(), now=0.0) == [
        Write(RESPONSE),
        Opened(None, HEADERS),
        TextReceived("hello"),
        Write(encode_close(1001)),
        Closed(1001, "", None, clean=True),
    ]


@pytest.mark.parametrize("size", [1000, 10**6])
def test_too_much_before_the_accept(size: int) -> None:
    machine = WebSocket.server(CONFIG, now=0.0)
    data = REQUEST + bytes(65536)
    effects = [e for i in range(0, len(data), size) for e in machine.receive_data(data[i : i + size], now=0.0)]
    assert effects == [REQUESTED]
    assert refusal(machine.receive_data(b"x", now=0.0)) == (400, "early_data")


def test_too_much_with_the_request() -> None:
    machine = WebSocket.server(CONFIG, now=0.0)
    effects = machine.receive_data(REQUEST + bytes(65537), now=0.0)
    assert effects[0] == REQUESTED
    assert refusal(effects[1:]) == (400, "early_data")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", [Closed(1006, "", "the client ended the connection during the handshake", clean=False)]),
        (REQUEST[:-1], [Closed(1006, "", "the client ended the connection during the handshake", clean=False)]),
        (REQUEST, [Closed(1006, "", "the client ended the connection during the handshake", clean=False)]),
    ],
)
def test_client_goes_during_the_handshake(data: bytes, expected: list[WebSocketEffect]) -> None:
    machine = WebSocket.server(CONFIG, now=0.0)
    machine.receive_data(data, now=0.0)
    assert machine.receive_eof(now=0.0) == expected
    with pytest.raises(LocalProtocolError):
        machine.send(Accept(), now=0.0)


# The opening handshake of a client


def test_client_handshake() -> None:
    machine, effects = WebSocket.client(
        CONFIG,
        host="example.com",
        target="/chat",
        headers=[(b"Authorization", b"Bearer x")],
        subprotocols=["a", "b"],
        entropy=entropy,
        now=0.0,
    )
    assert effects == [
        Write(
            b"GET /chat HTTP/1.1\r\nhost: example.com\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
            b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n"
            b"sec-websocket-protocol: a, b\r\nauthorization: Bearer x\r\n\r\n"
        )
    ]
    assert machine.receive_data(RESPONSE[:-2], now=0.0) == []
    assert machine.receive_data(b"Sec-WebSocket-Protocol: a\r\n\r\n" + encode_text(b"hi")[:2], now=0.0) == [
        Opened("a", (*RESPONSE_HEADERS, (b"sec-websocket-protocol", b"a")))
    ]
    assert machine.receive_data(encode_text(b"hi")[2:], now=0.0) == [TextReceived("hi")]


def connecting() -> WebSocket:
    return WebSocket.client(CONFIG, host="a", target="/", entropy=entropy, now=0.0)[0]


def test_server_answers_something_else() -> None:
    machine = connecting()
    assert machine.receive_data(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", now=0.0) == [
        Rejected(403, ((b"content-length", b"2"),), b"no"),
        Closed(1006, "", "the server answered 403", clean=False),
    ]
    assert machine.state is WebSocketState.CLOSED


def test_server_answers_wrongly() -> None:
    assert connecting().receive_data(RESPONSE.replace(b"s3pP", b"S3pP"), now=0.0) == [
        Closed(1006, "", "the answer was not made for this request: 'Sec-WebSocket-Accept' is wrong", clean=False)
    ]


def test_server_goes_during_the_handshake() -> None:
    machine = connecting()
    assert machine.receive_eof(now=0.0) == [
        Closed(1006, "", "the server ended the connection during the handshake", clean=False)
    ]
    assert machine.receive_eof(now=0.0) == []


def test_answer_that_ends_with_the_connection() -> None:
    machine = connecting()
    assert machine.receive_data(b"HTTP/1.1 500 Oops\r\n\r\nno", now=0.0) == []
    assert machine.receive_eof(now=0.0) == [
        Rejected(500, (), b"no"),
        Closed(1006, "", "the server answered 500", clean=False),
    ]


def test_client_that_cannot_be_started() -> None:
    with pytest.raises(LocalProtocolError):
        WebSocket.client(CONFIG, host="a", target="no good", entropy=entropy, now=0.0)


@pytest.mark.parametrize("command", [Accept("c"), Accept(None, ((b"Upgrade", b"x"),)), Reject(101), SendText("a")])
def test_misuse_while_a_handshake_waits(command: WebSocketCommand) -> None:
    machine = WebSocket.server(CONFIG, now=0.0)
    machine.receive_data(REQUEST, now=0.0)
    with pytest.raises(LocalProtocolError):
        machine.send(command, now=0.0)
    assert machine.send(Accept("a"), now=0.0)[1] == Opened("a", HEADERS)


def test_request_takes_too_long() -> None:
    machine = WebSocket.server(CONFIG, now=100.0)
    assert machine.next_timeout() == 110.0
    machine.receive_data(REQUEST[:-1], now=109.0)
    assert machine.handle_timeout(now=109.9) == []
    assert refusal(machine.handle_timeout(now=110.0)) == (408, "handshake_timeout")
    assert machine.next_timeout() is None


def test_accept_takes_too_long() -> None:
    machine = WebSocket.server(CONFIG, now=0.0)
    machine.receive_data(REQUEST, now=9.0)
    assert refusal(machine.handle_timeout(now=10.0)) == (503, "handshake_timeout")
    with pytest.raises(LocalProtocolError):
        machine.send(Accept(), now=10.0)


def test_answer_takes_too_long() -> None:
    machine = connecting()
    assert machine.handle_timeout(now=10.0) == [Closed(1006, "", "the server did not answer in time", clean=False)]
    machine = connecting()
    machine.receive_data(b"HTTP/1.1 500 Oops\r\n\r\nno", now=0.0)
    assert machine.handle_timeout(now=10.0) == [
        Rejected(500, (), b"no"),
        Closed(1006, "", "the server answered 500", clean=False),
    ]


def test_handshake_may_take_any_time() -> None:
    assert WebSocket.server(WebSocketConfig(handshake_timeout=None), now=0.0).next_timeout() is None
