"""The client's machine: publications, which are kept until they are acknowledged."""

from __future__ import annotations

import pytest

from rtcore.client import (
    Answered,
    Client,
    ClientConfig,
    Disconnect,
    Drop,
    Ended,
    Join,
    Lost,
    MessageReceived,
    Publish,
    Refused,
    Request,
    Send,
    SendText,
)
from rtcore.errors import CloseCode, QueueFull

from .client_talk import (
    LATE,
    LOST,
    UNSENT,
    ask,
    connected,
    connecting,
    error,
    gap,
    hear,
    heard,
    member,
    message,
    reconnect,
    rejoin,
    response,
    standing,
    text,
    welcome,
)

KNOWN = welcome("c2")


def publish(n: int, **fields: object) -> Publish:
    return Publish({"type": "m", "channel": "a", "n": n, **fields})


def sent(n: int, token: str, **fields: object) -> SendText:
    return SendText(text({"type": "m", "channel": "a", "n": n, **fields, "id": token}))


def receipt(offset: int, epoch: str = "e") -> dict[str, object]:
    return {"channel": "a", "offset": offset, "epoch": epoch}


def test_session_is_the_constructors() -> None:
    assert connected().session == ""
    assert Client(ClientConfig(), random=lambda: 0.0, session="secret").session == "secret"


def test_publication_is_sent_again_where_the_server_knows_the_session() -> None:
    client = connected()
    first, second = ask(client, publish(1)), ask(client, publish(2))
    assert client.receive_text(response(first, receipt(1)), now=0.0) == [Answered(first, receipt(1))]
    for turn in (1.0, 2.0):
        assert isinstance(client.lost(1006, now=turn)[-1], Lost)
        assert reconnect(client, turn, KNOWN) == [sent(2, second)]
    assert client.receive_text(response(second, receipt(2)), now=2.0) == [Answered(second, receipt(2))]
    client.lost(1006, now=3.0)
    assert reconnect(client, 4.0, KNOWN) == []


@pytest.mark.parametrize("hello", [welcome("c2", session_epoch=None), welcome("c2", session_epoch="t")])
def test_publication_is_not_sent_again_where_the_server_does_not_know_the_session(hello: str) -> None:
    client = connected()
    first, second = ask(client, publish(1)), ask(client, publish(2))
    assert client.lost(1006, now=0.0) == [Lost(1006, "", 0.25)]
    third = ask(client, publish(3))
    assert reconnect(client, 1.0, hello) == [
        Refused(first, "connection_lost", LOST),
        Refused(second, "connection_lost", LOST),
        # This one has never left.
        sent(3, third),
    ]
    late = response(first, receipt(1))
    assert len(client.receive_text(late, now=1.0)) == 1
    assert client.receive_text(response(third, receipt(3)), now=1.0) == [Answered(third, receipt(3))]


def test_publication_is_not_sent_again_where_the_server_knows_the_session_from_a_lost_attempt() -> None:
    client = connected(hello=welcome(session_epoch=None))
    token = ask(client, publish(1))
    client.lost(1006, now=0.0)
    # Not to know it twice is not to know it again.
    assert reconnect(client, 1.0, welcome("c2", session_epoch=None)) == [Refused(token, "connection_lost", LOST)]


def test_what_is_sent_again_comes_after_the_joins_and_before_what_was_queued() -> None:
    client = member(5)
    first, second = ask(client, publish(1)), ask(client, publish(2, id="own"))
    client.receive_text(text({"type": "disconnect", "code": 1012}), now=0.0)
    third = ask(client, publish(3))
    client.lost(1012, now=0.0)
    client.send(Send({"n": 4}), now=0.0)
    fifth = ask(client, publish(5))
    assert reconnect(client, 1.0, KNOWN) == [
        rejoin("0-7", 5),
        sent(1, first),
        SendText('{"type":"m","channel":"a","n":2,"id":"own"}'),
        sent(3, third),
        SendText('{"n":4}'),
        sent(5, fifth),
    ]
    assert second == "own"


def test_what_is_for_a_handler_is_not_sent_again() -> None:
    client = connected()
    handled, direct = ask(client, Publish({"type": "m"})), ask(client, Publish({"type": "m", "recipient_id": "bob"}))
    assert client.lost(1006, now=0.0) == [Refused(handled, "connection_lost", LOST), Lost(1006, "", 0.25)]
    assert reconnect(client, 1.0, KNOWN) == [SendText(text({"type": "m", "recipient_id": "bob", "id": direct}))]


def test_time_for_the_acknowledgement_stands_still_while_offline() -> None:
    client = connected(command_timeout=3.0)
    token = ask(client, publish(1), now=0.0)
    assert client.next_timeout() == 3.0
    client.lost(1006, now=2.0)
    assert client.handle_timeout(now=2.1) == []
    assert client.next_timeout() == 2.25
    assert reconnect(client, 50.0, KNOWN) == [sent(1, token)]
    assert client.next_timeout() == 53.0
    assert client.handle_timeout(now=53.0) == [Refused(token, "timeout", LATE)]
    client.lost(1006, now=54.0)
    assert reconnect(client, 55.0, KNOWN) == []


def test_unacknowledged_publications_are_limited() -> None:
    client = connected(max_unacknowledged=2, queue_size=5)
    first, second = ask(client, publish(1)), ask(client, publish(2))
    assert client.unacknowledged == 2
    with pytest.raises(QueueFull, match="2 publications"):
        client.request(publish(3), now=0.0)
    assert client.unacknowledged == 2
    # What is no publication has no part in it.
    handled = ask(client, Publish({"type": "m"}))
    assert handled == "0-3"
    ask(client, Request("ping"))
    assert client.receive_text(error(first, "rate_limited"), now=0.0) == [Refused(first, "rate_limited", "no")]
    third = ask(client, publish(3))
    with pytest.raises(QueueFull):
        client.request(publish(4), now=0.0)
    client.handle_timeout(now=10.0)
    fourth = ask(client, publish(4), now=10.0)
    client.lost(1006, now=10.0)
    fifth = ask(client, publish(5), now=10.0)
    with pytest.raises(QueueFull):
        client.request(publish(6), now=10.0)
    assert reconnect(client, 11.0, welcome("c2", session_epoch="t"))[0] == Refused(fourth, "connection_lost", LOST)
    sixth = ask(client, publish(6), now=11.0)
    with pytest.raises(QueueFull):
        client.request(publish(7), now=11.0)
    assert (second, third, fifth, sixth) == ("0-2", "0-5", "0-7", "0-8")


def test_queue_limits_publications_too_while_offline() -> None:
    client = connecting(queue_size=1)
    ask(client, publish(1))
    with pytest.raises(QueueFull, match="1 messages"):
        client.request(publish(2), now=0.0)
    client.receive_text(welcome(), now=0.0)
    assert ask(client, publish(2)) == "0-2"


def test_end_tells_what_became_of_publications() -> None:
    client = connected()
    under_way = ask(client, publish(1))
    client.lost(1006, now=0.0)
    queued = ask(client, publish(2))
    assert client.send(Disconnect(), now=0.0) == [
        Refused(under_way, "connection_lost", LOST),
        Refused(queued, "not_sent", UNSENT),
        Ended(CloseCode.NORMAL_CLOSURE, "", unsent=0),
    ]
    client = connected()
    under_way = ask(client, publish(1))
    assert client.lost(4401, "expired", now=0.0) == [
        Refused(under_way, "connection_lost", LOST),
        Ended(4401, "expired", unsent=0),
    ]
    client = connected()
    under_way, call = ask(client, publish(1)), ask(client, Request("ping"))
    assert client.send(Disconnect(), now=0.0) == [
        Drop(CloseCode.NORMAL_CLOSURE, ""),
        Refused(call, "connection_lost", LOST),
        Refused(under_way, "connection_lost", LOST),
        Ended(CloseCode.NORMAL_CLOSURE, "", unsent=0),
    ]


def test_refusal_tells_when_to_try_again() -> None:
    client = connected()
    token = ask(client, publish(1))
    refusal = {"type": "error", "id": token, "code": "rate_limited", "message": "wait", "retry_after": 2}
    assert hear(client, refusal) == [Refused(token, "rate_limited", "wait", 2.0)]


# Publications of its own that a client does not want to hear


def test_silent_publication_leaves_no_hole() -> None:
    client = member(5)
    token, effects = client.request(publish(1, echo=False), now=0.0)
    assert effects == [sent(1, token, echo=False)]
    assert client.receive_text(response(token, receipt(6)), now=0.0) == [Answered(token, receipt(6))]
    assert client.position("a") == ("e", 6)
    assert hear(client, message(7)) == heard(7)


@pytest.mark.parametrize("data", [None, {}, receipt(6, "other"), receipt(5), receipt(3)])
def test_acknowledgement_that_tells_nothing_new_moves_nothing(data: object) -> None:
    client = member(5)
    token = ask(client, publish(1, echo=False))
    assert client.receive_text(response(token, data), now=0.0) == [Answered(token, data)]
    assert client.position("a") == ("e", 5)
    assert hear(client, message(6)) == heard(6)


def test_silent_publication_is_not_heard_in_a_replay() -> None:
    client = member(5)
    token = ask(client, publish(1, echo=False))
    client.lost(1006, now=0.0)
    assert reconnect(client, 1.0, KNOWN) == [rejoin("0-3", 5), sent(1, token, echo=False)]
    client.receive_text(response("0-3", standing(8, recovered=True, replayed=3)), now=1.0)
    assert hear(client, message(6), message(7, id=token), message(8)) == heard(6, 8)
    assert client.receive_text(response(token, receipt(7)), now=1.0) == [Answered(token, receipt(7))]
    assert hear(client, message(9)) == heard(9)


def test_silent_publication_is_not_heard_in_what_comes_without_a_join() -> None:
    client = connected(hello=welcome(last_event_id="i-3"))
    token = ask(client, Publish({"type": "m", "recipient_id": "ann", "echo": False}))
    client.lost(1006, now=0.0)
    hello = welcome("c2", last_event_id="i-3")
    assert len(reconnect(client, 1.0, hello, token="i-3")) == 1
    assert hear(client, message(1, "u", seq=4, id=token), message(2, "u", seq=5)) == heard(2, epoch="u", seq=5)
    # A message that is no publication is nobody's own.
    said: dict[str, object] = {"type": "m", "id": token}
    assert hear(client, said) == [MessageReceived(said)]
    client.lost(1006, now=1.0)
    unknown = welcome("c2", session_epoch="t")
    assert reconnect(client, 2.0, unknown, token="i-5") == [Refused(token, "connection_lost", LOST)]


def test_silent_publications_ahead_of_the_position_wait_for_it() -> None:
    client = member(5)
    tokens = [ask(client, publish(n, echo=False)) for n in (1, 2, 3)]
    # Something before them has got lost.
    for token, offset in zip(tokens, (7, 8, 10), strict=True):
        client.receive_text(response(token, receipt(offset)), now=0.0)
    assert client.position("a") == ("e", 5)
    assert hear(client, message(11)) == [rejoin("0-5", 5)]
    client.receive_text(response("0-5", standing(11, recovered=True, replayed=6)), now=0.0)
    assert hear(client, message(6)) == heard(6)
    assert client.position("a") == ("e", 8)
    assert hear(client, message(7), message(8), message(9), message(10), message(11)) == heard(9, 11)


def test_silent_publication_acknowledged_while_something_is_asked_for() -> None:
    client = member(5)
    token = ask(client, publish(1, echo=False))
    assert hear(client, message(7)) == [rejoin("0-3", 5)]
    client.receive_text(response(token, receipt(6)), now=0.0)
    # What was asked for begins after this.
    assert client.position("a") == ("e", 5)
    client.receive_text(response("0-3", standing(7, recovered=True, replayed=2)), now=0.0)
    assert hear(client, message(6), message(7), message(8)) == heard(7, 8)


def test_gap_that_ends_before_a_silent_publication() -> None:
    client = member(5)
    first, second = ask(client, publish(1, echo=False)), ask(client, publish(2, echo=False))
    client.receive_text(response(first, receipt(8)), now=0.0)
    client.receive_text(response(second, receipt(9)), now=0.0)
    said = gap("a", 7, reason="slow_consumer")
    assert hear(client, said.message) == [said]
    assert client.position("a") == ("e", 9)
    assert hear(client, message(10)) == heard(10)


def test_gap_that_ends_before_a_silent_publication_while_something_is_asked_for() -> None:
    client = member(5)
    token = ask(client, publish(1, echo=False))
    assert hear(client, message(9)) == [rejoin("0-3", 5)]
    client.receive_text(response(token, receipt(8)), now=0.0)
    hear(client, gap("a", 7, reason="slow_consumer").message)
    assert client.position("a") == ("e", 7)
    client.receive_text(response("0-3", standing(9, recovered=True, replayed=4)), now=0.0)
    assert hear(client, *map(message, range(6, 11))) == heard(9, 10)


@pytest.mark.parametrize("acknowledged", [True, False])
def test_silent_publication_after_a_hole_that_stays(acknowledged: bool) -> None:
    client = member(5)
    token = ask(client, publish(1, echo=False))
    if acknowledged:
        client.receive_text(response(token, receipt(7)), now=0.0)
    assert hear(client, message(8)) == [rejoin("0-3", 5)]
    client.receive_text(response("0-3", standing(8, recovered=True, replayed=3)), now=0.0)
    # 6 has got lost again.
    assert hear(client, message(7, id=token), message(8)) == [gap("a", 6), *heard(8)]


def test_silent_publication_comes_after_what_is_kept_for_later_joiners() -> None:
    client = member(5, replayed=3)
    assert hear(client, message(1)) == heard(1)
    token = ask(client, publish(1, echo=False, persistent=True))
    client.receive_text(response(token, receipt(6)), now=0.0)
    # Not even it is told as one that was kept.
    client.lost(1006, now=0.0)
    assert reconnect(client, 1.0) == [rejoin("0-3", 6)]


def test_silent_publications_in_a_filtered_channel_move_the_position() -> None:
    client = connected()
    join = ask(client, Join("a", {"filters": {"types": ["m"]}}))
    client.receive_text(response(join, standing(5)), now=0.0)
    for offset in (8, 11):
        client.receive_text(response(ask(client, publish(offset, echo=False)), receipt(offset)), now=0.0)
        assert client.position("a") == ("e", offset)
    assert hear(client, message(11), message(13)) == heard(13)


def test_silent_publication_that_is_given_up_is_heard_if_it_was_made() -> None:
    client = member(5)
    token = ask(client, publish(1, echo=False))
    assert client.handle_timeout(now=10.0) == [Refused(token, "timeout", LATE)]
    assert hear(client, message(7)) == [rejoin("0-3", 5)]
    client.receive_text(response("0-3", standing(7, recovered=True, replayed=2)), now=10.0)
    assert hear(client, message(6, id=token), message(7)) == [*heard(6, id=token), *heard(7)]
