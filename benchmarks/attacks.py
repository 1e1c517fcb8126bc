"""What attacks cost, whom: ``python -m benchmarks.attacks``.

The attacks of ``tests/attacks``, one after the other, each on a fresh server. An ordinary client says something every
20 ms and times its echo, alone for some seconds and then beside the attack; both it and the attacker run on the other
processor than the server.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import ssl
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import attrs
import trustme

from tests.attacks.attacker import Outcome
from tests.attacks.attacks import ATTACKS
from tests.attacks.ordinary import OrdinaryClient, Server, serving

from .machine import LOAD_CORE, SERVER_CORE, describe, raise_file_limit

_ALONE = 3.0
_ECHO_INTERVAL = 0.02
_FILES = 20_000
_TITLES = ("connections", "sent MB", "seconds", "server CPU s", "memory MB", "p99 alone ms", "p99 beside", "max beside")


@attrs.frozen
class Result:
    """What one attack has cost.

    Attributes:
        outcome: The attacker, and what became of its connections.
        seconds: How long it took.
        memory: Bytes that the server grew by, at its largest.
        server_cpu: Seconds of processor time that the server took meanwhile.
        before: Seconds of each echo before the attack, shortest first.
        during: Likewise, during it.
    """

    outcome: Outcome
    seconds: float
    memory: int
    server_cpu: float
    before: list[float]
    during: list[float]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("attacks", nargs="*", metavar="ATTACK", help="which; default: all")
    parser.add_argument("--scale", type=int, default=5, help="how many times as hard as in the tests")
    parser.add_argument("--half-open", type=int, default=100_000, help="how many connections are begun and left so")
    parser.add_argument("--backend", default="asyncio", choices=["asyncio", "trio"])
    parser.add_argument("--patience", type=float, default=5.0, help="seconds of the server's for whatever is slow")
    options = parser.parse_args(arguments)
    raise_file_limit(_FILES)
    os.sched_setaffinity(0, {LOAD_CORE})
    print(f"{describe()}\n{options.backend}, scale {options.scale}\n")
    print(f"| attack | {' | '.join(_TITLES)} | ends |")
    print(f"| --- | {'---: | ' * len(_TITLES)}--- |")
    for name in options.attacks or ATTACKS:
        scale = max(1, options.half_open // 5000) if name == "half-open connections" else options.scale
        print(_row(name, _measure(name, scale, options.backend, options.patience)), flush=True)


def _measure(name: str, scale: int, backend: str, patience: float) -> Result:
    attack = ATTACKS[name]
    with tempfile.TemporaryDirectory() as folder:
        options = ["--backend", backend, "--patience", str(patience), "--core", str(SERVER_CORE)]
        trusting: ssl.SSLContext | None = None
        if attack.tls:
            authority = trustme.CA()
            authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(f"{folder}/tls.pem")
            options += ["--tls", f"{folder}/tls.pem"]
            trusting = ssl.create_default_context()
            authority.configure_trust(trusting)
        if attack.files is not None:
            options += ["--files", str(attack.files)]
        with serving(Path(folder), *options) as server:
            return _beside(name, scale, server, trusting)


def _beside(name: str, scale: int, server: Server, trusting: ssl.SSLContext | None) -> Result:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_attack, args=(name, server.port, scale, theirs))
    process.start()
    ours.recv()
    with OrdinaryClient(server.port, trusting, interval=_ECHO_INTERVAL) as client:
        time.sleep(_ALONE)
        alone = len(client.delays)
        server.forget_peak()
        memory, cpu, began_at = server.memory, server.cpu, time.monotonic()
        ours.send(None)
        outcome: Outcome = ours.recv()
        seconds = time.monotonic() - began_at
        # The echo under way belongs to it.
        heard = len(client.delays) + 1
        cpu = server.cpu - cpu
        peak = server.peak_memory
        process.join()
    return Result(
        outcome, seconds, peak - memory, cpu, sorted(client.delays[:alone]), sorted(client.delays[alone:heard])
    )


def _attack(name: str, port: int, scale: int, connection: Connection) -> None:
    """Say that it is ready, wait for the word, and attack."""
    connection.send(None)
    connection.recv()
    connection.send(ATTACKS[name].run(port, scale))


def _row(name: str, result: Result) -> str:
    outcome = result.outcome
    ends = ", ".join(f"{count} {end}" for end, count in outcome.ends.most_common(4))
    numbers = (
        f"{outcome.sockets:,}",
        f"{outcome.sent / 1e6:.2f}",
        f"{result.seconds:.1f}",
        f"{result.server_cpu:.1f}",
        f"{result.memory / 2**20:.1f}",
        f"{_percentile(result.before):.1f}",
        f"{_percentile(result.during):.1f}",
        f"{result.during[-1] * 1000:.1f}",
    )
    return f"| {name} | {' | '.join(numbers)} | {ends} |"


def _percentile(delays: list[float]) -> float:
    """Return the delay in milliseconds that 99 of 100 do not exceed."""
    return delays[min(len(delays) - 1, int(0.99 * len(delays)))] * 1000


if __name__ == "__main__":
    main()
