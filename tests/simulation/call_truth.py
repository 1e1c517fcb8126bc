"""What must hold in a call: signals come to whom they are for, and in the end all are connected to all."""

from __future__ import annotations

from functools import partial
from typing import Final

import attrs

from rtcore.messages import Message
from rtcore.signaling import Phase
from rtcore.signaling.peer_connection import (
    CandidateGathered,
    Event,
    IceState,
    IceStateChanged,
    NegotiationNeeded,
    OperationFailed,
    SetRemoteDescription,
)
from rtcore.simulation import Invariant, SimulatedClient, SimulatedServer, Simulation

from ..signaling_model.peer_connection import described
from .call import Caller, Connection

__all__ = ["CallTruth"]

# Refusals of the server, by which nobody gets a signal.
_REFUSALS: Final = ("not_in_room", "unknown_peer", "outdated_signal", "invalid_signal")
# For how long ICE tries, in seconds, before it has failed.
_ICE_TIMEOUT: Final = 8.0


@attrs.define(eq=False)
class Said:
    """A signal that was said.

    Attributes:
        message: It.
        sender: By whom.
        instance: By which instance.
        at: When, in virtual seconds.
        acknowledged: Whether the server has told the sender that it passes it on.
        refused: Whether it has told that it does not.
        heard: Whether it has come.
    """

    message: Message
    sender: Caller
    instance: str
    at: float
    acknowledged: bool = False
    refused: bool = False
    heard: bool = False


class CallTruth(Invariant):
    """Signals come to whom they are for, in order, each once, if at all; and once things are quiet, all are connected.

    Attributes:
        callers: The present life of each peer, by its id.
        signals: What was said, by number.
        repairs: Whether ICE reports that it has failed when it has tried long enough.
        heard: How many signals have come.
        refused: How many were refused, by code.
        recovered: How often somebody was let in again who had missed nothing.
        connected: How many pairs were connected at rest.
    """

    name = "call"

    def __init__(self, *, repairs: bool) -> None:
        self.repairs = repairs
        self.callers: dict[str, Caller] = {}
        self.signals: dict[int, Said] = {}
        self.heard = 0
        self.refused: dict[str, int] = {}
        self.recovered = 0
        self.connected = 0
        self._serial = 0
        # By receiver and sender, each an instance, the number of the last signal.
        self._last: dict[tuple[str, str], int] = {}
        self._used: dict[str, None] = {}

    def begin(self, simulation: Simulation) -> None:
        """See `Invariant`."""
        super().begin(simulation)
        self._choices = simulation.world.choices

    # Signals

    def fresh_name(self) -> str:
        """Return a name that nothing else has."""
        self._serial += 1
        return str(self._serial)

    def numbered(self, caller: Caller, message: Message) -> Message:
        """Return a signal with a number, by which it is known."""
        numbered = self.simulation.numbered(caller.name, **message)
        number = numbered["n"]
        assert isinstance(number, int), "it is one"
        self.signals[number] = Said(numbered, caller, caller.instance, self.simulation.now)
        return numbered

    def client_published(self, client: SimulatedClient, number: int, receipt: Message) -> None:
        """See `Observer`."""
        self.signals[number].acknowledged = True

    def client_refused(self, client: SimulatedClient, number: int, code: str) -> None:
        """See `Observer`."""
        self.refused[code] = self.refused.get(code, 0) + 1
        said = self.signals[number]
        said.refused = code in _REFUSALS
        self._check_refused(said)

    def hears(self, caller: Caller, message: Message) -> None:
        """A peer hears a signal."""
        number = message["n"]
        assert isinstance(number, int), "it was numbered"
        said = self.signals[number]
        sender = (message["peer_id"], message["instance"])
        if sender != (said.sender.peer_id, said.instance):
            raise self.broken(f"{caller} hears {message}, but it was {said.sender} who said it, as {said.instance}")
        if (said.message["target_peer_id"], said.message["target_instance"]) != (caller.peer_id, caller.instance):
            raise self.broken(f"{caller}, as {caller.instance}, hears {message}, which is for somebody else")
        if any(message.get(key) != value for key, value in said.message.items()):
            raise self.broken(f"{caller} hears {message}, but it was {said.message}")
        if said.heard:
            raise self.broken(f"{caller} hears {message} twice")
        pair = (caller.instance, said.instance)
        if self._last.get(pair, 0) > number:
            raise self.broken(f"{caller} hears {message} after n={self._last[pair]}")
        if caller.known.get(said.sender.peer_id) != said.instance:
            raise self.broken(f"{caller} hears {message} of somebody of whom it was not told: it knows {caller.known}")
        said.heard = True
        self._check_refused(said)
        self._last[pair] = number
        self.heard += 1

    def _check_refused(self, said: Said) -> None:
        if said.refused and said.heard:
            raise self.broken(f"{said.message} has come, but {said.sender} was told that it was refused")

    def uses(self, caller: Caller, effect: SetRemoteDescription) -> None:
        """A peer is about to set a description."""
        name = described(effect.sdp).name
        if name in self._used:
            raise self.broken(f"{caller} uses {effect} a second time")
        self._used[name] = None

    # Connections

    def reach(self, caller: Caller, peer_id: str) -> bool:
        """Whether each of two has the other's present ICE generation, and a candidate of it."""
        one, other = caller.connections.get(peer_id), self.callers.get(peer_id)
        two = None if other is None else other.connections.get(caller.peer_id)
        if one is None or two is None or not (one.local and one.remote and two.local and two.remote):
            return False
        return (
            (one.local.ufrag, two.local.ufrag) == (two.remote.ufrag, one.remote.ufrag)
            and one.remote.ufrag in one.candidates
            and two.remote.ufrag in two.candidates
            and one.local.ufrag != one.dead
            and two.local.ufrag != two.dead
        )

    def poke(self) -> None:
        """See what happens next on all connections, and when."""
        for caller in self.callers.values():
            for peer_id, connection in caller.connections.items():
                if not connection.planned and self._steps(caller, peer_id, connection):
                    connection.planned = True
                    delay = self._choices.pick((0.01, 0.1, 0.3, 1.0))
                    step = partial(self._step, caller, peer_id, connection)
                    self.simulation.world.scheduler.after(delay, partial(caller.attend, step))
                if self.repairs:
                    self._watch(caller, peer_id, connection)

    def _steps(self, caller: Caller, peer_id: str, connection: Connection) -> list[str]:
        steps = []
        if connection.chain:
            steps.append("end")
        if connection.ungathered:
            steps.append("gather")
        if connection.needs and not connection.asked and connection.idle:
            steps.append("ask")
        reaches = self.reach(caller, peer_id)
        if connection.reported is not reaches or (reaches and connection.reached != connection.generations):
            steps.append("report")
        return steps

    def _step(self, caller: Caller, peer_id: str, connection: Connection) -> None:
        connection.planned = False
        if caller.connections.get(peer_id) is not connection:
            return
        steps = self._steps(caller, peer_id, connection)
        if steps:
            try:
                event = self._event(self._choices.pick(steps), caller, peer_id, connection)
            except AssertionError as violation:
                raise self.simulation.world.fail(
                    "peer_connection", f"{caller} to {peer_id}: {violation}"
                ) from violation
            caller.tell(peer_id, event)

    def _event(self, step: str, caller: Caller, peer_id: str, connection: Connection) -> Event:
        build = connection.build
        match step:
            case "end":
                return connection.end(self.fresh_name())
            case "ask":
                connection.asked = True
                return NegotiationNeeded(build)
            case "gather":
                ufrag, connection.ungathered = connection.ungathered[0], connection.ungathered[1:]
                return CandidateGathered(build, {"candidate": "c", "usernameFragment": ufrag})
            case _:
                connection.reported, connection.reached = self.reach(caller, peer_id), connection.generations
                return IceStateChanged(build, IceState.CONNECTED if connection.reported else IceState.DISCONNECTED)

    def _watch(self, caller: Caller, peer_id: str, connection: Connection) -> None:
        """Let ICE fail that has tried for long enough."""
        tries = connection.generations
        if tries is None or self.reach(caller, peer_id):
            connection.tries = None
            return
        if connection.tries == tries:
            return
        connection.tries = tries

        def fail() -> None:
            if connection.tries == tries and caller.connections.get(peer_id) is connection:
                connection.reported = False
                caller.tell(peer_id, IceStateChanged(connection.build, IceState.FAILED))

        self.simulation.world.scheduler.after(_ICE_TIMEOUT, partial(caller.attend, fail))

    # What goes wrong

    def need(self, caller: Caller, peer_id: str) -> None:
        """Have something more to send."""
        connection = caller.connections[peer_id]
        connection.needs, connection.asked = True, False
        self.poke()

    def fail(self, caller: Caller, peer_id: str) -> None:
        """Let the network between two peers fail, as one of them is the first to notice."""
        connection = caller.connections[peer_id]
        if connection.local is not None and connection.remote is not None:
            connection.dead, connection.reported = connection.local.ufrag, False
            caller.tell(peer_id, IceStateChanged(connection.build, IceState.FAILED))

    def break_down(self, caller: Caller, peer_id: str) -> None:
        """Let the operation that is under way end in an error."""
        connection = caller.connections[peer_id]
        if connection.chain:
            connection.chain = ()
            caller.tell(peer_id, OperationFailed(connection.build))

    # At rest

    def unrest(self) -> str | None:
        """Return in what way not everybody is connected to everybody else and to nobody else, or ``None``."""
        inside = {peer_id: caller for peer_id, caller in self.callers.items() if caller.wanted}
        for caller in self.callers.values():
            if caller.ended:
                continue
            others = [peer_id for peer_id in inside if caller.wanted and peer_id != caller.peer_id]
            if caller.wanted is not caller.inside:
                return f"{caller} is {'not ' if caller.wanted else ''}in the room"
            if sorted(caller.connections) != sorted(others) or sorted(caller.mesh) != sorted(others):
                has = f"{list(caller.connections)} by {list(caller.mesh)}"
                return f"{caller} has connections to {has}, and {others} are there"
            for peer_id in others:
                if caller.carries or inside[peer_id].carries:
                    unrest = self._apart(caller, peer_id)
                    if unrest is not None:
                        return unrest
        return None

    def _apart(self, caller: Caller, peer_id: str) -> str | None:
        one, other = caller.connections[peer_id], self.callers[peer_id].connections.get(caller.peer_id)
        negotiation = caller.mesh.get(peer_id)
        assert negotiation is not None, "there is a connection"
        where = f"{caller} and {peer_id}, who stands at {negotiation.phase.value!r},"
        if not self.reach(caller, peer_id) or not negotiation.connected:
            return f"{where} are not connected"
        if other is None or one.local != other.remote or not one.idle or one.needs:
            return f"{where} do not agree"
        return None if negotiation.phase is Phase.STABLE else f"{where} are not done"

    def check_rest(self) -> None:
        """Fail unless servers know who is in the room, and all that was passed on has come."""
        inside = {caller.peer_id: caller.instance for caller in self.callers.values() if caller.wanted}
        for server in self.simulation.servers:
            there = _peers(server)
            if there != {peer_id: (instance, True) for peer_id, instance in inside.items()}:
                raise self.broken(f"{server} says that {there} are there, but it is {inside}")
        for said in self.signals.values():
            target = self.callers.get(str(said.message["target_peer_id"]))
            if (
                said.acknowledged
                and not said.heard
                and target is not None
                and target.inside
                and said.message["target_instance"] == target.instance
                and said.at > target.fresh_at
            ):
                raise self.broken(f"{target} never heard {said.message}, which was acknowledged")
        for caller in self.callers.values():
            if caller.inside and caller.known != {each: inside[each] for each in inside if each != caller.peer_id}:
                raise self.broken(f"{caller} was told that {caller.known} are there, but it is {inside}")
        self.connected = len(inside) * (len(inside) - 1) // 2

    def emptied(self) -> None:
        """See `Invariant`."""
        for server in self.simulation.servers:
            if not server.node.empty:
                raise self.broken(f"{server} is not empty: {_peers(server)}")


def _peers(server: SimulatedServer) -> dict[str, tuple[str, bool]]:
    signaling = server.node.signaling
    assert signaling is not None, "it has rooms"
    return {
        peer.peer_id: (peer.instance, peer.connection_id is not None)
        for room in signaling.rooms
        for peer in room.peers.values()
    }
