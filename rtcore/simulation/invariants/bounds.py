"""Nothing grows without bounds, and nothing is left when everybody has left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .invariant import Invariant

if TYPE_CHECKING:
    from rtcore.simulation.server import SimulatedServer

__all__ = ["Bounds", "Emptiness"]


class Bounds(Invariant):
    """What waits for a connection is never more than is allowed.

    Attributes:
        overflows: How many connections were ended since too much waited for them.
    """

    name = "buffers_are_bounded"

    def __init__(self) -> None:
        self.overflows = 0

    def server_overflowed(self, server: SimulatedServer, connection_id: str) -> None:
        """See `Observer`."""
        self.overflows += 1

    def check(self) -> None:
        """See `Invariant`."""
        for server in self.simulation.servers:
            config = server.config
            files = config.node.files
            # The last one may be larger than there is room for.
            message_size = config.node.max_message_size + (0 if files is None else files.max_binary_size)
            for connection in server.connections.values():
                backlog = connection.backlog
                if backlog and (len(backlog) > config.max_waiting or backlog.bytes > config.max_backlog + message_size):
                    raise self.broken(
                        f"{len(backlog)} messages of {backlog.bytes} bytes wait for {connection.connection_id}"
                    )


class Emptiness(Invariant):
    """When everybody has left, servers hold nothing."""

    name = "nothing_is_left"

    def emptied(self) -> None:
        """See `Invariant`."""
        for server in self.simulation.servers:
            if server.connections:
                raise self.broken(f"{server} has connections: {', '.join(server.connections)}")
            if not server.node.empty:
                self._check_kept(server)

    def _check_kept(self, server: SimulatedServer) -> None:
        """Fail unless all that is left are publications that channels keep for later joiners."""
        node = server.node
        router = node._router
        left = {
            "connections": len(router._connections),
            "users": router.user_count,
            "publishers": len(router._published),
            "limits": len(node._limiters),
            "rooms": 0 if node.signaling is None else len(node.signaling.rooms),
        }
        if any(left.values()):
            raise self.broken(f"{server} holds {left}")
        for channel in router._registry._channels.values():
            history = channel.history
            if len(channel) or len(channel.presence) or not history.keeps or history.next_timeout() is not None:
                raise self.broken(f"{server} holds {channel.name}, which keeps nothing for later joiners")
