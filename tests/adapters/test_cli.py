"""The command, run as people run it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from ..programs import ROOT, Program, running

RTCORE = str(Path(sys.executable).with_name("rtcore"))
TIMEOUT = 10.0


@contextmanager
def served(tmp_path: Path, *options: str, loop: str = "asyncio") -> Iterator[tuple[Program, int]]:
    command = [RTCORE, "serve", "--port", "0", "--loop", loop, *options]
    with running(*command, errors=tmp_path / "serve-errors") as server:
        found = re.search(r":(\d+)/", server.read_line())
        assert found, server.complaints
        yield server, int(found[1])


def refused(*arguments: str, **environment: str) -> str:
    """Run a command that must fail with one line; return the line."""
    completed = subprocess.run(
        [RTCORE, *arguments], capture_output=True, text=True, cwd=ROOT, env={**os.environ, **environment}, check=False
    )
    assert (completed.returncode, completed.stdout) == (1, "")
    [line] = completed.stderr.splitlines()
    assert line.startswith("rtcore: ")
    return line


@pytest.mark.parametrize("loop", ["asyncio", "uvloop", "trio"])
@pytest.mark.parametrize("server", ["native", "hypercorn"])
def test_serve_until_sigterm(server: str, loop: str, tmp_path: Path) -> None:
    with served(tmp_path, "--server", server, loop=loop) as (program, port):
        base = f"127.0.0.1:{port}/realtime"
        assert httpx2.get(f"http://{base}/test").status_code == 200
        with connect(f"ws://{base}/ws", proxy=None) as websocket:
            assert json.loads(websocket.recv(TIMEOUT))["type"] == "connected"
            program.process.send_signal(signal.SIGTERM)
            farewell = json.loads(websocket.recv(TIMEOUT))
            assert (farewell["type"], farewell["code"], farewell["reconnect"]) == ("disconnect", 1012, True)
            with pytest.raises(ConnectionClosed) as closed:
                websocket.recv(TIMEOUT)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
        assert program.process.wait(TIMEOUT) == 0
        if server == "native":
            # Hypercorn cancels what is left of its connections, of which asyncio of Python 3.11 complains.
            assert program.complaints == ""


def test_ctrl_c_is_clean(tmp_path: Path) -> None:
    with served(tmp_path) as (program, _):
        program.process.send_signal(signal.SIGINT)
        assert program.process.wait(TIMEOUT) == 0
        assert program.complaints == ""


def test_an_application_beside(tmp_path: Path) -> None:
    with served(tmp_path, "--app", "examples.echo:app") as (_, port):
        with connect(f"ws://127.0.0.1:{port}/anywhere", proxy=None) as websocket:
            websocket.send(b"\x00\x01")
            assert websocket.recv(TIMEOUT) == b"\x00\x01"
        with connect(f"ws://127.0.0.1:{port}/realtime/ws", proxy=None) as websocket:
            assert json.loads(websocket.recv(TIMEOUT))["type"] == "connected"


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_sub_hears_pub(loop: str, tmp_path: Path) -> None:
    with served(tmp_path, loop=loop) as (_, port):
        url = ["--url", f"http://127.0.0.1:{port}/realtime"]
        command = [RTCORE, "sub", "news", "sport", "--count", "2", *url]
        with running(*command, errors=tmp_path / "sub", errors_are_output=True) as sub:
            assert sub.read_line() == "listening to news, sport"
            assert sorted(output_of("pub", "news", "Hello", *url)) == ["epoch", "id", "offset"]
            output_of("pub", "sport", '{"type": "goal", "by": "Ann"}', *url)
            assert [sub.read_line(), sub.read_line()] == ["[news] Hello", '[sport] {"type":"goal","by":"Ann"}']
            assert sub.wait() == 0
        assert output_of("stats", *url)["published_messages"] == 2


def test_sub_prints_json(tmp_path: Path) -> None:
    with served(tmp_path) as (_, port):
        url = ["--url", f"ws://127.0.0.1:{port}/realtime/ws"]
        with running(RTCORE, "sub", "news", "--json", "--count", "1", *url, errors=tmp_path / "sub") as sub:
            while httpx2.get(f"http://127.0.0.1:{port}/realtime/channels/news/presence").json()["count"] == 0:
                pass
            receipt = output_of("pub", "news", '{"text": "Hello"}', *url)
            message = json.loads(sub.read_line())
            assert (message["channel"], message["text"], message["meta"]["id"]) == ("news", "Hello", receipt["id"])
            assert sub.wait() == 0


def test_faults_are_one_line() -> None:
    nowhere = "http://127.0.0.1:9/realtime"
    assert "no answer from" in refused("stats", "--url", nowhere)
    assert "no answer from" in refused("pub", "news", "Hello", RTCORE_URL=nowhere)
    assert "127.0.0.1:9" in refused("sub", "news", "--url", nowhere)
    assert "REALTIME_ALLOW_ANONYMOUS=true" in refused("serve", "--host", "0.0.0.0")
    assert "WEBSOCKET_ENABLED is 'perhaps'" in refused("serve", WEBSOCKET_ENABLED="perhaps")
    assert "module:attribute" in refused("serve", "--app", "main")
    assert "no_such_module" in refused("serve", "--app", "no_such_module:app")
    assert "no ASGI application" in refused("serve", "--app", "examples.echo:nothing")
    assert "cannot serve on 192.0.2.1" in refused("serve", "--host", "192.0.2.1", REALTIME_ALLOW_ANONYMOUS="true")
    assert "No such option" in refused("stats", "--nothing")


def test_a_refused_publication_is_one_line(tmp_path: Path) -> None:
    with served(tmp_path) as (_, port):
        line = refused("pub", "$user:1", "Hello", "--url", f"http://127.0.0.1:{port}/realtime")
    assert line == "rtcore: invalid_channel: names that begin with '$' are the server's own: choose another"


def output_of(*arguments: str) -> dict[str, object]:
    printed = subprocess.run([RTCORE, *arguments], check=True, capture_output=True, text=True)
    answer: dict[str, object] = json.loads(printed.stdout)
    return answer


def test_a_loop_that_is_not_installed_is_one_line() -> None:
    program = "import sys; sys.modules['trio'] = None; from rtcore_adapters.cli import main; main()"
    command = [sys.executable, "-c", program, "serve", "--loop", "trio", "--port", "0"]
    completed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (completed.returncode, completed.stdout) == (1, "")
    assert completed.stderr == "rtcore: --loop trio needs trio: pip install 'rtcore[trio]'\n"
