"""The fan-out: what was delivered during a tick is joined, once, and written to every receiver with one call.

A delivery enters a log, which costs the same whatever the number of receivers. At the end of the tick the log is
merged: each receiver points to a `Batch`, the messages that it is to hear, in order. Receivers of the same messages
share one batch, and so the same joined bytes, whichever channels they came from. Then the batches are written: at once
to the receivers of small deliveries (an answer to one client must not wait behind a channel of thousands), and in
slices to the rest, between which the event loop runs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from itertools import islice
from operator import itemgetter
from typing import Final, Protocol, TypeAlias

import anyio
import anyio.lowlevel

from rtcore import Encoded

__all__ = ["SLICE", "Batch", "Fanout", "Outlet"]

#: How many receivers are written to before the event loop runs: half a millisecond's work, where 5,000 at once would be
#: 40. An echo waits for two or three slices. Smaller ones cost throughput: each comes with a pass of the event loop.
SLICE: Final = 64

# Deliveries to at most so many receivers do not wait for the slices of larger ones.
_SMALL: Final = 8

# With so many bytes logged and not yet written the loop no longer runs between slices, so that publishers, who fill the
# log, wait for the writes to catch up.
_MAX_PENDING: Final = 2**22

_Entry: TypeAlias = tuple[int, Encoded]
_by_number: Final = itemgetter(0)


class Batch:
    """Messages in the order in which they were delivered; each wire's form of the whole is made at most once.

    Attributes:
        count: How many messages there are.
    """

    # Read once for every receiver, so plain attributes after the first time.
    def __init__(self, entries: list[_Entry]) -> None:
        self.count = len(entries)
        self._entries = entries
        self._then: dict[Batch, Batch] = {}

    def then(self, other: Batch) -> Batch:
        """Return the batch of these messages and those of `other`; the same one for the same `other`."""
        both = self._then.get(other)
        if both is None:
            both = self._then[other] = Batch(sorted(self._entries + other._entries, key=_by_number))
        return both

    @cached_property
    def messages(self) -> list[Encoded]:
        """The messages, for receivers that take them one by one."""
        return [message for _, message in self._entries]

    @cached_property
    def frames(self) -> bytes:
        """All of them as WebSocket frames."""
        return b"".join([message.frame for message in self.messages])

    @cached_property
    def json_frames(self) -> bytes:
        """All of them as WebSocket text frames, for receivers that take nothing else."""
        return b"".join([message.json_frame for message in self.messages])

    @cached_property
    def event_stream(self) -> bytes:
        """All of them as events of an event stream."""
        return b"".join([message.event_stream for message in self.messages])


class Outlet(Protocol):
    """Where one connection's messages go."""

    def deliver(self, batch: Batch) -> None:
        """Write the batch, or keep it, without blocking and without raising."""
        ...

    def close(self, code: int, reason: str) -> None:
        """Begin to end the connection, after everything delivered so far; neither blocks nor raises."""
        ...


class Fanout:
    """The deliveries that are under way.

    Attributes:
        outlets: The outlet of each connection; a connection without one is passed over.
        delivered: How many deliveries to one receiver each were asked for so far.
    """

    def __init__(self) -> None:
        self.outlets: dict[str, Outlet] = {}
        self.delivered = 0
        self._log: list[tuple[Encoded, tuple[str, ...], str | None]] = []
        self._pending: dict[Outlet, Batch] = {}
        self._pending_bytes = 0
        self._number = 0
        self._wake = anyio.Event()
        self._woken = False

    @property
    def idle(self) -> bool:
        """Whether nothing waits to be written."""
        return not self._log and not self._pending

    def add(self, message: Encoded, connections: tuple[str, ...], skip: str | None = None) -> None:
        """Log the delivery of `message` to `connections` but `skip`; it is written when `run` gets to it.

        Args:
            message: What to deliver.
            connections: Whom to; passing the same object again makes joining cheap.
            skip: Whom not to.
        """
        if not self._log:
            self._wake.set()
        self._log.append((message, connections, skip))
        self.delivered += len(connections)

    def wake(self) -> None:
        """Have `run` call its ``after_slice`` soon, even if there is nothing to write."""
        self._woken = True
        self._wake.set()

    def settle(self, connection_id: str) -> None:
        """Write at once all that was delivered to one connection so far."""
        self._merge()
        outlet = self.outlets.get(connection_id)
        if outlet is not None and (batch := self._pending.pop(outlet, None)) is not None:
            outlet.deliver(batch)

    async def run(self, after_slice: Callable[[], None]) -> None:
        """Write what is logged, at the end of each tick, until cancelled.

        Args:
            after_slice: Called after each slice of writes, and after `wake`.
        """
        while True:
            if self.idle and not self._woken:
                # A new one each time: events belong to the event loop in which they are waited for.
                self._wake = anyio.Event()
                await self._wake.wait()
            self._woken = False
            after_slice()
            while not self.idle:
                self._merge()
                self._write_slice()
                after_slice()
                if self._pending_bytes < _MAX_PENDING:
                    await anyio.lowlevel.checkpoint()

    def _merge(self) -> None:
        """Move the log to the receivers' batches, and write the small deliveries."""
        log = self._log
        if not log:
            return
        self._log = []
        groups: dict[tuple[int, str | None], tuple[tuple[str, ...], list[_Entry]]] = {}
        number = self._number
        for message, connections, skip in log:
            number += 1
            self._pending_bytes += message.size
            # The log holds the tuples, so no two of them have the same id.
            key = (id(connections), skip)
            group = groups.get(key)
            if group is None:
                groups[key] = (connections, [(number, message)])
            else:
                group[1].append((number, message))
        self._number = number
        outlets, pending = self.outlets, self._pending
        urgent: list[Outlet] = []
        for (_, skip), (connections, entries) in groups.items():
            batch = Batch(entries)
            if not pending and len(connections) > SLICE:
                # The hot case, one large channel after another, without a turn of the loop below for each receiver.
                pending.update(dict.fromkeys(filter(None, map(outlets.get, connections)), batch))
                if skip is not None and (skipped := outlets.get(skip)) is not None:
                    pending.pop(skipped, None)
                continue
            small = len(connections) <= _SMALL
            for connection_id in connections:
                outlet = outlets.get(connection_id)
                if outlet is None or connection_id == skip:
                    continue
                before = pending.get(outlet)
                pending[outlet] = batch if before is None else before.then(batch)
                if small:
                    urgent.append(outlet)
        for outlet in urgent[:SLICE]:
            waiting = pending.pop(outlet, None)
            if waiting is not None:
                outlet.deliver(waiting)

    def _write_slice(self) -> None:
        """Write to the next receivers, at most `SLICE`."""
        pending = self._pending
        for outlet in list(islice(pending, SLICE)):
            outlet.deliver(pending.pop(outlet))
        if not pending:
            self._pending_bytes = 0
