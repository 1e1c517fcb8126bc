"""The native server as a host of ASGI applications."""

from __future__ import annotations

import logging
import socket
import struct
from collections.abc import Iterator
from typing import Final

import pytest
from websockets.exceptions import ConnectionClosed

from rtcore_adapters import Settings

from ..adapters.clients import TIMEOUT, error_code, get, raw_upgrade, read_all, read_head
from ..adapters.hosting import NATIVE, Host, HostKind, ask, run_host
from .applications import Application

RESET: Final = struct.pack("ii", 1, 0)

app = Application()


@pytest.fixture(params=NATIVE, ids=str, scope="module")
def kind(request: pytest.FixtureRequest) -> HostKind:
    found: HostKind = request.param
    return found


@pytest.fixture(scope="module")
def host(kind: HostKind) -> Iterator[Host]:
    with run_host(kind, Settings(), beside=app) as running:
        yield running


@pytest.fixture(autouse=True)
def _nobody_has_left() -> None:
    app.left.clear()
    app.scopes.clear()


def test_the_scope(host: Host) -> None:
    with host.connect() as sock:
        sock.sendall(get("/%65cho?a=%20b&c", "X-Two: 1", "X-Two: 2", "Connection: close", method="PATCH"))
        read_all(sock)
        client = sock.getsockname()
    (scope,) = app.scopes
    assert scope["method"] == "PATCH"
    assert scope["path"] == "/echo"
    assert scope["raw_path"] == b"/%65cho"
    assert scope["query_string"] == b"a=%20b&c"
    assert scope["headers"][1:3] == [(b"x-two", b"1"), (b"x-two", b"2")]
    assert (scope["scheme"], scope["http_version"], scope["root_path"]) == ("http", "1.1", "")
    assert tuple(scope["client"]) == client
    assert tuple(scope["server"]) == ("127.0.0.1", host.port)
    assert scope["state"] == {"answer": 42}


@pytest.mark.parametrize("path", ["/endless", "/wait"])
@pytest.mark.parametrize("how", ["close", "reset"])
def test_the_application_notices_that_the_client_leaves(host: Host, path: str, how: str) -> None:
    sock = host.connect()
    sock.sendall(get(path))
    read_head(sock)
    if how == "reset":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    sock.close()
    assert app.left.wait(TIMEOUT)


def test_an_application_that_fails(host: Host, faults: list[logging.LogRecord]) -> None:
    for path in ("/fail", "/silent"):
        status, head, body = ask(host, get(path))
        assert (status, error_code(body)) == (500, "internal_error")
        assert b"connection: close" in head.lower()
    status, _, body = ask(host, get("/fail", method="HEAD"))
    assert (status, body) == (500, b"")
    assert [record.getMessage() for record in faults] == ["the application failed on /fail"] * 2
    faults.clear()


def test_an_application_that_fails_late(host: Host, faults: list[logging.LogRecord]) -> None:
    status, _, body = ask(host, get("/fail-late"))
    assert (status, body) == (200, b"some")
    assert len(faults) == 1
    faults.clear()


def test_websockets_of_the_application(host: Host) -> None:
    with host.own_websocket("/echo", subprotocols=["b", "a"]) as client:
        assert client.subprotocol == "b"
        assert client.response is not None
        assert client.response.headers["x-own"] == "yes"
        for message in ("Größe", b"\x00\xff" * 50_000, "", b""):
            client.send(message)
            assert client.recv(TIMEOUT) == message
        client.close(4001, "bye")
    assert app.left.wait(TIMEOUT)
    assert app.ended == {"type": "websocket.disconnect", "code": 4001, "reason": "bye"}
    (scope,) = app.scopes
    assert (scope["scheme"], scope["subprotocols"], scope["state"]) == ("ws", ["b", "a"], {"answer": 42})
    assert "method" not in scope


@pytest.mark.parametrize(("said", "code"), [("close", 4000), ("return", 1000), ("fail", 1011)])
def test_an_application_that_ends_a_websocket(
    host: Host, said: str, code: int, faults: list[logging.LogRecord]
) -> None:
    with host.own_websocket("/echo") as client:
        client.send(said)
        with pytest.raises(ConnectionClosed):
            client.recv(TIMEOUT)
        assert client.close_code == code
    assert len(faults) == (said == "fail")
    faults.clear()


@pytest.mark.parametrize(
    ("path", "status", "body", "errors"),
    [("/refuse", 403, b"", 0), ("/explain", 409, b"not today", 0), ("/silent", 500, b"", 0), ("/fail", 500, b"", 1)],
)
def test_an_application_that_refuses_a_websocket(
    host: Host, path: str, status: int, body: bytes, errors: int, faults: list[logging.LogRecord]
) -> None:
    found, head, content = ask(host, raw_upgrade(path))
    assert (found, content) == (status, body)
    assert head.lower().count(b"content-length") == 1
    assert len(faults) == errors
    faults.clear()


def test_an_application_that_accepts_what_was_not_offered(host: Host, faults: list[logging.LogRecord]) -> None:
    assert ask(host, raw_upgrade("/lie"))[0] == 500
    assert len(faults) == 1
    faults.clear()


def test_an_application_that_sends_to_whoever_has_left(host: Host) -> None:
    sock = host.connect()
    sock.sendall(raw_upgrade("/flood"))
    assert read_head(sock)[0] == 101
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    sock.close()
    assert app.left.wait(TIMEOUT)
