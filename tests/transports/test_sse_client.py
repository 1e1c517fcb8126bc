"""`SSEClient` on a stream that stands, and what it says over HTTP."""

from __future__ import annotations

import logging
import ssl
from typing import Any

import anyio
import attrs
import pytest
import trustme

from rtcore import EventSourceConfig, LocalProtocolError
from rtcore.channels import BROADCAST
from rtcore_transports import ReceivedEvent, SSEClient, create_sse_client, serve
from rtcore_transports.inbox import Handlers
from rtcore_transports.sse_session import SSESession

from .servers import (
    TIMEOUT,
    Api,
    EventStream,
    Server,
    nothing_left,
    patiently,
    saying,
    scripted,
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


# What comes


async def test_the_quick_guide(server: Server) -> None:
    heard: list[object] = []
    client = create_sse_client(server.events_url)

    @client.on_event("notification")
    async def handle_notification(data: object) -> None:
        heard.append(data)

    async with nothing_left():
        await client.connect()
        server.driver.publish(BROADCAST, {"type": "notification", "data": {"title": "Hi"}})
        await patiently(lambda: heard == [{"title": "Hi"}])
        await client.disconnect()
        await client.disconnect()


async def test_channels_and_users(server: Server) -> None:
    client = SSEClient(f"{server.events_url}?channel=a", channel=["b", "c d&e"], user_id=7)
    assert (client.connected, client.connection_id, client.user_id, client.dropped) == (False, None, None, 0)
    async with client:
        assert client.connected
        for channel in ("a", "b", "c d&e", "elsewhere"):
            server.driver.publish(channel, {"type": "note", "data": channel})
        server.driver.publish_to_user("7", {"type": "note", "data": "you"})
        events = await take(client, 4)
        assert [event.event for event in events] == ["message"] * 4
        values: list[Any] = [event.json() for event in events]
        assert [value["data"] for value in values] == ["a", "b", "c d&e", "you"]
        assert (client.user_id, client.connection_id is not None) == ("7", True)
    async with SSEClient(server.events_url, channel="room") as client:
        server.driver.publish("room", {"type": "note"})
        assert len(await take(client, 1)) == 1


async def test_what_handlers_get(idle_server: Server) -> None:
    heard: list[object] = []
    plain = 'data: {"type": "note", "data": 1}\n\n'
    named = 'event: named\nid: 5\ndata: {"x": 2}\n\n'
    text = "data: no JSON\n\n"
    deep = f"data: {'[' * 5000}\n\n"
    async with scripted(idle_server, saying(plain, named, text, deep, "event: last\ndata: [3]\n\n")):
        client = SSEClient(url_of(idle_server))

        @client.on_event("note")
        def note(data: object) -> None:
            heard.append(("note", data))

        @client.on_event("message")
        async def message(data: object, event: ReceivedEvent) -> None:
            heard.append(("message", data if len(event.data) < 100 else "deep"))

        @client.on_event("named")
        def by_name(data: object, event: ReceivedEvent) -> None:
            heard.append((data, event.id))

        @client.on_event("*")
        def everything(data: object, event: ReceivedEvent) -> None:
            heard.append(event.event)

        async with client:
            await patiently(lambda: heard[-1:] == ["last"])
            assert heard == [
                *[("message", 1), ("note", 1), "message"],
                *[({"x": 2}, "5"), "named"],
                *[("message", "no JSON"), "message"],
                *[("message", "deep"), "message"],
                "last",
            ]
            assert client.last_event_id == "5"


async def test_an_event_that_is_no_json() -> None:
    event = ReceivedEvent("message", "x", "")
    with pytest.raises(ValueError, match="JSON"):
        event.json()


async def test_housekeeping_is_for_handlers_only(idle_server: Server) -> None:
    heard: list[Any] = []
    protocol = 'event: heartbeat\ndata: {"type": "heartbeat", "timestamp": 1}\n\n'
    foreign = "event: connected\ndata: to something else\n\n"
    async with scripted(idle_server, saying(protocol, foreign)):
        client = SSEClient(url_of(idle_server))
        async with client:
            assert [event.event for event in await take(client, 1)] == ["connected"]
        client.on_event("heartbeat")(heard.append)
        async with client:
            await patiently(lambda: heard == [{"type": "heartbeat", "timestamp": 1}])


async def test_a_fault_of_a_handler_ends_nothing(server: Server, faults: list[logging.LogRecord]) -> None:
    heard: list[object] = []
    async with SSEClient(server.events_url, channel="room") as client:
        client.on_event("note")(lambda data: 1 / data)
        client.on_event("note")(heard.append)
        for number in (0, 1):
            server.driver.publish("room", {"type": "note", "data": number})
        await patiently(lambda: heard == [0, 1])
    assert len(faults) == 1
    faults.clear()


async def test_nobody_iterates(server: Server) -> None:
    async with SSEClient(server.events_url, channel="room", queue_size=2) as client:
        for number in range(5):
            server.driver.publish("room", {"type": "note", "data": number})
        await patiently(lambda: client.dropped == 3)
        values: list[Any] = [event.json() for event in await take(client, 2)]
        assert [value["data"] for value in values] == [3, 4]


async def test_reading_pauses_for_slow_iteration(idle_server: Server) -> None:
    written = 0

    async def script(stream: EventStream) -> None:
        nonlocal written
        await stream.start()
        while True:
            await stream.write(f"data: {written}{' ' * 60_000}\n\n")
            written += 1

    now = 0.0
    async with scripted(idle_server, script):
        endpoint = SSEClient(url_of(idle_server), queue_size=2)._endpoint
        endpoint = attrs.evolve(endpoint, config=EventSourceConfig(idle_timeout=10))
        session = SSESession(endpoint, Handlers(), last_event_id="", keep_trying=False, clock=lambda: now)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(session.run)
            first = await session.inbox.get()
            assert first is not None
            await patiently(lambda: session._next_timeout() is None)
            await anyio.wait_all_tasks_blocked()
            before = written
            await anyio.wait_all_tasks_blocked()
            assert written == before
            # The silence is our own, and what came meanwhile is read before it counts again.
            now = 1000.0
            for expected in range(1, before):
                event = await session.inbox.get()
                assert event is not None
                assert int(event.data) == expected
            assert session.connected
            session.disconnect()


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("ws://localhost/events", {}),
        ("http:///events", {}),
        ("http://localhost:port/events", {}),
        ("http://me:secret@localhost/events", {}),
        ("http://[/events", {}),
        ("http://localhost/events", {"token": "a\r\nb: c"}),
        ("http://localhost/events", {"headers": {"a": "b\nc"}}),
        ("http://localhost/events", {"user_id": ""}),
    ],
)
def test_what_cannot_be_sent_is_told_at_once(url: str, options: dict[str, Any]) -> None:
    with pytest.raises(LocalProtocolError) as caught:
        SSEClient(url, **options)
    assert "secret" not in str(caught.value)


async def test_tls() -> None:
    authority = trustme.CA()
    theirs, ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(theirs)
    authority.configure_trust(ours)
    async with anyio.create_task_group() as tasks:

        async def run(task_status: anyio.abc.TaskStatus[Any]) -> None:
            await serve(port=0, ssl_context=theirs, task_status=task_status)

        _, port = await tasks.start(run)
        url = f"https://127.0.0.1:{port}/realtime/events"
        async with nothing_left(), SSEClient(url, channel="room", ssl_context=ours) as client:
            assert client.connected
        tasks.cancel_scope.cancel()


# Over HTTP


async def test_publishing(idle_server: Server) -> None:
    api = Api()
    idle_server.app = api
    await idle_server.start()
    position = {"id": "e:1", "offset": 1, "epoch": "e"}
    client = SSEClient(idle_server.events_url, api_key="k")
    assert await client.broadcast({"global": "Глобальное сообщение"}) == position
    async with nothing_left(), client:
        await client.send_to_user(5, {"message": "Персональное уведомление"})
        await client.send_to_channel("general", "text")
        await client.send_notification(title="T", content="C", type="success", user_id="5")
    assert [(posted.path, posted.body) for posted in api.posted] == [
        ("/realtime/broadcast", {"global": "Глобальное сообщение"}),
        ("/realtime/send", {"message": "Персональное уведомление", "user_id": "5"}),
        ("/realtime/send", {"data": "text", "channel": "general"}),
        (
            "/realtime/notifications/send",
            {"title": "T", "content": "C", "type": "success", "auto_hide": True, "user_id": "5"},
        ),
    ]
    assert {posted.headers["x-api-key"] for posted in api.posted} == {"k"}
