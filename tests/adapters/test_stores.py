"""Where files are kept: what a folder and object storage have in common."""

from __future__ import annotations

import hashlib
from contextlib import aclosing
from pathlib import Path

import anyio.lowlevel
import anyio.to_thread
import attrs
import pytest

from rtcore import LocalProtocolError
from rtcore_adapters.stores import open_store
from rtcore_transports.file_store import FileStore, FileStoreError

from .s3 import S3
from .stored import MIB, content, described, keep, listed, names, unavailable

pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("s3")]


@attrs.frozen
class Place:
    """Somewhere to keep files, and its whole content as others see it."""

    store: FileStore
    folder: Path | None = None
    s3: S3 | None = None
    bucket: str = ""

    def left(self) -> list[str]:
        """Return the names of all that is there."""
        if self.folder is not None:
            return names(self.folder)
        assert self.s3 is not None
        assert all(name.startswith("some/where/") for name in self.s3.names(self.bucket))
        return sorted(
            name.rpartition("/")[2] for name in (*self.s3.names(self.bucket), *self.s3.incomplete(self.bucket))
        )


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path, aws: None) -> Place:
    """Return a place where nothing is yet."""
    if request.param == "folder":
        return Place(open_store((tmp_path / "some" / "where").as_uri()), folder=tmp_path)
    server: S3 = request.getfixturevalue("s3")
    bucket = f"bucket-{hashlib.sha256(str(tmp_path).encode()).hexdigest()[:16]}"
    server.make_bucket(bucket)
    return Place(open_store(server.url(bucket, "some/where/")), s3=server, bucket=bucket)


async def test_nothing_is_there_at_first(place: Place) -> None:
    assert await listed(place.store) == []
    assert await place.store.find("0" * 32) is None
    await place.store.delete("0" * 32)
    await place.store.sweep(older_than=0)
    await place.store.aclose()
    assert place.left() == []


async def test_what_is_kept_is_found_and_read(place: Place) -> None:
    text = await keep(place.store, 1, b"hello ", bytearray(b"wor"), memoryview(b"<ld>")[1:3])
    other = described(2, 3, user_id=None, filename=None, channel="$user:Ж", expires_at=5, sha256="f" * 64)
    writer = await place.store.create(other.file_id)
    await writer.write(b"abc")
    await writer.commit(other)
    empty = await keep(place.store, 3, filename='"\\\N{PILE OF POO}.txt')

    for file in (text, other, empty):
        assert await place.store.find(file.file_id) == file
    assert await listed(place.store) == [text, other, empty]
    assert await content(place.store, text) == b"hello world"
    assert await content(place.store, other) == b"abc"
    assert await content(place.store, empty) == b""
    assert await place.store.find("4" * 32) is None


async def test_what_is_given_to_a_writer_may_change_afterwards(place: Place) -> None:
    writer = await place.store.create(f"{1:032x}")
    data = bytearray(b"good")
    await writer.write(data)
    data[:] = b"evil"
    file = described(1, 4)
    await writer.commit(file)
    assert await content(place.store, file) == b"good"


@pytest.mark.parametrize(("start", "stop"), [(0, 0), (0, 1), (4, 9), (10, 11), (11, 11), (3, 11)])
async def test_ranges(place: Place, start: int, stop: int) -> None:
    file = await keep(place.store, 1, b"hello world")
    assert await content(place.store, file, start, stop) == b"hello world"[start:stop]


async def test_a_large_file(place: Place) -> None:
    data = b"".join(hashlib.sha256(number.to_bytes(8, "big")).digest() for number in range(24 * MIB // 32))
    file = await keep(place.store, 1, *(data[start : start + MIB] for start in range(0, len(data), MIB)), b"end")
    data += b"end"
    assert await place.store.find(file.file_id) == file
    assert await content(place.store, file) == data
    for start, stop in ((0, 1), (5 * MIB - 1, 5 * MIB + 1), (MIB // 2, 3 * MIB), (24 * MIB, 24 * MIB + 3)):
        assert await content(place.store, file, start, stop) == data[start:stop]
    assert place.left() == [file.file_id, f"{file.file_id}.json"]


@pytest.mark.parametrize("size", [0, 100, 11 * MIB])
async def test_nothing_is_there_before_the_end_nor_after_an_abort(place: Place, size: int) -> None:
    writer = await place.store.create(f"{1:032x}")
    for start in range(0, size, MIB):
        await writer.write(bytes(min(MIB, size - start)))
    assert await place.store.find(f"{1:032x}") is None
    assert await listed(place.store) == []

    await writer.abort()
    await writer.abort()
    assert place.left() == []


async def test_an_abort_takes_nothing_away_that_is_kept(place: Place) -> None:
    file = described(1, 3)
    writer = await place.store.create(file.file_id)
    await writer.write(b"abc")
    await writer.commit(file)
    await writer.abort()
    assert await content(place.store, file) == b"abc"


async def test_whoever_is_cancelled_leaves_nothing(place: Place) -> None:
    writer = await place.store.create(f"{1:032x}")
    await writer.write(bytes(11 * MIB))
    with anyio.CancelScope() as scope:
        scope.cancel()
        try:
            await anyio.lowlevel.checkpoint()
        finally:
            await writer.abort()
    assert place.left() == []


async def test_deleting(place: Place) -> None:
    first, second = await keep(place.store, 1, b"a"), await keep(place.store, 2, b"b")
    await place.store.delete(first.file_id)
    await place.store.delete(first.file_id)
    assert await listed(place.store) == [second]
    assert await place.store.find(first.file_id) is None
    assert place.left() == [second.file_id, f"{second.file_id}.json"]
    with pytest.raises(FileStoreError) as caught:
        await content(place.store, first)
    assert unavailable(caught.value)


async def test_many_files(place: Place) -> None:
    # So that a page of a listing ends between the two objects of a file.
    await put(place, "-not-ours", b"x")
    files = [await keep(place.store, 251 * number, b"x" * number) for number in range(1, 60)]
    assert await listed(place.store) == sorted(files, key=lambda file: file.file_id)
    await place.store.sweep(older_than=-3600)
    assert len(place.left()) == 1 + 2 * len(files)


async def test_a_reader_may_stop_early(place: Place) -> None:
    file = await keep(place.store, 1, bytes(3 * MIB))
    async with aclosing(place.store.read(file, 0, file.size)) as pieces:  # type: ignore[type-var]
        async for piece in pieces:
            assert 0 < len(piece) < file.size
            break


async def test_a_reader_is_told_of_what_is_missing(place: Place) -> None:
    file = await keep(place.store, 1, bytes(2 * MIB + 1))
    for size in (2 * MIB + 2, 4 * MIB):
        with pytest.raises(FileStoreError) as caught:
            await content(place.store, attrs.evolve(file, size=size))
        assert unavailable(caught.value)


async def test_a_sweep_removes_what_is_old_and_half(place: Place) -> None:
    file = await keep(place.store, 1, b"kept")
    await put(place, f"{2:032x}", b"data without what is known of it")
    await put(place, "not-ours", b"x")
    await place.store.sweep(older_than=3600)
    assert len(place.left()) == 4
    await place.store.sweep(older_than=-3600)
    assert place.left() == [file.file_id, f"{file.file_id}.json", "not-ours"]
    assert await content(place.store, file) == b"kept"
    assert await listed(place.store) == [file]


async def put(place: Place, name: str, data: bytes) -> None:
    """Put something there in another way than through the store."""
    if place.folder is not None:
        folder = place.folder / "some" / "where" / name[:2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    else:
        assert place.s3 is not None
        client, bucket = place.s3.client, place.bucket
        await anyio.to_thread.run_sync(lambda: client.put_object(Bucket=bucket, Key=f"some/where/{name}", Body=data))


@pytest.mark.parametrize("written", [b"", b"{", b"[]", b"{}", b'{"file_id": "x"}', b"\xff"])
async def test_what_is_known_of_a_file_is_what_was_written(place: Place, written: bytes) -> None:
    file = await keep(place.store, 1, b"kept")
    await put(place, f"{2:032x}.json", written)
    await put(place, "not-ours.json", b"{}")
    assert await place.store.find(f"{2:032x}") is None
    assert await listed(place.store) == [file]


async def test_what_is_known_of_one_file_is_not_of_another(place: Place) -> None:
    file = await keep(place.store, 1, b"kept")
    path = place.store.path_of(file)
    if path is not None:
        known = path.with_name(f"{file.file_id}.json").read_bytes()
        await put(place, f"{2:032x}.json", known)
        assert await place.store.find(f"{2:032x}") is None


BAD_IDS = [
    "",
    "x",
    "../" * 10 + "etc/passwd",
    "A" * 32,
    "0" * 31,
    "0" * 33,
    "0" * 31 + "\n",
    "٠" * 32,
    "0" * 32 + "/..",
]


@pytest.mark.parametrize("file_id", BAD_IDS)
async def test_what_can_be_no_id(place: Place, file_id: str) -> None:
    assert await place.store.find(file_id) is None
    await place.store.delete(file_id)
    with pytest.raises(LocalProtocolError):
        await place.store.create(file_id)
    with pytest.raises(LocalProtocolError):
        await content(place.store, described(1, 1, file_id=file_id))
    if place.folder is not None:
        with pytest.raises(LocalProtocolError):
            place.store.path_of(described(1, 1, file_id=file_id))
    assert place.left() == []


async def test_where_a_file_is(place: Place) -> None:
    file = await keep(place.store, 1, b"kept")
    path = place.store.path_of(file)
    if place.folder is None:
        assert path is None
    else:
        assert path is not None
        assert path.read_bytes() == b"kept"
