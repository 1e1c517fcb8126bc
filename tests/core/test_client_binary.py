"""The client's machine: messages that hold a file, in binary frames."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtcore.binary import MAX_HEAD, BinaryMessage, encode_payload, parse_payload
from rtcore.client import (
    Answered,
    Client,
    Connected,
    Disconnect,
    Drop,
    Ended,
    Lost,
    MessageReceived,
    ProtocolFault,
    Publish,
    Refused,
    Send,
    SendBytes,
    SendText,
)
from rtcore.errors import CloseCode, LocalProtocolError, QueueFull

from .client_talk import (
    LATE,
    LOST,
    UNSENT,
    ask,
    connected,
    connecting,
    error,
    hear,
    member,
    message,
    new,
    reconnect,
    rejoin,
    response,
    standing,
    text,
    welcome,
)

DATA = bytes(range(256))
KNOWN = welcome("c2")


def publish(data: bytes = DATA, **fields: object) -> Publish:
    return Publish({"type": "binary", "channel": "a", **fields}, data)


def sent(token: str, data: bytes = DATA, **fields: object) -> SendBytes:
    return SendBytes(encode_payload({"type": "binary", "channel": "a", **fields, "id": token}, data))


def file(offset: int, data: bytes = DATA, **fields: object) -> bytes:
    """Return the payload in which a server publishes a file."""
    return encode_payload(message(offset, **{"type": "binary", "content_type": "image/png", **fields}), data)


def received(offset: int, data: bytes = DATA, **fields: object) -> MessageReceived:
    return MessageReceived(
        message(offset, **{"type": "binary", "content_type": "image/png", **fields}) | {"data": data}
    )


# What the server says


def test_file_is_delivered_with_its_bytes() -> None:
    client = connected()
    head = {"type": "binary", "content_type": "image/png", "filename": "a.png", "size": 256}
    effects = client.receive_bytes(encode_payload(head, DATA), now=1.0)
    assert effects == [MessageReceived({**head, "data": DATA})]
    assert isinstance(effects[0], MessageReceived)
    assert type(effects[0].message["data"]) is bytes
    assert BinaryMessage.from_message(effects[0].message) == BinaryMessage(DATA, "image/png", "a.png")


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_payload_may_be_bytes_of_any_kind_and_is_copied(kind: type) -> None:
    payload = bytearray(encode_payload({"type": "binary"}, b"abc"))
    effects = connected().receive_bytes(payload if kind is bytearray else kind(payload), now=0.0)
    payload[-3:] = b"xyz"
    assert effects == [MessageReceived({"type": "binary", "data": b"abc"})]


def test_file_may_be_empty() -> None:
    effects = connected().receive_bytes(encode_payload({"type": "binary"}, b""), now=0.0)
    assert effects == [MessageReceived({"type": "binary", "data": b""})]


def test_files_and_texts_are_one_stream() -> None:
    client = member(5)
    assert client.receive_bytes(file(6), now=0.0) == [received(6)]
    assert client.position("a") == ("e", 6)
    # What was heard before is not told again, in whichever form it comes.
    assert client.receive_bytes(file(6), now=0.0) == []
    assert hear(client, message(6)) == []
    assert hear(client, message(7)) == [MessageReceived(message(7))]
    # Where something is missing, it is asked for first.
    assert client.receive_bytes(file(9), now=0.0) == [rejoin("0-2", 7)]
    client.receive_text(response("0-2", standing(9, recovered=True, replayed=2)), now=0.0)
    assert hear(client, message(8)) == [MessageReceived(message(8))]
    assert client.receive_bytes(file(9), now=0.0) == [received(9)]


def test_file_moves_what_the_next_connection_resumes_after() -> None:
    client = connected(hello=welcome(last_event_id="i-3"))
    meta = {"id": "i-7", "offset": 1, "epoch": "own"}
    client.receive_bytes(encode_payload({"type": "binary", "meta": meta}, DATA), now=0.0)
    client.lost(1006, now=0.0)
    assert reconnect(client, 1.0, welcome("c2", last_event_id="i-7"), token="i-7") == []


def test_head_may_be_larger_than_a_client_may_send() -> None:
    head = {"type": "binary", "note": "n" * MAX_HEAD, "meta": {"id": "i-1"}}
    effects = connected().receive_bytes(encode_payload(head, DATA), now=0.0)
    assert effects == [MessageReceived({**head, "data": DATA})]


def test_file_keeps_the_watchdog_quiet() -> None:
    client = connected(hello=welcome(heartbeat_interval=10.0))
    client.receive_bytes(encode_payload({"type": "binary"}, b""), now=20.0)
    assert client.next_timeout() == 45.0


@pytest.mark.parametrize(
    ("payload", "fault"),
    [
        (b"", "it ends before the length of its head"),
        (b"\0\0\0\x7f{}", "it ends before its head does"),
        (encode_payload(b"{", b""), "of its head"),
        (encode_payload(b"[]", b""), "its head must be a JSON object with a string 'type'"),
        (encode_payload({"type": 1}, b""), "its head must be a JSON object with a string 'type'"),
        (encode_payload({"type": "chunk"}, b""), "bad message: a binary frame of the type 'chunk'"),
        (encode_payload({"type": "response", "id": "0-1"}, b""), "bad message: a binary frame of the type 'response'"),
    ],
)
def test_server_that_sends_other_binary_frames_does_not_speak_the_protocol(payload: bytes, fault: str) -> None:
    client = connected()
    token = ask(client, publish())
    effects = client.receive_bytes(payload, now=0.0)
    assert isinstance(effects[0], ProtocolFault)
    assert fault in effects[0].reason
    assert effects == [
        ProtocolFault(effects[0].reason),
        Drop(CloseCode.BAD_MESSAGE, "bad message"),
        Refused(token, "connection_lost", LOST),
        Ended(CloseCode.BAD_MESSAGE, effects[0].reason, 0),
    ]


def test_nothing_is_received_where_no_link_is_open() -> None:
    for client in (new(), connecting()):
        if client.next_timeout() is not None:
            client.lost(1006, now=0.0)
        with pytest.raises(LocalProtocolError, match="not open"):
            client.receive_bytes(encode_payload({"type": "binary"}, b""), now=0.0)


# What the client says


def test_file_is_published_with_an_id_and_acknowledged() -> None:
    client = connected()
    token, effects = client.request(publish(filename="a.bin"), now=0.0)
    assert effects == [sent(token, filename="a.bin")]
    assert isinstance(effects[0], SendBytes)
    assert parse_payload(effects[0].payload) == (
        {"type": "binary", "channel": "a", "filename": "a.bin", "id": token},
        memoryview(DATA),
    )
    receipt = {"channel": "a", "offset": 1, "epoch": "e"}
    assert client.receive_text(response(token, receipt), now=0.0) == [Answered(token, receipt)]
    assert client.unacknowledged == 0


def test_file_of_no_bytes_is_a_file() -> None:
    assert connected().request(publish(b""), now=0.0)[1] == [sent("0-1", b"")]


def test_file_is_sent_again_where_the_server_knows_the_session() -> None:
    client = connected()
    first, second = ask(client, publish()), ask(client, publish(b"2", id="own"))
    assert client.receive_text(response(first, None), now=0.0) == [Answered(first, None)]
    for turn in (1.0, 2.0):
        assert isinstance(client.lost(1006, now=turn)[-1], Lost)
        assert reconnect(client, turn, KNOWN) == [sent("own", b"2")]
    # What is refused is this sending; the one before may have been published.
    late = client.receive_text(error(second, "rate_limited"), now=2.0)
    assert late == [Refused("own", "connection_lost", LOST)]


def test_file_is_not_sent_again_where_the_server_does_not_know_the_session() -> None:
    client = connected()
    token = ask(client, publish())
    client.lost(1006, now=0.0)
    assert reconnect(client, 1.0, welcome("c2", session_epoch="t")) == [Refused(token, "connection_lost", LOST)]


def test_file_for_a_handler_is_not_sent_again() -> None:
    client = connected()
    token = ask(client, Publish({"type": "binary"}, DATA))
    assert client.lost(1006, now=0.0) == [Refused(token, "connection_lost", LOST), Lost(1006, "", 0.25)]


def test_file_that_is_not_acknowledged_in_time_is_given_up() -> None:
    client = connected(command_timeout=3.0)
    token = ask(client, publish())
    assert client.handle_timeout(now=3.0) == [Refused(token, "timeout", LATE)]


def test_files_queue_among_texts_while_offline() -> None:
    client = connecting()
    first = ask(client, publish(b"1"))
    client.send(Send({"n": 2}), now=0.0)
    third = ask(client, Publish({"type": "binary"}, b"3"))
    assert client.receive_text(welcome(), now=0.0) == [
        Connected("c1", "ann", reconnected=False),
        sent(first, b"1"),
        SendText('{"n":2}'),
        SendBytes(encode_payload({"type": "binary", "id": third}, b"3")),
    ]


def test_queue_and_unacknowledged_files_are_bounded_and_the_end_tells_of_each() -> None:
    client = connecting(queue_size=1, max_unacknowledged=2)
    first = ask(client, publish())
    with pytest.raises(QueueFull, match="1 messages"):
        client.request(publish(), now=0.0)
    client.receive_text(welcome(), now=0.0)
    second = ask(client, publish())
    with pytest.raises(QueueFull, match="2 publications"):
        client.request(publish(), now=0.0)
    client.receive_text(response(second), now=0.0)
    client.lost(1006, now=0.0)
    third = ask(client, publish())
    assert client.send(Disconnect(), now=0.0) == [
        Refused(first, "connection_lost", LOST),
        Refused(third, "not_sent", UNSENT),
        Ended(1000, "", 0),
    ]


def test_file_of_ones_own_that_is_not_wanted_is_not_heard() -> None:
    client = member(5)
    token = ask(client, publish(echo=False))
    assert client.receive_bytes(file(6, id=token), now=0.0) == []
    stray = encode_payload({"type": "binary", "id": token, "meta": {"id": "i-9", "offset": 9, "epoch": "x"}}, DATA)
    assert client.receive_bytes(stray, now=0.0) == []


@pytest.mark.parametrize(
    ("command", "fault"),
    [
        (Publish({"type": "m", "channel": "a"}, DATA), "must be of the type 'binary', not 'm'"),
        (Publish({"channel": "a"}, DATA), "must be of the type 'binary', not None"),
        (publish(note="n" * MAX_HEAD), f"may have {MAX_HEAD} bytes"),
        (publish(note=object()), "JSON cannot express"),
        (publish(id=7), "must be a string"),
    ],
)
def test_file_that_cannot_be_published_changes_nothing(command: Publish, fault: str) -> None:
    client = connected()
    with pytest.raises(LocalProtocolError, match=fault):
        client.request(command, now=0.0)
    assert client.unacknowledged == 0
    assert client.request(publish(), now=0.0)[1] == [sent("0-1")]


def test_head_of_the_most_bytes_is_sent() -> None:
    frame = len(text({"type": "binary", "channel": "a", "note": "", "id": "0-1"}))
    client = connected()
    ask(client, publish(note="n" * (MAX_HEAD - frame)))
    with pytest.raises(LocalProtocolError, match=f"not {MAX_HEAD + 1}"):
        client.request(publish(note="n" * (MAX_HEAD - frame + 1)), now=0.0)


def test_what_is_logged_does_not_hold_the_bytes() -> None:
    assert repr(publish(b"secret")) == "Publish(message={'type': 'binary', 'channel': 'a'}, data=<6 bytes>)"
    assert repr(Publish({"type": "m"})) == "Publish(message={'type': 'm'}, data=None)"
    assert repr(SendBytes(b"secret")) == "SendBytes(payload=<6 bytes>)"


# What always holds

HEADS = st.dictionaries(st.text(max_size=5), st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=9))


@given(HEADS, st.binary(max_size=2000))
def test_what_one_client_sends_another_receives(fields: dict[str, object], data: bytes) -> None:
    sender, receiver = connected(), connected()
    message = {key: value for key, value in fields.items() if key not in ("id", "meta")} | {"type": "binary"}
    token, (effect,) = sender.request(Publish(message, data), now=0.0)
    assert isinstance(effect, SendBytes)
    assert receiver.receive_bytes(effect.payload, now=0.0) == [
        MessageReceived({**message, "id": token, "data": data}),
    ]


@given(st.binary(max_size=200) | st.builds(encode_payload, st.binary(max_size=50), st.binary(max_size=50)))
def test_arbitrary_bytes_are_a_message_or_a_fault(payload: bytes) -> None:
    client: Client = connected()
    first, *rest = client.receive_bytes(payload, now=0.0)
    assert isinstance(first, MessageReceived | ProtocolFault)
    assert bool(rest) == isinstance(first, ProtocolFault)


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 12)), max_size=12))
def test_form_of_a_message_changes_nothing_but_the_data(heard: list[tuple[bool, int]]) -> None:
    mixed, plain = member(5), member(5)
    for binary, offset in heard:
        head = message(offset, type="binary")
        told = mixed.receive_bytes(encode_payload(head, DATA), now=0.0) if binary else hear(mixed, head)
        expected = hear(plain, head)
        if binary:
            expected = [
                MessageReceived({**each.message, "data": DATA}) if isinstance(each, MessageReceived) else each
                for each in expected
            ]
        assert told == expected
        assert mixed.position("a") == plain.position("a")
    assert json.dumps(mixed.position("a")) == json.dumps(plain.position("a"))
