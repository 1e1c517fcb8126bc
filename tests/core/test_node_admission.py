"""The node: who may come in, and how many at a time."""

from __future__ import annotations

import pytest

from rtcore.errors import LocalProtocolError, Refusal
from rtcore.node import NodeConfig
from rtcore.permissions import Credential, Grant, Identity
from rtcore.router import Request
from rtcore.session import Transport

from .node_talk import STAMP, Served, connected, ok, token, unauthorized

WS, SSE = Transport.WEBSOCKET, Transport.SSE

EXPIRED = Refusal("token_expired", "the token has expired: get another one", status=401)
REVOKED = Refusal("token_revoked", "the token was revoked: get another one", status=401)


def too_many(limit: str) -> Refusal:
    text = f"{limit} at a time: close one first, or try again later"
    return Refusal("too_many_connections", text, 429, retry_after=5)


OF_A_USER = too_many("a user may have 2 connections")
OF_AN_ADDRESS = too_many("2 connections may come from one address")


def test_a_user_has_so_many_connections_of_all_transports() -> None:
    served = Served(NodeConfig(max_per_user=2))
    served.connect("c1", "ann")
    assert served.node.admit(WS, user_id="ann") is None
    served.connect("c2", "ann", transport=SSE)
    assert served.node.admit(WS, user_id="ann") == served.node.admit(SSE, user_id="ann") == OF_A_USER
    assert served.node.admit(WS, user_id="bob") is None
    for name in ("c3", "c4", "c5"):
        assert served.node.admit(WS) is None  # somebody anonymous is no user
        served.connect(name, None)
    served.disconnect("c1")
    assert served.node.admit(WS, user_id="ann") is None


def test_where_no_user_may_connect_others_may() -> None:
    served = Served(NodeConfig(max_per_user=0, max_per_address=0))
    assert served.node.admit(WS) is None
    assert served.node.admit(WS, user_id="ann") == too_many("a user may have 0 connections")
    assert served.node.admit(WS, address="10.0.0.1") == too_many("0 connections may come from one address")


def test_so_many_connections_come_from_an_address() -> None:
    served = Served(NodeConfig(max_per_address=2))
    served.connect("c1", "ann", address="10.0.0.1")
    assert served.node.admit(WS, address="10.0.0.1") is None
    served.connect("c2", None, transport=SSE, address="10.0.0.1")
    assert served.node.admit(WS, user_id="bob", address="10.0.0.1") == OF_AN_ADDRESS
    assert served.node.admit(WS, address="10.0.0.2") is None
    for name in ("c3", "c4", "c5"):
        assert served.node.admit(WS) is None  # from where is not known
        served.connect(name, None)
    served.node.close("c2", 1000, "", now=100.0, timestamp=STAMP)
    assert served.node.admit(WS, address="10.0.0.1") is None
    served.disconnect("c1")
    assert served.node._sessions._addresses == {}


def test_what_is_told_first_of_several_reasons() -> None:
    config = NodeConfig(max_connections=3, max_per_user=1, max_per_address=1)
    served = Served(config)
    served.connect("c1", "ann", address="10.0.0.1")
    over = token(expires_in=0.0)

    def refusals() -> list[str | None]:
        grants = [(over, STAMP), (over, None), (Grant(), STAMP)]
        found = [
            served.node.admit(WS, user_id="ann", grant=grant, address="10.0.0.1", timestamp=at) for grant, at in grants
        ]
        return [None if each is None else each.message for each in found]

    user = "a user may have 1 connections at a time: close one first, or try again later"
    assert refusals() == ["the token has expired: get another one", user, user]
    served.connect("c2", None)
    served.connect("c3", None)
    full = "the server is full: try again later"
    assert refusals() == ["the token has expired: get another one", full, full]
    served.node.drain(now=100.0, timestamp=STAMP)
    draining = "the server is about to stop: connect again"
    assert refusals() == [draining, draining, draining]


def test_a_token_is_good_until_it_expires() -> None:
    served = Served()
    grant = token(expires_in=0.5)
    for later, refusal in [(499, None), (500, EXPIRED), (501, EXPIRED)]:
        assert served.node.admit(WS, user_id="ann", grant=grant, timestamp=STAMP + later) == refusal
    assert served.node.admit(WS, user_id="ann", grant=token(expires_in=None), timestamp=STAMP + 10**12) is None


def test_a_token_that_was_revoked_is_refused() -> None:
    served = Served()
    assert served.revoke(token_id="t") == []
    assert served.node.admit(WS, user_id="ann", grant=token(), timestamp=STAMP) == REVOKED
    assert served.node.admit(WS, user_id="ann", grant=token(token_id="u"), timestamp=STAMP) is None
    key = Grant(credential=Credential.KEY, token_id="t")
    assert served.node.admit(WS, user_id="ann", grant=key, timestamp=STAMP) is None
    assert (len(served.node.revocations), served.node.empty) == (1, True)


def test_what_is_good_no_longer_when_it_arrives_does_not_get_in() -> None:
    """It was when it was admitted, and the handshake has taken its time."""
    served = Served()
    ended = unauthorized("c1", EXPIRED.message)
    assert served.connect("c1", "ann", "chat", grant=token(expires_in=0.0)) == ended
    assert served.connect("c1", "ann", "chat", grant=token(expires_in=-9.0)) == ended
    served.revoke(user_id="ann", issued_before=STAMP / 1000 + 1.0)
    assert served.connect("c1", "ann", "chat", grant=token()) == unauthorized("c1", REVOKED.message)
    assert (served.node.empty, served.node.channels(), served.node.next_timeout()) == (True, [], None)
    # One issued since is another matter.
    assert served.connect("c1", "ann", grant=token(issued=1.0)) == [connected("c1", "ann", expires_in=60.0)]


def test_an_id_that_somebody_has_is_not_closed_for_a_token_that_is_over() -> None:
    served = Served()
    served.connect("c1", "ann")
    with pytest.raises(LocalProtocolError, match="connection 'c1' is attached already"):
        served.connect("c1", "eve", grant=token(expires_in=0.0))
    assert "c1" in served.node


def test_what_a_connection_is_told_of_its_end() -> None:
    served = Served()
    assert served.connect("c1", "ann", grant=token(expires_in=0.25)) == [connected("c1", "ann", expires_in=0.25)]
    assert served.connect("c2", "ann", grant=token(expires_in=None)) == [connected("c2", "ann")]


def test_who_a_connection_is() -> None:
    served = Served()
    served.connect("c1", "ann", grant=token())
    assert served.node.identity("c1") == Identity("ann", token())
    assert served.regrant("c1", Grant(admin=True)) == []
    held = served.node.identity("c1")
    assert held is not None
    assert (held.grant.admin, held.grant.token_id) == (True, "t")
    assert served.node.identity("c2") is None


def test_answering_who_has_authenticated_before_it_was_connected() -> None:
    served = Served()
    served.connect("c1", "ann", grant=token(expires_in=60.0))
    served.now = 110.0
    node = served.node
    told = {"user_id": "ann", "expires_in": 50.0}
    assert node.confirm(Request("c1", "7"), now=110.0, timestamp=STAMP) == [ok("c1", told)]
    assert node.confirm(Request("c1"), now=110.0, timestamp=STAMP) == []
    assert node.confirm(Request("c9", "7"), now=110.0, timestamp=STAMP) == []
    assert node.confirm(Request(None, "7"), now=110.0, timestamp=STAMP) == []
