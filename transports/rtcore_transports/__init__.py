"""rtcore over sockets, under asyncio and trio: the native server and the clients."""

import logging

from .admission import Admission, EndpointConfig, read_query
from .asgi import ASGIApp, LifespanError
from .background import Background
from .driver import Driver, Handler, Sender
from .event_stream_endpoint import EVENT_STREAM_HEADERS
from .fanout import Batch, Outlet
from .server import serve
from .websocket_endpoint import refuse_binary, turn_away

__all__ = [
    "EVENT_STREAM_HEADERS",
    "ASGIApp",
    "Admission",
    "Background",
    "Batch",
    "Driver",
    "EndpointConfig",
    "Handler",
    "LifespanError",
    "Outlet",
    "Sender",
    "read_query",
    "refuse_binary",
    "serve",
    "turn_away",
]

# A library is quiet until somebody configures logging.
logging.getLogger("rtcore").addHandler(logging.NullHandler())
