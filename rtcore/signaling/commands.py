"""What clients ask of rooms, and what their arguments must be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeAlias

import attrs

from rtcore.errors import Refusal
from rtcore.messages import Message
from rtcore.router import Request, Since

__all__ = [
    "CreateRoom",
    "JoinRoom",
    "LeaveRoom",
    "RoomCommand",
    "SendSignal",
    "parse_create_room",
    "parse_join_room",
    "parse_leave_room",
    "parse_room_changes",
]

_MAX_NAME: Final = 255


@attrs.frozen
class CreateRoom:
    """Command: make a room.

    Attributes:
        room_id: Its id, or ``None`` for one that is made up.
        name: Its name for people, or ``None``.
        max_participants: How many may be in it, or ``None`` for the most that the server allows.
    """

    request: Request
    room_id: str | None = None
    name: str | None = None
    max_participants: int | None = None


@attrs.frozen
class JoinRoom:
    """Command: be a peer in a room, which is made if there is none.

    Attributes:
        room: The room.
        peer_id: As whom, or ``None`` for the connection's id.
        instance: The life of the application that comes, or ``None`` for a new one.
        metadata: What it tells about itself.
        rollback: Whether it can roll a local offer back.
        since: How far it has heard what it was told in there before, or ``None``.
    """

    request: Request
    room: CreateRoom
    peer_id: str | None = None
    instance: str | None = None
    metadata: Message = attrs.field(factory=dict)
    rollback: bool = True
    since: Since | None = None


@attrs.frozen
class LeaveRoom:
    """Command: be a peer in a room no longer; leaving one that one is not in is no fault."""

    request: Request
    room_id: str


@attrs.frozen
class SendSignal:
    """Command: pass a ``webrtc_signal`` on."""

    request: Request
    message: Message


RoomCommand: TypeAlias = CreateRoom | JoinRoom | LeaveRoom | SendSignal


def parse_create_room(data: Mapping[str, object], request: Request) -> CreateRoom | Refusal:
    """Return what is asked for: ``room_id``, ``name`` and ``max_participants``, all of which may be left out."""
    room_id = _name(data, "room_id")
    if isinstance(room_id, Refusal):
        return room_id
    changes = parse_room_changes(data)
    if isinstance(changes, Refusal):
        return changes
    return CreateRoom(request, room_id, *changes)


def parse_room_changes(data: Mapping[str, object]) -> tuple[str | None, int | None] | Refusal:
    """Return ``name`` and ``max_participants``, where given, or what is wrong with them."""
    name = _name(data, "name")
    if isinstance(name, Refusal):
        return name
    most = data.get("max_participants")
    if most is None:
        return name, None
    if not isinstance(most, int) or isinstance(most, bool) or most < 1:
        return Refusal("invalid_max_participants", "'max_participants' must be a whole number from 1 on")
    return name, most


def parse_join_room(data: Mapping[str, object], since: Since | None, request: Request) -> JoinRoom | Refusal:
    """Return what is asked for: a ``room_id``, and of the fields of `JoinRoom` what was given.

    Args:
        data: The fields.
        since: What their ``since`` says.
        request: Who asks.
    """
    room = parse_create_room(data, request)
    if isinstance(room, Refusal):
        return room
    if room.room_id is None:
        return Refusal("invalid_room_id", "'room_id' must name the room")
    peer_id, instance = _name(data, "peer_id"), _name(data, "instance")
    if isinstance(peer_id, Refusal):
        return peer_id
    if isinstance(instance, Refusal):
        return instance
    metadata = data.get("metadata")
    if metadata is None:
        metadata = {}
    if not isinstance(metadata, dict):
        return Refusal("invalid_metadata", "'metadata' must be an object")
    rollback = data.get("rollback", True)
    if not isinstance(rollback, bool):
        return Refusal("invalid_rollback", "'rollback' must be true or false")
    return JoinRoom(request, room, peer_id, instance, metadata, rollback, since)


def parse_leave_room(data: Mapping[str, object], request: Request) -> LeaveRoom | Refusal:
    """Return what is asked for: a ``room_id``."""
    room_id = _name(data, "room_id")
    if isinstance(room_id, Refusal):
        return room_id
    if room_id is None:
        return Refusal("invalid_room_id", "'room_id' must name the room")
    return LeaveRoom(request, room_id)


def _name(data: Mapping[str, object], field: str) -> str | Refusal | None:
    value = data.get(field)
    if value is None or (isinstance(value, str) and 1 <= len(value) <= _MAX_NAME and value.isprintable()):
        return value
    return Refusal(f"invalid_{field}", f"{field!r} must be 1 to {_MAX_NAME} printable characters")
