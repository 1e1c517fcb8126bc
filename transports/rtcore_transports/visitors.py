"""Who comes to the server: the address, the page and the credential that a request has brought."""

from __future__ import annotations

import attrs

from rtcore import Refusal

__all__ = ["Credentials", "Visitor"]


@attrs.frozen
class Credentials:
    """What somebody brings to say who they are: a token or an API key, which no `repr` shows; or neither."""

    token: str | None = attrs.field(default=None, repr=False)
    api_key: str | None = attrs.field(default=None, repr=False)

    def __bool__(self) -> bool:
        """Whether there is one."""
        return self.token is not None or self.api_key is not None


@attrs.frozen
class Visitor:
    """Who comes, before anything of it is checked.

    Attributes:
        address: From where: the peer's address, or the one that trusted proxies tell; ``None`` where it has none.
        local: Whether they are on this machine, came without a proxy in between, or by a trusted one, and know the
            server by a loopback name. So does not come a page of a stranger's whose name leads to this machine.
        scheme: ``http`` or ``https``, as they see it.
        host: The header ``Host``, or ``None``.
        origin: The header ``Origin``, or ``None`` for what is no page, or no page of another origin.
        counts_as: As what the address counts where connections from one are counted: all of its /64 for IPv6.
        credentials: What they say who they are by; or why that cannot be.
    """

    address: str | None
    local: bool
    scheme: str
    host: str | None
    origin: str | None
    counts_as: str | None
    credentials: Credentials | Refusal
