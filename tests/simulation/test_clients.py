"""Simulated clients: what users can ask for, and what counts as a failure of the machines below them."""

from __future__ import annotations

import attrs
import pytest

from rtcore.client import Answered, Client, ClientConfig, Refused
from rtcore.errors import CloseCode
from rtcore.event_source import EventSourceConfig
from rtcore.node import NodeConfig
from rtcore.router import RouterConfig
from rtcore.simulation import (
    Cut,
    ServerConfig,
    SimulatedClient,
    SimulatedEventSource,
    SimulatedServer,
    SimulatedWebSocketClient,
    Simulation,
    SimulationFailure,
)
from rtcore.simulation.link import Socket, SocketHandler
from rtcore.websocket import WebSocketConfig


def calm(*, config: ServerConfig | None = None) -> tuple[Simulation, SimulatedServer]:
    simulation = Simulation()
    simulation.world.faulty = False
    return simulation, simulation.add_server("s", config=config)


def add(simulation: Simulation, kind: str, *, connected: bool = True) -> SimulatedClient:
    """Add a client of one of the two kinds, which wants to hear ``chat``."""
    client: SimulatedClient
    if kind == "stream":
        config = EventSourceConfig(idle_timeout=60.0)
        client = simulation.add_event_source("ann", user_id="ann", channels=["chat"], config=config)
    else:
        client = simulation.add_websocket_client("ann", user_id="ann")
        client.join("chat")
    if connected:
        simulation.run_for(1.0)
        assert client.connected
    return client


both = pytest.mark.parametrize("kind", ["socket", "stream"])


@both
def test_a_client_hears_its_channels_until_it_disconnects(kind: str) -> None:
    simulation, server = calm()
    ann = add(simulation, kind)
    assert ann.channels == ("chat",)
    server.publish("chat", simulation.numbered("s"))
    simulation.run_for(1.0)
    assert [message["n"] for message in ann.heard if "n" in message] == [1]
    ann.connect()
    assert ann.connected
    ann.disconnect()
    ann.disconnect()
    simulation.run_for(1.0)
    assert ann.ended
    assert not ann.connected
    assert server.connections == {}
    # Nobody waits for it.
    simulation.rest()
    simulation.empty()


@both
def test_a_client_that_is_cut_off_comes_back(kind: str) -> None:
    simulation, server = calm()
    ann = add(simulation, kind)
    ann.change_address()
    simulation.run_for(0.1)
    assert not ann.connected
    server.publish("chat", simulation.numbered("s"))
    simulation.rest()
    assert ann.reconnects == 1
    assert [message["n"] for message in ann.heard if "n" in message] == [1]


@both
def test_it_may_give_up_before_it_is_connected(kind: str) -> None:
    simulation, server = calm()
    ann = add(simulation, kind, connected=False)
    simulation.run_for(0.03)
    ann.disconnect()
    simulation.run_for(1.0)
    assert ann.ended
    assert server.connections == {}


@both
def test_a_frozen_client_does_what_is_due_when_it_thaws(kind: str) -> None:
    simulation, server = calm()
    ann = add(simulation, kind)
    server.crash(silently=True)
    ann.freeze()
    ann.freeze()
    simulation.run_for(200.0)
    assert ann.connected
    ann.thaw()
    ann.thaw()
    simulation.run_for(0.0)
    assert not ann.connected
    server.start()
    simulation.rest()


@both
def test_a_clock_may_jump(kind: str) -> None:
    simulation, server = calm()
    ann = add(simulation, kind)
    before = ann.now(), ann.timestamp()
    ann.jump(3.0)
    ann.set_wall_clock(-10.0)
    assert ann.now() == pytest.approx(before[0] + 3.0)
    assert ann.timestamp() == before[1] - 10_000
    server.jump(30.0)
    simulation.rest()


@both
def test_a_small_link_takes_a_request_in_parts(kind: str) -> None:
    simulation, _ = calm()
    ann = add(simulation, kind, connected=False)
    for link in simulation.network._links:
        link.quality = attrs.evolve(link.quality, capacity=50)
    simulation.rest()
    assert ann.connected


@both
def test_a_deadline_in_the_past_is_a_failure(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    simulation, _ = calm()
    ann = add(simulation, kind)
    assert isinstance(ann, SimulatedWebSocketClient | SimulatedEventSource)
    at = ann.now()
    monkeypatch.setattr(type(ann.machine), "next_timeout", lambda machine: at)
    with pytest.raises(SimulationFailure, match="no_deadline_in_the_past: ann has one at"):
        ann.handle_timeout()


@both
def test_a_server_that_is_not_understood_is_a_failure(kind: str) -> None:
    simulation, server = calm()
    add(simulation, kind)
    if kind == "stream":
        _reconnect_to(simulation, b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n")
    else:
        [connection] = server.connections.values()
        connection._write(b"\x81\x01x")
    with pytest.raises(SimulationFailure, match="protocol: ann does not understand the server"):
        simulation.run_for(10.0)


class _Answering(SocketHandler):
    """Says something to whoever connects."""

    def __init__(self, socket: Socket, data: bytes) -> None:
        self._socket = socket
        self._data = data

    def connected(self) -> None: ...

    def receive_data(self, data: bytes) -> None:
        self._socket.write(self._data)

    def receive_eof(self) -> None: ...

    def receive_reset(self) -> None: ...

    def writable(self) -> None: ...


def _reconnect_to(simulation: Simulation, data: bytes) -> None:
    [client] = simulation.clients
    server = simulation.servers[0]
    server.accept = lambda socket: _Answering(socket, data)  # type: ignore[method-assign]
    client.change_address()


# On an event stream


def test_an_event_source_may_be_turned_away() -> None:
    simulation, _ = calm(config=ServerConfig(node=NodeConfig(max_connections=1, retry_after=3)))
    first = simulation.add_event_source("ann")
    simulation.run_for(1.0)
    second = simulation.add_event_source("bob")
    simulation.run_for(2.0)
    assert (first.connected, second.connected, second.ended) == (True, False, False)
    first.disconnect()
    simulation.rest()
    assert second.connected


def test_a_dropped_response_is_not_read() -> None:
    simulation, _ = calm()
    ann = add(simulation, "stream")
    _reconnect_to(simulation, b"HTTP/1.1 503 No\r\n\r\ndata: what is this?\n\n")
    simulation.run_for(10.0)
    assert not ann.connected
    assert not ann.ended


# On a WebSocket


def test_outcomes() -> None:
    simulation, _ = calm()
    ann, bob = (simulation.add_websocket_client(name, user_id=name) for name in ("ann", "bob"))
    simulation.run_for(1.0)
    joined, refused = ann.join("chat", color="red"), ann.join("$other")
    ann.publish({"type": "message", "recipient_id": "bob", "text": "no number"})
    numbered = simulation.publish(ann, channel="chat")
    asked = ann.request("get_presence", channel="chat")
    assert ann.busy
    simulation.run_until(lambda: not ann.busy)
    assert isinstance(joined.outcome, Answered)
    assert isinstance(refused.outcome, Refused)
    assert isinstance(numbered.outcome, Answered)
    assert asked.outcome is not None
    assert ann.channels == ("chat",)
    # Another join that is refused takes nothing away.
    again = ann.join("chat", filters="none of these")
    simulation.run_for(1.0)
    assert isinstance(again.outcome, Refused)
    assert ann.channels == ("chat",)
    heard = simulation.sequences.heard
    simulation.publish(ann, channel="chat")
    simulation.run_for(1.0)
    assert simulation.sequences.heard == heard + 1
    assert [message.get("text") for message in bob.heard] == ["no number"]
    left = ann.leave("chat")
    simulation.run_until(lambda: not ann.busy)
    assert isinstance(left.outcome, Answered)
    simulation.rest()
    simulation.empty()


def test_a_refused_publication() -> None:
    simulation, _ = calm()
    ann = simulation.add_websocket_client("ann")
    call = simulation.publish(ann, channel="$broadcast")
    simulation.run_until(lambda: not ann.busy)
    assert isinstance(call.outcome, Refused)
    assert simulation.publishing.refused == {call.outcome.code: 1}
    simulation.rest()


def test_a_join_again_that_is_refused_is_forgotten() -> None:
    simulation, server = calm()
    ann = simulation.add_websocket_client("ann", user_id="ann")
    for channel in ("a", "b"):
        ann.join(channel)
    simulation.run_for(1.0)
    server.crash(silently=False)
    server.config = ServerConfig(node=NodeConfig(router=RouterConfig(max_channels=1)))
    server.start()
    simulation.rest()
    assert ann.channels == ("a",)
    server.publish("b", simulation.numbered("s"))
    simulation.rest()


def test_what_is_said_on_a_connection_that_is_closing_is_lost() -> None:
    simulation, server = calm()
    ann = simulation.add_websocket_client("ann", user_id="ann")
    simulation.run_for(1.0)
    link = ann._link
    assert link is not None
    link.drop(CloseCode.GOING_AWAY, "")
    link.drop(CloseCode.GOING_AWAY, "")
    link.send("lost")
    simulation.rest()
    assert ann.reconnects == 1
    assert server.connections.keys() == {ann.connection_id}


def test_an_outcome_of_nothing_is_a_failure() -> None:
    simulation, _ = calm()
    ann = simulation.add_websocket_client("ann")
    with pytest.raises(SimulationFailure, match=r"outcomes: ann was told .*, of what it has not asked or was told"):
        ann.perform([Answered("unheard-of", {})])


def test_an_end_with_open_questions_is_a_failure() -> None:
    simulation, _ = calm()
    ann = simulation.add_websocket_client("ann")
    call = ann.request("get_presence", channel="chat")
    # The machine has forgotten it.
    ann.machine = Client(ClientConfig(), random=lambda: 0.0, session="another session")
    with pytest.raises(SimulationFailure, match=f"outcomes: ann has ended with \\['{call.id}'\\] open"):
        ann.disconnect()


def test_a_request_that_does_not_arrive_whole_is_made_again() -> None:
    simulation, server = calm()
    ann = simulation.add_websocket_client("ann")
    simulation.run_for(0.05)
    [link] = simulation.network.links()
    link.far.truncate(10)
    simulation.rest()
    assert server.connections.keys() == {ann.connection_id}


def test_a_request_that_takes_too_long_is_made_again() -> None:
    simulation, server = calm(config=ServerConfig(websocket=WebSocketConfig(handshake_timeout=1.0)))
    ann = simulation.add_websocket_client("ann")
    simulation.run_for(0.05)
    [link] = simulation.network.links()
    at, _ = link.far._inbox.pop()
    # The rest of it never comes.
    link.far._inbox.append((at, b"GET /ws"))
    simulation.rest()
    assert any("status 408" in line for line in simulation.world.trace.lines())
    assert server.connections.keys() == {ann.connection_id}


def test_pongs_are_nothing_to_the_client() -> None:
    simulation, server = calm()
    ann = simulation.add_websocket_client("ann")
    simulation.run_for(1.0)
    [connection] = server.connections.values()
    connection._write(b"\x8a\x00")
    simulation.run_for(1.0)
    assert ann.connected
    assert ann.heard == []


def test_what_a_client_may_choose() -> None:
    simulation, server = calm()
    other = simulation.add_server("z")
    ann = simulation.add_websocket_client("ann", servers=[server])
    eve = simulation.add_event_source("eve", servers=[other])
    simulation.run_for(1.0)
    assert (ann.server, eve.server) == (server, other)
    ann.servers = [other]
    ann.change_address()
    simulation.run_for(5.0)
    assert ann.server is other
    assert repr(ann) == "ann"


@pytest.mark.parametrize("how", list(Cut))
def test_every_cut_is_survived(how: Cut) -> None:
    simulation, server = calm()
    ann = add(simulation, "socket")
    [link] = simulation.network.links()
    simulation.network.cut(link, how)
    server.publish("chat", simulation.numbered("s"))
    simulation.rest()
    assert [message["n"] for message in ann.heard if "n" in message] == [1]


def test_nobody_is_there() -> None:
    simulation, server = calm()
    server.crash(silently=False)
    ann = simulation.add_websocket_client("ann")
    eve = simulation.add_event_source("eve")
    simulation.run_for(5.0)
    assert not ann.connected
    assert not eve.connected
    server.start()
    simulation.rest()


def test_what_comes_after_the_goodbye_is_not_heard() -> None:
    simulation, server = calm()
    ann = simulation.add_websocket_client("ann")
    simulation.run_for(1.0)
    ann.disconnect()
    server.broadcast(simulation.numbered("s"))
    simulation.run_for(1.0)
    assert ann.heard == []
    simulation.empty()


def test_a_client_writes_the_rest_when_there_is_room() -> None:
    simulation, _ = calm()
    ann = simulation.add_websocket_client("ann")
    simulation.run_for(1.0)
    [link] = simulation.network.links()
    link.quality = attrs.evolve(link.quality, capacity=50)
    calls = [simulation.publish(ann, channel="chat") for _ in range(5)]
    simulation.rest()
    assert all(isinstance(call.outcome, Answered) for call in calls)
