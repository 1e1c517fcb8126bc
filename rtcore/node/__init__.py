"""One server: its sessions, its router and their deadlines, behind the inputs that a transport has.

A transport says who connects, what they send, who is gone and what time it is; the node answers with what must
be delivered, closed and told, in order.

`machine` has the machine, `config` its limits, `sessions` who is connected, `credentials` which tokens are good,
`arrivals` how somebody is welcomed, `requests` what a client's message leads to, `files` what becomes of files,
`rights` what happens where connections are allowed something else, and `answers` what is said to single connections.
"""

from __future__ import annotations

from .answers import PROTOCOL_VERSION, disconnect_message
from .config import NodeConfig
from .effects import Close, Consult, NodeEffect, Verify
from .files import Files
from .machine import Node
from .signaling import Signaling

__all__ = [
    "PROTOCOL_VERSION",
    "Close",
    "Consult",
    "Files",
    "Node",
    "NodeConfig",
    "NodeEffect",
    "Signaling",
    "Verify",
    "disconnect_message",
]
