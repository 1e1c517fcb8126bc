"""Files of gigabytes over connections that break: ``python -m tests.soak.campaign``, or ``make soak``.

It takes some minutes and twice the largest file on the disk, and ends with status 1 where something is not as it must
be: content, the server's memory, how long chat takes beside a file.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from math import ceil
from pathlib import Path

import click

from ..adapters.s3 import s3_server
from .soaks import Progress, chat_beside_a_file, clear, form, served, there_and_back

__all__ = ["main"]

_MAX_MEMORY = 150e6
_MAX_DELAY = 0.05
_CUTS = 10


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.campaign", description=__doc__)
    parser.add_argument("--megabytes", type=int, default=4096, help="of the file that comes and goes (default: 4096)")
    parser.add_argument("--beside", type=int, default=1024, help="megabytes of the file beside the chat")
    parser.add_argument("--objects", type=int, default=256, help="megabytes of the file in object storage")
    parser.add_argument("--loop", default="asyncio", choices=["asyncio", "trio"])
    parser.add_argument("--folder", type=Path, help="where there is room (default: the system's temporary folder)")
    options = parser.parse_args(arguments)
    faults: list[str] = []
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        _trip(folder, options.megabytes * 10**6, options.loop, faults)
        _form(folder, options.megabytes * 10**6, options.loop, faults)
        _chat(folder, options.beside * 10**6, options.loop, faults)
        _objects(folder, options.objects * 10**6, options.loop, faults)
    print("\n".join(["", *(f"FAILED: {fault}" for fault in faults)]) if faults else "\nall as it must be")
    sys.exit(bool(faults))


def _trip(folder: Path, size: int, loop: str, faults: list[str]) -> None:
    with served(folder, loop=loop) as server, _bar("up", size) as up, _bar("down", size) as down:
        trip = there_and_back(server, folder, size, cuts=_CUTS, up=up, down=down, loop=loop)
    clear(folder)
    print(
        f"{size / 1e6:,.0f} MB in chunks: up {trip.up:.0f} s ({size / trip.up / 1e6:.0f} MB/s, {trip.cuts[0]} cuts), "
        f"down {trip.down:.0f} s ({size / trip.down / 1e6:.0f} MB/s, {trip.cuts[1]} cuts), same SHA-256; "
        f"the server had {trip.peak_memory / 1e6:.0f} MB at most",
        flush=True,
    )
    if trip.peak_memory > _MAX_MEMORY:
        faults.append("the server has taken too much memory for a file in chunks")
    if trip.cuts != (_CUTS, _CUTS):
        faults.append(f"the connection was cut {trip.cuts} times")


def _form(folder: Path, size: int, loop: str, faults: list[str]) -> None:
    with served(folder, loop=loop) as server, _bar("form", size) as progress:
        peak = form(server, size, progress=progress)
    clear(folder)
    print(f"{size / 1e6:,.0f} MB by a form: same SHA-256; the server had {peak / 1e6:.0f} MB at most", flush=True)
    if peak > _MAX_MEMORY:
        faults.append("the server has taken too much memory for a form")


def _chat(folder: Path, size: int, loop: str, faults: list[str]) -> None:
    with served(folder, loop=loop) as server, _bar("chat beside", size) as progress:
        chat = chat_beside_a_file(server, folder, size, alone=1000, progress=progress, loop=loop)
    clear(folder)
    (alone, most_alone), (beside, most_beside) = (
        (each[ceil(len(each) * 0.99) - 1], each[-1]) for each in (chat.alone, chat.beside)
    )
    print(
        f"chat, p99 (most) of {len(chat.alone):,} messages alone {alone * 1e3:.1f} ms ({most_alone * 1e3:.1f}), of "
        f"{len(chat.beside):,} beside a file of {size / 1e6:,.0f} MB {beside * 1e3:.1f} ms ({most_beside * 1e3:.1f})",
        flush=True,
    )
    if beside - alone > _MAX_DELAY:
        faults.append("chat is held up by the file on its connection")


def _objects(folder: Path, size: int, loop: str, faults: list[str]) -> None:
    os.environ.update(AWS_ACCESS_KEY_ID="somebody", AWS_SECRET_ACCESS_KEY="something")
    with s3_server(folder) as s3:
        s3.make_bucket("soak")
        with (
            served(folder, loop=loop, store_url=s3.url("soak", "files")) as server,
            _bar("objects, up", size) as up,
            _bar("objects, down", size) as down,
        ):
            trip = there_and_back(server, folder, size, cuts=_CUTS, up=up, down=down, loop=loop)
        print(
            f"{size / 1e6:,.0f} MB in chunks to S3 (moto): up {trip.up:.0f} s, down {trip.down:.0f} s, "
            f"cuts {trip.cuts}, same SHA-256; the server had {trip.peak_memory / 1e6:.0f} MB at most",
            flush=True,
        )
        if s3.incomplete("soak"):
            faults.append("parts are left in the object storage")
    if trip.peak_memory > _MAX_MEMORY:
        faults.append("the server has taken too much memory for a file in object storage")


class _bar:
    """A progress bar, which goes back where the file does."""

    def __init__(self, label: str, size: int) -> None:
        self._bar = click.progressbar(length=size, label=f"{label:>13}", file=sys.stderr)

    def __enter__(self) -> Progress:
        self._bar.__enter__()
        return lambda carried, _: self._bar.update(carried - self._bar.pos)

    def __exit__(self, *error: object) -> None:
        self._bar.render_finish()


if __name__ == "__main__":
    main()
