"""How fast somebody may talk: token buckets for messages and for bytes."""

from __future__ import annotations

from math import ceil, inf

import attrs
from attrs.validators import ge, optional

from .errors import Refusal

__all__ = ["RateLimit", "RateLimitConfig", "RateLimiter", "TokenBucket", "too_fast"]


class TokenBucket:
    """A bucket that fills at `rate` tokens a second up to `burst`, and is full to begin with.

    In any t seconds no more is taken than ``max(burst, largest amount) + rate * t``, plus what comes in a microsecond.

    Args:
        rate: Tokens a second, above 0.
        burst: The most tokens that it holds, above 0.
        now: Monotonic seconds.
    """

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float, *, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._at = now

    @property
    def full_at(self) -> float:
        """When the bucket is full again, in monotonic seconds, if nothing more is taken: as good as a new one."""
        return self._at + (self._burst - self._tokens) / self._rate

    def wait(self, amount: float, *, now: float) -> float:
        """Return the seconds until `amount` could be taken, 0.0 if it could be now. Nothing changes.

        An amount above `burst` can be taken once the bucket is full: it may be late, but is never stuck.
        """
        # The level is never above `burst`, so a larger amount would wait for ever.
        missing = min(amount, self._burst) - self._level(now)
        # Whoever has waited for as long as they were told must not be refused because a sum or a clock was rounded.
        slack = self._rate * 1e-6 + (self._burst + abs(self._tokens)) * 1e-12
        return missing / self._rate if missing > slack else 0.0

    def take(self, amount: float, *, now: float) -> float:
        """Take `amount`, which may be above `burst` and then leaves a debt, for those who come later to wait for.

        Args:
            amount: Tokens, at least 0.
            now: Monotonic seconds. If they are before those of an earlier call, no time has passed.

        Returns:
            0.0 if `amount` is taken, else the seconds until it could be; then nothing has changed.
        """
        wait = self.wait(amount, now=now)
        if not wait:
            self._tokens = self._level(now) - amount
            self._at = max(self._at, now)
        return wait

    def _level(self, now: float) -> float:
        return min(self._burst, self._tokens + self._rate * max(0.0, now - self._at))


def _is_rate(_: object, attribute: attrs.Attribute[float], value: float) -> None:
    # NaN is above nothing, and an infinite rate is no limit: that is what None says.
    if not 0 < value < inf:
        raise ValueError(f"'{attribute.name}' must be above 0 and finite: {value!r}")


@attrs.frozen(kw_only=True)
class RateLimit:
    """How fast somebody may talk. A value out of its range raises `ValueError`.

    A message larger than `byte_burst` is let through when no byte was used for long enough, and uses up what comes
    later.

    Attributes:
        messages: Messages a second, above 0; ``None`` for any number.
        message_burst: How many may come at once after a silence; ``None`` for what `messages` gives in two seconds.
        bytes: Bytes a second, above 0; ``None`` for any number.
        byte_burst: How many may come at once after a silence; ``None`` for what `bytes` gives in two seconds.
    """

    messages: float | None = attrs.field(default=None, validator=optional(_is_rate))
    message_burst: int | None = attrs.field(default=None, validator=optional(ge(1)))
    bytes: float | None = attrs.field(default=None, validator=optional(_is_rate))
    byte_burst: int | None = attrs.field(default=None, validator=optional(ge(1)))


class RateLimiter:
    """Somebody's talk, held to a limit of messages and of bytes.

    Args:
        config: The limits.
        now: Monotonic seconds.
    """

    __slots__ = ("_buckets",)

    def __init__(self, config: RateLimit, *, now: float) -> None:
        # Each with what one message takes from it: 1, or as many tokens as it has bytes.
        self._buckets: list[tuple[TokenBucket, bool]] = []
        if config.messages is not None:
            self._buckets.append((_bucket(config.messages, config.message_burst, now=now), False))
        if config.bytes is not None:
            self._buckets.append((_bucket(config.bytes, config.byte_burst, now=now), True))

    @property
    def full_at(self) -> float:
        """When it is as good as a new one, in monotonic seconds, if nothing more is admitted."""
        return max((bucket.full_at for bucket, _ in self._buckets), default=-inf)

    def wait(self, size: int, *, now: float) -> float:
        """Return the seconds until a message of `size` bytes could be admitted, 0.0 if it could be now.

        Nothing changes: who is held by several limiters asks all of them first.
        """
        return max((bucket.wait(size if sized else 1, now=now) for bucket, sized in self._buckets), default=0.0)

    def admit(self, size: int, *, now: float) -> float:
        """Admit one message, if both limits allow it.

        Args:
            size: Its bytes.
            now: Monotonic seconds. If they are before those of an earlier call, no time has passed.

        Returns:
            0.0 if it is admitted, else the seconds until it could be; then nothing is counted.
        """
        wait = self.wait(size, now=now)
        if not wait:
            for bucket, sized in self._buckets:
                bucket.take(size if sized else 1, now=now)
        return wait


@attrs.frozen(kw_only=True)
class RateLimitConfig:
    """The limits of a server. A value out of its range raises `ValueError`.

    Attributes:
        connection: What one connection may say; ``None`` for anything.
        user: What one user may say by all connections together; ``None`` for anything.
        warnings: For how many seconds in a row messages are refused, each with the seconds to wait, before the
            connection is ended (4429). A second without a refusal begins a new row.
    """

    connection: RateLimit | None = None
    user: RateLimit | None = None
    warnings: int = attrs.field(default=5, validator=ge(0))


def too_fast(wait: float) -> Refusal:
    """Return how a message is refused that could be admitted after `wait` seconds."""
    retry_after = ceil(wait)
    text = f"too many messages: this one was not carried out, send it again in {retry_after} s"
    return Refusal("rate_limited", text, status=429, retry_after=retry_after)


def _bucket(rate: float, burst: int | None, *, now: float) -> TokenBucket:
    return TokenBucket(rate, ceil(2 * rate) if burst is None else burst, now=now)
