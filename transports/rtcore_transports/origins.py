"""The origins of web pages (RFC 6454), and which of them may use a server."""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import IPv6Address
from typing import Final

import attrs

from .client_address import is_loopback, parse_address

__all__ = ["OriginPattern", "allows_origin", "is_loopback_host"]

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_AUTHORITY: Final = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9_.*-]+)(?::([0-9]{1,5}|\*))?")


@attrs.frozen
class OriginPattern:
    """An entry of a list of origins.

    Attributes:
        text: As it is written: ``*``, ``null``, or an origin, whose host may begin with ``*.`` for any name below and
            whose port may be ``*``.
        scheme: Of the origin; ``""`` for ``*`` and ``null``.
        host: Likewise.
        port: Likewise; ``None`` for any.
    """

    text: str
    scheme: str = ""
    host: str = ""
    port: int | None = None

    @classmethod
    def read(cls, text: str) -> OriginPattern:
        """Read one.

        Raises:
            ValueError: It is none; the message says what would be.
        """
        if text in ("*", "null"):
            return cls(text)
        scheme, separator, rest = text.lower().removesuffix("/").partition("://")
        authority = _authority(rest)
        if not separator or not re.fullmatch(r"[a-z][a-z0-9+.-]*", scheme) or authority is None:
            raise ValueError(f"{text!r} is not an origin: write it as https://example.com or https://*.example.com")
        host, port = authority
        if "*" in host.removeprefix("*."):
            raise ValueError(f"{text!r} is not an origin: a '*' stands only for what is before the first dot")
        return cls(text, scheme, host, None if port == "*" else _port(port, scheme))

    def matches(self, scheme: str, host: str, port: int | None) -> bool:
        """Tell whether it means this origin, which is not ``null``."""
        if self.text == "*":
            return True
        if self.scheme != scheme or (self.port is not None and self.port != port):
            return False
        if self.host.startswith("*."):
            return host.endswith(self.host[1:]) and len(host) >= len(self.host)
        return bool(self.host) and host == self.host


def allows_origin(origin: str, *, host: str | None, scheme: str, allowed: Sequence[OriginPattern]) -> bool:
    """Tell whether a page of some origin may use the server.

    Args:
        origin: What the header ``Origin`` says.
        host: What the header ``Host`` says.
        scheme: Of the request, ``http`` or ``https``.
        allowed: Who may beside the server's own pages; if nobody, pages of this machine may use a server on it.
    """
    if origin == "null":
        return any(pattern.text == "null" for pattern in allowed)
    theirs, separator, rest = origin.lower().partition("://")
    authority = _authority(rest)
    if not separator or authority is None or "*" in rest:
        return False
    name, port = authority[0], _port(authority[1], theirs)
    # Only what is allowed is a pattern.
    ours = None if host is None or "*" in host else _authority(host.lower())
    if ours is not None and theirs in _DEFAULT_PORTS:
        # Behind a proxy that ends TLS a request is http, though the page is https. The other way round it is not the
        # same origin: a page that came over http is anybody's who sits on the way.
        is_own = (name, port) == (ours[0], _port(ours[1], theirs)) and (theirs == scheme or scheme == "http")
        if is_own or (not allowed and _is_loopback_name(name) and _is_loopback_name(ours[0])):
            return True
    return any(pattern.matches(theirs, name, port) for pattern in allowed)


def is_loopback_host(host: str | None) -> bool:
    """Tell whether a header ``Host`` names this machine, in a way that no name server has a say in."""
    authority = None if host is None else _authority(host.lower())
    return authority is not None and _is_loopback_name(authority[0])


def _authority(text: str) -> tuple[str, str] | None:
    """Return the host and the port, if any, of what stands in ``Host``, in lower case; ``None`` if malformed."""
    match = _AUTHORITY.fullmatch(text)
    if match is None:
        return None
    host, port = match[1], match[2] or ""
    if host.startswith("["):
        try:
            address = IPv6Address(host[1:-1])
        except ValueError:
            return None
        return f"[{address.compressed}]", port
    # "example.com." is the same name, spelled in full.
    host = host.removesuffix(".")
    return (host, port) if host else None


def _port(text: str, scheme: str) -> int | None:
    return int(text) if text else _DEFAULT_PORTS.get(scheme)


def _is_loopback_name(host: str) -> bool:
    # "localhost" and the names below "MUST resolve to loopback" (WHATWG and RFC 6761, section 6.3).
    if host == "localhost" or host.endswith(".localhost"):
        return True
    return is_loopback(parse_address(host.removeprefix("[").removesuffix("]")))
