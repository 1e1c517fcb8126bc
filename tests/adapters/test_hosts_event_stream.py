"""``/events`` on every host: what a stream carries, in which order, and how it begins and ends."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import count

import pytest

from .clients import Stream
from .hosting import Host

# How it begins


def test_the_head(host: Host) -> None:
    with host.stream() as stream:
        headers = stream.response.headers
        assert headers["content-type"] == "text/event-stream; charset=utf-8"
        assert headers["cache-control"] == "no-cache, no-transform"
        assert headers["x-accel-buffering"] == "no"
        assert "access-control-allow-origin" not in headers
        assert headers["vary"] == "Origin"
        assert "content-encoding" not in headers
        assert "content-length" not in headers


def test_retry_then_connected(host: Host) -> None:
    with host.stream("user_id=ann&channel=a&channel=b") as stream:
        assert stream.retry == {"retry": "3000"}
        assert stream.connected == {
            "type": "connected",
            "connection_id": stream.connection_id,
            "user_id": "ann",
            "protocol": 1,
            "heartbeat_interval": 30.0,
            "channels": ["a", "b"],
            "session_epoch": None,
            "last_event_id": stream.connected["last_event_id"],
            "presence": stream.connected["presence"],
            "$event": "connected",
        }
        roster = stream.connected["presence"]["b"]
        assert roster["users"] == [{"user_id": "ann", "connection_id": stream.connection_id}]


# What it carries


def test_from_websockets_and_http_in_order(host: Host) -> None:
    with host.stream("channel=room&user_id=eve") as stream, host.client("channel=room&user_id=ann") as client:
        stream.hear_type("user_joined")
        expected: list[dict[str, object]] = []
        for number in range(20):
            client.say({"type": "tick", "channel": "room", "number": number, "id": number})
            expected.append(client.hear_type("tick"))
            assert client.hear()["id"] == number
            host.post("/send", {"channel": "room", "type": "tock", "number": number})
            expected.append(client.hear_type("tock"))
        assert [stream.hear() for _ in expected] == expected
        offsets = [message["meta"]["offset"] for message in expected]  # type: ignore[index]
        assert offsets == list(range(offsets[0], offsets[0] + 40))


def test_plain_types_have_no_event_name(host: Host) -> None:
    with host.stream("channel=room&user_id=ann") as stream:
        host.post("/send", {"channel": "room", "data": 1})
        host.post("/send", {"user_id": "ann", "data": 2})
        host.post("/send", {"connection_id": stream.connection_id, "data": 3})
        host.post("/broadcast", {"data": 4})
        host.post("/send", {"channel": "room", "type": "goal", "data": 5})
        assert list(stream.next_event()) == ["id"]
        heard = [stream.next_event() for _ in range(5)]
    assert [sorted(fields) for fields in heard] == [["data", "id"]] * 5


def test_server_types_are_named_events(host: Host) -> None:
    with host.stream("channel=room&user_id=ann") as stream:
        host.post("/notifications/send", {"user_id": "ann", "title": "a", "content": "b"})
        host.post("/notifications/channel", {"channel": "room", "title": "a", "content": "b"})
        host.post("/notifications/broadcast", {"title": "a", "content": "b"})
        assert [stream.hear()["$event"] for _ in range(3)] == ["notification"] * 3
        with host.client("channel=room"):
            assert stream.hear()["$event"] == "user_joined"
        assert stream.hear()["$event"] == "user_left"


def test_a_publisher_may_name_an_event(host: Host) -> None:
    with host.stream("channel=room") as stream, host.client() as client:
        host.post("/send", {"channel": "room", "event": "goal", "data": 1})
        client.say({"type": "note", "channel": "room", "event": "tor", "data": 2})
        assert [stream.hear()["$event"] for _ in range(2)] == ["goal", "tor"]


def test_text_that_breaks_lines_elsewhere(host: Host) -> None:
    text = "one\ntwo\r\nthree\rfour\u2028five\u2029six\x85seven\x0beight\0 data: nine\n\nevent: ten\n\n🎈"
    with host.stream("channel=room") as stream:
        host.post("/send", {"channel": "room", "data": text})
        host.post("/send", {"channel": "room", "data": "last"})
        assert stream.hear()["data"] == text
        assert stream.hear()["data"] == "last"


def test_a_large_message(host: Host) -> None:
    text = "Größe" * 8_000
    with host.stream("channel=room") as stream:
        host.post("/send", {"channel": "room", "data": text})
        assert stream.hear()["data"] == text


def test_many_streams_hear_the_same(host: Host) -> None:
    streams, total = 6, 60
    with ExitStack() as stack:
        hearing = [stack.enter_context(host.stream("channel=news")) for _ in range(streams)]
        client = stack.enter_context(host.client())

        def hear_all(stream: Stream) -> list[int]:
            return [stream.hear_type("tick")["meta"]["offset"] for _ in range(total)]

        with ThreadPoolExecutor(streams) as pool:
            listening = [pool.submit(hear_all, stream) for stream in hearing]
            for number in range(total):
                client.say({"type": "tick", "channel": "news", "number": number})
            heard = [future.result() for future in listening]
    first = heard[0][0]
    assert heard == [list(range(first, first + total))] * streams


# How it ends


def test_whoever_goes_away_has_left(host: Host) -> None:
    with host.client("channel=room") as client:
        with host.stream("channel=room&user_id=bob"):
            assert client.hear_type("user_joined")["user_id"] == "bob"
        assert client.hear_type("user_left")["user_id"] == "bob"


def test_a_client_that_goes_away_while_much_is_sent(host: Host) -> None:
    done = threading.Event()

    def publish() -> None:
        with host.client() as client:
            for number in count():
                if done.is_set():
                    break
                client.say({"type": "tick", "channel": "room", "data": "x" * 10_000, "id": number})
                client.hear()

    with host.client("channel=other") as other, ThreadPoolExecutor(1) as pool:
        publishing = pool.submit(publish)
        try:
            for _ in range(5):
                with host.stream("channel=room") as stream:
                    stream.hear_type("tick")
            assert other.ask("ping")["ok"] is True
        finally:
            done.set()
        publishing.result()
    host.wait_until_empty()


# Who may come


@pytest.mark.parametrize("path", ["/events/", "/Events"])
def test_another_path(host: Host, path: str) -> None:
    assert host.http.get(path).status_code == 404
