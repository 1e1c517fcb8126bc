"""One client WebSocket on a TCP or TLS stream: connects, carries the bytes, keeps the deadlines, and ends.

One task reads and one writes, so that cancelling whoever sends or receives never cuts a frame in two.
"""

from __future__ import annotations

import secrets
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from math import inf
from typing import Final, Protocol, assert_never
from urllib.parse import quote, unquote_plus, urlencode, urlsplit

import anyio
import attrs
from anyio.abc import ByteStream, SocketAttribute
from anyio.streams.tls import TLSStream

from rtcore import ConnectionFailed, LocalProtocolError, WebSocketConfig
from rtcore.handshake import Headers
from rtcore.websocket import (
    BytesReceived,
    Closed,
    HandshakeRequested,
    Opened,
    PongReceived,
    Rejected,
    TextReceived,
    WebSocket,
    WebSocketCommand,
    WebSocketEffect,
    WebSocketState,
    Write,
)

from .alarm import Alarm
from .carriers import READ_SIZE
from .client_request import shown_url

__all__ = ["ClientWebSocket", "HandshakeRejected", "Receiver", "Traffic", "WebSocketUrl"]

# Bytes that may wait to be written before a sender waits too: as much as asyncio lets a transport buffer.
_HIGH_WATER: Final = 65536
# As much the system keeps beyond what the network takes, where it can. Otherwise megabytes of a file would be ahead of
# what is said next.
_NOTSENT_LOWAT: Final[int | None] = getattr(socket, "TCP_NOTSENT_LOWAT", None)
# After a pause in reading, what came meanwhile is read before anybody concludes that nothing came.
_GRACE: Final = 1.0
# What a path and a query may hold as it is (RFC 3986, sections 3.3 and 3.4), and the sign of what is encoded already.
_SAFE: Final = "/%:@!$&'()*+,;=?-._~"


class HandshakeRejected(ConnectionFailed):
    """The server answered the opening handshake with something else than a WebSocket.

    Attributes:
        status: The HTTP status.
        headers: The headers of the response, names in lower case.
        body: The body, or its beginning.
    """

    def __init__(self, status: int, headers: Headers, body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        super().__init__(f"the server answered the WebSocket handshake with HTTP status {status}")


@attrs.frozen
class WebSocketUrl:
    """Where a WebSocket is.

    Attributes:
        host: A name or an address, without brackets.
        port: The port.
        secure: Whether it is under TLS.
        target: Path and query, percent-encoded.
    """

    host: str
    port: int
    secure: bool
    target: str

    @classmethod
    def parse(cls, url: str) -> WebSocketUrl:
        """Read a ``ws``, ``wss``, ``http`` or ``https`` URL (RFC 6455, section 3).

        Raises:
            LocalProtocolError: It is none, or has a fragment, or holds credentials.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise LocalProtocolError(f"{shown_url(url)} is not a URL") from None
        if parts.scheme not in ("ws", "wss", "http", "https") or not parts.hostname:
            raise LocalProtocolError(f"{shown_url(url)} does not begin with ws://HOST or wss://HOST")
        if parts.fragment:
            # "Fragment identifiers are meaningless in the context of WebSocket URIs and MUST NOT be used"
            raise LocalProtocolError("the URL of a WebSocket has no fragment (#…)")
        if "@" in parts.netloc:
            raise LocalProtocolError("credentials do not belong in a URL: use a token or a header")
        secure = parts.scheme in ("wss", "https")
        target = quote(parts.path or "/", _SAFE) + (f"?{quote(parts.query, _SAFE)}" if parts.query else "")
        return cls(parts.hostname, port or (443 if secure else 80), secure, target)

    @property
    def authority(self) -> str:
        """The host, and the port where it is not the scheme's: the ``Host`` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.secure else 80) else f"{host}:{self.port}"

    def with_fields(self, fields: Mapping[str, str]) -> WebSocketUrl:
        """Return the URL with `fields` in its query, in place of those of the same names."""
        url = self
        for name in fields:
            url, _ = url.without_field(name)
        return attrs.evolve(url, target=f"{url.target}{'&' if '?' in url.target else '?'}{urlencode(fields)}")

    def without_field(self, name: str) -> tuple[WebSocketUrl, list[str]]:
        """Return the URL without a field of its query, and the values that it had there; the rest is untouched.

        Raises:
            LocalProtocolError: A value is no percent-encoded UTF-8.
        """
        path, _, query = self.target.partition("?")
        kept: list[str] = []
        values: list[str] = []
        for field in query.split("&"):
            key, _, value = field.partition("=")
            if unquote_plus(key) != name:
                kept.append(field)
                continue
            try:
                values.append(unquote_plus(value, errors="strict"))
            except UnicodeDecodeError as error:
                raise LocalProtocolError(f"{field!r} in the URL is no percent-encoded UTF-8") from error
        rest = "&".join(kept)
        return attrs.evolve(self, target=f"{path}?{rest}" if rest else path), values


@attrs.define(eq=False)
class Traffic:
    """How much has gone over connections so far: bytes under TLS, framing and handshakes included."""

    received: int = 0
    sent: int = 0


class Receiver(Protocol):
    """Who a `ClientWebSocket` tells what comes in. Nothing here may block or raise."""

    def opened(self, opened: Opened) -> None:
        """The handshake is done."""
        ...

    def received(self, message: str | bytes) -> None:
        """A message has come."""
        ...

    def heard(self) -> None:
        """Bytes have come, whose messages have been told."""
        ...

    @property
    def full(self) -> bool:
        """Whether nothing more is to be read for now; `ClientWebSocket.resume` tells that it has become false."""
        ...


class ClientWebSocket:
    """A client's side of one WebSocket, from the attempt to connect to the end.

    Args:
        url: Where to connect.
        receiver: Who is told what comes in.
        config: Limits and times.
        headers: Headers for the handshake.
        subprotocols: What to offer, most wanted first.
        ssl_context: For TLS; the system's defaults if left out.
        traffic: What to count bytes in.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        url: WebSocketUrl,
        receiver: Receiver,
        *,
        config: WebSocketConfig,
        headers: Headers,
        subprotocols: Sequence[str] = (),
        ssl_context: ssl.SSLContext | None = None,
        traffic: Traffic | None = None,
        clock: Callable[[], float],
    ) -> None:
        self._url = url
        self._receiver = receiver
        self._config = config
        self._headers = headers
        self._subprotocols = tuple(subprotocols)
        self._ssl_context = ssl_context
        self._traffic = traffic or Traffic()
        self._clock = clock
        self._machine: WebSocket | None = None
        self._rejected: Rejected | None = None
        self._closed: Closed | None = None
        self._alarm = Alarm(self._next_timeout, self._handle_timeout, clock=clock)
        self._reading = anyio.CancelScope()
        self._opened = False
        # None while reading pauses; a connection that never paused has always been read.
        self._reading_since: float | None = -inf
        self._resumed = anyio.Event()
        self._outgoing: list[bytes] = []
        self._waiting_bytes = 0
        self._written_bytes = 0
        self._written = anyio.Event()
        self._drained = anyio.Event()

    @property
    def state(self) -> WebSocketState:
        """Where it stands; CONNECTING also before it is run."""
        return WebSocketState.CONNECTING if self._machine is None else self._machine.state

    @property
    def attentive_at(self) -> float:
        """From when on silence says something about the peer: it has been reading for a while then, if it goes on."""
        return (self._clock() if self._reading_since is None else self._reading_since) + _GRACE

    async def run(self, *headers: tuple[bytes, bytes]) -> Closed:
        """Connect, and carry the WebSocket until it ends; cancelling cuts it off.

        Args:
            headers: More headers for the handshake.

        Returns:
            How it ended, once it had been open.

        Raises:
            HandshakeRejected: The server did not want it.
            ConnectionFailed: It could not be opened for any other reason.
            LocalProtocolError: The request cannot be written: a header is malformed.
        """
        stream = await self._connect()
        try:
            machine, effects = WebSocket.client(
                self._config,
                host=self._url.authority,
                target=self._url.target,
                headers=(*headers, *self._headers),
                subprotocols=self._subprotocols,
                entropy=secrets.token_bytes,
                now=self._clock(),
            )
            self._machine = machine
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._write, stream)
                tasks.start_soon(self._alarm.run)
                self._perform(effects)
                await self._read(machine, stream)
                tasks.cancel_scope.cancel()
        finally:
            self._waiting_bytes = 0
            self._drained.set()
            await anyio.aclose_forcefully(stream)
        closed = self._closed
        assert closed is not None, "without it the reader goes on"
        if self._rejected is not None:
            raise HandshakeRejected(self._rejected.status, self._rejected.headers, self._rejected.body)
        if not self._opened:
            raise ConnectionFailed(closed.fault)
        return closed

    def send(self, command: WebSocketCommand) -> None:
        """Carry out a command; what it writes is on its way when this returns.

        Raises:
            LocalProtocolError: The WebSocket is not open. Nothing has changed.
        """
        if self._machine is None:
            raise LocalProtocolError("the WebSocket is not open yet")
        self._perform(self._machine.send(command, now=self._clock()))
        self._alarm.changed()
        if self.state is not WebSocketState.OPEN:
            self.resume()

    async def drain(self, *, all_of_it: bool = False) -> None:
        """Wait until little of what was sent waits to be written, or the WebSocket has ended.

        Args:
            all_of_it: Until nothing waits any more of what was sent before this call.
        """
        if all_of_it:
            end = self._written_bytes + self._waiting_bytes
            while self._waiting_bytes and self._written_bytes < end:
                await self._drained.wait()
        while self._waiting_bytes > _HIGH_WATER:
            await self._drained.wait()

    def resume(self) -> None:
        """Read on, if the receiver has room or the WebSocket is to be closed."""
        self._resumed.set()

    async def _connect(self) -> ByteStream:
        url = self._url
        try:
            with anyio.fail_after(self._config.handshake_timeout):
                tcp = await anyio.connect_tcp(url.host, url.port)
                try:
                    # A message is small and wanted now: trio leaves Nagle's algorithm on.
                    raw = tcp.extra(SocketAttribute.raw_socket)
                    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    if _NOTSENT_LOWAT is not None:
                        raw.setsockopt(socket.IPPROTO_TCP, _NOTSENT_LOWAT, _HIGH_WATER)
                    if not url.secure:
                        return tcp
                    context = self._ssl_context or ssl.create_default_context()
                    return await TLSStream.wrap(
                        tcp, hostname=url.host, ssl_context=context, server_side=False, standard_compatible=False
                    )
                except BaseException:
                    await anyio.aclose_forcefully(tcp)
                    raise
        except TimeoutError as error:
            raise ConnectionFailed(f"no connection to {url.authority} in time") from error
        except (OSError, UnicodeError, anyio.EndOfStream, anyio.BrokenResourceError) as error:
            # UnicodeError: a label of the host is empty or too long.
            raise ConnectionFailed(
                f"cannot connect to {url.authority}: {str(error) or 'the server hung up'}"
            ) from error

    async def _read(self, machine: WebSocket, stream: ByteStream) -> None:
        with self._reading:
            while self._closed is None:
                while machine.state is WebSocketState.OPEN and self._receiver.full:
                    self._reading_since = None
                    self._resumed = anyio.Event()
                    await self._resumed.wait()
                if self._reading_since is None:
                    self._reading_since = self._clock()
                    self._alarm.changed()
                try:
                    data = await stream.receive(READ_SIZE)
                except (OSError, anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
                    # However it ended, it ended. OSError: ssl has words of its own for some ends.
                    data = b""
                self._traffic.received += len(data)
                now = self._clock()
                self._perform(machine.receive_data(data, now=now) if data else machine.receive_eof(now=now))
                if data:
                    self._receiver.heard()
                self._alarm.changed()

    async def _write(self, stream: ByteStream) -> None:
        while True:
            await self._written.wait()
            self._written = anyio.Event()
            data = b"".join(self._outgoing)
            self._outgoing.clear()
            # The reader is told by its next read, and ends it all; there may yet be something to read before.
            with suppress(OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
                await stream.send(data)
            self._waiting_bytes -= len(data)
            self._written_bytes += len(data)
            self._drained.set()
            self._drained = anyio.Event()

    def _next_timeout(self) -> float | None:
        machine = self._machine
        at = None if machine is None else machine.next_timeout()
        if machine is None or at is None or machine.state is not WebSocketState.OPEN:
            return at
        # While nothing is read, silence says nothing about the peer.
        return None if self._reading_since is None else max(at, self._reading_since + _GRACE)

    def _handle_timeout(self) -> None:
        assert self._machine is not None, "without it there is no deadline"
        self._perform(self._machine.handle_timeout(now=self._clock()))
        if self._closed is not None:
            self._reading.cancel()
        elif self.state is not WebSocketState.OPEN:
            self.resume()

    def _perform(self, effects: Sequence[WebSocketEffect]) -> None:
        for effect in effects:
            match effect:
                case Write(data=data):
                    self._outgoing.append(data)
                    self._waiting_bytes += len(data)
                    self._traffic.sent += len(data)
                    self._written.set()
                case TextReceived(text=text):
                    self._receiver.received(text)
                case BytesReceived(data=data):
                    self._receiver.received(data)
                case Opened():
                    self._opened = True
                    self._receiver.opened(effect)
                case Rejected():
                    self._rejected = effect
                case Closed():
                    self._closed = effect
                case PongReceived():
                    pass
                case HandshakeRequested():
                    raise AssertionError("only a server is asked for a handshake")
                case _:
                    assert_never(effect)
