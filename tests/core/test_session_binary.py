"""A session: what a client asks for by a binary frame."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtcore.binary import Bytes, encode_payload
from rtcore.errors import Refusal
from rtcore.messages import RESERVED_EVENTS, Message
from rtcore.rate_limit import RateLimit, RateLimiter
from rtcore.router import Publish, Refused, Request
from rtcore.session import NO_FILES, Expel, Handle, Session, SessionEffect, Transport
from rtcore.uploads import BeginUpload, CancelUpload, Chunk, FileConfig

NOW = 100.0
STAMP = 1_700_000_000_000
FILES = FileConfig(max_binary_size=10)
REQUEST = Request("c1", "7")

RESERVED = Refusal(
    "reserved_type", "the type of what comes in a binary frame is 'binary' or 'chunk': send others as text", 403
)
TOO_FAST = Refusal("rate_limited", "too many messages: this one was not carried out, send it again in 1 s", 429, 1)


def new_session(
    *limits: RateLimit,
    files: FileConfig | None = FILES,
    handled: tuple[str, ...] = (),
    max_message_size: int = 2**20,
    max_warnings: int = 2,
) -> Session:
    return Session(
        "c1",
        "ann",
        Transport.WEBSOCKET,
        heartbeat_interval=None,
        max_message_size=max_message_size,
        handled=handled,
        limiters=[RateLimiter(limit, now=NOW) for limit in limits],
        max_warnings=max_warnings,
        files=files,
        now=NOW,
        timestamp=STAMP,
    )


def receive(head: Message, data: Bytes = b"abc", session: Session | None = None) -> SessionEffect:
    return (session or new_session()).receive_bytes(encode_payload(head, data), now=NOW)


def completed(**fields: object) -> Message:
    return {"type": "binary", "content_type": "application/octet-stream", "size": 3, **fields}


# A file within one message


def test_a_file_to_a_channel() -> None:
    head: Message = {"type": "binary", "channel": "chat", "id": "7", "filename": "a/b.png", "content_type": "Image/PNG"}
    assert receive({**head, "size": 99, "caption": "x"}) == Publish(
        "chat",
        completed(channel="chat", id="7", filename="b.png", content_type="image/png", caption="x"),
        REQUEST,
        data=b"abc",
    )


def test_a_file_to_a_user() -> None:
    message = completed(recipient_id="5")
    assert receive({"type": "binary", "recipient_id": 5}) == Publish("$user:5", message, Request("c1"), data=b"abc")


def test_a_file_that_its_sender_does_not_hear() -> None:
    effect = receive({"type": "binary", "channel": "chat", "echo": False})
    assert effect == Publish("chat", completed(channel="chat", echo=False), Request("c1"), "c1", data=b"abc")


def test_a_file_to_nobody_goes_to_its_handler_or_comes_back() -> None:
    head: Message = {"type": "binary", "id": "7"}
    assert receive(head) == Publish("$connection:c1", completed(id="7"), REQUEST, data=b"abc")
    handled = receive(head, session=new_session(handled=("binary",)))
    assert handled == Handle("binary", completed(id="7", data=b"abc"), REQUEST)
    assert isinstance(receive({**head, "channel": "chat"}, session=new_session(handled=("binary",))), Publish)


def test_what_is_kept_of_a_payload_is_its_own() -> None:
    payload = bytearray(encode_payload({"type": "binary", "channel": "chat"}, b"abc"))
    effect = new_session().receive_bytes(payload, now=NOW)
    payload[-1] = 0
    assert effect == Publish("chat", completed(channel="chat"), Request("c1"), data=b"abc")


def test_an_empty_file() -> None:
    assert receive({"type": "binary", "channel": "chat"}, b"") == Publish(
        "chat", completed(channel="chat", size=0), Request("c1"), data=b""
    )


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"channel": 5}, "invalid_channel"),
        ({"channel": "$user:bob"}, "invalid_channel"),
        ({"recipient_id": ""}, "invalid_user_id"),
        ({"echo": 1}, "invalid_echo"),
        ({"event": 5}, "invalid_event"),
        ({"filename": "a/"}, "invalid_filename"),
        ({"content_type": "png"}, "invalid_content_type"),
        ({"data": "x"}, "reserved_field"),
        ({"url": "/x"}, "reserved_field"),
    ],
)
def test_files_that_are_refused(fields: Message, code: str) -> None:
    effect = receive({"type": "binary", "channel": "chat", "id": "7", **fields})
    assert isinstance(effect, Refused)
    assert effect.request == REQUEST
    assert effect.refusal.code == code


def test_the_id_of_a_file_is_one() -> None:
    effect = receive({"type": "binary", "id": []})
    assert effect == Refused(Request("c1"), Refusal("invalid_id", "'id' must be a string of at most 255 characters"))


def test_files_that_are_too_large() -> None:
    assert isinstance(receive({"type": "binary", "channel": "chat"}, b"x" * 10), Publish)
    effect = receive({"type": "binary", "channel": "chat", "id": "7"}, b"x" * 11)
    text = "a file within one message has at most 10 bytes: send it with send_file or POST /binary/upload"
    assert effect == Refused(REQUEST, Refusal("binary_too_large", text, status=413))


def test_heads_that_are_too_large() -> None:
    head: Message = {"type": "binary", "channel": "chat", "id": "7"}
    size = 4 + len(json.dumps(head, separators=(",", ":")))
    assert isinstance(receive(head, b"0123456789", new_session(max_message_size=size)), Publish)
    refusal = Refusal("message_too_large", f"a message has at most {size - 1} bytes", status=413)
    assert receive(head, b"", new_session(max_message_size=size - 1)) == Refused(REQUEST, refusal)


@pytest.mark.parametrize("event", sorted(RESERVED_EVENTS))
def test_events_of_the_server_are_its_own(event: str) -> None:
    text = f"events named '{event}' come from the server only: choose another name"
    refused = Refused(Request("c1"), Refusal("reserved_event", text, 403))
    assert receive({"type": "binary", "channel": "chat", "event": event}) == refused


@pytest.mark.parametrize("kind", ["text", "command", "binary_data", "upload", "connected", "", "anything"])
def test_nothing_else_comes_in_a_binary_frame(kind: str) -> None:
    assert receive({"type": kind, "channel": "chat", "id": "7"}) == Refused(REQUEST, RESERVED)


@pytest.mark.parametrize("kind", ["binary", "chunk"])
def test_a_server_that_takes_no_files(kind: str) -> None:
    head: Message = {"type": kind, "channel": "chat", "upload_id": "u", "offset": 0}
    assert receive(head, session=new_session(files=None)) == Refused(Request("c1"), NO_FILES)


def test_what_is_no_payload() -> None:
    effect = new_session().receive_bytes(b"\x00", now=NOW)
    assert isinstance(effect, Refused)
    assert (effect.request, effect.refusal.code) == (Request("c1"), "malformed_binary")


# A file in parts


def test_a_part_of_a_file() -> None:
    head: Message = {"type": "chunk", "upload_id": "u", "offset": 5, "id": "7"}
    assert receive(head) == Chunk("u", 5, b"abc")
    assert receive({**head, "sha256": "a" * 64}, b"") == Chunk("u", 5, b"", "a" * 64)


def test_a_part_that_is_none_has_no_answer() -> None:
    effect = receive({"type": "chunk", "upload_id": "u", "offset": -1, "id": "7"})
    text = "the 'offset' of a chunk must be the number of bytes before it"
    assert effect == Refused(Request("c1"), Refusal("invalid_upload", text))


def test_the_commands_of_files() -> None:
    def command(name: str, **data: object) -> SessionEffect:
        text = json.dumps({"type": "command", "command": name, "data": data, "id": "7"})
        return new_session().receive_text(text, now=NOW)

    head = completed(channel="chat")
    begin = command("begin_upload", upload_id="u", channel="chat", size=3)
    assert begin == BeginUpload("u", "chat", REQUEST, 3, "application/octet-stream", None, head)
    assert command("cancel_upload", upload_id="u") == CancelUpload("u", REQUEST)
    for name in ("begin_upload", "cancel_upload"):
        refused = command(name)
        assert isinstance(refused, Refused)
        assert refused.refusal.code == "invalid_upload"


# How fast


ONE = RateLimit(messages=1.0, message_burst=1)
CHUNK: Message = {"type": "chunk", "upload_id": "u", "offset": 0}
LAST: Message = {**CHUNK, "sha256": "a" * 64}


def test_files_within_messages_are_messages() -> None:
    session = new_session(ONE)
    assert isinstance(receive({"type": "binary", "channel": "chat"}, session=session), Publish)
    assert receive({"type": "binary", "channel": "chat", "id": "7"}, session=session) == Refused(REQUEST, TOO_FAST)
    assert session.receive_text("hello", now=NOW) == Refused(Request("c1"), TOO_FAST)


def test_they_count_as_their_bytes() -> None:
    payload = encode_payload({"type": "binary", "channel": "chat"}, b"abc")
    session = new_session(RateLimit(bytes=1.0, byte_burst=len(payload)))
    assert isinstance(session.receive_bytes(payload, now=NOW), Publish)
    assert isinstance(session.receive_bytes(payload, now=NOW + len(payload) - 1), Refused)
    assert isinstance(session.receive_bytes(payload, now=NOW + len(payload)), Publish)


def test_what_is_no_payload_counts() -> None:
    session = new_session(ONE)
    session.receive_bytes(b"", now=NOW)
    assert session.receive_bytes(b"", now=NOW) == Refused(Request("c1"), TOO_FAST)


@pytest.mark.parametrize(
    ("head", "size", "sending", "counts"),
    [
        *((CHUNK, 4096, (), False), (CHUNK, 4095, ("u",), True), (CHUNK, 0, ("u",), True)),
        *((LAST, 0, ("u",), False), (LAST, 4095, ("u",), False)),
        # Or anybody could say without limit that this is the last of what never began.
        *((LAST, 0, (), True), (LAST, 4095, ("v",), True), (LAST, 4096, (), False)),
    ],
)
def test_small_parts_are_messages(head: Message, size: int, sending: tuple[str, ...], counts: bool) -> None:
    session = new_session(ONE)
    effects = [session.receive_bytes(encode_payload(head, bytes(size)), sending=sending, now=NOW) for _ in range(2)]
    assert isinstance(effects[0], Chunk)
    assert effects[1] == (Refused(Request("c1"), TOO_FAST) if counts else effects[0])


def test_parts_that_are_none_are_messages() -> None:
    session = new_session(ONE)
    head: Message = {"type": "chunk", "offset": 0, "upload_id": None}
    receive(head, bytes(5000), session)
    assert receive(head, bytes(5000), session) == Refused(Request("c1"), TOO_FAST)


def test_whoever_goes_on_too_fast_is_ended() -> None:
    session = new_session(ONE, max_warnings=0)
    receive({"type": "binary"}, session=session)
    assert receive({"type": "binary"}, session=session) == Expel("too many messages, after several warnings", 1)


# Anything

VALUES = st.none() | st.booleans() | st.integers(-1, 9) | st.text(max_size=2) | st.sampled_from(["chat", "a/b", "7"])
HEADS = st.dictionaries(
    st.sampled_from(
        ["channel", "recipient_id", "id", "echo", "event", "filename", "content_type", "upload_id", "offset", "sha256"]
    ),
    VALUES,
)


@given(st.sampled_from(["binary", "chunk", "text"]), HEADS, st.binary(max_size=12))
def test_any_payload_asks_for_one_thing(kind: str, fields: Message, data: bytes) -> None:
    session = new_session(handled=("binary",))
    effect = session.receive_bytes(encode_payload({**fields, "type": kind}, data), now=NOW)
    match effect:
        case Publish():
            assert kind == "binary"
            assert effect.data == data
            assert effect.message["size"] == len(data)
        case Handle():
            assert kind == "binary"
            assert effect.message["data"] == data
        case Chunk():
            assert kind == "chunk"
            assert effect.data == data
        case _:
            assert isinstance(effect, Refused)


@given(st.binary(max_size=100))
def test_any_bytes_ask_for_one_thing(payload: bytes) -> None:
    assert isinstance(new_session().receive_bytes(payload, now=NOW), Publish | Chunk | Refused)
