"""RFC 6455 frames (section 5): their parts, their mask, and the writer; `rtcore.websocket` reads them.

A frame of a server is unmasked, so the bytes made once serve every receiver; a frame of a client takes its masking
key as an argument, for the core has no entropy of its own. Extensions, compression among them, are not supported.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import Final

from rtcore.errors import LocalProtocolError

__all__ = [
    "LANES_FROM",
    "MAX_CONTROL_PAYLOAD",
    "Opcode",
    "apply_mask",
    "close_payload",
    "encode_binary",
    "encode_close",
    "encode_frame",
    "encode_ping",
    "encode_pong",
    "encode_text",
    "may_travel",
]

MAX_CONTROL_PAYLOAD: Final = 125

# From this many bytes on, four translated lanes beat one XOR of two long integers (0.9 against 1.2 µs).
LANES_FROM: Final = 512

_LENGTH_16: Final = Struct("!BBH")
_LENGTH_64: Final = Struct("!BBQ")
_XOR_TABLES: Final = tuple(bytes(byte ^ key for byte in range(256)) for key in range(256))


class Opcode(IntEnum):
    """What a frame carries (section 5.2)."""

    CONTINUATION = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


def apply_mask(payload: bytes, key: bytes) -> bytes:
    """Mask or unmask `payload` with the four bytes of `key` (section 5.3)."""
    size = len(payload)
    if size < LANES_FROM:
        mask = (key * (size // 4 + 1))[:size]
        return (int.from_bytes(payload, "little") ^ int.from_bytes(mask, "little")).to_bytes(size, "little")
    lanes = bytearray(payload)
    for lane in range(4):
        lanes[lane::4] = lanes[lane::4].translate(_XOR_TABLES[key[lane]])
    return bytes(lanes)


def _header(first: int, masked: int, size: int) -> bytes:
    # "the minimal number of bytes MUST be used to encode the length" (section 5.2)
    if size < 126:
        return bytes((first, masked | size))
    if size < 65536:
        return _LENGTH_16.pack(first, masked | 126, size)
    return _LENGTH_64.pack(first, masked | 127, size)


def encode_frame(opcode: Opcode, payload: bytes, *, fin: bool = True, mask: bytes | None = None) -> bytes:
    """Encode one frame.

    Args:
        opcode: What the frame carries.
        payload: The payload, unmasked; UTF-8 in a text frame, at most 125 bytes in a control frame.
        fin: Whether the message ends here; false only for the fragments of a data message.
        mask: The four bytes of the masking key of a client's frame, unpredictable; ``None`` for a server's.

    Raises:
        LocalProtocolError: A control frame is too long or fragmented, or the key has another length than four.
    """
    if opcode >= Opcode.CLOSE and (len(payload) > MAX_CONTROL_PAYLOAD or not fin):
        # "All control frames MUST have a payload length of 125 bytes or less and MUST NOT be fragmented."
        # (section 5.5)
        raise LocalProtocolError(f"a control frame is unfragmented and holds at most {MAX_CONTROL_PAYLOAD} bytes")
    first = opcode | 0x80 if fin else int(opcode)
    if mask is None:
        return _header(first, 0, len(payload)) + payload
    if len(mask) != 4:
        raise LocalProtocolError("a masking key has four bytes")
    return _header(first, 0x80, len(payload)) + mask + apply_mask(payload, mask)


def encode_text(payload: bytes) -> bytes:
    """Encode a server's text message; `payload` is its UTF-8, which is not checked again."""
    return _header(0x81, 0, len(payload)) + payload


def encode_binary(payload: bytes) -> bytes:
    """Encode a server's binary message."""
    return _header(0x82, 0, len(payload)) + payload


def encode_ping(payload: bytes = b"") -> bytes:
    """Encode a server's ping; raises `LocalProtocolError` above 125 bytes."""
    return encode_frame(Opcode.PING, payload)


def encode_pong(payload: bytes = b"") -> bytes:
    """Encode a server's pong; raises `LocalProtocolError` above 125 bytes."""
    return encode_frame(Opcode.PONG, payload)


def encode_close(code: int, reason: str = "") -> bytes:
    """Encode a server's Close frame; raises as `close_payload` does."""
    return encode_frame(Opcode.CLOSE, close_payload(code, reason))


def may_travel(code: int) -> bool:
    """Tell whether `code` may stand in a Close frame."""
    # Section 7.4.1 reserves 1004 and says of 1005, 1006 and 1015 that they "MUST NOT be set as a status code in a
    # Close control frame"; 1012 to 1014 were registered later. 3000 to 4999 are for libraries and applications.
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


def close_payload(code: int, reason: str = "") -> bytes:
    """Build the payload of a Close frame (section 5.5.1).

    Args:
        code: A status code that may travel: registered ones below 3000, any from 3000 to 4999.
        reason: At most 123 bytes of UTF-8.

    Raises:
        LocalProtocolError: The code may not be sent, or the reason is too long or not encodable.
    """
    if not may_travel(code):
        raise LocalProtocolError(f"{code} is not a close code that an endpoint may send")
    try:
        words = reason.encode()
    except UnicodeEncodeError as error:
        raise LocalProtocolError("the reason holds a lone surrogate, which UTF-8 cannot carry") from error
    if len(words) > MAX_CONTROL_PAYLOAD - 2:
        raise LocalProtocolError(f"the reason takes {len(words)} bytes of UTF-8, 123 are allowed")
    return code.to_bytes(2, "big") + words
