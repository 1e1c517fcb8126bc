"""A computer: its clocks, which need not be right, and its attention, which may be elsewhere."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from math import inf, nextafter
from typing import Final

from .world import World

__all__ = ["BEGINNING", "Machine"]

#: The wall clock at the beginning, in milliseconds since 1970: some day in 2030.
BEGINNING: Final = 1_900_000_000_000


class Machine(ABC):
    """What all simulated computers have in common.

    Args:
        world: Where it is.
        name: What the trace calls it; differs from all others.
        skew: What its monotonic clock shows at the beginning, in seconds.

    Attributes:
        frozen: Whether it does nothing, as a process does that was stopped or a laptop that sleeps. What is sent to it
            waits.
    """

    def __init__(self, world: World, name: str, *, skew: float = 0.0) -> None:
        self.world = world
        self.name = name
        self.frozen = False
        self._scheduler = world.scheduler
        self._skew = skew
        self._wall_skew = 0.0
        self._wake_at: float | None = None
        self._missed: list[Callable[[], None]] = []

    def __repr__(self) -> str:
        return self.name

    # Clocks

    def now(self) -> float:
        """Return the machine's monotonic time in seconds."""
        return self._scheduler.now + self._skew

    def timestamp(self) -> int:
        """Return the machine's idea of the milliseconds since 1970."""
        return BEGINNING + int((self._scheduler.now + self._wall_skew) * 1000)

    def jump(self, seconds: float) -> None:
        """Set the monotonic clock forward, as some do for the time that the machine has slept."""
        assert seconds >= 0, "a monotonic clock never goes back"
        self.note("jumps", f"{seconds:.3f} s")
        self._skew += seconds
        self._wake_at = None
        self.rekey()

    def set_wall_clock(self, seconds: float) -> None:
        """Set the wall clock so much off the truth, forward or back."""
        self.note("sets its wall clock", f"{seconds:+.3f} s")
        self._wall_skew = seconds

    # Deadlines

    @abstractmethod
    def next_timeout(self) -> float | None:
        """Return the earliest deadline of what runs here, on the machine's clock, or ``None``."""

    @abstractmethod
    def handle_timeout(self) -> None:
        """Do what is due."""

    def rekey(self) -> None:
        """Take note that deadlines may have changed."""
        due = self.next_timeout()
        if due is None:
            return
        skew = self._skew
        at = due - skew
        while at + skew < due:
            # The difference was rounded down: by this clock the deadline would not have come.
            at = nextafter(at, inf)
        # One that moved later is found out when the earlier one comes up, as by the driver of the transports.
        if self._wake_at is None or at < self._wake_at:
            self._wake_at = at
            self._scheduler.at(at, partial(self._wake, at))

    def _wake(self, at: float) -> None:
        if self._wake_at != at:
            return
        self._wake_at = None
        if self.frozen:
            self._missed.append(self._catch_up)
            return
        self._catch_up()

    def _catch_up(self) -> None:
        due = self.next_timeout()
        if due is not None and due <= self.now():
            self.handle_timeout()
        self.rekey()

    # Attention

    def attend(self, action: Callable[[], None]) -> None:
        """Run `action` now, or as soon as the machine is no longer frozen."""
        if self.frozen:
            self._missed.append(action)
        else:
            action()

    def freeze(self) -> None:
        """Do nothing from now on."""
        if not self.frozen:
            self.note("freezes")
            self.frozen = True

    def thaw(self) -> None:
        """Go on: what came meanwhile is read in the order in which it came, and deadlines are kept, late."""
        if self.frozen:
            self.note("thaws")
            self.frozen = False
            missed, self._missed = self._missed, []
            for action in missed:
                self._scheduler.after(0.0, partial(self.attend, action))

    def note(self, what: str, detail: object = "") -> None:
        """Write a line of the trace."""
        self.world.trace.add(self._scheduler.now, self.name, what, detail)
