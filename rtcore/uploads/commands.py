"""What clients say to send a file in chunks, and what its parts must be."""

from __future__ import annotations

import re
from typing import Final, TypeGuard

import attrs

from rtcore.binary import BINARY, Bytes
from rtcore.channels import user_channel
from rtcore.errors import Refusal
from rtcore.messages import RESERVED_EVENTS, Message, check
from rtcore.router import Request

from .heads import RESERVED_FIELDS, bare_filename, check_type, refuse_fields

__all__ = [
    "CHUNK",
    "BeginUpload",
    "CancelUpload",
    "Chunk",
    "parse_begin_upload",
    "parse_cancel_upload",
    "parse_chunk",
]

#: The ``type`` of a binary frame that holds a part of a file.
CHUNK: Final = "chunk"

_UPLOAD_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
# Far above any file, and within what every JSON parser reads exactly.
_MAX_SIZE: Final = 2**53
# What is said beside the message, or by the server.
_NOT_IN_MESSAGE: Final = frozenset(
    {*RESERVED_FIELDS, "type", "channel", "recipient_id", "meta", "content_type", "filename", "size"}
)
_ANY_TYPE: Final = ("*/*",)


@attrs.frozen
class BeginUpload:
    """Command: send a file in chunks, or go on with it.

    Attributes:
        upload_id: Drawn at random by the sender: whoever knows it, and is the same user, may go on.
        channel: Where the file is published once it is whole; ``$user:ID`` for a user.
        request: Who asks.
        size: Its bytes.
        content_type: Its media type, normalized.
        filename: What it is called, without folders; ``None`` for no name.
        head: What is published but for the file and what the server says of it.
    """

    upload_id: str = attrs.field(repr=False)
    channel: str
    request: Request
    size: int
    content_type: str
    filename: str | None
    head: Message

    def continues(self, other: BeginUpload) -> bool:
        """Tell whether it is the same file to the same channel as `other`, as far as that is told."""
        return (self.channel, self.size, self.content_type, self.filename) == (
            other.channel,
            other.size,
            other.content_type,
            other.filename,
        )


@attrs.frozen
class CancelUpload:
    """Command: send no more of a file; nothing of it is kept."""

    upload_id: str = attrs.field(repr=False)
    request: Request


@attrs.frozen
class Chunk:
    """A part of a file.

    Attributes:
        upload_id: Of which.
        offset: What comes before it, in bytes.
        data: The part.
        sha256: The SHA-256 of the whole file, in hexadecimal, with its last part; ``None`` with the others.
    """

    upload_id: str = attrs.field(repr=False)
    offset: int
    data: bytes = attrs.field(repr=lambda data: f"<{len(data)} bytes>")
    sha256: str | None = None


def parse_begin_upload(data: Message, request: Request) -> BeginUpload | Refusal:
    """Return what ``begin_upload`` asks for, or why it is refused."""
    upload_id, size = data.get("upload_id"), data.get("size")
    if not _is_upload_id(upload_id):
        return _invalid_id()
    if not _is_whole(size):
        return _invalid("'size' must be the number of bytes of the file")
    channel, recipient_id = data.get("channel"), data.get("recipient_id")
    if (channel is None) is (recipient_id is None):
        return _invalid("give 'channel' or 'recipient_id', and not both")
    fields = data.get("message")
    if fields is None:
        fields = {}
    if not isinstance(fields, dict):
        return _invalid("'message' must be an object with more fields of the message")
    if refusal := refuse_fields(fields, _NOT_IN_MESSAGE):
        return refusal
    target: Message = {"recipient_id": recipient_id} if channel is None else {"channel": channel}
    head: Message = {**fields, "type": BINARY, **target}
    if refusal := check(head):
        return refusal
    if head.get("event") in RESERVED_EVENTS:
        text = f"events named {head['event']!r} come from the server only: choose another name"
        return Refusal("reserved_event", text, 403)
    filename = bare_filename(data.get("filename"))
    if isinstance(filename, Refusal):
        return filename
    content_type = check_type(data.get("content_type"), _ANY_TYPE)
    if isinstance(content_type, Refusal):
        return content_type
    head["content_type"] = content_type
    if filename is not None:
        head["filename"] = filename
    head["size"] = size
    name = user_channel(str(head["recipient_id"])) if channel is None else str(channel)
    return BeginUpload(upload_id, name, request, size, content_type, filename, head)


def parse_cancel_upload(data: Message, request: Request) -> CancelUpload | Refusal:
    """Return what ``cancel_upload`` asks for, or why it is refused."""
    upload_id = data.get("upload_id")
    return CancelUpload(upload_id, request) if _is_upload_id(upload_id) else _invalid_id()


def parse_chunk(head: Message, data: Bytes) -> Chunk | Refusal:
    """Return the part of a file that a binary frame holds, which is copied, or why it is refused."""
    upload_id, offset, sha256 = head.get("upload_id"), head.get("offset"), head.get("sha256")
    if not _is_upload_id(upload_id):
        return _invalid_id()
    if not _is_whole(offset):
        return _invalid("the 'offset' of a chunk must be the number of bytes before it")
    if sha256 is not None and not (isinstance(sha256, str) and _SHA256.fullmatch(sha256)):
        return _invalid("the 'sha256' of a file must be 64 hexadecimal digits in lower case")
    return Chunk(upload_id, offset, bytes(data), sha256)


def _is_upload_id(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and _UPLOAD_ID.fullmatch(value) is not None


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_SIZE


def _invalid_id() -> Refusal:
    return _invalid("'upload_id' must be 1 to 64 of A-Z, a-z, 0-9, '_' and '-', drawn at random")


def _invalid(text: str) -> Refusal:
    return Refusal("invalid_upload", text)
