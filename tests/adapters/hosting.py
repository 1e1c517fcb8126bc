"""Hosts to test on, each running in a thread with an event loop of its own."""

from __future__ import annotations

import logging
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import anyio
import anyio.from_thread
import attrs
import httpx2
from anyio.abc import TaskStatus
from starlette.types import ASGIApp
from websockets.sync.client import ClientConnection, connect

from rtcore import Message
from rtcore_adapters import RealtimeApp, Settings
from rtcore_adapters.hosting import Beside
from rtcore_transports import Driver, EndpointConfig, serve
from rtcore_transports.event_loops import runs_on_asyncio

from ..wheel import TESTS_WHEEL
from .clients import TIMEOUT, Client, Stream, raw_upgrade, read_all, read_head

__all__ = [
    "HOSTS",
    "NATIVE",
    "Host",
    "HostKind",
    "Tls",
    "ask",
    "errors_of_ours",
    "free_socket",
    "raw_websocket",
    "run_host",
]


@attrs.frozen
class HostKind:
    """What serves, under which event loop, and whether the realtime application is mounted in FastAPI."""

    server: str
    backend: str
    mounted: bool = False

    def __str__(self) -> str:
        mounted = "-mounted" if self.mounted else ""
        return f"{self.server}-{self.backend}{mounted}"


NATIVE: Final = (HostKind("native", "asyncio"), HostKind("native", "trio"))
# Each server under each event loop that it knows, and some of them mounted.
HOSTS: Final = (
    HostKind("native", "asyncio"),
    HostKind("native", "trio", mounted=True),
    HostKind("hypercorn", "asyncio", mounted=True),
    HostKind("hypercorn", "trio"),
    HostKind("uvicorn", "asyncio"),
)[: 1 if TESTS_WHEEL else None]


@attrs.frozen
class Tls:
    """The contexts of a server and of the clients that trust it."""

    server: ssl.SSLContext
    client: ssl.SSLContext


class Host:
    """A running host.

    Attributes:
        realtime: What it serves.
        portal: Runs functions in its event loop.
        port: Where it listens, on loopback.
        prefix: Under which `realtime` is found there.
    """

    def __init__(
        self,
        kind: HostKind,
        realtime: RealtimeApp,
        portal: anyio.from_thread.BlockingPortal,
        port: int,
        prefix: str,
        stop: Callable[[], None],
        tls: Tls | None = None,
    ) -> None:
        self.kind = kind
        self._tls = tls
        self.realtime = realtime
        self.portal = portal
        self.port = port
        self.prefix = prefix
        self.stop = stop
        secure = "" if tls is None else "s"
        self._websockets = f"ws{secure}://127.0.0.1:{port}"
        verify = True if tls is None else tls.client
        self.http = httpx2.Client(
            base_url=f"http{secure}://127.0.0.1:{port}{prefix}", timeout=TIMEOUT, verify=verify, trust_env=False
        )

    @contextmanager
    def client(self, query: str = "", path: str = "/ws", **options: Any) -> Iterator[Client]:
        """Open a WebSocket and read its ``connected``."""
        with self.websocket(path, query, **options) as websocket:
            yield Client(websocket)

    def websocket(self, path: str = "/ws", query: str = "", **options: Any) -> ClientConnection:
        """Open a WebSocket, of which nothing is read."""
        options = {"max_size": None, "max_queue": None, "close_timeout": TIMEOUT, "open_timeout": TIMEOUT} | options
        if self._tls is not None:
            options["ssl"] = self._tls.client
        return connect(f"{self._websockets}{self.prefix}{path}?{query}", proxy=None, **options)

    def own_websocket(self, path: str, **options: Any) -> ClientConnection:
        """Open a WebSocket of the application beside."""
        websocket: ClientConnection = connect(f"{self._websockets}{path}", proxy=None, compression=None, **options)
        return websocket

    @contextmanager
    def stream(self, query: str = "", path: str = "/events") -> Iterator[Stream]:
        """Open an event stream and read its ``retry`` and its ``connected``."""
        with self.http.stream("GET", f"{path}?{query}") as response:
            opened = Stream(response)  # without a name it would be collected, and with it the response
            yield opened

    def wait_until_empty(self) -> None:
        """Wait until the connections of tests before are gone: hosts notice that after the client has moved on."""
        self.wait_for(lambda: self.http.get("/stats").json()["total_connections"] == 0)

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Ask until something holds."""
        until = time.monotonic() + TIMEOUT
        while not condition():
            assert time.monotonic() < until, "it never came to hold"

    def connect(self) -> socket.socket:
        """Open a plain TCP connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=TIMEOUT)

    def post(self, path: str, body: object) -> Message:
        """Post JSON that must be taken; returns the answer."""
        response = self.http.post(path, json=body)
        assert response.status_code == 200, response.text
        answer: Message = response.json()
        return answer


def free_socket() -> socket.socket:
    """Return a listening socket on a free port of loopback."""
    return socket.create_server(("127.0.0.1", 0), backlog=4096)


@contextmanager
def run_host(
    kind: HostKind,
    settings: Settings,
    app: ASGIApp | None = None,
    *,
    beside: ASGIApp | None = None,
    tls: Tls | None = None,
) -> Iterator[Host]:
    """Serve the realtime application until the context ends.

    Args:
        kind: By what.
        settings: Of the realtime application.
        app: What to serve instead.
        beside: What to serve beside it.
        tls: Makes it HTTPS and WSS; on native hosts only.
    """
    realtime = RealtimeApp(settings)
    prefix = realtime.prefix
    served: ASGIApp = app or (realtime if beside is None else Beside(realtime, beside))
    driver, config = realtime.driver, realtime.config
    if kind.mounted:
        from fastapi import FastAPI

        outer = FastAPI()
        outer.mount("/live", realtime)
        served, prefix = outer, "/live"
        # The native server's own endpoints stay out of the way: it is a host like any other here.
        driver, config = Driver(), EndpointConfig(prefix="/elsewhere")
    run = {"native": _run_native, "hypercorn": _run_hypercorn, "uvicorn": _run_uvicorn}[kind.server]
    with ExitStack() as stack:
        sock = stack.enter_context(free_socket())
        port = sock.getsockname()[1]
        portal = stack.enter_context(anyio.from_thread.start_blocking_portal(kind.backend))

        async def start(*, task_status: TaskStatus[Callable[[], None]]) -> None:
            if tls is None:
                await run(served, driver, config, settings, sock, task_status)
            else:
                await _run_native(served, driver, config, settings, sock, task_status, tls.server)

        future, stop = portal.start_task(start)
        host = Host(kind, realtime, portal, port, prefix, lambda: portal.call(stop), tls)
        try:
            yield host
        finally:
            host.http.close()
            if not future.done():
                host.stop()
            future.result(TIMEOUT)


async def _run_native(
    app: ASGIApp,
    driver: Driver,
    config: EndpointConfig,
    settings: Settings,
    sock: socket.socket,
    task_status: TaskStatus[Callable[[], None]],
    ssl_context: ssl.SSLContext | None = None,
) -> None:
    shutdown = anyio.Event()
    async with anyio.create_task_group() as tasks:

        async def run(*, task_status: TaskStatus[object]) -> None:
            await serve(
                driver,
                app=app,
                sockets=[sock],
                config=config,
                ssl_context=ssl_context,
                shutdown=shutdown,
                shutdown_timeout=settings.realtime.shutdown_timeout,
                task_status=task_status,
            )

        await tasks.start(run)
        task_status.started(shutdown.set)


async def _run_hypercorn(
    app: ASGIApp,
    driver: Driver,
    config: EndpointConfig,
    settings: Settings,
    sock: socket.socket,
    task_status: TaskStatus[Callable[[], None]],
) -> None:
    from hypercorn.config import Config

    options = Config()
    options.bind = [f"fd://{sock.detach()}"]
    options.graceful_timeout = options.shutdown_timeout = settings.realtime.shutdown_timeout
    options.websocket_max_message_size = max(config.websocket.max_message_size, config.websocket.max_binary_size or 0)
    options.loglevel = "CRITICAL"
    shutdown = anyio.Event()

    async def stopped() -> None:
        task_status.started(shutdown.set)
        await shutdown.wait()
        # As `rtcore serve --server hypercorn` does.
        driver.drain()

    application: Any = app
    if runs_on_asyncio():
        from hypercorn.asyncio import serve as serve_on_asyncio

        await serve_on_asyncio(application, options, shutdown_trigger=stopped)
    else:
        from hypercorn.trio import serve as serve_on_trio

        await serve_on_trio(application, options, shutdown_trigger=stopped)


async def _run_uvicorn(
    app: ASGIApp,
    driver: Driver,
    config: EndpointConfig,
    settings: Settings,
    sock: socket.socket,
    task_status: TaskStatus[Callable[[], None]],
) -> None:
    import uvicorn

    options = uvicorn.Config(
        app,
        ws_max_size=max(config.websocket.max_message_size, config.websocket.max_binary_size or 0),
        timeout_graceful_shutdown=int(settings.realtime.shutdown_timeout) or 1,
        log_level="critical",
    )
    server = uvicorn.Server(options)

    def stop() -> None:
        driver.drain()
        server.should_exit = True

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve, [sock])
        task_status.started(stop)


def ask(host: Host, request: bytes) -> tuple[int, bytes, bytes]:
    """Send a request that is the last on its connection; returns the status, the head and the body."""
    with host.connect() as sock:
        sock.sendall(request)
        status, head, rest = read_head(sock)
        return status, head, rest + read_all(sock)


def raw_websocket(host: Host, query: str = "", *, receive_buffer: int | None = None) -> socket.socket:
    """Open a WebSocket as a bare socket, of which nothing but the handshake is read."""
    sock = socket.socket()
    sock.settimeout(TIMEOUT)
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.connect(("127.0.0.1", host.port))
    sock.sendall(raw_upgrade(f"{host.prefix}/ws?{query}"))
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        # Byte by byte: the first frames stay where they are.
        data += sock.recv(1)
    assert data.startswith(b"HTTP/1.1 101 "), data
    return sock


@contextmanager
def errors_of_ours() -> Iterator[list[logging.LogRecord]]:
    """Collect what is logged by us as an error."""
    found: list[logging.LogRecord] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            record.getMessage()
            found.append(record)

    collector = Collector(logging.ERROR)
    logger = logging.getLogger("rtcore")
    logger.addHandler(collector)
    try:
        yield found
    finally:
        logger.removeHandler(collector)
