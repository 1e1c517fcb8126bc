"""One life of a `WSClient`, from ``connect`` to the end: drives the machine `rtcore.Client` over its connections."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias, assert_never

import anyio
import attrs
from anyio.abc import TaskGroup

from rtcore import (
    Client,
    CloseCode,
    CommandError,
    ConnectionClosed,
    ConnectionFailed,
    Message,
)
from rtcore.client import (
    Answered,
    ClientState,
    Command,
    Connected,
    Disconnect,
    Drop,
    Effect,
    Ended,
    Lost,
    MessageReceived,
    Open,
    ProtocolFault,
    Refused,
    Rejoined,
    RejoinRefused,
    Send,
    SendText,
)
from rtcore.websocket import SendText as SendFrame
from rtcore.websocket import WebSocketState

from .alarm import Alarm
from .client_websocket import Traffic
from .inbox import Handlers, Inbox
from .ws_link import WSEndpoint, WSLink

__all__ = ["WSSession", "WSStats"]

_log = logging.getLogger("rtcore.client")

# What is told about the connection rather than said to the user: only handlers that ask for it get it.
_HOUSEKEEPING: Final = ("heartbeat", "disconnect")

_Outcome: TypeAlias = Answered | Refused


@attrs.frozen
class WSStats:
    """What a `WSClient` has done since it was connected first.

    Attributes:
        state: ``idle``, ``connecting``, ``connected``, ``waiting`` (for the next attempt) or ``closed``.
        connection_id: The server's name for the last connection.
        user_id: The user that the server takes the client for.
        channels: The channels that it is, or wants to be, a member of.
        reconnects: How often a connection followed on another.
        messages_received: Messages of the server, answers included.
        messages_sent: Messages handed to a connection, commands included.
        bytes_received: Bytes of all connections, framing and handshakes included.
        bytes_sent: Likewise.
        queued: What has been sent while there was no connection, and waits for one.
        waiting: Messages that wait for a handler or for iteration.
        dropped: Messages that nobody took, and that made room for newer ones.
    """

    state: str = "idle"
    connection_id: str | None = None
    user_id: str | None = None
    channels: tuple[str, ...] = ()
    reconnects: int = 0
    messages_received: int = 0
    messages_sent: int = 0
    bytes_received: int = 0
    bytes_sent: int = 0
    queued: int = 0
    waiting: int = 0
    dropped: int = 0


class _Pending:
    """A command whose outcome somebody waits for."""

    __slots__ = ("done", "outcome")

    def __init__(self) -> None:
        self.outcome: _Outcome | None = None
        self.done = anyio.Event()


class WSSession:
    """Runs one machine. All but `run`, `started`, `settled` and `outcome` returns at once.

    Args:
        endpoint: Where to connect.
        handlers: The user's; more may be added.
        keep_trying: Whether the first attempt may fail without ending the session.
        clock: Monotonic seconds.

    Attributes:
        inbox: What has come in.
        failure: What ended the last attempt, if it failed.
        started: Set once the first connection stands, or there will be none.
        settled: Set once the session has ended and its connections are closed.
    """

    def __init__(
        self,
        endpoint: WSEndpoint,
        handlers: Handlers,
        *,
        keep_trying: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.failure: Exception | None = None
        self.started = anyio.Event()
        self.settled = anyio.Event()
        self.inbox: Inbox[Message] = Inbox(endpoint.queue_size, room=self._resume)
        self._endpoint = endpoint
        self._handlers = handlers
        self._keep_trying = keep_trying
        self.now = clock
        self._machine = Client(endpoint.client, random=random.random)
        self._alarm = Alarm(self._machine.next_timeout, self._handle_timeout, clock=clock)
        self._attempts: TaskGroup | None = None
        self._link: WSLink | None = None
        self._pending: dict[str, _Pending] = {}
        self._renamed: dict[str, object] = {}
        self._given_up = anyio.Event()
        self._ended: Ended | None = None
        self._disconnected = False
        self._connections = 0
        self._messages_received = 0
        self._messages_sent = 0
        self._traffic = Traffic()
        self._queued = 0

    async def run(self) -> None:
        """Connect, stay connected, and end; cancelling cuts all connections off."""
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.inbox.dispatch)
                async with anyio.create_task_group() as timing:
                    timing.start_soon(self._alarm.run)
                    async with anyio.create_task_group() as self._attempts:
                        self._perform(self._machine.connect(now=self.now()))
                        await self._given_up.wait()
                    timing.cancel_scope.cancel()
                self.settled.set()
        except Exception:
            # A fault of ours, which nobody would hear of in the background.
            _log.exception("the client failed")
        finally:
            # Cut off: whoever waits for an answer is told.
            self._attempts = None
            self.end()
            self.settled.set()

    # What the user does

    @property
    def ended(self) -> bool:
        """Whether there will be no more connections."""
        return self._ended is not None

    @property
    def welcomed(self) -> bool:
        """Whether the server has ever welcomed the client."""
        return self._connections > 0

    @property
    def connected(self) -> bool:
        """Whether the server has welcomed the client, on a connection that still stands."""
        return self._machine.state is ClientState.CONNECTED

    @property
    def attentive(self) -> bool:
        """Whether silence would say something about the server: not while reading pauses, nor just afterwards."""
        return self._link is not None and self._link.socket.attentive

    @property
    def connection_id(self) -> str | None:
        """The server's name for the last connection."""
        return self._machine.connection_id

    @property
    def user_id(self) -> str | None:
        """The user that the server takes the client for."""
        return self._machine.user_id

    @property
    def stats(self) -> WSStats:
        """What has been done so far."""
        return WSStats(
            state=self._machine.state.name.lower(),
            connection_id=self._machine.connection_id,
            user_id=self._machine.user_id,
            channels=self._machine.channels,
            reconnects=max(0, self._connections - 1),
            messages_received=self._messages_received,
            messages_sent=self._messages_sent,
            bytes_received=self._traffic.received,
            bytes_sent=self._traffic.sent,
            queued=self._queued,
            waiting=len(self.inbox),
            dropped=self.inbox.dropped,
        )

    def ending(self) -> ConnectionClosed | None:
        """Return how the session ended, if it was not by the user's wish."""
        if self._disconnected or self._ended is None:
            return None
        code = self._ended.code
        return ConnectionClosed(None if code == CloseCode.ABNORMAL_CLOSURE else code, self._ended.reason)

    def send(self, message: Mapping[str, object]) -> None:
        """Send a message, or queue it.

        Raises:
            LocalProtocolError, QueueFull: As `rtcore.Client.send` does. Nothing has changed.
            ConnectionClosed: The session has ended. Nothing has changed.
        """
        self._check_usable()
        effects = self._machine.send(Send(message), now=self.now())
        self._queued += not effects
        self._perform(effects)

    def request(self, command: Command) -> str:
        """Carry out a command, or queue it; returns the id for `outcome`, which must follow.

        Raises:
            LocalProtocolError, QueueFull: As `rtcore.Client.request` does. Nothing has changed.
            ConnectionClosed: The session has ended. Nothing has changed.
        """
        self._check_usable()
        token, effects = self._machine.request(command, now=self.now())
        self._pending[token] = _Pending()
        self._queued += not effects
        self._perform(effects)
        # What is awaited comes by reading, so that goes on now whatever waits already.
        self._resume()
        return token

    def post(self, command: Command, own_id: object) -> None:
        """Carry out a command, or queue it; the outcome is a message, as if the user had written the command.

        Args:
            command: The command, whose id is the machine's.
            own_id: The id that the user wants it to have, or ``None``: then only a refusal is told.

        Raises:
            LocalProtocolError, QueueFull: As `rtcore.Client.request` does. Nothing has changed.
            ConnectionClosed: The session has ended. Nothing has changed.
        """
        self._check_usable()
        token, effects = self._machine.request(command, now=self.now())
        self._renamed[token] = own_id
        self._queued += not effects
        self._perform(effects)

    async def outcome(self, token: str) -> object:
        """Wait for the outcome of a command, once.

        Raises:
            CommandError: The server refused it, or did not answer in time (``timeout``).
            ConnectionClosed: The connection was lost before the answer came; it may have been carried out or not.
        """
        pending = self._pending[token]
        try:
            await self.drain()
            await pending.done.wait()
        finally:
            del self._pending[token]
            self._resume()
        match pending.outcome:
            case Answered(data=data):
                return data
            case Refused(code=("connection_lost" | "not_sent"), message=message):
                raise ConnectionClosed(None, message)
            case Refused(code=code, message=message):
                raise CommandError(code, message)
            case None:
                raise AssertionError("an outcome is told before it is done")
            case _:
                assert_never(pending.outcome)

    @property
    def closing(self) -> bool:
        """Whether the connection still stands, but the WebSocket is about to end."""
        return self._link is not None and self._link.socket.state is WebSocketState.CLOSING

    async def settle(self) -> None:
        """Wait while the WebSocket is about to end: what is sent then is queued rather than lost."""
        while self.closing and self._link is not None:
            await self._link.ended.wait()

    async def drain(self) -> None:
        """Wait while much of what was sent waits to be written."""
        if self._link is not None:
            await self._link.socket.drain()

    def disconnect(self) -> None:
        """End the session by the user's wish; `settled` tells when the closing handshake is done."""
        self._disconnected = True
        self.inbox.discard()
        self.end()

    def end(self) -> None:
        """End the session, unless it has ended."""
        if self._machine.state is not ClientState.CLOSED:
            self._perform(self._machine.send(Disconnect(), now=self.now()))

    def _check_usable(self) -> None:
        ending = self.ending()
        if ending is not None:
            raise ending

    # What the connections tell

    def opened(self) -> None:
        """The WebSocket of the present link is open."""
        self._perform(self._machine.opened(now=self.now()))

    def received(self, text: str) -> None:
        """A message has come on the present link."""
        self._messages_received += 1
        self._perform(self._machine.receive_text(text, now=self.now()))

    def heard(self) -> None:
        """Bytes have come on the present link."""
        self._machine.receive_activity(now=self.now())

    def lost(self, failure: Exception, code: int | None, reason: str, retry_after: float | None) -> None:
        """The present link has ended."""
        self.failure = failure
        self._link = None
        self._perform(self._machine.lost(code, reason, now=self.now(), retry_after=retry_after))

    @property
    def full(self) -> bool:
        """Whether reading is to pause: not while an answer is awaited, which only reading can bring."""
        return self.inbox.full and not self._pending

    # Inside

    def _resume(self) -> None:
        if self._link is not None and not self.full:
            self._link.socket.resume()

    def _handle_timeout(self) -> None:
        if self.connected and not self.attentive:
            # We do not listen, so the silence is ours.
            self._machine.receive_activity(now=self.now())
        self._perform(self._machine.handle_timeout(now=self.now()))

    def _perform(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case SendText(text=text):
                    self._write(text)
                case MessageReceived(message=message):
                    self._deliver(message)
                case Answered(id=token) | Refused(id=token):
                    self._tell(token, effect)
                case Open():
                    assert self._attempts is not None, "a session that does not run opens nothing"
                    self._link = WSLink(self, self._endpoint, traffic=self._traffic, clock=self.now)
                    self._attempts.start_soon(self._link.run)
                case Drop(code=code, reason=reason):
                    if (link := self._link) is not None:
                        self._link = None
                        link.drop(code, reason)
                case Connected():
                    self._connections += 1
                    self._queued = 0
                    self.failure = None
                    _log.info("connected to %s as %s", self._endpoint.url.authority, effect.connection_id)
                    self.started.set()
                case Rejoined(channel=channel):
                    _log.debug("joined %r again", channel)
                case RejoinRefused(channel=channel, code=code_name, message=text):
                    _log.warning("not joined to %r again: %s", channel, text)
                    # A membership lost without a word would look like a quiet channel.
                    self._deliver({"type": "error", "code": code_name, "message": text, "channel": channel})
                case ProtocolFault(reason=reason):
                    _log.warning("%s does not keep to the protocol: %s", self._endpoint.url.authority, reason)
                case Lost(reason=reason, retry_at=retry_at):
                    wait = retry_at - self.now()
                    _log.info("lost %s (%s): next attempt in %.1f s", self._endpoint.url.authority, reason, wait)
                    if not self.started.is_set() and not self._keep_trying:
                        self.failure = self.failure or ConnectionFailed(reason)
                        self.started.set()
                case Ended():
                    self._ended = effect
                    self._queued = 0
                    if effect.unsent:
                        _log.warning("%d messages were never sent", effect.unsent)
                    self.inbox.end()
                    self._given_up.set()
                    self.started.set()
                case _:
                    assert_never(effect)
        self._alarm.changed()

    def _write(self, text: str) -> None:
        link = self._link
        # One that the server is closing takes no more: lost on the way, as if written a moment before.
        if link is not None and link.socket.state is WebSocketState.OPEN:
            self._messages_sent += 1
            link.socket.send(SendFrame(text))

    def _tell(self, token: str, outcome: _Outcome) -> None:
        if isinstance(outcome, Refused) and outcome.code == "left":
            self._queued -= 1
        if (pending := self._pending.get(token)) is not None:
            pending.outcome = outcome
            pending.done.set()
        if token in self._renamed:
            own_id = self._renamed.pop(token)
            message: Message = {} if own_id is None else {"id": own_id}
            match outcome:
                case Answered(data=data) if own_id is not None:
                    self._deliver({"type": "response", **message, "ok": True, "data": data})
                case Refused(code=code, message=reason):
                    self._deliver({"type": "error", **message, "code": code, "message": reason})

    def _deliver(self, message: Message) -> None:
        kind = str(message["type"])
        callbacks = self._handlers.select(kind, "*")
        if callbacks:
            self.inbox.call(callbacks, message.get("data", message), message)
        elif kind not in _HOUSEKEEPING:
            self.inbox.put(message)
