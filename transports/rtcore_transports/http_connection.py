"""One connection of the native server: HTTP/1.1 requests in turn, until one becomes a WebSocket or an event stream."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable
from typing import Any

import anyio
import attrs
import h11

from rtcore import CloseCode, Refusal, Transport
from rtcore.handshake import fault_of
from rtcore.websocket import Close, HandshakeRequested, WebSocket

from .admission import Admission, EndpointConfig, last_event_id_of, read_query
from .asgi import Address, ASGIApp, HttpExchange, origin_form, refuse_request, scope_of, serve_websocket
from .carriers import Carrier
from .driver import Driver
from .event_stream_endpoint import RealtimeEventStream
from .gatekeeper import Pending
from .open_sockets import OpenSocket
from .request_head import check_head, head_too_large
from .visitors import Visitor
from .websocket_endpoint import WebSocketLink, farewell, websocket_for

__all__ = ["HttpConnection", "Service"]

_log = logging.getLogger("rtcore.http")


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
        place: Its place among the sockets of the server, which is told when it waits for a request.
    """

    def __init__(self, carrier: Carrier, client: Address | None, service: Service, place: OpenSocket) -> None:
        self._carrier = carrier
        self._place = place
        self._client = client
        self._service = service
        self._limits = service.config.limits
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=self._limits.max_head)
        self._stopping = False
        self._between_requests: anyio.CancelScope | None = None
        self._link: WebSocketLink | None = None

    async def run(self) -> None:
        """Serve until either side ends the connection; it is closed then."""
        try:
            timeout = self._service.config.websocket.handshake_timeout or self._limits.keep_alive_timeout
            while (request := await self._next_request(timeout)) is not None:
                if not await self._serve(request) or self._stopping:
                    break
                timeout = self._limits.keep_alive_timeout
        finally:
            self._place.wait()
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
        self._place.wait()
        with anyio.move_on_after(timeout) as self._between_requests:
            request = await self._read_request()
        timed_out = self._between_requests.cancelled_caught and not self._stopping
        self._between_requests = None
        if timed_out and self._http.trailing_data[0]:
            self._refuse(Refusal("request_timeout", f"the request was not complete after {timeout:g} s", status=408))
        if timed_out or self._stopping or request is None:
            return None
        self._place.work()
        return request

    async def _read_request(self) -> h11.Request | None:
        # What has come with the request before.
        read = bytearray(self._http.trailing_data[0])
        while True:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                status = error.error_status_hint if error.error_status_hint in (431, 501) else 400
                self._refuse(_malformed(status, error, self._limits.max_head))
                return None
            if isinstance(event, h11.Request):
                head = read[: len(read) - len(self._http.trailing_data[0])]
                if refusal := check_head(bytes(head), event, max_head=self._limits.max_head):
                    self._refuse(refusal, method=event.method)
                    return None
                if event.http_version in (b"1.0", b"1.1"):
                    return event
                version = event.http_version.decode()
                refused = Refusal("unsupported_version", f"this server speaks HTTP/1.1, not HTTP/{version}", 505)
                self._refuse(refused, method=event.method)
                return None
            if event is not h11.NEED_DATA:
                return None
            data = await self._carrier.receive()
            if not data:
                # Half a request, which h11 would call malformed, may have been cut on its way, and then 400 would tell
                # the client not to try again. "A server that receives an incomplete request message [...] MAY send an
                # error response prior to closing the connection." (RFC 9112, section 8)
                return None
            read += data
            self._http.receive_data(data)

    async def _serve(self, request: h11.Request) -> bool:
        """Serve one request; returns whether the connection can carry another."""
        service, config = self._service, self._service.config
        path, _, query = origin_form(request.target).partition(b"?")
        if _wants_websocket(request):
            await self._serve_websocket(request, path, query)
            return False
        if path == f"{config.prefix}/events".encode() and request.method == b"GET" and config.sse_enabled:
            await self._serve_event_stream(request, query)
            return False
        scope = scope_of(request, kind="http", scheme=service.scheme, client=self._client, server=service.server)
        scope["state"] = service.state.copy()
        exchange = HttpExchange(self._http, self._carrier, request, self._limits)
        await exchange.run(service.app, scope)
        if not exchange.reusable:
            return False
        self._http = exchange.next_cycle()
        return True

    async def _serve_event_stream(self, request: h11.Request, query: bytes) -> None:
        config, driver = self._service.config, self._service.driver
        gatekeeper, visitor = driver.gatekeeper, self._visitor(request, query)
        headers: list[tuple[bytes, bytes]] = [(b"vary", b"Origin")]
        outcome: Admission | Pending | Refusal | None = gatekeeper.check_origin(visitor)
        if outcome is None:
            headers += gatekeeper.cors_headers(visitor)
            wanted = read_query(query, config, last_event_id=last_event_id_of(request.headers))
            outcome = wanted if isinstance(wanted, Refusal) else driver.node.admit(Transport.SSE)
            if outcome is None and isinstance(wanted, Admission):
                outcome = await gatekeeper.admit(visitor, wanted, Transport.SSE)
        if isinstance(outcome, Admission):
            outcome = driver.admit(outcome, Transport.SSE) or outcome
        if isinstance(outcome, Refusal):
            self._refuse(outcome, headers)
            return
        assert isinstance(outcome, Admission), "only a WebSocket is let in before it is known who it is"
        stream = RealtimeEventStream(self._carrier, driver, secrets.token_hex(8), retry=config.sse_retry)
        await stream.run(outcome, tuple(headers))

    def _visitor(self, request: h11.Request, query: bytes) -> Visitor:
        peer = None if self._client is None else self._client[0]
        return self._service.driver.gatekeeper.visitor(tuple(request.headers), query, peer, self._service.scheme)

    async def _serve_websocket(self, request: h11.Request, path: bytes, query: bytes) -> None:
        service, config, driver = self._service, self._service.config, self._service.driver
        below = path.decode("ascii").removeprefix(config.prefix)
        signals = config.signals_at(below) if path.startswith(config.prefix.encode()) else None
        native = signals is not None
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
            if signals is not None:
                wanted_there = read_query(query, config, signals=signals)
                connection = websocket_for(wanted_there)(link, self._carrier, driver, secrets.token_hex(8))
                await connection.run(self._visitor(request, query), wanted_there)
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

    def _refuse(self, refusal: Refusal, headers: Iterable[tuple[bytes, bytes]] = (), *, method: bytes = b"") -> None:
        """Answer with an error, after which the connection is closed."""
        if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._carrier.write(refuse_request(self._http, refusal, headers, method=method))


def _wants_websocket(request: h11.Request) -> bool:
    return any(name == b"upgrade" and value.lower() == b"websocket" for name, value in request.headers)


def _malformed(status: int, error: h11.RemoteProtocolError, max_head: int) -> Refusal:
    if status == 431:
        return head_too_large(max_head)
    if status == 501:
        return Refusal("not_implemented", f"the request needs what this server does not do: {fault_of(error)}", status)
    return Refusal("malformed_request", f"this is no HTTP/1.1 request: {fault_of(error)}", status)
