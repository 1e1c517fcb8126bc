"""What everything in one simulation shares: time, chance, the trace, and who watches."""

from __future__ import annotations

from .choices import Choices
from .scheduler import Scheduler
from .trace import SimulationFailure, Trace

__all__ = ["World"]


class World:
    """Time, chance and the trace of one simulation.

    Args:
        choices: What chance decides.
        seed: Named by failures; ``None`` where the choices come from elsewhere.

    Attributes:
        faulty: Whether the network and the machines may fail; at the end of a simulation they no longer do.
    """

    def __init__(self, choices: Choices, *, seed: int | None = None) -> None:
        self.choices = choices
        self.seed = seed
        self.scheduler = Scheduler()
        self.trace = Trace()
        self.faulty = True

    def fail(self, invariant: str, explanation: str) -> SimulationFailure:
        """Return what to raise where an invariant does not hold."""
        self.trace.add(self.scheduler.now, "***", invariant, explanation)
        return SimulationFailure(invariant, explanation, seed=self.seed, trace=self.trace)
