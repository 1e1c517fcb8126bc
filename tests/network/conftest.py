"""Servers as processes, one for each event loop where no test harms it."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest

from ..browser.server import Server

#: Silence is noticed soon, and nothing but `short:…` forgets.
SETTINGS: Final = {
    "REALTIME_HISTORY_SIZE": "100000",
    "REALTIME_IDEMPOTENCY_SIZE": "1000",
    "REALTIME_NAMESPACES": json.dumps([{"pattern": "short:*", "history_size": 5}]),
    # Four of the largest may wait, which is less than can be recovered.
    "WEBSOCKET_MAX_MESSAGE_SIZE": "262144",
    "WEBSOCKET_HEARTBEAT_INTERVAL": "0.5",
    "WEBSOCKET_DISCONNECT_TIMEOUT": "1",
    "SSE_HEARTBEAT_INTERVAL": "0.5",
    "SSE_RETRY_TIMEOUT": "10",
}


def _end(server: Server) -> None:
    try:
        server.end(signal.SIGKILL)
    finally:
        # Faults of ours are logged at this level.
        assert "ERROR" not in server.complaints, server.complaints
        assert "Traceback" not in server.complaints, server.complaints


@pytest.fixture(scope="session")
def _servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Server]]:
    with ExitStack() as stack:
        started: dict[str, Server] = {}

        def get(loop: str) -> Server:
            if loop not in started:
                started[loop] = Server(loop, tmp_path_factory.mktemp("server"), SETTINGS)
                stack.callback(_end, started[loop])
            return started[loop]

        yield get


def port_of(server: Server) -> int:
    """Return where a server listens."""
    port = urlsplit(server.url).port
    assert port is not None
    return port


@pytest.fixture
def server(_servers: Callable[[str], Server], anyio_backend: str) -> Server:
    """Return a server under the event loop of the test, which others use too."""
    return _servers(anyio_backend)


@pytest.fixture
def own_server(anyio_backend: str, tmp_path: Path) -> Iterator[Server]:
    """Return a server that the test may kill."""
    server = Server(anyio_backend, tmp_path, SETTINGS)
    yield server
    _end(server)


@pytest.fixture(params=["websocket", "event-stream"])
def kind(request: pytest.FixtureRequest) -> Any:
    """Return how those who listen do so."""
    return request.param
