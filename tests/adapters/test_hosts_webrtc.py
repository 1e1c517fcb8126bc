"""The paths of WebRTC on every host: what calls need, what each path takes, and what is left of them switched off."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Iterator
from typing import Final
from urllib.parse import quote

import pytest
from websockets.exceptions import InvalidStatus

from rtcore_adapters import Settings
from rtcore_adapters.settings import WebRtcSettings, WebSocketSettings

from .hosting import HOSTS, NATIVE, Host, HostKind, run_host
from .peers import at, refusal

_STUN: Final = "stun:stun.example.org:3478"
_TURN: Final = "turn:turn.example.org:3478?transport=udp"
_SECRET: Final = "north"
_TTL: Final = 600.0

each_host = pytest.mark.parametrize("kind", HOSTS, ids=str)


@pytest.fixture(scope="module", params=HOSTS, ids=str)
def running_host(request: pytest.FixtureRequest) -> Iterator[Host]:
    """Run a host of each kind, with a TURN server."""
    kind: HostKind = request.param
    settings = Settings(
        webrtc=WebRtcSettings(
            stun_servers=(_STUN,),
            turn_servers=(_TURN,),
            turn_secret=_SECRET,
            turn_ttl=_TTL,
        ),
    )
    with run_host(kind, settings) as running:
        yield running


# What calls need


@pytest.mark.parametrize("user", [None, "ann", "Größe 7"])
def test_ice_servers(host: Host, user: str | None) -> None:
    before = int(time.time())
    response = host.http.get("/webrtc/ice-servers", params={} if user is None else {"user_id": user})
    assert response.status_code == 200
    # Credentials are for whoever asks.
    assert response.headers["cache-control"] == "no-store"
    assert list(response.json()) == ["ice_servers"]
    stun, turn = response.json()["ice_servers"]
    assert stun == {"urls": [_STUN]}
    assert sorted(turn) == ["credential", "urls", "username"]
    assert turn["urls"] == [_TURN]
    expires_at, _, name = turn["username"].partition(":")
    assert before + _TTL <= int(expires_at) <= int(time.time() + _TTL)
    assert name == quote(user or "")
    digest = hmac.digest(_SECRET.encode(), turn["username"].encode(), hashlib.sha1)
    assert turn["credential"] == base64.b64encode(digest).decode()


@pytest.mark.parametrize("user", ["", "%0A", "x" * 300, "%00"])
def test_ice_servers_for_somebody_who_cannot_be(host: Host, user: str) -> None:
    assert refusal(host.http.get(f"/webrtc/ice-servers?user_id={user}")) == (422, "invalid_user_id")


def test_ice_servers_where_there_are_none() -> None:
    for kind in NATIVE:
        with run_host(kind, Settings()) as host:
            assert host.http.get("/webrtc/ice-servers").json() == {"ice_servers": []}


# Methods and paths


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("DELETE", "/webrtc/rooms", {"GET", "HEAD", "POST"}),
        ("PUT", "/webrtc/rooms", {"GET", "HEAD", "POST"}),
        ("POST", "/webrtc/rooms/x", {"GET", "HEAD", "PUT", "DELETE"}),
        ("PATCH", "/webrtc/rooms/x", {"GET", "HEAD", "PUT", "DELETE"}),
        ("GET", "/webrtc/signal", {"POST"}),
        ("POST", "/webrtc/connections", {"GET", "HEAD"}),
        ("POST", "/webrtc/health", {"GET", "HEAD"}),
        ("DELETE", "/webrtc/ice-servers", {"GET", "HEAD"}),
        ("POST", "/webrtc/signaling", {"GET", "HEAD"}),
    ],
)
def test_another_method(host: Host, method: str, path: str, allow: set[str]) -> None:
    response = host.http.request(method, path)
    assert refusal(response) == (405, "method_not_allowed")
    assert set(response.headers["allow"].split(", ")) == allow


def test_head(host: Host, room: str) -> None:
    host.http.post("/webrtc/rooms", json={"room_id": room})
    for path in ("/webrtc/rooms", at(room), "/webrtc/connections", "/webrtc/health", "/webrtc/ice-servers"):
        response, whole = host.http.head(path), host.http.get(path)
        assert (response.status_code, response.content) == (200, b"")
        assert response.headers["content-length"] == str(len(whole.content))


def test_signaling_asked_for_plainly(host: Host) -> None:
    response = host.http.get("/webrtc/signaling?room_id=x")
    assert refusal(response) == (426, "upgrade_required")
    assert response.headers["upgrade"] == "websocket"


@pytest.mark.parametrize("path", ["/webrtc", "/webrtc/", "/webrtc/nothing", "/webrtc/signal/", "/webrtc/signaling/"])
def test_another_path(host: Host, path: str) -> None:
    assert refusal(host.http.get(path)) == (404, "not_found")
    with pytest.raises(InvalidStatus) as refused:
        host.websocket(path)
    assert refused.value.response.status_code == 404


# Switched off

_PATHS: Final = (
    ("GET", "/webrtc/rooms"),
    ("POST", "/webrtc/rooms"),
    ("GET", "/webrtc/rooms/x"),
    ("PUT", "/webrtc/rooms/x"),
    ("DELETE", "/webrtc/rooms/x"),
    ("POST", "/webrtc/signal"),
    ("GET", "/webrtc/signaling"),
    ("GET", "/webrtc/connections"),
    ("GET", "/webrtc/health"),
    ("GET", "/webrtc/ice-servers"),
)


@each_host
def test_switched_off(kind: HostKind) -> None:
    settings = Settings(webrtc=WebRtcSettings(enabled=False))
    with run_host(kind, settings) as host:
        for method, path in _PATHS:
            assert refusal(host.http.request(method, path)) == (404, "not_found")
        with pytest.raises(InvalidStatus) as refused:
            host.websocket("/webrtc/signaling", "room_id=x")
        assert refused.value.response.status_code == 404
        assert not [name for name in host.http.get("/stats").json() if name.startswith("webrtc")]
        with host.client() as client:
            for command in ("create_room", "join_room", "leave_room", "get_rooms"):
                answer = client.ask(command, room_id="x")
                assert (answer["type"], answer["code"]) == ("error", "webrtc_disabled")
            client.say({"type": "webrtc_signal", "signal_type": "bye", "target_peer_id": "x", "id": "1"})
            assert client.hear()["code"] == "webrtc_disabled"
            # And a room in the query of /ws is nothing to it.
        with host.client("room_id=x&peer_id=y") as client:
            assert "room" not in client.connected
            assert client.ask("ping")["ok"] is True


@each_host
def test_without_websockets(kind: HostKind) -> None:
    settings = Settings(websocket=WebSocketSettings(enabled=False))
    with run_host(kind, settings) as host:
        assert refusal(host.http.get("/webrtc/signaling")) == (404, "not_found")
        with pytest.raises(InvalidStatus) as refused:
            host.websocket("/webrtc/signaling", "room_id=x")
        assert refused.value.response.status_code == 404
        assert host.http.post("/webrtc/rooms", json={"room_id": "x"}).status_code == 201
