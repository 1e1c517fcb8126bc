"""Which publications were made before, so that a repetition is answered and not repeated."""

from __future__ import annotations

from typing import Final, Generic, TypeAlias, TypeVar

import attrs

__all__ = ["Idempotency", "Publisher"]

ResultT = TypeVar("ResultT")

_Id: TypeAlias = str | int


@attrs.frozen
class Publisher:
    """Whose publications are compared with each other.

    Attributes:
        kind: ``user``, ``session``, ``connection`` or, for programs, ``key``.
        user_id: The user, or ``None`` for somebody anonymous.
        name: The session's secret, the connection's id or the name of the key; empty for a user.
    """

    kind: str
    user_id: str | None
    name: str = ""


@attrs.define(eq=False)
class _Record(Generic[ResultT]):
    # A session's ids are its own, so its results last as long as it does: a client that is told that its session is
    # known may send again whatever was not acknowledged. Ids of a user may be used again after the window.
    timed: bool
    life: int
    connections: int = 0
    # By `repr` of the id: the hash of a text is drawn anew in each process, but which whole numbers share theirs
    # everybody knows, and each that is looked for would be compared with all that do.
    results: dict[str, tuple[ResultT, float]] = attrs.field(factory=dict)


class Idempotency(Generic[ResultT]):
    """The latest results of each publisher, by the id under which it published.

    A publisher is remembered while it is connected and for `window` seconds after, or after the last result of one that
    is not connected, as over HTTP.

    Args:
        window: Seconds.
        size: Results that are kept of each publisher; the oldest go first.
        max_idle: Publishers without a connection that are kept; the longest gone go first.
    """

    def __init__(self, *, window: float, size: int, max_idle: int) -> None:
        self._window = window
        self._size = size
        self._max_idle = max_idle
        self._records: dict[Publisher, _Record[ResultT]] = {}
        self._lives = 0
        # All wait equally long: first in, first out.
        self._idle: dict[Publisher, float] = {}

    def __len__(self) -> int:
        return len(self._records)

    def attach(self, publisher: Publisher) -> int:
        """Note one more connection of a publisher.

        Returns:
            Since when the publisher is remembered: a number that differs from all others. To know it again by one that
            was told is to know everything that it has published since then.
        """
        record = self._record(publisher)
        record.connections += 1
        self._idle.pop(publisher, None)
        return record.life

    def detach(self, publisher: Publisher, *, now: float) -> None:
        """Note the end of one connection of a publisher."""
        record = self._records[publisher]
        record.connections -= 1
        if record.connections:
            return
        if publisher.kind == "connection" or (record.timed and not record.results):
            # It never comes back, or there is nothing to remember it for. A session is remembered even so: that it has
            # published nothing is worth knowing too.
            del self._records[publisher]
            return
        self._rest(publisher, now=now)

    def find(self, publisher: Publisher, id: _Id, *, now: float) -> ResultT | None:
        """Return what came of the publication `id`, or ``None`` if it was not made within the window."""
        record = self._records.get(publisher)
        if record is None:
            return None
        found = record.results.get(repr(id))
        if found is None or (record.timed and now - found[1] > self._window):
            return None
        return found[0]

    def remember(self, publisher: Publisher, id: _Id, result: ResultT, *, now: float) -> None:
        """Note what came of the publication `id`."""
        if not self._size:
            return
        record = self._record(publisher)
        results = record.results
        key = repr(id)
        results.pop(key, None)
        results[key] = (result, now)
        if len(results) > self._size:
            del results[next(iter(results))]
        if not record.connections:
            self._idle.pop(publisher, None)
            self._rest(publisher, now=now)

    def next_timeout(self) -> float | None:
        """Return when the next publisher is forgotten, or ``None``."""
        return next(iter(self._idle.values()), None)

    def handle_timeout(self, *, now: float) -> None:
        """Forget the publishers that have been gone for long enough."""
        while (at := self.next_timeout()) is not None and at <= now:
            self._forget_oldest()

    def _record(self, publisher: Publisher) -> _Record[ResultT]:
        record = self._records.get(publisher)
        if record is None:
            self._lives += 1
            record = self._records[publisher] = _Record(timed=publisher.kind != "session", life=self._lives)
        return record

    def _rest(self, publisher: Publisher, *, now: float) -> None:
        self._idle[publisher] = now + self._window
        if len(self._idle) > self._max_idle:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        publisher: Final = next(iter(self._idle))
        del self._idle[publisher]
        del self._records[publisher]
