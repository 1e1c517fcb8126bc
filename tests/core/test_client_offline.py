"""The client's machine: its queue and its memberships across connections."""

from __future__ import annotations

import pytest

from rtcore.client import (
    Answered,
    Connected,
    Join,
    Leave,
    Lost,
    Publish,
    Refused,
    Rejoined,
    RejoinRefused,
    Request,
    Send,
    SendText,
)
from rtcore.errors import QueueFull

from .client_talk import (
    LATE,
    LEFT,
    LOST,
    ask,
    command,
    connected,
    connecting,
    error,
    join,
    leave,
    reconnect,
    response,
    text,
    welcome,
)


def test_offline_queue_is_sent_in_order_after_the_joins() -> None:
    client = connecting(command_timeout=3.0)
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
    assert client.next_timeout() == 10.0
    assert client.handle_timeout(now=10.0) == [
        Refused("0-3", "timeout", LATE),
        leave("b", "0-7"),
        Refused("0-5", "timeout", LATE),
        leave("a", "0-8"),
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
    assert list(client.channels) == ["a"]
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
    assert client.next_timeout() == 1.25
    assert list(client.channels) == ["new"]
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


def test_memberships_are_joined_again_in_order_with_their_data() -> None:
    client = connected()
    for channel in ("b", "a", "c"):
        client.receive_text(response(ask(client, Join(channel, {"since": channel}))), now=0.0)
    client.receive_text(response(ask(client, Leave("a"))), now=0.0)
    assert list(client.channels) == ["b", "c"]
    for turn in (1, 2):
        client.lost(None, now=0.0)
        tokens = [f"0-{3 + 2 * turn}", f"0-{4 + 2 * turn}"]
        assert reconnect(client, 1.0) == [join("b", tokens[0], since="b"), join("c", tokens[1], since="c")]
        # A rejoin has no time limit, and may be cut short by another loss.
        assert client.next_timeout() is None
    assert client.receive_text(response(tokens[0], {"offset": 3}), now=1.0) == [Rejoined("b", {"offset": 3})]
    assert client.receive_text(error(tokens[1], "forbidden", "no"), now=1.0) == [RejoinRefused("c", "forbidden", "no")]
    assert list(client.channels) == ["b"]


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


def test_join_has_no_time_limit_while_offline() -> None:
    client = connected(command_timeout=3.0)
    joining = ask(client, Join("a"))
    assert client.lost(1013, now=1.0, retry_after=60.0) == [Lost(1013, "", 61.25)]
    assert client.next_timeout() == 61.25
    assert client.handle_timeout(now=60.0) == []
    assert reconnect(client, 62.0) == [join("a", joining)]
    assert client.next_timeout() == 65.0


def test_channel_left_while_offline_is_not_joined_again() -> None:
    client = connected()
    client.receive_text(response(ask(client, Join("a"))), now=0.0)
    client.lost(None, now=0.0)
    assert client.request(Leave("a"), now=0.0) == ("0-2", [Answered("0-2", {"channel": "a"})])
    assert reconnect(client, 1.0) == []


def test_join_overtaken_by_a_leave_is_not_joined_again() -> None:
    client = connected()
    joining, leaving = ask(client, Join("a")), ask(client, Leave("a"))
    assert client.receive_text(response(joining), now=0.0) == [Answered(joining, None)]
    assert list(client.channels) == []
    again = ask(client, Join("a"))
    assert client.receive_text(error(leaving), now=0.0) == [Refused(leaving, "forbidden", "no")]
    assert list(client.channels) == ["a"]
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
    assert list(client.channels) == []


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
    assert list(client.channels) == ["a"]


def test_overdue_join_of_a_channel_that_was_left_needs_no_other_leave() -> None:
    client = connected()
    joining, leaving = ask(client, Join("a")), ask(client, Leave("a"))
    assert client.handle_timeout(now=10.0) == [Refused(joining, "timeout", LATE), Refused(leaving, "timeout", LATE)]


def test_overdue_join_of_a_channel_that_the_server_has_joined_by_itself_undoes_nothing() -> None:
    client = connected(hello=welcome(channels=["url"]))
    joining = ask(client, Join("url"))
    assert client.handle_timeout(now=10.0) == [Refused(joining, "timeout", LATE)]


def test_channel_that_the_server_joins_by_itself_is_left_again() -> None:
    hello = welcome(channels=["url", "other"])
    client = connected(hello=hello)
    for channel in ("url", "none"):
        client.receive_text(response(ask(client, Leave(channel))), now=0.0)
    client.lost(None, now=0.0)
    again = welcome("c2", channels=["url", "other", "none"])
    assert reconnect(client, 1.0, again) == [leave("url", "0-3")]
    assert client.receive_text(response("0-3"), now=1.0) == []
    client.receive_text(response(ask(client, Join("url"))), now=1.0)
    client.lost(None, now=1.0)
    assert reconnect(client, 2.0, again) == [join("url", "0-5")]
