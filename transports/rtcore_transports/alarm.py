"""Wakes for the deadline of one machine, however often that moves."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import anyio

__all__ = ["Alarm"]


class Alarm:
    """The deadline of one machine, for a task that sleeps until it comes.

    Args:
        next_timeout: Returns the deadline in seconds of `clock`, or ``None``.
        handle_timeout: Does what is due, after which the deadline lies ahead.
        clock: Monotonic seconds.
    """

    __slots__ = ("_clock", "_handle_timeout", "_next_timeout", "_wake", "_wakes_at")

    def __init__(
        self,
        next_timeout: Callable[[], float | None],
        handle_timeout: Callable[[], None],
        *,
        clock: Callable[[], float],
    ) -> None:
        self._next_timeout = next_timeout
        self._handle_timeout = handle_timeout
        self._clock = clock
        self._wake = anyio.Event()
        self._wakes_at = -inf

    def changed(self) -> None:
        """Take note that the deadline may have moved."""
        # One that moved later is left alone, for most move later with every message: waking once too early costs less.
        at = self._next_timeout()
        if at is not None and at < self._wakes_at:
            self._wakes_at = -inf
            self._wake.set()

    async def run(self) -> None:
        """Keep the deadline until cancelled."""
        while True:
            at = self._next_timeout()
            wait = None if at is None else at - self._clock()
            if wait is not None and wait <= 0:
                self._handle_timeout()
                continue
            self._wake = anyio.Event()
            self._wakes_at = inf if at is None else at
            with anyio.move_on_after(wait):
                await self._wake.wait()
            self._wakes_at = -inf
