"""The limits and times of rooms."""

from __future__ import annotations

import attrs

__all__ = ["SignalingConfig"]


@attrs.frozen
class SignalingConfig:
    """Limits and times of rooms, peers and signals.

    Attributes:
        max_rooms: Rooms at a time.
        max_rooms_per_user: Rooms at a time that one user has made, or one connection without a user.
        max_participants: Peers in one room, unless it sets a lower limit of its own.
        max_rooms_per_connection: Rooms that one connection may be in.
        peer_ttl: Seconds for which a peer whose connection was lost is waited for.
        room_ttl: Seconds for which an empty room is kept.
        max_held: Messages that are kept for a peer to hear again, or when it is back.
        max_sdp_size: Bytes of one session description.
        max_candidate_size: Bytes of one ICE candidate, as JSON.
        max_metadata_size: Bytes of what a peer tells about itself, as JSON.
    """

    max_rooms: int = 1000
    max_rooms_per_user: int = 100
    max_participants: int = 8
    max_rooms_per_connection: int = 16
    peer_ttl: float = 15.0
    room_ttl: float = 300.0
    max_held: int = 256
    max_sdp_size: int = 65536
    max_candidate_size: int = 4096
    max_metadata_size: int = 4096
