"""A host for each kind, shared by the tests of a module, and a watch over what is logged."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import pytest

from rtcore_adapters import Settings
from rtcore_adapters.settings import RealtimeSettings, WebSocketSettings

from .hosting import HOSTS, Host, HostKind, errors_of_ours, run_host

if TYPE_CHECKING:
    from .s3 import S3

#: Small, so that tests of the limit are.
MAX_MESSAGE_SIZE = 2**16

_ROOMS: Final = itertools.count()


@pytest.fixture(scope="module", params=HOSTS, ids=str)
def running_host(request: pytest.FixtureRequest) -> Iterator[Host]:
    """Run a host of each kind, on which anybody may come and say who they are."""
    kind: HostKind = request.param
    settings = Settings(
        # Whoever is gone is gone at once: else users of tests before would still be there.
        realtime=RealtimeSettings(allow_anonymous=True, presence_grace=0.0),
        websocket=WebSocketSettings(max_message_size=MAX_MESSAGE_SIZE),
    )
    with run_host(kind, settings) as running:
        yield running


@pytest.fixture
def host(running_host: Host) -> Host:
    """Return a host to which nobody is connected."""
    running_host.wait_until_empty()
    return running_host


@pytest.fixture
def room() -> str:
    """Return the id of a room that no other test uses, and that needs escaping in a path."""
    return f"room/{next(_ROOMS)}"


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """Run a server of object storage, once for all who need one: it takes its time to start."""
    from .s3 import s3_server

    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let stores have credentials, and nobody's own settings a say."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "something")


@pytest.fixture
def error_log() -> Iterator[list[logging.LogRecord]]:
    """Return what is logged by us as an error; a test that expects some clears it."""
    with errors_of_ours() as records:
        yield records


@pytest.fixture(autouse=True)
def _nothing_failed(error_log: list[logging.LogRecord]) -> Iterator[None]:
    yield
    assert [record.getMessage() for record in error_log] == []
