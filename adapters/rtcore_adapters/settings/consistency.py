"""Settings that are right one by one and do not fit together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rtcore_adapters.stores.urls import MAX_OBJECT

from .credentials import ALGORITHMS, WsSettings

if TYPE_CHECKING:
    from .tables import Settings

__all__ = ["fault_of", "lacks_key"]


def fault_of(settings: Settings) -> str | None:
    """Tell in one line what does not fit together, without any secret, or ``None``."""
    realtime, ws = settings.realtime, settings.ws
    if ws.cookie is not None and "*" in realtime.allowed_origins:
        return (
            "WS_COOKIE is set, and REALTIME_ALLOWED_ORIGINS has '*': any web page could come with the cookies of "
            "those who see it; allowed: the origins of your own pages"
        )
    for one, other in (("certificate", "key"), ("key", "certificate"), ("client_ca", "certificate")):
        if getattr(realtime, f"tls_{one}") is not None and getattr(realtime, f"tls_{other}") is None:
            return f"REALTIME_TLS_{one.upper()} is set; allowed: together with REALTIME_TLS_{other.upper()}"
    if (settings.binary.store_url or "").startswith("s3:") and settings.binary.max_file_size > MAX_OBJECT:
        return f"BINARY_MAX_FILE_SIZE is {settings.binary.max_file_size}; allowed: at most {MAX_OBJECT} with s3://"
    return _fault_of_keys(ws) or _fault_of_lists(ws)


def lacks_key(settings: Settings) -> str | None:
    """Tell in one line that credentials are required of which the settings have no key, or ``None``."""
    if not settings.ws.takes_credentials:
        for name, table in (("WEBSOCKET", settings.websocket), ("SSE", settings.sse)):
            if table.auth_required:
                return (
                    f"{name}_AUTH_REQUIRED is true, and there is no key that could let anybody in; "
                    "allowed: with WS_JWT_SECRET_KEY, WS_JWT_PUBLIC_KEY, WS_JWKS_URL or WS_API_KEYS"
                )
    return None


def _fault_of_keys(ws: WsSettings) -> str | None:
    # HS256 without any key is what nobody has asked for.
    if not ws.takes_tokens and ws.jwt_algorithm == ("HS256",):
        return None
    for algorithm in ws.jwt_algorithm:
        least = ALGORITHMS[algorithm]
        if least is None:
            if ws.jwt_public_key is None and ws.jwt_private_key is None and ws.jwks_url is None:
                return (
                    f"WS_JWT_ALGORITHM is {algorithm}; "
                    "allowed: together with WS_JWT_PUBLIC_KEY, WS_JWT_PRIVATE_KEY or WS_JWKS_URL"
                )
        elif ws.jwt_secret_key is None:
            return f"WS_JWT_ALGORITHM is {algorithm}; allowed: together with WS_JWT_SECRET_KEY"
        elif len(ws.jwt_secret_key) < least:
            return (
                f"WS_JWT_SECRET_KEY has {len(ws.jwt_secret_key)} characters; allowed: at least {least} for {algorithm} "
                f"(RFC 7518, section 3.2); make one: python3 -c 'import secrets; print(secrets.token_urlsafe({least}))'"
            )
    return None


def _fault_of_lists(ws: WsSettings) -> str | None:
    names = [name for name, _ in ws.named_api_keys]
    if len(set(names)) < len(names):
        return "WS_API_KEYS has a name twice; allowed: each name once"
    if len({key.key for key in ws.api_keys}) < len(ws.api_keys):
        return "WS_API_KEYS has a key twice; allowed: each key once"
    return None
