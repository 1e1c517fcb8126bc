"""What a client asks for as it connects, by WebSocket or event stream, whatever the host."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from urllib.parse import parse_qs

import attrs

from rtcore import Refusal, WebSocketConfig
from rtcore.messages import check_channel, normalize_user_id
from rtcore.permissions import Grant
from rtcore.router import Request
from rtcore.signaling import JoinRoom
from rtcore.signaling.commands import parse_join_room

from .gate_config import GateConfig
from .server_limits import ServerLimits

__all__ = ["Admission", "EndpointConfig", "last_event_id_of", "read_query"]

_MAX_SESSION: Final = 255
_NOTHING_GRANTED: Final = Grant()
# What a client may say of how it wants to hear files: as they are, or in JSON.
_BINARY_FORMS: Final = {"frames": False, "base64": True}
_ROOM_FIELDS: Final = ("room_id", "peer_id", "instance")


@attrs.frozen
class EndpointConfig:
    """What the realtime endpoints offer.

    Attributes:
        prefix: The path under which they are, without a trailing slash.
        websocket_enabled: Whether ``/ws`` exists.
        sse_enabled: Whether ``/events`` exists.
        webrtc_enabled: Whether ``/webrtc/signaling`` exists, provided that ``/ws`` does.
        gate: Who may come in.
        sse_retry: Milliseconds after which an event stream is to be reopened.
        websocket: Limits and timeouts of each WebSocket.
        max_backlog: Bytes that may wait for one connection when one more message is still added.
        max_waiting: Messages, likewise.
        limits: Of the native server.
    """

    prefix: str = "/realtime"
    websocket_enabled: bool = True
    sse_enabled: bool = True
    webrtc_enabled: bool = True
    gate: GateConfig = attrs.field(factory=GateConfig)
    sse_retry: int = 3000
    websocket: WebSocketConfig = attrs.field(factory=WebSocketConfig)
    max_backlog: int = 2**22
    max_waiting: int = 1000
    limits: ServerLimits = attrs.field(factory=ServerLimits)

    def signals_at(self, path: str) -> bool | None:
        """Tell what the WebSocket endpoint at a path is for.

        Args:
            path: Below the prefix.

        Returns:
            Whether it is the one of signaling; ``None`` if there is no endpoint.
        """
        if not self.websocket_enabled:
            return None
        if path == "/ws":
            return False
        return True if path == "/webrtc/signaling" and self.webrtc_enabled else None


@attrs.frozen
class Admission:
    """Who comes, and where they go on.

    Attributes:
        user_id: The user, or ``None`` for somebody anonymous.
        channels: What they join at once.
        grant: What they are allowed.
        address: As what their address counts, or ``None`` where it does not.
        session: A secret by which their publications are known again on the next connection, or ``None``.
        last_event_id: The token of the last message that they have heard, whatever it is worth; ``None`` for none.
        signals: Whether they have come for signaling, where a signal needs no ``type``.
        room: What they join at once for that.
        json_only: Whether they hear files as JSON on a WebSocket, and not in binary frames.
        denied: Why they do not join other channels, which they are told.
        answers: The id of the command by which they have said who they are, or ``None``.
    """

    user_id: str | None
    channels: tuple[str, ...]
    grant: Grant = _NOTHING_GRANTED
    address: str | None = None
    session: str | None = None
    last_event_id: str | None = None
    signals: bool = False
    room: JoinRoom | None = None
    json_only: bool = False
    denied: tuple[Refusal, ...] = ()
    answers: str | int | None = None


def last_event_id_of(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Return what the header ``Last-Event-ID`` says, or ``None``.

    "the Unicode string value of the `Last-Event-ID` HTTP request header" is UTF-8 (WHATWG HTML, section 9.2.3); what is
    not is no token of ours, which whoever resumes by it is told in the stream.

    Args:
        headers: Names in lower case.
    """
    return next((value.decode(errors="replace") for name, value in headers if name == b"last-event-id"), None)


def read_query(
    query: bytes, config: EndpointConfig, *, last_event_id: str | None = None, signals: bool = False
) -> Admission | Refusal:
    """Read the query of ``/ws``, ``/webrtc/signaling`` or ``/events``.

    Args:
        query: As it stands in the URL, without the question mark.
        config: Whether it may name the user.
        last_event_id: What the header says, which counts before the query: a browser that reconnects by itself repeats
            the query as it was.
        signals: Whether it is that of ``/webrtc/signaling``, which may name a room to join.

    Returns:
        Who comes, or why the query is refused. A token is never a reason: what cannot be resumed is told in the stream.
    """
    try:
        fields = parse_qs(query.decode("ascii"), keep_blank_values=True, errors="surrogateescape", max_num_fields=2000)
        token = fields.pop("last_event_id", [""])[0]
        for name, values in fields.items():
            "".join([name, *values]).encode()
    except ValueError:
        return Refusal("invalid_query", "the query must be percent-encoded UTF-8 of at most 2,000 fields", 400)
    session = fields.get("session", [None])[0]
    if session is not None and not (1 <= len(session) <= _MAX_SESSION and session.isprintable()):
        return Refusal("invalid_session", f"'session' is 1 to {_MAX_SESSION} printable characters", 400)
    channels = tuple(dict.fromkeys(fields.get("channel", [])))
    for channel in channels:
        if refusal := check_channel(channel):
            return refusal
    user_id: str | None = None
    if config.gate.allow_anonymous and (named := fields.get("user_id")):
        normalized = normalize_user_id(named[0])
        if isinstance(normalized, Refusal):
            return normalized
        user_id = normalized
    json_only = _BINARY_FORMS.get(fields.get("binary", ["frames"])[0])
    if json_only is None:
        return Refusal("invalid_binary", "'binary' is 'frames', for files in binary frames, or 'base64'", 400)
    room = None
    if signals and "room_id" in fields:
        data: dict[str, object] = {name: fields[name][0] for name in _ROOM_FIELDS if name in fields}
        wanted = parse_join_room(data, None, Request(None))
        if isinstance(wanted, Refusal):
            return wanted
        room = wanted
    return Admission(
        user_id,
        channels,
        session=session,
        last_event_id=last_event_id or token or None,
        signals=signals,
        room=room,
        json_only=json_only,
    )
