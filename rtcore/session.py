"""One client's conversation with the server: what it asks for, when it hears a heartbeat, and how long it may go on."""

from __future__ import annotations

from collections.abc import Container, Sequence
from enum import Enum
from math import ceil, inf
from typing import Final, TypeAlias

import attrs

from .binary import BINARY, Bytes, parse_payload
from .channels import connection_channel, user_channel
from .commands import CommandEffect, parse_command
from .errors import Refusal
from .messages import RESERVED_EVENTS, RESERVED_TYPES, Message, check, parse, reply_id
from .permissions import OPEN, Grant, Identity
from .rate_limit import RateLimiter, too_fast
from .router import Publish, Refused, Request
from .signaling import SendSignal
from .uploads import Chunk, FileConfig, check_head
from .uploads.commands import CHUNK, parse_chunk

__all__ = ["NO_FILES", "Expel", "Handle", "Session", "SessionEffect", "Transport"]

#: What is said of files where none are taken.
NO_FILES: Final = Refusal("binary_disabled", "this server takes no files: BINARY_DATA_ENABLED is false", status=404)

# Seconds in which messages that are refused for their rate are one warning.
_WARNING_INTERVAL: Final = 1.0
# Who sends a file in smaller parts than this sends messages: each costs as much.
_SMALL_CHUNK: Final = 4096


class Transport(Enum):
    """By what a client is connected."""

    WEBSOCKET = "websocket"
    SSE = "sse"


@attrs.frozen
class Handle:
    """Effect: the application's handler for this type is to be called.

    Attributes:
        type: The type.
        message: What has come; a file in it is in ``data``, as `bytes`.
        request: Who has sent it, and how it is answered.
    """

    type: str
    message: Message
    request: Request


@attrs.frozen
class Expel:
    """Effect: the connection is to be ended, since it was warned and goes on too fast.

    Attributes:
        reason: Why, for people.
        retry_after: Seconds after which it may come back.
    """

    reason: str
    retry_after: int


SessionEffect: TypeAlias = CommandEffect | Publish | SendSignal | Chunk | Handle | Expel


class Session:
    """What one connection is in the middle of.

    Args:
        connection_id: The connection.
        user_id: Its user, or ``None`` for somebody anonymous.
        transport: By what it is connected.
        grant: What it is allowed.
        address: From where it comes, or ``None`` where that is not known.
        heartbeat_interval: Seconds between two heartbeats, or ``None`` for none.
        max_message_size: The most bytes of UTF-8 in one message.
        handled: The message types for which the application has a handler; may change meanwhile.
        limiters: What holds the client to its rate, the one that it shares with others last: what its own refuses takes
            nothing from them.
        secret: By which the client is known again on its next connection, or ``None``.
        number: Higher than that of any connection that came before.
        signals: Whether what has a ``signal_type`` and no ``type`` is a signal.
        files: What files are taken, or ``None`` for none.
        max_warnings: For how many seconds in a row messages may be refused for their rate before it is ended.
        now: Monotonic seconds.
        timestamp: Milliseconds since 1970.

    Attributes:
        grant: What it is allowed now; `regrant` changes it.
    """

    __slots__ = (
        "_ends_at",
        "_files",
        "_handled",
        "_heartbeat_at",
        "_heartbeat_interval",
        "_limiters",
        "_max_message_size",
        "_max_warnings",
        "_refused_at",
        "_signals",
        "_warned",
        "_warned_at",
        "address",
        "connected_at",
        "connection_id",
        "grant",
        "number",
        "secret",
        "transport",
        "user_id",
    )

    def __init__(
        self,
        connection_id: str,
        user_id: str | None,
        transport: Transport,
        *,
        grant: Grant = OPEN,
        address: str | None = None,
        heartbeat_interval: float | None,
        max_message_size: int,
        handled: Container[str] = (),
        limiters: Sequence[RateLimiter] = (),
        max_warnings: int = 0,
        secret: str | None = None,
        number: int = 0,
        signals: bool = False,
        files: FileConfig | None = None,
        now: float,
        timestamp: int,
    ) -> None:
        self.connection_id = connection_id
        self.user_id = user_id
        self.transport = transport
        self.address = address
        self.connected_at = timestamp
        self.secret = secret
        self.number = number
        self._signals = signals
        self._files = files
        self._handled = handled
        self._limiters = limiters
        self._max_warnings = max_warnings
        self._warned = 0
        self._warned_at = self._refused_at = -inf
        self._max_message_size = max_message_size
        self._heartbeat_interval = heartbeat_interval
        self._heartbeat_at = None if heartbeat_interval is None else now + heartbeat_interval
        self._ends_at: float | None = None
        self.regrant(grant, prolongs=True, now=now, timestamp=timestamp)

    @property
    def identity(self) -> Identity:
        """Who it is, and what it is allowed."""
        return Identity(self.user_id, self.grant)

    def regrant(self, grant: Grant, *, prolongs: bool, now: float, timestamp: int) -> None:
        """Allow it something else.

        The end of its time is fixed here, on the monotonic clock: that the other one is set meanwhile changes nothing.

        Args:
            grant: What it is allowed from now on.
            prolongs: Whether its time may end later than it would have.
            now: Monotonic seconds.
            timestamp: Milliseconds since 1970.
        """
        ends_at = None if grant.expires_at is None else now + (grant.expires_at - timestamp / 1000)
        if not prolongs and self._ends_at is not None:
            ends_at = self._ends_at if ends_at is None else min(self._ends_at, ends_at)
        self.grant = grant
        self._ends_at = ends_at

    def expires_in(self, *, now: float) -> float | None:
        """Return the seconds until what it is allowed ends, or ``None`` for never."""
        return None if self._ends_at is None else round(self._ends_at - now, 3)

    def has_ended(self, *, now: float) -> bool:
        """Tell whether what it was allowed has ended, and it must too."""
        return self._ends_at is not None and self._ends_at <= now

    def receive_text(self, text: str, *, now: float) -> SessionEffect:
        """Take one message of the client.

        Returns:
            What it asks for, one thing for each message, or `Refused`, or `Expel`.
        """
        size, message = self._read(text)
        id = None if isinstance(message, Refusal) else reply_id(message)
        request = Request(self.connection_id, id)
        # What cannot be read counts too, or it would be a way around the limits.
        if self._limiters and (throttled := self._throttle(size, request, now=now)):
            return throttled
        if isinstance(message, Refusal):
            return Refused(request, message)
        if invalid := check(message):
            return Refused(request, invalid)
        kind = message["type"]
        assert isinstance(kind, str), "check() has seen to it"
        if kind == "command":
            return parse_command(message, request)
        if kind == "webrtc_signal":
            return SendSignal(request, message)
        if kind in RESERVED_TYPES:
            refusal = Refusal(
                "reserved_type", f"messages of type {kind!r} come from the server only: choose another type", 403
            )
            return Refused(request, refusal)
        if refused := _refuse_event(message, request):
            return refused
        return self._pass_on(kind, message, request)

    def receive_bytes(self, payload: Bytes, *, sending: Container[str] = (), now: float) -> SessionEffect:
        """Take one message of the client that holds bytes: a file, or a part of one.

        Args:
            payload: Of a binary frame; see `rtcore.binary`. What is kept of it is copied.
            sending: The ids of the files that are on their way on the connection in parts.
            now: Monotonic seconds.

        Returns:
            What it asks for, or `Refused`, or `Expel`.
        """
        parsed = parse_payload(payload)
        chunk: Chunk | Refusal | None = None
        request = Request(self.connection_id)
        if isinstance(parsed, tuple):
            head, data = parsed
            if head["type"] == CHUNK:
                chunk = NO_FILES if self._files is None else parse_chunk(head, data)
            else:
                request = Request(self.connection_id, reply_id(head))
        counts = not isinstance(chunk, Chunk) or _is_small(chunk, sending, self._files)
        if counts and self._limiters and (throttled := self._throttle(len(payload), request, now=now)):
            return throttled
        if isinstance(parsed, Refusal):
            return Refused(request, parsed)
        if chunk is not None:
            return Refused(request, chunk) if isinstance(chunk, Refusal) else chunk
        head, data = parsed
        if refusal := self._check_file(head, data, size=len(payload)):
            return Refused(request, refusal)
        return _refuse_event(head, request) or self._pass_on(BINARY, head, request, bytes(data))

    def next_timeout(self) -> float | None:
        """Return when the next heartbeat is due or its time ends, whichever is first, or ``None``."""
        due = (self._heartbeat_at, self._ends_at)
        return min((at for at in due if at is not None), default=None)

    def handle_timeout(self, *, now: float) -> bool:
        """Return whether a heartbeat is due, and plan the next."""
        if self._heartbeat_at is None or self._heartbeat_interval is None or now < self._heartbeat_at:
            return False
        # From now on, not from the deadline: after a pause one heartbeat is as good as all the missed ones.
        self._heartbeat_at = now + self._heartbeat_interval
        return True

    def _read(self, text: str) -> tuple[int, Message | Refusal]:
        """Return the size of a message in bytes, and the message, or why it is none."""
        try:
            size = len(text.encode())
        except UnicodeEncodeError:
            # It came by way of a program: no wire carries half of a surrogate pair, and none could carry it on.
            refusal = Refusal("invalid_text", "a message must not hold half of a surrogate pair", status=400)
            return len(text), refusal
        if size > self._max_message_size:
            return size, self._too_large()
        return size, parse(text, signals=self._signals)

    def _check_file(self, head: Message, data: Bytes, *, size: int) -> Refusal | None:
        """Tell why a file within one message is refused, or ``None``; `head` is completed."""
        if head["type"] != BINARY:
            text = "the type of what comes in a binary frame is 'binary' or 'chunk': send others as text"
            return Refusal("reserved_type", text, 403)
        if self._files is None:
            return NO_FILES
        if size - len(data) > self._max_message_size:
            return self._too_large()
        return check(head) or check_head(head, data, self._files)

    def _pass_on(self, kind: str, message: Message, request: Request, data: bytes | None = None) -> SessionEffect:
        """Return what becomes of a message that is no request: where it goes, or who handles it."""
        if "channel" in message:
            return self._publish(str(message["channel"]), message, request, data)
        if "recipient_id" in message:
            return self._publish(user_channel(str(message["recipient_id"])), message, request, data)
        if kind in self._handled:
            return Handle(kind, message if data is None else {**message, "data": data}, request)
        if kind == "text" or data is not None:
            return Publish(connection_channel(self.connection_id), message, request, data=data)
        refusal = Refusal(
            "unhandled_type",
            f"nothing handles messages of type {kind[:80]!r} here: name a 'channel' or a 'recipient_id'",
        )
        return Refused(request, refusal)

    def _publish(self, channel: str, message: Message, request: Request, data: bytes | None) -> Publish:
        skip = self.connection_id if message.get("echo") is False else None
        return Publish(channel, message, request, skip, data=data)

    def _too_large(self) -> Refusal:
        return Refusal("message_too_large", f"a message has at most {self._max_message_size} bytes", status=413)

    def _throttle(self, size: int, request: Request, *, now: float) -> Refused | Expel | None:
        """Return what a message of `size` bytes gets instead of its due, or ``None`` if the limits allow it."""
        for limiter in self._limiters:
            if wait := limiter.admit(size, now=now):
                break
        else:
            return None
        if now - self._refused_at > _WARNING_INTERVAL:
            self._warned = 0
        self._refused_at = now
        # Somebody who sends many at once, after a reconnect say, has not read of the first refusal by the second.
        if not self._warned or now - self._warned_at >= _WARNING_INTERVAL:
            if self._warned >= self._max_warnings:
                return Expel("too many messages, after several warnings", ceil(wait))
            self._warned += 1
            self._warned_at = now
        return Refused(request, too_fast(wait))


def _refuse_event(message: Message, request: Request) -> Refused | None:
    event = message.get("event")
    if event not in RESERVED_EVENTS:
        return None
    text = f"events named {event!r} come from the server only: choose another name"
    return Refused(request, Refusal("reserved_event", text, 403))


def _is_small(chunk: Chunk, sending: Container[str], config: FileConfig | None) -> bool:
    """Tell whether a part of a file counts as a message; the last one does not, nor one as large as may be."""
    assert config is not None, "where no files are taken, no part is"
    least = min(_SMALL_CHUNK, config.chunk_size, config.window)
    return len(chunk.data) < least and (chunk.sha256 is None or chunk.upload_id not in sending)
