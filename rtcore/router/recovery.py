"""What somebody who comes back has missed: all of it, in order, or a clear word that it cannot be told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs

from rtcore.channels import Channel
from rtcore.encoded import Encoded
from rtcore.filters import Filter
from rtcore.history import Publication
from rtcore.json_values import decode_value
from rtcore.tokens import Token

from .commands import Since

__all__ = ["Followed", "Gap", "Resumption", "missed", "missed_changes", "resume", "wanted"]


@attrs.frozen
class Followed:
    """A channel that somebody hears, and what of its past they may be told.

    Attributes:
        channel: The channel.
        said: Whether they may be told what was said. What is kept for later joiners they are told in any case.
        changes: Whether they may be told who came and went.
    """

    channel: Channel
    said: bool
    changes: bool


@attrs.frozen
class Gap:
    """Something of a channel may be missing; it goes on after `offset`.

    Attributes:
        reason: ``history_lost``, ``history_denied``, ``foreign_token`` or ``invalid_token``.
    """

    channel: str
    epoch: str
    offset: int
    reason: str


@attrs.frozen
class Resumption:
    """How a connection goes on from a token.

    Attributes:
        position: How far it has heard once it knows of `gaps`, and before `replay`.
        recovered: Whether nothing is missing; ``None`` if there was no token.
        gaps: The channels of which something may be missing.
        replay: What it is told again, in order.
        end: How far it has heard, after that.
    """

    position: Token
    recovered: bool | None
    gaps: tuple[Gap, ...]
    replay: tuple[Encoded, ...]
    end: Token

    def continues(self, channel: str) -> bool:
        """Tell whether everything that was said in a channel since the token is in `replay`."""
        return self.recovered is not None and all(gap.channel != channel for gap in self.gaps)


def missed(
    channel: Channel, since: Since | None, *, allowed: bool, max_bytes: int
) -> tuple[bool | None, list[Publication]]:
    """Return what a subscriber has missed of a channel's publications.

    Args:
        channel: The channel.
        since: How far it has heard them, or ``None``.
        allowed: Whether it may be told what was said before. Otherwise it has all only where nothing was.
        max_bytes: The most that is replayed.

    Returns:
        Whether it is all that was published since then, or ``None`` where `since` is; and what is to be replayed, in
        order: that, or else what is kept for later joiners and was not heard.
    """
    history = channel.history
    if since is None:
        return None, history.kept()
    if since.epoch != channel.epoch:
        return False, history.kept()
    publications = history.since(since.offset) if allowed or since.offset == history.offset else None
    if publications is None or _size(publications) > max_bytes:
        return False, history.kept(after=since.offset if since.persistent is None else since.persistent)
    if since.persistent is not None:
        owed = [each for each in history.kept(after=since.persistent) if each.offset <= since.offset]
        publications = owed + publications
    return True, publications


def missed_changes(channel: Channel, since: Since | None, *, allowed: bool) -> tuple[bool | None, list[Publication]]:
    """Return what a subscriber has missed of who came and went, likewise; nothing is kept for later joiners."""
    if since is None:
        return None, []
    told = since.epoch == channel.changes_epoch and (allowed or since.offset == channel.changes.offset)
    changes = channel.changes.since(since.offset) if told else None
    return changes is not None, changes or []


def wanted(publications: Sequence[Publication], filter: Filter | None) -> list[Publication]:
    """Return those of `publications` that a subscriber wants to hear."""
    if filter is None:
        return list(publications)
    passed: list[Publication] = []
    for publication in publications:
        # No filter asks for what is in a file, which is left out here.
        message = decode_value(publication.message.head)
        # What the application has published may be nested too deep to be read again: better heard than missed.
        if not isinstance(message, dict) or filter.matches(message):
            passed.append(publication)
    return passed


def resume(followed: Sequence[Followed], text: str | None, *, instance: str, seq: int, max_bytes: int) -> Resumption:
    """Find out how a connection goes on.

    Args:
        followed: What it listens to.
        text: The token with which it comes, if any.
        instance: The life of this router.
        seq: The number of its last publication.
        max_bytes: The most that is replayed.
    """
    token = Token.parse(text) if text else None
    here: Final = Token(instance, seq)
    channels: Final = [each.channel for each in followed]
    if token is None:
        return _begin(channels, here, "invalid_token" if text else None)
    if token.instance != instance:
        return _begin(channels, here, "foreign_token")
    if token.seq > seq or (token.persistent or 0) > token.seq:
        return _begin(channels, here, "invalid_token")
    owed_after = token.seq if token.persistent is None else token.persistent
    gaps: list[Gap] = []
    replay: list[Publication] = []
    for each in followed:
        channel, history = each.channel, each.channel.history
        held_after = token.seq
        if not each.said:
            # The gap reaches to the present: told nothing of what is held, nobody learns what is held.
            if history.last_seq > token.seq:
                gaps.append(Gap(channel.name, channel.epoch, history.offset, "history_denied"))
                held_after = seq
        elif history.lost_seq > token.seq:
            # What is still held follows the gap, rather than the gap reaching to the present: the other channels move
            # the listener's position, from which the next connection goes on, and there must be no place where it has
            # been told that something is missing and then hears it after all.
            gaps.append(Gap(channel.name, channel.epoch, history.lost, "history_lost"))
            held_after = history.lost_seq
        replay += history.kept_between(owed_after, held_after)
        replay += history.after_seq(held_after)
    if _size(replay) > max_bytes:
        return _begin(channels, here, "history_lost", owed_after)
    for each in followed:
        # Without them the roster, which is told in any case, is the truth all the same.
        if each.changes and each.channel.changes.lost_seq <= token.seq:
            replay += each.channel.changes.after_seq(token.seq)
    return Resumption(token, not gaps, tuple(gaps), _in_order(replay, token.seq, instance), here)


def _begin(channels: Sequence[Channel], here: Token, reason: str | None, owed_after: int = 0) -> Resumption:
    """Go on from now, with what is kept for later joiners and was published after number `owed_after`."""
    kept = [publication for channel in channels for publication in channel.history.kept_between(owed_after, here.seq)]
    gaps = () if reason is None else tuple(Gap(each.name, each.epoch, each.offset, reason) for each in channels)
    return Resumption(
        attrs.evolve(here, persistent=owed_after) if kept else here,
        None if reason is None else False,
        gaps,
        _in_order(kept, here.seq, here.instance),
        here,
    )


def _in_order(publications: list[Publication], owed: int, instance: str) -> tuple[Encoded, ...]:
    """Return messages in the order of their numbers; up to `owed` they move a listener who is still coming in."""
    return tuple(
        each.message if each.seq > owed else each.message.with_id(str(Token(instance, owed, each.seq)))
        for each in sorted(publications, key=lambda each: each.seq)
    )


def _size(publications: Sequence[Publication]) -> int:
    return sum(publication.message.size for publication in publications)
