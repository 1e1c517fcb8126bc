"""The router: every command and the effects that it must have."""

from __future__ import annotations

import pytest

from rtcore.channels import BROADCAST, connection_channel, user_channel
from rtcore.errors import LocalProtocolError, Refusal
from rtcore.messages import Message
from rtcore.router import (
    Deliver,
    Joined,
    Left,
    Publish,
    Published,
    Refused,
    Request,
    Router,
    RouterConfig,
    Subscribe,
    Unsubscribe,
)

from .node_talk import STAMP, came_or_went, published

C1, C2, C3 = Request("c1", "r1"), Request("c2", "r2"), Request("c3", "r3")


def here(*members: tuple[str | None, str]) -> list[Message]:
    return [{"user_id": user_id, "connection_id": connection_id} for user_id, connection_id in members]


class Routed:
    """A router, and a clock that stands still until it is moved."""

    def __init__(self, config: RouterConfig | None = None) -> None:
        self.router = Router(config or RouterConfig(), entropy="e")
        self.now = 100.0

    def send(self, command: Publish | Subscribe | Unsubscribe) -> list[object]:
        return list(self.router.send(command, now=self.now, timestamp=STAMP))

    def detach(self, connection_id: str) -> list[object]:
        return list(self.router.detach(connection_id, now=self.now, timestamp=STAMP))


@pytest.fixture
def routed() -> Routed:
    """Return a router with Ann on c1 and c2, and somebody anonymous on c3."""
    routed = Routed()
    routed.router.attach("c1", "ann")  # e.1 is the epoch of her own channel, e.2 that of everybody's
    routed.router.attach("c2", "ann")
    routed.router.attach("c3", None)
    return routed


def test_joining_and_publishing(routed: Routed) -> None:
    assert routed.send(Subscribe("chat", C1)) == [Joined(C1, "chat", 0, "e.3", 1, here(("ann", "c1")))]
    assert routed.send(Publish("chat", {"type": "text", "meta": 1}, C1)) == [
        Deliver(published({"type": "text", "meta": 1}, 1, "e.3", "c1", "ann"), ("c1",)),
        Published(C1, "e.3:1", "chat", 1, "e.3"),
    ]
    assert routed.send(Subscribe("chat", C3)) == [
        Joined(C3, "chat", 1, "e.3", 2, here(("ann", "c1"), (None, "c3"))),
        Deliver(came_or_went("user_joined", "chat", 1, "e.3", "c3", None), ("c1", "c3"), skip="c3"),
    ]
    assert routed.send(Publish("chat", {"type": "text"}, C3, skip="c3")) == [
        Deliver(published({"type": "text"}, 2, "e.3", "c3", None), ("c1", "c3"), skip="c3"),
        Published(C3, "e.3:2", "chat", 2, "e.3"),
    ]


def test_a_user_comes_once_and_goes_once(routed: Routed) -> None:
    routed.send(Subscribe("chat", C3))
    assert routed.send(Subscribe("chat", C1)) == [
        Joined(C1, "chat", 0, "e.3", 2, here((None, "c3"), ("ann", "c1"))),
        Deliver(came_or_went("user_joined", "chat", 1, "e.3", "c1", "ann"), ("c3", "c1"), skip="c1"),
    ]
    assert routed.send(Subscribe("chat", C2)) == [
        Joined(C2, "chat", 0, "e.3", 2, here((None, "c3"), ("ann", "c1"))),
    ]
    assert routed.send(Unsubscribe("chat", C1)) == [Left(C1, "chat")]
    assert routed.router.presence("chat") == (2, here((None, "c3"), ("ann", "c2")))
    assert routed.detach("c2") == [Deliver(came_or_went("user_left", "chat", 2, "e.3", "c2", "ann"), ("c3",), "c2")]
    assert routed.send(Unsubscribe("chat", C3)) == [Left(C3, "chat")]
    assert routed.router.presence("chat") == (0, [])


def test_joining_again_tells_where_the_channel_stands_and_changes_nothing(routed: Routed) -> None:
    routed.send(Subscribe("chat", C1))
    routed.send(Subscribe("chat", C3))
    routed.send(Publish("chat", {"type": "text"}, C1))
    again = Request("c3", 9)
    assert routed.send(Subscribe("chat", again)) == [
        Joined(again, "chat", 1, "e.3", 2, here(("ann", "c1"), (None, "c3")))
    ]


def test_leaving_what_was_not_joined_is_no_fault(routed: Routed) -> None:
    routed.send(Subscribe("chat", C1))
    assert routed.send(Unsubscribe("chat", C3)) == [Left(C3, "chat")]
    assert routed.send(Unsubscribe("nowhere", C3)) == [Left(C3, "nowhere")]
    assert routed.router.channels_of("c1") == ["chat"]


def test_one_publication_is_one_object_for_all_subscribers(routed: Routed) -> None:
    routed.send(Subscribe("chat", C1))
    routed.send(Subscribe("chat", C3))
    first, second = (routed.send(Publish("chat", {"type": "text"}, C1))[0] for _ in range(2))
    assert isinstance(first, Deliver)
    assert isinstance(second, Deliver)
    assert first.connections is second.connections


# Channels of the server's own


@pytest.mark.parametrize(
    ("channel", "epoch", "connections"),
    [
        (user_channel("ann"), "e.1", ("c1", "c2")),
        (BROADCAST, "e.2", ("c1", "c2", "c3")),
        (connection_channel("c3"), "e.3", ("c3",)),
    ],
)
def test_built_in_channels_number_their_publications(
    routed: Routed, channel: str, epoch: str, connections: tuple[str, ...]
) -> None:
    for offset in (1, 2):
        assert routed.send(Publish(channel, {"type": "text"}, C1)) == [
            Deliver(published({"type": "text"}, offset, epoch, "c1", "ann"), connections),
            Published(C1, f"{epoch}:{offset}", channel, offset, epoch),
        ]


@pytest.mark.parametrize("channel", [BROADCAST, user_channel("ann"), connection_channel("c1"), "$", "", "a\nb"])
def test_nobody_joins_a_channel_of_the_servers_own_or_of_no_name(routed: Routed, channel: str) -> None:
    effects = routed.send(Subscribe(channel, C3))
    assert [type(effect) for effect in effects] == [Refused]
    assert routed.router.channels_of("c3") == []
    deliveries = routed.send(Publish(channel, {"type": "text"}, C1))[:-1]
    assert channel == BROADCAST or all("c3" not in effect.connections for effect in deliveries)  # type: ignore[attr-defined]


def test_the_application_publishes_in_a_users_name_or_in_none(routed: Routed) -> None:
    nobody = Request(None)
    assert routed.send(Publish("chat", {"type": "text"}, nobody)) == [Published(nobody, "e.3:1", "chat", 1, "e.3")]
    routed.send(Subscribe("chat", C1))
    assert routed.send(Publish("chat", {"type": "text"}, nobody, user_id="bob")) == [
        Deliver(published({"type": "text"}, 2, "e.3", None, "bob"), ("c1",)),
        Published(nobody, "e.3:2", "chat", 2, "e.3"),
    ]


def test_a_connection_publishes_in_its_own_name_only(routed: Routed) -> None:
    routed.send(Subscribe("chat", C1))
    effects = routed.send(Publish("chat", {"type": "text"}, C3, user_id="ann"))
    assert effects[0] == Deliver(published({"type": "text"}, 1, "e.3", "c3", None), ("c1",))


def test_what_was_sent_to_a_user_who_is_away_keeps_its_number(routed: Routed) -> None:
    assert routed.send(Publish(user_channel("bob"), {"type": "text"}, C1)) == [
        Published(C1, "e.3:1", "$user:bob", 1, "e.3")
    ]
    routed.router.attach("c4", "bob")
    assert routed.send(Publish(user_channel("bob"), {"type": "text"}, C1)) == [
        Deliver(published({"type": "text"}, 2, "e.3", "c1", "ann"), ("c4",)),
        Published(C1, "e.3:2", "$user:bob", 2, "e.3"),
    ]


def test_what_was_sent_to_a_connection_before_it_came_keeps_its_number(routed: Routed) -> None:
    own = connection_channel("c4")
    assert routed.send(Publish(own, {"type": "text"}, C1)) == [Published(C1, "e.3:1", own, 1, "e.3")]
    routed.router.attach("c4", None)
    assert routed.router.next_timeout() is None
    assert routed.send(Publish(own, {"type": "text"}, C1)) == [
        Deliver(published({"type": "text"}, 2, "e.3", "c1", "ann"), ("c4",)),
        Published(C1, "e.3:2", own, 2, "e.3"),
    ]


def test_the_channel_of_a_connection_ends_with_it(routed: Routed) -> None:
    own = connection_channel("c3")
    routed.send(Publish(own, {"type": "text"}, C3))
    routed.detach("c3")
    assert routed.router.next_timeout() is None
    routed.router.attach("c3", None)
    assert routed.send(Publish(own, {"type": "text"}, C3)) == [
        Deliver(published({"type": "text"}, 1, "e.4", "c3", None), ("c3",)),
        Published(C3, "e.4:1", own, 1, "e.4"),
    ]


# Who is there


def test_users_and_channels_in_use(routed: Routed) -> None:
    router = routed.router
    routed.send(Subscribe("chat", C1))
    routed.send(Subscribe("news", C1))
    routed.send(Subscribe("chat", C3))
    routed.send(Publish("empty", {"type": "text"}, C1))
    assert (router.users, router.user_count) == (["ann"], 1)
    assert [channel.name for channel in router.channels()] == ["chat", "news"]
    assert (router.channels_of("c1"), router.channels_of("c2")) == (["chat", "news"], [])
    assert (router.presence("empty"), router.presence("unheard of")) == ((0, []), (0, []))
    routed.detach("c1")
    assert (router.users, [channel.name for channel in router.channels()]) == (["ann"], ["chat"])
    routed.detach("c2")
    assert (router.users, router.user_count) == ([], 0)


def test_leaving_everything_tells_each_channel_in_the_order_of_joining(routed: Routed) -> None:
    for channel in ("b", "a", "alone"):
        routed.send(Subscribe(channel, C1))
    for channel in ("a", "b"):
        routed.send(Subscribe(channel, C3))
    assert routed.detach("c1") == [
        Deliver(came_or_went("user_left", "b", 2, "e.3", "c1", "ann"), ("c3",), skip="c1"),
        Deliver(came_or_went("user_left", "a", 2, "e.4", "c1", "ann"), ("c3",), skip="c1"),
    ]


def test_in_a_crowd_nobody_is_told_who_comes_and_goes() -> None:
    routed = Routed(RouterConfig(presence_limit=2))
    joins = []
    for number in range(1, 5):
        routed.router.attach(f"c{number}", None)
        joins.append(routed.send(Subscribe("chat", Request(f"c{number}"))))
    assert [len(effects) for effects in joins] == [1, 2, 1, 1]
    assert joins[2] == [Joined(Request("c3"), "chat", 0, "e.2", 3, None)]
    assert routed.router.presence("chat") == (4, None)
    assert routed.send(Unsubscribe("chat", Request("c1"))) == [Left(Request("c1"), "chat")]
    # Two are left, few enough to be told again.
    assert routed.send(Unsubscribe("chat", Request("c2")))[1:] == [
        Deliver(came_or_went("user_left", "chat", 2, "e.2", "c2", None), ("c3", "c4"), skip="c2")
    ]
    assert routed.router.presence("chat") == (2, here((None, "c3"), (None, "c4")))


def test_a_connection_joins_so_many_channels_and_no_more() -> None:
    routed = Routed(RouterConfig(max_channels=2))
    routed.router.attach("c1", None)
    routed.send(Subscribe("a", C1))
    routed.send(Subscribe("b", C1))
    message = "a connection may join at most 2 channels: leave one first"
    refused = Refused(C1, Refusal("too_many_channels", message, status=429))
    assert routed.send(Subscribe("c", C1)) == [refused]
    assert routed.router.presence("c") == (0, [])
    assert routed.send(Subscribe("a", C1)) == [Joined(C1, "a", 0, "e.2", 1, here((None, "c1")))]
    routed.send(Unsubscribe("a", C1))
    assert routed.send(Subscribe("c", C1)) == [Joined(C1, "c", 0, "e.4", 1, here((None, "c1")))]


# Channels that nobody hears


def test_a_channel_is_kept_for_a_while_and_then_forgotten(routed: Routed) -> None:
    routed.send(Subscribe("chat", C1))
    routed.send(Publish("chat", {"type": "text"}, C1))
    assert routed.router.next_timeout() is None
    routed.send(Unsubscribe("chat", C1))
    assert routed.router.next_timeout() == 400.0
    routed.router.handle_timeout(now=399.0)
    assert routed.send(Subscribe("chat", C1)) == [Joined(C1, "chat", 1, "e.3", 1, here(("ann", "c1")))]
    assert routed.router.next_timeout() is None
    routed.send(Unsubscribe("chat", C1))
    routed.router.handle_timeout(now=400.0)
    assert routed.router.next_timeout() is None
    assert routed.send(Subscribe("chat", C1)) == [Joined(C1, "chat", 0, "e.4", 1, here(("ann", "c1")))]


def test_a_publication_that_nobody_hears_keeps_its_channel_for_as_long_again(routed: Routed) -> None:
    routed.send(Publish("a", {"type": "text"}, C1))
    routed.now = 200.0
    routed.send(Publish("b", {"type": "text"}, C1))
    routed.now = 300.0
    routed.send(Publish("a", {"type": "text"}, C1))
    assert routed.router.next_timeout() == 500.0
    routed.router.handle_timeout(now=500.0)
    assert routed.router.next_timeout() == 600.0
    assert routed.send(Publish("a", {"type": "text"}, C1)) == [Published(C1, "e.3:3", "a", 3, "e.3")]
    assert routed.send(Publish("b", {"type": "text"}, C1)) == [Published(C1, "e.5:1", "b", 1, "e.5")]


def test_only_so_many_are_kept_and_the_longest_idle_goes_first() -> None:
    routed = Routed(RouterConfig(max_idle=2))
    for name in ("a", "b", "a", "c"):
        routed.send(Publish(name, {"type": "text"}, Request(None)))
    published_to = [routed.send(Publish(name, {"type": "text"}, Request(None)))[-1] for name in ("a", "c", "b")]
    assert published_to == [
        Published(Request(None), "e.1:3", "a", 3, "e.1"),
        Published(Request(None), "e.3:2", "c", 2, "e.3"),
        Published(Request(None), "e.4:1", "b", 1, "e.4"),
    ]


def test_it_may_keep_none_at_all() -> None:
    routed = Routed(RouterConfig(max_idle=0))
    routed.router.attach("c1", None)
    routed.send(Subscribe("chat", C1))
    assert routed.send(Unsubscribe("chat", C1)) == [Left(C1, "chat")]
    routed.send(Subscribe("chat", C1))
    assert routed.detach("c1") == []
    assert routed.router.next_timeout() is None


def test_once_all_have_left_nothing_remains(routed: Routed) -> None:
    routed.send(Subscribe("chat", C1))
    routed.send(Publish(connection_channel("c2"), {"type": "text"}, C1))
    for connection_id in ("c1", "c2", "c3"):
        routed.detach(connection_id)
    assert routed.router.next_timeout() == 400.0
    routed.router.handle_timeout(now=400.0)
    assert routed.router.next_timeout() is None
    assert not routed.router._channels


# Misuse


def test_a_connection_is_attached_once(routed: Routed) -> None:
    with pytest.raises(LocalProtocolError, match="'c1' is attached already"):
        routed.router.attach("c1", "bob")
    assert routed.router.users == ["ann"]


@pytest.mark.parametrize(
    "command", [Publish("chat", {"type": "text"}, Request("c9")), Subscribe("chat", Request("c9"))]
)
def test_only_attached_connections_ask_for_things(routed: Routed, command: Publish | Subscribe) -> None:
    for misuse in (command, Unsubscribe("chat", Request("c9"))):
        with pytest.raises(LocalProtocolError, match="'c9' is not attached"):
            routed.send(misuse)
    assert routed.router.next_timeout() is None
    assert routed.send(Publish("chat", {"type": "text"}, C1)) == [Published(C1, "e.3:1", "chat", 1, "e.3")]


def test_only_attached_connections_are_known(routed: Routed) -> None:
    with pytest.raises(LocalProtocolError):
        routed.detach("c9")
    with pytest.raises(LocalProtocolError):
        routed.router.channels_of("c9")


@pytest.mark.parametrize("channel", ["chat", "unheard of", connection_channel("c3")])
def test_a_message_that_is_no_json_changes_nothing(routed: Routed, channel: str) -> None:
    routed.send(Subscribe("chat", C1))
    with pytest.raises(LocalProtocolError, match="must be JSON"):
        routed.send(Publish(channel, {"type": "text", "data": object()}, C1))
    assert routed.router.next_timeout() is None
    outcome = routed.send(Publish(channel, {"type": "text"}, C1))[-1]
    assert isinstance(outcome, Published)
    assert outcome.offset == 1
