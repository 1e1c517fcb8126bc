"""The rooms, the peers in them, and what they are told."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from rtcore.channels import connection_channel
from rtcore.deadlines import Deadlines
from rtcore.errors import Refusal
from rtcore.messages import Message, check, encode

from .commands import CreateRoom, JoinRoom
from .config import SignalingConfig
from .effects import Effect, End, Tell, Unlisten
from .passing import no_peer, pass_on
from .peers import Maker, Peer, Room, is_polite, is_same_client, maker_of
from .signals import Signal, parse_signal

__all__ = ["Entered", "Rooms"]


@attrs.frozen
class Entered:
    """What has become of a join.

    Attributes:
        peer: Who has come: its connection listens to its stream next.
        is_new: Whether it was not there before.
        has_changed: Whether the others know it otherwise, or not at all.
        effects: What must happen first, in order.
    """

    peer: Peer
    is_new: bool
    has_changed: bool
    effects: list[Effect]


class Rooms:
    """All rooms of one server, and the peers in them.

    A peer whose connection was lost is away for `SignalingConfig.peer_ttl` seconds: what it is told meanwhile is said
    on its stream all the same, from where it hears it when it is back.

    Args:
        config: Limits and times.
        entropy: A text that differs between any two servers, past ones included.

    Attributes:
        signals: How many were passed on.
        refused: How many were not.
    """

    def __init__(self, config: SignalingConfig, *, entropy: str) -> None:
        self.signals = 0
        self.refused = 0
        self._config = config
        self._entropy = entropy
        self._serial = 0
        self._rooms: dict[str, Room] = {}
        self._peers: dict[str, dict[str, Peer]] = {}
        self._made: dict[Maker, int] = {}
        self._deadlines: Deadlines[Room | Peer] = Deadlines()

    # What there is

    def __len__(self) -> int:
        return len(self._rooms)

    def __iter__(self) -> Iterator[Room]:
        return iter(self._rooms.values())

    def get(self, room_id: str) -> Room | Refusal:
        """Return a room, or that there is none."""
        return self._rooms.get(room_id) or _no_room(room_id)

    @property
    def peer_count(self) -> int:
        """How many peers are in all rooms, those that are away included."""
        return sum(len(room.peers) for room in self._rooms.values())

    def peers_of(self, connection_id: str) -> list[Peer]:
        """Return the peers that a connection is, in the order in which it entered."""
        return list(self._peers.get(connection_id, {}).values())

    # Rooms

    def make_up_id(self) -> str:
        """Return the id of a room that there is not yet."""
        return self._next("r")

    def create(self, command: CreateRoom, *, maker: Maker | None = None, now: float) -> Room | Refusal:
        """Make a room, which is kept for a while though it is empty.

        Args:
            command: What it is to be.
            maker: Whose it counts as, or ``None`` for one that counts as nobody's.
            now: Monotonic seconds.

        Returns:
            The room, or why there is none: ``room_exists``, ``too_many_rooms`` or ``invalid_max_participants``.
        """
        room_id = self.make_up_id() if command.room_id is None else command.room_id
        if room_id in self._rooms:
            return Refusal("room_exists", f"there is a room {room_id!r} already: join it, or choose another id", 409)
        if len(self._rooms) >= self._config.max_rooms:
            return Refusal("too_many_rooms", "the server has no room for more rooms: try again later", 503, 5)
        made = self._made.get(maker, 0) if maker is not None else 0
        if maker is not None and made >= self._config.max_rooms_per_user:
            limit = f"you have made {made} rooms that there still are, which is the most: close one first"
            return Refusal("too_many_rooms", limit, 429)
        most = command.max_participants
        if refusal := self._check_size(most):
            return refusal
        room = Room(room_id, command.name or room_id, most or self._config.max_participants, maker=maker)
        self._rooms[room_id] = room
        if maker is not None:
            self._made[maker] = made + 1
        self._settle(room, now=now)
        return room

    def update(self, room_id: str, *, name: str | None, max_participants: int | None) -> list[Effect] | Refusal:
        """Change a room; a lower limit sends nobody away.

        Returns:
            ``room_updated`` to its peers, or why it is not changed.
        """
        room = self.get(room_id)
        if isinstance(room, Refusal):
            return room
        if refusal := self._check_size(max_participants):
            return refusal
        room.name = name or room.name
        room.max_participants = max_participants or room.max_participants
        message: Message = {
            "type": "room_updated",
            "room_id": room_id,
            "name": room.name,
            "max_participants": room.max_participants,
        }
        return [Tell(peer.stream, message) for peer in room.peers.values()]

    def close(self, room_id: str) -> list[Effect] | Refusal:
        """End a room.

        Returns:
            ``room_closed`` to its peers, and the end of their streams; or that there is no such room.
        """
        room = self.get(room_id)
        if isinstance(room, Refusal):
            return room
        message: Message = {"type": "room_closed", "room_id": room_id, "reason": "closed"}
        effects: list[Effect] = []
        for peer in list(room.peers.values()):
            effects += [Tell(peer.stream, message), *self._remove(peer)]
        self._deadlines.set(room, None)
        self._forget(room)
        return effects

    # Peers

    def join(
        self,
        command: JoinRoom,
        connection_id: str,
        user_id: str | None,
        session: str | None,
        *,
        resumes: bool = False,
        number: int = 0,
        now: float,
    ) -> Entered | Refusal:
        """Let a peer in; one that is in already, by the same instance, goes on as the same peer.

        Args:
            command: What it asks for.
            connection_id: By which connection it comes.
            user_id: Its user.
            session: The secret by which it is known again.
            resumes: Whether it knows what it was told before, and so is the same instance without saying so.
            number: That of the connection: higher than that of any that came before.
            now: Monotonic seconds.

        Returns:
            Who has come. Where another instance had its id, or it had another id, the others hear ``peer_left`` first;
            so does a connection that it had before. Unless it turns out that a peer who was there before and has not
            changed has missed nothing, `announce` must follow. Or why it is not let in: ``peer_id_taken``,
            ``room_full``, ``too_many_rooms``, ``invalid_metadata``, ``invalid_max_participants``; nothing has changed.
        """
        room_id = command.room.room_id
        assert room_id is not None, "a join names its room"
        room = self._rooms.get(room_id)
        peer_id = connection_id if command.peer_id is None else command.peer_id
        known = None if room is None else room.peers.get(peer_id)
        if known is not None and not (
            known.connection_id == connection_id
            or is_same_client(known.user_id, known.session, user_id=user_id, session=session)
        ):
            return Refusal(
                "peer_id_taken", f"somebody else is {peer_id!r} in this room: choose another 'peer_id'", status=409
            )
        if (
            known is not None
            and known.connection_id not in (None, connection_id)
            and session is not None
            and session == known.session
            and number < known.number
        ):
            # It was under way when the client came by the connection that it has now, and has been overtaken.
            text = f"a later connection of the same client is {peer_id!r} in this room"
            return Refusal("peer_id_taken", text, status=409)
        own = self._peers.get(connection_id, {}).get(room_id)
        if refusal := self._denied(command, room, known or own, connection_id, own):
            return refusal
        if room is None:
            created = self.create(command.room, maker=maker_of(user_id, connection_id), now=now)
            if isinstance(created, Refusal):
                return created
            room = created
        effects: list[Effect] = []
        if own is not None and own is not known:
            effects += self._depart(own, "left", now=now)
        instance = command.instance
        if known is not None and instance is None and (known.connection_id == connection_id or resumes):
            # It need not say so: it is on the same connection, or knows what it was told before.
            instance = known.instance
        if known is not None and known.instance != instance:
            effects += self._depart(known, "replaced", now=now)
            known = None
        is_new = has_changed = known is None
        if known is None:
            stream = f"$room:{self._next('s')}"
            known = Peer(
                room,
                peer_id,
                instance or self._next("i"),
                user_id,
                session,
                command.metadata,
                command.rollback,
                stream,
                connection_id,
                number,
            )
            room.peers[peer_id] = known
        else:
            if known.connection_id not in (None, connection_id):
                effects += self._take_over(known)
            self._forsake(known)
            has_changed = (known.metadata, known.rollback) != (command.metadata, command.rollback)
            known.connection_id, known.session, known.number = connection_id, session, number
            known.user_id, known.metadata, known.rollback = user_id, command.metadata, command.rollback
        self._peers.setdefault(connection_id, {})[room_id] = known
        self._deadlines.set(known, None)
        self._deadlines.set(room, None)
        return Entered(known, is_new, has_changed, effects)

    def announce(self, peer: Peer, *, rejoined: bool) -> list[Effect]:
        """Tell the others that a peer has come.

        Args:
            peer: Who.
            rejoined: Whether it had been there before, and what was said to it or by it may be lost.

        Returns:
            ``peer_joined`` to each of them.
        """
        effects: list[Effect] = []
        for other in peer.room.peers.values():
            if other is peer:
                continue
            if rejoined:
                # Both offer anew, if they have to: what was offered before counts no longer.
                other.offered.pop(peer.peer_id, None)
            message: Message = {
                "type": "peer_joined",
                "room_id": peer.room.room_id,
                **peer.describe(),
                "polite": is_polite(other, peer),
                "rejoined": rejoined,
            }
            effects.append(Tell(other.stream, message))
        if rejoined:
            peer.offered.clear()
        return effects

    def leave(self, connection_id: str, room_id: str, *, now: float) -> list[Effect]:
        """Let a peer go; one that is not in the room is no fault.

        Returns:
            The end of its stream, and ``peer_left`` to the others.
        """
        peer = self._peers.get(connection_id, {}).get(room_id)
        return [] if peer is None else self._depart(peer, "left", now=now)

    def remove(self, room_id: str, peer_id: str, *, now: float) -> list[Effect] | Refusal:
        """Send a peer away; it is told by a ``peer_left`` of its own. Returns that, or that there is none."""
        room = self.get(room_id)
        if isinstance(room, Refusal):
            return room
        peer = room.peers.get(peer_id)
        return no_peer(peer_id) if peer is None else self._depart(peer, "removed", now=now)

    def disconnect(self, connection_id: str, *, now: float) -> None:
        """Take note that a connection was lost: its peers are away, and may come back."""
        for peer in self._peers.pop(connection_id, {}).values():
            peer.connection_id = None
            self._deadlines.set(peer, now + self._config.peer_ttl)

    # Signals

    def signal(self, connection_id: str, message: Message) -> Tell | Refusal:
        """Check a signal of a connection, and say for whose stream it is.

        Returns:
            It, with the sender's ``room_id``, ``peer_id`` and ``instance``; or why nobody gets it: ``invalid_signal``,
            ``signal_too_large``, ``not_in_room``, ``ambiguous_room``, ``forged_peer``, ``unknown_peer`` or
            ``outdated_signal``.
        """
        signal = parse_signal(message, self._config)
        if isinstance(signal, Refusal):
            return self._refuse(signal)
        own = self._peers.get(connection_id, {})
        if signal.room_id is None and len(own) > 1:
            return self._refuse(Refusal("ambiguous_room", "you are in several rooms: name one by 'room_id'"))
        room_id = next(iter(own), None) if signal.room_id is None else signal.room_id
        sender = own.get(room_id) if room_id is not None else None
        if sender is None:
            return self._refuse(Refusal("not_in_room", "you are not in this room: join it first", status=403))
        if signal.peer_id not in (None, sender.peer_id):
            text = f"you are {sender.peer_id!r} in this room: leave 'peer_id' out"
            return self._refuse(Refusal("forged_peer", text, status=403))
        return self._pass_on(sender, signal)

    def signal_as(self, message: Message) -> Tell | Refusal:
        """Check a signal that a program sends for the peer ``peer_id`` in ``room_id``; see `signal`.

        Raises:
            LocalProtocolError: If `message` is no JSON; nothing has changed.
        """
        message = {**message, "type": "webrtc_signal"}
        if invalid := check(message):
            return self._refuse(invalid)
        encode(message)
        signal = parse_signal(message, self._config)
        if isinstance(signal, Refusal):
            return self._refuse(signal)
        if signal.room_id is None or signal.peer_id is None:
            text = "name the room and the sender by 'room_id' and 'peer_id'"
            return self._refuse(Refusal("invalid_signal", text))
        room = self.get(signal.room_id)
        if isinstance(room, Refusal):
            return self._refuse(room)
        sender = room.peers.get(signal.peer_id)
        return self._refuse(no_peer(signal.peer_id)) if sender is None else self._pass_on(sender, signal)

    # Time

    def next_timeout(self) -> float | None:
        """Return when `handle_timeout` has something to do, in monotonic seconds, or ``None``."""
        return self._deadlines.next_timeout()

    def handle_timeout(self, *, now: float) -> list[Effect]:
        """Give up peers that have not come back, and empty rooms.

        Returns:
            The end of each such peer's stream, and ``peer_left`` to the others.
        """
        effects: list[Effect] = []
        for due in self._deadlines.pop_due(now=now):
            if isinstance(due, Peer):
                effects += self._depart(due, "timeout", now=now)
            else:
                self._forget(due)
        return effects

    # Inside

    def _next(self, kind: str) -> str:
        self._serial += 1
        return f"{kind}{self._entropy}.{self._serial}"

    def _check_size(self, max_participants: int | None) -> Refusal | None:
        most = self._config.max_participants
        if max_participants is not None and max_participants > most:
            return Refusal("invalid_max_participants", f"a room has at most {most} participants")
        return None

    def _denied(
        self, command: JoinRoom, room: Room | None, known: Peer | None, connection_id: str, own: Peer | None
    ) -> Refusal | None:
        config = self._config
        if encode(command.metadata).size > config.max_metadata_size:
            return Refusal("invalid_metadata", f"'metadata' has at most {config.max_metadata_size} bytes", 413)
        if own is None and len(self._peers.get(connection_id, ())) >= config.max_rooms_per_connection:
            most = config.max_rooms_per_connection
            return Refusal("too_many_rooms", f"a connection may be in at most {most} rooms: leave one first", 429)
        if room is not None and known is None and len(room.peers) >= room.max_participants:
            return Refusal("room_full", f"this room has its {room.max_participants} participants", status=409)
        return None

    def _pass_on(self, sender: Peer, signal: Signal) -> Tell | Refusal:
        told = pass_on(sender, signal)
        if isinstance(told, Refusal):
            return self._refuse(told)
        self.signals += 1
        return told

    def _refuse(self, refusal: Refusal) -> Refusal:
        self.refused += 1
        return refusal

    def _depart(self, peer: Peer, reason: str, *, now: float) -> list[Effect]:
        """Take a peer out of its room, and tell the others, and itself where it did not ask for it."""
        message = _left(peer, reason)
        effects: list[Effect] = []
        if reason not in ("left", "timeout"):
            effects.append(Tell(peer.stream, message))
        effects += self._remove(peer)
        effects += [Tell(other.stream, message) for other in peer.room.peers.values()]
        self._settle(peer.room, now=now)
        return effects

    def _remove(self, peer: Peer) -> list[Effect]:
        self._forsake(peer)
        self._deadlines.set(peer, None)
        del peer.room.peers[peer.peer_id]
        for other in peer.room.peers.values():
            other.offered.pop(peer.peer_id, None)
        return [End(peer.stream)]

    def _forsake(self, peer: Peer) -> None:
        """Take a peer from its connection."""
        if peer.connection_id is not None:
            rooms = self._peers[peer.connection_id]
            del rooms[peer.room.room_id]
            if not rooms:
                del self._peers[peer.connection_id]
            peer.connection_id = None

    def _take_over(self, peer: Peer) -> list[Effect]:
        """Take a peer from its connection, which is told that it is this peer no longer."""
        connection_id = peer.connection_id
        assert connection_id is not None, "there is one to be told"
        message = _left(peer, "taken_over")
        return [Tell(connection_channel(connection_id), message), Unlisten(connection_id, peer.stream)]

    def _forget(self, room: Room) -> None:
        """Let go of a room that has ended."""
        del self._rooms[room.room_id]
        if room.maker is not None:
            self._made[room.maker] -= 1
            if not self._made[room.maker]:
                del self._made[room.maker]

    def _settle(self, room: Room, *, now: float) -> None:
        """Let the time of a room run out if nobody is in it."""
        if not room.peers:
            self._deadlines.set(room, now + self._config.room_ttl)


def _left(peer: Peer, reason: str) -> Message:
    return {
        "type": "peer_left",
        "room_id": peer.room.room_id,
        "peer_id": peer.peer_id,
        "instance": peer.instance,
        "reason": reason,
    }


def _no_room(room_id: str) -> Refusal:
    return Refusal("unknown_room", f"there is no room {room_id!r}", status=404)
