"""Commands: what each asks for, and which arguments are refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtcore.commands import MAX_HISTORY_LIMIT, Query, Renew, history_query, parse_command
from rtcore.errors import Refusal
from rtcore.filters import Filter
from rtcore.messages import Message
from rtcore.router import Refused, Request, Since, Subscribe, Unsubscribe

REQUEST = Request("c1", "7")
COMMANDS = (
    "ping, join_channel, leave_channel, history, presence, get_connection_stats, get_active_users, "
    "create_room, join_room, leave_room, get_rooms, begin_upload, cancel_upload, refresh_token"
)
OF_A_CHANNEL = ["join_channel", "leave_channel", "history", "presence"]

UNKNOWN = Refusal("unknown_command", f"'command' must be one of {COMMANDS}")
BAD_DATA = Refusal("invalid_data", "a command's 'data' must be an object")
NO_CHANNEL = Refusal("invalid_channel", "'channel' must be a string")
NO_NAME = Refusal("invalid_channel", "a channel's name is 1 to 255 printable characters")
OWN_CHANNEL = Refusal("invalid_channel", "names that begin with '$' are the server's own: choose another")
BAD_SINCE = Refusal("invalid_since", "'since' must be an object with 'epoch', a string, and 'offset', a whole number")
BAD_LIMIT = Refusal("invalid_limit", "'limit' must be a whole number from 1 to 1000")


def asked(name: object, data: object = None) -> object:
    return parse_command({"type": "command", "command": name, "data": data, "id": "7"}, REQUEST)


@pytest.mark.parametrize("name", ["ping", "get_connection_stats", "get_active_users", "get_rooms"])
def test_questions_that_need_no_channel(name: str) -> None:
    assert parse_command({"type": "command", "command": name}, REQUEST) == Query(name, {}, REQUEST)
    assert asked(name, None) == Query(name, {}, REQUEST)
    assert asked(name, {"x": 1}) == Query(name, {"x": 1}, REQUEST)


def test_commands_about_a_channel() -> None:
    data = {"channel": "chat", "more": 1}
    assert asked("join_channel", data) == Subscribe("chat", REQUEST)
    assert asked("leave_channel", data) == Unsubscribe("chat", REQUEST)
    assert asked("presence", data) == Query("presence", {"channel": "chat"}, REQUEST)
    checked = {"channel": "chat", "limit": 100, "epoch": None, "after": None, "before": None}
    assert asked("history", data) == Query("history", checked, REQUEST)


@pytest.mark.parametrize("name", OF_A_CHANNEL)
@pytest.mark.parametrize(
    ("data", "refusal"),
    [
        *(({}, NO_CHANNEL), ({"channel": None}, NO_CHANNEL), ({"channel": 5}, NO_CHANNEL), (None, NO_CHANNEL)),
        *(({"channel": "$user:bob"}, OWN_CHANNEL), ({"channel": ""}, NO_NAME), ({"channel": "a\nb"}, NO_NAME)),
        *(("chat", BAD_DATA), (["chat"], BAD_DATA), (0, BAD_DATA), (False, BAD_DATA)),
    ],
)
def test_commands_about_no_proper_channel(name: str, data: object, refusal: Refusal) -> None:
    assert asked(name, data) == Refused(REQUEST, refusal)


@pytest.mark.parametrize("name", ["fly", "", None, 5, ["ping"], {}])
def test_commands_that_there_are_not(name: object) -> None:
    assert asked(name) == Refused(REQUEST, UNKNOWN)
    # Whatever else is wrong with it: the command is what its sender looks for first.
    assert asked(name, 5) == Refused(REQUEST, UNKNOWN)


def test_a_command_without_a_name() -> None:
    assert parse_command({"type": "command"}, REQUEST) == Refused(REQUEST, UNKNOWN)


# Joining


@pytest.mark.parametrize(
    ("since", "parsed"),
    [
        (None, None),
        ({"epoch": "e.1", "offset": 0}, Since("e.1", 0)),
        ({"epoch": "", "offset": 2**53}, Since("", 2**53)),
        ({"epoch": "e.1", "offset": 5, "persistent": None}, Since("e.1", 5)),
        ({"epoch": "e.1", "offset": 5, "persistent": 0}, Since("e.1", 5, 0)),
        ({"epoch": "e.1", "offset": 5, "persistent": 3, "more": 1}, Since("e.1", 5, 3)),
    ],
)
def test_joining_from_where_it_was_heard(since: object, parsed: Since | None) -> None:
    assert asked("join_channel", {"channel": "chat", "since": since}) == Subscribe("chat", REQUEST, parsed)
    assert asked("join_channel", {"channel": "chat", "presence_since": since}) == Subscribe(
        "chat", REQUEST, None, parsed
    )


@pytest.mark.parametrize(
    "since",
    [
        *({}, [], 5, "e.1", True, {"epoch": "e.1"}, {"offset": 5}, {"epoch": None, "offset": 5}),
        *({"epoch": 1, "offset": 5}, {"epoch": "e.1", "offset": -1}, {"epoch": "e.1", "offset": 2**53 + 1}),
        *({"epoch": "e.1", "offset": True}, {"epoch": "e.1", "offset": 1.5}, {"epoch": "e.1", "offset": "5"}),
        *({"epoch": "e.1", "offset": 5, "persistent": -1}, {"epoch": "e.1", "offset": 5, "persistent": "3"}),
        {"epoch": "e.1", "offset": 5, "persistent": False},
    ],
)
def test_joining_from_nowhere(since: object) -> None:
    assert asked("join_channel", {"channel": "chat", "since": since}) == Refused(REQUEST, BAD_SINCE)
    presence = Refusal("invalid_presence_since", BAD_SINCE.message.replace("since", "presence_since", 1))
    assert asked("join_channel", {"channel": "chat", "presence_since": since}) == Refused(REQUEST, presence)


def test_joining_with_filters() -> None:
    filters = {"types": ["text"], "binary_data": False}
    wanted = Filter(types=("text",), binary_data=False)
    assert asked("join_channel", {"channel": "chat", "filters": filters}) == Subscribe("chat", REQUEST, filter=wanted)
    assert asked("join_channel", {"channel": "chat", "filters": {}}) == Subscribe("chat", REQUEST)
    refused = asked("join_channel", {"channel": "chat", "filters": {"colour": "red"}})
    assert isinstance(refused, Refused)
    assert (refused.request, refused.refusal.code) == (REQUEST, "invalid_filters")


# The history


@pytest.mark.parametrize(
    "data",
    [
        *(
            {},
            {"limit": 1},
            {"limit": MAX_HISTORY_LIMIT},
            {"limit": None, "epoch": None, "after": None, "before": None},
        ),
        *({"epoch": "e.1", "after": 0}, {"before": 0}, {"before": 2**53}, {"after": 5, "before": None}),
    ],
)
def test_asking_for_history(data: Message) -> None:
    given = {name: value for name, value in data.items() if value is not None}
    checked = {"channel": "chat", "limit": 100, "epoch": None, "after": None, "before": None, **given}
    assert history_query({"channel": "chat", "more": 1, **data}) == checked
    assert asked("history", {"channel": "chat", **data}) == Query("history", checked, REQUEST)


@pytest.mark.parametrize(
    ("data", "refusal"),
    [
        *(({"limit": limit}, BAD_LIMIT) for limit in (0, -1, 1001, True, 1.5, "5", [])),
        *(({"epoch": epoch}, Refusal("invalid_epoch", "'epoch' must be a string")) for epoch in (1, False, [])),
        *(
            ({name: offset}, Refusal(f"invalid_{name}", f"'{name}' must be an offset: a whole number from 0 on"))
            for name in ("after", "before")
            for offset in (-1, True, 1.5, "5", 2**53 + 1)
        ),
        ({"after": 1, "before": 5}, Refusal("invalid_before", "give 'after' or 'before', not both")),
        ({"channel": "$broadcast"}, OWN_CHANNEL),
    ],
)
def test_asking_for_history_that_there_cannot_be(data: Message, refusal: Refusal) -> None:
    assert history_query({"channel": "chat", **data}) == refusal
    assert asked("history", {"channel": "chat", **data}) == Refused(REQUEST, refusal)


# Anything

NAMES = st.sampled_from(["channel", "since", "presence_since", "filters", "epoch", "offset", "limit", "after", "types"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.sampled_from(["chat", "e.1", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=8,
)


@given(st.sampled_from(COMMANDS.split(", ")), VALUES | st.dictionaries(NAMES, VALUES))
def test_any_arguments_are_taken_or_refused(name: str, data: object) -> None:
    effect = parse_command({"type": "command", "command": name, "data": data}, REQUEST)
    assert effect.request == REQUEST
    match effect:
        case Subscribe(channel=channel) | Unsubscribe(channel=channel):
            assert isinstance(data, dict)
            assert channel == data["channel"] == "chat" or channel in ("chat", "e.1")
        case Query(name=asked_for, data=checked):
            assert asked_for == name
            assert json.dumps(checked)
        case Refused(refusal=refusal):
            assert refusal.status == (401 if refusal.code == "invalid_token" else 422)


# Tokens


@pytest.mark.parametrize("token", ["x", "y" * 8192])
def test_a_token_to_go_on_with(token: str) -> None:
    renew = asked("refresh_token", {"token": token})
    assert renew == Renew(token, REQUEST)
    assert "token=" not in repr(renew)


@pytest.mark.parametrize("data", [None, {}, {"token": None}, {"token": 5}, {"token": ""}, {"token": "y" * 8193}])
def test_what_is_no_token(data: object) -> None:
    refusal = Refusal("invalid_token", "'token' must be 1 to 8192 characters", status=401)
    assert asked("refresh_token", data) == Refused(REQUEST, refusal)
