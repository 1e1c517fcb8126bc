"""The node's rooms: what a peer hears of its room, in which order, and what it has missed when it comes back."""

from __future__ import annotations

import pytest

from rtcore.errors import Refusal
from rtcore.messages import Message
from rtcore.node import NodeConfig
from rtcore.router import Deliver, Published, Request, RouterConfig
from rtcore.signaling import SignalingConfig

from .node_room_talk import (
    Call,
    calling,
    came,
    enter,
    entered,
    left,
    peer,
    refused,
    rejoined,
    room,
    said,
    signal,
    signed,
    taken_over,
)
from .node_talk import STAMP, Served, connected, error, ok


@pytest.fixture
def call() -> Call:
    return calling()


# Coming and going


def test_peers_come_and_go() -> None:
    served = Served()
    served.connect("c1", "ann")
    served.connect("c2", None)
    assert served.command("c1", "create_room", room_id="r") == [ok("c1", room())]
    assert served.command("c1", "join_room", room_id="r", instance="a1") == [
        ok("c1", entered("c1", "a1", offset=0, epoch="e.3", replayed=0))
    ]
    # The answer comes first, and then the others hear of it.
    assert served.command("c2", "join_room", room_id="r", instance="b1", metadata={}) == [
        ok("c2", entered("c2", "b1", peer("c1", "a1", "ann", polite=False), offset=0, epoch="e.4", replayed=0)),
        Deliver(said(came("c2", "b1", polite=True), 1, "e.3", 1), ("c1",)),
    ]
    listed = {"rooms": [room(peer("c1", "a1", "ann"), peer("c2", "b1"))]}
    assert served.command("c1", "get_rooms") == [ok("c1", listed)]
    counts = {"webrtc_rooms": 1, "webrtc_peers": 2, "webrtc_signals": 0, "webrtc_refused_signals": 0}
    assert counts.items() <= served.node.stats().items()
    assert served.command("c2", "leave_room", room_id="r") == [
        ok("c2", {"room_id": "r"}),
        Deliver(said(left("c2", "b1", "left"), 2, "e.3", 2), ("c1",)),
    ]
    assert served.command("c2", "leave_room", room_id="r") == [ok("c2", {"room_id": "r"})]
    # Rooms are no channels that anybody could join, and nobody counts what is said of them as published.
    assert served.node.channels() == []
    assert served.node.stats()["published_messages"] == 0
    for name in ("join_channel", "presence", "history", "leave_channel"):
        (answer,) = served.command("c2", name, channel="$room:se.1")
        assert answer == error(
            "c2", "invalid_channel", "names that begin with '$' are the server's own: choose another"
        )


def test_an_answer_that_was_not_asked_for_is_not_given() -> None:
    served = Served()
    served.connect("c1", None)
    for name in ("create_room", "join_room", "leave_room", "get_rooms"):
        assert served.receive("c1", {"type": "command", "command": name, "data": {"room_id": "r"}}) == []
    assert served.node.stats()["webrtc_rooms"] == 1
    assert served.receive("c1", signal("bye", "b")) == [
        error("c1", "not_in_room", "you are not in this room: join it first", None)
    ]


def test_what_cannot_be_is_refused() -> None:
    served = Served(NodeConfig(signaling=SignalingConfig(max_participants=1)))
    served.connect("c1", None)
    text = "a room has at most 1 participants"
    assert served.command("c1", "create_room", max_participants=2) == [refused("invalid_max_participants", text)]
    assert served.command("c1", "join_room", room_id="r", max_participants=2) == [
        refused("invalid_max_participants", text)
    ]
    assert served.command("c1", "join_room") == [refused("invalid_room_id", "'room_id' must name the room")]
    assert served.node.stats()["webrtc_rooms"] == 0


def test_rooms_are_beside_the_channels_that_one_may_join() -> None:
    served = Served(NodeConfig(router=RouterConfig(max_channels=1)))
    served.connect("c1", None, "chat")
    (answer,) = served.command("c1", "join_room", room_id="r", instance="a1")
    assert answer == ok("c1", entered("c1", "a1", offset=0, epoch="e.3", replayed=0))
    (full,) = served.command("c1", "join_channel", channel="news")
    assert full == refused("too_many_channels", "a connection may join at most 1 channels: leave one first")


# Signals


def test_a_signal_reaches_its_target_and_nobody_else(call: Call) -> None:
    served = call.served
    served.connect("c3", None)
    call.join("c3", "c", "i")
    served.command("c1", "join_room", room_id="other")
    offer = signal("offer", "b", id="o", room_id="r", more=[1])
    told = said(signed(offer, "a", "a1"), 2, "e.4", 4, "c1", "ann")
    assert served.receive("c1", offer) == [
        Deliver(told, ("c2",)),
        ok("c1", {"channel": "$room:se.2", "offset": 2, "epoch": "e.4"}, "o"),
    ]
    answer = signal("answer", "a", meta={"forged": True})
    told = said(signed(answer, "b", "b1"), 3, "e.3", 5, "c2")
    assert served.receive("c2", answer) == [Deliver(told, ("c1",))]
    assert served.receive("c2", {**answer, "id": 9}) == [
        error("c2", "outdated_signal", "this peer waits for no answer", 9)
    ]
    counts = {"webrtc_rooms": 2, "webrtc_peers": 4, "webrtc_signals": 2, "webrtc_refused_signals": 1}
    assert counts.items() <= served.node.stats().items()
    assert served.node.stats()["published_messages"] == 2


def test_a_signal_is_passed_on_once(call: Call) -> None:
    served = call.served
    served.receive("c1", signal("offer", "b", id="o"))
    answer = signal("answer", "a", id="x")
    receipt: Message = {"channel": "$room:se.1", "offset": 2, "epoch": "e.3"}
    assert served.receive("c2", answer)[1:] == [ok("c2", receipt, "x")]
    # Also where it would be outdated, and on the next connection of the same session, whose peer is not there yet.
    assert served.receive("c2", answer) == [ok("c2", receipt, "x")]
    served.disconnect("c2")
    served.connect("c3", None, session="bs")
    assert served.receive("c3", answer) == [ok("c3", receipt, "x")]
    # Whoever else uses that id means something else.
    assert served.receive("c1", {**answer, "target_peer_id": "b"}) == [
        error("c1", "outdated_signal", "this peer waits for no answer", "x")
    ]
    assert (served.node.stats()["webrtc_signals"], served.node.stats()["published_messages"]) == (2, 2)
    # What was refused was not passed on, so it may be sent again.
    served.command("c3", "join_room", room_id="r", peer_id="b", instance="b1")
    assert served.receive("c3", signal("bye", "x", id="y")) == [
        error("c3", "unknown_peer", "nobody else in this room is 'x'", "y")
    ]
    assert len(served.receive("c3", signal("bye", "a", id="y"))) == 2


# Being away


def test_what_was_missed_is_heard_when_one_is_back(call: Call) -> None:
    served = call.served
    assert served.disconnect("c2") == []
    listed = {"rooms": [room(peer("a", "a1", "ann"), peer("b", "b1", is_connected=False))]}
    assert served.command("c1", "get_rooms") == [ok("c1", listed)]
    offer, bye = signal("offer", "b"), signal("bye", "b")
    assert served.receive("c1", offer) == served.receive("c1", bye) == []
    # The answer, what was missed, and nothing to others: nothing has happened to them.
    there = peer("a", "a1", "ann", polite=False)
    stands: Message = {"offset": 2, "epoch": "e.4", "recovered": True}
    assert rejoined(served, "c3", 0) == [
        ok("c3", entered("b", "b1", there, **stands, replayed=2)),
        Deliver(said(signed(offer, "a", "a1"), 1, "e.4", 2, "c1", "ann"), ("c3",)),
        Deliver(said(signed(bye, "a", "a1"), 2, "e.4", 3, "c1", "ann"), ("c3",)),
    ]
    # The connection may still seem to be there.
    told = said(signed(bye, "a", "a1"), 3, "e.4", 4, "c1", "ann")
    assert served.receive("c1", bye) == [Deliver(told, ("c3",))]
    assert rejoined(served, "c4", 2) == [
        taken_over("c3", "e.5", 5),
        ok("c4", entered("b", "b1", there, **{**stands, "offset": 3}, replayed=1)),
        Deliver(told, ("c4",)),
    ]
    # It hears of the room no more.
    assert served.receive("c1", bye) == [Deliver(said(signed(bye, "a", "a1"), 4, "e.4", 6, "c1", "ann"), ("c4",))]
    assert served.disconnect("c3") == []
    assert served.disconnect("c4") == []


def test_what_cannot_be_told_again_is_said_to_be_lost() -> None:
    config = NodeConfig(signaling=SignalingConfig(max_held=1))
    there = peer("a", "a1", "ann", polite=False)
    for since, epoch in ((0, "e.4"), (3, "e.4"), (2, "e.9"), (None, None)):
        call = calling(config)
        served = call.served
        served.receive("c1", signal("offer", "b"))
        served.receive("c1", signal("bye", "b"))
        served.disconnect("c2")
        served.connect("c3", None, session="bs")
        fields = {} if since is None else {"since": {"epoch": epoch, "offset": since}}
        recovered: Message = {} if since is None else {"recovered": False}
        assert call.join("c3", "b", "b1", **fields) == [
            ok("c3", entered("b", "b1", there, offset=2, epoch="e.4", **recovered, replayed=0)),
            Deliver(said(came("b", "b1", polite=True, rejoined=True), 2, "e.3", 4), ("c1",)),
        ]


def test_what_has_been_said_is_kept_as_long_as_somebody_may_come_back() -> None:
    call = calling(NodeConfig(signaling=SignalingConfig(peer_ttl=10.0)))
    served = call.served
    served.disconnect("c2")
    served.now = 109.0
    assert served.receive("c1", signal("bye", "b")) == []
    served.wait_until(109.9)
    assert len(rejoined(served, "c3", 0)) == 2
    served.disconnect("c3")
    assert served.wait_until(119.9 - 0.1) == []
    assert served.wait_until(119.9) == [Deliver(said(left("b", "b1", "timeout"), 2, "e.3", 3), ("c1",))]
    assert served.receive("c1", {**signal("bye", "b"), "id": 1}) == [
        error("c1", "unknown_peer", "nobody else in this room is 'b'", 1)
    ]
    # Whoever comes after that is somebody new, whatever they have heard.
    stands: Message = {"offset": 0, "epoch": "e.5", "recovered": False, "replayed": 0}
    there = peer("a", "a1", "ann", polite=False)
    assert rejoined(served, "c4", 1) == [
        ok("c4", entered("b", "b1", there, **stands)),
        Deliver(said(came("b", "b1", polite=True), 3, "e.3", 4), ("c1",)),
    ]


def test_who_has_missed_nothing_but_has_changed_is_told_of(call: Call) -> None:
    served = call.served
    changed = {**came("b", "b1", polite=True, rejoined=True), "metadata": {"x": 1}}
    there = peer("a", "a1", "ann", polite=False)
    assert rejoined(served, "c3", 0, metadata={"x": 1}) == [
        taken_over("c2", "e.5", 2),
        ok("c3", entered("b", "b1", there, offset=0, epoch="e.4", recovered=True, replayed=0)),
        Deliver(said(changed, 2, "e.3", 3), ("c1",)),
    ]
    served.disconnect("c3")
    assert len(rejoined(served, "c4", 0, metadata={"x": 1})) == 1


def test_joining_twice_on_one_connection(call: Call) -> None:
    served = call.served
    served.receive("c1", signal("bye", "b"))
    there = peer("a", "a1", "ann", polite=False)
    since = {"epoch": "e.4", "offset": 0}
    assert call.join("c2", "b", "b1", since=since) == [
        ok("c2", entered("b", "b1", there, offset=1, epoch="e.4", recovered=True, replayed=1)),
        Deliver(said(signed(signal("bye", "b"), "a", "a1"), 1, "e.4", 2, "c1", "ann"), ("c2",)),
    ]
    # By another name it is somebody else, who hears nothing of what it was.
    there = peer("a", "a1", "ann", polite=False)
    assert call.join("c2", "c", "b1") == [
        Deliver(said(left("b", "b1", "left"), 2, "e.3", 3), ("c1",)),
        ok("c2", entered("c", "b1", there, offset=0, epoch="e.5", replayed=0)),
        Deliver(said(came("c", "b1", polite=True), 3, "e.3", 4), ("c1",)),
    ]
    assert served.receive("c1", signal("bye", "c")) == [
        Deliver(said(signed(signal("bye", "c"), "a", "a1"), 1, "e.5", 5, "c1", "ann"), ("c2",))
    ]


def test_another_instance_takes_the_place_of_one(call: Call) -> None:
    served = call.served
    served.connect("c3", None, session="bs")
    there = peer("a", "a1", "ann", polite=False)
    replaced = left("b", "b1", "replaced")
    assert call.join("c3", "b", "b2", since={"epoch": "e.4", "offset": 0}) == [
        Deliver(said(replaced, 1, "e.4", 2), ("c2",)),
        Deliver(said(replaced, 2, "e.3", 3), ("c1",)),
        ok("c3", entered("b", "b2", there, offset=0, epoch="e.5", recovered=False, replayed=0)),
        Deliver(said(came("b", "b2", polite=True), 3, "e.3", 4), ("c1",)),
    ]
    assert served.receive("c2", signal("bye", "a", id=1)) == [
        error("c2", "not_in_room", "you are not in this room: join it first", 1)
    ]


def test_what_is_said_is_kept_until_everybody_has_had_the_time_to_come_back() -> None:
    call = calling(NodeConfig(signaling=SignalingConfig(peer_ttl=40.0)))
    call.served.disconnect("c2")
    call.served.receive("c1", signal("bye", "b"))
    assert call.served.wait_until(139.9) != []  # a heartbeat
    heard = rejoined(call.served, "c3", 0)
    assert [each.connections for each in heard if isinstance(each, Deliver)] == [("c3",), ("c3",)]


def test_what_is_said_is_kept_though_it_goes_unnoticed_that_a_connection_is_lost() -> None:
    """For a minute, and then for as long as one may come back."""
    for at, replayed in ((109.9, 1), (170.0 - 0.1, 1), (170.0, 0)):
        served = calling(NodeConfig(websocket_heartbeat=None, signaling=SignalingConfig(peer_ttl=10.0))).served
        served.receive("c1", signal("bye", "b"))
        served.now = at - 9.9
        served.disconnect("c2")
        served.wait_until(at)
        answer, *rest = rejoined(served, "c3", 0)
        stands: Message = {"offset": 1, "epoch": "e.4", "recovered": bool(replayed), "replayed": replayed}
        assert answer == ok("c3", entered("b", "b1", peer("a", "a1", "ann", polite=False), **stands))
        assert [each.connections for each in rest if isinstance(each, Deliver)] == [("c3",) if replayed else ("c1",)]


def test_nothing_is_kept_for_who_has_left() -> None:
    call = calling(NodeConfig(signaling=SignalingConfig(room_ttl=1000.0)))
    served = call.served
    signaling = served.node.signaling
    assert signaling is not None
    served.receive("c1", signal("bye", "b"))
    served.command("c2", "leave_room", room_id="r")
    served.command("c1", "leave_room", room_id="r")
    assert served.node.stats()["history_bytes"] == 0
    for name in ("c1", "c2"):
        served.disconnect(name)
    while (at := served.node.next_timeout()) is not None and at < 1100.0:
        served.wait_until(at)
    # The room itself is something.
    assert [len(signaling.rooms), served.node.empty] == [1, False]
    served.wait_until(1100.0)
    assert [len(signaling.rooms), served.node.empty] == [0, True]


def test_nothing_is_left_when_all_have_gone(call: Call) -> None:
    served = call.served
    for _ in range(3):
        served.receive("c1", signal("offer", "b"))
    rejoined(served, "c3", 0)
    call.join("c3", "b", "b2")
    for name in ("c1", "c2", "c3"):
        served.disconnect(name)
    assert not served.node.empty
    waits = 0
    while (at := served.node.next_timeout()) is not None:
        assert at > served.now
        served.wait_until(at)
        waits += 1
    assert served.node.empty
    assert waits <= 10
    assert served.now <= 1000.0


# From outside, and at the end


def test_rooms_from_outside(call: Call) -> None:
    served = call.served
    signaling = served.node.signaling
    assert signaling is not None
    assert signaling.describe() == [room(peer("a", "a1", "ann"), peer("b", "b1"))]
    updated: Message = {"type": "room_updated", "room_id": "r", "name": "r", "max_participants": 3}
    assert signaling.update("r", name=None, max_participants=3, now=100.0, timestamp=STAMP) == [
        Deliver(said(updated, 2, "e.3", 2), ("c1",)),
        Deliver(said(updated, 1, "e.4", 3), ("c2",)),
    ]
    bye: Message = {
        "type": "webrtc_signal",
        "signal_type": "bye",
        "room_id": "r",
        "peer_id": "b",
        "target_peer_id": "a",
    }
    assert signaling.signal_as(bye, now=100.0, timestamp=STAMP) == [
        Deliver(said({**bye, "instance": "b1"}, 3, "e.3", 4), ("c1",)),
        Published(Request(None), "e-4", "$room:se.1", 3, "e.3"),
    ]
    refusal = signaling.signal_as({**bye, "peer_id": "x"}, now=100.0, timestamp=STAMP)
    assert refusal == Refusal("unknown_peer", "nobody else in this room is 'x'", 404)
    closed: Message = {"type": "room_closed", "room_id": "r", "reason": "closed"}
    assert signaling.close("r", now=100.0, timestamp=STAMP) == [
        Deliver(said(closed, 4, "e.3", 5), ("c1",)),
        Deliver(said(closed, 2, "e.4", 6), ("c2",)),
    ]
    unknown = Refusal("unknown_room", "there is no room 'r'", 404)
    assert signaling.close("r", now=100.0, timestamp=STAMP) == unknown
    assert signaling.update("r", name="x", max_participants=None, now=100.0, timestamp=STAMP) == unknown
    (answer,) = call.join("c1", "a", "a1", since={"epoch": "e.3", "offset": 4})
    assert answer == ok("c1", entered("a", "a1", offset=0, epoch="e.5", recovered=False, replayed=0))


def test_a_server_without_rooms() -> None:
    served = Served(NodeConfig(signaling=None))
    off = "this server has no rooms: WEBRTC_ENABLED is false"
    assert enter(served, "c1", "a", "a1", session=None) == [
        connected("c1", None),
        error("c1", "webrtc_disabled", off, None),
    ]
    for name in ("create_room", "join_room", "leave_room", "get_rooms"):
        assert served.command("c1", name, room_id="r") == [refused("webrtc_disabled", off)]
    assert served.receive("c1", signal("bye", "b", id="7")) == [refused("webrtc_disabled", off)]
    assert not [name for name in served.node.stats() if name.startswith("webrtc")]
    served.disconnect("c1")
    assert served.node.signaling is None
    while (at := served.node.next_timeout()) is not None:
        served.wait_until(at)
    assert served.node.empty


def test_peers_are_away_when_the_server_stops(call: Call) -> None:
    served = call.served
    effects = served.node.drain(now=100.0, timestamp=STAMP)
    assert [effect.connections for effect in effects if isinstance(effect, Deliver)] == [("c1", "c2")]
    assert len(effects) == 3
    assert served.node.signaling is not None
    listed = [room(peer("a", "a1", "ann", is_connected=False), peer("b", "b1", is_connected=False))]
    assert served.node.signaling.describe() == listed
    assert served.wait_until(115.0) == []
    assert served.node.signaling.describe() == [room()]


def test_a_connection_that_is_closed_is_away_only(call: Call) -> None:
    served = call.served
    effects = served.node.close("c2", 4410, "slow", now=100.0, timestamp=STAMP)
    assert len(effects) == 2
    assert len(rejoined(served, "c3", 0)) == 1


def test_a_stream_that_had_to_be_forgotten_is_lost() -> None:
    call = calling(NodeConfig(router=RouterConfig(max_idle=0)))
    served = call.served
    served.disconnect("c2")
    served.receive("c1", signal("bye", "b"))
    there = peer("a", "a1", "ann", polite=False)
    assert rejoined(served, "c3", 0)[0] == ok(
        "c3", entered("b", "b1", there, offset=0, epoch="e.6", recovered=False, replayed=0)
    )
    served.disconnect("c3")
    left_at_last = [Deliver(said(left("b", "b1", "timeout"), 3, "e.3", 4), ("c1",))]
    assert served.wait_until(115.0) == left_at_last
    served.disconnect("c1")
    served.wait_until(130.0)
    assert served.node.stats()["webrtc_peers"] == 0


def test_a_join_that_was_overtaken_takes_nothing_from_the_later_connection() -> None:
    served = Served()
    served.connect("c1", None, session="secret")
    served.connect("c2", None, session="secret")
    served.connect("c3", "ann", session="other")
    join = {"room_id": "r", "peer_id": "a", "instance": "a1"}
    assert len(served.command("c2", "join_room", **join)) == 1
    assert served.command("c1", "join_room", **join) == [
        error("c1", "peer_id_taken", "a later connection of the same client is 'a' in this room")
    ]
    # A later one still does, and so does an earlier one where there is no other any more.
    served.connect("c4", None, session="secret")
    served.command("c4", "join_room", **join)
    served.disconnect("c4")
    assert len(served.command("c1", "join_room", **join)) == 1
    assert served.node.signaling is not None
    [room] = served.node.signaling.rooms
    assert [each.connection_id for each in room.peers.values()] == ["c1"]
