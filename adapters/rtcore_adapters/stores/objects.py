"""Files in a bucket of object storage, by the interface of Amazon S3.

What is in a file is the object ``<prefix>/<id>``, what is known of it ``<prefix>/<id>.json``. That is put there last,
so a file is there if its ``.json`` is. A large file is a multipart upload until then: where a server has ended in the
middle of one, that is no object which could be found, and only a rule of the bucket removes it, with
``AbortIncompleteMultipartUpload``.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar, TypeVarTuple

import obstore
from anyio import CancelScope, CapacityLimiter, create_task_group, to_thread
from anyio.lowlevel import RunVar
from obstore.exceptions import BaseError
from obstore.store import S3Store

from rtcore.binary import Bytes
from rtcore_transports.file_store import StoredFile

from .faults import full, unavailable
from .metadata import checked_id, decode_metadata, encode_metadata, is_file_id
from .urls import PART, ObjectsUrl

if TYPE_CHECKING:
    from obstore import ObjectMeta, WritableFile
    from obstore.store import S3Config

__all__ = ["ObjectStore", "ObjectWriter"]

# How many parts are on their way at a time. With the one that is being filled they are what a file has in memory.
_PARTS_AT_ONCE: Final = 2

# One request each: it takes some tens of milliseconds before the first byte comes.
_PIECE: Final = 2**20

# A store that is down is to be known as that while somebody waits for it: three attempts to connect, or one answer that
# does not come. A part has as long, so 1 MiB a second is the least that two of them need.
_CONNECT_TIMEOUT: Final = timedelta(seconds=3)
_TIMEOUT: Final = timedelta(seconds=10)
_RETRIES: Final = 2
_RETRY_TIMEOUT: Final = timedelta(seconds=8)

# Threads that wait for the store. They are not those that all the rest has: a store that hangs holds up nothing else.
_THREADS: Final = 32
_limiter: Final = RunVar[CapacityLimiter]("rtcore.stores")

_METADATA: Final = ".json"

ResultT = TypeVar("ResultT")
ArgumentTs = TypeVarTuple("ArgumentTs")


class ObjectStore:
    """Keeps files in a bucket: a `rtcore_transports.FileStore`. Several servers may share one.

    Args:
        where: The bucket. Credentials, and what `where` leaves open, come from ``AWS_…`` in the environment.

    Raises:
        ValueError: These make no sense.
    """

    def __init__(self, where: ObjectsUrl) -> None:
        # One by one is what all servers know.
        config: S3Config = {"disable_bulk_delete": True}
        if where.endpoint is not None:
            config["endpoint"] = where.endpoint
        if where.region is not None:
            config["region"] = where.region
        try:
            self._store = S3Store(
                where.bucket,
                prefix=where.prefix or None,
                config=config,
                client_options={
                    "allow_http": where.endpoint is not None and where.endpoint.startswith("http:"),
                    "connect_timeout": _CONNECT_TIMEOUT,
                    "timeout": _TIMEOUT,
                },
                retry_config={"max_retries": _RETRIES, "retry_timeout": _RETRY_TIMEOUT},
            )
        except BaseError as error:
            raise ValueError(str(error).partition("\n")[0]) from error

    async def create(self, file_id: str) -> ObjectWriter:
        """Begin a file under a new id; the store is not asked before there is something to keep."""
        return ObjectWriter(self._store, checked_id(file_id))

    async def find(self, file_id: str) -> StoredFile | None:
        """Return what is known of a file, expired or not, or ``None``."""
        if not is_file_id(file_id):
            return None
        with _faults():
            return await _in_thread(self._read_metadata, file_id)

    async def read(self, file: StoredFile, start: int, stop: int) -> AsyncIterator[bytes]:
        """Give the bytes from `start` up to but not including `stop`, in pieces."""
        file_id = checked_id(file.file_id)

        def read(end: int) -> bytes:
            return obstore.get_range(self._store, file_id, start=start, end=end).to_bytes()

        while start < stop:
            end = min(start + _PIECE, stop)
            with _faults():
                piece = await _in_thread(read, end)
            if len(piece) < end - start:
                raise unavailable(f"the object {file_id} ends too early, and should have {file.size} bytes")
            start = end
            yield piece

    def path_of(self, file: StoredFile) -> Path | None:
        """Return ``None``: no file is on this machine."""
        return None

    async def list(self) -> AsyncIterator[StoredFile]:
        """Give all files that there are, expired ones included."""
        async for objects in self._objects():
            names = [meta["path"] for meta in objects]
            ids = [name.removesuffix(_METADATA) for name in names if name.endswith(_METADATA)]
            for file in await self._find_all([file_id for file_id in ids if is_file_id(file_id)]):
                yield file

    async def delete(self, file_id: str) -> None:
        """Keep a file no longer; one that there is not is no fault."""
        if is_file_id(file_id):
            with _faults():
                await _in_thread(_delete, self._store, file_id)

    async def sweep(self, *, older_than: float) -> None:
        """Remove what writers have left behind that ended without a word, if it is older than so many seconds.

        Of incomplete multipart uploads it knows nothing.
        """
        before = time.time() - older_than
        async for objects in self._objects():
            known = {meta["path"] for meta in objects}
            for meta in objects:
                path = meta["path"]
                # Its metadata may be among the objects that come next.
                if (
                    is_file_id(path)
                    and meta["last_modified"].timestamp() < before
                    and path + _METADATA not in known
                    and await self.find(path) is None
                ):
                    await self.delete(path)

    async def aclose(self) -> None:
        """Let go of what it holds open, which obstore does by itself."""

    async def _objects(self) -> AsyncIterator[Sequence[ObjectMeta]]:
        with _faults():
            found = await _in_thread(obstore.list, self._store)
        while True:
            with _faults():
                objects = await _in_thread(next, found, None)
            if objects is None:
                return
            yield objects

    async def _find_all(self, ids: Sequence[str]) -> Sequence[StoredFile]:
        found: dict[str, StoredFile | None] = {}
        failed: list[Exception] = []

        async def find(file_id: str) -> None:
            try:
                found[file_id] = await _in_thread(self._read_metadata, file_id)
            except (BaseError, OSError) as error:
                failed.append(error)
                tasks.cancel_scope.cancel()

        async with create_task_group() as tasks:
            for file_id in ids:
                tasks.start_soon(find, file_id)
        if failed:
            with _faults():
                raise failed[0]
        return [file for file in map(found.get, ids) if file is not None]

    def _read_metadata(self, file_id: str) -> StoredFile | None:
        try:
            data = obstore.get(self._store, file_id + _METADATA).bytes()
        except FileNotFoundError:
            return None
        return decode_metadata(data.to_bytes(), file_id)


class ObjectWriter:
    """A file on its way into a bucket: a `rtcore_transports.FileWriter`."""

    def __init__(self, store: S3Store, file_id: str) -> None:
        self._store = store
        self._file_id = file_id
        self._writer: WritableFile | None = obstore.open_writer(
            store, file_id, buffer_size=PART, max_concurrency=_PARTS_AT_ONCE
        )
        self._is_kept = False
        # Whether there may be objects of it.
        self._is_put = False

    async def write(self, data: Bytes) -> None:
        """Append."""
        with _faults():
            # What it is given it keeps until it is sent, so that must be nothing that changes.
            await _in_thread(self._open_writer().write, bytes(data))

    async def commit(self, file: StoredFile) -> None:
        """Keep all that was written, as `file`."""
        writer = self._open_writer()

        def commit() -> None:
            self._is_put = True
            self._writer = None
            writer.close()
            obstore.put(self._store, self._file_id + _METADATA, encode_metadata(file), use_multipart=False)

        with _faults():
            await _in_thread(commit)
        self._is_kept = True

    async def abort(self) -> None:
        """Keep nothing; after `commit` nothing happens any more."""
        if self._is_kept:
            return

        def abort() -> None:
            # What cannot be removed now is by `ObjectStore.sweep`, or by a rule of the bucket.
            if self._writer is not None:
                writer, self._writer = self._writer, None
                with suppress(BaseError, OSError):
                    # There is no other way to say it.
                    writer.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
            if self._is_put:
                with suppress(BaseError, OSError):
                    _delete(self._store, self._file_id)

        # Whoever is cancelled has a reason the more to leave nothing behind.
        with CancelScope(shield=True):
            await _in_thread(abort)

    def _open_writer(self) -> WritableFile:
        assert self._writer is not None, "nothing but `abort` may follow what has ended the writer"
        return self._writer


def _delete(store: S3Store, file_id: str) -> None:
    for name in (file_id + _METADATA, file_id):
        # S3 says nothing where there is none, others do.
        with suppress(FileNotFoundError):
            obstore.delete(store, name)


@contextmanager
def _faults() -> Iterator[None]:
    try:
        yield
    except (BaseError, OSError) as error:
        # No kind of error says so; the text has the status line of the answer.
        raise (full if "507 Insufficient Storage" in str(error) else unavailable)(error) from error


async def _in_thread(function: Callable[[*ArgumentTs], ResultT], *arguments: *ArgumentTs) -> ResultT:
    limiter = _limiter.get(None)
    if limiter is None:
        limiter = CapacityLimiter(_THREADS)
        _limiter.set(limiter)
    return await to_thread.run_sync(function, *arguments, limiter=limiter)
