"""rtcore: realtime messaging as state machines, without clocks, entropy, I/O or an event loop.

What is here is what most programs use. The vocabularies of the machines, their commands and effects, are in their
modules: `rtcore.websocket`, `rtcore.event_source`, `rtcore.client`, `rtcore.router` and `rtcore.node`.
"""

from .backlog import Backlog
from .binary import BinaryMessage
from .client import Client, ClientConfig
from .deadlines import Deadlines
from .encoded import Encoded, Source
from .errors import (
    CloseCode,
    CommandError,
    ConnectionClosed,
    ConnectionFailed,
    LocalProtocolError,
    QueueFull,
    Refusal,
    RtcoreError,
    reconnects,
)
from .event_source import EventSource, EventSourceConfig
from .event_stream import Event, EventStreamParser, encode_comment, encode_event, encode_retry
from .messages import ChannelMessage, Message, NotificationMessage, encode
from .namespaces import Access, Namespace, Namespaces, SlowConsumer
from .node import Node, NodeConfig, disconnect_message
from .permissions import Action, Credential, Grant, Identity, Scope
from .rate_limit import RateLimit, RateLimitConfig
from .router import Router, RouterConfig
from .session import Session, Transport
from .signaling import SignalingConfig, WebRTCRoom, WebRTCSignalType
from .websocket import WebSocket, WebSocketConfig

__all__ = [
    "Access",
    "Action",
    "Backlog",
    "BinaryMessage",
    "ChannelMessage",
    "Client",
    "ClientConfig",
    "CloseCode",
    "CommandError",
    "ConnectionClosed",
    "ConnectionFailed",
    "Credential",
    "Deadlines",
    "Encoded",
    "Event",
    "EventSource",
    "EventSourceConfig",
    "EventStreamParser",
    "Grant",
    "Identity",
    "LocalProtocolError",
    "Message",
    "Namespace",
    "Namespaces",
    "Node",
    "NodeConfig",
    "NotificationMessage",
    "QueueFull",
    "RateLimit",
    "RateLimitConfig",
    "Refusal",
    "Router",
    "RouterConfig",
    "Scope",
    "RtcoreError",
    "Session",
    "SignalingConfig",
    "SlowConsumer",
    "Source",
    "Transport",
    "WebRTCRoom",
    "WebRTCSignalType",
    "WebSocket",
    "WebSocketConfig",
    "disconnect_message",
    "encode",
    "encode_comment",
    "encode_event",
    "encode_retry",
    "reconnects",
]
