"""Two peers, their connections, and the server between them: every step that may come next, in any order."""

from __future__ import annotations

import re
from collections.abc import Callable
from hashlib import blake2b
from typing import Final

import attrs

from rtcore.messages import Message
from rtcore.signaling.negotiation import Negotiation
from rtcore.signaling.negotiation_config import NegotiationConfig
from rtcore.signaling.peer_connection import (
    Build,
    CandidateGathered,
    Close,
    Effect,
    IceState,
    IceStateChanged,
    NegotiationNeeded,
    OperationFailed,
    Send,
)

from .peer_connection import PeerConnection

__all__ = ["Course", "Pair", "Step"]

#: What happens, and to whom; of a cut also how many of the signals that the server has not yet got are lost.
Step = tuple[str, int] | tuple[str, int, int]
_NAMES: Final = re.compile(r"#[\w.]+")
_CONFIG: Final = NegotiationConfig(connect_timeout=None)
_STATE: Final = [
    name for name in Negotiation.__slots__ if name not in ("_config", "_entropy", "_peer_id", "_room_id", "_serial")
]


@attrs.frozen
class Course:
    """What an exploration is about.

    Attributes:
        carrying: Who has something to send.
        polite: Who is polite.
        rollback: Who can roll back.
        covering: Whether an answer tells all that a connection carries.
        eager: Whether a connection asks for negotiation at any time, which W3C's does only while it is idle.
        disturbances: How many there may be.
        kinds: Of what kinds.
    """

    carrying: tuple[bool, bool] = (True, True)
    polite: tuple[bool, bool] = (False, True)
    rollback: tuple[bool, bool] = (True, True)
    covering: bool = False
    eager: bool = False
    disturbances: int = 0
    kinds: tuple[str, ...] = ("need", "fail", "cut", "replace", "expire", "break")


@attrs.define
class Side:
    """One peer, as it is and as the server knows it.

    Attributes:
        instance: The life of its application.
        known: The life of the other's application that it knows.
        stream: What the server has for it.
        outstanding: The negotiation of its offer that was not answered yet, for the server.
        online: Whether it has its connection to the server.
    """

    instance: int = 0
    known: int = 0
    stream: tuple[Message | str, ...] = ()
    outstanding: str | None = None
    online: bool = True
    machine: Negotiation | None = None
    connection: PeerConnection | None = None
    former: int = -1


class Pair:
    """The state of the world; `steps` are those that may come next, and `take` takes one."""

    def __init__(self, course: Course) -> None:
        self.course = course
        self.left = course.disturbances
        self.serial = 0
        self.sides = [Side(), Side()]
        for who in (0, 1):
            self._meet(who)

    def fork(self) -> Pair:
        new = object.__new__(Pair)
        new.course, new.left, new.serial = self.course, self.left, self.serial
        new.sides = []
        for side in self.sides:
            copy = attrs.evolve(side)
            if side.machine is not None:
                copy.machine = _copied(side.machine)
            if side.connection is not None:
                copy.connection = attrs.evolve(side.connection)
            new.sides.append(copy)
        return new

    def key(self) -> bytes:
        """Return a digest that two states share if they differ only in names."""
        parts: list[object] = [self.left]
        for side in self.sides:
            machine = side.machine
            parts.append([getattr(machine, name) for name in _STATE] if machine is not None else None)
            parts.append(side.connection and attrs.astuple(side.connection, recurse=False))
            parts += [side.instance, side.known, side.stream, side.outstanding, side.online, side.former]
        names: dict[str, str] = {}
        text = _NAMES.sub(lambda found: names.setdefault(found[0], f"#{len(names)}"), repr(parts))
        return blake2b(text.encode(), digest_size=16).digest()

    # What may come next

    def steps(self) -> list[Step]:
        """Return what may come next of itself: nothing if all is quiet."""
        steps: list[Step] = []
        for who, side in enumerate(self.sides):
            connection = side.connection
            if side.stream and side.online:
                steps.append(("hear", who))
            if not side.online:
                steps.append(("rejoin", who))
            if connection is None:
                continue
            if connection.chain:
                steps.append(("end", who))
            if connection.needs and not connection.asked and (self.course.eager or connection.idle):
                steps.append(("ask", who))
            if connection.ungathered:
                steps.append(("gather", who))
            if connection.reported is not self.reachable():
                steps.append(("report", who))
        if not steps:
            steps += [
                ("time", who)
                for who, side in enumerate(self.sides)
                if side.machine is not None and side.machine.next_timeout() is not None
            ]
        return steps

    def disturbances(self) -> list[Step]:
        """Return what may come next from outside."""
        steps: list[Step] = []
        if not self.left:
            return steps
        kinds = self.course.kinds
        for who, side in enumerate(self.sides):
            connection = side.connection
            if connection is not None:
                if "need" in kinds and not (connection.needs and not connection.asked):
                    steps.append(("need", who))
                if "fail" in kinds and connection.local is not None and connection.remote is not None:
                    steps.append(("fail", who))
                if "break" in kinds and connection.chain:
                    steps.append(("break", who))
            if side.online:
                if "cut" in kinds:
                    steps += [("cut", who, lost) for lost in range(self._unsent(who) + 1)]
                if "replace" in kinds:
                    steps.append(("replace", who))
                if "expire" in kinds:
                    steps.append(("expire", who, self._unsent(who)))
        return steps

    def take(self, step: Step) -> None:
        who = step[1]
        side = self.sides[who]
        machine, connection = side.machine, side.connection
        match step[0]:
            case "hear":
                self._hear(who)
                return
            case "rejoin":
                side.online = True
                side.stream = (f"answer {self.sides[1 - who].instance}",)
                side.outstanding = self.sides[1 - who].outstanding = None
                self.sides[1 - who].stream += ("rejoined",)
                return
            case "cut":
                self._disturb()
                self._lose(who, step[-1])
                side.online = False
                return
            case "expire":
                self._disturb()
                self._lose(who, step[-1])
                side.stream = (f"answer {self.sides[1 - who].instance}",)
                side.outstanding = self.sides[1 - who].outstanding = None
                self.sides[1 - who].stream += ("left", f"joined {side.instance}")
                return
            case "replace":
                self._disturb()
                other = self.sides[1 - who]
                other.outstanding = None
                other.stream += ("left", f"joined {side.instance + 1}")
                self.sides[who] = Side(side.instance + 1, known=other.instance)
                self._meet(who)
                return
        assert machine is not None
        assert connection is not None
        build = connection.build
        match step[0]:
            case "end":
                self.serial += 1
                effects = machine.handle(connection.end(str(self.serial)), now=0.0)
            case "ask":
                connection.asked = True
                effects = machine.handle(NegotiationNeeded(build), now=0.0)
            case "gather":
                ufrag, connection.ungathered = connection.ungathered[0], connection.ungathered[1:]
                candidate: Message = {"candidate": "c", "usernameFragment": ufrag}
                effects = machine.handle(CandidateGathered(build, candidate), now=0.0)
            case "report":
                connection.reported = self.reachable()
                state = IceState.CONNECTED if connection.reported else IceState.DISCONNECTED
                effects = machine.handle(IceStateChanged(build, state), now=0.0)
            case "time":
                now = machine.next_timeout()
                assert now is not None
                effects = machine.handle_timeout(now=now)
            case "need":
                self._disturb()
                connection.needs, connection.asked = True, False
                return
            case "fail":
                self._disturb()
                assert connection.local is not None
                connection.dead = connection.local.ufrag
                connection.reported = False
                effects = machine.handle(IceStateChanged(build, IceState.FAILED), now=0.0)
            case _:
                self._disturb()
                connection.chain = ()
                effects = machine.handle(OperationFailed(build), now=0.0)
        self._do(who, effects)

    # What is

    def reachable(self) -> bool:
        """Whether each has the other's present ICE generation, and a candidate of it."""
        one, other = (side.connection for side in self.sides)
        if one is None or other is None or None in (one.local, one.remote, other.local, other.remote):
            return False
        assert one.local is not None
        assert one.remote is not None
        assert other.local is not None
        assert other.remote is not None
        return (
            one.local.ufrag == other.remote.ufrag
            and other.local.ufrag == one.remote.ufrag
            and one.remote.ufrag in one.candidates
            and other.remote.ufrag in other.candidates
            and one.local.ufrag != one.dead
            and other.local.ufrag != other.dead
        )

    def connected(self) -> bool:
        """Whether both are stable by the same offer and answer, and reach each other, and have told everything."""
        one, other = (side.connection for side in self.sides)
        if one is None or other is None or not self.reachable():
            return False
        return (
            one.local == other.remote
            and other.local == one.remote
            and not (one.offered or one.received or other.offered or other.received or one.needs or other.needs)
        )

    # Inside

    def _disturb(self) -> None:
        self.left -= 1

    def _unsent(self, who: int) -> int:
        """How many signals of `who` may not have come to the server yet."""
        count = 0
        for message in reversed(self.sides[1 - who].stream):
            if isinstance(message, str):
                break
            count += 1
        return count

    def _lose(self, who: int, lost: int) -> None:
        other = self.sides[1 - who]
        other.stream = other.stream[: len(other.stream) - lost]
        self.sides[who].stream = ()

    def _hear(self, who: int) -> None:
        side = self.sides[who]
        message, side.stream = side.stream[0], side.stream[1:]
        machine = side.machine
        if not isinstance(message, str):
            if machine is not None:
                self._do(who, machine.receive(message))
            return
        what, _, instance = message.partition(" ")
        if machine is not None and (what == "left" or (instance and int(instance) != side.known)):
            side.former = machine.build
            self._do(who, machine.close())
            side.machine = machine = None
        if machine is not None:
            self._do(who, machine.resync(polite=self.course.polite[who]))
        elif instance:
            if int(instance) != side.known:
                side.known, side.former = int(instance), -1
            self._meet(who)

    def _meet(self, who: int) -> None:
        side = self.sides[who]
        self.serial += 1
        side.machine = Negotiation(
            room_id="room",
            peer_id=str(1 - who),
            instance=str(side.known),
            polite=self.course.polite[who],
            rollback=self.course.rollback[who],
            entropy=f"#n{self.serial}",
            build=side.former + 1,
            # Nothing is to be made good by and by that ought not to have gone wrong.
            config=_CONFIG,
        )
        self._do(who, side.machine.start())

    def _do(self, who: int, effects: list[Effect]) -> None:
        side = self.sides[who]
        for effect in effects:
            if isinstance(effect, Send):
                if side.online:
                    self._send(who, effect.message)
            elif isinstance(effect, Build):
                self.serial += 1
                carries = self.course.carrying[who]
                side.connection = PeerConnection(
                    f"#c{self.serial}",
                    effect.build,
                    self.course.rollback[who],
                    needs=carries,
                    covering=self.course.covering,
                )
            elif isinstance(effect, Close):
                side.connection = None
            else:
                assert side.connection is not None
                side.connection.do(effect)

    def _send(self, who: int, message: Message) -> None:
        """Pass a signal on, or refuse it, as the server does."""
        side, other = self.sides[who], self.sides[1 - who]
        if message["target_instance"] != str(other.instance):
            return
        match message["signal_type"]:
            case "offer":
                side.outstanding = str(message["negotiation"])
            case "answer":
                if not _is_awaited(other, message):
                    return
                other.outstanding = None
            case "bye":
                _forget_offers(side, other)
        other.stream += ({**message, "instance": str(side.instance)},)


def forget_own_offers(side: Side, other: Side) -> None:
    side.outstanding = None


#: What the server does at a ``bye``: an offer of the other side may already be one of its next connection.
_forget_offers: Callable[[Side, Side], None] = forget_own_offers


def is_awaited(other: Side, message: Message) -> bool:
    return other.outstanding == message["negotiation"]


#: Which answers the server passes on.
_is_awaited: Callable[[Side, Message], bool] = is_awaited


def _copied(machine: Negotiation) -> Negotiation:
    new = object.__new__(Negotiation)
    for name in Negotiation.__slots__:
        setattr(new, name, getattr(machine, name))
    return new
