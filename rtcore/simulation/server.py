"""A server: a `rtcore.Node` with its connections, which may crash, come back, and be told to stop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias, assert_never

import attrs
import msgspec

from rtcore.binary import BINARY, parse_payload
from rtcore.channels import BROADCAST, user_channel
from rtcore.errors import CloseCode, CommandError, Refusal
from rtcore.messages import Message
from rtcore.node import Close, Consult, Node, NodeConfig, NodeEffect, Verify
from rtcore.permissions import Grant, Identity, Revocation
from rtcore.router import Deliver, Published, Refused, Request
from rtcore.session import Handle, Transport
from rtcore.uploads import AbandonFile, AppendToFile, FinishFile, KeptFile, OpenFile
from rtcore.websocket import WebSocketConfig

from .authority import Authority
from .deciding import Deciding
from .keeper import FileNews, Keeper
from .link import Socket, SocketHandler
from .machine import Machine
from .network import Network
from .observer import Observer
from .server_connections import Accepting, ServerConnection, ServerConnectionConfig
from .world import World

__all__ = ["Handler", "Sender", "ServerConfig", "SimulatedServer"]


@attrs.frozen
class Sender:
    """Who sent a message to the application: the connection, and its user or ``None``."""

    connection_id: str
    user_id: str | None


#: Handles the messages of one type: gets the message and its sender; what it returns answers the message's ``id``.
Handler: TypeAlias = Callable[[Message, Sender], Message | None]


@attrs.frozen(kw_only=True)
class ServerConfig:
    """Limits and times of a server.

    Attributes:
        node: Those of the node.
        websocket: Those of each WebSocket.
        retry: Milliseconds after which an event stream is to be opened again.
        max_backlog: Bytes that may wait for one connection.
        max_waiting: Messages, likewise.
        inline_max_size: The most bytes of a file that comes in chunks which those who hear of it get at once.
    """

    node: NodeConfig = attrs.field(factory=NodeConfig)
    websocket: WebSocketConfig = attrs.field(factory=WebSocketConfig)
    retry: int = 1000
    max_backlog: int = 2**16
    max_waiting: int = 100
    inline_max_size: int = 2**16


class SimulatedServer(Machine):
    """One server, over as many lives as it has.

    Args:
        world: Where it is.
        network: How clients reach it.
        name: Differs from all others.
        config: Limits and times.
        handlers: The application's, by message type; they run at once.
        observer: Who is told what happens.
        authority: Who verifies tokens; ``None`` for a server that asks nobody for any.
        skew: What its clock shows at the beginning.

    Attributes:
        authority: As given.
        config: As given.
        handlers: As given; may change at any time.
        deciding: What is not decided yet.
        keeper: Its files.
        listening: Whether it takes connections.
        lives: How often it has started.
        connections: Those that the node knows, by id.
    """

    def __init__(
        self,
        world: World,
        network: Network,
        name: str,
        *,
        config: ServerConfig,
        handlers: Mapping[str, Handler],
        observer: Observer,
        authority: Authority | None = None,
        skew: float = 0.0,
    ) -> None:
        super().__init__(world, name, skew=skew)
        self.authority = authority
        self.config = config
        self.handlers = dict(handlers)
        self.listening = False
        self.lives = 0
        self.connections: dict[str, ServerConnection] = {}
        self.observer = observer
        self._network = network
        self._node: Node | None = None
        self._serial = 0
        # Everything that has a socket, from the first byte of a request to the last of an answer.
        self._carried: dict[Accepting | ServerConnection, None] = {}
        self._dirty: dict[ServerConnection, None] = {}
        self._slow: list[ServerConnection] = []
        self.deciding = Deciding(self, authority)
        self.keeper = Keeper(self)
        self._connection_config = ServerConnectionConfig(
            config.websocket, config.retry, config.max_backlog, config.max_waiting
        )

    # Lives

    @property
    def machine(self) -> Machine:
        """See `rtcore.simulation.link.Listener`."""
        return self

    @property
    def running(self) -> bool:
        """Whether there is a node."""
        return self._node is not None

    @property
    def node(self) -> Node:
        """The node of the present life."""
        assert self._node is not None, f"{self.name} is down"
        return self._node

    @property
    def life(self) -> str:
        """The entropy of the present node, which names its life."""
        return f"{self.name}{self.lives}"

    def start(self) -> None:
        """Begin a life, knowing nothing of the ones before."""
        assert self._node is None, f"{self.name} is up"
        self.lives += 1
        self._serial = 0
        self.note("starts", self.life)
        consulted = () if self.authority is None else self.authority.consulted
        self._node = Node(self.config.node, entropy=self.life, handled=self.handlers, consulted=consulted)
        self.listening = True
        self.rekey()

    def crash(self, *, silently: bool) -> None:
        """Lose everything at once.

        Args:
            silently: Whether the whole machine is gone, so that nobody is told; otherwise just the process, and the
                other ends see a reset.
        """
        if self._node is None:
            return
        self.note("crashes", "silently" if silently else "")
        self._network.disconnect(self, silently=silently)
        self._die()

    def drain(self) -> None:
        """Say goodbye to everybody, and take nobody any more; `stop` follows."""
        if self._node is not None:
            self.note("drains")
            self.perform(self._node.drain(now=self.now(), timestamp=self.timestamp()))
            self.settle()

    def stop(self) -> None:
        """End the life: what is connected yet is cut off."""
        if self._node is not None:
            self.note("stops")
            self._network.disconnect(self, silently=False)
            self._die()

    def _die(self) -> None:
        self._node = None
        self.listening = False
        self.frozen = False
        self._missed.clear()
        self._carried.clear()
        self.connections.clear()
        self._dirty.clear()
        self._slow.clear()
        self.deciding.clear()
        self.keeper.clear()
        self.observer.server_stopped(self)

    # What its application does

    def publish(self, channel: str, message: Message) -> Published | Refusal:
        """Publish to a channel; returns what became of it."""
        self.note("publishes", (channel, message))
        effects = self.node.publish(channel, message, now=self.now(), timestamp=self.timestamp())
        outcome: Published | Refusal | None = None
        for effect in effects:
            if isinstance(effect, Published):
                outcome = effect
                self.observer.server_published(self, effect, message)
            elif isinstance(effect, Refused):
                outcome = effect.refusal
        self.perform(effects)
        self.settle()
        assert outcome is not None, "the node publishes at once, or says why not"
        return outcome

    def publish_to_user(self, user_id: str, message: Message) -> Published | Refusal:
        """Publish to every connection of a user."""
        return self.publish(user_channel(user_id), message)

    def broadcast(self, message: Message) -> Published | Refusal:
        """Publish to everybody."""
        return self.publish(BROADCAST, message)

    def regrant(self, connection_id: str, grant: Grant) -> None:
        """Allow a connection something else."""
        self.note(f"{connection_id} is allowed", grant)
        self.observer.server_regrants(self, (connection_id,), grant)
        self.perform(self.node.regrant(connection_id, grant, now=self.now(), timestamp=self.timestamp()))
        self.settle()

    def regrant_user(self, user_id: str, grant: Grant) -> None:
        """Allow a user something else, on all connections."""
        self.note(f"{user_id} is allowed", grant)
        theirs = tuple(name for name, each in self.connections.items() if each.user_id == user_id)
        self.observer.server_regrants(self, theirs, grant)
        self.perform(self.node.regrant_user(user_id, grant, now=self.now(), timestamp=self.timestamp()))
        self.settle()

    def revoke(self, revocation: Revocation) -> None:
        """Accept some tokens no more."""
        self.note("revokes", revocation)
        self.observer.server_revokes(self, revocation)
        effects = self.node.revoke(revocation, now=self.now(), timestamp=self.timestamp())
        assert not isinstance(effects, Refusal), "there is room"
        self.perform(effects)
        self.settle()

    # What its connections tell

    def accept(self, socket: Socket) -> SocketHandler:
        """See `rtcore.simulation.link.Listener`."""
        accepting = Accepting(self, socket, self._connection_config)
        self._carried[accepting] = None
        self.rekey()
        return accepting

    def carry(self, connection: ServerConnection, instead_of: Accepting) -> None:
        """Keep the deadlines of a connection."""
        self._carried.pop(instead_of, None)
        self._carried[connection] = None

    def drop(self, carried: Accepting | ServerConnection) -> None:
        """Keep no more deadlines of something whose socket is gone."""
        self._carried.pop(carried, None)

    def admit(
        self,
        connection: ServerConnection,
        transport: Transport,
        identity: Identity,
        *,
        channels: tuple[str, ...],
        session: str | None,
        last_event_id: str | None,
    ) -> Refusal | None:
        """Connect a connection to the node; returns why not, if not."""
        node, user_id, grant = self.node, identity.user_id, identity.grant
        if (refusal := node.admit(transport, user_id=user_id, grant=grant, timestamp=self.timestamp())) is not None:
            return refusal
        self._serial += 1
        connection_id = connection.connection_id = f"{self.life}c{self._serial}"
        connection.user_id = user_id
        self.note(f"{connection_id} +", (transport.value, user_id, channels, session, last_event_id))
        self.connections[connection_id] = connection
        self.observer.server_grants(self, connection_id, identity, channels)
        effects = node.connect(
            connection_id,
            user_id=user_id,
            grant=grant,
            transport=transport,
            channels=channels,
            session=session,
            last_event_id=last_event_id,
            now=self.now(),
            timestamp=self.timestamp(),
        )
        if self.authority is not None:
            channels = _joined(effects)
        self.observer.server_connected(self, connection_id, user_id, channels, last_event_id=last_event_id)
        self.perform(effects)
        return None

    def receive(self, connection: ServerConnection, message: str | bytes) -> None:
        """Pass one message of a connection in: a text, or the payload of a binary frame."""
        connection_id = connection.connection_id
        if self.connections.get(connection_id) is not connection or self.deciding.hold(connection, message):
            return
        self.note(f"{connection_id} ->", message)
        if isinstance(message, str):
            self.observer.server_received(self, connection_id, message)
            self.perform(self.node.receive_text(connection_id, message, now=self.now(), timestamp=self.timestamp()))
        else:
            self._observe(connection_id, message)
            self.perform(self.node.receive_bytes(connection_id, message, now=self.now(), timestamp=self.timestamp()))

    def detach(self, connection: ServerConnection) -> None:
        """Take a connection whose transport has ended out of the node; another time is no fault."""
        connection_id = connection.connection_id
        if self.connections.get(connection_id) is connection:
            self.note(f"{connection_id} -")
            del self.connections[connection_id]
            self.perform(self.node.disconnect(connection_id, now=self.now(), timestamp=self.timestamp()))

    def settle(self) -> None:
        """Write what an input has led to; the end of each input."""
        while self._dirty or self._slow:
            dirty, self._dirty = self._dirty, {}
            for connection in dirty:
                connection.flush()
            slow, self._slow = self._slow, []
            for connection in slow:
                if self.connections.get(connection.connection_id) is connection:
                    reason = "the connection does not read fast enough"
                    self.observer.server_overflowed(self, connection.connection_id)
                    self.perform(
                        self.node.close(
                            connection.connection_id,
                            CloseCode.SLOW_CONSUMER,
                            reason,
                            now=self.now(),
                            timestamp=self.timestamp(),
                        )
                    )
        self.rekey()

    def mark(self, connection: ServerConnection) -> None:
        """Write what is delivered to a connection at the end of this input."""
        self._dirty[connection] = None

    def overflow(self, connection: ServerConnection) -> None:
        """End a connection for which too much waits, at the end of this input."""
        self._slow.append(connection)

    def tell_of_file(self, key: str, news: FileNews) -> None:
        """Tell the node what has become of a file that comes in chunks."""
        self.note(f"{key} is", news)
        self.observer.server_hears_of_file(self, key, news)
        files, now, timestamp = self.node.files, self.now(), self.timestamp()
        assert files is not None, "or there would be none"
        match news:
            case KeptFile():
                upload, before = files._uploads._by_key.get(key), self.node._router._numbering.seq
                effects = files.finished(key, news, now=now, timestamp=timestamp)
                if upload is not None and self.node._router._numbering.seq != before:
                    # Where nobody hears of it, nothing else says so.
                    self._observe_publication(upload.begin.channel, {**upload.begin.head, "file_id": news.file_id})
                self.perform(effects)
            case Refusal():
                self.perform(files.failed(key, news, now=now, timestamp=timestamp))
            case _:
                self.perform(files.appended(key, news, now=now, timestamp=timestamp))
        self.settle()

    # Time

    def next_timeout(self) -> float | None:
        """See `Machine.next_timeout`."""
        if self._node is None:
            return None
        earliest = self._node.next_timeout()
        for carried in self._carried:
            at = carried.next_timeout()
            if at is not None and (earliest is None or at < earliest):
                earliest = at
        return earliest

    def handle_timeout(self) -> None:
        """See `Machine.handle_timeout`."""
        node, now = self.node, self.now()
        due = node.next_timeout()
        if due is not None and due <= now:
            self.perform(node.handle_timeout(now=now, timestamp=self.timestamp()))
            self.check_deadline(node.next_timeout(), now, "the node")
        for carried in list(self._carried):
            due = carried.next_timeout()
            if due is not None and due <= now:
                carried.handle_timeout(now)
                self.check_deadline(carried.next_timeout(), now, "a connection")
        self.settle()

    def check_deadline(self, at: float | None, now: float, whose: str) -> None:
        """Fail if a deadline lies in the past, or is now, though what was due has been done."""
        if at is not None and at <= now:
            raise self.world.fail("no_deadline_in_the_past", f"{whose} of {self.name} has one at {at}, and it is {now}")

    def perform(self, effects: list[NodeEffect]) -> None:
        """Carry out effects of the node, in order; `settle` follows."""
        for effect in effects:
            match effect:
                case Deliver(message=message, connections=receivers, skip=skip):
                    self.observer.server_delivers(self, message, receivers)
                    connections = self.connections
                    for connection_id in receivers:
                        if connection_id != skip and (connection := connections.get(connection_id)) is not None:
                            connection.deliver(message)
                case Close(connection_id=connection_id, code=code, reason=reason):
                    closed = self.connections.pop(connection_id)
                    self.note(f"{connection_id} closes", (code, reason))
                    closed.flush()
                    closed.close(code, reason)
                case Handle():
                    self._handle(effect)
                case Verify() | Consult():
                    self.deciding.ask(effect)
                case OpenFile() | AppendToFile() | FinishFile() | AbandonFile():
                    self.keeper.perform(effect)
                case Published() | Refused():
                    # For the application, which does not ask.
                    pass
                case _:
                    assert_never(effect)

    # Inside

    def _observe_publication(self, name: str, message: Message) -> None:
        channel = self.node._router._registry.get(name)
        assert channel is not None, "something was just published there"
        published = Published(Request(None), "", name, channel.history.offset, channel.epoch)
        self.observer.server_published(self, published, message)

    def _observe(self, connection_id: str, payload: bytes) -> None:
        parsed = parse_payload(payload)
        if isinstance(parsed, tuple) and parsed[0]["type"] == BINARY:
            self.observer.server_received(self, connection_id, msgspec.json.encode(parsed[0]).decode())

    def _handle(self, effect: Handle) -> None:
        connection_id = effect.request.connection_id
        assert connection_id is not None, "only connections send what is handled"
        sender = Sender(connection_id, self.connections[connection_id].user_id)
        outcome: Message | Refusal
        try:
            outcome = self.handlers[effect.type](effect.message, sender) or {}
        except CommandError as error:
            outcome = Refusal(error.code, error.message)
        self.perform(self.node.respond(effect.request, outcome, now=self.now(), timestamp=self.timestamp()))


def _joined(effects: list[NodeEffect]) -> tuple[str, ...]:
    """Return the channels that a new connection has joined, by its welcome."""
    told = (effect.message.json for effect in effects if isinstance(effect, Deliver))
    welcome = next(json for json in told if json.startswith(b'{"type":"connected"'))
    return tuple(msgspec.json.decode(welcome)["channels"])
