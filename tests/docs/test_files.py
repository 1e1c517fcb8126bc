"""Every snippet of the document of files does what it says."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

from rtcore_adapters.settings import load_settings

from ..programs import ROOT, Program, running
from .conftest import RTCORE
from .snippets import Snippet, snippets

DOCUMENT = "docs/files.md"


def snippet(heading: str, language: str, port: int = 0) -> list[Snippet]:
    return [each.on_port(port) for each in snippets(DOCUMENT) if (each.heading, each.language) == (heading, language)]


def test_no_snippet_is_left_out() -> None:
    assert [(each.heading, each.language) for each in snippets(DOCUMENT)] == [
        ("Sending", "python"),
        ("Sending", "sh"),
        ("Sending", "javascript"),  # in a browser by tests/browser, as the test page
        ("Receiving", "python"),
        ("Where they are", "toml"),
        ("Where they are", "toml"),
    ]


def python(heading: str, backend: str, port: int) -> str:
    [found] = snippet(heading, "python", port)
    code = found.code.replace("anyio.run(main)", f"anyio.run(main, backend={backend!r})")
    assert backend in code
    return code


def until(program: Program, is_there: Callable[[str], bool]) -> str:
    while not is_there(line := program.read_line()):
        assert line, program.complaints
    return line


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_python(backend: str, port: int, tmp_path: Path) -> None:
    # It goes on receiving in a folder of its own: what it saves has the names of what is sent.
    code = f"import os\nos.chdir({str(tmp_path)!r})\n{python('Receiving', backend, port)}"
    with running(sys.executable, "-u", "-c", code, errors=tmp_path / "receiving") as receiving:
        _wait_for_subscriber(port)
        with running(sys.executable, "-u", "-c", python("Sending", backend, port), errors=tmp_path / "sent") as sending:
            lines = []
            while line := sending.read_line():
                lines.append(line)
            assert sending.wait() == 0, sending.complaints
        readme = (ROOT / "README.md").read_bytes()
        assert lines[-2] == f"{len(readme)} of {len(readme)} bytes"
        assert until(receiving, lambda line: line.startswith("hello.txt is in")) == "hello.txt is in hello.txt"
        assert until(receiving, lambda line: "5" in line) == "text/plain 5"
        assert until(receiving, lambda line: line.startswith("README.md is in")) == "README.md is in README.md"
        assert until(receiving, lambda line: str(len(readme)) in line).startswith("text/")
    assert (tmp_path / "hello.txt").read_bytes() == b"Hello"
    assert (tmp_path / "README.md").read_bytes() == readme


def _wait_for_subscriber(port: int) -> None:
    stopped = threading.Event()
    for _ in range(1000):
        channels = httpx2.get(f"http://127.0.0.1:{port}/realtime/channels").json()["channels"]
        if any(each["channel"] == "general" and each["subscribers"] for each in channels):
            return
        stopped.wait(0.02)
    raise AssertionError("nobody joins")


def test_shell(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    [shell] = snippet("Sending", "sh", port)
    send, *posts = [shlex.split(line) for line in shell.code.splitlines()]
    monkeypatch.setenv("RTCORE_URL", f"http://127.0.0.1:{port}/realtime")
    assert send.pop(0) == "rtcore"
    printed = subprocess.run([str(RTCORE), *send], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "/realtime/binary/" in printed.stdout
    answers = [
        json.loads(subprocess.run([*post, "-sS"], cwd=ROOT, capture_output=True, check=True).stdout) for post in posts
    ]
    assert [file["filename"] for file in answers[0]["files"]] == ["README.md", "LICENSE"]
    assert (answers[1]["filename"], answers[1]["content_type"]) == ("license.txt", "text/plain")
    assert answers[1]["sha256"] == answers[0]["files"][1]["sha256"]
    assert answers[2]["size"] == len("Hello")


def test_settings(tmp_path: Path) -> None:
    for number, each in enumerate(snippet("Where they are", "toml")):
        path = tmp_path / f"{number}.toml"
        path.write_text(each.code)
        assert load_settings(config=path, env={}, cwd=tmp_path).binary.store_url is not None
