"""One channel: who subscribes to it, who is present, and the numbers of its publications."""

from __future__ import annotations

from typing import Final, TypeAlias

import attrs

__all__ = ["BROADCAST", "Channel", "Member", "connection_channel", "is_builtin", "user_channel"]

#: The built-in channel that everybody hears.
BROADCAST: Final = "$broadcast"


def connection_channel(connection_id: str) -> str:
    """Return the built-in channel of one connection."""
    return f"$connection:{connection_id}"


def user_channel(user_id: str) -> str:
    """Return the built-in channel of all connections of one user."""
    return f"$user:{user_id}"


def is_builtin(name: str) -> bool:
    """Tell whether a channel is the server's own: nobody joins it, and it has no presence."""
    return name.startswith("$")


@attrs.frozen
class Member:
    """Someone present in a channel.

    Attributes:
        user_id: The user, counted once whatever the number of connections; ``None`` for somebody anonymous.
        connection_id: The connection by which they came first, of those still there.
    """

    user_id: str | None
    connection_id: str


# Anonymous connections are each somebody of their own.
_Identity: TypeAlias = tuple[str | None, str]


class Channel:
    """The state of one channel.

    Subscribers are kept in the order in which they came. `subscribers` is one shared tuple for all
    publications between two changes of membership, so a publication costs nothing per subscriber here.
    """

    __slots__ = ("_members", "_subscribers", "_users", "epoch", "name", "offset", "presence_offset")

    def __init__(self, name: str, epoch: str) -> None:
        self.name = name
        self.epoch = epoch
        self.offset = 0
        self.presence_offset = 0
        self._users: dict[str, str | None] = {}
        self._members: dict[_Identity, dict[str, None]] = {}
        self._subscribers: tuple[str, ...] | None = ()

    def __len__(self) -> int:
        return len(self._users)

    def __contains__(self, connection_id: str) -> bool:
        return connection_id in self._users

    @property
    def subscribers(self) -> tuple[str, ...]:
        """The ids of the subscribed connections, first come first; the same object until that changes."""
        if self._subscribers is None:
            self._subscribers = tuple(self._users)
        return self._subscribers

    @property
    def member_count(self) -> int:
        """How many are present: users, and anonymous connections."""
        return len(self._members)

    def members(self) -> list[Member]:
        """Return who is present, first come first."""
        return [Member(user_id, next(iter(connections))) for (user_id, _), connections in self._members.items()]

    def next_offset(self) -> int:
        """Number one more publication."""
        self.offset += 1
        return self.offset

    def next_presence_offset(self) -> int:
        """Number one more event of the presence stream, which counts for itself."""
        self.presence_offset += 1
        return self.presence_offset

    def subscribe(self, connection_id: str, user_id: str | None) -> bool:
        """Add a subscriber.

        Returns:
            Whether somebody is present now who was not before: a user's first connection, or anybody anonymous.
        """
        assert connection_id not in self._users, "the router asks first"
        self._users[connection_id] = user_id
        self._subscribers = None
        identity = _identity(connection_id, user_id)
        connections = self._members.setdefault(identity, {})
        connections[connection_id] = None
        return len(connections) == 1

    def unsubscribe(self, connection_id: str) -> bool:
        """Remove a subscriber.

        Returns:
            Whether somebody is gone who was present: a user's last connection, or anybody anonymous.
        """
        identity = _identity(connection_id, self._users.pop(connection_id))
        self._subscribers = None
        connections = self._members[identity]
        del connections[connection_id]
        if connections:
            return False
        del self._members[identity]
        return True


def _identity(connection_id: str, user_id: str | None) -> _Identity:
    return (None, connection_id) if user_id is None else (user_id, "")
