"""Print what happens in some scenarios, as hashes: ``python -m tests.simulation.digests FIRST COUNT``."""

from __future__ import annotations

import sys
from contextlib import suppress

from rtcore.simulation import Scenario, SimulationFailure

__all__ = ["digest"]


def digest(seed: int) -> str:
    """Return the hash of the trace of a seed, up to the failure if there is one."""
    scenario = Scenario(seed)
    with suppress(SimulationFailure):
        scenario.run()
    return scenario.simulation.world.trace.digest()


if __name__ == "__main__":
    first, count = map(int, sys.argv[1:])
    for each in range(first, first + count):
        print(each, digest(each))
