"""What a `WebRTCPeer` tells its user."""

from __future__ import annotations

from typing import TypeAlias

import attrs
from aiortc import MediaStreamTrack

from .channel import DataChannel
from .remote import RemotePeer

__all__ = ["ChannelReceived", "PeerConnected", "PeerEvent", "PeerJoined", "PeerLeft", "TrackReceived"]


@attrs.frozen
class PeerJoined:
    """Another peer is in the room; the connection to it is yet to come."""

    peer: RemotePeer


@attrs.frozen
class PeerConnected:
    """There is a connection to a peer: the first one, or another in the place of one that was lost or given up.

    Channels of the former one are closed, and its tracks have ended. One's own tracks are sent again; channels are to
    be opened again.
    """

    peer: RemotePeer


@attrs.frozen
class TrackReceived:
    """A peer sends a track.

    Attributes:
        peer: Who.
        track: Its frames, by ``recv``; of those that nobody takes in time the oldest are dropped.
    """

    peer: RemotePeer
    track: MediaStreamTrack


@attrs.frozen
class ChannelReceived:
    """A peer has opened a data channel."""

    peer: RemotePeer
    channel: DataChannel


@attrs.frozen
class PeerLeft:
    """A peer has gone, or is somebody else now: then `PeerJoined` follows."""

    peer: RemotePeer


PeerEvent: TypeAlias = PeerJoined | PeerConnected | TrackReceived | ChannelReceived | PeerLeft
