"""The clients and the native server, where tokens expire, are revoked, or lose rights."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import attrs
import pytest

from rtcore import CommandError, ConnectionClosed, ConnectionFailed, Identity, Refusal
from rtcore.permissions import Credential, Grant, Scope
from rtcore_transports import Credentials, Driver, EndpointConfig, GateConfig, SSEClient, WSClient, serve

from .servers import EAGER, EAGER_SSE, TIMEOUT, nothing_left, numbers, patiently, receive

pytestmark = pytest.mark.anyio


class Office:
    """Issues tokens, and knows them again: an `Authenticator`."""

    def __init__(self, life: float | None) -> None:
        self.life = life
        self.channels: Scope = Scope()
        self.issued: dict[str, Identity] = {}
        self.verified = 0
        self.closed = False

    async def issue(self) -> str:
        """Return a new token of ann's."""
        await anyio.lowlevel.checkpoint()
        if self.closed:
            raise OSError("the office is closed")
        token = f"t{len(self.issued)}"
        now = time.time()
        grant = Grant(
            subscribe=self.channels,
            history=self.channels,
            presence=self.channels,
            credential=Credential.TOKEN,
            token_id=token,
            issued_at=now,
            expires_at=None if self.life is None else now + self.life,
        )
        self.issued[token] = Identity("ann", grant)
        return token

    async def authenticate(self, credentials: Credentials) -> Identity | Refusal:
        return await self.verify(credentials.token or "")

    async def verify(self, token: str) -> Identity | Refusal:
        await anyio.lowlevel.checkpoint()
        self.verified += 1
        found = self.issued.get(token)
        if found is None:
            return Refusal("invalid_token", "nobody has issued this", status=401)
        ends = found.grant.expires_at
        return found if ends is None or time.time() < ends else Refusal("token_expired", "too late", status=401)


@attrs.frozen
class Place:
    office: Office
    driver: Driver
    port: int

    def url(self, scheme: str = "ws", path: str = "ws") -> str:
        return f"{scheme}://127.0.0.1:{self.port}/realtime/{path}"

    def publish(self, number: int) -> None:
        self.driver.publish("room", {"type": "note", "data": number})


@asynccontextmanager
async def opened(life: float | None) -> AsyncIterator[Place]:
    office = Office(life)
    gate = GateConfig(websocket_auth_required=True, sse_auth_required=True)
    driver = Driver(gate=gate, authenticator=office)
    async with anyio.create_task_group() as tasks:

        async def run(task_status: anyio.abc.TaskStatus[Any]) -> None:
            await serve(
                driver,
                port=0,
                config=EndpointConfig(gate=gate, sse_retry=1),
                shutdown_timeout=1.0,
                task_status=task_status,
            )

        _, port = await tasks.start(run)
        async with nothing_left():
            yield Place(office, driver, port)
        tasks.cancel_scope.cancel()


async def test_websocket_goes_on_beyond_its_token() -> None:
    # A busy machine has half of that time to renew it.
    async with opened(4.0) as place, WSClient(place.url(), token=place.office.issue, config=EAGER) as client:
        await client.subscribe_to_channel("room")
        first = client.connection_id
        sent = 0
        with anyio.fail_after(TIMEOUT):
            # Each is renewed when half of its life is over at the earliest: the third one after the first has ended.
            while place.office.verified < 4:
                place.publish(sent)
                assert await numbers(client, 1) == [sent]
                sent += 1
                await anyio.lowlevel.checkpoint()
        assert (client.connection_id, client.stats.reconnects, client.user_id) == (first, 0, "ann")


async def test_websocket_comes_back_where_no_token_came_in_time() -> None:
    async with opened(1.0) as place, WSClient(place.url(), token=place.office.issue, config=EAGER) as client:
        await client.subscribe_to_channel("room")
        place.office.closed = True
        place.publish(0)
        await patiently(lambda: place.driver.node.connections() == [])
        place.publish(1)
        place.office.closed = False
        place.office.life = None
        await patiently(lambda: client.stats.reconnects == 1)
        place.publish(2)
        assert await numbers(client, 3) == [0, 1, 2]


@pytest.mark.parametrize("life", [0.2, None])
async def test_revoked_token_is_replaced(life: float | None) -> None:
    async with opened(life) as place, WSClient(place.url(), token=place.office.issue, config=EAGER) as client:
        await client.subscribe_to_channel("room")
        before = client.connection_id
        assert place.driver.revoke({"user_id": "ann"}) == 1
        place.publish(0)
        await patiently(lambda: client.connected and client.connection_id != before)
        assert await numbers(client, 1) == [0]


async def test_websocket_whose_tokens_are_all_refused() -> None:
    async with opened(None) as place:
        async with WSClient(place.url(), token=place.office.issue, config=EAGER) as client:
            place.driver.revoke({"user_id": "ann", "issued_before": time.time() + 3600})
            with pytest.raises(ConnectionClosed) as caught:
                await receive(client)
            assert caught.value.code == 4401
        with pytest.raises(ConnectionFailed, match="revoked"):
            await WSClient(place.url(), token=place.office.issue).connect()


async def test_websocket_that_is_refused_says_why_in_the_words_of_the_server() -> None:
    async with opened(None) as place:
        with pytest.raises(ConnectionFailed, match="nobody has issued this"):
            await WSClient(place.url(), token="forged").connect()


async def test_http_has_the_same_tokens() -> None:
    async with opened(None) as place:
        client = WSClient(place.url(), token=place.office.issue)
        # This server has no HTTP API.
        with pytest.raises(CommandError, match="not_found"):
            await client.broadcast({})
        assert list(place.office.issued) == ["t0"]


async def test_event_stream_loses_nothing_as_tokens_expire() -> None:
    async with opened(1.0) as place:
        client = SSEClient(place.url("http", "events"), channel="room", token=place.office.issue, config=EAGER_SSE)
        async with client:
            heard: list[object] = []
            sent = 0
            with anyio.fail_after(TIMEOUT):
                events = client.events()
                while len(place.office.issued) < 4:
                    place.publish(sent)
                    sent += 1
                    event: Any = (await events.__anext__()).json()
                    heard.append(event["data"])
            assert heard == list(range(sent))
            assert client.user_id == "ann"


async def test_event_stream_with_one_token_ends_with_it() -> None:
    async with opened(1.0) as place:
        token = await place.office.issue()
        async with SSEClient(place.url("http", "events"), channel="room", token=token, config=EAGER_SSE) as client:
            with pytest.raises(ConnectionClosed) as caught, anyio.fail_after(TIMEOUT):
                await client.events().__anext__()
            assert caught.value.code == 4401


async def test_event_stream_whose_tokens_are_all_refused() -> None:
    async with opened(None) as place:
        url = place.url("http", "events")
        async with SSEClient(url, channel="room", token=place.office.issue, config=EAGER_SSE) as client:
            place.driver.revoke({"user_id": "ann", "issued_before": time.time() + 3600})
            with pytest.raises(ConnectionClosed, match="revoked"), anyio.fail_after(TIMEOUT):
                await client.events().__anext__()
        with pytest.raises(ConnectionFailed, match="revoked"):
            await SSEClient(url, channel="room", token=place.office.issue).connect()


async def test_rights_that_a_fresh_token_does_not_give() -> None:
    async with opened(1.0) as place, WSClient(place.url(), token=place.office.issue, config=EAGER) as client:
        await client.subscribe_to_channel("room")
        await client.subscribe_to_channel("hall")
        place.office.channels = Scope(["hall"], exclusive=True)
        message = await receive(client)
        assert (message["type"], message["channel"], message["code"]) == ("unsubscribed", "room", "subscribe_denied")
        assert client.stats.channels == ("hall",)
        with pytest.raises(CommandError, match="subscribe_denied"):
            await client.subscribe_to_channel("room")
        assert client.connection_id is not None
        place.driver.close(client.connection_id, 1012, "cut")
        await patiently(lambda: client.stats.reconnects == 1)
        await client.ping()
        assert [connection["channels"] for connection in place.driver.node.connections()] == [["hall"]]


async def test_rights_that_an_event_stream_loses() -> None:
    async with opened(None) as place:
        client = SSEClient(
            place.url("http", "events"), channel=["room", "hall"], token=place.office.issue, config=EAGER_SSE
        )
        async with client:
            await patiently(lambda: client.connection_id is not None)
            assert client.connection_id is not None
            place.office.channels = Scope(["hall"], exclusive=True)
            grant = place.office.issued["t0"].grant
            narrow = attrs.evolve(grant, subscribe=place.office.channels)
            assert place.driver.regrant(client.connection_id, narrow) is None
            events = client.events()
            with anyio.fail_after(TIMEOUT):
                assert (await events.__anext__()).event == "unsubscribed"
            before = client.connection_id
            place.driver.close(before, 1012, "cut")
            await patiently(lambda: client.connected and client.connection_id != before)
            place.driver.publish("hall", {"type": "note", "data": 1})
            with anyio.fail_after(TIMEOUT):
                event: Any = (await events.__anext__()).json()
            assert event["data"] == 1
