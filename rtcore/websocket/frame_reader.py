"""RFC 6455 frames (section 5): the reader, which turns bytes into messages and control frames.

The states of a `FrameReader`, kept in a few fields rather than in an enum because every byte passes here:

* between frames (``_left == 0``), inside a message (``_opcode != 0``) or not;
* inside the payload of a data frame (``_left > 0``): payload is unmasked and checked as it arrives;
* draining, after a fault: frames are measured, not read, until the peer's Close frame has passed;
* ended, after a Close frame: everything is ignored.

Extensions, compression among them, are not supported: a reserved bit is a fault.
"""

from __future__ import annotations

from codecs import IncrementalDecoder, getincrementaldecoder
from typing import Final, TypeAlias

import attrs

from rtcore.errors import CloseCode
from rtcore.frames import LANES_FROM, MAX_CONTROL_PAYLOAD, Opcode, apply_mask, may_travel

from .effects import BytesReceived, PongReceived, TextReceived

__all__ = [
    "CloseReceived",
    "FrameEvent",
    "FrameFault",
    "FrameReader",
    "PingReceived",
]

_UTF8: Final = getincrementaldecoder("utf-8")
_NOT_UTF8: Final = "the text is not UTF-8"


@attrs.frozen
class PingReceived:
    """A ping; it wants a pong with the same payload."""

    payload: bytes


@attrs.frozen
class CloseReceived:
    """The peer's Close frame; nothing comes after it.

    Attributes:
        code: The status code, 1005 where the frame carries none (section 7.1.5).
        reason: The peer's words, possibly empty.
    """

    code: int
    reason: str


@attrs.frozen
class FrameFault:
    """The peer broke the protocol; from here on only `CloseReceived` may still follow.

    Attributes:
        code: The close code that tells the peer: 1002, 1007 or 1009.
        message: What is wrong, for logs and for the Close frame.
    """

    code: int
    message: str


FrameEvent: TypeAlias = TextReceived | BytesReceived | PingReceived | PongReceived | CloseReceived | FrameFault


def _first_byte_fault(first: int) -> str | None:
    if first & 0x70:
        # "MUST be 0 unless an extension is negotiated that defines meanings for non-zero values." (section 5.2)
        return "a reserved bit is set"
    if first & 0x0F not in (0, 1, 2, 8, 9, 10):
        # "If an unknown opcode is received, the receiving endpoint MUST _Fail the WebSocket Connection_."
        return "the opcode is reserved"
    if first & 0x08 and not first & 0x80:
        return "a control frame is fragmented"
    return None


_FIRST_BYTE_FAULTS: Final = tuple(map(_first_byte_fault, range(256)))


class FrameReader:
    """Turns bytes into messages and control frames, for one direction of one connection.

    However the bytes are cut, the events are the same, and the time is linear in the bytes. What is buffered never
    exceeds the largest message allowed, the header and control frame in hand, and one call's worth of data.
    """

    __slots__ = (
        "_decoder",
        "_draining",
        "_ended",
        "_fin",
        "_idle",
        "_key",
        "_left",
        "_mask_bit",
        "_max_binary",
        "_max_binary_frame",
        "_max_frame",
        "_max_message",
        "_message",
        "_opcode",
        "_pending",
        "controls",
    )

    def __init__(
        self,
        *,
        masked: bool,
        max_message_size: int,
        max_binary_size: int | None = None,
        max_frame_size: int | None = None,
    ) -> None:
        """Start between frames.

        Args:
            masked: Whether the peer must mask: true on a server, false on a client.
            max_message_size: Bytes of payload that a message may have.
            max_binary_size: The same for a message that is binary; ``None`` for as many.
            max_frame_size: Bytes of payload that one data frame may have; ``None`` for no limit but the message's.
        """
        self._mask_bit = 0x80 if masked else 0
        self._max_message = max_message_size
        self._max_binary = max_message_size if max_binary_size is None else max_binary_size
        self._max_frame = max_message_size if max_frame_size is None else min(max_frame_size, max_message_size)
        self._max_binary_frame = self._max_binary if max_frame_size is None else min(max_frame_size, self._max_binary)
        self._pending = b""  # the start of a header or of a control frame, under 140 bytes
        self._opcode = 0  # of the message in hand
        self._message = bytearray()
        self._decoder: IncrementalDecoder | None = None  # checks the text in hand
        self._left = 0  # bytes of payload still to come
        self._fin = False
        self._key = b""  # turned so that its first byte belongs to the next byte of payload
        self._draining = False
        self._ended = False
        self._idle = True  # between messages, neither draining nor ended
        #: How many control frames have come between messages, where nothing is unfinished when they end.
        self.controls = 0

    @property
    def in_message(self) -> bool:
        """Whether bytes of an unfinished frame or message have been read."""
        return bool(self._pending or self._opcode or self._left)

    def drain(self) -> None:
        """Ignore all that comes except the peer's Close frame, which is reported as 1005 whatever it says."""
        self._draining = True
        self._idle = False
        self._message = bytearray()
        self._decoder = None

    def receive_data(self, data: bytes) -> list[FrameEvent]:
        """Read bytes of the peer.

        Args:
            data: Bytes as they came, in any split; empty is nothing.

        Returns:
            What they complete, in order. `FrameFault` comes at once where the fault shows: a frame too large by its
            header alone (1009), text that is not UTF-8 before its frame is complete (1007).
        """
        if self._pending:
            data = self._pending + data
            self._pending = b""
        events: list[FrameEvent] = []
        position = 0
        size = len(data)
        mask_bit = self._mask_bit
        from_bytes = int.from_bytes
        header = 6 if mask_bit else 2
        while position < size:
            # The hot case, a whole text message of less than 64 KiB in one frame, is read without further ado; all
            # that is not exactly this, faults included, is left to `_step`. `_idle` rules out an unfinished message.
            if data[position] == 0x81 and self._idle and position + header <= size:
                start = position + header
                length = data[position + 1] - mask_bit
                if length == 126 and start + 2 <= size:
                    start += 2
                    length = data[position + 2] << 8 | data[position + 3]
                    if length < 126:
                        length = -1
                elif length > 125:
                    length = -1
                end = start + length
                if 0 <= length <= self._max_frame and end <= size:
                    payload = data[start:end]
                    if not mask_bit:
                        pass
                    elif length < LANES_FROM:
                        # `apply_mask`, without the call
                        mask = (data[start - 4 : start] * (length // 4 + 1))[:length]
                        payload = (from_bytes(payload, "little") ^ from_bytes(mask, "little")).to_bytes(
                            length, "little"
                        )
                    else:
                        payload = apply_mask(payload, data[start - 4 : start])
                    try:
                        events.append(TextReceived(payload.decode()))
                    except UnicodeDecodeError:
                        position = self._fault(CloseCode.INVALID_PAYLOAD, _NOT_UTF8, data, end, events)
                    else:
                        position = end
                    continue
            reached = self._step(data, position, events)
            if reached == position:
                self._pending = data[position:]
                break
            position = reached
        return events

    def _step(self, data: bytes, position: int, events: list[FrameEvent]) -> int:
        """Read one frame, or what there is of its payload; return the new position, the old one for want of bytes."""
        if self._ended:
            return len(data)
        if self._draining:
            return self._drain(data, position, events)
        if self._left:
            return self._payload(data, position, events)
        if len(data) - position < 2:
            return position
        first, second = data[position], data[position + 1]
        opcode = first & 0x0F
        wrong = _FIRST_BYTE_FAULTS[first]
        if wrong is None:
            wrong = self._order_fault(opcode, second)
        if wrong is not None:
            return self._fault(CloseCode.PROTOCOL_ERROR, wrong, data, position, events)
        start, length = _measure(data, position)
        if length < 0:
            return position
        # "the minimal number of bytes MUST be used to encode the length" and, of 64 bits, "the most significant bit
        # MUST be 0" (section 5.2)
        if (second & 0x7F == 126 and length < 126) or (second & 0x7F == 127 and not 65535 < length < 1 << 63):
            return self._fault(CloseCode.PROTOCOL_ERROR, "the length is badly encoded", data, position, events)
        if opcode < Opcode.CLOSE and (too_big := self._size_fault(opcode or self._opcode, length)) is not None:
            return self._fault(CloseCode.MESSAGE_TOO_BIG, too_big, data, position, events)
        if start > len(data):
            return position
        if opcode >= Opcode.CLOSE:
            end = start + length
            if end > len(data):
                return position
            payload = data[start:end]
            if self._mask_bit:
                payload = apply_mask(payload, data[start - 4 : start])
            return self._control(opcode, payload, data, position, end, events)
        if opcode:
            self._opcode = opcode
            self._idle = False
        self._fin = first >= 0x80
        self._left = length
        if self._mask_bit:
            self._key = data[start - 4 : start]
        return self._payload(data, start, events)

    def _order_fault(self, opcode: int, second: int) -> str | None:
        if opcode >= Opcode.CLOSE:
            if second & 0x7F > MAX_CONTROL_PAYLOAD:
                return "a control frame holds more than 125 bytes"
        elif opcode:
            if self._opcode:
                return "a message begins inside another"
        elif not self._opcode:
            return "a continuation of no message"
        # "a client MUST mask all frames that it sends to the server" and "A server MUST NOT mask any frames that it
        # sends to the client" (section 5.1)
        if second & 0x80 != self._mask_bit:
            return "a frame is not masked" if self._mask_bit else "a frame is masked"
        return None

    def _size_fault(self, opcode: int, length: int) -> str | None:
        if opcode == Opcode.BINARY:
            max_frame, max_message = self._max_binary_frame, self._max_binary
        else:
            max_frame, max_message = self._max_frame, self._max_message
        if length > max_frame < max_message:
            return f"a frame of more than {max_frame} bytes"
        if length > max_frame or len(self._message) + length > max_message:
            return f"a message of more than {max_message} bytes"
        return None

    def _payload(self, data: bytes, position: int, events: list[FrameEvent]) -> int:
        """Take what has come of the payload of a data frame."""
        end = min(position + self._left, len(data))
        part = data[position:end]
        if self._mask_bit:
            part = apply_mask(part, self._key)
        self._left -= len(part)
        complete = self._fin and not self._left
        if complete and not self._message:
            if self._opcode == Opcode.BINARY:
                events.append(BytesReceived(part))
            else:
                try:
                    events.append(TextReceived(part.decode()))
                except UnicodeDecodeError:
                    return self._fault(CloseCode.INVALID_PAYLOAD, _NOT_UTF8, data, end, events)
        else:
            if self._opcode == Opcode.TEXT:
                # "When an endpoint is to interpret a byte stream as UTF-8 but finds that the byte stream is not, in
                # fact, a valid UTF-8 stream, that endpoint MUST _Fail the WebSocket Connection_." (section 8.1). The
                # characters are thrown away: a list of short strings would take many times the room of the bytes.
                if self._decoder is None:
                    self._decoder = _UTF8()
                try:
                    self._decoder.decode(part, complete)
                except UnicodeDecodeError:
                    return self._fault(CloseCode.INVALID_PAYLOAD, _NOT_UTF8, data, end, events)
            self._message += part
            if not complete:
                if self._left and self._mask_bit:
                    turn = len(part) % 4
                    self._key = self._key[turn:] + self._key[:turn]
                return end
            if self._opcode == Opcode.BINARY:
                events.append(BytesReceived(bytes(self._message)))
            else:
                events.append(TextReceived(self._message.decode()))
            self._message = bytearray()
            self._decoder = None
        self._opcode = 0
        self._idle = True
        return end

    def _control(
        self, opcode: int, payload: bytes, data: bytes, position: int, end: int, events: list[FrameEvent]
    ) -> int:
        if not self._opcode:
            self.controls += 1
        if opcode == Opcode.PING:
            events.append(PingReceived(payload))
            return end
        if opcode == Opcode.PONG:
            events.append(PongReceived(payload))
            return end
        code, reason = int(CloseCode.NO_STATUS_RECEIVED), ""
        if payload:
            # "If there is a body, the first two bytes of the body MUST be a 2-byte unsigned integer" (section 5.5.1)
            code = int.from_bytes(payload[:2], "big")
            if len(payload) < 2 or not may_travel(code):
                return self._fault(CloseCode.PROTOCOL_ERROR, "the close code is invalid", data, position, events)
            try:
                reason = payload[2:].decode()
            except UnicodeDecodeError:
                return self._fault(CloseCode.INVALID_PAYLOAD, "the close reason is not UTF-8", data, position, events)
        events.append(CloseReceived(code, reason))
        self._ended = True
        self._idle = False
        return len(data)

    def _fault(self, code: CloseCode, message: str, data: bytes, position: int, events: list[FrameEvent]) -> int:
        """Report a fault and drain from `position` on; a faulty header is measured again, now leniently."""
        events.append(FrameFault(code, message))
        self.drain()
        return self._drain(data, position, events)

    def _drain(self, data: bytes, position: int, events: list[FrameEvent]) -> int:
        while True:
            skipped = min(self._left, len(data) - position)
            self._left -= skipped
            position += skipped
            if self._left:
                return position
            if self._opcode == Opcode.CLOSE:
                events.append(CloseReceived(int(CloseCode.NO_STATUS_RECEIVED), ""))
                self._ended = True
                return len(data)
            if len(data) - position < 2:
                return position
            start, length = _measure(data, position)
            if length < 0 or start > len(data):
                return position
            self._opcode = data[position] & 0x0F
            self._left = length
            position = start


def _measure(data: bytes, position: int) -> tuple[int, int]:
    """Find where the payload of a frame starts, possibly past what has come, and its length, -1 where unknown."""
    second = data[position + 1]
    length = second & 0x7F
    start = position + (6 if second & 0x80 else 2)
    if length < 126:
        return start, length
    width = 2 if length == 126 else 8
    field = data[position + 2 : position + 2 + width]
    if len(field) < width:
        return start + width, -1
    return start + width, int.from_bytes(field, "big")
