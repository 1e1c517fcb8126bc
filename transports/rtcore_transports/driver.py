"""The driver: the one reader of clocks, between a `rtcore.Node` and what carries its connections."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias, TypedDict, assert_never

import anyio

from rtcore import (
    Action,
    CloseCode,
    Credential,
    Grant,
    Identity,
    LocalProtocolError,
    Message,
    Node,
    NodeConfig,
    Refusal,
    Transport,
)
from rtcore.channels import connection_channel, user_channel
from rtcore.messages import reply_id
from rtcore.node import Close, Consult, NodeEffect, Signaling, Verify
from rtcore.node.credentials import refuse_credential
from rtcore.permissions.revocations import Revocation, parse_revocation
from rtcore.router import Deliver, Published, Refused, Request
from rtcore.session import Handle
from rtcore.signaling import CreateRoom

from .admission import Admission
from .background import Background
from .backlogs import Backlogs
from .fanout import Fanout, Outlet
from .gate_config import Authenticator, GateConfig, Hooks
from .gatekeeper import Gatekeeper
from .handlers import INTERNAL_ERROR, Handler, Sender, call_handler
from .timekeeper import Timed, Timekeeper

__all__ = ["Awaited", "Driver"]

_log = logging.getLogger("rtcore.driver")

# How the names of the channels of connections begin.
_TO_CONNECTION: Final = connection_channel("")

#: What must be awaited before more is read of the connection that it concerns.
Awaited: TypeAlias = Handle | Verify | Consult

_Rest: TypeAlias = Awaited | Published | Refused


class _Moment(TypedDict):
    now: float
    timestamp: int


class Driver:
    """Runs one node: passes inputs in with the time, carries the effects out, and wakes what has a deadline.

    Every method but `run` and `handle` returns at once; what it delivers is written by `run`, at the end of the tick.

    Args:
        config: Limits and intervals of the node.
        gate: Who may come in.
        authenticator: Who knows their credentials; ``None`` where nobody does, and none is asked for.
        hooks: What the application is asked about them.
        clock: Monotonic seconds.
        wall_clock: Nanoseconds since 1970.

    Attributes:
        gatekeeper: Who lets them in.
    """

    def __init__(
        self,
        config: NodeConfig | None = None,
        *,
        gate: GateConfig | None = None,
        authenticator: Authenticator | None = None,
        hooks: Hooks | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.now = clock
        self._wall_clock = wall_clock
        #: The application's handlers by message type; add to it at any time.
        self.handlers: dict[str, Handler] = {}
        self.gatekeeper = Gatekeeper(gate, authenticator, hooks, refuses=self._refuse_credential)
        self.node = Node(
            config or NodeConfig(),
            entropy=secrets.token_hex(4),
            handled=self.handlers,
            consulted=self.hooks,
        )
        self.fanout = Fanout()
        self.backlogs = Backlogs()
        self._deadlines = Timekeeper(clock)
        self._slow: list[tuple[str, Outlet]] = []
        self._nobody_left = anyio.Event()
        self._background = Background()
        self._running = False

    @property
    def authenticator(self) -> Authenticator | None:
        """Who knows the credentials of those who come, or ``None``."""
        return self.gatekeeper.authenticator

    @property
    def hooks(self) -> Hooks:
        """What the application is asked; set its attributes at any time."""
        return self.gatekeeper.hooks

    # Running

    async def run(self) -> None:
        """Write what is delivered and keep the deadlines, until cancelled."""
        assert not self._running, "one loop drives a driver"
        self._running = True
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._deadlines.run)
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

    def admit(self, admission: Admission, transport: Transport) -> Refusal | None:
        """Tell why there is no place for somebody whom the gatekeeper has let in, or ``None`` if there is.

        It is theirs as long as nothing is awaited before `attach`.
        """
        return self.node.admit(
            transport,
            user_id=admission.user_id,
            grant=admission.grant,
            address=admission.address,
            timestamp=self._moment()["timestamp"],
        )

    def attach(self, outlet: Outlet, connection_id: str, admission: Admission, *, transport: Transport) -> None:
        """Connect `outlet` to the node, for somebody who has been let in; see `rtcore.Node.connect`.

        Raises:
            LocalProtocolError: If there is a connection of that id; nothing has changed.
        """
        self.catch_up()
        moment = self._moment()
        effects = self.node.connect(
            connection_id,
            user_id=admission.user_id,
            grant=admission.grant,
            address=admission.address,
            transport=transport,
            channels=admission.channels,
            session=admission.session,
            last_event_id=admission.last_event_id,
            signals=admission.signals,
            room=admission.room,
            **moment,
        )
        self.fanout.outlets[connection_id] = outlet
        self._perform(effects)
        if admission.answers is not None:
            self._perform(self.node.confirm(Request(connection_id, admission.answers), **moment))
        for refusal in admission.denied:
            self.refuse(connection_id, refusal)

    def detach(self, connection_id: str, outlet: Outlet) -> None:
        """Take a connection whose transport has ended out of the node.

        One that was closed before is no fault, even if another has its id by now.
        """
        if self.fanout.outlets.get(connection_id) is not outlet:
            return
        self._remove(connection_id)
        self._perform(self.node.disconnect(connection_id, **self._moment()))

    def receive_text(self, connection_id: str, text: str) -> list[Awaited]:
        """Pass in one message of a connection.

        Returns:
            What takes time, be it the application's or that of verifying a token: the caller awaits `handle` for each,
            so that a connection whose messages take long is read no faster. Nothing for a connection that the node has
            closed meanwhile.
        """
        if connection_id not in self.node:
            return []
        effects = self.node.receive_text(connection_id, text, **self._moment())
        return [effect for effect in self._perform(effects) if isinstance(effect, Handle | Verify | Consult)]

    async def handle(self, effect: Awaited) -> None:
        """Do what takes time, and go on with what has come of it.

        That is to call the application's handler, or the hook that is asked before something is done, whose faults are
        logged and answered, and harm nobody; or to verify a token.
        """
        match effect:
            case Handle():
                await self._call_handler(effect)
            case Verify(request=request, token=token):
                identity = await self.gatekeeper.verify(token)
                self._perform(self.node.renew(request, identity, **self._moment()))
            case Consult():
                await self._consult(effect)
            case _:
                assert_never(effect)

    async def _consult(self, effect: Consult) -> list[_Rest]:
        connection_id = effect.request.connection_id
        identity = effect.identity if connection_id is None else self.node.identity(connection_id)
        if identity is None:
            return []
        refusal = await self.gatekeeper.consult(effect.action, identity, effect.channel, effect.message)
        return self._perform(self.node.resolve(effect, refusal, **self._moment()))

    async def _call_handler(self, effect: Handle) -> None:
        connection_id = effect.request.connection_id
        assert connection_id is not None, "only connections send what is handled"
        identity = self.node.identity(connection_id)
        sender = Sender(connection_id, None if identity is None else identity.user_id)
        outcome = await call_handler(self.handlers, effect, sender)
        try:
            answer = self.node.respond(effect.request, outcome, **self._moment())
        except LocalProtocolError:
            _log.exception("the handler for messages of type %r answered with what is no JSON", effect.type)
            answer = self.node.respond(effect.request, INTERNAL_ERROR, **self._moment())
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
        self.gatekeeper.drain()
        self._perform(self.node.drain(**self._moment()))

    # Rights that change

    def revoke(self, data: Mapping[str, object] | Revocation) -> int | Refusal:
        """Refuse tokens from now on, and close the connections that came with them.

        Args:
            data: Which: a revocation, or what `rtcore.permissions.revocations.parse_revocation` makes one of.

        Returns:
            How many connections are closed; or why nothing has changed.
        """
        moment = self._moment()
        revocation = data if isinstance(data, Revocation) else parse_revocation(data, timestamp=moment["timestamp"])
        if isinstance(revocation, Refusal):
            return revocation
        effects = self.node.revoke(revocation, **moment)
        if isinstance(effects, Refusal):
            return effects
        self._perform(effects)
        return sum(isinstance(effect, Close) for effect in effects)

    def regrant(self, connection_id: str, grant: Grant) -> Refusal | None:
        """Allow a connection something else from now on, see `rtcore.Node.regrant`; returns why not, if not."""
        return self._refusal(self._perform(self.node.regrant(connection_id, grant, **self._moment())))

    def regrant_user(self, user_id: str, grant: Grant) -> Refusal | None:
        """Allow all connections of a user something else from now on; returns why not, if not."""
        return self._refusal(self._perform(self.node.regrant_user(user_id, grant, **self._moment())))

    # Publishing

    def publish(self, channel: str, message: Message, *, by: Identity | None = None) -> Published | Refusal:
        """Publish to a channel, see `rtcore.Node.publish`, or tell why not.

        Args:
            channel: Where.
            message: What.
            by: Who publishes, as far as they are allowed; an ``id`` of the message makes it once for their user or
                their key. ``None`` is the application, which may do everything. No hook is asked: see `publish_by`.
        """
        return _outcome_of(self._publish(channel, message, by))

    async def publish_by(self, identity: Identity, channel: str, message: Message) -> Published | Refusal:
        """Publish for somebody to a channel, if they and the application's hook allow it, or tell why not.

        The hook is not asked about what is refused anyway, nor about a repetition. A channel of a connection must be
        that of one that is there.
        """
        if refusal := self._absent(channel, identity):
            return refusal
        [outcome] = self._publish(channel, message, identity, consults=True)
        return _outcome_of(await self._consult(outcome) if isinstance(outcome, Consult) else [outcome])

    def publish_to_user(self, user_id: str, message: Message) -> Published | Refusal:
        """Publish to every connection of a user, or tell why not."""
        return self.publish(user_channel(user_id), message)

    def publish_to_connection(
        self, connection_id: str, message: Message, *, by: Identity | None = None
    ) -> Published | Refusal:
        """Publish to one connection, or tell why not."""
        channel = connection_channel(connection_id)
        return self._absent(channel, by) or self.publish(channel, message, by=by)

    def subscribe(self, connection_id: str, channel: str) -> Refusal | None:
        """Join a connection to a channel; returns why not, if not."""
        return self._refusal(self._perform(self.node.subscribe(connection_id, channel, **self._moment())))

    def unsubscribe(self, connection_id: str, channel: str) -> Refusal | None:
        """Take a connection out of a channel; returns why not, if not."""
        return self._refusal(self._perform(self.node.unsubscribe(connection_id, channel, **self._moment())))

    def history(self, data: Mapping[str, object], *, asker: Identity | None = None) -> Message | Refusal:
        """Return a part of a channel's history, see `rtcore.Node.history`, or why not; no hook is asked."""
        return self.node.history(data, asker=asker, now=self.now())

    # Rooms, whose methods are for servers that have some

    @property
    def signaling(self) -> Signaling:
        """The rooms, as they are now."""
        self.catch_up()
        signaling = self.node.signaling
        assert signaling is not None, "the caller knows that there are rooms"
        return signaling

    def create_room(self, command: CreateRoom, *, asker: Identity | None = None) -> Message | Refusal:
        """Make a room; returns it, or why there is none."""
        room = self.signaling.create(command, asker=asker, now=self.now())
        self._perform([])
        return room if isinstance(room, Refusal) else room.describe()

    def update_room(self, room_id: str, *, name: str | None, max_participants: int | None) -> Refusal | None:
        """Change a room, and tell the peers in it; returns why not, if not."""
        return self._perform_or_refuse(
            self.signaling.update(room_id, name=name, max_participants=max_participants, **self._moment())
        )

    def close_room(self, room_id: str) -> Refusal | None:
        """End a room, and tell the peers in it; returns why not, if not."""
        return self._perform_or_refuse(self.signaling.close(room_id, **self._moment()))

    def remove_peer(self, room_id: str, peer_id: str) -> Refusal | None:
        """Send a peer away from a room, and tell it and the others; returns why not, if not."""
        return self._perform_or_refuse(self.signaling.remove(room_id, peer_id, **self._moment()))

    def signal(self, message: Message, *, asker: Identity | None = None) -> Published | Refusal:
        """Pass on what a program says for a peer, see `rtcore.node.Signaling.signal_as`, or tell why not."""
        if asker is not None and (refusal := self.node.throttle(asker, message, now=self.now())):
            self._perform([])
            return refusal
        effects = self.signaling.signal_as(message, asker=asker, **self._moment())
        if isinstance(effects, Refusal):
            return effects
        [published] = [each for each in self._perform(effects) if isinstance(each, Published)]
        return published

    def stats(self) -> Message:
        """Return the counts of the node, ``deliveries`` (messages times receivers so far), and those of slow consumers.

        The latter are ``slow_disconnects``, ``dropped_messages`` and ``gaps`` so far, and ``backlog_bytes`` now.
        """
        self.catch_up()
        return {**self.node.stats(), "deliveries": self.fanout.delivered, **self.backlogs.stats()}

    # Deadlines

    def rekey(self, timed: Timed) -> None:
        """Take note of the deadline of something after an input to it."""
        self._deadlines.rekey(timed, timed.next_timeout())

    def forget(self, timed: Timed) -> None:
        """Keep no more deadlines for something."""
        self._deadlines.forget(timed)

    def next_timeout(self) -> float | None:
        """See `rtcore_transports.timekeeper.Timed`: the deadlines of the node are the driver's own."""
        return self.node.next_timeout()

    def handle_timeout(self, *, now: float) -> None:
        """See `rtcore_transports.timekeeper.Timed`."""
        self._perform(self.node.handle_timeout(**self._moment()))

    def catch_up(self) -> None:
        """Do what the node has had due, whose deadlines nobody keeps while the driver does not run."""
        now = self.now()
        due = self.node.next_timeout()
        if due is not None and due <= now:
            self.handle_timeout(now=now)

    # Inside

    def _moment(self) -> _Moment:
        return {"now": self.now(), "timestamp": self._wall_clock() // 1_000_000}

    def _refuse_credential(self, identity: Identity) -> Refusal | None:
        timestamp = self._moment()["timestamp"]
        return refuse_credential(identity.user_id, identity.grant, self.node.revocations, timestamp=timestamp)

    def _perform(self, effects: Sequence[NodeEffect]) -> list[_Rest]:
        """Carry out effects in order; returns those that are for the caller."""
        rest: list[_Rest] = []
        for effect in effects:
            match effect:
                case Deliver():
                    self.fanout.add(effect.message, effect.connections, effect.skip)
                case Close(connection_id=connection_id):
                    self.fanout.settle(connection_id)
                    outlet = self._remove(connection_id)
                    if outlet is not None:
                        outlet.close(effect.code, effect.reason)
                case Handle() | Verify() | Consult() | Published() | Refused():
                    rest.append(effect)
                case _:
                    assert_never(effect)
        self._deadlines.rekey(self, self.node.next_timeout())
        return rest

    def _publish(self, channel: str, message: Message, by: Identity | None, *, consults: bool = False) -> list[_Rest]:
        if by is None:
            return self._perform(self.node.publish(channel, message, **self._moment()))
        effects = self.node.publish(
            channel,
            message,
            user_id=by.user_id,
            grant=by.grant,
            # What a key is called is told where a token tells its id.
            publisher=by.grant.token_id if by.grant.credential is Credential.KEY else None,
            id=reply_id(message),
            consults=consults,
            **self._moment(),
        )
        return self._perform(effects)

    def _absent(self, channel: str, by: Identity | None) -> Refusal | None:
        """Tell that there is no connection whose channel this is; to those alone who may publish to it."""
        connection_id = channel.removeprefix(_TO_CONNECTION)
        if connection_id == channel or connection_id in self.node:
            return None
        absent = Refusal("not_found", f"there is no connection {connection_id!r}", status=404)
        return self.node.decide(Action.PUBLISH, channel, asker=by) or absent

    def _perform_or_refuse(self, effects: Sequence[NodeEffect] | Refusal) -> Refusal | None:
        if isinstance(effects, Refusal):
            return effects
        self._perform(effects)
        return None

    def _remove(self, connection_id: str) -> Outlet | None:
        outlet = self.fanout.outlets.pop(connection_id, None)
        if not self.fanout.outlets:
            self._nobody_left.set()
        return outlet

    def _close_slow(self) -> None:
        slow, self._slow = self._slow, []
        for connection_id, outlet in slow:
            if self.fanout.outlets.get(connection_id) is not outlet:
                continue
            self.backlogs.slow_disconnects += 1
            _log.info("connection %s does not read fast enough: closing it", connection_id)
            self.close(connection_id, CloseCode.SLOW_CONSUMER, "the connection does not read fast enough")

    @staticmethod
    def _refusal(rest: Sequence[_Rest]) -> Refusal | None:
        return next((effect.refusal for effect in rest if isinstance(effect, Refused)), None)


def _outcome_of(rest: Sequence[_Rest]) -> Published | Refusal:
    [outcome] = [each for each in rest if isinstance(each, Published | Refused)]
    return outcome.refusal if isinstance(outcome, Refused) else outcome
