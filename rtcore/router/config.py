"""The limits of a router."""

from __future__ import annotations

from typing import Final

import attrs
from attrs.validators import gt

from rtcore.namespaces import Namespace, Namespaces

__all__ = ["RouterConfig"]


_ROOMS: Final = Namespace(pattern="$room:*", history_size=256, history_ttl=15.0, persistent_size=0, presence=False)


@attrs.frozen
class RouterConfig:
    """Limits of a router. An `idle_timeout` that is not above 0 raises `ValueError`.

    Attributes:
        max_channels: How many channels one connection may join.
        presence_limit: Above so many members a channel neither sends ``user_joined`` and ``user_left`` nor lists
            its members: with n members each change costs n messages, and all of them coming costs n².
        idle_timeout: Seconds for which a channel that nobody subscribes to keeps its numbers, at least: it keeps them
            as long as there is something that it can replay, and for ever if something is kept for later joiners.
        max_idle: How many such channels are kept; beyond it the longest idle are forgotten first. Also how many
            publishers without a connection are remembered.
        namespaces: What holds for which channels.
        rooms: What holds for the streams on which peers hear of their rooms.
        max_history_bytes: Bytes of JSON that all channels keep together; beyond it the oldest publications go first.
        max_replay_bytes: The most that is replayed to one connection at once: somebody who has missed more is told so.
            More than may wait for a connection, or whoever is ended for being slow never recovers.
        idempotency_window: Seconds for which a publication with an id is not made again; see `rtcore.idempotency`.
        idempotency_size: How many are remembered of each publisher.
    """

    max_channels: int = 1000
    presence_limit: int = 256
    idle_timeout: float = attrs.field(default=300.0, validator=gt(0))
    max_idle: int = 10_000
    namespaces: Namespaces = attrs.field(factory=Namespaces)
    rooms: Namespace = _ROOMS
    max_history_bytes: int = 2**28
    max_replay_bytes: int = 2**23
    idempotency_window: float = 300.0
    idempotency_size: int = 1000
