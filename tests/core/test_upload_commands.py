"""What clients say to send a file, and what may be said of one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtcore.errors import Refusal
from rtcore.messages import RESERVED_EVENTS, Message
from rtcore.router import Request
from rtcore.uploads import (
    BeginUpload,
    CancelUpload,
    Chunk,
    FileConfig,
    KeptFile,
    bare_filename,
    check_head,
    check_type,
)
from rtcore.uploads.commands import parse_begin_upload, parse_cancel_upload, parse_chunk
from rtcore.uploads.heads import RESERVED_FIELDS, kept_message

REQUEST = Request("c1", "7")
GOOD: Message = {"upload_id": "u-1", "channel": "chat", "size": 3}

BAD_ID = Refusal("invalid_upload", "'upload_id' must be 1 to 64 of A-Z, a-z, 0-9, '_' and '-', drawn at random")
BAD_SIZE = Refusal("invalid_upload", "'size' must be the number of bytes of the file")
BAD_TARGET = Refusal("invalid_upload", "give 'channel' or 'recipient_id', and not both")
BAD_MESSAGE = Refusal("invalid_upload", "'message' must be an object with more fields of the message")
BAD_OFFSET = Refusal("invalid_upload", "the 'offset' of a chunk must be the number of bytes before it")
BAD_SHA256 = Refusal("invalid_upload", "the 'sha256' of a file must be 64 hexadecimal digits in lower case")
BAD_NAME = Refusal("invalid_filename", "'filename' must be a name of 1 to 255 printable characters, without folders")
BAD_TYPE = Refusal(
    "invalid_content_type", "'content_type' must be a media type such as image/png, of at most 255 characters"
)
BAD_IDS = [None, 5, "", "u" * 65, "u 1", "u/1", "ü", "u\n", ["u"]]
WHOLE_NUMBERS = [None, -1, 1.0, "3", True, [3], 2**53 + 1]


def reserved(name: str) -> Refusal:
    return Refusal("reserved_field", f"'{name}' of a file is said by the server, or elsewhere: leave it out")


def begin(**fields: Any) -> BeginUpload | Refusal:
    return parse_begin_upload({**GOOD, **fields}, REQUEST)


# Beginning


def test_the_least_that_begins_a_file() -> None:
    head: Message = {"type": "binary", "channel": "chat", "content_type": "application/octet-stream", "size": 3}
    assert begin() == BeginUpload("u-1", "chat", REQUEST, 3, "application/octet-stream", None, head)


def test_the_most_that_begins_a_file() -> None:
    message = {"caption": "A cat", "persistent": True, "echo": False, "event": "cat", "id": "m-1"}
    command = begin(filename="C:\\pets\\cat.png", content_type="Image/PNG", message=message, size=0)
    head: Message = {
        **message,
        "type": "binary",
        "channel": "chat",
        "content_type": "image/png",
        "filename": "cat.png",
        "size": 0,
    }
    assert command == BeginUpload("u-1", "chat", REQUEST, 0, "image/png", "cat.png", head)
    assert "u-1" not in repr(command)


def test_a_file_to_a_user() -> None:
    command = begin(channel=None, recipient_id=7)
    assert isinstance(command, BeginUpload)
    assert command.channel == "$user:7"
    assert command.head["recipient_id"] == "7"
    assert "channel" not in command.head


def test_what_is_null_is_not_there() -> None:
    assert begin(recipient_id=None, filename=None, content_type=None, message=None) == begin()


@pytest.mark.parametrize(
    ("fields", "refusal"),
    [
        *(({"upload_id": upload_id}, BAD_ID) for upload_id in BAD_IDS),
        *(({"size": size}, BAD_SIZE) for size in WHOLE_NUMBERS),
        ({"channel": None}, BAD_TARGET),
        ({"recipient_id": "bob"}, BAD_TARGET),
        *(({"message": message}, BAD_MESSAGE) for message in ([], "text", 5, False)),
        *(({"message": {name: None}}, reserved(name)) for name in (*RESERVED_FIELDS, "type", "channel", "meta")),
        *(({"message": {name: 1}}, reserved(name)) for name in ("recipient_id", "content_type", "filename", "size")),
        ({"channel": 5}, Refusal("invalid_channel", "'channel' must be a string")),
        (
            {"channel": "$user:bob"},
            Refusal("invalid_channel", "names that begin with '$' are the server's own: choose another"),
        ),
        (
            {"channel": None, "recipient_id": ""},
            Refusal("invalid_user_id", "a user id is 1 to 255 printable characters, or a whole number"),
        ),
        ({"message": {"echo": 1}}, Refusal("invalid_echo", "'echo' must be true or false")),
        ({"message": {"persistent": "no"}}, Refusal("invalid_persistent", "'persistent' must be true or false")),
        ({"message": {"id": []}}, Refusal("invalid_id", "'id' must be a string of at most 255 characters")),
        ({"message": {"event": 5}}, Refusal("invalid_event", "'event' must be at most 255 printable characters")),
        ({"filename": ".."}, BAD_NAME),
        ({"content_type": "png"}, BAD_TYPE),
    ],
)
def test_what_begins_no_file(fields: Message, refusal: Refusal) -> None:
    assert begin(**fields) == refusal


@pytest.mark.parametrize("event", sorted(RESERVED_EVENTS))
def test_events_of_the_server_are_its_own(event: str) -> None:
    text = f"events named '{event}' come from the server only: choose another name"
    assert begin(message={"event": event}) == Refusal("reserved_event", text, 403)


@pytest.mark.parametrize(
    "changes",
    [{"size": 4}, {"channel": "other"}, {"filename": "b"}, {"filename": None}, {"content_type": "a/c"}],
)
def test_what_goes_on_with_a_file_is_about_the_same(changes: Message) -> None:
    first = begin(filename="a", content_type="a/b")
    again = begin(filename="x/a", content_type="A/b", message={"caption": "other"})
    assert isinstance(first, BeginUpload)
    assert isinstance(again, BeginUpload)
    assert again.continues(first)
    other = begin(**{"filename": "a", "content_type": "a/b", **changes})
    assert isinstance(other, BeginUpload)
    assert not other.continues(first)


def test_giving_up() -> None:
    command = parse_cancel_upload({"upload_id": "u-1", "more": 1}, REQUEST)
    assert command == CancelUpload("u-1", REQUEST)
    assert "u-1" not in repr(command)
    for upload_id in BAD_IDS:
        assert parse_cancel_upload({"upload_id": upload_id}, REQUEST) == BAD_ID


# Chunks


def test_chunks() -> None:
    data = bytearray(b"abc")
    chunk = parse_chunk({"type": "chunk", "upload_id": "u-1", "offset": 5}, memoryview(data))
    data[0] = 0
    assert chunk == Chunk("u-1", 5, b"abc")
    last = parse_chunk({"type": "chunk", "upload_id": "u-1", "offset": 0, "sha256": "a" * 64}, b"")
    assert last == Chunk("u-1", 0, b"", "a" * 64)
    assert repr(last) == f"Chunk(offset=0, data=<0 bytes>, sha256='{'a' * 64}')"


@pytest.mark.parametrize(
    ("fields", "refusal"),
    [
        *(({"upload_id": upload_id}, BAD_ID) for upload_id in BAD_IDS),
        *(({"offset": offset}, BAD_OFFSET) for offset in WHOLE_NUMBERS),
        *(
            ({"sha256": sha256}, BAD_SHA256)
            for sha256 in (5, "", "a" * 63, "A" * 64, "g" * 64, "a" * 65, "a" * 64 + "\n")
        ),
    ],
)
def test_what_is_no_chunk(fields: Message, refusal: Refusal) -> None:
    assert parse_chunk({"type": "chunk", "upload_id": "u-1", "offset": 0, **fields}, b"") == refusal


# What is said of a file


@pytest.mark.parametrize(
    ("value", "name"),
    [
        *((None, None), ("cat.png", "cat.png"), ("/home/ann/cat.png", "cat.png"), ("C:\\pets\\cat.png", "cat.png")),
        *(("../../etc/passwd", "passwd"), ("..\\/x", "x"), ("...", "..."), (".htaccess", ".htaccess"), (" ", " ")),
        *(("Кошка 🐈.png", "Кошка 🐈.png"), ("n" * 255, "n" * 255), ("x" * 300 + "/n", "n"), ("CON", "CON")),
    ],
)
def test_names_are_bare(value: str | None, name: str | None) -> None:
    assert bare_filename(value) == name


@pytest.mark.parametrize(
    "value",
    [
        5,
        b"cat.png",
        ["cat.png"],
        "",
        ".",
        "..",
        "a/",
        "a\\",
        "a/..",
        "n" * 256,
        "a\nb",
        "a\x00",
        "\u202egnp.exe",
        "\ud800",
    ],
)
def test_what_is_no_name(value: object) -> None:
    assert bare_filename(value) == BAD_NAME


@given(st.text())
def test_no_name_leads_anywhere(text: str) -> None:
    name = bare_filename(text)
    if isinstance(name, str):
        assert not {"/", "\\", "\x00", "\n"} & set(name)
        assert name not in ("", ".", "..")
        assert bare_filename(name) == name
        assert text.endswith(name)


def test_types_that_are_taken() -> None:
    assert check_type(None, ("*/*",)) == "application/octet-stream"
    assert check_type("Image/PNG", ("image/*",)) == "image/png"
    assert check_type("text/plain;charset=utf-8", ("text/plain",)) == "text/plain; charset=utf-8"
    assert check_type("png", ("*/*",)) == BAD_TYPE
    refused = Refusal("type_not_allowed", "this server takes no files of type application/octet-stream", status=415)
    assert check_type(None, ("image/*", "text/plain")) == refused


CONFIG = FileConfig(max_binary_size=5, allowed_types=("image/*", "application/octet-stream"), head_size=2)


def test_the_head_of_a_file_is_completed() -> None:
    head: Message = {
        "type": "binary",
        "channel": "chat",
        "filename": "a/cat.png",
        "content_type": "Image/PNG",
        "size": 99,
    }
    assert check_head(head, b"12345", CONFIG) is None
    assert head == {
        "type": "binary",
        "channel": "chat",
        "filename": "cat.png",
        "content_type": "image/png",
        "size": 5,
    }
    head = {"type": "binary", "filename": None, "content_type": None}
    assert check_head(head, b"", CONFIG) is None
    assert head == {"type": "binary", "content_type": "application/octet-stream", "size": 0}


@pytest.mark.parametrize(
    ("fields", "data", "refusal"),
    [
        *(({name: None}, b"", reserved(name)) for name in RESERVED_FIELDS),
        (
            {},
            b"123456",
            Refusal(
                "binary_too_large",
                "a file within one message has at most 5 bytes: send it with send_file or POST /binary/upload",
                status=413,
            ),
        ),
        ({"filename": ""}, b"", BAD_NAME),
        ({"content_type": ""}, b"", BAD_TYPE),
        (
            {"content_type": "text/html"},
            b"",
            Refusal("type_not_allowed", "this server takes no files of type text/html", status=415),
        ),
    ],
)
def test_heads_that_are_refused(fields: Message, data: bytes, refusal: Refusal) -> None:
    assert check_head({"type": "binary", **fields}, data, CONFIG) == refusal


def test_the_beginning_of_a_file_is_looked_at() -> None:
    looked: list[tuple[str, bytes]] = []
    mismatch = Refusal("content_mismatch", "this is no picture", status=415)

    def inspect(content_type: str, head: bytes) -> Refusal | None:
        looked.append((content_type, head))
        return mismatch if head == b"MZ" else None

    config = FileConfig(head_size=2, inspect=inspect)
    assert check_head({"type": "binary", "content_type": "IMAGE/png"}, memoryview(b"MZ..."), config) == mismatch
    assert check_head({"type": "binary"}, b"\x89", config) is None
    assert looked == [("image/png", b"MZ"), ("application/octet-stream", b"\x89")]
    assert all(isinstance(head, bytes) for _, head in looked)


def test_what_is_told_of_a_file_that_is_kept() -> None:
    head: Message = {"type": "binary", "channel": "chat", "content_type": "image/png", "size": 3, "caption": "x"}
    file = KeptFile("f-1", "/realtime/binary/f-1", 3, "a" * 64, b"abc")
    assert kept_message(head, file) == {
        **head,
        "sha256": "a" * 64,
        "file_id": "f-1",
        "url": "/realtime/binary/f-1",
    }
    assert kept_message({"url": "/evil"}, file) == {
        "type": "binary",
        "size": 3,
        "sha256": "a" * 64,
        "file_id": "f-1",
        "url": "/realtime/binary/f-1",
    }


# Anything

NAMES = st.sampled_from(
    ["upload_id", "channel", "recipient_id", "filename", "content_type", "size", "message", "offset", "sha256", "event"]
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-1, 5)
    | st.text(max_size=3)
    | st.sampled_from(["u", "chat", "a/b", "a" * 64]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=6,
)


@given(st.dictionaries(NAMES, VALUES))
def test_any_arguments_are_taken_or_refused(data: Message) -> None:
    before = json.dumps(data)
    for outcome in (
        parse_begin_upload(data, REQUEST),
        parse_cancel_upload(data, REQUEST),
        parse_chunk({**data, "type": "chunk"}, b""),
    ):
        if isinstance(outcome, Refusal):
            assert outcome.status in (422, 403)
        else:
            assert outcome.upload_id == data["upload_id"]
    assert json.dumps(data) == before
