"""From where a client comes: the peer, or what trusted proxies say in ``Forwarded`` and ``X-Forwarded-For``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final, TypeAlias

import attrs

from rtcore.handshake import Headers

__all__ = [
    "Address",
    "ClientAddress",
    "Network",
    "address_key",
    "client_address",
    "forwarded_scheme",
    "is_loopback",
    "parse_address",
]

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

# More hops than any chain of proxies has; who sends thousands wants us to be busy.
_MAX_HOPS: Final = 50
# What shows that somebody has passed a request on, beside X-Forwarded-….
_MARKS: Final = frozenset({b"forwarded", b"x-real-ip", b"via"})
_TOKEN: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PAIR: Final = re.compile(rf'\s*({_TOKEN})=({_TOKEN}|"(?:[^"\\]|\\.)*")\s*(?=[;,]|$)')
# "node = nodename [ ":" node-port ]" (RFC 7239, section 6); X-Forwarded-For has IPv6 without brackets as well.
_NODE: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+))(?::[0-9]{1,5})?")


@attrs.frozen
class ClientAddress:
    """From where a client comes.

    Attributes:
        address: The address; ``None`` where the peer has none.
        is_known: Whether it is the client's for sure, and not that of somebody in between.
        is_proxied: Whether the peer is a trusted proxy.
    """

    address: Address | None
    is_known: bool
    is_proxied: bool


def client_address(peer: str | None, headers: Headers, proxies: Sequence[Network]) -> ClientAddress:
    """Return from where a client comes.

    It is the peer, unless that is a trusted proxy that says for whom it asks: then it is the last address that no
    trusted proxy has. Whatever stands before that anybody may have written. Where the proxies do not tell, or not one
    thing, it is the peer.

    Args:
        peer: The address at the other end of the connection, or what the host takes for it.
        headers: Of the request, names in lower case.
        proxies: The networks of trusted proxies.
    """
    address = parse_address(peer)
    if address is None:
        return ClientAddress(None, is_known=False, is_proxied=False)
    if not _is_in(address, proxies):
        return ClientAddress(address, is_known=not _is_forwarded(headers), is_proxied=False)
    chains = [chain(headers) for chain in (_forwarded, _x_forwarded_for)]
    told = [_last_untrusted(chain, proxies) for chain in chains if chain is not None]
    if not told:
        return ClientAddress(address, is_known=not _is_forwarded(headers), is_proxied=True)
    # A proxy that writes one of the two headers passes on the other as the client has sent it.
    if told[0] is None or any(each != told[0] for each in told):
        return ClientAddress(address, is_known=False, is_proxied=True)
    return ClientAddress(told[0], is_known=True, is_proxied=True)


def forwarded_scheme(headers: Headers) -> str | None:
    """Return by what scheme the client came to the last proxy, or ``None`` if that does not say."""
    values = _values(headers, b"x-forwarded-proto")
    if not values:
        values = [hop["proto"] for hop in _parameters(headers) or () if "proto" in hop]
    scheme = values[-1].strip().lower() if values else None
    return scheme if scheme in ("http", "https") else None


def address_key(address: Address | None) -> str | None:
    """Return as what a client counts where addresses are counted: an IPv6 client has all of its /64 at hand."""
    if isinstance(address, IPv6Address):
        return str(IPv6Network((int(address), 64), strict=False))
    return None if address is None else str(address)


def is_loopback(address: Address | None) -> bool:
    """Tell whether an address is one of this machine's own."""
    return address is not None and address.is_loopback


def parse_address(text: str | None) -> Address | None:
    """Return an address, without a zone, and as IPv4 if that is what it means; ``None`` if it is none."""
    try:
        address = ip_address((text or "").partition("%")[0])
    except ValueError:
        return None
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address


def _is_forwarded(headers: Headers) -> bool:
    return any(name in _MARKS or name.startswith(b"x-forwarded-") for name, _ in headers)


def _is_in(address: Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)


def _last_untrusted(chain: list[str], proxies: Sequence[Network]) -> Address | None:
    address = None
    for node in reversed(chain[-_MAX_HOPS:]):
        address = _address_of(node)
        if address is None or not _is_in(address, proxies):
            break
    # Where all are proxies of ours, the first of them is the client.
    return address


def _address_of(node: str) -> Address | None:
    node = node.strip()
    match = _NODE.fullmatch(node)
    return parse_address((match[1] or match[2]) if match else node)


def _x_forwarded_for(headers: Headers) -> list[str] | None:
    return _values(headers, b"x-forwarded-for") or None


def _forwarded(headers: Headers) -> list[str] | None:
    hops = _parameters(headers)
    return None if hops is None else [hop.get("for", "unknown") for hop in hops]


def _values(headers: Headers, wanted: bytes) -> list[str]:
    """Return the members of a header that is a list, of all its lines."""
    return [
        member for name, value in headers if name == wanted for member in value.decode("latin-1").split(",") if member
    ]


def _parameters(headers: Headers) -> list[dict[str, str]] | None:
    """Return what ``Forwarded`` says of each hop; of one that is malformed, nothing. ``None`` without the header."""
    lines = [value.decode("latin-1") for name, value in headers if name == b"forwarded"]
    if not lines:
        return None
    hops: list[dict[str, str]] = [{}]
    text = ",".join(lines)
    position = 0
    while position < len(text):
        pair = _PAIR.match(text, position)
        if pair is None:
            # What follows cannot be told apart, so nothing of it is believed.
            hops.append({})
            break
        value = pair[2]
        hops[-1][pair[1].lower()] = re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value
        position = pair.end()
        if text[position : position + 1] == ",":
            hops.append({})
        position += 1
    return hops
