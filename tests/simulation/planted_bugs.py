"""Bugs to plant in the real machines, each of a kind that some system of this field has had.

If the simulation does not notice one, there is a hole in its invariants, or something that never happens in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any, Final

import attrs
import msgspec
import pytest

from rtcore.backlog import Backlog
from rtcore.channels import Channel
from rtcore.client import Answered, Refused
from rtcore.client.outbox import Kind, Outbox
from rtcore.client.positions import Position, Positions, Verdict
from rtcore.encoded import Encoded
from rtcore.history import History, Publication
from rtcore.idempotency import Idempotency, Publisher
from rtcore.node import Node
from rtcore.presence import Presence
from rtcore.router import Deliver, Publish, Published, Request, Resumption, Router, recovery
from rtcore.router import Refused as Denied
from rtcore.router import machine as router_machine
from rtcore.router.presence import Changes
from rtcore.router.registry import Registry
from rtcore.session import Expel, Session

__all__ = ["BUGS", "planted"]

Plant = Callable[[pytest.MonkeyPatch], None]

#: By name, in the order in which they are defined.
BUGS: Final[dict[str, Plant]] = {}


@contextmanager
def planted(name: str) -> Iterator[None]:
    """Have a bug in the machines for a while."""
    with pytest.MonkeyPatch.context() as patch:
        BUGS[name](patch)
        yield


def bug(plant: Plant) -> Plant:
    BUGS[plant.__name__] = plant
    return plant


# What is replayed


@bug
def replay_starts_one_too_late(patch: pytest.MonkeyPatch) -> None:
    since = History.since

    def late(self: History, offset: int) -> list[Publication] | None:
        publications = since(self, offset)
        return publications and publications[1:]

    patch.setattr(History, "since", late)


@bug
def replay_starts_one_too_early_by_token(patch: pytest.MonkeyPatch) -> None:
    after_seq = History.after_seq
    patch.setattr(History, "after_seq", lambda self, seq: after_seq(self, seq - 1))


@bug
def live_is_delivered_before_replay(patch: pytest.MonkeyPatch) -> None:
    send = Router.send
    held: dict[int, list[Any]] = {}

    def late(self: Router, command: Any, **moment: Any) -> list[Any]:
        effects = send(self, command, **moment)
        if type(command).__name__ == "Subscribe":
            only = (command.request.connection_id,)
            replay = [each for each in effects if isinstance(each, Deliver) and each.connections == only]
            held.setdefault(id(self), []).extend(replay)
            return [each for each in effects if each not in replay]
        return effects[:-1] + held.pop(id(self), []) + effects[-1:]

    patch.setattr(Router, "send", late)


@bug
def part_of_what_was_missed_counts_as_all(patch: pytest.MonkeyPatch) -> None:
    def pretending(self: History, offset: int) -> list[Publication]:
        return [each for each in self._publications if each.offset > offset]

    patch.setattr(History, "since", pretending)


@bug
def lost_history_is_not_noticed_by_token(patch: pytest.MonkeyPatch) -> None:
    drop = History._drop_oldest

    def quietly(self: History) -> None:
        lost_seq = self.lost_seq
        drop(self)
        self.lost_seq = lost_seq

    patch.setattr(History, "_drop_oldest", quietly)


@bug
def replays_of_several_channels_are_not_merged(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(recovery, "_in_order", lambda found, owed, instance: tuple(each.message for each in found))


@bug
def forgotten_channels_leave_no_trace(patch: pytest.MonkeyPatch) -> None:
    find = Registry.find

    def innocent(self: Registry, name: str) -> Channel:
        channel = find(self, name)
        channel.history.lost_seq = channel.changes.lost_seq = 0
        return channel

    patch.setattr(Registry, "find", innocent)


@bug
def what_is_kept_for_later_joiners_is_not_told(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(History, "kept", lambda self, after=0: [])


@bug
def epoch_is_not_bumped(patch: pytest.MonkeyPatch) -> None:
    find = Registry.find

    def same(self: Registry, name: str) -> Channel:
        channel = find(self, name)
        channel.epoch = f"{self._entropy}.{name}"
        return channel

    patch.setattr(Registry, "find", same)


@bug
def filters_are_forgotten_in_replays(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(router_machine, "wanted", lambda publications, filter: list(publications))


@bug
def history_is_shown_one_too_late(patch: pytest.MonkeyPatch) -> None:
    page = History.page

    def late(self: History, *, after: int | None, before: int | None, limit: int) -> list[Publication]:
        return page(self, after=None if after is None else after + 1, before=before, limit=limit)

    patch.setattr(History, "page", late)


@bug
def history_shows_what_it_was_to_come_before(patch: pytest.MonkeyPatch) -> None:
    page = History.page

    def early(self: History, *, after: int | None, before: int | None, limit: int) -> list[Publication]:
        return page(self, after=after, before=None if before is None else before + 1, limit=limit)

    patch.setattr(History, "page", early)


@bug
def gap_is_told_where_nothing_was_missed(patch: pytest.MonkeyPatch) -> None:
    since = History.since
    patch.setattr(History, "since", lambda self, offset: since(self, offset) or None)


@bug
def gap_is_told_of_what_is_held_yet(patch: pytest.MonkeyPatch) -> None:
    drop = History._drop_oldest

    def generously(self: History) -> None:
        drop(self)
        self.lost_seq += 1

    patch.setattr(History, "_drop_oldest", generously)


# Where a listener stands


@bug
def heartbeat_moves_the_cursor(patch: pytest.MonkeyPatch) -> None:
    handle_timeout = Node.handle_timeout

    def moving(self: Node, **moment: Any) -> list[Any]:
        token = f"{self._router._entropy}-{self._router._numbering.seq + 1}"
        return [
            attrs.evolve(each, message=each.message.with_id(token))
            if isinstance(each, Deliver) and each.message.event == "heartbeat"
            else each
            for each in handle_timeout(self, **moment)
        ]

    patch.setattr(Node, "handle_timeout", moving)


@bug
def position_is_ahead_of_the_replay(patch: pytest.MonkeyPatch) -> None:
    resume = router_machine.resume

    def ahead(*args: Any, **kwargs: Any) -> Resumption:
        resumption = resume(*args, **kwargs)
        return attrs.evolve(resumption, position=resumption.end)

    patch.setattr(router_machine, "resume", ahead)


@bug
def gap_reaches_to_the_present(patch: pytest.MonkeyPatch) -> None:
    resume = router_machine.resume

    def long(followed: Any, text: Any, **kwargs: Any) -> Resumption:
        resumption = resume(followed, text, **kwargs)
        offsets = {each.channel.name: each.channel.offset for each in followed}
        gaps = tuple(attrs.evolve(gap, offset=offsets[gap.channel]) for gap in resumption.gaps)
        lost = [gap.channel for gap in gaps]
        replay = tuple(each for each in resumption.replay if each.source and each.source.channel not in lost)
        return attrs.evolve(resumption, gaps=gaps, replay=replay)

    patch.setattr(router_machine, "resume", long)


@bug
def gaps_of_a_new_connection_are_not_told(patch: pytest.MonkeyPatch) -> None:
    resume = router_machine.resume
    patch.setattr(router_machine, "resume", lambda *args, **kwargs: attrs.evolve(resume(*args, **kwargs), gaps=()))


@bug
def client_does_not_move_on_while_it_recovers(patch: pytest.MonkeyPatch) -> None:
    hear = Position.hear

    def forgetful(self: Position, offset: int) -> Verdict:
        before, owed = self.offset, self.owed
        verdict = hear(self, offset)
        if owed:
            self.offset = before
        return verdict

    patch.setattr(Position, "hear", forgetful)
    patch.setattr(Position, "skip_to", lambda self, offset: None)


@bug
def client_believes_that_all_was_recovered(patch: pytest.MonkeyPatch) -> None:
    joined = Positions.joined

    def content(self: Positions, *args: Any, **kwargs: Any) -> bool:
        joined(self, *args, **kwargs)
        return False

    patch.setattr(Positions, "joined", content)


# Publications


@bug
def acknowledged_before_appended(patch: pytest.MonkeyPatch) -> None:
    publish = Router._publish
    waiting: dict[int, tuple[Any, dict[str, Any]]] = {}

    def early(self: Router, command: Any, **moment: Any) -> list[Any]:
        before = waiting.pop(id(self), None)
        gone = before is not None and before[0].request.connection_id not in self._connections
        effects = [] if before is None or gone else publish(self, before[0], **before[1])
        effects = [each for each in effects if not isinstance(each, Published)]
        channel = self._registry.get(command.channel)
        if command.request.connection_id is None or channel is None or not len(channel):
            return effects + publish(self, command, **moment)
        waiting[id(self)] = (command, moment)
        offset = channel.history.offset + 1
        return [*effects, Published(command.request, "", command.channel, offset, channel.epoch)]

    patch.setattr(Router, "_publish", early)


@bug
def repetitions_are_told_apart_by_connection(patch: pytest.MonkeyPatch) -> None:
    attach = Router.attach
    numbers = count()

    def by_connection(kind: str, user_id: str | None, name: str = "") -> Publisher:
        return Publisher("connection", user_id, f"{name}{next(numbers)}")

    def known(self: Router, *args: Any, **kwargs: Any) -> str:
        attach(self, *args, **kwargs)
        return self._entropy

    patch.setattr(router_machine, "Publisher", by_connection)
    patch.setattr(Router, "attach", known)


@bug
def another_tab_is_another_publisher(patch: pytest.MonkeyPatch) -> None:
    find = Idempotency.find

    def own(self: Idempotency[Any], publisher: Publisher, *args: Any, **moment: Any) -> Any:
        return None if publisher.kind == "user" else find(self, publisher, *args, **moment)

    patch.setattr(Idempotency, "find", own)


@bug
def second_click_is_acknowledged_by_itself(patch: pytest.MonkeyPatch) -> None:
    send = Router.send

    def anew(self: Router, command: Any, **moment: Any) -> list[Any]:
        effects = send(self, command, **moment)
        return [
            attrs.evolve(each, offset=each.offset + 1) if isinstance(each, Published) and each.repeated else each
            for each in effects
        ]

    patch.setattr(Router, "send", anew)


@bug
def every_session_counts_as_known(patch: pytest.MonkeyPatch) -> None:
    attach = Router.attach

    def known(self: Router, *args: Any, **kwargs: Any) -> str:
        attach(self, *args, **kwargs)
        return "known"

    patch.setattr(Router, "attach", known)


@bug
def window_holds_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Idempotency, "remember", lambda self, *args, **kwargs: None)


@bug
def client_calls_a_lost_publication_published(patch: pytest.MonkeyPatch) -> None:
    again = Outbox.publish_again

    def cheerful(self: Outbox, **how: Any) -> list[Any]:
        where = {"channel": "chat:1", "epoch": "?", "offset": 1}
        return [Answered(each.id, where) if isinstance(each, Refused) else each for each in again(self, **how)]

    patch.setattr(Outbox, "publish_again", cheerful)


@bug
def client_sends_again_whatever_the_server_knows(patch: pytest.MonkeyPatch) -> None:
    again = Outbox.publish_again
    patch.setattr(Outbox, "publish_again", lambda self, *, known, now: again(self, known=True, now=now))


@bug
def client_forgets_what_was_not_acknowledged(patch: pytest.MonkeyPatch) -> None:
    def forgetting(self: Outbox, **how: Any) -> list[Any]:
        for token, pending in self.under_way():
            if pending.kind is Kind.PUBLISH:
                self.forget(token)
        return []

    patch.setattr(Outbox, "publish_again", forgetting)


# Rate limits


@bug
def what_is_refused_is_published(patch: pytest.MonkeyPatch) -> None:
    receive_text = Node.receive_text

    def generous(self: Node, connection_id: str, text: str, **moment: Any) -> list[Any]:
        effects = receive_text(self, connection_id, text, **moment)
        if any(isinstance(each, Deliver) and b'"rate_limited"' in each.message.json for each in effects):
            message = msgspec.json.decode(text)
            if "channel" in message:
                command = Publish(message["channel"], message, Request(None))
                effects += [each for each in self._router.send(command, **moment) if isinstance(each, Deliver)]
        return effects

    patch.setattr(Node, "receive_text", generous)


@bug
def first_warning_is_the_last(patch: pytest.MonkeyPatch) -> None:
    throttle = Session._throttle

    def strict(self: Session, *args: Any, **moment: Any) -> Any:
        refused = throttle(self, *args, **moment)
        return Expel("too many messages", 1) if refused and self._warned else refused

    patch.setattr(Session, "_throttle", strict)


@bug
def nobody_is_told_for_how_long_to_wait(patch: pytest.MonkeyPatch) -> None:
    throttle = Session._throttle

    def rude(self: Session, *args: Any, **moment: Any) -> Any:
        refused = throttle(self, *args, **moment)
        if isinstance(refused, Denied):
            return attrs.evolve(refused, refusal=attrs.evolve(refused.refusal, retry_after=None))
        return refused

    patch.setattr(Session, "_throttle", rude)


# Presence


@bug
def leave_follows_the_join_that_outdates_it(patch: pytest.MonkeyPatch) -> None:
    enter = Presence.enter

    def late(self: Presence, *args: Any) -> bool:
        leaving = dict(self._leaving)
        appeared = enter(self, *args)
        self._leaving.update(leaving)
        return appeared

    patch.setattr(Presence, "enter", late)


@bug
def those_who_do_not_come_back_stay(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Presence, "take_gone", lambda self, *, now: None)
    patch.setattr(Presence, "next_timeout", lambda self: None)


@bug
def comings_are_not_told(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Changes, "appear", lambda self, *args, **kwargs: [])


# Slow consumers, and memory


@bug
def what_is_dropped_is_not_announced(patch: pytest.MonkeyPatch) -> None:
    pop = Backlog.pop

    def silent(self: Backlog, max_bytes: int) -> list[Encoded]:
        return [each for each in pop(self, max_bytes) if each.event != "gap"]

    patch.setattr(Backlog, "pop", silent)


@bug
def backlog_has_no_bounds(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Backlog, "_make_room", lambda self: True)


@bug
def an_overfull_backlog_is_cleared_without_a_word(patch: pytest.MonkeyPatch) -> None:
    push = Backlog.push

    def clearing(self: Backlog, messages: Any) -> bool:
        if not push(self, messages):
            self.clear()
        return True

    patch.setattr(Backlog, "push", clearing)


@bug
def channels_are_never_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Registry, "_forget", lambda self, channel: self._rekey(channel))
    patch.setattr(Registry, "take_due", _taking_without_end(Registry.take_due))


def _taking_without_end(take_due: Callable[..., list[Channel]]) -> Callable[..., list[Channel]]:
    def take(self: Registry, *, now: float) -> list[Channel]:
        due = take_due(self, now=now)
        for channel in due:
            # Or its deadline would be in the past, which is another bug.
            if channel.name in self._idle:
                self._idle[channel.name] = now + 1000.0
        return due

    return take


@bug
def deadline_stays_in_the_past(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(History, "expire", lambda self, now: None)


@bug
def last_value_is_the_first(patch: pytest.MonkeyPatch) -> None:
    unkeep = History._unkeep_oldest

    def keeping(self: History) -> None:
        if self._persistent_size == 1 and len(self._kept) == 2:
            self._kept.rotate(1)
        unkeep(self)

    patch.setattr(History, "_unkeep_oldest", keeping)
