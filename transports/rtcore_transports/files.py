"""The files of a server: what comes is checked and kept in a store, read from there, and removed in the end."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

import anyio

from rtcore import Message, Refusal

from .file_incoming import FileDescription, Incoming
from .file_store import FileStore, FileStoreError, StoredFile
from .file_usage import Usage
from .files_config import FilesConfig

__all__ = ["Files"]

_log = logging.getLogger("rtcore.files")

# Seconds between two looks at what there is.
_SWEEP_INTERVAL: Final = 300.0
# What a writer has left behind is not touched earlier: it may be a slow sender's.
_LEFTOVER_AGE: Final = 86_400.0


class Files:
    """Keeps files.

    Args:
        store: Where.
        config: Limits.
        clock: Monotonic seconds.
        wall_clock: Nanoseconds since 1970.

    Attributes:
        config: The limits.
        store: The store; what is written to it or removed from it by others counts from the next `sweep` on.
        base: The path below which files are read, which may be set where the application is mounted.
    """

    def __init__(
        self,
        store: FileStore,
        config: FilesConfig | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.config = config or FilesConfig()
        self.store = store
        self.base = self.config.base
        self._clock = clock
        self._wall_clock = wall_clock
        self._usage = Usage(self.config.quota)
        self._counting: anyio.Event | None = None
        self._sweep_at = clock()
        self._removing: set[str] = set()

    async def create(
        self, *, channel: str, user_id: str | None, filename: str | None, content_type: str, size: int | None = None
    ) -> Incoming:
        """Begin a file; whether it may come is for the node to know.

        Args:
            channel: Where it is sent.
            user_id: Who sends it, or ``None`` for somebody anonymous.
            filename: What it is called, without folders; ``None`` for no name.
            content_type: Its media type.
            size: How many bytes it is going to have; ``None`` where nobody knows.

        Raises:
            FileStoreError: ``file_too_large`` (413), ``store_full`` (507); ``store_unavailable`` (503), if there is a
                quota and the store does not tell what it holds.
        """
        limit = self.config.file.max_file_size
        if size is not None and size > limit:
            raise FileStoreError(Refusal("file_too_large", f"a file has at most {limit} bytes", status=413))
        while self.config.quota is not None and not self._usage.counted:
            await self._count()
        # What is announced takes no room yet: else whoever sends nothing could take all of it.
        if refusal := self._usage.check(size or 0):
            raise FileStoreError(refusal)
        file_id = secrets.token_hex(16)
        self._usage.begin(file_id)
        url = f"{self.base}/binary/{file_id}"
        description = FileDescription(file_id, url, channel, user_id, filename, content_type, size)
        return Incoming(
            description, store=self.store, usage=self._usage, config=self.config, wall_clock=self._wall_clock
        )

    async def find(self, file_id: str) -> StoredFile | None:
        """Return what is known of a file; ``None`` if there is none, or its time is over. Raises `FileStoreError`."""
        file = await self.store.find(file_id)
        return None if file is None or self._has_expired(file) else file

    def read(self, file: StoredFile, start: int = 0, stop: int | None = None) -> AsyncIterator[bytes]:
        """Give the bytes from `start` up to but not including `stop`, in pieces; raises `FileStoreError`."""
        return self.store.read(file, start, file.size if stop is None else stop)

    def path_of(self, file: StoredFile) -> Path | None:
        """Return where a file is on this machine, ``None`` where it is not."""
        return self.store.path_of(file)

    async def delete(self, file_id: str) -> None:
        """Keep a file no longer; one that there is not is no fault. Raises `FileStoreError`."""
        if file_id in self._removing:
            return
        self._removing.add(file_id)
        try:
            file = await self.store.find(file_id)
            if file is not None:
                # What has begun to be removed is removed, and counted as that.
                with anyio.CancelScope(shield=True):
                    await self.store.delete(file_id)
                self._usage.remove(file_id, file.size)
        finally:
            self._removing.discard(file_id)

    def stats(self) -> Message:
        """Return counts: ``files`` that are kept, and the ``file_bytes`` of these."""
        return {"files": self._usage.files, "file_bytes": self._usage.bytes}

    async def run(self) -> None:
        """Look every few minutes for what is to be removed, until cancelled; by however many callers, once."""
        while True:
            now = self._clock()
            if now >= self._sweep_at:
                self._sweep_at = now + _SWEEP_INTERVAL
                try:
                    await self.sweep()
                except FileStoreError as error:
                    _log.warning("files that have expired are not removed, the store says: %s", error)
            await anyio.sleep(self._sweep_at - self._clock())

    async def sweep(self) -> None:
        """Count what there is, and remove what has expired and what was left behind. Raises `FileStoreError`."""
        expired = await self._count()
        for file_id in expired:
            await self.delete(file_id)
        if expired:
            _log.info("%d files have expired and were removed", len(expired))
        await self.store.sweep(older_than=max(_LEFTOVER_AGE, 2 * self.config.file.resume_timeout))

    async def aclose(self) -> None:
        """Let go of the store."""
        await self.store.aclose()

    async def _count(self) -> list[str]:
        """Count what there is, or wait for whoever does; returns what of it has expired."""
        if self._counting is not None:
            await self._counting.wait()
            return []
        self._counting = anyio.Event()
        expired: list[str] = []
        complete = False
        self._usage.begin_count()
        try:
            async for file in self.store.list():
                self._usage.see(file)
                if self._has_expired(file):
                    expired.append(file.file_id)
            complete = True
        finally:
            self._usage.end_count(complete=complete)
            self._counting.set()
            self._counting = None
        return expired

    def _has_expired(self, file: StoredFile) -> bool:
        return file.expires_at is not None and file.expires_at <= self._wall_clock() // 1_000_000
