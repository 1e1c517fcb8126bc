"""Scenarios with files: what may happen in them, and that it does."""

from __future__ import annotations

from collections import Counter

import pytest

from rtcore.simulation import Choices, Report, Scenario, run
from rtcore.simulation.scenario_config import CLIENT
from rtcore.simulation.scenario_files import FilesInScenario

NAMES = (
    "publish_file",
    "send_file",
    "send_several_files",
    "come_back_while_it_is_sent",
    "ask_in_another_order",
    "restart_while_it_is_sent",
    "restrict_while_it_is_sent",
    "cancel_file",
    "change_file",
)


def scenario(seed: int = 7) -> tuple[Scenario, FilesInScenario]:
    made = Scenario(seed)
    made.simulation.world.faulty = False
    made._add_server("s")
    assert made._files is not None
    return made, made._files


def test_some_seeds_have_files() -> None:
    assert [Scenario(seed)._files is not None for seed in range(8)] == [bool(seed in (1, 5, 7)) for seed in range(8)]
    assert Scenario(4, files=True)._files is not None
    assert Scenario(1, files=False)._files is None
    # Where the choices come from elsewhere, it is calmest without.
    assert Scenario(Choices(lambda limit: 0))._files is None
    assert Scenario(Choices(lambda limit: limit - 1))._files is not None


def test_a_seed_without_files_is_what_it_was() -> None:
    assert run(3, digest=True) == run(3, files=False, digest=True)
    assert run(3, files=True, digest=True).digest != run(3, digest=True).digest


@pytest.fixture(scope="module")
def reports() -> list[Report]:
    return [run(seed, files=True) for seed in range(60)]


def test_everything_happens(reports: list[Report]) -> None:
    outcomes: Counter[str] = Counter()
    for report in reports:
        outcomes.update(report.files)
    assert outcomes["done"] > 50
    assert {"cancelled", "connection_lost", "publish_denied", "store_full", "store_unavailable"} <= set(outcomes)
    assert sum(report.deliveries for report in reports) > 1000


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", [1, 7])
def test_it_may_happen_where_nobody_is(name: str, seed: int) -> None:
    made, files = scenario(seed)
    getattr(files, name)()
    assert made.simulation.clients == []
    made.simulation.rest()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", [1, 7])
def test_it_may_happen_while_everybody_sleeps(name: str, seed: int) -> None:
    made, files = scenario(seed)
    for _ in range(3):
        made._come()
    made.simulation.run_for(1.0)
    for machine in (*made.simulation.clients, *made.simulation.servers):
        machine.freeze()
    getattr(files, name)()
    made.simulation.rest()
    made.simulation.empty()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", [1, 7])
def test_it_may_happen_while_the_server_is_away(name: str, seed: int) -> None:
    made, files = scenario(seed)
    for _ in range(3):
        made._come()
    made.simulation.run_for(1.0)
    made.simulation.servers[0].crash(silently=False)
    for _ in range(4):
        getattr(files, name)()
    made.simulation.rest()
    made.simulation.empty()


def test_who_has_too_much_to_send_while_offline_is_told() -> None:
    made, files = scenario(1)
    made.simulation.add_websocket_client("ann", user_id="ann", config=CLIENT)
    made.simulation.run_for(1.0)
    made.simulation.servers[0].crash(silently=False)
    made.simulation.run_for(1.0)
    for _ in range(60):
        files.publish_file()
    assert any("has too much to say" in line for line in made.simulation.world.trace.lines())
    made.simulation.rest()


def test_what_is_under_way_is_cancelled_or_changed() -> None:
    made, files = scenario(1)
    made.simulation.add_websocket_client("ann", user_id="ann", config=CLIENT)
    made.simulation.run_for(1.0)
    for name in ("change_file", "cancel_file"):
        files.send_file()
        getattr(files, name)()
    made.simulation.rest()
    lines = made.simulation.world.trace.lines()
    assert [word for word in ("changes", "cancels") if any(f"ann {word} file" in line for line in lines)] == [
        "changes",
        "cancels",
    ]
    made.simulation.empty()


def test_who_falls_asleep_does_not_come_back() -> None:
    made, files = scenario(1)
    ann = made.simulation.add_websocket_client("ann", user_id="ann", config=CLIENT)
    made.simulation.run_for(1.0)
    made.simulation.world.scheduler.after(0.01, ann.freeze)
    files.come_back_while_it_is_sent()
    assert ann.frozen
    assert not any("changes its address" in line for line in made.simulation.world.trace.lines())
    made.simulation.rest()
