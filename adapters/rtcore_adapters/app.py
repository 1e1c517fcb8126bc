"""The whole system as one ASGI application, to serve alone or to mount in another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from rtcore import Refusal
from rtcore.permissions import Identity
from rtcore.signaling.ice_servers import IceServer, ice_servers
from rtcore_transports import Authenticator, Driver, Handler, Hooks
from rtcore_transports.file_store import FileStoreError

from .asgi_endpoints import serve_event_stream, serve_websocket
from .binary_api import BinaryApi
from .connections import ConnectionManager, connection_manager
from .cors import Cors
from .errors import (
    RefusalError,
    refusal_response,
    respond_to_failure,
    respond_to_http_exception,
    respond_to_nobody,
    respond_to_refusal,
    respond_to_store,
)
from .guard import Guard
from .http_api import HttpApi
from .http_bodies import BodyLimits
from .settings import Settings
from .webrtc_api import WebRTCApi

__all__ = ["RealtimeApp"]

HandlerT = TypeVar("HandlerT", bound=Handler)

_WEBSOCKETS: Final = ("/ws", "/webrtc/signaling")


class RealtimeApp:
    """WebSocket, event streams, the HTTP API and the test pages as an ASGI 3.0 application.

    Served alone, everything is under the prefix of the settings, ``/realtime`` by default. Mounted, it is under the
    path where it is mounted: ``app.mount("/live", RealtimeApp())`` gives ``/live/ws``.

    Args:
        settings: If left out, those of the environment, and the connections are those of the ready
            `rtcore_adapters.connection_manager`. With settings or an authenticator given, the application has a manager
            of its own.
        authenticator: Who knows credentials, instead of the `WSAuthenticator` of the settings' keys.

    Attributes:
        connection_manager: To send to its connections.
        config: What its realtime endpoints offer.
        routes: What it answers over HTTP, below the prefix.
        websocket_paths: Where it takes WebSockets, likewise.
    """

    def __init__(self, settings: Settings | None = None, *, authenticator: Authenticator | None = None) -> None:
        shared = settings is None and authenticator is None
        self.connection_manager = (
            connection_manager if shared else ConnectionManager(settings, authenticator=authenticator)
        )
        self.config = self.connection_manager.config
        self.websocket_paths = tuple(path for path in _WEBSOCKETS if self.config.signals_at(path) is not None)
        self.routes = self._make_routes(Guard(self.driver))
        self._starlette = Starlette(
            routes=self.routes,
            exception_handlers={
                HTTPException: respond_to_http_exception,
                RefusalError: respond_to_refusal,
                FileStoreError: respond_to_store,
                ClientDisconnect: respond_to_nobody,
                Exception: respond_to_failure,
            },
        )
        self._starlette.router.redirect_slashes = False
        self._http = Cors(self._starlette, self.driver)

    @property
    def driver(self) -> Driver:
        """The driver of its node, for the native server."""
        return self.connection_manager.driver

    @property
    def hooks(self) -> Hooks:
        """What is asked before somebody connects, joins a channel or publishes; set its attributes at any time."""
        return self.driver.hooks

    @property
    def prefix(self) -> str:
        """The path under which everything is, served alone."""
        return self.config.prefix

    def serves(self, scope: Scope) -> bool:
        """Tell whether the connection of an ASGI scope is for a path of this application."""
        return self._find(scope) is not None

    def on_message(self, kind: str) -> Callable[[HandlerT], HandlerT]:
        """Return a decorator: the function handles the messages of a type that name no channel and no recipient.

        It is awaited with the message and its `rtcore_transports.Sender`. What it returns, an object, answers a
        message that has an ``id``; raising `rtcore.CommandError` refuses it.
        """

        def register(handler: HandlerT) -> HandlerT:
            self.driver.handlers[kind] = handler
            return handler

        return register

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, or the lifespan."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        found = self._find(scope)
        if found is None:
            await self._not_found(scope, receive, send)
            return
        base, path = found
        if self.driver.files is not None:
            # Where it is mounted only requests tell.
            self.driver.files.base = quote(base)
        if scope["type"] == "http":
            await self._http({**scope, "path": path, "root_path": ""}, receive, send)
        elif (signals := self.config.signals_at(path)) is not None:
            await serve_websocket(scope, receive, send, driver=self.driver, config=self.config, signals=signals)
        else:
            await self._not_found(scope, receive, send)

    def _make_routes(self, guard: Guard) -> list[Route]:
        config, settings = self.config, self.connection_manager.settings
        largest = settings.realtime.max_body_size or config.websocket.max_message_size
        limits = BodyLimits(largest, settings.realtime.body_timeout)
        routes = HttpApi(self.driver, limits=limits).routes(guard)
        if config.sse_enabled:
            routes.append(guard.route("/events", {"GET": self._events}))
        if config.webrtc_enabled:
            allow_anonymous = config.gate.allow_anonymous
            api = WebRTCApi(self.driver, limits=limits, servers=self._ice_servers, allow_anonymous=allow_anonymous)
            routes += api.routes(guard)
        if self.driver.files is not None:
            routes += BinaryApi(self.driver, self.driver.files, limits=limits).routes(guard)
        routes += [guard.route(path, {"GET": self._upgrade_required}) for path in self.websocket_paths]
        return routes

    def _find(self, scope: Scope) -> tuple[str, str] | None:
        """Return the path below which everything is, and the rest of the path; ``None`` for what is not of ours."""
        # ASGI: the path includes the root path, where the application is mounted; some hosts leave it out all the same.
        root_path: str = scope.get("root_path", "")
        path: str = scope["path"]
        if root_path and path.startswith(f"{root_path}/"):
            path = path.removeprefix(root_path)
        prefix = self.config.prefix
        if path.startswith(f"{prefix}/"):
            return root_path + prefix, path.removeprefix(prefix)
        return (root_path, path) if root_path else None

    def _ice_servers(self, user_id: str | None, now: float) -> list[IceServer]:
        webrtc = self.connection_manager.settings.webrtc
        return ice_servers(
            webrtc.stun_servers,
            webrtc.turn_servers,
            secret=webrtc.turn_secret,
            user=user_id,
            now_wall_seconds=now,
            ttl=webrtc.turn_ttl,
        )

    async def _events(self, request: Request, visitor: Identity) -> Response:
        return await serve_event_stream(request, driver=self.driver, config=self.config)

    async def _upgrade_required(self, request: Request, visitor: Identity) -> Response:
        headers = {"connection": "upgrade", "upgrade": "websocket"}
        message = "this is a WebSocket endpoint: open it with ws:// or wss://"
        return refusal_response(Refusal("upgrade_required", message, status=426), headers)

    async def _not_found(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await receive()
            if "websocket.http.response" not in scope.get("extensions", {}):
                # Then it is the host that refuses the handshake, with 403.
                await send({"type": "websocket.close", "code": 1000, "reason": "not found"})
                return
        refusal = Refusal("not_found", "there is nothing under this path", status=404)
        await refusal_response(refusal)(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self.driver.drain()
        await self.driver.aclose()
        await send({"type": "lifespan.shutdown.complete"})
