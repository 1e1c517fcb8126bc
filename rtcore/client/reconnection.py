"""Whether a client tries again after a loss, and when."""

from __future__ import annotations

from collections.abc import Callable

from rtcore.errors import CloseCode, reconnects

from .config import ClientConfig

__all__ = ["Reconnection"]


class Reconnection:
    """The attempts of a client since its last lasting connection.

    Args:
        config: How many there may be, and how long to wait for each.
        random: Draws uniformly from [0, 1), for the jitter.
    """

    __slots__ = ("_attempts", "_config", "_random", "_unauthorized")

    def __init__(self, config: ClientConfig, random: Callable[[], float]) -> None:
        self._config = config
        self._random = random
        self._attempts = 0
        # Whether a token was refused, or had expired, since the last welcome.
        self._unauthorized = False

    def welcomed(self) -> None:
        """Take note that a server has welcomed the client, and so its token."""
        self._unauthorized = False

    def lost(
        self, code: int | None, *, reconnect: bool | None, retry_after: float | None, stood: float | None
    ) -> float | None:
        """Take note of a loss.

        Args:
            code: Why, as a close code.
            reconnect: Whether the server wants another attempt; ``None`` where it did not say.
            retry_after: Seconds before which it wants none.
            stood: For how many seconds the connection had stood; ``None`` for an attempt that failed.

        Returns:
            Seconds until the next attempt; ``None`` if there is none.
        """
        config = self._config
        if stood is not None and stood >= config.backoff_cap:
            # Not as soon as it was up: a server that accepts and drops would be hammered.
            self._attempts = 0
        again = reconnects(code) if reconnect is None else reconnect
        if code == CloseCode.UNAUTHORIZED and config.refreshes:
            # A fresh token may be better than the last one. If the next one is refused too, its age is not the reason.
            again = again or not self._unauthorized
            self._unauthorized = True
        limit = config.max_reconnect_attempts
        if not (again and config.auto_reconnect) or (limit is not None and self._attempts >= limit):
            return None
        delay = self._random() * config.backoff(self._attempts)
        self._attempts += 1
        return max(0.0, retry_after or 0.0) + delay
