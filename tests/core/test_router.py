"""The router: every command and the effects that it must have."""

from __future__ import annotations

import pytest

from rtcore.channels import BROADCAST, connection_channel, user_channel
from rtcore.errors import LocalProtocolError, Refusal
from rtcore.filters import Filter
from rtcore.messages import Message
from rtcore.namespaces import Access, Namespace, Namespaces, SlowConsumer
from rtcore.router import (
    Deliver,
    Left,
    Publish,
    Published,
    Refused,
    Request,
    Roster,
    RouterConfig,
    Subscribe,
    Unsubscribe,
)

from .node_talk import Routed, came_or_went, joined, published

C1, C2, C3 = Request("c1", "r1"), Request("c2", "r2"), Request("c3", "r3")
NOBODY = Request(None)
# To a channel, what is published names it.
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


def test_joining_and_publishing(routed: Routed) -> None:
    assert routed.send(Subscribe("chat", C1)) == [joined(C1, "chat", 0, "e.3", ("ann", "c1"), changes=1)]
    assert routed.send(Publish("chat", {**IN_CHAT, "meta": 1}, C1)) == [
        Deliver(published({**IN_CHAT, "meta": 1}, 1, "e.3", 2, "c1", "ann"), ("c1",)),
        Published(C1, "e-2", "chat", 1, "e.3"),
    ]
    assert routed.send(Subscribe("chat", C3)) == [
        joined(C3, "chat", 1, "e.3", ("ann", "c1"), (None, "c3"), changes=2),
        Deliver(came_or_went("user_joined", "chat", 2, "e.3", 3, "c3", None), ("c1", "c3"), skip="c3"),
    ]
    assert routed.send(Publish("chat", IN_CHAT, C3, skip="c3")) == [
        Deliver(published(IN_CHAT, 2, "e.3", 4, "c3", None), ("c1", "c3"), skip="c3"),
        Published(C3, "e-4", "chat", 2, "e.3"),
    ]


@pytest.mark.parametrize("said", [{"type": "text"}, {"type": "text", "channel": "elsewhere"}])
def test_a_publication_names_its_channel(routed: Routed, said: Message) -> None:
    routed.send(Subscribe("chat", C1))
    effects = routed.send(Publish("chat", said, C1))
    assert effects[0] == Deliver(published(IN_CHAT, 1, "e.3", 2, "c1", "ann"), ("c1",))
    assert "channel" not in said or said["channel"] == "elsewhere"


def test_joining_again_tells_where_the_channel_stands_and_changes_nothing(routed: Routed) -> None:
    routed.send(Subscribe("chat", C1))
    routed.send(Subscribe("chat", C3))
    routed.send(Publish("chat", {**IN_CHAT, "persistent": True}, C1))
    again = Request("c3", 9)
    assert routed.send(Subscribe("chat", again)) == [
        joined(again, "chat", 1, "e.3", ("ann", "c1"), (None, "c3"), changes=2)
    ]


def test_leaving_what_was_not_joined_is_no_fault(routed: Routed) -> None:
    routed.send(Subscribe("chat", C1))
    assert routed.send(Unsubscribe("chat", C3)) == [Left(C3, "chat")]
    assert routed.send(Unsubscribe("nowhere", C3)) == [Left(C3, "nowhere")]
    assert routed.router.channels_of("c1") == ["chat"]


def test_one_publication_is_one_object_for_all_subscribers(routed: Routed) -> None:
    routed.send(Subscribe("chat", C1))
    routed.send(Subscribe("chat", C3))
    first, second = (routed.send(Publish("chat", IN_CHAT, NOBODY))[0] for _ in range(2))
    assert isinstance(first, Deliver)
    assert isinstance(second, Deliver)
    assert first.connections is second.connections


def test_everybody_hears_what_they_want_to_hear(routed: Routed) -> None:
    routed.send(Subscribe("chat", C1, filter=Filter(types=("text",))))
    routed.send(Subscribe("chat", C2, filter=Filter(types=("alert", "text"))))
    routed.send(Subscribe("chat", C3))  # nobody else wants to hear of this
    text = published(IN_CHAT, 1, "e.3", 3, "c1", "ann")
    assert routed.send(Publish("chat", IN_CHAT, C1, skip="c1")) == [
        Deliver(text, ("c1",), skip="c1"),
        Deliver(text, ("c2",), skip="c1"),
        Deliver(text, ("c3",), skip="c1"),
        Published(C1, "e-3", "chat", 1, "e.3"),
    ]
    alert: Message = {"type": "alert", "channel": "chat"}
    effects = routed.send(Publish("chat", alert, NOBODY))
    assert [effect.connections for effect in effects if isinstance(effect, Deliver)] == [("c2",), ("c3",)]
    routed.send(Subscribe("chat", C2, filter=Filter(types=())))
    effects = routed.send(Publish("chat", alert, NOBODY))
    assert [effect.connections for effect in effects if isinstance(effect, Deliver)] == [("c3",)]


def test_who_wants_to_hear_of_comings_and_goings_does(routed: Routed) -> None:
    routed.send(Subscribe("chat", C1, filter=Filter(types=("user_joined",))))
    routed.send(Subscribe("chat", C2, filter=Filter(types=("user_left",))))
    came = came_or_went("user_joined", "chat", 2, "e.3", 2, "c3", None)
    assert routed.send(Subscribe("chat", C3))[1:] == [Deliver(came, ("c1",), skip="c3")]
    went = came_or_went("user_left", "chat", 3, "e.3", 3, "c3", None)
    assert routed.send(Unsubscribe("chat", C3))[1:] == [Deliver(went, ("c2",))]


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
        request = Request(None, offset)
        assert routed.send(Publish(channel, TEXT, request)) == [
            Deliver(published(TEXT, offset, epoch, offset), connections),
            Published(request, f"e-{offset}", channel, offset, epoch),
        ]
    assert len(routed.router.channels()) == 0


@pytest.mark.parametrize("channel", [BROADCAST, user_channel("ann"), connection_channel("c1"), "$", "", "a\nb"])
def test_nobody_joins_a_channel_of_the_servers_own_or_of_no_name(routed: Routed, channel: str) -> None:
    effects = routed.send(Subscribe(channel, C3))
    assert [type(effect) for effect in effects] == [Refused]
    assert routed.router.channels_of("c3") == []
    deliveries = routed.send(Publish(channel, TEXT, NOBODY))[:-1]
    assert channel == BROADCAST or all("c3" not in effect.connections for effect in deliveries)  # type: ignore[union-attr]


def test_the_application_publishes_in_a_users_name_or_in_none(routed: Routed) -> None:
    assert routed.send(Publish("chat", IN_CHAT, NOBODY)) == [Published(NOBODY, "e-1", "chat", 1, "e.3")]
    routed.send(Subscribe("chat", C1))
    assert routed.send(Publish("chat", IN_CHAT, NOBODY, user_id="bob")) == [
        Deliver(published(IN_CHAT, 2, "e.3", 3, None, "bob"), ("c1",)),
        Published(NOBODY, "e-3", "chat", 2, "e.3"),
    ]


def test_a_connection_publishes_in_its_own_name_only(routed: Routed) -> None:
    routed.send(Subscribe("chat", C1))
    effects = routed.send(Publish("chat", IN_CHAT, C3, user_id="ann"))
    assert effects[0] == Deliver(published(IN_CHAT, 1, "e.3", 2, "c3", None), ("c1",))


def test_what_was_sent_to_a_user_who_is_away_keeps_its_number(routed: Routed) -> None:
    assert routed.send(Publish(user_channel("bob"), TEXT, NOBODY)) == [Published(NOBODY, "e-1", "$user:bob", 1, "e.3")]
    assert routed.send(Publish(user_channel("bob"), TEXT, NOBODY)) == [Published(NOBODY, "e-2", "$user:bob", 2, "e.3")]
    routed.attach("c4", "bob")
    assert routed.send(Publish(user_channel("bob"), TEXT, NOBODY)) == [
        Deliver(published(TEXT, 3, "e.3", 3), ("c4",)),
        Published(NOBODY, "e-3", "$user:bob", 3, "e.3"),
    ]


def test_what_was_sent_to_a_connection_before_it_came_keeps_its_number(routed: Routed) -> None:
    own = connection_channel("c4")
    assert routed.send(Publish(own, TEXT, NOBODY)) == [Published(NOBODY, "e-1", own, 1, "e.3")]
    assert routed.router.next_timeout() == 400.0
    routed.attach("c4")
    assert routed.router.next_timeout() is None
    assert routed.send(Publish(own, TEXT, NOBODY)) == [
        Deliver(published(TEXT, 2, "e.3", 2), ("c4",)),
        Published(NOBODY, "e-2", own, 2, "e.3"),
    ]


def test_the_channel_of_a_connection_ends_with_it(routed: Routed) -> None:
    own = connection_channel("c3")
    routed.send(Publish(own, TEXT, NOBODY))
    routed.detach("c3")
    assert routed.router.next_timeout() is None
    routed.attach("c3")
    assert routed.send(Publish(own, TEXT, NOBODY)) == [
        Deliver(published(TEXT, 1, "e.4", 2), ("c3",)),
        Published(NOBODY, "e-2", own, 1, "e.4"),
    ]
    assert routed.router.history_bytes == 0  # nobody comes back to it


# What namespaces say


def governed(**options: object) -> Routed:
    namespace = Namespace(pattern="chat", **options)  # type: ignore[arg-type]
    routed = Routed(RouterConfig(namespaces=Namespaces((namespace,))))
    routed.attach("c1", "ann")
    routed.attach("c2", "ann")
    return routed


def test_where_only_the_server_publishes() -> None:
    routed = governed(publish=Access.SERVER)
    routed.send(Subscribe("chat", C1))
    refusal = Refusal("publish_denied", "only the server may publish to this channel", status=403)
    assert routed.send(Publish("chat", IN_CHAT, C1)) == [Refused(C1, refusal)]
    assert routed.send(Publish("chat", IN_CHAT, NOBODY))[-1] == Published(NOBODY, "e-2", "chat", 1, "e.3")


def test_where_only_members_publish() -> None:
    routed = governed(publish=Access.MEMBERS)
    routed.send(Subscribe("chat", C1))
    refusal = Refusal("publish_denied", "only members may publish to this channel: join it first", status=403)
    assert routed.send(Publish("chat", IN_CHAT, C2)) == [Refused(C2, refusal)]  # though the user is one
    assert routed.send(Publish("chat", IN_CHAT, C1))[-1] == Published(C1, "e-2", "chat", 1, "e.3")
    assert routed.send(Publish("chat", IN_CHAT, NOBODY))[-1] == Published(NOBODY, "e-3", "chat", 2, "e.3")
    routed.send(Unsubscribe("chat", C1))
    # Under another id: what was published before is published.
    assert routed.send(Publish("chat", IN_CHAT, Request("c1", "r9"))) == [Refused(Request("c1", "r9"), refusal)]


def test_messages_to_a_channel_may_be_smaller_than_others() -> None:
    routed = governed(max_message_size=len('{"type":"text","channel":"chat"}'))
    assert routed.send(Publish("chat", IN_CHAT, C1))[-1] == Published(C1, "e-1", "chat", 1, "e.3")
    refusal = Refusal("message_too_large", "a message to this channel has at most 32 bytes", status=413)
    large: Message = {**IN_CHAT, "x": 1}
    assert routed.send(Publish("chat", large, C2)) == [Refused(C2, refusal)]
    assert routed.send(Publish("chat", large, NOBODY)) == [Refused(NOBODY, refusal)]
    assert routed.send(Publish("news", large, NOBODY))[-1] == Published(NOBODY, "e-2", "news", 1, "e.4")


def test_where_nobody_knows_who_is_there() -> None:
    routed = governed(presence=False)
    effects = routed.send(Subscribe("chat", C1))
    assert [getattr(effect, "roster", 0) for effect in effects] == [None]
    refusal = Refusal("presence_disabled", "this channel does not know who is there", 403)
    assert routed.router.roster("chat") == refusal
    routed.attach("c3")
    assert [getattr(effect, "roster", 0) for effect in routed.send(Subscribe("chat", C3))] == [None]
    assert routed.detach("c3") == []


def test_where_nobody_is_told_who_comes_and_goes() -> None:
    routed = governed(join_leave=False)
    routed.attach("c3")
    routed.send(Subscribe("chat", C3))
    assert routed.send(Subscribe("chat", C1)) == [joined(C1, "chat", 0, "e.3", (None, "c3"), ("ann", "c1"))]
    assert routed.send(Unsubscribe("chat", C1)) == [Left(C1, "chat")]
    assert routed.router.roster("chat") == Roster(1, [{"user_id": None, "connection_id": "c3"}], "e.3p", 0)


@pytest.mark.parametrize(
    ("policy", "key"),
    [(SlowConsumer.DISCONNECT, ""), (SlowConsumer.DROP_OLDEST, ""), (SlowConsumer.LATEST, "pump 5")],
)
def test_publications_say_what_becomes_of_them_on_their_way(policy: SlowConsumer, key: str) -> None:
    routed = governed(slow_consumer=policy, conflation_key="device")
    routed.send(Subscribe("chat", C1))
    routed.attach("c3")
    told = routed.send(Subscribe("chat", C3))[1]
    said = routed.send(Publish("chat", {**IN_CHAT, "device": "pump 5"}, C1))[0]
    other = routed.send(Publish("chat", IN_CHAT, C2))[0]
    assert isinstance(told, Deliver)
    assert isinstance(said, Deliver)
    assert isinstance(other, Deliver)
    source = said.message.source
    assert source is not None
    assert (source.channel, source.epoch, source.offset) == ("chat", "e.3", 1)
    assert (source.policy, source.key, source.presence) == (policy, key, False)
    assert other.message.source is not None
    assert (other.message.source.offset, other.message.source.key) == (2, "")
    change = told.message.source
    assert change is not None
    assert (change.channel, change.epoch, change.offset) == ("chat", "e.3p", 2)
    assert (change.policy, change.presence) == (policy, True)
    assert change.key == ("None/c3" if policy is SlowConsumer.LATEST else "")


def test_a_connection_joins_so_many_channels_and_no_more() -> None:
    routed = Routed(RouterConfig(max_channels=2))
    routed.attach("c1")
    routed.send(Subscribe("a", C1))
    routed.send(Subscribe("b", C1))
    message = "a connection may join at most 2 channels: leave one first"
    refused = Refused(C1, Refusal("too_many_channels", message, status=429))
    assert routed.send(Subscribe("c", C1)) == [refused]
    there = routed.router.roster("c")
    assert isinstance(there, Roster)
    assert (there.count, there.members) == (0, [])
    assert routed.send(Subscribe("a", C1)) == [joined(C1, "a", 0, "e.2", (None, "c1"), changes=1)]
    routed.send(Unsubscribe("a", C1))
    assert routed.send(Subscribe("c", C1)) == [joined(C1, "c", 0, "e.5", (None, "c1"), changes=1)]


# Misuse


def test_a_connection_is_attached_once(routed: Routed) -> None:
    with pytest.raises(LocalProtocolError, match="'c1' is attached already"):
        routed.attach("c1", "bob")
    assert routed.router.users == ["ann"]


@pytest.mark.parametrize("command", [Publish("chat", TEXT, Request("c9")), Subscribe("chat", Request("c9"))])
def test_only_attached_connections_ask_for_things(routed: Routed, command: Publish | Subscribe) -> None:
    for misuse in (command, Unsubscribe("chat", Request("c9"))):
        with pytest.raises(LocalProtocolError, match="'c9' is not attached"):
            routed.send(misuse)
    assert routed.router.next_timeout() is None
    assert routed.router.channels() == []


def test_only_attached_connections_are_known(routed: Routed) -> None:
    with pytest.raises(LocalProtocolError):
        routed.detach("c9")
    with pytest.raises(LocalProtocolError):
        routed.router.channels_of("c9")
    with pytest.raises(LocalProtocolError):
        routed.router.resume("c9", None, now=100.0)


@pytest.mark.parametrize("channel", ["chat", "unheard of", connection_channel("c3")])
def test_a_message_that_is_no_json_changes_nothing(routed: Routed, channel: str) -> None:
    request = Request("c3", "r3")
    routed.send(Subscribe("chat", C1))
    deadline = routed.router.next_timeout()
    with pytest.raises(LocalProtocolError, match="must be JSON"):
        routed.send(Publish(channel, {"type": "text", "data": object()}, request))
    assert routed.router.next_timeout() == deadline
    outcome = routed.send(Publish(channel, TEXT, request))[-1]
    assert isinstance(outcome, Published)
    assert (outcome.id, outcome.offset, outcome.repeated) == ("e-2", 1, False)
