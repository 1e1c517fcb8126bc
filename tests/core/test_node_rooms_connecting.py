"""The node's rooms: joining one by connecting, with and without what was heard before."""

from __future__ import annotations

import pytest

from rtcore.errors import LocalProtocolError
from rtcore.messages import Message
from rtcore.router import Deliver

from .node_room_talk import (
    Call,
    calling,
    came,
    enter,
    entered,
    left,
    peer,
    said,
    signal,
    signed,
    taken_over,
    with_room,
)
from .node_talk import connected, error, gap


@pytest.fixture
def call() -> Call:
    return calling()


# Connecting


def test_joining_by_connecting(call: Call) -> None:
    served = call.served
    others = [peer("a", "a1", "ann", polite=False), peer("b", "b1", polite=False)]
    told = entered("c3", "i", *others, offset=0, epoch="e.5")
    assert enter(served, "c3", None, "i", session=None) == [
        with_room(connected("c3", None, at="e-1"), told),
        Deliver(said(came("c3", "i", polite=True), 2, "e.3", 2), ("c1",)),
        Deliver(said(came("c3", "i", polite=True), 1, "e.4", 3), ("c2",)),
    ]
    # There a signal needs no type.
    bye = {"signal_type": "bye", "target_peer_id": "a"}
    told = signed({"type": "webrtc_signal", **bye}, "c3", "i")
    assert served.receive("c3", bye) == [Deliver(said(told, 3, "e.3", 4, "c3"), ("c1",))]
    with pytest.raises(LocalProtocolError, match="is attached already"):
        enter(served, "c3", "x", "i")
    assert served.node.stats()["webrtc_peers"] == 3


def test_joining_by_connecting_may_be_refused(call: Call) -> None:
    served = call.served
    text = "somebody else is 'a' in this room: choose another 'peer_id'"
    assert enter(served, "c3", "a", "a1") == [
        connected("c3", None, at="e-1", session_epoch="e.3"),
        error("c3", "peer_id_taken", text, None),
    ]
    assert (served.node.stats()["webrtc_peers"], served.node.stats()["refused_messages"]) == (2, 1)


def test_coming_back_by_connecting(call: Call) -> None:
    served = call.served
    served.receive("c1", signal("bye", "b"))
    served.disconnect("c2")
    served.receive("c1", signal("offer", "b"))
    there = peer("a", "a1", "ann", polite=False)
    told = entered("b", "b1", there, offset=2, epoch="e.4", recovered=True)
    said_first = said(signed(signal("bye", "b"), "a", "a1"), 1, "e.4", 2, "c1", "ann")
    said_then = said(signed(signal("offer", "b"), "a", "a1"), 2, "e.4", 3, "c1", "ann")
    back = {"recovered": True, "session_epoch": "e.3"}
    assert enter(served, "c3", "b", "b1", last_event_id="e-2") == [
        with_room(connected("c3", None, at="e-2", **back), told),  # type: ignore[arg-type]
        Deliver(said_then, ("c3",)),
    ]
    assert enter(served, "c4", "b", "b1", last_event_id="e-0")[1:] == [
        Deliver(said_first, ("c4",)),
        Deliver(said_then, ("c4",)),
        taken_over("c3", "e.5", 4),
    ]


def test_whoever_has_a_token_need_not_say_which_instance_it_is(call: Call) -> None:
    served = call.served
    there = peer("a", "a1", "ann", polite=False)
    served.disconnect("c2")
    bye = signal("bye", "b")
    served.receive("c1", bye)
    told = entered("b", "b1", there, offset=1, epoch="e.4", recovered=True)
    back = {"recovered": True, "session_epoch": "e.3"}
    assert enter(served, "c3", "b", None, last_event_id="e-1") == [
        with_room(connected("c3", None, at="e-1", **back), told),  # type: ignore[arg-type]
        Deliver(said(signed(bye, "a", "a1"), 1, "e.4", 2, "c1", "ann"), ("c3",)),
    ]
    # Also while its last connection seems to be there, which has heard that it no longer is that peer.
    assert enter(served, "c4", "b", None, last_event_id="e-2") == [
        with_room(connected("c4", None, at="e-2", **back), told),  # type: ignore[arg-type]
        taken_over("c3", "e.5", 3),
    ]
    # And with one that proves nothing: it has been there, and the others hear that something may be lost.
    gaps = [gap("$broadcast", "e.2", 0, "foreign_token"), gap("$room:se.2", "e.4", 1, "foreign_token")]
    lost: Message = {"recovered": False, "session_epoch": "e.3", "gaps": gaps}
    assert enter(served, "c5", "b", None, last_event_id="f-1") == [
        with_room(connected("c5", None, at="e-4", **lost), {**told, "recovered": False}),  # type: ignore[arg-type]
        taken_over("c4", "e.6", 4),
        Deliver(said(came("b", "b1", polite=True, rejoined=True), 2, "e.3", 5), ("c1",)),
    ]


@pytest.mark.parametrize("token", [None, "f-1", "?"])
def test_coming_back_by_connecting_without_what_was_missed(call: Call, token: str | None) -> None:
    served = call.served
    served.disconnect("c2")
    served.receive("c1", signal("offer", "b"))
    there = peer("a", "a1", "ann", polite=False)
    told = entered("b", "b1", there, offset=1, epoch="e.4")
    lost: Message = {}
    if token is not None:
        reason = "foreign_token" if token == "f-1" else "invalid_token"
        gaps = [gap("$broadcast", "e.2", 0, reason), gap("$room:se.2", "e.4", 1, reason)]
        lost = {"recovered": False, "gaps": gaps}
        told["recovered"] = False
    assert enter(served, "c3", "b", "b1", last_event_id=token) == [
        with_room(connected("c3", None, at="e-2", session_epoch="e.3", **lost), told),  # type: ignore[arg-type]
        Deliver(said(came("b", "b1", polite=True, rejoined=True), 2, "e.3", 3), ("c1",)),
    ]


def test_taking_a_place_by_connecting() -> None:
    there = peer("a", "a1", "ann", polite=False)
    replaced = left("b", "b1", "replaced")
    for instance in ("b2", None):
        call = calling()
        served = call.served
        name = "ie.4" if instance is None else instance
        told = entered("b", name, there, offset=0, epoch="e.5")
        assert enter(served, "c3", "b", instance) == [
            with_room(connected("c3", None, at="e-3", session_epoch="e.3"), told),
            Deliver(said(replaced, 1, "e.4", 2), ("c2",)),
            Deliver(said(replaced, 2, "e.3", 3), ("c1",)),
            Deliver(said(came("b", name, polite=True), 3, "e.3", 4), ("c1",)),
        ]


def test_a_newcomer_has_missed_nothing_of_a_stream_of_its_own(call: Call) -> None:
    served = call.served
    told = entered("c", "i", peer("a", "a1", "ann", polite=False), peer("b", "b1", polite=False))
    told = {**told, "offset": 0, "epoch": "e.5", "recovered": False}
    gaps = [gap("$broadcast", "e.2", 0, "foreign_token")]
    (first, *_) = enter(served, "c3", "c", "i", session=None, last_event_id="f-1")
    lost: Message = {"recovered": False, "gaps": gaps}
    assert first == with_room(connected("c3", None, at="e-1", **lost), told)  # type: ignore[arg-type]
