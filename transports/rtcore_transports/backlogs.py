"""The backlogs of all connections that do not keep up, and what has become of their messages."""

from __future__ import annotations

from rtcore import Message
from rtcore.backlog import Backlog

__all__ = ["Backlogs"]


class Backlogs:
    """Opens backlogs, and counts what happens in them.

    Attributes:
        slow_disconnects: How many connections were ended because their backlog was full; counted by who ends them.
    """

    def __init__(self) -> None:
        self.slow_disconnects = 0
        self._open: dict[Backlog, None] = {}
        self._dropped = 0
        self._gaps = 0

    def open(self, *, max_bytes: int, max_messages: int) -> Backlog:
        """Return a new backlog, which counts until it is closed."""
        backlog = Backlog(max_bytes=max_bytes, max_messages=max_messages)
        self._open[backlog] = None
        return backlog

    def close(self, backlog: Backlog) -> None:
        """Forget a backlog and what is in it; what it has counted stays."""
        del self._open[backlog]
        self._dropped += backlog.dropped
        self._gaps += backlog.gaps
        backlog.clear()

    def stats(self) -> Message:
        """Return the counts so far, and ``backlog_bytes``: how much waits now, in bytes of JSON."""
        return {
            "slow_disconnects": self.slow_disconnects,
            "dropped_messages": self._dropped + sum(backlog.dropped for backlog in self._open),
            "gaps": self._gaps + sum(backlog.gaps for backlog in self._open),
            "backlog_bytes": sum(backlog.bytes for backlog in self._open),
        }
