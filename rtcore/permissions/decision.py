"""The one decision whether somebody may do something."""

from __future__ import annotations

from enum import Enum
from typing import Final, assert_never

from rtcore.errors import Refusal
from rtcore.namespaces import Access, Namespace

from .grants import Grant

__all__ = ["Action", "decide"]


class Action(Enum):
    """What can be allowed or not.

    All but `ADMINISTER` concern one channel, or, for `SIGNAL`, one room.
    """

    SUBSCRIBE = "subscribe"
    PUBLISH = "publish"
    HISTORY = "history"
    PRESENCE = "presence"
    UPLOAD = "upload"
    SIGNAL = "signal"
    ADMINISTER = "administer"


# What is said of an action that is not allowed, behind "may" or "to".
_DEEDS: Final = {
    Action.SUBSCRIBE: "join this channel",
    Action.PUBLISH: "publish to this channel",
    Action.HISTORY: "be told what was said in this channel",
    Action.PRESENCE: "know who is in this channel",
    Action.UPLOAD: "send files to this channel",
    Action.SIGNAL: "use this room",
}

_ADMIN_REQUIRED: Final = Refusal("admin_required", "this needs a credential that may administer the server", status=403)

# What a channel asks for of which nothing is said.
_UNSAID: Final = Namespace(pattern="*")


def decide(
    action: Action,
    name: str = "",
    *,
    user_id: str | None,
    grant: Grant,
    namespace: Namespace | None = None,
    member: bool = False,
) -> Refusal | None:
    """Tell why somebody may not do something, or ``None`` if they may.

    Both must agree: what they are allowed (`grant`), and the channel's namespace. Nothing here depends on whether there
    is such a channel or room, nor does what is said: who may not know of it learns nothing by asking.

    Of the server's own channels, whose names begin with ``$``, no namespace makes more than this: anybody may write to
    a user and send files to them, and users may ask for what was said to themselves. All else there must be granted by
    name.

    Args:
        action: What to do.
        name: The channel, or the room for `Action.SIGNAL`; of no account for `Action.ADMINISTER`.
        user_id: Who wants to.
        grant: What they are allowed.
        namespace: What holds for the channel; of no account for rooms, which are open to whoever `grant` lets in.
        member: Whether they have joined the channel.

    Returns:
        ``None``, or a `Refusal` with the status 403: ``ACTION_denied``, or ``admin_required``.
    """
    if namespace is None:
        namespace = _UNSAID
    match action:
        case Action.PUBLISH:
            scope, access = grant.publish, namespace.publish
        case Action.SUBSCRIBE:
            scope, access = grant.subscribe, namespace.subscribe
        case Action.HISTORY:
            scope, access = grant.history, namespace.history_access
        case Action.PRESENCE:
            scope, access = grant.presence, namespace.presence_access
        case Action.UPLOAD:
            scope, access = grant.upload, namespace.upload
        case Action.SIGNAL:
            scope, access = grant.signal, Access.ANYBODY
        case Action.ADMINISTER:
            return None if grant.admin else _ADMIN_REQUIRED
        case _:
            assert_never(action)
    by_name = access is Access.GRANTED or (name.startswith("$") and _is_by_name(action, name, user_id))
    asks_nothing = access is Access.ANYBODY and not by_name
    if asks_nothing and not scope.exclusive:
        return None
    granted = scope.covers(name)
    if scope.exclusive and not granted:
        return _denied(action, f"your token or key does not allow you to {_DEEDS[action]}: you need one that names it")
    if asks_nothing or grant.server:
        return None
    if access is Access.SERVER:
        return _denied(action, f"only the server may {_DEEDS[action]}")
    if by_name and not granted:
        return _denied(
            action, f"only those to whom it is granted by name may {_DEEDS[action]}: you need a token or key"
        )
    if access is Access.USERS and user_id is None:
        return _denied(action, f"only users may {_DEEDS[action]}: say who you are, with a token")
    if access is Access.MEMBERS and not member:
        return _denied(action, f"only members may {_DEEDS[action]}: join it first")
    return None


def _is_by_name(action: Action, name: str, user_id: str | None) -> bool:
    """Tell whether an action must be granted by name in one of the server's own channels, or in a room so called."""
    if action is Action.SIGNAL:
        return False
    if action is Action.PUBLISH or action is Action.UPLOAD:
        return not name.startswith("$user:")
    return user_id is None or name != f"$user:{user_id}"


def _denied(action: Action, message: str) -> Refusal:
    return Refusal(f"{action.value}_denied", message, status=403)
