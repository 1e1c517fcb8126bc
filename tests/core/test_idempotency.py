"""Which publications were made before: for how long, how many, and by whom."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtcore.idempotency import Idempotency, Publisher

ANN = Publisher("user", "ann")
TAB = Publisher("session", "ann", "secret")
CONNECTION = Publisher("connection", None, "c1")


def remembering(*, window: float = 300.0, size: int = 3, max_idle: int = 10) -> Idempotency[str]:
    return Idempotency(window=window, size=size, max_idle=max_idle)


@pytest.mark.parametrize("publisher", [ANN, TAB, CONNECTION])
def test_what_was_made_once_is_found(publisher: Publisher) -> None:
    known = remembering()
    assert known.attach(publisher) == 1
    assert known.find(publisher, "1", now=100.0) is None
    known.remember(publisher, "1", "first", now=100.0)
    known.remember(publisher, 1, "second", now=101.0)  # a number is another id than its digits
    assert known.find(publisher, "1", now=102.0) == "first"
    assert known.find(publisher, 1, now=102.0) == "second"


def test_everybodys_ids_are_their_own() -> None:
    known = remembering()
    publishers = [
        *(ANN, TAB, CONNECTION, Publisher("user", "bob"), Publisher("session", "bob", "secret")),
        *(Publisher("session", None, "secret"), Publisher("session", "ann", "other"), Publisher("user", "secret")),
        Publisher("connection", "ann", "c1"),
    ]
    for number, publisher in enumerate(publishers):
        known.attach(publisher)
        assert known.find(publisher, "1", now=100.0) is None
        known.remember(publisher, "1", str(number), now=100.0)
    assert [known.find(publisher, "1", now=100.0) for publisher in publishers] == [*"012345678"]


@pytest.mark.parametrize(("publisher", "found"), [(ANN, None), (CONNECTION, None), (TAB, "first")])
def test_ids_may_be_used_again_after_the_window_but_for_those_of_a_session(
    publisher: Publisher, found: str | None
) -> None:
    known = remembering(window=300.0)
    known.attach(publisher)
    known.remember(publisher, "1", "first", now=100.0)
    assert known.find(publisher, "1", now=400.0) == "first"
    assert known.find(publisher, "1", now=400.1) == found


def test_the_latest_are_kept() -> None:
    known = remembering(size=2)
    known.attach(TAB)
    for number in range(4):
        known.remember(TAB, number, str(number), now=100.0)
    assert [known.find(TAB, number, now=100.0) for number in range(4)] == [None, None, "2", "3"]
    known.remember(TAB, 2, "again", now=100.0)  # now it is the latest
    known.remember(TAB, 4, "4", now=100.0)
    assert [known.find(TAB, number, now=100.0) for number in (2, 3, 4)] == ["again", None, "4"]


def test_none_may_be_kept() -> None:
    known = remembering(size=0)
    known.attach(TAB)
    known.remember(TAB, "1", "first", now=100.0)
    assert known.find(TAB, "1", now=100.0) is None


@pytest.mark.parametrize("publisher", [ANN, TAB])
def test_who_comes_back_within_the_window_is_known(publisher: Publisher) -> None:
    known = remembering(window=300.0)
    known.attach(publisher)
    known.remember(publisher, "1", "first", now=100.0)
    known.detach(publisher, now=200.0)
    assert known.next_timeout() == 500.0
    known.handle_timeout(now=499.9)
    assert known.attach(publisher) == 1
    assert known.next_timeout() is None
    assert known.find(publisher, "1", now=300.0) == "first"
    known.detach(publisher, now=500.0)
    known.handle_timeout(now=800.0)
    assert (len(known), known.next_timeout()) == (0, None)
    # What they are remembered for begins anew, and they can tell.
    assert known.attach(publisher) == 2
    assert known.find(publisher, "1", now=800.0) is None


def test_a_publisher_is_connected_as_long_as_one_of_its_connections() -> None:
    known = remembering()
    assert [known.attach(ANN), known.attach(ANN)] == [1, 1]
    known.remember(ANN, "1", "first", now=100.0)
    known.detach(ANN, now=100.0)
    assert known.next_timeout() is None
    known.detach(ANN, now=110.0)
    assert known.next_timeout() == 410.0


def test_who_has_said_nothing_is_forgotten_at_once_but_for_a_session() -> None:
    known = remembering()
    for publisher in (ANN, TAB, CONNECTION):
        known.attach(publisher)
    known.remember(CONNECTION, "1", "first", now=100.0)
    for publisher in (ANN, TAB, CONNECTION):
        known.detach(publisher, now=100.0)
    assert len(known) == 1
    # Its client may be told that nothing of what it sent has come.
    assert known.attach(TAB) == 2


def test_the_longest_gone_are_forgotten_first() -> None:
    known = remembering(max_idle=2)
    sessions = [Publisher("session", None, name) for name in "abc"]
    for now, session in enumerate(sessions):
        known.attach(session)
        known.detach(session, now=float(now))
    assert (len(known), known.next_timeout()) == (2, 301.0)
    assert [known.attach(session) for session in sessions] == [4, 2, 3]


def test_nobody_gone_may_be_kept() -> None:
    known = remembering(max_idle=0)
    known.attach(TAB)
    known.detach(TAB, now=100.0)
    assert (len(known), known.next_timeout()) == (0, None)


STEPS = st.tuples(st.sampled_from(["attach", "detach", "publish"]), st.sampled_from([ANN, TAB, CONNECTION]))


@given(st.lists(st.tuples(STEPS, st.integers(0, 3), st.integers(0, 4)), max_size=60))
def test_it_never_forgets_within_its_limits(steps: list[tuple[tuple[str, Publisher], int, int]]) -> None:
    """With room enough, what was made within the window is found, and nothing is found that was not made."""
    known: Idempotency[str] = Idempotency(window=5.0, size=100, max_idle=100)
    connections = dict.fromkeys([ANN, TAB, CONNECTION], 0)
    made: dict[tuple[Publisher, int], tuple[str, float]] = {}
    gone: dict[Publisher, float] = {}
    now = 0.0
    for (what, publisher), number, pause in steps:
        now += pause
        known.handle_timeout(now=now)
        for lost in [each for each, at in gone.items() if at + 5.0 <= now]:
            del gone[lost]
            made = {key: value for key, value in made.items() if key[0] != lost}
        if what == "attach":
            known.attach(publisher)
            connections[publisher] += 1
            gone.pop(publisher, None)
        elif connections[publisher] and what == "detach":
            known.detach(publisher, now=now)
            connections[publisher] -= 1
            if not connections[publisher]:
                gone[publisher] = now
                if publisher is CONNECTION:
                    made = {key: value for key, value in made.items() if key[0] != publisher}
        elif connections[publisher]:
            first = made.get((publisher, number))
            if first is not None and publisher is not TAB and now - first[1] > 5.0:
                first = None
            assert known.find(publisher, number, now=now) == (first and first[0])
            if first is None:
                made[publisher, number] = (f"{publisher} {number} {now}", now)
                known.remember(publisher, number, f"{publisher} {number} {now}", now=now)
        at = known.next_timeout()
        assert at is None or at > now


def test_without_a_connection_one_is_remembered_for_the_window_after_the_last_result() -> None:
    known = remembering(window=300.0)
    key = Publisher("key", None, "backend")
    assert known.find(key, "1", now=100.0) is None
    known.remember(key, "1", "first", now=100.0)
    known.remember(ANN, "1", "hers", now=150.0)
    known.remember(key, "2", "second", now=200.0)
    assert (known.find(key, "1", now=400.0), known.find(ANN, "1", now=400.0)) == ("first", "hers")
    # The one that was silent for longer goes first.
    assert known.next_timeout() == 450.0
    known.handle_timeout(now=450.0)
    assert (len(known), known.find(ANN, "1", now=450.0)) == (1, None)
    known.handle_timeout(now=500.0)
    assert len(known) == 0


def test_a_connection_that_comes_keeps_what_was_remembered_without_one() -> None:
    known = remembering(window=300.0)
    known.remember(ANN, "1", "first", now=100.0)
    known.attach(ANN)
    assert known.next_timeout() is None
    known.remember(ANN, "2", "second", now=150.0)
    assert known.next_timeout() is None
    assert known.find(ANN, "1", now=400.0) == "first"
    known.detach(ANN, now=200.0)
    assert known.next_timeout() == 500.0


def test_so_many_are_remembered_without_a_connection_and_no_more() -> None:
    known = remembering(max_idle=2)
    publishers = [Publisher("key", None, name) for name in "abc"]
    for publisher in publishers:
        known.remember(publisher, "1", publisher.name, now=100.0)
    assert [known.find(publisher, "1", now=100.0) for publisher in publishers] == [None, "b", "c"]
    nothing = remembering(size=0)
    nothing.remember(ANN, "1", "first", now=100.0)
    assert len(nothing) == 0


class Compared(int):
    """A whole number that counts how often it is compared."""

    times = 0
    __hash__ = int.__hash__

    def __eq__(self, other: object) -> bool:
        Compared.times += 1
        return int(self) == other


def test_ids_that_share_a_hash_are_not_compared_with_each_other() -> None:
    known = remembering(size=1000)
    known.attach(ANN)
    ids = [Compared(number * sys.hash_info.modulus) for number in range(1, 500)]
    assert len({hash(id) for id in ids}) == 1
    for id in ids:
        known.remember(ANN, id, "first", now=0.0)
        assert known.find(ANN, id, now=0.0) == "first"
    assert Compared.times == 0
