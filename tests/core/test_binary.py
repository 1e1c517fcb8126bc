"""Binary messages: a file within one message, and the payload of a binary frame."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtcore import BinaryMessage as ExportedBinaryMessage
from rtcore.binary import MAX_HEAD, BinaryMessage, Bytes, encode_payload, parse_payload
from rtcore.errors import LocalProtocolError, Refusal
from rtcore.media_types import OCTET_STREAM

HEAD = b'{"type":"binary"}'
LENGTH = b"\x00\x00\x00\x11"

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
HEADS = st.dictionaries(TEXTS, TEXTS | st.integers() | st.none() | st.lists(TEXTS, max_size=2), max_size=4)
KINDS = st.sampled_from([bytes, bytearray, memoryview])


def malformed(fault: str) -> Refusal:
    text = f"a binary frame is four bytes of length, a JSON head of so many bytes, and the data: {fault}"
    return Refusal("malformed_binary", text, status=400)


# Payloads


def test_a_payload_is_the_length_of_its_head_the_head_and_the_data() -> None:
    assert encode_payload({"type": "binary"}, b"abc") == LENGTH + HEAD + b"abc"
    assert encode_payload(HEAD, b"abc") == LENGTH + HEAD + b"abc"
    assert encode_payload({"type": "é"}, b"") == b"\x00\x00\x00\x0d" + '{"type":"é"}'.encode()


def test_a_payload_is_read() -> None:
    parsed = parse_payload(LENGTH + HEAD + b"abc")
    assert isinstance(parsed, tuple)
    assert parsed == ({"type": "binary"}, b"abc")
    assert isinstance(parsed[1], memoryview)
    assert parse_payload(LENGTH + HEAD) == ({"type": "binary"}, b"")


@given(HEADS, st.binary(max_size=50), KINDS, KINDS)
def test_what_is_written_is_read(head: dict[str, object], data: bytes, one: type[Bytes], other: type[Bytes]) -> None:
    head = {**head, "type": "binary"}
    assert parse_payload(other(encode_payload(head, one(data)))) == (head, data)


@pytest.mark.parametrize(
    ("payload", "fault"),
    [
        (b"", "it ends before the length of its head"),
        (b"\x00\x00\x00", "it ends before the length of its head"),
        (b"\x00\x00\x00\x11" + HEAD[:-1], "it ends before its head does"),
        (b"\x00\x01\x00\x00", "it ends before its head does"),
        (b"\x00\x01\x00\x01" + b" " * 70_000, "its head may have 65536 bytes, and is said to have 65537"),
        (b"\xff\xff\xff\xff", "its head may have 65536 bytes, and is said to have 4294967295"),
        (b"\x00\x00\x00\x02[]", "its head must be a JSON object with a string 'type'"),
        (b"\x00\x00\x00\x02{}", "its head must be a JSON object with a string 'type'"),
        (b'\x00\x00\x00\x0a{"type":5}', "its head must be a JSON object with a string 'type'"),
        (b"\x00\x00\x00\x04null", "its head must be a JSON object with a string 'type'"),
    ],
)
def test_what_is_no_payload(payload: bytes, fault: str) -> None:
    assert parse_payload(payload) == malformed(fault)


@pytest.mark.parametrize("head", [b"", b"{", b'{"type":"\xff"}', b"\x00"])
def test_a_head_that_is_no_json(head: bytes) -> None:
    refusal = parse_payload(len(head).to_bytes(4, "big") + head)
    assert isinstance(refusal, Refusal)
    assert (refusal.code, refusal.status) == ("malformed_binary", 400)
    assert "of its head, this is no JSON: " in refusal.message


def test_a_head_is_nested_no_deeper_than_any_message() -> None:
    def payload(depth: int) -> bytes:
        head = b'{"type":"binary","x":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"
        return len(head).to_bytes(4, "big") + head

    assert isinstance(parse_payload(payload(128)), tuple)
    for depth in (129, 20_000):
        assert parse_payload(payload(depth)) == malformed("of its head, JSON may be nested 128 deep at most")


def test_what_a_server_sends_may_have_a_larger_head() -> None:
    head = json.dumps({"type": "binary", "x": "x" * MAX_HEAD}).encode()
    payload = len(head).to_bytes(4, "big") + head
    assert isinstance(parse_payload(payload), Refusal)
    assert isinstance(parse_payload(payload, max_head=len(head)), tuple)
    assert isinstance(parse_payload(payload, max_head=len(head) - 1), Refusal)


@given(st.binary(max_size=60))
def test_anything_is_read_or_refused(payload: bytes) -> None:
    parsed = parse_payload(payload)
    if isinstance(parsed, Refusal):
        assert parsed.code == "malformed_binary"
    else:
        assert isinstance(parsed[0]["type"], str)


@pytest.mark.parametrize("value", [float, {1: object()}, "\ud800"])
def test_a_head_that_json_cannot_express(value: object) -> None:
    with pytest.raises(LocalProtocolError, match="JSON cannot express the head"):
        encode_payload({"type": "binary", "x": value}, b"")


def test_a_head_that_holds_itself() -> None:
    head: dict[str, object] = {"type": "binary"}
    head["head"] = head
    with pytest.raises(LocalProtocolError, match="JSON cannot express the head"):
        encode_payload(head, b"")


# Binary messages


def test_a_file_in_memory() -> None:
    assert ExportedBinaryMessage is BinaryMessage
    message = BinaryMessage.from_bytes(bytearray(b"abc"), "image/png", "cat.png")
    assert message == BinaryMessage(b"abc", "image/png", "cat.png")
    assert message.size == 3
    assert isinstance(message.data, bytes)
    assert BinaryMessage.from_bytes(memoryview(b"")) == BinaryMessage(b"", OCTET_STREAM, None)
    assert repr(message) == "BinaryMessage(data=<3 bytes>, content_type='image/png', filename='cat.png')"


def test_its_head() -> None:
    message = BinaryMessage(b"abc", "image/png", "cat.png")
    head: dict[str, object] = {"type": "binary", "content_type": "image/png", "filename": "cat.png", "size": 3}
    assert message.to_head() == head
    assert message.to_head(channel="chat", id=None) == {**head, "channel": "chat"}
    assert BinaryMessage(b"").to_head() == {"type": "binary", "content_type": OCTET_STREAM, "size": 0}


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (("abc",), "the data of a binary message must be bytes, not str"),
        ((None,), "the data of a binary message must be bytes, not NoneType"),
        ((b"", None), "the content type and the name of a binary message must be strings"),
        ((b"", "image/png", 5), "the content type and the name of a binary message must be strings"),
    ],
)
def test_what_is_no_file(arguments: tuple[object, ...], fault: str) -> None:
    with pytest.raises(LocalProtocolError) as caught:
        BinaryMessage.from_bytes(*arguments)  # type: ignore[arg-type]
    assert str(caught.value) == fault


@pytest.mark.parametrize(
    ("fields", "file"),
    [
        ({"data": b"abc"}, BinaryMessage(b"abc")),
        ({"data": bytearray(b"abc"), "filename": "a", "content_type": "a/b"}, BinaryMessage(b"abc", "a/b", "a")),
        ({"binary_data": "YWJj"}, BinaryMessage(b"abc")),
        ({"binary_data": ""}, BinaryMessage(b"")),
        ({"binary_data": "YWJj", "content_type": "a/b", "filename": "a"}, BinaryMessage(b"abc", "a/b", "a")),
        # The bytes, where it has both.
        ({"data": b"x", "binary_data": "YWJj"}, BinaryMessage(b"x")),
        ({"data": "text", "binary_data": "YWJj"}, BinaryMessage(b"abc")),
        ({"data": b"abc", "content_type": None, "filename": 5}, BinaryMessage(b"abc")),
    ],
)
def test_the_file_in_a_message(fields: dict[str, object], file: BinaryMessage) -> None:
    assert BinaryMessage.from_message({"type": "binary", **fields}) == file


@pytest.mark.parametrize(
    "message",
    [
        *({}, {"type": "text", "data": b"abc"}, {"type": "binary"}, {"type": "binary", "data": "abc"}),
        *({"type": "binary", "url": "/binary/1"}, {"type": "binary", "binary_data": b"YWJj"}, {"data": b"abc"}),
    ],
)
def test_a_message_without_a_file(message: dict[str, object]) -> None:
    with pytest.raises(LocalProtocolError, match="this message holds no file"):
        BinaryMessage.from_message(message)


@pytest.mark.parametrize("text", ["YWJ", "YW=Jj", "a", "YWJj\n", "Y W J j", "é", "_-__"])
def test_a_message_whose_file_is_no_base64(text: str) -> None:
    with pytest.raises(LocalProtocolError, match="'binary_data' is no base64"):
        BinaryMessage.from_message({"type": "binary", "binary_data": text})
