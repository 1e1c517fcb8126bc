"""What carries the bytes of one connection: a non-blocking socket, or a stream where no raw socket is to be had.

Writing never blocks and never waits for the peer: what the peer does not take at once waits in a bounded backlog,
which a task of its own drains. A connection that nobody holds up has no such task and no backlog.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import anyio
import anyio.lowlevel
from anyio.abc import ByteStream, TaskGroup

__all__ = ["READ_SIZE", "Carrier", "SocketCarrier", "StreamCarrier"]

#: The most bytes taken in by one read, which bounds the work of one step.
READ_SIZE = 65536

# How long, and over how many bytes, a connection that we end lingers for the peer to read what we wrote last.
_LINGER_TIMEOUT = 2.0
_LINGER_READS = 64


class Carrier(Protocol):
    """The bytes of one connection."""

    @property
    def full(self) -> bool:
        """Whether the backlog has reached its limits: the peer is to read before it is listened to any more."""
        ...

    @property
    def gone(self) -> bool:
        """Whether what is written goes nowhere, because either side has ended the connection."""
        ...

    async def receive(self) -> bytes:
        """Return what has arrived, at most `READ_SIZE` bytes; ``b""`` once nothing more will."""
        ...

    def write(self, data: bytes, messages: int = 1) -> None:
        """Write `data`, or keep it until the peer takes it; dropped if the connection is gone.

        Args:
            data: Kept as it is, so that all receivers share it.
            messages: How many messages it counts for in the backlog.
        """
        ...

    async def drain(self) -> None:
        """Wait until everything written is out of the backlog, or the connection is gone."""
        ...

    def on_overflow(self, callback: Callable[[], None] | None) -> None:
        """Have `callback` called, once, when a write finds the backlog full.

        That write is dropped, and until `discard` so are all others that would have to wait.
        """
        ...

    def discard(self) -> None:
        """Forget what is in the backlog, but for the write that is partly through."""
        ...

    def finish(self) -> None:
        """Begin to end the connection as `aclose` does; the reader is told by an end of what it receives."""
        ...

    async def aclose(self) -> None:
        """End the connection: write out the backlog, half-close, let the peer read it; all within limits of time."""
        ...

    def abort(self) -> None:
        """End the connection at once."""
        ...


class _Backlog:
    """Writes that wait, and how much they are."""

    def __init__(self, max_bytes: int, max_messages: int) -> None:
        self._max_bytes = max_bytes
        self._max_messages = max_messages
        self.items: deque[tuple[bytes | memoryview, int]] = deque()
        self.bytes = 0
        self.messages = 0
        self.drained: anyio.Event | None = None
        self.on_overflow: Callable[[], None] | None = None
        self._overflowed = False

    @property
    def full(self) -> bool:
        return self.bytes > self._max_bytes or self.messages >= self._max_messages

    def append(self, data: bytes | memoryview, messages: int) -> None:
        if self._overflowed:
            return
        if self.on_overflow is not None and self.full:
            # Told once: what is written after a discard is the farewell.
            self._overflowed = True
            on_overflow, self.on_overflow = self.on_overflow, None
            on_overflow()
            return
        self.items.append((data, messages))
        self.bytes += len(data)
        self.messages += messages

    def pop(self) -> None:
        data, messages = self.items.popleft()
        self.bytes -= len(data)
        self.messages -= messages
        if not self.items:
            self.settle()

    def replace_head(self, data: memoryview) -> None:
        whole, messages = self.items[0]
        self.bytes -= len(whole) - len(data)
        self.items[0] = (data, messages)

    def keep(self, count: int) -> None:
        """Forget all but the first `count` writes, and take writes again."""
        self._overflowed = False
        while len(self.items) > count:
            data, messages = self.items.pop()
            self.bytes -= len(data)
            self.messages -= messages
        if not self.items:
            self.settle()

    def settle(self) -> None:
        if self.drained is not None:
            self.drained.set()
            self.drained = None

    async def wait(self) -> None:
        if not self.items:
            # Whoever only ever writes and drains lets others run all the same.
            await anyio.lowlevel.checkpoint()
            return
        if self.drained is None:
            self.drained = anyio.Event()
        await self.drained.wait()


class SocketCarrier:
    """A non-blocking TCP socket, read and written on readiness.

    Args:
        sock: Connected and non-blocking; this object owns it from now on.
        tasks: Where the task that drains the backlog runs.
        max_bytes: How large the backlog may have grown when one more write still enters it.
        max_messages: Likewise, in messages.
    """

    __slots__ = (
        "_aborted",
        "_backlog",
        "_clear",
        "_closed",
        "_failed",
        "_head_started",
        "_recv",
        "_send",
        "_socket",
        "_tasks",
    )

    def __init__(
        self, sock: socket.socket, *, tasks: TaskGroup, max_bytes: int = 2**22, max_messages: int = 1000
    ) -> None:
        # Nothing waits to be written, and nobody is writing it: what comes goes straight to the socket. This one flag
        # and the bound method are all that most writes look at; each further object would be a cache line or two.
        self._clear = True
        self._send = sock.send
        self._recv = sock.recv
        self._socket = sock
        self._tasks = tasks
        self._backlog = _Backlog(max_bytes, max_messages)
        self._head_started = False
        self._closed = False
        self._failed = False
        self._aborted = anyio.Event()

    @property
    def full(self) -> bool:
        """See `Carrier.full`."""
        return self._backlog.full

    @property
    def gone(self) -> bool:
        """See `Carrier.gone`."""
        return self._closed or self._failed

    def on_overflow(self, callback: Callable[[], None] | None) -> None:
        """See `Carrier.on_overflow`."""
        self._backlog.on_overflow = callback

    async def receive(self) -> bytes:
        """See `Carrier.receive`."""
        while not self._closed:
            try:
                await anyio.wait_readable(self._socket)
                return self._recv(READ_SIZE)
            except BlockingIOError:
                continue
            except (OSError, ValueError, anyio.ClosedResourceError):
                # A reset, or closed by us meanwhile: for the reader it is the end all the same.
                break
        return b""

    def write(self, data: bytes, messages: int = 1) -> None:
        """See `Carrier.write`."""
        if not self._clear:
            self._keep(data, messages)
            return
        try:
            sent = self._send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._fail()
            return
        if sent != len(data):
            self._head_started = sent > 0
            self._keep(memoryview(data)[sent:] if sent else data, messages)

    async def drain(self) -> None:
        """See `Carrier.drain`."""
        await self._backlog.wait()

    def discard(self) -> None:
        """See `Carrier.discard`."""
        self._backlog.keep(1 if self._head_started else 0)

    def finish(self) -> None:
        """See `Carrier.finish`."""
        self._tasks.start_soon(self._finish)

    async def aclose(self) -> None:
        """See `Carrier.aclose`."""
        try:
            with anyio.move_on_after(_LINGER_TIMEOUT), suppress(OSError):
                await self.drain()
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
        self._head_started = False
        self._backlog.keep(0)
        anyio.notify_closing(self._socket)
        self._socket.close()

    async def _finish(self) -> None:
        # Unlike `aclose` this does not read: another task does, and sees the peer's end when it comes.
        with anyio.move_on_after(_LINGER_TIMEOUT):
            await self.drain()
            if not self._closed:
                with suppress(OSError):
                    self._socket.shutdown(socket.SHUT_WR)
            await self._aborted.wait()
        self.abort()

    def _keep(self, data: bytes | memoryview, messages: int) -> None:
        if self.gone:
            return
        self._backlog.append(data, messages)
        if self._clear:
            self._clear = False
            self._tasks.start_soon(self._write_backlog)

    async def _write_backlog(self) -> None:
        backlog = self._backlog
        while backlog.items and not self.gone:
            try:
                await anyio.wait_writable(self._socket)
                while backlog.items:
                    data = backlog.items[0][0]
                    sent = self._send(data)
                    if sent == len(data):
                        self._head_started = False
                        backlog.pop()
                    else:
                        self._head_started = True
                        backlog.replace_head(memoryview(data)[sent:])
            except BlockingIOError:
                continue
            except (OSError, ValueError, anyio.ClosedResourceError):
                self._fail()
        self._clear = not self.gone

    def _fail(self) -> None:
        # The reader is told by its own next read, and ends the connection; writes until then go nowhere.
        self._failed = True
        self._clear = False
        self._head_started = False
        self._backlog.keep(0)
        if not self._closed:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)


class StreamCarrier:
    """A byte stream, TLS for one, with a task that writes what is in the backlog.

    Args:
        stream: Connected; this object owns it from now on.
        tasks: Where that task runs.
        max_bytes: How large the backlog may have grown when one more write still enters it.
        max_messages: Likewise, in messages.
    """

    __slots__ = ("_backlog", "_closed", "_reading", "_stream", "_tasks", "_writing")

    def __init__(
        self, stream: ByteStream, *, tasks: TaskGroup, max_bytes: int = 2**22, max_messages: int = 1000
    ) -> None:
        self._stream = stream
        self._tasks = tasks
        self._backlog = _Backlog(max_bytes, max_messages)
        self._reading: anyio.CancelScope | None = None
        self._writing: anyio.CancelScope | None = None
        self._closed = False

    @property
    def full(self) -> bool:
        """See `Carrier.full`."""
        return self._backlog.full

    @property
    def gone(self) -> bool:
        """See `Carrier.gone`."""
        return self._closed

    def on_overflow(self, callback: Callable[[], None] | None) -> None:
        """See `Carrier.on_overflow`."""
        self._backlog.on_overflow = callback

    async def receive(self) -> bytes:
        """See `Carrier.receive`."""
        if self._closed:
            return b""
        try:
            with anyio.CancelScope() as self._reading:
                return await self._stream.receive(READ_SIZE)
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass
        finally:
            self._reading = None
        return b""

    def write(self, data: bytes, messages: int = 1) -> None:
        """See `Carrier.write`."""
        if self._closed:
            return
        self._backlog.append(data, messages)
        if self._writing is None and self._backlog.items:
            self._writing = anyio.CancelScope()
            self._tasks.start_soon(self._write_backlog, self._writing)

    async def drain(self) -> None:
        """See `Carrier.drain`."""
        await self._backlog.wait()

    def discard(self) -> None:
        """See `Carrier.discard`."""
        self._backlog.keep(1 if self._writing is not None else 0)

    def finish(self) -> None:
        """See `Carrier.finish`."""
        self._tasks.start_soon(self.aclose)

    async def aclose(self) -> None:
        """See `Carrier.aclose`."""
        try:
            with anyio.move_on_after(_LINGER_TIMEOUT):
                await self.drain()
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
        self._backlog.keep(0)
        for scope in (self._reading, self._writing):
            if scope is not None:
                scope.cancel()

    async def _write_backlog(self, scope: anyio.CancelScope) -> None:
        try:
            with scope:
                while self._backlog.items:
                    await self._stream.send(bytes(self._backlog.items[0][0]))
                    if self._backlog.items:
                        self._backlog.pop()
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            self._closed = True
            self._backlog.keep(0)
        finally:
            self._writing = None
