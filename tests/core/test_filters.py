"""Subscription filters: what may be asked for, and what then comes."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtcore.errors import Refusal
from rtcore.filters import Filter, parse_filters, with_presence
from rtcore.messages import Message

TEXT: Message = {"type": "text", "data": "hello"}
CHAT: Message = {"type": "channel_message", "message": "hello"}
ERROR: Message = {"type": "notification", "data": {"title": "t", "content": "c", "type": "error"}}
INFO: Message = {"type": "notification", "data": {"title": "t", "content": "c", "type": "info"}}
JOINED: Message = {"type": "user_joined", "channel": "a", "user_id": "u", "connection_id": "c"}
PNG: Message = {"type": "binary", "content_type": "image/png", "size": 10, "url": "/binary/1"}
PLAIN: Message = {"type": "binary", "content_type": "text/plain; charset=utf-8", "size": 20, "binary_data": ""}
EVERYTHING = [TEXT, CHAT, ERROR, INFO, JOINED, PNG, PLAIN]

TEXTS = st.text(max_size=8)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=8
)
KEYS = st.sampled_from(["types", "notification_types", "binary_data", "max_file_size", "allowed_types"])
MEDIA_RANGES = st.sampled_from(["*/*", "image/*", "IMAGE/*", "image/png", "text/plain", "application/octet-stream"])
FILTERS = st.fixed_dictionaries(
    {},
    optional={
        "types": st.lists(st.sampled_from(["text", "channel_message", "notification", "binary"])),
        "notification_types": st.lists(st.sampled_from(["info", "success", "warning", "error"])),
        "binary_data": st.booleans(),
        "max_file_size": st.integers(0, 30),
        "allowed_types": st.lists(MEDIA_RANGES),
    },
)
MESSAGES = st.sampled_from(EVERYTHING) | st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "notification", "binary"]) | JSON},
    optional={
        "data": JSON | st.fixed_dictionaries({"type": JSON}),
        "size": JSON,
        "binary_data": JSON,
        "content_type": JSON | st.sampled_from(["image/png", "Image/PNG ; q=1", "text/plain", "image"]),
    },
)


def made(value: object) -> Filter:
    filters = parse_filters(value)
    assert isinstance(filters, Filter)
    return filters


def wanted(value: object) -> list[Message]:
    return [message for message in EVERYTHING if made(value).matches(message)]


@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        {"binary_data": True},
        {"types": None, "binary_data": None, "max_file_size": None, "notification_types": None, "allowed_types": None},
    ],
)
def test_no_filter(value: object) -> None:
    assert parse_filters(value) is None


def test_a_filter_as_it_is_read() -> None:
    assert made(
        {
            "types": ["text", "binary"],
            "notification_types": ["info"],
            "binary_data": False,
            "max_file_size": 0,
            "allowed_types": ["text/plain", "image/*"],
        }
    ) == Filter(("binary", "text"), ("info",), False, 0, ("image/*", "text/plain"))


def test_those_who_want_the_same_are_one_group() -> None:
    one = made({"types": ["a", "b"], "allowed_types": ["Image/PNG", "*/*"], "binary_data": True})
    same = made({"types": ["b", "a", "b"], "allowed_types": ["*/*", "image/png", "IMAGE/png"]})
    assert (one, hash(one)) == (same, hash(same))
    assert one != made({"types": ["a"], "allowed_types": ["image/png", "*/*"]})
    assert made({"types": []}) != made({"notification_types": []})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"types": ["text"]}, [TEXT]),
        ({"types": ["text", "user_joined"]}, [TEXT, JOINED]),
        ({"types": ["Text"]}, []),
        ({"types": []}, []),
        # Each is only about messages of its own.
        ({"notification_types": ["error"]}, [TEXT, CHAT, ERROR, JOINED, PNG, PLAIN]),
        ({"notification_types": []}, [TEXT, CHAT, JOINED, PNG, PLAIN]),
        ({"binary_data": False}, [TEXT, CHAT, ERROR, INFO, JOINED]),
        ({"max_file_size": 10}, [TEXT, CHAT, ERROR, INFO, JOINED, PNG]),
        ({"max_file_size": 20}, EVERYTHING),
        ({"max_file_size": 9}, [TEXT, CHAT, ERROR, INFO, JOINED]),
        ({"allowed_types": ["image/*"]}, [TEXT, CHAT, ERROR, INFO, JOINED, PNG]),
        ({"allowed_types": ["text/plain"]}, [TEXT, CHAT, ERROR, INFO, JOINED, PLAIN]),
        ({"allowed_types": ["*/*"]}, EVERYTHING),
        ({"allowed_types": []}, [TEXT, CHAT, ERROR, INFO, JOINED]),
        # And all that are about a message must be met.
        ({"types": ["notification"], "notification_types": ["error"]}, [ERROR]),
        ({"types": ["text"], "notification_types": ["error"]}, [TEXT]),
        ({"types": ["text"], "binary_data": True}, [TEXT]),
        ({"types": ["binary"], "binary_data": False}, []),
        ({"types": ["binary"], "allowed_types": ["text/*"]}, [PLAIN]),
        ({"max_file_size": 10, "allowed_types": ["text/plain"]}, [TEXT, CHAT, ERROR, INFO, JOINED]),
        ({"binary_data": False, "allowed_types": ["*/*"]}, [TEXT, CHAT, ERROR, INFO, JOINED]),
        (
            {"binary_data": True, "max_file_size": 15, "allowed_types": ["image/*"]},
            [TEXT, CHAT, ERROR, INFO, JOINED, PNG],
        ),
    ],
)
def test_what_comes(value: object, expected: list[Message]) -> None:
    assert wanted(value) == expected


@pytest.mark.parametrize(
    ("content_type", "allowed", "expected"),
    [
        ("image/png", "image/png", True),
        ("IMAGE/Png", "image/PNG", True),
        (" image/png ;a=b", "image/png", True),
        ("image/png", "image/*", True),
        ("image/png", "image/pn", False),
        ("imagery/png", "image/*", False),
        ("text/image/png", "image/*", False),
        ("image", "image/*", True),
        ("image", "image/png", False),
        ("", "image/*", False),
        ("", "*/*", True),
        ("image/svg+xml", "image/svg+xml", True),
        (None, "application/octet-stream", True),
        (5, "application/*", True),
        (None, "image/*", False),
    ],
)
def test_content_types(content_type: object, allowed: str, expected: bool) -> None:
    filters = made({"allowed_types": [allowed]})
    assert filters.matches({"type": "binary", "content_type": content_type}) is expected
    if content_type is None:
        assert filters.matches({"type": "binary"}) is expected


@given(st.binary(max_size=40), st.integers(-2, 2))
def test_the_size_of_a_file_that_is_in_the_message(data: bytes, more: int) -> None:
    limit = max(0, len(data) + more)
    filters = made({"max_file_size": limit})
    encoded = base64.b64encode(data).decode()
    assert filters.matches({"type": "binary", "binary_data": encoded}) is (len(data) <= limit)
    assert filters.matches({"type": "binary", "binary_data": encoded.rstrip("=")}) is (len(data) <= limit)
    assert filters.matches({"type": "binary", "size": len(data), "binary_data": "A" * 400}) is (len(data) <= limit)
    assert filters.matches({"type": "binary", "size": None, "binary_data": encoded}) is (len(data) <= limit)


@pytest.mark.parametrize("message", [{}, {"size": "1"}, {"size": True}, {"size": 0.5}, {"binary_data": None}])
def test_a_file_of_unknown_size_is_not_wanted(message: Message) -> None:
    assert not made({"max_file_size": 2**40}).matches({"type": "binary", **message})
    assert made({"allowed_types": ["*/*"]}).matches({"type": "binary", **message})


@pytest.mark.parametrize("data", [None, "text", [], {}, {"title": "t"}])
def test_a_notification_without_a_type_is_an_info(data: object) -> None:
    message: Message = {"type": "notification", "data": data}
    assert made({"notification_types": ["info"]}).matches(message)
    assert not made({"notification_types": ["error"]}).matches(message)


KEYS_ALLOWED = "types, notification_types, binary_data, max_file_size, allowed_types"
LISTS = "at most 100 strings of 1 to 255 characters"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (["text"], f"'filters' must be an object with any of {KEYS_ALLOWED}"),
        ({"type": ["text"]}, f"'filters' may have {KEYS_ALLOWED}, and not 'type'"),
        ({"types": "text"}, f"'types' must be a list of {LISTS}"),
        ({"types": {"text": 1}}, f"'types' must be a list of {LISTS}"),
        ({"types": ["text", 1]}, f"'types' must be a list of {LISTS}"),
        ({"types": [""]}, f"'types' must be a list of {LISTS}"),
        ({"types": ["x" * 256]}, f"'types' must be a list of {LISTS}"),
        ({"types": ["x"] * 101}, f"'types' must be a list of {LISTS}"),
        ({"notification_types": 0}, f"'notification_types' must be a list of {LISTS}"),
        ({"allowed_types": False}, f"'allowed_types' must be a list of {LISTS}"),
        ({"binary_data": 1}, "'binary_data' must be true or false"),
        ({"binary_data": "no"}, "'binary_data' must be true or false"),
        ({"max_file_size": -1}, "'max_file_size' must be a whole number of bytes, at least 0"),
        ({"max_file_size": 1.0}, "'max_file_size' must be a whole number of bytes, at least 0"),
        ({"max_file_size": True}, "'max_file_size' must be a whole number of bytes, at least 0"),
        ({"max_file_size": "1MB"}, "'max_file_size' must be a whole number of bytes, at least 0"),
        ({"allowed_types": ["png"]}, "'allowed_types' lists such as 'image/*' or 'text/plain', and not 'png'"),
    ],
)
def test_what_is_refused(value: object, message: str) -> None:
    assert parse_filters(value) == Refusal("invalid_filters", message)


@pytest.mark.parametrize("entry", ["*", "*/png", "image/", "/png", "image/p*", "image/png;q=1", "image/png\n", "a/b/c"])
def test_what_is_no_media_range(entry: str) -> None:
    refusal = parse_filters({"allowed_types": ["image/png", entry]})
    assert isinstance(refusal, Refusal)
    assert refusal.message == f"'allowed_types' lists such as 'image/*' or 'text/plain', and not {entry!r}"


def test_the_most() -> None:
    assert made({"types": [f"{number:0255}" for number in range(100)]}).types is not None
    assert made({"max_file_size": 2**70}).max_file_size == 2**70


def test_a_refusal_is_short() -> None:
    refusal = parse_filters({"x" * 10_000: 1})
    assert isinstance(refusal, Refusal)
    assert len(refusal.message) < 250


@given(JSON | st.dictionaries(KEYS, JSON) | FILTERS, MESSAGES)
def test_any_json_is_read_or_refused_and_any_message_judged(value: object, message: Message) -> None:
    filters = parse_filters(value)
    if isinstance(filters, Refusal):
        assert filters.code == "invalid_filters"
        assert filters.message.isprintable()
    elif filters is not None:
        assert filters.matches(message) in (True, False)
        assert hash(filters) is not None


@given(FILTERS, MESSAGES)
def test_a_filter_wants_what_each_of_its_conditions_wants(value: dict[str, object], message: Message) -> None:
    alone = [parse_filters({key: condition}) for key, condition in value.items()]
    whole = parse_filters(value)
    assert not isinstance(whole, Refusal)
    expected = all(not isinstance(part, Filter) or part.matches(message) for part in alone)
    assert (whole is None or whole.matches(message)) is expected


def test_what_one_may_not_know_is_no_wish() -> None:
    blind = Filter(presence=False)
    wish = Filter(types=("text",))
    assert with_presence(None, True) is None
    assert with_presence(wish, True) is wish
    assert with_presence(None, False) == blind
    assert with_presence(blind, False) is blind
    assert with_presence(wish, False) == Filter(types=("text",), presence=False)
    # And back: those who want the same are one group again.
    assert with_presence(blind, True) is None
    assert with_presence(with_presence(wish, False), True) == wish
    # It is about a stream, whatever its messages are called.
    assert blind.matches({"type": "user_joined"})


def test_nobody_asks_to_be_told_of_what_they_may_not_know() -> None:
    refusal = parse_filters({"presence": True})
    assert isinstance(refusal, Refusal)
    assert refusal.code == "invalid_filters"
