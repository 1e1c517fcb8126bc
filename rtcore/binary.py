"""Binary messages: a file within one message, and its form as the payload of a WebSocket binary frame.

The payload is a head and the bytes: four bytes with the length of the head, big-endian, then so many bytes of UTF-8, a
JSON object with a ``type``, then the bytes to the end.
"""

from __future__ import annotations

import binascii
from collections.abc import Mapping
from typing import Final

import attrs
import msgspec

from .errors import LocalProtocolError, Refusal
from .json_values import decode_value
from .media_types import OCTET_STREAM

__all__ = ["BINARY", "MAX_HEAD", "BinaryMessage", "Bytes", "encode_payload", "parse_payload"]

Bytes = bytes | bytearray | memoryview

#: The ``type`` of a message that is a file.
BINARY: Final = "binary"
#: The most bytes of a head that a client may send: a name, a content type, a channel, and what users add.
MAX_HEAD: Final = 65_536

_LENGTH_SIZE: Final = 4

_encoder: Final = msgspec.json.Encoder()


@attrs.frozen
class BinaryMessage:
    """A file within one message.

    Attributes:
        data: What is in it.
        content_type: Its media type.
        filename: What it is called, without folders; ``None`` for no name.
    """

    data: bytes = attrs.field(repr=lambda data: f"<{len(data)} bytes>")
    content_type: str = OCTET_STREAM
    filename: str | None = None

    @classmethod
    def from_bytes(cls, data: Bytes, content_type: str = OCTET_STREAM, filename: str | None = None) -> BinaryMessage:
        """Return the message of what is in memory.

        Raises:
            LocalProtocolError: `data` is no bytes, or one of the others no string.
        """
        if not isinstance(data, Bytes):
            raise LocalProtocolError(f"the data of a binary message must be bytes, not {type(data).__name__}")
        if not isinstance(content_type, str) or not isinstance(filename, str | None):
            raise LocalProtocolError("the content type and the name of a binary message must be strings")
        return cls(bytes(data), content_type, filename)

    @classmethod
    def from_message(cls, message: Mapping[str, object]) -> BinaryMessage:
        """Return the file that a received message of type ``binary`` holds, in whichever form.

        Args:
            message: With ``data``, as clients of ours give it, or ``binary_data``, as it is in JSON.

        Raises:
            LocalProtocolError: It holds none: it is another message, or names a ``url`` in place of the data.
        """
        data, encoded = message.get("data"), message.get("binary_data")
        if message.get("type") != BINARY or not (isinstance(data, Bytes) or isinstance(encoded, str)):
            raise LocalProtocolError("this message holds no file: it has neither bytes in 'data' nor 'binary_data'")
        if not isinstance(data, Bytes):
            assert isinstance(encoded, str), "one of the two"
            try:
                data = binascii.a2b_base64(encoded, strict_mode=True)
            except ValueError as error:
                raise LocalProtocolError(f"'binary_data' is no base64: {error}") from error
        content_type, filename = message.get("content_type"), message.get("filename")
        return cls(
            bytes(data),
            content_type if isinstance(content_type, str) else OCTET_STREAM,
            filename if isinstance(filename, str) else None,
        )

    @property
    def size(self) -> int:
        """How many bytes are in it."""
        return len(self.data)

    def to_head(self, **fields: object) -> dict[str, object]:
        """Return the message but for the data, with more fields, such as ``channel``; what is ``None`` is left out."""
        head = {"type": BINARY, "content_type": self.content_type, "filename": self.filename, "size": self.size}
        return {name: value for name, value in {**head, **fields}.items() if value is not None}


def encode_payload(head: bytes | Mapping[str, object], data: Bytes) -> bytes:
    """Return the payload of a binary frame.

    Args:
        head: A JSON object, or what it is as UTF-8.
        data: The bytes; they are copied once, into the payload.

    Raises:
        LocalProtocolError: JSON cannot express `head`.
    """
    if not isinstance(head, bytes):
        try:
            head = _encoder.encode(head)
        except (TypeError, ValueError, RecursionError) as error:
            raise LocalProtocolError(f"JSON cannot express the head: {error}") from error
    return b"".join((len(head).to_bytes(_LENGTH_SIZE, "big"), head, data))


def parse_payload(payload: Bytes, *, max_head: int | None = MAX_HEAD) -> tuple[dict[str, object], memoryview] | Refusal:
    """Read the payload of a binary frame.

    Args:
        payload: The payload.
        max_head: The most bytes that its head may have. ``None`` for no limit, where a server has sent it: it adds to
            what its clients send.

    Returns:
        The head, which has a string ``type``, and the bytes, which are not copied; or why it is refused.
    """
    if len(payload) < _LENGTH_SIZE:
        return _malformed("it ends before the length of its head")
    view = memoryview(payload)
    end = _LENGTH_SIZE + int.from_bytes(view[:_LENGTH_SIZE], "big")
    if max_head is not None and end - _LENGTH_SIZE > max_head:
        return _malformed(f"its head may have {max_head} bytes, and is said to have {end - _LENGTH_SIZE}")
    if end > len(view):
        return _malformed("it ends before its head does")
    head = decode_value(bytes(view[_LENGTH_SIZE:end]))
    if isinstance(head, Refusal):
        return _malformed(f"of its head, {head.message}")
    if not isinstance(head, dict) or not isinstance(head.get("type"), str):
        return _malformed("its head must be a JSON object with a string 'type'")
    return head, view[end:]


def _malformed(fault: str) -> Refusal:
    text = f"a binary frame is four bytes of length, a JSON head of so many bytes, and the data: {fault}"
    return Refusal("malformed_binary", text, status=400)
