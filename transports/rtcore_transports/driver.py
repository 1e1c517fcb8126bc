"""The driver: the one reader of clocks, between a `rtcore.Node` and what carries its connections."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, assert_never

import anyio
import attrs

from rtcore import (
    CloseCode,
    Grant,
    Identity,
    LocalProtocolError,
    Message,
    Node,
    NodeConfig,
    Refusal,
    Transport,
)
from rtcore.binary import Bytes
from rtcore.node import Close, Consult, NodeEffect, Verify
from rtcore.node.credentials import refuse_credential
from rtcore.permissions.revocations import Revocation, parse_revocation
from rtcore.router import Deliver, Published, Refused, Request
from rtcore.session import Handle
from rtcore.uploads import AbandonFile, AppendToFile, FinishFile, KeptFile, OpenFile

from .admission import Admission
from .background import Background
from .backlogs import Backlogs
from .driver_base import Awaited, Moment, Rest
from .driver_publishing import PublishingDriver
from .driver_rooms import RoomDriver
from .fanout import Fanout, Outlet
from .file_uploads import FileNews, FileUploads
from .files import Files
from .gate_config import Authenticator, GateConfig, Hooks
from .gatekeeper import Gatekeeper
from .handlers import INTERNAL_ERROR, Handler, Sender, call_handler
from .timekeeper import Timed, Timekeeper

__all__ = ["Driver"]

_log = logging.getLogger("rtcore.driver")

# How long a store may take to remove what it was about to keep.
_LAST_FILES_TIMEOUT: Final = 5.0


class Driver(PublishingDriver, RoomDriver):
    """Runs one node: passes inputs in with the time, carries the effects out, and wakes what has a deadline.

    Every method that is not awaited returns at once; what it delivers is written by `run`, at the end of the tick.

    Args:
        config: Limits and intervals of the node; those of files are the ones of `files`, whatever it says.
        files: Who keeps the files that clients send; ``None`` where none are taken.
        gate: Who may come in.
        authenticator: Who knows their credentials; ``None`` where nobody does, and none is asked for.
        hooks: What the application is asked about them.
        clock: Monotonic seconds.
        wall_clock: Nanoseconds since 1970.

    Attributes:
        gatekeeper: Who lets them in.
        files: Who keeps files, or ``None``.
    """

    def __init__(
        self,
        config: NodeConfig | None = None,
        *,
        files: Files | None = None,
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
        self.files = files
        config = config or NodeConfig()
        self.node = Node(
            attrs.evolve(config, files=None if files is None else files.config.file),
            entropy=secrets.token_hex(4),
            handled=self.handlers,
            consulted=self.hooks,
        )
        self.fanout = Fanout()
        self.backlogs = Backlogs()
        self._uploads = None if files is None else FileUploads(files, tell=self._tell, ended=self._look_for_work)
        self._deadlines = Timekeeper(clock)
        self._slow: list[tuple[str, Outlet]] = []
        self._idle = anyio.Event()
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
        """Write what is delivered, keep the deadlines and what comes of files, until cancelled."""
        assert not self._running, "one loop drives a driver"
        self._running = True
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._deadlines.run)
                tasks.start_soon(self.fanout.run, self._close_slow)
                if self.files is not None and self._uploads is not None:
                    tasks.start_soon(self.files.run)
                    tasks.start_soon(self._uploads.run)
        finally:
            self._running = False

    def ensure_running(self) -> None:
        """Run in the background of the current event loop, unless running already, while anybody or a file comes."""
        if not self._running and not self._background.running:
            self._background.start(self._run_until_idle)

    async def _run_until_idle(self) -> None:
        # Asked again after the end of each round: somebody may have come while it was ending.
        while self._has_work:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.run)
                while self._has_work:
                    self._idle = anyio.Event()
                    await self._idle.wait()
                tasks.cancel_scope.cancel()

    @property
    def _has_work(self) -> bool:
        return bool(self.fanout.outlets) or (self._uploads is not None and self._uploads.busy)

    def _look_for_work(self) -> None:
        if not self._has_work:
            self._idle.set()

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
        return self._await(self.node.receive_text(connection_id, text, **self._moment()))

    def receive_bytes(self, connection_id: str, payload: Bytes) -> list[Awaited]:
        """Pass in one binary message of a connection: a file, or a chunk of one; see `receive_text`.

        Args:
            connection_id: Whose.
            payload: See `rtcore.binary`; it must not be changed afterwards.
        """
        if connection_id not in self.node:
            return []
        return self._await(self.node.receive_bytes(connection_id, payload, **self._moment()))

    def _await(self, effects: Sequence[NodeEffect]) -> list[Awaited]:
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

    async def _consult(self, effect: Consult) -> list[Rest]:
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

    async def aclose(self) -> None:
        """Wait, but not for long, until the files that `drain` has given up are gone, and let go of the store."""
        if self.files is not None and self._uploads is not None:
            with anyio.move_on_after(_LAST_FILES_TIMEOUT):
                await self._uploads.wait()
            await self.files.aclose()

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

    # Channels

    def subscribe(self, connection_id: str, channel: str) -> Refusal | None:
        """Join a connection to a channel; returns why not, if not."""
        return self._refusal(self._perform(self.node.subscribe(connection_id, channel, **self._moment())))

    def unsubscribe(self, connection_id: str, channel: str) -> Refusal | None:
        """Take a connection out of a channel; returns why not, if not."""
        return self._refusal(self._perform(self.node.unsubscribe(connection_id, channel, **self._moment())))

    def history(self, data: Mapping[str, object], *, asker: Identity | None = None) -> Message | Refusal:
        """Return a part of a channel's history, see `rtcore.Node.history`, or why not; no hook is asked."""
        return self.node.history(data, asker=asker, now=self.now())

    def stats(self) -> Message:
        """Return the counts of the node, ``deliveries`` (messages times receivers so far), and those of slow consumers.

        The latter are ``slow_disconnects``, ``dropped_messages`` and ``gaps`` so far, and ``backlog_bytes`` now.
        """
        self.catch_up()
        files = {} if self.files is None else self.files.stats()
        return {**self.node.stats(), "deliveries": self.fanout.delivered, **self.backlogs.stats(), **files}

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

    def _moment(self) -> Moment:
        return {"now": self.now(), "timestamp": self._wall_clock() // 1_000_000}

    def _refuse_credential(self, identity: Identity) -> Refusal | None:
        timestamp = self._moment()["timestamp"]
        return refuse_credential(identity.user_id, identity.grant, self.node.revocations, timestamp=timestamp)

    def _perform(self, effects: Sequence[NodeEffect]) -> list[Rest]:
        """Carry out effects in order; returns those that are for the caller."""
        rest: list[Rest] = []
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
                case OpenFile() | AppendToFile() | FinishFile() | AbandonFile():
                    assert self._uploads is not None, "without files the node has none kept"
                    self._uploads.perform(effect)
                case _:
                    assert_never(effect)
        self._deadlines.rekey(self, self.node.next_timeout())
        return rest

    def _tell(self, key: str, news: FileNews) -> None:
        """Tell the node what has become of a file."""
        files, moment = self.node.files, self._moment()
        assert files is not None, "it has asked"
        match news:
            case KeptFile():
                effects = files.finished(key, news, **moment)
            case Refusal():
                effects = files.failed(key, news, **moment)
            case _:
                effects = files.appended(key, news, **moment)
        self._perform(effects)

    def _remove(self, connection_id: str) -> Outlet | None:
        outlet = self.fanout.outlets.pop(connection_id, None)
        self._look_for_work()
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
    def _refusal(rest: Sequence[Rest]) -> Refusal | None:
        return next((effect.refusal for effect in rest if isinstance(effect, Refused)), None)
