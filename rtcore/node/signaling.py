"""The rooms of a node: what happens in them is said on streams of its router, one for each peer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias, assert_never

import attrs

from rtcore.errors import Refusal
from rtcore.messages import Message
from rtcore.permissions import Action, Identity, decide
from rtcore.router import Deliver, Joined, Publish, Published, Request, Router, RouterConfig, Subscribe, Unsubscribe
from rtcore.router import Effect as RouterEffect
from rtcore.session import Session
from rtcore.signaling import (
    CreateRoom,
    Effect,
    End,
    JoinRoom,
    LeaveRoom,
    Peer,
    Room,
    RoomCommand,
    Rooms,
    SendSignal,
    SignalingConfig,
    Tell,
    Unlisten,
)
from rtcore.signaling.peers import is_same_client, maker_of

from .answers import joined_data

__all__ = ["Answer", "Entrance", "Signaling", "Step", "with_streams"]


# The same for peers of others and for those that there are not: who may not speak as them learns nothing of them.
_NOT_YOURS: Final = Refusal("signal_denied", "you may send signals only as peers of your own user", status=403)

# Seconds for which the loss of a connection may go unnoticed, and what is told on it be lost.
_UNNOTICED: Final = 60.0


@attrs.frozen
class Answer:
    """What a request is answered."""

    request: Request
    outcome: Message | Refusal


Step: TypeAlias = RouterEffect | Answer


@attrs.frozen
class Entrance:
    """What has become of a join.

    Attributes:
        peer: Who has come.
        is_new: Whether it was not there before.
        has_changed: Whether the others know it otherwise, or not at all.
        before: What others hear first.
        joined: Where its stream stands.
        replay: What it has missed of it.
    """

    peer: Peer
    is_new: bool
    has_changed: bool
    before: list[Deliver]
    joined: Joined
    replay: list[RouterEffect]

    def describe(self) -> Message:
        """Return what the peer is told: the room, the others in it, and where its stream stands."""
        told = joined_data(self.joined)
        del told["channel"]
        return {**self.peer.room.described_to(self.peer), **told}


def with_streams(router: RouterConfig, config: SignalingConfig | None) -> RouterConfig:
    """Return the limits of a router that also keeps what peers that are away are told."""
    if config is None:
        return router
    ttl = config.peer_ttl + _UNNOTICED
    streams = attrs.evolve(router.rooms, history_size=config.max_held, history_ttl=ttl)
    return attrs.evolve(router, rooms=streams)


class Signaling:
    """The rooms of a node.

    Inputs return steps: what happens in the router, and the answers to requests in between, in order. Where they take
    an `asker`, that is who wants it, for whom what they may not know is as if it were not there; ``None`` is the
    application, which may do everything.

    Args:
        config: Limits and times.
        router: On which the streams of the peers are.
        sessions: The open connections; they change meanwhile.
        entropy: A text that differs between any two nodes, past ones included.

    Attributes:
        rooms: The rooms.
    """

    def __init__(
        self, config: SignalingConfig, router: Router, sessions: Mapping[str, Session], *, entropy: str
    ) -> None:
        self.rooms = Rooms(config, entropy=entropy)
        self._router = router
        self._sessions = sessions

    def carry_out(self, command: RoomCommand, session: Session, *, now: float, timestamp: int) -> list[Step]:
        """Do what a connection asks for.

        Returns:
            The answer, with what follows from it: for a join, what the joiner has missed and then what others hear; for
            a signal, its way to its receiver before.
        """
        request = command.request
        match command:
            case CreateRoom():
                room = self.create(command, asker=session.identity, now=now)
                return [Answer(request, room if isinstance(room, Refusal) else room.describe())]
            case JoinRoom():
                resumes = command.since is not None
                entrance = self.enter(command, session, resumes=resumes, replays=True, now=now, timestamp=timestamp)
                if isinstance(entrance, Refusal):
                    return [Answer(request, entrance)]
                recovered = entrance.joined.recovered.complete
                return [
                    *entrance.before,
                    Answer(request, entrance.describe()),
                    *entrance.replay,
                    *self.announce(entrance, recovered=recovered, now=now, timestamp=timestamp),
                ]
            case LeaveRoom(room_id=room_id):
                left = self.rooms.leave(session.connection_id, room_id, now=now)
                return [
                    Answer(request, {"room_id": room_id}),
                    *self._perform(left, now=now, timestamp=timestamp),
                ]
            case SendSignal():
                return self._send(command, session, now=now, timestamp=timestamp)
            case _:
                assert_never(command)

    def enter(
        self, command: JoinRoom, session: Session, *, resumes: bool, replays: bool, now: float, timestamp: int
    ) -> Entrance | Refusal:
        """Let a peer in and have its connection hear its stream, or tell why not; `announce` must follow.

        Args:
            command: What it asks for.
            session: Of its connection.
            resumes: Whether it says how far it has heard its stream.
            replays: Whether it hears now what it has missed; not where `Router.resume` follows.
            now: Monotonic seconds.
            timestamp: Milliseconds since 1970.
        """
        connection_id = session.connection_id
        if refusal := self._denied(command, session):
            return refusal
        entered = self.rooms.join(
            command,
            connection_id,
            session.user_id,
            session.secret,
            resumes=resumes,
            number=session.number,
            now=now,
        )
        if isinstance(entered, Refusal):
            return entered
        before = self._perform(entered.effects, now=now, timestamp=timestamp)
        stream = entered.peer.stream
        listen = Subscribe(stream, Request(connection_id), command.since, replays=replays, builtin=True)
        joined, *replay = self._router.send(listen, now=now, timestamp=timestamp)
        assert isinstance(joined, Joined), "a built-in channel refuses nobody whom the server joins to it"
        return Entrance(entered.peer, entered.is_new, entered.has_changed, before, joined, replay)

    def announce(self, entrance: Entrance, *, recovered: bool | None, now: float, timestamp: int) -> list[Deliver]:
        """Tell the others that somebody has come, unless it was there before, is as it was, and has missed nothing."""
        if recovered and not entrance.has_changed:
            return []
        told = self.rooms.announce(entrance.peer, rejoined=not entrance.is_new)
        return self._perform(told, now=now, timestamp=timestamp)

    def create(self, command: CreateRoom, *, asker: Identity | None = None, now: float) -> Room | Refusal:
        """Make a room; see `Rooms.create`. An id that is made up must be allowed too."""
        if command.room_id is None:
            command = attrs.evolve(command, room_id=self.rooms.make_up_id())
        assert command.room_id is not None, "it has one now"
        if refusal := _signal_denied(command.room_id, asker):
            return refusal
        maker = maker_of(None if asker is None else asker.user_id, command.request.connection_id)
        return self.rooms.create(command, maker=maker, now=now)

    def get(self, room_id: str, *, asker: Identity | None = None) -> Room | Refusal:
        """Return a room, or that there is none, or that one may not know."""
        return _signal_denied(room_id, asker) or self.rooms.get(room_id)

    def update(
        self, room_id: str, *, name: str | None, max_participants: int | None, now: float, timestamp: int
    ) -> list[Deliver] | Refusal:
        """Change a room; see `Rooms.update`."""
        told = self.rooms.update(room_id, name=name, max_participants=max_participants)
        return told if isinstance(told, Refusal) else self._perform(told, now=now, timestamp=timestamp)

    def close(self, room_id: str, *, now: float, timestamp: int) -> list[Deliver] | Refusal:
        """End a room; see `Rooms.close`."""
        told = self.rooms.close(room_id)
        return told if isinstance(told, Refusal) else self._perform(told, now=now, timestamp=timestamp)

    def remove(self, room_id: str, peer_id: str, *, now: float, timestamp: int) -> list[Deliver] | Refusal:
        """Send a peer away; see `Rooms.remove`."""
        told = self.rooms.remove(room_id, peer_id, now=now)
        return told if isinstance(told, Refusal) else self._perform(told, now=now, timestamp=timestamp)

    def withdraw(self, session: Session, *, now: float, timestamp: int) -> list[Deliver]:
        """Send a connection away from the rooms that it may use no longer. Idempotent."""
        return self._send_away(session.connection_id, session.identity, now=now, timestamp=timestamp)

    def send_away(self, connection_id: str, *, now: float, timestamp: int) -> list[Deliver]:
        """Send a connection away from all rooms. Idempotent."""
        return self._send_away(connection_id, None, now=now, timestamp=timestamp)

    def signal_as(
        self, message: Message, *, asker: Identity | None = None, now: float, timestamp: int
    ) -> list[Deliver | Published] | Refusal:
        """Pass on what a program says for a peer; see `Rooms.signal_as`. Returns the last as `Published`.

        An `asker` may do so for peers of its own user; one that administers, or counts as the server, for all.

        Raises:
            LocalProtocolError: If `message` is no JSON; nothing has changed.
        """
        if asker is not None and not self._may_speak(message, asker):
            return _NOT_YOURS
        told = self.rooms.signal_as(message)
        if isinstance(told, Refusal):
            return told
        published = self._router.send(Publish(told.stream, told.message, Request(None)), now=now, timestamp=timestamp)
        return [each for each in published if isinstance(each, Deliver | Published)]

    def describe(self, *, asker: Identity | None = None) -> list[Message]:
        """Return the rooms that one may use, first made first."""
        return [room.describe() for room in self.rooms if not _signal_denied(room.room_id, asker)]

    def stats(self) -> Message:
        """Return counts: of rooms, of peers, of signals passed on so far, and of those that were refused."""
        rooms = self.rooms
        return {
            "webrtc_rooms": len(rooms),
            "webrtc_peers": rooms.peer_count,
            "webrtc_signals": rooms.signals,
            "webrtc_refused_signals": rooms.refused,
        }

    def handle_timeout(self, *, now: float, timestamp: int) -> list[Deliver]:
        """Give up peers that have not come back, and empty rooms."""
        return self._perform(self.rooms.handle_timeout(now=now), now=now, timestamp=timestamp)

    def _send_away(self, connection_id: str, allowed: Identity | None, *, now: float, timestamp: int) -> list[Deliver]:
        delivered: list[Deliver] = []
        for peer in self.rooms.peers_of(connection_id):
            if allowed is None or _signal_denied(peer.room.room_id, allowed):
                told = self.remove(peer.room.room_id, peer.peer_id, now=now, timestamp=timestamp)
                assert not isinstance(told, Refusal), "it is in there"
                delivered += told
        return delivered

    def _denied(self, command: JoinRoom, session: Session) -> Refusal | None:
        room_id = command.room.room_id
        assert room_id is not None, "a join names its room"
        if refusal := _signal_denied(room_id, session.identity):
            return refusal
        # Whoever joins without a name of its own is called as its connection: nobody takes that name before it comes.
        named = None if command.peer_id is None else self._sessions.get(command.peer_id)
        if named is None or named is session:
            return None
        if is_same_client(named.user_id, named.secret, user_id=session.user_id, session=session.secret):
            return None
        text = f"{command.peer_id!r} is the id of somebody else's connection: choose another 'peer_id'"
        return Refusal("peer_id_taken", text, status=409)

    def _may_speak(self, message: Message, asker: Identity) -> bool:
        """Tell whether somebody may send a signal as the peer that it names."""
        if asker.grant.admin:
            return True
        room_id, peer_id = message.get("room_id"), message.get("peer_id")
        if not isinstance(room_id, str) or _signal_denied(room_id, asker):
            return False
        if asker.grant.server:
            return True
        room = self.rooms.get(room_id)
        peer = room.peers.get(peer_id) if isinstance(room, Room) and isinstance(peer_id, str) else None
        return peer is not None and peer.user_id is not None and peer.user_id == asker.user_id

    def _send(self, command: SendSignal, session: Session, *, now: float, timestamp: int) -> list[Step]:
        # Sent again since its answer was lost, it may be outdated by what has followed from it.
        first = self._router.recall(command.request, now=now)
        if first is not None:
            return [first]
        told = self.rooms.signal(session.connection_id, command.message)
        if isinstance(told, Refusal):
            return [Answer(command.request, told)]
        publish = Publish(told.stream, told.message, command.request, builtin=True)
        return [*self._router.send(publish, now=now, timestamp=timestamp)]

    def _perform(self, effects: Sequence[Effect], *, now: float, timestamp: int) -> list[Deliver]:
        """Do what follows in the router; only what somebody hears of it is of interest."""
        delivered: list[Deliver] = []
        for effect in effects:
            match effect:
                case Tell(stream=stream, message=message):
                    told = Publish(stream, message, Request(None))
                    published = self._router.send(told, now=now, timestamp=timestamp)
                    delivered += [each for each in published if isinstance(each, Deliver)]
                case Unlisten(connection_id=connection_id, stream=stream):
                    gone = Unsubscribe(stream, Request(connection_id))
                    self._router.send(gone, now=now, timestamp=timestamp)
                case End(stream=stream):
                    self._router.end_channel(stream)
                case _:
                    assert_never(effect)
        return delivered


def _signal_denied(room_id: str, asker: Identity | None) -> Refusal | None:
    if asker is None:
        return None
    return decide(Action.SIGNAL, room_id, user_id=asker.user_id, grant=asker.grant)
