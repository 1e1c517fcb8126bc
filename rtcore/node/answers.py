"""What a node says to single connections: the messages that are no publications."""

from __future__ import annotations

import msgspec

from rtcore.encoded import Encoded
from rtcore.errors import Refusal, reconnects
from rtcore.messages import Message, encode
from rtcore.router import Gap, Joined, Page, Published, Request, Resumption, Roster
from rtcore.session import Session

__all__ = [
    "PROTOCOL_VERSION",
    "connected_message",
    "disconnect_message",
    "error_message",
    "gap_events",
    "history_data",
    "joined_data",
    "receipt",
    "renewed_data",
    "response_message",
    "roster_data",
]

#: The version of the message protocol, told in ``connected``.
PROTOCOL_VERSION = 1


def connected_message(
    session: Session,
    *,
    heartbeat_interval: float | None,
    rosters: dict[str, Roster | None],
    session_epoch: str | None,
    resumption: Resumption,
    expires_in: float | None,
) -> Message:
    """Return the first message to a connection.

    Args:
        session: The connection's.
        heartbeat_interval: Seconds between two heartbeats, or ``None``.
        rosters: Who is present in each channel that it has joined by connecting.
        session_epoch: The life in which its client's session is remembered, or ``None`` without one.
        resumption: How it goes on.
        expires_in: Seconds until what it is allowed ends, or ``None`` for never.
    """
    message: Message = {
        "type": "connected",
        "connection_id": session.connection_id,
        "user_id": session.user_id,
        "protocol": PROTOCOL_VERSION,
        "heartbeat_interval": heartbeat_interval,
        "channels": list(rosters),
        "session_epoch": session_epoch,
        "last_event_id": str(resumption.position),
    }
    if expires_in is not None:
        message["expires_in"] = expires_in
    if resumption.recovered is not None:
        message["recovered"] = resumption.recovered
    if resumption.gaps:
        # In here, since whoever has heard of the new position must have heard of these.
        message["gaps"] = [_gap_message(gap) for gap in resumption.gaps]
    presence = {channel: roster_data(roster) for channel, roster in rosters.items() if roster is not None}
    if presence:
        message["presence"] = presence
    return message


def gap_events(resumption: Resumption) -> list[Encoded]:
    """Return the gaps that an event stream begins with, the last of which moves its client to where it goes on.

    A WebSocket has them in ``connected``, but that moves no position on an event stream.
    """
    events = [encode(_gap_message(gap)) for gap in resumption.gaps]
    if events:
        events[-1] = events[-1].with_id(str(resumption.position))
    return events


def _gap_message(gap: Gap) -> Message:
    return {
        "type": "gap",
        "channel": gap.channel,
        "epoch": gap.epoch,
        "offset": gap.offset,
        "reason": gap.reason,
    }


def disconnect_message(
    code: int, reason: str, *, reconnect: bool | None = None, retry_after: float | None = None
) -> Message:
    """Return the message that says why a connection is about to be closed.

    Args:
        code: The close code that follows.
        reason: Why, for people.
        reconnect: Whether the client should connect again, or ``None`` for what the code implies.
        retry_after: Seconds that it should wait before, or ``None``.
    """
    message: Message = {
        "type": "disconnect",
        "code": int(code),
        "reason": reason,
        "reconnect": reconnects(code) if reconnect is None else reconnect,
    }
    if retry_after is not None:
        message["retry_after"] = retry_after
    return message


def response_message(request: Request, data: Message) -> Message:
    """Return the answer to a request that was carried out."""
    return {"type": "response", "id": request.id, "ok": True, "data": data}


def error_message(request: Request, refusal: Refusal) -> Message:
    """Return the answer to a request that was refused, whether it had an id or not."""
    error: Message = {"type": "error", "code": refusal.code, "message": refusal.message}
    if request.id is not None:
        error["id"] = request.id
    if refusal.retry_after is not None:
        error["retry_after"] = refusal.retry_after
    return error


def renewed_data(session: Session, *, now: float) -> Message:
    """Return the answer to somebody who goes on with another token."""
    data: Message = {"user_id": session.user_id}
    expires_in = session.expires_in(now=now)
    if expires_in is not None:
        data["expires_in"] = expires_in
    return data


def receipt(published: Published) -> Message:
    """Return what acknowledges a publication."""
    return {"channel": published.channel, "offset": published.offset, "epoch": published.epoch}


def joined_data(joined: Joined) -> Message:
    """Return the answer to a join."""
    data: Message = {"channel": joined.channel, "offset": joined.offset, "epoch": joined.epoch}
    if joined.recovered.complete is not None:
        data["recovered"] = joined.recovered.complete
    data["replayed"] = joined.recovered.replayed
    if joined.roster is not None:
        data["presence"] = roster_data(joined.roster)
    return data


def roster_data(roster: Roster) -> Message:
    """Return who is present in a channel."""
    data: Message = {
        "count": roster.count,
        "users": roster.members,
        "epoch": roster.epoch,
        "offset": roster.offset,
    }
    if roster.recovered is not None:
        data["recovered"] = roster.recovered
    return data


def history_data(channel: str, page: Page) -> Message:
    """Return a part of a channel's history, whose publications are put in as they were encoded once."""
    return {
        "channel": channel,
        "epoch": page.epoch,
        "offset": page.offset,
        "publications": [_raw(publication) for publication in page.publications],
        "more": page.more,
        "complete": page.complete,
    }


def _raw(publication: Encoded) -> msgspec.Raw:
    return msgspec.Raw(publication.json)
