"""WebRTC signaling on every host: whoever says what cannot be, or too much, is told so, and nobody else hears of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final

import pytest

from rtcore_adapters import Settings
from rtcore_adapters.settings import RealtimeSettings, WebRtcSettings

from .clients import Client
from .hosting import HOSTS, Host, HostKind, run_host
from .peers import CANDIDATE, SDP, answer, bye, candidate, enter, goes_on, offer, wait_until_away

each_host = pytest.mark.parametrize("kind", HOSTS, ids=str)


@pytest.fixture(scope="module", params=HOSTS, ids=str)
def running_host(request: pytest.FixtureRequest) -> Iterator[Host]:
    """Run a host of each kind, whose peers are waited for as long as a test may take."""
    kind: HostKind = request.param
    settings = Settings(
        realtime=RealtimeSettings(allow_anonymous=True, presence_grace=0.0),
        webrtc=WebRtcSettings(peer_ttl=60.0),
    )
    with run_host(kind, settings) as running:
        yield running


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("room_id=", 4400),
        ("room_id=%0A", 4400),
        ("room_id=%FF", 4400),
        (f"room_id={'x' * 256}", 4400),
        ("room_id=a&peer_id=", 4400),
        ("room_id=a&peer_id=%00", 4400),
        (f"room_id=a&peer_id={'x' * 256}", 4400),
        ("room_id=a&instance=", 4400),
        ("room_id=a&session=", 4400),
        ("room_id=a&peer_id=b&channel=%24room:x", 4400),
    ],
)
def test_a_query_that_cannot_be(host: Host, query: str, code: int) -> None:
    with host.websocket("/webrtc/signaling", query) as websocket:
        client = Client(websocket, welcome=False)
        farewell = client.hear()
        assert (farewell["type"], farewell["code"], farewell["reconnect"]) == ("disconnect", code, False)
        assert client.closed()[0] == code


_REFUSED: Final[list[tuple[dict[str, object], str]]] = [
    (offer("two", peer_id="two"), "forged_peer"),
    (offer("two", peer_id="eve'"), "forged_peer"),
    (offer("two"), "unknown_peer"),
    (offer("nobody"), "unknown_peer"),
    (offer("eve"), "unknown_peer"),
    (offer("friend", target_instance="another"), "outdated_signal"),
    (offer("two", room_id="nowhere"), "not_in_room"),
    (answer("friend"), "outdated_signal"),
    ({"signal_type": "shout", "target_peer_id": "friend"}, "invalid_signal"),
    ({"signal_type": None, "target_peer_id": "friend"}, "invalid_signal"),
    ({"signal_type": ["offer"], "target_peer_id": "friend"}, "invalid_signal"),
    ({"signal_type": "OFFER", "target_peer_id": "friend", "sdp": SDP}, "invalid_signal"),
    ({"signal_type": "offer", "sdp": SDP}, "invalid_signal"),
    ({"signal_type": "offer", "target_peer_id": 5, "sdp": SDP}, "invalid_signal"),
    ({"signal_type": "offer", "target_peer_id": "friend"}, "invalid_signal"),
    (offer("friend", sdp="hello"), "invalid_signal"),
    (offer("friend", sdp=[SDP]), "invalid_signal"),
    (offer("friend", ice_candidate=CANDIDATE), "invalid_signal"),
    (candidate("friend", ice_candidate="candidate:1"), "invalid_signal"),
    (candidate("friend", ice_candidate={"candidate": 1}), "invalid_signal"),
    (candidate("friend", ice_candidate={}), "invalid_signal"),
    ({"signal_type": "ice-candidate", "target_peer_id": "friend"}, "invalid_signal"),
    (candidate("friend", sdp=SDP), "invalid_signal"),
    (bye("friend", sdp=SDP), "invalid_signal"),
    (offer("friend", negotiation=5), "invalid_signal"),
    (offer("friend", negotiation="x" * 65), "invalid_signal"),
    (offer("friend", sdp="v=0" + "x" * 1_000_000), "signal_too_large"),
    (candidate("friend", ice_candidate={"candidate": "x" * 4096}), "signal_too_large"),
]


def test_what_is_refused_disturbs_nobody(host: Host, room: str) -> None:
    """Each is told to its sender, and counted; another pair, and the one it was meant for, hear nothing of it."""
    with (
        enter(host, room, "one") as one,
        enter(host, room, "two") as two,
        enter(host, f"{room}'", "friend") as friend,
        enter(host, f"{room}'", "eve") as eve,
    ):
        assert one.hear()["type"] == friend.hear()["type"] == "peer_joined"
        for number, (signal, code) in enumerate(_REFUSED):
            before = host.http.get("/stats").json()
            eve.say({**signal, "id": str(number)})
            refused = eve.hear()
            assert (refused["type"], refused["id"], refused["code"]) == ("error", str(number), code), signal
            assert refused["message"]
            after = host.http.get("/stats").json()
            assert after["webrtc_refused_signals"] == before["webrtc_refused_signals"] + 1, signal
            assert after["webrtc_signals"] == before["webrtc_signals"]
            # Whoever does not ask is told all the same.
            eve.say({**signal, "type": "webrtc_signal"})
            assert eve.hear()["code"] == code
            goes_on(one, two)
        # Signals to another room, even one whose name and peers are known.
        for signal in (offer("two", room_id=room), candidate("one", room_id=room, peer_id="two")):
            eve.say(signal)
            assert eve.hear()["code"] == "not_in_room"
        goes_on(one, two)
        eve.say(offer("friend", mark=1))
        assert friend.hear()["mark"] == 1


def test_what_is_no_signal(host: Host, room: str) -> None:
    with (
        enter(host, room, "one") as one,
        enter(host, room, "two") as two,
        enter(host, room, "eve") as eve,
    ):
        assert [each.hear()["type"] for each in (one, one, two)] == ["peer_joined"] * 3
        for frame, kind, code in (
            (b"\x00\x01binary", "error", "malformed_binary"),
            ("{", "text", None),
            ("[]", "text", None),
            ('{"target_peer_id": "one"}', "text", None),
            ('{"signal_type": "bye", "target_peer_id": "one", "type": "peer_joined"}', "error", "reserved_type"),
            ('{"signal_type": "bye", "target_peer_id": "one", "type": 5}', "error", "invalid_type"),
            ('{"signal_type": "bye", "target_peer_id": "one", "id": {}}', "error", "invalid_id"),
            ('{"signal_type": "bye", "a": ' + "[" * 500 + "]" * 500 + "}", "error", "too_deep"),
            ('{"signal_type": "bye", "target_peer_id": "\\ud800"}', "text", None),
        ):
            before = host.http.get("/stats").json()["refused_messages"]
            eve.say(frame)
            heard = eve.hear()
            assert (heard["type"], heard.get("code")) == (kind, code), frame
            after = host.http.get("/stats").json()["refused_messages"]
            assert after == before + (kind == "error"), frame
            goes_on(one, two)
        for reserved in ("peer_joined", "peer_left"):
            eve.say({"type": reserved, "channel": "a", "peer_id": "two", "room_id": room})
            assert eve.hear()["code"] == "reserved_type"
        # Above the largest message, there is no going on; the peer may come back.
        eve.say(json.dumps(offer("one", sdp="v=0" + "x" * 2**20)))
        assert eve.closed()[0] == 1009
        goes_on(one, two)
        wait_until_away(host, room, "eve")


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ({}, "invalid_room_id"),
        ({"room_id": 5}, "invalid_room_id"),
        ({"room_id": "a\nb"}, "invalid_room_id"),
        ({"room_id": "a", "peer_id": ""}, "invalid_peer_id"),
        ({"room_id": "a", "peer_id": ["x"]}, "invalid_peer_id"),
        ({"room_id": "a", "instance": 1}, "invalid_instance"),
        ({"room_id": "a", "metadata": []}, "invalid_metadata"),
        ({"room_id": "a", "metadata": {"x": "y" * 4096}}, "invalid_metadata"),
        ({"room_id": "a", "rollback": "no"}, "invalid_rollback"),
        ({"room_id": "a", "max_participants": 9}, "invalid_max_participants"),
        ({"room_id": "a", "since": 5}, "invalid_since"),
        ({"room_id": "a", "since": {"epoch": "e"}}, "invalid_since"),
    ],
)
def test_a_join_that_cannot_be(host: Host, data: dict[str, object], code: str) -> None:
    with enter(host, None) as client:
        answer = client.ask("join_room", **data)
        assert (answer["type"], answer["code"]) == ("error", code)
    assert "a" not in [each["room_id"] for each in host.http.get("/webrtc/rooms").json()["rooms"]]


def test_at_most_so_many_rooms(host: Host, room: str) -> None:
    with enter(host, None) as client:
        for number in range(16):
            assert client.ask("join_room", room_id=f"{room}-{number}")["ok"] is True
        assert client.ask("join_room", room_id=f"{room}-16")["code"] == "too_many_rooms"
        assert client.ask("leave_room", room_id=f"{room}-3")["ok"] is True
        assert client.ask("join_room", room_id=f"{room}-16")["ok"] is True


@each_host
def test_a_flood(kind: HostKind) -> None:
    """Whoever signals too fast is warned, then sent away; others are served meanwhile, and its peer is only away."""
    realtime = RealtimeSettings(rate_limit=5.0, rate_limit_burst=20, rate_limit_warnings=0)
    with (
        run_host(kind, Settings(realtime=realtime)) as host,
        enter(host, "r", "one") as one,
        enter(host, "r", "two") as two,
        enter(host, "s", "eve") as eve,
        enter(host, "s", "friend") as friend,
    ):
        assert one.hear()["type"] == eve.hear()["type"] == "peer_joined"
        for number in range(20):
            eve.say(candidate("friend", number=number))
        eve.say(candidate("friend", number=20))
        farewell = eve.hear()
        assert (farewell["type"], farewell["code"]) == ("disconnect", 4429)
        assert eve.closed()[0] == 4429
        assert host.http.get("/stats").json()["refused_messages"] == 1
        assert [friend.hear()["number"] for _ in range(20)] == list(range(20))
        goes_on(one, two)
        wait_until_away(host, "s", "eve")


@each_host
def test_a_flood_that_is_warned(kind: HostKind) -> None:
    realtime = RealtimeSettings(rate_limit=0.01, rate_limit_burst=3, rate_limit_warnings=5)
    with (
        run_host(kind, Settings(realtime=realtime)) as host,
        enter(host, "s", "eve") as eve,
        enter(host, "s", "friend") as friend,
    ):
        assert eve.hear()["type"] == "peer_joined"
        for number in range(10):
            eve.say(candidate("friend", number=number, id=str(number)))
        heard = [eve.hear() for _ in range(10)]
        assert [each["type"] for each in heard] == ["response"] * 3 + ["error"] * 7
        assert {each["code"] for each in heard[3:]} == {"rate_limited"}
        assert min(each["retry_after"] for each in heard[3:]) >= 1
        assert [friend.hear()["number"] for _ in range(3)] == [0, 1, 2]
        assert host.http.get("/stats").json()["refused_messages"] == 7
        host.post("/broadcast", {"data": "last"})
        assert friend.hear()["type"] == "broadcast"
