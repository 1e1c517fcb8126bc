"""The client's machine. The transport connects, frames and reads the clock; everything is decided here.

States, what moves between them, and the effects of the move::

    IDLE        connect              -> CONNECTING  Open
    CONNECTING  `connected`          -> CONNECTED   Connected, each join again, what was queued
    CONNECTING  lost, out of time    -> WAITING     (Drop,) Lost
    CONNECTED   lost, silent         -> WAITING     (Drop,) the outcome of each command under way, Lost
    WAITING     retry_at, connect    -> CONNECTING  Open
    any         Disconnect, or a loss with no way back -> CLOSED  (Drop,) all outcomes, Ended

A loss has no way back if the server says so, or its close code does, or the attempts are used up, or the
configuration wants none.

Links follow one another. Each ends once: by `Client.lost`, or by the effect `Drop`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum, auto
from typing import Final, assert_never

import msgspec

from rtcore.errors import CloseCode, LocalProtocolError, Refusal, reconnects
from rtcore.messages import Message, decode_value

from .commands import (
    Answered,
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
    Refused,
    Rejoined,
    RejoinRefused,
    Request,
    Send,
    SendText,
)
from .config import ClientConfig
from .memberships import Memberships
from .outbox import Kind, Outbox, Pending
from .wire import Denial, Farewell, Welcome, command_text, encode

__all__ = ["Client", "ClientState"]

_CONNECTION_LOST: Final = "the connection was lost before the answer came"


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

    Not supported: recovery of what was published while offline, and sending again what was lost on the way.

    Args:
        config: Limits and durations.
        random: Draws uniformly from [0, 1), for the jitter and for the prefix of the ids. The server takes a
            publication for a repetition if the same user has sent its id before, so two clients of a user
            must not both count "1", "2"…
    """

    def __init__(self, config: ClientConfig, *, random: Callable[[], float]) -> None:
        self._config = config
        self._random = random
        self._state = ClientState.IDLE
        # The time limit of the state: of the attempt, of the server's silence, or of the wait.
        self._timer: float | None = None
        self._attempts = 0
        self._connection_id: str | None = None
        self._user_id: str | None = None
        self._memberships = Memberships()
        self._outbox = Outbox(
            prefix=f"{int(random() * 2**40):x}", size=config.queue_size, timeout=config.command_timeout
        )
        # Of the present link.
        self._is_open = False
        self._connected_at: float | None = None
        self._patience: float | None = None
        self._farewell: Farewell | None = None

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
        """The desired memberships, in the order in which they are joined again."""
        return tuple(self._memberships)

    def next_timeout(self) -> float | None:
        """Return when `handle_timeout` is due, in seconds, or ``None``."""
        answer_by = self._outbox.next_timeout()
        if self._timer is None or (answer_by is not None and answer_by < self._timer):
            return answer_by
        return self._timer

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
            For ``connected``: `Connected`, a `SendText` for each membership, one for each text in the queue. For
            the answer to a command `Answered` or `Refused`, to a join of this machine's own `Rejoined` or
            `RejoinRefused`. For any other message `MessageReceived`, which covers answers to ids that are
            unknown or overdue. For a bad message `ProtocolFault`, `Drop`, and all outcomes with `Ended`, as
            4400 has no way back: the same server would say the same again.

        Raises:
            LocalProtocolError: The link is not open; nothing has changed.
        """
        if not self._is_open:
            raise LocalProtocolError(f"receive_text() on a link that is not open, while {self._state.name}")
        self.receive_activity(now=now)
        message = decode_value(text)
        try:
            if isinstance(message, Refusal):
                raise msgspec.ValidationError(message.message)
            if not isinstance(message, dict) or not isinstance(message.get("type"), str):
                raise msgspec.ValidationError("not an object with a string `type`")
            return self._receive(message, now)
        except msgspec.ValidationError as error:
            # No matter what the server has announced: it has now shown that it does not speak the protocol.
            self._farewell = None
            reason = f"bad message: {error}"
            code = CloseCode.BAD_MESSAGE
            return [ProtocolFault(reason), Drop(code, "bad message"), *self._lose(code, reason, None, now)]

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

    def handle_timeout(self, *, now: float) -> list[Effect]:
        """Do what is due by `now`.

        Returns:
            A `Refused` for each overdue answer, that of a join with the `SendText` of a leave. Then `Open` when the
            wait is over; or, for an attempt out of time or a silent server, `Drop` and what `lost` returns.
        """
        effects: list[Effect] = []
        for token, pending in self._outbox.take_overdue(now=now):
            effects += self._overdue(token, pending)
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
            For `Send` a `SendText`, or nothing where it is queued. For `Disconnect`: `Drop` if there is a link or an
            attempt, `Answered` or `Refused` for each pending command, `Ended`.

        Raises:
            LocalProtocolError: The client is CLOSED, or for `Send` IDLE, or JSON cannot express the message.
            QueueFull: The offline queue is full. Either way nothing has changed.
        """
        match command:
            case Send(message):
                self._check_usable()
                return self._write(self._outbox.next_id(), encode({**message}))
            case Disconnect():
                if self._state is ClientState.CLOSED:
                    raise LocalProtocolError("the client has ended")
                effects: list[Effect] = []
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
        offline, where nobody is a member.

        Returns:
            The id, and a `SendText`, or nothing where it is queued. For a `Leave` while offline: `Refused` for each
            join that it overtakes, then `Answered`.

        Raises:
            LocalProtocolError: The client is IDLE or CLOSED, JSON cannot express the data, or the id in a
                publication is no string or is pending already.
            QueueFull: The offline queue is full. Either way nothing has changed.
        """
        self._check_usable()
        token = self._outbox.next_id()
        match command:
            case Join(channel, data) | Request("join_channel", {"channel": str(channel), **data}):
                return token, self._join(token, channel, data, now)
            case Leave(channel) | Request("leave_channel", {"channel": str(channel)}):
                return token, self._leave(token, channel, now)
            case Request(name, data):
                text = command_text(name, {**data}, token)
            case Publish(message):
                own = message.get("id", token)
                if not isinstance(own, str):
                    raise LocalProtocolError("the id of a publication must be a string")
                if own in self._outbox:
                    raise LocalProtocolError(f"a publication with the id {own!r} is pending already")
                token = own
                text = encode({**message, "id": token})
            case _:
                assert_never(command)
        effects = self._write(token, text)
        self._outbox.await_answer(token, Pending(Kind.CALL), now=now)
        return token, effects

    def _join(self, token: str, channel: str, data: Mapping[str, object], now: float) -> list[Effect]:
        raw = msgspec.Raw(encode({**data, "channel": channel}).encode())
        effects = self._write(token, None if self._is_offline else command_text("join_channel", raw, token))
        self._memberships.join(channel, token, raw)
        self._outbox.await_answer(token, Pending(Kind.JOIN, channel), now=now)
        return effects

    def _leave(self, token: str, channel: str, now: float) -> list[Effect]:
        text = command_text("leave_channel", {"channel": channel}, token)
        overtaken = self._memberships.leave(channel)
        if not self._is_offline:
            effects = self._write(token, text)
            self._outbox.await_answer(token, Pending(Kind.LEAVE, channel), now=now)
            return effects
        self._outbox.count()
        outcomes: list[Effect] = []
        for join in overtaken:
            if self._outbox.forget(join) is Kind.JOIN:
                outcomes.append(Refused(join, "left", "the channel was left before it was joined"))
        return [*outcomes, Answered(token, {"channel": channel})]

    def _receive(self, message: Message, now: float) -> list[Effect]:
        """Raises msgspec.ValidationError, before anything has changed, where a type in `message` is wrong."""
        token = message.get("id")
        pending = self._outbox.get(token) if isinstance(token, str) else None
        match message["type"]:
            case "connected" if self._state is ClientState.CONNECTING:
                return self._welcome(msgspec.convert(message, Welcome), now)
            case "disconnect":
                self._farewell = msgspec.convert(message, Farewell)
            case "response" if pending is not None:
                return self._granted(str(token), pending, message.get("data"))
            case "error" if pending is not None:
                return self._denied(str(token), pending, msgspec.convert(message, Denial))
        return [MessageReceived(message)]

    def _welcome(self, welcome: Welcome, now: float) -> list[Effect]:
        effects: list[Effect] = [
            Connected(welcome.connection_id, welcome.user_id, reconnected=self._connection_id is not None)
        ]
        self._state = ClientState.CONNECTED
        self._connection_id, self._user_id = welcome.connection_id, welcome.user_id
        self._connected_at = now
        self._timer = None
        if welcome.heartbeat_interval is not None:
            self._patience = welcome.heartbeat_interval * self._config.heartbeat_factor
            self._timer = now + self._patience
        for channel in self._memberships.welcome(welcome.channels):
            effects.append(SendText(command_text("leave_channel", {"channel": channel})))
        for channel, join, data, granted in self._memberships.take():
            token = join
            if granted:
                token = self._outbox.next_id()
                self._outbox.count()
                self._outbox.await_answer(token, Pending(Kind.REJOIN, channel), now=now)
            else:
                self._outbox.sent(token, now=now)
            self._memberships.join(channel, token, data)
            effects.append(SendText(command_text("join_channel", data, token)))
        return [*effects, *map(SendText, self._outbox.flush(now=now))]

    def _granted(self, token: str, pending: Pending, data: object) -> list[Effect]:
        self._outbox.forget(token)
        desired = self._memberships.grant(pending.channel, token)
        if pending.kind is not Kind.REJOIN:
            return [Answered(token, data)]
        return [Rejoined(pending.channel, data)] if desired else []

    def _denied(self, token: str, pending: Pending, denial: Denial) -> list[Effect]:
        self._outbox.forget(token)
        desired = self._memberships.withdraw(pending.channel, token)
        if pending.kind is not Kind.REJOIN:
            return [Refused(token, denial.code, denial.message)]
        return [RejoinRefused(pending.channel, denial.code, denial.message)] if desired else []

    def _overdue(self, token: str, pending: Pending) -> list[Effect]:
        effects: list[Effect] = [Refused(token, "timeout", "the server did not answer in time")]
        if self._memberships.withdraw(pending.channel, token) and pending.channel not in self._memberships:
            # The server may yet carry the join out. It acts in the order of arrival, so this undoes it.
            effects.append(SendText(command_text("leave_channel", {"channel": pending.channel})))
        return effects

    def _open(self, now: float) -> list[Effect]:
        self._state = ClientState.CONNECTING
        self._timer = now + self._config.connect_timeout
        return [Open()]

    def _lose(self, code: int | None, reason: str, retry_after: float | None, now: float) -> list[Effect]:
        again = reconnects(code)
        if (farewell := self._farewell) is not None:
            # What was announced is surer than what arrived: a proxy or a cut turns any code into 1006.
            code, reason = farewell.code, farewell.reason
            again = reconnects(code) if farewell.reconnect is None else farewell.reconnect
            retry_after = farewell.retry_after if retry_after is None else retry_after
        config = self._config
        if self._connected_at is not None and now - self._connected_at >= config.backoff_cap:
            # Not as soon as it was up: a server that accepts and drops would be hammered.
            self._attempts = 0
        effects = self._release()
        limit = config.max_reconnect_attempts
        if not (again and config.auto_reconnect) or (limit is not None and self._attempts >= limit):
            return [*effects, *self._end(code, reason)]
        delay = self._random() * config.backoff(self._attempts)
        self._attempts += 1
        self._state = ClientState.WAITING
        self._timer = now + max(0.0, retry_after or 0.0) + delay
        return [*effects, Lost(code, reason, self._timer)]

    def _release(self) -> list[Effect]:
        """Forget the link, and settle what was under way on it."""
        self._is_open = False
        self._connected_at = None
        self._patience = None
        self._farewell = None
        self._timer = None
        effects: list[Effect] = []
        for token, pending in self._outbox.under_way():
            if pending.kind is Kind.JOIN and self._memberships.holds(pending.channel, token):
                self._outbox.suspend(token)
                continue
            self._outbox.forget(token)
            if pending.kind is Kind.REJOIN:
                # It was granted on an earlier connection, and is asked for again on the next.
                self._memberships.grant(pending.channel, token)
            elif pending.kind is Kind.LEAVE:
                # Nobody is a member without a connection, so the loss has carried it out.
                effects.append(Answered(token, {"channel": pending.channel}))
            else:
                effects.append(Refused(token, "connection_lost", _CONNECTION_LOST))
        return effects

    def _end(self, code: int | None, reason: str) -> list[Effect]:
        self._state = ClientState.CLOSED
        self._memberships.take()
        pending, unsent = self._outbox.clear()
        outcomes: list[Effect] = [
            Refused(token, "not_sent", "the client ended before it could send this")
            if queued
            else Refused(token, "connection_lost", _CONNECTION_LOST)
            for token, queued in pending
        ]
        return [*outcomes, Ended(code, reason, unsent)]

    @property
    def _is_offline(self) -> bool:
        # What follows the server's farewell would be lost with the link.
        return self._state is not ClientState.CONNECTED or self._farewell is not None

    def _write(self, token: str, text: str | None) -> list[Effect]:
        """Send or queue; the first change that a command makes, and the last of it that may raise."""
        if self._is_offline:
            self._outbox.queue(token, text)
            self._outbox.count()
            return []
        # Only a join has no text, and only while offline.
        assert text is not None
        self._outbox.count()
        return [SendText(text)]

    def _check_usable(self) -> None:
        if self._state in (ClientState.IDLE, ClientState.CLOSED):
            raise LocalProtocolError(f"nothing can be sent while {self._state.name}")

    def _check_link(self) -> None:
        if self._state not in (ClientState.CONNECTING, ClientState.CONNECTED):
            raise LocalProtocolError(f"there is no link while {self._state.name}")
