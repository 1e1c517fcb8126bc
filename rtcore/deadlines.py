"""A heap of deadlines, one for each key, for a driver of many machines."""

from __future__ import annotations

from collections.abc import Hashable
from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

__all__ = ["Deadlines"]

KeyT = TypeVar("KeyT", bound=Hashable)


class Deadlines(Generic[KeyT]):
    """The next deadline of each key, and the earliest of all.

    A machine's deadline mostly moves later (every frame that arrives moves the next ping), so an entry that
    was overtaken stays in the heap until it comes up or until the stale ones outnumber the live ones.
    Keys with the same deadline come due in the order in which they were set.
    """

    __slots__ = ("_entries", "_heap", "_serial")

    def __init__(self) -> None:
        # An entry of the heap is live if it is the very one that its key has here. Comparing times is not enough: a
        # deadline that was moved back to where it had been would make the overtaken entry live again.
        self._entries: dict[KeyT, tuple[float, int, KeyT]] = {}
        self._heap: list[tuple[float, int, KeyT]] = []
        self._serial = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: KeyT) -> float | None:
        """Return the deadline of `key` in seconds, or ``None``."""
        entry = self._entries.get(key)
        return None if entry is None else entry[0]

    def set(self, key: KeyT, at: float | None) -> None:
        """Set the deadline of `key` to `at` seconds, or take it away with ``None``."""
        if at is None:
            self._entries.pop(key, None)
        elif self.get(key) != at:
            self._serial += 1
            entry = self._entries[key] = (at, self._serial, key)
            heappush(self._heap, entry)
        if len(self._heap) > 2 * len(self._entries) + 64:
            self._heap = list(self._entries.values())
            heapify(self._heap)

    def next_timeout(self) -> float | None:
        """Return the earliest deadline in seconds, or ``None``."""
        heap = self._heap
        while heap and self._entries.get(heap[0][2]) is not heap[0]:
            heappop(heap)
        return heap[0][0] if heap else None

    def pop_due(self, *, now: float) -> list[KeyT]:
        """Remove and return the keys whose deadline is at or before `now`, earliest first."""
        due: list[KeyT] = []
        while (at := self.next_timeout()) is not None and at <= now:
            key = heappop(self._heap)[2]
            del self._entries[key]
            due.append(key)
        return due
