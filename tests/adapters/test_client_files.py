"""Files from one client to another, through whole applications, over networks that cut."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import anyio
import pytest

from rtcore import ClientConfig, CommandError, Message
from rtcore_transports import SSEClient, WSClient

from ..proxy import Proxy, proxy_to
from .binary_hosts import Binary, binary_host
from .clients import TIMEOUT
from .hosting import HOSTS, HostKind

pytestmark = pytest.mark.anyio

EAGER = ClientConfig(backoff_base=0.001, backoff_cap=0.01)
SIZE = 2_000_000


@pytest.fixture(scope="module", params=HOSTS, ids=str)
def binary(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Binary]:
    kind: HostKind = request.param
    with binary_host(kind, tmp_path_factory.mktemp("files")) as running:
        yield running


@pytest.fixture
def proxy(binary: Binary) -> Iterator[Proxy]:
    with proxy_to(binary.host.port) as proxy:
        yield proxy


def client_of(proxy: Proxy, binary: Binary, channel: str) -> WSClient:
    return WSClient(f"ws://127.0.0.1:{proxy.port}{binary.host.prefix}/ws?channel={channel}", config=EAGER)


async def hear_file(client: WSClient) -> Message:
    with anyio.fail_after(TIMEOUT):
        while (message := await client.__anext__())["type"] != "binary":
            pass
        return message


async def test_there_and_back(binary: Binary, proxy: Proxy, tmp_path: Path, anyio_backend: str) -> None:
    path, channel = tmp_path / "cat.bin", f"there-{anyio_backend}"
    data = Random(1).randbytes(SIZE)
    path.write_bytes(data)
    cuts = [1, SIZE // 2]

    def cut(sent: int, total: int) -> None:
        if cuts and sent >= cuts[0]:
            cuts.pop(0)
            proxy.cut()

    folder = tmp_path / "saved"
    folder.mkdir()
    async with client_of(proxy, binary, channel) as ann, client_of(proxy, binary, channel) as bob:
        file = await ann.send_file(path, channel=channel, progress=cut)
        message = await hear_file(bob)
        assert message["url"] == file["url"]
        proxy.cut_after([700_000, 300, 500_000])
        saved = await bob.save_file(message, folder)
        assert (saved.name, saved.read_bytes()) == ("cat.bin", data)
    # Whoever hears by an event stream gets it likewise, connected or not.
    events = SSEClient(f"http://127.0.0.1:{proxy.port}{binary.host.prefix}/events")
    saved = await events.save_file(str(file["url"]), folder)
    assert (saved.name, saved.read_bytes()) == ("cat (1).bin", data)
    async with events.open_file(message) as opened:
        assert (opened.size, opened.sha256, opened.filename) == (SIZE, file["sha256"], "cat.bin")
        assert b"".join([piece async for piece in opened]) == data


async def test_small_files_and_those_that_are_not_there(
    binary: Binary, proxy: Proxy, tmp_path: Path, anyio_backend: str
) -> None:
    channel = f"small-{anyio_backend}"
    async with client_of(proxy, binary, channel) as ann:
        await ann.send_binary(b"hello", channel=channel, filename="a.txt", content_type="text/plain")
        heard: Any = await hear_file(ann)
        assert (heard["data"], "url" in heard) == (b"hello", False)
        # One that was kept is in its message too, as small as it is.
        (tmp_path / "b.txt").write_bytes(b"hello")
        file = await ann.send_file(tmp_path / "b.txt", channel=channel)
        kept = await hear_file(ann)
        assert (kept["data"], kept["url"]) == (b"hello", file["url"])
        for source in (heard, kept, str(file["url"])):
            async with ann.open_file(source) as opened:
                assert (opened.size, [piece async for piece in opened]) == (5, [b"hello"])
        missing = f"{str(file['url'])[:-32]}{'0' * 32}"
        with pytest.raises(CommandError, match="not_found"):
            await ann.save_file(missing, tmp_path)
        history = await ann.history(channel)
        publications: Any = history["publications"]
        async with ann.open_file(publications[0]) as opened:
            assert [piece async for piece in opened] == [b"hello"]
