"""The body of a request on an HTTP/1.1 connection (RFC 9112, section 6), read as it comes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Final

import anyio
import h11

from rtcore import Refusal, RtcoreError
from rtcore.handshake import fault_of

from .carriers import Carrier
from .server_limits import ServerLimits

__all__ = ["BodyFault", "RequestBody", "body_of"]

# A large one takes a third less of the processor in reads of this size than of 64 KiB.
_READ: Final = 2**18
# Bytes that a chunk may have beside what it carries, for its length and line ends; in all there may be more.
_CHUNK_FRAME: Final = 16


class BodyFault(RtcoreError):
    """No more of a body is to be had.

    Attributes:
        refusal: Why; ``None`` where the client is gone.
    """

    def __init__(self, refusal: Refusal | None) -> None:
        super().__init__("the client is gone" if refusal is None else refusal.message)
        self.refusal = refusal


class RequestBody(ABC):
    """A body, read in pieces.

    Args:
        http: The parser, which has just given the head of the request.
        carrier: What it comes on.
        limits: How large what is no body may be, and how long it may stop.
    """

    def __init__(self, http: h11.Connection, carrier: Carrier, limits: ServerLimits) -> None:
        self._http = http
        self._carrier = carrier
        self._limits = limits

    @abstractmethod
    async def read(self) -> bytes:
        """Return the next piece; nothing at the end. Raises `BodyFault`."""

    @property
    @abstractmethod
    def complete(self) -> bool:
        """Whether all of it was read."""

    @property
    @abstractmethod
    def lets_follow(self) -> bool:
        """Whether another request may follow it, as far as the client is concerned."""

    @abstractmethod
    def may_exceed(self, size: int) -> bool:
        """Tell whether more than so many bytes may be left."""

    @property
    @abstractmethod
    def has_next(self) -> bool:
        """Whether some of the next request is there."""

    @abstractmethod
    def keep(self, data: bytes) -> None:
        """Keep what was read of the next request."""

    @abstractmethod
    def next_cycle(self) -> h11.Connection:
        """Return the parser for the next request, which has what is there of it."""

    async def _receive(self, size: int = _READ) -> bytes:
        timeout = self._limits.body_timeout
        with anyio.move_on_after(timeout) as waiting:
            if data := await self._carrier.receive(size):
                return data
        if waiting.cancelled_caught:
            raise BodyFault(Refusal("request_timeout", f"the request's body stopped for {timeout:g} s", 408))
        raise BodyFault(None)


class _SizedBody(RequestBody):
    """A body whose length is told.

    Its bytes do not pass through the parser, which would copy each of them three times: a file is all that comes.
    """

    def __init__(self, http: h11.Connection, carrier: Carrier, limits: ServerLimits, size: int) -> None:
        super().__init__(http, carrier, limits)
        early, _ = http.trailing_data
        self._early = early[:size]
        self._next = early[size:]
        self._left = size

    @property
    def complete(self) -> bool:
        return not self._left

    @property
    def lets_follow(self) -> bool:
        return self.complete

    async def read(self) -> bytes:
        data, self._early = self._early, b""
        if not data and self._left:
            # No more than that: what comes behind it is the next request.
            data = await self._receive(min(_READ, self._left))
        self._left -= len(data)
        return data

    def may_exceed(self, size: int) -> bool:
        return self._left > size

    @property
    def has_next(self) -> bool:
        return bool(self._next)

    def keep(self, data: bytes) -> None:
        self._next += data

    def next_cycle(self) -> h11.Connection:
        http = h11.Connection(h11.SERVER, max_incomplete_event_size=self._limits.max_head)
        if self._next:
            http.receive_data(self._next)
        return http


class _ParsedBody(RequestBody):
    """A body in chunks, or none."""

    def __init__(self, http: h11.Connection, carrier: Carrier, limits: ServerLimits, *, chunked: bool) -> None:
        super().__init__(http, carrier, limits)
        self._chunked = chunked
        self._complete = False
        # Bytes received, and those of them that may be accounted for.
        self._received = 0
        self._carried = 0

    @property
    def complete(self) -> bool:
        return self._complete

    @property
    def lets_follow(self) -> bool:
        return self._http.their_state is h11.DONE

    async def read(self) -> bytes:
        while not self._complete:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                text = f"the request's body is malformed: {fault_of(error)}"
                raise BodyFault(Refusal("malformed_request", text, 400)) from None
            if isinstance(event, h11.Data):
                self._carried += len(event.data) + (_CHUNK_FRAME if event.chunk_start else 0)
                return bytes(event.data)
            if isinstance(event, h11.EndOfMessage):
                self._complete = True
            elif event is not h11.NEED_DATA:
                raise BodyFault(None)
            elif self._received - self._carried > 2 * self._limits.max_head:
                # h11 bounds each of them, and throws them away, but not how many there are.
                raise BodyFault(Refusal("malformed_request", "the request's body is mostly chunk extensions", 400))
            else:
                data = await self._receive()
                self._received += len(data)
                self._http.receive_data(data)
        return b""

    def may_exceed(self, size: int) -> bool:
        return self._chunked and not self._complete

    @property
    def has_next(self) -> bool:
        return bool(self._http.trailing_data[0])

    def keep(self, data: bytes) -> None:
        self._http.receive_data(data)

    def next_cycle(self) -> h11.Connection:
        self._http.start_next_cycle()
        return self._http


def body_of(request: h11.Request, http: h11.Connection, carrier: Carrier, limits: ServerLimits) -> RequestBody:
    """Return the body of a request whose head the parser has just given."""
    fields = dict(request.headers)
    # "If a message is received with both a Transfer-Encoding and a Content-Length header field, the Transfer-Encoding
    # overrides the Content-Length." (RFC 9112, section 6.3)
    chunked = b"transfer-encoding" in fields
    size = 0 if chunked else int(fields.get(b"content-length", b"0"))
    if size:
        return _SizedBody(http, carrier, limits, size)
    return _ParsedBody(http, carrier, limits, chunked=chunked)
