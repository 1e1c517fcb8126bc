"""Where a WebSocket connection stands."""

from __future__ import annotations

from enum import Enum

__all__ = ["WebSocketState"]


class WebSocketState(Enum):
    """Where a connection stands."""

    CONNECTING = "connecting"
    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"
