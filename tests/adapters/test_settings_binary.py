"""Settings of files: their values, where files are kept, and what of it concerns whom."""

from __future__ import annotations

import importlib.machinery
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtcore import RouterConfig
from rtcore.uploads import FileConfig
from rtcore_adapters.content import inspect
from rtcore_adapters.settings import (
    BinarySettings,
    RealtimeSettings,
    Settings,
    SettingsError,
    WebSocketSettings,
    endpoint_config,
    files_config,
    load_settings,
    node_config,
    open_files,
)
from rtcore_adapters.stores import FolderStore, StoreUrlError, default_folder, open_store
from rtcore_adapters.stores.objects import ObjectStore
from rtcore_adapters.stores.urls import FolderUrl, ObjectsUrl, read_store_url
from rtcore_transports.file_store import StoredFile
from rtcore_transports.files_config import FilesConfig


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, so that no file of the developer's has a say."""
    monkeypatch.chdir(tmp_path)


def fault(name: str, value: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings(env={name: value})
    line = str(caught.value)
    assert line.isprintable()
    return line


BYTES = "a whole number from 1 to 1125899906842624 (bytes)"
MESSAGE = "to 1073741824 (bytes)"
TYPES = "media types such as */*, image/* or application/pdf, with commas between them"
URL = (
    "a URL such as file:///srv/files or s3://bucket/prefix?endpoint=https://s3.example.org&region=eu, "
    "without a user, or nothing for rtcore/files in $XDG_DATA_HOME or ~/.local/share"
)


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("BINARY_DATA_ENABLED", "maybe", "true or false (also 1 or 0, yes or no, on or off)"),
        ("BINARY_MAX_FILE_SIZE", "0", BYTES),
        ("BINARY_MAX_FILE_SIZE", "1GB", BYTES),
        ("BINARY_MAX_FILE_SIZE", "", BYTES),
        ("BINARY_QUOTA", "0", f"{BYTES}, or nothing for no limit"),
        ("BINARY_INLINE_MAX_SIZE", "-1", f"a whole number from 0 {MESSAGE}"),
        ("BINARY_FILE_TTL", "-1", "a number from 0 to 3162240000 (seconds)"),
        ("BINARY_RESUME_TIMEOUT", "86401", "a number from 0 to 86400 (seconds)"),
        ("WEBSOCKET_BINARY_MAX_SIZE", "0", f"a whole number from 1 {MESSAGE}"),
        ("BINARY_ALLOWED_TYPES", "", TYPES),
        ("BINARY_ALLOWED_TYPES", "image", TYPES),
        ("BINARY_ALLOWED_TYPES", "image/p*", TYPES),
        ("BINARY_ALLOWED_TYPES", "*/png", TYPES),
        ("BINARY_ALLOWED_TYPES", "image/png; q=1", TYPES),
        ("BINARY_STORE_URL", "/srv/files", URL),
        ("BINARY_STORE_URL", "s3://", URL),
    ],
)
def test_a_wrong_value(name: str, value: str, allowed: str) -> None:
    assert fault(name, value).startswith(f"{name} is {value!r}; allowed: {allowed}")


def test_ways_to_write_the_types() -> None:
    for written in ("Image/*, application/PDF", '["image/*", "application/pdf"]', "image/* application/pdf,"):
        loaded = load_settings(env={"BINARY_ALLOWED_TYPES": written})
        assert loaded.binary.allowed_types == ("image/*", "application/pdf")
    assert BinarySettings(allowed_types=("TEXT/Plain",)).allowed_types == ("text/plain",)
    for wrong in ((), ("image",), "image/png", (5,), None):
        with pytest.raises((TypeError, ValueError), match="allowed_types"):
            BinarySettings(allowed_types=wrong)  # type: ignore[arg-type]


def test_an_empty_variable_takes_away() -> None:
    loaded = load_settings(env={"BINARY_QUOTA": "", "BINARY_STORE_URL": ""}).binary
    assert (loaded.quota, loaded.store_url) == (None, None)


# Where files are kept


@pytest.mark.parametrize(
    ("url", "where"),
    [
        ("file:///srv/files", FolderUrl(Path("/srv/files"))),
        ("file://localhost/srv/a%20b/", FolderUrl(Path("/srv/a b"))),
        ("file:///", FolderUrl(Path("/"))),
        ("s3://files", ObjectsUrl("files", "")),
        ("s3://files/", ObjectsUrl("files", "")),
        ("s3://my.files-1/a/b_c/", ObjectsUrl("my.files-1", "a/b_c")),
        (
            "s3://files/a?region=eu-central-1&endpoint=http://127.0.0.1:9000/",
            ObjectsUrl("files", "a", "http://127.0.0.1:9000", "eu-central-1"),
        ),
        ("s3://files?endpoint=https%3A%2F%2Fs3.example.org", ObjectsUrl("files", "", "https://s3.example.org")),
    ],
)
def test_urls(url: str, where: FolderUrl | ObjectsUrl) -> None:
    assert read_store_url(url) == where
    assert load_settings(env={"BINARY_STORE_URL": url}).binary.store_url == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "files",
        "http://example.org/",
        "memory://",
        "gs://files",
        "file:",
        "file://srv/files",
        "file:relative",
        "file:///a?b",
        "file:///a#b",
        "file:///a b",
        "file:///a%0Ab",
        "file:///%ff",
        "file://[",
        "s3://",
        "s3:///a",
        "s3://Files",
        "s3://a_b",
        "s3://ab",
        "s3://files:80",
        "s3://files/a//b",
        "s3://files/a/../b",
        "s3://files/a%2Fb",
        "s3://files?region",
        "s3://files?region=",
        "s3://files?region=a/b",
        "s3://files?region=a&region=b",
        "s3://files?zone=a",
        "s3://files?endpoint=s3.example.org",
        "s3://files?endpoint=ftp://a",
        "s3://files?endpoint=https://",
        "s3://files?endpoint=https://a/b",
        "s3://files?endpoint=https://a:99999",
        "s3://files?endpoint=https://a:0",
        "s3://files?endpoint=https://[",
    ],
)
def test_what_are_no_urls(url: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        read_store_url(url)
    with pytest.raises(StoreUrlError) as caught:
        open_store(url)
    assert str(caught.value).isprintable()
    with pytest.raises(ValueError, match="store_url"):
        BinarySettings(store_url=url)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("s3://key:hush@files", "s3://…@files"),
        ("s3://files?secret=hush", "s3://files?…"),
        ("s3://files?region=eu&aws_secret_access_key=hush", "s3://files?region=eu&…"),
        ("s3://files?endpoint=https://key:hu/sh@a", "s3://…@a"),
        ("file://hush@/a", "file://…@/a"),
    ],
)
def test_no_secret_is_shown(url: str, shown: str) -> None:
    assert fault("BINARY_STORE_URL", url) == f"BINARY_STORE_URL is {shown!r}; allowed: {URL}"
    with pytest.raises(StoreUrlError) as caught:
        open_store(url)
    assert "hush" not in str(caught.value)


@given(st.text() | st.text().map("s3://files?{}".format) | st.text().map("file:///{}".format))
def test_any_text_is_a_url_or_one_line(url: str) -> None:
    said = "BINARY_STORE_URL is "
    try:
        load_settings(env={"BINARY_STORE_URL": url})
    except SettingsError as error:
        said = str(error)
    assert said.isprintable()
    assert said.startswith("BINARY_STORE_URL is ")


def test_how_large_files_of_object_storage_are() -> None:
    env = {"BINARY_STORE_URL": "s3://files", "BINARY_MAX_FILE_SIZE": "52428800000"}
    assert load_settings(env=env).binary.max_file_size == 52_428_800_000
    with pytest.raises(SettingsError) as caught:
        load_settings(env={**env, "BINARY_MAX_FILE_SIZE": "52428800001"})
    assert str(caught.value) == ("BINARY_MAX_FILE_SIZE is 52428800001; allowed: at most 52428800000 with s3://")
    assert load_settings(env={"BINARY_MAX_FILE_SIZE": "52428800001"}).binary.max_file_size == 52_428_800_001


@pytest.mark.parametrize(
    ("env", "folder"),
    [
        ({"XDG_DATA_HOME": "/data"}, "/data/rtcore/files"),
        ({"XDG_DATA_HOME": "data", "HOME": "/home/ann"}, "/home/ann/.local/share/rtcore/files"),
        ({"XDG_DATA_HOME": "", "HOME": "/home/ann"}, "/home/ann/.local/share/rtcore/files"),
        ({"HOME": "/home/ann"}, "/home/ann/.local/share/rtcore/files"),
    ],
)
def test_the_folder_where_none_is_set(env: dict[str, str], folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert default_folder() == Path(folder)


def test_opening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_files(Settings(binary=BinarySettings(data_enabled=False))) is None

    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    for url, folder in ((None, tmp_path / "data" / "rtcore" / "files"), ((tmp_path / "x").as_uri(), tmp_path / "x")):
        settings = Settings(realtime=RealtimeSettings(prefix="/rt"), binary=BinarySettings(store_url=url))
        files = open_files(settings)
        assert files is not None
        assert (files.config, files.base) == (files_config(settings), "/rt")
        assert isinstance(files.store, FolderStore)
        found = files.store.path_of(StoredFile("0" * 32, "a", None, None, "a/b", 0, "", 0, None))
        assert found == folder / "00" / ("0" * 32)
    # They are made at the first file.
    assert list(tmp_path.iterdir()) == []

    files = open_files(Settings(binary=BinarySettings(store_url="s3://files")))
    assert files is not None
    assert isinstance(files.store, ObjectStore)


def test_object_storage_without_obstore(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.machinery.PathFinder.find_spec

    def none_of_obstore(name: str, *rest: object) -> object:
        return None if name == "obstore" else find_spec(name, *rest)  # type: ignore[arg-type]

    monkeypatch.delitem(sys.modules, "obstore", raising=False)
    monkeypatch.setattr(importlib.machinery.PathFinder, "find_spec", none_of_obstore)
    with pytest.raises(SettingsError) as caught:
        open_files(Settings(binary=BinarySettings(store_url="s3://files")))
    assert str(caught.value) == (
        "BINARY_STORE_URL cannot be used: object storage needs obstore: pip install 'rtcore[s3]'"
    )


def test_an_environment_that_makes_no_sense(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "perhaps")
    with pytest.raises(SettingsError, match=r"^BINARY_STORE_URL cannot be used: .*perhaps"):
        open_files(Settings(binary=BinarySettings(store_url="s3://files")))


# What of it concerns whom


def test_what_the_keeper_gets() -> None:
    assert files_config(Settings()) == FilesConfig(
        file=FileConfig(inspect=inspect), inline_max_size=65_536, ttl=604_800.0, quota=10_737_418_240, base="/realtime"
    )
    assert files_config(Settings(binary=BinarySettings(data_enabled=False))) is None
    chosen = Settings(
        realtime=RealtimeSettings(prefix=""),
        websocket=WebSocketSettings(binary_max_size=1000),
        binary=BinarySettings(
            max_file_size=5000,
            allowed_types=("image/*",),
            inline_max_size=200,
            file_ttl=0.0,
            quota=None,
            check_content=False,
            resume_timeout=7.5,
        ),
    )
    file = FileConfig(
        max_binary_size=1000, max_file_size=5000, allowed_types=("image/*",), inspect=None, resume_timeout=7.5
    )
    assert files_config(chosen) == FilesConfig(file=file, inline_max_size=200, ttl=None, quota=None, base="")
    assert node_config(chosen).files == file


def test_no_file_is_larger_than_any_and_none_goes_out_that_may_not_come_in() -> None:
    small = files_config(Settings(binary=BinarySettings(max_file_size=100)))
    assert small is not None
    assert (small.file.max_binary_size, small.file.max_file_size, small.inline_max_size) == (100, 100, 100)


@pytest.mark.parametrize(
    ("message", "binary", "frame", "largest"),
    [
        (2**20, 2**20, 2**20 + 2**16, 2**20 + 2**16),
        (2**22, 2**20, 2**20 + 2**16, 2**22),
        (100, 100, 2**16 + 2**16, 2**16 + 2**16),
        (100, 2**24, 2**24 + 2**16, 2**24 + 2**16),
    ],
)
def test_the_largest_messages_have_room(message: int, binary: int, frame: int, largest: int) -> None:
    settings = Settings(websocket=WebSocketSettings(max_message_size=message, binary_max_size=binary))
    endpoint = endpoint_config(settings)
    assert (endpoint.websocket.max_message_size, endpoint.websocket.max_binary_size) == (message, frame)
    assert endpoint.max_backlog == 4 * largest
    assert node_config(settings).router == RouterConfig(max_replay_bytes=8 * largest)


def test_without_files_binary_frames_have_no_room_of_their_own() -> None:
    endpoint = endpoint_config(Settings(binary=BinarySettings(data_enabled=False)))
    assert endpoint.websocket.max_binary_size is None
    assert endpoint.max_backlog == 2**22
