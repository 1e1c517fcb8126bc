"""What waits to be written to one connection."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TypeAlias

import anyio
import anyio.lowlevel

__all__ = ["NextBytes", "PendingWrites"]

#: Returns the next bytes to write, or ``b""`` if there are none.
NextBytes: TypeAlias = Callable[[], bytes]


class PendingWrites:
    """Writes that wait, how many they are, and where more of them come from.

    Args:
        max_bytes: Beyond so many bytes they are `full`.
        max_messages: With so many writes, likewise.

    Attributes:
        limits: These two.
        items: What waits, but for what is still where it comes from.
        bytes: Of the items.
        source: Where more comes from once there are no items, or ``None``.
        taken: How many bytes were written so far.
    """

    def __init__(self, max_bytes: int, max_messages: int) -> None:
        self.limits = (max_bytes, max_messages)
        self.items: deque[bytes | memoryview] = deque()
        self.bytes = 0
        self.source: NextBytes | None = None
        self.taken = 0
        self._drained: anyio.Event | None = None

    @property
    def full(self) -> bool:
        """Whether so much waits that the peer is to read before more is written."""
        max_bytes, max_messages = self.limits
        return self.bytes > max_bytes or len(self.items) >= max_messages

    @property
    def waiting(self) -> bool:
        """Whether there is anything to write, or may be."""
        return bool(self.items) or self.source is not None

    def append(self, data: bytes | memoryview) -> None:
        """Add a write."""
        self.items.append(data)
        self.bytes += len(data)

    def head(self) -> bytes | memoryview | None:
        """Return what is to be written next, of the source if need be."""
        if not self.items:
            if self.source is None:
                return None
            data = self.source()
            if not data:
                self.source = None
                self._settle()
                return None
            self.append(data)
        return self.items[0]

    def pop(self) -> None:
        """Take note that the first item is written."""
        size = len(self.items.popleft())
        self.bytes -= size
        self.taken += size
        if not self.items:
            self._settle()

    def replace_head(self, data: memoryview) -> None:
        """Take note that of the first item this is left."""
        size = len(self.items[0]) - len(data)
        self.bytes -= size
        self.taken += size
        self.items[0] = data

    def clear(self) -> None:
        """Give up all writes, and the source."""
        self.items.clear()
        self.bytes = 0
        self.source = None
        self._settle()

    def _settle(self) -> None:
        if self._drained is not None:
            self._drained.set()
            self._drained = None

    async def drain(self, timeout: float | None) -> bool:
        """Wait until there are no writes, were it for a moment; returns whether that came before a standstill."""
        if not self.items:
            # Whoever only ever writes and drains lets others run all the same.
            await anyio.lowlevel.checkpoint()
            return True
        taken = -1
        while taken != self.taken:
            taken = self.taken
            with anyio.move_on_after(timeout):
                await self._settled()
                return True
        return False

    async def finish(self) -> None:
        """Wait until there are no writes and no source."""
        while self.waiting:
            await self._settled()

    async def _settled(self) -> None:
        if self._drained is None:
            self._drained = anyio.Event()
        await self._drained.wait()
