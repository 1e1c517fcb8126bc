"""Every snippet of the README does what it says."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
from websockets.sync.client import connect

from ..programs import ROOT, running
from .conftest import RTCORE
from .snippets import Snippet, snippets

README = "README.md"


def snippet(heading: str, language: str, port: int = 0) -> list[Snippet]:
    return [each.on_port(port) for each in snippets(README) if (each.heading, each.language) == (heading, language)]


def test_no_snippet_is_left_out() -> None:
    assert [(each.heading, each.language) for each in snippets(README)] == [
        ("rtcore", "sh"),  # the two commands, of which one runs this and the other what it talks to
        ("rtcore", "python"),
        ("Install", "sh"),  # what `.ci/run` does with the wheel
        ("From the shell", "sh"),
        ("In your own application", "python"),
        ("In your own application", "python"),
        ("In a browser", "javascript"),
        ("Who may come in", "sh"),
        ("Who may come in", "python"),
        ("As a library", "python"),
    ]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_chat(port: int, backend: str, tmp_path: Path) -> None:
    [chat] = snippet("rtcore", "python", port)
    code = chat.code.replace("anyio.run(main)", f"anyio.run(main, backend={backend!r})", 1)
    assert backend in code
    with running(sys.executable, "-u", "-c", code, errors=tmp_path / "errors") as program:
        while "Hello, everybody!" not in (line := program.read_line()):
            assert line, program.complaints


def test_shell(port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [shell] = snippet("From the shell", "sh", port)
    sub, pub, history, stream, send, send_file, stats = [
        shlex.split(line, comments=True) for line in shell.code.replace("\\\n", " ").splitlines()
    ]
    monkeypatch.setenv("RTCORE_URL", f"http://127.0.0.1:{port}/realtime")
    for command in (sub, pub, history, send_file, stats):
        assert command[0] == "rtcore"
        command[0] = str(RTCORE)
    with (
        running(*sub, errors=tmp_path / "sub", errors_are_output=True) as subscriber,
        running(*stream, errors=tmp_path / "stream") as streaming,
    ):
        assert subscriber.read_line() == "listening to general"
        while '"connected"' not in (line := streaming.read_line()):
            assert streaming.process.poll() is None, line
        first = output_of(pub)
        past = subprocess.run(history, check=True, capture_output=True, text=True).stdout.splitlines()
        assert past[-1] == "[general] Hello from a shell"
        second = output_of([*send, "-s"])
        assert second["offset"] == first["offset"] + 1
        line = subscriber.read_line()
        if line.endswith("joins"):  # the stream, if it was the later of the two
            line = subscriber.read_line()
        assert [line, subscriber.read_line()] == ["[general] Hello from a shell", "[general] Hello from curl"]
        said = []
        while len(said) < 2:
            if (line := streaming.read_line()).startswith("data:") and "Hello" in line:
                said.append(json.loads(line.removeprefix("data:")))
        assert [message["meta"]["offset"] for message in said] == [first["offset"], second["offset"]]
        assert "/binary/" in subprocess.run(send_file, check=True, capture_output=True, text=True, cwd=ROOT).stdout
        assert subscriber.read_line().startswith("[general] README.md")
        assert output_of(stats)["active_channels"] == 1


def output_of(command: list[str]) -> dict[str, int]:
    printed = subprocess.run(command, check=True, capture_output=True, text=True)
    answer: dict[str, int] = json.loads(printed.stdout)
    return answer


def test_mounted_application(serve_application: Callable[[str], int]) -> None:
    mounted, _ = snippet("In your own application", "python")
    port = serve_application(mounted.code)
    with connect(f"ws://127.0.0.1:{port}/live/ws?channel=order:7", proxy=None) as websocket:
        assert json.loads(websocket.recv(10))["type"] == "connected"
        httpx2.post(f"http://127.0.0.1:{port}/orders/7/shipped").raise_for_status()
        heard = json.loads(websocket.recv(10))
    assert (heard["type"], heard["status"], heard["meta"]["offset"]) == ("channel_message", "shipped", 1)


def test_endpoint_of_ones_own(serve_application: Callable[[str], int]) -> None:
    _, own = snippet("In your own application", "python")
    port = serve_application(own.code)
    with (
        connect(f"ws://127.0.0.1:{port}/ws/ann", proxy=None) as ann,
        connect(f"ws://127.0.0.1:{port}/ws/bob", proxy=None) as bob,
    ):
        assert json.loads(ann.recv(10))["user_id"] == "ann"
        assert json.loads(bob.recv(10))["user_id"] == "bob"
        ann.send("Hello")
        for heard in (json.loads(ann.recv(10)), json.loads(bob.recv(10))):
            assert (heard["from"], heard["text"]) == ("ann", "Hello")


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_tokens(backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [shell] = snippet("Who may come in", "sh")
    monkeypatch.setenv("PATH", f"{RTCORE.parent}{os.pathsep}{os.environ['PATH']}")
    exports, _, serve = shell.code.strip().rpartition("\n")
    serve = f'echo "$WS_JWT_SECRET_KEY"\nexec {serve} --port 0'
    with running("sh", "-c", f"{exports}\n{serve}", errors=tmp_path / "server") as server:
        monkeypatch.setenv("WS_JWT_SECRET_KEY", server.read_line())
        found = re.search(r":(\d+)/", server.read_line())
        assert found, server.complaints
        assert httpx2.get(f"http://127.0.0.1:{found[1]}/realtime/events").status_code == 401
        [client] = snippet("Who may come in", "python", int(found[1]))
        code = client.code.replace("anyio.run(main)", f"anyio.run(main, backend={backend!r})")
        assert backend in code
        with running(sys.executable, "-u", "-c", code, errors=tmp_path / "client") as program:
            while (line := program.read_line()) != "ann It is me.":
                assert line, program.complaints
        assert server.stop() == 0
        assert server.complaints == ""


def test_library() -> None:
    [library] = snippet("As a library", "python")
    exec(compile(library.code, README, "exec"), {})


def test_links_lead_somewhere() -> None:
    root = Path(__file__).parents[2]
    for document in [root / README, *sorted((root / "docs").glob("*.md"))]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"
