"""Several peers end connected, each to each, whatever happens by lot."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping

import pytest

from rtcore.errors import LocalProtocolError
from rtcore.signaling.mesh import Mesh
from rtcore.signaling.negotiation import Negotiation
from rtcore.signaling.peer_connection import Effect

from .peer_connection import Violation
from .room import DISTURBANCES, Room


def walk(seed: int) -> list[str]:
    """Return which disturbances there were."""
    lots = random.Random(seed)
    size = 2 + seed % 3
    room = Room(lots, size=size, backward=lots.choice([0, 0, 1, size]))
    return room.walk(disturbances=lots.randrange(8)).disturbances


def walk_all(seeds: Iterable[int]) -> list[str]:
    happened: list[str] = []
    for seed in seeds:
        try:
            happened += walk(seed)
        except (Violation, LocalProtocolError) as violation:
            violation.add_note(f"seed {seed}")
            raise
    return happened


def test_rooms_end_connected() -> None:
    happened = walk_all(range(600))
    assert all(happened.count(what) > 100 for what in DISTURBANCES)


def resync_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Negotiation, "resync", lambda *_, **__: [])


def keep_former_instances(patch: pytest.MonkeyPatch) -> None:
    meet = Mesh._meet

    def confuse(self: Mesh, participant: Mapping[str, object], *, rejoined: bool) -> list[Effect]:
        known = self.get(str(participant.get("peer_id")))
        if known is not None:
            return known.resync(polite=participant.get("polite") is True)
        return meet(self, participant, rejoined=rejoined)

    patch.setattr(Mesh, "_meet", confuse)


def forget_former_connections(patch: pytest.MonkeyPatch) -> None:
    part = Mesh._part

    def forget(self: Mesh, peer_id: str) -> list[Effect]:
        effects = part(self, peer_id)
        self._former.clear()
        return effects

    patch.setattr(Mesh, "_part", forget)


def wait_for_nobody(patch: pytest.MonkeyPatch) -> None:
    join = Mesh.join

    def impatient(self: Mesh, answer: Mapping[str, object], *, now: float) -> list[Effect]:
        effects = join(self, answer, now=now)
        for pair in self._pairs.values():
            pair.missing_by = None
        return effects

    patch.setattr(Mesh, "join", impatient)


@pytest.mark.parametrize(
    "plant",
    [resync_nothing, keep_former_instances, forget_former_connections, wait_for_nobody],
    ids=lambda plant: plant.__name__,
)
def test_planted_bug_is_noticed(plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    with pytest.raises((Violation, LocalProtocolError)):
        walk_all(range(600))
