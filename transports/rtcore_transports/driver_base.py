"""What the parts of a driver have in common: the node, the time, and how effects are carried out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TypeAlias, TypedDict

from rtcore import Node
from rtcore.node import Consult, NodeEffect, Verify
from rtcore.router import Published, Refused
from rtcore.session import Handle

from .gatekeeper import Gatekeeper

__all__ = ["Awaited", "DriverBase", "Moment", "Rest"]

#: What must be awaited before more is read of the connection that it concerns.
Awaited: TypeAlias = Handle | Verify | Consult

#: What of a node's effects is for whoever has caused them.
Rest: TypeAlias = Awaited | Published | Refused


class Moment(TypedDict):
    """The time, as the inputs of a node take it."""

    now: float
    timestamp: int


class DriverBase(ABC):
    """What each part of `rtcore_transports.Driver` stands on.

    Attributes:
        node: What it drives.
        gatekeeper: Who lets connections in.
        now: Returns monotonic seconds.
    """

    node: Node
    gatekeeper: Gatekeeper
    now: Callable[[], float]

    @abstractmethod
    def catch_up(self) -> None:
        """Do what the node has had due."""

    @abstractmethod
    def _moment(self) -> Moment: ...

    @abstractmethod
    def _perform(self, effects: Sequence[NodeEffect]) -> list[Rest]: ...

    @abstractmethod
    async def _consult(self, effect: Consult) -> list[Rest]: ...
