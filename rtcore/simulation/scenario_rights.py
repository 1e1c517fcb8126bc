"""What happens in a scenario in which people may do different things, and that changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import attrs

from rtcore.client import Send
from rtcore.errors import QueueFull
from rtcore.namespaces import Access, Namespace, Namespaces
from rtcore.permissions import Action, Grant, Revocation, Scope

from .authority import Authority, Wallet
from .observer import Observer
from .scenario_config import REFRESHING, WEBSOCKET
from .server import ServerConfig, SimulatedServer
from .simulation import Simulation
from .websocket_client import SimulatedWebSocketClient

__all__ = ["RightsInScenario"]

_ACCESS: Final = ((10, Access.ANYBODY), (2, Access.USERS), (2, Access.GRANTED), (1, Access.MEMBERS), (1, Access.SERVER))
_JOINING: Final = tuple((weight, access) for weight, access in _ACCESS if access is not Access.MEMBERS)
# More than there will be for as long as the rest lasts.
_FOREVER: Final = 4_000_000_000.0
_LIFETIMES: Final = ((10.0, 40.0), (4.0, 12.0))
_OWN: Final = ("$user:*", "$broadcast")


class RightsInScenario:
    """Who may do what, and how that changes.

    Args:
        simulation: In which it takes place.
        channels: The names of the channels that there are.
        files: Whether there are files.

    Attributes:
        authority: Who issues tokens.
        actions: What may happen, by weight.
    """

    def __init__(self, simulation: Simulation, channels: Sequence[str], *, files: bool = False) -> None:
        self._simulation = simulation
        self._choices = choices = simulation.world.choices
        self._channels = channels
        self._files = files
        consulted: tuple[Action, ...] = choices.weighted(
            ((3, ()), (1, (Action.PUBLISH,)), (1, (Action.SUBSCRIBE,)), (1, (Action.SUBSCRIBE, Action.PUBLISH)))
        )
        self.authority = Authority(simulation.world, consulted=consulted, lifetime=choices.pick(_LIFETIMES))
        self.authority.anonymous = self._draw_grant()
        self._wallets: dict[str, Wallet] = {}
        self._probes = self._strangers = 0
        self._stranger: SimulatedWebSocketClient | None = None
        self.actions: tuple[tuple[int, Callable[[], None]], ...] = (
            (10, self.regrant),
            (4, self.regrant_user),
            (8, self.issue_otherwise),
            (5, self.revoke),
            (10, self.probe),
        )

    def restrict(self, config: ServerConfig) -> ServerConfig:
        """Return the limits and times of servers whose channels are not open to everybody for everything."""
        router = config.node.router
        namespaces = Namespaces(
            tuple(map(self._restricted, router.namespaces.namespaces)), self._restricted(router.namespaces.default)
        )
        return attrs.evolve(config, node=attrs.evolve(config.node, router=attrs.evolve(router, namespaces=namespaces)))

    def wallet(self, name: str, user_id: str | None) -> Wallet:
        """Return the tokens of a client."""
        choices = self._choices
        # Whoever is somebody has a token that says so.
        grant = None if user_id is None and choices.chance(50) else self._draw_grant()
        wallet = Wallet(self.authority, user_id, grant, refreshes=not choices.chance(15))
        self._wallets[name] = wallet
        return wallet

    def end(self) -> None:
        """Let the stranger go: from now on all is as it should be."""
        if self._stranger is not None:
            self._stranger.disconnect()

    # What may happen

    def regrant(self) -> None:
        """Allow a connection something else, as an application does by its id."""
        found = self._connection()
        if found is not None:
            server, connection_id = found
            server.regrant(connection_id, self._draw_grant(may_end=True))

    def regrant_client(self, client: SimulatedWebSocketClient, *, sends: bool) -> None:
        """Allow the present connection of a client something else, and maybe no files at all."""
        server, connection_id = client.server, client.connection_id
        if server is not None and not server.frozen and connection_id in server.connections:
            assert connection_id is not None, "it is the id of a connection"
            grant = self._draw_grant(may_end=True)
            server.regrant(connection_id, grant if sends else attrs.evolve(grant, upload=Scope((), exclusive=True)))

    def regrant_user(self) -> None:
        """Allow a user something else."""
        server, choices = self._server(), self._choices
        if server is not None:
            server.regrant_user(choices.pick(("ann", "bob", "cyd")), self._draw_grant(may_end=True))

    def issue_otherwise(self) -> None:
        """Have the next token of a client allow something else."""
        wallets = [wallet for wallet in self._wallets.values() if wallet.grant is not None]
        if wallets:
            self._choices.pick(wallets).grant = self._draw_grant()

    def revoke(self) -> None:
        """Accept some tokens no more: one of them, those of a user, or all that were issued before."""
        server, choices = self._server(), self._choices
        if server is None:
            return
        now = self.authority.time
        kind = choices.below(4)
        if kind == 0:
            found = self._connection()
            grant = None if found is None else found[0].node.identity(found[1])
            token_id = None if grant is None else grant.grant.token_id
            server.revoke(Revocation(token_id=token_id or "t1", until=_FOREVER))
        elif kind == 1:
            user_id = choices.pick(("ann", "bob", "cyd"))
            server.revoke(Revocation(user_id=user_id, issued_before=now, until=_FOREVER))
        elif kind == 2:
            self.authority.ambush = self._revoke_token
        else:
            server.revoke(Revocation(issued_before=now - choices.seconds(0.0, 10.0), until=_FOREVER))

    def probe(self) -> None:
        """Have a stranger try things by hand, such as to be told what was missed of a channel of which it knows."""
        choices, channel = self._choices, self._choices.pick((*self._channels, "chat:9"))
        publications = self._simulation.ledger.publications.values()
        epochs = dict.fromkeys(each.epoch for each in publications if each.line.channel == channel)
        epoch = choices.pick((*epochs, "unknown"))
        stranger = self._stranger
        if stranger is None or stranger.ended:
            stranger = self._stranger = self._come()
        match choices.below(7):
            case 0:
                self._say(stranger, "presence", channel=channel)
            case 1:
                self._say(stranger, "history", channel=channel, after=0)
            case 2:
                self._say(stranger, "history", channel=channel, epoch=epoch)
            case 3:
                since = {"epoch": epoch, "offset": choices.below(4)}
                changes = {"epoch": f"{epoch}p", "offset": choices.below(4)}
                self._say(stranger, "join_channel", channel=channel, since=since, presence_since=changes)
            case 4:
                self._say(stranger, "leave_channel", channel=channel)
            case 5:
                self._say(stranger, choices.pick(("get_active_users", "get_connection_stats")))
            case _:
                where = choices.pick(({"channel": channel}, {"recipient_id": "ann"}))
                self._send(stranger, self._simulation.numbered(stranger.name, **where))

    # Inside

    def _revoke_token(self, token_id: str) -> None:
        for server in self._simulation.servers:
            if server.running and not server.frozen:
                server.revoke(Revocation(token_id=token_id, until=_FOREVER))

    def _come(self) -> SimulatedWebSocketClient:
        """Let a stranger connect, of whom only servers are watched: what it believes is nobody's business."""
        simulation, user_id = self._simulation, self._choices.pick(("zoe", "ann", None))
        self._strangers += 1
        name = f"stranger{self._strangers}"
        stranger = SimulatedWebSocketClient(
            simulation.world,
            simulation.network,
            name,
            user_id=user_id,
            servers=simulation.servers,
            observer=Observer(),
            wallet=self.wallet(name, user_id),
            config=REFRESHING,
            websocket=WEBSOCKET,
        )
        stranger.connect()
        return stranger

    def _say(self, stranger: SimulatedWebSocketClient, command: str, **data: object) -> None:
        self._send(stranger, {"type": "command", "command": command, "data": data})

    def _send(self, stranger: SimulatedWebSocketClient, message: Mapping[str, object]) -> None:
        self._probes += 1
        try:
            stranger.perform(
                stranger.machine.send(Send({**message, "id": f"probe-{self._probes}"}), now=stranger.now())
            )
        except QueueFull:
            stranger.note("has too much to say while offline")

    def _restricted(self, namespace: Namespace) -> Namespace:
        choices = self._choices
        return attrs.evolve(
            namespace,
            subscribe=choices.weighted(_JOINING),
            publish=choices.weighted(_ACCESS),
            history_access=choices.weighted(_ACCESS),
            presence_access=choices.weighted(_ACCESS),
            # Not drawn without need: seeds without files are to stay what they are.
            upload=choices.weighted(_ACCESS) if self._files else namespace.upload,
        )

    def _draw_grant(self, *, may_end: bool = False) -> Grant:
        choices = self._choices
        subscribe = self._draw_scope()
        publish, history, presence = (self._draw_scope() if choices.chance(50) else subscribe for _ in range(3))
        upload = Scope()
        if self._files:
            upload = self._draw_scope() if choices.chance(50) else publish
        ends = may_end and choices.chance(20)
        return Grant(
            subscribe=subscribe,
            publish=publish,
            history=history,
            presence=presence,
            upload=upload,
            admin=choices.chance(30),
            server=choices.chance(10),
            expires_at=self.authority.time + choices.seconds(1.0, 8.0) if ends else None,
        )

    def _draw_scope(self) -> Scope:
        choices, channels = self._choices, self._channels
        kind = choices.below(10)
        if kind < 5:
            return Scope()
        if kind == 5:
            return Scope(("*", "$*"), exclusive=True)
        if kind == 6:
            return Scope(("chat:*", "state:*"), exclusive=True)
        names = [channel for channel in channels if choices.chance(70)]
        own = [name for name in _OWN if choices.chance(50)]
        return Scope((*names, *own), exclusive=kind < 9)

    def _server(self) -> SimulatedServer | None:
        up = [server for server in self._simulation.servers if server.running and not server.frozen]
        return self._choices.pick(up) if up else None

    def _connection(self) -> tuple[SimulatedServer, str] | None:
        server = self._server()
        if server is None or not server.connections:
            return None
        return server, self._choices.pick(list(server.connections))
