"""`EventSource`: connecting, waiting, resuming, giving up."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rtcore.errors import LocalProtocolError
from rtcore.event_source import (
    Connect,
    Disconnected,
    Effect,
    EventReceived,
    EventSource,
    EventSourceConfig,
    Failed,
    Opened,
    Reason,
    State,
)
from rtcore.event_stream import Event, encode_comment, encode_event

STREAM = "text/event-stream"
EXACT = EventSourceConfig(max_backoff=0, retried_statuses=())  # the standard, and nothing else


def half() -> float:
    return 0.5


def new(config: EventSourceConfig | None = None, *, last_event_id: str = "") -> EventSource:
    return EventSource(config, random=half, last_event_id=last_event_id)


def connecting(config: EventSourceConfig | None = None) -> EventSource:
    source = new(config)
    source.connect(now=0.0)
    return source


def opened(config: EventSourceConfig | None = None) -> EventSource:
    source = connecting(config)
    source.response(200, STREAM, now=0.0)
    return source


def waiting(config: EventSourceConfig | None = None) -> EventSource:
    source = connecting(config)
    source.receive_eof(now=0.0)
    return source


def closed(config: EventSourceConfig | None = None) -> EventSource:
    source = new(config)
    source.close(now=0.0)
    return source


def test_a_subscription_over_two_connections() -> None:
    source = new(EXACT)
    assert source.state is State.NEW
    assert source.next_timeout() is None
    assert source.connect(now=10.0) == [Connect("")]
    assert source.state is State.CONNECTING
    assert source.next_timeout() == 40.0
    assert source.response(200, STREAM, now=11.0) == [Opened()]
    assert source.state is State.OPEN
    assert source.next_timeout() is None
    assert source.receive_data(b"retry: 5000\n\nid: 1\ndata: a\n\ndata: b\n\nid: 2\ndata: c", now=12.0) == [
        EventReceived(Event("message", "a", "1")),
        EventReceived(Event("message", "b", "1")),
    ]
    assert source.receive_eof(now=20.0) == [Disconnected(Reason.ENDED, 25.0)]
    assert source.state is State.WAITING
    assert source.next_timeout() == 25.0
    assert source.handle_timeout(now=24.9) == []
    assert source.handle_timeout(now=25.0) == [Connect("1")]
    assert source.response(200, STREAM, now=26.0) == [Opened()]
    # Neither the half of an event nor the carriage return of the last response is left over; the id is.
    assert source.receive_data(b"\ndata: c\n\n", now=26.0) == [EventReceived(Event("message", "c", "1"))]
    assert source.close(now=27.0) == []
    assert source.state is State.CLOSED
    assert source.next_timeout() is None
    assert source.last_event_id == "1"


def test_the_first_connection_may_resume() -> None:
    source = new(last_event_id="7")
    assert source.last_event_id == "7"
    assert source.connect(now=0.0) == [Connect("7")]


def test_an_id_without_an_event_is_resumed_after() -> None:
    source = opened()
    assert source.receive_data(b"id: 3\n\n", now=0.0) == []
    assert source.last_event_id == "3"


def test_an_empty_id_asks_for_no_resumption() -> None:
    source = opened(EXACT)
    source.receive_data(b"id: 3\ndata: a\n\nid\ndata: b\n\n", now=0.0)
    source.receive_eof(now=0.0)
    assert source.connect(now=0.0) == [Connect("")]


# The response


@pytest.mark.parametrize(
    "content_type",
    [
        STREAM,
        "Text/Event-Stream",
        "text/event-stream;charset=windows-1252",
        "text/event-stream;",
        " text/event-stream\t; a",
    ],
)
def test_an_event_stream_opens(content_type: str) -> None:
    assert connecting().response(200, content_type, now=0.0) == [Opened()]


@pytest.mark.parametrize(
    "content_type", ["", "text/x-bogus", "text/event-stream bogus", "text/html, text/event-stream"]
)
def test_another_content_type_is_final(content_type: str) -> None:
    source = connecting()
    assert source.response(200, content_type, now=0.0) == [Failed(200, Reason.WRONG_CONTENT_TYPE)]
    assert source.state is State.CLOSED
    assert source.next_timeout() is None


@pytest.mark.parametrize("status", [201, 205, 206, 299, 301, 400, 401, 403, 404, 410, 501])
def test_another_status_is_final(status: int) -> None:
    source = connecting()
    assert source.response(status, STREAM, now=0.0) == [Failed(status, Reason.WRONG_STATUS)]
    assert source.state is State.CLOSED
    assert source.next_timeout() is None


def test_no_content_means_stop() -> None:
    source = connecting()
    assert source.response(204, "", now=0.0) == [Failed(204, Reason.NO_CONTENT)]
    assert source.state is State.CLOSED


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_server_that_restarts_is_tried_again(status: int) -> None:
    source = connecting()
    assert source.response(status, "text/html", now=1.0) == [Disconnected(Reason.UNAVAILABLE, 5.5, status)]
    assert source.state is State.WAITING
    assert connecting(EXACT).response(status, STREAM, now=0.0) == [Failed(status, Reason.WRONG_STATUS)]


# Waits


@pytest.mark.parametrize(
    ("retry_after", "retry_at"),
    [(None, 3.0), (0.0, 3.0), (2.0, 3.0), (60.0, 60.0), (1e9, 3 * 3600.0)],
)
def test_retry_after_is_the_least_wait(retry_after: float | None, retry_at: float) -> None:
    source = connecting(EventSourceConfig(max_backoff=0))
    assert source.response(503, "", now=0.0, retry_after=retry_after) == [
        Disconnected(Reason.UNAVAILABLE, retry_at, 503),
    ]


def test_retry_after_is_spread_and_counts_once() -> None:
    source = connecting()
    assert source.response(503, "", now=0.0, retry_after=60.0) == [Disconnected(Reason.UNAVAILABLE, 61.5, 503)]
    source.connect(now=61.5)
    assert source.receive_eof(now=61.5) == [Disconnected(Reason.UNREACHABLE, 67.5)]


def test_waits_grow_with_each_failure_up_to_the_limit() -> None:
    source = new(EventSourceConfig(retry=1.0, backoff=2.0, max_backoff=15.0))
    waits = []
    for _ in range(6):
        source.connect(now=0.0)
        (effect,) = source.receive_eof(now=0.0)
        assert isinstance(effect, Disconnected)
        waits.append(effect.retry_at)
    assert waits == [2.0, 3.0, 5.0, 8.5, 8.5, 8.5]


def test_failures_without_number_overflow_nothing() -> None:
    source = new()
    for _ in range(2000):
        source.connect(now=0.0)
        assert source.receive_eof(now=0.0)[0].__class__ is Disconnected
    assert source.next_timeout() == 18.0


@pytest.mark.parametrize(("drawn", "retry_at"), [(0.0, 3.0), (0.5, 4.5), (0.875, 5.625)])
def test_a_lost_stream_is_spread_over_the_reconnection_time(drawn: float, retry_at: float) -> None:
    source = EventSource(random=lambda: drawn)
    source.connect(now=0.0)
    source.response(200, STREAM, now=0.0)
    source.receive_data(b":\n", now=0.0)
    assert source.receive_eof(now=0.0) == [Disconnected(Reason.ENDED, retry_at)]


def test_a_byte_ends_the_row_of_failures_and_an_empty_response_does_not() -> None:
    source = new(EventSourceConfig(retry=1.0, backoff=8.0))
    for retry_at in (5.0, 9.0):
        source.connect(now=0.0)
        source.response(200, STREAM, now=0.0)
        source.receive_data(b"", now=0.0)
        assert source.receive_eof(now=0.0) == [Disconnected(Reason.ENDED, retry_at)]
    for retry_at in (1.5, 1.5):
        source.connect(now=0.0)
        source.response(200, STREAM, now=0.0)
        source.receive_data(b":", now=0.0)
        assert source.receive_eof(now=0.0) == [Disconnected(Reason.ENDED, retry_at)]


@pytest.mark.parametrize(
    ("wire", "wait"),
    [
        (b"retry: 1500\n", 1.5),
        (b"retry: 2\n", 0.1),
        (b"retry: 0\n", 0.1),
        (b"retry: 999999999999999999999\n", 3 * 3600.0),
        (b"retry: 1000x\n", 3.0),
        (b"retry: 1500\nretry: 2500\n", 2.5),
    ],
)
def test_the_stream_sets_the_reconnection_time_within_limits(wire: bytes, wait: float) -> None:
    source = opened(EXACT)
    assert source.receive_data(wire, now=0.0) == []
    assert source.receive_eof(now=0.0) == [Disconnected(Reason.ENDED, wait)]
    # It stays for the connections to come.
    source.handle_timeout(now=wait)
    assert source.receive_eof(now=100.0) == [Disconnected(Reason.UNREACHABLE, 100.0 + wait)]


def test_a_wait_can_be_cut_short() -> None:
    source = waiting()
    assert source.connect(now=0.1) == [Connect("")]
    assert source.state is State.CONNECTING
    assert source.next_timeout() == 30.1


# Deadlines


def test_an_attempt_ends_with_its_deadline() -> None:
    source = connecting(EventSourceConfig(connect_timeout=5.0))
    assert source.handle_timeout(now=4.9) == []
    assert source.handle_timeout(now=5.0) == [Disconnected(Reason.CONNECT_TIMEOUT, 9.5)]
    assert source.state is State.WAITING


def test_a_silent_stream_is_given_up() -> None:
    source = opened(EventSourceConfig(idle_timeout=20.0))
    assert source.next_timeout() == 20.0
    source.receive_data(b"", now=5.0)
    assert source.next_timeout() == 20.0  # nothing has come
    source.receive_data(b"id: 1\ndata: a\n\n:", now=15.0)
    assert source.next_timeout() == 35.0
    assert source.handle_timeout(now=34.9) == []
    assert source.handle_timeout(now=35.0) == [Disconnected(Reason.IDLE_TIMEOUT, 39.5)]
    assert source.handle_timeout(now=39.5) == [Connect("1")]


def test_the_standard_knows_no_silence() -> None:
    source = opened()
    assert source.next_timeout() is None
    source.receive_data(b":\n", now=5.0)
    assert source.next_timeout() is None


@pytest.mark.parametrize("make", [new, closed, opened])
def test_a_late_timer_changes_nothing(make: Callable[[], EventSource]) -> None:
    source = make()
    state = source.state
    assert source.handle_timeout(now=1e9) == []
    assert source.state is state


# The ends


def test_an_event_above_the_limit_is_final_after_the_events_before_it() -> None:
    source = opened(EventSourceConfig(max_event_size=20, idle_timeout=5.0))
    assert source.receive_data(b"id: 1\ndata: a\n\ndata: " + b"x" * 20, now=0.0) == [
        EventReceived(Event("message", "a", "1")),
        Failed(200, Reason.EVENT_TOO_LARGE),
    ]
    assert source.state is State.CLOSED
    assert source.next_timeout() is None
    assert source.last_event_id == "1"


@pytest.mark.parametrize("make", [new, connecting, opened, waiting, closed])
def test_it_closes_from_any_state(make: Callable[[], EventSource]) -> None:
    source = make()
    assert source.close(now=1.0) == []
    assert source.state is State.CLOSED
    assert source.next_timeout() is None


INPUTS: dict[str, Callable[[EventSource], list[Effect]]] = {
    "connect": lambda source: source.connect(now=1.0),
    "response": lambda source: source.response(200, STREAM, now=1.0),
    "receive_data": lambda source: source.receive_data(b"id: 9\ndata: x\n\n", now=1.0),
    "receive_eof": lambda source: source.receive_eof(now=1.0),
}


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (new, "response"),
        (new, "receive_data"),
        (new, "receive_eof"),
        (connecting, "connect"),
        (connecting, "receive_data"),
        (opened, "connect"),
        (opened, "response"),
        (waiting, "response"),
        (waiting, "receive_data"),
        (waiting, "receive_eof"),
        (closed, "connect"),
        (closed, "response"),
        (closed, "receive_data"),
        (closed, "receive_eof"),
    ],
)
def test_misuse_raises_and_changes_nothing(make: Callable[[EventSourceConfig], EventSource], name: str) -> None:
    source = make(EventSourceConfig(idle_timeout=7.0))
    before = source.state, source.next_timeout(), source.last_event_id
    with pytest.raises(LocalProtocolError, match=f"while {source.state.value}"):
        INPUTS[name](source)
    assert (source.state, source.next_timeout(), source.last_event_id) == before


@pytest.mark.parametrize(
    "wrong",
    [
        {"retry": -1.0},
        {"min_retry": -1.0},
        {"max_retry": -1.0},
        {"backoff": -1.0},
        {"max_backoff": -1.0},
        {"connect_timeout": 0.0},
        {"idle_timeout": 0.0},
        {"max_event_size": 0},
    ],
)
def test_a_setting_out_of_range_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        EventSourceConfig(**wrong)  # type: ignore[arg-type]


class Subscription(RuleBasedStateMachine):
    """A server that numbers its events and resumes after any of them, over a connection that breaks anywhere.

    Whatever happens, every event arrives once and in order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.draws = [0.0]
        self.published = 0
        self.received: list[str] = []
        self.wire = b""  # what the server has written and the client has not read
        self.attempt = False  # a request is under way or a stream is open
        self.retry = 3.0
        self.heard_at = 0.0

    @initialize(idle_timeout=st.none() | st.integers(1, 60))
    def start(self, idle_timeout: int | None) -> None:
        self.idle_timeout = idle_timeout
        config = EventSourceConfig(idle_timeout=idle_timeout, max_backoff=20.0)
        self.source = EventSource(config, random=lambda: self.draws[-1])

    def see(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Connect(last_event_id):
                    assert not self.attempt
                    assert last_event_id == (self.received[-1] if self.received else "")
                    self.attempt = True
                    self.wire = b"retry: 3000\n\n"
                    for number in range(len(self.received) + 1, self.published + 1):
                        self.write(number)
                case Opened():
                    assert self.attempt
                    self.heard_at = self.now
                case EventReceived(event):
                    assert event.data == f"event\n{event.id}"
                    assert event.event == "message"
                    self.received.append(event.id)
                case Disconnected(_, retry_at):
                    assert self.attempt
                    assert self.now + 3.0 <= retry_at <= self.now + 3.0 + 20.0
                    self.attempt = False
                case Failed():
                    assert self.attempt
                    self.attempt = False

    def write(self, number: int) -> None:
        self.wire += encode_event(f"event\n{number}", id=str(number)) + encode_comment("♥")

    @rule(drawn=st.floats(0.0, 1.0, exclude_max=True))
    def draw(self, drawn: float) -> None:
        self.draws.append(drawn)

    @rule()
    def publish(self) -> None:
        self.published += 1
        if self.attempt:
            self.write(self.published)

    @precondition(lambda self: self.source.state in (State.NEW, State.WAITING))
    @rule()
    def connect(self) -> None:
        self.see(self.source.connect(now=self.now))
        assert self.source.state is State.CONNECTING

    @precondition(lambda self: self.source.state is State.CONNECTING)
    @rule()
    def accept(self) -> None:
        self.see(self.source.response(200, STREAM, now=self.now))
        assert self.source.state is State.OPEN

    @precondition(lambda self: self.source.state is State.CONNECTING)
    @rule(status=st.sampled_from([429, 503]), retry_after=st.none() | st.floats(0.0, 3.0))
    def refuse(self, status: int, retry_after: float | None) -> None:
        self.see(self.source.response(status, "", now=self.now, retry_after=retry_after))
        assert self.source.state is State.WAITING

    @precondition(lambda self: self.source.state is State.OPEN)
    @rule(size=st.integers(0, 80))
    def deliver(self, size: int) -> None:
        data, self.wire = self.wire[:size], self.wire[size:]
        if data:
            self.heard_at = self.now
        self.see(self.source.receive_data(data, now=self.now))

    @precondition(lambda self: self.attempt)
    @rule()
    def lose(self) -> None:
        self.see(self.source.receive_eof(now=self.now))
        assert self.source.state is State.WAITING

    @rule(seconds=st.floats(0.0, 40.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        due = self.source.next_timeout()
        effects = self.source.handle_timeout(now=self.now)
        assert bool(effects) == (due is not None and due <= self.now)
        self.see(effects)

    @rule()
    def misuse(self) -> None:
        allowed = {
            State.NEW: ["connect"],
            State.CONNECTING: ["response", "receive_eof"],
            State.OPEN: ["receive_data", "receive_eof"],
            State.WAITING: ["connect"],
            State.CLOSED: [],
        }[self.source.state]
        for name, call in INPUTS.items():
            if name not in allowed:
                with pytest.raises(LocalProtocolError):
                    call(self.source)

    @precondition(lambda self: self.source.state is State.CONNECTING)
    @rule(status=st.sampled_from([204, 404]))
    def end(self, status: int) -> None:
        self.see(self.source.response(status, "", now=self.now))
        assert self.source.state is State.CLOSED

    @invariant()
    def every_event_arrived_once_and_in_order(self) -> None:
        assert self.received == [str(number) for number in range(1, len(self.received) + 1)]
        assert self.source.last_event_id == (self.received[-1] if self.received else "")

    @invariant()
    def the_deadline_fits_the_state(self) -> None:
        due = self.source.next_timeout()
        match self.source.state:
            case State.NEW | State.CLOSED:
                assert due is None
            case State.CONNECTING | State.WAITING:
                assert due is not None
            case State.OPEN:
                assert due == (None if self.idle_timeout is None else self.heard_at + self.idle_timeout)

    def teardown(self) -> None:
        """Let the network heal: all that was published arrives."""
        while self.source.state is not State.CLOSED and len(self.received) < self.published:
            if self.source.state is State.OPEN:
                self.see(self.source.receive_data(self.wire, now=self.now))
                assert len(self.received) == self.published
            elif self.source.state is State.CONNECTING:
                self.accept()
            else:
                self.connect()


TestSubscription = Subscription.TestCase
