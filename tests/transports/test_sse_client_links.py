"""`SSEClient` where streams fail, are lost, end, or are no longer wanted."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import partial
from typing import Any

import anyio
import attrs
import pytest
from anyio.abc import SocketAttribute, SocketStream

from rtcore import ConnectionClosed, ConnectionFailed, LocalProtocolError
from rtcore_transports import ReceivedEvent, SSEClient

from .servers import (
    EAGER_SSE,
    TIMEOUT,
    EventScript,
    Server,
    cancelled_once,
    nothing_left,
    patiently,
    refusing,
    saying,
    scripted,
    tcp_server,
    url_of,
)

pytestmark = pytest.mark.anyio


async def take(client: SSEClient, count: int) -> list[ReceivedEvent]:
    """Return the next events."""
    events: list[ReceivedEvent] = []
    with anyio.fail_after(TIMEOUT):
        async for event in client.events():
            events.append(event)
            if len(events) == count:
                break
    return events


# Reconnecting


async def test_a_restarted_server(server: Server) -> None:
    async with nothing_left(), SSEClient(server.events_url, channel="room", config=EAGER_SSE) as client:
        await server.stop()
        await patiently(lambda: not client.connected)
        await server.start()
        await patiently(lambda: client.connected)
        server.driver.publish("room", {"type": "note"})
        assert len(await take(client, 1)) == 1


async def test_where_it_resumes(idle_server: Server) -> None:
    last = saying("data: four\n\n")
    ids = ["1", "ключ", "a\tb", " c"]
    scripts = [saying(f"id: {id}\ndata: x\n\n" if id != " c" else "id:  c\ndata: x\n\n", stay=False) for id in ids]
    async with scripted(idle_server, *scripts, last) as app:
        async with SSEClient(url_of(idle_server), config=EAGER_SSE, last_event_id="0") as client:
            events = await take(client, 5)
        assert [event.id for event in events] == [*ids, " c"]
        assert [visit.headers.get("last-event-id") for visit in app.visits[:2]] == ["0", "1"]
        seen = app.visits[2].headers["last-event-id"]
        assert seen == "ключ"
        # What a header cannot carry goes into the query.
        assert [visit.query for visit in app.visits[3:]] == [b"last_event_id=a%09b", b"last_event_id=+c"]
        assert client.last_event_id == " c"
        async with client:
            pass
        assert app.visits[-1].query == b"last_event_id=+c"


async def test_a_busy_server_is_tried_again(idle_server: Server) -> None:
    busy = refusing(503, retry_after="0")
    async with scripted(idle_server, saying(stay=False), busy, busy, saying("data: x\n\n")) as app:
        async with SSEClient(url_of(idle_server), config=EAGER_SSE) as client:
            assert (await take(client, 1))[0].data == "x"
        assert len(app.visits) == 4


async def test_a_silent_server_is_left(idle_server: Server) -> None:
    config = attrs.evolve(EAGER_SSE, idle_timeout=0.02)
    async with (
        scripted(idle_server, saying("data: a\n\n"), saying("data: b\n\n")),
        SSEClient(url_of(idle_server), config=config) as client,
    ):
        assert [event.data for event in await take(client, 2)] == ["a", "b"]


async def test_redirects_within_the_origin_are_followed(idle_server: Server) -> None:
    async with scripted(idle_server, refusing(307, location="/new"), saying("data: x\n\n")) as app:
        async with SSEClient(url_of(idle_server), token="t") as client:
            await take(client, 1)
        assert app.visits[1].path == "/new"
        assert app.visits[1].headers["authorization"] == "Bearer t"


# The end


async def test_a_server_that_has_no_more(idle_server: Server) -> None:
    async with (
        scripted(idle_server, saying("data: x\n\n", stay=False), refusing(204)),
        SSEClient(url_of(idle_server), config=EAGER_SSE) as client,
    ):
        with anyio.fail_after(TIMEOUT):
            assert [event.data async for event in client.events()] == ["x"]
        assert not client.connected


async def test_a_server_that_refuses_later(idle_server: Server) -> None:
    body = '{"error": {"code": "unauthorized", "message": "the token is old"}}'
    async with (
        scripted(idle_server, saying("data: x\n\n", stay=False), refusing(401, body)),
        SSEClient(url_of(idle_server), config=EAGER_SSE) as client,
    ):
        await take(client, 1)
        with pytest.raises(ConnectionClosed) as caught:
            await take(client, 1)
        assert "the token is old" in caught.value.reason


async def test_a_server_that_wants_nobody_back(idle_server: Server) -> None:
    farewell = 'event: disconnect\ndata: {"type": "disconnect", "code": 4403, "reason": "go", "reconnect": false}\n\n'
    async with scripted(idle_server, saying(farewell, stay=False)) as app:
        async with SSEClient(url_of(idle_server), config=EAGER_SSE) as client:
            with pytest.raises(ConnectionClosed, match="4403: go"):
                await take(client, 1)
        assert len(app.visits) == 1


async def test_no_reconnecting(idle_server: Server) -> None:
    async with (
        scripted(idle_server, saying("data: x\n\n", stay=False)),
        SSEClient(url_of(idle_server), auto_reconnect=False) as client,
    ):
        await take(client, 1)
        with pytest.raises(ConnectionClosed) as caught:
            await take(client, 1)
        assert caught.value.reason == "the stream ended"
        # Having ended, it may be connected anew.
        await client.connect()


async def test_attempts_are_counted(idle_server: Server) -> None:
    async with scripted(idle_server, saying(stay=False), refusing(503)) as app:
        async with SSEClient(url_of(idle_server), config=EAGER_SSE, max_reconnect_attempts=2) as client:
            with pytest.raises(ConnectionClosed) as caught:
                await take(client, 1)
            assert "503" in caught.value.reason
        assert len(app.visits) == 3


async def test_an_event_shows_that_an_attempt_was_not_in_vain(idle_server: Server) -> None:
    brief = saying("data: x\n\n", stay=False)
    async with (
        scripted(idle_server, brief, brief, brief, brief, refusing(204)),
        SSEClient(url_of(idle_server), config=EAGER_SSE, max_reconnect_attempts=1) as client,
    ):
        assert [event.data async for event in client.events()] == ["x"] * 4


async def test_an_event_that_is_too_large(idle_server: Server) -> None:
    config = attrs.evolve(EAGER_SSE, max_event_size=100)
    async with (
        scripted(idle_server, saying("data: a\n\n", f"data: {'x' * 200}\n\n")),
        SSEClient(url_of(idle_server), config=config) as client,
    ):
        await take(client, 1)
        with pytest.raises(ConnectionClosed) as caught:
            await take(client, 1)
        assert "larger" in caught.value.reason


# Connecting


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (refusing(204), "not to be asked again"),
        (refusing(401, '{"error": {"code": "unauthorized", "message": "a token, please"}}'), "a token, please .*401"),
        (refusing(404, "x" * 20_000), "404"),
        (refusing(503), "503"),
        (refusing(307, location="http://localhost:1/"), "307"),
        (refusing(307, location="/again"), "307"),
        (refusing(200, content_type="text/html"), "not text/event-stream"),
    ],
)
async def test_a_first_attempt_that_fails(idle_server: Server, script: EventScript, said: str) -> None:
    async with scripted(idle_server, script):
        client = SSEClient(url_of(idle_server))
        with pytest.raises(ConnectionFailed, match=said):
            await client.connect()
        with pytest.raises(LocalProtocolError, match=r"connect\(\) first"):
            client.events()


async def hang(stream: Any) -> None:
    await anyio.sleep_forever()


async def test_nobody_listens() -> None:
    async with tcp_server(hang) as port:
        pass
    async with nothing_left():
        with pytest.raises(ConnectionFailed) as caught:
            async with SSEClient(f"http://127.0.0.1:{port}/events"):
                pass
        assert caught.value.__cause__ is not None


async def test_no_answer() -> None:
    config = attrs.evolve(EAGER_SSE, connect_timeout=0.02)
    async with nothing_left(), tcp_server(hang) as port:
        with pytest.raises(ConnectionFailed, match="in time"):
            await SSEClient(f"http://127.0.0.1:{port}/events", config=config).connect()


async def test_waiting_for_a_server(server: Server) -> None:
    await server.stop()
    client = SSEClient(server.events_url, config=EAGER_SSE)
    async with nothing_left():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: client.connect(wait=True))
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(LocalProtocolError, match="connected already"):
                await client.connect()
            await server.start()
        assert client.connected
        await client.disconnect()
        await server.stop()


async def test_waiting_has_an_end() -> None:
    async with tcp_server(hang) as port:
        pass
    client = SSEClient(f"http://127.0.0.1:{port}/events", config=EAGER_SSE, max_reconnect_attempts=2)
    async with nothing_left():
        with pytest.raises(ConnectionFailed):
            await client.connect(wait=True)


# Cancellation. What each of these leaves behind is nothing.


async def test_cancelled_while_connecting() -> None:
    accepted = anyio.Event()

    async def handle(stream: Any) -> None:
        accepted.set()
        await anyio.sleep_forever()

    async with nothing_left(), tcp_server(handle) as port, cancelled_once(accepted.is_set):
        await SSEClient(f"http://127.0.0.1:{port}/events").connect()


async def test_cancelled_in_the_body(server: Server) -> None:
    entered = anyio.Event()
    async with nothing_left(), cancelled_once(entered.is_set), SSEClient(server.events_url):
        entered.set()
        await anyio.sleep_forever()


async def test_cancelled_in_iteration(server: Server) -> None:
    async with nothing_left(), SSEClient(server.events_url, channel="room") as client:
        async with cancelled_once(lambda: client.connected):
            async for _ in client.events():
                pass
        server.driver.publish("room", {"type": "note"})
        assert len(await take(client, 1)) == 1


async def test_disconnected_in_iteration(server: Server) -> None:
    async with nothing_left(), SSEClient(server.events_url) as client, anyio.create_task_group() as tasks:
        ended = anyio.Event()

        async def iterate() -> None:
            async for _ in client.events():
                pass
            ended.set()

        tasks.start_soon(iterate)
        await anyio.wait_all_tasks_blocked()
        await client.disconnect()
        with anyio.fail_after(TIMEOUT):
            await ended.wait()


@pytest.mark.parametrize("headed", [True, False])
async def test_what_was_on_its_way_at_the_end(headed: bool) -> None:
    """The end comes between any two steps of the event loop after bytes have arrived."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    rest = b"9\r\ndata: x\n\n\r\n0\r\n\r\n"
    requests: list[SocketStream] = []

    async def handle(stream: SocketStream) -> None:
        await stream.receive()
        if headed:
            await stream.send(head)
        requests.append(stream)
        await anyio.sleep_forever()

    async with nothing_left(), tcp_server(handle) as port:
        for steps in range(40):
            client = SSEClient(f"http://127.0.0.1:{port}/events")
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_connect, client)
                await patiently(partial(_ready, client, requests, headed))
                await anyio.wait_all_tasks_blocked()
                os.write(requests.pop().extra(SocketAttribute.raw_socket).fileno(), rest if headed else head + rest)
                for _ in range(steps % 8):
                    await anyio.lowlevel.checkpoint()
                await client.disconnect()


def _ready(client: SSEClient, requests: list[SocketStream], headed: bool) -> bool:
    return len(requests) > 0 and client.connected is headed


async def _connect(client: SSEClient) -> None:
    with suppress(ConnectionFailed):
        await client.connect()


async def test_a_handler_may_disconnect(server: Server) -> None:
    went_on = anyio.Event()
    async with nothing_left(), SSEClient(server.events_url, channel="room") as client:

        @client.on_event("bye")
        async def leave(data: object) -> None:
            await client.disconnect()
            await anyio.lowlevel.checkpoint()
            went_on.set()

        server.driver.publish("room", {"type": "bye"})
        with anyio.fail_after(TIMEOUT):
            await went_on.wait()


async def test_cancelled_while_publishing() -> None:
    accepted = anyio.Event()

    async def handle(stream: Any) -> None:
        accepted.set()
        await anyio.sleep_forever()

    async with nothing_left(), tcp_server(handle) as port, cancelled_once(accepted.is_set):
        await SSEClient(f"http://127.0.0.1:{port}/events").broadcast({})


def test_a_loop_that_ends_first(anyio_backend: str) -> None:
    """A client that nobody disconnects ends with the event loop."""

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            server = Server(tasks)
            await server.start()
            await SSEClient(server.events_url).connect()
            tasks.cancel_scope.cancel()

    anyio.run(main, backend=anyio_backend)
