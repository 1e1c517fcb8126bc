"""The limits and intervals of a node."""

from __future__ import annotations

import attrs

from rtcore.rate_limit import RateLimitConfig
from rtcore.router import RouterConfig
from rtcore.session import Transport
from rtcore.signaling import SignalingConfig
from rtcore.uploads import FileConfig

__all__ = ["NodeConfig"]


@attrs.frozen
class NodeConfig:
    """Limits and intervals of one server.

    Attributes:
        max_connections: Connections of all transports together.
        max_websocket: WebSocket connections, or ``None`` for no limit of their own.
        max_sse: Event streams, likewise.
        max_per_user: Connections of one user, likewise.
        max_per_address: Connections from one address, likewise.
        websocket_heartbeat: Seconds between two heartbeats on a WebSocket, or ``None`` for none.
        sse_heartbeat: Seconds between two heartbeats on an event stream, likewise.
        max_message_size: The most bytes in one message of a client.
        retry_after: Seconds after which somebody turned away may try again.
        rate_limits: How fast clients may talk.
        router: Limits of channels.
        signaling: Limits of rooms, or ``None`` for a server without them.
        files: Limits of files, or ``None`` for a server that takes none.
    """

    max_connections: int = 1000
    max_websocket: int | None = None
    max_sse: int | None = None
    max_per_user: int | None = None
    max_per_address: int | None = None
    websocket_heartbeat: float | None = 30.0
    sse_heartbeat: float | None = 30.0
    max_message_size: int = 2**20
    retry_after: int = 5
    rate_limits: RateLimitConfig = attrs.field(factory=RateLimitConfig)
    router: RouterConfig = attrs.field(factory=RouterConfig)
    signaling: SignalingConfig | None = attrs.field(factory=SignalingConfig)
    files: FileConfig | None = None

    def heartbeat_interval(self, transport: Transport) -> float | None:
        """Return the seconds between two heartbeats on `transport`."""
        return self.websocket_heartbeat if transport is Transport.WEBSOCKET else self.sse_heartbeat
