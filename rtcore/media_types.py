"""Media types, such as ``image/png``, and ranges of them, such as ``image/*`` (RFC 9110, sections 8.3.1 and 12.5.1)."""

from __future__ import annotations

import re
from collections.abc import Container
from typing import Final

__all__ = ["MAX_MEDIA_TYPE", "OCTET_STREAM", "essence_of", "is_media_range", "matches", "normalize"]

#: The most characters of a media type with its parameters.
MAX_MEDIA_TYPE: Final = 255
#: What a file is whose type nobody tells (RFC 2046, section 4.5.1).
OCTET_STREAM: Final = "application/octet-stream"

# A token (RFC 9110, section 5.6.2) may hold a "*"; who writes "image/p*" means something by it that it would not do.
_NAME: Final = r"[!#$%&'+\-.^_`|~0-9A-Za-z]+"
_TOKEN: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_RANGE: Final = re.compile(rf"\*/\*|{_NAME}/(?:\*|{_NAME})")
_ESSENCE: Final = re.compile(rf"({_NAME}/{_NAME})[ \t]*")
# Section 5.6.6: parameters = *( OWS ";" OWS [ parameter ] ). A quoted value (section 5.6.4) may hold bytes above ASCII,
# which nobody could say the meaning of, and tabs, which no header needs: these are not taken.
_PARAMETER: Final = re.compile(
    rf";[ \t]*(?:(?P<name>{_TOKEN})=(?P<value>{_TOKEN}|\"(?:[ !#-\[\]-~]|\\[ -~])*\"))?[ \t]*"
)


def normalize(text: object) -> str | None:
    """Return a media type as it is compared and sent on: names in lower case, the values of parameters as they are.

    Args:
        text: Such as ``Text/HTML;charset="utf-8"``.

    Returns:
        Such as ``text/html; charset="utf-8"``; ``None`` if it is no media type, but a range, say, or longer than
        `MAX_MEDIA_TYPE`.
    """
    if not isinstance(text, str):
        return None
    text = text.strip(" \t")
    if len(text) > MAX_MEDIA_TYPE or not (essence := _ESSENCE.match(text)):
        return None
    found, at = essence[1].lower(), essence.end()
    while at < len(text):
        if not (parameter := _PARAMETER.match(text, at)):
            return None
        if parameter["name"] is not None:
            found += f"; {parameter['name'].lower()}={parameter['value']}"
        at = parameter.end()
    # Written out it may be longer than it was given.
    return found if len(found) <= MAX_MEDIA_TYPE else None


def essence_of(media_type: str) -> str:
    """Return a media type without its parameters, in lower case."""
    return media_type.partition(";")[0].strip().lower()


def is_media_range(text: str) -> bool:
    """Tell whether `text` is a media range without parameters: ``*/*``, ``image/*`` or ``text/plain``."""
    return _RANGE.fullmatch(text) is not None


def matches(media_type: str, ranges: Container[str]) -> bool:
    """Tell whether one of some media ranges, in lower case, means a media type; its parameters do not count."""
    essence = essence_of(media_type)
    return essence in ranges or f"{essence.partition('/')[0]}/*" in ranges or "*/*" in ranges
