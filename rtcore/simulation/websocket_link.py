"""One attempt of a client to open a WebSocket, and the connection that it leads to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, assert_never

from rtcore.errors import CloseCode
from rtcore.websocket import (
    BytesReceived,
    Close,
    Closed,
    HandshakeRequested,
    Opened,
    PongReceived,
    Rejected,
    SendBytes,
    SendText,
    TextReceived,
    WebSocket,
    WebSocketEffect,
    WebSocketState,
    Write,
)

from .link import SocketHandler
from .server import SimulatedServer

if TYPE_CHECKING:
    from .websocket_client import SimulatedWebSocketClient

__all__ = ["WebSocketLink"]

# The close codes that mean the same as a refused handshake; any other status is a fault that stays.
_CODES: Final[Mapping[int, int | None]] = {408: None, 429: CloseCode.RATE_LIMITED, 503: CloseCode.TRY_AGAIN_LATER}


class WebSocketLink(SocketHandler):
    """One attempt to connect, and the connection that it leads to.

    Args:
        client: Whose.
        server: Where.
        target: What it asks for, by path and query.
    """

    def __init__(self, client: SimulatedWebSocketClient, server: SimulatedServer, target: str) -> None:
        self._client = client
        self._host = server.name
        self._target = target
        self._machine: WebSocket | None = None
        self._unwritten = b""
        self._closed: Closed | None = None
        self._refusal: tuple[int | None, str] | None = None
        self._socket = client.network.connect(client, server, self)

    def send(self, message: str | bytes) -> None:
        """Send a text, or the payload of a binary frame.

        On a connection that the server is closing it is lost, as if written a moment before.
        """
        if self._machine is not None and self._machine.state is WebSocketState.OPEN:
            command = SendText(message) if isinstance(message, str) else SendBytes(message)
            self._perform(self._machine.send(command, now=self._client.now()))

    def drop(self, code: int, reason: str) -> None:
        """Close the connection, or give the attempt up."""
        machine = self._machine
        if machine is None or machine.state is WebSocketState.CONNECTING:
            self._abort()
        elif machine.state is WebSocketState.OPEN:
            self._perform(machine.send(Close(code, reason), now=self._client.now()))

    def next_timeout(self) -> float | None:
        """Return the WebSocket's next deadline, or ``None``."""
        return None if self._machine is None else self._machine.next_timeout()

    def handle_timeout(self, now: float) -> None:
        """Do what is due."""
        assert self._machine is not None, "without one there is no deadline"
        self._perform(self._machine.handle_timeout(now=now))
        if self._closed is not None:
            self._abort()
            self._tell()

    # As a `SocketHandler`

    def connected(self) -> None:
        """See there."""
        client = self._client
        self._machine, effects = WebSocket.client(
            client.websocket,
            host=self._host,
            target=self._target,
            entropy=client.world.choices.entropy,
            now=client.now(),
        )
        self._perform(effects)
        client.rekey()

    def receive_data(self, data: bytes) -> None:
        """See there."""
        client = self._client
        client.heard_something(self)
        assert self._machine is not None, "bytes come on connections"
        self._perform(self._machine.receive_data(data, now=client.now()))
        self._settle()

    def receive_eof(self) -> None:
        """See there."""
        assert self._machine is not None, "an end comes to connections"
        self._perform(self._machine.receive_eof(now=self._client.now()))
        self._settle()

    def receive_reset(self) -> None:
        """See there."""
        if self._machine is None:
            self._client.forget(self)
            self._client.lost(self, None, "the server is not there")
            return
        self._perform(self._machine.receive_eof(now=self._client.now()))
        self._settle()

    def writable(self) -> None:
        """See there."""
        data, self._unwritten = self._unwritten, b""
        self._write(data)
        self._settle()

    # Inside

    def _perform(self, effects: Sequence[WebSocketEffect]) -> None:
        for effect in effects:
            match effect:
                case TextReceived(text=message) | BytesReceived(data=message):
                    self._client.received(self, message)
                case Write(data=data):
                    self._write(data)
                case Opened():
                    self._client.opened()
                case Rejected(status=status):
                    # Servers turn away by a close code; a status says that the request has not come whole in time.
                    self._refusal = (_CODES.get(status, CloseCode.PROTOCOL_ERROR), f"status {status}")
                case Closed():
                    self._closed = effect
                case HandshakeRequested() | PongReceived():
                    # Nobody is told; and only servers are asked.
                    pass
                case _:
                    assert_never(effect)

    def _write(self, data: bytes) -> None:
        if self._unwritten:
            self._unwritten += data
            return
        taken = self._socket.write(data)
        self._unwritten = data[taken:]

    def _settle(self) -> None:
        if self._closed is not None and not self._unwritten:
            self._socket.close()
            self._client.forget(self)
            self._tell()
        self._client.rekey()

    def _tell(self) -> None:
        closed = self._closed
        assert closed is not None, "it has ended"
        if self._refusal is not None:
            self._client.lost(self, *self._refusal)
            return
        code = None if closed.code == CloseCode.ABNORMAL_CLOSURE else closed.code
        self._client.lost(self, code, closed.reason or closed.fault or "the connection ended")

    def _abort(self) -> None:
        self._socket.abort()
        self._client.forget(self)
