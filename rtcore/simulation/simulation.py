"""A simulation: servers, clients, the network between them, virtual time, and what must always hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from rtcore.client import ClientConfig
from rtcore.event_source import EventSourceConfig
from rtcore.websocket import WebSocketConfig

from .authority import Authority, Wallet
from .choices import Choices
from .client import SimulatedClient
from .event_source_client import SimulatedEventSource
from .invariants import (
    Bounds,
    Contents,
    Emptiness,
    Invariant,
    Justification,
    Keeping,
    Ledger,
    Pages,
    PresenceTruth,
    Publishing,
    RateLimits,
    Rights,
    Sequences,
)
from .network import Network
from .sending import SimulatedUpload
from .server import Handler, ServerConfig, SimulatedServer
from .watchers import Watchers
from .websocket_client import Call, SimulatedWebSocketClient
from .world import World

__all__ = ["Simulation"]

# How long everything must look quiet before it is: longer than the longest way through the network, and than a stall.
_QUIET: Final = 6.0
_MOMENT: Final = 0.5


class Simulation:
    """Servers and clients in one virtual world.

    Nothing happens by itself: `step`, `run_for` and `run_until` let time pass. Everything is a function of the choices.

    Args:
        choices: What chance decides, or a seed.
        invariants: What must hold besides what always must.

    Attributes:
        world: Time, chance and the trace.
        network: The connections.
        servers: In the order in which they were added.
        clients: Likewise.
        ledger: What was published.
        invariants: All of them.
    """

    def __init__(self, choices: Choices | int = 0, *, invariants: Sequence[Invariant] = ()) -> None:
        seed = choices if isinstance(choices, int) else None
        self.world = World(Choices.from_seed(choices) if isinstance(choices, int) else choices, seed=seed)
        self.network = Network(self.world)
        self.servers: list[SimulatedServer] = []
        self.clients: list[SimulatedClient] = []
        self.ledger = Ledger()
        self.rights = Rights(self.ledger)
        self.sequences = Sequences(self.ledger)
        self.publishing = Publishing(self.ledger)
        self.pages = Pages(self.ledger)
        self.rate_limits = RateLimits(self.ledger)
        self.justification = Justification(self.ledger, self.rights)
        self.bounds = Bounds()
        self.contents = Contents(self.ledger)
        self.keeping = Keeping(self.ledger)
        # The ledger is first: the others look things up there.
        self.invariants: tuple[Invariant, ...] = (
            self.ledger,
            self.rights,
            self.sequences,
            self.publishing,
            self.pages,
            self.rate_limits,
            self.justification,
            PresenceTruth(),
            self.bounds,
            self.contents,
            self.keeping,
            Emptiness(),
            *invariants,
        )
        for invariant in self.invariants:
            invariant.begin(self)
        self._watchers = Watchers(self.invariants)
        self._numbers = 0

    @property
    def now(self) -> float:
        """Virtual seconds since the beginning."""
        return self.world.scheduler.now

    # Who there is

    def add_server(
        self,
        name: str,
        *,
        config: ServerConfig | None = None,
        handlers: Mapping[str, Handler] | None = None,
        authority: Authority | None = None,
        skew: float = 0.0,
    ) -> SimulatedServer:
        """Add a server, and start it.

        Args:
            name: Differs from all others.
            config: Limits and times.
            handlers: The application's, by message type.
            authority: Who says who somebody is; without, everybody may do everything, under any name.
            skew: What its clock shows at the beginning.
        """
        server = SimulatedServer(
            self.world,
            self.network,
            name,
            config=config or ServerConfig(),
            handlers=handlers or {},
            observer=self._watchers,
            authority=authority,
            skew=skew,
        )
        self.servers.append(server)
        server.start()
        return server

    def add_websocket_client(
        self,
        name: str,
        *,
        user_id: str | None = None,
        servers: Sequence[SimulatedServer] | None = None,
        given: Sequence[str] = (),
        base64: bool = False,
        wallet: Wallet | None = None,
        config: ClientConfig | None = None,
        websocket: WebSocketConfig | None = None,
        skew: float = 0.0,
    ) -> SimulatedWebSocketClient:
        """Add a client on a WebSocket, which begins to connect.

        Args:
            name: Differs from all others.
            user_id: Whom it says it is.
            servers: Where it may connect; all servers if not given.
            given: The channels that its URL names, which the server joins by itself.
            base64: Whether it gets files as text.
            wallet: Its tokens, where servers ask for any.
            config: Limits and times.
            websocket: Those of its WebSockets.
            skew: What its clock shows at the beginning.
        """
        client = SimulatedWebSocketClient(
            self.world,
            self.network,
            name,
            user_id=user_id,
            servers=self.servers if servers is None else servers,
            observer=self._watchers,
            given=given,
            base64=base64,
            wallet=wallet,
            config=config,
            websocket=websocket,
            skew=skew,
        )
        self.clients.append(client)
        client.connect()
        return client

    def add_event_source(
        self,
        name: str,
        *,
        channels: Sequence[str] = (),
        user_id: str | None = None,
        servers: Sequence[SimulatedServer] | None = None,
        wallet: Wallet | None = None,
        config: EventSourceConfig | None = None,
        skew: float = 0.0,
    ) -> SimulatedEventSource:
        """Add a client on an event stream, which begins to connect.

        Args:
            name: Differs from all others.
            channels: What it wants to hear.
            user_id: Whom it says it is.
            servers: Where it may connect; all servers if not given.
            wallet: Its tokens, where servers ask for any.
            config: Times of the source.
            skew: What its clock shows at the beginning.
        """
        client = SimulatedEventSource(
            self.world,
            self.network,
            name,
            user_id=user_id,
            channels=channels,
            servers=self.servers if servers is None else servers,
            observer=self._watchers,
            wallet=wallet,
            config=config,
            skew=skew,
        )
        self.clients.append(client)
        client.connect()
        return client

    def numbered(self, by: str, **fields: object) -> dict[str, object]:
        """Return a message with a number of its own, by which the invariants know it; `by` names the publisher."""
        self._numbers += 1
        return {"type": "message", **fields, "n": self._numbers, "by": by}

    def publish(self, client: SimulatedWebSocketClient, data: bytes | None = None, **fields: object) -> Call:
        """Let a client publish a numbered message with these fields, such as ``channel``, and with a file in it."""
        kind: dict[str, object] = {} if data is None else {"type": "binary"}
        return client.publish(self.numbered(client.name, **kind, **fields), data)

    def send_file(self, client: SimulatedWebSocketClient, content: bytes, **fields: object) -> SimulatedUpload:
        """Let a client send a file in chunks; it is published in a numbered message with these fields."""
        return client.send_file(self.numbered(client.name, type="binary", **fields), content)

    # Time

    def step(self) -> None:
        """Let the next event happen, and see whether everything holds that must."""
        self.world.scheduler.step()
        for check in self._watchers.checks:
            check()

    def run_for(self, seconds: float) -> None:
        """Let time pass."""
        scheduler = self.world.scheduler
        until = scheduler.now + seconds
        checks = self._watchers.checks
        while (at := scheduler.next_at()) is not None and at <= until:
            scheduler.step()
            for check in checks:
                check()
        scheduler.now = until

    def run_until(self, condition: Callable[[], bool], *, within: float = 60.0) -> None:
        """Let time pass until something is the case, which is asked after every step.

        Raises:
            SimulationFailure: It is not within so many seconds.
        """
        scheduler = self.world.scheduler
        until = scheduler.now + within
        while not condition():
            at = scheduler.next_at()
            if at is None or at > until:
                raise self.world.fail("liveness", f"{within:g} seconds have not been enough for {condition.__name__}")
            self.step()

    # The end

    def rest(self, *, within: float = 150.0) -> None:
        """End all faults, let everybody come back and everything arrive, and see whether all is as it must be.

        Raises:
            SimulationFailure: An invariant does not hold, or things are not quiet within so many seconds.
        """
        self.world.trace.add(self.now, "***", "no more faults")
        self.world.faulty = False
        for server in self.servers:
            server.thaw()
            if not server.running:
                server.start()
            elif server.node.draining:
                server.stop()
                server.start()
        for client in self.clients:
            client.thaw()
        until = self.now + within
        quiet_since = self.now
        ended = sum(client.ended for client in self.clients)
        while self.now - quiet_since < _QUIET:
            self.run_for(_MOMENT)
            unrest = self._unrest()
            if ended != (ended := sum(client.ended for client in self.clients)) and unrest is None:
                unrest = "somebody has just ended"
            if unrest is not None:
                quiet_since = self.now
                if self.now > until:
                    raise self.world.fail("liveness", f"after {within:g} seconds without faults, {unrest}")
        self.world.trace.add(self.now, "***", "rest")
        for invariant in self.invariants:
            invariant.at_rest()

    def empty(self) -> None:
        """Let everybody leave, wait for as long as servers may remember them, and see whether nothing is left.

        Raises:
            SimulationFailure: Something is left.
        """
        for client in self.clients:
            if not client.ended:
                client.disconnect()
        self.run_for(_QUIET + max((_memory(server.config) for server in self.servers), default=0.0))
        for invariant in self.invariants:
            invariant.emptied()

    def _unrest(self) -> str | None:
        """Return what is not quiet yet, or ``None``."""
        if self.network.haunted():
            return "somebody believes in a connection that is dead"
        there: dict[str, None] = {}
        for client in self.clients:
            if client.ended:
                continue
            server, connection_id = client.server, client.connection_id
            if server is None or connection_id is None or connection_id not in server.connections:
                return f"{client} is not connected"
            there[connection_id] = None
            if isinstance(client, SimulatedWebSocketClient) and client.busy:
                return f"{client} waits for an answer"
        for server in self.servers:
            for connection_id, connection in server.connections.items():
                if connection_id not in there:
                    return f"{server} believes in {connection_id}"
                if connection.backlog:
                    return f"messages wait for {connection_id}"
        return None


def _memory(config: ServerConfig) -> float:
    """Return for how many seconds at most a server remembers what nobody needs any more."""
    router = config.node.router
    namespaces = (*router.namespaces.namespaces, router.namespaces.default)
    history = max(each.history_ttl + each.presence_grace for each in namespaces)
    files = config.node.files
    # What has come of a file is remembered for as long as it was waited for; in the end its channel is new.
    uploads = 0.0 if files is None else 2 * files.resume_timeout
    # A channel whose time comes while it can still replay something waits for as long again.
    return uploads + max(history + 2 * router.idle_timeout, router.idempotency_window)
