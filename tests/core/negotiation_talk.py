"""What the tests of negotiations say to them, and expect of them."""

from __future__ import annotations

from typing import Any

from rtcore.messages import Message
from rtcore.signaling.negotiation import Negotiation
from rtcore.signaling.peer_connection import (
    Build,
    IceState,
    IceStateChanged,
    LocalDescriptionSet,
    NegotiationNeeded,
    RemoteDescriptionSet,
    RestartIce,
    Rollback,
    Send,
    SetLocalDescription,
    SetRemoteDescription,
)

MAKE = SetLocalDescription("other")
ROLL_BACK = Rollback("other")
RESTART = RestartIce("other")


def negotiation(*, polite: bool = True, **more: Any) -> Negotiation:
    return Negotiation(room_id="room", peer_id="other", instance="i", polite=polite, entropy="e", **more)


def sdp(fragment: str) -> str:
    return f"v=0\r\na=ice-ufrag:{fragment}\r\n"


def said(signal_type: str, **content: object) -> Message:
    """What the other side says."""
    return {
        "type": "webrtc_signal",
        "signal_type": signal_type,
        "room_id": "room",
        "peer_id": "other",
        "instance": "i",
        "build": 0,
        **content,
    }


def sent(signal_type: str, **content: object) -> Send:
    """What is said to the other side."""
    message = {
        "type": "webrtc_signal",
        "signal_type": signal_type,
        "room_id": "room",
        "target_peer_id": "other",
        "target_instance": "i",
        "build": 0,
    }
    return Send("other", message | content)


def built(build: int) -> Build:
    return Build("other", "i", build)


def set_offer(fragment: str) -> SetRemoteDescription:
    return SetRemoteDescription("other", "offer", sdp(fragment))


def set_answer(fragment: str) -> SetRemoteDescription:
    return SetRemoteDescription("other", "answer", sdp(fragment))


def offer(pair: Negotiation, fragment: str = "a") -> None:
    """Bring a stable one to OFFERED."""
    pair.handle(NegotiationNeeded(pair.build), now=0.0)
    pair.handle(LocalDescriptionSet(pair.build, "offer", sdp(fragment)), now=0.0)


def answer(pair: Negotiation, negotiation: str = "n", fragment: str = "b") -> None:
    """Bring a stable one to STABLE, by an offer of the other side."""
    pair.receive(said("offer", build=pair.build, negotiation=negotiation, sdp=sdp(fragment)))
    pair.handle(RemoteDescriptionSet(pair.build), now=0.0)
    pair.handle(LocalDescriptionSet(pair.build, "answer", sdp("a")), now=0.0)


def report(pair: Negotiation, state: IceState, *, now: float = 0.0) -> list[Any]:
    return pair.handle(IceStateChanged(pair.build, state), now=now)
