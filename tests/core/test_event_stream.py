"""The event stream format, against the HTML standard's words and the cases of web-platform-tests."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtcore.errors import LocalProtocolError
from rtcore.event_stream import (
    Event,
    EventStreamParser,
    EventTooLarge,
    Retry,
    encode_comment,
    encode_event,
    encode_retry,
)

Items = list[Event | Retry | EventTooLarge]

LONG = "x" * 2048

# name: (stream, what a client sees). Those with a dash come from web-platform-tests, eventsource/format-*, with
# the empty line written out that its test server adds.
CASES: dict[str, tuple[str, Items]] = {
    "format-bom": (
        "\ufeffdata:1\n\n\ufeffdata:2\n\ndata:3\n\n",
        [Event("message", "1", ""), Event("message", "3", "")],
    ),
    "format-bom-2": (
        "\ufeff\ufeffdata:1\n\ndata:2\n\ndata:3\n\n",
        [Event("message", "2", ""), Event("message", "3", "")],
    ),
    "format-comments": (
        f"data:1\r:\0\n:\r\ndata:2\n:{LONG}\rdata:3\n:data:fail\r:{LONG}\ndata:4\n\n",
        [Event("message", "1\n2\n3\n4", "")],
    ),
    "format-data-before-final-empty-line": (
        "retry:1000\ndata:test1\n\nid:test\ndata:test2",
        [Retry(1000), Event("message", "test1", "")],
    ),
    "format-field-data": (
        "data:\n\ndata\ndata\n\ndata:test\n\n",
        [Event("message", "", ""), Event("message", "\n", ""), Event("message", "test", "")],
    ),
    "format-field-event": (
        "event:test\ndata:x\n\ndata:x\n\n",
        [Event("test", "x", ""), Event("message", "x", "")],
    ),
    "format-field-event-empty": ("event: \ndata:data\n\n", [Event("message", "data", "")]),
    "format-field-id": ("id: …\ndata: hello\n\n", [Event("message", "hello", "…")]),
    "format-field-id-3 persists": (
        "id: 1\ndata: a\n\ndata: b\n\n",
        [Event("message", "a", "1"), Event("message", "b", "1")],
    ),
    "format-field-id-3 changes and persists": (
        "id: 1\ndata: a\n\nid: 2\ndata: b\n\ndata: c\n\n",
        [Event("message", "a", "1"), Event("message", "b", "2"), Event("message", "c", "2")],
    ),
    "format-field-id-3 resets": (
        "id: 1\ndata: a\n\nid\ndata: b\n\ndata: c\n\n",
        [Event("message", "a", "1"), Event("message", "b", ""), Event("message", "c", "")],
    ),
    "format-field-id-null": (
        "id: 1\0\ndata: a\n\nid: \0\ndata: b\n\nid: 1\0" + "2\ndata: c\n\n",
        [Event("message", "a", ""), Event("message", "b", ""), Event("message", "c", "")],
    ),
    "format-field-parsing": (
        "data:\0\ndata:  2\rData:1\ndata\0:2\ndata:1\r\0data:4\nda-ta:3\rdata_5\ndata:3\rdata:\r\n data:32\ndata:4\n\n",
        [Event("message", "\0\n 2\n1\n3\n\n4", "")],
    ),
    "format-field-retry": ("retry:03000\ndata:x\n\n", [Retry(3000), Event("message", "x", "")]),
    "format-field-retry-bogus": (
        "retry:3000\nretry:1000x\ndata:x\n\n",
        [Retry(3000), Event("message", "x", "")],
    ),
    "format-field-retry-empty": ("retry\ndata:test\n\n", [Event("message", "test", "")]),
    "format-field-unknown": (
        "data:test\n data\ndata\nfoobar:xxx\njustsometext\n:thisisacommentyay\ndata:test\n\n",
        [Event("message", "test\n\ntest", "")],
    ),
    "format-leading-space": ("data:\ttest\rdata: \ndata:test\n\n", [Event("message", "\ttest\n\ntest", "")]),
    "format-newlines": ("data:test\r\ndata\ndata:test\r\n\r", [Event("message", "test\n\ntest", "")]),
    "format-null-character": ("data:\0\n\n", [Event("message", "\0", "")]),
    "format-utf-8": ("data:ok…\n\n", [Event("message", "ok…", "")]),
    "the standard's first example": (
        "data: YHOO\ndata: +2\ndata: 10\n\n",
        [Event("message", "YHOO\n+2\n10", "")],
    ),
    "the standard's second example": (
        ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n",
        [Event("message", "first event", "1"), Event("message", "second event", "")],
    ),
    "the standard's third example": (
        "data\n\ndata\ndata\n\ndata:",
        [Event("message", "", ""), Event("message", "\n", "")],
    ),
    "the standard's fourth example": (
        "data:test\n\ndata: test\n\n",
        [Event("message", "test", ""), Event("message", "test", "")],
    ),
    "an event without data is not dispatched, nor does its type outlive it": (
        "event: a\n\ndata: x\n\n",
        [Event("message", "x", "")],
    ),
    "an id without data holds for what follows": ("id: 7\n\ndata: x\n\n", [Event("message", "x", "7")]),
    "the last type and the last id count": (
        "event: a\nid: 1\nevent: b\nid: 2\ndata: x\n\n",
        [Event("b", "x", "2")],
    ),
    "an id with NUL leaves the one before it": ("id: 1\nid: \0\ndata: x\n\n", [Event("message", "x", "1")]),
    "U+2028, U+2029, U+0085, VT and FF end no line": (
        "data: a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\n\n",
        [Event("message", "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg", "")],
    ),
    "a byte order mark within is text": ("data: \ufeffx\n\n", [Event("message", "\ufeffx", "")]),
    "any colon but the first is text": ("data: a: b:\n\n", [Event("message", "a: b:", "")]),
    "digits of other scripts are no retry": ("retry: ٣٠٠٠\nretry: ²\n", []),
    "signs, spaces and points are no retry": (
        "retry: -1\nretry: +1\nretry:  1\nretry: 1 \nretry: 1.5\nretry: 1_0\n",
        [],
    ),
    "a retry needs no empty line": ("retry: 5\n", [Retry(5)]),
    "a retry of zero": ("retry: 0\nretry: 000\n", [Retry(0), Retry(0)]),
    "a retry beyond measure": (
        f"retry: {'0' * 99}{'9' * 15}\nretry: 1{'0' * 15}\nretry: {'9' * 5000}\n",
        [Retry(10**15 - 1)] * 3,
    ),
}


def parse(stream: bytes, cuts: list[int] | None = None, *, limit: int = 1 << 20) -> tuple[Items, str]:
    """Feed `stream`, cut at `cuts`; return all items and the last event id."""
    parser = EventStreamParser(max_event_size=limit)
    items: Items = []
    start = 0
    for end in [*sorted(cuts or []), len(stream)]:
        items += parser.receive_data(stream[start:end])
        start = end
        if items and isinstance(items[-1], EventTooLarge):
            break
    parser.receive_eof()
    return items, parser.last_event_id


@pytest.mark.parametrize("name", CASES)
def test_case(name: str) -> None:
    stream, expected = CASES[name]
    wire = stream.encode()
    assert parse(wire)[0] == expected
    assert parse(wire, list(range(len(wire))))[0] == expected


@pytest.mark.parametrize(
    ("wire", "data"),
    [
        (b"\xff", "\ufffd"),
        (b"a\xe2\x80", "a\ufffd"),  # cut off by the line end
        (b"\xe2\x80x", "\ufffdx"),
        (b"\xed\xa0\x80", "\ufffd\ufffd\ufffd"),  # a surrogate
        (b"\xc0\x80", "\ufffd\ufffd"),  # an overlong NUL
        (b"\xf4\x90\x80\x80", "\ufffd\ufffd\ufffd\ufffd"),  # above U+10FFFF
    ],
)
def test_bytes_that_are_not_utf_8_are_replaced(wire: bytes, data: str) -> None:
    stream = b"data: " + wire + b"\n\n"
    assert parse(stream)[0] == [Event("message", data, "")]
    assert parse(stream, list(range(len(stream))))[0] == [Event("message", data, "")]


def test_event_and_id_are_decoded_likewise() -> None:
    assert parse(b"event: \xff\nid: \xfe\ndata: x\n\n")[0] == [Event("\ufffd", "x", "\ufffd")]


def test_a_field_name_that_is_not_utf_8_is_no_field() -> None:
    assert parse(b"data\xff: x\n\n")[0] == []


@pytest.mark.parametrize("start", [b"\xef", b"\xef\xbb", b"\xef\xbb\xbe", b"\xef\xbb\n", b"\xbb\xbf"])
def test_what_only_begins_like_a_byte_order_mark_is_kept(start: bytes) -> None:
    stream = start + b"data: a\n\ndata: b\n\n"
    expected = (
        [Event("message", "b", "")]
        if start[-1:] != b"\n"
        else [
            Event("message", "a", ""),
            Event("message", "b", ""),
        ]
    )
    assert parse(stream)[0] == expected
    assert parse(stream, list(range(len(stream))))[0] == expected


def test_a_carriage_return_dispatches_at_once() -> None:
    parser = EventStreamParser()
    assert parser.receive_data(b"data: a\r\r") == [Event("message", "a", "")]
    assert parser.receive_data(b"data: b\r\n\r") == [Event("message", "b", "")]
    assert parser.receive_data(b"") == []
    assert parser.receive_data(b"\ndata: c\r") == []
    assert parser.receive_data(b"\n") == []
    assert parser.receive_data(b"\r") == [Event("message", "c", "")]
    assert parser.receive_data(b"\r") == []


def test_the_line_feed_of_a_crlf_is_dropped_once() -> None:
    parser = EventStreamParser()
    assert parser.receive_data(b"data: a\r") == []
    assert parser.receive_data(b"") == []
    assert parser.receive_data(b"\n") == []
    assert parser.receive_data(b"\n") == [Event("message", "a", "")]


def test_the_last_event_id_moves_with_complete_events_only() -> None:
    parser = EventStreamParser()
    parser.receive_data(b"id: 1\ndata: a\n")
    assert parser.last_event_id == ""
    parser.receive_data(b"\n")
    assert parser.last_event_id == "1"
    parser.receive_data(b"id: 2\n\nid: 3\ndata: b\n")
    parser.receive_eof()
    assert parser.last_event_id == "2"


def test_a_second_response_goes_on_from_the_id_it_was_asked_for_with() -> None:
    parser = EventStreamParser(last_event_id="7")
    assert parser.last_event_id == "7"
    assert parser.receive_data(b"data: a\n\nid\ndata: b\n\n") == [Event("message", "a", "7"), Event("message", "b", "")]


def test_data_after_the_end_is_misuse() -> None:
    parser = EventStreamParser()
    parser.receive_data(b"id: 1\ndata: a\n\n")
    parser.receive_eof()
    parser.receive_eof()
    with pytest.raises(LocalProtocolError, match="has ended"):
        parser.receive_data(b"data: b\n\n")
    assert parser.last_event_id == "1"


# The limit


def test_an_event_of_the_limit_passes_and_one_byte_more_is_a_fault() -> None:
    assert parse(b"data: 1234\n\n", limit=10) == ([Event("message", "1234", "")], "")
    assert parse(b"data: 12345\n\n", limit=10) == ([EventTooLarge(10)], "")


def test_the_fault_comes_after_what_was_complete_and_ends_the_stream() -> None:
    parser = EventStreamParser(max_event_size=30)
    assert parser.receive_data(b"id: 1\ndata: a\n\nid: 2\ndata: " + b"x" * 30 + b"\n\ndata: b\n\n") == [
        Event("message", "a", "1"),
        EventTooLarge(30),
    ]
    assert parser.last_event_id == "1"
    with pytest.raises(LocalProtocolError):
        parser.receive_data(b"")


@pytest.mark.parametrize("line", [b"data: 4567\n", b"data:\n", b"data\n"])
def test_many_data_lines_are_one_event(line: bytes) -> None:
    fitting = 100 // len(line)
    assert parse(line * fitting + b"\n", limit=100)[0][0].__class__ is Event
    wire = line * (fitting + 1)
    assert parse(wire, limit=99) == ([EventTooLarge(99)], "")
    assert parse(wire, list(range(len(wire))), limit=99) == ([EventTooLarge(99)], "")


def test_a_line_without_end_is_a_fault_as_soon_as_it_is_too_long() -> None:
    parser = EventStreamParser(max_event_size=10)
    for _ in range(10):
        assert parser.receive_data(b":") == []
    assert parser.receive_data(b":") == [EventTooLarge(10)]
    parser = EventStreamParser(max_event_size=10)
    assert parser.receive_data(b"data:\ndata") == []
    assert parser.receive_data(b":") == [EventTooLarge(10)]


def test_comments_and_repeated_fields_add_up_to_nothing() -> None:
    parser = EventStreamParser(max_event_size=12)
    for _ in range(100):
        assert parser.receive_data(b": heart\nid: 1\nevent: a\nother\n") == []
    assert parser.receive_data(b"data: x\n\n") == [Event("a", "x", "1")]


def test_the_size_starts_anew_with_each_event() -> None:
    assert parse(b"data: 1234\n\n" * 100, limit=11)[0] == [Event("message", "1234", "")] * 100


def test_time_is_linear_in_pieces_of_one_byte() -> None:
    # Quadratic work would be 2**40 steps here: minutes, and the suite's timeout.
    parser = EventStreamParser()
    for _ in range(1 << 20):
        parser.receive_data(b"d")
    assert parser.receive_data(b"\ndata: a\n\n") == [Event("message", "a", "")]


def test_time_is_linear_in_lines_of_one_event() -> None:
    parser = EventStreamParser()
    for _ in range(1 << 18):
        parser.receive_data(b"data:\n")
    assert parser.receive_data(b"\n") == [Event("message", "\n" * ((1 << 18) - 1), "")]


# The standard's algorithm, word by word and character by character, as an oracle.


def reference(stream: bytes) -> tuple[Items, str]:
    """Parse as section 9.2.6 says, with all of the stream at hand."""
    text = stream.decode("utf-8", "replace")
    if text.startswith("\ufeff"):
        text = text[1:]
    lines: list[str] = []
    line = ""
    position = 0
    while position < len(text):
        if text[position : position + 2] == "\r\n":
            lines.append(line)
            line = ""
            position += 2
        elif text[position] in "\r\n":
            lines.append(line)
            line = ""
            position += 1
        else:
            line += text[position]
            position += 1

    items: Items = []
    data_buffer = event_type_buffer = last_event_id_buffer = last_event_id_string = ""
    for line in lines:
        if line == "":
            last_event_id_string = last_event_id_buffer
            if data_buffer == "":
                event_type_buffer = ""
                continue
            if data_buffer[-1] == "\n":
                data_buffer = data_buffer[:-1]
            event_type = "message"
            if event_type_buffer != "":
                event_type = event_type_buffer
            items.append(Event(event_type, data_buffer, last_event_id_string))
            data_buffer = event_type_buffer = ""
        elif line[0] == ":":
            continue
        else:
            if ":" in line:
                colon = line.index(":")
                field, value = line[:colon], line[colon + 1 :]
                if value != "" and value[0] == " ":
                    value = value[1:]
            else:
                field, value = line, ""
            if field == "event":
                event_type_buffer = value
            elif field == "data":
                data_buffer += value
                data_buffer += "\n"
            elif field == "id":
                if "\0" not in value:
                    last_event_id_buffer = value
            elif field == "retry" and value != "" and all(digit in "0123456789" for digit in value):
                items.append(Retry(min(int(value), 10**15 - 1)))  # the one thing the standard does not say
    return items, last_event_id_string


LINE_ENDS = [b"\n", b"\r", b"\r\n"]
TOKENS = [b"data", b"event", b"id", b"retry", b"data: ", b":", b" ", b"12", b"x", b"\0", "é".encode()]
ODDITIES = [
    b"\xef\xbb\xbf",
    b"\xef\xbb",
    b"\xe2\x80\xa8",
    b"\xc2\x85",
    b"\xff",
    b"\xe2\x80",
    b"\x80",
    b"\x0b",
    b"\xd9\xa3",
]
streams = st.one_of(
    st.lists(st.sampled_from(LINE_ENDS * 3 + TOKENS * 2 + ODDITIES), max_size=60).map(b"".join),
    st.binary(max_size=60),
    st.text(max_size=60).map(str.encode),
)


@st.composite
def cut_streams(draw: st.DrawFn) -> tuple[bytes, list[int]]:
    stream = draw(streams)
    return stream, draw(st.lists(st.integers(0, len(stream)), max_size=12))


@given(cut_streams())
def test_any_stream_cut_anywhere_reads_as_the_standard_says(cut: tuple[bytes, list[int]]) -> None:
    stream, cuts = cut
    expected = reference(stream)
    assert parse(stream, cuts) == expected
    assert parse(stream, list(range(len(stream)))) == expected


@given(cut_streams(), st.integers(1, 30))
def test_the_limit_strikes_at_the_same_place_wherever_the_stream_is_cut(
    cut: tuple[bytes, list[int]], limit: int
) -> None:
    stream, cuts = cut
    whole = parse(stream, limit=limit)
    assert parse(stream, cuts, limit=limit) == whole
    items, _ = reference(stream)
    if whole[0] and isinstance(whole[0][-1], EventTooLarge):
        assert whole[0][:-1] == items[: len(whole[0]) - 1]
    else:
        assert whole[0] == items


# The encoder


@pytest.mark.parametrize(
    ("wire", "expected"),
    [
        (encode_event(b'{"a":1}'), b'data: {"a":1}\n\n'),
        (encode_event("é"), b"data: \xc3\xa9\n\n"),
        (encode_event(""), b"data: \n\n"),
        (encode_event("a", event="e", id="1"), b"event: e\nid: 1\ndata: a\n\n"),
        (encode_event("a", event="e"), b"event: e\ndata: a\n\n"),
        (encode_event("a", id=""), b"id: \ndata: a\n\n"),
        (encode_event(b"a\nb\rc\r\nd\n\re"), b"data: a\ndata: b\ndata: c\ndata: d\ndata: \ndata: e\n\n"),
        (encode_event("a\n"), b"data: a\ndata: \n\n"),
        (encode_event("\r"), b"data: \ndata: \n\n"),
        # WHATWG HTML, section 9.2.6: without data nothing is dispatched, and the id is set all the same.
        (encode_event(None, id="e-5"), b"id: e-5\n\n"),
        (encode_event(None), b"\n"),
        (encode_event(None, event="e", id=""), b"event: e\nid: \n\n"),
        (encode_event("a\u2028b\x85"), "data: a\u2028b\x85\n\n".encode()),
        (encode_retry(3000), b"retry: 3000\n\n"),
        (encode_retry(0), b"retry: 0\n\n"),
        (encode_comment(), b": \n\n"),
        (encode_comment("a\nb\rdata: c"), b": a\n: b\n: data: c\n\n"),
    ],
)
def test_encoded(wire: bytes, expected: bytes) -> None:
    assert wire == expected


@pytest.mark.parametrize("bad", ["a\nb", "a\r", "\0", "\ud800"])
def test_an_event_or_id_that_cannot_be_carried_is_misuse(bad: str) -> None:
    with pytest.raises(LocalProtocolError):
        encode_event("a", event=bad)
    with pytest.raises(LocalProtocolError):
        encode_event("a", id=bad)


def test_what_utf_8_cannot_say_is_misuse() -> None:
    with pytest.raises(LocalProtocolError, match="UTF-8"):
        encode_event("\ud800")
    with pytest.raises(LocalProtocolError, match="UTF-8"):
        encode_comment("\ud800")


def test_a_negative_retry_is_misuse() -> None:
    with pytest.raises(LocalProtocolError, match="negative"):
        encode_retry(-1)


names = st.text().filter(lambda text: not set(text) & set("\r\n\0"))


@given(
    st.lists(
        st.tuples(
            st.none() | st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("\r\n :")),
            st.none() | names,
            st.none() | names,
        )
    ),
    st.text(),
    st.integers(0, 10**15 - 1),
)
def test_what_is_encoded_is_what_is_parsed(
    events: list[tuple[str | None, str | None, str | None]], comment: str, retry: int
) -> None:
    wire = [encode_retry(retry)]
    expected: Items = [Retry(retry)]
    last_event_id = ""
    for data, event, id in events:
        wire += [encode_comment(comment), encode_event(data, event=event, id=id)]
        assert b"\r" not in wire[-1]
        last_event_id = last_event_id if id is None else id
        if data is None:
            continue
        assert wire[-1] == encode_event(data.encode(), event=event, id=id)
        text = data.replace("\r\n", "\n").replace("\r", "\n")
        expected.append(Event(event or "message", text, last_event_id))
    assert parse(b"".join(wire)) == (expected, last_event_id)
