"""WebRTC signaling: rooms and the peers in them, and how two peers come to terms.

`rooms`, `peers`, `signals` and `commands` are the server's half; `mesh` and `negotiation` are a peer's, and
`peer_connection` has what they are told and answer with. `ice_servers` says by whose help peers reach each other.
"""

from .commands import CreateRoom, JoinRoom, LeaveRoom, RoomCommand, SendSignal
from .config import SignalingConfig
from .effects import Effect, End, Tell, Unlisten
from .ice_servers import IceServer, ice_servers
from .mesh import Mesh, MeshConfig
from .negotiation import Negotiation
from .negotiation_config import NegotiationConfig, Phase
from .peers import Peer, Room, WebRTCRoom, is_polite
from .rooms import Entered, Rooms
from .signals import Signal, WebRTCSignalType, parse_signal

__all__ = [
    "CreateRoom",
    "Effect",
    "End",
    "Entered",
    "IceServer",
    "JoinRoom",
    "LeaveRoom",
    "Mesh",
    "MeshConfig",
    "Negotiation",
    "NegotiationConfig",
    "Peer",
    "Phase",
    "Room",
    "RoomCommand",
    "Rooms",
    "SendSignal",
    "Signal",
    "SignalingConfig",
    "Tell",
    "Unlisten",
    "WebRTCRoom",
    "WebRTCSignalType",
    "ice_servers",
    "is_polite",
    "parse_signal",
]
