"""Where files are kept: what is only so of object storage."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.abc
import anyio.to_thread
import pytest

from rtcore_adapters.stores import open_store
from rtcore_transports.file_store import FileStore, FileStoreError

from .s3 import S3, s3_server
from .stored import MIB, content, described, keep, listed, unavailable

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("aws"), pytest.mark.xdist_group("s3")]


@pytest.fixture
def own_s3(tmp_path: Path) -> Iterator[S3]:
    """Run a server that may be ended."""
    with s3_server(tmp_path) as server:
        server.make_bucket("bucket")
        yield server


async def test_object_storage_that_is_down(own_s3: S3) -> None:
    store = open_store(own_s3.url("bucket"))
    file = await keep(store, 1, b"kept")
    small, large = await store.create(f"{2:032x}"), await store.create(f"{3:032x}")
    await small.write(b"small")
    await large.write(bytes(11 * MIB))
    await anyio.to_thread.run_sync(own_s3.stop)

    async def write() -> None:
        for _ in range(30):
            await large.write(bytes(MIB))

    for failing in (
        store.find(file.file_id),
        content(store, file),
        listed(store),
        store.delete(file.file_id),
        store.sweep(older_than=0),
        small.commit(described(2, 5)),
        write(),
    ):
        with pytest.raises(FileStoreError) as caught:
            await failing
        assert unavailable(caught.value)
    await small.abort()
    await large.abort()


async def test_a_bucket_that_is_not_there(s3: S3) -> None:
    store = open_store(s3.url("no-such-bucket"))
    assert await store.find("0" * 32) is None
    writer = await store.create("0" * 32)
    await writer.write(b"abc")
    with pytest.raises(FileStoreError) as caught:
        await writer.commit(described(0, 3))
    assert unavailable(caught.value)
    await writer.abort()
    with pytest.raises(FileStoreError):
        await listed(store)


@asynccontextmanager
async def answering(answer: Callable[[str], str]) -> AsyncIterator[FileStore]:
    """Run a server that answers as no real one can be made to.

    Args:
        answer: Called with the method and the path of each request; returns the status line's last parts.

    Yields:
        A store there.
    """

    async def serve(stream: anyio.abc.ByteStream) -> None:
        async with stream:
            received = b""
            while not (end := received.find(b"\r\n\r\n") + 4) >= 4:
                received += await stream.receive()
            head = received[:end].decode()
            length = re.search(r"content-length: (\d+)", head, re.IGNORECASE)
            rest = end + int(length[1] if length else 0) - len(received)
            while rest > 0:
                rest -= len(await stream.receive())
            method, target, _ = head.split(" ", 2)
            status = answer(f"{method} {target}")
            rest_of_head = 'connection: close\r\netag: "a"\r\ncontent-length: 0\r\n\r\n'
            await stream.send(f"HTTP/1.1 {status}\r\n{rest_of_head}".encode())

    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0) as listener,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(listener.serve, serve)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        yield open_store(f"s3://bucket?endpoint=http://127.0.0.1:{port}")
        tasks.cancel_scope.cancel()


async def test_what_fails_between_the_two_objects_leaves_nothing() -> None:
    said: list[str] = []

    def answer(request: str) -> str:
        said.append(request)
        if request.startswith("DELETE"):
            return "204 No Content"
        return "403 Forbidden" if request.endswith(".json") else "200 OK"

    async with answering(answer) as store:
        writer = await store.create("0" * 32)
        await writer.write(b"abc")
        with pytest.raises(FileStoreError) as caught:
            await writer.commit(described(0, 3))
        assert unavailable(caught.value)
        await writer.abort()
    path = f"/bucket/{'0' * 32}"
    assert said == [f"PUT {path}", f"PUT {path}.json", f"DELETE {path}.json", f"DELETE {path}"]


async def test_object_storage_that_is_full() -> None:
    # As MinIO says it.
    async with answering(lambda _: "507 Insufficient Storage") as store:
        writer = await store.create("0" * 32)
        await writer.write(b"abc")
        with pytest.raises(FileStoreError) as caught:
            await writer.commit(described(0, 3))
        await writer.abort()
    assert (caught.value.refusal.code, caught.value.refusal.status) == ("store_full", 507)
    assert "try again later" in str(caught.value)
