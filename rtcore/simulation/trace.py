"""What happened in a simulation, for people to read and for machines to compare."""

from __future__ import annotations

import hashlib
from typing import Final

__all__ = ["SimulationFailure", "Trace"]

# A line for people is no longer than so many characters.
_WIDTH: Final = 400


class Trace:
    """Everything that happened, in order.

    Entries cost little when they are made, and become text when somebody asks.
    """

    __slots__ = ("_entries",)

    def __init__(self) -> None:
        self._entries: list[tuple[float, str, str, object]] = []

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, time: float, who: str, what: str, detail: object = "") -> None:
        """Note an entry.

        Args:
            time: Virtual seconds.
            who: The machine.
            what: What it did or saw.
            detail: Whatever has a `str` that does not depend on the run and never changes.
        """
        self._entries.append((time, who, what, detail))

    def lines(self, last: int | None = None) -> list[str]:
        """Return the entries, or the last so many of them, as lines."""
        entries = self._entries if last is None else self._entries[-last:]
        return [_shortened(_line(entry)) for entry in entries]

    def digest(self) -> str:
        """Return a hash of all entries in full."""
        digest = hashlib.blake2b(digest_size=16)
        for entry in self._entries:
            digest.update(_line(entry).encode("utf-8", "backslashreplace"))
            digest.update(b"\n")
        return digest.hexdigest()


class SimulationFailure(AssertionError):
    """What must always hold does not.

    Attributes:
        invariant: The name of what must hold.
        explanation: How it does not.
        seed: What to run again, or ``None`` where the choices come from elsewhere.
    """

    def __init__(self, invariant: str, explanation: str, *, seed: int | None, trace: Trace, tail: int = 60) -> None:
        self.invariant = invariant
        self.explanation = explanation
        self.seed = seed
        whose = "" if seed is None else f"seed {seed}: "
        lines = "\n".join(trace.lines(tail))
        super().__init__(f"{whose}{invariant}: {explanation}\n\nThe last of {len(trace)} lines:\n{lines}")


def _line(entry: tuple[float, str, str, object]) -> str:
    time, who, what, detail = entry
    return f"t={time:.6f} {who} {what} {detail}"


def _shortened(line: str) -> str:
    return line if len(line) <= _WIDTH else f"{line[: _WIDTH - 1]}…"
