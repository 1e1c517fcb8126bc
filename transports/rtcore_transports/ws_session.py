"""One life of a `WSClient`, from ``connect`` to the end: drives the machine `rtcore.Client` over its connections."""

from __future__ import annotations

import logging
import random
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, assert_never

import anyio
import attrs
from anyio.abc import TaskGroup

from rtcore import Client, CloseCode, CommandError, ConnectionClosed, ConnectionFailed, LocalProtocolError, Message
from rtcore.client import (
    Answered,
    ClientState,
    Command,
    Connected,
    Disconnect,
    Drop,
    Effect,
    Ended,
    Join,
    Lost,
    MessageReceived,
    Open,
    ProtocolFault,
    RefreshDue,
    Refused,
    Rejoined,
    RejoinRefused,
    Request,
    Send,
    SendBytes,
    SendText,
    target_of,
)
from rtcore.websocket import SendBytes as SendBinaryFrame
from rtcore.websocket import SendText as SendTextFrame
from rtcore.websocket import WebSocketState

from .alarm import Alarm
from .client_websocket import Traffic
from .inbox import Handlers, Inbox
from .ws_link import WSEndpoint, WSLink
from .ws_outcomes import Outcome, Outcomes
from .ws_stats import WSStats
from .ws_uploads import Uploads

__all__ = ["WSSession"]

_log = logging.getLogger("rtcore.client")

# What is told about the connection rather than said to the user: only handlers that ask for it get it.
_HOUSEKEEPING: Final = ("heartbeat", "disconnect", "upload")

# Machines of one process must not draw the same numbers, nor do so after a fork: a publication is known by them.
_random: Final = random.SystemRandom().random


class WSSession:
    """Runs one machine. All but `run`, `publish`, `outcome`, `settle` and `drain` returns at once.

    Args:
        endpoint: Where to connect.
        handlers: The user's; more may be added.
        keep_trying: Whether the first attempt may fail without ending the session.
        clock: Monotonic seconds.

    Attributes:
        inbox: What has come in.
        uploads: The files that are being sent.
        retry_wait: Seconds before the server is asked again for something.
        failure: What ended the last attempt, if it failed.
        started: Set once the first connection stands and has joined the endpoint's channels, or there will be none.
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
        self.uploads = Uploads()
        self.retry_wait = endpoint.client.backoff_base
        self._endpoint = endpoint
        self._handlers = handlers
        self._keep_trying = keep_trying
        self.now = clock
        # Where the URL names channels, they wait in the queue like what the user sends.
        queue_size = endpoint.client.queue_size + len(endpoint.channels)
        config = attrs.evolve(endpoint.client, queue_size=queue_size, refreshes=endpoint.tokens is not None)
        self._machine = Client(config, random=_random, session=secrets.token_urlsafe(16))
        self._alarm = Alarm(self._next_timeout, self._handle_timeout, clock=clock)
        self._attempts: TaskGroup | None = None
        self._timing: TaskGroup | None = None
        # Whether a fresh token for a connection that stands has been asked for, and has not come.
        self._refreshing = False
        self._link: WSLink | None = None
        self._outcomes = Outcomes()
        # The endpoint's channels whose joins the server has not answered yet.
        self._joining: dict[str, None] = {}
        # How many publications look for room, and what is set when there may be some.
        self._looking = 0
        self._room = anyio.Event()
        self._given_up = anyio.Event()
        self._ended: Ended | None = None
        self._disconnected = False
        self._connections = 0
        self._messages_received = 0
        self._messages_sent = 0
        self._traffic = Traffic()
        self._queued = 0
        self._unsent = 0

    async def run(self) -> None:
        """Connect, stay connected, and end; cancelling cuts all connections off."""
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.inbox.dispatch)
                async with anyio.create_task_group() as self._timing:
                    self._timing.start_soon(self._alarm.run)
                    async with anyio.create_task_group() as self._attempts:
                        self._connect()
                        await self._given_up.wait()
                    self._timing.cancel_scope.cancel()
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
        return self._link is not None and self.now() >= self._link.socket.attentive_at

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
            unacknowledged=self._machine.unacknowledged,
            waiting=len(self.inbox),
            dropped=self.inbox.dropped,
        )

    def ending(self) -> ConnectionClosed | None:
        """Return how the session ended, if it was not by the user's wish."""
        if self._disconnected or self._ended is None:
            return None
        code = self._ended.code
        return ConnectionClosed(None if code == CloseCode.ABNORMAL_CLOSURE else code, self._ended.reason)

    def position(self, channel: str) -> Message | None:
        """Return the epoch and the offset up to which a channel was heard, or ``None``."""
        heard = self._machine.position(channel)
        return None if heard is None else {"epoch": heard[0], "offset": heard[1]}

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
        return self._issue(command, self._outcomes.expect)

    def post(self, command: Command, own_id: object) -> None:
        """Carry out a command, or queue it; the outcome is a message, as if the user had written the command.

        Args:
            command: The command, whose id is the machine's.
            own_id: The id that the user wants it to have, or ``None``: then only a refusal is told.

        Raises:
            LocalProtocolError, QueueFull: As `rtcore.Client.request` does. Nothing has changed.
            ConnectionClosed: The session has ended. Nothing has changed.
        """
        self._issue(command, lambda token: self._outcomes.post(token, own_id))

    def ask(self, command: Command, told: Callable[[Outcome], None]) -> None:
        """Carry out a command likewise; `told` gets the outcome, and must not block or raise."""
        self._issue(command, lambda token: self._outcomes.watch(token, told))

    def write(self, message: SendTextFrame | SendBinaryFrame) -> None:
        """Send a message of the protocol on the present connection; without one, drop it."""
        link = self._link
        # One that the server is closing takes no more. What is not acknowledged is sent again on the next.
        if link is not None and link.socket.state is WebSocketState.OPEN:
            self._messages_sent += 1
            link.socket.send(message)

    async def find_room(self) -> None:
        """Wait until one more publication may be made; not while there is no connection, where it is for the queue."""
        self._looking += 1
        try:
            while self.connected and self._machine.unacknowledged >= self._endpoint.client.max_unacknowledged:
                if self._room.is_set():
                    self._room = anyio.Event()
                # Acknowledgements come by reading.
                self._resume()
                await self._room.wait()
        finally:
            self._looking -= 1

    async def outcome(self, token: str) -> object:
        """Wait for the outcome of a command, once.

        Raises:
            CommandError: The server refused it, or did not answer in time (``timeout``).
            ConnectionClosed: The connection was lost before the answer came; it may have been carried out or not.
        """
        try:
            await self.drain()
            return await self._outcomes.wait(token)
        finally:
            self._outcomes.forget(token)
            self._resume()

    @property
    def closing(self) -> bool:
        """Whether the connection still stands, but the WebSocket is about to end."""
        return self._link is not None and self._link.socket.state is WebSocketState.CLOSING

    async def settle(self) -> None:
        """Wait while the WebSocket is about to end: what is sent then is queued rather than lost."""
        while self.closing and self._link is not None:
            await self._link.ended.wait()

    async def drain(self, *, all_of_it: bool = False) -> None:
        """Wait while much of what was sent, or anything of it, waits to be written."""
        if self._link is not None:
            await self._link.socket.drain(all_of_it=all_of_it)

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
        if (ending := self.ending()) is not None:
            raise ending

    # What the connections tell

    def opened(self) -> None:
        """The WebSocket of the present link is open."""
        self._perform(self._machine.opened(now=self.now()))

    def received(self, message: str | bytes) -> None:
        """A message has come on the present link."""
        self._messages_received += 1
        if isinstance(message, str):
            self._perform(self._machine.receive_text(message, now=self.now()))
        else:
            self._perform(self._machine.receive_bytes(message, now=self.now()))

    def heard(self) -> None:
        """Bytes have come on the present link."""
        self._machine.receive_activity(now=self.now())

    def lost(self, failure: Exception, code: int | None, reason: str, retry_after: float | None) -> None:
        """The present link has ended."""
        self._link = None
        effects = self._machine.lost(code, reason, now=self.now(), retry_after=retry_after)
        if isinstance(failure, ConnectionClosed) and isinstance(told := effects[-1], Lost | Ended):
            # What the server has said before it closed says more than the close.
            failure = ConnectionClosed(told.code, told.reason)
        self.failure = failure
        self._perform(effects)

    @property
    def full(self) -> bool:
        """Whether reading is to pause: not while an answer is awaited, which only reading can bring."""
        return self.inbox.full and not (self._outcomes.awaited or self._looking or self.uploads)

    # Inside

    def _resume(self) -> None:
        if self._link is not None and not self.full:
            self._link.socket.resume()

    def _connect(self) -> None:
        effects = self._machine.connect(now=self.now())
        for channel in self._endpoint.channels:
            token, _ = self._machine.request(Join(channel), now=self.now())
            self._outcomes.post(token, None, channel=channel)
            self._joining[token] = None
            self._queued += 1
        self._perform(effects)

    def _next_timeout(self) -> float | None:
        at = self._machine.next_timeout()
        if at is None or self._link is None or not self.connected:
            return at
        # While nothing is read, neither silence nor a missing answer says anything about the server; and the token
        # expires all the same.
        at = max(at, self._link.socket.attentive_at)
        refresh_at = self._machine.refresh_at
        return at if refresh_at is None else min(at, refresh_at)

    def _handle_timeout(self) -> None:
        listening = not self.connected or self.attentive
        self._perform(self._machine.handle_timeout(now=self.now(), listening=listening))

    def _perform(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case SendText(text=text):
                    self.write(SendTextFrame(text))
                case SendBytes(payload=payload):
                    self.write(SendBinaryFrame(payload))
                case MessageReceived(message=message):
                    self._deliver(message)
                case Answered() | Refused():
                    self._tell(effect)
                case Open(last_event_id=last_event_id):
                    assert self._attempts is not None, "a session that does not run opens nothing"
                    endpoint = self._endpoint.going_on(self._machine.session, last_event_id)
                    self._link = WSLink(self, endpoint, traffic=self._traffic, clock=self.now)
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
                    self._start()
                    self.uploads.connected()
                case Rejoined(channel=channel, data=data):
                    _log.debug("joined %r again", channel)
                    self._call("rejoined", {"type": "rejoined", **target_of(channel), "data": data})
                case RejoinRefused(channel=channel, code=code_name, message=text):
                    _log.warning("not joined to %r again: %s", channel, text)
                    # A membership lost without a word would look like a quiet channel.
                    self._deliver({"type": "error", "code": code_name, "message": text, **target_of(channel)})
                case RefreshDue():
                    assert self._timing is not None, "a session that does not run has no connection"
                    if not self._refreshing:
                        self._refreshing = True
                        self._timing.start_soon(self._refresh)
                case ProtocolFault(reason=reason):
                    _log.warning("%s does not keep to the protocol: %s", self._endpoint.url.authority, reason)
                case Lost(reason=reason, retry_at=retry_at):
                    self.uploads.lost()
                    wait = retry_at - self.now()
                    _log.info("lost %s (%s): next attempt in %.1f s", self._endpoint.url.authority, reason, wait)
                    if not self.started.is_set() and not self._keep_trying:
                        self.failure = self.failure or ConnectionFailed(reason)
                        self.started.set()
                case Ended():
                    self._ended = effect
                    self.uploads.end()
                    self._queued = 0
                    if unsent := effect.unsent + self._unsent:
                        _log.warning("%d messages were never sent", unsent)
                    self.inbox.end()
                    self._given_up.set()
                    self.started.set()
                case _:
                    assert_never(effect)
        self._room.set()
        self._alarm.changed()

    async def _refresh(self) -> None:
        """Show the server a fresh token, if the connection still stands when there is one."""
        tokens = self._endpoint.tokens
        assert tokens is not None, "without it nothing is due"
        try:
            token = await tokens.fresh(limit=self._endpoint.client.connect_timeout)
        except (ConnectionFailed, LocalProtocolError):
            # It has been logged.
            if self._machine.refresh_wanted:
                self._perform(self._machine.refresh_failed(now=self.now()))
            return
        finally:
            self._refreshing = False
        if not self._machine.refresh_wanted:
            return
        # Waiting for the answer keeps reading going, whoever is slow to take what is read.
        command = self.request(Request("refresh_token", {"token": token}))
        try:
            await self.outcome(command)
        except CommandError as error:
            tokens.refused(token)
            _log.warning("%s refuses the fresh token: %s", self._endpoint.url.authority, error.code)
        except ConnectionClosed:
            # The next one begins with another token.
            pass

    def _start(self) -> None:
        if self.connected and not self._joining:
            self.started.set()

    def _issue(self, command: Command, note: Callable[[str], None]) -> str:
        self._check_usable()
        token, effects = self._machine.request(command, now=self.now())
        note(token)
        self._queued += not effects
        self._perform(effects)
        # What is awaited comes by reading, so that goes on now whatever waits already.
        self._resume()
        return token

    def _tell(self, outcome: Outcome) -> None:
        self._joining.pop(outcome.id, None)
        self._start()
        message = self._outcomes.tell(outcome)
        if isinstance(outcome, Refused):
            self._queued -= outcome.code == "left"
            self._unsent += outcome.code == "not_sent" and message is not None and "channel" not in message
        # Whoever ends the client wants to hear no more.
        if message is not None and not self._disconnected:
            self._deliver(message)

    def _deliver(self, message: Message) -> None:
        kind = str(message["type"])
        if kind == "upload" and self.uploads.received(message):
            return
        if not self._call(kind, message) and kind not in _HOUSEKEEPING:
            self.inbox.put(message)

    def _call(self, kind: str, message: Message) -> bool:
        """Have the handlers for a message called; returns whether there are any."""
        callbacks = self._handlers.select(kind, "*")
        if callbacks:
            self.inbox.call(callbacks, message.get("data", message), message)
        return bool(callbacks)
