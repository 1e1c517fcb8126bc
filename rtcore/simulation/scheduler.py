"""Virtual time: what happens when, one event after another."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush

__all__ = ["Scheduler"]


class Scheduler:
    """The events that are still to come, in the order of their time, and of their making where that is the same.

    Attributes:
        now: Virtual seconds since the beginning.
        steps: How many events have happened.
    """

    __slots__ = ("_events", "_serial", "now", "steps")

    def __init__(self) -> None:
        self.now = 0.0
        self.steps = 0
        self._serial = 0
        self._events: list[tuple[float, int, Callable[[], None]]] = []

    def at(self, time: float, action: Callable[[], None]) -> None:
        """Plan `action` for `time`, or for now where that has passed. It cannot be called off: it must ask."""
        self._serial += 1
        heappush(self._events, (time if time > self.now else self.now, self._serial, action))

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Plan `action` for so many seconds from now."""
        self.at(self.now + seconds, action)

    def next_at(self) -> float | None:
        """Return the time of the next event, or ``None``."""
        return self._events[0][0] if self._events else None

    def step(self) -> None:
        """Let the next event happen, of which there must be one."""
        self.now, _, action = heappop(self._events)
        self.steps += 1
        action()
