"""What an API key is allowed, by its scopes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rtcore.errors import Refusal
from rtcore.patterns import is_pattern

from .grants import EVERYTHING, Credential, Grant, Scope

__all__ = ["grant_of_scopes"]

_ACTIONS: Final = ("subscribe", "publish", "history", "presence", "upload", "signal")


def grant_of_scopes(scopes: Sequence[str]) -> Grant | Refusal:
    """Read the scopes of an API key.

    A scope is ``*`` for everything, ``ACTION`` for all channels or rooms, ``ACTION:PATTERN`` for some, or ``admin``.
    What is not named is not allowed, and, unlike with the claims of a token, nothing follows from something else.

    Args:
        scopes: None of them: nothing is allowed.

    Returns:
        The grant, which counts as the server where it allows something, or a `Refusal` (``invalid_scope``).
    """
    patterns: dict[str, list[str]] = {action: [] for action in _ACTIONS}
    everything = admin = False
    for scope in scopes:
        action, colon, pattern = scope.partition(":") if isinstance(scope, str) else ("", "", "")
        if scope == "*":
            everything = True
        elif scope == "admin":
            admin = True
        elif action in patterns and not colon:
            patterns[action] += ("*", "$*")
        elif action in patterns and is_pattern(pattern):
            patterns[action].append(pattern)
        else:
            allowed = f"'*', 'admin', ACTION or ACTION:PATTERN, where ACTION is one of {', '.join(_ACTIONS)}"
            return Refusal("invalid_scope", f"a scope must be {allowed}: {scope!r:.80}")
    if everything:
        return EVERYTHING
    return Grant(
        subscribe=Scope(patterns["subscribe"], exclusive=True),
        publish=Scope(patterns["publish"], exclusive=True),
        history=Scope(patterns["history"], exclusive=True),
        presence=Scope(patterns["presence"], exclusive=True),
        upload=Scope(patterns["upload"], exclusive=True),
        signal=Scope(patterns["signal"], exclusive=True),
        admin=admin,
        server=True,
        credential=Credential.KEY,
    )
