"""The native server as seen from a bare socket: HTTP/1.1, WebSocket handshakes, deadlines and the end."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator

import pytest
from websockets.exceptions import ConnectionClosed

from rtcore_adapters import Settings
from rtcore_adapters.settings import RealtimeSettings, WebSocketSettings

from ..adapters.clients import (
    TIMEOUT,
    error_code,
    get,
    masked_frame,
    raw_upgrade,
    read_all,
    read_frames,
    read_head,
    read_response,
)
from ..adapters.hosting import NATIVE, Host, HostKind, ask, raw_websocket, run_host
from .applications import Application

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


# HTTP/1.1


def test_keep_alive(host: Host) -> None:
    with host.connect() as sock:
        for request, status in (
            (get("/"), 200),
            (get("/", method="HEAD"), 200),
            (get("/realtime/nothing"), 404),
            (get("/realtime/channels"), 200),
            (get("/deaf", "Content-Length: 5", method="POST") + b"hello", 413),
            (get("/realtime/send", "Content-Length: 5", method="POST") + b"hello", 415),
            (get("/echo", "Transfer-Encoding: chunked", method="PUT") + b"5\r\nhello\r\n0\r\n\r\n", 200),
            (get("/"), 200),
        ):
            sock.sendall(request)
            found, head, _ = read_response(sock, has_body=not request.startswith(b"HEAD"))
            assert found == status
            assert b"connection: close" not in head.lower()


def test_a_body_that_comes_after_the_answer(host: Host) -> None:
    with host.connect() as sock:
        sock.sendall(get("/deaf", "Content-Length: 5", method="POST"))
        assert read_response(sock)[0] == 413
        sock.sendall(b"hello" + get("/"))
        assert read_response(sock)[0] == 200


def test_pipelining(host: Host) -> None:
    with host.connect() as sock:
        bodies = [b"one", b"two" * 30_000, b"", b"four"]
        requests = [get("/echo", f"Content-Length: {len(body)}", method="POST") + body for body in bodies]
        sock.sendall(b"".join(requests) + get("/", "Connection: close"))
        data = read_all(sock)
    for body in bodies:
        head, _, data = data.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK")
        assert data.startswith(body)
        data = data[len(body) :]
    assert data.endswith(b'{"state": 42}')


def test_the_last_request_is_answered_before_the_end(host: Host) -> None:
    with host.connect() as sock:
        sock.sendall(get("/echo", "Content-Length: 5", method="POST") + b"hello")
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock).endswith(b"\r\n\r\nhello")


def test_http_1_0(host: Host) -> None:
    status, head, body = ask(host, b"GET / HTTP/1.0\r\n\r\n")
    assert (status, body) == (200, b'{"state": 42}')
    assert b"connection: close" in head.lower()


def test_the_absolute_form(host: Host) -> None:
    assert ask(host, get("http://localhost:1", "Connection: close"))[0] == 200
    assert ask(host, get("HTTP://localhost/realtime/events?channel=%24", "Connection: close"))[0] == 422


def test_a_request_in_single_bytes(host: Host) -> None:
    with host.connect() as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        request = get("/echo", "Content-Length: 5", "Connection: close", method="POST") + b"hello"
        for index in range(len(request)):
            sock.sendall(request[index : index + 1])
        assert read_all(sock).endswith(b"\r\n\r\nhello")


def test_chunks_and_trailers(host: Host) -> None:
    request = get("/echo", "Transfer-Encoding: chunked", "Connection: close", method="POST")
    status, _, body = ask(host, request + b"4;x=y\r\nhell\r\n1\r\no\r\n0\r\nX-Trailer: 1\r\n\r\n")
    assert (status, body) == (200, b"hello")


def test_expect_100_continue(host: Host) -> None:
    expect = get("/echo", "Content-Length: 5", "Expect: 100-continue", "Connection: close", method="POST")
    with host.connect() as sock:
        sock.sendall(expect)
        status, _, rest = read_head(sock)
        assert (status, rest) == (100, b"")
        sock.sendall(b"hello")
        status, _, rest = read_head(sock)
        assert (status, rest + read_all(sock)) == (200, b"hello")


def test_expect_100_continue_of_an_application_that_does_not_want_it(host: Host) -> None:
    status, head, body = ask(host, get("/deaf", "Content-Length: 5", "Expect: 100-continue", method="POST"))
    assert (status, body) == (413, b"no, thanks")
    assert b"connection: close" in head.lower()


def test_a_large_body_that_is_not_wanted(host: Host) -> None:
    """The client gets the answer although it was still sending: no reset takes it back."""
    with host.connect() as sock:
        sock.sendall(get("/deaf", "Content-Length: 3000000", method="POST") + b"x" * 3_000_000)
        status, head, body = read_head(sock)
        assert (status, body + read_all(sock)) == (413, b"no, thanks")
        assert b"connection: close" in head.lower()


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        (b"nonsense\r\n\r\n", 400, "malformed_request"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40), 400, "malformed_request"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "malformed_request"),  # no Host
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "malformed_request"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nBad Header: b\r\n\r\n", 400, "malformed_request"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400, "malformed_request"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, "malformed_request"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501, "not_implemented"),
        (b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", 400, "malformed_request"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 20_000, 431, "header_too_large"),
        (b"GET /" + b"x" * 20_000, 431, "header_too_large"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"a:b\r\n" * 4000 + b"\r\n", 431, "header_too_large"),
        (b"GET / HTTP/1.1\nHost: a\n\n", 400, "malformed_request"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: y\n\r\n", 400, "malformed_request"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n", 400, "malformed_request"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX:\r\n\tz\r\n\r\n", 400, "malformed_request"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\ncontent-length: 1\r\n\r\n", 400, "malformed_request"),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
            "malformed_request",
        ),
        (b"GET / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "malformed_request"),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505, "unsupported_version"),
    ],
)
def test_malformed_requests(host: Host, request_: bytes, status: int, code: str) -> None:
    found, head, body = ask(host, request_)
    assert (found, error_code(body)) == (status, code)
    assert b"connection: close" in head.lower()
    assert b"content-type: application/json" in head.lower()


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"HEAD / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"HEAD / HTTP/1.1\r\nHost: a\r\nX: y\n\r\n", 400),
        (b"HEAD / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    ],
)
def test_malformed_requests_for_a_head_alone(host: Host, request_: bytes, status: int) -> None:
    found, head, body = ask(host, request_)
    assert (found, body) == (status, b"")
    assert b"content-length: " in head.lower()


@pytest.mark.parametrize("size", [1, 20, -2, -1])
def test_a_request_that_does_not_arrive_whole_is_not_answered(host: Host, size: int) -> None:
    with host.connect() as sock:
        sock.sendall(get("/") + raw_upgrade("/realtime/ws")[:size])
        sock.shutdown(socket.SHUT_WR)
        assert read_response(sock)[0] == 200
        assert sock.recv(1) == b""


@pytest.mark.parametrize("path", ["/echo", "/realtime/send"])
def test_a_malformed_chunk(host: Host, path: str) -> None:
    headers = ("Transfer-Encoding: chunked", "Content-Type: application/json")
    status, _, body = ask(host, get(path, *headers, method="POST") + b"zz\r\nhello\r\n")
    assert (status, error_code(body)) == (400, "malformed_request")


@pytest.mark.parametrize("path", ["/echo", "/realtime/send"])
def test_a_body_that_ends_early(host: Host, path: str) -> None:
    with host.connect() as sock:
        sock.sendall(get(path, "Content-Type: application/json", "Content-Length: 5", method="POST") + b"he")
        sock.shutdown(socket.SHUT_WR)
        read_all(sock)
    assert ask(host, get("/", "Connection: close"))[0] == 200


# Handshakes


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ((b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Version: 8"), 426),
        ((b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", b"Sec-WebSocket-Key: short"), 400),
        ((b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n", b""), 400),
        ((b"GET", b"POST"), 405),
        ((b"Connection: Upgrade", b"Connection: close"), 426),
        ((b"HTTP/1.1", b"HTTP/1.0"), 400),
    ],
)
def test_handshakes_that_cannot_be(host: Host, change: tuple[bytes, bytes], status: int) -> None:
    found, head, body = ask(host, raw_upgrade().replace(*change))
    assert found == status
    assert error_code(body)
    if status == 405:
        assert b"allow: get" in head.lower()
    if status == 426:
        assert b"sec-websocket-version: 13" in head.lower()


def test_frames_that_come_with_the_handshake(host: Host) -> None:
    with host.connect() as sock:
        sock.sendall(raw_upgrade() + masked_frame(b"early"))
        status, _, data = read_head(sock)
        assert status == 101
        while b'"early"' not in data:
            data += sock.recv(65536)
        assert data.index(b'"connected"') < data.index(b'"early"')


def test_a_close_that_comes_with_the_handshake(host: Host) -> None:
    with host.connect() as sock:
        sock.sendall(raw_upgrade() + masked_frame(b"\x03\xe8", 8))
        assert read_all(sock).endswith(b"\x88\x02\x03\xe8")


# Deadlines


@pytest.fixture(scope="module")
def impatient(kind: HostKind) -> Iterator[Host]:
    settings = Settings(
        websocket=WebSocketSettings(handshake_timeout=0.2, heartbeat_interval=0.1, disconnect_timeout=0.1)
    )
    with run_host(kind, settings) as running:
        yield running


def test_whoever_says_nothing_is_cut(impatient: Host) -> None:
    with impatient.connect() as sock:
        assert read_all(sock) == b""


def test_whoever_says_too_little_is_told(impatient: Host) -> None:
    with impatient.connect() as sock:
        sock.sendall(b"GET /realtime/ws HTTP/1.1\r\nHost:")
        status, _, body = read_head(sock)
        assert (status, error_code(body + read_all(sock))) == (408, "request_timeout")


def test_whoever_does_not_answer_a_ping_is_closed(impatient: Host) -> None:
    with raw_websocket(impatient) as sock:
        frames = list(read_frames(sock))
    texts = [json.loads(payload) for opcode, payload in frames if opcode == 1]
    assert texts[-1]["type"] == "disconnect"
    assert (texts[-1]["code"], texts[-1]["reconnect"]) == (4408, True)
    assert [opcode for opcode, _ in frames].count(9) == 1
    assert int.from_bytes(frames[-1][1][:2], "big") == 4408


def test_whoever_answers_pings_stays(impatient: Host) -> None:
    with impatient.client() as client:
        heartbeats = [client.hear_type("heartbeat") for _ in range(5)]
        assert all(isinstance(heartbeat["timestamp"], int) for heartbeat in heartbeats)
        assert client.ask("ping")["ok"] is True


def test_a_flood_of_pings_from_whoever_does_not_read(impatient: Host) -> None:
    """The pongs do not pile up: the flood is not listened to, and its author is closed."""
    with raw_websocket(impatient, receive_buffer=4096) as sock:
        pings = masked_frame(b"x" * 125, 9) * 5000
        sock.settimeout(0.5)
        sent = 0
        try:
            while sent < 2**26:
                sent += sock.send(pings)
        except (TimeoutError, ConnectionError):
            pass
        assert sent < 2**26
        # It has as long as anybody for its Close frame, for which it would have to read.
        until = time.monotonic() + 3 * TIMEOUT
        while impatient.http.get("/stats").json()["total_connections"]:
            assert time.monotonic() < until
    with impatient.client() as other:
        assert other.ask("ping")["ok"] is True


# The end


def stopping(timeout: float = 5.0) -> Settings:
    return Settings(realtime=RealtimeSettings(shutdown_timeout=timeout))


def test_idle_connections_end(kind: HostKind) -> None:
    with run_host(kind, stopping(), beside=app) as host, host.connect() as fresh, host.connect() as used:
        used.sendall(get("/"))
        read_head(used)
        host.stop()
        assert read_all(fresh) == b""
        read_all(used)


def test_a_request_under_way_is_answered(kind: HostKind) -> None:
    with run_host(kind, stopping(), beside=app) as host, host.connect() as sock:
        sock.sendall(get("/echo", "Content-Length: 5", method="POST") + b"he")
        host.wait_for(lambda: bool(app.scopes))
        host.stop()
        sock.sendall(b"llo")
        assert read_all(sock).endswith(b"\r\n\r\nhello")


def test_websockets_of_the_application_are_told(kind: HostKind) -> None:
    with run_host(kind, stopping(), beside=app) as host, host.own_websocket("/echo") as client:
        client.send("here")
        assert client.recv(TIMEOUT) == "here"
        host.stop()
        with pytest.raises(ConnectionClosed, match="received 1012"):
            client.recv(TIMEOUT)
        assert app.left.wait(TIMEOUT)


def test_nobody_new_is_taken(kind: HostKind) -> None:
    with run_host(kind, stopping(), beside=app) as host, host.connect() as sock:
        sock.sendall(get("/wait"))
        read_head(sock)
        host.stop()
        host.wait_for(lambda: refused(host))


def refused(host: Host) -> bool:
    try:
        host.connect().close()
    except (ConnectionRefusedError, ConnectionResetError):
        return True
    return False


def test_whoever_does_not_read_holds_up_nothing(kind: HostKind) -> None:
    """Within the time for it: a WebSocket, an event stream, a response and an application that go nowhere."""
    with run_host(kind, stopping(0.5), beside=app) as host:
        stuck = [raw_websocket(host, "channel=room", receive_buffer=4096)]
        for request in (get("/realtime/events?channel=room"), get("/endless"), raw_upgrade("/flood")):
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.settimeout(TIMEOUT)
            sock.connect(("127.0.0.1", host.port))
            sock.sendall(request)
            sock.recv(10)
            stuck.append(sock)

        def flood() -> None:
            for _ in range(300):
                host.realtime.driver.publish("room", {"type": "tick", "data": "x" * 50_000})

        host.portal.call(flood)
        host.stop()
        # Leaving the context waits for the end of the server.
    for sock in stuck:
        sock.close()
