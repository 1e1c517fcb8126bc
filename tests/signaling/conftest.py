"""What tests of this folder share: a TURN server, a server of ours, and loopback for aiortc."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator

import anyio
import pytest

from ..transports.servers import Server
from .coturn import Coturn, running_coturn


@pytest.fixture(scope="session")
def coturn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Coturn]:
    """Return a TURN server that knows nobody but by the secret that it shares with us."""
    with running_coturn(tmp_path_factory.mktemp("coturn")) as server:
        yield server


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio alone, where aiortc runs."""
    return "asyncio"


@pytest.fixture(autouse=True)
def _loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connect over loopback, which aioice leaves out."""
    monkeypatch.setattr("aioice.ice.get_host_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1"])


@pytest.fixture
async def server(anyio_backend: str) -> AsyncIterator[Server]:
    async with anyio.create_task_group() as tasks:
        server = Server(tasks)
        await server.start()
        yield server
        tasks.cancel_scope.cancel()


@pytest.fixture(autouse=True)
def _nothing_failed(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail if a fault was logged, by us or by asyncio for a task or a callback that nobody awaits."""
    yield
    faults = [record.getMessage() for record in caplog.get_records("call") if record.levelno >= logging.ERROR]
    assert faults == []
