"""What it costs to check who may do what: ``python -m benchmarks.authentication``.

*Deliveries*: those of `benchmarks.fanout`, with everything on, a token for each client and the rights of each channel,
beside the same server that takes everybody at their word. *Connects*: how many clients a second come in, by each way to
say who they are.
"""

from __future__ import annotations

import argparse
import socket
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import TypeVar

import attrs

from .credentials import Stage, checked, stages, unchecked
from .fanout import Round, measure
from .load import CHANNEL_MESSAGE
from .machine import LOAD_CORE, SERVER_CORE, describe, pin, raise_file_limit
from .peers import Running, started

_TIMEOUT = 20.0
_BUFFER_SIZE = 65536
# A client's, masked with zeros, of no payload.
_CLOSE = b"\x88\x80\0\0\0\0"
# So many clients come before they leave. At once come twice 32: those who wait for their first answer, then the last.
_WAVE = 512
_AT_ONCE = 32
# What is asked for by those who hear the channel.
_HEARING = "&channel=bench"


@attrs.frozen
class Arrivals:
    """What one server did in one round of clients who come.

    Attributes:
        count: How many came.
        seconds: Of wall time, without that in which they left.
        server_cpu: Seconds of processor time of the server.
        idle: Seconds for which the load had nothing to do.
        waited: Seconds for which the server or the load, whichever had more, was kept from its processor by others.
    """

    count: int
    seconds: float
    server_cpu: float
    idle: float
    waited: float

    @property
    def rate(self) -> float:
        """Clients a second."""
        return self.count / self.seconds

    @property
    def cost(self) -> float:
        """Microseconds of the server's processor time for one of them."""
        return self.server_cpu / self.count * 1e6

    def __add__(self, other: Arrivals) -> Arrivals:
        return Arrivals(*(mine + its for mine, its in zip(attrs.astuple(self), attrs.astuple(other), strict=True)))


_T = TypeVar("_T", Round, Arrivals)


class _Wave:
    """Clients of a server who come one soon after the other, and leave together.

    Args:
        stage: The server, and how they come.
        port: Where it listens.

    Attributes:
        idle: Seconds for which there was nothing to read.
    """

    def __init__(self, stage: Stage, port: int) -> None:
        self.idle = 0.0
        self._stage = stage
        self._port = port
        self._sockets: list[socket.socket] = []
        self._heard: list[bytes] = []

    def come(self) -> None:
        """Let all of them come, until the last one is in.

        Raises:
            RuntimeError: If one is not let in.
        """
        stage, count = self._stage, len(self._stage.openings)
        for number in range(count + 2 * _AT_ONCE):
            if number < count:
                sock = stage.openings[number].send(self._port)
                sock.setblocking(False)
                self._sockets.append(sock)
                self._heard.append(b"")
            # With a message to send they have two answers to wait for, each while others come.
            if stage.introductions and 0 <= (introduced := number - _AT_ONCE) < count:
                self._hear(introduced, b"\r\n\r\n")
                self._sockets[introduced].sendall(stage.introductions[introduced])
            if 0 <= (arrived := number - 2 * _AT_ONCE) < count:
                self._hear(arrived, stage.answer)

    def leave(self) -> None:
        """Let all of them leave, and wait until the server has noticed."""
        for sock in self._sockets:
            sock.settimeout(_TIMEOUT)
            sock.sendall(_CLOSE)
        for sock in self._sockets:
            while sock.recv(_BUFFER_SIZE):
                pass

    def close(self) -> None:
        """Close what is open."""
        for sock in self._sockets:
            sock.close()

    def _hear(self, number: int, wanted: bytes) -> None:
        """Read until something has come, without ever sleeping: nobody is to pay for waking the load."""
        sock, heard = self._sockets[number], self._heard[number]
        began_at = now = time.monotonic()
        while wanted not in heard:
            try:
                data = sock.recv(_BUFFER_SIZE)
            except BlockingIOError:
                before, now = now, time.monotonic()
                self.idle += now - before
                if now - began_at > _TIMEOUT:
                    raise RuntimeError(f"{self._stage.name}: no answer but {heard!r}") from None
                continue
            heard += data
            if not data or not heard.startswith(b"HTTP/1.1 101"[: len(heard)]):
                raise RuntimeError(f"{self._stage.name}: not let in, but told {heard[-500:]!r}")
            now = time.monotonic()
        self._heard[number] = heard


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a table of each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.authentication", description=__doc__)
    parser.add_argument("--only", choices=["deliveries", "connects"], help="one of the two tables")
    parser.add_argument("--subscribers", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=3.0, help="of one round of one server (default: 3)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--backend", default="asyncio", choices=["asyncio", "trio"])
    options = parser.parse_args(arguments)
    raise_file_limit(max(options.subscribers, _WAVE) + 200)
    pin(LOAD_CORE)
    print(describe())
    print(", ".join(f"{name} {version(name)}" for name in ("joserfc", "cryptography")))
    print(f"{options.backend}, {options.rounds} rounds of {options.seconds} s", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.only != "connects":
            size = len(CHANNEL_MESSAGE)
            print(
                f"\none channel, {options.subscribers} subscribers, {size} bytes published, 8 outstanding\n", flush=True
            )
            both = [make(folder, options.backend, options.subscribers, _HEARING) for make in (unchecked, checked)]
            _print_deliveries(_rounds(both, options.rounds, lambda stage: _deliver(stage, options.seconds)))
        if options.only != "deliveries":
            print(f"\n{_WAVE} users come, {2 * _AT_ONCE} at once, then all leave\n", flush=True)
            ways = stages(folder, options.backend, _WAVE)
            _print_connects(_rounds(ways, options.rounds, lambda stage: _arrive(stage, options.seconds)))


def _rounds(compared: Sequence[Stage], count: int, run: Callable[[Stage], _T]) -> dict[str, list[_T]]:
    """Run each server once in each round, every other round backwards, for what drifts to meet all alike."""
    done: dict[str, list[_T]] = {stage.name: [] for stage in compared}
    for number in range(count):
        for stage in reversed(compared) if number % 2 else compared:
            done[stage.name].append(run(stage))
    return done


def _deliver(stage: Stage, seconds: float) -> Round:
    assert stage.publisher is not None, "somebody publishes"
    return measure(stage.peer, publisher=stage.publisher, subscribers=stage.openings, seconds=seconds)


def _arrive(stage: Stage, seconds: float) -> Arrivals:
    load = Running("self")
    with started(stage.peer, core=SERVER_CORE) as running:
        # The first wave warms it up.
        _come_and_go(stage, running, load)
        whole = _come_and_go(stage, running, load)
        while whole.seconds < seconds:
            whole += _come_and_go(stage, running, load)
    return whole


def _come_and_go(stage: Stage, running: Running, load: Running) -> Arrivals:
    with closing(_Wave(stage, running.port)) as wave:
        waited = [process.waited_seconds() for process in (running, load)]
        wall, cpu = time.monotonic(), running.cpu_seconds()
        wave.come()
        arrivals = Arrivals(
            len(stage.openings),
            time.monotonic() - wall,
            running.cpu_seconds() - cpu,
            wave.idle,
            max(process.waited_seconds() - before for process, before in zip((running, load), waited, strict=True)),
        )
        wave.leave()
    return arrivals


def _print_deliveries(rounds: dict[str, list[Round]]) -> None:
    _print_head(
        "checked", "deliveries a second", "of those of none", "CPU s per million", "times that of none", "bytes"
    )
    for name, measured in rounds.items():
        size = sum(one.bytes for one in measured) / sum(one.deliveries for one in measured)
        _print_row(name, *_compared(measured, rounds["none"], "{:.2f}"), f"{size:.0f}", *_loads(measured))


def _print_connects(rounds: dict[str, list[Arrivals]]) -> None:
    _print_head("credential", "connects a second", "of those of none", "CPU us each", "times that of none")
    for name, measured in rounds.items():
        base = rounds["websockets, none" if name.startswith("websockets") else "none"]
        _print_row(name, *_compared(measured, base, "{:.0f}"), *_loads(measured))


def _compared(measured: Sequence[_T], base: Sequence[_T], cost: str) -> list[str]:
    """Return rates and costs, each beside the ratios to those of the same rounds of another server."""
    rates, costs = [one.rate for one in measured], [one.cost for one in measured]
    return [
        _spread(rates, "{:,.0f}"),
        _spread([rate / other.rate for rate, other in zip(rates, base, strict=True)], "{:.2f}"),
        _spread(costs, cost),
        _spread([one / other.cost for one, other in zip(costs, base, strict=True)], "{:.2f}"),
    ]


def _loads(measured: Sequence[_T]) -> list[str]:
    """Return how busy the server and the load were, and for how long either was held up."""
    seconds = sum(one.seconds for one in measured)
    server = sum(one.server_cpu for one in measured)
    load = seconds - sum(one.idle for one in measured)
    return [f"{part / seconds:.0%}" for part in (server, load, sum(one.waited for one in measured))]


def _spread(values: Sequence[float], shape: str) -> str:
    """Return the median, and the extremes."""
    return "{} ({}-{})".format(*map(shape.format, (median(values), min(values), max(values))))


def _print_head(*titles: str) -> None:
    columns = (*titles, "busy: server", "load", "held up")
    _print_row(*columns)
    _print_row(*["---"] * len(columns))


def _print_row(*cells: str) -> None:
    print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
