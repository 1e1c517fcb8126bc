"""What is fuzzed, by name: targets enter themselves here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

__all__ = ["SEEDS", "TARGETS", "Target", "as_text", "cut", "target"]

Target = Callable[[bytes], None]

#: By name.
TARGETS: Final[dict[str, Target]] = {}
#: What to begin with: inputs that are nearly right get further.
SEEDS: Final[dict[str, tuple[bytes, ...]]] = {}


def target(*seeds: bytes) -> Callable[[Target], Target]:
    """Enter a target, with its seeds."""

    def register(found: Target) -> Target:
        TARGETS[found.__name__] = found
        SEEDS[found.__name__] = seeds
        return found

    return register


def cut(data: bytes) -> Iterator[bytes]:
    """Cut an input as its first byte says, so that where it is cut is fuzzed as well."""
    if data:
        size = 1 + data[0] % 64
        for at in range(1, len(data), size):
            yield data[at : at + size]


def as_text(data: bytes) -> str:
    """Return an input as text."""
    return data.decode("utf-8", "replace")
