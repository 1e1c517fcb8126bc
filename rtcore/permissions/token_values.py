"""What tokens say (RFC 7519) and revocations of them say too: when, and which."""

from __future__ import annotations

from typing import Final

__all__ = ["MAX_INSTANT", "MAX_TOKEN_ID", "as_instant", "as_token_id"]

#: The last second of the year 9999. What is in milliseconds by mistake is beyond it, and not valid for ages.
MAX_INSTANT: Final = 253_402_300_799

#: The most characters of the id of a token.
MAX_TOKEN_ID: Final = 255


def as_instant(value: object) -> float | None:
    """Return the seconds since 1970 that `value`, decoded from JSON, stands for, or ``None`` if it stands for none."""
    # NaN is not in there, nor an integer that is too large for a float.
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= MAX_INSTANT:
        return float(value)
    return None


def as_token_id(value: object) -> str | None:
    """Return `value`, decoded from JSON, if it can be the id of a token, else ``None``."""
    return value if isinstance(value, str) and 1 <= len(value) <= MAX_TOKEN_ID else None
