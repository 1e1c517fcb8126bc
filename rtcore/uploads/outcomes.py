"""What senders of files are told."""

from __future__ import annotations

from typing import TypeAlias

import attrs

from rtcore.errors import Refusal
from rtcore.messages import Message
from rtcore.router import Refused, Request

from .effects import FileEffect

__all__ = ["Begun", "Cancelled", "Completed", "Failed", "Progressed", "UploadEffect"]


@attrs.frozen
class Begun:
    """Effect: a sender may go on.

    Attributes:
        request: Who has asked.
        upload_id: Of which file.
        offset: From where: so much of it has been received.
        window: How much may be sent that is not stored.
        chunk_size: The most bytes in one chunk.
        file: What is told of one that is complete already, or ``None``.
        resumed: Whether it was known before. If not, what a sender has sent of it earlier may have been published, by
            a server that has forgotten it since: that is for the sender to judge.
    """

    request: Request
    upload_id: str
    offset: int
    window: int
    chunk_size: int
    file: Message | None = None
    resumed: bool = False

    def to_data(self) -> Message:
        """Return the answer."""
        data: Message = {
            "upload_id": self.upload_id,
            "offset": self.offset,
            "window": self.window,
            "chunk_size": self.chunk_size,
            "resumed": self.resumed,
        }
        return data if self.file is None else {**data, "file": self.file}


@attrs.frozen
class Progressed:
    """Effect: so much of a file is stored."""

    connection_id: str
    upload_id: str
    offset: int

    def to_message(self) -> Message:
        """Return what its sender is told."""
        return {"type": "upload", "upload_id": self.upload_id, "offset": self.offset}


@attrs.frozen
class Completed:
    """Effect: a file is whole, kept and published."""

    connection_id: str
    upload_id: str
    file: Message

    def to_message(self) -> Message:
        """Return what its sender is told."""
        return {"type": "upload", "upload_id": self.upload_id, "offset": self.file["size"], "file": self.file}


@attrs.frozen
class Failed:
    """Effect: nothing of a file is kept, and it is forgotten."""

    connection_id: str
    upload_id: str
    refusal: Refusal

    def to_message(self) -> Message:
        """Return what its sender is told."""
        error: Message = {"code": self.refusal.code, "message": self.refusal.message}
        if self.refusal.retry_after is not None:
            error["retry_after"] = self.refusal.retry_after
        return {"type": "upload", "upload_id": self.upload_id, "error": error}


@attrs.frozen
class Cancelled:
    """Effect: nothing of a file is kept, as was asked for."""

    request: Request
    upload_id: str


UploadEffect: TypeAlias = FileEffect | Begun | Progressed | Completed | Failed | Cancelled | Refused
