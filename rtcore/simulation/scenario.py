"""A scenario: a simulation in which chance decides who is there, what they do, and what goes wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import attrs

from rtcore.client import Answered
from rtcore.errors import QueueFull

from .choices import Choices
from .client import SimulatedClient
from .link import Cut
from .scenario_config import CLIENT, EVENT_SOURCE, REFRESHING, WEBSOCKET, draw_server
from .scenario_files import FilesInScenario
from .scenario_rights import RightsInScenario
from .server import SimulatedServer
from .simulation import Simulation
from .websocket_client import SimulatedWebSocketClient

__all__ = ["Report", "Scenario", "run"]

_NAMES: Final = ("ann", "bob", "cyd", "dan", "eve", "fay", "gus", "hal")
_CHANNELS: Final = ("chat:1", "chat:2", "feed:1", "price:1", "state:1")
_FILTERS: Final[tuple[dict[str, object], ...]] = (
    {"types": ["message", "user_joined", "user_left"]},
    {"types": ["remark", "notification"], "notification_types": ["error"]},
    {"notification_types": ["info"]},
    {"types": []},
)
_TOO_MUCH: Final = "has too much to say while offline"
_CUTS: Final = (Cut.RESET, Cut.END, Cut.SILENT, Cut.HALF)


@attrs.frozen
class Report:
    """What has happened in a scenario in which everything held.

    Attributes:
        steps: Events.
        seconds: Virtual ones.
        publications: Of all channels.
        deliveries: Publications heard by clients.
        acknowledged: Publications whose publisher knows.
        refused: Publications that failed or may have, by code.
        reconnects: Connections that followed on another.
        gaps: Announced to clients, by reason.
        overflows: Connections ended since they read too slowly.
        expelled: Connections ended since they talked too fast.
        pages: Of histories, shown to clients.
        lives: Of all servers.
        files: Sent in chunks, by what became of them.
        denied: What somebody was not allowed, by code.
        removed: Connections taken out of a channel, each of them counted.
        renewed: Connections that went on with another token.
        unauthorized: Connections ended since what they came with had expired or was revoked.
        digest: A hash of everything that happened.
    """

    steps: int
    seconds: float
    publications: int
    deliveries: int
    acknowledged: int
    refused: dict[str, int]
    reconnects: int
    gaps: dict[str, int]
    overflows: int
    expelled: int
    pages: int
    lives: int
    files: dict[str, int]
    denied: dict[str, int]
    removed: int
    renewed: int
    unauthorized: int
    digest: str


class Scenario:
    """Some clients, one server or two, and a while of everyday life with its accidents.

    Args:
        choices: What chance decides, or a seed.
        most: The most actions.
        rights: Whether people may do different things, and that changes. If it is not said, that is so for every fourth
            seed, and now and then where the choices come from elsewhere.
        files: Whether there are files. If it is not said, that is so for every fourth seed, for every other of those
            with rights, and now and then where the choices come from elsewhere.

    Attributes:
        simulation: In which it takes place.
    """

    def __init__(
        self, choices: Choices | int, *, most: int = 120, rights: bool | None = None, files: bool | None = None
    ) -> None:
        self.simulation = Simulation(choices)
        self._choices = self.simulation.world.choices
        if rights is None:
            # Not drawn for a seed: those without rights are to stay what they are.
            rights = choices % 4 == 3 if isinstance(choices, int) else choices.chance(25)
        if files is None:
            files = choices % 8 in (1, 5, 7) if isinstance(choices, int) else choices.chance(25)
        self._most = most
        self._actions: tuple[tuple[int, Callable[[], None]], ...] = (
            (30, self._publish),
            (6, self._burst),
            (3, self._double_click),
            (4, self._say_in_two_tabs),
            (3, self._chatter),
            (6, self._look_back),
            (6, self._say_something),
            (5, self._flood),
            (8, self._join),
            (4, self._leave),
            (10, self._cut),
            (4, self._stall),
            (4, self._freeze),
            (4, self._change_address),
            (3, self._crash),
            (2, self._drain),
            (2, self._jump),
            (1, self._set_wall_clock),
            (2, self._come),
            (1, self._go),
            (2, self._retry),
            (3, self._wait),
        )
        self._node = draw_server(self._choices)
        self._rights = RightsInScenario(self.simulation, _CHANNELS, files=files) if rights else None
        if self._rights is not None:
            self._node = self._rights.restrict(self._node)
            # Whoever was taken out of a channel is to join it again.
            self._actions += (*self._rights.actions, (8, self._join))
        self._files = FilesInScenario(self.simulation, _CHANNELS, self._rights) if files else None
        if self._files is not None:
            self._node = self._files.configure(self._node)
            self._actions += self._files.actions

    def run(self, *, digest: bool = False) -> Report:
        """Let everything happen, and see whether all holds that must.

        Args:
            digest: Whether the report has one, which takes its time.

        Raises:
            SimulationFailure: Something does not.
        """
        simulation, choices = self.simulation, self._choices
        for name in ("s", "z")[: choices.weighted(((4, 1), (1, 2)))]:
            self._add_server(name)
        for _ in range(choices.between(2, 5)):
            self._come()
        simulation.run_for(1.0)
        most = choices.weighted(((5, 15), (4, 50), (1, self._most)))
        for _ in range(choices.between(min(3, most), most)):
            choices.weighted(self._actions)()
            simulation.run_for(choices.seconds(0.0, 0.5))
        if self._rights is not None:
            self._rights.end()
        simulation.rest()
        simulation.empty()
        return self._report(digest)

    def _report(self, digest: bool) -> Report:
        simulation = self.simulation
        return Report(
            steps=simulation.world.scheduler.steps,
            seconds=simulation.now,
            publications=len(simulation.ledger.publications),
            deliveries=simulation.sequences.heard,
            acknowledged=simulation.publishing.acknowledged,
            refused=simulation.publishing.refused,
            reconnects=sum(client.reconnects for client in simulation.clients),
            gaps=simulation.sequences.gaps,
            overflows=simulation.bounds.overflows,
            expelled=simulation.rate_limits.expelled,
            pages=simulation.pages.shown,
            lives=sum(server.lives for server in simulation.servers),
            files=simulation.keeping.outcomes,
            denied=simulation.rights.refused,
            removed=simulation.rights.removed,
            renewed=simulation.rights.renewed,
            unauthorized=simulation.rights.ended,
            digest=simulation.world.trace.digest() if digest else "",
        )

    # Who

    def _add_server(self, name: str) -> None:
        authority = None if self._rights is None else self._rights.authority
        skew = float(self._choices.below(3)) * 1000.1
        self.simulation.add_server(name, config=self._node, authority=authority, skew=skew)

    def _clients(self) -> list[SimulatedClient]:
        return [client for client in self.simulation.clients if not client.ended]

    def _websocket_client(self) -> SimulatedWebSocketClient | None:
        awake = [
            client
            for client in self.simulation.clients
            if isinstance(client, SimulatedWebSocketClient) and not client.ended and not client.frozen
        ]
        return self._choices.pick(awake) if awake else None

    def _server(self) -> SimulatedServer | None:
        up = [server for server in self.simulation.servers if server.running]
        return self._choices.pick(up) if up else None

    def _come(self) -> None:
        choices, simulation = self._choices, self.simulation
        count = len(simulation.clients)
        if count >= len(_NAMES):
            return
        name = _NAMES[count]
        user_id = choices.weighted(((6, name), (3, "ann"), (2, None)))
        skew = float(choices.below(3)) * 77.7
        wallet = None if self._rights is None else self._rights.wallet(name, user_id)
        if choices.chance(35):
            channels = _CHANNELS[choices.below(3) :][: choices.between(1, 3)]
            simulation.add_event_source(
                name, channels=channels, user_id=user_id, wallet=wallet, config=EVENT_SOURCE, skew=skew
            )
            return
        given = _CHANNELS[choices.below(3) :][: choices.between(1, 2)] if choices.chance(25) else ()
        config = CLIENT if wallet is None or not wallet.refreshes else REFRESHING
        client = simulation.add_websocket_client(
            name,
            user_id=user_id,
            given=given,
            base64=self._files is not None and choices.chance(20),
            wallet=wallet,
            config=config,
            websocket=WEBSOCKET,
            skew=skew,
        )
        for channel in _CHANNELS[choices.below(3) :][: choices.between(1, 3)]:
            self._join_by(client, channel)

    # What they do

    def _publish(self) -> None:
        client = self._websocket_client()
        if client is not None:
            self._publish_by(client)

    def _publish_by(self, client: SimulatedWebSocketClient) -> None:
        fields = self._draw_message()
        if self._choices.chance(15):
            fields["echo"] = False
        try:
            client.publish(self.simulation.numbered(client.name, **fields))
        except QueueFull:
            client.note(_TOO_MUCH)

    def _draw_message(self) -> dict[str, object]:
        """Return what a publication says, and to whom."""
        choices = self._choices
        fields: dict[str, object] = {}
        kind = choices.below(20)
        if kind < 17:
            fields["channel"] = choices.pick(_CHANNELS)
            if choices.chance(20):
                fields["persistent"] = True
            if choices.chance(20):
                fields["key"] = choices.pick(("a", "b"))
        else:
            fields["recipient_id"] = choices.pick(_NAMES[:3])
        if choices.chance(30):
            fields["type"] = choices.pick(("remark", "question"))
        if choices.chance(10):
            fields["text"] = "x" * choices.between(50, 800)
        return fields

    def _double_click(self) -> None:
        client, simulation = self._websocket_client(), self.simulation
        if client is not None:
            try:
                client.publish_twice(simulation.numbered(client.name, **self._draw_message()))
            except QueueFull:
                client.note(_TOO_MUCH)

    def _say_in_two_tabs(self) -> None:
        """Let somebody who has several clients say the same in two of them, under the same id."""
        simulation, choices = self.simulation, self._choices
        tabs: dict[str, list[SimulatedWebSocketClient]] = {}
        for client in simulation.clients:
            if isinstance(client, SimulatedWebSocketClient) and not client.ended and client.user_id is not None:
                tabs.setdefault(client.user_id, []).append(client)
        several = [clients for clients in tabs.values() if len(clients) > 1]
        if not several:
            return
        clients = choices.pick(several)
        message = simulation.numbered(clients[0].name, **self._draw_message())
        for client in clients[:2]:
            if not client.ended and not client.frozen:
                try:
                    client.publish({**message, "id": f"both-{message['n']}"})
                except QueueFull:
                    client.note(_TOO_MUCH)
            simulation.run_for(choices.pick((0.0, 0.05, 2.0)))

    def _chatter(self) -> None:
        """Talk faster than is allowed, where there are limits, and go on although warned."""
        client, choices = self._websocket_client(), self._choices
        if client is None:
            return
        for _ in range(choices.between(2, 9)):
            if client.ended or client.frozen:
                return
            for _ in range(choices.between(3, 12)):
                self._publish_by(client)
            self.simulation.run_for(choices.seconds(0.1, 0.9))

    def _look_back(self) -> None:
        """Read a channel's history page by page, from one end or the other, or somewhere in it."""
        client, choices = self._websocket_client(), self._choices
        if client is None:
            return
        channel, limit, back = choices.pick(_CHANNELS), choices.pick((100, 3, 2, 1)), choices.chance(50)
        asked: dict[str, object] = {} if back else {"after": 0}
        if choices.chance(20):
            asked = {choices.pick(("before", "after")): choices.below(12)}
        for _ in range(5):
            if client.ended or client.frozen:
                return
            try:
                call = client.request("history", channel=channel, limit=limit, **asked)
            except QueueFull:
                client.note(_TOO_MUCH)
                return
            self.simulation.run_for(choices.seconds(0.1, 0.5))
            if not isinstance(call.outcome, Answered):
                return
            page = call.outcome.data
            assert isinstance(page, dict), "the answer is a page"
            if not page["more"]:
                return
            bound = page["publications"][0 if "after" not in asked else -1]["meta"]["offset"]
            asked = {"after" if "after" in asked else "before": bound, "epoch": page["epoch"]}

    def _burst(self) -> None:
        client = self._websocket_client()
        if client is not None:
            for _ in range(self._choices.weighted(((3, 5), (2, 12), (1, 30)))):
                self._publish_by(client)

    def _say_something(self) -> None:
        server, choices = self._server(), self._choices
        if server is None or server.frozen:
            return
        for _ in range(choices.weighted(((4, 1), (1, 10)))):
            message = self.simulation.numbered(server.name)
            kind = choices.below(3)
            if kind == 0:
                if choices.chance(50):
                    message |= {"type": "notification", "data": {"type": choices.pick(("info", "error"))}}
                server.publish(choices.pick(_CHANNELS), message)
            elif kind == 1:
                server.broadcast({**message, "type": "broadcast"})
            else:
                server.publish_to_user(choices.pick(_NAMES[:3]), message)

    def _flood(self) -> None:
        """Say more than somebody who does not read can hold."""
        server, choices, simulation = self._server(), self._choices, self.simulation
        clients = self._clients()
        if server is None or server.frozen or not clients:
            return
        client = choices.pick(clients)
        client.freeze()
        simulation.world.scheduler.after(choices.seconds(1.0, 8.0), client.thaw)
        channels = choices.pick((("feed:1",), ("price:1",), ("feed:1", "price:1"), _CHANNELS))
        for _ in range(choices.between(10, 60)):
            fields = {"text": "x" * choices.between(50, 400), "key": choices.pick(("a", "b", "c"))}
            server.publish(choices.pick(channels), simulation.numbered(server.name, **fields))
            if choices.chance(20):
                simulation.run_for(choices.seconds(0.0, 0.1))
                if not server.running or server.frozen:
                    return

    def _join(self) -> None:
        client = self._websocket_client()
        if client is None:
            return
        wanted = [channel for channel in _CHANNELS if channel not in client.machine.channels]
        if wanted:
            try:
                self._join_by(client, self._choices.pick(wanted))
            except QueueFull:
                client.note(_TOO_MUCH)

    def _join_by(self, client: SimulatedWebSocketClient, channel: str) -> None:
        choices = self._choices
        data: dict[str, object] = {}
        # What a server joins a client to by itself it tells without a filter.
        if not client.is_given(channel) and choices.chance(25):
            data["filters"] = choices.pick(_FILTERS)
        client.join(channel, **data)

    def _leave(self) -> None:
        client = self._websocket_client()
        if client is None:
            return
        if client.channels:
            client.leave(self._choices.pick(client.channels))

    def _retry(self) -> None:
        clients = [client for client in self._clients() if not client.frozen]
        if clients:
            self._choices.pick(clients).connect()

    def _go(self) -> None:
        clients = [client for client in self._clients() if not client.frozen]
        if len(clients) > 1:
            self._choices.pick(clients).disconnect()

    def _wait(self) -> None:
        self.simulation.run_for(self._choices.seconds(1.0, 15.0))

    # What goes wrong

    def _cut(self) -> None:
        links = self.simulation.network.links()
        if links:
            link = self._choices.pick(links)
            self.simulation.network.cut(link, self._choices.pick(_CUTS))

    def _stall(self) -> None:
        links = self.simulation.network.links()
        if links:
            link = self._choices.pick(links)
            self.simulation.network.stall(link, self._choices.seconds(0.1, 5.0))

    def _freeze(self) -> None:
        choices, simulation = self._choices, self.simulation
        machines = [*self._clients(), *(server for server in simulation.servers if server.running)]
        if not machines:
            return
        machine = choices.pick(machines)
        machine.freeze()
        seconds = choices.seconds(0.1, 15.0)
        simulation.world.scheduler.after(seconds, machine.thaw)

    def _change_address(self) -> None:
        clients = self._clients()
        if clients:
            self._choices.pick(clients).change_address()

    def _crash(self) -> None:
        server = self._server()
        if server is not None:
            server.crash(silently=self._choices.chance(40))
            self._start_again(server)

    def _drain(self) -> None:
        server = self._server()
        if server is not None and not server.frozen:
            server.drain()
            self.simulation.world.scheduler.after(self._choices.seconds(0.0, 1.0), server.stop)
            self._start_again(server, least=1.0)

    def _start_again(self, server: SimulatedServer, *, least: float = 0.0) -> None:
        def start() -> None:
            if not server.running:
                server.start()

        self.simulation.world.scheduler.after(least + self._choices.seconds(0.0, 5.0), start)

    def _jump(self) -> None:
        choices = self._choices
        machine = choices.pick([*self._clients(), *self.simulation.servers])
        machine.jump(choices.seconds(0.1, 30.0))

    def _set_wall_clock(self) -> None:
        choices = self._choices
        machine = choices.pick([*self._clients(), *self.simulation.servers])
        # Where tokens expire, clocks must be right, more or less.
        most = 5000.0 if self._rights is None else 2.0
        machine.set_wall_clock(choices.seconds(-most, most))


def run(seed: int, *, rights: bool | None = None, files: bool | None = None, digest: bool = False) -> Report:
    """Run the scenario of a seed; see `Scenario` and `Scenario.run`."""
    return Scenario(seed, rights=rights, files=files).run(digest=digest)
