"""The HTTP API on every host: what it answers, and in which shape it refuses."""

from __future__ import annotations

import json

import httpx2
import pytest

from rtcore_adapters import Settings
from rtcore_adapters.pages import CONTENT_TYPES
from rtcore_adapters.settings import RealtimeSettings

from .conftest import MAX_MESSAGE_SIZE
from .hosting import HOSTS, Host, HostKind, run_host


def assert_refused(response: httpx2.Response, status: int, code: str) -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert list(body) == ["error"]
    assert list(body["error"]) == ["code", "message"]
    assert body["error"]["code"] == code
    assert body["error"]["message"]


# Publishing


def test_send_to_a_channel(host: Host) -> None:
    with host.client("channel=news") as client:
        receipt = host.post("/send", {"channel": "news", "data": {"price": 1}})
        heard = client.hear()

    assert sorted(receipt) == ["epoch", "id", "offset"]
    meta = heard.pop("meta")
    assert heard == {"type": "channel_message", "channel": "news", "data": {"price": 1}}
    assert {name: meta[name] for name in receipt} == receipt
    assert meta["sender"] == {"connection_id": None, "user_id": None}
    assert isinstance(meta["timestamp"], int)


def test_send_to_a_user(host: Host) -> None:
    with host.client("user_id=ann") as one, host.client("user_id=ann") as two, host.client("user_id=bob") as other:
        host.post("/send", {"user_id": "ann", "type": "invitation", "room": "Größe 7"})
        host.post("/broadcast", {"data": "last"})

        for client in (one, two):
            heard = client.hear()
            assert (heard["type"], heard["room"]) == ("invitation", "Größe 7")
            assert client.hear()["type"] == "broadcast"
        assert other.hear()["type"] == "broadcast"


def test_a_number_names_the_user_of_its_decimal_form(host: Host) -> None:
    with host.client("user_id=7") as client:
        host.post("/send", {"user_id": 7, "data": 1})
        heard = client.hear()
    assert (heard["type"], heard["data"]) == ("user_message", 1)


def test_send_to_a_connection(host: Host) -> None:
    with host.client("user_id=ann") as one, host.client("user_id=ann") as two:
        host.post("/send", {"connection_id": two.connection_id, "data": "only you"})
        host.post("/broadcast", "last")

        assert two.hear()["data"] == "only you"
        assert two.hear()["type"] == "broadcast"
        assert one.hear()["type"] == "broadcast"


def test_a_payload_that_is_no_object(host: Host) -> None:
    with host.client() as client:
        host.post("/broadcast", [1, None, "zwei"])
        heard = client.hear()
    assert (heard["type"], heard["data"]) == ("broadcast", [1, None, "zwei"])


def test_a_type_and_fields_of_ones_own_pass_through(host: Host) -> None:
    with host.client("channel=news") as client:
        host.post("/send", {"channel": "news", "type": "goal", "team": {"id": 1.5}, "event": "goal"})
        heard = client.hear()
    assert (heard["type"], heard["team"], heard["event"]) == ("goal", {"id": 1.5}, "goal")


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/notifications/send", {"user_id": "ann"}),
        ("/notifications/channel", {"channel": "news"}),
        ("/notifications/broadcast", {}),
    ],
)
def test_notifications(host: Host, path: str, target: dict[str, str]) -> None:
    with host.client("user_id=ann&channel=news") as client:
        host.post(path, {**target, "title": "Disk", "content": "90 % full", "type": "warning", "auto_hide": False})
        heard = client.hear()
    assert heard["type"] == "notification"
    assert heard["data"] == {"title": "Disk", "content": "90 % full", "type": "warning", "auto_hide": False}


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/send", {"data": 1}, 422, "missing_target"),
        ("/send", {"channel": "a", "user_id": "b"}, 422, "missing_target"),
        ("/send", [1], 422, "missing_target"),
        ("/send", {"channel": ""}, 422, "invalid_channel"),
        ("/send", {"channel": "$broadcast"}, 422, "invalid_channel"),
        ("/send", {"channel": 5}, 422, "invalid_channel"),
        ("/send", {"channel": "a\nb"}, 422, "invalid_channel"),
        ("/send", {"user_id": True}, 422, "invalid_user_id"),
        ("/send", {"user_id": "x" * 300}, 422, "invalid_user_id"),
        ("/send", {"connection_id": "nobody"}, 404, "not_found"),
        ("/send", {"channel": "a", "type": 5}, 422, "invalid_type"),
        ("/send", {"channel": "a", "type": "connected"}, 403, "reserved_type"),
        ("/send", {"channel": "a", "type": "command"}, 403, "reserved_type"),
        ("/send", {"channel": "a", "type": "broadcast"}, 403, "reserved_type"),
        ("/send", {"channel": "a", "event": "a\nb"}, 422, "invalid_event"),
        ("/send", {"channel": "a", "event": "heartbeat"}, 403, "reserved_event"),
        ("/broadcast", {"type": "notification"}, 403, "reserved_type"),
        ("/broadcast", {"event": "connected"}, 403, "reserved_event"),
        ("/notifications/send", {"title": "a", "content": "b"}, 422, "missing_target"),
        ("/notifications/send", {"user_id": [], "title": "a", "content": "b"}, 422, "invalid_user_id"),
        ("/notifications/channel", {"title": "a", "content": "b"}, 422, "missing_target"),
        ("/notifications/channel", {"channel": "$x", "title": "a", "content": "b"}, 422, "invalid_channel"),
        ("/notifications/broadcast", {"title": "a"}, 422, "invalid_notification"),
        ("/notifications/broadcast", {"title": "a", "content": "b", "type": "loud"}, 422, "invalid_notification"),
        ("/notifications/broadcast", {"title": "a", "content": "b", "duration": -1}, 422, "invalid_notification"),
        ("/notifications/broadcast", "hello", 422, "invalid_notification"),
    ],
)
def test_what_is_refused(host: Host, path: str, body: object, status: int, code: str) -> None:
    assert_refused(host.http.post(path, json=body), status, code)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"nonsense", b"\xff\xfe", b'{"a": "\xed\xa0\x80"}', b'{"data": "\\ud800", "channel": "a"}']
)
def test_a_body_that_is_no_json(host: Host, content: bytes) -> None:
    response = host.http.post("/send", content=content, headers={"content-type": "application/json"})
    assert_refused(response, 400, "malformed_json")


def test_a_body_that_is_nested_too_deep(host: Host) -> None:
    content = b'{"channel": "a", "data": ' + b"[" * 200 + b"]" * 200 + b"}"
    response = host.http.post("/send", content=content, headers={"content-type": "application/json"})
    assert_refused(response, 400, "too_deep")


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded", ""])
def test_a_body_of_another_media_type(host: Host, content_type: str | None) -> None:
    headers = {} if content_type is None else {"content-type": content_type}
    response = host.http.post("/send", content=b'{"channel": "a"}', headers=headers)
    assert_refused(response, 415, "unsupported_media_type")


def test_a_media_type_with_a_parameter(host: Host) -> None:
    content = json.dumps({"channel": "a"}).encode()
    response = host.http.post("/send", content=content, headers={"content-type": "Application/JSON; charset=utf-8"})
    assert response.status_code == 200


def test_a_body_that_is_too_large(host: Host) -> None:
    within = {"channel": "a", "data": "x" * (MAX_MESSAGE_SIZE - 100)}
    host.post("/send", within)
    assert_refused(host.http.post("/send", json={**within, "more": "x" * 100}), 413, "body_too_large")
    # A length that is not told beforehand is counted all the same.
    chunks = (b"x" * 10_000 for _ in range(100))
    response = host.http.post("/send", content=chunks, headers={"content-type": "application/json"})
    assert_refused(response, 413, "body_too_large")


def test_a_chunked_body(host: Host) -> None:
    with host.client("channel=news") as client:
        chunks = iter([b'{"channel": ', b'"news", "data"', b": 1}"])
        response = host.http.post("/send", content=chunks, headers={"content-type": "application/json"})
        assert response.status_code == 200
        assert client.hear()["data"] == 1


# Looking


def test_channels_presence_and_connections(host: Host) -> None:
    assert host.http.get("/channels").json() == {"channels": []}
    with host.client("user_id=ann&channel=a/b&channel=c") as ann, host.client("channel=c") as anonymous:
        ann.hear_type("user_joined")
        host.post("/send", {"channel": "c", "data": 1})

        channels = {each["channel"]: each for each in host.http.get("/channels").json()["channels"]}
        assert sorted(channels) == ["a/b", "c"]
        assert (channels["c"]["subscribers"], channels["c"]["members"], channels["c"]["offset"]) == (2, 2, 1)
        assert channels["c"]["epoch"]

        there = [
            {"user_id": "ann", "connection_id": ann.connection_id},
            {"user_id": None, "connection_id": anonymous.connection_id},
        ]
        assert host.http.get("/channels/c/presence").json() == {"channel": "c", "count": 2, "users": there}
        assert host.http.get("/channels/a%2Fb/presence").json()["users"] == there[:1]
        assert host.http.get("/channels/nobody/presence").json() == {"channel": "nobody", "count": 0, "users": []}

        connections = host.http.get("/connections").json()["connections"]
        assert [each["connection_id"] for each in connections] == [ann.connection_id, anonymous.connection_id]
        assert connections[0]["user_id"] == "ann"
        assert connections[0]["transport"] == "websocket"
        assert connections[0]["channels"] == ["a/b", "c"]
        assert isinstance(connections[0]["connected_at"], int)


@pytest.mark.parametrize("kind", HOSTS, ids=str)
def test_whoever_does_not_come_back_is_not_present(kind: HostKind) -> None:
    """Though nobody is connected, whose presence would keep the server awake."""
    realtime = RealtimeSettings(allow_anonymous=True, presence_grace=0.2)
    with run_host(kind, Settings(realtime=realtime)) as host:
        with host.client("user_id=ann&channel=chat") as ann:
            there = [{"user_id": "ann", "connection_id": ann.connection_id}]
            assert host.http.get("/channels/chat/presence").json()["users"] == there
        gone = {"channel": "chat", "count": 0, "users": []}
        # Nothing else is asked, which would have the server look at the clock.
        host.wait_for(lambda: host.http.get("/channels/chat/presence").json() == gone)
        assert host.http.get("/channels").json() == {"channels": []}


def test_a_channel_that_cannot_be(host: Host) -> None:
    assert_refused(host.http.get("/channels/%24user:ann/presence"), 422, "invalid_channel")


def test_stats(host: Host) -> None:
    before = host.http.get("/stats").json()
    with host.client("user_id=ann&channel=c"), host.client("user_id=ann"), host.stream():
        stats = host.http.get("/stats").json()
    assert (stats["websocket_count"], stats["sse_count"], stats["total_connections"]) == (2, 1, 3)
    assert (stats["unique_users"], stats["active_channels"]) == (1, 1)
    assert stats["accepted_connections"] == before["accepted_connections"] + 3


def test_health(host: Host) -> None:
    response = host.http.get("/health")
    assert response.status_code == 200
    assert response.json() == {"status": "ok", "live": True, "ready": True}


@pytest.mark.parametrize(("path", "name"), [("/test", "test.html"), ("/sse-test", "sse-test.html")])
def test_the_pages(host: Host, path: str, name: str) -> None:
    response = host.http.get(path)
    assert response.status_code == 200
    assert response.headers["content-type"] == CONTENT_TYPES[name] == "text/html; charset=utf-8"
    assert "<title>" in response.text


@pytest.mark.parametrize("name", CONTENT_TYPES)
def test_the_assets(host: Host, name: str) -> None:
    response = host.http.get(f"/assets/{name}")
    assert response.status_code == 200
    assert response.headers["content-type"] == CONTENT_TYPES[name]
    assert response.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("name", ["nothing.js", "__init__.py", "..%2f..%2fapp.py", "%2e%2e", "a/b"])
def test_an_asset_that_is_not_there(host: Host, name: str) -> None:
    assert_refused(host.http.get(f"/assets/{name}"), 404, "not_found")


# Closing by force


def test_close_a_connection(host: Host) -> None:
    with host.client() as client:
        response = host.http.delete(f"/connections/{client.connection_id}")
        assert response.json() == {"connection_id": client.connection_id, "closed": True}
        farewell = client.hear()
        assert (farewell["type"], farewell["code"], farewell["reconnect"]) == ("disconnect", 1000, False)
        assert client.closed() == (1000, "closed by the server's operator")
        assert_refused(host.http.delete(f"/connections/{client.connection_id}"), 404, "not_found")


def test_close_an_event_stream(host: Host) -> None:
    with host.stream() as stream:
        assert host.http.delete(f"/connections/{stream.connection_id}").status_code == 200
        farewell = stream.hear()
        assert (farewell["type"], farewell["$event"]) == ("disconnect", "disconnect")
        with pytest.raises(EOFError):
            stream.next_event()


# Methods and paths


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/send", {"POST"}),
        ("PUT", "/broadcast", {"POST"}),
        ("POST", "/stats", {"GET", "HEAD"}),
        ("GET", "/connections/x", {"DELETE"}),
        ("POST", "/events", {"GET", "HEAD"}),
        ("DELETE", "/ws", {"GET", "HEAD"}),
    ],
)
def test_another_method(host: Host, method: str, path: str, allow: set[str]) -> None:
    response = host.http.request(method, path)
    assert_refused(response, 405, "method_not_allowed")
    assert set(response.headers["allow"].split(", ")) == allow


@pytest.mark.parametrize("path", ["/nothing", "/", "/send/", "/channels/a", "/stats/more"])
def test_another_path(host: Host, path: str) -> None:
    assert_refused(host.http.get(path), 404, "not_found")


def test_a_websocket_path_asked_for_plainly(host: Host) -> None:
    response = host.http.get("/ws")
    assert_refused(response, 426, "upgrade_required")
    assert response.headers["upgrade"] == "websocket"


@pytest.mark.parametrize("path", ["/stats", "/health", "/test", "/assets/rtcore.js"])
def test_head(host: Host, path: str) -> None:
    response, whole = host.http.head(path), host.http.get(path)
    assert response.status_code == 200
    assert response.content == b""
    assert response.headers["content-length"] == str(len(whole.content))


def test_head_of_an_event_stream(host: Host) -> None:
    response = host.http.head("/events")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert host.http.get("/stats").json()["sse_count"] == 0


@pytest.mark.parametrize(
    "query",
    ["channel=%FF", "channel=%24secret", "channel=", "user_id=", "user_id=%0A", "&".join(["a=b"] * 2001)],
)
def test_a_query_that_cannot_be(host: Host, query: str) -> None:
    response = host.http.get(f"/events?{query}")
    assert response.status_code in (400, 422)
    assert_refused(response, response.status_code, response.json()["error"]["code"])
