"""A data channel whose messages wait for whoever takes them, and whose sender waits for the network."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Final

from aiortc import RTCDataChannel

from rtcore import ConnectionClosed, LocalProtocolError

__all__ = ["DataChannel"]

_log = logging.getLogger("rtcore.webrtc")

# Sending pauses above the one and goes on below the other: enough to keep a fast connection busy, and no more.
_HIGH_WATER: Final = 1_048_576
_LOW_WATER: Final = 262_144
# SCTP in aiortc takes whatever comes, so somebody has to say when it is too much.
_MAX_UNREAD: Final = 67_108_864


class DataChannel:
    """A data channel of one connection; ends with it, and ``async for message in channel`` with the channel.

    Messages are texts and bytes. Those that nobody has taken yet wait; if they are too many, the channel is closed, and
    they are dropped.

    Args:
        channel: The channel.

    Attributes:
        max_unread: How many bytes, or characters, may wait.
    """

    def __init__(self, channel: RTCDataChannel) -> None:
        self.max_unread = _MAX_UNREAD
        self._channel = channel
        self._unread: deque[str | bytes] = deque()
        self._unread_size = 0
        self._failure: ConnectionClosed | None = None
        self._closed = channel.readyState == "closed"
        self._changed = asyncio.Event()
        channel.bufferedAmountLowThreshold = _LOW_WATER
        channel.on("open", self._wake)
        channel.on("bufferedamountlow", self._wake)
        channel.on("message", self._receive)
        channel.on("close", self.end)

    @property
    def label(self) -> str:
        """The name that whoever opened it has given it."""
        return self._channel.label

    @property
    def protocol(self) -> str:
        """What is spoken on it, by the word of whoever opened it; may be empty."""
        return self._channel.protocol

    @property
    def closed(self) -> bool:
        """Whether nothing more can be sent, nor will come."""
        return self._closed

    @property
    def buffered(self) -> int:
        """How many bytes wait to be sent."""
        return 0 if self._closed else self._channel.bufferedAmount

    async def opened(self) -> bool:
        """Wait until it is open; returns false if it was closed before."""
        while self._channel.readyState == "connecting" and not self._closed:
            await self._change()
        return self._channel.readyState == "open" and not self._closed

    async def send(self, data: str | bytes) -> None:
        """Send a message, when it is open and not too much waits to be sent.

        Args:
            data: At most what the other side takes, which is 64 KiB for aiortc and 256 KiB for Chromium.

        Raises:
            ConnectionClosed: It is closed; what was sent before may have arrived or not.
            LocalProtocolError: It is too long for the other side. Nothing was sent.
        """
        while not self._closed and (
            self._channel.readyState == "connecting" or self._channel.bufferedAmount > _HIGH_WATER
        ):
            await self._change()
        if self._closed or self._channel.readyState != "open":
            raise ConnectionClosed(None, "the data channel is closed")
        try:
            self._channel.send(data)
        except ValueError as error:
            raise LocalProtocolError(str(error)) from error

    def close(self) -> None:
        """Close it, when what waits to be sent has been sent; what has come can still be taken."""
        if not self._closed:
            self._channel.close()

    def end(self) -> None:
        """Take note that it is closed, or that its connection is."""
        self._closed = True
        self._wake()

    def __aiter__(self) -> DataChannel:
        return self

    async def __anext__(self) -> str | bytes:
        """Return the next message.

        Raises:
            ConnectionClosed: It was closed because too much waited.
        """
        while not self._unread:
            if self._failure is not None:
                raise self._failure
            if self._closed:
                raise StopAsyncIteration
            await self._change()
        data = self._unread.popleft()
        self._unread_size -= len(data)
        return data

    def _receive(self, data: str | bytes) -> None:
        if self._closed:
            return
        self._unread.append(data)
        self._unread_size += len(data)
        if self._unread_size > self.max_unread:
            _log.warning("the data channel %r is closed: nobody takes what comes", self.label)
            self._unread.clear()
            self._failure = ConnectionClosed(None, "too much came that nobody took")
            self._channel.close()
            self.end()
        self._wake()

    def _wake(self) -> None:
        self._changed.set()

    async def _change(self) -> None:
        """Wait until something is different."""
        if self._changed.is_set():
            self._changed = asyncio.Event()
        await self._changed.wait()
