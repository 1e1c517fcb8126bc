"""Commands about rooms: what each asks for, and which arguments are refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtcore.commands import parse_command
from rtcore.errors import Refusal
from rtcore.messages import Message
from rtcore.router import Refused, Request, Since
from rtcore.signaling import CreateRoom, JoinRoom, LeaveRoom

REQUEST = Request("c1", "7")
COMMANDS = ["create_room", "join_room", "leave_room"]
BAD_MOST = Refusal("invalid_max_participants", "'max_participants' must be a whole number from 1 on")
NO_ROOM = Refusal("invalid_room_id", "'room_id' must name the room")


def asked(name: str, /, **data: object) -> object:
    return parse_command({"type": "command", "command": name, "data": data, "id": "7"}, REQUEST)


def bad_name(field: str) -> Refused:
    return Refused(REQUEST, Refusal(f"invalid_{field}", f"'{field}' must be 1 to 255 printable characters"))


def test_creating() -> None:
    assert asked("create_room") == CreateRoom(REQUEST)
    assert asked("create_room", room_id=None, name=None, max_participants=None) == CreateRoom(REQUEST)
    assert asked("create_room", room_id="r", name="Room", max_participants=1, more=1) == CreateRoom(
        REQUEST, "r", "Room", 1
    )


def test_joining() -> None:
    assert asked("join_room", room_id="r") == JoinRoom(REQUEST, CreateRoom(REQUEST, "r"))
    nothing: Message = dict.fromkeys(("peer_id", "instance", "metadata", "since", "name", "max_participants"))
    assert asked("join_room", room_id="r", **nothing) == JoinRoom(REQUEST, CreateRoom(REQUEST, "r"))
    everything: Message = {
        "room_id": "r",
        "name": "Room",
        "max_participants": 3,
        "peer_id": "ann",
        "instance": "a1",
        "metadata": {"x": [1]},
        "rollback": False,
        "since": {"epoch": "e.1", "offset": 2},
    }
    room = CreateRoom(REQUEST, "r", "Room", 3)
    since = Since("e.1", 2)
    assert asked("join_room", **everything) == JoinRoom(REQUEST, room, "ann", "a1", {"x": [1]}, False, since)


def test_leaving() -> None:
    assert asked("leave_room", room_id="r", more=1) == LeaveRoom(REQUEST, "r")


@pytest.mark.parametrize("command", ["join_room", "leave_room"])
def test_a_room_has_to_be_named(command: str) -> None:
    assert asked(command) == asked(command, room_id=None) == Refused(REQUEST, NO_ROOM)


@pytest.mark.parametrize(
    ("command", "field"),
    [
        *((command, "room_id") for command in COMMANDS),
        *(("create_room", "name"), ("join_room", "name"), ("join_room", "peer_id"), ("join_room", "instance")),
    ],
)
def test_names_are_short_and_printable(command: str, field: str) -> None:
    for value in ("", 5, True, [], {}, "a\n", "\ud800", "é" * 256):
        assert asked(command, **{"room_id": "r", field: value}) == bad_name(field)
    assert not isinstance(asked(command, **{"room_id": "r", field: "é" * 255}), Refused)


@pytest.mark.parametrize("command", ["create_room", "join_room"])
@pytest.mark.parametrize("most", [0, -1, True, 1.0, "3", [], {}])
def test_a_room_is_for_somebody(command: str, most: object) -> None:
    assert asked(command, room_id="r", max_participants=most) == Refused(REQUEST, BAD_MOST)


def test_what_a_peer_may_say_of_itself() -> None:
    for metadata in ("", 0, False, [], "x"):
        refusal = Refusal("invalid_metadata", "'metadata' must be an object")
        assert asked("join_room", room_id="r", metadata=metadata) == Refused(REQUEST, refusal)
    for rollback in (None, 0, "no", {}):
        refusal = Refusal("invalid_rollback", "'rollback' must be true or false")
        assert asked("join_room", room_id="r", rollback=rollback) == Refused(REQUEST, refusal)
    for since in (5, {}, {"epoch": "e.1"}, {"epoch": "e.1", "offset": -1}, {"epoch": 1, "offset": 0}):
        effect = asked("join_room", room_id="r", since=since)
        assert isinstance(effect, Refused)
        assert effect.refusal.code == "invalid_since"


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("data", ["", 0, False, [], "r"])
def test_arguments_are_an_object(command: str, data: object) -> None:
    refusal = Refusal("invalid_data", "a command's 'data' must be an object")
    assert parse_command({"type": "command", "command": command, "data": data}, REQUEST) == Refused(REQUEST, refusal)


FIELDS = ["room_id", "name", "max_participants", "peer_id", "instance", "metadata", "rollback", "since"]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["epoch", "offset", "persistent", "x"]), inner, max_size=3)
    ),
    max_leaves=5,
)


@given(st.sampled_from(COMMANDS), st.dictionaries(st.sampled_from(FIELDS), VALUES) | VALUES)
def test_whatever_is_asked_for_is_checked(command: str, data: object) -> None:
    effect = parse_command({"type": "command", "command": command, "data": data}, REQUEST)
    if isinstance(effect, Refused):
        return
    assert isinstance(effect, CreateRoom | JoinRoom | LeaveRoom)
    room = effect.room if isinstance(effect, JoinRoom) else effect
    assert room.room_id is None or 1 <= len(room.room_id) <= 255
    assert isinstance(effect, CreateRoom) or room.room_id is not None
