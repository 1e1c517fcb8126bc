"""The WebSocket client of the realtime protocol: connects, stays connected, and carries what the user says."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Final, TypeVar

import attrs

from rtcore import ClientConfig, ConnectionFailed, LocalProtocolError, Message, WebSocket, WebSocketConfig
from rtcore.client import Command, Join, Leave, Publish, Request
from rtcore.messages import check_channel

from .background import Background
from .client_request import as_message, credentials, headers_of, take_id, user_id_of, with_query
from .client_tls import ClientCertificate, tls_context
from .client_tokens import Token, TokenSource
from .client_websocket import WebSocketUrl
from .http_publisher import HttpPublisher
from .http_speaker import HttpSpeaker
from .inbox import Handler, Handlers
from .ws_files import FileClient
from .ws_link import WSEndpoint
from .ws_rooms import RoomClient
from .ws_session import WSSession
from .ws_stats import WSStats

__all__ = ["WSClient", "create_ws_client"]

HandlerT = TypeVar("HandlerT", bound=Handler)

_PUBLISHED: Final = frozenset({"channel", "recipient_id"})
_MEMBERSHIP: Final = ("join_channel", "leave_channel", "join_room", "leave_room")

# The server's limit counts what a client sends; with its `meta` and what JSON escapes, a message comes back larger.
# Nobody waits ten seconds for a goodbye; and the time limit for connecting is the client machine's own.
_WEBSOCKET: Final = WebSocketConfig(max_message_size=2**24, close_timeout=3.0, handshake_timeout=None)


class WSClient(HttpSpeaker, RoomClient, FileClient):
    """A client on a WebSocket, under asyncio and trio alike.

    Use it as ``async with WSClient(url) as client``, or by `connect` and `disconnect`. After a loss it connects again,
    joins its channels again, and sends what was queued meanwhile, in order.

    Nothing is lost on the way, or else the client is told. What its channels said while it was away comes first when it
    is back, each message once, in order; where the server cannot tell everything, a message ``gap`` comes in its place:
    ``{"type": "gap", "channel", "epoch", "offset", "reason"}``. What it publishes to a channel or a user is kept until
    the server acknowledges it, and sent again after a loss if the server still knows what it has got; if not, an
    ``error`` with the code ``connection_lost`` says that it may have been published or not. A message for a handler of
    the server's application, ``text`` among them, is sent once, and may be lost with the connection.

    A message of the server goes to the handlers for its type and for ``"*"``, which are called one after the other, or
    if there are none to ``async for message in client``. There the newest `queue_size` messages wait until somebody
    iterates for the first time; from then on none is dropped, and reading pauses while so many wait. It goes on while
    an answer is awaited, so a slow consumer that sends commands all the time has no bound on what waits.
    ``heartbeat`` and ``disconnect`` messages go to handlers only. So does ``rejoined``, which the client makes when a
    membership stands again: ``data`` is what the server says of the channel, with who is in it now under ``presence``.

    A message of type ``binary`` holds a file, with its bytes in ``data``, or names one by its ``url``; `open_file` and
    `save_file` take either.

    Where a membership ends since the client has no right to it any more, a message ``unsubscribed`` says so:
    ``{"type": "unsubscribed", "channel", "code", "reason"}``. It is not joined again.

    Where tokens expire, give the function that they are had from. It is asked for one before each attempt to connect,
    and again in time before that expires, so that the connection goes on. The attempt's ``connect_timeout`` bounds how
    long it may take; what it raises is a failed attempt. A server that refuses its token, or has ended the connection
    since that has expired (close code 4401), is tried again with another, unless it refuses two in a row.

    Args:
        url: ``ws://…/ws`` or ``wss://…/ws``; may name channels to be a member of from the beginning:
            ``?channel=news&channel=sport``.
        token: A JWT, sent in the header ``Authorization``: a text, or an async function that returns a fresh one. It is
            never called twice at a time.
        api_key: Sent in the header ``X-API-Key``.
        user_id: Who it is, for servers that let anybody say so.
        auto_reconnect: Connect again after a loss.
        max_reconnect_attempts: How many attempts in a row may fail before the client gives up; ``None`` for no limit.
        config: More on limits and times; the two before it narrow it.
        websocket: Limits and times of the connection; the default takes messages of up to 16 MiB.
        headers: More headers for the handshake and for HTTP.
        ssl_context: For ``wss``; the system's defaults if left out. Or, in its place:
        ca_file: A PEM file of the authorities to trust, instead of the system's.
        client_certificate: The PEM files of a certificate to show the server and of its key; ``None`` for a key that is
            in the same file.
        queue_size: Messages that may wait for handlers, and for iteration.

    Raises:
        LocalProtocolError: The URL, the credentials or a header are malformed, or a certificate cannot be read.
    """

    def __init__(
        self,
        url: str,
        *,
        token: Token | None = None,
        api_key: str | None = None,
        user_id: str | int | None = None,
        auto_reconnect: bool = True,
        max_reconnect_attempts: int | None = None,
        config: ClientConfig | None = None,
        websocket: WebSocketConfig | None = None,
        headers: Mapping[str, str] | None = None,
        ssl_context: ssl.SSLContext | None = None,
        ca_file: str | os.PathLike[str] | None = None,
        client_certificate: ClientCertificate | None = None,
        queue_size: int = 1000,
    ) -> None:
        config = config or ClientConfig()
        config = attrs.evolve(
            config,
            auto_reconnect=config.auto_reconnect and auto_reconnect,
            max_reconnect_attempts=config.max_reconnect_attempts
            if max_reconnect_attempts is None
            else max_reconnect_attempts,
        )
        if user_id is not None:
            url = with_query(url, [("user_id", user_id_of(user_id))])
        fixed, tokens = TokenSource.of(token)
        ssl_context = tls_context(ssl_context, ca_file, client_certificate)
        all_headers = credentials(fixed, api_key) + headers_of(headers or {})
        parsed, channels = WebSocketUrl.parse(url).without_field("channel")
        for channel in channels:
            if refusal := check_channel(channel):
                raise LocalProtocolError(refusal.message)
        self._endpoint = WSEndpoint(
            parsed,
            tuple(dict.fromkeys(channels)),
            all_headers,
            tokens,
            config,
            websocket or _WEBSOCKET,
            ssl_context,
            queue_size,
        )
        # A request made for nobody: what cannot be written is told here, and not from the background.
        WebSocket.client(
            self._endpoint.websocket,
            host=self._endpoint.url.authority,
            target=self._endpoint.url.target,
            headers=all_headers,
            entropy=bytes,
            now=0.0,
        )
        super().__init__(HttpPublisher(url, headers=all_headers, token=tokens, ssl_context=ssl_context), config)
        self._handlers = Handlers()
        self._background = Background()
        self._session: WSSession | None = None

    # Connecting

    async def connect(self, *, wait: bool = False) -> None:
        """Connect; returns when the server has welcomed the client, and joined it to the channels of the URL.

        After `disconnect` it begins anew: what was missed meanwhile does not come by itself (see `position`).

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
        session = WSSession(self._endpoint, self._handlers, keep_trying=wait)

        async def run() -> None:
            async with self._http.kept_alive():
                await session.run()

        self._session = session
        self._background.start(run)
        welcomed = False
        try:
            await session.started.wait()
            welcomed = session.welcomed
        finally:
            if not welcomed:
                await self._background.stop()
                if self._session is session:
                    self._session = None
        if not welcomed:
            failure = session.failure or session.ending()
            if isinstance(failure, LocalProtocolError):
                raise LocalProtocolError(str(failure)) from failure
            raise ConnectionFailed(str(failure or "disconnected before the connection stood")) from failure

    async def disconnect(self) -> None:
        """Close the connection, within `WebSocketConfig.close_timeout`, and end the client; again is no fault.

        Handlers' calls that have not begun are dropped, and one that is under way is cancelled, unless it is the one
        that disconnects. Iteration ends once it has got what had come before.
        """
        session = self._session
        if session is None:
            return
        session.disconnect()
        if not self._background.running:
            return
        try:
            await session.settled.wait()
        finally:
            if not session.inbox.in_handler:
                await self._background.stop()

    async def __aenter__(self) -> WSClient:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.disconnect()

    @property
    def connected(self) -> bool:
        """Whether the connection stands."""
        return self._session is not None and self._session.connected

    @property
    def connection_id(self) -> str | None:
        """The server's name for the connection, or for the last one; ``None`` before the first."""
        return None if self._session is None else self._session.connection_id

    @property
    def user_id(self) -> str | None:
        """The user that the server takes the client for."""
        return None if self._session is None else self._session.user_id

    @property
    def stats(self) -> WSStats:
        """What has been done since `connect`."""
        return WSStats() if self._session is None else self._session.stats

    # Receiving

    def on_message(self, type: str) -> Callable[[HandlerT], HandlerT]:
        """Register a handler for a type of message, or for all with ``"*"``, at any time.

        The handler, async or not, gets the message's ``data`` where it has one, else the whole message; with a second
        parameter, the message too. What it raises is logged to ``rtcore.client``.

        Raises:
            LocalProtocolError: The handler takes no argument.
        """

        def register(handler: HandlerT) -> HandlerT:
            self._handlers.add(type, handler)
            return handler

        return register

    def __aiter__(self) -> WSClient:
        return self

    async def __anext__(self) -> Message:
        """Return the next message that has no handler.

        Raises:
            ConnectionClosed: The client has ended for good, and not by `disconnect`.
            LocalProtocolError: The client was never connected.
        """
        session = self._require_session()
        message = await session.inbox.get()
        if message is not None:
            return message
        if (ending := session.ending()) is not None:
            raise ending
        raise StopAsyncIteration

    # Sending. All of these queue while there is no connection, and raise, before anything is sent or queued,
    # LocalProtocolError where the client is not connected or JSON cannot express the message, QueueFull where the
    # queue is full, and ConnectionClosed where the client has ended for good. While there is a connection, they wait
    # rather than have more than `ClientConfig.max_unacknowledged` publications under way.

    async def send_text(self, text: str, *, ack: bool = False) -> Message | None:
        """Send ``{"type": "text", "data": text}``; see `send_json`."""
        return await self.send_json({"type": "text", "data": text}, ack=ack)

    async def send_json(self, message: object, *, ack: bool = False) -> Message | None:
        """Send a message; one that is not an object becomes ``{"type": "text", "data": message}``.

        What is for a channel or a user is published once: it is kept until it is acknowledged, whether anybody waits
        for that or not, and so survives a loss of the connection. Cancelling ends the waiting and takes nothing back.

        Args:
            message: With a ``type``; for a channel or a user it may be left out. An ``id`` of its own, a string of at
                most 255 characters or a whole number, makes a publication idempotent beyond this client: another one
                of the same user's with that id, within the server's window, is acknowledged and not published.
            ack: Wait for the acknowledgement, and return it. Otherwise the answer comes as a message if there is an
                ``id``, and only a refusal if there is none.

        Returns:
            ``{"channel", "offset", "epoch"}`` or what else the server answers; ``None`` without `ack`.

        Raises:
            CommandError: With `ack`, the server refused it, or did not answer in time.
            ConnectionClosed: With `ack`, the connection was lost before the answer came, and the server does not know
                whether it had got it; or it was for a handler of the server's application.
        """
        whole = as_message(message)
        if "type" not in whole:
            if "channel" in whole:
                whole["type"] = "channel_message"
            elif "recipient_id" in whole:
                whole["type"] = "user_message"
            elif not isinstance(message, Mapping):
                whole["type"] = "text"
        session = await self._ready()
        command = whole["command"] if whole.get("type") == "command" else None
        if isinstance(command, str) and (ack or command in _MEMBERSHIP):
            data = whole.get("data")
            request = Request(command, data if isinstance(data, Mapping) else {})
            if ack:
                return await self._outcome(session, request)
            # The machine must know of memberships, which it makes last.
            session.post(request, whole.get("id"))
        elif ack or (command is None and (_PUBLISHED & whole.keys() or whole.get("type") == "webrtc_signal")):
            own_id = take_id(whole)
            await session.find_room()
            if ack:
                return await self._outcome(session, Publish(whole))
            session.post(Publish(whole), own_id)
        else:
            session.send(whole)
        await session.drain()
        return None

    async def send_command(self, name: str, data: Mapping[str, object] | None = None) -> Message:
        """Give the server a command, and return the data of its response.

        ``join_channel`` and ``leave_channel`` are `subscribe_to_channel` and `unsubscribe_from_channel`, ``join_room``
        and ``leave_room`` are `join_room` and `leave_room`.

        Raises:
            CommandError: The server refused it, or did not answer in time.
            ConnectionClosed: The connection was lost before the answer came; it may have been carried out or not.
        """
        return await self._outcome(await self._ready(), Request(name, data or {}))

    async def send_to_channel(self, channel: str, message: object, *, ack: bool = False) -> Message | None:
        """Publish to a channel; see `send_json`. A message that is not an object becomes ``{"data": message}``."""
        whole = as_message(message)
        return await self.send_json({"type": "channel_message", **whole, "channel": channel}, ack=ack)

    async def send_to_user(self, user_id: str | int, message: object, *, ack: bool = False) -> Message | None:
        """Publish to every connection of a user, likewise."""
        whole = as_message(message)
        return await self.send_json({"type": "user_message", **whole, "recipient_id": user_id_of(user_id)}, ack=ack)

    async def subscribe_to_channel(
        self,
        channel: str,
        filters: Mapping[str, object] | None = None,
        *,
        since: Mapping[str, object] | None = None,
    ) -> Message:
        """Be a member of a channel, now and after each reconnection.

        Args:
            channel: The channel.
            filters: What of it to hear, such as ``{"types": ["goal"]}``; ``None`` for everything.
            since: A `position` up to which it was heard before: what came after it is told first, in order; or, where
                the server cannot tell all of it, a ``gap``.

        Returns:
            What the server says of it: ``{"channel", "offset", "epoch", "replayed", "presence"?}``, and with `since`
            also ``recovered``.

        Raises:
            CommandError: The server refused it, or did not answer in time: the client is no member.
        """
        data = {name: value for name, value in (("filters", filters), ("since", since)) if value is not None}
        return await self._outcome(await self._ready(), Join(channel, data))

    async def unsubscribe_from_channel(self, channel: str) -> Message:
        """Be a member of a channel no longer.

        Raises:
            CommandError: The server refused it, or did not answer in time.
        """
        return await self._outcome(await self._ready(), Leave(channel))

    def position(self, channel: str) -> Message | None:
        """Return how far a channel was heard, ``{"epoch", "offset"}``, for a later ``since``; ``None`` for no member.

        It moves before the message that moves it is handled. For what was handled, take them from its ``meta``.
        """
        return None if self._session is None else self._session.position(channel)

    async def history(
        self, channel: str, *, limit: int | None = None, after: int | None = None, before: int | None = None
    ) -> Message:
        """Return a part of what a channel has said.

        Args:
            channel: The channel.
            limit: How many publications at most; the server's choice if left out.
            after: The offset that they come after, the oldest of them first; or
            before: the offset that they come before, the newest of them. Without either they are the newest.

        Returns:
            ``{"channel", "epoch", "offset", "publications", "more", "complete"}``: the publications in order, whether
            there are more in that direction, and whether none is missing because it is no longer held.

        Raises:
            CommandError: The server refused it, or did not answer in time.
            ConnectionClosed: The connection was lost before the answer came.
        """
        fields = (("limit", limit), ("after", after), ("before", before))
        data = {name: value for name, value in fields if value is not None}
        return await self.send_command("history", {"channel": channel, **data})

    async def presence(self, channel: str) -> Message:
        """Return who is in a channel, ``{"channel", "count", "users"}``; ``users`` is ``None`` where they are too many.

        Raises:
            CommandError: The server refused it, or did not answer in time.
            ConnectionClosed: The connection was lost before the answer came.
        """
        return await self.send_command("presence", {"channel": channel})

    async def ping(self) -> float:
        """Return how long a command takes there and back, in seconds.

        Raises:
            CommandError: The server did not answer in time.
            ConnectionClosed: The connection was lost before the answer came.
        """
        session = await self._ready()
        began = session.now()
        await self._outcome(session, Request("ping"))
        return session.now() - began

    # Inside

    def _require_session(self) -> WSSession:
        if self._session is None:
            raise LocalProtocolError("the client is not connected: connect() first")
        return self._session

    async def _ready(self) -> WSSession:
        session = self._require_session()
        await session.settle()
        return session

    @staticmethod
    async def _outcome(session: WSSession, command: Command) -> Message:
        data = await session.outcome(session.request(command))
        if isinstance(data, dict):
            return data
        return {} if data is None else {"data": data}


#: `WSClient` under the name that goes with `create_sse_client`.
create_ws_client = WSClient
