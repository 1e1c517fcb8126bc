"""One WebSocket of the native server, and ``/ws`` on it: the realtime protocol of a `rtcore.Node`."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, assert_never

import anyio
import msgspec

from rtcore import CloseCode, Encoded, Refusal, Transport, disconnect_message, encode
from rtcore.session import Handle
from rtcore.websocket import (
    Accept,
    BytesReceived,
    Close,
    Closed,
    HandshakeRequested,
    Opened,
    PongReceived,
    Reject,
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
from .driver_base import Awaited
from .fanout import Batch
from .gatekeeper import Pending
from .outlets import CarrierOutlet
from .presented import MAX_INTRODUCTION
from .visitors import Visitor

__all__ = ["JsonWebSocket", "RealtimeWebSocket", "WebSocketLink", "farewell", "turn_away", "websocket_for"]

_log = logging.getLogger("rtcore.websocket")

# Seconds within which a loop that runs again has read what was there.
_ATTENTION: Final = 1.0

# How a WebSocket is closed for what HTTP has a status for.
_CLOSE_CODES: Final[Mapping[int, CloseCode]] = {
    401: CloseCode.UNAUTHORIZED,
    403: CloseCode.FORBIDDEN,
    429: CloseCode.RATE_LIMITED,
    500: CloseCode.INTERNAL_ERROR,
    503: CloseCode.TRY_AGAIN_LATER,
}


def farewell(code: int, reason: str) -> str:
    """Return the ``disconnect`` message with which a WebSocket that ends itself says why."""
    return encode(disconnect_message(code, reason)).text


def turn_away(refusal: Refusal) -> tuple[CloseCode, Encoded]:
    """Return how a client that is not admitted is told: the close code, and the ``disconnect`` message before it."""
    code = _CLOSE_CODES.get(refusal.status, CloseCode.BAD_MESSAGE)
    retry_after = None if refusal.retry_after is None else float(refusal.retry_after)
    return code, encode(disconnect_message(code, refusal.message, retry_after=retry_after))


class WebSocketLink:
    """A `rtcore.WebSocket` on a carrier, under the driver's clock.

    Attributes:
        closed: How it ended, once it has.
        received: How many bytes the peer has sent since it was accepted, headers of frames included.
        on_closing: Called, if set, when messages may no longer be sent, just before the Close frame is written.
    """

    def __init__(self, machine: WebSocket, carrier: Carrier, driver: Driver) -> None:
        self.closed: Closed | None = None
        self.received = 0
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
        self.received += len(data)
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
        if self.on_closing is not None and not self.open:
            on_closing, self.on_closing = self.on_closing, None
            on_closing()
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
        self._driver.rekey(self)
        return rest

    def next_timeout(self) -> float | None:
        """See `rtcore_transports.timekeeper.Timed`."""
        at = self._machine.next_timeout()
        if at is None or not self.open:
            return at
        # While the application is busy with a message nothing is read, so silence says nothing about the peer.
        return max(at, self._attentive_at) if self._reading else None

    def handle_timeout(self, *, now: float) -> None:
        """See `rtcore_transports.timekeeper.Timed`."""
        rest = self.perform(self._machine.handle_timeout(now=now))
        assert not rest, "nothing is received by waiting"


class RealtimeWebSocket(CarrierOutlet):
    """One client of the node on a WebSocket; its outlet.

    Args:
        link: Of a server, about to be accepted.
        carrier: What the link is on; frames for many receivers are written to it directly.
        driver: Whose node it belongs to.
        connection_id: The id that the node knows it by.
    """

    __slots__ = ("_link", "_question")

    def __init__(self, link: WebSocketLink, carrier: Carrier, driver: Driver, connection_id: str) -> None:
        super().__init__(carrier, driver, connection_id)
        self._link = link
        # While something is asked that nobody wants to know any more once the connection is closed.
        self._question: anyio.CancelScope | None = None

    def deliver(self, batch: Batch) -> None:
        """See `rtcore_transports.fanout.Outlet`."""
        if self._listening and not self._offer(batch.frames):
            self._keep(batch)

    def close(self, code: int, reason: str) -> None:
        """See `rtcore_transports.fanout.Outlet`."""
        if self._link.open:
            self._bid_farewell(code, reason)
            self._link.send(Close(code, reason))
        self._listening = False
        if self._question is not None:
            self._question.cancel()

    async def run(self, visitor: Visitor, wanted: Admission | Refusal) -> None:
        """Accept the WebSocket, and serve it until it ends.

        Args:
            visitor: Who comes. A page of an origin that is not allowed is refused in the handshake; why anybody else is
                turned away they are told before the close.
            wanted: What they ask for; or why that cannot be.
        """
        driver = self._driver
        try:
            if refusal := driver.gatekeeper.check_origin(visitor):
                body = msgspec.json.encode({"error": {"code": refusal.code, "message": refusal.message}})
                self._link.send(Reject(refusal.status, ((b"content-type", b"application/json"),), body))
            else:
                early = self._link.send(Accept())
                # "the endpoint MUST NOT send any more data frames" after its Close frame (RFC 6455, section 5.5.1), and
                # the link may send one of its own accord.
                self._link.on_closing = self._flush
                await self._take(await self._enter(visitor, wanted, early))
            while self._link.closed is None:
                await self._take(await self._link.receive())
                if not self._link.open:
                    # It hears nothing more, however long the closing handshake takes.
                    driver.detach(self._connection_id, self)
        finally:
            driver.detach(self._connection_id, self)
            self._flush()

    async def _enter(
        self, visitor: Visitor, wanted: Admission | Refusal, early: Sequence[WebSocketEffect]
    ) -> Sequence[WebSocketEffect]:
        """Connect who comes, or turn them away; returns what they have said since."""
        driver, link = self._driver, self._link
        unread = deque(early)

        async def receive() -> str | None:
            while True:
                while unread:
                    match unread.popleft():
                        case TextReceived(text=text):
                            return text
                        case BytesReceived():
                            return ""
                if not link.open:
                    return None
                if link.received > MAX_INTRODUCTION:
                    # A message that is not complete by now is too long, and need not be kept until it is.
                    return ""
                unread.extend(await link.receive())

        outcome: Admission | Pending | Refusal | None
        # Whoever is not let in anyway need not be known.
        outcome = wanted if isinstance(wanted, Refusal) else driver.node.admit(Transport.WEBSOCKET)
        if outcome is None and isinstance(wanted, Admission):
            outcome = await driver.gatekeeper.admit(visitor, wanted, Transport.WEBSOCKET)
            if isinstance(outcome, Pending):
                outcome = await driver.gatekeeper.introduce(outcome, receive)
                link.resume()
        self._listening = link.open
        if outcome is None or not link.open:
            return ()
        if isinstance(outcome, Admission):
            outcome = driver.admit(outcome, Transport.WEBSOCKET) or outcome
        if isinstance(outcome, Refusal):
            code, message = turn_away(outcome)
            self._carrier.write(message.frame)
            link.send(Close(code, outcome.code))
            return ()
        driver.attach(self, self._connection_id, outcome, transport=Transport.WEBSOCKET)
        return unread

    async def _take(self, effects: Sequence[WebSocketEffect]) -> None:
        for effect in effects:
            match effect:
                case TextReceived(text=text):
                    for awaited in self._driver.receive_text(self._connection_id, text):
                        await self._handle(awaited)
                case BytesReceived(data=payload):
                    for awaited in self._driver.receive_bytes(self._connection_id, payload):
                        await self._handle(awaited)
                case Opened() | PongReceived():
                    pass
                case HandshakeRequested() | Rejected() | Write() | Closed():
                    raise AssertionError(f"{effect} is not for an accepted WebSocket")
                case _:
                    assert_never(effect)

    async def _handle(self, awaited: Awaited) -> None:
        if isinstance(awaited, Handle):
            # What the application does about a message it does to the end.
            await self._driver.handle(awaited)
        else:
            with anyio.CancelScope() as self._question:
                await self._driver.handle(awaited)
            self._question = None
        self._link.resume()

    @staticmethod
    def _join(messages: Iterable[Encoded]) -> bytes:
        return b"".join([message.frame for message in messages])


class JsonWebSocket(RealtimeWebSocket):
    """One whose client hears files as JSON too."""

    __slots__ = ()

    def deliver(self, batch: Batch) -> None:
        """See `rtcore_transports.fanout.Outlet`."""
        if self._listening and not self._offer(batch.json_frames):
            self._keep(batch)

    @staticmethod
    def _join(messages: Iterable[Encoded]) -> bytes:
        return b"".join([message.json_frame for message in messages])


def websocket_for(wanted: Admission | Refusal) -> type[RealtimeWebSocket]:
    """Return what serves a client that asks for this."""
    return JsonWebSocket if isinstance(wanted, Admission) and wanted.json_only else RealtimeWebSocket
