"""The node: what somebody who comes back is told again, in which order, and what an event stream remembers of it."""

from __future__ import annotations

import json

import pytest

from rtcore.channels import BROADCAST, user_channel
from rtcore.encoded import Encoded
from rtcore.errors import Refusal
from rtcore.event_stream import EventStreamParser
from rtcore.messages import Message, cursor, encode
from rtcore.namespaces import Namespace, Namespaces
from rtcore.node import NodeConfig, NodeEffect
from rtcore.router import Deliver, RouterConfig
from rtcore.session import Transport

from .node_talk import (
    STAMP,
    Served,
    came_or_went,
    connected,
    encoded,
    error,
    gap,
    ok,
    presence_gap,
    published,
    roster,
    to,
)

IN_CHAT: Message = {"type": "text", "channel": "chat"}


def node(**options: object) -> Served:
    """Return a node whose channels speak of nothing but publications."""
    default = Namespace(pattern="*", presence=False, **options)  # type: ignore[arg-type]
    return Served(NodeConfig(router=RouterConfig(namespaces=Namespaces(default=default))))


def kept(channel: str, n: int) -> Message:
    message: Message = {"type": "text", "channel": channel, "n": n, "persistent": True}
    return message


def last_event_id(effects: list[NodeEffect], connection_id: str, begins_with: str = "") -> str:
    """Return what an ``EventSource`` says that it has heard, after these."""
    parser = EventStreamParser(last_event_id=begins_with)
    for effect in effects:
        if isinstance(effect, Deliver) and connection_id in effect.connections:
            parser.receive_data(effect.message.event_stream)
    return parser.last_event_id


# Joining


def test_the_answer_comes_first_then_what_was_missed() -> None:
    served = node()
    served.connect("c1", None)
    for _ in range(3):
        served.publish("chat", IN_CHAT)
    since = {"epoch": "e.2", "offset": 1}
    stands: Message = {"channel": "chat", "offset": 3, "epoch": "e.2", "recovered": True, "replayed": 2}
    assert served.command("c1", "join_channel", channel="chat", since=since) == [
        ok("c1", stands),
        *(Deliver(published(IN_CHAT, n, "e.2", n), ("c1",)) for n in (2, 3)),
    ]
    lost: Message = {**stands, "recovered": False, "replayed": 0}
    since = {"epoch": "e.9", "offset": 1}
    assert served.command("c1", "join_channel", channel="chat", since=since) == [ok("c1", lost)]


def test_without_an_id_one_is_told_what_was_missed_all_the_same() -> None:
    served = node()
    served.connect("c1", None)
    served.publish("chat", IN_CHAT)
    data = {"channel": "chat", "since": {"epoch": "e.2", "offset": 0}}
    assert served.receive("c1", {"type": "command", "command": "join_channel", "data": data}) == [
        Deliver(published(IN_CHAT, 1, "e.2", 1), ("c1",))
    ]


def test_changes_are_recovered_beside_the_publications() -> None:
    served = Served()
    served.connect("c1", "ann", "chat")
    served.connect("c2", "bob", "chat")
    since = {"epoch": "e.3p", "offset": 1}
    answer: Message = {"channel": "chat", "offset": 0, "epoch": "e.3", "replayed": 0}
    there = roster(("ann", "c1"), ("bob", "c2"), epoch="e.3p", offset=2, recovered=True)
    assert served.command("c1", "join_channel", channel="chat", presence_since=since) == [
        ok("c1", {**answer, "presence": there}),
        Deliver(came_or_went("user_joined", "chat", 2, "e.3", 2, "c2", "bob"), ("c1",)),
    ]


def test_a_crowd_is_announced_to_who_makes_it_too() -> None:
    served = Served(NodeConfig(router=RouterConfig(presence_limit=1)))
    served.connect("c1", "ann", "chat")
    crowd: Message = {"count": 2, "users": None, "epoch": "e.3p2", "offset": 0}
    assert served.connect("c2", "bob", "chat") == [
        connected("c2", "bob", "chat", at="e-1", presence={"chat": crowd}),
        Deliver(presence_gap("chat", "e.3p2"), ("c1", "c2")),
    ]


# Connecting


def test_coming_back_with_a_token() -> None:
    served = node()
    served.connect("c1", "ann", "chat")
    served.disconnect("c1")
    served.publish("chat", IN_CHAT)
    served.publish(user_channel("ann"), {"type": "text"})
    served.publish("other", {"type": "text"})
    served.publish(BROADCAST, {"type": "text"})
    said = [published(IN_CHAT, 1, "e.3", 1), published({"type": "text"}, 1, "e.1", 2)]
    said.append(published({"type": "text"}, 1, "e.2", 4))
    for heard, name in enumerate("abcde"):
        for transport in Transport:
            marks = [Deliver(cursor("e-4"), (name,))] if transport is Transport.SSE else []
            token = f"e-{heard}"
            assert served.connect(name, "ann", "chat", transport=transport, last_event_id=token) == [
                connected(name, "ann", "chat", at=token, recovered=True),
                *(Deliver(each, (name,)) for each, seq in zip(said, (1, 2, 4), strict=True) if seq > heard),
                *marks,
            ]
            served.disconnect(name)


def test_everything_is_in_its_order() -> None:
    short = Namespaces(default=Namespace(pattern="*", history_size=1))
    served = Served(NodeConfig(router=RouterConfig(namespaces=short)))
    served.connect("c1", None, "news")
    served.publish("chat", kept("chat", 2))
    for n in (3, 4):
        served.publish("news", {"type": "text", "channel": "news", "n": n})
    effects = served.connect("c2", None, "chat", "", "news", transport=Transport.SSE, last_event_id="e-1")
    presence = {
        "chat": roster((None, "c2"), epoch="e.3p", offset=1),
        "news": roster((None, "c1"), (None, "c2"), epoch="e.2p", offset=2),
    }
    came = came_or_went("user_joined", "news", 2, "e.2", 6, "c2", None)
    lost = gap("news", "e.2", 1, "history_lost")
    assert effects == [
        connected("c2", None, "chat", "news", at="e-1", recovered=False, gaps=[lost], presence=presence),
        error("c2", "invalid_channel", "a channel's name is 1 to 255 printable characters", None),
        Deliver(encoded(lost, "e-1"), ("c2",)),
        Deliver(published(kept("chat", 2), 1, "e.3", 2), ("c2",)),
        Deliver(published({"type": "text", "channel": "news", "n": 4}, 2, "e.2", 4), ("c2",)),
        Deliver(came_or_went("user_joined", "chat", 1, "e.3", 5, "c2", None), ("c2",)),
        Deliver(came, ("c2",)),
        Deliver(cursor("e-6"), ("c2",)),
        Deliver(came, ("c1", "c2"), skip="c2"),
    ]


@pytest.mark.parametrize(
    ("token", "reason"), [("f-0", "foreign_token"), ("?", "invalid_token"), ("e-9", "invalid_token")]
)
def test_a_token_that_means_nothing_is_a_gap_in_every_channel(token: str, reason: str) -> None:
    served = node()
    served.publish("chat", kept("chat", 1))
    gaps = [
        gap(channel, epoch, offset, reason)
        for channel, epoch, offset in [(BROADCAST, "e.3", 0), ("$user:ann", "e.2", 0), ("chat", "e.1", 1)]
    ]
    told = published(kept("chat", 1), 1, "e.1", 1).with_id("e-1.1")
    # On a WebSocket they are in the first message, and on an event stream they are events as well.
    assert served.connect("c1", "ann", "chat", last_event_id=token) == [
        connected("c1", "ann", "chat", at="e-1.0", recovered=False, gaps=gaps),
        Deliver(told, ("c1",)),
    ]
    assert served.connect("c2", "ann", "chat", transport=Transport.SSE, last_event_id=token) == [
        connected("c2", "ann", "chat", at="e-1.0", recovered=False, gaps=gaps),
        *(to("c2", each) for each in gaps[:-1]),
        # Whoever has heard of the last has heard of all.
        Deliver(encoded(gaps[-1], "e-1.0"), ("c2",)),
        *(Deliver(told, ("c2",)), Deliver(cursor("e-1"), ("c2",))),
    ]


def test_an_empty_token_is_none() -> None:
    assert node().connect("c1", None, last_event_id="") == [connected("c1", None)]


# What an event stream remembers


def test_nothing_but_what_was_published_moves_the_position() -> None:
    served = Served()
    effects = served.connect("c1", "ann", "chat", "", transport=Transport.SSE)
    assert last_event_id(effects, "c1") == "e-1"
    assert [each.message.id for each in effects if isinstance(each, Deliver)] == [*("e-1", None, None, "e-1")]
    assert last_event_id(served.publish(BROADCAST, {"type": "text"}), "c1") == "e-2"
    assert last_event_id(served.connect("c2", None, "chat"), "c1") == "e-3"
    heartbeat = served.wait_until(130.0)
    assert last_event_id(heartbeat, "c1", "e-3") == "e-3"
    farewell = served.node.close("c1", 4403, "", now=served.now, timestamp=STAMP)
    assert last_event_id(farewell, "c1", "e-3") == "e-3"


def test_only_the_last_gap_moves_it() -> None:
    served = node()
    effects = served.connect("c1", None, "chat", transport=Transport.SSE, last_event_id="f-7")
    positions = [last_event_id(effects[:cut], "c1", "f-7") for cut in range(len(effects) + 1)]
    assert positions == ["f-7", "f-7", "f-7", "e-0", "e-0"]


def test_a_websocket_has_no_cursor() -> None:
    effects = node().connect("c1", None)
    assert all(effect.message.json for effect in effects if isinstance(effect, Deliver))


def test_an_event_stream_that_is_cut_anywhere_hears_everything_once() -> None:
    """Whatever was heard before the cut is not heard again, and whatever was not is."""
    served = node()
    for n in (1, 2, 3):
        served.publish("chat", kept("chat", n))
    served.publish("news", kept("news", 4))
    first = served.connect("c0", None, "chat", "news", transport=Transport.SSE)
    served.publish("chat", kept("chat", 5))
    served.publish("news", {"type": "text", "channel": "news", "n": 6})
    for cut in range(1, len(first) + 1):
        token = last_event_id(first[:cut], "c0")
        assert token  # from the first on
        name = f"c{cut}"
        second = served.connect(name, None, "chat", "news", transport=Transport.SSE, last_event_id=token)
        numbers = [
            json.loads(effect.message.json)["n"]
            for effect in [*first[:cut], *second]
            if isinstance(effect, Deliver) and effect.message.json.startswith(b'{"type":"text"')
        ]
        assert numbers == [1, 2, 3, 4, 5, 6]


def test_what_a_stream_that_joins_later_is_told_again_does_not_take_its_position_back() -> None:
    served = node()
    served.publish("chat", kept("chat", 1))
    served.publish(BROADCAST, {"type": "text"})
    served.connect("c1", None, transport=Transport.SSE)
    served.connect("c2", None)
    said = published(kept("chat", 1), 1, "e.1", 1)
    for name, told in (("c1", said.with_id(None)), ("c2", said)):
        effects = served.node.subscribe(name, "chat", now=served.now, timestamp=STAMP)
        assert effects == [Deliver(told, (name,))]
    assert last_event_id(served.publish("chat", IN_CHAT), "c1") == "e-3"


def test_a_stream_that_joins_later_tells_the_others() -> None:
    served = Served()
    served.connect("c1", None, "chat")
    served.connect("c2", None, transport=Transport.SSE)
    came = came_or_went("user_joined", "chat", 2, "e.2", 2, "c2", None)
    assert served.node.subscribe("c2", "chat", now=100.0, timestamp=STAMP) == [Deliver(came, ("c1", "c2"), skip="c2")]


# The history


def test_asking_for_history() -> None:
    served = node(history_size=3)
    served.connect("c1", None)
    for n in range(1, 5):
        served.publish("chat", {**IN_CHAT, "n": n})
    said = [published({**IN_CHAT, "n": n}, n, "e.2", n) for n in range(1, 5)]

    def page(*found: Encoded, more: bool, complete: bool) -> Message:
        publications = [json.loads(each.json) for each in found]
        stands: Message = {"channel": "chat", "epoch": "e.2", "offset": 4}
        return {**stands, "publications": publications, "more": more, "complete": complete}

    asked: list[tuple[Message, Message]] = [
        ({"limit": 2}, page(*said[2:], more=True, complete=True)),
        ({"before": 3, "limit": 5}, page(said[1], more=False, complete=False)),
        ({"after": 2, "epoch": "e.2", "limit": 1}, page(said[2], more=True, complete=True)),
        ({}, page(*said[1:], more=False, complete=False)),
    ]
    for data, expected in asked:
        (answer,) = served.command("c1", "history", channel="chat", **data)
        assert answer == ok("c1", expected)
        outcome = served.node.history({"channel": "chat", **data}, now=served.now)
        assert isinstance(outcome, dict)
        assert json.loads(encode(outcome).json) == expected


def test_history_that_there_cannot_be() -> None:
    served = node()
    served.connect("c1", None)
    bad = Refusal("invalid_limit", "'limit' must be a whole number from 1 to 1000")
    assert served.node.history({"channel": "chat", "limit": 0}, now=100.0) == bad
    assert served.command("c1", "history", channel="chat", limit=0) == [error("c1", bad.code, bad.message)]
    changed = served.command("c1", "history", channel="chat", epoch="e.0")
    assert changed == [error("c1", "epoch_changed", "the channel's epoch is 'e.2' now: begin again without bounds")]


def test_who_is_there_may_be_unknown() -> None:
    served = node()
    served.connect("c1", None, "chat")
    refusal = Refusal("presence_disabled", "this channel does not know who is there", 403)
    assert served.node.presence("chat") == refusal
    assert served.command("c1", "presence", channel="chat") == [error("c1", refusal.code, refusal.message)]
