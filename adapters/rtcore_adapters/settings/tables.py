"""What can be set, in the tables in which it is: those of all, of each transport, of calls, of files, and
``[[namespace]]``.

Who may come in, ``[ws]`` with ``[[role]]`` and ``[[api_key]]``, is in `rtcore_adapters.settings.credentials`.
"""

from __future__ import annotations

from typing import Final

import attrs
from attrs.validators import in_, not_

from rtcore.namespaces import Access, SlowConsumer

from .consistency import fault_of
from .credentials import WsSettings
from .fields import (
    CREDENTIALS,
    channel_pattern,
    count,
    count_or_none,
    file_or_none,
    lack_credentials,
    media_ranges,
    networks,
    one_of,
    one_of_or_none,
    origins,
    path,
    rate_or_none,
    seconds,
    seconds_or_none,
    secret_or_none,
    store_url_or_none,
    stun_urls,
    switch,
    switch_or_none,
    text_or_none,
    turn_urls,
)

__all__ = [
    "BinarySettings",
    "NamespaceSettings",
    "RealtimeSettings",
    "Settings",
    "SseSettings",
    "WebRtcSettings",
    "WebSocketSettings",
]

# setTimeout takes no more milliseconds, and it is what EventSource waits with.
_LONGEST_RETRY: Final = 2**31 - 1

_LARGEST_MESSAGE: Final = 2**30

_LARGEST_FILE: Final = 2**50

# A hundred years: longer is a mistake in the unit.
_LONGEST_KEPT: Final = 100 * 366 * 86_400

# A year. It is kept in memory.
_LONGEST_HISTORY: Final = 366 * 86_400


@attrs.frozen(kw_only=True)
class NamespaceSettings:
    """What holds for the channels whose names match a pattern: one ``[[namespace]]``.

    What is ``None`` is as it is for all channels: see `RealtimeSettings` for what has a setting there.

    Attributes:
        pattern: What the whole name must look like; ``*`` stands for any characters. The server's own channels, whose
            names begin with ``$``, are only meant by patterns that begin so.
        history_size: How many of its last publications a channel keeps for those who come back.
        history_ttl: Seconds for which it keeps them.
        last_value: Whether every publication is persistent and only the last one is kept so.
        persistent_size: How many persistent publications it keeps for those who join; 1 with `last_value`.
        presence: Whether the channel knows its members.
        join_leave: Whether they hear of each other's coming and going.
        presence_grace: Seconds for which somebody whose connection was lost still counts as present.
        slow_consumer: What becomes of a subscriber that does not keep up.
        conflation_key: The field of a message by which `SlowConsumer.LATEST` tells what replaces what.
        subscribe: Who may join, and hear what is said.
        publish: Who may publish.
        upload: Who may send files.
        history_access: Who may ask for what was said before, and be told what they have missed.
        presence_access: Who may know who is there.
        max_message_size: The most bytes of JSON in one publication.
    """

    pattern: str = channel_pattern()
    history_size: int | None = count_or_none(low=0)
    history_ttl: float | None = seconds_or_none(low=0, high=_LONGEST_HISTORY)
    last_value: bool | None = switch_or_none()
    persistent_size: int | None = count_or_none(low=0)
    presence: bool | None = switch_or_none()
    join_leave: bool | None = switch_or_none()
    presence_grace: float | None = seconds_or_none(low=0)
    slow_consumer: SlowConsumer | None = attrs.field(default=None, metadata=one_of_or_none(SlowConsumer))
    conflation_key: str | None = text_or_none()
    # Joining is what makes members.
    subscribe: Access | None = attrs.field(
        default=None,
        validator=not_(in_((Access.MEMBERS,))),
        metadata=one_of_or_none(Access, but=Access.MEMBERS),
    )
    publish: Access | None = attrs.field(default=None, metadata=one_of_or_none(Access))
    upload: Access | None = attrs.field(default=None, metadata=one_of_or_none(Access))
    history_access: Access | None = attrs.field(default=None, metadata=one_of_or_none(Access))
    presence_access: Access | None = attrs.field(default=None, metadata=one_of_or_none(Access))
    max_message_size: int | None = count_or_none(
        high=_LARGEST_MESSAGE, unit=" (bytes)", nothing="the server's limit alone"
    )


@attrs.frozen
class RealtimeSettings:
    """What concerns all transports together: ``REALTIME_…`` or ``[realtime]``.

    Attributes:
        prefix: The path under which everything is served: with a leading slash and without a trailing one,
            so that a path is ``prefix + "/ws"``. Empty when all is served at the root.
        max_connections: How many connections are open at once, of all transports together.
        max_connections_per_user: How many of them one user has; ``None`` sets no limit of its own.
        max_connections_per_address: How many come from one address, of IPv6 from one /64; likewise.
        allow_anonymous: Whether anybody may connect to a server that does not listen on loopback only.
        shutdown_timeout: Seconds for which a server that ends waits for its connections to go.
        max_channels: How many channels one connection may have joined at once.
        presence_limit: The number of members above which a channel neither lists them nor tells anybody who
            joins and leaves: each of n members would hear of each other one, which makes n² messages.
        history_size: How many of its last publications a channel keeps for those who come back.
        history_ttl: Seconds for which it keeps them.
        persistent_size: How many persistent publications a channel keeps for those who join.
        max_history_bytes: The most bytes that all channels together keep.
        presence_grace: Seconds for which somebody whose connection was lost still counts as present.
        slow_consumer: What becomes of a subscriber that does not keep up.
        namespaces: What holds for some channels instead, by patterns of their names: ``[[namespace]]`` tables in
            TOML, a JSON list of objects in ``REALTIME_NAMESPACES``. The first that matches holds; what it does not
            say is as it is for all channels.
        idempotency_window: Seconds for which a publication with an ``id`` is not made again.
        idempotency_size: How many such publications are remembered of each publisher: no fewer than our clients keep
            unacknowledged, since what is forgotten could be made twice.
        rate_limit: Messages a second that one connection may send; ``None`` for any number.
        rate_limit_burst: How many it may send at once after a silence; ``None`` for those of two seconds.
        rate_limit_bytes: Bytes a second that one connection may send; ``None`` for any number.
        user_rate_limit: Messages a second that one user may send by all connections; ``None`` for any number.
        user_rate_limit_bytes: Bytes a second, likewise.
        rate_limit_warnings: For how many seconds in a row messages are refused for this before the connection is ended.
        allowed_origins: Whose web pages may use the server, beside its own: ``https://example.org``,
            ``https://*.example.org``, ``null``, or ``*`` for anybody's.
        trusted_proxies: The networks of the proxies that are believed when they say for whom they ask.
        authentication_timeout: Seconds in which a WebSocket that came without its credential must send it, and in which
            a credential must be verified.
        hook_timeout: Seconds after which a hook of the application that has not answered denies.
        max_header_size: The most bytes of the head of a request.
        max_body_size: The most bytes of its body; ``None`` for as many as a message over WebSocket may have.
        body_timeout: Seconds within which the body must be there.
        write_timeout: Seconds after which a client that takes nothing of an answer counts as gone.
        max_sockets: How many sockets are open at once, whatever they are for; ``None`` for as many as there are file
            descriptors, but for some in reserve.
        max_sockets_per_address: How many of them come from one address, of IPv6 from one /64; ``None`` for any number.
        tls_certificate: The path of a PEM file with the server's certificate and those that vouch for it.
        tls_key: The path of a PEM file with the private key of that certificate.
        tls_client_ca: The path of a PEM file with the authorities one of which a client's certificate must come from;
            ``None`` where clients need none.
    """

    prefix: str = path("/realtime")
    max_connections: int = count(1000)
    max_connections_per_user: int | None = count_or_none(nothing="no limit of its own")
    max_connections_per_address: int | None = count_or_none(nothing="no limit of its own")
    allow_anonymous: bool = switch(False)
    shutdown_timeout: float = seconds(10.0, low=0)
    max_channels: int = count(1000)
    presence_limit: int = count(256, low=0)
    history_size: int = count(100, low=0)
    history_ttl: float = seconds(300.0, low=0, high=_LONGEST_HISTORY)
    persistent_size: int = count(100, low=0)
    max_history_bytes: int = count(2**28, low=0, high=2**50, unit=" (bytes)")
    presence_grace: float = seconds(5.0, low=0)
    slow_consumer: SlowConsumer = attrs.field(default=SlowConsumer.DISCONNECT, metadata=one_of(SlowConsumer))
    namespaces: tuple[NamespaceSettings, ...] = ()
    idempotency_window: float = seconds(300.0, low=0)
    # At least one: a client may send again what was not acknowledged because it is remembered.
    idempotency_size: int = count(1000, low=1000)
    rate_limit: float | None = rate_or_none("messages")
    rate_limit_burst: int | None = count_or_none(nothing="those of two seconds")
    rate_limit_bytes: float | None = rate_or_none("bytes")
    user_rate_limit: float | None = rate_or_none("messages")
    user_rate_limit_bytes: float | None = rate_or_none("bytes")
    rate_limit_warnings: int = count(5, low=0)
    allowed_origins: tuple[str, ...] = origins()
    trusted_proxies: tuple[str, ...] = networks()
    authentication_timeout: float = seconds(5.0)
    hook_timeout: float = seconds(5.0)
    # As much as h11 takes in one read: the head of a browser with a token of 8 KiB fits.
    max_header_size: int = count(2**14, low=2**10, high=2**20, unit=" (bytes)")
    max_body_size: int | None = count_or_none(
        high=_LARGEST_MESSAGE, unit=" (bytes)", nothing="WEBSOCKET_MAX_MESSAGE_SIZE"
    )
    body_timeout: float = seconds(30.0)
    write_timeout: float = seconds(30.0)
    max_sockets: int | None = count_or_none(nothing="as many as there are file descriptors")
    max_sockets_per_address: int | None = count_or_none(nothing="no limit of its own")
    tls_certificate: str | None = file_or_none()
    tls_key: str | None = file_or_none()
    tls_client_ca: str | None = file_or_none()


@attrs.frozen
class WebSocketSettings:
    """What concerns WebSocket connections: ``WEBSOCKET_…`` or ``[websocket]``.

    Attributes:
        enabled: Whether the endpoint exists.
        auth_required: Whether only those with a token or an API key may connect.
        max_connections: How many are open at once; ``None`` sets no limit of its own.
        heartbeat_interval: Seconds of silence after which a peer is pinged.
        disconnect_timeout: Seconds of silence after a ping that end a connection.
        message_queue_size: How many outbound messages may wait for one connection before it counts as slow.
        max_message_size: The largest inbound message, in bytes.
        handshake_timeout: Seconds within which the opening handshake must be complete.
        message_timeout: Seconds within which an inbound message that has begun must be complete.
        binary_max_size: The largest file in one message, in bytes; larger ones come in chunks.
    """

    enabled: bool = switch(True)
    auth_required: bool = switch(False)
    max_connections: int | None = count_or_none(nothing="no limit of its own")
    heartbeat_interval: float = seconds(30.0)
    disconnect_timeout: float = seconds(60.0)
    message_queue_size: int = count(1000)
    max_message_size: int = count(2**20, high=_LARGEST_MESSAGE, unit=" (bytes)")
    handshake_timeout: float = seconds(10.0)
    message_timeout: float = seconds(120.0)
    binary_max_size: int = count(2**20, high=_LARGEST_MESSAGE, unit=" (bytes)")


@attrs.frozen
class SseSettings:
    """What concerns Server-Sent Events: ``SSE_…`` or ``[sse]``.

    Attributes:
        enabled: Whether the endpoint exists.
        auth_required: Whether only those with a token or an API key may listen.
        max_connections: How many streams are open at once; ``None`` sets no limit of its own.
        heartbeat_interval: Seconds of silence after which a stream carries a heartbeat.
        retry_timeout: Milliseconds that a browser waits before it connects again: the stream's ``retry``.
    """

    enabled: bool = switch(True)
    auth_required: bool = switch(False)
    max_connections: int | None = count_or_none(nothing="no limit of its own")
    heartbeat_interval: float = seconds(30.0)
    retry_timeout: int = count(3000, high=_LONGEST_RETRY, unit=" (milliseconds)")


@attrs.frozen
class WebRtcSettings:
    """What concerns rooms and calls: ``WEBRTC_…`` or ``[webrtc]``.

    Attributes:
        enabled: Whether there are rooms, and endpoints for them.
        stun_servers: What tells a browser its address as others see it; ``stun:HOST:PORT``. None by default: peers of
            one network need none, and whose addresses are told to whom is for those to say who run this.
        turn_servers: What relays for those who cannot reach each other; ``turn:HOST:PORT?transport=udp``. One that
            knows its users by itself is ``turn:USER:PASSWORD@HOST:PORT``, and clients are told the password.
        turn_secret: What the other TURN servers share with us, coturn's ``static-auth-secret``: clients are told
            credentials that expire.
        turn_ttl: Seconds for which these are good.
        max_rooms: How many rooms there are at once.
        max_rooms_per_user: How many of them one user has made, or one connection without a user.
        max_participants_per_room: How many peers are in one room, unless it says fewer itself.
        peer_ttl: Seconds for which a peer whose connection was lost is waited for.
        room_ttl: Seconds for which an empty room is kept.
    """

    enabled: bool = switch(True)
    stun_servers: tuple[str, ...] = stun_urls()
    turn_servers: tuple[str, ...] = turn_urls()
    turn_secret: str | None = secret_or_none()
    turn_ttl: float = seconds(3600.0, low=1)
    max_rooms: int = count(1000)
    max_rooms_per_user: int = count(100)
    max_participants_per_room: int = count(8)
    peer_ttl: float = seconds(15.0, low=0)
    room_ttl: float = seconds(300.0, low=0)

    def __attrs_post_init__(self) -> None:
        if lack_credentials(self.turn_servers, self.turn_secret):
            raise ValueError(f"'turn_servers' must be {CREDENTIALS}")


@attrs.frozen
class BinarySettings:
    """What concerns files: ``BINARY_…`` or ``[binary]``.

    Attributes:
        data_enabled: Whether there are any: in binary messages, in chunks, and over HTTP.
        max_file_size: The largest file, in bytes.
        allowed_types: The media types that are taken, in lower case; ``image/*`` is all those of images.
        store_url: Where files are kept: ``file:///path``, or ``s3://bucket/prefix?endpoint=…&region=…`` with the
            credentials that ``AWS_…`` tell; ``None`` for the folder ``rtcore/files`` of ``$XDG_DATA_HOME``, which is
            ``~/.local/share``. It is made at the first file.
        inline_max_size: Receivers of a file with no more bytes get them at once, and do not have to fetch them.
        file_ttl: Seconds for which a file is kept; 0 for ever.
        quota: The bytes of all files that are kept; ``None`` for any number.
        check_content: Whether what is in a file must fit its media type.
        resume_timeout: Seconds for which a file that comes in chunks waits for its sender to come back.
    """

    data_enabled: bool = switch(True)
    max_file_size: int = count(2**30, high=_LARGEST_FILE, unit=" (bytes)")
    allowed_types: tuple[str, ...] = media_ranges()
    store_url: str | None = store_url_or_none("rtcore/files in $XDG_DATA_HOME or ~/.local/share")
    inline_max_size: int = count(2**16, low=0, high=_LARGEST_MESSAGE, unit=" (bytes)")
    file_ttl: float = seconds(604_800.0, low=0, high=_LONGEST_KEPT)
    quota: int | None = count_or_none(10 * 2**30, high=_LARGEST_FILE, unit=" (bytes)", nothing="no limit")
    check_content: bool = switch(True)
    resume_timeout: float = seconds(600.0, low=0)


@attrs.frozen
class Settings:
    """All settings. Made by hand, a value out of its range raises `ValueError`, as do two that do not fit together."""

    realtime: RealtimeSettings = attrs.field(factory=RealtimeSettings)
    websocket: WebSocketSettings = attrs.field(factory=WebSocketSettings)
    sse: SseSettings = attrs.field(factory=SseSettings)
    webrtc: WebRtcSettings = attrs.field(factory=WebRtcSettings)
    ws: WsSettings = attrs.field(factory=WsSettings)
    binary: BinarySettings = attrs.field(factory=BinarySettings)

    def __attrs_post_init__(self) -> None:
        if fault := fault_of(self):
            raise ValueError(fault)
