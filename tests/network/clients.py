"""Those who listen and those who talk, in the event loop of the test or as a process."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from threading import Thread
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import urlencode

import anyio
import attrs

from rtcore import ClientConfig, EventSourceConfig
from rtcore_transports import SSEClient, WSClient

from ..programs import Program, running
from .record import Record

__all__ = [
    "TIMEOUT",
    "Kind",
    "Talker",
    "hearing_process",
    "hear",
    "listening",
    "open_client",
    "patiently",
    "talking",
    "talking_on",
]

#: What takes longer than this has failed; nothing waits for it to pass.
TIMEOUT: Final = 40.0

Kind: TypeAlias = Literal["websocket", "event-stream"]
Client: TypeAlias = WSClient | SSEClient

_CONFIG: Final = ClientConfig(backoff_base=0.01, backoff_cap=0.05)
# Silence is noticed after two and a half of the servers' heartbeats here, as it is on a WebSocket.
_SSE_CONFIG: Final = EventSourceConfig(
    retry=0.01, min_retry=0.01, max_retry=0.01, backoff=0.01, max_backoff=0.05, idle_timeout=1.25
)


async def patiently(condition: Callable[[], object]) -> None:
    """Let the event loop run until `condition` holds."""
    with anyio.fail_after(TIMEOUT):
        while not condition():  # noqa: ASYNC110 — what is waited for here has no event
            await anyio.sleep(0.005)


def open_client(kind: Kind, port: int, channels: Sequence[str], user_id: str) -> Client:
    """Return a client that listens to channels and comes back quickly."""
    if kind == "websocket":
        query = urlencode([("channel", channel) for channel in channels])
        url = f"ws://127.0.0.1:{port}/realtime/ws?{query}"
        return WSClient(url, user_id=user_id, config=_CONFIG, queue_size=100_000)
    url = f"http://127.0.0.1:{port}/realtime/events"
    return SSEClient(url, channel=channels, user_id=user_id, config=_SSE_CONFIG, queue_size=100_000)


async def hear(client: Client, take: Callable[[dict[str, Any]], None]) -> None:
    """Give everything that a client hears, but for comings and goings, to `take`; for ever."""
    if isinstance(client, WSClient):
        async for message in client:
            if message["type"] not in ("user_joined", "user_left"):
                take(message)
        return
    async for event in client.events():
        said: Any = event.json()
        if said["type"] not in ("user_joined", "user_left"):
            take(said)


@asynccontextmanager
async def listening(
    kind: Kind, port: int, channels: Sequence[str], *, user_id: str = "eve"
) -> AsyncIterator[tuple[Client, Record]]:
    """Listen until the end of the block; what is wrong in what is heard fails it."""
    record = Record()
    client = open_client(kind, port, channels, user_id)
    with anyio.fail_after(TIMEOUT):
        await client.connect(wait=True)
        if isinstance(client, SSEClient):
            # Cut before the server has said where it is, a stream begins anew.
            await patiently(lambda: client.last_event_id)
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hear, client, record.take)
            yield client, record
            tasks.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await client.disconnect()


class Talker:
    """Publishes numbers, 1, 2, 3… in each of its channels, and takes note of what became of them.

    Attributes:
        client: What it publishes with.
        said: By channel, the last number.
        acknowledged: By channel and number, the epoch and the offset that the server has given it.
        doubtful: What may have been published or not.
    """

    def __init__(self, client: WSClient, channels: Sequence[str]) -> None:
        self.client = client
        self.said = dict.fromkeys(channels, 0)
        self.acknowledged: dict[tuple[str, int], tuple[str, int]] = {}
        self.doubtful: list[tuple[str, int]] = []

    async def say(self, count: int = 1, *, padding: str = "") -> None:
        """Publish the next numbers, `count` in each channel, without waiting for what becomes of them."""
        for _ in range(count):
            for channel in self.said:
                self.said[channel] += 1
                number = self.said[channel]
                message = {"data": number, "id": json.dumps([channel, number])}
                await self.client.send_to_channel(channel, {**message, "padding": padding} if padding else message)

    async def say_on(self) -> None:
        """Publish for ever, never more than a few numbers ahead of what became of them."""
        while True:
            await self.say()
            await patiently(lambda: self.pending < 20)
            # Others have a turn too, and what is done to the network meets it in the midst.
            await anyio.sleep(0.002)

    @property
    def pending(self) -> int:
        """How many publications nothing is known of yet."""
        return sum(self.said.values()) - len(self.acknowledged) - len(self.doubtful)

    def learn(self, message: dict[str, Any]) -> None:
        """Take note of what became of a publication."""
        channel, number = json.loads(message["id"])
        key = (channel, number)
        assert key not in self.acknowledged, message
        assert key not in self.doubtful, message
        if message["type"] == "response":
            self.acknowledged[key] = (message["data"]["epoch"], message["data"]["offset"])
        else:
            assert message["code"] == "connection_lost", message
            self.doubtful.append(key)

    async def heard_by(self, record: Record) -> None:
        """Wait until everything that was said is known of, and a listener has come as far."""
        await patiently(lambda: not self.pending)
        last = {channel: position for (channel, _), position in self.acknowledged.items()}
        try:
            await patiently(lambda: all(record.positions.get(channel) == last[channel] for channel in last))
        except TimeoutError:
            raise AssertionError(f"said {last}, heard {record.positions}") from None

    def check_in_part(self, record: Record) -> None:
        """Check that a listener has heard all that was acknowledged, once, but for what gaps told of."""
        places = [(channel, *position) for (channel, _), position in self.acknowledged.items()]
        assert len(set(places)) == len(places), "two publications are acknowledged as one"
        for (channel, number), position in self.acknowledged.items():
            place = record.places.get((channel, number))
            if place is None:
                assert record.told_of(channel, position), f"{channel} {number}, {position}: missing, {record.gaps}"
            else:
                assert place == position, f"{channel} {number}: at {place}, acknowledged at {position}"

    def check(self, record: Record) -> None:
        """Check that a listener who was told of no gap has heard everything, once."""
        assert record.gaps == [], record.gaps
        assert not self.doubtful, self.doubtful
        for channel, last in self.said.items():
            assert record.heard[channel] == list(range(1, last + 1)), f"{channel}: {last} said, {record.heard[channel]}"


@asynccontextmanager
async def talking(port: int, channels: Sequence[str], *, patience: float = 2.5) -> AsyncIterator[Talker]:
    """Open a talker until the end of the block.

    Args:
        port: Where the server, or a way to it, is.
        channels: What it talks to.
        patience: For how many heartbeats of the server it puts up with silence.
    """
    config = attrs.evolve(_CONFIG, heartbeat_factor=patience)
    client = WSClient(f"ws://127.0.0.1:{port}/realtime/ws", user_id="tom", config=config, queue_size=100_000)
    talker = Talker(client, channels)
    with anyio.fail_after(TIMEOUT):
        await client.connect(wait=True)
    try:
        async with anyio.create_task_group() as tasks:

            def learn(message: dict[str, Any]) -> None:
                if "id" in message:
                    talker.learn(message)

            tasks.start_soon(hear, client, learn)
            yield talker
            tasks.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await client.disconnect()


@asynccontextmanager
async def talking_on(talker: Talker) -> AsyncIterator[None]:
    """Let a talker talk until the end of the block."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(talker.say_on)
        yield
        tasks.cancel_scope.cancel()


@contextmanager
def hearing_process(
    loop: str, kind: Kind, port: int, channels: Sequence[str], folder: Path, *, user_id: str
) -> Iterator[tuple[Program, Record, list[str]]]:
    """Listen in a process of its own; gives it, what it hears, and what was wrong with that."""
    program = Path(__file__).with_name("listen.py")
    record, wrong = Record(), []

    def read(process: Program) -> None:
        while line := process.read_line():
            try:
                record.take(json.loads(line))
            except AssertionError as error:
                wrong.append(str(error))

    with running(
        sys.executable, str(program), loop, kind, str(port), user_id, *channels, errors=folder / "listener.txt"
    ) as process:
        assert process.read_line() == '"listening"', process.complaints
        thread = Thread(target=read, args=[process], daemon=True)
        thread.start()
        try:
            yield process, record, wrong
        finally:
            # One that is stopped ends so too.
            process.process.kill()
            thread.join()
