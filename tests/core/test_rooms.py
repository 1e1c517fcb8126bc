"""Rooms: who is in which, as whom and for how long, and what is said to whom about it."""

from __future__ import annotations

import pytest

from rtcore.errors import CommandError, Refusal
from rtcore.messages import Message
from rtcore.signaling import (
    CreateRoom,
    End,
    Entered,
    Room,
    SignalingConfig,
    Tell,
    WebRTCRoom,
)

from .room_talk import REQUEST, SINCE, A, B, Hotel, Z, came, couple, left, passed, taken_over

# Rooms


def test_a_room_begins() -> None:
    hotel = Hotel(SignalingConfig(max_participants=3))
    made = hotel.create()
    assert isinstance(made, Room)
    assert made.describe() == {"room_id": "re.1", "name": "re.1", "max_participants": 3, "participants": []}
    named = hotel.rooms.create(CreateRoom(REQUEST, "r", "Room", 2), now=100.0)
    assert isinstance(named, Room)
    assert named.describe() == {"room_id": "r", "name": "Room", "max_participants": 2, "participants": []}
    assert list(hotel.rooms) == [made, named]
    assert (len(hotel.rooms), hotel.rooms.get("r"), hotel.rooms.peer_count) == (2, named, 0)
    assert hotel.rooms.get("s") == Refusal("unknown_room", "there is no room 's'", status=404)


def test_rooms_that_cannot_begin() -> None:
    hotel = Hotel(SignalingConfig(max_rooms=1, max_participants=3))
    too_large = Refusal("invalid_max_participants", "a room has at most 3 participants")
    assert hotel.create("r", 4) == hotel.try_to_join("c1", most=4) == too_large
    assert (len(hotel.rooms), hotel.rooms.next_timeout()) == (0, None)
    hotel.create("r", 3)
    exists = "there is a room 'r' already: join it, or choose another id"
    assert hotel.create("r") == Refusal("room_exists", exists, status=409)
    full = Refusal("too_many_rooms", "the server has no room for more rooms: try again later", 503, retry_after=5)
    assert hotel.create("s") == hotel.try_to_join("c1", "s") == full
    assert hotel.rooms.peer_count == 0
    # Of a room that there is, only its own limit counts.
    assert isinstance(hotel.try_to_join("c1", most=4), Entered)


def test_an_empty_room_is_kept_for_a_while() -> None:
    hotel = Hotel(SignalingConfig(room_ttl=10.0))
    hotel.create("r")
    assert hotel.rooms.next_timeout() == 110.0
    hotel.join("c1")
    assert hotel.rooms.next_timeout() is None
    hotel.now = 120.0
    assert hotel.leave("c1") == [End("$room:se.1")]
    assert hotel.rooms.next_timeout() == 130.0
    assert hotel.wait_until(129.9) == []
    assert len(hotel.rooms) == 1
    assert hotel.wait_until(130.0) == []
    assert (len(hotel.rooms), hotel.rooms.next_timeout()) == (0, None)


def test_a_room_changes() -> None:
    hotel = couple()
    for name, most, known in ((None, 2, ("r", 2)), ("Room", None, ("Room", 2)), ("New", 4, ("New", 4))):
        message: Message = {"type": "room_updated", "room_id": "r", "name": known[0], "max_participants": known[1]}
        assert hotel.rooms.update("r", name=name, max_participants=most) == [
            Tell(stream, message) for stream in (A, B, Z)
        ]
    refusal = Refusal("invalid_max_participants", "a room has at most 8 participants")
    assert hotel.rooms.update("r", name="No", max_participants=9) == refusal
    room = hotel.rooms.get("r")
    assert isinstance(room, Room)
    assert (room.name, room.max_participants) == ("New", 4)
    unknown = Refusal("unknown_room", "there is no room 's'", status=404)
    assert hotel.rooms.update("s", name=None, max_participants=None) == unknown


def test_a_room_is_closed() -> None:
    hotel = couple()
    hotel.join("c1", "s", "a")
    hotel.lose("c2")
    closed: Message = {"type": "room_closed", "room_id": "r", "reason": "closed"}
    assert hotel.rooms.close("r") == [
        *(Tell(A, closed), End(A), Tell(B, closed), End(B), Tell(Z, closed), End(Z)),
    ]
    assert hotel.rooms.close("r") == Refusal("unknown_room", "there is no room 'r'", status=404)
    assert (len(hotel.rooms), hotel.rooms.peer_count, hotel.rooms.next_timeout()) == (1, 1, None)
    assert hotel.signal("c1", "bye", "b", room_id="r") == "not_in_room"
    assert hotel.leave("c1") == []
    hotel.create("s2")
    assert hotel.rooms.close("s2") == []
    assert hotel.rooms.next_timeout() is None


# Joining and leaving


def test_who_comes_knows_the_others_and_they_hear_of_it() -> None:
    hotel = couple()
    entered = hotel.join("c4", "r", "m", metadata={"x": 1}, user_id="moe")
    assert (entered.is_new, entered.effects) == (True, [])
    peer = entered.peer
    assert (peer.instance, peer.stream) == ("ie.5", "$room:se.4")
    assert hotel.rooms.announce(peer, rejoined=False) == [
        came(stream, "m", "ie.5", polite=polite, user_id="moe", metadata={"x": 1})
        for stream, polite in ((A, True), (B, True), (Z, False))
    ]

    def other(peer_id: str, instance: str, *, polite: bool, user_id: str | None = None) -> Message:
        told: Message = {"peer_id": peer_id, "user_id": user_id, "instance": instance, "metadata": {}}
        return {**told, "connected": True, "polite": polite}

    assert peer.room.described_to(peer) == {
        "room_id": "r",
        "name": "r",
        "max_participants": 8,
        "peer_id": "m",
        "instance": "ie.5",
        "participants": [
            other("a", "a1", polite=False, user_id="ann"),
            other("b", "b1", polite=False),
            other("z", "z1", polite=True),
        ],
    }


def test_without_a_name_one_is_called_like_the_connection() -> None:
    peer = Hotel().join("c1").peer
    assert (peer.peer_id, peer.connection_id) == ("c1", "c1")


def test_leaving() -> None:
    hotel = couple()
    assert hotel.leave("c2") == [End(B), left(A, "b", "b1", "left"), left(Z, "b", "b1", "left")]
    assert hotel.leave("c2") == hotel.leave("c9") == hotel.leave("c1", "s") == []
    assert (hotel.rooms.peer_count, hotel.signal("c2", "bye", "a")) == (2, "not_in_room")


def test_being_sent_away() -> None:
    hotel = couple()
    assert hotel.rooms.remove("r", "b", now=100.0) == [
        *(left(B, "b", "b1", "removed"), End(B), left(A, "b", "b1", "removed"), left(Z, "b", "b1", "removed")),
    ]
    nobody = Refusal("unknown_peer", "nobody else in this room is 'b'", status=404)
    assert hotel.rooms.remove("r", "b", now=100.0) == nobody
    assert hotel.rooms.remove("s", "b", now=100.0) == Refusal("unknown_room", "there is no room 's'", status=404)


def test_a_room_holds_only_so_many() -> None:
    hotel = Hotel()
    hotel.create("r", 2)
    hotel.join("c1", "r", "a", "a1", session="s")
    hotel.join("c2", "r", "b")
    full = Refusal("room_full", "this room has its 2 participants", status=409)
    assert hotel.try_to_join("c3") == full
    # Who was there has their place, also after being away, as somebody new, or by another name.
    hotel.lose("c1")
    assert hotel.try_to_join("c3") == full
    assert hotel.join("c4", "r", "a", "a1", session="s").effects == []
    assert len(hotel.join("c4", "r", "a", "a2", session="s").effects) == 3
    assert len(hotel.join("c4", "r", "c").effects) == 2
    # A lower limit sends nobody away.
    hotel.rooms.update("r", name=None, max_participants=1)
    assert hotel.join("c2", "r", "b").effects == []
    hotel.leave("c2")
    assert hotel.try_to_join("c3") == Refusal("room_full", "this room has its 1 participants", status=409)
    hotel.leave("c4")
    assert isinstance(hotel.try_to_join("c3"), Entered)


def test_a_connection_is_in_so_many_rooms() -> None:
    hotel = Hotel(SignalingConfig(max_rooms_per_connection=2))
    hotel.join("c1", "r")
    hotel.join("c1", "s")
    refusal = Refusal("too_many_rooms", "a connection may be in at most 2 rooms: leave one first", 429)
    assert hotel.try_to_join("c1", "t") == refusal
    assert len(hotel.rooms) == 2
    hotel.join("c1", "s")
    hotel.join("c2", "t")
    hotel.leave("c1", "r")
    hotel.join("c1", "t")


def test_what_a_peer_tells_about_itself_is_short() -> None:
    hotel = Hotel(SignalingConfig(max_metadata_size=11))
    assert isinstance(hotel.try_to_join("c1", metadata={"x": "é1"}), Entered)
    refusal = Refusal("invalid_metadata", "'metadata' has at most 11 bytes", 413)
    assert hotel.try_to_join("c2", "s", metadata={"x": "é12"}) == refusal
    assert hotel.try_to_join("c1", metadata={"x": "é12"}) == refusal
    assert (len(hotel.rooms), hotel.rooms.peer_count) == (1, 1)


# Coming again


@pytest.mark.parametrize(
    ("user_id", "session"), [(None, None), ("bob", None), (None, "secret"), ("bob", "secret"), ("ann", "other")]
)
def test_a_name_belongs_to_who_has_it(user_id: str | None, session: str | None) -> None:
    hotel = couple()
    taken = Refusal("peer_id_taken", "somebody else is 'a' in this room: choose another 'peer_id'", status=409)
    assert isinstance(hotel.try_to_join("c4", "r", "b", "b1", since=SINCE), Refusal)  # nobody is known by nothing
    for step in range(2):
        if user_id == "ann":
            assert isinstance(hotel.try_to_join("c4", peer_id="a", user_id=user_id, session=session), Entered)
        else:
            # Not even by its instance, and not while it is away either.
            for connection_id in ("c2", "c4"):
                assert (
                    hotel.try_to_join(connection_id, "r", "a", "a1", user_id=user_id, session=session, since=SINCE)
                    == taken
                )
        if not step:
            hotel.lose("c1")
    if user_id != "ann":
        assert hotel.wait_until(115.0)
        assert isinstance(hotel.try_to_join("c4", "r", "a", user_id=user_id, session=session), Entered)


def test_a_session_without_a_user_is_known_again() -> None:
    hotel = Hotel()
    hotel.join("c1", "r", "a", "a1", session="secret")
    again = hotel.join("c2", "r", "a", "a1", session="secret")
    assert (again.is_new, again.effects) == (False, taken_over("c1", A, "a", "a1"))
    for user_id, session in (("ann", "secret"), (None, "secre"), (None, None)):
        assert isinstance(hotel.try_to_join("c3", "r", "a", "a1", user_id=user_id, session=session), Refusal)


def test_the_same_instance_goes_on_from_another_connection() -> None:
    hotel = couple()
    hotel.lose("c1")
    assert hotel.rooms.next_timeout() == 115.0
    again = hotel.join("c4", "r", "a", "a1", user_id="ann", session="new")
    assert (again.peer.stream, again.is_new, again.has_changed, again.effects) == (A, False, False, [])
    assert (hotel.rooms.next_timeout(), again.peer.connection_id) == (None, "c4")
    # The connection that it had may still seem to be there.
    once_more = hotel.join("c5", "r", "a", "a1", user_id="ann", session="new")
    assert (once_more.peer, once_more.effects) == (again.peer, taken_over("c4", A, "a", "a1"))
    hotel.lose("c4")
    assert (hotel.rooms.next_timeout(), hotel.leave("c4"), hotel.signal("c4", "bye", "b")) == (None, [], "not_in_room")
    assert hotel.signal("c5", "bye", "b") == passed(B, "a", "a1", "bye", "b")
    # It is known by the secret of now.
    assert isinstance(hotel.try_to_join("c6", "r", "a", session="new"), Refusal)


def test_another_instance_takes_its_place() -> None:
    for away in (False, True):
        hotel = couple()
        if away:
            hotel.lose("c1")
        other = hotel.join("c4", "r", "a", "a2", user_id="ann", since=SINCE)
        assert (other.is_new, other.peer.stream, other.peer.instance) == (True, "$room:se.4", "a2")
        assert other.effects == [
            *(left(A, "a", "a1", "replaced"), End(A), left(B, "a", "a1", "replaced"), left(Z, "a", "a1", "replaced")),
        ]
        assert (hotel.rooms.next_timeout(), hotel.leave("c1"), hotel.rooms.peer_count) == (None, [], 3)
        hotel.lose("c1")
        assert other.peer.connection_id == "c4"


def test_without_an_instance_one_is_somebody_new_unless_known() -> None:
    hotel = couple()
    assert not hotel.join("c1", "r", "a", user_id="ann").is_new
    # Or unless it knows what it was told before, whether it has lost its connection or not.
    entered = hotel.join("c4", "r", "a", user_id="ann", resumes=True)
    assert (entered.is_new, entered.peer.instance, entered.effects) == (False, "a1", taken_over("c1", A, "a", "a1"))
    hotel.lose("c4")
    entered = hotel.join("c5", "r", "a", user_id="ann", resumes=True)
    assert (entered.is_new, entered.peer.instance, entered.effects) == (False, "a1", [])
    entered = hotel.join("c6", "r", "a", user_id="ann")
    assert (entered.is_new, entered.peer.instance) == (True, "ie.5")
    assert entered.effects[0] == left(A, "a", "a1", "replaced")
    # What it knows makes nobody of whom there is none, and no other instance the same.
    entered = hotel.join("c7", "r", "d", resumes=True)
    assert (entered.is_new, entered.peer.instance, entered.effects) == (True, "ie.7", [])
    entered = hotel.join("c8", "r", "a", "a2", user_id="ann", resumes=True)
    assert (entered.is_new, entered.effects[0]) == (True, left("$room:se.4", "a", "ie.5", "replaced"))


def test_a_connection_by_another_name_is_somebody_else() -> None:
    hotel = couple()
    entered = hotel.join("c2", "r", "c", "b1")
    assert (entered.is_new, entered.peer.stream) == (True, "$room:se.4")
    assert entered.effects == [End(B), left(A, "b", "b1", "left"), left(Z, "b", "b1", "left")]
    # And by the name of somebody whom it is allowed to replace, both go.
    hotel.join("c4", "r", "y", "y1", user_id="ann")
    entered = hotel.join("c4", "r", "a", "a2", user_id="ann")
    assert [effect for effect in entered.effects if isinstance(effect, End)] == [End("$room:se.5"), End(A)]
    assert hotel.rooms.peer_count == 3
    # Or goes on.
    hotel.join("c5", "r", "x", "x1", user_id="ann")
    entered = hotel.join("c5", "r", "a", "a2", user_id="ann")
    assert (entered.is_new, entered.effects[-2:]) == (False, taken_over("c4", "$room:se.6", "a", "a2"))
    assert hotel.rooms.peer_count == 3


def test_who_comes_again_may_have_changed() -> None:
    hotel = couple()
    assert not hotel.join("c1", "r", "a", "a1").has_changed
    for metadata, rollback in (({"x": 1}, True), ({}, False)):
        entered = hotel.join("c1", "r", "a", "a1", metadata=metadata, rollback=rollback)
        assert (entered.is_new, entered.has_changed) == (False, True)
        assert (entered.peer.metadata, entered.peer.rollback) == (metadata, rollback)
    assert entered.peer.user_id is None


def test_who_does_not_come_back_has_left() -> None:
    hotel = couple(peer_ttl=10.0, room_ttl=20.0)
    hotel.lose("c1")
    hotel.now = 105.0
    hotel.lose("c3")
    hotel.lose("c9")
    assert [peer.describe()["connected"] for room in hotel.rooms for peer in room.peers.values()] == [
        False,
        True,
        False,
    ]
    assert hotel.wait_until(109.9) == []
    assert hotel.wait_until(110.0) == [End(A), left(B, "a", "a1", "timeout"), left(Z, "a", "a1", "timeout")]
    hotel.lose("c2")
    # Those that are late are told of each other in order.
    assert hotel.wait_until(130.0) == [End(Z), left(B, "z", "z1", "timeout"), End(B)]
    assert (len(hotel.rooms), hotel.rooms.next_timeout()) == (1, 150.0)
    hotel.wait_until(150.0)
    assert (len(hotel.rooms), hotel.rooms.next_timeout()) == (0, None)


def test_who_comes_again_in_the_last_moment_is_there() -> None:
    hotel = couple()
    hotel.lose("c1")
    hotel.now = 120.0  # nobody has looked at the clock
    assert not hotel.join("c4", "r", "a", "a1", user_id="ann").is_new
    assert hotel.wait_until(130.0) == []


# As clients read it


def test_reading_a_room() -> None:
    room = Hotel().join("c1", "r", "a").peer.room
    told = WebRTCRoom.from_message(room.describe())
    assert told == WebRTCRoom("r", "r", 8, (room.peers["a"].describe(),))
    del (bare := room.describe())["participants"]
    assert WebRTCRoom.from_message(bare) == WebRTCRoom("r", "r", 8)
    for broken in ({}, {**bare, "name": 5}, {**bare, "participants": [5]}, {**bare, "max_participants": "8"}):
        with pytest.raises(CommandError, match="this is no room") as caught:
            WebRTCRoom.from_message(broken)
        assert caught.value.code == "invalid_room"
