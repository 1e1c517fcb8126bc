"""The native server as a host of ASGI applications (ASGI 3.0): HTTP, WebSocket and lifespan."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from http.client import responses
from typing import Any, Final, TypeAlias
from urllib.parse import unquote_to_bytes

import anyio
import h11
from anyio.abc import TaskGroup

from rtcore import CloseCode, RtcoreError
from rtcore.websocket import Accept, BytesReceived, Close, Reject, SendBytes, SendText, TextReceived

from .carriers import Carrier
from .websocket_endpoint import WebSocketLink

__all__ = [
    "ASGIApp",
    "Address",
    "HttpExchange",
    "Lifespan",
    "LifespanError",
    "Message",
    "Receive",
    "Scope",
    "Send",
    "reason_of",
    "scope_of",
    "serve_websocket",
]

_log = logging.getLogger("rtcore.asgi")

# The shapes of ASGI messages are the specification's, not ours.
Message: TypeAlias = MutableMapping[str, Any]
Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

#: An ASGI 3.0 application.
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
#: A host and port.
Address: TypeAlias = tuple[str, int]


class LifespanError(RtcoreError):
    """The application cannot start; the message says why."""


_BODY_TIMEOUT: Final = 30.0
_ASGI: Final = {"version": "3.0", "spec_version": "2.4"}


def scope_of(request: h11.Request, *, kind: str, scheme: str, client: Address | None, server: Address) -> Scope:
    """Return the connection scope of a request."""
    target, _, query = request.target.partition(b"?")
    return {
        "type": kind,
        "asgi": dict(_ASGI),
        "http_version": request.http_version.decode(),
        "scheme": scheme,
        "path": unquote_to_bytes(target).decode("utf-8", "replace"),
        "raw_path": target,
        "query_string": query,
        "root_path": "",
        "headers": list(request.headers),
        "client": client,
        "server": server,
    }


def reason_of(status: int) -> bytes:
    """Return the reason phrase of an HTTP status, empty for an unknown one."""
    return responses.get(status, "").encode()


class HttpExchange:
    """One request and its response on an HTTP/1.1 connection.

    Args:
        http: The parser, which has just given `request`.
        carrier: What it reads from and writes to.
        request: The request.
    """

    def __init__(self, http: h11.Connection, carrier: Carrier, request: h11.Request) -> None:
        self._http = http
        self._carrier = carrier
        self._request = request
        self._body_read = False
        self._disconnected = False
        self._responded = anyio.Event()
        self._head: h11.Response | None = None

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        """Have the application answer; if it fails to, answer 500, or end a response that it has begun."""
        try:
            await app(scope, self._receive, self._send)
        except Exception:
            _log.exception("the application failed on %s", scope["path"])
        if not self._responded.is_set():
            if self._http.our_state is h11.SEND_RESPONSE:
                body = b'{"error":{"code":"internal_error","message":"the server failed to answer this request"}}'
                headers = [("content-type", "application/json"), ("content-length", str(len(body)))]
                self._write(h11.Response(status_code=500, headers=headers, reason=reason_of(500)))
                self._write(h11.Data(data=body))
                self._write(h11.EndOfMessage())
            else:
                # The length of what was begun is not to be had any more: only the end of the connection can say so.
                self._disconnected = True
            self._responded.set()
        await self._carrier.drain()

    @property
    def reusable(self) -> bool:
        """Whether the connection can carry another request."""
        return not self._disconnected and self._http.our_state is h11.DONE and self._http.their_state is h11.DONE

    async def _receive(self) -> Message:
        if self._body_read:
            await self._wait_for_end()
            return {"type": "http.disconnect"}
        if self._http.they_are_waiting_for_100_continue:
            self._write(h11.InformationalResponse(status_code=100, headers=[]))
        while True:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                _log.info("the request's body is malformed: %s", error)
                self._disconnected = True
                return {"type": "http.disconnect"}
            if isinstance(event, h11.Data):
                return {"type": "http.request", "body": bytes(event.data), "more_body": True}
            if isinstance(event, h11.EndOfMessage):
                self._body_read = True
                return {"type": "http.request", "body": b"", "more_body": False}
            data = b""
            if event is h11.NEED_DATA:
                with anyio.move_on_after(_BODY_TIMEOUT):
                    data = await self._carrier.receive()
            if not data:
                self._disconnected = True
                return {"type": "http.disconnect"}
            self._http.receive_data(data)

    async def _wait_for_end(self) -> None:
        """Wait until the response is through or the client is gone."""
        if not self._responded.is_set() and not self._disconnected and not self._http.trailing_data[0]:
            async with anyio.create_task_group() as tasks:

                async def watch() -> None:
                    data = await self._carrier.receive()
                    if data:
                        # The next request already: it waits for its turn, and so does what comes after it.
                        self._http.receive_data(data)
                    else:
                        self._disconnected = True
                        tasks.cancel_scope.cancel()

                tasks.start_soon(watch)
                await self._responded.wait()
                tasks.cancel_scope.cancel()
        elif not self._disconnected:
            await self._responded.wait()

    async def _send(self, message: Message) -> None:
        if self._disconnected:
            raise OSError("the client is gone")
        if message["type"] == "http.response.start":
            if self._head is not None:
                raise RuntimeError("the response has been started already")
            status = message["status"]
            headers = list(message.get("headers", []))
            self._head = h11.Response(status_code=status, headers=headers, reason=reason_of(status))
        elif message["type"] == "http.response.body":
            if self._head is None or self._responded.is_set():
                raise RuntimeError("there is no response under way for this body")
            if self._http.our_state is h11.SEND_RESPONSE:
                self._write(self._head)
            if (body := message.get("body", b"")) and self._request.method != b"HEAD":
                self._write(h11.Data(data=body))
            if not message.get("more_body", False):
                self._write(h11.EndOfMessage())
                self._responded.set()
            await self._carrier.drain()
        else:
            raise RuntimeError(f"an application may not send {message['type']!r} here")

    def _write(self, event: h11.Event) -> None:
        data = self._http.send(event)
        if data:
            self._carrier.write(data)


async def serve_websocket(app: ASGIApp, scope: Scope, link: WebSocketLink, subprotocols: tuple[str, ...]) -> None:
    """Have the application serve a WebSocket whose handshake has been read; ends when either side has ended it."""
    scope["subprotocols"] = list(subprotocols)
    connected = False
    accepted = False
    waiting: list[Message] = []

    async def receive() -> Message:
        nonlocal connected
        if not connected:
            connected = True
            return {"type": "websocket.connect"}
        while True:
            if waiting:
                return waiting.pop(0)
            if link.closed is not None:
                return {
                    "type": "websocket.disconnect",
                    "code": link.closed.code or CloseCode.NO_STATUS_RECEIVED,
                    "reason": link.closed.reason,
                }
            keep(await link.receive())

    def keep(effects: list[Any]) -> None:
        for effect in effects:
            if isinstance(effect, TextReceived):
                waiting.append({"type": "websocket.receive", "text": effect.text})
            elif isinstance(effect, BytesReceived):
                waiting.append({"type": "websocket.receive", "bytes": effect.data})

    async def send(message: Message) -> None:
        nonlocal accepted
        kind = message["type"]
        if link.closed is not None:
            raise OSError("the client is gone")
        if kind == "websocket.accept" and not accepted:
            accepted = True
            keep(link.send(Accept(message.get("subprotocol"), tuple(message.get("headers", ())))))
        elif kind == "websocket.close" and not accepted:
            link.send(Reject(403))
        elif kind == "websocket.close":
            if link.open:
                link.send(Close(message.get("code", 1000), message.get("reason") or ""))
        elif kind == "websocket.send" and accepted:
            if not link.open:
                raise OSError("the WebSocket is closing")
            text = message.get("text")
            link.send(SendBytes(message["bytes"]) if text is None else SendText(text))
            await link.drain()
        else:
            raise RuntimeError(f"an application may not send {kind!r} here")

    try:
        await app(scope, receive, send)
    except Exception:
        _log.exception("the application failed on the WebSocket %s", scope["path"])
        if link.open:
            link.send(Close(CloseCode.INTERNAL_ERROR))
    if not accepted and link.closed is None:
        link.send(Reject(500))
    if link.open:
        link.send(Close())
    while link.closed is None:
        await link.receive()


class Lifespan:
    """The lifespan of an application; one that has none is no fault.

    Attributes:
        state: What the application puts there for all its requests.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.state: dict[str, Any] = {}
        self._app = app
        self._asked = False
        self._failure: str | None = None
        self._started = anyio.Event()
        self._stopping = anyio.Event()
        self._stopped = anyio.Event()

    async def startup(self, tasks: TaskGroup) -> str | None:
        """Start it in `tasks`; returns why the application cannot start, or ``None`` if it can."""
        tasks.start_soon(self._run)
        await self._started.wait()
        return self._failure

    async def shutdown(self, timeout: float) -> None:
        """Tell it to end, and wait at most `timeout` seconds until it has."""
        self._stopping.set()
        with anyio.move_on_after(timeout):
            await self._stopped.wait()

    async def _run(self) -> None:
        try:
            await self._app({"type": "lifespan", "asgi": dict(_ASGI), "state": self.state}, self._receive, self._send)
        except Exception:
            if self._started.is_set():
                _log.exception("the application's lifespan failed")
            else:
                _log.debug("the application has no lifespan", exc_info=True)
        finally:
            self._started.set()
            self._stopped.set()

    async def _receive(self) -> Message:
        if not self._asked:
            self._asked = True
            return {"type": "lifespan.startup"}
        await self._stopping.wait()
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: Message) -> None:
        if message["type"] == "lifespan.startup.failed":
            self._failure = message.get("message") or "the application gives no reason"
        (self._started if message["type"].startswith("lifespan.startup") else self._stopped).set()
