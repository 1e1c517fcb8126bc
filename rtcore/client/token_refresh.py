"""When a client shows its server a fresh token, before the one that it came with has expired."""

from __future__ import annotations

import msgspec

from .commands import Effect, RefreshDue
from .config import ClientConfig

__all__ = ["TokenRefresh"]


class _Renewed(msgspec.Struct):
    """The answer to ``refresh_token``."""

    expires_in: float | None = None


class TokenRefresh:
    """The life of the token of one connection.

    Args:
        config: Whether there are fresh tokens, and how long before the end one is due.

    Attributes:
        due_at: When a fresh token is due, in monotonic seconds, or ``None``.
        wanted: Whether `RefreshDue` was told, and neither a token nor a failure has come of it yet.
    """

    __slots__ = ("_config", "_expires", "_failures", "due_at", "wanted")

    def __init__(self, config: ClientConfig) -> None:
        self.due_at: float | None = None
        self.wanted = False
        self._config = config
        self._expires = False
        self._failures = 0

    def accepted(self, expires_in: float | None, *, now: float) -> None:
        """Take note that the server has accepted a token, for so many seconds, or for good."""
        self.clear()
        config = self._config
        if config.refreshes and expires_in is not None:
            self._expires = True
            # What tokens are had from may give the same one again and again until it expires: each time half as long
            # would be no time at all in the end.
            rest = max(expires_in - config.refresh_margin, expires_in / 2, config.backoff_base)
            self.due_at = now + rest

    def answered(self, data: object, *, now: float) -> None:
        """Take note of the answer to ``refresh_token``."""
        try:
            renewed = msgspec.convert(data, _Renewed)
        except msgspec.ValidationError:
            renewed = _Renewed()
        self.accepted(renewed.expires_in, now=now)

    def take_due(self, *, now: float) -> list[Effect]:
        """Return `RefreshDue` if it is due by now, once."""
        if self.due_at is None or now < self.due_at:
            return []
        self.due_at = None
        self.wanted = True
        return [RefreshDue()]

    def given(self) -> None:
        """Take note that a fresh token is on its way to the server."""
        self.due_at = None
        self.wanted = False

    def failed(self, retry_after: float | None = None, *, now: float) -> None:
        """Take note that there was no fresh token, or that the server did not accept it."""
        self.wanted = False
        if self._expires:
            self.due_at = now + max(retry_after or 0.0, self._config.backoff(self._failures))
            self._failures += 1

    def clear(self) -> None:
        """Forget the token, with its connection."""
        self.due_at = None
        self.wanted = False
        self._expires = False
        self._failures = 0
