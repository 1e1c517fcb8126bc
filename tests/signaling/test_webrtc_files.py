"""Files and messages between Python peers, by real connections of aiortc."""

from __future__ import annotations

import os
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import anyio
import pytest

from rtcore import ConnectionClosed
from rtcore_adapters.webrtc import (
    FILE_PROTOCOL,
    receive_file,
    send_file,
)

from ..transports.servers import Server, nothing_left
from .members import PATIENCE, member, until

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("size", [0, 5_000_000])
async def test_a_file(server: Server, tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    path = tmp_path / "cat.jpg"
    path.write_bytes(content)
    folder = tmp_path / "received"
    folder.mkdir()
    async with nothing_left(), member(server, "ann") as ann, member(server, "bob") as bob:
        await until(lambda: ann.peer.peers)

        async def receive() -> None:
            channel = await bob.channel("file")
            assert channel.protocol == FILE_PROTOCOL
            received = await receive_file(channel, folder, max_size=size)
            assert (received.name, received.size) == ("cat.jpg", size)
            assert received.sha256 == sha256(content).hexdigest()

        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(receive)
                assert await send_file(ann.other("bob"), path, name="../cat.jpg") == sha256(content).hexdigest()
    assert (folder / "cat.jpg").read_bytes() == content
    assert [each.name for each in folder.iterdir()] == ["cat.jpg"]


async def test_messages_that_nobody_takes(server: Server) -> None:
    async with nothing_left(), member(server, "ann") as ann, member(server, "bob") as bob:
        await until(lambda: ann.peer.peers)
        with anyio.fail_after(PATIENCE):
            mine = await ann.other("bob").open_channel("flood")
            theirs = await bob.channel("flood")
            theirs.max_unread = 100_000
            with suppress(ConnectionClosed):
                while True:
                    await mine.send(bytes(16_384))
            with pytest.raises(ConnectionClosed, match="nobody took"):
                await anext(theirs)


async def test_a_sender_waits_for_the_network(server: Server) -> None:
    async with nothing_left(), member(server, "ann") as ann, member(server, "bob") as bob:
        await until(lambda: ann.peer.peers)
        with anyio.fail_after(PATIENCE):
            mine = await ann.other("bob").open_channel("much")
            theirs = await bob.channel("much")
            for _ in range(200):
                await mine.send(bytes(16_384))
                assert mine.buffered <= 1_048_576 + 16_384
            mine.close()
            assert sum([len(data) async for data in theirs]) == 200 * 16_384
            with pytest.raises(ConnectionClosed):
                await mine.send("more")


@pytest.mark.parametrize(
    "messages",
    [
        ['{"name": "cat.jpg", "size": 4}', b"12345"],
        ['{"name": "cat.jpg", "size": 4}', b"123", '{"sha256": ""}'],
        ['{"name": "cat.jpg", "size": 4}', b"1234", '{"sha256": "0"}'],
        ['{"name": "cat.jpg", "size": 4}', b"1234", "{}"],
        ['{"name": "cat.jpg", "size": 101}'],
        ['{"name": "cat.jpg", "size": -1}'],
        ['{"name": "cat.jpg", "size": 4}', b"1234"],
        [b"1234"],
        [],
    ],
)
async def test_a_file_that_is_not_what_was_announced(
    server: Server, tmp_path: Path, messages: list[str | bytes]
) -> None:
    async with nothing_left(), member(server, "ann") as ann, member(server, "bob") as bob:
        await until(lambda: ann.peer.peers)
        with anyio.fail_after(PATIENCE):
            mine = await ann.other("bob").open_channel("file", protocol=FILE_PROTOCOL)
            theirs = await bob.channel("file")
            for message in messages:
                await mine.send(message)
            mine.close()
            with pytest.raises(ConnectionClosed):
                await receive_file(theirs, tmp_path, max_size=100)
    assert os.listdir(tmp_path) == []
