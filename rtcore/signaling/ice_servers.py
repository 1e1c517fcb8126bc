"""STUN and TURN servers, as an ``RTCPeerConnection`` takes them, with credentials that expire.

URLs are those of RFC 7064 and RFC 7065. A TURN server that shares a secret with us (coturn: ``use-auth-secret``) knows
nobody's password: whoever comes with a name that says until when it holds, and with the HMAC of that name, has them
from us (https://datatracker.ietf.org/doc/html/draft-uberti-behave-turn-rest-00, section 2.2). There is no way to take
such credentials back; one waits until they expire.

Not supported: OAuth (RFC 7635), and names of hosts that are not ASCII.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha1, sha256
from hmac import digest
from ipaddress import IPv6Address
from typing import Final, NotRequired, TypedDict
from urllib.parse import quote, unquote

__all__ = ["IceServer", "has_credentials", "ice_servers", "is_stun_url", "is_turn_url"]

_AUTHORITY: Final = r"(?P<host>[A-Za-z0-9._-]+|\[(?P<address>[0-9A-Fa-f:.]+)\])(:(?P<port>[0-9]{1,5}))?"
_STUN: Final = re.compile(rf"stuns?:{_AUTHORITY}")
# RFC 7065 has no user in it, and W3C WebRTC refuses one. It is a way to write one down, and goes no further than here.
_CHARACTER: Final = r"%[0-9A-Fa-f]{2}|[A-Za-z0-9._~!$&'()*+;=/-]"
_TURN: Final = re.compile(rf"turns?:(({_CHARACTER})+:({_CHARACTER}|:)+@)?{_AUTHORITY}(\?transport=(udp|tcp))?")

# A name has "fewer than 509 bytes" (RFC 8489, section 14.3), and ours has the expiry in it too.
_MAX_USER: Final = 255


class IceServer(TypedDict):
    """What W3C WebRTC calls ``RTCIceServer``: servers that are used with the same credentials.

    Attributes:
        urls: Where they are.
        username: Who uses them; only for TURN.
        credential: The password; only for TURN.
    """

    urls: list[str]
    username: NotRequired[str]
    credential: NotRequired[str]


def ice_servers(
    stun: Sequence[str],
    turn: Sequence[str],
    *,
    secret: str | None,
    user: str | None,
    now_wall_seconds: float,
    ttl: float,
) -> list[IceServer]:
    """Return the servers for one user.

    The name of the user is in the credentials, and so in the logs and quotas of the TURN server: escaped as in a URL,
    or as its SHA-256 where coturn would refuse it. It crosses the network in clear.

    Args:
        stun: URLs of STUN servers: see `is_stun_url`.
        turn: URLs of TURN servers: see `is_turn_url`. One with credentials in its URL has those; browsers take no TURN
            server without any.
        secret: What the other TURN servers share with us; ``None`` if they do not.
        user: Who asks; ``None`` for somebody without a name.
        now_wall_seconds: Seconds since 1970.
        ttl: Seconds for which the credentials are good. They are needed to begin, and to restart ICE; what has begun
            goes on.

    Returns:
        One for all STUN servers, if there are any, then one for the TURN servers of each pair of credentials, in the
        order in which they were given.
    """
    issued = None if secret is None else _credentials(secret, user, int(now_wall_seconds + ttl))
    relays: dict[tuple[str, str] | None, list[str]] = {}
    for url in turn:
        bare, own = _split(url)
        relays.setdefault(own or issued, []).append(bare)
    servers: list[IceServer] = [{"urls": list(stun)}] if stun else []
    for credentials, urls in relays.items():
        if credentials is None:
            servers.append({"urls": urls})
        else:
            username, credential = credentials
            servers.append({"urls": urls, "username": username, "credential": credential})
    return servers


def is_stun_url(text: str) -> bool:
    """Tell whether `text` is ``stun:HOST`` or ``stuns:HOST``, perhaps with ``:PORT``."""
    return _fits(_STUN.fullmatch(text))


def is_turn_url(text: str) -> bool:
    """Tell whether `text` is ``turn:HOST`` or ``turns:HOST``, perhaps with ``:PORT`` and ``?transport=udp`` or ``tcp``.

    Before the host there may be ``USER:PASSWORD@``, in which what has a meaning in URLs is escaped (``%40`` for ``@``).
    """
    return _fits(_TURN.fullmatch(text))


def has_credentials(url: str) -> bool:
    """Tell whether a TURN server's URL has a user and a password in it."""
    return _split(url)[1] is not None


def _fits(match: re.Match[str] | None) -> bool:
    if match is None:
        return False
    if match["address"] is not None:
        try:
            IPv6Address(match["address"])
        except ValueError:
            return False
    return match["port"] is None or 1 <= int(match["port"]) <= 65535


def _split(url: str) -> tuple[str, tuple[str, str] | None]:
    """Return the URL as a browser takes it, and what credentials were in it."""
    scheme, _, rest = url.partition(":")
    user, _, authority = rest.rpartition("@")
    if not user:
        return url, None
    name, _, password = user.partition(":")
    return f"{scheme}:{authority}", (unquote(name), unquote(password))


def _credentials(secret: str, user: str | None, expires_at: int) -> tuple[str, str]:
    # The colon and the name are left out where there is none (section 2.2 of the draft, and coturn).
    username = str(expires_at) if user is None else f"{expires_at}:{_escaped(user)}"
    return username, b64encode(digest(secret.encode(), username.encode(), sha1)).decode()


def _escaped(user: str) -> str:
    name = quote(user, safe="@:+", errors="surrogatepass")
    lower = name.lower()
    # coturn takes no name with spaces, quotes or backslashes, nor one with both of these words, which might be SQL.
    if len(name) > _MAX_USER or ("union" in lower and "select" in lower):
        return sha256(name.encode()).hexdigest()
    return name
