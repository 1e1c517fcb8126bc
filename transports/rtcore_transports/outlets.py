"""Where messages go on the native server: straight to the carrier, or to a backlog while the peer does not keep up."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Final

from rtcore import Encoded, disconnect_message, encode
from rtcore.backlog import Backlog

from .carriers import Carrier
from .driver import Driver
from .fanout import Batch

__all__ = ["CarrierOutlet"]

# So many bytes of a backlog are joined for one write: enough that a write is not all there is to it, and few enough
# for every one of many peers to stop reading in the midst of them.
_CHUNK: Final = 2**14


class CarrierOutlet(ABC):
    """The outlet of one connection of the native server; subclasses know the wire's form of a message.

    What is delivered is offered to the carrier, and for a peer that keeps up that is all. Otherwise the messages, which
    all receivers share, wait in a backlog until the carrier pulls them.

    Args:
        carrier: What the connection is on.
        driver: Whose node it belongs to.
        connection_id: The id that the node knows it by.
    """

    # All that a delivery looks at is the first two.
    __slots__ = ("_backlog", "_carrier", "_connection_id", "_driver", "_listening", "_offer", "_overflowed")

    def __init__(self, carrier: Carrier, driver: Driver, connection_id: str) -> None:
        self._listening = True
        self._offer = carrier.offer
        self._carrier = carrier
        self._driver = driver
        self._connection_id = connection_id
        self._backlog: Backlog | None = None
        self._overflowed = False

    @abstractmethod
    def deliver(self, batch: Batch) -> None:
        """See `rtcore_transports.fanout.Outlet`."""

    @abstractmethod
    def close(self, code: int, reason: str) -> None:
        """See `rtcore_transports.fanout.Outlet`."""

    @staticmethod
    @abstractmethod
    def _join(messages: Iterable[Encoded]) -> bytes:
        """Return messages as they are on the wire."""

    def _keep(self, batch: Batch) -> None:
        """Have a batch wait that the carrier has not taken."""
        if self._backlog is None:
            max_bytes, max_messages = self._carrier.limits
            self._backlog = self._driver.backlogs.open(max_bytes=max_bytes, max_messages=max_messages)
        if self._backlog.push(batch.messages):
            self._carrier.pull(self._pull)
        else:
            self._listening = False
            self._overflowed = True
            self._driver.slow(self._connection_id, self)

    def _bid_farewell(self, code: int, reason: str) -> None:
        """Say why the connection is closed to a peer whose backlog was full, in place of what waits."""
        if self._overflowed:
            self._forget()
            self._carrier.write(self._join([encode(disconnect_message(code, reason))]))
        self._listening = False

    def _flush(self) -> None:
        """Hand what waits over to the carrier, behind which something is to come; nothing more is delivered."""
        self._listening = False
        if self._backlog is not None:
            if not self._overflowed and not self._carrier.gone:
                while messages := self._backlog.pop(_CHUNK):
                    for message in messages:
                        # One by one they are the same bytes for everybody.
                        self._carrier.write(self._join([message]))
            self._forget()

    def _forget(self) -> None:
        if self._backlog is not None:
            self._driver.backlogs.close(self._backlog)
            self._backlog = None

    def _pull(self) -> bytes:
        messages = [] if self._backlog is None else self._backlog.pop(_CHUNK)
        if not messages:
            self._forget()
        return self._join(messages)
