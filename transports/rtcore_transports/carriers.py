"""What carries the bytes of one connection: a non-blocking socket, or a stream where no raw socket is to be had.

Writing never blocks and never waits for the peer. What the peer does not take at once waits, and a task of its own
writes it; a connection that nobody holds up has no such task and nothing that waits. What is written by `Carrier.write`
goes first. Messages, which may come in any number, are offered instead: what is not taken stays with whoever offered
it, to be pulled from there when its turn has come.
"""

from __future__ import annotations

import errno
import socket
from contextlib import suppress
from typing import Protocol

import anyio
import anyio.lowlevel
from anyio.abc import ByteStream, TaskGroup

from .file_sending import FileSending
from .pending_writes import NextBytes, PendingWrites

__all__ = ["READ_SIZE", "Carrier", "SocketCarrier", "StreamCarrier"]

#: The most bytes taken in by one read, which bounds the work of one step.
READ_SIZE = 65536

# How long, and over how many bytes, a connection that we end lingers for the peer to read what we wrote last.
_LINGER_TIMEOUT = 2.0
_LINGER_READS = 64
# So many writes are made in one go, then others have their turn.
_WRITES = 16
# What says that a file cannot be sent, and nothing of the connection.
_FILE_FAULTS = (errno.EBADF, errno.EINVAL, errno.EIO, errno.EISDIR, errno.ENOSYS, errno.EOPNOTSUPP, errno.EOVERFLOW)
# To a stream no more is written at once, so that it shows when a slow peer has taken some of it.
_WRITE_SIZE = 65536


class Carrier(Protocol):
    """The bytes of one connection."""

    @property
    def limits(self) -> tuple[int, int]:
        """How many bytes, and how many messages, may wait for the peer."""
        ...

    @property
    def full(self) -> bool:
        """Whether what was written and waits has reached the limits: the peer is to read before it is heard again."""
        ...

    @property
    def gone(self) -> bool:
        """Whether what is written goes nowhere, because either side has ended the connection."""
        ...

    async def receive(self, max_bytes: int = READ_SIZE) -> bytes:
        """Return what has arrived, at most `max_bytes`; ``b""`` once nothing more will.

        Whoever takes more than `READ_SIZE` reads something long, of which more is likely to be there already.
        """
        ...

    def write(self, data: bytes) -> None:
        """Write `data`, or keep it until the peer takes it; dropped if the connection is gone.

        It goes before what is pulled. Nothing bounds what is kept but the caller, who asks `full` or waits by `drain`.
        """
        ...

    def offer(self, data: bytes) -> bool:
        """Write `data` if nothing waits.

        Returns:
            Whether it is taken, all of it, or the connection is gone; if not, none of it is.
        """
        ...

    def pull(self, source: NextBytes) -> None:
        """Take bytes from `source` whenever the peer takes more and nothing else waits, until it has none.

        Asking again while it is asked changes nothing.
        """
        ...

    async def drain(self) -> None:
        """Wait until everything written so far is with the network, or the connection is gone.

        A peer that takes nothing for a time is gone: then the connection is ended.
        """
        ...

    def finish(self) -> None:
        """Begin to end the connection as `aclose` does; the reader is told by an end of what it receives."""
        ...

    async def aclose(self) -> None:
        """End the connection: write what waits, half-close, let the peer read it; all within limits of time."""
        ...

    def abort(self) -> None:
        """End the connection at once."""
        ...


class SocketCarrier:
    """A non-blocking TCP socket, read and written on readiness.

    Args:
        sock: Connected and non-blocking; this object owns it from now on.
        tasks: Where the task that writes what waits runs.
        max_bytes: Beyond so many bytes that wait it counts as full.
        max_messages: With so many writes that wait, likewise.
        write_timeout: Seconds after which a peer that takes nothing while `drain` waits is gone; ``None`` for never.
    """

    __slots__ = (
        "_aborted",
        "_clear",
        "_closed",
        "_failed",
        "_recv",
        "_send",
        "_sending",
        "_socket",
        "_tasks",
        "_write_timeout",
        "_writes",
    )

    def __init__(
        self,
        sock: socket.socket,
        *,
        tasks: TaskGroup,
        max_bytes: int = 2**22,
        max_messages: int = 1000,
        write_timeout: float | None = None,
    ) -> None:
        # Nothing waits to be written, and nobody is writing it: what comes goes straight to the socket. This one flag
        # and the bound method are all that most writes look at; each further object would be a cache line or two.
        self._clear = True
        self._send = sock.send
        self._recv = sock.recv
        self._socket = sock
        self._tasks = tasks
        self._writes = PendingWrites(max_bytes, max_messages)
        self._write_timeout = write_timeout
        self._closed = False
        self._failed = False
        self._sending: FileSending | None = None
        self._aborted = anyio.Event()

    @property
    def limits(self) -> tuple[int, int]:
        """See `Carrier.limits`."""
        return self._writes.limits

    @property
    def full(self) -> bool:
        """See `Carrier.full`."""
        return self._writes.full

    @property
    def gone(self) -> bool:
        """See `Carrier.gone`."""
        return self._closed or self._failed

    async def receive(self, max_bytes: int = READ_SIZE) -> bytes:
        """See `Carrier.receive`."""
        eager = max_bytes > READ_SIZE
        while not self._closed:
            try:
                if eager:
                    # To wait for what is there takes longer than to read it; but others have their turn.
                    eager = False
                    await anyio.lowlevel.checkpoint()
                else:
                    await anyio.wait_readable(self._socket)
                return self._recv(max_bytes)
            except BlockingIOError:
                continue
            except (OSError, ValueError, anyio.ClosedResourceError):
                # A reset, or closed by us meanwhile: for the reader it is the end all the same.
                break
        return b""

    def write(self, data: bytes) -> None:
        """See `Carrier.write`."""
        if not self.offer(data):
            self._writes.append(data)
            self._start_writing()

    def offer(self, data: bytes) -> bool:
        """See `Carrier.offer`."""
        if not self._clear:
            return self._closed or self._failed
        try:
            sent = self._send(data)
        except BlockingIOError:
            return False
        except OSError:
            self._fail()
            return True
        if sent != len(data):
            self._writes.append(memoryview(data)[sent:])
            self._start_writing()
        return True

    def pull(self, source: NextBytes) -> None:
        """See `Carrier.pull`."""
        if not self.gone:
            self._writes.source = source
            self._start_writing()

    async def send_file(self, descriptor: int, offset: int, size: int) -> int:
        """Send a part of a file, straight from where the system has it, behind all that was written before.

        Nothing may be written or offered meanwhile. A peer that takes nothing for a time is gone, as for `drain`.

        Args:
            descriptor: The file's.
            offset: Where the part begins.
            size: Its bytes.

        Returns:
            How many of them were sent: fewer where the file ends, or the connection is gone.

        Raises:
            OSError: The file cannot be sent.
        """
        await self.drain()
        sending = self._sending = FileSending(self._socket, descriptor, offset, size)
        try:
            while not self.gone:
                before = sending.offset
                with anyio.move_on_after(self._write_timeout):
                    await sending.run()
                    break
                # Whether anything went is looked at once in a while, which costs nothing each time something does.
                if sending.offset == before:
                    self.abort()
        except anyio.ClosedResourceError:
            pass
        except OSError as error:
            if error.errno in _FILE_FAULTS:
                raise
            self._fail()
        finally:
            self._sending = None
        return sending.offset - offset

    async def drain(self) -> None:
        """See `Carrier.drain`."""
        if not await self._writes.drain(self._write_timeout):
            self.abort()

    def finish(self) -> None:
        """See `Carrier.finish`."""
        self._tasks.start_soon(self._finish)

    async def aclose(self) -> None:
        """See `Carrier.aclose`."""
        try:
            with anyio.move_on_after(_LINGER_TIMEOUT), suppress(OSError):
                await self._writes.finish()
                if not self._closed:
                    # Closing with unread input would send a reset, which takes back what the peer has not read yet.
                    self._socket.shutdown(socket.SHUT_WR)
                    for _ in range(_LINGER_READS):
                        if not await self.receive():
                            break
        finally:
            self.abort()

    def abort(self) -> None:
        """See `Carrier.abort`."""
        if self._closed:
            return
        self._closed = True
        self._clear = False
        self._aborted.set()
        self._writes.clear()
        if self._sending is not None:
            self._sending.stop()
        anyio.notify_closing(self._socket)
        self._socket.close()

    async def _finish(self) -> None:
        # Unlike `aclose` this does not read: another task does, and sees the peer's end when it comes.
        with anyio.move_on_after(_LINGER_TIMEOUT):
            await self._writes.finish()
            if not self._closed:
                with suppress(OSError):
                    self._socket.shutdown(socket.SHUT_WR)
            await self._aborted.wait()
        self.abort()

    def _start_writing(self) -> None:
        if self._clear:
            self._clear = False
            self._tasks.start_soon(self._write)

    async def _write(self) -> None:
        writes = self._writes
        while writes.waiting and not self.gone:
            try:
                await anyio.wait_writable(self._socket)
                for _ in range(_WRITES):
                    data = writes.head()
                    if data is None:
                        break
                    sent = self._send(data)
                    if sent == len(data):
                        writes.pop()
                    else:
                        writes.replace_head(memoryview(data)[sent:])
            except BlockingIOError:
                continue
            except (OSError, ValueError, anyio.ClosedResourceError):
                self._fail()
        self._clear = not self.gone

    def _fail(self) -> None:
        # The reader is told by its own next read, and ends the connection; writes until then go nowhere.
        self._failed = True
        self._clear = False
        self._writes.clear()
        if not self._closed:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)


class StreamCarrier:
    """A byte stream, TLS for one, with a task that writes.

    Args:
        stream: Connected; this object owns it from now on.
        tasks: Where that task runs.
        max_bytes: Beyond so many bytes that wait it counts as full.
        max_messages: With so many writes that wait, likewise.
        write_timeout: Seconds after which a peer that takes nothing while `drain` waits is gone; ``None`` for never.
    """

    __slots__ = ("_closed", "_reading", "_stream", "_tasks", "_write_timeout", "_writes", "_writing")

    def __init__(
        self,
        stream: ByteStream,
        *,
        tasks: TaskGroup,
        max_bytes: int = 2**22,
        max_messages: int = 1000,
        write_timeout: float | None = None,
    ) -> None:
        self._stream = stream
        self._tasks = tasks
        self._writes = PendingWrites(max_bytes, max_messages)
        self._write_timeout = write_timeout
        self._reading: anyio.CancelScope | None = None
        self._writing: anyio.CancelScope | None = None
        self._closed = False

    @property
    def limits(self) -> tuple[int, int]:
        """See `Carrier.limits`."""
        return self._writes.limits

    @property
    def full(self) -> bool:
        """See `Carrier.full`."""
        return self._writes.full

    @property
    def gone(self) -> bool:
        """See `Carrier.gone`."""
        return self._closed

    async def receive(self, max_bytes: int = READ_SIZE) -> bytes:
        """See `Carrier.receive`."""
        if self._closed:
            return b""
        try:
            with anyio.CancelScope() as self._reading:
                return await self._stream.receive(max_bytes)
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass
        finally:
            self._reading = None
        return b""

    def write(self, data: bytes) -> None:
        """See `Carrier.write`."""
        if not self._closed:
            self._writes.append(data)
            self._start_writing()

    def offer(self, data: bytes) -> bool:
        """See `Carrier.offer`."""
        if self._writing is not None:
            return self._closed
        self.write(data)
        return True

    def pull(self, source: NextBytes) -> None:
        """See `Carrier.pull`."""
        if not self._closed:
            self._writes.source = source
            self._start_writing()

    async def drain(self) -> None:
        """See `Carrier.drain`."""
        if not await self._writes.drain(self._write_timeout):
            self.abort()

    def finish(self) -> None:
        """See `Carrier.finish`."""
        self._tasks.start_soon(self.aclose)

    async def aclose(self) -> None:
        """See `Carrier.aclose`."""
        try:
            with anyio.move_on_after(_LINGER_TIMEOUT):
                await self._writes.finish()
                if not self._closed:
                    self._closed = True
                    await self._stream.aclose()
        finally:
            self.abort()
            # A second, impatient close: where the first was cut off, this one only lets go of the socket.
            with anyio.CancelScope(shield=True):
                await anyio.aclose_forcefully(self._stream)

    def abort(self) -> None:
        """See `Carrier.abort`."""
        # The stream itself is closed by `aclose`, which is the reader's to call.
        self._closed = True
        self._writes.clear()
        for scope in (self._reading, self._writing):
            if scope is not None:
                scope.cancel()

    def _start_writing(self) -> None:
        if self._writing is None:
            self._writing = anyio.CancelScope()
            self._tasks.start_soon(self._write, self._writing)

    async def _write(self, scope: anyio.CancelScope) -> None:
        writes = self._writes
        try:
            with scope:
                while (data := writes.head()) is not None:
                    part = bytes(data[:_WRITE_SIZE])
                    await self._stream.send(part)
                    if not writes.items:
                        break  # given up meanwhile
                    if len(part) == len(data):
                        writes.pop()
                    else:
                        writes.replace_head(memoryview(data)[len(part) :])
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            self._closed = True
            writes.clear()
        finally:
            self._writing = None
