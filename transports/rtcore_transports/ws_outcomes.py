"""Who is told what became of the commands of a `WSClient`: somebody who waits, or the user by a message."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias, assert_never

import anyio
import attrs

from rtcore import CommandError, ConnectionClosed, Message
from rtcore.client import Answered, Refused

__all__ = ["Outcome", "Outcomes"]

Outcome: TypeAlias = Answered | Refused


class _Awaited:
    """A command whose outcome somebody waits for."""

    __slots__ = ("done", "outcome")

    def __init__(self) -> None:
        self.outcome: Outcome | None = None
        self.done = anyio.Event()


@attrs.frozen
class _Posted:
    """A command whose outcome is told in a message, if at all.

    Attributes:
        own_id: The id under which the user wants to be told; ``None`` to be told of a refusal alone.
        channel: The channel that the refusal names, if any.
    """

    own_id: object
    channel: str | None


class Outcomes:
    """The commands under way, by the ids that the machine gave them."""

    def __init__(self) -> None:
        self._awaited: dict[str, _Awaited] = {}
        self._posted: dict[str, _Posted] = {}
        self._watched: dict[str, Callable[[Outcome], None]] = {}

    @property
    def awaited(self) -> bool:
        """Whether somebody waits for an outcome."""
        return bool(self._awaited)

    def expect(self, token: str) -> None:
        """Take note of a command whose outcome `wait` will return."""
        self._awaited[token] = _Awaited()

    def post(self, token: str, own_id: object, *, channel: str | None = None) -> None:
        """Take note of a command whose outcome is a message.

        Args:
            token: The command.
            own_id: The id that the user wants it to have, or ``None``: then only a refusal is told.
            channel: A channel that a refusal is to name.
        """
        self._posted[token] = _Posted(own_id, channel)

    def watch(self, token: str, told: Callable[[Outcome], None]) -> None:
        """Take note of a command whose outcome is told by a call of `told`, which must not block or raise."""
        self._watched[token] = told

    async def wait(self, token: str) -> object:
        """Wait for the outcome of a command, once; cancelled, it is forgotten.

        Raises:
            CommandError: The server refused it, or did not answer in time (``timeout``).
            ConnectionClosed: The connection was lost before the answer came; it may have been carried out or not.
        """
        awaited = self._awaited[token]
        await awaited.done.wait()
        match awaited.outcome:
            case Answered(data=data):
                return data
            case Refused(code=("connection_lost" | "not_sent"), message=message):
                raise ConnectionClosed(None, message)
            case Refused(code=code, message=message, retry_after=retry_after):
                raise CommandError(code, message, retry_after)
            case None:
                raise AssertionError("an outcome is told before it is done")
            case _:
                assert_never(awaited.outcome)

    def forget(self, token: str) -> None:
        """Take note that nobody waits for a command any more."""
        del self._awaited[token]

    def tell(self, outcome: Outcome) -> Message | None:
        """Tell whoever waits for an outcome; returns the message that tells the user, if one does."""
        if (awaited := self._awaited.get(outcome.id)) is not None:
            awaited.outcome = outcome
            awaited.done.set()
        if (told := self._watched.pop(outcome.id, None)) is not None:
            told(outcome)
        posted = self._posted.pop(outcome.id, None)
        return None if posted is None else _message(posted, outcome)


def _message(posted: _Posted, outcome: Outcome) -> Message | None:
    own = {} if posted.own_id is None else {"id": posted.own_id}
    match outcome:
        case Answered(data=data):
            return {"type": "response", **own, "ok": True, "data": data} if own else None
        case Refused(code=code, message=text, retry_after=retry_after):
            message: Message = {"type": "error", **own, "code": code, "message": text}
            if posted.channel is not None:
                message["channel"] = posted.channel
            if retry_after is not None:
                message["retry_after"] = retry_after
            return message
        case _:
            assert_never(outcome)
