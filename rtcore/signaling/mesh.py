"""`Mesh`: a peer that is connected to each other peer of its room, and what that takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import attrs

from .negotiation import Negotiation
from .negotiation_config import NegotiationConfig
from .peer_connection import Effect, Event, IceState, IceStateChanged, Send

__all__ = ["Mesh", "MeshConfig"]

# More than the peers of any room; the oldest are forgotten.
_MAX_FORMER: Final = 256


@attrs.frozen(kw_only=True)
class MeshConfig:
    """How a `Mesh` holds on to its peers.

    Attributes:
        peer_ttl: Seconds for which a peer is waited for that is known, and not in the room when this one is back.
        negotiation: How connections are repaired.
    """

    peer_ttl: float = 15.0
    negotiation: NegotiationConfig = attrs.field(factory=NegotiationConfig)


@attrs.define(eq=False)
class _Pair:
    """What there is with one other peer.

    Attributes:
        negotiation: How the connection to it is negotiated.
        missing_by: Until when it is waited for if it is not in the room, or ``None`` if it is.
    """

    negotiation: Negotiation
    missing_by: float | None = None


class Mesh:
    """The connections of one peer to all others in its room.

    Its driver joins the room, hands the answer to `join` and then every message of the room to `receive`, in order, and
    what its peer connections report to `handle`. It carries the effects out as `Negotiation` says, for each peer apart
    from the others; `Send` is put on the wire in the order of the effects, or not at all. When the connection to the
    server was lost, it joins again by the same instance, with ``since``, and hands over that answer too: media goes
    on meanwhile, and nobody needs to be told that the connection is gone.

    Args:
        room_id: The room.
        entropy: A text that differs between any two meshes, past ones included; at most 32 characters.
        rollback: Whether this side's connections can roll back, and restart ICE: as in ``join_room``.
        config: How it holds on to its peers.
    """

    __slots__ = (
        "_config",
        "_entropy",
        "_former",
        "_inside",
        "_instance",
        "_pairs",
        "_peer_id",
        "_rollback",
        "_room_id",
        "_serial",
    )

    def __init__(self, room_id: str, *, entropy: str, rollback: bool = True, config: MeshConfig | None = None) -> None:
        self._room_id = room_id
        self._entropy = entropy
        self._rollback = rollback
        self._config = config or MeshConfig()
        self._serial = 0
        self._peer_id: str | None = None
        self._instance: str | None = None
        self._inside = False
        self._pairs: dict[str, _Pair] = {}
        # The numbers of the last connections to peers that have left: the other side may still have its own.
        self._former: dict[tuple[str, str], int] = {}

    def __len__(self) -> int:
        return len(self._pairs)

    def __iter__(self) -> Iterator[str]:
        return iter(self._pairs)

    def get(self, peer_id: str) -> Negotiation | None:
        """Return how the connection to a peer is negotiated, or ``None`` if there is none."""
        pair = self._pairs.get(peer_id)
        return None if pair is None else pair.negotiation

    # Inputs

    def join(self, answer: Mapping[str, object], *, now: float) -> list[Effect]:
        """Take the answer to ``join_room``: the first one, or one that goes on after a connection was lost.

        Args:
            answer: It. If it is ``recovered``, all that was missed follows as messages, and nothing else has changed.
            now: Monotonic seconds.

        Returns:
            What must happen, in order.
        """
        peer_id, instance = answer.get("peer_id"), answer.get("instance")
        if not (isinstance(peer_id, str) and isinstance(instance, str)):
            return []
        effects: list[Effect] = []
        if (self._peer_id, self._instance) != (peer_id, instance):
            # To the others this is somebody new, and they build their connections anew.
            effects += self.close()
            self._peer_id, self._instance = peer_id, instance
            self._former.clear()
        elif answer.get("recovered") is True and self._inside:
            return []
        self._inside = True
        missing_by = now + self._config.peer_ttl
        for pair in self._pairs.values():
            if pair.missing_by is None:
                pair.missing_by = missing_by
        participants = answer.get("participants")
        for participant in participants if isinstance(participants, list) else []:
            if isinstance(participant, dict):
                effects += self._meet(participant, rejoined=True)
        return effects

    def receive(self, message: Mapping[str, object], *, now: float) -> list[Effect]:
        """Take a message of the room.

        Args:
            message: It; one that makes no sense, or does not concern connections, is ignored.
            now: Monotonic seconds.

        Returns:
            What must happen, in order.
        """
        if message.get("room_id", self._room_id) != self._room_id:
            return []
        match message:
            case {"type": "webrtc_signal", "peer_id": str(peer_id)}:
                pair = self._pairs.get(peer_id)
                return [] if pair is None else self._said(pair, pair.negotiation.receive(message))
            case {"type": "peer_joined"}:
                return self._meet(message, rejoined=message.get("rejoined") is True)
            case {"type": "peer_left", "peer_id": str(peer_id), "instance": str(instance)}:
                if (peer_id, instance) == (self._peer_id, self._instance):
                    return self.close()
                pair = self._pairs.get(peer_id)
                if pair is not None and pair.negotiation.instance == instance:
                    return self._part(peer_id)
            case {"type": "room_closed"}:
                return self.close()
        return []

    def handle(self, peer_id: str, event: Event, *, now: float) -> list[Effect]:
        """Take what the connection to a peer reports; see `Negotiation.handle`.

        Args:
            peer_id: To whom the connection is, or was.
            event: What has happened.
            now: Monotonic seconds.

        Returns:
            What must happen, in order.

        Raises:
            LocalProtocolError: The end of an operation that is not under way; nothing has changed.
        """
        pair = self._pairs.get(peer_id)
        if pair is None:
            return []
        if (
            pair.missing_by is not None
            and event.build == pair.negotiation.build
            and isinstance(event, IceStateChanged)
            and event.state in (IceState.FAILED, IceState.CLOSED)
        ):
            return self._part(peer_id)
        return self._said(pair, pair.negotiation.handle(event, now=now))

    def close(self) -> list[Effect]:
        """End all connections: return `Close` for each. The mesh may join again."""
        self._inside = False
        effects: list[Effect] = []
        for peer_id in list(self._pairs):
            effects += self._part(peer_id)
        return effects

    def next_timeout(self) -> float | None:
        """Return when `handle_timeout` has something to do, in monotonic seconds, or ``None``."""
        times = [
            time
            for pair in self._pairs.values()
            for time in (pair.missing_by, pair.negotiation.next_timeout())
            if time is not None
        ]
        return min(times, default=None)

    def handle_timeout(self, *, now: float) -> list[Effect]:
        """Give up peers that have not come back, and repair connections.

        Args:
            now: Monotonic seconds.

        Returns:
            What must happen, in order.
        """
        effects: list[Effect] = []
        for peer_id, pair in list(self._pairs.items()):
            if pair.missing_by is not None and pair.missing_by <= now:
                effects += self._part(peer_id)
            else:
                effects += self._said(pair, pair.negotiation.handle_timeout(now=now))
        return effects

    # Inside

    def _meet(self, participant: Mapping[str, object], *, rejoined: bool) -> list[Effect]:
        """Connect to a peer, or go on with it if it is known.

        Args:
            participant: What the server says of it.
            rejoined: Whether signals were lost, if it is known.
        """
        match participant:
            case {"peer_id": str(peer_id), "instance": str(instance), "polite": bool(polite)} if (
                peer_id != self._peer_id
            ):
                pass
            case _:
                return []
        effects: list[Effect] = []
        pair = self._pairs.get(peer_id)
        if pair is not None and pair.negotiation.instance == instance:
            # Somebody who was missing has missed what was said meanwhile.
            lost = rejoined or pair.missing_by is not None
            pair.missing_by = None
            return pair.negotiation.resync(polite=polite) if lost else []
        if pair is not None:
            effects += self._part(peer_id)
        self._serial += 1
        former = self._former.pop((peer_id, instance), None)
        negotiation = Negotiation(
            room_id=self._room_id,
            peer_id=peer_id,
            instance=instance,
            polite=polite,
            entropy=f"{self._entropy}.{self._serial}",
            own_instance=self._instance,
            rollback=self._rollback,
            build=0 if former is None else former + 1,
            config=self._config.negotiation,
        )
        self._pairs[peer_id] = _Pair(negotiation)
        return [*effects, *negotiation.start()]

    def _part(self, peer_id: str) -> list[Effect]:
        negotiation = self._pairs.pop(peer_id).negotiation
        self._former[peer_id, negotiation.instance] = negotiation.build
        if len(self._former) > _MAX_FORMER:
            del self._former[next(iter(self._former))]
        return negotiation.close()

    @staticmethod
    def _said(pair: _Pair, effects: list[Effect]) -> list[Effect]:
        """Leave out what is said to somebody who is not there: it is made good when they come back."""
        if pair.missing_by is None:
            return effects
        return [each for each in effects if not isinstance(each, Send)]
