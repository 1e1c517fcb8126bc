"""Files that are refused over HTTP, on every host: with which words, and that nothing of them is left."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from rtcore_adapters import Settings
from rtcore_adapters.settings import BinarySettings, NamespaceSettings, WsSettings

from .binary_hosts import MAX_FILE, PNG, Binary, binary_host
from .clients import error_code, get, read_all, read_head, read_response
from .hosting import HOSTS, HostKind, run_host
from .matrix_stage import SECRET, claims_of, make_token

CAT = "application/x-cat"
FORM = "multipart/form-data; boundary=edge"
each_host = pytest.mark.parametrize("kind", HOSTS, ids=str)


@pytest.fixture(scope="module", params=HOSTS, ids=str)
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Binary]:
    kind: HostKind = request.param
    allowed = ("image/*", "text/plain", "application/*")
    with binary_host(kind, tmp_path_factory.mktemp("files"), binary={"allowed_types": allowed}) as running:
        yield running


@pytest.fixture
def binary(running: Binary) -> Iterator[Binary]:
    """Return a host on which nothing is kept or published by a test."""
    before, kept = running.stats(), sorted(running.kept)
    yield running
    assert running.stats() == before
    running.host.wait_for(lambda: sorted(running.kept) == kept)


def content(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def assert_refused(response: httpx2.Response, status: int, code: str) -> None:
    assert response.status_code == status, response.text
    body = response.json()
    assert list(body) == ["error"]
    assert body["error"]["code"] == code
    assert body["error"]["message"]


def post(binary: Binary, path: str, **request: Any) -> httpx2.Response:
    response: httpx2.Response = binary.http.post(path, **request)
    return response


# Where it goes


@pytest.mark.parametrize("path", ["/binary/send", "/binary/upload", "/binary/text"])
@pytest.mark.parametrize(
    ("target", "code"),
    [
        ({}, "missing_target"),
        ({"channel": "a", "user_id": "b"}, "missing_target"),
        ({"channel": "$broadcast"}, "invalid_channel"),
        ({"channel": ""}, "invalid_channel"),
        ({"channel": "a\nb"}, "invalid_channel"),
        ({"user_id": "x" * 256}, "invalid_user_id"),
    ],
)
def test_a_target_that_is_none(binary: Binary, path: str, target: dict[str, str], code: str) -> None:
    file = {"file": ("a.bin", content(5_000), CAT)}
    match path:
        case "/binary/send":
            responses = [post(binary, path, params=target, content=b"1")]
        case "/binary/text":
            responses = [post(binary, path, json={"text": "hello", **target})]
        case _:
            responses = [
                post(binary, path, data=target, files=file),
                post(binary, path, params=target, files=file),
                # Behind the file.
                post(binary, path, files=[("file", file["file"]), *((k, (None, v)) for k, v in target.items())]),
            ]
    for response in responses:
        assert_refused(response, 422, code)


def test_two_targets_in_two_places(binary: Binary) -> None:
    file = {"file": ("a.bin", content(5_000), CAT)}
    assert_refused(post(binary, "/binary/upload?channel=a", data={"channel": "b"}, files=file), 422, "missing_target")
    assert_refused(post(binary, "/binary/upload?channel=a", data={"user_id": "a"}, files=file), 422, "missing_target")


def test_more_files_than_wait_for_a_target(binary: Binary) -> None:
    files: list[tuple[str, tuple[str | None, bytes]]] = [("file", ("a.bin", b"1"))] * 9
    response = post(binary, "/binary/upload", files=[*files, ("channel", (None, b"news"))])
    assert_refused(response, 422, "missing_target")


# What it is


@pytest.mark.parametrize(
    ("filename", "content_type", "data", "status", "code"),
    [
        ("a.bin", "video/mp4", b"1", 415, "type_not_allowed"),
        ("a.bin", "text/html", b"<html>", 415, "type_not_allowed"),
        ("a.mp4", None, b"1", 415, "type_not_allowed"),
        ("a.bin", "no type", b"1", 422, "invalid_content_type"),
        ("a.bin", "image/png; x", b"1", 422, "invalid_content_type"),
        ("a.png", "image/png", b"<html><script>", 415, "content_mismatch"),
        ("dir/", CAT, b"1", 422, "invalid_filename"),
        ("..", CAT, b"1", 422, "invalid_filename"),
        ("x" * 256, CAT, b"1", 422, "invalid_filename"),
        ("a\u200bb", CAT, b"1", 422, "invalid_filename"),
    ],
)
def test_a_file_that_is_not_taken(
    binary: Binary, filename: str, content_type: str | None, data: bytes, status: int, code: str
) -> None:
    headers = {} if content_type is None else {"content-type": content_type}
    response = post(
        binary, "/binary/send", params={"channel": "a", "filename": filename}, content=data, headers=headers
    )
    assert_refused(response, status, code)
    good = ("good.png", PNG, "image/png")
    for files in ([good, (filename, data, content_type)], [(filename, data, content_type), good]):
        form = [("file", each if each[2] is not None else each[:2]) for each in files]
        assert_refused(post(binary, "/binary/upload?channel=a", files=form), status, code)


def test_several_of_which_one_is_too_large(binary: Binary) -> None:
    files = [("file", (f"{number}.bin", content(size), CAT)) for number, size in enumerate((10, 500_000, 60_000))]
    # All together they are no larger than what one may be, and what comes with them.
    response = post(binary, "/binary/upload?channel=a", files=[*files, ("file", ("c.bin", content(MAX_FILE + 1), CAT))])
    assert_refused(response, 413, "file_too_large")


@pytest.mark.parametrize("path", ["/binary/send", "/binary/upload"])
def test_too_large_before_it_is_sent(binary: Binary, path: str) -> None:
    """A length that is too large is enough: nothing of it need be sent."""
    head = f"POST {binary.host.prefix}{path}?channel=a HTTP/1.1\r\nHost: localhost\r\nContent-Type: {FORM}\r\n"
    with binary.host.connect() as sock:
        sock.sendall(f"{head}Content-Length: 5000000\r\n\r\n".encode())
        status, _, body = read_response(sock)
    assert (status, error_code(body)) == (413, "file_too_large")


def test_too_large_of_unknown_length(binary: Binary) -> None:
    pieces = (content(10_000) for _ in range(MAX_FILE // 10_000 + 1))
    response = post(binary, "/binary/send?channel=a", content=pieces, headers={"content-type": CAT})
    assert_refused(response, 413, "file_too_large")


def test_too_large_in_all_of_unknown_length(binary: Binary) -> None:
    part = b'--edge\r\nContent-Disposition: form-data; name="file"; filename="a.bin"\r\n\r\n%s\r\n' % content(600_000)
    pieces = (part for _ in range(7))
    response = post(binary, "/binary/upload?channel=a", content=pieces, headers={"content-type": FORM})
    assert_refused(response, 413, "file_too_large")


# How it comes


@pytest.mark.parametrize(
    ("content_type", "form", "status", "code"),
    [
        ("application/json", b"{}", 415, "unsupported_media_type"),
        ("multipart/form-data", b"", 400, "malformed_form"),
        (FORM, b"", 400, "malformed_form"),
        (FORM, b"hello", 400, "malformed_form"),
        (FORM, b"--edge--\r\n", 422, "missing_file"),
        (FORM, b'--edge\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n1', 400, "malformed_form"),
        (
            FORM,
            b'--edge\r\nContent-Disposition: form-data; name="file"; filename=""\r\n\r\n\r\n--edge--\r\n',
            422,
            "missing_file",
        ),
        (
            FORM,
            b'--edge\r\nContent-Disposition: form-data; name="upload"; filename="a"\r\n\r\n1\r\n--edge--\r\n',
            422,
            "missing_file",
        ),
        (
            FORM,
            b'--edge\r\nContent-Disposition: form-data; name="note"\r\n\r\n%s\r\n--edge--\r\n' % (b"x" * 5000),
            413,
            "field_too_large",
        ),
        (
            FORM,
            b'--edge\r\nContent-Disposition: form-data; name="channel"\r\n\r\n\xff\r\n--edge--\r\n',
            400,
            "malformed_form",
        ),
    ],
)
def test_a_form_that_is_none(binary: Binary, content_type: str, form: bytes, status: int, code: str) -> None:
    good = b'--edge\r\nContent-Disposition: form-data; name="file"; filename="a.bin"\r\n\r\n%s\r\n' % content(5_000)
    headers = {"content-type": content_type}
    assert_refused(post(binary, "/binary/upload?channel=a", content=form, headers=headers), status, code)
    if form.startswith(b"--edge\r\n") and b'filename=""' not in form:
        # What has come before is not kept.
        response = post(binary, "/binary/upload?channel=a", content=good + form, headers=headers)
        assert_refused(response, status, code)


@pytest.mark.parametrize("path", ["/binary/send", "/binary/upload"])
def test_a_compressed_body(binary: Binary, path: str) -> None:
    headers = {"content-encoding": "gzip", "content-type": FORM}
    response = post(binary, f"{path}?channel=a", content=b"1", headers=headers)
    assert_refused(response, 415, "unsupported_media_type")


@pytest.mark.parametrize("text", [{}, {"text": 1}, {"text": None}, [], "text"])
def test_a_text_that_is_none(binary: Binary, text: object) -> None:
    body = {**text, "channel": "a"} if isinstance(text, dict) else text
    assert_refused(post(binary, "/binary/text", json=body), 422, "invalid_text")


def test_a_text_with_half_of_a_character(binary: Binary) -> None:
    headers = {"content-type": "application/json"}
    response = post(binary, "/binary/text", content=rb'{"text": "\ud800", "channel": "a"}', headers=headers)
    assert response.status_code == 400, response.text


@pytest.mark.parametrize(("path", "content_type"), [("/binary/send", CAT), ("/binary/upload", FORM)])
@pytest.mark.parametrize("is_malformed", [False, True])
def test_a_body_that_breaks_off(binary: Binary, path: str, content_type: str, is_malformed: bool) -> None:
    """Be it that the client is gone, or that it goes on with what is no chunk."""
    part = b'--edge\r\nContent-Disposition: form-data; name="file"; filename="a.bin"\r\n\r\n' + content(2_000_000)
    url = f"{binary.host.prefix}{path}?channel=a"
    head = f"POST {url} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\n"
    with binary.host.connect() as sock:
        if is_malformed:
            sock.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n{len(part):x}\r\n".encode() + part + b"\r\nzz\r\n")
            assert read_all(sock).startswith(b"HTTP/1.1 4")
        else:
            before = len(binary.kept)
            sock.sendall(f"{head}Content-Length: {len(part) + 1000}\r\n\r\n".encode() + part)
            binary.host.wait_for(lambda: len(binary.kept) > before)


@each_host
def test_a_body_that_stops(kind: HostKind, tmp_path: Path) -> None:
    with binary_host(kind, tmp_path, realtime={"body_timeout": 0.5}) as binary:
        head = f"POST {binary.host.prefix}/binary/send?channel=a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n"
        with binary.host.connect() as sock:
            sock.sendall(f"{head}\r\n12345".encode())
            status, _, body = read_response(sock)
        assert (status, error_code(body)) == (408, "request_timeout")
        assert binary.stats() == (0, 0)
        binary.wait_until_nothing_is_kept()


# Whoever asks before


def test_whoever_asks_whether_to_send_it_is_told_to(running: Binary) -> None:
    with running.host.connect() as sock:
        url = f"{running.host.prefix}/binary/send?channel=a"
        head = f"POST {url} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {CAT}\r\nExpect: 100-continue\r\n"
        sock.sendall(f"{head}Content-Length: 5\r\n\r\n".encode())
        status, _, rest = read_head(sock)
        assert (status, rest) == (100, b"")
        sock.sendall(b"hello")
        status, _, body = read_response(sock)
    assert status == 200, body


@pytest.mark.parametrize("query", ["", "?channel=$broadcast", "?channel=a&filename=.."])
def test_whoever_asks_whether_to_send_it_is_told_not_to(binary: Binary, query: str) -> None:
    with binary.host.connect() as sock:
        url = f"{binary.host.prefix}/binary/send{query}"
        head = f"POST {url} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {CAT}\r\nExpect: 100-continue\r\n"
        sock.sendall(f"{head}Content-Length: 5\r\n\r\n".encode())
        status, _, _ = read_head(sock)
        # Hypercorn asks for what nobody wants to know.
        assert status == (100 if binary.host.kind.server == "hypercorn" else 422)


@pytest.mark.parametrize("path", ["/binary/send", "/binary/send?channel=a&filename=..", "/binary/upload?channel=$a"])
def test_what_follows_on_the_connection_is_answered(binary: Binary, path: str) -> None:
    head = f"POST {binary.host.prefix}{path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {FORM}\r\n"
    with binary.host.connect() as sock:
        sock.sendall(f"{head}Content-Length: 50000\r\n\r\n".encode() + content(50_000))
        status, _, body = read_response(sock)
        assert status == 422, body
        sock.sendall(get(f"{binary.host.prefix}/health"))
        status, _, body = read_response(sock)
        assert status == 200, body


# Limits of the server


@each_host
def test_no_room(kind: HostKind, tmp_path: Path) -> None:
    with binary_host(kind, tmp_path, binary={"quota": 10_000}) as binary:
        [told] = binary.upload(("a.bin", content(9_000), CAT), channel="a")
        for response in (
            post(binary, "/binary/send?channel=a", content=content(1_001), headers={"content-type": CAT}),
            post(binary, "/binary/upload?channel=a", files={"file": ("a.bin", content(1_001), CAT)}),
        ):
            assert_refused(response, 507, "store_full")
        assert binary.stats() == (1, 1)
        assert binary.get(told).content == content(9_000)
        binary.upload(("a.bin", content(1_000), CAT), channel="a")


@each_host
def test_a_user_who_sends_too_much(kind: HostKind, tmp_path: Path) -> None:
    """All of what comes at once counts, and where that is too much nothing of it is published."""
    settings = {"ws": WsSettings(jwt_secret_key=SECRET), "realtime": {"user_rate_limit": 3.0}}
    claims = {name: value for name, value in claims_of(user="ann").items() if name in ("sub", "iat", "exp", "jti")}
    headers = {"authorization": f"Bearer {make_token(claims)}"}
    with binary_host(kind, tmp_path, **settings) as binary:
        files = [("file", (f"{number}.bin", b"1", CAT)) for number in range(20)]
        response = post(binary, "/binary/upload?channel=a", files=files, headers=headers)
        assert_refused(response, 429, "rate_limited")
        assert int(response.headers["retry-after"]) >= 1
        driver = binary.host.realtime.driver
        stats = binary.host.portal.call(driver.stats)
        assert (stats["files"], stats["published_messages"]) == (0, 0)
        binary.wait_until_nothing_is_kept()


@each_host
def test_several_of_which_one_is_too_large_for_the_channel(kind: HostKind, tmp_path: Path) -> None:
    """What is said of it, that is; then none of them is published."""
    realtime = {"namespaces": (NamespaceSettings(pattern="small", max_message_size=400),)}
    with binary_host(kind, tmp_path, realtime=realtime) as binary:
        files = [("file", (name, content(5_000), CAT)) for name in ("a.bin", f"{'long' * 50}.bin")]
        response = post(binary, "/binary/upload?channel=small", files=files)
        assert_refused(response, 413, "message_too_large")
        assert binary.stats() == (0, 0)
        binary.wait_until_nothing_is_kept()
        binary.upload(("a.bin", content(5_000), CAT), channel="small")


@each_host
def test_switched_off(kind: HostKind) -> None:
    with run_host(kind, Settings(binary=BinarySettings(data_enabled=False))) as host:
        for method, path in (
            ("POST", "/binary/upload"),
            ("POST", "/binary/send"),
            ("POST", "/binary/text"),
            ("GET", f"/binary/{'0' * 32}"),
        ):
            assert_refused(host.http.request(method, path), 404, "not_found")
        stats = host.http.get("/stats").json()
        assert "files" not in stats
        assert "uploads" not in stats
        assert "rtcore_files" not in host.http.get("/metrics").text
