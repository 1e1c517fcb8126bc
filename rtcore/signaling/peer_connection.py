"""What a peer connection does for a `Negotiation`, and what it reports: W3C's `RTCPeerConnection` from outside."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Literal, TypeAlias

import attrs

from rtcore.messages import Message

__all__ = [
    "AddCandidate",
    "Build",
    "CandidateGathered",
    "Close",
    "DescriptionType",
    "Effect",
    "Event",
    "IceState",
    "IceStateChanged",
    "LocalDescriptionSet",
    "NegotiationNeeded",
    "OperationFailed",
    "RemoteDescriptionSet",
    "RestartIce",
    "Rollback",
    "RolledBack",
    "Send",
    "SetLocalDescription",
    "SetRemoteDescription",
]

DescriptionType: TypeAlias = Literal["offer", "answer"]


class IceState(StrEnum):
    """W3C's ``RTCIceConnectionState``."""

    NEW = "new"
    CHECKING = "checking"
    CONNECTED = "connected"
    COMPLETED = "completed"
    DISCONNECTED = "disconnected"
    FAILED = "failed"
    CLOSED = "closed"


# Events: what a peer connection reports. Each carries the number that `Build` gave to the connection.


@attrs.frozen
class NegotiationNeeded:
    """Something was added to the connection, or taken from it, that the other side has to hear of.

    As W3C's event it comes while the connection is stable and no operation is under way, as soon as that is so; what a
    description has told meanwhile needs no further one.
    """

    build: int


@attrs.frozen
class LocalDescriptionSet:
    """`SetLocalDescription` has ended.

    Attributes:
        build: Of which connection.
        type: What was made: an offer where the connection was stable, else an answer.
        sdp: The description, with the candidates that were gathered by now.
    """

    build: int
    type: DescriptionType
    sdp: str


@attrs.frozen
class RemoteDescriptionSet:
    """`SetRemoteDescription` has ended."""

    build: int


@attrs.frozen
class RolledBack:
    """`Rollback` has ended."""

    build: int


@attrs.frozen
class OperationFailed:
    """`SetLocalDescription`, `SetRemoteDescription` or `Rollback` has ended in an error."""

    build: int


@attrs.frozen
class CandidateGathered:
    """There is an ICE candidate for the other side.

    Attributes:
        build: Of which connection.
        candidate: W3C's ``RTCIceCandidateInit``, or ``None``: there are no more.
    """

    build: int
    candidate: Message | None


@attrs.frozen
class IceStateChanged:
    """The state of ICE has changed."""

    build: int
    state: IceState


Event: TypeAlias = (
    NegotiationNeeded
    | LocalDescriptionSet
    | RemoteDescriptionSet
    | RolledBack
    | OperationFailed
    | CandidateGathered
    | IceStateChanged
)


# Effects: what a peer connection has to do. Each is for the one that was built last for that peer.


@attrs.frozen
class Build:
    """Close the connection to this peer, if there is one, and make a new one with all that it is to carry.

    `NegotiationNeeded` follows if it carries anything.

    Attributes:
        peer_id: To whom.
        instance: To which life of that peer's application.
        build: The number of the connection, which all its events carry.
    """

    peer_id: str
    instance: str
    build: int


@attrs.frozen
class SetLocalDescription:
    """Make an offer or an answer, whichever is due, and set it: ``setLocalDescription()``.

    `LocalDescriptionSet` follows.
    """

    peer_id: str


@attrs.frozen
class SetRemoteDescription:
    """Set the other side's description; an offer takes the place of one's own that waits for an answer.

    `RemoteDescriptionSet` follows.
    """

    peer_id: str
    type: DescriptionType
    sdp: str


@attrs.frozen
class Rollback:
    """Take the local offer back: ``setLocalDescription({type: "rollback"})``. `RolledBack` follows."""

    peer_id: str


@attrs.frozen
class AddCandidate:
    """Add a candidate of the other side, or ``None``: there are no more.

    Nothing follows, and a failure matters to nobody: there are other candidates.
    """

    peer_id: str
    candidate: Mapping[str, object] | None


@attrs.frozen
class RestartIce:
    """Let the next offer restart ICE: ``restartIce()``. Nothing follows."""

    peer_id: str


@attrs.frozen
class Close:
    """Close the connection to this peer: there is to be none any more."""

    peer_id: str


@attrs.frozen
class Send:
    """Send a ``webrtc_signal``, after all that came before it, or never."""

    peer_id: str
    message: Message


Effect: TypeAlias = (
    Build | SetLocalDescription | SetRemoteDescription | Rollback | AddCandidate | RestartIce | Close | Send
)
