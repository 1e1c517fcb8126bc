"""What connections are allowed, in any order of events: none outlives it, and none is where it may not be."""

from __future__ import annotations

import json
from collections.abc import Sequence

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from rtcore.errors import Refusal
from rtcore.messages import Message
from rtcore.node import Close, Consult, Node, NodeConfig, NodeEffect, Verify
from rtcore.permissions import Action, Credential, Grant, Identity, Scope, decide
from rtcore.permissions.revocations import Revocation
from rtcore.router import Deliver
from rtcore.session import Transport

from .node_talk import STAMP

CONNECTIONS = ["c1", "c2"]
USERS = [None, "ann", "bob"]
NAMES = ["a", "b"]
TIMES = [None, None, 0.0, 1.0, 2.5, 6.0]
MAX_PER_USER, MAX_PER_ADDRESS = 1, 1
ADDRESSES = [None, "10.0.0.1"]

SCOPES = st.sampled_from([Scope(), Scope(exclusive=True), Scope(("a",), exclusive=True), Scope(("*",), exclusive=True)])


@attrs.define
class Client:
    """A connection as it must be.

    Attributes:
        number: That no other has had.
        grant: What it is allowed.
        ends_at: When that ends on the monotonic clock, or ``None``.
    """

    number: int
    user_id: str | None
    address: str | None
    grant: Grant
    ends_at: float | None

    def may(self, action: Action, name: str) -> bool:
        return decide(action, name, user_id=self.user_id, grant=self.grant) is None


class GrantsMachine(RuleBasedStateMachine):
    @initialize(consults=st.booleans())
    def start(self, consults: bool) -> None:
        config = NodeConfig(websocket_heartbeat=3.0, max_per_user=MAX_PER_USER, max_per_address=MAX_PER_ADDRESS)
        consulted = (Action.SUBSCRIBE, Action.PUBLISH) if consults else ()
        self.node = Node(config, entropy="e", consulted=consulted)
        self.now, self.wall = 100.0, STAMP / 1000
        self.clients: dict[str, Client] = {}
        self.revocations: list[Revocation] = []
        self.pending: list[tuple[int, Verify | Consult]] = []
        self.serial = 0
        self.tokens: list[str] = []

    @property
    def timestamp(self) -> int:
        return round(self.wall * 1000)

    def is_revoked(self, user_id: str | None, grant: Grant) -> bool:
        """Tell whether a token is, by what it says alone."""
        if grant.credential is not Credential.TOKEN:
            return False
        return any(
            self.wall < each.until
            and each.token_id in (None, grant.token_id)
            and each.user_id in (None, user_id)
            and (each.issued_before is None or grant.issued_at is None or grant.issued_at < each.issued_before)
            for each in self.revocations
        )

    def is_good(self, user_id: str | None, grant: Grant) -> bool:
        expired = grant.expires_at is not None and grant.expires_at <= self.wall
        return not expired and not self.is_revoked(user_id, grant)

    def end_of(self, grant: Grant) -> float | None:
        return None if grant.expires_at is None else self.now + (grant.expires_at - self.timestamp / 1000)

    def has_ended(self, connection_id: str) -> bool:
        ends_at = self.clients[connection_id].ends_at
        return ends_at is not None and ends_at <= self.now

    def perform(self, effects: Sequence[NodeEffect]) -> None:
        """Take note of what happens: nothing to whom there is not, and nothing after its end."""
        for effect in effects:
            if isinstance(effect, Deliver):
                for connection_id in effect.connections:
                    self.clients[connection_id]
            elif isinstance(effect, Close):
                assert effect.code == 4401
                client = self.clients.pop(effect.connection_id)
                over = client.ends_at is not None and client.ends_at <= self.now
                assert over or self.is_revoked(client.user_id, client.grant)
            elif isinstance(effect, Verify | Consult):
                connection_id = str(effect.request.connection_id)
                self.pending.append((self.clients[connection_id].number, effect))

    def grant_of(
        self, scope: Scope, rooms: Scope, which: int | None, issued: float | None, ends: float | None
    ) -> Grant:
        """Return what a token allows, the last one again or another, or, without one, the application or an API key."""
        grant = Grant(subscribe=scope, publish=scope, history=scope, presence=scope, signal=rooms)
        expires_at = None if ends is None else self.timestamp / 1000 + ends
        if which is None:
            credential = Credential.NONE if issued is None else Credential.KEY
            return attrs.evolve(grant, credential=credential, expires_at=expires_at)
        if which or not self.tokens:
            self.tokens.append(f"t{len(self.tokens)}")
        token_id = self.tokens[-1]
        issued_at = None if issued is None else self.timestamp / 1000 - issued
        return attrs.evolve(
            grant, credential=Credential.TOKEN, token_id=token_id, issued_at=issued_at, expires_at=expires_at
        )

    grants = st.tuples(
        SCOPES,
        SCOPES,
        st.sampled_from([None, 0, 1, 1, 1]),
        st.sampled_from([None, 0.0, 2.0]),
        st.sampled_from(TIMES),
    )
    connections = st.sampled_from(CONNECTIONS)

    @rule(
        connection_id=connections,
        user_id=st.sampled_from(USERS),
        address=st.sampled_from(ADDRESSES),
        drawn=grants,
        is_admitted=st.booleans(),
    )
    def connect(
        self,
        connection_id: str,
        user_id: str | None,
        address: str | None,
        drawn: tuple[Scope, Scope, int | None, float | None, float | None],
        is_admitted: bool,
    ) -> None:
        if connection_id in self.clients:
            return
        grant = self.grant_of(*drawn)
        good = self.is_good(user_id, grant)
        others = list(self.clients.values())
        crowded = (user_id is not None and sum(each.user_id == user_id for each in others) >= MAX_PER_USER) or (
            address is not None and sum(each.address == address for each in others) >= MAX_PER_ADDRESS
        )
        refusal = self.node.admit(
            Transport.WEBSOCKET, user_id=user_id, grant=grant, address=address, timestamp=self.timestamp
        )
        assert (refusal is None) is (good and not crowded)
        if is_admitted and refusal is not None and (crowded or good):
            return
        self.come(connection_id, user_id, address, grant)

    def come(self, connection_id: str, user_id: str | None, address: str | None, grant: Grant) -> None:
        good = self.is_good(user_id, grant)
        effects = self.node.connect(
            connection_id,
            user_id=user_id,
            grant=grant,
            address=address,
            transport=Transport.WEBSOCKET,
            channels=NAMES,
            now=self.now,
            timestamp=self.timestamp,
        )
        if not good:
            assert [type(each) for each in effects] == [Deliver, Close]
            return
        self.serial += 1
        self.clients[connection_id] = Client(self.serial, user_id, address, grant, self.end_of(grant))
        self.perform(effects)

    def is_there(self, connection_id: str) -> bool:
        """Tell whether somebody is, who comes now if not, unless the token is good for nothing."""
        if connection_id not in self.clients:
            self.come(connection_id, None, None, self.grant_of(Scope(), Scope(), 1, 0.0, 6.0))
        return connection_id in self.clients

    @rule(connection_id=connections)
    def disconnect(self, connection_id: str) -> None:
        self.clients.pop(connection_id, None)
        self.perform(self.node.disconnect(connection_id, now=self.now, timestamp=self.timestamp))

    @rule(
        connection_id=connections,
        name=st.sampled_from(NAMES),
        command=st.sampled_from(["join_channel", "join_room", "join_room", "refresh_token", "text"]),
    )
    def say(self, connection_id: str, name: str, command: str) -> None:
        if not self.is_there(connection_id):
            return
        data = {"channel": name, "room_id": name, "token": "x"}
        message: Message = {"type": "command", "command": command, "data": data, "id": "1"}
        if command == "text":
            message = {"type": "text", "channel": name}
        ended = self.has_ended(connection_id)
        self.perform(self.node.receive_text(connection_id, json.dumps(message), now=self.now, timestamp=self.timestamp))
        assert (connection_id in self.clients) is not ended

    @rule(
        which=st.integers(0, 5),
        is_mistaken=st.sampled_from([False, False, False, True]),
        drawn=grants,
        fails=st.sampled_from([False, False, False, True]),
    )
    def answer(
        self,
        which: int,
        is_mistaken: bool,
        drawn: tuple[Scope, Scope, int | None, float | None, float | None],
        fails: bool,
    ) -> None:
        """Say what has become of a token, or what the application says, in any order and however late."""
        if not self.pending:
            return
        number, effect = self.pending.pop(which % len(self.pending))
        connection_id = str(effect.request.connection_id)
        client = self.clients.get(connection_id)
        refusal = Refusal("no", "no") if fails else None
        if isinstance(effect, Consult):
            effects = self.node.resolve(effect, refusal, now=self.now, timestamp=self.timestamp)
            if client is None or client.number != number:
                assert effects == []
            self.perform(effects)
            return
        grant = self.grant_of(*drawn)
        user_id = "eve" if client is None or is_mistaken else client.user_id
        ended = client is not None and self.has_ended(connection_id)
        goes_on = client is not None and client.user_id == user_id and self.is_good(user_id, grant) and not fails
        if client is not None and goes_on and not ended:
            client.grant, client.ends_at = grant, self.end_of(grant)
        effects = self.node.renew(
            effect.request, refusal or Identity(user_id, grant), now=self.now, timestamp=self.timestamp
        )
        assert (effects == []) is (client is None)
        self.perform(effects)
        assert (connection_id in self.clients) is (client is not None and not ended)

    @rule(connection_id=connections, is_known=st.booleans(), of_user=st.booleans(), drawn=grants)
    def regrant(
        self,
        connection_id: str,
        is_known: bool,
        of_user: bool,
        drawn: tuple[Scope, Scope, int | None, float | None, float | None],
    ) -> None:
        if is_known:
            self.is_there(connection_id)
        grant = self.grant_of(*drawn)
        client = self.clients.get(connection_id)
        user_id = None if client is None else client.user_id
        chosen = [connection_id] if client is not None else []
        if of_user and user_id is not None:
            chosen = [name for name, each in self.clients.items() if each.user_id == user_id]
        for name in chosen:
            self.expect(name, grant)
        if of_user and user_id is not None:
            effects = self.node.regrant_user(user_id, grant, now=self.now, timestamp=self.timestamp)
        else:
            effects = self.node.regrant(connection_id, grant, now=self.now, timestamp=self.timestamp)
        self.perform(effects)
        assert not any(name in self.clients and self.has_ended(name) for name in chosen)

    def expect(self, connection_id: str, grant: Grant) -> None:
        """Take note of what a connection is allowed from outside."""
        client = self.clients[connection_id]
        if self.has_ended(connection_id):
            return
        if grant.credential is Credential.TOKEN:
            if self.is_good(client.user_id, grant):
                client.grant, client.ends_at = grant, self.end_of(grant)
            return
        ends = [at for at in (client.ends_at, self.end_of(grant)) if at is not None]
        held = client.grant
        client.grant = attrs.evolve(grant, credential=held.credential, token_id=held.token_id, issued_at=held.issued_at)
        client.ends_at = min(ends, default=None)

    @rule(
        which=st.sampled_from([None, 0, 0, 1, 2, 3]),
        user_id=st.sampled_from([None, None, *USERS]),
        before=st.sampled_from([None, 0.0, 3.0]),
    )
    def revoke(self, which: int | None, user_id: str | None, before: float | None) -> None:
        """Revoke one of the last tokens, or others by what they say."""
        token_id = None if which is None or which >= len(self.tokens) else self.tokens[-1 - which]
        if (token_id, user_id, before) == (None, None, None):
            return
        issued_before = None if before is None else self.timestamp / 1000 - 3.0 + before
        revocation = Revocation(
            token_id=token_id, user_id=user_id, issued_before=issued_before, until=self.wall + 1_000_000.0
        )
        self.revocations.append(revocation)
        effects = self.node.revoke(revocation, now=self.now, timestamp=self.timestamp)
        assert not isinstance(effects, Refusal)
        self.perform(effects)

    @rule(seconds=st.sampled_from([0.5, 1.0, 2.5, 7.0]), wakes=st.booleans())
    def wait(self, seconds: float, wakes: bool) -> None:
        self.now += seconds
        self.wall += seconds
        if wakes:
            self.wake()

    @rule()
    def wake(self) -> None:
        at = self.node.next_timeout()
        if at is not None and at <= self.now:
            self.perform(self.node.handle_timeout(now=self.now, timestamp=self.timestamp))
        for name in self.clients:
            assert not self.has_ended(name)

    @rule(seconds=st.sampled_from([-5.0, 5.0]))
    def set_the_clock_of_the_wall(self, seconds: float) -> None:
        self.wall += seconds

    @invariant()
    def everybody_is_there_who_should_be(self) -> None:
        if not hasattr(self, "node"):
            return
        assert [each["connection_id"] for each in self.node.connections()] == list(self.clients)

    @invariant()
    def nobody_has_a_revoked_token(self) -> None:
        for client in getattr(self, "clients", {}).values():
            assert not self.is_revoked(client.user_id, client.grant)

    @invariant()
    def an_end_is_never_slept_through(self) -> None:
        ends = [each.ends_at for each in getattr(self, "clients", {}).values() if each.ends_at is not None]
        if ends:
            at = self.node.next_timeout()
            assert at is not None
            assert at <= min(ends)

    @invariant()
    def everybody_is_where_they_may_be(self) -> None:
        if not hasattr(self, "node"):
            return
        for each in self.node.connections():
            client = self.clients[str(each["connection_id"])]
            channels = each["channels"]
            assert isinstance(channels, list)
            assert all(client.may(Action.SUBSCRIBE, name) for name in channels)
        signaling = self.node.signaling
        assert signaling is not None
        for room in signaling.rooms:
            for peer in room.peers.values():
                if peer.connection_id is not None:
                    assert self.clients[peer.connection_id].may(Action.SIGNAL, room.room_id)


GrantsMachine.TestCase.settings = settings(max_examples=250, stateful_step_count=40)
TestGrants = GrantsMachine.TestCase
