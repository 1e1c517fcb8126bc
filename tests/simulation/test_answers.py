"""What servers say of themselves is as it is: pages of histories, gaps, and refusals of those who talk too fast."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import pytest

from rtcore.client import Answered, MessageReceived, Refused
from rtcore.messages import Message, encode
from rtcore.namespaces import Namespace, Namespaces
from rtcore.node import NodeConfig
from rtcore.rate_limit import RateLimit, RateLimitConfig
from rtcore.router import RouterConfig
from rtcore.simulation import Cut, ServerConfig, Simulation

from .room import DROPPING, Room


def node(router: RouterConfig | None = None, **fields: object) -> ServerConfig:
    router = router or RouterConfig(
        namespaces=Namespaces((), Namespace(pattern="*", history_size=4, history_ttl=20.0)), idle_timeout=10.0
    )
    return ServerConfig(node=NodeConfig(router=router, **fields))  # type: ignore[arg-type]


def ask(room: Room, message: Mapping[str, object]) -> None:
    """Let the server be asked by ann."""
    room.simulation.pages.server_received(room.server, "s1c1", msgspec.json.encode(message).decode())


def answer(room: Room, message: Mapping[str, object]) -> None:
    room.simulation.pages.server_delivers(room.server, encode({**message}), ("s1c1",))


# Pages


def page(room: Room, data: Mapping[str, object], **changed: object) -> None:
    """Ask for a page, and answer as the server does but for some changes."""
    data = {"channel": "chat", **data}
    told = room.server.node.history(data, now=room.server.now())
    assert isinstance(told, dict)
    ask(room, {"type": "command", "command": "history", "data": data, "id": "1"})
    answer(room, {"type": "response", "id": "1", "ok": True, "data": {**told, **changed}})


BOUNDS: list[dict[str, object]] = [
    *({"limit": limit} for limit in (1, 3, 4, 5)),
    *({"after": after, "limit": limit} for after in (0, 1, 2, 3, 5, 6, 9) for limit in (1, 2, 4, 9)),
    *({"before": before, "limit": limit} for before in (0, 1, 2, 3, 4, 6, 7, 9) for limit in (1, 2, 4, 9)),
]


@pytest.mark.parametrize("said", [0, 3, 6])
@pytest.mark.parametrize("bounds", BOUNDS, ids=str)
def test_pages_are_true(bounds: dict[str, object], said: int) -> None:
    room = Room(config=node())
    for _ in range(said):
        room.say()
    page(room, bounds)
    room.simulation.run_for(30.0)
    page(room, bounds)
    assert room.simulation.pages.shown == 2


@pytest.mark.parametrize(
    ("changed", "explanation"),
    [
        ({"offset": 7}, "is said to stand at 7, and stands at 6"),
        ({"publications": []}, "is answered with \\[\\], and not with"),
        ({"more": False}, "says more=False"),
        ({"complete": True}, "and complete=True"),
        ({"epoch": "another"}, "is answered with another epoch"),
    ],
)
def test_pages_that_are_not(changed: dict[str, object], explanation: str) -> None:
    room = Room(config=node())
    epoch = [room.say() for _ in range(6)][-1]["meta"]["epoch"]  # type: ignore[index]
    with room.fails("history_is_what_was_said", explanation):
        page(room, {"epoch": epoch, "after": 0, "limit": 2}, **changed)


def test_a_page_of_something_else() -> None:
    room = Room()
    message = room.say()
    with room.fails("history_is_what_was_said", "is shown as"):
        page(room, {}, publications=[{**message, "text": "never said"}])


def test_pages_where_bytes_are_scarce() -> None:
    scarce = RouterConfig(max_history_bytes=1500)
    room = Room(config=node(scarce))
    for _ in range(12):
        room.say(text="x" * 100)
    page(room, {})
    page(room, {"after": 0})
    message = room.ann.heard[-1]
    with room.fails("history_is_what_was_said", "which is no part of"):
        page(room, {}, publications=[{**message, "meta": {"epoch": "another", "offset": 1}}])


def test_an_epoch_that_is_said_to_be_over() -> None:
    room = Room()
    epoch = room.say()["meta"]["epoch"]  # type: ignore[index]
    asked = {"type": "command", "command": "history", "data": {"channel": "chat", "epoch": epoch}, "id": "1"}
    refused = {"type": "error", "id": "1", "code": "epoch_changed", "message": ""}
    ask(room, asked)
    with room.fails("history_is_what_was_said", "says that the epoch of .* is over"):
        answer(room, refused)
    ask(room, {**asked, "data": {"channel": "chat", "epoch": "another"}})
    answer(room, refused)
    ask(room, asked)
    answer(room, {**refused, "code": "rate_limited"})


def test_a_client_reads_back() -> None:
    room = Room()
    first = room.say()
    call = room.ann.request("history", channel="chat")
    room.simulation.run_for(1.0)
    assert isinstance(call.outcome, Answered)
    assert isinstance(call.outcome.data, dict)
    assert call.outcome.data["publications"] == [first]


# Gaps


def welcome(room: Room, token: str, **fields: object) -> None:
    """Tell the invariant of a connection that came with a token."""
    justification = room.simulation.justification
    justification.server_connected(room.server, "s1c9", None, ("chat",), last_event_id=token)
    message = {"type": "connected", "connection_id": "s1c9", "recovered": False, **fields}
    justification.server_delivers(room.server, encode(message), ("s1c9",))


def gap(message: Message, reason: str) -> dict[str, object]:
    meta = message["meta"]
    assert isinstance(meta, dict)
    return {"type": "gap", "channel": "chat", "epoch": meta["epoch"], "offset": 0, "reason": reason}


def token_of(message: Message) -> str:
    meta = message["meta"]
    assert isinstance(meta, dict)
    return str(meta["id"])


def test_gaps_of_a_token_that_are_needed() -> None:
    room = Room(config=node())
    first, *_, last = [room.say() for _ in range(6)]
    welcome(room, "no token", gaps=[gap(last, "invalid_token")])
    welcome(room, "z1-5", gaps=[gap(last, "foreign_token")])
    welcome(room, token_of(first), gaps=[gap(last, "history_lost")])
    welcome(room, token_of(last), recovered=True)
    welcome(room, "")
    assert (room.simulation.justification.lost, room.simulation.justification.recovered) == (3, 1)


@pytest.mark.parametrize(
    ("token", "reason"),
    [("no token", "history_lost"), ("z1-5", "history_lost"), ("{}", "foreign_token"), ("{}", "history_lost")],
)
def test_gaps_of_a_token_that_are_not(token: str, reason: str) -> None:
    room = Room(config=node())
    _, second, *_, last = [room.say() for _ in range(6)]
    with room.fails("no_gap_without_need", "is told to s1c9, who came with"):
        welcome(room, token.format(token_of(second)), gaps=[gap(last, reason)])


@pytest.mark.parametrize(("recovered", "count"), [(True, 1), (False, 0)])
def test_a_welcome_that_contradicts_itself(*, recovered: bool, count: int) -> None:
    room = Room()
    gaps = [gap(room.say(), "foreign_token")] * count
    with room.fails("no_gap_without_need", f"is told {recovered}, and of {count} gaps"):
        welcome(room, "z1-5", recovered=recovered, gaps=gaps)


def test_a_channel_that_may_be_one_that_was_forgotten() -> None:
    room = Room(config=node())
    token = token_of(room.say())
    room.server.publish("other", room.simulation.numbered("s"))
    for epoch, offset in (("s1.99", 0), (room.ann.heard[-1]["meta"]["epoch"], 1)):  # type: ignore[index]
        known = {"type": "gap", "channel": "chat", "epoch": epoch, "offset": offset, "reason": "history_lost"}
        with room.fails("no_gap_without_need", "is told to s1c9"):
            welcome(room, token, gaps=[known])
    room.simulation.run_for(40.0)
    new = {"type": "gap", "channel": "new", "epoch": "s1.99", "offset": 0, "reason": "history_lost"}
    welcome(room, token, gaps=[new])
    # One that has begun anew since.
    room.server.publish("other", room.simulation.numbered("s"))
    welcome(room, token, gaps=[new])


def test_what_is_lost_where_bytes_are_scarce() -> None:
    room = Room(config=node(RouterConfig(max_replay_bytes=100)))
    first, last = room.say(), room.say()
    welcome(room, token_of(first), gaps=[gap(last, "history_lost")])
    join(room, first, recovered=False)


def join(room: Room, heard: Message, *, recovered: bool, epoch: str | None = None) -> None:
    """Tell the invariant of a join by somebody who has heard a channel up to a message."""
    meta = heard["meta"]
    assert isinstance(meta, dict)
    since = {"epoch": meta["epoch"], "offset": meta["offset"]}
    data = {"channel": "chat", "epoch": epoch or meta["epoch"], "offset": 9, "recovered": recovered}
    command = {"type": "command", "command": "join_channel", "data": {"channel": "chat", "since": since}, "id": "1"}
    justification = room.simulation.justification
    justification.server_received(room.server, "s1c1", msgspec.json.encode(command).decode())
    justification.server_delivers(
        room.server, encode({"type": "response", "id": "1", "ok": True, "data": data}), ("s1c1",)
    )


def test_joins_that_are_not_told_all() -> None:
    room = Room(config=node())
    first, second, *_ = [room.say() for _ in range(6)]
    join(room, first, recovered=False)
    join(room, second, recovered=True)
    join(room, {"meta": {"epoch": "z1.1", "offset": 3}}, recovered=False, epoch="s1.99")
    for epoch in (None, "s1.99"):
        with room.fails("no_gap_without_need", "is told that something is lost"):
            join(room, second, recovered=False, epoch=epoch)
    room.simulation.run_for(40.0)
    join(room, second, recovered=False, epoch="s1.99")


def test_what_may_not_be_dropped() -> None:
    room = Room()
    with room.fails("no_gap_without_need", "of which nothing may be dropped"):
        room.hear(room.ann, room.gap(room.say(), reason="slow_consumer"))


# Rates


def slow(**fields: object) -> ServerConfig:
    limits = RateLimitConfig(connection=RateLimit(messages=1.0, message_burst=3), **fields)  # type: ignore[arg-type]
    return node(rate_limits=limits)


def test_who_talks_too_fast_is_warned_and_then_expelled() -> None:
    room = Room(config=slow(warnings=2))
    calls = []
    for _ in range(6):
        calls += [room.simulation.publish(room.ann, channel="chat") for _ in range(3)]
        room.simulation.run_for(0.7)
    room.simulation.rest()
    limits = room.simulation.rate_limits
    assert limits.expelled == 1
    assert limits.refused >= 2
    assert any(isinstance(call.outcome, Refused) and call.outcome.code == "rate_limited" for call in calls)


def test_who_may_not_leave_yet_leaves_later() -> None:
    room = Room(config=slow(warnings=9))
    for _ in range(2):
        room.simulation.publish(room.ann, channel="chat")
    call = room.ann.leave("chat")
    room.simulation.run_for(0.5)
    assert room.simulation.rate_limits.refused == 1
    assert call.outcome is None
    room.simulation.rest()
    assert call.outcome == Answered(call.id, {"channel": "chat"})


def warn(room: Room, **fields: object) -> None:
    error = {"type": "error", "id": "1", "code": "rate_limited", "message": "", "retry_after": 1, **fields}
    room.simulation.rate_limits.server_delivers(room.server, encode(error), ("s1c1",))


def expel(room: Room, **fields: object) -> None:
    farewell = {"type": "disconnect", "code": 4429, "reason": "", "reconnect": True, "retry_after": 1, **fields}
    room.simulation.rate_limits.server_delivers(room.server, encode(farewell), ("s1c1",))


def test_who_is_expelled_without_enough_warnings() -> None:
    room = Room(config=slow(warnings=2))
    warn(room)
    warn(room)
    room.simulation.run_for(0.5)
    with room.fails("rate_limits_are_fair", "s1c1 is expelled after 1 warnings of 2"):
        expel(room)
    warn(room)
    room.simulation.run_for(0.6)
    warn(room)
    expel(room)
    # After a silence it begins anew.
    room.simulation.run_for(1.5)
    with room.fails("rate_limits_are_fair", "s1c1 is expelled after 0 warnings of 2"):
        expel(room)
    expel(room, code=1012)
    assert room.simulation.rate_limits.expelled == 3


@pytest.mark.parametrize("retry_after", [None, 0])
def test_who_is_not_told_for_how_long_to_wait(retry_after: int | None) -> None:
    room = Room(config=slow(warnings=0))
    with room.fails("rate_limits_are_fair", "s1c1 is not told for how long to wait"):
        warn(room, retry_after=retry_after)
    with room.fails("rate_limits_are_fair", "s1c1 is not told for how long to wait"):
        expel(room, retry_after=retry_after)


def test_what_is_refused_and_published_all_the_same() -> None:
    room = Room(config=slow(warnings=2))
    message = {**room.simulation.numbered("ann", channel="chat"), "id": "1"}
    text = msgspec.json.encode(message).decode()
    limits = room.simulation.rate_limits
    limits.server_received(room.server, "s1c1", text)
    warn(room)
    limits.at_rest()
    room.server.publish("chat", message)
    with room.fails("rate_limits_are_fair", "1 was refused 1 times, and is chat"):
        limits.at_rest()
    # It may have come another time too.
    limits.server_received(room.server, "s1c1", text)
    limits.at_rest()


# Two clicks, and two tabs


def test_a_double_click_is_one_publication() -> None:
    room = Room()
    message = room.simulation.numbered("ann", channel="chat")
    call = room.ann.publish_twice(message)
    room.simulation.rest()
    assert isinstance(call.outcome, Answered)
    [publication] = room.simulation.ledger.by_number[1]
    assert publication.offset == 1
    # Both are acknowledged.
    assert room.simulation.publishing.acknowledged == 2
    [second] = [message for message in room.ann.heard if message["type"] == "response"]
    assert second["data"] == call.outcome.data
    # Another answer that nobody waits for any more is none to a click.
    room.ann.perform([MessageReceived({"type": "response", "id": "late", "ok": True, "data": {}})])
    assert room.simulation.publishing.acknowledged == 2


def two_tabs() -> Simulation:
    simulation = Simulation()
    simulation.world.faulty = False
    simulation.add_server("s", config=node(RouterConfig(idempotency_window=15.0)))
    for name in ("ann", "tab"):
        simulation.add_websocket_client(name, user_id="ann")
    simulation.run_for(1.0)
    return simulation


def test_two_tabs_say_it_once_and_again_when_it_is_forgotten() -> None:
    simulation = two_tabs()
    message = {**simulation.numbered("ann", channel="chat"), "id": "order-1"}
    calls = []
    for seconds in (0.0, 16.0):
        simulation.run_for(seconds)
        for tab in simulation.clients:
            calls.append(tab.publish(message))  # type: ignore[attr-defined]
        simulation.run_for(1.0)
    outcomes = [call.outcome.data["offset"] for call in calls]
    # Each of them is answered the same for as long as it is there.
    assert outcomes == [1, 1, 1, 1]
    third = simulation.add_websocket_client("third", user_id="ann")
    simulation.run_for(16.0)
    call = third.publish(message)
    simulation.rest()
    assert isinstance(call.outcome, Answered)
    assert isinstance(call.outcome.data, dict)
    assert call.outcome.data["offset"] == 2


def test_two_tabs_that_say_it_twice() -> None:
    simulation = two_tabs()
    message = simulation.numbered("ann", channel="chat")
    for tab in simulation.clients:
        simulation.publishing.client_publishes(tab, message)
    [server] = simulation.servers
    server.publish("chat", message)
    server.publish("chat", message)
    with pytest.raises(Exception, match="published_once: 1 was published 2 times"):
        simulation.publishing.at_rest()


# Filters, and channels that a URL names


def test_what_a_filter_keeps_away() -> None:
    room = Room()
    room.bob.leave("chat")
    room.bob.join("chat", filters={"types": ["remark"]})
    room.simulation.run_for(1.0)
    wanted, unwanted = room.say(type="remark"), room.say()
    assert [each for each in room.bob.heard if "n" in each] == [wanted]
    room.simulation.rest()
    with room.fails("heard_in_order_each_once", "which its filter keeps away"):
        room.hear(room.bob, unwanted)
    assert room.bob.filters("chat") == {"types": ["remark"]}
    assert room.ann.filters("chat") == room.eve.filters("chat") == {}


def test_what_an_event_stream_hears_too_late() -> None:
    simulation = Simulation()
    simulation.world.faulty = False
    server = simulation.add_server("s")
    eve = simulation.add_event_source("eve", channels=["chat", "news"])
    simulation.run_for(1.0)
    eve.freeze()
    for channel in ("chat", "news"):
        server.publish(channel, simulation.numbered("s"))
    first, second = [simulation.ledger.by_number[number][0] for number in (1, 2)]
    eve.hear(msgspec.json.decode(second.json or b""))
    with pytest.raises(Exception, match=r"heard_in_order_each_once: eve hears .*, which was said later"):
        eve.hear(msgspec.json.decode(first.json or b""))


def test_channels_that_a_url_names() -> None:
    simulation = Simulation()
    simulation.world.faulty = False
    server = simulation.add_server("s")
    ann = simulation.add_websocket_client("ann", user_id="ann", given=["chat", "news"])
    simulation.run_for(1.0)
    assert ann.channels == ("chat", "news")
    assert ann.is_given("chat")
    assert not ann.is_given("other")
    assert simulation.add_event_source("eve", channels=["chat"]).is_given("chat")
    ann.leave("news")
    simulation.run_for(1.0)
    for channel in ("chat", "news"):
        server.publish(channel, simulation.numbered("s"))
    simulation.run_for(1.0)
    assert ann.channels == ("chat",)
    for link in simulation.network.links():
        simulation.network.cut(link, Cut.RESET)
    server.publish("chat", simulation.numbered("s"))
    simulation.run_for(5.0)
    ann.join("news")
    simulation.rest()
    assert [message["n"] for message in ann.heard if message.get("channel") == "chat" and "n" in message] == [1, 3]
    assert ann.channels == ("chat", "news")
    simulation.empty()


def test_what_is_dropped_of_a_channel_that_a_url_names_may_come_on_the_next_connection() -> None:
    room = Room(config=DROPPING)
    ann = room.simulation.add_websocket_client("given", given=["chat"])
    room.simulation.run_for(1.0)
    ann.freeze()
    first, second = room.say(), room.say()
    room.hear(ann, room.gap(second, reason="slow_consumer"))
    ann.connection_id = "s1c99"
    room.simulation.ledger.life_of["s1c99"] = "s1"
    for message in (first, second):
        room.hear(ann, message)
    with room.fails("heard_in_order_each_once", "a second time, or late"):
        room.hear(ann, second)
