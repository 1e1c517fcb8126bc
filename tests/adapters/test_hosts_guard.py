"""Who is let in to the HTTP API of every host, as whom, and what of a request may and may not be believed."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from time import time
from typing import Any

import httpx2
import pytest

from rtcore.permissions import Action
from rtcore_adapters import RealtimeApp, Settings
from rtcore_adapters.guard import RULES, Guard
from rtcore_adapters.settings import (
    ApiKeySettings,
    RealtimeSettings,
    SseSettings,
    WebRtcSettings,
    WsSettings,
)

from .clients import error_code, read_response
from .hosting import HOSTS, Host, HostKind, run_host
from .matrix_stage import SECRET, claims_of, make_token

KEY, FEED = "the-key-of-an-operator", "the-key-of-a-feed"
WS = WsSettings(
    jwt_secret_key=SECRET,
    api_keys=(ApiKeySettings(key=KEY), ApiKeySettings(key=FEED, name="feed", scopes=("publish:news",))),
)
OPERATOR = {"X-API-Key": KEY}

_NAMES = itertools.count()


@pytest.fixture(scope="module", params=HOSTS, ids=str)
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    """Run a host of each kind that knows tokens and keys, and requires them for event streams, so over HTTP too."""
    turn = WebRtcSettings(turn_servers=("turn:turn.example.org",), turn_secret="shared-with-turn")
    settings = Settings(
        realtime=RealtimeSettings(presence_grace=0.0), sse=SseSettings(auth_required=True), ws=WS, webrtc=turn
    )
    kind: HostKind = request.param
    with run_host(kind, settings) as running:
        yield running


@pytest.fixture
def channel() -> str:
    """Return the name of a channel that no other test uses."""
    return f"channel-{next(_NAMES)}"


def bearer(user: str | None = "ann", **claims: object) -> dict[str, str]:
    """Return the header of a token that allows what it says and, where it says nothing, what is open to anybody."""
    now = int(time())
    whole = {"iat": now, "exp": now + 600, **({} if user is None else {"sub": user}), **claims}
    return {"Authorization": f"Bearer {make_token(whole)}"}


def code_of(response: httpx2.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"] if response.status_code >= 400 else ""


def said_in(host: Host, channel: str) -> list[Any]:
    response = host.http.get(f"/channels/{channel}/history", headers=OPERATOR)
    messages: list[Any] = response.json()["publications"]
    return messages


# Who it is


def test_a_credential_comes_in_headers_or_in_the_query(host: Host) -> None:
    token = make_token(claims_of(Action.ADMINISTER))
    for headers, query in (
        (OPERATOR, ""),
        ({"x-api-key": KEY}, ""),
        ({}, f"api_key={KEY}"),
        ({"Authorization": f"bearer {make_token(claims_of())}"}, ""),
        ({}, f"token={token}"),
        # The same one twice is one.
        ({"Authorization": f"Bearer {token}"}, f"token={token}"),
    ):
        assert host.http.get(f"/channels?{query}", headers=headers).status_code == 200
    two = host.http.get(f"/channels?token={token}", headers=OPERATOR)
    assert code_of(two) == (400, "ambiguous_credentials")
    empty = host.http.get("/channels?token=&api_key=", headers={"X-API-Key": ""})
    assert code_of(empty) == (401, "unauthorized")


def test_what_one_transport_requires_http_requires(host: Host) -> None:
    with host.client() as anonymous:
        assert anonymous.connected["user_id"] is None
    response = host.http.post("/send", json={"channel": "a", "data": 1})
    assert code_of(response) == (401, "unauthorized")
    assert response.headers["www-authenticate"] == "Bearer"


def test_a_body_is_not_waited_for_from_whoever_may_not_come(host: Host) -> None:
    """Not for long: what comes along with the head is read, so that the connection goes on."""
    for path, headers, status in (
        ("/send", "", 401),
        ("/tokens/revoke", f"Authorization: {bearer()['Authorization']}\r\n", 403),
        ("/send", f"X-API-Key: {KEY}\r\nOrigin: https://evil.example\r\n", 403),
    ):
        with host.connect() as sock:
            head = f"POST {host.prefix}{path} HTTP/1.1\r\nHost: localhost\r\n{headers}"
            sock.sendall(f"{head}Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n".encode())
            assert read_response(sock)[0] == status
    request = f"POST {host.prefix}/send HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{{'a': 1}}\n".encode()
    with host.connect() as sock:
        for _ in range(3):
            sock.sendall(request)
            answered, answer, _ = read_response(sock)
            assert (answered, b"connection: close" in answer.lower()) == (401, False)


def test_who_sends_is_told(host: Host, channel: str) -> None:
    with host.client(f"channel={channel}") as client:
        for headers, user in ((bearer("ann"), "ann"), (bearer(None), None), (OPERATOR, None)):
            forged = {"channel": channel, "data": 1, "meta": {"sender": {"user_id": "eve"}}}
            assert host.http.post("/send", json=forged, headers=headers).status_code == 200
            heard = client.hear_type("channel_message")
            assert heard["meta"]["sender"] == {"connection_id": None, "user_id": user}


def test_an_id_publishes_once_for_whoever_says_it(host: Host, channel: str) -> None:
    body = {"channel": channel, "data": 1, "id": "7"}

    def send(headers: dict[str, str]) -> dict[str, Any]:
        response = host.http.post("/send", json=body, headers=headers)
        assert response.status_code == 200, response.text
        receipt: dict[str, Any] = response.json()
        return receipt

    first = send(bearer("ann"))
    assert send(bearer("ann")) == first
    assert [send(headers)["offset"] for headers in (bearer("bob"), OPERATOR)] == [2, 3]
    assert send(OPERATOR)["offset"] == 3
    # Of somebody who is nobody it is not known whether it is the same.
    assert [send(bearer(None))["offset"] for _ in range(2)] == [4, 5]
    assert len(said_in(host, channel)) == 5


def test_two_keys_are_two_publishers(host: Host) -> None:
    body = {"channel": "news", "data": 1, "id": f"id-{next(_NAMES)}"}
    offsets = [
        host.http.post("/send", json=body, headers={"X-API-Key": key}).json()["offset"]
        for key in (KEY, FEED, KEY, FEED)
    ]
    assert offsets[0] == offsets[2] != offsets[1] == offsets[3]


# What may be believed


def test_the_last_of_two_fields_is_decided_on_and_published_to(host: Host, channel: str) -> None:
    """Whichever of them somebody else would have read."""
    headers = {**bearer(publish=[channel]), "Content-Type": "application/json"}
    other = f"{channel}-other"
    allowed = f'{{"channel": "{other}", "channel": "{channel}", "data": 1}}'
    assert host.http.post("/send", content=allowed, headers=headers).status_code == 200
    denied = f'{{"channel": "{channel}", "channel": "{other}", "data": 2}}'
    assert code_of(host.http.post("/send", content=denied, headers=headers)) == (403, "publish_denied")
    escaped = f'{{"channel": "{channel}", "\\u0063hannel": "{other}", "data": 3}}'
    assert code_of(host.http.post("/send", content=escaped, headers=headers)) == (403, "publish_denied")
    assert [each["data"] for each in said_in(host, channel)] == [1]
    assert said_in(host, other) == []


@pytest.mark.parametrize(
    "fields",
    [
        {"user_id": "ann", "recipient_id": "bob"},
        {"user_id": "ann", "recipient_id": "ann"},
        {"channel": "news", "user_id": "ann"},
        {"channel": "news", "connection_id": "c"},
        {"channel": None, "user_id": None},
    ],
)
def test_a_message_has_one_target(host: Host, fields: dict[str, object]) -> None:
    assert code_of(host.http.post("/send", json={**fields, "data": 1}, headers=OPERATOR)) == (422, "missing_target")


@pytest.mark.parametrize("field", ["user_id", "recipient_id"])
def test_either_name_of_a_user_is_decided_on(host: Host, field: str) -> None:
    headers = bearer(publish=["$user:bob"])
    assert host.http.post("/send", json={field: "bob", "data": 1}, headers=headers).status_code == 200
    assert code_of(host.http.post("/send", json={field: "eve", "data": 1}, headers=headers)) == (403, "publish_denied")


@pytest.mark.parametrize("value", [5, ["news"], {"a": 1}, True])
def test_a_channel_is_a_text(host: Host, value: object) -> None:
    headers = bearer(publish=["*"])
    assert code_of(host.http.post("/send", json={"channel": value}, headers=headers)) == (422, "invalid_channel")


@pytest.mark.parametrize("name", ["$broadcast", "$user:bob", "$connection:c", "$room:s1"])
def test_no_name_reaches_a_channel_of_the_servers_own(host: Host, name: str) -> None:
    for headers in (bearer(channels=["*", "$*"], publish=["*", "$*"]), OPERATOR):
        response = host.http.post("/send", json={"channel": name, "data": 1}, headers=headers)
        assert code_of(response) == (422, "invalid_channel")
        for what in ("history", "presence"):
            path = f"/channels/{name.replace('$', '%24')}/{what}"
            assert code_of(host.http.get(path, headers=headers)) == (422, "invalid_channel")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("a%2Fb", 200),
        ("a/b", 200),
        ("%61%2fb", 200),
        # What is escaped twice is a name with a percent sign in it.
        ("a%252Fb", 403),
        ("%2524user:ann", 403),
        ("a%2Fb%20", 403),
        ("a//b", 403),
        ("a%2Fb%2F", 403),
        ("A%2Fb", 403),
        ("x/../a%2Fb", 403),
        ("%FF", 403),
    ],
)
@pytest.mark.parametrize("what", ["history", "presence"])
def test_a_name_in_a_path_is_unescaped_once(host: Host, path: str, status: int, what: str) -> None:
    headers = bearer(channels=["a/b", "$*"])
    with host.connect() as sock:
        # By hand: clients resolve ".." themselves.
        token = headers["Authorization"]
        head = f"GET {host.prefix}/channels/{path}/{what} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {token}\r\n\r\n"
        sock.sendall(head.encode())
        assert read_response(sock)[0] == status


@pytest.mark.parametrize(
    "text", ["%0D%0AX-Injected:%201", "%0aX-Injected:%201", "%00", "%E2%80%A8X-Injected:%201", "%C2%85"]
)
@pytest.mark.parametrize(
    "path",
    ["/connections/{}", "/assets/{}", "/channels/{}/history", "/webrtc/rooms/{}", "/{}", "/stats?token={}", "/{}/ws"],
)
def test_nothing_of_a_request_is_in_the_head_of_an_answer(host: Host, path: str, text: str) -> None:
    for method in ("GET", "DELETE", "OPTIONS"):
        for headers in (OPERATOR, {**OPERATOR, "Origin": "http://localhost"}):
            response = host.http.request(method, path.format(text), headers=headers)
            assert 400 <= response.status_code < 500
            assert response.headers["content-type"] == "application/json"
            assert "x-injected" not in response.headers
            assert b"\x00" not in b"".join(value for _, value in response.headers.raw)


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "text/plain; application/json",
        "application/jsonp",
        "application/x-www-form-urlencoded;application/json",
        "multipart/form-data; boundary=application/json",
        "application/json, text/plain",
        "",
    ],
)
def test_what_a_page_may_send_unasked_is_no_json(host: Host, content_type: str, channel: str) -> None:
    headers = {**OPERATOR, "Content-Type": content_type}
    response = host.http.post("/send", content=json.dumps({"channel": channel}), headers=headers)
    assert code_of(response) == (415, "unsupported_media_type")
    response = host.http.post("/webrtc/rooms", content=json.dumps({"room_id": channel}), headers=headers)
    assert code_of(response) == (415, "unsupported_media_type")
    assert said_in(host, channel) == []


# Operating


def test_a_revoked_token_opens_nothing_and_closes_what_it_has_opened(host: Host) -> None:
    user, headers = f"user-{next(_NAMES)}", bearer("kept")
    theirs, others = bearer(user, jti=f"id-{user}"), bearer(user, jti=f"other-{user}")
    with host.client(additional_headers=theirs) as one, host.client(additional_headers=others) as other:
        response = host.http.post("/tokens/revoke", json={"token_id": f"id-{user}"}, headers=OPERATOR)
        assert response.json() == {"closed": 1}
        assert one.hear_type("disconnect")["reconnect"] is False
        assert one.closed()[0] == 4401
        assert code_of(host.http.get("/channels", headers=theirs)) == (401, "token_revoked")
        assert host.http.get("/channels", headers=others).status_code == 200
        response = host.http.post("/tokens/revoke", json={"user_id": user}, headers=OPERATOR)
        assert response.json() == {"closed": 1}
        assert other.closed()[0] == 4401
    assert code_of(host.http.get("/channels", headers=others)) == (401, "token_revoked")
    assert host.http.get("/channels", headers=headers).status_code == 200


@pytest.mark.parametrize("body", [[], "x", {}, {"token_id": 5}, {"token_id": "x", "expires_in": "soon"}, {"other": 1}])
def test_a_revocation_that_cannot_be(host: Host, body: object) -> None:
    response = host.http.post("/tokens/revoke", json=body, headers=OPERATOR)
    assert response.status_code == 422
    assert list(response.json()) == ["error"]


@pytest.mark.parametrize(("room", "peer"), [("r", "p"), ("r/1", "p"), ("r", "p/1"), ("r/peers/1", "p/peers/2")])
def test_a_peer_is_sent_away(host: Host, room: str, peer: str) -> None:
    room = f"{room}-{next(_NAMES)}"
    path = f"/webrtc/rooms/{room.replace('/', '%2F')}/peers/{peer.replace('/', '%2F')}"
    query = f"room_id={room}&peer_id={peer}"
    with (
        host.client(query, path="/webrtc/signaling") as client,
        host.client(f"room_id={room}", path="/webrtc/signaling") as other,
    ):
        assert code_of(host.http.delete(path, headers=bearer())) == (403, "admin_required")
        response = host.http.delete(path, headers=OPERATOR)
        assert response.json() == {"room_id": room, "peer_id": peer, "removed": True}
        for each in (client, other):
            left = each.hear_type("peer_left")
            assert (left["room_id"], left["peer_id"], left["reason"]) == (room, peer, "removed")
        assert code_of(host.http.delete(path, headers=OPERATOR)) == (404, "unknown_peer")
        unknown = host.http.delete(f"/webrtc/rooms/none/peers/{peer.replace('/', '%2F')}", headers=OPERATOR)
        assert code_of(unknown) == (404, "unknown_room")


def test_a_room_whose_name_looks_like_a_path_is_not_that_path(host: Host) -> None:
    """Else whoever makes it could keep a peer of another room from being sent away, or the other way round."""
    number = next(_NAMES)
    whole, room = f"r{number}/peers/p", f"r{number}"
    host.http.post("/webrtc/rooms", json={"room_id": whole}, headers=OPERATOR)
    with host.client(f"room_id={room}&peer_id=p", path="/webrtc/signaling"):
        removed = host.http.delete(f"/webrtc/rooms/{room}/peers/p", headers=OPERATOR)
        assert removed.json() == {"room_id": room, "peer_id": "p", "removed": True}
        closed = host.http.delete(f"/webrtc/rooms/{whole.replace('/', '%2F')}", headers=OPERATOR)
        assert closed.json() == {"room_id": whole, "closed": True}


def test_turn_credentials_name_the_user_of_the_token(host: Host) -> None:
    def named(headers: dict[str, str], query: str = "") -> str:
        response = host.http.get(f"/webrtc/ice-servers?{query}", headers=headers)
        username: str = response.json()["ice_servers"][0]["username"]
        return username.partition(":")[2]

    assert named(bearer("ann")) == "ann"
    assert named(bearer("ann"), "user_id=bob") == "ann"
    assert named(bearer(None), "user_id=bob") == ""
    assert named(OPERATOR, "user_id=bob") == "bob"
    assert code_of(host.http.get("/webrtc/ice-servers?user_id=%0A", headers=OPERATOR)) == (422, "invalid_user_id")


def test_health_tells_nobody_whether_there_are_rooms(host: Host) -> None:
    with host.client(f"room_id=r{next(_NAMES)}", path="/webrtc/signaling"):
        for headers in ({}, OPERATOR, {"X-API-Key": "wrong"}):
            assert host.http.get("/webrtc/health", headers=headers).json() == {"status": "ok"}


# Limits


@pytest.mark.parametrize("kind", HOSTS, ids=str)
def test_a_body_has_a_size_and_a_time(kind: HostKind) -> None:
    realtime = RealtimeSettings(max_body_size=1000, body_timeout=0.5)
    with run_host(kind, Settings(realtime=realtime)) as host:
        for path in ("/send", "/webrtc/rooms"):
            head = f"POST {host.prefix}{path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            with host.connect() as sock:
                sock.sendall(f"{head}Content-Length: 1001\r\n\r\n".encode())
                status, _, body = read_response(sock)
                assert (status, error_code(body)) == (413, "body_too_large")
            with host.connect() as sock:
                sock.sendall(f'{head}Content-Length: 100\r\n\r\n{{"channel": '.encode())
                status, answer, body = read_response(sock)
                assert (status, error_code(body)) == (408, "request_timeout")
                assert b"connection: close" in answer.lower()


# Without a server


class Called:
    """Asks an application as a host would, with a scope of one's own."""

    def __init__(self, app: RealtimeApp) -> None:
        self._app = app

    async def __call__(self, method: str, path: str, *, client: object, host: bytes = b"localhost") -> tuple[int, Any]:
        """Return the status and the content of the answer."""
        sent: list[Any] = []
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "path": f"/realtime{path}",
            "query_string": b"",
            "headers": [(b"host", host)],
            "client": client,
        }

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        await self._app(scope, receive, send)
        return sent[0]["status"], json.loads(b"".join(message.get("body", b"") for message in sent[1:]))


@pytest.mark.anyio
async def test_without_keys_whoever_is_on_this_machine_is_its_operator() -> None:
    call = Called(RealtimeApp(Settings()))
    for client in (("127.0.0.1", 1), ("::1", 1), ("127.3.4.5", 1)):
        assert (await call("GET", "/connections", client=client))[0] == 200
    for client in (None, ("", 0), ("testclient", 50000), ("192.0.2.1", 1), ("localhost", 1), ("/run/socket", 0)):
        status, content = await call("GET", "/connections", client=client)
        assert (status, content["error"]["code"]) == (403, "admin_required")
        assert (await call("GET", "/channels", client=client))[0] == 200
    status, content = await call("GET", "/connections", client=("127.0.0.1", 1), host=b"evil.example")
    assert (status, content["error"]["code"]) == (403, "admin_required")


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/send", [], 401),
        ("/webrtc/rooms", [(b"x-api-key", b"wrong")], 401),
        ("/send", [(b"x-api-key", KEY.encode()), (b"origin", b"https://evil.example")], 403),
        ("/tokens/revoke", [(b"x-api-key", FEED.encode())], 403),
        ("/send", [(b"x-api-key", KEY.encode()), (b"content-type", b"text/plain")], 415),
    ],
)
async def test_a_body_that_has_come_is_read_though_nobody_wants_it(
    path: str, headers: list[tuple[bytes, bytes]], status: int
) -> None:
    """Else a host ends the connection, on which the next request may be under way."""
    app = RealtimeApp(Settings(sse=SseSettings(auth_required=True), ws=WS))
    happened: list[object] = []
    body = [b"{" * 10, b"{" * 10]

    async def receive() -> dict[str, Any]:
        happened.append("received")
        return {"type": "http.request", "body": body.pop(), "more_body": bool(body)}

    async def send(message: Any) -> None:
        happened.append(message.get("status", "sent"))

    head = [(b"host", b"localhost"), (b"content-length", b"20"), *headers]
    scope = {"type": "http", "method": "POST", "path": f"/realtime{path}", "query_string": b"", "headers": head}
    await app({**scope, "client": ("127.0.0.1", 1)}, receive, send)
    assert happened == ["received", "received", status, "sent"]


@pytest.mark.anyio
async def test_the_hook_is_asked_over_http_too() -> None:
    app = RealtimeApp(Settings())
    asked: list[object] = []

    async def publish(identity: object, channel: str, message: dict[str, object]) -> bool:
        asked.append((channel, message["data"]))
        return channel == "allowed"

    app.driver.hooks.publish = publish
    transport = httpx2.ASGITransport(app, client=("127.0.0.1", 1))
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost/realtime") as client:
        for channel, status in (("allowed", 200), ("denied", 403)):
            response = await client.post("/send", json={"channel": channel, "data": 1})
            assert response.status_code == status
        response = await client.post("/broadcast", json={"data": 2})
        assert code_of(response) == (403, "publish_denied")
    assert asked == [("allowed", 1), ("denied", 1), ("$broadcast", 2)]


def test_a_route_without_a_rule_is_not_served() -> None:
    guard = Guard(RealtimeApp(Settings()).driver)

    async def handle(request: object, identity: object) -> Any:
        raise AssertionError("never called")

    for path, method in (("/new", "GET"), ("/send", "DELETE")):
        assert (method, path) not in RULES
        with pytest.raises(KeyError):
            guard.route(path, {method: handle})
