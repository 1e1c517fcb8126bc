"""One realtime client's conversation with a server, above WebSocket messages.

`machine` has the machine, `commands` what it is told to do and the effects that it answers with. `upload` is another
machine, beside it: of one file that goes to the server in chunks.
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
    SendBytes,
    SendText,
)
from .config import ClientConfig
from .machine import Client, ClientState
from .upload import Ask, Cancelled, Done, Failed, Progressed, ReadPiece, SendChunk, Upload, UploadEffect, UploadState
from .wire import target_of

__all__ = [
    "Answered",
    "Ask",
    "Cancelled",
    "Client",
    "ClientConfig",
    "ClientState",
    "Command",
    "Connected",
    "Disconnect",
    "Done",
    "Drop",
    "Effect",
    "Ended",
    "Failed",
    "Join",
    "Leave",
    "Lost",
    "MessageReceived",
    "Open",
    "Progressed",
    "ProtocolFault",
    "Publish",
    "ReadPiece",
    "RefreshDue",
    "Refused",
    "RejoinRefused",
    "Rejoined",
    "Request",
    "Send",
    "SendBytes",
    "SendChunk",
    "SendText",
    "Upload",
    "UploadEffect",
    "UploadState",
    "target_of",
]
