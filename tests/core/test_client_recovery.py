"""The client's machine: gaps, comings and goings, servers that say less, and the token of what is heard unasked."""

from __future__ import annotations

import pytest

from rtcore.client import (
    Answered,
    Client,
    Drop,
    Ended,
    Join,
    Leave,
    MessageReceived,
    Open,
    ProtocolFault,
    Publish,
    Rejoined,
    Request,
    SendText,
)
from rtcore.errors import CloseCode

from .client_talk import (
    ask,
    command,
    connected,
    error,
    gap,
    hear,
    heard,
    join,
    leave,
    member,
    message,
    reconnect,
    rejoin,
    response,
    standing,
    text,
    welcome,
)


def notice(channel: str, offset: int, epoch: str = "e", reason: str = "slow_consumer", **fields: object) -> str:
    return text({"type": "gap", "channel": channel, "epoch": epoch, "offset": offset, "reason": reason, **fields})


def presence(offset: int, epoch: str = "ep", **fields: object) -> dict[str, object]:
    return {"count": 1, "users": [], "epoch": epoch, "offset": offset, **fields}


# What the server says is missing


def test_channel_goes_on_after_the_gap_that_the_server_announces() -> None:
    client = member(5)
    assert client.receive_text(notice("a", 8), now=0.0) == [gap("a", 8, reason="slow_consumer")]
    assert client.position("a") == ("e", 8)
    assert hear(client, message(8), message(9)) == heard(9)
    assert hear(client, message(11)) == [rejoin("0-2", 9)]


def test_gap_of_what_was_heard_moves_nothing_back() -> None:
    client = member(5)
    assert client.receive_text(notice("a", 3), now=0.0) == [gap("a", 3, reason="slow_consumer")]
    assert client.position("a") == ("e", 5)
    assert hear(client, message(5), message(6)) == heard(6)


def test_gap_into_a_new_epoch() -> None:
    client = member(5)
    assert client.receive_text(notice("a", 2, "f"), now=0.0) == [gap("a", 2, "f", reason="slow_consumer")]
    assert client.position("a") == ("f", 2)
    told = hear(client, message(6), message(2, "f"), message(3, "f"), message(5, "f"))
    # The old epoch is no channel's any more.
    assert told == [*heard(6), *heard(3, epoch="f"), rejoin("0-2", 3, "f")]


def test_filtered_channel_is_still_filtered_after_a_new_epoch() -> None:
    client = connected()
    token = ask(client, Join("a", {"filters": {"types": ["m"]}}))
    client.receive_text(response(token, standing(5, presence=presence(1))), now=0.0)
    client.receive_text(notice("a", 2, "f"), now=0.0)
    client.receive_text(notice("a", 0, "fp", stream="presence"), now=0.0)
    told = hear(client, message(5, "f"), message(3, "fp"))
    assert told == [*heard(5, epoch="f"), *heard(3, epoch="fp")]


@pytest.mark.parametrize("reason", ["history_lost", "foreign_token", "unheard_of"])
def test_what_is_kept_may_come_after_the_gap_of_a_new_connection(reason: str) -> None:
    client = member(5)
    client.lost(None, now=0.0)
    assert reconnect(client, 1.0, welcome("c2", channels=["a"])) == [rejoin("0-2", 5)]
    client.receive_text(notice("a", 9, reason=reason), now=1.0)
    # It comes once more with the answer to the rejoin.
    assert hear(client, message(4), message(7)) == []
    answer = standing(9, recovered=False, replayed=2)
    assert client.receive_text(response("0-2", answer), now=1.0) == [Rejoined("a", answer)]
    assert hear(client, message(7), message(8), message(10)) == heard(7, 8, 10)


def test_what_is_kept_in_a_new_epoch_may_come_after_the_gap() -> None:
    client = member(5)
    client.lost(None, now=0.0)
    reconnect(client, 1.0, welcome("c2", channels=["a"]))
    client.receive_text(notice("a", 4, "f", reason="foreign_token"), now=1.0)
    assert hear(client, message(2, "f")) == heard(2, epoch="f")
    answer = standing(4, "f", recovered=False, replayed=1)
    assert client.receive_text(response("0-2", answer), now=1.0) == [Rejoined("a", answer)]
    assert hear(client, message(2, "f"), message(5, "f")) == heard(5, epoch="f")


def test_gap_in_a_replay_goes_on_with_the_replay() -> None:
    client = member(5, replayed=3)
    assert hear(client, message(1)) == heard(1)
    client.receive_text(notice("a", 7, reason="history_lost"), now=0.0)
    assert hear(client, message(1), message(3), message(8)) == heard(3, 8)


def test_gap_while_something_is_asked_for() -> None:
    client = member(5)
    assert hear(client, message(7)) == [rejoin("0-2", 5)]
    client.receive_text(notice("a", 7), now=0.0)
    client.receive_text(response("0-2", standing(8, recovered=True, replayed=3)), now=0.0)
    assert hear(client, message(6), message(7), message(8), message(9)) == heard(8, 9)


@pytest.mark.parametrize("fields", [{}, {"stream": "presence"}])
def test_gap_of_a_channel_that_is_not_joined_passes(fields: dict[str, object]) -> None:
    client = member(5)
    for channel in ("$broadcast", "b"):
        said = gap(channel, 9, reason="foreign_token", **fields)
        assert hear(client, said.message) == [said]
    assert hear(client, message(6)) == heard(6)


@pytest.mark.parametrize(
    "fields",
    [{"channel": 7}, {"epoch": None}, {"offset": "9"}, {"offset": 1.5}, {"stream": 7}, {"reason": None}],
)
def test_malformed_gap_ends_the_client(fields: dict[str, object]) -> None:
    client = member(5)
    said = {"type": "gap", "channel": "a", "epoch": "e", "offset": 9, **fields}
    fault, *rest = client.receive_text(text(said), now=0.0)
    assert isinstance(fault, ProtocolFault)
    assert rest == [
        Drop(CloseCode.BAD_MESSAGE, "bad message"),
        Ended(CloseCode.BAD_MESSAGE, fault.reason, unsent=0),
    ]


def test_gap_may_lack_the_reason() -> None:
    client = member(5)
    client.receive_text('{"type":"gap","channel":"a","epoch":"e","offset":9}', now=0.0)
    assert client.position("a") == ("e", 9)


# What a server says is missing as it welcomes the client


def test_gaps_of_a_welcome_come_before_anything_else() -> None:
    client = connected()
    client.receive_text(response(ask(client, Join("a")), standing(5)), now=0.0)
    token = ask(client, Publish({"type": "m", "channel": "a"}))
    client.lost(None, now=0.0)
    gaps = [
        {"type": "gap", "channel": "$broadcast", "epoch": "b", "offset": 4, "reason": "history_lost"},
        {"type": "gap", "channel": "a", "epoch": "e", "offset": 7, "reason": "history_lost"},
    ]
    assert reconnect(client, 1.0, welcome("c2", channels=["a"], gaps=gaps)) == [
        gap("$broadcast", 4, "b"),
        gap("a", 7),
        # What is kept of what is missing comes after the gap.
        rejoin("0-3", 7, persistent=5),
        SendText(text({"type": "m", "channel": "a", "id": token})),
    ]
    # The server tells it twice, since it has joined the channel by itself, and is asked to once more.
    assert hear(client, message(6), message(8)) == []
    client.receive_text(response("0-3", standing(8, recovered=True, replayed=2)), now=1.0)
    assert hear(client, message(6), message(8), message(9)) == heard(6, 8, 9)


def test_what_came_before_the_client_did_is_not_taken_for_what_is_kept() -> None:
    client = connected(hello=welcome(channels=["a"]))
    client.receive_text(response(ask(client, Leave("a"))), now=0.0)
    # Two that are kept are to come, and the connection is lost before.
    client.receive_text(response(ask(client, Join("a")), standing(13, replayed=2)), now=0.0)
    client.lost(None, now=0.0)
    assert reconnect(client, 1.0, welcome("c2", channels=["a"])) == [rejoin("0-3", 13, persistent=0)]
    # By the token of the connection, the server's own join tells what was said while the client was no member.
    assert hear(client, message(12), message(13), message(14)) == []
    client.receive_text(response("0-3", standing(14, recovered=True, replayed=3)), now=1.0)
    assert hear(client, message(4), message(7), message(14), message(15)) == heard(4, 7, 14, 15)


def test_gaps_of_a_welcome_into_another_life() -> None:
    client = connected(hello=welcome(last_event_id="i-5"))
    client.receive_text(response(ask(client, Join("a")), standing(5)), now=0.0)
    client.lost(None, now=0.0)
    gaps = [{"channel": "a", "epoch": "f", "offset": 2, "reason": "foreign_token"}]
    hello = welcome("c2", channels=["a"], gaps=gaps, last_event_id="j-9.0")
    assert reconnect(client, 1.0, hello, token="i-5") == [
        gap("a", 2, "f", "foreign_token"),
        rejoin("0-2", 2, "f", persistent=0),
    ]
    # A cut right here loses no gap: the next connection goes on after it.
    assert position(client) == "j-9.0"


@pytest.mark.parametrize("bad", [7, {}, {"channel": "a", "epoch": "e"}, {"channel": "a", "epoch": "e", "offset": "7"}])
def test_malformed_gap_of_a_welcome_ends_the_client(bad: object) -> None:
    client = connected()
    client.lost(None, now=0.0)
    client.connect(now=1.0)
    client.opened(now=1.0)
    fault, *rest = client.receive_text(welcome("c2", gaps=[bad]), now=1.0)
    assert isinstance(fault, ProtocolFault)
    assert rest == [
        Drop(CloseCode.BAD_MESSAGE, "bad message"),
        Ended(CloseCode.BAD_MESSAGE, fault.reason, unsent=0),
    ]
    assert client.connection_id == "c1"


# Channels that the server joins by itself, and the client too


def test_what_is_kept_was_told_by_the_servers_own_join() -> None:
    client = connected(hello=welcome(channels=["a"]))
    assert hear(client, message(2), message(4)) == heard(2, 4)
    token = ask(client, Join("a"))
    client.receive_text(response(token, standing(5, replayed=2)), now=0.0)
    assert hear(client, message(2), message(4), message(6)) == heard(6)


def test_what_is_kept_was_told_on_an_earlier_connection() -> None:
    client = connected(hello=welcome(channels=["a"]))
    hear(client, message(4), message(2))
    client.lost(None, now=0.0)
    reconnect(client, 1.0, welcome("c2", channels=["a"]))
    client.receive_text(response(ask(client, Join("a"), 1.0), standing(6, replayed=3)), now=1.0)
    assert hear(client, message(2), message(4), message(5)) == heard(5)


def test_what_is_kept_was_not_told_unless_the_server_had_joined_the_channel() -> None:
    client = connected()
    hear(client, message(4))
    client.receive_text(response(ask(client, Join("a")), standing(5, replayed=1)), now=0.0)
    assert hear(client, message(3)) == heard(3)


@pytest.mark.parametrize("moment", ["on this connection", "offline", "on the next one"])
def test_what_is_kept_was_not_told_while_the_channel_was_left(moment: str) -> None:
    client = connected(hello=welcome(channels=["a"]))
    hear(client, message(4))
    client.request(Leave("a"), now=0.0)
    client.lost(None, now=0.0)
    # The server has joined it once more, until it has read that it is to leave it.
    assert reconnect(client, 1.0, welcome("c2", channels=["a"])) == [leave("a", "0-2")]
    assert hear(client, message(10)) == heard(10)
    if moment == "on this connection":
        token = ask(client, Join("a"), 1.0)
    else:
        client.lost(None, now=1.0)
        early = [ask(client, Join("a"), 1.0)] if moment == "offline" else []
        sent = [join("a", token) for token in early] or [leave("a", "0-3")]
        assert reconnect(client, 2.0, welcome("c2", channels=["a"])) == sent
        token = early[0] if early else ask(client, Join("a"), 2.0)
    client.receive_text(response(token, standing(10, replayed=2)), now=2.0)
    assert hear(client, message(6), message(8), message(11)) == heard(6, 8, 11)


def test_channel_that_was_left_and_joined_again_is_the_servers_own_on_the_next_connection() -> None:
    client = connected(hello=welcome(channels=["a"]))
    client.request(Leave("a"), now=0.0)
    client.receive_text(response(ask(client, Join("a")), standing(5)), now=0.0)
    client.lost(None, now=0.0)
    assert reconnect(client, 1.0, welcome("c2", channels=["a"])) == [rejoin("0-3", 5)]
    hear(client, message(3, "f"))
    client.receive_text(response("0-3", standing(4, "f", recovered=False, replayed=2)), now=1.0)
    assert hear(client, message(3, "f"), message(4, "f"), message(5, "f")) == heard(4, 5, epoch="f")


@pytest.mark.parametrize(("others", "known"), [(99, True), (100, False)])
def test_latest_streams_that_were_heard_without_a_join_are_known(others: int, known: bool) -> None:
    client = connected(hello=welcome(channels=["a"]))
    hear(client, message(1, "f"), message(4), *(message(1, f"f{n}") for n in range(others)))
    client.receive_text(response(ask(client, Join("a")), standing(5, replayed=1)), now=0.0)
    assert hear(client, message(3)) == ([] if known else heard(3))


# Comings and goings


def test_comings_and_goings_are_a_stream_of_their_own() -> None:
    client = member(5, presence=presence(2))
    assert hear(client, message(3, "ep"), message(3, "ep"), message(6)) == [*heard(3, epoch="ep"), *heard(6)]
    client.lost(None, now=0.0)
    since = {"epoch": "ep", "offset": 3}
    assert reconnect(client, 1.0) == [rejoin("0-2", 6, presence_since=since)]
    answer = standing(6, recovered=True, presence=presence(5, recovered=True))
    client.receive_text(response("0-2", answer), now=1.0)
    assert hear(client, message(3, "ep"), message(4, "ep"), message(5, "ep")) == heard(4, 5, epoch="ep")


@pytest.mark.parametrize("recovered", [{"recovered": False}, {}])
@pytest.mark.parametrize("epoch", ["ep", "ep2"])
def test_roster_stands_for_comings_and_goings_that_are_lost(epoch: str, recovered: dict[str, object]) -> None:
    client = member(5, presence=presence(2))
    client.lost(None, now=0.0)
    reconnect(client, 1.0)
    answer = standing(5, recovered=True, presence=presence(9, epoch, **recovered))
    assert client.receive_text(response("0-2", answer), now=1.0) == [Rejoined("a", answer)]
    assert hear(client, message(9, epoch), message(10, epoch)) == heard(10, epoch=epoch)


def test_hole_in_comings_and_goings_holds_up_nothing_else() -> None:
    client = member(5, presence=presence(2))
    since = {"epoch": "ep", "offset": 2}
    assert hear(client, message(4, "ep"), message(6), message(5, "ep")) == [
        rejoin("0-2", 5, presence_since=since),
        *heard(6),
    ]
    answer = standing(6, recovered=True, replayed=1, presence=presence(5, recovered=True))
    client.receive_text(response("0-2", answer), now=0.0)
    # 3 has got lost again.
    told = hear(client, message(6), message(4, "ep"), message(5, "ep"), message(7))
    assert told == [gap("a", 3, "ep", stream="presence"), *heard(4, 5, epoch="ep"), *heard(7)]


def test_comings_and_goings_under_a_refused_rejoin_are_a_gap() -> None:
    client = member(5, presence=presence(2))
    hear(client, message(7), message(4, "ep"))
    assert client.receive_text(error("0-2"), now=0.0) == [gap("a", 7), gap("a", 4, "ep", stream="presence")]


def test_gap_in_comings_and_goings() -> None:
    client = member(5, presence=presence(2))
    said = gap("a", 0, "ep2", reason="presence_limit", stream="presence")
    assert hear(client, said.message) == [said]
    assert hear(client, message(1, "ep2"), message(1, "ep2"), message(6)) == [*heard(1, epoch="ep2"), *heard(6)]
    client.receive_text(notice("a", 4, "ep2", stream="presence"), now=0.0)
    told = hear(client, message(5, "ep2"), message(7, "ep2"))
    assert told == [
        *heard(5, epoch="ep2"),
        rejoin("0-2", 6, presence_since={"epoch": "ep2", "offset": 5}),
    ]


def test_server_that_no_longer_tells_who_is_there() -> None:
    for roster in (None, {"count": 3}):
        client = member(5, presence=presence(2))
        client.lost(None, now=0.0)
        reconnect(client, 1.0)
        answer = standing(5, recovered=True, presence=roster)
        client.receive_text(response("0-2", answer), now=1.0)
        assert hear(client, message(3, "ep"), message(3, "ep")) == heard(3, 3, epoch="ep")
        client.lost(None, now=1.0)
        assert reconnect(client, 2.0) == [rejoin("0-3", 5)]


# Servers that say less


@pytest.mark.parametrize(
    "answer",
    [
        None,
        7,
        {},
        {"channel": "a"},
        {"epoch": "e"},
        {"offset": 5},
        {"epoch": "e", "offset": "5"},
        {"epoch": "e", "offset": 5, "recovered": 1},
        {"epoch": "e", "offset": 5, "presence": {"epoch": 7}},
    ],
)
def test_server_that_does_not_number_its_channels(answer: object) -> None:
    client = connected()
    token = ask(client, Join("a"))
    assert client.receive_text(response(token, answer), now=0.0) == [Answered(token, answer)]
    assert client.position("a") is None
    assert hear(client, message(6), message(6), message(9)) == heard(6, 6, 9)


def test_server_that_does_not_number_its_channels_any_more() -> None:
    client = member(5, presence=presence(2))
    assert hear(client, message(7)) == [rejoin("0-2", 5, presence_since={"epoch": "ep", "offset": 2})]
    assert client.receive_text(response("0-2", {}), now=0.0) == [Rejoined("a", {})]
    assert hear(client, message(8), message(9, "ep")) == [*heard(8), *heard(9, epoch="ep")]
    client.lost(None, now=0.0)
    assert reconnect(client, 1.0) == [command("join_channel", {"channel": "a"}, "0-3")]


def test_server_that_knows_of_no_since() -> None:
    client = member(5)
    client.lost(None, now=0.0)
    reconnect(client, 1.0)
    # Nothing was missed.
    assert client.receive_text(response("0-2", standing(5)), now=1.0) == [Rejoined("a", standing(5))]
    client.lost(None, now=1.0)
    reconnect(client, 2.0)
    assert client.receive_text(response("0-3", standing(7)), now=2.0) == [Rejoined("a", standing(7)), gap("a", 7)]
    client.lost(None, now=2.0)
    reconnect(client, 3.0)
    answer = standing(3, "f")
    assert client.receive_text(response("0-4", answer), now=3.0) == [Rejoined("a", answer), gap("a", 3, "f")]
    assert hear(client, message(4, "f")) == heard(4, epoch="f")


def test_only_joins_move_positions() -> None:
    client = member(5)
    for request in (Request("history", {"channel": "a"}), Publish({"type": "m", "channel": "a"})):
        token = ask(client, request)
        client.receive_text(response(token, standing(9)), now=0.0)
        assert client.position("a") == ("e", 5)


# What is heard without joining


def resumed(token: str | None) -> Client:
    """Return a client whose connection goes on from `token`."""
    return connected(hello=welcome(last_event_id=token))


def position(client: Client) -> str | None:
    """End the connection; return with what the next one begins."""
    client.lost(None, now=0.0)
    (opens,) = client.connect(now=0.0)
    assert isinstance(opens, Open)
    return opens.last_event_id


def test_token_moves_with_what_is_heard() -> None:
    assert position(resumed("i-7")) == "i-7"
    client = resumed("i-7")
    assert hear(client, message(1, "b", seq=9), message(2, "b", seq=12)) == [
        *heard(1, epoch="b", seq=9),
        *heard(2, epoch="b", seq=12),
    ]
    # Not backwards, and not by what has no number.
    hear(client, message(3, "b", seq=11), {"type": "heartbeat"}, {"type": "m", "meta": {"id": 5}}, {"type": "m"})
    assert position(client) == "i-12"


@pytest.mark.parametrize("strange", ["", "7", "i", "i-", "-7", "j-99", "i-9.9x", "i-٣", "i-" + "9" * 19])
def test_token_of_another_server_or_none_moves_nothing(strange: str) -> None:
    client = resumed("i-7")
    said = {"type": "m", "meta": {"id": strange}}
    assert hear(client, said) == [MessageReceived(said)]
    assert position(client) == "i-7"


@pytest.mark.parametrize("token", [None, "nonsense"])
def test_server_without_tokens(token: str | None) -> None:
    client = resumed(token)
    hear(client, message(1, "b", seq=9))
    assert position(client) is None


def test_token_is_forgotten_where_a_server_has_none() -> None:
    client = resumed("i-7")
    client.lost(None, now=0.0)
    reconnect(client, 1.0, welcome("c2"), token="i-7")
    assert position(client) is None


def test_failed_attempt_keeps_the_token() -> None:
    client = resumed("i-7")
    assert position(client) == "i-7"
    assert position(client) == "i-7"
    client.opened(now=0.0)
    assert position(client) == "i-7"


def test_token_follows_the_server() -> None:
    client = resumed("i-7")
    client.lost(None, now=0.0)
    reconnect(client, 1.0, welcome("c2", last_event_id="j-3"), token="i-7")
    hear(client, message(1, "b", seq=9))
    assert position(client) == "j-3"


def test_token_tells_what_was_told_of_what_is_kept() -> None:
    client = resumed("i-7.0")
    hear(client, message(2, "b", seq=3), message(3, "c", seq=5), message(1, "b", seq=2))
    assert position(client) == "i-7.5"
    client = resumed("i-7.3")
    assert position(client) == "i-7.3"
    client = resumed("i-7.3")
    hear(client, message(3, "b", seq=5), message(4, "b", seq=8))
    assert position(client) == "i-8"


def test_replay_of_a_joined_channel_says_nothing_of_what_is_kept_elsewhere() -> None:
    client = resumed("i-7.0")
    client.receive_text(response(ask(client, Join("a")), standing(3, replayed=2)), now=0.0)
    assert hear(client, message(2, seq=4)) == heard(2, seq=4)
    assert position(client) == "i-7.0"
    client = resumed("i-7.0")
    client.receive_text(response(ask(client, Join("a")), standing(3)), now=0.0)
    # Live, it says that everything before it was heard.
    assert hear(client, message(4, seq=9)) == heard(4, seq=9)
    assert position(client) == "i-9"
