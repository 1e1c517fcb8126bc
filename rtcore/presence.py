"""Who is present in one channel: users, counted once whatever the number of their connections, and who just left."""

from __future__ import annotations

from typing import TypeAlias

import attrs

from .messages import Message

__all__ = ["Member", "Presence"]

# Anonymous connections are each somebody of their own.
_Identity: TypeAlias = tuple[str | None, str]


@attrs.frozen
class Member:
    """Someone present in a channel.

    Attributes:
        user_id: The user; ``None`` for somebody anonymous.
        connection_id: The connection by which they came first, of those still there; of a user who may be about to
            come back, the last one.
        info: What is told about whoever is behind that connection, or ``None`` for nothing.
    """

    user_id: str | None
    connection_id: str
    info: Message | None = None


class Presence:
    """The members of a channel.

    A user whose last connection is lost stays present for a while, so that a quick reconnect is silent.
    """

    __slots__ = ("_leaving", "_members")

    def __init__(self) -> None:
        # The connections of each, and what is told about whoever is behind them.
        self._members: dict[_Identity, dict[str, Message | None]] = {}
        # Those without a connection, when they are gone, and who they were by the connection that they had last. All
        # wait equally long: first in, first out.
        self._leaving: dict[_Identity, tuple[float, Member]] = {}

    def __len__(self) -> int:
        return len(self._members)

    def members(self) -> list[Member]:
        """Return who is present, first come first."""
        return [
            Member(identity[0], *next(iter(connections.items()))) if connections else self._leaving[identity][1]
            for identity, connections in self._members.items()
        ]

    def enter(self, connection_id: str, user_id: str | None, info: Message | None = None) -> bool:
        """Add a connection, or change the `info` of one; tells whether somebody is present now who was not before."""
        identity = _identity(connection_id, user_id)
        appeared = identity not in self._members
        self._members.setdefault(identity, {})[connection_id] = info
        self._leaving.pop(identity, None)
        return appeared

    def leave(self, connection_id: str, user_id: str | None, *, until: float | None) -> bool:
        """Remove a connection; tells whether somebody is gone who was present.

        Args:
            connection_id: One that has entered.
            user_id: Its user.
            until: When a user without any further connection counts as gone, in monotonic seconds; ``None`` for at
                once. Somebody anonymous cannot come back, and is gone at once.
        """
        identity = _identity(connection_id, user_id)
        connections = self._members[identity]
        info = connections.pop(connection_id)
        if connections:
            return False
        if until is not None and user_id is not None:
            self._leaving[identity] = (until, Member(user_id, connection_id, info))
            return False
        del self._members[identity]
        return True

    def next_timeout(self) -> float | None:
        """Return when the next user counts as gone, in monotonic seconds, or ``None``."""
        return next((until for until, _ in self._leaving.values()), None)

    def take_gone(self, *, now: float) -> Member | None:
        """Remove and return the first user who has not come back in time, or ``None`` if there is none."""
        until = self.next_timeout()
        if until is None or until > now:
            return None
        identity = next(iter(self._leaving))
        _, member = self._leaving.pop(identity)
        del self._members[identity]
        return member


def _identity(connection_id: str, user_id: str | None) -> _Identity:
    return (None, connection_id) if user_id is None else (user_id, "")
