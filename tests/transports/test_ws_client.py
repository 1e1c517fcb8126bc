"""`WSClient` on a connection that stands."""

from __future__ import annotations

import logging
import ssl
from typing import Any

import anyio
import pytest
import trustme

from rtcore import CommandError, ConnectionFailed, LocalProtocolError, Message
from rtcore_transports import WSClient, WSStats, create_ws_client, serve

from .servers import TIMEOUT, ASGISocket, Server, nothing_left, patiently, receive, websocket_app

pytestmark = pytest.mark.anyio


async def test_the_quick_guide(server: Server) -> None:
    heard: list[object] = []
    came = anyio.Event()
    client = WSClient(server.url())

    @client.on_message("text")
    async def handle_message(data: object) -> None:
        heard.append(data)
        came.set()

    async with nothing_left():
        await client.connect()
        await client.send_text("Привет!")
        with anyio.fail_after(TIMEOUT):
            await came.wait()
        await client.disconnect()
    assert heard == ["Привет!"]


async def test_who_the_server_takes_it_for(server: Server) -> None:
    client = WSClient(server.url(), user_id=7)
    assert (client.connected, client.connection_id, client.user_id) == (False, None, None)
    async with client:
        assert client.connected
        assert client.user_id == "7"
        assert client.connection_id is not None
        assert client.connection_id in server.driver.node
    assert not client.connected


async def test_two_in_a_channel(server: Server) -> None:
    async with WSClient(server.url(), user_id="ann") as ann, WSClient(server.url(), user_id="bob") as bob:
        joined = await ann.subscribe_to_channel("room")
        assert joined["channel"] == "room"
        await bob.send_command("join_channel", {"channel": "room"})
        assert (await receive(ann))["type"] == "user_joined"

        await ann.send_to_channel("room", {"text": "hello"})
        assert (await receive(ann))["text"] == "hello"
        message = await receive(bob)
        assert (message["type"], message["channel"], message["text"]) == ("channel_message", "room", "hello")

        await bob.send_json({"channel": "room", "message": "Привет всем в комнате!"})
        message = await receive(ann)
        assert (message["type"], message["message"]) == ("channel_message", "Привет всем в комнате!")

        assert await ann.unsubscribe_from_channel("room") == {"channel": "room"}
        await receive(bob)
        assert (await receive(bob))["type"] == "user_left"
        assert (ann.stats.channels, bob.stats.channels) == ((), ("room",))


async def test_a_payload_that_is_no_object(server: Server) -> None:
    async with WSClient(server.url("/realtime/ws?channel=room")) as client:
        await client.send_to_channel("room", ["a", 1])
        message = await receive(client)
        assert (message["type"], message["data"]) == ("channel_message", ["a", 1])
        await client.send_json("bare")
        message = await receive(client)
        assert (message["type"], message["data"]) == ("text", "bare")


async def test_to_a_user(server: Server) -> None:
    async with WSClient(server.url(), user_id="42") as there, WSClient(server.url()) as client:
        await client.send_to_user(42, {"text": "hi"})
        message = await receive(there)
        assert (message["type"], message["recipient_id"], message["text"]) == ("user_message", "42", "hi")
        await client.send_json({"recipient_id": 42})
        assert (await receive(there))["type"] == "user_message"


async def test_acknowledgements(server: Server) -> None:
    async with WSClient(server.url()) as client:
        first = await client.send_to_channel("room", {}, ack=True)
        second = await client.send_json({"type": "note", "channel": "room", "id": 5}, ack=True)
        assert first is not None
        assert second is not None
        assert (first["channel"], first["offset"], second["offset"]) == ("room", 1, 2)
        assert await client.send_text("hi") is None
        assert (await client.send_json({"type": "command", "command": "ping"}, ack=True) or {}).keys() == {"timestamp"}
        with pytest.raises(CommandError, match="reserved_type"):
            await client.send_json({"type": "system"}, ack=True)


async def test_a_command_that_the_server_refuses(server: Server) -> None:
    async with WSClient(server.url()) as client:
        with pytest.raises(CommandError, match="unknown_command") as caught:
            await client.send_command("dance")
        assert caught.value.code == "unknown_command"
        with pytest.raises(CommandError, match="invalid_channel"):
            await client.subscribe_to_channel("$own")
        assert client.stats.channels == ()


async def test_a_join_written_by_hand(server: Server) -> None:
    async with WSClient(server.url()) as client:
        join = {"type": "command", "command": "join_channel", "data": {"channel": "room"}}
        await client.send_json(join)
        await client.ping()
        assert client.stats.channels == ("room",)
        await client.send_json({**join, "id": "mine"})
        answer = await receive(client)
        assert (answer["type"], answer["id"], answer["ok"]) == ("response", "mine", True)
        await client.send_json({"type": "command", "command": "join_channel", "data": {"channel": ""}, "id": 3})
        answer = await receive(client)
        assert (answer["type"], answer["id"], answer["code"]) == ("error", 3, "invalid_channel")
        await client.send_json({"type": "command", "command": "join_channel"})
        assert "id" not in await receive(client)


async def test_what_the_server_answers_may_be_anything(idle_server: Server) -> None:
    async def script(socket: ASGISocket) -> None:
        await socket.welcome()
        answers = iter([None, ["a"], {"b": 1}])
        while (message := await socket.receive()) is not None:
            await socket.answer(message, next(answers))

    idle_server.app = websocket_app(script)
    await idle_server.start()
    async with WSClient(idle_server.url("/ws")) as client:
        assert [await client.send_command("x") for _ in range(3)] == [{}, {"data": ["a"]}, {"b": 1}]


# Handlers and iteration


async def test_what_handlers_get(server: Server) -> None:
    heard: list[object] = []
    client = WSClient(server.url("/realtime/ws?channel=room"))

    @client.on_message("note")
    def plain(data: object) -> None:
        heard.append(data)

    @client.on_message("note")
    async def both(data: object, message: Message) -> None:
        heard.append((data, message["type"]))

    @client.on_message("*")
    def everything(*data: Any) -> None:
        heard.append(("*", *data))

    client.on_message("bare")(heard.append)

    async with client:
        await client.send_json({"type": "note", "channel": "room", "data": 1}, ack=True)
        await client.send_json({"type": "bare", "channel": "room", "x": 2}, ack=True)
        await patiently(lambda: len(heard) == 5)
    assert heard[:3] == [1, (1, "note"), ("*", 1)]
    assert isinstance(heard[3], dict)
    assert (heard[3]["x"], heard[4]) == (2, ("*", heard[3]))


def test_a_handler_needs_a_parameter() -> None:
    client = WSClient("ws://localhost/ws")
    with pytest.raises(LocalProtocolError, match="takes the data"):
        client.on_message("x")(lambda: None)


async def test_handlers_take_what_iteration_then_does_not_get(server: Server) -> None:
    async with WSClient(server.url("/realtime/ws?channel=room")) as client:
        heard: list[object] = []
        client.on_message("mine")(heard.append)
        await client.send_json({"type": "mine", "channel": "room", "data": 1})
        await client.send_json({"type": "other", "channel": "room", "data": 2})
        assert (await receive(client))["type"] == "other"
        await patiently(lambda: heard == [1])


async def test_a_handler_may_wait_for_answers(server: Server) -> None:
    heard: list[Message] = []
    async with WSClient(server.url("/realtime/ws?channel=room"), queue_size=1) as client:

        @client.on_message("ask")
        async def ask(data: object) -> None:
            heard.append(await client.send_command("presence", {"channel": "room"}))

        for _ in range(5):
            await client.send_json({"type": "ask", "channel": "room"})
        await patiently(lambda: len(heard) == 5)


async def test_a_fault_of_a_handler_ends_nothing(server: Server, faults: list[logging.LogRecord]) -> None:
    heard: list[object] = []
    async with WSClient(server.url()) as client:

        @client.on_message("text")
        def fail(data: object) -> None:
            raise ValueError(data)

        client.on_message("text")(heard.append)
        await client.send_text("a")
        await client.send_text("b")
        await patiently(lambda: heard == ["a", "b"])
    assert [record.name for record in faults] == ["rtcore.client"] * 2
    faults.clear()


async def test_a_handler_may_disconnect(server: Server) -> None:
    went_on = anyio.Event()
    client = WSClient(server.url())

    @client.on_message("text")
    async def leave(data: object) -> None:
        await client.disconnect()
        with pytest.raises(LocalProtocolError, match="connected already"):
            await client.connect()
        await anyio.lowlevel.checkpoint()
        went_on.set()

    async with nothing_left():
        await client.connect()
        await client.send_text("bye")
        with anyio.fail_after(TIMEOUT):
            async for _ in client:
                pass
            await went_on.wait()
        await client.disconnect()


async def test_disconnecting_cancels_a_handler(server: Server) -> None:
    began = anyio.Event()
    ended: list[bool] = []
    async with nothing_left(), WSClient(server.url()) as client:

        @client.on_message("text")
        async def dawdle(data: object) -> None:
            began.set()
            try:
                await anyio.sleep_forever()
            finally:
                ended.append(True)

        await client.send_text("a")
        await client.send_text("b")
        await began.wait()
    assert ended == [True]


async def test_nobody_iterates(server: Server) -> None:
    async with WSClient(server.url("/realtime/ws?channel=room"), queue_size=3) as client:
        for number in range(10):
            await client.send_to_channel("room", number, ack=True)
        assert (client.stats.dropped, client.stats.waiting) == (7, 3)
        assert [(await receive(client))["data"] for _ in range(3)] == [7, 8, 9]


async def test_many_may_iterate(server: Server) -> None:
    got: list[object] = []
    async with WSClient(server.url()) as client, anyio.create_task_group() as tasks:

        async def take() -> None:
            got.append((await receive(client))["data"])

        for _ in range(3):
            tasks.start_soon(take)
        await anyio.wait_all_tasks_blocked()
        for text in "abc":
            await client.send_text(text)
    assert sorted(map(str, got)) == ["a", "b", "c"]


async def test_reading_pauses_for_slow_iteration_but_not_for_answers(server: Server) -> None:
    async with WSClient(server.url("/realtime/ws?channel=room"), queue_size=2) as client:
        await client.send_to_channel("room", -1)
        await receive(client)
        received = client.stats.messages_received
        for number in range(200):
            server.driver.publish("room", {"type": "note", "data": number, "padding": "x" * 1000})
            await anyio.lowlevel.checkpoint()
        # What one read brings is all that comes.
        await patiently(lambda: client.stats.waiting >= 2)
        await anyio.wait_all_tasks_blocked()
        assert client.stats.messages_received - received < 150
        await client.ping()
        assert client.stats.waiting == 200
        assert [(await receive(client))["data"] for _ in range(200)] == list(range(200))
        assert client.stats.dropped == 0


async def test_a_slow_handler_pauses_reading(server: Server) -> None:
    gate = anyio.Event()
    heard: list[object] = []
    async with WSClient(server.url("/realtime/ws?channel=room"), queue_size=2) as client:

        @client.on_message("note")
        async def slow(data: object) -> None:
            await gate.wait()
            heard.append(data)

        for number in range(200):
            server.driver.publish("room", {"type": "note", "data": number, "padding": "x" * 1000})
            await anyio.lowlevel.checkpoint()
        await patiently(lambda: client.stats.waiting >= 2)
        await anyio.wait_all_tasks_blocked()
        assert client.stats.messages_received < 150
        gate.set()
        await patiently(lambda: heard == list(range(200)))


async def test_heartbeats_are_for_handlers_only(idle_server: Server) -> None:
    async def script(socket: ASGISocket) -> None:
        await socket.welcome()
        await socket.send({"type": "heartbeat", "timestamp": 1})
        await socket.send({"type": "note"})
        await socket.receive()

    idle_server.app = websocket_app(script)
    await idle_server.start()
    beats: list[Message] = []
    client = WSClient(idle_server.url("/ws"))
    async with client:
        assert await receive(client) == {"type": "note"}
        client.on_message("heartbeat")(beats.append)
    async with client:
        await patiently(lambda: beats == [{"type": "heartbeat", "timestamp": 1}])


# What there is to know


async def test_ping_and_stats(server: Server) -> None:
    client = WSClient(server.url(), user_id="ann")
    assert client.stats == WSStats()
    async with client:
        assert 0 < await client.ping() < TIMEOUT
        await client.send_text("hi")
        await receive(client)
        stats = client.stats
        assert (stats.state, stats.user_id, stats.connection_id) == ("connected", "ann", client.connection_id)
        assert (stats.messages_sent, stats.messages_received, stats.reconnects) == (2, 3, 0)
        assert stats.bytes_sent > 100
        assert stats.bytes_received > 100
        assert (stats.queued, stats.waiting, stats.dropped) == (0, 0, 0)
    assert client.stats.state == "closed"
    assert client.stats.bytes_sent > stats.bytes_sent


async def test_credentials_travel_in_headers_and_not_in_logs(
    idle_server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "rtcore")
    seen: list[dict[str, str]] = []

    async def script(socket: ASGISocket) -> None:
        seen.append(socket.headers)
        await socket.welcome()
        await socket.receive()

    idle_server.app = websocket_app(script)
    await idle_server.start()
    url = idle_server.url("/ws")
    async with create_ws_client(url=url, token="s3cret", api_key="k3y", headers={"X-Extra": "1"}):
        pass
    assert seen[0]["authorization"] == "Bearer s3cret"
    assert (seen[0]["x-api-key"], seen[0]["x-extra"]) == ("k3y", "1")
    assert "s3cret" not in caplog.text
    assert "k3y" not in caplog.text


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("ftp://localhost/ws", {}),
        ("ws:///ws", {}),
        ("ws://localhost:port/ws", {}),
        ("ws://localhost/ws#part", {}),
        ("ws://me:secret@localhost/ws", {}),
        ("ws://[/ws", {}),
        ("ws://[/ws", {"user_id": 1}),
        ("ws://" + "x" * 64 + "/ws", {}),
        ("ws://localhost/ws", {"token": "a\r\nb: c"}),
        ("ws://localhost/ws", {"token": ""}),
        ("ws://localhost/ws", {"api_key": "a b"}),
        ("ws://localhost/ws", {"user_id": ""}),
        ("ws://localhost/ws", {"headers": {"a": "b\nc"}}),
        ("ws://localhost/ws", {"headers": {"Upgrade": "b"}}),
    ],
)
def test_what_cannot_be_sent_is_told_at_once(url: str, options: dict[str, Any]) -> None:
    with pytest.raises(LocalProtocolError) as caught:
        WSClient(url, **options)
    assert "secret" not in str(caught.value)


async def test_misuse(server: Server) -> None:
    client = WSClient(server.url())
    await client.disconnect()
    with pytest.raises(LocalProtocolError, match=r"connect\(\) first"):
        await client.send_text("too early")
    with pytest.raises(LocalProtocolError, match=r"connect\(\) first"):
        await client.__anext__()
    await client.connect()
    with pytest.raises(LocalProtocolError, match="connected already"):
        await client.connect()
    with pytest.raises(LocalProtocolError, match="JSON"):
        await client.send_json({"type": "x", "data": object()})
    with pytest.raises(LocalProtocolError, match="JSON"):
        await client.send_json({"type": "x", "channel": "room", "data": object()}, ack=True)
    await client.disconnect()
    await client.disconnect()
    with pytest.raises(LocalProtocolError, match="CLOSED"):
        await client.send_text("too late")
    with pytest.raises(LocalProtocolError, match="CLOSED"):
        await client.send_command("ping")
    assert [message async for message in client] == []
    async with client:
        await client.send_text("again")
        assert (await receive(client))["data"] == "again"


async def test_tls(server: Server) -> None:
    authority = trustme.CA()
    theirs, ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(theirs)
    authority.configure_trust(ours)
    async with anyio.create_task_group() as tasks:

        async def run(task_status: anyio.abc.TaskStatus[Any]) -> None:
            await serve(port=0, ssl_context=theirs, task_status=task_status)

        _, port = await tasks.start(run)
        async with nothing_left(), WSClient(f"wss://127.0.0.1:{port}/realtime/ws", ssl_context=ours) as client:
            await client.send_text("x" * 200_000)
            assert (await receive(client))["data"] == "x" * 200_000
        async with nothing_left():
            with pytest.raises(ConnectionFailed, match="certificate") as caught:
                await WSClient(f"wss://127.0.0.1:{port}/realtime/ws").connect()
            assert isinstance(caught.value.__cause__, ConnectionFailed)
        tasks.cancel_scope.cancel()
