"""Which part of a file a request is for (RFC 9110, sections 13 and 14)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC
from email.utils import formatdate, parsedate_to_datetime
from typing import Final

import attrs

__all__ = ["Unsatisfiable", "Validators", "requested_range"]

_BYTES: Final = re.compile(r"bytes=(.*)", re.IGNORECASE)
_SPEC: Final = re.compile(r"([0-9]*)-([0-9]*)")
# Python refuses to convert thousands of digits; no file is so long.
_MAX_DIGITS: Final = 18
_ETAG: Final = re.compile(r'(W/)?"[\x21\x23-\x7e\x80-\xff]*"')


class Unsatisfiable:
    """A part is asked for that is behind the end."""


@attrs.frozen
class Validators:
    """By which a client knows again what it has got.

    Attributes:
        etag: The entity tag, strong, with its quotes.
        modified_at: Milliseconds since 1970.
    """

    etag: str
    modified_at: int

    @property
    def last_modified(self) -> str:
        """The value of ``Last-Modified``."""
        return formatdate(self.modified_at // 1000, usegmt=True)

    def is_among(self, header: str, *, weakly: bool) -> bool:
        """Tell whether the tag is one of ``If-Match`` or ``If-None-Match``; ``*`` is any.

        Args:
            header: Its value, the lines of several joined.
            weakly: Whether a weak tag may match as well (RFC 9110, section 8.8.3.2).
        """
        if header.strip(" \t") == "*":
            return True
        found = (each[0] for each in _ETAG.finditer(header))
        return any((tag.removeprefix("W/") if weakly else tag) == self.etag for tag in found)

    def is_unchanged_since(self, date: str) -> bool:
        """Tell whether it is no newer than an ``If-Modified-Since``, which counts if it is a date (section 13.1.3)."""
        try:
            found = parsedate_to_datetime(date)
            # The oldest of the three forms names no zone: it is UTC all the same (section 5.6.7).
            return self.modified_at // 1000 <= found.replace(tzinfo=found.tzinfo or UTC).timestamp()
        except (ValueError, OverflowError):
            return False

    def allow_range(self, if_range: str | None) -> bool:
        """Tell whether a client that has a part already may get another (section 13.1.5).

        "A client MUST NOT generate an If-Range header field containing an entity tag that is marked as weak", and a
        date counts only if it is "an exact match".
        """
        return if_range is None or if_range.strip(" \t") in (self.etag, self.last_modified)


def requested_range(headers: Sequence[str], size: int) -> tuple[int, int] | Unsatisfiable | None:
    """Return the part of a file that is asked for.

    "A server MAY ignore the Range header field", which is what is done for several ranges, for what is malformed, and
    for units that are not known (section 14.2).

    Args:
        headers: The values of all headers ``Range``.
        size: The bytes of the file.

    Returns:
        Where it begins, and where it ends, exclusive; ``None`` for the whole.
    """
    matched = _BYTES.fullmatch(headers[0]) if len(headers) == 1 else None
    if matched is None or size == 0:
        # There is no way to say which part of nothing it is.
        return None
    # "a recipient MUST parse and ignore a reasonable number of empty list elements" (section 5.6.1.2)
    specs = [each for part in matched[1].split(",") if (each := part.strip(" \t"))]
    spec = _SPEC.fullmatch(specs[0]) if len(specs) == 1 else None
    if spec is None or not (spec[1] or spec[2]):
        return None
    if not spec[1]:
        # "the last N bytes", or all of it, if it is shorter (section 14.1.2).
        length = min(_number(spec[2]), size)
        return (size - length, size) if length else Unsatisfiable()
    first = _number(spec[1])
    last = _number(spec[2]) if spec[2] else size - 1
    if spec[2] and last < first:
        # "An int-range is invalid if the last-pos value is present and less than first-pos."
        return None
    return Unsatisfiable() if first >= size else (first, min(last, size - 1) + 1)


def _number(digits: str) -> int:
    digits = digits.lstrip("0")
    return int(digits or "0") if len(digits) <= _MAX_DIGITS else 10**_MAX_DIGITS
