"""Two hundred calls through a simulated server, in each of which all are connected to all in the end."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rtcore.simulation import Choices

from .call_scenario import CallScenario, run_call

CHUNK = 50
# After so many choices all are calm, so that an example stays within what Hypothesis takes.
MOST_DRAWS = 1200


# In chunks, so that the processes of the test run share them.
@pytest.mark.parametrize("first", range(0, 200, CHUNK))
def test_everybody_is_connected(first: int) -> None:
    reports = [run_call(seed) for seed in range(first, first + CHUNK)]
    # Enough has happened for that to mean something.
    assert sum(report.connected for report in reports) > CHUNK
    assert sum(report.heard for report in reports) > 10 * CHUNK
    assert sum(report.recovered for report in reports) > CHUNK // 4
    assert sum(report.refused.get("outdated_signal", 0) for report in reports) > 0


def test_a_call_is_a_function_of_its_seed() -> None:
    assert run_call(7, digest=True) == run_call(7, digest=True)
    assert run_call(7, digest=True).digest != run_call(8, digest=True).digest


# What Hypothesis chooses it makes simple where something fails.
@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.data())
def test_everybody_is_connected_whatever_happens(data: st.DataObject) -> None:
    drawn = 0

    def choose(limit: int) -> int:
        nonlocal drawn
        drawn += 1
        return 0 if drawn > MOST_DRAWS else data.draw(st.integers(0, limit - 1))

    CallScenario(Choices(choose), most=10).run()
