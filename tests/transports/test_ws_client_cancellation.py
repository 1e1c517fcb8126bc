"""What a cancelled `WSClient` leaves behind: nothing."""

from __future__ import annotations

import anyio
import pytest
from anyio.abc import SocketStream

from rtcore import ClientConfig, encode
from rtcore_transports import WSClient

from .servers import (
    EAGER,
    HASTY,
    TIMEOUT,
    ASGISocket,
    Server,
    cancelled_once,
    handshake,
    nothing_left,
    patiently,
    receive,
    tcp_server,
    websocket_app,
)
from .tokens import Issuer, next_command

pytestmark = pytest.mark.anyio


async def hang(stream: SocketStream) -> None:
    await anyio.sleep_forever()


async def welcome_and_hang(stream: SocketStream) -> None:
    await handshake(stream)
    await stream.send(encode({"type": "connected", "connection_id": "c"}).frame)
    await hang(stream)


async def test_cancelled_while_connecting() -> None:
    accepted = anyio.Event()

    async def handle(stream: SocketStream) -> None:
        accepted.set()
        await hang(stream)

    async with nothing_left(), tcp_server(handle) as port:
        client = WSClient(f"ws://127.0.0.1:{port}/ws")
        async with cancelled_once(accepted.is_set):
            await client.connect()
        assert client.stats.state == "idle"


async def test_cancelled_while_waiting_for_a_server() -> None:
    async with tcp_server(hang) as port:
        pass
    client = WSClient(f"ws://127.0.0.1:{port}/ws", config=ClientConfig(backoff_base=TIMEOUT))
    async with nothing_left(), cancelled_once(lambda: client.stats.state == "waiting"):
        await client.connect(wait=True)


async def test_cancelled_in_the_body(server: Server) -> None:
    entered = anyio.Event()
    async with nothing_left(), cancelled_once(entered.is_set), WSClient(server.url()):
        entered.set()
        await anyio.sleep_forever()


async def test_cancelled_in_iteration(server: Server) -> None:
    async with nothing_left(), WSClient(server.url()) as client:
        async with cancelled_once(lambda: client.connected):
            async for _ in client:
                pass
        await client.send_text("not lost")
        assert (await receive(client))["data"] == "not lost"


async def test_cancelled_while_an_answer_is_awaited(idle_server: Server) -> None:
    asked = anyio.Event()

    async def script(socket: ASGISocket) -> None:
        await socket.welcome()
        first = await socket.receive()
        asked.set()
        second = await socket.receive()
        assert first is not None
        assert second is not None
        await socket.answer(first)
        await socket.answer(second, {"second": True})
        await socket.receive()

    idle_server.app = websocket_app(script)
    await idle_server.start()
    async with nothing_left(), WSClient(idle_server.url("/ws")) as client:
        async with cancelled_once(asked.is_set):
            await client.send_command("first")
        assert await client.send_command("second") == {"second": True}


async def test_cancelled_while_sending() -> None:
    sent = 0
    async with nothing_left(), tcp_server(welcome_and_hang) as port:
        client = WSClient(f"ws://127.0.0.1:{port}/ws", websocket=HASTY)
        await client.connect()
        async with cancelled_once(lambda: sent):
            while True:
                await client.send_text("x" * 2**14)
                sent += 1
        await client.disconnect()
    assert sent < 4096


async def test_a_peer_that_does_not_read_holds_nobody_up_for_ever() -> None:
    async with nothing_left(), tcp_server(welcome_and_hang) as port:
        client = WSClient(f"ws://127.0.0.1:{port}/ws", websocket=HASTY)
        await client.connect()
        async with anyio.create_task_group() as tasks:

            async def send_all() -> None:
                while client.stats.state != "closed":
                    await client.send_text("x" * 2**20)

            tasks.start_soon(send_all)
            await anyio.wait_all_tasks_blocked()
            with anyio.fail_after(TIMEOUT):
                await client.disconnect()


async def test_cancelled_in_disconnect() -> None:
    async with nothing_left(), tcp_server(welcome_and_hang) as port:
        client = WSClient(f"ws://127.0.0.1:{port}/ws")
        await client.connect()
        async with cancelled_once(lambda: client.stats.state == "closed"):
            await client.disconnect()


def test_a_loop_that_ends_first(anyio_backend: str) -> None:
    """A client that nobody disconnects ends with the event loop."""

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            server = Server(tasks)
            await server.start()
            client = WSClient(server.url())
            await client.connect()
            tasks.cancel_scope.cancel()

    anyio.run(main, backend=anyio_backend)


# While a token is awaited


async def test_cancelled_while_a_token_is_awaited(server: Server) -> None:
    issuer = Issuer()
    issuer.gate = anyio.Event()
    client = WSClient(server.url(), token=issuer)
    async with nothing_left():
        async with cancelled_once(lambda: issuer.at_once):
            await client.connect()
        assert issuer.at_once == 0
        async with cancelled_once(lambda: issuer.at_once):
            await client.broadcast({})
    assert issuer.at_once == 0


@pytest.mark.parametrize("how", ["disconnect", "cancel"])
async def test_end_while_a_token_is_awaited(idle_server: Server, how: str) -> None:
    """It is asked for on a connection that stands, and the end does not wait for it."""
    issuer = Issuer()

    async def script(socket: ASGISocket) -> None:
        issuer.gate = anyio.Event()
        await socket.welcome(expires_in=0.002)
        await socket.receive()

    idle_server.app = websocket_app(script)
    await idle_server.start()
    async with nothing_left():
        client = WSClient(
            idle_server.url("/ws"), token=issuer, config=ClientConfig(backoff_base=0.001, connect_timeout=600)
        )
        if how == "disconnect":
            async with client:
                await patiently(lambda: issuer.asked == 2)
        else:
            async with cancelled_once(lambda: issuer.asked == 2), client:
                await anyio.sleep_forever()
    assert issuer.at_once == 0


async def test_end_while_the_answer_to_a_fresh_token_is_awaited(idle_server: Server) -> None:
    shown = anyio.Event()

    async def script(socket: ASGISocket) -> None:
        await socket.welcome(expires_in=0.002)
        await next_command(socket)
        shown.set()
        await socket.receive()

    idle_server.app = websocket_app(script)
    await idle_server.start()
    async with nothing_left(), WSClient(idle_server.url("/ws"), token=Issuer(), config=EAGER):
        await shown.wait()


def test_a_loop_that_ends_before_there_is_a_token(anyio_backend: str) -> None:
    issuer = Issuer()

    async def main() -> None:
        issuer.gate = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(WSClient("ws://127.0.0.1:9/ws", token=issuer).connect)
            await patiently(lambda: issuer.at_once)
            tasks.cancel_scope.cancel()

    anyio.run(main, backend=anyio_backend)
    assert issuer.at_once == 0
