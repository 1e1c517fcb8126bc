"""Outlets that remember, for drivers without a transport."""

from __future__ import annotations

import anyio

from rtcore import Transport
from rtcore.permissions import OPEN
from rtcore_transports import Admission, Driver
from rtcore_transports.fanout import Batch

from .servers import TIMEOUT

__all__ = ["Outlet", "attach"]


class Outlet:
    """Remembers what it is given.

    Attributes:
        heard: The messages, as text.
        closed: The code and the reason, once it is closed.
        news: Is set by the next thing that happens.
    """

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.closed: tuple[int, str] | None = None
        self.news = anyio.Event()

    def deliver(self, batch: Batch) -> None:
        """See `rtcore_transports.Outlet`."""
        assert self.closed is None
        self.heard += [message.text for message in batch.messages]
        self._tell()

    def close(self, code: int, reason: str) -> None:
        """See `rtcore_transports.Outlet`."""
        self.closed = (code, reason)
        self._tell()

    def _tell(self) -> None:
        self.news.set()
        self.news = anyio.Event()

    async def hears(self, what: str) -> str:
        """Return the first message that has `what` in it, once it is there."""
        with anyio.fail_after(TIMEOUT):
            while not any(what in text for text in self.heard):
                await self.news.wait()
        return next(text for text in self.heard if what in text)


def attach(driver: Driver, connection_id: str, user_id: str | None = None, *channels: str) -> Outlet:
    """Connect somebody who may do what anybody may."""
    outlet = Outlet()
    driver.attach(outlet, connection_id, Admission(user_id, channels, grant=OPEN), transport=Transport.WEBSOCKET)
    return outlet
