"""The messages that travel between clients and servers, and their encodings.

A message is a JSON object with a string ``type``, the same in WebSocket text frames, in the ``data`` of an
event stream and in HTTP bodies. `parse` reads what a client sent; `Encoded` holds what the server sends,
encoded once for each wire and shared by all receivers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias, get_args

import attrs
import msgspec

from .binary import Bytes
from .encoded import Encoded, Source
from .errors import LocalProtocolError, Refusal
from .json_values import TOO_DEEP, decode_value

__all__ = [
    "PLAIN_SERVER_TYPES",
    "RESERVED_EVENTS",
    "RESERVED_TYPES",
    "ChannelMessage",
    "Message",
    "NotificationMessage",
    "NotificationType",
    "check",
    "check_channel",
    "cursor",
    "encode",
    "normalize_user_id",
    "parse",
    "publication",
    "reply_id",
    "with_type",
]

Message: TypeAlias = dict[str, object]
NotificationType: TypeAlias = Literal["info", "success", "warning", "error"]

#: Types that only the server may send.
RESERVED_TYPES: Final = frozenset(
    {
        "connected",
        "response",
        "error",
        "heartbeat",
        "disconnect",
        "system",
        "broadcast",
        "notification",
        "user_joined",
        "user_left",
        "peer_joined",
        "peer_left",
        "room_updated",
        "room_closed",
        "binary",
        "upload",
        "webrtc_signal",
        "gap",
        "unsubscribed",
    }
)
#: Reserved types that an event stream shows to ``onmessage`` all the same.
PLAIN_SERVER_TYPES: Final = frozenset({"broadcast"})
#: Names of events that no plain client may give: a page trusts them as it does the types of messages, and an
#: ``EventSource`` cannot tell an event named ``open`` or ``error`` from its own.
RESERVED_EVENTS: Final = RESERVED_TYPES | {"binary_data", "open"}

_MAX_NAME: Final = 255
# Python refuses to write integers of many digits, so they are compared before they become text.
_MAX_INTEGER: Final = 10**_MAX_NAME

_encoder: Final = msgspec.json.Encoder()


@attrs.frozen
class NotificationMessage:
    """A notification for people.

    Attributes:
        title: Its headline.
        content: Its text.
        type: How to show it.
        auto_hide: Whether it goes away by itself.
        duration: Milliseconds until it does, or ``None`` for the receiver's own default.
    """

    title: str = attrs.field(validator=attrs.validators.instance_of(str))
    content: str = attrs.field(validator=attrs.validators.instance_of(str))
    type: NotificationType = attrs.field(default="info", validator=attrs.validators.in_(get_args(NotificationType)))
    auto_hide: bool = attrs.field(default=True, validator=attrs.validators.instance_of(bool))
    duration: int | None = attrs.field(
        default=None,
        validator=attrs.validators.optional([attrs.validators.instance_of(int), attrs.validators.ge(0)]),
    )

    def to_message(self) -> Message:
        """Return the message that carries it."""
        data = attrs.asdict(self, filter=lambda _, value: value is not None)
        return {"type": "notification", "data": data}


@attrs.frozen
class ChannelMessage:
    """A message to everybody in a channel.

    Attributes:
        channel: Where it is published.
        message: Any JSON value.
        type: The message's type; reserved ones are refused by the server.
        echo: Whether the sender hears it too.
        id: Asks for an acknowledgement under this id.
    """

    channel: str
    message: object
    type: str = "channel_message"
    echo: bool = True
    id: str | None = None

    def to_message(self) -> Message:
        """Return the message that carries it; fields at their defaults are left out."""
        message: Message = {"type": self.type, "channel": self.channel, "message": self.message}
        if not self.echo:
            message["echo"] = False
        if self.id is not None:
            message["id"] = self.id
        return message


def encode(
    message: Mapping[str, object], *, id: str | None = None, source: Source | None = None, data: Bytes | None = None
) -> Encoded:
    """Encode one message of the server, with the event name that its type gives it on an event stream.

    Messages of plain types have no event name, so that ``EventSource.onmessage`` sees them, unless the
    publisher named one in ``event``.

    Args:
        message: The message.
        id: See `Encoded`.
        source: See `Encoded`.
        data: See `Encoded`.

    Raises:
        LocalProtocolError: If `message` cannot be written as JSON, or its ``event`` cannot be written as a line.
    """
    kind = message.get("type")
    event = message.get("event")
    if not isinstance(event, str):
        event = _event_of(kind)
    elif not event.isprintable():
        raise LocalProtocolError(f"an event's name must be printable: {event!r}")
    try:
        return Encoded(_encoder.encode(message), event or None, id=id, source=source, data=data)
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise LocalProtocolError(f"a message must be JSON: {error}") from error


def cursor(id: str) -> Encoded:
    """Return what moves the position of an event stream's client to `id` without showing it an event.

    WHATWG HTML, section 9.2.6: an event sets "the last event ID string of the event source", and "if the data buffer is
    an empty string", that is all it does. A WebSocket has no such thing, and must not be sent it.
    """
    return Encoded(b"", id=id)


def parse(text: str, *, signals: bool = False) -> Message | Refusal:
    """Read one text message of a client; what `check` says of it is the caller's to ask.

    Text that is not a JSON object with a ``type`` counts as ``{"type": "text", "data": text}``; an object nested too
    deep is refused, since who sends that means more than text.

    Args:
        text: The message.
        signals: Whether an object without a ``type`` that has a ``signal_type`` counts as a ``webrtc_signal``.
    """
    message = decode_value(text)
    if signals and isinstance(message, dict) and "type" not in message and "signal_type" in message:
        return {"type": "webrtc_signal", **message}
    if message is TOO_DEEP and text.lstrip()[:1] == "{":
        return TOO_DEEP
    if not isinstance(message, dict) or "type" not in message:
        return {"type": "text", "data": text}
    return message


def with_type(payload: object, default_type: str) -> Message | Refusal:
    """Complete what a caller of the HTTP API or of Python asks to publish.

    A payload that is not an object becomes ``{"data": payload}``; a missing ``type`` becomes `default_type`.

    Returns:
        A new message, which has passed `check`, or why it was refused.
    """
    message: Message = dict(payload) if isinstance(payload, Mapping) else {"data": payload}
    message.setdefault("type", default_type)
    return check(message) or message


def publication(
    message: Message,
    *,
    id: str,
    source: Source,
    connection_id: str | None,
    user_id: str | None,
    info: Message | None = None,
    timestamp: int,
    data: Bytes | None = None,
) -> Encoded:
    """Encode a published message with its ``meta``; a ``meta`` of the publisher's own is replaced.

    Args:
        message: As published, untouched but for ``meta``.
        id: The publication's own id, by which somebody who has heard it may resume; see `rtcore.tokens`.
        source: The stream that it belongs to, and its number there.
        connection_id: The sender's connection, or ``None`` for the HTTP API.
        user_id: The sender's user, or ``None``.
        info: What is told about the sender beside these, or ``None`` for nothing.
        timestamp: Milliseconds since 1970.
        data: The file in it, see `Encoded`.

    Raises:
        LocalProtocolError: If `message` cannot be written as JSON.
    """
    sender: Message = {"connection_id": connection_id, "user_id": user_id}
    if info is not None:
        sender["info"] = info
    meta = {"id": id, "offset": source.offset, "epoch": source.epoch, "sender": sender, "timestamp": timestamp}
    return encode({**message, "meta": meta}, id=id, source=source, data=data)


def check_channel(name: object) -> Refusal | None:
    """Tell why `name` cannot name a channel that clients use, or ``None`` if it can.

    A name is 1 to 255 printable characters; names that begin with ``$`` are the server's own.
    """
    if not isinstance(name, str):
        return Refusal("invalid_channel", "'channel' must be a string")
    if not 1 <= len(name) <= _MAX_NAME or not name.isprintable():
        return Refusal("invalid_channel", f"a channel's name is 1 to {_MAX_NAME} printable characters")
    if name.startswith("$"):
        return Refusal("invalid_channel", "names that begin with '$' are the server's own: choose another")
    return None


def normalize_user_id(value: object) -> str | Refusal:
    """Return a user id as the string it is compared by: a whole number means its decimal form."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < _MAX_INTEGER:
        value = str(value)
    if isinstance(value, str) and 1 <= len(value) <= _MAX_NAME and value.isprintable():
        return value
    return Refusal("invalid_user_id", f"a user id is 1 to {_MAX_NAME} printable characters, or a whole number")


def reply_id(message: Message) -> str | int | None:
    """Return the ``id`` under which a message is to be answered: a short string or a whole number, else ``None``."""
    match message.get("id"):
        case str(text) if len(text) <= _MAX_NAME:
            return text
        case int(number) if not isinstance(number, bool) and abs(number) < _MAX_INTEGER:
            return number
        case _:
            return None


def check(message: Message) -> Refusal | None:
    """Tell what is wrong with the fields that the server knows, or ``None``.

    They are ``type``, ``id``, ``echo``, ``persistent``, ``event``, ``channel`` and ``recipient_id``; those that are
    there must be of the right type and size. `message` is changed only to normalize ``recipient_id``.
    """
    if not isinstance(message["type"], str):
        return Refusal("invalid_type", "'type' must be a string")
    if "channel" in message and (refusal := check_channel(message["channel"])):
        return refusal
    if "recipient_id" in message:
        user_id = normalize_user_id(message["recipient_id"])
        if isinstance(user_id, Refusal):
            return user_id
        message["recipient_id"] = user_id
    if message.get("id") is not None and reply_id(message) is None:
        return Refusal("invalid_id", f"'id' must be a string of at most {_MAX_NAME} characters")
    for name in ("echo", "persistent"):
        if not isinstance(message.get(name, True), bool):
            return Refusal(f"invalid_{name}", f"{name!r} must be true or false")
    event = message.get("event")
    if event is not None and not (isinstance(event, str) and len(event) <= _MAX_NAME and event.isprintable()):
        return Refusal("invalid_event", f"'event' must be at most {_MAX_NAME} printable characters")
    return None


def _event_of(kind: object) -> str | None:
    if not isinstance(kind, str) or kind not in RESERVED_TYPES or kind in PLAIN_SERVER_TYPES:
        return None
    return "binary_data" if kind == "binary" else kind
