"""One client's conversation with the server: what each of its messages asks for, and when it hears a heartbeat."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from enum import Enum
from types import MappingProxyType
from typing import Final, TypeAlias

import attrs

from .channels import connection_channel, user_channel
from .errors import Refusal
from .messages import RESERVED_EVENTS, RESERVED_TYPES, Message, check, check_channel, parse, reply_id
from .router import Publish, Refused, Request, Subscribe, Unsubscribe

__all__ = ["Handle", "Query", "Session", "SessionEffect", "Transport"]


class Transport(Enum):
    """By what a client is connected."""

    WEBSOCKET = "websocket"
    SSE = "sse"


@attrs.frozen
class Query:
    """Effect: the client asks for something that its server knows.

    Attributes:
        name: The command's name.
        data: Its checked arguments.
    """

    name: str
    data: Message
    request: Request


@attrs.frozen
class Handle:
    """Effect: the application's handler for this type is to be called."""

    type: str
    message: Message
    request: Request


SessionEffect: TypeAlias = Subscribe | Unsubscribe | Publish | Query | Handle | Refused


class Session:
    """What one connection is in the middle of.

    Args:
        connection_id: The connection.
        user_id: Its user, or ``None`` for somebody anonymous.
        transport: By what it is connected.
        heartbeat_interval: Seconds between two heartbeats, or ``None`` for none.
        max_message_size: The most bytes of UTF-8 in one message.
        handled: The message types for which the application has a handler; may change meanwhile.
        now: Monotonic seconds.
        timestamp: Milliseconds since 1970.
    """

    __slots__ = (
        "_handled",
        "_heartbeat_at",
        "_heartbeat_interval",
        "_max_message_size",
        "connected_at",
        "connection_id",
        "transport",
        "user_id",
    )

    def __init__(
        self,
        connection_id: str,
        user_id: str | None,
        transport: Transport,
        *,
        heartbeat_interval: float | None,
        max_message_size: int,
        handled: Container[str] = (),
        now: float,
        timestamp: int,
    ) -> None:
        self.connection_id = connection_id
        self.user_id = user_id
        self.transport = transport
        self.connected_at = timestamp
        self._handled = handled
        self._max_message_size = max_message_size
        self._heartbeat_interval = heartbeat_interval
        self._heartbeat_at = None if heartbeat_interval is None else now + heartbeat_interval

    def receive_text(self, text: str) -> SessionEffect:
        """Take one message of the client.

        Returns:
            What it asks for, one thing for each message, or `Refused`.
        """
        try:
            size = len(text.encode())
        except UnicodeEncodeError:
            # It came by way of a program: no wire carries half of a surrogate pair, and none could carry it on.
            refusal = Refusal("invalid_text", "a message must not hold half of a surrogate pair", status=400)
            return Refused(Request(self.connection_id), refusal)
        if size > self._max_message_size:
            refusal = Refusal("message_too_large", f"a message has at most {self._max_message_size} bytes", status=413)
            return Refused(Request(self.connection_id), refusal)
        message = parse(text)
        if isinstance(message, Refusal):
            return Refused(Request(self.connection_id), message)
        request = Request(self.connection_id, reply_id(message))
        if invalid := check(message):
            return Refused(request, invalid)
        kind, event = message["type"], message.get("event")
        assert isinstance(kind, str), "check() has seen to it"
        if kind == "command":
            return self._command(message, request)
        if kind in RESERVED_TYPES:
            refusal = Refusal(
                "reserved_type", f"messages of type {kind!r} come from the server only: choose another type", 403
            )
            return Refused(request, refusal)
        if event in RESERVED_EVENTS:
            refusal = Refusal(
                "reserved_event", f"events named {event!r} come from the server only: choose another name", 403
            )
            return Refused(request, refusal)
        if "channel" in message:
            return self._publish(str(message["channel"]), message, request)
        if "recipient_id" in message:
            return self._publish(user_channel(str(message["recipient_id"])), message, request)
        if kind in self._handled:
            return Handle(kind, message, request)
        if kind == "text":
            return Publish(connection_channel(self.connection_id), message, request)
        refusal = Refusal(
            "unhandled_type",
            f"nothing handles messages of type {kind[:80]!r} here: name a 'channel' or a 'recipient_id'",
        )
        return Refused(request, refusal)

    def next_timeout(self) -> float | None:
        """Return when the next heartbeat is due, or ``None``."""
        return self._heartbeat_at

    def handle_timeout(self, *, now: float) -> bool:
        """Return whether a heartbeat is due, and plan the next."""
        if self._heartbeat_at is None or self._heartbeat_interval is None or now < self._heartbeat_at:
            return False
        # From now on, not from the deadline: after a pause one heartbeat is as good as all the missed ones.
        self._heartbeat_at = now + self._heartbeat_interval
        return True

    def _publish(self, channel: str, message: Message, request: Request) -> Publish:
        skip = self.connection_id if message.get("echo") is False else None
        return Publish(channel, message, request, skip)

    def _command(self, message: Message, request: Request) -> SessionEffect:
        name = message.get("command")
        data = message.get("data")
        if data is None:
            data = {}
        if not isinstance(name, str) or name not in _COMMANDS:
            known = ", ".join(_COMMANDS)
            return Refused(request, Refusal("unknown_command", f"'command' must be one of {known}"))
        if not isinstance(data, dict):
            return Refused(request, Refusal("invalid_data", "a command's 'data' must be an object"))
        return _COMMANDS[name](name, data, request)


def _query(name: str, data: Message, request: Request) -> SessionEffect:
    return Query(name, data, request)


def _channel_command(
    effect: Callable[[str, Request], SessionEffect],
) -> Callable[[str, Message, Request], SessionEffect]:
    def command(name: str, data: Message, request: Request) -> SessionEffect:
        channel = data.get("channel")
        if refusal := check_channel(channel):
            return Refused(request, refusal)
        return effect(str(channel), request)

    return command


def _presence(channel: str, request: Request) -> SessionEffect:
    return Query("presence", {"channel": channel}, request)


_COMMANDS: Final[Mapping[str, Callable[[str, Message, Request], SessionEffect]]] = MappingProxyType(
    {
        "ping": _query,
        "join_channel": _channel_command(Subscribe),
        "leave_channel": _channel_command(Unsubscribe),
        "presence": _channel_command(_presence),
        "get_connection_stats": _query,
        "get_active_users": _query,
    }
)
