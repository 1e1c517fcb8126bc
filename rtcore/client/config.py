"""The limits and durations of a client."""

from __future__ import annotations

import attrs

__all__ = ["ClientConfig"]


def _seconds(default: float) -> float:
    return attrs.field(default=default, validator=attrs.validators.gt(0.0))


@attrs.frozen(kw_only=True)
class ClientConfig:
    """Limits and durations of a client; durations are seconds.

    Attributes:
        auto_reconnect: Try again after a loss. Otherwise the first loss is the end.
        max_reconnect_attempts: Attempts in a row, after the first, that may fail to give a lasting connection
            before the client ends; ``None`` for no limit.
        backoff_base: Upper bound of the delay before the first new attempt; it doubles with each further one.
        backoff_cap: Upper bound of every delay. A connection that stood for so long was a lasting one.
        connect_timeout: From `Open` to the server's ``connected`` message.
        command_timeout: From the sending of a command to its answer. In the offline queue a command has no
            time limit: it is sent on connecting, or refused at the end.
        queue_size: Messages and commands kept while offline.
        max_unacknowledged: Publications that await their acknowledgement. No more than the server remembers of one
            client, or what it has forgotten might be published twice.
        heartbeat_factor: Silence, in heartbeat intervals of the server, that means that the link is dead.
        refreshes: Whether there is a fresh token where one is asked for. Then `RefreshDue` comes before the token of a
            connection expires; and a server that refuses the token, or ends the connection since it has expired (4401),
            is tried again, unless it does so twice in a row.
        refresh_margin: How long before its end the token of a connection is replaced; if it lives for less than twice
            as long, in the middle.
    """

    auto_reconnect: bool = True
    max_reconnect_attempts: int | None = attrs.field(
        default=None, validator=attrs.validators.optional(attrs.validators.ge(0))
    )
    backoff_base: float = _seconds(0.5)
    backoff_cap: float = _seconds(30.0)
    connect_timeout: float = _seconds(10.0)
    command_timeout: float = _seconds(10.0)
    queue_size: int = attrs.field(default=1000, validator=attrs.validators.ge(0))
    max_unacknowledged: int = attrs.field(default=1000, validator=attrs.validators.ge(1))
    heartbeat_factor: float = attrs.field(default=2.5, validator=attrs.validators.gt(1.0))
    refreshes: bool = False
    refresh_margin: float = _seconds(30.0)

    def backoff(self, attempts: int) -> float:
        """Return the upper bound of the delay after `attempts` new attempts, from which a client draws (full jitter).

        RFC 6455, section 7.2.3: "The first reconnect attempt SHOULD be delayed by a random amount of time", the
        later ones "by increasingly longer amounts of time, using a method such as truncated binary exponential
        backoff."
        """
        # The exponent is bounded because a float is.
        return min(self.backoff_cap, self.backoff_base * 2.0 ** min(attempts, 64))
