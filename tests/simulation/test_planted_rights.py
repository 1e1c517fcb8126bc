"""The simulation notices bugs in what the machines make of rights: each that is planted, within its budget of seeds."""

from __future__ import annotations

import pytest

from rtcore.simulation import SimulationFailure, run

from .planted_rights import RIGHTS_BUGS
from .test_planted_bugs import BUDGET

pytestmark = pytest.mark.many_seeds


def catch(name: str) -> tuple[int, str]:
    """Return how many seeds it takes to notice a bug, and by which invariant; or fail."""
    with pytest.MonkeyPatch.context() as patch:
        RIGHTS_BUGS[name](patch)
        # In the others nobody has any.
        for seed in range(3, BUDGET, 4):
            try:
                run(seed, files=False)
            except SimulationFailure as failure:
                return seed + 1, failure.invariant
    raise AssertionError(f"{name} is not noticed in {BUDGET} seeds")


@pytest.mark.parametrize("name", RIGHTS_BUGS)
def test_planted_bug_is_noticed(name: str) -> None:
    catch(name)


if __name__ == "__main__":
    # As a table, for people: python -m tests.simulation.test_planted_rights
    for bug in RIGHTS_BUGS:
        try:
            seeds, invariant = catch(bug)
        except Exception as error:
            seeds, invariant = 0, f"{type(error).__name__}: {error}"
        print(f"| {bug} | {invariant} | {seeds} |")
