"""What a WebSocket connection asks of its driver, and tells it."""

from __future__ import annotations

from typing import TypeAlias

import attrs

from rtcore.handshake import Headers

__all__ = [
    "BytesReceived",
    "Closed",
    "HandshakeRequested",
    "Opened",
    "PongReceived",
    "Rejected",
    "TextReceived",
    "WebSocketEffect",
    "Write",
]


@attrs.frozen
class Write:
    """Write these bytes to the peer, after all that was to be written before."""

    data: bytes


@attrs.frozen
class HandshakeRequested:
    """Server: a client asks to connect; `Accept` or `Reject` it before the handshake times out.

    Attributes:
        target: Path and query, as sent.
        headers: All headers, names in lower case.
        subprotocols: What the client offers, most wanted first.
    """

    target: str
    headers: Headers
    subprotocols: tuple[str, ...]


@attrs.frozen
class Opened:
    """The handshake is done and messages may be sent.

    Attributes:
        subprotocol: What both sides agreed on.
        headers: The peer's headers, names in lower case.
    """

    subprotocol: str | None
    headers: Headers


@attrs.frozen
class TextReceived:
    """A whole text message."""

    text: str


@attrs.frozen
class BytesReceived:
    """A whole binary message."""

    data: bytes


@attrs.frozen
class PongReceived:
    """A pong, asked for or not."""

    payload: bytes


@attrs.frozen
class Rejected:
    """Client: the server answered the handshake with something else than 101; `Closed` follows.

    Attributes:
        status: The HTTP status.
        headers: All headers, names in lower case.
        body: The body, or as much of it as fits ``max_handshake_size`` together with the head.
    """

    status: int
    headers: Headers
    body: bytes


@attrs.frozen
class Closed:
    """The connection has ended: write what is left to be written, then close the transport. Always last, once.

    Attributes:
        code: The code of the Close frame that came first, ours or the peer's; 1005 where it had none, 1006 where there
            was none. (Section 7.1.5 would have only the peer's count, and so hide why this side ended it.)
        reason: The words with it.
        fault: What the peer did wrong, for logs; ``None`` where it did nothing wrong.
        clean: Whether both Close frames went through.
    """

    code: int
    reason: str
    fault: str | None
    clean: bool


WebSocketEffect: TypeAlias = (
    Write | HandshakeRequested | Opened | TextReceived | BytesReceived | PongReceived | Rejected | Closed
)
