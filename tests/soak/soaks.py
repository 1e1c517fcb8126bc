"""Files of any size over connections that break, a server that must stay small, and chat beside them."""

from __future__ import annotations

import json
import random
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import anyio
import attrs
import httpx2

from rtcore_transports import WSClient

from ..attacks.ordinary import Server
from ..programs import running
from ..proxy import Proxy, proxy_to

__all__ = ["Chat", "Progress", "Trip", "chat_beside_a_file", "form", "make_file", "served", "there_and_back"]

#: Called with how many bytes have been carried, of how many.
Progress = Callable[[int, int], None]

_BLOCK: Final = 2**20
_RTCORE: Final = str(Path(sys.executable).with_name("rtcore"))
# As often as people who chat with several others at once, and more.
_CHAT_INTERVAL: Final = 0.01


@attrs.frozen
class Trip:
    """One file that went to the server and came back.

    Attributes:
        up: Seconds that it took to the server.
        down: Seconds that it took back.
        cuts: How often the connection was cut, on the way up and on the way down.
        peak_memory: The most bytes that the server has had.
    """

    up: float
    down: float
    cuts: tuple[int, int]
    peak_memory: int


@attrs.frozen
class Chat:
    """How long messages took to come back, in seconds: without a file beside them, and with one.

    Attributes:
        alone: Shortest first.
        beside: Likewise.
    """

    alone: list[float]
    beside: list[float]


@contextmanager
def served(folder: Path, *, store_url: str | None = None, loop: str = "asyncio") -> Iterator[Server]:
    """Run the command, with a store of its own, until the end of the block, when it must end without complaint."""
    settings = folder / "rtcore.toml"
    settings.write_text(
        f'[binary]\nstore_url = "{store_url or (folder / "store").as_uri()}"\n'
        f"max_file_size = {5 * 10**10}\nquota = {10**11}\n"
    )
    command = [_RTCORE, "serve", "--port", "0", "--loop", loop, "--config", str(settings)]
    with running(*command, errors=folder / "errors") as program:
        found = re.search(r":(\d+)/", program.read_line())
        assert found, program.complaints
        yield Server(program, int(found[1]))
        assert (program.stop(), program.complaints) == (0, "")


def make_file(path: Path, size: int, seed: int = 0) -> str:
    """Write so many bytes, which are the same for the same seed; returns their SHA-256."""
    source, digest = random.Random(seed), sha256()
    with path.open("wb") as file:
        for begin in range(0, size, _BLOCK):
            block = source.randbytes(min(_BLOCK, size - begin))
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    digest = sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


class _Cutter:
    """Cuts the connections of a proxy when random places of a file are reached."""

    def __init__(self, proxy: Proxy, size: int, times: int, seed: int, then: Progress) -> None:
        self.done = 0
        self._proxy = proxy
        # Behind the last of them there is something left to come.
        self._places = sorted(random.Random(seed).sample(range(1, size * 9 // 10), times))
        self._then = then

    def __call__(self, carried: int, total: int) -> None:
        self._then(carried, total)
        if self._places and carried >= self._places[0]:
            while self._places and carried >= self._places[0]:
                self._places.pop(0)
            self._proxy.cut()
            self.done += 1


def there_and_back(
    server: Server, folder: Path, size: int, *, cuts: int, seed: int = 0, up: Progress, down: Progress, loop: str
) -> Trip:
    """Send a file over a connection that is cut at random again and again, get it back so, and compare."""
    source = folder / "source.bin"
    digest = make_file(source, size, seed)
    server.forget_peak()

    async def run() -> Trip:
        with proxy_to(server.port) as proxy:
            sent, saved = _Cutter(proxy, size, cuts, seed + 1, up), _Cutter(proxy, size, cuts, seed + 2, down)
            async with WSClient(f"ws://127.0.0.1:{proxy.port}/realtime/ws?channel=files") as client:
                began_at = time.monotonic()
                file = await client.send_file(source, channel="files", progress=sent)
                sent_at = time.monotonic()
                assert (file["size"], file["sha256"]) == (size, digest)
                path = await client.save_file(str(file["url"]), folder / "saved.bin", progress=saved)
                saved_at = time.monotonic()
        assert digest_of(path) == digest
        path.unlink()
        return Trip(sent_at - began_at, saved_at - sent_at, (sent.done, saved.done), server.peak_memory)

    try:
        return anyio.run(run, backend=loop)
    finally:
        source.unlink()


def form(server: Server, size: int, *, progress: Progress, seed: int = 0) -> int:
    """Send a file of a form, made on the way; returns the most bytes of memory that the server has had."""
    source, digest = random.Random(seed), sha256()
    boundary = "soak"
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="f.bin"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    ).encode()
    tail = f"\r\n--{boundary}--\r\n".encode()

    def body() -> Iterator[bytes]:
        yield head
        for begin in range(0, size, _BLOCK):
            block = source.randbytes(min(_BLOCK, size - begin))
            digest.update(block)
            yield block
            progress(begin + len(block), size)
        yield tail

    server.forget_peak()
    response = httpx2.post(
        f"http://127.0.0.1:{server.port}/realtime/binary/upload?channel=files",
        content=body(),
        headers={
            "content-type": f"multipart/form-data; boundary={boundary}",
            "content-length": str(len(head) + size + len(tail)),
        },
        timeout=600,
    )
    assert response.status_code == 200, response.text
    [file] = json.loads(response.content)["files"]
    assert (file["size"], file["sha256"]) == (size, digest.hexdigest())
    return server.peak_memory


def chat_beside_a_file(server: Server, folder: Path, size: int, *, alone: int, progress: Progress, loop: str) -> Chat:
    """Say something again and again on a connection, so often alone, then for as long as a file goes through it."""
    source = folder / "source.bin"
    make_file(source, size)

    async def say(client: WSClient) -> float:
        began_at = time.monotonic()
        message: dict[str, Any] = {"type": "channel_message", "channel": "chat", "message": "hello", "echo": False}
        await client.send_json(message, ack=True)
        return time.monotonic() - began_at

    async def run() -> Chat:
        async with WSClient(f"ws://127.0.0.1:{server.port}/realtime/ws?channel=chat") as client:
            before: list[float] = []
            while len(before) < alone:
                before.append(await say(client))
                await anyio.sleep(_CHAT_INTERVAL)
            beside: list[float] = []
            async with anyio.create_task_group() as tasks:

                async def send() -> None:
                    await client.send_file(source, channel="files", progress=progress)
                    tasks.cancel_scope.cancel()

                tasks.start_soon(send)
                while True:
                    beside.append(await say(client))
                    await anyio.sleep(_CHAT_INTERVAL)
            return Chat(sorted(before), sorted(beside))

    try:
        return anyio.run(run, backend=loop)
    finally:
        source.unlink()


def clear(folder: Path) -> None:
    """Remove what the server has kept."""
    shutil.rmtree(folder / "store", ignore_errors=True)
