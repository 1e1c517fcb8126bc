"""Files that come over HTTP, on every host: what becomes of them, and who hears of it."""

from __future__ import annotations

import hashlib
import random
from base64 import b64decode
from collections.abc import Iterator

import httpx2
import pytest

from rtcore import Message, Refusal
from rtcore.permissions import Identity

from .binary_hosts import INLINE, PNG, Binary, binary_host, hear_file
from .hosting import HOSTS, HostKind


@pytest.fixture(scope="module", params=HOSTS, ids=str)
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Binary]:
    kind: HostKind = request.param
    with binary_host(kind, tmp_path_factory.mktemp("files")) as running:
        yield running


@pytest.fixture
def binary(running: Binary) -> Binary:
    """Return a host to which nobody is connected."""
    running.host.wait_until_empty()
    return running


def content(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def test_a_file_is_published_and_kept(binary: Binary) -> None:
    data = content(5 * INLINE)
    with binary.host.client("channel=news") as client, binary.host.stream("channel=news") as stream:
        [file] = binary.upload(("cat.bin", data, "application/x-cat"), channel="news")
        head, inline = hear_file(client)
        event = stream.hear_type("binary")
    meta = head.pop("meta")
    assert isinstance(meta, dict)
    assert meta["sender"] == {"connection_id": None, "user_id": None}
    assert file == {
        "file_id": file["file_id"],
        "url": f"{binary.host.prefix}/binary/{file['file_id']}",
        "size": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "content_type": "application/x-cat",
        "filename": "cat.bin",
        "channel": "news",
        "id": meta["id"],
        "offset": meta["offset"],
        "epoch": meta["epoch"],
    }
    receipt = ("id", "offset", "epoch")
    assert head == {"type": "binary", **{name: value for name, value in file.items() if name not in receipt}}
    assert inline is None
    assert event == {**head, "meta": meta, "$event": "binary_data"}
    assert binary.get(file).content == data


def test_a_small_file_is_in_its_message_as_well(binary: Binary) -> None:
    data = content(INLINE)
    with (
        binary.host.client("channel=news") as client,
        binary.host.client("channel=news&binary=base64") as plain,
        binary.host.stream("channel=news") as stream,
    ):
        [file] = binary.upload(("cat.bin", data, "application/x-cat"), channel="news")
        head, inline = hear_file(client)
        assert inline == data
        assert (head["url"], head["size"]) == (file["url"], INLINE)
        for message in (plain.hear_type("binary"), stream.hear_type("binary")):
            assert b64decode(message.pop("binary_data")) == data
            message.pop("$event", None)
            assert message == head
    assert binary.get(file).content == data


def test_several_files_in_order_before_it_is_told_where_they_go(binary: Binary) -> None:
    contents = [content(size) for size in (0, 1, 50_000, 70_000)]
    form: list[tuple[str, tuple[str | None, bytes]]] = [
        ("file", (f"{number}.bin", data)) for number, data in enumerate(contents)
    ]
    form.append(("ignored", (None, b"by whoever reads it")))
    form.append(("channel", (None, "größe".encode())))
    with binary.host.client("channel=größe") as client:
        response = binary.http.post("/binary/upload", files=form)
        assert response.status_code == 200, response.text
        told = response.json()["files"]
        assert [hear_file(client)[0]["file_id"] for _ in contents] == [file["file_id"] for file in told]
    assert [file["filename"] for file in told] == ["0.bin", "1.bin", "2.bin", "3.bin"]
    assert [file["channel"] for file in told] == ["größe"] * 4
    assert [binary.get(file).content for file in told] == contents


def test_to_a_user(binary: Binary) -> None:
    with binary.host.client("user_id=ann") as ann, binary.host.client("user_id=bob") as bob:
        response = binary.http.post("/binary/upload?user_id=ann", files={"file": ("a.txt", b"hello")})
        assert response.status_code == 200, response.text
        [file] = response.json()["files"]
        assert (file["user_id"], file.get("channel")) == ("ann", None)
        head, inline = hear_file(ann)
        assert (head["recipient_id"], inline) == ("ann", b"hello")
        binary.host.post("/broadcast", {"data": "last"})
        assert bob.hear()["data"] == "last"


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_body_as_it_is(binary: Binary, is_chunked: bool) -> None:
    data = content(100_000)
    pieces = (data[start : start + 9_999] for start in range(0, len(data), 9_999))
    with binary.host.client("channel=news") as client:
        response = binary.http.post(
            "/binary/send?channel=news&filename=dir%2Fcat.png",
            content=pieces if is_chunked else data,
            headers={"content-type": "Text/Plain; Charset=utf-8"},
        )
        assert response.status_code == 200, response.text
        file = response.json()
        assert (file["content_type"], file["filename"]) == ("text/plain; charset=utf-8", "cat.png")
        assert hear_file(client)[0]["file_id"] == file["file_id"]
    assert binary.get(file).content == data


def test_an_empty_body(binary: Binary) -> None:
    response = binary.http.post("/binary/send?channel=news")
    assert response.status_code == 200, response.text
    file = response.json()
    assert (file["size"], file["content_type"], "filename" in file) == (0, "application/octet-stream", False)
    assert binary.get(file).content == b""


@pytest.mark.parametrize(
    ("filename", "content_type", "told"),
    [
        ("cat.png", None, "image/png"),
        ("cat.PNG", "application/octet-stream", "image/png"),
        ("cat.png", "image/x-cat", "image/x-cat"),
        ("cat.tar.gz", None, "application/octet-stream"),
        ("cat", None, "application/octet-stream"),
    ],
)
def test_a_type_that_is_not_told_is_what_the_name_says(
    binary: Binary, filename: str, content_type: str | None, told: str
) -> None:
    headers = {} if content_type is None else {"content-type": content_type}
    url = f"/binary/send?channel=news&filename={filename}"
    response = binary.http.post(url, content=PNG, headers=headers)
    assert response.status_code == 200, response.text
    assert response.json()["content_type"] == told


def test_text_is_published_and_not_kept(binary: Binary) -> None:
    before = binary.stats()
    with binary.host.client("channel=news") as client, binary.host.client("user_id=7") as user:
        receipt = binary.host.post("/binary/text", {"text": "Größe", "channel": "news", "filename": "a/note.txt"})
        head, data = hear_file(client)
        meta = head.pop("meta")
        assert isinstance(meta, dict)
        assert receipt == {**{name: meta[name] for name in ("id", "offset", "epoch")}, "size": 7}
        assert head == {
            "type": "binary",
            "channel": "news",
            "content_type": "text/plain; charset=utf-8",
            "filename": "note.txt",
            "size": 7,
        }
        assert data == "Größe".encode()
        binary.host.post("/binary/text", {"text": "", "user_id": 7})
        head, data = hear_file(user)
        assert (head["recipient_id"], head["size"], data, "filename" in head) == ("7", 0, b"", False)
    assert binary.stats() == (before[0], before[1] + 2)


def test_counts(binary: Binary) -> None:
    before = binary.http.get("/stats").json()
    binary.upload(("a.bin", content(5_000), "application/x-cat"), ("b.bin", b"1", "application/x-cat"), channel="news")
    stats = binary.http.get("/stats").json()
    assert (stats["files"] - before["files"], stats["file_bytes"] - before["file_bytes"]) == (2, 5_001)
    assert stats["published_messages"] - before["published_messages"] == 2
    metrics = binary.http.get("/metrics").text
    assert f"rtcore_files {float(stats['files'])}" in metrics
    assert f"rtcore_file_bytes {float(stats['file_bytes'])}" in metrics


# What the application says


def test_the_hook_is_asked_before_anything_is_published(binary: Binary) -> None:
    asked: list[tuple[str, Message]] = []

    async def publish(identity: Identity, channel: str, message: Message) -> bool | Refusal:
        asked.append((channel, message))
        return message.get("filename") != "b.bin"

    hooks, before = binary.host.realtime.hooks, binary.stats()
    hooks.publish = publish
    try:
        files = [("file", (name, content(2_000), "application/x-cat")) for name in ("a.bin", "b.bin")]
        response = binary.http.post("/binary/upload", data={"channel": "news"}, files=files)
        assert (response.status_code, response.json()["error"]["code"]) == (403, "publish_denied")
        assert binary.stats() == before
        binary.upload(("a.bin", content(2_000), "application/x-cat"), channel="news")
        assert binary.stats() == (before[0] + 1, before[1] + 1)
    finally:
        hooks.publish = None
    assert [(channel, message["filename"], message["size"]) for channel, message in asked] == [
        ("news", "a.bin", 2_000),
        ("news", "b.bin", 2_000),
        ("news", "a.bin", 2_000),
    ]


def test_a_page_reads_what_it_may(binary: Binary) -> None:
    own = f"http://127.0.0.1:{binary.host.port}"
    [file] = binary.upload(("a.bin", b"12345", "application/x-cat"), channel="news")
    response: httpx2.Response = binary.get(file, origin=own, range="bytes=1-2")
    exposed = {name.strip().lower() for name in response.headers["access-control-expose-headers"].split(",")}
    assert {"etag", "content-range", "accept-ranges", "content-disposition"} <= exposed
    assert (response.status_code, response.content) == (206, b"23")
