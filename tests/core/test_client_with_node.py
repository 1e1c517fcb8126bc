"""The client's machine and a real node, over links that are cut, that lose, and that read slowly, at any time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, assert_never

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from rtcore.backlog import Backlog
from rtcore.client import (
    Answered,
    Client,
    ClientConfig,
    ClientState,
    Connected,
    Drop,
    Effect,
    Ended,
    Join,
    Leave,
    Lost,
    MessageReceived,
    Open,
    ProtocolFault,
    Publish,
    Refused,
    Rejoined,
    RejoinRefused,
    SendText,
)
from rtcore.encoded import Encoded
from rtcore.errors import CloseCode
from rtcore.namespaces import Namespace, Namespaces, SlowConsumer
from rtcore.node import Close, Node, NodeConfig, NodeEffect
from rtcore.router import Deliver, Published, RouterConfig
from rtcore.session import Transport

from .client_audience import FILTERS, GIVEN, JOINED, Listener, Place, Said, Truth

STAMP = 0
NAMESPACES = Namespaces(
    (
        Namespace(pattern="$*", history_size=4, history_ttl=5.0, persistent_size=2),
        Namespace(pattern="last", history_size=2, history_ttl=5.0, last_value=True, presence_grace=1.0),
        Namespace(pattern="oldest", history_size=3, history_ttl=5.0, slow_consumer=SlowConsumer.DROP_OLDEST),
        Namespace(pattern="latest", history_size=3, history_ttl=5.0, slow_consumer=SlowConsumer.LATEST),
    ),
    default=Namespace(pattern="*", history_size=3, history_ttl=5.0, persistent_size=2, presence_grace=1.0),
)
# Here a client cannot tell a hole from what it is not meant to hear.
UNNUMBERED = ("given", "filtered")
CONFIG = NodeConfig(
    websocket_heartbeat=None,
    router=RouterConfig(namespaces=NAMESPACES, idle_timeout=3.0, idempotency_window=1e6, presence_limit=1),
)


@attrs.define(eq=False)
class Link:
    """A connection, as far as each side knows."""

    connection_id: str
    token: str | None
    # What each channel without a join had said when it came; `None` while the server has not taken it.
    began: dict[str, Place] | None = None
    up: list[str] = attrs.field(factory=list)
    down: Backlog = attrs.field(factory=lambda: Backlog(max_bytes=10**9, max_messages=40))
    closing: int | None = None


class User:
    """A client, its application and its connection."""

    def __init__(self, name: str, given: Sequence[str], truth: Truth) -> None:
        self.name = name
        self.given = given
        draws = iter([0.0 if name == "ann" else 0.5])
        config = ClientConfig(command_timeout=1e6, connect_timeout=1e6, max_unacknowledged=6)
        self.client = Client(config, random=lambda: next(draws, 0.0), session=f"secret of {name}")
        self.listener = Listener(name, truth)
        self.link: Link | None = None
        self.joins: dict[str, str] = {}
        self.pending: dict[str, Said] = {}
        self.sent: dict[str, Said] = {}


class ClientAndNode(RuleBasedStateMachine):
    """Two clients of one server, which may begin anew."""

    @initialize(joined=st.sampled_from([True, True, False]))
    def begin(self, joined: bool) -> None:
        self.now = 0.0
        self.serial = 0
        self.lives = 0
        self.truth = Truth()
        self.users = {name: User(name, given, self.truth) for name, given in (("ann", GIVEN), ("bob", ()))}
        self.connections: dict[str, tuple[User, Link]] = {}
        self.zombies: dict[str, Link] = {}
        self.restart()
        for user in self.users.values():
            self.tell(user, user.client.connect(now=self.now))
        if joined:
            for name in self.users:
                for channel in JOINED:
                    self.join(name, channel)
            self.settle_down()

    def number(self) -> int:
        self.serial += 1
        return self.serial

    # The server

    def serve(self, effects: Sequence[NodeEffect]) -> None:
        for effect in effects:
            match effect:
                case Deliver(message, connections, skip):
                    for connection_id in connections:
                        if connection_id != skip:
                            self.deliver(connection_id, message)
                case Close(connection_id, code):
                    _, link = self.connections.pop(connection_id)
                    link.closing = code
                    self.zombies.pop(connection_id, None)
                case Published():
                    pass
                case _:
                    raise AssertionError(effect)

    def deliver(self, connection_id: str, message: Encoded) -> None:
        user, link = self.connections[connection_id]
        said = json.loads(message.json)
        if said["type"] == "response" and said["id"] in user.sent:
            data = said["data"]
            self.truth.published(data["channel"], data["epoch"], data["offset"], user.sent[said["id"]])
        if link.closing is None and not link.down.push([message]):
            # As the transports do: what waits is given up, and the connection with it.
            link.down.clear()
            link.closing = CloseCode.SLOW_CONSUMER

    @precondition(lambda self: any(link.closing is not None for _, link in self.connections.values()))
    @rule()
    def drop_slow_consumers(self) -> None:
        for connection_id, (_, link) in list(self.connections.items()):
            if link.closing is not None:
                self.connections.pop(connection_id)
                self.zombies.pop(connection_id, None)
                self.serve(self.node.disconnect(connection_id, now=self.now, timestamp=STAMP))

    def restart(self) -> None:
        self.lives += 1
        self.node = Node(CONFIG, entropy=f"n{self.lives}")
        self.connections.clear()
        self.zombies.clear()
        self.truth.newest.clear()

    @rule(luck=st.integers(0, 3))
    def crash(self, luck: int) -> None:
        if luck == 3:
            self.restart()
            for user in self.users.values():
                self.cut(user)

    @rule(
        channel=st.sampled_from([*JOINED, "given", "$broadcast", "$user:ann", "$user:bob"]),
        kind=st.sampled_from(["wanted", "unwanted"]),
        persistent=st.booleans(),
        count=st.sampled_from([1, 1, 1, 2, 5, 45]),
    )
    def publish_several(self, channel: str, kind: str, persistent: bool, count: int) -> None:
        for _ in range(count):
            self.publish(channel, kind, persistent)

    def publish(self, channel: str, kind: str, persistent: bool) -> None:
        said = Said(self.number(), kind)
        message: dict[str, object] = {"type": kind, "n": said.number, "key": said.number % 2}
        if persistent:
            message["persistent"] = True
        effects = self.node.publish(channel, message, now=self.now, timestamp=STAMP)
        for effect in effects:
            if isinstance(effect, Published):
                self.truth.published(channel, effect.epoch, effect.offset, said)
        self.serve(effects)

    @rule(wait=st.sampled_from([0.5, 0.5, 1.5, 6.0]))
    def pass_time(self, wait: float) -> None:
        self.now += wait
        while (at := self.node.next_timeout()) is not None and at <= self.now:
            self.serve(self.node.handle_timeout(now=self.now, timestamp=STAMP))

    @precondition(lambda self: self.zombies)
    @rule(late=st.integers(0, 3))
    def notice_that_a_client_has_gone(self, late: int) -> None:
        connection_id = next(iter(self.zombies))
        link = self.zombies.pop(connection_id)
        for text in link.up[:late]:
            if connection_id in self.connections:
                self.serve(self.node.receive_text(connection_id, text, now=self.now, timestamp=STAMP))
        if self.connections.pop(connection_id, None) is not None:
            self.serve(self.node.disconnect(connection_id, now=self.now, timestamp=STAMP))

    # The links

    @rule(name=st.sampled_from(["ann", "bob"]))
    def accept(self, name: str) -> None:
        user = self.users[name]
        link = user.link
        if link is None:
            if user.client.state is ClientState.WAITING:
                self.tell(user, user.client.connect(now=self.now))
            return
        if link.began is not None:
            return
        streams = ["$broadcast", f"$user:{name}", *(["given"] if user.given else [])]
        link.began = {stream: self.truth.newest.get(stream, ("", 0)) for stream in streams}
        self.connections[link.connection_id] = (user, link)
        self.tell(user, user.client.opened(now=self.now))
        self.serve(
            self.node.connect(
                link.connection_id,
                user_id=name,
                transport=Transport.WEBSOCKET,
                channels=user.given,
                session=user.client.session,
                last_event_id=link.token,
                now=self.now,
                timestamp=STAMP,
            )
        )

    @rule(name=st.sampled_from(["ann", "bob"]), count=st.integers(1, 4))
    def carry_up(self, name: str, count: int) -> None:
        link = self.users[name].link
        if link is not None and link.connection_id in self.connections:
            for _ in range(min(count, len(link.up))):
                text = link.up.pop(0)
                if link.connection_id in self.connections:
                    self.serve(self.node.receive_text(link.connection_id, text, now=self.now, timestamp=STAMP))

    @rule(name=st.sampled_from(["ann", "bob"]), count=st.integers(1, 6), losing=st.booleans())
    def carry_down(self, name: str, count: int, losing: bool) -> None:
        user = self.users[name]
        for _ in range(count):
            link = user.link
            if link is None or not link.down:
                break
            (message,) = link.down.pop(0)
            if losing and self.may_be_lost(user, json.loads(message.json)):
                losing = False
                continue
            self.tell(user, user.client.receive_text(message.text, now=self.now))
        if user.link is not None and user.link.closing is not None and not user.link.down:
            self.cut(user)

    @rule(name=st.sampled_from(["ann", "bob"]), channel=st.sampled_from(JOINED), persistent=st.booleans())
    def lose_a_message(self, name: str, channel: str, persistent: bool) -> None:
        link = self.users[name].link
        if link is not None and not link.down:
            self.publish(channel, "wanted", persistent)
            self.carry_down(name, 1, losing=True)

    def may_be_lost(self, user: User, message: dict[str, Any]) -> bool:
        """Tell whether the client can find out: no link of the real world loses a message and nothing after it."""
        meta = message.get("meta")
        if meta is None or message.get("channel") not in user.listener.streams or message["channel"] in UNNUMBERED:
            return False
        if message["type"] in ("user_joined", "user_left"):
            return True
        # What is kept for later joiners leaves no hole.
        position = user.client.position(message["channel"])
        return position is not None and meta["epoch"] == position[0] and meta["offset"] > position[1]

    @rule(name=st.sampled_from(["ann", "bob"]), heard=st.integers(0, 12))
    def come_back_for_a_moment(self, name: str, heard: int) -> None:
        """Lose the connection, with all that is on its way, and the next one after a few messages."""
        user = self.users[name]
        self.lose(name, at_once=True)
        self.accept(name)
        self.accept(name)
        self.carry_down(name, 1, losing=False)
        while user.link is not None and user.link.up:
            self.carry_up(name, 1)
        self.carry_down(name, heard, losing=False)
        self.lose(name, at_once=True)

    @rule(name=st.sampled_from(["ann", "bob"]), at_once=st.booleans())
    def lose(self, name: str, at_once: bool) -> None:
        user = self.users[name]
        link = user.link
        if link is None:
            return
        self.cut(user)
        if link.connection_id in self.connections:
            self.zombies[link.connection_id] = link
            if at_once:
                self.notice_that_a_client_has_gone(0)

    def cut(self, user: User) -> None:
        link, user.link = user.link, None
        if link is not None:
            self.tell(user, user.client.lost(link.closing or CloseCode.ABNORMAL_CLOSURE, now=self.now))

    @precondition(lambda self: self.connections)
    @rule(code=st.sampled_from([1012, 4410]))
    def send_somebody_away(self, code: int) -> None:
        self.serve(self.node.close(next(iter(self.connections)), code, "r", now=self.now, timestamp=STAMP))

    # The applications

    @rule(name=st.sampled_from(["ann", "bob"]), channel=st.sampled_from(JOINED))
    def join(self, name: str, channel: str) -> None:
        user = self.users[name]
        data = {"filters": FILTERS} if channel == "filtered" else {}
        token, effects = user.client.request(Join(channel, data), now=self.now)
        user.joins[token] = channel
        self.tell(user, effects)

    @rule(name=st.sampled_from(["ann", "bob"]), channel=st.sampled_from(JOINED), luck=st.integers(0, 2))
    def leave(self, name: str, channel: str, luck: int) -> None:
        user = self.users[name]
        if luck == 2:
            user.listener.left(channel)
            user.joins = {token: each for token, each in user.joins.items() if each != channel}
            self.tell(user, user.client.request(Leave(channel), now=self.now)[1])

    @rule(
        name=st.sampled_from(["ann", "bob"]),
        channel=st.sampled_from([*JOINED, None]),
        echo=st.booleans(),
        persistent=st.booleans(),
    )
    def say(self, name: str, channel: str | None, echo: bool, persistent: bool) -> None:
        user = self.users[name]
        said = Said(self.number(), "wanted", None if echo else name)
        message: dict[str, object] = {"type": "wanted", "n": said.number, "echo": echo, "key": said.number % 2}
        message |= {"recipient_id": "ann"} if channel is None else {"channel": channel}
        if persistent and channel != "last":
            message["persistent"] = True
        if len(user.pending) >= 6:
            return
        token, effects = user.client.request(Publish(message), now=self.now)
        user.pending[token] = user.sent[token] = said
        user.listener.awaited[said.number] = None
        self.tell(user, effects)

    def tell(self, user: User, effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case Open(token):
                    user.link = Link(f"c{self.number()}", token)
                case SendText(text):
                    assert user.link is not None
                    user.link.up.append(text)
                case Connected():
                    assert user.link is not None
                    assert user.link.began is not None
                    if not effect.reconnected:
                        user.listener.begin(user.link.began)
                    user.listener.connected(user.given)
                case MessageReceived(message):
                    user.listener.hear(message)
                case Answered(token, data):
                    self.settle(user, token, data)
                case Refused(token, code):
                    # Nothing else is refused here.
                    assert code in ("connection_lost", "left")
                    if token in user.pending:
                        number = user.pending.pop(token).number
                        del user.listener.awaited[number]
                        user.listener.refused[number] = None
                case Rejoined(channel, data):
                    user.listener.joined(channel, data)
                case Lost():
                    pass
                case Drop() | Ended() | ProtocolFault() | RejoinRefused():
                    raise AssertionError(effect)
                case _:
                    assert_never(effect)

    def settle(self, user: User, token: str, data: Any) -> None:
        if token in user.pending:
            number = user.pending.pop(token).number
            del user.listener.awaited[number]
            assert self.truth.places[number] == (data["epoch"], data["offset"])
        elif token in user.joins:
            user.listener.joined(user.joins.pop(token), data)

    def teardown(self) -> None:
        for _ in range(3):
            # The last thing said shows what was lost before it.
            for channel in [*JOINED, "given", "$broadcast", "$user:ann", "$user:bob"]:
                self.publish(channel, "wanted", False)
                self.settle_down()
        for user in self.users.values():
            assert not user.pending
            assert not user.joins
            user.listener.settled()

    @rule()
    def settle_down(self) -> None:
        """Let everybody come back, and hear all there is."""
        for _ in range(300):
            busy = False
            for name, user in self.users.items():
                self.accept(name)
                self.carry_up(name, 1)
                self.carry_down(name, 100, losing=False)
                busy = busy or user.link is None or user.link.began is None or bool(user.link.up or user.link.down)
            self.drop_slow_consumers()
            if not busy:
                return
        raise AssertionError("it does not come to rest")


TestClientAndNode = ClientAndNode.TestCase
TestClientAndNode.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
