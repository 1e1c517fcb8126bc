"""The node: what each is told and may do by what it is allowed, connections and whoever asks over HTTP."""

from __future__ import annotations

import json

import pytest

from rtcore.errors import Refusal
from rtcore.messages import Message
from rtcore.namespaces import Access, Namespace, Namespaces
from rtcore.node import NodeConfig, NodeEffect, Signaling
from rtcore.permissions import EVERYTHING, OPEN, Action, Grant, Identity, Scope
from rtcore.router import Deliver, Published, Refused, Request, RouterConfig
from rtcore.signaling import CreateRoom, Room, SignalingConfig

from .node_room_talk import Call, calling, left, peer, refused, room, said, signal
from .node_talk import STAMP, Served, connected, denial, denied, error, ok

NOTHING = Scope(exclusive=True)
POWERLESS = Grant(subscribe=NOTHING, publish=NOTHING, history=NOTHING, presence=NOTHING, signal=NOTHING)
ANN, NOBODY = Identity("ann", POWERLESS), Identity(None, POWERLESS)
ADMIN = Identity(None, Grant(admin=True))
OF_R = Grant(signal=Scope(("r", "re.*"), exclusive=True))


def is_done(effects: list[NodeEffect]) -> bool:
    return any(isinstance(each, Deliver) and b'"ok":true' in each.message.json for each in effects)


# Questions of connections


def test_questions_that_only_some_may_ask() -> None:
    served = Served()
    served.connect("c1", "ann", grant=Grant())
    for name in ("get_connection_stats", "get_active_users"):
        assert served.command("c1", name) == [denied("c1", Action.ADMINISTER)]
    assert served.regrant("c1", Grant(admin=True)) == []
    assert served.command("c1", "get_active_users") == [ok("c1", {"users": ["ann"], "count": 1})]
    assert served.command("c1", "get_connection_stats") == [ok("c1", served.node.stats() | {"refused_messages": 2})]


@pytest.mark.parametrize("exists", [True, False])
def test_what_a_connection_may_not_know_is_refused_whether_there_is_something_or_not(exists: bool) -> None:
    served = Served()
    served.connect("c1", "ann", grant=POWERLESS)
    if exists:
        served.connect("c2", None, "chat")
        served.command("c2", "join_room", room_id="r")
    for name, action in [
        ("history", Action.HISTORY),
        ("presence", Action.PRESENCE),
        ("join_channel", Action.SUBSCRIBE),
    ]:
        assert served.command("c1", name, channel="chat") == [denied("c1", action, "chat")]
    said_there: Message = {"type": "text", "channel": "chat", "id": "7"}
    assert served.receive("c1", said_there) == [denied("c1", Action.PUBLISH, "chat")]
    assert served.command("c1", "join_room", room_id="r") == [denied("c1", Action.SIGNAL, "r")]
    assert served.command("c1", "create_room", room_id="r") == [denied("c1", Action.SIGNAL, "r")]
    assert served.command("c1", "create_room") == [denied("c1", Action.SIGNAL, "re.1")]
    assert served.command("c1", "get_rooms") == [ok("c1", {"rooms": []})]
    assert served.command("c1", "leave_room", room_id="r") == [ok("c1", {"room_id": "r"})]
    assert len(served.node.signaling.rooms) == exists  # type: ignore[union-attr]


def test_coming_with_channels_and_a_room_that_are_not_allowed() -> None:
    served = Served()
    grant = Grant(subscribe=Scope(("news",), exclusive=True), presence=NOTHING)
    assert served.connect("c1", "ann", "chat", "news", grant=grant) == [
        connected("c1", "ann", "news", at="e-1"),
        denied("c1", Action.SUBSCRIBE, "chat", None),
    ]


# Whoever asks without a connection


def test_what_is_told_to_whom_over_http() -> None:
    served = Served()
    served.connect("c1", "ann", "chat", "news")
    served.publish("chat", {"type": "text"})
    node = served.node
    of_chat = Identity(None, Grant(subscribe=Scope(("chat",), exclusive=True)))
    assert [[each["channel"] for each in node.channels(asker=who)] for who in (None, ADMIN, of_chat, NOBODY)] == [
        ["chat", "news"],
        ["chat", "news"],
        ["chat"],
        [],
    ]
    for who in (None, Identity(None, Grant())):
        told = node.presence("chat", asker=who)
        assert not isinstance(told, Refusal)
        assert told["count"] == 1
        page = node.history({"channel": "chat"}, asker=who, now=100.0)
        assert not isinstance(page, Refusal)
        assert page["offset"] == 1
    for name in ("chat", "nowhere"):
        assert node.presence(name, asker=ANN) == denial(Action.PRESENCE, name)
        assert node.history({"channel": name}, asker=ANN, now=100.0) == denial(Action.HISTORY, name)
    invalid = Refusal("invalid_channel", "'channel' must be a string")
    assert node.history({}, asker=ANN, now=100.0) == invalid


def test_how_many_are_in_a_channel_is_for_those_who_may_know_who_is_there() -> None:
    served = Served()
    served.connect("c1", "ann", "chat")
    unaware = Grant(presence=NOTHING)
    counts = [
        [(each["subscribers"], each["members"]) for each in served.node.channels(asker=asker)]
        for asker in (None, Identity("bob", Grant()), Identity("bob", unaware), ADMIN)
    ]
    assert counts == [[(1, 1)], [(1, 1)], [(None, None)], [(1, 1)]]


def test_what_the_application_may_decide_for_itself() -> None:
    served = Served()
    served.connect("c1", "ann", "chat")
    assert served.node.decide(Action.SUBSCRIBE, "chat", asker=ANN) == denial(Action.SUBSCRIBE, "chat")
    assert served.node.decide(Action.SUBSCRIBE, "chat", asker=Identity("ann", OPEN)) is None
    assert served.node.decide(Action.SUBSCRIBE, "chat", asker=None) is None


def test_publishing_for_somebody() -> None:
    members = Namespace(pattern="club", publish=Access.MEMBERS)
    served = Served(NodeConfig(router=RouterConfig(namespaces=Namespaces((members,)))))
    served.connect("c1", "ann", "club")

    def publish(channel: str, user_id: str | None, grant: Grant | None) -> object:
        *_, outcome = served.node.publish(
            channel, {"type": "text"}, user_id=user_id, grant=grant, now=100.0, timestamp=STAMP
        )
        return outcome.refusal.code if isinstance(outcome, Refused) else type(outcome)

    assert publish("chat", "ann", POWERLESS) == "publish_denied"
    assert publish("chat", "ann", Grant()) is Published
    assert publish("club", "ann", Grant()) is Published
    assert publish("club", "bob", Grant()) == "publish_denied"
    assert publish("club", "bob", None) is Published
    # Of that user, as others are told, with what is told about it.
    info: Message = {"name": "Ann"}
    [told, _] = served.node.publish(
        "club", {"type": "text"}, user_id="ann", grant=Grant(info=info), now=100.0, timestamp=STAMP
    )
    assert isinstance(told, Deliver)
    assert json.loads(told.message.json)["meta"]["sender"] == {"connection_id": None, "user_id": "ann", "info": info}


@pytest.mark.parametrize("who", [{"user_id": "ann", "grant": OPEN}, {"publisher": "ci", "grant": EVERYTHING}])
def test_what_is_published_over_http_with_an_id_is_published_once(who: dict[str, object]) -> None:
    served = Served()
    served.connect("c1", None, "chat")

    def publish(identifier: str | None) -> object:
        return served.node.publish(
            "chat",
            {"type": "text"},
            id=identifier,
            now=100.0,
            timestamp=STAMP,
            **who,  # type: ignore[arg-type]
        )

    first, again, other = publish("7"), publish("7"), publish("8")
    assert [len(each) for each in (first, again, other)] == [2, 1, 2]  # type: ignore[arg-type]
    assert served.node.stats()["published_messages"] == 2
    assert len(publish(None)) == len(publish(None)) == 2  # type: ignore[arg-type]


# Rooms


def rooms_of(call: Call) -> Signaling:
    signaling = call.served.node.signaling
    assert signaling is not None
    return signaling


def test_rooms_that_one_may_use() -> None:
    served = Served()
    served.connect("c1", "ann", grant=OF_R)
    served.connect("c2", None)
    served.command("c2", "create_room", room_id="s")
    assert served.command("c1", "create_room", room_id="s") == [denied("c1", Action.SIGNAL, "s")]
    assert served.command("c1", "create_room") == [ok("c1", room(room_id="re.1"))]
    assert served.command("c1", "create_room", room_id="r") == [ok("c1", room())]
    assert served.command("c1", "get_rooms") == [ok("c1", {"rooms": [room(room_id="re.1"), room()]})]
    signaling = served.node.signaling
    assert signaling is not None
    who = Identity("ann", OF_R)
    assert [len(signaling.describe(asker=each)) for each in (None, who, NOBODY, ADMIN)] == [3, 2, 0, 3]
    assert signaling.get("s", asker=who) == denial(Action.SIGNAL, "s")
    assert signaling.get("nowhere", asker=who) == denial(Action.SIGNAL, "nowhere")
    unknown = Refusal("unknown_room", "there is no room 're.9'", status=404)
    assert signaling.get("re.9", asker=who) == unknown
    found = signaling.get("s")
    assert isinstance(found, Room)
    assert found.room_id == "s"
    request = Request(None)
    assert signaling.create(CreateRoom(request, "s2"), asker=who, now=100.0) == denial(Action.SIGNAL, "s2")
    made = signaling.create(CreateRoom(request, "re.7"), asker=who, now=100.0)
    assert isinstance(made, Room)
    assert made.maker == ("user", "ann")


def test_sending_a_peer_away() -> None:
    call = calling()
    gone = left("b", "b1", "removed")
    signaling = rooms_of(call)
    assert signaling.remove("r", "b", now=100.0, timestamp=STAMP) == [
        Deliver(said(gone, 1, "e.4", 2), ("c2",)),
        Deliver(said(gone, 2, "e.3", 3), ("c1",)),
    ]
    nobody = Refusal("unknown_peer", "nobody else in this room is 'b'", status=404)
    assert signaling.remove("r", "b", now=100.0, timestamp=STAMP) == nobody
    unknown = Refusal("unknown_room", "there is no room 's'", status=404)
    assert signaling.remove("s", "b", now=100.0, timestamp=STAMP) == unknown
    # It may come again, unless it is allowed no longer.
    assert len(call.join("c2", "b", "b1")) == 2


def test_who_may_speak_as_a_peer() -> None:
    call = calling()
    signaling = rooms_of(call)
    bye: Message = {**signal("bye", "b"), "room_id": "r", "peer_id": "a"}
    not_yours = Refusal("signal_denied", "you may send signals only as peers of your own user", status=403)

    def speak(asker: Identity | None, message: Message = bye) -> object:
        return signaling.signal_as(message, asker=asker, now=100.0, timestamp=STAMP)

    for who in (None, ADMIN, Identity(None, Grant(server=True)), Identity("ann", Grant()), Identity("ann", OF_R)):
        told = speak(who)
        assert isinstance(told, list)
        assert [type(each) for each in told] == [Deliver, Published]
    of_others = Identity(None, Grant(server=True, signal=Scope(("s",), exclusive=True)))
    for who in (ANN, NOBODY, Identity("bob", Grant()), Identity(None, Grant()), of_others):
        assert speak(who) == not_yours
    own = Identity("ann", Grant())
    for fields in ({"peer_id": "b"}, {"peer_id": "x"}, {"room_id": "s"}, {"room_id": None}, {"peer_id": 5}):
        assert speak(own, {**bye, **fields}) == not_yours
    # A peer of nobody's is nobody's, whoever else has no user.
    assert speak(Identity(None, Grant()), {**bye, "peer_id": "b", "target_peer_id": "a"}) == not_yours
    counted = signaling.rooms.refused
    refusal = speak(ADMIN, {**bye, "peer_id": "x"})
    assert isinstance(refusal, Refusal)
    assert (refusal.code, signaling.rooms.refused) == ("unknown_peer", counted + 1)


def test_a_name_that_is_the_id_of_a_connection_is_nobody_elses() -> None:
    served = Served()
    served.connect("c1", "eve", session="es")
    served.connect("c2", "ann")
    taken = error("c1", "peer_id_taken", "'c2' is the id of somebody else's connection: choose another 'peer_id'")
    for room_id in ("r", "s"):
        assert served.command("c1", "join_room", room_id=room_id, peer_id="c2") == [taken]
    assert served.node.stats()["webrtc_rooms"] == 0
    # Its own is, and that of the same user, or the same client, who come back as what they were called.
    for connection_id, user_id, session, names in [
        ("c3", "ann", None, ["c2", "c3"]),
        ("c4", "eve", "es", ["c1"]),
        ("c5", None, "bs", ["c5"]),
        ("c6", None, "bs", ["c5"]),
        ("c7", None, None, ["c7"]),
    ]:
        served.connect(connection_id, user_id, session=session)
        for name in names:
            assert is_done(served.command(connection_id, "join_room", room_id="r", peer_id=name))
    served.disconnect("c2")
    assert is_done(served.command("c1", "join_room", room_id="s", peer_id="c2"))


@pytest.mark.parametrize(("session", "user_id"), [("bs", "bob"), ("es", None), (None, None)])
def test_nor_is_it_of_another_who_knows_half_of_it(session: str | None, user_id: str | None) -> None:
    served = Served()
    served.connect("c2", None, session="bs")
    served.connect("c1", user_id, session=session)
    taken = refused("peer_id_taken", "'c2' is the id of somebody else's connection: choose another 'peer_id'")
    assert served.command("c1", "join_room", room_id="r", peer_id="c2") == [taken]


def test_a_user_makes_so_many_rooms() -> None:
    served = Served(NodeConfig(signaling=SignalingConfig(max_rooms_per_user=2, room_ttl=50.0)))
    for name, user_id in [("c1", "ann"), ("c2", "ann"), ("c3", None), ("c4", None)]:
        served.connect(name, user_id)
    text = "you have made 2 rooms that there still are, which is the most: close one first"

    def make(connection_id: str, room_id: str, command: str = "create_room") -> None:
        assert is_done(served.command(connection_id, command, room_id=room_id))

    make("c1", "a1")
    make("c2", "a2", "join_room")
    for command in ("create_room", "join_room"):
        assert served.command("c1", command, room_id="a3") == [error("c1", "too_many_rooms", text)]
    make("c1", "a2", "join_room")  # which there is
    for name in ("c3", "c4"):
        make(name, f"{name}1")
        make(name, f"{name}2")
        assert served.command(name, "create_room", room_id=f"{name}3") == [error(name, "too_many_rooms", text)]
    signaling = served.node.signaling
    assert signaling is not None
    # A program that is no user makes as many as it likes.
    for number in range(3):
        assert isinstance(signaling.create(CreateRoom(Request(None), f"p{number}"), now=100.0), Room)
    assert signaling.close("a1", now=100.0, timestamp=STAMP) == []
    make("c2", "a4")
    served.wait_until(150.0)
    # Those in which somebody is have not ended; the one that Ann made is hers still.
    assert [each["room_id"] for each in signaling.describe()] == ["a2"]
    make("c1", "a5")
    assert served.command("c1", "create_room", room_id="a6") == [error("c1", "too_many_rooms", text)]
    make("c3", "c31")
    signaling.close("a2", now=150.0, timestamp=STAMP)
    served.wait_until(200.0)
    assert (len(signaling.rooms), signaling.rooms._made) == (0, {})


def test_peers_of_a_room_that_one_may_use_no_longer_hear_of_it() -> None:
    call = calling()
    served = call.served
    assert served.regrant("c1", Grant(signal=NOTHING)) == [
        Deliver(said(left("a", "a1", "removed"), 2, "e.3", 2), ("c1",)),
        Deliver(said(left("a", "a1", "removed"), 1, "e.4", 3), ("c2",)),
    ]
    assert rooms_of(call).describe() == [room(peer("b", "b1"))]
    assert served.receive("c1", signal("bye", "b", id="7")) == [
        error("c1", "not_in_room", "you are not in this room: join it first")
    ]
    assert served.disconnect("c1") == []
