"""Fuzz for as long as you like, guided by the branches that inputs reach.

``python -m tests.fuzz.campaign --seconds 60`` takes a minute for each target. Each runs in a process of its own under
Atheris (``pip install atheris``), which the tests do without. The inputs that it finds are kept in a folder; those that
make a target fail belong into ``FOUND`` of ``test_targets.py``.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

__all__ = ["main"]


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--target", action="append", help="which, else all")
    parser.add_argument("--folder", type=Path, default=Path("fuzz-corpus"), help="where inputs are kept")
    parser.add_argument("--one", metavar="TARGET", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        _fuzz(arguments.one, arguments.folder, arguments.seconds)
        return
    from .targets import TARGETS

    failed = [
        name for name in arguments.target or TARGETS if not _run(name, arguments.folder.resolve(), arguments.seconds)
    ]
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


def _run(name: str, folder: Path, seconds: int) -> bool:
    """Fuzz one target; returns whether nothing was found, and says how much was tried."""
    command = [sys.executable, "-m", "tests.fuzz.campaign", "--one", name, "--folder", folder, "--seconds", seconds]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    runs = re.findall(r"^#(\d+)\s", done.stderr, re.MULTILINE)
    covered = re.findall(r"cov: (\d+)", done.stderr)
    print(
        f"{name}: {int(runs[-1]) if runs else 0:,} inputs in {seconds} s, "
        f"{covered[-1] if covered else 0} branches, {'nothing found' if not done.returncode else 'FAILED'}",
        flush=True,
    )
    if done.returncode:
        print(done.stdout[-4000:], done.stderr[-4000:], sep="\n", flush=True)
    return not done.returncode


def _fuzz(name: str, folder: Path, seconds: int) -> None:
    import atheris  # type: ignore[import-not-found, unused-ignore]

    with atheris.instrument_imports(include=["rtcore", "rtcore_transports", "rtcore_adapters"]):
        from .targets import SEEDS, TARGETS
    corpus = folder / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(SEEDS[name]):
        (corpus / f"seed-{number}").write_bytes(seed)
    options: list[Any] = [
        sys.argv[0],
        str(corpus),
        f"-max_total_time={seconds}",
        "-max_len=4096",
        "-timeout=10",
        f"-artifact_prefix={folder}/{name}-",
    ]
    atheris.Setup(options, TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
