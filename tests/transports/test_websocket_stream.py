"""`open_websocket`: a WebSocket as a stream of messages."""

from __future__ import annotations

from typing import Any

import anyio
import attrs
import pytest
from anyio.abc import SocketStream

from rtcore import ConnectionClosed, ConnectionFailed, LocalProtocolError, WebSocketConfig
from rtcore.frames import Opcode, encode_frame
from rtcore.websocket import Opened, WebSocketState
from rtcore_transports import HandshakeRejected, open_websocket
from rtcore_transports.client_websocket import ClientWebSocket, WebSocketUrl

from .servers import HASTY, TIMEOUT, Server, cancelled_once, handshake, nothing_left, patiently, tcp_server

pytestmark = pytest.mark.anyio

CONFIG = WebSocketConfig(close_timeout=TIMEOUT)


async def echo_app(scope: Any, receive: Any, send: Any) -> None:
    """Send everything back; ``close`` closes, under the subprotocol ``echo`` if that is offered."""
    if scope["type"] != "websocket":
        return
    await receive()
    subprotocol = "echo" if "echo" in scope["subprotocols"] else None
    await send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": [(b"x-here", b"1")]})
    while (event := await receive())["type"] == "websocket.receive":
        if event.get("text") == "close":
            await send({"type": "websocket.close", "code": 4000, "reason": "as you wish"})
        else:
            await send({**event, "type": "websocket.send"})


@pytest.fixture
async def echo(idle_server: Server) -> Server:
    """Return a server whose application sends everything back."""
    idle_server.app = echo_app
    await idle_server.start()
    return idle_server


async def test_there_and_back(echo: Server) -> None:
    async with (
        nothing_left(),
        open_websocket(echo.url("/x"), subprotocols=["chat", "echo"], headers=[(b"origin", b"http://x")]) as stream,
    ):
        assert stream.subprotocol == "echo"
        assert (b"x-here", b"1") in stream.headers
        for message in ("text", b"bytes", "", b"", "€" * 100_000, b"\0" * 500_000):
            await stream.send(message)
            with anyio.fail_after(TIMEOUT):
                assert await stream.receive() == message


async def test_paths_and_queries_are_encoded(idle_server: Server) -> None:
    seen: list[tuple[str, bytes]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            seen.append((scope["path"], scope["query_string"]))
            await echo_app(scope, receive, send)

    idle_server.app = app
    await idle_server.start()
    async with open_websocket(idle_server.url("/пут ь/a%20b?q=я&r=%41")):
        pass
    assert seen == [("/пут ь/a b", b"q=%D1%8F&r=%41")]


@pytest.mark.parametrize(
    ("url", "expected", "authority"),
    [
        ("ws://host", WebSocketUrl("host", 80, False, "/"), "host"),
        ("wss://host:444/?a=b", WebSocketUrl("host", 444, True, "/?a=b"), "host:444"),
        ("https://HOST:443/x", WebSocketUrl("host", 443, True, "/x"), "host"),
        ("http://[::1]:8/x", WebSocketUrl("::1", 8, False, "/x"), "[::1]:8"),
    ],
)
def test_urls(url: str, expected: WebSocketUrl, authority: str) -> None:
    parsed = WebSocketUrl.parse(url)
    assert parsed == expected
    assert parsed.authority == authority


async def test_closed_by_the_server(echo: Server) -> None:
    async with nothing_left(), open_websocket(echo.url("/x"), config=CONFIG) as stream:
        await stream.send("last")
        await stream.send("close")
        with anyio.fail_after(TIMEOUT):
            assert await stream.receive() == "last"
            for _ in range(2):
                with pytest.raises(ConnectionClosed) as caught:
                    await stream.receive()
                assert (caught.value.code, caught.value.reason) == (4000, "as you wish")
            with pytest.raises(ConnectionClosed, match="4000"):
                await stream.send("too late")


async def test_closed_by_the_client(echo: Server) -> None:
    async with nothing_left(), open_websocket(echo.url("/x"), config=CONFIG) as stream:
        with pytest.raises(LocalProtocolError):
            await stream.aclose(1005)
        await stream.aclose(4001, "enough")
        await stream.aclose()
        with pytest.raises(ConnectionClosed, match="4001: enough"):
            await stream.receive()


async def test_a_text_that_cannot_be_sent(echo: Server) -> None:
    async with open_websocket(echo.url("/x")) as stream:
        with pytest.raises(LocalProtocolError, match="surrogate"):
            await stream.send("\ud800")
        await stream.send("fine")
        assert await stream.receive() == "fine"


async def test_an_error_in_the_block_passes_through(echo: Server) -> None:
    async with nothing_left():
        with pytest.raises(ZeroDivisionError):
            async with open_websocket(echo.url("/x"), config=CONFIG):
                raise ZeroDivisionError


async def test_a_refusal() -> None:
    async def handle(stream: SocketStream) -> None:
        await stream.receive()
        await stream.send(b"HTTP/1.1 418 Teapot\r\nX-Pot: 1\r\nContent-Length: 5\r\n\r\nshort")

    async with nothing_left(), tcp_server(handle) as port:
        with pytest.raises(HandshakeRejected, match="418") as caught:
            async with open_websocket(f"ws://127.0.0.1:{port}/"):
                pass
        assert (caught.value.status, caught.value.body) == (418, b"short")
        assert (b"x-pot", b"1") in caught.value.headers


async def hang(stream: SocketStream) -> None:
    await anyio.sleep_forever()


@pytest.mark.parametrize("scheme", ["ws", "wss"])
async def test_no_answer(scheme: str) -> None:
    config = WebSocketConfig(handshake_timeout=0.02)
    async with nothing_left(), tcp_server(hang) as port:
        with pytest.raises(ConnectionFailed, match="in time"):
            async with open_websocket(f"{scheme}://127.0.0.1:{port}/", config=config):
                pass


async def test_no_tls() -> None:
    async def handle(stream: SocketStream) -> None:
        await stream.receive()

    async with nothing_left(), tcp_server(handle) as port:
        with pytest.raises(ConnectionFailed, match="cannot connect"):
            async with open_websocket(f"wss://127.0.0.1:{port}/"):
                pass


@pytest.mark.parametrize("host", ["a..b", "x" * 64])
async def test_a_host_that_is_none(host: str) -> None:
    async with nothing_left():
        with pytest.raises((ConnectionFailed, LocalProtocolError)):
            async with open_websocket(f"ws://{host}/"):
                pass


async def test_a_header_that_cannot_be_sent(echo: Server) -> None:
    async with nothing_left():
        with pytest.raises(LocalProtocolError, match="header"):
            async with open_websocket(echo.url("/x"), headers=[(b"upgrade", b"h2c")]):
                pass


async def test_the_bytes_just_end() -> None:
    async def handle(stream: SocketStream) -> None:
        await handshake(stream)
        await stream.send(encode_frame(Opcode.TEXT, b"last", mask=None))

    async with nothing_left(), tcp_server(handle) as port, open_websocket(f"ws://127.0.0.1:{port}/") as stream:
        assert await stream.receive() == "last"
        with pytest.raises(ConnectionClosed) as caught:
            await stream.receive()
        assert caught.value.code is None
        assert "without a Close frame" in caught.value.reason


async def test_a_server_that_never_closes() -> None:
    async def handle(stream: SocketStream) -> None:
        await handshake(stream)
        await hang(stream)

    async with nothing_left(), tcp_server(handle) as port:
        with anyio.fail_after(TIMEOUT):
            async with open_websocket(f"ws://127.0.0.1:{port}/", config=HASTY):
                pass


async def test_keepalive() -> None:
    """A peer that answers no pings is given up, without anybody's waiting for a message."""

    async def handle(stream: SocketStream) -> None:
        await handshake(stream)
        await hang(stream)

    config = WebSocketConfig(ping_interval=0.01, pong_timeout=0.01, close_timeout=0.01)
    async with (
        nothing_left(),
        tcp_server(handle) as port,
        open_websocket(f"ws://127.0.0.1:{port}/", config=config) as stream,
    ):
        with pytest.raises(ConnectionClosed) as caught:
            await stream.receive()
        assert caught.value.code == 4408


async def test_pings_of_the_server_are_answered() -> None:
    answered = anyio.Event()

    async def handle(stream: SocketStream) -> None:
        await handshake(stream)
        await stream.send(encode_frame(Opcode.PING, b"hello", mask=None))
        await stream.send(encode_frame(Opcode.PONG, b"", mask=None))
        assert (await stream.receive())[:2] == b"\x8a\x85"
        answered.set()

    async with tcp_server(handle) as port, open_websocket(f"ws://127.0.0.1:{port}/"):
        with anyio.fail_after(TIMEOUT):
            await answered.wait()


# Whoever does not receive is not sent for ever


async def flood(stream: SocketStream) -> None:
    await handshake(stream)
    message = encode_frame(Opcode.BINARY, b"x" * 65536, mask=None)
    for _ in range(256):
        await stream.send(message)
    await hang(stream)


async def test_reading_pauses() -> None:
    async with (
        nothing_left(),
        tcp_server(flood) as port,
        open_websocket(f"ws://127.0.0.1:{port}/", config=HASTY) as stream,
    ):
        await patiently(lambda: stream._waiting_bytes >= 2**20)
        await anyio.wait_all_tasks_blocked()
        assert stream._waiting_bytes < 2**21
        for _ in range(256):
            assert len(await stream.receive()) == 65536


@attrs.define
class Recorder:
    """Takes what comes, until it is told that it is full."""

    messages: list[str | bytes] = attrs.field(factory=list)
    full: bool = False
    limit: int = 1

    def opened(self, opened: Opened) -> None:
        pass

    def received(self, message: str | bytes) -> None:
        self.messages.append(message)
        self.full = len(self.messages) >= self.limit

    def heard(self) -> None:
        pass


async def test_silence_that_is_our_own() -> None:
    """While nothing is read, the peer is neither pinged nor given up; and nor is it before what came is read."""
    now = 0.0
    config = WebSocketConfig(ping_interval=10, pong_timeout=10, close_timeout=0.05)
    receiver = Recorder()
    async with nothing_left(), tcp_server(flood) as port, anyio.create_task_group() as tasks:
        socket = ClientWebSocket(
            WebSocketUrl.parse(f"ws://127.0.0.1:{port}/"), receiver, config=config, headers=(), clock=lambda: now
        )
        tasks.start_soon(socket.run)
        await patiently(lambda: receiver.full)
        await anyio.wait_all_tasks_blocked()
        assert now < socket.attentive_at
        assert socket._next_timeout() is None
        now = 100.0
        receiver.full = False
        receiver.limit = 1000
        socket.resume()
        await patiently(lambda: len(receiver.messages) == 256)
        assert socket.state is WebSocketState.OPEN
        assert socket._next_timeout() == 101.0
        assert socket.attentive_at == 101.0
        now = 101.0
        socket._handle_timeout()
        assert socket._next_timeout() == 110.0
        tasks.cancel_scope.cancel()


# Cancellation


async def test_cancelled_while_opening() -> None:
    accepted = anyio.Event()

    async def handle(stream: SocketStream) -> None:
        accepted.set()
        await hang(stream)

    async with (
        nothing_left(),
        tcp_server(handle) as port,
        cancelled_once(accepted.is_set),
        open_websocket(f"ws://127.0.0.1:{port}/"),
    ):
        pass


@pytest.mark.parametrize("action", ["receive", "aclose"])
async def test_cancelled_while_waiting(action: str) -> None:
    async def handle(stream: SocketStream) -> None:
        await handshake(stream)
        await hang(stream)

    at: list[bool] = []
    async with (
        nothing_left(),
        tcp_server(handle) as port,
        cancelled_once(lambda: at),
        open_websocket(f"ws://127.0.0.1:{port}/") as stream,
    ):
        at.append(True)
        await getattr(stream, action)()


async def test_cancelled_while_sending() -> None:
    async def handle(stream: SocketStream) -> None:
        await handshake(stream)
        await hang(stream)

    sent = 0
    async with (
        nothing_left(),
        tcp_server(handle) as port,
        cancelled_once(lambda: sent),
        open_websocket(f"ws://127.0.0.1:{port}/") as stream,
    ):
        while True:
            await stream.send(b"x" * 2**20)
            sent += 1


async def test_cancelling_a_receiver_loses_nothing(echo: Server) -> None:
    async with open_websocket(echo.url("/x")) as stream:
        for number in range(20):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(stream.receive)
                await anyio.wait_all_tasks_blocked()
                tasks.cancel_scope.cancel()
            await stream.send(str(number))
            assert await stream.receive() == str(number)


async def test_many_receivers_share(echo: Server) -> None:
    got: list[str | bytes] = []
    async with open_websocket(echo.url("/x")) as stream, anyio.create_task_group() as tasks:

        async def take() -> None:
            got.append(await stream.receive())

        for _ in range(3):
            tasks.start_soon(take)
        await anyio.wait_all_tasks_blocked()
        for text in "abc":
            await stream.send(text)
    assert sorted(map(str, got)) == ["a", "b", "c"]
