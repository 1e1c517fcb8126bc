"""A client WebSocket as a stream of messages, for any protocol on top of it."""

from __future__ import annotations

import logging
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Final

import anyio
import anyio.lowlevel

from rtcore import CloseCode, ConnectionClosed, ConnectionFailed, LocalProtocolError, RtcoreError, WebSocketConfig
from rtcore.websocket import Close, Closed, Opened, SendBytes, SendText, WebSocketState

from .background import Background
from .client_websocket import ClientWebSocket, WebSocketUrl

__all__ = ["WebSocketStream", "open_websocket"]

_log = logging.getLogger("rtcore.websocket")

# Received messages that wait for `receive` when reading pauses. One read can bring more: it is bounded in bytes.
_MAX_WAITING: Final = 64
_MAX_WAITING_BYTES: Final = 2**20


@asynccontextmanager
async def open_websocket(
    url: str,
    *,
    config: WebSocketConfig | None = None,
    headers: Iterable[tuple[bytes, bytes]] = (),
    subprotocols: Sequence[str] = (),
    ssl_context: ssl.SSLContext | None = None,
) -> AsyncIterator[WebSocketStream]:
    """Open a WebSocket; at the end of the block it is closed, within `WebSocketConfig.close_timeout`.

    Args:
        url: ``ws://`` or ``wss://``; no proxy is used, and no redirect followed.
        config: Limits and times; ``handshake_timeout`` counts for connecting and for the handshake each.
        headers: Headers for the handshake, such as ``Origin``.
        subprotocols: What to offer, most wanted first.
        ssl_context: For ``wss://``; the system's defaults if left out.

    Raises:
        HandshakeRejected: The server answered with an HTTP error, or a redirect.
        ConnectionFailed: It could not be opened for any other reason.
        LocalProtocolError: The URL, a header or a subprotocol is malformed.
    """
    stream = WebSocketStream(
        WebSocketUrl.parse(url), config or WebSocketConfig(), tuple(headers), subprotocols, ssl_context
    )
    background = Background()
    background.start(stream._run)
    try:
        await stream._wait_open()
        try:
            yield stream
        finally:
            await stream.aclose()
    finally:
        await background.stop()


class WebSocketStream:
    """An open WebSocket, as given by `open_websocket`. Any number of tasks may use it, and be cancelled at it."""

    def __init__(
        self,
        url: WebSocketUrl,
        config: WebSocketConfig,
        headers: tuple[tuple[bytes, bytes], ...],
        subprotocols: Sequence[str],
        ssl_context: ssl.SSLContext | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Not for use: take `open_websocket`."""
        self._socket = ClientWebSocket(
            url,
            _Intake(self),
            config=config,
            headers=headers,
            subprotocols=subprotocols,
            ssl_context=ssl_context,
            clock=clock,
        )
        self._opened: Opened | None = None
        self._closed: Closed | None = None
        self._failure: RtcoreError | None = None
        self._ended = anyio.Event()
        self._settled = anyio.Event()
        self._waiting: deque[str | bytes] = deque()
        self._waiting_bytes = 0
        self._arrived = anyio.Event()

    @property
    def subprotocol(self) -> str | None:
        """What both sides agreed on."""
        return None if self._opened is None else self._opened.subprotocol

    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """The headers of the server's answer, names in lower case."""
        return () if self._opened is None else self._opened.headers

    async def receive(self) -> str | bytes:
        """Return the next message.

        Raises:
            ConnectionClosed: There is none, and none will come; the code is ``None`` where the bytes just ended.
        """
        await anyio.lowlevel.checkpoint_if_cancelled()
        while not self._waiting:
            if self._ended.is_set():
                raise self._ending()
            if self._arrived.is_set():
                self._arrived = anyio.Event()
            await self._arrived.wait()
        message = self._waiting.popleft()
        self._waiting_bytes -= len(message)
        self._socket.resume()
        return message

    async def send(self, message: str | bytes) -> None:
        """Send a text or a binary message; waits while much of what was sent before waits to be written.

        Raises:
            ConnectionClosed: The WebSocket is closing or closed.
            LocalProtocolError: The text cannot be encoded. Nothing has changed.
        """
        await anyio.lowlevel.checkpoint_if_cancelled()
        await self._socket.drain()
        if self._socket.state is not WebSocketState.OPEN:
            # The code is known once the end has come.
            await self._ended.wait()
            raise self._ending()
        self._socket.send(SendText(message) if isinstance(message, str) else SendBytes(message))

    async def aclose(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Close, and wait for the peer to do so, at most `WebSocketConfig.close_timeout`; again is no fault.

        Raises:
            LocalProtocolError: The code or the reason may not be sent. Nothing has changed.
        """
        if self._socket.state is WebSocketState.OPEN:
            self._socket.send(Close(code, reason))
        await self._ended.wait()

    def _ending(self) -> ConnectionClosed:
        closed = self._closed
        if closed is None or closed.code == CloseCode.ABNORMAL_CLOSURE:
            return ConnectionClosed(None, "" if closed is None else closed.fault or "")
        return ConnectionClosed(closed.code, closed.reason)

    async def _run(self) -> None:
        try:
            self._closed = await self._socket.run()
        except (ConnectionFailed, LocalProtocolError) as error:
            self._failure = error
        except Exception:
            # A fault of ours, which nobody would hear of in the background.
            _log.exception("a WebSocket failed")
        finally:
            self._ended.set()
            self._settled.set()
            self._arrived.set()

    async def _wait_open(self) -> None:
        await self._settled.wait()
        if self._failure is not None:
            raise self._failure
        if self._opened is None:
            raise ConnectionFailed("the WebSocket could not be opened")


class _Intake:
    """The receiving end of a `WebSocketStream`."""

    __slots__ = ("_stream",)

    def __init__(self, stream: WebSocketStream) -> None:
        self._stream = stream

    def opened(self, opened: Opened) -> None:
        self._stream._opened = opened
        self._stream._settled.set()

    def received(self, message: str | bytes) -> None:
        stream = self._stream
        stream._waiting.append(message)
        stream._waiting_bytes += len(message)
        stream._arrived.set()

    def heard(self) -> None:
        pass

    @property
    def full(self) -> bool:
        return len(self._stream._waiting) >= _MAX_WAITING or self._stream._waiting_bytes >= _MAX_WAITING_BYTES
