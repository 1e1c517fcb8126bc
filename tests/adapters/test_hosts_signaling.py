"""WebRTC signaling on every host, for plain clients: what peers hear of each other, away and back included."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from rtcore_adapters import Settings
from rtcore_adapters.settings import RealtimeSettings, WebRtcSettings

from .clients import Client, Stream
from .hosting import HOSTS, Host, HostKind, run_host
from .peers import answer, bye, candidate, cut, enter, goes_on, offer, others, wait_until_away

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


# Two peers


def test_two_peers(host: Host, room: str) -> None:
    with enter(host, room, "ann", user_id="7", instance="page") as ann:
        entered = ann.connected["room"]
        assert {name: entered[name] for name in ("room_id", "name", "max_participants", "participants")} == {
            "room_id": room,
            "name": room,
            "max_participants": 8,
            "participants": [],
        }
        assert (entered["peer_id"], entered["instance"], entered["offset"]) == ("ann", "page", 0)
        assert ann.connected["channels"] == []
        with enter(host, room, "bob") as bob:
            assert others(bob) == [("ann", False)]
            assert bob.connected["room"]["participants"][0]["instance"] == "page"
            assert bob.connected["room"]["participants"][0]["user_id"] == "7"
            instance = bob.connected["room"]["instance"]
            heard = ann.hear()
            meta = heard.pop("meta")
            assert (meta["offset"], meta["epoch"]) == (1, entered["epoch"])
            assert heard == {
                "type": "peer_joined",
                "room_id": room,
                "peer_id": "bob",
                "user_id": None,
                "instance": instance,
                "metadata": {},
                "connected": True,
                "polite": True,
                "rejoined": False,
            }
            for speaker, listener, name, other in ((ann, bob, "ann", "bob"), (bob, ann, "bob", "ann")):
                said = [
                    offer(other, negotiation="n1", custom={"a": [1.5, None]}),
                    candidate(other, negotiation="n1"),
                    {**candidate(other), "ice_candidate": None},
                ]
                for signal in said:
                    speaker.say(signal)
                offsets = []
                for signal in said:
                    heard = listener.hear()
                    meta = heard.pop("meta")
                    offsets.append(meta["offset"])
                    assert heard == {
                        **signal,
                        "type": "webrtc_signal",
                        "room_id": room,
                        "peer_id": name,
                        "instance": speaker.connected["room"]["instance"],
                    }
                    assert meta["sender"]["connection_id"] == speaker.connection_id
                assert offsets == list(range(offsets[0], offsets[0] + 3))
                listener.say(answer(name, negotiation="n1"))
                heard = speaker.hear()
                assert (heard["signal_type"], heard["peer_id"]) == ("answer", other)
            bob.say(bye("ann"))
            assert ann.hear()["signal_type"] == "bye"
            bob.ask("leave_room", room_id=room)
            heard = ann.hear()
            del heard["meta"]
            assert heard == {
                "type": "peer_left",
                "room_id": room,
                "peer_id": "bob",
                "instance": instance,
                "reason": "left",
            }
            ann.say(offer("bob"))
            assert ann.hear()["code"] == "unknown_peer"


def test_the_smaller_name_is_polite(host: Host, room: str) -> None:
    with ExitStack() as stack:
        for name, expected in (
            ("m", []),
            ("Z", [("m", True)]),
            ("ä", [("m", False), ("Z", False)]),
            ("9", [("m", True), ("Z", True), ("ä", True)]),
        ):
            assert others(stack.enter_context(enter(host, room, name))) == expected


def test_a_connection_is_the_name_of_a_peer_without_one(host: Host, room: str) -> None:
    with enter(host, room) as one, enter(host, room) as two:
        assert one.connected["room"]["peer_id"] == one.connection_id
        assert [name for name, _ in others(two)] == [one.connection_id]
        assert one.hear()["peer_id"] == two.connection_id
        two.say(offer(one.connection_id))
        assert one.hear()["peer_id"] == two.connection_id


def test_without_a_room_in_the_query(host: Host, room: str) -> None:
    with enter(host, None, "ann") as ann, enter(host, room, "bob") as bob:
        assert "room" not in ann.connected
        ann.say(offer("bob", room_id=room))
        assert ann.hear()["code"] == "not_in_room"
        assert ann.ask("join_room", room_id=room, peer_id="ann", metadata={"name": "Ann"})["ok"] is True
        joined = bob.hear()
        assert (joined["type"], joined["peer_id"], joined["metadata"]) == ("peer_joined", "ann", {"name": "Ann"})
        ann.say(offer("bob"))
        assert bob.hear()["peer_id"] == "ann"


def test_commands_on_the_main_websocket(host: Host, room: str) -> None:
    """Join by a command over ``/ws``, where a signal says its type, and talk to somebody on ``/webrtc/signaling``."""
    # A room in its query is nothing to it.
    with host.client("room_id=a&peer_id=ann") as ann, enter(host, room, "bob") as bob:
        assert "room" not in ann.connected
        assert ann.ask("create_room", room_id=room)["code"] == "room_exists"
        joined = ann.ask("join_room", room_id=room, peer_id="ann", rollback=False)
        assert joined["ok"] is True
        assert [(each["peer_id"], each["polite"]) for each in joined["data"]["participants"]] == [("bob", False)]
        assert "recovered" not in joined["data"]
        heard = bob.hear()
        assert (heard["type"], heard["peer_id"], heard["polite"]) == ("peer_joined", "ann", True)
        ann.say({"type": "webrtc_signal", **offer("bob", room_id=room, id="once")})
        acknowledged = ann.hear()
        assert (acknowledged["type"], acknowledged["id"], acknowledged["ok"]) == ("response", "once", True)
        assert sorted(acknowledged["data"]) == ["channel", "epoch", "offset"]
        assert bob.hear()["signal_type"] == "offer"
        # The same again is acknowledged, and passed on no more.
        ann.say({"type": "webrtc_signal", **offer("bob", room_id=room, id="once")})
        assert ann.hear() == acknowledged
        bob.say(answer("ann"))
        assert ann.hear()["signal_type"] == "answer"
        # Where signals are not what one has come for, a message says that it is one.
        ann.say(bye("bob"))
        assert ann.hear()["type"] == "text"
        rooms = ann.ask("get_rooms")["data"]["rooms"]
        [mine] = [each for each in rooms if each["room_id"] == room]
        assert [each["peer_id"] for each in mine["participants"]] == ["bob", "ann"]
        ann.websocket.close()
        # Closed, but not left: it may come back.
        wait_until_away(host, room, "ann")
        bob.say(bye("ann", id="later"))
        assert bob.hear()["id"] == "later"


def test_signals_stay_in_their_room(host: Host, room: str) -> None:
    """Nobody else hears anything of it, whatever they subscribe to."""
    with (
        enter(host, room, "one") as one,
        enter(host, room, "two") as two,
        enter(host, room, "three") as three,
        enter(host, f"{room}'", "one") as elsewhere,
        host.client("channel=lobby&channel=room") as plain,
        host.stream("channel=lobby&channel=room") as stream,
    ):
        assert [one.hear()["peer_id"] for _ in range(2)] == ["two", "three"]
        assert two.hear()["peer_id"] == "three"
        plain.hear_type("user_joined")
        stream_id, one_id = one.connected["room"]["epoch"], one.connection_id
        for forbidden in ("$room:x", f"$room:{stream_id}", f"$room:{room}"):
            assert plain.ask("join_channel", channel=forbidden)["code"] == "invalid_channel"
            assert plain.ask("history", channel=forbidden)["code"] == "invalid_channel"
            assert plain.ask("presence", channel=forbidden)["code"] == "invalid_channel"
            plain.say({"type": "note", "channel": forbidden, "id": "p"})
            assert plain.hear()["code"] == "invalid_channel"
        # A channel, a recipient, or what else spreads a message, means nothing in a signal.
        spreading = {
            "channel": "lobby",
            "recipient_id": "x",
            "persistent": True,
            "event": "note",
            "echo": True,
            "meta": {"id": "forged", "sender": {"user_id": "root"}},
        }
        one.say(offer("two", **spreading))
        heard = two.hear()
        assert heard["meta"]["sender"] == {"connection_id": one_id, "user_id": None}
        assert heard["meta"]["id"] != "forged"
        host.post("/broadcast", {"data": "last"})
        for each in (one, two, three, elsewhere, plain, stream):
            assert _next_but_presence(each)["type"] == "broadcast"


def _next_but_presence(client: Client | Stream) -> dict[str, Any]:
    while (heard := client.hear())["type"] in ("user_joined", "user_left"):
        pass
    return heard


def test_several_rooms(host: Host, room: str) -> None:
    with enter(host, room, "one") as one, enter(host, room, "two") as two, enter(host, f"{room}'", "two") as other:
        assert one.hear()["peer_id"] == "two"
        assert one.ask("join_room", room_id=f"{room}'", peer_id="me")["ok"] is True
        assert other.hear()["peer_id"] == "me"
        one.say(offer("two"))
        assert one.hear()["code"] == "ambiguous_room"
        one.say(offer("two", room_id=f"{room}'"))
        assert other.hear()["peer_id"] == "me"
        one.say(offer("two", room_id=room))
        assert two.hear()["peer_id"] == "one"
        assert one.ask("leave_room", room_id=room)["ok"] is True
        assert two.hear()["reason"] == "left"
        one.say(candidate("two"))
        assert other.hear()["signal_type"] == "ice-candidate"


# Away and back


@pytest.mark.parametrize("ending", ["cut", "closed"])
def test_away_and_back(host: Host, room: str, ending: str) -> None:
    """What is said meanwhile arrives in order, once, before what is new; and nobody notices."""
    with enter(host, room, "bob") as bob:
        with enter(host, room, "ann", session="secret", instance="page") as ann:
            bob.say(offer("ann", number=0))
            first = ann.hear()
            assert first["number"] == 0
            token, position = first["meta"]["id"], first["meta"]["offset"]
            assert bob.hear()["peer_id"] == "ann"
            if ending == "cut":
                cut(ann)
        wait_until_away(host, room, "ann")
        for number in range(1, 30):
            bob.say(candidate("ann", number=number, id=str(number)))
            assert bob.hear()["ok"] is True
        with enter(host, room, "ann", session="secret", instance="page", last_event_id=token) as ann:
            assert ann.connected["recovered"] is True
            assert ann.connected["last_event_id"] == token
            assert ann.connected["room"]["recovered"] is True
            bob.say(candidate("ann", number=30))
            heard = [ann.hear() for _ in range(30)]
            assert [each["number"] for each in heard] == list(range(1, 31))
            assert [each["meta"]["offset"] for each in heard] == list(range(position + 1, position + 31))
            # The answer is to what was offered before: that it was away is nothing to anybody.
            ann.say(answer("bob"))
            assert bob.hear()["signal_type"] == "answer"


def test_away_and_back_by_commands(host: Host, room: str) -> None:
    with enter(host, room, "bob") as bob:
        with host.client("session=secret") as ann:
            joined = ann.ask("join_room", room_id=room, peer_id="ann", instance="page")["data"]
            bob.hear_type("peer_joined")
            since = {"epoch": joined["epoch"], "offset": joined["offset"]}
            bob.say(offer("ann", number=0))
            assert ann.hear()["number"] == 0
            since["offset"] += 1
            cut(ann)
        wait_until_away(host, room, "ann")
        for number in range(1, 6):
            bob.say(candidate("ann", number=number, id=str(number)))
            assert bob.hear()["ok"] is True
        with host.client("session=secret") as ann:
            answered = ann.ask("join_room", room_id=room, peer_id="ann", instance="page", since=since)["data"]
            assert (answered["recovered"], answered["replayed"]) == (True, 5)
            bob.say(candidate("ann", number=6))
            heard = [ann.hear() for _ in range(6)]
            assert [each["number"] for each in heard] == list(range(1, 7))
            assert [each["meta"]["offset"] for each in heard] == list(range(since["offset"] + 1, since["offset"] + 7))
            ann.say({"type": "webrtc_signal", **answer("bob")})
            assert bob.hear()["signal_type"] == "answer"


def test_back_without_a_position(host: Host, room: str) -> None:
    """The others are told that something may be lost, and an answer to what was offered before is too late."""
    with enter(host, room, "bob") as bob:
        with enter(host, room, "ann", session="secret", instance="page") as ann:
            bob.say(offer("ann"))
            ann.hear()
            assert bob.hear()["rejoined"] is False
        wait_until_away(host, room, "ann")
        with enter(host, room, "ann", session="secret", instance="page") as ann:
            assert "recovered" not in ann.connected["room"]
            heard = bob.hear()
            assert (heard["type"], heard["instance"], heard["rejoined"]) == ("peer_joined", "page", True)
            ann.say(answer("bob"))
            assert ann.hear()["code"] == "outdated_signal"
            ann.say(offer("bob"))
            assert bob.hear()["signal_type"] == "offer"


@pytest.mark.parametrize("token", ["other-3", "nonsense", "\x00"])
def test_back_with_a_position_that_is_worth_nothing(host: Host, room: str, token: str) -> None:
    with enter(host, room, "bob") as bob:
        with enter(host, room, "ann", session="secret", instance="page"):
            assert bob.hear()["rejoined"] is False
        wait_until_away(host, room, "ann")
        with enter(host, room, "ann", session="secret", instance="page", last_event_id=token) as ann:
            assert ann.connected["recovered"] is False
            assert ann.connected["room"]["recovered"] is False
            assert bob.hear()["rejoined"] is True
            assert others(ann) == [("bob", True)]


def test_back_before_the_cut_is_noticed(host: Host, room: str) -> None:
    """The server still holds the old connection: the new one takes its place, and hears all from then on."""
    with enter(host, room, "bob") as bob, enter(host, room, "ann", session="secret", instance="page") as old:
        bob.hear_type("peer_joined")
        token = old.connected["last_event_id"]
        bob.say(offer("ann", number=1))
        assert old.hear()["number"] == 1
        with enter(host, room, "ann", session="secret", instance="page", last_event_id=token) as ann:
            assert ann.connected["room"]["recovered"] is True
            assert ann.hear()["number"] == 1
            bob.say(candidate("ann", number=2))
            assert ann.hear()["number"] == 2
            assert old.hear()["reason"] == "taken_over"
            old.say(bye("bob"))
            assert old.hear()["code"] == "not_in_room"
            cut(old)
            host.wait_for(lambda: host.http.get("/stats").json()["total_connections"] == 2)
            ann.say(answer("bob"))
            assert bob.hear()["signal_type"] == "answer"
            bob.say(candidate("ann", number=3))
            assert ann.hear()["number"] == 3


def test_too_much_to_hold(host: Host, room: str) -> None:
    """Beyond 256 messages the oldest are lost, and everybody learns that something is."""
    with enter(host, room, "bob") as bob:
        with enter(host, room, "ann", session="secret", instance="page") as ann:
            bob.hear_type("peer_joined")
            token = ann.connected["last_event_id"]
        wait_until_away(host, room, "ann")
        for number in range(300):
            bob.say(candidate("ann", number=number, id=str(number)))
            assert bob.hear()["ok"] is True
        with enter(host, room, "ann", session="secret", instance="page", last_event_id=token) as ann:
            assert ann.connected["recovered"] is False
            assert [gap["reason"] for gap in ann.connected["gaps"]] == ["history_lost"]
            assert ann.connected["room"]["recovered"] is False
            assert bob.hear()["rejoined"] is True
            assert [ann.hear()["number"] for _ in range(256)] == list(range(44, 300))


def test_a_new_life_takes_the_place_of_the_old(host: Host, room: str) -> None:
    with enter(host, room, "bob") as bob:
        with enter(host, room, "ann", session="secret", instance="before"):
            assert bob.hear()["instance"] == "before"
        wait_until_away(host, room, "ann")
        bob.say(offer("ann", id="1"))
        assert bob.hear()["ok"] is True
        with enter(host, room, "ann", session="secret", instance="after") as ann:
            left, came = bob.hear(), bob.hear()
            assert (left["type"], left["instance"], left["reason"]) == ("peer_left", "before", "replaced")
            assert (came["type"], came["instance"], came["rejoined"]) == ("peer_joined", "after", False)
            # What was said to the one before is not for it.
            bob.say(candidate("ann", target_instance="before"))
            assert bob.hear()["code"] == "outdated_signal"
            ann.say(answer("bob"))
            assert ann.hear()["code"] == "outdated_signal"
            bob.say(offer("ann", target_instance="after"))
            assert ann.hear()["target_instance"] == "after"


@pytest.mark.parametrize("away", [True, False])
def test_nobody_else_may_be_somebody(host: Host, room: str, away: bool) -> None:
    """Whoever has neither its session nor its user hears nothing of it, nor does it hear of them."""
    with (
        enter(host, room, "bob") as bob,
        enter(host, room, "ann", session="secret", instance="page") as ann,
        enter(host, room, "7", user_id="7", session="other"),
    ):
        assert [bob.hear()["peer_id"] for _ in range(2)] == ["ann", "7"]
        assert ann.hear()["peer_id"] == "7"
        token = ann.connected["last_event_id"]
        if away:
            cut(ann)
            wait_until_away(host, room, "ann")
            bob.say(offer("ann", number=1, id="1"))
            assert bob.hear()["ok"] is True
        for query in (
            {},
            {"session": "guess"},
            {"session": "other", "user_id": "8"},
            {"session": "secret", "user_id": "8"},
            {"user_id": "ann"},
        ):
            for name in ("ann", "7") if query.get("session") == "other" else ("ann",):
                with enter(host, room, name, instance="page", last_event_id=token, **query) as eve:
                    assert "room" not in eve.connected
                    assert eve.hear()["code"] == "peer_id_taken"
                    answer = eve.ask("join_room", room_id=room, peer_id=name, instance="page")
                    assert (answer["type"], answer["code"]) == ("error", "peer_id_taken")
                    eve.say(bye("bob", peer_id=name, room_id=room))
                    assert eve.hear()["code"] == "not_in_room"
        # The user itself may, by another device.
        with enter(host, room, "7", user_id="7") as again:
            assert again.connected["room"]["peer_id"] == "7"
            assert [(each["type"], each["peer_id"]) for each in (bob.hear(), bob.hear())] == [
                ("peer_left", "7"),
                ("peer_joined", "7"),
            ]
        if away:
            with enter(host, room, "ann", session="secret", instance="page", last_event_id=token) as ann:
                heard = [ann.hear() for _ in range(4)]
                assert [each["type"] for each in heard if each.get("peer_id") != "7"] == ["webrtc_signal"]
        else:
            bob.say(offer("ann", number=1))
            assert ann.hear_type("webrtc_signal")["number"] == 1


@each_host
def test_whoever_does_not_come_back_has_left(kind: HostKind) -> None:
    with run_host(kind, Settings(webrtc=WebRtcSettings(peer_ttl=0.05))) as host, enter(host, "r", "bob") as bob:
        with enter(host, "r", "ann", instance="page") as ann:
            cut(ann)
        assert bob.hear()["type"] == "peer_joined"
        left = bob.hear()
        assert (left["type"], left["peer_id"], left["instance"], left["reason"]) == (
            "peer_left",
            "ann",
            "page",
            "timeout",
        )
        # Then the name is free.
        with enter(host, "r", "ann", instance="another") as ann:
            assert ann.connected["room"]["instance"] == "another"
            assert "recovered" not in ann.connected["room"]


@each_host
def test_a_room_is_full(kind: HostKind) -> None:
    webrtc = WebRtcSettings(max_participants_per_room=2, peer_ttl=60.0)
    with (
        run_host(kind, Settings(webrtc=webrtc)) as host,
        enter(host, "r", "one", session="1", instance="i") as one,
        enter(host, "r", "two") as two,
    ):
        with enter(host, "r", "three") as three:
            assert "room" not in three.connected
            refused = three.hear()
            assert (refused["type"], refused["code"]) == ("error", "room_full")
            assert three.ask("join_room", room_id="r")["code"] == "room_full"
        assert one.hear()["peer_id"] == "two"
        cut(one)
        wait_until_away(host, "r", "one")
        # Whoever is away keeps its place.
        with enter(host, "r", "three") as three:
            assert three.hear()["code"] == "room_full"
        with enter(host, "r", "one", session="1", instance="i") as again:
            assert two.hear()["rejoined"] is True
            goes_on(again, two)
