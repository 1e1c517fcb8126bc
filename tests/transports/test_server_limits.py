"""The limits of the native server, as seen from bare sockets."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import anyio
import anyio.from_thread
import attrs
import pytest
from starlette.types import Receive, Scope, Send

from rtcore import WebSocketConfig
from rtcore_transports import EndpointConfig, ServerLimits, serve

from ..adapters.clients import TIMEOUT, error_code, get, masked_frame, raw_upgrade, read_all, read_head, read_response
from .applications import Application

_LIMITS = ServerLimits(body_timeout=0.2, write_timeout=0.2, keep_alive_timeout=0.2)


class Watched(Application):
    """The application, which tells what it is told of a body."""

    def __init__(self) -> None:
        super().__init__()
        self.disconnected = threading.Event()

    async def _http_patient(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the body to its end, and do not answer."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self.disconnected.set()

    async def _http_late(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Begin to answer before the body is there."""
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
        await send({"type": "http.response.body", "body": b"so", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        self.disconnected.set()


@attrs.frozen
class Running:
    """A server that runs."""

    port: int
    app: Watched
    portal: anyio.from_thread.BlockingPortal

    def connect(self, *, receive_buffer: int | None = None) -> socket.socket:
        sock = socket.socket()
        sock.settimeout(TIMEOUT)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.connect(("127.0.0.1", self.port))
        return sock


@contextmanager
def running(backend: str, limits: ServerLimits, **websocket: float) -> Iterator[Running]:
    config = EndpointConfig(limits=limits, websocket=WebSocketConfig(**websocket))  # type: ignore[arg-type]
    app = Watched()
    with anyio.from_thread.start_blocking_portal(backend) as portal:
        shutdown = portal.call(anyio.Event)

        async def run(*, task_status: Any) -> None:
            await serve(
                app=app, port=0, config=config, shutdown=shutdown, shutdown_timeout=0.1, task_status=task_status
            )

        future, address = portal.start_task(run)
        try:
            yield Running(address[1], app, portal)
        finally:
            portal.call(shutdown.set)
            future.result(TIMEOUT)


Run = Callable[..., Any]


@pytest.fixture
def run(anyio_backend: str) -> Iterator[Run]:
    """Return a function that runs a server until the end of the test."""
    with ExitStack() as stack:
        yield lambda limits, **websocket: stack.enter_context(running(anyio_backend, limits, **websocket))


# Heads


@pytest.mark.parametrize("before", [b"", get("/")])
def test_the_size_of_a_head_is_exact(run: Run, before: bytes) -> None:
    """However much of it comes at once, and whatever came before."""
    server = run(ServerLimits(max_head=1000))
    for size, status in ((1000, 200), (1001, 431)):
        head = get("/", "X: ", "Connection: close")
        request = head.replace(b"X: ", b"X: " + b"x" * (size - len(head)))
        with server.connect() as sock:
            sock.sendall(before + request)
            answers = re.findall(rb"HTTP/1\.1 (\d{3}) ", read_all(sock))
            assert answers == [b"200"] * bool(before) + [b"%d" % status]


def test_whoever_goes_on_without_a_request_is_cut(run: Run) -> None:
    with run(_LIMITS).connect() as sock:
        sock.sendall(get("/"))
        assert read_response(sock)[0] == 200
        assert sock.recv(1) == b""


# Bodies


@pytest.mark.parametrize("path", ["/patient", "/echo"])
def test_a_body_that_stops(run: Run, path: str) -> None:
    server = run(_LIMITS)
    with server.connect() as sock:
        sock.sendall(get(path, "Content-Length: 5", method="POST") + b"he")
        status, head, body = read_head(sock)
        assert (status, error_code(body + read_all(sock))) == (408, "request_timeout")
        assert b"connection: close" in head.lower()
    if path == "/patient":
        assert server.app.disconnected.wait(TIMEOUT)


def test_a_body_that_stops_after_the_answer_has_begun(run: Run) -> None:
    server = run(_LIMITS)
    with server.connect() as sock:
        sock.sendall(get("/late", "Content-Length: 5", method="POST") + b"he")
        status, _, body = read_head(sock)
        assert (status, body + read_all(sock)) == (200, b"so")
    assert server.app.disconnected.wait(TIMEOUT)


def test_a_body_that_goes_on(run: Run) -> None:
    """It may take longer than the time without progress."""
    server = run(attrs.evolve(_LIMITS, body_timeout=0.5))
    with server.connect() as sock:
        sock.sendall(get("/echo", "Content-Length: 100", "Connection: close", method="POST"))
        sock.settimeout(0.02)
        for _ in range(100):
            with pytest.raises(TimeoutError):
                sock.recv(1)
            sock.sendall(b"x")
        sock.settimeout(TIMEOUT)
        assert read_all(sock).endswith(b"\r\n\r\n" + b"x" * 100)


def test_small_chunks_are_no_attack(run: Run) -> None:
    body = b"1\r\nx\r\n" * 40_000 + b"0\r\n\r\n"
    with run(ServerLimits()).connect() as sock:
        sock.sendall(get("/echo", "Transfer-Encoding: chunked", "Connection: close", method="POST") + body)
        assert read_all(sock).endswith(b"x" * 40_000)


# What nobody reads


@pytest.mark.parametrize("request_", [get("/endless"), raw_upgrade("/flood")], ids=["response", "WebSocket"])
def test_whoever_does_not_read_does_not_hold_an_application(run: Run, request_: bytes) -> None:
    server = run(_LIMITS)
    with server.connect(receive_buffer=4096) as sock:
        sock.sendall(request_)
        assert server.app.left.wait(TIMEOUT)


def test_whoever_reads_slowly_is_waited_for(run: Run) -> None:
    server = run(_LIMITS)
    with server.connect(receive_buffer=4096) as sock:
        sock.sendall(get("/endless"))
        read = 0
        while read < 2**23:
            read += len(sock.recv(65536))
        assert not server.app.left.is_set()
    assert server.app.left.wait(TIMEOUT)


# Sockets


def is_ended(sock: socket.socket) -> bool:
    """Wait for the end of a connection."""
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


def test_who_has_waited_longest_makes_room(run: Run) -> None:
    server = run(ServerLimits(max_sockets=3))
    with server.connect() as first, server.connect() as second, server.connect() as third:
        # The first is served before, so that the second has waited longest.
        for sock in (third, first):
            sock.sendall(get("/"))
            assert read_response(sock)[0] == 200
        with server.connect() as fourth:
            fourth.sendall(get("/"))
            assert read_response(fourth)[0] == 200
            assert is_ended(second)
            first.sendall(get("/"))
            assert read_response(first)[0] == 200


def test_who_is_idle_makes_room(run: Run) -> None:
    server = run(ServerLimits(max_sockets=1))
    with server.connect() as first:
        first.sendall(get("/"))
        assert read_response(first)[0] == 200
        statuses = []
        # The answer is out a little before the connection waits for the next request.
        while statuses[-1:] != [200] and len(statuses) < 200:
            with server.connect() as second:
                second.sendall(get("/"))
                statuses.append(read_head(second)[0])
        assert statuses[-1] == 200
        assert is_ended(first)


def test_who_has_said_what_it_wants_is_heard_first(run: Run) -> None:
    """Even if others come in the same burst, before its task has begun."""
    server = run(ServerLimits(max_sockets=2))
    with ExitStack() as stack:
        busy = stack.enter_context(server.connect())
        busy.sendall(raw_upgrade("/echo"))
        assert read_head(busy)[0] == 101

        def burst() -> socket.socket:
            first = stack.enter_context(server.connect())
            first.sendall(get("/"))
            for _ in range(10):
                stack.enter_context(server.connect())
            return first

        # The event loop stands still meanwhile.
        assert read_response(server.portal.call(burst))[0] == 200


def test_half_a_head_is_none(run: Run) -> None:
    server = run(ServerLimits(max_sockets=1))
    with server.connect() as first:
        first.sendall(get("/")[:-2])
        with server.connect() as second:
            second.sendall(get("/"))
            assert read_response(second)[0] == 200
            assert is_ended(first)


@pytest.mark.parametrize("limits", [ServerLimits(max_sockets=2), ServerLimits(max_sockets_per_address=2)])
def test_where_all_are_busy_nobody_new_is_taken(run: Run, limits: ServerLimits) -> None:
    server = run(limits)
    with server.connect() as waiting, server.connect() as websocket:
        waiting.sendall(get("/wait"))
        assert read_head(waiting)[0] == 200
        websocket.sendall(raw_upgrade("/echo"))
        assert read_head(websocket)[0] == 101
        for _ in range(40):
            with server.connect() as late:
                late.sendall(get("/"))
                status, head, body = read_head(late)
                assert (status, error_code(body + read_all(late))) == (503, "full")
                assert b"\r\nretry-after: 5" in head.lower()
                assert b"\r\nconnection: close" in head.lower()
        waiting.close()
        assert server.app.left.wait(TIMEOUT)
        status = 503
        while status == 503:
            with server.connect() as late:
                late.sendall(get("/", "Connection: close"))
                status, _, _ = read_head(late)
        assert status == 200


def test_a_websocket_has_its_request(run: Run) -> None:
    """It never makes room, however long it is silent."""
    server = run(ServerLimits(max_sockets=3))
    with server.connect() as websocket:
        websocket.sendall(raw_upgrade("/realtime/ws"))
        assert read_head(websocket)[0] == 101
        for _ in range(5):
            with server.connect() as sock:
                sock.sendall(get("/"))
                assert json.loads(read_response(sock)[2]) == {"state": 42}
        websocket.sendall(masked_frame(b"here"))
        heard = b""
        while b'"here"' not in heard:
            more = websocket.recv(65536)
            assert more
            heard += more
