"""Where a `Negotiation` may stand, and how it repairs its connection."""

from __future__ import annotations

from enum import Enum

import attrs

__all__ = ["NegotiationConfig", "Phase"]


class Phase(Enum):
    """Where a `Negotiation` stands."""

    #: Nothing is under way.
    STABLE = "stable"
    #: An offer is being made and set.
    OFFERING = "offering"
    #: An offer was sent; its answer is waited for.
    OFFERED = "offered"
    #: The offer is being taken back.
    ROLLING_BACK = "rolling back"
    #: The answer to the offer is being set.
    ACCEPTING = "accepting"
    #: The other side's offer is being set.
    RECEIVING = "receiving"
    #: An answer is being made and set.
    ANSWERING = "answering"
    #: The connection is of no use, and it is not yet time for another.
    BROKEN = "broken"
    #: There is to be no connection.
    CLOSED = "closed"


@attrs.frozen(kw_only=True)
class NegotiationConfig:
    """How a `Negotiation` repairs its connection. Times are in seconds.

    Attributes:
        connect_timeout: How long ICE may take once both descriptions are set, before it is repaired: an agent that
            finds no candidates, be it by a fault of its own, does not fail. ``None`` to wait for ever.
        restart_interval: Between the first repair, which is made at once, and the second; it doubles with each.
        max_interval: Where the doubling ends.
        max_restarts: How often ICE is restarted before the connection is built anew.
        max_held: Candidates that may wait for their description.
    """

    connect_timeout: float | None = 10.0
    restart_interval: float = 8.0
    max_interval: float = 60.0
    max_restarts: int = 3
    max_held: int = 64
