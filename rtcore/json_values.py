"""JSON as others send it: read once, and nested no deeper than everybody can read."""

from __future__ import annotations

from typing import Final

import msgspec

from .errors import Refusal

__all__ = ["TOO_DEEP", "decode_value"]

# Deep enough for any document that people write, shallow enough for every JSON parser that will read it:
# Python's own gives up near 1,000.
_MAX_DEPTH: Final = 128
#: How JSON is refused that is nested deeper.
TOO_DEEP: Final = Refusal("too_deep", f"JSON may be nested {_MAX_DEPTH} deep at most", status=400)

_decoder: Final = msgspec.json.Decoder()


def decode_value(data: str | bytes) -> object | Refusal:
    """Return the JSON value that `data` holds, or why it is refused: no JSON, or nested more than 128 deep."""
    try:
        value: object = _decoder.decode(data)
    except RecursionError:
        return TOO_DEEP
    except ValueError as error:  # msgspec's own errors are ValueErrors
        return Refusal("malformed_json", f"this is no JSON: {error}", status=400)
    if not _is_shallow(data, value):
        return TOO_DEEP
    return value


def _is_shallow(data: str | bytes, value: object) -> bool:
    """Tell whether `value`, read from `data`, is nested at most `_MAX_DEPTH` deep."""
    # Counting brackets is a hundred times cheaper than walking, and nearly always settles it.
    brackets = data.count("{") + data.count("[") if isinstance(data, str) else data.count(b"{") + data.count(b"[")
    if brackets <= _MAX_DEPTH:
        return True
    level: list[object] = [value]
    for _ in range(_MAX_DEPTH):
        deeper: list[object] = []
        for item in level:
            if isinstance(item, dict):
                deeper.extend(item.values())
            elif isinstance(item, list):
                deeper.extend(item)
        level = deeper
    return not any(isinstance(item, dict | list) for item in level)
