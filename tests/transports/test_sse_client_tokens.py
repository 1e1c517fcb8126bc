"""`SSEClient` where tokens expire, and where channels end for it."""

from __future__ import annotations

import json
import logging
from typing import Any

import anyio
import attrs
import pytest

from rtcore import ConnectionClosed, ConnectionFailed, EventSourceConfig, LocalProtocolError
from rtcore.event_source import State
from rtcore_transports import ReceivedEvent, SSEClient
from rtcore_transports.inbox import Handlers
from rtcore_transports.sse_session import SSESession

from .servers import (
    EAGER_SSE,
    TIMEOUT,
    EventScript,
    EventStream,
    Scripted,
    Server,
    cancelled_once,
    nothing_left,
    patiently,
    refusing,
    saying,
    scripted,
    url_of,
)
from .tokens import EXPIRED, SECRET, Issuer

pytestmark = pytest.mark.anyio

FAREWELL = f"event: disconnect\ndata: {json.dumps(EXPIRED)}\n\n"
#: Does not come back by itself while a test runs.
PATIENT = EventSourceConfig(retry=3600.0)


async def take(client: SSEClient, count: int) -> list[ReceivedEvent]:
    """Return the next events."""
    events: list[ReceivedEvent] = []
    with anyio.fail_after(TIMEOUT):
        async for event in client.events():
            events.append(event)
            if len(events) == count:
                break
    return events


def tokens(app: Scripted) -> list[str]:
    """Return the numbers of the tokens that came."""
    return [visit.headers["authorization"].removeprefix(f"Bearer {SECRET}-") for visit in app.visits]


async def test_each_attempt_has_a_token_of_its_own(idle_server: Server) -> None:
    brief = saying("data: x\n\n", stay=False)
    async with scripted(idle_server, brief, brief, saying("data: x\n\n")) as app:
        async with SSEClient(url_of(idle_server), token=Issuer(), config=EAGER_SSE, api_key="k") as client:
            await take(client, 3)
        assert tokens(app) == ["1", "2", "3"]
        assert {visit.headers["x-api-key"] for visit in app.visits} == {"k"}


# Streams whose token has expired


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def session_of(server: Server, clock: Clock, config: EventSourceConfig) -> SSESession:
    endpoint = SSEClient(url_of(server), token=Issuer(), config=config)._endpoint
    return SSESession(endpoint, Handlers(), last_event_id="", keep_trying=False, clock=clock)


async def test_expired_token_is_replaced_at_once(idle_server: Server) -> None:
    """The next request asks for what came after the last event, by a clock on which no wait passes."""
    clock = Clock()
    ends = anyio.Event()

    async def script(stream: EventStream) -> None:
        await stream.start()
        await stream.write("id: 7\ndata: x\n\n")
        await ends.wait()
        await stream.write(FAREWELL)
        await stream.end()

    async with scripted(idle_server, script, saying("data: y\n\n")) as app, anyio.create_task_group() as tasks:
        session = session_of(idle_server, clock, EventSourceConfig(retry=5.0))
        tasks.start_soon(session.run)
        assert await session.inbox.get() == ReceivedEvent("message", "x", "7")
        clock.now = 5.0
        ends.set()
        with anyio.fail_after(TIMEOUT):
            assert await session.inbox.get() == ReceivedEvent("message", "y", "7")
        assert tokens(app) == ["1", "2"]
        assert app.visits[1].headers["last-event-id"] == "7"
        session.disconnect()


@pytest.mark.parametrize("texts", [(FAREWELL,), ("data: x\n\n", FAREWELL)])
async def test_brief_stream_is_followed_by_a_wait(idle_server: Server, texts: tuple[str, ...]) -> None:
    """A server whose clock is wrong would be asked as fast as it can refuse."""
    async with scripted(idle_server, saying(*texts, stay=False)) as app, anyio.create_task_group() as tasks:
        clock = Clock()
        session = session_of(idle_server, clock, EventSourceConfig(retry=5.0))
        tasks.start_soon(session.run)
        await patiently(lambda: session._source.state is State.WAITING)
        clock.now = 4.9
        assert (session._source.next_timeout() or 0.0) >= 5.0
        assert (len(app.visits), session.ended) == (1, False)
        session.disconnect()


async def test_only_the_loss_itself_is_followed_at_once(idle_server: Server) -> None:
    clock = Clock()
    ends = anyio.Event()

    async def script(stream: EventStream) -> None:
        await stream.start()
        await stream.write("data: x\n\n")
        await ends.wait()
        await stream.write(FAREWELL)
        await stream.end()

    async with scripted(idle_server, script, refusing(503)) as app, anyio.create_task_group() as tasks:
        session = session_of(idle_server, clock, EventSourceConfig(retry=5.0))
        tasks.start_soon(session.run)
        await session.inbox.get()
        clock.now = 5.0
        ends.set()
        await patiently(lambda: session._source.state is State.WAITING and len(app.visits) == 2)
        assert (session._source.next_timeout() or 0.0) >= 10.0
        session.disconnect()


async def test_expired_token_that_nobody_can_replace(idle_server: Server) -> None:
    async with scripted(idle_server, saying(FAREWELL, stay=False)) as app:
        async with SSEClient(url_of(idle_server), token=SECRET, config=EAGER_SSE) as client:
            with pytest.raises(ConnectionClosed, match="the token has expired") as caught:
                await take(client, 1)
            assert caught.value.code == 4401
        assert len(app.visits) == 1


async def test_expired_token_of_who_does_not_come_back(idle_server: Server) -> None:
    async with (
        scripted(idle_server, saying(FAREWELL, stay=False)),
        SSEClient(url_of(idle_server), token=Issuer(), auto_reconnect=False) as client,
    ):
        with pytest.raises(ConnectionClosed, match="4401: the token has expired"):
            await take(client, 1)


async def test_other_farewells_are_final(idle_server: Server) -> None:
    farewell = FAREWELL.replace("4401", "4403")
    async with scripted(idle_server, saying(farewell, stay=False)) as app:
        async with SSEClient(url_of(idle_server), token=Issuer(), config=EAGER_SSE) as client:
            with pytest.raises(ConnectionClosed, match="4403"):
                await take(client, 1)
        assert len(app.visits) == 1


# Tokens that are refused


async def test_refused_token_is_replaced_at_once(idle_server: Server) -> None:
    brief = saying("id: 7\ndata: x\n\n", stay=False)
    config = attrs.evolve(PATIENT, retried_statuses=())
    async with scripted(idle_server, refusing(401, retry_after="3600"), brief) as app:
        client = SSEClient(url_of(idle_server), token=Issuer(), config=config)
        with anyio.fail_after(TIMEOUT):
            await client.connect(wait=True)
            await take(client, 1)
        await client.disconnect()
        assert tokens(app)[:2] == ["1", "2"]


async def test_second_refusal_in_a_row_is_the_end(idle_server: Server) -> None:
    body = '{"error": {"code": "token_expired", "message": "the token is old"}}'
    brief = saying("data: x\n\n", stay=False)
    async with scripted(idle_server, brief, refusing(401, body), brief, refusing(401, body)) as app:
        async with SSEClient(url_of(idle_server), token=Issuer(), config=EAGER_SSE) as client:
            # A stream between two of them shows that not every token is refused.
            assert [event.data for event in await take(client, 2)] == ["x", "x"]
            with pytest.raises(ConnectionClosed, match="the token is old"):
                await take(client, 1)
        assert tokens(app) == ["1", "2", "3", "4", "5"]


async def test_refusals_are_in_a_row_whatever_else_fails_between_them(idle_server: Server) -> None:
    brief = saying("data: x\n\n", stay=False)
    async with scripted(idle_server, brief, refusing(401), refusing(503), refusing(401)) as app:
        async with SSEClient(url_of(idle_server), token=Issuer(), config=EAGER_SSE) as client:
            await take(client, 1)
            with pytest.raises(ConnectionClosed, match="401"):
                await take(client, 1)
        assert len(app.visits) == 4


@pytest.mark.parametrize("status", [401, 403])
async def test_first_attempt_that_is_refused(idle_server: Server, status: int) -> None:
    async with scripted(idle_server, refusing(status)) as app:
        with pytest.raises(ConnectionFailed, match=str(status)):
            await SSEClient(url_of(idle_server), token=Issuer(), config=PATIENT).connect()
        assert len(app.visits) == 1


async def test_refused_attempts_are_counted(idle_server: Server) -> None:
    brief = saying("data: x\n\n", stay=False)
    async with scripted(idle_server, brief, refusing(401)) as app:
        client = SSEClient(url_of(idle_server), token=Issuer(), config=EAGER_SSE, max_reconnect_attempts=1)
        async with client:
            await take(client, 1)
            with pytest.raises(ConnectionClosed, match="401"):
                await take(client, 1)
        assert len(app.visits) == 2


async def test_status_that_the_user_wants_retried(idle_server: Server) -> None:
    """It is no matter of tokens where there is but one."""
    config = attrs.evolve(EAGER_SSE, retried_statuses=(401,))
    script: list[EventScript] = [saying(stay=False), refusing(401), refusing(401), saying("data: x\n\n")]
    async with (
        scripted(idle_server, *script),
        SSEClient(url_of(idle_server), token=SECRET, config=config) as client,
    ):
        await take(client, 1)


# Functions that fail


async def test_function_that_raises(idle_server: Server) -> None:
    async with scripted(idle_server, saying("data: x\n\n", stay=False), saying("data: y\n\n")):
        issuer = Issuer()
        issuer.failing = lambda: str(1 / 0)
        client = SSEClient(url_of(idle_server), token=issuer, config=EAGER_SSE)
        with pytest.raises(ConnectionFailed, match="no token") as caught:
            await client.connect()
        assert isinstance(caught.value.__cause__, ConnectionFailed)
        issuer.failing = None
        async with client:
            issuer.failing = lambda: str(1 / 0)
            asked = issuer.asked
            await patiently(lambda: issuer.asked >= asked + 2)
            issuer.failing = None
            assert [event.data for event in await take(client, 2)] == ["x", "y"]


async def test_function_that_does_not_return(idle_server: Server) -> None:
    config = attrs.evolve(EAGER_SSE, connect_timeout=0.02)
    async with scripted(idle_server, saying()):
        issuer = Issuer()
        issuer.gate = anyio.Event()
        with pytest.raises(ConnectionFailed, match="in time"):
            await SSEClient(url_of(idle_server), token=issuer, config=config).connect()
        assert issuer.at_once == 0


@pytest.mark.parametrize("nonsense", [None, 5, "", f"{SECRET} x", b"x"], ids=repr)
async def test_function_that_returns_no_token(idle_server: Server, nonsense: Any) -> None:
    async with scripted(idle_server, saying()) as app:
        issuer = Issuer()
        issuer.failing = lambda: nonsense  # type: ignore[no-any-return]
        with pytest.raises(LocalProtocolError) as caught:
            await SSEClient(url_of(idle_server), token=issuer).connect()
        assert SECRET not in str(caught.value)
        assert app.visits == []


async def test_one_call_for_the_stream_and_for_publications(idle_server: Server) -> None:
    issuer = Issuer()
    issuer.gate = anyio.Event()
    async with scripted(idle_server, saying()):
        client = SSEClient(url_of(idle_server), token=issuer)
        async with anyio.create_task_group() as tasks:

            async def publish() -> None:
                # The scripts have no API.
                with pytest.raises(ConnectionFailed, match="not a JSON object"):
                    await client.send_to_channel("room", {})

            tasks.start_soon(client.connect)
            tasks.start_soon(publish)
            await patiently(lambda: issuer.asked)
            await anyio.wait_all_tasks_blocked()
            issuer.gate.set()
            await patiently(lambda: client.connected)
            tasks.cancel_scope.cancel()
        assert (issuer.asked, issuer.most_at_once) == (1, 1)
        await client.disconnect()


# Cancellation. What each of these leaves behind is nothing.


async def test_cancelled_while_a_token_is_awaited(server: Server) -> None:
    issuer = Issuer()
    issuer.gate = anyio.Event()
    client = SSEClient(server.events_url, token=issuer)
    async with nothing_left():
        async with cancelled_once(lambda: issuer.at_once):
            await client.connect()
        assert issuer.at_once == 0
        async with cancelled_once(lambda: issuer.at_once):
            await client.broadcast({})
    assert issuer.at_once == 0


async def test_disconnected_while_a_token_is_awaited(idle_server: Server) -> None:
    issuer = Issuer()
    async with scripted(idle_server, saying("data: x\n\n", stay=False)):
        async with SSEClient(url_of(idle_server), token=issuer, config=EAGER_SSE) as client:
            issuer.gate = anyio.Event()
            await patiently(lambda: issuer.at_once)
            await client.disconnect()
        assert issuer.at_once == 0


# Channels that end


async def test_ended_channel_is_not_asked_for_again(idle_server: Server) -> None:
    ended = json.dumps({"type": "unsubscribed", "channel": "a b", "code": "subscribe_denied", "reason": "no right"})
    alien = "event: unsubscribed\ndata: {}\n\nevent: unsubscribed\ndata: no JSON\n\n"
    first = saying(alien, f"event: unsubscribed\ndata: {ended}\n\n", stay=False)
    async with scripted(idle_server, first, saying("data: x\n\n")) as app:
        url = f"{url_of(idle_server)}?channel=a%20b&x=%2F&channel=c"
        async with SSEClient(url, channel=["a b", "d"], config=EAGER_SSE) as client:
            events = await take(client, 4)
        assert [event.event for event in events] == ["unsubscribed"] * 3 + ["message"]
        assert events[2].data == ended
        assert app.visits[0].query == b"channel=a%20b&x=%2F&channel=c&channel=a+b&channel=d"
        assert app.visits[1].query == b"x=%2F&channel=c&channel=d"


# Nothing of a token is told


async def test_tokens_are_not_told(idle_server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    said: list[str] = []
    issuer = Issuer()
    async with scripted(idle_server, saying(FAREWELL, stay=False), refusing(401), refusing(401)):
        client = SSEClient(url_of(idle_server), token=issuer, config=EAGER_SSE)
        async with client:
            with pytest.raises(ConnectionClosed) as closed:
                await take(client, 1)
            said.append(repr(closed.value))
        issuer.failing = lambda: f"{SECRET} {SECRET}"
        with pytest.raises(LocalProtocolError) as failed:
            await client.connect()
        said.append(repr(failed.value))
        for each in (client, SSEClient(url_of(idle_server), token=SECRET)):
            said += [repr(each), repr(each._endpoint), repr(each._endpoint.tokens), repr(each._http)]
    assert SECRET not in " ".join(said)
    assert SECRET not in caplog.text
