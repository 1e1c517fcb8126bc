"""Subscribers that stop reading, and those beside them: ``python -m benchmarks.slow_consumers``.

One channel with 1,000 subscribers gets 20 messages a second, and another connection an echo every 20 ms. In every other
round 100 of the subscribers do not read at all; before it the network has been filled, so that all they are sent waits
in the server. Then nobody reads, and the server's memory is measured.
"""

from __future__ import annotations

import argparse
import json
import select
import socket
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from statistics import median

import attrs

from .load import CHANNEL_MESSAGE, MARKER, connect, masked_frame
from .machine import LOAD_CORE, SERVER_CORE, describe, pin, raise_file_limit
from .peers import PEERS, Peer, Running, started

_PUBLISH_INTERVAL = 0.05
_ECHO_INTERVAL = 0.02
# So many subscribers are read from between two looks at the echo.
_STEP = 16
_TIMEOUT = 20.0
# Small, or filling them would be most of the work; the kernel doubles it.
_BUFFER = 32_768
# What is published at once to fill them, and how often at most.
_BURST = 50
_MAX_BURSTS = 400
# What nobody reads, at the end.
_UNREAD = 5000

_TITLES = ("p50 heard", "p99 heard", "p50 echo", "p99 echo")
_POLICIES = ("disconnect", "drop_oldest", "latest")
# In each gap of a slow consumer, once; as long as the marker of a message.
_GAP = b':"slow_consumer"}'
_PUBLICATION = masked_frame(CHANNEL_MESSAGE)
_ECHO = masked_frame(b'{"type":"text","data":"' + MARKER + b'"}')


class _Ears:
    """Connections that hear the same messages, and how long each took to each of them."""

    def __init__(self, sockets: Sequence[socket.socket], sent: list[float]) -> None:
        self.latencies: list[float] = []
        self.gaps = 0
        self._sent = sent
        self._epoll = select.epoll()
        self._receivers = {sock.fileno(): sock.recv for sock in sockets}
        self._heard = dict.fromkeys(self._receivers, 0)
        self._tails = dict.fromkeys(self._receivers, b"")
        for sock in sockets:
            sock.setblocking(False)
            self._epoll.register(sock.fileno(), select.EPOLLIN)

    @property
    def heard(self) -> int:
        """How many messages they have heard, all together."""
        return sum(self._heard.values())

    def read(self, most: int = 1024) -> bool:
        """Read once from each that can be read, at most `most` of them; returns whether any could."""
        sent, heard, tails = self._sent, self._heard, self._tails
        ready = self._epoll.poll(0, most)
        for file, _ in ready:
            data = self._receivers[file](262_144)
            if not data:
                raise RuntimeError("the server ended a connection")
            data = tails[file] + data
            now = time.monotonic()
            before = heard[file]
            heard[file] = after = before + data.count(MARKER)
            self.gaps += data.count(_GAP)
            # Too short for either, so what is found is found once.
            tails[file] = data[1 - len(MARKER) :]
            if after > before:
                self.latencies += [now - at for at in sent[before:after]]
        return bool(ready)

    def hear(self, messages: int) -> None:
        """Read until they have heard so many messages, all together.

        Raises:
            RuntimeError: If nothing comes for long.
        """
        read_at = time.monotonic()
        while self.heard < messages:
            if self.read():
                read_at = time.monotonic()
            elif time.monotonic() - read_at > _TIMEOUT:
                raise RuntimeError(f"{messages - self.heard} messages did not come")

    def forget(self) -> None:
        """Take up with what is published next, whatever has been missed."""
        self._heard = dict.fromkeys(self._heard, len(self._sent))

    def close(self) -> None:
        """Let go of what is no socket."""
        self._epoll.close()


@attrs.frozen
class Part:
    """One half of a round.

    Attributes:
        deliveries: Milliseconds from each publication to each of those who read throughout.
        echoes: Milliseconds of each round trip beside it.
        server_cpu: Processor time of the server as a part of the wall time.
        waited: For how long the server or the load, whichever was longer, was kept from its processor by others, as
            such a part too.
    """

    deliveries: list[float]
    echoes: list[float]
    server_cpu: float
    waited: float


class Bench:
    """A server with subscribers, some of whom may stop reading.

    Args:
        running: The server.
        sockets: One that publishes, one that has its messages sent back, and the subscribers.
        frozen: How many of the subscribers may stop.
        policy: What the server does to those.
    """

    def __init__(self, running: Running, sockets: Sequence[socket.socket], frozen: int, policy: str) -> None:
        self.running = running
        self._publisher, self._echo = sockets[:2]
        self._policy = policy
        self._sent: list[float] = []
        self._echoes: list[float] = []
        self.stuck = _Ears(sockets[2 : 2 + frozen], self._sent)
        for sock in sockets[2 : 2 + frozen]:
            # Of a size that does not change, so that the server's backlogs fill together.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        self.readers = _Ears(sockets[2 + frozen :], self._sent)
        self._echo_ear = _Ears([self._echo], self._echoes)
        self._frozen = frozen
        self._readers = len(sockets) - 2 - frozen

    def publish(self, count: int = 1) -> None:
        """Publish so many messages at once."""
        self._sent += [time.monotonic()] * count
        self._publisher.sendall(_PUBLICATION * count)

    def part(self, seconds: float, *, frozen: bool) -> Part:
        """Measure for so many seconds, while some do not read or while all do."""
        ears = [self.readers] if frozen else [self.readers, self.stuck]
        everybody = [*ears, self._echo_ear]
        for each in everybody:
            each.latencies.clear()
        processes = (self.running, Running("self"))
        cpu, waited = self.running.cpu_seconds(), [process.waited_seconds() for process in processes]
        published = echoes = 0
        start = time.monotonic()
        while (elapsed := time.monotonic() - start) < seconds:
            if elapsed >= published * _PUBLISH_INTERVAL:
                self.publish()
                published += 1
            if elapsed >= echoes * _ECHO_INTERVAL:
                self._echoes.append(time.monotonic())
                self._echo.send(_ECHO)
                echoes += 1
            self._echo_ear.read()
            for each in ears:
                each.read(_STEP)
        cpu = self.running.cpu_seconds() - cpu
        waits = [process.waited_seconds() - before for process, before in zip(processes, waited, strict=True)]
        self._settle(frozen=frozen)
        self._echo_ear.hear(len(self._echoes))
        return Part(
            _milliseconds(self.readers.latencies),
            _milliseconds(self._echo_ear.latencies),
            cpu / seconds,
            max(waits) / seconds,
        )

    def freeze(self) -> None:
        """Publish until those who do not read keep the server waiting; for policies that drop, until it does.

        Raises:
            RuntimeError: If that does not come to pass.
        """
        before = self.stats()
        for _ in range(_MAX_BURSTS):
            now = self.stats()
            dropped = now["dropped_messages"] - before["dropped_messages"]
            waiting = now["backlog_bytes"] > 20_000 * self._frozen
            if waiting if self._policy == "disconnect" else dropped > 200 * self._frozen:
                return
            self.publish(_BURST)
            self._settle(frozen=True)
        raise RuntimeError("the network takes everything in")

    def thaw(self) -> None:
        """Have all read again, and wait until nothing waits any more."""
        deadline = time.monotonic() + _TIMEOUT
        while self.stats()["backlog_bytes"]:
            while self.stuck.read():
                pass
            if time.monotonic() > deadline:
                raise RuntimeError("what waits does not come")
        while self.stuck.heard + self.stats()["dropped_messages"] < len(self._sent) * self._frozen:
            self.stuck.read()
            if time.monotonic() > deadline:
                raise RuntimeError("some messages are neither heard nor counted as dropped")

    def stats(self) -> dict[str, int]:
        """Return what the server counts."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.running.port}/", timeout=_TIMEOUT) as response:
            counted: dict[str, int] = json.load(response)
        return counted

    def _settle(self, *, frozen: bool) -> None:
        self.readers.hear(len(self._sent) * self._readers)
        if not frozen:
            self.stuck.hear(len(self._sent) * self._frozen - self.stats()["dropped_messages"])


@contextmanager
def bench(peer: Peer, *, subscribers: int, frozen: int, policy: str) -> Iterator[Bench]:
    """Start a server and connect everybody; all of it ends with the context."""
    arguments = (*peer.arguments, policy, str(_BUFFER))
    with started(attrs.evolve(peer, arguments=arguments), core=SERVER_CORE) as running, ExitStack() as stack:
        sockets = [
            stack.enter_context(sock)
            for target, count in ((peer.publish, 1), (peer.echo, 1), (peer.subscribe, subscribers))
            for sock in connect(running.port, target, count)
        ]
        made = Bench(running, sockets, frozen, policy)
        for ears in (made.stuck, made.readers):
            stack.callback(ears.close)
        yield made


def latencies(peer: Peer, options: argparse.Namespace, policy: str) -> None:
    """Measure the others' latencies with and without frozen subscribers, in turn, and print them."""
    rounds: list[tuple[Part, Part]] = []
    with bench(peer, subscribers=options.subscribers, frozen=options.frozen, policy=policy) as one:
        one.part(1.0, frozen=False)
        for _ in range(options.rounds):
            reading = one.part(options.seconds, frozen=False)
            one.freeze()
            rounds.append((reading, one.part(options.seconds, frozen=True)))
            one.thaw()
        stats = one.stats()
        if stats["slow_disconnects"] or stats["gaps"] != one.stuck.gaps:
            raise RuntimeError(f"{one.stuck.gaps} gaps were heard of {stats}")
    for title, parts in zip(("all read", f"{options.frozen} frozen"), zip(*rounds, strict=True), strict=True):
        deliveries = sorted(each for part in parts for each in part.deliveries)
        echoes = sorted(each for part in parts for each in part.echoes)
        columns = [percentile(times, part) for times in (deliveries, echoes) for part in (0.5, 0.99)]
        print(
            f"{peer.name:15} {policy:12} {title:12} {' '.join(f'{column:>9.2f}' for column in columns)}"
            f" {median(part.server_cpu for part in parts):>5.0%} {median(part.waited for part in parts):>8.0%}",
            flush=True,
        )
    ratios = {
        "deliveries": [tail(frozen.deliveries) / tail(reading.deliveries) for reading, frozen in rounds],
        "echoes": [tail(frozen.echoes) / tail(reading.echoes) for reading, frozen in rounds],
    }
    for name, each in ratios.items():
        print(f"{'':29}p99 of {name}, frozen / all read: {median(each):.2f} ({min(each):.2f}-{max(each):.2f})")
    print(f"{'':29}dropped {stats['dropped_messages']:,}, gaps {stats['gaps']:,}", flush=True)


def memory(peer: Peer, options: argparse.Namespace, policy: str) -> None:
    """Publish to subscribers none of whom reads, and print what becomes of the server's memory."""
    with bench(peer, subscribers=options.subscribers, frozen=options.subscribers, policy=policy) as one:
        before = resident(one.running)
        start, cpu = time.monotonic(), one.running.cpu_seconds()
        for _ in range(_UNREAD // _BURST):
            one.publish(_BURST)
            one.stats()
        seconds, cpu = time.monotonic() - start, one.running.cpu_seconds() - cpu
        stats, after, most = one.stats(), resident(one.running), resident(one.running, "VmHWM")
        print(
            f"{peer.name:15} {policy:12} {before:.0f} MB before, {after:.0f} MB after {_UNREAD:,} messages,"
            f" {most:.0f} MB at most ({cpu:.1f} s of CPU in {seconds:.1f} s)\n"
            f"{'':29}waiting {stats['backlog_bytes'] / 2**20:,.0f} MB of JSON, counted for each;"
            f" dropped {stats['dropped_messages']:,}, ended {stats['slow_disconnects']:,}",
            flush=True,
        )


def resident(running: Running, field: str = "VmRSS") -> float:
    """Return the memory of a process in MB; that of its sockets is the kernel's and not in it."""
    with open(f"/proc/{running.pid}/status") as file:
        (line,) = [line for line in file if line.startswith(field)]
    return int(line.split()[1]) / 1024


def percentile(in_order: Sequence[float], part: float) -> float:
    """Return what `part` of the values, shortest first, do not exceed."""
    return in_order[min(len(in_order) - 1, int(part * len(in_order)))]


def tail(latencies: Sequence[float]) -> float:
    """Return what 99 % of them do not exceed."""
    return percentile(sorted(latencies), 0.99)


def _milliseconds(seconds: Sequence[float]) -> list[float]:
    return [each * 1e3 for each in seconds]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the servers in turn, and print what came out."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.slow_consumers", description=__doc__)
    parser.add_argument("--subscribers", type=int, default=1000)
    parser.add_argument("--frozen", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each half of a round (default: 4)")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--policies", nargs="+", choices=_POLICIES, default=_POLICIES, metavar="POLICY")
    natives = [name for name in PEERS if name.startswith("native")]
    parser.add_argument("--servers", nargs="+", choices=natives, default=natives, metavar="SERVER")
    options = parser.parse_args(arguments)
    raise_file_limit(options.subscribers + 200)
    pin(LOAD_CORE)
    print(describe())
    print(
        f"one channel, {options.subscribers} subscribers, {len(CHANNEL_MESSAGE)} bytes published 20 times a second,"
        f" an echo every 20 ms; latencies in ms\n\n"
        + " ".join([f"{'server':15} {'policy':12} {'':12}", *(f"{title:>9}" for title in _TITLES), "  CPU  held up"]),
        flush=True,
    )
    for name in options.servers:
        for policy in options.policies:
            latencies(PEERS[name], options, policy)
    print(f"\nnobody of {options.subscribers} reads:", flush=True)
    for name in options.servers:
        for policy in options.policies:
            memory(PEERS[name], options, policy)


if __name__ == "__main__":
    main()
