"""What an invariant is."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rtcore.simulation.observer import Observer
from rtcore.simulation.trace import SimulationFailure

if TYPE_CHECKING:
    from rtcore.simulation.simulation import Simulation

__all__ = ["Invariant"]


class Invariant(Observer):
    """Something that must always hold; made anew for each simulation, which it is told of by `begin`.

    It watches what happens by the methods of `rtcore.simulation.Observer`, and says that it does not hold by raising
    what `broken` returns.

    Attributes:
        name: What failures call it.
    """

    name: ClassVar[str] = ""

    simulation: Simulation

    def begin(self, simulation: Simulation) -> None:
        """Take note of what is watched."""
        self.simulation = simulation

    def check(self) -> None:
        """Is called after every step."""

    def at_rest(self) -> None:
        """Is called once faults have ended, everybody is connected, and nothing is under way any more."""

    def emptied(self) -> None:
        """Is called at the very end, when everybody has left and everything that is kept for a time has been let go."""

    def broken(self, explanation: str) -> SimulationFailure:
        """Return what to raise."""
        return self.simulation.world.fail(self.name, explanation)
