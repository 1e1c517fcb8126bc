"""Files for tests of stores: kept, listed and read."""

from __future__ import annotations

from contextlib import aclosing
from pathlib import Path

import attrs

from rtcore.binary import Bytes
from rtcore_transports.file_store import FileStore, FileStoreError, StoredFile

__all__ = ["MIB", "content", "described", "keep", "listed", "names", "unavailable"]

MIB = 2**20


def described(number: int, size: int, **more: object) -> StoredFile:
    file = StoredFile(f"{number:032x}", "room:1", "ann", "a.txt", "text/plain", size, "0" * 64, 1_700_000_000_000, None)
    return attrs.evolve(file, **more)


async def keep(store: FileStore, number: int, *pieces: Bytes, **more: object) -> StoredFile:
    file = described(number, sum(map(len, pieces)), **more)
    writer = await store.create(file.file_id)
    for piece in pieces:
        await writer.write(piece)
    await writer.commit(file)
    return file


async def content(store: FileStore, file: StoredFile, start: int = 0, stop: int | None = None) -> bytes:
    pieces = []
    async with aclosing(store.read(file, start, file.size if stop is None else stop)) as found:  # type: ignore[type-var]
        async for piece in found:
            assert piece
            pieces.append(piece)
    return b"".join(pieces)


async def listed(store: FileStore) -> list[StoredFile]:
    return sorted([file async for file in store.list()], key=lambda file: file.file_id)


def names(folder: Path) -> list[str]:
    """Return the names of all files in a folder and those in it."""
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def unavailable(error: FileStoreError) -> bool:
    return (error.refusal.code, error.refusal.status) == ("store_unavailable", 503) and "try again" in str(error)
