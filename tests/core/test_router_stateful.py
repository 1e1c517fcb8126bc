"""The router against a model made of plain lists: arbitrary clients come, join, publish, leave and go."""

from __future__ import annotations

import json

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from rtcore.messages import Message
from rtcore.namespaces import Namespace, Namespaces
from rtcore.router import (
    Deliver,
    Effect,
    Joined,
    Left,
    Publish,
    Published,
    Refused,
    Request,
    Roster,
    Router,
    RouterConfig,
    Subscribe,
    Unsubscribe,
)

CONNECTIONS = ["c1", "c2", "c3", "c4", "c5"]
USERS = [None, "ann", "bob"]
CHANNELS = ["a", "b", "c", "d"]
BUILT_IN = ["$broadcast", "$user:ann", "$user:bob", *(f"$connection:{name}" for name in CONNECTIONS)]
IDLE_TIMEOUT = 10.0
# Without a history and without grace it is known to the second how long a channel is kept.
NAMESPACES = Namespaces(default=Namespace(pattern="*", history_size=0, presence_grace=0.0))


@attrs.define
class ModelChannel:
    """What a channel must be like: its epoch is unknown until the router tells it."""

    epoch: str | None = None
    offset: int = 0
    subscribers: list[str] = attrs.field(factory=list)
    idle_until: float | None = None


class RouterMachine(RuleBasedStateMachine):
    @initialize(max_channels=st.integers(1, 4), presence_limit=st.integers(0, 4), max_idle=st.integers(0, 6))
    def start(self, max_channels: int, presence_limit: int, max_idle: int) -> None:
        self.config = RouterConfig(max_channels, presence_limit, IDLE_TIMEOUT, max_idle, NAMESPACES, idempotency_size=0)
        self.router = Router(self.config, entropy="e")
        self.now = 0.0
        self.users: dict[str, str | None] = {}  # of the attached, in the order in which they came
        self.joined: dict[str, list[str]] = {}
        self.channels: dict[str, ModelChannel] = {}
        self.epochs: dict[str, str] = {}  # every epoch there ever was, and its channel
        self.heard: dict[tuple[str, str], int] = {}  # what each connection heard last in each channel it hears
        self.seq = 0  # of the last publication that was heard of

    # The model

    def hear(self, name: str, connection_id: str) -> None:
        channel = self.channels.setdefault(name, ModelChannel())
        channel.idle_until = None
        channel.subscribers.append(connection_id)
        self.heard[connection_id, name] = channel.offset

    def stop_hearing(self, name: str, connection_id: str) -> None:
        self.channels[name].subscribers.remove(connection_id)
        del self.heard[connection_id, name]
        self.rest(name)

    def rest(self, name: str) -> None:
        channel = self.channels.pop(name)
        self.channels[name] = channel  # the last to begin to idle is the last
        if not channel.subscribers:
            channel.idle_until = self.now + IDLE_TIMEOUT
        idle = [name for name, channel in self.channels.items() if channel.idle_until is not None]
        for forgotten in idle[: max(0, len(idle) - self.config.max_idle)]:
            del self.channels[forgotten]

    def check_epoch(self, name: str, epoch: str) -> None:
        """A channel keeps its epoch for as long as it lives, and no other has it, now or ever."""
        channel = self.channels[name]
        if channel.epoch is None:
            assert epoch not in self.epochs
            channel.epoch = epoch
            self.epochs[epoch] = name
        assert channel.epoch == epoch

    def members(self, name: str) -> list[Message]:
        """Return who is present: users once, by the first of their connections there, the anonymous each."""
        found: dict[str, Message] = {}
        for connection_id in self.channels[name].subscribers if name in self.channels else ():
            user_id = self.users[connection_id]
            identity = f"connection {connection_id}" if user_id is None else f"user {user_id}"
            found.setdefault(identity, {"user_id": user_id, "connection_id": connection_id})
        # The router lists them in the order in which they came, whichever of their connections that was by.
        return list(found.values())

    def same_members(self, listed: list[Message] | None, name: str) -> bool:
        expected = self.members(name)
        if listed is None:
            return len(expected) > self.config.presence_limit

        def key(member: Message) -> str:
            return str(member["connection_id"])

        return len(expected) <= self.config.presence_limit and sorted(listed, key=key) == sorted(expected, key=key)

    def expect_news(self, effects: list[Effect], kind: str, channel: str, connection_id: str, count: int) -> None:
        """Take the `Deliver` of ``user_joined``, ``user_left`` or ``gap`` off `effects`, if there must be one.

        Args:
            effects: What has happened.
            kind: What must have.
            channel: Where.
            connection_id: Who has come or gone.
            count: How many are there now.
        """
        subscribers = self.channels[channel].subscribers if channel in self.channels else []
        limit = self.config.presence_limit
        if count == (limit if kind == "user_left" else limit + 1):
            # Whoever was told of changes will not be, or the other way round.
            if subscribers:
                told = effects.pop(0)
                assert isinstance(told, Deliver)
                assert (told.connections, told.skip, told.message.id) == (tuple(subscribers), None, None)
                message = json.loads(told.message.json)
                assert (message["type"], message["stream"], message["offset"]) == ("gap", "presence", 0)
        elif count <= limit:
            self.seq += 1
            others = [other for other in subscribers if other != connection_id]
            if others:
                told = effects.pop(0)
                assert isinstance(told, Deliver)
                assert [other for other in told.connections if other != told.skip] == others
                message = json.loads(told.message.json)
                assert (message["type"], message["channel"]) == (kind, channel)
                assert (message["connection_id"], message["meta"]["id"]) == (connection_id, f"e-{self.seq}")
                assert message["meta"]["epoch"] not in self.epochs

    def is_there_by_another(self, name: str, connection_id: str, user_id: str | None) -> bool:
        if name not in self.channels or user_id is None:
            return False
        return any(
            self.users.get(other) == user_id for other in self.channels[name].subscribers if other != connection_id
        )

    # What may happen

    @rule(connection_id=st.sampled_from(CONNECTIONS), user_id=st.sampled_from(USERS))
    def attach(self, connection_id: str, user_id: str | None) -> None:
        if connection_id in self.users:
            return
        self.router.attach(connection_id, user_id, now=self.now)
        self.users[connection_id] = user_id
        self.joined[connection_id] = []
        if user_id is not None:
            self.hear(f"$user:{user_id}", connection_id)
        self.hear("$broadcast", connection_id)
        if f"$connection:{connection_id}" in self.channels:
            self.hear(f"$connection:{connection_id}", connection_id)

    def somebody(self, connection_id: str) -> None:
        """Attach a connection if it is not there."""
        if connection_id not in self.users:
            self.attach(connection_id, None)

    def leave(self, effects: list[Effect], name: str, connection_id: str, user_id: str | None) -> None:
        self.stop_hearing(name, connection_id)  # it may be forgotten as soon as it is empty
        if not self.is_there_by_another(name, connection_id, user_id):
            self.expect_news(effects, "user_left", name, connection_id, len(self.members(name)))

    @rule(connection_id=st.sampled_from(CONNECTIONS))
    def detach(self, connection_id: str) -> None:
        self.somebody(connection_id)
        effects = self.router.detach(connection_id, now=self.now, timestamp=0)
        user_id = self.users[connection_id]
        for name in self.joined.pop(connection_id):
            self.leave(effects, name, connection_id, user_id)
        assert not effects
        self.stop_hearing("$broadcast", connection_id)
        own = f"$connection:{connection_id}"
        if own in self.channels:
            del self.channels[own], self.heard[connection_id, own]
        if user_id is not None:
            self.stop_hearing(f"$user:{user_id}", connection_id)
        del self.users[connection_id]

    @rule(
        connection_id=st.sampled_from(CONNECTIONS),
        name=st.sampled_from(CHANNELS),
        identifier=st.none() | st.integers(0, 9),
    )
    def subscribe(self, connection_id: str, name: str, identifier: int | None) -> None:
        self.somebody(connection_id)
        request = Request(connection_id, identifier)
        effects = self.router.send(Subscribe(name, request), now=self.now, timestamp=0)
        joined = self.joined[connection_id]
        answer = effects.pop(0)
        if name not in joined and len(joined) >= self.config.max_channels:
            assert isinstance(answer, Refused)
            assert (answer.request, answer.refusal.code, effects) == (request, "too_many_channels", [])
            return
        assert isinstance(answer, Joined)
        appeared = name not in joined and not self.is_there_by_another(name, connection_id, self.users[connection_id])
        if name not in joined:
            joined.append(name)
            self.hear(name, connection_id)
        self.check_epoch(name, answer.epoch)
        assert (answer.request, answer.channel, answer.offset) == (request, name, self.channels[name].offset)
        assert answer.roster is not None
        assert answer.roster.count == len(self.members(name))
        assert self.same_members(answer.roster.members, name)
        if appeared:
            self.expect_news(effects, "user_joined", name, connection_id, len(self.members(name)))
        assert not effects

    @rule(connection_id=st.sampled_from(CONNECTIONS), name=st.sampled_from(CHANNELS))
    def unsubscribe(self, connection_id: str, name: str) -> None:
        self.somebody(connection_id)
        request = Request(connection_id, 1)
        effects = self.router.send(Unsubscribe(name, request), now=self.now, timestamp=0)
        assert effects.pop(0) == Left(request, name)
        if name in self.joined[connection_id]:
            self.joined[connection_id].remove(name)
            self.leave(effects, name, connection_id, self.users[connection_id])
        assert not effects

    @rule(
        sender=st.none() | st.sampled_from(CONNECTIONS),
        name=st.sampled_from(CHANNELS) | st.sampled_from(BUILT_IN),
        echo=st.booleans(),
        times=st.integers(1, 3),
    )
    def publish(self, sender: str | None, name: str, echo: bool, times: int) -> None:
        if sender is not None:
            self.somebody(sender)
        request = Request(sender, 5)
        if sender is not None and name.startswith(("$broadcast", "$connection:")) and name != f"$connection:{sender}":
            refused = self.router.send(Publish(name, {"type": "text"}, request), now=self.now, timestamp=0)
            assert [type(each) for each in refused] == [Refused]
            return
        for _ in range(times):
            self.seq += 1
            skip = None if echo else sender
            effects = self.router.send(Publish(name, {"type": "text"}, request, skip), now=self.now, timestamp=0)
            if name not in self.channels:
                self.channels[name] = ModelChannel()
                if name.startswith("$connection:") and (own := name.partition(":")[2]) in self.users:
                    self.hear(name, own)
            channel = self.channels[name]
            channel.offset += 1
            receipt = effects.pop()
            assert isinstance(receipt, Published)
            assert (receipt.request, receipt.channel, receipt.offset) == (request, name, channel.offset)
            assert receipt.id == f"e-{self.seq}"
            self.check_epoch(name, receipt.epoch)
            if channel.subscribers:
                delivery = effects.pop(0)
                assert isinstance(delivery, Deliver)
                assert (delivery.connections, delivery.skip) == (tuple(channel.subscribers), skip)
                meta = json.loads(delivery.message.json)["meta"]
                assert (meta["epoch"], meta["id"]) == (receipt.epoch, f"e-{self.seq}")
                assert meta["sender"] == {"connection_id": sender, "user_id": self.users.get(sender or "")}
                for connection_id in delivery.connections:
                    # In order and without gaps, from where each came in.
                    assert meta["offset"] == self.heard[connection_id, name] + 1
                    self.heard[connection_id, name] += 1
            else:
                self.rest(name)
            assert not effects

    @rule(seconds=st.sampled_from([0.0, 1.0, 9.0, 10.0, 100.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        assert self.router.handle_timeout(now=self.now, timestamp=0) == []
        for name, channel in list(self.channels.items()):
            if channel.idle_until is not None and channel.idle_until <= self.now:
                del self.channels[name]
        at = self.router.next_timeout()
        assert at is None or at > self.now

    # What is always so

    @invariant()
    def it_tells_what_there_is(self) -> None:
        users = dict.fromkeys(user for user in self.users.values() if user is not None)
        assert sorted(self.router.users) == sorted(users)
        assert self.router.user_count == len(users)
        for connection_id, joined in self.joined.items():
            assert self.router.channels_of(connection_id) == joined
        in_use = {name for name in CHANNELS if name in self.channels and self.channels[name].subscribers}
        assert {channel.name for channel in self.router.channels()} == in_use
        for name in CHANNELS:
            roster = self.router.roster(name)
            assert isinstance(roster, Roster)
            assert roster.count == len(self.members(name))
            assert self.same_members(roster.members, name)
        idle = [channel.idle_until for channel in self.channels.values() if channel.idle_until is not None]
        assert self.router.next_timeout() == min(idle, default=None)
        assert len(idle) <= self.config.max_idle

    def teardown(self) -> None:
        if not hasattr(self, "router"):
            return
        for connection_id in self.users:
            self.router.detach(connection_id, now=self.now, timestamp=0)
        self.router.handle_timeout(now=self.now + IDLE_TIMEOUT, timestamp=0)
        assert self.router.next_timeout() is None
        assert self.router.empty
        assert not self.router.users


RouterMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40)
TestRouter = RouterMachine.TestCase
