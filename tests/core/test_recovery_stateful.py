"""Recovery through the node: whatever happens, each listener hears what channels say, once, in order, or of a gap.

Listeners are an event stream, which knows nothing but the id of the last event, and a WebSocket, which names for each
channel the last publication that it has heard. Their connections are cut anywhere, also amidst a replay.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from rtcore.encoded import Encoded
from rtcore.event_stream import EventStreamParser
from rtcore.messages import Message
from rtcore.namespaces import Namespace, Namespaces
from rtcore.node import Node, NodeConfig, NodeEffect
from rtcore.router import Deliver, Published, RouterConfig
from rtcore.session import Transport

ROOMY = 2**20
MANY = 100
CHANNELS = ["a", "b", "state"]
STREAMS = {"s1": ("ann", ["a", "b"]), "s2": (None, ["a", "state"])}
SOCKETS = {"w1": "ann", "w2": None}


@attrs.frozen
class Said:
    """One publication, as it was made."""

    epoch: str
    offset: int
    persistent: bool

    @property
    def place(self) -> tuple[int, int]:
        """Where it is in the channel of all lives."""
        return place(self.epoch, self.offset)


def place(epoch: str, offset: int) -> tuple[int, int]:
    return int(epoch.removeprefix("e.")), offset


@attrs.define
class Heard:
    """What somebody has heard of one channel.

    Attributes:
        index: How many publications are behind them: heard, announced as missing, or before their time.
        told: Those that they have heard.
        owed: Those kept for later joiners that they must yet hear.
    """

    index: int
    told: dict[Said, None] = attrs.field(factory=dict)
    owed: dict[Said, None] = attrs.field(factory=dict)

    def hear(self, line: list[Said], said: Said) -> None:
        at = line.index(said)
        assert said not in self.told, "a second time"
        if at < self.index:
            assert said.persistent, "late"
        else:
            assert at == self.index, "a hole that was not announced"
            self.index = at + 1
        self.told[said] = None
        self.owed.pop(said, None)

    def skip(self, line: list[Said], epoch: str, offset: int) -> None:
        index = sum(said.place <= place(epoch, offset) for said in line)
        assert index >= self.index, "it goes on before what was heard"
        self.index = index


@attrs.define
class Position:
    """How far a WebSocket has heard a channel that it has joined."""

    epoch: str
    offset: int
    persistent: int | None = None
    owed: int = 0


@attrs.define
class Listener:
    """Somebody who listens, whatever becomes of their connections."""

    name: str
    user_id: str | None
    connection_id: str | None = None
    connections: int = 0
    inbox: list[Encoded] = attrs.field(factory=list)
    heard: dict[str, Heard] = attrs.field(factory=dict)
    changes: dict[tuple[str, int], None] = attrs.field(factory=dict)
    # What was kept for later joiners when they connected, or joined.
    kept: dict[str, dict[Said, None]] = attrs.field(factory=dict)
    # Of an event stream: where the channels stood when it connected, and the last id.
    stood: dict[str, int] = attrs.field(factory=dict)
    token: str = ""
    # Of a WebSocket.
    positions: dict[str, Position] = attrs.field(factory=dict)
    joins: dict[str, tuple[str, Position | None]] = attrs.field(factory=dict)


class RecoveryMachine(RuleBasedStateMachine):
    @initialize(
        history_size=st.integers(0, 5),
        history_ttl=st.sampled_from([3.0, 30.0]),
        persistent_size=st.integers(0, 3),
        max_idle=st.sampled_from([0, 1, MANY, MANY]),
        max_history_bytes=st.sampled_from([600, 1500, ROOMY, ROOMY, ROOMY]),
        max_replay_bytes=st.sampled_from([400, 900, ROOMY, ROOMY]),
    )
    def start(
        self,
        history_size: int,
        history_ttl: float,
        persistent_size: int,
        max_idle: int,
        max_history_bytes: int,
        max_replay_bytes: int,
    ) -> None:
        def options(pattern: str, *, last_value: bool = False) -> Namespace:
            return Namespace(
                pattern=pattern,
                history_size=history_size,
                history_ttl=history_ttl,
                persistent_size=persistent_size,
                last_value=last_value,
                presence_grace=2.0,
            )

        namespaces = Namespaces((options("state", last_value=True),), options("*"))
        self.config = RouterConfig(
            namespaces=namespaces,
            presence_limit=2,
            idle_timeout=5.0,
            max_idle=max_idle,
            max_history_bytes=max_history_bytes,
            max_replay_bytes=max_replay_bytes,
        )
        self.node = Node(NodeConfig(websocket_heartbeat=None, sse_heartbeat=None, router=self.config), entropy="e")
        self.now = 0.0
        self.lines: dict[str, list[Said]] = {name: [] for name in [*CHANNELS, "$broadcast", "$user:ann"]}
        self.streams = {name: Listener(name, user_id) for name, (user_id, _) in STREAMS.items()}
        self.sockets = {name: Listener(name, user_id) for name, user_id in SOCKETS.items()}
        self.owners: dict[str, Listener] = {}
        self.joins = 0

    # The truth

    def kept(self, channel: str) -> dict[Said, None]:
        """Return what a later joiner of a channel must be told."""
        line = self.lines[channel]
        size = self.config.namespaces.get(channel).persistent_size
        persistent = [said for said in line if said.persistent and said.epoch == line[-1].epoch]
        kept = dict.fromkeys(persistent[len(persistent) - min(size, len(persistent)) :])
        if not kept or self.config.max_history_bytes != ROOMY:
            return {}
        found = self.node._router._registry.get(channel)
        if found is None or found.epoch != line[-1].epoch:
            assert self.config.max_idle < MANY, "it was forgotten, for all that it kept"
            return {}
        return kept

    def perform(self, effects: Iterable[NodeEffect]) -> None:
        for effect in effects:
            if isinstance(effect, Deliver):
                for connection_id in effect.connections:
                    if connection_id != effect.skip and connection_id in self.owners:
                        self.owners[connection_id].inbox.append(effect.message)

    # What happens

    @rule(channel=st.sampled_from([*CHANNELS, "$broadcast", "$user:ann"]), persistent=st.booleans())
    def publish(self, channel: str, persistent: bool) -> None:
        line = self.lines[channel]
        message: Message = {"type": "text", "persistent": persistent, "line": channel, "n": len(line)}
        effects = self.node.publish(channel, message, now=self.now, timestamp=0)
        receipt = effects[-1]
        assert isinstance(receipt, Published)
        line.append(Said(receipt.epoch, receipt.offset, persistent or channel == "state"))
        assert line == sorted(line, key=lambda said: said.place)
        self.perform(effects)

    @rule(seconds=st.sampled_from([0.5, 2.0, 4.0, 20.0, 100.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.perform(self.node.handle_timeout(now=self.now, timestamp=0))
        at = self.node.next_timeout()
        assert at is None or at > self.now

    @rule(channel=st.sampled_from(CHANNELS), stays=st.booleans())
    def visit(self, channel: str, stays: bool) -> None:
        """Somebody else comes and goes, which is news in a channel, and they leave it idle."""
        if "visitor" in self.node:
            self.perform(self.node.disconnect("visitor", now=self.now, timestamp=0))
        self.perform(
            self.node.connect(
                *("visitor",), transport=Transport.WEBSOCKET, channels=[channel], now=self.now, timestamp=0
            )
        )
        if not stays:
            self.perform(self.node.disconnect("visitor", now=self.now, timestamp=0))

    # Connections

    def connect(self, listener: Listener, transport: Transport, channels: list[str]) -> None:
        self.cut(listener)
        listener.connections += 1
        connection_id = listener.connection_id = f"{listener.name}.{listener.connections}"
        self.owners[connection_id] = listener
        names = [*channels, "$broadcast", *(["$user:ann"] if listener.user_id else [])]
        listener.stood = {name: len(self.lines[name]) for name in names}
        effects = self.node.connect(
            connection_id,
            user_id=listener.user_id,
            transport=transport,
            channels=channels,
            last_event_id=listener.token or None,
            now=self.now,
            timestamp=0,
        )
        listener.kept = {name: self.kept(name) for name in names}
        self.perform(effects)

    def cut(self, listener: Listener) -> None:
        """End a connection: what was not read is lost."""
        if listener.connection_id is not None:
            self.perform(self.node.disconnect(listener.connection_id, now=self.now, timestamp=0))
            del self.owners[listener.connection_id]
            listener.connection_id = None
        listener.inbox.clear()
        listener.joins.clear()

    @rule(name=st.sampled_from([*STREAMS]), read=st.integers(0, 8))
    def stream(self, name: str, read: int) -> None:
        listener = self.streams[name]
        self.connect(listener, Transport.SSE, STREAMS[name][1])
        self.read(name, read)

    @rule(name=st.sampled_from([*STREAMS, *SOCKETS]), number=st.integers(1, 12))
    def read(self, name: str, number: int) -> None:
        listener = self.streams.get(name) or self.sockets[name]
        for _ in range(min(number, len(listener.inbox))):
            message = listener.inbox.pop(0)
            if name in self.streams:
                self.read_stream(listener, message)
            else:
                self.read_socket(listener, message)

    @rule(name=st.sampled_from([*STREAMS, *SOCKETS]))
    def lose(self, name: str) -> None:
        self.cut(self.streams.get(name) or self.sockets[name])

    @rule(name=st.sampled_from([*SOCKETS]), channels=st.lists(st.sampled_from(CHANNELS), max_size=3))
    def open_socket(self, name: str, channels: list[str]) -> None:
        self.connect(self.sockets[name], Transport.WEBSOCKET, [])
        for channel in channels:
            self.join(name, channel)

    @rule(name=st.sampled_from([*SOCKETS]), channel=st.sampled_from(CHANNELS), leaves=st.booleans())
    def join_or_leave(self, name: str, channel: str, leaves: bool) -> None:
        listener = self.sockets[name]
        if listener.connection_id is None:
            return
        # Whoever joins a channel again on the same connection has read what has come: then it changes nothing.
        self.read(name, len(listener.inbox))
        if leaves:
            command = {"type": "command", "command": "leave_channel", "data": {"channel": channel}}
            self.perform(self.node.receive_text(listener.connection_id, json.dumps(command), now=self.now, timestamp=0))
            listener.positions.pop(channel, None)
            listener.heard.pop(channel, None)
        else:
            self.join(name, channel)

    def join(self, name: str, channel: str) -> None:
        listener = self.sockets[name]
        assert listener.connection_id is not None
        if any(joining == channel for joining, _ in listener.joins.values()):
            return
        self.joins += 1
        position = listener.positions.get(channel)
        data: Message = {"channel": channel}
        if position is not None:
            data["since"] = {"epoch": position.epoch, "offset": position.offset, "persistent": position.persistent}
        identifier = str(self.joins)
        listener.joins[identifier] = channel, position
        command = {"type": "command", "command": "join_channel", "data": data, "id": identifier}
        effects = self.node.receive_text(listener.connection_id, json.dumps(command), now=self.now, timestamp=0)
        listener.kept[channel] = self.kept(channel)
        self.perform(effects)

    # What they hear

    def read_stream(self, listener: Listener, encoded: Encoded) -> None:
        parser = EventStreamParser(last_event_id=listener.token)
        parser.receive_data(encoded.event_stream)
        if not listener.token:
            # Before the first id there is nothing to come back with, and nothing to be told of.
            assert not encoded.json
            for channel, kept in listener.kept.items():
                listener.heard[channel] = Heard(listener.stood[channel], owed=kept.copy())
        listener.token = parser.last_event_id
        if not encoded.json:
            return
        message = json.loads(encoded.json)
        if message["type"] == "connected":
            for channel, kept in listener.kept.items():
                heard = listener.heard[channel]
                heard.owed = {said: None for said in heard.owed if said in kept}
        elif message["type"] == "gap":
            if message.get("stream") != "presence":
                channel = message["channel"]
                heard = listener.heard[channel]
                heard.skip(self.lines[channel], message["epoch"], message["offset"])
                heard.owed |= {said: None for said in listener.kept[channel] if said not in heard.told}
        elif message["type"] in ("user_joined", "user_left"):
            change = message["meta"]["epoch"], message["meta"]["offset"]
            assert all(change[1] > offset for epoch, offset in listener.changes if epoch == change[0])
            listener.changes[change] = None
        else:
            self.hear(listener, message)

    def read_socket(self, listener: Listener, encoded: Encoded) -> None:
        message = json.loads(encoded.json)
        if message["type"] == "response":
            self.join_answered(listener, message)
        elif message["type"] == "text":
            channel = message["line"]
            position = listener.positions.get(channel)
            if position is None:
                assert channel.startswith("$")
                return
            epoch, offset = message["meta"]["epoch"], message["meta"]["offset"]
            assert epoch == position.epoch
            if offset <= position.offset:
                assert position.persistent is not None
                assert offset > position.persistent
                position.owed -= 1
                position.persistent = offset if position.owed else None
            else:
                assert offset == position.offset + 1
                position.offset, position.persistent = offset, None
            self.hear(listener, message)

    def join_answered(self, listener: Listener, answer: Message) -> None:
        assert answer["ok"] is True
        channel, since = listener.joins.pop(str(answer["id"]))
        data = answer["data"]
        assert isinstance(data, dict)
        assert ("recovered" in data) is (since is not None)
        epoch, offset, replayed = data["epoch"], data["offset"], data["replayed"]
        if since is not None and data["recovered"]:
            assert (epoch, listener.positions[channel]) == (since.epoch, since)
            since.persistent = since.persistent if replayed else None
            since.owed = replayed
            heard = listener.heard[channel]
            heard.owed = {said: None for said in heard.owed if said in listener.kept[channel]}
            return
        owed_after = 0
        if since is None:
            heard = listener.heard[channel] = Heard(0)
        else:
            heard = listener.heard[channel]
            if since.epoch == epoch:
                owed_after = since.offset if since.persistent is None else since.persistent
        heard.skip(self.lines[channel], epoch, offset)
        heard.owed = {said: None for said in listener.kept[channel] if said not in heard.told}
        listener.positions[channel] = Position(epoch, offset, owed_after if replayed else None, replayed)

    def hear(self, listener: Listener, message: Message) -> None:
        channel, number = str(message["line"]), message["n"]
        assert isinstance(number, int)
        line = self.lines[channel]
        listener.heard[channel].hear(line, line[number])

    # At rest

    @rule()
    def rest(self) -> None:
        """Everybody reads what has come, and has heard all that there is."""
        for listener in [*self.streams.values(), *self.sockets.values()]:
            if listener.connection_id is None:
                continue
            self.read(listener.name, len(listener.inbox))
            joined = self.node._router.channels_of(listener.connection_id)
            for channel, heard in listener.heard.items():
                if channel.startswith("$") or channel in joined:
                    assert heard.index == len(self.lines[channel])
                    assert not heard.owed

    def teardown(self) -> None:
        if not hasattr(self, "node"):
            return
        self.rest()
        assert self.node._router.history_bytes <= self.config.max_history_bytes
        self.node.drain(now=self.now, timestamp=0)
        for _ in range(100):
            if (at := self.node.next_timeout()) is None:
                break
            self.node.handle_timeout(now=at, timestamp=0)
        kept = any(said.persistent for line in self.lines.values() for said in line)
        assert self.node.empty or (kept and self.config.max_idle)


RecoveryMachine.TestCase.settings = settings(max_examples=300, stateful_step_count=40)
TestRecovery = RecoveryMachine.TestCase
