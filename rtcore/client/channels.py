"""What a client does about its channels: it joins them, once more on each connection, and knows what it has heard.

A room is to it a channel with a name of `rtcore.client.wire.room_stream`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
import msgspec

from rtcore.messages import Message

from .commands import Answered, Effect, MessageReceived, Refused, Rejoined, RejoinRefused, SendText
from .memberships import Memberships
from .outbox import CONNECTION_LOST, Kind, Outbox, Pending
from .positions import Position, Positions, Verdict
from .wire import Denial, GapNotice, Standing, encode, is_room, join_text, leave_text, target_of

__all__ = ["Channels"]


class Channels:
    """The memberships of a client, whatever becomes of its connections, and its position in each.

    Args:
        outbox: Through which it asks the server.
    """

    __slots__ = ("_memberships", "_outbox", "_positions")

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._memberships = Memberships()
        self._positions = Positions()

    @property
    def names(self) -> tuple[str, ...]:
        """The desired memberships, those of rooms left out, in the order in which they are joined again."""
        return tuple(channel for channel in self._memberships if not is_room(channel))

    def position(self, channel: str) -> tuple[str, int] | None:
        """Return the epoch and the offset up to which a channel was heard, or ``None``."""
        heard = self._positions.get(channel)
        return None if heard is None else (heard.epoch, heard.offset)

    # What the user wants

    def join(self, token: str, channel: str, data: Mapping[str, object], *, offline: bool, now: float) -> list[Effect]:
        """Be a member of a channel; see `rtcore.client.Client.request`."""
        raw = msgspec.Raw(encode({**data, **target_of(channel)}).encode())
        said = {**self._positions.since(channel), **_fields(raw)}
        text = None if offline else join_text(channel, said, token)
        effects = self._outbox.write(token, text, offline=offline)
        self._memberships.join(channel, token, raw)
        self._outbox.await_answer(token, Pending(Kind.JOIN, channel, said), now=now)
        return effects

    def leave(self, token: str, channel: str, *, offline: bool, now: float) -> list[Effect]:
        """Be a member of a channel no longer; see `rtcore.client.Client.request`."""
        text = leave_text(channel, token)
        overtaken = self._memberships.leave(channel)
        self._positions.forget(channel)
        if not offline:
            effects = self._outbox.write(token, text, offline=False)
            self._outbox.await_answer(token, Pending(Kind.LEAVE, channel), now=now)
            for join in overtaken:
                if self._outbox.is_postponed(join):
                    self._outbox.forget(join)
            return effects
        self._outbox.count()
        outcomes: list[Effect] = []
        for join in overtaken:
            if self._outbox.forget(join) is Kind.JOIN:
                outcomes.append(Refused(join, "left", "the channel was left before it was joined"))
        return [*outcomes, Answered(token, target_of(channel))]

    # What the server says

    def welcome(self, given: Sequence[str], *, now: float) -> list[Effect]:
        """Begin on a new connection.

        Args:
            given: The channels that the server has joined by itself.
            now: Monotonic seconds.

        Returns:
            A `SendText` for each channel to leave again, and for each to join.
        """
        self._positions.begin()
        effects: list[Effect] = [self._unjoin(channel, now=now) for channel in self._memberships.welcome(given)]
        for channel, join, data, granted in self._memberships.take():
            if granted:
                effects.append(self._join_again(channel, data, now=now))
                continue
            said = {**self._positions.since(channel), **_fields(data)}
            self._memberships.join(channel, join, data)
            self._outbox.await_answer(join, Pending(Kind.JOIN, channel, said), now=now)
            self._outbox.sent(join, now=now)
            effects.append(SendText(join_text(channel, said, join)))
        return effects

    def granted(self, token: str, pending: Pending, data: object) -> list[Effect]:
        """Take the answer to a command, or the acknowledgement of a publication.

        Returns:
            `Answered`, or `Rejoined` unless the channel was left meanwhile, or nothing for a leave of the machine's
            own; and the `MessageReceived` of a ``gap`` where something is missing that the join asked for.
        """
        channel = pending.channel
        given = self._memberships.is_given(channel)
        desired = self._memberships.grant(channel, token)
        effects: list[Effect] = [Answered(token, data)]
        if pending.kind is Kind.REJOIN:
            effects = [Rejoined(channel, data)] if desired else []
        elif pending.kind is Kind.UNJOIN:
            effects = []
        standing = _standing(data)
        if pending.silent:
            if standing is not None:
                self._positions.silence(standing.epoch, standing.offset)
        elif not desired:
            pass
        elif standing is None:
            # Of a server that does not number what it says nothing can be missed.
            self._positions.forget(channel)
        elif self._positions.joined(channel, standing, said=pending.said, given=given):
            effects.append(_gap(channel, standing.epoch, standing.offset))
        return effects

    def denied(self, token: str, pending: Pending, denial: Denial, *, now: float) -> list[Effect]:
        """Take the refusal of a command or a publication.

        Returns:
            `Refused`, or `RejoinRefused` unless the channel was left meanwhile or its membership stands, or nothing for
            a leave of the machine's own; and the `MessageReceived` of a ``gap`` where the join was to replay something,
            or the `SendText` of a leave where the server has joined the channel by itself once more.
            Nothing too for a leave, or a join of the machine's own, that was refused for now: it will be sent again.
        """
        channel = pending.channel
        if denial.retry_after is not None and self._must_be_carried_out(token, pending):
            self._outbox.postpone(token, denial.retry_after, now=now)
            return []
        self._outbox.forget(token)
        if pending.repeated:
            # What the server refuses is this sending. The one before may have been published.
            return [Refused(token, "connection_lost", CONNECTION_LOST)]
        desired = self._withdraw(token, pending)
        gaps = self._abandon(channel)
        if pending.kind is Kind.UNJOIN:
            return gaps
        if pending.kind is not Kind.REJOIN:
            leaves = [self._unjoin(channel, now=now)] if self._memberships.was_spared(channel) else []
            return [Refused(token, denial.code, denial.message, denial.retry_after), *gaps, *leaves]
        if not desired or self._memberships.stands(channel):
            return gaps
        return [RejoinRefused(channel, denial.code, denial.message)]

    def due(self, token: str, pending: Pending, *, offline: bool, now: float) -> list[Effect]:
        """Give a command up to which no answer has come; or send it again, if it was refused for now.

        Args:
            token: Its id.
            pending: What it is.
            offline: Whether nothing can be sent.
            now: Monotonic seconds.

        Returns:
            `Refused`, and for a join that was all of a membership the `SendText` of a leave; or the `MessageReceived`
            of a ``gap`` where it was to replay something. Of what was refused for now its `SendText`; or, for a leave
            after which the channel was joined, `Refused`; or nothing while that is not decided.
        """
        if pending.retry_after is not None:
            # A link that nothing can be sent on is about to be lost, and that settles it.
            return [] if offline else self._send_again(token, pending, pending.retry_after, now=now)
        effects: list[Effect] = [Refused(token, "timeout", "the server did not answer in time")]
        if pending.kind is Kind.LEAVE:
            # It is still wanted, and the server may yet refuse it for now.
            self._outbox.await_answer(token, Pending(Kind.UNJOIN, pending.channel), now=now)
        withdrawn = self._withdraw(token, pending) and pending.channel not in self._memberships
        if withdrawn and not self._memberships.is_given(pending.channel):
            # The server may yet carry the join out. It acts in the order of arrival, so this undoes it.
            effects.append(self._unjoin(pending.channel, now=now))
        return [*effects, *self._abandon(pending.channel)]

    def hear(self, message: Message, *, offline: bool, now: float) -> list[Effect] | None:
        """Take a message of a channel.

        Args:
            message: What came.
            offline: Whether nothing can be sent: then the next connection's join asks for what is missing.
            now: Monotonic seconds.

        Returns:
            `MessageReceived`, or nothing if it was heard before. If something before it is missing: the `SendText` of a
            join that asks for it; or, where that was in vain, the `MessageReceived` of a ``gap`` and of the message.
            ``None`` for a message of none of the channels.
        """
        found = self._positions.of(message)
        if found is None:
            return None
        position, offset = found
        gaps: list[Effect] = []
        verdict = position.hear(offset)
        if verdict is Verdict.EARLY:
            if position.asked_at != position.offset:
                return self._ask_again(position, offline=offline, now=now)
            position.skip_to(offset - 1)
            gaps.append(_gap(position.channel, position.epoch, offset - 1, position.stream))
            verdict = position.hear(offset)
        # One of the client's own that it does not want to hear comes all the same with what was missed.
        if verdict is Verdict.REPEATED or self._outbox.is_silent(message.get("id")):
            return gaps
        return [*gaps, MessageReceived(message)]

    def interrupted(self, notice: GapNotice) -> None:
        """Take note that the server says that something is missing."""
        self._positions.interrupted(notice)

    def removed(self, channel: str) -> None:
        """Take note that the server has ended a membership: it is not desired any more."""
        self._memberships.remove(channel)
        if channel not in self._memberships:
            self._positions.forget(channel)

    # The end of a connection, and of everything

    def lost(self) -> list[Effect]:
        """Settle what was under way; see `rtcore.client.Client.lost`.

        Returns:
            `Answered` for each leave, and `Refused` for what is not sent again on the next connection.
        """
        effects: list[Effect] = []
        for token, pending in self._outbox.under_way():
            if self._goes_on(token, pending):
                self._outbox.suspend(token)
                continue
            self._outbox.forget(token)
            if pending.kind is Kind.LEAVE:
                # Nobody is a member without a connection, so the loss has carried it out.
                effects.append(Answered(token, target_of(pending.channel)))
            elif pending.kind not in (Kind.REJOIN, Kind.UNJOIN):
                effects.append(Refused(token, "connection_lost", CONNECTION_LOST))
        return effects

    def _goes_on(self, token: str, pending: Pending) -> bool:
        """Tell whether what was under way stays pending until the next connection answers it."""
        if pending.kind is Kind.JOIN and self._memberships.holds(pending.channel, token):
            return True
        if pending.kind is Kind.REJOIN:
            # It was granted on an earlier connection, and is asked for again on the next.
            self._memberships.grant(pending.channel, token)
        return pending.kind is Kind.PUBLISH

    def farewell(self) -> list[Effect]:
        """Return the `SendText` that leaves each room: the others need not wait there for somebody who has gone."""
        return [SendText(leave_text(name)) for name in self._memberships if is_room(name)]

    def clear(self) -> None:
        """Desire nothing any more."""
        self._memberships.take()

    def _withdraw(self, token: str, pending: Pending) -> bool:
        desired = self._memberships.withdraw(pending.channel, token)
        if pending.channel not in self._memberships:
            self._positions.forget(pending.channel)
        return desired

    def _abandon(self, channel: str) -> list[Effect]:
        """Go on without what was to be replayed, unless another join is under way that will bring it."""
        if self._outbox.joins(channel):
            return []
        return [_gap(channel, heard.epoch, heard.offset, heard.stream) for heard in self._positions.abandoned(channel)]

    def _ask_again(self, position: Position, *, offline: bool, now: float) -> list[Effect]:
        """Have what is missing replayed; until then what comes of that stream is left to the replay."""
        position.recovering = True
        if offline:
            return []
        position.asked_at = position.offset
        if self._outbox.joins(position.channel):
            return []
        return [self._join_again(position.channel, self._memberships.data(position.channel), now=now)]

    def _join_again(self, channel: str, data: msgspec.Raw, *, now: float) -> SendText:
        """Join a channel once more, from where it was heard."""
        token = self._outbox.next_id()
        self._outbox.count()
        self._memberships.join(channel, token, data)
        return self._rejoin(channel, token, now=now)

    def _rejoin(self, channel: str, token: str, *, now: float) -> SendText:
        said = {**_fields(self._memberships.data(channel)), **self._positions.since(channel)}
        self._outbox.await_answer(token, Pending(Kind.REJOIN, channel, said), now=now)
        return SendText(join_text(channel, said, token))

    def _unjoin(self, channel: str, *, now: float) -> SendText:
        """Leave a channel that the user does not desire."""
        token = self._outbox.next_id()
        self._outbox.count()
        self._outbox.await_answer(token, Pending(Kind.UNJOIN, channel), now=now)
        return SendText(leave_text(channel, token))

    def _must_be_carried_out(self, token: str, pending: Pending) -> bool:
        """Tell whether the server would have a membership that the user has not, or the other way round, without it."""
        if pending.kind is Kind.REJOIN:
            return self._memberships.holds(pending.channel, token)
        return pending.kind in (Kind.LEAVE, Kind.UNJOIN)

    def _send_again(self, token: str, pending: Pending, retry_after: float, *, now: float) -> list[Effect]:
        """Send once more what was refused for now, unless what was asked for later has made it pointless."""
        channel, outbox = pending.channel, self._outbox
        if pending.kind is Kind.REJOIN:
            # The server acts in the order of arrival, and a join that the user has asked for since is the newer one.
            if not outbox.joins(channel, Kind.JOIN):
                return [self._rejoin(channel, token, now=now)]
        elif channel not in self._memberships:
            outbox.await_answer(token, attrs.evolve(pending, retry_after=None), now=now)
            return [SendText(leave_text(channel, token))]
        elif not outbox.joins(channel):
            outbox.forget(token)
            refusal = Refused(token, "joined", "the channel was joined again before it was left")
            return [] if pending.kind is Kind.UNJOIN else [refusal]
        outbox.postpone(token, retry_after, now=now)
        return []


def _fields(data: msgspec.Raw) -> Message:
    fields = msgspec.json.decode(data)
    assert isinstance(fields, dict), "it was encoded from one"
    return fields


def _standing(data: object) -> Standing | None:
    """Return where an answer says that a channel stands; ``None`` for other answers, and for those of other servers."""
    try:
        return msgspec.convert(data, Standing)
    except msgspec.ValidationError:
        return None


def _gap(channel: str, epoch: str, offset: int, stream: str = "") -> MessageReceived:
    message: Message = {"type": "gap", "channel": channel}
    if stream:
        message["stream"] = stream
    return MessageReceived({**message, "epoch": epoch, "offset": offset, "reason": "history_lost"})
