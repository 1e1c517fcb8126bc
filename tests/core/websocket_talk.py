"""Open WebSockets, and the bytes of the other side, as the tests of the machine need them."""

from __future__ import annotations

from rtcore.frames import Opcode, encode_frame
from rtcore.websocket import Accept, HandshakeRequested, Opened, WebSocket, WebSocketConfig, Write

KEY = b"\x37\xfa\x21\x3d"
REQUEST = (
    b"GET /chat HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: a, b\r\n\r\n"
)
HEADERS = (
    (b"host", b"example.com"),
    (b"upgrade", b"websocket"),
    (b"connection", b"Upgrade"),
    (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="),
    (b"sec-websocket-version", b"13"),
    (b"sec-websocket-protocol", b"a, b"),
)
RESPONSE = (
    b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
    b"sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
RESPONSE_HEADERS = (
    (b"upgrade", b"websocket"),
    (b"connection", b"upgrade"),
    (b"sec-websocket-accept", b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
)
REQUESTED = HandshakeRequested("/chat", HEADERS, ("a", "b"))
CONFIG = WebSocketConfig()


def entropy(size: int) -> bytes:
    return KEY if size == 4 else b"the sample nonce"[:size]


def server(config: WebSocketConfig = CONFIG, *, now: float = 0.0) -> WebSocket:
    machine = WebSocket.server(config, now=now)
    assert machine.receive_data(REQUEST, now=now) == [REQUESTED]
    assert machine.send(Accept(), now=now) == [Write(RESPONSE), Opened(None, HEADERS)]
    return machine


def client(config: WebSocketConfig = CONFIG, *, now: float = 0.0) -> WebSocket:
    machine, _ = WebSocket.client(config, host="example.com", target="/chat", entropy=entropy, now=now)
    assert machine.receive_data(RESPONSE, now=now) == [Opened(None, RESPONSE_HEADERS)]
    return machine


def masked(opcode: Opcode, payload: bytes = b"", *, fin: bool = True) -> bytes:
    return encode_frame(opcode, payload, fin=fin, mask=KEY)


def masked_close(code: int, reason: str = "") -> bytes:
    return masked(Opcode.CLOSE, code.to_bytes(2, "big") + reason.encode())
