"""Hostile clients against a server in a process of its own, beside an ordinary one that notices nothing.

Each attack is ended by the server, in the way that it says; meanwhile an ordinary client hears all its echoes in order,
and the server's memory stays within bounds that an attack which piles up anything would break.
"""

from __future__ import annotations

import json
import ssl
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import trustme

from .attacker import Attacker, get
from .attacks import ATTACKS, SMUGGLED, smuggle
from .ordinary import OrdinaryClient, Server, serving

#: More than any of the attacks costs the server, and less than what most of them send.
_MEMORY: Final = 48 * 2**20
_BACKENDS: Final = ("asyncio", "trio")

#: What becomes of the connections of each attack.
_ENDS: Final[dict[str, dict[str, int]]] = {
    "slow heads": {"408": 100},
    "slow bodies": {"408": 100},
    "slow frames": {"close 1008": 50},
    "slow TLS": {"ended": 100},
    "many headers": {"431": 50},
    "a giant header": {"431": 50},
    "an endless request line": {"431": 50},
    "10 GB bodies": {"413": 20},
    "chunks of a body without end": {"413": 20},
    "chunk extensions without end": {"400": 40},
    "trailers without end": {"400": 20},
    "gzip bodies": {"415": 20},
    "pipelining": {"1000 answers": 5},
    "connection churn": {},
    "fragments without end": {"close 1009": 3, "close 1008": 1},
    "compressed frames": {"close 1002": 20},
}


@pytest.fixture(params=_BACKENDS, scope="module")
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server"), "--backend", request.param) as running:
        yield running


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def attack(server: Server, name: str, tls: ssl.SSLContext | None = None) -> Counter[str]:
    """Make an attack beside an ordinary client; returns what became of its connections."""
    with OrdinaryClient(server.port, tls):
        server.forget_peak()
        before = server.memory
        outcome = ATTACKS[name].run(server.port, 1)
        assert server.peak_memory - before < _MEMORY, f"{server.peak_memory - before:,} bytes more"
    return outcome.ends


@pytest.mark.parametrize("name", [name for name in _ENDS if not ATTACKS[name].tls])
def test_an_attack(server: Server, name: str) -> None:
    assert attack(server, name) == _ENDS[name]


@pytest.mark.parametrize("backend", _BACKENDS)
def test_an_attack_on_tls(backend: str, authority: trustme.CA, trusting: ssl.SSLContext, tmp_path: Path) -> None:
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "tls.pem")
    with serving(tmp_path, "--backend", backend, "--tls", str(tmp_path / "tls.pem")) as server:
        assert attack(server, "slow TLS", trusting) == _ENDS["slow TLS"]


@pytest.mark.parametrize("shape", SMUGGLED)
def test_nothing_is_smuggled(server: Server, shape: str) -> None:
    """There is one answer, which refuses: whatever comes behind is not looked at."""
    assert smuggle(server.port, SMUGGLED[shape]) in ("400", "501")


@pytest.mark.parametrize("name", ["nobody reads", "pipelining, unread", "ping floods"])
def test_whoever_does_not_read_is_gone(server: Server, name: str) -> None:
    """How they are ended nobody can say, who does not read: some find the answers that came before."""
    ends = attack(server, name)
    assert ends["open"] == 0
    assert ends.total() > 3


# Descriptors


@pytest.mark.parametrize("backend", _BACKENDS)
@pytest.mark.parametrize(
    "options", [("--files", "256"), ("--files", "256", "--sockets", "100000")], ids=["cap", "EMFILE"]
)
def test_half_open_connections(backend: str, options: tuple[str, ...], tmp_path: Path) -> None:
    """They make room for each other, and for who comes to say something, by a count or where descriptors end."""
    with serving(tmp_path, "--backend", backend, "--patience", "60", *options) as server:
        attack(server, "half-open connections")
        with Attacker.on(server.port) as attacker:
            attacker.open_many(300)
            assert ask(server.port) == "200"


@pytest.mark.parametrize("backend", _BACKENDS)
@pytest.mark.parametrize(
    "options", [("--files", "256"), ("--files", "256", "--sockets", "100000")], ids=["cap", "EMFILE"]
)
def test_a_server_full_of_those_who_are_busy(backend: str, options: tuple[str, ...], tmp_path: Path) -> None:
    """Nobody who is served makes room: who comes then is told to come again."""
    with serving(tmp_path, "--backend", backend, "--patience", "60", *options) as server:
        with OrdinaryClient(server.port), Attacker.on(server.port) as attacker:
            refused = b""
            while not refused:
                sock = attacker.open()
                attacker.send(sock, get("/wait"))
                heard = attacker.hear(sock, b"ready")
                refused = b"" if b"ready" in heard else heard
                assert attacker.sockets < 300
            head, _, body = refused.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 503 ")
            assert b"\r\nretry-after: 5" in head.lower()
            assert json.loads(body)["error"]["code"] == "full"
            for _ in range(200):
                assert ask(server.port) == "503"
            attacker.drop_some(100)
            while ask(server.port) != "200":
                pass
        assert server.files < 256


def ask(port: int) -> str:
    """Make one request on a connection of its own."""
    with Attacker.on(port) as attacker:
        attacker.open_many(1, get("/", "Connection: close"))
        (end,) = attacker.wait().ends
        return end
