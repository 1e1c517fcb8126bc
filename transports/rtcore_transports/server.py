"""The native server: listens, accepts on readiness, and stops without losing what was said."""

from __future__ import annotations

import errno
import logging
import socket
import ssl
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Final

import anyio
from anyio.abc import SocketAttribute, SocketStream, TaskGroup, TaskStatus
from anyio.streams.tls import TLSStream

from .admission import EndpointConfig
from .asgi import Address, ASGIApp, Lifespan, LifespanError, Receive, Scope, Send
from .carriers import Carrier, SocketCarrier, StreamCarrier
from .driver import Driver
from .http_connection import HttpConnection, Service

__all__ = ["serve"]

_log = logging.getLogger("rtcore.server")

_BACKLOG: Final = 4096
# One burst of accepts is bounded, so that connections that are there already are served meanwhile.
_ACCEPTS: Final = 64
# Out of file descriptors: the listener stays readable, so without a pause the loop would spin.
_EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_EXHAUSTED_PAUSE: Final = 0.1


async def serve(
    driver: Driver | None = None,
    *,
    app: ASGIApp | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    sockets: Sequence[socket.socket] | None = None,
    config: EndpointConfig | None = None,
    ssl_context: ssl.SSLContext | None = None,
    shutdown: anyio.Event | None = None,
    shutdown_timeout: float = 10.0,
    task_status: TaskStatus[Address] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Serve ``/ws`` and ``/events`` under the prefix natively, and everything else through `app`.

    Args:
        driver: Whose node is served; one with default limits if left out.
        app: An ASGI application; without one, everything else is answered 404.
        host: The name or address to listen on.
        port: The port, or 0 for a free one.
        sockets: Listening sockets to accept from instead; closed once nothing more is accepted.
        config: What the realtime endpoints offer.
        ssl_context: Makes it HTTPS and WSS.
        shutdown: Set it to stop: nothing more is accepted, every client is told to come back (``disconnect``, then
            1012), everything is flushed, and `serve` returns. Cancelling stops at once.
        shutdown_timeout: Seconds after which it returns whatever the clients do.
        task_status: Told the address once connections are accepted.

    Raises:
        OSError: If it cannot listen there.
        LifespanError: If `app` says that it cannot start.
    """
    driver = driver or Driver()
    shutdown = shutdown or anyio.Event()
    lifespan = Lifespan(app or _not_found)
    async with AsyncExitStack() as stack:
        if sockets is None:
            listener = await stack.enter_async_context(
                await anyio.create_tcp_listener(local_host=host, local_port=port, backlog=_BACKLOG)
            )
            sockets = [each.extra(SocketAttribute.raw_socket) for each in listener.listeners]
        else:
            for sock in sockets:
                stack.callback(sock.close)
        address: Address = sockets[0].getsockname()[:2]
        scheme = "http" if ssl_context is None else "https"
        service = Service(driver, app or _not_found, config or EndpointConfig(), scheme, address, lifespan.state)
        connections = _Connections(service, ssl_context)
        async with anyio.create_task_group() as background:
            background.start_soon(driver.run)
            if (failure := await lifespan.startup(background)) is None:
                async with anyio.create_task_group() as serving:
                    async with anyio.create_task_group() as accepting:
                        for sock in sockets:
                            accepting.start_soon(connections.accept, sock, serving)
                        task_status.started(address)
                        await shutdown.wait()
                        accepting.cancel_scope.cancel()
                    await stack.aclose()
                    driver.drain()
                    await connections.end(shutdown_timeout)
                    serving.cancel_scope.cancel()
                await lifespan.shutdown(shutdown_timeout)
            background.cancel_scope.cancel()
    if failure is not None:
        raise LifespanError(failure)


class _Connections:
    """Accepts connections, and knows those that are open."""

    def __init__(self, service: Service, ssl_context: ssl.SSLContext | None) -> None:
        self._service = service
        self._ssl_context = ssl_context
        self._open: dict[HttpConnection, None] = {}
        self._ended = anyio.Event()
        self._stopping = False

    async def accept(self, listener: socket.socket, serving: TaskGroup) -> None:
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
                    if error.errno in _EXHAUSTED:
                        _log.error("cannot accept connections: %s", error)
                        await anyio.sleep(_EXHAUSTED_PAUSE)
                    break
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                serving.start_soon(self._serve, sock, peer[:2], serving)

    async def end(self, timeout: float) -> None:
        """End what can be ended, and wait at most `timeout` seconds for the rest."""
        self._stopping = True
        for connection in list(self._open):
            connection.stop()
        with anyio.move_on_after(timeout):
            while self._open:
                self._ended = anyio.Event()
                await self._ended.wait()

    async def _serve(self, sock: socket.socket, peer: Address, serving: TaskGroup) -> None:
        carrier = await self._carrier(sock, serving)
        if carrier is None:
            return
        connection = HttpConnection(carrier, peer, self._service)
        self._open[connection] = None
        if self._stopping:
            connection.stop()
        try:
            await connection.run()
        except Exception:
            # A fault of ours, which must not harm the other connections.
            _log.exception("a connection from %s failed", peer)
        finally:
            del self._open[connection]
            self._ended.set()

    async def _carrier(self, sock: socket.socket, serving: TaskGroup) -> Carrier | None:
        config = self._service.config
        limits = {"max_bytes": config.max_backlog, "max_messages": config.max_waiting}
        if self._ssl_context is None:
            return SocketCarrier(sock, tasks=serving, **limits)
        stream = await SocketStream.from_socket(sock)
        try:
            with anyio.fail_after(config.websocket.handshake_timeout):
                tls = await TLSStream.wrap(
                    stream, server_side=True, ssl_context=self._ssl_context, standard_compatible=False
                )
        except BaseException as error:
            with anyio.CancelScope(shield=True):
                await anyio.aclose_forcefully(stream)
            if not isinstance(error, OSError | anyio.BrokenResourceError | anyio.EndOfStream):
                raise
            _log.info("no TLS with %s: %s", sock, error)
            return None
        return StreamCarrier(tls, tasks=serving, **limits)


async def _not_found(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer everything with 404."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close"})
    elif scope["type"] == "http":
        body = b'{"error":{"code":"not_found","message":"there is nothing under this path"}}'
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 404, "headers": headers})
        await send({"type": "http.response.body", "body": body})
