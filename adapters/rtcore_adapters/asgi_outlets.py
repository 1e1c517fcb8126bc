"""Where messages go on ASGI hosts, which take them one by one, and frame them themselves.

A host lets about 4 MB pile up for a client that does not read before its ``send`` blocks, and may never let go of
it then. So each connection has one task that writes to the host, and what comes meanwhile waits in a bounded backlog;
nobody else ever awaits the host.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, Final, TypeAlias

import anyio
from starlette.websockets import WebSocketDisconnect

from rtcore import Encoded, disconnect_message, encode
from rtcore.backlog import Backlog
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
# So many bytes of a backlog are handed to the host in one go: what the host has is dropped no more.
_CHUNK: Final = 2**14


class QueueOutlet(ABC):
    """A bounded backlog in front of a host; subclasses know how the host wants it.

    What comes while nothing waits goes to the host whole, however much it is: a replay of a long history is nothing
    that a client could have read faster.

    Args:
        send: The host's.
        driver: Whose node the connection belongs to.
        connection_id: The id that the node knows it by.
        max_bytes: How large the backlog may have grown when one more message still enters it.
        max_messages: Likewise, in messages.
    """

    def __init__(self, send: Send, driver: Driver, connection_id: str, *, max_bytes: int, max_messages: int) -> None:
        self.connection_id = connection_id
        self._send = send
        self._driver = driver
        self._limits = (max_bytes, max_messages)
        self._backlog: Backlog | None = None
        # What is to be written before the backlog, and whether there is neither that nor anything being written.
        self._next: Sequence[Encoded] = ()
        self._idle = True
        self._deaf = False
        self._closing: tuple[int, str] | None = None
        self._wake = anyio.Event()
        self._scope = anyio.CancelScope()

    def deliver(self, batch: Batch) -> None:
        """See `rtcore_transports.fanout.Outlet`."""
        if self._deaf or self._closing is not None:
            return
        if self._idle:
            self._idle = False
            self._next = batch.messages
            self._wake.set()
            return
        if self._backlog is None:
            max_bytes, max_messages = self._limits
            self._backlog = self._driver.backlogs.open(max_bytes=max_bytes, max_messages=max_messages)
        if not self._backlog.push(batch.messages):
            self._deaf = True
            self._driver.slow(self.connection_id, self)

    def close(self, code: int, reason: str) -> None:
        """See `rtcore_transports.fanout.Outlet`."""
        if self._deaf:
            # It will not read what it was to hear; it may read why it will not.
            self._forget()
            self._next = [encode(disconnect_message(code, reason))]
        self._closing = (code, reason)
        self._scope.deadline = anyio.current_time() + _LAST_WORDS_TIMEOUT
        self._wake.set()

    def abandon(self) -> None:
        """Write nothing more, and take nothing more: the connection is gone."""
        self._scope.cancel()
        self._idle = False
        self._deaf = True
        self._forget()

    async def write(self) -> None:
        """Write what is delivered until the connection is closed, abandoned or gone."""
        try:
            with self._scope:
                while True:
                    while messages := self._take():
                        await self._write(messages)
                    if self._closing is not None:
                        await self._end(*self._closing)
                        return
                    self._idle = True
                    self._wake = anyio.Event()
                    await self._wake.wait()
        except CLIENT_GONE:
            self._driver.detach(self.connection_id, self)
        finally:
            self.abandon()

    def _take(self) -> Sequence[Encoded]:
        messages, self._next = self._next, ()
        if not messages and self._backlog is not None:
            messages = self._backlog.pop(_CHUNK)
            if not messages:
                self._forget()
        return messages

    def _forget(self) -> None:
        if self._backlog is not None:
            self._driver.backlogs.close(self._backlog)
            self._backlog = None

    @abstractmethod
    async def _write(self, messages: Sequence[Encoded]) -> None:
        """Hand messages to the host."""

    @abstractmethod
    async def _end(self, code: int, reason: str) -> None:
        """Have the host end the connection."""


class WebSocketOutlet(QueueOutlet):
    """Messages as ``websocket.send``: of text, or of bytes for a file.

    Args:
        send: See `QueueOutlet`.
        driver: See `QueueOutlet`.
        connection_id: See `QueueOutlet`.
        max_bytes: See `QueueOutlet`.
        max_messages: See `QueueOutlet`.
        json_only: Whether a file is text too, as base64.
    """

    def __init__(
        self,
        send: Send,
        driver: Driver,
        connection_id: str,
        *,
        max_bytes: int,
        max_messages: int,
        json_only: bool = False,
    ) -> None:
        super().__init__(send, driver, connection_id, max_bytes=max_bytes, max_messages=max_messages)
        self._json_only = json_only

    async def _write(self, messages: Sequence[Encoded]) -> None:
        for message in messages:
            if message.data is None or self._json_only:
                await self._send({"type": "websocket.send", "text": message.text})
            else:
                await self._send({"type": "websocket.send", "bytes": message.payload})

    async def _end(self, code: int, reason: str) -> None:
        await self._send({"type": "websocket.close", "code": code, "reason": reason})


class EventStreamOutlet(QueueOutlet):
    """Messages as ``http.response.body`` with events."""

    async def _write(self, messages: Sequence[Encoded]) -> None:
        body = b"".join([message.event_stream for message in messages])
        await self._send({"type": "http.response.body", "body": body, "more_body": True})

    async def _end(self, code: int, reason: str) -> None:
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})
