"""The native server over TLS, where a stream carries the bytes instead of a bare socket."""

from __future__ import annotations

import gc
import json
import logging
import socket
import ssl
from collections.abc import Iterator

import pytest
import trustme
from starlette.types import Receive, Scope, Send

from rtcore_adapters import Settings
from rtcore_adapters.settings import RealtimeSettings, WebSocketSettings

from ..adapters.clients import TIMEOUT, get, raw_upgrade, read_all, read_frames, read_head, read_response
from ..adapters.hosting import NATIVE, Host, HostKind, Tls, run_host


@pytest.fixture(scope="module")
def tls() -> Tls:
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return Tls(server, client)


@pytest.fixture(params=NATIVE, ids=str, scope="module")
def kind(request: pytest.FixtureRequest) -> HostKind:
    found: HostKind = request.param
    return found


async def tell_the_scheme(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the scheme, by HTTP or by WebSocket."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": scope["scheme"]})
    elif scope["type"] == "http":
        # What is encrypted cannot be sent straight from a file.
        assert "extensions" not in scope
        body = scope["scheme"].encode()
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


@pytest.fixture(scope="module")
def host(kind: HostKind, tls: Tls) -> Iterator[Host]:
    with run_host(kind, Settings(), beside=tell_the_scheme, tls=tls) as running:
        yield running


def secure(host: Host, tls: Tls, *, receive_buffer: int | None = None) -> ssl.SSLSocket:
    """Open a TLS connection as a socket."""
    sock = socket.socket()
    sock.settimeout(TIMEOUT)
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.connect(("127.0.0.1", host.port))
    return tls.client.wrap_socket(sock, server_hostname="127.0.0.1")


def open_raw(host: Host, tls: Tls, query: str, *, receive_buffer: int | None = None) -> ssl.SSLSocket:
    """Open a WebSocket of which nothing but the handshake is read."""
    sock = secure(host, tls, receive_buffer=receive_buffer)
    sock.sendall(raw_upgrade(f"/realtime/ws?{query}"))
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        data += sock.recv(1)
    assert data.startswith(b"HTTP/1.1 101 ")
    return sock


def test_everything_is_there(host: Host) -> None:
    with host.client("channel=room") as client, host.stream("channel=room") as stream:
        client.hear_type("user_joined")
        for number in range(20):
            client.say({"type": "tick", "channel": "room", "number": number})
            host.post("/send", {"channel": "room", "type": "tock", "number": number})
            assert client.hear()["number"] == number
            assert client.hear()["number"] == number
            assert stream.hear()["number"] == number
            assert stream.hear()["number"] == number
        assert client.ask("ping")["ok"] is True
    assert client.websocket.close_code == 1000


def test_a_large_message(host: Host) -> None:
    with host.client("channel=room") as client, host.stream("channel=room") as stream:
        client.hear_type("user_joined")
        text = "Größe" * 50_000
        client.say({"type": "note", "channel": "room", "data": text})
        assert client.hear_type("note")["data"] == text
        assert stream.hear_type("note")["data"] == text


def test_keep_alive_and_pipelining(host: Host, tls: Tls) -> None:
    with secure(host, tls) as sock:
        sock.sendall(get("/realtime/health"))
        assert read_response(sock)[0] == 200
        sock.sendall(get("/realtime/health") + get("/realtime/stats", "Connection: close"))
        assert read_all(sock).count(b"HTTP/1.1 200 OK") == 2


def test_the_scheme(host: Host, tls: Tls) -> None:
    assert host.http.get(f"https://127.0.0.1:{host.port}/").text == "https"
    with host.own_websocket("/", ssl=tls.client) as client:
        assert client.recv(TIMEOUT) == "wss"


def test_close_by_force(host: Host) -> None:
    with host.client() as client, host.stream() as stream:
        host.http.delete(f"/connections/{client.connection_id}")
        host.http.delete(f"/connections/{stream.connection_id}")
        assert client.closed()[0] == 1000
        assert stream.hear()["type"] == "disconnect"
        with pytest.raises(EOFError):
            stream.next_event()


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"\x16\x03\x01\x00\x00", b"\0" * 1000, b""])
def test_whoever_speaks_no_tls(host: Host, data: bytes) -> None:
    with host.connect() as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        read_all(sock)
    assert host.http.get("/health").status_code == 200


def test_whoever_does_not_trust_the_server(host: Host) -> None:
    with host.connect() as sock, pytest.raises(ssl.SSLCertVerificationError):
        ssl.create_default_context().wrap_socket(sock, server_hostname="127.0.0.1")
    assert host.http.get("/health").status_code == 200


def test_whoever_ends_without_a_goodbye(host: Host, tls: Tls) -> None:
    with host.client("channel=room") as client:
        sock = open_raw(host, tls, "channel=room")
        assert client.hear()["type"] == "user_joined"
        socket.close(sock.detach())
        assert client.hear()["type"] == "user_left"


@pytest.fixture(scope="module")
def impatient(kind: HostKind, tls: Tls) -> Iterator[Host]:
    settings = Settings(
        websocket=WebSocketSettings(handshake_timeout=0.3, heartbeat_interval=0.1, disconnect_timeout=0.1)
    )
    with run_host(kind, settings, tls=tls) as running:
        yield running


def test_whoever_does_not_finish_the_handshake(impatient: Host) -> None:
    with impatient.connect() as sock:
        assert read_all(sock) == b""
    with impatient.connect() as sock:
        sock.sendall(b"\x16\x03\x01\x02\x00")
        assert read_all(sock) == b""


def test_whoever_says_nothing_after_it(impatient: Host, tls: Tls) -> None:
    with secure(impatient, tls) as sock:
        assert read_all(sock) == b""


def test_whoever_does_not_answer_a_ping(impatient: Host, tls: Tls) -> None:
    with open_raw(impatient, tls, "") as sock:
        frames = list(read_frames(sock))
        assert json.loads(frames[-2][1])["code"] == 4408
        assert int.from_bytes(frames[-1][1][:2], "big") == 4408


@pytest.mark.parametrize("transport", ["websocket", "event stream"])
def test_whoever_does_not_read(kind: HostKind, tls: Tls, transport: str) -> None:
    settings = Settings(websocket=WebSocketSettings(max_message_size=100_000, message_queue_size=20))
    with run_host(kind, settings, tls=tls) as host, host.client("channel=flood") as quick, host.client() as publisher:
        if transport == "websocket":
            stuck = open_raw(host, tls, "channel=flood", receive_buffer=4096)
        else:
            stuck = secure(host, tls, receive_buffer=4096)
            stuck.sendall(get("/realtime/events?channel=flood"))
            read_head(stuck)
        with stuck:
            host.wait_for(lambda: host.http.get("/stats").json()["total_connections"] == 3)
            sent = 0
            while host.http.get("/stats").json()["total_connections"] == 3:
                for _ in range(10):
                    publisher.say({"type": "tick", "channel": "flood", "number": sent, "data": "x" * 90_000})
                    assert quick.hear_type("tick")["number"] == sent
                    sent += 1
                assert sent < 500
            received = b""
            while b'"type":"disconnect","code":4410' not in received:
                received = received[-100:] + stuck.recv(65536)


def test_the_end(kind: HostKind, tls: Tls) -> None:
    """Clients are told, and nobody holds it up: whoever reads nothing, nor whoever is in the midst of a handshake."""
    settings = Settings(realtime=RealtimeSettings(shutdown_timeout=0.5))
    with run_host(kind, settings, tls=tls) as host, host.connect() as silent, secure(host, tls) as idle:
        with host.client() as client, host.stream() as stream, open_raw(host, tls, "channel=room") as stuck:

            def flood() -> None:
                for _ in range(200):
                    host.realtime.driver.publish("room", {"type": "tick", "data": "x" * 50_000})

            host.portal.call(flood)
            host.stop()
            assert client.closed()[0] == 1012
            assert stream.hear()["type"] == "disconnect"
            with pytest.raises(EOFError):
                stream.next_event()
            del stuck
        assert read_all(idle) == b""
        assert read_all(silent) == b""
    # A socket that was forgotten would be told of now, as a warning, which is an error here.
    gc.collect()


def test_certificates_are_the_only_thing_logged(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "rtcore"):
        with host.connect() as sock:
            sock.sendall(b"nonsense, and more of it than a record has in its head")
            read_all(sock)
        host.wait_for(lambda: "no TLS with" in caplog.text)
