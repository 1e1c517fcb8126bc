"""The commands of a client on their way to the server and back."""

from __future__ import annotations

from enum import Enum, auto

import attrs

from rtcore.deadlines import Deadlines
from rtcore.errors import QueueFull

__all__ = ["Kind", "Outbox", "Pending"]


class Kind(Enum):
    """What an answer belongs to."""

    CALL = auto()
    JOIN = auto()
    REJOIN = auto()
    LEAVE = auto()


@attrs.frozen
class Pending:
    """What an answer belongs to, and, but for a call, whose channel it is about."""

    kind: Kind
    channel: str = ""


class Outbox:
    """What waits for a connection, in a bounded queue, and what waits for an answer, with a time limit.

    Args:
        prefix: Begins the ids that are counted here.
        size: Messages and commands in the queue.
        timeout: Seconds from the sending of a command to its answer.
    """

    __slots__ = ("_answers_by", "_pending", "_prefix", "_queue", "_serial", "_size", "_timeout")

    def __init__(self, *, prefix: str, size: int, timeout: float) -> None:
        self._prefix = prefix
        self._serial = 0
        self._size = size
        self._timeout = timeout
        self._answers_by: Deadlines[str] = Deadlines()
        # Both by id, in the order of issue. A command in the queue is pending too; a plain message is not. A join
        # in the queue has no text, for on connecting every desired channel is joined anyway.
        self._queue: dict[str, str | None] = {}
        self._pending: dict[str, Pending] = {}

    def __contains__(self, token: str) -> bool:
        return token in self._pending

    def next_timeout(self) -> float | None:
        """Return when the next answer is overdue, in seconds, or ``None``."""
        return self._answers_by.next_timeout()

    def next_id(self) -> str:
        """Return the id that `count` will use up."""
        return f"{self._prefix}-{self._serial + 1}"

    def count(self) -> None:
        """Use `next_id` up."""
        self._serial += 1

    def queue(self, token: str, text: str | None) -> None:
        """Keep `text` for the next connection.

        Raises:
            QueueFull: There is no room; nothing has changed.
        """
        if len(self._queue) >= self._size:
            raise QueueFull(f"{self._size} messages already wait for a connection")
        self._queue[token] = text

    def await_answer(self, token: str, pending: Pending, *, now: float) -> None:
        """Expect an answer to the command `token`; its time runs from here unless it is in the queue."""
        self._pending[token] = pending
        if token not in self._queue:
            self.sent(token, now=now)

    def sent(self, token: str, *, now: float) -> None:
        """Let the time for the answer to `token` run from here."""
        # A rejoin has no limit: where a crowd comes back after a restart the server answers late, and that must
        # cost nobody a membership.
        if self._pending[token].kind is not Kind.REJOIN:
            self._answers_by.set(token, now + self._timeout)

    def suspend(self, token: str) -> None:
        """Stop the time of `token` until it is sent again."""
        self._answers_by.set(token, None)

    def get(self, token: str) -> Pending | None:
        """Return what `token` stands for, or ``None``."""
        return self._pending.get(token)

    def forget(self, token: str) -> Kind:
        """Expect no answer to `token` any more, and do not send it either; return what it was."""
        self._queue.pop(token, None)
        self._answers_by.set(token, None)
        return self._pending.pop(token).kind

    def take_overdue(self, *, now: float) -> list[tuple[str, Pending]]:
        """Forget and return what was not answered by now, earliest first."""
        return [(token, self._pending.pop(token)) for token in self._answers_by.pop_due(now=now)]

    def under_way(self) -> list[tuple[str, Pending]]:
        """Return what is pending and not in the queue, in the order of issue."""
        return [(token, pending) for token, pending in self._pending.items() if token not in self._queue]

    def flush(self, *, now: float) -> list[str]:
        """Empty the queue onto a connection; return the texts in order."""
        texts: list[str] = []
        for token, text in self._queue.items():
            if text is not None:
                texts.append(text)
                if token in self._pending:
                    self.sent(token, now=now)
        self._queue.clear()
        return texts

    def clear(self) -> tuple[list[tuple[str, bool]], int]:
        """Give all up; return each pending id with whether it was in the queue, and the number of plain messages."""
        pending = [(token, token in self._queue) for token in self._pending]
        unsent = sum(token not in self._pending for token in self._queue)
        for token, _ in pending:
            self.forget(token)
        self._queue.clear()
        return pending, unsent
