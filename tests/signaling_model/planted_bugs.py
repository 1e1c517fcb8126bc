"""Bugs to plant in the machines, or in the server's half, each with the course on which the model must notice it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import attrs
import pytest

from rtcore.signaling import negotiation as module
from rtcore.signaling.negotiation import Negotiation
from rtcore.signaling.negotiation_config import Phase
from rtcore.signaling.peer_connection import Effect
from rtcore.signaling.remote_signal import Answer, Candidate, RemoteSignal, parse_remote_signal

from . import pair
from .pair import Course

__all__ = ["BUGS", "planted"]

Plant = Callable[[pytest.MonkeyPatch], None]

#: By name, with the courses on which they are to be noticed.
BUGS: Final[dict[str, tuple[Plant, Course]]] = {}


@contextmanager
def planted(name: str) -> Iterator[Course]:
    """Have a bug for a while."""
    plant, course = BUGS[name]
    with pytest.MonkeyPatch.context() as patch:
        plant(patch)
        yield course


def bug(course: Course) -> Callable[[Plant], Plant]:
    def add(plant: Plant) -> Plant:
        BUGS[plant.__name__] = (plant, course)
        return plant

    return add


def alter(patch: pytest.MonkeyPatch, **values: object) -> None:
    """Have each negotiation begin with other values."""
    begin = Negotiation.__init__

    def begin_otherwise(self: Negotiation, **arguments: Any) -> None:
        begin(self, **{**arguments, **values})

    patch.setattr(Negotiation, "__init__", begin_otherwise)


# Offers that cross


@bug(Course())
def both_impolite(patch: pytest.MonkeyPatch) -> None:
    alter(patch, polite=False)


@bug(Course(covering=True))
def both_polite(patch: pytest.MonkeyPatch) -> None:
    alter(patch, polite=True)


@bug(Course(rollback=(False, False)))
def no_rollback(patch: pytest.MonkeyPatch) -> None:
    alter(patch, rollback=True)


@bug(Course(rollback=(False, False)))
def both_go_on_after_a_bye(patch: pytest.MonkeyPatch) -> None:
    meet = Negotiation._meet

    def insistent(self: Negotiation, offer: Any) -> list[Effect]:
        effects = meet(self, offer)
        self._yielding = False
        return effects

    patch.setattr(Negotiation, "_meet", insistent)


@bug(Course())
def offer_is_not_kept_waiting(patch: pytest.MonkeyPatch) -> None:
    proceed = Negotiation._proceed

    def impatient(self: Negotiation) -> list[Effect]:
        if self._phase is Phase.OFFERING and self._waiting is not None:
            self._phase = Phase.STABLE
        return proceed(self)

    patch.setattr(Negotiation, "_proceed", impatient)


# Candidates


@bug(Course())
def late_candidate_dropped(patch: pytest.MonkeyPatch) -> None:
    take = Negotiation._take

    def punctual(self: Negotiation, candidate: Candidate) -> list[Effect]:
        return [] if self._phase is Phase.STABLE else take(self, candidate)

    patch.setattr(Negotiation, "_take", punctual)


@bug(Course())
def early_candidate_not_held(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Negotiation, "_hold", lambda *_: None)


@bug(Course())
def ignored_offers_candidates_added(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Candidate, "belongs_to", lambda *_: True)


@bug(Course(disturbances=1, kinds=("cut",)))
def held_candidates_of_superseded_answers_dropped(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Candidate, "belongs_to", lambda self, description: self.negotiation == description.negotiation)


# What is outdated


@bug(Course(disturbances=1, kinds=("cut",)))
def stale_answer_accepted(patch: pytest.MonkeyPatch) -> None:
    def nameless(message: Mapping[str, object]) -> tuple[RemoteSignal, int | None] | None:
        parsed = parse_remote_signal(message)
        if parsed is not None and isinstance(parsed[0], Answer):
            return attrs.evolve(parsed[0], negotiation=None), parsed[1]
        return parsed

    patch.setattr(module, "parse_remote_signal", nameless)
    # The server refuses most of them.
    patch.setattr(pair, "_is_awaited", lambda *_: True)


@bug(Course(disturbances=1, kinds=("break",)))
def signals_of_former_connections_taken(patch: pytest.MonkeyPatch) -> None:
    def timeless(message: Mapping[str, object]) -> tuple[RemoteSignal, int | None] | None:
        parsed = parse_remote_signal(message)
        return None if parsed is None else (parsed[0], None)

    patch.setattr(module, "parse_remote_signal", timeless)


@bug(Course(disturbances=2, kinds=("break",)))
def server_forgets_both_offers_at_a_bye(patch: pytest.MonkeyPatch) -> None:
    def forget(side: pair.Side, other: pair.Side) -> None:
        side.outstanding = other.outstanding = None

    patch.setattr(pair, "_forget_offers", forget)


# Losses and failures


@bug(Course(disturbances=1, kinds=("cut",)))
def resync_does_not_offer_anew(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Negotiation, "resync", lambda *_, **__: [])


@bug(Course(disturbances=1, kinds=("cut",)))
def resync_does_not_restart_ice(patch: pytest.MonkeyPatch) -> None:
    resync = Negotiation.resync

    def optimistic(self: Negotiation, *, polite: bool) -> list[Effect]:
        if self._phase is Phase.STABLE:
            return []
        return resync(self, polite=polite)

    patch.setattr(Negotiation, "resync", optimistic)


@bug(Course(disturbances=1, kinds=("fail",)))
def failure_is_not_repaired(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Negotiation, "_repair", lambda *_, **__: [])


@bug(Course(disturbances=1, kinds=("expire",)))
def connections_are_not_counted_on(patch: pytest.MonkeyPatch) -> None:
    alter(patch, build=0)


@bug(Course(carrying=(True, False), covering=True, disturbances=2, kinds=("break", "cut")))
def bye_is_not_repeated(patch: pytest.MonkeyPatch) -> None:
    resync = Negotiation.resync

    def taciturn(self: Negotiation, *, polite: bool) -> list[Effect]:
        if self._phase is Phase.STABLE and self._remote is None:
            return []
        return resync(self, polite=polite)

    patch.setattr(Negotiation, "resync", taciturn)
