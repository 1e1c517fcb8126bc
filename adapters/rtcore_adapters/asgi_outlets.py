"""Where messages go on ASGI hosts, which take them one by one, and frame them themselves.

A host lets about 4 MB pile up for a client that does not read before its ``send`` blocks, and may never let go of
it then. So each connection has a bounded queue of its own and one task that writes from it; nobody else ever awaits
the host.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, TypeAlias

import anyio
from starlette.websockets import WebSocketDisconnect

from rtcore import Encoded, disconnect_message, encode
from rtcore_transports import Batch, Driver

__all__ = ["CLIENT_GONE", "EventStreamOutlet", "QueueOutlet", "Send", "WebSocketOutlet"]

#: What an ASGI host gives an application to send with.
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]

#: Each host and framework has its own way to say that the client is gone.
CLIENT_GONE: Final = (
    OSError,
    RuntimeError,
    WebSocketDisconnect,
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
)

# How long a client that is being ended may take to read what is said last.
_LAST_WORDS_TIMEOUT: Final = 5.0


class QueueOutlet(ABC):
    """A bounded queue in front of a host; subclasses know how the host wants it.

    Args:
        send: The host's.
        driver: Whose node the connection belongs to.
        connection_id: The id that the node knows it by.
        max_bytes: How large the queue may have grown when one more message still enters it.
        max_messages: Likewise, in messages.
    """

    def __init__(self, send: Send, driver: Driver, connection_id: str, *, max_bytes: int, max_messages: int) -> None:
        self.connection_id = connection_id
        self._send = send
        self._driver = driver
        self._max_bytes = max_bytes
        self._max_messages = max_messages
        self._queue: deque[Encoded] = deque()
        self._bytes = 0
        self._deaf = False
        self._closing: tuple[int, str] | None = None
        self._wake = anyio.Event()
        self._scope = anyio.CancelScope()

    def deliver(self, batch: Batch) -> None:
        """See `rtcore_transports.fanout.Outlet`."""
        if self._deaf or self._closing is not None:
            return
        if self._bytes > self._max_bytes or len(self._queue) >= self._max_messages:
            self._deaf = True
            self._driver.slow(self.connection_id, self)
            return
        for message in batch.messages:
            self._queue.append(message)
            self._bytes += len(message.json)
        self._wake.set()

    def close(self, code: int, reason: str) -> None:
        """See `rtcore_transports.fanout.Outlet`."""
        if self._deaf:
            # It will not read what it was to hear; it may read why it will not.
            self._queue.clear()
            self._queue.append(encode(disconnect_message(code, reason)))
        self._closing = (code, reason)
        self._scope.deadline = anyio.current_time() + _LAST_WORDS_TIMEOUT
        self._wake.set()

    def abandon(self) -> None:
        """Write nothing more: the connection is gone."""
        self._scope.cancel()

    async def write(self) -> None:
        """Write what is queued until the connection is closed, abandoned or gone."""
        with self._scope:
            try:
                while True:
                    while self._queue:
                        messages = list(self._queue)
                        self._queue.clear()
                        self._bytes = 0
                        await self._write(messages)
                    if self._closing is not None:
                        await self._end(*self._closing)
                        return
                    self._wake = anyio.Event()
                    await self._wake.wait()
            except CLIENT_GONE:
                self._driver.detach(self.connection_id, self)

    @abstractmethod
    async def _write(self, messages: list[Encoded]) -> None:
        """Hand messages to the host."""

    @abstractmethod
    async def _end(self, code: int, reason: str) -> None:
        """Have the host end the connection."""


class WebSocketOutlet(QueueOutlet):
    """Messages as ``websocket.send`` of text."""

    async def _write(self, messages: list[Encoded]) -> None:
        for message in messages:
            await self._send({"type": "websocket.send", "text": message.text})

    async def _end(self, code: int, reason: str) -> None:
        await self._send({"type": "websocket.close", "code": code, "reason": reason})


class EventStreamOutlet(QueueOutlet):
    """Messages as ``http.response.body`` with events."""

    async def _write(self, messages: list[Encoded]) -> None:
        body = b"".join([message.event_stream for message in messages])
        await self._send({"type": "http.response.body", "body": body, "more_body": True})

    async def _end(self, code: int, reason: str) -> None:
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})
