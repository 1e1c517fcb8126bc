"""The load: many subscribers in one process that does next to nothing for a message, and one that publishes.

It must not be what holds a server up, so it reads the bare sockets into one buffer and counts the messages in the
bytes by a word that each holds once. It never sleeps: no write of a server has to wake it, as none would were it on
another machine, and what arrives is seen within microseconds.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import attrs

__all__ = ["CHANNEL_MESSAGE", "MARKER", "Listeners", "Opening", "connect", "connect_each", "masked_frame"]

#: In each published message, once.
MARKER = b"BENCHMARK-MESSAGE"

_HEAD = b'{"type":"channel_message","channel":"bench","message":"' + MARKER
_TAIL = b'"}'

#: What is published, 128 bytes of JSON. The peers deliver it as it is; rtcore adds ``meta``.
CHANNEL_MESSAGE = _HEAD + b"." * (128 - len(_HEAD) - len(_TAIL)) + _TAIL

_BUFFER_SIZE = 262_144
_TIMEOUT = 20.0
# Connections that are opened together: enough to keep the server busy, few enough for every backlog.
_BURST = 64
_SETTLING_TRIES = 10
_QUIET = 0.3
_BRACE = ord("}")
_TAIL_SIZE = len(MARKER) - 1


def masked_frame(payload: bytes) -> bytes:
    """Return a client's text frame of up to 65,535 bytes."""
    key = b"\x37\xfa\x21\x3d"
    size = len(payload)
    header = bytes((0x81, 0x80 | size)) if size < 126 else b"\x81\xfe" + size.to_bytes(2, "big")
    mask = int.from_bytes((key * (size // 4 + 1))[:size], "big")
    return header + key + (int.from_bytes(payload, "big") ^ mask).to_bytes(size, "big")


@attrs.frozen
class Opening:
    """A request for a WebSocket.

    Attributes:
        target: What is asked for.
        headers: Lines besides those that each such request has.
    """

    target: str
    headers: tuple[str, ...] = ()

    def send(self, port: int) -> socket.socket:
        """Connect and send it; returns the socket, on which the answer is yet to come."""
        lines = (
            f"GET {self.target} HTTP/1.1",
            f"Host: 127.0.0.1:{port}",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            *self.headers,
        )
        sock = socket.create_connection(("127.0.0.1", port), _TIMEOUT)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        return sock


def connect(port: int, target: str, count: int = 1) -> list[socket.socket]:
    """Open WebSockets and wait until all are accepted; what comes after the handshake may be lost."""
    return connect_each(port, [Opening(target)] * count)


def connect_each(port: int, openings: Sequence[Opening]) -> list[socket.socket]:
    """Open a WebSocket with each request; see `connect`."""
    opened: list[socket.socket] = []
    try:
        while len(opened) < len(openings):
            accepted = len(opened)
            for opening in openings[accepted : accepted + _BURST]:
                opened.append(opening.send(port))
            for opening, sock in zip(openings[accepted:], opened[accepted:], strict=False):
                answer = b""
                while b"\r\n\r\n" not in answer:
                    data = sock.recv(65536)
                    answer += data
                    if not data or not answer.startswith(b"HTTP/1.1 101"[: len(answer)]):
                        raise RuntimeError(f"{opening.target} answered {answer[:200]!r}")
    except BaseException:
        for sock in opened:
            sock.close()
        raise
    return opened


class Listeners:
    """WebSockets on which messages are counted.

    Args:
        sockets: Connected; their owner closes them.

    Attributes:
        messages: How many messages have come, on all of them together.
        bytes: How many bytes.
        idle: Seconds for which `hear` found nothing to read.
    """

    def __init__(self, sockets: Sequence[socket.socket]) -> None:
        self.messages = 0
        self.bytes = 0
        self.idle = 0.0
        self._buffer = bytearray(_BUFFER_SIZE)
        self._epoll = select.epoll()
        self._receivers = {sock.fileno(): sock.recv_into for sock in sockets}
        # How many messages each has heard, by file descriptor.
        self._heard = dict.fromkeys(self._receivers, 0)
        # The last bytes of those whose last read ended in the middle of a message.
        self._tails: dict[int, bytes] = {}
        for sock in sockets:
            sock.setblocking(False)
            self._epoll.register(sock.fileno(), select.EPOLLIN)

    @classmethod
    @contextmanager
    def connected(cls, port: int, openings: Sequence[Opening]) -> Iterator[Listeners]:
        """Connect one with each request; they are closed with the context."""
        with ExitStack() as stack:
            self = cls([stack.enter_context(sock) for sock in connect_each(port, openings)])
            stack.callback(self._epoll.close)
            yield self

    def __len__(self) -> int:
        return len(self._receivers)

    def settle(self, publisher: socket.socket) -> None:
        """Publish a message until one is heard by everybody: a server may subscribe them after the handshake.

        Raises:
            RuntimeError: If that does not come to pass.
        """
        for _ in range(_SETTLING_TRIES):
            before = self.messages
            publisher.sendall(masked_frame(CHANNEL_MESSAGE))
            read_at = time.monotonic()
            while time.monotonic() - read_at < _QUIET:
                if self.read():
                    read_at = time.monotonic()
            if self.messages - before == len(self):
                return
        raise RuntimeError(f"of {len(self)} subscribers only {self.messages - before} hear anything")

    def hear(self, messages: int) -> None:
        """Read until each has had exactly so many more messages.

        Raises:
            RuntimeError: If one gets more, if one is closed, or if nothing comes for long.
        """
        goal = {file: heard + messages for file, heard in self._heard.items()}
        due = self.messages + messages * len(self)
        read_at = time.monotonic()
        while self.messages < due:
            at = time.monotonic()
            if self.read():
                read_at = at
            else:
                now = time.monotonic()
                self.idle += now - at
                if now - read_at > _TIMEOUT:
                    raise RuntimeError(f"{due - self.messages} messages did not come")
        if self._heard != goal:
            raise RuntimeError("one subscriber heard more than was published")

    def read(self, most: int = 1024) -> bool:
        """Read once from each that can be read, at most `most` of them, without waiting.

        Returns:
            Whether any could.
        """
        buffer, heard, receivers, tails = self._buffer, self._heard, self._receivers, self._tails
        size = messages = 0
        ready = self._epoll.poll(0, most)
        for file, _ in ready:
            read = receivers[file](buffer)
            if not read:
                raise RuntimeError("the server ended a connection")
            size += read
            count = buffer.count(MARKER, 0, read)
            # A marker holds no "}", so where a read ends with one, as nearly every read does, no marker is cut.
            if buffer[read - 1] != _BRACE or file in tails:
                cut = tails.pop(file, b"") + buffer[: min(read, _TAIL_SIZE)]
                # Neither part is long enough for a whole marker, so what is found here is in both.
                count += cut.count(MARKER)
                if buffer[read - 1] != _BRACE:
                    tails[file] = bytes((cut if read < _TAIL_SIZE else buffer[read - _TAIL_SIZE : read])[-_TAIL_SIZE:])
            heard[file] += count
            messages += count
        self.bytes += size
        self.messages += messages
        return bool(ready)
