"""What a node asks of whoever keeps files, and what it is told of them."""

from __future__ import annotations

from typing import TypeAlias

import attrs

from rtcore.binary import Bytes

__all__ = ["AbandonFile", "AppendToFile", "FileEffect", "FinishFile", "KeptFile", "OpenFile"]


@attrs.frozen
class OpenFile:
    """Effect: a file begins. It need not be stored before something is appended.

    Attributes:
        key: By which the node knows it, and its keeper tells of it.
        channel: Where it is sent: who may hear that may read it. ``$user:ID`` for a user.
        user_id: Who sends it, or ``None`` for somebody anonymous.
        filename: What it is called, without folders; ``None`` for no name.
        content_type: Its media type.
        size: How many bytes it will have.
    """

    key: str
    channel: str
    user_id: str | None
    filename: str | None
    content_type: str
    size: int


@attrs.frozen
class AppendToFile:
    """Effect: more of a file, behind what was appended before; `appended` or `failed` is to be told."""

    key: str
    data: Bytes


@attrs.frozen
class FinishFile:
    """Effect: nothing more comes, and everything appended is to be kept; `finished` or `failed` is to be told.

    Attributes:
        key: Of which file.
        sha256: What its SHA-256 must be, in hexadecimal.
    """

    key: str
    sha256: str


@attrs.frozen
class AbandonFile:
    """Effect: nothing of a file is to be kept, and nothing is to be told of it any more."""

    key: str


@attrs.frozen
class KeptFile:
    """A file that is whole, and kept.

    Attributes:
        file_id: By which it is read.
        url: Where: a reference relative to the server's origin.
        size: Its bytes.
        sha256: Of what is in it, in hexadecimal.
        data: All of it, where it is so small that its receivers get it at once.
    """

    file_id: str
    url: str
    size: int
    sha256: str
    data: Bytes | None = None


FileEffect: TypeAlias = OpenFile | AppendToFile | FinishFile | AbandonFile
