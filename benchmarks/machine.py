"""The machine that the benchmarks run on: its processors, its limits, and what it is."""

from __future__ import annotations

import os
import platform
import resource
from importlib.metadata import version

__all__ = ["LOAD_CORE", "SERVER_CORE", "describe", "pin", "raise_file_limit"]

#: Where servers run, and where the load does, so that they do not take each other's time.
SERVER_CORE, LOAD_CORE = 0, 1

_LIBRARIES = ("anyio", "trio", "websockets", "fastapi", "starlette", "uvicorn", "uvloop")


def pin(core: int) -> None:
    """Let this process run on one processor only.

    Raises:
        SystemExit: If there is no such processor.
    """
    try:
        os.sched_setaffinity(0, {core})
    except OSError:
        raise SystemExit("two processors are needed: one for the server, one for the load") from None


def raise_file_limit(files: int) -> None:
    """Make room for so many open files in this process and its children.

    Raises:
        SystemExit: If that is not allowed.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < files:
        if hard < files:
            raise SystemExit(f"{files} open files are needed, {hard} are allowed: raise `ulimit -Hn`")
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))


def describe() -> str:
    """Return a line about the machine, and one about the libraries."""
    with open("/proc/cpuinfo") as file:
        models = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    model = models[0] if models else platform.machine()
    libraries = ", ".join(f"{name} {version(name)}" for name in _LIBRARIES)
    return (
        f"{len(models)} x {model}, Linux {platform.release()}, Python {platform.python_version()}\n{libraries}\n"
        f"load average {os.getloadavg()[0]:.2f} before the start"
    )
