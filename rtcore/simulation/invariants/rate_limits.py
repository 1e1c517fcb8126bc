"""Who talks too fast is told so, and for how long to be silent, before anything worse happens; nothing is half done."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

import attrs
import msgspec

from rtcore.encoded import Encoded
from rtcore.errors import CloseCode

from .invariant import Invariant
from .ledger import Ledger, number_of

if TYPE_CHECKING:
    from rtcore.simulation.server import SimulatedServer

__all__ = ["RateLimits"]

_decode = msgspec.json.Decoder().decode
# Refusals that are further apart are not in a row; and one warns once in so many seconds.
_INTERVAL = 1.0


@attrs.define(eq=False)
class _Warned:
    """The refusals of one connection, in a row.

    Attributes:
        count: How many of them, at least an interval apart, there were.
        counted_at: When the last of those was.
        refused_at: When the last of all was.
    """

    count: int = 0
    counted_at: float = -inf
    refused_at: float = -inf


class RateLimits(Invariant):
    """Nothing that was refused is published, and nobody is expelled who was not warned.

    Args:
        ledger: What was published.

    Attributes:
        refused: How many messages were.
        expelled: How many connections were ended (4429).
    """

    name = "rate_limits_are_fair"

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.refused = 0
        self.expelled = 0
        # By connection and id, the number of what it asks to publish.
        self._asked: dict[tuple[str, object], int] = {}
        # How often each number has come, and how often it was refused.
        self._came: dict[int, int] = {}
        self._turned_away: dict[int, int] = {}
        self._warned: dict[str, _Warned] = {}

    def server_received(self, server: SimulatedServer, connection_id: str, text: str) -> None:
        """See `Observer`."""
        if server.config.node.rate_limits.connection is None and server.config.node.rate_limits.user is None:
            return
        message = _decode(text)
        number = number_of(message)
        if number is not None:
            self._asked[connection_id, message.get("id")] = number
            self._came[number] = self._came.get(number, 0) + 1

    def server_delivers(self, server: SimulatedServer, message: Encoded, receivers: tuple[str, ...]) -> None:
        """See `Observer`."""
        if message.source is not None:
            return
        if message.json.startswith(b'{"type":"error"'):
            error = _decode(message.json)
            if error["code"] == "rate_limited":
                self._refuse(server, receivers[0], error)
        elif message.json.startswith(b'{"type":"disconnect"'):
            farewell = _decode(message.json)
            if farewell["code"] == CloseCode.RATE_LIMITED:
                self._expel(server, receivers[0], farewell)

    def at_rest(self) -> None:
        """See `Invariant`."""
        for number, times in self._turned_away.items():
            # What came more than once may have been published the other time.
            if times == self._came[number] and number in self._ledger.by_number:
                raise self.broken(f"{number} was refused {times} times, and is {self._ledger.by_number[number][0]}")

    def _refuse(self, server: SimulatedServer, connection_id: str, error: dict[str, object]) -> None:
        self.refused += 1
        number = self._asked.pop((connection_id, error.get("id")), None)
        if number is not None:
            self._turned_away[number] = self._turned_away.get(number, 0) + 1
        self._check_wait(error, connection_id)
        warned, now = self._row(server, connection_id)
        if not warned.count or now - warned.counted_at >= _INTERVAL:
            warned.count += 1
            warned.counted_at = now
        warned.refused_at = now

    def _expel(self, server: SimulatedServer, connection_id: str, farewell: dict[str, object]) -> None:
        self.expelled += 1
        self._check_wait(farewell, connection_id)
        warned, _ = self._row(server, connection_id)
        warnings = server.config.node.rate_limits.warnings
        if warned.count < warnings:
            raise self.broken(f"{connection_id} is expelled after {warned.count} warnings of {warnings}")

    def _row(self, server: SimulatedServer, connection_id: str) -> tuple[_Warned, float]:
        """Return the refusals in a row as of now, which is returned too."""
        now = server.now()
        warned = self._warned.setdefault(connection_id, _Warned())
        if now - warned.refused_at > _INTERVAL:
            warned.count = 0
        return warned, now

    def _check_wait(self, message: dict[str, object], connection_id: str) -> None:
        retry_after = message.get("retry_after")
        if not isinstance(retry_after, int | float) or retry_after <= 0:
            raise self.broken(f"{connection_id} is not told for how long to wait: {message}")
