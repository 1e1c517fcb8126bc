"""The commands of a client on their way to the server and back."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from typing import Final

import attrs

from rtcore.binary import BINARY, MAX_HEAD, Bytes, encode_payload
from rtcore.deadlines import Deadlines
from rtcore.errors import LocalProtocolError, QueueFull

from .commands import Effect, Publish, Refused, SendBytes, SendText
from .wire import encode, is_publication

__all__ = ["CONNECTION_LOST", "Kind", "Outbox", "Pending"]

#: Of what may have been carried out or not.
CONNECTION_LOST: Final = "the connection was lost before the answer came"


class Kind(Enum):
    """What an answer belongs to."""

    CALL = auto()
    # ``refresh_token``.
    REFRESH = auto()
    PUBLISH = auto()
    JOIN = auto()
    # A join of the machine's own: its outcome is told as `Rejoined` or `RejoinRefused`.
    REJOIN = auto()
    LEAVE = auto()
    # A leave of the machine's own, of which nobody is told.
    UNJOIN = auto()


@attrs.frozen
class Pending:
    """What an answer belongs to.

    Attributes:
        kind: What was asked for.
        channel: The channel that is joined or left.
        said: The data of a join.
        payload: A publication, to be sent again: a text, or the payload of a binary frame.
        silent: Whether the client does not want to hear it.
        repeated: Whether it is a publication that was sent on an earlier connection too.
        retry_after: Seconds after which it is sent again, since it was refused for now; ``None`` once it was.
    """

    kind: Kind
    channel: str = ""
    said: Mapping[str, object] = attrs.field(factory=dict)
    payload: str | bytes = ""
    silent: bool = False
    repeated: bool = False
    retry_after: float | None = None


class Outbox:
    """What waits for a connection, in a bounded queue, and what waits for an answer, with a time limit.

    Args:
        prefix: Begins the ids that are counted here.
        size: Messages and commands in the queue.
        timeout: Seconds from the sending of a command to its answer.
        least_wait: Seconds from a refusal for now to the next try, at least.
        max_unacknowledged: Publications that may be pending.
    """

    __slots__ = (
        "_answers_by",
        "_least_wait",
        "_max_unacknowledged",
        "_pending",
        "_prefix",
        "_queue",
        "_serial",
        "_size",
        "_timeout",
        "unacknowledged",
    )

    def __init__(self, *, prefix: str, size: int, timeout: float, least_wait: float, max_unacknowledged: int) -> None:
        self._prefix = prefix
        self._serial = 0
        self._size = size
        self._timeout = timeout
        self._least_wait = least_wait
        self._max_unacknowledged = max_unacknowledged
        # Of what was refused for now it is the time of the next try.
        self._answers_by: Deadlines[str] = Deadlines()
        # Both by id, in the order of issue. A command in the queue is pending too; a plain message is not. A join
        # in the queue has no payload, for on connecting every desired channel is joined anyway.
        self._queue: dict[str, str | bytes | None] = {}
        self._pending: dict[str, Pending] = {}
        #: How many publications are pending.
        self.unacknowledged = 0

    def next_timeout(self) -> float | None:
        """Return when the next answer is overdue, or something is to be sent again, in seconds, or ``None``."""
        return self._answers_by.next_timeout()

    def next_id(self) -> str:
        """Return the id that `count` will use up."""
        return f"{self._prefix}-{self._serial + 1}"

    def count(self) -> None:
        """Use `next_id` up."""
        self._serial += 1

    def write(self, token: str, payload: str | bytes | None, *, offline: bool) -> list[Effect]:
        """Send or queue: the first change that a command makes, and the last of it that may raise.

        Raises:
            QueueFull: There is no room; nothing has changed.
        """
        if offline:
            self.queue(token, payload)
            self.count()
            return []
        # Only a join has no payload, and only while offline.
        assert payload is not None
        self.count()
        return [_sending(payload)]

    def queue(self, token: str, payload: str | bytes | None) -> None:
        """Keep `payload` for the next connection.

        Raises:
            QueueFull: There is no room; nothing has changed.
        """
        if len(self._queue) >= self._size:
            raise QueueFull(f"{self._size} messages already wait for a connection")
        self._queue[token] = payload

    def publication(self, publish: Publish) -> tuple[str, Pending]:
        """Return the id of a publication, its own or `next_id`, and what is to be awaited; nothing changes yet.

        Raises:
            LocalProtocolError: JSON cannot express it, its id is no string or is pending already, or it has data and is
                not of the type ``binary``, or more than a server takes beside them.
            QueueFull: Too many are pending.
        """
        message, data = publish.message, publish.data
        token = message.get("id", self.next_id())
        if not isinstance(token, str):
            raise LocalProtocolError("the id of a publication must be a string")
        if token in self._pending:
            raise LocalProtocolError(f"a publication with the id {token!r} is pending already")
        if data is not None and message.get("type") != BINARY:
            raise LocalProtocolError(f"a message with data must be of the type {BINARY!r}, not {message.get('type')!r}")
        # What is for a handler of the application might be handled twice if it were sent again.
        kind = Kind.PUBLISH if is_publication(message) else Kind.CALL
        limit = self._max_unacknowledged
        if kind is Kind.PUBLISH and self.unacknowledged >= limit:
            raise QueueFull(f"{limit} publications already wait for their acknowledgement")
        text = encode({**message, "id": token})
        payload = text if data is None else _binary(text.encode(), data)
        return token, Pending(kind, payload=payload, silent=message.get("echo") is False)

    def await_answer(self, token: str, pending: Pending, *, now: float) -> None:
        """Expect an answer to the command `token`; its time runs from here unless it is in the queue."""
        if token not in self._pending:
            self.unacknowledged += pending.kind is Kind.PUBLISH
        self._pending[token] = pending
        if token not in self._queue:
            self.sent(token, now=now)

    def sent(self, token: str, *, now: float) -> None:
        """Let the time for the answer to `token` run from here."""
        # A rejoin has no limit: where a crowd comes back after a restart the server answers late, and that must
        # cost nobody a membership. Nor has what nobody waits for.
        if self._pending[token].kind not in (Kind.REJOIN, Kind.UNJOIN):
            self._answers_by.set(token, now + self._timeout)

    def publish_again(self, *, known: bool, now: float) -> list[Effect]:
        """Send what was not acknowledged on an earlier link, unless the server does not know what it has got of it.

        Returns:
            For each publication what sends it once more; the time for its answer runs from here. Or its `Refused`.
        """
        effects: list[Effect] = []
        for token, pending in self.under_way():
            if pending.kind is not Kind.PUBLISH:
                continue
            if known:
                self._pending[token] = attrs.evolve(pending, repeated=True)
                self.sent(token, now=now)
                effects.append(_sending(pending.payload))
            else:
                self.forget(token)
                effects.append(Refused(token, "connection_lost", CONNECTION_LOST))
        return effects

    def postpone(self, token: str, retry_after: float, *, now: float) -> None:
        """Have `take_due` return `token`, which was refused for now, in so many seconds, or a little later."""
        self._pending[token] = attrs.evolve(self._pending[token], retry_after=retry_after)
        # A server that says 0 must not be asked as fast as it can refuse.
        self._answers_by.set(token, now + max(retry_after, self._least_wait))

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
        return self._pop(token).kind

    def is_postponed(self, token: str) -> bool:
        """Tell whether the command `token` was refused for now, and will be sent again."""
        return self._pending[token].retry_after is not None

    def take_due(self, *, now: float) -> list[tuple[str, Pending]]:
        """Return what was not answered by now, which is forgotten, and what was postponed until now; earliest first."""
        due: list[tuple[str, Pending]] = []
        for token in self._answers_by.pop_due(now=now):
            pending = self._pending[token]
            if pending.retry_after is None:
                self._pop(token)
            due.append((token, pending))
        return due

    def under_way(self) -> list[tuple[str, Pending]]:
        """Return what is pending and not in the queue, in the order of issue."""
        return [(token, pending) for token, pending in self._pending.items() if token not in self._queue]

    def joins(self, channel: str, *kinds: Kind) -> bool:
        """Tell whether the answer to a join of `channel` is to come, to one of these kinds if any are named."""
        kinds = kinds or (Kind.JOIN, Kind.REJOIN)
        return any(pending.channel == channel and pending.kind in kinds for _, pending in self.under_way())

    def is_silent(self, token: object) -> bool:
        """Tell whether `token` is a publication, not acknowledged yet, that the client does not want to hear."""
        return isinstance(token, str) and (pending := self._pending.get(token)) is not None and pending.silent

    def flush(self, *, now: float) -> list[Effect]:
        """Empty the queue onto a connection; return what sends it, in order."""
        effects: list[Effect] = []
        for token, payload in self._queue.items():
            if payload is not None:
                effects.append(_sending(payload))
                if token in self._pending:
                    self.sent(token, now=now)
        self._queue.clear()
        return effects

    def clear(self) -> tuple[list[Effect], int]:
        """Give all up; return `Refused` for each that is pending, and the number of plain messages in the queue."""
        outcomes: list[Effect] = [
            Refused(token, "not_sent", "the client ended before it could send this")
            if token in self._queue
            else Refused(token, "connection_lost", CONNECTION_LOST)
            for token in self._pending
        ]
        unsent = sum(token not in self._pending for token in self._queue)
        for token in list(self._pending):
            self.forget(token)
        self._queue.clear()
        return outcomes, unsent

    def _pop(self, token: str) -> Pending:
        pending = self._pending.pop(token)
        self.unacknowledged -= pending.kind is Kind.PUBLISH
        return pending


def _binary(head: bytes, data: Bytes) -> bytes:
    if len(head) > MAX_HEAD:
        raise LocalProtocolError(f"beside its data a message may have {MAX_HEAD} bytes, not {len(head)}")
    return encode_payload(head, data)


def _sending(payload: str | bytes) -> SendText | SendBytes:
    return SendText(payload) if isinstance(payload, str) else SendBytes(payload)
