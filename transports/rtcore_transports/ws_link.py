"""One attempt of a `WSClient` to connect, and the connection that it leads to."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from typing import Final, Protocol, assert_never

import anyio
import attrs

from rtcore import (
    ClientConfig,
    CloseCode,
    ConnectionClosed,
    ConnectionFailed,
    LocalProtocolError,
    RtcoreError,
    WebSocketConfig,
)
from rtcore.handshake import Headers
from rtcore.websocket import Close, Opened, WebSocketState

from .client_request import refusal_in
from .client_tokens import TokenSource, bearer
from .client_websocket import ClientWebSocket, HandshakeRejected, Traffic, WebSocketUrl

__all__ = ["LinkOwner", "WSEndpoint", "WSLink"]

# The close codes that mean the same as a refused handshake; any other status is a fault that stays.
_CODES: Final[Mapping[int, int | None]] = {
    401: CloseCode.UNAUTHORIZED,
    403: CloseCode.FORBIDDEN,
    408: None,
    425: None,
    429: CloseCode.RATE_LIMITED,
    500: CloseCode.INTERNAL_ERROR,
    502: CloseCode.TRY_AGAIN_LATER,
    503: CloseCode.TRY_AGAIN_LATER,
    504: CloseCode.TRY_AGAIN_LATER,
}


@attrs.frozen
class WSEndpoint:
    """Where a client connects, and how.

    Attributes:
        url: Of the WebSocket.
        channels: What the client is a member of from the beginning.
        headers: For the handshake.
        tokens: Where each attempt gets a token, if that is not among the headers.
        client: Limits and times of the client.
        websocket: Those of the connection.
        ssl_context: For TLS.
        queue_size: Messages that may wait for handlers, and for iteration.
    """

    url: WebSocketUrl
    channels: tuple[str, ...]
    headers: Headers = attrs.field(repr=False)
    tokens: TokenSource | None
    client: ClientConfig
    websocket: WebSocketConfig
    ssl_context: ssl.SSLContext | None
    queue_size: int

    def going_on(self, session: str, last_event_id: str | None) -> WSEndpoint:
        """Return the endpoint for the next connection of a client's session, after what it has heard."""
        fields = {"session": session}
        if last_event_id is not None:
            fields["last_event_id"] = last_event_id
        return attrs.evolve(self, url=self.url.with_fields(fields))


class LinkOwner(Protocol):
    """Whom a link tells what becomes of it. Nothing here may block or raise."""

    def opened(self) -> None:
        """The WebSocket is open."""
        ...

    def received(self, message: str | bytes) -> None:
        """A message has come."""
        ...

    def heard(self) -> None:
        """Bytes of any kind have come."""
        ...

    def lost(self, failure: Exception, code: int | None, reason: str, retry_after: float | None) -> None:
        """The link has ended, or the attempt has failed; see `rtcore.Client.lost`."""
        ...

    @property
    def full(self) -> bool:
        """Whether nothing more is to be read for now."""
        ...


class WSLink:
    """One attempt, and the connection that it leads to; tells its owner until it is dropped.

    Args:
        owner: Whom to tell.
        endpoint: Where to connect.
        traffic: What to count bytes in.
        clock: Monotonic seconds.

    Attributes:
        socket: The WebSocket.
        ended: Set once nothing is left of it.
    """

    def __init__(self, owner: LinkOwner, endpoint: WSEndpoint, *, traffic: Traffic, clock: Callable[[], float]) -> None:
        self.ended = anyio.Event()
        self.socket = ClientWebSocket(
            endpoint.url,
            self,
            config=endpoint.websocket,
            headers=endpoint.headers,
            ssl_context=endpoint.ssl_context,
            traffic=traffic,
            clock=clock,
        )
        self._owner = owner
        self._tokens = endpoint.tokens
        self._dropped = False
        self._scope = anyio.CancelScope()

    async def run(self) -> None:
        """Connect, and carry the connection to its end."""
        with self._scope:
            try:
                # The machine, which times the attempt, times this too.
                headers = () if self._tokens is None else bearer(await self._tokens.fresh())
                closed = await self.socket.run(*headers)
            except HandshakeRejected as error:
                fields = {name.decode("latin-1"): value.decode("latin-1") for name, value in error.headers}
                refusal = refusal_in(error.status, fields, error.body)
                code = _CODES.get(error.status, CloseCode.PROTOCOL_ERROR)
                self._tell(ConnectionFailed(f"{error}: {refusal.message}"), code, refusal.message, refusal.retry_after)
            except (ConnectionFailed, LocalProtocolError) as error:
                self._tell(error, None, str(error), None)
            else:
                reason = closed.reason or closed.fault or "the connection ended"
                ended = None if closed.code == CloseCode.ABNORMAL_CLOSURE else closed.code
                self._tell(ConnectionClosed(ended, reason), ended, reason, None)
        self.ended.set()

    def drop(self, code: int, reason: str) -> None:
        """Close the connection, or give the attempt up, and tell nothing more."""
        self._dropped = True
        match self.socket.state:
            case WebSocketState.CONNECTING:
                self._scope.cancel()
            case WebSocketState.OPEN:
                self.socket.send(Close(code, reason))
            case WebSocketState.CLOSING | WebSocketState.CLOSED:
                pass
            case _:
                assert_never(self.socket.state)

    def _tell(self, failure: RtcoreError, code: int | None, reason: str, retry_after: float | None) -> None:
        if not self._dropped:
            self._owner.lost(failure, code, reason, retry_after)

    # As a `rtcore_transports.client_websocket.Receiver`

    def opened(self, opened: Opened) -> None:
        """See there."""
        if not self._dropped:
            self._owner.opened()

    def received(self, message: str | bytes) -> None:
        """See there."""
        if not self._dropped:
            self._owner.received(message)

    def heard(self) -> None:
        """See there."""
        if not self._dropped:
            self._owner.heard()

    @property
    def full(self) -> bool:
        """See there."""
        return not self._dropped and self._owner.full
