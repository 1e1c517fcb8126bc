"""How a signal goes from one peer of a room to another, and when it comes too late."""

from __future__ import annotations

from rtcore.errors import Refusal

from .effects import Tell
from .peers import Peer
from .signals import Signal, WebRTCSignalType

__all__ = ["no_peer", "pass_on"]


def pass_on(sender: Peer, signal: Signal) -> Tell | Refusal:
    """Return what the receiver of a signal is told, or why it gets nothing: ``unknown_peer`` or ``outdated_signal``.

    Takes note of what was offered and is answered.
    """
    target = sender.room.peers.get(signal.target)
    if target is None or target is sender:
        return no_peer(signal.target)
    if signal.instance not in (None, sender.instance):
        # It has waited for a connection while the application was begun anew.
        return _outdated("you are not the instance any more that has said this")
    if signal.target_instance not in (None, target.instance):
        return _outdated("this peer is not the one any more that the signal is for")
    match signal.type:
        case WebRTCSignalType.OFFER:
            sender.offered[target.peer_id] = signal.negotiation
        case WebRTCSignalType.ANSWER:
            if sender.peer_id not in target.offered:
                return _outdated("this peer waits for no answer")
            offered = target.offered[sender.peer_id]
            if None not in (offered, signal.negotiation) and offered != signal.negotiation:
                return _outdated("this peer has offered something else since")
            del target.offered[sender.peer_id]
        case WebRTCSignalType.BYE:
            # What the other has offered may be for the next connection already, of which both have heard at once.
            sender.offered.pop(target.peer_id, None)
        case _:
            pass
    passed = {**signal.message, "room_id": sender.room.room_id, "peer_id": sender.peer_id, "instance": sender.instance}
    return Tell(target.stream, passed)


def no_peer(peer_id: str) -> Refusal:
    """Return that nobody in a room has that name."""
    return Refusal("unknown_peer", f"nobody else in this room is {peer_id!r}", status=404)


def _outdated(message: str) -> Refusal:
    return Refusal("outdated_signal", message, status=409)
