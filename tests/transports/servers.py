"""Servers for the clients to talk to, in the event loop of the test, and a watch over what a client leaves behind."""

from __future__ import annotations

import asyncio
import gc
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, TypeAlias
from urllib.parse import parse_qsl

import anyio
import attrs
from anyio.abc import SocketAttribute, SocketStream, TaskGroup
from anyio.lowlevel import checkpoint
from wsproto.utilities import generate_accept_token

from rtcore import ClientConfig, EventSourceConfig, Message, NodeConfig, WebSocketConfig
from rtcore_transports import ASGIApp, Driver, EndpointConfig, Files, GateConfig, WSClient, serve
from rtcore_transports.event_loops import runs_on_asyncio

__all__ = [
    "EAGER",
    "EAGER_SSE",
    "HASTY",
    "TIMEOUT",
    "ASGISocket",
    "Api",
    "EventScript",
    "EventStream",
    "Posted",
    "Script",
    "Scripted",
    "Server",
    "cancelled_once",
    "cut",
    "handshake",
    "nothing_left",
    "numbers",
    "patiently",
    "publish",
    "receive",
    "refusing",
    "saying",
    "scripted",
    "tcp_server",
    "url_of",
    "websocket_app",
]

#: What takes longer than this has failed; nothing waits for it to pass.
TIMEOUT: Final = 10.0

#: Connects again at once, so that tests need not wait.
EAGER: Final = ClientConfig(backoff_base=0.001, backoff_cap=0.01)
EAGER_SSE: Final = EventSourceConfig(
    retry=0.001, min_retry=0.001, max_retry=0.001, backoff=0.001, max_backoff=0.001, idle_timeout=TIMEOUT
)
#: Waits for no goodbye.
HASTY: Final = WebSocketConfig(max_message_size=2**24, close_timeout=0.05)


class Server:
    """The native server on a free port of loopback; may be stopped and started again on the same one."""

    def __init__(self, tasks: TaskGroup) -> None:
        self.app: ASGIApp | None = None
        self.config = EndpointConfig(gate=GateConfig(allow_anonymous=True), sse_retry=1)
        self.node = NodeConfig()
        self.files: Files | None = None
        self.driver = Driver()
        self.port = 0
        self._tasks = tasks
        self._shutdown = anyio.Event()
        self._stopped = anyio.Event()

    async def start(self) -> None:
        self._shutdown = anyio.Event()
        self._stopped = anyio.Event()
        self.driver = Driver(self.node, files=self.files, gate=self.config.gate)
        _, self.port = await self._tasks.start(self._run)

    async def stop(self) -> None:
        self._shutdown.set()
        await self._stopped.wait()

    async def _run(self, task_status: anyio.abc.TaskStatus[tuple[str, int]]) -> None:
        try:
            await serve(
                self.driver,
                app=self.app,
                port=self.port,
                config=self.config,
                shutdown=self._shutdown,
                shutdown_timeout=1.0,
                task_status=task_status,
            )
        finally:
            self._stopped.set()

    def url(self, path: str = "/realtime/ws", scheme: str = "ws") -> str:
        return f"{scheme}://127.0.0.1:{self.port}{path}"

    @property
    def events_url(self) -> str:
        return self.url("/realtime/events", "http")


@attrs.frozen
class Posted:
    """One request that the API got."""

    path: str
    headers: dict[str, str]
    body: Message


class Api:
    """An HTTP API that takes everything and records it."""

    def __init__(self) -> None:
        self.posted: list[Posted] = []
        self.status = 200
        self.answer: object = {"id": "e:1", "offset": 1, "epoch": "e"}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return
        body = b""
        while (event := await receive())["type"] == "http.request":
            body += event["body"]
            if not event["more_body"]:
                break
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.posted.append(Posted(scope["path"], headers, json.loads(body or b"{}")))
        content = self.answer if isinstance(self.answer, bytes) else json.dumps(self.answer).encode()
        await send(
            {
                "type": "http.response.start",
                "status": self.status,
                "headers": [(b"content-length", b"%d" % len(content))],
            }
        )
        await send({"type": "http.response.body", "body": content})


class ASGISocket:
    """The server's side of a WebSocket, for a script."""

    def __init__(self, scope: Any, receive: Any, send: Any) -> None:
        self.path: str = scope["path"]
        self.query = dict(parse_qsl(scope["query_string"].decode()))
        self.headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self._receive = receive
        self._send = send

    async def send(self, message: object) -> None:
        text = message if isinstance(message, str) else json.dumps(message)
        await self._send({"type": "websocket.send", "text": text})

    async def send_bytes(self, data: bytes) -> None:
        await self._send({"type": "websocket.send", "bytes": data})

    async def welcome(self, **fields: object) -> None:
        await self.send({"type": "connected", "connection_id": "c", "user_id": None, "channels": [], **fields})

    async def receive(self) -> Message | None:
        """Return the next message, or ``None`` at the end."""
        event = await self._receive()
        if event["type"] != "websocket.receive":
            return None
        message: Message = json.loads(event["text"])
        return message

    async def answer(self, message: Message, data: object = None) -> None:
        await self.send({"type": "response", "id": message["id"], "ok": True, "data": data})

    async def close(self, code: int, reason: str = "") -> None:
        await self._send({"type": "websocket.close", "code": code, "reason": reason})


Script: TypeAlias = Callable[[ASGISocket], Awaitable[None]]


def websocket_app(script: Script) -> ASGIApp:
    """Return an application that accepts every WebSocket and lets `script` speak on it."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            assert (await receive())["type"] == "websocket.connect"
            await send({"type": "websocket.accept"})
            await script(ASGISocket(scope, receive, send))

    return app


@asynccontextmanager
async def tcp_server(handle: Callable[[SocketStream], Awaitable[None]]) -> AsyncIterator[int]:
    """Serve TCP by `handle`, which may be left by its peer, on a free port; gives the port."""

    async def serve_one(stream: SocketStream) -> None:
        async with stream:
            with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                await handle(stream)

    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(listener.serve, serve_one)
        yield listener.extra(SocketAttribute.local_port)
        tasks.cancel_scope.cancel()


async def handshake(stream: SocketStream) -> None:
    """Accept a WebSocket."""
    request = b""
    while b"\r\n\r\n" not in request:
        request += await stream.receive()
    key = request.lower().partition(b"sec-websocket-key: ")[2].partition(b"\r\n")[0]
    # The header's value counts as it was written.
    start = request.lower().index(key)
    accept = generate_accept_token(request[start : start + len(key)]).decode()
    head = f"HTTP/1.1 101 Go\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    await stream.send(head.encode())


class EventStream:
    """The server's side of one request, for a script."""

    def __init__(self, scope: Any, receive: Any, send: Any) -> None:
        self.path: str = scope["path"]
        self.query: bytes = scope["query_string"]
        self.headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self._receive = receive
        self._send = send

    async def start(self, status: int = 200, **headers: str) -> None:
        head = {"content-type": "text/event-stream", **{name.replace("_", "-"): text for name, text in headers.items()}}
        fields = [(name.encode(), text.encode()) for name, text in head.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": fields})
        await self.write("")

    async def write(self, text: str) -> None:
        await self._send({"type": "http.response.body", "body": text.encode(), "more_body": True})

    async def stay(self) -> None:
        """Wait until the client is gone."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def end(self) -> None:
        await self._send({"type": "http.response.body"})


EventScript: TypeAlias = Callable[[EventStream], Awaitable[None]]


class Scripted:
    """A server whose event stream is what a script makes it, a visit at a time; the last one goes on."""

    def __init__(self, *scripts: EventScript) -> None:
        self.visits: list[EventStream] = []
        self._scripts = scripts

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            stream = EventStream(scope, receive, send)
            self.visits.append(stream)
            await self._scripts[min(len(self.visits), len(self._scripts)) - 1](stream)


def saying(*texts: str, stay: bool = True) -> EventScript:
    async def script(stream: EventStream) -> None:
        await stream.start()
        for text in texts:
            await stream.write(text)
        await (stream.stay() if stay else stream.end())

    return script


def refusing(status: int, body: str = "", **headers: str) -> EventScript:
    async def script(stream: EventStream) -> None:
        await stream.start(status, **headers)
        await stream.write(body)
        await stream.end()

    return script


@asynccontextmanager
async def scripted(server: Server, *scripts: EventScript) -> AsyncIterator[Scripted]:
    """Run a server with scripts."""
    server.app = app = Scripted(*scripts)
    await server.start()
    async with nothing_left():
        yield app


def url_of(server: Server) -> str:
    """Return the URL of the scripts: ``/realtime/events`` is the server's own."""
    return server.url("/events", "http")


def _tasks() -> int:
    if runs_on_asyncio():
        return len(asyncio.all_tasks())
    import trio

    return trio.lowlevel.current_statistics().tasks_living


def _files() -> int:
    return len(os.listdir("/proc/self/fd"))


async def patiently(condition: Callable[[], object]) -> None:
    """Let the event loop run until `condition` holds."""
    with anyio.fail_after(TIMEOUT):
        while not condition():  # noqa: ASYNC110 — what is waited for here has no event
            await anyio.sleep(0.001)


@asynccontextmanager
async def nothing_left() -> AsyncIterator[None]:
    """Fail if what is in the block leaves a task or an open file behind."""
    await checkpoint()
    tasks, files = _tasks(), _files()
    yield
    try:
        await patiently(lambda: _tasks() <= tasks and _files() <= files)
    except TimeoutError:
        raise AssertionError(f"{_tasks() - tasks} tasks and {_files() - files} files are left") from None
    # What was dropped unclosed says so now, and not in another test.
    gc.collect()


async def receive(client: WSClient) -> Message:
    """Return the next message for iteration."""
    with anyio.fail_after(TIMEOUT):
        return await client.__anext__()


def cut(server: Server, client: WSClient) -> None:
    """End the client's connection, and let it come back."""
    assert client.connection_id is not None
    assert server.driver.close(client.connection_id, 1012, "cut")


def publish(server: Server, channel: str, *numbers: int) -> None:
    for number in numbers:
        server.driver.publish(channel, {"type": "note", "data": number})


async def numbers(client: WSClient, count: int) -> list[object]:
    """Return the data of the next notes; anything else that comes fails."""
    heard: list[object] = []
    for _ in range(count):
        message = await receive(client)
        assert message["type"] == "note", message
        heard.append(message["data"])
    return heard


@asynccontextmanager
async def cancelled_once(condition: Callable[[], object]) -> AsyncIterator[None]:
    """Cancel the block as soon as `condition` holds and everything is at rest."""
    async with anyio.create_task_group() as tasks:

        async def cancel() -> None:
            await patiently(condition)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()

        tasks.start_soon(cancel)
        yield
        raise AssertionError("the block has not been cancelled")
