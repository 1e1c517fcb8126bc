"""The port behind which files are kept: a folder, or object storage (`rtcore_adapters.stores`)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

import attrs

from rtcore import Refusal, RtcoreError
from rtcore.binary import Bytes

__all__ = ["FileStore", "FileStoreError", "FileWriter", "StoredFile"]


@attrs.frozen
class StoredFile:
    """What is known of a file that is whole, and kept.

    Attributes:
        file_id: By which it is found: 32 hexadecimal digits that nobody can guess.
        channel: Where it was sent: who may join it may read the file. ``$user:ID`` for a user.
        user_id: Who has sent it, or ``None``.
        filename: What it is called, without folders; ``None`` for no name.
        content_type: Its media type.
        size: Its bytes.
        sha256: Of what is in it, in hexadecimal.
        created_at: Milliseconds since 1970.
        expires_at: Milliseconds since 1970 from when on it is no longer there; ``None`` for never.
    """

    file_id: str
    channel: str
    user_id: str | None
    filename: str | None
    content_type: str
    size: int
    sha256: str
    created_at: int
    expires_at: int | None


class FileStoreError(RtcoreError):
    """A store cannot do what it is asked for.

    Attributes:
        refusal: What to tell whoever wanted it: ``store_full`` (507) or ``store_unavailable`` (503).
    """

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


class FileWriter(Protocol):
    """One file on its way into a store. Nothing of it can be found before `commit`, nor is left after `abort`."""

    async def write(self, data: Bytes) -> None:
        """Append; raises `FileStoreError`, after which only `abort` may follow.

        Args:
            data: Its memory is used for something else once this has returned.
        """
        ...

    async def commit(self, file: StoredFile) -> None:
        """Keep all that was written, as `file`; raises likewise."""
        ...

    async def abort(self) -> None:
        """Keep nothing. Raises nothing, and may be called again."""
        ...


class FileStore(Protocol):
    """Where files are kept. Every method works under asyncio and trio, and blocks neither."""

    async def create(self, file_id: str) -> FileWriter:
        """Begin a file under a new id; raises `FileStoreError`."""
        ...

    async def find(self, file_id: str) -> StoredFile | None:
        """Return what is known of a file, expired or not, or ``None``; raises `FileStoreError`."""
        ...

    def read(self, file: StoredFile, start: int, stop: int) -> AsyncIterator[bytes]:
        """Give the bytes from `start` up to but not including `stop`, in pieces; raises `FileStoreError`."""
        ...

    def path_of(self, file: StoredFile) -> Path | None:
        """Return where a file is on this machine, for whoever can send it from there; ``None`` where it is not."""
        ...

    def list(self) -> AsyncIterator[StoredFile]:
        """Give all files that there are, expired ones included; raises `FileStoreError`."""
        ...

    async def delete(self, file_id: str) -> None:
        """Keep a file no longer; one that there is not is no fault. Raises `FileStoreError`."""
        ...

    async def sweep(self, *, older_than: float) -> None:
        """Remove what writers have left behind that ended without a word, if it is older than so many seconds."""
        ...

    async def aclose(self) -> None:
        """Let go of what it holds open."""
        ...
