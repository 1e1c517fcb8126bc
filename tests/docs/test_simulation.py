"""The document of the simulation is right: what it shows runs."""

from __future__ import annotations

import re

from hypothesis import HealthCheck, settings

from rtcore import simulation

from .snippets import ROOT, snippets

DOCUMENT = "docs/simulation.md"


def test_the_application() -> None:
    [example] = [each for each in snippets(DOCUMENT) if each.heading == "Your own application in it"]
    names: dict[str, object] = {"__name__": "example"}
    exec(compile(example.code, DOCUMENT, "exec"), names)
    one_day = names["one_day"]
    assert callable(one_day)
    days = [one_day(seed) for seed in range(20, 40)]
    assert all(highest > 0 for highest, _ in days)
    # The page's connection may have been refused all day long, but not on most days.
    assert sum(heard > 0 for _, heard in days) > len(days) // 2
    assert days == [one_day(seed) for seed in range(20, 40)]


def test_tokens() -> None:
    [example] = [each for each in snippets(DOCUMENT) if each.heading == "With tokens"]
    names: dict[str, object] = {"__name__": "example"}
    exec(compile(example.code, DOCUMENT, "exec"), names)


def test_files() -> None:
    [example] = [each for each in snippets(DOCUMENT) if each.heading == "With files"]
    names: dict[str, object] = {"__name__": "example"}
    exec(compile(example.code, DOCUMENT, "exec"), names)


def test_the_trace() -> None:
    trace, _ = [each for each in snippets(DOCUMENT) if each.heading == "When it fails"]
    names: dict[str, object] = {"__name__": "example"}
    exec(compile(trace.code, DOCUMENT, "exec"), names)
    assert names["anns"]


def test_with_hypothesis() -> None:
    _, shrinking = [each for each in snippets(DOCUMENT) if each.heading == "When it fails"]
    names: dict[str, object] = {"__name__": "example"}
    exec(compile(shrinking.code, DOCUMENT, "exec"), names)
    test = names["test_everything_holds"]
    assert callable(test)
    settings(max_examples=5, database=None, deadline=None, suppress_health_check=list(HealthCheck))(test)()


def test_every_invariant_is_named() -> None:
    text = (ROOT / DOCUMENT).read_text()
    named = set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))
    made = {each.name for each in simulation.Simulation(0).invariants}
    assert named == made | {"outcomes", "no_deadline_in_the_past", "liveness"}
