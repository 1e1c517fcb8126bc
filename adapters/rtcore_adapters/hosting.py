"""Running the whole system: on the native server or on hypercorn, with an application of the user's beside it."""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any, Final, Literal, TypeAlias

import anyio
from starlette.types import ASGIApp, Receive, Scope, Send

from rtcore import RtcoreError
from rtcore_transports import LifespanError, serve

from .app import RealtimeApp

__all__ = ["Beside", "HostingError", "ServerName", "load_app", "run_server"]

_log = logging.getLogger("rtcore.hosting")

_HYPERCORN_GRACE: Final = 3.0

#: What can serve.
ServerName: TypeAlias = Literal["native", "hypercorn"]


class HostingError(RtcoreError):
    """The server cannot be started; the message says why."""


class Beside:
    """The realtime system under its prefix, and an application of the user's everywhere else.

    Args:
        realtime: Gets every connection under its prefix.
        app: Gets the others, and the lifespan.
    """

    def __init__(self, realtime: RealtimeApp, app: ASGIApp) -> None:
        self._realtime = realtime
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the connection on."""
        ours = scope["type"] != "lifespan" and self._realtime.serves(scope)
        await (self._realtime if ours else self._app)(scope, receive, send)


def load_app(name: str) -> ASGIApp:
    """Import an ASGI application.

    Args:
        name: ``module:attribute``, found from the working directory.

    Raises:
        HostingError: If it is not to be had.
    """
    module_name, colon, attribute = name.partition(":")
    if not colon or not module_name or not attribute:
        raise HostingError(f"--app must be module:attribute, as in main:app, not {name!r}")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: object = importlib.import_module(module_name)
    except ImportError as error:
        raise HostingError(f"--app {name}: {error}") from error
    for part in attribute.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise HostingError(f"--app {name}: there is no ASGI application {attribute!r} in {module_name}")
    app: ASGIApp = found
    return app


async def run_server(
    realtime: RealtimeApp,
    app: ASGIApp | None,
    *,
    host: str,
    port: int,
    server: ServerName,
    shutdown_timeout: float,
    announce: Callable[[str], None],
) -> None:
    """Serve until SIGTERM or SIGINT, then stop cleanly.

    Args:
        realtime: The realtime system.
        app: An application of the user's beside it, or ``None``.
        host: Where to listen.
        port: Likewise; 0 for a free port.
        server: By what.
        shutdown_timeout: Seconds after which it ends whatever the clients do.
        announce: Called with the server's URL once it listens.

    Raises:
        HostingError: If it cannot listen, or `app` cannot start.
    """
    whole: ASGIApp = realtime if app is None else Beside(realtime, app)
    try:
        # Bound here, so that whichever server it is refuses in the same way, and listens before it is announced.
        with _bind(host, port) as sock:
            url = _url(sock, realtime.prefix)

            def ready() -> None:
                announce(url)

            if server == "native":
                await _serve_native(realtime, whole, sock, shutdown_timeout, ready)
            else:
                await _serve_hypercorn(realtime, whole, sock, shutdown_timeout, ready)
    except (OSError, LifespanError) as error:
        raise HostingError(f"cannot serve on {host}:{port}: {error}") from error


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=4096)


def _url(sock: socket.socket, prefix: str) -> str:
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}{prefix}" if ":" in host else f"http://{host}:{port}{prefix}"


async def _serve_native(
    realtime: RealtimeApp, app: ASGIApp, sock: socket.socket, shutdown_timeout: float, ready: Callable[[], None]
) -> None:
    stop = anyio.Event()
    failure: LifespanError | None = None
    async with anyio.create_task_group() as tasks:

        async def watch() -> None:
            await _signal(ready)
            stop.set()
            # Asked twice, somebody does not want to wait.
            await _signal()
            tasks.cancel_scope.cancel()

        tasks.start_soon(watch)
        try:
            await serve(
                realtime.driver,
                app=app,
                sockets=[sock],
                config=realtime.config,
                shutdown=stop,
                shutdown_timeout=shutdown_timeout,
            )
        except LifespanError as error:
            # Not through the task group, which would wrap it.
            failure = error
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _serve_hypercorn(
    realtime: RealtimeApp, app: ASGIApp, sock: socket.socket, shutdown_timeout: float, ready: Callable[[], None]
) -> None:
    try:
        from hypercorn.config import Config
    except ImportError as error:
        raise HostingError("--server hypercorn needs hypercorn: pip install 'rtcore[hypercorn]'") from error
    config = Config()
    # Detached, because it is hypercorn that closes it.
    config.bind = [f"fd://{sock.detach()}"]
    # It does not end the connection of a WebSocket that the application has closed, but waits this long for it.
    config.graceful_timeout = min(shutdown_timeout, _HYPERCORN_GRACE)
    config.shutdown_timeout = shutdown_timeout
    config.websocket_max_message_size = realtime.config.websocket.max_message_size
    config.websocket_ping_interval = realtime.config.websocket.ping_interval
    config.loglevel = "WARNING"

    async def stopped() -> None:
        await _signal(ready)
        realtime.driver.drain()

    # Hypercorn's types say less than it takes: an application is an application. And it runs outside of any task group
    # of ours, because under asyncio its end looks like a cancellation of whatever it runs in.
    application: Any = app
    if anyio.get_cancelled_exc_class() is asyncio.CancelledError:
        from hypercorn.asyncio import serve as serve_on_asyncio

        await serve_on_asyncio(application, config, shutdown_trigger=stopped)
    else:
        from hypercorn.trio import serve as serve_on_trio

        await serve_on_trio(application, config, shutdown_trigger=stopped)


async def _signal(ready: Callable[[], None] | None = None) -> None:
    """Wait for SIGTERM or SIGINT; `ready` is called once they would be noticed."""
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        if ready is not None:
            ready()
        async for received in signals:
            _log.info("stopping on %s", signal.Signals(received).name)
            return
