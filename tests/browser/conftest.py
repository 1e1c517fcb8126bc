"""A headless Chromium, and servers for it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from .server import Server
from .tabs import Tabs

_ARGUMENTS = (
    # Chromium does not start with its sandbox as root, which a container's user mostly is.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # A camera that films a test card and a microphone that hears beeps, which nobody is asked for; and peers that reach
    # each other on a machine without a network.
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--allow-loopback-in-peer-connection",
    "--disable-features=WebRtcHideLocalIpsWithMdns",
)

# What is expected comes within milliseconds, or after one of the pages' back-offs: this is for busy machines.
expect.set_options(timeout=30_000)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """The browser; each test has profiles of its own in it.

    Not for the whole session: as long as it is there Playwright's event loop runs in this thread, beside which no test
    of another folder could run one of its own.
    """
    path = shutil.which("chromium")
    if path is None:
        pytest.fail("chromium is missing: 'make test' installs it, or your system's packages do", pytrace=False)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(_ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture
def tabs(chromium: Browser) -> Iterator[Tabs]:
    """Tabs, in which nothing may go wrong but what the test says."""
    opened = Tabs(chromium)
    yield opened
    opened.close()
    assert opened.complaints == []


@pytest.fixture(scope="session")
def _servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Server]]:
    servers: dict[str, Server] = {}

    def get(loop: str) -> Server:
        if loop not in servers:
            servers[loop] = Server(loop, tmp_path_factory.mktemp("server"))
        return servers[loop]

    yield get
    for running in servers.values():
        assert running.end() == 0
        assert running.complaints == ""


@pytest.fixture
def loop(request: pytest.FixtureRequest) -> str:
    """The event loop of the servers of a module, `LOOP`: what a page does is the same with both, so they take turns."""
    return str(request.module.LOOP)


@pytest.fixture
def server(loop: str, _servers: Callable[[str], Server]) -> Server:
    """A server for all tests that do it no harm; each uses channels of its own."""
    return _servers(loop)


@pytest.fixture
def start_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """A function that starts a server for one test: the loop, and settings by name."""
    servers: list[Server] = []

    def start(loop: str, **settings: str) -> Server:
        servers.append(Server(loop, tmp_path_factory.mktemp("server"), settings))
        return servers[-1]

    yield start
    for running in servers:
        assert running.end() == 0
        assert running.complaints == ""


@pytest.fixture
def channel(request: pytest.FixtureRequest) -> str:
    """A channel that no other test uses."""
    return str(request.node.name)
