"""Tokens that no longer hold although they have not expired."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from heapq import heapify, heappop, heappush
from math import inf
from typing import Final, TypeAlias

import attrs
from attrs.validators import instance_of, optional

from rtcore.errors import Refusal
from rtcore.messages import normalize_user_id

from .grants import Credential, Grant
from .token_values import MAX_INSTANT, MAX_TOKEN_ID, as_instant, as_token_id

__all__ = ["Revocation", "Revocations", "parse_revocation"]

_DAY: Final = 86_400.0
_DEFAULT_EXPIRES_IN: Final = 366 * _DAY
_KEYS: Final = ("token_id", "user_id", "issued_before", "expires_in")

# How many that have ended are forgotten by one call, which is more than it adds.
_FORGOTTEN_AT_ONCE: Final = 4


def _is_instant(_: object, attribute: attrs.Attribute[float], value: object) -> None:
    if as_instant(value) is None:
        raise ValueError(f"'{attribute.name}' must be a number of seconds since 1970: {value!r}")


@attrs.frozen(kw_only=True)
class Revocation:
    """Which tokens no longer hold: those that meet all that is not ``None``, and something must not be.

    What is out of its range raises `ValueError`, what is of the wrong type `TypeError`.

    Attributes:
        token_id: Their ``jti``.
        user_id: Their user.
        issued_before: Seconds since 1970. A token that does not say when it was issued counts as issued before.
        until: Seconds since 1970 at which this is forgotten, because the tokens have expired by then.
    """

    token_id: str | None = attrs.field(default=None, validator=optional(instance_of(str)))
    user_id: str | None = attrs.field(default=None, validator=optional(instance_of(str)))
    issued_before: float | None = attrs.field(default=None, validator=optional(_is_instant))
    until: float = attrs.field(validator=_is_instant)

    def __attrs_post_init__(self) -> None:
        if self.token_id is None and self.user_id is None and self.issued_before is None:
            raise ValueError("a revocation must say which tokens: 'token_id', 'user_id' or 'issued_before'")


def parse_revocation(data: Mapping[str, object], *, timestamp: int) -> Revocation | Refusal:
    """Read what is to be revoked.

    Args:
        data: As decoded from JSON: ``token_id``, ``user_id``, ``issued_before`` (seconds since 1970), at least one of
            them, and ``expires_in`` (seconds for which to remember it, 366 days if it is not there). A ``user_id``
            alone means what was issued to this user until now, so that the user can come back with a new token.
        timestamp: Milliseconds since 1970.

    Returns:
        The revocation, or a `Refusal` (``invalid_revocation``, ``invalid_user_id``).
    """
    # A key that is not known, or null, might have been meant to make it less: better none than too much.
    for key in data:
        if key not in _KEYS:
            return _refusal(f"it may say {', '.join(_KEYS)}, and not {key!r:.80}")
    now = timestamp / 1000
    token_id = as_token_id(data.get("token_id"))
    if "token_id" in data and token_id is None:
        return _refusal(f"'token_id' must be a string of 1 to {MAX_TOKEN_ID} characters")
    user_id = normalize_user_id(data["user_id"]) if "user_id" in data else None
    if isinstance(user_id, Refusal):
        return user_id
    issued_before = as_instant(data.get("issued_before"))
    if "issued_before" in data and issued_before is None:
        return _refusal("'issued_before' must be a number of seconds since 1970")
    if token_id is None and issued_before is None:
        if user_id is None:
            return _refusal("say which tokens: 'token_id', 'user_id' or 'issued_before'")
        issued_before = now
    expires_in = as_instant(data.get("expires_in", _DEFAULT_EXPIRES_IN))
    if not expires_in or now + expires_in > MAX_INSTANT:
        return _refusal("'expires_in' must be a number of seconds above 0")
    return Revocation(token_id=token_id, user_id=user_id, issued_before=issued_before, until=now + expires_in)


# What tokens have in common that are revoked alike: their id and their user, or ``None`` for any.
_Key: TypeAlias = tuple[str | None, str | None]


@attrs.frozen(order=True)
class _Entry:
    until: float
    serial: int
    before: float = attrs.field(order=False)
    key: _Key = attrs.field(order=False)


def _before(entry: _Entry) -> float:
    return entry.before


class Revocations:
    """The revocations of a server, which can be many.

    Whether a token is revoked is found by its id and its user, however many others there are. What has ended is
    forgotten little by little, as others are added and asked for.

    Args:
        max_size: How many are remembered.
    """

    def __init__(self, max_size: int = 100_000) -> None:
        self._max_size = max_size
        self._size = 0
        self._serial = 0
        # Of each key only those that say something: one that ends no later than another, and means no more tokens, does
        # not. So what is left is sorted by `before`, upwards, and thereby by `until`, downwards.
        self._entries: dict[_Key, list[_Entry]] = {}
        # What is gone from there stays here until it comes up or outnumbers the others.
        self._heap: list[_Entry] = []

    def __len__(self) -> int:
        return self._size

    def add(self, revocation: Revocation, *, timestamp: int) -> Refusal | None:
        """Remember a revocation.

        Args:
            revocation: One that has ended, or that says nothing new, changes nothing.
            timestamp: Milliseconds since 1970.

        Returns:
            ``None``, or a `Refusal` (``too_many_revocations``) if there is no room; then it is not remembered.
        """
        now = timestamp / 1000
        self._forget(now)
        if revocation.until <= now:
            return None
        before = inf if revocation.issued_before is None else revocation.issued_before
        key = (revocation.token_id, revocation.user_id)
        entries = self._entries.get(key, [])
        # From here on, they mean no fewer tokens; the first of them ends last.
        end = bisect_left(entries, before, key=_before)
        if end < len(entries):
            if entries[end].until >= revocation.until:
                return None
            end += entries[end].before == before
        start = end
        while start and entries[start - 1].until <= revocation.until:
            start -= 1
        if start == end and self._size >= self._max_size:
            message = (
                f"{self._max_size} revocations are remembered: wait until some have ended, or let them end earlier"
            )
            return Refusal("too_many_revocations", message, status=503)
        self._serial += 1
        entry = _Entry(revocation.until, self._serial, before, key)
        entries[start:end] = [entry]
        self._entries[key] = entries
        self._size += 1 - (end - start)
        heappush(self._heap, entry)
        if len(self._heap) > 2 * self._size + 64:
            self._heap = [entry for entries in self._entries.values() for entry in entries]
            heapify(self._heap)
        return None

    def covers(self, user_id: str | None, grant: Grant, *, timestamp: int) -> bool:
        """Tell whether the token that a grant comes from is revoked; what comes from no token never is.

        Args:
            user_id: The token's user.
            grant: What it allows.
            timestamp: Milliseconds since 1970.
        """
        if grant.credential is not Credential.TOKEN:
            return False
        now = timestamp / 1000
        self._forget(now)
        if not self._size:
            return False
        token_id = grant.token_id
        issued_at = -inf if grant.issued_at is None else grant.issued_at
        for key in ((token_id, user_id), (token_id, None), (None, user_id), (None, None)):
            # Those that mean the most tokens are last, and end first.
            for entry in reversed(self._entries.get(key, ())):
                if issued_at >= entry.before:
                    break
                if entry.until > now:
                    return True
        return False

    def _forget(self, now: float) -> None:
        """Forget some of those that have ended."""
        for _ in range(_FORGOTTEN_AT_ONCE):
            if not self._heap or self._heap[0].until > now:
                return
            entry = heappop(self._heap)
            entries = self._entries.get(entry.key)
            # What ends first is last: if it is not this one, this one is gone already.
            if entries and entries[-1] is entry:
                entries.pop()
                self._size -= 1
                if not entries:
                    del self._entries[entry.key]


def _refusal(message: str) -> Refusal:
    return Refusal("invalid_revocation", message)
