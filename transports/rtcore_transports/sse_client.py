"""The event stream client of the realtime protocol: hears by Server-Sent Events, speaks over HTTP."""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from types import TracebackType
from typing import Final, TypeVar
from urllib.parse import urlsplit

import httpx2

from rtcore import ClientConfig, ConnectionFailed, EventSourceConfig, LocalProtocolError, Message

from .background import Background
from .client_request import credentials, headers_of, reason_of, shown_url, user_id_of, with_query
from .client_tls import ClientCertificate, tls_context
from .client_tokens import Token, TokenSource
from .http_publisher import HttpPublisher
from .http_speaker import HttpSpeaker
from .inbox import Handler, Handlers
from .sse_session import ReceivedEvent, SSEEndpoint, SSESession

__all__ = ["SSEClient", "create_sse_client"]

HandlerT = TypeVar("HandlerT", bound=Handler)

# Two and a half of the server's default heartbeats: one may be late, two are not.
_CONFIG: Final = EventSourceConfig(idle_timeout=75.0)


class SSEClient(HttpSpeaker):
    """A client on an event stream, under asyncio and trio alike.

    Use it as ``async with SSEClient(url) as client``, or by `connect` and `disconnect`. After a loss it connects again,
    and asks the server to resume after the last event.

    An event goes to the handlers for its name and for ``"*"``, which are called one after the other, or if there are
    none to `events`. There the newest `queue_size` events wait until somebody iterates for the first time; from then on
    none is dropped, and reading pauses while so many wait. ``connected``, ``heartbeat`` and ``disconnect`` of the
    protocol go to handlers only.

    Where a channel ends for it since it has no right to it any more, an event ``unsubscribed`` says so, and the channel
    is not asked for again.

    Where tokens expire, give the function that they are had from. It is asked for one before each attempt to connect.
    An event stream cannot be given a fresh token: when the old one has expired, the server ends the stream, and the
    client connects again at once with another, after the last event that it has heard, so nothing is lost. A stream
    that had not stood for `EventSourceConfig.retry` seconds makes it wait as after any other loss. The attempt's
    ``connect_timeout`` bounds how long the function may take; what it raises is a failed attempt. A server that refuses
    its token (401) is tried again with another at once, unless it refuses two in a row.

    Args:
        url: ``http://…/events`` or ``https://…/events``.
        channel: What to hear: a channel, or several.
        token: A JWT, sent in the header ``Authorization``: a text, or an async function that returns a fresh one. It is
            never called twice at a time.
        api_key: Sent in the header ``X-API-Key``.
        user_id: Who it is, for servers that let anybody say so.
        auto_reconnect: Connect again after a loss.
        max_reconnect_attempts: How many attempts in a row may bring no event before the client gives up; ``None`` for
            any number.
        config: Times and limits. The default gives a stream up that is silent for 75 seconds: for a server with rarer
            heartbeats, or none, set ``idle_timeout``.
        headers: More headers for all requests.
        ssl_context: For ``https``; the defaults of httpx2 if left out. Or, in its place:
        ca_file: A PEM file of the authorities to trust, instead of the system's.
        client_certificate: The PEM files of a certificate to show the server and of its key; ``None`` for a key that is
            in the same file.
        queue_size: Events that may wait for handlers, and for iteration.
        last_event_id: The id to resume after.

    Raises:
        LocalProtocolError: The URL, the credentials or a header are malformed, or a certificate cannot be read.
    """

    def __init__(
        self,
        url: str,
        *,
        channel: str | Sequence[str] | None = None,
        token: Token | None = None,
        api_key: str | None = None,
        user_id: str | int | None = None,
        auto_reconnect: bool = True,
        max_reconnect_attempts: int | None = None,
        config: EventSourceConfig | None = None,
        headers: Mapping[str, str] | None = None,
        ssl_context: ssl.SSLContext | None = None,
        ca_file: str | os.PathLike[str] | None = None,
        client_certificate: ClientCertificate | None = None,
        queue_size: int = 1000,
        last_event_id: str = "",
    ) -> None:
        channels = [channel] if isinstance(channel, str) else channel or ()
        fields = [("channel", name) for name in channels]
        if user_id is not None:
            fields.append(("user_id", user_id_of(user_id)))
        whole = with_query(url, fields)
        _check_url(whole)
        fixed, tokens = TokenSource.of(token)
        ssl_context = tls_context(ssl_context, ca_file, client_certificate)
        all_headers = credentials(fixed, api_key) + headers_of(headers or {})
        self._endpoint = SSEEndpoint(
            whole,
            all_headers,
            tokens,
            config or _CONFIG,
            auto_reconnect,
            max_reconnect_attempts,
            ssl_context,
            queue_size,
        )
        super().__init__(
            HttpPublisher(url, headers=all_headers, token=tokens, ssl_context=ssl_context),
            ClientConfig(auto_reconnect=auto_reconnect, max_reconnect_attempts=max_reconnect_attempts),
        )
        self._handlers = Handlers()
        self._background = Background()
        self._session: SSESession | None = None
        self._last_event_id = last_event_id

    # Connecting

    async def connect(self, *, wait: bool = False) -> None:
        """Connect; returns when the stream is open. After `disconnect` it resumes where it was.

        Args:
            wait: If the first attempt fails, try again, as after a loss. Otherwise one failure is enough.

        Raises:
            ConnectionFailed: The attempt failed, or with `wait` the last one that was to be made; nothing is left.
            LocalProtocolError: The client is connected, or about to be, or about to end. Nothing has changed. Or what
                is to return a token returns something else.
        """
        if self._background.running:
            if self._session is None or not self._session.ended or self._session.inbox.in_handler:
                raise LocalProtocolError("the client is connected already: disconnect() first")
            await self._background.stop()
        session = SSESession(self._endpoint, self._handlers, last_event_id=self.last_event_id, keep_trying=wait)

        async def run() -> None:
            async with self._http.kept_alive():
                await session.run()

        self._session = session
        self._background.start(run)
        opened = False
        try:
            await session.started.wait()
            opened = session.connections > 0
        finally:
            if not opened:
                await self._background.stop()
                if self._session is session:
                    self._session = None
        if not opened:
            failure = session.failure
            if isinstance(failure, LocalProtocolError):
                raise LocalProtocolError(str(failure)) from failure
            reason = "disconnected before the stream was open" if failure is None else reason_of(failure)
            raise ConnectionFailed(reason) from failure

    async def disconnect(self) -> None:
        """Close the stream, and end the client; again is no fault.

        Handlers' calls that have not begun are dropped, and one that is under way is cancelled, unless it is the one
        that disconnects. Iteration ends once it has got what had come before.
        """
        session = self._session
        if session is not None:
            self._last_event_id = session.last_event_id
            session.disconnect()
            if self._background.running and not session.inbox.in_handler:
                await self._background.stop()

    async def __aenter__(self) -> SSEClient:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.disconnect()

    @property
    def connected(self) -> bool:
        """Whether the stream is open."""
        return self._session is not None and self._session.connected

    @property
    def connection_id(self) -> str | None:
        """The server's name for the connection, once it has told."""
        return None if self._session is None else self._session.connection_id

    @property
    def user_id(self) -> str | None:
        """The user that the server takes the client for."""
        return None if self._session is None else self._session.user_id

    @property
    def last_event_id(self) -> str:
        """The id to resume after, empty where there is none."""
        return self._last_event_id if self._session is None else self._session.last_event_id

    @property
    def dropped(self) -> int:
        """How many events nobody took, which made room for newer ones, since `connect`."""
        return 0 if self._session is None else self._session.inbox.dropped

    # Receiving

    def on_event(self, name: str) -> Callable[[HandlerT], HandlerT]:
        """Register a handler for a name of events, or for all with ``"*"``, at any time.

        Events without a name are called ``message``; one whose JSON has a ``type`` goes to the handlers for that too.

        The handler, async or not, gets the ``data`` of the event's JSON where it has one, else the JSON, else the text;
        with a second parameter, the event too. What it raises is logged to ``rtcore.client``.

        Raises:
            LocalProtocolError: The handler takes no argument.
        """

        def register(handler: HandlerT) -> HandlerT:
            self._handlers.add(name, handler)
            return handler

        return register

    def events(self) -> AsyncIterator[ReceivedEvent]:
        """Iterate over the events that have no handler, until `disconnect`, or until the server wants no more (204).

        Raises:
            ConnectionClosed: By the iterator, if the client has ended for good for any other reason.
            LocalProtocolError: The client is not connected.
        """
        session = self._session
        if session is None:
            raise LocalProtocolError("the client is not connected: connect() first")
        return _Events(session)

    # Over HTTP, connected or not, as `broadcast` and `send_notification`.

    async def send_to_channel(self, channel: str, message: object) -> Message:
        """Publish to a channel. A message that is not an object becomes ``{"data": message}``."""
        return await self._http.send_to_channel(channel, message)

    async def send_to_user(self, user_id: str | int, message: object) -> Message:
        """Publish to every connection of a user, likewise."""
        return await self._http.send_to_user(user_id, message)


class _Events:
    """The events of one session. Not a generator, which trio wants to be closed wherever a loop is left early."""

    __slots__ = ("_session",)

    def __init__(self, session: SSESession) -> None:
        self._session = session

    def __aiter__(self) -> AsyncIterator[ReceivedEvent]:
        return self

    async def __anext__(self) -> ReceivedEvent:
        event = await self._session.inbox.get()
        if event is not None:
            return event
        if (ending := self._session.ending()) is not None:
            raise ending
        raise StopAsyncIteration


def _check_url(url: str) -> None:
    try:
        httpx2.Request("GET", url)
        parts = urlsplit(url)
    except (httpx2.InvalidURL, ValueError):
        raise LocalProtocolError(f"{shown_url(url)} is not a URL") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise LocalProtocolError(f"{shown_url(url)} does not begin with http://HOST or https://HOST")
    if "@" in parts.netloc:
        raise LocalProtocolError("credentials do not belong in a URL: use a token or a header")


#: `SSEClient` under the name that goes with `create_ws_client`.
create_sse_client = SSEClient
