"""Each invariant says so when it is told of something that must not be."""

from __future__ import annotations

import attrs
import msgspec
import pytest

from rtcore.encoded import Encoded, Source
from rtcore.errors import Refusal
from rtcore.messages import Message, encode
from rtcore.namespaces import Namespace, Namespaces, SlowConsumer
from rtcore.node import NodeConfig
from rtcore.router import RouterConfig
from rtcore.simulation import (
    Invariant,
    ServerConfig,
    Simulation,
    SimulationFailure,
)
from rtcore.simulation.invariants import PresenceTruth

from .room import DROPPING, Room


def source(message: Message) -> Source:
    meta = message["meta"]
    assert isinstance(meta, dict)
    return Source("chat", meta["epoch"], meta["offset"], SlowConsumer.DISCONNECT, "", False)


# What a failure says


def test_a_failure_names_the_invariant_the_seed_and_what_happened() -> None:
    class Never(Invariant):
        name = "never"

        def client_heard(self, client: object, message: Message) -> None:
            raise self.broken(f"{client} has heard something")

    simulation = Simulation(12, invariants=[Never()])
    simulation.world.faulty = False
    server = simulation.add_server("s")
    simulation.add_websocket_client("ann", user_id="ann")
    simulation.run_for(1.0)
    server.broadcast({"type": "broadcast", "text": "x" * 500})
    with pytest.raises(SimulationFailure) as failed:
        simulation.run_for(1.0)
    failure = failed.value
    assert (failure.invariant, failure.explanation, failure.seed) == ("never", "ann has heard something", 12)
    lines = str(failure).splitlines()
    assert lines[0] == "seed 12: never: ann has heard something"
    assert lines[2] == f"The last of {len(simulation.world.trace)} lines:"
    assert lines[-1] == "t=1.020000 *** never ann has heard something"
    assert max(map(len, lines)) == 400


def test_an_invariant_need_not_care() -> None:
    invariant = Invariant()
    simulation = Simulation(invariants=[invariant])
    assert invariant.simulation is simulation
    invariant.check()
    invariant.at_rest()
    invariant.emptied()


# What is published


def test_a_publication_that_changes() -> None:
    room = Room()
    message = room.say()
    other = Encoded(msgspec.json.encode({**message, "text": "another"}), source=source(message))
    with room.fails("one_publication_for_each_number", "is now"):
        room.simulation.ledger.server_delivers(room.server, other, ("s1c1",))


def test_two_publications_of_one_number() -> None:
    room = Room()
    message = room.say()
    response = {"type": "response", "id": "x", "ok": True, "data": {"channel": "chat", **_position(message)}}
    ledger = room.simulation.ledger
    ledger.server_received(room.server, "s1c1", '{"type":"message","id":"x","n":99}')
    with room.fails("one_publication_for_each_number", "is also chat"):
        ledger.server_delivers(room.server, encode(response), ("s1c1",))


def test_a_number_that_is_left_out() -> None:
    room = Room()
    message = room.say()
    skipping = source(message)
    later = attrs.evolve(skipping, offset=skipping.offset + 2)
    content = {**message, "n": 99}
    with room.fails("one_publication_for_each_number", "comes after"):
        room.simulation.ledger.server_delivers(room.server, encode(content, source=later), ("s1c1",))


def test_what_is_numbered_with_something_else_is_not_followed() -> None:
    room = Room()
    room.server.publish("chat", {"type": "message", "n": "one"})
    room.server.publish("chat", {"type": "message"})
    room.simulation.publish(room.ann, channel="chat", persistent=True)
    room.ann.publish({"type": "message", "channel": "chat", "n": "three"})
    room.simulation.rest()
    assert [message["n"] for message in room.bob.heard if "n" in message] == ["one", 1, "three"]
    assert list(room.simulation.ledger.by_number) == [1]


def _position(message: Message) -> dict[str, object]:
    meta = message["meta"]
    assert isinstance(meta, dict)
    return {"epoch": meta["epoch"], "offset": meta["offset"]}


# What publishers are told


def test_an_acknowledgement_of_nothing() -> None:
    room = Room()
    with room.fails("published_once", "which was never published"):
        room.simulation.publishing.client_published(room.ann, 99, {"channel": "chat", "epoch": "e", "offset": 1})


def test_an_acknowledgement_of_something_else() -> None:
    room = Room()
    message = room.say()
    number = message["n"]
    assert isinstance(number, int)
    with room.fails("published_once", "but it is chat"):
        room.simulation.publishing.client_published(room.ann, number, {"channel": "chat", "epoch": "e", "offset": 1})


@pytest.mark.parametrize("code", ["not_sent", "rate_limited"])
def test_what_is_said_not_to_be_published_is_not(code: str) -> None:
    room = Room()
    number = room.say()["n"]
    assert isinstance(number, int)
    room.simulation.publishing.client_refused(room.ann, number, "connection_lost")
    room.simulation.publishing.at_rest()
    room.simulation.publishing.client_refused(room.ann, number, code)
    with room.fails("published_once", f"was told {code}, but it was published"):
        room.simulation.publishing.at_rest()


def test_what_is_published_twice() -> None:
    room = Room()
    message = room.simulation.numbered("s")
    room.server.publish("chat", message)
    with room.fails("published_once", "1 was published 2 times"):
        room.server.publish("chat", message)
    with room.fails("published_once", "1 was published 2 times"):
        room.simulation.publishing.at_rest()


# What is heard


def test_what_was_never_published() -> None:
    room = Room()
    message = room.say()
    with room.fails("heard_in_order_each_once", "but there is None"):
        room.hear(room.ann, message, meta={"epoch": "no such", "offset": 1})
    with room.fails("heard_in_order_each_once", "but there is chat"):
        room.hear(room.ann, message, n=99)


def test_a_second_time() -> None:
    room = Room()
    message = room.say()
    with room.fails("heard_in_order_each_once", "a second time, or late"):
        room.hear(room.ann, message)


def test_a_persistent_one_a_second_time() -> None:
    room = Room()
    message = room.say(persistent=True)
    with room.fails("heard_in_order_each_once", "a second time, or late"):
        room.hear(room.ann, message)


def test_a_hole() -> None:
    room = Room()
    room.ann.freeze()
    heard = [room.bob.heard[-1] for _ in range(2) if room.say()]
    with room.fails("heard_in_order_each_once", "but has not heard chat .* nor of a gap"):
        room.hear(room.ann, heard[1])


def test_a_hole_at_the_end() -> None:
    room = Room()
    room.ann.freeze()
    room.say()
    with room.fails("heard_in_order_each_once", "has heard all that there is, but has not heard chat"):
        room.simulation.sequences.at_rest()


def test_a_hole_that_was_announced() -> None:
    room = Room()
    room.ann.freeze()
    first, second = (room.bob.heard[-1] for _ in range(2) if room.say())
    room.hear(room.ann, room.gap(first))
    room.hear(room.ann, second)
    room.simulation.sequences.at_rest()
    assert room.simulation.sequences.gaps == {"test": 1}
    with room.fails("heard_in_order_each_once", "is told to go on at .*, but has heard more"):
        room.hear(room.ann, room.gap(first))


def test_gaps_that_do_not_matter() -> None:
    room = Room()
    message = room.say()
    room.hear(room.ann, room.gap(message, channel="not joined"))
    room.hear(room.ann, room.gap(message, stream="presence", offset=99))
    assert room.simulation.sequences.gaps == {"test": 2}


def test_a_place_that_there_is_not() -> None:
    room = Room()
    message = room.say()
    with room.fails("heard_in_order_each_once", "is told of chat .*:99, which there is not"):
        room.hear(room.ann, room.gap(message, offset=99))


def test_what_is_heard_before_the_answer_to_the_join() -> None:
    room = Room()
    room.ann.join("news")
    room.server.publish("news", room.simulation.numbered("s"))
    publication = room.simulation.ledger.by_number[1][0]
    message = {"type": "message", "n": 1, "meta": {"epoch": publication.epoch, "offset": publication.offset}}
    with room.fails("heard_in_order_each_once", "before it is told that it has joined"):
        room.hear(room.ann, message)
    # Who has not joined may hear it as it will.
    room.hear(room.bob, message)


def test_another_life_without_a_word() -> None:
    room = Room()
    other = room.simulation.add_server("z")
    room.say()
    other.publish("chat", room.simulation.numbered("z"))
    [publication] = room.simulation.ledger.by_number[2]
    message = {"type": "message", "n": 2, "meta": {"epoch": publication.epoch, "offset": publication.offset}}
    with room.fails("heard_in_order_each_once", "of life z1, and was in s1: it was not told"):
        room.hear(room.ann, message)
    room.ann.server = other
    with room.fails("heard_in_order_each_once", "is in z1, and was not told that chat is not that of s1"):
        room.simulation.sequences.at_rest()


def test_another_life_that_has_said_nothing_need_not_be_told() -> None:
    room = Room()
    room.ann.server = room.simulation.add_server("z")
    room.say()
    room.simulation.sequences.at_rest()


def test_what_was_kept_and_is_not_heard() -> None:
    room = Room()
    message = room.say(persistent=True)
    room.simulation.sequences.client_joined(room.bob, "chat", _position(message), again=False)
    with room.fails("heard_in_order_each_once", "bob never heard chat .*, which was kept for it"):
        room.simulation.sequences.at_rest()


def test_what_was_kept_is_heard_once() -> None:
    room = Room()
    message = room.say(persistent=True)
    room.simulation.sequences.client_joined(room.bob, "chat", _position(message), again=False)
    room.hear(room.bob, message)
    room.simulation.sequences.at_rest()
    with room.fails("heard_in_order_each_once", "a second time, or late"):
        room.hear(room.bob, message)


def test_what_was_kept_may_be_dropped_on_its_way() -> None:
    room = Room(config=DROPPING)
    first, second = room.say(persistent=True), room.say(persistent=True)
    room.simulation.sequences.client_joined(room.bob, "chat", _position(second), again=False)
    room.hear(room.bob, room.gap(first, reason="slow_consumer"))
    with room.fails("heard_in_order_each_once", "bob never heard chat .*:2 .*, which was kept for it"):
        room.simulation.sequences.at_rest()
    room.hear(room.bob, second)
    room.simulation.sequences.at_rest()


def test_an_answer_that_comes_after_the_channel_was_left() -> None:
    room = Room()
    room.simulation.sequences.client_joined(room.bob, "left", {"epoch": "e", "offset": 0}, again=False)
    room.simulation.sequences.at_rest()


def unheard(room: Room, count: int) -> list[Message]:
    """Let the application publish while eve, on the event stream, hears nothing; returns what she is to hear."""
    room.eve.freeze()
    return [room.say() for _ in range(count)]


def test_what_an_event_stream_was_told_is_missing_may_come_on_its_next_connection() -> None:
    room = Room(config=DROPPING)
    first, second, third = unheard(room, 3)
    room.hear(room.eve, room.gap(second, reason="slow_consumer"))
    with room.fails("heard_in_order_each_once", "a second time, or late"):
        room.hear(room.eve, first)
    with room.fails("heard_in_order_each_once", "but has heard more"):
        room.hear(room.eve, room.gap(first))
    _connect_again(room, "s1")
    for message in (first, second, third):
        room.hear(room.eve, message)
    room.simulation.sequences.at_rest()
    with room.fails("heard_in_order_each_once", "a second time, or late"):
        room.hear(room.eve, third)


def test_what_was_missing_may_be_lost_in_part_by_then() -> None:
    room = Room(config=DROPPING)
    first, second, third = unheard(room, 3)
    room.hear(room.eve, room.gap(third, reason="slow_consumer"))
    _connect_again(room, "s1")
    room.hear(room.eve, room.gap(first, reason="history_lost"))
    for message in (second, third):
        room.hear(room.eve, message)
    room.simulation.sequences.at_rest()


def test_an_event_stream_may_go_on_where_it_was_before_another_server_told_of_a_gap() -> None:
    room = Room()
    other = room.simulation.add_server("z")
    other.publish("chat", room.simulation.numbered("z"))
    [there] = room.simulation.ledger.by_number[1]
    elsewhere = {"type": "gap", "channel": "chat", "epoch": there.epoch, "offset": there.offset, "reason": "test"}
    first, second, third = unheard(room, 3)
    for back in (first, room.gap(second), None):
        room.eve.server = other
        _connect_again(room, "z1")
        room.hear(room.eve, elsewhere)
        room.eve.server = room.server
        _connect_again(room, "s1")
        if back is not None:
            room.hear(room.eve, back)
    # All that she has not heard is the third.
    with room.fails("heard_in_order_each_once", "eve has heard all that there is, but has not heard chat .*:3 "):
        room.simulation.sequences.at_rest()
    room.hear(room.eve, third)
    room.simulation.sequences.at_rest()


def _connect_again(room: Room, life: str) -> None:
    room.eve.connection_id = f"{life}c99"
    room.simulation.ledger.life_of[room.eve.connection_id] = life


# Who is there


def test_who_is_said_to_be_there_and_is_not() -> None:
    room = Room()
    node = room.server.node

    def presence(channel: str) -> Message | Refusal:
        return {"channel": channel, "count": 1, "users": [{"user_id": "zoe", "connection_id": "s1c9"}]}

    room.simulation.rest()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(node), "presence", lambda node, channel: presence(channel))
        with room.fails("presence_is_true", "s says that .*zoe.* are in chat, but it is .*ann"):
            _presence(room.simulation).at_rest()
        patch.setattr(type(node), "presence", lambda node, channel: {"channel": channel, "count": 999, "users": None})
        _presence(room.simulation).at_rest()


def test_what_a_client_believes_and_is_not() -> None:
    room = Room()
    room.simulation.rest()
    truth = _presence(room.simulation)
    meta = {"epoch": "another", "offset": 1}
    event = {"type": "user_joined", "channel": "chat", "user_id": "zoe", "connection_id": "s1c9", "meta": meta}
    room.hear(room.ann, event)
    with room.fails("presence_is_true", "ann believes that .*zoe.* are in chat"):
        truth.at_rest()
    # Told again, it is no news; of what a client does not follow it believes nothing.
    room.hear(room.ann, {**event, "type": "user_left"})
    room.hear(room.ann, event, channel="not joined")
    with room.fails("presence_is_true", "ann believes that .*zoe.* are in chat"):
        truth.at_rest()
    room.hear(room.ann, {**event, "type": "user_left", "meta": {**meta, "offset": 2}})
    truth.at_rest()
    room.hear(room.ann, event, meta={**meta, "offset": 3})
    room.hear(room.ann, room.gap(event, stream="presence"))
    truth.at_rest()
    room.hear(room.ann, event, meta={**meta, "offset": 4})
    truth.at_rest()


def test_who_is_said_to_have_left_and_is_there() -> None:
    room = Room()
    answer = room.server.node._router.roster("chat")
    assert not isinstance(answer, Refusal)
    assert answer.members is not None
    member = next(each for each in answer.members if each["user_id"] == "ann")
    where = Source("chat", answer.epoch, answer.offset, SlowConsumer.DISCONNECT, "", True)
    truth = _presence(room.simulation)
    # Herself, on another connection than the one that has gone; and a connection of nobody in particular.
    for user_id, connection_id in (("ann", member["connection_id"]), ("ann", "s1c0"), (None, room.eve.connection_id)):
        left = {"type": "user_left", "channel": "chat", "user_id": user_id, "connection_id": connection_id}
        with room.fails("presence_is_true", "is told while .* is there"):
            truth.server_delivers(room.server, encode(left, source=where), ("s1c1",))
        # What is told again later is followed by the rest.
        earlier = attrs.evolve(where, offset=where.offset - 1)
        truth.server_delivers(room.server, encode(left, source=earlier), ("s1c1",))
    gone = {"type": "user_left", "channel": "chat", "user_id": None, "connection_id": "s1c9"}
    truth.server_delivers(room.server, encode(gone, source=where), ("s1c1",))


def test_channels_without_presence_have_no_truth() -> None:
    silent = RouterConfig(namespaces=Namespaces((), Namespace(pattern="*", presence=False)))
    room = Room(config=ServerConfig(node=NodeConfig(router=silent)))
    room.simulation.rest()
    room.simulation.empty()


def test_of_a_channel_that_it_is_not_in_a_client_believes_nothing() -> None:
    room = Room()
    truth = _presence(room.simulation)
    roster = {"count": 1, "users": [{"user_id": "zoe", "connection_id": "s1c9"}], "epoch": "e", "offset": 1}
    truth.client_joined(room.ann, "left", {"presence": roster}, again=False)
    # Nor of one where it may not know.
    truth.client_joined(room.ann, "chat", {"presence": roster}, again=False)
    truth.client_joined(room.ann, "chat", {}, again=True)
    room.simulation.rest()


def test_who_has_left_believes_nothing() -> None:
    room = Room()
    room.simulation.rest()
    room.bob.disconnect()
    room.ann.leave("chat")
    room.simulation.run_for(20.0)
    _presence(room.simulation).at_rest()


def _presence(simulation: Simulation) -> PresenceTruth:
    [truth] = [each for each in simulation.invariants if isinstance(each, PresenceTruth)]
    return truth
