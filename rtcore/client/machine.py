"""The client's machine. The transport connects, frames and reads the clock; everything is decided here.

States, what moves between them, and the effects of the move::

    IDLE        connect              -> CONNECTING  Open
    CONNECTING  `connected`          -> CONNECTED   Connected, each join again, what was queued
    CONNECTING  lost, out of time    -> WAITING     (Drop,) Lost
    CONNECTED   lost, silent         -> WAITING     (Drop,) the outcome of each command under way, Lost
    WAITING     retry_at, connect    -> CONNECTING  Open
    any         Disconnect, or a loss with no way back -> CLOSED  (Drop,) all outcomes, Ended

A loss has no way back if the server says so, or its close code does, or the attempts are used up, or the
configuration wants none. A token that was refused or has expired is no such loss where there may be a fresh one.

Links follow one another. Each ends once: by `Client.lost`, or by the effect `Drop`.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from typing import assert_never

import msgspec

from rtcore.binary import Bytes
from rtcore.errors import CloseCode, LocalProtocolError
from rtcore.messages import Message

from .channels import Channels
from .commands import (
    Command,
    Connected,
    Disconnect,
    Drop,
    Effect,
    Ended,
    Join,
    Leave,
    Lost,
    MessageReceived,
    Open,
    ProtocolFault,
    Publish,
    Request,
    Send,
)
from .config import ClientConfig
from .outbox import Kind, Outbox, Pending
from .positions import Hearing
from .reconnection import Reconnection
from .token_refresh import TokenRefresh
from .wire import Denial, Farewell, GapNotice, Removal, Welcome, command_text, decode, encode, room_stream

__all__ = ["Client", "ClientState"]


class ClientState(Enum):
    """Where a client stands."""

    IDLE = auto()
    CONNECTING = auto()
    CONNECTED = auto()
    WAITING = auto()
    CLOSED = auto()


class Client:
    """One client, over any number of connections one after the other.

    What the server sends never raises. A call that the state does not allow raises `LocalProtocolError` and
    changes nothing.

    What was published while it was offline comes when it is back, before anything new; where the server cannot tell
    all of it, the application hears a ``gap``. So it does where something is missing in the middle of a connection and
    cannot be had by joining again.

    Args:
        config: Limits and durations.
        random: Draws uniformly from [0, 1), for the jitter and for the prefix of the ids. The server takes a
            publication for a repetition if the same user has sent its id before, so two clients of a user
            must not both count "1", "2"…
        session: A secret that no other client has, which the transport puts into each request: by it the server knows
            what it has got of this client. Empty for none: then nothing is sent again.
    """

    def __init__(self, config: ClientConfig, *, random: Callable[[], float], session: str = "") -> None:
        self._config = config
        self._reconnection = Reconnection(config, random)
        self._state = ClientState.IDLE
        # The time limit of the state: of the attempt, of the server's silence, or of the wait.
        self._timer: float | None = None
        self._connection_id: str | None = None
        self._user_id: str | None = None
        self.session = session
        self._session_epoch: str | None = None
        self._hearing = Hearing()
        self._outbox = Outbox(
            prefix=f"{int(random() * 2**40):x}",
            size=config.queue_size,
            timeout=config.command_timeout,
            least_wait=config.backoff_base,
            max_unacknowledged=config.max_unacknowledged,
        )
        self._channels = Channels(self._outbox)
        # Of the present link.
        self._is_open = False
        self._connected_at: float | None = None
        self._patience: float | None = None
        self._farewell: Farewell | None = None
        self._refresh = TokenRefresh(config)

    @property
    def state(self) -> ClientState:
        """Where the client stands."""
        return self._state

    @property
    def connection_id(self) -> str | None:
        """The server's name for the present or else the last connection; ``None`` before the first."""
        return self._connection_id

    @property
    def user_id(self) -> str | None:
        """The user that the server takes the client for, as of `connection_id`."""
        return self._user_id

    @property
    def channels(self) -> tuple[str, ...]:
        """The desired memberships of channels, in the order in which they are joined again."""
        return self._channels.names

    @property
    def unacknowledged(self) -> int:
        """How many publications await their acknowledgement; `ClientConfig.max_unacknowledged` at most."""
        return self._outbox.unacknowledged

    @property
    def refresh_at(self) -> float | None:
        """When `RefreshDue` comes next, in seconds, or ``None``."""
        return self._refresh.due_at

    @property
    def refresh_wanted(self) -> bool:
        """Whether the token that `RefreshDue` asked for is still wanted, and has not been given."""
        return self._refresh.wanted

    def position(self, channel: str) -> tuple[str, int] | None:
        """Return the epoch and the offset up to which a channel was heard, for a later ``since``; or ``None``."""
        return self._channels.position(channel)

    def next_timeout(self) -> float | None:
        """Return when `handle_timeout` is due, in seconds, or ``None``."""
        deadlines = (self._timer, self._outbox.next_timeout(), self._refresh.due_at)
        return min((at for at in deadlines if at is not None), default=None)

    def connect(self, *, now: float) -> list[Effect]:
        """Begin; or, while WAITING, try again now rather than at `Lost.retry_at`.

        Returns:
            `Open`.

        Raises:
            LocalProtocolError: The client is neither IDLE nor WAITING; nothing has changed.
        """
        if self._state not in (ClientState.IDLE, ClientState.WAITING):
            raise LocalProtocolError(f"connect() while {self._state.name}")
        return self._open(now)

    def opened(self, *, now: float) -> list[Effect]:
        """Tell that the attempt has led to an open WebSocket. Its time limit goes on until ``connected``.

        Raises:
            LocalProtocolError: No attempt is under way, or this was told before; nothing has changed.
        """
        if self._state is not ClientState.CONNECTING or self._is_open:
            raise LocalProtocolError(f"opened() while {self._state.name}, or twice")
        self._is_open = True
        return []

    def receive_activity(self, *, now: float) -> list[Effect]:
        """Tell that bytes of any kind came from the server: that keeps the watchdog quiet.

        Raises:
            LocalProtocolError: There is no link; nothing has changed.
        """
        self._check_link()
        # A server that has said goodbye must end the link; that it is alive is no excuse.
        if self._patience is not None and self._farewell is None:
            self._timer = now + self._patience
        return []

    def receive_text(self, text: str, *, now: float) -> list[Effect]:
        """Receive one WebSocket text message; it keeps the watchdog quiet too.

        Returns:
            For ``connected``: `Connected`, a `MessageReceived` for each gap in it, a `SendText` for each membership, a
            `SendText` or `SendBytes` for each publication that is not acknowledged or else its `Refused`, and for each
            message in the queue. For
            the answer to a command `Answered` or `Refused`, to a join of this machine's own `Rejoined` or
            `RejoinRefused`, or nothing if it was refused for now and will be sent again, as a leave is too; where the
            server cannot tell all that was missed, a `MessageReceived` of a ``gap`` follows.
            For any other message `MessageReceived`, which covers answers to ids that are unknown or overdue; nothing
            for what was heard before; and for what comes too early the `SendText` of a join that asks for what is
            missing. For a bad message `ProtocolFault`, `Drop`, and all outcomes with `Ended`, as 4400 has no way back:
            the same server would say the same again.

        Raises:
            LocalProtocolError: The link is not open; nothing has changed.
        """
        return self._take(text, now)

    def receive_bytes(self, payload: Bytes, *, now: float) -> list[Effect]:
        """Receive one WebSocket binary message, a message of the type ``binary``; see `receive_text`.

        Returns:
            As for its head as a text; but `MessageReceived` has the bytes of the file, copied, in ``data``.

        Raises:
            LocalProtocolError: The link is not open; nothing has changed.
        """
        return self._take(payload, now)

    def lost(self, code: int | None, reason: str = "", *, now: float, retry_after: float | None = None) -> list[Effect]:
        """Tell that the link has ended, or that the attempt has failed.

        Whether to try again is said by a ``disconnect`` message that came before, else by
        `rtcore.errors.reconnects`. An attempt that the server refused over HTTP has no close code: give the
        one that means the same (4401 for 401, 1013 for 503…).

        Args:
            code: The close code, or ``None`` where the transport just ended.
            reason: What the server said, or what failed.
            now: Monotonic seconds.
            retry_after: Seconds before which the server wants no attempt, if it said so outside of ``disconnect``.

        Returns:
            `Answered` for a leave and `Refused` for any other command under way, in the order of issue, except
            that a join stays pending until the next connection answers it; then `Lost`. With no way back
            also `Refused` for all that is left, then `Ended`.

        Raises:
            LocalProtocolError: There is no link; nothing has changed.
        """
        self._check_link()
        return self._lose(code, reason, retry_after, now)

    def refresh_failed(self, *, now: float) -> list[Effect]:
        """Tell that there is no fresh token for now; `RefreshDue` comes again, after longer and longer waits.

        Raises:
            LocalProtocolError: None is wanted; nothing has changed.
        """
        if not self._refresh.wanted:
            raise LocalProtocolError("refresh_failed() where no token is wanted")
        self._refresh.failed(now=now)
        return []

    def handle_timeout(self, *, now: float, listening: bool = True) -> list[Effect]:
        """Do what is due by `now`.

        Args:
            now: Monotonic seconds.
            listening: Whether what the server says is read. While it is not, its silence says nothing on a connection
                that stands: no answer is overdue, and the link is not taken for dead.

        Returns:
            A `Refused` for each overdue answer, that of a join with the `SendText` of a leave; and a `SendText` for
            each leave, and each join of the machine's own, that is sent again since it was refused for now. Then
            `RefreshDue`. Then `Open` when the wait is over; or, for an attempt out of time or a silent server, `Drop`
            and what `lost` returns.
        """
        effects: list[Effect] = []
        if self._state is ClientState.CONNECTED and not listening:
            self.receive_activity(now=now)
            return self._refresh.take_due(now=now)
        for token, pending in self._outbox.take_due(now=now):
            if pending.kind is Kind.REFRESH:
                self._refresh.failed(now=now)
            effects += self._channels.due(token, pending, offline=self._is_offline, now=now)
        effects += self._refresh.take_due(now=now)
        if self._timer is None or now < self._timer:
            return effects
        if self._state is ClientState.WAITING:
            effects += self._open(now)
        elif self._state is ClientState.CONNECTING:
            effects.append(Drop(CloseCode.GOING_AWAY, "connect timeout"))
            effects += self._lose(None, "no connection in time", None, now)
        else:
            # IDLE and CLOSED set no timer.
            assert self._state is ClientState.CONNECTED
            effects.append(Drop(CloseCode.HEARTBEAT_MISSED, "heartbeat missed"))
            effects += self._lose(CloseCode.HEARTBEAT_MISSED, "heartbeat missed", None, now)
        return effects

    def send(self, command: Send | Disconnect, *, now: float) -> list[Effect]:
        """Carry out a command that has no outcome.

        Returns:
            For `Send` a `SendText`, or nothing where it is queued. For `Disconnect`: a `SendText` for each room that is
            left, `Drop` if there is a link or an attempt, `Answered` or `Refused` for each pending command, `Ended`.

        Raises:
            LocalProtocolError: The client is CLOSED, or for `Send` IDLE, or JSON cannot express the message.
            QueueFull: The offline queue is full. Either way nothing has changed.
        """
        match command:
            case Send(message):
                self._check_usable()
                return self._outbox.write(self._outbox.next_id(), encode({**message}), offline=self._is_offline)
            case Disconnect():
                if self._state is ClientState.CLOSED:
                    raise LocalProtocolError("the client has ended")
                effects: list[Effect] = []
                if not self._is_offline:
                    effects += self._channels.farewell()
                if self._state in (ClientState.CONNECTING, ClientState.CONNECTED):
                    effects.append(Drop(CloseCode.NORMAL_CLOSURE, ""))
                effects += self._release()
                return [*effects, *self._end(CloseCode.NORMAL_CLOSURE, "")]
            case _:
                assert_never(command)

    def request(self, command: Command, *, now: float) -> tuple[str, list[Effect]]:
        """Carry out a command whose outcome is told: by one `Answered` or `Refused` with the id returned here.

        While offline, which begins with the server's ``disconnect``, commands are queued. `Join` and `Leave` change
        the desired membership at once. A refused or overdue join changes it back. A leave needs no server while
        offline, where nobody is a member. One that the server refuses for now is sent again when it says.

        Returns:
            The id, and a `SendText`, or a `SendBytes` for a `Publish` with data, or nothing where it is queued. For a
            `Leave` while offline: `Refused` for each join that it overtakes, then `Answered`.

        Raises:
            LocalProtocolError: The client is IDLE or CLOSED, JSON cannot express the data, or the id in a
                publication is no string or is pending already, or it has data and is not of the type ``binary``.
            QueueFull: The offline queue is full, or too many publications are not acknowledged. Either way nothing has
                changed.
        """
        self._check_usable()
        token = self._outbox.next_id()
        pending = Pending(Kind.CALL)
        payload: str | bytes
        match command:
            case Join(channel, data) | Request("join_channel", {"channel": str(channel), **data}):
                return token, self._channels.join(token, channel, data, offline=self._is_offline, now=now)
            case Request("join_room", {"room_id": str(room_id), **fields}):
                stream = room_stream(room_id)
                return token, self._channels.join(token, stream, fields, offline=self._is_offline, now=now)
            case Request("leave_room", {"room_id": str(room_id)}):
                stream = room_stream(room_id)
                return token, self._channels.leave(token, stream, offline=self._is_offline, now=now)
            case Leave(channel) | Request("leave_channel", {"channel": str(channel)}):
                return token, self._channels.leave(token, channel, offline=self._is_offline, now=now)
            case Request(name, data):
                if name == "refresh_token":
                    pending = Pending(Kind.REFRESH)
                payload = command_text(name, {**data}, token)
            case Publish():
                token, pending = self._outbox.publication(command)
                payload = pending.payload
            case _:
                assert_never(command)
        effects = self._outbox.write(token, payload, offline=self._is_offline)
        self._outbox.await_answer(token, pending, now=now)
        if pending.kind is Kind.REFRESH:
            self._refresh.given()
        return token, effects

    def _take(self, payload: str | Bytes, now: float) -> list[Effect]:
        if not self._is_open:
            raise LocalProtocolError(f"a message on a link that is not open, while {self._state.name}")
        self.receive_activity(now=now)
        try:
            return self._receive(decode(payload), now)
        except msgspec.ValidationError as error:
            # No matter what the server has announced: it has now shown that it does not speak the protocol.
            self._farewell = None
            reason = f"bad message: {error}"
            code = CloseCode.BAD_MESSAGE
            return [ProtocolFault(reason), Drop(code, "bad message"), *self._lose(code, reason, None, now)]

    def _receive(self, message: Message, now: float) -> list[Effect]:
        """Raises msgspec.ValidationError, before anything has changed, where a type in `message` is wrong."""
        token = message.get("id")
        pending = self._outbox.get(token) if isinstance(token, str) else None
        match message["type"]:
            case "connected" if self._state is ClientState.CONNECTING:
                return self._welcome(msgspec.convert(message, Welcome), now)
            case "disconnect":
                self._farewell = msgspec.convert(message, Farewell)
                # The server wants nothing more, and a fresh token the least of all.
                self._refresh.clear()
            case "response" if pending is not None:
                self._outbox.forget(str(token))
                if pending.kind is Kind.REFRESH and self._farewell is None:
                    self._refresh.answered(message.get("data"), now=now)
                return self._channels.granted(str(token), pending, message.get("data"))
            case "error" if pending is not None:
                denial = msgspec.convert(message, Denial)
                if pending.kind is Kind.REFRESH:
                    self._refresh.failed(denial.retry_after, now=now)
                return self._channels.denied(str(token), pending, denial, now=now)
            case "gap":
                self._channels.interrupted(msgspec.convert(message, GapNotice))
            case "unsubscribed":
                self._channels.removed(msgspec.convert(message, Removal).channel)
        effects = self._channels.hear(message, offline=self._is_offline, now=now)
        self._hearing.hear(message, joined=effects is not None)
        if effects is not None:
            return effects
        # Publications of the client's own that it does not want to hear come all the same with what was missed.
        return [] if "meta" in message and self._outbox.is_silent(token) else [MessageReceived(message)]

    def _welcome(self, welcome: Welcome, now: float) -> list[Effect]:
        """Raises msgspec.ValidationError, before anything has changed, where a gap in `welcome` is wrong."""
        notices = [msgspec.convert(gap, GapNotice) for gap in welcome.gaps]
        effects: list[Effect] = [
            Connected(welcome.connection_id, welcome.user_id, reconnected=self._connection_id is not None)
        ]
        self._state = ClientState.CONNECTED
        self._connection_id, self._user_id = welcome.connection_id, welcome.user_id
        self._hearing.welcome(welcome.last_event_id)
        # Not whether it knows the session at all: it may do so from an attempt whose welcome was lost.
        known = welcome.session_epoch is not None and welcome.session_epoch == self._session_epoch
        self._session_epoch = welcome.session_epoch
        self._connected_at = now
        self._reconnection.welcomed()
        self._refresh.accepted(welcome.expires_in, now=now)
        self._timer = None
        if welcome.heartbeat_interval is not None:
            self._patience = welcome.heartbeat_interval * self._config.heartbeat_factor
            self._timer = now + self._patience
        effects += [MessageReceived({**gap, "type": "gap"}) for gap in welcome.gaps]
        for notice in notices:
            self._channels.interrupted(notice)
        effects += self._channels.welcome(welcome.channels, now=now)
        effects += self._outbox.publish_again(known=known, now=now)
        return [*effects, *self._outbox.flush(now=now)]

    def _open(self, now: float) -> list[Effect]:
        self._state = ClientState.CONNECTING
        self._timer = now + self._config.connect_timeout
        token = self._hearing.token
        return [Open(None if token is None else str(token))]

    def _lose(self, code: int | None, reason: str, retry_after: float | None, now: float) -> list[Effect]:
        reconnect: bool | None = None
        if (farewell := self._farewell) is not None:
            # What was announced is surer than what arrived: a proxy or a cut turns any code into 1006.
            code, reason, reconnect = farewell.code, farewell.reason, farewell.reconnect
            retry_after = farewell.retry_after if retry_after is None else retry_after
        stood = None if self._connected_at is None else now - self._connected_at
        effects = self._release()
        delay = self._reconnection.lost(code, reconnect=reconnect, retry_after=retry_after, stood=stood)
        if delay is None:
            return [*effects, *self._end(code, reason)]
        self._state = ClientState.WAITING
        self._timer = now + delay
        return [*effects, Lost(code, reason, self._timer)]

    def _release(self) -> list[Effect]:
        """Forget the link, and settle what was under way on it."""
        self._is_open = False
        self._connected_at = None
        self._patience = None
        self._farewell = None
        self._timer = None
        self._refresh.clear()
        return self._channels.lost()

    def _end(self, code: int | None, reason: str) -> list[Effect]:
        self._state = ClientState.CLOSED
        self._channels.clear()
        outcomes, unsent = self._outbox.clear()
        return [*outcomes, Ended(code, reason, unsent)]

    @property
    def _is_offline(self) -> bool:
        # What follows the server's farewell would be lost with the link.
        return self._state is not ClientState.CONNECTED or self._farewell is not None

    def _check_usable(self) -> None:
        if self._state in (ClientState.IDLE, ClientState.CLOSED):
            raise LocalProtocolError(f"nothing can be sent while {self._state.name}")

    def _check_link(self) -> None:
        if self._state not in (ClientState.CONNECTING, ClientState.CONNECTED):
            raise LocalProtocolError(f"there is no link while {self._state.name}")
