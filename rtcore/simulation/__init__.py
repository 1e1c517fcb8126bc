"""The whole system in one thread, on virtual time, over a network that fails: all of it from one seed.

`Simulation` is what tests are made of: servers, clients and the connections between them, and `Invariant` what must
hold in each. `run` lets chance decide what happens.
"""

from __future__ import annotations

from .authority import Authority, Wallet
from .choices import Choices
from .client import SimulatedClient
from .event_source_client import SimulatedEventSource
from .invariants import Invariant
from .link import Cut, Quality
from .network import Network
from .observer import Observer
from .scenario import Report, Scenario, run
from .sending import SimulatedUpload
from .server import Handler, Sender, ServerConfig, SimulatedServer
from .simulation import Simulation
from .trace import SimulationFailure, Trace
from .websocket_client import Call, SimulatedWebSocketClient
from .world import World

__all__ = [
    "Authority",
    "Call",
    "Choices",
    "Cut",
    "Handler",
    "Invariant",
    "Network",
    "Observer",
    "Quality",
    "Report",
    "Scenario",
    "Sender",
    "ServerConfig",
    "SimulatedClient",
    "SimulatedEventSource",
    "SimulatedServer",
    "SimulatedUpload",
    "SimulatedWebSocketClient",
    "Simulation",
    "SimulationFailure",
    "Trace",
    "Wallet",
    "World",
    "run",
]
