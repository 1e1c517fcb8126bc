"""Who gets in on every host, and with what."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

import attrs
import pytest
from websockets.exceptions import InvalidStatus

from rtcore_adapters import Settings
from rtcore_adapters.settings import WebSocketSettings

from .clients import TIMEOUT, Client, Say, error_code, masked_frame, raw_upgrade, read_frames, read_head
from .hosting import HOSTS, NATIVE, Host, HostKind, run_host
from .visits import CLOSED, KEY, OPEN, PAGE, WS, authenticate, bearer, token, turned_away


@pytest.fixture(scope="module", params=HOSTS, ids=str)
def kind(request: pytest.FixtureRequest) -> HostKind:
    """Return each kind of host in turn."""
    kind: HostKind = request.param
    return kind


@pytest.fixture(scope="module")
def open_host(kind: HostKind) -> Iterator[Host]:
    """Run a host that knows credentials and requires none."""
    with run_host(kind, OPEN) as running:
        yield running


@pytest.fixture(scope="module")
def host(kind: HostKind) -> Iterator[Host]:
    """Run a host that requires a credential of everybody."""
    with run_host(kind, CLOSED) as running:
        yield running


# With what


@pytest.mark.parametrize("path", ["/ws", "/webrtc/signaling"])
def test_a_credential_of_a_websocket(host: Host, path: str) -> None:
    mine = token(channels=["a*"])
    with host.client(path=path, additional_headers=bearer(mine)) as client:
        assert client.connected["user_id"] == "ann"
        assert 590 < client.connected["expires_in"] <= 600
        assert client.ask("join_channel", channel="b")["code"] == "subscribe_denied"
        client.join("a1")
    with host.client(f"token={mine}", path) as client:
        assert client.connected["user_id"] == "ann"
    for options in ({"query": f"api_key={KEY}"}, {"additional_headers": {"X-API-Key": KEY}}):
        with host.client(path=path, **options) as client:
            assert client.connected["user_id"] is None
            assert "expires_in" not in client.connected
            client.join("anything")
    with host.client(path=path, origin=PAGE, additional_headers={"Cookie": f"session={mine}"}) as client:
        assert client.connected["user_id"] == "ann"


def test_a_credential_of_an_event_stream(host: Host) -> None:
    mine = token(channels=["a*"])
    cookies = {"Cookie": f"session={mine}"}
    for query, headers, user in (
        ("", bearer(mine), "ann"),
        (f"token={mine}", {}, "ann"),
        (f"api_key={KEY}", {}, None),
        ("", {"X-API-Key": KEY}, None),
        ("", cookies | {"Origin": PAGE}, "ann"),
        ("", cookies | {"Sec-Fetch-Site": "same-origin"}, "ann"),
    ):
        with host.http.stream("GET", f"/events?channel=a1&{query}", headers=headers) as response:
            assert response.status_code == 200
            assert '"user_id":' + json.dumps(user) in next(text for text in response.iter_text() if "connected" in text)


def test_without_a_credential(host: Host) -> None:
    for headers in ({}, {"Cookie": f"session={token()}"}, {"Authorization": "Bearer"}):
        response = host.http.get("/events", headers=headers)
        assert (response.status_code, error_code(response.content)) == (401, "unauthorized")
        assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("required", [True, False])
def test_a_credential_that_is_wrong(host: Host, open_host: Host, required: bool) -> None:
    asked = host if required else open_host
    expired = token(expires_in=0.000001)
    for query, status, code in (
        ("token=garbage", 401, "invalid_token"),
        (f"token={expired}", 401, "token_expired"),
        ("api_key=wrong", 401, "invalid_api_key"),
        (f"token={token()}&api_key={KEY}", 400, "ambiguous_credentials"),
    ):
        farewell, closed_with, reason = turned_away(asked, query)
        assert (closed_with, reason) == (4400 if status == 400 else 4401, code)
        assert (farewell["code"], farewell["reconnect"]) == (closed_with, False)
        response = asked.http.get(f"/events?{query}")
        assert (response.status_code, error_code(response.content)) == (status, code)
        assert ("www-authenticate" in response.headers) == (status == 401)
        assert expired not in response.text


def test_where_none_is_required(open_host: Host) -> None:
    with open_host.client("user_id=zoe") as client, open_host.stream("user_id=zoe") as stream:
        # Who has said who they are is the one thing that says so.
        assert client.connected["user_id"] is stream.connected["user_id"] is None
        client.join("room")
        assert client.ask("get_connection_stats")["code"] == "admin_required"
    with open_host.client(f"token={token()}&user_id=zoe") as client:
        assert client.connected["user_id"] == "ann"


# The first message


@pytest.mark.parametrize("path", ["/ws", "/webrtc/signaling"])
def test_a_credential_in_the_first_message(host: Host, path: str) -> None:
    with host.websocket(path, "channel=a1&channel=b1") as websocket:
        client = Client(websocket, welcome=False)
        client.say(authenticate(token(channels=["a*"]), id="7"))
        # What is said before the answer waits for it.
        client.say({"type": "command", "command": "ping", "id": "8"})
        connected = client.hear()
        assert (connected["type"], connected["user_id"], connected["channels"]) == ("connected", "ann", ["a1"])
        assert client.hear()["code"] == "subscribe_denied"
        answer = client.hear()
        assert (answer["id"], answer["ok"], answer["data"]["user_id"]) == ("7", True, "ann")
        assert 590 < answer["data"]["expires_in"] <= 600
        assert client.hear()["id"] == "8"
    for message in (authenticate(KEY, "api_key"), {**authenticate(token()), "command": "refresh_token"}):
        with host.websocket(path) as websocket:
            client = Client(websocket, welcome=False)
            client.say(message)
            assert client.hear()["type"] == "connected"
            assert client.ask("ping")["ok"] is True


@pytest.mark.parametrize("kind", [kind for kind in HOSTS if kind.server == "native"], ids=str)
def test_in_one_segment_with_the_handshake(kind: HostKind) -> None:
    """Which a client may do that does not wait to be accepted."""
    message = json.dumps(authenticate(token())).encode()
    with run_host(kind, CLOSED) as host, host.connect() as sock:
        sock.sendall(raw_upgrade(f"{host.prefix}/ws") + masked_frame(message))
        status, _, rest = read_head(sock)
        assert status == 101
        while b'"type":"connected"' not in rest:
            rest += sock.recv(65536)


@pytest.mark.parametrize("kind", NATIVE, ids=str)
def test_nobody_keeps_much_of_who_is_not_known(kind: HostKind) -> None:
    """Not even of a message that never ends, where the endpoint reads frames itself."""
    with run_host(kind, CLOSED) as host, host.connect() as sock:
        # Of a frame that is to have half a mebibyte, a quarter, in pieces.
        begun = masked_frame(b"x" * 2**19)[: 2**18]
        sock.sendall(raw_upgrade(f"{host.prefix}/ws"))
        _, _, rest = read_head(sock)
        with suppress(OSError):
            sock.sendall(begun)
        sock.settimeout(TIMEOUT)
        while b"unauthorized" not in rest:
            data = sock.recv(65536)
            assert data, rest
            rest += data


@pytest.mark.parametrize(
    ("say", "code"),
    [
        (authenticate("garbage"), "invalid_token"),
        (authenticate("wrong", "api_key"), "invalid_api_key"),
        ({"type": "command", "command": "ping"}, "unauthorized"),
        ({"type": "command", "command": "join_channel", "data": {"channel": "a"}, "id": "1"}, "unauthorized"),
        ({"type": "channel_message", "channel": "a"}, "unauthorized"),
        ("no json", "unauthorized"),
        (b"\x00\x00\x00\x02{}", "unauthorized"),
        ({**authenticate(token()), "x": "x" * 16384}, "unauthorized"),
    ],
)
def test_any_other_first_message(host: Host, say: Say, code: str) -> None:
    farewell, closed_with, reason = turned_away(host, say=say)
    assert (farewell["code"], farewell["reconnect"], closed_with, reason) == (4401, False, 4401, code)


@pytest.fixture
def impatient(host: Host) -> Iterator[Host]:
    """Return the host while it has little patience, and only with few."""
    keeper = host.realtime.driver.gatekeeper
    config = keeper.config
    keeper.config = attrs.evolve(config, authentication_timeout=0.3, hook_timeout=0.3)
    yield host
    keeper.config = config


def test_no_first_message_at_all(impatient: Host) -> None:
    farewell, closed_with, reason = turned_away(impatient)
    assert (farewell["code"], closed_with, reason) == (4401, 4401, "authentication_timeout")
    # A client that goes on pinging says nothing either.
    with impatient.connect() as sock:
        sock.sendall(raw_upgrade(f"{impatient.prefix}/ws"))
        read_head(sock)
        sock.sendall(masked_frame(b"", 9))
        frames = dict(read_frames(sock))
        assert json.loads(frames[1])["code"] == 4401


def test_too_many_who_say_nothing(host: Host) -> None:
    keeper = host.realtime.driver.gatekeeper
    config = keeper.config
    keeper.config = attrs.evolve(config, max_pending=2)
    try:
        with host.websocket() as one, host.websocket() as two:
            host.wait_for(lambda: len(keeper._pending) == 2)
            farewell, closed_with, reason = turned_away(host)
            assert (farewell["retry_after"], farewell["reconnect"]) == (5.0, True)
            assert (closed_with, reason) == (1013, "too_many_pending")
            # Whoever brings it along does not wait for them.
            with host.client(f"token={token()}"):
                pass
            for websocket in (one, two):
                client = Client(websocket, welcome=False)
                client.say(authenticate(token()))
                assert client.hear()["type"] == "connected"
    finally:
        keeper.config = config
    host.wait_for(lambda: not keeper._pending)


def test_who_leaves_without_a_word(host: Host) -> None:
    keeper = host.realtime.driver.gatekeeper
    with host.websocket():
        host.wait_for(lambda: len(keeper._pending) == 1)
    host.wait_for(lambda: not keeper._pending)
    with host.connect() as sock:
        sock.sendall(raw_upgrade(f"{host.prefix}/ws"))
        host.wait_for(lambda: len(keeper._pending) == 1)
    host.wait_for(lambda: not keeper._pending)
    assert len(host.realtime.driver.node) == 0


@pytest.mark.parametrize("kind", HOSTS, ids=str)
def test_who_has_yet_to_say_it_while_the_server_stops(kind: HostKind) -> None:
    settings = Settings(websocket=WebSocketSettings(auth_required=True), ws=WS)
    with run_host(kind, settings) as host, host.websocket() as websocket:
        host.wait_for(lambda: len(host.realtime.driver.gatekeeper._pending) == 1)
        host.portal.call(host.realtime.driver.drain)
        client = Client(websocket, welcome=False)
        assert client.hear()["code"] == 1013
        assert client.closed() == (1013, "draining")


# Pages


def test_a_page_that_may_not(open_host: Host) -> None:
    for path in ("/ws", "/webrtc/signaling"):
        with (
            pytest.raises(InvalidStatus) as refused,
            open_host.websocket(path, f"token={token()}", origin="https://evil.example"),
        ):
            pass
        assert refused.value.response.status_code == 403
    headers = {"Origin": "https://evil.example"} | bearer(token())
    response = open_host.http.get("/events", headers=headers)
    assert (response.status_code, error_code(response.content)) == (403, "origin_not_allowed")
    assert "access-control-allow-origin" not in response.headers
    assert response.headers["vary"] == "Origin"


def test_a_page_that_may(open_host: Host, host: Host) -> None:
    own = f"http://127.0.0.1:{open_host.port}"
    for origin in (PAGE, own):
        with open_host.client(origin=origin) as client:
            assert client.ask("ping")["ok"] is True
        with open_host.http.stream("GET", "/events", headers={"Origin": origin}) as response:
            assert response.status_code == 200
            assert response.headers.get_list("access-control-allow-origin") == [origin]
            assert response.headers["access-control-allow-credentials"] == "true"
            assert response.headers["vary"] == "Origin"
    # It may read why not, too.
    response = host.http.get("/events", headers={"Origin": PAGE})
    assert response.status_code == 401
    assert response.headers.get_list("access-control-allow-origin") == [PAGE]


@pytest.mark.parametrize("kind", HOSTS, ids=str)
def test_a_server_without_keys(kind: HostKind) -> None:
    """Pages of this machine may use it, whatever their port; whoever is on it may do everything."""
    with run_host(kind, Settings()) as host:
        with host.client("token=whatever", origin="http://localhost:3000") as client:
            assert client.ask("get_connection_stats")["ok"] is True
        for origin in ("https://evil.example", "null"):
            with pytest.raises(InvalidStatus) as refused, host.websocket(origin=origin):
                pass
            assert refused.value.response.status_code == 403
        # By a name that somebody else has made to mean this machine, or through a proxy: then it is anybody.
        for headers in ({"Host": "evil.example"}, {"X-Forwarded-For": "203.0.113.9"}):
            with host.http.stream("GET", "/events?channel=a", headers=headers) as response:
                assert response.status_code == 200
            with socket.create_connection(("127.0.0.1", host.port), TIMEOUT) as sock:
                sock.sendall(_upgrade(host, headers))
                _, _, rest = read_head(sock)
                sock.sendall(masked_frame(_STATS))
                while b"admin_required" not in rest:
                    more = sock.recv(65536)
                    assert more, rest
                    rest += more


_STATS: Final = b'{"type": "command", "command": "get_connection_stats", "id": "1"}'


def _upgrade(host: Host, headers: dict[str, str]) -> bytes:
    whole = raw_upgrade(f"{host.prefix}/ws").decode()
    if "Host" in headers:
        return whole.replace("Host: localhost", f"Host: {headers['Host']}").encode()
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return (whole.removesuffix("\r\n") + lines + "\r\n").encode()
