"""WebRTC signaling of many rooms at once: ``python -m benchmarks.signaling``.

1,000 rooms of two peers negotiate, 40 signals each: an offer, an answer, and 19 candidates each way. *At once*: what a
peer says goes out with one write. *In turn*: each signal when the one before it has arrived. *At a rate*: so many a
second. PeerJS must be installed, unless `--servers` leaves it out: ``npm install --prefix build/peerjs peer@1.0.2``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import attrs

from .machine import LOAD_CORE, SERVER_CORE, describe, pin, raise_file_limit
from .negotiations import DIALECTS, SIGNALS, Dialect, Negotiators
from .peers import PEERS, Peer, Running, started
from .slow_consumers import percentile, resident

_NAMES = "native-asyncio", "native-trio", "native-asyncio-acks", "native-trio-acks", "peerjs"
_MEASURED = "native-asyncio", "native-trio", "native-asyncio-acks", "peerjs"
_MODES = "at once", "in turn", "at a rate"

_TITLES = (
    ("signals/s", 26),
    ("CPU s per million", 22),
    ("p50 ms", 19),
    ("p99 ms", 19),
    ("bytes", 6),
    ("MB", 4),
    ("busy: server", 12),
    ("load", 5),
)


@attrs.frozen
class Part:
    """What one server did in one mode in one round.

    Attributes:
        signals: How many arrived.
        bytes: What they took on the way to their receivers, with frame headers and acknowledgements.
        seconds: Of wall time.
        server_cpu: Seconds of processor time of the server.
        idle: Seconds for which the load had nothing to do.
        waited: Seconds for which the server or the load, whichever had more, was kept from its processor by others.
        latencies: Seconds from sending to receiving, shortest first.
        memory: Of the server at the end, in MB.
    """

    signals: int
    bytes: int
    seconds: float
    server_cpu: float
    idle: float
    waited: float
    latencies: Sequence[float]
    memory: float

    @property
    def rate(self) -> float:
        """Signals a second."""
        return self.signals / self.seconds

    @property
    def cost(self) -> float:
        """Seconds of the server's processor time for a million signals."""
        return self.server_cpu / self.signals * 1e6

    def latency(self, part: float) -> float:
        """Return the milliseconds that `part` of all signals do not exceed."""
        return percentile(self.latencies, part) * 1e3


def _server(name: str, peerjs: str) -> tuple[Peer, Dialect]:
    if name == "peerjs":
        return Peer(name, ("benchmarks/peers/peerjs.cjs", peerjs), program="node"), DIALECTS["peerjs"]
    plain = name.removesuffix("-acks")
    return PEERS[plain], DIALECTS["rtcore" if name == plain else "acknowledged"]


def measure(
    peer: Peer, dialect: Dialect, *, rooms: int, seconds: float, rate: float, modes: Sequence[str]
) -> dict[str, Part]:
    """Run one round against a fresh server: for so many seconds in each mode."""
    with started(peer, core=SERVER_CORE) as running, Negotiators.connected(running.port, dialect, rooms) as load:
        processes = (running, Running("self"))

        def run(negotiate: Callable[[], None], seconds: float) -> Part:
            # The last acknowledgements of what came before are not of this part.
            load.quiet()
            load.latencies = type(load.latencies)("d")
            signals, size, idle = load.signals, load.bytes, load.idle
            waited = [process.waited_seconds() for process in processes]
            start, cpu = time.monotonic(), running.cpu_seconds()
            while True:
                negotiate()
                if (wall := time.monotonic() - start) >= seconds:
                    break
            return Part(
                load.signals - signals,
                load.bytes - size,
                wall,
                running.cpu_seconds() - cpu,
                load.idle - idle,
                max(process.waited_seconds() - before for process, before in zip(processes, waited, strict=True)),
                sorted(load.latencies),
                resident(running),
            )

        parts: dict[str, Part] = {}
        for mode in modes:
            match mode:
                case "at once":
                    parts[mode] = run(load.at_once, seconds)
                case "in turn":
                    parts[mode] = run(load.in_turn, seconds)
                case _:
                    parts[mode] = run(lambda: load.at_rate(rate, seconds), 0.0)
        return parts


def _spread(values: Sequence[float], form: str) -> str:
    return f"{median(values):{form}} ({min(values):{form}}-{max(values):{form}})"


def report(rounds: dict[str, list[dict[str, Part]]], modes: Sequence[str]) -> None:
    """Print a line for each server and mode, and how many times better rtcore is than PeerJS."""
    for mode in modes:
        print("\n" + " ".join([f"{mode:20}", *(f"{title:>{width}}" for title, width in _TITLES), " held up"]))
        for name, measured in rounds.items():
            parts = [one[mode] for one in measured]
            seconds = sum(part.seconds for part in parts)
            print(
                f"{name:20} {_spread([part.rate for part in parts], ',.0f'):>26}"
                f" {_spread([part.cost for part in parts], '.1f'):>22}"
                f" {_spread([part.latency(0.5) for part in parts], '.2f'):>19}"
                f" {_spread([part.latency(0.99) for part in parts], '.2f'):>19}"
                f" {sum(part.bytes for part in parts) / sum(part.signals for part in parts):>6.0f}"
                f" {max(part.memory for part in parts):>4.0f}"
                f" {sum(part.server_cpu for part in parts) / seconds:>12.0%}"
                f" {1 - sum(part.idle for part in parts) / seconds:>5.0%}"
                f" {sum(part.waited for part in parts) / seconds:>8.0%}"
            )
        for ours in (name for name in rounds if name != "peerjs" and "peerjs" in rounds):
            # Round by round: what disturbed a round disturbed its neighbours too.
            pairs = [(our[mode], their[mode]) for our, their in zip(rounds[ours], rounds["peerjs"], strict=True)]
            compared = f"{ours} / peerjs"
            print(
                f"{compared:30} {_spread([our.rate / their.rate for our, their in pairs], '.2f')} x signals/s,"
                f" {_spread([their.cost / our.cost for our, their in pairs], '.2f')} x less CPU,"
                f" p99 {_spread([their.latency(0.99) / our.latency(0.99) for our, their in pairs], '.2f')} x shorter"
            )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the servers in turn, several times, and print what came out."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.signaling", description=__doc__)
    parser.add_argument("--rooms", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=3.0, help="of one round of one server, at least (default: 3)")
    parser.add_argument(
        "--rate", type=float, default=5000.0, help="signals a second, all rooms together (default: 5000)"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--servers", nargs="+", choices=_NAMES, default=list(_MEASURED), metavar="SERVER")
    parser.add_argument("--modes", nargs="+", choices=_MODES, default=list(_MODES), metavar="MODE")
    parser.add_argument("--peerjs", default="build/peerjs", help="where `peer` is installed (default: build/peerjs)")
    options = parser.parse_args(arguments)
    if "peerjs" in options.servers and not Path(options.peerjs, "node_modules", "peer").is_dir():
        raise SystemExit(f"PeerJS is not there: npm install --prefix {options.peerjs} peer@1.0.2, or name --servers")
    raise_file_limit(2 * options.rooms + 200)
    pin(LOAD_CORE)
    print(describe())
    print(
        f"{options.rooms} rooms of 2 peers, {SIGNALS} signals for a negotiation; rate: {options.rate:,.0f}/s",
        flush=True,
    )
    rounds: dict[str, list[dict[str, Part]]] = {name: [] for name in options.servers}
    for number in range(options.rounds):
        for name, measured in rounds.items():
            peer, dialect = _server(name, options.peerjs)
            parts = measure(
                peer,
                dialect,
                rooms=options.rooms,
                seconds=options.seconds,
                rate=options.rate,
                modes=options.modes,
            )
            measured.append(parts)
            told = (f"{mode} {part.rate:,.0f}/s, p99 {part.latency(0.99):.1f} ms" for mode, part in parts.items())
            print(f"round {number + 1}: {name:20} " + "; ".join(told), flush=True)
    report(rounds, options.modes)


if __name__ == "__main__":
    main()
