"""What all attacks are made with: bare sockets, what they cost, and what became of them."""

from __future__ import annotations

import re
import select
import selectors
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import attrs

from ..adapters.clients import get, masked_frame, raw_upgrade

__all__ = ["Attacker", "Outcome", "get", "masked_frame", "outcome_of", "raw_upgrade"]

_TIMEOUT = 30.0
# Seconds between two bytes of one that is slow: it does not matter how many, so long as they are few.
_PACE = 0.02
_READ = 65536
# As the kernel says it in /proc/net/tcp.
_ESTABLISHED = 1


@attrs.frozen
class Outcome:
    """What an attack has cost, and what it has come to.

    Attributes:
        sockets: How many connections were opened.
        sent: How many bytes were sent.
        ends: What became of the connections: an HTTP status, ``close CODE`` of a WebSocket, ``ended`` without a word,
            ``open`` where the attacker had to end it.
    """

    sockets: int
    sent: int
    ends: Counter[str]


class Attacker:
    """Opens sockets and counts; all are closed at the end of the block.

    Args:
        port: Of the server, on loopback.
    """

    def __init__(self, port: int) -> None:
        self.sockets = 0
        self.sent = 0
        self.ends: Counter[str] = Counter()
        self._address = ("127.0.0.1", port)
        self._open: dict[socket.socket, bytearray] = {}

    @classmethod
    @contextmanager
    def on(cls, port: int) -> Iterator[Attacker]:
        """Attack a server until the end of the block."""
        self = cls(port)
        try:
            yield self
        finally:
            for sock in list(self._open):
                self.drop(sock)

    @property
    def outcome(self) -> Outcome:
        """What it has cost so far, and come to; what is open still is open."""
        ends = Counter(self.ends)
        if self._open:
            ends["open"] += len(self._open)
        return Outcome(self.sockets, self.sent, ends)

    def open(self, *, receive_buffer: int | None = None) -> socket.socket:
        """Open one connection."""
        sock = socket.socket()
        sock.settimeout(_TIMEOUT)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            sock.connect(self._address)
        except BaseException:
            sock.close()
            raise
        sock.setblocking(False)
        self.sockets += 1
        self._open[sock] = bytearray()
        return sock

    def open_many(self, count: int, first: bytes = b"") -> list[socket.socket]:
        """Open so many, and say the same on each."""
        sockets = [self.open() for _ in range(count)]
        for sock in sockets:
            self.send(sock, first)
        return sockets

    def open_websocket(self, path: str, *, receive_buffer: int | None = None) -> socket.socket:
        """Open one, and wait until it is a WebSocket; what comes behind the handshake stays unread, or is dropped."""
        return self._open_head(raw_upgrade(path), b"HTTP/1.1 101 ", receive_buffer)

    def open_response(self, path: str, *, receive_buffer: int | None = None) -> socket.socket:
        """Open one, and ask for something, until the head of the response is there; its body stays unread."""
        return self._open_head(get(path), b"HTTP/1.1 200 ", receive_buffer)

    def _open_head(self, request: bytes, start: bytes, receive_buffer: int | None) -> socket.socket:
        sock = self.open(receive_buffer=receive_buffer)
        self.send(sock, request)
        head = self._open[sock]
        sock.settimeout(_TIMEOUT)
        while not head.endswith(b"\r\n\r\n"):
            # Byte by byte: the first frames stay where they are.
            byte = sock.recv(1)
            assert byte, bytes(head)
            head += byte
        assert head.startswith(start), bytes(head)
        sock.setblocking(False)
        return sock

    def send(self, sock: socket.socket, data: bytes) -> bool:
        """Send what the network takes; returns whether it took all, which it does not of one that is ended either."""
        sent = 0
        with suppress(BlockingIOError, ConnectionError):
            while sent < len(data):
                sent += sock.send(data[sent:])
        self.sent += sent
        return sent == len(data)

    def push(self, sock: socket.socket, pieces: Iterable[bytes], *, reads: bool = True) -> None:
        """Send all pieces as fast as the server takes them, or until it ends the connection.

        Args:
            sock: On which.
            pieces: May be without end.
            reads: Whether what the server says is read meanwhile, which shows its end; otherwise it is pushed until
                nothing is taken for half a second, or until a reset.
        """
        readers = [sock] if reads else []
        with suppress(ConnectionError):
            for piece in pieces:
                view = memoryview(piece)
                while view:
                    if reads and self._read_some(sock):
                        return
                    try:
                        taken = sock.send(view)
                    except BlockingIOError:
                        if select.select(readers, [sock], [], _TIMEOUT if reads else 0.5) == ([], [], []):
                            return
                    else:
                        self.sent += taken
                        view = view[taken:]

    def drop(self, sock: socket.socket, *, reset: bool = False) -> None:
        """Close it."""
        if reset:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        if self._open.pop(sock, None) is not None:
            sock.close()

    def wait(self, *, say: Callable[[], bytes] = bytes, timeout: float = _TIMEOUT) -> Outcome:
        """Wait until the server has ended every connection, reading what it says.

        Args:
            say: What each says again and again meanwhile.
            timeout: Seconds after which those that are left count as open.
        """
        until = time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            for sock in self._open:
                selector.register(sock, selectors.EVENT_READ)
            while self._open and time.monotonic() < until:
                ready = selector.select(_PACE)
                for key, _ in ready:
                    sock = key.fileobj
                    assert isinstance(sock, socket.socket)
                    selector.unregister(sock)
                    if not self._read_some(sock):
                        selector.register(sock, selectors.EVENT_READ)
                if not ready:
                    for sock in self._open:
                        self.send(sock, say())
        return self.outcome

    def wait_unread(self, *, timeout: float = _TIMEOUT) -> None:
        """Wait until the server has closed every connection, reading nothing, which may be what it waits for."""
        until = time.monotonic() + timeout
        ours = {sock.getsockname()[1] for sock in self._open}
        while left := ours & _held(self._address[1]):
            assert time.monotonic() < until, f"{len(left)} of {len(ours)} are held"
            time.sleep(_PACE)

    def hear(self, sock: socket.socket, end: bytes) -> bytes:
        """Read until something is heard, or the connection is ended; returns all that has been heard on it."""
        heard = self._open[sock]
        while end not in heard:
            assert select.select([sock], [], [], _TIMEOUT)[0], bytes(heard)
            if self._read_some(sock):
                break
        return bytes(heard)

    def drop_some(self, count: int) -> None:
        """Close so many of those that are open."""
        for sock in list(self._open)[:count]:
            self.drop(sock)

    def _read_some(self, sock: socket.socket) -> bool:
        """Read what there is; returns whether that was the end, which is counted."""
        try:
            while data := sock.recv(_READ):
                self._open[sock] += data
        except BlockingIOError:
            return False
        except ConnectionError:
            pass
        self.ends[outcome_of(bytes(self._open.pop(sock)))] += 1
        sock.close()
        return True


def _held(port: int) -> set[int]:
    """Return the ports at the other ends of the connections that the process which listens on `port` has open."""
    held: set[int] = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, state, *_ = line.split()
        # Who has closed a connection whose last bytes nobody takes is in another state.
        if int(local.rpartition(":")[2], 16) == port and int(state, 16) == _ESTABLISHED:
            held.add(int(remote.rpartition(":")[2], 16))
    return held


def outcome_of(heard: bytes) -> str:
    """Return what became of a connection that has been ended, by all that it has heard."""
    head, _, rest = heard.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 "):
        return "ended"
    status = head[9:12].decode()
    if status != "101":
        # More than one answer is told: it is what smugglers want.
        answers = len(re.findall(rb"HTTP/1\.1 \d{3} ", heard))
        return status if answers == 1 else f"{answers} answers"
    for opcode, payload in _frames(rest):
        if opcode == 8:
            return f"close {int.from_bytes(payload[:2], 'big')}"
    return "ended"


def _frames(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Return opcode and payload of a server's frames."""
    position = 0
    while position + 2 <= len(data):
        length = data[position + 1]
        start = position + 2
        if length >= 126:
            width = 2 if length == 126 else 8
            length = int.from_bytes(data[start : start + width], "big")
            start += width
        yield data[position] & 0x0F, data[start : start + length]
        position = start + length
