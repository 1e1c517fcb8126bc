"""The clients get files over HTTP: whole, or they say why not; in pieces, over as many connections as it takes."""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncIterator, Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeAlias

import anyio
import attrs
import pytest

from rtcore import ClientConfig, CommandError, ConnectionFailed, LocalProtocolError
from rtcore_transports import SSEClient, WSClient
from rtcore_transports.file_names import safe_name

from ..proxy import proxy_to
from .servers import EAGER, TIMEOUT, Server, nothing_left

pytestmark = pytest.mark.anyio

PATH = "/realtime/binary/f"
WHOLE = bytes(range(256)) * 4096

Message: TypeAlias = dict[str, object]


class FileApi:
    """Serves one file by the rules, unless it is told otherwise.

    Attributes:
        requests: The headers of each.
        refusals: Statuses to answer with, before anything else.
        parts: So many bytes of each of the next responses are sent; then the connection ends,
        stalls: or nothing more comes.
    """

    def __init__(self, data: bytes = WHOLE) -> None:
        self.data = data
        self.digest = sha256(data).hexdigest()
        self.etag: str | None = f'"{self.digest}"'
        self.headers: dict[str, str] = {}
        self.ranges = True
        self.lengths = True
        self.requests: list[dict[str, str]] = []
        self.targets: list[str] = []
        self.refusals: list[int] = []
        self.parts: list[int] = []
        self.stalls = False
        self.between: Callable[[], None] = lambda: None

    def message(self, **fields: object) -> Message:
        told = {"type": "binary", "channel": "room", "content_type": "text/x-own", "filename": "cat.txt", "url": PATH}
        return {**told, "size": len(self.data), "sha256": self.digest, **fields}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return
        asked = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.requests.append(asked)
        self.targets.append(scope["path"])
        if self.refusals:
            error = b'{"error": {"code": "own_code", "message": "not now"}}'
            await self._start(send, self.refusals.pop(0), {"content-length": str(len(error)), "retry-after": "0"})
            await send({"type": "http.response.body", "body": error})
            return
        status, start, headers = 200, 0, {"content-type": "text/x-served", **self.headers}
        match = re.fullmatch(r"bytes=([0-9]+)-", asked.get("range", ""))
        if match and self.ranges and asked.get("if-range", self.etag) == self.etag:
            status, start = 206, int(match[1])
            headers["content-range"] = f"bytes {start}-{len(self.data) - 1}/{len(self.data)}"
        if self.lengths:
            headers["content-length"] = str(len(self.data) - start)
        if self.etag is not None:
            headers["etag"] = self.etag
        await self._start(send, status, headers)
        stop = start + self.parts.pop(0) if self.parts else len(self.data)
        await send({"type": "http.response.body", "body": b"", "more_body": True})
        for at in range(start, min(stop, len(self.data)), 10_000):
            piece = self.data[at : min(at + 10_000, stop)]
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        if stop < len(self.data) and self.stalls:
            while (await receive())["type"] != "http.disconnect":
                pass
            return
        if stop < len(self.data):
            # A response that ends too early is cut off.
            self.between()
            raise ConnectionAbortedError
        await send({"type": "http.response.body"})

    async def _start(self, send: Any, status: int, headers: dict[str, str]) -> None:
        fields = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": fields})


@pytest.fixture
async def api(idle_server: Server, faults: list[Any]) -> AsyncIterator[FileApi]:
    idle_server.app = api = FileApi()
    await idle_server.start()
    async with nothing_left():
        yield api
    # The application's own, which it ends responses by.
    assert all("ConnectionAbortedError" in str(record.exc_info) for record in faults)
    faults.clear()


def client_of(server: Server, **options: Any) -> WSClient:
    return WSClient(server.url(), **{"config": EAGER, **options})


def names_in(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


async def read(client: WSClient | SSEClient, source: Message | str) -> bytes:
    with anyio.fail_after(TIMEOUT):
        async with client.open_file(source) as file:
            return b"".join([piece async for piece in file])


# What is said of it


async def test_a_file_of_a_message(idle_server: Server, api: FileApi) -> None:
    client = client_of(idle_server, token="secret", headers={"X-Own": "1"})
    async with client.open_file(api.message(filename="../../cat.txt")) as file:
        assert (file.size, file.content_type, file.filename) == (len(WHOLE), "text/x-own", "cat.txt")
        assert file.sha256 == api.digest
        pieces = [piece async for piece in file]
        assert b"".join(pieces) == WHOLE
        assert max(map(len, pieces)) <= 65536
        assert [piece async for piece in file] == []
    assert api.targets == [PATH]
    assert api.requests[0]["authorization"] == "Bearer secret"
    assert api.requests[0]["x-own"] == "1"
    assert api.requests[0]["accept-encoding"] == "identity"
    assert "range" not in api.requests[0]


@pytest.mark.parametrize("reference", [PATH, "binary/f", "http://127.0.0.1:{port}/realtime/binary/f"])
async def test_a_file_of_a_url(idle_server: Server, api: FileApi, reference: str) -> None:
    api.headers["content-disposition"] = "attachment; filename*=UTF-8''k%C3%A4tzchen.txt"
    client = SSEClient(idle_server.events_url)
    async with client.open_file(reference.format(port=idle_server.port)) as file:
        assert (file.size, file.content_type, file.filename) == (len(WHOLE), "text/x-served", "kätzchen.txt")
        assert file.sha256 == api.digest
        assert b"".join([piece async for piece in file]) == WHOLE
    assert api.targets == [PATH]


async def test_a_server_that_tells_little(idle_server: Server, api: FileApi) -> None:
    api.etag, api.lengths = None, False
    client = client_of(idle_server)
    async with client.open_file(PATH) as file:
        assert (file.size, file.filename, file.sha256) == (None, None, None)
        assert b"".join([piece async for piece in file]) == WHOLE
    assert await read(client, api.message()) == WHOLE
    # What comes next might be of another file, unless the message says what it must be.
    api.parts = [50_000, 50_000]
    with pytest.raises(ConnectionFailed, match="broke off"):
        await read(client, PATH)
    assert await read(client, api.message()) == WHOLE


@pytest.mark.parametrize(
    "reference",
    [
        "http://127.0.0.2:{port}/realtime/binary/f",
        "https://127.0.0.1:{port}/realtime/binary/f",
        "http://127.0.0.1:1/realtime/binary/f",
        "//elsewhere.example/realtime/binary/f",
        "http://ann:secret@127.0.0.1:{port}/realtime/binary/f",
        "file:///etc/passwd",
        "http://[::1",
    ],
)
async def test_credentials_go_nowhere_else(idle_server: Server, api: FileApi, reference: str) -> None:
    client = client_of(idle_server, token="secret")
    for source in (reference.format(port=idle_server.port), api.message(url=reference.format(port=idle_server.port))):
        with pytest.raises(LocalProtocolError, match=r"another server|not a URL") as caught:
            await read(client, source)
        assert "secret" not in str(caught.value)
    assert api.requests == []


async def test_a_redirect_is_not_followed(idle_server: Server, api: FileApi) -> None:
    api.refusals = [307]
    with pytest.raises(CommandError, match="own_code"):
        await read(client_of(idle_server), PATH)
    assert len(api.requests) == 1


@pytest.mark.parametrize(
    "message", [{"type": "note", "data": "x"}, {"type": "binary"}, {"type": "note", "url": PATH}, {"url": PATH}]
)
async def test_a_message_about_no_file(idle_server: Server, api: FileApi, message: Message) -> None:
    with pytest.raises(LocalProtocolError, match="no file"):
        await read(client_of(idle_server), message)


@pytest.mark.parametrize("form", ["data", "binary_data"])
async def test_a_file_within_a_message_is_asked_of_nobody(
    idle_server: Server, api: FileApi, form: str, tmp_path: Path
) -> None:
    client = client_of(idle_server)
    inside = WHOLE if form == "data" else base64.b64encode(WHOLE).decode()
    for message in (api.message(**{form: inside}), {"type": "binary", form: inside}):
        async with client.open_file(message) as file:
            assert (file.size, file.sha256) == (len(WHOLE), api.digest)
            pieces = [piece async for piece in file]
            assert b"".join(pieces) == WHOLE
            assert max(map(len, pieces)) <= 65536
        saved = await client.save_file(message, tmp_path)
        assert saved.read_bytes() == WHOLE
    assert names_in(tmp_path) == ["cat.txt", "file.bin"]
    assert api.requests == []


async def test_an_empty_file(idle_server: Server, api: FileApi, tmp_path: Path) -> None:
    api.data, api.digest = b"", sha256(b"").hexdigest()
    client = client_of(idle_server)
    assert await read(client, api.message()) == b""
    assert await read(client, api.message(data=b"")) == b""
    assert (await client.save_file(api.message(), tmp_path)).read_bytes() == b""


# Connections that break off


async def test_a_connection_that_breaks_off_is_gone_on_with(idle_server: Server, api: FileApi) -> None:
    api.parts = [300_000, 0, 1, 500_000]
    assert await read(client_of(idle_server), api.message()) == WHOLE
    asked = [request.get("range") for request in api.requests]
    assert asked == [None, "bytes=300000-", "bytes=300000-", "bytes=300001-", "bytes=800001-"]
    assert {request.get("if-range") for request in api.requests[1:]} == {api.etag}


async def test_a_network_that_cuts(idle_server: Server, api: FileApi) -> None:
    with proxy_to(idle_server.port) as proxy:
        proxy.cut_after([200_000, 10, 300_000, 400, 250_000])
        client = WSClient(f"ws://127.0.0.1:{proxy.port}/realtime/ws", config=EAGER)
        assert await read(client, api.message()) == WHOLE
        assert proxy.accepted == 6


async def test_a_server_that_knows_no_ranges(idle_server: Server, api: FileApi) -> None:
    api.ranges, api.parts = False, [300_000, 100_000]
    assert await read(client_of(idle_server), api.message()) == WHOLE
    assert len(api.requests) == 3


@pytest.mark.parametrize("started", [0, 300_000])
async def test_another_file_in_its_place(idle_server: Server, api: FileApi, started: int, tmp_path: Path) -> None:
    def replace() -> None:
        api.data, api.etag = WHOLE[::-1], '"other"'

    api.parts, api.between = [started], replace
    with pytest.raises(CommandError, match="file_changed"):
        await client_of(idle_server).save_file(PATH, tmp_path)
    assert names_in(tmp_path) == []


async def test_a_range_that_was_not_asked_for(idle_server: Server, api: FileApi) -> None:
    def shrink() -> None:
        api.data = WHOLE[:-1]

    api.parts, api.between = [300_000], shrink
    with pytest.raises(CommandError, match="file_changed"):
        await read(client_of(idle_server), PATH)


async def test_a_server_that_is_busy_for_now(idle_server: Server, api: FileApi) -> None:
    api.refusals = [503, 429]
    assert await read(client_of(idle_server), api.message()) == WHOLE
    assert len(api.requests) == 3


@pytest.mark.parametrize("status", [403, 404, 500])
async def test_a_server_that_refuses(idle_server: Server, api: FileApi, status: int, tmp_path: Path) -> None:
    api.refusals = [status]
    with pytest.raises(CommandError, match="own_code: not now"):
        await client_of(idle_server).save_file(api.message(), tmp_path)
    assert len(api.requests) == 1
    assert names_in(tmp_path) == []
    # And in the midst of it, if the right to it has ended.
    api.parts, api.between = [300_000], lambda: api.refusals.append(status)
    with pytest.raises(CommandError, match="own_code: not now"):
        await client_of(idle_server).save_file(api.message(), tmp_path)
    assert names_in(tmp_path) == []


async def test_attempts_that_bring_nothing_come_to_an_end(idle_server: Server, api: FileApi) -> None:
    patient = attrs.evolve(EAGER, max_reconnect_attempts=3)
    api.refusals = [503] * 9
    with pytest.raises(CommandError, match="own_code"):
        await read(client_of(idle_server, config=patient), PATH)
    assert len(api.requests) == 4
    api.refusals = [503]
    with pytest.raises(CommandError, match="own_code"):
        await read(client_of(idle_server, auto_reconnect=False), PATH)
    # As long as each brings something, it goes on.
    api.parts = [1] * 20
    assert await read(client_of(idle_server, config=patient), PATH) == WHOLE
    await idle_server.stop()
    with pytest.raises(ConnectionFailed, match="no answer"):
        await read(client_of(idle_server, config=attrs.evolve(EAGER, backoff_cap=0.001)), PATH)


async def test_a_token_that_has_expired(idle_server: Server, api: FileApi) -> None:
    tokens = iter("abcd")

    async def token() -> str:
        return next(tokens)

    api.refusals, api.parts, api.between = [401], [300_000], lambda: api.refusals.append(401)
    assert await read(client_of(idle_server, token=token), api.message()) == WHOLE
    asked = [request["authorization"][-1] for request in api.requests]
    assert asked == ["a", "b", "b", "c"]


async def test_a_token_that_is_refused_for_good(idle_server: Server, api: FileApi) -> None:
    api.refusals = [401]
    with pytest.raises(CommandError, match="own_code"):
        await read(client_of(idle_server, token="old"), PATH)
    assert len(api.requests) == 1


# What is not what was announced


async def test_a_file_that_is_not_the_one_that_was_announced(idle_server: Server, api: FileApi, tmp_path: Path) -> None:
    client = client_of(idle_server)
    other = sha256(b"other").hexdigest()
    for message in (api.message(sha256=other), api.message(sha256=other, data=WHOLE)):
        with pytest.raises(CommandError, match="checksum_mismatch"):
            await client.save_file(message, tmp_path)
    with pytest.raises(CommandError, match="file_changed"):
        await client.save_file(api.message(size=5), tmp_path)
    api.lengths = False
    for size in (5, len(WHOLE) + 1):
        with pytest.raises(CommandError, match=r"checksum_mismatch|file_changed"):
            await client.save_file(api.message(size=size), tmp_path)
    assert names_in(tmp_path) == []


# Saved


async def test_names_of_strangers_stay_in_the_folder_and_replace_nothing(
    idle_server: Server, api: FileApi, tmp_path: Path
) -> None:
    client = client_of(idle_server)
    (tmp_path / "cat.txt").write_text("mine")
    names = ["cat.txt", "../cat.txt", "C:\\cat.txt", "..", ".bashrc", "a\0b\n.txt", "x" * 300 + ".txt", "😀" * 99]
    saved = [await client.save_file(api.message(filename=name), tmp_path) for name in names]
    assert {path.parent for path in saved} == {tmp_path}
    assert [path.name for path in saved[:6]] == [
        "cat (1).txt",
        "cat (2).txt",
        "cat (3).txt",
        "file",
        "bashrc",
        "ab.txt",
    ]
    assert saved[6].name.endswith("x.txt")
    assert all(path.read_bytes() == WHOLE for path in saved)
    assert (tmp_path / "cat.txt").read_text() == "mine"
    assert len(names_in(tmp_path)) == len(names) + 1
    nameless = api.message(content_type="image/png; x=y")
    del nameless["filename"]
    assert (await client.save_file(nameless, f"{tmp_path}/")).name == "file.png"


async def test_a_path_is_taken_as_it_is(idle_server: Server, api: FileApi, tmp_path: Path) -> None:
    client = client_of(idle_server)
    path = tmp_path / "mine.txt"
    path.write_text("old")
    assert await client.save_file(api.message(), path) == path
    assert path.read_bytes() == WHOLE
    for missing in (tmp_path / "no" / "cat.txt", f"{tmp_path}/no/"):
        with pytest.raises(FileNotFoundError):
            await client.save_file(api.message(), missing)
    assert names_in(tmp_path) == [path.name]


@pytest.mark.parametrize("is_async", [False, True])
async def test_progress(idle_server: Server, api: FileApi, tmp_path: Path, is_async: bool) -> None:
    told: list[tuple[int, int]] = []

    async def later(received: int, total: int) -> None:
        await anyio.lowlevel.checkpoint()
        told.append((received, total))

    api.parts = [300_000]
    client = client_of(idle_server)
    progress = later if is_async else (lambda *each: told.append(each))
    await client.save_file(api.message(), tmp_path, progress=progress)
    assert told[0] == (0, len(WHOLE))
    assert told[-1] == (len(WHOLE), len(WHOLE))
    assert told == sorted(told)
    assert len(told) > 3

    def fail(received: int, total: int) -> None:
        raise ValueError(received)

    with pytest.raises(ValueError, match="0"):
        await client.save_file(api.message(), tmp_path / "other", progress=fail)
    assert names_in(tmp_path) == ["cat.txt"]


async def test_cancelled_it_leaves_nothing(idle_server: Server, api: FileApi, tmp_path: Path) -> None:
    client = client_of(idle_server)
    with anyio.CancelScope() as scope:

        def stop(received: int, total: int) -> None:
            if received:
                assert [each.suffix for each in tmp_path.iterdir()] == [".part"]
                scope.cancel()

        await client.save_file(api.message(), tmp_path, progress=stop)
    assert scope.cancelled_caught
    assert names_in(tmp_path) == []


async def test_a_read_that_was_cancelled_loses_nothing(idle_server: Server, api: FileApi) -> None:
    async with client_of(idle_server).open_file(api.message()) as file:
        heard = await anext(file)
        with anyio.CancelScope() as scope:
            scope.cancel()
            heard += await anext(file)
        assert heard + b"".join([piece async for piece in file]) == WHOLE


async def test_left_early_nothing_is_left(idle_server: Server, api: FileApi) -> None:
    api.stalls, api.parts = True, [300_000, 300_000]
    client = client_of(idle_server)
    async with nothing_left():
        async with client.open_file(PATH) as file:
            assert await anext(file)
        with anyio.CancelScope() as scope:
            async with client.open_file(PATH) as file:
                async for _ in file:
                    scope.cancel()


# Names


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("cat.jpg", "cat.jpg"),
        ("/etc/passwd", "passwd"),
        ("..\\..\\boot.ini", "boot.ini"),
        ("...", "file"),
        ("", "file"),
        (" . hidden. ", "hidden"),
        ("gpj\u202eexe", "gpjexe"),
        ('a<b>:"c|?*d', "abcd"),
        ("x" * 250, "x" * 200),
        ("x" * 250 + ".tar.gz", "x" * 197 + ".gz"),
        ("é" * 150 + ".jpeg", "é" * 97 + ".jpeg"),
        ("x" * 100 + "." + "y" * 150, "x" * 100 + "." + "y" * 99),
    ],
)
def test_what_strangers_call_their_files(name: str, safe: str) -> None:
    assert safe_name(name) == safe


def test_the_default_of_a_name() -> None:
    assert safe_name("..", "download") == "download"


def test_an_event_source_that_does_not_come_back_tries_once() -> None:
    assert SSEClient("http://localhost/events", auto_reconnect=False)._retries == ClientConfig(auto_reconnect=False)
