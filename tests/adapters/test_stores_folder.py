"""Where files are kept: what is only so of a folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rtcore_adapters.stores import FolderStore
from rtcore_transports.file_store import FileStoreError, FileWriter

from .stored import content, described, keep, listed, names, unavailable

pytestmark = pytest.mark.anyio


@pytest.fixture
def folder(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "files")


async def test_nobody_else_may_read_a_folder(folder: FolderStore, tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        await keep(folder, 1, b"secret")
        writer = await folder.create(f"{2:032x}")
        found = {path.relative_to(tmp_path): path.stat().st_mode & 0o777 for path in (tmp_path / "files").rglob("*")}
        assert (tmp_path / "files").stat().st_mode & 0o777 == 0o700
        assert {mode for path, mode in found.items() if (tmp_path / path).is_dir()} == {0o700}
        assert [mode for path, mode in found.items() if (tmp_path / path).is_file()] == [0o600] * 3
        await writer.abort()
    finally:
        os.umask(old)


async def test_a_full_disk(folder: FolderStore, tmp_path: Path) -> None:
    kept = await keep(folder, 1, b"kept")
    writer = await folder.create(f"{2:032x}")
    await writer.write(b"fits")
    fill_up(tmp_path, writer)
    with pytest.raises(FileStoreError) as caught:
        await writer.write(b"does not")
    assert (caught.value.refusal.code, caught.value.refusal.status) == ("store_full", 507)
    assert "try again later" in str(caught.value)
    await writer.abort()
    assert await listed(folder) == [kept]
    assert names(tmp_path) == [
        kept.file_id,
        f"{kept.file_id}.json",
    ]


def fill_up(folder: Path, writer: FileWriter) -> None:
    """Put the disk on which there never is any room, ``/dev/full``, under what a writer has open."""
    [descriptor] = [int(link.name) for link in Path("/proc/self/fd").iterdir() if is_partial(link, folder)]
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, descriptor)
    os.close(full)


def is_partial(link: Path, folder: Path) -> bool:
    try:
        target = link.readlink()
    except OSError:
        return False
    return target.suffix == ".part" and target.is_relative_to(folder)


async def test_a_folder_that_fails(folder: FolderStore, tmp_path: Path) -> None:
    file = await keep(folder, 1, b"kept")
    writer = await folder.create(f"{2:032x}")
    await writer.write(b"abc")
    (tmp_path / "files").rename(tmp_path / "elsewhere")
    (tmp_path / "files").write_text("in the way")
    for failing in (folder.create(f"{3:032x}"), writer.commit(described(2, 3)), content(folder, file)):
        with pytest.raises(FileStoreError) as caught:
            await failing
        assert unavailable(caught.value)
        assert isinstance(caught.value.__cause__, OSError)
    await writer.abort()


async def test_a_commit_that_fails_leaves_nothing(folder: FolderStore, tmp_path: Path) -> None:
    file = described(2, 3)
    writer = await folder.create(file.file_id)
    await writer.write(b"abc")
    in_the_way = tmp_path / "files" / "00" / f"{file.file_id}.json"
    in_the_way.mkdir()
    (in_the_way / "x").touch()
    with pytest.raises(FileStoreError):
        await writer.commit(file)
    await writer.abort()
    assert names(tmp_path) == ["x"]


async def test_a_sweep_removes_what_is_partial(folder: FolderStore, tmp_path: Path) -> None:
    file = await keep(folder, 1, b"kept")
    await folder.create(f"{2:032x}")
    await folder.create(f"{3:032x}")
    old = tmp_path / "files" / "00" / f"{3:032x}.part"
    half = tmp_path / "files" / "00" / f"{4:032x}.json.part"
    half.touch()
    for path in (old, half, tmp_path / "files" / "00" / file.file_id):
        os.utime(path, (0, 0))
    await folder.sweep(older_than=3600)
    assert names(tmp_path) == [
        file.file_id,
        f"{file.file_id}.json",
        f"{2:032x}.part",
    ]


async def test_what_a_power_cut_has_left_is_no_file(folder: FolderStore, tmp_path: Path) -> None:
    """The system may have put on the disk what is known of it, and not yet all that is in it."""
    file, whole = await keep(folder, 1, b"all of it"), await keep(folder, 2, b"whole")
    path = tmp_path / "files" / "00" / file.file_id
    for left in (b"all of", b""):
        path.write_bytes(left)
        assert await folder.find(file.file_id) is None
        assert await listed(folder) == [whole]
    for each in (path, path.with_name(f"{path.name}.json")):
        os.utime(each, (0, 0))
    await folder.sweep(older_than=3600)
    assert names(tmp_path) == [whole.file_id, f"{whole.file_id}.json"]


async def test_a_slow_commit_is_not_swept_away(folder: FolderStore, tmp_path: Path) -> None:
    file = described(1, 3)
    writer = await folder.create(file.file_id)
    await writer.write(b"abc")
    path = tmp_path / "files" / "00" / file.file_id
    os.utime(path.with_name(f"{path.name}.part"), (0, 0))
    await writer.commit(file)
    path.with_name(f"{path.name}.json").unlink()
    await folder.sweep(older_than=3600)
    assert path.exists()


async def test_no_link_is_followed(folder: FolderStore, tmp_path: Path) -> None:
    file = await keep(folder, 1, b"kept")
    secret = tmp_path / "secret"
    secret.write_text("secret")
    path = tmp_path / "files" / "00" / file.file_id
    path.unlink()
    path.symlink_to(secret)
    with pytest.raises(FileStoreError):
        await content(folder, file)
