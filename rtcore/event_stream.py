"""The ``text/event-stream`` format: a parser and an encoder.

It follows the HTML standard, sections 9.2.5 and 9.2.6 (https://html.spec.whatwg.org/#parsing-an-event-stream),
whose sentences are quoted where they force a branch. What a client does around the stream (when it reconnects,
with which ``Last-Event-ID``) is in `rtcore.event_source`.
"""

from __future__ import annotations

from typing import Final

import attrs

from rtcore.errors import LocalProtocolError

__all__ = [
    "Event",
    "EventStreamParser",
    "EventTooLarge",
    "Retry",
    "encode_comment",
    "encode_event",
    "encode_retry",
]

_BOM: Final = b"\xef\xbb\xbf"

# A server may write any number of digits, and Python refuses to convert more than some thousands. Fifteen hold
# 30,000 years of milliseconds.
_RETRY_DIGITS: Final = 15


@attrs.frozen
class Event:
    """One event, as a client sees it.

    Attributes:
        event: Its type, ``message`` where the stream named none.
        data: The values of its ``data`` fields, joined with LF.
        id: The last event id when it was dispatched: its own, or the last one before it, or empty.
    """

    event: str
    data: str
    id: str


@attrs.frozen
class Retry:
    """The stream set the reconnection time.

    Attributes:
        milliseconds: The time to wait before reconnecting, in milliseconds; what is 10**15 or more becomes 10**15 - 1.
    """

    milliseconds: int


@attrs.frozen
class EventTooLarge:
    """The peer sent more for one event than the parser may hold. Always the last item; the stream is lost.

    Attributes:
        limit: The limit that was passed, in bytes.
    """

    limit: int


class EventStreamParser:
    """The bytes of one response, in; events, out.

    Time is linear in the bytes, however they are cut, and memory stays within a small multiple of
    `max_event_size`. Bytes that are not UTF-8 become U+FFFD, as the standard's "UTF-8 decode" has it. An event is
    dispatched as soon as the line end of its empty line has begun to arrive.

    Not supported: streams in other encodings ("streams must be decoded using the UTF-8 decode algorithm").

    Args:
        max_event_size: How many bytes an event may take: its ``data`` lines, each with one byte for its end,
            plus the line being read, be it a comment.
        last_event_id: The id that the connection before this one ended with.
    """

    __slots__ = (
        "_closed",
        "_data",
        "_event",
        "_id",
        "_last_event_id",
        "_limit",
        "_partial",
        "_prefix",
        "_size",
        "_skip_lf",
    )

    def __init__(self, *, max_event_size: int = 16 * 1024 * 1024, last_event_id: str = "") -> None:
        self._limit = max_event_size
        self._prefix: bytes | None = b""  # what may yet become a byte order mark; None once that is settled
        self._skip_lf = False  # the line before ended with a CR: an LF that follows belongs to it
        self._partial = bytearray()  # the line that has no end yet
        self._data: list[bytes] = []
        self._size = 0  # bytes of the lines that _data came from, each with one for its end
        self._event = ""
        # "They must be initialized to the empty string", says 9.2.6 of the id too; but then the first event of a
        # second response that carries no id would wipe out the id that the response was asked for with.
        # Browsers go on from the last one, and web-platform-tests' format-field-id-2 expects it.
        self._id = last_event_id
        self._last_event_id = last_event_id
        self._closed = False

    @property
    def last_event_id(self) -> str:
        """The id to resume after: that of the last complete event, even if that had no data."""
        return self._last_event_id

    def receive_data(self, data: bytes) -> list[Event | Retry | EventTooLarge]:
        """Take the next bytes of the response body.

        Args:
            data: Any number of bytes.

        Returns:
            What they completed, in the order of the stream. `EventTooLarge` comes last if it comes at all.

        Raises:
            LocalProtocolError: The stream has ended, or was lost to `EventTooLarge`. Nothing has changed.
        """
        if self._closed:
            raise LocalProtocolError("the event stream has ended")
        if self._prefix is not None:
            # "The UTF-8 decode algorithm strips one leading UTF-8 Byte Order Mark (BOM), if any."
            data = self._prefix + data
            if len(data) < len(_BOM) and _BOM.startswith(data):
                self._prefix = data
                return []
            self._prefix = None
            data = data.removeprefix(_BOM)
        if self._skip_lf and data:
            self._skip_lf = False
            data = data.removeprefix(b"\n")
        # Only the new bytes are searched: what waits in _partial is known to have no line end.
        end = max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
        if end:
            # The line ends here even if it ends with a CR that an LF may follow: waiting for the next chunk to
            # find out would hold back the event until the one after it.
            self._skip_lf = data.endswith(b"\r")
            rest = data[end:]
            if self._partial:
                complete = bytes(self._partial + data[:end])
                self._partial.clear()
            else:
                complete = data[:end]
            items = self._receive_lines(complete)
        else:
            rest = data
            items = []
        if not self._closed and rest:
            self._partial += rest
            if self._size + len(self._partial) > self._limit:
                self._fail(items)
        return items

    def receive_eof(self) -> None:
        """Take the end of the response body.

        "Once the end of the file is reached, any pending data must be discarded", so an event whose empty
        line did not arrive is dropped, and its id with it. May be called more than once.
        """
        self._closed = True
        self._data.clear()
        self._partial.clear()

    def _fail(self, items: list[Event | Retry | EventTooLarge]) -> None:
        self.receive_eof()
        items.append(EventTooLarge(self._limit))

    def _receive_lines(self, complete: bytes) -> list[Event | Retry | EventTooLarge]:
        items: list[Event | Retry | EventTooLarge] = []
        data = self._data
        size = self._size
        # Of bytes, splitlines() knows CR, LF and CRLF only: U+2028, U+0085 and the like stay inside a line.
        # None of the three can be part of a longer UTF-8 sequence, valid or not, so what is decoded field by
        # field reads the same as if the whole stream had been.
        for line in complete.splitlines():
            if not line:
                self._last_event_id = self._id
                # "If the data buffer is an empty string, set the data buffer and the event type buffer to the
                # empty string and return." A lone ``data`` line made it a line feed, which is not empty.
                if data:
                    text = data[0] if len(data) == 1 else b"\n".join(data)
                    items.append(Event(self._event or "message", text.decode("utf-8", "replace"), self._id))
                    data.clear()
                    size = 0
                self._event = ""
                continue
            if size + len(line) > self._limit:
                self._fail(items)
                return items
            if line.startswith(b"data: "):
                # What the branch after this one would do, at a fraction of the cost.
                data.append(line[6:])
                size += len(line) + 1
                continue
            # "If the line starts with a U+003A COLON character (:), ignore the line": its name is empty.
            name, _, value = line.partition(b":")
            # "If value starts with a U+0020 SPACE character, remove it from value."
            value = value.removeprefix(b" ")
            # Any other name: "The field is ignored."
            match name:
                case b"data":
                    data.append(value)
                    size += len(line) + 1
                case b"event":
                    self._event = value.decode("utf-8", "replace")
                case b"id":
                    # "If the field value does not contain U+0000 NULL, then set the last event ID buffer to the
                    # field value. Otherwise, ignore the field."
                    if b"\0" not in value:
                        self._id = value.decode("utf-8", "replace")
                case b"retry":
                    # "If the field value consists of only ASCII digits": isdigit() of bytes means just those,
                    # and at least one of them.
                    if value.isdigit():
                        digits = value.lstrip(b"0") or b"0"
                        items.append(Retry(min(int(digits[: _RETRY_DIGITS + 1]), 10**_RETRY_DIGITS - 1)))
        self._size = size
        return items


def encode_event(data: str | bytes | None, *, event: str | None = None, id: str | None = None) -> bytes:
    """Encode one event, complete with its empty line.

    Line ends are LF only: clients that know no other are more common than they should be. CR and CRLF inside
    `data` therefore arrive as LF; the format has no way to carry them.

    Args:
        data: The payload; bytes must be UTF-8 and are not checked. ``None`` for an event that no handler sees, and that
            only sets the id to resume after.
        event: The type; ``None`` for none, so that a browser's ``onmessage`` sees it.
        id: The id to resume after; ``None`` leaves the client's last one, the empty string resets it.

    Raises:
        LocalProtocolError: `event` or `id` holds CR, LF or NUL, or a text cannot be encoded.
    """
    head = b"" if event is None else b"event: " + _field("event", event) + b"\n"
    if id is not None:
        head += b"id: " + _field("id", id) + b"\n"
    if data is None:
        return head + b"\n"
    if not isinstance(data, bytes):
        data = _utf8(data)
    if b"\n" in data or b"\r" in data:
        data = b"\ndata: ".join(_lines(data))
    return head + b"data: " + data + b"\n\n"


def encode_retry(milliseconds: int) -> bytes:
    """Encode the time that clients wait before they reconnect.

    Raises:
        LocalProtocolError: `milliseconds` is negative.
    """
    if milliseconds < 0:
        raise LocalProtocolError(f"retry cannot be negative: {milliseconds}")
    return b"retry: %d\n\n" % milliseconds


def encode_comment(text: str = "") -> bytes:
    """Encode a comment, which keeps a quiet connection open and is seen by no handler.

    Raises:
        LocalProtocolError: `text` cannot be encoded.
    """
    return b"".join(b": " + line + b"\n" for line in _lines(_utf8(text))) + b"\n"


def _lines(data: bytes) -> list[bytes]:
    # Not splitlines(), which takes no notice of a line end at the very end.
    return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise LocalProtocolError(f"not encodable as UTF-8: {error.reason}") from error


def _field(name: str, text: str) -> bytes:
    if "\n" in text or "\r" in text or "\0" in text:
        raise LocalProtocolError(f"{name} cannot hold CR, LF or NUL: {text!r}")
    return _utf8(text)
