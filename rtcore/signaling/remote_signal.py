"""What the other side of a negotiation says, as far as it makes sense."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

import attrs

__all__ = ["Answer", "Bye", "Candidate", "Offer", "RemoteSignal", "parse_remote_signal", "username_fragments"]

# What every language counts exactly, and nobody reaches who counts one by one.
_MAX_BUILD: Final = 2**31 - 1
_UFRAG: Final = "a=ice-ufrag:"


@attrs.frozen
class Offer:
    """An offer, and its name, if it has one."""

    negotiation: str | None
    sdp: str
    type: Literal["offer"] = "offer"


@attrs.frozen
class Answer:
    """An answer, and the name of the offer, if it had one."""

    negotiation: str | None
    sdp: str
    type: Literal["answer"] = "answer"


@attrs.frozen
class Candidate:
    """An ICE candidate.

    Attributes:
        negotiation: The one that was under way, or the last one, when it was gathered.
        init: It, or ``None``: there are no more.
    """

    negotiation: str | None
    init: Mapping[str, object] | None

    def belongs_to(self, description: Offer | Answer) -> bool:
        """Tell whether it is a candidate of what a description describes.

        That is up to the ``usernameFragment``, where both have one (RFC 8839, section 5.4): descriptions that follow
        each other share it until ICE is restarted, so a candidate may come under the name of any of them.
        """
        fragment = None if self.init is None else self.init.get("usernameFragment")
        fragments = username_fragments(description.sdp)
        if isinstance(fragment, str) and fragments:
            return fragment in fragments
        return self.negotiation in (None, description.negotiation)


@attrs.frozen
class Bye:
    """The other side builds its connection anew."""


RemoteSignal: TypeAlias = Offer | Answer | Candidate | Bye


def parse_remote_signal(message: Mapping[str, object]) -> tuple[RemoteSignal, int | None] | None:
    """Return what a ``webrtc_signal`` says, and of which build, if it tells; or ``None`` if it makes no sense."""
    negotiation, build = message.get("negotiation"), message.get("build")
    if not (negotiation is None or isinstance(negotiation, str)):
        return None
    if not (build is None or (type(build) is int and 0 <= build <= _MAX_BUILD)):
        return None
    match message:
        case {"signal_type": "offer", "sdp": str(sdp)}:
            return Offer(negotiation, sdp), build
        case {"signal_type": "answer", "sdp": str(sdp)}:
            return Answer(negotiation, sdp), build
        case {"signal_type": "ice-candidate", "ice_candidate": None}:
            return Candidate(negotiation, None), build
        case {"signal_type": "ice-candidate", "ice_candidate": dict(init)} if isinstance(init.get("candidate"), str):
            return Candidate(negotiation, init), build
        case {"signal_type": "bye"}:
            return Bye(), build
    return None


def username_fragments(sdp: str) -> list[str]:
    """Return the ``ice-ufrag`` values of a session description."""
    return [line[len(_UFRAG) :].rstrip("\r") for line in sdp.split("\n") if line.startswith(_UFRAG)]
