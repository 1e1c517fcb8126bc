"""The node: who comes and goes, and when."""

from __future__ import annotations

import attrs
import pytest

from rtcore.channels import BROADCAST, connection_channel, user_channel
from rtcore.errors import CloseCode, LocalProtocolError, Refusal
from rtcore.messages import Message, cursor
from rtcore.node import Close, NodeConfig, disconnect_message
from rtcore.permissions import OPEN, Identity
from rtcore.rate_limit import RateLimit, RateLimitConfig
from rtcore.router import Deliver, Refused, Request, RouterConfig
from rtcore.session import Transport

from .node_talk import (
    STAMP,
    Served,
    came_or_went,
    connected,
    encoded,
    error,
    roster,
    small_node,
    to,
)


@pytest.fixture
def served() -> Served:
    return small_node()


# Coming


def test_connecting() -> None:
    served = Served(NodeConfig(websocket_heartbeat=25.0, sse_heartbeat=None))
    assert served.connect("c1", "ann") == [connected("c1", "ann", heartbeat_interval=25.0)]
    assert served.connect("c2", None, transport=Transport.SSE) == [
        Deliver(cursor("e-0"), ("c2",)),
        connected("c2", None, heartbeat_interval=None),
        Deliver(cursor("e-0"), ("c2",)),
    ]
    assert ("c1" in served.node, "c9" in served.node, len(served.node)) == (True, False, 2)


def test_connecting_with_channels(served: Served) -> None:
    presence = {
        "chat": roster(("bob", "c4"), epoch="e.4p", offset=1),
        "news": roster(("bob", "c4"), epoch="e.5p", offset=1),
    }
    assert served.connect("c4", "bob", "chat", "news", "chat") == [
        connected("c4", "bob", "chat", "news", at="e-2", presence=presence)
    ]
    presence = {"news": roster(("bob", "c4"), (None, "c5"), epoch="e.5p", offset=2)}
    assert served.connect("c5", None, "news") == [
        connected("c5", None, "news", at="e-3", presence=presence),
        Deliver(came_or_went("user_joined", "news", 2, "e.5", 3, "c5", None), ("c4", "c5"), skip="c5"),
    ]


@pytest.mark.parametrize(
    ("channel", "message"),
    [
        ("$user:ann", "names that begin with '$' are the server's own: choose another"),
        ("$broadcast", "names that begin with '$' are the server's own: choose another"),
        ("", "a channel's name is 1 to 255 printable characters"),
        ("a\nb", "a channel's name is 1 to 255 printable characters"),
    ],
)
def test_connecting_with_a_channel_that_may_not_be_joined(served: Served, channel: str, message: str) -> None:
    presence = {
        name: roster((None, "c4"), epoch=f"{epoch}p", offset=1) for name, epoch in (("chat", "e.3"), ("news", "e.4"))
    }
    assert served.connect("c4", None, "chat", channel, "news") == [
        connected("c4", None, "chat", "news", at="e-2", presence=presence),
        error("c4", "invalid_channel", message, None),
    ]
    delivered = served.publish(user_channel("ann"), {"type": "text"})[0]
    assert isinstance(delivered, Deliver)
    assert delivered.connections == ("c1", "c2")


def test_connecting_with_more_channels_than_allowed() -> None:
    served = Served(NodeConfig(router=RouterConfig(max_channels=1)))
    assert served.connect("c1", None, "a", "b") == [
        connected("c1", None, "a", at="e-1", presence={"a": roster((None, "c1"), epoch="e.2p", offset=1)}),
        error("c1", "too_many_channels", "a connection may join at most 1 channels: leave one first", None),
    ]


def test_connecting_twice_is_misuse(served: Served) -> None:
    before = served.node.stats(), served.node.next_timeout()
    with pytest.raises(LocalProtocolError, match="'c1' is attached already"):
        served.connect("c1", "bob", "chat")
    assert (served.node.stats(), served.node.next_timeout()) == before


FULL = Refusal("full", "the server is full: try again later", 503, retry_after=9)
DRAINING = Refusal("draining", "the server is about to stop: connect again", 503, retry_after=9)


@pytest.mark.parametrize(
    ("limits", "websocket", "sse"),
    [
        ({}, None, None),
        ({"max_connections": 2}, FULL, FULL),
        ({"max_connections": 3}, None, None),
        ({"max_websocket": 1}, FULL, None),
        ({"max_sse": 1}, None, FULL),
        ({"max_websocket": 2, "max_sse": 2}, None, None),
        ({"max_websocket": 0, "max_sse": 0}, FULL, FULL),
    ],
)
def test_admission(limits: dict[str, int], websocket: Refusal | None, sse: Refusal | None) -> None:
    served = Served(attrs.evolve(NodeConfig(retry_after=9), **limits))  # type: ignore[arg-type]
    served.connect("c1", None)
    served.connect("c2", None, transport=Transport.SSE)
    assert served.node.admit(Transport.WEBSOCKET) == websocket
    assert served.node.admit(Transport.SSE) == sse


def test_who_leaves_makes_room() -> None:
    served = Served(NodeConfig(max_connections=1, retry_after=9))
    served.connect("c1", None)
    assert served.node.admit(Transport.SSE) == FULL
    served.disconnect("c1")
    assert served.node.admit(Transport.SSE) is None


def test_who_a_connection_is() -> None:
    served = Served(NodeConfig())
    served.connect("c1", "ann")
    assert served.node.identity("c1") == Identity("ann", OPEN)
    assert served.node.identity("c2") is None


# Membership from outside


def test_joining_from_outside(served: Served) -> None:
    served.command("c3", "join_channel", channel="chat")
    subscribe, unsubscribe = served.node.subscribe, served.node.unsubscribe
    assert subscribe("c1", "chat", now=100.0, timestamp=STAMP) == [
        Deliver(came_or_went("user_joined", "chat", 2, "e.3", 2, "c1", "ann"), ("c3", "c1"), skip="c1")
    ]
    assert subscribe("c1", "chat", now=100.0, timestamp=STAMP) == []
    assert unsubscribe("c1", "chat", now=100.0, timestamp=STAMP) == [
        Deliver(came_or_went("user_left", "chat", 3, "e.3", 3, "c1", "ann"), ("c3",))
    ]
    assert unsubscribe("c1", "chat", now=100.0, timestamp=STAMP) == []


def test_refusals_from_outside(served: Served) -> None:
    unknown = Refused(Request(None), Refusal("not_found", "there is no connection 'c9'", status=404))
    assert served.node.subscribe("c9", "chat", now=100.0, timestamp=STAMP) == [unknown]
    assert served.node.unsubscribe("c9", "chat", now=100.0, timestamp=STAMP) == [unknown]
    own = Refusal("invalid_channel", "names that begin with '$' are the server's own: choose another")
    assert served.node.subscribe("c1", "$user:bob", now=100.0, timestamp=STAMP) == [Refused(Request(None), own)]


# Going


def test_disconnecting(served: Served) -> None:
    for connection_id in ("c1", "c2", "c3"):
        served.command(connection_id, "join_channel", channel="chat")
    assert served.disconnect("c1") == []
    assert served.disconnect("c2") == []
    assert served.disconnect("c2") == []
    assert served.wait_until(105.0) == [Deliver(came_or_went("user_left", "chat", 3, "e.3", 3, "c2", "ann"), ("c3",))]
    assert served.disconnect("never seen") == []
    assert ("c2" in served.node, len(served.node), served.node.stats()["websocket_count"]) == (False, 1, 1)


def test_closing_says_why(served: Served) -> None:
    for connection_id in ("c1", "c3"):
        served.command(connection_id, "join_channel", channel="chat")
    disconnect: Message = {"type": "disconnect", "code": 4403, "reason": "banned", "reconnect": False}
    assert served.node.close("c1", CloseCode.FORBIDDEN, "banned", now=100.0, timestamp=STAMP) == [
        to("c1", disconnect),
        Close("c1", 4403, "banned"),
    ]
    assert "c1" not in served.node
    assert served.node.close("c3", CloseCode.GOING_AWAY, "", now=100.0, timestamp=STAMP)[1:] == [Close("c3", 1001, "")]
    assert served.node.close("c1", CloseCode.FORBIDDEN, "banned", now=100.0, timestamp=STAMP) == []


@pytest.mark.parametrize(("reconnect", "told"), [(None, True), (True, True), (False, False)])
def test_closing_says_whether_to_come_back(served: Served, reconnect: bool | None, told: bool) -> None:
    disconnect: Message = {"type": "disconnect", "code": 1011, "reason": "", "reconnect": told}
    assert served.node.close("c3", 1011, "", reconnect=reconnect, now=100.0, timestamp=STAMP) == [
        to("c3", disconnect),
        Close("c3", 1011, ""),
    ]


def test_a_farewell_may_say_when_to_come_back() -> None:
    assert disconnect_message(CloseCode.RATE_LIMITED, "slow down", retry_after=2.5) == {
        "type": "disconnect",
        "code": 4429,
        "reason": "slow down",
        "reconnect": True,
        "retry_after": 2.5,
    }


def test_draining(served: Served) -> None:
    for connection_id in ("c1", "c3"):
        served.command(connection_id, "join_channel", channel="chat")
    reason = "the server is restarting"
    farewell: Message = {"type": "disconnect", "code": 1012, "reason": reason, "reconnect": True}
    assert not served.node.draining
    assert served.node.drain(now=100.0, timestamp=STAMP) == [
        Deliver(encoded(farewell), ("c1", "c2", "c3")),
        *(Close(connection_id, 1012, reason) for connection_id in ("c1", "c2", "c3")),
    ]
    assert (served.node.draining, len(served.node)) == (True, 0)
    assert served.node.admit(Transport.SSE) == attrs.evolve(DRAINING, retry_after=5)
    assert served.node.drain(now=100.0, timestamp=STAMP) == []


# Time


def heartbeat(*connections: str) -> Deliver:
    return Deliver(encoded({"type": "heartbeat", "timestamp": STAMP}), connections)


def test_heartbeats_go_to_all_who_are_due_at_once() -> None:
    served = Served(NodeConfig(websocket_heartbeat=30.0, sse_heartbeat=15.0))
    assert served.node.next_timeout() is None
    served.connect("c1", None)
    served.connect("c2", None)
    served.connect("c3", None, transport=Transport.SSE)
    assert served.node.next_timeout() == 115.0
    assert served.wait_until(114.9) == []
    assert served.wait_until(115.0) == [heartbeat("c3")]
    assert served.wait_until(131.0) == [heartbeat("c1", "c2", "c3")]
    assert served.node.next_timeout() == 146.0
    served.disconnect("c3")
    assert served.node.next_timeout() == 161.0


def test_without_heartbeats_only_what_is_held_has_deadlines() -> None:
    served = Served(NodeConfig(websocket_heartbeat=None))
    assert served.node.next_timeout() is None
    served.connect("c1", None, "chat")
    assert served.node.next_timeout() == 400.0  # c1 has come
    served.now = 150.0
    served.disconnect("c1")
    assert served.wait_until(400.0) == []
    assert served.node.next_timeout() == 450.0  # c1 has gone, and nobody hears what is for everybody
    assert served.wait_until(450.0) == []
    assert (served.node.next_timeout(), served.node.empty) == (None, True)


def test_once_everybody_has_left_and_time_has_passed_nothing_remains() -> None:
    limits = RateLimitConfig(user=RateLimit(messages=0.001), connection=RateLimit(messages=5.0))
    served = Served(NodeConfig(rate_limits=limits))
    assert served.node.empty
    served.connect("c1", "ann", "chat", session="secret")
    served.connect("c2", None, "chat", transport=Transport.SSE)
    served.receive("c1", {"type": "text", "channel": "chat", "id": "1"})
    served.receive("c1", {"type": "text", "recipient_id": "bob"})
    served.publish(connection_channel("c9"), {"type": "text"})
    served.publish(BROADCAST, {"type": "text"})
    for connection_id in ("c1", "c2"):
        served.disconnect(connection_id)
    assert not served.node.empty
    steps = 0
    while (at := served.node.next_timeout()) is not None:
        served.wait_until(at)
        steps += 1
    assert (served.node.empty, served.node.stats()["history_bytes"], steps < 20) == (True, 0, True)
    assert served.now == 1100.0  # by then ann has been silent for as long as the first message took
