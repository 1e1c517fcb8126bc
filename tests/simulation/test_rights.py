"""Servers that ask for tokens: who may come, how that takes its time, and what changes meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import attrs
import pytest

from rtcore.client import Answered, Refused
from rtcore.errors import Refusal
from rtcore.namespaces import Access, Namespace, Namespaces
from rtcore.node import NodeConfig
from rtcore.permissions import Action, Grant, Identity, Revocation, Scope
from rtcore.router import RouterConfig
from rtcore.simulation import Authority, ServerConfig, Simulation, Wallet
from rtcore.simulation.entitlement import WhyNot, why_not, why_not_recall
from rtcore.simulation.scenario_rights import RightsInScenario

from .ends import End, Idle
from .place import CHAT, NOTHING, REFRESHING, UNTIL, Place


def calm(limit: int) -> int:
    return 0


# Who may come


def test_who_comes_with_a_token_may_do_what_it_says() -> None:
    place = Place()
    ann = place.client(place.wallet())
    joined, refused = ann.join("chat"), ann.join("feed")
    place.simulation.run_for(1.0)
    assert isinstance(joined.outcome, Answered)
    assert isinstance(refused.outcome, Refused)
    assert refused.outcome.code == "subscribe_denied"
    assert place.simulation.rights.refused == {"subscribe_denied": 1}
    place.simulation.rest()
    place.simulation.empty()


def test_who_comes_without_a_token_is_nobody_in_particular() -> None:
    place = Place()
    place.authority.anonymous = CHAT
    client = place.client(place.wallet(None, None))
    assert client.machine.user_id is None
    page = place.simulation.add_event_source("page", channels=["chat", "feed"], wallet=place.wallet(None, None))
    place.simulation.run_for(1.0)
    assert page.channels == ("chat",)
    assert (page.is_given("feed"), page.wants_to_join("feed")) == (True, False)
    place.simulation.rest()


@pytest.mark.parametrize("refreshes", [True, False])
def test_a_token_that_nobody_has_issued(refreshes: bool) -> None:
    place = Place()
    wallet = place.wallet(refreshes=refreshes)
    wallet.token = lambda: "invented"  # type: ignore[method-assign]
    client = place.client(wallet)
    page = place.simulation.add_event_source("page", user_id="ann", channels=["chat"], wallet=wallet)
    place.simulation.run_for(10.0)
    assert (client.ended, page.ended) == (True, True)
    # Who may have a better one tries twice.
    assert len(place.lines("ann opens")) == len(place.lines("page opens")) == 1 + refreshes
    place.simulation.rest()


def test_an_event_source_that_comes_back_with_a_better_token() -> None:
    place = Place()
    wallet, tokens = place.wallet(), ["invented"]
    issue = wallet.token
    wallet.token = lambda: tokens.pop() if tokens else issue()  # type: ignore[method-assign]
    page = place.simulation.add_event_source("page", user_id="ann", channels=["chat"], wallet=wallet)
    place.simulation.run_for(10.0)
    assert page.connected
    place.simulation.rest()


def test_who_is_gone_before_it_is_known_who_it_is() -> None:
    place = Place()
    place.authority._delay = lambda: 1.0  # type: ignore[method-assign]
    client = place.simulation.add_websocket_client("ann", wallet=place.wallet())
    page = place.simulation.add_event_source("page", channels=["chat"], wallet=place.wallet())
    other = place.simulation.add_event_source("other", channels=["chat"], wallet=place.wallet())
    place.simulation.run_for(0.5)
    client.disconnect()
    page.disconnect()
    for link in place.simulation.network.links(other):
        place.simulation.network.reset(link.far, after=0.0)
        link.far.peer.finished = True
    other.disconnect()
    place.simulation.run_for(5.0)
    assert place.server.connections == {}
    place.simulation.empty()


def test_who_says_more_before_it_is_known_who_it_is() -> None:
    place = Place()
    place.authority._delay = lambda: 1.0  # type: ignore[method-assign]
    token = place.authority.issue("ann", CHAT)
    end = End()
    socket = place.simulation.network.connect(Idle(place.simulation.world, "stranger"), place.server, end)
    place.simulation.run_for(0.5)
    for data in (f"GET /events?channel=chat&token={token} HTTP/1.1\r\n\r\n", "GET /events HTTP/1.1\r\n\r\n"):
        socket.write(data.encode())
        place.simulation.run_for(0.1)
    place.simulation.run_for(2.0)
    assert end.data.count(b"200 OK") == 1
    [connection] = place.server.connections.values()
    assert connection.user_id == "ann"


def test_a_server_that_ends_before_it_knows_who_somebody_is() -> None:
    place = Place()
    place.authority._delay = lambda: 1.0  # type: ignore[method-assign]
    client = place.simulation.add_websocket_client("ann", wallet=place.wallet(), config=REFRESHING)
    place.simulation.run_for(0.5)
    place.server.crash(silently=False)
    place.simulation.run_for(1.0)
    place.server.start()
    place.simulation.run_for(0.1)
    place.server.crash(silently=False)
    place.server.start()
    place.simulation.run_for(10.0)
    assert client.connected
    place.simulation.rest()


# What changes


def test_who_is_taken_out_of_a_channel_is_told_and_may_come_back() -> None:
    place = Place()
    ann = place.client(place.wallet())
    ann.join("chat")
    place.simulation.run_for(1.0)
    assert ann.connection_id is not None
    place.server.regrant(ann.connection_id, NOTHING)
    place.simulation.run_for(1.0)
    assert ann.heard[-1]["type"] == "unsubscribed"
    assert ann.channels == ()
    place.server.publish("chat", place.simulation.numbered("s"))
    place.server.regrant_user("ann", CHAT)
    place.server.regrant_user("bob", CHAT)
    ann.join("chat")
    place.simulation.run_for(1.0)
    place.server.publish("chat", place.simulation.numbered("s"))
    place.simulation.rest()
    assert [message.get("n") for message in ann.heard if "n" in message] == [2]
    assert place.simulation.rights.removed == 1


def test_channels_of_the_url_come_and_go_with_the_right() -> None:
    place = Place()
    wallet = place.wallet()
    ann = place.client(wallet, given=["chat", "feed"])
    page = place.simulation.add_event_source("page", user_id="ann", channels=["chat", "feed"], wallet=wallet)
    place.simulation.run_for(1.0)
    assert ann.channels == page.channels == ("chat",)
    for client in (ann, page):
        assert client.connection_id is not None
        place.server.regrant(client.connection_id, NOTHING)
    place.simulation.run_for(1.0)
    assert ann.channels == page.channels == ()
    wallet.grant = Grant(subscribe=Scope(("feed",), exclusive=True))
    place.server.publish("feed", place.simulation.numbered("s", persistent=True))
    for client in (ann, page):
        client.change_address()
    place.simulation.run_for(60.0)
    assert ann.channels == page.channels == ("feed",)
    ann.leave("feed")
    place.simulation.run_for(1.0)
    place.server.publish("feed", place.simulation.numbered("s"))
    place.simulation.rest()
    assert [message.get("n") for message in page.heard if "n" in message] == [1, 2]
    place.simulation.empty()


def test_a_channel_of_the_url_that_is_joined_by_hand_once_it_may_be() -> None:
    place = Place()
    ann = place.client(place.wallet(grant=NOTHING), given=["chat"])
    assert ann.channels == ()
    assert ann.connection_id is not None
    place.server.regrant(ann.connection_id, CHAT)
    ann.join("chat")
    assert ann.wants_to_join("chat")
    place.simulation.run_for(1.0)
    assert ann.channels == ("chat",)
    assert not ann.wants_to_join("chat")
    place.simulation.rest()


def test_a_gap_may_be_behind_who_has_joined_a_channel_of_the_url_by_hand() -> None:
    place = Place()
    ann = place.client(place.wallet(), given=["chat"])
    ann.leave("chat")
    place.simulation.run_for(1.0)
    for _ in range(2):
        place.server.publish("chat", place.simulation.numbered("s"))
    ann.join("chat")
    place.simulation.run_for(1.0)
    first = next(iter(place.simulation.ledger.publications.values()))
    gap = {"type": "gap", "channel": "chat", "epoch": first.epoch, "offset": 1, "reason": "history_lost"}
    ann.hear(gap)
    place.simulation.rest()


def test_what_was_revoked_ends_and_does_not_come_again() -> None:
    place = Place()
    wallet = place.wallet(refreshes=False)
    ann = place.client(wallet)
    for revocation in (
        Revocation(token_id="another", until=UNTIL),
        Revocation(user_id="bob", until=UNTIL),
        Revocation(issued_before=1.0, until=UNTIL),
    ):
        place.server.revoke(revocation)
    assert ann.connected
    place.server.revoke(Revocation(token_id="t1", user_id="ann", until=UNTIL))
    place.simulation.run_for(5.0)
    assert ann.ended
    assert place.simulation.rights.ended == 1
    place.simulation.rest()


def test_a_token_is_renewed_in_time() -> None:
    place = Place(draw=calm)
    place.faulty()
    place.client(place.wallet())
    place.simulation.run_for(30.0)
    assert place.simulation.rights.renewed > 4
    assert len(place.lines("ann opens")) == 1
    place.simulation.rest()


def test_who_does_not_renew_comes_again_with_another_token() -> None:
    place = Place(draw=lambda limit: 19 if limit == 20 else 0)
    place.faulty()
    ann = place.client(place.wallet())
    place.simulation.run_for(30.0)
    assert place.simulation.rights.renewed == 0
    assert ann.reconnects > 3
    place.simulation.rest()


@pytest.mark.parametrize(("fate", "code"), [(18, "invalid_token"), (17, "user_mismatch")])
def test_a_token_that_will_not_do(fate: int, code: str) -> None:
    place = Place(draw=lambda limit: fate if limit == 20 else 0)
    place.faulty()
    place.client(place.wallet())
    place.simulation.run_for(5.0)
    assert place.lines("ann <-", code)
    assert place.simulation.rights.renewed == 0
    place.simulation.rest()


def test_a_token_that_is_not_wanted_any_more() -> None:
    place = Place(draw=calm)
    place.faulty()
    ann = place.client(place.wallet())
    place.simulation.run_until(lambda: bool(place.lines("ann needs a token")))
    ann.disconnect()
    place.simulation.run_for(1.0)
    assert not place.lines("ann asks", "refresh_token")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda place: place.server.revoke(Revocation(token_id="t2", until=UNTIL)), "token_revoked"),
        (lambda place: place.server.set_wall_clock(60.0), "token_expired"),
    ],
)
def test_what_is_good_no_longer_once_it_is_verified(change: Callable[[Place], None], code: str) -> None:
    place = Place(draw=calm)
    place.faulty()
    place.client(place.wallet())
    place.authority._delay = lambda: 0.5  # type: ignore[method-assign]
    place.simulation.run_until(lambda: bool(place.lines("is held Verify")))
    change(place)
    place.simulation.run_for(1.0)
    assert place.lines("ann <-", code)


def test_a_token_is_revoked_while_it_is_verified() -> None:
    place = Place(draw=calm)
    place.faulty()
    rights = RightsInScenario(place.simulation, ("chat",))
    place.authority.ambush = rights._revoke_token
    place.authority._delay = lambda: 0.5  # type: ignore[method-assign]
    sleeping = place.simulation.add_server("sleeping", authority=place.authority)
    sleeping.freeze()
    ann = place.client(place.wallet(), servers=[place.server])
    place.simulation.run_for(8.0)
    assert place.authority.ambush is None
    assert place.lines("s revokes", "t2")
    assert not place.lines("sleeping revokes")
    assert place.lines("ann <-", "token_revoked")
    assert ann.reconnects <= 1


def test_what_is_verified_for_somebody_who_has_gone() -> None:
    place = Place(draw=calm)
    place.faulty()
    ann = place.client(place.wallet())
    place.authority._delay = lambda: 0.5  # type: ignore[method-assign]
    place.simulation.run_until(lambda: bool(place.lines("is held Verify")))
    ann.disconnect()
    place.simulation.run_for(5.0)
    assert place.simulation.rights.renewed == 0
    place.simulation.empty()


def test_what_is_verified_in_a_life_that_has_ended() -> None:
    place = Place(draw=calm)
    place.faulty()
    place.client(place.wallet())
    place.authority._delay = lambda: 0.5  # type: ignore[method-assign]
    place.simulation.run_until(lambda: bool(place.lines("is held Verify")))
    place.server.crash(silently=False)
    place.server.start()
    place.simulation.run_for(2.0)
    assert place.simulation.rights.renewed == 0
    place.simulation.rest()


def test_who_freezes_beyond_its_time_is_ended_as_it_says_something() -> None:
    place = Place(draw=calm)
    place.faulty()
    ann = place.client(place.wallet(refreshes=False))
    place.server.freeze()
    ann.publish(place.simulation.numbered("ann", channel="chat"))
    place.simulation.run_for(10.0)
    assert ann.connection_id is not None
    place.server.thaw()
    place.simulation.run_for(5.0)
    assert ann.ended
    assert place.simulation.ledger.by_number == {}


def test_rights_that_change_for_whom_time_is_up() -> None:
    place = Place(draw=calm)
    place.faulty()
    ann = place.client(place.wallet(refreshes=False))
    assert ann.connection_id is not None
    place.server.jump(30.0)
    place.server.regrant(ann.connection_id, CHAT)
    place.simulation.run_for(1.0)
    assert ann.ended


def test_what_is_verified_when_time_is_up() -> None:
    place = Place(draw=calm)
    place.faulty()
    ann = place.client(place.wallet())
    place.authority._delay = lambda: 0.5  # type: ignore[method-assign]
    place.simulation.run_until(lambda: bool(place.lines("is held Verify")))
    place.server.freeze()
    place.simulation.run_for(10.0)
    place.server.thaw()
    place.simulation.run_for(0.1)
    assert (place.simulation.rights.renewed, place.simulation.rights.ended) == (0, 1)
    place.simulation.run_for(5.0)
    assert ann.connected


# The application's word


@pytest.mark.parametrize(("fate", "delay", "lets"), [(0, 0.0, True), (7, 0.0, False), (9, 1.5, False)])
def test_the_application_is_asked_and_what_comes_later_waits(fate: int, delay: float, lets: bool) -> None:
    place = Place(consulted=(Action.SUBSCRIBE, Action.PUBLISH), draw=lambda limit: fate if limit == 10 else 0)
    ann = place.client(place.wallet())
    place.faulty((1000.0, 1000.0))
    asked_at = place.simulation.now
    joined = ann.join("chat")
    said = [place.simulation.publish(ann, channel="chat") for _ in range(2)]
    place.simulation.run_for(10.0)
    assert isinstance(joined.outcome, Answered if lets else Refused)
    assert [isinstance(each.outcome, Answered) for each in said] == [lets, lets]
    [told] = place.lines("ann is told", joined.id + "'")
    assert float(told[2:].split(" ")[0]) == pytest.approx(asked_at + 0.04 + delay, abs=0.02)
    # One after the other.
    held = [float(line[2:].split(" ")[0]) for line in place.lines("is held Consult")]
    assert [after - before for before, after in pairwise(held)] == pytest.approx([delay] * 2)
    place.simulation.rest()


# The authority


def test_identities_are_of_those_to_whom_tokens_were_issued() -> None:
    place = Place()
    token = place.authority.issue("ann", CHAT)
    identity = place.authority.identity(token)
    assert isinstance(identity, Identity)
    assert (identity.user_id, identity.grant.token_id, identity.grant.subscribe) == ("ann", "t1", CHAT.subscribe)
    assert isinstance(place.authority.identity("another"), Refusal)


def test_wallets() -> None:
    place = Place()
    world = place.simulation.world
    assert place.wallet(grant=None).token() is None
    fixed, changing = place.wallet(refreshes=False), place.wallet()
    assert fixed.token() == fixed.token() == fixed.fresh(world)
    assert changing.token() != changing.token()
    place = Place(draw=lambda limit: 17)
    place.simulation.world.faulty = True
    assert place.wallet(grant=None).fresh(place.simulation.world) is None


# Who may do what


@attrs.frozen
class Case:
    action: Action
    access: Access
    grant: Grant
    why: WhyNot | None
    channel: str = "chat"
    user_id: str | None = "ann"
    member: bool = False


NAMED = Scope(("chat",))
ONLY = Scope(("c*",), exclusive=True)
ALL = Scope(("*",), exclusive=True)


@pytest.mark.parametrize(
    "case",
    [
        Case(Action.SUBSCRIBE, Access.ANYBODY, Grant(), None),
        Case(Action.SUBSCRIBE, Access.ANYBODY, Grant(subscribe=ONLY), None),
        Case(Action.SUBSCRIBE, Access.ANYBODY, Grant(subscribe=ONLY), WhyNot.NOT_NAMED, channel="feed"),
        Case(Action.SUBSCRIBE, Access.SERVER, Grant(subscribe=NAMED), WhyNot.SERVER),
        Case(Action.SUBSCRIBE, Access.SERVER, Grant(server=True), None),
        Case(Action.PUBLISH, Access.GRANTED, Grant(), WhyNot.BY_NAME),
        Case(Action.PUBLISH, Access.GRANTED, Grant(publish=NAMED), None),
        Case(Action.PUBLISH, Access.USERS, Grant(), WhyNot.USERS, user_id=None),
        Case(Action.PUBLISH, Access.MEMBERS, Grant(), WhyNot.MEMBERS),
        Case(Action.PUBLISH, Access.MEMBERS, Grant(), None, member=True),
        Case(Action.PUBLISH, Access.ANYBODY, Grant(), None, channel="$user:bob"),
        Case(Action.PUBLISH, Access.ANYBODY, Grant(), WhyNot.BY_NAME, channel="$broadcast"),
        Case(Action.PUBLISH, Access.ANYBODY, Grant(publish=ALL), WhyNot.NOT_NAMED, channel="$broadcast"),
        Case(Action.HISTORY, Access.ANYBODY, Grant(), None, channel="$user:ann"),
        Case(Action.HISTORY, Access.ANYBODY, Grant(), WhyNot.BY_NAME, channel="$user:bob"),
        Case(Action.HISTORY, Access.ANYBODY, Grant(), WhyNot.BY_NAME, channel="$user:None", user_id=None),
        Case(Action.PRESENCE, Access.USERS, Grant(), None),
        Case(Action.ADMINISTER, Access.ANYBODY, Grant(), WhyNot.ADMIN),
        Case(Action.ADMINISTER, Access.ANYBODY, Grant(admin=True), None),
    ],
)
def test_who_may_do_what(case: Case) -> None:
    fields = ("subscribe", "publish", "history_access", "presence_access")
    opened = case.access if case.access is not Access.MEMBERS else Access.ANYBODY
    namespace = Namespace(pattern="*", **{**dict.fromkeys(fields, case.access), "subscribe": opened})
    known: dict[str, Any] = {"user_id": case.user_id, "grant": case.grant, "namespace": namespace}
    assert why_not(case.action, case.channel, member=case.member, **known) is case.why


def test_what_is_said_to_oneself_no_token_keeps_away() -> None:
    open_to_all, granted = (Namespace(pattern="*", history_access=each) for each in (Access.ANYBODY, Access.GRANTED))
    grant = Grant(history=ONLY)
    for channel in ("$broadcast", "$user:ann"):
        assert why_not_recall(channel, user_id="ann", grant=grant, namespace=open_to_all) is None
        assert why_not_recall(channel, user_id="ann", grant=grant, namespace=granted) is WhyNot.BY_NAME
    assert why_not_recall("feed", user_id="ann", grant=grant, namespace=open_to_all) is WhyNot.NOT_NAMED
    assert why_not_recall("chat", user_id="ann", grant=grant, namespace=granted) is None


def test_what_was_missed_is_not_told_to_those_who_may_not_know() -> None:
    """A gap for want of the right is one with reason, and so is a page that is refused."""
    simulation = Simulation()
    simulation.world.faulty = False
    silent = Namespace(pattern="*", history_access=Access.SERVER)
    config = ServerConfig(node=NodeConfig(router=RouterConfig(namespaces=Namespaces((), silent))))
    authority = Authority(simulation.world)
    server = simulation.add_server("s", config=config, authority=authority)
    wallet = Wallet(authority, "ann", Grant(), refreshes=True)
    ann = simulation.add_websocket_client("ann", user_id="ann", wallet=wallet, config=REFRESHING)
    page = simulation.add_event_source("page", user_id="ann", channels=["chat"], wallet=wallet)
    ann.join("chat")
    simulation.run_for(1.0)
    for _ in range(2):
        server.publish("chat", simulation.numbered("s"))
        simulation.run_for(1.0)
        for client in (ann, page):
            client.change_address()
        server.publish("chat", simulation.numbered("s"))
        simulation.run_for(60.0)
    simulation.rest()
    assert simulation.sequences.gaps == {"history_lost": 2, "history_denied": 2}
    assert isinstance(ann.request("history", channel="chat").outcome, type(None))
    simulation.rest()
    simulation.empty()
