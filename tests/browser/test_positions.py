"""The pages follow a channel by the same rules as the client in Python."""

from __future__ import annotations

import random
from typing import Any

import pytest

from rtcore.client.positions import Hearing, Positions, Verdict
from rtcore.client.wire import GapNotice, RosterStanding, Standing

from .server import Server
from .tabs import Tabs

LOOP = "asyncio"

pytestmark = pytest.mark.xdist_group("browser")

_RUN = """async ([url, runs]) => {
  const { Hearing, Positions } = await import(url);
  return runs.map((run) => {
    const positions = new Positions();
    const hearing = new Hearing();
    let since = null;
    return run.map(([what, value]) => {
      if (what === "say") return (since = positions.since(value));
      if (what === "joined") return positions.joined("room", value, since);
      if (what === "gap") return positions.interrupted(value) ?? null;
      if (what === "begin") return positions.begin() ?? null;
      if (what === "welcome") return hearing.welcome(value) ?? null;
      const position = positions.of(value);
      let verdict = position ? position.hear(value.meta.offset) : "unknown";
      if (verdict === "early" && position.askedAt === position.offset) {
        position.skipTo(value.meta.offset - 1);
        verdict = `in vain, ${position.hear(value.meta.offset)}`;
      } else if (verdict === "early") {
        position.recovering = true;
        position.askedAt = position.offset;
      }
      hearing.hear(value, { joined: position !== undefined });
      return [verdict, hearing.token];
    });
  });
}"""
_VERDICTS = {Verdict.NEW: "new", Verdict.REPEATED: "repeated", Verdict.EARLY: "early"}


def run_of(lots: random.Random) -> list[tuple[str, Any]]:
    """Draw what a client may hear, in any order, be it possible or not."""

    def epoch() -> str:
        return lots.choice(["e", "f", "ep"])

    def step() -> tuple[str, Any]:
        match lots.randrange(13):
            case 0:
                return "say", "room"
            case 1:
                answer: dict[str, Any] = {"epoch": epoch(), "offset": lots.randrange(8), "replayed": lots.randrange(3)}
                if lots.random() < 0.7:
                    answer["recovered"] = lots.random() < 0.6
                if lots.random() < 0.7:
                    answer["presence"] = {"epoch": "p", "offset": lots.randrange(4)}
                return "joined", answer
            case 2:
                gap = {"channel": "room", "epoch": epoch(), "offset": lots.randrange(8)}
                reason = lots.choice(["slow_consumer", "history_lost"])
                return "gap", {**gap, "reason": reason, **({"stream": "presence"} if lots.random() < 0.3 else {})}
            case 3:
                return "welcome", lots.choice(["i-3", "j-2.1", "i-5.0", "nonsense", "-", "a-b-4"])
            case 4:
                return "begin", None
        token = f"{lots.choice('iij')}-{lots.randrange(9)}"
        return "hear", {"meta": {"epoch": lots.choice("eeefp"), "offset": lots.randrange(1, 9), "id": token}}

    return [("say", "room"), *(step() for _ in range(40))]


def heard_in_python(run: list[tuple[str, Any]]) -> list[Any]:
    positions, hearing = Positions(), Hearing()
    said: dict[str, Any] = {}
    results: list[Any] = []
    for what, value in run:
        match what:
            case "say":
                said = {name: each for name, each in positions.since(value).items() if name == "since"}
                results.append(said.get("since"))
            case "joined":
                presence = value.get("presence")
                standing = {**value, "presence": presence and RosterStanding(**presence)}
                results.append(positions.joined("room", Standing(**standing), said=said, given=False))
            case "gap":
                positions.interrupted(GapNotice(**value))
                results.append(None)
            case "begin":
                positions.begin()
                results.append(None)
            case "welcome":
                hearing.welcome(value)
                results.append(None)
            case _:
                found = positions.of(value)
                verdict = "unknown"
                if found is not None:
                    position, offset = found
                    verdict = _VERDICTS[position.hear(offset)]
                    if verdict == "early" and position.asked_at == position.offset:
                        position.skip_to(offset - 1)
                        verdict = f"in vain, {_VERDICTS[position.hear(offset)]}"
                    elif verdict == "early":
                        position.recovering = True
                        position.asked_at = position.offset
                hearing.hear(value, joined=found is not None)
                results.append([verdict, "" if hearing.token is None else str(hearing.token)])
    return results


def test_the_rules_are_those_of_the_client_in_python(server: Server, tabs: Tabs) -> None:
    runs = [run_of(random.Random(seed)) for seed in range(400)]
    page = tabs.open(f"{server.url}/test")
    heard = page.evaluate(_RUN, [f"{server.url}/assets/positions.js", runs])
    for seed, (run, here) in enumerate(zip(runs, heard, strict=True)):
        there = heard_in_python(run)
        assert here == there, f"seed {seed}: {run}"
    verdicts = {result[0] for here in heard for result in here if isinstance(result, list)}
    assert verdicts == {"new", "repeated", "early", "unknown", "in vain, new"}
