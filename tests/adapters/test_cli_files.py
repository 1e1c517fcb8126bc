"""Files on the command line, run as people run it."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from ..programs import Program, running
from ..proxy import proxy_to

RTCORE = str(Path(sys.executable).with_name("rtcore"))
TIMEOUT = 30.0


class Server:
    """A server, in a process of its own, that keeps files in a folder."""

    def __init__(self, port: int, folder: Path) -> None:
        self.port = port
        self.base = f"http://127.0.0.1:{port}/realtime"
        self.url = ["--url", self.base]
        self.folder = folder

    def stats(self) -> dict[str, int]:
        """Return its counts."""
        counts: dict[str, int] = httpx2.get(f"{self.base}/stats", trust_env=False).json()
        return counts

    def wait_for(self, **counts: int) -> None:
        """Wait until it counts so many."""
        until = time.monotonic() + TIMEOUT
        while {name: self.stats()[name] for name in counts} != counts:
            assert time.monotonic() < until, self.stats()

    @property
    def kept(self) -> list[Path]:
        """What is in its folder."""
        return [path for path in self.folder.rglob("*") if path.is_file()]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    folder = tmp_path / "store"
    monkeypatch.setenv("BINARY_STORE_URL", folder.as_uri())
    monkeypatch.setenv("BINARY_MAX_FILE_SIZE", "10000000")
    monkeypatch.setenv("BINARY_ALLOWED_TYPES", "image/*,text/plain,application/*")
    with running(RTCORE, "serve", "--port", "0", errors=tmp_path / "serve-errors") as program:
        found = re.search(r":(\d+)/", program.read_line())
        assert found, program.complaints
        yield Server(int(found[1]), folder)


@contextmanager
def subscribed(tmp_path: Path, *arguments: str) -> Iterator[Program]:
    """Run ``rtcore sub``, and wait until it listens."""
    with running(RTCORE, "sub", *arguments, errors=tmp_path / "sub", errors_are_output=True) as program:
        assert program.read_line().startswith("listening to ")
        yield program


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([RTCORE, *arguments], capture_output=True, text=True, check=False)


def made(folder: Path, name: str, size: int) -> Path:
    path = folder / name
    path.write_bytes(random.Random(size).randbytes(size))
    return path


@pytest.mark.parametrize("size", [0, 300_000])
def test_what_is_sent_is_saved(server: Server, tmp_path: Path, size: int) -> None:
    path, folder = made(tmp_path, "größe.bin", size), tmp_path / "in" / "it"
    with subscribed(tmp_path, "news", "--count", "3", "--save", str(folder), *server.url) as sub:
        for _ in range(2):
            sent = run("send-file", "news", str(path), *server.url)
            assert (sent.returncode, sent.stderr) == (0, "")
            assert re.fullmatch(r"/realtime/binary/[0-9a-f]{32}\n", sent.stdout)
        run("pub", "news", "Hello", *server.url)
        lines = sorted(sub.read_line() for _ in range(3))
        assert sub.wait() == 0
    said = rf"\[news\] größe\.bin \(application/octet-stream, {size} bytes\) /realtime/binary/[0-9a-f]{{32}} -> "
    names = ["größe (1).bin", "größe.bin"]
    assert lines[0] == "[news] Hello"
    assert sorted(re.sub(said, "", line) for line in lines[1:]) == [str(folder / name) for name in names]
    assert sorted(each.name for each in folder.iterdir()) == names
    assert [(folder / name).read_bytes() for name in names] == [path.read_bytes()] * 2


def test_all_that_is_told_of_a_file(server: Server, tmp_path: Path) -> None:
    path = made(tmp_path, "cat.bin", 3)
    expected = {"filename": "b.txt", "content_type": "application/x-cat", "size": 3, "channel": "news"}
    saying = ["--name", "a/b.txt", "--type", "application/x-cat", "--json"]
    messages = []
    for saving in ([], ["--save", str(tmp_path / "in")]):
        with subscribed(tmp_path, "news", "--json", "--count", "1", *saving, *server.url) as sub:
            file = json.loads(run("send-file", "news", str(path), *saying, *server.url).stdout)
            assert {name: file[name] for name in expected} == expected
            message = json.loads(sub.read_line())
            assert sub.wait() == 0
        assert {name: message[name] for name in (*expected, "url")} == {**expected, "url": file["url"]}
        messages.append(message)
    printed, saved = messages
    assert b64decode(printed["binary_data"]) == Path(saved["saved_to"]).read_bytes() == path.read_bytes()
    assert "data" not in printed
    assert "binary_data" not in saved


def test_what_cannot_be_saved_is_said(server: Server, tmp_path: Path) -> None:
    path, folder = made(tmp_path, "cat.bin", 100_000), tmp_path / "in"
    with subscribed(tmp_path, "news", "--count", "2", "--save", str(folder), *server.url) as sub:
        folder.rmdir()
        run("send-file", "news", str(path), *server.url)
        assert re.fullmatch(r"\[news\] cat\.bin \(.*\) /\S+ is not saved: .*", sub.read_line())
        run("pub", "news", "Hello", *server.url)
        assert sub.read_line() == "[news] Hello"
        assert sub.wait() == 0


def test_progress_on_a_terminal(server: Server, tmp_path: Path) -> None:
    path = made(tmp_path, "cat.bin", 2_000_000)
    ours, terminal = os.openpty()
    try:
        command = [RTCORE, "send-file", "news", str(path), *server.url]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=terminal, text=True) as program:
            os.close(terminal)
            shown = b""
            try:
                while more := os.read(ours, 65536):
                    shown += more
            except OSError:
                # Nobody has it open any more.
                pass
            assert program.stdout is not None
            assert program.stdout.read().startswith("/realtime/binary/")
            assert program.wait() == 0
    finally:
        os.close(ours)
    assert b"cat.bin" in shown
    assert b"100%" in shown


def test_ctrl_c_keeps_nothing(server: Server, tmp_path: Path) -> None:
    path = made(tmp_path, "cat.bin", 4_000_000)
    with proxy_to(server.port) as proxy:
        proxy.pace(chunk=4096, delay=0.05)
        url = f"http://127.0.0.1:{proxy.port}/realtime"
        with running(RTCORE, "send-file", "news", str(path), "--url", url, errors=tmp_path / "send") as program:
            server.wait_for(uploads=1)
            program.process.send_signal(signal.SIGINT)
            proxy.pace()
            assert program.process.wait(TIMEOUT) == 130
            assert program.complaints == "rtcore: cancelled\n"
            assert program.read_line() == ""
    server.wait_for(uploads=0, files=0, published_messages=0)
    assert server.kept == []


def refused(*arguments: str) -> str:
    """Run a command that must fail with one line; return the line."""
    completed = run(*arguments)
    assert (completed.returncode, completed.stdout) == (1, "")
    [line] = completed.stderr.splitlines()
    assert line.startswith("rtcore: ")
    return line


def test_faults_are_one_line(server: Server, tmp_path: Path) -> None:
    path = made(tmp_path, "cat.bin", 10)
    assert "does not exist" in refused("send-file", "news", str(tmp_path / "nothing"), *server.url)
    assert "is a directory" in refused("send-file", "news", str(tmp_path), *server.url)
    assert "invalid_channel" in refused("send-file", "$user:1", str(path), *server.url)
    assert "type_not_allowed" in refused("send-file", "news", str(path), "--type", "video/mp4", *server.url)
    assert "file_too_large" in refused("send-file", "news", str(made(tmp_path, "large", 10_000_001)), *server.url)
    assert "127.0.0.1:9" in refused("send-file", "news", str(path), "--url", "http://127.0.0.1:9/realtime")
    assert "cat.bin" in refused("sub", "news", "--save", str(path), *server.url)
    assert server.stats()["files"] == 0
