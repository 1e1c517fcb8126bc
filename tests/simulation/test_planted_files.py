"""The simulation notices bugs in what the machines make of files: each that is planted, within its budget of seeds."""

from __future__ import annotations

import pytest

from rtcore.simulation import SimulationFailure, run

from .planted_files import FILE_BUGS
from .test_planted_bugs import BUDGET

pytestmark = pytest.mark.many_seeds


def catch(name: str) -> tuple[int, str]:
    """Return how many seeds it takes to notice a bug, and by which invariant; or fail."""
    with pytest.MonkeyPatch.context() as patch:
        FILE_BUGS[name](patch)
        for seed in range(BUDGET):
            # In the others there are none.
            if seed % 8 in (1, 5, 7):
                try:
                    run(seed)
                except SimulationFailure as failure:
                    return seed + 1, failure.invariant
    raise AssertionError(f"{name} is not noticed in {BUDGET} seeds")


@pytest.mark.parametrize("name", FILE_BUGS)
def test_planted_bug_is_noticed(name: str) -> None:
    catch(name)


if __name__ == "__main__":
    # As a table, for people: python -m tests.simulation.test_planted_files
    for bug in FILE_BUGS:
        try:
            seeds, invariant = catch(bug)
        except Exception as error:
            seeds, invariant = 0, f"{type(error).__name__}: {error}"
        print(f"| {bug} | {invariant} | {seeds} |", flush=True)
