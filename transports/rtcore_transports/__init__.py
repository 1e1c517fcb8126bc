"""rtcore over sockets, under asyncio and trio: the native server and the clients."""

import logging

from .admission import Admission, EndpointConfig, last_event_id_of, read_query
from .asgi import ASGIApp, LifespanError
from .background import Background
from .client_request import credentials
from .client_websocket import HandshakeRejected
from .driver import Driver
from .driver_base import Awaited
from .event_stream_endpoint import EVENT_STREAM_HEADERS
from .fanout import Batch, Outlet
from .file_download import RemoteFile
from .file_incoming import Incoming
from .file_store import FileStore, FileStoreError, FileWriter, StoredFile
from .files import Files
from .files_config import FilesConfig
from .gate_config import Authenticator, ConnectHook, GateConfig, Hooks, PublishHook, SubscribeHook
from .gatekeeper import Gatekeeper, Pending
from .handlers import Handler, Sender
from .http_publisher import HttpPublisher
from .reception import TlsSource
from .server import serve
from .server_limits import ServerLimits
from .sse_client import SSEClient, create_sse_client
from .sse_session import ReceivedEvent
from .visitors import Credentials, Visitor
from .websocket_endpoint import turn_away
from .websocket_stream import WebSocketStream, open_websocket
from .ws_client import WSClient, create_ws_client
from .ws_stats import WSStats

__all__ = [
    "EVENT_STREAM_HEADERS",
    "ASGIApp",
    "Admission",
    "Authenticator",
    "Awaited",
    "Background",
    "Batch",
    "ConnectHook",
    "Credentials",
    "Driver",
    "EndpointConfig",
    "FileStore",
    "FileStoreError",
    "FileWriter",
    "Files",
    "FilesConfig",
    "GateConfig",
    "Gatekeeper",
    "Handler",
    "HandshakeRejected",
    "Hooks",
    "HttpPublisher",
    "Incoming",
    "LifespanError",
    "Outlet",
    "Pending",
    "PublishHook",
    "ReceivedEvent",
    "RemoteFile",
    "SSEClient",
    "Sender",
    "ServerLimits",
    "TlsSource",
    "StoredFile",
    "SubscribeHook",
    "Visitor",
    "WSClient",
    "WSStats",
    "WebSocketStream",
    "create_sse_client",
    "create_ws_client",
    "credentials",
    "last_event_id_of",
    "open_websocket",
    "read_query",
    "serve",
    "turn_away",
]

# A library is quiet until somebody configures logging.
logging.getLogger("rtcore").addHandler(logging.NullHandler())
