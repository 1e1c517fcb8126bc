"""What carries bytes: a bare socket and a stream, which behave alike, with a peer that reads or does not."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import suppress

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from anyio.abc import SocketStream, TaskGroup

from rtcore_transports import carriers
from rtcore_transports.carriers import READ_SIZE, Carrier, SocketCarrier, StreamCarrier

from .servers import TIMEOUT
from .socket_pairs import read

pytestmark = pytest.mark.anyio

# Seconds: longer than a busy machine pauses between two reads of one test.
_PATIENCE = 1.0
MORE_THAN_FITS = 2**23


@pytest.fixture(autouse=True)
def _short_farewells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carriers, "_LINGER_TIMEOUT", 0.1)


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


def fill(carrier: Carrier) -> bytes:
    """Write more than the network takes; returns it."""
    data = bytes(range(256)) * (MORE_THAN_FITS // 256)
    carrier.write(data)
    return data


class Spring:
    """Gives pieces, one each time."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)
        self.asked = 0

    def __call__(self) -> bytes:
        self.asked += 1
        return self.pieces.pop(0) if self.pieces else b""


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


@pytest.mark.parametrize("limits", [{"max_bytes": 2**30, "max_messages": 5}])
async def test_the_number_of_writes_counts(carrier: Carrier, peer: socket.socket) -> None:
    assert carrier.limits == (2**30, 5)
    data = fill(carrier)
    for letter in (b"a", b"b", b"c"):
        carrier.write(letter)
        assert not carrier.full
    carrier.write(b"d")
    assert carrier.full
    # Nothing is lost for that: it is for the caller to heed.
    carrier.write(b"e")
    assert await read(peer, len(data) + 5) == data + b"abcde"


async def test_an_offer_is_taken_or_left_whole(carrier: Carrier, peer: socket.socket) -> None:
    assert carrier.offer(b"taken")
    assert await read(peer, 5) == b"taken"
    await carrier.drain()
    data = fill(carrier)
    assert not carrier.offer(b"left")
    assert await read(peer, len(data)) == data
    with anyio.fail_after(TIMEOUT):
        while not carrier.offer(b"taken"):
            await anyio.lowlevel.checkpoint()
    large = b"x" * MORE_THAN_FITS
    await carrier.drain()
    with anyio.fail_after(TIMEOUT):
        while not carrier.offer(large):
            await anyio.lowlevel.checkpoint()
    # Part of it is with the peer at most, and yet it is all taken.
    assert not carrier.offer(b"left")
    assert await read(peer, 5 + len(large)) == b"taken" + large


async def test_pulling(carrier: Carrier, peer: socket.socket) -> None:
    spring = Spring(b"one", b"two", b"three")
    carrier.pull(spring)
    carrier.pull(spring)
    assert await read(peer, 11) == b"onetwothree"
    with anyio.fail_after(TIMEOUT):
        while not carrier.offer(b"four"):
            await anyio.lowlevel.checkpoint()
    # It was asked until it had nothing, and then no more.
    assert spring.asked == 4
    assert await read(peer, 4) == b"four"


async def test_nothing_is_pulled_before_its_turn(carrier: Carrier, peer: socket.socket) -> None:
    # By itself it grows with what is read, on some machines until all of it fits.
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
    data = fill(carrier)
    spring = Spring(b"pulled", b"x" * MORE_THAN_FITS, b"last")
    carrier.pull(spring)
    carrier.write(b"written")
    await anyio.wait_all_tasks_blocked()
    assert spring.asked == 0
    assert not carrier.offer(b"left")
    # What is written goes before what is pulled, but never into the midst of a piece.
    assert await read(peer, len(data) + 13) == data + b"writtenpulled"
    with anyio.fail_after(TIMEOUT):
        while spring.asked < 2:
            await anyio.lowlevel.checkpoint()
    carrier.write(b"between")
    assert await read(peer, MORE_THAN_FITS + 11) == b"x" * MORE_THAN_FITS + b"betweenlast"


async def test_draining_does_not_wait_for_a_spring(carrier: Carrier, peer: socket.socket) -> None:
    """Whoever answers pings must not wait for the end of a stream that has none."""
    data = fill(carrier)
    spring = Spring(b"x" * MORE_THAN_FITS)
    carrier.pull(spring)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read, peer, len(data))
        with anyio.fail_after(TIMEOUT):
            await carrier.drain()
    carrier.abort()
    assert carrier.gone
    assert carrier.offer(b"nobody hears it")
    carrier.pull(Spring(b"nobody hears it"))


@pytest.fixture
def _long_farewells(monkeypatch: pytest.MonkeyPatch, _short_farewells: None) -> None:
    monkeypatch.setattr(carriers, "_LINGER_TIMEOUT", TIMEOUT)


@pytest.mark.usefixtures("_long_farewells")
async def test_closing_writes_what_is_to_be_pulled(carrier: Carrier, peer: socket.socket) -> None:
    data = fill(carrier)
    carrier.pull(Spring(data, b"one", data, b"two"))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(carrier.aclose)
        assert await read(peer, 3 * len(data) + 7) == data + data + b"one" + data + b"two"
        peer.close()


@pytest.mark.usefixtures("_long_farewells")
async def test_finishing_writes_what_is_to_be_pulled(carrier: Carrier, peer: socket.socket) -> None:
    data = fill(carrier)
    carrier.pull(Spring(data, b"one", data, b"two"))
    carrier.finish()
    assert await read(peer, 3 * len(data) + 7) == data + data + b"one" + data + b"two"
    peer.close()
    assert await carrier.receive() == b""


async def test_others_have_their_turn_while_much_is_pulled(carrier: Carrier, peer: socket.socket) -> None:
    turns = [0]

    def pieces() -> bytes:
        turns[-1] += 1
        return b"x" if sum(turns) <= 1000 else b""

    carrier.pull(pieces)
    with anyio.fail_after(TIMEOUT):
        while not carrier.offer(b""):
            await anyio.lowlevel.checkpoint()
            turns.append(0)
    assert await read(peer, 1000) == b"x" * 1000
    # The other task has two turns before the first has its next, at most.
    assert max(turns) <= 2 * 16


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


# A peer that takes nothing


@pytest.fixture
async def impatient(
    anyio_backend: str, request: pytest.FixtureRequest, pair: tuple[socket.socket, socket.socket], tasks: TaskGroup
) -> AsyncIterator[Carrier]:
    if request.param == "socket":
        made: Carrier = SocketCarrier(pair[0], tasks=tasks, write_timeout=_PATIENCE)
    else:
        made = StreamCarrier(await SocketStream.from_socket(pair[0]), tasks=tasks, write_timeout=_PATIENCE)
    yield made
    made.abort()
    with anyio.CancelScope(shield=True):
        await made.aclose()


both = pytest.mark.parametrize("impatient", ["socket", "stream"], indirect=True)


@both
async def test_draining_gives_up_on_whoever_takes_nothing(impatient: Carrier, peer: socket.socket) -> None:
    fill(impatient)
    with anyio.fail_after(TIMEOUT):
        await impatient.drain()
    assert impatient.gone
    assert await impatient.receive() == b""


@both
async def test_draining_waits_for_whoever_takes_a_little(impatient: Carrier, peer: socket.socket) -> None:
    """As long as it takes, in pieces that come within the time."""
    data = bytes(4 * MORE_THAN_FITS)
    impatient.write(data)
    async with anyio.create_task_group() as group:

        async def read_slowly() -> None:
            left = len(data)
            while left:
                size = min(left, 2**20)
                await read(peer, size)
                left -= size
                await anyio.sleep(0.02)

        group.start_soon(read_slowly)
        await impatient.drain()
        assert not impatient.gone


@both
async def test_whoever_is_not_waited_for_may_take_its_time(impatient: Carrier, peer: socket.socket) -> None:
    data = fill(impatient)
    # Nobody drains: its time is over, and nothing has come of it.
    await anyio.sleep(1.2 * _PATIENCE)
    assert not impatient.gone
    assert await read(peer, len(data)) == data
