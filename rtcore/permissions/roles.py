"""Roles: what tokens that name them are allowed besides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs
from attrs.validators import instance_of

from .grants import as_patterns

__all__ = ["ADMIN", "Role"]


def _as_patterns_or_none(patterns: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if patterns is None else as_patterns(patterns)


@attrs.frozen
class Role:
    """What a token is allowed besides, because it names this role.

    A role only adds to what the token's own claims allow. A value of the wrong type raises `TypeError`, a text that
    cannot be a pattern `ValueError`.

    Attributes:
        name: By which tokens name it.
        channels: Patterns of channels to join.
        publish: Where to publish; ``None`` for the same as `channels`.
        history: Of which channels to be told what was said before; ``None`` for the same as `channels`.
        presence: Of which channels to know who is there; ``None`` for the same as `channels`.
        upload: Where to send files; ``None`` for the same as `publish`.
        rooms: Patterns of rooms.
        admin: Whether to administer.
        server: Whether to count as the server.
    """

    name: str = attrs.field(validator=instance_of(str))
    channels: tuple[str, ...] = attrs.field(default=(), converter=as_patterns)
    publish: tuple[str, ...] | None = attrs.field(default=None, converter=_as_patterns_or_none)
    history: tuple[str, ...] | None = attrs.field(default=None, converter=_as_patterns_or_none)
    presence: tuple[str, ...] | None = attrs.field(default=None, converter=_as_patterns_or_none)
    upload: tuple[str, ...] | None = attrs.field(default=None, converter=_as_patterns_or_none)
    rooms: tuple[str, ...] = attrs.field(default=(), converter=as_patterns)
    admin: bool = attrs.field(default=False, validator=instance_of(bool))
    server: bool = attrs.field(default=False, validator=instance_of(bool))


#: What the role ``admin`` is unless a server says otherwise.
ADMIN: Final = Role("admin", channels=("*", "$*"), rooms=("*", "$*"), admin=True, server=True)
