"""Perfect negotiation between two peers (W3C WebRTC 1.0, section 10.7; RFC 8829, section 3.5): one peer's half.

W3C's pattern lets operations of a connection overlap, and so has to remember whether it is making an offer or waiting
for an answer to be set. Here one operation at a time is under way. What comes meanwhile waits for its end, except for
answers, which are never due then; so each offer is judged when it is certain what it meets::

    STABLE --needed--> OFFERING --> OFFERED --answer--> ACCEPTING --> STABLE
       |                               |
       |                               +--offer: impolite--> ignored
       |                               +--offer: polite---+
       +--offer---------------------------------------> RECEIVING --> ANSWERING --> STABLE
                                       |
                       OFFERED --resync--> ROLLING_BACK --> STABLE, and at once OFFERING

OFFERING, ACCEPTING, RECEIVING, ANSWERING and ROLLING_BACK end with the connection's event. From any of them
`OperationFailed` leads to a new connection, or to BROKEN until it is time for one. `close` leads to CLOSED.

Beyond W3C's pattern:

* Each offer has a name, its ``negotiation``. An answer to another one is dropped, as is an offer that comes twice.
* Connections of a pair are counted by both sides together, by ``build`` in each signal. Whoever builds anew counts one
  further and says so with ``bye``; whoever hears of a higher number builds anew as well, and what was said for a lower
  one is dropped. So it does not matter whose ``bye`` crosses whose, nor whether one is lost.
* `Negotiation.resync` mends what the loss of signals has broken.
* A side that cannot roll back (aiortc; it cannot restart ICE either) builds anew where another would.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, assert_never

from rtcore.errors import LocalProtocolError
from rtcore.messages import Message

from .negotiation_config import NegotiationConfig, Phase
from .peer_connection import (
    AddCandidate,
    Build,
    CandidateGathered,
    Close,
    Effect,
    Event,
    IceState,
    IceStateChanged,
    LocalDescriptionSet,
    NegotiationNeeded,
    OperationFailed,
    RemoteDescriptionSet,
    RestartIce,
    Rollback,
    RolledBack,
    Send,
    SetLocalDescription,
    SetRemoteDescription,
)
from .remote_signal import Answer, Bye, Candidate, Offer, parse_remote_signal, username_fragments

__all__ = ["Negotiation"]

# Past this many doublings every sane `max_interval` has long been reached.
_MAX_DOUBLINGS: Final = 32
# How often the time for an answer is doubled.
_MAX_PATIENCE: Final = 3


class Negotiation:
    """One peer's half of the negotiation with another.

    Its driver carries out each list of effects in order, beginning one when the one before has ended, and calls
    `handle` with what the connection reports, at any time, from within as well as from without. `Build` and `Close`
    do not wait: they end what is under way, and what was to follow it on the old connection is left out. What a closed
    connection still reports is ignored, by its `build`. After each call the driver asks `next_timeout`.

    Args:
        room_id: The room in which both are.
        peer_id: The other side.
        instance: The life of the other side's application.
        own_instance: That of this side's, by which the server knows what has waited for too long; or ``None``.
        polite: Whether this side gives way where offers cross; the server says so.
        entropy: A text that differs between any two negotiations of this side, past ones included; at most 48
            characters.
        rollback: Whether this side's connections can roll back, and restart ICE.
        build: The number of the first connection: higher than that of any former one between the same instances.
        config: How it repairs its connection.
    """

    __slots__ = (
        "_answer_by",
        "_build",
        "_config",
        "_entropy",
        "_failures",
        "_held",
        "_ice",
        "_ignored",
        "_instance",
        "_needed",
        "_negotiation",
        "_own_instance",
        "_peer_id",
        "_phase",
        "_polite",
        "_remote",
        "_restart",
        "_restarting",
        "_retry_at",
        "_rollback",
        "_room_id",
        "_serial",
        "_unanswered",
        "_waiting",
        "_yielding",
    )

    def __init__(
        self,
        *,
        room_id: str,
        peer_id: str,
        instance: str,
        polite: bool,
        entropy: str,
        own_instance: str | None = None,
        rollback: bool = True,
        build: int = 0,
        config: NegotiationConfig | None = None,
    ) -> None:
        self._room_id = room_id
        self._peer_id = peer_id
        self._instance = instance
        self._own_instance = own_instance
        self._polite = polite
        self._entropy = entropy
        self._rollback = rollback
        self._config = config or NegotiationConfig()
        self._serial = 0
        self._failures = 0  # since ICE was connected last
        self._reset(build)
        self._needed = False

    def _reset(self, build: int) -> None:
        self._build = build
        self._phase = Phase.STABLE
        # Of two sides that cannot roll back, one may wait for the other's offer: so that one makes one in any case.
        self._needed = not self._rollback and not self._polite
        self._restart = False
        self._restarting = False  # whether the local offer that was made last restarts ICE
        self._yielding = False
        self._negotiation: str | None = None  # the last one that was begun, by either side
        self._remote: Offer | Answer | None = None  # set on the connection, or being set
        self._ignored: str | None = None
        self._waiting: Offer | None = None
        self._held: tuple[Candidate, ...] = ()
        self._ice = IceState.NEW
        self._retry_at: float | None = None
        self._answer_by: float | None = None  # once OFFERED
        self._unanswered = 0  # how often that has passed in a row

    @property
    def phase(self) -> Phase:
        """Where it stands."""
        return self._phase

    @property
    def build(self) -> int:
        """The number of the connection."""
        return self._build

    @property
    def instance(self) -> str:
        """The life of the other side's application."""
        return self._instance

    @property
    def connected(self) -> bool:
        """Whether ICE is connected, by the descriptions that are in force."""
        return self._ice in (IceState.CONNECTED, IceState.COMPLETED)

    # Inputs

    def start(self) -> list[Effect]:
        """Begin: return `Build`, after a ``bye`` if there were former connections, of which the other may not know."""
        build = self._rebuilt()
        return [self._bye(), build] if self._build else [build]

    def close(self) -> list[Effect]:
        """End: return `Close`, or nothing if it has ended before."""
        if self._phase is Phase.CLOSED:
            return []
        self._phase = Phase.CLOSED
        self._retry_at = None
        return [Close(self._peer_id)]

    def handle(self, event: Event, *, now: float) -> list[Effect]:
        """Take what a connection reports; what is of another build is ignored.

        Args:
            event: What has happened.
            now: Monotonic seconds.

        Returns:
            What must happen, in order.

        Raises:
            LocalProtocolError: The end of an operation that is not under way; nothing has changed.
        """
        if event.build != self._build or self._phase in (Phase.BROKEN, Phase.CLOSED):
            return []
        match event:
            case NegotiationNeeded():
                self._needed = True
                return self._proceed()
            case LocalDescriptionSet(type=kind, sdp=sdp):
                if self._phase is Phase.OFFERING and kind == "offer":
                    return self._offered(sdp, now=now)
                if self._phase is Phase.ANSWERING and kind == "answer":
                    return self._answered(sdp, now=now)
            case RemoteDescriptionSet():
                if self._phase is Phase.ACCEPTING:
                    self._settle(now=now)
                    return [*self._release(), *self._proceed()]
                if self._phase is Phase.RECEIVING:
                    return self._received()
            case RolledBack():
                if self._phase is Phase.ROLLING_BACK:
                    self._phase = Phase.STABLE
                    return self._proceed()
            case OperationFailed():
                if self._phase not in (Phase.STABLE, Phase.OFFERED):
                    return self._break(now=now)
            case CandidateGathered(candidate=candidate):
                return [self._send("ice-candidate", ice_candidate=candidate)]
            case IceStateChanged(state=state):
                return self._watch(state, now=now)
            case _:
                assert_never(event)
        raise LocalProtocolError(f"{event!r} while {self._phase.value}")

    def receive(self, message: Mapping[str, object]) -> list[Effect]:
        """Take a ``webrtc_signal`` from the other side.

        Args:
            message: It; one that makes no sense is ignored, as is one of another instance.

        Returns:
            What must happen, in order.
        """
        if self._phase is Phase.CLOSED or message.get("instance", self._instance) != self._instance:
            return []
        parsed = parse_remote_signal(message)
        if parsed is None:
            return []
        signal, build = parsed
        if build is None:
            build = self._build + isinstance(signal, Bye)
        if build < self._build:
            # It is about a former connection; the other knows by now, or hears soon, that there is another.
            return []
        effects: list[Effect] = []
        if build > self._build:
            self._reset(build)
            effects.append(self._rebuilt())
        match signal:
            case Offer():
                self._keep(signal)
                if self._phase is not Phase.BROKEN and not self._is_known(signal.negotiation):
                    self._waiting = signal
            case Answer():
                self._keep(signal)
                if self._phase is Phase.OFFERED and signal.negotiation in (None, self._negotiation):
                    return [*effects, *self._set_remote(signal, Phase.ACCEPTING)]
            case Candidate():
                effects += self._take(signal)
            case Bye():
                pass
            case _:
                assert_never(signal)
        return [*effects, *self._proceed()]

    def resync(self, *, polite: bool) -> list[Effect]:
        """Mend what is broken if signals were lost, in either direction; the other side does the same.

        Args:
            polite: Whether this side gives way from now on.

        Returns:
            What must happen, in order: an offer that was not answered is made anew, and ICE that is not connected is
            restarted.
        """
        self._polite = polite
        if self._phase in (Phase.BROKEN, Phase.CLOSED):
            return []
        begun = self._phase is not Phase.STABLE or self._remote is not None
        if not begun:
            # The other may not know of this connection, and nothing else will tell it.
            return [self._bye()] if self._build else []
        if not self.connected:
            if not self._rollback:
                return self._rebuild()
            self._needed = self._restart = True
        return self._offer_anew() if self._phase is Phase.OFFERED else self._proceed()

    def next_timeout(self) -> float | None:
        """Return when `handle_timeout` has something to do, in monotonic seconds, or ``None``."""
        times = (self._retry_at, self._answer_by if self._phase is Phase.OFFERED else None)
        return min((time for time in times if time is not None), default=None)

    def handle_timeout(self, *, now: float) -> list[Effect]:
        """Repair the connection if it is time to.

        Args:
            now: Monotonic seconds.

        Returns:
            What must happen, in order.
        """
        effects: list[Effect] = []
        if self._retry_at is not None and self._retry_at <= now:
            effects += self._rebuild() if self._phase is Phase.BROKEN else self._repair(now=now)
        if self._phase is Phase.OFFERED and self._answer_by is not None and self._answer_by <= now:
            self._restart = self._restart or self._restarting
            self._unanswered += 1
            effects += self._offer_anew()
        return effects

    # One's own offers

    def _offer_anew(self) -> list[Effect]:
        """Make the offer that waits for an answer once more: one of the two was lost."""
        self._needed = True
        if self._rollback:
            self._phase = Phase.ROLLING_BACK
            return [Rollback(self._peer_id)]
        # An offer may take the place of another (RFC 8829, section 4.1.8).
        self._phase = Phase.STABLE
        return self._proceed()

    def _proceed(self) -> list[Effect]:
        """Begin what was waiting, unless an operation is under way: the other's offer first."""
        offer = self._waiting
        if offer is not None and (
            self._phase in (Phase.STABLE, Phase.OFFERED)
            # What is about to be offered anew is as good as offered.
            or (self._phase is Phase.ROLLING_BACK and not self._polite)
        ):
            self._waiting = None
            return self._meet(offer)
        if self._phase is not Phase.STABLE or not self._needed or self._yielding:
            return []
        self._serial += 1
        self._negotiation = f"{self._entropy}.{self._serial}"
        self._restarting = self._restart
        self._needed = self._restart = False
        self._phase = Phase.OFFERING
        restart: list[Effect] = [RestartIce(self._peer_id)] if self._restarting else []
        return [*restart, SetLocalDescription(self._peer_id)]

    def _offered(self, sdp: str, *, now: float) -> list[Effect]:
        self._phase = Phase.OFFERED
        timeout = self._config.connect_timeout
        # Where signals are slow, more of them would make it worse.
        self._answer_by = None if timeout is None else now + timeout * 2.0 ** min(self._unanswered, _MAX_PATIENCE)
        if self._waiting is not None and self._polite:
            # It is taken back at once, so the other need not hear of it.
            return self._proceed()
        return [self._send("offer", sdp=sdp), *self._proceed()]

    # The other's offers

    def _is_known(self, negotiation: str | None) -> bool:
        remote = None if self._remote is None else self._remote.negotiation
        return negotiation is not None and negotiation in (remote, self._ignored)

    def _meet(self, offer: Offer) -> list[Effect]:
        """Take an offer while no operation is under way."""
        if self._phase in (Phase.OFFERED, Phase.ROLLING_BACK):
            if not self._polite:
                self._ignored = offer.negotiation
                return []
            if not self._rollback:
                effects = self._rebuild()
                self._yielding = True
                return effects
            if self._restarting and not self._restarts(offer):
                self._needed = self._restart = True
        if not self._rollback and self._restarts(offer):
            return self._rebuild()
        self._negotiation = offer.negotiation
        return self._set_remote(offer, Phase.RECEIVING)

    def _received(self) -> list[Effect]:
        offer = self._waiting
        if offer is not None:
            # The other has taken the former one back, so nobody waits for an answer to it.
            self._waiting = None
            return self._meet(offer)
        self._phase = Phase.ANSWERING
        self._yielding = False
        return [*self._release(), SetLocalDescription(self._peer_id)]

    def _answered(self, sdp: str, *, now: float) -> list[Effect]:
        self._settle(now=now)
        if self._waiting is not None:
            return self._proceed()
        return [self._send("answer", sdp=sdp), *self._proceed()]

    # The other's descriptions and candidates

    def _set_remote(self, description: Offer | Answer, phase: Phase) -> list[Effect]:
        if self._restarts(description):
            # What the connection last reported was about candidates that count no longer.
            self._ice = IceState.CHECKING
        self._remote = description
        self._unanswered = 0
        self._phase = phase
        kind = description.type
        return [SetRemoteDescription(self._peer_id, kind, description.sdp)]

    def _restarts(self, description: Offer | Answer) -> bool:
        if self._remote is None:
            return False
        before, after = username_fragments(self._remote.sdp), username_fragments(description.sdp)
        return bool(before) and not any(each in before for each in after)

    def _take(self, candidate: Candidate) -> list[Effect]:
        """Add a candidate, or keep it until its description comes, or drop it."""
        remote = self._remote
        if self._phase is Phase.BROKEN:
            return []
        if remote is not None and candidate.belongs_to(remote):
            if self._phase in (Phase.RECEIVING, Phase.ACCEPTING):
                self._hold(candidate)
                return []
            return [AddCandidate(self._peer_id, candidate.init)]
        if not self._is_known(candidate.negotiation):
            self._hold(candidate)
        return []

    def _hold(self, candidate: Candidate) -> None:
        if len(self._held) < self._config.max_held:
            self._held += (candidate,)

    def _keep(self, description: Offer | Answer) -> None:
        """Forget what was held for a description that was never sent, now that another has come: they come in order."""
        current = description if self._remote is None else self._remote
        self._held = tuple(each for each in self._held if each.belongs_to(description) or each.belongs_to(current))

    def _release(self) -> list[Effect]:
        """Add what was held for the description that was set."""
        remote = self._remote
        assert remote is not None, "this follows the end of `SetRemoteDescription`"
        ready = [each for each in self._held if each.belongs_to(remote)]
        self._held = tuple(each for each in self._held if not each.belongs_to(remote))
        return [AddCandidate(self._peer_id, each.init) for each in ready]

    # Repairs

    def _watch(self, state: IceState, *, now: float) -> list[Effect]:
        self._ice = state
        if self.connected:
            self._failures = 0
            self._retry_at = None
        elif state is IceState.CLOSED:
            return self._break(now=now)
        elif state is IceState.FAILED:
            delay = self._delay()
            if not delay:
                return self._repair(now=now)
            if self._retry_at is None:
                self._retry_at = now + delay
        return []

    def _settle(self, *, now: float) -> None:
        self._phase = Phase.STABLE
        timeout = self._config.connect_timeout
        if not self.connected and self._retry_at is None and timeout is not None:
            self._retry_at = now + timeout

    def _delay(self) -> float:
        if not self._failures:
            return 0.0
        doubled = self._config.restart_interval * 2.0 ** min(self._failures - 1, _MAX_DOUBLINGS)
        return min(doubled, self._config.max_interval)

    def _repair(self, *, now: float) -> list[Effect]:
        """Restart ICE, or give the connection up."""
        self._failures += 1
        if self._failures > self._config.max_restarts or not self._rollback:
            return self._rebuild()
        self._retry_at = now + self._delay()
        self._needed = self._restart = True
        return self._proceed()

    def _break(self, *, now: float) -> list[Effect]:
        """Give up a connection that is of no use: at once, or when it is time to."""
        delay = self._delay()
        self._failures += 1
        if not delay:
            return self._rebuild()
        self._phase = Phase.BROKEN
        self._retry_at = now + delay
        return []

    def _rebuild(self) -> list[Effect]:
        self._reset(self._build + 1)
        return [self._bye(), self._rebuilt(), *self._proceed()]

    def _rebuilt(self) -> Effect:
        return Build(self._peer_id, self._instance, self._build)

    # Signals

    def _bye(self) -> Send:
        return self._send("bye")

    def _send(self, signal_type: str, **content: object) -> Send:
        message: Message = {
            "type": "webrtc_signal",
            "signal_type": signal_type,
            "room_id": self._room_id,
            "target_peer_id": self._peer_id,
            "target_instance": self._instance,
            "build": self._build,
            **content,
        }
        if self._own_instance is not None:
            message["instance"] = self._own_instance
        if self._negotiation is not None and signal_type != "bye":
            message["negotiation"] = self._negotiation
        return Send(self._peer_id, message)
