"""``/events`` on the native server: the realtime protocol of a `rtcore.Node` as an event stream."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from rtcore import Encoded, Transport, encode_retry
from rtcore.handshake import Headers

from .admission import Admission
from .carriers import Carrier
from .driver import Driver
from .fanout import Batch
from .outlets import CarrierOutlet

__all__ = ["EVENT_STREAM_HEADERS", "RealtimeEventStream"]

#: Neither kept nor held back: ``X-Accel-Buffering`` tells nginx, ``no-transform`` those that would compress it.
EVENT_STREAM_HEADERS: Final = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
)


class RealtimeEventStream(CarrierOutlet):
    """One client of the node on an event stream; its outlet.

    Args:
        carrier: On which the request has been read.
        driver: Whose node it belongs to.
        connection_id: The id that the node knows it by.
        retry: Milliseconds after which the client is to open the stream again.
    """

    __slots__ = ("_retry",)

    def __init__(self, carrier: Carrier, driver: Driver, connection_id: str, *, retry: int) -> None:
        super().__init__(carrier, driver, connection_id)
        self._retry = retry

    def deliver(self, batch: Batch) -> None:
        """See `rtcore_transports.fanout.Outlet`."""
        if self._listening and not self._offer(batch.event_stream):
            self._keep(batch)

    def close(self, code: int, reason: str) -> None:
        """See `rtcore_transports.fanout.Outlet`."""
        self._bid_farewell(code, reason)
        self._carrier.finish()

    async def run(self, admission: Admission, headers: Headers = ()) -> None:
        """Send the stream until either side ends it.

        Args:
            admission: Who comes.
            headers: More of the response.
        """
        # The end of the connection is the end of the stream: no chunks, so that the bytes are the same for everybody.
        fields = (*EVENT_STREAM_HEADERS, *headers, (b"connection", b"close"))
        head = b"".join(name + b": " + value + b"\r\n" for name, value in fields)
        self._carrier.write(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n" + encode_retry(self._retry))
        self._driver.attach(self, self._connection_id, admission, transport=Transport.SSE)
        try:
            while await self._carrier.receive():
                pass  # Nothing more is expected; reading is how the end is noticed.
        finally:
            self._driver.detach(self._connection_id, self)
            self._flush()

    @staticmethod
    def _join(messages: Iterable[Encoded]) -> bytes:
        return b"".join([message.event_stream for message in messages])
