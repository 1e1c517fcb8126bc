"""The server under attack, and an ordinary client that keeps talking to it meanwhile."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from ssl import SSLContext
from typing import Any

import attrs
from websockets.sync.client import ClientConnection, connect

from ..programs import Program, running

__all__ = ["OrdinaryClient", "Server", "serving"]

_TIMEOUT = 30.0


@attrs.frozen
class Server:
    """A server in a process of its own.

    Attributes:
        program: The process.
        port: Where it listens, on loopback.
    """

    program: Program
    port: int

    @property
    def memory(self) -> int:
        """Bytes of memory that it has."""
        return self._status("VmRSS")

    @property
    def peak_memory(self) -> int:
        """The most bytes that it has had, since `forget_peak` where the system allows that."""
        return self._status("VmHWM")

    def forget_peak(self) -> None:
        """Measure the peak from now on."""
        with suppress(OSError):
            Path(f"/proc/{self.program.process.pid}/clear_refs").write_text("5")

    @property
    def cpu(self) -> float:
        """Seconds of processor time that it has had."""
        fields = Path(f"/proc/{self.program.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def files(self) -> int:
        """How many file descriptors it has."""
        return len(list(Path(f"/proc/{self.program.process.pid}/fd").iterdir()))

    def _status(self, name: str) -> int:
        status = Path(f"/proc/{self.program.process.pid}/status").read_text()
        found = re.search(rf"^{name}:\s+(\d+) kB$", status, re.MULTILINE)
        assert found, f"there is no {name}"
        return int(found[1]) * 1024


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[Server]:
    """Run a server until the end of the block, when it must stop without complaint; see `tests.attacks.serve`."""
    command = [sys.executable, "-m", "tests.attacks.serve", *options]
    with running(*command, errors=folder / "errors") as program:
        line = program.read_line()
        assert line, program.complaints
        yield Server(program, int(line))
        status = program.stop()
        assert (status, program.complaints) == (0, "")


class OrdinaryClient:
    """Says something, waits for the echo, and says the next thing, in a thread of its own until the end of the block.

    Its own failure fails the block: no answer for long, an answer out of order, the end of its connection.

    Args:
        port: Of the server, on loopback.
        tls: Makes it WSS.
        interval: Seconds between one thing said and the next, if the echo has come by then.

    Attributes:
        delays: Seconds that each echo took.
    """

    def __init__(self, port: int, tls: SSLContext | None = None, *, interval: float = 0.0) -> None:
        self._interval = interval
        self.delays: list[float] = []
        self._open = ExitStack()
        self._stop = threading.Event()
        self._fault: BaseException | None = None
        self._websocket = _connect(port, tls)
        self._thread = threading.Thread(target=self._talk, daemon=True)

    def __enter__(self) -> OrdinaryClient:
        self._open.enter_context(self._websocket)
        assert json.loads(self._websocket.recv(_TIMEOUT))["type"] == "connected"
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # One more thing is said after the attack, and heard.
        so_far = len(self.delays)
        until = time.monotonic() + _TIMEOUT
        while len(self.delays) < so_far + 2 and self._fault is None and time.monotonic() < until:
            time.sleep(0.001)
        self._stop.set()
        self._thread.join(_TIMEOUT)
        self._open.close()
        if self._fault is not None:
            raise AssertionError(f"after {len(self.delays)} echoes: {self._fault!r}") from self._fault
        assert len(self.delays) >= so_far + 2, "it is not served any more"

    def _talk(self) -> None:
        number = 0
        try:
            while not self._stop.is_set():
                number += 1
                said_at = time.monotonic()
                self._websocket.send(json.dumps({"type": "text", "data": number}))
                heard = self._hear()
                self.delays.append(time.monotonic() - said_at)
                if self._interval:
                    time.sleep(max(0.0, said_at + self._interval - time.monotonic()))
                assert heard == number, f"{heard} was heard after {number} was said"
        except BaseException as error:
            self._fault = error

    def _hear(self) -> object:
        while True:
            message: dict[str, Any] = json.loads(self._websocket.recv(_TIMEOUT))
            if message["type"] == "text":
                return message["data"]
            assert message["type"] == "heartbeat", message


def _connect(port: int, tls: SSLContext | None) -> ClientConnection:
    scheme = "ws" if tls is None else "wss"
    return connect(
        f"{scheme}://127.0.0.1:{port}/realtime/ws", proxy=None, ssl=tls, ping_interval=None, open_timeout=_TIMEOUT
    )
