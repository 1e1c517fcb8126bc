"""A real TURN server for a test: coturn, on a free port of loopback."""

from __future__ import annotations

import os
import shutil
import socket
import struct
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import attrs
import pytest

from ..programs import Program, running

__all__ = ["Coturn", "running_coturn"]

_HOST: Final = "127.0.0.1"
_ATTEMPTS: Final = 5

# RFC 8489, section 5: the magic cookie; RFC 8656, section 17: Allocate, a request.
_COOKIE: Final = 0x2112A442
_ALLOCATE: Final = 0x0003
# One that is lost, or came before the server listened, is sent again after so many seconds.
_RESEND_INTERVAL: Final = 0.05


@attrs.frozen
class Coturn:
    """A TURN server that runs.

    Attributes:
        program: Its process.
        port: Where it listens, on 127.0.0.1, by UDP and TCP. Its relayed addresses are of 127.0.0.1 too.
        secret: What it shares with whoever issues credentials.
        log: The file that it writes what it does to.
    """

    program: Program
    port: int
    secret: str
    log: Path

    @property
    def url(self) -> str:
        """Its URL, for ``WEBRTC_TURN_SERVERS``."""
        return f"turn:{_HOST}:{self.port}?transport=udp"


@contextmanager
def running_coturn(folder: Path, *, secret: str = "north") -> Iterator[Coturn]:
    """Start coturn and wait until it answers; it ends with the block.

    Args:
        folder: An empty folder, for what it writes.
        secret: What it shares with whoever issues credentials.
    """
    path = shutil.which("turnserver")
    if path is None:
        pytest.fail("coturn is missing: 'make test' installs it, or your system's packages do", pytrace=False)
    for _ in range(_ATTEMPTS):
        port = _free_port()
        # Somebody else may take the port before it does. By its realm we know that it is the one that answers.
        realm = uuid.uuid4().hex
        log = folder / f"{realm}.log"
        with ExitStack() as stack:
            program = stack.enter_context(
                running(
                    path,
                    "-n",
                    "--use-auth-secret",
                    f"--static-auth-secret={secret}",
                    f"--realm={realm}",
                    f"--listening-ip={_HOST}",
                    f"--listening-port={port}",
                    f"--relay-ip={_HOST}",
                    "--allow-loopback-peers",
                    "--no-tls",
                    "--no-dtls",
                    "--no-cli",
                    "--verbose",
                    "--no-stdout-log",
                    "--simple-log",
                    f"--log-file={log}",
                    f"--pidfile={folder / 'pid'}",
                    f"--userdb={folder / 'users'}",
                    errors=folder / "errors.txt",
                )
            )
            if _answers(program, port, realm):
                yield Coturn(program, port, secret, log)
                return
    pytest.fail(f"coturn does not start: {log.read_text(errors='replace') if log.exists() else program.complaints}")


def _free_port() -> int:
    """Return a port that is free for both UDP and TCP."""
    while True:
        with socket.socket(type=socket.SOCK_DGRAM) as datagrams, socket.socket() as stream:
            datagrams.bind((_HOST, 0))
            port: int = datagrams.getsockname()[1]
            try:
                stream.bind((_HOST, port))
            except OSError:
                continue
            return port


def _answers(program: Program, port: int, realm: str) -> bool:
    """Wait until the server refuses an allocation, as it must without credentials; false if it is not that server."""
    request = struct.pack("!HHI12s", _ALLOCATE, 0, _COOKIE, os.urandom(12))
    with socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        datagrams.settimeout(_RESEND_INTERVAL)
        while program.process.poll() is None:
            try:
                datagrams.sendto(request, (_HOST, port))
                answer = datagrams.recv(2048)
            except (TimeoutError, ConnectionRefusedError):
                continue
            return realm.encode() in answer
    return False
