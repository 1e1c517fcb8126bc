"""The router: what somebody who comes back is told again, by channel and by token."""

from __future__ import annotations

import pytest

from rtcore.channels import BROADCAST, user_channel
from rtcore.encoded import Encoded
from rtcore.filters import Filter
from rtcore.messages import Message
from rtcore.namespaces import Namespace, Namespaces
from rtcore.router import (
    Deliver,
    Effect,
    Gap,
    Joined,
    Publish,
    Recovered,
    Request,
    Resumption,
    RouterConfig,
    Since,
    Subscribe,
    Unsubscribe,
)
from rtcore.tokens import Token

from .node_talk import Routed, published

C1, C2 = Request("c1", "r1"), Request("c2", "r2")
NOBODY = Request(None)
QUIET = Namespace(pattern="*", presence=False, join_leave=False)


def text(channel: str, n: int, *, persistent: bool = False) -> Message:
    message: Message = {"type": "text", "n": n}
    if not channel.startswith("$"):
        message["channel"] = channel
    return {**message, "persistent": True} if persistent else message


class Told(Routed):
    """A router whose channels speak of nothing but publications: each says its number among all of them."""

    def __init__(self, config: RouterConfig | None = None, **options: object) -> None:
        namespaces = Namespaces(default=Namespace(pattern="*", presence=False, **options))  # type: ignore[arg-type]
        super().__init__(config or RouterConfig(namespaces=namespaces))
        self.said: dict[int, Encoded] = {}
        self.offsets: dict[tuple[str, str], int] = {}

    def say(self, *channels: str, persistent: bool = False) -> None:
        for channel in channels:
            n = len(self.said) + 1
            receipt = self.send(Publish(channel, text(channel, n, persistent=persistent), NOBODY))[-1]
            epoch, offset = getattr(receipt, "epoch", ""), getattr(receipt, "offset", 0)
            self.said[n] = published(text(channel, n, persistent=persistent), offset, epoch, n)

    def replay(self, connection_id: str, *numbers: int) -> list[Effect]:
        return [Deliver(self.said[n], (connection_id,)) for n in numbers]

    def join(self, since: Since | None = None, wanted: Filter | None = None) -> tuple[bool | None, list[int], int]:
        """Join ``chat`` anew: whether all was recovered, the offsets of what was replayed, and where it goes on."""
        self.send(Unsubscribe("chat", C1))
        answer, *replayed = self.send(Subscribe("chat", C1, since=since, filter=wanted))
        assert isinstance(answer, Joined)
        offsets = []
        for effect in replayed:
            assert isinstance(effect, Deliver)
            assert effect.connections == ("c1",)
            assert effect.message.source is not None
            offsets.append(effect.message.source.offset)
        assert answer.recovered.replayed == len(offsets)
        return answer.recovered.complete, offsets, answer.offset


def come(routed: Routed, *channels: str, token: str | None, user_id: str | None = None, name: str = "c9") -> Resumption:
    """Connect and join channels, and say what was heard before."""
    routed.attach(name, user_id)
    for channel in channels:
        routed.send(Subscribe(channel, Request(name), replays=False))
    return routed.router.resume(name, token, now=routed.now)


# By channel


def test_what_was_missed_comes_before_anything_live() -> None:
    told = Told()
    told.attach("c1", None)
    told.send(Subscribe("chat", C1))
    told.say("chat", "news", "chat", "chat")
    told.attach("c2", None)
    assert told.send(Subscribe("chat", C2, since=Since("e.2", 1))) == [
        Joined(C2, "chat", 3, "e.2", Recovered(True, 2), None),
        *told.replay("c2", 3, 4),
    ]
    assert told.send(Subscribe("chat", C1, since=Since("e.2", 3))) == [
        Joined(C1, "chat", 3, "e.2", Recovered(True, 0), None)
    ]
    # On a connection that is in the channel already it is the same.
    assert told.send(Subscribe("chat", C1, since=Since("e.2", 2))) == [
        Joined(C1, "chat", 3, "e.2", Recovered(True, 1), None),
        *told.replay("c1", 4),
    ]


def test_it_is_all_of_it_or_none() -> None:
    told = Told(history_size=2)
    told.attach("c1", None)
    told.say("chat", "chat", "chat", "chat")
    assert [told.join(Since("e.2", offset)) for offset in range(6)] == [
        *((False, [], 4), (False, [], 4), (True, [3, 4], 4), (True, [4], 4), (True, [], 4)),
        (False, [], 4),  # never said
    ]


def test_an_epoch_is_a_life() -> None:
    told = Told()
    told.attach("c1", None)
    told.say("chat")
    for epoch in ("e.1", "e.2p", "e.3", "", "f.2"):
        assert told.join(Since(epoch, 0)) == (False, [], 1)
    told.send(Unsubscribe("chat", C1))
    told.wait_until(400.0)
    told.say("chat")
    assert told.join(Since("e.2", 1)) == (False, [], 1)
    assert told.join(Since("e.3", 0)) == (True, [1], 1)


def test_what_is_too_old_is_lost_though_nobody_has_looked() -> None:
    told = Told(history_ttl=60.0)
    told.attach("c1", None)
    told.say("chat")
    told.now = 130.0
    told.say("chat")
    told.now = 160.0
    assert told.join(Since("e.2", 0)) == (False, [], 2)
    assert told.join(Since("e.2", 1)) == (True, [2], 2)


def test_too_much_is_not_replayed_at_once() -> None:
    size = len(published(text("chat", 1), 1, "e.2", 1).json)
    told = Told(RouterConfig(max_replay_bytes=2 * size, namespaces=Namespaces(default=QUIET)))
    told.attach("c1", None)
    told.say("chat", "chat", "chat")
    assert told.join(Since("e.2", 0)) == (False, [], 3)
    assert told.join(Since("e.2", 1)) == (True, [2, 3], 3)


def test_a_joiner_is_told_what_is_kept() -> None:
    told = Told(persistent_size=2, history_size=1)
    told.attach("c1", None)
    told.say("chat", "chat", persistent=True)
    told.say("chat")
    assert told.join() == (None, [1, 2], 3)
    told.say("chat", persistent=True)
    assert told.join() == (None, [2, 4], 4)
    # Who has heard some of it is told the rest, and not all of it again.
    assert told.join(Since("e.2", 0)) == (False, [2, 4], 4)
    assert told.join(Since("e.2", 2)) == (False, [4], 4)
    assert told.join(Since("e.2", 3)) == (True, [4], 4)
    assert told.join(Since("e.2", 4)) == (True, [], 4)
    assert told.join(Since("other", 9)) == (False, [2, 4], 4)


def test_a_joiner_who_was_interrupted_is_told_the_rest_of_what_is_kept() -> None:
    told = Told()
    told.attach("c1", None)
    told.say("chat", "chat", persistent=True)
    told.say("chat")
    told.say("chat", persistent=True)
    told.say("chat")
    assert told.join() == (None, [1, 2, 4], 5)
    told.say("chat")
    for heard, rest in [(0, [1, 2, 4]), (1, [2, 4]), (2, [4]), (3, [4]), (4, []), (5, [])]:
        assert told.join(Since("e.2", 5, heard)) == (True, [*rest, 6], 6)
    # What was said after it came is told once, be it persistent or not.
    told.say("chat", persistent=True)
    assert told.join(Since("e.2", 5, 2)) == (True, [4, 6, 7], 7)
    assert told.join(Since("e.2", 7, 7)) == (True, [], 7)


def test_a_joiner_who_was_interrupted_and_has_missed_too_much() -> None:
    told = Told(history_size=1)
    told.attach("c1", None)
    told.say("chat", "chat", persistent=True)
    told.say("chat", "chat")
    told.say("chat", persistent=True)
    assert told.join(Since("e.2", 2, 1)) == (False, [2, 5], 5)


def test_a_channel_of_last_values_tells_the_last() -> None:
    told = Told(last_value=True)
    told.attach("c1", None)
    told.say("chat", "chat")
    assert told.join() == (None, [2], 2)
    assert told.join(Since("e.2", 1)) == (True, [2], 2)
    assert told.join(Since("e.2", 2)) == (True, [], 2)


def test_only_what_is_wanted_is_replayed() -> None:
    told = Told()
    told.attach("c1", None)
    told.say("chat")
    told.send(Publish("chat", {"type": "alert", "channel": "chat"}, NOBODY))
    told.say("chat")
    assert told.join(Since("e.2", 0), Filter(types=("alert",))) == (True, [2], 3)
    assert told.join(Since("e.2", 0), Filter(types=())) == (True, [], 3)
    assert told.join(Since("e.2", 2), Filter(types=("text",))) == (True, [3], 3)


def test_what_is_kept_must_be_wanted_too() -> None:
    told = Told()
    told.attach("c1", None)
    told.say("chat", persistent=True)
    assert told.join(wanted=Filter(types=("alert",))) == (None, [], 1)


def test_who_joins_again_has_heard_all_that_is_kept() -> None:
    told = Told()
    told.attach("c1", None)
    told.say("chat", persistent=True)
    assert told.send(Subscribe("chat", C1))[1:] == told.replay("c1", 1)
    again = Request("c1", "r9")
    assert told.send(Subscribe("chat", again)) == [Joined(again, "chat", 1, "e.2", Recovered(None, 0), None)]


# By token


def test_without_a_token_one_goes_on_from_now() -> None:
    told = Told()
    told.say("chat", BROADCAST)
    here = Token("e", 2)
    for token in (None, ""):
        assert come(told, "chat", token=token, name=f"c{token}") == Resumption(here, None, (), (), here)


def test_a_token_says_it_of_all_channels_at_once() -> None:
    told = Told()
    told.say("chat", "news", BROADCAST, user_channel("ann"), "other", "chat")
    for heard in range(7):
        found = come(told, "chat", "news", token=f"e-{heard}", user_id="ann", name=f"c{heard}")
        missed = tuple(told.said[n] for n in (1, 2, 3, 4, 6) if n > heard)
        assert found == Resumption(Token("e", heard), True, (), missed, Token("e", 6))
        assert [message.id for message in found.replay] == [f"e-{n}" for n in (1, 2, 3, 4, 6) if n > heard]


def test_what_was_sent_to_everybody_and_to_a_user_is_recovered() -> None:
    told = Told()
    told.attach("c1", "ann")
    told.detach("c1")
    told.say(user_channel("ann"), BROADCAST, user_channel("bob"))
    found = come(told, token="e-0", user_id="ann")
    assert (found.recovered, found.replay) == (True, (told.said[1], told.said[2]))
    found = come(told, token="e-0", name="c8")
    assert (found.recovered, found.replay) == (True, (told.said[2],))


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        *(("f-1", "foreign_token"), ("ee-0", "foreign_token"), ("f-1.1", "foreign_token")),
        *(("e-3", "invalid_token"), ("e-2.3", "invalid_token"), ("e", "invalid_token"), ("e-x", "invalid_token")),
        ("x" * 10_000, "invalid_token"),
    ],
)
def test_a_token_that_says_nothing(token: str, reason: str) -> None:
    told = Told()
    told.say("chat")
    told.say(BROADCAST, persistent=True)
    here = Token("e", 2)
    gaps = tuple(
        Gap(channel, epoch, offset, reason)
        for channel, epoch, offset in [("$broadcast", "e.2", 1), ("$user:ann", "e.3", 0), ("chat", "e.1", 1)]
    )
    kept = told.said[2].with_id("e-2.2")
    found = come(told, "chat", token=token, user_id="ann")
    assert found == Resumption(Token("e", 2, 0), False, gaps, (kept,), here)


def test_a_token_from_before_what_the_history_holds() -> None:
    told = Told(history_size=2)
    told.say("chat", "news", "chat", "chat")
    found = come(told, "chat", "news", token="e-0")
    # What is left of it follows the gap.
    gap = Gap("chat", "e.1", 1, "history_lost")
    replay = (told.said[2], told.said[3], told.said[4])
    assert found == Resumption(Token("e", 0), False, (gap,), replay, Token("e", 4))
    found = come(told, "chat", "news", token="e-1", name="c8")
    assert (found.recovered, found.replay) == (True, (told.said[2], told.said[3], told.said[4]))


def test_where_the_history_is_lost_what_is_kept_is_told() -> None:
    told = Told(history_size=1)
    told.say("chat", "chat", persistent=True)
    told.say("chat")
    told.say("chat", persistent=True)
    found = come(told, "chat", token="e-1")
    gap = Gap("chat", "e.1", 3, "history_lost")
    assert found == Resumption(Token("e", 1), False, (gap,), (told.said[2], told.said[4]), Token("e", 4))


def test_what_is_too_old_is_lost_to_a_token_too() -> None:
    told = Told(history_ttl=60.0)
    told.say("chat")
    told.now = 130.0
    told.say("news")
    told.now = 160.0
    found = come(told, "chat", "news", token="e-0")
    assert (found.gaps, found.replay) == ((Gap("chat", "e.1", 1, "history_lost"),), (told.said[2],))


def test_who_has_missed_too_much_begins_anew() -> None:
    size = len(published(text("chat", 1, persistent=True), 1, "e.1", 1).json)
    told = Told(RouterConfig(max_replay_bytes=3 * size, namespaces=Namespaces(default=QUIET)))
    told.say("chat", "news", "chat", persistent=True)
    told.say("chat", "news", "more")
    gaps = tuple(
        Gap(channel, epoch, offset, "history_lost")
        for channel, epoch, offset in [
            (BROADCAST, "e.4", 0),
            ("chat", "e.1", 3),
            ("news", "e.2", 2),
            ("more", "e.3", 1),
        ]
    )
    here = Token("e", 6)
    for heard, token, owed in [(0, "e-0", (1, 2, 3)), (1, "e-1", (2, 3)), (2, "e-3.2", (3,)), (1, "e-4.1", (2, 3))]:
        found = come(told, "chat", "news", "more", token=token, name=f"c{token}")
        # Of what is kept for later joiners only that which was not heard.
        kept = tuple(told.said[n].with_id(f"e-6.{n}") for n in owed)
        assert found == Resumption(Token("e", 6, heard), False, gaps, kept, here)
        # Wherever this is cut, it goes on.
        for cut, n in enumerate([heard, *owed]):
            again = come(told, "chat", "news", "more", token=f"e-6.{n}", name=f"c{token}/{n}")
            assert (again.recovered, again.replay) == (True, kept[cut:])
    told.say("chat", "chat", "news")
    found = come(told, "chat", "news", "more", token="e-4", name="c8")
    assert (found.position, found.end, found.replay, len(found.gaps)) == (Token("e", 9), Token("e", 9), (), 4)
    found = come(told, "chat", "news", "more", token="e-6", name="c7")
    assert (found.gaps, found.replay) == ((), (told.said[7], told.said[8], told.said[9]))


def test_a_channel_that_was_forgotten() -> None:
    told = Told(history_ttl=60.0)
    told.say("chat", "news")
    told.attach("c1", None)
    told.send(Subscribe("news", C1))
    told.wait_until(400.0)  # nobody hears chat, and it is forgotten; news goes on
    # Who has heard all that was forgotten has missed nothing.
    told.say("news")
    found = come(told, "chat", token="e-1")
    assert (found.recovered, found.gaps) == (True, ())
    # Who has not, may have.
    found = come(told, "chat", token="e-0", name="c8")
    assert found.gaps == (Gap("chat", "e.4", 0, "history_lost"),)


def test_a_channel_that_was_forgotten_and_had_said_nothing_is_no_gap() -> None:
    told = Told()
    told.attach("c1", None)
    told.send(Subscribe("chat", C1))
    told.say("news")
    told.detach("c1")
    told.wait_until(400.0)
    assert told.router.next_timeout() is None
    # That of news, forgotten too, is 1; that of chat is none.
    assert come(told, "chat", token="e-1").gaps == ()
    told.wait_until(401.0)
    assert come(told, "chat", token="e-1", name="c8").gaps == ()


def test_what_one_never_heard_of_since_it_was_forgotten_raises_no_gap_but_for_others() -> None:
    told = Told(RouterConfig(max_idle=1, namespaces=Namespaces(default=QUIET)))
    told.attach("c1", None)
    told.send(Subscribe("empty", C1))
    told.send(Unsubscribe("empty", C1))
    told.say("a", "b")  # each makes the router forget the one before, and "empty" had said nothing
    assert come(told, "fresh", token="e-1").gaps == ()
    assert come(told, "fresh", token="e-0", name="c8").gaps == (Gap("fresh", "e.5", 0, "history_lost"),)


def test_changes_are_merged_in_and_lost_ones_are_no_gap() -> None:
    namespace = Namespace(pattern="*", history_size=2, presence_grace=0.0)
    routed = Routed(RouterConfig(namespaces=Namespaces(default=namespace)))
    routed.attach("c1", "ann")
    for number in range(2, 5):
        routed.attach(f"c{number}", f"u{number}")
    routed.send(Subscribe("chat", C1))  # 1
    routed.send(Subscribe("chat", C2))  # 2
    routed.send(Publish("chat", text("chat", 3), NOBODY))
    routed.detach("c2")  # 4
    # 5 is its own coming.
    found = come(routed, "chat", token="e-3", user_id="bob")
    assert [message.id for message in found.replay] == ["e-4", "e-5"]
    found = come(routed, "chat", token="e-2", user_id="cy", name="c8")
    # Of the changes more are lost than held: who is there is told in any case.
    assert (found.recovered, [message.id for message in found.replay]) == (True, ["e-3"])


def test_changes_before_a_crowd_and_those_of_a_forgotten_channel_are_lost() -> None:
    namespaces = Namespaces(default=Namespace(pattern="*", history_ttl=10.0, presence_grace=0.0))
    routed = Routed(RouterConfig(presence_limit=2, idle_timeout=10.0, namespaces=namespaces))
    for name in ("c1", "c2", "c3"):
        routed.attach(name)
        routed.send(Subscribe("chat", Request(name)))  # 1, 2, and a crowd
    routed.send(Unsubscribe("chat", C2))
    routed.send(Unsubscribe("chat", C1))  # 3
    routed.detach("c3")  # 4
    routed.attach("c4")
    routed.send(Subscribe("chat", Request("c4")))  # 5
    found = come(routed, "chat", token="e-2", name="c5")  # 6
    assert [message.id for message in found.replay] == ["e-3", "e-4", "e-5", "e-6"]
    # Of those that were not told in the crowd nothing is said, and so of none after them.
    assert routed.router.resume("c5", "e-1", now=routed.now).replay == ()
    found = come(routed, "other", token="e-1", name="c6")
    assert [message.id for message in found.replay] == ["e-7"]
    for name in ("c4", "c5", "c6"):
        routed.detach(name)  # 8 to 10
    routed.wait_until(120.0)
    # It may have been one of those in which 10 was said.
    assert [message.id for message in come(routed, "chat", token="e-9", name="c7").replay] == []
    assert [message.id for message in come(routed, "chat", token="e-10", name="c8").replay] == ["e-11", "e-12"]


# By a token of somebody who was still being told what is kept


def test_every_cut_of_what_is_kept_goes_on_where_it_was() -> None:
    told = Told()
    told.say("chat", "chat", "news", persistent=True)
    told.say("chat")
    told.say(BROADCAST, persistent=True)
    told.say("news")
    found = come(told, "chat", "news", token=None)
    kept = [1, 2, 3, 5]
    assert found == Resumption(
        Token("e", 6, 0), None, (), tuple(told.said[n].with_id(f"e-6.{n}") for n in kept), Token("e", 6)
    )
    told.say("news", BROADCAST, "elsewhere")
    for number, token in enumerate([found.position, *(f"e-6.{n}" for n in kept)]):
        again = come(told, "chat", "news", token=str(token), name=f"c9{number}")
        rest = [told.said[n].with_id(f"e-6.{n}") for n in kept[number:]]
        assert again.replay == (*rest, told.said[7], told.said[8])
        assert (again.recovered, again.position, again.end) == (True, Token.parse(str(token)), Token("e", 9))
    again = come(told, "chat", "news", token="e-6", name="c8")
    assert again.replay == (told.said[7], told.said[8])


def test_a_cut_where_the_history_is_lost_goes_on_with_what_is_kept() -> None:
    told = Told(history_size=1)
    told.say("chat", "chat", persistent=True)
    assert come(told, "chat", token=None).position == Token("e", 2, 0)
    told.say("chat")
    told.say("chat", persistent=True)
    told.say("chat")
    found = come(told, "chat", token="e-2.1", name="c8")
    gap = Gap("chat", "e.1", 4, "history_lost")
    replay = (told.said[2].with_id("e-2.2"), told.said[4], told.said[5])
    assert found == Resumption(Token("e", 2, 1), False, (gap,), replay, Token("e", 5))


def test_a_last_value_that_was_overtaken_is_told_once() -> None:
    told = Told(last_value=True)
    told.say("chat")
    assert come(told, "chat", token=None).replay == (told.said[1].with_id("e-1.1"),)
    told.say("chat")
    assert come(told, "chat", token="e-1.0", name="c7").replay == (told.said[2],)
    assert come(told, "chat", token="e-1.1", name="c8").replay == (told.said[2],)
