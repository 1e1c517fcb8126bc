"""The whole system as one ASGI application, to serve alone or to mount in another."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from rtcore import Refusal
from rtcore_transports import Driver, Handler

from .asgi_endpoints import serve_event_stream, serve_websocket
from .connections import ConnectionManager, connection_manager
from .errors import (
    RefusalError,
    refusal_response,
    respond_to_failure,
    respond_to_http_exception,
    respond_to_nobody,
    respond_to_refusal,
)
from .http_api import HttpApi
from .settings import Settings

__all__ = ["RealtimeApp"]

HandlerT = TypeVar("HandlerT", bound=Handler)


class RealtimeApp:
    """WebSocket, event streams, the HTTP API and the test pages as an ASGI 3.0 application.

    Served alone, everything is under the prefix of the settings, ``/realtime`` by default. Mounted, it is under the
    path where it is mounted: ``app.mount("/live", RealtimeApp())`` gives ``/live/ws``.

    Args:
        settings: If left out, those of the environment, and the connections are those of the ready
            `rtcore_adapters.connection_manager`. With settings given, the application has a manager of its own.

    Attributes:
        connection_manager: To send to its connections.
        config: What its realtime endpoints offer.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.connection_manager = connection_manager if settings is None else ConnectionManager(settings)
        self.config = self.connection_manager.config
        api = HttpApi(self.driver, max_body_size=self.config.websocket.max_message_size)
        routes = api.routes()
        if self.config.sse_enabled:
            routes.append(Route("/events", self._events))
        if self.config.websocket_enabled:
            routes.append(Route("/ws", self._upgrade_required))
        self._starlette = Starlette(
            routes=routes,
            exception_handlers={
                HTTPException: respond_to_http_exception,
                RefusalError: respond_to_refusal,
                ClientDisconnect: respond_to_nobody,
                Exception: respond_to_failure,
            },
        )
        self._starlette.router.redirect_slashes = False

    @property
    def driver(self) -> Driver:
        """The driver of its node, for the native server."""
        return self.connection_manager.driver

    @property
    def prefix(self) -> str:
        """The path under which everything is, served alone."""
        return self.config.prefix

    def serves(self, scope: Scope) -> bool:
        """Tell whether the connection of an ASGI scope is for a path of this application."""
        return self._path_below_prefix(scope) is not None

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
        path = self._path_below_prefix(scope)
        if path is None:
            await self._not_found(scope, receive, send)
        elif scope["type"] == "http":
            await self._starlette({**scope, "path": path, "root_path": ""}, receive, send)
        elif path == "/ws" and self.config.websocket_enabled:
            await serve_websocket(scope, receive, send, driver=self.driver, config=self.config)
        else:
            await self._not_found(scope, receive, send)

    def _path_below_prefix(self, scope: Scope) -> str | None:
        # ASGI: the path includes the root path, where the application is mounted; some hosts leave it out all the same.
        root_path = scope.get("root_path", "")
        path: str = scope["path"]
        if root_path and path.startswith(f"{root_path}/"):
            path = path.removeprefix(root_path)
        prefix = self.config.prefix
        if path.startswith(f"{prefix}/"):
            return path.removeprefix(prefix)
        return path if root_path else None

    async def _events(self, request: Request) -> Response:
        return await serve_event_stream(request, driver=self.driver, config=self.config)

    async def _upgrade_required(self, request: Request) -> Response:
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
        await send({"type": "lifespan.shutdown.complete"})
