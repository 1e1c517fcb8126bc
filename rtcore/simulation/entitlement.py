"""Who may do what, decided once more and otherwise than by `rtcore.permissions.decide`, to be compared with it."""

from __future__ import annotations

from enum import Enum
from fnmatch import fnmatchcase
from typing import Final

from rtcore.namespaces import Access, Namespace
from rtcore.permissions import Action, Grant, Scope

__all__ = ["WhyNot", "why_not", "why_not_recall"]


class WhyNot(Enum):
    """Why somebody may not do something. There is one text for each of these and each action."""

    NOT_NAMED = "the token names other channels"
    SERVER = "it is the server's"
    BY_NAME = "the token does not name the channel"
    USERS = "it is for users"
    MEMBERS = "it is for members"
    ADMIN = "it is for those who administer"


def why_not(
    action: Action, channel: str, *, user_id: str | None, grant: Grant, namespace: Namespace, member: bool
) -> WhyNot | None:
    """Return why somebody may not do something with a channel, or ``None`` if they may.

    Args:
        action: What; all but `Action.SIGNAL`, for which there is nothing here.
        channel: Where; of no account for `Action.ADMINISTER`.
        user_id: Who wants to.
        grant: What they hold.
        namespace: What holds for the channel.
        member: Whether they are in it.
    """
    if action is Action.ADMINISTER:
        return None if grant.admin else WhyNot.ADMIN
    scope, access = {
        Action.SUBSCRIBE: (grant.subscribe, namespace.subscribe),
        Action.PUBLISH: (grant.publish, namespace.publish),
        Action.UPLOAD: (grant.upload, namespace.upload),
        Action.HISTORY: (grant.history, namespace.history_access),
        Action.PRESENCE: (grant.presence, namespace.presence_access),
    }[action]
    named = _names(scope, channel)
    if scope.exclusive and not named:
        return WhyNot.NOT_NAMED
    if grant.server:
        return None
    if access is Access.SERVER:
        # Who is named without being a server has what the server's own channels ask for, and no more.
        return WhyNot.SERVER
    if (access is Access.GRANTED or _is_own(action, channel, user_id)) and not named:
        return WhyNot.BY_NAME
    if access is Access.USERS and user_id is None:
        return WhyNot.USERS
    return WhyNot.MEMBERS if access is Access.MEMBERS and not member else None


def why_not_recall(channel: str, *, user_id: str | None, grant: Grant, namespace: Namespace) -> WhyNot | None:
    """Return why somebody who hears a channel may not be told what they have missed of it, or ``None``."""
    reason = why_not(Action.HISTORY, channel, user_id=user_id, grant=grant, namespace=namespace, member=True)
    if reason is None or not channel.startswith("$"):
        return reason
    # What is said to oneself and to everybody no token keeps away.
    return why_not(Action.HISTORY, "", user_id=user_id, grant=_NOTHING, namespace=namespace, member=True)


_NOTHING: Final = Grant()


def _names(scope: Scope, channel: str) -> bool:
    # The names of channels here have nothing in them that is special but the star, and that not at the beginning
    # of what begins with a dollar sign.
    return any(
        fnmatchcase(channel, pattern)
        for pattern in scope.patterns
        if pattern.startswith("$") or not channel.startswith("$")
    )


def _is_own(action: Action, channel: str, user_id: str | None) -> bool:
    """Tell whether a channel is the server's own, and not one that is open to somebody all the same."""
    if not channel.startswith("$"):
        return False
    if action in (Action.PUBLISH, Action.UPLOAD):
        return not channel.startswith("$user:")
    return user_id is None or channel != f"$user:{user_id}"
