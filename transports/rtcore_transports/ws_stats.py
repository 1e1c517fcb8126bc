"""What a `WSClient` says of itself."""

from __future__ import annotations

import attrs

__all__ = ["WSStats"]


@attrs.frozen
class WSStats:
    """What a `WSClient` has done since it was connected first.

    Attributes:
        state: ``idle``, ``connecting``, ``connected``, ``waiting`` (for the next attempt) or ``closed``.
        connection_id: The server's name for the last connection.
        user_id: The user that the server takes the client for.
        channels: The channels that it is, or wants to be, a member of.
        reconnects: How often a connection followed on another.
        messages_received: Messages of the server, answers included.
        messages_sent: Messages handed to a connection, commands and the parts of files included.
        bytes_received: Bytes of all connections, framing and handshakes included.
        bytes_sent: Likewise.
        queued: What has been sent while there was no connection, and waits for one.
        unacknowledged: Publications that have been sent, or wait to be, and that the server has not answered yet.
        waiting: Messages that wait for a handler or for iteration.
        dropped: Messages that nobody took, and that made room for newer ones.
    """

    state: str = "idle"
    connection_id: str | None = None
    user_id: str | None = None
    channels: tuple[str, ...] = ()
    reconnects: int = 0
    messages_received: int = 0
    messages_sent: int = 0
    bytes_received: int = 0
    bytes_sent: int = 0
    queued: int = 0
    unacknowledged: int = 0
    waiting: int = 0
    dropped: int = 0
