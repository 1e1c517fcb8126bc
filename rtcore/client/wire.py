"""The messages between a client and a server that the client itself understands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final

import msgspec

from rtcore.binary import BINARY, Bytes, parse_payload
from rtcore.errors import LocalProtocolError, Refusal
from rtcore.json_values import decode_value
from rtcore.messages import Message

__all__ = [
    "Denial",
    "Farewell",
    "GapNotice",
    "Removal",
    "RosterStanding",
    "Standing",
    "Welcome",
    "command_text",
    "decode",
    "encode",
    "is_publication",
    "is_room",
    "join_text",
    "leave_text",
    "room_stream",
    "target_of",
]

# What a peer hears of its room is a stream like a channel's, but not one that anybody joins by its name.
_ROOM: Final = "$room:"


class Welcome(msgspec.Struct):
    """``connected``: the server is ready.

    `channels` are those that it has joined by itself. `session_epoch` is the life in which the server remembers what
    the client has published: the same as before means all of it. `last_event_id` is where it goes on with what goes to
    the client and to everybody, and `gaps` are the messages that say what of that is missing. The token of the
    connection expires in `expires_in` seconds, if it does.
    """

    connection_id: str
    user_id: str | None = None
    heartbeat_interval: Annotated[float, msgspec.Meta(gt=0)] | None = None
    channels: list[str] = []
    session_epoch: str | None = None
    last_event_id: str | None = None
    gaps: list[dict[str, object]] = []
    expires_in: float | None = None


class Farewell(msgspec.Struct):
    """``disconnect``: the server is about to close, and says why."""

    code: int
    reason: str = ""
    reconnect: bool | None = None
    retry_after: Annotated[float, msgspec.Meta(ge=0)] | None = None


class Denial(msgspec.Struct):
    """``error``: a command was refused, for now where `retry_after` tells for how many seconds."""

    code: str
    message: str = ""
    retry_after: Annotated[float, msgspec.Meta(ge=0)] | None = None


class RosterStanding(msgspec.Struct):
    """Where a channel's stream of comings and goings stands."""

    epoch: str = ""
    offset: int = 0
    recovered: bool | None = None


class Standing(msgspec.Struct):
    """The answer to a join: where the channel stands, and how much of it is replayed next."""

    epoch: str
    offset: int
    recovered: bool | None = None
    replayed: int = 0
    presence: RosterStanding | None = None


class Removal(msgspec.Struct):
    """``unsubscribed``: the server has taken the client out of a channel, where it has no right to be any more."""

    channel: str


class GapNotice(msgspec.Struct):
    """``gap``: something of a channel may be missing; it goes on after `offset`."""

    channel: str
    epoch: str
    offset: int
    reason: str = ""
    stream: str = ""


def decode(payload: str | Bytes) -> Message:
    """Return the message that a text of the server's is; or a binary frame, with the bytes of the file in ``data``.

    Raises:
        msgspec.ValidationError: It is none.
    """
    if isinstance(payload, str):
        message = decode_value(payload)
        if isinstance(message, Refusal):
            raise msgspec.ValidationError(message.message)
        if not isinstance(message, dict) or not isinstance(message.get("type"), str):
            raise msgspec.ValidationError("not an object with a string `type`")
        return message
    parsed = parse_payload(payload, max_head=None)
    if isinstance(parsed, Refusal):
        raise msgspec.ValidationError(parsed.message)
    head, data = parsed
    if head["type"] != BINARY:
        raise msgspec.ValidationError(f"a binary frame of the type {head['type']!r}")
    return {**head, "data": bytes(data)}


def encode(message: Mapping[str, object]) -> str:
    """Return the text of `message`.

    Raises:
        LocalProtocolError: JSON cannot express it.
    """
    try:
        return msgspec.json.encode(message).decode()
    # msgspec's own errors are ValueErrors, as is that of a text that UTF-8 cannot carry.
    except (TypeError, ValueError, RecursionError) as error:
        raise LocalProtocolError(f"JSON cannot express the message: {error}") from error


def command_text(name: str, data: object, token: str | None = None) -> str:
    """Return the text of a command; without an id the server does not answer it."""
    return encode({"type": "command", "command": name, "data": data} | ({} if token is None else {"id": token}))


def room_stream(room_id: str) -> str:
    """Return the name under which a client knows what it hears of a room; no channel that it may join is called so."""
    return f"{_ROOM}{room_id}"


def is_room(channel: str) -> bool:
    """Tell whether that is the name of a room's stream."""
    return channel.startswith(_ROOM)


def target_of(channel: str) -> dict[str, object]:
    """Return the field that names a channel, or a room, in what is said about it."""
    return {"room_id": channel.removeprefix(_ROOM)} if is_room(channel) else {"channel": channel}


def join_text(channel: str, data: object, token: str) -> str:
    """Return the text of a command that joins a channel or a room, which `data` names."""
    return command_text("join_room" if is_room(channel) else "join_channel", data, token)


def leave_text(channel: str, token: str | None = None) -> str:
    """Return the text of a command that leaves a channel or a room."""
    name = "leave_room" if is_room(channel) else "leave_channel"
    return command_text(name, target_of(channel), token)


def is_publication(message: Mapping[str, object]) -> bool:
    """Tell whether the server knows a message that is sent again; a signal is said on its receiver's stream."""
    return "channel" in message or "recipient_id" in message or message.get("type") == "webrtc_signal"
