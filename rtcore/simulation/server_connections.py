"""The connections of a simulated server: what the endpoints and carriers of the transports are to a real one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, assert_never
from urllib.parse import parse_qs

import attrs

from rtcore.backlog import Backlog
from rtcore.encoded import Encoded
from rtcore.errors import CloseCode, Refusal
from rtcore.event_stream import encode_retry
from rtcore.messages import encode
from rtcore.node import disconnect_message
from rtcore.permissions import Identity
from rtcore.session import Transport
from rtcore.websocket import (
    Accept,
    BytesReceived,
    Close,
    Closed,
    HandshakeRequested,
    Opened,
    PongReceived,
    Rejected,
    TextReceived,
    WebSocket,
    WebSocketConfig,
    WebSocketEffect,
    WebSocketState,
    Write,
)

from .link import Socket, SocketHandler

if TYPE_CHECKING:
    from .server import SimulatedServer

__all__ = ["Accepting", "EventStreamConnection", "ServerConnection", "ServerConnectionConfig", "WebSocketConnection"]

# How much is taken from a backlog at once.
_WRITE_SIZE: Final = 16384
# How long a connection that we end waits for the peer to take what was written last.
_LINGER_TIMEOUT: Final = 2.0
_MAX_HEAD: Final = 16384
_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\n"
    b"content-type: text/event-stream; charset=utf-8\r\n"
    b"cache-control: no-cache, no-transform\r\n"
    b"connection: close\r\n\r\n"
)


@attrs.frozen
class ServerConnectionConfig:
    """See `rtcore.simulation.ServerConfig`."""

    websocket: WebSocketConfig
    retry: int
    max_backlog: int
    max_waiting: int


@attrs.frozen
class _Query:
    """What a client asks for as it connects."""

    user_id: str | None
    token: str | None
    channels: tuple[str, ...]
    session: str | None
    last_event_id: str | None
    base64: bool

    @classmethod
    def read(cls, target: str) -> _Query:
        fields = parse_qs(target.partition("?")[2], keep_blank_values=True, strict_parsing=False)

        def field(name: str) -> str | None:
            return fields.get(name, [None])[0]

        channels = tuple(dict.fromkeys(fields.get("channel", [])))
        base64 = field("binary") == "base64"
        return cls(field("user_id"), field("token"), channels, field("session"), field("last_event_id"), base64)


class ServerConnection(SocketHandler):
    """One connection of a node: writes what is delivered to it, and keeps what the peer does not take.

    Attributes:
        connection_id: The id that the node knows it by; empty before.
        user_id: Its user.
        backlog: What waits to be written, if anything does.
    """

    def __init__(self, server: SimulatedServer, socket: Socket, config: ServerConnectionConfig) -> None:
        self.connection_id = ""
        self.user_id: str | None = None
        self.backlog: Backlog | None = None
        self._server = server
        self._socket = socket
        self._config = config
        self._delivered: list[Encoded] = []
        # The rest of a write that the peer has not taken; nothing may come in between.
        self._unwritten = b""
        # Nothing is delivered any more: it is ending, or reads too slowly.
        self._deaf = False
        self._overflowed = False
        self._linger_by: float | None = None

    # Delivering

    def deliver(self, message: Encoded) -> None:
        """Write a message at the end of the server's present input."""
        if not self._deaf:
            self._delivered.append(message)
            self._server.mark(self)

    def flush(self) -> None:
        """Write what was delivered, or keep it, or tell the server that it is too much to be kept."""
        delivered = self._delivered
        if not delivered:
            return
        self._delivered = []
        assert not self._deaf, "before it was deaf, it was flushed"
        if not self._unwritten and not self.backlog:
            self._write(self._joined(delivered))
            return
        if self.backlog is None:
            self.backlog = Backlog(max_bytes=self._config.max_backlog, max_messages=self._config.max_waiting)
        if not self.backlog.push(delivered):
            self._deaf = self._overflowed = True
            self._server.overflow(self)

    def close(self, code: int, reason: str) -> None:
        """Begin to end the connection, after everything delivered so far."""
        if self.backlog is not None:
            if self._overflowed:
                # It is full of what the peer was to hear, who hears instead why it will not.
                self.backlog.clear()
                self._write(self._joined([encode(disconnect_message(code, reason))]))
            else:
                while self.backlog:
                    self._write(self._joined(self.backlog.pop(_WRITE_SIZE)))
        self._deaf = True
        self._end(code, reason)

    def connected(self) -> None:
        """See `SocketHandler`; a server's end is connected from the beginning."""

    def writable(self) -> None:
        """See `SocketHandler`."""
        data, self._unwritten = self._unwritten, b""
        self._write(data)
        while not self._unwritten and self.backlog:
            self._write(self._joined(self.backlog.pop(_WRITE_SIZE)))
        self._finish()
        self._server.rekey()

    def next_timeout(self) -> float | None:
        """Return the next deadline, or ``None``."""
        return self._linger_by

    def handle_timeout(self, now: float) -> None:
        """Do what is due: wait no longer for the peer to take what was written last."""
        self._abort()

    @abstractmethod
    def _joined(self, messages: Sequence[Encoded]) -> bytes:
        """Return messages as they are written."""

    @abstractmethod
    def _end(self, code: int, reason: str) -> None:
        """Say goodbye as the transport does."""

    def _write(self, data: bytes) -> None:
        if self._unwritten:
            self._unwritten += data
            return
        taken = self._socket.write(data)
        if taken < len(data):
            self._unwritten = data[taken:]

    def _linger(self) -> None:
        """Close the socket once everything is written, or after a while."""
        self._linger_by = self._server.now() + _LINGER_TIMEOUT
        self._finish()

    def _finish(self) -> None:
        if self._linger_by is not None and not self._unwritten:
            self._linger_by = None
            self._socket.close()
            self._gone()

    def _abort(self) -> None:
        self._linger_by = None
        self._socket.abort()
        self._gone()

    def _gone(self) -> None:
        self._deaf = True
        self._delivered.clear()
        self._server.drop(self)
        self._server.detach(self)


class WebSocketConnection(ServerConnection):
    """A connection on a WebSocket.

    Args:
        server: Whose it is.
        socket: What it is on.
        config: Limits and times.
    """

    def __init__(self, server: SimulatedServer, socket: Socket, config: ServerConnectionConfig) -> None:
        super().__init__(server, socket, config)
        self._machine = WebSocket.server(config.websocket, now=server.now())
        # Whether it takes files as text only.
        self._base64 = False

    def receive_data(self, data: bytes) -> None:
        """See `SocketHandler`."""
        self._perform(self._machine.receive_data(data, now=self._server.now()))
        self._settle()

    def receive_eof(self) -> None:
        """See `SocketHandler`."""
        self._perform(self._machine.receive_eof(now=self._server.now()))
        self._settle()

    def receive_reset(self) -> None:
        """See `SocketHandler`."""
        self._machine.receive_eof(now=self._server.now())
        self._gone()
        self._server.settle()

    def next_timeout(self) -> float | None:
        """See `ServerConnection.next_timeout`."""
        return self._machine.next_timeout() if self._linger_by is None else self._linger_by

    def handle_timeout(self, now: float) -> None:
        """See `ServerConnection.handle_timeout`."""
        if self._linger_by is not None:
            super().handle_timeout(now)
            return
        self._perform(self._machine.handle_timeout(now=now), timed=True)
        if self._machine.state is not WebSocketState.OPEN:
            self._stop_listening()

    def _settle(self) -> None:
        if self._machine.state is not WebSocketState.OPEN:
            self._stop_listening()
        self._server.settle()

    def _stop_listening(self) -> None:
        if self.connection_id:
            self._deaf = True
            if self.backlog is not None:
                # "the endpoint MUST NOT send any more data frames" after its Close frame (RFC 6455, section 5.5.1)
                self.backlog.clear()
            self._server.detach(self)

    def _joined(self, messages: Sequence[Encoded]) -> bytes:
        return b"".join([message.json_frame if self._base64 else message.frame for message in messages])

    def _end(self, code: int, reason: str) -> None:
        if self._machine.state is WebSocketState.OPEN:
            self._perform(self._machine.send(Close(code, reason), now=self._server.now()))

    def _perform(self, effects: Sequence[WebSocketEffect], *, timed: bool = False) -> None:
        for effect in effects:
            match effect:
                case TextReceived(text=text):
                    self._server.receive(self, text)
                case BytesReceived(data=payload):
                    self._server.receive(self, payload)
                case Write(data=data):
                    self.flush()
                    self._write(data)
                case HandshakeRequested(target=target):
                    self._accept(_Query.read(target))
                case Closed():
                    self._deaf = True
                    if timed:
                        # The peer is not going to say anything that matters.
                        self._abort()
                    else:
                        self._linger()
                case Opened() | PongReceived() | Rejected():
                    # Nobody is told; and only clients are rejected.
                    pass
                case _:
                    assert_never(effect)

    def _accept(self, query: _Query) -> None:
        server = self._server
        self._perform(self._machine.send(Accept(), now=server.now()))
        server.deciding.identify(query.user_id, query.token, partial(self._enter, query))

    def _enter(self, query: _Query, identity: Identity | Refusal) -> None:
        machine, server = self._machine, self._server
        if self._deaf:
            # It has gone before it was known who it is.
            return
        self._base64 = query.base64
        refusal = self._admit(query, identity)
        if refusal is not None and machine.state is WebSocketState.OPEN:
            code, message = _turned_away(refusal)
            self._write(message.frame)
            self._perform(machine.send(Close(code, refusal.code), now=server.now()))

    def _admit(self, query: _Query, identity: Identity | Refusal) -> Refusal | None:
        if isinstance(identity, Refusal):
            return identity
        return self._server.admit(
            self,
            Transport.WEBSOCKET,
            identity,
            channels=query.channels,
            session=query.session,
            last_event_id=query.last_event_id,
        )


class EventStreamConnection(ServerConnection):
    """A connection on an event stream."""

    def open(self, query: _Query, identity: Identity, last_event_id: str | None) -> None:
        """Answer the request that has been read."""
        self._write(_HEAD + encode_retry(self._config.retry))
        refusal = self._server.admit(
            self,
            Transport.SSE,
            identity,
            channels=query.channels,
            session=None,
            last_event_id=last_event_id or query.last_event_id,
        )
        assert refusal is None, "it was asked before"

    def receive_data(self, data: bytes) -> None:
        """See `SocketHandler`; nothing more is expected."""

    def receive_eof(self) -> None:
        """See `SocketHandler`."""
        self._deaf = True
        self._abort()
        self._server.settle()

    def receive_reset(self) -> None:
        """See `SocketHandler`."""
        self._gone()
        self._server.settle()

    def _joined(self, messages: Sequence[Encoded]) -> bytes:
        return b"".join([message.event_stream for message in messages])

    def _end(self, code: int, reason: str) -> None:
        self._linger()


class Accepting(SocketHandler):
    """A connection of which is not known yet what it wants.

    Args:
        server: Whose it is.
        socket: What it is on.
        config: Limits and times.
    """

    def __init__(self, server: SimulatedServer, socket: Socket, config: ServerConnectionConfig) -> None:
        self._server = server
        self._socket = socket
        self._config = config
        self._data = b""
        # Whether the request has come, and it is being found out who asks; and whether nobody does any more.
        self._asked = self._ended = False
        timeout = config.websocket.handshake_timeout
        self._give_up_at = None if timeout is None else server.now() + timeout

    def connected(self) -> None:
        """See `SocketHandler`; a server's end is connected from the beginning."""

    def writable(self) -> None:
        """See `SocketHandler`; nothing has been written."""

    def receive_data(self, data: bytes) -> None:
        """See `SocketHandler`."""
        if self._asked:
            return
        self._data += data
        if self._data.startswith(b"GET /ws"):
            connection = WebSocketConnection(self._server, self._socket, self._config)
            self._hand_over(connection)
            connection.receive_data(self._data)
        elif b"\r\n\r\n" in self._data:
            self._open(self._data.partition(b"\r\n\r\n")[0].decode("latin-1"))
            self._server.settle()
        elif len(self._data) > _MAX_HEAD:
            self._end()
        else:
            self._server.rekey()

    def receive_eof(self) -> None:
        """See `SocketHandler`."""
        self._end()

    def receive_reset(self) -> None:
        """See `SocketHandler`."""
        self._ended = True
        self._server.drop(self)

    def next_timeout(self) -> float | None:
        """Return by when the request must have come, or ``None``."""
        return self._give_up_at

    def handle_timeout(self, now: float) -> None:
        """Give up."""
        self._end()

    def _open(self, head: str) -> None:
        request, *lines = head.split("\r\n")
        method, target, _ = request.split(" ")
        headers = {name.lower(): value.strip(" ") for name, _, value in (line.partition(":") for line in lines)}
        if method != "GET" or target.partition("?")[0] != "/events":
            self._answer(404)
            return
        # Not in the alphabet of headers, so it comes in UTF-8 (WHATWG HTML, section 9.2.2).
        last_event_id = headers.get("last-event-id")
        if last_event_id is not None:
            last_event_id = last_event_id.encode("latin-1").decode()
        query = _Query.read(target)
        self._asked = True
        self._server.deciding.identify(query.user_id, query.token, partial(self._enter, query, last_event_id))

    def _enter(self, query: _Query, last_event_id: str | None, identity: Identity | Refusal) -> None:
        server = self._server
        if self._ended:
            # It has gone before it was known who it is.
            return
        refusal = identity if isinstance(identity, Refusal) else self._refuse(identity)
        if refusal is not None:
            self._answer(refusal.status, retry_after=refusal.retry_after)
            return
        assert isinstance(identity, Identity), "or it would be refused"
        connection = EventStreamConnection(server, self._socket, self._config)
        self._hand_over(connection)
        connection.open(query, identity, last_event_id)

    def _refuse(self, identity: Identity) -> Refusal | None:
        server, user_id, grant = self._server, identity.user_id, identity.grant
        return server.node.admit(Transport.SSE, user_id=user_id, grant=grant, timestamp=server.timestamp())

    def _answer(self, status: int, *, retry_after: int | None = None) -> None:
        again = "" if retry_after is None else f"retry-after: {retry_after}\r\n"
        head = f"HTTP/1.1 {status} No\r\n{again}content-length: 0\r\nconnection: close\r\n\r\n"
        self._socket.write(head.encode("latin-1"))
        self._end()

    def _hand_over(self, connection: ServerConnection) -> None:
        self._socket.handler = connection
        self._server.carry(connection, self)

    def _end(self) -> None:
        self._give_up_at = None
        self._ended = True
        self._socket.close()
        self._server.drop(self)
        self._server.rekey()


def _turned_away(refusal: Refusal) -> tuple[CloseCode, Encoded]:
    code = {503: CloseCode.TRY_AGAIN_LATER, 401: CloseCode.UNAUTHORIZED}.get(refusal.status, CloseCode.BAD_MESSAGE)
    retry_after = None if refusal.retry_after is None else float(refusal.retry_after)
    return code, encode(disconnect_message(code, refusal.message, retry_after=retry_after))
