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

    __slots__ = ("_at", "_heap", "_serial")

    def __init__(self) -> None:
        self._at: dict[KeyT, float] = {}
        self._heap: list[tuple[float, int, KeyT]] = []
        self._serial = 0

    def __len__(self) -> int:
        return len(self._at)

    def get(self, key: KeyT) -> float | None:
        """Return the deadline of `key` in seconds, or ``None``."""
        return self._at.get(key)

    def set(self, key: KeyT, at: float | None) -> None:
        """Set the deadline of `key` to `at` seconds, or take it away with ``None``."""
        if at is None:
            self._at.pop(key, None)
        elif self._at.get(key) != at:
            self._at[key] = at
            self._serial += 1
            heappush(self._heap, (at, self._serial, key))
        if len(self._heap) > 2 * len(self._at) + 64:
            self._heap = [entry for entry in self._heap if self._at.get(entry[2]) == entry[0]]
            heapify(self._heap)

    def next_timeout(self) -> float | None:
        """Return the earliest deadline in seconds, or ``None``."""
        heap = self._heap
        while heap and self._at.get(heap[0][2]) != heap[0][0]:
            heappop(heap)
        return heap[0][0] if heap else None

    def pop_due(self, *, now: float) -> list[KeyT]:
        """Remove and return the keys whose deadline is at or before `now`, earliest first."""
        due: list[KeyT] = []
        while (at := self.next_timeout()) is not None and at <= now:
            key = heappop(self._heap)[2]
            del self._at[key]
            due.append(key)
        return due
