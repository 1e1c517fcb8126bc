"""The driver: the one that asks the clock, carries out what the node says and calls the application."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import TaskGroup

from rtcore import CloseCode, CommandError, LocalProtocolError, Message, NodeConfig, Refusal, Transport
from rtcore_transports import Driver, Sender
from rtcore_transports.background import Background
from rtcore_transports.fanout import Batch

from .servers import TIMEOUT

pytestmark = pytest.mark.anyio


class Outlet:
    """Remembers what it is given."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.closed: tuple[int, str] | None = None
        self.news = anyio.Event()

    def deliver(self, batch: Batch) -> None:
        assert self.closed is None
        self.heard += [message.text for message in batch.messages]
        self._tell()

    def close(self, code: int, reason: str) -> None:
        self.closed = (code, reason)
        self._tell()

    def _tell(self) -> None:
        self.news.set()
        self.news = anyio.Event()

    async def hears(self, what: str) -> str:
        with anyio.fail_after(TIMEOUT):
            while not any(what in text for text in self.heard):
                await self.news.wait()
        return next(text for text in self.heard if what in text)


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Alarm:
    """Something with deadlines."""

    def __init__(self, *deadlines: float) -> None:
        self.deadlines = list(deadlines)
        self.rang: list[float] = []
        self.done = anyio.Event()

    def next_timeout(self) -> float | None:
        return self.deadlines[0] if self.deadlines else None

    def handle_timeout(self, *, now: float) -> None:
        self.rang.append(self.deadlines.pop(0))
        if not self.deadlines:
            self.done.set()


def attach(driver: Driver, connection_id: str, user_id: str | None = None, *channels: str) -> Outlet:
    outlet = Outlet()
    driver.attach(outlet, connection_id, user_id=user_id, transport=Transport.WEBSOCKET, channels=channels)
    return outlet


@pytest.fixture
async def tasks(anyio_backend: str) -> AsyncIterator[TaskGroup]:
    async with anyio.create_task_group() as group:
        yield group
        group.cancel_scope.cancel()


@pytest.fixture
async def driver(tasks: TaskGroup) -> Driver:
    made = Driver(NodeConfig(websocket_heartbeat=None))
    tasks.start_soon(made.run)
    return made


# Connections


async def test_coming_and_going(driver: Driver) -> None:
    one, two = attach(driver, "1", "ann", "room"), attach(driver, "2", None, "room")
    await two.hears('"connected"')
    driver.publish("room", {"type": "note"})
    await two.hears('"note"')
    await one.hears('"note"')
    driver.detach("1", one)
    driver.detach("1", one)
    await two.hears('"user_left"')
    assert driver.stats()["total_connections"] == 1
    assert one.closed is None


async def test_an_id_is_taken(driver: Driver) -> None:
    one = attach(driver, "1")
    with pytest.raises(LocalProtocolError):
        attach(driver, "1")
    driver.publish_to_connection("1", {"type": "note"})
    await one.hears('"note"')


async def test_an_outlet_takes_nobody_elses_connection_with_it(driver: Driver) -> None:
    """An old connection that ends late must not end the one that has its id by now."""
    old = attach(driver, "1")
    assert driver.close("1", CloseCode.GOING_AWAY, "replaced", reconnect=False)
    new = attach(driver, "1")
    driver.slow("1", old)
    driver.detach("1", old)
    driver.publish_to_connection("1", {"type": "note"})
    await new.hears('"note"')
    assert old.closed == (1001, "replaced")
    assert new.closed is None


async def test_closing(driver: Driver) -> None:
    outlet = attach(driver, "1")
    driver.publish_to_connection("1", {"type": "note"})
    assert driver.close("1", CloseCode.NORMAL_CLOSURE, "enough")
    # All of it is written before the close, at once.
    assert ['"note"' in text for text in outlet.heard] == [False, True, False]
    assert '"disconnect"' in outlet.heard[-1]
    assert outlet.closed == (1000, "enough")
    assert not driver.close("1", CloseCode.NORMAL_CLOSURE, "enough")
    assert driver.receive_text("1", "too late") == []


async def test_whoever_is_slow_is_closed(driver: Driver) -> None:
    outlet = attach(driver, "1")
    await outlet.hears('"connected"')
    driver.slow("1", outlet)
    driver.slow("1", outlet)
    with anyio.fail_after(TIMEOUT):
        while outlet.closed is None:
            await outlet.news.wait()
    assert outlet.closed[0] == 4410


async def test_draining(driver: Driver) -> None:
    outlets = [attach(driver, str(number), None, "room") for number in range(3)]
    driver.drain()
    assert [outlet.closed for outlet in outlets] == [(1012, "the server is restarting")] * 3
    assert all('"disconnect"' in outlet.heard[-1] for outlet in outlets)
    assert not any("user_left" in text for outlet in outlets for text in outlet.heard)
    assert driver.node.admit(Transport.SSE) is not None


async def test_what_cannot_be_done(driver: Driver) -> None:
    attach(driver, "1")
    outcomes = [
        driver.publish_to_connection("nobody", {"type": "note"}),
        driver.subscribe("nobody", "room"),
        driver.unsubscribe("nobody", "room"),
        driver.subscribe("1", "$room"),
    ]
    assert [each.code for each in outcomes if isinstance(each, Refusal)] == ["not_found"] * 3 + ["invalid_channel"]
    assert driver.subscribe("1", "room") is None
    assert driver.unsubscribe("1", "room") is None


# The application


async def test_handlers(driver: Driver) -> None:
    senders: list[Sender] = []

    async def order(message: Message, sender: Sender) -> Message | None:
        senders.append(sender)
        if message.get("item") == "nothing":
            raise CommandError("nothing_ordered", "name an item")
        return {"item": message["item"]}

    driver.handlers["order"] = order
    outlet = attach(driver, "1", "ann")
    for text in ('{"type": "order", "item": "tea", "id": 1}', '{"type": "order", "item": "nothing", "id": 2}'):
        (handle,) = driver.receive_text("1", text)
        await driver.handle(handle)
    assert '"item":"tea"' in await outlet.hears('"id":1')
    assert '"code":"nothing_ordered"' in await outlet.hears('"id":2')
    assert senders == [Sender("1", "ann")] * 2


@pytest.mark.parametrize("item", ["raise", "no json", "gone"])
async def test_a_handler_that_fails(driver: Driver, item: str, faults: list[logging.LogRecord]) -> None:
    async def order(message: Message, sender: Sender) -> Message:
        if item == "raise":
            raise ValueError("a fault of the application")
        return {"item": object()}

    driver.handlers["order"] = order
    outlet = attach(driver, "1")
    (handle,) = driver.receive_text("1", '{"type": "order", "id": 1}')
    if item == "gone":
        del driver.handlers["order"]
    await driver.handle(handle)
    assert '"code":"internal_error"' in await outlet.hears('"id":1')
    assert len(faults) == 1
    faults.clear()


async def test_a_handler_whose_client_has_left(driver: Driver) -> None:
    async def order(message: Message, sender: Sender) -> Message:
        driver.detach("1", outlet)
        return {"item": object()}

    driver.handlers["order"] = order
    outlet = attach(driver, "1")
    (handle,) = driver.receive_text("1", '{"type": "order", "id": 1}')
    await driver.handle(handle)


# Deadlines


async def test_deadlines_come_due_in_order(tasks: TaskGroup) -> None:
    clock = Clock()
    driver = Driver(NodeConfig(websocket_heartbeat=None), clock=clock)
    late, early = Alarm(1000.02, 1000.03), Alarm(1000.01)
    driver.rekey(late)
    tasks.start_soon(driver.run)
    await anyio.wait_all_tasks_blocked()
    driver.rekey(early)
    clock.now = 1000.025
    with anyio.fail_after(TIMEOUT):
        await early.done.wait()
    assert (late.rang, early.rang) == ([1000.02], [1000.01])
    clock.now = 1001.0
    with anyio.fail_after(TIMEOUT):
        await late.done.wait()


async def test_a_deadline_that_moved_later(tasks: TaskGroup) -> None:
    clock = Clock()
    driver = Driver(NodeConfig(websocket_heartbeat=None), clock=clock)
    moved, other = Alarm(1000.01), Alarm(1000.02)
    driver.rekey(moved)
    driver.rekey(other)
    # The driver is not told: it finds out when the earlier one comes up.
    moved.deadlines = [2000.0]
    tasks.start_soon(driver.run)
    clock.now = 1000.5
    with anyio.fail_after(TIMEOUT):
        await other.done.wait()
    assert moved.rang == []


async def test_what_is_forgotten_does_not_ring(tasks: TaskGroup) -> None:
    clock = Clock()
    driver = Driver(NodeConfig(websocket_heartbeat=None), clock=clock)
    forgotten, other = Alarm(1000.01), Alarm(1000.02)
    driver.rekey(forgotten)
    driver.rekey(other)
    driver.forget(forgotten)
    clock.now = 1000.5
    tasks.start_soon(driver.run)
    with anyio.fail_after(TIMEOUT):
        await other.done.wait()
    assert forgotten.rang == []


async def test_heartbeats(tasks: TaskGroup) -> None:
    driver = Driver(NodeConfig(websocket_heartbeat=0.01), wall_clock=lambda: 1_700_000_000_123_456_789)
    outlet = attach(driver, "1")
    tasks.start_soon(driver.run)
    assert await outlet.hears('"heartbeat"') == '{"type":"heartbeat","timestamp":1700000000123}'


# In the background


async def test_it_runs_while_somebody_is_there(anyio_backend: str) -> None:
    driver = Driver(NodeConfig(websocket_heartbeat=None))
    for _ in range(3):
        outlet = attach(driver, "1")
        driver.ensure_running()
        driver.ensure_running()
        await outlet.hears('"connected"')
        driver.detach("1", outlet)
        again = attach(driver, "1")
        driver.ensure_running()
        await again.hears('"connected"')
        driver.close("1", CloseCode.NORMAL_CLOSURE, "enough")
        await anyio.wait_all_tasks_blocked()


def test_one_event_loop_after_the_other() -> None:
    driver = Driver(NodeConfig(websocket_heartbeat=0.01))

    async def visit() -> None:
        outlet = attach(driver, "1")
        driver.ensure_running()
        await outlet.hears('"heartbeat"')
        driver.detach("1", outlet)

    for backend in ("asyncio", "trio", "asyncio", "trio"):
        anyio.run(visit, backend=backend)


async def test_a_background_task_that_fails(anyio_backend: str, faults: list[logging.LogRecord]) -> None:
    async def fail() -> None:
        raise ValueError("a fault of ours")

    background = Background()
    background.start(fail)
    await background.wait()
    assert not background.running
    assert [record.getMessage() for record in faults] == ["a background task failed"]
    faults.clear()


async def test_a_background_task_that_is_stopped(anyio_backend: str) -> None:
    background = Background()
    await background.stop()
    background.start(anyio.sleep_forever)
    assert background.running
    await background.stop()
    assert not background.running
    await background.wait()
