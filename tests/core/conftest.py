"""The core has no clock, no entropy and no sockets: while its tests run, asking for them fails."""

from __future__ import annotations

import functools
import os
import random
import secrets
import socket
import sys
import time
import uuid
from collections.abc import Callable
from types import FrameType, ModuleType
from typing import TypeVar

import pytest

ReturnT = TypeVar("ReturnT")

FORBIDDEN: dict[ModuleType | type, list[str]] = {
    time: [
        *("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns"),
        *("process_time", "process_time_ns", "thread_time", "thread_time_ns", "clock_gettime"),
        *("clock_gettime_ns", "sleep", "localtime", "gmtime", "ctime", "asctime", "strftime"),
    ],
    random: [
        *("random", "uniform", "triangular", "randint", "choice", "randrange", "sample", "shuffle"),
        *("choices", "normalvariate", "lognormvariate", "expovariate", "vonmisesvariate", "gammavariate"),
        *("gauss", "betavariate", "paretovariate", "weibullvariate", "getrandbits", "randbytes", "seed"),
    ],
    random.SystemRandom: ["random", "getrandbits", "randbytes"],
    secrets: [
        *("token_bytes", "token_hex", "token_urlsafe", "randbits", "randbelow", "choice"),
    ],
    uuid: ["uuid1", "uuid4"],
    os: ["urandom", "getrandom", "getenv"],
    # Methods, not the class: it must stay a class, for isinstance() and for those who inherit from it.
    socket.socket: ["__init__"],
    socket: ["create_connection", "create_server", "getaddrinfo", "socketpair"],
}


def is_core(frame: FrameType) -> bool:
    name = frame.f_globals.get("__name__") or ""
    return name == "rtcore" or name.startswith("rtcore.")


def is_trusted(frame: FrameType) -> bool:
    # A test, or what runs it, may be on the stack above the core: a callback that draws from Hypothesis, the
    # hook with which Hypothesis times garbage collections, the signal handler of pytest-timeout.
    package = (frame.f_globals.get("__name__") or "").partition(".")[0]
    return package in {"tests", "hypothesis", "pytest", "_pytest", "pytest_timeout", "coverage"}


def asked_by_core(frame: FrameType | None) -> bool:
    """Tell whether the core is behind a call, be it through other libraries, rather than a test."""
    while frame is not None and not is_trusted(frame):
        if is_core(frame):
            return True
        frame = frame.f_back
    return False


def guarded(name: str, function: Callable[..., ReturnT]) -> Callable[..., ReturnT]:
    @functools.wraps(function)
    def guard(*args: object, **kwargs: object) -> ReturnT:
        if asked_by_core(sys._getframe(1)):
            # Not an Exception: no `except Exception` in the core can hide it.
            pytest.fail(f"the core called {name}")
        return function(*args, **kwargs)

    return guard


@pytest.fixture
def core_modules() -> list[ModuleType]:
    """Return the modules of the core that are imported."""
    return [found for name, found in sys.modules.items() if name == "rtcore" or name.startswith("rtcore.")]


@pytest.fixture(autouse=True)
def _pure_core(monkeypatch: pytest.MonkeyPatch, core_modules: list[ModuleType]) -> None:
    """Make the core fail when it asks for the time, for entropy or for a socket.

    What a module of the core has taken hold of already (``from time import monotonic``) is replaced there.
    """
    guards: dict[int, Callable[..., object]] = {}
    for owner, names in FORBIDDEN.items():
        for name in names:
            original = getattr(owner, name)
            guards[id(original)] = guarded(f"{owner.__name__}.{name}", original)
            monkeypatch.setattr(owner, name, guards[id(original)])
    for module in core_modules:
        for name, value in list(vars(module).items()):
            if id(value) in guards:
                monkeypatch.setattr(module, name, guards[id(value)])
