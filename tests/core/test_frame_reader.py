"""The frame reader: tables, splits, hostile streams, and the same verdicts as wsproto."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable, Iterator
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage

from rtcore.frames import Opcode, apply_mask, encode_binary, encode_close, encode_frame, encode_ping, encode_text
from rtcore.websocket import BytesReceived, PongReceived, TextReceived
from rtcore.websocket.frame_reader import CloseReceived, FrameEvent, FrameFault, FrameReader, PingReceived

KEY = b"\x37\xfa\x21\x3d"
LIMIT = 1000


def reader(
    *, masked: bool = True, limit: int = LIMIT, binary_limit: int | None = None, frame_limit: int | None = None
) -> FrameReader:
    return FrameReader(masked=masked, max_message_size=limit, max_binary_size=binary_limit, max_frame_size=frame_limit)


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True) -> bytes:
    return encode_frame(Opcode(opcode), payload, fin=fin, mask=KEY)


def header(first: int, second: int, rest: bytes = b"") -> bytes:
    return bytes((first, second)) + rest


def close(payload: bytes) -> bytes:
    return frame(8, payload)


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def read(source: FrameReader, chunks: Iterable[bytes]) -> list[FrameEvent]:
    return [event for chunk in chunks for event in source.receive_data(chunk)]


VALID: dict[str, tuple[bytes, list[FrameEvent]]] = {
    "text": (frame(1, "Привет".encode()), [TextReceived("Привет")]),
    "empty text": (frame(1), [TextReceived("")]),
    "longest of 7 bits": (frame(1, b"x" * 125), [TextReceived("x" * 125)]),
    "shortest of 16 bits": (frame(1, b"x" * 126), [TextReceived("x" * 126)]),
    "length that looks like the 64-bit mark": (frame(1, b"x" * 127), [TextReceived("x" * 127)]),
    "unmasked by lanes": (frame(1, b"x" * 600), [TextReceived("x" * 600)]),
    "as long as allowed": (frame(1, b"x" * LIMIT), [TextReceived("x" * LIMIT)]),
    "binary": (frame(2, b"\x00\xff"), [BytesReceived(b"\x00\xff")]),
    "empty binary": (frame(2), [BytesReceived(b"")]),
    "two in one": (frame(1, b"a") + frame(1, b"b"), [TextReceived("a"), TextReceived("b")]),
    "fragments": (
        frame(1, b"a", fin=False) + frame(0, b"b", fin=False) + frame(0, b"c"),
        [TextReceived("abc")],
    ),
    "binary fragments": (frame(2, b"a", fin=False) + frame(0, b"b"), [BytesReceived(b"ab")]),
    "empty fragments": (
        frame(1, fin=False) + frame(0, fin=False) + frame(0, b"x", fin=False) + frame(0),
        [TextReceived("x")],
    ),
    "nothing but empty fragments": (frame(2, fin=False) + frame(0), [BytesReceived(b"")]),
    "character cut by fragments": (frame(1, b"\xf0\x9f", fin=False) + frame(0, b"\x98\x80"), [TextReceived("😀")]),
    "ping": (frame(9, b"hi"), [PingReceived(b"hi")]),
    "longest ping": (frame(9, bytes(125)), [PingReceived(bytes(125))]),
    "pong": (frame(10), [PongReceived(b"")]),
    "control frames between fragments": (
        frame(1, b"a", fin=False) + frame(9, b"p") + frame(10, b"q") + frame(0, b"b"),
        [PingReceived(b"p"), PongReceived(b"q"), TextReceived("ab")],
    ),
    "close without a code": (close(b""), [CloseReceived(1005, "")]),
    "close": (close(b"\x03\xe8bye"), [CloseReceived(1000, "bye")]),
    "close inside a message": (frame(1, b"a", fin=False) + close(b""), [CloseReceived(1005, "")]),
    "anything after close": (close(b"") + frame(1, b"a") + b"\xff\xff", [CloseReceived(1005, "")]),
}

PROTOCOL, PAYLOAD, TOO_BIG = 1002, 1007, 1009

# Each is followed by a text message, which must not be read, and by a Close frame, which must be found.
FAULTS: dict[str, tuple[bytes, int, str]] = {
    "first reserved bit": (header(0xC1, 0x80, KEY), PROTOCOL, "a reserved bit is set"),
    "second reserved bit": (header(0xA1, 0x80, KEY), PROTOCOL, "a reserved bit is set"),
    "third reserved bit": (header(0x91, 0x80, KEY), PROTOCOL, "a reserved bit is set"),
    "reserved bit with payload": (header(0xC1, 0x82, KEY + b"ab"), PROTOCOL, "a reserved bit is set"),
    "reserved data opcode": (header(0x83, 0x80, KEY), PROTOCOL, "the opcode is reserved"),
    "last reserved data opcode": (header(0x87, 0x80, KEY), PROTOCOL, "the opcode is reserved"),
    "reserved control opcode": (header(0x8B, 0x80, KEY), PROTOCOL, "the opcode is reserved"),
    "fragmented ping": (header(0x09, 0x80, KEY), PROTOCOL, "a control frame is fragmented"),
    "long ping": (
        header(0x89, 0xFE, b"\x00\x7e" + KEY + bytes(126)),
        PROTOCOL,
        "a control frame holds more than 125 bytes",
    ),
    "unmasked": (header(0x81, 0x01, b"a"), PROTOCOL, "a frame is not masked"),
    "continuation of nothing": (frame(0, b"a"), PROTOCOL, "a continuation of no message"),
    "message inside another": (frame(1, b"a", fin=False) + frame(2, b"b"), PROTOCOL, "a message begins inside another"),
    "7 bits in 16": (header(0x81, 0xFE, b"\x00\x7d" + KEY + bytes(125)), PROTOCOL, "the length is badly encoded"),
    "16 bits in 64": (
        header(0x81, 0xFF, (0xFFFF).to_bytes(8, "big") + KEY + bytes(65535)),
        PROTOCOL,
        "the length is badly encoded",
    ),
    "close with one byte": (close(b"\x03"), PROTOCOL, "the close code is invalid"),
    "close with a code that may not travel": (close(b"\x03\xee"), PROTOCOL, "the close code is invalid"),
    "close with words that are not UTF-8": (close(b"\x03\xe8\xff"), PAYLOAD, "the close reason is not UTF-8"),
    "text that is not UTF-8": (frame(1, b"a\xff"), PAYLOAD, "the text is not UTF-8"),
    "long text that is not UTF-8": (frame(1, b"a" * 700 + b"\xff"), PAYLOAD, "the text is not UTF-8"),
    "surrogate": (frame(1, b"\xed\xa0\x80"), PAYLOAD, "the text is not UTF-8"),
    "text ends inside a character": (frame(1, b"\xf0\x9f"), PAYLOAD, "the text is not UTF-8"),
    "fragments end inside a character": (
        frame(1, b"\xf0", fin=False) + frame(0, b"\x9f"),
        PAYLOAD,
        "the text is not UTF-8",
    ),
    "continuation that is not UTF-8": (
        frame(1, fin=False) + frame(0, b"\xff"),
        PAYLOAD,
        "the text is not UTF-8",
    ),
    "message too big": (frame(1, b"x" * (LIMIT + 1)), TOO_BIG, "a message of more than 1000 bytes"),
    "fragments too big together": (
        frame(2, b"x" * LIMIT, fin=False) + frame(0, b"x"),
        TOO_BIG,
        "a message of more than 1000 bytes",
    ),
}


@pytest.mark.parametrize("name", VALID)
@pytest.mark.parametrize("size", [1, 2, 5, 10**6])
def test_valid(name: str, size: int) -> None:
    data, expected = VALID[name]
    assert read(reader(), pieces(data, size)) == expected


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("size", [1, 3, 10**6])
def test_fault(name: str, size: int) -> None:
    data, code, message = FAULTS[name]
    events = read(reader(), pieces(data + frame(1, b"late") + close(b"\x03\xe8"), size))
    assert events == [FrameFault(code, message), CloseReceived(1005, "")]


def test_fault_comes_after_what_was_gathered() -> None:
    data = frame(1, b"a", fin=False) + frame(0, b"b") + frame(9, b"c") + frame(0, b"d") + frame(1, b"e")
    assert reader().receive_data(data) == [
        TextReceived("ab"),
        PingReceived(b"c"),
        FrameFault(1002, "a continuation of no message"),
    ]


def test_client_reads_unmasked_frames() -> None:
    data = encode_text(b"a") + encode_text(b"b" * 200) + encode_binary(b"c") + encode_ping(b"d") + encode_close(1001)
    expected = [
        TextReceived("a"),
        TextReceived("b" * 200),
        BytesReceived(b"c"),
        PingReceived(b"d"),
        CloseReceived(1001, ""),
    ]
    for size in (1, 3, len(data)):
        assert read(reader(masked=False), pieces(data, size)) == expected


def test_client_refuses_masked_frames() -> None:
    data = frame(1, b"a") + close(b"")
    assert reader(masked=False).receive_data(data) == [
        FrameFault(1002, "a frame is masked"),
        CloseReceived(1005, ""),
    ]


def test_64_bit_length() -> None:
    payload = bytes(range(256)) * 300
    for size in (1000, 10**6):
        assert read(reader(limit=2**20), pieces(frame(2, payload), size)) == [BytesReceived(payload)]


@pytest.mark.parametrize("size", [1, 7, 1024])
def test_trickled_message(size: int) -> None:
    text = "Привет, 😀! " * 4000
    data = frame(1, text.encode())
    assert read(reader(limit=2**20), pieces(data, size)) == [TextReceived(text)]


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        (header(0x82, 0xFE, (LIMIT + 1).to_bytes(2, "big")), "a message of more than 1000 bytes"),
        (header(0x82, 0xFF, (2**40).to_bytes(8, "big")), "a message of more than 1000 bytes"),
        (header(0x82, 0xFF, (2**63 - 1).to_bytes(8, "big")), "a message of more than 1000 bytes"),
    ],
)
def test_too_big_by_its_header_alone(declared: bytes, message: str) -> None:
    assert reader().receive_data(declared) == [FrameFault(1009, message)]


def test_highest_bit_of_a_length() -> None:
    # "the most significant bit MUST be 0" (section 5.2)
    declared = header(0x82, 0xFF, (2**63).to_bytes(8, "big"))
    assert reader(limit=2**70).receive_data(declared) == [FrameFault(1002, "the length is badly encoded")]


def test_frame_limit() -> None:
    source = reader(frame_limit=10)
    assert source.receive_data(frame(1, b"x" * 10, fin=False) + frame(0, b"y" * 10)) == [
        TextReceived("x" * 10 + "y" * 10)
    ]
    assert source.receive_data(frame(1, b"x" * 11)) == [FrameFault(1009, "a frame of more than 10 bytes")]


def test_frame_limit_is_no_more_than_the_message_s() -> None:
    assert reader(limit=10, frame_limit=20).receive_data(frame(2, bytes(11))) == [
        FrameFault(1009, "a message of more than 10 bytes")
    ]


@pytest.mark.parametrize("text", [10, 1000])
@pytest.mark.parametrize("size", [1, 10**6])
def test_the_limit_of_binary_messages(text: int, size: int) -> None:
    """It is its own, larger or smaller than that of text, in fragments too; and text comes and goes as before."""
    whole = frame(2, bytes(100))
    parts = frame(2, bytes(50), fin=False) + frame(9) + frame(0, bytes(50))
    expected: list[FrameEvent] = [BytesReceived(bytes(100)), PingReceived(b""), BytesReceived(bytes(100))]
    source = reader(limit=text, binary_limit=100)
    assert read(source, pieces(whole + parts + frame(1, b"x" * 10), size)) == [*expected, TextReceived("x" * 10)]
    fault = FrameFault(1009, "a message of more than 100 bytes")
    for too_big in (frame(2, bytes(101)), frame(2, bytes(50), fin=False) + frame(0, bytes(51))):
        assert read(reader(limit=text, binary_limit=100), pieces(too_big, size)) == [fault]
    for too_big in (frame(1, b"x" * (text + 1)), frame(1, b"x" * text, fin=False) + frame(0, b"x")):
        assert read(reader(limit=text, binary_limit=100), pieces(too_big, size)) == [
            FrameFault(1009, f"a message of more than {text} bytes")
        ]


def test_frame_limit_of_binary_messages() -> None:
    source = reader(limit=10, binary_limit=100, frame_limit=20)
    assert source.receive_data(frame(2, bytes(20))) == [BytesReceived(bytes(20))]
    assert source.receive_data(frame(2, bytes(21))) == [FrameFault(1009, "a frame of more than 20 bytes")]
    assert reader(limit=100, binary_limit=10, frame_limit=20).receive_data(frame(2, bytes(11))) == [
        FrameFault(1009, "a message of more than 10 bytes")
    ]


def test_control_frames_do_not_count_as_message() -> None:
    assert reader(limit=1).receive_data(frame(9, b"long enough")) == [PingReceived(b"long enough")]


def test_not_utf8_shows_before_the_frame_is_complete() -> None:
    whole = frame(1, b"ok \xc0 and more that never comes")
    assert reader().receive_data(whole[:9]) == []
    assert reader().receive_data(whole[:10]) == [FrameFault(1007, "the text is not UTF-8")]


def test_rest_of_a_faulty_payload_is_skipped() -> None:
    whole = frame(1, b"\xff" + frame(8) * 3)
    source = reader()
    assert source.receive_data(whole[:7]) == [FrameFault(1007, "the text is not UTF-8")]
    assert source.receive_data(whole[7:]) == []
    assert source.receive_data(frame(1, b"no")) == []
    assert source.receive_data(close(b"\x03\xe8")) == [CloseReceived(1005, "")]
    assert source.receive_data(close(b"\x03\xe8")) == []


def test_drain_finds_nothing_but_the_close() -> None:
    source = reader()
    assert source.receive_data(frame(1, b"half", fin=False) + frame(0, b"more")[:8]) == []
    source.drain()
    assert source.receive_data(frame(0, b"more")[8:] + frame(1, b"a") + frame(9) + frame(2, bytes(300))) == []
    assert source.receive_data(frame(8, b"anything")[:-1]) == []
    assert source.receive_data(frame(8, b"anything")[-1:]) == [CloseReceived(1005, "")]


@pytest.mark.parametrize(
    ("data", "inside"),
    [
        (b"", False),
        (frame(1, b"a"), False),
        (frame(9, b"a"), False),
        (frame(1, b"a")[:1], True),
        (frame(1, b"a")[:-1], True),
        (frame(9, b"a")[:-1], True),
        (frame(1, b"a", fin=False), True),
        (frame(1, fin=False) + frame(0), False),
    ],
)
def test_in_message(data: bytes, inside: bool) -> None:
    source = reader()
    source.receive_data(data)
    assert source.in_message is inside


HOSTILE = {
    "endless fragments": [frame(2, bytes(100), fin=False), *[frame(0, b"", fin=False) * 1000] * 30],
    "refused payload": [header(0x82, 0xFF, (2**40).to_bytes(8, "big") + KEY), *[bytes(65536)] * 100],
    "text in single bytes": [frame(1, b"x" * 50_000)[i : i + 1] for i in range(50_000)],
    "pings cut short": [frame(9, bytes(125))[:-1], *[b"", b"x" + frame(9, bytes(125))[:-1]] * 500],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_memory_stays_within_the_limit(name: str) -> None:
    source = reader(limit=50_000)
    tracemalloc.start()
    try:
        for chunk in HOSTILE[name]:
            source.receive_data(chunk)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * 50_000 + 100_000


# The same verdicts as wsproto

Verdict = tuple[str, object, object]


def verdicts_of_wsproto(data: bytes, *, client: bool) -> list[Verdict]:
    oracle = Connection(ConnectionType.CLIENT if client else ConnectionType.SERVER)
    oracle.receive_data(data)
    verdicts: list[Verdict] = []
    text, blob = "", b""
    for event in oracle.events():
        match event:
            case TextMessage(data=part, message_finished=done):
                text += part
                if done:
                    verdicts.append(("text", text, None))
                    text = ""
            case BytesMessage(data=part, message_finished=done):
                blob += part
                if done:
                    verdicts.append(("bytes", blob, None))
                    blob = b""
            case Ping(payload=payload):
                verdicts.append(("ping", bytes(payload), None))
            case Pong(payload=payload):
                verdicts.append(("pong", bytes(payload), None))
            case CloseConnection(code=code, reason=reason):
                # A fault and the peer's Close are the same event to wsproto; its state tells them apart.
                fault = oracle.state.name == "OPEN"
                verdicts.append(("fault", int(code), None) if fault else ("close", int(code), reason))
    return verdicts


def verdicts_of_ours(events: list[FrameEvent]) -> list[Verdict]:
    verdicts: list[Verdict] = []
    for event in events:
        match event:
            case TextReceived(text=text):
                verdicts.append(("text", text, None))
            case BytesReceived(data=data):
                verdicts.append(("bytes", data, None))
            case PingReceived(payload=payload):
                verdicts.append(("ping", payload, None))
            case PongReceived(payload=payload):
                verdicts.append(("pong", payload, None))
            case FrameFault(code=code):
                verdicts.append(("fault", int(code), None))
                break  # what is drained after it, wsproto does not look at
            case CloseReceived(code=code, reason=reason):
                verdicts.append(("close", code, reason))
    return verdicts


@st.composite
def wire_frames(draw: st.DrawFn, *, masked: bool) -> bytes:
    """One complete frame, mostly valid."""

    def seldom(strategy: st.SearchStrategy[int], otherwise: int) -> int:
        return draw(strategy) if draw(st.integers(0, 19)) == 0 else otherwise

    opcode = seldom(st.integers(0, 15), draw(st.sampled_from([0, 0, 1, 1, 1, 2, 2, 8, 9, 10])))
    payload = draw(
        st.one_of(
            st.text(max_size=12).map(str.encode),
            st.binary(max_size=12),
            st.sampled_from([130, 600]).map(lambda size: b"y" * size),
            st.tuples(st.integers(990, 5010), st.text(max_size=5)).map(
                lambda p: p[0].to_bytes(2, "big") + p[1].encode()
            ),
        )
    )
    fin = opcode >= 8 or draw(st.booleans())
    first = seldom(st.integers(0, 255), (0x80 if fin else 0) | opcode)
    mask_bit = 0x80 if masked ^ (seldom(st.just(1), 0) == 1) else 0
    minimal = 0 if len(payload) < 126 else 2
    width = seldom(st.sampled_from([2, 8]), minimal)
    if width == 0 and len(payload) < 126:
        length = bytes((mask_bit | len(payload),))
    elif width <= 2:
        length = bytes((mask_bit | 126,)) + len(payload).to_bytes(2, "big")
    else:
        length = bytes((mask_bit | 127,)) + len(payload).to_bytes(8, "big")
    key = draw(st.binary(min_size=4, max_size=4)) if mask_bit else b""
    return bytes((first,)) + length + key + (apply_mask(payload, key) if mask_bit else payload)


@given(data=st.lists(wire_frames(masked=True), max_size=8).map(b"".join))
def test_server_agrees_with_wsproto(data: bytes) -> None:
    assert verdicts_of_ours(reader(limit=2**20).receive_data(data)) == verdicts_of_wsproto(data, client=False)


@given(data=st.lists(wire_frames(masked=False), max_size=8).map(b"".join))
def test_client_agrees_with_wsproto(data: bytes) -> None:
    assert verdicts_of_ours(reader(masked=False, limit=2**20).receive_data(data)) == verdicts_of_wsproto(
        data, client=True
    )


def test_where_wsproto_is_behind_the_registry() -> None:
    # IANA registered 1014, "Bad Gateway", after wsproto's list was made; of all codes only this one differs.
    differs = [
        code
        for code in range(5100)
        if verdicts_of_ours(reader().receive_data(data := close(code.to_bytes(2, "big"))))
        != verdicts_of_wsproto(data, client=False)
    ]
    assert differs == [1014]


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


streams = st.lists(
    st.one_of(wire_frames(masked=True), st.sampled_from([data for data, _, _ in FAULTS.values() if len(data) < 2000])),
    max_size=6,
).map(b"".join)


@given(data=streams, places=st.lists(st.integers(0, 10**6), max_size=12))
@example(data=frame(1, b"\xf0\x9f\x98\x80") + close(b"\x03\xe8"), places=[7, 8, 9, 11, 15])
def test_splits_do_not_show(data: bytes, places: list[int]) -> None:
    assert read(reader(), cut(data, places)) == reader().receive_data(data)


@given(
    messages=st.lists(st.text(max_size=50) | st.binary(max_size=50), max_size=5),
    sizes=st.lists(st.integers(1, 20), min_size=1, max_size=5),
    masked=st.booleans(),
)
def test_what_is_written_is_read(messages: list[str | bytes], sizes: list[int], masked: bool) -> None:
    wire = b""
    for message in messages:
        payload = message.encode() if isinstance(message, str) else message
        fragments = cut(payload, sizes)
        for number, fragment in enumerate(fragments):
            opcode = Opcode.CONTINUATION if number else Opcode.TEXT if isinstance(message, str) else Opcode.BINARY
            fin = number == len(fragments) - 1
            wire += encode_frame(opcode, fragment, fin=fin, mask=KEY if masked else None)
    expected = [TextReceived(m) if isinstance(m, str) else BytesReceived(m) for m in messages]
    assert reader(masked=masked).receive_data(wire) == expected
