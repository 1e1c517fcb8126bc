"""The round trip of an echo beside a busy channel: ``python -m benchmarks.echo_latency``.

One channel with 5,000 subscribers gets 20 messages a second; meanwhile another connection sends a ``text`` every 20 ms,
whether or not the last one has come back, and each is timed until it does.
"""

from __future__ import annotations

import argparse
import socket
import time
from collections import deque
from collections.abc import Sequence

import attrs

from .load import CHANNEL_MESSAGE, MARKER, Listeners, Opening, connect, masked_frame
from .machine import LOAD_CORE, SERVER_CORE, describe, pin, raise_file_limit
from .peers import MEASURED, PEERS, Peer, Running, started

_PUBLISH_INTERVAL = 0.05
_ECHO_INTERVAL = 0.02
_WARM_UP = 1.0
# How long to wait at the end for echoes that are still out.
_GRACE = 1.0
# So many subscribers are read from between two looks at the echo: 0.1 ms.
_STEP = 16

_TITLES = ("p50 ms", 8), ("p99 ms", 8), ("max ms", 8), ("echoes", 7), ("late", 5), ("delivered", 10), ("CPU", 5)

_PUBLICATION = masked_frame(CHANNEL_MESSAGE)
_ECHO = masked_frame(b'{"type":"text","data":"' + MARKER + b'"}')


@attrs.frozen
class Outcome:
    """What one server did.

    Attributes:
        latencies: Milliseconds of each round trip, shortest first; an echo that did not come counts for as long as it
            was waited for.
        unanswered: How many did not come within a second of the end.
        delivered: Which part of what was to be delivered had been at the end.
        server_cpu: Processor time of the server as a part of the wall time.
        waited: As such a part too: for how long the server or the load, whichever was longer, was kept from its
            processor by others.
    """

    latencies: list[float]
    unanswered: int
    delivered: float
    server_cpu: float
    waited: float

    def percentile(self, part: float) -> float:
        """Return the latency in milliseconds that `part` of all do not exceed."""
        return self.latencies[min(len(self.latencies) - 1, int(part * len(self.latencies)))]


class _Echo:
    """A connection whose messages come back, and when each was sent."""

    def __init__(self, sock: socket.socket) -> None:
        self.waiting: deque[float] = deque()
        #: When each was sent that has come back, and seconds until it did.
        self.latencies: list[tuple[float, float]] = []
        self._socket = sock
        self._heard = Listeners([sock])

    def send(self) -> None:
        self.waiting.append(time.monotonic())
        self._socket.send(_ECHO)

    def read(self) -> None:
        before = self._heard.messages
        if self._heard.read():
            now = time.monotonic()
            for _ in range(self._heard.messages - before):
                at = self.waiting.popleft()
                self.latencies.append((at, now - at))


def measure(peer: Peer, *, subscribers: int, seconds: float) -> Outcome:
    """Run a fresh server for a second to warm up, then for so many seconds."""
    with started(peer, core=SERVER_CORE) as running:
        (publisher,), (sock,) = connect(running.port, peer.publish), connect(running.port, peer.echo)
        openings = [Opening(peer.subscribe)] * subscribers
        with publisher, sock, Listeners.connected(running.port, openings) as listeners:
            listeners.settle(publisher)
            processes = (running, Running("self"))
            echo = _Echo(sock)

            def run(seconds: float) -> int:
                published = echoes = 0
                start = time.monotonic()
                while (elapsed := time.monotonic() - start) < seconds:
                    if elapsed >= published * _PUBLISH_INTERVAL:
                        publisher.sendall(_PUBLICATION)
                        published += 1
                    if elapsed >= echoes * _ECHO_INTERVAL:
                        echo.send()
                        echoes += 1
                    echo.read()
                    listeners.read(_STEP)
                return published

            before = listeners.messages
            published = run(_WARM_UP)
            start, cpu = time.monotonic(), running.cpu_seconds()
            waited = [process.waited_seconds() for process in processes]
            published += run(seconds)
            cpu, end = running.cpu_seconds() - cpu, time.monotonic()
            waited = [process.waited_seconds() - before for process, before in zip(processes, waited, strict=True)]
            delivered = (listeners.messages - before) / (published * subscribers)
            while echo.waiting and time.monotonic() < end + _GRACE:
                echo.read()
                listeners.read(_STEP)
    latencies = [latency for at, latency in echo.latencies if at >= start]
    late = [time.monotonic() - at for at in echo.waiting if at >= start]
    in_order = sorted(latency * 1e3 for latency in latencies + late)
    return Outcome(in_order, len(late), delivered, cpu / (end - start), max(waited) / (end - start))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the servers in turn, and print what came out."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.echo_latency", description=__doc__)
    parser.add_argument("--subscribers", type=int, default=5000)
    parser.add_argument("--seconds", type=float, default=10.0, help="of one round of one server (default: 10)")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--servers", nargs="+", choices=list(PEERS), default=list(MEASURED[:3]), metavar="SERVER")
    options = parser.parse_args(arguments)
    raise_file_limit(options.subscribers + 200)
    pin(LOAD_CORE)
    print(describe())
    print(
        f"one channel, {options.subscribers} subscribers, {len(CHANNEL_MESSAGE)} bytes published 20 times a second,"
        f" an echo every 20 ms\n\n"
        + " ".join([f"{'server':20}", *(f"{title:>{width}}" for title, width in _TITLES), " held up"]),
        flush=True,
    )
    for _ in range(options.rounds):
        for name in options.servers:
            outcome = measure(PEERS[name], subscribers=options.subscribers, seconds=options.seconds)
            print(
                f"{name:20} {outcome.percentile(0.5):>8.2f} {outcome.percentile(0.99):>8.2f}"
                f" {outcome.latencies[-1]:>8.2f} {len(outcome.latencies):>7} {outcome.unanswered:>5}"
                f" {outcome.delivered:>10.1%} {outcome.server_cpu:>5.0%}"
                f" {outcome.waited:>8.0%}",
                flush=True,
            )


if __name__ == "__main__":
    main()
