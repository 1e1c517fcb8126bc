"""One file on its way in chunks, and what is remembered of those that are complete."""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

import attrs

from rtcore.errors import Refusal
from rtcore.messages import Message
from rtcore.permissions import Identity
from rtcore.router import Request

from .commands import BeginUpload, Chunk
from .config import FileConfig

__all__ = ["Outcome", "Sender", "Upload", "UploadState"]

# Their late chunks are on their way, and there are at most a few windows of them.
_MAX_ENDED: Final = 64


class UploadState(Enum):
    """`RECEIVING` its bytes; or `KEEPING`, when all have come and whoever keeps files has been asked to keep it."""

    RECEIVING = auto()
    KEEPING = auto()


@attrs.define(eq=False)
class Upload:
    """One file on its way.

    Attributes:
        key: By which whoever keeps files knows it.
        begin: With what it has begun.
        identity: Of its sender, when it asked to go on for the last time.
        owner: The connection on which it comes, or ``None`` while its sender is away.
        since: When its sender has come or gone, in monotonic seconds.
        active_at: When something of it was received or stored for the last time, likewise.
        received: How many bytes have come, without a hole.
        stored: How many of them are stored.
        pending: Who has asked to go on, and is answered once all that was received is stored.
        state: What it is in the middle of.
    """

    key: str
    begin: BeginUpload
    identity: Identity
    owner: str | None
    since: float
    active_at: float
    received: int = 0
    stored: int = 0
    pending: Request | None = None
    state: UploadState = UploadState.RECEIVING

    @property
    def waiting(self) -> int:
        """How many bytes are received and not stored."""
        return self.received - self.stored

    def check(self, chunk: Chunk, config: FileConfig) -> Refusal | None:
        """Tell why a chunk of its owner breaks the protocol, or ``None``."""
        size, end = self.begin.size, chunk.offset + len(chunk.data)
        if chunk.offset != self.received:
            text = f"this chunk begins at {chunk.offset}, and {self.received} bytes have come: begin_upload tells"
            return Refusal("wrong_offset", text, status=409)
        if len(chunk.data) > config.chunk_size:
            text = f"a chunk has at most {config.chunk_size} bytes: begin_upload tells"
            return Refusal("chunk_too_large", text, status=413)
        if end > size:
            return Refusal("too_long", f"more has come than the {size} bytes that begin_upload said")
        if self.waiting + len(chunk.data) > config.window:
            text = f"at most {config.window} bytes may be under way and not stored: wait until more are"
            return Refusal("window_exceeded", text, status=429)
        if chunk.sha256 is not None and end < size:
            text = f"'sha256' comes with the last chunk, and {end} of {size} bytes have come"
            return Refusal("incomplete", text)
        return None


@attrs.frozen
class Outcome:
    """What has become of a file that is complete.

    Attributes:
        begin: With what it had begun.
        user_id: Whose it was.
        file: What its sender is told.
        until: When it is forgotten, in monotonic seconds.
    """

    begin: BeginUpload
    user_id: str | None
    file: Message
    until: float


@attrs.define(eq=False)
class Sender:
    """A connection on which files come.

    Attributes:
        uploads: Those that do.
        ended: The last of those that do no longer, by their own doing or not: what still comes of them was sent before
            their sender could know.
    """

    uploads: dict[str, None] = attrs.field(factory=dict)
    ended: dict[str, None] = attrs.field(factory=dict)

    def end(self, upload_id: str) -> None:
        """Take note that one has ended."""
        self.uploads.pop(upload_id, None)
        self.ended[upload_id] = None
        if len(self.ended) > _MAX_ENDED:
            del self.ended[next(iter(self.ended))]
