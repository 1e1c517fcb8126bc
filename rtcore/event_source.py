"""`EventSource`: when to connect to an event stream, when to give up, and what to ask it to resume after.

It follows the HTML standard, sections 9.2.2 and 9.2.3 (https://html.spec.whatwg.org/#the-eventsource-interface).
Three things go beyond it, and each can be configured away:

* statuses that a server shows while it restarts are tried again, where the standard fails for good;
* attempts that take too long, and streams that fall silent, are given up and tried again;
* waits are spread, and grow while attempts fail. The standard allows as much: "Optionally, wait some more".

The machine does no I/O. Its driver opens a request at each `Connect`, feeds in what comes, and closes what is
left of that request at `Disconnected`, at `Failed` and after `EventSource.close`::

    NEW --connect--> CONNECTING --response--> OPEN
                      ^      |                 |
      handle_timeout, |      +---> WAITING <---+    response, receive_eof, handle_timeout
              connect |               |
                      +---------------+         any --close--> CLOSED, and --Failed--> CLOSED
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Final, TypeAlias, assert_never

import attrs
from attrs.validators import ge, gt, optional

from rtcore.errors import LocalProtocolError
from rtcore.event_stream import Event, EventStreamParser, EventTooLarge, Retry

__all__ = [
    "Connect",
    "Disconnected",
    "Effect",
    "EventReceived",
    "EventSource",
    "EventSourceConfig",
    "Failed",
    "Opened",
    "Reason",
    "State",
]

# Past this many doublings every sane `max_backoff` has long been reached, and a float is far from its end.
_MAX_DOUBLINGS: Final = 64


class State(Enum):
    """Where an `EventSource` stands. Both `CONNECTING` and `WAITING` are the standard's CONNECTING."""

    NEW = "new"
    CONNECTING = "connecting"
    OPEN = "open"
    WAITING = "waiting"
    CLOSED = "closed"


class Reason(Enum):
    """Why a connection ended, in words for people."""

    ENDED = "the stream ended"
    UNREACHABLE = "the request failed before a response came"
    CONNECT_TIMEOUT = "no response came in time"
    IDLE_TIMEOUT = "nothing came for too long"
    UNAVAILABLE = "the server cannot serve the stream now"
    NO_CONTENT = "the server asked not to be asked again"
    WRONG_STATUS = "the status is not 200"
    WRONG_CONTENT_TYPE = "the response is not text/event-stream"
    EVENT_TOO_LARGE = "an event is larger than the limit"


@attrs.frozen
class Connect:
    """Open a request now.

    Attributes:
        last_event_id: What to send as ``Last-Event-ID``, in UTF-8, unless it is empty. The server chose it:
            it holds no CR, LF or NUL, but may hold anything else, such as other control characters.
    """

    last_event_id: str


@attrs.frozen
class Opened:
    """The response is an event stream: the standard's ``open`` event."""


@attrs.frozen
class EventReceived:
    """An event arrived.

    Attributes:
        event: The event.
    """

    event: Event


@attrs.frozen
class Disconnected:
    """The connection is over and another will be tried. Close what is left of it.

    Attributes:
        reason: Why.
        retry_at: When `Connect` comes, in monotonic seconds.
        status: The HTTP status that led here, or ``None``.
    """

    reason: Reason
    retry_at: float
    status: int | None = None


@attrs.frozen
class Failed:
    """The connection is over for good. Close what is left of it.

    Attributes:
        status: The HTTP status of the response.
        reason: Why.
    """

    status: int
    reason: Reason


Effect: TypeAlias = Connect | Opened | EventReceived | Disconnected | Failed


@attrs.frozen(kw_only=True)
class EventSourceConfig:
    """How an `EventSource` waits. Times are in seconds; a value out of range raises `ValueError`.

    Attributes:
        retry: The reconnection time until the stream sets one, "probably in the region of a few seconds",
            says the standard; browsers take 3 to 5.
        min_retry: The least that a stream may set, so that ``retry: 0`` does not make a busy loop.
        max_retry: The most that a stream, or ``Retry-After``, may set. Firefox draws the line here too.
        backoff: What the wait after a failed attempt is spread over, at least. It doubles with each failure.
        max_backoff: Where the doubling ends. Zero for the waits of the standard: the reconnection time exactly.
        connect_timeout: How long an attempt may take until the response's head is there.
        idle_timeout: How long an open stream may be silent before it is given up; ``None`` for ever, as the
            standard has it. Set it to more than the server's heartbeat interval: nothing else finds out that a
            peer has vanished without a word.
        retried_statuses: The statuses that are tried again. Empty for what the standard says, which is that
            any status but 200 is final.
        max_event_size: The limit of `EventStreamParser`, in bytes.
    """

    retry: float = attrs.field(default=3.0, validator=ge(0))
    min_retry: float = attrs.field(default=0.1, validator=ge(0))
    max_retry: float = attrs.field(default=3 * 3600.0, validator=ge(0))
    backoff: float = attrs.field(default=1.0, validator=ge(0))
    max_backoff: float = attrs.field(default=30.0, validator=ge(0))
    connect_timeout: float = attrs.field(default=30.0, validator=gt(0))
    idle_timeout: float | None = attrs.field(default=None, validator=optional(gt(0)))
    retried_statuses: tuple[int, ...] = (429, 500, 502, 503, 504)
    max_event_size: int = attrs.field(default=16 * 1024 * 1024, validator=gt(0))


class EventSource:
    """One subscription to an event stream, over as many connections as it takes.

    Args:
        config: How it waits.
        random: Draws numbers from [0, 1), evenly, to spread the waits of many clients.
        last_event_id: The id to resume after on the first connection.
    """

    __slots__ = ("_attempts", "_config", "_deadline", "_parser", "_random", "_retry", "_state")

    def __init__(
        self,
        config: EventSourceConfig | None = None,
        *,
        random: Callable[[], float],
        last_event_id: str = "",
    ) -> None:
        self._config = config or EventSourceConfig()
        self._random = random
        self._state = State.NEW
        # One deadline is enough, for no state has two: the end of the attempt, of the silence, or of the wait.
        self._deadline: float | None = None
        self._retry = self._config.retry
        self._attempts = 0  # since the last connection that brought a byte, that one not counted
        self._parser = self._new_parser(last_event_id)

    @property
    def state(self) -> State:
        """Where it stands."""
        return self._state

    @property
    def last_event_id(self) -> str:
        """The id to resume after; it stays available when the source is closed."""
        return self._parser.last_event_id

    def next_timeout(self) -> float | None:
        """Return when `handle_timeout` must be called, in monotonic seconds, or ``None``."""
        return self._deadline

    def connect(self, *, now: float) -> list[Effect]:
        """Start, or cut a wait short (because the network is back, say).

        Returns:
            `Connect`.

        Raises:
            LocalProtocolError: It is neither new nor waiting. Nothing has changed.
        """
        self._require(State.NEW, State.WAITING)
        return self._connect(now)

    def response(self, status: int, content_type: str, *, now: float, retry_after: float | None = None) -> list[Effect]:
        """Take the head of the response, redirects followed.

        Args:
            status: Its status.
            content_type: Its ``Content-Type``, empty where it has none.
            now: Monotonic seconds.
            retry_after: Its ``Retry-After`` in seconds, heeded for `EventSourceConfig.retried_statuses`.

        Returns:
            `Opened`, `Disconnected` or `Failed`.

        Raises:
            LocalProtocolError: No request is under way. Nothing has changed.
        """
        self._require(State.CONNECTING)
        if status != 200:
            if status in self._config.retried_statuses:
                return self._disconnect(Reason.UNAVAILABLE, now, status=status, at_least=retry_after or 0.0)
            # "Clients will reconnect if the connection is closed; a client can be told to stop reconnecting
            # using the HTTP 204 No Content response code."
            return self._fail(status, Reason.NO_CONTENT if status == 204 else Reason.WRONG_STATUS)
        # "If res's status is not 200, or if res's `Content-Type` is not `text/event-stream`, then fail the
        # connection." Parameters do not count: a charset is ignored, the stream is always UTF-8.
        if content_type.partition(";")[0].strip(" \t\r\n").lower() != "text/event-stream":
            return self._fail(status, Reason.WRONG_CONTENT_TYPE)
        self._state = State.OPEN
        self._set_deadline(now, self._config.idle_timeout)
        return [Opened()]

    def receive_data(self, data: bytes, *, now: float) -> list[Effect]:
        """Take the next bytes of the response body.

        Returns:
            `EventReceived` for each event that they complete. `Failed` may follow them: an event above the
            limit is final, because a new connection would be sent it again.

        Raises:
            LocalProtocolError: No stream is open. Nothing has changed.
        """
        self._require(State.OPEN)
        if data:
            # Not the 200 alone: a proxy may answer for a server that is down, and end the body at once.
            self._attempts = 0
            self._set_deadline(now, self._config.idle_timeout)
        effects: list[Effect] = []
        for item in self._parser.receive_data(data):
            match item:
                case Event():
                    effects.append(EventReceived(item))
                case Retry():
                    asked = max(item.milliseconds / 1000, self._config.min_retry)
                    self._retry = min(asked, self._config.max_retry)
                case EventTooLarge():
                    effects += self._fail(200, Reason.EVENT_TOO_LARGE)
                case _:
                    assert_never(item)
        return effects

    def receive_eof(self, *, now: float) -> list[Effect]:
        """Take the end of the response, or of the attempt to get one, in whatever way it came.

        An event whose empty line has not come is dropped; the server will be asked to resume before it.

        Returns:
            `Disconnected`.

        Raises:
            LocalProtocolError: No request is under way and no stream is open. Nothing has changed.
        """
        self._require(State.CONNECTING, State.OPEN)
        return self._disconnect(Reason.ENDED if self._state is State.OPEN else Reason.UNREACHABLE, now)

    def handle_timeout(self, *, now: float) -> list[Effect]:
        """Let time pass. A call before `next_timeout`, or without one, changes nothing.

        Returns:
            Nothing, `Connect` or `Disconnected`.
        """
        if self._deadline is None or now < self._deadline:
            return []
        if self._state is State.WAITING:
            return self._connect(now)
        reason = Reason.IDLE_TIMEOUT if self._state is State.OPEN else Reason.CONNECT_TIMEOUT
        return self._disconnect(reason, now)

    def close(self, *, now: float) -> list[Effect]:
        """End the subscription, from any state, once or more often.

        Returns:
            Nothing. Close what is left of the connection.
        """
        self._close()
        return []

    def _require(self, *states: State) -> None:
        if self._state not in states:
            raise LocalProtocolError(f"not possible while {self._state.value}")

    def _set_deadline(self, now: float, timeout: float | None) -> None:
        self._deadline = None if timeout is None else now + timeout

    def _new_parser(self, last_event_id: str) -> EventStreamParser:
        return EventStreamParser(max_event_size=self._config.max_event_size, last_event_id=last_event_id)

    def _connect(self, now: float) -> list[Effect]:
        self._state = State.CONNECTING
        self._attempts += 1
        self._set_deadline(now, self._config.connect_timeout)
        return [Connect(self.last_event_id)]

    def _disconnect(
        self, reason: Reason, now: float, *, status: int | None = None, at_least: float = 0.0
    ) -> list[Effect]:
        config = self._config
        # "Wait a delay equal to the reconnection time of the event source. Optionally, wait some more. In
        # particular, if the previous attempt failed, then user agents might introduce an exponential backoff
        # delay". A stream that worked was most likely lost by many clients at once, so that wait is spread
        # too, over the time that the server chose.
        if self._attempts == 0:
            spread = self._retry
        else:
            spread = max(self._retry, config.backoff) * 2.0 ** min(self._attempts - 1, _MAX_DOUBLINGS)
        wait = max(self._retry, min(at_least, config.max_retry))
        retry_at = now + wait + self._random() * min(spread, config.max_backoff)
        self._state = State.WAITING
        self._deadline = retry_at
        self._parser = self._new_parser(self.last_event_id)
        return [Disconnected(reason, retry_at, status)]

    def _fail(self, status: int, reason: Reason) -> list[Effect]:
        self._close()
        return [Failed(status, reason)]

    def _close(self) -> None:
        self._state = State.CLOSED
        self._deadline = None
        self._parser.receive_eof()
