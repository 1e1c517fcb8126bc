"""``/ws`` on every host: what clients say, what they hear and how they are told that something is wrong."""

from __future__ import annotations

import json
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from websockets.exceptions import InvalidStatus

from rtcore.messages import RESERVED_TYPES

from .clients import Client, masked_frame, read_frames
from .conftest import MAX_MESSAGE_SIZE
from .hosting import Host, raw_websocket

# Connecting


def test_connected(host: Host) -> None:
    with host.client("user_id=ann&channel=a&channel=b&channel=a") as client:
        assert client.connected == {
            "type": "connected",
            "connection_id": client.connection_id,
            "user_id": "ann",
            "protocol": 1,
            "heartbeat_interval": 30.0,
            "channels": ["a", "b"],
            "session_epoch": None,
            "last_event_id": client.connected["last_event_id"],
            "presence": client.connected["presence"],
        }
        roster = client.connected["presence"]["a"]
        assert roster["users"] == [{"user_id": "ann", "connection_id": client.connection_id}]
        assert client.websocket.subprotocol is None
    assert client.websocket.close_code == 1000


def test_connection_ids_differ(host: Host) -> None:
    with host.client() as one, host.client() as two:
        assert one.connection_id != two.connection_id
        assert one.connected["user_id"] is None


@pytest.mark.parametrize("query", ["channel=%24secret", "channel=", "user_id=%00", "channel=%ff"])
def test_a_query_that_cannot_be(host: Host, query: str) -> None:
    with host.websocket(query=query) as websocket:
        client = Client(websocket, welcome=False)
        farewell = client.hear()
        assert (farewell["type"], farewell["code"], farewell["reconnect"]) == ("disconnect", 4400, False)
        assert farewell["reason"]
        assert client.closed()[0] == 4400


@pytest.mark.parametrize("path", ["/nothing", "/events", "/ws/"])
def test_another_path(host: Host, path: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        host.websocket(path)
    assert refused.value.response.status_code == 404
    assert b'"not_found"' in refused.value.response.body


# Talking


def test_text_comes_back(host: Host) -> None:
    with host.client() as client:
        for text in ("hello", '"hello"', "[1]", '{"data": 1}', "{", "Größe 🎈 \u2028", ""):
            client.say(text)
            heard = client.hear()
            assert (heard["type"], heard["data"]) == ("text", text)
            assert heard["meta"]["sender"] == {"connection_id": client.connection_id, "user_id": None}
        client.say({"type": "text", "data": {"a": 1}, "more": [1]})
        heard = client.hear()
        assert (heard["data"], heard["more"]) == ({"a": 1}, [1])


def test_publish_to_a_channel(host: Host) -> None:
    with host.client("channel=room&user_id=ann") as one, host.client("channel=room") as two:
        one.hear_type("user_joined")
        one.say({"type": "channel_message", "channel": "room", "message": "Привет", "id": 7})

        heard = two.hear()
        meta = heard.pop("meta")
        assert heard == {"type": "channel_message", "channel": "room", "message": "Привет", "id": 7}
        assert meta["sender"] == {"connection_id": one.connection_id, "user_id": "ann"}
        assert one.hear()["meta"] == meta
        receipt = {"channel": "room", "offset": meta["offset"], "epoch": meta["epoch"]}
        assert one.hear() == {"type": "response", "id": 7, "ok": True, "data": receipt}


def test_publish_without_an_echo(host: Host) -> None:
    with host.client("channel=room") as one, host.client("channel=room") as two:
        one.hear_type("user_joined")
        one.say({"type": "note", "channel": "room", "echo": False, "text": "psst"})
        one.say({"type": "note", "channel": "room", "text": "all"})
        assert two.hear()["text"] == "psst"
        assert two.hear()["text"] == "all"
        assert one.hear()["text"] == "all"


def test_publish_without_having_joined(host: Host) -> None:
    with host.client() as one, host.client("channel=room") as two:
        one.say({"type": "note", "channel": "room", "text": "from outside", "id": "a"})
        assert one.hear()["type"] == "response"
        assert two.hear()["text"] == "from outside"


def test_direct_messages(host: Host) -> None:
    with host.client("user_id=7") as one, host.client("user_id=7") as two, host.client("user_id=bob") as sender:
        sender.say({"type": "wave", "recipient_id": 7, "id": "a"})
        assert sender.hear()["type"] == "response"
        for client in (one, two):
            heard = client.hear()
            assert (heard["type"], heard["recipient_id"]) == ("wave", "7")
            assert heard["meta"]["sender"]["user_id"] == "bob"


def test_commands(host: Host) -> None:
    with host.client("user_id=ann") as client:
        assert isinstance(client.ask("ping")["data"]["timestamp"], int)
        joined = client.join("room")
        there = {"count": 1, "users": [{"user_id": "ann", "connection_id": client.connection_id}]}
        assert joined["channel"] == "room"
        assert {name: joined["presence"][name] for name in there} == there
        assert client.ask("presence", channel="room")["data"] == {"channel": "room", **there}
        assert client.ask("get_active_users")["data"]["users"] == ["ann"]
        assert client.ask("get_connection_stats")["data"]["active_channels"] >= 1
        assert client.ask("leave_channel", channel="room")["data"] == {"channel": "room"}
        assert client.ask("leave_channel", channel="room")["data"] == {"channel": "room"}
        assert client.ask("presence", channel="room")["data"]["count"] == 0


def test_a_command_without_an_id_is_not_answered(host: Host) -> None:
    with host.client() as client:
        client.say({"type": "command", "command": "ping"})
        assert client.ask("ping")["id"] == "ask-1"


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ({"type": "command", "command": "explode"}, "unknown_command"),
        ({"type": "command"}, "unknown_command"),
        ({"type": "command", "command": ["ping"]}, "unknown_command"),
        ({"type": "command", "command": "ping", "data": 5}, "invalid_data"),
        ({"type": "command", "command": "join_channel", "data": {}}, "invalid_channel"),
        ({"type": "command", "command": "join_channel", "data": {"channel": "$all"}}, "invalid_channel"),
        ({"type": 5}, "invalid_type"),
        ({"type": None}, "invalid_type"),
        ({"type": "note", "channel": "a\x00"}, "invalid_channel"),
        ({"type": "note", "recipient_id": {}}, "invalid_user_id"),
        ({"type": "note", "channel": "a", "echo": "yes"}, "invalid_echo"),
        ({"type": "note", "channel": "a", "event": "a\nb"}, "invalid_event"),
        ({"type": "note", "channel": "a", "event": "heartbeat"}, "reserved_event"),
        ({"type": "note"}, "unhandled_type"),
    ],
)
def test_what_is_refused(host: Host, message: dict[str, object], code: str) -> None:
    with host.client() as client:
        client.say({**message, "id": "x"})
        answer = client.hear()
        assert (answer["type"], answer["id"], answer["code"]) == ("error", "x", code)
        assert answer["message"]
        client.say(message)
        answer = client.hear()
        assert (answer["type"], answer["code"], "id" in answer) == ("error", code, False)
        assert client.ask("ping")["ok"] is True


def test_an_id_that_cannot_be(host: Host) -> None:
    with host.client() as client:
        client.say({"type": "text", "data": 1, "id": [1]})
        answer = client.hear()
        assert (answer["type"], answer["code"], "id" in answer) == ("error", "invalid_id", False)


def test_reserved_types_come_from_the_server_only(host: Host) -> None:
    with host.client("channel=room") as client:
        for kind in sorted(RESERVED_TYPES - {"webrtc_signal"}):
            client.say({"type": kind, "channel": "room", "id": kind})
            answer = client.hear()
            assert (answer["type"], answer["id"], answer["code"]) == ("error", kind, "reserved_type")


def test_a_malformed_binary_frame_is_refused_and_harms_nobody(host: Host) -> None:
    with host.client() as client:
        client.say(b"\x00\x00\x00\x02{}bytes")
        answer = client.hear()
        assert (answer["type"], answer["code"]) == ("error", "malformed_binary")
        assert client.ask("ping")["ok"] is True


def test_an_object_nested_too_deep_is_refused(host: Host) -> None:
    deep = '{"type": "note", "channel": "room", "data": ' + "[" * 200 + "]" * 200 + "}"
    with host.client("channel=room") as client:
        client.say(deep)
        heard = client.hear()
        assert (heard["type"], heard["code"]) == ("error", "too_deep")


# Presence


def test_presence(host: Host) -> None:
    with host.client("channel=room&user_id=ann") as ann:
        with host.client("channel=room&user_id=bob") as bob:
            joined = ann.hear()
            meta = joined.pop("meta")
            told = {"channel": "room", "user_id": "bob", "connection_id": bob.connection_id}
            assert joined == {"type": "user_joined", **told}
            assert meta["sender"] == {"connection_id": bob.connection_id, "user_id": "bob"}
            with host.client("channel=room&user_id=bob") as again:
                assert again.ask("presence", channel="room")["data"]["count"] == 2
        left = ann.hear()
        assert (left["type"], left["user_id"]) == ("user_left", "bob")


def test_whoever_vanishes_has_left(host: Host) -> None:
    with host.client("channel=room") as client:
        sock = raw_websocket(host, "channel=room&user_id=bob")
        assert client.hear()["user_id"] == "bob"
        # With a reset, as of a machine that is gone.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        sock.close()
        assert client.hear()["type"] == "user_left"


# Order


def test_many_publishers_and_subscribers(host: Host) -> None:
    """Each subscriber hears every message once, in the order of the offsets, whoever publishes meanwhile."""
    subscribers, publishers, each = 8, 4, 30
    total = publishers * each
    with ExitStack() as stack:
        hearing = [stack.enter_context(host.client("channel=stream")) for _ in range(subscribers)]
        talking = [stack.enter_context(host.client()) for _ in range(publishers - 1)]
        hearing[0].join("stream")

        def publish_by_websocket(index: int) -> None:
            for number in range(each):
                talking[index].say({"type": "tick", "channel": "stream", "publisher": index, "number": number})

        def publish_by_http(index: int) -> None:
            for number in range(each):
                body = {"type": "tick", "channel": "stream", "publisher": index, "number": number}
                assert host.http.post("/send", json=body).status_code == 200

        def hear_all(client: Client) -> list[tuple[int, int, int]]:
            heard = [client.hear_type("tick") for _ in range(total)]
            return [(each["meta"]["offset"], each["publisher"], each["number"]) for each in heard]

        with ThreadPoolExecutor(subscribers + publishers) as pool:
            listening = [pool.submit(hear_all, client) for client in hearing]
            speaking = [pool.submit(publish_by_websocket, index) for index in range(publishers - 1)]
            speaking.append(pool.submit(publish_by_http, publishers - 1))
            for future in speaking:
                future.result()
            heard = [future.result() for future in listening]

    assert all(one == heard[0] for one in heard)
    first = heard[0][0][0]
    assert [offset for offset, _, _ in heard[0]] == list(range(first, first + total))
    for publisher in range(publishers):
        assert [number for _, who, number in heard[0] if who == publisher] == list(range(each))


def test_answers_and_publications_keep_their_order(host: Host) -> None:
    with host.client("channel=room") as client:
        for number in range(100):
            client.say({"type": "tick", "channel": "room", "id": number})
        for number in range(100):
            assert client.hear()["type"] == "tick"
            assert client.hear()["id"] == number


# What breaks the protocol


def test_a_message_that_is_too_big(host: Host) -> None:
    with host.client("channel=room") as other, host.client() as client:
        client.say({"type": "text", "data": "x" * (MAX_MESSAGE_SIZE - 100)})
        assert client.hear()["type"] == "text"
        client.say({"type": "text", "data": "x" * MAX_MESSAGE_SIZE})
        assert client.closed()[0] == 1009
        assert other.ask("ping")["ok"] is True


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\xc1\x81\x00\x00\x00\x00a", 1002),  # a reserved bit
        (b"\x83\x80\x00\x00\x00\x00", 1002),  # a reserved opcode
        (b"\x81\x01a", 1002),  # not masked
        (b"\x80\x80\x00\x00\x00\x00", 1002),  # goes on with nothing
        (b"\x09\x80\x00\x00\x00\x00", 1002),  # a ping in parts
        (masked_frame(b"\xff"), 1007),
        (masked_frame(b"\x03", 8), 1002),  # half a close code
    ],
)
def test_frames_that_cannot_be(host: Host, frame: bytes, code: int) -> None:
    with host.client() as other, raw_websocket(host) as sock:
        sock.sendall(frame)
        frames = list(read_frames(sock))
        if host.kind.server != "hypercorn":  # it just ends the connection
            assert frames[-1][0] == 8
            assert int.from_bytes(frames[-1][1][:2], "big") == code
        if host.kind.server == "native" and not host.kind.mounted:
            farewell = json.loads(frames[-2][1])
            assert (farewell["type"], farewell["code"], farewell["reconnect"]) == ("disconnect", code, False)
        assert other.ask("ping")["ok"] is True


def test_ping_is_answered(host: Host) -> None:
    with host.client() as client:
        assert client.websocket.ping(b"are you there").wait(10)


def test_text_that_comes_in_fragments(host: Host) -> None:
    with host.client() as client:
        client.websocket.send(iter(['{"type": "te', 'xt", "da', 'ta": "Größe"}']))
        assert client.hear()["data"] == "Größe"
