"""Limits and times of a WebSocket connection."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from rtcore.errors import LocalProtocolError

__all__ = ["WebSocketConfig"]


@attrs.frozen(kw_only=True)
class WebSocketConfig:
    """Limits and times of a connection.

    Attributes:
        max_message_size: Bytes of payload that a received message may have; more is a fault, 1009.
        max_binary_size: Bytes of payload, likewise, where the message is binary; ``None`` for as many as of text.
        max_frame_size: Bytes of payload that a received frame may have, ``None`` for as many as a message.
        max_handshake_size: Bytes that the peer's half of the handshake may have, 16 KiB as in h11.
        ping_interval: Seconds of silence after which the peer is pinged; ``None`` for never.
        pong_timeout: Seconds of silence after such a ping that end the connection with 4408; ``None`` for never.
        message_timeout: Seconds from the first byte of a frame or message to its end, after which the connection is
            ended with 1008; ``None`` for any.
        close_timeout: Seconds to wait for the closing handshake, and on a client for the server's end of the bytes.
        handshake_timeout: Seconds that the opening handshake may take; ``None`` for any.
        farewell: Makes, from the code and the reason, a text message that goes before a Close frame of the machine's
            own making, so that the application protocol can say why; ``None`` for no message.

    Raises:
        LocalProtocolError: A number is not positive.
    """

    max_message_size: int = 2**20
    max_binary_size: int | None = None
    max_frame_size: int | None = None
    max_handshake_size: int = 16384
    ping_interval: float | None = 30.0
    pong_timeout: float | None = 60.0
    message_timeout: float | None = 120.0
    close_timeout: float = 10.0
    handshake_timeout: float | None = 10.0
    farewell: Callable[[int, str], str] | None = None

    def __attrs_post_init__(self) -> None:
        """Refuse what is not positive."""
        for name in (
            "max_message_size",
            "max_binary_size",
            "max_frame_size",
            "max_handshake_size",
            "ping_interval",
            "pong_timeout",
            "message_timeout",
            "close_timeout",
            "handshake_timeout",
        ):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise LocalProtocolError(f"{name} is {value}, it must be positive")
