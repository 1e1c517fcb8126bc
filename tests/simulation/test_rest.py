"""The end of a simulation says so when something is left, or never becomes quiet."""

from __future__ import annotations

import attrs
import pytest

from rtcore.node import NodeConfig
from rtcore.simulation import ServerConfig, Simulation, SimulationFailure

from .ends import End
from .room import Room

# What is left


def test_more_waits_than_may() -> None:
    room = Room()
    room.simulation.run_for(1.0)
    [link] = room.simulation.network.links(room.ann)
    link.quality = attrs.evolve(link.quality, capacity=500)
    room.ann.freeze()
    for _ in range(10):
        room.server.publish("chat", room.simulation.numbered("s", text="x" * 300))
    room.simulation.bounds.check()
    for limits in ({"max_waiting": 2}, {"max_backlog": 0, "node": NodeConfig(max_message_size=100)}):
        room.server.config = attrs.evolve(ServerConfig(), **limits)
        with room.fails("buffers_are_bounded", "messages of .* bytes wait for s1c"):
            room.simulation.bounds.check()


def emptied(simulation: Simulation) -> None:
    for invariant in simulation.invariants:
        invariant.emptied()


def test_somebody_is_left() -> None:
    room = Room()
    with room.fails("nothing_is_left", "s has connections: s1c1, s1c2, s1c3"):
        emptied(room.simulation)


def test_something_of_somebody_is_left() -> None:
    room = Room()
    room.simulation.empty()
    room.server.node._router.attach("s1c9", "zoe", now=room.server.now())
    with room.fails("nothing_is_left", "s holds {'connections': 1, 'users': 1"):
        emptied(room.simulation)


def test_a_channel_is_left_that_keeps_nothing() -> None:
    room = Room()
    room.simulation.empty()
    room.server.publish("news", room.simulation.numbered("s"))
    with room.fails("nothing_is_left", "s holds news, which keeps nothing for later joiners"):
        emptied(room.simulation)


def test_what_is_kept_for_later_joiners_may_be_left() -> None:
    room = Room()
    room.say(persistent=True)
    room.simulation.empty()
    assert not room.server.node.empty


# Quiet


def test_a_condition_that_never_holds() -> None:
    def pigs_fly() -> bool:
        return False

    room = Room()
    with room.fails("liveness", "60 seconds have not been enough for pigs_fly"):
        room.simulation.run_until(pigs_fly)
    with pytest.raises(SimulationFailure, match="liveness: 1 seconds"):
        Simulation().run_until(pigs_fly, within=1.0)


def test_somebody_never_comes_back() -> None:
    room = Room()
    # What is said on a new connection is not answered.
    room.server.accept = lambda socket: End()  # type: ignore[method-assign]
    room.ann.change_address()
    with room.fails("liveness", "after 80 seconds without faults, ann is not connected"):
        room.simulation.rest(within=80.0)


def test_what_is_not_quiet() -> None:
    room = Room()
    simulation = room.simulation
    assert simulation._unrest() is None
    room.ann.request("get_presence", channel="chat")
    assert simulation._unrest() == "ann waits for an answer"
    simulation.run_for(1.0)
    [link] = simulation.network.links(room.ann)
    link.quality = attrs.evolve(link.quality, capacity=100)
    room.say(text="x" * 500)
    room.ann.freeze()
    room.server.publish("chat", simulation.numbered("s", text="x" * 500))
    room.server.publish("chat", simulation.numbered("s", text="x" * 500))
    assert simulation._unrest() == "messages wait for s1c1"
    room.ann.thaw()
    simulation.run_for(5.0)
    assert simulation._unrest() is None
    room.bob.disconnect()
    assert simulation._unrest() == "s believes in s1c2"
    simulation.network.silence(link)
    assert simulation._unrest() == "somebody believes in a connection that is dead"
