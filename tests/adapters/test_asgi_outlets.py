"""What stands before an ASGI host that takes no more: what waits there, what is dropped, and what is told of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, MutableMapping
from typing import Any

import anyio
import pytest
from anyio.abc import TaskGroup

from rtcore import Encoded, EventStreamParser, Message, Transport
from rtcore.encoded import Source
from rtcore.event_stream import Event
from rtcore.namespaces import SlowConsumer
from rtcore_adapters.asgi_outlets import EventStreamOutlet, QueueOutlet, WebSocketOutlet
from rtcore_transports import Admission, Batch, Driver

pytestmark = pytest.mark.anyio

TIMEOUT = 10.0
OUTLETS = [WebSocketOutlet, EventStreamOutlet]


class AsgiHost:
    """Takes what it is given only while it is open."""

    def __init__(self) -> None:
        self.got: list[Mapping[str, Any]] = []
        self.open = anyio.Event()
        self.fault: Exception | None = None

    async def send(self, message: MutableMapping[str, Any]) -> None:
        await self.open.wait()
        if self.fault is not None:
            raise self.fault
        self.got.append(message)

    @property
    def heard(self) -> list[Message]:
        heard: list[Message] = [json.loads(message["text"]) for message in self.got if "text" in message]
        body = b"".join(message["body"] for message in self.got if "body" in message)
        events = EventStreamParser().receive_data(body)
        return heard + [json.loads(event.data) for event in events if isinstance(event, Event)]


def said(number: int, policy: SlowConsumer, key: str = "") -> Encoded:
    source = Source("room", "e", number, policy, key)
    return Encoded(json.dumps({"type": "tick", "number": number, "data": "x" * 5000}).encode(), source=source)


def batch(*messages: Encoded) -> Batch:
    return Batch(list(enumerate(messages)))


@pytest.fixture
def driver() -> Driver:
    return Driver()


@pytest.fixture
async def host(anyio_backend: str) -> AsgiHost:
    return AsgiHost()


@pytest.fixture(params=OUTLETS)
async def outlet(
    request: pytest.FixtureRequest, driver: Driver, host: AsgiHost, tasks: TaskGroup
) -> AsyncIterator[QueueOutlet]:
    tasks.start_soon(driver.run)
    made: QueueOutlet = request.param(host.send, driver, "c", max_bytes=2**20, max_messages=10)
    yield made
    driver.detach("c", made)
    made.abandon()
    assert driver.stats()["backlog_bytes"] == 0


async def written(outlet: QueueOutlet, host: AsgiHost) -> None:
    """Close the outlet, have the host take everything, and wait for the end of it."""
    outlet.close(1000, "enough")
    host.open.set()
    with anyio.fail_after(TIMEOUT):
        await outlet.write()


async def test_what_comes_first_is_taken_whole(outlet: QueueOutlet, driver: Driver, host: AsgiHost) -> None:
    outlet.deliver(batch(*(said(number, SlowConsumer.DISCONNECT) for number in range(1, 101))))
    outlet.deliver(batch(*(said(number, SlowConsumer.DISCONNECT) for number in range(101, 111))))
    await written(outlet, host)
    assert [message["number"] for message in host.heard] == list(range(1, 111))
    assert driver.stats()["slow_disconnects"] == 0


async def test_the_oldest_are_dropped(outlet: QueueOutlet, driver: Driver, host: AsgiHost) -> None:
    for number in range(1, 101):
        outlet.deliver(batch(said(number, SlowConsumer.DROP_OLDEST)))
    assert driver.stats()["dropped_messages"] == 89
    await written(outlet, host)
    gap = {"type": "gap", "channel": "room", "epoch": "e", "offset": 90, "reason": "slow_consumer"}
    assert [message.get("number", message) for message in host.heard] == [1, gap, *range(91, 101)]
    assert driver.stats()["gaps"] == 1


async def test_the_latest_are_kept(outlet: QueueOutlet, driver: Driver, host: AsgiHost, tasks: TaskGroup) -> None:
    tasks.start_soon(outlet.write)
    await anyio.wait_all_tasks_blocked()
    for number in range(1, 101):
        outlet.deliver(batch(said(number, SlowConsumer.LATEST, f"k{number % 3}")))
        await anyio.wait_all_tasks_blocked()
    assert driver.stats()["dropped_messages"] == 96
    host.open.set()
    with anyio.fail_after(TIMEOUT):
        while len(host.heard) < 5:
            await anyio.wait_all_tasks_blocked()
    assert [message.get("number", message["type"]) for message in host.heard] == [1, "gap", 98, 99, 100]
    # From here on nothing is in the way.
    outlet.deliver(batch(said(101, SlowConsumer.LATEST)))
    await anyio.wait_all_tasks_blocked()
    assert host.heard[-1]["number"] == 101


async def test_whoever_may_miss_nothing_is_ended(
    outlet: QueueOutlet, driver: Driver, host: AsgiHost, tasks: TaskGroup
) -> None:
    driver.attach(outlet, "c", Admission(None, ()), transport=Transport.WEBSOCKET)
    tasks.start_soon(outlet.write)
    await anyio.wait_all_tasks_blocked()
    for number in range(1, 13):
        outlet.deliver(batch(said(number, SlowConsumer.DISCONNECT)))
    await anyio.wait_all_tasks_blocked()
    assert driver.stats()["slow_disconnects"] == 1
    assert driver.stats()["backlog_bytes"] == 0
    outlet.deliver(batch(said(13, SlowConsumer.DISCONNECT)))
    host.open.set()
    await anyio.wait_all_tasks_blocked()
    # What the host had already, and then why there is no more.
    assert [message["type"] for message in host.heard] == ["connected", "disconnect"]
    assert host.heard[-1]["code"] == 4410


async def test_a_client_that_is_gone_leaves_nothing(outlet: QueueOutlet, driver: Driver, host: AsgiHost) -> None:
    driver.attach(outlet, "c", Admission(None, ()), transport=Transport.WEBSOCKET)
    for number in range(1, 6):
        outlet.deliver(batch(said(number, SlowConsumer.DROP_OLDEST)))
    host.fault = OSError("gone")
    host.open.set()
    await outlet.write()
    assert driver.stats()["total_connections"] == 0
    assert driver.stats()["backlog_bytes"] == 0
    outlet.deliver(batch(said(6, SlowConsumer.DROP_OLDEST)))
    outlet.deliver(batch(said(7, SlowConsumer.DROP_OLDEST)))
    assert driver.stats()["backlog_bytes"] == 0
