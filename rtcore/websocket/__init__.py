"""One WebSocket connection (RFC 6455), either side, as a state machine: `WebSocket`."""

from .commands import Accept, Close, Reject, SendBytes, SendPing, SendText, WebSocketCommand
from .config import WebSocketConfig
from .effects import (
    BytesReceived,
    Closed,
    HandshakeRequested,
    Opened,
    PongReceived,
    Rejected,
    TextReceived,
    WebSocketEffect,
    Write,
)
from .machine import WebSocket
from .state import WebSocketState

__all__ = [
    "Accept",
    "BytesReceived",
    "Close",
    "Closed",
    "HandshakeRequested",
    "Opened",
    "PongReceived",
    "Reject",
    "Rejected",
    "SendBytes",
    "SendPing",
    "SendText",
    "TextReceived",
    "WebSocket",
    "WebSocketCommand",
    "WebSocketConfig",
    "WebSocketEffect",
    "WebSocketState",
    "Write",
]
