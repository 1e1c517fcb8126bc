"""The client's machine: tables of inputs and the effects that they must have."""

from __future__ import annotations

import json
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtcore.client import (
    Answered,
    Client,
    ClientConfig,
    ClientState,
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
from rtcore.errors import CloseCode, LocalProtocolError, QueueFull

LOST = "the connection was lost before the answer came"
UNSENT = "the client ended before it could send this"
LEFT = "the channel was left before it was joined"
LATE = "the server did not answer in time"


def text(message: object) -> str:
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False)


def command(name: str, data: object, token: str | None = None) -> SendText:
    message = {"type": "command", "command": name, "data": data}
    return SendText(text(message if token is None else {**message, "id": token}))


def join(channel: str, token: str, **data: object) -> SendText:
    return command("join_channel", {**data, "channel": channel}, token)


def leave(channel: str, token: str | None = None) -> SendText:
    return command("leave_channel", {"channel": channel}, token)


def response(token: str, data: object = None) -> str:
    return text({"type": "response", "id": token, "ok": True, "data": data})


def error(token: str, code: str = "forbidden", message: str = "no") -> str:
    return text({"type": "error", "id": token, "code": code, "message": message})


def welcome(connection_id: str = "c1", **fields: object) -> str:
    return text({"type": "connected", "connection_id": connection_id, "user_id": "ann", "protocol": 1, **fields})


def new(jitter: float = 0.5, **config: object) -> Client:
    """Return a client whose ids are "0-1", "0-2"… and whose jitter is `jitter`."""
    draws = iter([0.0])
    return Client(ClientConfig(**config), random=lambda: next(draws, jitter))  # type: ignore[arg-type]


def connecting(now: float = 0.0, *, jitter: float = 0.5, **config: object) -> Client:
    client = new(jitter, **config)
    assert client.connect(now=now) == [Open()]
    assert client.opened(now=now) == []
    return client


def connected(now: float = 0.0, *, jitter: float = 0.5, hello: str = welcome(), **config: object) -> Client:
    client = connecting(now, jitter=jitter, **config)
    assert client.receive_text(hello, now=now) == [Connected("c1", "ann", reconnected=False)]
    return client


def reconnect(client: Client, now: float, hello: str = welcome("c2")) -> list[Effect]:
    """Bring a client that is WAITING back; return the effects of ``connected`` after the first."""
    assert client.connect(now=now) == [Open()]
    assert client.opened(now=now) == []
    effects = client.receive_text(hello, now=now)
    assert effects[0] == Connected("c2", "ann", reconnected=True)
    return effects[1:]


def ask(client: Client, request: Command, now: float = 0.0) -> str:
    """Make a request of which only the id matters."""
    return client.request(request, now=now)[0]


# --- Connecting -------------------------------------------------------------------------------------------------


def test_connection_is_complete_with_the_connected_message() -> None:
    client = new()
    assert (client.state, client.connection_id, client.user_id) == (ClientState.IDLE, None, None)
    assert client.next_timeout() is None
    assert client.connect(now=1.0) == [Open()]
    assert client.state is ClientState.CONNECTING
    assert client.opened(now=2.0) == []
    assert client.receive_activity(now=3.0) == []
    assert (client.state, client.next_timeout()) == (ClientState.CONNECTING, 11.0)
    assert client.receive_text(welcome(), now=4.0) == [Connected("c1", "ann", reconnected=False)]
    assert (client.state, client.connection_id, client.user_id) == (ClientState.CONNECTED, "c1", "ann")
    assert client.next_timeout() is None


def test_server_may_leave_out_all_but_the_connection_id() -> None:
    client = connecting()
    assert client.receive_text('{"type":"connected","connection_id":"c1"}', now=0.0) == [
        Connected("c1", None, reconnected=False)
    ]
    assert client.user_id is None


def test_messages_before_and_after_the_welcome_are_delivered() -> None:
    client = connecting()
    for _ in range(2):
        for message in (
            {"type": "heartbeat", "timestamp": 1},
            {"type": "channel_message", "channel": "a", "message": "Привет", "meta": {"offset": 1}},
            {"type": "response", "id": "unknown", "ok": True, "data": {}},
            {"type": "response", "id": ["no", "id"], "ok": True},
            {"type": "error", "code": "unknown_command", "message": "…"},
            {"type": "error", "id": 7, "code": False},
        ):
            assert client.receive_text(text(message), now=0.0) == [MessageReceived(message)]
        client.receive_text(welcome(), now=0.0)
    second = json.loads(welcome("c9"))
    assert client.receive_text(text(second), now=0.0) == [MessageReceived(second)]
    assert client.connection_id == "c1"


def test_attempt_out_of_time_is_given_up() -> None:
    client = connecting(connect_timeout=5.0)
    assert client.handle_timeout(now=4.9) == []
    assert client.handle_timeout(now=5.0) == [
        Drop(CloseCode.GOING_AWAY, "connect timeout"),
        Lost(None, "no connection in time", 5.25),
    ]
    assert (client.state, client.next_timeout()) == (ClientState.WAITING, 5.25)
    assert client.handle_timeout(now=5.25) == [Open()]
    assert (client.state, client.next_timeout()) == (ClientState.CONNECTING, 10.25)


# --- Commands ---------------------------------------------------------------------------------------------------


def test_commands_while_connected_are_sent_at_once() -> None:
    client = connected()
    assert client.send(Send({"type": "text", "data": "x"}), now=0.0) == [SendText('{"type":"text","data":"x"}')]
    assert client.request(Request("ping"), now=0.0) == ("0-2", [command("ping", {}, "0-2")])
    message = MappingProxyType({"type": "channel_message", "channel": "a"})
    assert client.request(Publish(message), now=0.0) == (
        "0-3",
        [SendText('{"type":"channel_message","channel":"a","id":"0-3"}')],
    )
    assert client.request(Join("a", {"filters": {}}), now=0.0) == ("0-4", [join("a", "0-4", filters={})])
    assert client.request(Leave("a"), now=0.0) == ("0-5", [leave("a", "0-5")])


def test_each_outcome_is_told_once_and_a_later_answer_is_a_message() -> None:
    client = connected()
    first, second = ask(client, Request("ping")), ask(client, Publish({"type": "text"}))
    assert client.receive_text(response(second, {"offset": 1}), now=1.0) == [Answered(second, {"offset": 1})]
    assert client.receive_text(error(first, "rate_limited", "wait"), now=1.0) == [
        Refused(first, "rate_limited", "wait")
    ]
    for token in (first, second):
        again = response(token, 1)
        assert client.receive_text(again, now=1.0) == [MessageReceived(json.loads(again))]
    assert client.next_timeout() is None


def test_overdue_answers_are_refused_one_by_one() -> None:
    client = connected(command_timeout=3.0)
    first = ask(client, Request("ping"), now=0.0)
    second = ask(client, Request("ping"), now=1.0)
    assert client.next_timeout() == 3.0
    assert client.handle_timeout(now=3.0) == [Refused(first, "timeout", LATE)]
    assert client.next_timeout() == 4.0
    assert client.handle_timeout(now=9.0) == [Refused(second, "timeout", LATE)]
    assert client.next_timeout() is None


def test_publication_keeps_an_id_of_its_own() -> None:
    client = connected()
    message = {"type": "text", "channel": "a", "id": "order-7"}
    assert client.request(Publish(message), now=0.0) == ("order-7", [SendText(text(message))])
    with pytest.raises(LocalProtocolError, match="'order-7' is pending"):
        client.request(Publish(message), now=0.0)
    with pytest.raises(LocalProtocolError, match="string"):
        client.request(Publish({"type": "text", "id": 7}), now=0.0)
    assert client.receive_text(response("order-7", 1), now=0.0) == [Answered("order-7", 1)]
    assert ask(client, Publish(message)) == "order-7"


def test_two_clients_do_not_use_the_same_ids() -> None:
    tokens = []
    for draw in (0.25, 0.75):
        client = Client(ClientConfig(), random=lambda draw=draw: draw)  # type: ignore[misc]
        client.connect(now=0.0)
        tokens.append(ask(client, Request("ping")))
    assert tokens[0] != tokens[1]


def test_membership_commands_by_name_are_memberships() -> None:
    client = connected()
    data = MappingProxyType({"channel": "a", "filters": {"types": ["text"]}})
    token, effects = client.request(Request("join_channel", data), now=0.0)
    assert (effects, client.channels) == ([join("a", token, filters={"types": ["text"]})], ("a",))
    token, effects = client.request(Request("leave_channel", {"channel": "a"}), now=0.0)
    assert (effects, client.channels) == ([leave("a", token)], ())
    token, effects = client.request(Request("join_channel", {"channel": 5}), now=0.0)
    assert (effects, client.channels) == ([command("join_channel", {"channel": 5}, token)], ())


def test_queued_messages_are_the_machines_own() -> None:
    client = connecting()
    data = {"n": 1}
    client.send(Send(data), now=0.0)
    token = ask(client, Join("a", data))
    data["n"] = 2
    assert client.receive_text(welcome(), now=0.0)[1:] == [join("a", token, n=1), SendText('{"n":1}')]


# --- Offline ----------------------------------------------------------------------------------------------------


def test_offline_queue_is_sent_in_order_after_the_joins() -> None:
    client = connecting()
    assert client.send(Send({"n": 1}), now=0.0) == []
    assert client.request(Request("ping"), now=0.0) == ("0-2", [])
    assert client.request(Join("b"), now=0.0) == ("0-3", [])
    assert client.request(Publish({"n": 4}), now=0.0) == ("0-4", [])
    assert client.request(Join("a"), now=0.0) == ("0-5", [])
    assert client.send(Send({"n": 6}), now=0.0) == []
    # What is not sent has no time limit.
    assert client.next_timeout() == 10.0
    assert client.receive_text(welcome(), now=7.0) == [
        Connected("c1", "ann", reconnected=False),
        join("b", "0-3"),
        join("a", "0-5"),
        SendText('{"n":1}'),
        command("ping", {}, "0-2"),
        SendText('{"n":4,"id":"0-4"}'),
        SendText('{"n":6}'),
    ]
    assert client.next_timeout() == 17.0
    assert client.handle_timeout(now=17.0) == [
        Refused("0-3", "timeout", LATE),
        leave("b"),
        Refused("0-5", "timeout", LATE),
        leave("a"),
        Refused("0-2", "timeout", LATE),
        Refused("0-4", "timeout", LATE),
    ]


def test_full_queue_refuses_before_anything_changes() -> None:
    client = connecting(queue_size=2)
    client.request(Join("a"), now=0.0)
    client.send(Send({}), now=0.0)
    for request in (Request("ping"), Publish({}), Join("b")):
        with pytest.raises(QueueFull, match="2 messages"):
            client.request(request, now=0.0)
    with pytest.raises(QueueFull):
        client.send(Send({}), now=0.0)
    assert client.channels == ("a",)
    # A leave needs no room, and makes some.
    assert client.request(Leave("a"), now=0.0) == (
        "0-3",
        [Refused("0-1", "left", LEFT), Answered("0-3", {"channel": "a"})],
    )
    assert client.request(Request("ping"), now=0.0) == ("0-4", [])
    assert client.receive_text(welcome(), now=0.0)[1:] == [SendText("{}"), command("ping", {}, "0-4")]
    assert client.send(Send({}), now=0.0) == [SendText("{}")]


def test_loss_settles_what_was_sent_and_keeps_what_was_not() -> None:
    client = connected()
    client.receive_text(response(ask(client, Join("old"))), now=0.0)
    call, joining, leaving = ask(client, Request("x")), ask(client, Join("new")), ask(client, Leave("old"))
    published = ask(client, Publish({}))
    assert client.lost(1006, "gone", now=1.0) == [
        Refused(call, "connection_lost", LOST),
        Answered(leaving, {"channel": "old"}),
        Refused(published, "connection_lost", LOST),
        Lost(1006, "gone", 1.25),
    ]
    assert (client.next_timeout(), client.channels) == (1.25, ("new",))
    waiting = ask(client, Request("y"), now=2.0)
    assert reconnect(client, 3.0) == [join("new", joining), command("y", {}, waiting)]
    assert client.receive_text(response(joining, {"offset": 0}), now=3.0) == [Answered(joining, {"offset": 0})]
    assert client.receive_text(response(waiting), now=3.0) == [Answered(waiting, None)]
    assert client.next_timeout() is None


def test_what_follows_the_servers_farewell_is_queued() -> None:
    client = connected()
    member, joining = ask(client, Join("a")), ask(client, Join("b"))
    client.receive_text(response(member), now=0.0)
    client.receive_text(text({"type": "disconnect", "code": 1012, "reason": "restart"}), now=0.0)
    assert client.send(Send({"n": 1}), now=0.0) == []
    call, effects = client.request(Request("ping"), now=0.0)
    assert effects == []
    later, effects = client.request(Join("c"), now=0.0)
    assert effects == []
    left, effects = client.request(Leave("b"), now=0.0)
    assert effects == [Refused(joining, "left", LEFT), Answered(left, {"channel": "b"})]
    assert client.lost(1006, now=0.0) == [Lost(1012, "restart", 0.25)]
    rejoin = "0-7"
    assert reconnect(client, 0.25) == [
        join("a", rejoin),
        join("c", later),
        SendText('{"n":1}'),
        command("ping", {}, call),
    ]


# --- Memberships ------------------------------------------------------------------------------------------------


def test_memberships_are_joined_again_in_order_with_their_data() -> None:
    client = connected()
    for channel in ("b", "a", "c"):
        client.receive_text(response(ask(client, Join(channel, {"since": channel}))), now=0.0)
    client.receive_text(response(ask(client, Leave("a"))), now=0.0)
    assert client.channels == ("b", "c")
    for turn in (1, 2):
        client.lost(None, now=0.0)
        tokens = [f"0-{3 + 2 * turn}", f"0-{4 + 2 * turn}"]
        assert reconnect(client, 1.0) == [join("b", tokens[0], since="b"), join("c", tokens[1], since="c")]
        # A rejoin has no time limit, and may be cut short by another loss.
        assert client.next_timeout() is None
    assert client.receive_text(response(tokens[0], {"offset": 3}), now=1.0) == [Rejoined("b", {"offset": 3})]
    assert client.receive_text(error(tokens[1], "forbidden", "no"), now=1.0) == [RejoinRefused("c", "forbidden", "no")]
    assert client.channels == ("b",)


def test_answer_to_a_rejoin_is_not_told_when_the_channel_was_left() -> None:
    client = connected()
    for channel in ("a", "b", "c"):
        client.receive_text(response(ask(client, Join(channel))), now=0.0)
    client.lost(None, now=0.0)
    reconnect(client, 1.0)
    for channel in ("a", "b"):
        ask(client, Leave(channel), now=1.0)
    assert client.receive_text(response("0-4"), now=1.0) == []
    assert client.receive_text(error("0-5"), now=1.0) == []
    client.receive_text(text({"type": "disconnect", "code": 1012}), now=1.0)
    token, effects = client.request(Leave("c"), now=1.0)
    assert effects == [Answered(token, {"channel": "c"})]


def test_join_overtaken_by_a_leave_is_not_joined_again() -> None:
    client = connected()
    joining, leaving = ask(client, Join("a")), ask(client, Leave("a"))
    assert client.receive_text(response(joining), now=0.0) == [Answered(joining, None)]
    assert client.channels == ()
    again = ask(client, Join("a"))
    assert client.receive_text(error(leaving), now=0.0) == [Refused(leaving, "forbidden", "no")]
    assert client.channels == ("a",)
    third = ask(client, Leave("a"))
    assert client.lost(None, now=0.0) == [
        Refused(again, "connection_lost", LOST),
        Answered(third, {"channel": "a"}),
        Lost(None, "", 0.25),
    ]
    assert reconnect(client, 1.0) == []


def test_refused_join_leaves_the_desired_membership() -> None:
    client = connected()
    assert client.receive_text(error(ask(client, Join("a"))), now=0.0) == [Refused("0-1", "forbidden", "no")]
    assert client.channels == ()


def test_refused_change_of_a_membership_restores_it() -> None:
    client = connected()
    client.receive_text(response(ask(client, Join("a", {"n": 1}))), now=0.0)
    client.receive_text(error(ask(client, Join("a", {"n": 2}))), now=0.0)
    client.lost(None, now=0.0)
    assert reconnect(client, 1.0) == [join("a", "0-3", n=1)]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_newest_of_two_granted_joins_holds(order: tuple[int, int]) -> None:
    client = connected()
    tokens = [ask(client, Join("a", {"n": n})) for n in (1, 2)]
    for index in order:
        client.receive_text(response(tokens[index]), now=0.0)
    client.lost(None, now=0.0)
    assert reconnect(client, 1.0) == [join("a", "0-3", n=2)]


def test_pending_change_of_a_membership_is_made_on_the_next_connection() -> None:
    client = connected()
    client.receive_text(response(ask(client, Join("a", {"n": 1}))), now=0.0)
    change = ask(client, Join("a", {"n": 2}))
    client.lost(None, now=0.0)
    assert client.handle_timeout(now=0.2) == []
    assert reconnect(client, 1.0) == [join("a", "0-3", n=1), join("a", change, n=2)]
    assert client.receive_text(response("0-3", 1), now=1.0) == [Rejoined("a", 1)]
    assert client.next_timeout() == 11.0
    # An overdue change leaves the membership as it was, as far as is known.
    assert client.handle_timeout(now=11.0) == [Refused(change, "timeout", LATE)]
    assert client.channels == ("a",)


def test_overdue_join_of_a_channel_that_was_left_needs_no_other_leave() -> None:
    client = connected()
    joining, leaving = ask(client, Join("a")), ask(client, Leave("a"))
    assert client.handle_timeout(now=10.0) == [Refused(joining, "timeout", LATE), Refused(leaving, "timeout", LATE)]


def test_channel_that_the_server_joins_by_itself_is_left_again() -> None:
    hello = welcome(channels=["url", "other"])
    client = connected(hello=hello)
    for channel in ("url", "none"):
        client.receive_text(response(ask(client, Leave(channel))), now=0.0)
    client.lost(None, now=0.0)
    again = welcome("c2", channels=["url", "other", "none"])
    assert reconnect(client, 1.0, again) == [leave("url")]
    client.receive_text(response(ask(client, Join("url"))), now=1.0)
    client.lost(None, now=1.0)
    assert reconnect(client, 2.0, again) == [join("url", "0-4")]


# --- Losing the link --------------------------------------------------------------------------------------------


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
    # The next link has a watchdog of its own.
    reconnect(client, 91.0)
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


# --- Back-off ---------------------------------------------------------------------------------------------------


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


# --- Ending -----------------------------------------------------------------------------------------------------


def test_disconnect_ends_the_client_from_any_state() -> None:
    drop, ended = Drop(CloseCode.NORMAL_CLOSURE, ""), Ended(CloseCode.NORMAL_CLOSURE, "", unsent=0)
    waiting = connected()
    waiting.lost(1006, now=0.0)
    for client, expected in (
        (new(), [ended]),
        (connecting(), [drop, ended]),
        (connected(), [drop, ended]),
        (waiting, [ended]),
    ):
        assert client.send(Disconnect(), now=1.0) == expected
        assert (client.state, client.next_timeout()) == (ClientState.CLOSED, None)
        assert client.handle_timeout(now=1e9) == []


def test_disconnect_tells_every_outcome() -> None:
    client = connected()
    member = ask(client, Join("m"))
    client.receive_text(response(member), now=0.0)
    call, joining, leaving = ask(client, Request("x")), ask(client, Join("a")), ask(client, Leave("m"))
    assert client.send(Disconnect(), now=0.0) == [
        Drop(CloseCode.NORMAL_CLOSURE, ""),
        Refused(call, "connection_lost", LOST),
        Answered(leaving, {"channel": "m"}),
        Refused(joining, "connection_lost", LOST),
        Ended(CloseCode.NORMAL_CLOSURE, "", unsent=0),
    ]
    assert client.channels == ()


def test_disconnect_while_offline_counts_what_was_not_sent() -> None:
    client = connected()
    joining = ask(client, Join("a"))
    client.lost(1006, now=0.0)
    client.send(Send({}), now=0.0)
    call, queued = ask(client, Request("x")), ask(client, Join("b"))
    client.send(Send({}), now=0.0)
    assert client.send(Disconnect(), now=0.0) == [
        Refused(joining, "connection_lost", LOST),
        Refused(call, "not_sent", UNSENT),
        Refused(queued, "not_sent", UNSENT),
        Ended(CloseCode.NORMAL_CLOSURE, "", unsent=2),
    ]


# --- Bad input --------------------------------------------------------------------------------------------------


BAD = [
    "",
    "nonsense",
    "{",
    "7",
    "[]",
    '"connected"',
    "{}",
    '{"type":7}',
    '{"type":"text","n":NaN}',
    "[" * 100_000,
    '{"type":"text","data":' + "[" * 5000 + "]" * 5000 + "}",
    '{"type":"text","data":"\ud800"}',
    '{"type":"disconnect"}',
    '{"type":"disconnect","code":"1012"}',
    '{"type":"disconnect","code":true}',
    '{"type":"disconnect","code":1012,"reason":null}',
    '{"type":"disconnect","code":1012,"reconnect":1}',
    '{"type":"disconnect","code":1012,"retry_after":-1}',
    '{"type":"error","id":"0-1","code":7}',
    '{"type":"error","id":"0-1"}',
    '{"type":"error","id":"0-1","code":"x","message":[]}',
]
BAD_WELCOMES = [
    {},
    {"connection_id": None},
    {"connection_id": "c", "user_id": 5},
    {"connection_id": "c", "heartbeat_interval": "30"},
    {"connection_id": "c", "heartbeat_interval": 0},
    {"connection_id": "c", "heartbeat_interval": True},
    {"connection_id": "c", "channels": "a"},
    {"connection_id": "c", "channels": [1]},
]


@pytest.mark.parametrize("bad", BAD)
def test_bad_message_ends_the_client(bad: str) -> None:
    client = connected()
    token = ask(client, Request("ping"))
    # The server's word on reconnecting counts for nothing after this.
    client.receive_text(text({"type": "disconnect", "code": 1012, "reconnect": True}), now=0.0)
    fault, *rest = client.receive_text(bad, now=0.0)
    assert isinstance(fault, ProtocolFault)
    assert rest == [
        Drop(CloseCode.BAD_MESSAGE, "bad message"),
        Refused(token, "connection_lost", LOST),
        Ended(CloseCode.BAD_MESSAGE, fault.reason, unsent=0),
    ]


@pytest.mark.parametrize("fields", BAD_WELCOMES)
def test_bad_welcome_ends_the_client(fields: dict[str, object]) -> None:
    client = connecting()
    client.send(Send({}), now=0.0)
    fault, *rest = client.receive_text(text({"type": "connected", **fields}), now=0.0)
    assert isinstance(fault, ProtocolFault)
    assert rest == [
        Drop(CloseCode.BAD_MESSAGE, "bad message"),
        Ended(CloseCode.BAD_MESSAGE, fault.reason, unsent=1),
    ]
    assert client.connection_id is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=8,
)


@given(
    st.lists(
        st.text()
        | json_values.map(text)
        | st.fixed_dictionaries(
            {"type": st.sampled_from(["connected", "disconnect", "response", "error", "heartbeat", "text"])},
            optional={
                name: json_values | st.sampled_from(["0-1", "0-2", 1012])
                for name in ("id", "code", "message", "data", "connection_id", "user_id", "heartbeat_interval")
            },
        ).map(text),
        max_size=8,
    )
)
def test_nothing_that_a_server_sends_raises(texts: list[str]) -> None:
    client = connecting()
    outcomes = [ask(client, Request("ping")), ask(client, Join("a"))]
    told: list[str] = []
    for received in texts:
        if client.state is ClientState.CLOSED:
            break
        told += [e.id for e in client.receive_text(received, now=0.0) if isinstance(e, Answered | Refused)]
    if client.state is not ClientState.CLOSED:
        told += [e.id for e in client.send(Disconnect(), now=0.0) if isinstance(e, Answered | Refused)]
    assert sorted(told) == outcomes


# --- Misuse -----------------------------------------------------------------------------------------------------


def closed() -> Client:
    client = connected()
    client.send(Disconnect(), now=0.0)
    return client


def waiting() -> Client:
    client = connected()
    client.lost(1006, now=0.0)
    return client


def attempting() -> Client:
    client = new()
    client.connect(now=0.0)
    return client


CALLS = {
    "connect": lambda c: c.connect(now=1.0),
    "opened": lambda c: c.opened(now=1.0),
    "receive_text": lambda c: c.receive_text("{", now=1.0),
    "receive_activity": lambda c: c.receive_activity(now=1.0),
    "lost": lambda c: c.lost(1006, now=1.0),
    "send": lambda c: c.send(Send({}), now=1.0),
    "request": lambda c: c.request(Join("a"), now=1.0),
    "disconnect": lambda c: c.send(Disconnect(), now=1.0),
}
MISUSE = {
    new: ["opened", "receive_text", "receive_activity", "lost", "send", "request"],
    attempting: ["connect", "receive_text"],
    connecting: ["connect", "opened"],
    connected: ["connect", "opened"],
    waiting: ["opened", "receive_text", "receive_activity", "lost"],
    closed: list(CALLS),
}


@pytest.mark.parametrize(("start", "call"), [(start, call) for start, calls in MISUSE.items() for call in calls])
def test_misuse_changes_nothing(start, call: str) -> None:  # type: ignore[no-untyped-def]
    client = start()
    before = (client.state, client.next_timeout(), client.channels, client.connection_id)
    with pytest.raises(LocalProtocolError):
        CALLS[call](client)
    assert (client.state, client.next_timeout(), client.channels, client.connection_id) == before


def nested() -> dict[str, object]:
    endless: dict[str, object] = {}
    endless["again"] = endless
    return endless


@pytest.mark.parametrize("data", [{"x": object()}, {"x": "\ud800"}, {"x": 2j}, {("a",): 1}, nested()])
@pytest.mark.parametrize("start", [connecting, connected])
def test_data_that_json_cannot_express_is_refused(start, data: dict[str, object]) -> None:  # type: ignore[no-untyped-def]
    client = start()
    before = client.next_timeout()
    with pytest.raises(LocalProtocolError, match="JSON"):
        client.send(Send(data), now=0.0)
    for request in (Request("ping", data), Publish(data), Join("a", data), Join("\ud800"), Leave("\ud800")):
        with pytest.raises(LocalProtocolError, match="JSON"):
            client.request(request, now=0.0)
    assert (client.channels, client.next_timeout()) == ((), before)
    assert ask(client, Request("ping")) == "0-1"


@pytest.mark.parametrize(
    "config",
    [
        {"max_reconnect_attempts": -1},
        {"backoff_base": 0.0},
        {"backoff_cap": -1.0},
        {"connect_timeout": 0},
        {"command_timeout": float("nan")},
        {"queue_size": -1},
        {"heartbeat_factor": 1.0},
    ],
)
def test_config_is_checked(config: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(config))):
        ClientConfig(**config)  # type: ignore[arg-type]
