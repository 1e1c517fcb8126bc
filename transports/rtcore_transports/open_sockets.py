"""The sockets of a server, counted, and which of them is ended where there is no room for one more."""

from __future__ import annotations

import resource
import sys
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from .server_limits import ServerLimits

__all__ = ["OpenSocket", "OpenSockets"]

# Descriptors for everything else: the event loop, files, the application's connections, and those who are told that
# the server is full.
_RESERVE: Final = 64


class OpenSocket:
    """One connection, as `OpenSockets` knows it.

    Attributes:
        end: Ends it at once, so that its descriptor is free.
    """

    __slots__ = ("_address", "_all", "_left", "end")

    def __init__(self, all_: OpenSockets, address: str | None, end: Callable[[], None]) -> None:
        self.end = end
        self._all = all_
        self._address = address
        self._left = False

    def wait(self) -> None:
        """It has no complete request, and may be ended for another's sake; nothing changes if it waits already."""
        if not self._left:
            self._all.waiting.setdefault(self)
            self._all.of(self._address).waiting.setdefault(self)

    def work(self) -> None:
        """It has a complete request."""
        self._all.waiting.pop(self, None)
        if not self._left:
            self._all.of(self._address).waiting.pop(self, None)

    def leave(self) -> None:
        """It is closed; it may be told twice."""
        if not self._left:
            self.work()
            self._left = True
            self._all.forget(self._address)


class _Crowd:
    """The sockets of one address."""

    __slots__ = ("count", "waiting")

    def __init__(self) -> None:
        self.count = 0
        self.waiting: OrderedDict[OpenSocket, None] = OrderedDict()


class OpenSockets:
    """The sockets that are open, in the order in which they have begun to wait for a request.

    Args:
        limits: How many there may be.

    Attributes:
        waiting: Those without a complete request, who has waited longest first.
    """

    def __init__(self, limits: ServerLimits) -> None:
        self.waiting: OrderedDict[OpenSocket, None] = OrderedDict()
        self._max = limits.max_sockets or _affordable()
        self._max_per_address = limits.max_sockets_per_address
        self._count = 0
        self._crowds: dict[str | None, _Crowd] = {}

    def is_full(self, address: str | None) -> bool:
        """Tell whether there is no room for one more socket of an address."""
        return self._count >= self._max or self._is_crowded(address)

    def make_room(self, address: str | None) -> bool:
        """End who has waited longest, for one more socket of an address.

        Returns:
            Whether there is room now.
        """
        # One that makes room in the crowd of its address makes room for all.
        waiting = self.of(address).waiting if self._is_crowded(address) else self.waiting
        return self._end_first(waiting) and not self.is_full(address)

    def end_longest_waiting(self) -> bool:
        """End who has waited longest, of all. Returns whether anybody has."""
        return self._end_first(self.waiting)

    def enter(self, address: str | None, end: Callable[[], None]) -> OpenSocket:
        """Count one more, which begins by waiting."""
        self._count += 1
        self.of(address).count += 1
        entered = OpenSocket(self, address, end)
        entered.wait()
        return entered

    def of(self, address: str | None) -> _Crowd:
        """For `OpenSocket`: the sockets of an address."""
        crowd = self._crowds.get(address)
        if crowd is None:
            crowd = self._crowds[address] = _Crowd()
        return crowd

    def forget(self, address: str | None) -> None:
        """For `OpenSocket`: count one less."""
        self._count -= 1
        crowd = self.of(address)
        crowd.count -= 1
        if not crowd.count:
            del self._crowds[address]

    def _is_crowded(self, address: str | None) -> bool:
        crowd = self._crowds.get(address)
        return crowd is not None and self._max_per_address is not None and crowd.count >= self._max_per_address

    @staticmethod
    def _end_first(waiting: OrderedDict[OpenSocket, None]) -> bool:
        if not waiting:
            return False
        longest = next(iter(waiting))
        # It is not counted any more, though its task may take some turns of the event loop to see its end.
        longest.leave()
        longest.end()
        return True


def _affordable() -> int:
    """Return for how many sockets there are descriptors."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else max(soft - _RESERVE, soft // 2)
