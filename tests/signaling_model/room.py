"""Several peers in one room, each with a `Mesh`, and the server between them: one step at a time, by lot."""

from __future__ import annotations

import random
from typing import Final

import attrs

from rtcore.messages import Message
from rtcore.signaling.mesh import Mesh, MeshConfig
from rtcore.signaling.negotiation_config import NegotiationConfig
from rtcore.signaling.peer_connection import (
    Build,
    CandidateGathered,
    Close,
    Effect,
    Event,
    IceState,
    IceStateChanged,
    NegotiationNeeded,
    OperationFailed,
    Send,
)

from .peer_connection import PeerConnection, Violation

__all__ = ["DISTURBANCES", "Room", "Walk"]

_CONFIG: Final = MeshConfig(negotiation=NegotiationConfig(connect_timeout=None))
_MOST_STEPS: Final = 20_000
DISTURBANCES: Final = ("need", "fail", "break", "cut", "expire", "leave", "reload", "restart")


@attrs.define(eq=False)
class Peer:
    """One peer.

    Attributes:
        name: Its id.
        mesh: Its machine.
        rollback: Whether it can roll back.
        instance: The life of its application.
        connections: By the other's id.
        outbox: What has not come to the server yet.
        stream: What the server has for it.
        online: Whether it has its connection to the server.
        served: The life of its application that the server knows, or ``None``.
        wanted: Whether it is to be in the room.
    """

    name: str
    mesh: Mesh
    rollback: bool
    instance: int = 0
    connections: dict[str, PeerConnection] = attrs.field(factory=dict)
    outbox: list[Message] = attrs.field(factory=list)
    stream: list[Message] = attrs.field(factory=list)
    online: bool = False
    served: int | None = None
    wanted: bool = True


@attrs.frozen
class Walk:
    """What has happened: how many steps, and which disturbances."""

    steps: int
    disturbances: list[str]


class Room:
    """A room and its peers.

    Args:
        lots: Decides.
        size: How many peers there are.
        backward: How many of them cannot roll back.
    """

    def __init__(self, lots: random.Random, *, size: int, backward: int = 0) -> None:
        self._lots = lots
        self._serial = 0
        self._time = 0.0
        self._outstanding: dict[tuple[str, str], str] = {}
        self._peers = {
            name: self._peer(name, rollback=index >= backward) for index, name in enumerate("abcdefgh"[:size])
        }

    def walk(self, *, disturbances: int) -> Walk:
        """Let things happen, and check that all are connected when nothing happens any more."""
        left = disturbances
        happened: list[str] = []
        for steps in range(_MOST_STEPS):
            possible = self._steps()
            if left and (not possible or self._lots.random() < 0.05):
                left -= 1
                happened.append(self._disturb())
            elif possible:
                self._take(*self._lots.choice(possible))
            elif not self._pass_time():
                self._check()
                return Walk(steps, happened)
        raise Violation("it never rests")

    # What may come next

    def _steps(self) -> list[tuple[str, str, str]]:
        steps: list[tuple[str, str, str]] = []
        for peer in self._peers.values():
            if not peer.online:
                if peer.wanted:
                    steps.append(("join", peer.name, ""))
            else:
                if peer.outbox:
                    steps.append(("carry", peer.name, ""))
                if peer.stream:
                    steps.append(("hear", peer.name, ""))
            for other, connection in peer.connections.items():
                if connection.chain:
                    steps.append(("end", peer.name, other))
                if connection.needs and not connection.asked and connection.idle:
                    steps.append(("ask", peer.name, other))
                if connection.ungathered:
                    steps.append(("gather", peer.name, other))
                if connection.reported is not self._reach(peer.name, other):
                    steps.append(("report", peer.name, other))
        return steps

    def _take(self, what: str, name: str, other: str) -> None:
        peer = self._peers[name]
        if what == "join":
            self._join(peer)
        elif what == "carry":
            self._carry(peer, peer.outbox.pop(0))
        elif what == "hear":
            message = peer.stream.pop(0)
            if message["type"] == "answer":
                self._do(peer, peer.mesh.join(message, now=self._time))
            else:
                self._do(peer, peer.mesh.receive(message, now=self._time))
        else:
            self._do(peer, peer.mesh.handle(other, self._event(what, peer, other), now=self._time))

    def _event(self, what: str, peer: Peer, other: str) -> Event:
        connection = peer.connections[other]
        build = connection.build
        match what:
            case "end":
                self._serial += 1
                return connection.end(str(self._serial))
            case "ask":
                connection.asked = True
                return NegotiationNeeded(build)
            case "gather":
                ufrag, connection.ungathered = connection.ungathered[0], connection.ungathered[1:]
                return CandidateGathered(build, {"candidate": "c", "usernameFragment": ufrag})
        connection.reported = self._reach(peer.name, other)
        return IceStateChanged(build, IceState.CONNECTED if connection.reported else IceState.DISCONNECTED)

    def _pass_time(self) -> bool:
        times = [time for peer in self._peers.values() if (time := peer.mesh.next_timeout()) is not None]
        if not times:
            return False
        self._time = min(times)
        for peer in self._peers.values():
            self._do(peer, peer.mesh.handle_timeout(now=self._time))
        return True

    def _disturb(self) -> str:
        lots = self._lots
        what = lots.choice(DISTURBANCES)
        peer = self._peers[lots.choice(list(self._peers))]
        connections = list(peer.connections.items())
        if what in ("need", "fail", "break"):
            if connections:
                other, connection = lots.choice(connections)
                self._disturb_connection(what, peer, other, connection)
        elif what == "restart":
            for each in self._peers.values():
                self._cut(each)
                each.served = None
            self._outstanding.clear()
        elif what in ("cut", "expire"):
            self._cut(peer)
            if what == "expire":
                self._depart(peer)
        elif peer.online:
            if what == "leave":
                self._depart(peer)
            new = self._peer(peer.name, rollback=peer.rollback)
            new.instance, new.served = peer.instance + 1, peer.served
            new.wanted = what == "reload" or lots.random() < 0.8
            self._peers[peer.name] = new
        return what

    def _disturb_connection(self, what: str, peer: Peer, other: str, connection: PeerConnection) -> None:
        if what == "need":
            connection.needs, connection.asked = True, False
        elif what == "fail" and connection.local is not None and connection.remote is not None:
            connection.dead, connection.reported = connection.local.ufrag, False
            event = IceStateChanged(connection.build, IceState.FAILED)
            self._do(peer, peer.mesh.handle(other, event, now=self._time))
        elif what == "break" and connection.chain:
            connection.chain = ()
            self._do(peer, peer.mesh.handle(other, OperationFailed(connection.build), now=self._time))

    # The server

    def _tell(self, sender: Peer, message: Message) -> None:
        for peer in self._peers.values():
            if peer is not sender and peer.served is not None:
                peer.stream.append({**message, "polite": _is_polite(peer, sender)})

    def _join(self, peer: Peer) -> None:
        if peer.served != peer.instance:
            self._depart(peer)
        known = [each for each in self._peers.values() if each.served is not None and each is not peer]
        self._forget(peer)
        joiner = {"peer_id": peer.name, "instance": str(peer.instance)}
        self._tell(peer, {"type": "peer_joined", **joiner, "rejoined": peer.served is not None})
        others = [
            {"peer_id": other.name, "instance": str(other.served), "polite": _is_polite(peer, other)} for other in known
        ]
        peer.stream = [{"type": "answer", **joiner, "recovered": False, "participants": others}]
        peer.served, peer.online = peer.instance, True

    def _depart(self, peer: Peer) -> None:
        if peer.served is not None:
            self._forget(peer)
            self._tell(peer, {"type": "peer_left", "peer_id": peer.name, "instance": str(peer.served)})
            peer.served = None

    def _forget(self, peer: Peer) -> None:
        self._outstanding = {pair: each for pair, each in self._outstanding.items() if peer.name not in pair}

    def _cut(self, peer: Peer) -> None:
        peer.online = False
        peer.outbox.clear()
        peer.stream.clear()

    def _carry(self, peer: Peer, message: Message) -> None:
        target = self._peers[str(message["target_peer_id"])]
        if None in (peer.served, target.served) or message["target_instance"] != str(target.served):
            return
        if message["signal_type"] == "offer":
            self._outstanding[peer.name, target.name] = str(message["negotiation"])
        elif message["signal_type"] == "answer":
            if self._outstanding.get((target.name, peer.name)) != message["negotiation"]:
                return
            del self._outstanding[target.name, peer.name]
        if target.online:
            target.stream.append({**message, "peer_id": peer.name, "instance": str(peer.instance)})

    # The peers

    def _peer(self, name: str, *, rollback: bool) -> Peer:
        self._serial += 1
        return Peer(name, Mesh("room", entropy=f"e{self._serial}", rollback=rollback, config=_CONFIG), rollback)

    def _do(self, peer: Peer, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                if peer.online:
                    peer.outbox.append(effect.message)
            elif isinstance(effect, Build):
                self._serial += 1
                peer.connections[effect.peer_id] = PeerConnection(
                    f"c{self._serial}", effect.build, peer.rollback, needs=True, covering=self._lots.random() < 0.5
                )
            elif isinstance(effect, Close):
                del peer.connections[effect.peer_id]
            else:
                peer.connections[effect.peer_id].do(effect)

    # What is

    def _reach(self, name: str, other: str) -> bool:
        one = self._peers[name].connections.get(other)
        two = self._peers[other].connections.get(name)
        if one is None or two is None or not (one.local and one.remote and two.local and two.remote):
            return False
        return (
            (one.local.ufrag, two.local.ufrag) == (two.remote.ufrag, one.remote.ufrag)
            and one.remote.ufrag in one.candidates
            and two.remote.ufrag in two.candidates
            and one.local.ufrag != one.dead
            and two.local.ufrag != two.dead
        )

    def _check(self) -> None:
        inside = [peer for peer in self._peers.values() if peer.served is not None]
        for peer in inside:
            for other in inside:
                if other is peer:
                    continue
                one, two = peer.connections.get(other.name), other.connections.get(peer.name)
                if one is None or two is None or not self._reach(peer.name, other.name):
                    raise Violation(f"{peer.name} and {other.name} are not connected at rest")
                if one.local != two.remote or not one.idle or one.needs:
                    raise Violation(f"{peer.name} and {other.name} do not agree at rest")
            if len(peer.connections) != len(inside) - 1:
                raise Violation(f"{peer.name} has connections to nobody at rest")


def _is_polite(peer: Peer, other: Peer) -> bool:
    if peer.rollback is not other.rollback:
        return peer.rollback
    return peer.name < other.name
