"""Visitors of hosts that ask for credentials: what they bring, and how they are turned away."""

from __future__ import annotations

from typing import Any, Final

from rtcore import Message
from rtcore_adapters import Settings, WSAuthenticator
from rtcore_adapters.settings import ApiKeySettings, RealtimeSettings, SseSettings, WebSocketSettings, WsSettings

from .clients import Client, Say
from .hosting import Host

__all__ = ["CLOSED", "KEY", "OPEN", "PAGE", "SECRET", "WS", "authenticate", "bearer", "revoke", "token", "turned_away"]

KEY: Final = "a-key-that-may-do-everything-0123"
SECRET: Final = "0123456789abcdef0123456789abcdef"
WS: Final = WsSettings(jwt_secret_key=SECRET, api_keys=(ApiKeySettings(key=KEY, name="backend"),), cookie="session")
#: The origin of pages that may come.
PAGE: Final = "https://app.example"
#: Of a server that knows credentials and requires none.
OPEN: Final = Settings(realtime=RealtimeSettings(presence_grace=0.0, allowed_origins=(PAGE,)), ws=WS)
#: Of one that requires one of everybody.
CLOSED: Final = Settings(
    # No hook is hurried, but where a test says so.
    realtime=RealtimeSettings(presence_grace=0.0, allowed_origins=(PAGE,), hook_timeout=60.0),
    websocket=WebSocketSettings(auth_required=True),
    sse=SseSettings(auth_required=True),
    ws=WS,
)


def token(user: str = "ann", expires_in: float = 600.0, **claims: object) -> str:
    """Return a token of a user, or of what else it is to say."""
    authenticator = WSAuthenticator(Settings(ws=WS))
    return authenticator.create_access_token({"sub": user, **claims}, expires_in=expires_in)


def bearer(credential: str) -> dict[str, str]:
    """Return the header for a token."""
    return {"Authorization": f"Bearer {credential}"}


def authenticate(credential: str, kind: str = "token", **rest: object) -> Message:
    """Return the first message of a client that has not brought its credential along."""
    return {"type": "command", "command": "authenticate", "data": {kind: credential}, **rest}


def turned_away(host: Host, query: str = "", say: Say | None = None, **options: Any) -> tuple[dict[str, Any], int, str]:
    """Open a WebSocket that is turned away; returns what it is told before the close, and the close."""
    with host.websocket(query=query, **options) as websocket:
        client = Client(websocket, welcome=False)
        if say is not None:
            client.say(say)
        farewell = client.hear()
        assert farewell["type"] == "disconnect"
        return farewell, *client.closed()


def revoke(host: Host, **what: object) -> int:
    """Revoke tokens; returns how many connections that has closed."""
    response = host.http.post("/tokens/revoke", json=what, headers={"X-API-Key": KEY})
    assert response.status_code == 200, response.text
    closed: int = response.json()["closed"]
    return closed
