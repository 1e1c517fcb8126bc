"""What a subscriber wants to hear of a channel, and what not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import attrs

from .errors import Refusal
from .media_types import OCTET_STREAM, is_media_range, matches
from .messages import Message

__all__ = ["Filter", "parse_filters", "with_presence"]

_KEYS: Final = ("types", "notification_types", "binary_data", "max_file_size", "allowed_types")
_MAX_ENTRIES: Final = 100
_MAX_LENGTH: Final = 255


@attrs.frozen
class Filter:
    """What a subscriber wants to hear. Filters that want the same, made by `parse_filters`, are equal.

    What a filter says is said by several conditions, each about some messages only, and a message must meet all those
    that are about it. Thus `notification_types` does not keep text away, and nothing in a filter brings back what
    `types` leaves out: who lists `types` and wants notifications or files lists ``notification`` or ``binary`` too.
    An empty tuple lets nothing through of what it is about.

    Attributes:
        types: The ``type`` of all messages, ``user_joined`` and ``user_left`` included; ``None`` for any.
        notification_types: The ``data.type`` of those of type ``notification``, where one that has none is an
            ``info``; ``None`` for any.
        binary_data: Whether those of type ``binary`` are wanted at all.
        max_file_size: The most bytes of the file in one of type ``binary``: its ``size``, or else what its
            ``binary_data`` holds; if it says neither it is not wanted. ``None`` for any.
        allowed_types: The media ranges for the ``content_type`` of those of type ``binary``, in lower case:
            ``image/*``, ``text/plain``, ``*/*``. Parameters such as a charset do not count, and one that has no
            content type is an ``application/octet-stream``; ``None`` for any.
        presence: Whether the channel's comings and goings may be told at all. It is the server that says no to that,
            by `with_presence`, and of a stream rather than of a type: `matches` does not look at it.
    """

    types: tuple[str, ...] | None = None
    notification_types: tuple[str, ...] | None = None
    binary_data: bool = True
    max_file_size: int | None = None
    allowed_types: tuple[str, ...] | None = None
    presence: bool = True

    def matches(self, message: Message) -> bool:
        """Tell whether `message`, a publication, is wanted."""
        kind = message.get("type")
        if self.types is not None and kind not in self.types:
            return False
        if kind == "notification":
            return self._matches_notification(message)
        if kind == "binary":
            return self._matches_binary(message)
        return True

    def _matches_notification(self, message: Message) -> bool:
        if self.notification_types is None:
            return True
        data = message.get("data")
        kind = data.get("type", "info") if isinstance(data, Mapping) else "info"
        return kind in self.notification_types

    def _matches_binary(self, message: Message) -> bool:
        if not self.binary_data:
            return False
        if self.max_file_size is not None:
            size = _file_size(message)
            if size is None or size > self.max_file_size:
                return False
        if self.allowed_types is not None:
            return matches(_content_type(message), self.allowed_types)
        return True


_ANYTHING: Final = Filter()


def parse_filters(value: object) -> Filter | Refusal | None:
    """Read the ``filters`` of a client.

    Args:
        value: As decoded from JSON: an object with any of ``types``, ``notification_types`` and ``allowed_types``
            (each a list of at most 100 strings of 1 to 255 characters), ``binary_data`` (true or false) and
            ``max_file_size`` (bytes, at least 0). What is null counts as not there.

    Returns:
        The filter, ``None`` if everything is wanted, or why `value` is refused.
    """
    if value is None:
        return None
    if not isinstance(value, Mapping):
        return _refusal(f"'filters' must be an object with any of {', '.join(_KEYS)}")
    for key in value:
        if key not in _KEYS:
            return _refusal(f"'filters' may have {', '.join(_KEYS)}, and not {_shown(key)}")
    lists: dict[str, tuple[str, ...] | None] = {}
    for key in ("types", "notification_types", "allowed_types"):
        entries = _entries(key, value.get(key))
        if isinstance(entries, Refusal):
            return entries
        lists[key] = entries
    allowed_types = lists["allowed_types"]
    if allowed_types is not None:
        for entry in allowed_types:
            if not is_media_range(entry):
                return _refusal(f"'allowed_types' lists such as 'image/*' or 'text/plain', and not {_shown(entry)}")
        allowed_types = _sorted(entry.lower() for entry in allowed_types)
    binary_data = value.get("binary_data")
    if binary_data is not None and not isinstance(binary_data, bool):
        return _refusal("'binary_data' must be true or false")
    size = value.get("max_file_size")
    if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 0):
        return _refusal("'max_file_size' must be a whole number of bytes, at least 0")
    found = Filter(
        types=lists["types"],
        notification_types=lists["notification_types"],
        binary_data=binary_data is not False,
        max_file_size=size,
        allowed_types=allowed_types,
    )
    return None if found == _ANYTHING else found


def with_presence(filter: Filter | None, allowed: bool) -> Filter | None:
    """Return a filter that lets comings and goings through only if that is allowed, and else wants the same.

    Args:
        filter: What the subscriber wants to hear, or ``None`` for everything.
        allowed: Whether it may know who is there.
    """
    if allowed == (filter is None or filter.presence):
        return filter
    found = attrs.evolve(filter or _ANYTHING, presence=allowed)
    return None if found == _ANYTHING else found


def _entries(key: str, value: object) -> tuple[str, ...] | Refusal | None:
    if value is None:
        return None
    if isinstance(value, list) and len(value) <= _MAX_ENTRIES:
        entries = [entry for entry in value if isinstance(entry, str) and 1 <= len(entry) <= _MAX_LENGTH]
        if len(entries) == len(value):
            return _sorted(entries)
    limits = f"at most {_MAX_ENTRIES} strings of 1 to {_MAX_LENGTH} characters"
    return _refusal(f"'{key}' must be a list of {limits}")


def _sorted(entries: Iterable[str]) -> tuple[str, ...]:
    # Neither order nor repetition means anything, so that equal wishes make equal filters.
    return tuple(sorted(dict.fromkeys(entries)))


def _file_size(message: Message) -> int | None:
    size = message.get("size")
    if isinstance(size, int) and not isinstance(size, bool):
        return size
    data = message.get("binary_data")
    if not isinstance(data, str):
        return None
    # RFC 4648, section 4: four characters for three bytes, where each "=" at the end stands for one byte less.
    return len(data) * 3 // 4 - data[-2:].count("=")


def _content_type(message: Message) -> str:
    content_type = message.get("content_type")
    if not isinstance(content_type, str):
        # RFC 9110, section 8.3: "If a Content-Type header field is not present, the recipient MAY either assume a
        # media type of "application/octet-stream" or examine the data to determine its type."
        return OCTET_STREAM
    return content_type


def _refusal(message: str) -> Refusal:
    return Refusal("invalid_filters", message)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"
