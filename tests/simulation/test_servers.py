"""Simulated servers: their lives, their application, and what they make of whoever connects."""

from __future__ import annotations

from typing import Any

import attrs
import msgspec
import pytest

from rtcore.errors import CommandError, Refusal
from rtcore.event_stream import Event, EventStreamParser
from rtcore.messages import Message
from rtcore.namespaces import Namespace, Namespaces
from rtcore.node import NodeConfig
from rtcore.rate_limit import RateLimit, RateLimitConfig
from rtcore.router import Published, RouterConfig
from rtcore.simulation import (
    Sender,
    ServerConfig,
    SimulatedServer,
    SimulatedWebSocketClient,
    Simulation,
    SimulationFailure,
)
from rtcore.simulation.link import Socket
from rtcore.websocket import WebSocket, WebSocketConfig

from .ends import End, Idle


def calm(**config: Any) -> tuple[Simulation, SimulatedServer]:
    """Return a simulation without faults, with one server that differs from others so."""
    simulation = Simulation()
    simulation.world.faulty = False
    server = simulation.add_server("s", config=ServerConfig(**config))
    return simulation, server


def connect(simulation: Simulation, server: SimulatedServer, data: bytes) -> tuple[End, Socket]:
    """Connect a machine that says `data`, and see what comes of it."""
    end = End()
    socket = simulation.network.connect(Idle(simulation.world, "stranger"), server, end)
    simulation.run_for(0.1)
    socket.write(data)
    simulation.run_for(0.1)
    assert end.told[0] == "connected"
    return end, socket


def upgrade(simulation: Simulation) -> bytes:
    """Return the request for a WebSocket."""
    _, effects = WebSocket.client(
        WebSocketConfig(), host="s", target="/ws", entropy=simulation.world.choices.entropy, now=0.0
    )
    return b"".join(effect.data for effect in effects if hasattr(effect, "data"))


# Lives


def test_who_is_down_is_neither_crashed_nor_drained_nor_stopped() -> None:
    simulation, server = calm()
    server.crash(silently=False)
    steps = len(simulation.world.trace)
    server.crash(silently=True)
    server.drain()
    server.stop()
    assert len(simulation.world.trace) == steps
    assert not server.running
    assert server.next_timeout() is None
    server.start()
    assert server.life == "s2"


def test_a_drained_server_says_goodbye_and_takes_nobody() -> None:
    simulation, server = calm()
    ann = simulation.add_websocket_client("ann")
    eve = simulation.add_event_source("eve")
    simulation.run_for(1.0)
    assert ann.connected
    assert eve.connected
    server.drain()
    simulation.run_for(0.1)
    assert not ann.connected
    assert not eve.connected
    # Both are turned away, each in its way, until another server is there.
    simulation.run_for(2.0)
    assert server.connections == {}
    end, _ = connect(simulation, server, b"GET /events HTTP/1.1\r\n\r\n")
    assert end.data.startswith(b"HTTP/1.1 503 No\r\nretry-after: ")
    assert end.told[-1] == "eof"
    server.stop()
    server.start()
    simulation.rest()
    assert ann.connected
    assert eve.connected
    simulation.empty()


def test_rest_ends_a_server_that_drains() -> None:
    simulation, server = calm()
    server.drain()
    simulation.add_server("z").crash(silently=True)
    simulation.rest()
    assert [each.lives for each in simulation.servers] == [2, 2]
    assert not server.node.draining


# The application


def test_publications_of_the_application() -> None:
    simulation, server = calm()
    ann = simulation.add_websocket_client("ann", user_id="ann")
    ann.join("chat")
    simulation.run_for(1.0)
    published = [
        server.publish("chat", simulation.numbered("s")),
        server.publish_to_user("ann", simulation.numbered("s")),
        server.broadcast(simulation.numbered("s")),
    ]
    assert all(isinstance(each, Published) for each in published)
    simulation.run_for(1.0)
    assert [message["n"] for message in ann.heard if "n" in message] == [1, 2, 3]


def test_a_publication_that_is_refused() -> None:
    small = RouterConfig(namespaces=Namespaces((), Namespace(pattern="*", max_message_size=100)))
    _, server = calm(node=NodeConfig(router=small))
    refusal = server.publish("chat", {"type": "message", "text": "x" * 100})
    assert isinstance(refusal, Refusal)
    assert refusal.code == "message_too_large"


def test_handlers_answer_or_refuse() -> None:
    senders: list[Sender] = []

    def double(message: Message, sender: Sender) -> Message | None:
        senders.append(sender)
        number = message["number"]
        if not isinstance(number, int):
            raise CommandError("not_a_number", "it is to be a number")
        return {"number": 2 * number} if number else None

    simulation, server = calm()
    server.crash(silently=False)
    server.handlers["double"] = double
    server.start()
    ann = simulation.add_websocket_client("ann", user_id="ann")
    calls = [ann.publish({"type": "double", "number": number}) for number in (21, 0, "x")]
    simulation.run_for(1.0)
    answered, empty, refused = (call.outcome for call in calls)
    assert getattr(answered, "data", None) == {"number": 42}
    assert getattr(empty, "data", None) == {}
    assert getattr(refused, "code", None) == "not_a_number"
    assert senders == [Sender("s2c1", "ann")] * 3
    simulation.rest()


# Who connects


def test_a_request_in_pieces() -> None:
    simulation, server = calm()
    end, socket = connect(simulation, server, b"GET /events?channel=chat&channel=chat&user_id=eve HTTP/1.1\r\n")
    assert end.told == ["connected"]
    socket.write(b"last-event-id: x\r\n\r\n")
    socket.write(b"nobody reads this")
    simulation.run_for(0.1)
    head, _, body = end.data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    events = [each for each in EventStreamParser().receive_data(body) if isinstance(each, Event)]
    gaps = [msgspec.json.decode(each.data)["reason"] for each in events if each.event == "gap"]
    assert set(gaps) == {"invalid_token"}
    [connection] = server.connections.values()
    assert connection.user_id == "eve"
    connection.connected()
    socket.abort()
    simulation.run_for(0.1)
    assert server.connections == {}


def test_an_event_stream_ends_with_its_reader() -> None:
    simulation, server = calm()
    end, socket = connect(simulation, server, b"GET /events HTTP/1.1\r\n\r\n")
    assert len(server.connections) == 1
    socket.finish()
    simulation.run_for(0.1)
    assert server.connections == {}
    assert end.told[-1] == "reset"


@pytest.mark.parametrize("line", [b"GET /other HTTP/1.1", b"POST /events HTTP/1.1"])
def test_what_there_is_not(line: bytes) -> None:
    simulation, server = calm()
    end, _ = connect(simulation, server, line + b"\r\n\r\n")
    assert end.data == b"HTTP/1.1 404 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    assert end.told[-1] == "eof"
    assert server.next_timeout() is None


def test_a_head_that_does_not_end() -> None:
    simulation, server = calm()
    end, socket = connect(simulation, server, b"GET /" + bytes(10_000))
    assert end.told == ["connected"]
    socket.write(bytes(10_000))
    simulation.run_for(0.1)
    assert end.told == ["connected", "eof"]


def test_a_request_that_ends_too_early() -> None:
    simulation, server = calm()
    end, socket = connect(simulation, server, b"GET /")
    socket.finish()
    simulation.run_for(0.1)
    assert end.told == ["connected", "eof"]
    assert server.next_timeout() is None


def test_a_request_that_is_given_up() -> None:
    simulation, server = calm()
    end, socket = connect(simulation, server, b"GET /")
    assert server.next_timeout() is not None
    socket.abort()
    simulation.run_for(0.1)
    assert server.next_timeout() is None
    assert end.told == ["connected"]


def test_a_request_that_does_not_come() -> None:
    simulation, server = calm(websocket=WebSocketConfig(handshake_timeout=5.0))
    # Nothing has been written there, so there is no room to be told of.
    end = End()
    socket = simulation.network.connect(Idle(simulation.world, "stranger"), server, end)
    simulation.run_for(0.1)
    accepting = socket.peer.handler
    assert accepting is not None
    accepting.connected()
    accepting.writable()
    simulation.run_for(6.0)
    assert end.told == ["connected", "eof"]
    assert server.next_timeout() is None


def test_requests_may_have_no_time_limit() -> None:
    simulation, server = calm(websocket=WebSocketConfig(handshake_timeout=None))
    end, _ = connect(simulation, server, b"GET /")
    simulation.run_for(1000.0)
    assert end.told == ["connected"]


def test_half_a_request_for_a_websocket_is_not_answered() -> None:
    simulation, server = calm()
    end, socket = connect(simulation, server, upgrade(simulation)[:-1])
    socket.finish()
    simulation.run_for(0.1)
    assert end.data == b""
    assert end.told[-1] == "eof"
    assert server.connections == {}


def test_who_is_one_too_many_is_told_when_to_try_again() -> None:
    simulation, server = calm(node=NodeConfig(max_connections=1, retry_after=3))
    simulation.add_event_source("eve")
    simulation.run_for(1.0)
    end, _ = connect(simulation, server, upgrade(simulation))
    assert b'"retry_after":3' in end.data
    # A close frame with 1013, try again later.
    assert end.data[-40:].count(b"\x03\xf5") == 1
    assert list(server.connections) == ["s1c1"]


def test_who_is_thrown_out_and_closes_at_once_is_ended_once() -> None:
    limits = RateLimitConfig(connection=RateLimit(messages=1, message_burst=1), warnings=0)
    simulation, server = calm(node=NodeConfig(rate_limits=limits))
    end, socket = connect(simulation, server, upgrade(simulation))
    assert len(server.connections) == 1
    # Masked with nothing. The second message is too much, the third too late; and a close with 1000.
    frames = b"\x81\x82\x00\x00\x00\x00{}" * 3 + b"\x88\x82\x00\x00\x00\x00\x03\xe8"
    socket.write(frames)
    simulation.run_for(0.1)
    assert server.connections == {}
    assert end.data.count(b"\x88\x02\x03\xe8") == 1
    assert end.told[-1] == "eof"


def test_pongs_are_nothing_to_the_node_and_bytes_are_a_file_or_refused() -> None:
    simulation, server = calm()
    _, socket = connect(simulation, server, upgrade(simulation))
    before = len(simulation.world.trace)
    socket.write(b"\x8a\x80\x00\x00\x00\x00")
    simulation.run_for(0.1)
    assert len(simulation.world.trace) == before
    socket.write(b"\x82\x81\x00\x00\x00\x00x")
    simulation.run_for(0.1)
    assert len(server.connections) == 1
    assert len(simulation.world.trace) == before + 1


# Who reads slowly


def slow_client(simulation: Simulation, server: SimulatedServer) -> SimulatedWebSocketClient:
    """Return a client that is frozen, of whose link a thousand bytes are left."""
    ann = simulation.add_websocket_client("ann", user_id="ann")
    ann.join("chat")
    simulation.run_for(1.0)
    ann.freeze()
    [link] = simulation.network.links()
    link.quality = attrs.evolve(link.quality, capacity=1000)
    return ann


def fill(server: SimulatedServer, simulation: Simulation, count: int) -> None:
    for _ in range(count):
        server.publish("chat", simulation.numbered("s", text="x" * 300))


def test_what_waits_is_written_when_there_is_room() -> None:
    simulation, server = calm(max_waiting=20)
    ann = slow_client(simulation, server)
    fill(server, simulation, 10)
    [connection] = server.connections.values()
    assert connection.backlog
    ann.thaw()
    simulation.run_for(2.0)
    assert not connection.backlog
    assert [message["n"] for message in ann.heard if "n" in message] == list(range(1, 11))
    simulation.rest()


def test_for_whom_too_much_waits_is_ended_and_comes_back() -> None:
    simulation, server = calm(max_waiting=3)
    ann = slow_client(simulation, server)
    [connection] = server.connections.values()
    fill(server, simulation, 20)
    assert server.connections == {}
    assert not connection.backlog
    assert simulation.bounds.overflows == 1
    ann.thaw()
    simulation.run_for(5.0)
    assert [message["n"] for message in ann.heard if "n" in message] == list(range(1, 21))
    simulation.rest()
    assert ann.reconnects == 1


def test_a_goodbye_may_be_what_is_too_much() -> None:
    simulation, server = calm(max_waiting=3)
    ann = slow_client(simulation, server)
    [connection] = server.connections.values()
    while connection.backlog is None or len(connection.backlog) < 3:
        fill(server, simulation, 1)
    server.drain()
    assert server.connections == {}
    # It is ended once, by the node's will.
    assert simulation.bounds.overflows == 0
    ann.thaw()
    server.stop()
    server.start()
    simulation.rest()


def test_what_waits_is_written_before_the_goodbye() -> None:
    simulation, server = calm(max_waiting=20)
    ann = slow_client(simulation, server)
    fill(server, simulation, 8)
    [connection] = server.connections.values()
    assert connection.backlog
    server.drain()
    assert not connection.backlog
    ann.thaw()
    simulation.run_for(1.0)
    assert [message["n"] for message in ann.heard if "n" in message] == list(range(1, 9))
    assert not ann.connected


@pytest.mark.parametrize("path", [b"/ws", b"/events"])
def test_who_never_reads_is_waited_for_no_longer(path: bytes) -> None:
    simulation, server = calm()
    request = upgrade(simulation) if path == b"/ws" else b"GET /events HTTP/1.1\r\n\r\n"
    end, socket = connect(simulation, server, request)
    [link] = simulation.network.links()
    link.quality = attrs.evolve(link.quality, capacity=100)
    socket.owner.freeze()
    for _ in range(5):
        server.broadcast({"type": "broadcast", "text": "x" * 100})
    if path == b"/ws":
        # The peer's half has ended, but what is left to say to it is not taken.
        socket.finish()
    else:
        server.drain()
    simulation.run_for(1.0)
    assert not socket.peer.broken
    simulation.run_for(5.0)
    assert socket.peer.broken
    assert server.connections == {}
    socket.owner.thaw()
    simulation.run_for(1.0)
    assert end.told[-1] == "reset"


def test_who_does_not_answer_pings_is_ended() -> None:
    simulation, server = calm(websocket=WebSocketConfig(ping_interval=4.0, pong_timeout=4.0, close_timeout=2.0))
    end, _ = connect(simulation, server, upgrade(simulation))
    simulation.run_for(30.0)
    assert server.connections == {}
    assert end.told[-1] == "reset"


def test_a_deadline_in_the_past_is_a_failure() -> None:
    _, server = calm()
    server.check_deadline(None, 2.0, "the node")
    server.check_deadline(3.0, 2.0, "the node")
    with pytest.raises(SimulationFailure, match="no_deadline_in_the_past: the node of s has one at 2"):
        server.check_deadline(2.0, 2.0, "the node")


def test_a_reset_ends_a_websocket() -> None:
    simulation, server = calm()
    _, socket = connect(simulation, server, upgrade(simulation))
    socket.abort()
    simulation.run_for(0.1)
    assert server.connections == {}
    simulation.empty()
