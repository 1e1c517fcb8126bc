"""``/ws`` and ``/events`` on ASGI hosts: the realtime protocol of a `rtcore.Node`, with the host's framing."""

from __future__ import annotations

import secrets
from contextlib import suppress

import anyio
import attrs
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from rtcore import CloseCode, Refusal, Transport, encode_retry
from rtcore_transports import (
    EVENT_STREAM_HEADERS,
    Admission,
    Awaited,
    Driver,
    EndpointConfig,
    Pending,
    Visitor,
    last_event_id_of,
    read_query,
    turn_away,
)

from .asgi_outlets import CLIENT_GONE, EventStreamOutlet, WebSocketOutlet
from .errors import refusal_response

__all__ = ["EventStreamResponse", "serve_event_stream", "serve_websocket", "visitor_of"]


async def serve_websocket(
    scope: Scope, receive: Receive, send: Send, *, driver: Driver, config: EndpointConfig, signals: bool
) -> None:
    """Serve one WebSocket of the realtime protocol, from its handshake to its end.

    Args:
        scope: Of ASGI.
        receive: Of ASGI.
        send: Of ASGI.
        driver: Whose node it is connected to.
        config: What the endpoints offer.
        signals: Whether it is for signaling.
    """
    message = await receive()
    assert message["type"] == "websocket.connect", "ASGI: the first message of a WebSocket"
    visitor = visitor_of(scope, driver)
    if refusal := driver.gatekeeper.check_origin(visitor):
        await _reject(refusal, scope, receive, send)
        return
    await send({"type": "websocket.accept"})
    outcome = await _admit(visitor, read_query(scope["query_string"], config, signals=signals), receive, driver)
    if isinstance(outcome, Admission):
        outcome = driver.admit(outcome, Transport.WEBSOCKET) or outcome
    if outcome is None:
        return
    if isinstance(outcome, Refusal):
        code, farewell = turn_away(outcome)
        with suppress(*CLIENT_GONE):
            await send({"type": "websocket.send", "text": farewell.text})
            await send({"type": "websocket.close", "code": code, "reason": outcome.code})
        return
    connection_id = secrets.token_hex(8)
    outlet = WebSocketOutlet(
        send,
        driver,
        connection_id,
        max_bytes=config.max_backlog,
        max_messages=config.max_waiting,
        json_only=outcome.json_only,
    )
    driver.attach(outlet, connection_id, outcome, transport=Transport.WEBSOCKET)
    driver.ensure_running()
    try:
        async with anyio.create_task_group() as tasks:

            async def write() -> None:
                await outlet.write()
                tasks.cancel_scope.cancel()

            tasks.start_soon(write)
            while (message := await receive())["type"] == "websocket.receive":
                for handle in _receive(message, connection_id, driver, config):
                    await driver.handle(handle)
            tasks.cancel_scope.cancel()
    finally:
        driver.detach(connection_id, outlet)
        outlet.abandon()


def _receive(message: Message, connection_id: str, driver: Driver, config: EndpointConfig) -> list[Awaited]:
    """Pass in one message of a client; returns what takes time."""
    text: str | None = message.get("text")
    limits = config.websocket
    if text is None:
        payload: bytes = message["bytes"]
        limit, size = limits.max_binary_size or limits.max_message_size, len(payload)
    else:
        limit, size = limits.max_message_size, len(text.encode(errors="surrogatepass"))
    if size > limit:
        # The host allows more than we do.
        driver.close(connection_id, CloseCode.MESSAGE_TOO_BIG, f"a message has at most {limit} bytes")
        return []
    return driver.receive_bytes(connection_id, payload) if text is None else driver.receive_text(connection_id, text)


async def _admit(
    visitor: Visitor, wanted: Admission | Refusal, receive: Receive, driver: Driver
) -> Admission | Refusal | None:
    """Let somebody in, or tell why not; ``None`` for who is gone before it is known who it is."""
    refusal = wanted if isinstance(wanted, Refusal) else driver.node.admit(Transport.WEBSOCKET)
    if refusal is not None or isinstance(wanted, Refusal):
        # Whoever is not let in anyway need not be known.
        return refusal
    outcome = await driver.gatekeeper.admit(visitor, wanted, Transport.WEBSOCKET)
    if not isinstance(outcome, Pending):
        return outcome

    async def receive_text() -> str | None:
        message = await receive()
        if message["type"] != "websocket.receive":
            return None
        text: str = message.get("text") or ""
        return text

    return await driver.gatekeeper.introduce(outcome, receive_text)


async def _reject(refusal: Refusal, scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse a WebSocket in its handshake."""
    if "websocket.http.response" in scope.get("extensions", {}):
        await refusal_response(refusal)(scope, receive, send)
    else:
        # Then it is the host that refuses the handshake, with 403.
        await send({"type": "websocket.close", "code": CloseCode.FORBIDDEN, "reason": refusal.code})


def visitor_of(scope: Scope, driver: Driver) -> Visitor:
    """Return who comes with the connection of an ASGI scope."""
    client = scope.get("client")
    return driver.gatekeeper.visitor(
        tuple(scope["headers"]), scope["query_string"], client[0] if client else None, scope.get("scheme", "http")
    )


async def serve_event_stream(request: Request, *, driver: Driver, config: EndpointConfig) -> Response:
    """Return the response that streams events to one client, or the refusal of it.

    Whether a page of the client's origin may ask is for the caller to know.
    """
    scope = request.scope
    wanted = read_query(scope["query_string"], config, last_event_id=last_event_id_of(scope["headers"]))
    outcome: Admission | Pending | Refusal | None
    outcome = wanted if isinstance(wanted, Refusal) else driver.node.admit(Transport.SSE)
    if outcome is None and isinstance(wanted, Admission):
        outcome = await driver.gatekeeper.admit(visitor_of(scope, driver), wanted, Transport.SSE)
    if isinstance(outcome, Admission):
        outcome = driver.admit(outcome, Transport.SSE) or outcome
    if isinstance(outcome, Refusal):
        return refusal_response(outcome)
    assert isinstance(outcome, Admission), "only a WebSocket is let in before it is known who it is"
    if request.method == "HEAD":
        return Response(headers={name.decode(): value.decode() for name, value in EVENT_STREAM_HEADERS})
    return EventStreamResponse(driver, config, secrets.token_hex(8), outcome)


class EventStreamResponse(Response):
    """One client of the node on an event stream, as a response of Starlette.

    Args:
        driver: Whose node the client joins once the response is sent.
        config: What the endpoints offer.
        connection_id: The id that the node is to know it by.
        admission: Who comes.
    """

    def __init__(self, driver: Driver, config: EndpointConfig, connection_id: str, admission: Admission) -> None:
        self.status_code = 200
        self.background = None
        self.raw_headers = list(EVENT_STREAM_HEADERS)
        self._driver = driver
        self._config = config
        self._connection_id = connection_id
        self._admission = admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until either side ends it."""
        driver, config, connection_id = self._driver, self._config, self._connection_id
        outlet = EventStreamOutlet(
            send, driver, connection_id, max_bytes=config.max_backlog, max_messages=config.max_waiting
        )
        # Ids are unique unless the caller chose them: then it is the same client, come back before it was missed.
        driver.close(connection_id, CloseCode.GOING_AWAY, "replaced by a new connection", reconnect=False)
        # Before anything is awaited, so that nobody else takes the place for which it was admitted.
        admission = self._admission
        if admission.last_event_id is None:
            # A response to one's own endpoint learns only here what the client asks for.
            admission = attrs.evolve(admission, last_event_id=last_event_id_of(scope["headers"]))
        driver.attach(outlet, connection_id, admission, transport=Transport.SSE)
        driver.ensure_running()
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": encode_retry(config.sse_retry), "more_body": True})
            async with anyio.create_task_group() as tasks:

                async def write() -> None:
                    await outlet.write()
                    tasks.cancel_scope.cancel()

                tasks.start_soon(write)
                # Hosts turn `send` into nothing once the client is gone; only `receive` tells.
                while (await receive())["type"] != "http.disconnect":
                    pass
                tasks.cancel_scope.cancel()
        finally:
            driver.detach(connection_id, outlet)
            outlet.abandon()
