"""Files in a folder of this machine.

What is in a file is at ``<id[:2]>/<id>``, what is known of it beside it in ``<id>.json``. That is put there last, at
once, so a file is there if its ``.json`` is. What is not complete yet ends in ``.part``.

When the disk has it is left to the system: to wait for that takes longer than all the rest, and would not save the
history in memory either. What a power cut leaves of a file is no file: it is shorter than its ``.json`` says.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from anyio import CancelScope, to_thread

from rtcore.binary import Bytes
from rtcore_transports.file_store import StoredFile

from .faults import disk_faults, unavailable
from .metadata import MAX_METADATA, checked_id, decode_metadata, encode_metadata, is_file_id

__all__ = ["FolderStore", "FolderWriter"]

# A piece is read by a thread while others wait for it: so much takes a disk well under a millisecond.
_PIECE: Final = 2**18

_METADATA: Final = ".json"
_PARTIAL: Final = ".part"

_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
_READ: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW


class FolderStore:
    """Keeps files in a folder: a `rtcore_transports.FileStore`.

    Others may read the files of a group or of everybody by no right that is given here: folders have mode 0700, files
    0600. Several servers may share one folder.

    Args:
        folder: Made with the first file; relative to the working directory of now.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()

    async def create(self, file_id: str) -> FolderWriter:
        """Begin a file under a new id."""
        path = self._path(checked_id(file_id))

        def create() -> int:
            # The mode of `mkdir` holds for the last part only: parents are made as the user's mask wants it.
            self._folder.mkdir(0o700, parents=True, exist_ok=True)
            path.parent.mkdir(0o700, exist_ok=True)
            return os.open(_partial(path), _NEW, 0o600)

        with disk_faults():
            return FolderWriter(path, await to_thread.run_sync(create))

    async def find(self, file_id: str) -> StoredFile | None:
        """Return what is known of a file, expired or not, or ``None``."""
        if not is_file_id(file_id):
            return None
        with disk_faults():
            return await to_thread.run_sync(_read_metadata, self._path(file_id))

    async def read(self, file: StoredFile, start: int, stop: int) -> AsyncIterator[bytes]:
        """Give the bytes from `start` up to but not including `stop`, in pieces."""
        path = self._path(checked_id(file.file_id))
        with disk_faults():
            descriptor = await to_thread.run_sync(os.open, path, _READ)
        try:
            while start < stop:
                with disk_faults():
                    piece = await to_thread.run_sync(os.pread, descriptor, min(_PIECE, stop - start), start)
                if not piece:
                    raise unavailable(f"{path} ends at {start}, and should have {file.size} bytes")
                start += len(piece)
                yield piece
        finally:
            os.close(descriptor)

    def path_of(self, file: StoredFile) -> Path | None:
        """Return where a file is on this machine."""
        return self._path(checked_id(file.file_id))

    async def list(self) -> AsyncIterator[StoredFile]:
        """Give all files that there are, expired ones included."""

        def read(shard: Path) -> Sequence[StoredFile]:
            paths = [path.with_suffix("") for path in _entries(shard) if path.suffix == _METADATA]
            files = [_read_metadata(path) for path in paths if is_file_id(path.name)]
            return [file for file in files if file is not None]

        with disk_faults():
            shards = await to_thread.run_sync(self._shards)
        for shard in shards:
            with disk_faults():
                files = await to_thread.run_sync(read, shard)
            for file in files:
                yield file

    async def delete(self, file_id: str) -> None:
        """Keep a file no longer; one that there is not is no fault."""
        if not is_file_id(file_id):
            return
        path = self._path(file_id)

        def delete() -> None:
            _metadata(path).unlink(missing_ok=True)
            path.unlink(missing_ok=True)

        with disk_faults():
            await to_thread.run_sync(delete)

    async def sweep(self, *, older_than: float) -> None:
        """Remove what writers have left behind that ended without a word, if it is older than so many seconds.

        A writer that is slow is not told from one that has ended: choose longer than any waits between two pieces.
        """

        def sweep(shard: Path) -> None:
            before = time.time() - older_than
            for path in _entries(shard):
                name = path.name.split(".", 1)[0]
                is_whole = path.suffix != _PARTIAL and _read_metadata(path.with_name(name)) is not None
                if is_file_id(name) and not is_whole:
                    # Somebody else may be sweeping here too.
                    with suppress(FileNotFoundError):
                        if path.stat(follow_symlinks=False).st_mtime < before:
                            path.unlink()

        with disk_faults():
            for shard in await to_thread.run_sync(self._shards):
                await to_thread.run_sync(sweep, shard)

    async def aclose(self) -> None:
        """Let go of what it holds open, which is nothing."""

    def _path(self, file_id: str) -> Path:
        return self._folder / file_id[:2] / file_id

    def _shards(self) -> Sequence[Path]:
        return [path for path in _entries(self._folder) if len(path.name) == 2]


class FolderWriter:
    """A file on its way into a folder: a `rtcore_transports.FileWriter`."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor: int | None = descriptor
        self._is_kept = False

    async def write(self, data: Bytes) -> None:
        """Append."""
        descriptor = self._open_descriptor()

        def write() -> None:
            with memoryview(data) as rest:
                written = 0
                while written < len(rest):
                    written += os.write(descriptor, rest[written:])

        with disk_faults():
            await to_thread.run_sync(write)

    async def commit(self, file: StoredFile) -> None:
        """Keep all that was written, as `file`."""
        descriptor = self._open_descriptor()

        def commit() -> None:
            # Now: a sweep is not to take it for something old in the moment between the two names.
            os.utime(descriptor)
            self._close()
            os.replace(_partial(self._path), self._path)
            self._write_metadata(encode_metadata(file))

        with disk_faults():
            await to_thread.run_sync(commit)
        self._is_kept = True

    async def abort(self) -> None:
        """Keep nothing; after `commit` nothing happens any more."""
        if self._is_kept:
            return

        def abort() -> None:
            self._close()
            known = _metadata(self._path)
            for path in (known, _partial(known), self._path, _partial(self._path)):
                # What cannot be removed now is by `FolderStore.sweep`.
                with suppress(OSError):
                    path.unlink()

        # Whoever is cancelled has a reason the more to leave nothing behind.
        with CancelScope(shield=True):
            await to_thread.run_sync(abort)

    def _write_metadata(self, data: bytes) -> None:
        path = _metadata(self._path)
        with open(os.open(_partial(path), _NEW, 0o600), "wb") as partial:
            partial.write(data)
        os.replace(_partial(path), path)

    def _open_descriptor(self) -> int:
        assert self._descriptor is not None, "nothing but `abort` may follow what has ended the writer"
        return self._descriptor

    def _close(self) -> None:
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)


def _metadata(path: Path) -> Path:
    return path.with_name(path.name + _METADATA)


def _partial(path: Path) -> Path:
    return path.with_name(path.name + _PARTIAL)


def _read_metadata(path: Path) -> StoredFile | None:
    """Return what is known of a file, or ``None`` where not all of it is there."""
    try:
        with open(os.open(_metadata(path), _READ), "rb") as metadata:
            file = decode_metadata(metadata.read(MAX_METADATA), path.name)
        return file if file is not None and path.lstat().st_size == file.size else None
    except FileNotFoundError:
        return None


def _entries(folder: Path) -> Iterator[Path]:
    """Give what is in a folder, nothing where there is none."""
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            yield folder / entry.name
