"""`WSClient` where tokens expire."""

from __future__ import annotations

import gc
import logging
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import attrs
import pytest
from anyio.abc import SocketStream

from rtcore import ConnectionClosed, ConnectionFailed, LocalProtocolError
from rtcore_transports import SSEClient, WSClient

from .servers import (
    EAGER,
    HASTY,
    TIMEOUT,
    ASGISocket,
    Script,
    Server,
    nothing_left,
    patiently,
    receive,
    tcp_server,
    websocket_app,
)
from .tokens import EXPIRED, SECRET, Issuer, next_command, refuse, say_expired

pytestmark = pytest.mark.anyio


class Visits:
    """A server whose WebSockets are what scripts make them, one after the other; the last one goes on."""

    def __init__(self, *scripts: Script) -> None:
        self.tokens: list[str] = []
        self._scripts = scripts

    async def __call__(self, socket: ASGISocket) -> None:
        self.tokens.append(socket.headers["authorization"].removeprefix(f"Bearer {SECRET}-"))
        await self._scripts[min(len(self.tokens), len(self._scripts)) - 1](socket)


@asynccontextmanager
async def visited(server: Server, *scripts: Script) -> AsyncIterator[Visits]:
    visits = Visits(*scripts)
    server.app = websocket_app(visits)
    await server.start()
    async with nothing_left():
        yield visits


async def stay(socket: ASGISocket) -> None:
    await socket.welcome()
    while await socket.receive() is not None:
        pass


async def expire(socket: ASGISocket) -> None:
    await socket.welcome()
    await say_expired(socket)


async def turn_away(socket: ASGISocket) -> None:
    await say_expired(socket)


def url(server: Server) -> str:
    return server.url("/ws")


# A token for each attempt


async def test_each_attempt_has_a_token_of_its_own(idle_server: Server) -> None:
    async def restart(socket: ASGISocket) -> None:
        await socket.welcome()
        await socket.close(1012)

    async with visited(idle_server, restart, restart, stay) as visits:
        async with WSClient(url(idle_server), token=Issuer(), config=EAGER) as client:
            await patiently(lambda: client.stats.reconnects == 2)
        assert visits.tokens == ["1", "2", "3"]


async def test_other_headers_go_along(idle_server: Server) -> None:
    seen: list[dict[str, str]] = []

    async def script(socket: ASGISocket) -> None:
        seen.append(socket.headers)
        await stay(socket)

    idle_server.app = websocket_app(script)
    await idle_server.start()
    async with WSClient(url(idle_server), token=Issuer(), api_key="k", headers={"x-own": "1"}):
        pass
    [headers] = seen
    assert (headers["authorization"], headers["x-api-key"], headers["x-own"]) == (f"Bearer {SECRET}-1", "k", "1")


@pytest.mark.parametrize("wait", [False, True])
async def test_function_that_raises(idle_server: Server, wait: bool) -> None:
    async with visited(idle_server, stay):
        issuer = Issuer()
        issuer.failing = lambda: str(1 / 0)
        client = WSClient(url(idle_server), token=issuer, config=EAGER)
        if not wait:
            with pytest.raises(
                ConnectionFailed, match="the function that returns them raised ZeroDivisionError"
            ) as caught:
                await client.connect()
            assert isinstance(caught.value.__cause__, ConnectionFailed)
            assert isinstance(caught.value.__cause__.__cause__, ZeroDivisionError)
            assert (issuer.at_once, client.stats.state) == (0, "idle")
            return
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: client.connect(wait=True))
            await patiently(lambda: issuer.asked >= 3)
            issuer.failing = None
        await client.disconnect()


async def test_function_that_raises_later(idle_server: Server) -> None:
    issuer = Issuer()

    async def restart(socket: ASGISocket) -> None:
        await socket.welcome()
        issuer.failing = lambda: str({}["key"])
        await socket.close(1012)

    async with (
        visited(idle_server, restart, stay),
        WSClient(url(idle_server), token=issuer, config=EAGER) as client,
    ):
        await patiently(lambda: issuer.asked >= 3)
        issuer.failing = None
        await patiently(lambda: client.stats.reconnects == 1)


async def test_function_that_does_not_return(idle_server: Server) -> None:
    async with visited(idle_server, stay):
        issuer = Issuer()
        issuer.gate = anyio.Event()
        client = WSClient(url(idle_server), token=issuer, config=attrs.evolve(EAGER, connect_timeout=0.02))
        with pytest.raises(ConnectionFailed, match="no connection in time"):
            await client.connect()
        assert issuer.at_once == 0


NONSENSE: list[Any] = [None, 5, "", f"{SECRET} x", f"{SECRET}\n", SECRET.encode(), f"{SECRET}é"]


@pytest.mark.parametrize("nonsense", NONSENSE, ids=repr)
async def test_function_that_returns_no_token(idle_server: Server, nonsense: Any) -> None:
    async with visited(idle_server, stay) as visits:
        issuer = Issuer()
        issuer.failing = lambda: nonsense  # type: ignore[no-any-return]
        client = WSClient(url(idle_server), token=issuer)
        with pytest.raises(LocalProtocolError) as at_connecting:
            await client.connect()
        with pytest.raises(LocalProtocolError) as over_http:
            await client.broadcast({})
        assert SECRET not in f"{at_connecting.value}{over_http.value}"
        assert visits.tokens == []


@pytest.mark.parametrize("token", [5, b"x", ["x"], ""])
def test_what_is_neither_a_token_nor_a_function(token: Any) -> None:
    with pytest.raises(LocalProtocolError, match="token"):
        WSClient("ws://localhost/ws", token=token)


# A fresh one on a connection that stands


async def test_token_is_refreshed_in_time(idle_server: Server) -> None:
    shown: list[object] = []

    async def script(socket: ASGISocket) -> None:
        await socket.welcome(expires_in=0.01)
        for expires_in in (0.01, None):
            command = await next_command(socket)
            assert command["command"] == "refresh_token"
            shown.append(command["data"])
            await socket.answer(command, {"user_id": None, "expires_in": expires_in})
        await socket.send({"type": "note", "data": "done"})
        await socket.receive()

    async with visited(idle_server, script) as visits:
        async with WSClient(url(idle_server), token=Issuer(), config=EAGER) as client:
            # Nobody hears of it.
            assert await receive(client) == {"type": "note", "data": "done"}
            assert client.stats.reconnects == 0
        assert (visits.tokens, shown) == (["1"], [{"token": f"{SECRET}-2"}, {"token": f"{SECRET}-3"}])


async def test_refused_token_is_followed_by_another(idle_server: Server, caplog: pytest.LogCaptureFixture) -> None:
    shown: list[object] = []

    async def script(socket: ASGISocket) -> None:
        await socket.welcome(expires_in=0.01)
        for accepted in (False, False, True):
            command = await next_command(socket)
            shown.append(command["data"])
            await (socket.answer(command, {}) if accepted else refuse(socket, command))
        await socket.send({"type": "note", "data": "done"})
        await socket.receive()

    async with visited(idle_server, script):
        async with WSClient(url(idle_server), token=Issuer(), config=EAGER) as client:
            assert await receive(client) == {"type": "note", "data": "done"}
        assert shown == [{"token": f"{SECRET}-{number}"} for number in (2, 3, 4)]
        assert "refuses the fresh token: invalid_token" in caplog.text


async def test_function_that_fails_at_refreshing(idle_server: Server) -> None:
    issuer = Issuer()

    async def script(socket: ASGISocket) -> None:
        issuer.failing = lambda: str({}["key"])
        await socket.welcome(expires_in=0.01)
        command = await next_command(socket)
        await socket.answer(command, {})
        await socket.send({"type": "note", "data": command["data"]})
        await socket.receive()

    async with visited(idle_server, script), WSClient(url(idle_server), token=issuer, config=EAGER) as client:
        await patiently(lambda: issuer.asked >= 4)
        issuer.failing = None
        assert (await receive(client))["data"] == {"token": f"{SECRET}-2"}


async def test_function_that_hangs_at_refreshing(idle_server: Server) -> None:
    issuer = Issuer()

    async def script(socket: ASGISocket) -> None:
        issuer.gate = anyio.Event()
        await socket.welcome(expires_in=0.01)
        command = await next_command(socket)
        await socket.answer(command, {})
        await socket.send({"type": "note", "data": command["data"]})
        await socket.receive()

    config = attrs.evolve(EAGER, connect_timeout=0.05)
    async with visited(idle_server, script), WSClient(url(idle_server), token=issuer, config=config) as client:
        await patiently(lambda: issuer.asked >= 3)
        assert issuer.gate is not None
        issuer.gate.set()
        assert (await receive(client))["data"] == {"token": f"{SECRET}-2"}
        assert issuer.most_at_once == 1


async def test_function_that_is_slow_while_the_connection_is_lost(idle_server: Server) -> None:
    """The next attempt waits for the same call, and nobody shows its token a second time."""
    issuer = Issuer()
    cut = anyio.Event()

    async def script(socket: ASGISocket) -> None:
        issuer.gate = anyio.Event()
        await socket.welcome(expires_in=0.01)
        await cut.wait()
        await socket.close(1012)

    async def second(socket: ASGISocket) -> None:
        await socket.welcome()
        assert (await next_command(socket))["command"] == "ping"
        await socket.send({"type": "note", "data": "pinged"})
        await socket.receive()

    async with visited(idle_server, script, second) as visits:
        async with WSClient(url(idle_server), token=issuer, config=EAGER) as client:
            await patiently(lambda: issuer.asked == 2)
            cut.set()
            await patiently(lambda: client.stats.state == "connecting")
            await anyio.wait_all_tasks_blocked()
            assert issuer.gate is not None
            issuer.gate.set()
            await patiently(lambda: client.stats.reconnects == 1)
            await client.send_json({"type": "command", "command": "ping"})
            assert await receive(client) == {"type": "note", "data": "pinged"}
        assert (visits.tokens, issuer.asked, issuer.most_at_once) == (["1", "2"], 2, 1)


async def test_connection_lost_before_the_answer(idle_server: Server, caplog: pytest.LogCaptureFixture) -> None:
    async def script(socket: ASGISocket) -> None:
        await socket.welcome(expires_in=0.01)
        await next_command(socket)
        await socket.close(1012)

    async with visited(idle_server, script, stay) as visits:
        async with WSClient(url(idle_server), token=Issuer(), config=EAGER) as client:
            await patiently(lambda: client.stats.reconnects == 1)
        assert visits.tokens == ["1", "3"]
        assert "refuses" not in caplog.text


async def test_token_is_refreshed_while_nobody_takes_what_comes(idle_server: Server) -> None:
    refreshed = 0

    async def script(socket: ASGISocket) -> None:
        nonlocal refreshed
        await socket.welcome(expires_in=0.2, heartbeat_interval=TIMEOUT)

        async def flood() -> None:
            while True:
                await socket.send({"type": "note", "data": "x" * 50_000})

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(flood)
            while (command := await socket.receive()) is not None:
                refreshed += 1
                await socket.answer(command, {"expires_in": 0.2})
            tasks.cancel_scope.cancel()

    async with visited(idle_server, script):
        client = WSClient(url(idle_server), token=Issuer(), config=EAGER, websocket=HASTY, queue_size=2)
        async with client:
            await receive(client)
            assert client._session is not None
            await patiently(lambda: client._session is not None and client._session.full)
            await patiently(lambda: refreshed >= 1)
            # Its answer is read, so there is a next time.
            await patiently(lambda: refreshed >= 3)


async def test_without_a_function_nothing_is_refreshed(idle_server: Server) -> None:
    async def script(socket: ASGISocket) -> None:
        await socket.welcome(expires_in=0.002)
        await expired.wait()
        await say_expired(socket)

    expired = anyio.Event()
    token = f"{SECRET}-0"
    async with visited(idle_server, script), WSClient(url(idle_server), token=token, config=EAGER) as client:
        assert client._session is not None
        assert client._session._next_timeout() is None
        expired.set()
        with pytest.raises(ConnectionClosed, match="the token has expired") as caught:
            await receive(client)
        assert caught.value.code == 4401


# Refused tokens


async def test_expired_token_leads_to_another_attempt(idle_server: Server) -> None:
    async def script(socket: ASGISocket) -> None:
        await socket.welcome()
        await socket.answer(await next_command(socket), {"channel": "room", "offset": 0, "epoch": "e"})
        await say_expired(socket)

    async def second(socket: ASGISocket) -> None:
        await socket.welcome()
        join = await next_command(socket)
        await socket.send({"type": "note", "data": join["data"]})
        await socket.receive()

    async with visited(idle_server, script, second) as visits:
        async with WSClient(url(idle_server), token=Issuer(), config=EAGER) as client:
            await client.subscribe_to_channel("room")
            assert (await receive(client))["data"] == {"channel": "room", "since": {"epoch": "e", "offset": 0}}
        assert visits.tokens == ["1", "2"]


async def test_second_refusal_in_a_row_is_the_end(idle_server: Server) -> None:
    async with visited(idle_server, expire, turn_away) as visits:
        async with WSClient(url(idle_server), token=Issuer(), config=EAGER) as client:
            with pytest.raises(ConnectionClosed) as caught:
                await receive(client)
            assert (caught.value.code, caught.value.reason) == (4401, EXPIRED["reason"])
        assert visits.tokens == ["1", "2"]


async def test_welcome_between_two_refusals(idle_server: Server) -> None:
    async with visited(idle_server, turn_away, expire, expire, stay) as visits:
        client = WSClient(url(idle_server), token=Issuer(), config=EAGER)
        await client.connect(wait=True)
        await patiently(lambda: len(visits.tokens) == 4)
        await patiently(lambda: client.connected)
        await client.disconnect()


async def test_first_token_that_is_refused(idle_server: Server) -> None:
    async with visited(idle_server, turn_away):
        issuer = Issuer()
        client = WSClient(url(idle_server), token=issuer, config=EAGER)
        with pytest.raises(ConnectionFailed, match="expired"):
            await client.connect()
        given = issuer.given
        # Who is patient has one more attempt.
        with pytest.raises(ConnectionFailed, match="expired"):
            await client.connect(wait=True)
        assert issuer.given == given + 2


async def test_handshake_that_is_refused() -> None:
    requests: list[bytes] = []

    async def handle(stream: SocketStream) -> None:
        requests.append(await stream.receive())
        await stream.send(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")

    async with nothing_left(), tcp_server(handle) as port:
        client = WSClient(f"ws://127.0.0.1:{port}/ws", token=Issuer(), config=EAGER)
        with pytest.raises(ConnectionFailed, match="401"):
            await client.connect(wait=True)
    assert [request.count(f"Bearer {SECRET}-{number}".encode()) for number, request in enumerate(requests, 1)] == [1, 1]


async def test_membership_that_the_server_ends(idle_server: Server) -> None:
    ended = {"type": "unsubscribed", "channel": "room", "code": "subscribe_denied", "reason": "no right any more"}

    async def script(socket: ASGISocket) -> None:
        await socket.welcome()
        await socket.answer(await next_command(socket))
        await socket.send(ended)
        await socket.close(1012)

    heard: list[object] = []
    async with visited(idle_server, script, stay):
        client = WSClient(f"{url(idle_server)}?channel=room", token=Issuer(), config=EAGER)
        client.on_message("unsubscribed")(lambda data, message: heard.append(message))
        async with client:
            await patiently(lambda: client.stats.reconnects == 1)
            assert (heard, client.stats.channels) == ([ended], ())


# Nothing of a token is told


async def test_tokens_are_not_told(idle_server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    said: list[str] = []

    async def script(socket: ASGISocket) -> None:
        await socket.welcome(expires_in=0.002)
        await refuse(socket, await next_command(socket))
        await say_expired(socket)

    issuer = Issuer()
    async with visited(idle_server, script, turn_away):
        client = WSClient(url(idle_server), token=issuer, config=EAGER)
        async with client:
            with pytest.raises(ConnectionClosed) as closed:
                await receive(client)
            said.append(repr(closed.value))
        for failing in (lambda: f"{SECRET} {SECRET}", lambda: str({}[SECRET])):
            issuer.failing = failing
            with pytest.raises((ConnectionFailed, LocalProtocolError)) as failed:
                await client.connect()
            said += [repr(failed.value), str(failed.value)]
        fixed = WSClient(url(idle_server), token=SECRET)
        for each in (client, fixed):
            said += [repr(each), repr(each._endpoint), repr(each._endpoint.tokens), repr(each._http), repr(each.stats)]
    assert SECRET not in " ".join(said)
    assert SECRET not in caplog.text
    gc.collect()


@pytest.mark.parametrize("make", [WSClient, SSEClient])
@pytest.mark.parametrize(
    "url",
    [
        "ws://ann:s3cret@[/realtime/ws?token=s3cret",
        "ftp://ann:s3cret@host/?token=s3cret",
        "ann:s3cret@host?token=s3cret",
    ],
)
def test_secrets_of_what_is_no_url_are_not_told(make: Callable[[str], object], url: str) -> None:
    with pytest.raises(LocalProtocolError) as caught:
        make(url)
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("headers", [{"X-Secret": "s3cret\0"}, {"X s3cret": "x"}])
def test_headers_that_cannot_be_sent_are_not_told(headers: dict[str, str]) -> None:
    with pytest.raises(LocalProtocolError, match=r"a header cannot be sent: Illegal header (name|value)$") as caught:
        WSClient("ws://localhost/", headers=headers)
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))
