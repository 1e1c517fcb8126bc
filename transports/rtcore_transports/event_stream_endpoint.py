"""``/events`` on the native server: the realtime protocol of a `rtcore.Node` as an event stream."""

from __future__ import annotations

from typing import Final

from rtcore import Transport, disconnect_message, encode, encode_retry

from .admission import Admission
from .carriers import Carrier
from .driver import Driver
from .fanout import Batch

__all__ = ["EVENT_STREAM_HEADERS", "RealtimeEventStream"]

#: Neither kept nor held back: ``X-Accel-Buffering`` tells nginx, ``no-transform`` those that would compress it.
EVENT_STREAM_HEADERS: Final = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
    (b"access-control-allow-origin", b"*"),
)

# The end of the connection is the end of the stream: no chunks, so that the bytes are the same for every receiver.
_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\n"
    + b"".join(name + b": " + value + b"\r\n" for name, value in EVENT_STREAM_HEADERS)
    + b"connection: close\r\n\r\n"
)


class RealtimeEventStream:
    """One client of the node on an event stream; its outlet.

    Args:
        carrier: On which the request has been read.
        driver: Whose node it belongs to.
        connection_id: The id that the node knows it by.
        retry: Milliseconds after which the client is to open the stream again.
    """

    def __init__(self, carrier: Carrier, driver: Driver, connection_id: str, *, retry: int) -> None:
        self._carrier = carrier
        self._driver = driver
        self._connection_id = connection_id
        self._retry = retry
        self._deaf = False

    def deliver(self, batch: Batch) -> None:
        """See `rtcore_transports.fanout.Outlet`."""
        if not self._deaf:
            self._carrier.write(batch.event_stream, batch.count)

    def close(self, code: int, reason: str) -> None:
        """See `rtcore_transports.fanout.Outlet`."""
        if self._deaf:
            self._carrier.discard()
            self._carrier.write(encode(disconnect_message(code, reason)).event_stream)
        self._deaf = True
        self._carrier.finish()

    async def run(self, admission: Admission) -> None:
        """Send the stream until either side ends it."""
        self._carrier.write(_HEAD + encode_retry(self._retry))
        self._carrier.on_overflow(self._overflow)
        self._driver.attach(
            self,
            self._connection_id,
            user_id=admission.user_id,
            transport=Transport.SSE,
            channels=admission.channels,
        )
        try:
            while await self._carrier.receive():
                pass  # Nothing more is expected; reading is how the end is noticed.
        finally:
            self._carrier.on_overflow(None)
            self._driver.detach(self._connection_id, self)

    def _overflow(self) -> None:
        self._deaf = True
        self._driver.slow(self._connection_id, self)
