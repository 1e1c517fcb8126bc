"""The client's machine: what a server refuses for now, and is asked for again once it is said to be time."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtcore.client import (
    Answered,
    Client,
    Disconnect,
    Drop,
    Effect,
    Ended,
    Join,
    Leave,
    Lost,
    Publish,
    Refused,
    Rejoined,
    RejoinRefused,
    SendText,
)

from .client_talk import (
    LATE,
    LOST,
    ask,
    command,
    connected,
    connecting,
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

JOINED = "the channel was joined again before it was left"


def wait(token: str, retry_after: float | None = 2.0) -> str:
    """Return the refusal of somebody who talks too fast."""
    return error(token, "rate_limited", "wait", retry_after=retry_after)


def back(offset: int = 5) -> Client:
    """Return a client that has lost its connection, and asks at 1.0 by "0-2" to be let in again."""
    client = member(offset)
    client.lost(None, now=0.0)
    assert reconnect(client, 1.0) == [rejoin("0-2", offset)]
    return client


def rejoin_after(token: str, since: object, data: dict[str, object]) -> SendText:
    fields = {**data, "channel": "a", "since": since}
    return command("join_channel", fields, token)


# Memberships that are to stand again


def test_rejoin_is_asked_for_again() -> None:
    client = back()
    assert client.receive_text(wait("0-2"), now=1.5) == []
    assert (client.channels, client.position("a")) == (("a",), ("e", 5))
    assert client.next_timeout() == 3.5
    assert client.handle_timeout(now=3.4) == []
    assert client.handle_timeout(now=3.5) == [rejoin("0-2", 5)]
    # As with any other, there is no limit to the wait for its answer.
    assert client.next_timeout() is None
    assert client.receive_text(wait("0-2", 1.0), now=4.0) == []
    assert client.handle_timeout(now=5.0) == [rejoin("0-2", 5)]
    answer = standing(5, recovered=True)
    assert client.receive_text(response("0-2", answer), now=5.0) == [Rejoined("a", answer)]
    assert client.next_timeout() is None


def test_rejoins_are_asked_for_again_in_order() -> None:
    client = connected()
    for channel in "bac":
        client.receive_text(response(ask(client, Join(channel))), now=0.0)
    client.lost(None, now=0.0)
    again = [join("b", "0-4"), join("a", "0-5"), join("c", "0-6")]
    assert reconnect(client, 1.0) == again
    for token in ("0-4", "0-5", "0-6"):
        client.receive_text(wait(token), now=1.0)
    assert client.handle_timeout(now=3.0) == again


@pytest.mark.parametrize("code", ["rate_limited", "forbidden"])
def test_rejoin_that_is_refused_for_good_is_given_up(code: str) -> None:
    client = back()
    client.receive_text(wait("0-2"), now=1.0)
    client.handle_timeout(now=3.0)
    assert client.receive_text(error("0-2", code), now=3.0) == [RejoinRefused("a", code, "no")]
    assert (client.channels, client.next_timeout()) == ((), None)


@pytest.mark.parametrize("retry_after", [0, 0.1])
def test_server_is_not_asked_as_fast_as_it_refuses(retry_after: float) -> None:
    client = back()
    client.receive_text(wait("0-2", retry_after), now=1.0)
    # `ClientConfig.backoff_base`.
    assert client.next_timeout() == 1.5


def test_hole_is_asked_for_again_from_where_the_channel_was_heard_by_then() -> None:
    client = member(5)
    assert hear(client, message(7)) == [rejoin("0-2", 5)]
    assert client.receive_text(wait("0-2"), now=0.0) == []
    # What comes meanwhile is left to the replay, and not asked for a second time.
    assert hear(client, message(6), message(8), message(10)) == []
    assert client.handle_timeout(now=2.0) == [rejoin("0-2", 5)]
    answer = standing(10, recovered=True, replayed=5)
    assert client.receive_text(response("0-2", answer), now=2.0) == [Rejoined("a", answer)]
    assert hear(client, *map(message, range(6, 12))) == heard(*range(6, 12))
    assert client.channels == ("a",)


def test_hole_that_is_refused_for_good_at_last_is_a_gap() -> None:
    client = member(5)
    hear(client, message(7))
    client.receive_text(wait("0-2"), now=0.0)
    hear(client, message(9))
    client.handle_timeout(now=2.0)
    assert client.receive_text(error("0-2"), now=2.0) == [gap("a", 9)]
    assert client.channels == ("a",)


@pytest.mark.parametrize("granted", [True, False])
def test_newer_join_comes_before_a_rejoin_that_waits(granted: bool) -> None:
    client = back()
    client.receive_text(wait("0-2"), now=1.0)
    since = {"epoch": "e", "offset": 5}
    assert client.request(Join("a", {"n": 2}), now=2.0) == ("0-3", [join("a", "0-3", since=since, n=2)])
    # Now it would undo the newer one.
    assert client.handle_timeout(now=3.0) == []
    assert client.next_timeout() == 5.0
    if granted:
        client.receive_text(response("0-3", standing(5, recovered=True)), now=3.0)
    else:
        assert client.receive_text(error("0-3"), now=3.0) == [Refused("0-3", "forbidden", "no")]
    assert client.channels == ("a",)
    # It asks for the same as the newest that was granted.
    newest = {"n": 2} if granted else {}
    assert client.handle_timeout(now=5.0) == [rejoin_after("0-2", since, newest)]
    client.receive_text(response("0-2", standing(5, recovered=True)), now=5.0)
    assert client.channels == ("a",)
    client.lost(None, now=5.0)
    assert len(reconnect(client, 6.0)) == 1


def test_leave_takes_a_rejoin_that_waits_away() -> None:
    client = back()
    client.receive_text(wait("0-2"), now=1.0)
    assert client.request(Leave("a"), now=2.0) == ("0-3", [leave("a", "0-3")])
    assert client.receive_text(response("0-3"), now=2.0) == [Answered("0-3", None)]
    assert client.next_timeout() is None
    # It stands in no later join's way.
    client.receive_text(response(ask(client, Join("a"), 2.0), standing(9)), now=2.0)
    assert hear(client, message(11), now=2.0) == [rejoin("0-5", 9)]


def test_rejoin_refused_after_a_leave_is_not_asked_for_again() -> None:
    client = back()
    ask(client, Leave("a"), 1.0)
    assert client.receive_text(wait("0-2"), now=1.0) == []
    assert client.receive_text(response("0-3"), now=1.0) == [Answered("0-3", None)]
    assert client.next_timeout() is None


@pytest.mark.parametrize("farewell", [False, True])
def test_rejoin_that_waits_is_asked_for_on_the_next_connection(farewell: bool) -> None:
    client = back()
    client.receive_text(wait("0-2"), now=1.0)
    if farewell:
        client.receive_text(text({"type": "disconnect", "code": 1012}), now=2.0)
        assert client.handle_timeout(now=3.0) == []
        assert client.next_timeout() is None
    assert client.lost(1012, now=3.0) == [Lost(1012, "", 3.5)]
    assert reconnect(client, 4.0) == [rejoin("0-3", 5)]
    assert client.next_timeout() is None


def test_first_join_is_refused_at_once() -> None:
    client = connected()
    token = ask(client, Join("a"))
    assert client.receive_text(wait(token), now=0.0) == [Refused(token, "rate_limited", "wait", 2.0)]
    assert (client.channels, client.next_timeout()) == ((), None)


# Memberships that are to end


def test_leave_is_asked_for_again() -> None:
    client = member(5)
    token = ask(client, Leave("a"))
    assert client.receive_text(wait(token), now=1.0) == []
    assert (client.channels, client.next_timeout()) == ((), 3.0)
    assert client.handle_timeout(now=3.0) == [leave("a", token)]
    assert client.next_timeout() == 13.0
    assert client.receive_text(response(token), now=4.0) == [Answered(token, None)]
    assert client.next_timeout() is None


def test_leave_without_an_answer_is_still_wanted() -> None:
    client = member(5)
    token = ask(client, Leave("a"))
    assert client.handle_timeout(now=10.0) == [Refused(token, "timeout", LATE)]
    assert client.receive_text(wait(token), now=11.0) == []
    assert client.handle_timeout(now=13.0) == [leave("a", token)]
    assert client.next_timeout() is None
    assert client.receive_text(response(token), now=13.0) == []


def test_leave_that_is_refused_for_good_is_refused() -> None:
    client = member(5)
    token = ask(client, Leave("a"))
    client.receive_text(wait(token), now=0.0)
    client.handle_timeout(now=2.0)
    assert client.receive_text(error(token), now=2.0) == [Refused(token, "forbidden", "no")]
    assert client.next_timeout() is None


def test_leave_that_waits_is_carried_out_by_a_loss() -> None:
    client = member(5)
    token = ask(client, Leave("a"))
    client.receive_text(wait(token), now=0.0)
    assert client.lost(None, now=1.0) == [Answered(token, {"channel": "a"}), Lost(None, "", 1.25)]
    assert reconnect(client, 2.0) == []
    assert client.next_timeout() is None


def test_leave_that_waits_has_an_outcome_at_the_end() -> None:
    client = member(5)
    token = ask(client, Leave("a"))
    client.receive_text(wait(token), now=0.0)
    effects = client.send(Disconnect(), now=1.0)
    assert effects == [Drop(1000, ""), Answered(token, {"channel": "a"}), Ended(1000, "", 0)]


@pytest.mark.parametrize("order", ["before", "after"])
def test_join_overtakes_a_leave_that_waits(order: str) -> None:
    client = member(5)
    leaving = ask(client, Leave("a"))
    joining = ask(client, Join("a")) if order == "before" else ""
    client.receive_text(wait(leaving), now=0.0)
    joining = joining or ask(client, Join("a"))
    # The join is not decided.
    assert client.handle_timeout(now=2.0) == []
    assert client.next_timeout() == 4.0
    client.receive_text(response(joining, standing(6)), now=3.0)
    assert client.handle_timeout(now=4.0) == [Refused(leaving, "joined", JOINED)]
    assert (client.channels, client.next_timeout()) == (("a",), None)


def test_leave_that_waits_outlives_a_join_that_is_refused() -> None:
    client = member(5)
    leaving, joining = ask(client, Leave("a")), ask(client, Join("a"))
    client.receive_text(wait(leaving), now=0.0)
    client.receive_text(wait(joining), now=0.0)
    # On the server the first membership stands.
    assert client.handle_timeout(now=2.0) == [leave("a", leaving)]


# Leaves of the machine's own


def test_channel_of_the_url_is_left_at_last() -> None:
    client = connected(hello=welcome(channels=["url"]))
    client.receive_text(response(ask(client, Leave("url"))), now=0.0)
    client.lost(None, now=0.0)
    assert reconnect(client, 1.0, welcome("c2", channels=["url"])) == [leave("url", "0-2")]
    # Nobody waits for this.
    assert client.next_timeout() is None
    assert client.receive_text(wait("0-2"), now=1.0) == []
    assert client.handle_timeout(now=3.0) == [leave("url", "0-2")]
    assert client.receive_text(error("0-2"), now=3.0) == []
    assert client.next_timeout() is None


def test_channel_of_the_url_that_is_joined_meanwhile_is_not_left() -> None:
    client = connected(hello=welcome(channels=["url"]))
    client.receive_text(response(ask(client, Leave("url"))), now=0.0)
    client.lost(None, now=0.0)
    reconnect(client, 1.0, welcome("c2", channels=["url"]))
    client.receive_text(wait("0-2"), now=1.0)
    client.receive_text(response(ask(client, Join("url"), 1.0)), now=1.0)
    assert client.handle_timeout(now=3.0) == []
    assert (client.channels, client.next_timeout()) == (("url",), None)


def test_channel_of_the_url_is_left_again_if_it_is_not_to_be_joined_after_all() -> None:
    client = connected(hello=welcome(channels=["url"]))
    client.receive_text(response(ask(client, Leave("url"))), now=0.0)
    joining = ask(client, Join("url"))
    client.lost(None, now=0.0)
    assert reconnect(client, 1.0, welcome("c2", channels=["url"])) == [join("url", joining)]
    refused = Refused(joining, "rate_limited", "wait", 2.0)
    assert client.receive_text(wait(joining), now=1.0) == [refused, leave("url", "0-3")]
    again = ask(client, Join("url"), 1.0)
    assert client.receive_text(error(again), now=1.0) == [Refused(again, "forbidden", "no")]


def test_loss_takes_leaves_of_the_machines_own_away() -> None:
    client = connected(hello=welcome(channels=["url"]))
    client.receive_text(response(ask(client, Leave("url"))), now=0.0)
    client.lost(None, now=0.0)
    reconnect(client, 1.0, welcome("c2", channels=["url"]))
    assert client.lost(None, now=1.0) == [Lost(None, "", 1.5)]
    assert reconnect(client, 2.0, welcome("c2", channels=["url"])) == [leave("url", "0-3")]


def test_channel_of_the_url_may_be_left_before_the_server_has_named_it() -> None:
    client = connecting()
    assert client.request(Leave("url"), now=0.0) == ("0-1", [Answered("0-1", {"channel": "url"})])
    ask(client, Leave("other"))
    assert client.receive_text(welcome(channels=["url"]), now=0.0)[1:] == [leave("url", "0-3")]
    client.lost(None, now=1.0)
    # The server has not joined this one before.
    assert reconnect(client, 2.0, welcome("c2", channels=["url", "other"])) == [leave("url", "0-4")]


def test_channel_of_the_url_that_one_connection_lacks_may_be_left_on_it() -> None:
    client = connected(hello=welcome(channels=["url"]))
    client.lost(None, now=0.0)
    assert reconnect(client, 1.0) == []
    client.receive_text(response(ask(client, Leave("url"), 1.0)), now=1.0)
    client.lost(None, now=1.0)
    assert reconnect(client, 2.0, welcome("c2", channels=["url"])) == [leave("url", "0-2")]


# Publications


@pytest.mark.parametrize("refusal", ["rate_limited", "publish_denied"])
def test_publication_that_was_sent_again_may_have_been_published_before(refusal: str) -> None:
    client = connected()
    token = ask(client, Publish({"channel": "a"}))
    client.lost(None, now=0.0)
    assert reconnect(client, 1.0) == [SendText(text({"channel": "a", "id": token}))]
    assert client.receive_text(error(token, refusal, retry_after=2), now=1.0) == [
        Refused(token, "connection_lost", LOST)
    ]
    assert (client.unacknowledged, client.next_timeout()) == (0, None)


@pytest.mark.parametrize("offline", [False, True])
def test_publication_that_was_sent_once_was_not_published(offline: bool) -> None:
    client = connected()
    if offline:
        client.lost(None, now=0.0)
    token = ask(client, Publish({"channel": "a"}))
    if offline:
        reconnect(client, 1.0)
    assert client.receive_text(wait(token), now=1.0) == [Refused(token, "rate_limited", "wait", 2.0)]


# All together

steps = st.one_of(
    st.sampled_from(["free", "busy", "strict", "answer", "answer all", "wait", "wait long", "lose"]),
    st.sampled_from([Join("url"), Leave("url"), Join("a"), Leave("a")]),
)


class Server:
    """A server that acts and answers in the order of arrival; while busy it refuses for now, while strict for good."""

    def __init__(self) -> None:
        self.mode = "free"
        self.members: dict[str, None] = {}
        self.answers: list[str] = []

    def welcome(self) -> str:
        """Begin on a new connection, with the channel that its URL names."""
        self.members = {"url": None}
        self.answers.clear()
        return welcome(channels=["url"])

    def receive(self, said: str) -> None:
        asked = json.loads(said)
        channel, token = asked["data"]["channel"], asked["id"]
        if self.mode == "busy":
            self.answers.append(wait(token, 1.0))
        elif asked["command"] == "leave_channel":
            self.members.pop(channel, None)
            self.answers.append(response(token, {"channel": channel}))
        elif self.mode == "strict":
            self.answers.append(error(token))
        else:
            self.members[channel] = None
            self.answers.append(response(token, {"channel": channel}))


class Conversation:
    """A client with its user, and a server."""

    def __init__(self) -> None:
        self.now = 0.0
        self.server = Server()
        self.client = connecting()
        # Whether the user has left the channel of the URL, and was not let in again since.
        self.left = False
        self.asked: dict[str, Join | Leave] = {}
        self.overtaken: list[str] = []
        self.perform(self.client.receive_text(self.server.welcome(), now=self.now))

    @property
    def wanted(self) -> list[str]:
        """What the user is to hear."""
        return sorted({*self.client.channels, *([] if self.left else ["url"])})

    def perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case SendText(said):
                    self.server.receive(said)
                case Answered(token) | Refused(token):
                    # Each has one outcome.
                    command = self.asked.pop(token)
                    if command == Join("url") and isinstance(effect, Answered) and token not in self.overtaken:
                        self.left = False
                case _:
                    pass

    def ask(self, command: Join | Leave) -> None:
        token, effects = self.client.request(command, now=self.now)
        self.asked[token] = command
        if command == Leave("url"):
            self.left = True
            self.overtaken += [join for join, each in self.asked.items() if each == Join("url")]
        self.perform(effects)

    def step(self, step: str | Join | Leave) -> None:
        match step:
            case Join() | Leave():
                self.ask(step)
            case "answer" | "answer all":
                for _ in range(1 if step == "answer" else len(self.server.answers)):
                    if self.server.answers:
                        self.perform(self.client.receive_text(self.server.answers.pop(0), now=self.now))
            case "wait" | "wait long":
                self.now += 1.0 if step == "wait" else 10.0
                self.perform(self.client.handle_timeout(now=self.now))
            case "lose":
                self.perform(self.client.lost(None, now=self.now))
                self.client.connect(now=self.now)
                self.client.opened(now=self.now)
                self.perform(self.client.receive_text(self.server.welcome(), now=self.now))
            case mode:
                self.server.mode = mode


@given(st.lists(steps, max_size=25))
def test_server_and_client_agree_once_things_are_quiet(course: list[str | Join | Leave]) -> None:
    conversation = Conversation()
    for step in course:
        conversation.step(step)
    conversation.server.mode = "free"
    for _ in range(5):
        conversation.step("answer all")
        conversation.step("wait")
    assert not conversation.asked
    assert conversation.client.next_timeout() is None
    assert sorted(conversation.server.members) == conversation.wanted
