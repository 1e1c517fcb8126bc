"""The client's machine against a model server, over links that may break at any time."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rtcore.client import (
    Answered,
    Client,
    ClientConfig,
    ClientState,
    Connected,
    Disconnect,
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
    RefreshDue,
    Refused,
    Rejoined,
    RejoinRefused,
    Request,
    Send,
    SendText,
)
from rtcore.errors import QueueFull

channels = st.sampled_from("abc")
waits = st.sampled_from([0.0, 0.1, 1.0, 5.0, 12.0, 40.0])
OFFLINE = (ClientState.CONNECTING, ClientState.WAITING)


class ModelServer:
    """One connection of a server that carries out what arrives in order, and answers in any order.

    While it is busy it carries nothing out, and says so.
    """

    def __init__(self) -> None:
        self.busy = False
        self.members: dict[str, object] = {}
        self.log: list[dict[str, Any]] = []
        self.answers: list[dict[str, object]] = []

    def receive(self, text: str, refuse: bool) -> None:
        message = json.loads(text)
        self.log.append(message)
        data = message.get("data")
        if self.busy:
            busy = {"type": "error", "code": "rate_limited", "message": "wait", "retry_after": 1.0}
            self.answers.append({**busy, "id": message["id"]} if "id" in message else busy)
            return
        refuse = refuse and message.get("command") != "leave_channel"
        if not refuse and message.get("command") == "join_channel":
            self.members[data["channel"]] = data["n"]
        if message.get("command") == "leave_channel":
            self.members.pop(data["channel"], None)
        if "id" in message and refuse:
            self.answers.append({"type": "error", "id": message["id"], "code": "forbidden", "message": "no"})
        elif "id" in message:
            self.answers.append({"type": "response", "id": message["id"], "ok": True, "data": data})


class ClientMachine(RuleBasedStateMachine):
    """Everything that a transport, an application and a server may do, in any order."""

    @initialize(
        jitter=st.floats(0.0, 1.0, exclude_max=True),
        attempts=st.sampled_from([None, None, None, 3]),
        interval=st.sampled_from([None, 4.0]),
        refreshes=st.booleans(),
    )
    def begin(self, jitter: float, attempts: int | None, interval: float | None, refreshes: bool) -> None:
        self.now = 0.0
        self.interval = interval
        self.config = ClientConfig(max_reconnect_attempts=attempts, queue_size=6, refreshes=refreshes)
        draws = iter([0.0])
        self.client = Client(self.config, random=lambda: next(draws, jitter))
        self.server: ModelServer | None = None
        self.refusing = False
        self.saying_goodbye: int | None = None
        # When the token of the connection expires, if it is known to, and whether a fresh one is waited for.
        self.expires_at: float | None = None
        self.token_due = False
        # Whether the last connection, or attempt, was refused for its token, and none was welcomed since.
        self.unauthorized = False
        self.serial = 0
        self.outcomes: Counter[str] = Counter()
        self.asked: list[str] = []
        # Numbers of the messages that must reach the next connection, in order.
        self.queued: list[int] = []
        self.kept: list[str] = []
        # Publications that were sent and are not acknowledged, and those in the queue.
        self.sent: dict[str, int] = {}
        self.lives = 0
        self.unsent: dict[str, int] = {}
        # Joins by number: not answered yet and not overtaken by a leave, granted, and to be granted once more.
        self.joins: dict[str, tuple[str, int]] = {}
        self.granted: dict[str, int] = {}
        self.renewed: dict[str, int] = {}
        self.carry_out(self.client.connect(now=self.now))

    # What the effects must mean.

    def carry_out(self, effects: list[Effect]) -> None:
        """Do as a transport does, and hold each effect against the model."""
        for index, effect in enumerate(effects):
            match effect:
                case Open():
                    assert self.server is None
                    assert self.client.state is ClientState.CONNECTING
                    self.server = ModelServer()
                case SendText(text):
                    assert self.server is not None
                    self.server.receive(text, self.refusing)
                case Drop():
                    assert self.server is not None
                    self.break_link()
                case Answered(token) | Refused(token):
                    self.outcomes[token] += 1
                    self.settle(token, granted=isinstance(effect, Answered))
                case Rejoined(channel):
                    self.granted[channel] = max(self.renewed.pop(channel), self.granted.get(channel, 0))
                case RejoinRefused(channel):
                    del self.renewed[channel]
                case Lost(code, _, retry_at):
                    assert index == len(effects) - 1
                    # Whoever has said so need not have closed: the client ends such a link by itself.
                    self.unauthorized |= code == 4401
                    assert self.now <= retry_at <= self.now + 30.0 + 20.0
                    self.break_link()
                case Ended(_, _, unsent):
                    assert index == len(effects) - 1
                    assert unsent == sum(number > 0 for number in self.queued)
                    self.break_link()
                case RefreshDue():
                    assert self.config.refreshes
                    assert self.online
                    assert not self.token_due
                    self.token_due = True
                case Connected() | MessageReceived():
                    assert self.server is not None
                case ProtocolFault():
                    raise AssertionError("the model server makes no mistakes")

    def settle(self, token: str, *, granted: bool) -> None:
        """Follow a join or a publication to its outcome."""
        self.sent.pop(token, None)
        self.unsent.pop(token, None)
        if token in self.joins:
            channel, number = self.joins.pop(token)
            if granted:
                self.granted[channel] = max(number, self.granted.get(channel, 0))

    def wanted(self) -> dict[str, int]:
        """Return the desired memberships, and of each the number of the newest join that was not refused."""
        wanted: dict[str, int] = {}
        for channel, number in [*self.joins.values(), *self.granted.items(), *self.renewed.items()]:
            wanted[channel] = max(number, wanted.get(channel, 0))
        return wanted

    def break_link(self) -> None:
        self.server = None
        self.saying_goodbye = None
        self.expires_at = None
        self.token_due = False
        for channel, number in self.renewed.items():
            self.granted[channel] = max(number, self.granted.get(channel, 0))
        self.renewed.clear()

    def number(self) -> int:
        self.serial += 1
        return self.serial

    # What an application does.

    @property
    def online(self) -> bool:
        return self.client.state is ClientState.CONNECTED and self.saying_goodbye is None

    def alive(self) -> bool:
        return self.client.state not in (ClientState.IDLE, ClientState.CLOSED)

    @precondition(alive)
    @rule()
    def send(self) -> None:
        number = self.number()
        try:
            effects = self.client.send(Send({"type": "text", "n": number}), now=self.now)
        except QueueFull:
            assert not self.online
            return
        assert len(effects) == self.online
        if not self.online:
            self.queued.append(number)
        self.carry_out(effects)

    @precondition(alive)
    @rule(publish=st.booleans())
    def request(self, publish: bool) -> None:
        number = self.number()
        message = {"type": "x", "channel": "c", "n": number}
        command = Publish(message) if publish else Request("x", {"n": number})
        try:
            token, effects = self.client.request(command, now=self.now)
        except QueueFull:
            assert not self.online
            return
        assert len(effects) == self.online
        if not self.online:
            self.queued.append(-number)
            self.kept.append(token)
        if publish:
            (self.sent if self.online else self.unsent)[token] = number
        self.asked.append(token)
        self.carry_out(effects)

    @precondition(alive)
    @rule(channel=channels)
    def join(self, channel: str) -> None:
        number = self.number()
        try:
            token, effects = self.client.request(Join(channel, {"n": number}), now=self.now)
        except QueueFull:
            assert not self.online
            return
        assert len(effects) == self.online
        self.asked.append(token)
        self.joins[token] = (channel, number)
        self.carry_out(effects)

    @precondition(alive)
    @rule(channel=channels)
    def leave(self, channel: str) -> None:
        token, effects = self.client.request(Leave(channel), now=self.now)
        self.asked.append(token)
        self.joins = {join: each for join, each in self.joins.items() if each[0] != channel}
        self.granted.pop(channel, None)
        self.renewed.pop(channel, None)
        self.carry_out(effects)
        assert self.outcomes[token] == (not self.online)

    @precondition(alive)
    @rule(luck=st.integers(0, 30))
    def disconnect(self, luck: int) -> None:
        if luck == 30:
            self.carry_out(self.client.send(Disconnect(), now=self.now))

    @precondition(lambda self: self.token_due)
    @rule()
    def give_token(self) -> None:
        self.token_due = False
        number = self.number()
        token, effects = self.client.request(Request("refresh_token", {"token": "t", "n": number}), now=self.now)
        self.asked.append(token)
        self.carry_out(effects)
        assert self.server is not None
        assert self.server.log[-1]["data"]["n"] == number

    @precondition(lambda self: self.token_due)
    @rule()
    def have_no_token(self) -> None:
        self.token_due = False
        self.carry_out(self.client.refresh_failed(now=self.now))
        if self.expires_at is not None:
            assert self.client.refresh_at is not None

    @precondition(lambda self: self.client.state is ClientState.WAITING)
    @rule()
    def hurry(self) -> None:
        self.carry_out(self.client.connect(now=self.now))

    # What the server and the network do.

    def linked(self) -> bool:
        return self.server is not None and self.client.state is not ClientState.CLOSED

    @precondition(lambda self: self.client.state is ClientState.CONNECTING)
    @rule(refusing=st.sampled_from([False, False, True]), known=st.booleans(), life=st.sampled_from([None, 0, 8.0]))
    def welcome(self, refusing: bool, known: bool, life: float | None) -> None:
        self.refusing = refusing
        self.client.opened(now=self.now)
        hello = {"type": "connected", "connection_id": "c", "heartbeat_interval": self.interval}
        hello["expires_in"] = life
        self.unauthorized = False
        self.lives += not known
        hello["session_epoch"] = f"s{self.lives}"
        again = list(self.sent.values()) if known else []
        given_up = [] if known else list(self.sent)
        wanted = self.wanted()
        order = list(self.client.channels)
        self.renewed, self.granted = self.granted, {}
        self.carry_out(self.client.receive_text(json.dumps(hello), now=self.now))
        self.expires_at = None if life is None else self.now + life
        due_at = self.client.refresh_at
        assert (due_at is not None) == (life is not None and self.config.refreshes)
        assert not due_at or not life or self.now < due_at < self.now + life
        assert self.server is not None
        log = self.server.log
        cut = sum(message.get("command") == "join_channel" for message in log)
        # Joins first, in the order in which the channels were joined, then what is sent again, then the queue.
        channels = [message["data"]["channel"] for message in log[:cut]]
        assert list(dict.fromkeys(channels)) == order
        numbers = [(m["data"] if m["type"] == "command" else m)["n"] for m in log[cut:]]
        assert numbers == [*again, *(abs(number) for number in self.queued)]
        assert all(self.outcomes[token] == 1 for token in given_up)
        self.sent |= self.unsent
        self.unsent.clear()
        self.queued.clear()
        self.kept.clear()
        if not refusing:
            assert list(self.server.members) == order
            assert self.server.members == wanted

    @precondition(lambda self: self.server is not None and self.server.answers)
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        assert self.server is not None
        index = data.draw(st.integers(0, len(self.server.answers) - 1))
        answer = self.server.answers.pop(index)
        self.carry_out(self.client.receive_text(json.dumps(answer), now=self.now))

    @precondition(lambda self: self.client.state is ClientState.CONNECTED)
    @rule(busy=st.booleans())
    def be_busy(self, busy: bool) -> None:
        assert self.server is not None
        self.server.busy = busy

    @precondition(lambda self: self.online)
    @rule()
    def come_to_rest(self) -> None:
        server = self.server
        assert server is not None
        server.busy = False
        for _ in range(4):
            self.answer_all()
            self.pass_time(1.0)
            if self.server is not server:
                return
        if not server.answers:
            assert sorted(server.members) == sorted(self.wanted())

    @precondition(lambda self: self.client.state is ClientState.CONNECTED)
    @rule(code=st.sampled_from([1012, 1013, 4401]), retry_after=st.sampled_from([None, 0.0, 20.0]))
    def say_goodbye(self, code: int, retry_after: float | None) -> None:
        message = {"type": "disconnect", "code": code, "reason": "r", "reconnect": code != 4401}
        message["retry_after"] = retry_after
        self.carry_out(self.client.receive_text(json.dumps(message), now=self.now))
        self.saying_goodbye = code
        self.token_due = False

    @precondition(linked)
    @rule(code=st.sampled_from([None, 1001, 1006, 1011, 1012, 1013, 4408, 4410, 4429, 4401, 4401]))
    def lose(self, code: int | None) -> None:
        if self.saying_goodbye is not None:
            code = self.saying_goodbye
        final = code == 4401 and (self.unauthorized or not self.config.refreshes)
        self.carry_out(self.client.lost(code, now=self.now))
        if final or self.config.max_reconnect_attempts is None:
            assert self.client.state is (ClientState.CLOSED if final else ClientState.WAITING)

    @precondition(lambda self: self.client.state is ClientState.CONNECTED)
    @rule()
    def lose_and_come_back(self) -> None:
        self.lose(None)
        if self.client.state is ClientState.WAITING:
            self.hurry()
            self.welcome(refusing=False, known=True, life=None)

    @precondition(lambda self: self.server is not None and self.server.answers)
    @rule()
    def answer_all(self) -> None:
        assert self.server is not None
        answers, self.server.answers = self.server.answers, []
        for answer in answers:
            self.carry_out(self.client.receive_text(json.dumps(answer), now=self.now))

    @rule(wait=waits)
    def pass_time(self, wait: float) -> None:
        end = self.now + wait
        while (at := self.client.next_timeout()) is not None and at <= end:
            self.now = max(self.now, at)
            self.carry_out(self.client.handle_timeout(now=self.now))
            after = self.client.next_timeout()
            assert after is None or after >= self.now
        self.now = end

    @precondition(linked)
    @rule()
    def receive_heartbeat(self) -> None:
        if self.client.state is ClientState.CONNECTED:
            message: dict[str, object] = {"type": "heartbeat"}
            assert self.client.receive_text(json.dumps(message), now=self.now) == [MessageReceived(message)]
        else:
            self.client.receive_activity(now=self.now)

    # What must always hold.

    @invariant()
    def memberships_are_the_desired_ones(self) -> None:
        if self.alive():
            assert sorted(self.client.channels) == sorted(self.wanted())

    @invariant()
    def a_token_is_wanted_where_it_is_waited_for(self) -> None:
        assert self.client.refresh_wanted == self.token_due
        if self.client.refresh_at is not None:
            assert self.online
            assert not self.token_due

    @invariant()
    def every_outcome_is_told_at_most_once(self) -> None:
        assert all(count == 1 for count in self.outcomes.values() if count)
        assert all(token in self.asked for token, count in self.outcomes.items() if count)

    @invariant()
    def a_lost_link_leaves_nothing_under_way(self) -> None:
        if self.client.state is ClientState.WAITING:
            pending = [token for token in self.asked if not self.outcomes[token]]
            assert sorted(pending) == sorted([*self.kept, *self.joins, *self.sent])

    @invariant()
    def nothing_is_pending_after_the_end(self) -> None:
        if self.client.state is ClientState.CLOSED:
            assert self.client.next_timeout() is None
            assert sorted(self.asked) == sorted(self.outcomes.elements())

    def teardown(self) -> None:
        if self.alive():
            self.carry_out(self.client.send(Disconnect(), now=self.now))
        self.nothing_is_pending_after_the_end()


TestClientMachine = ClientMachine.TestCase
TestClientMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
