"""The router: who is there, who is told of it, and how long what nobody hears is kept."""

from __future__ import annotations

import pytest

from rtcore.channels import connection_channel
from rtcore.messages import Message
from rtcore.namespaces import Namespace, Namespaces
from rtcore.router import (
    Deliver,
    Joined,
    Left,
    Publish,
    Published,
    Recovered,
    Request,
    Roster,
    RouterConfig,
    Since,
    Subscribe,
    Unsubscribe,
)

from .node_talk import Routed, came_or_went, joined, member, presence_gap, published

C1, C2, C3 = Request("c1", "r1"), Request("c2", "r2"), Request("c3", "r3")
NOBODY = Request(None)
IN_CHAT: Message = {"type": "text", "channel": "chat"}
TEXT: Message = {"type": "text"}


@pytest.fixture
def routed() -> Routed:
    """Return a router with Ann on c1 and c2, and somebody anonymous on c3."""
    routed = Routed()
    routed.attach("c1", "ann")  # e.1 is the epoch of her own channel, e.2 that of everybody's
    routed.attach("c2", "ann")
    routed.attach("c3")
    return routed


def there(routed: Routed, channel: str = "chat") -> list[Message] | None:
    roster = routed.router.roster(channel)
    assert isinstance(roster, Roster)
    return roster.members


# Coming and going


def test_a_user_comes_once_and_goes_once(routed: Routed) -> None:
    routed.send(Subscribe("chat", C3))
    assert routed.send(Subscribe("chat", C1)) == [
        joined(C1, "chat", 0, "e.3", (None, "c3"), ("ann", "c1"), changes=2),
        Deliver(came_or_went("user_joined", "chat", 2, "e.3", 2, "c1", "ann"), ("c3", "c1"), skip="c1"),
    ]
    assert routed.send(Subscribe("chat", C2)) == [
        joined(C2, "chat", 0, "e.3", (None, "c3"), ("ann", "c1"), changes=2),
    ]
    assert routed.send(Unsubscribe("chat", C1)) == [Left(C1, "chat")]
    assert there(routed) == [member(None, "c3"), member("ann", "c2")]
    assert routed.send(Unsubscribe("chat", C2)) == [
        Left(C2, "chat"),
        Deliver(came_or_went("user_left", "chat", 3, "e.3", 3, "c2", "ann"), ("c3",)),
    ]
    assert routed.send(Unsubscribe("chat", C3)) == [Left(C3, "chat")]
    assert there(routed) == []


def test_who_comes_back_in_time_was_never_gone(routed: Routed) -> None:
    for request in (C1, C3):
        routed.send(Subscribe("chat", request))
    assert routed.detach("c1") == []
    assert there(routed) == [member("ann", "c1"), member(None, "c3")]
    assert routed.router.next_timeout() == 105.0
    assert routed.wait_until(104.9) == []
    # Another connection of hers, that is not in the channel, does not count.
    assert routed.send(Subscribe("chat", C2)) == [joined(C2, "chat", 0, "e.3", ("ann", "c2"), (None, "c3"), changes=2)]
    assert routed.wait_until(200.0) == []
    assert there(routed) == [member("ann", "c2"), member(None, "c3")]


def test_who_does_not_come_back_is_gone(routed: Routed) -> None:
    for request in (C1, C3):
        routed.send(Subscribe("chat", request))
    routed.detach("c1")
    assert routed.wait_until(105.0) == [Deliver(came_or_went("user_left", "chat", 3, "e.3", 3, "c1", "ann"), ("c3",))]
    assert there(routed) == [member(None, "c3")]
    assert routed.wait_until(106.0) == []


def test_somebody_anonymous_is_gone_at_once(routed: Routed) -> None:
    for request in (C1, C3):
        routed.send(Subscribe("chat", request))
    assert routed.detach("c3") == [Deliver(came_or_went("user_left", "chat", 3, "e.3", 3, "c3", None), ("c1",))]


def test_who_has_the_id_of_somebody_who_was_lost_hears_that_they_have_left(routed: Routed) -> None:
    routed.send(Subscribe("chat", C3))
    routed.send(Subscribe("chat", C1))
    routed.detach("c1")
    routed.attach("c1", "bob")
    routed.send(Subscribe("chat", C1))
    left = came_or_went("user_left", "chat", 4, "e.3", 4, "c1", "ann")
    assert Deliver(left, ("c3", "c1")) in routed.wait_until(200.0)


def test_a_channel_may_give_no_grace() -> None:
    routed = Routed(RouterConfig(namespaces=Namespaces((Namespace(pattern="chat", presence_grace=0.0),))))
    routed.attach("c1", "ann")
    routed.attach("c3")
    for request in (C1, C3):
        routed.send(Subscribe("chat", request))
    assert routed.detach("c1") == [Deliver(came_or_went("user_left", "chat", 3, "e.3", 3, "c1", "ann"), ("c3",))]


def test_leaving_everything_tells_each_channel_in_the_order_of_joining(routed: Routed) -> None:
    for channel in ("b", "a", "alone"):
        routed.send(Subscribe(channel, C3))
    for channel in ("a", "b"):
        routed.send(Subscribe(channel, C1))
    assert routed.detach("c3") == [
        Deliver(came_or_went("user_left", "b", 3, "e.3", 6, "c3", None), ("c1",)),
        Deliver(came_or_went("user_left", "a", 3, "e.4", 7, "c3", None), ("c1",)),
    ]


def test_those_who_are_gone_go_one_after_the_other(routed: Routed) -> None:
    routed.attach("c4", "bob")
    for request in (C1, C3, Request("c4")):
        routed.send(Subscribe("chat", request))
    routed.detach("c4")
    routed.now = 102.0
    routed.detach("c1")
    assert routed.wait_until(110.0) == [
        Deliver(came_or_went("user_left", "chat", 4, "e.4", 4, "c4", "bob"), ("c3",)),
        Deliver(came_or_went("user_left", "chat", 5, "e.4", 5, "c1", "ann"), ("c3",)),
    ]


def test_users_and_channels_in_use(routed: Routed) -> None:
    router = routed.router
    routed.send(Subscribe("chat", C1))
    routed.send(Subscribe("news", C1))
    routed.send(Subscribe("chat", C3))
    routed.send(Publish("empty", TEXT, NOBODY))
    assert (router.users, router.user_count, router.is_connected("ann")) == (["ann"], 1, True)
    assert [channel.name for channel in router.channels()] == ["chat", "news"]
    assert (router.channels_of("c1"), router.channels_of("c2")) == (["chat", "news"], [])
    assert (there(routed, "empty"), there(routed, "unheard of")) == ([], [])
    routed.detach("c1")
    assert (router.users, [channel.name for channel in router.channels()]) == (["ann"], ["chat"])
    routed.detach("c2")
    assert (router.users, router.user_count, router.is_connected("ann")) == ([], 0, False)


# Crowds


def crowd(limit: int, number: int, *, grace: float = 5.0) -> Routed:
    """Return a router with users u1, u2 and so on in a channel that tells up to `limit` of them."""
    namespaces = Namespaces((Namespace(pattern="chat", presence_grace=grace),))
    routed = Routed(RouterConfig(presence_limit=limit, namespaces=namespaces))
    routed.attach("c0", "u0")  # two epochs, as in the other tests
    routed.send(Subscribe("chat", Request("c0")))
    for each in range(1, number):
        routed.attach(f"c{each}", f"u{each}")
        routed.send(Subscribe("chat", Request(f"c{each}")))
    return routed


def test_in_a_crowd_nobody_is_told_who_comes_and_goes() -> None:
    routed = crowd(2, 2)
    routed.attach("c2", "u2")
    effects = routed.send(Subscribe("chat", C2))
    assert effects == [
        Joined(C2, "chat", 0, "e.3", Recovered(None, 0), Roster(3, None, "e.3p2", 0)),
        Deliver(presence_gap("chat", "e.3p2"), ("c0", "c1", "c2")),
    ]
    routed.attach("c3", "u3")
    effects = routed.send(Subscribe("chat", C3))
    assert effects == [Joined(C3, "chat", 0, "e.3", Recovered(None, 0), Roster(4, None, "e.3p2", 0))]
    assert routed.router.roster("chat") == Roster(4, None, "e.3p2", 0)
    assert routed.send(Unsubscribe("chat", Request("c0"))) == [Left(Request("c0"), "chat")]
    # Two are left: who they are can be asked for, and from now on they are told again.
    assert routed.send(Unsubscribe("chat", Request("c1"))) == [
        Left(Request("c1"), "chat"),
        Deliver(presence_gap("chat", "e.3p3"), ("c2", "c3")),
    ]
    left = [member("u2", "c2"), member("u3", "c3")]
    assert routed.router.roster("chat") == Roster(2, left, "e.3p3", 0)
    went = came_or_went("user_left", "chat", 1, "e.3p3", 3, "c3", "u3")
    assert routed.send(Unsubscribe("chat", C3)) == [Left(C3, "chat"), Deliver(went, ("c2",))]


def test_a_crowd_that_goes_all_at_once_is_no_crowd_at_one_point() -> None:
    routed = crowd(2, 5)
    for connection_id in ("c1", "c2", "c3", "c4"):
        assert routed.detach(connection_id) == []
    # Of five the second leaves three, and the third two, few enough to be told of the fourth.
    assert routed.wait_until(105.0) == [
        Deliver(presence_gap("chat", "e.3p3"), ("c0",)),
        Deliver(came_or_went("user_left", "chat", 1, "e.3p3", 3, "c4", "u4"), ("c0",)),
    ]
    assert there(routed) == [member("u0", "c0")]


def test_those_who_may_come_back_belong_to_the_crowd() -> None:
    routed = crowd(2, 3)
    routed.detach("c1")
    routed.attach("c9", "u9")
    effects = routed.send(Subscribe("chat", Request("c9")))
    assert effects == [Joined(Request("c9"), "chat", 0, "e.3", Recovered(None, 0), Roster(4, None, "e.3p2", 0))]


def test_there_may_be_no_telling_at_all() -> None:
    routed = crowd(0, 1, grace=0.0)
    assert routed.router.roster("chat") == Roster(1, None, "e.3p2", 0)
    assert routed.detach("c0") == []


def test_where_nobody_is_told_a_crowd_is_no_news() -> None:
    namespaces = Namespaces((Namespace(pattern="chat", join_leave=False),))
    routed = Routed(RouterConfig(presence_limit=1, namespaces=namespaces))
    for connection_id in ("c1", "c2"):
        routed.attach(connection_id)
        assert len(routed.send(Subscribe("chat", Request(connection_id)))) == 1
    assert routed.send(Unsubscribe("chat", C1)) == [Left(C1, "chat")]


# Who comes back to know who came and went


def test_changes_are_replayed_to_who_names_the_last_one_they_heard(routed: Routed) -> None:
    routed.send(Subscribe("chat", C3))
    routed.send(Subscribe("chat", C1))
    routed.send(Unsubscribe("chat", C1))
    came = came_or_went("user_joined", "chat", 2, "e.3", 2, "c1", "ann")
    went = came_or_went("user_left", "chat", 3, "e.3", 3, "c1", "ann")
    again = Subscribe("chat", C3, changes_since=Since("e.3p", 1))
    assert routed.send(again) == [
        joined(C3, "chat", 0, "e.3", (None, "c3"), changes=3, changes_complete=True),
        *(Deliver(came, ("c3",)), Deliver(went, ("c3",))),
    ]
    # Its own coming is one of the changes, too: else their numbers would have a hole.
    came_again = came_or_went("user_joined", "chat", 4, "e.3", 4, "c2", "ann")
    assert routed.send(Subscribe("chat", C2, changes_since=Since("e.3p", 2))) == [
        joined(C2, "chat", 0, "e.3", (None, "c3"), ("ann", "c2"), changes=4, changes_complete=True),
        *(Deliver(went, ("c2",)), Deliver(came_again, ("c2",))),
        Deliver(came_again, ("c3", "c2"), skip="c2"),
    ]


@pytest.mark.parametrize("since", [Since("e.3p", 9), Since("e.3", 0), Since("e.3p2", 0), Since("", 0)])
def test_changes_that_cannot_be_replayed_are_in_the_roster(routed: Routed, since: Since) -> None:
    routed.send(Subscribe("chat", C3))
    routed.send(Subscribe("chat", C1))
    assert routed.send(Subscribe("chat", C3, changes_since=since)) == [
        joined(C3, "chat", 0, "e.3", (None, "c3"), ("ann", "c1"), changes=2, changes_complete=False)
    ]


def test_changes_before_a_crowd_are_lost() -> None:
    routed = crowd(1, 2)
    effects = routed.send(Subscribe("chat", Request("c0"), changes_since=Since("e.3p", 1)))
    assert effects == [
        Joined(Request("c0"), "chat", 0, "e.3", Recovered(None, 0), Roster(2, None, "e.3p2", 0, recovered=False))
    ]


def test_changes_and_publications_are_replayed_in_their_order(routed: Routed) -> None:
    routed.send(Subscribe("chat", C3))
    routed.send(Publish("chat", IN_CHAT, NOBODY))
    routed.send(Subscribe("chat", C1))
    routed.send(Publish("chat", IN_CHAT, NOBODY))
    routed.send(Unsubscribe("chat", C1))
    replay = routed.send(Subscribe("chat", C3, since=Since("e.3", 0), changes_since=Since("e.3p", 1)))
    assert replay == [
        joined(C3, "chat", 2, "e.3", (None, "c3"), changes=3, complete=True, replayed=2, changes_complete=True),
        Deliver(published(IN_CHAT, 1, "e.3", 2), ("c3",)),
        Deliver(came_or_went("user_joined", "chat", 2, "e.3", 3, "c1", "ann"), ("c3",)),
        Deliver(published(IN_CHAT, 2, "e.3", 4), ("c3",)),
        Deliver(came_or_went("user_left", "chat", 3, "e.3", 5, "c1", "ann"), ("c3",)),
    ]


# Channels that nobody hears


def test_a_channel_is_kept_for_a_while_and_then_forgotten(routed: Routed) -> None:
    routed.send(Subscribe("chat", C3))
    routed.send(Publish("chat", IN_CHAT, NOBODY))
    assert routed.router.next_timeout() == 400.0  # its history
    routed.now = 150.0
    routed.send(Unsubscribe("chat", C3))
    routed.wait_until(449.0)
    assert routed.send(Subscribe("chat", C3)) == [joined(C3, "chat", 1, "e.3", (None, "c3"), changes=3)]
    routed.send(Unsubscribe("chat", C3))
    assert routed.router.next_timeout() == 450.0  # when it lets go of c3's leaving for the first time
    routed.wait_until(748.0)
    assert routed.router.next_timeout() == 749.0
    routed.wait_until(749.0)
    assert (routed.router.next_timeout(), routed.router.history_bytes) == (None, 0)
    assert routed.send(Subscribe("chat", C3)) == [joined(C3, "chat", 0, "e.4", (None, "c3"), changes=1)]


def test_a_channel_is_kept_for_as_long_as_there_is_something_to_come_back_for() -> None:
    routed = Routed(RouterConfig(idle_timeout=10.0))
    routed.attach("c1")
    routed.send(Publish("chat", IN_CHAT, NOBODY))
    for now in (110.0, 120.0, 399.0):
        routed.wait_until(now)
    assert routed.send(Subscribe("chat", C1, since=Since("e.2", 0))) == [
        joined(C1, "chat", 1, "e.2", (None, "c1"), changes=1, complete=True, replayed=1),
        Deliver(published(IN_CHAT, 1, "e.2", 1), ("c1",)),
    ]
    routed.send(Unsubscribe("chat", C1))
    # Also for as long as somebody may come back who is not there.
    namespaces = Namespaces(default=Namespace(pattern="*", history_size=0, presence_grace=60.0))
    routed = Routed(RouterConfig(idle_timeout=10.0, namespaces=namespaces))
    routed.attach("c1", "ann")
    routed.send(Subscribe("chat", C1))
    routed.detach("c1")
    routed.wait_until(159.0)
    assert there(routed) == [member("ann", "c1")]
    routed.wait_until(160.0)
    assert there(routed) == []


def test_a_publication_that_nobody_hears_keeps_its_channel_for_as_long_again() -> None:
    routed = Routed(RouterConfig(namespaces=Namespaces(default=Namespace(pattern="*", history_size=0))))
    routed.send(Publish("a", TEXT, NOBODY))
    routed.now = 200.0
    routed.send(Publish("b", TEXT, NOBODY))
    routed.now = 300.0
    routed.send(Publish("a", TEXT, NOBODY))
    assert routed.router.next_timeout() == 500.0
    routed.wait_until(500.0)
    assert routed.router.next_timeout() == 600.0
    assert routed.send(Publish("a", TEXT, NOBODY)) == [Published(NOBODY, "e-4", "a", 3, "e.1")]
    assert routed.send(Publish("b", TEXT, NOBODY)) == [Published(NOBODY, "e-5", "b", 1, "e.3")]


def test_only_so_many_are_kept_and_the_longest_idle_goes_first() -> None:
    routed = Routed(RouterConfig(max_idle=2))
    for name in ("a", "b", "a", "c"):
        routed.send(Publish(name, TEXT, NOBODY))
    assert [routed.send(Publish(name, TEXT, NOBODY))[-1] for name in ("a", "c", "b")] == [
        Published(NOBODY, "e-5", "a", 3, "e.1"),
        Published(NOBODY, "e-6", "c", 2, "e.3"),
        Published(NOBODY, "e-7", "b", 1, "e.4"),
    ]


def test_it_may_keep_none_at_all() -> None:
    routed = Routed(RouterConfig(max_idle=0))
    routed.attach("c1")
    routed.send(Subscribe("chat", C1))
    assert routed.send(Unsubscribe("chat", C1)) == [Left(C1, "chat")]
    routed.send(Subscribe("chat", C1))
    assert routed.detach("c1") == []
    routed.send(Publish("chat", TEXT, NOBODY))
    assert (routed.router.next_timeout(), routed.router.history_bytes, routed.router.empty) == (None, 0, True)


def test_what_is_kept_for_later_joiners_is_kept_for_ever() -> None:
    routed = Routed()
    routed.send(Publish("chat", {**IN_CHAT, "persistent": True}, NOBODY))
    for now in (400.0, 700.0, 1_000_000.0):
        routed.wait_until(now)
        assert not routed.router.empty
    assert routed.router.next_timeout() == 1_000_300.0
    routed.attach("c1")
    kept = published({**IN_CHAT, "persistent": True}, 1, "e.1", 1)
    assert routed.send(Subscribe("chat", C1))[1:] == [Deliver(kept, ("c1",))]


def test_a_deadline_of_the_history_may_be_before_that_of_somebody_who_may_come_back() -> None:
    namespace = Namespace(pattern="chat", history_ttl=1.0, presence_grace=60.0)
    routed = Routed(RouterConfig(namespaces=Namespaces((namespace,))))
    routed.attach("c1", "ann")
    routed.attach("c3")
    routed.send(Subscribe("chat", C1))
    routed.wait_until(101.0)
    routed.send(Subscribe("chat", C3))
    routed.wait_until(102.0)
    routed.detach("c1")
    assert routed.router.next_timeout() == 162.0
    routed.send(Publish("chat", TEXT, NOBODY))
    assert routed.router.next_timeout() == 103.0
    routed.send(Publish("chat", TEXT, NOBODY))
    routed.wait_until(103.0)
    assert (routed.router.history_bytes, routed.router.next_timeout()) == (0, 162.0)


@pytest.mark.parametrize("idle_timeout", [0.0, -1.0])
def test_an_idle_timeout_is_some_time(idle_timeout: float) -> None:
    with pytest.raises(ValueError, match="idle_timeout"):
        RouterConfig(idle_timeout=idle_timeout)


def test_once_all_have_left_and_time_has_passed_nothing_remains(routed: Routed) -> None:
    routed.attach("c4", "bob", session="secret")
    routed.send(Subscribe("chat", C1))
    routed.send(Subscribe("chat", Request("c4")))
    routed.send(Publish(connection_channel("c2"), TEXT, C1))
    routed.send(Publish("chat", TEXT, C2))
    routed.send(Publish("$user:cy", TEXT, NOBODY))
    for connection_id in ("c1", "c2", "c3", "c4"):
        routed.detach(connection_id)
    assert not routed.router.empty
    steps = 0
    while (at := routed.router.next_timeout()) is not None:
        routed.wait_until(at)
        steps += 1
    assert routed.router.empty
    assert (routed.now, steps < 20) == (405.0, True)
