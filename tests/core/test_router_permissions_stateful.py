"""Whatever rights come and go: nobody is told anything of a channel that they may not know at that moment."""

from __future__ import annotations

import json
from collections.abc import Sequence

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from rtcore.encoded import Encoded
from rtcore.filters import Filter
from rtcore.messages import Message
from rtcore.namespaces import Access, Namespace, Namespaces
from rtcore.permissions import Grant, Identity, Scope
from rtcore.router import (
    Deliver,
    Effect,
    Joined,
    Page,
    Publish,
    Published,
    Refused,
    Request,
    Roster,
    Router,
    RouterConfig,
    Since,
    Subscribe,
    Unsubscribe,
)

CONNECTIONS = ["c1", "c2", "c3", "c4"]
USERS = [None, "ann", "bob"]
# The second is for users, of the third only members know who is there, and the last is named by nobody.
CHANNELS = ["open", "users", "members", "granted"]
NAMESPACES = Namespaces(
    (
        Namespace(pattern="users", subscribe=Access.USERS, publish=Access.USERS, presence_grace=0.0),
        Namespace(pattern="members", publish=Access.MEMBERS, presence_access=Access.MEMBERS, presence_grace=0.0),
        Namespace(
            pattern="granted", subscribe=Access.GRANTED, history_access=Access.GRANTED, presence_access=Access.GRANTED
        ),
    ),
    Namespace(pattern="*", presence_grace=0.0),
)
connections = st.sampled_from(CONNECTIONS)
channels = st.sampled_from(CHANNELS)
scopes = st.builds(Scope, st.lists(channels, max_size=3).map(tuple), st.booleans())
grants = st.builds(
    Grant,
    subscribe=scopes,
    publish=scopes,
    history=scopes,
    presence=scopes,
    server=st.sampled_from([False, False, False, True]),
    info=st.none() | st.just({"name": "x"}),
)


def allows(scope: Scope, channel: str, access: Access, user_id: str | None, *, server: bool, member: bool) -> bool:
    """Return what `rtcore.permissions.decide` must say: told anew, as it is promised."""
    named = channel in scope.patterns
    if scope.exclusive and not named:
        return False
    return (
        server
        or {
            Access.ANYBODY: True,
            Access.USERS: user_id is not None,
            Access.MEMBERS: member,
            Access.GRANTED: named,
        }[access]
    )


@attrs.define
class Person:
    """Somebody connected, as far as the router should know."""

    user_id: str | None
    grant: Grant
    joined: list[str] = attrs.field(factory=list)
    # Up to which offset each channel was heard, by its epoch.
    heard: dict[str, int] = attrs.field(factory=dict)

    def may(self, right: str, channel: str, *, member: bool = True) -> bool:
        namespace = NAMESPACES.get(channel)
        access: Access = {
            "subscribe": namespace.subscribe,
            "publish": namespace.publish,
            "history": namespace.history_access,
            "presence": namespace.presence_access,
        }[right]
        scope: Scope = getattr(self.grant, right)
        return allows(scope, channel, access, self.user_id, server=self.grant.server, member=member)


class Guarded(RuleBasedStateMachine):
    @initialize(presence_limit=st.integers(1, 4))
    def start(self, presence_limit: int) -> None:
        self.router = Router(RouterConfig(presence_limit=presence_limit, namespaces=NAMESPACES), entropy="e")
        self.now = 0.0
        self.people: dict[str, Person] = {}
        self.epochs: dict[str, str] = {}

    # What somebody is told

    def take(self, effects: Sequence[Effect]) -> list[Effect]:
        """Check everything that is delivered against what its receivers may know now; return all else."""
        rest: list[Effect] = []
        for effect in effects:
            if isinstance(effect, Deliver):
                for connection_id in effect.connections:
                    if connection_id != effect.skip:
                        self.hear(connection_id, effect.message)
            else:
                rest.append(effect)
        return rest

    def hear(self, connection_id: str, message: Encoded, *, replayed: bool = False) -> None:
        person = self.people[connection_id]
        said: Message = json.loads(message.json)
        channel = str(said.get("channel"))
        if channel not in CHANNELS:
            return
        if said["type"] == "unsubscribed":
            assert not person.may("subscribe", channel)
            assert (said["code"], message.id) == ("subscribe_denied", None)
            person.joined.remove(channel)
            return
        assert channel in person.joined
        assert person.may("subscribe", channel)
        if said["type"] in ("user_joined", "user_left") or said.get("stream") == "presence":
            if said.get("reason") == "presence_denied":
                assert not person.may("presence", channel)
            else:
                assert person.may("presence", channel)
            return
        meta = said["meta"]
        assert isinstance(meta, dict)
        if replayed:
            assert person.may("history", channel) or said.get("persistent") is True
        else:
            assert meta["offset"] == person.heard[meta["epoch"]] + 1, "live and without a hole"
            person.heard[meta["epoch"]] += 1

    def somebody(self, connection_id: str) -> Person:
        if connection_id not in self.people:
            self.attach(connection_id, None, Grant(), [], None)
        return self.people[connection_id]

    # What may happen

    @rule(
        connection_id=connections,
        user_id=st.sampled_from(USERS),
        grant=grants,
        names=st.lists(channels, max_size=3, unique=True),
        heard=st.none() | st.integers(0, 60),
    )
    def attach(
        self, connection_id: str, user_id: str | None, grant: Grant, names: list[str], heard: int | None
    ) -> None:
        if connection_id in self.people:
            return
        person = self.people[connection_id] = Person(user_id, grant)
        self.router.attach(connection_id, user_id, grant=grant, now=self.now)
        told: list[Effect] = []
        for name in names:
            effects = self.router.send(
                Subscribe(name, Request(connection_id), replays=False), now=self.now, timestamp=0
            )
            told += self.joined(person, name, effects, None)
        token = None if heard is None else f"e-{heard}"
        resumption = self.router.resume(connection_id, token, now=self.now)
        for message in resumption.replay:
            self.hear(connection_id, message, replayed=True)
        gaps = {gap.channel: gap.reason for gap in resumption.gaps}
        for name in person.joined:
            assert gaps.get(name) != "history_denied" or not person.may("history", name)
            if heard is not None and resumption.recovered and not person.may("history", name):
                # Nothing was missed, or it would have been said.
                newest = self.router.history(name, epoch=None, after=None, before=None, limit=1, now=self.now)
                assert isinstance(newest, Page)
                for publication in newest.publications:
                    assert int(str(publication.id).removeprefix("e-")) <= heard
        assert self.take(told) == []

    def joined(self, person: Person, name: str, effects: list[Effect], since: Since | None) -> list[Effect]:
        """Check what is answered to a join; return what follows."""
        answer, *told = effects
        if not person.may("subscribe", name, member=False):
            assert isinstance(answer, Refused)
            assert (answer.refusal.code, answer.refusal.status, told) == ("subscribe_denied", 403, [])
            return []
        assert isinstance(answer, Joined)
        if name not in person.joined:
            person.joined.append(name)
        self.epochs[name] = answer.epoch
        assert (answer.roster is not None) == person.may("presence", name)
        if since is not None and answer.recovered.complete and not person.may("history", name):
            assert (since.epoch, since.offset) == (answer.epoch, answer.offset)
        person.heard[answer.epoch] = answer.offset
        return told

    @rule(
        connection_id=connections,
        name=channels,
        offset=st.none() | st.integers(0, 12),
        changes=st.none() | st.integers(0, 12),
        filter=st.none() | st.just(Filter(types=("text", "user_joined"))),
    )
    def subscribe(
        self, connection_id: str, name: str, offset: int | None, changes: int | None, filter: Filter | None
    ) -> None:
        person = self.somebody(connection_id)
        epoch = self.epochs.get(name, "?")
        since = None if offset is None else Since(epoch, offset)
        changes_since = None if changes is None else Since(f"{epoch}p", changes)
        command = Subscribe(name, Request(connection_id), since, changes_since, filter)
        told = self.joined(person, name, self.router.send(command, now=self.now, timestamp=0), since)
        live: list[Effect] = []
        for effect in told:
            # What is replayed is to the one alone; all that is new is to others.
            if isinstance(effect, Deliver) and (effect.connections, effect.skip) == ((connection_id,), None):
                self.hear(connection_id, effect.message, replayed=True)
            else:
                live.append(effect)
        assert self.take(live) == []

    @rule(connection_id=connections, name=channels)
    def unsubscribe(self, connection_id: str, name: str) -> None:
        person = self.somebody(connection_id)
        if name in person.joined:
            person.joined.remove(name)
        self.take(self.router.send(Unsubscribe(name, Request(connection_id)), now=self.now, timestamp=0))

    @rule(connection_id=connections)
    def detach(self, connection_id: str) -> None:
        self.somebody(connection_id)
        del self.people[connection_id]
        assert self.take(self.router.detach(connection_id, now=self.now, timestamp=0)) == []

    @rule(connection_id=connections, grant=grants)
    def regrant(self, connection_id: str, grant: Grant) -> None:
        person = self.somebody(connection_id)
        person.grant = grant
        allowed = [name for name in person.joined if person.may("subscribe", name)]
        assert self.take(self.router.regrant(connection_id, grant, now=self.now, timestamp=0)) == []
        assert person.joined == allowed
        assert self.router.regrant(connection_id, grant, now=self.now, timestamp=0) == []

    @rule(connection_id=connections, name=channels, persistent=st.booleans(), id=st.none() | st.integers(0, 3))
    def publish(self, connection_id: str, name: str, persistent: bool, id: int | None) -> None:
        person = self.somebody(connection_id)
        message: Message = {"type": "text", "persistent": persistent}
        allowed = person.may("publish", name, member=name in person.joined)
        self.said(Publish(name, message, Request(connection_id, id)), name, allowed)

    @rule(user_id=st.sampled_from(USERS), grant=grants, name=channels, id=st.none() | st.integers(0, 3))
    def publish_without_connection(self, user_id: str | None, grant: Grant, name: str, id: int | None) -> None:
        member = user_id is not None and any(
            each.user_id == user_id and name in each.joined for each in self.people.values()
        )
        allowed = Person(user_id, grant).may("publish", name, member=member)
        command = Publish(name, {"type": "text"}, Request(None, id), user_id=user_id, grant=grant)
        self.said(command, name, allowed)

    def said(self, command: Publish, name: str, allowed: bool) -> None:
        effects = self.router.send(command, now=self.now, timestamp=0)
        (outcome,) = self.take(effects)
        if isinstance(outcome, Published):
            assert allowed or outcome.repeated
            self.epochs[outcome.channel] = outcome.epoch
        else:
            assert isinstance(outcome, Refused)
            assert not allowed
            assert effects == [outcome]

    @rule(seconds=st.sampled_from([1.0, 100.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        assert self.take(self.router.handle_timeout(now=self.now, timestamp=0)) == []

    # What is always so

    @invariant()
    def nobody_is_where_they_may_not_be(self) -> None:
        for connection_id, person in self.people.items():
            assert self.router.channels_of(connection_id) == person.joined
            assert all(person.may("subscribe", name) for name in person.joined)
            for name in CHANNELS:
                self.ask(person, connection_id, name, member=name in person.joined)
                theirs = [each for each in self.people.values() if each.user_id == person.user_id is not None]
                member = any(name in each.joined for each in theirs)
                self.ask(person, Identity(person.user_id, person.grant), name, member=member)

    def ask(self, person: Person, asker: Identity | str, name: str, *, member: bool) -> None:
        roster = self.router.roster(name, asker=asker)
        assert isinstance(roster, Roster) == person.may("presence", name, member=member)
        page = self.router.history(name, asker=asker, epoch=None, after=None, before=None, limit=9, now=self.now)
        assert isinstance(page, Page) == person.may("history", name, member=member)
        listed = any(channel.name == name for channel in self.router.channels(asker=asker))
        used = any(channel.name == name for channel in self.router.channels())
        assert listed == (used and person.may("subscribe", name))


Guarded.TestCase.settings = settings(max_examples=100, stateful_step_count=30)
TestGuarded = Guarded.TestCase
