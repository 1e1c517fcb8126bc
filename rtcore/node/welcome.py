"""The order in which a new connection is told where it is, what it has missed, and what is new."""

from __future__ import annotations

from collections.abc import Sequence

from rtcore.messages import Message, cursor
from rtcore.router import Deliver, Resumption
from rtcore.session import Session, Transport

from .answers import gap_events
from .effects import NodeEffect, concerns, to

__all__ = ["welcome"]


def welcome(
    session: Session, connected: Message, joins: Sequence[NodeEffect], resumption: Resumption
) -> list[NodeEffect]:
    """Return what a connection hears first, and then what others hear of its coming.

    Args:
        session: The connection's.
        connected: The message that it is connected.
        joins: What has followed from what it joined at once.
        resumption: How it goes on.
    """
    connection_id = session.connection_id
    only = (connection_id,)
    own = [to(connection_id, connected), *(effect for effect in joins if concerns(effect, connection_id))]
    replay = [Deliver(missed, only) for missed in resumption.replay]
    others = (effect for effect in joins if not concerns(effect, connection_id))
    if session.transport is Transport.WEBSOCKET:
        return [*own, *replay, *others]
    if resumption.recovered is None:
        # Whoever has heard of the welcome has a position to come back with, even if nothing else arrives.
        own.insert(0, Deliver(cursor(str(resumption.position)), only))
    return [
        *own,
        *(Deliver(gap, only) for gap in gap_events(resumption)),
        *replay,
        Deliver(cursor(str(resumption.end)), only),
        *others,
    ]
