"""One life of an `SSEClient`, from ``connect`` to the end: drives `rtcore.EventSource` over its requests."""

from __future__ import annotations

import logging
import random
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Final, assert_never

import anyio
import attrs
import httpx2
import msgspec
from anyio.abc import TaskGroup

from rtcore import (
    CloseCode,
    ConnectionClosed,
    ConnectionFailed,
    Event,
    EventSource,
    EventSourceConfig,
    LocalProtocolError,
)
from rtcore.event_source import Connect, Disconnected, Effect, EventReceived, Failed, Opened, State
from rtcore.handshake import Headers

from .alarm import Alarm
from .client_request import reason_of, refusal_in, with_query, without_query
from .client_tokens import TokenSource, bearer
from .http_publisher import new_http_client, origin_of, unwind
from .inbox import Handlers, Inbox

__all__ = ["ReceivedEvent", "SSEEndpoint", "SSESession"]

_log = logging.getLogger("rtcore.client")

# What is told about the connection rather than said to the user: only handlers that ask for it get it.
_HOUSEKEEPING: Final = ("connected", "heartbeat", "disconnect")
# After a pause in reading, what came meanwhile is read before anybody concludes that nothing came.
_GRACE: Final = 1.0
_MAX_REDIRECTS: Final = 5
_MAX_ERROR_BODY: Final = 16384

_HEADERS: Final[Headers] = (
    (b"accept", b"text/event-stream"),
    (b"accept-encoding", b"identity"),
    (b"cache-control", b"no-store"),
)


@attrs.frozen
class ReceivedEvent(Event):
    """One event of the stream: its type in `event`, its text in `data`, and the id to resume after in `id`."""

    def json(self) -> object:
        """Return what the text means as JSON.

        Raises:
            ValueError: It is no JSON.
        """
        return msgspec.json.decode(self.data)


@attrs.frozen
class SSEEndpoint:
    """Where a client finds its stream, and how it keeps it.

    Attributes:
        url: Of the stream, query included.
        headers: For each request.
        tokens: Where each request gets a token, if that is not among the headers.
        config: Times and limits.
        auto_reconnect: Whether to connect again after a loss.
        max_reconnect_attempts: How many attempts in a row, after the first, may bring no event, or ``None``.
        ssl_context: For ``https``.
        queue_size: Events that may wait for handlers, and for iteration.
    """

    url: str
    headers: Headers = attrs.field(repr=False)
    tokens: TokenSource | None
    config: EventSourceConfig
    auto_reconnect: bool
    max_reconnect_attempts: int | None
    ssl_context: ssl.SSLContext | None
    queue_size: int


class SSESession:
    """Runs one event source.

    Args:
        endpoint: Where and how.
        handlers: The user's; more may be added.
        last_event_id: The id to resume after.
        keep_trying: Whether the first attempt may fail without ending the session.
        clock: Monotonic seconds.

    Attributes:
        inbox: What has come in.
        connections: How many streams there have been.
        connection_id: The server's name for the connection, if it tells.
        user_id: The user that the server takes the client for, if it tells.
        failure: What ended the last attempt, if it failed.
        ended: Whether there will be no more connections.
        started: Set once the first stream is open, or there will be none.
    """

    def __init__(
        self,
        endpoint: SSEEndpoint,
        handlers: Handlers,
        *,
        last_event_id: str,
        keep_trying: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.inbox: Inbox[ReceivedEvent] = Inbox(endpoint.queue_size, room=self._resume)
        self.connections = 0
        self.connection_id: str | None = None
        self.user_id: str | None = None
        self.failure: Exception | None = None
        self.ended = False
        self.started = anyio.Event()
        self._endpoint = endpoint
        self._url = endpoint.url
        self._handlers = handlers
        self._keep_trying = keep_trying
        self._clock = clock
        config = endpoint.config
        if endpoint.tokens is not None:
            # Another token may be better.
            config = attrs.evolve(config, retried_statuses=(*config.retried_statuses, 401))
        self._source = EventSource(config, random=random.random, last_event_id=last_event_id)
        self._alarm = Alarm(self._next_timeout, self._handle_timeout, clock=clock)
        self._ending: ConnectionClosed | None = None
        self._farewell: ConnectionClosed | None = None
        # Whether the last token was refused, and whether the server ends the stream since its token has expired.
        self._refused = False
        self._expired = False
        self._opened_at = -inf
        self._fruitless = 0
        self._given_up = anyio.Event()
        self._attempts: TaskGroup | None = None
        self._attempt: anyio.CancelScope | None = None
        self._resumed = anyio.Event()
        self._reading_since: float | None = -inf

    @property
    def connected(self) -> bool:
        """Whether a stream is open."""
        return self._source.state is State.OPEN

    @property
    def last_event_id(self) -> str:
        """The id to resume after."""
        return self._source.last_event_id

    def ending(self) -> ConnectionClosed | None:
        """Return how the session ended, unless that was by the user's wish or the server's."""
        return self._ending

    async def run(self) -> None:
        """Connect, stay connected, and end; cancelling ends it at once."""
        endpoint = self._endpoint
        try:
            async with (
                new_http_client(endpoint.url, endpoint.headers + _HEADERS, endpoint.ssl_context, timeout=None) as http,
                anyio.create_task_group() as tasks,
            ):
                tasks.start_soon(self.inbox.dispatch)
                async with anyio.create_task_group() as self._attempts:
                    self._attempts.start_soon(self._alarm.run)
                    self._http = http
                    self._perform(self._source.connect(now=self._clock()))
                    await self._given_up.wait()
                    self._attempts.cancel_scope.cancel()
        except Exception:
            # A fault of ours, which nobody would hear of in the background.
            _log.exception("the client failed")
        finally:
            self.end(None)

    def disconnect(self) -> None:
        """End the session by the user's wish."""
        self._ending = None
        self.inbox.discard()
        self.end(None)

    def end(self, ending: ConnectionClosed | None) -> None:
        """End the session, unless it has ended."""
        if not self.ended:
            self.ended = True
            self._ending = ending
            self._source.close(now=self._clock())
            self._drop()
            self.inbox.end()
            self._given_up.set()
            self.started.set()

    # One attempt

    async def _run_attempt(self, scope: anyio.CancelScope, last_event_id: str) -> None:
        with scope:
            try:
                response = await self._request(last_event_id)
                try:
                    await self._receive(scope, response)
                finally:
                    await response.aclose()
            except (httpx2.HTTPError, httpx2.InvalidURL, ConnectionFailed, LocalProtocolError) as error:
                # The last two where there is no token.
                self.failure = error
            if self._attempt is scope:
                self._perform(self._source.receive_eof(now=self._clock()))

    async def _request(self, last_event_id: str) -> httpx2.Response:
        url = self._url
        headers: list[tuple[bytes, bytes]] = []
        if (tokens := self._endpoint.tokens) is not None:
            # The event source, which times the attempt, times this too.
            headers += bearer(await tokens.fresh())
        if last_event_id.isprintable() and last_event_id == last_event_id.strip():
            if last_event_id:
                headers.append((b"last-event-id", last_event_id.encode()))
        else:
            # A header cannot carry it; servers of this protocol read the query too.
            url = with_query(url, [("last_event_id", last_event_id)])
        request = self._http.build_request("GET", url, headers=headers)
        response = await self._http.send(request, stream=True)
        for _ in range(_MAX_REDIRECTS):
            following = response.next_request
            # Elsewhere is not where the credentials are meant for.
            if following is None or origin_of(following.url) != origin_of(request.url):
                break
            await response.aclose()
            response = await self._http.send(following, stream=True)
        return response

    async def _receive(self, scope: anyio.CancelScope, response: httpx2.Response) -> None:
        status = response.status_code
        content = response.aiter_raw()
        try:
            body = b""
            if status not in (200, 204):
                async for data in content:
                    body += data
                    if len(body) > _MAX_ERROR_BODY:
                        break
            # What was on its way when the attempt was dropped may arrive before the cancellation does.
            if self._attempt is not scope:
                return
            refusal = refusal_in(status, response.headers, body)
            if status not in (200, 204):
                self.failure = ConnectionFailed(f"{refusal.message} (HTTP status {status})")
            kind = response.headers.get("content-type", "")
            now = self._clock()
            self._perform(self._source.response(status, kind, now=now, retry_after=refusal.retry_after))
            async for data in content:
                if self._attempt is not scope:
                    return
                self._perform(self._source.receive_data(data, now=self._clock()))
                await self._wait_for_room()
        finally:
            await unwind(content)

    async def _wait_for_room(self) -> None:
        while self.inbox.full:
            self._reading_since = None
            self._resumed = anyio.Event()
            await self._resumed.wait()
        if self._reading_since is None:
            self._reading_since = self._clock()
            self._alarm.changed()

    # Inside

    def _resume(self) -> None:
        if not self.inbox.full:
            self._resumed.set()

    def _next_timeout(self) -> float | None:
        at = self._source.next_timeout()
        if at is None or self._source.state is not State.OPEN:
            return at
        # While nothing is read, silence says nothing about the server.
        return None if self._reading_since is None else max(at, self._reading_since + _GRACE)

    def _handle_timeout(self) -> None:
        self._perform(self._source.handle_timeout(now=self._clock()))

    def _perform(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case EventReceived(event=event):
                    self._fruitless = 0
                    self._deliver(ReceivedEvent(event.event, event.data, event.id))
                case Connect(last_event_id=last_event_id):
                    assert self._attempts is not None, "a session that does not run opens nothing"
                    self._attempt = anyio.CancelScope()
                    self._reading_since = -inf
                    self._attempts.start_soon(self._run_attempt, self._attempt, last_event_id)
                case Opened():
                    self.connections += 1
                    self.failure = None
                    self._refused = False
                    self._opened_at = self._clock()
                    self.started.set()
                case Disconnected():
                    self._drop()
                    self._lost(effect)
                case Failed(status=status, reason=reason):
                    self._drop()
                    if self.failure is None:
                        self.failure = ConnectionFailed(reason.value)
                    no_fault = status == 204
                    self.end(None if no_fault else ConnectionClosed(None, reason_of(self.failure)))
                case _:
                    assert_never(effect)
        self._alarm.changed()

    def _lost(self, effect: Disconnected) -> None:
        if self.failure is None:
            self.failure = ConnectionFailed(effect.reason.value)
        refused = effect.status == 401 and self._endpoint.tokens is not None
        ending = self._farewell or ConnectionClosed(None, reason_of(self.failure))
        limit = self._endpoint.max_reconnect_attempts
        if (
            (self._farewell is not None and not self._expired)
            or (refused and self._refused)
            or not self._endpoint.auto_reconnect
            or (limit is not None and self._fruitless >= limit)
            or not (self.connections or self._keep_trying)
        ):
            self.end(ending)
            return
        self._fruitless += 1
        self._refused |= refused
        lasted = self._clock() - self._opened_at >= self._endpoint.config.retry
        expired, self._expired, self._farewell = self._expired and lasted, False, None
        if refused or expired:
            # With another token, nothing stands in the way of another attempt.
            _log.info("the token was refused or has expired (%s): next attempt at once", reason_of(self.failure))
            self._perform(self._source.connect(now=self._clock()))
            return
        _log.info(
            "lost the stream (%s): next attempt in %.1f s", reason_of(self.failure), effect.retry_at - self._clock()
        )

    def _drop(self) -> None:
        """Cancel what is left of the attempt."""
        if self._attempt is not None:
            self._attempt.cancel()
            self._attempt = None

    def _deliver(self, event: ReceivedEvent) -> None:
        value = _value(event)
        kind = value.get("type") if isinstance(value, Mapping) else None
        names = [event.event, "*"]
        if event.event == "message" and isinstance(kind, str) and kind != "message":
            names.insert(1, kind)
        housekeeping = event.event in _HOUSEKEEPING and kind == event.event
        if housekeeping and isinstance(value, Mapping):
            self._take_note(event.event, value)
        if event.event == kind == "unsubscribed" and isinstance(value, Mapping):
            self._url = without_query(self._url, "channel", str(value.get("channel")))
        if callbacks := self._handlers.select(*names):
            data = value.get("data", value) if isinstance(value, Mapping) else value
            self.inbox.call(callbacks, data, event)
        elif not housekeeping:
            self.inbox.put(event)

    def _take_note(self, name: str, message: Mapping[str, object]) -> None:
        if name == "connected":
            connection_id, user_id = message.get("connection_id"), message.get("user_id")
            self.connection_id = connection_id if isinstance(connection_id, str) else None
            self.user_id = user_id if isinstance(user_id, str) else None
        elif name == "disconnect" and message.get("reconnect") is False:
            code = message.get("code")
            self._expired = code == CloseCode.UNAUTHORIZED and self._endpoint.tokens is not None
            self._farewell = ConnectionClosed(code if isinstance(code, int) else None, str(message.get("reason", "")))


def _value(event: ReceivedEvent) -> object:
    try:
        return event.json()
    except (ValueError, RecursionError):
        return event.data
