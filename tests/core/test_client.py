"""The client's machine: its commands, its end, bad input and misuse."""

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
    Request,
    Send,
    SendText,
)
from rtcore.errors import CloseCode, LocalProtocolError

from .client_talk import (
    LATE,
    LOST,
    UNSENT,
    ask,
    command,
    connected,
    connecting,
    error,
    join,
    leave,
    new,
    response,
    text,
    welcome,
)


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
        messages: list[dict[str, object]] = [
            {"type": "heartbeat", "timestamp": 1},
            {"type": "channel_message", "channel": "a", "message": "Привет", "meta": {"offset": 1}},
            {"type": "response", "id": "unknown", "ok": True, "data": {}},
            {"type": "response", "id": ["no", "id"], "ok": True},
            {"type": "error", "code": "unknown_command", "message": "…"},
            {"type": "error", "id": 7, "code": False},
        ]
        for message in messages:
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
    effects: list[Effect]
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
    assert list(client.channels) == []


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
