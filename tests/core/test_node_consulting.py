"""The node: what the application is asked before it is done."""

from __future__ import annotations

import attrs
import pytest

from rtcore.commands import Query
from rtcore.errors import Refusal
from rtcore.messages import Message
from rtcore.node import Consult, NodeEffect
from rtcore.permissions import OPEN, Action, Credential, Grant, Identity, Scope
from rtcore.router import Deliver, Publish, Published, Refused, Request, Subscribe

from .node_talk import STAMP, Served, denial, denied, error, ok, roster, token, unauthorized

BOTH = (Action.SUBSCRIBE, Action.PUBLISH)
REQUEST = Request("c1", "7")
TEXT: Message = {"type": "text", "channel": "chat", "id": "7"}
NO = Refusal("subscribe_denied", "not today", status=403)


def asking(grant: Grant = OPEN) -> Served:
    served = Served(consulted=BOTH)
    served.connect("c1", "ann", grant=grant)  # e.1 and e.2 are the epochs of her own channel, and of everybody's
    return served


def only(effects: list[NodeEffect]) -> Consult:
    [consult] = effects
    assert isinstance(consult, Consult)
    return consult


def join(served: Served) -> Consult:
    return only(served.command("c1", "join_channel", channel="chat"))


def speak(served: Served) -> Consult:
    return only(served.receive("c1", TEXT))


def entry(epoch: str = "e.3", seq: int = 1) -> NodeEffect:
    present = roster(("ann", "c1"), epoch=f"{epoch}p", offset=1)
    return ok("c1", {"channel": "chat", "offset": 0, "epoch": epoch, "replayed": 0, "presence": present})


def receipt(offset: int = 1, epoch: str = "e.3") -> NodeEffect:
    return ok("c1", {"channel": "chat", "offset": offset, "epoch": epoch})


def test_the_application_is_asked_before_somebody_joins() -> None:
    served = asking()
    consult = join(served)
    command = Subscribe("chat", REQUEST)
    assert consult == Consult(Action.SUBSCRIBE, "chat", command, REQUEST, None, Identity("ann", OPEN), 0)
    assert served.node.channels() == []
    assert served.resolve(consult) == [entry()]


def test_the_application_is_asked_before_somebody_publishes() -> None:
    served = asking()
    consult = speak(served)
    command = Publish("chat", TEXT, REQUEST)
    assert consult == Consult(Action.PUBLISH, "chat", command, REQUEST, TEXT, Identity("ann", OPEN), 0)
    assert served.node.stats()["published_messages"] == 0
    assert served.resolve(consult) == [receipt()]
    to_bob: Message = {"type": "text", "recipient_id": "bob"}
    assert only(served.receive("c1", to_bob)).channel == "$user:bob"


def test_what_the_application_refuses_is_not_done() -> None:
    served = asking()
    assert served.resolve(join(served), NO) == [error("c1", "subscribe_denied", "not today")]
    assert served.resolve(speak(served), NO) == [error("c1", "subscribe_denied", "not today")]
    assert (served.node.channels(), served.node.stats()["published_messages"]) == ([], 0)
    assert served.node.stats()["refused_messages"] == 2


@pytest.mark.parametrize("action", BOTH)
def test_it_is_asked_only_about_what_it_wants_to_be(action: Action) -> None:
    wanted: set[Action] = set()
    served = Served(consulted=wanted)
    served.connect("c1", "ann")
    wanted.add(action)
    effects = [*served.command("c1", "join_channel", channel="chat"), *served.receive("c1", TEXT)]
    assert [each.action for each in effects if isinstance(each, Consult)] == [action]
    wanted.clear()
    assert served.command("c1", "leave_channel", channel="chat") == [ok("c1", {"channel": "chat"})]
    effects = [*served.command("c1", "join_channel", channel="chat"), *served.receive("c1", TEXT)]
    assert not [each for each in effects if isinstance(each, Consult)]


def test_it_is_not_asked_about_what_is_not_allowed() -> None:
    nothing = Scope(exclusive=True)
    served = asking(Grant(subscribe=nothing, publish=nothing))
    assert served.command("c1", "join_channel", channel="chat") == [denied("c1", Action.SUBSCRIBE, "chat")]
    assert served.receive("c1", TEXT) == [denied("c1", Action.PUBLISH, "chat")]


def test_it_is_not_asked_about_leaving_nor_echoes_nor_what_it_does_itself() -> None:
    served = asking()
    assert served.command("c1", "leave_channel", channel="chat") == [ok("c1", {"channel": "chat"})]
    (echo, _) = served.receive("c1", {"type": "text", "id": "7"})
    assert isinstance(echo, Deliver)
    assert len(served.publish("chat", TEXT)) == 1
    served.node.subscribe("c1", "chat", now=100.0, timestamp=STAMP)
    assert [each["channel"] for each in served.node.channels()] == ["chat"]
    served.connect("c2", None, "chat")
    assert served.node.channels()[0]["subscribers"] == 2
    served.command("c1", "join_room", room_id="r")
    assert served.node.stats()["webrtc_peers"] == 1


QUESTIONS = [("history", Action.HISTORY), ("presence", Action.PRESENCE)]


@pytest.mark.parametrize(("name", "action"), QUESTIONS)
def test_it_is_asked_before_somebody_is_told_of_a_channel(name: str, action: Action) -> None:
    served = asking()
    served.publish("chat", {"type": "text"})
    consult = only(served.command("c1", name, channel="chat"))
    query = consult.command
    assert isinstance(query, Query)
    assert query.name == name
    assert consult == Consult(Action.SUBSCRIBE, "chat", query, REQUEST, None, Identity("ann", OPEN), 0)
    assert served.resolve(consult, NO) == [error("c1", "subscribe_denied", "not today")]
    (answer,) = served.resolve(consult)
    assert isinstance(answer, Deliver)
    assert b'"ok":true' in answer.message.json
    # What it is allowed is decided before, and again after.
    assert served.regrant("c1", Grant(history=Scope(exclusive=True), presence=Scope(exclusive=True))) == []
    assert served.resolve(consult) == [denied("c1", action, "chat")]
    assert served.command("c1", name, channel="chat") == [denied("c1", action, "chat")]
    # Neither of the two needs the right to the other.
    other = "presence" if name == "history" else "history"
    assert served.regrant("c1", attrs.evolve(Grant(), **{other: Scope(exclusive=True)})) == []
    assert only(served.command("c1", name, channel="chat")).action is Action.SUBSCRIBE


def test_it_is_not_asked_about_questions_that_concern_no_channel() -> None:
    served = asking()
    for name in ("ping", "get_rooms", "get_connection_stats"):
        (answer,) = served.command("c1", name)
        assert isinstance(answer, Deliver)


# Somebody without a connection


def publish_for(served: Served, grant: Grant | None, user_id: str | None = "ann", **rest: str) -> list[NodeEffect]:
    return served.node.publish(
        "chat",
        TEXT,
        user_id=user_id,
        grant=grant,
        id="7",
        consults=True,
        now=served.now,
        timestamp=served.timestamp,
        **rest,
    )


def test_it_is_asked_before_somebody_publishes_without_a_connection() -> None:
    served = Served(consulted=BOTH)
    consult = only(publish_for(served, OPEN))
    command, request = consult.command, Request(None, "7")
    assert consult == Consult(Action.PUBLISH, "chat", command, request, TEXT, Identity("ann", OPEN), None)
    assert served.node.stats()["published_messages"] == 0
    assert served.resolve(consult, NO) == [Refused(request, NO)]
    assert served.resolve(consult) == [Published(request, "e-1", "chat", 1, "e.1")]
    # Nor is it asked about a repetition, of what is not allowed, and by the application itself.
    assert publish_for(served, OPEN) == [Published(request, "e-1", "chat", 1, "e.1", repeated=True)]
    assert served.resolve(consult, NO) == [Published(request, "e-1", "chat", 1, "e.1", repeated=True)]
    less = Grant(publish=Scope(exclusive=True))
    assert publish_for(served, less, "bob") == [Refused(request, denial(Action.PUBLISH, "chat"))]
    assert publish_for(served, None, None) == [Published(request, "e-2", "chat", 2, "e.1")]


def test_who_was_revoked_while_it_was_asked_publishes_nothing() -> None:
    served = Served(consulted=BOTH)
    consult = only(publish_for(served, token()))
    assert served.revoke(token_id="t") == []
    [refused] = served.resolve(consult)
    assert isinstance(refused, Refused)
    assert (refused.request, refused.refusal.code) == (Request(None, "7"), "token_revoked")
    assert served.node.stats()["published_messages"] == 0


def test_a_key_is_known_by_its_name_where_it_is_asked() -> None:
    served = Served(consulted=BOTH)
    key = Grant(credential=Credential.KEY, server=True)
    first = served.resolve(only(publish_for(served, key, None, publisher="news")))
    assert publish_for(served, key, None, publisher="news") == [
        attrs.evolve(each, repeated=True) for each in first if isinstance(each, Published)
    ]
    assert only(publish_for(served, key, None, publisher="other")).identity == Identity(None, key)


# Repetitions


def test_a_repetition_is_answered_as_the_first_was() -> None:
    served = asking()
    first, second = speak(served), speak(served)  # sent again before it was answered
    assert served.resolve(first) == [receipt()]
    assert served.receive("c1", TEXT) == [receipt()]
    # Even if the answers contradict each other.
    assert served.resolve(second, NO) == [receipt()]
    assert served.resolve(second) == [receipt()]
    assert served.node.stats()["published_messages"] == 1
    assert served.resolve(attrs.evolve(join(served), request=REQUEST), NO) == [
        error("c1", "subscribe_denied", "not today")
    ]


def test_the_application_hears_what_somebody_is_allowed_now() -> None:
    served = asking(token(expires_in=60.0))
    assert served.regrant("c1", Grant(admin=True, expires_at=STAMP / 1000 + 30.0)) == []
    assert join(served).identity == Identity("ann", token(expires_in=30.0, admin=True))


# What happens meanwhile


def test_who_is_gone_meanwhile_does_nothing_more() -> None:
    served = asking()
    entering, speaking = join(served), speak(served)
    served.disconnect("c1")
    for refusal in (None, NO):
        assert served.resolve(entering, refusal) == served.resolve(speaking, refusal) == []
    # Nor does somebody else who has that id now.
    served.connect("c1", "eve")
    for refusal in (None, NO):
        assert served.resolve(entering, refusal) == served.resolve(speaking, refusal) == []
    assert (served.node.channels(), served.node.stats()["published_messages"]) == ([], 0)
    assert served.resolve(attrs.evolve(entering, request=Request(None))) == []


def test_who_is_allowed_less_meanwhile_is_refused() -> None:
    served = asking(token())
    entering, speaking = join(served), speak(served)
    nothing = Scope(exclusive=True)
    less = token(expires_in=90.0, subscribe=nothing, publish=nothing)
    assert served.renew("c1", Identity("ann", less), None) == []
    assert served.resolve(entering) == [denied("c1", Action.SUBSCRIBE, "chat")]
    assert served.resolve(speaking) == [denied("c1", Action.PUBLISH, "chat")]
    assert (served.node.channels(), served.node.stats()["published_messages"]) == ([], 0)


def test_who_goes_on_with_another_token_meanwhile_is_let_in() -> None:
    served = asking(token(expires_in=60.0))
    entering = join(served)
    assert served.renew("c1", Identity("ann", token(expires_in=600.0)), None) == []
    served.wait_until(161.0)
    assert served.resolve(entering) == [entry()]


@pytest.mark.parametrize("refusal", [None, NO])
def test_who_ends_meanwhile_is_not_let_in(refusal: Refusal | None) -> None:
    served = asking(token(expires_in=60.0))
    entering = join(served)
    served.now = 160.0
    assert served.resolve(entering, refusal) == unauthorized("c1", "the token has expired")
    assert served.node.channels() == []


def test_who_was_revoked_meanwhile_is_not_let_in() -> None:
    served = asking(token())
    entering = join(served)
    assert served.revoke(token_id="t") == unauthorized("c1", "the token was revoked")
    assert served.resolve(entering) == []
    assert served.node.channels() == []


def test_others_speak_while_the_application_thinks() -> None:
    served = asking()
    consult = speak(served)
    assert served.publish("chat", {"type": "text"}) != []
    assert served.resolve(consult) == [receipt(2)]
