"""Where the connections of the native server come in: accepted on readiness, or turned away where there is no room."""

from __future__ import annotations

import errno
import logging
import os
import select
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TypeAlias

import anyio
import anyio.lowlevel
import h11
from anyio.abc import SocketStream, TaskGroup
from anyio.streams.tls import TLSStream

from rtcore import Refusal

from .asgi import Address, refuse_request
from .carriers import READ_SIZE, Carrier, SocketCarrier, StreamCarrier
from .client_address import address_key, parse_address
from .http_connection import HttpConnection, Service
from .open_sockets import OpenSocket, OpenSockets

__all__ = ["Reception", "TlsSource"]

_log = logging.getLogger("rtcore.server")

#: Returns the context for the next TLS connection.
TlsSource: TypeAlias = Callable[[], ssl.SSLContext]

# One burst of accepts is bounded, so that connections that are there already are served meanwhile.
_ACCEPTS: Final = 64
# Out of file descriptors: the listener stays readable, so without a pause the loop would spin.
_EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_EXHAUSTED_PAUSE: Final = 0.1
# Turns of the event loop in which a new connection's task starts, waits for its socket, and reads what is there.
_HEARING: Final = 4
# Of those who are turned away so many are waited for until they have read why; each takes a descriptor of the reserve.
_FAREWELLS: Final = 32
# Seconds between two lines of the log about the crowd.
_COMPLAINT_INTERVAL: Final = 10.0
_RETRY_AFTER: Final = 5
_FULL: Final = refuse_request(
    h11.Connection(h11.SERVER),
    Refusal("full", "the server has no room for another connection: try again later", 503, retry_after=_RETRY_AFTER),
)


class Reception:
    """Accepts connections, and knows those that are open; close it once nothing more is accepted.

    Args:
        service: What is served.
        tls: Makes it TLS.
        serving: Where the connections are served.
    """

    def __init__(self, service: Service, tls: ssl.SSLContext | TlsSource | None, serving: TaskGroup) -> None:
        self._service = service
        self._tls: TlsSource | None = (lambda: tls) if isinstance(tls, ssl.SSLContext) else tls
        self._serving = serving
        self._sockets = OpenSockets(service.config.limits)
        self._open: dict[HttpConnection, None] = {}
        self._ended = anyio.Event()
        self._stopping = False
        self._farewells = 0
        self._complained_at = -_COMPLAINT_INTERVAL
        # Given up for a moment, it makes an answer possible where no descriptor is left.
        self._spare: int | None = None

    def __enter__(self) -> Reception:
        """Take what it needs."""
        self._take_spare()
        return self

    def __exit__(self, *_: object) -> None:
        """Give it back; connections stay open."""
        self._give_spare()

    async def accept(self, listener: socket.socket) -> None:
        """Accept on readiness, in bursts: through a stream listener it would cost twice as much."""
        listener.setblocking(False)
        while True:
            await anyio.wait_readable(listener)
            for _ in range(_ACCEPTS):
                try:
                    sock, peer = listener.accept()
                except BlockingIOError:
                    break
                except OSError as error:
                    # Without descriptors it fails even if there is nobody.
                    if error.errno in _EXHAUSTED and _is_readable(listener):
                        await self._exhausted(listener, error)
                    break
                sock.setblocking(False)
                address = address_key(parse_address(peer[0]))
                if self._sockets.is_full(address):
                    self._complain("there is no room for another connection from %s", address)
                    await self._hear_the_others(sock)
                if self._sockets.is_full(address) and not self._sockets.make_room(address):
                    self._turn_away(sock)
                else:
                    self._welcome(sock, peer[:2], address)

    @staticmethod
    async def _hear_the_others(sock: socket.socket) -> None:
        """Let those who were accepted before `sock` say what they want, before one of them is ended for its sake."""
        try:
            for _ in range(_HEARING):
                await anyio.lowlevel.checkpoint()
        except BaseException:
            sock.close()
            raise

    async def end(self, timeout: float) -> None:
        """End what can be ended, and wait at most `timeout` seconds for the rest."""
        self._stopping = True
        for connection in list(self._open):
            connection.stop()
        with anyio.move_on_after(timeout):
            while self._open:
                self._ended = anyio.Event()
                await self._ended.wait()

    # Who comes in

    def _welcome(self, sock: socket.socket, peer: Address, address: str | None) -> None:
        with suppress(OSError):  # of a connection that has been reset already, on some systems
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls is None:
            carrier = SocketCarrier(sock, tasks=self._serving, **self._limits())
            self._serving.start_soon(self._serve, carrier, peer, self._sockets.enter(address, carrier.abort))
        else:
            handshake = anyio.CancelScope()
            place = self._sockets.enter(address, handshake.cancel)
            self._serving.start_soon(self._secure, sock, peer, place, self._tls(), handshake)

    async def _secure(
        self, sock: socket.socket, peer: Address, place: OpenSocket, context: ssl.SSLContext, scope: anyio.CancelScope
    ) -> None:
        config = self._service.config
        timeout = config.websocket.handshake_timeout or config.limits.keep_alive_timeout
        stream: SocketStream | None = None
        tls: TLSStream | None = None
        try:
            with scope, anyio.fail_after(timeout):
                stream = await SocketStream.from_socket(sock)
                tls = await TLSStream.wrap(stream, server_side=True, ssl_context=context, standard_compatible=False)
        except (OSError, anyio.BrokenResourceError, anyio.EndOfStream) as error:
            _log.info("no TLS with %s: %s", peer, error)
        finally:
            # Ended for another's sake, it has lost its place, even if the handshake was just done.
            if tls is None or scope.cancel_called:
                tls = None
                place.leave()
                if stream is None:
                    sock.close()
                else:
                    with anyio.CancelScope(shield=True):
                        await anyio.aclose_forcefully(stream)
        if tls is not None:
            carrier = StreamCarrier(tls, tasks=self._serving, **self._limits())
            place.end = carrier.abort
            await self._serve(carrier, peer, place)

    async def _serve(self, carrier: Carrier, peer: Address, place: OpenSocket) -> None:
        connection = HttpConnection(carrier, peer, self._service, place)
        self._open[connection] = None
        if self._stopping:
            connection.stop()
        try:
            await connection.run()
        except Exception:
            # A fault of ours, which must not harm the other connections.
            _log.exception("a connection from %s failed", peer)
        finally:
            place.leave()
            del self._open[connection]
            self._ended.set()

    def _limits(self) -> dict[str, Any]:
        config = self._service.config
        return {
            "max_bytes": config.max_backlog,
            "max_messages": config.max_waiting,
            "write_timeout": config.limits.write_timeout,
        }

    # Who does not

    def _turn_away(self, sock: socket.socket) -> None:
        """Tell somebody that the server is full; over TLS there is no cheap way to say it."""
        if self._tls is not None or self._farewells >= _FAREWELLS:
            self._turn_away_at_once(sock)
        else:
            self._farewells += 1
            self._serving.start_soon(self._bid_farewell, SocketCarrier(sock, tasks=self._serving))

    async def _bid_farewell(self, carrier: SocketCarrier) -> None:
        try:
            carrier.write(_FULL)
            await carrier.aclose()
        finally:
            self._farewells -= 1

    def _turn_away_at_once(self, sock: socket.socket) -> None:
        with sock, suppress(OSError):
            if self._tls is None:
                sock.send(_FULL)
                # Closing with unread input would send a reset, which may overtake the answer.
                sock.shutdown(socket.SHUT_WR)
                sock.recv(READ_SIZE)

    async def _exhausted(self, listener: socket.socket, error: OSError) -> None:
        """Out of descriptors, whoever has taken them: make room, or turn away who comes."""
        self._complain("cannot accept connections: %s", error)
        if self._sockets.end_longest_waiting():
            # A stream is closed in a turn of its own.
            await anyio.lowlevel.checkpoint()
        elif self._spare is None:
            await anyio.sleep(_EXHAUSTED_PAUSE)
            self._take_spare()
        else:
            self._give_spare()
            with suppress(OSError):
                sock, _ = listener.accept()
                sock.setblocking(False)
                self._turn_away_at_once(sock)
            self._take_spare()
            await anyio.lowlevel.checkpoint()

    def _take_spare(self) -> None:
        with suppress(OSError):
            self._spare = os.open(os.devnull, os.O_RDONLY)

    def _give_spare(self) -> None:
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None

    def _complain(self, message: str, about: object) -> None:
        """Log what happens for every connection of a crowd, but not for every one."""
        now = self._service.driver.now()
        if now - self._complained_at >= _COMPLAINT_INTERVAL:
            self._complained_at = now
            _log.warning(message, about)


def _is_readable(listener: socket.socket) -> bool:
    """Tell whether somebody waits to be accepted."""
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    return bool(poll.poll(0))
