"""The commands that clients give: their names, and what their arguments must be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, TypeAlias

import attrs

from .errors import Refusal
from .filters import parse_filters
from .messages import Message, check_channel
from .router import Refused, Request, Since, Subscribe, Unsubscribe
from .signaling import CreateRoom, JoinRoom, LeaveRoom
from .signaling.commands import parse_create_room, parse_join_room, parse_leave_room
from .uploads import BeginUpload, CancelUpload
from .uploads.commands import parse_begin_upload, parse_cancel_upload

__all__ = ["MAX_HISTORY_LIMIT", "CommandEffect", "Query", "Renew", "history_query", "parse_command"]

#: The most publications on one page of a channel's history.
MAX_HISTORY_LIMIT: Final = 1000
_DEFAULT_HISTORY_LIMIT: Final = 100
# Far above any offset, and within what every JSON parser reads exactly.
_MAX_OFFSET: Final = 2**53
_MAX_TOKEN: Final = 8192


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
class Renew:
    """Effect: the client wants to go on with another token.

    Attributes:
        token: The token, not verified yet.
    """

    token: str = attrs.field(repr=False)
    request: Request


CommandEffect: TypeAlias = (
    Subscribe | Unsubscribe | CreateRoom | JoinRoom | LeaveRoom | BeginUpload | CancelUpload | Query | Renew | Refused
)


def parse_command(message: Message, request: Request) -> CommandEffect:
    """Return what a ``command`` message asks for, or `Refused`."""
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


def history_query(data: Mapping[str, object]) -> Message | Refusal:
    """Return the checked arguments of ``history``, or why they are refused.

    Args:
        data: ``channel``, and of ``limit``, ``epoch``, ``after`` and ``before`` what was given.
    """
    if refusal := check_channel(data.get("channel")):
        return refusal
    limit = data.get("limit")
    if limit is None:
        limit = _DEFAULT_HISTORY_LIMIT
    if not _is_whole(limit, least=1, most=MAX_HISTORY_LIMIT):
        return Refusal("invalid_limit", f"'limit' must be a whole number from 1 to {MAX_HISTORY_LIMIT}")
    epoch, after, before = data.get("epoch"), data.get("after"), data.get("before")
    if epoch is not None and not isinstance(epoch, str):
        return Refusal("invalid_epoch", "'epoch' must be a string")
    for name, offset in (("after", after), ("before", before)):
        if offset is not None and not _is_whole(offset):
            return Refusal(f"invalid_{name}", f"{name!r} must be an offset: a whole number from 0 on")
    if after is not None and before is not None:
        return Refusal("invalid_before", "give 'after' or 'before', not both")
    return {"channel": data["channel"], "limit": limit, "epoch": epoch, "after": after, "before": before}


def _query(name: str, data: Message, request: Request) -> CommandEffect:
    return Query(name, data, request)


def _history(name: str, data: Message, request: Request) -> CommandEffect:
    checked = history_query(data)
    return Refused(request, checked) if isinstance(checked, Refusal) else Query(name, checked, request)


def _presence(name: str, data: Message, request: Request) -> CommandEffect:
    if refusal := check_channel(data.get("channel")):
        return Refused(request, refusal)
    return Query(name, {"channel": data["channel"]}, request)


def _leave(name: str, data: Message, request: Request) -> CommandEffect:
    if refusal := check_channel(data.get("channel")):
        return Refused(request, refusal)
    return Unsubscribe(str(data["channel"]), request)


def _join(name: str, data: Message, request: Request) -> CommandEffect:
    if refusal := check_channel(data.get("channel")):
        return Refused(request, refusal)
    since = _since("since", data)
    if isinstance(since, Refusal):
        return Refused(request, since)
    changes_since = _since("presence_since", data)
    if isinstance(changes_since, Refusal):
        return Refused(request, changes_since)
    wanted = parse_filters(data.get("filters"))
    if isinstance(wanted, Refusal):
        return Refused(request, wanted)
    return Subscribe(str(data["channel"]), request, since, changes_since, wanted)


def _create_room(name: str, data: Message, request: Request) -> CommandEffect:
    command = parse_create_room(data, request)
    return Refused(request, command) if isinstance(command, Refusal) else command


def _join_room(name: str, data: Message, request: Request) -> CommandEffect:
    since = _since("since", data)
    command = since if isinstance(since, Refusal) else parse_join_room(data, since, request)
    return Refused(request, command) if isinstance(command, Refusal) else command


def _leave_room(name: str, data: Message, request: Request) -> CommandEffect:
    command = parse_leave_room(data, request)
    return Refused(request, command) if isinstance(command, Refusal) else command


def _begin_upload(name: str, data: Message, request: Request) -> CommandEffect:
    command = parse_begin_upload(data, request)
    return Refused(request, command) if isinstance(command, Refusal) else command


def _cancel_upload(name: str, data: Message, request: Request) -> CommandEffect:
    command = parse_cancel_upload(data, request)
    return Refused(request, command) if isinstance(command, Refusal) else command


def _refresh_token(name: str, data: Message, request: Request) -> CommandEffect:
    token = data.get("token")
    if not isinstance(token, str) or not 1 <= len(token) <= _MAX_TOKEN:
        return Refused(request, Refusal("invalid_token", f"'token' must be 1 to {_MAX_TOKEN} characters", status=401))
    return Renew(token, request)


def _since(name: str, data: Message) -> Since | Refusal | None:
    match data.get(name):
        case None:
            return None
        case {"epoch": str(epoch), "offset": offset, **rest} if _is_whole(offset):
            persistent = rest.get("persistent")
            if persistent is None or _is_whole(persistent):
                return Since(epoch, _int(offset), None if persistent is None else _int(persistent))
    return Refusal(
        f"invalid_{name}", f"{name!r} must be an object with 'epoch', a string, and 'offset', a whole number"
    )


def _is_whole(value: object, *, least: int = 0, most: int = _MAX_OFFSET) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _int(value: object) -> int:
    assert isinstance(value, int), "_is_whole() has seen to it"
    return value


_COMMANDS: Final[Mapping[str, Callable[[str, Message, Request], CommandEffect]]] = MappingProxyType(
    {
        "ping": _query,
        "join_channel": _join,
        "leave_channel": _leave,
        "history": _history,
        "presence": _presence,
        "get_connection_stats": _query,
        "get_active_users": _query,
        "create_room": _create_room,
        "join_room": _join_room,
        "leave_room": _leave_room,
        "get_rooms": _query,
        "begin_upload": _begin_upload,
        "cancel_upload": _cancel_upload,
        "refresh_token": _refresh_token,
    }
)
