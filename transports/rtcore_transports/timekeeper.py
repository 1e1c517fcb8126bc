"""The deadlines of many machines, kept by one task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import anyio

from rtcore import Deadlines

__all__ = ["Timed", "Timekeeper"]


class Timed(Protocol):
    """Something with deadlines, in monotonic seconds."""

    def __hash__(self) -> int:
        """Two are the same only if they are one object."""
        ...

    def next_timeout(self) -> float | None:
        """Return the next deadline, or ``None``."""
        ...

    def handle_timeout(self, *, now: float) -> None:
        """Do what is due."""
        ...


class Timekeeper:
    """Wakes what has a deadline.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._deadlines: Deadlines[Timed] = Deadlines()
        self._changed = anyio.Event()

    def rekey(self, timed: Timed, at: float | None) -> None:
        """Take note of the next deadline of something."""
        # A deadline that moved later is left where it is: when the earlier one comes up, it is set anew. Most move
        # later with every frame that arrives, and never come up.
        registered = self._deadlines.get(timed)
        if at is not None and (registered is None or at < registered):
            self._deadlines.set(timed, at)
            self._changed.set()

    def forget(self, timed: Timed) -> None:
        """Keep no more deadlines for something."""
        self._deadlines.set(timed, None)

    async def run(self) -> None:
        """Wake what is due, until cancelled."""
        while True:
            # A new one each time: events belong to the event loop in which they are waited for.
            self._changed = anyio.Event()
            at = self._deadlines.next_timeout()
            with anyio.move_on_after(None if at is None else max(0.0, at - self._clock())):
                await self._changed.wait()
            now = self._clock()
            for timed in self._deadlines.pop_due(now=now):
                due = timed.next_timeout()
                if due is not None and due <= now:
                    timed.handle_timeout(now=now)
                self.rekey(timed, timed.next_timeout())
