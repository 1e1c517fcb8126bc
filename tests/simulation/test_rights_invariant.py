"""What is not allowed is noticed: by what servers are seen to say, and by what clients do about it."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from rtcore.encoded import Encoded, Source
from rtcore.messages import Message, encode
from rtcore.namespaces import Namespace, Namespaces, SlowConsumer
from rtcore.node import NodeConfig
from rtcore.permissions import Action, Grant, Revocation, Scope
from rtcore.router import RouterConfig
from rtcore.simulation import ServerConfig, SimulatedWebSocketClient
from rtcore.simulation.invariants import Rights

from .place import CHAT, NOTHING, UNTIL, Place

# What others say of somebody in the channel.
JOINED = {"type": "user_joined", "channel": "chat", "user_id": "bob", "connection_id": "s1c9"}


class Watched(Place):
    """Ann is in ``chat``, where the application has said something, and ``feed`` is not for her."""

    def __init__(self, grant: Grant = CHAT) -> None:
        super().__init__()
        self.ann: SimulatedWebSocketClient = self.client(self.wallet(grant=grant))
        self.ann.join("chat")
        self.simulation.run_for(1.0)
        for _ in range(2):
            self.server.publish("chat", self.simulation.numbered("s"))
            self.server.publish("feed", self.simulation.numbered("s"))
        self.simulation.run_for(1.0)

    @property
    def rights(self) -> Rights:
        return self.simulation.rights

    @property
    def connection_id(self) -> str:
        assert self.ann.connection_id is not None
        return self.ann.connection_id

    def told(self, message: Message) -> None:
        """Have the server be seen to tell ann something."""
        self.rights.server_delivers(self.server, encode(message), (self.connection_id,))

    def asks(self, text: str) -> None:
        self.rights.server_received(self.server, self.connection_id, text)

    def said(self, number: int) -> Encoded:
        """Return a publication as it is told again."""
        [publication] = self.simulation.ledger.by_number[number]
        source = Source(
            publication.line.channel, publication.epoch, publication.offset, SlowConsumer.DISCONNECT, "", False
        )
        meta = {"sender": {"connection_id": None, "user_id": None}}
        return encode({**publication.message, "meta": meta}, source=source)

    def hears(self, encoded: Encoded) -> None:
        self.rights.server_delivers(self.server, encoded, (self.connection_id,))


def changed(message: Message, *, channel: str = "chat", offset: int = 99) -> Encoded:
    return encode(message, source=Source(channel, "s1.9p", offset, SlowConsumer.DISCONNECT, "", True))


def answer(**data: object) -> Message:
    return {"type": "response", "id": "x", "ok": True, "data": data}


def error(code: str, text: str = "no") -> Message:
    return {"type": "error", "id": "x", "code": code, "message": text}


def command(name: str, **data: object) -> str:
    return encode({"type": "command", "command": name, "data": data, "id": "x"}).json.decode()


# What is heard


def test_what_is_said_in_a_channel_that_one_may_not_be_in() -> None:
    place = Watched()
    place.simulation.ledger.server_delivers(place.server, place.said(2), ("nobody",))
    with place.fails("hears what is said in feed, and may not: the token names other channels"):
        place.hears(place.said(2))


def test_what_was_said_before_is_for_those_who_may_know() -> None:
    place = Watched(Grant(subscribe=CHAT.subscribe, history=Scope((), exclusive=True)))
    with place.fails("hears what is said in chat and was said before, and may not"):
        place.hears(place.said(1))


def test_who_comes_and_goes_is_for_those_who_may_know() -> None:
    place = Watched(Grant(subscribe=CHAT.subscribe, presence=Scope((), exclusive=True)))
    with place.fails("hears who comes and goes in chat, and may not"):
        place.hears(changed(JOINED))


def test_whose_token_was_revoked_hears_nothing() -> None:
    place = Watched()
    place.rights.server_revokes(place.server, Revocation(user_id="ann", until=UNTIL))
    with place.fails("hears what is said in chat.*, and its token t1 was revoked"):
        place.hears(place.said(3))


def test_those_who_are_gone_hear_nothing() -> None:
    place = Watched()
    place.rights.server_delivers(place.server, place.said(2), ("s1c8",))
    connection_id = place.connection_id
    place.ann.disconnect()
    place.simulation.run_for(1.0)
    place.rights.server_delivers(place.server, place.said(2), (connection_id,))
    place.rights.check()


# What is published


def published(place: Watched, *, channel: str = "chat") -> Encoded:
    """Return what ann is seen to publish."""
    number = 77
    place.asks(encode({"type": "message", "channel": channel, "n": number, "id": "x"}).json.decode())
    sender = {"connection_id": place.connection_id, "user_id": "ann"}
    source = Source(channel, "s1.8", 1, SlowConsumer.DISCONNECT, "", False)
    encoded = encode({"type": "message", "channel": channel, "n": number, "meta": {"sender": sender}}, source=source)
    place.simulation.ledger.server_delivers(place.server, encoded, ())
    return encoded


def test_a_publication_of_somebody_who_may_not() -> None:
    place = Watched(attrs.evolve(CHAT, publish=Scope(("chat",), exclusive=True)))
    with place.fails("feed .* is published by s1c1, who may not: the token names other channels"):
        place.hears(published(place, channel="feed"))
    place = Watched(attrs.evolve(CHAT, publish=Scope((), exclusive=True)))
    place.asks(encode({"type": "message", "channel": "chat", "id": "x"}).json.decode())
    with place.fails("is published by s1c1, who may not"):
        place.told(answer(channel="chat", epoch="s1.7", offset=1))


def test_a_publication_of_somebody_whose_time_is_up() -> None:
    place = Watched()
    encoded = published(place)
    place.server._skew += 20_000.0
    with place.fails("is published by s1c1, whose time has ended"):
        place.hears(encoded)


def test_a_publication_may_be_acknowledged_again_later() -> None:
    place = Watched()
    place.asks(encode({"type": "message", "recipient_id": "bob", "id": "x"}).json.decode())
    place.told(answer(channel="$user:bob", epoch="s1.7", offset=1))
    place.rights._there[place.connection_id].grant = NOTHING
    place.asks(encode({"type": "message", "recipient_id": "bob", "id": "x"}).json.decode())
    place.told(answer(channel="$user:bob", epoch="s1.7", offset=1))


def test_what_somebody_says_to_themselves_is_theirs_to_say() -> None:
    place = Watched(attrs.evolve(CHAT, publish=Scope((), exclusive=True)))
    place.rights._check_publisher(place.connection_id, f"$connection:{place.connection_id}", "it", (Action.PUBLISH,))
    place.rights._check_publisher(None, "chat", "it", (Action.PUBLISH,))


# What is answered


@pytest.mark.parametrize("name", ["join_channel", "history", "presence"])
def test_an_answer_to_somebody_who_may_not_ask(name: str) -> None:
    place = Watched()
    place.rights._there[place.connection_id].grant = Grant(
        subscribe=CHAT.subscribe, history=CHAT.subscribe, presence=CHAT.subscribe
    )
    place.asks(command(name, channel="feed"))
    with place.fails(f"s1c1 is answered {name} of feed, but the token names other channels"):
        place.told(answer())


def test_an_answer_to_what_was_not_asked_is_nobodys_business() -> None:
    place = Watched()
    place.told(answer())
    place.asks(command("ping"))
    place.told(answer())
    place.asks(command("ping"))
    place.told(error("unknown"))


def test_a_refusal_without_reason() -> None:
    place = Watched()
    place.asks(command("join_channel", channel="chat"))
    with place.fails("s1c1 is refused join_channel of chat without reason"):
        place.told(error("subscribe_denied"))


def test_a_channel_of_the_url_that_is_not_joined_without_reason() -> None:
    place = Watched()
    place.rights._there[place.connection_id].wanted = ("feed", "chat")
    with place.fails("s1c1 is not let into chat without reason"):
        place.told({"type": "connected", "channels": []})


def test_refusals_are_the_same_for_all_channels() -> None:
    place = Watched()
    for channel, text in (("feed", "no"), ("nowhere", "no")):
        place.asks(command("join_channel", channel=channel))
        place.told(error("subscribe_denied", text))
    place.asks(command("join_channel", channel="elsewhere"))
    with place.fails("s1c1 is told 'there is none' of elsewhere, and others 'no'"):
        place.told(error("subscribe_denied", "there is none"))


def test_a_refusal_that_tells_more_than_one_may_know() -> None:
    place = Watched(Grant(history=CHAT.subscribe))
    place.asks(command("history", channel="feed"))
    place.told(error("rate_limited"))
    place.asks(command("history", channel="feed"))
    with place.fails("s1c1 may not history feed, and is told of epoch_changed"):
        place.told(error("epoch_changed"))
    place.asks(command("history", channel="chat"))
    place.told(error("epoch_changed"))


def test_who_is_there_is_told_to_those_who_may_know_and_to_nobody_else() -> None:
    place = Watched(Grant(presence=CHAT.subscribe))
    place.asks(command("join_channel", channel="feed"))
    with place.fails("s1c1 is told of {'count': 1} in feed, but it is WhyNot.NOT_NAMED"):
        place.told(answer(presence={"count": 1}))
    place.asks(command("join_channel", channel="chat"))
    with place.fails("s1c1 is told of None in chat, but it is None"):
        place.told(answer())
    gap = {"type": "gap", "stream": "presence", "channel": "feed", "reason": "presence_limit"}
    with place.fails("s1c1 is told of .* in feed"):
        place.told(gap)
    place.told({**gap, "reason": "presence_denied"})


# Tokens


def test_a_token_that_is_good_for_nothing_and_goes_on() -> None:
    place = Watched()
    held = place.rights._there[place.connection_id]
    held.refusal = "user_mismatch"
    place.asks(command("refresh_token"))
    with place.fails("s1c1 goes on with a token that is good for nothing: user_mismatch"):
        place.told(answer())
    place.asks(command("refresh_token"))
    place.told(error("rate_limited"))
    place.asks(command("refresh_token"))
    with place.fails("s1c1 cannot go on: token_revoked, but it is user_mismatch"):
        place.told(error("token_revoked"))


@pytest.mark.parametrize("data", [{}, {"expires_in": 5.0}])
def test_a_time_that_is_not_true(data: dict[str, Any]) -> None:
    place = Watched()
    place.asks(command("refresh_token"))
    with place.fails("s1c1 is told that its time ends in"):
        place.told(answer(**data))


def test_a_connection_that_lives_too_long() -> None:
    place = Watched()
    place.rights._there[place.connection_id].ends_at = place.server.now() - 1.0
    with place.fails("s1c1 is connected, and what it came with has ended"):
        place.rights.check()
    place.server.freeze()
    place.rights.check()


def test_a_connection_whose_token_was_revoked() -> None:
    place = Watched()
    place.rights.server_revokes(place.server, Revocation(user_id="ann", until=UNTIL))
    with place.fails("s1c1 is connected, and its token t1 was revoked"):
        place.rights.check()


def test_a_connection_that_is_in_a_channel_where_it_may_not_be() -> None:
    place = Watched()
    place.rights.server_regrants(place.server, (place.connection_id,), NOTHING)
    with place.fails("s1c1 is in chat, and may not be: the token names other channels; it was not told"):
        place.rights.check()


def test_a_connection_that_is_taken_out_where_it_may_be() -> None:
    place = Watched()
    with place.fails("s1c1 is taken out of chat, where it may be"):
        place.told({"type": "unsubscribed", "channel": "chat", "code": "subscribe_denied"})


def test_a_connection_that_is_ended_and_its_token_is_good() -> None:
    place = Watched()
    place.told({"type": "disconnect", "code": 1012, "reason": "restart"})
    with place.fails("s1c1 is ended, and its token is good: the token has expired"):
        place.told({"type": "disconnect", "code": 4401, "reason": "the token has expired"})


def test_changes_of_those_who_have_gone_are_of_no_account() -> None:
    place = Watched()
    place.rights.server_regrants(place.server, (place.connection_id,), NOTHING)
    place.ann.disconnect()
    place.simulation.run_for(1.0)
    assert place.rights._there == {}


def test_a_channel_without_presence_has_no_roster() -> None:
    place = Watched()
    silent = RouterConfig(namespaces=Namespaces((), Namespace(pattern="*", presence=False)))
    place.server.config = ServerConfig(node=NodeConfig(router=silent))
    place.asks(command("join_channel", channel="chat"))
    place.told(answer())


# Clients


def test_a_client_that_joins_what_it_was_taken_out_of() -> None:
    place = Watched()
    place.server.regrant(place.connection_id, NOTHING)
    place.simulation.run_for(1.0)
    place.rights.client_says(place.ann, command("join_channel", channel="feed"))
    place.rights.client_says(place.ann, command("history", channel="chat"))
    with place.fails("ann joins chat, of which it was taken out, and its user has not asked"):
        place.rights.client_says(place.ann, command("join_channel", channel="chat"))
    place.rights.client_asks(place.ann, "chat")
    place.rights.client_says(place.ann, command("join_channel", channel="chat"))


def test_a_client_that_has_asked_meanwhile() -> None:
    place = Watched()
    place.server.regrant(place.connection_id, NOTHING)
    place.ann.join("chat")
    place.simulation.run_for(1.0)
    place.rights.client_says(place.ann, command("join_channel", channel="chat"))
