"""Rooms and the peers in them: what is known of each, and who gives way to whom."""

from __future__ import annotations

from typing import TypeAlias

import attrs
import msgspec

from rtcore.errors import CommandError
from rtcore.messages import Message

__all__ = ["Maker", "Peer", "Room", "WebRTCRoom", "is_polite", "is_same_client", "maker_of"]

#: As whose a room counts: a user's, or that of somebody anonymous, who is known by the connection alone.
Maker: TypeAlias = tuple[str, str]


@attrs.define(eq=False)
class Peer:
    """One participant.

    Attributes:
        room: Where it is.
        peer_id: Its name there.
        instance: The life of the application that has this name.
        user_id: Its user, or ``None`` for somebody anonymous.
        session: The secret by which it is known again, or ``None``.
        metadata: What it tells about itself.
        rollback: Whether it can roll a local offer back.
        stream: The built-in channel on which it hears everything about the room, in order.
        connection_id: Its connection, or ``None`` while it is away.
        number: That of the connection that it has, or had last.
        offered: The negotiation of the offer to each peer that was not answered yet, ``None`` for one without a name.
    """

    room: Room
    peer_id: str
    instance: str
    user_id: str | None
    session: str | None
    metadata: Message
    rollback: bool
    stream: str
    connection_id: str | None
    number: int = 0
    offered: dict[str, str | None] = attrs.field(factory=dict)

    def describe(self) -> Message:
        """Return what anybody may know of it."""
        return {
            "peer_id": self.peer_id,
            "user_id": self.user_id,
            "instance": self.instance,
            "metadata": self.metadata,
            "connected": self.connection_id is not None,
        }


@attrs.define(eq=False)
class Room:
    """One room.

    Attributes:
        room_id: Its id.
        name: Its name for people.
        max_participants: How many peers may be in it.
        peers: By id, in the order in which they came.
        maker: As whose it counts, or ``None`` for one that counts as nobody's.
    """

    room_id: str
    name: str
    max_participants: int
    peers: dict[str, Peer] = attrs.field(factory=dict)
    maker: Maker | None = None

    def describe(self) -> Message:
        """Return what anybody may know of it."""
        return {
            "room_id": self.room_id,
            "name": self.name,
            "max_participants": self.max_participants,
            "participants": [peer.describe() for peer in self.peers.values()],
        }

    def described_to(self, listener: Peer) -> Message:
        """Return what one of its peers is told of it and of the others when it enters."""
        others = [
            {**peer.describe(), "polite": is_polite(listener, peer)}
            for peer in self.peers.values()
            if peer is not listener
        ]
        return {
            **self.describe(),
            "peer_id": listener.peer_id,
            "instance": listener.instance,
            "participants": others,
        }


@attrs.frozen
class WebRTCRoom:
    """A room, as anybody is told of it.

    Attributes:
        room_id: Its id.
        name: Its name for people.
        max_participants: How many peers may be in it.
        participants: The peers: ``peer_id``, ``user_id``, ``instance``, ``metadata`` and ``connected`` of each.
    """

    room_id: str
    name: str
    max_participants: int
    participants: tuple[Message, ...] = ()

    @classmethod
    def from_message(cls, message: Message) -> WebRTCRoom:
        """Return the room that a server describes.

        Raises:
            CommandError: It does not describe one.
        """
        try:
            return msgspec.convert(message, _Description).room()
        except msgspec.ValidationError as error:
            raise CommandError("invalid_room", f"this is no room: {error}") from error


class _Description(msgspec.Struct):
    room_id: str
    name: str
    max_participants: int
    participants: list[dict[str, object]] = []

    def room(self) -> WebRTCRoom:
        return WebRTCRoom(self.room_id, self.name, self.max_participants, tuple(self.participants))


def is_polite(peer: Peer, other: Peer) -> bool:
    """Tell whether `peer` gives way to `other` where their offers cross (W3C WebRTC 1.0, section 10.7).

    Of the two, the one that cannot roll back its offer does not; otherwise the one with the smaller id does. It takes
    no memory, so it is the same after any restart.
    """
    if peer.rollback is not other.rollback:
        return peer.rollback
    return peer.peer_id < other.peer_id


def is_same_client(
    known_user: str | None, known_session: str | None, *, user_id: str | None, session: str | None
) -> bool:
    """Tell whether whoever comes as `user_id` with the secret `session` is one who is known already.

    The same user is, and whoever knows the same secret as the same user, or as nobody.
    """
    if user_id is not None and user_id == known_user:
        return True
    return session is not None and session == known_session and user_id == known_user


def maker_of(user_id: str | None, connection_id: str | None) -> Maker | None:
    """Return as whose the rooms count that somebody makes; ``None`` for a program that is no user."""
    if user_id is not None:
        return ("user", user_id)
    return None if connection_id is None else ("connection", connection_id)
