"""``/ws`` and ``/events`` on ASGI hosts: the realtime protocol of a `rtcore.Node`, with the host's framing."""

from __future__ import annotations

import secrets
from contextlib import suppress

import anyio
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from rtcore import CloseCode, Refusal, Transport, encode_retry
from rtcore_transports import (
    EVENT_STREAM_HEADERS,
    Admission,
    Driver,
    EndpointConfig,
    read_query,
    refuse_binary,
    turn_away,
)

from .asgi_outlets import CLIENT_GONE, EventStreamOutlet, WebSocketOutlet
from .errors import refusal_response

__all__ = ["EventStreamResponse", "serve_event_stream", "serve_websocket"]


async def serve_websocket(
    scope: Scope, receive: Receive, send: Send, *, driver: Driver, config: EndpointConfig
) -> None:
    """Serve one WebSocket of the realtime protocol, from its handshake to its end."""
    message = await receive()
    assert message["type"] == "websocket.connect", "ASGI: the first message of a WebSocket"
    await send({"type": "websocket.accept"})
    admission = read_query(scope["query_string"], config)
    if isinstance(admission, Admission):
        admission = driver.node.admit(Transport.WEBSOCKET) or admission
    if isinstance(admission, Refusal):
        code, farewell = turn_away(admission)
        with suppress(*CLIENT_GONE):
            await send({"type": "websocket.send", "text": farewell.text})
            await send({"type": "websocket.close", "code": code, "reason": admission.code})
        return
    connection_id = secrets.token_hex(8)
    outlet = WebSocketOutlet(send, driver, connection_id, max_bytes=config.max_backlog, max_messages=config.max_waiting)
    driver.attach(
        outlet,
        connection_id,
        user_id=admission.user_id,
        transport=Transport.WEBSOCKET,
        channels=admission.channels,
    )
    driver.ensure_running()
    try:
        async with anyio.create_task_group() as tasks:

            async def write() -> None:
                await outlet.write()
                tasks.cancel_scope.cancel()

            tasks.start_soon(write)
            while (message := await receive())["type"] == "websocket.receive":
                text = message.get("text")
                limit = config.websocket.max_message_size
                if len(message["bytes"] if text is None else text.encode(errors="surrogatepass")) > limit:
                    # The host allows more than we do.
                    driver.close(connection_id, CloseCode.MESSAGE_TOO_BIG, f"a message has at most {limit} bytes")
                    continue
                if text is None:
                    refuse_binary(driver, connection_id)
                    continue
                for handle in driver.receive_text(connection_id, text):
                    await driver.handle(handle)
            tasks.cancel_scope.cancel()
    finally:
        driver.detach(connection_id, outlet)


async def serve_event_stream(request: Request, *, driver: Driver, config: EndpointConfig) -> Response:
    """Return the response that streams events to one client, or the refusal of it."""
    admission = read_query(request.scope["query_string"], config)
    if isinstance(admission, Admission):
        admission = driver.node.admit(Transport.SSE) or admission
    if isinstance(admission, Refusal):
        return refusal_response(admission)
    if request.method == "HEAD":
        return Response(headers={name.decode(): value.decode() for name, value in EVENT_STREAM_HEADERS})
    return EventStreamResponse(driver, config, secrets.token_hex(8), admission)


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
        driver.attach(
            outlet,
            connection_id,
            user_id=self._admission.user_id,
            transport=Transport.SSE,
            channels=self._admission.channels,
        )
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
