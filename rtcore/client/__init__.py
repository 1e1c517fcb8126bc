"""One realtime client's conversation with a server, above WebSocket text messages.

`machine` has the machine, `commands` what it is told to do and the effects that it answers with.
"""

from __future__ import annotations

from .commands import (
    Answered,
    Command,
    Connected,
    Disconnect,
    Drop,
    Effect,
    Ended,
    Join,
    Leave,
    Lost,
    MessageReceived,
    Open,
    ProtocolFault,
    Publish,
    RefreshDue,
    Refused,
    Rejoined,
    RejoinRefused,
    Request,
    Send,
    SendText,
)
from .config import ClientConfig
from .machine import Client, ClientState
from .wire import target_of

__all__ = [
    "Answered",
    "Client",
    "ClientConfig",
    "ClientState",
    "Command",
    "Connected",
    "Disconnect",
    "Drop",
    "Effect",
    "Ended",
    "Join",
    "Leave",
    "Lost",
    "MessageReceived",
    "Open",
    "ProtocolFault",
    "Publish",
    "RefreshDue",
    "Refused",
    "RejoinRefused",
    "Rejoined",
    "Request",
    "Send",
    "SendText",
    "target_of",
]
