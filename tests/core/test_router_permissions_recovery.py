"""The router: what somebody who may not know what was said learns of it by coming back, or by saying it again."""

from __future__ import annotations

import json

import pytest

from rtcore.channels import BROADCAST, user_channel
from rtcore.encoded import Encoded
from rtcore.errors import Refusal
from rtcore.namespaces import Access, Namespace
from rtcore.permissions import EVERYTHING, OPEN, Grant
from rtcore.router import (
    Deliver,
    Gap,
    Joined,
    Publish,
    Published,
    Recovered,
    Refused,
    Request,
    Resumption,
    Since,
    Subscribe,
)
from rtcore.tokens import Token

from .grant_talk import NOBODY, NOTHING, Granted, only
from .node_talk import joined, published

C1, C2 = Request("c1", "r1"), Request("c2", "r2")
FORGETFUL = Grant(history=NOTHING)
CHAT_ONLY = Grant(subscribe=only("chat"), publish=only("chat"), history=only("chat"), presence=only("chat"))


def quiet(*namespaces: Namespace) -> Granted:
    """Return a router that nobody is in, whose channels know no members: e.1 is the epoch of its first."""
    return Granted(*namespaces, presence=False)


def numbers(replay: tuple[Encoded, ...]) -> list[int]:
    """Return the numbers of publications, of all in the router."""
    return [int(json.loads(each.json)["meta"]["id"].removeprefix("e-")) for each in replay]


def heard(granted: Granted, *, since: Since | None, grant: Grant = FORGETFUL) -> tuple[bool | None, list[int]]:
    """Return what somebody new is told of the channel ``chat``: whether that is all, and the numbers."""
    granted.router.attach("c1", None, grant=grant, now=granted.now)
    answer, *replay = granted.send(Subscribe("chat", C1, since))
    granted.detach("c1")
    assert isinstance(answer, Joined)
    assert answer.recovered.replayed == len(replay)
    return answer.recovered.complete, numbers(tuple(each.message for each in replay if isinstance(each, Deliver)))


# By channel


@pytest.mark.parametrize(
    ("since", "told"),
    [
        (None, (None, [2])),
        (Since("e.1", 3), (True, [])),  # nothing was said since then
        (Since("e.1", 2), (False, [])),
        (Since("e.1", 1), (False, [2])),  # what is kept for those who join
        (Since("e.1", 0), (False, [2])),
        (Since("e.1", 4), (False, [])),
        (Since("e.9", 3), (False, [2])),
        (Since("e.1", 3, persistent=0), (True, [2])),
        (Since("e.1", 3, persistent=2), (True, [])),
        (Since("e.1", 2, persistent=0), (False, [2])),
    ],
)
def test_what_was_said_is_not_told_to_who_may_not_know_it(
    since: Since | None, told: tuple[bool | None, list[int]]
) -> None:
    granted = quiet()
    granted.say("chat")
    granted.say("chat", persistent=True)
    granted.say("chat")
    assert heard(granted, since=since) == told


def test_who_may_know_is_told() -> None:
    granted = quiet()
    granted.say("chat")
    granted.say("chat")
    for since in range(3):
        told = list(range(since + 1, 3))
        assert heard(granted, since=Since("e.1", since), grant=Grant(history=only("ch*"))) == (True, told)


def test_rights_that_were_lost_and_came_back_are_those_of_the_moment() -> None:
    granted = quiet()
    granted.come("c1", None, "chat", grant=OPEN)
    granted.say("chat")
    granted.regrant("c1", FORGETFUL)
    granted.say("chat")
    since = Since("e.2", 0)
    only_c1 = ("c1",)
    assert granted.send(Subscribe("chat", C1, since)) == [Joined(C1, "chat", 2, "e.2", Recovered(False, 0), None)]
    granted.regrant("c1", OPEN)
    assert granted.send(Subscribe("chat", C1, since)) == [
        Joined(C1, "chat", 2, "e.2", Recovered(True, 2), None),
        *(Deliver(published({"type": "text", "channel": "chat"}, n, "e.2", n), only_c1) for n in (1, 2)),
    ]


@pytest.mark.parametrize(("since", "complete"), [(1, False), (2, True), (3, False)])
def test_nor_who_came_and_went(since: int, complete: bool) -> None:
    granted = Granted()
    granted.come("c2", "bob", "chat", grant=OPEN)
    granted.come("c1", None, "chat", grant=FORGETFUL)
    # Who is there it may know, and so where that stands.
    assert granted.send(Subscribe("chat", C1, changes_since=Since("e.3p", since))) == [
        joined(C1, "chat", 0, "e.3", ("bob", "c2"), (None, "c1"), changes=2, changes_complete=complete)
    ]


def test_who_may_not_know_who_is_there_is_told_no_changes_either() -> None:
    granted = Granted()
    granted.come("c2", "bob", "chat", grant=OPEN)
    granted.come("c1", None, "chat", grant=Grant(presence=NOTHING))
    granted.say("chat")
    answer, *replay = granted.send(Subscribe("chat", C1, Since("e.3", 0), Since("e.3p", 0)))
    assert answer == Joined(C1, "chat", 1, "e.3", Recovered(True, 1), None)
    assert len(replay) == 1


# By token


def resume(
    granted: Granted, token: str, *channels: str, grant: Grant = FORGETFUL, user_id: str | None = None
) -> Resumption:
    granted.router.attach("c1", user_id, grant=grant, now=granted.now)
    for channel in channels:
        granted.send(Subscribe(channel, Request("c1"), replays=False))
    resumption = granted.router.resume("c1", token, now=granted.now)
    granted.detach("c1")
    return resumption


def test_a_gap_tells_of_what_one_may_not_know() -> None:
    granted = quiet()
    for channel in ("chat", "news", "chat", "news"):
        granted.say(channel)
    granted.say("chat", persistent=True)
    granted.say("news")
    reads_news = Grant(history=only("news"))
    found = resume(granted, "e-2", "chat", "news", grant=reads_news)
    assert (found.position, found.recovered, found.end) == (Token("e", 2), False, Token("e", 6))
    # Up to the present, so nothing of it that is still held can follow; but what is kept for those who join does.
    assert found.gaps == (Gap("chat", "e.1", 3, "history_denied"),)
    assert numbers(found.replay) == [4, 5, 6]
    assert not found.continues("chat")
    assert found.continues("news")


def test_there_is_no_gap_where_nothing_was_said() -> None:
    granted = quiet()
    granted.say("chat", persistent=True)
    granted.say("news")
    assert resume(granted, "e-1", "chat") == Resumption(Token("e", 1), True, (), (), Token("e", 2))
    # What was kept and has not come yet comes still.
    found = resume(granted, "e-2.0", "chat")
    assert (found.recovered, found.gaps, [each.id for each in found.replay]) == (True, (), ["e-2.1"])


def test_one_that_is_told_of_a_gap_goes_on_from_any_place_after_it() -> None:
    granted = quiet()
    for _ in range(3):
        granted.say("chat")
        granted.say("news")
        granted.say("chat", persistent=True)
    reads_news = Grant(history=only("news"))
    first = resume(granted, "e-1", "chat", "news", grant=reads_news)
    told = numbers(first.replay)
    assert told == [2, 3, 5, 6, 8, 9]
    for cut, each in enumerate(first.replay):
        again = resume(granted, str(each.id), "chat", "news", grant=reads_news)
        assert numbers(again.replay) == told[cut + 1 :]
        assert again.recovered is (told[cut] == 9)


def test_a_token_that_says_nothing_gives_nothing() -> None:
    granted = quiet()
    granted.say("chat")
    for token, reason in (("f-1", "foreign_token"), ("e-9", "invalid_token"), ("?", "invalid_token")):
        found = resume(granted, token, "chat")
        gaps = {gap.channel: gap.reason for gap in found.gaps}
        assert (gaps, found.replay) == ({BROADCAST: reason, "chat": reason}, ())


@pytest.mark.parametrize(
    ("grant", "told"),
    [
        (OPEN, [4, 5, 6]),
        (FORGETFUL, [4]),
        (Grant(presence=NOTHING), [4, 5]),
        (Grant(presence=NOTHING, history=NOTHING), [4]),
    ],
)
def test_a_token_gives_only_the_changes_that_one_may_know(grant: Grant, told: list[int]) -> None:
    granted = Granted()
    granted.come("c2", "bob", "chat", grant=OPEN)
    granted.say("chat")
    granted.say(BROADCAST)
    granted.say(BROADCAST)
    granted.say("chat")
    granted.come("c3", None, "chat", grant=OPEN)
    found = resume(granted, "e-3", "chat", grant=grant)
    # Its own coming is one of them.
    assert numbers(found.replay) == told + ([7] if told == [4, 5, 6] else [])
    assert found.gaps == (() if 5 in told else (Gap("chat", "e.3", 2, "history_denied"),))


def test_what_is_said_to_oneself_and_to_everybody_is_told_whatever_one_may_know() -> None:
    granted = quiet()
    for channel in (user_channel("ann"), BROADCAST, "chat"):
        granted.say(channel)
    found = resume(granted, "e-0", "chat", grant=CHAT_ONLY, user_id="ann")
    assert (found.recovered, numbers(found.replay)) == (True, [1, 2, 3])
    found = resume(granted, "e-0", grant=FORGETFUL, user_id="ann")
    assert (found.recovered, numbers(found.replay)) == (True, [1, 2])


def test_a_namespace_may_keep_even_that_back() -> None:
    granted = quiet(
        Namespace(pattern="$user:*", history_access=Access.SERVER),
        Namespace(pattern="$broadcast", history_access=Access.USERS),
    )
    granted.say(user_channel("ann"))
    granted.say(BROADCAST)
    found = resume(granted, "e-0", grant=OPEN, user_id="ann")
    assert found.gaps == (Gap("$user:ann", "e.1", 1, "history_denied"),)
    assert numbers(found.replay) == [2]
    assert resume(granted, "e-0", grant=OPEN).gaps == (Gap(BROADCAST, "e.2", 1, "history_denied"),)
    assert resume(granted, "e-0", grant=EVERYTHING, user_id="ann").gaps == ()


def test_a_stream_of_the_servers_own_is_taken_up_whatever_one_may_know() -> None:
    granted = quiet()
    granted.come("c1", None, grant=CHAT_ONLY)
    granted.send(Subscribe("$room:r", C1, builtin=True))
    granted.say("$room:r")
    again = Subscribe("$room:r", C1, Since("e.2", 0), builtin=True)
    answer, *replay = granted.send(again)
    assert answer == Joined(C1, "$room:r", 1, "e.2", Recovered(True, 1), None)
    assert len(replay) == 1


# Publishing once


def post(
    granted: Granted,
    channel: str,
    id: str,
    *,
    user_id: str | None = None,
    publisher: str | None = None,
    grant: Grant | None = OPEN,
) -> Published | Refusal:
    """Publish without a connection."""
    request = Request(None, id)
    command = Publish(channel, {"type": "text"}, request, user_id=user_id, grant=grant, publisher=publisher)
    outcome = granted.send(command)[-1]
    if isinstance(outcome, Refused):
        return outcome.refusal
    assert isinstance(outcome, Published)
    assert outcome.request == request
    return outcome


def test_a_user_and_a_key_publish_once_without_a_connection() -> None:
    granted = quiet()
    ann, bob, key, other = {"user_id": "ann"}, {"user_id": "bob"}, {"publisher": "ann"}, {"publisher": "bob"}
    first = [post(granted, "chat", "1", **who) for who in (ann, bob, key, other)]
    assert [getattr(each, "offset", 0) for each in first] == [1, 2, 3, 4]
    for who, outcome in zip((ann, bob, key, other), first, strict=True):
        assert isinstance(outcome, Published)
        assert post(granted, "chat", "1", **who) == Published(
            Request(None, "1"), outcome.id, "chat", outcome.offset, outcome.epoch, repeated=True
        )
    # What a key publishes in the name of a user is the key's.
    assert post(granted, "chat", "1", user_id="ann", publisher="third") != first[0]
    assert getattr(post(granted, "chat", "1", user_id="cid", publisher="bob"), "offset", 0) == 4
    # Nobody in particular repeats what they like, and so does who says no id.
    assert [getattr(post(granted, "chat", "1"), "offset", 0) for _ in range(2)] == [6, 7]
    by_ann = Publish("chat", {"type": "text"}, NOBODY, user_id="ann", grant=OPEN)
    assert [granted.send(by_ann)[-1] for _ in range(2)] == [
        Published(NOBODY, f"e-{offset}", "chat", offset, "e.1") for offset in (8, 9)
    ]


def test_the_connections_of_a_user_and_the_rest_of_the_user_are_one_publisher() -> None:
    granted = quiet()
    granted.come("c1", "ann", grant=OPEN)
    first = granted.send(Publish("chat", {"type": "text"}, C1))[-1]
    assert isinstance(first, Published)
    assert getattr(post(granted, "chat", "r1", user_id="ann"), "repeated", None) is True
    assert getattr(post(granted, "chat", "2", user_id="ann"), "repeated", None) is False
    again = granted.send(Publish("chat", {"type": "text"}, Request("c1", "2")))[-1]
    assert isinstance(again, Published)
    assert (again.offset, again.repeated) == (2, True)


def test_a_publisher_without_a_connection_is_remembered_for_the_window() -> None:
    granted = quiet()
    for at in (100.0, 200.0):
        granted.wait_until(at)
        post(granted, "chat", str(at), user_id="ann")
    granted.wait_until(400.0)
    assert getattr(post(granted, "chat", "100.0", user_id="ann"), "repeated", None) is True
    granted.wait_until(499.0)
    assert getattr(post(granted, "chat", "200.0", user_id="ann"), "repeated", None) is True
    granted.wait_until(500.0)
    assert getattr(post(granted, "chat", "200.0", user_id="ann"), "repeated", None) is False
    granted.wait_until(1e6)
    assert granted.router.empty


def test_what_was_published_is_acknowledged_again_to_who_may_no_longer() -> None:
    granted = quiet()
    granted.come("c1", "ann", grant=OPEN)
    first = granted.send(Publish("chat", {"type": "text"}, C1))[-1]
    nothing = Grant(publish=NOTHING)
    granted.regrant("c1", nothing)
    repeated = granted.send(Publish("chat", {"type": "text"}, C1))
    assert isinstance(first, Published)
    assert repeated == [Published(C1, first.id, "chat", 1, first.epoch, repeated=True)]
    # By the user's other clients too.
    assert getattr(post(granted, "chat", "r1", user_id="ann", grant=nothing), "repeated", None) is True
    assert getattr(post(granted, "chat", "r2", user_id="ann", grant=nothing), "code", "") == "publish_denied"


def test_an_id_tells_nothing_of_what_another_client_of_the_user_has_said_where_one_may_not() -> None:
    granted = quiet()
    granted.come("c1", "ann", grant=OPEN)
    granted.come("c2", "ann", grant=CHAT_ONLY)
    assert isinstance(granted.send(Publish("secret", {"type": "text"}, Request("c1", "1")))[-1], Published)
    assert granted.router.recall(Request("c2", "1"), channel="chat", now=granted.now) is None
    assert getattr(post(granted, "news", "1", user_id="ann", grant=CHAT_ONLY), "code", "") == "publish_denied"
    outcome = granted.send(Publish("chat", {"type": "text"}, Request("c2", "1")))[-1]
    assert isinstance(outcome, Published)
    assert (outcome.channel, outcome.repeated) == ("chat", False)
    # Each knows its own.
    for connection_id, channel in (("c1", "secret"), ("c2", "chat")):
        known = granted.router.recall(Request(connection_id, "1"), channel="chat", now=granted.now)
        assert known is not None
        assert (known.channel, known.repeated) == (channel, True)


def test_what_is_recalled_of_another_client_of_the_user() -> None:
    granted = quiet()
    granted.come("c1", "ann", grant=OPEN)
    granted.come("c2", "ann", grant=OPEN)

    def recalled(id: str, channel: str | None) -> str | None:
        known = granted.router.recall(Request("c2", id), channel=channel, now=granted.now)
        return None if known is None else known.channel

    for name, builtin in (("chat", False), ("$connection:c1", False), ("$room:r", True)):
        granted.send(Publish(name, {"type": "text"}, Request("c1", name), builtin=builtin))
    # A stream of a room is nothing that one may publish to by name, so only a signal is taken for one.
    assert recalled("$room:r", "chat") is None
    assert recalled("$room:r", None) == "$room:r"
    assert recalled("$connection:c1", "$connection:c2") == "$connection:c1"
    assert recalled("chat", "chat") == "chat"
    assert granted.router.recall(NOBODY, now=granted.now) is None
    assert granted.router.recall(Request("c1"), now=granted.now) is None
