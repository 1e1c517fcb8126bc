"""Two peers end connected, whatever happens in whatever order."""

from __future__ import annotations

import sys
import time

import pytest

from rtcore.errors import LocalProtocolError

from .explore import Explored, explore
from .pair import Course
from .peer_connection import Violation
from .planted_bugs import BUGS, planted

#: Each is explored to its end, unless it says how many states there are to be.
COURSES: dict[str, tuple[Course, int | None]] = {
    "both": (Course(), None),
    "both, not rolling back": (Course(rollback=(False, False)), None),
    "both, asking at any time": (Course(eager=True), None),
    "impolite only, disturbed": (
        Course(carrying=(True, False), covering=True, disturbances=1, kinds=("need", "fail", "replace", "break")),
        None,
    ),
    "polite only, one not rolling back, disturbed": (
        Course(carrying=(False, True), covering=True, rollback=(False, True), disturbances=1),
        None,
    ),
    "both, not rolling back, disturbed": (
        Course(covering=True, rollback=(False, False), disturbances=1, kinds=("need", "fail", "replace", "break")),
        None,
    ),
    "both, disturbed": (Course(disturbances=1), 5_000),
    "both, disturbed twice": (Course(covering=True, disturbances=2), 5_000),
    "both, not rolling back, disturbed twice": (Course(rollback=(False, False), disturbances=2), 5_000),
}
# More steps than any of them takes to its end.
_DEPTH = 80


@pytest.mark.parametrize("name", COURSES)
def test_pair_ends_connected(name: str) -> None:
    course, most_states = COURSES[name]
    found = explore(course, depth=_DEPTH, most_states=most_states or 1_000_000)
    assert found.complete is (most_states is None)
    assert found.rests > 0


def catch(name: str) -> str:
    """Return by what a bug is noticed; or fail."""
    with planted(name) as course:
        try:
            # What is noticed in a few states is noticed at once, for things run from each of them until they rest.
            for most_states in (20, 2_000, 12_000):
                found = explore(course, depth=_DEPTH, most_states=most_states)
                if found.depth == _DEPTH:
                    return "it need not ever rest"
        except (Violation, LocalProtocolError) as noticed:
            return str(noticed).partition(" after ")[0]
    raise AssertionError(f"{name} is not noticed")


@pytest.mark.parametrize("name", BUGS)
def test_planted_bug_is_noticed(name: str) -> None:
    catch(name)


def _campaign(most_states: int) -> None:
    # As tables, for people: python -m tests.signaling_model.test_pair [STATES]
    for bug in BUGS:
        print(f"| {bug} | {catch(bug)} |", flush=True)
    for rollback in ((True, True), (False, True), (False, False)):
        for carrying in ((True, True), (True, False), (False, True)):
            for disturbances in (1, 2):
                course = Course(carrying=carrying, rollback=rollback, covering=True, disturbances=disturbances)
                began = time.process_time()
                found: Explored = explore(course, depth=10_000, most_states=most_states)
                print(course, found, f"{time.process_time() - began:.1f} s", flush=True)


if __name__ == "__main__":
    _campaign(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
