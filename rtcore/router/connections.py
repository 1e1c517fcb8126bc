"""The connections of a router, and the users behind them."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from rtcore.errors import LocalProtocolError
from rtcore.idempotency import Publisher
from rtcore.permissions import Grant

__all__ = ["Connection", "Connections"]


@attrs.define
class Connection:
    """One connection.

    Attributes:
        user_id: Its user, or ``None`` for somebody anonymous.
        grant: What it is allowed; may change.
        publishers: Under each of these it may have made a publication before, its own first.
        channels: What it has joined, in the order in which it did.
    """

    user_id: str | None
    grant: Grant
    publishers: tuple[Publisher, ...]
    channels: dict[str, None] = attrs.field(factory=dict)


class Connections:
    """The connections by their ids, and by their users."""

    def __init__(self) -> None:
        self._connections: dict[str, Connection] = {}
        self._users: dict[str, dict[str, None]] = {}

    def __len__(self) -> int:
        return len(self._connections)

    def __contains__(self, connection_id: str) -> bool:
        return connection_id in self._connections

    @property
    def users(self) -> Mapping[str, Mapping[str, None]]:
        """The ids of each user's connections, both first come first."""
        return self._users

    def get(self, connection_id: str) -> Connection:
        """Return a connection.

        Raises:
            LocalProtocolError: If there is none of that id.
        """
        try:
            return self._connections[connection_id]
        except KeyError:
            raise LocalProtocolError(f"connection {connection_id!r} is not attached") from None

    def find(self, connection_id: str) -> Connection | None:
        """Return a connection, or ``None`` if there is none of that id."""
        return self._connections.get(connection_id)

    def add(self, connection_id: str, connection: Connection) -> None:
        """Add a connection of a new id."""
        self._connections[connection_id] = connection
        if connection.user_id is not None:
            self._users.setdefault(connection.user_id, {})[connection_id] = None

    def remove(self, connection_id: str) -> Connection:
        """Remove and return a connection; its user goes with the last one.

        Raises:
            LocalProtocolError: If there is none of that id; nothing has changed.
        """
        connection = self.get(connection_id)
        del self._connections[connection_id]
        if connection.user_id is not None:
            others = self._users[connection.user_id]
            del others[connection_id]
            if not others:
                del self._users[connection.user_id]
        return connection
