"""What holds for which channels: options by patterns of their names."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from math import inf

import attrs
from attrs.validators import instance_of, optional

from .patterns import MAX_PATTERN, is_pattern, matches

__all__ = ["Access", "Namespace", "Namespaces", "SlowConsumer"]


class SlowConsumer(Enum):
    """What becomes of a subscriber that reads more slowly than its channel speaks.

    `DISCONNECT` ends its connection (4410), so that it comes back and recovers. `DROP_OLDEST` drops what has waited
    longest, `LATEST` all but the newest message of each key; both announce what is missing with a ``gap``.
    """

    DISCONNECT = "disconnect"
    DROP_OLDEST = "drop_oldest"
    LATEST = "latest"


class Access(Enum):
    """To whom something is open, whatever else they are allowed.

    `ANYBODY` with a connection, `USERS` who have said who they are, `MEMBERS` who have joined the channel, those to
    whom it is `GRANTED` by name, or only the `SERVER`: the application, and programs that come with an API key.
    """

    ANYBODY = "anybody"
    USERS = "users"
    MEMBERS = "members"
    GRANTED = "granted"
    SERVER = "server"


def _is_count(_: object, attribute: attrs.Attribute[int], value: object, least: int = 0) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"'{attribute.name}' must be a whole number: {value!r}")
    if value < least:
        raise ValueError(f"'{attribute.name}' must be at least {least}: {value!r}")


def _is_size(_: object, attribute: attrs.Attribute[int], value: object) -> None:
    _is_count(_, attribute, value, least=1)


def _is_duration(_: object, attribute: attrs.Attribute[float], value: object) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"'{attribute.name}' must be a number: {value!r}")
    # NaN is not in there either. Nor is for ever, which would make infinite deadlines.
    if not 0 <= value < inf:
        raise ValueError(f"'{attribute.name}' must be at least 0 and finite: {value!r}")


def _is_pattern(_: object, attribute: attrs.Attribute[str], value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"'{attribute.name}' must be a string: {value!r}")
    if not is_pattern(value):
        raise ValueError(f"'{attribute.name}' must be 1 to {MAX_PATTERN} printable characters: {value!r}")


def _is_not_for_members(_: object, attribute: attrs.Attribute[Access], value: object) -> None:
    if value is Access.MEMBERS:
        raise ValueError(f"'{attribute.name}' is what makes members: it cannot be for members only")


@attrs.frozen(kw_only=True)
class Namespace:
    """What holds for the channels whose names match a pattern.

    A value of the wrong type raises `TypeError`, one out of its range `ValueError`.

    Attributes:
        pattern: What the whole name must look like. ``*`` stands for any characters, none included; nothing else is
            special. A pattern matches the server's own channels, whose names begin with ``$``, only if it begins with
            ``$`` itself.
        history_size: The number of the last publications that are kept for those who come back.
        history_ttl: Seconds for which they are kept.
        last_value: Whether every publication is persistent and only the last one is kept so, for channels that say
            what is the case rather than what happens.
        persistent_size: The number of persistent publications that are kept for those who join: always 1 with
            `last_value`.
        presence: Whether the channel knows its members.
        join_leave: Whether they hear of each other's coming and going.
        presence_grace: Seconds for which somebody whose connection was lost still counts as present.
        slow_consumer: What becomes of a subscriber that does not keep up.
        conflation_key: The field of a message by which `SlowConsumer.LATEST` tells what replaces what. Messages
            without it replace each other.
        subscribe: Who may join, and hear what is said; not `Access.MEMBERS`.
        publish: Who may publish.
        upload: Who may send files.
        history_access: Who may ask for what was said before, and be told what they have missed.
        presence_access: Who may know who is there.
        max_message_size: The most bytes of JSON, and of the file in it, in one publication; ``None`` for the server's
            limit alone.
    """

    pattern: str = attrs.field(validator=_is_pattern)
    history_size: int = attrs.field(default=100, validator=_is_count)
    history_ttl: float = attrs.field(default=300.0, validator=_is_duration)
    last_value: bool = attrs.field(default=False, validator=instance_of(bool))
    persistent_size: int = attrs.field(default=100, validator=_is_count)
    presence: bool = attrs.field(default=True, validator=instance_of(bool))
    join_leave: bool = attrs.field(default=True, validator=instance_of(bool))
    presence_grace: float = attrs.field(default=5.0, validator=_is_duration)
    slow_consumer: SlowConsumer = attrs.field(default=SlowConsumer.DISCONNECT, validator=instance_of(SlowConsumer))
    conflation_key: str = attrs.field(default="key", validator=instance_of(str))
    subscribe: Access = attrs.field(default=Access.ANYBODY, validator=[instance_of(Access), _is_not_for_members])
    publish: Access = attrs.field(default=Access.ANYBODY, validator=instance_of(Access))
    upload: Access = attrs.field(default=Access.ANYBODY, validator=instance_of(Access))
    history_access: Access = attrs.field(default=Access.ANYBODY, validator=instance_of(Access))
    presence_access: Access = attrs.field(default=Access.ANYBODY, validator=instance_of(Access))
    max_message_size: int | None = attrs.field(default=None, validator=optional(_is_size))

    def __attrs_post_init__(self) -> None:
        if self.last_value:
            object.__setattr__(self, "persistent_size", 1)


def _as_tuple(namespaces: Sequence[Namespace]) -> tuple[Namespace, ...]:
    return tuple(namespaces)


@attrs.frozen
class Namespaces:
    """The namespaces of a server, in the order in which they are asked.

    Attributes:
        namespaces: The first that matches a channel's name holds.
        default: What holds where none matches; its pattern is not looked at.
    """

    namespaces: tuple[Namespace, ...] = attrs.field(default=(), converter=_as_tuple)
    default: Namespace = attrs.field(factory=lambda: Namespace(pattern="*"))
    _globs: tuple[tuple[Namespace, list[str]], ...] = attrs.field(init=False, repr=False, eq=False)

    @_globs.default
    def _split(self) -> tuple[tuple[Namespace, list[str]], ...]:
        return tuple((namespace, namespace.pattern.split("*")) for namespace in self.namespaces)

    def get(self, channel: str) -> Namespace:
        """Return the first namespace whose pattern matches the name `channel`, else the default."""
        for namespace, literals in self._globs:
            if matches(channel, literals):
                return namespace
        return self.default
