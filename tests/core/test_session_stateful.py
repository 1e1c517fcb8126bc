"""Sessions through the node: arbitrary clients say arbitrary things, and each hears what a model says they must."""

from __future__ import annotations

import json
from collections.abc import Iterable

import attrs
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from rtcore.errors import LocalProtocolError
from rtcore.messages import RESERVED_TYPES, Message
from rtcore.namespaces import Namespace, Namespaces
from rtcore.node import Close, Node, NodeConfig, NodeEffect
from rtcore.router import Deliver, Published, Refused, RouterConfig
from rtcore.session import Handle, Transport

IDLE_TIMEOUT = 20.0
MAX_CHANNELS = 2
GRACE = 3.0
WINDOW = 15.0  # within which a publication is not made again
HEARTBEATS = {Transport.WEBSOCKET: 7.0, Transport.SSE: 5.0}

CONNECTIONS = ["c1", "c2", "c3", "c4", "c5"]
USERS = [None, "ann", "bob"]
CHANNELS = ["a", "b", "c"]
BAD_CHANNELS: list[object] = ["", "$broadcast", "$user:ann", "a\nb", 5, None, ["a"]]
IDS: list[object] = [None, "1", 1, "", True, 2.5, ["1"]]
TYPES = ["text", "channel_message", "an_invention", "order", *sorted(RESERVED_TYPES)]
COMMANDS = ["ping", "join_channel", "leave_channel", "history", "presence", "get_connection_stats", "get_active_users"]

# Whatever comes, but for what would change who is in which channel: the model could not follow.
WORDS = st.sampled_from([*CHANNELS, "text", "command", "ping", "presence", "ann", "1", "$broadcast"])
NAMES = st.sampled_from(["type", "channel", "recipient_id", "id", "echo", "event", "command", "data", "meta"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=6,
)
ARBITRARY = st.text() | st.text('{}[]",:\\ud8019type') | st.dictionaries(NAMES, VALUES).map(json.dumps)


def is_id(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool))


def identities(members: Iterable[Message]) -> set[str]:
    """Return who is present, in words: a user whatever the connection, the anonymous by connection."""
    return {
        f"user {member['user_id']}" if member["user_id"] is not None else f"connection {member['connection_id']}"
        for member in members
    }


@attrs.define
class Client:
    """A client that believes what it is told, and complains when it does not fit."""

    user_id: str | None
    transport: Transport
    due_at: float
    joined: list[str] = attrs.field(factory=list)
    answers: list[Message] = attrs.field(factory=list)
    # The last publication heard, by channel, or by epoch in the built-in ones, which messages do not name.
    heard: dict[str, tuple[str, int]] = attrs.field(factory=dict)
    rosters: dict[str, set[str]] = attrs.field(factory=dict)

    def leave(self, channel: str) -> None:
        self.joined.remove(channel)
        self.heard.pop(channel, None)
        self.rosters.pop(channel, None)

    def receive(self, message: Message, skipped: bool) -> None:
        """Take a message, or note that one was kept from this client, who then is whom it is about or from."""
        kind, meta = message["type"], message.get("meta")
        if kind == "connected":
            presence = message.get("presence", {})
            assert isinstance(presence, dict)
            self.rosters.update((channel, identities(told["users"])) for channel, told in presence.items())
        elif kind in ("response", "error"):
            self.answers.append(message)
            data = message.get("data")
            if isinstance(data, dict) and "presence" in data:
                self.heard[data["channel"]] = data["epoch"], data["offset"]
                self.rosters[data["channel"]] = identities(data["presence"]["users"])
        elif kind in ("user_joined", "user_left"):
            channel = str(message["channel"])
            assert channel in self.joined
            if channel in self.rosters and not skipped:
                (who,) = identities([message])
                assert (who in self.rosters[channel]) is (kind == "user_left")
                self.rosters[channel] ^= {who}
        elif isinstance(meta, dict):
            channel = str(message["channel"]) if "channel" in message else str(meta["epoch"])
            assert channel in self.joined or channel == meta["epoch"]
            if channel in self.heard:
                epoch, offset = self.heard[channel]
                assert (meta["epoch"], meta["offset"]) == (epoch, offset + 1)
            self.heard[channel] = meta["epoch"], meta["offset"]
        else:
            assert kind in ("heartbeat", "disconnect")
            assert not skipped


class SessionMachine(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        config = NodeConfig(
            max_connections=4,
            max_sse=2,
            websocket_heartbeat=HEARTBEATS[Transport.WEBSOCKET],
            sse_heartbeat=HEARTBEATS[Transport.SSE],
            max_message_size=2_000,
            router=RouterConfig(
                max_channels=MAX_CHANNELS,
                idle_timeout=IDLE_TIMEOUT,
                namespaces=Namespaces(default=Namespace(pattern="*", history_ttl=30.0, presence_grace=GRACE)),
                idempotency_window=WINDOW,
            ),
        )
        self.node = Node(config, entropy="e", handled=("order",))
        self.now = 0.0
        self.clients: dict[str, Client] = {}
        self.published = self.refused = 0
        # Users without a connection in a channel who may come back, and when they count as gone.
        self.lingering: dict[tuple[str, str], float] = {}
        # What was published under which id, and when, by user and by connection; and when users have left.
        self.made: dict[tuple[str, str], dict[object, float]] = {}
        self.gone_at: dict[str, float] = {}

    def publishers(self, connection_id: str) -> list[tuple[str, str]]:
        user_id = self.clients[connection_id].user_id
        own = ("connection", connection_id)
        return [own] if user_id is None else [own, ("user", user_id)]

    def is_repeated(self, connection_id: str, identifier: object) -> bool:
        made = [self.made.get(publisher, {}) for publisher in self.publishers(connection_id)]
        return any(identifier in each and self.now - each[identifier] <= WINDOW for each in made)

    def remember(self, connection_id: str, identifier: object) -> None:
        for publisher in self.publishers(connection_id):
            self.made.setdefault(publisher, {})[identifier] = self.now

    def enter(self, client: Client, channel: str) -> None:
        """Take note that a client is in a channel."""
        client.joined.append(channel)
        self.lingering.pop((channel, client.user_id or ""), None)

    def end(self, connection_id: str, client: Client) -> None:
        """Take note that a client, which is in no list any more, has lost its connection."""
        self.made.pop(("connection", connection_id), None)
        user_id = client.user_id
        if user_id is None:
            return
        for channel in client.joined:
            if not any(other.user_id == user_id and channel in other.joined for other in self.clients.values()):
                self.lingering[channel, user_id] = self.now + GRACE
        if all(other.user_id != user_id for other in self.clients.values()):
            self.gone_at[user_id] = self.now

    def perform(self, effects: Iterable[NodeEffect]) -> list[Close | Handle | Published | Refused]:
        """Deliver what is to be delivered; return the rest."""
        others: list[Close | Handle | Published | Refused] = []
        for effect in effects:
            if isinstance(effect, Deliver):
                if not effect.message.json:
                    # Where an event stream stands: that is tested elsewhere.
                    (connection_id,) = effect.connections
                    assert self.clients[connection_id].transport is Transport.SSE
                    continue
                message = json.loads(effect.message.json)
                self.refused += message["type"] == "error"
                assert len(set(effect.connections)) == len(effect.connections)
                for connection_id in effect.connections:
                    # Nothing is delivered to anybody who is not there: then this is a KeyError.
                    self.clients[connection_id].receive(message, connection_id == effect.skip)
            elif isinstance(effect, Close):
                self.end(effect.connection_id, self.clients.pop(effect.connection_id))
                others.append(effect)
            else:
                others.append(effect)
        return others

    def somebody(self, connection_id: str) -> Client:
        """Return the client of that connection, who comes now if they were not there."""
        if connection_id not in self.clients:
            effects = self.node.connect(connection_id, transport=Transport.WEBSOCKET, now=self.now, timestamp=0)
            client = Client(None, Transport.WEBSOCKET, self.now + HEARTBEATS[Transport.WEBSOCKET])
            self.clients[connection_id] = client
            assert self.perform(effects) == []
        return self.clients[connection_id]

    # Coming and going

    @rule(
        connection_id=st.sampled_from(CONNECTIONS),
        user_id=st.sampled_from(USERS),
        transport=st.sampled_from(Transport),
        channels=st.lists(st.sampled_from([*CHANNELS, "$broadcast", ""]), max_size=4),
    )
    def connect(self, connection_id: str, user_id: str | None, transport: Transport, channels: list[str]) -> None:
        if connection_id in self.clients:
            with pytest.raises(LocalProtocolError):
                self.node.connect(connection_id, transport=transport, now=self.now, timestamp=0)
            return
        refusal = self.node.admit(transport)
        of_its_kind = sum(client.transport is transport for client in self.clients.values())
        full = len(self.clients) >= 4 or (transport is Transport.SSE and of_its_kind == 2)
        assert (refusal is not None) is full
        if refusal is not None:
            return
        client = self.clients[connection_id] = Client(user_id, transport, self.now + HEARTBEATS[transport])
        self.gone_at.pop(user_id or "", None)
        errors = []
        for channel in channels:
            if channel not in CHANNELS:
                errors.append("invalid_channel")
            elif channel not in client.joined and len(client.joined) == MAX_CHANNELS:
                errors.append("too_many_channels")
            elif channel not in client.joined:
                self.enter(client, channel)
        effects = self.node.connect(
            connection_id, user_id=user_id, transport=transport, channels=channels, now=self.now, timestamp=0
        )
        # An event stream is told its position first.
        first = effects[transport is Transport.SSE]
        assert isinstance(first, Deliver)
        assert json.loads(first.message.json)["channels"] == client.joined
        assert self.perform(effects) == []
        assert [answer["code"] for answer in client.answers] == errors
        client.answers.clear()

    @rule(connection_id=st.sampled_from(CONNECTIONS), by_force=st.booleans())
    def disconnect(self, connection_id: str, by_force: bool) -> None:
        self.somebody(connection_id)
        if by_force:
            effects = self.node.close(connection_id, 4403, "why not", now=self.now, timestamp=0)
            assert self.perform(effects) == [Close(connection_id, 4403, "why not")]
        else:
            self.end(connection_id, self.clients.pop(connection_id))
            assert self.perform(self.node.disconnect(connection_id, now=self.now, timestamp=0)) == []
        assert self.node.disconnect(connection_id, now=self.now, timestamp=0) == []

    # Talking

    def say(self, connection_id: str, message: Message, code: str | None, *, handled: bool = False) -> None:
        """Send a message, which must be answered once under its id, or refused with `code`."""
        client = self.clients[connection_id]
        effects = self.node.receive_text(connection_id, json.dumps(message), now=self.now, timestamp=0)
        others = self.perform(effects)
        identifier = message.get("id")
        if handled:
            (effect,) = others
            assert isinstance(effect, Handle)
            self.perform(self.node.respond(effect.request, {"done": True}, now=self.now, timestamp=0))
        else:
            assert others == []
        if code is not None:
            (answer,) = client.answers
            assert (answer["type"], answer["code"]) == ("error", code)
            assert answer.get("id", "none") == (identifier if is_id(identifier) else "none")
        elif identifier is None:
            assert client.answers == []
        else:
            (answer,) = client.answers
            assert (answer["type"], answer["ok"], answer["id"]) == ("response", True, identifier)
        client.answers.clear()

    @rule(
        connection_id=st.sampled_from(CONNECTIONS),
        channel=st.sampled_from(CHANNELS),
        joins=st.booleans(),
        identifier=st.sampled_from([None, "1", 1]),
    )
    def join_or_leave(self, connection_id: str, channel: str, joins: bool, identifier: str | int | None) -> None:
        self.say_command(connection_id, "join_channel" if joins else "leave_channel", channel, "fit", identifier)

    @rule(
        connection_id=st.sampled_from(CONNECTIONS),
        name=st.sampled_from(COMMANDS) | st.sampled_from(["fly", "", 5, None]),
        channel=st.sampled_from(CHANNELS) | st.sampled_from(BAD_CHANNELS),
        arguments=st.sampled_from(["fit", "fit", "fit", "missing", "wrong"]),
        identifier=st.sampled_from(IDS),
    )
    def command(self, connection_id: str, name: object, channel: object, arguments: str, identifier: object) -> None:
        self.say_command(connection_id, name, channel, arguments, identifier)

    def say_command(
        self, connection_id: str, name: object, channel: object, arguments: str, identifier: object
    ) -> None:
        client = self.somebody(connection_id)
        message: Message = {"type": "command", "command": name, "id": identifier}
        if arguments != "missing":
            message["data"] = {"channel": channel} if arguments == "fit" else [channel]
        takes_channel = name in ("join_channel", "leave_channel", "history", "presence")
        code = None
        if identifier is not None and not is_id(identifier):
            code = "invalid_id"
        elif name not in COMMANDS:
            code = "unknown_command"
        elif arguments == "wrong":
            code = "invalid_data"
        elif takes_channel and (arguments == "missing" or channel not in CHANNELS):
            code = "invalid_channel"
        elif name == "join_channel" and channel not in client.joined and len(client.joined) == MAX_CHANNELS:
            code = "too_many_channels"
        elif name == "join_channel" and channel not in client.joined:
            self.enter(client, str(channel))
        elif name == "leave_channel" and channel in client.joined:
            client.leave(str(channel))
        self.say(connection_id, message, code)

    @rule(
        connection_id=st.sampled_from(CONNECTIONS),
        kind=st.sampled_from(TYPES) | st.just("text"),
        channel=st.sampled_from(CHANNELS) | st.sampled_from(["", "$broadcast", None]) | st.none(),
        recipient=st.sampled_from(["ann", "bob", "nobody", 5, True, None]),
        identifier=st.sampled_from(IDS),
        echo=st.sampled_from([True, False, "no"]),
    )
    def talk(
        self,
        connection_id: str,
        kind: str,
        channel: str | None,
        recipient: object,
        identifier: object,
        echo: object,
    ) -> None:
        self.somebody(connection_id)
        message: Message = {"type": kind, "id": identifier, "echo": echo, "meta": {"forged": True}}
        if channel is not None:
            message["channel"] = channel
        if recipient is not None:
            message["recipient_id"] = recipient
        code, handled = None, False
        if channel is not None and channel not in CHANNELS:
            code = "invalid_channel"
        elif recipient is True:
            code = "invalid_user_id"
        elif identifier is not None and not is_id(identifier):
            code = "invalid_id"
        elif echo == "no":
            code = "invalid_echo"
        elif kind == "webrtc_signal":
            code = None if self.is_repeated(connection_id, identifier) else "invalid_signal"
        elif kind in RESERVED_TYPES:
            code = "reserved_type"
        elif channel is None and recipient is None:
            handled = kind == "order"
            code = None if kind in ("order", "text") else "unhandled_type"
        if code is None and not handled and not self.is_repeated(connection_id, identifier):
            self.published += 1
            if identifier is not None:
                self.remember(connection_id, identifier)
        self.say(connection_id, message, code, handled=handled)

    @rule(connection_id=st.sampled_from(CONNECTIONS), text=ARBITRARY)
    def say_anything(self, connection_id: str, text: str) -> None:
        client = self.somebody(connection_id)
        effects = self.node.receive_text(connection_id, text, now=self.now, timestamp=0)
        others = self.perform(effects)
        assert all(isinstance(effect, Handle) for effect in others)
        assert len(client.answers) + len(others) <= 1
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            message = text
        if isinstance(message, dict) and isinstance(message.get("type"), str) and is_id(message.get("id")):
            # NaN is Python's idea of JSON and nobody else's: with it, the whole is but a text.
            assert others or [answer.get("id") for answer in client.answers] == [message["id"]] or "N" in text
        client.answers.clear()
        published = int(str(self.node.stats()["published_messages"]))
        if published > self.published and isinstance(message, dict) and is_id(message.get("id")):
            self.remember(connection_id, message["id"])
        self.published = published

    @rule(
        channel=st.sampled_from(
            [*CHANNELS, "$broadcast", "$user:ann", *(f"$connection:{name}" for name in CONNECTIONS)]
        )
    )
    def publish_from_outside(self, channel: str) -> None:
        message: Message = {"type": "text"} if channel.startswith("$") else {"type": "text", "channel": channel}
        effects = self.node.publish(channel, message, now=self.now, timestamp=0)
        (receipt,) = self.perform(effects)
        assert isinstance(receipt, Published)
        assert receipt.channel == channel
        self.published += 1

    @rule(connection_id=st.sampled_from(CONNECTIONS), channel=st.sampled_from([*CHANNELS, "$user:ann"]))
    def subscribe_from_outside(self, connection_id: str, channel: str) -> None:
        client = self.clients.get(connection_id)
        known = client is not None and channel in client.joined
        full = client is not None and len(client.joined) == MAX_CHANNELS and not known
        refused = client is None or channel not in CHANNELS or full
        if client is not None and not refused and not known:
            self.enter(client, channel)
        others = self.perform(self.node.subscribe(connection_id, channel, now=self.now, timestamp=0))
        assert [type(effect) for effect in others] == ([Refused] if refused else [])

    @rule(connection_id=st.sampled_from(CONNECTIONS), channel=st.sampled_from(CHANNELS))
    def unsubscribe_from_outside(self, connection_id: str, channel: str) -> None:
        client = self.clients.get(connection_id)
        if client is not None and channel in client.joined:
            client.leave(channel)
        others = self.perform(self.node.unsubscribe(connection_id, channel, now=self.now, timestamp=0))
        assert [type(effect) for effect in others] == ([] if client else [Refused])

    # Time

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 5.0, 19.0, 20.0, 1000.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        effects = self.node.handle_timeout(now=self.now, timestamp=0)
        due = {connection_id for connection_id, client in self.clients.items() if client.due_at <= self.now}
        heard: list[str] = []
        for effect in effects:
            assert isinstance(effect, Deliver)
            if effect.message.event == "heartbeat":
                heard += effect.connections
            else:
                assert effect.message.event == "user_left"
        assert sorted(heard) == sorted(due)
        for connection_id in due:
            client = self.clients[connection_id]
            client.due_at = self.now + HEARTBEATS[client.transport]
        self.lingering = {who: until for who, until in self.lingering.items() if until > self.now}
        for user_id in [user_id for user_id, at in self.gone_at.items() if at + WINDOW <= self.now]:
            del self.gone_at[user_id]
            self.made.pop(("user", user_id), None)
        self.perform(effects)
        at = self.node.next_timeout()
        assert at is None or at > self.now

    # What is always so

    @invariant()
    def the_counts_are_true(self) -> None:
        clients = self.clients.values()
        transports = [client.transport for client in clients]
        stats = self.node.stats()
        del stats["accepted_connections"], stats["history_bytes"], stats["webrtc_refused_signals"]
        assert stats == {
            "websocket_count": transports.count(Transport.WEBSOCKET),
            "sse_count": transports.count(Transport.SSE),
            "unique_users": len({client.user_id for client in clients} - {None}),
            "active_channels": len({channel for client in clients for channel in client.joined}),
            "total_connections": len(self.clients),
            "published_messages": self.published,
            "refused_messages": self.refused,
            **dict.fromkeys(("webrtc_rooms", "webrtc_peers", "webrtc_signals"), 0),
        }
        assert len(self.node) == len(self.clients)
        listed = {str(entry["connection_id"]): entry for entry in self.node.connections()}
        assert listed.keys() == self.clients.keys()
        for connection_id, client in self.clients.items():
            entry = listed[connection_id]
            assert (entry["user_id"], entry["channels"]) == (client.user_id, client.joined)

    @invariant()
    def presence_is_true_and_known_to_all_who_are_there(self) -> None:
        for channel in CHANNELS:
            present: list[Message] = [
                {"user_id": client.user_id, "connection_id": connection_id}
                for connection_id, client in self.clients.items()
                if channel in client.joined
            ]
            present += [
                {"user_id": user_id, "connection_id": None} for name, user_id in self.lingering if name == channel
            ]
            told = self.node.presence(channel)
            assert isinstance(told, dict)
            members = told["users"]
            assert isinstance(members, list)
            assert identities(members) == identities(present)
            assert told["count"] == len(members) == len(identities(present))
            for client in self.clients.values():
                assert client.rosters.get(channel, identities(present)) == identities(present)

    @invariant()
    def a_deadline_is_never_later_than_a_heartbeat(self) -> None:
        at = self.node.next_timeout()
        heartbeat_at = min((client.due_at for client in self.clients.values()), default=None)
        assert heartbeat_at is None or (at is not None and at <= heartbeat_at)

    def teardown(self) -> None:
        if not hasattr(self, "node"):
            return
        everybody = list(self.clients)
        closed = self.perform(self.node.drain(now=self.now, timestamp=0))
        assert [effect.connection_id for effect in closed if isinstance(effect, Close)] == everybody
        assert self.clients == {}
        while (at := self.node.next_timeout()) is not None:
            assert self.node.handle_timeout(now=at, timestamp=0) == []
        assert self.node.empty
        sessions = self.node._sessions
        assert [len(sessions._deadlines), sessions._users, sessions._addresses] == [0, {}, {}]


SessionMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40)
TestSessions = SessionMachine.TestCase
