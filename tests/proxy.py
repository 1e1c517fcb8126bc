"""A TCP proxy, in a thread of its own, that does to connections what networks do."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

__all__ = ["Proxy", "proxy_to"]

ResultT = TypeVar("ResultT")

# Closed so, a connection is reset: nothing that is still to be written is.
_RESET = struct.pack("ii", 1, 0)

_RETURNED = 4096


class Proxy:
    """Forwards every connection to one port of loopback. Its methods block until they have taken effect.

    Args:
        port: Where connections go; each is made anew, so the server there may be restarted.

    Attributes:
        port: Where it listens.
        accepted: How many connections there have been.
        returned: The last few kilobytes that have come back, of whatever connection.
    """

    def __init__(self, port: int) -> None:
        self.port = 0
        self.accepted = 0
        self.returned = b""
        self._target = port
        self._chunk = 65536
        self._delay = 0.0
        self._links: dict[asyncio.Task[None], tuple[asyncio.StreamWriter, ...]] = {}
        self._limits: Iterator[int] = iter(())
        self._refusing = False
        self._stalled: list[asyncio.Event] = []
        self._up, self._down = _flowing(), _flowing()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._server = self._call(self._listen)

    def cut(self, *, reset: bool = True) -> int:
        """End all connections, in the midst of whatever they carry; returns how many there were.

        Args:
            reset: Whether both sides are told so at once; otherwise the connections end as if the other side had.
        """
        return self._call(lambda: self._cut(reset))

    def stall(self, *, up: bool = True, down: bool = True) -> None:
        """Forward nothing more of the connections that there are; nobody is told. Later ones are not concerned.

        Args:
            up: Nothing of what goes to the server.
            down: Nothing of what comes from it.
        """

        async def stall() -> None:
            stalled = [self._up] * up + [self._down] * down
            for flow in stalled:
                flow.clear()
            self._stalled += stalled
            self._up, self._down = _flowing(), _flowing()

        self._call(stall)

    def resume(self) -> None:
        """Go on with what was stalled, where it was."""

        async def resume() -> None:
            while self._stalled:
                self._stalled.pop().set()

        self._call(resume)

    def cut_after(self, limits: Iterable[int]) -> None:
        """Cut each of the next connections off once it has carried so many bytes back, and not one more.

        Args:
            limits: One number for each connection; the connections after them go on.
        """

        async def limit() -> None:
            self._limits = iter(limits)

        self._call(limit)

    def refuse(self, refusing: bool = True) -> None:
        """Reset every new connection at once, or no longer."""

        async def refuse() -> None:
            self._refusing = refusing

        self._call(refuse)

    def pace(self, *, chunk: int = 65536, delay: float = 0.0) -> None:
        """Forward so many bytes at a time, with so many seconds between them."""

        async def pace() -> None:
            self._chunk, self._delay = chunk, delay

        self._call(pace)

    def close(self) -> None:
        """End everything."""
        self._call(self._end)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, function: Callable[[], Coroutine[Any, Any, ResultT]]) -> ResultT:
        return asyncio.run_coroutine_threadsafe(function(), self._loop).result(timeout=10)

    async def _listen(self) -> asyncio.Server:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _end(self) -> None:
        self._server.close()
        await self._cut(reset=True)

    async def _cut(self, reset: bool) -> int:
        links = list(self._links.items())
        for link, writers in links:
            for writer in writers:
                if reset:
                    _reset(writer)
                writer.transport.abort()
            link.cancel()
        await asyncio.gather(*(link for link, _ in links), return_exceptions=True)
        return len(links)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            _reset(writer)
            return
        self.accepted += 1
        link = asyncio.current_task()
        assert link is not None
        self._links[link] = (writer,)
        try:
            await self._forward(link, reader, writer)
        except asyncio.CancelledError:
            pass
        finally:
            for each in self._links.pop(link):
                each.transport.abort()

    async def _forward(
        self, link: asyncio.Task[None], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        up, down = self._up, self._down
        limit = next(self._limits, None)
        try:
            onward, back = await asyncio.open_connection("127.0.0.1", self._target)
            self._links[link] = (writer, back)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pump(lambda: reader.read(65536), back, up))
                tasks.create_task(self._pump(lambda: self._read_back(onward), writer, down, limit))
        except* OSError:
            # Either side is gone, or nobody listens; so both are told.
            pass

    async def _read_back(self, reader: asyncio.StreamReader) -> bytes:
        data = await reader.read(65536)
        self.returned = (self.returned + data)[-_RETURNED:]
        return data

    async def _pump(
        self,
        read: Callable[[], Awaitable[bytes]],
        writer: asyncio.StreamWriter,
        flowing: asyncio.Event,
        limit: int | None = None,
    ) -> None:
        while data := await read():
            while data:
                await flowing.wait()
                chunk, data = data[: self._chunk], data[self._chunk :]
                if limit is not None:
                    chunk = chunk[:limit]
                    limit -= len(chunk)
                writer.write(chunk)
                await writer.drain()
                if limit == 0:
                    # Not a reset: what was carried up to here is to arrive.
                    raise ConnectionAbortedError
                if self._delay or data:
                    await asyncio.sleep(self._delay)
        writer.write_eof()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Let a connection end with a reset."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()


def _flowing() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


@contextmanager
def proxy_to(port: int) -> Iterator[Proxy]:
    """Run a proxy until the end of the block."""
    proxy = Proxy(port)
    try:
        yield proxy
    finally:
        proxy.close()
