"""The channels that a client wants to be a member of, whatever becomes of its connections."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import attrs
import msgspec

__all__ = ["Memberships"]


@attrs.define
class _Join:
    data: msgspec.Raw
    granted: bool = False


class Memberships:
    """Desired memberships, in the order in which they were joined.

    A membership is made of joins, in the order of issue: those that still await their answer, and at most one
    that was granted. The newest holds; if the server refuses it, the one before it does; with the last one the
    membership goes.
    """

    __slots__ = ("_channels", "_given", "_known", "_left", "_spared")

    def __init__(self) -> None:
        self._channels: dict[str, dict[str, _Join]] = {}
        # Channels that the server joins by itself on connecting, as where the URL names them: one of these that was
        # left must be left again on each new connection, unless it is desired once more. Until that is granted, what
        # was said meanwhile may not have been told. Which ones they are the first connection tells (``None`` before
        # it), and a later one may have some that it had not.
        self._given: Sequence[str] | None = None
        self._known: dict[str, None] = {}
        self._left: dict[str, None] = {}
        # Those that were left, and on this connection were not left again, since a join may be granted.
        self._spared: dict[str, None] = {}

    def __contains__(self, channel: object) -> bool:
        return channel in self._channels

    def __iter__(self) -> Iterator[str]:
        return iter(self._channels)

    def holds(self, channel: str, join: str) -> bool:
        """Tell whether `join` is part of the desired membership."""
        return join in self._channels.get(channel, {})

    def is_given(self, channel: str) -> bool:
        """Tell whether the server has joined `channel` by itself on connecting, and has not been told to leave it."""
        return channel in (self._given or ()) and channel not in self._left

    def stands(self, channel: str) -> bool:
        """Tell whether a join of `channel` was granted."""
        return any(join.granted for join in self._channels.get(channel, {}).values())

    def join(self, channel: str, join: str, data: msgspec.Raw) -> None:
        """Desire `channel`, by a join with the id `join`."""
        self._channels.setdefault(channel, {})[join] = _Join(data)

    def data(self, channel: str) -> msgspec.Raw:
        """Return the data of the join that makes the membership, or will."""
        return next(reversed(self._channels[channel].values())).data

    def leave(self, channel: str) -> list[str]:
        """Desire `channel` no longer; return the joins of it that were not granted yet."""
        self._spared.pop(channel, None)
        if self._given is None or channel in self._known:
            self._left[channel] = None
        return [name for name, join in self._channels.pop(channel, {}).items() if not join.granted]

    def remove(self, channel: str) -> None:
        """Note that the server has ended the membership; joins that it has not answered stand on their own."""
        if self._given is not None:
            self._given = [each for each in self._given if each != channel]
        joins = self._channels.get(channel, {})
        for join in [name for name, each in joins.items() if each.granted]:
            self.withdraw(channel, join)

    def grant(self, channel: str, join: str) -> bool:
        """Note that `join` was granted; tell whether it is still desired."""
        joins = self._channels.get(channel, {})
        if join not in joins:
            return False
        joins[join].granted = True
        self._left.pop(channel, None)
        self._spared.pop(channel, None)
        # The server carries joins out in the order of issue, so an older one means nothing any more.
        for older in [name for name, each in joins.items() if each.granted][:-1]:
            del joins[older]
        return True

    def withdraw(self, channel: str, join: str) -> bool:
        """Take `join` back; tell whether it was still desired."""
        if not self.holds(channel, join):
            return False
        joins = self._channels[channel]
        del joins[join]
        if not joins:
            del self._channels[channel]
        return True

    def welcome(self, given: Sequence[str]) -> list[str]:
        """Note what the server has joined on connecting; return the channels among them to leave again."""
        self._given = given
        self._known.update(dict.fromkeys(given))
        self._left = {channel: None for channel in self._left if channel in self._known}
        again = [channel for channel in given if channel in self._left]
        self._spared = {channel: None for channel in again if channel in self._channels}
        return [channel for channel in again if channel not in self._spared]

    def was_spared(self, channel: str) -> bool:
        """Tell, once, whether a channel is to be left again after all, since it is not desired any more."""
        if channel in self._channels or channel not in self._spared:
            return False
        del self._spared[channel]
        return True

    def take(self) -> list[tuple[str, str, msgspec.Raw, bool]]:
        """Desire nothing; return channel, id, data and whether it was granted of each join, in order."""
        taken = [
            (channel, name, join.data, join.granted)
            for channel, joins in self._channels.items()
            for name, join in joins.items()
        ]
        self._channels.clear()
        return taken
