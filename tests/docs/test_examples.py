"""The examples run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import httpx2
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


@pytest.mark.parametrize("loop", [[], ["--trio"]], ids=["asyncio", "trio"])
def test_authenticated_chat(loop: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Six seconds, in the middle of which a client renews its token.
    for name, value in (
        ("WS_JWT_SECRET_KEY", "a-secret-of-the-example-that-is-long-enough"),
        ("WS_JWT_EXPIRE_MINUTES", "0.1"),
        ("WEBSOCKET_AUTH_REQUIRED", "true"),
        ("SSE_AUTH_REQUIRED", "true"),
        ("WS_API_KEYS", "a-key-of-the-example"),
    ):
        monkeypatch.setenv(name, value)
    serve = [str(RTCORE), "serve", "--port", "0", "--app", "examples.authenticated_chat:app"]
    with running(*serve, errors=tmp_path / "server") as server:
        found = re.search(r"http://127\.0\.0\.1:\d+(?=/)", server.read_line())
        assert found, server.complaints
        assert "try it" in server.read_line()
        chat = [sys.executable, "-m", "examples.authenticated_chat", "--url", found[0], *loop]
        refused = subprocess.run([*chat, "ann", "wrong"], capture_output=True, text=True, cwd=ROOT)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "ConnectionFailed" in refused.stderr
        with subprocess.Popen(
            [*chat, "ann", "wonderland"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        ) as ann:
            assert ann.stdin is not None
            assert ann.stdout is not None
            # Of these the third is after the first token has ended, on the same connection.
            for _ in range(3):
                assert server.read_line() == "a token for ann"
            key = {"X-API-Key": "a-key-of-the-example"}
            assert httpx2.get(f"{found[0]}/realtime/stats", headers=key).json()["accepted_connections"] == 1
            ann.stdin.write("Hello\n")
            ann.stdin.flush()
            assert ann.stdout.readline() == "Ann: Hello\n"
            ann.stdin.close()
            assert ann.wait(20) == 0
        assert server.stop() == 0
        assert server.complaints == ""
