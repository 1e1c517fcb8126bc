"""Scenarios in which people may do different things: what may happen in them, and that it does."""

from __future__ import annotations

from collections import Counter

import pytest

from rtcore.simulation import Choices, Report, Scenario, SimulatedWebSocketClient, run
from rtcore.simulation.scenario_rights import RightsInScenario

NAMES = ("regrant", "regrant_user", "issue_otherwise", "revoke", "probe")


def scenario(seed: int = 3) -> tuple[Scenario, RightsInScenario]:
    made = Scenario(seed)
    made.simulation.world.faulty = False
    made._add_server("s")
    assert made._rights is not None
    return made, made._rights


def test_every_fourth_seed_has_rights() -> None:
    assert [Scenario(seed)._rights is not None for seed in range(8)] == [False, False, False, True] * 2
    assert Scenario(4, rights=True)._rights is not None
    assert Scenario(3, rights=False)._rights is None
    # Where the choices come from elsewhere, it is calmest without.
    assert Scenario(Choices(lambda limit: 0))._rights is None
    assert Scenario(Choices(lambda limit: limit - 1))._rights is not None


def test_a_seed_without_rights_is_what_it_was() -> None:
    assert run(4, digest=True) == run(4, rights=False, digest=True)
    assert run(4, rights=True, digest=True).digest != run(4, digest=True).digest


@pytest.fixture(scope="module")
def reports() -> list[Report]:
    return [run(seed, rights=True) for seed in range(100)]


def test_everything_happens(reports: list[Report]) -> None:
    denied: Counter[str] = Counter()
    for report in reports:
        denied.update(report.denied)
    assert set(denied) == {
        "admin_required",
        "history_denied",
        "presence_denied",
        "publish_denied",
        "subscribe_denied",
        "upload_denied",
    }
    assert sum(report.removed for report in reports) > 10
    assert sum(report.renewed for report in reports) > 50
    assert sum(report.unauthorized for report in reports) > 50
    assert sum(report.deliveries for report in reports) > 1000
    gaps: Counter[str] = Counter()
    for report in reports:
        gaps.update(report.gaps)
    assert {"history_denied", "presence_denied", "presence_granted"} <= set(gaps)


@pytest.mark.parametrize("name", NAMES)
def test_it_may_happen_where_nobody_is(name: str) -> None:
    made, rights = scenario()
    for _ in range(20):
        getattr(rights, name)()
    rights.end()
    made.simulation.rest()


@pytest.mark.parametrize("name", NAMES)
def test_it_may_happen_while_everybody_sleeps(name: str) -> None:
    made, rights = scenario()
    for _ in range(3):
        made._come()
    made.simulation.run_for(1.0)
    for machine in (*made.simulation.clients, *made.simulation.servers):
        machine.freeze()
    for _ in range(20):
        getattr(rights, name)()
    rights.end()
    made.simulation.rest()
    made.simulation.empty()


@pytest.mark.parametrize("name", NAMES)
def test_it_may_happen_while_the_server_is_away(name: str) -> None:
    made, rights = scenario(7)
    for _ in range(3):
        made._come()
    made.simulation.run_for(1.0)
    made.simulation.servers[0].crash(silently=False)
    for _ in range(200):
        getattr(rights, name)()
    rights.end()
    made.simulation.rest()
    made.simulation.empty()


def test_another_stranger_comes_when_one_has_ended() -> None:
    made, rights = scenario()
    rights.probe()
    first = rights._stranger
    assert isinstance(first, SimulatedWebSocketClient)
    first.disconnect()
    rights.probe()
    assert rights._stranger is not first
    rights.end()
    made.simulation.rest()


def test_what_a_stranger_does_is_decided_too() -> None:
    made, rights = scenario()
    for _ in range(3):
        made._come()
    made.simulation.run_for(1.0)
    for _ in range(60):
        rights.probe()
        made.simulation.run_for(0.5)
    assert made.simulation.rights.refused
    rights.end()
    made.simulation.rest()
    made.simulation.empty()
