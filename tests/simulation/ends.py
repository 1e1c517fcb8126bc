"""Two machines and a network between them, for tests of the network itself."""

from __future__ import annotations

from rtcore.simulation import Choices, Network, Quality, World
from rtcore.simulation.link import Link, Socket, SocketHandler
from rtcore.simulation.machine import Machine

__all__ = ["LATENCY", "End", "Far", "Pair"]

#: Of all connections without faults.
LATENCY = Quality().latency


class End(SocketHandler):
    """Remembers what it was told: bytes, or the name of what has happened."""

    def __init__(self) -> None:
        self.told: list[str | bytes] = []

    @property
    def data(self) -> bytes:
        return b"".join(each for each in self.told if isinstance(each, bytes))

    def connected(self) -> None:
        self.told.append("connected")

    def receive_data(self, data: bytes) -> None:
        self.told.append(data)

    def receive_eof(self) -> None:
        self.told.append("eof")

    def receive_reset(self) -> None:
        self.told.append("reset")

    def writable(self) -> None:
        self.told.append("writable")


class Idle(Machine):
    def next_timeout(self) -> float | None:
        return None

    def handle_timeout(self) -> None:
        raise AssertionError("nothing is due")


class Far(Idle):
    """Takes connections."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        self.listening = True
        self.accepted: list[tuple[Socket, End]] = []

    @property
    def machine(self) -> Machine:
        return self

    def accept(self, socket: Socket) -> SocketHandler:
        end = End()
        self.accepted.append((socket, end))
        return end


class Pair:
    """A client's machine that has asked a server's for a connection, over a network without faults."""

    def __init__(self, *, seed: int = 0) -> None:
        self.world = World(Choices.from_seed(seed))
        self.world.faulty = False
        self.network = Network(self.world)
        self.client = Idle(self.world, "client")
        self.server = Far(self.world, "server")
        self.near = End()
        self.near_socket = self.network.connect(self.client, self.server, self.near)

    @classmethod
    def connected(cls, *, seed: int = 0) -> Pair:
        pair = cls(seed=seed)
        pair.pass_time(1.0)
        assert pair.near.told == ["connected"]
        pair.near.told.clear()
        return pair

    @property
    def link(self) -> Link:
        return self.near_socket.link

    @property
    def far_socket(self) -> Socket:
        [(socket, _)] = self.server.accepted
        return socket

    @property
    def far(self) -> End:
        [(_, end)] = self.server.accepted
        return end

    def pass_time(self, seconds: float) -> None:
        scheduler = self.world.scheduler
        until = scheduler.now + seconds
        while (at := scheduler.next_at()) is not None and at <= until:
            scheduler.step()
        scheduler.now = until
