"""rtcore over sockets, under asyncio and trio: the native server and the clients."""

import logging

from .admission import Admission, EndpointConfig, read_query
from .asgi import ASGIApp, LifespanError
from .background import Background
from .client_request import credentials
from .client_websocket import HandshakeRejected
from .driver import Driver, Handler, Sender
from .event_stream_endpoint import EVENT_STREAM_HEADERS
from .fanout import Batch, Outlet
from .http_publisher import HttpPublisher
from .server import serve
from .sse_client import SSEClient, create_sse_client
from .sse_session import ReceivedEvent
from .websocket_endpoint import refuse_binary, turn_away
from .websocket_stream import WebSocketStream, open_websocket
from .ws_client import WSClient, create_ws_client
from .ws_session import WSStats

__all__ = [
    "EVENT_STREAM_HEADERS",
    "ASGIApp",
    "Admission",
    "Background",
    "Batch",
    "Driver",
    "EndpointConfig",
    "Handler",
    "HandshakeRejected",
    "HttpPublisher",
    "LifespanError",
    "Outlet",
    "ReceivedEvent",
    "SSEClient",
    "Sender",
    "WSClient",
    "WSStats",
    "WebSocketStream",
    "create_sse_client",
    "create_ws_client",
    "credentials",
    "open_websocket",
    "read_query",
    "refuse_binary",
    "serve",
    "turn_away",
]

# A library is quiet until somebody configures logging.
logging.getLogger("rtcore").addHandler(logging.NullHandler())
