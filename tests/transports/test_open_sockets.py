"""Who is ended where there is no room for one more socket."""

from __future__ import annotations

import resource
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtcore_transports import ServerLimits
from rtcore_transports.open_sockets import OpenSocket, OpenSockets


class Crowd:
    """Sockets by name, and who has been ended."""

    def __init__(self, **limits: int) -> None:
        self.all = OpenSockets(ServerLimits(**limits))
        self.ended: list[str] = []
        self.named: dict[str, OpenSocket] = {}

    def enter(self, *names: str, address: str | None = "a") -> None:
        for name in names:
            self.named[name] = self.all.enter(address, self._end(name))

    def _end(self, name: str) -> Callable[[], None]:
        return lambda: self.ended.append(name)


def test_who_has_waited_longest_is_ended() -> None:
    crowd = Crowd(max_sockets=3)
    crowd.enter("1", "2", "3")
    assert crowd.all.is_full("a")
    assert crowd.all.make_room("a")
    assert (crowd.ended, crowd.all.is_full("a")) == (["1"], False)


def test_who_works_is_not_ended() -> None:
    crowd = Crowd(max_sockets=2)
    crowd.enter("1", "2")
    for name in ("1", "2"):
        crowd.named[name].work()
    assert not crowd.all.make_room("a")
    assert not crowd.all.end_longest_waiting()
    assert (crowd.ended, crowd.all.is_full("a")) == ([], True)


def test_who_has_worked_waits_behind_the_others() -> None:
    crowd = Crowd(max_sockets=2)
    crowd.enter("1", "2")
    crowd.named["1"].work()
    crowd.named["1"].wait()
    # Waiting on changes nothing.
    crowd.named["2"].wait()
    assert crowd.all.make_room("a")
    assert crowd.all.end_longest_waiting()
    assert crowd.ended == ["2", "1"]


def test_whoever_leaves_makes_room_once() -> None:
    crowd = Crowd(max_sockets=2)
    crowd.enter("1", "2")
    crowd.named["1"].leave()
    crowd.named["1"].leave()
    crowd.named["1"].wait()
    assert not crowd.all.is_full("a")
    crowd.enter("3")
    assert crowd.all.is_full("a")
    assert crowd.all.make_room("a")
    assert crowd.ended == ["2"]


def test_who_was_ended_leaves_without_effect() -> None:
    crowd = Crowd(max_sockets=1)
    crowd.enter("1")
    assert crowd.all.make_room("a")
    crowd.enter("2")
    crowd.named["1"].leave()
    assert crowd.all.is_full("a")


def test_the_crowd_of_one_address() -> None:
    crowd = Crowd(max_sockets=10, max_sockets_per_address=2)
    crowd.enter("b1", address="b")
    crowd.enter("a1", "a2")
    crowd.named["a1"].work()
    assert (crowd.all.is_full("a"), crowd.all.is_full("b"), crowd.all.is_full(None)) == (True, False, False)
    assert crowd.all.make_room("a")
    assert crowd.ended == ["a2"]
    crowd.enter("a3")
    crowd.named["a3"].work()
    assert not crowd.all.make_room("a")
    assert crowd.ended == ["a2"]


def test_both_limits_at_once() -> None:
    crowd = Crowd(max_sockets=2, max_sockets_per_address=1)
    crowd.enter("b1", address="b")
    crowd.enter("a1")
    assert crowd.all.make_room("a")
    assert crowd.ended == ["a1"]


def test_by_default_descriptors_are_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    def limit_is(soft: int) -> int:
        monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, soft))
        crowd = Crowd()
        count = 0
        while not crowd.all.is_full("a") and count < 10_000:
            crowd.enter(str(count))
            count += 1
        return count

    assert limit_is(1024) == 960
    assert limit_is(100) == 50
    assert limit_is(resource.RLIM_INFINITY) == 10_000


@pytest.mark.parametrize("name", ["max_head", "body_timeout", "max_sockets"])
def test_limits_are_positive(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        ServerLimits(**{name: 0})  # type: ignore[arg-type]


@given(st.lists(st.tuples(st.sampled_from("ewld"), st.integers(0, 5), st.sampled_from("ab"))))
def test_the_count_is_right(steps: list[tuple[str, int, str]]) -> None:
    """Whatever happens, as many are counted as are open, and those wait who have not said that they work."""
    sockets = OpenSockets(ServerLimits(max_sockets=1000))
    opened: list[OpenSocket] = []
    ended: list[int] = []
    waiting: list[int] = []
    for kind, index, address in steps:
        if kind == "e":
            number = len(opened)
            opened.append(sockets.enter(address, lambda number=number: ended.append(number)))  # type: ignore[misc]
            waiting.append(number)
        elif index < len(opened):
            number = index
            alive = number not in ended
            if kind == "w":
                opened[number].work()
                waiting = [each for each in waiting if each != number]
            elif kind == "l" and alive:
                opened[number].wait()
                waiting += [] if number in waiting else [number]
            elif kind == "d":
                assert sockets.end_longest_waiting() is bool(waiting)
                if waiting:
                    assert ended[-1] == waiting.pop(0)
    assert [opened.index(each) for each in sockets.waiting] == waiting
