"""The fan-out: what is joined, in which order it is written, and who waits for whom."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from itertools import pairwise

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtcore import Encoded, encode
from rtcore_transports.fanout import SLICE, Batch, Fanout

pytestmark = pytest.mark.anyio


class Ear:
    """An outlet that remembers what it is given, and the order among all ears."""

    def __init__(self, order: list[Ear] | None = None) -> None:
        self.batches: list[Batch] = []
        self.order = [] if order is None else order

    @property
    def heard(self) -> list[object]:
        return [message for batch in self.batches for message in batch.messages]

    def deliver(self, batch: Batch) -> None:
        self.batches.append(batch)
        self.order.append(self)

    def close(self, code: int, reason: str) -> None:
        raise AssertionError("the fan-out closes nobody")


def message(number: int) -> Encoded:
    return encode({"type": "tick", "number": number})


def ears(fanout: Fanout, count: int, prefix: str = "c") -> tuple[list[Ear], tuple[str, ...]]:
    order: list[Ear] = []
    names = tuple(f"{prefix}{number}" for number in range(count))
    made = [Ear(order) for _ in names]
    fanout.outlets.update(zip(names, made, strict=True))
    return made, names


@pytest.fixture
def fanout() -> Fanout:
    return Fanout()


@pytest.fixture
async def run(anyio_backend: str, fanout: Fanout) -> AsyncIterator[Callable[[], None]]:
    """Run the fan-out, and return what starts it, for tests that do something before."""
    async with anyio.create_task_group() as tasks:

        def start() -> None:
            tasks.start_soon(fanout.run, lambda: None)

        yield start
        tasks.cancel_scope.cancel()


async def settled(fanout: Fanout) -> None:
    while not fanout.idle:
        await anyio.lowlevel.checkpoint()


async def test_a_tick_is_one_write(fanout: Fanout, run: Callable[[], None]) -> None:
    listening, names = ears(fanout, 20)
    messages = [message(number) for number in range(5)]
    for each in messages:
        fanout.add(each, names)
    assert fanout.delivered == 100
    assert [ear.batches for ear in listening] == [[]] * 20
    run()
    await settled(fanout)
    assert [len(ear.batches) for ear in listening] == [1] * 20
    assert listening[0].heard == messages
    # All of them share the joined bytes.
    batch = listening[0].batches[0]
    assert all(ear.batches == [batch] for ear in listening)
    assert batch.frames is batch.frames
    assert batch.frames == b"".join(each.frame for each in messages)
    assert batch.event_stream is batch.event_stream
    assert batch.event_stream == b"".join(each.event_stream for each in messages)
    assert batch.count == 5


async def test_channels_are_joined_in_the_order_of_delivery(fanout: Fanout, run: Callable[[], None]) -> None:
    listening, names = ears(fanout, 20)
    red, blue, alone = names[:15], names[5:], names[:1]
    messages = [message(number) for number in range(6)]
    for each, connections in zip(messages, [red, blue, red, alone, blue, red], strict=True):
        fanout.add(each, connections)
    run()
    await settled(fanout)
    in_red = [messages[index] for index in (0, 2, 5)]
    in_blue = [messages[index] for index in (1, 4)]
    assert listening[0].heard == [messages[0], messages[2], messages[3], messages[5]]
    assert [ear.heard for ear in listening[1:5]] == [in_red] * 4
    assert [ear.heard for ear in listening[5:15]] == [[messages[index] for index in (0, 1, 2, 4, 5)]] * 10
    assert [ear.heard for ear in listening[15:]] == [in_blue] * 5
    # Whoever hears the same shares the same bytes, whichever channels they came from.
    assert all(ear.batches[0] is listening[5].batches[0] for ear in listening[5:15])


async def test_whoever_is_left_out(fanout: Fanout, run: Callable[[], None]) -> None:
    listening, names = ears(fanout, 200)
    fanout.add(message(1), names, names[3])
    fanout.add(message(2), ("unknown", *names[:4]), "unknown")
    fanout.add(message(3), names, "unknown")
    run()
    await settled(fanout)
    assert listening[3].heard == [message(2), message(3)]
    assert listening[0].heard == [message(1), message(2), message(3)]
    assert listening[150].heard == [message(1), message(3)]


async def test_a_small_delivery_does_not_wait_for_a_large_one(fanout: Fanout, run: Callable[[], None]) -> None:
    listening, names = ears(fanout, 10 * SLICE)
    order = listening[0].order
    fanout.add(message(1), names)
    run()
    while not order:
        await anyio.lowlevel.checkpoint()
    # Trio runs its tasks in any order, so the fan-out may have had two turns.
    assert SLICE <= len(order) <= 2 * SLICE
    last = listening[-1]
    fanout.add(message(2), names[-1:])
    while not last.batches:
        await anyio.lowlevel.checkpoint()
    # It comes with what was delivered before it, and long before the end of the large one.
    assert last.heard == [message(1), message(2)]
    assert len(order) <= 6 * SLICE
    await settled(fanout)
    assert [len(ear.batches) for ear in listening] == [1] * len(listening)


async def test_the_loop_runs_between_slices(fanout: Fanout, run: Callable[[], None]) -> None:
    listening, names = ears(fanout, 6 * SLICE + 1)
    fanout.add(message(1), names)
    run()
    lengths = [0]
    while not fanout.idle:
        await anyio.lowlevel.checkpoint()
        lengths.append(len(listening[0].order))
    # Whichever of the two tasks an event loop takes first, the other has its turn before the first has two more.
    assert all(later - earlier <= 2 * SLICE for earlier, later in pairwise(lengths))


async def test_what_comes_meanwhile_joins_what_waits(fanout: Fanout, run: Callable[[], None]) -> None:
    listening, names = ears(fanout, 5 * SLICE)
    fanout.add(message(1), names)
    run()
    while not listening[0].order:
        await anyio.lowlevel.checkpoint()
    fanout.add(message(2), names)
    await settled(fanout)
    assert all(ear.heard == [message(1), message(2)] for ear in listening)
    writes = [len(ear.batches) for ear in listening]
    assert writes[:SLICE] == [2] * SLICE
    assert writes[-2 * SLICE :] == [1] * 2 * SLICE


async def test_settling(fanout: Fanout, run: Callable[[], None]) -> None:
    listening, names = ears(fanout, 20)
    fanout.add(message(1), names)
    fanout.add(message(2), names[:2])
    fanout.settle(names[1])
    assert listening[1].heard == [message(1), message(2)]
    assert listening[5].batches == []
    fanout.settle("unknown")
    # What it has set in order already is written as well, though nothing is added any more.
    run()
    await settled(fanout)
    assert listening[5].heard == [message(1)]
    assert len(listening[1].batches) == 1


async def test_waking(anyio_backend: str, fanout: Fanout) -> None:
    woken = anyio.Event()
    fanout.wake()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(fanout.run, lambda: woken.set())
        await woken.wait()
        await anyio.wait_all_tasks_blocked()
        woken = anyio.Event()
        fanout.wake()
        await woken.wait()
        tasks.cancel_scope.cancel()


def test_one_event_loop_after_the_other(fanout: Fanout) -> None:
    (ear,), names = ears(fanout, 1)

    async def once(number: int) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fanout.run, lambda: None)
            await anyio.wait_all_tasks_blocked()
            fanout.add(message(number), names)
            await settled(fanout)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()

    for number, backend in enumerate(["asyncio", "asyncio", "trio", "asyncio"]):
        anyio.run(once, number, backend=backend)
    assert ear.heard == [message(number) for number in range(4)]


CHANNELS = [tuple(f"c{number}" for number in range(start, end)) for start, end in ((0, 4), (0, 150), (50, 90), (3, 3))]


@given(
    st.lists(st.tuples(st.sampled_from(CHANNELS), st.sampled_from([None, "c1", "c60", "nobody"])), max_size=20),
    st.lists(st.sampled_from(["c0", "c60", "c149"]), max_size=3),
)
def test_everybody_hears_their_own_in_order(
    deliveries: list[tuple[tuple[str, ...], str | None]], settled_ones: list[str]
) -> None:
    fanout = Fanout()
    listening, names = ears(fanout, 150)
    expected: dict[str, list[Encoded]] = {name: [] for name in names}
    for number, (connections, skip) in enumerate(deliveries):
        fanout.add(message(number), connections, skip)
        for name in connections:
            if name != skip:
                expected[name].append(message(number))
        if number % 7 == 6 and settled_ones:
            fanout.settle(settled_ones.pop())

    async def run() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fanout.run, lambda: None)
            await settled(fanout)
            tasks.cancel_scope.cancel()

    anyio.run(run)
    assert {name: ear.heard for name, ear in zip(names, listening, strict=True)} == expected
