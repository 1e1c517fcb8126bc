"""What tests of files that come in chunks say, and what they expect."""

from __future__ import annotations

from hashlib import sha256

from rtcore.messages import Message
from rtcore.permissions import OPEN, Identity
from rtcore.router import Request
from rtcore.uploads import BeginUpload, Begun, Chunk, FileConfig, OpenFile, UploadEffect, Uploads

WINDOW, CHUNK = 8, 4
ANN, BOB, NOBODY = Identity("ann", OPEN), Identity("bob", OPEN), Identity(None, OPEN)

CONFIG = FileConfig(
    chunk_size=CHUNK,
    window=WINDOW,
    max_file_size=100,
    max_uploads=3,
    max_uploads_per_connection=2,
    max_outcomes=2,
    resume_timeout=60.0,
    idle_timeout=30.0,
)


def digest(data: bytes) -> str:
    return sha256(data).hexdigest()


def command(
    upload_id: str = "u",
    connection_id: str | None = "c1",
    *,
    size: int = 10,
    channel: str = "chat",
    content_type: str = "image/png",
    filename: str | None = "cat.png",
    identifier: str = "7",
) -> BeginUpload:
    head: Message = {"type": "binary", "channel": channel, "content_type": content_type, "size": size}
    if filename is not None:
        head["filename"] = filename
    return BeginUpload(upload_id, channel, Request(connection_id, identifier), size, content_type, filename, head)


def begun(begin: BeginUpload, offset: int = 0, *, file: Message | None = None, resumed: bool = False) -> Begun:
    return Begun(begin.request, begin.upload_id, offset, WINDOW, CHUNK, file, resumed)


def opened(begin: BeginUpload, key: str = "upload-1", user_id: str | None = "ann") -> OpenFile:
    return OpenFile(key, begin.channel, user_id, begin.filename, begin.content_type, begin.size)


class Sending:
    """The uploads of a server, and a clock that stands still until it is moved."""

    def __init__(self, config: FileConfig = CONFIG) -> None:
        self.uploads = Uploads(config)
        self.now = 100.0

    def begin(self, begin: BeginUpload, identity: Identity = ANN) -> list[UploadEffect]:
        assert begin.request.connection_id is not None
        return self.uploads.begin(begin, begin.request.connection_id, identity, now=self.now)

    def chunk(
        self, offset: int, data: bytes, whole: bytes | None = None, *, upload_id: str = "u", connection_id: str = "c1"
    ) -> list[UploadEffect]:
        """Send a chunk, the last one if the whole is given."""
        chunk = Chunk(upload_id, offset, data, None if whole is None else digest(whole))
        return self.uploads.receive(chunk, connection_id, now=self.now)

    def appended(self, size: int, key: str = "upload-1") -> list[UploadEffect]:
        return self.uploads.appended(key, size, now=self.now)

    def disconnect(self, connection_id: str) -> None:
        self.uploads.disconnect(connection_id, now=self.now)

    def wait_until(self, now: float) -> list[UploadEffect]:
        self.now = now
        effects = self.uploads.handle_timeout(now=now)
        at = self.uploads.next_timeout()
        assert at is None or at > now
        return effects
