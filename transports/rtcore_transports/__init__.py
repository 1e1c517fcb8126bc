"""rtcore over sockets, under asyncio and trio: the native server and the clients."""

from .admission import EndpointConfig
from .driver import Driver, Sender
from .server import serve

__all__ = ["Driver", "EndpointConfig", "Sender", "serve"]
