"""The files that come in chunks: what a node wants done with them is done in the background, in order for each."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, TypeAlias, assert_never

import anyio
from anyio.abc import TaskGroup

from rtcore import Refusal
from rtcore.binary import Bytes
from rtcore.uploads import AbandonFile, AppendToFile, FileEffect, FinishFile, KeptFile, OpenFile

from .file_incoming import Incoming
from .file_store import FileStoreError
from .files import Files

__all__ = ["FileNews", "FileUploads"]

_log = logging.getLogger("rtcore.files")

#: What has become of a file: so many more bytes of it are stored, it is kept, or it is not.
FileNews: TypeAlias = int | KeptFile | Refusal

_STOPPED: Final = Refusal("store_unavailable", "the server has stopped keeping files: send it again", status=503)
_FAILED: Final = Refusal("store_unavailable", "the server failed to keep the file", status=503)


class _Upload:
    """One file: what of it waits to be stored, which the node bounds, and what is to be done then."""

    def __init__(self, opening: OpenFile) -> None:
        self.opening = opening
        # One piece: of many that are tiny each would cost a multiple of what is in it.
        self.waiting = bytearray()
        self.finish: FinishFile | None = None
        self.abandoned = False
        self.scope = anyio.CancelScope()
        self.news = anyio.Event()

    def wake(self) -> None:
        self.news.set()

    def take(self) -> Bytes:
        """Return all that waits."""
        waiting, self.waiting = self.waiting, bytearray()
        return waiting


class FileUploads:
    """Does what a node wants done with files.

    `perform` returns at once; each file has a task of its own, which stores what waits, however many chunks that are,
    in one go. A file whose task is cut off is given up.

    Args:
        files: Who keeps them.
        tell: Is told what has become of the file of a key.
        ended: Is called when a file is no longer under way.
    """

    def __init__(self, files: Files, *, tell: Callable[[str, FileNews], None], ended: Callable[[], None]) -> None:
        self._files = files
        self._tell = tell
        self._ended = ended
        self._uploads: dict[str, _Upload] = {}
        self._tasks: TaskGroup | None = None
        self._idle = anyio.Event()

    @property
    def busy(self) -> bool:
        """Whether files are under way."""
        return bool(self._uploads)

    async def wait(self) -> None:
        """Wait until no file is under way."""
        while self._uploads:
            self._idle = anyio.Event()
            await self._idle.wait()

    async def run(self) -> None:
        """Do what is asked for, until cancelled; what is asked for before waits."""
        try:
            async with anyio.create_task_group() as self._tasks:
                for upload in list(self._uploads.values()):
                    self._tasks.start_soon(self._serve, upload)
                await anyio.sleep_forever()
        finally:
            self._tasks = None

    def perform(self, effect: FileEffect) -> None:
        """Begin to do what a node wants done."""
        if isinstance(effect, OpenFile):
            upload = self._uploads[effect.key] = _Upload(effect)
            if self._tasks is not None:
                self._tasks.start_soon(self._serve, upload)
            return
        found = self._uploads.get(effect.key)
        if found is None:
            return  # it has failed, which the node is told
        match effect:
            case AppendToFile(data=data):
                found.waiting += data
            case FinishFile():
                found.finish = effect
            case AbandonFile():
                found.abandoned = True
                found.scope.cancel()
                if self._tasks is None:
                    self._end(found)
            case _:
                assert_never(effect)
        found.wake()

    async def _serve(self, upload: _Upload) -> None:
        key = upload.opening.key
        outcome: KeptFile | Refusal = _STOPPED
        incoming: Incoming | None = None
        try:
            with upload.scope:
                incoming = await self._create(upload.opening)
                outcome = await self._receive(upload, incoming)
        except FileStoreError as error:
            outcome = error.refusal
        except Exception:
            _log.exception("a file could not be kept")
            outcome = _FAILED
        finally:
            if incoming is not None:
                await incoming.abort()
            if not upload.abandoned:
                # In the same step the node may find that nobody is to have the file.
                self._tell(key, outcome)
            if upload.abandoned and isinstance(outcome, KeptFile):
                await self._delete(outcome.file_id)
            self._end(upload)

    async def _create(self, opening: OpenFile) -> Incoming:
        return await self._files.create(
            channel=opening.channel,
            user_id=opening.user_id,
            filename=opening.filename,
            content_type=opening.content_type,
            size=opening.size,
        )

    async def _receive(self, upload: _Upload, incoming: Incoming) -> KeptFile:
        while True:
            if upload.waiting:
                data = upload.take()
                await incoming.write(data)
                if not upload.abandoned:
                    self._tell(upload.opening.key, len(data))
            elif upload.finish is not None:
                return await incoming.finish(upload.finish.sha256)
            else:
                upload.news = anyio.Event()
                await upload.news.wait()

    async def _delete(self, file_id: str) -> None:
        try:
            with anyio.CancelScope(shield=True):
                await self._files.delete(file_id)
        except FileStoreError as error:
            _log.warning("a file that nobody may have stays until it expires: %s", error)

    def _end(self, upload: _Upload) -> None:
        if self._uploads.get(upload.opening.key) is upload:
            del self._uploads[upload.opening.key]
            self._idle.set()
            self._ended()
