"""Files that an application has the native server send straight from where the system has them."""

from __future__ import annotations

import errno
import logging
import os
import socket
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any, Final, TypeAlias

import anyio
import attrs
import h11
import pytest
from anyio.abc import SocketStream

from rtcore_transports import ServerLimits
from rtcore_transports.asgi import ClientDisconnected

from .servers import TIMEOUT, Server, nothing_left, patiently

pytestmark = pytest.mark.anyio

CONTENT: Final = bytes(range(256)) * 40_000  # 10 MB, more than fits into the buffers of a socket

Part: TypeAlias = dict[str, Any]


class App:
    """Answers each request with what its path makes of a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answers: dict[str, tuple[Iterable[tuple[bytes, bytes]], Callable[[IO[bytes]], list[Part]]]] = {}
        self.extensions: list[object] = []
        self.positions: list[int] = []
        self.errors: list[BaseException] = []

    def on(self, path: str, *parts: Part, length: int | None = None) -> None:
        """Answer requests for a path with these parts, some of which send the file."""
        headers = [] if length is None else [(b"content-length", b"%d" % length)]

        def with_file(file: IO[bytes]) -> list[Part]:
            return [{**part, "file": file} if part["type"] == "http.response.zerocopysend" else part for part in parts]

        self.answers[path] = headers, with_file

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return
        self.extensions.append(scope.get("extensions"))
        headers, parts = self.answers[scope["path"]]
        with open(self.path, "rb", buffering=0) as file:  # noqa: ASYNC230
            file.seek(10)
            try:
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                for part in parts(file):
                    await send(part)
            except Exception as error:
                self.errors.append(error)
                raise
            finally:
                self.positions.append(file.tell())


def sending(*, more: bool = False, **fields: int | None) -> Part:
    return {"type": "http.response.zerocopysend", "more_body": more, **fields}


def text(body: bytes, *, more: bool = False) -> Part:
    return {"type": "http.response.body", "body": body, "more_body": more}


@pytest.fixture
def app(tmp_path: Path) -> App:
    path = tmp_path / "content"
    path.write_bytes(CONTENT)
    return App(path)


@pytest.fixture
async def serving(idle_server: Server, app: App) -> Server:
    idle_server.app = app
    idle_server.config = attrs.evolve(idle_server.config, limits=ServerLimits(write_timeout=TIMEOUT))
    await idle_server.start()
    return idle_server


class Connection:
    """A client of HTTP/1.1."""

    def __init__(self, stream: SocketStream) -> None:
        self.stream = stream
        self._http = h11.Connection(h11.CLIENT)

    async def ask(self, path: str, method: str = "GET") -> tuple[dict[bytes, bytes], bytes]:
        """Return the headers and the content of the answer."""
        request = h11.Request(method=method, target=path, headers=[("host", "x")])
        await self.stream.send((self._http.send(request) or b"") + (self._http.send(h11.EndOfMessage()) or b""))
        headers: dict[bytes, bytes] = {}
        body = bytearray()
        with anyio.fail_after(TIMEOUT):
            while True:
                event = self._http.next_event()
                if event is h11.NEED_DATA:
                    try:
                        self._http.receive_data(await self.stream.receive())
                    except anyio.EndOfStream:
                        self._http.receive_data(b"")
                elif isinstance(event, h11.Response):
                    headers = dict(event.headers)
                elif isinstance(event, h11.Data):
                    body += event.data
                else:
                    assert isinstance(event, h11.EndOfMessage)
                    break
        if self._http.states == {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}:
            self._http.start_next_cycle()
        return headers, bytes(body)


async def connect(server: Server) -> SocketStream:
    return await anyio.connect_tcp("127.0.0.1", server.port)


async def test_a_file(serving: Server, app: App) -> None:
    """Whole or in part, from where it stands or from elsewhere, and what comes behind on the same connection."""
    size = len(CONTENT)
    app.on("/whole", sending(offset=0), length=size)
    app.on("/rest", sending(), length=size - 10)
    app.on("/part", sending(offset=1000, count=5_000_000), length=5_000_000)
    app.on("/from-here", sending(count=20), length=20)
    app.on("/nothing", sending(offset=size), length=0)
    app.on("/behind", sending(offset=size + 5), length=0)
    expected = {
        "/whole": (CONTENT, 10),
        "/rest": (CONTENT[10:], size),
        "/part": (CONTENT[1000:5_001_000], 10),
        "/from-here": (CONTENT[10:30], 30),
        "/nothing": (b"", 10),
        "/behind": (b"", 10),
    }
    async with nothing_left(), await connect(serving) as stream:
        client = Connection(stream)
        for path, (content, _) in expected.items():
            headers, body = await client.ask(path)
            assert (path, headers[b"content-length"]) == (path, b"%d" % len(content))
            assert body == content
        await patiently(lambda: app.positions == [position for _, position in expected.values()])
    assert app.extensions == [{"http.response.zerocopysend": {}}] * len(expected)


@pytest.mark.parametrize("length", [None, 35], ids=["chunked", "counted"])
async def test_between_other_parts(serving: Server, app: App, length: int | None) -> None:
    app.on(
        "/",
        text(b"begin", more=True),
        sending(offset=0, count=10, more=True),
        text(b"middle", more=True),
        sending(offset=20, count=10, more=True),
        text(b"end!"),
        length=length,
    )
    async with await connect(serving) as stream:
        client = Connection(stream)
        for _ in range(2):
            headers, body = await client.ask("/")
            assert body == b"begin" + CONTENT[:10] + b"middle" + CONTENT[20:30] + b"end!"
            assert (b"transfer-encoding" in headers) == (length is None)


async def test_a_head(serving: Server, app: App) -> None:
    app.on("/", sending(offset=0), length=len(CONTENT))
    async with await connect(serving) as stream:
        client = Connection(stream)
        for _ in range(2):
            headers, body = await client.ask("/", "HEAD")
            assert (headers[b"content-length"], body) == (b"%d" % len(CONTENT), b"")


async def test_several_at_once(serving: Server, app: App) -> None:
    """Whoever gets a large file holds up nobody else."""
    app.on("/large", sending(offset=0), length=len(CONTENT))
    app.on("/small", text(b"here"), length=4)
    async with anyio.create_task_group() as tasks, await connect(serving) as other:

        async def fetch() -> None:
            async with await connect(serving) as stream:
                assert await Connection(stream).ask("/large") == ({b"content-length": b"%d" % len(CONTENT)}, CONTENT)

        for _ in range(5):
            tasks.start_soon(fetch)
        client = Connection(other)
        for _ in range(20):
            assert (await client.ask("/small"))[1] == b"here"


async def test_a_file_that_ends_early(serving: Server, app: App, faults: list[logging.LogRecord]) -> None:
    """The client is not left to wait for the rest: the connection ends."""
    app.on("/", sending(offset=0, count=len(CONTENT) + 1), length=len(CONTENT) + 1)
    async with await connect(serving) as stream:
        with pytest.raises(h11.RemoteProtocolError):
            await Connection(stream).ask("/")
    await patiently(lambda: faults)
    assert str(app.errors[0]).startswith(f"the file ends at {len(CONTENT)}")
    faults.clear()


async def test_more_than_was_said(serving: Server, app: App, faults: list[logging.LogRecord]) -> None:
    app.on("/", sending(offset=0, count=11), length=10)
    async with await connect(serving) as stream:
        with pytest.raises(h11.RemoteProtocolError):
            await Connection(stream).ask("/")
    await patiently(lambda: faults)
    assert isinstance(app.errors[0], h11.LocalProtocolError)
    faults.clear()


async def test_what_cannot_be_sent(
    serving: Server, app: App, monkeypatch: pytest.MonkeyPatch, faults: list[logging.LogRecord]
) -> None:
    """A fault of the file is the application's, and not taken for a client that is gone."""

    def sendfile(out: int, file: int, offset: int, count: int) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    app.on("/", sending(offset=0), length=len(CONTENT))
    with monkeypatch.context() as patch:
        patch.setattr(os, "sendfile", sendfile)
        async with await connect(serving) as stream:
            with pytest.raises(h11.RemoteProtocolError):
                await Connection(stream).ask("/")
        await patiently(lambda: faults)
    assert [getattr(error, "errno", None) for error in app.errors] == [errno.EIO]
    faults.clear()


async def test_a_client_that_leaves(serving: Server, app: App) -> None:
    """With a reset, in the midst of the file: the application is told, and nothing is logged as an error."""
    app.on("/", sending(offset=0), length=len(CONTENT))
    async with nothing_left():
        async with await connect(serving) as stream:
            await stream.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert await stream.receive()
            sock = stream.extra(anyio.abc.SocketAttribute.raw_socket)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await patiently(lambda: app.errors)
    assert isinstance(app.errors[0], ClientDisconnected)


async def test_a_client_that_does_not_read(idle_server: Server, app: App) -> None:
    idle_server.app = app
    idle_server.config = attrs.evolve(idle_server.config, limits=ServerLimits(write_timeout=0.05))
    await idle_server.start()
    app.on("/", sending(offset=0), length=len(CONTENT))
    async with nothing_left(), await connect(idle_server) as stream:
        await stream.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await patiently(lambda: app.errors)
        assert isinstance(app.errors[0], ClientDisconnected)
