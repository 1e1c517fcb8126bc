"""How fast files come and go: ``python -m benchmarks.files``.

One file at a time to and from each server, all of which keep it in a folder: by a form with ``POST``, and by ``GET``.
The peers are the endpoints for files that aiohttp (on asyncio) and Starlette (on uvicorn with uvloop) bring along.
rtcore does more on the way in: it makes the SHA-256, looks at the content, counts against the quota and publishes the
file to a channel.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median

import attrs

from .machine import LOAD_CORE, SERVER_CORE, describe, pin
from .peers import Peer, Running, started

_BOUNDARY = "an-ordinary-boundary"
_PIECE = 2**18
_TIMEOUT = 120.0
_LOOPS = ("asyncio", "uvloop", "trio")
_SETTINGS = '[binary]\nstore_url = "file://{}"\nmax_file_size = 1099511627776\nquota = 1099511627776\n'


@attrs.frozen
class Stage:
    """A server, and where its files come and go.

    Attributes:
        peer: The server.
        upload: The target of the form.
        download: Returns the target of a file of so many bytes, which is there then.
    """

    peer: Peer
    upload: str
    download: Callable[[int, int], str]


@attrs.frozen
class Transfer:
    """One file that came or went.

    Attributes:
        bytes: How large it was.
        seconds: Of wall time.
        server_cpu: Seconds of processor time of the server.
    """

    bytes: int
    seconds: float
    server_cpu: float

    @property
    def rate(self) -> float:
        """Bytes a second."""
        return self.bytes / self.seconds

    @property
    def cost(self) -> float:
        """Seconds of the server's processor time for a gigabyte."""
        return self.server_cpu / self.bytes * 1e9


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a table of each direction."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.files", description=__doc__)
    parser.add_argument("--megabytes", type=int, default=256, help="of one file (default: 256)")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--backends", nargs="*", default=_LOOPS, choices=_LOOPS)
    parser.add_argument("--one-core", action="store_true", help="keep each server, with its threads, on one processor")
    options = parser.parse_args(arguments)
    size = options.megabytes * 1_000_000
    core = SERVER_CORE if options.one_core else None
    pin(LOAD_CORE)
    print(describe())
    print(", ".join(f"{name} {version(name)}" for name in ("aiohttp", "python-multipart", "h11")))
    where = "one core" if options.one_core else "any core"
    print(f"files of {options.megabytes} MB, {options.rounds} rounds, servers on {where}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stages = _stages(folder, options.backends)
        for title, run in (("up", _upload), ("down", _download)):
            print(f"\n| {title} | MB a second | of aiohttp's | of Starlette's | server CPU s per GB |")
            print("| --- | ---: | ---: | ---: | ---: |", flush=True)
            done: dict[str, list[Transfer]] = {stage.peer.name: [] for stage in stages}
            for number in range(options.rounds):
                for stage in reversed(stages) if number % 2 else stages:
                    with started(stage.peer, core=core) as running:
                        # The first one warms it up.
                        run(stage, running, min(size, 20_000_000))
                        done[stage.peer.name].append(run(stage, running, size))
                    _tidy(folder)
            for name, transfers in done.items():
                rates = [each.rate for each in transfers]
                cells = [_spread([rate / 1e6 for rate in rates], "{:,.0f}")]
                for peer in ("aiohttp", "starlette"):
                    ratios = [rate / other.rate for rate, other in zip(rates, done[peer], strict=True)]
                    cells.append(_spread(ratios, "{:.2f}"))
                cells.append(_spread([each.cost for each in transfers], "{:.2f}"))
                print(f"| {name} | {' | '.join(cells)} |", flush=True)


def _stages(folder: Path, backends: Sequence[str]) -> list[Stage]:
    settings = folder / "rtcore.toml"
    store = folder / "store"
    settings.write_text(_SETTINGS.format(store))

    def theirs(port: int, size: int) -> str:
        with open(folder / "file", "wb") as file:
            for piece in _pieces(size):
                file.write(piece)
        return "/file"

    def ours(port: int, size: int) -> str:
        _, body = _post(port, "/realtime/binary/upload?channel=files", size)
        url: str = json.loads(body)["files"][0]["url"]
        return url

    stages = [
        Stage(
            Peer(f"rtcore-{backend}", ("-m", "benchmarks.peers.native_settings", backend, str(settings))),
            "/realtime/binary/upload?channel=files",
            ours,
        )
        for backend in backends
    ]
    for name in ("aiohttp", "starlette"):
        stages.append(Stage(Peer(name, ("-m", f"benchmarks.peers.{name}_files", str(folder))), "/upload", theirs))
    return stages


def _upload(stage: Stage, running: Running, size: int) -> Transfer:
    cpu = running.cpu_seconds()
    seconds, body = _post(running.port, stage.upload, size)
    answer = json.loads(body)
    kept = answer["files"][0] if "files" in answer else answer
    assert kept["size"] == size, f"{stage.peer.name}: {body!r}"
    return Transfer(size, seconds, running.cpu_seconds() - cpu)


def _download(stage: Stage, running: Running, size: int) -> Transfer:
    target = stage.download(running.port, size)
    cpu, began_at = running.cpu_seconds(), time.monotonic()
    received = 0
    with _connected(running.port) as sock:
        sock.sendall(f"GET {target} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head:
            head += sock.recv(65536)
        assert head.startswith(b"HTTP/1.1 200 "), head
        received = len(head.partition(b"\r\n\r\n")[2])
        buffer = bytearray(_PIECE)
        while received < size and (count := sock.recv_into(buffer)):
            received += count
    seconds = time.monotonic() - began_at
    assert received == size, f"{stage.peer.name}: {received} of {size} bytes"
    return Transfer(size, seconds, running.cpu_seconds() - cpu)


def _post(port: int, target: str, size: int) -> tuple[float, bytes]:
    """Send a form with a file of so many bytes; returns how long it took, and the body of the answer."""
    head = (
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="f.bin"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    ).encode()
    tail = f"\r\n--{_BOUNDARY}--\r\n".encode()
    began_at = time.monotonic()
    with _connected(port) as sock:
        request = (
            f"POST {target} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n"
            f"Content-Type: multipart/form-data; boundary={_BOUNDARY}\r\n"
            f"Content-Length: {len(head) + size + len(tail)}\r\n\r\n"
        )
        sock.sendall(request.encode() + head)
        for piece in _pieces(size):
            sock.sendall(piece)
        sock.sendall(tail)
        answer = b""
        while data := sock.recv(65536):
            answer += data
    seconds = time.monotonic() - began_at
    status, _, body = answer.partition(b"\r\n\r\n")
    assert status.startswith(b"HTTP/1.1 200 "), answer
    return seconds, body


def _pieces(size: int) -> Sequence[bytes]:
    """Return the content of a file: pseudo-random, so that nobody can skip it, and always the same."""
    whole, rest = divmod(size, _PIECE)
    return [_CONTENT] * whole + [_CONTENT[:rest]]


_CONTENT = b"".join(number.to_bytes(8, "big") for number in range(_PIECE // 8))


def _connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), _TIMEOUT)


def _tidy(folder: Path) -> None:
    """Remove what was uploaded, and let the disk have what is left to write: nobody is to pay for it later."""
    for path in sorted((folder / "store").rglob("*"), reverse=True) if (folder / "store").is_dir() else []:
        if path.is_file():
            path.unlink()
    for name in ("uploaded", "file"):
        (folder / name).unlink(missing_ok=True)
    os.sync()


def _spread(values: Sequence[float], shape: str) -> str:
    """Return the median, and the extremes."""
    return "{} ({}-{})".format(*map(shape.format, (median(values), min(values), max(values))))


if __name__ == "__main__":
    main()
