"""Resume tokens: how far somebody has heard what one router says, in all channels at once.

A router numbers all its publications, of whatever channel, and one connection hears them in that order. So one number
says it all, and stays short however many channels there are.
"""

from __future__ import annotations

from typing import Final

import attrs

__all__ = ["Token"]

# More digits than any router will ever count to; Python refuses to convert thousands of them.
_MAX_DIGITS: Final = 18


@attrs.frozen
class Token:
    """A position in what one router says; as text ``INSTANCE-SEQ`` or ``INSTANCE-SEQ.PERSISTENT``.

    Attributes:
        instance: The life of the router, which differs from all others.
        seq: The number of the last publication heard, or of the last one before the listener came.
        persistent: Of what had been kept for later joiners when the listener came at `seq`, the last one it has been
            told; ``None`` once it has been told all.
    """

    instance: str
    seq: int
    persistent: int | None = None

    @classmethod
    def parse(cls, text: str) -> Token | None:
        """Return the token that `text` is, or ``None`` if it is none."""
        instance, dash, numbers = text.rpartition("-")
        seq, dot, persistent = numbers.partition(".")
        if not (dash and instance and _is_number(seq) and (_is_number(persistent) if dot else True)):
            return None
        return cls(instance, int(seq), int(persistent) if dot else None)

    def __str__(self) -> str:
        tail = "" if self.persistent is None else f".{self.persistent}"
        return f"{self.instance}-{self.seq}{tail}"


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS
