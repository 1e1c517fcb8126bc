"""A session: each message of a client and the one thing that it asks for."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtcore.commands import Query
from rtcore.errors import Refusal
from rtcore.messages import RESERVED_EVENTS, RESERVED_TYPES, Message
from rtcore.permissions import OPEN, Grant, Identity
from rtcore.rate_limit import RateLimit, RateLimiter
from rtcore.router import Publish, Refused, Request, Subscribe, Unsubscribe
from rtcore.session import Expel, Handle, Session, SessionEffect, Transport
from rtcore.signaling import CreateRoom, JoinRoom, LeaveRoom, SendSignal

NOW = 100.0
STAMP = 1_700_000_000_000

NO_CHANNEL = Refusal("invalid_channel", "'channel' must be a string")
OWN_CHANNEL = Refusal("invalid_channel", "names that begin with '$' are the server's own: choose another")
BAD_ID = Refusal("invalid_id", "'id' must be a string of at most 255 characters")
TOO_LARGE = Refusal("message_too_large", "a message has at most 100 bytes", status=413)
HALF = Refusal("invalid_text", "a message must not hold half of a surrogate pair", status=400)


def new_session(
    *limits: RateLimit,
    heartbeat: float | None = 30.0,
    max_message_size: int = 2**20,
    handled: dict[str, None] | None = None,
    max_warnings: int = 2,
    signals: bool = False,
    grant: Grant = OPEN,
) -> Session:
    return Session(
        "c1",
        "ann",
        Transport.WEBSOCKET,
        grant=grant,
        heartbeat_interval=heartbeat,
        max_message_size=max_message_size,
        handled={} if handled is None else handled,
        limiters=[RateLimiter(limit, now=NOW) for limit in limits],
        max_warnings=max_warnings,
        signals=signals,
        now=NOW,
        timestamp=STAMP,
    )


def receive(message: object) -> SessionEffect:
    return new_session().receive_text(message if isinstance(message, str) else json.dumps(message), now=NOW)


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
def test_commands_are_read_by_their_own_rules(identifier: str | int | None) -> None:
    request = Request("c1", identifier)
    data: Message = {"channel": "chat"}
    for name, effect in [
        ("ping", Query("ping", data, request)),
        ("join_channel", Subscribe("chat", request)),
        ("leave_channel", Unsubscribe("chat", request)),
        ("presence", Query("presence", data, request)),
    ]:
        assert receive({"type": "command", "command": name, "data": data, "id": identifier}) == effect
    refused = receive({"type": "command", "command": "leave_channel", "id": identifier})
    assert refused == Refused(request, NO_CHANNEL)


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
    assert isinstance(session.receive_text(text, now=NOW), Publish)
    handled["text"] = None  # at any time
    assert session.receive_text(text, now=NOW) == Handle("text", {"type": "text", "id": "7"}, Request("c1", "7"))
    assert session.receive_text("hello", now=NOW) == Handle("text", {"type": "text", "data": "hello"}, Request("c1"))
    assert isinstance(session.receive_text('{"type":"text","channel":"chat"}', now=NOW), Publish)


def test_handlers_do_not_take_what_is_reserved() -> None:
    session = new_session(handled={"command": None, "system": None})
    assert isinstance(session.receive_text('{"type":"command","command":"ping"}', now=NOW), Query)
    assert isinstance(session.receive_text('{"type":"system"}', now=NOW), Refused)


@pytest.mark.parametrize(
    ("kind", "said"), [("an_invention", "'an_invention'"), ("", "''"), ("x" * 200, f"'{'x' * 80}'"), ("\n", "'\\n'")]
)
def test_what_nothing_handles(kind: str, said: str) -> None:
    assert receive({"type": kind, "id": "7"}) == Refused(Request("c1", "7"), unhandled(said))
    assert receive({"type": kind}) == Refused(Request("c1"), unhandled(said))


# Signals


def test_signals_are_passed_on_to_be_checked() -> None:
    signal: Message = {"type": "webrtc_signal", "signal_type": "bye", "id": 7, "channel": "chat", "recipient_id": 5}
    effect = receive(signal)
    assert effect == SendSignal(Request("c1", 7), {**signal, "recipient_id": "5"})
    assert receive({"type": "webrtc_signal", "channel": "$room:1"}) == Refused(Request("c1"), OWN_CHANNEL)


@pytest.mark.parametrize("signals", [False, True])
def test_signals_need_no_type_where_nothing_else_is_said(signals: bool) -> None:
    session = new_session(signals=signals)
    signal = {"signal_type": "bye"}
    text = json.dumps(signal)
    assert session.receive_text(text, now=NOW) == (
        SendSignal(Request("c1"), {"type": "webrtc_signal", **signal})
        if signals
        else Publish("$connection:c1", {"type": "text", "data": text}, Request("c1"))
    )
    for other in ('{"data":1}', "[]", "signal_type"):
        assert session.receive_text(other, now=NOW) == Publish(
            "$connection:c1", {"type": "text", "data": other}, Request("c1")
        )
    typed = {"type": "text", "signal_type": "bye"}
    assert session.receive_text(json.dumps(typed), now=NOW) == Publish("$connection:c1", typed, Request("c1"))


# Refusals


@pytest.mark.parametrize("kind", sorted(RESERVED_TYPES - {"webrtc_signal"}))
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
    effect = new_session(max_message_size=100).receive_text(text, now=NOW)
    if fits:
        assert effect == Publish("$connection:c1", {"type": "text", "data": text}, Request("c1"))
    else:
        assert effect == Refused(Request("c1"), TOO_LARGE)


@pytest.mark.parametrize("text", ["\ud800", '{"type":"text","id":"\udfff"}', "x" * 200 + "\ud800"])
def test_half_of_a_surrogate_pair_is_no_text(text: str) -> None:
    assert new_session(max_message_size=100).receive_text(text, now=NOW) == Refused(Request("c1"), HALF)


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
    assert not isinstance(effect, Expel)
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
        case Query() | Refused() | CreateRoom() | JoinRoom() | LeaveRoom() | SendSignal():
            assert text not in ("", "hello")
        case _:
            pytest.fail(f"nothing is handled here: {effect}")


# Rates


def too_fast(retry_after: int) -> Refusal:
    message = f"too many messages: this one was not carried out, send it again in {retry_after} s"
    return Refusal("rate_limited", message, status=429, retry_after=retry_after)


TWO_AT_ONCE = RateLimit(messages=0.25, message_burst=2)  # then one in four seconds


def test_who_talks_too_fast_is_warned_and_then_ended() -> None:
    session = new_session(TWO_AT_ONCE, max_warnings=2)
    talk = '{"type":"text","id":"7"}'
    assert [type(session.receive_text(talk, now=NOW)) for _ in range(2)] == [Publish, Publish]
    # Many at once are one warning, since they were sent before it was read.
    for _ in range(9):
        assert session.receive_text(talk, now=NOW) == Refused(Request("c1", "7"), too_fast(4))
    assert session.receive_text("hello", now=NOW + 0.9) == Refused(Request("c1"), too_fast(4))
    assert session.receive_text("hello", now=NOW + 1.0) == Refused(Request("c1"), too_fast(3))
    assert session.receive_text("hello", now=NOW + 1.9) == Refused(Request("c1"), too_fast(3))
    assert session.receive_text(talk, now=NOW + 2.0) == Expel("too many messages, after several warnings", 2)


def test_what_is_admitted_meanwhile_is_no_excuse() -> None:
    session = new_session(RateLimit(messages=2.0, message_burst=1), max_warnings=3)
    kinds = [type(session.receive_text("hello", now=NOW + eighth / 8)) for eighth in range(26)]
    assert kinds.index(Expel) == 25
    assert kinds.count(Publish) == 7


def test_who_waits_as_told_is_warned_anew() -> None:
    session = new_session(TWO_AT_ONCE, max_warnings=1)
    now = NOW
    for _ in range(2):
        session.receive_text("hello", now=now)
    for _ in range(5):
        assert session.receive_text("hello", now=now) == Refused(Request("c1"), too_fast(4))
        now += 4.0
        assert isinstance(session.receive_text("hello", now=now), Publish)
    for at in (0.0, 1.0):
        session.receive_text("hello", now=now + at)
    assert isinstance(session.receive_text("hello", now=now + 1.0), Expel)


def test_there_may_be_no_warning() -> None:
    session = new_session(TWO_AT_ONCE, max_warnings=0)
    effects = [session.receive_text("hello", now=NOW) for _ in range(3)]
    assert effects[2] == Expel("too many messages, after several warnings", 4)


@pytest.mark.parametrize(
    "text",
    [
        "hello",
        "x" * 101,
        "\ud800",
        '{"type":5}',
        '{"type":"command","command":"fly"}',
        "[" * 90 + "]" * 9,
        '{"type":"system"}',
    ],
    ids=lambda text: ascii(text)[:12],
)
def test_whatever_is_said_counts(text: str) -> None:
    session = new_session(TWO_AT_ONCE, max_message_size=100)
    for _ in range(2):
        assert session.receive_text(text, now=NOW) != Refused(Request("c1"), too_fast(4))
    assert session.receive_text(text, now=NOW) == Refused(Request("c1"), too_fast(4))


def test_bytes_count_as_they_are_on_the_wire() -> None:
    session = new_session(RateLimit(bytes=10.0, byte_burst=20))
    assert isinstance(session.receive_text("жжжжж", now=NOW), Publish)
    assert isinstance(session.receive_text("жжжжж", now=NOW), Publish)
    assert session.receive_text("ж" * 10, now=NOW) == Refused(Request("c1"), too_fast(2))


def test_what_one_limit_refuses_takes_nothing_from_those_after_it() -> None:
    own = RateLimit(messages=1.0, message_burst=1)
    shared = RateLimiter(RateLimit(messages=0.001, message_burst=3), now=NOW)
    session = new_session(own)
    session._limiters = [*session._limiters, shared]
    assert isinstance(session.receive_text("hello", now=NOW), Publish)
    assert session.receive_text("hello", now=NOW) == Refused(Request("c1"), too_fast(1))
    assert [shared.admit(1, now=NOW) for _ in range(2)] == [0.0, 0.0]
    assert session.receive_text("hello", now=NOW + 2.0) == Refused(Request("c1"), too_fast(998))


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
    session.receive_text("hello", now=NOW)
    assert session.next_timeout() == 130.0


def test_there_may_be_no_heartbeats() -> None:
    session = new_session(heartbeat=None)
    assert session.next_timeout() is None
    assert not session.handle_timeout(now=1e9)


def test_an_object_nested_too_deep_is_refused() -> None:
    text = '{"type":"text","data":' + "[" * 200 + "]" * 200 + "}"
    refusal = Refusal("too_deep", "JSON may be nested 128 deep at most", status=400)
    assert receive(json.loads(text)) == Refused(Request("c1"), refusal)


# What it is allowed, and for how long


def ends(seconds: float) -> Grant:
    """Return what is allowed for so many seconds after `STAMP`."""
    return Grant(expires_at=STAMP / 1000 + seconds)


def test_what_ends_never() -> None:
    session = new_session(heartbeat=None)
    assert session.identity == Identity("ann", OPEN)
    assert (session.expires_in(now=NOW), session.next_timeout(), session.has_ended(now=1e9)) == (None, None, False)


def test_what_ends() -> None:
    session = new_session(grant=ends(20.0))
    assert (session.expires_in(now=NOW), session.next_timeout()) == (20.0, 120.0)
    assert [session.has_ended(now=at) for at in (119.999, 120.0, 121.0)] == [False, True, True]
    assert new_session(grant=ends(40.0)).next_timeout() == 130.0  # with the heartbeat
    assert new_session(heartbeat=None, grant=ends(0.25)).next_timeout() == 100.25


@pytest.mark.parametrize(
    ("held", "given", "prolongs", "ends_at"),
    [
        *((20.0, 30.0, True, 140.0), (20.0, 30.0, False, 120.0)),
        *((20.0, 5.0, True, 115.0), (20.0, 5.0, False, 115.0)),
        *((20.0, None, True, None), (20.0, None, False, 120.0)),
        *((None, 5.0, True, 115.0), (None, 5.0, False, 115.0)),
        *((None, None, True, None), (None, None, False, None)),
    ],
)
def test_allowing_something_else(
    held: float | None, given: float | None, prolongs: bool, ends_at: float | None
) -> None:
    """The clock of the wall was set back by ten seconds meanwhile, that of the machine shows 110."""
    session = new_session(heartbeat=None, grant=OPEN if held is None else ends(held))
    grant = Grant() if given is None else ends(given - 10.0)
    session.regrant(grant, prolongs=prolongs, now=110.0, timestamp=STAMP - 10_000)
    assert session.identity == Identity("ann", grant)
    assert session.next_timeout() == ends_at
    assert session.expires_in(now=110.0) == (None if ends_at is None else ends_at - 110.0)
