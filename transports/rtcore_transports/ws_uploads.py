"""The files that a `WSClient` sends: drives one machine `rtcore.client.Upload` for each, beside that of the client."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeAlias, assert_never

import anyio

from rtcore import CommandError, ConnectionClosed, LocalProtocolError, Message, QueueFull
from rtcore.binary import Bytes
from rtcore.client import (
    Answered,
    Ask,
    Cancelled,
    Done,
    Failed,
    Progressed,
    ReadPiece,
    Request,
    SendChunk,
    Upload,
    UploadEffect,
)
from rtcore.websocket import SendBytes

from .file_download import Progress, report
from .ws_outcomes import Outcome

if TYPE_CHECKING:
    from .ws_session import WSSession

__all__ = ["FileUpload", "Uploads"]

_File: TypeAlias = anyio.AsyncFile[bytes]

_BEGIN: Final = "begin_upload"
# So much of a file is read at once: the way to a worker thread and back takes longer than to read a chunk.
_BLOCK: Final = 2**19


class Uploads:
    """The files that are being sent on one session. All but `turn` returns at once.

    Attributes:
        turn: Whose turn it is to send a chunk: whoever has waited longest.
    """

    def __init__(self) -> None:
        self.turn = anyio.Lock()
        self._uploads: dict[str, FileUpload] = {}

    def __len__(self) -> int:
        return len(self._uploads)

    def add(self, upload: FileUpload) -> None:
        """Tell a file what becomes of the connection, until it is removed."""
        self._uploads[upload.upload_id] = upload

    def remove(self, upload: FileUpload) -> None:
        """Tell a file nothing more."""
        del self._uploads[upload.upload_id]

    def connected(self) -> None:
        """The server has welcomed the client."""
        for upload in self._uploads.values():
            upload.connected()

    def lost(self) -> None:
        """The connection is lost."""
        for upload in self._uploads.values():
            upload.lost()

    def end(self) -> None:
        """There will be no more connections."""
        for upload in self._uploads.values():
            upload.end()

    def received(self, message: Message) -> bool:
        """Tell a file what the server says of it; returns whether it is one of these."""
        upload = self._uploads.get(str(message.get("upload_id")))
        if upload is not None:
            upload.received(message)
        return upload is not None


class FileUpload:
    """One file on its way to the server. All but `run` returns at once.

    What comes from the session changes the machine at once. What the machine wants then is done by the task in `run`;
    but a chunk is sent at once, for it belongs to the connection that there is.

    Args:
        session: On whose connections it goes.
        machine: Of the file.
        file: It, open at its beginning.
        progress: Whom to tell how far it is, or ``None``.
    """

    def __init__(self, session: WSSession, machine: Upload, file: _File, progress: Progress | None) -> None:
        self.upload_id = machine.upload_id
        self._session = session
        self._machine = machine
        self._file = file
        self._progress = progress
        # What was read last, and where it was.
        self._block = b""
        self._position = 0
        self._asks: list[Ask] = []
        self._piece: ReadPiece | None = None
        self._progressed: Progressed | None = None
        self._outcome: Done | Failed | None = None
        self._ended = False
        self._changed = anyio.Event()

    async def run(self) -> Message:
        """Send it; returns what the server says of it when it is kept and published.

        If anything is raised here, which may be a cancellation, the upload is given up.

        Raises:
            CommandError: The server refused it, or it has failed there.
            ConnectionClosed: The session has ended; or the server has forgotten the file, which it may have published.
            LocalProtocolError: The file has changed meanwhile; or the user had ended the session before.
            OSError: It cannot be read any more.
        """
        if self._session.ended:
            raise self._session.ending() or LocalProtocolError("the client has ended: connect() first")
        before = _state_of(self._file)
        self._session.uploads.add(self)
        try:
            if self._session.connected:
                self.connected()
            while self._outcome is None and not self._ended:
                await self._go_on()
        finally:
            self._session.uploads.remove(self)
            # Once it has ended, this changes nothing.
            self._perform(self._machine.cancel(now=self._session.now()))
            self._ask()
        match self._outcome:
            case Done(file=file):
                await self._report()
                return file
            case Failed(code="file_changed", message=text):
                raise LocalProtocolError(f"the file has changed while it was sent: {text}")
            case Failed(code="checksum_mismatch") if _state_of(self._file) != before:
                raise LocalProtocolError("the file has changed while it was sent")
            case Failed(code="connection_lost", message=text):
                raise ConnectionClosed(None, text)
            case Failed(code=code, message=text):
                raise CommandError(code, text)
            case None:
                raise self._session.ending() or ConnectionClosed(None, "the client was disconnected")
            case _:
                assert_never(self._outcome)

    # What the session tells

    def connected(self) -> None:
        """The server has welcomed the client."""
        self._perform(self._machine.connected(now=self._session.now()))

    def lost(self) -> None:
        """The connection is lost."""
        self._perform(self._machine.lost(now=self._session.now()))

    def end(self) -> None:
        """There will be no more connections."""
        self._ended = True
        self._changed.set()

    def received(self, message: Mapping[str, object]) -> None:
        """The server has said something of the file."""
        self._perform(self._machine.received(message, now=self._session.now()))

    # Inside

    async def _go_on(self) -> None:
        """Do one of the things that are to be done, or wait for one."""
        self._ask()
        if self._progressed is not None:
            await self._report()
        elif self._piece is not None:
            await self._carry(self._piece)
        else:
            self._changed = anyio.Event()
            at = self._machine.next_timeout()
            with anyio.move_on_after(None if at is None else at - self._session.now()):
                await self._changed.wait()
            self._perform(self._machine.handle_timeout(now=self._session.now()))

    async def _carry(self, piece: ReadPiece) -> None:
        """Read a piece, and send it once nothing else waits to be sent: what others say goes between two chunks."""
        self._piece = None
        data = await self._read(piece)
        session = self._session
        async with session.uploads.turn:
            await session.drain(all_of_it=True)
            self._perform(self._machine.read(data, now=session.now()))

    async def _read(self, piece: ReadPiece) -> Bytes:
        """Return a piece out of the block that was read last, or of one that is read in a worker thread now."""
        begin = piece.offset - self._position
        if begin < 0 or begin + piece.size > len(self._block):
            await self._file.seek(piece.offset)
            self._block = await self._file.read(max(piece.size, _BLOCK))
            self._position, begin = piece.offset, 0
        return memoryview(self._block)[begin : begin + piece.size]

    async def _report(self) -> None:
        progressed, self._progressed = self._progressed, None
        if progressed is not None:
            await report(self._progress, progressed.sent, progressed.total)

    def _ask(self) -> None:
        asks, self._asks = self._asks, []
        for ask in asks:
            # On the next connection there is another to begin; and a server that is not asked forgets by itself.
            if ask.command == _BEGIN and not self._session.connected:
                continue
            with suppress(QueueFull, ConnectionClosed, LocalProtocolError):
                self._session.ask(Request(ask.command, ask.data), self._told(ask))

    def _told(self, ask: Ask) -> Callable[[Outcome], None]:
        def told(outcome: Outcome) -> None:
            now = self._session.now()
            match outcome:
                case Answered(data=data):
                    effects = self._machine.answered(ask.number, data, now=now)
                case _:
                    code, text, after = outcome.code, outcome.message, outcome.retry_after
                    effects = self._machine.refused(ask.number, code, text, after, now=now)
            self._perform(effects)

        return told

    def _perform(self, effects: Sequence[UploadEffect]) -> None:
        for effect in effects:
            match effect:
                case SendChunk(payload=payload):
                    self._session.write(SendBytes(payload))
                case Ask():
                    self._asks.append(effect)
                case ReadPiece():
                    self._piece = effect
                case Progressed():
                    # Whoever is slow to hear of it hears the newest.
                    self._progressed = effect
                case Done() | Failed():
                    self._outcome = effect
                case Cancelled():
                    pass
                case _:
                    assert_never(effect)
        # Without an effect there may still be another deadline.
        self._changed.set()


def _state_of(file: _File) -> tuple[int, int]:
    """Return what changes when a file is written to."""
    status = os.fstat(file.wrapped.fileno())
    return status.st_size, status.st_mtime_ns
