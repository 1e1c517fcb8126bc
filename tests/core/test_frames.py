"""The frame writer, byte for byte against RFC 6455 and then against wsproto."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto.frame_protocol import FrameProtocol

from rtcore.errors import LocalProtocolError
from rtcore.frames import (
    LANES_FROM,
    Opcode,
    apply_mask,
    close_payload,
    encode_binary,
    encode_close,
    encode_frame,
    encode_ping,
    encode_pong,
    encode_text,
    may_travel,
)

KEY = b"\x37\xfa\x21\x3d"

# The examples of section 5.7
RFC_EXAMPLES = {
    "unmasked text": (encode_text(b"Hello"), "81 05 48 65 6c 6c 6f"),
    "masked text": (encode_frame(Opcode.TEXT, b"Hello", mask=KEY), "81 85 37 fa 21 3d 7f 9f 4d 51 58"),
    "first fragment": (encode_frame(Opcode.TEXT, b"Hel", fin=False), "01 03 48 65 6c"),
    "last fragment": (encode_frame(Opcode.CONTINUATION, b"lo"), "80 02 6c 6f"),
    "ping": (encode_ping(b"Hello"), "89 05 48 65 6c 6c 6f"),
    "masked pong": (encode_frame(Opcode.PONG, b"Hello", mask=KEY), "8a 85 37 fa 21 3d 7f 9f 4d 51 58"),
}


@pytest.mark.parametrize("name", RFC_EXAMPLES)
def test_examples_of_the_rfc(name: str) -> None:
    frame, expected = RFC_EXAMPLES[name]
    assert frame == bytes.fromhex(expected)


@pytest.mark.parametrize(
    ("size", "header"),
    [
        (0, "82 00"),
        (125, "82 7d"),
        (126, "82 7e 00 7e"),
        (256, "82 7e 01 00"),
        (65535, "82 7e ff ff"),
        (65536, "82 7f 00 00 00 00 00 01 00 00"),
    ],
)
def test_length_takes_the_fewest_bytes(size: int, header: str) -> None:
    payload = b"x" * size
    assert encode_binary(payload) == bytes.fromhex(header) + payload
    masked = bytearray.fromhex(header)
    masked[1] |= 0x80
    assert encode_frame(Opcode.BINARY, payload, mask=bytes(4)) == bytes(masked) + bytes(4) + payload


@given(payload=st.binary(max_size=70), times=st.integers(0, 20), key=st.binary(min_size=4, max_size=4))
def test_mask_is_the_rfc_s(payload: bytes, times: int, key: bytes) -> None:
    payload *= times
    # "transformed-octet-i = original-octet-i XOR masking-key-octet-j" with "j = i MOD 4" (section 5.3)
    assert apply_mask(payload, key) == bytes(octet ^ key[i % 4] for i, octet in enumerate(payload))


@pytest.mark.parametrize("size", [LANES_FROM - 1, LANES_FROM, LANES_FROM + 3])
def test_mask_where_its_method_changes(size: int) -> None:
    payload = bytes(i % 251 for i in range(size))
    assert apply_mask(payload, KEY) == bytes(octet ^ KEY[i % 4] for i, octet in enumerate(payload))


@given(payload=st.binary(max_size=300), code=st.integers(3000, 4999), reason=st.text(max_size=30))
def test_same_bytes_as_wsproto(payload: bytes, code: int, reason: str) -> None:
    oracle = FrameProtocol(client=False, extensions=[])
    text = payload.hex()
    assert encode_text(text.encode()) == oracle.send_data(text)
    assert encode_binary(payload) == oracle.send_data(payload)
    assert encode_ping(payload[:125]) == oracle.ping(payload[:125])
    assert encode_pong(payload[:125]) == oracle.pong(payload[:125])
    assert encode_close(code, reason) == oracle.close(code, reason)


def test_codes_that_may_travel() -> None:
    allowed = [*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)]
    assert [code for code in range(-1, 70000) if may_travel(code)] == allowed


@pytest.mark.parametrize("code", [-1, 0, 999, 1004, 1005, 1006, 1015, 2999, 5000, 65536 + 1000])
def test_close_code_that_may_not_be_sent(code: int) -> None:
    with pytest.raises(LocalProtocolError, match="not a close code"):
        close_payload(code)


def test_close_reason_has_room_for_123_bytes() -> None:
    assert close_payload(1000, "é" * 61 + "x") == b"\x03\xe8" + "é".encode() * 61 + b"x"
    with pytest.raises(LocalProtocolError, match="124 bytes"):
        close_payload(1000, "é" * 62)


def test_close_reason_is_encodable() -> None:
    with pytest.raises(LocalProtocolError, match="surrogate"):
        close_payload(1000, "\ud800")


@pytest.mark.parametrize("opcode", [Opcode.CLOSE, Opcode.PING, Opcode.PONG])
def test_control_frames_are_short_and_whole(opcode: Opcode) -> None:
    assert len(encode_frame(opcode, bytes(125))) == 127
    with pytest.raises(LocalProtocolError, match="at most 125 bytes"):
        encode_frame(opcode, bytes(126))
    with pytest.raises(LocalProtocolError, match="unfragmented"):
        encode_frame(opcode, b"", fin=False)


@pytest.mark.parametrize("key", [b"", b"abc", b"abcde"])
def test_masking_key_has_four_bytes(key: bytes) -> None:
    with pytest.raises(LocalProtocolError, match="four bytes"):
        encode_frame(Opcode.TEXT, b"x", mask=key)
