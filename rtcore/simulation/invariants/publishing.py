"""What is published is in its channel once if it was acknowledged, and at most once in any case."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rtcore.encoded import Encoded
from rtcore.messages import Message

from .invariant import Invariant
from .ledger import Ledger, Publication, number_of

if TYPE_CHECKING:
    from rtcore.simulation.client import SimulatedClient
    from rtcore.simulation.server import SimulatedServer

__all__ = ["Publishing"]

# Of what may have been published or not.
_UNCERTAIN: Final = ("cancelled_late", "connection_lost", "ended", "timeout")


class Publishing(Invariant):
    """An acknowledged publication is in the channel once, a refused one not at all, any other at most once.

    What several clients of a user publish under one id is one publication as long as a server remembers the first.

    Args:
        ledger: What was published.

    Attributes:
        acknowledged: How many were.
        refused: How many were not, by code.
    """

    name = "published_once"

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.acknowledged = 0
        self.refused: dict[str, int] = {}
        # What publishers were told was not published, with the code.
        self._not_published: dict[int, str] = {}
        # How often each client has published each number.
        self._publishers: dict[int, dict[str, int]] = {}

    def client_publishes(self, client: SimulatedClient, message: Message, data: bytes | None = None) -> None:
        """See `Observer`."""
        number = number_of(message)
        if number is not None:
            by = self._publishers.setdefault(number, {})
            by[client.name] = by.get(client.name, 0) + 1

    def server_delivers(self, server: SimulatedServer, message: Encoded, receivers: tuple[str, ...]) -> None:
        """See `Observer`; the ledger is told before."""
        source = message.source
        if source is not None and not source.presence:
            number = self._ledger.publications[source.epoch, source.offset].number
            if number is not None:
                self._check(number)

    def client_published(self, client: SimulatedClient, number: int, receipt: Message) -> None:
        """See `Observer`."""
        self.acknowledged += 1
        self._check(number)
        published = self._ledger.by_number.get(number)
        if published is None:
            raise self.broken(f"{client} has an acknowledgement for {number}, which was never published: {receipt}")
        told = (receipt["channel"], receipt["epoch"], receipt["offset"])
        if told not in [(each.line.channel, each.epoch, each.offset) for each in published]:
            raise self.broken(f"{client} is told that {number} is {told}, but it is {', '.join(map(str, published))}")

    def client_refused(self, client: SimulatedClient, number: int, code: str) -> None:
        """See `Observer`."""
        self.refused[code] = self.refused.get(code, 0) + 1
        if code not in _UNCERTAIN:
            self._not_published[number] = code

    def at_rest(self) -> None:
        """See `Invariant`."""
        for number in self._ledger.by_number:
            self._check(number)
        for number, code in self._not_published.items():
            if number in self._ledger.by_number and self._asked(number) <= 1:
                raise self.broken(f"the publisher of {number} was told {code}, but it was published")

    def _asked(self, number: int) -> int:
        return sum(self._publishers.get(number, {}).values())

    def _check(self, number: int) -> None:
        publications = self._ledger.by_number.get(number, [])
        if len(publications) < 2:
            return
        if len(self._publishers.get(number, {})) > 1:
            # Different servers, and different lives, know nothing of each other.
            lives: dict[str, Publication] = {}
            for each in publications:
                before = lives.get(each.line.life)
                if before is not None and each.clock - before.clock <= each.line.window:
                    break
                lives[each.line.life] = each
            else:
                return
        raise self.broken(f"{number} was published {len(publications)} times: {', '.join(map(str, publications))}")
