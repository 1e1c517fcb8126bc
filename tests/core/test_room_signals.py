"""Signals in rooms: which are passed on and to whom, and which come too late."""

from __future__ import annotations

import pytest

from rtcore.errors import LocalProtocolError, Refusal
from rtcore.messages import Message
from rtcore.signaling import (
    Peer,
    Room,
    Tell,
    is_polite,
)

from .room_talk import SDP, A, B, Hotel, Z, came, couple, passed

# Who is polite


def test_of_two_peers_one_is_polite() -> None:
    room = Room("r", "r", 8)
    ids = ["A", "a", "é", "\U0001f600", "\uffee"]
    peers = [
        Peer(room, peer_id, "i", None, None, {}, rollback, "s", "c")
        for peer_id in sorted(ids)
        for rollback in (True, False)
    ]
    for at, peer in enumerate(peers):
        for later in peers[at + 1 :]:
            if peer.peer_id == later.peer_id:
                continue
            assert is_polite(peer, later) is not is_polite(later, peer)
            if peer.rollback == later.rollback:
                assert is_polite(peer, later)  # by code points, not as JavaScript compares
            else:
                assert is_polite(peer, later) is peer.rollback


# Signals


def test_signals_are_passed_on() -> None:
    hotel = couple()
    candidate = {"candidate": "x", "more": 1}
    assert hotel.signal("c1", "offer", "b", negotiation="n1", more=[1]) == passed(
        B, "a", "a1", "offer", "b", negotiation="n1", more=[1]
    )
    assert hotel.signal("c2", "answer", "a", negotiation="n1", room_id="r", peer_id="b") == passed(
        A, "b", "b1", "answer", "a", negotiation="n1"
    )
    assert hotel.signal("c2", "ice-candidate", "a", ice_candidate=candidate, target_instance="a1") == passed(
        A, "b", "b1", "ice-candidate", "a", ice_candidate=candidate, target_instance="a1"
    )
    assert hotel.signal("c3", "bye", "a", instance="z1") == passed(A, "z", "z1", "bye", "a")
    assert (hotel.rooms.signals, hotel.rooms.refused) == (4, 0)
    # Who is away is told all the same.
    hotel.lose("c1")
    assert isinstance(hotel.signal("c2", "offer", "a"), Tell)


def test_signals_that_nobody_gets() -> None:
    hotel = couple()
    hotel.join("c4", "s", "x")
    hotel.join("c4", "t", "x")
    hotel.lose("c2")
    refused = [
        *(("c1", "b", {"sdp": 5}, "invalid_signal"), ("c1", "b", {"sdp": SDP + "x" * 65536}, "signal_too_large")),
        *(("c9", "b", {}, "not_in_room"), ("c2", "a", {}, "not_in_room"), ("c1", "x", {"room_id": "s"}, "not_in_room")),
        *(("c4", "b", {}, "ambiguous_room"), ("c4", "x", {"room_id": "s"}, "unknown_peer")),
        *(
            ("c1", "a", {}, "unknown_peer"),
            ("c1", "x", {}, "unknown_peer"),
            ("c9", "b", {"room_id": "r"}, "not_in_room"),
        ),
        *(("c1", "b", {"peer_id": "z"}, "forged_peer"), ("c1", "b", {"target_instance": "b0"}, "outdated_signal")),
        # It has waited until another life of the application came.
        ("c1", "b", {"instance": "a0"}, "outdated_signal"),
    ]
    for connection_id, target, fields, code in refused:
        assert hotel.signal(connection_id, "offer", target, **fields) == code
    assert (hotel.rooms.signals, hotel.rooms.refused) == (0, len(refused))
    # None of them has become an offer.
    answer: Message = {"signal_type": "answer", "sdp": SDP, "room_id": "r", "peer_id": "b", "target_peer_id": "a"}
    refusal = hotel.rooms.signal_as(answer)
    assert isinstance(refusal, Refusal)
    assert refusal.code == "outdated_signal"


def test_an_answer_is_to_an_offer() -> None:
    hotel = couple()
    assert hotel.signal("c2", "answer", "a") == "outdated_signal"
    hotel.signal("c1", "offer", "b", negotiation="n1")
    assert hotel.signal("c3", "answer", "a", negotiation="n1") == "outdated_signal"
    assert hotel.signal("c1", "answer", "b", negotiation="n1") == "outdated_signal"
    hotel.signal("c1", "offer", "b", negotiation="n2")
    assert hotel.signal("c2", "answer", "a", negotiation="n1") == "outdated_signal"
    assert isinstance(hotel.signal("c2", "answer", "a", negotiation="n2"), Tell)
    assert hotel.signal("c2", "answer", "a", negotiation="n2") == "outdated_signal"
    # Who does not name them takes them as they come.
    for offered, answered in ((None, "n1"), ("n1", None), (None, None)):
        hotel.signal("c1", "offer", "b", negotiation=offered)
        assert isinstance(hotel.signal("c2", "answer", "a", negotiation=answered), Tell)
    # Where offers cross, either may be the one that counts.
    hotel.signal("c1", "offer", "b", negotiation="n3")
    hotel.signal("c2", "offer", "a", negotiation="n4")
    assert isinstance(hotel.signal("c1", "answer", "b", negotiation="n4"), Tell)


def test_offers_end_with_the_connection_that_they_are_for() -> None:
    def offered() -> Hotel:
        hotel = couple()
        hotel.signal("c1", "offer", "b", negotiation="n1")
        hotel.signal("c2", "offer", "a", negotiation="n2")
        hotel.signal("c1", "offer", "z", negotiation="n3")
        return hotel

    def answers(hotel: Hotel) -> list[bool]:
        """Return whether b, a and z may answer a, b and a."""
        said = [("c2", "a", "n1"), ("c1", "b", "n2"), ("c3", "a", "n3")]
        return [isinstance(hotel.signal(who, "answer", to, negotiation=which), Tell) for who, to, which in said]

    assert answers(offered()) == [True, True, True]
    # What the other has offered may be for the connection that comes next.
    for connection_id, target, left in (("c1", "b", [False, True, True]), ("c2", "a", [True, False, True])):
        hotel = offered()
        hotel.signal(connection_id, "bye", target)
        assert answers(hotel) == left
    # Both offer anew after something was lost, and after nothing was, none has to.
    for rejoined in (True, False):
        hotel = offered()
        hotel.lose("c1")
        peer = hotel.join("c1", "r", "a", "a1", user_id="ann")
        assert hotel.rooms.announce(peer.peer, rejoined=rejoined) == [
            came(B, "a", "a1", polite=False, rejoined=rejoined, user_id="ann"),
            came(Z, "a", "a1", polite=False, rejoined=rejoined, user_id="ann"),
        ]
        assert answers(hotel) == ([False, False, False] if rejoined else [True, True, True])
    for leaver in ("leave", "replace"):
        hotel = offered()
        if leaver == "leave":
            hotel.leave("c2")
        hotel.join("c2", "r", "b", "b2")
        assert answers(hotel) == [False, False, True]


def test_signals_of_programs() -> None:
    hotel = couple()
    bye: Message = {"signal_type": "bye", "room_id": "r", "peer_id": "b", "target_peer_id": "a"}
    assert hotel.rooms.signal_as(bye) == passed(A, "b", "b1", "bye", "a")
    # Who is away may be spoken for.
    hotel.lose("c2")
    assert hotel.rooms.signal_as({**bye, "type": "webrtc_signal"}) == passed(A, "b", "b1", "bye", "a")
    text = "name the room and the sender by 'room_id' and 'peer_id'"
    for name in ("room_id", "peer_id"):
        assert hotel.rooms.signal_as({**bye, name: None}) == Refusal("invalid_signal", text)
    for fields, code in (
        ({"room_id": "s"}, "unknown_room"),
        ({"peer_id": "x"}, "unknown_peer"),
        ({"target_peer_id": "b"}, "unknown_peer"),
        ({"signal_type": "hello"}, "invalid_signal"),
        ({"signal_type": "answer", "sdp": SDP}, "outdated_signal"),
        ({"event": "\n"}, "invalid_event"),
        ({"channel": "$user:ann"}, "invalid_channel"),
    ):
        refusal = hotel.rooms.signal_as({**bye, **fields})
        assert isinstance(refusal, Refusal)
        assert refusal.code == code
    assert (hotel.rooms.signals, hotel.rooms.refused) == (2, 9)
    with pytest.raises(LocalProtocolError, match="must be JSON"):
        hotel.rooms.signal_as({**bye, "signal_type": "offer", "sdp": SDP, "more": object()})
    assert hotel.signal("c1", "answer", "b") == "outdated_signal"
    assert (hotel.rooms.signals, hotel.rooms.refused) == (2, 10)
