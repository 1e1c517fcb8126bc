"""The client's machine: how links are lost, and when the next attempt is made."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtcore.client import (
    Client,
    ClientState,
    Drop,
    Effect,
    Ended,
    Lost,
    MessageReceived,
    Open,
    Refused,
    Request,
    Send,
)
from rtcore.errors import CloseCode

from .client_talk import (
    LOST,
    UNSENT,
    ask,
    connected,
    connecting,
    new,
    reconnect,
    text,
    welcome,
)


@pytest.mark.parametrize("code", [None, 1001, 1005, 1006, 1011, 1012, 1013, 4408, 4410, 4429])
def test_close_codes_that_lead_to_another_attempt(code: int | None) -> None:
    client = connected()
    assert client.lost(code, "why", now=1.0) == [Lost(code, "why", 1.25)]
    assert client.connection_id == "c1"


@pytest.mark.parametrize("code", [1000, 1002, 1003, 1007, 1008, 1009, 4400, 4401, 4403])
def test_close_codes_that_end_the_client(code: int) -> None:
    client = connected()
    assert client.lost(code, "why", now=1.0) == [Ended(code, "why", unsent=0)]
    assert (client.state, client.next_timeout()) == (ClientState.CLOSED, None)


@pytest.mark.parametrize(
    ("farewell", "expected"),
    [
        ({"code": 1012}, Lost(1012, "", 1.25)),
        ({"code": 1012, "reason": "bye"}, Lost(1012, "bye", 1.25)),
        ({"code": 1012, "reconnect": False}, Ended(1012, "", 0)),
        ({"code": 4401, "reason": "expired"}, Ended(4401, "expired", 0)),
        ({"code": 4401, "reconnect": True}, Lost(4401, "", 1.25)),
        ({"code": 1013, "retry_after": 20}, Lost(1013, "", 21.25)),
        ({"code": 1013, "retry_after": 0.5, "more": []}, Lost(1013, "", 1.75)),
    ],
)
@pytest.mark.parametrize("start", [connecting, connected])
def test_farewell_of_the_server_is_obeyed(start, farewell: dict[str, object], expected: Effect) -> None:  # type: ignore[no-untyped-def]
    client = start()
    message = {"type": "disconnect", **farewell}
    assert client.receive_text(text(message), now=0.5) == [MessageReceived(message)]
    assert client.lost(1006, "cut", now=1.0) == [expected]


def test_farewell_is_forgotten_with_its_link() -> None:
    client = connected()
    client.receive_text(text({"type": "disconnect", "code": 4429, "retry_after": 9}), now=0.0)
    client.lost(4429, now=0.0)
    reconnect(client, 10.0)
    assert client.lost(1006, now=10.0) == [Lost(1006, "", 10.5)]


@pytest.mark.parametrize(("retry_after", "retry_at"), [(None, 0.25), (7.0, 7.25), (0.0, 0.25), (-5.0, 0.25)])
def test_refused_attempt_may_say_when_to_come_back(retry_after: float | None, retry_at: float) -> None:
    client = new()
    client.connect(now=0.0)
    assert client.lost(1013, "503", now=0.0, retry_after=retry_after) == [Lost(1013, "503", retry_at)]


def test_silent_server_is_taken_for_lost() -> None:
    client = connected(hello=welcome(heartbeat_interval=30), heartbeat_factor=2.0)
    assert client.next_timeout() == 60.0
    client.receive_activity(now=10.0)
    assert client.next_timeout() == 70.0
    heartbeat = {"type": "heartbeat", "timestamp": 1}
    assert client.receive_text(text(heartbeat), now=30.0) == [MessageReceived(heartbeat)]
    token = ask(client, Request("ping"), now=85.0)
    assert client.handle_timeout(now=89.9) == []
    assert client.handle_timeout(now=90.0) == [
        Drop(CloseCode.HEARTBEAT_MISSED, "heartbeat missed"),
        Refused(token, "connection_lost", LOST),
        Lost(CloseCode.HEARTBEAT_MISSED, "heartbeat missed", 90.25),
    ]
    # The next link has a watchdog of its own, from the next welcome on.
    assert client.connect(now=91.0) == [Open()]
    client.receive_activity(now=95.0)
    assert client.next_timeout() == 101.0
    client.opened(now=96.0)
    client.receive_text(welcome(), now=96.0)
    assert client.next_timeout() is None


def test_server_that_says_goodbye_and_stays_is_dropped() -> None:
    client = connected(hello=welcome(heartbeat_interval=10))
    client.receive_text(text({"type": "disconnect", "code": 1012, "reason": "restart"}), now=5.0)
    for now in (10.0, 20.0, 29.0):
        client.receive_text(text({"type": "heartbeat"}), now=now)
    assert client.next_timeout() == 30.0
    assert client.handle_timeout(now=30.0) == [
        Drop(CloseCode.HEARTBEAT_MISSED, "heartbeat missed"),
        Lost(1012, "restart", 30.25),
    ]


def test_without_reconnecting_the_first_loss_is_the_end() -> None:
    client = connecting(auto_reconnect=False)
    client.send(Send({}), now=0.0)
    token = ask(client, Request("ping"))
    assert client.lost(1006, now=0.0) == [Refused(token, "not_sent", UNSENT), Ended(1006, "", unsent=1)]


def failures(client: Client, count: int, now: float = 0.0) -> list[float]:
    """Let `count` attempts fail at once; return the delays."""
    delays = []
    for _ in range(count):
        client.connect(now=now)
        (lost,) = client.lost(None, now=now)
        assert isinstance(lost, Lost)
        delays.append(lost.retry_at - now)
    return delays


def test_delays_double_up_to_the_cap() -> None:
    client = new(jitter=0.5, backoff_base=1.0, backoff_cap=10.0)
    assert failures(client, 6) == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]
    assert failures(client, 2000)[-1] == 5.0


@given(
    jitter=st.floats(0.0, 1.0, exclude_max=True),
    base=st.floats(1e-3, 1e3),
    cap=st.floats(1e-3, 1e3),
    attempts=st.integers(1, 80),
)
def test_delays_stay_within_full_jitter(jitter: float, base: float, cap: float, attempts: int) -> None:
    client = new(jitter=jitter, backoff_base=base, backoff_cap=cap)
    for attempt, delay in enumerate(failures(client, attempts)):
        assert delay == jitter * min(cap, base * 2**attempt)
        assert 0.0 <= delay <= cap


def test_server_that_accepts_and_drops_is_not_hammered() -> None:
    client = connected(jitter=0.5, backoff_base=1.0, backoff_cap=10.0)
    delays = []
    now = 0.0
    for up in (0.0, 9.5, 1.0, 10.5, 0.0):
        now += up
        (lost,) = client.lost(1006, now=now)
        assert isinstance(lost, Lost)
        delays.append(lost.retry_at - now)
        now = lost.retry_at
        reconnect(client, now)
    assert delays == pytest.approx([0.5, 1.0, 2.0, 0.5, 1.0])


def test_attempts_are_limited() -> None:
    client = connected(max_reconnect_attempts=2)
    for _ in range(2):
        assert isinstance(client.lost(1006, now=0.0)[-1], Lost)
        client.connect(now=0.0)
    assert client.lost(1006, "dead", now=0.0) == [Ended(1006, "dead", unsent=0)]
    assert connected(max_reconnect_attempts=0).lost(1006, now=0.0) == [Ended(1006, "", unsent=0)]


def test_lasting_connection_renews_the_attempts() -> None:
    client = connected(max_reconnect_attempts=1, backoff_cap=10.0)
    client.lost(1006, now=0.0)
    reconnect(client, 0.0)
    assert client.lost(1006, now=10.0) == [Lost(1006, "", 10.25)]
    client.connect(now=20.0)
    # The attempt has no connection to have lasted.
    assert client.lost(1006, now=40.0) == [Ended(1006, "", unsent=0)]
