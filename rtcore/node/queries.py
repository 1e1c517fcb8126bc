"""What a node tells about itself, to its clients and to the HTTP API."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rtcore.commands import history_query
from rtcore.errors import Refusal
from rtcore.messages import Message
from rtcore.permissions import Action, Identity
from rtcore.router import Router
from rtcore.session import Session, Transport

from .answers import history_data
from .sessions import Sessions
from .signaling import Signaling

__all__ = [
    "describe_channels",
    "describe_connections",
    "describe_history",
    "describe_node",
    "describe_presence",
    "page_of_history",
]


def describe_channels(router: Router, *, asker: Identity | None) -> list[Message]:
    """Return the channels in use that one may join: names, counts of subscribers and members, offset and epoch.

    The counts are ``None`` for who may not know who is there, unless they may administer.
    """

    def may(action: Action, channel: str = "") -> bool:
        return router.decide(action, channel, asker=asker) is None

    administers = may(Action.ADMINISTER)
    told: list[Message] = []
    for channel in router.channels(asker=asker):
        counts = administers or may(Action.PRESENCE, channel.name)
        told.append(
            {
                "channel": channel.name,
                "subscribers": len(channel) if counts else None,
                "members": len(channel.presence) if counts else None,
                "offset": channel.offset,
                "epoch": channel.epoch,
            }
        )
    return told


def describe_connections(router: Router, sessions: Iterable[Session]) -> list[Message]:
    """Return the connections, first come first."""
    return [
        {
            "connection_id": session.connection_id,
            "user_id": session.user_id,
            "transport": session.transport.value,
            "connected_at": session.connected_at,
            "channels": router.channels_of(session.connection_id),
        }
        for session in sessions
    ]


def describe_node(
    router: Router, sessions: Sessions, signaling: Signaling | None, *, published: int, refused: int
) -> Message:
    """Return the counts of a node; see `Node.stats`."""
    return {
        "websocket_count": sessions.count(Transport.WEBSOCKET),
        "sse_count": sessions.count(Transport.SSE),
        "unique_users": router.user_count,
        "active_channels": len(router.channels()),
        "total_connections": len(sessions),
        "accepted_connections": sessions.accepted,
        "published_messages": published,
        "refused_messages": refused,
        "history_bytes": router.history_bytes,
        **({} if signaling is None else signaling.stats()),
    }


def describe_presence(router: Router, channel: str, *, asker: Identity | str | None) -> Message | Refusal:
    """Return who is in a channel; ``users`` is ``None`` where they are too many to list. Or why it is not known."""
    roster = router.roster(channel, asker=asker)
    if isinstance(roster, Refusal):
        return roster
    return {"channel": channel, "count": roster.count, "users": roster.members}


def describe_history(
    router: Router, data: Mapping[str, object], *, asker: Identity | None, now: float
) -> Message | Refusal:
    """Return a part of a channel's history, or why not; `data` is not checked yet."""
    checked = history_query(data)
    return checked if isinstance(checked, Refusal) else page_of_history(router, checked, asker=asker, now=now)


def page_of_history(router: Router, data: Message, *, asker: Identity | str | None, now: float) -> Message | Refusal:
    """Return a part of a channel's history, or why not.

    Args:
        router: Whose channel it is.
        data: What `rtcore.commands.history_query` has checked.
        asker: Who wants to know: a connection's id, somebody who has none, or ``None`` for the application.
        now: Monotonic seconds.
    """
    channel, limit = str(data["channel"]), data["limit"]
    epoch, after, before = data["epoch"], data["after"], data["before"]
    # It has checked this.
    assert isinstance(limit, int)
    assert epoch is None or isinstance(epoch, str)
    assert after is None or isinstance(after, int)
    assert before is None or isinstance(before, int)
    page = router.history(channel, asker=asker, epoch=epoch, after=after, before=before, limit=limit, now=now)
    return page if isinstance(page, Refusal) else history_data(channel, page)
