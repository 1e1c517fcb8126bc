"""A call in which chance decides who takes part, what they do, and what goes wrong."""

from __future__ import annotations

from typing import Final

import attrs

from rtcore.client import ClientConfig
from rtcore.node import NodeConfig
from rtcore.router import RouterConfig
from rtcore.signaling import MeshConfig, NegotiationConfig, SignalingConfig
from rtcore.simulation import Choices, Cut, ServerConfig, SimulatedServer, Simulation
from rtcore.simulation.scenario_config import WEBSOCKET

from .call import ROOM_ID, Caller
from .call_truth import CallTruth

__all__ = ["CallReport", "CallScenario", "run_call"]

_PEER_TTL: Final = 6.0
# How long everybody may take to be connected without faults, and how long that must last, in seconds.
_WITHIN: Final = 120.0
_QUIET: Final = 12.0
_CUTS: Final = (Cut.RESET, Cut.END, Cut.SILENT, Cut.HALF)


@attrs.frozen
class CallReport:
    """What has happened in a call in which everything held.

    Attributes:
        steps: Events.
        seconds: Virtual ones.
        said: Signals.
        heard: Of them, those that have come.
        refused: Of them, those that were, by code.
        recovered: Rejoins after which nothing was missing.
        connected: Pairs that were connected in the end.
        happened: How often which action was taken.
        digest: A hash of everything that happened.
    """

    steps: int
    seconds: float
    said: int
    heard: int
    refused: dict[str, int]
    recovered: int
    connected: int
    happened: dict[str, int]
    digest: str


class CallScenario:
    """Some peers, a server, and a while of everyday life with its accidents.

    In some calls nothing is repaired by itself: signaling has to bring about that all are connected, and what is lost
    has to be made good by who is told that it is. In the others connections repair themselves, and clients give up what
    is not answered.

    Args:
        choices: What chance decides, or a seed.
        most: The most actions.

    Attributes:
        simulation: In which it takes place.
        truth: What must hold.
    """

    def __init__(self, choices: Choices | int, *, most: int = 40) -> None:
        drawn = Choices.from_seed(choices) if isinstance(choices, int) else choices
        repairs = drawn.chance(50)
        self.truth = CallTruth(repairs=repairs)
        self.simulation = Simulation(drawn, invariants=[self.truth])
        self.simulation.world.seed = choices if isinstance(choices, int) else None
        self._choices = drawn
        self._most = most
        self._lives = 0
        self._happened: dict[str, int] = {}
        self._client = ClientConfig(
            backoff_base=0.2,
            backoff_cap=2.0,
            connect_timeout=5.0,
            command_timeout=8.0 if repairs else 1e6,
            queue_size=drawn.pick((100, 8)) if repairs else 1000,
        )
        negotiation = NegotiationConfig(
            connect_timeout=10.0 if repairs else None, restart_interval=2.0, max_interval=8.0, max_restarts=2
        )
        self._mesh = MeshConfig(peer_ttl=_PEER_TTL, negotiation=negotiation)
        self._server = ServerConfig(
            node=NodeConfig(
                websocket_heartbeat=5.0,
                retry_after=1,
                router=RouterConfig(idle_timeout=10.0, idempotency_window=30.0),
                signaling=SignalingConfig(peer_ttl=_PEER_TTL, room_ttl=4.0, max_held=drawn.pick((256, 4))),
            ),
            websocket=WEBSOCKET,
            max_backlog=drawn.pick((2**16, 4000)),
            max_waiting=drawn.pick((100, 8)),
        )
        self._backward = drawn.weighted(((5, 0), (2, 1), (1, 4)))
        self._actions = (
            (10, self._need),
            (5, self._fail),
            (3, self._break),
            (4, self._leave),
            (5, self._enter),
            (3, self._reload),
            (10, self._cut),
            (4, self._stall),
            (4, self._freeze),
            (4, self._change_address),
            (3, self._crash),
            (2, self._drain),
            (1, self._close_room),
            (1, self._jump),
            (1, self._come),
            (1, self._go),
            (3, self._wait),
        )

    def run(self, *, digest: bool = False) -> CallReport:
        """Let everything happen, and see whether all holds that must.

        Args:
            digest: Whether the report has one, which takes its time.

        Raises:
            SimulationFailure: Something does not.
        """
        simulation, choices = self.simulation, self._choices
        simulation.add_server("s", config=self._server, skew=float(choices.below(3)) * 1000.1)
        for _ in range(choices.between(2, 3)):
            self._come()
            simulation.run_for(choices.pick((0.0, 0.0, 1.0)))
        most = choices.weighted(((5, 6), (4, 15), (1, self._most)))
        for _ in range(choices.between(min(2, most), most)):
            action = choices.weighted(self._actions)
            name = action.__name__[1:]
            self._happened[name] = self._happened.get(name, 0) + 1
            action()
            simulation.run_for(choices.pick((0.0, 0.05, 0.3, 1.0, 3.0)))
        simulation.rest()
        self._settle()
        for caller in self._callers():
            if choices.chance(50):
                caller.quit()
                simulation.run_for(choices.pick((0.0, 1.0)))
        for caller in self._callers():
            caller.vanish(silently=False)
        simulation.empty()
        return self._report(digest)

    def _settle(self) -> None:
        """Wait until everybody is connected to everybody else, for good."""
        simulation = self.simulation
        until, quiet_since = simulation.now + _WITHIN, simulation.now
        while simulation.now - quiet_since < _QUIET:
            simulation.run_for(1.0)
            unrest = self.truth.unrest()
            if unrest is not None:
                quiet_since = simulation.now
                if simulation.now > until:
                    raise simulation.world.fail("connected", f"after {_WITHIN:g} seconds without faults, {unrest}")
        self.truth.check_rest()

    def _report(self, digest: bool) -> CallReport:
        simulation, truth = self.simulation, self.truth
        return CallReport(
            steps=simulation.world.scheduler.steps,
            seconds=simulation.now,
            said=len(truth.signals),
            heard=truth.heard,
            refused=truth.refused,
            recovered=truth.recovered,
            connected=truth.connected,
            happened=self._happened,
            digest=simulation.world.trace.digest() if digest else "",
        )

    # Who

    def _callers(self) -> list[Caller]:
        return [caller for caller in self.truth.callers.values() if not caller.ended]

    def _caller(self) -> Caller | None:
        awake = [caller for caller in self._callers() if not caller.frozen]
        return self._choices.pick(awake) if awake else None

    def _pair(self) -> tuple[Caller, str] | None:
        pairs = [(caller, other) for caller in self._callers() if not caller.frozen for other in caller.connections]
        return self._choices.pick(pairs) if pairs else None

    def _come(self) -> None:
        choices, count = self._choices, len(self.truth.callers)
        if count < 4:
            carries = count == 0 or not choices.chance(20)
            user_id = None if choices.chance(20) else "abcd"[count]
            self._load("abcd"[count], user_id, rollback=count >= self._backward, carries=carries).enter(anew=True)

    def _load(self, peer_id: str, user_id: str | None, *, rollback: bool, carries: bool) -> Caller:
        """Let a page be loaded."""
        self._lives += 1
        caller = Caller(
            self.truth,
            f"{peer_id}.{self._lives}",
            peer_id,
            user_id=user_id,
            rollback=rollback,
            carries=carries,
            config=self._client,
            mesh=self._mesh,
            patient=self.truth.repairs,
            skew=float(self._choices.below(3)) * 77.7,
        )
        self.truth.callers[peer_id] = caller
        self.simulation.clients.append(caller)
        caller.connect()
        return caller

    # What they do

    def _need(self) -> None:
        pair = self._pair()
        if pair is None:
            return
        self.truth.need(*pair)
        caller, other = pair
        back = self.truth.callers.get(other)
        if back is not None and self._choices.chance(50) and caller.peer_id in back.connections:
            # At the same time, so that their offers cross.
            self.truth.need(back, caller.peer_id)

    def _leave(self) -> None:
        caller = self._caller()
        if caller is not None and caller.wanted:
            caller.quit()

    def _enter(self) -> None:
        away = [caller for caller in self._callers() if not caller.wanted and not caller.frozen]
        if away:
            self._choices.pick(away).enter(anew=self._choices.chance(50))

    def _reload(self) -> None:
        caller = self._caller()
        if caller is None:
            return
        peer_id = caller.peer_id
        if caller.user_id is None:
            # Nobody knows that it is the same person.
            del self.truth.callers[peer_id]
            peer_id = f"{peer_id[0]}{self._lives}"
        caller.vanish(silently=self._choices.chance(50))
        self.simulation.run_for(self._choices.pick((0.1, 0.0, 2.0)))
        page = self._load(peer_id, caller.user_id, rollback=caller.rollback, carries=caller.carries)
        page.enter(anew=True)

    def _go(self) -> None:
        caller = self._caller()
        if caller is not None and len(self._callers()) > 2:
            caller.vanish(silently=self._choices.chance(50))

    def _wait(self) -> None:
        self.simulation.run_for(self._choices.seconds(1.0, 15.0))

    # What goes wrong

    def _fail(self) -> None:
        pair = self._pair()
        if pair is not None:
            self.truth.fail(*pair)

    def _break(self) -> None:
        pair = self._pair()
        if pair is not None:
            self.truth.break_down(*pair)

    def _cut(self) -> None:
        links = self.simulation.network.links()
        if links:
            self.simulation.network.cut(self._choices.pick(links), self._choices.pick(_CUTS))

    def _stall(self) -> None:
        links = self.simulation.network.links()
        if links:
            self.simulation.network.stall(self._choices.pick(links), self._choices.seconds(0.1, 5.0))

    def _freeze(self) -> None:
        choices, simulation = self._choices, self.simulation
        running = [server for server in simulation.servers if server.running]
        machine = choices.pick([*self._callers(), *running])
        machine.freeze()
        seconds = choices.pick((0.5, 3.0, _PEER_TTL, 2 * _PEER_TTL))
        simulation.world.scheduler.after(seconds, machine.thaw)

    def _change_address(self) -> None:
        self._choices.pick(self._callers()).change_address()

    def _up(self) -> SimulatedServer | None:
        [server] = self.simulation.servers
        return server if server.running and not server.frozen else None

    def _crash(self) -> None:
        [server] = self.simulation.servers
        if server.running:
            server.crash(silently=self._choices.chance(40))
            self._start_again(server, least=0.0)

    def _drain(self) -> None:
        server = self._up()
        if server is not None:
            server.drain()
            self.simulation.world.scheduler.after(self._choices.seconds(0.0, 1.0), server.stop)
            self._start_again(server, least=1.0)

    def _start_again(self, server: SimulatedServer, *, least: float) -> None:
        def start() -> None:
            if not server.running:
                server.start()

        self.simulation.world.scheduler.after(least + self._choices.seconds(0.0, 5.0), start)

    def _close_room(self) -> None:
        server = self._up()
        signaling = None if server is None else server.node.signaling
        if server is not None and signaling is not None:
            server.note("closes the room")
            closed = signaling.close(ROOM_ID, now=server.now(), timestamp=server.timestamp())
            if isinstance(closed, list):
                server.perform([*closed])
                server.settle()

    def _jump(self) -> None:
        self._choices.pick([*self._callers(), *self.simulation.servers]).jump(self._choices.seconds(0.1, 30.0))


def run_call(seed: int, *, digest: bool = False) -> CallReport:
    """Run the call of a seed; see `CallScenario.run`."""
    return CallScenario(seed).run(digest=digest)
