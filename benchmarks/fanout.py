"""Deliveries a second of one channel: ``python -m benchmarks.fanout``.

*Joined*: eight messages are outstanding; once every subscriber has had all eight, the next eight are published.
*Single*: 20 messages a second, so that there is nothing to join.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from statistics import median

import attrs

from .load import CHANNEL_MESSAGE, Listeners, Opening, connect_each, masked_frame
from .machine import LOAD_CORE, SERVER_CORE, describe, pin, raise_file_limit
from .peers import MEASURED, PEERS, Peer, Running, started

_OUTSTANDING = 8
_INTERVAL = 0.05
_WARM_UP = 0.5

_TITLES = ("deliveries/s", 30), ("CPU s per million", 26), ("bytes", 6), ("busy: server", 12), ("load", 5)


@attrs.frozen
class Round:
    """What one server did in one round.

    Attributes:
        deliveries: Messages delivered, all subscribers together.
        bytes: What they took on the wire, frame headers included.
        seconds: Of wall time.
        server_cpu: Seconds of processor time of the server.
        idle: Seconds for which the load had nothing to do.
        waited: Seconds for which the server or the load, whichever had more, was kept from its processor by others.
    """

    deliveries: int
    bytes: int
    seconds: float
    server_cpu: float
    idle: float
    waited: float

    @property
    def rate(self) -> float:
        """Deliveries a second."""
        return self.deliveries / self.seconds

    @property
    def cost(self) -> float:
        """Seconds of the server's processor time for a million deliveries."""
        return self.server_cpu / self.deliveries * 1e6


def measure(
    peer: Peer, *, publisher: Opening, subscribers: Sequence[Opening], seconds: float, single: bool = False
) -> Round:
    """Run one round against a fresh server.

    Args:
        peer: The server.
        publisher: How the one comes who publishes.
        subscribers: How the others come.
        seconds: For how long, after the warm-up.
        single: Whether 20 messages a second are published, rather than eight as soon as the last eight are heard.
    """
    outstanding = 1 if single else _OUTSTANDING
    frames = masked_frame(CHANNEL_MESSAGE) * outstanding
    load = Running("self")
    with started(peer, core=SERVER_CORE) as running:
        (sock,) = connect_each(running.port, [publisher])
        with sock, Listeners.connected(running.port, subscribers) as listeners:

            def run(seconds: float) -> None:
                end = time.monotonic() + seconds
                while (at := time.monotonic()) < end:
                    sock.sendall(frames)
                    listeners.hear(outstanding)
                    if single:
                        pause = max(0.0, at + _INTERVAL - time.monotonic())
                        listeners.idle += pause
                        time.sleep(pause)

            listeners.settle(sock)
            run(_WARM_UP)
            messages, size = listeners.messages, listeners.bytes
            wall, server_cpu, idle = time.monotonic(), running.cpu_seconds(), listeners.idle
            waited = [process.waited_seconds() for process in (running, load)]
            run(seconds)
            return Round(
                listeners.messages - messages,
                listeners.bytes - size,
                time.monotonic() - wall,
                running.cpu_seconds() - server_cpu,
                listeners.idle - idle,
                max(process.waited_seconds() - before for process, before in zip((running, load), waited, strict=True)),
            )


def report(rounds: dict[str, list[Round]], *, single: bool) -> None:
    """Print a line for each server, and how many times better rtcore is than each of the others."""
    print("\n" + " ".join([f"{'server':20}", *(f"{title:>{width}}" for title, width in _TITLES), " held up"]))
    for name, measured in rounds.items():
        rates, costs = [one.rate for one in measured], [one.cost for one in measured]
        seconds = sum(one.seconds for one in measured)
        print(
            f"{name:20} {median(rates):>10,.0f} {f'({min(rates):,.0f}-{max(rates):,.0f})':>19}"
            f" {median(costs):>10.2f} {f'({min(costs):.2f}-{max(costs):.2f})':>15}"
            f" {sum(one.bytes for one in measured) / sum(one.deliveries for one in measured):>6.0f}"
            f" {sum(one.server_cpu for one in measured) / seconds:>12.0%}"
            f" {1 - sum(one.idle for one in measured) / seconds:>5.0%}"
            f" {sum(one.waited for one in measured) / seconds:>8.0%}"
        )
    print()
    for ours in (name for name in rounds if name.startswith("native")):
        for theirs in (name for name in rounds if not name.startswith("native")):
            # Round by round: what disturbed a round disturbed its neighbours too.
            pairs = list(zip(rounds[ours], rounds[theirs], strict=True))
            faster = [our.rate / their.rate for our, their in pairs]
            cheaper = [their.cost / our.cost for our, their in pairs]
            compared = f"{ours} / {theirs}"
            rate = "" if single else f"{median(faster):6.1f} x deliveries/s ({min(faster):.1f}-{max(faster):.1f}),"
            print(f"{compared:40} {rate} {median(cheaper):6.1f} x less CPU ({min(cheaper):.1f}-{max(cheaper):.1f})")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the servers in turn, several times, and print what came out."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fanout", description=__doc__)
    parser.add_argument("--single", action="store_true", help="20 messages a second, nothing to join")
    parser.add_argument("--subscribers", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=3.0, help="of one round of one server (default: 3)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--servers", nargs="+", choices=list(PEERS), default=list(MEASURED), metavar="SERVER")
    options = parser.parse_args(arguments)
    raise_file_limit(options.subscribers + 200)
    pin(LOAD_CORE)
    mode = "20 messages a second" if options.single else f"{_OUTSTANDING} messages outstanding"
    print(describe())
    print(f"one channel, {options.subscribers} subscribers, {len(CHANNEL_MESSAGE)} bytes published, {mode}", flush=True)
    rounds: dict[str, list[Round]] = {name: [] for name in options.servers}
    for number in range(options.rounds):
        for name, measured in rounds.items():
            peer = PEERS[name]
            one = measure(
                peer,
                publisher=Opening(peer.publish),
                subscribers=[Opening(peer.subscribe)] * options.subscribers,
                seconds=options.seconds,
                single=options.single,
            )
            measured.append(one)
            print(f"round {number + 1}: {name:20} {one.rate:>10,.0f}/s {one.cost:>6.2f} s per million", flush=True)
    report(rounds, single=options.single)


if __name__ == "__main__":
    main()
