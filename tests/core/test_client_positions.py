"""The client's machine: what it has heard of each channel, and how it has told again what it has missed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtcore.client import (
    Answered,
    Join,
    Leave,
    Lost,
    MessageReceived,
    Publish,
    Refused,
    Rejoined,
    RejoinRefused,
    Request,
    SendText,
)

from .client_talk import (
    LATE,
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


def test_position_moves_with_each_message() -> None:
    client = connected()
    assert client.position("a") is None
    client.receive_text(response(ask(client, Join("a")), standing(5)), now=0.0)
    assert client.position("a") == ("e", 5)
    assert hear(client, message(6), message(7)) == heard(6, 7)
    assert client.position("a") == ("e", 7)
    assert client.position("b") is None


def test_what_was_heard_is_not_told_again() -> None:
    client = member(5)
    assert hear(client, message(3), message(5), message(6), message(6), message(7)) == heard(6, 7)


@pytest.mark.parametrize(
    "meta",
    [
        None,
        7,
        {},
        {"epoch": "e"},
        {"epoch": "e", "offset": "6"},
        {"epoch": 5, "offset": 6},
        {"epoch": "o", "offset": 9},
    ],
)
def test_messages_of_no_channel_that_was_joined_pass(meta: object) -> None:
    client = member(5)
    said = {"type": "m", "channel": "a", "meta": meta}
    assert hear(client, said, said) == [MessageReceived(said)] * 2
    assert client.position("a") == ("e", 5)


def test_epoch_tells_the_channel_whatever_a_message_says_of_it() -> None:
    client = member(5)
    client.receive_text(response(ask(client, Join("b")), standing(2, "f", channel="b")), now=0.0)
    lie = message(6, channel="b")
    assert hear(client, lie, lie) == [MessageReceived(lie)]
    assert (client.position("a"), client.position("b")) == (("e", 6), ("f", 2))


def test_hole_is_asked_for_once_however_much_follows_it() -> None:
    client = member(5)
    assert hear(client, message(6), message(8), message(9), message(11)) == [*heard(6), rejoin("0-2", 6)]
    assert client.position("a") == ("e", 6)
    answer = standing(12, recovered=True, replayed=6)
    assert client.receive_text(response("0-2", answer), now=0.0) == [Rejoined("a", answer)]
    assert hear(client, *(message(n) for n in range(7, 14))) == heard(*range(7, 14))


def test_hole_that_the_server_cannot_fill_is_a_gap() -> None:
    client = member(5)
    assert hear(client, message(9)) == [rejoin("0-2", 5)]
    answer = standing(12, recovered=False)
    assert client.receive_text(response("0-2", answer), now=0.0) == [Rejoined("a", answer), gap("a", 12)]
    assert hear(client, message(9), message(12), message(13)) == heard(13)


def test_hole_that_stays_after_a_rejoin_is_a_gap_and_no_other_rejoin() -> None:
    client = member(5)
    assert hear(client, message(7)) == [rejoin("0-2", 5)]
    client.receive_text(response("0-2", standing(8, recovered=True, replayed=3)), now=0.0)
    # 6 has got lost again.
    assert hear(client, message(7), message(8), message(9)) == [gap("a", 6), *heard(7, 8, 9)]
    # The next hole is another one.
    assert hear(client, message(11)) == [rejoin("0-3", 9)]


def test_hole_is_asked_for_again_on_a_new_connection() -> None:
    client = member(5)
    assert hear(client, message(7)) == [rejoin("0-2", 5)]
    client.receive_text(response("0-2", standing(7, recovered=True, replayed=2)), now=0.0)
    client.lost(None, now=0.0)
    assert reconnect(client, 1.0) == [rejoin("0-3", 5)]
    client.receive_text(response("0-3", standing(8, recovered=True, replayed=3)), now=1.0)
    # What was in vain on another connection may not be so on this one.
    assert hear(client, message(7)) == [rejoin("0-4", 5)]
    client.receive_text(response("0-4", standing(8, recovered=True, replayed=3)), now=1.0)
    assert hear(client, message(6), message(7), message(8)) == heard(6, 7, 8)


def test_hole_in_comings_and_goings_is_asked_for_again_on_a_new_connection() -> None:
    roster = {"count": 1, "users": [], "epoch": "ep"}
    client = member(5, presence={**roster, "offset": 2})
    since = {"epoch": "ep", "offset": 2}
    assert hear(client, message(4, "ep")) == [rejoin("0-2", 5, presence_since=since)]
    answer = standing(5, recovered=True, presence={**roster, "offset": 4, "recovered": True})
    client.receive_text(response("0-2", answer), now=0.0)
    client.lost(None, now=0.0)
    assert reconnect(client, 1.0) == [rejoin("0-3", 5, presence_since=since)]
    client.receive_text(response("0-3", answer), now=1.0)
    assert hear(client, message(4, "ep")) == [rejoin("0-4", 5, presence_since=since)]


def test_hole_waits_for_a_join_that_is_under_way() -> None:
    client = member(5)
    change, effects = client.request(Join("a", {"n": 2}), now=0.0)
    assert effects == [command("join_channel", {"since": {"epoch": "e", "offset": 5}, "n": 2, "channel": "a"}, change)]
    assert hear(client, message(7)) == []
    answer = standing(7, recovered=True, replayed=2)
    assert client.receive_text(response(change, answer), now=0.0) == [Answered(change, answer)]
    assert hear(client, message(6), message(7), message(8)) == heard(6, 7, 8)


def test_join_of_another_channel_does_not_fill_a_hole() -> None:
    client = member(5)
    ask(client, Join("b"))
    ask(client, Leave("c"))
    ask(client, Request("ping"))
    assert hear(client, message(7)) == [rejoin("0-5", 5)]


def test_hole_under_a_refused_rejoin_is_a_gap_of_all_that_came_too_early() -> None:
    client = member(5)
    assert hear(client, message(7), message(9), message(8)) == [rejoin("0-2", 5)]
    # The earlier join was granted, and holds.
    assert client.receive_text(error("0-2", "rate_limited"), now=0.0) == [gap("a", 9)]
    assert client.channels == ("a",)
    assert hear(client, message(9), message(10)) == heard(10)
    client.lost(None, now=0.0)
    assert reconnect(client, 1.0) == [rejoin("0-3", 10)]


def test_hole_under_a_refused_or_overdue_join_is_a_gap() -> None:
    client = member(5)
    refused = ask(client, Join("a", {"n": 2}))
    assert hear(client, message(7)) == []
    assert client.receive_text(error(refused), now=0.0) == [Refused(refused, "forbidden", "no"), gap("a", 7)]
    overdue = ask(client, Join("a", {"n": 3}))
    assert hear(client, message(9)) == []
    assert client.handle_timeout(now=10.0) == [Refused(overdue, "timeout", LATE), gap("a", 9)]
    assert hear(client, message(10)) == heard(10)


def test_refused_join_leaves_a_hole_to_the_next_one() -> None:
    client = member(5)
    first, second = ask(client, Join("a", {"n": 2})), ask(client, Join("a", {"n": 3}))
    assert hear(client, message(7)) == []
    assert client.receive_text(error(first), now=0.0) == [Refused(first, "forbidden", "no")]
    client.receive_text(response(second, standing(7, recovered=True, replayed=2)), now=0.0)
    assert hear(client, message(6), message(7)) == heard(6, 7)


def test_refused_rejoin_is_told_while_a_change_is_not_granted() -> None:
    client = member(5)
    change = ask(client, Join("a", {"n": 2}))
    client.lost(None, now=0.0)
    assert reconnect(client, 1.0) == [
        rejoin("0-3", 5),
        command("join_channel", {"since": {"epoch": "e", "offset": 5}, "n": 2, "channel": "a"}, change),
    ]
    assert client.receive_text(error("0-3"), now=1.0) == [RejoinRefused("a", "forbidden", "no")]
    assert client.position("a") == ("e", 5)
    assert client.receive_text(error(change), now=1.0) == [Refused(change, "forbidden", "no")]
    assert (client.channels, client.position("a")) == ((), None)


def test_hole_after_the_servers_farewell_is_left_to_the_next_connection() -> None:
    client = member(5)
    client.receive_text(text({"type": "disconnect", "code": 1012}), now=0.0)
    assert hear(client, message(7), message(8)) == []
    client.lost(1012, now=0.0)
    assert reconnect(client, 1.0) == [rejoin("0-2", 5)]
    client.receive_text(response("0-2", standing(8, recovered=True, replayed=3)), now=1.0)
    assert hear(client, message(6), message(7), message(8)) == heard(6, 7, 8)
    # That was asked for because of the new connection: a hole in the same place would be asked for.
    assert hear(client, message(10)) == [rejoin("0-3", 8)]


def test_hole_before_the_welcome_is_left_to_the_joins_after_it() -> None:
    client = member(5)
    client.lost(None, now=0.0)
    client.connect(now=1.0)
    client.opened(now=1.0)
    assert hear(client, message(7), now=1.0) == []
    assert client.receive_text(welcome("c2"), now=1.0)[1:] == [rejoin("0-2", 5)]


def test_rejoin_that_a_loss_cuts_short_is_made_again() -> None:
    client = member(5)
    assert hear(client, message(7)) == [rejoin("0-2", 5)]
    assert client.lost(None, now=0.0) == [Lost(None, "", 0.25)]
    assert reconnect(client, 1.0) == [rejoin("0-3", 5)]
    answer = standing(7, recovered=True, replayed=2)
    assert client.receive_text(response("0-3", answer), now=1.0) == [Rejoined("a", answer)]
    assert hear(client, message(6), message(7)) == heard(6, 7)


def test_leave_forgets_the_position() -> None:
    for offline in (False, True):
        client = member(5)
        if offline:
            client.lost(None, now=0.0)
        ask(client, Leave("a"))
        assert client.position("a") is None
        if offline:
            reconnect(client, 1.0)
        # What is still on its way is nobody's business any more.
        assert hear(client, message(6), message(6)) == heard(6, 6)
        token, effects = client.request(Join("a"), now=1.0)
        assert effects == [join("a", token)]


def test_leave_forgets_what_was_asked_for() -> None:
    client = member(5)
    assert hear(client, message(7)) == [rejoin("0-2", 5)]
    assert client.request(Leave("a"), now=0.0) == ("0-3", [leave("a", "0-3")])
    assert client.receive_text(response("0-2", standing(7, recovered=True, replayed=2)), now=0.0) == []
    assert client.position("a") is None


def test_filtered_channel_has_holes_that_mean_nothing() -> None:
    client = connected()
    filters = {"types": ["m"]}
    answer = response(ask(client, Join("a", {"filters": filters})), standing(5))
    client.receive_text(answer, now=0.0)
    assert hear(client, message(7), message(12), message(12), message(9)) == heard(7, 12)
    client.lost(None, now=0.0)
    assert reconnect(client, 1.0) == [
        command("join_channel", {"filters": filters, "channel": "a", "since": {"epoch": "e", "offset": 12}}, "0-2")
    ]
    client.receive_text(response("0-2", standing(20, recovered=True, replayed=1)), now=1.0)
    assert hear(client, message(15), message(25)) == heard(15, 25)
    # Without the filter a hole is one again.
    client.receive_text(response(ask(client, Join("a")), standing(25, recovered=True)), now=1.0)
    assert hear(client, message(27), now=1.0) == [rejoin("0-4", 25)]


@pytest.mark.parametrize("filters", [{}, None])
def test_filters_that_filter_nothing_leave_no_holes(filters: object) -> None:
    client = connected()
    client.receive_text(response(ask(client, Join("a", {"filters": filters})), standing(5)), now=0.0)
    assert hear(client, message(7)) == [
        command("join_channel", {"filters": filters, "channel": "a", "since": {"epoch": "e", "offset": 5}}, "0-2")
    ]


def test_application_may_say_from_where_it_goes_on() -> None:
    client = connected()
    since = {"epoch": "e", "offset": 3, "persistent": 1}
    token, effects = client.request(Join("a", {"since": since}), now=0.0)
    assert effects == [command("join_channel", {"since": since, "channel": "a"}, token)]
    client.receive_text(response(token, standing(5, recovered=True, replayed=3)), now=0.0)
    assert client.position("a") == ("e", 3)
    assert hear(client, message(1), message(2), message(4), message(5)) == heard(2, 4, 5)
    client.lost(None, now=0.0)
    assert reconnect(client, 1.0) == [rejoin("0-2", 5, data={"since": None})]


@pytest.mark.parametrize("since", ["x", {}, {"epoch": 1, "offset": 2}, {"epoch": "e", "offset": "2"}])
def test_answer_counts_where_the_application_does_not_say_it_well(since: object) -> None:
    client = connected()
    client.receive_text(response(ask(client, Join("a", {"since": since})), standing(5, recovered=True)), now=0.0)
    assert client.position("a") == ("e", 5)


def test_what_is_kept_for_later_joiners_comes_first() -> None:
    client = member(5, replayed=2)
    assert client.position("a") == ("e", 5)
    assert hear(client, message(2), message(2), message(4), message(2), message(4), message(6)) == heard(2, 4, 6)
    assert hear(client, message(4)) == []


def test_nothing_is_kept_unless_the_answer_says_so() -> None:
    assert hear(member(5), message(2)) == []


KEPT = [1, 3, 4]


@pytest.mark.parametrize("cut", range(4))
@pytest.mark.parametrize("lost", [False, True])
def test_replay_of_what_is_kept_goes_on_where_it_was_cut(cut: int, lost: bool) -> None:
    client = member(5, replayed=len(KEPT))
    told = hear(client, *map(message, KEPT[:cut]))
    client.lost(None, now=0.0)
    after = KEPT[cut - 1] if cut else 0
    position = {} if cut == len(KEPT) else {"persistent": after}
    assert reconnect(client, 1.0) == [rejoin("0-2", 5, **position)]
    rest = [n for n in KEPT if n > after]
    if lost:
        # 8 is kept now too.
        answer = standing(9, recovered=False, replayed=len([*rest, 8]))
        client.receive_text(response("0-2", answer), now=1.0)
        told += hear(client, *map(message, [*rest, 8, 10]))
        assert told == heard(*KEPT, 8, 10)
    else:
        client.receive_text(response("0-2", standing(7, recovered=True, replayed=len([*rest, 6, 7]))), now=1.0)
        told += hear(client, *map(message, [*rest, 6, 7, 8]))
        assert told == heard(*KEPT, 6, 7, 8)


def test_new_epoch_has_all_told_again_that_it_keeps() -> None:
    client = member(5, replayed=2)
    assert hear(client, message(3)) == heard(3)
    client.lost(None, now=0.0)
    reconnect(client, 1.0)
    answer = standing(4, "f", recovered=False, replayed=2)
    assert client.receive_text(response("0-2", answer), now=1.0) == [Rejoined("a", answer), gap("a", 4, "f")]
    told = hear(client, message(1, "f"), message(2, "f"), message(9), message(5, "f"))
    assert told == [*heard(1, 2, epoch="f"), *heard(9), *heard(5, epoch="f")]


def test_recovery_with_nothing_left_to_replay_ends_the_replay() -> None:
    client = member(5, replayed=2)
    client.lost(None, now=0.0)
    assert reconnect(client, 1.0) == [rejoin("0-2", 5, persistent=0)]
    client.receive_text(response("0-2", standing(5, recovered=True)), now=1.0)
    assert hear(client, message(3)) == []
    client.lost(None, now=1.0)
    assert reconnect(client, 2.0) == [rejoin("0-3", 5)]


def test_second_join_has_nothing_told_twice() -> None:
    client = connected()
    first, second = ask(client, Join("a")), ask(client, Join("a"))
    client.receive_text(response(first, standing(5, replayed=2)), now=0.0)
    assert hear(client, message(2), message(4)) == heard(2, 4)
    assert client.receive_text(response(second, standing(5, replayed=2)), now=0.0) == [
        Answered(second, standing(5, replayed=2))
    ]
    assert hear(client, message(2), message(4), message(6)) == heard(6)


def test_second_answer_announces_no_second_gap() -> None:
    client = member(5)
    change = ask(client, Join("a"))
    client.lost(None, now=0.0)
    reconnect(client, 1.0)
    answer = standing(9, recovered=False, replayed=1)
    assert client.receive_text(response("0-3", answer), now=1.0) == [Rejoined("a", answer), gap("a", 9)]
    assert hear(client, message(8)) == heard(8)
    assert client.receive_text(response(change, answer), now=1.0) == [Answered(change, answer)]
    assert hear(client, message(8), message(10)) == heard(10)


def test_second_answer_has_nothing_told_twice_though_something_got_lost_in_between() -> None:
    client = member(0)
    change = ask(client, Join("a"))
    client.lost(None, now=0.0)
    reconnect(client, 1.0)
    client.receive_text(response("0-3", standing(5, recovered=False, replayed=2)), now=1.0)
    assert hear(client, message(2), message(4)) == heard(2, 4)
    # 6 and 7 are kept too, and have got lost.
    answer = standing(7, recovered=False, replayed=4)
    assert client.receive_text(response(change, answer), now=1.0) == [Answered(change, answer), gap("a", 7)]
    assert hear(client, *map(message, (2, 4, 6, 7, 8))) == heard(6, 7, 8)


def test_join_without_a_position_does_not_hide_a_hole() -> None:
    client = connected()
    first, second = ask(client, Join("a")), ask(client, Join("a"))
    client.receive_text(response(first, standing(5)), now=0.0)
    assert hear(client, message(7)) == []
    assert client.receive_text(response(second, standing(7)), now=0.0) == [Answered(second, standing(7)), gap("a", 7)]
    assert hear(client, message(8)) == heard(8)


def test_what_the_servers_own_join_tells_is_left_to_the_replay() -> None:
    client = member(5)
    client.lost(None, now=0.0)
    assert reconnect(client, 1.0, welcome("c2", channels=["a"])) == [rejoin("0-2", 5)]
    assert hear(client, message(6), message(7)) == []
    client.receive_text(response("0-2", standing(7, recovered=True, replayed=2)), now=1.0)
    assert hear(client, message(6), message(7), message(8)) == heard(6, 7, 8)


def test_publication_of_ones_own_passes_over_nothing_before_the_channel_is_joined_again() -> None:
    client = connected()
    client.receive_text(response(ask(client, Join("a", {"filters": {"types": ["m"]}})), standing(6)), now=0.0)
    client.lost(None, now=0.0)
    filtered = {"filters": {"types": ["m"]}}
    assert reconnect(client, 1.0) == [rejoin("0-2", 6, data=filtered)]
    # It is refused for now; meanwhile the server has got three publications that were missed, and one of the client's.
    silent = ask(client, Publish({"type": "m", "channel": "a", "echo": False}), 1.0)
    busy = {"type": "error", "id": "0-2", "code": "rate_limited", "message": "no", "retry_after": 1}
    client.receive_text(text(busy), now=1.0)
    client.receive_text(response(silent, {"channel": "a", "epoch": "e", "offset": 10}), now=1.0)
    assert client.position("a") == ("e", 6)
    assert client.handle_timeout(now=2.0) == [rejoin("0-2", 6, data=filtered)]
    client.receive_text(response("0-2", standing(10, recovered=True, replayed=3)), now=2.0)
    assert hear(client, message(7), message(9), message(10), message(11)) == heard(7, 9, 11)


@given(st.lists(st.integers(0, 9), max_size=40), st.integers(0, 3))
def test_each_message_is_told_once_and_in_order(offsets: list[int], start: int) -> None:
    client = member(start)
    told: list[int] = []
    for offset in offsets:
        for effect in hear(client, message(offset)):
            if isinstance(effect, MessageReceived):
                told.append(effect.message["n"])  # type: ignore[arg-type]
            else:
                assert isinstance(effect, SendText)
                assert effect == rejoin("0-2", start + len(told))
    assert told == list(range(start + 1, start + 1 + len(told)))


def test_own_publications_are_heard_like_others() -> None:
    client = member(5)
    token = ask(client, Publish({"type": "m", "channel": "a"}))
    assert hear(client, message(6, id=token)) == heard(6, id=token)
    receipt = {"channel": "a", "offset": 6, "epoch": "e"}
    assert client.receive_text(response(token, receipt), now=0.0) == [Answered(token, receipt)]
    assert hear(client, message(7)) == heard(7)
