"""Clients that know no more of this protocol than its documentation says, on a network that cuts."""

from __future__ import annotations

import json
from typing import Any

import anyio
import httpx2
import pytest
from anyio import to_thread
from anyio.lowlevel import checkpoint
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import connect

from ..browser.server import Server
from ..proxy import Proxy, proxy_to
from .clients import TIMEOUT, patiently, talking, talking_on
from .conftest import port_of
from .record import Record

pytestmark = pytest.mark.anyio

_CUTS = [*range(100, 3000, 173)]


class _EventSource:
    """An event stream read line by line, as the standard says."""

    def __init__(self, url: str) -> None:
        self.record = Record()
        self._url = url
        self.token = ""

    async def read(self) -> None:
        """Hear, and come back after each loss; for ever."""
        async with httpx2.AsyncClient(timeout=TIMEOUT, trust_env=False) as http:
            while True:
                headers = {"last-event-id": self.token} if self.token else {}
                try:
                    async with http.stream("GET", self._url, headers=headers) as response:
                        await self._read_events(response)
                except httpx2.TransportError:
                    await checkpoint()

    async def _read_events(self, response: httpx2.Response) -> None:
        token, data = self.token, []
        async for line in response.aiter_lines():
            field, _, value = line.partition(": ")
            if field == "id":
                token = value
            elif field == "data":
                data.append(value)
            elif not line:
                self.token = token
                if data:
                    self._hear(json.loads("\n".join(data)))
                data = []

    def _hear(self, message: dict[str, Any]) -> None:
        if message["type"] in ("gap", "channel_message"):
            self.record.take(message)


def _listen(url: str, channel: str, record: Record, last: list[int]) -> None:
    """Hear a channel over WebSockets, with ``since`` after each loss, until it has said what is in `last`."""

    def finished() -> bool:
        return bool(last) and record.heard[channel][-1:] == last

    while not finished():
        try:
            with connect(url, proxy=None, open_timeout=TIMEOUT) as websocket:
                data: dict[str, object] = {"channel": channel}
                if channel in record.positions:
                    epoch, offset = record.positions[channel]
                    data["since"] = {"epoch": epoch, "offset": offset}
                websocket.send(json.dumps({"type": "command", "command": "join_channel", "data": data, "id": "1"}))
                while not finished():
                    message = json.loads(websocket.recv(TIMEOUT))
                    if message["type"] == "response":
                        joined = message["data"]
                        if "since" in data:
                            assert joined["recovered"] is True, joined
                        else:
                            record.positions[channel] = (joined["epoch"], joined["offset"])
                    elif message["type"] == "channel_message":
                        record.take(message)
        except (ConnectionClosed, InvalidHandshake, OSError):
            continue


async def test_a_stream_without_a_client_of_ours(server: Server) -> None:
    channels = ["lines-a", "lines-b"]
    with proxy_to(port_of(server)) as proxy:
        query = "&".join(f"channel={channel}" for channel in channels)
        source = _EventSource(f"http://127.0.0.1:{proxy.port}/realtime/events?{query}")
        async with talking(port_of(server), channels) as talker, anyio.create_task_group() as tasks:
            tasks.start_soon(source.read)
            await patiently(lambda: source.token)
            await _cut_while(proxy, talking_on(talker))
            await talker.say()
            await talker.heard_by(source.record)
            talker.check(source.record)
            tasks.cancel_scope.cancel()


async def test_websockets_without_a_client_of_ours(server: Server) -> None:
    channel = "frames"
    with proxy_to(port_of(server)) as proxy:
        url = f"ws://127.0.0.1:{proxy.port}/realtime/ws"
        async with talking(port_of(server), [channel]) as talker, anyio.create_task_group() as tasks:
            record, last = Record(), list[int]()
            tasks.start_soon(to_thread.run_sync, _listen, url, channel, record, last)
            await patiently(lambda: channel in record.positions)
            await _cut_while(proxy, talking_on(talker))
            last.append(talker.said[channel] + 1)
            await talker.say()
            await talker.heard_by(record)
            talker.check(record)


async def _cut_while(proxy: Proxy, talking: Any) -> None:
    proxy.cut_after(_CUTS)
    proxy.cut()
    async with talking:
        await patiently(lambda: proxy.accepted > len(_CUTS) + 1)
