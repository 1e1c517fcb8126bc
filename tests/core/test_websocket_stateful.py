"""A server and a client machine joined by a pipe that delays, splits, merges, stalls and breaks."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rtcore.errors import LocalProtocolError
from rtcore.frames import encode_text
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
    SendBytes,
    SendPing,
    SendText,
    TextReceived,
    WebSocket,
    WebSocketCommand,
    WebSocketConfig,
    WebSocketEffect,
    WebSocketState,
    Write,
)

SERVER, CLIENT = 0, 1
sides = st.sampled_from([SERVER, CLIENT])
times = st.sampled_from([0.0, 0.1, 1.0, 5.0, 29.0, 30.0, 60.0, 61.0])


class End:
    """One machine, the driver that obeys it, and the bytes on their way to the other end."""

    def __init__(self, machine: WebSocket, effects: list[WebSocketEffect]) -> None:
        self.machine = machine
        self.wire = bytearray()
        self.ended = False  # nothing comes after what is on the wire
        self.eof_read = False
        self.sent: list[str | bytes] = []
        self.received: list[str | bytes] = []
        self.pings: deque[bytes] = deque()
        self.opened = 0
        self.requested = 0
        self.closed: Closed | None = None
        self.garbled = False
        self.obey(effects)

    def obey(self, effects: list[WebSocketEffect]) -> None:
        for effect in effects:
            assert self.closed is None, "nothing comes after Closed"
            match effect:
                case Write(data=data):
                    assert data
                    if not self.ended:
                        self.wire += data
                case TextReceived(text=message):
                    self.received.append(message)
                case BytesReceived(data=message):
                    self.received.append(message)
                case PongReceived(payload=payload):
                    # Those of the machine's own pings are empty; the others come back in order.
                    assert self.garbled or payload == b"" or payload == self.pings.popleft()
                case HandshakeRequested():
                    self.requested += 1
                case Opened():
                    self.opened += 1
                case Rejected(status=status, body=body):
                    assert (status, body) in [(403, b"no"), (503, body), (408, body)]
                case Closed():
                    self.closed = effect
                    self.ended = True
        if self.closed is not None:
            assert self.machine.state is WebSocketState.CLOSED


class Pair(RuleBasedStateMachine):
    @initialize(
        limit=st.sampled_from([40, 2**20]),
        interval=st.sampled_from([None, 30.0]),
        pong=st.sampled_from([None, 60.0, 5.0]),
        farewell=st.booleans(),
        opened=st.booleans(),
    )
    def start(self, limit: int, interval: float | None, pong: float | None, farewell: bool, opened: bool) -> None:
        config = WebSocketConfig(
            max_message_size=limit,
            ping_interval=interval,
            pong_timeout=pong,
            farewell=(lambda code, reason: f"farewell {code}") if farewell else None,
        )
        self.now = 1000.0
        self.count = 0
        self.cut = False
        client, effects = WebSocket.client(
            config, host="a", target="/", subprotocols=["x"], entropy=self.entropy, now=self.now
        )
        self.ends = [End(WebSocket.server(config, now=self.now), []), End(client, effects)]
        if opened:
            self.deliver(CLIENT, 10**6)
            self.accept("x")
            self.deliver(SERVER, 10**6)

    def entropy(self, size: int) -> bytes:
        self.count += 1
        return self.count.to_bytes(size, "big")

    def command(self, side: int, command: WebSocketCommand) -> None:
        end = self.ends[side]
        end.obey(end.machine.send(command, now=self.now))

    def deliver(self, side: int, size: int) -> None:
        """Let `size` bytes of what `side` has written arrive, and after all of them its end."""
        source, target = self.ends[side], self.ends[1 - side]
        data = bytes(source.wire[:size])
        del source.wire[:size]
        if data:
            target.obey(target.machine.receive_data(data, now=self.now))
        if source.ended and not source.wire and not target.eof_read:
            target.eof_read = True
            target.obey(target.machine.receive_eof(now=self.now))

    # What the bytes do

    @rule(side=sides, size=st.one_of(st.integers(1, 30), st.just(10**6)))
    def arrive(self, side: int, size: int) -> None:
        self.deliver(side, size)

    @precondition(lambda self: not self.cut)
    @rule(side=sides, size=st.integers(0, 40))
    def break_off(self, side: int, size: int) -> None:
        """The transport breaks: of what is on the wire of `side` only so much arrives, of the other nothing."""
        self.cut = True
        del self.ends[side].wire[size:]
        self.ends[1 - side].wire.clear()
        for end in self.ends:
            end.ended = True

    @precondition(lambda self: not self.cut)
    @rule(side=sides)
    def half_close(self, side: int) -> None:
        """One side's bytes end after those on the wire; what it writes from now on is lost."""
        self.cut = True
        self.ends[side].ended = True

    @rule(side=sides, where=st.integers(0, 200), bit=st.integers(0, 7))
    def garble(self, side: int, where: int, bit: int) -> None:
        wire = self.ends[side].wire
        if wire and self.ends[side].opened:
            wire[where % len(wire)] ^= 1 << bit
            for end in self.ends:
                end.garbled = True

    @rule(by=times)
    def time_passes(self, by: float) -> None:
        self.now += by
        for end in self.ends:
            self.fire(end)

    def fire(self, end: End) -> None:
        due = end.machine.next_timeout()
        effects = end.machine.handle_timeout(now=self.now)
        assert effects == [] or (due is not None and due <= self.now)
        end.obey(effects)
        due = end.machine.next_timeout()
        assert due is None or due > self.now

    # What the callers do

    def waiting(self) -> bool:
        server = self.ends[SERVER]
        return server.requested == 1 and server.machine.state is WebSocketState.CONNECTING

    @precondition(waiting)
    @rule(subprotocol=st.sampled_from([None, "x"]))
    def accept(self, subprotocol: str | None) -> None:
        self.command(SERVER, Accept(subprotocol))

    @precondition(waiting)
    @rule(seldom=st.integers(0, 9))
    def reject(self, seldom: int) -> None:
        if seldom == 0:
            self.command(SERVER, Reject(403, body=b"no"))

    def open(self, side: int) -> bool:
        return self.ends[side].machine.state is WebSocketState.OPEN and not self.ends[side].ended

    def any_open(self) -> bool:
        return self.open(SERVER) or self.open(CLIENT)

    @precondition(lambda self: self.any_open())
    @rule(side=sides, message=st.one_of(st.text(max_size=20), st.binary(max_size=50)))
    def send(self, side: int, message: str | bytes) -> None:
        if self.open(side):
            self.ends[side].sent.append(message)
            self.command(side, SendText(message) if isinstance(message, str) else SendBytes(message))

    @precondition(lambda self: self.open(SERVER))
    @rule(message=st.text(max_size=20))
    def fan_out(self, message: str) -> None:
        """A frame made for many receivers goes past the machine."""
        self.ends[SERVER].sent.append(message)
        self.ends[SERVER].wire += encode_text(message.encode())

    @precondition(lambda self: self.any_open())
    @rule(side=sides)
    def ping(self, side: int) -> None:
        if self.open(side):
            self.count += 1
            payload = b"%d" % self.count
            self.ends[side].pings.append(payload)
            self.command(side, SendPing(payload))

    @precondition(lambda self: self.any_open())
    @rule(side=sides, code=st.sampled_from([1000, 1001, 4400]), reason=st.text(max_size=10))
    def close(self, side: int, code: int, reason: str) -> None:
        if self.open(side):
            self.command(side, Close(code, reason))

    @rule(side=sides)
    def misuse(self, side: int) -> None:
        machine = self.ends[side].machine
        if machine.state is not WebSocketState.OPEN:
            before = machine.next_timeout()
            with pytest.raises(LocalProtocolError):
                machine.send(SendText("a"), now=self.now)
            assert machine.next_timeout() == before

    # What must hold

    @invariant()
    def messages_come_in_order_and_once(self) -> None:
        for source, target in (self.ends, self.ends[::-1]):
            if not target.garbled:
                received = [m for m in target.received if not (isinstance(m, str) and m.startswith("farewell "))]
                assert received == source.sent[: len(received)]
                # A Close frame comes after all messages; who has seen it without a fault has seen them all.
                if target.closed is not None and target.closed.clean and target.closed.fault is None:
                    assert received == source.sent

    @invariant()
    def closed_is_told_once_at_the_end(self) -> None:
        for end in self.ends:
            assert (end.closed is not None) is (end.machine.state is WebSocketState.CLOSED)
            assert end.opened <= 1
            assert end.machine.state is not WebSocketState.CLOSED or end.machine.next_timeout() is None

    def teardown(self) -> None:
        """Whatever has happened, both ends come to their end."""
        if not hasattr(self, "ends"):
            return
        for end in self.ends:
            if end.machine.state is WebSocketState.OPEN:
                end.obey(end.machine.send(Close(), now=self.now))
        for _ in range(10):
            for side in (SERVER, CLIENT):
                self.deliver(side, 10**6)
            dues = [due for end in self.ends if (due := end.machine.next_timeout()) is not None]
            if not dues:
                break
            self.now = max(self.now, min(dues))
            for end in self.ends:
                self.fire(end)
        for end in self.ends:
            assert end.machine.state is WebSocketState.CLOSED
        self.messages_come_in_order_and_once()
        self.closed_is_told_once_at_the_end()


Pair.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestPair = Pair.TestCase
