"""Run any number of scenarios, on all cores: ``python -m tests.simulation.campaign --seeds 1000000``.

Failures are printed with their seeds, and the campaign goes on. With ``--state`` it can be interrupted, and goes on
where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import TextIO

import attrs

from rtcore.simulation import SimulationFailure, run

CHUNK = 100
BAR = 30


@attrs.define
class Tally:
    """What some scenarios have come to.

    Attributes:
        first: The first seed.
        count: How many seeds.
        steps: Events.
        seconds: Virtual ones.
        failures: What failed: seed, invariant, explanation.
    """

    first: int
    count: int
    steps: int = 0
    seconds: float = 0.0
    failures: list[tuple[int, str, str]] = attrs.field(factory=list)


def run_chunk(first: int, count: int) -> Tally:
    """Run the scenarios of `count` seeds from `first` on."""
    tally = Tally(first, count)
    for seed in range(first, first + count):
        try:
            report = run(seed)
        except SimulationFailure as failure:
            tally.failures.append((seed, failure.invariant, failure.explanation))
        except Exception as error:
            tally.failures.append((seed, type(error).__name__, str(error)))
        else:
            tally.steps += report.steps
            tally.seconds += report.seconds
    return tally


class Progress:
    """The progress bar, on a terminal; elsewhere a line now and then."""

    def __init__(self, total: int, out: TextIO) -> None:
        self._total = total
        self._out = out
        self._started_at = time.monotonic()
        self._shown_at = 0.0
        self._interval = 0.2 if out.isatty() else 30.0

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._started_at

    def show(self, done: int, ran: int, failures: int, *, last: bool = False) -> None:
        """Show how far it is: `done` seeds of all, of which `ran` in this run."""
        now = time.monotonic()
        if not last and now - self._shown_at < self._interval:
            return
        self._shown_at = now
        rate = ran / max(self.elapsed, 1e-9)
        left = (self._total - done) / rate if rate else 0.0
        filled = BAR * done // max(self._total, 1)
        line = (
            f"[{'#' * filled}{'.' * (BAR - filled)}] {done:,}/{self._total:,} seeds  {rate:.0f}/s  "
            f"{_duration(left)} left  {failures} failed"
        )
        if self._out.isatty():
            self._out.write(f"\r\x1b[K{line}" + ("\n" if last else ""))
        else:
            self._out.write(line + "\n")
        self._out.flush()

    def say(self, text: str) -> None:
        """Print a line of its own."""
        self._out.write(("\r\x1b[K" if self._out.isatty() else "") + text + "\n")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def read_state(path: Path | None, first: int, seeds: int) -> dict[int, Tally]:
    """Return the chunks that were run before, by their first seed."""
    done: dict[int, Tally] = {}
    if path is not None and path.exists():
        for line in path.read_text().splitlines():
            try:
                tally = Tally(**json.loads(line))
            except ValueError:
                continue  # half a line: it was interrupted there
            if first <= tally.first and tally.first + tally.count <= first + seeds:
                done[tally.first] = tally
    return done


def chunks(first: int, seeds: int, done: dict[int, Tally]) -> Iterator[tuple[int, int]]:
    """Yield what is left to be run: first seeds and counts."""
    for start in range(first, first + seeds, CHUNK):
        if start not in done:
            yield start, min(CHUNK, first + seeds - start)


def campaign(first: int, seeds: int, jobs: int, state: Path | None, out: TextIO) -> list[Tally]:
    """Run scenarios in several processes; returns what they have come to, chunk by chunk."""
    done = read_state(state, first, seeds)
    tallies = list(done.values())
    finished = sum(tally.count for tally in tallies)
    failures = sum(len(tally.failures) for tally in tallies)
    before = finished
    progress = Progress(seeds, out)
    left = chunks(first, seeds, done)
    with ProcessPoolExecutor(jobs) as pool:
        pending: set[Future[Tally]] = set()
        while True:
            while len(pending) < 2 * jobs and (chunk := next(left, None)) is not None:
                pending.add(pool.submit(run_chunk, *chunk))
            if not pending:
                break
            ready, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in ready:
                tally = future.result()
                tallies.append(tally)
                finished += tally.count
                failures += len(tally.failures)
                for seed, invariant, explanation in tally.failures:
                    progress.say(f"seed {seed}: {invariant}: {explanation}")
                if state is not None:
                    with state.open("a") as file:
                        file.write(json.dumps(attrs.asdict(tally)) + "\n")
            progress.show(finished, finished - before, failures)
    progress.show(finished, finished - before, failures, last=True)
    steps = sum(tally.steps for tally in tallies)
    hours = sum(tally.seconds for tally in tallies) / 3600
    line = f"{finished:,} seeds, {steps:,} steps, {hours:,.0f} virtual hours, {failures} failed"
    if finished > before:
        ran = sum(tally.seconds for tally in tallies[len(done) :]) / 3600
        line += f"; {ran / (progress.elapsed / 60):,.0f} virtual hours a minute"
    progress.say(line)
    return tallies


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns 1 if anything has failed."""
    parser = argparse.ArgumentParser(prog="campaign", description="Run many simulated scenarios.")
    parser.add_argument("--seeds", type=int, default=10_000, help="how many")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first of them")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--state", type=Path, help="a file from which an interrupted campaign goes on")
    options = parser.parse_args(arguments)
    try:
        tallies = campaign(options.first, options.seeds, options.jobs, options.state, sys.stderr)
    except KeyboardInterrupt:
        again = "" if options.state is None else f"; go on with --state {options.state}"
        print(f"\ninterrupted{again}", file=sys.stderr)
        return 130
    return 1 if any(tally.failures for tally in tallies) else 0


if __name__ == "__main__":
    sys.exit(main())
