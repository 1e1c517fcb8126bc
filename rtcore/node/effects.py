"""What a node answers must happen."""

from __future__ import annotations

from typing import TypeAlias

import attrs

from rtcore.commands import Query
from rtcore.messages import Message, encode
from rtcore.permissions import Action, Identity
from rtcore.router import Deliver, Publish, Published, Refused, Request, Subscribe
from rtcore.session import Handle
from rtcore.uploads import BeginUpload, FileEffect

__all__ = ["Close", "Consult", "NodeEffect", "Verify", "concerns", "to"]


@attrs.frozen
class Close:
    """Effect: a connection is closed, once everything delivered to it before is written.

    It is no longer part of the node; the transport does not report it as gone.
    """

    connection_id: str
    code: int
    reason: str


@attrs.frozen
class Verify:
    """Effect: a token is to be verified, with which a connection wants to go on; `Node.renew` takes what comes of it.

    Attributes:
        request: Who asks.
        token: The token.
    """

    request: Request
    token: str = attrs.field(repr=False)


@attrs.frozen
class Consult:
    """Effect: the application is to be asked whether somebody may do this; `Node.resolve` takes what it says.

    Attributes:
        action: `Action.SUBSCRIBE`, also for what is asked about a channel, or `Action.PUBLISH`.
        channel: Where.
        command: What is carried out if it may. A file that comes in chunks is asked about before they come.
        request: Who asks.
        message: What is to be published, a file that is in it left out; or ``None`` where nothing is.
        identity: Who that is.
        number: That of the connection: another may have its id by the time of the answer. ``None`` for somebody
            without a connection.
    """

    action: Action
    channel: str
    command: Subscribe | Publish | BeginUpload | Query
    request: Request
    message: Message | None
    identity: Identity
    number: int | None


# `Published` and `Refused` name a request without a connection: those of connections are answered in messages.
NodeEffect: TypeAlias = Deliver | Close | Handle | Verify | Consult | Published | Refused | FileEffect


def to(connection_id: str, message: Message) -> Deliver:
    """Return the delivery of a message to one connection."""
    return Deliver(encode(message), (connection_id,))


def concerns(effect: NodeEffect, connection_id: str) -> bool:
    """Tell whether an effect is for that connection alone."""
    return isinstance(effect, Deliver) and effect.connections == (connection_id,)
