"""What can be set from outside: environment, ``.env`` and a TOML file.

Each setting has one name in two spellings: ``WEBSOCKET_MAX_CONNECTIONS`` in the environment and in ``.env``,
``max_connections`` under ``[websocket]`` in TOML. A list, an array in TOML, has commas between its parts in a variable,
or is JSON. Namespaces are ``REALTIME_NAMESPACES`` in JSON, ``[[namespace]]`` tables in TOML, and likewise roles
(``WS_ROLES``, ``[[role]]``) and API keys (``WS_API_KEYS``, ``[[api_key]]``). The environment wins over
``.env``, which wins over TOML, which wins over the defaults. Only what wins is checked, and a wrong value stops the
start with one line that names it as it was written.
"""

from .configs import check_bind, endpoint_config, files_config, gate_config, node_config, open_files, roles
from .credentials import ApiKeySettings, RoleSettings, WsSettings
from .errors import SettingsError
from .sources import load_settings
from .tables import (
    BinarySettings,
    NamespaceSettings,
    RealtimeSettings,
    Settings,
    SseSettings,
    WebRtcSettings,
    WebSocketSettings,
)

__all__ = [
    "ApiKeySettings",
    "BinarySettings",
    "NamespaceSettings",
    "RealtimeSettings",
    "RoleSettings",
    "Settings",
    "SettingsError",
    "SseSettings",
    "WebRtcSettings",
    "WebSocketSettings",
    "WsSettings",
    "check_bind",
    "endpoint_config",
    "files_config",
    "gate_config",
    "load_settings",
    "node_config",
    "open_files",
    "roles",
]
