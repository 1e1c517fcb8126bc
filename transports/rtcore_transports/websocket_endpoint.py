"""One WebSocket of the native server, and ``/ws`` on it: the realtime protocol of a `rtcore.Node`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final, assert_never

from rtcore import CloseCode, Encoded, Refusal, Transport, disconnect_message, encode
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
    WebSocketCommand,
    WebSocketEffect,
    WebSocketState,
    Write,
)

from .admission import Admission
from .carriers import Carrier
from .driver import Driver
from .fanout import Batch

__all__ = ["RealtimeWebSocket", "WebSocketLink", "farewell", "refuse_binary", "turn_away"]

_log = logging.getLogger("rtcore.websocket")

# Seconds within which a loop that runs again has read what was there.
_ATTENTION: Final = 1.0


def farewell(code: int, reason: str) -> str:
    """Return the ``disconnect`` message with which a WebSocket that ends itself says why."""
    return encode(disconnect_message(code, reason)).text


def turn_away(refusal: Refusal) -> tuple[CloseCode, Encoded]:
    """Return how a client that is not admitted is told: the close code, and the ``disconnect`` message before it."""
    code = CloseCode.TRY_AGAIN_LATER if refusal.status == 503 else CloseCode.BAD_MESSAGE
    retry_after = None if refusal.retry_after is None else float(refusal.retry_after)
    return code, encode(disconnect_message(code, refusal.message, retry_after=retry_after))


def refuse_binary(driver: Driver, connection_id: str) -> None:
    """Tell a client that its binary frame is refused."""
    message = "binary frames are not taken here: send a text frame with a JSON message"
    driver.refuse(connection_id, Refusal("unsupported_data", message, status=415))


class WebSocketLink:
    """A `rtcore.WebSocket` on a carrier, under the driver's clock.

    Attributes:
        closed: How it ended, once it has.
        on_closing: Called, if set, when messages may no longer be sent.
    """

    def __init__(self, machine: WebSocket, carrier: Carrier, driver: Driver) -> None:
        self.closed: Closed | None = None
        self.on_closing: Callable[[], None] | None = None
        self._machine = machine
        self._carrier = carrier
        self._driver = driver
        self._reading = False
        self._attentive_at = 0.0

    @property
    def open(self) -> bool:
        """Whether messages may be sent."""
        return self._machine.state is WebSocketState.OPEN

    @property
    def gone(self) -> bool:
        """Whether what is sent goes nowhere, though nobody has read of the end yet."""
        return self._carrier.gone

    def send(self, command: WebSocketCommand) -> list[WebSocketEffect]:
        """Carry out a command; returns the effects that are not the link's own to carry out."""
        return self.perform(self._machine.send(command, now=self._driver.now()))

    async def receive(self) -> list[WebSocketEffect]:
        """Wait for more of the peer; returns the effects that are not the link's own, empty ones included."""
        self._reading = True
        self._driver.rekey(self)
        if self._carrier.full:
            # Whoever floods us with pings and does not read the pongs is not listened to meanwhile.
            await self._carrier.drain()
        data = await self._carrier.receive()
        self._reading = False
        if self.closed is not None:
            return []
        now = self._driver.now()
        effects = self._machine.receive_data(data, now=now) if data else self._machine.receive_eof(now=now)
        return self.perform(effects)

    def resume(self) -> None:
        """Take note that the application was busy: what has come meanwhile is read before silence counts."""
        self._attentive_at = self._driver.now() + _ATTENTION

    async def drain(self) -> None:
        """Wait until what was sent is out of the backlog."""
        await self._carrier.drain()

    def perform(self, effects: Sequence[WebSocketEffect]) -> list[WebSocketEffect]:
        """Write what is to be written, and take note of the end; returns the other effects."""
        rest: list[WebSocketEffect] = []
        for effect in effects:
            if isinstance(effect, Write):
                self._carrier.write(effect.data)
            elif isinstance(effect, Closed):
                self.closed = effect
                if effect.fault is not None:
                    _log.info("WebSocket closed with %s: %s", effect.code, effect.fault)
                if self._reading:
                    # Ended by a deadline: the peer is not going to say anything that matters.
                    self._carrier.abort()
            else:
                rest.append(effect)
        if self.on_closing is not None and not self.open:
            self.on_closing()
        self._driver.rekey(self)
        return rest

    def next_timeout(self) -> float | None:
        """See `rtcore_transports.driver.Timed`."""
        at = self._machine.next_timeout()
        if at is None or not self.open:
            return at
        # While the application is busy with a message nothing is read, so silence says nothing about the peer.
        return max(at, self._attentive_at) if self._reading else None

    def handle_timeout(self, *, now: float) -> None:
        """See `rtcore_transports.driver.Timed`."""
        rest = self.perform(self._machine.handle_timeout(now=now))
        assert not rest, "nothing is received by waiting"


class RealtimeWebSocket:
    """One client of the node on a WebSocket; its outlet.

    Args:
        link: Of a server, about to be accepted.
        carrier: What the link is on; frames for many receivers are written to it directly.
        driver: Whose node it belongs to.
        connection_id: The id that the node knows it by.
    """

    # All that a delivery looks at is the first two.
    __slots__ = ("_carrier", "_connection_id", "_driver", "_link", "_listening", "_overflowed", "_write")

    def __init__(self, link: WebSocketLink, carrier: Carrier, driver: Driver, connection_id: str) -> None:
        self._listening = True
        self._write = carrier.write
        self._link = link
        self._carrier = carrier
        self._driver = driver
        self._connection_id = connection_id
        self._overflowed = False

    def deliver(self, batch: Batch) -> None:
        """See `rtcore_transports.fanout.Outlet`."""
        if self._listening:
            self._write(batch.frames, batch.count)

    def close(self, code: int, reason: str) -> None:
        """See `rtcore_transports.fanout.Outlet`."""
        if self._overflowed:
            # Its backlog is full of what it was to hear: it hears instead why it will not.
            self._carrier.discard()
            self._carrier.write(encode(disconnect_message(code, reason)).frame)
        self._listening = False
        if self._link.open:
            self._link.send(Close(code, reason))

    async def run(self, admission: Admission | Refusal) -> None:
        """Accept the WebSocket, and serve it until it ends.

        Args:
            admission: Who comes; or why they are turned away, which they are told before the close.
        """
        driver = self._driver
        early = self._link.send(Accept())
        self._link.on_closing = self._stop_listening
        self._listening = self._link.open
        if isinstance(admission, Admission):
            admission = driver.node.admit(Transport.WEBSOCKET) or admission
        if isinstance(admission, Refusal):
            self._turn_away(admission)
        else:
            self._carrier.on_overflow(self._overflow)
            driver.attach(
                self,
                self._connection_id,
                user_id=admission.user_id,
                transport=Transport.WEBSOCKET,
                channels=admission.channels,
            )
        try:
            await self._take(early)
            while self._link.closed is None:
                await self._take(await self._link.receive())
                if not self._link.open:
                    # It hears nothing more, however long the closing handshake takes.
                    driver.detach(self._connection_id, self)
        finally:
            self._carrier.on_overflow(None)
            driver.detach(self._connection_id, self)

    async def _take(self, effects: Sequence[WebSocketEffect]) -> None:
        for effect in effects:
            match effect:
                case TextReceived(text=text):
                    for handle in self._driver.receive_text(self._connection_id, text):
                        await self._driver.handle(handle)
                        self._link.resume()
                case BytesReceived():
                    refuse_binary(self._driver, self._connection_id)
                case Opened() | PongReceived():
                    pass
                case HandshakeRequested() | Rejected() | Write() | Closed():
                    raise AssertionError(f"{effect} is not for an accepted WebSocket")
                case _:
                    assert_never(effect)

    def _turn_away(self, refusal: Refusal) -> None:
        code, message = turn_away(refusal)
        self._carrier.write(message.frame)
        self._link.send(Close(code, refusal.code))

    def _stop_listening(self) -> None:
        # "the endpoint MUST NOT send any more data frames" after its Close frame (RFC 6455, section 5.5.1), and the
        # link may have sent one of its own accord.
        self._listening = False

    def _overflow(self) -> None:
        self._listening = False
        self._overflowed = True
        self._driver.slow(self._connection_id, self)
