"""What carries bytes: a bare socket and a stream, which behave alike, with a peer that reads or does not."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from anyio.abc import SocketStream, TaskGroup

from rtcore_transports import carriers
from rtcore_transports.carriers import READ_SIZE, Carrier, SocketCarrier, StreamCarrier

from .servers import TIMEOUT

pytestmark = pytest.mark.anyio

MORE_THAN_FITS = 2**23


@pytest.fixture(autouse=True)
def _short_farewells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carriers, "_LINGER_TIMEOUT", 0.1)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Return two connected sockets, the second of which is the test's own."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as ours:
        ours.connect(listener.getsockname())
        ours.settimeout(TIMEOUT)
        theirs, _ = listener.accept()
        theirs.setblocking(False)
        with theirs:
            yield theirs, ours


@pytest.fixture
async def tasks(anyio_backend: str) -> AsyncIterator[TaskGroup]:
    async with anyio.create_task_group() as group:
        yield group
        group.cancel_scope.cancel()


@pytest.fixture
def limits() -> dict[str, int]:
    return {"max_bytes": 1000, "max_messages": 100}


@pytest.fixture(params=["socket", "stream"])
async def carrier(
    request: pytest.FixtureRequest,
    pair: tuple[socket.socket, socket.socket],
    tasks: TaskGroup,
    limits: dict[str, int],
) -> AsyncIterator[Carrier]:
    if request.param == "socket":
        made: Carrier = SocketCarrier(pair[0], tasks=tasks, **limits)
    else:
        made = StreamCarrier(await SocketStream.from_socket(pair[0]), tasks=tasks, **limits)
    yield made
    made.abort()
    with anyio.CancelScope(shield=True):
        await made.aclose()


@pytest.fixture
def peer(pair: tuple[socket.socket, socket.socket]) -> socket.socket:
    return pair[1]


async def read(peer: socket.socket, size: int) -> bytes:
    """Read so many bytes, without holding up the event loop."""

    def read_all() -> bytes:
        data = bytearray()
        while len(data) < size and (more := peer.recv(65536)):
            data += more
        return bytes(data)

    return await anyio.to_thread.run_sync(read_all)


def fill(carrier: Carrier, messages: int = 1) -> bytes:
    """Write more than the network takes; returns it."""
    data = bytes(range(256)) * (MORE_THAN_FITS // 256)
    carrier.write(data, messages)
    return data


async def test_there_and_back(carrier: Carrier, peer: socket.socket) -> None:
    carrier.write(b"hello")
    assert await read(peer, 5) == b"hello"
    peer.sendall(b"x" * (READ_SIZE + 10))
    received = b""
    while len(received) < READ_SIZE + 10:
        piece = await carrier.receive()
        assert 0 < len(piece) <= READ_SIZE
        received += piece
    peer.close()
    assert await carrier.receive() == b""
    assert await carrier.receive() == b""


async def test_what_the_peer_does_not_take_waits_in_order(carrier: Carrier, peer: socket.socket) -> None:
    data = fill(carrier)
    for letter in b"abcd":
        carrier.write(bytes([letter]))
    assert carrier.full
    assert await read(peer, len(data) + 4) == data + b"abcd"
    await carrier.drain()
    assert not carrier.full
    carrier.write(b"more")
    assert await read(peer, 4) == b"more"


async def test_overflow(carrier: Carrier, peer: socket.socket) -> None:
    told: list[str] = []
    carrier.on_overflow(lambda: told.append("overflow"))
    data = fill(carrier)
    assert told == []
    carrier.write(b"dropped")
    carrier.write(b"dropped too")
    assert told == ["overflow"]
    first = await read(peer, 1)
    # Nothing is taken until whoever was told has thought of what to say.
    carrier.write(b"dropped as well")
    carrier.discard()
    for _ in range(20):
        carrier.write(b"farewell")
    received = first + await read(peer, len(data) + 20 * 8 - len(first))
    assert received == data + b"farewell" * 20
    assert told == ["overflow"]


@pytest.mark.parametrize("limits", [{"max_bytes": 2**30, "max_messages": 5}])
async def test_the_number_of_messages_counts(carrier: Carrier, peer: socket.socket) -> None:
    told: list[str] = []
    carrier.on_overflow(lambda: told.append("overflow"))
    data = fill(carrier, messages=3)
    carrier.write(b"", 2)
    assert told == []
    carrier.write(b"too many")
    assert told == ["overflow"]
    assert await read(peer, len(data)) == data


async def test_discarding_keeps_what_is_partly_written(carrier: Carrier, peer: socket.socket) -> None:
    data = fill(carrier)
    carrier.write(b"dropped")
    # Once the first bytes of it are with the peer, the rest must follow.
    first = await read(peer, 1)
    carrier.discard()
    carrier.write(b"farewell")
    received = first + await read(peer, len(data) + 8 - len(first))
    assert received == data + b"farewell"


async def test_closing_writes_what_waits(carrier: Carrier, peer: socket.socket) -> None:
    data = fill(carrier)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(carrier.aclose)
        assert await read(peer, len(data) + 1) == data
        peer.close()
    carrier.write(b"too late")
    assert carrier.gone


async def test_closing_does_not_wait_for_ever(carrier: Carrier, peer: socket.socket) -> None:
    fill(carrier)
    with anyio.fail_after(TIMEOUT):
        await carrier.aclose()
    await carrier.drain()


async def test_finishing_tells_the_reader(carrier: Carrier, peer: socket.socket) -> None:
    carrier.write(b"last words")
    carrier.finish()
    assert await read(peer, 100) == b"last words"
    peer.close()
    assert await carrier.receive() == b""


async def test_finishing_ends_without_the_peer(carrier: Carrier, peer: socket.socket) -> None:
    carrier.finish()
    with anyio.fail_after(TIMEOUT):
        assert await carrier.receive() == b""


async def test_aborting_wakes_the_reader(carrier: Carrier, peer: socket.socket, tasks: TaskGroup) -> None:
    received: list[bytes] = []
    done = anyio.Event()

    async def receive() -> None:
        received.append(await carrier.receive())
        done.set()

    tasks.start_soon(receive)
    await anyio.lowlevel.checkpoint()
    fill(carrier)
    carrier.abort()
    carrier.abort()
    with anyio.fail_after(TIMEOUT):
        await done.wait()
        await carrier.drain()
    assert received == [b""]
    assert carrier.gone


async def test_a_peer_that_is_gone(carrier: Carrier, peer: socket.socket) -> None:
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    peer.close()
    with anyio.fail_after(TIMEOUT):
        while not carrier.gone:
            carrier.write(b"hello?")
            await anyio.lowlevel.checkpoint()
        await carrier.drain()
        carrier.write(b"nobody hears it")
        assert await carrier.receive() == b""


async def test_a_peer_that_goes_while_it_is_written_to(carrier: Carrier, peer: socket.socket) -> None:
    fill(carrier)
    await read(peer, 1)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    peer.close()
    with anyio.fail_after(TIMEOUT), suppress(OSError):
        await carrier.drain()
    assert carrier.gone


async def test_cancelled_while_it_closes(carrier: Carrier, peer: socket.socket) -> None:
    fill(carrier)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await carrier.aclose()
    assert carrier.gone
    await read(peer, MORE_THAN_FITS)
