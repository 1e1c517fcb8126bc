"""The simulation notices bugs: each of those that are planted, within its budget of seeds."""

from __future__ import annotations

import pytest

from rtcore.simulation import SimulationFailure, run

from .planted_bugs import BUGS, planted

pytestmark = pytest.mark.many_seeds

BUDGET = 400


def catch(name: str) -> tuple[int, str]:
    """Return how many seeds it takes to notice a bug, and by which invariant; or fail."""
    with planted(name):
        for seed in range(BUDGET):
            try:
                run(seed)
            except SimulationFailure as failure:
                return seed + 1, failure.invariant
    raise AssertionError(f"{name} is not noticed in {BUDGET} seeds")


@pytest.mark.parametrize("name", BUGS)
def test_planted_bug_is_noticed(name: str) -> None:
    catch(name)


if __name__ == "__main__":
    # As a table, for people: python -m tests.simulation.test_planted_bugs
    for bug in BUGS:
        seeds, invariant = catch(bug)
        print(f"| {bug} | {invariant} | {seeds} |")
