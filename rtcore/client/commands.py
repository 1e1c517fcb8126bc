"""What a client is told to do, and what it answers must happen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import attrs

from rtcore.binary import Bytes
from rtcore.messages import Message

__all__ = [
    "Answered",
    "Command",
    "Connected",
    "Disconnect",
    "Drop",
    "Effect",
    "Ended",
    "Join",
    "Leave",
    "Lost",
    "MessageReceived",
    "Open",
    "ProtocolFault",
    "Publish",
    "RefreshDue",
    "Refused",
    "RejoinRefused",
    "Rejoined",
    "Request",
    "Send",
    "SendBytes",
    "SendText",
]


@attrs.frozen
class Send:
    """Command: send `message` as it is; no answer is awaited."""

    message: Mapping[str, object]


@attrs.frozen
class Disconnect:
    """Command: end the client for good."""


@attrs.frozen
class Request:
    """Command: give the server the command `name` and await its answer.

    ``join_channel`` and ``leave_channel`` with a channel are `Join` and `Leave` by another name. ``join_room`` and
    ``leave_room`` with a room are to a room what those are to a channel: it is joined again on each connection, and
    what was missed of it comes first. Its stream is called ``$room:ROOM`` where an effect names a channel.
    ``refresh_token`` shows the server a fresh token, and is what `RefreshDue` asks for.
    """

    name: str
    data: Mapping[str, object] = attrs.field(factory=dict)


@attrs.frozen
class Publish:
    """Command: send `message` with an id, and await its acknowledgement.

    If the link is lost before that comes, it is sent again on the next one, provided that the server still knows what
    it has got of this client: so it is published once or, at worst, not at all, but never twice. If the server refuses
    what was sent again the outcome is ``connection_lost``, since the first one may have been published.

    A message without a ``channel`` and a ``recipient_id``, unless it is a ``webrtc_signal``, is no publication, but
    something for a handler of the server's application, which knows of no repetitions. It is not sent again: its
    outcome is ``connection_lost``.

    An id that the message has is kept: chosen by the application, it makes a publication idempotent beyond
    the life of this client.

    Attributes:
        message: The message.
        data: The bytes of a file that the message holds, which is of the type ``binary`` then; see
            `rtcore.BinaryMessage.to_head`. They are kept until they are acknowledged, as all of the message is.
    """

    message: Mapping[str, object]
    data: Bytes | None = attrs.field(default=None, repr=lambda data: "None" if data is None else f"<{len(data)} bytes>")


@attrs.frozen
class Join:
    """Command: be a member of `channel`, now and after each reconnection; `data` goes with each of its joins."""

    channel: str
    data: Mapping[str, object] = attrs.field(factory=dict)


@attrs.frozen
class Leave:
    """Command: be a member of `channel` no longer."""

    channel: str


#: Commands with an outcome: one `Answered` or `Refused`.
Command: TypeAlias = Request | Publish | Join | Leave


@attrs.frozen
class Open:
    """Effect: start a connection attempt now; `Client.opened` tells its success, `Client.lost` its failure.

    Attributes:
        last_event_id: What to send as ``last_event_id`` in the query, beside the ``session`` of the client's
            constructor, so that the server goes on where it was; ``None`` for nothing.
    """

    last_event_id: str | None = None


@attrs.frozen
class SendText:
    """Effect: send `text` as one WebSocket text message."""

    text: str


@attrs.frozen
class SendBytes:
    """Effect: send `payload` as one WebSocket binary message."""

    payload: bytes = attrs.field(repr=lambda payload: f"<{len(payload)} bytes>")


@attrs.frozen
class Drop:
    """Effect: after what was sent, close the link or give the attempt up, and hand in nothing more of it.

    The machine does not wait for the peer's Close, since a dead peer sends none.
    """

    code: int
    reason: str


@attrs.frozen
class Connected:
    """Effect: the server has welcomed the client; `reconnected` tells a later connection from the first."""

    connection_id: str
    user_id: str | None
    reconnected: bool


@attrs.frozen
class Rejoined:
    """Effect: a membership of the last connection stands again; `data` is what the server says of the channel."""

    channel: str
    data: object


@attrs.frozen
class RejoinRefused:
    """Effect: a membership of the last connection was not granted again, and is given up.

    Where the server says after how many seconds to ask again (``rate_limited``) the machine does, and nothing is told.
    """

    channel: str
    code: str
    message: str


@attrs.frozen
class MessageReceived:
    """Effect: any message but ``connected`` and the answers to commands. The receiver owns it.

    What a channel publishes comes once, in order. Where something is missing, a ``gap`` comes first: the server's, or
    one that the machine makes of its answer to a join. Where it holds a file its bytes are in ``data``.
    """

    message: Message


@attrs.frozen
class Answered:
    """Effect: the command `id` was carried out."""

    id: str
    data: object


@attrs.frozen
class Refused:
    """Effect: the command `id` failed.

    Attributes:
        id: What `Client.request` returned.
        code: The server's word, or one of the machine's own: ``timeout`` and ``connection_lost`` (it may have
            been carried out or not), ``not_sent`` (it never left), ``left`` (a join that a leave overtook) and
            ``joined`` (a leave that the server refused for now, and that a join overtook).
        message: What is wrong.
        retry_after: Seconds after which another try may succeed, or ``None``.
    """

    id: str
    code: str
    message: str
    retry_after: float | None = None


@attrs.frozen
class RefreshDue:
    """Effect: get a fresh token, and give the `Request` ``refresh_token`` with it, or tell `Client.refresh_failed`.

    It comes once; and again, after a while, where it has failed, or the server has refused the token. If the connection
    is lost meanwhile, or the server says goodbye, nothing is to be done any more: see `Client.refresh_wanted`.
    """


@attrs.frozen
class ProtocolFault:
    """Effect: the server sent what no server of this protocol sends. `Drop` with 4400 follows."""

    reason: str


@attrs.frozen
class Lost:
    """Effect: the link was lost, or an attempt failed; the next attempt comes at `retry_at`."""

    code: int | None
    reason: str
    retry_at: float


@attrs.frozen
class Ended:
    """Effect, always the last: the client is CLOSED, and `unsent` messages of `Send` are given up with it."""

    code: int | None
    reason: str
    unsent: int


Effect: TypeAlias = (
    Open
    | SendText
    | SendBytes
    | Drop
    | Connected
    | Rejoined
    | RejoinRefused
    | MessageReceived
    | Answered
    | Refused
    | RefreshDue
    | ProtocolFault
    | Lost
    | Ended
)
