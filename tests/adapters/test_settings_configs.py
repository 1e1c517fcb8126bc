"""What of the settings concerns the node, the endpoints and the gate, and on which addresses a server may listen."""

from __future__ import annotations

import pytest

from rtcore import NodeConfig, RouterConfig, WebSocketConfig
from rtcore.permissions import Role
from rtcore.signaling import SignalingConfig
from rtcore.uploads import FileConfig
from rtcore_adapters.content import inspect
from rtcore_adapters.settings import (
    ApiKeySettings,
    BinarySettings,
    RealtimeSettings,
    RoleSettings,
    Settings,
    SettingsError,
    SseSettings,
    WebRtcSettings,
    WebSocketSettings,
    WsSettings,
    check_bind,
    endpoint_config,
    gate_config,
    node_config,
    roles,
)
from rtcore_transports import EndpointConfig, GateConfig, ServerLimits

NOTHING = Settings()

CHOSEN = Settings(
    RealtimeSettings(
        prefix="/x",
        max_connections=1,
        max_connections_per_user=17,
        max_connections_per_address=18,
        allow_anonymous=True,
        max_channels=2,
        presence_limit=3,
        allowed_origins=("https://example.org",),
        trusted_proxies=("10.0.0.0/8",),
        authentication_timeout=20.5,
        hook_timeout=19.5,
        max_header_size=2000,
        body_timeout=21.5,
        write_timeout=22.5,
        max_sockets=23,
        max_sockets_per_address=24,
    ),
    WebSocketSettings(False, True, 4, 5.5, 6.5, 7, 8, 9.5, 25.5, 27),
    SseSettings(False, True, 10, 11.5, 12),
    WebRtcSettings(max_rooms=13, max_rooms_per_user=26, max_participants_per_room=14, peer_ttl=15.5, room_ttl=16.5),
    WsSettings(api_keys=(ApiKeySettings(key="k"),), api_key_header="X-Key", cookie="token"),
    BinarySettings(data_enabled=False),
)


def test_what_the_node_gets() -> None:
    assert node_config(NOTHING) == NodeConfig(
        files=FileConfig(inspect=inspect), router=RouterConfig(max_replay_bytes=8 * (2**20 + 2**16))
    )
    assert node_config(CHOSEN) == NodeConfig(
        max_connections=1,
        max_websocket=4,
        max_sse=10,
        max_per_user=17,
        max_per_address=18,
        websocket_heartbeat=5.5,
        sse_heartbeat=11.5,
        max_message_size=8,
        router=RouterConfig(max_replay_bytes=64, max_channels=2, presence_limit=3),
        signaling=SignalingConfig(
            max_rooms=13, max_rooms_per_user=26, max_participants=14, peer_ttl=15.5, room_ttl=16.5
        ),
    )
    assert node_config(Settings(webrtc=WebRtcSettings(enabled=False))).signaling is None


def test_what_the_endpoints_get() -> None:
    largest = 2**20 + 2**16
    assert endpoint_config(NOTHING) == EndpointConfig(
        websocket=WebSocketConfig(max_binary_size=largest), max_backlog=4 * largest
    )
    assert gate_config(CHOSEN) == endpoint_config(CHOSEN).gate
    assert endpoint_config(CHOSEN) == EndpointConfig(
        prefix="/x",
        websocket_enabled=False,
        sse_enabled=False,
        gate=GateConfig(
            websocket_auth_required=True,
            sse_auth_required=True,
            allow_anonymous=True,
            allowed_origins=("https://example.org",),
            trusted_proxies=("10.0.0.0/8",),
            cookie="token",
            api_key_header="X-Key",
            authentication_timeout=20.5,
            hook_timeout=19.5,
        ),
        limits=ServerLimits(
            max_head=2000, body_timeout=21.5, write_timeout=22.5, max_sockets=23, max_sockets_per_address=24
        ),
        sse_retry=12,
        websocket=WebSocketConfig(
            max_message_size=8, ping_interval=5.5, pong_timeout=6.5, handshake_timeout=9.5, message_timeout=25.5
        ),
        max_backlog=32,
        max_waiting=7,
    )
    assert not endpoint_config(Settings(webrtc=WebRtcSettings(enabled=False))).webrtc_enabled


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.8.9.10", "::1", "[::1]", "::ffff:127.0.0.1", "localhost", "LocalHost"]
)
def test_loopback_may_be_bound(host: str) -> None:
    check_bind(host, NOTHING)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "", "192.168.1.2", "::ffff:10.0.0.1", "example.org", "localhost.example", "[x]"]
)
def test_other_addresses_need_leave(host: str) -> None:
    assert bind_fault(NOTHING, host) == (
        f"{host!r} is not a loopback address and no authentication is required: listen on 127.0.0.1, ::1 or "
        "localhost, set WEBSOCKET_AUTH_REQUIRED=true and SSE_AUTH_REQUIRED=true, or set REALTIME_ALLOW_ANONYMOUS=true "
        "to let anybody in"
    )
    check_bind(host, Settings(realtime=RealtimeSettings(allow_anonymous=True)))


def bind_fault(settings: Settings, host: str = "0.0.0.0") -> str:
    with pytest.raises(SettingsError) as caught:
        check_bind(host, settings)
    return str(caught.value)


def test_where_credentials_are_required_any_address_may_be_bound() -> None:
    key = WsSettings(api_keys=(ApiKeySettings(key="k"),))
    on, off = WebSocketSettings(auth_required=True), WebSocketSettings(enabled=False)
    sse_on, sse_off = SseSettings(auth_required=True), SseSettings(enabled=False)
    check_bind("0.0.0.0", Settings(websocket=on, sse=sse_on, ws=key))
    check_bind("0.0.0.0", Settings(websocket=on, sse=sse_off, ws=key))
    check_bind("0.0.0.0", Settings(websocket=off, sse=sse_on, ws=key))

    half = bind_fault(Settings(websocket=on, ws=key))
    assert "set SSE_AUTH_REQUIRED=true, or set REALTIME_ALLOW_ANONYMOUS=true" in half
    half = bind_fault(Settings(sse=sse_on, ws=key))
    assert "set WEBSOCKET_AUTH_REQUIRED=true, or set REALTIME_ALLOW_ANONYMOUS=true" in half
    # A key alone keeps nobody out.
    assert "WEBSOCKET_AUTH_REQUIRED=true and SSE_AUTH_REQUIRED=true" in bind_fault(Settings(ws=key))
    # Nor are there transports that would ask the clients of the HTTP API.
    assert "set WEBSOCKET_AUTH_REQUIRED=true, or" in bind_fault(Settings(websocket=off, sse=sse_off, ws=key))


def test_roles() -> None:
    assert roles(NOTHING) == {}
    staff = RoleSettings(name="staff", channels=("staff:*",), upload=(), rooms=("s-*",), admin=True)
    assert roles(Settings(ws=WsSettings(roles=(staff, RoleSettings(name="x"))))) == {
        "staff": Role("staff", channels=("staff:*",), upload=(), rooms=("s-*",), admin=True),
        "x": Role("x"),
    }
