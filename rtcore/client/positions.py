"""How far a client has heard each of its channels: what is new, what it knows already, and what it has missed."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from typing import Final

import attrs

from rtcore.messages import Message
from rtcore.tokens import Token

from .wire import GapNotice, RosterStanding, Standing

__all__ = ["Hearing", "Position", "Positions", "Verdict"]

# Far more than the channels that a URL names. What is kept in one that is forgotten is told twice at worst.
_MAX_STRAYS: Final = 100


class Verdict(Enum):
    """What a message is to somebody who has heard others before."""

    NEW = auto()
    #: Heard before, or about to be replayed.
    REPEATED = auto()
    #: Something before it is missing.
    EARLY = auto()


@attrs.define(eq=False)
class Position:
    """How far one stream was heard: a channel's publications, or its comings and goings.

    A position moves before anybody is told of the message that moves it.

    Attributes:
        channel: The channel.
        epoch: The life of the stream in which offsets count.
        offset: The last publication heard, or the last one before the client came.
        persistent: Of what was kept for later joiners, the last one heard, while more of it is to come.
        owed: How many publications are still to be replayed.
        selective: Whether the server leaves out what the client did not ask for: then a hole means nothing.
        recovering: Whether what was missed has been asked for, and has not begun to come.
        asked_at: The offset at which it was asked for last on this connection.
        early: The newest publication that came too early, and was left to the replay.
        stream: ``presence`` for comings and goings, as in a ``gap``; else empty.
        silent: Publications of the client's own, ahead of `offset`, that it does not want to hear.
    """

    channel: str
    epoch: str
    offset: int
    persistent: int | None = None
    owed: int = 0
    selective: bool = False
    recovering: bool = False
    asked_at: int | None = None
    early: int = 0
    stream: str = ""
    silent: dict[int, None] = attrs.field(factory=dict)

    def hear(self, offset: int) -> Verdict:
        """Take note of the publication `offset`, unless it is `EARLY`."""
        if offset <= self.offset:
            if self.persistent is None or offset <= self.persistent or self.recovering:
                return Verdict.REPEATED
            self.persistent = offset
            self.owed -= 1
            if not self.owed:
                self.persistent = None
            return Verdict.NEW
        if self.recovering:
            self.early = max(self.early, offset)
            return Verdict.REPEATED
        if offset != self.offset + 1 and not self.selective:
            self.early = offset
            return Verdict.EARLY
        # What was kept for later joiners has come before anything newer.
        self.persistent = None
        self.owed = 0
        return self._advance(offset)

    def skip_to(self, offset: int) -> None:
        """Take note that everything up to `offset` may be missing, which somebody is told."""
        if offset > self.offset:
            self._advance(offset)

    def silence(self, offset: int) -> None:
        """Take note that the publication `offset` is one that the client does not want to hear."""
        if offset <= self.offset:
            return
        if (self.selective or offset == self.offset + 1) and not self.recovering:
            # As with any newer one, what was kept for later joiners has come before.
            self.persistent = None
            self.owed = 0
            self._advance(offset)
        else:
            self.silent[offset] = None

    def _advance(self, offset: int) -> Verdict:
        verdict = Verdict.REPEATED if offset in self.silent else Verdict.NEW
        self.offset = offset
        self.asked_at = None
        if self.silent:
            self.silent = {each: None for each in self.silent if each > offset}
            while self.offset + 1 in self.silent and not self.recovering:
                self.offset += 1
                del self.silent[self.offset]
        return verdict


class Positions:
    """The positions in all channels that a client is a member of."""

    __slots__ = ("_by_epoch", "_changes", "_publications", "_strays")

    def __init__(self) -> None:
        self._publications: dict[str, Position] = {}
        self._changes: dict[str, Position] = {}
        # Epochs differ between any two streams, so they tell for certain what a message belongs to: its `channel` may
        # be anything that a publisher has put there.
        self._by_epoch: dict[str, Position] = {}
        # Of the latest other streams that were heard, the newest publication, by epoch: channels that the server has
        # joined by itself may be joined by the client too.
        self._strays: dict[str, int] = {}

    def begin(self) -> None:
        """Begin on a new connection: what another one could not bring may come on this one.

        Each channel is joined again from where it was heard, and until that is answered nothing moves the position: not
        a publication of the client's own that it does not hear, nor what a server tells that has joined the channel by
        itself, which may be what came before the client did.
        """
        for heard in self._publications.values():
            heard.asked_at = None
            heard.recovering = True
        for heard in self._changes.values():
            heard.asked_at = None

    def get(self, channel: str) -> Position | None:
        """Return how far the publications of a channel were heard, or ``None``."""
        return self._publications.get(channel)

    def of(self, message: Mapping[str, object]) -> tuple[Position, int] | None:
        """Return the position that a message belongs to, and its offset there; or ``None``."""
        match message.get("meta"):
            case {"epoch": str(epoch), "offset": int(offset)}:
                found = self._by_epoch.get(epoch)
                if found is not None:
                    return found, offset
                self._strays[epoch] = max(offset, self._strays.pop(epoch, offset))
                if len(self._strays) > _MAX_STRAYS:
                    del self._strays[next(iter(self._strays))]
        return None

    def since(self, channel: str) -> Message:
        """Return what a join of a channel says of how far it was heard."""
        said: Message = {}
        if (heard := self._publications.get(channel)) is not None:
            since: Message = {"epoch": heard.epoch, "offset": heard.offset}
            if heard.persistent is not None:
                since["persistent"] = heard.persistent
            said["since"] = since
        if (changes := self._changes.get(channel)) is not None:
            said["presence_since"] = {"epoch": changes.epoch, "offset": changes.offset}
        return said

    def silence(self, epoch: str, offset: int) -> None:
        """Take note of a publication of the client's own that it does not want to hear."""
        if (heard := self._by_epoch.get(epoch)) is not None:
            heard.silence(offset)

    def joined(self, channel: str, standing: Standing, *, said: Mapping[str, object], given: bool) -> bool:
        """Take note of the answer to a join.

        Args:
            channel: The channel.
            standing: What the server says of it.
            said: What the join said: how far the client had heard it, and what it wants to hear.
            given: Whether the server had joined the channel by itself, and so has told what is kept in it already, on
                this connection or an earlier one.

        Returns:
            Whether something is missing that the join asked for.
        """
        heard = self._publications.get(channel)
        before = _since(said.get("since"))
        selective = bool(said.get("filters"))
        missing = False
        if standing.recovered and before is not None:
            # It may have moved on since then, where the server had joined the channel by itself.
            if heard is None or heard.epoch != before.epoch:
                heard = Position(channel, before.epoch, before.offset, persistent=before.persistent)
            if not standing.replayed:
                heard.persistent = None
        elif heard is None or heard.epoch != standing.epoch or heard.offset < standing.offset:
            # A server that does not know of `since` says nothing of it, and what it did not replay is missing too.
            missing = standing.recovered is False or heard is not None
            owed_after = 0
            for known in (before, heard):
                if known is not None and known.epoch == standing.epoch:
                    owed_after = max(owed_after, known.offset if known.persistent is None else known.persistent)
            if given:
                owed_after = max(owed_after, self._strays.get(standing.epoch, 0))
            persistent = owed_after if standing.replayed else None
            heard = Position(channel, standing.epoch, standing.offset, persistent=persistent)
        # Otherwise another answer has come before that tells the same, and what follows this one was heard.
        heard.owed = standing.replayed if heard.persistent is not None else 0
        heard.recovering = False
        heard.selective = selective
        self._put(self._publications, channel, heard)
        self._join_changes(channel, standing.presence, selective=selective)
        return missing

    def abandoned(self, channel: str) -> list[Position]:
        """Give up what was asked for in vain: return the streams of a channel that go on after a gap."""
        found = [
            heard
            for streams in (self._publications, self._changes)
            if (heard := streams.get(channel)) is not None and heard.recovering
        ]
        for heard in found:
            heard.recovering = False
            heard.skip_to(heard.early)
        return found

    def interrupted(self, notice: GapNotice) -> None:
        """Take note of what the server says is missing."""
        streams = self._changes if notice.stream == "presence" else self._publications
        heard = streams.get(notice.channel)
        if heard is None:
            return
        # On a new connection, what is kept for later joiners of what is missing comes after the notice.
        comes = notice.reason != "slow_consumer" and not notice.stream
        if heard.epoch == notice.epoch:
            if comes and heard.persistent is None and heard.offset < notice.offset:
                heard.persistent = heard.offset
            heard.skip_to(notice.offset)
            return
        self._put(
            streams,
            notice.channel,
            Position(
                notice.channel,
                notice.epoch,
                notice.offset,
                persistent=0 if comes else None,
                selective=heard.selective,
                stream=heard.stream,
            ),
        )

    def forget(self, channel: str) -> None:
        """Forget a channel that the client is no longer a member of."""
        for streams in (self._publications, self._changes):
            if (heard := streams.pop(channel, None)) is not None:
                self._by_epoch.pop(heard.epoch, None)

    def _join_changes(self, channel: str, standing: RosterStanding | None, *, selective: bool) -> None:
        changes = self._changes.get(channel)
        if standing is None or not standing.epoch:
            if changes is not None:
                del self._changes[channel]
                # A server that gives two streams the same epoch may have taken it away already.
                self._by_epoch.pop(changes.epoch, None)
            return
        if standing.recovered is not True or changes is None:
            # The roster in the answer is the truth as of this offset.
            changes = Position(channel, standing.epoch, standing.offset, stream="presence")
        changes.recovering = False
        changes.selective = selective
        self._put(self._changes, channel, changes)

    def _put(self, streams: dict[str, Position], channel: str, position: Position) -> None:
        if (old := streams.get(channel)) is not None:
            self._by_epoch.pop(old.epoch, None)
        streams[channel] = position
        self._by_epoch[position.epoch] = position


class Hearing:
    """How far a client has heard its server, in all that it hears without joining: what goes to it and to everybody.

    Attributes:
        token: What to resume after on the next connection, or ``None``.
    """

    __slots__ = ("token",)

    def __init__(self) -> None:
        self.token: Token | None = None

    def welcome(self, text: str | None) -> None:
        """Take note of where a new connection goes on."""
        self.token = None if text is None else Token.parse(text)

    def hear(self, message: Mapping[str, object], *, joined: bool) -> None:
        """Take note of a message.

        Args:
            message: What came.
            joined: Whether it is of a channel that the client has joined by a command. Its replays come when they were
                asked for, and so say nothing about what else was heard.
        """
        match message.get("meta"):
            case {"id": str(text)} if (token := Token.parse(text)) is not None:
                pass
            case _:
                return
        heard = self.token
        if heard is None or token.instance != heard.instance:
            return
        if token.seq > heard.seq:
            # One connection hears its server in order, so everything before it was heard too.
            self.token = Token(heard.instance, token.seq)
        elif heard.persistent is not None and not joined and token.seq > heard.persistent:
            self.token = attrs.evolve(heard, persistent=token.seq)


def _since(value: object) -> Position | None:
    match value:
        case {"epoch": str(epoch), "offset": int(offset), **rest}:
            persistent = rest.get("persistent")
            return Position("", epoch, offset, persistent=persistent if isinstance(persistent, int) else None)
    return None
