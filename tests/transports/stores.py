"""A store of files on disk, which can be made to wait and to fail."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import attrs
from anyio.to_thread import run_sync

from rtcore import Refusal
from rtcore.binary import Bytes
from rtcore_transports import FileStoreError, StoredFile

__all__ = ["DiskStore"]


class DiskStore:
    """A `rtcore_transports.FileStore`.

    Attributes:
        folder: Where the files are.
        fault: With what everything fails, while it is set.
        gate: What writing waits for.
        waiting: How many writes wait there.
        writes: How large the pieces were that were written.
        swept: For which age leftovers were swept.
        closed: Whether it was.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fault: Refusal | None = None
        self.gate = anyio.Event()
        self.gate.set()
        self.waiting = 0
        self.writes: list[int] = []
        self.swept: list[float] = []
        self.closed = False

    def shut(self) -> None:
        """Have writing wait until `gate` is set."""
        self.gate = anyio.Event()

    def check(self) -> None:
        if self.fault is not None:
            raise FileStoreError(self.fault)

    @property
    def names(self) -> list[str]:
        """What is in the folder, leftovers included."""
        return sorted(path.name for path in self.folder.iterdir())

    async def create(self, file_id: str) -> DiskWriter:
        self.check()
        path = self.folder / f"{file_id}.part"
        await run_sync(path.touch)
        return DiskWriter(self, path)

    async def find(self, file_id: str) -> StoredFile | None:
        self.check()
        path = self.folder / f"{file_id}.json"
        return _read(path) if path.exists() else None

    async def read(self, file: StoredFile, start: int, stop: int) -> AsyncIterator[bytes]:
        self.check()
        async with await anyio.open_file(self.folder / file.file_id, "rb") as opened:
            await opened.seek(start)
            while piece := await opened.read(min(65536, stop - start)):
                start += len(piece)
                yield piece

    def path_of(self, file: StoredFile) -> Path | None:
        return self.folder / file.file_id

    async def list(self) -> AsyncIterator[StoredFile]:
        self.check()
        for path in sorted(self.folder.glob("*.json")):
            await self.gate.wait()
            yield _read(path)

    async def delete(self, file_id: str) -> None:
        self.check()
        for name in (f"{file_id}.json", file_id):
            await run_sync((self.folder / name).unlink, True)

    async def sweep(self, *, older_than: float) -> None:
        self.check()
        self.swept.append(older_than)

    async def aclose(self) -> None:
        self.closed = True


class DiskWriter:
    """A `rtcore_transports.FileWriter`."""

    def __init__(self, store: DiskStore, path: Path) -> None:
        self._store = store
        self._path = path

    async def write(self, data: Bytes) -> None:
        await self._wait()
        self._store.writes.append(len(data))
        await run_sync(self._write, data)

    async def commit(self, file: StoredFile) -> None:
        await self._wait()
        await run_sync(self._path.rename, self._path.with_name(file.file_id))
        text = json.dumps(attrs.asdict(file))
        await run_sync(self._path.with_name(f"{file.file_id}.json").write_text, text)

    async def abort(self) -> None:
        await run_sync(self._path.unlink, True)

    async def _wait(self) -> None:
        self._store.waiting += 1
        try:
            await self._store.gate.wait()
        finally:
            self._store.waiting -= 1
        self._store.check()

    def _write(self, data: Bytes) -> None:
        with open(self._path, "ab") as part:
            part.write(data)


def _read(path: Path) -> StoredFile:
    return StoredFile(**json.loads(path.read_text()))
