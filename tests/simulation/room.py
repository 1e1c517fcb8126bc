"""A room with three people in it, for tests of what must hold there."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from rtcore.messages import Message
from rtcore.namespaces import Namespace, Namespaces, SlowConsumer
from rtcore.node import NodeConfig
from rtcore.router import RouterConfig
from rtcore.simulation import ServerConfig, SimulatedClient, Simulation, SimulationFailure

__all__ = ["DROPPING", "Room"]

#: Of servers that may drop what somebody does not read.
DROPPING = ServerConfig(
    node=NodeConfig(
        router=RouterConfig(namespaces=Namespaces((), Namespace(pattern="*", slow_consumer=SlowConsumer.DROP_OLDEST)))
    )
)


class Room:
    """A server, and ann and bob on WebSockets and eve on an event stream who hear ``chat``, without faults."""

    def __init__(self, *, config: ServerConfig | None = None) -> None:
        self.simulation = Simulation()
        self.simulation.world.faulty = False
        self.server = self.simulation.add_server("s", config=config)
        self.ann, self.bob = (self.simulation.add_websocket_client(name, user_id=name) for name in ("ann", "bob"))
        for client in (self.ann, self.bob):
            client.join("chat")
        self.eve = self.simulation.add_event_source("eve", channels=["chat"])
        self.simulation.run_for(1.0)

    def say(self, **fields: object) -> Message:
        """Let the application publish; returns what ann hears."""
        self.server.publish("chat", self.simulation.numbered("s", **fields))
        self.simulation.run_for(1.0)
        return self.ann.heard[-1]

    def hear(self, client: SimulatedClient, message: Mapping[str, object], **changed: object) -> None:
        """Tell a client of a message, with some of its fields changed."""
        client.hear({**message, **changed})

    def gap(self, message: Mapping[str, object], **changed: object) -> Message:
        meta = message["meta"]
        assert isinstance(meta, dict)
        gap = {"type": "gap", "channel": "chat", "epoch": meta["epoch"], "offset": meta["offset"], "reason": "test"}
        return {**gap, **changed}

    def fails(self, invariant: str, explanation: str) -> pytest.RaisesExc[SimulationFailure]:
        return pytest.raises(SimulationFailure, match=f"^(seed 0: )?{invariant}: .*{explanation}")
