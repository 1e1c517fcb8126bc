"""One file on its way into a store."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final

import anyio
import anyio.to_thread
import attrs

from rtcore import LocalProtocolError, Refusal
from rtcore.binary import Bytes
from rtcore.uploads import KeptFile

from .file_store import FileStore, FileStoreError, FileWriter, StoredFile
from .file_usage import Usage
from .files_config import FilesConfig

__all__ = ["FileDescription", "Incoming"]

# So many bytes are hashed in 0.4 ms, which is little more than the way to a worker thread and back takes.
_AT_ONCE: Final = 2**19


@attrs.frozen
class FileDescription:
    """What is known of a file before it is there.

    Attributes:
        file_id: By which it is going to be found.
        url: Where.
        channel: Where it is sent: who may hear that may read it.
        user_id: Who sends it, or ``None``.
        filename: What it is called, without folders; ``None`` for no name.
        content_type: Its media type.
        size: How many bytes it is going to have; ``None`` where nobody knows.
    """

    file_id: str
    url: str
    channel: str
    user_id: str | None
    filename: str | None
    content_type: str
    size: int | None


class Incoming:
    """A file that comes in a piece at a time; made by `rtcore_transports.Files.create`.

    Whoever has made it calls `finish` or `abort` in the end. After an error only `abort` is left.

    Args:
        description: What is known of it.
        store: Where it goes.
        usage: Of the room that there is, of which it takes as much as has come.
        config: Limits.
        wall_clock: Nanoseconds since 1970.
    """

    def __init__(
        self,
        description: FileDescription,
        *,
        store: FileStore,
        usage: Usage,
        config: FilesConfig,
        wall_clock: Callable[[], int],
    ) -> None:
        self._description = description
        self._store = store
        self._usage = usage
        self._config = config
        self._wall_clock = wall_clock
        self._writer: FileWriter | None = None
        self._sha256 = hashlib.sha256()
        # So many bytes in the buffer are not stored yet: as long as nothing is, the file from its beginning. The buffer
        # is kept, since memory that is given back and taken anew for each piece is more work than to copy the bytes.
        self._buffer = bytearray()
        self._waiting = 0
        # How many bytes of the beginning are in it all the same: to be looked at, and for a message to hold.
        self._beginning = max(config.piece_size, config.file.head_size, config.inline_max_size)
        self._inspected = config.file.inspect is None
        self._size = 0
        self._over = False

    @property
    def size(self) -> int:
        """How many bytes have come."""
        return self._size

    def address(self, channel: str) -> None:
        """Say where it is sent, where that was not known when it began."""
        self._description = attrs.evolve(self._description, channel=channel)

    async def write(self, data: Bytes) -> None:
        """Append to the file; what is given may be changed afterwards.

        Raises:
            FileStoreError: ``file_too_large`` or ``too_long`` (413), ``store_full`` (507), ``content_mismatch`` (415),
                ``store_unavailable`` (503).
        """
        self._check_open()
        size, description = self._size + len(data), self._description
        if description.size is not None and size > description.size:
            raise _refused("too_long", f"the file was said to have {description.size} bytes, and has more", 413)
        if size > (limit := self._config.file.max_file_size):
            raise _refused("file_too_large", f"a file has at most {limit} bytes", 413)
        if refusal := self._usage.reserve(description.file_id, len(data)):
            raise FileStoreError(refusal)
        self._size = size
        if len(data) <= _AT_ONCE:
            self._sha256.update(data)
        else:
            await anyio.to_thread.run_sync(self._sha256.update, data)
        end = self._waiting + len(data)
        self._buffer[self._waiting : end] = data
        self._waiting = end
        if not self._inspected and end >= self._config.file.head_size:
            await self._inspect()
        if end > (self._beginning if self._writer is None else self._config.piece_size):
            await self._store_waiting()

    async def finish(self, sha256: str | None = None) -> KeptFile:
        """Keep the file.

        Args:
            sha256: What its SHA-256 must be, in hexadecimal.

        Raises:
            FileStoreError: As `write`; ``incomplete`` (400), ``checksum_mismatch`` (422).
        """
        self._check_open()
        description = self._description
        if description.size is not None and self._size != description.size:
            fault = f"the file was said to have {description.size} bytes, and has {self._size}"
            raise _refused("incomplete", fault, 400)
        if not self._inspected:
            await self._inspect()
        inline = self._writer is None and self._size <= self._config.inline_max_size
        data = bytes(self._buffer[: self._waiting]) if inline else None
        await self._store_waiting()
        digest = self._sha256.hexdigest()
        if sha256 is not None and sha256 != digest:
            raise _refused("checksum_mismatch", f"the SHA-256 of what has come is {digest}, not {sha256}", 422)
        assert self._writer is not None, "something was stored, be it nothing"
        now = self._wall_clock() // 1_000_000
        ttl = self._config.ttl
        file = StoredFile(
            file_id=description.file_id,
            channel=description.channel,
            user_id=description.user_id,
            filename=description.filename,
            content_type=description.content_type,
            size=self._size,
            sha256=digest,
            created_at=now,
            expires_at=None if ttl is None else now + round(ttl * 1000),
        )
        # Whoever is cancelled meanwhile must not have to ask whether it is kept.
        with anyio.CancelScope(shield=True):
            await self._writer.commit(file)
        self._over = True
        self._usage.keep(file.file_id, file.size)
        return KeptFile(file.file_id, description.url, file.size, digest, data)

    async def abort(self) -> None:
        """Keep nothing of the file; nothing happens if it is finished, or given up already."""
        if not self._over:
            self._over = True
            try:
                if self._writer is not None:
                    with anyio.CancelScope(shield=True):
                        await self._writer.abort()
            finally:
                self._usage.release(self._description.file_id)

    def _check_open(self) -> None:
        if self._over:
            raise LocalProtocolError("this file is finished, or was given up: begin another")

    async def _inspect(self) -> None:
        self._inspected = True
        inspect, head = (
            self._config.file.inspect,
            bytes(self._buffer[: min(self._waiting, self._config.file.head_size)]),
        )
        assert inspect is not None, "it would have been inspected"
        # To recognise what is nothing in particular takes milliseconds.
        if refusal := await anyio.to_thread.run_sync(inspect, self._description.content_type, head):
            raise FileStoreError(refusal)

    async def _store_waiting(self) -> None:
        if self._writer is None:
            self._writer = await self._store.create(self._description.file_id)
        waiting, self._waiting = self._waiting, 0
        if waiting:
            with memoryview(self._buffer) as buffer, buffer[:waiting] as data:
                await self._writer.write(data)


def _refused(code: str, message: str, status: int) -> FileStoreError:
    return FileStoreError(Refusal(code, message, status=status))
