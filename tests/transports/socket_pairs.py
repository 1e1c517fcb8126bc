"""Two connected sockets, the second of which is the peer's: no event loop has it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import anyio.to_thread

from .servers import TIMEOUT

__all__ = ["read", "socket_pair"]


@contextmanager
def socket_pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Return a socket that does not block, and that of its peer, which does."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as peer:
        peer.connect(listener.getsockname())
        peer.settimeout(TIMEOUT)
        sock, _ = listener.accept()
        sock.setblocking(False)
        with sock:
            yield sock, peer


async def read(peer: socket.socket, size: int) -> bytes:
    """Read so many bytes, or up to the end, without holding up the event loop."""

    def read_all() -> bytes:
        data = bytearray()
        while len(data) < size and (more := peer.recv(min(size - len(data), 65536))):
            data += more
        return bytes(data)

    return await anyio.to_thread.run_sync(read_all)
