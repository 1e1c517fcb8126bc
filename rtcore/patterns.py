"""Patterns of names, where ``*`` stands for any characters."""

from __future__ import annotations

from typing import Final, TypeGuard

__all__ = ["MAX_PATTERN", "is_pattern", "matches"]

#: The most characters of a pattern, as of a channel's name: a longer one without a star would match nothing.
MAX_PATTERN: Final = 255


def is_pattern(value: object) -> TypeGuard[str]:
    """Tell whether `value` can be a pattern: 1 to 255 printable characters, as a name is."""
    return isinstance(value, str) and 1 <= len(value) <= MAX_PATTERN and value.isprintable()


def matches(name: str, literals: list[str]) -> bool:
    """Tell whether a name is what a pattern means.

    A pattern without a star means one name. It means names of the server's own, which begin with ``$``, only if it
    begins with ``$`` itself. Code points are compared, and nothing is normalized: two names that look alike but are
    written differently are two names.

    Args:
        name: Of a channel or a room.
        literals: The pattern, split at its stars.
    """
    first = literals[0]
    if not name.startswith(first):
        return False
    if len(literals) == 1:
        return name == first
    # As in MQTT 5.0, section 4.7.2: "The Server MUST NOT match Topic Filters starting with a wildcard character
    # (# or +) with Topic Names beginning with a $ character". Else a "*" for everybody's channels that keeps, say,
    # only the last value would do so to messages for one user as well.
    if not first and name.startswith("$"):
        return False
    last = literals[-1]
    end = len(name) - len(last)
    if end < len(first) or not name.endswith(last):
        return False
    # The leftmost place for each literal leaves the most room for the next, so there is nothing to go back for: a
    # hostile name costs one search for each literal.
    at = len(first)
    for literal in literals[1:-1]:
        at = name.find(literal, at, end)
        if at < 0:
            return False
        at += len(literal)
    return True
