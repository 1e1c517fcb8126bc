"""Running the whole system: on the native server or on hypercorn, with an application of the user's beside it."""

from __future__ import annotations

import importlib
import logging
import os
import resource
import signal
import socket
import ssl
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Literal, TypeAlias

import anyio
from starlette.types import ASGIApp, Receive, Scope, Send

from rtcore_transports import LifespanError, serve
from rtcore_transports.event_loops import runs_on_asyncio

from .app import RealtimeApp
from .hosting_error import HostingError
from .tls import ServerTls

__all__ = ["Beside", "ServerName", "load_app", "run_server"]

_log = logging.getLogger("rtcore.hosting")

_HYPERCORN_GRACE: Final = 3.0

#: What can serve.
ServerName: TypeAlias = Literal["native", "hypercorn"]


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
    tls: ServerTls | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then stop cleanly; on SIGHUP read certificates and keys anew.

    Args:
        realtime: The realtime system.
        app: An application of the user's beside it, or ``None``.
        host: Where to listen.
        port: Likewise; 0 for a free port.
        server: By what.
        shutdown_timeout: Seconds after which it ends whatever the clients do.
        announce: Called with the server's URL once it listens.
        tls: Makes it HTTPS and WSS.

    Raises:
        HostingError: If it cannot listen, or `app` cannot start.
    """
    whole: ASGIApp = realtime if app is None else Beside(realtime, app)
    signals = _Signals(realtime, tls)
    _raise_file_limit()
    try:
        # Bound here, so that whichever server it is refuses in the same way, and listens before it is announced.
        with _bind(host, port) as sock:
            url = _url("http" if tls is None else "https", sock, realtime.prefix)

            def ready() -> None:
                announce(url)

            if server == "native":
                await _serve_native(realtime, whole, sock, shutdown_timeout, signals, ready, tls)
            else:
                await _serve_hypercorn(realtime, whole, sock, shutdown_timeout, signals, ready, tls)
    except (OSError, LifespanError) as error:
        raise HostingError(f"cannot serve on {host}:{port}: {error}") from error
    finally:
        if realtime.driver.files is not None:
            # An application beside has the lifespan for itself.
            await realtime.driver.files.aclose()


def _raise_file_limit() -> None:
    """Allow as many open files, of which each connection is one, as may be allowed without asking anybody."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Some systems have a limit of their own below a hard one that says "infinity".
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=4096)


def _url(scheme: str, sock: socket.socket, prefix: str) -> str:
    host, port = sock.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}{prefix}" if ":" in host else f"{scheme}://{host}:{port}{prefix}"


async def _serve_native(
    realtime: RealtimeApp,
    app: ASGIApp,
    sock: socket.socket,
    shutdown_timeout: float,
    signals: _Signals,
    ready: Callable[[], None],
    tls: ServerTls | None,
) -> None:
    stop = anyio.Event()
    failure: LifespanError | None = None
    async with anyio.create_task_group() as tasks:

        async def watch() -> None:
            await signals.wait(ready)
            stop.set()
            # Asked twice, somebody does not want to wait.
            await signals.wait()
            tasks.cancel_scope.cancel()

        tasks.start_soon(watch)
        try:
            await serve(
                realtime.driver,
                app=app,
                sockets=[sock],
                config=realtime.config,
                ssl_context=None if tls is None else tls.context,
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
    realtime: RealtimeApp,
    app: ASGIApp,
    sock: socket.socket,
    shutdown_timeout: float,
    signals: _Signals,
    ready: Callable[[], None],
    tls: ServerTls | None,
) -> None:
    try:
        from hypercorn.config import Config
    except ImportError as error:
        raise HostingError("--server hypercorn needs hypercorn: pip install 'rtcore[hypercorn]'") from error

    class TlsConfig(Config):
        """Hypercorn's, but for its own way of making a context, which cannot be changed later."""

        def create_ssl_context(self) -> ssl.SSLContext | None:
            return None if tls is None else tls.lasting_context(self.alpn_protocols)

    config = TlsConfig()
    if tls is not None:
        config.certfile, config.keyfile = str(tls.files.certificate), str(tls.files.key)
    # Detached, because it is hypercorn that closes it.
    config.bind = [f"fd://{sock.detach()}"]
    # It does not end the connection of a WebSocket that the application has closed, but waits this long for it.
    config.graceful_timeout = min(shutdown_timeout, _HYPERCORN_GRACE)
    config.shutdown_timeout = shutdown_timeout
    websocket = realtime.config.websocket
    config.websocket_max_message_size = max(websocket.max_message_size, websocket.max_binary_size or 0)
    config.websocket_ping_interval = realtime.config.websocket.ping_interval
    config.loglevel = "WARNING"

    async def stopped() -> None:
        await signals.wait(ready)
        realtime.driver.drain()

    # Hypercorn's types say less than it takes: an application is an application. And it runs outside of any task group
    # of ours, because under asyncio its end looks like a cancellation of whatever it runs in.
    application: Any = app
    if runs_on_asyncio():
        from hypercorn.asyncio import serve as serve_on_asyncio

        await serve_on_asyncio(application, config, shutdown_trigger=stopped)
    else:
        from hypercorn.trio import serve as serve_on_trio

        await serve_on_trio(application, config, shutdown_trigger=stopped)


class _Signals:
    """What is done on signals.

    Args:
        realtime: Whose authenticator's keys may be read anew.
        tls: Whose files are.
    """

    def __init__(self, realtime: RealtimeApp, tls: ServerTls | None) -> None:
        reloads = (getattr(part, "reload", None) for part in (tls, realtime.driver.authenticator))
        self._reloads: list[Callable[[], object]] = [reload for reload in reloads if reload is not None]

    async def wait(self, ready: Callable[[], None] | None = None) -> None:
        """Wait for SIGTERM or SIGINT, reading files anew on SIGHUP; `ready` is called once they would be noticed."""
        # Without anything to read anew a hangup ends the server, as it ends any program.
        hangup = [signal.SIGHUP] if self._reloads else []
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, *hangup) as signals:
            if ready is not None:
                ready()
            async for received in signals:
                if received == signal.SIGHUP:
                    self._reload()
                else:
                    _log.info("stopping on %s", signal.Signals(received).name)
                    return

    def _reload(self) -> None:
        for reload in self._reloads:
            try:
                reload()
            except Exception:
                # Whatever it is, it goes on with what it has.
                _log.exception("not everything has been read anew")
