"""The native server: listens, and stops without losing what was said."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Final

import anyio
from anyio.abc import SocketAttribute, TaskStatus

from rtcore import LocalProtocolError

from .admission import EndpointConfig
from .asgi import Address, ASGIApp, Lifespan, LifespanError, Receive, Scope, Send
from .driver import Driver
from .http_connection import Service
from .reception import Reception, TlsSource

__all__ = ["serve"]

_BACKLOG: Final = 4096


async def serve(
    driver: Driver | None = None,
    *,
    app: ASGIApp | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    sockets: Sequence[socket.socket] | None = None,
    config: EndpointConfig | None = None,
    ssl_context: ssl.SSLContext | TlsSource | None = None,
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
        config: What the realtime endpoints offer, and the limits of the server.
        ssl_context: Makes it HTTPS and WSS; where it may change, a function that returns it for each new connection.
        shutdown: Set it to stop: nothing more is accepted, every client is told to come back (``disconnect``, then
            1012), everything is flushed, and `serve` returns. Cancelling stops at once.
        shutdown_timeout: Seconds after which it returns whatever the clients do.
        task_status: Told the address once connections are accepted.

    Raises:
        LocalProtocolError: If `driver` and `config` say different things of who may come in.
        OSError: If it cannot listen there.
        LifespanError: If `app` says that it cannot start.
    """
    if driver is None:
        driver = Driver(gate=None if config is None else config.gate)
    config = config or EndpointConfig(gate=driver.gatekeeper.config)
    if config.gate != driver.gatekeeper.config:
        raise LocalProtocolError("the driver lets in whom 'config' does not: make it with 'gate=config.gate'")
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
        service = Service(driver, app or _not_found, config, scheme, address, lifespan.state)
        async with anyio.create_task_group() as background:
            background.start_soon(driver.run)
            if (failure := await lifespan.startup(background)) is None:
                async with anyio.create_task_group() as serving:
                    reception = stack.enter_context(Reception(service, ssl_context, serving))
                    async with anyio.create_task_group() as accepting:
                        for sock in sockets:
                            accepting.start_soon(reception.accept, sock)
                        task_status.started(address)
                        await shutdown.wait()
                        accepting.cancel_scope.cancel()
                    await stack.aclose()
                    driver.drain()
                    await reception.end(shutdown_timeout)
                    serving.cancel_scope.cancel()
                await lifespan.shutdown(shutdown_timeout)
            background.cancel_scope.cancel()
    if failure is not None:
        raise LifespanError(failure)


async def _not_found(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer everything with 404."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close"})
    elif scope["type"] == "http":
        body = b'{"error":{"code":"not_found","message":"there is nothing under this path"}}'
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 404, "headers": headers})
        await send({"type": "http.response.body", "body": body})
