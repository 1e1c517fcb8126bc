"""The driver: the one that asks the clock, carries out what the node says and calls the application."""

from __future__ import annotations

import logging

import anyio
import anyio.lowlevel
import msgspec
import pytest
from anyio.abc import TaskGroup

from rtcore import (
    CloseCode,
    CommandError,
    LocalProtocolError,
    Message,
    Namespace,
    Namespaces,
    NodeConfig,
    Refusal,
    RouterConfig,
    Transport,
)
from rtcore.permissions import OPEN
from rtcore.router import Published, Request
from rtcore.signaling import CreateRoom, JoinRoom, SignalingConfig
from rtcore_transports import Admission, Driver, Sender
from rtcore_transports.background import Background

from .outlets import Outlet, attach
from .servers import TIMEOUT

pytestmark = pytest.mark.anyio


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
    assert driver.stats()["slow_disconnects"] == 1


async def test_draining(driver: Driver) -> None:
    outlets = [attach(driver, str(number), None, "room") for number in range(3)]
    driver.drain()
    assert [outlet.closed for outlet in outlets] == [(1012, "the server is restarting")] * 3
    assert all('"disconnect"' in outlet.heard[-1] for outlet in outlets)
    assert not any("user_left" in text for outlet in outlets for text in outlet.heard)
    assert driver.node.admit(Transport.SSE) is not None


async def test_going_on_from_a_token(driver: Driver) -> None:
    published = driver.publish("room", {"type": "note", "data": 1})
    assert isinstance(published, Published)
    driver.publish("room", {"type": "note", "data": 2})
    outlet = Outlet()
    admission = Admission(None, ("room",), grant=OPEN, session="secret", last_event_id=published.id)
    driver.attach(outlet, "1", admission, transport=Transport.SSE)
    connected = msgspec.json.decode(await outlet.hears('"connected"'))
    assert connected["recovered"] is True
    assert '"data":2' in await outlet.hears('"note"')
    again = Outlet()
    driver.attach(again, "2", Admission(None, (), session="secret"), transport=Transport.WEBSOCKET)
    assert msgspec.json.decode(await again.hears('"connected"'))["session_epoch"] == connected["session_epoch"]


async def test_history(driver: Driver) -> None:
    driver.publish("room", {"type": "note"})
    page = driver.history({"channel": "room"})
    assert isinstance(page, dict)
    assert page["offset"] == 1
    refused = driver.history({"channel": "room", "limit": 0})
    assert isinstance(refused, Refusal)
    assert refused.code == "invalid_limit"


async def test_a_message_too_large_for_its_channel(tasks: TaskGroup) -> None:
    namespaces = Namespaces([Namespace(pattern="small", max_message_size=100)])
    driver = Driver(NodeConfig(router=RouterConfig(namespaces=namespaces)))
    refused = driver.publish("small", {"type": "note", "data": "x" * 100})
    assert isinstance(refused, Refusal)
    assert refused.code == "message_too_large"


async def test_a_leave_that_waits_comes_by_itself(tasks: TaskGroup) -> None:
    namespaces = Namespaces(default=Namespace(pattern="*", presence_grace=0.01))
    driver = Driver(NodeConfig(websocket_heartbeat=None, router=RouterConfig(namespaces=namespaces)))
    tasks.start_soon(driver.run)
    ann, bob = attach(driver, "1", "ann", "room"), attach(driver, "2", "bob", "room")
    driver.detach("1", ann)
    await bob.hears('"user_left"')


async def test_what_was_due_while_nobody_was_connected(anyio_backend: str) -> None:
    clock = Clock()
    driver = Driver(NodeConfig(websocket_heartbeat=None, signaling=SignalingConfig(peer_ttl=5.0)), clock=clock)
    join = JoinRoom(Request(None), CreateRoom(Request(None), "lobby"), "ann")

    def come(connection_id: str) -> Outlet:
        outlet = Outlet()
        driver.attach(outlet, connection_id, Admission(None, (), room=join), transport=Transport.WEBSOCKET)
        return outlet

    def who() -> list[str | None]:
        return [peer.connection_id for room in driver.signaling.rooms for peer in room.peers.values()]

    driver.detach("1", come("1"))
    clock.now += 4.9
    second = come("2")
    assert who() == [None]  # it waits for the first: the second is somebody else
    driver.detach("2", second)
    clock.now += 0.2
    third = come("3")
    assert who() == ["3"]
    driver.detach("3", third)
    clock.now += 5.0
    assert driver.stats()["webrtc_peers"] == 0
    clock.now += 300.0
    assert driver.signaling.describe() == []
    assert driver.node.empty


async def test_who_is_present_though_nobody_is_connected(anyio_backend: str) -> None:
    clock = Clock()
    chat = Namespaces((Namespace(pattern="chat", presence_grace=5.0),))
    driver = Driver(NodeConfig(router=RouterConfig(namespaces=chat), signaling=None), clock=clock)
    driver.detach("1", attach(driver, "1", "ann", "chat"))

    def count() -> object:
        driver.catch_up()
        present = driver.node.presence("chat")
        assert not isinstance(present, Refusal)
        return present["count"]

    clock.now += 4.9
    assert count() == 1
    clock.now += 0.2
    assert count() == 0


async def test_a_room_that_nobody_enters_goes_by_itself(tasks: TaskGroup) -> None:
    driver = Driver(NodeConfig(signaling=SignalingConfig(room_ttl=0.01)))
    tasks.start_soon(driver.run)
    await anyio.wait_all_tasks_blocked()
    driver.create_room(CreateRoom(Request(None), "lobby"))
    assert not driver.node.empty
    with anyio.fail_after(TIMEOUT):
        while not driver.node.empty:
            await anyio.lowlevel.checkpoint()


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
            raise CommandError("nothing_ordered", "name an item", 1.5)
        return {"item": message["item"]}

    driver.handlers["order"] = order
    outlet = attach(driver, "1", "ann")
    for text in ('{"type": "order", "item": "tea", "id": 1}', '{"type": "order", "item": "nothing", "id": 2}'):
        (handle,) = driver.receive_text("1", text)
        await driver.handle(handle)
    assert '"item":"tea"' in await outlet.hears('"id":1')
    refused = await outlet.hears('"id":2')
    assert '"code":"nothing_ordered"' in refused
    # Whole seconds, and not before the time has come.
    assert '"retry_after":2' in refused
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
