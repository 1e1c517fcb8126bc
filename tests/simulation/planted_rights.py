"""Bugs to plant in what the real machines make of rights; see `tests.simulation.planted_bugs`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import attrs
import msgspec
import pytest

from rtcore.channels import Channel, connection_channel
from rtcore.client.channels import Channels
from rtcore.client.machine import Client
from rtcore.errors import Refusal
from rtcore.namespaces import Access
from rtcore.node import Close, Consult, Node
from rtcore.node import machine as node_machine
from rtcore.node import rights as node_rights
from rtcore.node.arrivals import Arrivals
from rtcore.permissions import Action, Credential, Identity, Revocations, Scope, decision
from rtcore.router import Deliver, Roster, Router, Subscribe
from rtcore.router import machine as router_machine
from rtcore.router import rights as router_rights
from rtcore.router.recovery import Followed, Resumption
from rtcore.router.rights import Rights
from rtcore.session import Session

__all__ = ["RIGHTS_BUGS"]

Plant = Callable[[pytest.MonkeyPatch], None]

#: By name, in the order in which they are defined.
RIGHTS_BUGS: Final[dict[str, Plant]] = {}


def bug(plant: Plant) -> Plant:
    RIGHTS_BUGS[plant.__name__] = plant
    return plant


# When rights change


@bug
def one_channel_is_forgotten_when_rights_are_taken(patch: pytest.MonkeyPatch) -> None:
    regrant = Router.regrant

    def forgetful(self: Router, connection_id: str, grant: Any, **moment: Any) -> list[Any]:
        channels = self._connections.get(connection_id).channels
        last = next(reversed(channels), None)
        if last is not None:
            del channels[last]
        effects = regrant(self, connection_id, grant, **moment)
        if last is not None:
            channels[last] = None
        return effects

    patch.setattr(Router, "regrant", forgetful)


@bug
def who_is_taken_out_is_not_told(patch: pytest.MonkeyPatch) -> None:
    regrant = Router.regrant

    def silent(self: Router, *args: Any, **moment: Any) -> list[Any]:
        effects = regrant(self, *args, **moment)
        return [each for each in effects if not (isinstance(each, Deliver) and b'"unsubscribed"' in each.message.json)]

    patch.setattr(Router, "regrant", silent)


@bug
def who_is_taken_out_is_told_and_goes_on_hearing(patch: pytest.MonkeyPatch) -> None:
    def only_telling(self: Router, connection_id: str, grant: Any, **moment: Any) -> list[Any]:
        connection = self._connections.get(connection_id)
        connection.grant = grant
        effects: list[Any] = []
        for name in list(connection.channels):
            if refusal := self._rights.decide(Action.SUBSCRIBE, name, asker=connection_id):
                effects.append(Deliver(router_rights.unsubscribed(name, refusal), (connection_id,)))
        return effects

    patch.setattr(Router, "regrant", only_telling)


@bug
def whoever_renews_is_taken_out_of_everything(patch: pytest.MonkeyPatch) -> None:
    regrant = Router.regrant

    def strict(self: Router, connection_id: str, grant: Any, **moment: Any) -> list[Any]:
        nothing = attrs.evolve(grant, subscribe=Scope((), exclusive=True))
        effects = regrant(self, connection_id, nothing, **moment)
        return effects + regrant(self, connection_id, grant, **moment)

    patch.setattr(Router, "regrant", strict)


@bug
def rights_change_for_new_connections_only(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Router, "regrant", lambda self, *args, **moment: [])


@bug
def what_is_regranted_lasts_for_ever(patch: pytest.MonkeyPatch) -> None:
    regrant = Session.regrant

    def generous(self: Session, grant: Any, *, prolongs: bool, **moment: Any) -> None:
        regrant(self, grant, prolongs=True, **moment)

    patch.setattr(Session, "regrant", generous)


@bug
def publications_are_delivered_in_batches_after_rights_have_changed(patch: pytest.MonkeyPatch) -> None:
    publish = Router._publish
    late: dict[int, list[Any]] = {}

    def batching(self: Router, command: Any, **moment: Any) -> list[Any]:
        effects = publish(self, command, **moment)
        waiting = late.pop(id(self), [])
        late[id(self)] = [each for each in effects if isinstance(each, Deliver)]
        return waiting + [each for each in effects if not isinstance(each, Deliver)]

    patch.setattr(Router, "_publish", batching)


@bug
def who_has_left_is_still_among_those_who_hear(patch: pytest.MonkeyPatch) -> None:
    unsubscribe = Channel.unsubscribe

    def caching(self: Channel, *args: Any, **until: Any) -> bool:
        groups = self.groups
        vanished = unsubscribe(self, *args, **until)
        self._groups = groups
        return vanished

    patch.setattr(Channel, "unsubscribe", caching)


# Tokens


@bug
def expiry_is_not_checked(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Session, "has_ended", lambda self, *, now: False)
    timeout = Session.next_timeout

    def next_timeout(self: Session) -> float | None:
        ends_at, self._ends_at = self._ends_at, None
        at = timeout(self)
        self._ends_at = ends_at
        return at

    patch.setattr(Session, "next_timeout", next_timeout)


@bug
def expiry_is_checked_when_something_is_said_only(patch: pytest.MonkeyPatch) -> None:
    timeout = Session.next_timeout

    def next_timeout(self: Session) -> float | None:
        ends_at, self._ends_at = self._ends_at, None
        at = timeout(self)
        self._ends_at = ends_at
        return at

    patch.setattr(Session, "next_timeout", next_timeout)


@bug
def revocations_are_for_new_connections_only(patch: pytest.MonkeyPatch) -> None:
    def lenient(self: Node, revocation: Any, *, now: float, timestamp: int) -> list[Any]:
        self.revocations.add(revocation, timestamp=timestamp)
        return []

    patch.setattr(Node, "revoke", lenient)


@bug
def revocations_are_for_old_connections_only(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(node_machine, "refuse_credential", lambda *args, **moment: None)


@bug
def a_revocation_of_a_user_is_one_of_everybody(patch: pytest.MonkeyPatch) -> None:
    add = Revocations.add

    def wide(self: Revocations, revocation: Any, **moment: Any) -> Any:
        if revocation.token_id is None:
            revocation = attrs.evolve(revocation, user_id=None)
        return add(self, revocation, **moment)

    patch.setattr(Revocations, "add", wide)


@bug
def what_is_verified_after_a_revocation_counts(patch: pytest.MonkeyPatch) -> None:
    def trusting(session: Any, identity: Any, revocations: Any, **moment: Any) -> Any:
        if isinstance(identity, Refusal):
            return identity
        if identity.user_id != session.user_id:
            return Refusal("user_mismatch", "")
        expired = identity.grant.expires_at <= moment["timestamp"] / 1000
        return Refusal("token_expired", "") if expired else identity.grant

    patch.setattr(node_rights, "check_renewal", trusting)


@bug
def the_token_of_another_user_will_do(patch: pytest.MonkeyPatch) -> None:
    check = node_rights.check_renewal

    def careless(session: Any, identity: Any, *args: Any, **moment: Any) -> Any:
        if isinstance(identity, Identity):
            identity = attrs.evolve(identity, user_id=session.user_id)
        return check(session, identity, *args, **moment)

    patch.setattr(node_rights, "check_renewal", careless)


@bug
def a_token_that_is_not_genuine_ends_the_connection(patch: pytest.MonkeyPatch) -> None:
    renew = Node.renew

    def strict(self: Node, request: Any, identity: Any, **moment: Any) -> list[Any]:
        if isinstance(identity, Refusal) and request.connection_id in self:
            return self.close(request.connection_id, 4401, identity.message, reconnect=False, **moment)
        return renew(self, request, identity, **moment)

    patch.setattr(Node, "renew", strict)


@bug
def who_goes_on_is_told_the_time_of_the_token_before(patch: pytest.MonkeyPatch) -> None:
    renewed_data = node_rights.renewed_data

    def stale(session: Session, *, now: float) -> dict[str, Any]:
        return {**renewed_data(session, now=now), "expires_in": 1.0}

    patch.setattr(node_rights, "renewed_data", stale)


# History


@bug
def what_was_missed_is_told_to_those_who_may_not_know(patch: pytest.MonkeyPatch) -> None:
    missed = router_machine.missed

    def generous(channel: Any, since: Any, *, allowed: bool, max_bytes: int) -> Any:
        return missed(channel, since, allowed=True, max_bytes=max_bytes)

    patch.setattr(router_machine, "missed", generous)


@bug
def tokens_resume_what_one_may_not_know(patch: pytest.MonkeyPatch) -> None:
    resume = router_machine.resume

    def generous(followed: Any, *args: Any, **kwargs: Any) -> Resumption:
        return resume([Followed(each.channel, True, each.changes) for each in followed], *args, **kwargs)

    patch.setattr(router_machine, "resume", generous)


@bug
def who_may_not_know_what_was_said_is_told_that_nothing_was(patch: pytest.MonkeyPatch) -> None:
    resume = router_machine.resume

    def soothing(*args: Any, **kwargs: Any) -> Resumption:
        resumption = resume(*args, **kwargs)
        gaps = tuple(gap for gap in resumption.gaps if gap.reason != "history_denied")
        return attrs.evolve(resumption, gaps=gaps, recovered=not gaps)

    patch.setattr(router_machine, "resume", soothing)


@bug
def pages_are_for_everybody(patch: pytest.MonkeyPatch) -> None:
    history = Router.history
    patch.setattr(Router, "history", lambda self, name, **asked: history(self, name, **{**asked, "asker": None}))


@bug
def pages_are_looked_for_before_it_is_decided(patch: pytest.MonkeyPatch) -> None:
    history = Router.history

    def telling(self: Router, name: str, **asked: Any) -> Any:
        channel = self._registry.get(name)
        if channel is not None and asked["epoch"] not in (None, channel.epoch):
            return Refusal("epoch_changed", f"the channel's epoch is {channel.epoch!r} now", status=409)
        return history(self, name, **asked)

    patch.setattr(Router, "history", telling)


# Publishing, and the application's word


@bug
def publications_are_not_decided(patch: pytest.MonkeyPatch) -> None:
    decide = Rights.decide

    def open_to_all(self: Rights, action: Action, *args: Any, **asker: Any) -> Any:
        return None if action is Action.PUBLISH else decide(self, action, *args, **asker)

    patch.setattr(Rights, "decide", open_to_all)


@bug
def publications_are_decided_before_the_application_is_asked_only(patch: pytest.MonkeyPatch) -> None:
    resolve = Node.resolve

    def trusting(self: Node, consult: Consult, refusal: Any, **moment: Any) -> list[Any]:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(Rights, "decide", lambda self, *args, **asker: None)
            return resolve(self, consult, refusal, **moment)

    patch.setattr(Node, "resolve", trusting)


@bug
def the_application_lets_in_whom_nothing_else_does(patch: pytest.MonkeyPatch) -> None:
    command = node_machine.Requests.command

    def wanting(self: Any, wanted: Any, **moment: Any) -> list[Any]:
        if isinstance(wanted, Subscribe) and Action.SUBSCRIBE in self._consulted:
            with pytest.MonkeyPatch.context() as inner:
                inner.setattr(Rights, "decide", lambda self, *args, **asker: None)
                return command(self, wanted, **moment)
        return command(self, wanted, **moment)

    patch.setattr(node_machine.Requests, "command", wanting)


@bug
def members_are_those_who_have_a_token(patch: pytest.MonkeyPatch) -> None:
    decide = router_rights.decide
    patch.setattr(router_rights, "decide", lambda *args, **known: decide(*args, **{**known, "member": True}))


@bug
def who_is_named_may_do_what_is_the_servers(patch: pytest.MonkeyPatch) -> None:
    decide = router_rights.decide

    def lenient(action: Action, name: str = "", *, grant: Any, **known: Any) -> Any:
        refusal = decide(action, name, grant=grant, **known)
        scope = getattr(grant, action.value, None)
        return None if refusal is not None and isinstance(scope, Scope) and scope.covers(name) else refusal

    patch.setattr(router_rights, "decide", lenient)


@bug
def what_is_granted_by_name_is_open_to_users(patch: pytest.MonkeyPatch) -> None:
    decide = router_rights.decide

    def lenient(action: Action, name: str = "", *, namespace: Any, **known: Any) -> Any:
        fields = ("subscribe", "publish", "history_access", "presence_access")
        opened = {each: Access.USERS for each in fields if getattr(namespace, each) is Access.GRANTED}
        return decide(action, name, namespace=attrs.evolve(namespace, **opened), **known)

    patch.setattr(router_rights, "decide", lenient)


# Who is there


@bug
def rosters_are_for_everybody(patch: pytest.MonkeyPatch) -> None:
    roster = Router.roster

    def telling(self: Router, name: str, *, asker: Any = None) -> Roster | Refusal:
        return roster(self, name)

    patch.setattr(Router, "roster", telling)


@bug
def who_joins_is_told_who_is_there_in_any_case(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Rights, "may_see", lambda self, *args: True)


@bug
def comings_and_goings_are_told_to_everybody(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(router_machine, "with_presence", lambda filter, allowed: filter)


# What is said


@bug
def refusals_tell_whether_there_is_such_a_channel(patch: pytest.MonkeyPatch) -> None:
    decide = Rights.decide

    def telling(self: Rights, action: Action, name: str = "", *, asker: Any) -> Any:
        refusal = decide(self, action, name, asker=asker)
        if refusal is not None and name and self._registry.get(name) is None:
            return attrs.evolve(refusal, message=f"{refusal.message} (there is none)")
        return refusal

    patch.setattr(Rights, "decide", telling)


@bug
def those_who_may_are_refused_now_and_then(patch: pytest.MonkeyPatch) -> None:
    decide = Rights.decide
    denied = Refusal("publish_denied", "your token or key does not allow you to publish to this channel", status=403)

    def stingy(self: Rights, action: Action, name: str = "", *, asker: Any) -> Any:
        if action is Action.PUBLISH and isinstance(asker, str) and name != connection_channel(asker):
            return decide(self, action, name, asker=asker) or (denied if name == "price:1" else None)
        return decide(self, action, name, asker=asker)

    patch.setattr(Rights, "decide", stingy)


@bug
def channels_of_the_url_are_for_those_who_have_a_token(patch: pytest.MonkeyPatch) -> None:
    arrive = Arrivals.arrive

    def picky(self: Arrivals, *args: Any, grant: Any, channels: Any, **moment: Any) -> list[Any]:
        held = () if grant.credential is Credential.NONE else channels
        return arrive(self, *args, grant=grant, channels=held, **moment)

    patch.setattr(Arrivals, "arrive", picky)


@bug
def channels_of_the_url_are_not_decided(patch: pytest.MonkeyPatch) -> None:
    arrive = Arrivals.arrive

    def generous(self: Arrivals, *args: Any, **moment: Any) -> list[Any]:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(Rights, "decide", lambda self, *args, **asker: None)
            return arrive(self, *args, **moment)

    patch.setattr(Arrivals, "arrive", generous)


@bug
def statistics_are_for_everybody(patch: pytest.MonkeyPatch) -> None:
    decide = decision.decide

    def open_to_all(action: Action, *args: Any, **known: Any) -> Any:
        return None if action is Action.ADMINISTER else decide(action, *args, **known)

    patch.setattr(router_rights, "decide", open_to_all)


# Clients


@bug
def client_joins_again_what_it_was_taken_out_of(patch: pytest.MonkeyPatch) -> None:
    receive = Client._receive

    def stubborn(self: Client, message: dict[str, Any], now: float) -> list[Any]:
        effects = receive(self, message, now)
        if message["type"] == "unsubscribed" and not self._is_offline:
            effects.append(
                self._channels._join_again(
                    message["channel"], msgspec.Raw(msgspec.json.encode({"channel": message["channel"]})), now=now
                )
            )
        return effects

    patch.setattr(Client, "_receive", stubborn)


@bug
def client_does_not_notice_that_it_was_taken_out(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Channels, "removed", lambda self, channel: None)


@bug
def node_says_goodbye_and_stays(patch: pytest.MonkeyPatch) -> None:
    close = Node._unauthorize

    def staying(self: Node, session: Session, *args: Any, **moment: Any) -> list[Any]:
        effects = close(self, session, *args, **moment)
        return [each for each in effects if not isinstance(each, Close)]

    patch.setattr(Node, "_unauthorize", staying)


@bug
def connections_do_not_know_for_how_long(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Session, "expires_in", lambda self, *, now: None)
