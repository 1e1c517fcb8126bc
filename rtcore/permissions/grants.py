"""What a credential allows to whoever comes with it."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Final

import attrs
from attrs.validators import instance_of

from rtcore.messages import Message
from rtcore.patterns import MAX_PATTERN, is_pattern, matches

__all__ = ["EVERYTHING", "OPEN", "Credential", "Grant", "Identity", "Scope", "as_patterns"]


class Credential(Enum):
    """With what somebody has come: nothing, a token, which expires and may be revoked, or an API key."""

    NONE = "none"
    TOKEN = "token"
    KEY = "key"


def as_patterns(patterns: Sequence[str]) -> tuple[str, ...]:
    """Return patterns as an attribute holds them: each once.

    Raises:
        TypeError: If it is a string, whose characters would be taken for patterns: ``*`` means everything.
        ValueError: If one of them cannot be a pattern.
    """
    if isinstance(patterns, str):
        raise TypeError(f"patterns come in a list or a tuple: {patterns!r}")
    for pattern in patterns:
        if not is_pattern(pattern):
            raise ValueError(f"a pattern must be 1 to {MAX_PATTERN} printable characters: {pattern!r}")
    return tuple(dict.fromkeys(patterns))


@attrs.frozen
class Scope:
    """Names of channels, or of rooms, for which something is allowed.

    Attributes:
        patterns: The names; ``*`` stands for any characters (`rtcore.patterns.matches`).
        exclusive: Whether nothing else is allowed. Otherwise the rest is as the namespaces say.
    """

    patterns: tuple[str, ...] = attrs.field(default=(), converter=as_patterns)
    exclusive: bool = attrs.field(default=False, validator=instance_of(bool))
    # Those without a star, which are the many in long lists, are looked up; the others are tried in turn.
    _names: frozenset[str] = attrs.field(init=False, repr=False, eq=False)
    _globs: tuple[list[str], ...] = attrs.field(init=False, repr=False, eq=False)

    @_names.default
    def _select(self) -> frozenset[str]:
        return frozenset(pattern for pattern in self.patterns if "*" not in pattern)

    @_globs.default
    def _split(self) -> tuple[list[str], ...]:
        return tuple(pattern.split("*") for pattern in self.patterns if "*" in pattern)

    def covers(self, name: str) -> bool:
        """Tell whether one of the patterns means `name`."""
        if name in self._names:
            return True
        # A generator would take longer than what it generates, and this is asked for each publication.
        for literals in self._globs:  # noqa: SIM110
            if matches(name, literals):
                return True
        return False


@attrs.frozen(kw_only=True)
class Grant:
    """What somebody is allowed, whoever it is.

    Attributes:
        subscribe: Which channels to join.
        publish: Where to publish. Messages to a user are published to ``$user:ID``, those to everybody to
            ``$broadcast``.
        history: Of which channels to be told what was said before, what was missed while away included.
        presence: Of which channels to know who is there.
        upload: Where to send files.
        signal: Which rooms to make, to join and to see.
        admin: Whether to administer: to list and to close connections, to read statistics, to revoke.
        server: Whether to count as the server where a namespace asks for it (`rtcore.Access.SERVER`).
        info: What others are told about its bearer, beside the user id; ``None`` for nothing.
        credential: What it comes from.
        token_id: The token's ``jti``, or ``None``.
        issued_at: When it was issued, in seconds since 1970; ``None`` if it does not say.
        expires_at: When it ends, in seconds since 1970; ``None`` for never.
    """

    subscribe: Scope = Scope()
    publish: Scope = Scope()
    history: Scope = Scope()
    presence: Scope = Scope()
    upload: Scope = Scope()
    signal: Scope = Scope()
    admin: bool = False
    server: bool = False
    # No dict has a hash, and a grant has one without it.
    info: Message | None = attrs.field(default=None, hash=False)
    credential: Credential = Credential.NONE
    token_id: str | None = None
    issued_at: float | None = None
    expires_at: float | None = None


@attrs.frozen
class Identity:
    """Who somebody is, and what they are allowed.

    Attributes:
        user_id: The user, or ``None`` for somebody anonymous and for a program.
        grant: What they are allowed.
    """

    user_id: str | None
    grant: Grant


_ALL: Final = Scope(("*", "$*"), exclusive=True)

#: Of a server that asks nobody for credentials: everybody may do what the namespaces let them.
OPEN: Final = Grant(admin=True)

#: Of the application itself, and of an API key without scopes.
EVERYTHING: Final = Grant(
    subscribe=_ALL,
    publish=_ALL,
    history=_ALL,
    presence=_ALL,
    upload=_ALL,
    signal=_ALL,
    admin=True,
    server=True,
    credential=Credential.KEY,
)
