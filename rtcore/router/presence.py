"""What is said of who is present in a channel: the list of those who are, and the changes of it."""

from __future__ import annotations

from rtcore.channels import Channel, Group
from rtcore.encoded import Encoded
from rtcore.messages import Message, encode
from rtcore.namespaces import Namespace
from rtcore.presence import Member

from .commands import Deliver, Roster
from .numbering import Numbering
from .registry import Registry

__all__ = ["Changes", "interruption", "roster_of", "tells_changes"]


def tells_changes(namespace: Namespace) -> bool:
    """Tell whether the channels of a namespace say who comes and goes."""
    return namespace.presence and namespace.join_leave


def roster_of(channel: Channel, *, limit: int) -> Roster | None:
    """Return who is present in a channel, the members left out where they are more than `limit`.

    Returns:
        ``None`` for a channel that does not know.
    """
    if not channel.namespace.presence:
        return None
    count = len(channel.presence)
    members: list[Message] | None = None
    if count <= limit:
        members = [_described(member) for member in channel.presence.members()]
    return Roster(count, members, channel.changes_epoch, channel.changes.offset)


def interruption(channel: Channel, reason: str) -> Encoded:
    """Return what tells those who follow the changes of a channel where they go on, and why something is missing."""
    return encode(
        {
            "type": "gap",
            "stream": "presence",
            "channel": channel.name,
            "epoch": channel.changes_epoch,
            "offset": channel.changes.offset,
            "reason": reason,
        }
    )


class Changes:
    """Tells those in a channel who comes and goes, unless they are too many.

    Args:
        numbering: Of the router.
        registry: Of the channels.
        limit: Above so many members nothing is told.
    """

    def __init__(self, numbering: Numbering, registry: Registry, *, limit: int) -> None:
        self._numbering = numbering
        self._registry = registry
        self._limit = limit

    def appear(self, channel: Channel, member: Member, *, now: float, timestamp: int) -> list[Deliver]:
        """Tell the others in a channel that somebody has come, by ``user_joined``."""
        if len(channel.presence) == self._limit + 1:
            return self._interrupt(channel)
        return self._change(channel, "user_joined", member, skip=member.connection_id, now=now, timestamp=timestamp)

    def vanish(
        self, channel: Channel, connection_id: str, user_id: str | None, *, now: float, timestamp: int
    ) -> list[Deliver]:
        """Tell the others in a channel that somebody has gone, by ``user_left``."""
        if len(channel.presence) == self._limit:
            return self._interrupt(channel)
        # Who has left hears nothing more; another may have its id by now.
        member = Member(user_id, connection_id)
        return self._change(channel, "user_left", member, skip=None, now=now, timestamp=timestamp)

    def _interrupt(self, channel: Channel) -> list[Deliver]:
        """Tell everybody in a channel that its changes are not told for now, or are told again: ask who is there."""
        if not tells_changes(channel.namespace):
            return []
        channel.restart_changes(lost_seq=self._numbering.seq)
        gap = interruption(channel, "presence_limit")
        return [Deliver(gap, group.connections) for group in channel.groups if _follows(group)]

    def _change(
        self, channel: Channel, kind: str, member: Member, *, skip: str | None, now: float, timestamp: int
    ) -> list[Deliver]:
        if not tells_changes(channel.namespace) or len(channel.presence) > self._limit:
            return []
        message: Message = {"type": kind, "channel": channel.name, **_described(member)}
        connection_id, user_id = member.connection_id, member.user_id
        encoded = self._numbering.change(
            channel, message, connection_id=connection_id, user_id=user_id, timestamp=timestamp
        )
        channel.changes.append(self._numbering.seq, encoded, persistent=False, now=now)
        self._registry.published(channel, now=now)
        return [
            Deliver(encoded, group.connections, skip=skip)
            for group in channel.groups
            if _follows(group)
            and (group.filter is None or group.filter.matches(message))
            and group.connections != (skip,)
        ]


def _described(member: Member) -> Message:
    described: Message = {"user_id": member.user_id, "connection_id": member.connection_id}
    if member.info is not None:
        described["info"] = member.info
    return described


def _follows(group: Group) -> bool:
    return group.filter is None or group.filter.presence
