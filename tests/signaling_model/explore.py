"""Breadth first through everything that may happen to a pair of peers."""

from __future__ import annotations

import attrs

from .pair import Course, Pair, Step
from .peer_connection import Violation

__all__ = ["Explored", "explore", "run_to_rest"]

_MOST_STEPS = 500


@attrs.define
class Explored:
    """What was found.

    Attributes:
        states: How many different ones.
        transitions: How many steps were taken.
        depth: Of how many steps, up to which nothing was left out.
        complete: Whether nothing is left out at all.
        rests: In how many states nothing happens any more.
    """

    states: int = 0
    transitions: int = 0
    depth: int = 0
    complete: bool = False
    rests: int = 0


def explore(course: Course, *, depth: int, most_states: int = 10_000_000) -> Explored:
    """Take every step in every state, and from each that is left let things run until they rest.

    Args:
        course: What it is about.
        depth: How many steps.
        most_states: Where to stop, between two depths.

    Raises:
        Violation: Something that never may; the steps that led there are in it.
    """
    found = Explored()
    first = Pair(course)
    # Each state with the first step that led there: enough to tell the way.
    came: dict[bytes, tuple[bytes, Step] | None] = {first.key(): None}
    # Where each leads by itself, if nothing disturbs it.
    onward: dict[bytes, bytes] = {}
    rest: set[bytes] = set()
    frontier = [(first.key(), first)]
    while frontier and found.depth < depth and len(came) < most_states:
        following: list[tuple[bytes, Pair]] = []
        for key, pair in frontier:
            steps = pair.steps()
            if not steps:
                _check_rest(pair, came, key)
                rest.add(key)
            for index, step in enumerate([*steps, *pair.disturbances()]):
                after = pair.fork()
                try:
                    after.take(step)
                except AssertionError as violation:
                    raise Violation(f"{violation} after {[*_way(came, key), step]}") from violation
                reached = after.key()
                found.transitions += 1
                if index == 0 and steps:
                    onward[key] = reached
                if reached not in came:
                    came[reached] = (key, step)
                    following.append((reached, after))
        frontier = following
        found.depth += 1
    for key, pair in frontier:
        try:
            run_to_rest(pair)
        except AssertionError as violation:
            raise Violation(f"{violation} after {_way(came, key)}") from violation
        rest.add(key)
    _check_endless(onward, rest, came)
    found.states = len(came)
    found.complete = not frontier
    found.rests = len(rest)
    return found


def run_to_rest(pair: Pair) -> None:
    """Let things run, the peers by turns, until they rest; they are connected then."""
    taken: list[Step] = []
    for turn in range(_MOST_STEPS):
        steps = pair.steps()
        if not steps:
            _check_rest(pair, {}, b"")
            return
        taken.append(steps[turn % len(steps)])
        try:
            pair.take(taken[-1])
        except AssertionError as violation:
            raise Violation(f"{violation} after {taken}") from violation
    raise Violation(f"it never rests: {taken[-40:]}")


def _check_rest(pair: Pair, came: dict[bytes, tuple[bytes, Step] | None], key: bytes) -> None:
    if not pair.connected():
        phases = [side.machine and side.machine.phase.value for side in pair.sides]
        raise Violation(f"at rest and not connected, {phases}, after {_way(came, key)}")


def _check_endless(onward: dict[bytes, bytes], rest: set[bytes], came: dict[bytes, tuple[bytes, Step] | None]) -> None:
    good = set(rest)
    for start in onward:
        passed: dict[bytes, None] = {}
        key = start
        while key not in good:
            if key in passed:
                raise Violation(f"it never rests after {_way(came, start)}")
            passed[key] = None
            key = onward[key]
        good.update(passed)


def _way(came: dict[bytes, tuple[bytes, Step] | None], key: bytes) -> list[Step]:
    way: list[Step] = []
    link = came.get(key)
    while link is not None:
        way.append(link[1])
        link = came[link[0]]
    return way[::-1]
