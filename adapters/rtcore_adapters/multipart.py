"""``multipart/form-data`` (RFC 7578), read as it comes: bytes in, the parts and their pieces out."""

from __future__ import annotations

import logging
import re
from typing import Final, TypeAlias
from urllib.parse import unquote

import attrs
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from rtcore import Refusal

from .errors import RefusalError

__all__ = ["FormEvent", "FormReader", "PartBegins", "PartContinues", "PartEnds"]

_MAX_PARTS: Final = 128
# Of one part: the name of a file, which may have 255 characters of four bytes, fits.
_MAX_HEADERS: Final = 8
_MAX_HEADER_SIZE: Final = 4096
# "Boundary delimiters must not appear within the encapsulated material, and must be no longer than 70 characters, not
# counting the two leading hyphens." (RFC 2046, section 5.1.1)
_BOUNDARY: Final = re.compile(rb"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")
# Nobody "may" send it here (RFC 7578, section 4.2), and some do, for names that are not ASCII (RFC 8187).
_EXTENDED_NAME: Final = re.compile(r";\s*filename\*=utf-8'[^']*'([!#$&+.^_`|~0-9A-Za-z%-]+)", re.IGNORECASE)
# "Content-Transfer-Encoding" is deprecated (RFC 7578, section 4.7); those that change nothing are harmless.
_PLAIN_ENCODINGS: Final = ("binary", "8bit", "7bit")

# The parser complains of what clients send, which is no fault of the server: a logger that is in no tree says nothing.
_SILENT: Final = logging.Logger("multipart", logging.CRITICAL + 1)


@attrs.frozen
class PartBegins:
    """A part begins.

    Attributes:
        name: Of the form's field.
        filename: What the file in it is called, as it was sent; ``None`` where nothing is said of one.
        content_type: What it says it is, or ``None``.
    """

    name: str
    filename: str | None = None
    content_type: str | None = None


@attrs.frozen
class PartContinues:
    """More of the part that has begun."""

    data: bytes


@attrs.frozen
class PartEnds:
    """The part is complete."""


FormEvent: TypeAlias = PartBegins | PartContinues | PartEnds


class FormReader:
    """Reads one form. It keeps nothing of what is in its parts.

    Args:
        content_type: The header of the request.

    Raises:
        RefusalError: It is of another type, or has no boundary.
    """

    def __init__(self, content_type: str) -> None:
        kind, parameters = parse_options_header(content_type)
        if kind != b"multipart/form-data":
            text = "send the files as a form: 'Content-Type: multipart/form-data', or one of them to /binary/send"
            raise RefusalError(Refusal("unsupported_media_type", text, status=415))
        boundary = parameters.get(b"boundary", b"")
        if not _BOUNDARY.fullmatch(boundary):
            raise RefusalError(_malformed("its 'Content-Type' has no boundary, or a malformed one"))
        self._events: list[FormEvent] = []
        self._parts = 0
        self._is_complete = False
        self._headers: dict[str, str] = {}
        self._name = bytearray()
        self._value = bytearray()
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._take_name,
                "on_header_value": self._take_value,
                "on_header_end": self._end_header,
                "on_headers_finished": self._end_headers,
                "on_part_data": self._take_data,
                "on_part_end": self._end,
                "on_end": self._complete,
            },
            max_header_count=_MAX_HEADERS,
            max_header_size=_MAX_HEADER_SIZE,
        )
        self._parser.logger = _SILENT

    def feed(self, data: bytes) -> list[FormEvent]:
        """Read more, and return what it says. Whatever is behind the last boundary says nothing.

        Raises:
            RefusalError: It is no form, or has too many parts; nothing more may be fed.
        """
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise RefusalError(_malformed(str(error))) from None
        events, self._events = self._events, []
        return events

    def close(self) -> None:
        """Take note that nothing more comes.

        Raises:
            RefusalError: The form is not complete.
        """
        if not self._is_complete:
            raise RefusalError(_malformed("it ends before its last boundary"))

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > _MAX_PARTS:
            raise RefusalError(Refusal("too_many_parts", f"a form has at most {_MAX_PARTS} parts", status=413))
        self._headers = {}

    def _take_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _take_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        name = self._name.decode("latin-1").lower()
        if name in self._headers:
            raise RefusalError(_malformed(f"a part has the header {name!r} twice"))
        self._headers[name] = self._value.decode("latin-1").strip(" \t")
        self._name.clear()
        self._value.clear()

    def _end_headers(self) -> None:
        headers = self._headers
        encoding = headers.get("content-transfer-encoding", "binary")
        if encoding.lower() not in _PLAIN_ENCODINGS:
            text = "send the parts of a form as they are, without 'Content-Transfer-Encoding'"
            raise RefusalError(Refusal("unsupported_media_type", text, status=415))
        self._events.append(_part_of(headers.get("content-disposition", ""), headers.get("content-type")))

    def _take_data(self, data: bytes, start: int, end: int) -> None:
        self._events.append(PartContinues(data[start:end]))

    def _end(self) -> None:
        self._events.append(PartEnds())

    def _complete(self) -> None:
        self._is_complete = True


def _part_of(disposition: str, content_type: str | None) -> PartBegins:
    """Return the part of which these headers tell."""
    kind, parameters = parse_options_header(disposition)
    # "Each part MUST contain a Content-Disposition header field [...] The Content-Disposition header field MUST also
    # contain an additional parameter of "name"" (RFC 7578, section 4.2)
    if kind != b"form-data" or b"name" not in parameters:
        raise RefusalError(_malformed("a part has no header 'Content-Disposition: form-data; name=…'"))
    filename = None
    if b"filename" in parameters:
        filename = _text(parameters[b"filename"])
    elif extended := _EXTENDED_NAME.search(disposition):
        filename = unquote(extended[1])
    return PartBegins(_text(parameters[b"name"]), filename, content_type or None)


def _text(value: bytes) -> str:
    """Return what a browser has sent as UTF-8 (RFC 7578, section 5.1)."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise RefusalError(_malformed("the names in it must be UTF-8")) from None


def _malformed(fault: str) -> Refusal:
    return Refusal("malformed_form", f"this is no form of 'multipart/form-data': {fault}", status=400)
