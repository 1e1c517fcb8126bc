"""Files that `WSClient` sends over connections that are lost, or gives up: they arrive once and whole, or not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

import anyio
import pytest

from rtcore import ConnectionClosed, LocalProtocolError, Message
from rtcore_transports import Files, FilesConfig, ws_uploads

from ..proxy import proxy_to
from .sent_files import CHUNK, CONFIG, LARGE, SIZE, at, client_of, heard_file, kept, written
from .servers import (
    Server,
    cancelled_once,
    nothing_left,
    patiently,
    receive,
)
from .stores import DiskStore

pytestmark = pytest.mark.anyio


@pytest.fixture
def store(tmp_path: Path) -> DiskStore:
    folder = tmp_path / "store"
    folder.mkdir()
    return DiskStore(folder)


@pytest.fixture
async def server(idle_server: Server, store: DiskStore) -> AsyncIterator[Server]:
    idle_server.files = Files(store, FilesConfig(file=CONFIG, inline_max_size=1000))
    await idle_server.start()
    yield idle_server
    # What is on its way into the store is carried to its end.
    store.gate.set()


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have these small files be read in several blocks, as large ones are."""
    monkeypatch.setattr(ws_uploads, "_BLOCK", 2 * CHUNK)


# Losses


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("reset", [True, False])
async def test_a_network_that_cuts(server: Server, store: DiskStore, tmp_path: Path, seed: int, reset: bool) -> None:
    path = written(tmp_path, size=3 * SIZE)
    points = sorted(Random(seed).randrange(3 * SIZE) for _ in range(5))
    with proxy_to(server.port) as proxy:
        async with client_of(server, user_id="bob") as bob, client_of(server, proxy.port, user_id="ann") as ann:
            file = await ann.send_file(
                path, channel="room", progress=at(points, lambda: proxy.cut(reset=reset)), message={"own": seed}
            )
            await ann.send_to_channel("room", {"type": "end"}, ack=True)
            assert (await heard_file(bob))["own"] == seed
            # Once.
            kinds = []
            while (message := await receive(bob))["type"] != "end":
                kinds.append(message["type"])
            assert "binary" not in kinds
            assert ann.stats.reconnects >= 1
    assert kept(store) == {str(file["file_id"]): path.read_bytes()}


async def test_cut_in_the_midst_of_a_chunk(server: Server, store: DiskStore, tmp_path: Path) -> None:
    path = written(tmp_path, size=LARGE)
    with proxy_to(server.port) as proxy:
        async with client_of(server, proxy.port) as ann:
            store.shut()
            proxy.pace(chunk=1000)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(lambda: ann.send_file(path, channel="room"))
                await patiently(lambda: ann.stats.bytes_sent > 2 * CHUNK)
                proxy.cut()
                proxy.pace()
                await patiently(lambda: ann.stats.reconnects)
                store.gate.set()
    assert list(kept(store).values()) == [path.read_bytes()]


async def test_a_connection_that_the_server_takes_for_alive(server: Server, store: DiskStore, tmp_path: Path) -> None:
    """The old connection still stands on the server when the new one goes on."""
    path = written(tmp_path)
    with proxy_to(server.port) as proxy:
        async with client_of(server, proxy.port, user_id="ann") as ann:

            def lose() -> None:
                proxy.stall()
                session: Any = ann._session
                link = session._link
                link._scope.cancel()
                link.drop(1001, "")
                session.lost(ConnectionClosed(None, "lost"), None, "lost", None)

            file = await ann.send_file(path, channel="room", progress=at([CHUNK], lose))
            assert ann.stats.reconnects == 1
            proxy.resume()
    assert kept(store) == {str(file["file_id"]): path.read_bytes()}


async def test_a_server_that_is_restarted(server: Server, store: DiskStore, tmp_path: Path) -> None:
    path = written(tmp_path, size=LARGE)
    told: list[int] = []
    restart = anyio.Event()

    def progress(sent: int, total: int) -> None:
        told.append(sent)
        if sent >= CHUNK:
            restart.set()

    async with nothing_left(), client_of(server) as ann, anyio.create_task_group() as tasks:
        sent: list[Message] = []

        async def send() -> None:
            sent.append(await ann.send_file(path, channel="room", progress=progress))

        tasks.start_soon(send)
        await restart.wait()
        # What comes on now waits for the store, so that it is not complete.
        if not sent:
            store.shut()
        await anyio.wait_all_tasks_blocked()
        stopped = anyio.Event()

        async def stop() -> None:
            await server.stop()
            stopped.set()

        tasks.start_soon(stop)
        await patiently(lambda: not ann.connected)
        store.gate.set()
        await stopped.wait()
        assert store.names == []
        await server.start()
    assert kept(store) == {str(sent[0]["file_id"]): path.read_bytes()}
    assert told.count(0) == 2


async def test_begun_while_there_is_no_connection(server: Server, store: DiskStore, tmp_path: Path) -> None:
    async with client_of(server) as ann:
        await server.stop()
        await patiently(lambda: not ann.connected)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: ann.send_file(written(tmp_path), channel="room"))
            await anyio.wait_all_tasks_blocked()
            await server.start()
    assert len(kept(store)) == 1


async def test_all_was_sent_to_a_server_that_has_forgotten_it(server: Server, store: DiskStore, tmp_path: Path) -> None:
    """Then it may have been published, and is not sent again."""
    path = written(tmp_path, size=CHUNK + 1)
    store.shut()
    async with client_of(server) as ann, anyio.create_task_group() as tasks:

        async def send() -> None:
            with pytest.raises(ConnectionClosed, match="forgotten"):
                await ann.send_file(path, channel="room")

        tasks.start_soon(send)
        await patiently(lambda: ann.stats.bytes_sent > CHUNK + 1)
        await patiently(lambda: store.waiting)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(server.stop)
        await patiently(lambda: not ann.connected)
        store.gate.set()
        await server._stopped.wait()
        await server.start()


async def test_what_there_was_no_connection_for_was_not_sent(server: Server, store: DiskStore, tmp_path: Path) -> None:
    """And so cannot have been published by the server that has forgotten it."""
    path = written(tmp_path, size=CHUNK + 1)
    stopped = anyio.Event()
    async with client_of(server) as ann, anyio.create_task_group() as tasks:

        async def lose(sent: int, total: int) -> None:
            if not stopped.is_set():
                await server.stop()
                await patiently(lambda: not ann.connected)
                stopped.set()

        tasks.start_soon(lambda: ann.send_file(path, channel="room", progress=lose))
        await stopped.wait()
        await anyio.wait_all_tasks_blocked()
        await server.start()
    assert list(kept(store).values()) == [path.read_bytes()]


# Given up


async def test_cancelled_it_leaves_nothing(server: Server, store: DiskStore, tmp_path: Path) -> None:
    path = written(tmp_path, size=LARGE)
    async with nothing_left(), client_of(server) as ann:
        store.shut()
        async with cancelled_once(lambda: store.waiting):
            await ann.send_file(path, channel="room")
        assert ann.connected
        # In order: once this is answered, the cancellation has been heard.
        await ann.ping()
        assert server.driver.stats()["uploads"] == 0
        store.gate.set()
        await patiently(lambda: store.names == [])
        assert (await ann.history("room"))["publications"] == []
        # The next one is not concerned.
        file = await ann.send_file(path, channel="room")
    assert list(kept(store)) == [file["file_id"]]


async def test_cancelled_while_there_is_no_connection(server: Server, store: DiskStore, tmp_path: Path) -> None:
    path = written(tmp_path, size=LARGE)
    with proxy_to(server.port) as proxy:
        async with client_of(server, proxy.port) as ann:
            store.shut()
            async with (
                cancelled_once(lambda: store.waiting and not ann.connected),
                anyio.create_task_group() as tasks,
            ):
                tasks.start_soon(lambda: ann.send_file(path, channel="room"))
                await patiently(lambda: store.waiting)
                proxy.refuse()
                proxy.cut()
            proxy.refuse(False)
            await patiently(lambda: ann.connected)
            await ann.ping()
            assert server.driver.stats()["uploads"] == 0
            store.gate.set()
            await patiently(lambda: store.names == [])
            # And before anything was asked of the server.
            proxy.refuse()
            proxy.cut()
            await patiently(lambda: not ann.connected)
            with anyio.CancelScope() as scope:
                scope.cancel()
                await ann.send_file(path, channel="room")
            assert ann.stats.queued == 0
            proxy.refuse(False)
            await patiently(lambda: ann.connected)


async def test_disconnected_meanwhile(server: Server, store: DiskStore, tmp_path: Path) -> None:
    store.shut()
    async with client_of(server) as ann, anyio.create_task_group() as tasks:

        async def send() -> None:
            with pytest.raises(ConnectionClosed, match="disconnected"):
                await ann.send_file(written(tmp_path, size=LARGE), channel="room")

        tasks.start_soon(send)
        await patiently(lambda: store.waiting)
        await ann.disconnect()
    store.gate.set()
    with pytest.raises(LocalProtocolError, match="has ended"):
        await ann.send_file(written(tmp_path, size=LARGE), channel="room")


async def test_ended_by_the_server(server: Server, store: DiskStore, tmp_path: Path) -> None:
    store.shut()
    async with client_of(server) as ann, anyio.create_task_group() as tasks:

        async def send() -> None:
            with pytest.raises(ConnectionClosed) as caught:
                await ann.send_file(written(tmp_path, size=LARGE), channel="room")
            assert caught.value.code == 4403

        tasks.start_soon(send)
        await patiently(lambda: store.waiting)
        assert ann.connection_id is not None
        server.driver.close(ann.connection_id, 4403, "you again")
        await patiently(lambda: ann.stats.state == "closed")
        with pytest.raises(ConnectionClosed, match="you again"):
            await ann.send_file(written(tmp_path, size=LARGE), channel="room")
