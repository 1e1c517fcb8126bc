"""The client's machine: tokens that expire, and memberships that the server ends."""

from __future__ import annotations

import pytest

from rtcore.client import (
    Answered,
    Client,
    ClientState,
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
    RefreshDue,
    Refused,
    Rejoined,
    RejoinRefused,
    Request,
)
from rtcore.errors import LocalProtocolError

from .client_talk import (
    LATE,
    LOST,
    ask,
    command,
    connected,
    connecting,
    error,
    hear,
    heard,
    join,
    leave,
    member,
    message,
    new,
    reconnect,
    rejoin,
    response,
    standing,
    text,
    welcome,
)

REFRESH = Request("refresh_token", {"token": "t2"})


def expiring(expires_in: float = 100.0, **config: object) -> Client:
    """Return a client that has fresh tokens, connected with one that expires."""
    return connected(hello=welcome(expires_in=expires_in), refreshes=True, **config)


def due(client: Client, now: float) -> None:
    """Let the token of `expiring` come near its end."""
    assert client.handle_timeout(now=now) == [RefreshDue()]
    assert (client.refresh_at, client.refresh_wanted) == (None, True)


# When a fresh token is due


@pytest.mark.parametrize(
    ("expires_in", "due_at"),
    [(3600, 3570.0), (100.5, 70.5), (60, 30.0), (59, 29.5), (10, 5.0), (1.5, 0.75), (0.2, 0.5), (0, 0.5), (-7, 0.5)],
)
def test_token_is_refreshed_before_it_expires(expires_in: float, due_at: float) -> None:
    client = expiring(expires_in)
    assert (client.next_timeout(), client.refresh_at, client.refresh_wanted) == (due_at, due_at, False)
    assert client.handle_timeout(now=due_at - 0.01) == []
    due(client, due_at)
    assert client.next_timeout() is None
    assert client.handle_timeout(now=due_at + 1000.0) == []


def test_margin_is_configured() -> None:
    assert expiring(100, refresh_margin=10.0).refresh_at == 90.0


@pytest.mark.parametrize(
    ("hello", "refreshes"), [({"expires_in": 100}, False), ({"expires_in": None}, True), ({}, True)]
)
def test_nothing_is_due_without_an_end_or_a_source(hello: dict[str, object], refreshes: bool) -> None:
    client = connected(hello=welcome(**hello), refreshes=refreshes)
    assert (client.next_timeout(), client.refresh_at) == (None, None)
    assert client.handle_timeout(now=1000.0) == []


def test_other_deadlines_are_kept_beside_it() -> None:
    client = connected(hello=welcome(expires_in=100, heartbeat_interval=40), refreshes=True, heartbeat_factor=1.5)
    token = ask(client, Request("x"), now=65.0 - 10.0)
    assert client.next_timeout() == 60.0
    client.receive_activity(now=50.0)
    assert client.next_timeout() == 65.0
    # All at once: what is overdue, then the token, then the silence, after which no token is wanted any more.
    assert client.handle_timeout(now=110.0) == [
        Refused(token, "timeout", LATE),
        RefreshDue(),
        Drop(4408, "heartbeat missed"),
        Lost(4408, "heartbeat missed", 110.25),
    ]
    assert client.refresh_wanted is False


def test_it_is_due_while_nobody_listens() -> None:
    client = connected(hello=welcome(expires_in=40, heartbeat_interval=10), refreshes=True)
    token = ask(client, Request("x"))
    assert client.handle_timeout(now=25.0, listening=False) == [RefreshDue()]
    # The answer is not overdue, nor is the server dead.
    assert client.handle_timeout(now=26.0, listening=False) == []
    assert client.receive_text(response(token, 1), now=26.0) == [Answered(token, 1)]
    assert client.next_timeout() == 51.0


def test_silence_counts_from_when_somebody_listened_last() -> None:
    client = connected(hello=welcome(expires_in=100, heartbeat_interval=10), refreshes=True)
    assert client.handle_timeout(now=26.0, listening=False) == []
    assert client.handle_timeout(now=50.0) == []
    assert client.next_timeout() == 51.0


def test_nobody_need_listen_to_try_again() -> None:
    client = new()
    client.connect(now=0.0)
    client.lost(None, now=0.0)
    assert client.handle_timeout(now=1.0, listening=False) == [Open()]
    assert client.handle_timeout(now=11.0, listening=False) == [
        Drop(1001, "connect timeout"),
        Lost(None, "no connection in time", 11.5),
    ]


# What becomes of it


def test_fresh_token_moves_the_end() -> None:
    client = expiring(100)
    due(client, 70.0)
    assert client.request(REFRESH, now=72.0) == ("0-1", [command("refresh_token", {"token": "t2"}, "0-1")])
    assert (client.refresh_at, client.refresh_wanted) == (None, False)
    answer = {"user_id": "ann", "expires_in": 100}
    assert client.receive_text(response("0-1", answer), now=75.0) == [Answered("0-1", answer)]
    assert client.refresh_at == 145.0
    due(client, 145.0)


@pytest.mark.parametrize("answer", [{"user_id": "ann"}, None, {"expires_in": "soon"}, {"expires_in": None}, [1]])
def test_token_that_does_not_expire_is_the_last(answer: object) -> None:
    client = expiring(100)
    due(client, 70.0)
    client.request(REFRESH, now=70.0)
    assert client.receive_text(response("0-1", answer), now=70.0) == [Answered("0-1", answer)]
    assert (client.next_timeout(), client.refresh_wanted) == (None, False)


def test_same_token_again_and_again_is_no_busy_loop() -> None:
    """What the tokens are had from may keep each until it has expired."""
    client = expiring(100)
    now, asked = 0.0, 0
    while (at := client.refresh_at) is not None and at < 100.0:
        now = at
        due(client, now)
        token = ask(client, REFRESH, now)
        client.receive_text(response(token, {"expires_in": 100.0 - now}), now=now)
        asked += 1
    assert asked == 7


def test_refused_token_is_tried_again_until_the_end() -> None:
    client = expiring(100)
    due(client, 70.0)
    now = 70.0
    for attempt, wait in enumerate([0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0], start=1):
        token = ask(client, REFRESH, now)
        assert client.receive_text(error(token, "invalid_token"), now=now) == [Refused(token, "invalid_token", "no")]
        assert token == f"0-{attempt}"
        assert (client.refresh_at, client.refresh_wanted) == (now + wait, False)
        now += wait
        due(client, now)
    # What succeeds begins anew.
    client.receive_text(response(ask(client, REFRESH, now), {"expires_in": 100}), now=now)
    due(client, now + 70.0)
    client.receive_text(error(ask(client, REFRESH, now + 70.0)), now=now + 70.0)
    assert client.refresh_at == now + 70.5


def test_server_may_say_when_to_try_again() -> None:
    client = expiring(100)
    due(client, 70.0)
    token = ask(client, REFRESH, 70.0)
    client.receive_text(error(token, "rate_limited", retry_after=5), now=70.0)
    assert client.refresh_at == 75.0


def test_answer_that_does_not_come_is_a_failure() -> None:
    client = expiring(100)
    due(client, 70.0)
    token = ask(client, REFRESH, 70.0)
    assert client.handle_timeout(now=80.0) == [Refused(token, "timeout", LATE)]
    assert client.refresh_at == 80.5


def test_without_a_token_it_is_due_again() -> None:
    client = expiring(100)
    for now, again_at in ((70.0, 70.5), (75.0, 76.0), (80.0, 82.0)):
        due(client, now)
        assert client.refresh_failed(now=now) == []
        assert (client.refresh_at, client.refresh_wanted) == (again_at, False)


@pytest.mark.parametrize("client", [new(), connecting(), expiring()])
def test_failure_of_what_nobody_wants_is_misuse(client: Client) -> None:
    at = client.next_timeout()
    with pytest.raises(LocalProtocolError, match="no token is wanted"):
        client.refresh_failed(now=0.0)
    assert client.next_timeout() == at


def test_users_may_refresh_by_themselves() -> None:
    client = connected(hello=welcome(expires_in=100))
    token = ask(client, REFRESH)
    assert client.receive_text(response(token, {"expires_in": 9}), now=0.0) == [Answered(token, {"expires_in": 9})]
    token = ask(client, REFRESH)
    assert client.receive_text(error(token), now=0.0) == [Refused(token, "forbidden", "no")]
    assert client.next_timeout() is None


def test_token_of_the_user_takes_the_place_of_the_one_that_is_due() -> None:
    client = expiring(100)
    token = ask(client, REFRESH, 10.0)
    assert client.refresh_at is None
    client.receive_text(response(token, {"expires_in": 100}), now=10.0)
    assert client.refresh_at == 80.0


# What ends the wish for one


def test_loss_ends_it() -> None:
    client = expiring(100)
    due(client, 70.0)
    assert client.lost(None, now=71.0) == [Lost(None, "", 71.25)]
    assert client.refresh_wanted is False
    assert reconnect(client, 72.0) == []
    assert client.next_timeout() is None


def test_loss_before_it_was_due() -> None:
    client = expiring(100)
    client.lost(None, now=1.0)
    assert client.refresh_at is None
    reconnect(client, 2.0, welcome("c2", expires_in=50))
    assert client.refresh_at == 27.0


def test_loss_before_the_answer() -> None:
    client = expiring(100)
    due(client, 70.0)
    token = ask(client, REFRESH, 70.0)
    assert client.lost(None, now=71.0) == [Refused(token, "connection_lost", LOST), Lost(None, "", 71.25)]
    assert client.refresh_at is None


@pytest.mark.parametrize("when", ["before", "wanted"])
def test_goodbye_ends_it(when: str) -> None:
    client = expiring(100)
    if when == "wanted":
        due(client, 70.0)
    client.receive_text(text({"type": "disconnect", "code": 1012}), now=70.0)
    assert (client.next_timeout(), client.refresh_wanted) == (None, False)


@pytest.mark.parametrize("answer", [response("0-1", {"expires_in": 100}), error("0-1")])
def test_goodbye_before_the_answer(answer: str) -> None:
    client = expiring(100)
    due(client, 70.0)
    client.request(REFRESH, now=70.0)
    client.receive_text(text({"type": "disconnect", "code": 1012}), now=70.0)
    assert len(client.receive_text(answer, now=70.0)) == 1
    assert client.next_timeout() is None


def test_end_of_the_client() -> None:
    client = expiring(100)
    assert client.send(Disconnect(), now=0.0) == [Drop(1000, ""), Ended(1000, "", 0)]
    assert client.next_timeout() is None


# A token that the server refuses, or that has expired


def say_4401(client: Client) -> None:
    farewell = {"type": "disconnect", "code": 4401, "reason": "the token has expired", "reconnect": False}
    assert client.receive_text(text(farewell), now=1.0) == [MessageReceived(farewell)]


@pytest.mark.parametrize("announced", [False, True])
def test_expired_token_leads_to_another_attempt(announced: bool) -> None:
    client = connected(refreshes=True)
    if announced:
        say_4401(client)
    code, reason = (4401, "the token has expired") if announced else (4401, "")
    assert client.lost(4401, now=1.0) == [Lost(code, reason, 1.25)]
    assert client.handle_timeout(now=1.25) == [Open()]


def test_second_refusal_in_a_row_is_the_end() -> None:
    client = connected(refreshes=True)
    client.lost(4401, now=1.0)
    client.connect(now=2.0)
    assert client.lost(4401, "bad token", now=2.0) == [Ended(4401, "bad token", 0)]
    assert client.state is ClientState.CLOSED


def test_refusals_are_in_a_row_whatever_else_fails_between_them() -> None:
    client = new(refreshes=True)
    for code in (4401, 1006, None):
        client.connect(now=0.0)
        assert isinstance(client.lost(code, now=0.0)[-1], Lost)
    client.connect(now=0.0)
    assert client.lost(4401, now=0.0) == [Ended(4401, "", 0)]


def test_welcome_between_two_refusals() -> None:
    client = connected(refreshes=True, backoff_cap=10.0)
    for wait in (0.25, 0.5, 1.0):
        assert client.lost(4401, now=1.0) == [Lost(4401, "", 1.0 + wait)]
        reconnect(client, 1.0)


def test_server_that_wants_the_client_back_has_it_back() -> None:
    client = new(refreshes=True)
    for _ in range(3):
        client.connect(now=0.0)
        client.opened(now=0.0)
        client.receive_text(text({"type": "disconnect", "code": 4401, "reconnect": True}), now=0.0)
        assert isinstance(client.lost(4401, now=0.0)[-1], Lost)


@pytest.mark.parametrize("config", [{"auto_reconnect": False}, {"max_reconnect_attempts": 0}, {"refreshes": False}])
def test_other_limits_hold(config: dict[str, object]) -> None:
    client = connected(**{"refreshes": True, **config})
    assert client.lost(4401, now=1.0) == [Ended(4401, "", 0)]


@pytest.mark.parametrize("code", [4403, 4400, 1008])
def test_other_codes_are_final(code: int) -> None:
    assert connected(refreshes=True).lost(code, now=1.0) == [Ended(code, "", 0)]


# Memberships that the server ends


def unsubscribed(channel: str = "a") -> dict[str, object]:
    return {"type": "unsubscribed", "channel": channel, "code": "subscribe_denied", "reason": "no right any more"}


def test_ended_membership_is_told_and_not_joined_again() -> None:
    client = member(0)
    hear(client, message(1))
    assert hear(client, unsubscribed()) == [MessageReceived(unsubscribed())]
    assert (client.channels, client.position("a")) == ((), None)
    client.lost(None, now=0.0)
    assert reconnect(client, 1.0) == []


def test_others_stay() -> None:
    client = member(0)
    client.receive_text(response(ask(client, Join("b")), standing(0, "f")), now=0.0)
    hear(client, unsubscribed("b"), unsubscribed("elsewhere"))
    assert client.channels == ("a",)
    client.lost(None, now=0.0)
    assert reconnect(client, 1.0) == [rejoin("0-3", 0)]


def test_it_may_be_joined_again() -> None:
    client = member(5)
    hear(client, unsubscribed())
    assert client.request(Join("a"), now=0.0) == ("0-2", [join("a", "0-2")])
    assert client.receive_text(response("0-2", standing(7)), now=0.0) == [Answered("0-2", standing(7))]
    assert client.position("a") == ("e", 7)
    assert hear(client, message(8)) == heard(8)
    client.lost(None, now=0.0)
    assert reconnect(client, 1.0) == [rejoin("0-3", 8)]


def test_join_under_way_stands_on_its_own() -> None:
    """The server acts in order, so it has not seen this join when it ended the membership."""
    client = member(5)
    client.request(Join("a"), now=0.0)
    hear(client, unsubscribed())
    assert client.channels == ("a",)
    assert client.receive_text(error("0-2"), now=0.0) == [Refused("0-2", "forbidden", "no")]
    assert (client.channels, client.position("a")) == ((), None)
    client = member(5)
    client.request(Join("a"), now=0.0)
    hear(client, unsubscribed())
    answer = standing(6, recovered=True, replayed=1)
    assert client.receive_text(response("0-2", answer), now=0.0) == [Answered("0-2", answer)]
    assert hear(client, message(6), message(7)) == heard(6, 7)


@pytest.mark.parametrize("granted", [True, False])
def test_what_was_missing_is_asked_for_at_that_moment(granted: bool) -> None:
    client = member(1)
    assert hear(client, message(3)) == [rejoin("0-2", 1)]
    hear(client, unsubscribed())
    if granted:
        back = standing(3, recovered=True, replayed=2)
        assert client.receive_text(response("0-2", back), now=0.0) == [Rejoined("a", back)]
        assert hear(client, message(2), message(3)) == heard(2, 3)
    else:
        refused: list[Effect] = [RejoinRefused("a", "forbidden", "no")]
        assert client.receive_text(error("0-2"), now=0.0)[-1:] == refused
        assert (client.channels, client.position("a")) == ((), None)


def test_given_channel_is_not_given_any_more() -> None:
    client = connected(hello=welcome(channels=["a", "b"]))
    hear(client, unsubscribed())
    # A join that is overdue is undone, as the server has not joined the channel by itself.
    assert ask(client, Join("a")) == "0-1"
    assert client.handle_timeout(now=10.0) == [Refused("0-1", "timeout", LATE), leave("a", "0-2")]
    client.lost(None, now=10.0)
    # A new connection may give it again.
    assert reconnect(client, 11.0, welcome("c2", channels=["a"])) == []


def test_before_the_welcome_it_means_nothing() -> None:
    client = connecting()
    assert hear(client, unsubscribed()) == [MessageReceived(unsubscribed())]
    # What the server will have joined by itself is left all the same.
    assert client.request(Leave("a"), now=0.0) == ("0-1", [Answered("0-1", {"channel": "a"})])
    hello = welcome(channels=["a"])
    assert client.receive_text(hello, now=0.0) == [Connected("c1", "ann", reconnected=False), leave("a", "0-2")]


def test_it_names_a_channel() -> None:
    client = member(0)
    effects = hear(client, {"type": "unsubscribed"})
    assert isinstance(effects[-1], Ended)
    assert effects[-1].code == 4400
