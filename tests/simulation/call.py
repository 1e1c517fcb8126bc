"""A peer of a call: a simulated client, a `Mesh`, and models of the peer connections that this wants."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

import attrs

from rtcore.client import Answered, ClientConfig, Effect, MessageReceived, Refused, Rejoined, RejoinRefused
from rtcore.errors import LocalProtocolError, QueueFull
from rtcore.messages import Message
from rtcore.signaling import Mesh, MeshConfig
from rtcore.signaling.peer_connection import AddCandidate, Build, Close, Event, Send, SetRemoteDescription
from rtcore.signaling.peer_connection import Effect as PeerEffect
from rtcore.simulation import Call as Asked
from rtcore.simulation import SimulatedWebSocketClient
from rtcore.simulation.scenario_config import WEBSOCKET

from ..signaling_model.peer_connection import PeerConnection

if TYPE_CHECKING:
    from .call_truth import CallTruth

__all__ = ["ROOM_ID", "Caller", "Connection"]

ROOM_ID: Final = "room"
_STREAM: Final = f"$room:{ROOM_ID}"
_MESSAGES: Final = ("webrtc_signal", "peer_joined", "peer_left", "room_closed")
# Refusals that do not tell whether the server has got a signal.
_UNDECIDED: Final = ("timeout", "connection_lost")
# After how many seconds a peer that was not let in, or was sent away, asks again.
_PATIENCE: Final = 1.0


@attrs.define
class Connection(PeerConnection):
    """A peer connection whose operations take their time.

    Attributes:
        planned: Whether it is known when something happens next.
        tries: The two ICE generations that try to reach each other, while they do not.
        reached: Those that were reported to reach each other.
    """

    planned: bool = False
    tries: tuple[str, str] | None = None
    reached: tuple[str, str] | None = None

    @property
    def generations(self) -> tuple[str, str] | None:
        """The two ICE generations by which it connects."""
        return None if self.local is None or self.remote is None else (self.local.ufrag, self.remote.ufrag)

    def has_candidate(self, effect: AddCandidate) -> bool:
        """Whether a candidate was added, or is to be."""
        assert effect.candidate is not None, "the model does not tell that there are no more"
        return effect in self.chain or effect.candidate["usernameFragment"] in self.candidates


class Caller(SimulatedWebSocketClient):
    """One life of a page that takes part in the call: a client, a mesh, and what the mesh wants of connections.

    Args:
        truth: What it is part of.
        name: Differs from those of all other lives.
        peer_id: As whom it is in the room.
        user_id: Whom it says it is.
        rollback: Whether its connections can roll back.
        carries: Whether it has something to send to the others.
        config: Limits and times of the client.
        mesh: Those of the mesh.
        patient: As `patient`.
        skew: What its clock shows at the beginning.

    Attributes:
        instance: By which it is, or wants to be, in the room.
        wanted: Whether it is to be in the room.
        inside: Whether the server has let it in, as far as it knows.
        known: The instances of the others in the room, as far as it knows.
        connections: By the other's id.
        fresh_at: When it was last told who is there, without what it may have missed.
        patient: Whether it says one signal after another, each again until the server has taken or refused it.
    """

    def __init__(
        self,
        truth: CallTruth,
        name: str,
        peer_id: str,
        *,
        user_id: str | None,
        rollback: bool,
        carries: bool,
        config: ClientConfig,
        mesh: MeshConfig,
        patient: bool,
        skew: float,
    ) -> None:
        simulation = truth.simulation
        super().__init__(
            simulation.world,
            simulation.network,
            name,
            user_id=user_id,
            servers=simulation.servers,
            observer=simulation._watchers,
            config=config,
            websocket=WEBSOCKET,
            skew=skew,
        )
        self.truth = truth
        self.peer_id = peer_id
        self.rollback = rollback
        self.carries = carries
        self.mesh = Mesh(ROOM_ID, entropy=name, rollback=rollback, config=mesh)
        self.instance = ""
        self.wanted = self.inside = False
        self.known: dict[str, str] = {}
        self.connections: dict[str, Connection] = {}
        self.fresh_at = 0.0
        self._lives = 0
        self.patient = patient
        self._joins: list[Asked] = []
        # What is to be said, one after the other; the first is under way if it has a call.
        self._signals: deque[Message] = deque()
        self._saying: Asked | None = None

    # What its user does

    def enter(self, *, anew: bool) -> None:
        """Ask to be let into the room, as another instance or as the same."""
        self.wanted = True
        if anew or not self.instance:
            self._lives += 1
            self.instance = f"{self.name}/{self._lives}"
        self._joins.append(
            self.request(
                "join_room",
                room_id=ROOM_ID,
                peer_id=self.peer_id,
                instance=self.instance,
                rollback=self.rollback,
                metadata={"name": self.name},
            )
        )

    def quit(self) -> None:
        """Leave the room."""
        self.wanted = self.inside = False
        self.do(self.mesh.close())
        self.request("leave_room", room_id=ROOM_ID)

    def vanish(self, *, silently: bool) -> None:
        """End, as a page does that is closed."""
        self.wanted = self.inside = False
        self.connections.clear()
        if silently:
            self.change_address()
        self.disconnect()
        self.truth.poke()

    # Time

    def next_timeout(self) -> float | None:
        """See `Machine.next_timeout`."""
        times = (super().next_timeout(), None if self.ended else self.mesh.next_timeout())
        return min((time for time in times if time is not None), default=None)

    def handle_timeout(self) -> None:
        """See `Machine.handle_timeout`."""
        super().handle_timeout()
        if not self.ended:
            self.do(self.mesh.handle_timeout(now=self.now()))
            at = self.mesh.next_timeout()
            if at is not None and at <= self.now():
                raise self.world.fail("no_deadline_in_the_past", f"the mesh of {self} has one at {at}")

    # What it is told

    def perform(self, effects: Sequence[Effect]) -> None:
        """See `SimulatedWebSocketClient.perform`."""
        super().perform(effects)
        for effect in effects:
            match effect:
                case MessageReceived(message={"type": str(kind)} as message) if kind in _MESSAGES:
                    self._receive(message)
                case Answered(id=token, data=answer) | Rejoined(channel=token, data=answer):
                    self._said(token, again=False)
                    if token == _STREAM or self._forget_join(token):
                        assert isinstance(answer, dict), "the server describes the room"
                        self._enter(answer)
                case Refused(id=token, code=code):
                    self._said(token, again=code in _UNDECIDED)
                    if self._forget_join(token):
                        self._enter_later(anew=False)
                case RejoinRefused(channel=stream) if stream == _STREAM:
                    self._go(anew=False)
                case _:
                    pass

    def _forget_join(self, token: str) -> bool:
        before = len(self._joins)
        self._joins = [each for each in self._joins if each.id != token]
        return len(self._joins) < before

    def _enter(self, answer: Message) -> None:
        if not self.wanted or self.ended or answer["instance"] != self.instance:
            return
        participants = answer["participants"]
        assert isinstance(participants, list), "the server says who is there"
        self.inside = True
        if answer.get("recovered") is not True:
            self.fresh_at = self._scheduler.now
            self.known = {each["peer_id"]: each["instance"] for each in participants}
        else:
            self.truth.recovered += 1
        self.do(self.mesh.join(answer, now=self.now()))

    def _receive(self, message: Message) -> None:
        if not self.inside or self.ended:
            return
        peer_id, instance = str(message.get("peer_id")), str(message.get("instance"))
        match message["type"]:
            case "webrtc_signal":
                self.truth.hears(self, message)
            case "peer_joined":
                self.known[peer_id] = instance
            case "peer_left" if self.known.get(peer_id) == instance:
                del self.known[peer_id]
            case _:
                pass
        self.do(self.mesh.receive(message, now=self.now()))
        is_own = message["type"] == "peer_left" and (peer_id, instance) == (self.peer_id, self.instance)
        if is_own or message["type"] == "room_closed":
            # By this the client goes on from nowhere, as the mesh does: both are told who is there.
            self.request("leave_room", room_id=ROOM_ID)
            self._go(anew=self.world.choices.chance(50))

    def _go(self, *, anew: bool) -> None:
        """Be in the room no longer, although one wants to."""
        self.inside = False
        self.known.clear()
        self.do(self.mesh.close())
        self._enter_later(anew=anew)

    def _enter_later(self, *, anew: bool) -> None:
        def enter() -> None:
            if self.wanted and not self.inside and not self.ended and not self._joins:
                self.enter(anew=anew)

        self.world.scheduler.after(_PATIENCE, partial(self.attend, enter))

    # What its mesh wants

    def do(self, effects: Sequence[PeerEffect]) -> None:
        """Carry out effects of the mesh, in order."""
        for effect in effects:
            if not isinstance(effect, Send):
                self.note("is to", effect)
            match effect:
                case Send(message=message):
                    self._say(message)
                case Build(peer_id=peer_id, build=build):
                    name = self.truth.fresh_name()
                    covering = self.world.choices.chance(50)
                    self.connections[peer_id] = Connection(
                        f"c{name}", build, self.rollback, needs=self.carries, covering=covering
                    )
                case Close(peer_id=peer_id):
                    del self.connections[peer_id]
                case _:
                    self._carry_out(effect, self.connections[effect.peer_id])
        self.rekey()
        self.truth.poke()

    def tell(self, peer_id: str, event: Event) -> None:
        """Let the mesh know what a connection reports."""
        self.note("reports", event)
        try:
            self.do(self.mesh.handle(peer_id, event, now=self.now()))
        except LocalProtocolError as error:
            raise self.world.fail("peer_connection", f"{self}: {error}") from error

    def _say(self, message: Message) -> None:
        # It may be sent when there is another instance.
        message = {**message, "instance": self.instance}
        if self.patient:
            self._signals.append(message)
            self._say_next()
            return
        try:
            self.publish(self.truth.numbered(self, message))
        except QueueFull as full:
            raise self.world.fail("call", f"{self} has too much to say while offline") from full

    def _say_next(self) -> None:
        if self._saying is not None or not self._signals or self.ended:
            return
        try:
            self._saying = self.publish(self.truth.numbered(self, self._signals[0]))
        except QueueFull:
            self.world.scheduler.after(_PATIENCE, partial(self.attend, self._say_next))

    def _said(self, token: str, *, again: bool) -> None:
        if self._saying is None or self._saying.id != token:
            return
        self._saying = None
        if not again:
            self._signals.popleft()
        self._say_next()

    def _carry_out(self, effect: PeerEffect, connection: Connection) -> None:
        if self.patient and isinstance(effect, AddCandidate) and connection.has_candidate(effect):
            # It was sent again since the answer was late, which is no harm.
            return
        if isinstance(effect, SetRemoteDescription):
            self.truth.uses(self, effect)
        try:
            connection.do(effect)
        except AssertionError as violation:
            raise self.world.fail("peer_connection", f"{self} to {effect.peer_id}: {violation}") from violation
