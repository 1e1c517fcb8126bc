"""Messages: what clients may say, and how each wire carries what the server says."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtcore.encoded import Encoded, Source
from rtcore.errors import LocalProtocolError, Refusal
from rtcore.event_stream import EventStreamParser
from rtcore.json_values import decode_value
from rtcore.messages import (
    RESERVED_EVENTS,
    RESERVED_TYPES,
    ChannelMessage,
    Message,
    NotificationMessage,
    check,
    check_channel,
    cursor,
    encode,
    normalize_user_id,
    parse,
    publication,
    reply_id,
    with_type,
)

BAD_TYPE = Refusal("invalid_type", "'type' must be a string")
BAD_ID = Refusal("invalid_id", "'id' must be a string of at most 255 characters")
BAD_ECHO = Refusal("invalid_echo", "'echo' must be true or false")
BAD_EVENT = Refusal("invalid_event", "'event' must be at most 255 printable characters")
BAD_CHANNEL = Refusal("invalid_channel", "a channel's name is 1 to 255 printable characters")
NO_CHANNEL = Refusal("invalid_channel", "'channel' must be a string")
OWN_CHANNEL = Refusal("invalid_channel", "names that begin with '$' are the server's own: choose another")
BAD_USER = Refusal("invalid_user_id", "a user id is 1 to 255 printable characters, or a whole number")

TOO_DEEP = Refusal("too_deep", "JSON may be nested 128 deep at most", status=400)

# Any JSON that a peer may send, of any size of number, but for halves of surrogate pairs: those are no Unicode.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=20,
)
OBJECTS = st.dictionaries(TEXTS, JSON, max_size=5)


def compact(message: object) -> bytes:
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode()


def nested(depth: int) -> str:
    """Return an object with `depth` levels in all."""
    return '{"type":"text","data":' + "[" * (depth - 1) + "]" * (depth - 1) + "}"


# What the server sends


def test_each_wire_has_its_form_of_a_message() -> None:
    encoded = encode({"type": "heartbeat", "text": "Привет\n\u2028"})
    body = '{"type":"heartbeat","text":"Привет\\n\u2028"}'.encode()
    assert encoded.json == body
    assert encoded.text == body.decode()
    assert encoded.frame == b"\x81" + bytes([len(body)]) + body
    assert encoded.event_stream == b"event: heartbeat\ndata: " + body + b"\n\n"


def test_each_form_is_made_once() -> None:
    encoded = encode({"type": "text"})
    assert encoded.frame is encoded.frame
    assert encoded.event_stream is encoded.event_stream
    assert encoded.text is encoded.text


def test_encoded_messages_are_equal_by_content() -> None:
    one, same = Encoded(b"{}", "gap"), Encoded(b"{}", "gap")
    assert one.frame  # what has been made of it already makes no difference
    assert one == same
    assert hash(one) == hash(same)
    assert one != Encoded(b"{}")
    assert one != Encoded(b"[]", "gap")
    assert one != b"{}"
    assert one != Encoded(b"{}", "gap", id="e-1")
    assert Encoded(b"{}", id="e-1") == Encoded(b"{}", id="e-1", source=Source("chat", "e.1", 1))
    assert repr(one) == "Encoded(b'{}', event='gap', id=None)"


def test_an_id_is_for_event_streams_only() -> None:
    message = Encoded(b"{}", "gap", id="e-1")
    assert message.event_stream == b"event: gap\nid: e-1\ndata: {}\n\n"
    assert (message.text, message.frame) == ("{}", Encoded(b"{}").frame)


def test_a_message_may_be_told_under_another_id() -> None:
    source = Source("chat", "e.1", 1)
    message = Encoded(b"{}", "gap", id="e-1", source=source)
    assert message.event_stream  # what has been made of it is not taken over
    for other in (message.with_id("e-9.1"), message.with_id(None)):
        assert (other.json, other.event, other.source) == (b"{}", "gap", source)
    assert message.with_id("e-9.1").event_stream == b"event: gap\nid: e-9.1\ndata: {}\n\n"
    assert message.with_id(None).event_stream == b"event: gap\ndata: {}\n\n"
    assert message.id == "e-1"


def test_a_cursor_is_an_event_that_nobody_sees() -> None:
    assert cursor("e-5").event_stream == b"id: e-5\n\n"
    parser = EventStreamParser()
    assert parser.receive_data(cursor("e-5").event_stream) == []
    assert parser.last_event_id == "e-5"


@pytest.mark.parametrize(
    ("message", "event"),
    [
        ({"type": "channel_message"}, None),
        ({"type": "text"}, None),
        ({"type": "broadcast"}, None),
        ({"type": "an_invention"}, None),
        ({}, None),
        ({"type": ["notification"]}, None),
        ({"type": "text", "event": "price"}, "price"),
        ({"type": "notification", "event": "price"}, "price"),
        ({"type": "text", "event": ""}, None),
        ({"type": "notification", "event": ""}, None),
        ({"type": "text", "event": None}, None),
        ({"type": "gap", "event": 5}, "gap"),
        ({"type": "binary"}, "binary_data"),
        *(({"type": kind}, kind) for kind in sorted(RESERVED_TYPES - {"broadcast", "binary"})),
    ],
)
def test_only_types_of_the_server_name_an_event(message: Message, event: str | None) -> None:
    assert encode(message) == Encoded(compact(message), event)


@pytest.mark.parametrize("event", ["a\nb", "a\rb", "a\0b", "a\u2028b", "\x7f"])
def test_an_event_is_named_on_one_line(event: str) -> None:
    with pytest.raises(LocalProtocolError, match="must be printable"):
        encode({"type": "text", "event": event})


def too_deep() -> Message:
    inner: list[object] = []
    for _ in range(100_000):
        inner = [inner]
    return {"data": inner}


@pytest.mark.parametrize(
    "message",
    [{"data": object()}, {"data": "\ud800"}, {"data": 10**5000}, {"data": {(1, 2): 3}}, {"event": "\ud800"}],
    ids=["object", "surrogate", "digits", "key", "event"],
)
def test_what_is_no_json_is_the_callers_fault(message: Message) -> None:
    with pytest.raises(LocalProtocolError):
        encode(message)


def test_what_is_nested_beyond_reason_is_the_callers_fault() -> None:
    with pytest.raises(LocalProtocolError, match="must be JSON"):
        encode(too_deep())


def test_a_publication_tells_where_it_stands_and_who_sent_it() -> None:
    message: Message = {"type": "text", "meta": "forged", "data": "Привет"}
    source = Source("chat", "e.1", 7)
    encoded = publication(
        message, id="e-9", source=source, connection_id="c1", user_id=None, timestamp=1_700_000_000_000
    )
    assert encoded == Encoded(
        compact(
            {
                "type": "text",
                "meta": {
                    "id": "e-9",
                    "offset": 7,
                    "epoch": "e.1",
                    "sender": {"connection_id": "c1", "user_id": None},
                    "timestamp": 1_700_000_000_000,
                },
                "data": "Привет",
            }
        ),
        id="e-9",
    )
    assert encoded.source is source
    assert message["meta"] == "forged"  # the caller's object is left alone


def test_a_publication_tells_about_its_sender_what_there_is_to_tell() -> None:
    for info in ({"name": "Ann"}, {}):
        encoded = publication(
            {"type": "text"},
            id="e-9",
            source=Source("chat", "e.1", 7),
            connection_id=None,
            user_id="ann",
            info=info,
            timestamp=0,
        )
        sender = {"connection_id": None, "user_id": "ann", "info": info}
        assert json.loads(encoded.json)["meta"]["sender"] == sender


def test_who_is_taken_out_of_a_channel_is_told_by_an_event_of_its_own() -> None:
    told = encode({"type": "unsubscribed", "channel": "chat"})
    assert (told.event, told.id) == ("unsubscribed", None)
    assert {"unsubscribed"} <= RESERVED_TYPES & RESERVED_EVENTS


@given(OBJECTS)
def test_fields_that_the_server_does_not_know_pass_through_untouched(fields: Message) -> None:
    message: Message = {**fields, "type": "text", "event": None}
    source = Source("chat", "e", 1)
    sent = publication(
        json.loads(json.dumps(message)), id="i", source=source, connection_id=None, user_id=None, timestamp=0
    )
    received = json.loads(sent.json)
    assert received.pop("meta")["offset"] == 1
    message.pop("meta", None)
    assert received == message
    assert b"\n" not in sent.json


# What clients send


@pytest.mark.parametrize(
    "text",
    [
        *("Привет", "", "  ", "null", "true", "5", '"text"', "[]", '[{"type":"text"}]', "{}", '{"data":1}'),
        *('{"type":"text"', '{"type":"text"}}', "{'type':'text'}", '{"type":"text",}', '\ufeff{"type":"text"}'),
        *('{"type":"text","data":NaN}', '{"type":"text","data":-Infinity}', '{"type":"text","data":1e400}'),
        *('{"type":"text","data":"\\ud800"}', '{"type":"text","data":"\\ud800 and more"}', '{"type":"\\udc00"}'),
        *('{"type":"text","data":"\n"}', '{"type":"text","data":"\ud800"}', "\udfff"),
        '{"type":"text","data":' + "9" * 5000 + "}",
        *("[" * 129 + "]" * 129, "[" * 100_000),
    ],
    ids=lambda text: ascii(text[:30]),
)
def test_what_is_no_object_with_a_type_is_text(text: str) -> None:
    assert parse(text) == {"type": "text", "data": text}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"type":"text"}', {"type": "text"}),
        (' {"type" : "text" } \n', {"type": "text"}),
        ('{"type":5}', {"type": 5}),
        ('{"type":"a","type":"b","x":1,"x":2}', {"type": "b", "x": 2}),
        ('{"type":"text","data":"\\ud83d\\ude00\\u0000"}', {"type": "text", "data": "😀\0"}),
        ('{"type":"text","data":-18446744073709551616}', {"type": "text", "data": -(2**64)}),
        ('{"type":"text","data":' + "9" * 4000 + "}", {"type": "text", "data": 10**4000 - 1}),
        ('{"type":"text","data":"' + "[" * 1000 + '"}', {"type": "text", "data": "[" * 1000}),
        ('{"type":"text","data":[' + "[{}]," * 500 + "5]}", {"type": "text", "data": [*([{}] for _ in range(500)), 5]}),
    ],
    ids=lambda value: ascii(str(value)[:30]),
)
def test_an_object_with_a_type_is_a_message(text: str, message: Message) -> None:
    assert parse(text) == message


@pytest.mark.parametrize("depth", [129, 990, 2_000, 50_000])
def test_an_object_that_is_too_deep_is_refused(depth: int) -> None:
    assert parse(f" {nested(depth)}") == TOO_DEEP


def test_a_message_may_be_as_deep_as_the_limit() -> None:
    message = parse(nested(128))
    assert not isinstance(message, Refusal)
    assert compact(message).decode() == nested(128)
    assert encode(message).text == nested(128)


@pytest.mark.parametrize("convert", [str, str.encode])
@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[1]", [1]),
        ("null", None),
        ("[" * 128 + "]" * 128, json.loads("[" * 128 + "]" * 128)),
        ("[" * 129 + "]" * 129, TOO_DEEP),
        ("[" * 5_000 + "]" * 5_000, TOO_DEEP),
        ("[1", Refusal("malformed_json", "this is no JSON: Input data was truncated", status=400)),
        ("", Refusal("malformed_json", "this is no JSON: Input data was truncated", status=400)),
    ],
    ids=lambda value: str(value)[:30],
)
def test_values_are_decoded_or_refused(convert: type[str], text: str, value: object) -> None:
    assert decode_value(convert(text)) == value


def test_bytes_that_are_not_utf_8_are_no_json() -> None:
    refusal = decode_value(b'"\xff"')
    assert isinstance(refusal, Refusal)
    assert refusal.code == "malformed_json"


@given(st.text() | st.text('{}[]",:\\ud8019"type"') | JSON.map(json.dumps))
def test_any_text_is_a_message(text: str) -> None:
    message = parse(text)
    assert not isinstance(message, Refusal)
    assert "type" in message
    refusal = check(message)
    assert refusal is None or refusal.status == 422


# Fields that the server knows


@pytest.mark.parametrize(
    ("fields", "refusal"),
    [
        ({}, None),
        ({"channel": "chat:1 привет"}, None),
        ({"channel": "c" * 255}, None),
        ({"channel": "c" * 256}, BAD_CHANNEL),
        ({"channel": ""}, BAD_CHANNEL),
        ({"channel": "a\nb"}, BAD_CHANNEL),
        ({"channel": "a\u200bb"}, BAD_CHANNEL),
        ({"channel": "\ud800"}, BAD_CHANNEL),
        ({"channel": 5}, NO_CHANNEL),
        ({"channel": None}, NO_CHANNEL),
        ({"channel": ["chat"]}, NO_CHANNEL),
        ({"channel": "$broadcast"}, OWN_CHANNEL),
        ({"channel": "$"}, OWN_CHANNEL),
        ({"recipient_id": ""}, BAD_USER),
        ({"recipient_id": "u" * 256}, BAD_USER),
        ({"recipient_id": "a\tb"}, BAD_USER),
        ({"recipient_id": None}, BAD_USER),
        ({"recipient_id": True}, BAD_USER),
        ({"recipient_id": 5.0}, BAD_USER),
        ({"recipient_id": 10**255}, BAD_USER),
        ({"id": None}, None),
        ({"id": ""}, None),
        ({"id": "i" * 255}, None),
        ({"id": "i" * 256}, BAD_ID),
        ({"id": 7}, None),
        ({"id": -(10**254)}, None),
        ({"id": 10**255}, BAD_ID),
        ({"id": True}, BAD_ID),
        ({"id": 7.0}, BAD_ID),
        ({"id": {}}, BAD_ID),
        ({"echo": True}, None),
        ({"echo": False}, None),
        ({"echo": None}, BAD_ECHO),
        ({"echo": 0}, BAD_ECHO),
        ({"echo": "false"}, BAD_ECHO),
        ({"event": None}, None),
        ({"event": ""}, None),
        ({"event": "e" * 255}, None),
        ({"event": "e" * 256}, BAD_EVENT),
        ({"event": "a\nb"}, BAD_EVENT),
        ({"event": 5}, BAD_EVENT),
        ({"type": 5}, BAD_TYPE),
        ({"type": None}, BAD_TYPE),
        ({"type": {}, "channel": 5}, BAD_TYPE),
        ({"type": ""}, None),
    ],
    ids=lambda value: ascii(str(value)[:40]),
)
def test_fields_are_checked(fields: Mapping[str, object], refusal: Refusal | None) -> None:
    message: Message = {"type": "text", **fields}
    before = dict(message)
    assert check(message) == refusal
    assert message == before
    assert with_type({"type": "text", **fields}, "broadcast") == (refusal or before)


def test_numbers_that_python_would_not_write_are_refused_like_others() -> None:
    assert check({"type": "text", "id": -(10**5000)}) == BAD_ID
    assert check({"type": "text", "recipient_id": 10**5000}) == BAD_USER


@pytest.mark.parametrize(
    ("value", "user_id"),
    [("42", "42"), (42, "42"), (-7, "-7"), (10**254, "1" + "0" * 254), ("ann@example", "ann@example"), ("a b", "a b")],
)
def test_a_user_id_is_text_and_a_number_means_its_decimal_form(value: object, user_id: str) -> None:
    assert normalize_user_id(value) == user_id
    message: Message = {"type": "text", "recipient_id": value}
    assert check(message) is None
    assert message == {"type": "text", "recipient_id": user_id}


@pytest.mark.parametrize("value", [b"ann", None, -(10**255) + 1, [], "\ud800"])
def test_what_is_no_user_id(value: object) -> None:
    assert normalize_user_id(value) == BAD_USER


@pytest.mark.parametrize(
    ("value", "identifier"),
    [("7", "7"), ("", ""), (7, 7), (0, 0), (None, None), (True, None), (7.0, None), ("i" * 256, None), (10**255, None)],
)
def test_the_id_to_answer_under(value: object, identifier: object) -> None:
    found = reply_id({"type": "text", "id": value})
    assert found == identifier
    assert type(found) is type(identifier)


def test_no_id_asks_for_no_answer() -> None:
    assert reply_id({"type": "text"}) is None


def test_events_of_the_server_are_reserved() -> None:
    assert {kind for kind in RESERVED_TYPES if encode({"type": kind}).event} - {"binary"} < RESERVED_EVENTS
    assert {"binary_data", "open", "error"} < RESERVED_EVENTS
    assert "message" not in RESERVED_EVENTS


def test_check_channel_says_what_is_wrong() -> None:
    assert [check_channel("chat"), check_channel("a b"), check_channel("$user:1")] == [None, None, OWN_CHANNEL]


# What programs publish


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ("hello", {"data": "hello", "type": "user_message"}),
        (None, {"data": None, "type": "user_message"}),
        ([1], {"data": [1], "type": "user_message"}),
        ({"data": 1}, {"data": 1, "type": "user_message"}),
        ({"type": "news"}, {"type": "news"}),
        ({"type": "notification"}, {"type": "notification"}),
    ],
)
def test_a_payload_becomes_a_message(payload: object, message: Message) -> None:
    assert with_type(payload, "user_message") == message


def test_the_callers_payload_is_left_alone() -> None:
    payload = {"recipient_id": 42}
    assert with_type(payload, "user_message") == {"recipient_id": "42", "type": "user_message"}
    assert payload == {"recipient_id": 42}


def test_a_channel_message_says_no_more_than_it_must() -> None:
    assert ChannelMessage("chat", {"a": 1}).to_message() == {
        "type": "channel_message",
        "channel": "chat",
        "message": {"a": 1},
    }
    assert ChannelMessage("chat", None, type="x", echo=False, id="7").to_message() == {
        "type": "x",
        "channel": "chat",
        "message": None,
        "echo": False,
        "id": "7",
    }


def test_a_notification_carries_its_data() -> None:
    assert NotificationMessage("Title", "Text").to_message() == {
        "type": "notification",
        "data": {"title": "Title", "content": "Text", "type": "info", "auto_hide": True},
    }
    assert NotificationMessage("T", "C", type="error", auto_hide=False, duration=0).to_message() == {
        "type": "notification",
        "data": {"title": "T", "content": "C", "type": "error", "auto_hide": False, "duration": 0},
    }


@pytest.mark.parametrize(
    "fields",
    [
        {"title": 5},
        {"content": None},
        {"type": "fatal"},
        {"type": []},
        {"auto_hide": 1},
        {"duration": "5"},
        {"duration": -1},
    ],
    ids=str,
)
def test_a_notification_is_checked_when_it_is_made(fields: dict[str, object]) -> None:
    with pytest.raises((TypeError, ValueError)):
        NotificationMessage(**{"title": "T", "content": "C", **fields})  # type: ignore[arg-type]
