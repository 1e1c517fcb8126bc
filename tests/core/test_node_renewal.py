"""The node: what becomes of a connection whose time ends, that goes on with another token, or is allowed less."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import attrs
import pytest

from rtcore.errors import Refusal
from rtcore.messages import Message
from rtcore.namespaces import Namespace, Namespaces
from rtcore.node import NodeConfig, NodeEffect, Verify
from rtcore.permissions import EVERYTHING, OPEN, Action, Credential, Grant, Identity, Scope
from rtcore.router import Deliver, Refused, Request, RouterConfig
from rtcore.session import Transport

from .node_room_talk import left, peer, said
from .node_talk import (
    STAMP,
    Served,
    came_or_went,
    denial,
    denied,
    encoded,
    error,
    ok,
    to,
    token,
    unauthorized,
)

QUIET = NodeConfig(websocket_heartbeat=None)
EXPIRED, REVOKED = "the token has expired", "the token was revoked"
ONLY_NEWS = Scope(("news",), exclusive=True)

Ending = Callable[[Served], list[NodeEffect]]


def unsubscribed(connection_id: str, channel: str) -> Deliver:
    refusal = denial(Action.SUBSCRIBE, channel)
    message: Message = {"type": "unsubscribed", "channel": channel, "code": refusal.code, "reason": refusal.message}
    return to(connection_id, message)


def renew(served: Served, grant: Grant, user_id: str | None = "ann") -> list[NodeEffect]:
    return served.renew("c1", Identity(user_id, grant))


# The end


def test_a_connection_ends_with_its_token() -> None:
    served = Served(QUIET)
    served.connect("c1", "ann", "chat", grant=token(expires_in=60.0))
    served.connect("c2", None, "chat")
    assert served.node.next_timeout() == 160.0
    assert served.wait_until(159.9) == []
    assert served.wait_until(160.0) == unauthorized("c1", EXPIRED)
    assert ("c1" in served.node, "c2" in served.node) == (False, True)
    # She might have come back with another.
    gone = came_or_went("user_left", "chat", 3, "e.3", 3, "c1", "ann")
    assert served.wait_until(165.0) == [Deliver(gone, ("c2",))]


def test_who_ends_hears_no_heartbeat() -> None:
    served = Served(NodeConfig(websocket_heartbeat=30.0))
    served.connect("c1", "ann", grant=token(expires_in=30.0))
    served.connect("c2", "bob")
    beat: Message = {"type": "heartbeat", "timestamp": STAMP}
    assert served.wait_until(130.0) == [*unauthorized("c1", EXPIRED), to("c2", beat)]
    served.connect("c3", "cat", grant=token(expires_in=45.0))
    assert served.wait_until(160.0) == [Deliver(encoded(beat), ("c2", "c3"))]
    assert served.wait_until(175.0) == unauthorized("c3", EXPIRED)


@pytest.mark.parametrize("later", [-3_600_000, 3_600_000])
def test_a_clock_of_the_wall_that_is_set_changes_no_end(later: int) -> None:
    served = Served(QUIET)
    served.connect("c1", "ann", grant=token(expires_in=60.0))
    served.timestamp += later
    assert served.wait_until(159.9) == []
    assert served.command("c1", "ping") == [ok("c1", {"timestamp": STAMP + later})]
    assert served.wait_until(160.0) == unauthorized("c1", EXPIRED)


@pytest.mark.parametrize(
    "act",
    [
        lambda served: served.command("c1", "join_channel", channel="chat"),
        lambda served: served.command("c1", "refresh_token", token="x"),
        lambda served: served.receive("c1", "{"),
        lambda served: renew(served, token(expires_in=600.0)),
        lambda served: served.renew("c1", Refusal("invalid_token", "no", 401)),
        lambda served: served.regrant("c1", EVERYTHING),
        lambda served: served.node.regrant_user("ann", OPEN, now=served.now, timestamp=STAMP),
    ],
)
def test_nothing_comes_after_the_end_even_before_it_was_noticed(act: Ending) -> None:
    served = Served(QUIET)
    served.connect("c1", "ann", grant=token(expires_in=60.0))
    served.now = 160.0
    assert act(served) == unauthorized("c1", EXPIRED)
    assert "c1" not in served.node


# Going on


def test_a_token_is_given_to_be_verified() -> None:
    served = Served()
    served.connect("c1", "ann")
    [effect] = served.command("c1", "refresh_token", token="secret")
    assert effect == Verify(Request("c1", "7"), "secret")
    assert "secret" not in repr(effect)
    assert served.command("c1", "refresh_token") == [
        error("c1", "invalid_token", "'token' must be 1 to 8192 characters")
    ]


def test_going_on_with_another_token() -> None:
    served = Served(QUIET)
    served.connect("c1", "ann", grant=token(expires_in=60.0))
    served.now, served.timestamp = 150.0, STAMP + 50_000
    assert renew(served, token(expires_in=90.0)) == [ok("c1", {"user_id": "ann", "expires_in": 40.0})]
    assert served.wait_until(189.9) == []
    assert renew(served, token(expires_in=None)) == [ok("c1", {"user_id": "ann"})]
    assert served.node.next_timeout() is None
    # Nor does one that ends earlier go on longer for it.
    assert renew(served, token(expires_in=51.0)) == [ok("c1", {"user_id": "ann", "expires_in": 1.0})]
    assert served.wait_until(190.9) == unauthorized("c1", EXPIRED)


def test_an_end_that_was_put_off_is_not_the_end() -> None:
    served = Served(QUIET)
    served.connect("c1", "ann", grant=token(expires_in=60.0))
    assert served.renew("c1", Identity("ann", token(expires_in=90.0)), None) == []
    assert served.wait_until(160.0) == []
    assert served.wait_until(190.0) == unauthorized("c1", EXPIRED)


def test_a_time_too_short_to_measure_is_over_at_once_and_not_answered() -> None:
    served = Served(QUIET)
    served.now = 1e17
    served.connect("c1", "ann", grant=token(expires_in=60.0))
    assert renew(served, token(expires_in=0.5)) == unauthorized("c1", EXPIRED)


def test_who_has_no_user_may_come_to_be_allowed_something() -> None:
    served = Served()
    served.connect("c1", None, grant=Grant(subscribe=Scope(exclusive=True)))
    assert renew(served, token(expires_in=60.0), None) == [ok("c1", {"user_id": None, "expires_in": 60.0})]
    assert len(served.command("c1", "join_channel", channel="chat")) == 1
    assert [each["channel"] for each in served.node.channels()] == ["chat"]


@pytest.mark.parametrize(("of", "comes"), [("ann", "bob"), ("ann", None), (None, "ann")])
def test_a_token_of_another_user_is_refused(of: str | None, comes: str | None) -> None:
    served = Served(QUIET)
    served.connect("c1", of, grant=token(expires_in=60.0))
    text = "the token is another user's than the connection: connect again with it"
    assert renew(served, attrs.evolve(EVERYTHING, credential=Credential.TOKEN), comes) == [
        error("c1", "user_mismatch", text)
    ]
    assert served.command("c1", "get_connection_stats") == [denied("c1", Action.ADMINISTER)]
    assert served.wait_until(160.0) == unauthorized("c1", EXPIRED)


@pytest.mark.parametrize(
    ("outcome", "code", "message"),
    [
        (Refusal("invalid_token", "no", 401), "invalid_token", "no"),
        (Identity("ann", token(expires_in=0.0)), "token_expired", "the token has expired: get another one"),
        (Identity("ann", token(token_id="gone")), "token_revoked", "the token was revoked: get another one"),
    ],
)
def test_a_token_that_is_good_for_nothing_changes_nothing(outcome: Identity | Refusal, code: str, message: str) -> None:
    served = Served(QUIET)
    served.connect("c1", "ann", grant=token(expires_in=60.0))
    served.revoke(token_id="gone")
    assert served.renew("c1", outcome) == [error("c1", code, message)]
    assert served.renew("c1", outcome, None) == [error("c1", code, message, None)]
    assert served.wait_until(159.9) == []
    assert served.wait_until(160.0) == unauthorized("c1", EXPIRED)


def test_who_is_gone_when_the_token_is_verified_hears_nothing() -> None:
    served = Served()
    served.connect("c1", "ann")
    served.disconnect("c1")
    assert renew(served, token()) == []
    assert served.renew("c1", Refusal("invalid_token", "no", 401)) == []
    assert served.node.renew(Request(None), Identity("ann", token()), now=100.0, timestamp=STAMP) == []
    assert len(served.node) == 0


# Less than before


def test_a_token_that_allows_less_takes_out_of_channels_and_rooms_before_it_is_answered() -> None:
    served = Served()
    served.connect("c1", "ann", "chat", "news", grant=token())  # e.1, e.2 and e.3 are the epochs of her channel...
    served.connect("c2", None, "chat")
    served.command("c1", "join_room", room_id="r", peer_id="a", instance="a1")
    served.command("c2", "join_room", room_id="r", peer_id="b", instance="b1")
    before = served.publish("chat", {"type": "text"})
    assert [each.connections for each in before if isinstance(each, Deliver)] == [("c1", "c2")]
    less = token(expires_in=90.0, subscribe=ONLY_NEWS, signal=Scope(("s",), exclusive=True))
    effects = renew(served, less)
    kinds = [each.message.json.split(b'"')[3] for each in effects if isinstance(each, Deliver)]
    assert kinds == [b"unsubscribed", b"user_left", b"peer_left", b"peer_left", b"response"]
    hear = [each.connections for each in effects if isinstance(each, Deliver)]
    assert hear == [("c1",), ("c2",), ("c1",), ("c2",), ("c1",)]
    assert effects[0] == unsubscribed("c1", "chat")
    assert effects[4] == ok("c1", {"user_id": "ann", "expires_in": 90.0})
    assert served.command("c1", "join_channel", channel="chat") == [denied("c1", Action.SUBSCRIBE, "chat")]
    assert served.command("c1", "join_room", room_id="r") == [denied("c1", Action.SIGNAL, "r")]
    # It is the same again: nothing is told twice.
    assert renew(served, less) == [ok("c1", {"user_id": "ann", "expires_in": 90.0})]


def test_leaving_a_room_that_is_allowed_no_longer() -> None:
    served = Served()
    served.connect("c1", "ann")  # e.1 and e.2 are the epochs of her own channel, and of everybody's
    served.connect("c2", None)
    served.command("c1", "join_room", room_id="r", peer_id="a", instance="a1")
    served.command("c1", "join_room", room_id="s", peer_id="a", instance="a2")
    served.command("c2", "join_room", room_id="r", peer_id="b", instance="b1")
    only_s = Grant(signal=Scope(("s",), exclusive=True))
    gone = left("a", "a1", "removed")
    assert served.regrant("c1", only_s) == [
        Deliver(said(gone, 2, "e.3", 2), ("c1",)),
        Deliver(said(gone, 1, "e.5", 3), ("c2",)),
    ]
    assert served.regrant("c1", only_s) == []
    assert served.command("c1", "get_rooms") == [
        ok(
            "c1",
            {"rooms": [{"room_id": "s", "name": "s", "max_participants": 8, "participants": [peer("a", "a2", "ann")]}]},
        )
    ]


def test_a_server_without_rooms_has_none_to_leave() -> None:
    served = Served(NodeConfig(signaling=None))
    served.connect("c1", "ann", "chat", "news")
    assert served.regrant("c1", Grant(subscribe=ONLY_NEWS)) == [unsubscribed("c1", "chat")]


# From outside


def test_who_is_not_there_is_allowed_nothing() -> None:
    served = Served()
    unknown = Refusal("not_found", "there is no connection 'c1'", status=404)
    assert served.regrant("c1", Grant()) == [Refused(Request(None), unknown)]
    assert served.node.regrant_user("ann", Grant(), now=100.0, timestamp=STAMP) == []


def test_being_allowed_more_from_outside() -> None:
    served = Served()
    served.connect("c1", "ann", grant=token(subscribe=ONLY_NEWS))
    assert served.command("c1", "join_channel", channel="chat") == [denied("c1", Action.SUBSCRIBE, "chat")]
    assert served.regrant("c1", Grant(admin=True)) == []
    assert len(served.command("c1", "join_channel", channel="chat")) == 1
    assert [each["channel"] for each in served.node.channels()] == ["chat"]
    assert len(served.command("c1", "get_active_users")) == 1


def test_all_connections_of_a_user_are_allowed_the_same() -> None:
    served = Served()
    served.connect("c1", "ann", "chat")
    served.connect("c2", "bob", "chat")
    served.connect("c3", "ann", "chat", transport=Transport.SSE)
    grant = Grant(subscribe=ONLY_NEWS)
    effects = served.node.regrant_user("ann", grant, now=100.0, timestamp=STAMP)
    assert effects == [
        unsubscribed("c1", "chat"),
        unsubscribed("c3", "chat"),
        Deliver(came_or_went("user_left", "chat", 3, "e.3", 3, "c3", "ann"), ("c2",)),
    ]


@pytest.mark.parametrize(("given", "ends_at"), [(None, 160.0), (70.0, 160.0), (50.0, 150.0)])
def test_being_allowed_something_from_outside_leaves_one_the_token(given: float | None, ends_at: float) -> None:
    served = Served(QUIET)
    served.connect("c1", "ann", grant=token(expires_in=60.0))
    grant = Grant(expires_at=None if given is None else STAMP / 1000 + given)
    assert served.regrant("c1", grant) == []
    assert served.node.next_timeout() == ends_at
    # The token may be revoked, as before, by what it says.
    assert served.revoke(user_id="ann", issued_before=STAMP / 1000) == []
    assert served.revoke(token_id="t", issued_before=STAMP / 1000 + 1.0) == unauthorized("c1", "the token was revoked")


@pytest.mark.parametrize("grant", [OPEN, EVERYTHING])
def test_being_allowed_everything_is_no_way_out_of_the_token(grant: Grant) -> None:
    served = Served(QUIET)
    served.connect("c1", "ann", grant=token(expires_in=60.0))
    served.connect("c2", "ann", grant=token(token_id="u"))
    assert served.regrant("c1", grant) == served.regrant("c2", grant) == []
    assert served.revoke(token_id="u") == unauthorized("c2", "the token was revoked")
    assert served.wait_until(160.0) == unauthorized("c1", EXPIRED)


def test_the_time_that_is_left_is_no_longer_for_a_clock_that_was_set_back() -> None:
    served = Served(QUIET)
    served.connect("c1", "ann", grant=token(expires_in=60.0))
    served.timestamp -= 3_600_000
    assert served.regrant("c1", Grant()) == []
    assert served.node.next_timeout() == 160.0


def test_being_allowed_something_until_now_is_the_end() -> None:
    served = Served(QUIET)
    served.connect("c1", "ann", "chat", grant=token(expires_in=60.0))
    assert served.regrant("c1", Grant(expires_at=STAMP / 1000)) == unauthorized("c1", EXPIRED)


def test_another_token_from_outside_takes_the_place_of_the_one_before() -> None:
    served = Served(QUIET)
    served.connect("c1", "ann", grant=token(expires_in=60.0))
    for grant, code, message in [
        (token(expires_in=0.0), "token_expired", "the token has expired: get another one"),
        (token(token_id="gone"), "token_revoked", "the token was revoked: get another one"),
    ]:
        served.revoke(token_id="gone")
        assert served.regrant("c1", grant) == [Refused(Request(None), Refusal(code, message, status=401))]
    assert served.regrant("c1", token(expires_in=90.0, token_id="u")) == []
    assert served.node.next_timeout() == 190.0
    assert served.revoke(token_id="t") == []
    assert served.revoke(token_id="u") == unauthorized("c1", "the token was revoked")


# Revoking


def test_a_revocation_ends_those_who_came_with_the_token() -> None:
    served = Served()
    served.connect("c1", "ann", grant=token())
    served.connect("c2", "ann", grant=token(token_id="u"))
    served.connect("c3", "bob", grant=token())
    served.connect("c4", "ann")
    assert served.revoke(token_id="t") == [
        *unauthorized("c1", "the token was revoked"),
        *unauthorized("c3", "the token was revoked"),
    ]
    assert [each["connection_id"] for each in served.node.connections()] == ["c2", "c4"]
    assert served.revoke(user_id="ann", issued_before=STAMP / 1000 + 1.0) == unauthorized("c2", "the token was revoked")
    assert [each["connection_id"] for each in served.node.connections()] == ["c4"]


def test_others_hear_who_left_by_a_revocation() -> None:
    served = Served()
    served.connect("c1", "ann", "chat", grant=token())
    served.connect("c2", None, "chat")
    assert served.revoke(token_id="t") == unauthorized("c1", "the token was revoked")
    [gone] = served.wait_until(105.0)
    assert isinstance(gone, Deliver)
    assert gone.connections == ("c2",)


STAYS = NodeConfig(
    websocket_heartbeat=None,
    router=RouterConfig(namespaces=Namespaces((), Namespace(pattern="*", presence_grace=0.0))),
)


@pytest.mark.parametrize("is_revoked", [False, True])
def test_those_who_end_at_once_hear_nothing_of_each_other(is_revoked: bool) -> None:
    served = Served(STAYS)
    for connection_id, user_id, grant in (("c1", "ann", token()), ("c2", "bob", token()), ("c3", None, OPEN)):
        served.connect(connection_id, user_id, "chat", grant=grant)
        data = {"room_id": "r", "peer_id": connection_id, "instance": connection_id}
        served.command(connection_id, "join_room", **data)
    if is_revoked:
        effects, reason = served.revoke(token_id="t"), REVOKED
    else:
        effects, reason = served.wait_until(160.0), EXPIRED
    assert not isinstance(effects, Refusal)
    ends = [*unauthorized("c1", reason), *unauthorized("c2", reason)]
    assert effects[: len(ends)] == ends
    rest = [effect for effect in effects[len(ends) :] if isinstance(effect, Deliver)]
    assert len(rest) == len(effects) - len(ends)
    assert [(each.connections, said_in(each)) for each in rest] == [
        (("c3",), {"type": "peer_left", "peer_id": "c1", "reason": "removed"}),
        (("c3",), {"type": "user_left", "connection_id": "c1"}),
        (("c3",), {"type": "peer_left", "peer_id": "c2", "reason": "removed"}),
        (("c3",), {"type": "user_left", "connection_id": "c2"}),
    ]


def said_in(effect: Deliver) -> Message:
    told = json.loads(effect.message.json)
    return {name: told[name] for name in ("type", "peer_id", "connection_id", "reason") if name in told}


def test_a_peer_whose_time_ends_is_not_waited_for() -> None:
    served = Served(QUIET)
    served.connect("c1", "ann", grant=token(), session="secret")
    for room_id in ("r", "s"):
        served.command("c1", "join_room", room_id=room_id)
    # Nor does it take with it who has been lost before: he may come back with another token.
    served.connect("c2", "bob", grant=token())
    served.command("c2", "join_room", room_id="r", peer_id="b")
    served.now = 159.0
    served.disconnect("c2")
    assert served.wait_until(160.0) == unauthorized("c1", EXPIRED)
    assert [(each["room_id"], _peers(each)) for each in rooms_in(served)] == [("r", ["b"]), ("s", [])]


def rooms_in(served: Served) -> list[Any]:
    assert served.node.signaling is not None
    return served.node.signaling.describe()


def _peers(room: Any) -> list[str]:
    return [each["peer_id"] for each in room["participants"]]


def test_without_rooms_those_whose_time_ends_leave_none() -> None:
    served = Served(NodeConfig(websocket_heartbeat=None, signaling=None))
    served.connect("c1", "ann", grant=token())
    assert served.wait_until(160.0) == unauthorized("c1", EXPIRED)


def test_what_is_not_remembered_ends_nobody() -> None:
    served = Served()
    served.node.revocations._max_size = 1
    served.connect("c1", "ann", grant=token())
    assert served.revoke(token_id="u") == []
    refused = served.revoke(token_id="t")
    assert isinstance(refused, Refusal)
    assert (refused.code, refused.status) == ("too_many_revocations", 503)
    assert "c1" in served.node


def test_a_token_verified_before_it_was_revoked_does_not_go_on() -> None:
    served = Served()
    served.connect("c1", "ann", grant=token())
    served.command("c1", "refresh_token", token="x")
    verified = Identity("ann", token(token_id="u", expires_in=600.0))
    assert served.revoke(token_id="u") == []
    text = "the token was revoked: get another one"
    assert served.renew("c1", verified) == [error("c1", "token_revoked", text)]
    # And one that was gone on with is, instead of the first.
    assert served.renew("c1", Identity("ann", token(token_id="v")), None) == []
    assert served.revoke(token_id="t") == []
    assert served.revoke(token_id="v") == unauthorized("c1", "the token was revoked")
