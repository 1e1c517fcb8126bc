"""What a caller may ask of a WebSocket connection."""

from __future__ import annotations

from typing import TypeAlias

import attrs

from rtcore.errors import CloseCode
from rtcore.handshake import Headers

__all__ = ["Accept", "Close", "Reject", "SendBytes", "SendPing", "SendText", "WebSocketCommand"]


@attrs.frozen
class Accept:
    """Server: accept the handshake, with one of the offered subprotocols or none, and headers of the caller's."""

    subprotocol: str | None = None
    headers: Headers = ()


@attrs.frozen
class Reject:
    """Server: refuse the handshake with an HTTP status from 300 to 599."""

    status: int
    headers: Headers = ()
    body: bytes = b""


@attrs.frozen
class SendText:
    """Send a text message."""

    text: str


@attrs.frozen
class SendBytes:
    """Send a binary message."""

    data: bytes


@attrs.frozen
class SendPing:
    """Send a ping with at most 125 bytes; the peer's `PongReceived` carries them back."""

    payload: bytes = b""


@attrs.frozen
class Close:
    """Begin the closing handshake; the reason has at most 123 bytes of UTF-8."""

    code: int = CloseCode.NORMAL_CLOSURE
    reason: str = ""


WebSocketCommand: TypeAlias = Accept | Reject | SendText | SendBytes | SendPing | Close
