"""How files are read, on every host: whole and in parts, by whom, and as what a browser takes them."""

from __future__ import annotations

import hashlib
import logging
import random
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from rtcore import Message, Refusal
from rtcore.namespaces import Access
from rtcore.permissions import Identity
from rtcore_adapters.settings import NamespaceSettings, WsSettings
from rtcore_transports.file_store import FileStoreError, StoredFile

from .binary_hosts import PNG, Binary, binary_host
from .clients import get, read_all, read_head
from .hosting import HOSTS, NATIVE, Host, HostKind
from .matrix_stage import SECRET, claims_of, make_token

DATA = random.Random(1).randbytes(100_000)
CAT = "application/x-cat"
WEEK = 604_800


@pytest.fixture(scope="module", params=HOSTS, ids=str)
def binary(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Binary]:
    kind: HostKind = request.param
    with binary_host(kind, tmp_path_factory.mktemp("files")) as running:
        yield running


@pytest.fixture(scope="module")
def file(binary: Binary) -> Message:
    """Return what is told of a file that is there."""
    [told] = binary.upload(("cat.bin", DATA, CAT), channel="news")
    return told


def no_file(response: httpx2.Response) -> bool:
    assert response.status_code == 404, response.text
    return bool(response.json()["error"]["code"] == "not_found")


# Whole


def test_a_whole_file(binary: Binary, file: Message) -> None:
    response = binary.get(file)
    assert (response.status_code, response.content) == (200, DATA)
    headers = dict(response.headers)
    age = int(headers.pop("cache-control").removeprefix("private, max-age=").removesuffix(", immutable"))
    assert WEEK - 600 < age <= WEEK
    assert headers.pop("last-modified").endswith(" GMT")
    expected = {
        "content-type": CAT,
        "content-length": "100000",
        "content-disposition": 'attachment; filename="cat.bin"',
        "accept-ranges": "bytes",
        "etag": f'"{hashlib.sha256(DATA).hexdigest()}"',
        "x-content-type-options": "nosniff",
        "content-security-policy": "sandbox; default-src 'none'",
        "cross-origin-resource-policy": "same-site",
    }
    assert {name: headers.get(name) for name in expected} == expected
    head = binary.http.head(str(file["url"]).removeprefix(binary.host.prefix))
    assert (head.status_code, head.content) == (200, b"")
    assert {name: head.headers.get(name) for name in expected} == expected


@pytest.mark.parametrize(
    ("filename", "content_type", "data", "disposition"),
    [
        ("cat.png", "image/png", PNG, 'inline; filename="cat.png"'),
        ("a.txt", "text/plain; charset=utf-8", b"hello", 'inline; filename="a.txt"'),
        ("a.html", "text/html", b"<html>", 'attachment; filename="a.html"'),
        ("a.svg", "image/svg+xml", b"<svg xmlns='http://www.w3.org/2000/svg'/>", 'attachment; filename="a.svg"'),
        ("größe.bin", CAT, b"1", "attachment; filename=\"gr__e.bin\"; filename*=UTF-8''gr%C3%B6%C3%9Fe.bin"),
        ("100% (a).bin", CAT, b"1", "attachment; filename=\"100_ (a).bin\"; filename*=UTF-8''100%25%20%28a%29.bin"),
        (None, CAT, b"1", "attachment"),
    ],
)
def test_what_a_browser_does_with_it(
    binary: Binary, filename: str | None, content_type: str, data: bytes, disposition: str
) -> None:
    query = {"channel": "news"} if filename is None else {"channel": "news", "filename": filename}
    sent = binary.http.post("/binary/send", params=query, content=data, headers={"content-type": content_type})
    assert sent.status_code == 200, sent.text
    response = binary.get(sent.json())
    assert response.content == data
    assert response.headers["content-disposition"] == disposition
    # Not changed by whoever serves it: a character set that nobody has told is not known.
    assert response.headers["content-type"] == content_type


@pytest.mark.parametrize("destination", ["script", "style", "worker", "serviceworker"])
def test_no_page_runs_it(binary: Binary, destination: str) -> None:
    """Not even one of our own origin, whose policy allows what comes from there."""
    [told] = binary.upload(("a.js", b"alert(1)", "text/javascript"), channel="news")
    response = binary.get(told, sec_fetch_dest=destination)
    assert (response.status_code, response.json()["error"]["code"]) == (403, "not_a_script")
    for harmless in ("empty", "document", "image"):
        response = binary.get(told, sec_fetch_dest=harmless)
        assert (response.status_code, response.content) == (200, b"alert(1)")
        assert "sec-fetch-dest" in response.headers["vary"].lower()


def test_quotes_and_folders_in_names(binary: Binary) -> None:
    form = {"file": ('..\\dir/a"b.bin', b"1", CAT)}
    response = binary.http.post("/binary/upload?channel=news", files=form)
    [told] = response.json()["files"]
    disposition = binary.get(told).headers["content-disposition"]
    assert "/" not in disposition.replace("application/", "")
    assert "\\" not in disposition
    assert disposition.startswith('attachment; filename="a')


# In part


@pytest.mark.parametrize(
    ("header", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=1000-1999", 1000, 2000),
        ("bytes=99990-", 99_990, 100_000),
        ("bytes=-10", 99_990, 100_000),
        ("bytes=0-", 0, 100_000),
        ("bytes=50000-9999999", 50_000, 100_000),
    ],
)
def test_a_part(binary: Binary, file: Message, header: str, start: int, stop: int) -> None:
    response = binary.get(file, range=header)
    assert (response.status_code, response.content) == (206, DATA[start:stop])
    assert response.headers["content-range"] == f"bytes {start}-{stop - 1}/100000"
    assert response.headers["content-length"] == str(stop - start)


@pytest.mark.parametrize("header", ["bytes=0-1,5-6", "bytes=2-1", "lines=1-2", "bytes=a-b"])
def test_what_is_not_served_in_part_is_served_whole(binary: Binary, file: Message, header: str) -> None:
    response = binary.get(file, range=header)
    assert (response.status_code, response.content) == (200, DATA)
    assert "content-range" not in response.headers


def test_a_part_behind_the_end(binary: Binary, file: Message) -> None:
    response = binary.get(file, range="bytes=100000-")
    assert (response.status_code, response.json()["error"]["code"]) == (416, "range_not_satisfiable")
    assert response.headers["content-range"] == "bytes */100000"


def test_a_part_of_nothing(binary: Binary) -> None:
    [told] = binary.upload(("a.bin", b"", CAT), channel="news")
    response = binary.get(told, range="bytes=0-")
    assert (response.status_code, response.content) == (200, b"")


def test_head_knows_no_parts(binary: Binary, file: Message) -> None:
    path = str(file["url"]).removeprefix(binary.host.prefix)
    response = binary.http.head(path, headers={"range": "bytes=0-1"})
    assert (response.status_code, response.headers["content-length"]) == (200, "100000")


def test_a_part_of_what_one_has_begun_to_read(binary: Binary, file: Message) -> None:
    """A connection that is lost, and another on which it goes on."""
    with binary.host.connect() as sock:
        sock.sendall(get(str(file["url"])))
        status, head, begun = read_head(sock)
        assert status == 200
        while len(begun) < 40_000:
            begun += sock.recv(1000)
    [etag] = [line.partition(b": ")[2] for line in head.split(b"\r\n") if line.lower().startswith(b"etag:")]
    response = binary.get(file, range=f"bytes={len(begun)}-", if_range=etag.decode())
    assert (response.status_code, begun + response.content) == (206, DATA)
    other = binary.get(file, range="bytes=40000-", if_range='"other"')
    assert (other.status_code, other.content) == (200, DATA)


# What one has already


def test_what_has_not_changed_is_not_sent(binary: Binary, file: Message) -> None:
    whole = binary.get(file)
    etag, modified = whole.headers["etag"], whole.headers["last-modified"]
    for known in ({"if_none_match": etag}, {"if_none_match": f'"x", W/{etag}'}, {"if_modified_since": modified}):
        response = binary.get(file, **known)
        assert (response.status_code, response.content) == (304, b"")
        assert (response.headers["etag"], response.headers["last-modified"]) == (etag, modified)
    # "A recipient MUST ignore If-Modified-Since if the request contains an If-None-Match" (RFC 9110, section 13.1.3)
    assert binary.get(file, if_none_match='"x"', if_modified_since=modified).status_code == 200
    assert binary.get(file, if_match=etag).status_code == 200
    response = binary.get(file, if_match='"x"')
    assert (response.status_code, response.json()["error"]["code"]) == (412, "precondition_failed")


# Not there


@pytest.mark.parametrize(
    "name", ["0" * 32, "f" * 31, "%2e%2e%2fpublic.pem", "nothing", "0" * 5000, "%00", "%ff", "größe"]
)
def test_no_such_file(binary: Binary, name: str) -> None:
    assert no_file(binary.http.get(f"/binary/{name}"))


@pytest.mark.parametrize("kind", HOSTS, ids=str)
def test_a_file_whose_time_is_over(kind: HostKind, tmp_path: Path) -> None:
    with binary_host(kind, tmp_path, binary={"file_ttl": 2.0}) as binary:
        [told] = binary.upload(("a.bin", DATA, CAT), channel="news")
        age = binary.get(told).headers["cache-control"]
        assert age in {f"private, max-age={seconds}, immutable" for seconds in range(3)}
        binary.host.wait_for(lambda: binary.get(told).status_code == 404)
        assert no_file(binary.get(told))


def test_a_file_that_is_removed(binary: Binary) -> None:
    [told] = binary.upload(("a.bin", DATA, CAT), channel="news")
    files = binary.host.realtime.driver.files
    assert files is not None
    binary.host.portal.call(files.delete, str(told["file_id"]))
    assert no_file(binary.get(told))


def test_a_file_of_which_only_the_description_is_left(binary: Binary) -> None:
    [told] = binary.upload(("a.bin", DATA, CAT), channel="news")
    [path] = [path for path in binary.kept if path.name == told["file_id"]]
    path.unlink()
    assert no_file(binary.get(told))
    assert no_file(binary.get(told, if_none_match="*"))


def test_a_store_that_fails_in_the_midst(
    binary: Binary, file: Message, monkeypatch: pytest.MonkeyPatch, error_log: list[logging.LogRecord]
) -> None:
    """Whoever reads learns that this is not all."""
    files = binary.host.realtime.driver.files
    assert files is not None

    async def read(file: StoredFile, start: int, stop: int) -> AsyncIterator[bytes]:
        yield DATA[start : start + 1000]
        raise FileStoreError(Refusal("store_unavailable", "the disk is gone", 503))

    with monkeypatch.context() as patch:
        patch.setattr(files.store, "read", read)
        patch.setattr(files.store, "path_of", lambda file: None)
        with pytest.raises(httpx2.RemoteProtocolError):
            binary.get(file)
    assert binary.get(file).content == DATA
    error_log.clear()


def test_a_file_that_cannot_be_opened(binary: Binary, file: Message, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a host that sends it from where it is: it says so before it sends anything."""
    files = binary.host.realtime.driver.files
    assert files is not None
    with monkeypatch.context() as patch:
        patch.setattr(files.store, "path_of", lambda file: binary.folder)
        response = binary.get(file)
        if binary.host.kind.server == "native":
            assert (response.status_code, response.json()["error"]["code"]) == (503, "store_unavailable")
        else:
            assert response.content == DATA
        patch.setattr(files.store, "path_of", lambda file: binary.folder / "deleted")
        if binary.host.kind.server == "native":
            assert no_file(binary.get(file))
    assert binary.get(file).content == DATA


@pytest.mark.parametrize("kind", NATIVE, ids=str)
def test_whoever_says_nothing_more_gets_all_of_it(kind: HostKind, tmp_path: Path) -> None:
    """Half-closed is not gone (RFC 9293, section 3.6), where the host sends it from where it is."""
    data = DATA * 120  # more than fits into the buffers of two sockets
    with binary_host(kind, tmp_path, binary={"max_file_size": len(data)}) as binary:
        [told] = binary.upload(("cat.bin", data, CAT), channel="news")
        with binary.host.connect() as sock:
            sock.sendall(get(str(told["url"])))
            sock.shutdown(socket.SHUT_WR)
            assert read_all(sock).partition(b"\r\n\r\n")[2] == data


def test_whoever_leaves_harms_nobody(binary: Binary, file: Message) -> None:
    for _ in range(5):
        with binary.host.connect() as sock:
            sock.sendall(get(str(file["url"])))
            assert sock.recv(1000)
    assert binary.get(file).content == DATA


# Who may


@pytest.fixture(scope="module", params=HOSTS, ids=str)
def guarded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Binary]:
    """Run a host that knows who comes."""
    kind: HostKind = request.param
    settings: dict[str, Any] = {
        "ws": WsSettings(jwt_secret_key=SECRET),
        "realtime": {
            "namespaces": (NamespaceSettings(pattern="members:*", subscribe=Access.USERS),),
        },
    }
    with binary_host(kind, tmp_path_factory.mktemp("files"), **settings) as running:
        yield running


def sent(guarded: Binary, target: str, **headers: str) -> Message:
    response = guarded.http.post(f"/binary/send?{target}", content=DATA, headers=headers)
    assert response.status_code == 200, response.text
    told: Message = response.json()
    return told


def token(user: str, **claims: object) -> dict[str, str]:
    """Return the header of a token that leaves all to the namespaces but for what is named."""
    names = ("sub", "iat", "exp", "jti")
    plain = {name: value for name, value in claims_of(user=user).items() if name in names}
    return {"authorization": f"Bearer {make_token({**plain, **claims})}"}


def test_who_may_read_what_is_sent_to_a_channel(guarded: Binary) -> None:
    told = sent(guarded, "channel=members:1", **token("ann"))
    assert guarded.get(told, **token("bob")).content == DATA
    # Who may not join it may not read it, but for who has sent it.
    assert no_file(guarded.get(told, **token("bob", channels=["other"])))
    assert guarded.get(told, **token("ann", channels=["other"])).content == DATA
    # Nobody is told whether it is there.
    assert no_file(guarded.get({"url": f"{guarded.host.prefix}/binary/{'0' * 32}"}, **token("bob")))
    for url in (told["url"], f"{guarded.host.prefix}/binary/{'0' * 32}"):
        response = guarded.get({"url": url})
        assert (response.status_code, response.json()["error"]["code"]) == (401, "unauthorized")
        assert response.headers["www-authenticate"] == "Bearer"


def test_who_may_read_what_is_sent_to_a_user(guarded: Binary) -> None:
    told = sent(guarded, "user_id=bob", **token("ann"))
    assert guarded.get(told, **token("bob", channels=["other"])).content == DATA
    assert guarded.get(told, **token("ann")).content == DATA
    assert no_file(guarded.get(told, **token("eve")))
    assert no_file(guarded.get(told, **token("eve", channels=["*"])))


def test_the_token_may_be_in_the_query(guarded: Binary) -> None:
    told = sent(guarded, "channel=members:1", **token("ann"))
    secret = token("bob")["authorization"].removeprefix("Bearer ")
    assert guarded.get({"url": f"{told['url']}?token={secret}"}).content == DATA


def test_the_application_is_asked(guarded: Binary) -> None:
    asked: list[tuple[str | None, str]] = []

    async def subscribe(identity: Identity, channel: str) -> bool | Refusal:
        asked.append((identity.user_id, channel))
        return identity.user_id == "bob"

    told = sent(guarded, "channel=members:1", **token("ann"))
    host: Host = guarded.host
    host.realtime.hooks.subscribe = subscribe
    try:
        assert guarded.get(told, **token("bob")).content == DATA
        assert no_file(guarded.get(told, **token("eve")))
        # What is refused anyway is not asked about, nor what one has sent.
        assert no_file(guarded.get(told, **token("eve", channels=["other"])))
        assert guarded.get(told, **token("ann")).content == DATA
    finally:
        host.realtime.hooks.subscribe = None
    assert asked == [("bob", "members:1"), ("eve", "members:1")]
