"""A model of a peer connection: its signaling states, operations and ICE generations (RFC 8829; W3C WebRTC 1.0)."""

from __future__ import annotations

import attrs

from rtcore.signaling.peer_connection import (
    AddCandidate,
    Effect,
    Event,
    LocalDescriptionSet,
    RemoteDescriptionSet,
    RestartIce,
    Rollback,
    RolledBack,
    SetLocalDescription,
    SetRemoteDescription,
)

__all__ = ["Description", "PeerConnection", "Violation", "described"]


class Violation(AssertionError):
    """Something has happened that never may."""


@attrs.frozen
class Description:
    """A session description.

    Attributes:
        name: No other has it.
        type: ``offer`` or ``answer``.
        maker: The connection that has made it.
        ufrag: Its ICE generation.
        answers: The name of the offer that an answer is to.
    """

    name: str
    type: str
    maker: str
    ufrag: str
    answers: str = ""

    @property
    def sdp(self) -> str:
        return f"v=0 {self.name} {self.type} {self.maker} {self.answers or '-'}\na=ice-ufrag:{self.ufrag}"


def described(sdp: str) -> Description:
    first, second = sdp.split("\n")
    _, name, kind, maker, answers = first.split(" ")
    return Description(name, kind, maker, second.partition(":")[2], "" if answers == "-" else answers)


@attrs.define
class PeerConnection:
    """One connection.

    Attributes:
        name: No other has it.
        build: The number that its events carry.
        rollback: Whether it can roll back.
        needs: Whether it carries something that no offer has told the other side yet.
        covering: Whether an answer tells all that it carries.
        asked: Whether it has reported that.
        chain: What it has to do; the first is under way.
        local: The local description in force, `offered` the local offer that is not answered yet.
        remote: The remote description in force, `received` the remote offer that is not answered yet.
        partner: The connection that its remote descriptions are of.
        restarts: Whether the next offer restarts ICE.
        ungathered: ICE generations whose candidate was not gathered yet.
        candidates: ICE generations of the other side of which it has a candidate.
        used: Names of the descriptions that were set.
        reported: Whether it has last reported that ICE is connected.
        dead: The ICE generation whose network has failed.
    """

    name: str
    build: int
    rollback: bool
    needs: bool
    covering: bool
    asked: bool = False
    chain: tuple[Effect, ...] = ()
    local: Description | None = None
    offered: Description | None = None
    remote: Description | None = None
    received: Description | None = None
    partner: str = ""
    restarts: bool = False
    ungathered: tuple[str, ...] = ()
    candidates: tuple[str, ...] = ()
    used: tuple[str, ...] = ()
    reported: bool = False
    dead: str = ""

    @property
    def idle(self) -> bool:
        """Whether it is stable and has nothing to do."""
        return not self.chain and self.offered is None and self.received is None

    def do(self, effect: Effect) -> None:
        self.chain += (effect,)
        self.settle()

    def settle(self) -> None:
        """Do what ends at once."""
        while self.chain:
            effect = self.chain[0]
            if isinstance(effect, AddCandidate):
                self._add(effect)
            elif isinstance(effect, RestartIce):
                if not self.rollback:
                    raise Violation("a connection that cannot is told to restart ICE")
                self.restarts = True
            else:
                return
            self.chain = self.chain[1:]

    def end(self, fresh: str) -> Event:
        """End the operation that is under way; `fresh` is a name for what it makes."""
        effect, self.chain = self.chain[0], self.chain[1:]
        event: Event
        if isinstance(effect, SetLocalDescription):
            event = self._set_local(fresh)
        elif isinstance(effect, SetRemoteDescription):
            self._set_remote(described(effect.sdp))
            event = RemoteDescriptionSet(self.build)
        else:
            assert isinstance(effect, Rollback)
            if self.offered is None or not self.rollback:
                raise Violation("nothing to roll back")
            self._take_back()
            event = RolledBack(self.build)
        self.settle()
        return event

    def _set_local(self, fresh: str) -> Event:
        ufrag = f"#u{fresh}"
        if self.received is not None:
            if self.local is not None and (self.remote is None or self.remote.ufrag == self.received.ufrag):
                ufrag = self.local.ufrag
            made = Description(f"#d{fresh}", "answer", self.name, ufrag, self.received.name)
            self._gather(ufrag)
            self.local, self.remote, self.received = made, self.received, None
            self.needs = self.restarts or (self.needs and not self.covering)
            self.asked = self.asked and not self.restarts
            return LocalDescriptionSet(self.build, "answer", made.sdp)
        before = self.offered or self.local
        if before is not None and not self.restarts:
            ufrag = before.ufrag
        made = Description(f"#d{fresh}", "offer", self.name, ufrag)
        self._gather(ufrag)
        self.offered = made
        return LocalDescriptionSet(self.build, "offer", made.sdp)

    def _set_remote(self, description: Description) -> None:
        if description.name in self.used:
            raise Violation("a description is set twice")
        if self.partner not in ("", description.maker):
            raise Violation("a description of another connection is set")
        self.used += (description.name,)
        self.partner = description.maker
        if description.type == "offer":
            if self.offered is not None:
                if not self.rollback:
                    raise Violation("an offer is set over one's own by a connection that cannot roll back")
                self._take_back()
            if not self.rollback and self.remote is not None and self.remote.ufrag != description.ufrag:
                raise Violation("ICE is restarted on a connection that cannot")
            self.received = description
            return
        if self.offered is None:
            raise Violation("an answer is set where there is no offer")
        if description.answers != self.offered.name:
            raise Violation("an answer to another offer is set")
        if self.local is None or self.offered.ufrag != self.local.ufrag:
            self.restarts = False
        self.local, self.offered, self.remote = self.offered, None, description
        self.needs = False

    def _take_back(self) -> None:
        assert self.offered is not None
        if self.local is None or self.offered.ufrag != self.local.ufrag:
            self.ungathered = tuple(each for each in self.ungathered if each != self.offered.ufrag)
        self.offered = None
        self.asked = False

    def _gather(self, ufrag: str) -> None:
        if all(each is None or each.ufrag != ufrag for each in (self.local, self.offered)):
            self.ungathered += (ufrag,)

    def _add(self, effect: AddCandidate) -> None:
        assert effect.candidate is not None
        ufrag = str(effect.candidate["usernameFragment"])
        if all(each is None or each.ufrag != ufrag for each in (self.remote, self.received)):
            raise Violation("a candidate is added to a description that is not its own")
        if ufrag in self.candidates:
            raise Violation("a candidate is added twice")
        self.candidates += (ufrag,)
