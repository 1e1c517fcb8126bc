"""A peer of a WebRTC room in Python, by aiortc: the extra ``webrtc``. It runs on asyncio alone, as aiortc does."""

from .channel import DataChannel
from .events import ChannelReceived, PeerConnected, PeerEvent, PeerJoined, PeerLeft, TrackReceived
from .files import FILE_PROTOCOL, ReceivedFile, receive_file, send_file
from .peer import IceServerSource, WebRTCPeer
from .remote import RemotePeer

__all__ = [
    "FILE_PROTOCOL",
    "ChannelReceived",
    "DataChannel",
    "IceServerSource",
    "PeerConnected",
    "PeerEvent",
    "PeerJoined",
    "PeerLeft",
    "ReceivedFile",
    "RemotePeer",
    "TrackReceived",
    "WebRTCPeer",
    "receive_file",
    "send_file",
]
