"""A session: each message of a client and the one thing that it asks for."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtcore.errors import Refusal
from rtcore.messages import RESERVED_EVENTS, RESERVED_TYPES, Message
from rtcore.router import Publish, Refused, Request, Subscribe, Unsubscribe
from rtcore.session import Handle, Query, Session, SessionEffect, Transport

NOW = 100.0
STAMP = 1_700_000_000_000
COMMANDS = "ping, join_channel, leave_channel, presence, get_connection_stats, get_active_users"

UNKNOWN_COMMAND = Refusal("unknown_command", f"'command' must be one of {COMMANDS}")
BAD_DATA = Refusal("invalid_data", "a command's 'data' must be an object")
NO_CHANNEL = Refusal("invalid_channel", "'channel' must be a string")
OWN_CHANNEL = Refusal("invalid_channel", "names that begin with '$' are the server's own: choose another")
BAD_ID = Refusal("invalid_id", "'id' must be a string of at most 255 characters")
TOO_LARGE = Refusal("message_too_large", "a message has at most 100 bytes", status=413)
HALF = Refusal("invalid_text", "a message must not hold half of a surrogate pair", status=400)


def new_session(
    *, heartbeat: float | None = 30.0, max_message_size: int = 2**20, handled: dict[str, None] | None = None
) -> Session:
    return Session(
        "c1",
        "ann",
        Transport.WEBSOCKET,
        heartbeat_interval=heartbeat,
        max_message_size=max_message_size,
        handled={} if handled is None else handled,
        now=NOW,
        timestamp=STAMP,
    )


def receive(message: object) -> SessionEffect:
    return new_session().receive_text(message if isinstance(message, str) else json.dumps(message))


def unhandled(kind: str) -> Refusal:
    return Refusal(
        "unhandled_type", f"nothing handles messages of type {kind} here: name a 'channel' or a 'recipient_id'"
    )


def test_a_session_knows_whose_it_is() -> None:
    session = new_session()
    assert (session.connection_id, session.user_id) == ("c1", "ann")
    assert (session.transport, session.connected_at) == (Transport.WEBSOCKET, STAMP)


# Commands


@pytest.mark.parametrize("identifier", [None, "7", 7, ""])
@pytest.mark.parametrize("name", ["ping", "get_connection_stats", "get_active_users"])
def test_questions_that_need_no_channel(name: str, identifier: str | int | None) -> None:
    command: Message = {"type": "command", "command": name, "id": identifier}
    assert receive(command) == Query(name, {}, Request("c1", identifier))
    assert receive({**command, "data": {"x": 1}}) == Query(name, {"x": 1}, Request("c1", identifier))


@pytest.mark.parametrize("identifier", [None, "7"])
def test_commands_about_a_channel(identifier: str | None) -> None:
    request = Request("c1", identifier)
    data = {"channel": "chat", "more": 1}
    for name, effect in [
        ("join_channel", Subscribe("chat", request)),
        ("leave_channel", Unsubscribe("chat", request)),
        ("presence", Query("presence", {"channel": "chat"}, request)),
    ]:
        assert receive({"type": "command", "command": name, "data": data, "id": identifier}) == effect


@pytest.mark.parametrize("name", ["join_channel", "leave_channel", "presence"])
@pytest.mark.parametrize(
    ("data", "refusal"),
    [
        ({}, NO_CHANNEL),
        ({"channel": None}, NO_CHANNEL),
        ({"channel": 5}, NO_CHANNEL),
        ({"channel": "$user:bob"}, OWN_CHANNEL),
        ({"channel": ""}, Refusal("invalid_channel", "a channel's name is 1 to 255 printable characters")),
        (None, NO_CHANNEL),
        ("chat", BAD_DATA),
        (["chat"], BAD_DATA),
    ],
)
def test_commands_about_no_proper_channel(name: str, data: object, refusal: Refusal) -> None:
    command = {"type": "command", "command": name, "data": data, "id": "7"}
    assert receive(command) == Refused(Request("c1", "7"), refusal)


@pytest.mark.parametrize("name", ["fly", "", None, 5, ["ping"], {}])
def test_commands_that_there_are_not(name: object) -> None:
    command: Message = {"type": "command", "command": name, "id": "7"}
    assert receive(command) == Refused(Request("c1", "7"), UNKNOWN_COMMAND)
    # Whatever else is wrong with it: the command is what its sender looks for first.
    assert receive({**command, "data": 5}) == Refused(Request("c1", "7"), UNKNOWN_COMMAND)


def test_a_command_without_a_name() -> None:
    assert receive({"type": "command"}) == Refused(Request("c1"), UNKNOWN_COMMAND)


# Publications


@pytest.mark.parametrize(
    ("fields", "channel", "skip"),
    [
        ({"channel": "chat"}, "chat", None),
        ({"channel": "chat", "echo": True}, "chat", None),
        ({"channel": "chat", "echo": False}, "chat", "c1"),
        ({"recipient_id": "bob"}, "$user:bob", None),
        ({"recipient_id": "ann", "echo": False}, "$user:ann", "c1"),
        ({"channel": "chat", "recipient_id": "bob"}, "chat", None),
        ({"channel": "chat", "event": "price", "meta": {"offset": 9}, "whatever": [1]}, "chat", None),
    ],
)
@pytest.mark.parametrize("kind", ["channel_message", "text", "an_invention", ""])
def test_publishing(kind: str, fields: Message, channel: str, skip: str | None) -> None:
    message: Message = {"type": kind, **fields}
    assert receive(message) == Publish(channel, message, Request("c1"), skip)
    message["id"] = "7"
    assert receive(message) == Publish(channel, message, Request("c1", "7"), skip)


def test_a_recipient_may_be_a_number() -> None:
    assert receive({"type": "text", "recipient_id": 42}) == Publish(
        "$user:42", {"type": "text", "recipient_id": "42"}, Request("c1")
    )


@pytest.mark.parametrize("text", ["hello", "{", "[]", "5", '{"data":1}', ""])
def test_plain_text_comes_back(text: str) -> None:
    assert receive(text) == Publish("$connection:c1", {"type": "text", "data": text}, Request("c1"))


def test_text_comes_back_even_to_those_who_want_no_echo() -> None:
    message: Message = {"type": "text", "data": 1, "echo": False, "id": "7"}
    assert receive(message) == Publish("$connection:c1", message, Request("c1", "7"))


def test_the_applications_handlers_come_before_the_default_one() -> None:
    handled: dict[str, None] = {}
    session = new_session(handled=handled)
    text = '{"type":"text","id":"7"}'
    assert isinstance(session.receive_text(text), Publish)
    handled["text"] = None  # at any time
    assert session.receive_text(text) == Handle("text", {"type": "text", "id": "7"}, Request("c1", "7"))
    assert session.receive_text("hello") == Handle("text", {"type": "text", "data": "hello"}, Request("c1"))
    assert isinstance(session.receive_text('{"type":"text","channel":"chat"}'), Publish)


def test_handlers_do_not_take_what_is_reserved() -> None:
    session = new_session(handled={"command": None, "system": None})
    assert isinstance(session.receive_text('{"type":"command","command":"ping"}'), Query)
    assert isinstance(session.receive_text('{"type":"system"}'), Refused)


@pytest.mark.parametrize(
    ("kind", "said"), [("an_invention", "'an_invention'"), ("", "''"), ("x" * 200, f"'{'x' * 80}'"), ("\n", "'\\n'")]
)
def test_what_nothing_handles(kind: str, said: str) -> None:
    assert receive({"type": kind, "id": "7"}) == Refused(Request("c1", "7"), unhandled(said))
    assert receive({"type": kind}) == Refused(Request("c1"), unhandled(said))


# Refusals


@pytest.mark.parametrize("kind", sorted(RESERVED_TYPES))
def test_types_of_the_server_are_refused(kind: str) -> None:
    refusal = Refusal(
        "reserved_type", f"messages of type '{kind}' come from the server only: choose another type", status=403
    )
    for fields in ({}, {"channel": "chat"}, {"recipient_id": "bob"}):
        assert receive({"type": kind, "id": "7", **fields}) == Refused(Request("c1", "7"), refusal)


@pytest.mark.parametrize("event", sorted(RESERVED_EVENTS))
def test_events_of_the_server_are_refused(event: str) -> None:
    refusal = Refusal(
        "reserved_event", f"events named '{event}' come from the server only: choose another name", status=403
    )
    message = {"type": "text", "channel": "chat", "event": event, "id": "7"}
    assert receive(message) == Refused(Request("c1", "7"), refusal)


@pytest.mark.parametrize(
    ("fields", "refusal"),
    [
        ({"type": 5}, Refusal("invalid_type", "'type' must be a string")),
        ({"channel": None}, NO_CHANNEL),
        ({"channel": "$broadcast"}, OWN_CHANNEL),
        (
            {"recipient_id": []},
            Refusal("invalid_user_id", "a user id is 1 to 255 printable characters, or a whole number"),
        ),
        ({"echo": 1}, Refusal("invalid_echo", "'echo' must be true or false")),
        ({"event": "a\nb"}, Refusal("invalid_event", "'event' must be at most 255 printable characters")),
    ],
)
@pytest.mark.parametrize("identifier", [None, "7", 7])
def test_bad_fields_are_answered_under_the_id(fields: Message, refusal: Refusal, identifier: str | int | None) -> None:
    message = {"type": "text", **fields, "id": identifier}
    assert receive(message) == Refused(Request("c1", identifier), refusal)


@pytest.mark.parametrize("identifier", [True, 1.5, [], {}, "i" * 256, 10**300])
def test_a_bad_id_is_no_id(identifier: object) -> None:
    message = {"type": "text", "channel": "chat", "id": identifier}
    assert receive(message) == Refused(Request("c1"), BAD_ID)


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        *(("x" * 100, True), ("x" * 101, False), ("ж" * 50, True), ("ж" * 51, False)),
        *(("😀" * 25, True), ("😀" * 26, False), ("x" * 10_000, False)),
    ],
    ids=lambda value: ascii(value)[:12],
)
def test_size_is_counted_in_bytes(text: str, fits: bool) -> None:
    effect = new_session(max_message_size=100).receive_text(text)
    if fits:
        assert effect == Publish("$connection:c1", {"type": "text", "data": text}, Request("c1"))
    else:
        assert effect == Refused(Request("c1"), TOO_LARGE)


@pytest.mark.parametrize("text", ["\ud800", '{"type":"text","id":"\udfff"}', "x" * 200 + "\ud800"])
def test_half_of_a_surrogate_pair_is_no_text(text: str) -> None:
    assert new_session(max_message_size=100).receive_text(text) == Refused(Request("c1"), HALF)


# Any text whatsoever: letters that make JSON likely, and JSON values with the fields that matter.
NAMES = st.sampled_from(["type", "channel", "recipient_id", "id", "echo", "event", "command", "data", "meta"])
WORDS = st.sampled_from(["command", "text", "system", "chat", "$user:ann", "ping", "join_channel", "presence", "7"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
MESSAGES = st.dictionaries(NAMES, VALUES, max_size=6) | VALUES


@given(st.text() | st.text('{}[]",:\\ud8019type') | MESSAGES.map(json.dumps))
def test_any_text_asks_for_one_thing(text: str) -> None:
    effect = receive(text)
    assert effect.request.connection_id == "c1"
    match effect:
        case Publish(channel=channel, message=message):
            assert message["type"] not in RESERVED_TYPES
            if "channel" in message:
                assert channel == message["channel"]
            elif "recipient_id" in message:
                assert channel == f"$user:{message['recipient_id']}"
            else:
                assert (channel, message["type"]) == ("$connection:c1", "text")
        case Subscribe(channel=channel) | Unsubscribe(channel=channel):
            assert not channel.startswith("$")
        case Query() | Refused():
            assert text not in ("", "hello")
        case _:
            pytest.fail(f"nothing is handled here: {effect}")


# Heartbeats


def test_heartbeats_are_planned_from_when_they_were_due_or_later() -> None:
    session = new_session(heartbeat=30.0)
    assert session.next_timeout() == 130.0
    assert not session.handle_timeout(now=129.9)
    assert session.next_timeout() == 130.0
    assert session.handle_timeout(now=130.0)
    assert session.next_timeout() == 160.0
    assert session.handle_timeout(now=1000.0)  # one, not one for each that was missed
    assert session.next_timeout() == 1030.0
    assert not session.handle_timeout(now=1000.0)


def test_messages_of_the_client_do_not_put_heartbeats_off() -> None:
    session = new_session(heartbeat=30.0)
    session.receive_text("hello")
    assert session.next_timeout() == 130.0


def test_there_may_be_no_heartbeats() -> None:
    session = new_session(heartbeat=None)
    assert session.next_timeout() is None
    assert not session.handle_timeout(now=1e9)


def test_an_object_nested_too_deep_is_refused() -> None:
    text = '{"type":"text","data":' + "[" * 200 + "]" * 200 + "}"
    refusal = Refusal("too_deep", "JSON may be nested 128 deep at most", status=400)
    assert receive(json.loads(text)) == Refused(Request("c1"), refusal)
