"""What a server sends, encoded once for each wire, for any number of receivers."""

from __future__ import annotations

from binascii import b2a_base64

import attrs

from .binary import Bytes, encode_payload
from .event_stream import encode_event
from .frames import encode_binary, encode_text
from .namespaces import SlowConsumer

__all__ = ["Encoded", "Source"]


@attrs.frozen
class Source:
    """Where a publication comes from, for those who may have to drop it on its way to a slow consumer.

    Attributes:
        channel: The channel's name.
        epoch: The life of the stream in which `offset` counts.
        offset: The publication's number there.
        policy: What to do where it waits for too long.
        key: Under what `SlowConsumer.LATEST` conflates.
        presence: Whether it belongs to the channel's comings and goings, which are a stream of their own.
    """

    channel: str
    epoch: str
    offset: int
    policy: SlowConsumer = SlowConsumer.DISCONNECT
    key: str = ""
    presence: bool = False


class Encoded:
    """One message for any number of receivers: each wire's form is made at most once.

    A file is held in each of the forms that are asked for, and in no form that only others are made of.

    Equal to another by content: `json`, `event` and `id`.

    Args:
        head: JSON in UTF-8 without line breaks: the message, or what of it is no file.
        event: The event's name on an event stream.
        id: On an event stream, the id to resume after; ``None`` for a message that does not move the client's position.
        source: The stream that it is a publication of, or ``None`` for what is said to one connection.
        data: The file in a message that is one; then `head` is not empty, and all receivers share the bytes.
    """

    __slots__ = (
        "_event_stream",
        "_frame",
        "_json_frame",
        "_payload",
        "_text",
        "data",
        "event",
        "head",
        "id",
        "source",
    )

    def __init__(
        self,
        head: bytes,
        event: str | None = None,
        *,
        id: str | None = None,
        source: Source | None = None,
        data: Bytes | None = None,
    ) -> None:
        self.head = head
        self.event = event
        self.id = id
        self.source = source
        self.data = data
        self._json_frame: bytes | None = None
        self._frame: bytes | None = None
        self._payload: bytes | None = None
        self._event_stream: bytes | None = None
        self._text: str | None = None

    @property
    def size(self) -> int:
        """How many bytes it counts as: those of the JSON and of the file, as it is and not as base64."""
        return len(self.head) if self.data is None else len(self.head) + len(self.data)

    @property
    def json(self) -> bytes:
        """The whole message as JSON, a file as base64 (RFC 4648, section 4) in ``binary_data``: made anew each time."""
        if self.data is None:
            return self.head
        return b"".join((self.head[:-1], b',"binary_data":"', b2a_base64(self.data, newline=False), b'"}'))

    @property
    def frame(self) -> bytes:
        """An unmasked WebSocket frame (RFC 6455, section 5.6): text, or binary for a file."""
        if self._frame is None:
            if self.data is None:
                self._frame = encode_text(self.head)
            else:
                self._frame = encode_binary(encode_payload(self.head, self.data))
        return self._frame

    @property
    def json_frame(self) -> bytes:
        """An unmasked WebSocket text frame, for receivers that take nothing else."""
        if self.data is None:
            return self.frame
        if self._json_frame is None:
            self._json_frame = encode_text(self.json)
        return self._json_frame

    @property
    def payload(self) -> bytes:
        """The payload of the binary frame of a message that is a file, for hosts that frame for themselves."""
        assert self.data is not None, "the caller has looked"
        if self._payload is None:
            self._payload = encode_payload(self.head, self.data)
        return self._payload

    @property
    def event_stream(self) -> bytes:
        """An event of a ``text/event-stream`` (WHATWG HTML, section 9.2)."""
        if self._event_stream is None:
            data = self.json if self.head else None
            self._event_stream = encode_event(data, event=self.event, id=self.id)
        return self._event_stream

    @property
    def text(self) -> str:
        """The JSON as text, for hosts that frame for themselves."""
        if self._text is None:
            self._text = self.json.decode()
        return self._text

    def with_id(self, id: str | None) -> Encoded:
        """Return the same message, with another id to resume after, or none."""
        return Encoded(self.head, self.event, id=id, source=self.source, data=self.data)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Encoded):
            return NotImplemented
        return (self.head, self.data, self.event, self.id) == (other.head, other.data, other.event, other.id)

    def __hash__(self) -> int:
        return hash((self.head, self.event, self.id))

    def __repr__(self) -> str:
        data = "" if self.data is None else f", data=<{len(self.data)} bytes>"
        return f"Encoded({self.head!r}, event={self.event!r}, id={self.id!r}{data})"
