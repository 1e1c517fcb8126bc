"""How much of the native server one client, or all that only pretend to be clients, may hold, and for how long."""

from __future__ import annotations

import attrs

__all__ = ["ServerLimits"]


@attrs.frozen(kw_only=True)
class ServerLimits:
    """Limits of the native server. That for the head of the first request is the WebSockets' ``handshake_timeout``.

    Attributes:
        max_head: Bytes that the head of a request may have: room for long tokens in URLs and headers; what nginx takes
            with four large buffers, and twice what Apache does.
        keep_alive_timeout: Seconds for which a connection without a request under way is kept.
        body_timeout: Seconds without progress of a request's body after which the request is ended.
        write_timeout: Seconds after which a peer that takes nothing of what an application sends counts as gone.
        max_sockets: How many connections are open at once, whatever they are for; ``None`` for as many as there are
            file descriptors, but for some in reserve.
        max_sockets_per_address: How many of them come from one address, of IPv6 from one /64; ``None`` for any number.

    Raises:
        ValueError: A number is not positive.
    """

    max_head: int = 16384
    keep_alive_timeout: float = 75.0
    body_timeout: float = 30.0
    write_timeout: float = 30.0
    max_sockets: int | None = None
    max_sockets_per_address: int | None = None

    def __attrs_post_init__(self) -> None:
        """Refuse what is not positive."""
        for name, value in attrs.asdict(self).items():
            if value is not None and not value > 0:
                raise ValueError(f"{name} is {value}, it must be positive")
