"""One channel: who subscribes to it, who is present, what it has said, and the numbers of its publications."""

from __future__ import annotations

from typing import Final

import attrs

from .filters import Filter
from .history import History, Memory
from .messages import Message
from .namespaces import Namespace
from .presence import Presence

__all__ = ["BROADCAST", "Channel", "Group", "connection_channel", "is_builtin", "user_channel"]

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
class Group:
    """Subscribers who hear the same.

    Attributes:
        filter: What they want to hear, or ``None`` for everything.
        connections: Their ids, first come first; the same object until that changes.
    """

    filter: Filter | None
    connections: tuple[str, ...]


@attrs.define(eq=False)
class _Subscription:
    user_id: str | None
    filter: Filter | None


class Channel:
    """The state of one channel.

    Subscribers are kept in the order in which they came, in groups by what they want to hear. `groups` is the same
    object for all publications between two changes of membership, so a publication costs nothing per subscriber here.

    Args:
        name: Its name.
        epoch: The life in which its publications are numbered; differs from every other of any channel.
        namespace: What holds for it.
        memory: What counts the bytes of its history.
        lost_seq: The number of the newest publication of the router that a channel of this name may have forgotten.

    Attributes:
        history: Its publications.
        presence: Who is there.
        changes: The ``user_joined`` and ``user_left``, a stream beside the publications.
        changes_epoch: The life in which those are numbered.
    """

    __slots__ = (
        "_by_filter",
        "_changes_lives",
        "_groups",
        "_subscriptions",
        "changes",
        "changes_epoch",
        "epoch",
        "history",
        "name",
        "namespace",
        "presence",
    )

    def __init__(self, name: str, epoch: str, namespace: Namespace, *, memory: Memory, lost_seq: int = 0) -> None:
        self.name = name
        self.epoch = epoch
        self.namespace = namespace
        kept = 1 if namespace.last_value else namespace.persistent_size
        size, ttl = namespace.history_size, namespace.history_ttl
        self.history = History(size=size, ttl=ttl, persistent_size=kept, memory=memory, lost_seq=lost_seq)
        self.presence = Presence()
        self.changes = History(size=size, ttl=ttl, persistent_size=0, memory=memory, lost_seq=lost_seq)
        self.changes_epoch = f"{epoch}p"
        self._changes_lives = 1
        self._subscriptions: dict[str, _Subscription] = {}
        self._by_filter: dict[Filter | None, dict[str, None]] = {}
        self._groups: tuple[Group, ...] | None = ()

    def __len__(self) -> int:
        return len(self._subscriptions)

    def __contains__(self, connection_id: str) -> bool:
        return connection_id in self._subscriptions

    @property
    def offset(self) -> int:
        """The number of its last publication; 0 before the first."""
        return self.history.offset

    @property
    def groups(self) -> tuple[Group, ...]:
        """The subscribers; the same object until that changes."""
        if self._groups is None:
            self._groups = tuple(Group(wanted, tuple(found)) for wanted, found in self._by_filter.items())
        return self._groups

    def subscribe(
        self, connection_id: str, user_id: str | None, filter: Filter | None = None, info: Message | None = None
    ) -> bool:
        """Add a subscriber, or change what one wants to hear, and what others are told about it.

        Args:
            connection_id: The subscriber.
            user_id: Its user.
            filter: What it wants to hear, or ``None`` for everything.
            info: What the others are told about it beside these, or ``None`` for nothing.

        Returns:
            Whether somebody is present now who was not before; always false in a built-in channel.
        """
        known = self._subscriptions.get(connection_id)
        if known is None:
            self._subscriptions[connection_id] = _Subscription(user_id, filter)
            self._by_filter.setdefault(filter, {})[connection_id] = None
            self._groups = None
        elif known.filter != filter:
            self._regroup(connection_id, known.filter)
            known.filter = filter
            self._by_filter.setdefault(filter, {})[connection_id] = None
        return not is_builtin(self.name) and self.presence.enter(connection_id, user_id, info)

    def unsubscribe(self, connection_id: str, *, until: float | None = None) -> bool:
        """Remove a subscriber.

        Args:
            connection_id: A subscriber.
            until: See `Presence.leave`.

        Returns:
            Whether somebody is gone who was present; always false in a built-in channel.
        """
        subscription = self._subscriptions.pop(connection_id)
        self._regroup(connection_id, subscription.filter)
        if is_builtin(self.name):
            return False
        return self.presence.leave(connection_id, subscription.user_id, until=until)

    def filter_of(self, connection_id: str) -> Filter | None:
        """Return what a subscriber wants to hear, or ``None`` for everything."""
        return self._subscriptions[connection_id].filter

    def restart_changes(self, *, lost_seq: int) -> None:
        """Begin a new life of the comings and goings: those who followed them have missed some."""
        self.changes.restart()
        self.changes.lost_seq = lost_seq
        self._changes_lives += 1
        self.changes_epoch = f"{self.epoch}p{self._changes_lives}"

    def clear(self) -> None:
        """Let go of everything it has said."""
        self.history.clear()
        self.changes.clear()

    def next_timeout(self) -> float | None:
        """Return when `expire` or `Presence.take_gone` has something to do, in monotonic seconds, or ``None``."""
        due = (self.history.next_timeout(), self.changes.next_timeout(), self.presence.next_timeout())
        return min((at for at in due if at is not None), default=None)

    def expire(self, *, now: float) -> None:
        """Let go of what has been held for long enough."""
        self.history.expire(now=now)
        self.changes.expire(now=now)

    def _regroup(self, connection_id: str, wanted: Filter | None) -> None:
        group = self._by_filter[wanted]
        del group[connection_id]
        if not group:
            del self._by_filter[wanted]
        self._groups = None
