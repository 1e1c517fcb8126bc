"""The native server as a host of ASGI applications (ASGI 3.0): HTTP, WebSocket and lifespan."""

from __future__ import annotations

import logging
import os
import re
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from contextlib import suppress
from http.client import responses
from typing import IO, Any, Final, TypeAlias, cast
from urllib.parse import unquote_to_bytes

import anyio
import attrs
import h11
import msgspec
from anyio.abc import TaskGroup

from rtcore import CloseCode, Refusal, RtcoreError
from rtcore.websocket import Accept, BytesReceived, Close, Reject, SendBytes, SendText, TextReceived

from .carriers import Carrier, SocketCarrier
from .request_body import BodyFault, body_of
from .server_limits import ServerLimits
from .websocket_endpoint import WebSocketLink

__all__ = [
    "ASGIApp",
    "Address",
    "ClientDisconnected",
    "HttpExchange",
    "Lifespan",
    "LifespanError",
    "Message",
    "Receive",
    "Scope",
    "Send",
    "origin_form",
    "reason_of",
    "refuse_request",
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


class ClientDisconnected(OSError):
    """An application sends to a client that is gone.

    "If send() is called on a closed connection the server should raise a server-specific subclass of OSError." (ASGI,
    HTTP & WebSocket Message Format 2.4, "Disconnected Client"). An application that lets it through has not failed.
    """


class LifespanError(RtcoreError):
    """The application cannot start; the message says why."""


# Of a body that the application does not want.
_MAX_SKIPPED: Final = 2**18
_SKIP_TIMEOUT: Final = 5.0
_ASGI: Final = {"version": "3.0", "spec_version": "2.4"}
_ORIGIN: Final = re.compile(rb"https?://[^/?]*", re.IGNORECASE)
_INTERNAL_ERROR: Final = Refusal("internal_error", "the server failed to answer this request", 500)
# Of a response to a handshake these are written by the handshake itself.
_OWN_HEADERS: Final = (b"connection", b"content-length", b"transfer-encoding")


def origin_form(target: bytes) -> bytes:
    """Return a request target as path and query, whichever form it came in."""
    # "a server MUST accept the absolute-form in requests even though most HTTP/1.1 clients will only send the
    # absolute-form to a proxy" (RFC 9112, section 3.2.2)
    if target.startswith(b"/") or not (origin := _ORIGIN.match(target)):
        return target
    rest = target[origin.end() :]
    return rest if rest.startswith(b"/") else b"/" + rest


def scope_of(request: h11.Request, *, kind: str, scheme: str, client: Address | None, server: Address) -> Scope:
    """Return the connection scope of a request."""
    target, _, query = origin_form(request.target).partition(b"?")
    scope: Scope = {
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
    if kind == "http":
        scope["method"] = request.method.decode("ascii")
    else:
        scope["extensions"] = {"websocket.http.response": {}}
    return scope


def reason_of(status: int) -> bytes:
    """Return the reason phrase of an HTTP status, empty for an unknown one."""
    return responses.get(status, "").encode()


def refuse_request(
    http: h11.Connection, refusal: Refusal, fields: Iterable[tuple[bytes, bytes]] = (), *, method: bytes = b""
) -> bytes:
    """Return the bytes that answer the request under way with an error; it is the last on its connection.

    Args:
        http: The connection.
        refusal: The error.
        fields: Headers besides.
        method: Of the request, as far as there is one.
    """
    body = msgspec.json.encode({"error": {"code": refusal.code, "message": refusal.message}})
    headers = [
        *fields,
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
    ]
    if refusal.retry_after is not None:
        headers.append((b"retry-after", b"%d" % refusal.retry_after))
    if refusal.status == 401:
        # "The server generating a 401 response MUST send a WWW-Authenticate header field" (RFC 9110, section 15.5.2)
        headers.append((b"www-authenticate", b"Bearer"))
    response = h11.Response(status_code=refusal.status, headers=headers, reason=reason_of(refusal.status))
    # "The HEAD method is identical to GET except that the server MUST NOT send content in the response" (RFC 9110,
    # section 9.3.2), of which h11 takes none.
    content = b"" if method == b"HEAD" else body
    return b"".join(http.send(event) or b"" for event in (response, h11.Data(data=content), h11.EndOfMessage()))


def _is_departure(error: BaseException | None) -> bool:
    """Tell whether an application's error follows from a client that is gone."""
    while error is not None and not isinstance(error, ClientDisconnected):
        error = error.__cause__ or error.__context__
    return error is not None


class HttpExchange:
    """One request and its response on an HTTP/1.1 connection.

    Args:
        http: The parser, which has just given `request`.
        carrier: What it reads from and writes to.
        request: The request.
        limits: How large what is no body may be, and how long the body may stop.
    """

    def __init__(self, http: h11.Connection, carrier: Carrier, request: h11.Request, limits: ServerLimits) -> None:
        self._http = http
        self._carrier = carrier
        self._request = request
        self._body = body_of(request, http, carrier, limits)
        self._body_read = False
        self._body_left = False
        self._disconnected = False
        self._fault: Refusal | None = None
        self._responded = anyio.Event()
        self._head: h11.Response | None = None

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        """Have the application answer; if it fails to, answer 500, or end a response that it has begun."""
        if isinstance(self._carrier, SocketCarrier):
            scope["extensions"] = {"http.response.zerocopysend": {}}
        try:
            await app(scope, self._receive, self._send)
        except Exception as error:
            if _is_departure(error) or (self._disconnected and not self._body_read):
                _log.info("the client left before %s was through: %r", scope["path"], error)
            else:
                _log.exception("the application failed on %s", scope["path"])
        if not self._responded.is_set():
            if self._http.our_state is h11.SEND_RESPONSE and not self._carrier.gone:
                fault = self._fault or _INTERNAL_ERROR
                self._carrier.write(refuse_request(self._http, fault, method=self._request.method))
            # The length of what was begun is not to be had any more: only the end of the connection can say so.
            self._disconnected = True
            self._responded.set()
        await self._carrier.drain()
        if not self._disconnected:
            await self._skip_body()

    @property
    def reusable(self) -> bool:
        """Whether the connection can carry another request."""
        return not self._disconnected and self._http.our_state is h11.DONE and self._body.lets_follow

    def next_cycle(self) -> h11.Connection:
        """Return the parser for the next request, where the connection is `reusable`."""
        return self._body.next_cycle()

    async def _receive(self) -> Message:
        if self._body_read:
            await self._wait_for_end()
            return {"type": "http.disconnect"}
        if self._http.they_are_waiting_for_100_continue:
            self._write(h11.InformationalResponse(status_code=100, headers=[]))
        try:
            data = await self._body.read()
        except BodyFault as error:
            self._fault = error.refusal
            self._disconnected = True
            return {"type": "http.disconnect"}
        self._body_read = self._body.complete
        return {"type": "http.request", "body": data, "more_body": not self._body_read}

    def _leaves_body(self) -> bool:
        """Tell whether more of the request's body may be left than `_skip_body` would read."""
        if self._body.complete:
            return False
        return self._http.they_are_waiting_for_100_continue or self._body.may_exceed(_MAX_SKIPPED)

    async def _skip_body(self) -> None:
        """Read what the application has not, within limits: only then can the connection carry another request."""
        left = _MAX_SKIPPED
        with anyio.move_on_after(_SKIP_TIMEOUT), suppress(BodyFault):
            while not self._body.complete and not self._body_left and left >= 0:
                left -= len(await self._body.read())

    async def _wait_for_end(self) -> None:
        """Wait until the response is through or the client is gone."""
        if not self._responded.is_set() and not self._disconnected and not self._body.has_next:
            async with anyio.create_task_group() as tasks:

                async def watch() -> None:
                    data = await self._carrier.receive()
                    if data:
                        # The next request already: it waits for its turn, and so does what comes after it.
                        self._body.keep(data)
                    else:
                        self._disconnected = True
                        tasks.cancel_scope.cancel()

                tasks.start_soon(watch)
                await self._responded.wait()
                tasks.cancel_scope.cancel()
        elif not self._disconnected:
            await self._responded.wait()

    async def _send(self, message: Message) -> None:
        if self._disconnected or self._carrier.gone:
            raise ClientDisconnected("the client is gone")
        if message["type"] == "http.response.start":
            if self._head is not None:
                raise RuntimeError("the response has been started already")
            status = message["status"]
            headers = list(message.get("headers", []))
            self._head = h11.Response(status_code=status, headers=headers, reason=reason_of(status))
        elif message["type"] == "http.response.body":
            self._begin_body()
            if (body := message.get("body", b"")) and self._request.method != b"HEAD":
                self._write(h11.Data(data=body))
            await self._end_body(message)
        elif message["type"] == "http.response.zerocopysend" and isinstance(self._carrier, SocketCarrier):
            self._begin_body()
            if self._request.method != b"HEAD":
                await self._send_file(self._carrier, message["file"], message.get("offset"), message.get("count"))
            await self._end_body(message)
        else:
            raise RuntimeError(f"an application may not send {message['type']!r} here")

    def _begin_body(self) -> None:
        """Write the head, unless that is done."""
        if self._head is None or self._responded.is_set():
            raise RuntimeError("there is no response under way for this body")
        if self._http.our_state is h11.SEND_RESPONSE:
            if self._leaves_body():
                self._body_left = True
                # "A server that does not support persistent connections MUST send the "close" connection option in
                # every response message" (RFC 9112, section 9.3): without it the next request would be lost.
                headers = [*self._head.headers, (b"connection", b"close")]
                self._head = h11.Response(status_code=self._head.status_code, headers=headers, reason=self._head.reason)
            self._write(self._head)

    async def _end_body(self, message: Message) -> None:
        if not message.get("more_body", False):
            self._write(h11.EndOfMessage())
            self._responded.set()
        await self._carrier.drain()

    async def _send_file(self, carrier: SocketCarrier, file: IO[bytes], offset: int | None, count: int | None) -> None:
        """Send a part of a file, to its end without a `count`, or from where it stands without an `offset`."""
        descriptor = file.fileno()
        start = os.lseek(descriptor, 0, os.SEEK_CUR) if offset is None else offset
        size = max(os.fstat(descriptor).st_size - start, 0) if count is None else count
        if not size:
            return
        # For the framing only the length matters: what is of `size` bytes is passed through as it is.
        part = cast(bytes, range(size))
        for data in self._http.send_with_data_passthrough(h11.Data(data=part)) or ():
            if data is not part:
                carrier.write(data)
            elif (sent := await carrier.send_file(descriptor, start, size)) < size:
                if carrier.gone:
                    raise ClientDisconnected("the client is gone")
                raise RuntimeError(f"the file ends at {start + sent}, and {size} bytes from {start} on were to be sent")
        if offset is None:
            os.lseek(descriptor, start + size, os.SEEK_SET)

    def _write(self, event: h11.Event) -> None:
        data = self._http.send(event)
        if data:
            self._carrier.write(data)


async def serve_websocket(app: ASGIApp, scope: Scope, link: WebSocketLink, subprotocols: tuple[str, ...]) -> None:
    """Have the application serve a WebSocket whose handshake has been read; ends when either side has ended it."""
    scope["subprotocols"] = list(subprotocols)
    connected = False
    accepted = False
    denial: Reject | None = None
    waiting: deque[Message] = deque()

    async def receive() -> Message:
        nonlocal connected
        if not connected:
            connected = True
            return {"type": "websocket.connect"}
        while True:
            if waiting:
                return waiting.popleft()
            if link.closed is not None:
                return {
                    "type": "websocket.disconnect",
                    "code": link.closed.code or CloseCode.NO_STATUS_RECEIVED,
                    "reason": link.closed.reason,
                }
            link.resume()
            keep(await link.receive())

    def keep(effects: list[Any]) -> None:
        for effect in effects:
            if isinstance(effect, TextReceived):
                waiting.append({"type": "websocket.receive", "text": effect.text})
            elif isinstance(effect, BytesReceived):
                waiting.append({"type": "websocket.receive", "bytes": effect.data})

    async def send(message: Message) -> None:
        nonlocal accepted, denial
        kind = message["type"]
        if link.closed is not None:
            raise ClientDisconnected("the client is gone")
        if kind == "websocket.accept" and not accepted:
            opening = link.send(Accept(message.get("subprotocol"), tuple(message.get("headers", ()))))
            accepted = True
            keep(opening)
        elif kind == "websocket.http.response.start" and not accepted:
            headers = tuple(header for header in message.get("headers", ()) if header[0].lower() not in _OWN_HEADERS)
            denial = Reject(message["status"], headers)
        elif kind == "websocket.http.response.body" and denial is not None:
            denial = attrs.evolve(denial, body=denial.body + message.get("body", b""))
            if not message.get("more_body", False):
                link.send(denial)
        elif kind == "websocket.close" and not accepted:
            link.send(Reject(403))
        elif kind == "websocket.close":
            if link.open:
                link.send(Close(message.get("code", 1000), message.get("reason") or ""))
        elif kind == "websocket.send" and accepted:
            if not link.open or link.gone:
                raise ClientDisconnected("the client is gone, or about to be")
            text = message.get("text")
            link.send(SendBytes(message["bytes"]) if text is None else SendText(text))
            await link.drain()
        else:
            raise RuntimeError(f"an application may not send {kind!r} here")

    try:
        await app(scope, receive, send)
    except Exception as error:
        if not _is_departure(error):
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
