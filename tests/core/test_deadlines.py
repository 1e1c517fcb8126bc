"""The heap of deadlines, against a plain dictionary."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rtcore.deadlines import Deadlines

KEYS = st.sampled_from("abcd")
TIMES = st.integers(0, 5).map(float)


def test_none_to_begin_with() -> None:
    deadlines = Deadlines[str]()
    assert len(deadlines) == 0
    assert deadlines.next_timeout() is None
    assert deadlines.get("a") is None
    assert deadlines.pop_due(now=1e9) == []


def test_the_earliest_comes_first_and_only_once() -> None:
    deadlines = Deadlines[str]()
    deadlines.set("late", 3.0)
    deadlines.set("early", 1.0)
    assert deadlines.next_timeout() == 1.0
    assert deadlines.pop_due(now=0.999) == []
    assert deadlines.pop_due(now=1.0) == ["early"]
    assert (len(deadlines), deadlines.next_timeout(), deadlines.get("early")) == (1, 3.0, None)
    assert deadlines.pop_due(now=5.0) == ["late"]
    assert (len(deadlines), deadlines.next_timeout()) == (0, None)


def test_a_deadline_moves_either_way_and_goes() -> None:
    deadlines = Deadlines[str]()
    deadlines.set("a", 2.0)
    deadlines.set("a", 4.0)
    assert (deadlines.get("a"), deadlines.next_timeout()) == (4.0, 4.0)
    deadlines.set("a", 1.0)
    assert (deadlines.get("a"), deadlines.next_timeout()) == (1.0, 1.0)
    deadlines.set("a", None)
    assert (deadlines.get("a"), deadlines.next_timeout()) == (None, None)
    deadlines.set("a", None)
    assert len(deadlines) == 0


def test_one_that_was_moved_back_to_where_it_had_been_comes_due_as_it_was_set_last() -> None:
    deadlines = Deadlines[str]()
    deadlines.set("a", 1.0)
    deadlines.set("a", 2.0)
    deadlines.set("b", 1.0)
    deadlines.set("a", 1.0)
    assert deadlines.pop_due(now=1.0) == ["b", "a"]


def test_setting_the_same_deadline_again_keeps_its_turn() -> None:
    deadlines = Deadlines[str]()
    deadlines.set("a", 1.0)
    deadlines.set("b", 1.0)
    deadlines.set("a", 1.0)
    assert deadlines.pop_due(now=1.0) == ["a", "b"]


def test_keys_need_no_order_of_their_own() -> None:
    deadlines = Deadlines[object]()
    keys = [object() for _ in range(5)]
    for key in keys:
        deadlines.set(key, 1.0)
    assert deadlines.pop_due(now=1.0) == keys


def test_overtaken_entries_do_not_pile_up() -> None:
    deadlines = Deadlines[str]()
    for turn in range(10_000):
        deadlines.set("moves on", 1.0 + turn)
        deadlines.set("moves to and fro", 1.0 + turn % 2)
        assert len(deadlines._heap) <= 2 * 2 + 64
    assert deadlines.pop_due(now=1e6) == ["moves to and fro", "moves on"]


@given(st.lists(st.tuples(KEYS, st.none() | TIMES) | TIMES, max_size=200))
def test_it_behaves_like_a_sorted_dictionary(steps: list[tuple[str, float | None] | float]) -> None:
    deadlines = Deadlines[str]()
    model: dict[str, float] = {}  # in the order in which they were set
    for step in steps:
        if isinstance(step, float):
            due = sorted((key for key, at in model.items() if at <= step), key=model.__getitem__)
            assert deadlines.pop_due(now=step) == due
            model = {key: at for key, at in model.items() if key not in due}
        else:
            key, at = step
            deadlines.set(key, at)
            if at is None or model.get(key) != at:
                model.pop(key, None)
            if at is not None:
                model[key] = at
        assert len(deadlines) == len(model)
        assert deadlines.next_timeout() == min(model.values(), default=None)
        assert [deadlines.get(key) for key in "abcd"] == [model.get(key) for key in "abcd"]
