"""Signals: what one peer says to another about a connection between them, and what it must look like."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

import attrs

from rtcore.errors import Refusal
from rtcore.messages import Message, encode

from .config import SignalingConfig

__all__ = ["Signal", "WebRTCSignalType", "parse_signal"]

_MAX_NAME: Final = 255
_MAX_NEGOTIATION: Final = 64
_KINDS: Final = "'offer', 'answer', 'ice-candidate' or 'bye'"


class WebRTCSignalType(StrEnum):
    """What a signal is (RFC 8829; ``bye`` ends the connection between two peers)."""

    OFFER = "offer"
    ANSWER = "answer"
    ICE_CANDIDATE = "ice-candidate"
    BYE = "bye"


_TYPES: Final[Mapping[str, WebRTCSignalType]] = {kind.value: kind for kind in WebRTCSignalType}


@attrs.frozen
class Signal:
    """A checked signal.

    Attributes:
        type: What it is.
        target: The peer that it is for.
        target_instance: The life of that peer that it is for, or ``None`` for whichever there is.
        room_id: The room in which both are, or ``None`` for the only one that the sender is in.
        peer_id: Who says that it sends it, or ``None``.
        instance: By which life of its application, or ``None``.
        negotiation: The offer that it belongs to, or ``None``.
        message: All of it.
    """

    type: WebRTCSignalType
    target: str
    target_instance: str | None
    room_id: str | None
    peer_id: str | None
    instance: str | None
    negotiation: str | None
    message: Message


def parse_signal(message: Message, config: SignalingConfig) -> Signal | Refusal:
    """Return what a ``webrtc_signal`` message says, or why nobody gets it.

    Args:
        message: Its fields; those that are not known are left alone.
        config: The sizes that they may have.
    """
    value = message.get("signal_type")
    kind = _TYPES.get(value) if isinstance(value, str) else None
    if kind is None:
        return _invalid(f"'signal_type' must be {_KINDS}")
    names: dict[str, str | None] = {}
    for name in ("target_peer_id", "target_instance", "room_id", "peer_id", "instance", "negotiation"):
        value = message.get(name)
        most = _MAX_NEGOTIATION if name == "negotiation" else _MAX_NAME
        if value is not None and not (isinstance(value, str) and 1 <= len(value) <= most and value.isprintable()):
            return _invalid(f"{name!r} must be 1 to {most} printable characters")
        names[name] = value
    target = names["target_peer_id"]
    if target is None:
        return _invalid("'target_peer_id' must name the peer that the signal is for")
    if refusal := _check_content(kind, message, config):
        return refusal
    return Signal(
        kind,
        target,
        names["target_instance"],
        names["room_id"],
        names["peer_id"],
        names["instance"],
        names["negotiation"],
        message,
    )


def _check_content(kind: WebRTCSignalType, message: Message, config: SignalingConfig) -> Refusal | None:
    sdp, candidate = message.get("sdp"), message.get("ice_candidate")
    if kind in (WebRTCSignalType.OFFER, WebRTCSignalType.ANSWER):
        if not isinstance(sdp, str) or not sdp.startswith("v=0"):
            return _invalid(f"an {kind.value} has an 'sdp', a session description: a string that begins with 'v=0'")
        if len(sdp.encode(errors="surrogatepass")) > config.max_sdp_size:
            return _too_large(f"an 'sdp' has at most {config.max_sdp_size} bytes")
        if candidate is not None:
            return _invalid(f"an {kind.value} has no 'ice_candidate': send those as signals of their own")
        return None
    if sdp is not None:
        return _invalid(f"a signal of type {kind.value!r} has no 'sdp'")
    if kind is WebRTCSignalType.BYE:
        return None
    if candidate is None and "ice_candidate" in message:
        # There are no more.
        return None
    if not isinstance(candidate, dict) or not isinstance(candidate.get("candidate"), str):
        return _invalid("an ice-candidate has an 'ice_candidate': an object with a string 'candidate', or null")
    if encode(candidate).size > config.max_candidate_size:
        return _too_large(f"an 'ice_candidate' has at most {config.max_candidate_size} bytes")
    return None


def _invalid(message: str) -> Refusal:
    return Refusal("invalid_signal", message)


def _too_large(message: str) -> Refusal:
    return Refusal("signal_too_large", message, status=413)
