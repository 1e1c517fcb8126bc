"""One server: its sessions, its router and their deadlines, behind the inputs that a transport has.

A transport says who connects, what they send, who is gone and what time it is; the node answers with what must
be delivered, closed and told, in order.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Final, TypeAlias, assert_never

import attrs

from .deadlines import Deadlines
from .errors import CloseCode, LocalProtocolError, Refusal, reconnects
from .messages import Message, encode
from .router import (
    Command,
    Deliver,
    Joined,
    Left,
    Publish,
    Published,
    Refused,
    Request,
    Router,
    RouterConfig,
    Subscribe,
    Unsubscribe,
)
from .router import Effect as RouterEffect
from .session import Handle, Query, Session, Transport

__all__ = ["PROTOCOL_VERSION", "Close", "Node", "NodeConfig", "NodeEffect", "disconnect_message"]

#: The version of the message protocol, told in ``connected``.
PROTOCOL_VERSION: Final = 1


@attrs.frozen
class NodeConfig:
    """Limits and intervals of one server.

    Attributes:
        max_connections: Connections of all transports together.
        max_websocket: WebSocket connections, or ``None`` for no limit of their own.
        max_sse: Event streams, likewise.
        websocket_heartbeat: Seconds between two heartbeats on a WebSocket, or ``None`` for none.
        sse_heartbeat: Seconds between two heartbeats on an event stream, likewise.
        max_message_size: The most bytes in one message of a client.
        retry_after: Seconds after which somebody turned away may try again.
        router: Limits of channels.
    """

    max_connections: int = 1000
    max_websocket: int | None = None
    max_sse: int | None = None
    websocket_heartbeat: float | None = 30.0
    sse_heartbeat: float | None = 30.0
    max_message_size: int = 2**20
    retry_after: int = 5
    router: RouterConfig = attrs.field(factory=RouterConfig)

    def heartbeat_interval(self, transport: Transport) -> float | None:
        """Return the seconds between two heartbeats on `transport`."""
        return self.websocket_heartbeat if transport is Transport.WEBSOCKET else self.sse_heartbeat


@attrs.frozen
class Close:
    """Effect: a connection is closed, once everything delivered to it before is written.

    It is no longer part of the node; the transport does not report it as gone.
    """

    connection_id: str
    code: int
    reason: str


# `Published` and `Refused` name a request without a connection: those of connections are answered in messages.
NodeEffect: TypeAlias = Deliver | Close | Handle | Published | Refused


class Node:
    """The whole of one server, but for sockets and clocks.

    Every input takes `now` (monotonic seconds) and, where something may be published, `timestamp` (milliseconds
    since 1970), and returns effects in the order in which they must happen.

    Args:
        config: Limits and intervals.
        entropy: A text that differs between any two nodes, past ones included.
        handled: The message types for which the application has a handler; may change at any time.
    """

    def __init__(self, config: NodeConfig, *, entropy: str, handled: Container[str] = ()) -> None:
        self._config = config
        self._handled = handled
        self._router = Router(config.router, entropy=entropy)
        self._sessions: dict[str, Session] = {}
        self._counts = dict.fromkeys(Transport, 0)
        self._deadlines: Deadlines[str] = Deadlines()
        self._published = 0
        self._accepted = 0
        self._draining = False

    # Who is connected

    @property
    def draining(self) -> bool:
        """Whether the node takes no new connections because it is about to stop."""
        return self._draining

    def __contains__(self, connection_id: str) -> bool:
        return connection_id in self._sessions

    def __len__(self) -> int:
        return len(self._sessions)

    def admit(self, transport: Transport) -> Refusal | None:
        """Tell why one more connection would be refused now, or ``None`` if it would not."""
        config = self._config
        if self._draining:
            return Refusal(
                "draining", "the server is about to stop: connect again", 503, retry_after=config.retry_after
            )
        limit = config.max_websocket if transport is Transport.WEBSOCKET else config.max_sse
        if len(self._sessions) >= config.max_connections or (limit is not None and self._counts[transport] >= limit):
            return Refusal("full", "the server is full: try again later", 503, retry_after=config.retry_after)
        return None

    def connect(
        self,
        connection_id: str,
        *,
        user_id: str | None = None,
        transport: Transport,
        channels: Sequence[str] = (),
        now: float,
        timestamp: int,
    ) -> list[NodeEffect]:
        """Add a connection, which the caller has had admitted, and join it to `channels`.

        Returns:
            The `Deliver` of ``connected``, then what joining gives. A channel that may not be joined is told in an
            ``error`` message to the connection and left out.

        Raises:
            LocalProtocolError: If there is a connection of that id; nothing has changed.
        """
        self._router.attach(connection_id, user_id)
        interval = self._config.heartbeat_interval(transport)
        session = Session(
            connection_id,
            user_id,
            transport,
            heartbeat_interval=interval,
            max_message_size=self._config.max_message_size,
            handled=self._handled,
            now=now,
            timestamp=timestamp,
        )
        self._sessions[connection_id] = session
        self._counts[transport] += 1
        self._accepted += 1
        self._deadlines.set(connection_id, session.next_timeout())
        request = Request(connection_id)
        joins: list[NodeEffect] = []
        for channel in channels:
            joins += self._command(Subscribe(channel, request), now=now, timestamp=timestamp)
        connected: Message = {
            "type": "connected",
            "connection_id": connection_id,
            "user_id": user_id,
            "protocol": PROTOCOL_VERSION,
            "heartbeat_interval": interval,
            "channels": self._router.channels_of(connection_id),
        }
        return [_to(connection_id, connected), *joins]

    def disconnect(self, connection_id: str, *, now: float, timestamp: int) -> list[NodeEffect]:
        """Remove a connection whose transport has ended; an unknown one is no fault.

        Returns:
            The `Deliver` of ``user_left`` for each channel that it was in.
        """
        if connection_id not in self._sessions:
            return []
        session = self._sessions.pop(connection_id)
        self._counts[session.transport] -= 1
        self._deadlines.set(connection_id, None)
        return self._answer(self._router.detach(connection_id, now=now, timestamp=timestamp))

    def close(
        self,
        connection_id: str,
        code: int,
        reason: str,
        *,
        reconnect: bool | None = None,
        now: float,
        timestamp: int,
    ) -> list[NodeEffect]:
        """End a connection; an unknown one is no fault.

        Returns:
            The `Deliver` of ``disconnect``, `Close`, then what `disconnect` returns.
        """
        if connection_id not in self._sessions:
            return []
        message = disconnect_message(code, reason, reconnect=reconnect)
        return [
            _to(connection_id, message),
            Close(connection_id, code, reason),
            *self.disconnect(connection_id, now=now, timestamp=timestamp),
        ]

    def drain(self, *, now: float, timestamp: int) -> list[NodeEffect]:
        """Take no more connections, and end all there are: ``disconnect``, then `Close` with 1012, for each."""
        self._draining = True
        message = disconnect_message(CloseCode.SERVICE_RESTART, "the server is restarting")
        everybody = tuple(self._sessions)
        effects: list[NodeEffect] = [Deliver(encode(message), everybody)] if everybody else []
        for connection_id in everybody:
            effects.append(Close(connection_id, CloseCode.SERVICE_RESTART, "the server is restarting"))
            # Nobody hears who left: all leave.
            self.disconnect(connection_id, now=now, timestamp=timestamp)
        return effects

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
        wanted = session.receive_text(text)
        match wanted:
            case Subscribe() | Unsubscribe() | Publish():
                return self._command(wanted, now=now, timestamp=timestamp)
            case Query():
                return self._answer_ok(wanted.request, self._query(wanted, timestamp=timestamp))
            case Refused():
                return self._answer([wanted])
            case Handle():
                return [wanted]
            case _:
                assert_never(wanted)

    def respond(self, request: Request, outcome: Message | Refusal, *, now: float, timestamp: int) -> list[NodeEffect]:
        """Answer the request of a `Handle`.

        Returns:
            The `Deliver` of a ``response``, if one was asked for, or of an ``error``, which is told in any case;
            nothing once the connection is gone.
        """
        if request.connection_id not in self._sessions:
            return []
        if isinstance(outcome, Refusal):
            return self._answer([Refused(request, outcome)])
        return self._answer_ok(request, outcome)

    # What the HTTP API and the application ask for

    def publish(
        self, channel: str, message: Message, *, user_id: str | None = None, now: float, timestamp: int
    ) -> list[NodeEffect]:
        """Publish a message to a channel: one of users, or one of those that `rtcore.channels` names.

        Returns:
            `Deliver`, unless nobody subscribes, then `Published`.

        Raises:
            LocalProtocolError: If `message` is no JSON; nothing has changed.
        """
        request = Request(None)
        return self._command(Publish(channel, message, request, None, user_id), now=now, timestamp=timestamp)

    def subscribe(self, connection_id: str, channel: str, *, now: float, timestamp: int) -> list[NodeEffect]:
        """Join a connection to a channel from outside. Returns what follows, `Refused` where it may not."""
        return self._from_outside(Subscribe(channel, Request(connection_id)), now=now, timestamp=timestamp)

    def unsubscribe(self, connection_id: str, channel: str, *, now: float, timestamp: int) -> list[NodeEffect]:
        """Take a connection out of a channel from outside, likewise."""
        return self._from_outside(Unsubscribe(channel, Request(connection_id)), now=now, timestamp=timestamp)

    # What there is

    def stats(self) -> Message:
        """Return counts: of connections by transport, users, channels in use, and publications so far."""
        return {
            "websocket_count": self._counts[Transport.WEBSOCKET],
            "sse_count": self._counts[Transport.SSE],
            "unique_users": self._router.user_count,
            "active_channels": len(self._router.channels()),
            "total_connections": len(self._sessions),
            "accepted_connections": self._accepted,
            "published_messages": self._published,
        }

    def channels(self) -> list[Message]:
        """Return the channels in use: their names, counts of subscribers and members, offset and epoch."""
        return [
            {
                "channel": channel.name,
                "subscribers": len(channel),
                "members": channel.member_count,
                "offset": channel.offset,
                "epoch": channel.epoch,
            }
            for channel in self._router.channels()
        ]

    def presence(self, channel: str) -> Message:
        """Return who is in a channel; ``users`` is ``None`` where they are too many to list."""
        count, users = self._router.presence(channel)
        return {"channel": channel, "count": count, "users": users}

    def connections(self) -> list[Message]:
        """Return the connections, first come first."""
        return [
            {
                "connection_id": session.connection_id,
                "user_id": session.user_id,
                "transport": session.transport.value,
                "connected_at": session.connected_at,
                "channels": self._router.channels_of(session.connection_id),
            }
            for session in self._sessions.values()
        ]

    # Time

    def next_timeout(self) -> float | None:
        """Return the next deadline in monotonic seconds, or ``None``."""
        deadlines = [at for at in (self._deadlines.next_timeout(), self._router.next_timeout()) if at is not None]
        return min(deadlines, default=None)

    def handle_timeout(self, *, now: float, timestamp: int) -> list[NodeEffect]:
        """Do what is due: one `Deliver` of the ``heartbeat`` for all connections that are to have one."""
        self._router.handle_timeout(now=now)
        due: list[str] = []
        for connection_id in self._deadlines.pop_due(now=now):
            session = self._sessions[connection_id]
            beats = session.handle_timeout(now=now)
            assert beats, "a session has no other deadline, and this one has come"
            due.append(connection_id)
            self._deadlines.set(connection_id, session.next_timeout())
        if not due:
            return []
        return [Deliver(encode({"type": "heartbeat", "timestamp": timestamp}), tuple(due))]

    # Inside

    def _command(self, command: Command, *, now: float, timestamp: int) -> list[NodeEffect]:
        return self._answer(self._router.send(command, now=now, timestamp=timestamp))

    def _from_outside(self, command: Subscribe | Unsubscribe, *, now: float, timestamp: int) -> list[NodeEffect]:
        connection_id = command.request.connection_id
        assert connection_id is not None, "both callers name one"
        if connection_id not in self._sessions:
            return [Refused(Request(None), _unknown_connection(connection_id))]
        effects: list[NodeEffect] = []
        for effect in self._router.send(command, now=now, timestamp=timestamp):
            if isinstance(effect, Refused):
                effects.append(Refused(Request(None), effect.refusal))
            elif isinstance(effect, Deliver):
                effects.append(effect)
        return effects

    def _query(self, query: Query, *, timestamp: int) -> Message:
        match query.name:
            case "ping":
                return {"timestamp": timestamp}
            case "presence":
                return self.presence(str(query.data["channel"]))
            case "get_connection_stats":
                return self.stats()
            case name:
                assert name == "get_active_users", "the session lets no other command through"
                return {"users": self._router.users, "count": self._router.user_count}

    def _answer(self, effects: Sequence[RouterEffect]) -> list[NodeEffect]:
        """Turn the outcomes of connections' requests into messages to them."""
        answered: list[NodeEffect] = []
        for effect in effects:
            match effect:
                case Deliver():
                    answered.append(effect)
                case Published(request=request):
                    self._published += 1
                    if request.connection_id is None:
                        answered.append(effect)
                    else:
                        receipt: Message = {
                            "channel": effect.channel,
                            "offset": effect.offset,
                            "epoch": effect.epoch,
                        }
                        answered += self._answer_ok(request, receipt)
                case Joined(request=request):
                    joined: Message = {
                        "channel": effect.channel,
                        "offset": effect.offset,
                        "epoch": effect.epoch,
                        "presence": {"count": effect.count, "users": effect.members},
                    }
                    answered += self._answer_ok(request, joined)
                case Left(request=request):
                    answered += self._answer_ok(request, {"channel": effect.channel})
                case Refused(request=request, refusal=refusal):
                    assert request.connection_id is not None, "only connections are refused by session or router"
                    error: Message = {"type": "error", "code": refusal.code, "message": refusal.message}
                    if request.id is not None:
                        error["id"] = request.id
                    answered.append(_to(request.connection_id, error))
                case _:
                    assert_never(effect)
        return answered

    def _answer_ok(self, request: Request, data: Message) -> list[NodeEffect]:
        if request.id is None or request.connection_id is None:
            return []
        response: Message = {"type": "response", "id": request.id, "ok": True, "data": data}
        return [_to(request.connection_id, response)]


def disconnect_message(
    code: int, reason: str, *, reconnect: bool | None = None, retry_after: float | None = None
) -> Message:
    """Return the message that says why a connection is about to be closed.

    Args:
        code: The close code that follows.
        reason: Why, for people.
        reconnect: Whether the client should connect again, or ``None`` for what the code implies.
        retry_after: Seconds that it should wait before, or ``None``.
    """
    message: Message = {
        "type": "disconnect",
        "code": int(code),
        "reason": reason,
        "reconnect": reconnects(code) if reconnect is None else reconnect,
    }
    if retry_after is not None:
        message["retry_after"] = retry_after
    return message


def _to(connection_id: str, message: Message) -> Deliver:
    return Deliver(encode(message), (connection_id,))


def _unknown_connection(connection_id: str) -> Refusal:
    return Refusal("not_found", f"there is no connection {connection_id!r}", status=404)
