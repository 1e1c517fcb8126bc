"""What a channel has said and can say again, bounded in number, time and bytes."""

from __future__ import annotations

from collections import deque
from itertools import islice

from .encoded import Encoded

__all__ = ["History", "Memory", "Publication"]


class Publication:
    """One publication that is held.

    Attributes:
        seq: Its number among all of its router.
        offset: Its number in its stream.
        message: As it was delivered.
        expires_at: When the history lets go of it, in monotonic seconds.
    """

    __slots__ = ("expires_at", "in_history", "kept", "message", "offset", "seq")

    def __init__(self, seq: int, offset: int, message: Encoded, expires_at: float) -> None:
        self.seq = seq
        self.offset = offset
        self.message = message
        self.expires_at = expires_at
        self.in_history = False
        self.kept = False

    def __repr__(self) -> str:
        return f"Publication({self.seq}, {self.offset}, {self.message!r})"


class Memory:
    """The bytes that all histories of a router hold together; beyond the limit the oldest publications go first.

    Args:
        max_bytes: Bytes of JSON.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self.bytes = 0
        # In the order of their numbers, so the first is the oldest, of its history too.
        self._held: dict[int, tuple[History, Publication]] = {}

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, history: History, publication: Publication) -> None:
        """Count a publication in."""
        self._held[publication.seq] = (history, publication)
        self.bytes += publication.message.size
        while self.bytes > self._max_bytes:
            oldest_of, oldest = next(iter(self._held.values()))
            oldest_of.let_go(oldest)

    def release(self, publication: Publication) -> None:
        """Count a publication out."""
        del self._held[publication.seq]
        self.bytes -= publication.message.size


class History:
    """The publications of one stream that can be replayed, and those kept for later joiners.

    Args:
        size: How many can be replayed.
        ttl: For how many seconds.
        persistent_size: How many are kept for later joiners, beside that.
        memory: What counts the bytes.
        lost_seq: The number, among all of the router, of the newest publication that this stream may have forgotten
            before it began.

    Attributes:
        offset: Of the last publication; 0 before the first.
        lost: The offset of the newest publication that cannot be replayed; 0 if all can.
        lost_seq: Its number among all of the router.
    """

    __slots__ = ("_kept", "_memory", "_persistent_size", "_publications", "_size", "_ttl", "lost", "lost_seq", "offset")

    def __init__(self, *, size: int, ttl: float, persistent_size: int, memory: Memory, lost_seq: int = 0) -> None:
        self._size = size
        self._ttl = ttl
        self._persistent_size = persistent_size
        self._memory = memory
        self._publications: deque[Publication] = deque()
        self._kept: deque[Publication] = deque()
        self.offset = 0
        self.lost = 0
        self.lost_seq = lost_seq

    @property
    def last_seq(self) -> int:
        """The number of the last publication, held or not; at least `lost_seq`."""
        return self._publications[-1].seq if self._publications else self.lost_seq

    @property
    def keeps(self) -> bool:
        """Whether something is kept for later joiners."""
        return bool(self._kept)

    def append(self, seq: int, message: Encoded, *, persistent: bool, now: float) -> None:
        """Number one more publication, `seq` among all of the router, and hold it as long as the limits allow."""
        self.offset += 1
        publication = Publication(seq, self.offset, message, now + self._ttl)
        self._publications.append(publication)
        publication.in_history = True
        if persistent and self._persistent_size:
            self._kept.append(publication)
            publication.kept = True
        # Counted in before anything is dropped, so that what is dropped has been.
        self._memory.hold(self, publication)
        while len(self._publications) > self._size:
            self._drop_oldest()
        while len(self._kept) > self._persistent_size:
            self._unkeep_oldest()
        self.expire(now=now)

    def expire(self, *, now: float) -> None:
        """Let go of what has been held for long enough."""
        while self._publications and self._publications[0].expires_at <= now:
            self._drop_oldest()

    def next_timeout(self) -> float | None:
        """Return when `expire` has something to let go of, in monotonic seconds, or ``None``."""
        return self._publications[0].expires_at if self._publications else None

    def let_go(self, publication: Publication) -> None:
        """Let go of the oldest publication that is held, whatever it is held for."""
        if publication.in_history:
            assert publication is self._publications[0], "what is older went before"
            self._drop_oldest()
        if publication.kept:
            assert publication is self._kept[0], "likewise"
            self._unkeep_oldest()

    def clear(self) -> None:
        """Let go of everything."""
        while self._publications:
            self._drop_oldest()
        while self._kept:
            self._unkeep_oldest()

    def restart(self) -> None:
        """Begin to count anew: nothing that was said before can be replayed."""
        self.clear()
        self.offset = self.lost = 0

    def since(self, offset: int) -> list[Publication] | None:
        """Return what was published after `offset`, in order; ``None`` unless all of it is held."""
        if not self.lost <= offset <= self.offset:
            return None
        return self._newest(self.offset - offset)

    def after_seq(self, seq: int) -> list[Publication]:
        """Return what can be replayed of what was published after number `seq` of the router, in order.

        It is all of that unless `lost_seq` is above `seq`.
        """
        count = 0
        for publication in reversed(self._publications):
            if publication.seq <= seq:
                break
            count += 1
        return self._newest(count)

    def kept(self, *, after: int = 0) -> list[Publication]:
        """Return what is kept for later joiners with an offset above `after`, in order."""
        return [publication for publication in self._kept if publication.offset > after]

    def kept_between(self, after: int, up_to: int) -> list[Publication]:
        """Return what is kept with a number of the router above `after` and at most `up_to`, in order."""
        return [publication for publication in self._kept if after < publication.seq <= up_to]

    def page(self, *, after: int | None, before: int | None, limit: int) -> list[Publication]:
        """Return the `limit` publications next to a bound, in order.

        Args:
            after: The offset that they come after; or
            before: the offset that they come before. Without either they are the newest.
            limit: How many at most.
        """
        if after is not None:
            return list(islice((each for each in self._publications if each.offset > after), limit))
        newest = (each for each in reversed(self._publications) if before is None or each.offset < before)
        return list(islice(newest, limit))[::-1]

    def _newest(self, count: int) -> list[Publication]:
        return list(islice(reversed(self._publications), count))[::-1]

    def _drop_oldest(self) -> None:
        publication = self._publications.popleft()
        publication.in_history = False
        self.lost, self.lost_seq = publication.offset, publication.seq
        if not publication.kept:
            self._memory.release(publication)

    def _unkeep_oldest(self) -> None:
        publication = self._kept.popleft()
        publication.kept = False
        if not publication.in_history:
            self._memory.release(publication)
