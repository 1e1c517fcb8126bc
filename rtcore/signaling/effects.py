"""What rooms answer must happen on the streams of their peers."""

from __future__ import annotations

from typing import TypeAlias

import attrs

from rtcore.messages import Message

__all__ = ["Effect", "End", "Tell", "Unlisten"]


@attrs.frozen
class Tell:
    """Effect: something is said on a peer's stream."""

    stream: str
    message: Message


@attrs.frozen
class Unlisten:
    """Effect: a connection hears a stream no longer."""

    connection_id: str
    stream: str


@attrs.frozen
class End:
    """Effect: a stream ends, and whoever listens to it hears it no longer."""

    stream: str


Effect: TypeAlias = Tell | Unlisten | End
