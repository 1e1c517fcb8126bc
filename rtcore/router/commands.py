"""What a router is told to do, and what it answers must happen."""

from __future__ import annotations

from typing import TypeAlias

import attrs

from rtcore.binary import Bytes
from rtcore.encoded import Encoded
from rtcore.errors import Refusal
from rtcore.filters import Filter
from rtcore.messages import Message
from rtcore.permissions import Grant

__all__ = [
    "Command",
    "Deliver",
    "Effect",
    "Joined",
    "Left",
    "Publish",
    "Published",
    "Recovered",
    "Refused",
    "Request",
    "Roster",
    "Since",
    "Subscribe",
    "Unsubscribe",
]


@attrs.frozen
class Request:
    """Who asked for something, and under which id they want to be told.

    Attributes:
        connection_id: The asking connection, or ``None`` for the HTTP API and the application.
        id: The id to answer under, or ``None`` for no answer.
    """

    connection_id: str | None
    id: str | int | None = None


@attrs.frozen
class Since:
    """How far somebody has heard a stream.

    Attributes:
        epoch: The life of the stream in which `offset` counts.
        offset: The number of the last publication heard, or of the last one before the listener came.
        persistent: Of what had been kept for later joiners when the listener came at `offset`, the last one heard;
            ``None`` once all of it was.
    """

    epoch: str
    offset: int
    persistent: int | None = None


@attrs.frozen
class Subscribe:
    """Command: join a channel, or, for one that has, be told again what it has missed.

    Attributes:
        since: How far the publications were heard before.
        changes_since: Likewise the comings and goings.
        filter: What the subscriber wants to hear, or ``None`` for everything.
        replays: Whether anything is replayed; not where `Router.resume` follows.
        builtin: Whether it is a channel of the server's own, to which only the server itself joins somebody.
    """

    channel: str
    request: Request
    since: Since | None = None
    changes_since: Since | None = None
    filter: Filter | None = None
    replays: bool = True
    builtin: bool = False


@attrs.frozen
class Unsubscribe:
    """Command: leave a channel; leaving one that was not joined is no fault."""

    channel: str
    request: Request


@attrs.frozen
class Publish:
    """Command: publish `message`, which the caller no longer changes, to a channel, built-in ones included.

    With an id in the request it is made once: a repetition by the same publisher is answered with the first outcome.

    Attributes:
        skip: A connection that is not to hear it.
        user_id: The sender's user, where the request names no connection.
        grant: What the sender is allowed, where the request names no connection; ``None`` for the application, which
            may do everything.
        publisher: The name of the API key with which it came, where the request names no connection: with an id it is
            made once for that key. Otherwise it is made once for the user, if there is one.
        data: The file in a message of type ``binary``, which nobody changes any more either; ``None`` in any other.
            Where it is too large for the channel and the message has a ``url``, it is left out.
        builtin: Whether the server lets the sender speak in a channel of the server's own, and has looked at what it is
            allowed: so in rooms.
    """

    channel: str
    message: Message
    request: Request
    skip: str | None = None
    user_id: str | None = None
    grant: Grant | None = None
    publisher: str | None = None
    data: Bytes | None = None
    builtin: bool = False


Command: TypeAlias = Subscribe | Unsubscribe | Publish


@attrs.frozen
class Deliver:
    """Effect: `message` goes to every one of `connections` but `skip`, after everything delivered before.

    `connections` is the same object for all publications between two changes of the membership.
    """

    message: Encoded
    connections: tuple[str, ...]
    skip: str | None = None


@attrs.frozen
class Published:
    """Effect: a publication is in its channel.

    Attributes:
        repeated: Whether it has been for a while, and this is the answer to a repetition.
    """

    request: Request
    id: str
    channel: str
    offset: int
    epoch: str
    repeated: bool = False


@attrs.frozen
class Roster:
    """Who is present in a channel, and where its stream of comings and goings stands.

    Attributes:
        count: How many there are.
        members: Who they are, as ``{"user_id", "connection_id", "info"?}``; ``None`` in a channel with too many to
            list.
        epoch: The life of the stream.
        offset: The number of the last change that the roster includes.
        recovered: Whether every change since the one that the subscriber named is replayed; ``None`` if it named none.
    """

    count: int
    members: list[Message] | None
    epoch: str
    offset: int
    recovered: bool | None = None


@attrs.frozen
class Recovered:
    """What a subscriber is told again before anything new.

    Attributes:
        complete: Whether it is all that was published since what the subscriber named; ``None`` if it named nothing.
            Unless it is, what is replayed is what the channel keeps for later joiners. Of a subscriber that may not be
            told what was said it is only where nothing was published.
        replayed: How many publications are replayed.
    """

    complete: bool | None
    replayed: int


@attrs.frozen
class Joined:
    """Effect: the connection subscribes to the channel, whose next new publication is ``offset + 1``.

    Attributes:
        roster: The connection included; ``None`` where the channel knows no members, or the connection may not know.
    """

    request: Request
    channel: str
    offset: int
    epoch: str
    recovered: Recovered
    roster: Roster | None


@attrs.frozen
class Left:
    """Effect: the connection no longer subscribes to the channel."""

    request: Request
    channel: str


@attrs.frozen
class Refused:
    """Effect: what was asked for is not done, and nothing has changed."""

    request: Request
    refusal: Refusal


Effect: TypeAlias = Deliver | Published | Joined | Left | Refused
