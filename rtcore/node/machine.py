"""The node's machine."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Final

from rtcore.binary import Bytes
from rtcore.errors import CloseCode, LocalProtocolError, Refusal
from rtcore.messages import Message, encode
from rtcore.permissions import OPEN, Action, Grant, Identity
from rtcore.permissions.revocations import Revocations
from rtcore.router import Deliver, Publish, Refused, Request, Router, Subscribe, Unsubscribe
from rtcore.session import NO_FILES, Expel, Session, SessionEffect, Transport
from rtcore.signaling import JoinRoom
from rtcore.uploads import BeginUpload, CancelUpload, Chunk

from .answers import disconnect_message
from .arrivals import Arrivals
from .config import NodeConfig
from .credentials import refuse_credential
from .departures import Departures
from .effects import Close, Consult, NodeEffect, to
from .files import Files
from .limiters import Limiters
from .queries import describe_channels, describe_connections, describe_history, describe_node, describe_presence
from .requests import Requests
from .rights import NodeRights
from .sessions import Sessions
from .signaling import Signaling, with_streams

__all__ = ["Node"]

_RESTARTING: Final = "the server is restarting"


class Node(NodeRights):
    """The whole of one server, but for sockets and clocks.

    Every input takes `now` (monotonic seconds) and, where something may be published, `timestamp` (milliseconds
    since 1970), and returns effects in the order in which they must happen.

    Args:
        config: Limits and intervals.
        entropy: A text that differs between any two nodes, past ones included.
        handled: The message types for which the application has a handler; may change at any time.
        consulted: The actions before which the application is asked, of `Action.SUBSCRIBE` and `Action.PUBLISH`;
            likewise.

    Attributes:
        signaling: Its rooms, or ``None``. What its methods return is to be carried out as what those here do.
        files: The files that come to it, or ``None`` where none are taken; likewise.
        revocations: Which tokens were revoked.
    """

    def __init__(
        self, config: NodeConfig, *, entropy: str, handled: Container[str] = (), consulted: Container[Action] = ()
    ) -> None:
        self.revocations = Revocations()
        self._config = config
        self._router = Router(with_streams(config.router, config.signaling), entropy=entropy)
        self._sessions = Sessions(config)
        self.signaling = (
            None
            if config.signaling is None
            else Signaling(config.signaling, self._router, self._sessions, entropy=entropy)
        )
        self._requests = Requests(self._router, self._sessions, self.signaling, consulted=consulted, stats=self.stats)
        self._limiters = Limiters(config.rate_limits)
        self._arrivals = Arrivals(
            config, self._router, self._sessions, self._limiters, self.signaling, self._requests, handled=handled
        )
        self.files = (
            None
            if config.files is None
            else Files(
                config.files, self._router, self._sessions, self._requests, self.revocations, publish=self.publish
            )
        )
        self._departures = Departures(
            self._router, self._sessions, self._limiters, self.signaling, self.files, self._requests
        )
        self._draining = False

    # Who is connected

    @property
    def empty(self) -> bool:
        """Whether it holds nothing of anybody: no connection, channel, publication, publisher, limit, room or file."""
        rooms = 0 if self.signaling is None else len(self.signaling.rooms)
        files = self.files is not None and not self.files.empty
        return not (self._sessions or not self._router.empty or len(self._limiters) or rooms or files)

    @property
    def draining(self) -> bool:
        """Whether the node takes no new connections because it is about to stop."""
        return self._draining

    def __contains__(self, connection_id: str) -> bool:
        return connection_id in self._sessions

    def __len__(self) -> int:
        return len(self._sessions)

    def identity(self, connection_id: str) -> Identity | None:
        """Return who a connection is and what it is allowed now, or ``None`` if there is no such connection."""
        session = self._sessions.get(connection_id)
        return None if session is None else session.identity

    def admit(
        self,
        transport: Transport,
        *,
        user_id: str | None = None,
        grant: Grant = OPEN,
        address: str | None = None,
        timestamp: int | None = None,
    ) -> Refusal | None:
        """Tell why one more connection would be refused now, or ``None`` if it would not.

        Args:
            transport: By what it comes.
            user_id: Its user.
            grant: What it is allowed.
            address: From where it comes, or ``None`` for one that no limit of addresses holds.
            timestamp: Milliseconds since 1970; without, it does not matter whether `grant` is good yet.
        """
        if self._draining:
            text = "the server is about to stop: connect again"
            return Refusal("draining", text, 503, retry_after=self._config.retry_after)
        refusal = None
        if timestamp is not None:
            refusal = refuse_credential(user_id, grant, self.revocations, timestamp=timestamp)
        return refusal or self._sessions.admit(transport, user_id=user_id, address=address)

    def connect(
        self,
        connection_id: str,
        *,
        user_id: str | None = None,
        grant: Grant = OPEN,
        address: str | None = None,
        transport: Transport,
        channels: Sequence[str] = (),
        session: str | None = None,
        last_event_id: str | None = None,
        signals: bool = False,
        room: JoinRoom | None = None,
        now: float,
        timestamp: int,
    ) -> list[NodeEffect]:
        """Add a connection, which the caller has had admitted, and join it to `channels`.

        Args:
            connection_id: A new id.
            user_id: Its user.
            grant: What it is allowed.
            address: From where it comes, or ``None`` for one that no limit of addresses holds.
            transport: By what it is connected.
            channels: What it joins at once.
            session: A secret by which the client is known again on its next connection, for its publications.
            last_event_id: The token of the last message that the client has heard on an earlier connection.
            signals: Whether what has a ``signal_type`` and no ``type`` is a signal.
            room: The room that it joins at once; ``connected`` tells of it in ``room``.
            now: Monotonic seconds.
            timestamp: Milliseconds since 1970.

        Returns:
            On an event stream without a token, the `Deliver` of the position where it begins. Then that of
            ``connected``, with the gaps of channels that cannot be taken up where the token says; of an ``error`` for
            each channel that may not be joined; on an event stream, of the gaps; of everything that was missed, in
            order; on an event stream, of the position that this makes; and of ``user_joined`` to others.

            Or, where its token has expired or was revoked since it was admitted, of ``disconnect``, and `Close`:
            nothing has changed.

        Raises:
            LocalProtocolError: If there is a connection of that id; nothing has changed.
        """
        if connection_id in self._sessions:
            raise LocalProtocolError(f"connection {connection_id!r} is attached already")
        if refusal := refuse_credential(user_id, grant, self.revocations, timestamp=timestamp):
            message = disconnect_message(CloseCode.UNAUTHORIZED, refusal.message, reconnect=False)
            return [to(connection_id, message), Close(connection_id, CloseCode.UNAUTHORIZED, refusal.message)]
        return self._arrivals.arrive(
            connection_id,
            user_id,
            grant=grant,
            address=address,
            transport=transport,
            channels=channels,
            session=session,
            last_event_id=last_event_id,
            signals=signals,
            room=room,
            now=now,
            timestamp=timestamp,
        )

    def disconnect(self, connection_id: str, *, now: float, timestamp: int) -> list[NodeEffect]:
        """Remove a connection whose transport has ended; an unknown one is no fault.

        Returns:
            The `Deliver` of ``user_left`` for each channel that it was in.
        """
        session = self._sessions.get(connection_id)
        return [] if session is None else self._departures.leave(session, now=now, timestamp=timestamp)

    def close(
        self,
        connection_id: str,
        code: int,
        reason: str,
        *,
        reconnect: bool | None = None,
        retry_after: float | None = None,
        now: float,
        timestamp: int,
    ) -> list[NodeEffect]:
        """End a connection; an unknown one is no fault.

        Returns:
            The `Deliver` of ``disconnect``, `Close`, then what `disconnect` returns.
        """
        session = self._sessions.get(connection_id)
        if session is None:
            return []
        return self._departures.end(
            [session], code, reason, reconnect=reconnect, retry_after=retry_after, now=now, timestamp=timestamp
        )

    def drain(self, *, now: float, timestamp: int) -> list[NodeEffect]:
        """Take no more connections, and end all there are: ``disconnect``, then `Close` with 1012, for each.

        Files that are on their way are given up after that, by `rtcore.uploads.AbandonFile`.
        """
        self._draining = True
        ended = self._departures.end_all(CloseCode.SERVICE_RESTART, _RESTARTING, now=now, timestamp=timestamp)
        return ended if self.files is None else [*ended, *self.files.drain()]

    # What they say

    def receive_text(self, connection_id: str, text: str, *, now: float, timestamp: int) -> list[NodeEffect]:
        """Take one message of a connection.

        Returns:
            What follows from it. Each message with an ``id`` is answered under it, once.

        Raises:
            LocalProtocolError: If there is no such connection; nothing has changed.
        """
        session = self._attached(connection_id)
        if session.has_ended(now=now):
            return self._expire(session, now=now, timestamp=timestamp)
        return self._carry_out(session.receive_text(text, now=now), session, now=now, timestamp=timestamp)

    def receive_bytes(self, connection_id: str, payload: Bytes, *, now: float, timestamp: int) -> list[NodeEffect]:
        """Take one message of a connection that holds bytes: the payload of a binary frame (`rtcore.binary`).

        Returns:
            What follows from it. A file within one message is answered as any message is, a part of one is not.

        Raises:
            LocalProtocolError: If there is no such connection; nothing has changed.
        """
        session = self._attached(connection_id)
        if session.has_ended(now=now):
            return self._expire(session, now=now, timestamp=timestamp)
        sending = () if self.files is None else self.files.sent_by(connection_id)
        wanted = session.receive_bytes(payload, sending=sending, now=now)
        return self._carry_out(wanted, session, now=now, timestamp=timestamp)

    def respond(self, request: Request, outcome: Message | Refusal, *, now: float, timestamp: int) -> list[NodeEffect]:
        """Answer the request of a `Handle`.

        Returns:
            The `Deliver` of a ``response``, if one was asked for, or of an ``error``, which is told in any case;
            nothing once the connection is gone.
        """
        if request.connection_id not in self._sessions:
            return []
        return self._requests.respond(request, outcome)

    def resolve(self, consult: Consult, refusal: Refusal | None, *, now: float, timestamp: int) -> list[NodeEffect]:
        """Go on with what the application was asked about.

        Args:
            consult: About what.
            refusal: Why it may not be done, or ``None`` if it may, as far as whoever asked is allowed it still.
            now: Monotonic seconds.
            timestamp: Milliseconds since 1970.

        Returns:
            What follows from it; nothing once the connection is gone.
        """
        command = consult.command
        if consult.number is not None:
            session = self._sessions.of_request(consult.request)
            if session is None or session.number != consult.number:
                return []
            if session.has_ended(now=now):
                return self._expire(session, now=now, timestamp=timestamp)
            if isinstance(command, BeginUpload):
                assert self.files is not None, "it has asked"
                return self.files.begin(command, session, refusal, now=now)
        else:
            user_id, grant = consult.identity.user_id, consult.identity.grant
            refusal = refusal or refuse_credential(user_id, grant, self.revocations, timestamp=timestamp)
        return self._requests.resolve(consult, refusal, now=now, timestamp=timestamp)

    # What the HTTP API and the application ask for, who may do everything

    def publish(
        self,
        channel: str,
        message: Message,
        *,
        data: Bytes | None = None,
        user_id: str | None = None,
        grant: Grant | None = None,
        publisher: str | None = None,
        id: str | int | None = None,
        consults: bool = False,
        now: float,
        timestamp: int,
    ) -> list[NodeEffect]:
        """Publish a message to a channel: one of users, or one of those that `rtcore.channels` names.

        Args:
            channel: Where.
            message: What; of a file, with the type ``binary``, what `rtcore.uploads.check_head` completes.
            data: The file in it.
            user_id: The sender's user.
            grant: What the sender is allowed, or ``None`` for the application.
            publisher: The name of the API key with which it came.
            id: With which it is made once for its publisher, or else its user.
            consults: Whether the application is asked before, if it wants to be, unless it publishes itself.
            now: Monotonic seconds.
            timestamp: Milliseconds since 1970.

        Returns:
            `Deliver`, unless nobody subscribes, then `Published`; or `Refused` alone, or `Consult`.

        Raises:
            LocalProtocolError: If `message` is no JSON; nothing has changed.
        """
        request = Request(None, id)
        command = Publish(channel, message, request, None, user_id, grant, publisher, data)
        if grant is not None:
            identity = Identity(user_id, grant)
            if refusal := self.throttle(identity, message, data, now=now):
                return [Refused(request, refusal)]
            if consults and (consult := self._requests.consult(command, identity, now=now)):
                return [consult]
        return self._requests.command(command, now=now, timestamp=timestamp)

    def throttle(
        self, identity: Identity, message: Message, data: Bytes | None = None, *, now: float
    ) -> Refusal | None:
        """Count what a user says without a connection as what is said by those of the user; see `Limiters.admit`."""
        user_id = identity.user_id
        is_connected = user_id is not None and self._router.is_connected(user_id)
        return self._limiters.admit(identity, message, data, is_connected=is_connected, now=now)

    def subscribe(self, connection_id: str, channel: str, *, now: float, timestamp: int) -> list[NodeEffect]:
        """Join a connection to a channel from outside. Returns what follows, `Refused` where it may not."""
        return self._requests.from_outside(Subscribe(channel, Request(connection_id)), now=now, timestamp=timestamp)

    def unsubscribe(self, connection_id: str, channel: str, *, now: float, timestamp: int) -> list[NodeEffect]:
        """Take a connection out of a channel from outside, likewise."""
        return self._requests.from_outside(Unsubscribe(channel, Request(connection_id)), now=now, timestamp=timestamp)

    # What there is

    def stats(self) -> Message:
        """Return counts: of connections by transport, users, channels in use, and publications so far."""
        published, refused = self._requests.published, self._requests.refused
        counts = describe_node(self._router, self._sessions, self.signaling, published=published, refused=refused)
        return counts if self.files is None else {**counts, **self.files.stats()}

    def decide(self, action: Action, channel: str, *, asker: Identity | None) -> Refusal | None:
        """Tell why somebody may not do something with a channel; see `rtcore.router.Router.decide`."""
        return self._router.decide(action, channel, asker=asker)

    def channels(self, *, asker: Identity | None = None) -> list[Message]:
        """Return the channels in use that one may join: names, counts of subscribers and members, offset and epoch."""
        return describe_channels(self._router, asker=asker)

    def presence(self, channel: str, *, asker: Identity | None = None) -> Message | Refusal:
        """Return who is in a channel; ``users`` is ``None`` where they are too many to list. Or why it is not told."""
        return describe_presence(self._router, channel, asker=asker)

    def history(self, data: Mapping[str, object], *, asker: Identity | None = None, now: float) -> Message | Refusal:
        """Return a part of a channel's history, or why not.

        Args:
            data: The arguments of the command ``history``, not checked yet.
            asker: Who wants to know, or ``None`` for the application.
            now: Monotonic seconds.
        """
        return describe_history(self._router, data, asker=asker, now=now)

    def connections(self) -> list[Message]:
        """Return the connections, first come first."""
        return describe_connections(self._router, self._sessions.values())

    # Time

    def next_timeout(self) -> float | None:
        """Return the next deadline in monotonic seconds, or ``None``."""
        due = [self._sessions.next_timeout(), self._router.next_timeout(), self._limiters.next_timeout()]
        if self.signaling is not None:
            due.append(self.signaling.rooms.next_timeout())
        if self.files is not None:
            due.append(self.files.next_timeout())
        return min((at for at in due if at is not None), default=None)

    def handle_timeout(self, *, now: float, timestamp: int) -> list[NodeEffect]:
        """Do what is due.

        Returns:
            The `Deliver` of ``user_left`` for those who have not come back in time; what `revoke` returns, for the
            connections whose time has ended; and the `Deliver` of one ``heartbeat`` for all that are to have one.
        """
        effects = self._requests.answer(self._router.handle_timeout(now=now, timestamp=timestamp))
        if self.signaling is not None:
            effects += self._requests.answer(self.signaling.handle_timeout(now=now, timestamp=timestamp))
        if self.files is not None:
            effects += self.files.handle_timeout(now=now)
        ended, beating = self._sessions.handle_timeout(now=now)
        effects += self._expire(*ended, now=now, timestamp=timestamp)
        self._limiters.handle_timeout(now=now)  # last, since those who have just been ended let go of theirs
        if beating:
            effects.append(Deliver(encode({"type": "heartbeat", "timestamp": timestamp}), tuple(beating)))
        return effects

    # Inside

    def _attached(self, connection_id: str) -> Session:
        session = self._sessions.get(connection_id)
        if session is None:
            raise LocalProtocolError(f"connection {connection_id!r} is not attached")
        return session

    def _carry_out(self, wanted: SessionEffect, session: Session, *, now: float, timestamp: int) -> list[NodeEffect]:
        if isinstance(wanted, BeginUpload | CancelUpload | Chunk):
            if self.files is not None:
                return self.files.carry_out(wanted, session, now=now)
            assert not isinstance(wanted, Chunk), "the session lets none through"
            return self._requests.respond(wanted.request, NO_FILES)
        if not isinstance(wanted, Expel):
            return self._requests.carry_out(wanted, session, now=now, timestamp=timestamp)
        self._requests.refused += 1
        return self.close(
            session.connection_id,
            CloseCode.RATE_LIMITED,
            wanted.reason,
            retry_after=wanted.retry_after,
            now=now,
            timestamp=timestamp,
        )
