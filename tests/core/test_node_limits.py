"""The node: publications that were made before, and clients that talk too fast."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rtcore.errors import LocalProtocolError, Refusal
from rtcore.messages import Message
from rtcore.namespaces import Access, Namespace, Namespaces
from rtcore.node import Close, NodeConfig, NodeEffect
from rtcore.permissions import EVERYTHING, OPEN, Credential, Grant, Identity
from rtcore.rate_limit import RateLimit, RateLimitConfig
from rtcore.router import Deliver, Published, Refused, Request, RouterConfig

from .node_talk import STAMP, Served, connected, error, ok, published, to, token, unauthorized

IN_CHAT: Message = {"type": "text", "channel": "chat", "id": "7"}


# Repetitions


def test_a_repetition_across_a_reconnect_is_acknowledged_and_not_repeated() -> None:
    served = Served()
    assert served.connect("c1", None, session="secret") == [connected("c1", None, session_epoch="e.1")]
    receipt = ok("c1", {"channel": "chat", "offset": 1, "epoch": "e.2"})
    assert served.receive("c1", IN_CHAT) == [receipt]
    assert served.receive("c1", IN_CHAT) == [receipt]
    assert served.node.stats()["published_messages"] == 1
    served.disconnect("c1")
    assert served.connect("c2", None, session="secret") == [connected("c2", None, at="e-1", session_epoch="e.1")]
    assert served.receive("c2", IN_CHAT) == [ok("c2", {"channel": "chat", "offset": 1, "epoch": "e.2"})]
    assert served.node.stats()["published_messages"] == 1
    assert served.connect("c3", None, session="other") == [connected("c3", None, at="e-1", session_epoch="e.2")]
    assert served.receive("c3", IN_CHAT) == [ok("c3", {"channel": "chat", "offset": 2, "epoch": "e.2"})]


def test_a_session_that_was_gone_for_too_long_is_not_resumed() -> None:
    served = Served(NodeConfig(router=RouterConfig(idempotency_window=60.0)))
    served.connect("c1", None, session="secret")
    served.receive("c1", IN_CHAT)
    served.disconnect("c1")
    served.wait_until(160.0)
    assert served.connect("c2", None, session="secret") == [connected("c2", None, at="e-1", session_epoch="e.2")]


def test_a_refusal_is_told_each_time() -> None:
    closed = Namespace(pattern="chat", publish=Access.SERVER)
    served = Served(NodeConfig(router=RouterConfig(namespaces=Namespaces((closed,)))))
    served.connect("c1", None)
    denied = error("c1", "publish_denied", "only the server may publish to this channel")
    assert [served.receive("c1", IN_CHAT) for _ in range(2)] == [[denied], [denied]]
    assert served.node.stats()["published_messages"] == 0


# Rates


def limited(*, warnings: int = 1, **limits: RateLimit) -> Served:
    return Served(NodeConfig(rate_limits=RateLimitConfig(warnings=warnings, **limits)))


def slow_down(connection_id: str, retry_after: int, identifier: str | None = "7") -> list[NodeEffect]:
    message = f"too many messages: this one was not carried out, send it again in {retry_after} s"
    return [error(connection_id, "rate_limited", message, identifier, retry_after=retry_after)]


def ended(connection_id: str, retry_after: int) -> list[NodeEffect]:
    reason = "too many messages, after several warnings"
    farewell: Message = {"type": "disconnect", "code": 4429, "reason": reason, "reconnect": True}
    return [to(connection_id, {**farewell, "retry_after": retry_after}), Close(connection_id, 4429, reason)]


def is_heard(effects: list[NodeEffect]) -> bool:
    return any(isinstance(effect, Deliver) and b'"ok":true' in effect.message.json for effect in effects)


def publish_for(
    served: Served, user_id: str | None, message: Message = IN_CHAT, *, grant: Grant | None = OPEN, **rest: Any
) -> list[NodeEffect]:
    moment: Any = {"now": served.now, "timestamp": STAMP}
    return served.node.publish("chat", message, user_id=user_id, grant=grant, id="7", **rest, **moment)


def is_made(effects: list[NodeEffect]) -> bool:
    return isinstance(effects[-1], Published)


def test_who_talks_too_fast_is_warned_and_then_ended() -> None:
    served = limited(connection=RateLimit(messages=0.2, message_burst=1), warnings=2)
    served.connect("c1", None, "chat")
    served.connect("c2", None, "chat")
    message: Message = {**IN_CHAT, "id": None}
    assert served.receive("c1", message) == [
        Deliver(published(message, 1, "e.2", 3, "c1"), ("c1", "c2")),
    ]
    assert served.receive("c1", {**message, "id": "8"}) == slow_down("c1", 5, "8")
    served.now += 1.0
    assert served.receive("c1", "hello") == slow_down("c1", 4, None)
    served.now += 1.0
    effects = served.receive("c1", message)
    assert effects[:2] == ended("c1", 3)
    (left,) = effects[2:]
    assert isinstance(left, Deliver)
    assert json.loads(left.message.json)["type"] == "user_left"
    assert left.connections == ("c2",)
    assert ("c1" in served.node, served.node.stats()["websocket_count"]) == (False, 1)
    assert served.node.stats()["refused_messages"] == 3
    # To anybody else nothing has happened.
    assert is_heard(served.receive("c2", IN_CHAT))


def test_who_sends_again_when_told_is_heard() -> None:
    served = limited(connection=RateLimit(messages=0.5, message_burst=1), warnings=1)
    served.connect("c1", None)
    for _ in range(3):
        assert is_heard(served.receive("c1", {"type": "command", "command": "ping", "id": "7"}))
        assert served.receive("c1", IN_CHAT) == slow_down("c1", 2)
        served.now += 2.0
        served.wait_until(served.now)


def test_all_connections_of_a_user_share_a_limit() -> None:
    served = limited(user=RateLimit(messages=0.5, message_burst=2))
    for name, user_id in (("c1", "ann"), ("c2", "ann"), ("c3", "bob"), ("c4", None), ("c5", None)):
        served.connect(name, user_id)
    assert is_heard(served.command("c1", "ping"))
    assert is_heard(served.command("c2", "ping"))
    assert served.command("c1", "ping") == slow_down("c1", 2)
    assert served.command("c2", "ping") == slow_down("c2", 2)
    # Warnings are each connection's own.
    served.now += 1.0
    assert served.command("c2", "ping") == ended("c2", 1)
    assert "c1" in served.node
    for name in ("c3", "c4", "c5"):
        assert is_heard(served.command(name, "ping"))
    for _ in range(10):
        assert is_heard(served.command("c4", "ping"))


def test_coming_back_is_no_way_around_a_limit() -> None:
    served = limited(user=RateLimit(messages=0.5, message_burst=2))
    for number in range(2):
        served.connect(f"c{number}", "ann")
        assert is_heard(served.command(f"c{number}", "ping"))
        served.disconnect(f"c{number}")
    served.connect("c9", "ann")
    assert served.command("c9", "ping") == slow_down("c9", 2)
    served.disconnect("c9")
    # It is remembered until it is as good as new.
    served.wait_until(102.0)
    served.connect("c10", "ann")
    assert is_heard(served.command("c10", "ping"))
    assert served.command("c10", "ping") == slow_down("c10", 2)
    served.disconnect("c10")
    served.wait_until(106.0)
    assert not len(served.node._limiters)


def test_who_is_back_is_not_forgotten_meanwhile() -> None:
    served = limited(user=RateLimit(messages=0.5, message_burst=2))
    served.connect("c1", "ann")
    assert is_heard(served.command("c1", "ping"))
    served.disconnect("c1")
    served.connect("c2", "ann")
    served.wait_until(102.0)
    for _ in range(2):
        assert is_heard(served.command("c2", "ping"))
    served.connect("c3", "ann")
    assert served.command("c3", "ping") == slow_down("c3", 2)


def test_a_user_who_was_silent_leaves_nothing_behind() -> None:
    served = limited(user=RateLimit())
    served.connect("c1", "ann")
    served.disconnect("c1")
    assert served.node.next_timeout() == 100.0
    served.wait_until(100.0)
    assert not len(served.node._limiters)


def test_what_a_user_says_without_a_connection_counts_too() -> None:
    served = limited(user=RateLimit(messages=0.5, message_burst=2))
    served.connect("c1", "ann")
    assert is_made(publish_for(served, "ann"))
    assert is_heard(served.command("c1", "ping"))
    text = "too many messages: this one was not carried out, send it again in 2 s"
    refusal = Refusal("rate_limited", text, 429, retry_after=2)
    assert (
        publish_for(served, "ann")
        == publish_for(served, "ann", consults=True)
        == [Refused(Request(None, "7"), refusal)]
    )
    assert served.command("c1", "ping") == slow_down("c1", 2)
    assert served.node.throttle(Identity("ann", OPEN), IN_CHAT, now=served.now) == refusal
    assert is_made(publish_for(served, "bob"))
    served.now += 2.0
    assert served.node.throttle(Identity("ann", OPEN), IN_CHAT, now=served.now) is None
    assert served.command("c1", "ping") == slow_down("c1", 2)
    # It is remembered for as long as it matters, connections or not.
    served.disconnect("c1")
    served.connect("c2", "ann")
    assert served.command("c2", "ping") == slow_down("c2", 2)
    served.disconnect("c2")
    for user_id in ("ann", "bob"):
        assert user_id in served.node._limiters._users
    served.wait_until(106.0)
    assert not len(served.node._limiters)


def test_a_user_who_is_connected_has_one_limit_for_good() -> None:
    served = limited(user=RateLimit(messages=0.5, message_burst=2))
    served.connect("c1", "ann")
    assert is_made(publish_for(served, "ann"))
    # By now it is as good as new, and would be forgotten if nobody were there.
    served.wait_until(110.0)
    assert is_made(publish_for(served, "ann"))
    assert is_heard(served.command("c1", "ping"))
    assert not is_made(publish_for(served, "ann", {**IN_CHAT, "n": 1}))
    assert served.command("c1", "ping") == slow_down("c1", 2)


def test_what_a_user_says_is_counted_in_bytes() -> None:
    served = limited(user=RateLimit(bytes=10, byte_burst=300))
    message: Message = {"type": "text", "text": "x" * 200}
    assert is_made(publish_for(served, "ann", message))
    assert not is_made(publish_for(served, "ann", message))
    with pytest.raises(LocalProtocolError):
        publish_for(served, "bob", {"type": "text", "text": object()})
    assert is_made(publish_for(served, "bob", message))


@pytest.mark.parametrize(
    ("user_id", "grant"),
    [("ann", None), ("ann", Grant(credential=Credential.KEY)), (None, OPEN), (None, EVERYTHING)],
)
def test_programs_are_not_held_to_the_rate_of_users(user_id: str | None, grant: Grant | None) -> None:
    served = limited(user=RateLimit(messages=0.5, message_burst=2))
    for _ in range(5):
        assert is_made(publish_for(served, user_id, grant=grant))
    assert not len(served.node._limiters)


def test_a_user_whose_only_connection_ends_by_itself_leaves_nothing_behind() -> None:
    rates = RateLimitConfig(user=RateLimit(messages=0.5, message_burst=2))
    served = Served(NodeConfig(rate_limits=rates, websocket_heartbeat=None))
    served.connect("c1", "ann", grant=token(expires_in=20.0))
    served.now = 119.0
    assert is_heard(served.command("c1", "ping"))
    assert served.wait_until(120.0) == unauthorized("c1", "the token has expired")
    assert served.node.next_timeout() == 121.0
    assert served.wait_until(121.0) == []
    assert not len(served.node._limiters)
    served.connect("c2", "ann", grant=token(expires_in=30.0))
    assert served.wait_until(151.0) == unauthorized("c2", "the token has expired")
    # It was as good as new: what is due then must not be due still.
    assert not len(served.node._limiters)


def test_a_connection_that_is_held_back_does_not_use_up_what_others_share() -> None:
    served = limited(
        user=RateLimit(messages=0.5, message_burst=3), connection=RateLimit(messages=0.5, message_burst=1), warnings=5
    )
    served.connect("c1", "ann")
    served.connect("c2", "ann")
    assert is_heard(served.command("c1", "ping"))
    for _ in range(5):
        assert served.command("c1", "ping") == slow_down("c1", 2)
    assert is_heard(served.command("c2", "ping"))


def test_without_limits_anything_goes() -> None:
    served = Served()
    served.connect("c1", "ann")
    assert all(is_heard(served.command("c1", "ping")) for _ in range(500))
