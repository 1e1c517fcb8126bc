"""The node: what clients and applications say, and what everybody hears of it."""

from __future__ import annotations

import json

import pytest

from rtcore.channels import BROADCAST, connection_channel, user_channel
from rtcore.errors import LocalProtocolError, Refusal
from rtcore.messages import Message
from rtcore.namespaces import Namespace, Namespaces
from rtcore.node import NodeConfig
from rtcore.router import Deliver, Published, Refused, Request, RouterConfig
from rtcore.session import Handle, Transport

from .node_talk import (
    STAMP,
    Served,
    came_or_went,
    error,
    member,
    ok,
    published,
    roster,
    small_node,
)


@pytest.fixture
def served() -> Served:
    return small_node()


# Commands


def test_ping(served: Served) -> None:
    assert served.command("c1", "ping") == [ok("c1", {"timestamp": STAMP})]
    assert served.receive("c1", {"type": "command", "command": "ping", "id": 7}) == [ok("c1", {"timestamp": STAMP}, 7)]
    assert served.receive("c1", {"type": "command", "command": "ping"}) == []


def test_joining_and_leaving(served: Served) -> None:
    ann, somebody = ("ann", "c1"), (None, "c3")
    stands: Message = {"channel": "chat", "offset": 0, "epoch": "e.3", "replayed": 0}
    assert served.command("c1", "join_channel", channel="chat") == [
        ok("c1", {**stands, "presence": roster(ann, epoch="e.3p", offset=1)})
    ]
    assert served.command("c3", "join_channel", channel="chat") == [
        ok("c3", {**stands, "presence": roster(ann, somebody, epoch="e.3p", offset=2)}),
        Deliver(came_or_went("user_joined", "chat", 2, "e.3", 2, "c3", None), ("c1", "c3"), skip="c3"),
    ]
    assert served.command("c2", "join_channel", channel="chat") == [
        ok("c2", {**stands, "presence": roster(ann, somebody, epoch="e.3p", offset=2)})
    ]
    assert served.command("c2", "presence", channel="chat") == [
        ok("c2", {"channel": "chat", "count": 2, "users": [member(*ann), member(*somebody)]})
    ]
    assert served.command("c1", "leave_channel", channel="chat") == [ok("c1", {"channel": "chat"})]
    assert served.command("c2", "leave_channel", channel="chat") == [
        ok("c2", {"channel": "chat"}),
        Deliver(came_or_went("user_left", "chat", 3, "e.3", 3, "c2", "ann"), ("c3",)),
    ]
    assert served.command("c2", "leave_channel", channel="chat") == [ok("c2", {"channel": "chat"})]


def test_joining_without_an_id_is_not_answered(served: Served) -> None:
    command: Message = {"type": "command", "command": "join_channel", "data": {"channel": "chat"}}
    assert served.receive("c1", command) == []
    assert served.receive("c3", command) == [
        Deliver(came_or_went("user_joined", "chat", 2, "e.3", 2, "c3", None), ("c1", "c3"), skip="c3")
    ]
    assert served.receive("c3", {**command, "command": "leave_channel"}) == [
        Deliver(came_or_went("user_left", "chat", 3, "e.3", 3, "c3", None), ("c1",))
    ]


def test_questions_about_the_server(served: Served) -> None:
    served.command("c1", "join_channel", channel="chat")
    message: Message = {"type": "text", "channel": "chat"}
    served.receive("c1", message)
    served.connect("c4", "bob", transport=Transport.SSE)
    held = [came_or_went("user_joined", "chat", 1, "e.3", 1, "c1", "ann"), published(message, 1, "e.3", 2, "c1", "ann")]
    stats: Message = {
        "websocket_count": 3,
        "sse_count": 1,
        "unique_users": 2,
        "active_channels": 1,
        "total_connections": 4,
        "accepted_connections": 4,
        "published_messages": 1,
        "refused_messages": 0,
        "history_bytes": sum(len(each.json) for each in held),
        "webrtc_rooms": 0,
        "webrtc_peers": 0,
        "webrtc_signals": 0,
        "webrtc_refused_signals": 0,
    }
    assert served.node.stats() == stats
    assert served.command("c1", "get_connection_stats") == [ok("c1", stats)]
    assert served.command("c1", "get_active_users") == [ok("c1", {"users": ["ann", "bob"], "count": 2})]
    assert served.command("c1", "presence", channel="empty") == [
        ok("c1", {"channel": "empty", "count": 0, "users": []})
    ]


def test_presence_of_a_crowd_is_a_number() -> None:
    served = Served(NodeConfig(router=RouterConfig(presence_limit=1)))
    served.connect("c1", None, "chat")
    served.connect("c2", None, "chat")
    assert served.command("c1", "presence", channel="chat") == [
        ok("c1", {"channel": "chat", "count": 2, "users": None})
    ]
    assert served.command("c1", "join_channel", channel="chat") == [
        ok(
            "c1",
            {
                "channel": "chat",
                "offset": 0,
                "epoch": "e.2",
                "replayed": 0,
                "presence": {"count": 2, "users": None, "epoch": "e.2p2", "offset": 0},
            },
        )
    ]


def test_lists_for_the_operator(served: Served) -> None:
    served.command("c2", "join_channel", channel="chat")
    served.command("c1", "join_channel", channel="chat")
    served.command("c1", "join_channel", channel="news")
    served.receive("c1", {"type": "text", "channel": "chat"})
    assert served.node.channels() == [
        {"channel": "chat", "subscribers": 2, "members": 1, "offset": 1, "epoch": "e.3"},
        {"channel": "news", "subscribers": 1, "members": 1, "offset": 0, "epoch": "e.4"},
    ]
    about: Message = {"transport": "websocket", "connected_at": STAMP}
    assert served.node.connections() == [
        {"connection_id": "c1", "user_id": "ann", **about, "channels": ["chat", "news"]},
        {"connection_id": "c2", "user_id": "ann", **about, "channels": ["chat"]},
        {"connection_id": "c3", "user_id": None, **about, "channels": []},
    ]
    assert served.node.presence("chat") == {
        "channel": "chat",
        "count": 1,
        "users": [{"user_id": "ann", "connection_id": "c2"}],
    }


# Publications


def test_publishing_to_a_channel(served: Served) -> None:
    for connection_id in ("c1", "c3"):
        served.command(connection_id, "join_channel", channel="chat")
    message: Message = {"type": "channel_message", "channel": "chat", "message": "Привет всем в комнате!"}
    assert served.receive("c1", message) == [Deliver(published(message, 1, "e.3", 3, "c1", "ann"), ("c1", "c3"))]
    message = {**message, "id": "7", "echo": False}
    assert served.receive("c3", message) == [
        Deliver(published(message, 2, "e.3", 4, "c3"), ("c1", "c3"), skip="c3"),
        ok("c3", {"channel": "chat", "offset": 2, "epoch": "e.3"}),
    ]


def test_publishing_without_having_joined(served: Served) -> None:
    message: Message = {"type": "text", "channel": "chat", "id": "7"}
    assert served.receive("c1", message) == [ok("c1", {"channel": "chat", "offset": 1, "epoch": "e.3"})]
    assert served.receive("c1", {**message, "id": None}) == []


def test_publishing_to_a_user(served: Served) -> None:
    served.connect("c4", "42")
    message: Message = {"type": "user_message", "recipient_id": "42", "id": "7"}
    assert served.receive("c1", {**message, "recipient_id": 42}) == [
        Deliver(published(message, 1, "e.3", 1, "c1", "ann"), ("c4",)),
        ok("c1", {"channel": "$user:42", "offset": 1, "epoch": "e.3"}),
    ]
    to_self: Message = {"type": "user_message", "recipient_id": "ann", "echo": False}
    assert served.receive("c1", to_self) == [
        Deliver(published(to_self, 1, "e.1", 2, "c1", "ann"), ("c1", "c2"), skip="c1"),
    ]


def test_text_comes_back_to_the_one_who_sent_it(served: Served) -> None:
    assert served.receive("c1", "hello") == [
        Deliver(published({"type": "text", "data": "hello"}, 1, "e.3", 1, "c1", "ann"), ("c1",))
    ]
    message: Message = {"type": "text", "data": {"x": 1}, "id": "7"}
    assert served.receive("c1", message) == [
        Deliver(published(message, 2, "e.3", 2, "c1", "ann"), ("c1",)),
        ok("c1", {"channel": "$connection:c1", "offset": 2, "epoch": "e.3"}),
    ]


def test_forged_meta_is_replaced(served: Served) -> None:
    served.command("c3", "join_channel", channel="chat")
    effects = served.receive(
        "c1", {"type": "text", "meta": {"sender": {"user_id": "root"}}, "channel": "chat", "x": 1.5}
    )
    assert isinstance(effects[0], Deliver)
    assert json.loads(effects[0].message.json) == {
        "type": "text",
        "channel": "chat",
        "x": 1.5,
        "meta": {
            "id": "e-2",
            "offset": 1,
            "epoch": "e.3",
            "sender": {"connection_id": "c1", "user_id": "ann"},
            "timestamp": STAMP,
        },
    }


def test_the_application_publishes(served: Served) -> None:
    receipt = Published(Request(None), "e-1", "chat", 1, "e.3")
    assert served.publish("chat", {"type": "text"}) == [receipt]
    for seq, channel, epoch, connections in [
        (2, BROADCAST, "e.2", ("c1", "c2", "c3")),
        (3, user_channel("ann"), "e.1", ("c1", "c2")),
        (4, connection_channel("c3"), "e.4", ("c3",)),
    ]:
        assert served.publish(channel, {"type": "text"}, "bob") == [
            Deliver(published({"type": "text"}, 1, epoch, seq, None, "bob"), connections),
            Published(Request(None), f"e-{seq}", channel, 1, epoch),
        ]
    assert served.node.stats()["published_messages"] == 4


def test_what_the_application_publishes_must_fit_the_channel() -> None:
    small = Namespace(pattern="chat", max_message_size=20)
    served = small_node(NodeConfig(router=RouterConfig(namespaces=Namespaces((small,)))))
    refusal = Refusal("message_too_large", "a message to this channel has at most 20 bytes", status=413)
    assert served.publish("chat", {"type": "text", "data": "a lot"}) == [Refused(Request(None), refusal)]
    assert served.node.stats()["published_messages"] == 0
    message: Message = {"type": "text", "data": "a lot", "channel": "chat", "id": "7"}
    assert served.receive("c1", message) == [error("c1", refusal.code, refusal.message)]


def test_what_the_application_publishes_must_be_json(served: Served) -> None:
    with pytest.raises(LocalProtocolError, match="must be JSON"):
        served.publish(BROADCAST, {"type": "text", "data": object()})
    assert served.node.stats()["published_messages"] == 0
    assert served.publish(BROADCAST, {"type": "text"})[-1] == Published(Request(None), "e-1", BROADCAST, 1, "e.2")


def test_refusals_are_told_to_the_one_who_asked(served: Served) -> None:
    reserved = "messages of type 'system' come from the server only: choose another type"
    assert served.receive("c1", {"type": "system", "channel": "chat", "id": "7"}) == [
        error("c1", "reserved_type", reserved)
    ]
    assert served.receive("c1", {"type": "system"}) == [error("c1", "reserved_type", reserved, None)]
    assert served.receive("c1", {"type": "text", "channel": 5, "id": 7}) == [
        error("c1", "invalid_channel", "'channel' must be a string", 7)
    ]
    assert served.node.channels() == []


def test_every_refusal_that_a_connection_is_told_of_is_counted() -> None:
    config = NodeConfig(max_message_size=200, router=RouterConfig(max_channels=1))
    served = Served(config, "order")
    served.connect("c1", "ann", "chat", "$news")
    counted = 1  # it may not join one of them
    served.connect("c2", None)
    refused: list[Message | str] = [
        '{"type": 5}',
        "x" * 201,
        {"type": "system"},
        {"type": "nothing handles this"},
        {"type": "text", "channel": "$user:ann"},
        {"type": "webrtc_signal"},
        {"type": "webrtc_signal", "signal_type": "bye", "target_peer_id": "b"},
        *(
            {"type": "command", "command": name, "data": data}
            for name, data in (
                ("unknown", {}),
                ("history", {"channel": "$user:ann"}),
                ("presence", {}),
                ("join_channel", {"channel": "news"}),
                ("join_room", {}),
                ("create_room", {"max_participants": 1000}),
                ("leave_room", {}),
            )
        ),
    ]
    for message in refused:
        for id in (None, "7"):
            if isinstance(message, dict):
                message = {**message, "id": id}
            (answer,) = served.receive("c1", message)
            assert isinstance(answer, Deliver)
            assert (json.loads(answer.message.json)["type"], answer.connections) == ("error", ("c1",))
            counted += 1
            assert served.node.stats()["refused_messages"] == counted, message
    # So is what the transport or a handler refuses; but what is carried out is not, nor what nobody is told of.
    refusal = Refusal("sold_out", "come back tomorrow")
    for request, outcome in ((Request("c1"), refusal), (Request("c1", "8"), {}), (Request("c9"), refusal)):
        served.node.respond(request, outcome, now=100.0, timestamp=STAMP)
    counted += 1
    served.receive("c1", {"type": "order", "id": "8"})
    served.receive("c1", {"type": "text", "channel": "chat", "id": "9"})
    served.command("c1", "ping")
    (outside,) = served.node.subscribe("c1", "more", now=100.0, timestamp=STAMP)
    assert isinstance(outside, Refused)
    assert served.node.stats()["refused_messages"] == counted


def test_sizes_are_limited() -> None:
    served = Served(NodeConfig(max_message_size=10))
    served.connect("c1", None)
    assert served.receive("c1", "x" * 11) == [error("c1", "message_too_large", "a message has at most 10 bytes", None)]


def test_only_those_who_are_connected_speak(served: Served) -> None:
    with pytest.raises(LocalProtocolError, match="'c9' is not attached"):
        served.receive("c9", "hello")


# The application's handlers


def test_handlers() -> None:
    served = Served(None, "order")
    served.connect("c1", "ann")
    message: Message = {"type": "order", "id": "7", "size": 2}
    request = Request("c1", "7")
    assert served.receive("c1", message) == [Handle("order", message, request)]
    respond = served.node.respond
    assert respond(request, {"price": 5}, now=100.0, timestamp=STAMP) == [ok("c1", {"price": 5})]
    refusal = Refusal("sold_out", "come back tomorrow")
    assert respond(request, refusal, now=100.0, timestamp=STAMP) == [error("c1", "sold_out", "come back tomorrow")]
    unasked = Request("c1")
    assert respond(unasked, {"price": 5}, now=100.0, timestamp=STAMP) == []
    assert respond(unasked, refusal, now=100.0, timestamp=STAMP) == [
        error("c1", "sold_out", "come back tomorrow", None)
    ]
    served.disconnect("c1")
    assert respond(request, {"price": 5}, now=100.0, timestamp=STAMP) == []
    assert respond(Request(None, "7"), refusal, now=100.0, timestamp=STAMP) == []
