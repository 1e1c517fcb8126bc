"""One connection of the native server: HTTP/1.1 requests in turn, until one becomes a WebSocket or an event stream."""

from __future__ import annotations

import logging
import secrets
from typing import Any, Final

import anyio
import attrs
import h11

from rtcore import CloseCode, Refusal, Transport
from rtcore.websocket import Close, HandshakeRequested, WebSocket

from .admission import EndpointConfig, read_query
from .asgi import Address, ASGIApp, HttpExchange, origin_form, refuse_request, scope_of, serve_websocket
from .carriers import Carrier
from .driver import Driver
from .event_stream_endpoint import RealtimeEventStream
from .websocket_endpoint import RealtimeWebSocket, WebSocketLink, farewell

__all__ = ["HttpConnection", "Service"]

_log = logging.getLogger("rtcore.http")

# Room for long tokens in URLs and headers; what nginx takes with four large buffers, and twice what Apache does.
_MAX_HEAD: Final = 16384
_KEEP_ALIVE_TIMEOUT: Final = 75.0


@attrs.frozen
class Service:
    """What every connection of one server shares.

    Attributes:
        driver: Whose node the realtime endpoints belong to.
        app: Answers everything else.
        config: What the realtime endpoints offer.
        scheme: ``http`` or ``https``.
        server: The address that the server listens on.
        state: Of the application's lifespan.
    """

    driver: Driver
    app: ASGIApp
    config: EndpointConfig
    scheme: str
    server: Address
    state: dict[str, Any]


class HttpConnection:
    """Serves one connection.

    Args:
        carrier: Just accepted.
        client: The peer's address.
        service: What to serve.
    """

    def __init__(self, carrier: Carrier, client: Address | None, service: Service) -> None:
        self._carrier = carrier
        self._client = client
        self._service = service
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD)
        self._stopping = False
        self._between_requests: anyio.CancelScope | None = None
        self._link: WebSocketLink | None = None

    async def run(self) -> None:
        """Serve until either side ends the connection; it is closed then."""
        try:
            timeout = self._service.config.websocket.handshake_timeout or _KEEP_ALIVE_TIMEOUT
            while (request := await self._next_request(timeout)) is not None:
                if not await self._serve(request) or self._stopping:
                    break
                self._http.start_next_cycle()
                timeout = _KEEP_ALIVE_TIMEOUT
        finally:
            await self._carrier.aclose()

    def stop(self) -> None:
        """End the connection as soon as the request under way, if any, is answered."""
        self._stopping = True
        if self._between_requests is not None:
            self._between_requests.cancel()
        if self._link is not None and self._link.open:
            self._link.send(Close(CloseCode.SERVICE_RESTART, "the server is restarting"))

    async def _next_request(self, timeout: float) -> h11.Request | None:
        if self._stopping:
            return None
        request = None
        with anyio.move_on_after(timeout) as self._between_requests:
            request = await self._read_request()
        timed_out = self._between_requests.cancelled_caught and not self._stopping
        self._between_requests = None
        if timed_out and self._http.trailing_data[0]:
            self._refuse(Refusal("request_timeout", f"the request was not complete after {timeout:g} s", status=408))
        return None if timed_out or self._stopping else request

    async def _read_request(self) -> h11.Request | None:
        while True:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                status = error.error_status_hint if error.error_status_hint in (431, 501) else 400
                self._refuse(_malformed(status, error))
                return None
            if isinstance(event, h11.Request):
                if event.http_version in (b"1.0", b"1.1"):
                    return event
                version = event.http_version.decode()
                self._refuse(Refusal("unsupported_version", f"this server speaks HTTP/1.1, not HTTP/{version}", 505))
                return None
            if event is not h11.NEED_DATA:
                return None
            self._http.receive_data(await self._carrier.receive())

    async def _serve(self, request: h11.Request) -> bool:
        """Serve one request; returns whether the connection can carry another."""
        service, config = self._service, self._service.config
        path, _, query = origin_form(request.target).partition(b"?")
        if _wants_websocket(request):
            await self._serve_websocket(request, path, query)
            return False
        if path == f"{config.prefix}/events".encode() and request.method == b"GET" and config.sse_enabled:
            admission = read_query(query, config)
            if not isinstance(admission, Refusal):
                admission = service.driver.node.admit(Transport.SSE) or admission
            if isinstance(admission, Refusal):
                self._refuse(admission)
            else:
                connection_id = secrets.token_hex(8)
                stream = RealtimeEventStream(self._carrier, service.driver, connection_id, retry=config.sse_retry)
                await stream.run(admission)
            return False
        scope = scope_of(request, kind="http", scheme=service.scheme, client=self._client, server=service.server)
        scope["state"] = service.state.copy()
        exchange = HttpExchange(self._http, self._carrier, request)
        await exchange.run(service.app, scope)
        return exchange.reusable

    async def _serve_websocket(self, request: h11.Request, path: bytes, query: bytes) -> None:
        service, config, driver = self._service, self._service.config, self._service.driver
        native = path == f"{config.prefix}/ws".encode() and config.websocket_enabled
        limits = attrs.evolve(config.websocket, farewell=farewell) if native else config.websocket
        machine, effects = WebSocket.from_request(
            limits,
            method=request.method,
            target=request.target.decode("ascii"),
            headers=list(request.headers),
            http_version=request.http_version,
            now=driver.now(),
        )
        link = WebSocketLink(machine, self._carrier, driver)
        try:
            early, _ = self._http.trailing_data
            effects += machine.receive_data(early, now=driver.now())
            wanted = [effect for effect in link.perform(effects) if isinstance(effect, HandshakeRequested)]
            if link.closed is not None:
                return
            if native:
                connection = RealtimeWebSocket(link, self._carrier, driver, secrets.token_hex(8))
                await connection.run(read_query(query, config))
            else:
                self._link = link
                scope = scope_of(
                    request,
                    kind="websocket",
                    scheme="wss" if service.scheme == "https" else "ws",
                    client=self._client,
                    server=service.server,
                )
                scope["state"] = service.state.copy()
                await serve_websocket(service.app, scope, link, wanted[0].subprotocols)
        finally:
            driver.forget(link)

    def _refuse(self, refusal: Refusal) -> None:
        """Answer with an error, after which the connection is closed."""
        if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._carrier.write(refuse_request(self._http, refusal))


def _wants_websocket(request: h11.Request) -> bool:
    return any(name == b"upgrade" and value.lower() == b"websocket" for name, value in request.headers)


def _malformed(status: int, error: h11.RemoteProtocolError) -> Refusal:
    if status == 431:
        return Refusal("header_too_large", f"the request's head has more than {_MAX_HEAD} bytes", status)
    if status == 501:
        return Refusal("not_implemented", f"the request needs what this server does not do: {error}", status)
    return Refusal("malformed_request", f"this is no HTTP/1.1 request: {error}", status)
