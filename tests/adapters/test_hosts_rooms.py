"""The HTTP API of rooms on every host: make, look, change and close them, signal, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import pytest

from rtcore_adapters import Settings
from rtcore_adapters.settings import RealtimeSettings, WebRtcSettings

from .hosting import HOSTS, Host, HostKind, run_host
from .peers import SDP, at, enter, refusal

_MOST: Final = 4

each_host = pytest.mark.parametrize("kind", HOSTS, ids=str)


@pytest.fixture(scope="module", params=HOSTS, ids=str)
def running_host(request: pytest.FixtureRequest) -> Iterator[Host]:
    """Run a host of each kind, with small rooms."""
    kind: HostKind = request.param
    settings = Settings(
        realtime=RealtimeSettings(allow_anonymous=True, presence_grace=0.0),
        webrtc=WebRtcSettings(max_participants_per_room=_MOST),
    )
    with run_host(kind, settings) as running:
        yield running


def peers_of(host: Host, room: str) -> list[dict[str, Any]]:
    response = host.http.get(at(room))
    assert response.status_code == 200, response.text
    participants: list[dict[str, Any]] = response.json()["participants"]
    return participants


# Rooms


def test_make_look_change_close(host: Host, room: str) -> None:
    made = host.http.post("/webrtc/rooms", json={"room_id": room, "name": "Größe 7", "max_participants": 2})
    described = {"room_id": room, "name": "Größe 7", "max_participants": 2, "participants": []}
    assert (made.status_code, made.json()) == (201, described)
    assert host.http.get(at(room)).json() == described
    listed = host.http.get("/webrtc/rooms").json()
    assert list(listed) == ["rooms"]
    assert described in listed["rooms"]

    changed = host.http.put(at(room), json={"max_participants": 3})
    assert (changed.status_code, changed.json()) == (200, described | {"max_participants": 3})
    changed = host.http.put(at(room), json={"name": "Foyer"})
    assert changed.json() == described | {"max_participants": 3, "name": "Foyer"}
    assert host.http.get(at(room)).json() == changed.json()

    closed = host.http.delete(at(room))
    assert (closed.status_code, closed.json()) == (200, {"room_id": room, "closed": True})
    for response in (host.http.get(at(room)), host.http.put(at(room), json={"name": "x"}), host.http.delete(at(room))):
        assert refusal(response) == (404, "unknown_room")
    assert room not in [each["room_id"] for each in host.http.get("/webrtc/rooms").json()["rooms"]]


def test_a_room_that_says_nothing_of_itself(host: Host) -> None:
    bare = host.http.post("/webrtc/rooms")
    empty = host.http.post("/webrtc/rooms", json={})
    nulls = host.http.post("/webrtc/rooms", json={"room_id": None, "name": None, "max_participants": None})
    chunked = host.http.post("/webrtc/rooms", content=iter([b"{", b"}"]), headers={"content-type": "application/json"})
    ids = []
    for made in (bare, empty, nulls, chunked):
        assert made.status_code == 201, made.text
        described = made.json()
        ids.append(described["room_id"])
        assert described == {
            "room_id": ids[-1],
            "name": ids[-1],
            "max_participants": _MOST,
            "participants": [],
        }
    assert len(set(ids)) == 4


def test_a_room_exists(host: Host, room: str) -> None:
    assert host.http.post("/webrtc/rooms", json={"room_id": room, "name": "first"}).status_code == 201
    again = host.http.post("/webrtc/rooms", json={"room_id": room, "name": "second"})
    assert refusal(again) == (409, "room_exists")
    assert host.http.get(at(room)).json()["name"] == "first"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ([], "invalid_room"),
        ("lobby", "invalid_room"),
        (None, "invalid_room"),
        ({"room_id": 5}, "invalid_room_id"),
        ({"room_id": ""}, "invalid_room_id"),
        ({"room_id": "a\nb"}, "invalid_room_id"),
        ({"room_id": "x" * 256}, "invalid_room_id"),
        ({"room_id": ["a"]}, "invalid_room_id"),
        ({"name": 5}, "invalid_name"),
        ({"name": "\x00"}, "invalid_name"),
        ({"max_participants": 0}, "invalid_max_participants"),
        ({"max_participants": -1}, "invalid_max_participants"),
        ({"max_participants": 1.5}, "invalid_max_participants"),
        ({"max_participants": "3"}, "invalid_max_participants"),
        ({"max_participants": True}, "invalid_max_participants"),
        ({"max_participants": _MOST + 1}, "invalid_max_participants"),
        ({"max_participants": 10**30}, "invalid_max_participants"),
    ],
)
def test_a_room_that_cannot_be(host: Host, room: str, body: object, code: str) -> None:
    before = len(host.http.get("/webrtc/rooms").json()["rooms"])
    content = json.dumps(body).encode()
    headers = {"content-type": "application/json"}
    assert refusal(host.http.post("/webrtc/rooms", content=content, headers=headers)) == (422, code)
    assert len(host.http.get("/webrtc/rooms").json()["rooms"]) == before
    if code != "invalid_room_id":
        made = host.http.post("/webrtc/rooms", json={"room_id": room}).json()
        assert refusal(host.http.put(at(room), content=content, headers=headers)) == (422, code)
        assert host.http.get(at(room)).json() == made


@pytest.mark.parametrize("path", ["/webrtc/rooms", "/webrtc/rooms/x", "/webrtc/signal"])
def test_a_body_that_cannot_be(host: Host, path: str) -> None:
    method = "PUT" if path.endswith("x") else "POST"

    def send(content: bytes | Iterator[bytes], kind: str | None = "application/json") -> tuple[int, str]:
        # Hosts end the connection whose request they have not read to the end, and not all of them say so.
        headers = {"connection": "close"} if kind is None else {"connection": "close", "content-type": kind}
        return refusal(host.http.request(method, path, content=content, headers=headers))

    for content in (b"{", b"\xff", b'{"a": "\\ud800"}', b'{"a": "\xed\xa0\x80"}'):
        assert send(content) == (400, "malformed_json")
    assert send(b'{"a":' + b"[" * 200 + b"]" * 200 + b"}") == (400, "too_deep")
    for kind in (None, "text/plain", "application/x-www-form-urlencoded"):
        assert send(b"{}", kind) == (415, "unsupported_media_type")
    assert send(b'{"a": "' + b"x" * 500_000 + b'"}') == (413, "body_too_large")
    assert send(b"x" * 50_000 for _ in range(10)) == (413, "body_too_large")
    assert host.http.get("/webrtc/health").status_code == 200


def test_a_signal_needs_a_body(host: Host) -> None:
    response = host.http.post("/webrtc/signal", headers={"content-type": "application/json"})
    assert refusal(response) == (400, "malformed_json")
    for body in ([1], "offer", 5):
        assert refusal(host.http.post("/webrtc/signal", json=body)) == (422, "invalid_signal")


@pytest.mark.parametrize(
    "name", ["a/b", "a%2Fb", "100 %", "Größe/7 🎈", "a//b", "a/", "/a", "?x#y", "a+b", "a;b=c", "%", "signal/x"]
)
def test_a_room_may_be_called_anything(host: Host, room: str, name: str) -> None:
    name = f"{room}:{name}"
    assert host.http.post("/webrtc/rooms", json={"room_id": name}).status_code == 201
    assert host.http.get(at(name)).json()["room_id"] == name
    with enter(host, name, "p/1 %41") as peer:
        assert peer.connected["room"]["room_id"] == name
        assert [each["peer_id"] for each in peers_of(host, name)] == ["p/1 %41"]
        assert host.http.put(at(name), json={"name": name}).status_code == 200
        assert peer.hear_type("room_updated")["room_id"] == name
        assert host.http.delete(at(name)).json() == {"room_id": name, "closed": True}
    assert refusal(host.http.get(at(name))) == (404, "unknown_room")


@pytest.mark.parametrize("path", ["", "%FF", "%00", "x" * 1000, "%ED%A0%80"])
def test_a_room_that_is_not_there(host: Host, path: str) -> None:
    for method in ("GET", "DELETE"):
        assert refusal(host.http.request(method, f"/webrtc/rooms/{path}")) == (404, "unknown_room")


@each_host
def test_whoever_is_gone_for_good_is_forgotten(kind: HostKind) -> None:
    """Though nobody is connected, whose presence would keep the server awake."""
    with run_host(kind, Settings(webrtc=WebRtcSettings(room_ttl=0.05, peer_ttl=0.05))) as host:
        for connection in (host.client(), enter(host, "left", "ann")):
            with connection:
                assert host.http.post("/webrtc/rooms", json={}).status_code == 201
            host.wait_until_empty()
            host.wait_for(lambda: host.http.get("/webrtc/rooms").json() == {"rooms": []})
        assert host.http.post("/webrtc/rooms", json={}).status_code == 201
        host.wait_for(lambda: host.http.get("/webrtc/health").json() == {"status": "ok", "rooms": 0, "peers": 0})
        assert host.http.post("/webrtc/rooms", json={}).status_code == 201
        host.wait_for(lambda: host.http.get("/stats").json()["webrtc_rooms"] == 0)


@each_host
def test_too_many_rooms(kind: HostKind) -> None:
    with run_host(kind, Settings(webrtc=WebRtcSettings(max_rooms=2))) as host, host.client() as client:
        assert host.http.post("/webrtc/rooms", json={"room_id": "a"}).status_code == 201
        assert client.ask("join_room", room_id="b")["ok"] is True
        response = host.http.post("/webrtc/rooms", json={"room_id": "c"})
        assert refusal(response) == (503, "too_many_rooms")
        assert response.headers["retry-after"] == "5"
        assert client.ask("create_room", room_id="c")["code"] == "too_many_rooms"
        assert client.ask("join_room", room_id="c")["code"] == "too_many_rooms"
        with enter(host, "c", "p") as other:
            assert "room" not in other.connected
            assert other.hear()["code"] == "too_many_rooms"
            assert other.ask("join_room", room_id="a")["ok"] is True
        assert refusal(host.http.post("/webrtc/rooms", json={"room_id": "a"})) == (409, "room_exists")
        host.http.delete(at("b"))
        assert host.http.post("/webrtc/rooms", json={"room_id": "c"}).status_code == 201


# Those who are in it are told


def test_peers_are_told_of_changes(host: Host, room: str) -> None:
    with enter(host, room, "ann") as ann, host.client() as bob:
        assert bob.ask("join_room", room_id=room, peer_id="bob")["ok"] is True
        assert ann.hear_type("peer_joined")["peer_id"] == "bob"
        host.http.put(at(room), json={"name": "Foyer", "max_participants": 2})
        for peer in (ann, bob):
            heard = peer.hear()
            assert heard.pop("meta")["offset"] >= 1
            assert heard == {"type": "room_updated", "room_id": room, "name": "Foyer", "max_participants": 2}
        with enter(host, room, "eve") as eve:
            assert eve.hear()["code"] == "room_full"
        host.http.delete(at(room))
        for peer in (ann, bob):
            heard = peer.hear()
            assert heard.pop("meta")["offset"] >= 2
            assert heard == {"type": "room_closed", "room_id": room, "reason": "closed"}
        ann.say({"signal_type": "bye", "target_peer_id": "bob", "room_id": room})
        assert ann.hear()["code"] == "not_in_room"
        # A new room of that name has nobody in it.
        assert ann.ask("join_room", room_id=room, peer_id="ann")["data"]["participants"] == []


# Signals


def test_a_signal_without_a_websocket(host: Host, room: str) -> None:
    with enter(host, room, "ann") as ann, enter(host, room, "bob") as bob:
        assert ann.hear()["type"] == "peer_joined"
        offer = {
            "room_id": room,
            "peer_id": "ann",
            "target_peer_id": "bob",
            "signal_type": "offer",
            "sdp": SDP,
            "custom": {"x": [1.5]},
        }
        answered = host.http.post("/webrtc/signal", json=offer)
        assert answered.status_code == 200, answered.text
        receipt = answered.json()
        assert sorted(receipt) == ["epoch", "id", "offset"]
        heard = bob.hear()
        meta = heard.pop("meta")
        assert {name: meta[name] for name in receipt} == receipt
        instance = ann.connected["room"]["instance"]
        assert heard == {**offer, "type": "webrtc_signal", "instance": instance}
        # The peer may answer it as if it had come by the peer's own connection; and so may a program.
        bob.say({"signal_type": "answer", "target_peer_id": "ann", "sdp": SDP})
        assert ann.hear()["signal_type"] == "answer"
        assert refusal(host.http.post("/webrtc/signal", json={**offer, "signal_type": "answer"})) == (
            409,
            "outdated_signal",
        )
        for kind in ("ice-candidate", "bye"):
            signal = {**offer, "signal_type": kind, "type": "text"}
            del signal["sdp"]
            if kind == "ice-candidate":
                signal["ice_candidate"] = {"candidate": "candidate:1 1 udp 1 127.0.0.1 9 typ host", "sdpMid": "0"}
            assert host.http.post("/webrtc/signal", json=signal).status_code == 200
            heard = bob.hear()
            assert (heard["type"], heard["signal_type"]) == ("webrtc_signal", kind)


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"signal_type": "shout"}, 422, "invalid_signal"),
        ({"signal_type": None}, 422, "invalid_signal"),
        ({"signal_type": ["offer"]}, 422, "invalid_signal"),
        ({"room_id": None}, 422, "invalid_signal"),
        ({"peer_id": None}, 422, "invalid_signal"),
        ({"target_peer_id": None}, 422, "invalid_signal"),
        ({"target_peer_id": 7}, 422, "invalid_signal"),
        ({"sdp": None}, 422, "invalid_signal"),
        ({"sdp": "hello"}, 422, "invalid_signal"),
        ({"sdp": {"type": "offer"}}, 422, "invalid_signal"),
        ({"ice_candidate": {"candidate": ""}}, 422, "invalid_signal"),
        ({"negotiation": "x" * 65}, 422, "invalid_signal"),
        ({"id": {}}, 422, "invalid_id"),
        ({"sdp": "v=0" + "x" * 65534}, 413, "signal_too_large"),
        ({"sdp": "v=0" + "ä" * 32767}, 413, "signal_too_large"),
        ({"room_id": "elsewhere"}, 404, "unknown_room"),
        ({"peer_id": "eve"}, 404, "unknown_peer"),
        ({"target_peer_id": "eve"}, 404, "unknown_peer"),
        ({"target_peer_id": "ann"}, 404, "unknown_peer"),
        ({"target_instance": "before"}, 409, "outdated_signal"),
        ({"signal_type": "answer"}, 409, "outdated_signal"),
    ],
)
def test_a_signal_that_is_refused(host: Host, room: str, changes: dict[str, Any], status: int, code: str) -> None:
    with enter(host, room, "ann"), enter(host, room, "bob") as bob:
        before = host.http.get("/stats").json()
        signal = {"room_id": room, "peer_id": "ann", "target_peer_id": "bob", "signal_type": "offer", "sdp": SDP}
        assert refusal(host.http.post("/webrtc/signal", json=signal | changes)) == (status, code)
        after = host.http.get("/stats").json()
        assert after["webrtc_refused_signals"] == before["webrtc_refused_signals"] + 1
        assert after["webrtc_signals"] == before["webrtc_signals"]
        assert host.http.post("/webrtc/signal", json=signal | {"mark": 1}).status_code == 200
        assert bob.hear()["mark"] == 1
        assert host.http.get("/stats").json()["webrtc_signals"] == before["webrtc_signals"] + 1


def test_the_largest_signal(host: Host, room: str) -> None:
    with enter(host, room, "ann"), enter(host, room, "bob") as bob:
        sdp = "v=0" + "x" * 65533
        signal = {"room_id": room, "peer_id": "ann", "target_peer_id": "bob", "signal_type": "offer", "sdp": sdp}
        assert host.http.post("/webrtc/signal", json=signal).status_code == 200
        assert bob.hear()["sdp"] == sdp


# Who is there


def test_peers_and_health(host: Host, room: str) -> None:
    before = host.http.get("/webrtc/health").json()
    with (
        enter(host, room, "ann", user_id="7", instance="page") as ann,
        host.client() as bob,
    ):
        bob.ask("join_room", room_id=room, peer_id="bob", metadata={"name": "Bob 🎈"})
        connections = host.http.get("/webrtc/connections").json()
        assert list(connections) == ["connections"]
        mine = [each for each in connections["connections"] if each["room_id"] == room]
        assert mine == [
            {
                "room_id": room,
                "peer_id": "ann",
                "user_id": "7",
                "instance": "page",
                "metadata": {},
                "connected": True,
                "connection_id": ann.connection_id,
            },
            {
                "room_id": room,
                "peer_id": "bob",
                "user_id": None,
                "instance": mine[1]["instance"],
                "metadata": {"name": "Bob 🎈"},
                "connected": True,
                "connection_id": bob.connection_id,
            },
        ]
        health = host.http.get("/webrtc/health").json()
        assert health == {"status": "ok", "rooms": before["rooms"] + 1, "peers": before["peers"] + 2}
        stats = host.http.get("/stats").json()
        assert (stats["webrtc_rooms"], stats["webrtc_peers"]) == (health["rooms"], health["peers"])
        assert ann.ask("get_connection_stats")["data"]["webrtc_rooms"] == health["rooms"]
        # What carries the room is nobody's channel.
        assert host.http.get("/channels").json() == {"channels": []}
        assert [each["channels"] for each in host.http.get("/connections").json()["connections"]] == [[], []]
        for path in ("/channels/%24room:s/history", "/channels/%24room:s/presence"):
            assert refusal(host.http.get(path)) == (422, "invalid_channel")
    host.wait_until_empty()
    away = [each for each in host.http.get("/webrtc/connections").json()["connections"] if each["room_id"] == room]
    assert [(each["connected"], each["connection_id"]) for each in away] == [(False, None), (False, None)]
    assert [each["connected"] for each in peers_of(host, room)] == [False, False]


@each_host
def test_health_of_a_server_that_stops(kind: HostKind) -> None:
    with run_host(kind, Settings()) as host:
        assert host.http.get("/webrtc/health").json() == {"status": "ok", "rooms": 0, "peers": 0}
        host.portal.call(host.realtime.driver.drain)
        response = host.http.get("/webrtc/health")
        assert refusal(response) == (503, "draining")
        assert response.headers["retry-after"] == "5"
