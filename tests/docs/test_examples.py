"""The examples run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ..programs import ROOT, running
from .conftest import RTCORE


@pytest.mark.parametrize("loop", [[], ["--trio"]], ids=["asyncio", "trio"])
def test_chat(port: int, loop: list[str], tmp_path: Path) -> None:
    url = f"127.0.0.1:{port}/realtime"
    channel = f"chat-{'-'.join(loop)}"
    listen = [str(RTCORE), "sub", channel, "--url", f"http://{url}"]
    chat = [sys.executable, "-m", "examples.chat", "--url", f"ws://{url}/ws", "--channel", channel, *loop]
    with running(*listen, errors=tmp_path / "sub", errors_are_output=True) as sub:
        assert sub.read_line() == f"listening to {channel}"
        said = subprocess.run(chat, input="Hello\n", capture_output=True, text=True, check=True, cwd=ROOT)
        assert said.stdout == f"* you are in {channel} with 1 others\n"
        assert said.stderr == ""
        lines = [sub.read_line() for _ in range(3)]
    assert [line.partition("] ")[2].split()[-1] for line in (lines[0], lines[2])] == ["joins", "leaves"]
    assert lines[1] == f"[{channel}] Hello"
