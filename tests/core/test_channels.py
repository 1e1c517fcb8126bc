"""One channel: who is in it, who counts as present, and its numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtcore.channels import BROADCAST, Channel, Member, connection_channel, is_builtin, user_channel


@pytest.fixture
def channel() -> Channel:
    return Channel("chat", "e.1")


def test_names_of_built_in_channels() -> None:
    assert (BROADCAST, connection_channel("c1"), user_channel("42")) == ("$broadcast", "$connection:c1", "$user:42")
    assert all(is_builtin(name) for name in (BROADCAST, connection_channel(""), user_channel("")))
    assert not is_builtin("chat$")


def test_a_new_channel_is_empty(channel: Channel) -> None:
    assert (channel.name, channel.epoch, channel.offset, channel.presence_offset) == ("chat", "e.1", 0, 0)
    assert (len(channel), channel.subscribers, channel.member_count, channel.members()) == (0, (), 0, [])
    assert "c1" not in channel


def test_publications_and_presence_count_for_themselves(channel: Channel) -> None:
    assert [channel.next_offset(), channel.next_offset()] == [1, 2]
    assert [channel.next_presence_offset(), channel.next_offset()] == [1, 3]
    assert (channel.offset, channel.presence_offset) == (3, 1)


def test_a_user_is_present_from_the_first_connection_to_the_last(channel: Channel) -> None:
    assert channel.subscribe("c1", "ann")
    assert not channel.subscribe("c2", "ann")
    assert (len(channel), channel.member_count) == (2, 1)
    assert not channel.unsubscribe("c1")
    assert channel.members() == [Member("ann", "c2")]
    assert channel.unsubscribe("c2")
    assert (len(channel), channel.member_count, channel.subscribers) == (0, 0, ())


def test_everybody_anonymous_is_somebody_else(channel: Channel) -> None:
    assert channel.subscribe("c1", None)
    assert channel.subscribe("c2", None)
    assert channel.subscribe("c3", "c1")  # a user may be called like a connection
    assert channel.subscribe("c4", "")
    assert channel.members() == [Member(None, "c1"), Member(None, "c2"), Member("c1", "c3"), Member("", "c4")]
    assert channel.unsubscribe("c1")
    assert channel.members() == [Member(None, "c2"), Member("c1", "c3"), Member("", "c4")]


def test_subscribers_are_one_object_until_they_change(channel: Channel) -> None:
    channel.subscribe("c1", None)
    channel.subscribe("c2", None)
    before = channel.subscribers
    channel.next_offset()
    assert channel.subscribers is before
    channel.unsubscribe("c1")
    channel.subscribe("c1", None)
    assert (before, channel.subscribers) == (("c1", "c2"), ("c2", "c1"))


USERS = [None, "ann", "bob"]


@given(st.lists(st.tuples(st.sampled_from(["c1", "c2", "c3", "c4", "c5"]), st.sampled_from(USERS)), max_size=60))
def test_it_behaves_like_an_ordered_dictionary(steps: list[tuple[str, str | None]]) -> None:
    channel = Channel("chat", "e.1")
    model: dict[str, str | None] = {}
    for connection_id, user_id in steps:
        before = {user or connection: user for connection, user in model.items()}
        if connection_id in model:
            changed = channel.unsubscribe(connection_id)
            del model[connection_id]
        else:
            changed = channel.subscribe(connection_id, user_id)
            model[connection_id] = user_id
        present = {user or connection: user for connection, user in model.items()}
        assert changed is (present.keys() != before.keys())
        assert channel.subscribers == tuple(model)
        assert len(channel) == len(model)
        assert all((name in channel) is (name in model) for name in ["c1", "c2", "c3", "c4", "c5"])
        assert channel.member_count == len(present) == len(channel.members())
        for member in channel.members():
            same = [name for name, user in model.items() if (user or name) == (member.user_id or member.connection_id)]
            assert same[0] == member.connection_id
