"""The native server, in the event loop of the test, and a connection, for what is tested without one."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator, Iterator

import anyio
import pytest

from .servers import Server
from .socket_pairs import socket_pair


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Return two connected sockets, as `socket_pair` does."""
    with socket_pair() as pair:
        yield pair


@pytest.fixture
async def idle_server(anyio_backend: str) -> AsyncIterator[Server]:
    """Return a server that is not started, for tests that have settings for it."""
    async with anyio.create_task_group() as tasks:
        yield Server(tasks)
        tasks.cancel_scope.cancel()


@pytest.fixture
async def server(idle_server: Server) -> Server:
    """Return a running server, on which anybody may come and say who they are."""
    await idle_server.start()
    return idle_server


class _Faults(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def faults() -> Iterator[list[logging.LogRecord]]:
    """Return what is logged as an error; a test that expects some clears it."""
    handler = _Faults()
    log = logging.getLogger("rtcore")
    log.addHandler(handler)
    yield handler.records
    log.removeHandler(handler)


@pytest.fixture(autouse=True)
def _nothing_failed(faults: list[logging.LogRecord]) -> Iterator[None]:
    yield
    assert [record.getMessage() for record in faults] == []
