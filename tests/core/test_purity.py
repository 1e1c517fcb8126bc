"""The core asks for no clock, no entropy, no I/O, and the guard that says so works."""

from __future__ import annotations

import ast
import importlib.util
import random
import time
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

FOUND = importlib.util.find_spec("rtcore")
assert FOUND is not None
assert FOUND.submodule_search_locations is not None
SOURCES = sorted(Path(FOUND.submodule_search_locations[0]).rglob("*.py"))

# What gives a clock, entropy, I/O, an event loop, the environment or logging. `datetime` is among them for
# now(), and `importlib` because it hides an import from this test.
IMPURE = {
    *("anyio", "asyncio", "builtins", "concurrent", "ctypes", "datetime", "http.client", "importlib", "io"),
    *("locale", "logging", "multiprocessing", "os", "pathlib", "platform", "queue", "random", "secrets"),
    *("select", "selectors", "shutil", "signal", "socket", "ssl", "subprocess", "sys", "tempfile"),
    *("threading", "time", "trio", "urllib.request", "uuid", "warnings"),
}

# These make one from a name, or reach outside, without any import.
IMPURE_CALLS = {"__import__", "breakpoint", "eval", "exec", "id", "input", "open", "print"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_what_the_core_may_not_touch(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Import(names=names):
                modules = [alias.name for alias in names]
            case ast.ImportFrom(module=str(origin), names=names):
                modules = [origin, *(f"{origin}.{alias.name}" for alias in names)]
            case ast.Call(func=ast.Name(id=called)):
                assert called not in IMPURE_CALLS, f"line {node.lineno} calls {called}()"
                continue
            case _:
                continue
        for module in modules:
            assert not {module, module.partition(".")[0]} & IMPURE, f"line {node.lineno} imports {module}"


def module(source: str, name: str = "rtcore.fake") -> ModuleType:
    made = ModuleType(name)
    exec(source, vars(made))
    return made


CALLS = [
    ("import time", "time.monotonic()"),
    ("import time", "time.sleep(0)"),
    ("from time import monotonic", "monotonic()"),
    ("from time import perf_counter as clock", "clock()"),
    ("import random", "random.random()"),
    ("from random import shuffle", "shuffle([1, 2])"),
    ("from random import SystemRandom", "SystemRandom().random()"),
    ("import os", "os.urandom(4)"),
    ("from secrets import token_hex", "token_hex()"),
    ("from uuid import uuid4", "uuid4()"),
    ("import socket", "socket.socket().close()"),
    ("from socket import socket", "socket().close()"),
    ("from email.utils import make_msgid", "make_msgid()"),
]


@pytest.mark.parametrize(("line", "call"), CALLS)
def test_the_guard_catches_the_core_and_only_the_core(line: str, call: str) -> None:
    source = f"{line}\ndef ask():\n    try:\n        return {call}\n    except Exception:\n        pass\n"
    for name in ["rtcore", "rtcore.fake", "rtcore.fake.deeper"]:
        with pytest.raises(pytest.fail.Exception, match="the core called"):
            module(source, name).ask()
    module(source, "rtcore_transports.fake").ask()


EARLY = module("from time import monotonic as clock\ndef ask():\n    return clock()\n")


@pytest.fixture
def core_modules(core_modules: list[ModuleType]) -> list[ModuleType]:
    """Count a module that took hold of the clock before there was any guard."""
    return [*core_modules, EARLY]


def test_the_guard_finds_what_was_imported_before() -> None:
    with pytest.raises(pytest.fail.Exception, match=r"the core called time\.monotonic"):
        EARLY.ask()


def test_a_callback_of_the_test_may_ask() -> None:
    assert __name__.startswith("tests.")
    calls = module("def call(back):\n    return back()\n")
    assert calls.call(lambda: time.monotonic()) > 0


@given(st.data())
def test_a_callback_may_draw_from_hypothesis(data: st.DataObject) -> None:
    calls = module("def call(back):\n    return back()\n")
    assert calls.call(lambda: data.draw(st.integers(0, 9))) in range(10)
    assert 0 <= random.random() < 1
