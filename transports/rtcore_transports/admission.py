"""What a client asks for as it connects, by WebSocket or event stream, whatever the host."""

from __future__ import annotations

from urllib.parse import parse_qs

import attrs

from rtcore import Refusal, WebSocketConfig
from rtcore.messages import check_channel, normalize_user_id

__all__ = ["Admission", "EndpointConfig", "read_query"]


@attrs.frozen
class EndpointConfig:
    """What the realtime endpoints offer.

    Attributes:
        prefix: The path under which they are, without a trailing slash.
        websocket_enabled: Whether ``/ws`` exists.
        sse_enabled: Whether ``/events`` exists.
        allow_anonymous: Whether anybody may come from anywhere, and the query's ``user_id`` names the user.
        sse_retry: Milliseconds after which an event stream is to be reopened.
        websocket: Limits and timeouts of each WebSocket.
        max_backlog: Bytes that may wait for one connection when one more message is still added.
        max_waiting: Messages, likewise.
    """

    prefix: str = "/realtime"
    websocket_enabled: bool = True
    sse_enabled: bool = True
    allow_anonymous: bool = False
    sse_retry: int = 3000
    websocket: WebSocketConfig = attrs.field(factory=WebSocketConfig)
    max_backlog: int = 2**22
    max_waiting: int = 1000


@attrs.frozen
class Admission:
    """Who comes, and which channels they join at once."""

    user_id: str | None
    channels: tuple[str, ...]


def read_query(query: bytes, config: EndpointConfig) -> Admission | Refusal:
    """Read the query of ``/ws`` or ``/events``.

    Args:
        query: As it stands in the URL, without the question mark.
        config: Whether it may name the user.

    Returns:
        Who comes, or why the query is refused.
    """
    try:
        fields = parse_qs(query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=2000)
    except ValueError:
        return Refusal("invalid_query", "the query must be percent-encoded UTF-8 of at most 2,000 fields", 400)
    channels = tuple(dict.fromkeys(fields.get("channel", [])))
    for channel in channels:
        if refusal := check_channel(channel):
            return refusal
    user_id: str | None = None
    if config.allow_anonymous and (named := fields.get("user_id")):
        normalized = normalize_user_id(named[0])
        if isinstance(normalized, Refusal):
            return normalized
        user_id = normalized
    return Admission(user_id, channels)
