"""rtcore: realtime messaging as state machines, without clocks, entropy, I/O or an event loop.

What is here is what most programs use. The vocabularies of the machines, their commands and effects, are in their
modules: `rtcore.websocket`, `rtcore.event_source`, `rtcore.client`, `rtcore.router` and `rtcore.node`.
"""

from .client import Client, ClientConfig
from .deadlines import Deadlines
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
from .messages import ChannelMessage, Encoded, Message, NotificationMessage, encode
from .node import Node, NodeConfig, disconnect_message
from .router import Router, RouterConfig
from .session import Session, Transport
from .websocket import WebSocket, WebSocketConfig

__all__ = [
    "ChannelMessage",
    "Client",
    "ClientConfig",
    "CloseCode",
    "CommandError",
    "ConnectionClosed",
    "ConnectionFailed",
    "Deadlines",
    "Encoded",
    "Event",
    "EventSource",
    "EventSourceConfig",
    "EventStreamParser",
    "LocalProtocolError",
    "Message",
    "Node",
    "NodeConfig",
    "NotificationMessage",
    "QueueFull",
    "Refusal",
    "Router",
    "RouterConfig",
    "RtcoreError",
    "Session",
    "Transport",
    "WebSocket",
    "WebSocketConfig",
    "disconnect_message",
    "encode",
    "encode_comment",
    "encode_event",
    "encode_retry",
    "reconnects",
]
