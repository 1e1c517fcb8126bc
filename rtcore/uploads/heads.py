"""What may be said of a file: by its sender, and by the server alone."""

from __future__ import annotations

import re
from collections.abc import Container
from typing import Final

from rtcore.binary import BINARY, Bytes
from rtcore.errors import Refusal
from rtcore.media_types import MAX_MEDIA_TYPE, OCTET_STREAM, matches, normalize
from rtcore.messages import Message

from .config import FileConfig
from .effects import KeptFile

__all__ = ["RESERVED_FIELDS", "bare_filename", "check_head", "check_type", "kept_message", "refuse_fields"]

#: The fields of a message of type ``binary`` that no sender may give: the server says where a file is, and what it is.
RESERVED_FIELDS: Final = ("data", "binary_data", "url", "file_id", "sha256")

_MAX_NAME: Final = 255
# Of any system: what was a folder where it comes from must not become one where it goes to.
_SLASHES: Final = re.compile(r"[/\\]")


def bare_filename(value: object) -> str | Refusal | None:
    """Return what a file is called, without folders; ``None`` for no name.

    Args:
        value: What its sender calls it, or ``None``. Of a path, with slashes of either kind, it is the last part, which
            must be 1 to 255 printable characters, and neither ``.`` nor ``..``.
    """
    if value is None:
        return None
    if isinstance(value, str):
        name = _SLASHES.split(value)[-1]
        if 1 <= len(name) <= _MAX_NAME and name.isprintable() and name not in (".", ".."):
            return name
    text = f"'filename' must be a name of 1 to {_MAX_NAME} printable characters, without folders"
    return Refusal("invalid_filename", text)


def refuse_fields(fields: Message, names: Container[str]) -> Refusal | None:
    """Tell which field of a message its sender may not give, of those called `names`, or ``None``."""
    for name in fields:
        if name in names:
            text = f"{name!r} of a file is said by the server, or elsewhere: leave it out"
            return Refusal("reserved_field", text)
    return None


def check_type(content_type: object, allowed: Container[str]) -> str | Refusal:
    """Return the media type of a file, normalized, or why it is refused.

    Args:
        content_type: As its sender says, or ``None`` for one that is not told.
        allowed: The media ranges that are taken, in lower case.
    """
    found = OCTET_STREAM if content_type is None else normalize(content_type)
    if found is None:
        text = f"'content_type' must be a media type such as image/png, of at most {MAX_MEDIA_TYPE} characters"
        return Refusal("invalid_content_type", text)
    if not matches(found, allowed):
        return Refusal("type_not_allowed", f"this server takes no files of type {found}", status=415)
    return found


def check_head(head: Message, data: Bytes, config: FileConfig) -> Refusal | None:
    """Tell why a file within one message is refused, or ``None``; what `rtcore.messages.check` finds comes before.

    `head` is changed only to complete it: ``content_type`` is normalized, ``filename`` made bare, ``size`` set.

    Args:
        head: The message but for the file.
        data: The file.
        config: What is taken.
    """
    if refusal := refuse_fields(head, RESERVED_FIELDS):
        return refusal
    if len(data) > config.max_binary_size:
        text = (
            f"a file within one message has at most {config.max_binary_size} bytes: send it with send_file "
            "or POST /binary/upload"
        )
        return Refusal("binary_too_large", text, status=413)
    filename = bare_filename(head.pop("filename", None))
    if isinstance(filename, Refusal):
        return filename
    content_type = check_type(head.get("content_type"), config.allowed_types)
    if isinstance(content_type, Refusal):
        return content_type
    if config.inspect is not None and (refusal := config.inspect(content_type, bytes(data[: config.head_size]))):
        return refusal
    head["content_type"] = content_type
    if filename is not None:
        head["filename"] = filename
    head["size"] = len(data)
    return None


def kept_message(head: Message, file: KeptFile) -> Message:
    """Return the message that tells of a file that is kept.

    Args:
        head: What its sender says of it: ``content_type``, ``filename`` if it has one, ``channel`` or ``recipient_id``,
            and any other fields.
        file: The file.
    """
    return {
        **head,
        "type": BINARY,
        "size": file.size,
        "sha256": file.sha256,
        "file_id": file.file_id,
        "url": file.url,
    }
