"""What a channel can say again: bounded in number, time and bytes, and honest about what is gone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtcore.encoded import Encoded
from rtcore.history import History, Memory, Publication

MESSAGE = Encoded(b'{"n":10}')  # of 8 bytes


def new_history(
    *,
    size: int = 10,
    ttl: float = 60.0,
    persistent_size: int = 10,
    memory: Memory | None = None,
    lost_seq: int = 0,
) -> History:
    memory = Memory(2**20) if memory is None else memory
    return History(size=size, ttl=ttl, persistent_size=persistent_size, memory=memory, lost_seq=lost_seq)


def say(history: History, *seqs: int, persistent: bool = False, now: float = 100.0) -> None:
    for seq in seqs:
        history.append(seq, MESSAGE, persistent=persistent, now=now)


def offsets(publications: list[Publication] | None) -> list[int] | None:
    return None if publications is None else [publication.offset for publication in publications]


# How much


def test_a_new_history() -> None:
    history = new_history()
    assert (history.offset, history.lost, history.last_seq, history.keeps, history.next_timeout()) == (
        *(0, 0, 0),
        *(False, None),
    )
    assert (history.since(0), history.since(1), history.after_seq(0), history.kept()) == ([], None, [], [])


def test_publications_are_held_as_they_came() -> None:
    history = new_history()
    other = Encoded(b"{}")
    history.append(5, MESSAGE, persistent=False, now=100.0)
    history.append(9, other, persistent=True, now=101.0)
    found = history.since(0)
    assert found is not None
    assert [(each.seq, each.offset, each.message, each.expires_at) for each in found] == [
        (5, 1, MESSAGE, 160.0),
        (9, 2, other, 161.0),
    ]
    assert repr(found[1]) == "Publication(9, 2, Encoded(b'{}', event=None, id=None))"
    assert (history.offset, history.last_seq) == (2, 9)


def test_the_last_so_many_are_held() -> None:
    history = new_history(size=2)
    say(history, 3, 5)
    assert (offsets(history.since(0)), history.lost, history.lost_seq) == ([1, 2], 0, 0)
    say(history, 8)
    assert (history.lost, history.lost_seq, history.last_seq) == (1, 3, 8)
    assert [offsets(history.since(offset)) for offset in range(5)] == [None, [2, 3], [3], [], None]


def test_none_may_be_held() -> None:
    memory = Memory(100)
    history = new_history(size=0, persistent_size=0, memory=memory)
    say(history, 3, persistent=True)
    assert (history.offset, history.lost, history.last_seq, history.next_timeout()) == (1, 1, 3, None)
    assert (history.since(0), history.since(1), history.kept(), memory.bytes, len(memory)) == (None, [], [], 0, 0)


def test_they_are_held_for_so_long() -> None:
    history = new_history(ttl=60.0)
    say(history, 1, now=100.0)
    say(history, 2, now=130.0)
    assert history.next_timeout() == 160.0
    history.expire(now=159.9)
    assert offsets(history.since(0)) == [1, 2]
    history.expire(now=160.0)
    assert (history.since(0), offsets(history.since(1)), history.next_timeout()) == (None, [2], 190.0)
    # The next publication is a reason to look, too.
    say(history, 3, now=190.0)
    assert (history.lost, history.lost_seq, offsets(history.since(2)), history.next_timeout()) == (2, 2, [3], 250.0)


def test_they_may_be_held_for_no_time_at_all() -> None:
    history = new_history(ttl=0.0)
    say(history, 1, persistent=True)
    assert (history.since(0), history.next_timeout(), offsets(history.kept())) == (None, None, [1])


def test_persistent_ones_are_kept_whatever_becomes_of_them_in_the_history() -> None:
    history = new_history(size=1, persistent_size=2)
    say(history, 1, 2, persistent=True)
    say(history, 3)
    assert (offsets(history.since(2)), offsets(history.kept()), history.keeps) == ([3], [1, 2], True)
    history.expire(now=1e9)
    assert (history.since(2), offsets(history.kept()), history.next_timeout()) == (None, [1, 2], None)
    say(history, 4, persistent=True)
    assert offsets(history.kept()) == [2, 4]
    assert (offsets(history.kept(after=1)), offsets(history.kept(after=2)), history.kept(after=4)) == ([2, 4], [4], [])


def test_what_is_kept_may_be_asked_for_by_its_number_among_all() -> None:
    history = new_history()
    say(history, 10, persistent=True)
    say(history, 11)
    say(history, 12, 15, persistent=True)
    assert offsets(history.kept_between(0, 100)) == [1, 3, 4]
    assert offsets(history.kept_between(9, 12)) == [1, 3]
    assert offsets(history.kept_between(10, 14)) == [3]
    assert history.kept_between(12, 12) == []


def test_what_came_after_a_number_among_all() -> None:
    history = new_history(size=3)
    say(history, 10, 20, 30)
    assert [offsets(history.after_seq(seq)) for seq in (0, 9, 10, 15, 20, 29, 30, 99)] == [
        *([1, 2, 3], [1, 2, 3]),
        *([2, 3], [2, 3], [3], [3], [], []),
    ]
    say(history, 40)
    # What is left, and that something is not.
    assert [offsets(history.after_seq(seq)) for seq in (9, 10, 40)] == [[2, 3, 4], [2, 3, 4], []]
    assert history.lost_seq == 10


def test_a_stream_may_have_forgotten_what_it_said_in_another_life() -> None:
    history = new_history(lost_seq=7)
    assert (history.after_seq(6), history.since(0), history.lost_seq, history.last_seq) == ([], [], 7, 7)
    say(history, 9)
    assert (offsets(history.after_seq(6)), history.lost, history.lost_seq, history.last_seq) == ([1], 0, 7, 9)


def test_letting_go_of_everything() -> None:
    memory = Memory(100)
    history = new_history(memory=memory, size=1)
    say(history, 1, 2, persistent=True)
    history.clear()
    assert (memory.bytes, len(memory), history.next_timeout(), history.keeps) == (0, 0, None, False)
    assert (history.offset, history.lost, history.last_seq) == (2, 2, 2)
    assert (history.since(1), history.since(2), history.kept()) == (None, [], [])


def test_beginning_to_count_anew() -> None:
    memory = Memory(100)
    history = new_history(memory=memory)
    say(history, 1, 2)
    history.restart()
    assert (memory.bytes, history.offset, history.lost, history.lost_seq) == (0, 0, 0, 2)
    say(history, 5)
    assert (offsets(history.since(0)), offsets(history.after_seq(1)), history.lost_seq) == ([1], [1], 2)


# Bytes


def test_the_oldest_of_all_goes_first() -> None:
    memory = Memory(24)
    chat, news = new_history(memory=memory), new_history(memory=memory)
    say(chat, 1)
    say(news, 2)
    say(chat, 3)
    assert (memory.bytes, len(memory)) == (24, 3)
    say(news, 4)
    assert (memory.bytes, len(memory)) == (24, 3)
    assert (chat.since(0), offsets(chat.since(1)), offsets(news.since(0))) == (None, [2], [1, 2])
    say(news, 5)
    assert (news.since(0), offsets(news.since(1)), offsets(chat.since(1))) == (None, [2, 3], [2])


def test_what_is_kept_counts_once_and_goes_too() -> None:
    memory = Memory(24)
    chat, news = new_history(memory=memory, size=1), new_history(memory=memory)
    say(chat, 1, persistent=True)
    assert memory.bytes == 8
    say(chat, 2)
    say(news, 3)
    assert (memory.bytes, offsets(chat.kept())) == (24, [1])
    say(news, 4, persistent=True)
    assert (chat.kept(), offsets(chat.since(1)), memory.bytes) == ([], [2], 24)
    say(news, 5, 6, 7)
    assert (chat.since(1), offsets(news.since(2)), news.kept(), memory.bytes) == (None, [3, 4, 5], [], 24)
    news.clear()
    assert (memory.bytes, len(memory)) == (0, 0)


def test_what_fits_nowhere_is_not_held() -> None:
    memory = Memory(7)
    history = new_history(memory=memory)
    say(history, 1, persistent=True)
    assert (memory.bytes, history.since(0), history.since(1), history.kept()) == (0, None, [], [])


# Pages


@pytest.mark.parametrize(
    ("after", "before", "limit", "found"),
    [
        *((None, None, 2, [6, 7]), (None, None, 10, [3, 4, 5, 6, 7]), (None, 6, 2, [4, 5]), (None, 3, 2, [])),
        *((None, 99, 1, [7]), (None, 0, 1, []), (0, None, 2, [3, 4]), (3, None, 2, [4, 5]), (6, None, 2, [7])),
        *((7, None, 2, []), (99, None, 2, [])),
    ],
)
def test_pages(after: int | None, before: int | None, limit: int, found: list[int]) -> None:
    history = new_history(size=5)
    say(history, *range(1, 8))
    assert offsets(history.page(after=after, before=before, limit=limit)) == found


# All of it


STEPS = st.tuples(st.integers(0, 2), st.booleans(), st.integers(0, 12), st.integers(0, 30))


@given(
    st.integers(0, 4),
    st.integers(0, 3),
    st.integers(0, 60),
    st.lists(STEPS, max_size=40),
)
def test_it_holds_what_it_should_and_says_so(
    size: int, persistent_size: int, max_bytes: int, steps: list[tuple[int, bool, int, int]]
) -> None:
    ttl = 40.0
    memory = Memory(max_bytes)
    histories = [new_history(size=size, ttl=ttl, persistent_size=persistent_size, memory=memory) for _ in range(3)]
    # Each publication: its history, number, offset, bytes, when it was made, and whether it is in the history or kept.
    said: list[list[int]] = []
    now = 0
    for seq, (which, persistent, length, pause) in enumerate(steps, 1):
        now += pause
        for history in histories:
            history.expire(now=now)
        history = histories[which]
        history.append(seq, Encoded(b"x" * length), persistent=persistent, now=now)
        said.append([which, seq, history.offset, length, now, size > 0, persistent and persistent_size > 0])
        for at, kept_at in ((size, 5), (persistent_size, 6)):
            mine = [each for each in said if each[0] == which and each[kept_at]]
            for old in mine[: max(0, len(mine) - at)]:
                old[kept_at] = False
        for each in said:
            each[5] = each[5] and each[4] + ttl > now
        held = [each for each in said if each[5] or each[6]]
        # What is over the limits of its own history goes before the oldest of all, but only once the bytes are counted:
        # so more may be gone than would have had to be, and never less.
        assert memory.bytes <= max_bytes
        for number, history in enumerate(histories):
            mine = [each for each in said if each[0] == number]
            for offset in range(len(mine) + 2):
                found = history.since(offset)
                if found is not None:
                    assert offsets(found) == [each[2] for each in mine[offset:]]
                    assert all(each[5] for each in mine[offset:])
            assert history.since(len(mine)) == []
            assert all(each[6] for each in mine if each[2] in (offsets(history.kept()) or []))
            for seq_before in range(seq + 1):
                left = [each[2] for each in mine if each[1] > max(seq_before, history.lost_seq)]
                assert offsets(history.after_seq(seq_before)) == left
        if sum(each[3] for each in said) <= max_bytes:
            # Nothing has gone for want of room.
            assert memory.bytes == sum(each[3] for each in held)
            for number, history in enumerate(histories):
                mine = [each for each in said if each[0] == number]
                lost = max((each[2] for each in mine if not each[5]), default=0)
                assert history.lost == lost
                assert offsets(history.kept()) == [each[2] for each in mine if each[6]]
    for history in histories:
        history.clear()
    assert (memory.bytes, len(memory)) == (0, 0)
