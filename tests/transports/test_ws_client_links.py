"""`WSClient` where connections fail, are lost, end, or are no longer wanted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import attrs
import pytest
from anyio.abc import SocketStream

from rtcore import CommandError, ConnectionClosed, ConnectionFailed, LocalProtocolError, QueueFull, encode
from rtcore.client import Request
from rtcore_transports import HandshakeRejected, WSClient
from rtcore_transports.inbox import Handlers
from rtcore_transports.ws_session import WSSession

from .servers import (
    EAGER,
    HASTY,
    TIMEOUT,
    ASGISocket,
    Server,
    handshake,
    nothing_left,
    patiently,
    receive,
    tcp_server,
    websocket_app,
)

pytestmark = pytest.mark.anyio


def data(text: str) -> dict[str, object]:
    return {"type": "note", "channel": "room", "data": text}


# After a loss


async def test_a_restarted_server(server: Server) -> None:
    async with nothing_left(), WSClient(server.url(), config=EAGER, user_id="ann") as client:
        await client.subscribe_to_channel("room")
        await client.send_json({"type": "command", "command": "join_channel", "data": {"channel": "hall"}}, ack=True)
        first = client.connection_id
        await server.stop()
        await patiently(lambda: not client.connected)
        for text in "abc":
            await client.send_json(data(text))
        assert client.stats.queued == 3
        async with anyio.create_task_group() as tasks:
            answers: list[object] = []

            async def ask() -> None:
                answers.append(await client.send_command("get_active_users"))
                answers.append(await client.send_json(data("d"), ack=True))

            tasks.start_soon(ask)
            await patiently(lambda: client.stats.queued == 4)
            await server.start()
        # It is another server, which cannot tell what was said meanwhile, and that is told of each channel.
        gaps = [await receive(client) for _ in range(4)]
        assert [(gap["type"], gap["channel"], gap["reason"]) for gap in gaps] == [
            ("gap", "$broadcast", "foreign_token"),
            ("gap", "$user:ann", "foreign_token"),
            ("gap", "room", "history_lost"),
            ("gap", "hall", "history_lost"),
        ]
        assert [(await receive(client))["data"] for _ in range(4)] == ["a", "b", "c", "d"]
        assert len(answers) == 2
        stats = client.stats
        assert (stats.reconnects, stats.queued, stats.channels) == (1, 0, ("room", "hall"))
        assert client.connection_id != first


async def test_leaving_while_offline(server: Server) -> None:
    async with WSClient(server.url(), config=EAGER) as client:
        await client.subscribe_to_channel("room")
        await server.stop()
        await patiently(lambda: not client.connected)
        async with anyio.create_task_group() as tasks:
            refused: list[str] = []

            async def join() -> None:
                with pytest.raises(CommandError) as caught:
                    await client.subscribe_to_channel("hall")
                refused.append(caught.value.code)

            tasks.start_soon(join)
            await patiently(lambda: client.stats.queued == 1)
            await client.unsubscribe_from_channel("hall")
            await client.unsubscribe_from_channel("room")
        assert (refused, client.stats.queued) == (["left"], 0)
        await server.start()
        await client.ping()
        assert client.stats.channels == ()
        assert server.driver.node.channels() == []


async def test_the_queue_is_bounded(server: Server) -> None:
    config = attrs.evolve(EAGER, queue_size=2)
    async with WSClient(server.url(), config=config) as client:
        await server.stop()
        await patiently(lambda: not client.connected)
        await client.send_text("a")
        await client.send_text("b")
        with pytest.raises(QueueFull):
            await client.send_text("c")
        with pytest.raises(QueueFull):
            await client.send_command("ping")
        await server.start()
        assert (await receive(client))["type"] == "gap"
        assert [(await receive(client))["data"] for _ in range(2)] == ["a", "b"]


async def test_a_command_that_the_loss_overtakes(idle_server: Server) -> None:
    async def script(socket: ASGISocket) -> None:
        await socket.welcome()
        await socket.receive()
        await socket.close(1012)

    idle_server.app = websocket_app(script)
    await idle_server.start()
    async with WSClient(idle_server.url("/ws"), config=EAGER) as client:
        with pytest.raises(ConnectionClosed) as caught:
            await client.send_command("ping")
        assert caught.value.code is None
        assert "before the answer" in caught.value.reason


async def test_a_membership_that_is_not_granted_again(idle_server: Server) -> None:
    visits = 0

    async def script(socket: ASGISocket) -> None:
        nonlocal visits
        visits += 1
        await socket.welcome()
        join = await socket.receive()
        assert join is not None
        if visits == 1:
            await socket.answer(join)
            await socket.close(1012)
        else:
            await socket.send({"type": "error", "id": join["id"], "code": "forbidden", "message": "no more"})
            await socket.receive()

    idle_server.app = websocket_app(script)
    await idle_server.start()
    async with WSClient(idle_server.url("/ws"), config=EAGER) as client:
        await client.subscribe_to_channel("room")
        assert await receive(client) == {
            "type": "error",
            "code": "forbidden",
            "message": "no more",
            "channel": "room",
        }


async def test_what_is_sent_while_the_server_closes_is_queued(idle_server: Server) -> None:
    heard: list[object] = []
    closing = anyio.Event()

    async def script(socket: ASGISocket) -> None:
        await socket.welcome()
        if not closing.is_set():
            closing.set()
            await socket.close(1012)
        elif (message := await socket.receive()) is not None:
            heard.append(message["data"])
            await socket.receive()

    idle_server.app = websocket_app(script)
    await idle_server.start()
    async with WSClient(idle_server.url("/ws"), config=EAGER) as client:
        await closing.wait()
        await patiently(lambda: not client.connected or client._session.closing)  # type: ignore[union-attr]
        await client.send_text("a")
        await patiently(lambda: heard == ["a"])


async def test_a_silent_server_is_left(idle_server: Server) -> None:
    visits: list[ASGISocket] = []

    async def script(socket: ASGISocket) -> None:
        visits.append(socket)
        await socket.welcome(heartbeat_interval=0.01 if len(visits) == 1 else None)
        await socket.receive()

    idle_server.app = websocket_app(script)
    await idle_server.start()
    async with nothing_left(), WSClient(idle_server.url("/ws"), config=EAGER, websocket=HASTY) as client:
        await patiently(lambda: client.stats.reconnects == 1 and client.connected)


@asynccontextmanager
async def session_at(client: WSClient, clock: Callable[[], float]) -> AsyncIterator[WSSession]:
    """Run a session of `client` with a clock of the test's own, and wait for its welcome."""
    session = WSSession(client._endpoint, Handlers(), keep_trying=False, clock=clock)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(session.run)
        await session.started.wait()
        yield session
        session.disconnect()


@pytest.mark.parametrize("paused", [False, True])
async def test_silence_that_is_our_own(idle_server: Server, paused: bool) -> None:
    async def script(socket: ASGISocket) -> None:
        await socket.welcome(heartbeat_interval=10)
        for _ in range(2):
            await socket.receive()
            for number in range(50 if paused else 1):
                await socket.send({"type": "note", "data": number})
        while (message := await socket.receive()) is not None:
            await socket.answer(message)

    idle_server.app = websocket_app(script)
    await idle_server.start()
    now = 0.0
    client = WSClient(idle_server.url("/ws"), config=EAGER, queue_size=10, websocket=HASTY)
    async with session_at(client, lambda: now) as session:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(session.inbox.get)
            await anyio.wait_all_tasks_blocked()
            session.send({"type": "go"})
        await patiently(lambda: session.inbox.full is paused)
        # A read that was under way as the inbox became full goes on: one more message, and there is none.
        session.send({"type": "go"})
        await patiently(lambda: session.attentive is not paused)
        now = 1000.0
        session._handle_timeout()
        assert session.connected is paused
        if paused:
            # What came meanwhile is read before the silence counts again.
            await session.outcome(session.request(Request("ping")))
            session._handle_timeout()
            assert session.connected
            now = 2000.0
            session._handle_timeout()
            assert not session.connected


async def test_a_server_that_does_not_keep_to_the_protocol(idle_server: Server) -> None:
    async def script(socket: ASGISocket) -> None:
        await socket.welcome()
        await socket.send("no JSON")
        await socket.send({"type": "late"})
        await socket.receive()

    idle_server.app = websocket_app(script)
    await idle_server.start()
    async with WSClient(idle_server.url("/ws"), config=EAGER) as client:
        with pytest.raises(ConnectionClosed) as caught:
            await receive(client)
        assert caught.value.code == 4400


# The end


async def test_a_server_that_wants_nobody_back(server: Server) -> None:
    async with nothing_left(), WSClient(server.url(), config=EAGER) as client:
        await client.send_text("last words")
        await patiently(lambda: client.stats.waiting)
        assert client.connection_id is not None
        server.driver.close(client.connection_id, 4403, "be gone", reconnect=False)
        assert (await receive(client))["data"] == "last words"
        for _ in range(2):
            with pytest.raises(ConnectionClosed, match="4403: be gone"):
                await receive(client)
        with pytest.raises(ConnectionClosed, match="be gone"):
            await client.send_text("too late")
        with pytest.raises(ConnectionClosed, match="be gone"):
            await client.send_command("ping")
        await client.connect()
        await client.ping()


async def test_handlers_hear_the_last_words(server: Server) -> None:
    heard: list[object] = []
    went_on = anyio.Event()
    async with WSClient(server.url(), config=EAGER) as client:

        @client.on_message("text")
        async def hear(data: object) -> None:
            await went_on.wait()
            heard.append(data)

        client.on_message("disconnect")(lambda message: heard.append(message["code"]))
        for text in "abc":
            await client.send_text(text)
        await patiently(lambda: client.stats.messages_received == 4)
        assert client.connection_id is not None
        server.driver.close(client.connection_id, 4403, "be gone")
        await patiently(lambda: client.stats.state == "closed")
        went_on.set()
        await patiently(lambda: heard == ["a", "b", "c", 4403])


async def test_no_reconnecting(server: Server) -> None:
    async with WSClient(server.url(), auto_reconnect=False) as client:
        await server.stop()
        with pytest.raises(ConnectionClosed) as caught:
            await receive(client)
        assert caught.value.code == 1012


async def test_attempts_are_counted(server: Server) -> None:
    async with WSClient(server.url(), config=EAGER, max_reconnect_attempts=2) as client:
        await server.stop()
        with pytest.raises(ConnectionClosed, match="lost") as caught:
            await receive(client)
        assert "cannot connect" in caught.value.reason


async def test_a_server_that_does_not_say_goodbye(idle_server: Server) -> None:
    async def handle(stream: SocketStream) -> None:
        await handshake(stream)
        await stream.send(encode({"type": "connected", "connection_id": "c"}).frame)
        await anyio.sleep_forever()

    async with nothing_left(), tcp_server(handle) as port:
        client = WSClient(f"ws://127.0.0.1:{port}/ws", websocket=HASTY)
        await client.connect()
        with anyio.fail_after(TIMEOUT):
            await client.disconnect()


# Connecting


async def hang(stream: SocketStream) -> None:
    await anyio.sleep_forever()


async def hang_up(stream: SocketStream) -> None:
    await stream.receive()


async def babble(stream: SocketStream) -> None:
    await stream.receive()
    await stream.send(b"220 mail.example.org ESMTP\r\n\r\n")


def answer(head: str, body: str = "") -> Callable[[SocketStream], Any]:
    async def handle(stream: SocketStream) -> None:
        await stream.receive()
        await stream.send(f"HTTP/1.1 {head}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        await hang(stream)

    return handle


@pytest.mark.parametrize(
    ("handle", "said"),
    [
        (hang, "no connection in time"),
        (hang_up, "ended the connection during the handshake"),
        (babble, "did not answer with HTTP"),
        (answer("401 No", '{"error": {"code": "unauthorized", "message": "a token, please"}}'), "401: a token, please"),
        (answer("302 Found\r\nLocation: /ws"), "HTTP status 302"),
        (answer("503 Full\r\nRetry-After: 7"), "HTTP status 503"),
    ],
)
async def test_a_first_attempt_that_fails(handle: Any, said: str) -> None:
    config = attrs.evolve(EAGER, connect_timeout=0.05) if handle is hang else EAGER
    async with nothing_left(), tcp_server(handle) as port:
        client = WSClient(f"ws://127.0.0.1:{port}/ws", config=config)
        with pytest.raises(ConnectionFailed, match=said):
            await client.connect()
        with pytest.raises(LocalProtocolError, match=r"connect\(\) first"):
            await client.send_text("nobody there")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
async def test_nobody_listens(host: str) -> None:
    async with tcp_server(hang) as port:
        pass
    async with nothing_left():
        with pytest.raises(ConnectionFailed, match=f"cannot connect to .*:{port}") as caught:
            async with WSClient(f"ws://{host}:{port}/ws", config=EAGER):
                pass
        cause = caught.value.__cause__
        assert isinstance(cause, ConnectionFailed)
        assert isinstance(cause.__cause__, OSError)


async def test_being_turned_away(idle_server: Server) -> None:
    idle_server.node = attrs.evolve(idle_server.node, max_connections=0)
    await idle_server.start()
    async with nothing_left():
        with pytest.raises(ConnectionFailed, match="full"):
            await WSClient(idle_server.url(), config=EAGER).connect()


async def test_waiting_for_a_server(server: Server) -> None:
    await server.stop()
    client = WSClient(server.url(), config=EAGER)
    async with nothing_left(), anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: client.connect(wait=True))
        await patiently(lambda: client.stats.state == "waiting")
        await client.send_text("early")
        await server.start()
        assert (await receive(client))["data"] == "early"
        await client.disconnect()
        await server.stop()


async def test_waiting_has_an_end() -> None:
    async with tcp_server(hang) as port:
        pass
    client = WSClient(f"ws://127.0.0.1:{port}/ws", config=EAGER, max_reconnect_attempts=2)
    async with nothing_left():
        with pytest.raises(ConnectionFailed, match="cannot connect"):
            await client.connect(wait=True)


async def test_credentials_that_will_not_do_end_the_waiting() -> None:
    async with nothing_left(), tcp_server(answer("401 No")) as port:
        with pytest.raises(ConnectionFailed, match="401") as caught:
            await WSClient(f"ws://127.0.0.1:{port}/ws", config=EAGER).connect(wait=True)
        assert not isinstance(caught.value, HandshakeRejected)


async def test_disconnecting_ends_the_waiting() -> None:
    async with nothing_left(), tcp_server(hang) as port, anyio.create_task_group() as tasks:
        client = WSClient(f"ws://127.0.0.1:{port}/ws")

        async def connect() -> None:
            with pytest.raises(ConnectionFailed, match="disconnected"):
                await client.connect()

        tasks.start_soon(connect)
        await patiently(lambda: client.stats.state == "connecting")
        await client.disconnect()
