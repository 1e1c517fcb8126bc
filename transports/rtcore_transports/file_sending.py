"""A part of a file on its way into a socket, straight from where the system has it."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Final

import anyio

from .event_loops import runs_on_asyncio

__all__ = ["FileSending"]

# So much is asked for at once: more than a socket takes, so that each time it is writable one call fills it.
_PART: Final = 2**22


class FileSending:
    """A part of a file that is being sent.

    What is done each time that the socket is writable decides how fast it goes, so each event loop is asked in its own
    words. asyncio calls what sends: to wake a task, and to register the socket anew for it, would take a third of all
    the processor time of a download.

    Args:
        sock: Connected and non-blocking. Nobody else writes to it meanwhile.
        descriptor: The file's.
        offset: Where the part begins.
        size: Its bytes.

    Attributes:
        offset: Up to where it has been sent.
    """

    __slots__ = ("_descriptor", "_done", "_end", "_socket", "offset")

    def __init__(self, sock: socket.socket, descriptor: int, offset: int, size: int) -> None:
        self.offset = offset
        self._socket = sock
        self._descriptor = descriptor
        self._end = offset + size
        self._done: asyncio.Future[None] | None = None

    async def run(self) -> None:
        """Send until the end of the part, or of the file. If this is cancelled, the next call goes on from there.

        Raises:
            OSError: The file cannot be read, or the socket not be written to.
            anyio.ClosedResourceError: The socket is being closed.
        """
        if self._send():
            return
        if runs_on_asyncio():
            await self._run_on_asyncio()
        else:
            await self._run_on_trio()

    def stop(self) -> None:
        """Have `run` end on asyncio, before the socket is closed; on trio, `anyio.notify_closing` does."""
        done, self._done = self._done, None
        if done is not None:
            done.get_loop().remove_writer(self._socket)
            if not done.done():
                done.set_exception(anyio.ClosedResourceError())

    async def _run_on_asyncio(self) -> None:
        loop = asyncio.get_running_loop()
        done = self._done = loop.create_future()

        def send() -> None:
            if done.done():
                # Of which the task has yet to hear.
                return
            try:
                if self._send():
                    done.set_result(None)
            except OSError as error:
                done.set_exception(error)

        loop.add_writer(self._socket, send)
        try:
            await done
        finally:
            if self._done is not None:
                loop.remove_writer(self._socket)
                self._done = None

    async def _run_on_trio(self) -> None:
        import trio

        try:
            while True:
                await trio.lowlevel.wait_writable(self._socket)
                if self._send():
                    break
        except trio.ClosedResourceError:
            raise anyio.ClosedResourceError from None

    def _send(self) -> bool:
        """Send what the socket takes now; returns whether that was the last of it."""
        size = min(_PART, self._end - self.offset)
        try:
            sent = os.sendfile(self._socket.fileno(), self._descriptor, self.offset, size)
        except BlockingIOError:
            return False
        self.offset += sent
        return not sent or self.offset == self._end
