"""Files that are kept: checked as they come, counted, read, and removed when their time is over."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Final

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtcore import LocalProtocolError, Refusal
from rtcore.uploads import FileConfig, KeptFile
from rtcore_transports import Files, FilesConfig, FileStoreError, Incoming, StoredFile
from rtcore_transports.file_usage import Usage

from .servers import patiently
from .stores import DiskStore

pytestmark = pytest.mark.anyio

LARGE: Final = bytes(range(256)) * 2048  # 512 KiB
DOWN: Final = Refusal("store_unavailable", "it is down", status=503)


class WallClock:
    """Nanoseconds since 1970, of one's own choice."""

    def __init__(self) -> None:
        self.milliseconds = 1_700_000_000_000

    def __call__(self) -> int:
        return self.milliseconds * 1_000_000


@pytest.fixture
def store(tmp_path: Path) -> DiskStore:
    return DiskStore(tmp_path)


@pytest.fixture
def wall_clock() -> WallClock:
    return WallClock()


def files_in(store: DiskStore, wall_clock: WallClock | None = None, **limits: object) -> Files:
    return Files(store, FilesConfig(piece_size=2**17, **limits), wall_clock=wall_clock or WallClock())  # type: ignore[arg-type]


async def begin(files: Files, size: int | None = None, content_type: str = "text/plain") -> Incoming:
    return await files.create(channel="room", user_id="ann", filename="a.txt", content_type=content_type, size=size)


async def keep(files: Files, data: bytes, size: int | None = None) -> KeptFile:
    incoming = await begin(files, size)
    await incoming.write(data)
    return await incoming.finish()


async def content(files: Files, file: StoredFile, start: int = 0, stop: int | None = None) -> bytes:
    return b"".join([piece async for piece in files.read(file, start, stop)])


def code_of(caught: pytest.ExceptionInfo[FileStoreError]) -> tuple[str, int]:
    return caught.value.refusal.code, caught.value.refusal.status


# Coming in


async def test_a_small_file(store: DiskStore, wall_clock: WallClock) -> None:
    """It is kept, and in its message as well."""
    files = files_in(store, wall_clock, ttl=60.0)
    incoming = await begin(files)
    for piece in (b"he", bytearray(b"l"), memoryview(b"lo")):
        await incoming.write(piece)
    assert (incoming.size, store.names) == (5, [])
    kept = await incoming.finish()
    digest = hashlib.sha256(b"hello").hexdigest()
    assert kept == KeptFile(kept.file_id, f"/realtime/binary/{kept.file_id}", 5, digest, b"hello")
    assert await files.find(kept.file_id) == StoredFile(
        kept.file_id, "room", "ann", "a.txt", "text/plain", 5, digest, 1_700_000_000_000, 1_700_000_060_000
    )
    assert len(kept.file_id) == 32
    assert files.stats() == {"files": 1, "file_bytes": 5}


async def test_a_large_file(store: DiskStore) -> None:
    """What comes in small pieces is written in large ones, and is too large for a message."""
    files = files_in(store, ttl=None)
    files.base = "/chat/realtime"
    incoming = await begin(files, len(LARGE))
    for start in range(0, len(LARGE), 1000):
        await incoming.write(LARGE[start : start + 1000])
    kept = await incoming.finish(hashlib.sha256(LARGE).hexdigest())
    assert (kept.url, kept.data) == (f"/chat/realtime/binary/{kept.file_id}", None)
    file = await files.find(kept.file_id)
    assert file is not None
    assert (file.size, file.expires_at) == (len(LARGE), None)
    assert await content(files, file) == LARGE
    assert await content(files, file, 1000, 300_000) == LARGE[1000:300_000]
    assert min(store.writes[:-1]) > 2**17
    path = files.path_of(file)
    assert path is not None
    assert path.read_bytes() == LARGE


async def test_an_empty_file(store: DiskStore) -> None:
    files = files_in(store)
    kept = await (await begin(files, 0)).finish()
    file = await files.find(kept.file_id)
    assert file is not None
    assert (kept.data, kept.sha256, file.size, await content(files, file)) == (
        b"",
        hashlib.sha256().hexdigest(),
        0,
        b"",
    )


async def test_what_was_given_may_change_afterwards(store: DiskStore) -> None:
    files = files_in(store)
    incoming = await begin(files)
    buffer = bytearray(b"one")
    await incoming.write(buffer)
    buffer[:] = b"two"
    assert (await incoming.finish()).data == b"one"


@pytest.mark.parametrize(("limit", "expected"), [(0, None), (4, None), (5, b"hello"), (2**20, b"hello")])
async def test_how_much_is_in_the_message(store: DiskStore, limit: int, expected: bytes | None) -> None:
    assert (await keep(files_in(store, inline_max_size=limit), b"hello")).data == expected


async def test_more_in_the_message_than_is_gathered(store: DiskStore) -> None:
    files = files_in(store, inline_max_size=len(LARGE))
    assert (await keep(files, LARGE)).data == LARGE
    assert (await keep(files, LARGE + b"!")).data is None


async def test_giving_up(store: DiskStore) -> None:
    files = files_in(store, quota=2 * len(LARGE))
    incoming = await begin(files, len(LARGE) + 1)
    await incoming.write(LARGE)
    assert len(store.names) == 1
    await incoming.abort()
    await incoming.abort()
    assert store.names == []
    assert files.stats() == {"files": 0, "file_bytes": 0}
    with pytest.raises(LocalProtocolError):
        await incoming.write(b"more")
    with pytest.raises(LocalProtocolError):
        await incoming.finish()
    # The room that was set aside is free again.
    await keep(files, LARGE, len(LARGE))


async def test_giving_up_what_is_kept_changes_nothing(store: DiskStore) -> None:
    files = files_in(store)
    incoming = await begin(files)
    kept = await incoming.finish()
    await incoming.abort()
    assert await files.find(kept.file_id) is not None


# What is refused


async def test_a_file_that_is_too_large(store: DiskStore) -> None:
    files = files_in(store, file=FileConfig(max_file_size=10))
    with pytest.raises(FileStoreError) as caught:
        await begin(files, 11)
    assert code_of(caught) == ("file_too_large", 413)
    incoming = await begin(files)
    await incoming.write(b"0123456789")
    with pytest.raises(FileStoreError, match="at most 10 bytes") as caught:
        await incoming.write(b"a")
    assert code_of(caught) == ("file_too_large", 413)
    await incoming.abort()
    assert store.names == []


async def test_another_size_than_was_said(store: DiskStore) -> None:
    files = files_in(store)
    incoming = await begin(files, 3)
    await incoming.write(b"ab")
    with pytest.raises(FileStoreError) as caught:
        await incoming.write(b"cd")
    assert code_of(caught) == ("too_long", 413)
    await incoming.abort()
    incoming = await begin(files, 3)
    await incoming.write(b"ab")
    with pytest.raises(FileStoreError) as caught:
        await incoming.finish()
    assert code_of(caught) == ("incomplete", 400)
    await incoming.abort()
    assert store.names == []


@pytest.mark.parametrize("data", [b"hello", LARGE], ids=["small", "large"])
async def test_another_content_than_was_sent(store: DiskStore, data: bytes) -> None:
    files = files_in(store)
    incoming = await begin(files)
    await incoming.write(data)
    with pytest.raises(FileStoreError) as caught:
        await incoming.finish("0" * 64)
    assert code_of(caught) == ("checksum_mismatch", 422)
    await incoming.abort()
    assert store.names == []


@pytest.mark.parametrize("pieces", [[b"<html>"], [b"<ht", b"ml", b">" + LARGE]], ids=["whole", "pieces"])
async def test_a_content_that_is_not_what_it_is_called(store: DiskStore, pieces: list[bytes]) -> None:
    """It is looked at once, as soon as there is enough of it, and before anything is stored."""
    looked: list[tuple[str, bytes]] = []

    def inspect(content_type: str, head: bytes) -> Refusal | None:
        looked.append((content_type, head))
        return Refusal("content_mismatch", "this is HTML", status=415) if head == b"<html>" else None

    files = files_in(store, file=FileConfig(inspect=inspect, head_size=6))
    incoming = await begin(files, content_type="image/png")
    for piece in pieces[:-1]:
        await incoming.write(piece)
    with pytest.raises(FileStoreError) as caught:
        await incoming.write(pieces[-1])
    assert code_of(caught) == ("content_mismatch", 415)
    await incoming.abort()
    assert (looked, store.names) == ([("image/png", b"<html>")], [])


async def test_a_content_that_is_shorter_than_what_is_looked_at(store: DiskStore) -> None:
    looked: list[bytes] = []
    config = FileConfig(inspect=lambda content_type, head: looked.append(head), head_size=100)
    kept = await keep(files_in(store, file=config), b"short")
    assert (looked, kept.data) == ([b"short"], b"short")


async def test_a_store_that_fails(store: DiskStore) -> None:
    files = files_in(store)
    incoming = await begin(files)
    store.fault = DOWN
    with pytest.raises(FileStoreError) as caught:
        await incoming.write(LARGE)
    assert code_of(caught) == ("store_unavailable", 503)
    await incoming.abort()
    with pytest.raises(FileStoreError):
        await keep(files, b"")
    store.fault = None
    incoming = await begin(files)
    await incoming.write(LARGE)
    store.fault = DOWN
    with pytest.raises(FileStoreError):
        await incoming.finish()
    await incoming.abort()
    assert store.names == []


async def test_whoever_is_cancelled_leaves_nothing(store: DiskStore) -> None:
    files = files_in(store, quota=len(LARGE))
    store.shut()
    with anyio.CancelScope() as scope:
        incoming = await begin(files, len(LARGE))
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_cancel_when_waiting, store, scope)
                await incoming.write(LARGE)
        finally:
            await incoming.abort()
    assert (scope.cancelled_caught, store.names) == (True, [])
    await keep(files, LARGE, len(LARGE))


async def test_cancelled_while_it_is_being_kept(store: DiskStore) -> None:
    """Then it is, and whoever is cancelled has been told."""
    files = files_in(store)
    kept: list[KeptFile] = []
    with anyio.CancelScope() as scope:
        incoming = await begin(files)
        await incoming.write(LARGE)
        store.shut()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_cancel_when_waiting, store, scope)
            kept.append(await incoming.finish())
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert await files.find(kept[0].file_id) is not None


async def _cancel_when_waiting(store: DiskStore, scope: anyio.CancelScope) -> None:
    await patiently(lambda: store.waiting)
    scope.cancel()
    store.gate.set()


# How much there may be


async def test_a_quota(store: DiskStore, wall_clock: WallClock) -> None:
    first = files_in(store, wall_clock, ttl=60.0)
    await keep(first, b"x" * 40)
    # What was there before counts, whoever has put it there.
    files = files_in(store, wall_clock, quota=100)
    # What was only announced takes no room.
    await begin(files, 60)
    coming = await begin(files, 40)
    await coming.write(b"x" * 40)
    assert files.stats() == {"files": 1, "file_bytes": 40}
    with pytest.raises(FileStoreError, match="at most 100 bytes in all") as caught:
        await begin(files, 21)
    assert code_of(caught) == ("store_full", 507)
    unknown = await begin(files)
    await unknown.write(b"x" * 20)
    with pytest.raises(FileStoreError) as caught:
        await unknown.write(b"x")
    assert code_of(caught) == ("store_full", 507)
    await unknown.abort()
    await coming.finish()
    assert files.stats() == {"files": 2, "file_bytes": 80}
    wall_clock.milliseconds += 60_000
    await files.sweep()
    assert files.stats() == {"files": 1, "file_bytes": 40}
    await keep(files, b"x" * 60, 60)


async def test_a_quota_needs_a_store_that_tells_what_it_holds(store: DiskStore) -> None:
    files = files_in(store, quota=100)
    store.fault = DOWN
    with pytest.raises(FileStoreError):
        await begin(files, 1)
    store.fault = None
    await keep(files, b"x", 1)


async def test_what_comes_and_goes_while_it_is_counted(store: DiskStore, tmp_path: Path) -> None:
    """Several at once wait for the same count."""
    first = files_in(store)
    for size in (1, 2):
        await keep(first, b"x" * size)
    files = files_in(store, quota=1000)
    store.shut()
    async with anyio.create_task_group() as tasks:
        for size in (10, 20, 30):
            tasks.start_soon(keep, files, b"x" * size, size)
        await anyio.wait_all_tasks_blocked()
        store.gate.set()
    assert files.stats() == {"files": 5, "file_bytes": 63}
    # Whoever counts may be gone before it is done: then another does.
    files = files_in(store, quota=1000)
    store.shut()
    async with anyio.create_task_group() as tasks:
        with anyio.CancelScope() as scope:
            tasks.start_soon(keep, files, b"x" * 40, 40)
            async with anyio.create_task_group() as inner:
                inner.start_soon(keep, files, b"x" * 50, 50)
                await anyio.wait_all_tasks_blocked()
                scope.cancel()
        store.gate.set()
    assert files.stats()["file_bytes"] == 103


# What is there


async def test_removing(store: DiskStore) -> None:
    files = files_in(store)
    kept = await keep(files, b"hello")
    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(files.delete, kept.file_id)
    await files.delete(kept.file_id)
    assert await files.find(kept.file_id) is None
    assert (store.names, files.stats()) == ([], {"files": 0, "file_bytes": 0})


async def test_time_is_over(store: DiskStore, wall_clock: WallClock) -> None:
    """It is gone at once for who asks for it, and from the store with the next sweep; so is what was left behind."""
    files = files_in(store, wall_clock, ttl=60.0, file=FileConfig(resume_timeout=100_000.0))
    kept = await keep(files, b"hello")
    wall_clock.milliseconds += 1
    younger = await keep(files, b"world")
    wall_clock.milliseconds += 59_998
    assert await files.find(kept.file_id) is not None
    wall_clock.milliseconds += 1
    assert await files.find(kept.file_id) is None
    assert len(store.names) == 4
    await files.sweep()
    assert sorted(store.names) == sorted([younger.file_id, f"{younger.file_id}.json"])
    assert store.swept == [200_000.0]


async def test_sweeping_goes_on(store: DiskStore, wall_clock: WallClock, caplog: pytest.LogCaptureFixture) -> None:
    """Every few minutes, once however many run it, and though the store fails at times."""
    times = [0.0]
    files = Files(store, FilesConfig(ttl=60.0), clock=lambda: times[0], wall_clock=wall_clock)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(files.run)
        tasks.start_soon(files.run)
        await patiently(lambda: store.swept)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert len(store.swept) == 1
    store.fault = DOWN
    times[0] = 300.0
    with caplog.at_level(logging.WARNING, "rtcore.files"):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(files.run)
            await patiently(lambda: caplog.records)
            tasks.cancel_scope.cancel()
    assert "it is down" in caplog.text
    await files.aclose()
    assert store.closed


# Counting


@given(st.data())
def test_a_count_is_right_whatever_happens_meanwhile(data: st.DataObject) -> None:
    """What a listing shows of files that come and go meanwhile does not matter."""
    usage = Usage(None)
    there: dict[str, int] = {}
    coming: dict[str, int] = {}
    # In the store already, though nobody has been told that they are kept.
    committed: set[str] = set()
    seen: set[str] = set()

    def see(name: str, size: int) -> None:
        seen.add(name)
        usage.see(StoredFile(name, "c", None, None, "t/t", size, "", 0, None))

    def keep(name: str) -> None:
        committed.discard(name)
        there[name] = coming.pop(name)
        usage.keep(name, there[name])

    def step(number: int) -> None:
        kind = data.draw(st.sampled_from(["begin", "commit", "keep", "release", "remove", "see"]))
        if kind == "begin":
            name = str(number)
            coming[name] = data.draw(st.integers(0, 9))
            usage.begin(name)
            assert usage.reserve(name, coming[name]) is None
        elif kind == "commit" and coming:
            committed.add(data.draw(st.sampled_from(sorted(coming))))
        elif kind == "keep" and coming:
            keep(data.draw(st.sampled_from(sorted(coming))))
        elif kind == "release" and coming.keys() - committed:
            name = data.draw(st.sampled_from(sorted(coming.keys() - committed)))
            del coming[name]
            usage.release(name)
        elif kind == "remove" and there.keys() - seen:
            name = data.draw(st.sampled_from(sorted(there.keys() - seen)))
            usage.remove(name, there.pop(name))
        elif kind == "see" and (unseen := sorted((there.keys() | committed) - seen)):
            name = data.draw(st.sampled_from(unseen))
            see(name, {**there, **coming}[name])

    for number in range(data.draw(st.integers(0, 6))):
        step(number)
    usage.begin_count()
    seen.clear()
    for number in range(10, 10 + data.draw(st.integers(0, 10))):
        step(number)
    for name in sorted((there.keys() | committed) - seen):
        see(name, {**there, **coming}[name])
    usage.end_count(complete=True)
    assert usage.counted
    for name in sorted(committed):
        keep(name)
    assert (usage.files, usage.bytes) == (len(there), sum(there.values()))
