"""The backlog of a slow consumer: what comes out is in order, each once, and every hole is announced."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TypeAlias

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from rtcore import Encoded
from rtcore.backlog import Backlog
from rtcore.encoded import Source
from rtcore.messages import Message
from rtcore.namespaces import SlowConsumer

DISCONNECT, DROP_OLDEST, LATEST = SlowConsumer.DISCONNECT, SlowConsumer.DROP_OLDEST, SlowConsumer.LATEST
MUCH = 10**9


def said(
    channel: str,
    offset: int,
    policy: SlowConsumer = DISCONNECT,
    *,
    key: str = "",
    epoch: str = "e",
    size: int = 10,
    presence: bool = False,
) -> Encoded:
    source = Source(channel, epoch, offset, policy, key, presence)
    return Encoded(f"{channel}{epoch}{offset}".encode().ljust(size, b"."), source=source)


def answer(size: int = 10) -> Encoded:
    return Encoded(b"!" * size)


def gap(channel: str, offset: int, *, epoch: str = "e", presence: bool = False) -> Message:
    stream: Message = {"stream": "presence"} if presence else {}
    return {"type": "gap", "channel": channel, **stream, "epoch": epoch, "offset": offset, "reason": "slow_consumer"}


def roomy() -> Backlog:
    return Backlog(max_bytes=MUCH, max_messages=MUCH)


def for_messages(count: int) -> Backlog:
    return Backlog(max_bytes=MUCH, max_messages=count)


def drained(backlog: Backlog) -> list[Encoded | Message]:
    """Pop everything; gaps come as what they say."""
    return readable(backlog.pop(MUCH))


def readable(popped: Sequence[Encoded]) -> list[Encoded | Message]:
    return [json.loads(message.json) if message.event == "gap" else message for message in popped]


# Order and limits


def test_what_waits_comes_out_in_order() -> None:
    backlog = roomy()
    messages = [said("a", 1), answer(), said("b", 7, DROP_OLDEST), said("a", 4, LATEST)]
    assert not backlog
    assert backlog.push(messages[:2])
    assert backlog.push(messages[2:])
    assert (len(backlog), backlog.bytes, bool(backlog)) == (4, 40, True)
    # The messages themselves, and no gap where an offset has been left out.
    assert all(ours is theirs for ours, theirs in zip(backlog.pop(MUCH), messages, strict=True))
    assert (len(backlog), backlog.bytes, backlog.dropped, backlog.gaps, bool(backlog)) == (0, 0, 0, 0, False)
    assert backlog.pop(MUCH) == []


def test_popping_a_part() -> None:
    backlog = roomy()
    messages = [said("a", offset, size=size) for offset, size in enumerate([30, 10, 10, 10, 50])]
    backlog.push(messages)
    assert [backlog.pop(20) for _ in range(5)] == [messages[:1], messages[1:3], messages[3:4], messages[4:], []]


@pytest.mark.parametrize("policy", [DISCONNECT, LATEST])
def test_nothing_may_be_dropped(policy: SlowConsumer) -> None:
    backlog = for_messages(2)
    assert backlog.push([said("a", 1, policy, key="x"), answer()])
    assert not backlog.push([said("a", 2, policy, key="y")])
    assert not backlog.push([answer()])
    assert len(backlog) == 2
    assert backlog.dropped == 0


def test_the_limit_in_bytes_is_for_those_that_wait_when_one_more_comes() -> None:
    backlog = Backlog(max_bytes=20, max_messages=10)
    assert backlog.push([said("a", 1, size=10), said("a", 2, size=10), said("a", 3, size=500)])
    assert not backlog.push([said("a", 4, size=2)])
    assert len(backlog.pop(30)) == 2
    # However large: it is alone then.
    backlog.clear()
    assert backlog.push([said("a", 4, size=5000)])
    assert backlog.bytes == 5000


def test_clearing() -> None:
    backlog = for_messages(3)
    backlog.push([answer(), said("a", 1, DROP_OLDEST), said("a", 2, DROP_OLDEST), said("b", 1, LATEST)])
    backlog.clear()
    assert (len(backlog), backlog.bytes, bool(backlog), backlog.pop(MUCH)) == (0, 0, False, [])
    assert (backlog.dropped, backlog.gaps) == (1, 0)
    # What was dropped before is nothing to it any more.
    after = [said("a", 9, DROP_OLDEST), said("b", 9, LATEST)]
    assert backlog.push(after)
    assert drained(backlog) == after


# Dropping the oldest


def test_the_oldest_is_dropped() -> None:
    backlog = for_messages(3)
    messages = [said("a", offset, DROP_OLDEST) for offset in range(1, 8)]
    assert backlog.push(messages)
    assert (len(backlog), backlog.dropped, backlog.gaps) == (3, 4, 0)
    assert drained(backlog) == [gap("a", 4), *messages[4:]]
    assert (backlog.dropped, backlog.gaps) == (4, 1)
    backlog.push([said("a", 8, DROP_OLDEST)])
    assert drained(backlog) == [said("a", 8, DROP_OLDEST)]


def test_room_in_bytes() -> None:
    backlog = Backlog(max_bytes=30, max_messages=100)
    messages = [said("a", offset, DROP_OLDEST) for offset in range(1, 5)]
    backlog.push(messages)
    large = said("a", 5, DROP_OLDEST, size=100)
    backlog.push([large])
    assert backlog.bytes == 130
    assert backlog.push([answer(200)])
    # The large one is not the oldest, but as long as it is there nothing else enters.
    assert drained(backlog) == [gap("a", 5), answer(200)]
    assert backlog.dropped == 5


def test_what_may_not_be_dropped_stays_where_it_is() -> None:
    backlog = for_messages(4)
    first, second = answer(), said("b", 1)
    backlog.push([first, said("a", 1, DROP_OLDEST), second, said("a", 2, DROP_OLDEST)])
    third, fourth = said("a", 3, DROP_OLDEST), said("a", 5, DROP_OLDEST)
    backlog.push([third, fourth])
    # The gap is where the first dropped one was: before what was pushed after it.
    assert drained(backlog) == [first, gap("a", 2), second, third, fourth]


def test_a_new_one_is_dropped_where_only_others_wait() -> None:
    backlog = for_messages(1)
    waiting = answer()
    assert backlog.push([waiting, said("a", 1, DROP_OLDEST), said("a", 2, DROP_OLDEST)])
    assert (len(backlog), backlog.dropped) == (1, 2)
    # With nothing else of the channel behind it, the gap says up to where.
    assert drained(backlog) == [waiting, gap("a", 2)]
    assert backlog.push([said("a", 3, DROP_OLDEST)])
    assert drained(backlog) == [said("a", 3, DROP_OLDEST)]


def test_a_gap_alone_is_something_to_pop() -> None:
    backlog = for_messages(1)
    backlog.push([answer(), said("a", 1, DROP_OLDEST)])
    assert backlog.pop(1) == [answer()]
    assert (len(backlog), bool(backlog), backlog.gaps) == (0, True, 0)
    assert drained(backlog) == [gap("a", 1)]
    assert (bool(backlog), backlog.gaps) == (False, 1)


def test_a_gap_waits_for_its_turn() -> None:
    backlog = for_messages(2)
    backlog.push([said("a", 1, DROP_OLDEST), answer(), said("a", 2, DROP_OLDEST)])
    size = len(json.dumps(gap("a", 1), separators=(",", ":")))
    assert readable(backlog.pop(size + 9)) == [gap("a", 1)]
    assert readable(backlog.pop(size + 9)) == [answer(), said("a", 2, DROP_OLDEST)]
    assert backlog.gaps == 1


def test_a_stream_that_is_dropped_from_again_after_its_gap_was_told() -> None:
    backlog = for_messages(2)
    backlog.push([said("a", offset, DROP_OLDEST) for offset in (1, 2, 3)])
    assert readable(backlog.pop(1)) == [gap("a", 1)]
    backlog.push([said("a", 4, DROP_OLDEST)])
    assert drained(backlog) == [gap("a", 2), said("a", 3, DROP_OLDEST), said("a", 4, DROP_OLDEST)]


def test_one_gap_for_each_stream() -> None:
    backlog = for_messages(2)
    backlog.push([said(name, 1, DROP_OLDEST) for name in "ab"])
    backlog.push([said("a", 1, DROP_OLDEST, presence=True, epoch="ep"), said("a", 3, DROP_OLDEST)])
    backlog.push([said("a", 2, DROP_OLDEST, presence=True, epoch="ep"), said("b", 3, DROP_OLDEST)])
    assert drained(backlog) == [
        gap("a", 3),
        gap("b", 2),
        gap("a", 1, epoch="ep", presence=True),
        said("a", 2, DROP_OLDEST, presence=True, epoch="ep"),
        said("b", 3, DROP_OLDEST),
    ]


def test_a_gap_names_the_epoch_of_what_follows() -> None:
    backlog = for_messages(2)
    backlog.push([said("a", 8, DROP_OLDEST, epoch="x"), said("a", 9, DROP_OLDEST, epoch="x")])
    backlog.push([said("a", 1, DROP_OLDEST, epoch="y"), answer()])
    assert drained(backlog) == [gap("a", 0, epoch="y"), said("a", 1, DROP_OLDEST, epoch="y"), answer()]
    backlog.push([answer(), answer(), said("a", 3, DROP_OLDEST, epoch="y"), said("a", 1, DROP_OLDEST, epoch="z")])
    assert drained(backlog) == [answer(), answer(), gap("a", 1, epoch="z")]


# The latest of each key


def test_the_latest_takes_the_place_of_its_predecessor() -> None:
    backlog = roomy()
    backlog.push([said("a", offset, LATEST, key="xyx"[offset % 3]) for offset in range(1, 7)])
    backlog.push([said("b", 1, LATEST, key="x"), said("b", 1, LATEST, key="x", presence=True)])
    assert (len(backlog), backlog.dropped) == (4, 4)
    assert drained(backlog) == [
        gap("a", 3),
        said("a", 4, LATEST, key="y"),
        gap("a", 5),
        said("a", 6, LATEST, key="x"),
        said("b", 1, LATEST, key="x"),
        said("b", 1, LATEST, key="x", presence=True),
    ]
    # What has been popped has no successor that takes its place.
    backlog.push([said("a", 7, LATEST, key="x"), said("a", 8, LATEST, key="y")])
    assert drained(backlog) == [said("a", 7, LATEST, key="x"), said("a", 8, LATEST, key="y")]


def test_holes_on_both_sides_become_one() -> None:
    backlog = roomy()
    backlog.push([said("a", offset, LATEST, key=key) for offset, key in enumerate("pqrs", 1)])
    between = [answer(), answer()]
    backlog.push([between[0], said("a", 5, LATEST, key="p"), said("a", 6, LATEST, key="r")])
    backlog.push([between[1], said("a", 7, LATEST, key="q")])
    assert drained(backlog) == [
        gap("a", 3),
        said("a", 4, LATEST, key="s"),
        between[0],
        said("a", 5, LATEST, key="p"),
        said("a", 6, LATEST, key="r"),
        between[1],
        said("a", 7, LATEST, key="q"),
    ]


def test_a_full_backlog_takes_the_latest_without_growing() -> None:
    backlog = Backlog(max_bytes=15, max_messages=2)
    backlog.push([said("a", 1, LATEST, size=10), answer(90)])
    assert backlog.push([said("a", 2, LATEST, size=10)])
    assert drained(backlog) == [gap("a", 1), answer(90), said("a", 2, LATEST, size=10)]
    backlog.push([said("a", 3, LATEST, size=10), answer(90)])
    # Larger than what it replaces, it needs room, of which there is none.
    assert not backlog.push([said("a", 4, LATEST, size=11)])


def test_the_latest_makes_the_oldest_go() -> None:
    backlog = for_messages(2)
    backlog.push([said("a", 1, LATEST, key="x"), said("b", 1, DROP_OLDEST), said("a", 2, LATEST, key="y")])
    assert drained(backlog) == [said("a", 1, LATEST, key="x"), gap("b", 1), said("a", 2, LATEST, key="y")]


# Whatever happens

# By channel; one has two policies, as after a change of the settings.
POLICIES = {"d": [DISCONNECT], "o": [DROP_OLDEST], "p": [DROP_OLDEST], "l": [LATEST], "m": [DROP_OLDEST, LATEST]}


@attrs.define
class Slot:
    """One message that was pushed and not popped."""

    message: Encoded
    dropped: bool = False

    @property
    def stream(self) -> tuple[str, bool] | None:
        source = self.message.source
        return None if source is None else (source.channel, source.presence)

    def may_replace(self, other: Slot) -> bool:
        ours, theirs = self.message.source, other.message.source
        return (
            not other.dropped
            and ours is not None
            and theirs is not None
            and ours.policy is LATEST is theirs.policy
            and (ours.channel, ours.presence, ours.key) == (theirs.channel, theirs.presence, theirs.key)
        )


class Model:
    """The same thing from one list, in which what is dropped stays where it is, looked through for everything."""

    def __init__(self, max_bytes: int, max_messages: int) -> None:
        self.max_bytes = max_bytes
        self.max_messages = max_messages
        self.slots: list[Slot] = []

    @property
    def waiting(self) -> list[Slot]:
        return [slot for slot in self.slots if not slot.dropped]

    @property
    def bytes(self) -> int:
        return sum(len(slot.message.json) for slot in self.waiting)

    def push(self, message: Encoded) -> bool:
        new = Slot(message)
        policy = DISCONNECT if message.source is None else message.source.policy
        fits = False
        for old in self.slots:
            if new.may_replace(old):
                old.dropped = True
                fits = len(message.json) <= len(old.message.json)
        while not fits and (self.bytes > self.max_bytes or len(self.waiting) >= self.max_messages):
            droppable = [
                slot
                for slot in self.waiting
                if slot.message.source is not None and slot.message.source.policy is DROP_OLDEST
            ]
            if not droppable:
                new.dropped = policy is DROP_OLDEST
                if not new.dropped:
                    return False
                break
            droppable[0].dropped = True
        self.slots.append(new)
        return True

    def pop(self) -> Encoded | Message | None:
        if not self.slots:
            return None
        first = self.slots[0]
        if not first.dropped:
            return self.slots.pop(0).message
        of_stream = [slot for slot in self.slots if slot.stream == first.stream]
        newest = of_stream[-1].message.source
        assert newest is not None
        epoch, offset = newest.epoch, newest.offset
        for slot in of_stream:
            source = slot.message.source
            assert source is not None
            if not slot.dropped:
                epoch, offset = source.epoch, source.offset - 1
                break
            self.slots = [other for other in self.slots if other is not slot]
        return gap(newest.channel, offset, epoch=epoch, presence=newest.presence)


class Talker:
    """Makes publications whose offsets rise in each stream, at times with a hole, at times in a new epoch."""

    def __init__(self) -> None:
        self.positions: dict[tuple[str, bool], tuple[str, int]] = {}

    def say(self, draw: tuple[str, int, int, str, bool, int, int]) -> Encoded:
        channel, policy, step, key, presence, size, fresh = draw
        if channel == "!":
            return answer(size)
        policies = POLICIES[channel]
        epoch, offset = self.positions.get((channel, presence), ("0", 0))
        if fresh == 0:
            epoch, offset = str(int(epoch) + 1), 0
        offset += step
        self.positions[channel, presence] = (epoch, offset)
        chosen = policies[policy % len(policies)]
        return said(channel, offset, chosen, key=key, epoch=epoch, size=size, presence=presence)


DRAWS = st.tuples(
    st.sampled_from(["!", *POLICIES]),
    st.integers(0, 1),
    st.integers(1, 2),
    st.sampled_from(["x", "y", "z"]),
    st.booleans(),
    st.integers(8, 40),
    st.integers(0, 9),
)


class BacklogMachine(RuleBasedStateMachine):
    @initialize(max_bytes=st.integers(1, 200), max_messages=st.integers(1, 8))
    def start(self, max_bytes: int, max_messages: int) -> None:
        self.backlog = Backlog(max_bytes=max_bytes, max_messages=max_messages)
        self.model = Model(max_bytes, max_messages)
        self.talker = Talker()

    @rule(draws=st.lists(DRAWS, max_size=6))
    def push(self, draws: list[tuple[str, int, int, str, bool, int, int]]) -> None:
        messages = [self.talker.say(draw) for draw in draws]
        if self.backlog.push(messages):
            assert all(self.model.push(message) for message in messages)
        else:
            assert not all(self.model.push(message) for message in messages)
            self.clear()

    @rule(max_bytes=st.integers(1, 300))
    def pop(self, max_bytes: int) -> None:
        popped = self.backlog.pop(max_bytes)
        assert bool(popped) == bool(self.model.slots)
        assert readable(popped) == [self.model.pop() for _ in popped]
        assert len(popped) <= 1 or sum(len(message.json) for message in popped) <= max_bytes

    @rule()
    def clear(self) -> None:
        self.backlog.clear()
        self.model.slots.clear()

    @invariant()
    def agrees(self) -> None:
        waiting = self.model.waiting
        assert (len(self.backlog), self.backlog.bytes) == (len(waiting), self.model.bytes)
        assert bool(self.backlog) == bool(self.model.slots)
        assert len(self.backlog) <= self.model.max_messages
        assert self.backlog.bytes <= self.model.max_bytes + 40
        if not self.backlog:
            assert not self.backlog._streams
            assert not self.backlog._latest
            assert self.backlog._head is self.backlog._tail is self.backlog._oldest is None


TestBacklogMachine = BacklogMachine.TestCase


@given(
    st.lists(st.one_of(DRAWS, st.integers(1, 300)), max_size=60),
    st.integers(1, 200),
    st.integers(1, 8),
)
def test_whoever_has_heard_a_message_has_heard_of_all_before_it(
    steps: list[tuple[str, int, int, str, bool, int, int] | int], max_bytes: int, max_messages: int
) -> None:
    backlog = Backlog(max_bytes=max_bytes, max_messages=max_messages)
    talker = Talker()
    pushed: list[Encoded] = []
    heard: list[Encoded] = []
    for step in steps:
        if isinstance(step, int):
            heard += backlog.pop(step)
            continue
        message = talker.say(step)
        if not backlog.push([message]):
            break
        pushed.append(message)
    heard += backlog.pop(MUCH)

    told: dict[tuple[str, bool], Position] = {}
    gaps: dict[tuple[str, bool], Position] = {}
    unheard = list(pushed)
    for message in heard:
        if message.event == "gap":
            fields = json.loads(message.json)
            stream = (fields["channel"], "stream" in fields)
            before = told.get(stream, (0, 0))
            told[stream] = (int(fields["epoch"]), fields["offset"])
            # It announces something, and it is the only one to do so.
            announced = [each for each in unheard if stream_of(each) == stream and position_of(each) <= told[stream]]
            assert announced
            assert all(position_of(each) > before for each in announced)
            assert not any(each is other for each in announced for other in heard)
            # It leads to the next that is heard, unless there was none yet: then it names what was dropped last.
            if told[stream] != position_of(announced[-1]):
                gaps[stream] = told[stream]
            unheard = [each for each in unheard if not any(each is other for other in announced)]
            continue
        # Whatever was pushed before it has been heard or announced, whichever stream it is of.
        assert unheard.pop(0) is message
        if message.source is not None:
            stream = stream_of(message)
            epoch, offset = told[stream] = position_of(message)
            assert gaps.pop(stream, (epoch, offset - 1)) == (epoch, offset - 1)
    assert unheard == []
    assert backlog.gaps == sum(message.event == "gap" for message in heard)
    assert backlog.dropped == len(pushed) - len(heard) + backlog.gaps


Position: TypeAlias = tuple[int, int]


def stream_of(message: Encoded) -> tuple[str, bool]:
    return ("!", False) if message.source is None else (message.source.channel, message.source.presence)


def position_of(message: Encoded) -> Position:
    assert message.source is not None
    return int(message.source.epoch), message.source.offset
