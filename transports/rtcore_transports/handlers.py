"""The application's handlers of messages, and what becomes of their faults."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from math import ceil
from typing import Final, TypeAlias

import attrs

from rtcore import CommandError, Message, Refusal
from rtcore.session import Handle

__all__ = ["INTERNAL_ERROR", "Handler", "Sender", "call_handler", "refusal_of"]

_log = logging.getLogger("rtcore.driver")

#: What is said of a message whose handler has failed.
INTERNAL_ERROR: Final = Refusal("internal_error", "the server failed to handle this message", status=500)


@attrs.frozen
class Sender:
    """Who sent a message to the application: the connection, and its user or ``None``."""

    connection_id: str
    user_id: str | None


#: Handles the messages of one type: gets the message and its sender; what it returns answers the message's ``id``.
Handler: TypeAlias = Callable[[Message, Sender], Awaitable[Message | None]]


async def call_handler(handlers: Mapping[str, Handler], effect: Handle, sender: Sender) -> Message | Refusal:
    """Return what a message's handler answers, or how it refuses; a fault of it is logged."""
    try:
        return await handlers[effect.type](effect.message, sender) or {}
    except CommandError as error:
        return refusal_of(error)
    except Exception:
        _log.exception("the handler for messages of type %r failed", effect.type)
        return INTERNAL_ERROR


def refusal_of(error: CommandError, *, status: int = 422) -> Refusal:
    """Return the refusal that the application means by raising `error`."""
    retry_after = None if error.retry_after is None else ceil(error.retry_after)
    return Refusal(error.code, error.message, status, retry_after)
