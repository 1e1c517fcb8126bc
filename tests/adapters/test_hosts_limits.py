"""What every host does at its limits: full, anonymous, switched off, held up by slow clients, and told to stop."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from websockets.exceptions import InvalidStatus

from rtcore_adapters import Settings
from rtcore_adapters.settings import RealtimeSettings, SseSettings, WebSocketSettings

from .clients import Client, read_frames
from .hosting import HOSTS, Host, HostKind, raw_websocket, run_host

each_host = pytest.mark.parametrize("kind", HOSTS, ids=str)


def turned_away(host: Host) -> dict[str, object]:
    """Open a WebSocket that is turned away; returns what it is told before the close."""
    with host.websocket() as websocket:
        client = Client(websocket, welcome=False)
        farewell = client.hear()
        assert client.closed() == (1013, "full")
        return farewell


# Full


@each_host
def test_full(kind: HostKind) -> None:
    settings = Settings(
        realtime=RealtimeSettings(max_connections=3),
        websocket=WebSocketSettings(max_connections=2),
        sse=SseSettings(max_connections=2),
    )
    with run_host(kind, settings) as host:
        with host.client() as one, host.client() as two:
            farewell = turned_away(host)
            assert (farewell["type"], farewell["code"], farewell["reconnect"]) == ("disconnect", 1013, True)
            assert farewell["retry_after"] == 5.0
            # There is room for an event stream, but all together may be three.
            with host.stream():
                response = host.http.get("/events")
                assert response.status_code == 503
                assert response.headers["retry-after"] == "5"
                assert response.json()["error"]["code"] == "full"
            host.wait_for(lambda: host.http.get("/stats").json()["sse_count"] == 0)
            assert one.ask("ping")["ok"] is True
            assert two.ask("ping")["ok"] is True
        host.wait_until_empty()
        with host.stream(), host.stream(), host.client() as client:
            assert host.http.get("/events").status_code == 503
            assert client.ask("ping")["ok"] is True
        host.wait_until_empty()
        with host.client(), host.client():
            assert host.http.get("/stats").json()["total_connections"] == 2


@each_host
def test_nobody_may_say_who_they_are(kind: HostKind) -> None:
    with (
        run_host(kind, Settings()) as host,
        host.client("user_id=ann") as client,
        host.stream("user_id=ann") as stream,
    ):
        assert client.connected["user_id"] is None
        assert stream.connected["user_id"] is None
        host.post("/send", {"user_id": "ann", "data": "secret"})
        host.post("/broadcast", {"data": "all"})
        assert client.hear()["data"] == "all"
        assert stream.hear()["data"] == "all"


@each_host
def test_switched_off(kind: HostKind) -> None:
    with run_host(kind, Settings(sse=SseSettings(enabled=False))) as host:
        response = host.http.get("/events")
        assert (response.status_code, response.json()["error"]["code"]) == (404, "not_found")
        with host.client() as client:
            assert client.ask("ping")["ok"] is True
    with run_host(kind, Settings(websocket=WebSocketSettings(enabled=False))) as host:
        assert host.http.get("/ws").status_code == 404
        with pytest.raises(InvalidStatus) as refused:
            host.websocket()
        assert refused.value.response.status_code == 404
        with host.stream() as stream:
            host.post("/broadcast", {"data": 1})
            assert stream.hear()["data"] == 1


@each_host
def test_the_prefix_may_be_anything(kind: HostKind) -> None:
    for prefix in ("", "/api/v1"):
        with run_host(kind, Settings(realtime=RealtimeSettings(prefix=prefix))) as host:
            assert kind.mounted or host.prefix == prefix
            assert host.http.get("/health").status_code == 200
            with host.client() as client, host.stream() as stream:
                host.post("/broadcast", {"data": 1})
                assert client.hear()["data"] == stream.hear()["data"] == 1


# Slow


@each_host
@pytest.mark.parametrize("transport", ["websocket", "event stream"])
def test_whoever_does_not_read_is_closed_and_holds_up_nobody(kind: HostKind, transport: str) -> None:
    settings = Settings(websocket=WebSocketSettings(max_message_size=100_000, message_queue_size=20))
    body = "x" * 90_000
    with run_host(kind, settings) as host, host.client("channel=flood") as quick, host.client() as publisher:
        if transport == "websocket":
            stuck = raw_websocket(host, "channel=flood", receive_buffer=4096)
        else:
            stuck = host.connect()
            head = f"GET {host.prefix}/events?channel=flood HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            stuck.sendall(head.encode())
        with stuck:
            host.wait_for(lambda: host.http.get("/stats").json()["total_connections"] == 3)
            sent = 0
            while host.http.get("/stats").json()["total_connections"] == 3:
                for _ in range(10):
                    publisher.say({"type": "tick", "channel": "flood", "number": sent, "data": body})
                    # The others never wait for the one that does not read.
                    assert quick.hear_type("tick")["number"] == sent
                    sent += 1
                assert sent < 500, "what is not read piles up without limit"
            # What was to be said is gone; why is told to whoever reads on.
            if transport == "websocket":
                frames = list(read_frames(stuck))
                heard = [json.loads(payload) for opcode, payload in frames if opcode == 1]
                assert heard.pop()["code"] == 4410
                assert int.from_bytes(frames[-1][1][:2], "big") == 4410
                assert len(heard) < sent
            else:
                # Not until the end of the connection: hypercorn leaves it open on trio.
                received = b""
                while b'"type":"disconnect","code":4410' not in received:
                    received = received[-100:] + stuck.recv(65536)
            assert quick.ask("ping")["ok"] is True


@each_host
def test_whoever_reads_slowly_hears_all(kind: HostKind) -> None:
    """A burst that does not fit into the buffers of the network waits in the backlog."""
    with run_host(kind, Settings()) as host, host.client() as publisher:
        sock = raw_websocket(host, "channel=flood", receive_buffer=4096)
        with sock:
            total = 60
            for number in range(total):
                publisher.say({"type": "tick", "channel": "flood", "data": "x" * 50_000, "id": number})
                assert publisher.hear()["id"] == number
            received = bytearray()
            while received.count(b'"tick"') < total or not received.endswith(b"}"):
                received += sock.recv(65536)
            assert b"disconnect" not in received


# Stopping


# A mounted application is not told that its server stops: there only the server's own farewell is to be had.
@pytest.fixture(params=[kind for kind in HOSTS if not kind.mounted], ids=str)
def stopping_host(request: pytest.FixtureRequest) -> Iterator[Host]:
    kind: HostKind = request.param
    settings = Settings(realtime=RealtimeSettings(shutdown_timeout=2.0))
    with run_host(kind, settings) as host:
        yield host


def test_everybody_is_told_to_come_back(stopping_host: Host) -> None:
    host = stopping_host
    with host.client() as client, host.stream() as stream:
        host.stop()
        farewell = client.hear()
        assert (farewell["type"], farewell["code"], farewell["reconnect"]) == ("disconnect", 1012, True)
        assert client.closed()[0] == 1012
        assert stream.hear()["$event"] == "disconnect"
        with pytest.raises(EOFError):
            stream.next_event()


def test_what_was_said_before_is_heard(stopping_host: Host) -> None:
    host = stopping_host
    with host.client("channel=room") as client, host.stream("channel=room") as stream:

        def publish() -> None:
            for number in range(200):
                host.realtime.driver.publish("room", {"type": "tick", "number": number, "data": "x" * 1000})
            host.realtime.driver.drain()

        host.portal.call(publish)
        host.stop()
        assert [client.hear_type("tick")["number"] for _ in range(200)] == list(range(200))
        assert [stream.hear_type("tick")["number"] for _ in range(200)] == list(range(200))
        assert client.hear()["type"] == "disconnect"
        assert stream.hear()["type"] == "disconnect"
