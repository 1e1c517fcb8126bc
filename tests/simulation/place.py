"""A server that asks for tokens, and somebody who has some, for tests of what they are worth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from rtcore.client import ClientConfig
from rtcore.permissions import Action, Grant, Scope
from rtcore.simulation import Authority, Choices, SimulatedWebSocketClient, Simulation, SimulationFailure, Wallet

__all__ = ["CHAT", "NOTHING", "REFRESHING", "UNTIL", "Place"]

REFRESHING = ClientConfig(backoff_base=0.1, backoff_cap=1.0, refreshes=True, refresh_margin=2.0)
CHAT = Grant(subscribe=Scope(("chat",), exclusive=True))
NOTHING = Grant(subscribe=Scope((), exclusive=True))
UNTIL = 4_000_000_000.0


class Place:
    """A server that asks for tokens, without faults."""

    def __init__(self, *, consulted: tuple[Action, ...] = (), draw: Callable[[int], int] | None = None) -> None:
        self.simulation = Simulation() if draw is None else Simulation(Choices(draw))
        self.simulation.world.faulty = False
        self.authority = Authority(self.simulation.world, consulted=consulted)
        self.server = self.simulation.add_server("s", authority=self.authority)

    def wallet(self, user_id: str | None = "ann", grant: Grant | None = CHAT, *, refreshes: bool = True) -> Wallet:
        return Wallet(self.authority, user_id, grant, refreshes=refreshes)

    def client(self, wallet: Wallet, **options: Any) -> SimulatedWebSocketClient:
        options.setdefault("config", REFRESHING if wallet.refreshes else None)
        client = self.simulation.add_websocket_client("ann", user_id="ann", wallet=wallet, **options)
        self.simulation.run_for(1.0)
        return client

    def faulty(self, lifetime: tuple[float, float] = (6.0, 6.0)) -> None:
        """Let tokens expire from now on; nothing else goes wrong, if draws are calm."""
        self.authority._lifetime = lifetime
        self.simulation.world.faulty = True

    def lines(self, *parts: str) -> list[str]:
        return [line for line in self.simulation.world.trace.lines() if all(part in line for part in parts)]

    def fails(self, explanation: str) -> pytest.RaisesExc[SimulationFailure]:
        return pytest.raises(SimulationFailure, match=f"only_what_is_allowed: .*{explanation}")
