"""A server as a process, which a test may kill and start again on the same port."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

__all__ = ["Server"]

_PROGRAM = Path(__file__).with_name("serve.py")
_STOP_TIMEOUT = 20.0
_OURS = ("BINARY_", "REALTIME_", "WEBSOCKET_", "SSE_", "WEBRTC_", "WS_")
# Anybody may call himself what he likes, and a browser does not wait for three seconds before it connects again.
_SETTINGS = {"REALTIME_ALLOW_ANONYMOUS": "true", "SSE_RETRY_TIMEOUT": "200"}


class Server:
    """The native server, running.

    Args:
        loop: ``"asyncio"`` or ``"trio"``.
        folder: An empty folder, for its settings and what it writes.
        settings: Environment variables beside or in place of those that all tests have.

    Attributes:
        url: Where the realtime system is, without a slash at the end.
        files: The folder in which it keeps files.
    """

    def __init__(self, loop: str, folder: Path, settings: dict[str, str] | None = None) -> None:
        self._loop = loop
        self._folder = folder
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
        self.files = folder / "files"
        own = {**_SETTINGS, "BINARY_STORE_URL": self.files.as_uri()}
        self._environment = {**inherited, **own, **(settings or {})}
        self.url = "http://127.0.0.1:0"
        self._start()

    @property
    def origin(self) -> str:
        """The scheme, host and port of its URL."""
        return f"http://{urlsplit(self.url).netloc}"

    @property
    def complaints(self) -> str:
        """What it has written to its standard error, in all its lives."""
        return self._errors.read_text()

    @property
    def _errors(self) -> Path:
        return self._folder / "errors.txt"

    def _start(self) -> None:
        port = urlsplit(self.url).port
        with self._errors.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, str(_PROGRAM), self._loop, str(port), str(self._folder)],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        assert self._process.stdout is not None, "it is a pipe"
        with self._process.stdout as output:
            self.url = output.readline().strip()
        if not self.url:
            self._process.wait()
            raise AssertionError(f"the server did not start: {self.complaints}")

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """End it with a signal, and return its exit status.

        Raises:
            subprocess.TimeoutExpired: It did not end, and has been killed now.
        """
        self._process.send_signal(how)
        try:
            return self._process.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise

    def restart(self) -> None:
        """Start it again, after `end`, on the port that it had."""
        self._start()
