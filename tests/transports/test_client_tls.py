"""The clients over TLS: whom they trust, and what they show."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from rtcore import ConnectionFailed, LocalProtocolError
from rtcore_transports import SSEClient, WSClient, serve

from .servers import HASTY, nothing_left

pytestmark = pytest.mark.anyio

AUTHORITY = trustme.CA()
STRANGER = trustme.CA()
CLIENT = AUTHORITY.issue_cert("ann")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    AUTHORITY.cert_pem.write_to_path(folder / "ca.pem")
    STRANGER.cert_pem.write_to_path(folder / "stranger.pem")
    CLIENT.cert_chain_pems[0].write_to_path(folder / "client.pem")
    CLIENT.private_key_pem.write_to_path(folder / "client.key")
    CLIENT.private_key_and_cert_chain_pem.write_to_path(folder / "both.pem")
    (folder / "nonsense.pem").write_text("nonsense")
    key = serialization.load_pem_private_key(CLIENT.private_key_pem.bytes(), None)
    locked = serialization.BestAvailableEncryption(b"password")
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked)
    (folder / "locked.key").write_bytes(key.private_bytes(*form))
    return folder


@asynccontextmanager
async def served(*, certificate_wanted: bool = False) -> AsyncIterator[int]:
    """Run a server that may want to see a certificate; gives its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert("127.0.0.1").configure_cert(context)
    if certificate_wanted:
        AUTHORITY.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    async with anyio.create_task_group() as tasks:

        async def run(task_status: anyio.abc.TaskStatus[Any]) -> None:
            await serve(port=0, ssl_context=context, task_status=task_status)

        _, port = await tasks.start(run)
        async with nothing_left():
            yield port
        tasks.cancel_scope.cancel()


async def both(port: int, **options: Any) -> None:
    """Connect both clients, or raise what the first one raises that cannot."""
    async with WSClient(f"wss://127.0.0.1:{port}/realtime/ws", websocket=HASTY, **options) as client:
        await client.ping()
    async with SSEClient(f"https://127.0.0.1:{port}/realtime/events", channel="room", **options) as stream:
        assert stream.connected


async def test_whom_they_trust(files: Path) -> None:
    async with served() as port:
        await both(port, ca_file=files / "ca.pem")
        await both(port, ca_file=str(files / "ca.pem"))


@pytest.mark.parametrize("kind", [WSClient, SSEClient])
@pytest.mark.parametrize("name", ["stranger.pem", None])
async def test_whom_they_do_not_trust(files: Path, kind: Any, name: str | None) -> None:
    scheme, path = ("wss", "ws") if kind is WSClient else ("https", "events")
    async with served() as port:
        client = kind(
            f"{scheme}://127.0.0.1:{port}/realtime/{path}", ca_file=None if name is None else files / name, token="t"
        )
        with pytest.raises(ConnectionFailed, match=r"(?i)certificate"):
            await client.connect()
        with pytest.raises(ConnectionFailed, match=r"(?i)certificate"):
            await client.broadcast({})


@pytest.mark.parametrize("names", [("client.pem", "client.key"), ("both.pem", None)])
async def test_what_they_show(files: Path, names: tuple[str, str | None]) -> None:
    certificate, key = names
    async with served(certificate_wanted=True) as port:
        shown = (files / certificate, None if key is None else str(files / key))
        await both(port, ca_file=files / "ca.pem", client_certificate=shown)


@pytest.mark.parametrize("kind", [WSClient, SSEClient])
async def test_who_shows_nothing(files: Path, kind: Any) -> None:
    scheme, path = ("wss", "ws") if kind is WSClient else ("https", "events")
    async with served(certificate_wanted=True) as port:
        with pytest.raises(ConnectionFailed):
            await kind(f"{scheme}://127.0.0.1:{port}/realtime/{path}", ca_file=files / "ca.pem").connect()


@pytest.mark.parametrize("kind", [WSClient, SSEClient])
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ca_file": "missing.pem"}, "cannot read authorities from .*missing.pem"),
        ({"ca_file": "nonsense.pem"}, "cannot read authorities from .*nonsense.pem"),
        ({"client_certificate": ("missing.pem", None)}, "cannot read a certificate and its key from .*missing.pem"),
        ({"client_certificate": ("client.pem", None)}, "cannot read a certificate and its key from .*client.pem"),
        ({"client_certificate": ("client.pem", "ca.pem")}, "cannot read a certificate and its key"),
        ({"client_certificate": ("client.pem", "locked.key")}, "cannot read a certificate and its key"),
        ({"ca_file": "ca.pem", "ssl_context": ssl.create_default_context()}, "goes without"),
        ({"client_certificate": ("both.pem", None), "ssl_context": ssl.create_default_context()}, "goes without"),
    ],
)
def test_what_cannot_be_read(files: Path, kind: Any, options: dict[str, Any], said: str) -> None:
    found = {
        name: tuple(None if each is None else files / each for each in value)
        if isinstance(value, tuple)
        else (files / value if isinstance(value, str) else value)
        for name, value in options.items()
    }
    with pytest.raises(LocalProtocolError, match=said):
        kind("https://localhost/events", **found)
