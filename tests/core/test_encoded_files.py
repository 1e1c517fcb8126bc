"""Messages that hold a file, on each wire."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtcore.binary import Bytes, encode_payload
from rtcore.encoded import Encoded, Source
from rtcore.event_stream import EventStreamParser
from rtcore.frames import encode_binary, encode_text
from rtcore.messages import Message, encode, publication

HEAD = b'{"type":"binary","size":3}'
WHOLE = b'{"type":"binary","size":3,"binary_data":"YWJj"}'


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_a_file_on_each_wire(kind: type[Bytes]) -> None:
    file = Encoded(HEAD, "binary_data", id="e-1", data=kind(b"abc"))
    payload = len(HEAD).to_bytes(4, "big") + HEAD + b"abc"
    assert file.payload == payload == encode_payload(HEAD, b"abc")
    assert file.frame == encode_binary(payload)
    assert file.json == WHOLE
    assert file.json_frame == encode_text(WHOLE)
    assert file.text == WHOLE.decode()
    assert file.event_stream == b"event: binary_data\nid: e-1\ndata: " + WHOLE + b"\n\n"


def test_each_form_is_made_once() -> None:
    file = Encoded(HEAD, data=b"abc")
    assert file.frame is file.frame
    assert file.json_frame is file.json_frame
    assert file.payload is file.payload
    assert file.event_stream is file.event_stream
    assert file.text is file.text


def test_a_message_without_a_file_is_text_on_each_wire() -> None:
    message = Encoded(b'{"type":"text"}')
    assert message.json_frame is message.frame
    assert message.frame == encode_text(b'{"type":"text"}')
    assert message.json == message.head
    with pytest.raises(AssertionError):
        _ = message.payload


def test_an_empty_file_is_a_file() -> None:
    file = Encoded(HEAD, data=b"")
    assert file.json == b'{"type":"binary","size":3,"binary_data":""}'
    assert file.frame == encode_binary(encode_payload(HEAD, b""))


def test_a_file_counts_as_its_bytes() -> None:
    assert Encoded(HEAD).size == len(HEAD)
    assert Encoded(HEAD, data=b"abc").size == len(HEAD) + 3


def test_files_are_compared_by_content() -> None:
    one, same = Encoded(HEAD, data=b"abc"), Encoded(HEAD, data=memoryview(b"abc"))
    assert one == same
    assert hash(one) == hash(same)
    assert one != Encoded(HEAD, data=b"abd")
    assert one != Encoded(HEAD)
    assert one != Encoded(HEAD, data=b"abc", id="e-1")
    assert one != "abc"
    assert repr(one) == f"Encoded({HEAD!r}, event=None, id=None, data=<3 bytes>)"


def test_another_id_is_of_the_same_file() -> None:
    source = Source("chat", "e.1", 1)
    file = Encoded(HEAD, "binary_data", id="e-1", source=source, data=b"abc")
    moved = file.with_id("e-2")
    assert moved == Encoded(HEAD, "binary_data", id="e-2", data=b"abc")
    assert moved.source is source
    assert moved.data is file.data


def test_a_published_file() -> None:
    source = Source("chat", "e.1", 5)
    message: Message = {"type": "binary", "channel": "chat"}
    said = publication(
        message, id="e-7", source=source, connection_id="c1", user_id="ann", timestamp=1_700_000_000_000, data=b"abc"
    )
    meta = {
        "id": "e-7",
        "offset": 5,
        "epoch": "e.1",
        "sender": {"connection_id": "c1", "user_id": "ann"},
        "timestamp": 1_700_000_000_000,
    }
    assert json.loads(said.head) == {**message, "meta": meta}
    assert json.loads(said.json) == {**message, "meta": meta, "binary_data": "YWJj"}
    assert (said.event, said.id, said.source, said.data) == ("binary_data", "e-7", source, b"abc")


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.integers(), max_size=3), st.binary())
def test_all_json_forms_say_the_same(fields: dict[str, object], data: bytes) -> None:
    head = {**fields, "type": "binary"}
    head.pop("event", None)
    file = encode(head, data=data)
    whole = {**head, "binary_data": base64.b64encode(data).decode()}
    assert json.loads(file.json) == json.loads(file.text) == whole
    [event] = EventStreamParser().receive_data(file.event_stream)
    assert json.loads(event.data) == whole  # type: ignore[union-attr]
