"""Clients that stop reading, on real sockets: what becomes of them, and that nobody else ever waits for them."""

from __future__ import annotations

import json
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

import anyio
import anyio.lowlevel
import anyio.to_thread
import attrs
import pytest

from rtcore import Event, EventStreamParser, Message, NodeConfig, RouterConfig, WebSocketConfig
from rtcore.namespaces import Namespace, Namespaces, SlowConsumer
from rtcore_transports import EndpointConfig, GateConfig, WSClient

from ..adapters.clients import get, masked_frame, raw_upgrade, read_frames
from .servers import TIMEOUT, Server, patiently, receive

pytestmark = pytest.mark.anyio

MAX_WAITING = 30
# Far more than networks take in for somebody who does not read.
TOO_MANY = 2000
BODY = "x" * 20_000
TRANSPORTS = ["websocket", "event stream"]


def channels(pattern: str, policy: SlowConsumer) -> Namespace:
    return Namespace(pattern=pattern, slow_consumer=policy, join_leave=False)


@pytest.fixture
async def server(idle_server: Server) -> Server:
    namespaces = Namespaces((channels("feed:*", SlowConsumer.DROP_OLDEST), channels("state:*", SlowConsumer.LATEST)))
    router = RouterConfig(namespaces=namespaces)
    idle_server.node = NodeConfig(websocket_heartbeat=None, sse_heartbeat=None, router=router)
    idle_server.config = EndpointConfig(
        gate=GateConfig(allow_anonymous=True),
        websocket=WebSocketConfig(ping_interval=None),
        max_waiting=MAX_WAITING,
    )
    await idle_server.start()
    return idle_server


class Stuck:
    """A client on a bare socket that reads nothing until it is told to."""

    def __init__(self, sock: socket.socket, transport: str) -> None:
        self.sock = sock
        self._transport = transport

    async def read(self, until: Callable[[Message], bool] = lambda message: False) -> list[Message]:
        """Read on until a message that is looked for, or the end; the code of a Close frame comes as a message."""

        def read() -> list[Message]:
            heard: list[Message] = []
            messages = self._frames() if self._transport == "websocket" else self._events()
            for message in messages:
                heard.append(message)
                if until(message):
                    break
            return heard

        return await anyio.to_thread.run_sync(read)

    def _frames(self) -> Iterator[Message]:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.sock.recv(1)
        for opcode, payload in read_frames(self.sock):
            yield {"type": "close", "code": int.from_bytes(payload[:2], "big")} if opcode == 8 else json.loads(payload)

    def _events(self) -> Iterator[Message]:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.sock.recv(1)
        parser = EventStreamParser()
        while data := self.sock.recv(65536):
            for event in parser.receive_data(data):
                if isinstance(event, Event):
                    yield json.loads(event.data)


@contextmanager
def stuck_client(server: Server, transport: str, *names: str) -> Iterator[Stuck]:
    query = "&".join(f"channel={name}" for name in names)
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(TIMEOUT)
        sock.connect(("127.0.0.1", server.port))
        if transport == "websocket":
            sock.sendall(raw_upgrade(f"/realtime/ws?{query}"))
        else:
            sock.sendall(get(f"/realtime/events?{query}"))
        yield Stuck(sock, transport)


@attrs.define
class Speaker:
    """Publishes numbered messages, each of which somebody who reads hears before the next."""

    server: Server
    quick: WSClient
    number: int = 0

    async def say(self, channel: str, key: str = "") -> None:
        self.number += 1
        message: Message = {"type": "tick", "number": self.number, "key": key, "data": BODY}
        self.server.driver.publish(channel, message)
        while (heard := await receive(self.quick))["type"] != "tick":
            pass
        assert heard["number"] == self.number

    async def say_until(self, condition: Callable[[], object], channel: str, keys: int = 1) -> None:
        while not condition():
            await self.say(channel, f"k{self.number % keys}")
            assert self.number < TOO_MANY, "what is not read piles up without limit"


@pytest.fixture
async def speaker(server: Server) -> AsyncIterator[Speaker]:
    async with WSClient(server.url(), auto_reconnect=False) as quick:
        for name in ("feed:a", "state:a", "talk:a"):
            await quick.subscribe_to_channel(name)
        yield Speaker(server, quick)


def stat(server: Server, name: str) -> int:
    value = server.driver.stats()[name]
    assert isinstance(value, int)
    return value


def check_gaps(heard: list[Message]) -> Counter[str]:
    """Check that gaps are where messages are missing and nowhere else; returns how many of each type there are."""
    position = 0
    announced: int | None = None
    for message in heard:
        if message["type"] == "gap":
            assert message["reason"] == "slow_consumer"
            assert announced is None, "one hole, two gaps"
            assert isinstance(message["offset"], int)
            announced = message["offset"]
            assert announced > position
        elif message["type"] == "tick":
            meta = message["meta"]
            assert isinstance(meta, dict)
            assert meta["offset"] == (position if announced is None else announced) + 1
            position, announced = meta["offset"], None
    assert announced is None
    return Counter(str(message["type"]) for message in heard)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_disconnect(server: Server, speaker: Speaker, transport: str) -> None:
    with stuck_client(server, transport, "talk:a") as stuck:
        await patiently(lambda: stat(server, "total_connections") == 2)
        await speaker.say_until(lambda: stat(server, "total_connections") == 1, "talk:a")
        assert stat(server, "slow_disconnects") == 1
        assert stat(server, "backlog_bytes") == 0
        heard = await stuck.read()
    if transport == "websocket":
        assert heard.pop() == {"type": "close", "code": 4410}
    farewell = heard.pop()
    assert (farewell["type"], farewell["code"], farewell["reconnect"]) == ("disconnect", 4410, True)
    # All of what it was told before, up to where it stopped, and nothing of what waited.
    counts = check_gaps(heard)
    assert counts["gap"] == 0
    assert counts["tick"] < speaker.number - MAX_WAITING
    assert (stat(server, "dropped_messages"), stat(server, "gaps")) == (0, 0)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_drop_oldest(server: Server, speaker: Speaker, transport: str) -> None:
    with stuck_client(server, transport, "feed:a") as stuck:
        await patiently(lambda: stat(server, "total_connections") == 2)
        await speaker.say_until(lambda: stat(server, "dropped_messages") >= 50, "feed:a")
        assert MAX_WAITING * len(BODY) < stat(server, "backlog_bytes") < MAX_WAITING * (len(BODY) + 500)
        heard = await stuck.read(lambda message: message.get("number") == speaker.number)
        counts = check_gaps(heard)
        assert counts["gap"] == stat(server, "gaps") == 1
        assert counts["tick"] == speaker.number - stat(server, "dropped_messages")
        newest = [message["number"] for message in heard[-MAX_WAITING:]]
        assert newest == list(range(speaker.number - MAX_WAITING + 1, speaker.number + 1))
        assert stat(server, "backlog_bytes") == stat(server, "slow_disconnects") == 0
        # Now that it reads, it hears everything again.
        await speaker.say("feed:a")
    assert stat(server, "dropped_messages") == speaker.number - 1 - counts["tick"]


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_latest(server: Server, speaker: Speaker, transport: str) -> None:
    with stuck_client(server, transport, "state:a") as stuck:
        await patiently(lambda: stat(server, "total_connections") == 2)
        await speaker.say_until(lambda: stat(server, "dropped_messages") >= 50, "state:a", keys=5)
        # One that does not change keeps its place.
        await speaker.say("state:a", "constant")
        constant = speaker.number
        for number in range(12):
            await speaker.say("state:a", f"k{number % 3}")
        heard = await stuck.read(lambda message: message.get("number") == speaker.number)
    counts = check_gaps(heard)
    assert counts["gap"] == stat(server, "gaps") >= 2
    assert counts["tick"] == speaker.number - stat(server, "dropped_messages")
    last = {str(message["key"]): message["number"] for message in heard if message["type"] == "tick"}
    assert last["constant"] == constant
    assert [last[f"k{number}"] for number in range(3)] == [speaker.number - 2, speaker.number - 1, speaker.number]


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_what_waits_is_heard_before_the_end(server: Server, speaker: Speaker, transport: str) -> None:
    with stuck_client(server, transport, "talk:a") as stuck:
        await patiently(lambda: stat(server, "total_connections") == 2)
        await speaker.say_until(lambda: stat(server, "backlog_bytes") > 5 * len(BODY), "talk:a")
        (stuck_id,) = [
            str(each["connection_id"])
            for each in server.driver.node.connections()
            if each["connection_id"] != speaker.quick.connection_id
        ]
        assert server.driver.close(stuck_id, 1001, "enough")
        heard = await stuck.read()
    if transport == "websocket":
        assert heard.pop() == {"type": "close", "code": 1001}
    assert heard.pop()["type"] == "disconnect"
    assert check_gaps(heard) == {"connected": 1, "tick": speaker.number}
    await patiently(lambda: stat(server, "backlog_bytes") == 0)


async def test_whoever_says_goodbye_hears_what_was_said_before(server: Server, speaker: Speaker) -> None:
    with stuck_client(server, "websocket", "talk:a") as stuck:
        await patiently(lambda: stat(server, "total_connections") == 2)
        await speaker.say_until(lambda: stat(server, "backlog_bytes") > 5 * len(BODY), "talk:a")
        stuck.sock.sendall(masked_frame((1000).to_bytes(2, "big"), 8))
        await patiently(lambda: stat(server, "total_connections") == 1)
        last = speaker.number
        await speaker.say("talk:a")
        heard = await stuck.read()
    assert heard.pop() == {"type": "close", "code": 1000}
    assert check_gaps(heard) == {"connected": 1, "tick": last}


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_whoever_goes_leaves_nothing(server: Server, speaker: Speaker, transport: str) -> None:
    with stuck_client(server, transport, "feed:a") as stuck:
        await patiently(lambda: stat(server, "total_connections") == 2)
        await speaker.say_until(lambda: stat(server, "dropped_messages") >= 5, "feed:a")
        dropped = stat(server, "dropped_messages")
        stuck.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    await patiently(lambda: stat(server, "total_connections") == 1)
    await patiently(lambda: stat(server, "backlog_bytes") == 0)
    await speaker.say("feed:a")
    assert stat(server, "dropped_messages") == dropped


async def test_answers_wait_with_the_rest(server: Server, speaker: Speaker) -> None:
    """Whoever does not read may still talk; what it is answered is never dropped, and comes in its place."""
    with stuck_client(server, "websocket", "feed:a") as stuck:
        await patiently(lambda: stat(server, "total_connections") == 2)
        await speaker.say_until(lambda: stat(server, "dropped_messages") >= 5, "feed:a")
        dropped = stat(server, "dropped_messages")
        stuck.sock.sendall(masked_frame(b'{"type":"command","command":"ping","id":"7"}'))
        # Room is made for it.
        await patiently(lambda: stat(server, "dropped_messages") == dropped + 1)
        for _ in range(5):
            await speaker.say("feed:a")
        heard = await stuck.read(lambda message: message.get("number") == speaker.number)
    counts = check_gaps(heard)
    assert (counts["gap"], counts["response"]) == (1, 1)
    position = [message["type"] for message in heard].index("response")
    assert heard[position]["id"] == "7"
    last = [message["number"] for message in heard[position + 1 :]]
    assert last == list(range(speaker.number - 4, speaker.number + 1))
