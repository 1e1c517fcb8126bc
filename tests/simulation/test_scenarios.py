"""What scenarios are made of: choices, clocks, the trace, and things that may happen at any time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from math import inf, nextafter

import pytest

from rtcore.rate_limit import RateLimitConfig
from rtcore.simulation import Choices, Scenario, Simulation, SimulationFailure, Trace, World, run
from rtcore.simulation.choices import Generator
from rtcore.simulation.machine import Machine
from rtcore.simulation.scenario_config import CLIENT
from rtcore.simulation.scheduler import Scheduler

# Choices


def test_the_generator_is_splitmix64() -> None:
    # The first numbers of the reference implementation, for the seed 1234567.
    generator = Generator(1234567)
    assert [generator.bits() for _ in range(3)] == [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert all(0 <= Generator(seed).random() < 1 for seed in range(100))


def test_what_is_drawn_is_what_is_chosen() -> None:
    drawn: list[int] = []

    def draw(limit: int) -> int:
        drawn.append(limit)
        return limit - 1

    choices = Choices(draw)
    assert (choices.below(5), choices.below(1), choices.between(3, 7)) == (4, 0, 7)
    assert (choices.chance(1), choices.chance(0)) == (True, False)
    assert choices.seconds(1.0, 2.0) == 2.0
    assert choices.pick("abc") == "c"
    assert choices.weighted(((1, "a"), (2, "b"))) == "b"
    assert drawn == [5, 5, 100, 1001, 3, 3]


@pytest.mark.parametrize(("drawn", "chosen"), [(0, "a"), (1, "b"), (2, "b"), (3, "c")])
def test_weights(drawn: int, chosen: str) -> None:
    assert Choices(lambda limit: drawn).weighted(((1, "a"), (2, "b"), (1, "c"))) == chosen


def test_noise_is_not_drawn() -> None:
    choices, same = (Choices(lambda limit: 0, noise=5) for _ in range(2))
    assert [len(choices.entropy(size)) for size in (0, 4, 8, 9, 16)] == [0, 4, 8, 9, 16]
    assert 0 <= choices.random() < 1
    assert same.entropy(8) != same.entropy(8)


# Time


def test_events_happen_in_the_order_of_their_time_and_making() -> None:
    scheduler, happened = Scheduler(), []
    for time, name in ((2.0, "c"), (1.0, "a"), (1.0, "b"), (-5.0, "now")):
        scheduler.at(time, lambda name=name: happened.append(name))  # type: ignore[misc]
    while scheduler.next_at() is not None:
        scheduler.step()
    assert happened == ["now", "a", "b", "c"]
    assert (scheduler.now, scheduler.steps) == (2.0, 4)


class Alarm(Machine):
    """Has one thing to do."""

    def __init__(self, world: World, at: float | None, *, skew: float) -> None:
        super().__init__(world, "alarm", skew=skew)
        self.at = at
        self.rang_at: list[float] = []

    def next_timeout(self) -> float | None:
        return self.at

    def handle_timeout(self) -> None:
        self.rang_at.append(self.now())
        self.at = None


@pytest.mark.parametrize("skew", [0.0, 0.1, 1000.1, 2000.2, 77.7, 1e9 + 0.1])
@pytest.mark.parametrize("at", [0.3, 1.1, 2.7])
def test_an_alarm_never_rings_early(skew: float, at: float) -> None:
    world = World(Choices.from_seed(0))
    alarm = Alarm(world, skew + at, skew=skew)
    alarm.rekey()
    world.scheduler.step()
    assert world.scheduler.next_at() is None
    [rang_at] = alarm.rang_at
    assert skew + at <= rang_at == pytest.approx(skew + at)


def test_an_alarm_whose_difference_is_rounded_down() -> None:
    # By this clock it is not time yet, at the time that the subtraction gives.
    skew, due = 0.1, nextafter(0.1, inf)
    found = next(_rounded_down(skew, due))
    world = World(Choices.from_seed(0))
    alarm = Alarm(world, found, skew=skew)
    alarm.rekey()
    world.scheduler.step()
    [rang_at] = alarm.rang_at
    assert found <= rang_at == pytest.approx(found)


def _rounded_down(skew: float, due: float) -> Iterator[float]:
    while True:
        if (due - skew) + skew < due:
            yield due
        due = nextafter(due * 1.001, inf)


def test_an_alarm_that_moves() -> None:
    world = World(Choices.from_seed(0))
    alarm = Alarm(world, 1.0, skew=0.0)
    alarm.rekey()
    alarm.at = 5.0
    alarm.rekey()
    alarm.at = 3.0
    alarm.rekey()
    while world.scheduler.next_at() is not None:
        world.scheduler.step()
    assert alarm.rang_at == [3.0]


def test_an_alarm_that_a_jump_passes() -> None:
    world = World(Choices.from_seed(0))
    alarm = Alarm(world, 10.0, skew=0.0)
    alarm.rekey()
    alarm.jump(8.0)
    while world.scheduler.next_at() is not None:
        world.scheduler.step()
    assert alarm.rang_at == [10.0]
    assert len(world.trace) == 1


def test_a_frozen_alarm_rings_late() -> None:
    world = World(Choices.from_seed(0))
    alarm = Alarm(world, 1.0, skew=0.0)
    alarm.rekey()
    alarm.freeze()
    world.scheduler.step()
    assert alarm.rang_at == []
    world.scheduler.now = 7.0
    alarm.thaw()
    world.scheduler.step()
    assert alarm.rang_at == [7.0]


# The trace


def test_the_trace_is_for_people_and_machines() -> None:
    trace = Trace()
    trace.add(1.5, "ann", "says", ("hello", 1))
    trace.add(2.0, "ann", "shouts", "x" * 1000)
    assert len(trace) == 2
    first, second = trace.lines()
    assert first == "t=1.500000 ann says ('hello', 1)"
    assert second.startswith("t=2.000000 ann shouts xxx")
    assert (len(second), second[-1]) == (400, "…")
    assert trace.lines(1) == [second]
    other = Trace()
    other.add(1.5, "ann", "says", ("hello", 1))
    other.add(2.0, "ann", "shouts", "x" * 1000)
    assert trace.digest() == other.digest()
    # All of a line counts.
    third = Trace()
    third.add(1.5, "ann", "says", ("hello", 1))
    third.add(2.0, "ann", "shouts", "x" * 999 + "y")
    assert trace.digest() != third.digest()
    assert str(SimulationFailure("name", "why", seed=None, trace=trace)).startswith("name: why\n\nThe last of 2 lines:")


# What may happen


def actions(scenario: Scenario) -> list[Callable[[], None]]:
    return [action for _, action in scenario._actions]


def scenario(seed: int = 0) -> Scenario:
    made = Scenario(seed)
    made.simulation.world.faulty = False
    made.simulation.add_server("s", config=made._node)
    return made


def names(made: Scenario) -> list[str]:
    return [action.__name__ for action in actions(made)]


@pytest.mark.parametrize("name", [name for name in names(Scenario(0)) if name not in ("_come", "_wait")])
def test_it_may_happen_where_nobody_is(name: str) -> None:
    made = scenario()
    getattr(made, name)()
    assert made.simulation.clients == []
    made.simulation.rest()


@pytest.mark.parametrize("name", names(Scenario(0)))
def test_it_may_happen_while_everybody_sleeps(name: str) -> None:
    made = scenario()
    for _ in range(3):
        made._come()
    made.simulation.run_for(1.0)
    for machine in (*made.simulation.clients, *made.simulation.servers):
        machine.freeze()
    getattr(made, name)()
    made.simulation.rest()
    made.simulation.empty()


@pytest.mark.parametrize("name", names(Scenario(0)))
def test_it_may_happen_while_the_server_is_away(name: str) -> None:
    made = scenario(1)
    for _ in range(3):
        made._come()
    made.simulation.run_for(1.0)
    made.simulation.servers[0].crash(silently=False)
    for _ in range(4):
        getattr(made, name)()
    made.simulation.rest()
    made.simulation.empty()


def test_no_more_may_come_than_there_are_names() -> None:
    made = scenario()
    for _ in range(20):
        made._come()
    assert len(made.simulation.clients) == 8
    made.simulation.rest()


def test_who_has_too_much_to_say_while_offline_is_told() -> None:
    made = scenario()
    made.simulation.servers[0].crash(silently=False)
    while made._websocket_client() is None:
        made._come()
    made.simulation.run_for(1.0)
    for _ in range(10):
        made._burst()
    for action in (made._publish, made._join):
        before = len(made.simulation.world.trace)
        for _ in range(5):
            action()
        assert any("has too much to say" in line for line in made.simulation.world.trace.lines()[before:])
    made.simulation.rest()


def test_a_flood_ends_with_its_server() -> None:
    made = scenario()
    made._come()
    simulation = made.simulation
    simulation.run_for(1.0)
    [server] = simulation.servers
    simulation.world.scheduler.after(0.05, lambda: server.crash(silently=False))
    for _ in range(10):
        made._flood()
    assert not server.running
    simulation.rest()


@pytest.mark.parametrize("name", ["_chatter", "_look_back"])
def test_who_falls_asleep_says_no_more(name: str) -> None:
    made = scenario(next(seed for seed in count() if _holds(Scenario(seed))))
    simulation = made.simulation
    ann = simulation.add_websocket_client("ann", config=CLIENT)
    simulation.run_for(1.0)
    for _ in range(3):
        simulation.servers[0].publish("chat:1", simulation.numbered("s"))
    # Pages of one publication, from the first on; each takes 0.04 seconds.
    made._choices = Choices(lambda limit: 3 if limit == 4 else 0)
    simulation.world.scheduler.after(0.06, ann.freeze)
    getattr(made, name)()
    assert ann.frozen
    assert simulation.pages.shown == (name == "_look_back")
    simulation.rest()


def _holds(made: Scenario) -> bool:
    """Tell whether servers hold some publications, and let clients talk as fast as they like."""
    node = made._node.node
    return node.router.namespaces.default.history_size >= 4 and node.rate_limits == RateLimitConfig()


def test_nobody_is_there_to_freeze() -> None:
    made = scenario()
    made.simulation.servers[0].crash(silently=True)
    made._freeze()
    made.simulation.rest()


def test_two_tabs_of_which_one_is_full_or_asleep() -> None:
    made = scenario()
    simulation = made.simulation
    tabs = [simulation.add_websocket_client(name, user_id="ann", config=CLIENT) for name in ("ann", "tab")]
    simulation.run_for(1.0)
    simulation.servers[0].crash(silently=False)
    simulation.run_for(1.0)
    for _ in range(60):
        made._say_in_two_tabs()
    assert any("has too much to say" in line for line in simulation.world.trace.lines())
    tabs[1].freeze()
    made._say_in_two_tabs()
    simulation.rest()


def test_who_is_last_does_not_go() -> None:
    made = scenario()
    for _ in range(2):
        made._come()
    for _ in range(5):
        made._go()
    assert len(made._clients()) == 1


def test_a_server_is_started_once() -> None:
    made = scenario()
    [server] = made.simulation.servers
    server.crash(silently=True)
    for _ in range(2):
        made._start_again(server)
    made.simulation.run_for(10.0)
    assert server.lives == 2


def test_choices_may_come_from_elsewhere() -> None:
    simulation = Simulation(Choices(lambda limit: 0))
    assert simulation.world.fail("name", "why").seed is None


@pytest.mark.parametrize("seed", [38, 136, 327])
def test_what_seldom_happens(seed: int) -> None:
    """Somebody clicks twice who has said too much, reads a history to its last page, asks for too many pages."""
    run(seed)
