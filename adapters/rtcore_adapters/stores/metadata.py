"""What is kept of each file beside what is in it: its id, and a JSON object."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from rtcore import LocalProtocolError
from rtcore_transports.file_store import StoredFile

__all__ = ["MAX_METADATA", "checked_id", "decode_metadata", "encode_metadata", "is_file_id"]

#: The most bytes of it: of a channel, a name and a media type with 255 characters each, escaped.
MAX_METADATA: Final = 65_536

_FILE_ID: Final = re.compile(r"[0-9a-f]{32}")

_decoder: Final = msgspec.json.Decoder(StoredFile)
_encoder: Final = msgspec.json.Encoder()


def is_file_id(text: str) -> bool:
    """Tell whether there can be a file of that id: whatever else somebody asks for never becomes a path."""
    return _FILE_ID.fullmatch(text) is not None


def checked_id(file_id: str) -> str:
    """Return an id that a file is to have.

    Raises:
        LocalProtocolError: It cannot be one.
    """
    if not is_file_id(file_id):
        raise LocalProtocolError(f"the id of a file is 32 hexadecimal digits in lower case, not {file_id!r}")
    return file_id


def encode_metadata(file: StoredFile) -> bytes:
    """Return what is known of a file as JSON."""
    return _encoder.encode(file)


def decode_metadata(data: bytes, file_id: str) -> StoredFile | None:
    """Return what is known of a file, or ``None`` where that is not what was written for it."""
    try:
        file = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return file if file.file_id == file_id else None
