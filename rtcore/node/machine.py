"""The node's machine."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Final

from rtcore.errors import CloseCode, LocalProtocolError, Refusal
from rtcore.messages import Message, encode
from rtcore.permissions import OPEN, Action, Credential, Grant, Identity
from rtcore.permissions.revocations import Revocation, Revocations
from rtcore.router import Deliver, Publish, Refused, Request, Router, Subscribe, Unsubscribe
from rtcore.session import Expel, Session, Transport
from rtcore.signaling import JoinRoom

from .answers import disconnect_message, renewed_data
from .arrivals import Arrivals
from .config import NodeConfig
from .credentials import check_renewal, refuse_credential, with_credential_of
from .departures import Departures
from .effects import Close, Consult, NodeEffect, to
from .limiters import Limiters
from .queries import describe_channels, describe_connections, describe_history, describe_node, describe_presence
from .requests import Requests, unknown_connection
from .sessions import Sessions
from .signaling import Signaling, with_streams

__all__ = ["Node"]

_REVOKED: Final = "the token was revoked"
_EXPIRED: Final = "the token has expired"
_RESTARTING: Final = "the server is restarting"


class Node:
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
        self._departures = Departures(self._router, self._sessions, self._limiters, self.signaling, self._requests)
        self._draining = False

    # Who is connected

    @property
    def empty(self) -> bool:
        """Whether it holds nothing of anybody: no connection, channel, publication, publisher or limit."""
        rooms = 0 if self.signaling is None else len(self.signaling.rooms)
        return not self._sessions and self._router.empty and not len(self._limiters) and not rooms

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
        """Take no more connections, and end all there are: ``disconnect``, then `Close` with 1012, for each."""
        self._draining = True
        return self._departures.end_all(CloseCode.SERVICE_RESTART, _RESTARTING, now=now, timestamp=timestamp)

    # What they say

    def receive_text(self, connection_id: str, text: str, *, now: float, timestamp: int) -> list[NodeEffect]:
        """Take one message of a connection.

        Returns:
            What follows from it. Each message with an ``id`` is answered under it, once.

        Raises:
            LocalProtocolError: If there is no such connection; nothing has changed.
        """
        session = self._sessions.get(connection_id)
        if session is None:
            raise LocalProtocolError(f"connection {connection_id!r} is not attached")
        if session.has_ended(now=now):
            return self._expire(session, now=now, timestamp=timestamp)
        wanted = session.receive_text(text, now=now)
        if not isinstance(wanted, Expel):
            return self._requests.carry_out(wanted, session, now=now, timestamp=timestamp)
        self._requests.refused += 1
        return self.close(
            connection_id,
            CloseCode.RATE_LIMITED,
            wanted.reason,
            retry_after=wanted.retry_after,
            now=now,
            timestamp=timestamp,
        )

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
        if consult.number is not None:
            session = self._sessions.of_request(consult.request)
            if session is None or session.number != consult.number:
                return []
            if session.has_ended(now=now):
                return self._expire(session, now=now, timestamp=timestamp)
        else:
            user_id, grant = consult.identity.user_id, consult.identity.grant
            refusal = refusal or refuse_credential(user_id, grant, self.revocations, timestamp=timestamp)
        return self._requests.resolve(consult, refusal, now=now, timestamp=timestamp)

    # What they are allowed

    def renew(self, request: Request, identity: Identity | Refusal, *, now: float, timestamp: int) -> list[NodeEffect]:
        """Let a connection go on with another token; the outcome of a `Verify`.

        Args:
            request: Who asks.
            identity: Whose the token is and what it allows, or why it is good for nothing: then the connection goes on
                until its time ends.
            now: Monotonic seconds.
            timestamp: Milliseconds since 1970.

        Returns:
            What `regrant` returns, then the answer; or the answer alone, where the token is another user's, has expired
            or was revoked. Nothing once the connection is gone.
        """
        if (session := self._sessions.of_request(request)) is None:
            return []
        if session.has_ended(now=now):
            return self._expire(session, now=now, timestamp=timestamp)
        renewal = check_renewal(session, identity, self.revocations, timestamp=timestamp)
        if isinstance(renewal, Refusal):
            return self._requests.respond(request, renewal)
        effects = self._regrant(session, renewal, prolongs=True, now=now, timestamp=timestamp)
        return effects + self.respond(request, renewed_data(session, now=now), now=now, timestamp=timestamp)

    def confirm(self, request: Request, *, now: float, timestamp: int) -> list[NodeEffect]:
        """Answer a connection that has authenticated before it was connected as `renew` would have done."""
        session = self._sessions.of_request(request)
        return [] if session is None else self._requests.respond(request, renewed_data(session, now=now))

    def regrant(self, connection_id: str, grant: Grant, *, now: float, timestamp: int) -> list[NodeEffect]:
        """Allow a connection something else from now on.

        A `grant` that does not come of a token leaves it the credential that it has: its time ends when it would have
        ended, at the latest, and it is revoked as it would have been.

        Returns:
            The `Deliver` to it of ``unsubscribed`` for each channel that it may no longer hear, of ``peer_left`` for
            each room that it may no longer use, and to others of what they hear of that. Or `Refused`, where there is
            no such connection, or what `grant` comes of is good no longer.
        """
        session = self._sessions.get(connection_id)
        if session is None:
            return [Refused(Request(None), unknown_connection(connection_id))]
        if session.has_ended(now=now):
            return self._expire(session, now=now, timestamp=timestamp)
        prolongs = grant.credential is Credential.TOKEN
        if prolongs and (refusal := refuse_credential(session.user_id, grant, self.revocations, timestamp=timestamp)):
            return [Refused(Request(None), refusal)]
        grant = with_credential_of(session.grant, grant)
        return self._regrant(session, grant, prolongs=prolongs, now=now, timestamp=timestamp)

    def regrant_user(self, user_id: str, grant: Grant, *, now: float, timestamp: int) -> list[NodeEffect]:
        """Do that for all connections of a user, first come first; there need not be any."""
        effects: list[NodeEffect] = []
        for session in self._sessions.of_user(user_id):
            effects += self.regrant(session.connection_id, grant, now=now, timestamp=timestamp)
        return effects

    def revoke(self, revocation: Revocation, *, now: float, timestamp: int) -> list[NodeEffect] | Refusal:
        """Refuse tokens from now on, and end the connections that have come with them.

        Returns:
            For each of these the `Deliver` of ``disconnect`` and `Close`, then what others hear of their leaving; or
            why the tokens are not refused: nothing has changed.
        """
        if refusal := self.revocations.add(revocation, timestamp=timestamp):
            return refusal
        covers = self.revocations.covers
        ended = [each for each in self._sessions.values() if covers(each.user_id, each.grant, timestamp=timestamp)]
        return self._unauthorize(ended, _REVOKED, now=now, timestamp=timestamp)

    # What the HTTP API and the application ask for, who may do everything

    def publish(
        self,
        channel: str,
        message: Message,
        *,
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
            message: What.
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
        command = Publish(channel, message, request, None, user_id, grant, publisher)
        if grant is not None:
            identity = Identity(user_id, grant)
            if refusal := self.throttle(identity, message, now=now):
                return [Refused(request, refusal)]
            if consults and (consult := self._requests.consult(command, identity, now=now)):
                return [consult]
        return self._requests.command(command, now=now, timestamp=timestamp)

    def throttle(self, identity: Identity, message: Message, *, now: float) -> Refusal | None:
        """Count what a user says without a connection as what is said by those of the user; see `Limiters.admit`."""
        user_id = identity.user_id
        is_connected = user_id is not None and self._router.is_connected(user_id)
        return self._limiters.admit(identity, message, is_connected=is_connected, now=now)

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
        return describe_node(self._router, self._sessions, self.signaling, published=published, refused=refused)

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
        ended, beating = self._sessions.handle_timeout(now=now)
        effects += self._unauthorize(ended, _EXPIRED, now=now, timestamp=timestamp)
        self._limiters.handle_timeout(now=now)  # last, since those who have just been ended let go of theirs
        if beating:
            effects.append(Deliver(encode({"type": "heartbeat", "timestamp": timestamp}), tuple(beating)))
        return effects

    # Inside

    def _regrant(
        self, session: Session, grant: Grant, *, prolongs: bool, now: float, timestamp: int
    ) -> list[NodeEffect]:
        session.regrant(grant, prolongs=prolongs, now=now, timestamp=timestamp)
        if session.has_ended(now=now):
            return self._expire(session, now=now, timestamp=timestamp)
        self._sessions.rekey(session)
        regranted = self._router.regrant(session.connection_id, grant, now=now, timestamp=timestamp)
        effects = self._requests.answer(regranted)
        if self.signaling is not None:
            effects += self.signaling.withdraw(session, now=now, timestamp=timestamp)
        return effects

    def _expire(self, session: Session, *, now: float, timestamp: int) -> list[NodeEffect]:
        return self._unauthorize([session], _EXPIRED, now=now, timestamp=timestamp)

    def _unauthorize(self, ended: Sequence[Session], reason: str, *, now: float, timestamp: int) -> list[NodeEffect]:
        # Nobody waits in a room for those who may not come back, or only as somebody who may be there.
        return self._departures.end(
            ended, CloseCode.UNAUTHORIZED, reason, reconnect=False, comes_back=False, now=now, timestamp=timestamp
        )
