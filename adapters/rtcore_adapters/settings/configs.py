"""What of the settings concerns whom."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Final

import attrs

from rtcore import NodeConfig, RouterConfig, WebSocketConfig
from rtcore.namespaces import Namespace, Namespaces
from rtcore.permissions import Role
from rtcore.rate_limit import RateLimit, RateLimitConfig
from rtcore.signaling import SignalingConfig
from rtcore.uploads import FileConfig
from rtcore_adapters.content import inspect
from rtcore_adapters.stores import FolderStore, StoreUrlError, default_folder, open_store
from rtcore_transports import EndpointConfig, GateConfig, ServerLimits
from rtcore_transports.files import Files
from rtcore_transports.files_config import FilesConfig

from .errors import SettingsError, shown
from .tables import RealtimeSettings, Settings, WebRtcSettings

__all__ = [
    "check_bind",
    "endpoint_config",
    "files_config",
    "gate_config",
    "node_config",
    "open_files",
    "roles",
]

# What the head of a binary message may have, besides the file in it.
_HEAD_ROOM: Final = 2**16


def node_config(settings: Settings) -> NodeConfig:
    """Return what of the settings concerns the node."""
    realtime, websocket, sse = settings.realtime, settings.websocket, settings.sse
    return NodeConfig(
        max_connections=realtime.max_connections,
        max_websocket=websocket.max_connections,
        max_sse=sse.max_connections,
        max_per_user=realtime.max_connections_per_user,
        max_per_address=realtime.max_connections_per_address,
        websocket_heartbeat=websocket.heartbeat_interval,
        sse_heartbeat=sse.heartbeat_interval,
        max_message_size=websocket.max_message_size,
        rate_limits=RateLimitConfig(
            connection=_rate_limit(realtime.rate_limit, realtime.rate_limit_bytes, burst=realtime.rate_limit_burst),
            user=_rate_limit(realtime.user_rate_limit, realtime.user_rate_limit_bytes),
            warnings=realtime.rate_limit_warnings,
        ),
        router=RouterConfig(
            max_channels=realtime.max_channels,
            presence_limit=realtime.presence_limit,
            namespaces=_namespaces(realtime),
            max_history_bytes=realtime.max_history_bytes,
            # Twice what may wait for a connection: whoever was ended for being slow has missed that, and more.
            max_replay_bytes=8 * _largest_message(settings),
            idempotency_window=realtime.idempotency_window,
            idempotency_size=realtime.idempotency_size,
        ),
        signaling=_signaling(settings.webrtc),
        files=_file_config(settings),
    )


def endpoint_config(settings: Settings) -> EndpointConfig:
    """Return what of the settings concerns the endpoints and the connections to them."""
    realtime, websocket, sse = settings.realtime, settings.websocket, settings.sse
    return EndpointConfig(
        prefix=realtime.prefix,
        websocket_enabled=websocket.enabled,
        sse_enabled=sse.enabled,
        webrtc_enabled=settings.webrtc.enabled,
        gate=gate_config(settings),
        limits=ServerLimits(
            max_head=realtime.max_header_size,
            body_timeout=realtime.body_timeout,
            write_timeout=realtime.write_timeout,
            max_sockets=realtime.max_sockets,
            max_sockets_per_address=realtime.max_sockets_per_address,
        ),
        sse_retry=sse.retry_timeout,
        websocket=WebSocketConfig(
            max_message_size=websocket.max_message_size,
            max_binary_size=_largest_frame(settings),
            ping_interval=websocket.heartbeat_interval,
            pong_timeout=websocket.disconnect_timeout,
            handshake_timeout=websocket.handshake_timeout,
            message_timeout=websocket.message_timeout,
        ),
        # Room for a few of the largest messages, whatever the number of small ones.
        max_backlog=4 * _largest_message(settings),
        max_waiting=websocket.message_queue_size,
    )


def gate_config(settings: Settings) -> GateConfig:
    """Return what of the settings says who may come in."""
    realtime = settings.realtime
    return GateConfig(
        websocket_auth_required=settings.websocket.auth_required,
        sse_auth_required=settings.sse.auth_required,
        allow_anonymous=realtime.allow_anonymous,
        allowed_origins=realtime.allowed_origins,
        trusted_proxies=realtime.trusted_proxies,
        cookie=settings.ws.cookie,
        api_key_header=settings.ws.api_key_header,
        authentication_timeout=realtime.authentication_timeout,
        hook_timeout=realtime.hook_timeout,
    )


def files_config(settings: Settings) -> FilesConfig | None:
    """Return what of the settings concerns those who keep files, or ``None`` where none are taken."""
    file, binary = _file_config(settings), settings.binary
    if file is None:
        return None
    return FilesConfig(
        file=file,
        # A message about a file is no larger than one that somebody has sent with the file in it.
        inline_max_size=min(binary.inline_max_size, file.max_binary_size),
        ttl=binary.file_ttl or None,
        quota=binary.quota,
        base=settings.realtime.prefix,
    )


def open_files(settings: Settings) -> Files | None:
    """Return what keeps the files, or ``None`` where none are taken; no store is looked for yet.

    Raises:
        SettingsError: Their store needs what is not installed.
    """
    config = files_config(settings)
    if config is None:
        return None
    url = settings.binary.store_url
    try:
        store = FolderStore(default_folder()) if url is None else open_store(url)
    except StoreUrlError as error:
        raise SettingsError(f"BINARY_STORE_URL cannot be used: {error}") from error
    return Files(store, config)


def roles(settings: Settings) -> dict[str, Role]:
    """Return the roles that tokens can name, by their names."""
    return {role.name: Role(**attrs.asdict(role)) for role in settings.ws.roles}


def check_bind(host: str, settings: Settings) -> None:
    """Refuse to listen where strangers could come in, unless that is wanted.

    Args:
        host: The address or the name to listen on. Of the names only ``localhost`` counts as loopback: what
            another resolves to is not for us to trust.
        settings: Whether credentials are required, or else anonymous users are allowed.

    Raises:
        SettingsError: `host` is not loopback, anonymous users are not allowed, and a transport that is enabled requires
            no authentication.
    """
    websocket, sse = settings.websocket, settings.sse
    is_open = [
        name
        for name, enabled, required in (
            ("WEBSOCKET", websocket.enabled, websocket.auth_required),
            ("SSE", sse.enabled, sse.auth_required),
        )
        if enabled and not required
    ]
    # Where neither transport is there, HTTP asks for a credential if one of them would.
    is_closed = not is_open and (websocket.auth_required or sse.auth_required)
    if settings.realtime.allow_anonymous or _is_loopback(host) or is_closed:
        return
    wanted = " and ".join(f"{name}_AUTH_REQUIRED=true" for name in is_open or ("WEBSOCKET",))
    raise SettingsError(
        f"{shown(host)} is not a loopback address and no authentication is required: listen on 127.0.0.1, ::1 or "
        f"localhost, set {wanted}, or set REALTIME_ALLOW_ANONYMOUS=true to let anybody in"
    )


def _namespaces(realtime: RealtimeSettings) -> Namespaces:
    default = Namespace(
        pattern="*",
        history_size=realtime.history_size,
        history_ttl=realtime.history_ttl,
        persistent_size=realtime.persistent_size,
        presence_grace=realtime.presence_grace,
        slow_consumer=realtime.slow_consumer,
    )
    return Namespaces(
        [
            attrs.evolve(default, **attrs.asdict(namespace, filter=lambda _, value: value is not None))
            for namespace in realtime.namespaces
        ],
        default,
    )


def _file_config(settings: Settings) -> FileConfig | None:
    binary = settings.binary
    if not binary.data_enabled:
        return None
    return FileConfig(
        max_binary_size=min(settings.websocket.binary_max_size, binary.max_file_size),
        max_file_size=binary.max_file_size,
        allowed_types=binary.allowed_types,
        inspect=inspect if binary.check_content else None,
        resume_timeout=binary.resume_timeout,
    )


def _largest_frame(settings: Settings) -> int | None:
    """Return the bytes of the largest binary message that may come, which is a file or a chunk, with its head."""
    file = _file_config(settings)
    return None if file is None else max(file.max_binary_size, file.chunk_size) + _HEAD_ROOM


def _largest_message(settings: Settings) -> int:
    return max(settings.websocket.max_message_size, _largest_frame(settings) or 0)


def _signaling(webrtc: WebRtcSettings) -> SignalingConfig | None:
    if not webrtc.enabled:
        return None
    return SignalingConfig(
        max_rooms=webrtc.max_rooms,
        max_rooms_per_user=webrtc.max_rooms_per_user,
        max_participants=webrtc.max_participants_per_room,
        peer_ttl=webrtc.peer_ttl,
        room_ttl=webrtc.room_ttl,
    )


def _rate_limit(messages: float | None, size: float | None, *, burst: int | None = None) -> RateLimit | None:
    if messages is None and size is None:
        return None
    return RateLimit(messages=messages, message_burst=burst, bytes=size)


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        address = ip_address(re.sub(r"^\[(.*)\]$", r"\1", host))
    except ValueError:
        return False
    # ::ffff:127.0.0.1 is a way to write 127.0.0.1, which is_loopback knows from Python 3.13 on.
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)
