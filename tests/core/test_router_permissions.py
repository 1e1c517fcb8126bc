"""The router: who may do what, and what becomes of those who may no longer."""

from __future__ import annotations

import json

import pytest

from rtcore.channels import BROADCAST, connection_channel, user_channel
from rtcore.errors import LocalProtocolError, Refusal
from rtcore.filters import Filter
from rtcore.messages import Message
from rtcore.namespaces import Access, Namespace
from rtcore.permissions import EVERYTHING, OPEN, Action, Grant, Identity, Scope
from rtcore.router import (
    Deliver,
    Joined,
    Left,
    Page,
    Publish,
    Published,
    Recovered,
    Refused,
    Request,
    Roster,
    Subscribe,
    Unsubscribe,
)

from .grant_talk import NOBODY, NOTHING, Granted, denied, only, presence_changed, unsubscribed
from .node_talk import came_or_went, joined, member, published

C1, C2, C3 = Request("c1", "r1"), Request("c2", "r2"), Request("c3", "r3")
TEXT: Message = {"type": "text"}
IN_CHAT: Message = {"type": "text", "channel": "chat"}
CHAT_ONLY = Grant(subscribe=only("chat"), publish=only("chat"), history=only("chat"), presence=only("chat"))
NEWS_ONLY = Grant(subscribe=only("news"), publish=only("news"), history=only("news"), presence=only("news"))
BLIND = Grant(presence=NOTHING)
INFO: Message = {"name": "Ann", "badges": ["admin", {"color": "red"}]}


# Asking


@pytest.mark.parametrize("exists", [True, False])
def test_who_may_not_join_a_channel_does_not(exists: bool) -> None:
    granted = Granted()
    if exists:
        granted.come("c2", None, "secret", grant=OPEN)
        granted.say("secret", persistent=True)
    granted.come("c1", "ann", grant=CHAT_ONLY)
    refusal = denied(Action.SUBSCRIBE, "secret", CHAT_ONLY)
    assert granted.send(Subscribe("secret", C1)) == [Refused(C1, refusal)]
    assert (refusal.code, refusal.status) == ("subscribe_denied", 403)
    assert granted.router.channels_of("c1") == []
    assert granted.heard_by("c1", granted.say("secret")) == []
    assert isinstance(granted.send(Subscribe("chat", C1))[0], Joined)


def test_a_refusal_changes_nothing_that_anybody_could_see() -> None:
    granted = Granted()
    granted.come("c1", "ann", grant=CHAT_ONLY)
    for command in (Subscribe("secret", C1), Publish("secret", TEXT, C1)):
        assert [type(effect) for effect in granted.send(command)] == [Refused]
    router, asker = granted.router, Identity("bob", CHAT_ONLY)
    for who in ("c1", asker):
        assert isinstance(router.roster("secret", asker=who), Refusal)
        page = router.history("secret", asker=who, epoch=None, after=None, before=None, limit=1, now=100.0)
        assert isinstance(page, Refusal)
    # Neither the channels that there are nor the epochs that are drawn for them: e.1 and e.2 are Ann's and everybody's.
    assert (router.next_timeout(), router.channels()) == (None, [])
    assert granted.send(Subscribe("chat", C1)) == [joined(C1, "chat", 0, "e.3", ("ann", "c1"), changes=1)]


def test_no_such_name_comes_before_no_such_right() -> None:
    granted = Granted()
    granted.come("c1", "ann", grant=CHAT_ONLY)
    refused = granted.send(Subscribe(BROADCAST, C1))[0]
    assert isinstance(refused, Refused)
    assert refused.refusal.code == "invalid_channel"


def test_what_a_namespace_asks_for_holds_for_connections() -> None:
    granted = Granted(Namespace(pattern="club", subscribe=Access.USERS))
    granted.come("c1", None, grant=OPEN)
    granted.come("c2", "ann", grant=OPEN)
    refusal = denied(Action.SUBSCRIBE, "club", OPEN, subscribe=Access.USERS)
    assert granted.send(Subscribe("club", C1)) == [Refused(C1, refusal)]
    assert isinstance(granted.send(Subscribe("club", C2))[0], Joined)


def test_the_server_joins_anybody_to_a_channel_of_its_own() -> None:
    granted = Granted()
    nothing = Grant(subscribe=NOTHING, publish=NOTHING, history=NOTHING, presence=NOTHING)
    granted.come("c1", "ann", grant=nothing)
    listen = Subscribe("$room:r", C1, builtin=True)
    assert granted.send(listen) == [Joined(C1, "$room:r", 0, "e.3", Recovered(None, 0), None)]
    told = published(TEXT, 1, "e.3", 1, "c1", "ann")
    assert granted.send(Publish("$room:r", TEXT, C1, builtin=True)) == [
        Deliver(told, ("c1",)),
        Published(C1, "e-1", "$room:r", 1, "e.3"),
    ]
    # But to speak there it must have been let in: whoever names it is refused.
    by_name = Publish("$room:r", TEXT, Request("c1", "r9"))
    assert granted.send(by_name) == [Refused(by_name.request, denied(Action.PUBLISH, "$room:r", nothing))]
    assert granted.regrant("c1", nothing) == []
    assert granted.heard_by("c1", granted.say("$room:r")) != []


@pytest.mark.parametrize("channel", ["secret", user_channel("bob"), BROADCAST, connection_channel("c2")])
def test_who_may_not_publish_somewhere_does_not(channel: str) -> None:
    granted = Granted()
    granted.come("c1", "ann", grant=CHAT_ONLY)
    granted.come("c2", "bob", "secret", grant=OPEN)
    assert granted.send(Publish(channel, TEXT, C1)) == [Refused(C1, denied(Action.PUBLISH, channel, CHAT_ONLY))]
    assert granted.send(Publish("chat", IN_CHAT, C1))[-1] == Published(C1, "e-2", "chat", 1, "e.5")


def test_whatever_one_may_do_one_may_talk_to_oneself() -> None:
    granted = Granted()
    nothing = Grant(publish=NOTHING)
    granted.come("c1", "ann", grant=nothing)
    own = connection_channel("c1")
    assert granted.send(Publish(own, TEXT, C1)) == [
        Deliver(published(TEXT, 1, "e.3", 1, "c1", "ann"), ("c1",)),
        Published(C1, "e-1", own, 1, "e.3"),
    ]
    # Somebody without a connection has none of their own, whatever they are called.
    by_http = Publish(own, TEXT, NOBODY, user_id="c1", grant=OPEN)
    assert granted.send(by_http) == [Refused(NOBODY, denied(Action.PUBLISH, own, OPEN))]
    # Nor is it allowed anything else there.
    assert granted.router.decide(Action.HISTORY, own, asker="c1") is not None


def test_a_refusal_comes_before_a_word_about_the_size() -> None:
    granted = Granted(Namespace(pattern="secret", max_message_size=1))
    granted.come("c1", "ann", grant=CHAT_ONLY)
    assert granted.send(Publish("secret", TEXT, C1)) == [Refused(C1, denied(Action.PUBLISH, "secret", CHAT_ONLY))]


def test_without_a_connection_one_publishes_by_what_one_came_with() -> None:
    granted = Granted()
    assert granted.send(Publish("news", TEXT, NOBODY, user_id="ann", grant=CHAT_ONLY)) == [
        Refused(NOBODY, denied(Action.PUBLISH, "news", CHAT_ONLY))
    ]
    assert granted.send(Publish(BROADCAST, TEXT, NOBODY, grant=OPEN)) == [
        Refused(NOBODY, denied(Action.PUBLISH, BROADCAST, OPEN))
    ]
    accepted = Published(NOBODY, "e-1", BROADCAST, 1, "e.1")
    assert granted.send(Publish(BROADCAST, TEXT, NOBODY, grant=EVERYTHING))[-1] == accepted
    # The application has come with nothing, and needs nothing.
    assert granted.say(BROADCAST)[-1] == Published(NOBODY, "e-2", BROADCAST, 2, "e.1")


def test_without_a_connection_a_user_is_a_member_of_what_any_connection_has_joined() -> None:
    granted = Granted(Namespace(pattern="chat", publish=Access.MEMBERS))
    refused = [Refused(NOBODY, denied(Action.PUBLISH, "chat", OPEN, publish=Access.MEMBERS))]
    by_ann = Publish("chat", IN_CHAT, NOBODY, user_id="ann", grant=OPEN)
    assert granted.send(by_ann) == refused
    granted.come("c1", "ann", grant=OPEN)
    granted.come("c2", "ann", grant=OPEN)
    assert granted.send(by_ann) == refused
    granted.send(Subscribe("chat", C2))
    assert isinstance(granted.send(by_ann)[-1], Published)
    for other in ("bob", None):
        assert granted.send(Publish("chat", IN_CHAT, NOBODY, user_id=other, grant=OPEN)) == refused
    granted.send(Unsubscribe("chat", C2))
    assert granted.send(by_ann) == refused


def test_what_was_said_and_who_is_there_is_told_to_those_who_may_know() -> None:
    granted = Granted()
    granted.come("c1", "ann", "chat", grant=CHAT_ONLY)
    granted.say("chat")
    router = granted.router
    for asker in (None, "c1", Identity("bob", CHAT_ONLY), Identity(None, OPEN)):
        assert router.roster("chat", asker=asker) == Roster(1, [member("ann", "c1")], "e.3p", 1)
        page = router.history("chat", asker=asker, epoch=None, after=None, before=None, limit=9, now=100.0)
        assert isinstance(page, Page)
        assert (page.offset, len(page.publications)) == (1, 1)
    stranger = Identity("bob", NEWS_ONLY)
    assert router.roster("chat", asker=stranger) == denied(Action.PRESENCE, "chat", NEWS_ONLY)
    page = router.history("chat", asker=stranger, epoch="e.3", after=0, before=None, limit=9, now=100.0)
    assert page == denied(Action.HISTORY, "chat", NEWS_ONLY)
    # Whether there is such a channel, and whether it knows its members, is nothing for strangers.
    assert router.roster("none", asker=stranger) == denied(Action.PRESENCE, "none", NEWS_ONLY)


def test_only_members_may_know_where_only_members_may() -> None:
    granted = Granted(Namespace(pattern="chat", presence_access=Access.MEMBERS, history_access=Access.MEMBERS))
    # It is a member as soon as it comes.
    assert granted.come("c1", "ann", "chat", grant=OPEN) == [
        joined(Request("c1"), "chat", 0, "e.3", ("ann", "c1"), changes=1)
    ]
    granted.come("c2", "ann", grant=OPEN)
    assert isinstance(granted.router.roster("chat", asker="c1"), Roster)
    assert isinstance(granted.router.roster("chat", asker="c2"), Refusal)
    assert isinstance(granted.router.roster("chat", asker=Identity("ann", OPEN)), Roster)


def test_the_channels_that_there_are_are_told_to_those_who_may_join_them() -> None:
    granted = Granted(Namespace(pattern="club", subscribe=Access.USERS))
    granted.come("c1", "ann", "chat", "news", "club", grant=OPEN)
    granted.come("c2", None, grant=CHAT_ONLY)

    def told(asker: Identity | str | None) -> list[str]:
        return [channel.name for channel in granted.router.channels(asker=asker)]

    assert told(None) == told("c1") == told(Identity(None, Grant(admin=True, subscribe=NOTHING)))
    assert told(None) == ["chat", "news", "club"]
    assert told("c2") == ["chat"]
    assert told(Identity(None, Grant())) == ["chat", "news"]
    assert told(Identity("bob", Grant())) == ["chat", "news", "club"]


def test_decisions_about_no_channel() -> None:
    granted = Granted()
    granted.come("c1", "ann", grant=Grant())
    assert granted.router.decide(Action.ADMINISTER, asker=None) is None
    assert granted.router.decide(Action.ADMINISTER, asker=Identity(None, OPEN)) is None
    assert granted.router.decide(Action.ADMINISTER, asker="c1") == denied(Action.ADMINISTER, "", Grant())
    with pytest.raises(LocalProtocolError, match="'c9' is not attached"):
        granted.router.decide(Action.ADMINISTER, asker="c9")


# Rights that change


def test_who_may_no_longer_hear_a_channel_is_told_and_taken_out_of_it() -> None:
    granted = Granted()
    for connection_id, user_id in (("c1", "ann"), ("c2", "bob")):
        granted.come(connection_id, user_id, "chat", "news", "games", grant=OPEN)
    gone = [
        (channel, unsubscribed(channel, denied(Action.SUBSCRIBE, channel, CHAT_ONLY))) for channel in ("news", "games")
    ]
    effects = granted.regrant("c1", CHAT_ONLY)
    assert effects == [
        Deliver(gone[0][1], ("c1",)),
        Deliver(came_or_went("user_left", "news", 3, "e.4", 7, "c1", "ann"), ("c2",)),
        Deliver(gone[1][1], ("c1",)),
        Deliver(came_or_went("user_left", "games", 3, "e.5", 8, "c1", "ann"), ("c2",)),
    ]
    assert gone[0][1].id is None
    assert granted.router.channels_of("c1") == ["chat"]
    assert granted.regrant("c1", CHAT_ONLY) == []
    for channel, heard in (("chat", 1), ("news", 0), ("games", 0)):
        assert len(granted.heard_by("c1", granted.say(channel))) == heard
    # At once: there is no grace for somebody who cannot come back.
    assert granted.router.roster("news") == Roster(1, [member("bob", "c2")], "e.4p", 3)
    assert [type(effect) for effect in granted.send(Subscribe("news", C1))] == [Refused]
    assert granted.send(Unsubscribe("news", C1)) == [Left(C1, "news")]
    # It comes back by itself, if it may again.
    assert granted.regrant("c1", OPEN) == []
    assert granted.router.channels_of("c1") == ["chat"]
    assert isinstance(granted.send(Subscribe("news", C1))[0], Joined)


def test_a_user_stays_by_a_connection_that_may() -> None:
    granted = Granted()
    granted.come("c1", "ann", "chat", grant=OPEN)
    granted.come("c2", "ann", "chat", grant=OPEN)
    granted.come("c3", "bob", "chat", grant=OPEN)
    effects = granted.regrant("c1", NEWS_ONLY)
    assert effects == [Deliver(unsubscribed("chat", denied(Action.SUBSCRIBE, "chat", NEWS_ONLY)), ("c1",))]
    there = granted.router.roster("chat")
    assert isinstance(there, Roster)
    assert there.members == [member("ann", "c2"), member("bob", "c3")]


def test_what_one_may_do_is_what_one_may_do_now() -> None:
    granted = Granted()
    granted.come("c1", "ann", grant=CHAT_ONLY)
    assert isinstance(granted.send(Publish("chat", TEXT, Request("c1", 1)))[-1], Published)
    assert isinstance(granted.router.roster("chat", asker="c1"), Roster)
    granted.regrant("c1", NEWS_ONLY)
    assert isinstance(granted.send(Publish("chat", TEXT, Request("c1", 2)))[-1], Refused)
    assert isinstance(granted.router.roster("chat", asker="c1"), Refusal)


def test_only_the_rights_of_attached_connections_change() -> None:
    with pytest.raises(LocalProtocolError, match="'c9' is not attached"):
        Granted().regrant("c9", OPEN)


# Who is there


def test_who_may_not_know_who_is_there_is_not_told() -> None:
    granted = Granted()
    granted.come("c1", "ann", "chat", grant=OPEN)
    assert granted.come("c2", "bob", "chat", grant=BLIND) == [
        Joined(Request("c2"), "chat", 0, "e.3", Recovered(None, 0), None),
        # It is not invisible itself.
        Deliver(came_or_went("user_joined", "chat", 2, "e.3", 2, "c2", "bob"), ("c1",), skip="c2"),
    ]
    effects = granted.come("c3", None, "chat", grant=OPEN)
    assert effects[1:] == [Deliver(came_or_went("user_joined", "chat", 3, "e.3", 3, "c3", None), ("c1", "c3"), "c3")]
    assert granted.heard_by("c2", granted.send(Unsubscribe("chat", C3))) == []
    # All else it hears, whatever the application calls it, by one delivery for all who see as little.
    granted.come("c4", None, "chat", grant=BLIND)
    said = published({"type": "user_joined", "channel": "chat"}, 1, "e.3", 6)
    assert granted.send(Publish("chat", {"type": "user_joined"}, NOBODY)) == [
        Deliver(said, ("c1",)),
        Deliver(said, ("c2", "c4")),
        Published(NOBODY, "e-6", "chat", 1, "e.3"),
    ]


def test_what_one_wants_to_hear_is_kept_beside_what_one_may() -> None:
    granted = Granted()
    granted.come("c1", "ann", grant=BLIND)
    granted.send(Subscribe("chat", C1, filter=Filter(types=("text", "user_joined"))))
    granted.come("c2", None, "chat", grant=OPEN)
    assert len(granted.heard_by("c1", granted.say("chat"))) == 1
    assert granted.heard_by("c1", granted.send(Publish("chat", {"type": "other"}, NOBODY))) == []
    granted.regrant("c1", OPEN)
    came = granted.come("c3", None, "chat", grant=OPEN)
    assert granted.heard_by("c1", came) == [came_or_went("user_joined", "chat", 3, "e.3", 5, "c3", None)]
    assert granted.heard_by("c1", granted.send(Publish("chat", {"type": "other"}, NOBODY))) == []
    # And a new join does not bring back what one may not.
    granted.regrant("c1", BLIND)
    granted.send(Subscribe("chat", C1))
    assert granted.heard_by("c1", granted.detach("c3")) == []
    assert granted.heard_by("c1", granted.send(Publish("chat", {"type": "other"}, NOBODY))) != []


def test_a_crowd_is_no_news_to_who_may_not_know_who_is_there() -> None:
    granted = Granted(presence_limit=2)
    granted.come("c1", "ann", "chat", grant=OPEN)
    granted.come("c2", "bob", "chat", grant=BLIND)
    effects = granted.come("c3", None, "chat", grant=OPEN)
    assert effects[1:] == [Deliver(presence_changed("chat", "e.3p2", 0, "presence_limit"), ("c1", "c3"))]


@pytest.mark.parametrize("join_leave", [True, False])
def test_who_may_know_from_now_on_who_is_there_or_no_longer_is_told_to_look(join_leave: bool) -> None:
    granted = Granted(Namespace(pattern="chat", join_leave=join_leave))
    granted.come("c1", "ann", "chat", "news", grant=OPEN)
    granted.come("c2", "bob", "chat", grant=OPEN)
    sees_news = Grant(presence=only("news"))
    lost = Deliver(presence_changed("chat", "e.3p", 2, "presence_denied"), ("c1",))
    gained = Deliver(presence_changed("chat", "e.3p", 3, "presence_granted"), ("c1",))
    assert granted.regrant("c1", sees_news) == ([lost] if join_leave else [])
    assert granted.regrant("c1", sees_news) == []
    heard = granted.heard_by("c1", granted.come("c3", None, "chat", grant=OPEN))
    assert heard == []
    assert granted.regrant("c1", OPEN) == ([gained] if join_leave else [])
    assert granted.regrant("c1", OPEN) == []
    # Those who hear the same are one group again.
    assert granted.say("chat")[0] == Deliver(published(IN_CHAT, 1, "e.3", 5 if join_leave else 2), ("c2", "c3", "c1"))


# Who somebody is


def test_what_is_told_about_somebody_is_told_wherever_they_are_named() -> None:
    granted = Granted()
    granted.come("c1", None, "chat", grant=OPEN)
    effects = granted.come("c2", "ann", "chat", grant=Grant(info=INFO))
    there = Roster(2, [member(None, "c1"), {**member("ann", "c2"), "info": INFO}], "e.2p", 2, None)
    came: Message = {"type": "user_joined", "channel": "chat", "user_id": "ann", "connection_id": "c2", "info": INFO}
    assert effects == [
        Joined(Request("c2"), "chat", 0, "e.2", Recovered(None, 0), there),
        Deliver(published(came, 2, "e.2p", 2, "c2", "ann"), ("c1", "c2"), skip="c2"),
    ]
    said = granted.send(Publish("chat", IN_CHAT, C2))[0]
    assert isinstance(said, Deliver)
    sender = {"connection_id": "c2", "user_id": "ann", "info": INFO}
    assert json.loads(said.message.json)["meta"]["sender"] == sender
    went = came_or_went("user_left", "chat", 3, "e.2", 4, "c2", "ann")
    assert granted.send(Unsubscribe("chat", C2))[1:] == [Deliver(went, ("c1",))]


def test_without_a_connection_one_is_told_about_likewise() -> None:
    granted = Granted()
    granted.come("c1", None, "chat", grant=OPEN)
    said = granted.send(Publish("chat", IN_CHAT, NOBODY, user_id="ann", grant=Grant(info={})))[0]
    assert isinstance(said, Deliver)
    sender = {"connection_id": None, "user_id": "ann", "info": {}}
    assert json.loads(said.message.json)["meta"]["sender"] == sender


def test_what_is_told_about_somebody_may_change() -> None:
    granted = Granted()
    granted.come("c1", "ann", "chat", grant=Grant(info={"name": "Ann"}))
    assert granted.regrant("c1", Grant(info={"name": "Anne"})) == []

    def members() -> list[Message] | None:
        there = granted.router.roster("chat")
        assert isinstance(there, Roster)
        return there.members

    assert members() == [{**member("ann", "c1"), "info": {"name": "Anne"}}]
    # Also while it is away: it is somebody who may come back.
    granted.detach("c1")
    assert members() == [{**member("ann", "c1"), "info": {"name": "Anne"}}]
    granted.come("c2", "ann", "chat", grant=Grant())
    assert members() == [member("ann", "c2")]
    granted.detach("c2")
    granted.wait_until(105.0)
    assert members() == []


def test_a_scope_that_excludes_nothing_adds_to_what_namespaces_say() -> None:
    granted = Granted(Namespace(pattern="vip:*", subscribe=Access.GRANTED))
    granted.come("c1", None, grant=Grant(subscribe=Scope(("vip:1",))))
    assert isinstance(granted.send(Subscribe("vip:1", C1))[0], Joined)
    assert isinstance(granted.send(Subscribe("vip:2", C1))[0], Refused)
    assert isinstance(granted.send(Subscribe("chat", C1))[0], Joined)
