"""Parts of files that go straight into a socket, on each event loop: cancelled, aborted, and to peers of all kinds."""

from __future__ import annotations

import asyncio
import os
import random
import select
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import TaskGroup

from rtcore_transports import carriers
from rtcore_transports.carriers import SocketCarrier
from rtcore_transports.event_loops import runs_on_asyncio
from rtcore_transports.file_sending import FileSending

from ..wheel import TESTS_WHEEL
from .servers import TIMEOUT, patiently
from .socket_pairs import read, socket_pair

pytestmark = pytest.mark.anyio

SIZE: Final = 2**25  # more than fits into the buffers of two sockets
CONTENT: Final = random.Random(1).randbytes(SIZE)


@pytest.fixture(
    params=[
        pytest.param(("asyncio", {}), id="asyncio"),
        *([] if TESTS_WHEEL else [pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop")]),
        *([] if TESTS_WHEEL else [pytest.param(("trio", {}), id="trio")]),
    ]
)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Run each test also on uvloop, which watches sockets by itself."""
    backend: tuple[str, dict[str, Any]] = request.param
    return backend


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    path: Path = tmp_path_factory.mktemp("files") / "file"
    path.write_bytes(CONTENT)
    descriptor = os.open(path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


async def test_cancelled_again_and_again(
    pair: tuple[socket.socket, socket.socket], file: int, tasks: TaskGroup
) -> None:
    """It goes on from where it was, and nothing is sent behind anybody's back."""
    sock, peer = pair
    received: list[bytes] = []

    async def read_all() -> None:
        received.append(await read(peer, SIZE - 7))

    sending = FileSending(sock, file, 7, SIZE - 7)
    with anyio.CancelScope() as scope:
        tasks.start_soon(patiently_then, lambda: sending.offset > 7, scope.cancel)
        await sending.run()
    before = sending.offset
    assert 7 < before < SIZE
    assert is_forgotten(sock)
    tasks.start_soon(read_all)
    await patiently(lambda: writable(sock))
    await anyio.lowlevel.checkpoint()
    assert sending.offset == before
    for _ in range(20):
        with anyio.move_on_after(0.001):
            await sending.run()
    with anyio.fail_after(TIMEOUT):
        await sending.run()
        assert sending.offset == SIZE
        await patiently(lambda: received)
    assert received == [CONTENT[7:]]
    assert is_forgotten(sock)


async def patiently_then(condition: Callable[[], object], then: Callable[[], object]) -> None:
    await patiently(condition)
    then()


def is_forgotten(sock: socket.socket) -> bool:
    """Tell whether no event loop asks any more whether it is writable, which would keep it busy; trio never goes on."""
    return not (runs_on_asyncio() and asyncio.get_running_loop().remove_writer(sock))


def writable(sock: socket.socket) -> bool:
    return bool(select.select([], [sock], [], 0)[1])


async def test_nobody_sends_what_has_ended(pair: tuple[socket.socket, socket.socket], file: int) -> None:
    """The file ends before its part does."""
    sending = FileSending(pair[0], file, SIZE - 5, 100)
    with anyio.fail_after(TIMEOUT):
        await sending.run()
    assert sending.offset == SIZE
    assert await read(pair[1], 5) == CONTENT[-5:]
    with pytest.raises(OSError, match="Bad file descriptor"):
        await FileSending(pair[0], -1, 0, 100).run()


async def test_behind_what_waits(pair: tuple[socket.socket, socket.socket], file: int, tasks: TaskGroup) -> None:
    carrier = SocketCarrier(pair[0], tasks=tasks)
    carrier.write(b"x" * SIZE)

    async def send() -> None:
        assert await carrier.send_file(file, 4, SIZE) == SIZE - 4
        carrier.write(b"behind")

    tasks.start_soon(send)
    expected = b"x" * SIZE + CONTENT[4:] + b"behind"
    assert await read(pair[1], len(expected)) == expected
    carrier.abort()
    assert await carrier.send_file(file, 0, 1) == 0


async def test_aborted(file: int, tasks: TaskGroup) -> None:
    """Whoever sends is told at once; and the number of the socket is free for the next, which has nothing of this."""
    for cancelled in (False, True, True, False, False):
        await abort_midway(file, tasks, cancelled=cancelled)


async def abort_midway(file: int, tasks: TaskGroup, *, cancelled: bool) -> None:
    with socket_pair() as (sock, peer):
        carrier = SocketCarrier(sock, tasks=tasks)
        scope = anyio.CancelScope()
        sent: list[int | None] = []

        async def send() -> None:
            with scope:
                sent.append(await carrier.send_file(file, 0, SIZE))
            if cancelled:
                sent.append(None)

        tasks.start_soon(send)
        await patiently(lambda: not writable(sock))
        if cancelled:
            # The task has yet to hear of it.
            scope.cancel()
        carrier.abort()
        await patiently(lambda: sent)
        received = await read(peer, SIZE)
        assert CONTENT.startswith(received)
        assert sent == [None if cancelled else len(received)]
        assert 0 < len(received) < SIZE


async def test_a_peer_that_resets(pair: tuple[socket.socket, socket.socket], file: int, tasks: TaskGroup) -> None:
    sock, peer = pair
    carrier = SocketCarrier(sock, tasks=tasks)

    async def reset() -> None:
        await read(peer, SIZE // 2)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()

    tasks.start_soon(reset)
    with anyio.fail_after(TIMEOUT):
        assert SIZE // 2 <= await carrier.send_file(file, 0, SIZE) < SIZE
    assert carrier.gone


async def test_a_slow_peer_is_no_lost_one(
    pair: tuple[socket.socket, socket.socket], file: int, tasks: TaskGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often it is asked whether anything went: what went is what counts."""
    asked = 0

    class Slow(FileSending):
        async def run(self) -> None:
            nonlocal asked
            asked += 1
            before = self.offset
            with anyio.CancelScope(shield=True):
                if asked == 3:
                    await super().run()
                    return
                while self.offset == before:
                    with anyio.move_on_after(0):
                        await super().run()
            # Until the time is up.
            await anyio.sleep_forever()

    monkeypatch.setattr(carriers, "FileSending", Slow)
    sock, peer = pair
    carrier = SocketCarrier(sock, tasks=tasks, write_timeout=0.01)
    received: list[bytes] = []

    async def read_all() -> None:
        received.append(await read(peer, SIZE))

    tasks.start_soon(read_all)
    with anyio.fail_after(TIMEOUT):
        assert await carrier.send_file(file, 0, SIZE) == SIZE
        await patiently(lambda: received)
    assert (asked, received) == (3, [CONTENT])


async def test_a_peer_that_takes_nothing(
    pair: tuple[socket.socket, socket.socket], file: int, tasks: TaskGroup
) -> None:
    carrier = SocketCarrier(pair[0], tasks=tasks, write_timeout=0.05)
    with anyio.fail_after(TIMEOUT):
        assert await carrier.send_file(file, 0, SIZE) < SIZE
    assert carrier.gone
