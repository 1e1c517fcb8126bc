"""What simulated clients have in common, whatever they are connected by."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from rtcore.messages import Message

from .machine import Machine
from .network import Network
from .observer import Observer
from .server import SimulatedServer
from .world import World

__all__ = ["SimulatedClient"]


class SimulatedClient(Machine):
    """A client's machine, with a user before it.

    Args:
        world: Where it is.
        network: How it reaches servers.
        name: Differs from all others.
        user_id: Whom it says it is, or ``None`` for nobody.
        servers: Where it may connect; which one it tries is drawn anew each time.
        observer: Who is told what happens.
        skew: What its clock shows at the beginning.

    Attributes:
        user_id: As given.
        servers: As given; may change.
        server: The server of the present or last attempt.
        connection_id: The server's name for the present connection, ``None`` without one.
        heard: The messages that its user has got, in order.
        reconnects: How often a connection followed on another.
        hears_text: Whether it gets files as text.
        streams: Whether it hears by an event stream, which it resumes after the last event that had an id.
    """

    streams: ClassVar[bool] = False

    def __init__(
        self,
        world: World,
        network: Network,
        name: str,
        *,
        user_id: str | None,
        servers: Sequence[SimulatedServer],
        observer: Observer,
        skew: float = 0.0,
    ) -> None:
        super().__init__(world, name, skew=skew)
        self.user_id = user_id
        self.servers = list(servers)
        self.server: SimulatedServer | None = None
        self.connection_id: str | None = None
        self.heard: list[Message] = []
        self.reconnects = 0
        self.hears_text = self.streams
        self.observer = observer
        self.network = network

    @property
    @abstractmethod
    def channels(self) -> tuple[str, ...]:
        """The channels that its user wants to hear."""

    def filters(self, channel: str) -> Mapping[str, object]:
        """Return the ``filters`` with which it has joined a channel; empty where it wants to hear everything."""
        return {}

    @abstractmethod
    def is_given(self, channel: str) -> bool:
        """Tell whether the server joins it to a channel as it connects, if it may."""

    def wants_to_join(self, channel: str) -> bool:
        """Tell whether its user has asked to join a channel, and has not been told what has come of it."""
        return False

    @property
    def connected(self) -> bool:
        """Whether a server has welcomed it, on a connection that it believes in."""
        return self.connection_id is not None

    @property
    @abstractmethod
    def ended(self) -> bool:
        """Whether it will connect no more."""

    @abstractmethod
    def connect(self) -> None:
        """Begin, or try again at once."""

    @abstractmethod
    def disconnect(self) -> None:
        """End for good."""

    def change_address(self) -> None:
        """Lose the present connection at once, without the server's learning of it."""
        self.note("changes its address")
        for link in self.network.links(self):
            self.network.silence(link)
            self.network.reset(link.near, after=0.0)

    def choose_server(self) -> SimulatedServer:
        """Draw where to connect; most go where they were."""
        choices = self.world.choices
        if self.server is None or (len(self.servers) > 1 and choices.chance(30)) or self.server not in self.servers:
            self.server = choices.pick(self.servers)
        return self.server

    def hear(self, message: Message) -> None:
        """Hand a message to the user."""
        self.heard.append(message)
        self.observer.client_heard(self, message)
