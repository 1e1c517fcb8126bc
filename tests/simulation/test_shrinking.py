"""Hypothesis makes the choices: it finds what is wrong, and the simplest way there."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import HealthCheck, find, given, settings
from hypothesis import strategies as st

from rtcore.history import History, Publication
from rtcore.simulation import Choices, Cut, Scenario, Simulation, SimulationFailure

# After so many choices all are calm, so that an example stays within what Hypothesis takes.
MOST_DRAWS = 1200


@attrs.frozen
class Outcome:
    """How a scenario went.

    Attributes:
        draws: What was drawn.
        lines: The trace.
        failure: What failed, if anything did.
    """

    draws: list[int]
    lines: list[str] = attrs.field(repr=False)
    failure: SimulationFailure | None


@st.composite
def outcomes(draw: st.DrawFn) -> Outcome:
    drawn: list[int] = []

    def choose(limit: int) -> int:
        if len(drawn) >= MOST_DRAWS:
            return 0
        drawn.append(draw(st.integers(0, limit - 1)))
        return drawn[-1]

    scenario = Scenario(Choices(choose), most=15)
    failure = None
    try:
        scenario.run()
    except SimulationFailure as failed:
        failure = failed
    return Outcome(drawn, scenario.simulation.world.trace.lines(), failure)


@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(outcomes())
def test_everything_holds(outcome: Outcome) -> None:
    if outcome.failure is not None:
        raise outcome.failure


@st.composite
def days(draw: st.DrawFn) -> Outcome:
    """Let two clients live through a few things; smaller than a `Scenario`, so that it is shrunk within seconds."""
    drawn: list[int] = []

    def choose(limit: int) -> int:
        drawn.append(draw(st.integers(0, limit - 1)))
        return drawn[-1]

    simulation = Simulation(Choices(choose))
    choices = simulation.world.choices
    simulation.add_server("s")
    ann, bob = (simulation.add_websocket_client(name, user_id=name) for name in ("ann", "bob"))
    for client in (ann, bob):
        client.join("chat")
    failure = None
    try:
        for _ in range(choices.below(8)):
            links = simulation.network.links()
            what = choices.below(3)
            if what == 0:
                simulation.run_for(1.0)
            elif what == 1:
                simulation.publish(choices.pick((ann, bob)), channel="chat")
            elif links:
                simulation.network.cut(choices.pick(links), Cut.RESET)
        simulation.rest()
    except SimulationFailure as failed:
        failure = failed
    return Outcome(drawn, simulation.world.trace.lines(), failure)


def test_a_failure_becomes_simple(monkeypatch: pytest.MonkeyPatch) -> None:
    since = History.since

    def one_too_few(history: History, offset: int) -> list[Publication] | None:
        missed = since(history, offset)
        return missed[1:] if missed else missed

    monkeypatch.setattr(History, "since", one_too_few)
    effort = settings(max_examples=2000, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    found = find(days(), lambda day: day.failure is not None, settings=effort)
    assert found.failure is not None
    assert found.failure.invariant == "heard_in_order_each_once"
    assert found.failure.seed is None
    # Somebody publishes while somebody else is cut off: it takes no more.
    assert sum("is cut" in line for line in found.lines) == 1
    assert sum("Publish(" in line for line in found.lines) == 1
