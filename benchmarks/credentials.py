"""Servers that want to know who comes, and clients that say so, for `benchmarks.authentication`."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from pathlib import Path

import attrs
from joserfc.jwk import ECKey, OKPKey, RSAKey

from rtcore_adapters.auth import WSAuthenticator
from rtcore_adapters.settings import load_settings

from .load import Opening, masked_frame
from .peers import Peer

__all__ = ["Stage", "checked", "stages", "unchecked"]

_TARGET = "/realtime/ws"
# What a token says where it must say something: a list of patterns as applications have it, with the channel in it.
_CLAIMS = {"channels": ["news:*", "team-*", "ben*"], "publish": ["team-*", "ben*"], "roles": ["reader"]}

# No pings and no heartbeats, as for the others.
_COMMON = """
[realtime]
max_connections = 100_000
allow_anonymous = {anonymous}
{realtime}
[websocket]
heartbeat_interval = 3600
auth_required = {required}
"""
_ANYBODY = _COMMON.format(anonymous="true", required="false", realtime="")
_KNOWN = _COMMON.format(anonymous="false", required="true", realtime="")

# All that a server can check, and nothing that it refuses. The namespace of the channel is the last that is asked.
_EVERYTHING = (
    _COMMON.format(
        anonymous="false",
        required="true",
        realtime="""
max_connections_per_user = 100
max_connections_per_address = 100_000
rate_limit = 1_000_000
rate_limit_bytes = 1_000_000_000
user_rate_limit = 1_000_000
user_rate_limit_bytes = 1_000_000_000
allowed_origins = ["https://example.org", "https://*.example.com"]
trusted_proxies = ["10.0.0.0/8"]
""",
    )
    + """
[sse]
auth_required = true
[[role]]
name = "reader"
channels = ["archive:*"]
publish = []
[[namespace]]
pattern = "news:*"
publish = "server"
[[namespace]]
pattern = "team-*"
subscribe = "users"
publish = "members"
upload = "members"
history_access = "members"
presence_access = "members"
[[namespace]]
pattern = "bench"
subscribe = "granted"
publish = "granted"
upload = "granted"
history_access = "granted"
presence_access = "granted"
[ws]
jwt_audience = "rtcore"
jwt_issuer = "https://example.org"
"""
)
_ORIGIN = "Origin: https://pages.example.com"


@attrs.frozen
class Stage:
    """A server, and those who come to it.

    Attributes:
        name: What to call it.
        peer: The server.
        openings: How each of the clients comes, one user each.
        answer: What is in the answer to each once it is in.
        introductions: What each sends after the handshake, a frame; empty if they need not.
        publisher: How one more comes, who publishes, or ``None``.
    """

    name: str
    peer: Peer
    openings: list[Opening]
    answer: bytes = b'"connected"'
    introductions: list[bytes] = attrs.field(factory=list)
    publisher: Opening | None = None


def unchecked(folder: Path, backend: str, users: int, query: str = "") -> Stage:
    """Return a server that takes everybody at their word.

    Args:
        folder: For its settings.
        backend: Of the server.
        users: How many come, besides the one who publishes.
        query: What is in the target of each of them, besides the name.
    """
    openings = [Opening(f"{_TARGET}?user_id={_user(number)}{query}") for number in range(users)]
    publisher = Opening(f"{_TARGET}?user_id={_user(users)}")
    return Stage("none", _native(folder, "none", _ANYBODY, backend), openings, publisher=publisher)


def checked(folder: Path, backend: str, users: int, query: str = "") -> Stage:
    """Return a server with everything on, where each comes from a page and with a token of HS256; see `unchecked`."""
    settings = f'{_EVERYTHING}jwt_secret_key = "{secrets.token_urlsafe(32)}"\n'
    peer = _native(folder, "everything", settings, backend)
    *lines, last = _bearers(folder / "everything.toml", users + 1)
    openings = [Opening(f"{_TARGET}?{query}", (line, _ORIGIN)) for line in lines]
    return Stage("everything", peer, openings, publisher=Opening(_TARGET, (last, _ORIGIN)))


def stages(folder: Path, backend: str, users: int) -> list[Stage]:
    """Return a server for each way to say who one is: first the two without any, of ours and of `websockets`."""
    secret = f'[ws]\njwt_secret_key = "{secrets.token_urlsafe(32)}"\n'
    key = secrets.token_urlsafe(32)
    plain = folder / "secret"
    plain.write_text(secret.split('"')[1])
    hs256 = _with_token(folder, backend, users, "HS256", secret)
    tokens = [opening.headers[0].removeprefix("Authorization: Bearer ") for opening in hs256.openings]
    alone = [Opening("/echo")] * users
    return [
        unchecked(folder, backend, users),
        Stage(
            "websockets, none", Peer("websockets", ("-m", "benchmarks.peers.websockets_broadcast")), alone, b"\r\n\r\n"
        ),
        hs256,
        *(
            _with_token(folder, backend, users, algorithm, _private_key(folder, algorithm, make))
            for algorithm, make in _MADE.items()
        ),
        Stage(
            "API key",
            _native(folder, "key", f'{_KNOWN}[[api_key]]\nkey = "{key}"\nscopes = ["*"]\n', backend),
            [Opening(_TARGET, (f"X-API-Key: {key}",))] * users,
        ),
        Stage(
            "first message (HS256)",
            hs256.peer,
            [Opening(_TARGET)] * users,
            introductions=[_introduction(token) for token in tokens],
        ),
        Stage(
            "websockets, HS256",
            Peer("websockets-jwt", ("-m", "benchmarks.peers.websockets_jwt", str(plain))),
            [Opening("/echo", opening.headers) for opening in hs256.openings],
            b"\r\n\r\n",
        ),
    ]


_MADE: dict[str, Callable[[], bytes]] = {
    "ES256": lambda: ECKey.generate_key("P-256").as_pem(private=True),
    "RS256": lambda: RSAKey.generate_key(2048).as_pem(private=True),
    "EdDSA": lambda: OKPKey.generate_key("Ed25519").as_pem(private=True),
}


def _private_key(folder: Path, algorithm: str, make: Callable[[], bytes]) -> str:
    path = folder / f"{algorithm}.pem"
    path.write_bytes(make())
    return f'[ws]\njwt_algorithm = "{algorithm}"\njwt_private_key = "{path}"\n'


def _with_token(folder: Path, backend: str, users: int, algorithm: str, settings: str) -> Stage:
    peer = _native(folder, algorithm, _KNOWN + settings, backend)
    return Stage(algorithm, peer, [Opening(_TARGET, (line,)) for line in _bearers(folder / f"{algorithm}.toml", users)])


def _native(folder: Path, name: str, settings: str, backend: str) -> Peer:
    path = folder / f"{name}.toml"
    path.write_text(settings)
    return Peer(f"native, {name}", ("-m", "benchmarks.peers.native_settings", backend, str(path)))


def _bearers(path: Path, users: int) -> list[str]:
    """Return a line with a token for each user, by the settings of a server."""
    authenticator = WSAuthenticator(load_settings(config=path, env={}, cwd=path.parent))
    tokens = (authenticator.create_access_token({"sub": _user(number), **_CLAIMS}) for number in range(users))
    return [f"Authorization: Bearer {token}" for token in tokens]


def _introduction(token: str) -> bytes:
    command = {"type": "command", "command": "authenticate", "data": {"token": token}}
    return masked_frame(json.dumps(command, separators=(",", ":")).encode())


def _user(number: int) -> str:
    return f"user-{number:06}"
