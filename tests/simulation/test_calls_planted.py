"""Calls notice bugs: each of those that are planted in the real machines, within a budget of seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import attrs
import pytest

from rtcore.client.memberships import Memberships
from rtcore.node.signaling import Entrance, Signaling
from rtcore.router import machine as router_machine
from rtcore.signaling import Mesh, Negotiation, Rooms, peers, rooms
from rtcore.signaling.rooms import Tell
from rtcore.simulation import SimulationFailure

from .call_scenario import run_call

pytestmark = pytest.mark.many_seeds

BUDGET = 400

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


# The server


@bug
def signals_go_to_the_wrong_peer(patch: pytest.MonkeyPatch) -> None:
    pass_on = Rooms._pass_on

    def astray(self: Rooms, sender: Any, signal: Any) -> Any:
        told = pass_on(self, sender, signal)
        if isinstance(told, Tell):
            others = [each for each in sender.room.peers.values() if each is not sender]
            return attrs.evolve(told, stream=others[-1].stream)
        return told

    patch.setattr(Rooms, "_pass_on", astray)


@bug
def second_offer_does_not_count(patch: pytest.MonkeyPatch) -> None:
    pass_on = Rooms._pass_on

    def first(self: Rooms, sender: Any, signal: Any) -> Any:
        before = dict(sender.offered)
        told = pass_on(self, sender, signal)
        sender.offered.update({each: name for each, name in before.items() if each in sender.offered})
        return told

    patch.setattr(Rooms, "_pass_on", first)


@bug
def held_signals_are_lost(patch: pytest.MonkeyPatch) -> None:
    enter = Signaling.enter

    def forgetful(self: Signaling, *arguments: Any, **keywords: Any) -> Any:
        entrance = enter(self, *arguments, **keywords)
        return attrs.evolve(entrance, replay=[]) if isinstance(entrance, Entrance) else entrance

    patch.setattr(Signaling, "enter", forgetful)


@bug
def signals_come_before_their_sender(patch: pytest.MonkeyPatch) -> None:
    carry_out, announce = Signaling.carry_out, Signaling.announce
    late: list[tuple[Signaling, Any, Any]] = []

    def postpone(self: Signaling, entrance: Any, **keywords: Any) -> list[Any]:
        late.append((self, entrance, keywords["recovered"]))
        return []

    def belated(self: Signaling, *arguments: Any, **moment: Any) -> list[Any]:
        due, late[:] = late[:], []
        steps = carry_out(self, *arguments, **moment)
        for whose, entrance, recovered in due:
            if whose is self and entrance.peer.room.peers.get(entrance.peer.peer_id) is entrance.peer:
                steps += announce(self, entrance, recovered=recovered, **moment)
        return steps

    patch.setattr(Signaling, "announce", postpone)
    patch.setattr(Signaling, "carry_out", belated)


@bug
def rejoins_are_not_announced(patch: pytest.MonkeyPatch) -> None:
    announce = Rooms.announce
    patch.setattr(
        Rooms, "announce", lambda self, peer, rejoined: [] if rejoined else announce(self, peer, rejoined=False)
    )


@bug
def another_instance_is_the_same_peer(patch: pytest.MonkeyPatch) -> None:
    join = Rooms.join

    def confuse(self: Rooms, command: Any, *arguments: Any, **keywords: Any) -> Any:
        room = self._rooms.get(command.room.room_id)
        known = None if room is None else room.peers.get(command.peer_id)
        if known is not None:
            command = attrs.evolve(command, instance=known.instance)
        return join(self, command, *arguments, **keywords)

    patch.setattr(Rooms, "join", confuse)


@bug
def who_has_not_come_back_is_not_taken_leave_of(patch: pytest.MonkeyPatch) -> None:
    depart = Rooms._depart

    def silently(self: Rooms, peer: Any, reason: str, **moment: Any) -> list[Any]:
        effects = depart(self, peer, reason, **moment)
        return [each for each in effects if not isinstance(each, Tell)] if reason == "timeout" else effects

    patch.setattr(Rooms, "_depart", silently)


@bug
def who_is_away_is_awaited_for_ever(patch: pytest.MonkeyPatch) -> None:
    def disconnect(self: Rooms, connection_id: str, *, now: float) -> None:
        for peer in self._peers.pop(connection_id, {}).values():
            peer.connection_id = None

    patch.setattr(Rooms, "disconnect", disconnect)


@bug
def who_is_away_is_told_nothing(patch: pytest.MonkeyPatch) -> None:
    signal = Rooms._pass_on

    def deaf(self: Rooms, sender: Any, said: Any) -> Any:
        target = sender.room.peers.get(said.target)
        told = signal(self, sender, said)
        if isinstance(told, Tell) and target is not None and target.connection_id is None:
            return Tell(f"{told.stream}-", told.message)
        return told

    patch.setattr(Rooms, "_pass_on", deaf)


@bug
def signals_of_former_instances_are_passed_on(patch: pytest.MonkeyPatch) -> None:
    pass_on = Rooms._pass_on
    patch.setattr(
        Rooms, "_pass_on", lambda self, sender, signal: pass_on(self, sender, attrs.evolve(signal, instance=None))
    )


@bug
def signals_that_come_again_are_judged_anew(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(router_machine, "recall", lambda *_, **__: None)


@bug
def nobody_gives_way(patch: pytest.MonkeyPatch) -> None:
    for module in (rooms, peers):
        patch.setattr(module, "is_polite", lambda *_: False)


# The client


@bug
def rooms_are_not_joined_again(patch: pytest.MonkeyPatch) -> None:
    take = Memberships.take
    patch.setattr(
        Memberships,
        "take",
        lambda self: [each for each in take(self) if not (each[0].startswith("$room:") and each[3])],
    )


@bug
def lost_signals_are_not_made_good(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Negotiation, "resync", lambda *_, **__: [])


@bug
def who_comes_back_is_not_met(patch: pytest.MonkeyPatch) -> None:
    join = Mesh.join

    def trusting(self: Mesh, answer: Any, *, now: float) -> Any:
        return join(self, {**answer, "recovered": "recovered" in answer}, now=now)

    patch.setattr(Mesh, "join", trusting)


def catch(name: str) -> tuple[int, str]:
    """Return how many seeds it takes to notice a bug, and by what; or fail."""
    with planted(name):
        for seed in range(BUDGET):
            try:
                run_call(seed)
            except SimulationFailure as failure:
                return seed + 1, failure.invariant
    raise AssertionError(f"{name} is not noticed in {BUDGET} seeds")


@pytest.mark.parametrize("name", BUGS)
def test_planted_bug_is_noticed(name: str) -> None:
    catch(name)


if __name__ == "__main__":
    # As a table, for people: python -m tests.simulation.test_calls_planted
    for planted_bug in BUGS:
        seeds, invariant = catch(planted_bug)
        print(f"| {planted_bug} | {invariant} | {seeds} |", flush=True)
