"""rtcore in hosts: an ASGI application, connections of one's own endpoints, credentials, settings, the command line."""

from .app import RealtimeApp
from .auth import WSAuthenticator
from .connections import ConnectionManager, connection_manager
from .settings import Settings, SettingsError, load_settings

__all__ = [
    "ConnectionManager",
    "RealtimeApp",
    "Settings",
    "SettingsError",
    "WSAuthenticator",
    "connection_manager",
    "load_settings",
]
