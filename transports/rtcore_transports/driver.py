"""The driver: the one reader of clocks, between a `rtcore.Node` and what carries its connections."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol, TypeAlias, TypedDict, assert_never

import anyio
import attrs

from rtcore import CloseCode, CommandError, Deadlines, LocalProtocolError, Message, Node, NodeConfig, Refusal, Transport
from rtcore.channels import connection_channel, user_channel
from rtcore.node import Close, NodeEffect
from rtcore.router import Deliver, Published, Refused, Request
from rtcore.session import Handle

from .background import Background
from .fanout import Fanout, Outlet

__all__ = ["Driver", "Handler", "Sender", "Timed"]

_log = logging.getLogger("rtcore.driver")

_INTERNAL_ERROR: Final = Refusal("internal_error", "the server failed to handle this message", status=500)


@attrs.frozen
class Sender:
    """Who sent a message to the application: the connection, and its user or ``None``."""

    connection_id: str
    user_id: str | None


#: Handles the messages of one type: gets the message and its sender; what it returns answers the message's ``id``.
Handler: TypeAlias = Callable[[Message, Sender], Awaitable[Message | None]]


class _Moment(TypedDict):
    now: float
    timestamp: int


class Timed(Protocol):
    """Something with deadlines: monotonic seconds, as `Driver.now` tells them."""

    def __hash__(self) -> int:
        """Two are the same only if they are one object."""
        ...

    def next_timeout(self) -> float | None:
        """Return the next deadline, or ``None``."""
        ...

    def handle_timeout(self, *, now: float) -> None:
        """Do what is due."""
        ...


class Driver:
    """Runs one node: passes inputs in with the time, carries the effects out, and wakes what has a deadline.

    Every method but `run` and `handle` returns at once; what it delivers is written by `run`, at the end of the tick.

    Args:
        config: Limits and intervals of the node.
        clock: Monotonic seconds.
        wall_clock: Nanoseconds since 1970.
    """

    def __init__(
        self,
        config: NodeConfig | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.now = clock
        self._wall_clock = wall_clock
        #: The application's handlers by message type; add to it at any time.
        self.handlers: dict[str, Handler] = {}
        self.node = Node(config or NodeConfig(), entropy=secrets.token_hex(4), handled=self.handlers)
        self.fanout = Fanout()
        self._users: dict[str, str | None] = {}
        self._deadlines: Deadlines[Timed | Node] = Deadlines()
        self._deadline_changed = anyio.Event()
        self._slow: list[tuple[str, Outlet]] = []
        self._nobody_left = anyio.Event()
        self._background = Background()
        self._running = False

    # Running

    async def run(self) -> None:
        """Write what is delivered and keep the deadlines, until cancelled."""
        assert not self._running, "one loop drives a driver"
        self._running = True
        # Events belong to the event loop in which they are waited for.
        self._deadline_changed = anyio.Event()
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._keep_deadlines)
                tasks.start_soon(self.fanout.run, self._close_slow)
        finally:
            self._running = False

    def ensure_running(self) -> None:
        """Run in the background of the current event loop, unless running already, until nobody is connected."""
        if not self._running and not self._background.running:
            self._background.start(self._run_until_idle)

    async def _run_until_idle(self) -> None:
        # Asked again after the end of each round: somebody may have come while it was ending.
        while self.fanout.outlets:
            self._nobody_left = anyio.Event()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.run)
                await self._nobody_left.wait()
                tasks.cancel_scope.cancel()

    # Connections

    def attach(
        self,
        outlet: Outlet,
        connection_id: str,
        *,
        user_id: str | None,
        transport: Transport,
        channels: Sequence[str] = (),
    ) -> None:
        """Connect `outlet` to the node; see `rtcore.Node.connect`, whose caller it is.

        Raises:
            LocalProtocolError: If there is a connection of that id; nothing has changed.
        """
        effects = self.node.connect(
            connection_id, user_id=user_id, transport=transport, channels=channels, **self._moment()
        )
        self.fanout.outlets[connection_id] = outlet
        self._users[connection_id] = user_id
        self._perform(effects)

    def detach(self, connection_id: str, outlet: Outlet) -> None:
        """Take a connection whose transport has ended out of the node.

        One that was closed before is no fault, even if another has its id by now.
        """
        if self.fanout.outlets.get(connection_id) is not outlet:
            return
        self._remove(connection_id)
        self._perform(self.node.disconnect(connection_id, **self._moment()))

    def receive_text(self, connection_id: str, text: str) -> list[Handle]:
        """Pass in one message of a connection.

        Returns:
            What is for the application: the caller awaits `handle` for each, so that a connection whose messages take
            long is read no faster. Nothing for a connection that the node has closed meanwhile.
        """
        if connection_id not in self.node:
            return []
        effects = self.node.receive_text(connection_id, text, **self._moment())
        return [effect for effect in self._perform(effects) if isinstance(effect, Handle)]

    async def handle(self, effect: Handle) -> None:
        """Call the application's handler; a fault of it is logged and answered, and harms nobody."""
        connection_id = effect.request.connection_id
        assert connection_id is not None, "only connections send what is handled"
        sender = Sender(connection_id, self._users.get(connection_id))
        outcome: Message | Refusal
        try:
            outcome = await self.handlers[effect.type](effect.message, sender) or {}
        except CommandError as error:
            outcome = Refusal(error.code, error.message)
        except Exception:
            _log.exception("the handler for messages of type %r failed", effect.type)
            outcome = _INTERNAL_ERROR
        try:
            answer = self.node.respond(effect.request, outcome, **self._moment())
        except LocalProtocolError:
            _log.exception("the handler for messages of type %r answered with what is no JSON", effect.type)
            answer = self.node.respond(effect.request, _INTERNAL_ERROR, **self._moment())
        self._perform(answer)

    def refuse(self, connection_id: str, refusal: Refusal) -> None:
        """Tell a connection that something it sent is refused."""
        self._perform(self.node.respond(Request(connection_id), refusal, **self._moment()))

    def close(self, connection_id: str, code: int, reason: str, *, reconnect: bool | None = None) -> bool:
        """Tell a connection why, and end it. Returns whether there was such a connection."""
        known = connection_id in self.node
        self._perform(self.node.close(connection_id, code, reason, reconnect=reconnect, **self._moment()))
        return known

    def slow(self, connection_id: str, outlet: Outlet) -> None:
        """End a connection whose backlog is full, as soon as the writes under way allow."""
        self._slow.append((connection_id, outlet))
        self.fanout.wake()

    def drain(self) -> None:
        """Take no more connections, tell all there are that the server restarts, and end them."""
        self._perform(self.node.drain(**self._moment()))

    # Publishing

    def publish(self, channel: str, message: Message) -> Published:
        """Publish to a channel; see `rtcore.Node.publish`."""
        outcomes = self._perform(self.node.publish(channel, message, **self._moment()))
        published = [outcome for outcome in outcomes if isinstance(outcome, Published)]
        assert len(published) == 1, "the node in this process publishes at once"
        return published[0]

    def publish_to_user(self, user_id: str, message: Message) -> Published:
        """Publish to every connection of a user."""
        return self.publish(user_channel(user_id), message)

    def publish_to_connection(self, connection_id: str, message: Message) -> Published | Refusal:
        """Publish to one connection, or tell why not."""
        if connection_id not in self.node:
            return Refusal("not_found", f"there is no connection {connection_id!r}", status=404)
        return self.publish(connection_channel(connection_id), message)

    def subscribe(self, connection_id: str, channel: str) -> Refusal | None:
        """Join a connection to a channel; returns why not, if not."""
        effects = self.node.subscribe(connection_id, channel, **self._moment())
        return self._refusal(self._perform(effects))

    def unsubscribe(self, connection_id: str, channel: str) -> Refusal | None:
        """Take a connection out of a channel; returns why not, if not."""
        effects = self.node.unsubscribe(connection_id, channel, **self._moment())
        return self._refusal(self._perform(effects))

    def stats(self) -> Message:
        """Return the counts of the node, and ``deliveries``: messages times receivers so far."""
        return {**self.node.stats(), "deliveries": self.fanout.delivered}

    # Deadlines

    def rekey(self, timed: Timed) -> None:
        """Take note of the deadline of something after an input to it."""
        self._rekey(timed, timed.next_timeout())

    def forget(self, timed: Timed) -> None:
        """Keep no more deadlines for something."""
        self._deadlines.set(timed, None)

    def _rekey(self, timed: Timed | Node, at: float | None) -> None:
        # A deadline that moved later is left where it is: when the earlier one comes up, it is set anew. Most move
        # later with every frame that arrives, and never come up.
        registered = self._deadlines.get(timed)
        if at is not None and (registered is None or at < registered):
            self._deadlines.set(timed, at)
            self._deadline_changed.set()

    async def _keep_deadlines(self) -> None:
        while True:
            self._deadline_changed = anyio.Event()
            at = self._deadlines.next_timeout()
            with anyio.move_on_after(None if at is None else max(0.0, at - self.now())):
                await self._deadline_changed.wait()
            now = self.now()
            for timed in self._deadlines.pop_due(now=now):
                due = timed.next_timeout()
                if due is not None and due <= now:
                    if isinstance(timed, Node):
                        self._perform(timed.handle_timeout(**self._moment()))
                    else:
                        timed.handle_timeout(now=now)
                self._rekey(timed, timed.next_timeout())

    # Inside

    def _moment(self) -> _Moment:
        return {"now": self.now(), "timestamp": self._wall_clock() // 1_000_000}

    def _perform(self, effects: Sequence[NodeEffect]) -> list[Handle | Published | Refused]:
        """Carry out effects in order; returns those that are for the caller."""
        rest: list[Handle | Published | Refused] = []
        for effect in effects:
            match effect:
                case Deliver():
                    self.fanout.add(effect.message, effect.connections, effect.skip)
                case Close(connection_id=connection_id):
                    self.fanout.settle(connection_id)
                    outlet = self._remove(connection_id)
                    if outlet is not None:
                        outlet.close(effect.code, effect.reason)
                case Handle() | Published() | Refused():
                    rest.append(effect)
                case _:
                    assert_never(effect)
        self._rekey(self.node, self.node.next_timeout())
        return rest

    def _remove(self, connection_id: str) -> Outlet | None:
        self._users.pop(connection_id, None)
        outlet = self.fanout.outlets.pop(connection_id, None)
        if not self.fanout.outlets:
            self._nobody_left.set()
        return outlet

    def _close_slow(self) -> None:
        slow, self._slow = self._slow, []
        for connection_id, outlet in slow:
            if self.fanout.outlets.get(connection_id) is not outlet:
                continue
            _log.info("connection %s does not read fast enough: closing it", connection_id)
            self.close(connection_id, CloseCode.SLOW_CONSUMER, "the connection does not read fast enough")

    @staticmethod
    def _refusal(rest: Sequence[Handle | Published | Refused]) -> Refusal | None:
        return next((effect.refusal for effect in rest if isinstance(effect, Refused)), None)
