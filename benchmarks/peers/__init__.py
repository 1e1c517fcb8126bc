"""The servers that are measured, each a process of its own."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import attrs

__all__ = ["MEASURED", "PEERS", "Peer", "Running", "started"]

_START_TIMEOUT = 30.0
_TICKS = os.sysconf("SC_CLK_TCK")


@attrs.frozen
class Peer:
    """A server that can be measured.

    Attributes:
        name: What to call it.
        arguments: Of the program; the server prints its port once it listens.
        subscribe: The target of a WebSocket that hears all that is published.
        publish: The target of a WebSocket whose text messages are published.
        echo: The target of a WebSocket whose text messages come back.
        program: What runs it: this interpreter, unless it is not written in Python.
    """

    name: str
    arguments: tuple[str, ...]
    subscribe: str = "/subscribe"
    publish: str = "/publish"
    echo: str = "/echo"
    program: str = sys.executable


def _native(backend: str) -> Peer:
    arguments = ("-m", "benchmarks.peers.native", backend)
    return Peer(
        f"native-{backend}",
        arguments,
        subscribe="/realtime/ws?channel=bench",
        publish="/realtime/ws",
        echo="/realtime/ws",
    )


#: By name; the last two are other configurations of the two before, to see which is the better one.
PEERS = {
    peer.name: peer
    for peer in (
        _native("asyncio"),
        _native("trio"),
        Peer("websockets", ("-m", "benchmarks.peers.websockets_broadcast")),
        Peer("fastapi", ("-m", "benchmarks.peers.fastapi_loop", "websockets-sansio", "uvloop")),
        Peer("websockets-uvloop", ("-m", "benchmarks.peers.websockets_broadcast", "uvloop")),
        Peer("fastapi-asyncio", ("-m", "benchmarks.peers.fastapi_loop", "websockets-sansio", "asyncio")),
    )
}
#: Those that are run unless others are asked for, in the order of a round.
MEASURED = tuple(PEERS)[:4]


@attrs.frozen
class Running:
    """A process that is running: a server, or this one (``"self"``), which has no port."""

    pid: int | Literal["self"]
    port: int = 0

    def cpu_seconds(self) -> float:
        """Return the processor time that it has taken, in and out of the kernel; counted in ticks of 10 ms."""
        with open(f"/proc/{self.pid}/stat") as file:
            # The name of the command, in parentheses, may hold anything.
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def waited_seconds(self) -> float:
        """Return how long it has been ready to run while others had the processor."""
        with open(f"/proc/{self.pid}/schedstat") as file:
            return int(file.read().split()[1]) / 1e9


@contextmanager
def started(peer: Peer, *, core: int | None) -> Iterator[Running]:
    """Run a server in a process of its own, which ends with the context.

    Args:
        peer: Which one.
        core: The processor that it may use, or ``None`` for any.
    """
    ours = os.sched_getaffinity(0)
    if core is not None:
        # A child inherits it, so the server never runs elsewhere, not even while it starts.
        os.sched_setaffinity(0, {core})
    try:
        process = subprocess.Popen([peer.program, *peer.arguments], stdout=subprocess.PIPE)
    finally:
        os.sched_setaffinity(0, ours)
    try:
        assert process.stdout is not None, "it is piped"
        readable, _, _ = select.select([process.stdout], [], [], _START_TIMEOUT)
        line = process.stdout.readline() if readable else b""
        if not line.strip().isdigit():
            raise RuntimeError(f"{peer.name} did not start: what it says is on stderr")
        yield Running(process.pid, int(line))
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
